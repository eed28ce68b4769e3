//! Which pairs of a group and a code were seen.
//!
//! Where a column has few distinct values, what a value does to a group needs to be done once for every pair, not once
//! for every row. The codes mean the same only as long as the distinct values are the same array.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;

use super::each::for_each_valid;

/// Beyond this many pairs nothing is remembered, and every row counts as new.
const PAIRS_MAX: usize = 1 << 23;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pairs {
    distinct: Option<ArrayRef>,
    /// A bit a pair: group × distinct values + code.
    seen: Vec<u64>,
    /// A bit a code that stands for NULL.
    nulls: Option<NullBuffer>,
}

impl Pairs {
    /// True when these are the distinct values of the last call.
    pub(crate) fn knows(&self, distinct: &ArrayRef) -> bool {
        self.distinct.as_ref().is_some_and(|known| std::ptr::addr_eq(known.as_ref(), distinct.as_ref()))
    }

    /// The pairs of rows that are there, whose value is not NULL, and which were not returned before.
    pub(crate) fn fresh(
        &mut self,
        group_count: usize,
        groups: &[u32],
        codes: &[u32],
        distinct: &ArrayRef,
        validity: Option<&NullBuffer>,
    ) -> Vec<(u32, u32)> {
        let values = distinct.len();
        if !self.knows(distinct) {
            let nulls = distinct.logical_nulls().filter(|nulls| nulls.null_count() > 0);
            *self = Pairs { distinct: Some(distinct.clone()), seen: Vec::new(), nulls };
        }
        let nulls = self.nulls.as_ref();
        let there = |code: usize| code < values && nulls.is_none_or(|nulls| nulls.is_valid(code));
        // Whether a pair is fresh is as good as random: each is put, and the next one over it if it was not.
        let mut fresh = vec![(0, 0); groups.len() + 1];
        let mut count = 0;
        let pair_count = group_count.saturating_mul(values);
        if pair_count > PAIRS_MAX {
            for_each_valid(groups.len(), validity, |row| {
                fresh[count] = (groups[row], codes[row]);
                count += usize::from(there(codes[row] as usize));
            });
        } else {
            self.seen.resize(pair_count.div_ceil(64), 0);
            let seen = &mut self.seen;
            for_each_valid(groups.len(), validity, |row| {
                let code = codes[row] as usize;
                if code >= values {
                    return;
                }
                let pair = groups[row] as usize * values + code;
                let (word, bit) = (&mut seen[pair / 64], 1 << (pair % 64));
                fresh[count] = (groups[row], codes[row]);
                count += usize::from(*word & bit == 0 && nulls.is_none_or(|nulls| nulls.is_valid(code)));
                *word |= bit;
            });
        }
        fresh.truncate(count);
        fresh
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.seen.capacity() * 8
    }
}
