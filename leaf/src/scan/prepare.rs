//! What a scan works out once per plan and all its threads share: columns, compiled expressions, and what is known
//! about them.

use arrow::array::Array;
use arrow::datatypes::{DataType, SchemaRef};
use gannet_query::{
    Aggregate, AggregateFunction, BinaryOp, ColumnType, Expr, Key, Output, OutputColumn, Plan,
    SAMPLE_RATE_COLUMN, States, TIME_COLUMN, WeightKind,
};

use super::ScanError;
use super::arithmetic::{Formula, formula};
use super::compile::{Compiled, compile};
use super::float_comparisons::{FloatComparison, float_comparison};
use super::float_formulas;
use super::floats::float_test;
use super::ints::{IntTest, int_test};
use super::steps::{Step, step};
use super::text_tests::{ColumnTest, column_test, hints};
use crate::text::TextTest;

/// A column the scan reads, in the type the plan gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ColumnSpec {
    pub(super) name: String,
    pub(super) column_type: ColumnType,
    /// The column that holds the texts whose lengths these are (see [`super::derive`]).
    pub(super) lengths_of: Option<usize>,
}

/// One operand of the filter's AND.
#[derive(Debug)]
pub(super) struct Conjunct {
    pub(super) compiled: Compiled,
    /// The column and the test, when it is no more than a comparison of ints.
    pub(super) int_test: Option<(usize, IntTest)>,
    /// The column and the test, when it is one that stored text or lists may answer.
    pub(super) column_test: Option<(usize, ColumnTest)>,
    /// A column and tests that each row must pass, when the conjunct is more than they say.
    pub(super) hints: Option<(usize, Vec<TextTest>)>,
    /// The column, the comparison and the literal, when it compares a float column with one.
    pub(super) float_test: Option<(usize, BinaryOp, f64)>,
    /// When it compares floats that are no more than arithmetic.
    pub(super) float_comparison: Option<FloatComparison>,
}

/// A group key.
#[derive(Debug)]
pub(super) struct KeyPlan {
    pub(super) compiled: Compiled,
    /// The column, when the key is no more than that.
    pub(super) column: Option<usize>,
    /// The steps of time it is constant on.
    pub(super) step: Option<Step>,
}

/// An aggregate; argument and filter are indices into [`GroupsPlan`].
#[derive(Debug)]
pub(super) struct AggregatePlan<'p> {
    pub(super) aggregate: &'p Aggregate,
    pub(super) argument: Option<usize>,
    pub(super) filter: Option<usize>,
}

/// An argument that one or more aggregates share.
#[derive(Debug)]
pub(super) struct ArgumentPlan {
    pub(super) compiled: Compiled,
    pub(super) column: Option<usize>,
    /// The int column that the argument is, as floats.
    pub(super) float_of: Option<usize>,
    /// The expression, when it is no more than arithmetic of ints.
    pub(super) formula: Option<Formula>,
    /// The expression, when it is no more than arithmetic of floats and their functions.
    pub(super) floats: Option<float_formulas::Formula>,
}

/// What is asked, compiled.
#[derive(Debug)]
pub(super) enum OutputPlan<'p> {
    Groups(GroupsPlan<'p>),
    Rows(RowsPlan<'p>),
}

/// Groups, compiled.
#[derive(Debug)]
pub(super) struct GroupsPlan<'p> {
    pub(super) keys: Vec<KeyPlan>,
    pub(super) aggregates: Vec<AggregatePlan<'p>>,
    pub(super) arguments: Vec<ArgumentPlan>,
    pub(super) filters: Vec<Vec<Conjunct>>,
}

/// Rows, compiled.
#[derive(Debug)]
pub(super) struct RowsPlan<'p> {
    pub(super) columns: Vec<KeyPlan>,
    pub(super) schema: SchemaRef,
    pub(super) order_by: &'p [gannet_query::OrderBy],
    pub(super) limit: Option<u64>,
    /// The order's first term is `time` itself; true when the latest come first.
    pub(super) by_time: Option<bool>,
    /// The order's first term is another column of numbers.
    pub(super) by_value: Option<ByValue>,
}

/// An order that begins with a column of ints, floats or times.
#[derive(Debug, Clone, Copy)]
pub(super) struct ByValue {
    pub(super) column: usize,
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
}

/// A plan, ready to be scanned.
#[derive(Debug)]
pub(super) struct Prepared<'p> {
    pub(super) plan: &'p Plan,
    pub(super) specs: Vec<ColumnSpec>,
    pub(super) time: usize,
    /// The weights' column, unless every row is one event.
    pub(super) weight: Option<usize>,
    pub(super) conjuncts: Vec<Conjunct>,
    pub(super) output: OutputPlan<'p>,
}

