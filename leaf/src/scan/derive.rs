//! Columns that are worked out of others: how many characters texts have, how many items lists.
//!
//! `length(url)` needs no URL put together: its shape, its words and its numbers tell; and where the lists of a block begin
//! tells their lengths. So before a plan is compiled, such a call becomes a column of ints of its own, which a run makes
//! of the values as it holds them (see [`super::columns`]). Whatever is then done with ints on codes is done with lengths
//! as well.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use gannet_query::{ColumnType, Expr, Plan};

/// DataFusion's names for the functions, whatever a user called them by; what they are called for, and what they evaluate
/// to.
const LENGTHS: [(&str, ColumnType, DataType); 2] = [
    ("character_length", ColumnType::String, DataType::Int32),
    ("array_length", ColumnType::Strings, DataType::UInt64),
];

/// A plan whose lengths of texts and lists are columns, which are the last ones; and for each of these the name of the
/// column with the texts or lists.
pub(super) fn derive(plan: &Plan) -> (Cow<'_, Plan>, Vec<String>) {
    let mut derived = Derived::default();
    if !has_lengths(plan) {
        return (Cow::Borrowed(plan), derived.sources);
    }
    let mut plan = plan.clone();
    let known = std::mem::take(&mut plan.columns);
    plan.exprs_mut().into_iter().for_each(|expr| derived.replace(expr, &known));
    plan.columns = known;
    plan.columns.extend(derived.names.into_iter().map(|name| (name, ColumnType::Int)));
    (Cow::Owned(plan), derived.sources)
}

fn has_lengths(plan: &Plan) -> bool {
    let mut open = plan.exprs();
    while let Some(expr) = open.pop() {
        if matches!(expr, Expr::Call { function, .. } if length(function).is_some()) {
            return true;
        }
        open.extend(expr.children());
    }
    false
}

/// What a function of this name counts in, and what it evaluates to, if it is one of lengths.
fn length(function: &str) -> Option<(ColumnType, DataType)> {
    let of = LENGTHS.into_iter().find(|(name, ..)| *name == function);
    of.map(|(_, of, data_type)| (of, data_type))
}

/// The new columns and what they are made of.
#[derive(Default)]
struct Derived {
    names: Vec<String>,
    sources: Vec<String>,
}

impl Derived {
    fn replace(&mut self, expr: &mut Expr, known: &[(String, ColumnType)]) {
        match self.replaced(expr, known) {
            Some(new) => *expr = new,
            None => expr.children_mut().into_iter().for_each(|child| self.replace(child, known)),
        }
    }

    /// The expression over the new column. Ints of 64 bits are what a column has, so literals next to it become such, too.
    fn replaced(&mut self, expr: &Expr, known: &[(String, ColumnType)]) -> Option<Expr> {
        match expr {
            Expr::Call { function, .. } => {
                let (_, to) = length(function)?;
                let operand = Box::new(self.column(expr, known)?);
                Some(Expr::Cast { operand, to, lenient: false })
            }
            Expr::Cast { operand, to: DataType::Int64, .. } => self.column(operand, known),
            Expr::Cast { operand, to, lenient } => {
                let operand = Box::new(self.column(operand, known)?);
                Some(Expr::Cast { operand, to: to.clone(), lenient: *lenient })
            }
            Expr::IsNull(operand) => Some(Expr::IsNull(Box::new(self.column(operand, known)?))),
            Expr::IsNotNull(operand) => Some(Expr::IsNotNull(Box::new(self.column(operand, known)?))),
            Expr::Binary { op, left, right } if op.swapped().is_some() => {
                let (left, right) = match (&**left, &**right) {
                    (left, Expr::Literal(value)) => {
                        (self.column(left, known)?, Expr::Literal(widened(value)?))
                    }
                    (Expr::Literal(value), right) => {
                        (Expr::Literal(widened(value)?), self.column(right, known)?)
                    }
                    (left, right) => (self.column(left, known)?, self.column(right, known)?),
                };
                Some(Expr::Binary { op: *op, left: Box::new(left), right: Box::new(right) })
            }
            Expr::InList { operand, list, negated } => {
                let operand = Box::new(self.column(operand, known)?);
                Some(Expr::InList { operand, list: widened(list)?, negated: *negated })
            }
            _ => None,
        }
    }

    /// The new column, when the expression is the length of a column.
    fn column(&mut self, expr: &Expr, known: &[(String, ColumnType)]) -> Option<Expr> {
        let Expr::Call { function, arguments } = expr else { return None };
        let [Expr::Column(source)] = &arguments[..] else { return None };
        let (of, _) = length(function)?;
        let name = format!("{function}({source})");
        let has_length = known.iter().any(|(name, known)| name == source && *known == of);
        if !has_length || known.iter().any(|(other, _)| *other == name) {
            return None;
        }
        if !self.names.contains(&name) {
            self.names.push(name.clone());
            self.sources.push(source.clone());
        }
        Some(Expr::Column(name))
    }
}

/// Lengths as ints of 64 bits.
fn widened(values: &ArrayRef) -> Option<ArrayRef> {
    match values.data_type() {
        DataType::Int64 => Some(Arc::clone(values)),
        data_type if LENGTHS.iter().any(|(.., length)| length == data_type) => {
            let wide = cast(values, &DataType::Int64).ok()?;
            // What is too large for 64 bits with a sign has become NULL.
            (wide.null_count() == values.null_count()).then_some(wide)
        }
        _ => None,
    }
}
