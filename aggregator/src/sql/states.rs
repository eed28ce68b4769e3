//! Which states the leaves keep for the aggregates of a query, and how each aggregate is finished from them.
//!
//! Aggregates share states where they can: count(x), sum(x) and avg(x) of one argument, filter and weight are one
//! state, all percentiles of one argument are one sketch, and what is written twice is one.
//!
//! An aggregate whose argument names `sample_rate` is weighted by hand already and runs over the stored rows:
//! `sum(x * sample_rate) / sum(sample_rate)` means what it says.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunctionParams, NullTreatment};
use datafusion::logical_expr::{AggregateUDF, Expr as SqlExpr, ExprSchemable};
use gannet_query::{
    Aggregate, AggregateFunction, Expr, Finish, HistogramBuckets, SAMPLE_RATE_COLUMN, States, TIME_COLUMN,
    WeightKind,
};

use super::exec::GroupColumn;
use super::functions::{Histogram, Percentile, Unweighted};
use super::tables::GannetTable;
use super::translate::translate;

/// The states of one pushed Aggregate.
pub(super) struct StateList<'a> {
    table: &'a GannetTable,
    schema: datafusion::common::DFSchema,
    states: Vec<State>,
}

/// A state with what makes it the same as another one.
struct State {
    argument: Option<SqlExpr>,
    filter: Option<SqlExpr>,
    aggregate: Aggregate,
}

/// What an aggregate of SQL needs.
struct Need {
    function: AggregateFunction,
    argument: Option<SqlExpr>,
    finish: Finish,
}

