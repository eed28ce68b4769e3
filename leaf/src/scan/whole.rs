//! Sums and ends of whole columns.
//!
//! Without keys every row goes to the one group. What is asked of all rows of a column is then often found on codes as
//! they are: a sum of `base + gcd × code` needs the sum of codes alone, and the largest code stands for
//! the largest value. Rows without value have the code 0, which adds nothing. Where rows have few different weights, codes
//! are multiplied by small weights that are looked up once for all sums of a run, or added up weight by weight.

use std::cell::OnceCell;

use arrow::buffer::{BooleanBuffer, NullBuffer};
use gannet_query::{AggregateFunction, Input, States, Values, WeightKind, Weights};

use super::Stop;
use super::arguments::RowWeights;
use super::code_sums::Packed;
use super::columns::{Run, Shape};
use super::prepare::{AggregatePlan, GroupsPlan, Prepared};
use super::readers::{Ints, for_each_null};
use super::selection::count_set;
use crate::column::Codes;
use crate::vectors::{pack_bits, vectorized};

/// Adds all rows of a run to the states, of one group each, that need not look at single rows. Says which those are.
pub(super) fn settle(
    run: &Run<'_>,
    prepared: &Prepared<'_>,
    plan: &GroupsPlan<'_>,
    weights: &RowWeights<'_>,
    states: &mut [States],
) -> Result<Vec<bool>, Stop> {
    let kind = |aggregate: &AggregatePlan<'_>| aggregate.aggregate.weight_kind(prepared.plan.weight);
    let weighing = match plan.aggregates.iter().any(|aggregate| kind(aggregate) == WeightKind::Int) {
        true => Weighing::of(run, prepared, weights),
        false => None,
    };
    let mut settled = Vec::with_capacity(states.len());
    for (aggregate, states) in plan.aggregates.iter().zip(states) {
        states.resize(1);
        let weighing = match kind(aggregate) {
            _ if aggregate.filter.is_some() => None,
            WeightKind::One => Some(&Weighing::Alike(1)),
            WeightKind::Int => weighing.as_ref(),
            WeightKind::Float => None,
        };
        settled.push(match weighing {
            Some(weighing) => add(run, plan, aggregate, weighing, states)?,
            None => false,
        });
    }
    Ok(settled)
}

/// How much rows weigh, where that takes few numbers.
enum Weighing<'a> {
    /// All the same.
    Alike(i64),
    /// The weight at the code of a row; all rows together stand for so many events.
    Few {
        codes: &'a [u8],
        weights: Vec<i64>,
        events: i128,
        /// The weight of each row, where all weights are small.
        looked_up: OnceCell<Option<Vec<u32>>>,
    },
}

