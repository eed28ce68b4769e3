//! Which rows of a run are still in, and the form in which rows are read.
//!
//! Narrowing works on a [`Selection`], whole run by whole run. Everything after it reads [`Rows`]: a range, or
//! positions, in stretches that are small enough for what is made of them to stay in the nearest cache.
//!
//! Invariants: positions are ascending, distinct and below the run's row count; `count` is the number of set bits.

use std::borrow::Cow;

use arrow::buffer::BooleanBuffer;

/// Rows that are grouped and aggregated at a time.
pub(super) const ROWS_PER_STRETCH: usize = 4_096;

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

/// Some rows of a run, in order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    /// This many from the first.
    Range {
        /// The first.
        start: usize,
        /// How many.
        count: usize,
    },
    /// By position.
    At(&'a [u32]),
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
            Selection::Bits { bits, count } => Cow::Owned(positions(bits, *count)),
            Selection::Rows(rows) => Cow::Borrowed(rows),
        }
    }

    /// Without bits: all rows, or positions.
    pub(super) fn settle(self) -> Selection {
        match self {
            Selection::Bits { bits, count } => Selection::Rows(positions(&bits, count)),
            other => other,
        }
    }

    /// Calls `read` with the rows that are in.
    pub(super) fn with_rows<R>(&self, read: impl FnOnce(Rows<'_>) -> R) -> R {
        match self {
            Selection::All(count) => read(Rows::all(*count)),
            Selection::Bits { .. } => read(Rows::At(&self.positions())),
            Selection::Rows(rows) => read(Rows::At(rows)),
        }
    }
}

/// The set bits, word by word.
fn positions(bits: &BooleanBuffer, count: usize) -> Vec<u32> {
    let mut positions = Vec::with_capacity(count);
    let chunks = bits.bit_chunks();
    for (word_index, mut word) in chunks.iter_padded().enumerate() {
        let base = (word_index * 64) as u32;
        while word != 0 {
            positions.push(base + word.trailing_zeros());
            word &= word - 1;
        }
    }
    positions
}

impl<'a> Rows<'a> {
    /// All rows of a run.
    pub(super) fn all(count: usize) -> Rows<'static> {
        Rows::Range { start: 0, count }
    }

    /// How many.
    pub(super) fn len(self) -> usize {
        match self {
            Rows::Range { count, .. } => count,
            Rows::At(rows) => rows.len(),
        }
    }

    /// Whether these are all rows of a run of this many.
    pub(super) fn is_all(self, row_count: usize) -> bool {
        matches!(self, Rows::Range { start: 0, count } if count == row_count)
    }

    /// Some of them, by their place among these.
    pub(super) fn part(self, from: usize, count: usize) -> Rows<'a> {
        match self {
            Rows::Range { start, .. } => Rows::Range { start: start + from, count },
            Rows::At(rows) => Rows::At(&rows[from..from + count]),
        }
    }

    /// All of them, a stretch at a time.
    pub(super) fn stretches(self, rows_max: usize) -> impl Iterator<Item = Rows<'a>> {
        let len = self.len();
        (0..len).step_by(rows_max).map(move |from| self.part(from, rows_max.min(len - from)))
    }

    /// The value of each row into `out`, which is emptied first.
    #[inline]
    pub(super) fn read<T: Copy, U>(self, values: &[T], out: &mut Vec<U>, map: impl Fn(T) -> U) {
        out.clear();
        match self {
            Rows::Range { start, count } => {
                out.extend(values[start..start + count].iter().map(|value| map(*value)));
            }
            Rows::At(rows) => out.extend(rows.iter().map(|row| map(values[*row as usize]))),
        }
    }

    /// The positions, ascending.
    pub(super) fn positions(self) -> Cow<'a, [u32]> {
        match self {
            Rows::Range { start, count } => Cow::Owned((start as u32..(start + count) as u32).collect()),
            Rows::At(rows) => Cow::Borrowed(rows),
        }
    }

    /// The row at a place.
    pub(super) fn get(self, place: usize) -> usize {
        match self {
            Rows::Range { start, .. } => start + place,
            Rows::At(rows) => rows[place] as usize,
        }
    }
}

/// One bit a value, sixty-four at a time.
///
/// Each test becomes a byte that is 0 or 1, which the compiler does many at once; then a multiplication moves the
/// lowest bits of eight bytes next to each other.
pub(super) fn pack_bits<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> BooleanBuffer {
    const GATHER: u64 = 0x0102_0408_1020_4080;
    let mut words: Vec<u64> = Vec::with_capacity(values.len().div_ceil(64));
    let (chunks, rest) = values.as_chunks::<64>();
    for chunk in chunks {
        let mut flags = [0u8; 64];
        for (flag, value) in flags.iter_mut().zip(chunk) {
            *flag = u8::from(test(*value));
        }
        let mut word = 0u64;
        let (eights, _) = flags.as_chunks::<8>();
        for (index, eight) in eights.iter().enumerate() {
            let byte = u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56;
            word |= byte << (index * 8);
        }
        words.push(word.to_le());
    }
    if !rest.is_empty() {
        let word =
            rest.iter().enumerate().fold(0, |word, (bit, value)| word | u64::from(test(*value)) << bit);
        words.push(word.to_le());
    }
    BooleanBuffer::new(words.into(), 0, values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_test() {
        for len in [0_usize, 1, 63, 64, 65, 200] {
            let values: Vec<u32> = (0..len as u32).map(|row| row.wrapping_mul(2_654_435_761) >> 7).collect();
            let bits = pack_bits(&values, |value| value % 3 == 0);
            let expect: Vec<bool> = values.iter().map(|value| value % 3 == 0).collect();
            assert_eq!(bits.iter().collect::<Vec<bool>>(), expect, "{len}");
            let set: Vec<u32> = (0..len as u32).filter(|row| expect[*row as usize]).collect();
            assert_eq!(positions(&bits, set.len()), set, "{len}");
        }
    }

    #[test]
    fn stretches_are_all_rows_in_order() {
        let at = [2, 3, 5, 9, 10];
        for rows in [Rows::At(&at), Rows::Range { start: 4, count: 5 }] {
            let parts: Vec<u32> = rows.stretches(2).flat_map(|part| part.positions().into_owned()).collect();
            assert_eq!(parts, rows.positions().to_vec());
            assert_eq!(rows.get(4), rows.positions()[4] as usize);
        }
        assert!(Rows::all(3).is_all(3) && !Rows::all(3).is_all(4) && !Rows::At(&[0, 1, 2]).is_all(3));
    }
}
