//! Events a group: sums of weights.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};

use super::Weights;
use super::each::{Bounds, float_weight, for_each_valid, int_weight};
use super::exact::{ExactSums, WIDE, take};
use super::lanes;
use super::scalars::{expect, without_nulls};
use crate::{QueryError, WeightKind};

/// Events per group, in the narrowest form that is exact.
#[derive(Debug, Clone)]
pub(crate) enum Counts {
    /// Rows: no weights.
    Rows(Vec<i64>),
    /// Sums of int weights.
    Ints(ExactSums),
    /// Sums of float weights.
    Floats(Vec<f64>),
}

impl Counts {
    pub(crate) fn new(weight: WeightKind) -> Counts {
        match weight {
            WeightKind::One => Counts::Rows(Vec::new()),
            WeightKind::Int => Counts::Ints(ExactSums::default()),
            WeightKind::Float => Counts::Floats(Vec::new()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Counts::Rows(counts) => counts.len(),
            Counts::Ints(counts) => counts.len(),
            Counts::Floats(counts) => counts.len(),
        }
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        match self {
            Counts::Rows(counts) => counts.resize(group_count, 0),
            Counts::Ints(counts) => counts.resize(group_count),
            Counts::Floats(counts) => counts.resize(group_count, 0.0),
        }
    }

    /// Whether so many events can be added at once.
    pub(crate) fn takes(&self, events: i128) -> bool {
        match self {
            Counts::Rows(_) => i64::try_from(events).is_ok(),
            Counts::Ints(_) | Counts::Floats(_) => true,
        }
    }

    /// Adds many events to a group at once, which it [`Counts::takes`].
    pub(crate) fn add(&mut self, group: usize, events: i128) {
        match self {
            Counts::Rows(counts) => {
                let count = &mut counts[group];
                *count = count.saturating_add(i64::try_from(events).unwrap_or(i64::MAX));
            }
            Counts::Ints(counts) => counts.add(group, events),
            Counts::Floats(counts) => counts[group] += events as f64,
        }
    }

    /// Adds the weights of the rows that are there.
    pub(crate) fn update(
        &mut self,
        groups: &[u32],
        weights: Weights<'_>,
        validity: Option<&NullBuffer>,
        bounds: Bounds,
    ) {
        let rows = groups.len();
        match (self, weights) {
            (Counts::Rows(sums), _) => count_rows(sums, groups, validity),
            (Counts::Ints(sums), Weights::One) => {
                if let Some(sums) = sums.narrow(rows as u64) {
                    count_rows(sums, groups, validity);
                }
            }
            (Counts::Ints(sums), weights) => {
                let bound = bounds.weights(weights).saturating_mul(rows as u64);
                match (sums.narrow(bound), weights) {
                    (Some(sums), Weights::Int(weights)) => {
                        let weights = &weights[..rows];
                        add_ints(sums, groups, validity, |row| weights[row]);
                    }
                    _ => {
                        let sums = sums.wide();
                        for_each_valid(rows, validity, |row| {
                            let sum = &mut sums[groups[row] as usize];
                            *sum = sum.saturating_add(i128::from(int_weight(weights, row)));
                        });
                    }
                }
            }
            (Counts::Floats(sums), weights) => {
                for_each_valid(rows, validity, |row| {
                    sums[groups[row] as usize] += float_weight(weights, row);
                });
            }
        }
    }

    /// Adds the counts of some groups of another: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(
        &mut self,
        other: &Counts,
        groups: Range<usize>,
        to: &[u32],
    ) -> Result<(), QueryError> {
        match (self, other) {
            (Counts::Rows(ours), Counts::Rows(theirs)) => {
                for (group, count) in to.iter().zip(&theirs[groups]) {
                    let sum = &mut ours[*group as usize];
                    *sum = sum.saturating_add(*count);
                }
            }
            (Counts::Ints(ours), Counts::Ints(theirs)) => ours.merge(theirs, groups, to),
            (Counts::Floats(ours), Counts::Floats(theirs)) => {
                to.iter().zip(&theirs[groups]).for_each(|(group, count)| ours[*group as usize] += count);
            }
            _ => return Err(QueryError::Mismatch("counts of different weights".to_owned())),
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, other: Counts) -> Result<(), QueryError> {
        match (self, other) {
            (Counts::Rows(ours), Counts::Rows(mut theirs)) => ours.append(&mut theirs),
            (Counts::Ints(ours), Counts::Ints(theirs)) => ours.append(theirs),
            (Counts::Floats(ours), Counts::Floats(mut theirs)) => ours.append(&mut theirs),
            _ => return Err(QueryError::Mismatch("counts of different weights".to_owned())),
        }
        Ok(())
    }

    pub(crate) fn take(&self, groups: &[u32]) -> Counts {
        match self {
            Counts::Rows(counts) => Counts::Rows(take(counts, groups)),
            Counts::Ints(counts) => Counts::Ints(counts.take(groups)),
            Counts::Floats(counts) => Counts::Floats(take(counts, groups)),
        }
    }

    pub(crate) fn float(&self, group: usize) -> f64 {
        match self {
            Counts::Rows(counts) => counts[group] as f64,
            Counts::Ints(counts) => counts.float(group),
            Counts::Floats(counts) => counts[group],
        }
    }

    /// Whole events.
    pub(crate) fn finish(&self) -> Result<ArrayRef, QueryError> {
        let counts: Vec<i64> = match self {
            Counts::Rows(counts) => counts.clone(),
            Counts::Ints(counts) => {
                (0..counts.len()).map(|group| counts.int(group)).collect::<Result<_, _>>()?
            }
            Counts::Floats(counts) => {
                counts.iter().map(|count| round_to_int(*count)).collect::<Result<_, _>>()?
            }
        };
        Ok(Arc::new(Int64Array::from(counts)))
    }

    pub(crate) fn array_type(weight: WeightKind) -> DataType {
        match weight {
            WeightKind::One => DataType::Int64,
            WeightKind::Int => WIDE,
            WeightKind::Float => DataType::Float64,
        }
    }

    pub(crate) fn to_array(&self) -> ArrayRef {
        match self {
            Counts::Rows(counts) => Arc::new(Int64Array::from(counts.clone())),
            Counts::Ints(counts) => counts.to_array(),
            Counts::Floats(counts) => Arc::new(Float64Array::from(counts.clone())),
        }
    }

    pub(crate) fn from_array(
        weight: WeightKind,
        arrays: &[ArrayRef],
        index: usize,
    ) -> Result<Counts, QueryError> {
        let array = without_nulls(expect(arrays, index, &Counts::array_type(weight))?)?;
        Ok(match weight {
            WeightKind::One => Counts::Rows(array.as_primitive::<Int64Type>().values().to_vec()),
            WeightKind::Int => {
                Counts::Ints(ExactSums::from_values(array.as_primitive::<Decimal128Type>().values()))
            }
            WeightKind::Float => Counts::Floats(array.as_primitive::<Float64Type>().values().to_vec()),
        })
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Counts::Rows(counts) => counts.capacity() * 8,
            Counts::Ints(counts) => counts.memory_bytes(),
            Counts::Floats(counts) => counts.capacity() * 8,
        }
    }
}