/// Compiles a plan whose last columns are the lengths of these.
pub(super) fn prepare<'p>(plan: &'p Plan, lengths_of: &[String]) -> Result<Prepared<'p>, ScanError> {
    let mut specs: Vec<ColumnSpec> = Vec::with_capacity(plan.columns.len() + 2);
    for (name, column_type) in &plan.columns {
        if specs.iter().any(|spec| &spec.name == name) {
            return Err(ScanError::Compile(format!("column `{name}`: it is listed twice")));
        }
        specs.push(ColumnSpec { name: name.clone(), column_type: *column_type, lengths_of: None });
    }
    let first_derived = specs.len().saturating_sub(lengths_of.len());
    for (index, source) in (first_derived..).zip(lengths_of) {
        specs[index].lengths_of = specs.iter().position(|spec| &spec.name == source);
    }
    // Expressions see the plan's columns and no others; what the scan itself needs is added behind them.
    let known = specs.len();
    let mut need = |name: &str, column_type: ColumnType| {
        let spec = ColumnSpec { name: name.to_owned(), column_type, lengths_of: None };
        specs.iter().position(|known| known == &spec).unwrap_or_else(|| {
            specs.push(spec);
            specs.len() - 1
        })
    };
    let time = need(TIME_COLUMN, ColumnType::Time);
    let weight = match plan.weight {
        WeightKind::One => None,
        WeightKind::Int => Some(need(SAMPLE_RATE_COLUMN, ColumnType::Int)),
        WeightKind::Float => Some(need(SAMPLE_RATE_COLUMN, ColumnType::Float)),
    };
    let visible = &specs[..known];
    let conjuncts =
        plan.filter.as_ref().map_or_else(|| Ok(Vec::new()), |filter| conjuncts(filter, visible))?;
    let output = match &plan.output {
        Output::Groups { keys, aggregates } => OutputPlan::Groups(groups(plan, keys, aggregates, visible)?),
        Output::Rows { columns, order_by, limit } => {
            OutputPlan::Rows(rows(columns, order_by, *limit, visible)?)
        }
    };
    Ok(Prepared { plan, time, weight, conjuncts, output, specs })
}

/// The operands of a filter's AND, compiled.
pub(super) fn conjuncts(filter: &Expr, specs: &[ColumnSpec]) -> Result<Vec<Conjunct>, ScanError> {
    let conjunct = |expr: &Expr| {
        let compiled = compile(expr, specs, Some(&DataType::Boolean))?;
        Ok(Conjunct {
            compiled,
            int_test: int_test(expr, specs),
            column_test: column_test(expr, specs),
            hints: hints(expr, specs),
            float_test: float_test(expr, specs),
            float_comparison: float_comparison(expr, specs),
        })
    };
    filter.conjuncts().into_iter().map(conjunct).collect()
}

fn key(expr: &Expr, data_type: &DataType, specs: &[ColumnSpec]) -> Result<KeyPlan, ScanError> {
    let compiled = compile(expr, specs, Some(data_type))?;
    let column = plain_column(expr, data_type, specs);
    let step = if column.is_none() && !compiled.volatile { step(expr, specs) } else { None };
    Ok(KeyPlan { compiled, column, step })
}

/// The column, when the expression is that column in its own type.
fn plain_column(expr: &Expr, data_type: &DataType, specs: &[ColumnSpec]) -> Option<usize> {
    let Expr::Column(name) = expr else { return None };
    specs.iter().position(|spec| &spec.name == name && &spec.column_type.arrow() == data_type)
}

/// The column of lengths, when the expression is that column in the type that the function for them has.
fn lengths(expr: &Expr, data_type: &DataType, specs: &[ColumnSpec]) -> Option<usize> {
    let Expr::Cast { operand, to, .. } = expr else { return None };
    let column = plain_column(operand, &DataType::Int64, specs).filter(|_| to == data_type)?;
    specs[column].lengths_of.filter(|_| to.is_integer()).map(|_| column)
}

/// The int column, when the expression is that column cast to floats.
fn float_of(expr: &Expr, data_type: &DataType, specs: &[ColumnSpec]) -> Option<usize> {
    match expr {
        Expr::Cast { operand, to: DataType::Float64, .. } if data_type == &DataType::Float64 => {
            plain_column(operand, &DataType::Int64, specs)
        }
        _ => None,
    }
}

