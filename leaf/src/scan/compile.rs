//! From the plan's expressions to DataFusion's physical expressions.
//!
//! Expressions arrive with their types coerced and constants folded, so nothing is simplified here. Every node maps to
//! the physical expression that DataFusion's own planner makes of it, which is why an expression means the same on a
//! leaf and on the aggregator. A compiled expression is shared by all scanning threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::type_coercion::functions::fields_with_udf;
use datafusion_expr::{Operator, ScalarUDF, Volatility};
use datafusion_physical_expr::expressions::{
    Column, InListExpr, Literal, binary, case, cast as cast_expr, is_not_null, is_null, like, negative, not,
    try_cast,
};
use datafusion_physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use gannet_query::{BinaryOp, Expr};

use super::ScanError;
use super::prepare::ColumnSpec;

/// Every scalar function by name and alias.
static FUNCTIONS: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut functions = HashMap::new();
    let all = datafusion_functions::all_default_functions()
        .into_iter()
        .chain(datafusion_functions_nested::all_default_nested_functions());
    for function in all {
        for alias in function.aliases() {
            functions.entry(alias.clone()).or_insert_with(|| Arc::clone(&function));
        }
        functions.insert(function.name().to_owned(), function);
    }
    functions
});

static OPTIONS: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| Arc::new(ConfigOptions::default()));

/// An expression that can be evaluated over arrays of its columns.
#[derive(Debug)]
pub(super) struct Compiled {
    physical: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
    /// The columns it reads, as indices into the scan's columns; their arrays are given in this order.
    pub(super) columns: Vec<usize>,
    /// For each of them the first keys of the intervals that the expression is constant on, where it asks for no more.
    pub(super) cuts: Vec<Option<Vec<i64>>>,
    /// What it evaluates to.
    pub(super) data_type: DataType,
    /// It may give another value each time it is evaluated, so it is evaluated for every row.
    pub(super) volatile: bool,
    /// The expression as text, for errors.
    text: String,
    /// How many rows it is evaluated over between two looks at the deadline.
    pub(super) pace: Pace,
}

/// Rows of an expression that are evaluated at once: few where a row takes long, so that whoever wants the scan to stop
/// need not wait, and many where that costs nothing.
#[derive(Debug)]
pub(super) struct Pace(AtomicUsize);

/// An expression is first evaluated over this many rows.
const PACE_FIRST: usize = 64;
/// And over this many at most.
const PACE_MAX: usize = 8_192;
/// Stretches that take less than this become longer.
const STRETCH_SHORT: Duration = Duration::from_millis(2);
/// And those that take more than this shorter.
const STRETCH_LONG: Duration = Duration::from_millis(8);

impl Pace {
    fn first() -> Pace {
        Pace(AtomicUsize::new(PACE_FIRST))
    }