/// Adds one for every row that is there.
pub(crate) fn count_rows(sums: &mut [i64], groups: &[u32], validity: Option<&NullBuffer>) {
    match sums {
        [sum] => *sum += (groups.len() - validity.map_or(0, NullBuffer::null_count)) as i64,
        sums if lanes::pay(sums.len(), groups.len(), validity) => lanes::add(sums, groups, |_| 1),
        sums => for_each_valid(groups.len(), validity, |row| sums[groups[row] as usize] += 1),
    }
}

/// Adds a term for every row that is there. The caller has shown that no sum overflows.
#[inline(always)]
pub(crate) fn add_ints(
    sums: &mut [i64],
    groups: &[u32],
    validity: Option<&NullBuffer>,
    term: impl Fn(usize) -> i64,
) {
    match sums {
        [sum] => {
            let mut total = 0i64;
            for_each_valid(groups.len(), validity, |row| total = total.wrapping_add(term(row)));
            *sum += total;
        }
        sums if lanes::pay(sums.len(), groups.len(), validity) => lanes::add(sums, groups, term),
        sums => {
            for_each_valid(groups.len(), validity, |row| {
                let sum = &mut sums[groups[row] as usize];
                *sum = sum.wrapping_add(term(row));
            });
        }
    }
}

/// A float as the nearest int, or an overflow.
pub(crate) fn round_to_int(value: f64) -> Result<i64, QueryError> {
    let rounded = value.round();
    if rounded >= -(2f64.powi(63)) && rounded < 2f64.powi(63) {
        Ok(rounded as i64)
    } else {
        Err(QueryError::Overflow)
    }
}
