//! Aggregates over the groups of one run.
//!
//! Aggregates with the same FILTER share their rows: these, their groups, weights, times and arguments are worked out
//! once. Arguments reach the states as plain slices or as codes, never row by row.

use std::cell::OnceCell;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::compute::take;
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use gannet_query::{AggregateFunction, Groups, Input, Plan, States, Values, WeightKind, Weights};

use super::columns::{Run, Shape, filled, int_parts};
use super::domain::dictionary_codes;
use super::filter;
use super::keys::{group, per_value};
use super::prepare::{AggregatePlan, ArgumentPlan, GroupsPlan, Prepared};
use super::selection::Selection;
use super::{ScanError, Stop};

/// The weights of some rows.
#[derive(Debug)]
pub(super) enum RowWeights {
    One,
    Int(Vec<i64>),
    Float(Vec<f64>),
}

/// The values of an argument at some rows.
#[derive(Debug)]
enum Argument {
    Ints(ScalarBuffer<i64>, Option<NullBuffer>),
    Floats(ScalarBuffer<f64>, Option<NullBuffer>),
    Codes(Vec<u32>, ArrayRef, Option<NullBuffer>),
    Array(ArrayRef),
}

/// The rows that aggregates with one FILTER see.
struct FilterRows<'a> {
    selection: Selection,
    groups: Vec<u32>,
    weights: OnceCell<RowWeights>,
    times: OnceCell<ScalarBuffer<i64>>,
    arguments: Vec<OnceCell<Argument>>,
    run: &'a Run<'a>,
    prepared: &'a Prepared<'a>,
}

/// The groups of a run's selected rows with their states; `None` when there is no group.
pub(super) fn aggregate(
    run: &Run<'_>,
    prepared: &Prepared<'_>,
    plan: &GroupsPlan<'_>,
    selection: &Selection,
) -> Result<Option<Groups>, Stop> {
    if selection.is_empty() {
        return Ok(None);
    }
    let grouped = group(run, &plan.keys, selection)?;
    let whole = FilterRows::new(run, prepared, plan, selection.clone(), grouped.groups);
    let filtered: Vec<OnceCell<FilterRows<'_>>> = plan.filters.iter().map(|_| OnceCell::new()).collect();
    let mut states = Vec::with_capacity(plan.aggregates.len());
    for aggregate in &plan.aggregates {
        run.look()?;
        let rows = match aggregate.filter {
            None => &whole,
            Some(filter) => match filtered[filter].get() {
                Some(rows) => rows,
                None => {
                    let rows = whole.filtered(plan, filter)?;
                    filtered[filter].get_or_init(|| rows)
                }
            },
        };
        states.push(rows.states(plan, aggregate, grouped.group_count)?);
    }
    Ok(Some(Groups { keys: grouped.keys, states, group_count: grouped.group_count }))
}

/// The one group of a plan without keys before any row was seen.
pub(super) fn empty_group(plan: &Plan, groups: &GroupsPlan<'_>) -> Result<Groups, ScanError> {
    let mut states = Vec::with_capacity(groups.aggregates.len());
    for aggregate in &groups.aggregates {
        let mut state = States::new(aggregate.aggregate, plan.weight)?;
        state.resize(1);
        states.push(state);
    }
    Ok(Groups { keys: Vec::new(), states, group_count: 1 })
}

impl<'a> FilterRows<'a> {
    fn new(
        run: &'a Run<'a>,
        prepared: &'a Prepared<'a>,
        plan: &GroupsPlan<'_>,
        selection: Selection,
        groups: Vec<u32>,
    ) -> FilterRows<'a> {
        let arguments = plan.arguments.iter().map(|_| OnceCell::new()).collect();
        let (weights, times) = (OnceCell::new(), OnceCell::new());
        FilterRows { selection, groups, weights, times, arguments, run, prepared }
    }

    /// Those of these rows for which a filter is true.
    fn filtered(&self, plan: &GroupsPlan<'_>, filter: usize) -> Result<FilterRows<'a>, Stop> {
        let left = filter::narrow(self.run, &plan.filters[filter], self.selection.clone())?.settle();
        let groups = match (&self.selection, &left) {
            (_, Selection::All(_)) => self.groups.clone(),
            (Selection::All(_), left) => left.gather(&self.groups, |group| group),
            (mine, left) => {
                // Both are ascending and the one is part of the other.
                let mine = mine.positions();
                let mut at = 0;
                let group = |row: &u32| {
                    at += mine[at..].partition_point(|position| position < row);
                    self.groups[at]
                };
                left.positions().iter().map(group).collect()
            }
        };
        Ok(FilterRows::new(self.run, self.prepared, plan, left, groups))
    }

    fn states(
        &self,
        plan: &GroupsPlan<'_>,
        aggregate: &AggregatePlan<'_>,
        group_count: usize,
    ) -> Result<States, Stop> {
        let function = &aggregate.aggregate.function;
        let mut states = States::new(aggregate.aggregate, self.prepared.plan.weight)?;
        states.resize(group_count);
        let argument = aggregate.argument.map(|index| self.argument(plan, index)).transpose()?;
        let unpacked;
        let (values, validity) = match argument {
            None => (Values::None, None),
            Some(Argument::Ints(values, nulls)) => (Values::Int(values), nulls.as_ref()),
            Some(Argument::Floats(values, nulls)) => (Values::Float(values), nulls.as_ref()),
            Some(Argument::Codes(codes, values, nulls)) if takes_codes(function) => {
                (Values::Codes(codes, values), nulls.as_ref())
            }
            Some(Argument::Codes(codes, values, nulls)) => {
                unpacked = take(values, &UInt32Array::new(codes.clone().into(), nulls.clone()), None)?;
                (Values::Array(&unpacked), None)
            }
            Some(Argument::Array(array)) => (Values::Array(array), None),
        };
        let is_weighted = aggregate.aggregate.weight_kind(self.prepared.plan.weight) != WeightKind::One;
        let weights = if is_weighted { self.weights()?.borrow() } else { Weights::One };
        let by_time = matches!(function, AggregateFunction::First { .. } | AggregateFunction::Last { .. });
        let times: &[i64] = if by_time { self.times()? } else { &[] };
        states.update(&self.groups, &Input { values, validity, weights, times })?;
        Ok(states)
    }

    fn weights(&self) -> Result<&RowWeights, Stop> {
        if let Some(weights) = self.weights.get() {
            return Ok(weights);
        }
        let weights = weights(self.run, self.prepared, &self.selection)?;
        Ok(self.weights.get_or_init(|| weights))
    }

    fn times(&self) -> Result<&ScalarBuffer<i64>, Stop> {
        if let Some(times) = self.times.get() {
            return Ok(times);
        }
        let (times, _) = self.run.slot(self.prepared.time)?.ints(&self.selection, self.run.row_count)?;
        Ok(self.times.get_or_init(|| times))
    }

    fn argument(&self, plan: &GroupsPlan<'_>, index: usize) -> Result<&Argument, Stop> {
        if let Some(argument) = self.arguments[index].get() {
            return Ok(argument);
        }
        let argument = argument(self.run, &plan.arguments[index], &self.selection)?;
        Ok(self.arguments[index].get_or_init(|| argument))
    }
}

