//! Loops over rows: the ones that are there, without asking row by row where all or none of them are.

use arrow::buffer::{BooleanBuffer, NullBuffer};

use super::{Input, Values, Weights};

/// Calls `visit` with every row that is there, in order.
#[inline(always)]
pub(crate) fn for_each_valid(rows: usize, validity: Option<&NullBuffer>, mut visit: impl FnMut(usize)) {
    let Some(validity) = validity else {
        for row in 0..rows {
            visit(row);
        }
        return;
    };
    for (index, word) in validity.inner().bit_chunks().iter_padded().enumerate() {
        let first = index * 64;
        if word == u64::MAX {
            for row in first..first + 64 {
                visit(row);
            }
        } else {
            let mut left = word;
            while left != 0 {
                visit(first + left.trailing_zeros() as usize);
                left &= left - 1;
            }
        }
    }
}

/// An upper bound of the magnitudes of ints, at most twice the largest of them. It is found with `or`, which every
/// processor does on many ints at once; `max` is not.
pub(crate) fn magnitude(values: &[i64]) -> u64 {
    // For a negative value this is its magnitude less one.
    values.iter().fold(0, |bits, value| bits | (value ^ (value >> 63)) as u64).saturating_add(1)
}

/// An upper bound of the int weights of a run.
fn weight_magnitude(weights: Weights<'_>) -> u64 {
    match weights {
        Weights::One => 1,
        Weights::Int(weights) => magnitude(weights),
        Weights::Float(_) => u64::MAX,
    }
}

/// Upper bounds of magnitudes that the caller knows of; what it does not know is found out run by run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds {
    /// Of all values of [`Values::Int`] and [`Values::Scaled`].
    pub(crate) value: Option<u64>,
    /// Of all weights of [`Weights::Int`].
    pub(crate) weight: Option<u64>,
}

impl Bounds {
    pub(crate) fn values(self, values: &[i64]) -> u64 {
        self.value.unwrap_or_else(|| magnitude(values))
    }

    pub(crate) fn weights(self, weights: Weights<'_>) -> u64 {
        match (weights, self.weight) {
            (Weights::Int(_), Some(weight)) => weight,
            _ => weight_magnitude(weights),
        }
    }
}

#[inline(always)]
pub(crate) fn int_weight(weights: Weights<'_>, row: usize) -> i64 {
    match weights {
        Weights::One => 1,
        Weights::Int(weights) => weights[row],
        Weights::Float(weights) => weights[row] as i64,
    }
}

#[inline(always)]
pub(crate) fn float_weight(weights: Weights<'_>, row: usize) -> f64 {
    match weights {
        Weights::One => 1.0,
        Weights::Int(weights) => weights[row] as f64,
        Weights::Float(weights) => weights[row],
    }
}

/// 10 to this, for the digits of [`Values::Scaled`].
pub(crate) fn power_of_ten(digits: u8) -> f64 {
    // Powers up to 22 are exact, and an i64 has 19 digits.
    10f64.powi(i32::from(digits))
}

/// Scaled ints as the floats they stand for.
pub(crate) fn scaled_floats(values: &[i64], digits: u8) -> Vec<f64> {
    let divisor = power_of_ten(digits);
    values.iter().map(|value| *value as f64 / divisor).collect()
}

/// Calls `work` with the values as floats, where they are numbers.
pub(crate) fn with_floats<R>(values: Values<'_>, work: impl FnOnce(&[f64]) -> R) -> Option<R> {
    match values {
        Values::Float(values) => Some(work(values)),
        Values::Int(values) => Some(work(&scaled_floats(values, 0))),
        Values::Scaled(values, digits) => Some(work(&scaled_floats(values, digits))),
        Values::None | Values::Codes(..) | Values::Array(_) => None,
    }
}

/// Which rows have a value, when the values themselves may be NULL; `None` when `input.validity` says it all.
pub(crate) fn own_nulls(input: &Input<'_>) -> Option<NullBuffer> {
    match input.values {
        Values::Codes(codes, distinct) => {
            let (nulls, count) =
                (distinct.logical_nulls().filter(|nulls| nulls.null_count() > 0), distinct.len());
            let own = match nulls {
                None if codes.iter().all(|code| (*code as usize) < count) => return None,
                None => BooleanBuffer::collect_bool(codes.len(), |row| (codes[row] as usize) < count),
                Some(nulls) => BooleanBuffer::collect_bool(codes.len(), |row| {
                    let code = codes[row] as usize;
                    code < count && nulls.is_valid(code)
                }),
            };
            NullBuffer::union(Some(&NullBuffer::new(own)), input.validity)
        }
        Values::Array(array) => {
            let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0)?;
            NullBuffer::union(Some(&nulls), input.validity)
        }
        Values::None | Values::Int(_) | Values::Float(_) | Values::Scaled(..) => None,
    }
}
