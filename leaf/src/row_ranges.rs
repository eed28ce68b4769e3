//! Which rows: the numbers that a table's rows have for ever.
//!
//! [`RowRanges`] says which numbers something holds and forgets their order; [`RowOrder`] says which number the row at
//! each place has. Both are as long as they have jumps, not as they have rows. Neither knows a table or a row.
//!
//! Invariants of [`RowRanges`]: intervals `[from, to)` with `from < to`, in order, disjoint and not touching, so that
//! equal sets are equal values; what is read is checked for it. The number `u64::MAX` is never a row's.

use serde::{Deserialize, Serialize};

/// What is read is not a list of row ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowRangesError {
    /// An interval without a row.
    #[error("row range [{from}, {to}) holds no row")]
    Empty {
        /// Its first row.
        from: u64,
        /// One past its last row.
        to: u64,
    },
    /// An interval that does not lie behind the one before it, with a gap between them.
    #[error("row range [{from}, {to}) does not lie apart from the one before it, which ends at {before}")]
    Order {
        /// Its first row.
        from: u64,
        /// One past its last row.
        to: u64,
        /// Where the one before it ends.
        before: u64,
    },
}

/// A set of row numbers. See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct RowRanges {
    intervals: Vec<(u64, u64)>,
}

impl RowRanges {
    /// Adds the rows `[from, to)`, of which any may be there already.
    pub fn insert(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        // Rows mostly come in order, and then touch or follow the last interval.
        match self.intervals.last_mut() {
            Some(last) if from > last.1 => return self.intervals.push((from, to)),
            Some(last) if from >= last.0 => {
                last.1 = last.1.max(to);
                return;
            }
            None => return self.intervals.push((from, to)),
            Some(_) => {}
        }
        let start = self.intervals.partition_point(|interval| interval.1 < from);
        let end = self.intervals.partition_point(|interval| interval.0 <= to);
        if start == end {
            self.intervals.insert(start, (from, to));
            return;
        }
        let joined = (from.min(self.intervals[start].0), to.max(self.intervals[end - 1].1));
        self.intervals[start] = joined;
        self.intervals.drain(start + 1..end);
    }

    /// Adds all rows of another set.
    pub fn union(&mut self, other: &RowRanges) {
        // A few intervals find their places one by one; many are merged in one pass over both.
        if other.intervals.len() < 8 {
            for (from, to) in other.iter() {
                self.insert(from, to);
            }
            return;
        }
        let mut all = std::mem::take(&mut self.intervals);
        all.extend_from_slice(&other.intervals);
        all.sort_unstable();
        for (from, to) in all {
            self.insert(from, to);
        }
    }

    /// Whether a row is there.
    pub fn contains(&self, row: u64) -> bool {
        let after = self.intervals.partition_point(|interval| interval.0 <= row);
        after > 0 && row < self.intervals[after - 1].1
    }

    /// How many rows there are.
    pub fn count(&self) -> u64 {
        // Disjoint intervals of 64-bit numbers hold fewer than 2^64 numbers.
        self.intervals.iter().map(|(from, to)| to - from).sum()
    }

    /// Whether no row is there.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// One past the greatest row; 0 when there is none.
    pub fn end(&self) -> u64 {
        self.intervals.last().map_or(0, |interval| interval.1)
    }

    /// The rows of `[from, to)` that are not there, as intervals in order.
    pub fn missing_in(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut next = from;
        let first = self.intervals.partition_point(|interval| interval.1 <= from);
        for &(start, end) in &self.intervals[first..] {
            if next >= to || start >= to {
                break;
            }
            if start > next {
                missing.push((next, start));
            }
            next = end;
        }
        if next < to {
            missing.push((next, to));
        }
        missing
    }

    /// The intervals `[from, to)`, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.intervals.iter().copied()
    }

    /// Takes the lowest intervals away, and says where the last of them ended.
    pub(crate) fn remove_first(&mut self, intervals: usize) -> Option<u64> {
        self.intervals.drain(..intervals.min(self.intervals.len())).next_back().map(|(_, to)| to)
    }
}

impl From<RowRanges> for Vec<(u64, u64)> {
    fn from(ranges: RowRanges) -> Vec<(u64, u64)> {
        ranges.intervals
    }
}

impl TryFrom<Vec<(u64, u64)>> for RowRanges {
    type Error = RowRangesError;

    fn try_from(intervals: Vec<(u64, u64)>) -> Result<RowRanges, RowRangesError> {
        let mut before = None;
        for &(from, to) in &intervals {
            if from >= to {
                return Err(RowRangesError::Empty { from, to });
            }
            if let Some(before) = before.filter(|before| from <= *before) {
                return Err(RowRangesError::Order { from, to, before });
            }
            before = Some(to);
        }
        Ok(RowRanges { intervals })
    }
}

/// The numbers of rows in the order in which the rows stand. A number may stand in several places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowOrder {
    /// The first number and how many follow it without a jump, none of them zero.
    runs: Vec<(u64, u64)>,
}

impl RowOrder {
    /// Adds `count` rows with the numbers from `first` on.
    pub fn push(&mut self, first: u64, count: u64) {
        if count == 0 {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if last.0.checked_add(last.1) == Some(first) => last.1 += count,
            _ => self.runs.push((first, count)),
        }
    }

    /// Adds the rows of another order behind these.
    pub fn extend(&mut self, other: &RowOrder) {
        for &(first, count) in &other.runs {
            self.push(first, count);
        }
    }

    /// The first `rows` rows, and the rest; all and none when there are not more.
    pub fn split_at(&self, rows: u64) -> (RowOrder, RowOrder) {
        let (mut before, mut after) = (RowOrder::default(), RowOrder::default());
        let mut left = rows;
        for &(first, count) in &self.runs {
            let taken = count.min(left);
            before.push(first, taken);
            after.push(first + taken, count - taken);
            left -= taken;
        }
        (before, after)
    }

    /// How many rows there are.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(_, count)| count).sum()
    }

    /// Whether no row is there.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The numbers without their order.
    pub fn ranges(&self) -> RowRanges {
        let mut sorted = self.runs.clone();
        sorted.sort_unstable();
        let mut ranges = RowRanges::default();
        for (first, count) in sorted {
            ranges.insert(first, first.saturating_add(count));
        }
        ranges
    }
}

#[cfg(test)]
mod tests;