impl<'a> StateList<'a> {
    /// No states yet.
    pub(super) fn new(table: &'a GannetTable) -> StateList<'a> {
        let schema = datafusion::common::DFSchema::try_from(table.schema.as_ref().clone())
            .unwrap_or_else(|_| datafusion::common::DFSchema::empty());
        StateList { table, schema, states: Vec::new() }
    }

    /// The column that an aggregate becomes; `None` when leaves cannot compute it.
    pub(super) fn add(&mut self, expr: &SqlExpr) -> Result<Option<GroupColumn>> {
        let SqlExpr::AggregateFunction(call) = unaliased(expr) else { return Ok(None) };
        let (udaf, unweighted) = match call.func.inner().downcast_ref::<Unweighted>() {
            Some(wrapper) => (wrapper.inner(), true),
            None => (&call.func, false),
        };
        let Some(mut need) = need(udaf, &call.params) else { return Ok(None) };
        if need.function == AggregateFunction::Sum && need.finish != Finish::Sum {
            need.argument = need.argument.map(|argument| self.without_float_cast(argument));
        }
        let by_hand = call.params.args.iter().any(names_sample_rate);
        // Without sample_rate both forms are the same, and share a state.
        let stored = self.table.weight != WeightKind::One && (unweighted || by_hand);
        let weighted = takes_weight(&need.function) && !stored;
        let argument = match &need.argument {
            None => None,
            Some(argument) => match self.argument(argument, &need.function)? {
                Some(argument) => Some(argument),
                None => return Ok(None),
            },
        };
        let filter = match &call.params.filter {
            None => None,
            Some(filter) => match translate(&unqualified(filter)?) {
                Some(filter) => Some(filter),
                None => return Ok(None),
            },
        };
        let data_type = argument.as_ref().map_or(DataType::Null, |(_, data_type)| data_type.clone());
        let adds = matches!(need.finish, Finish::Sum | Finish::Average);
        if adds && !matches!(data_type, DataType::Int64 | DataType::Float64) {
            // The state of any other type only counts.
            return Ok(None);
        }
        let aggregate = Aggregate { function: need.function, argument, filter, weighted };
        if States::array_types(&aggregate, self.table.weight).is_err()
            || States::new(&aggregate, self.table.weight).is_err()
        {
            return Ok(None);
        }
        let state =
            State { argument: need.argument, filter: call.params.filter.as_deref().cloned(), aggregate };
        Ok(Some(GroupColumn::State(self.place(state), need.finish, data_type)))
    }

    /// The argument as a leaf understands it, in the type the state wants.
    fn argument(&self, argument: &SqlExpr, function: &AggregateFunction) -> Result<Option<(Expr, DataType)>> {
        let argument = unqualified(argument)?;
        let data_type = argument.get_type(&self.schema)?;
        let Some(expr) = translate(&argument) else { return Ok(None) };
        let wanted = match function {
            AggregateFunction::Moments | AggregateFunction::Quantiles | AggregateFunction::Histogram(_) => {
                DataType::Float64
            }
            AggregateFunction::Sum if data_type.is_integer() => DataType::Int64,
            AggregateFunction::Sum if data_type.is_floating() => DataType::Float64,
            _ => data_type.clone(),
        };
        if wanted == data_type {
            return Ok(Some((expr, data_type)));
        }
        Ok(Some((Expr::Cast { operand: Box::new(expr), to: wanted.clone(), lenient: false }, wanted)))
    }

    /// avg casts ints to floats before it adds; the state adds ints exactly and divides at the end.
    fn without_float_cast(&self, argument: SqlExpr) -> SqlExpr {
        let SqlExpr::Cast(cast) = &argument else { return argument };
        let SqlExpr::Column(column) = &*cast.expr else { return argument };
        let field = self.table.schema.field_with_name(&column.name);
        let is_int = field.is_ok_and(|field| field.data_type() == &DataType::Int64);
        match is_int && cast.field.data_type() == &DataType::Float64 {
            true => (*cast.expr).clone(),
            false => argument,
        }
    }

    fn place(&mut self, state: State) -> usize {
        let same = |known: &State| {
            known.aggregate.function == state.aggregate.function
                && known.aggregate.weighted == state.aggregate.weighted
                && known.argument == state.argument
                && known.filter == state.filter
        };
        if let Some(place) = self.states.iter().position(same) {
            return place;
        }
        self.states.push(state);
        self.states.len() - 1
    }

    /// What the leaves are asked for.
    pub(super) fn into_aggregates(self) -> Vec<Aggregate> {
        self.states.into_iter().map(|state| state.aggregate).collect()
    }
}

fn unaliased(expr: &SqlExpr) -> &SqlExpr {
    match expr {
        SqlExpr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

/// The expression with bare column names, as the table's own schema has them.
fn unqualified(expr: &SqlExpr) -> Result<SqlExpr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let bare = |node: SqlExpr| {
        Ok(match node {
            SqlExpr::Column(column) if column.relation.is_some() => {
                Transformed::yes(SqlExpr::Column(datafusion::common::Column::new_unqualified(column.name)))
            }
            other => Transformed::no(other),
        })
    };
    Ok(expr.clone().transform_up(bare)?.data)
}

/// True when an expression reads the column `sample_rate`.
pub(super) fn names_sample_rate(expr: &SqlExpr) -> bool {
    expr.column_refs().iter().any(|column| column.name == SAMPLE_RATE_COLUMN)
}

fn takes_weight(function: &AggregateFunction) -> bool {
    matches!(
        function,
        AggregateFunction::Count
            | AggregateFunction::Sum
            | AggregateFunction::Moments
            | AggregateFunction::Quantiles
            | AggregateFunction::Histogram(_)
    )
}

fn need(udaf: &AggregateUDF, params: &AggregateFunctionParams) -> Option<Need> {
    let argument = params.args.first().cloned();
    let with = |function, finish| Some(Need { function, argument: argument.clone(), finish });
    if let Some(percentile) = udaf.inner().downcast_ref::<Percentile>() {
        let fraction = percentile.fraction(params)?;
        return match params.distinct {
            true => None,
            false => with(AggregateFunction::Quantiles, Finish::Quantile(fraction)),
        };
    }
    if udaf.inner().downcast_ref::<Histogram>().is_some() {
        return match params.distinct {
            true => None,
            false => with(AggregateFunction::Histogram(histogram_buckets(&params.args)?), Finish::Histogram),
        };
    }
    match udaf.name() {
        "first_value" | "last_value" => return first_or_last(udaf.name(), params),
        _ if !params.order_by.is_empty() => return None,
        _ => {}
    }
    match (udaf.name(), params.distinct) {
        ("count", false) => count(params),
        ("count", true) if params.args.len() == 1 => with(AggregateFunction::Distinct, Finish::DistinctCount),
        ("approx_distinct", _) => with(AggregateFunction::ApproxDistinct, Finish::DistinctCount),
        ("sum", false) => with(AggregateFunction::Sum, Finish::Sum),
        ("avg", false) => with(AggregateFunction::Sum, Finish::Average),
        // False is less than true.
        ("min" | "bool_and", _) => with(AggregateFunction::Min, Finish::Value),
        ("max" | "bool_or", _) => with(AggregateFunction::Max, Finish::Value),
        ("any_value", _) => with(AggregateFunction::First { ignore_nulls: true }, Finish::Value),
        ("var", false) => with(AggregateFunction::Moments, Finish::Variance { sample: true }),
        ("var_pop", false) => with(AggregateFunction::Moments, Finish::Variance { sample: false }),
        ("stddev", false) => with(AggregateFunction::Moments, Finish::StandardDeviation { sample: true }),
        ("stddev_pop", false) => {
            with(AggregateFunction::Moments, Finish::StandardDeviation { sample: false })
        }
        _ => None,
    }
}

fn count(params: &AggregateFunctionParams) -> Option<Need> {
    match params.args.as_slice() {
        [] => Some(Need { function: AggregateFunction::Count, argument: None, finish: Finish::Count }),
        [SqlExpr::Literal(value, _)] if !value.is_null() => {
            Some(Need { function: AggregateFunction::Count, argument: None, finish: Finish::Count })
        }
        // `time` is in every row.
        [SqlExpr::Column(column)] if column.name == TIME_COLUMN => {
            Some(Need { function: AggregateFunction::Count, argument: None, finish: Finish::Count })
        }
        [argument] => Some(Need {
            function: AggregateFunction::Sum,
            argument: Some(argument.clone()),
            finish: Finish::Count,
        }),
        _ => None,
    }
}

fn first_or_last(name: &str, params: &AggregateFunctionParams) -> Option<Need> {
    if params.distinct || params.args.len() != 1 {
        return None;
    }
    let forward = match params.order_by.as_slice() {
        [] => true,
        [term] => match unaliased(&term.expr) {
            SqlExpr::Column(column) if column.name == TIME_COLUMN => term.asc,
            _ => return None,
        },
        _ => return None,
    };
    let ignore_nulls = params.null_treatment == Some(NullTreatment::IgnoreNulls);
    let function = if (name == "first_value") == forward {
        AggregateFunction::First { ignore_nulls }
    } else {
        AggregateFunction::Last { ignore_nulls }
    };
    Some(Need { function, argument: params.args.first().cloned(), finish: Finish::Value })
}

/// The buckets that the literal arguments of `histogram` ask for; `None` when they make no sense.
pub(super) fn histogram_buckets(args: &[SqlExpr]) -> Option<HistogramBuckets> {
    let numbers: Vec<f64> = args.get(1..)?.iter().map(literal_number).collect::<Option<_>>()?;
    super::functions::buckets(&numbers).ok()
}

/// The number a literal stands for.
pub(super) fn literal_number(expr: &SqlExpr) -> Option<f64> {
    match unaliased(expr) {
        SqlExpr::Literal(value, _) => scalar_number(value),
        SqlExpr::Cast(cast) => literal_number(&cast.expr),
        SqlExpr::Negative(inner) => literal_number(inner).map(|number| -number),
        _ => None,
    }
}

/// The number a scalar holds.
pub(super) fn scalar_number(value: &ScalarValue) -> Option<f64> {
    match value.cast_to(&DataType::Float64).ok()? {
        ScalarValue::Float64(number) => number,
        _ => None,
    }
}
