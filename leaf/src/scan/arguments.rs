//! Arguments and weights of one run, read a stretch of rows at a time in the form that states take.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use gannet_query::{AggregateFunction, Values, WeightKind, Weights};

use super::Stop;
use super::arithmetic::Computed;
use super::coder::Coder;
use super::columns::{Run, Shape};
use super::compile::Compiled;
use super::domain::Reach;
use super::float_formulas;
use super::keys::per_value;
use super::numbering::Scratch;
use super::prepare::{ArgumentPlan, Prepared};
use super::readers::{Floats, Ints, float_parts, int_parts};
use super::selection::{Rows, Selection};
use crate::column::Codes;

/// Where the values of an argument come from.
#[derive(Debug)]
pub(super) enum Argument<'a> {
    Ints(Ints<'a>),
    Floats(Floats<'a>),
    /// Floats as ints over a power of ten.
    Scaled(Ints<'a>, u8),
    /// A code a row and the value of each code; codes beyond are NULL.
    Codes(Coder<'a>, ArrayRef),
    /// Arithmetic of ints.
    Computed(Computed<'a>),
    /// Arithmetic of floats and their functions.
    ComputedFloats(float_formulas::Computed<'a>),
    /// An expression that is evaluated row by row.
    Expression(&'a Compiled),
}

/// The values of an argument at the rows of a stretch.
#[derive(Debug)]
pub(super) enum Read<'s> {
    Nothing,
    Ints(&'s [i64], Option<NullBuffer>),
    Floats(&'s [f64], Option<NullBuffer>),
    Scaled(&'s [i64], u8, Option<NullBuffer>),
    Codes(&'s [u32], &'s ArrayRef),
    Array(ArrayRef),
    OwnInts(arrow::buffer::ScalarBuffer<i64>, Option<NullBuffer>),
    OwnFloats(arrow::buffer::ScalarBuffer<f64>, Option<NullBuffer>),
}

impl Read<'_> {
    pub(super) fn values(&self) -> (Values<'_>, Option<&NullBuffer>) {
        match self {
            Read::Nothing => (Values::None, None),
            Read::Ints(values, nulls) => (Values::Int(values), nulls.as_ref()),
            Read::Floats(values, nulls) => (Values::Float(values), nulls.as_ref()),
            Read::Scaled(values, digits, nulls) => (Values::Scaled(values, *digits), nulls.as_ref()),
            Read::Codes(codes, values) => (Values::Codes(codes, values), None),
            Read::Array(array) => (Values::Array(array), None),
            Read::OwnInts(values, nulls) => (Values::Int(values), nulls.as_ref()),
            Read::OwnFloats(values, nulls) => (Values::Float(values), nulls.as_ref()),
        }
    }
}

/// Buffers that arguments are read into.
#[derive(Debug)]
pub(super) struct Buffers<'s> {
    pub(super) ints: &'s mut Vec<i64>,
    pub(super) floats: &'s mut Vec<f64>,
    pub(super) codes: &'s mut Vec<u32>,
}

impl<'a> Argument<'a> {
    /// The cheapest way to an argument's values in a run, for some functions.
    pub(super) fn of(
        run: &'a Run<'_>,
        plan: &'a ArgumentPlan,
        selection: &Selection,
        functions: impl Iterator<Item = &'a AggregateFunction>,
    ) -> Result<Argument<'a>, Stop> {
        let (mut adds, mut sums) = (true, false);
        for function in functions {
            sums |= matches!(function, AggregateFunction::Sum);
            adds &=
                matches!(function, AggregateFunction::Sum | AggregateFunction::Min | AggregateFunction::Max);
        }
        if let Some(column) = plan.float_of {
            let slot = run.slot(column)?;
            if !matches!(slot.shape(), Shape::Constant(_)) {
                return Ok(Argument::Floats(Floats::Ints(slot.ints(run.row_count)?)));
            }
        }
        if let Some(column) = plan.column {
            let slot = run.slot(column)?;
            match (slot.shape(), &plan.compiled.data_type) {
                (Shape::Packed { .. } | Shape::Ints { .. }, _) => {
                    return Ok(Argument::Ints(slot.ints(run.row_count)?));
                }
                (Shape::Dictionary { .. }, DataType::Int64) if adds && sums => {
                    return Ok(Argument::Ints(slot.ints(run.row_count)?));
                }
                (Shape::Dictionary { values, codes, .. }, _) => {
                    return Ok(Argument::Codes(Coder::Codes(codes), values));
                }
                (Shape::Decimal { base, gcd, digits, codes, validity }, DataType::Float64) if adds => {
                    return Ok(Argument::Scaled(Ints::Packed { base, gcd, codes, validity }, digits));
                }
                (Shape::Decimal { .. } | Shape::Floats | Shape::Other, DataType::Float64) => {
                    return Ok(Argument::Floats(slot.floats(run.row_count)?));
                }
                (
                    Shape::Decimal { .. }
                    | Shape::Text(_)
                    | Shape::Lists(_)
                    | Shape::Bits { .. }
                    | Shape::Floats
                    | Shape::Other
                    | Shape::Constant(_),
                    _,
                ) => {}
            }
        }
        let is_computed = plan.formula.is_some() || plan.floats.is_some();
        let reach = if is_computed { Reach::Near } else { Reach::Far };
        match per_value(run, &plan.compiled, None, selection, reach)? {
            Some((Coder::One, value)) if value.len() == 1 => return Ok(constant(value)),
            Some((coder, values)) => return Ok(Argument::Codes(coder, values)),
            None => {}
        }
        if let Some(formula) = &plan.floats
            && !formula.may_fail(run)?
        {
            return Ok(Argument::ComputedFloats(float_formulas::Computed::of(run, formula)?));
        }
        let computed = plan.formula.as_ref().map(|formula| Computed::of(run, formula)).transpose()?.flatten();
        Ok(computed.map_or(Argument::Expression(&plan.compiled), Argument::Computed))
    }

    /// Whether every row of the run is known to have a value.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Argument::Ints(ints) | Argument::Scaled(ints, _) => !ints.has_nulls(),
            Argument::Floats(floats) => !floats.has_nulls(),
            Argument::Computed(computed) => !computed.has_nulls(),
            Argument::ComputedFloats(computed) => !computed.has_nulls(),
            Argument::Codes(..) | Argument::Expression(_) => false,
        }
    }

    /// No int that is read is larger in magnitude; `None` where only the values tell.
    pub(super) fn bound(&self) -> Option<u64> {
        match self {
            Argument::Ints(ints) | Argument::Scaled(ints, _) => ints.bound(),
            Argument::Floats(_)
            | Argument::Codes(..)
            | Argument::Computed(_)
            | Argument::ComputedFloats(_)
            | Argument::Expression(_) => None,
        }
    }

    /// The values at the rows of a stretch, as codes only for functions that take them.
    pub(super) fn read<'s>(
        &'s mut self,
        run: &Run<'_>,
        rows: Rows<'_>,
        takes_codes: impl Fn(&DataType) -> bool,
        buffers: Buffers<'s>,
    ) -> Result<Read<'s>, Stop> {
        let Buffers { ints, floats, codes: out } = buffers;
        Ok(match self {
            Argument::Ints(reader) => {
                let nulls = reader.nulls(rows);
                Read::Ints(reader.read(rows, ints), nulls)
            }
            Argument::Floats(reader) => {
                let nulls = reader.nulls(rows);
                Read::Floats(reader.read(rows, ints, floats), nulls)
            }
            Argument::Scaled(reader, digits) => {
                let nulls = reader.nulls(rows);
                Read::Scaled(reader.read(rows, ints), *digits, nulls)
            }
            Argument::Codes(coder, values) => {
                coder.read(rows, ints, out);
                if takes_codes(values.data_type()) {
                    return Ok(Read::Codes(out, values));
                }
                match (values.data_type(), values.logical_null_count()) {
                    (DataType::Int64, 0) if in_range(out, values) => {
                        let values = values.as_primitive::<Int64Type>().values();
                        ints.clear();
                        ints.extend(out.iter().map(|code| values[*code as usize]));
                        Read::Ints(ints, None)
                    }
                    (DataType::Float64, 0) if in_range(out, values) => {
                        let values = values.as_primitive::<Float64Type>().values();
                        floats.clear();
                        floats.extend(out.iter().map(|code| values[*code as usize]));
                        Read::Floats(floats, None)
                    }
                    _ => {
                        let there = |code: &u32| ((*code as usize) < values.len()).then_some(*code);
                        owned(take(values, &out.iter().map(there).collect::<UInt32Array>(), None)?)
                    }
                }
            }
            Argument::Computed(computed) => {
                let nulls = computed.nulls(rows);
                Read::Ints(computed.read(rows, ints), nulls)
            }
            Argument::ComputedFloats(computed) => {
                let nulls = computed.nulls(rows);
                Read::Floats(computed.read(rows, ints, floats), nulls)
            }
            Argument::Expression(compiled) => owned(run.evaluate(compiled, rows)?),
        })
    }
}

fn in_range(codes: &[u32], values: &ArrayRef) -> bool {
    codes.iter().copied().max().is_none_or(|code| (code as usize) < values.len())
}

fn constant(value: ArrayRef) -> Argument<'static> {
    if let Some((values, nulls)) = int_parts(&value) {
        return Argument::Ints(Ints::Constant(nulls.is_none().then(|| values[0])));
    }
    if let Some((values, nulls)) = float_parts(&value) {
        return Argument::Floats(Floats::Constant(nulls.is_none().then(|| values[0])));
    }
    Argument::Codes(Coder::One, value)
}

