//! Columns with some of their rows, in the encoding they have.
//!
//! When a filter leaves few rows, everything after it works on a column of these rows alone: codes stay codes, and what
//! is contiguous is read faster than what is spread.

use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use super::{Codes, Column};

impl Codes {
    /// The codes at some positions.
    ///
    /// # Panics
    /// When a position is not below [`Codes::len`].
    pub fn pick(&self, positions: &[u32]) -> Codes {
        fn some<T: Copy>(codes: &[T], positions: &[u32]) -> Vec<T> {
            positions.iter().map(|position| codes[*position as usize]).collect()
        }
        match self {
            Codes::U8(codes) => Codes::U8(some(codes, positions).into()),
            Codes::U16(codes) => Codes::U16(some(codes, positions).into()),
            Codes::U32(codes) => Codes::U32(some(codes, positions).into()),
            Codes::U64(codes) => Codes::U64(some(codes, positions).into()),
        }
    }
}

/// The validity at some ascending positions; `None` when all of them have a value.
pub fn pick_validity(validity: Option<&NullBuffer>, positions: &[u32]) -> Option<NullBuffer> {
    let bits = validity?.inner();
    let mut words = vec![0_u64; positions.len().div_ceil(64)];
    let (whole, rest) = positions.as_chunks::<64>();
    for (word, positions) in words.iter_mut().zip(whole) {
        *word = pick_close(bits, positions).unwrap_or_else(|| pick_each(bits, positions)).to_le();
    }
    if let (Some(word), false) = (words.last_mut(), rest.is_empty()) {
        *word = pick_each(bits, rest).to_le();
    }
    let picked = NullBuffer::new(BooleanBuffer::new(words.into(), 0, positions.len()));
    (picked.null_count() > 0).then_some(picked)
}

/// The bits at up to 64 positions, the first lowest.
fn pick_each(bits: &BooleanBuffer, positions: &[u32]) -> u64 {
    let (bytes, offset) = (bits.values(), bits.offset());
    let mut picked = 0;
    for (place, position) in positions.iter().enumerate() {
        let bit = *position as usize + offset;
        picked |= u64::from(bytes[bit / 8] >> (bit % 8) & 1) << place;
    }
    picked
}

/// Rows among which 64 positions are close together.
const CLOSE: usize = 256;

/// As [`pick_each`], where the positions ascend and are close together: the bits between are spread to bytes first, of
/// which each is one load, and what was found is pressed to bits again eight at a time. `None` where they are not.
fn pick_close(bits: &BooleanBuffer, positions: &[u32; 64]) -> Option<u64> {
    let at = |position: u32| position as usize + bits.offset();
    let first = at(positions[0]) / 8 * 8;
    let end = at(positions[63]) + 1;
    if end <= first || end - first > CLOSE {
        return None;
    }
    let bytes = &bits.values()[first / 8..end.div_ceil(8)];
    let mut spread = [0_u8; CLOSE];
    for (eight, byte) in spread.as_chunks_mut::<8>().0.iter_mut().zip(bytes) {
        *eight = SPREAD[usize::from(*byte)];
    }
    let mut picked = 0;
    for (index, eight) in positions.as_chunks::<8>().0.iter().enumerate() {
        let found = eight.map(|position| spread[at(position).wrapping_sub(first) % CLOSE]);
        // Byte i holds bit 0 alone; the factor moves it to bit 56 + i, and no two of them to the same place.
        let pressed = u64::from_le_bytes(found).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        picked |= pressed << (index * 8);
    }
    Some(picked)
}

/// The bits of a byte, lowest first, as bytes.
static SPREAD: [[u8; 8]; 256] = {
    let mut spread = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            spread[byte][bit] = (byte >> bit & 1) as u8;
            bit += 1;
        }
        byte += 1;
    }
    spread
};

