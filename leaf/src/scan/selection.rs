//! Which rows of a run are still in, in the cheapest of three forms.
//!
//! Invariants: positions are ascending, distinct and below the run's row count; `count` is the number of set bits.

use std::borrow::Cow;

use arrow::buffer::BooleanBuffer;

/// Which rows of a run are still in.
#[derive(Debug, Clone)]
pub(super) enum Selection {
    /// All of this many rows.
    All(usize),
    /// One bit a row.
    Bits {
        /// Set for rows that are in.
        bits: BooleanBuffer,
        /// How many are set.
        count: usize,
    },
    /// Few rows, by position.
    Rows(Vec<u32>),
}

/// Bits are traded for positions when fewer than one in this many rows is left.
const SPARSE_BELOW: usize = 8;

impl Selection {
    /// How many rows are in.
    pub(super) fn len(&self) -> usize {
        match self {
            Selection::All(count) | Selection::Bits { count, .. } => *count,
            Selection::Rows(rows) => rows.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn none() -> Selection {
        Selection::Rows(Vec::new())
    }

    /// Keeps the rows whose bit is set; for dense selections `mask` makes the bits of all rows, for sparse ones
    /// `keep` is asked for each row that is in.
    pub(super) fn narrow(
        self,
        mask: impl FnOnce() -> BooleanBuffer,
        mut keep: impl FnMut(usize) -> bool,
    ) -> Selection {
        match self {
            Selection::All(_) => Selection::from_bits(mask()),
            Selection::Bits { bits, .. } => Selection::from_bits(&bits & &mask()),
            Selection::Rows(mut rows) => {
                rows.retain(|row| keep(*row as usize));
                Selection::Rows(rows)
            }
        }
    }

    /// Keeps the `i`-th row that is in where bit `i` is set.
    pub(super) fn keep(self, bits: &BooleanBuffer) -> Selection {
        match self {
            Selection::All(_) => Selection::from_bits(bits.clone()),
            other => {
                let rows = other.positions();
                Selection::Rows(bits.set_indices().map(|index| rows[index]).collect())
            }
        }
    }

    fn from_bits(bits: BooleanBuffer) -> Selection {
        let count = bits.count_set_bits();
        if count == bits.len() {
            Selection::All(count)
        } else if count * SPARSE_BELOW < bits.len() {
            Selection::Rows(bits.set_indices().map(|row| row as u32).collect())
        } else {
            Selection::Bits { bits, count }
        }
    }

    /// The positions, ascending.
    pub(super) fn positions(&self) -> Cow<'_, [u32]> {
        match self {
            Selection::All(count) => Cow::Owned((0..*count as u32).collect()),
            Selection::Bits { bits, .. } => Cow::Owned(bits.set_indices().map(|row| row as u32).collect()),
            Selection::Rows(rows) => Cow::Borrowed(rows),
        }
    }

    /// Without bits: all rows, or positions. This is the form that grouping and aggregating work on.
    pub(super) fn settle(self) -> Selection {
        match self {
            Selection::Bits { .. } => Selection::Rows(self.positions().into_owned()),
            other => other,
        }
    }

    /// The values at the rows that are in.
    pub(super) fn gather<T: Copy, U>(&self, values: &[T], map: impl Fn(T) -> U) -> Vec<U> {
        match self {
            Selection::All(count) => values.iter().take(*count).map(|value| map(*value)).collect(),
            Selection::Bits { bits, .. } => bits.set_indices().map(|row| map(values[row])).collect(),
            Selection::Rows(rows) => rows.iter().map(|row| map(values[*row as usize])).collect(),
        }
    }
}

/// One bit a value, sixty-four at a time.
pub(super) fn pack_bits<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> BooleanBuffer {
    let words = values.chunks(64).map(|chunk| {
        let word = chunk.iter().enumerate();
        word.fold(0u64, |word, (bit, value)| word | (u64::from(test(*value)) << bit)).to_le()
    });
    let words: Vec<u64> = words.collect();
    BooleanBuffer::new(words.into(), 0, values.len())
}
