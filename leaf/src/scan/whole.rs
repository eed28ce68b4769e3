//! Sums and ends of whole columns.
//!
//! Without keys every row goes to the one group. What is asked of all rows of a column is then often found on codes as
//! they are: a sum of `base + gcd × code` needs the sum of codes alone, and the largest code stands for
//! the largest value. Rows without value have the code 0, which adds nothing.

use arrow::buffer::NullBuffer;
use gannet_query::{AggregateFunction, Input, States, Values, WeightKind, Weights};

use super::Stop;
use super::columns::{Run, Shape};
use super::prepare::{AggregatePlan, GroupsPlan, Prepared};
use crate::column::Codes;

/// Ints as codes.
struct Packed<'a> {
    base: i64,
    gcd: i64,
    /// Digits behind the point.
    digits: Option<u8>,
    codes: &'a Codes,
    validity: Option<&'a NullBuffer>,
}

/// Adds all rows of a run to the states, of one group each, that need not look at single rows. Says which those are.
pub(super) fn settle(
    run: &Run<'_>,
    prepared: &Prepared<'_>,
    plan: &GroupsPlan<'_>,
    states: &mut [States],
) -> Result<Vec<bool>, Stop> {
    let mut settled = Vec::with_capacity(states.len());
    for (aggregate, states) in plan.aggregates.iter().zip(states) {
        let is_plain = aggregate.filter.is_none()
            && aggregate.aggregate.weight_kind(prepared.plan.weight) == WeightKind::One;
        states.resize(1);
        settled.push(is_plain && add(run, plan, aggregate, states)?);
    }
    Ok(settled)
}

fn add(
    run: &Run<'_>,
    plan: &GroupsPlan<'_>,
    aggregate: &AggregatePlan<'_>,
    states: &mut States,
) -> Result<bool, Stop> {
    let Some(argument) = aggregate.argument.map(|argument| &plan.arguments[argument]) else {
        return Ok(false);
    };
    match &aggregate.aggregate.function {
        AggregateFunction::Sum => {
            let Some(column) = argument.column.or(argument.float_of) else { return Ok(false) };
            let Some(packed) = packed(run, column)? else { return Ok(false) };
            let rows = (packed.codes.len() - packed.validity.map_or(0, NullBuffer::null_count)) as u64;
            let codes = i128::try_from(sum(packed.codes)).unwrap_or(i128::MAX);
            let ints = i128::from(packed.base)
                .saturating_mul(i128::from(rows))
                .saturating_add(i128::from(packed.gcd).saturating_mul(codes));
            Ok(states.add_sum(0, ints, packed.digits, rows))
        }
        function @ (AggregateFunction::Min | AggregateFunction::Max) => {
            let Some(column) = argument.column else { return Ok(false) };
            let is_max = *function == AggregateFunction::Max;
            let end = run.int_range(column).map(|(min, max)| if is_max { max } else { min });
            let (value, digits) = match (end, packed(run, column)?) {
                (Some(value), _) => (value, None),
                (None, Some(packed)) => match packed.end(is_max) {
                    Some(value) => (value, packed.digits),
                    None => return Ok(false),
                },
                (None, None) => return Ok(false),
            };
            let values = [value];
            let values = digits.map_or(Values::Int(&values), |digits| Values::Scaled(&values, digits));
            states.update(&[0], &Input { values, validity: None, weights: Weights::One, times: &[] })?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn packed<'a>(run: &'a Run<'_>, column: usize) -> Result<Option<Packed<'a>>, Stop> {
    Ok(match run.slot(column)?.shape() {
        Shape::Packed { base, gcd, codes, validity } => {
            Some(Packed { base, gcd, digits: None, codes, validity })
        }
        Shape::Decimal { base, gcd, digits, codes, validity } => {
            Some(Packed { base, gcd, digits: Some(digits), codes, validity })
        }
        _ => None,
    })
}

impl Packed<'_> {
    /// The largest or smallest value; `None` where codes do not tell.
    fn end(&self, is_max: bool) -> Option<i64> {
        // The code of a row without value is as small as can be.
        let nulls = self.validity.map_or(0, NullBuffer::null_count);
        if nulls == self.codes.len() || (nulls > 0 && !is_max) {
            return None;
        }
        let code = if is_max { self.codes.max()? } else { min(self.codes)? };
        Some(self.base.wrapping_add(self.gcd.wrapping_mul(code as i64)))
    }
}

fn sum(codes: &Codes) -> u128 {
    fn narrow<T: Copy + Into<u64>>(codes: &[T]) -> u128 {
        // A run has at most 2^32 rows, and none of these codes more than 32 bits.
        u128::from(codes.iter().map(|code| (*code).into()).sum::<u64>())
    }
    match codes {
        Codes::U8(codes) => narrow(codes),
        Codes::U16(codes) => narrow(codes),
        Codes::U32(codes) => narrow(codes),
        Codes::U64(codes) => codes.iter().map(|code| u128::from(*code)).sum(),
    }
}

fn min(codes: &Codes) -> Option<u64> {
    match codes {
        Codes::U8(codes) => codes.iter().copied().min().map(u64::from),
        Codes::U16(codes) => codes.iter().copied().min().map(u64::from),
        Codes::U32(codes) => codes.iter().copied().min().map(u64::from),
        Codes::U64(codes) => codes.iter().copied().min(),
    }
}