impl Column {
    /// The column of the rows at some ascending positions.
    ///
    /// # Panics
    /// When a position is not below the number of rows. Distinct positions never decode to more than an array can hold.
    pub fn pick(&self, positions: &[u32]) -> Column {
        let validity_of = |validity: &Option<NullBuffer>| pick_validity(validity.as_ref(), positions);
        match self {
            Column::Constant(value) => Column::Constant(Arc::clone(value)),
            Column::Packed { base, gcd, codes, validity } => Column::Packed {
                base: *base,
                gcd: *gcd,
                codes: codes.pick(positions),
                validity: validity_of(validity),
            },
            Column::Decimal { base, gcd, digits, codes, validity } => Column::Decimal {
                base: *base,
                gcd: *gcd,
                digits: *digits,
                codes: codes.pick(positions),
                validity: validity_of(validity),
            },
            Column::Dictionary { values, codes, has_nulls } => Column::Dictionary {
                values: Arc::clone(values),
                codes: codes.pick(positions),
                has_nulls: *has_nulls,
            },
            Column::IntDictionary { values, codes, has_nulls } => Column::IntDictionary {
                values: values.clone(),
                codes: codes.pick(positions),
                has_nulls: *has_nulls,
            },
            Column::FloatDictionary { values, codes, has_nulls } => Column::FloatDictionary {
                values: values.clone(),
                codes: codes.pick(positions),
                has_nulls: *has_nulls,
            },
            Column::Text(text) => Column::Text(Arc::new(text.pick(positions))),
            Column::Lists { offsets, values, codes, has_null_items, validity } => {
                let range = |row: &u32| offsets[*row as usize]..offsets[*row as usize + 1];
                let items = positions.iter().flat_map(|row| range(row).map(|at| at as u32));
                let items: Vec<u32> = items.collect();
                Column::Lists {
                    offsets: OffsetBuffer::from_lengths(positions.iter().map(|row| range(row).len())),
                    values: Arc::clone(values),
                    codes: codes.pick(&items),
                    has_null_items: *has_null_items,
                    validity: validity_of(validity),
                }
            }
            Column::Plain(array) => {
                let positions = UInt32Array::new(ScalarBuffer::from(positions.to_vec()), None);
                let picked = arrow::compute::take(array, &positions, None);
                Column::Plain(picked.expect("distinct positions give at most the bytes of the column"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, ArrayRef, Int64Array, StringArray};

    #[test]
    fn a_picked_column_is_the_column_of_these_rows() {
        let nulls = || Some(NullBuffer::from(vec![true, false, true, true, false]));
        let words: ArrayRef = Arc::new(StringArray::from(vec!["a", "bb", "c"]));
        let ids: StringArray = ["00ff", "a0b1", "0001", "1234", "beef"].into_iter().map(Some).collect();
        let urls: StringArray =
            (0..600).map(|id| Some(format!("https://example.com/items/{}", 1234 + id))).collect();
        let stored = |array: &StringArray| {
            let parts = crate::text::encode(array).expect("is stored as a form");
            crate::text::StoredText::open(parts, array.len(), None, crate::text::Verified::No).expect("opens")
        };
        let columns = [
            Column::Constant(Arc::new(Int64Array::from(vec![7]))),
            Column::Packed {
                base: -3,
                gcd: 2,
                codes: Codes::U16(vec![0, 0, 9, 7, 0].into()),
                validity: nulls(),
            },
            Column::Decimal {
                base: 1,
                gcd: 1,
                digits: 1,
                codes: Codes::U64(vec![5, 4, 3, 2, 1].into()),
                validity: None,
            },
            Column::Dictionary {
                values: Arc::clone(&words),
                codes: Codes::U8(vec![0, 1, 2, 3, 1].into()),
                has_nulls: true,
            },
            Column::IntDictionary {
                values: vec![3, 9].into(),
                codes: Codes::U8(vec![0, 1, 2, 0, 1].into()),
                has_nulls: true,
            },
            Column::FloatDictionary {
                values: vec![0.5, 2.5].into(),
                codes: Codes::U32(vec![0, 1, 1, 0, 1].into()),
                has_nulls: false,
            },
            Column::Text(Arc::new(stored(&ids))),
            Column::Text(Arc::new(stored(&urls))),
            Column::Lists {
                offsets: OffsetBuffer::from_lengths([2, 0, 1, 0, 3]),
                values: words,
                codes: Codes::U8(vec![0, 1, 2, 3, 1, 0].into()),
                has_null_items: true,
                validity: nulls(),
            },
            Column::Plain(Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4), Some(5)]))),
        ];
        for column in columns {
            for positions in [&[][..], &[2], &[1, 2, 4], &[0, 1, 2, 3, 4]] {
                let picked = column.pick(positions);
                assert_eq!(
                    &picked.to_array(positions.len()),
                    &column.take(positions),
                    "{column:?} {positions:?}"
                );
            }
        }
    }

    #[test]
    fn validity_at_positions_of_any_density() {
        let rows = 5_000_u32;
        let all: NullBuffer = (0..rows).map(|row| row * row % 11 % 3 != 1).collect();
        for offset in [0, 1, 63, 200] {
            let validity = all.slice(offset, rows as usize - offset);
            for (step, gap) in [(1, 1), (2, 1), (3, 2), (5, 3), (7, 7), (64, 1), (65, 64), (4_000, 1)] {
                // Runs of some rows with gaps between them.
                let positions: Vec<u32> =
                    (0..validity.len() as u32).filter(|row| row % step < step.div_ceil(gap)).collect();
                for positions in [&positions[..], &positions[..positions.len() / 2], &positions[..1]] {
                    let expect: NullBuffer =
                        positions.iter().map(|row| validity.is_valid(*row as usize)).collect();
                    let expect = Some(expect).filter(|expect| expect.null_count() > 0);
                    let said = format!("from {offset}, {} positions, {step} {gap}", positions.len());
                    assert_eq!(pick_validity(Some(&validity), positions), expect, "{said}");
                }
            }
        }
        assert_eq!(pick_validity(None, &[1, 2]), None);
    }
}
