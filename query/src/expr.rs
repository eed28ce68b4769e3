//! Expressions over one row's columns.
//!
//! An expression is what DataFusion's planner left of a filter, a group key or an argument after types were
//! coerced and constants folded: casts are explicit, literals carry their Arrow type. NULL follows SQL: an operator
//! with a NULL operand gives NULL, AND and OR use three-valued logic, and a filter keeps the rows that are true.
//! Functions are named as DataFusion names them and are evaluated by DataFusion's own code on the leaf, so an
//! expression means the same wherever it is computed.
//!
//! `And` and `Or` are n-ary on purpose: SQL's chains would otherwise be trees as deep as the chain is long.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;

/// An expression. See the module for what it means.
#[derive(Debug, Clone)]
pub enum Expr {
    /// A column by its exact name.
    Column(String),
    /// A literal: an array of exactly one value, of any Arrow type.
    Literal(ArrayRef),
    /// All of these (three-valued). Empty is true.
    And(Vec<Expr>),
    /// Any of these (three-valued). Empty is false.
    Or(Vec<Expr>),
    /// Not.
    Not(Box<Expr>),
    /// Arithmetic minus.
    Negative(Box<Expr>),
    /// IS NULL.
    IsNull(Box<Expr>),
    /// IS NOT NULL.
    IsNotNull(Box<Expr>),
    /// IS TRUE / IS NOT TRUE / IS FALSE / IS NOT FALSE: true when the operand is (not) that value.
    IsBool {
        /// The operand.
        operand: Box<Expr>,
        /// The value asked for.
        value: bool,
        /// IS NOT.
        negated: bool,
    },
    /// A binary operator.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
    },
    /// Membership in a list of literals: one array holds them all.
    InList {
        /// What is looked up.
        operand: Box<Expr>,
        /// The literals.
        list: ArrayRef,
        /// NOT IN.
        negated: bool,
    },
    /// LIKE and ILIKE.
    Like {
        /// The text.
        operand: Box<Expr>,
        /// The pattern.
        pattern: Box<Expr>,
        /// NOT LIKE.
        negated: bool,
        /// ILIKE.
        case_insensitive: bool,
        /// The escape character, `\` when absent.
        escape: Option<char>,
    },
    /// CASE.
    Case {
        /// `CASE operand WHEN …`.
        operand: Option<Box<Expr>>,
        /// WHEN, THEN.
        branches: Vec<(Expr, Expr)>,
        /// ELSE.
        otherwise: Option<Box<Expr>>,
    },
    /// CAST, or TRY_CAST when `lenient`.
    Cast {
        /// What is cast.
        operand: Box<Expr>,
        /// To which Arrow type.
        to: DataType,
        /// Values that do not fit become NULL instead of an error.
        lenient: bool,
    },
    /// A scalar function of DataFusion by its canonical name.
    Call {
        /// The name, lower case.
        function: String,
        /// The arguments.
        arguments: Vec<Expr>,
    },
}

/// A binary operator other than AND and OR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    Plus,
    Minus,
    Multiply,
    Divide,
    Modulo,
    IsDistinctFrom,
    IsNotDistinctFrom,
    RegexMatch,
    RegexIMatch,
    RegexNotMatch,
    RegexNotIMatch,
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    BitwiseShiftLeft,
    BitwiseShiftRight,
    StringConcat,
}