/// Whether a function's states take codes and their distinct values; the others want a value a row.
fn takes_codes(function: &AggregateFunction) -> bool {
    match function {
        // Only the weights are summed where codes come from: strings.
        AggregateFunction::Sum
        | AggregateFunction::Min
        | AggregateFunction::Max
        | AggregateFunction::Distinct
        | AggregateFunction::ApproxDistinct
        | AggregateFunction::First { .. }
        | AggregateFunction::Last { .. } => true,
        AggregateFunction::Count
        | AggregateFunction::Moments
        | AggregateFunction::Quantiles
        | AggregateFunction::Histogram(_) => false,
    }
}

fn argument(run: &Run<'_>, plan: &ArgumentPlan, selection: &Selection) -> Result<Argument, Stop> {
    if let Some(column) = plan.column {
        let slot = run.slot(column)?;
        match slot.shape() {
            Shape::Packed { .. } | Shape::Ints { .. } => {
                let (values, nulls) = slot.ints(selection, run.row_count)?;
                return Ok(Argument::Ints(values, nulls));
            }
            Shape::Dictionary { values, codes, has_nulls } => {
                let null = values.len();
                let codes = dictionary_codes(codes, null, selection);
                let nulls = has_nulls
                    .then(|| NullBuffer::from_iter(codes.iter().map(|code| (*code as usize) < null)))
                    .filter(|nulls| nulls.null_count() > 0);
                return Ok(Argument::Codes(codes, values.clone(), nulls));
            }
            Shape::Other => return Ok(by_type(slot.array(selection, run.row_count)?)),
            Shape::Constant(_) => {}
        }
    }
    let Some((codes, values)) = per_value(run, &plan.compiled, None, selection)? else {
        return Ok(by_type(run.evaluate(&plan.compiled, selection)?));
    };
    Ok(match values.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0);
            let nulls = nulls
                .map(|nulls| NullBuffer::from_iter(codes.iter().map(|code| nulls.is_valid(*code as usize))));
            Argument::Codes(codes, values, nulls)
        }
        _ => by_type(take(&values, &UInt32Array::new(codes.into(), None), None)?),
    })
}

fn by_type(array: ArrayRef) -> Argument {
    match array.data_type() {
        DataType::Int64 | DataType::Timestamp(TimeUnit::Nanosecond, _) => match int_parts(&array) {
            Some((values, nulls)) => Argument::Ints(values, nulls),
            None => Argument::Array(array),
        },
        DataType::Float64 => {
            let floats = array.as_primitive::<Float64Type>();
            let nulls = floats.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
            Argument::Floats(floats.values().clone(), nulls)
        }
        _ => Argument::Array(array),
    }
}

/// The weights of a run's selected rows: one where `sample_rate` is NULL or missing.
pub(super) fn weights(
    run: &Run<'_>,
    prepared: &Prepared<'_>,
    selection: &Selection,
) -> Result<RowWeights, Stop> {
    let Some(column) = prepared.weight.filter(|column| !run.is_missing(*column)) else {
        return Ok(RowWeights::One);
    };
    if prepared.plan.weight == WeightKind::Float {
        let array = run.array(column, selection)?;
        return Ok(RowWeights::Float(filled(array.as_primitive::<Float64Type>(), 1.0)));
    }
    let (values, nulls) = run.slot(column)?.ints(selection, run.row_count)?;
    Ok(RowWeights::Int(match nulls {
        None => values.to_vec(),
        Some(nulls) => {
            values.iter().zip(nulls.iter()).map(|(weight, valid)| if valid { *weight } else { 1 }).collect()
        }
    }))
}

impl RowWeights {
    fn borrow(&self) -> Weights<'_> {
        match self {
            RowWeights::One => Weights::One,
            RowWeights::Int(weights) => Weights::Int(weights),
            RowWeights::Float(weights) => Weights::Float(weights),
        }
    }

    /// How many events this many rows stand for.
    pub(super) fn events(&self, row_count: usize) -> f64 {
        match self {
            RowWeights::One => row_count as f64,
            RowWeights::Int(weights) => weights.iter().map(|weight| i128::from(*weight)).sum::<i128>() as f64,
            RowWeights::Float(weights) => weights.iter().sum(),
        }
    }
}