fn groups<'p>(
    plan: &Plan,
    keys: &[Key],
    aggregates: &'p [Aggregate],
    specs: &[ColumnSpec],
) -> Result<GroupsPlan<'p>, ScanError> {
    let keys =
        keys.iter().map(|key_of| key(&key_of.expr, &key_of.data_type, specs)).collect::<Result<_, _>>()?;
    let mut arguments: Vec<(&Expr, &DataType)> = Vec::new();
    let mut filters: Vec<&Expr> = Vec::new();
    let mut plans = Vec::with_capacity(aggregates.len());
    for aggregate in aggregates {
        // What a state refuses is refused before the first row is read.
        States::new(aggregate, plan.weight)?;
        let wanted = aggregate.argument.as_ref().filter(|_| aggregate.function != AggregateFunction::Count);
        let argument = wanted.map(|(expr, data_type)| {
            let shared = arguments
                .iter()
                .position(|(known, known_type)| *known_type == data_type && is_same(known, expr));
            shared.unwrap_or_else(|| {
                arguments.push((expr, data_type));
                arguments.len() - 1
            })
        });
        let filter = aggregate.filter.as_ref().map(|filter| {
            filters.iter().position(|known| is_same(known, filter)).unwrap_or_else(|| {
                filters.push(filter);
                filters.len() - 1
            })
        });
        plans.push(AggregatePlan { aggregate, argument, filter });
    }
    let argument = |(expr, data_type): (&Expr, &DataType)| {
        let compiled = compile(expr, specs, Some(data_type))?;
        let column = plain_column(expr, data_type, specs).or_else(|| lengths(expr, data_type, specs));
        let formula = formula(expr, data_type, specs);
        let floats = match data_type {
            DataType::Float64 => float_formulas::formula(expr, specs).filter(|formula| formula.has_column()),
            _ => None,
        };
        Ok(ArgumentPlan { compiled, column, float_of: float_of(expr, data_type, specs), formula, floats })
    };
    let arguments = arguments.into_iter().map(argument).collect::<Result<_, ScanError>>()?;
    let filters = filters.into_iter().map(|filter| conjuncts(filter, specs)).collect::<Result<_, _>>()?;
    Ok(GroupsPlan { keys, aggregates: plans, arguments, filters })
}

fn rows<'p>(
    columns: &[OutputColumn],
    order_by: &'p [gannet_query::OrderBy],
    limit: Option<u64>,
    specs: &[ColumnSpec],
) -> Result<RowsPlan<'p>, ScanError> {
    if let Some(term) = order_by.iter().find(|term| term.column >= columns.len()) {
        let count = columns.len();
        return Err(ScanError::Compile(format!("order by column {}: there are {count}", term.column)));
    }
    let by_time = order_by.first().and_then(|term| match &columns[term.column].expr {
        Expr::Column(name) if name == TIME_COLUMN => Some(term.descending),
        _ => None,
    });
    let fields: Vec<arrow::datatypes::Field> = columns
        .iter()
        .map(|column| arrow::datatypes::Field::new(&column.name, column.data_type.clone(), true))
        .collect();
    let columns: Vec<KeyPlan> =
        columns.iter().map(|column| key(&column.expr, &column.data_type, specs)).collect::<Result<_, _>>()?;
    let by_value = order_by.first().filter(|_| by_time.is_none()).and_then(|term| {
        let column = columns[term.column].column?;
        let is_number =
            matches!(specs[column].column_type, ColumnType::Int | ColumnType::Float | ColumnType::Time);
        let by = ByValue { column, descending: term.descending, nulls_first: term.nulls_first };
        is_number.then_some(by)
    });
    let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
    Ok(RowsPlan { columns, schema, order_by, limit, by_time, by_value })
}

/// True when two expressions are written alike, literal by literal.
fn is_same(a: &Expr, b: &Expr) -> bool {
    let arrays = |a: &arrow::array::ArrayRef, b: &arrow::array::ArrayRef| {
        a.data_type() == b.data_type() && a.to_data() == b.to_data()
    };
    let node = match (a, b) {
        (Expr::Column(a), Expr::Column(b)) => a == b,
        (Expr::Literal(a), Expr::Literal(b)) => arrays(a, b),
        (Expr::And(_), Expr::And(_))
        | (Expr::Or(_), Expr::Or(_))
        | (Expr::Not(_), Expr::Not(_))
        | (Expr::Negative(_), Expr::Negative(_))
        | (Expr::IsNull(_), Expr::IsNull(_))
        | (Expr::IsNotNull(_), Expr::IsNotNull(_)) => true,
        (Expr::IsBool { value, negated, .. }, Expr::IsBool { value: v, negated: n, .. }) => {
            value == v && negated == n
        }
        (Expr::Binary { op, .. }, Expr::Binary { op: other, .. }) => op == other,
        (Expr::InList { list, negated, .. }, Expr::InList { list: l, negated: n, .. }) => {
            negated == n && arrays(list, l)
        }
        (
            Expr::Like { negated, case_insensitive, escape, .. },
            Expr::Like { negated: n, case_insensitive: c, escape: e, .. },
        ) => negated == n && case_insensitive == c && escape == e,
        (
            Expr::Case { operand, branches, otherwise },
            Expr::Case { operand: o, branches: b, otherwise: e },
        ) => {
            operand.is_some() == o.is_some()
                && branches.len() == b.len()
                && otherwise.is_some() == e.is_some()
        }
        (Expr::Cast { to, lenient, .. }, Expr::Cast { to: t, lenient: l, .. }) => to == t && lenient == l,
        (Expr::Call { function, .. }, Expr::Call { function: other, .. }) => function == other,
        _ => false,
    };
    let (mine, theirs) = (a.children(), b.children());
    node && mine.len() == theirs.len() && mine.iter().zip(&theirs).all(|(a, b)| is_same(a, b))
}
