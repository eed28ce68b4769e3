//! Exact sums of ints.
//!
//! A sum a group, in 64 bits for as long as a bound on what was added shows that none of them can overflow; then what
//! is there moves into 128 bits and the 64 bits start again at zero. 128-bit sums that leave their range stay at its
//! end, which is beyond every answer. A sum never wraps.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array};
use arrow::datatypes::DataType;

use super::each::magnitude;
use crate::QueryError;

/// The wire type of 128-bit integers.
pub(crate) const WIDE: DataType = DataType::Decimal128(38, 0);

const NARROW_MAX: u64 = i64::MAX as u64;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct ExactSums {
    /// The magnitude of none of these exceeds `bound`, and that of no running sum on the way there.
    narrow: Vec<i64>,
    bound: u64,
    /// Added to `narrow`; empty while it is all zero.
    wide: Vec<i128>,
}

impl ExactSums {
    pub(crate) fn len(&self) -> usize {
        self.narrow.len()
    }

    pub(crate) fn resize(&mut self, group_count: usize) {
        self.narrow.resize(group_count, 0);
        if !self.wide.is_empty() {
            self.wide.resize(group_count, 0);
        }
    }

    /// The 64-bit sums, to which the caller adds terms whose magnitudes are together at most `bound`; `None` when those
    /// may not fit, which is what [`ExactSums::wide`] is for.
    pub(crate) fn narrow(&mut self, bound: u64) -> Option<&mut [i64]> {
        if bound > NARROW_MAX {
            return None;
        }
        if self.bound + bound > NARROW_MAX {
            self.spill();
        }
        self.bound += bound;
        Some(&mut self.narrow)
    }

    /// Adds to one of them.
    pub(crate) fn add(&mut self, group: usize, sum: i128) {
        let bound = u64::try_from(sum.unsigned_abs()).unwrap_or(u64::MAX);
        match self.narrow(bound) {
            // No larger than its bound, which is none that 64 bits do not hold.
            Some(narrow) => narrow[group] += sum as i64,
            None => {
                let wide = &mut self.wide()[group];
                *wide = wide.saturating_add(sum);
            }
        }
    }

    /// The 128-bit sums.
    pub(crate) fn wide(&mut self) -> &mut [i128] {
        self.wide.resize(self.narrow.len(), 0);
        &mut self.wide
    }

    fn spill(&mut self) {
        self.wide.resize(self.narrow.len(), 0);
        for (wide, narrow) in self.wide.iter_mut().zip(&mut self.narrow) {
            *wide = wide.saturating_add(i128::from(*narrow));
            *narrow = 0;
        }
        self.bound = 0;
    }

    /// Adds the sums of some groups of another: its group `groups.start + i` is our group `to[i]`.
    pub(crate) fn merge(&mut self, other: &ExactSums, groups: Range<usize>, to: &[u32]) {
        let theirs = &other.narrow[groups.clone()];
        // All of them may go to one group.
        let bound = magnitude(theirs).min(other.bound).saturating_mul(theirs.len() as u64);
        match self.narrow(bound) {
            Some(sums) => to.iter().zip(theirs).for_each(|(group, sum)| sums[*group as usize] += sum),
            None => {
                let sums = self.wide();
                for (group, sum) in to.iter().zip(theirs) {
                    let ours = &mut sums[*group as usize];
                    *ours = ours.saturating_add(i128::from(*sum));
                }
            }
        }
        if !other.wide.is_empty() {
            let sums = self.wide();
            for (group, sum) in to.iter().zip(&other.wide[groups]) {
                let ours = &mut sums[*group as usize];
                *ours = ours.saturating_add(*sum);
            }
        }
    }

    /// The groups of another after ours.
    pub(crate) fn append(&mut self, mut other: ExactSums) {
        let (ours, theirs) = (self.narrow.len(), other.narrow.len());
        self.bound = self.bound.max(other.bound);
        self.narrow.append(&mut other.narrow);
        if !self.wide.is_empty() || !other.wide.is_empty() {
            self.wide.resize(ours, 0);
            other.wide.resize(theirs, 0);
            self.wide.append(&mut other.wide);
        }
    }

    /// These groups, in this order.
    pub(crate) fn take(&self, groups: &[u32]) -> ExactSums {
        ExactSums { narrow: take(&self.narrow, groups), bound: self.bound, wide: take(&self.wide, groups) }
    }

