//! Which rows of a run are still in, and the form in which rows are read.
//!
//! Narrowing works on a [`Selection`], whole run by whole run. Everything after it reads [`Rows`]: a range, or
//! positions, in stretches that are small enough for what is made of them to stay in the nearest cache.
//!
//! Invariants: positions are ascending, distinct and below the run's row count; `count` is the number of set bits.

use std::borrow::Cow;

use arrow::buffer::BooleanBuffer;

use crate::vectors::vectorized;

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
        let count = count_set(&bits);
        if count == bits.len() {
            Selection::All(count)
        } else if count * SPARSE_BELOW < bits.len() {
            Selection::Rows(positions(&bits, count))
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

    /// Of each of so many rows whether it is in.
    pub(super) fn into_marks(self, row_count: usize) -> Vec<bool> {
        match self {
            Selection::All(_) => vec![true; row_count],
            Selection::Bits { bits, .. } => bits.iter().collect(),
            Selection::Rows(rows) => {
                let mut marks = vec![false; row_count];
                rows.iter().for_each(|row| marks[*row as usize] = true);
                marks
            }
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

/// Calls `each` with every word of the bits and its place. Bits that were just made begin with a byte.
#[inline(always)]
fn for_each_word(bits: &BooleanBuffer, mut each: impl FnMut(usize, u64)) {
    if bits.offset() != 0 {
        return bits.bit_chunks().iter_padded().enumerate().for_each(|(index, word)| each(index, word));
    }
    let (words, _) = bits.values().as_chunks::<8>();
    let whole = bits.len() / 64;
    for (index, word) in words[..whole].iter().enumerate() {
        each(index, u64::from_le_bytes(*word));
    }
    if !bits.len().is_multiple_of(64) {
        let rest = (whole * 64..bits.len()).rev().fold(0, |word, bit| word << 1 | u64::from(bits.value(bit)));
        each(whole, rest);
    }
}

/// How many bits are set.
pub(super) fn count_set(bits: &BooleanBuffer) -> usize {
    vectorized(
        #[inline(always)]
        || {
            let mut count = 0;
            for_each_word(bits, |_, word| count += word.count_ones() as usize);
            count
        },
    )
}

/// Positions that are written at once, however many bits are left: how many there are in a word is hard to foresee.
const POSITIONS_AT_ONCE: usize = 4;
/// Where fewer than one bit in so many is set, most words have none or one, and one is written at a time.
const SCATTERED_BELOW: usize = 24;

/// The set bits, of which there are so many, word by word.
fn positions(bits: &BooleanBuffer, count: usize) -> Vec<u32> {
    vectorized(
        #[inline(always)]
        || all_positions(bits, count),
    )
}

#[inline(always)]
fn all_positions(bits: &BooleanBuffer, count: usize) -> Vec<u32> {
    if count * SCATTERED_BELOW < bits.len() {
        let mut positions = Vec::with_capacity(count);
        for_each_word(bits, |index, mut word| {
            while word != 0 {
                positions.push((index * 64) as u32 + word.trailing_zeros());
                word &= word - 1;
            }
        });
        return positions;
    }
    // Behind those of a word there may be some more that are none, and the next word writes over them.
    const WORD: usize = 64 + POSITIONS_AT_ONCE;
    let mut positions = vec![0; count + WORD];
    let mut found = 0;
    for_each_word(bits, |index, mut word| {
        let ones = word.count_ones() as usize;
        let (fours, _) = positions[found..found + WORD].as_chunks_mut::<POSITIONS_AT_ONCE>();
        for four in fours.iter_mut().take(ones.div_ceil(POSITIONS_AT_ONCE)) {
            for position in four {
                *position = ((index * 64) as u32).wrapping_add(word.trailing_zeros());
                word &= word.wrapping_sub(1);
            }
        }
        found += ones;
    });
    positions.truncate(count);
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
        vectorized(
            #[inline(always)]
            move || match self {
                Rows::Range { start, count } => {
                    out.extend(values[start..start + count].iter().map(|value| map(*value)));
                }
                Rows::At(rows) => out.extend(rows.iter().map(|row| map(values[*row as usize]))),
            },
        );
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectors::forms;

    #[test]
    fn positions_of_words_with_any_number_of_bits() {
        forms::both(positions_of_words);
    }

    fn positions_of_words() {
        for ones in 0..=64_u32 {
            let word = u64::MAX.checked_shr(64 - ones).unwrap_or(0).rotate_right(ones * 7);
            let words = [word, 0, u64::from(ones % 3 == 0).wrapping_neg(), word.reverse_bits()];
            let bits = BooleanBuffer::new(words.map(u64::to_le).to_vec().into(), 0, 256);
            for bits in [bits.clone(), bits.slice(3, 200), bits.slice(0, 190), bits.slice(0, 3)] {
                let expect: Vec<u32> = bits.set_indices().map(|row| row as u32).collect();
                assert_eq!(count_set(&bits), expect.len());
                assert_eq!(positions(&bits, expect.len()), expect, "{ones}");
            }
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