    /// How many rows come next.
    pub(super) fn rows(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes how long so many rows took.
    pub(super) fn took(&self, rows: usize, time: Duration) {
        if time < STRETCH_SHORT && rows >= self.rows() {
            self.0.store((rows * 2).min(PACE_MAX), Ordering::Relaxed);
        } else if time > STRETCH_LONG {
            let fits = rows as f64 * STRETCH_LONG.as_secs_f64() / time.as_secs_f64();
            self.0.store((fits as usize).max(1), Ordering::Relaxed);
        }
    }
}

impl Compiled {
    /// The values over `row_count` rows, one array for each of `columns`.
    pub(super) fn evaluate(&self, arrays: Vec<ArrayRef>, row_count: usize) -> Result<ArrayRef, ScanError> {
        let failed = |error: &dyn std::fmt::Display| ScanError::Evaluate(format!("{}: {error}", self.text));
        let options = RecordBatchOptions::new().with_row_count(Some(row_count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(|error| failed(&error))?;
        let values = self
            .physical
            .evaluate(&batch)
            .and_then(|value| value.into_array_of_size(row_count))
            .map_err(|error| failed(&reason(&error)))?;
        if values.data_type() == &self.data_type {
            return Ok(values);
        }
        cast(&values, &self.data_type).map_err(|error| failed(&error))
    }
}

/// The innermost message of an error, without the layers it passed through.
fn reason(error: &DataFusionError) -> String {
    match error {
        DataFusionError::ArrowError(error, _) => match &**error {
            ArrowError::CastError(text)
            | ArrowError::ComputeError(text)
            | ArrowError::InvalidArgumentError(text)
            | ArrowError::ParseError(text) => text.clone(),
            other => other.to_string(),
        },
        DataFusionError::Execution(text)
        | DataFusionError::Plan(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Internal(text) => text.clone(),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => reason(inner),
        other => other.strip_backtrace(),
    }
}

/// Compiles an expression over the scan's columns. `expected` is the type the plan says it has.
pub(super) fn compile(
    expr: &Expr,
    specs: &[ColumnSpec],
    expected: Option<&DataType>,
) -> Result<Compiled, ScanError> {
    let text = shorten(&expr.to_string());
    let failed = |error: DataFusionError| ScanError::Compile(format!("{text}: {}", reason(&error)));
    let mut columns = Vec::new();
    let mut fields = Vec::new();
    let mut cuts = Vec::new();
    for name in expr.columns() {
        let index = specs.iter().position(|spec| spec.name == name).ok_or_else(|| {
            ScanError::Compile(format!("{text}: column `{name}` is not among the plan's columns"))
        })?;
        columns.push(index);
        cuts.push(super::cuts::cuts(expr, name, specs[index].column_type));
        fields.push(Field::new(name, specs[index].column_type.arrow(), true));
    }
    let schema = Arc::new(Schema::new(fields));
    let mut compiler = Compiler { schema: &schema, volatile: false };
    let physical = compiler.expr(expr).map_err(failed)?;
    let volatile = compiler.volatile;
    let found = physical.data_type(&schema).map_err(failed)?;
    let data_type = expected.cloned().unwrap_or_else(|| found.clone());
    if found != data_type && !can_cast_types(&found, &data_type) {
        return Err(ScanError::Compile(format!("{text}: its type is {found}, not {data_type}")));
    }
    Ok(Compiled { physical, schema, columns, cuts, data_type, volatile, text, pace: Pace::first() })
}

/// A long text cut to what an error can carry.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

type Physical = Arc<dyn PhysicalExpr>;

struct Compiler<'a> {
    schema: &'a Schema,
    volatile: bool,
}

impl Compiler<'_> {
    fn expr(&mut self, expr: &Expr) -> Result<Physical, DataFusionError> {
        match expr {
            Expr::Column(name) => Ok(Arc::new(Column::new(name, self.schema.index_of(name)?))),
            Expr::Literal(value) => literal(value),
            Expr::And(all) => self.chain(Operator::And, all),
            Expr::Or(all) => self.chain(Operator::Or, all),
            Expr::Not(operand) => not(self.expr(operand)?),
            Expr::Negative(operand) => negative(self.expr(operand)?, self.schema),
            Expr::IsNull(operand) => is_null(self.expr(operand)?),
            Expr::IsNotNull(operand) => is_not_null(self.expr(operand)?),
            Expr::IsBool { operand, value, negated } => {
                let op = if *negated { Operator::IsDistinctFrom } else { Operator::IsNotDistinctFrom };
                let value = Arc::new(Literal::new(ScalarValue::from(*value)));
                binary(self.expr(operand)?, op, value, self.schema)
            }
            Expr::Binary { op, left, right } => {
                binary(self.expr(left)?, operator(*op), self.expr(right)?, self.schema)
            }
            Expr::InList { operand, list, negated } => self.in_list(operand, list, *negated),
            Expr::Like { operand, pattern, negated, case_insensitive, escape } => {
                if escape.is_some_and(|escape| escape != '\\') {
                    return Err(DataFusionError::Plan("like knows no escape character but \\".to_owned()));
                }
                let (operand, pattern) = (self.expr(operand)?, self.expr(pattern)?);
                like(*negated, *case_insensitive, operand, pattern, self.schema)
            }
            Expr::Case { operand, branches, otherwise } => {
                let operand = operand.as_ref().map(|operand| self.expr(operand)).transpose()?;
                let mut compiled = Vec::with_capacity(branches.len());
                for (when, then) in branches {
                    compiled.push((self.expr(when)?, self.expr(then)?));
                }
                let otherwise = otherwise.as_ref().map(|otherwise| self.expr(otherwise)).transpose()?;
                case(operand, compiled, otherwise)
            }
            Expr::Cast { operand, to, lenient: false } => {
                cast_expr(self.expr(operand)?, self.schema, to.clone())
            }
            Expr::Cast { operand, to, lenient: true } => {
                try_cast(self.expr(operand)?, self.schema, to.clone())
            }
            Expr::Call { function, arguments } => self.call(function, arguments),
        }
    }

    /// A balanced tree, so that a chain of thousands is no deeper than its logarithm.
    fn chain(&mut self, op: Operator, all: &[Expr]) -> Result<Physical, DataFusionError> {
        match all {
            [] => Ok(Arc::new(Literal::new(ScalarValue::from(op == Operator::And)))),
            [one] => self.expr(one),
            all => {
                let (left, right) = all.split_at(all.len() / 2);
                binary(self.chain(op, left)?, op, self.chain(op, right)?, self.schema)
            }
        }
    }

    fn in_list(
        &mut self,
        operand: &Expr,
        list: &ArrayRef,
        negated: bool,
    ) -> Result<Physical, DataFusionError> {
        if list.is_empty() {
            return Ok(Arc::new(Literal::new(ScalarValue::from(negated))));
        }
        let operand = self.expr(operand)?;
        Ok(Arc::new(InListExpr::try_new_from_array(operand, Arc::clone(list), negated, self.schema)?))
    }

    fn call(&mut self, name: &str, arguments: &[Expr]) -> Result<Physical, DataFusionError> {
        let function = FUNCTIONS
            .get(name)
            .ok_or_else(|| DataFusionError::Plan(format!("function `{name}` does not exist")))?;
        self.volatile |= function.signature().volatility == Volatility::Volatile;
        let mut compiled = Vec::with_capacity(arguments.len());
        let mut fields = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let argument = self.expr(argument)?;
            fields.push(argument.return_field(self.schema)?);
            compiled.push(argument);
        }
        // A function takes only what it was coerced for and may panic on other types; a plan comes from the wire.
        let wanted = fields_with_udf(&fields, &**function)?;
        for ((argument, found), wanted) in compiled.iter_mut().zip(&fields).zip(&wanted) {
            if found.data_type() != wanted.data_type() {
                *argument = cast_expr(Arc::clone(argument), self.schema, wanted.data_type().clone())?;
            }
        }
        let function = Arc::clone(function);
        Ok(Arc::new(ScalarFunctionExpr::try_new(function, compiled, self.schema, Arc::clone(&OPTIONS))?))
    }
}

fn literal(value: &ArrayRef) -> Result<Physical, DataFusionError> {
    if value.len() != 1 {
        return Err(DataFusionError::Plan(format!("a literal holds {} values, not 1", value.len())));
    }
    Ok(Arc::new(Literal::new(ScalarValue::try_from_array(value, 0)?)))
}

fn operator(op: BinaryOp) -> Operator {
    match op {
        BinaryOp::Eq => Operator::Eq,
        BinaryOp::NotEq => Operator::NotEq,
        BinaryOp::Lt => Operator::Lt,
        BinaryOp::LtEq => Operator::LtEq,
        BinaryOp::Gt => Operator::Gt,
        BinaryOp::GtEq => Operator::GtEq,
        BinaryOp::Plus => Operator::Plus,
        BinaryOp::Minus => Operator::Minus,
        BinaryOp::Multiply => Operator::Multiply,
        BinaryOp::Divide => Operator::Divide,
        BinaryOp::Modulo => Operator::Modulo,
        BinaryOp::IsDistinctFrom => Operator::IsDistinctFrom,
        BinaryOp::IsNotDistinctFrom => Operator::IsNotDistinctFrom,
        BinaryOp::RegexMatch => Operator::RegexMatch,
        BinaryOp::RegexIMatch => Operator::RegexIMatch,
        BinaryOp::RegexNotMatch => Operator::RegexNotMatch,
        BinaryOp::RegexNotIMatch => Operator::RegexNotIMatch,
        BinaryOp::BitwiseAnd => Operator::BitwiseAnd,
        BinaryOp::BitwiseOr => Operator::BitwiseOr,
        BinaryOp::BitwiseXor => Operator::BitwiseXor,
        BinaryOp::BitwiseShiftLeft => Operator::BitwiseShiftLeft,
        BinaryOp::BitwiseShiftRight => Operator::BitwiseShiftRight,
        BinaryOp::StringConcat => Operator::StringConcat,
    }
}