    #[inline]
    pub(crate) fn value(&self, group: usize) -> i128 {
        let narrow = i128::from(self.narrow[group]);
        self.wide.get(group).map_or(narrow, |wide| wide.saturating_add(narrow))
    }

    /// The sum as the nearest float.
    #[inline]
    pub(crate) fn float(&self, group: usize) -> f64 {
        if self.wide.is_empty() { self.narrow[group] as f64 } else { self.value(group) as f64 }
    }

    pub(crate) fn int(&self, group: usize) -> Result<i64, QueryError> {
        i64::try_from(self.value(group)).map_err(|_| QueryError::Overflow)
    }

    pub(crate) fn to_array(&self) -> ArrayRef {
        let sums = (0..self.len()).map(|group| self.value(group));
        Arc::new(Decimal128Array::from_iter_values(sums).with_data_type(WIDE))
    }

    pub(crate) fn from_values(values: &[i128]) -> ExactSums {
        let largest = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        match u64::try_from(largest) {
            Ok(bound) if bound <= NARROW_MAX => {
                let narrow = values.iter().map(|value| *value as i64).collect();
                ExactSums { narrow, bound, wide: Vec::new() }
            }
            _ => ExactSums { narrow: vec![0; values.len()], bound: 0, wide: values.to_vec() },
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.narrow.capacity() * 8 + self.wide.capacity() * 16
    }
}

/// The values at these places; nothing of nothing.
pub(crate) fn take<T: Clone>(values: &[T], groups: &[u32]) -> Vec<T> {
    match values {
        [] => Vec::new(),
        values => groups.iter().map(|group| values[*group as usize].clone()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parts: &[&[i64]], expect: i128) {
        let mut sums = ExactSums::default();
        sums.resize(2);
        let mut merged = sums.clone();
        for part in parts {
            let bound = magnitude(part).saturating_mul(part.len() as u64);
            let mut one = ExactSums::default();
            one.resize(2);
            for sums in [&mut sums, &mut one] {
                match sums.narrow(bound) {
                    Some(narrow) => part.iter().for_each(|value| narrow[1] += value),
                    None => part.iter().for_each(|value| sums.wide()[1] += i128::from(*value)),
                }
            }
            merged.merge(&ExactSums::from_values(&[one.value(0), one.value(1)]), 0..2, &[0, 1]);
        }
        for sums in [&sums, &merged, &sums.take(&[0, 1])] {
            assert_eq!((sums.value(0), sums.value(1)), (0, expect), "{parts:?}");
        }
        sums.append(merged);
        assert_eq!((sums.len(), sums.value(3)), (4, expect), "{parts:?}");
    }

    #[test]
    fn sums_widen_by_themselves() {
        let half = i64::MAX / 2;
        check(&[], 0);
        check(&[&[1, 2, 3], &[-7]], -1);
        check(&[&[half], &[half], &[half]], i128::from(half) * 3);
        check(&[&[i64::MAX], &[1], &[i64::MAX]], i128::from(i64::MAX) * 2 + 1);
        check(&[&[i64::MIN], &[i64::MIN, i64::MIN]], i128::from(i64::MIN) * 3);
        check(&[&[i64::MIN], &[i64::MAX], &[1]], 0);
        check(&[[half / 4; 3].as_slice(); 9], i128::from(half / 4) * 27);
    }

    #[test]
    fn sums_are_added_one_at_a_time() {
        let mut sums = ExactSums::default();
        sums.resize(2);
        let terms =
            [7, i128::from(i64::MAX), -3, i128::from(i64::MIN), i128::from(i64::MIN), 1 << 70, -(1 << 71)];
        for term in terms {
            sums.add(1, term);
        }
        assert_eq!((sums.value(0), sums.value(1)), (0, terms.iter().sum()));
    }

    #[test]
    fn wide_sums_stop_at_the_end_of_their_range() {
        let mut sums = ExactSums::from_values(&[i128::MAX]);
        sums.merge(&ExactSums::from_values(&[1]), 0..1, &[0]);
        assert_eq!(sums.value(0), i128::MAX);
        assert_eq!(sums.int(0), Err(QueryError::Overflow));
    }
}