impl BinaryOp {
    /// Every operator with its SQL sign; the position is the operator's number on the wire, so new ones go last.
    pub const ALL: [(BinaryOp, &'static str); 23] = [
        (BinaryOp::Eq, "="),
        (BinaryOp::NotEq, "!="),
        (BinaryOp::Lt, "<"),
        (BinaryOp::LtEq, "<="),
        (BinaryOp::Gt, ">"),
        (BinaryOp::GtEq, ">="),
        (BinaryOp::Plus, "+"),
        (BinaryOp::Minus, "-"),
        (BinaryOp::Multiply, "*"),
        (BinaryOp::Divide, "/"),
        (BinaryOp::Modulo, "%"),
        (BinaryOp::IsDistinctFrom, "IS DISTINCT FROM"),
        (BinaryOp::IsNotDistinctFrom, "IS NOT DISTINCT FROM"),
        (BinaryOp::RegexMatch, "~"),
        (BinaryOp::RegexIMatch, "~*"),
        (BinaryOp::RegexNotMatch, "!~"),
        (BinaryOp::RegexNotIMatch, "!~*"),
        (BinaryOp::BitwiseAnd, "&"),
        (BinaryOp::BitwiseOr, "|"),
        (BinaryOp::BitwiseXor, "#"),
        (BinaryOp::BitwiseShiftLeft, "<<"),
        (BinaryOp::BitwiseShiftRight, ">>"),
        (BinaryOp::StringConcat, "||"),
    ];

    /// The operator as SQL writes it.
    pub fn sign(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("?", |(_, sign)| sign)
    }

    /// The same comparison with its sides swapped, for comparisons only.
    pub fn swapped(self) -> Option<BinaryOp> {
        match self {
            BinaryOp::Eq | BinaryOp::NotEq => Some(self),
            BinaryOp::Lt => Some(BinaryOp::Gt),
            BinaryOp::LtEq => Some(BinaryOp::GtEq),
            BinaryOp::Gt => Some(BinaryOp::Lt),
            BinaryOp::GtEq => Some(BinaryOp::LtEq),
            _ => None,
        }
    }
}

impl Expr {
    /// A column.
    pub fn column(name: impl Into<String>) -> Expr {
        Expr::Column(name.into())
    }

    /// A binary operator over two operands.
    pub fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
        Expr::Binary { op, left: Box::new(left), right: Box::new(right) }
    }

    /// The literal of an array's first value.
    ///
    /// # Panics
    /// When the array does not hold exactly one value: that is a bug of the caller, not input.
    pub fn literal(array: ArrayRef) -> Expr {
        assert_eq!(array.len(), 1, "a literal is an array of one value");
        Expr::Literal(array)
    }

    /// An int literal.
    pub fn int(value: i64) -> Expr {
        Expr::Literal(Arc::new(arrow::array::Int64Array::from(vec![value])))
    }

    /// A text literal.
    pub fn text(value: &str) -> Expr {
        Expr::Literal(Arc::new(arrow::array::StringArray::from(vec![value])))
    }