fn owned(array: ArrayRef) -> Read<'static> {
    match array.data_type() {
        DataType::Int64 | DataType::Timestamp(TimeUnit::Nanosecond, _) => match int_parts(&array) {
            Some((values, nulls)) => Read::OwnInts(values, nulls),
            None => Read::Array(array),
        },
        DataType::Float64 => match float_parts(&array) {
            Some((values, nulls)) => Read::OwnFloats(values, nulls),
            None => Read::Array(array),
        },
        _ => Read::Array(array),
    }
}

/// Whether a function's states take codes and their distinct values; the others want a value a row.
pub(super) fn takes_codes(function: &AggregateFunction, data_type: &DataType) -> bool {
    match function {
        // Numbers are summed as numbers. Where they are none, only the weights are.
        AggregateFunction::Sum => !matches!(data_type, DataType::Int64 | DataType::Float64),
        AggregateFunction::Min
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

/// How many events each row of a run stands for: one where `sample_rate` is NULL or missing.
#[derive(Debug)]
pub(super) enum RowWeights<'a> {
    One,
    Ints(Ints<'a>),
    Floats(Floats<'a>),
}

impl<'a> RowWeights<'a> {
    pub(super) fn of(run: &'a Run<'_>, prepared: &Prepared<'_>) -> Result<RowWeights<'a>, Stop> {
        let Some(column) = prepared.weight.filter(|column| !run.is_missing(*column)) else {
            return Ok(RowWeights::One);
        };
        let slot = run.slot(column)?;
        Ok(match prepared.plan.weight {
            WeightKind::Float => RowWeights::Floats(slot.floats(run.row_count)?),
            WeightKind::One | WeightKind::Int => RowWeights::Ints(slot.ints(run.row_count)?),
        })
    }

    /// No int weight is larger; `None` where only the weights tell.
    pub(super) fn bound(&self) -> Option<u64> {
        match self {
            RowWeights::One => Some(1),
            // A row without weight stands for one event.
            RowWeights::Ints(ints) => ints.bound().map(|bound| bound.max(1)),
            RowWeights::Floats(_) => None,
        }
    }

    /// No int weight is smaller; `None` where only the weights tell.
    pub(super) fn least(&self) -> Option<i64> {
        match self {
            RowWeights::One => Some(1),
            RowWeights::Ints(ints) => ints.least().map(|least| least.min(1)),
            RowWeights::Floats(_) => None,
        }
    }

    /// Weights as codes of one byte, and the weight of each code.
    pub(super) fn coded(&self) -> Option<(&'a [u8], Box<[i64; 256]>)> {
        let RowWeights::Ints(ints) = self else { return None };
        let mut table = Box::new([0; 256]);
        match ints {
            Ints::Packed { base, gcd, codes: Codes::U8(codes), validity: None } => {
                for (code, weight) in (0..).zip(table.iter_mut()) {
                    *weight = base.wrapping_add(gcd.wrapping_mul(code));
                }
                Some((codes, table))
            }
            Ints::Dictionary { table: values, codes: Codes::U8(codes), null } => {
                table.iter_mut().zip(values).for_each(|(weight, value)| *weight = *value);
                if let Some(null) = null {
                    *table.get_mut(*null as usize)? = 1;
                }
                Some((codes, table))
            }
            _ => None,
        }
    }

    /// The weights of some rows.
    pub(super) fn read<'s>(
        &'s self,
        rows: Rows<'_>,
        ints: &'s mut Vec<i64>,
        floats: &'s mut Vec<f64>,
    ) -> Weights<'s> {
        match self {
            RowWeights::One => Weights::One,
            RowWeights::Ints(reader) => match reader.nulls(rows) {
                None => Weights::Int(reader.read(rows, ints)),
                Some(nulls) => {
                    let read = reader.read(rows, ints);
                    let filled = read.iter().zip(nulls.iter());
                    let filled = filled.map(|(weight, valid)| if valid { *weight } else { 1 }).collect();
                    *ints = filled;
                    Weights::Int(ints)
                }
            },
            RowWeights::Floats(reader) => {
                let nulls = reader.nulls(rows);
                match nulls {
                    None => Weights::Float(reader.read(rows, ints, floats)),
                    Some(nulls) => {
                        let mut own = Vec::new();
                        let read = reader.read(rows, ints, &mut own);
                        let filled = read.iter().zip(nulls.iter());
                        *floats = filled.map(|(weight, valid)| if valid { *weight } else { 1.0 }).collect();
                        Weights::Float(floats)
                    }
                }
            }
        }
    }

    /// How many events the selected rows stand for.
    pub(super) fn events(&self, selection: &Selection, scratch: &mut Scratch) -> f64 {
        if matches!(self, RowWeights::One) {
            return selection.len() as f64;
        }
        selection.with_rows(|rows| {
            let stretches = rows.stretches(super::selection::ROWS_PER_STRETCH);
            let Scratch { weights, float_weights, .. } = scratch;
            stretches.map(|rows| events(self.read(rows, weights, float_weights), rows.len())).sum()
        })
    }
}

/// How many events rows with these weights stand for.
pub(super) fn events(weights: Weights<'_>, row_count: usize) -> f64 {
    match weights {
        Weights::One => row_count as f64,
        Weights::Int(weights) => {
            // A stretch of weights below 2^40 cannot leave 64 bits; larger ones are added as floats.
            match weights.iter().all(|weight| weight.unsigned_abs() < 1 << 40) {
                true => weights.iter().sum::<i64>() as f64,
                false => weights.iter().map(|weight| *weight as f64).sum(),
            }
        }
        Weights::Float(weights) => weights.iter().sum(),
    }
}