impl<'a> Weighing<'a> {
    fn of(run: &Run<'_>, prepared: &Prepared<'_>, weights: &RowWeights<'a>) -> Option<Weighing<'a>> {
        let (ints, column) = match (weights, prepared.weight) {
            (RowWeights::Ints(ints), Some(column)) => (ints, column),
            (RowWeights::One, _) => return Some(Weighing::Alike(1)),
            (RowWeights::Ints(_) | RowWeights::Floats(_), _) => return None,
        };
        // Sums by code take as long to add up as so many rows.
        if run.row_count < ROWS_MIN {
            return None;
        }
        if let Ints::Constant(weight) = ints {
            // A row without weight stands for one event.
            return Some(Weighing::Alike(weight.unwrap_or(1)));
        }
        let (codes, weights) = weights.coded()?;
        let events = match run.int_sum(column) {
            Some((sum, nulls)) => sum + i128::from(nulls),
            None => weigh(&weights[..], counts(codes)),
        };
        Some(Weighing::Few { codes, weights: weights.to_vec(), events, looked_up: OnceCell::new() })
    }

    /// The events that the rows with a value stand for.
    fn events(&self, row_count: usize, validity: Option<&NullBuffer>) -> i128 {
        let nulls = validity.map_or(0, NullBuffer::null_count);
        match self {
            Weighing::Alike(weight) => i128::from(*weight) * (row_count - nulls) as i128,
            Weighing::Few { codes, weights, events, .. } => {
                let Some(validity) = validity.filter(|_| nulls > 0) else { return *events };
                if nulls * SHARE_NULLS > row_count
                    && let Some(events) = events_of(codes, weights, validity.inner(), row_count - nulls)
                {
                    return events;
                }
                let mut without = 0;
                for_each_null(validity, |row| without += i128::from(weights[usize::from(codes[row])]));
                events - without
            }
        }
    }

    /// The sum of weight × code; `None` for codes that would take longer this way.
    fn sum(&self, values: &Codes) -> Option<i128> {
        match self {
            Weighing::Alike(weight) => {
                let sum = i128::try_from(sum(values)).unwrap_or(i128::MAX);
                Some(sum.saturating_mul(i128::from(*weight)))
            }
            Weighing::Few { codes, weights, looked_up, .. } => {
                let looked_up = looked_up.get_or_init(|| look_up(weights, codes));
                let product = looked_up.as_ref().and_then(|weights| match values {
                    Codes::U8(values) => product(values, weights),
                    Codes::U16(values) => product(values, weights),
                    Codes::U32(values) => product(values, weights),
                    Codes::U64(_) => None,
                });
                if let Some(product) = product {
                    return Some(product.into());
                }
                let sums = match values {
                    Codes::U8(values) => sums_by(values, codes),
                    Codes::U16(values) => sums_by(values, codes),
                    Codes::U32(values) => sums_by(values, codes),
                    Codes::U64(_) => return None,
                };
                Some(weigh(weights, sums))
            }
        }
    }
}

/// The events that the rows of some bits, of which so many are set, stand for; `None` where rows have many weights, and
/// where an answer of 64 bits might not hold them.
pub(super) fn events_at(weights: &RowWeights<'_>, bits: &BooleanBuffer, count: usize) -> Option<i64> {
    let alike = |weight: i64| i64::try_from(i128::from(weight) * count as i128).ok();
    match weights {
        RowWeights::One => return alike(1),
        RowWeights::Ints(Ints::Constant(weight)) => return alike(weight.unwrap_or(1)),
        RowWeights::Ints(_) | RowWeights::Floats(_) => {}
    }
    let (codes, weights) = weights.coded()?;
    i64::try_from(events_of(codes, &weights[..], bits, count)?).ok()
}

/// The events that the rows of some bits, of which so many are set, stand for, with the weight at the code of each;
/// `None` where there are many codes.
fn events_of(codes: &[u8], weights: &[i64], bits: &BooleanBuffer, count: usize) -> Option<i128> {
    let last = codes.iter().copied().max()?;
    if usize::from(last) >= COMPARED_MAX {
        return None;
    }
    let mut events = 0_i128;
    let mut left = count;
    // The rows of the last code are those that are left.
    for (code, weight) in (0..last).zip(weights) {
        let rows = count_set(&(bits & &pack_bits(codes, move |of| of == code)));
        left -= rows.min(left);
        events += i128::from(*weight) * rows as i128;
    }
    Some(events + i128::from(weights[usize::from(last)]) * left as i128)
}

/// Adds the rows of some bits, of which so many are set, to the sums among the states, of one group each, and says how many
/// events they stand for. The others weigh nothing, so no row is moved. `None` where few bits are set, where something
/// else than counts and sums of packed columns is asked for, and where weights are not small.
pub(super) fn settle_left(
    run: &Run<'_>,
    prepared: &Prepared<'_>,
    plan: &GroupsPlan<'_>,
    weights: &RowWeights<'_>,
    (bits, count): (&BooleanBuffer, usize),
    states: &mut [States],
) -> Result<Option<i64>, Stop> {
    if count * SHARE_LEFT < run.row_count {
        return Ok(None);
    }
    let mut sums = Vec::with_capacity(plan.aggregates.len());
    for (aggregate, states) in plan.aggregates.iter().zip(states) {
        let is_weighted = match aggregate.aggregate.weight_kind(prepared.plan.weight) {
            WeightKind::One => false,
            WeightKind::Int => true,
            WeightKind::Float => return Ok(None),
        };
        let column = aggregate.argument.and_then(|argument| {
            let argument = &plan.arguments[argument];
            argument.column.or(argument.float_of)
        });
        match (&aggregate.aggregate.function, column) {
            (AggregateFunction::Count, _) => {}
            (AggregateFunction::Sum, Some(column)) => match packed(run, column)? {
                Some(packed) => sums.push((packed, is_weighted, states)),
                None => return Ok(None),
            },
            _ => return Ok(None),
        }
    }
    let Some(of_rows) = small_weights(weights, run.row_count) else { return Ok(None) };
    let is_alone = matches!(weights, RowWeights::One);
    let weights = masked(&of_rows, bits);
    let ones = OnceCell::new();
    for (packed, is_weighted, states) in sums {
        let weights: &[u32] = if is_weighted || is_alone {
            &weights
        } else {
            ones.get_or_init(|| masked(&vec![1; run.row_count], bits))
        };
        let sum = match packed.codes {
            Codes::U8(values) => product(values, weights),
            Codes::U16(values) => product(values, weights),
            Codes::U32(values) => product(values, weights),
            Codes::U64(_) => None,
        };
        let Some(sum) = sum else { return Ok(None) };
        let events = match packed.validity {
            Some(validity) => total(&masked(weights, validity.inner())),
            None => total(weights),
        };
        if !states.add_sum(0, packed.sum(sum.into(), events.into()), packed.digits, events.into()) {
            return Ok(None);
        }
    }
    Ok(i64::try_from(total(&weights)).ok())
}

/// The weight of each row, where all of them are small.
fn small_weights(weights: &RowWeights<'_>, row_count: usize) -> Option<Vec<u32>> {
    match weights {
        RowWeights::One => Some(vec![1; row_count]),
        RowWeights::Ints(Ints::Constant(weight)) => {
            look_up(&[weight.unwrap_or(1)], &[0]).map(|one| vec![one[0]; row_count])
        }
        RowWeights::Ints(_) | RowWeights::Floats(_) => {
            let (codes, weights) = weights.coded()?;
            look_up(&weights[..], codes)
        }
    }
}

/// Weights of the rows whose bits are set; those of the others are 0.
fn masked(weights: &[u32], bits: &BooleanBuffer) -> Vec<u32> {
    let mut masked = vec![0; weights.len()];
    let words: Vec<u64> = bits.bit_chunks().iter_padded().collect();
    let all = &mut masked[..];
    vectorized(
        #[inline(always)]
        move || {
            for ((masked, weights), word) in all.chunks_mut(64).zip(weights.chunks(64)).zip(words) {
                for (half, (masked, weights)) in [word as u32, (word >> 32) as u32]
                    .into_iter()
                    .zip(masked.chunks_mut(32).zip(weights.chunks(32)))
                {
                    for (bit, (masked, weight)) in (0_u32..).zip(masked.iter_mut().zip(weights)) {
                        *masked = weight & (half >> bit & 1).wrapping_neg();
                    }
                }
            }
        },
    );
    masked
}

fn total(weights: &[u32]) -> u64 {
    let weights = weights.iter().map(|weight| u64::from(*weight));
    vectorized(
        #[inline(always)]
        move || weights.sum(),
    )
}

/// Of these rows one in so many is left at least: picking fewer takes less time than weighing all.
const SHARE_LEFT: usize = 4;
/// Of these rows more than one in so many has no value: then weights of the others are counted.
const SHARE_NULLS: usize = 16;
/// Rows are compared with one code after the other where there are no more than so many.
const COMPARED_MAX: usize = 16;
/// Of fewer rows no sums by code are made.
const ROWS_MIN: usize = 128;
/// The bits of a small weight.
const SMALL_BITS: u32 = 14;
/// Different codes of weights.
const CODES: usize = 256;
/// Rows that follow one another add to sums of their own, or each would wait for what the one before it stored.
const LANES: usize = 4;

/// The sum of weight × what there is of it.
fn weigh(weights: &[i64], sums: [u64; CODES]) -> i128 {
    // Below 2^63 × 2^64 each, and most of 256 are none; an end of the range is beyond every answer.
    let terms = weights.iter().zip(sums).map(|(weight, sum)| i128::from(*weight) * i128::from(sum));
    terms.fold(0, i128::saturating_add)
}

/// The weight of each row; `None` where one is negative or needs more than [`SMALL_BITS`] bits.
fn look_up(weights: &[i64], codes: &[u8]) -> Option<Vec<u32>> {
    const SMALL_MAX: i64 = (1 << SMALL_BITS) - 1;
    let mut table = [0_u32; CODES];
    for (small, weight) in table.iter_mut().zip(weights) {
        *small = u32::try_from(*weight).ok().filter(|_| *weight <= SMALL_MAX)?;
    }
    Some(codes.iter().map(|code| table[usize::from(*code)]).collect())
}

/// The sum of weight × value; `None` where there are so many rows that it might leave 64 bits.
fn product<T: Copy + Into<u64>>(values: &[T], weights: &[u32]) -> Option<u64> {
    // No value has more than 32 bits.
    const ROWS_MAX: usize = 1 << (u64::BITS - u32::BITS - SMALL_BITS);
    let products =
        values.iter().zip(weights).map(|(value, weight)| (*value).into().wrapping_mul(u64::from(*weight)));
    (values.len() <= ROWS_MAX).then(|| {
        vectorized(
            #[inline(always)]
            || products.fold(0, u64::wrapping_add),
        )
    })
}

/// How often there is each code.
fn counts(codes: &[u8]) -> [u64; CODES] {
    let mut lanes = [[0_u64; LANES]; CODES];
    let (fours, rest) = codes.as_chunks::<LANES>();
    for four in fours {
        for (lane, code) in four.iter().enumerate() {
            lanes[usize::from(*code)][lane] += 1;
        }
    }
    rest.iter().for_each(|code| lanes[usize::from(*code)][0] += 1);
    lanes.map(|lanes| lanes.iter().sum())
}

/// Sums of values by the code beside each.
fn sums_by<T: Copy + Into<u64>>(values: &[T], codes: &[u8]) -> [u64; CODES] {
    let mut lanes = [[0_u64; LANES]; CODES];
    let ((fours, rest), (codes, codes_rest)) = (values.as_chunks::<LANES>(), codes.as_chunks::<LANES>());
    // A run has at most 2^32 rows, and none of these values more than 32 bits.
    for (four, codes) in fours.iter().zip(codes) {
        for (lane, (value, code)) in four.iter().zip(codes).enumerate() {
            lanes[usize::from(*code)][lane] += (*value).into();
        }
    }
    for (value, code) in rest.iter().zip(codes_rest) {
        lanes[usize::from(*code)][0] += (*value).into();
    }
    lanes.map(|lanes| lanes.iter().sum())
}

fn add(
    run: &Run<'_>,
    plan: &GroupsPlan<'_>,
    aggregate: &AggregatePlan<'_>,
    weighing: &Weighing<'_>,
    states: &mut States,
) -> Result<bool, Stop> {
    let Some(argument) = aggregate.argument.map(|argument| &plan.arguments[argument]) else {
        let is_count = aggregate.aggregate.function == AggregateFunction::Count;
        return Ok(is_count && states.add_count(0, weighing.events(run.row_count, None)));
    };
    match &aggregate.aggregate.function {
        AggregateFunction::Sum => {
            let Some(column) = argument.column.or(argument.float_of) else { return Ok(false) };
            if !states.sums_numbers() {
                let Some(validity) = validity(run, column)? else { return Ok(false) };
                return Ok(states.add_sum(0, 0, None, weighing.events(run.row_count, validity.as_ref())));
            }
            let Some(packed) = packed(run, column)? else { return Ok(false) };
            let Some(codes) = weighing.sum(packed.codes) else { return Ok(false) };
            let events = weighing.events(run.row_count, packed.validity);
            Ok(states.add_sum(0, packed.sum(codes, events), packed.digits, events))
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

/// Which rows have a value, where that is known without their values; within, `None` says all of them.
fn validity(run: &Run<'_>, column: usize) -> Result<Option<Option<NullBuffer>>, Stop> {
    Ok(match run.slot(column)?.shape() {
        Shape::Dictionary { values, codes, has_nulls } => Some(has_nulls.then(|| {
            // NULL is the code behind the last value.
            let count = values.len() as u64;
            NullBuffer::new(match codes {
                Codes::U8(codes) => pack_bits(codes, move |code| u64::from(code) < count),
                Codes::U16(codes) => pack_bits(codes, move |code| u64::from(code) < count),
                Codes::U32(codes) => pack_bits(codes, move |code| u64::from(code) < count),
                Codes::U64(codes) => pack_bits(codes, move |code| code < count),
            })
        })),
        Shape::Packed { validity, .. }
        | Shape::Decimal { validity, .. }
        | Shape::Ints { validity, .. }
        | Shape::Bits { validity, .. } => Some(validity.cloned()),
        Shape::Lists(lists) => Some(lists.validity.cloned()),
        Shape::Text(text) => Some(text.validity().cloned()),
        Shape::Constant(value) => Some((value.null_count() > 0).then(|| NullBuffer::new_null(run.row_count))),
        Shape::Floats | Shape::Other => None,
    })
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
        let code = if is_max { self.codes.max()? } else { self.codes.min()? };
        Some(self.value(code))
    }
}

fn sum(codes: &Codes) -> u128 {
    #[inline(always)]
    fn narrow<T: Copy + Into<u64>>(codes: &[T]) -> u128 {
        // A run has at most 2^32 rows, and none of these codes more than 32 bits.
        u128::from(codes.iter().map(|code| (*code).into()).sum::<u64>())
    }
    vectorized(
        #[inline(always)]
        || match codes {
            Codes::U8(codes) => narrow(codes),
            Codes::U16(codes) => narrow(codes),
            Codes::U32(codes) => narrow(codes),
            Codes::U64(codes) => codes.iter().map(|code| u128::from(*code)).sum(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::forms;

    #[test]
    fn rows_are_weighed_by_their_codes() {
        forms::both(rows_are_weighed);
    }

    fn rows_are_weighed() {
        for count in [0_usize, 1, 3, 128, 1_001] {
            let codes: Vec<u8> = (0..count).map(|row| (row * row % 251) as u8).collect();
            let values: Vec<u32> = (0..count).map(|row| u32::MAX - (row * 7 % 1_000) as u32).collect();
            let weights: Vec<i64> = (0..256).map(|code| code * code - 9_000).collect();
            let weight = |row: usize| i128::from(weights[usize::from(codes[row])]);
            let weighing = Weighing::Few {
                codes: &codes,
                weights: weights.clone(),
                events: weigh(&weights, counts(&codes)),
                looked_up: OnceCell::new(),
            };
            let sum = (0..count).map(|row| weight(row) * i128::from(values[row])).sum::<i128>();
            assert_eq!(weighing.sum(&Codes::U32(values.into())), Some(sum), "{count} rows");
            assert_eq!(weighing.events(count, None), (0..count).map(weight).sum::<i128>());
            let validity: NullBuffer = (0..count).map(|row| row % 3 != 1).collect();
            let valid = (0..count).filter(|row| row % 3 != 1).map(weight).sum::<i128>();
            assert_eq!(weighing.events(count, Some(&validity)), valid, "{count} rows");
        }
        let codes: Vec<u8> = (0..70_000_u64).map(|row| (row * row % 251) as u8).collect();
        let values = vec![u32::MAX; codes.len()];
        for (weight_max, is_small) in [((1 << SMALL_BITS) - 1, true), (1 << SMALL_BITS, false)] {
            let weights: Vec<i64> =
                (0..256).map(|code| if code % 2 == 0 { weight_max } else { code }).collect();
            let looked_up = look_up(&weights, &codes);
            assert_eq!(looked_up.is_some(), is_small);
            let Some(looked_up) = looked_up else { continue };
            let sum = looked_up.iter().map(|weight| u64::from(*weight) * u64::from(u32::MAX)).sum::<u64>();
            assert_eq!(product(&values, &looked_up), Some(sum));
        }
        let codes: Vec<u8> = (0..1_001_u64).map(|row| (row * row % 11) as u8).collect();
        let table: Vec<i64> = (0..11).map(|code| code * code * 7 - 100).collect();
        let packed = Codes::U8(codes.clone().into());
        let weights =
            RowWeights::Ints(Ints::Dictionary { table: table.clone(), codes: &packed, null: Some(4) });
        for step in [1, 2, 7] {
            let bits: BooleanBuffer = (0..codes.len()).map(|row| row % step == 0).collect();
            let weight = |code: &u8| if *code == 4 { 1 } else { table[usize::from(*code)] };
            let expect = codes.iter().step_by(step).map(weight).sum::<i64>();
            assert_eq!(events_at(&weights, &bits, count_set(&bits)), Some(expect));
            assert_eq!(events_at(&RowWeights::One, &bits, 9), Some(9));
        }
        let huge = RowWeights::Ints(Ints::Constant(Some(i64::MAX)));
        assert_eq!(events_at(&huge, &BooleanBuffer::new_set(2), 2), None);
        let alike = Weighing::Alike(10);
        assert_eq!(alike.sum(&Codes::U8(vec![1, 2, 255].into())), Some(2_580));
        assert_eq!(alike.events(3, Some(&NullBuffer::from(vec![true, false, true]))), 20);
    }
}