    /// The direct operands, in order.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Column(_) | Expr::Literal(_) => vec![],
            Expr::And(all) | Expr::Or(all) => all.iter().collect(),
            Expr::Not(e) | Expr::Negative(e) | Expr::IsNull(e) | Expr::IsNotNull(e) => vec![e],
            Expr::IsBool { operand, .. } | Expr::InList { operand, .. } | Expr::Cast { operand, .. } => {
                vec![operand]
            }
            Expr::Binary { left, right, .. } => vec![left, right],
            Expr::Like { operand, pattern, .. } => vec![operand, pattern],
            Expr::Case { operand, branches, otherwise } => {
                let mut children: Vec<&Expr> = operand.iter().map(|e| &**e).collect();
                children.extend(branches.iter().flat_map(|(when, then)| [when, then]));
                children.extend(otherwise.iter().map(|e| &**e));
                children
            }
            Expr::Call { arguments, .. } => arguments.iter().collect(),
        }
    }

    /// The direct operands, in order, to be changed.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Expr::Column(_) | Expr::Literal(_) => vec![],
            Expr::And(all) | Expr::Or(all) => all.iter_mut().collect(),
            Expr::Not(e) | Expr::Negative(e) | Expr::IsNull(e) | Expr::IsNotNull(e) => vec![e],
            Expr::IsBool { operand, .. } | Expr::InList { operand, .. } | Expr::Cast { operand, .. } => {
                vec![operand]
            }
            Expr::Binary { left, right, .. } => vec![left, right],
            Expr::Like { operand, pattern, .. } => vec![operand, pattern],
            Expr::Case { operand, branches, otherwise } => {
                let mut children: Vec<&mut Expr> = operand.iter_mut().map(|e| &mut **e).collect();
                children.extend(branches.iter_mut().flat_map(|(when, then)| [when, then]));
                children.extend(otherwise.iter_mut().map(|e| &mut **e));
                children
            }
            Expr::Call { arguments, .. } => arguments.iter_mut().collect(),
        }
    }

    /// Every column the expression names, each once, in order of first appearance.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns = Vec::new();
        let mut open = vec![self];
        while let Some(expr) = open.pop() {
            if let Expr::Column(name) = expr
                && !columns.contains(&name.as_str())
            {
                columns.push(name.as_str());
            }
            open.extend(expr.children().into_iter().rev());
        }
        columns
    }

    /// The conjuncts of a filter: the operands of a top-level AND, or the expression itself.
    pub fn conjuncts(&self) -> Vec<&Expr> {
        match self {
            Expr::And(all) => all.iter().flat_map(Expr::conjuncts).collect(),
            other => vec![other],
        }
    }
}

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let not = |negated: &bool| if *negated { "NOT " } else { "" };
        match self {
            Expr::Column(name) => f.write_str(name),
            Expr::Literal(array) => write_value(f, array, 0),
            Expr::And(all) => write_list(f, all, " AND "),
            Expr::Or(all) => write_list(f, all, " OR "),
            Expr::Not(e) => write!(f, "NOT {e}"),
            Expr::Negative(e) => write!(f, "-{e}"),
            Expr::IsNull(e) => write!(f, "{e} IS NULL"),
            Expr::IsNotNull(e) => write!(f, "{e} IS NOT NULL"),
            Expr::IsBool { operand, value, negated } => {
                write!(f, "{operand} IS {}{}", not(negated), if *value { "TRUE" } else { "FALSE" })
            }
            Expr::Binary { op, left, right } => write!(f, "({left} {} {right})", op.sign()),
            Expr::InList { operand, list, negated } => {
                write!(f, "{operand} {}IN (", not(negated))?;
                for index in 0..list.len().min(10) {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    write_value(f, list, index)?;
                }
                f.write_str(if list.len() > 10 { ", …)" } else { ")" })
            }
            Expr::Like { operand, pattern, negated, case_insensitive, .. } => {
                let word = if *case_insensitive { "ILIKE" } else { "LIKE" };
                write!(f, "{operand} {}{word} {pattern}", not(negated))
            }
            Expr::Case { operand, branches, otherwise } => {
                f.write_str("CASE")?;
                if let Some(operand) = operand {
                    write!(f, " {operand}")?;
                }
                for (when, then) in branches {
                    write!(f, " WHEN {when} THEN {then}")?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {otherwise}")?;
                }
                f.write_str(" END")
            }
            Expr::Cast { operand, to, lenient } => {
                write!(f, "{}CAST({operand} AS {to})", if *lenient { "TRY_" } else { "" })
            }
            Expr::Call { function, arguments } => {
                write!(f, "{function}(")?;
                for (index, argument) in arguments.iter().enumerate() {
                    write!(f, "{}{argument}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
        }
    }
}

fn write_list(f: &mut std::fmt::Formatter<'_>, all: &[Expr], between: &str) -> std::fmt::Result {
    f.write_str("(")?;
    for (index, expr) in all.iter().enumerate() {
        write!(f, "{}{expr}", if index == 0 { "" } else { between })?;
    }
    f.write_str(")")
}

fn write_value(f: &mut std::fmt::Formatter<'_>, array: &ArrayRef, index: usize) -> std::fmt::Result {
    if array.is_null(index) {
        return f.write_str("NULL");
    }
    let text = arrow::util::display::array_value_to_string(array, index).unwrap_or_else(|_| "?".to_owned());
    match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            write!(f, "'{}'", text.replace('\'', "''"))
        }
        _ => f.write_str(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_listed_once_in_order() {
        let expr = Expr::And(vec![
            Expr::binary(BinaryOp::Eq, Expr::column("b"), Expr::text("x")),
            Expr::binary(BinaryOp::Lt, Expr::column("a"), Expr::column("b")),
        ]);
        assert_eq!(expr.columns(), ["b", "a"]);
        assert_eq!(expr.to_string(), "((b = 'x') AND (a < b))");
    }
}
