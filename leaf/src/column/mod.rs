//! Columns as a scan sees them, and the encodings behind them.
//!
//! A [`Column`] is one column of one run of rows (a row block, or a chunk of open rows). It keeps the encoding
//! visible, so that a scan can work on codes: evaluate a predicate once per distinct value, compare packed integers
//! without decoding, group by codes. [`Column::to_array`] and [`Column::take`] decode for everything else.
//! The buffers are zero-copy views of the block's image, whoever owns its bytes.

mod decode;
mod pick;

pub use decode::{power_of_ten, unpack, unpack_at};
pub use pick::pick_validity;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};

use crate::text::StoredText;
use crate::vectors::vectorized;

/// The codes of the values of a dictionary that are a text, or begin with it: from the first to before the second.
pub fn codes_of(values: &StringArray, text: &str, is_prefix: bool) -> (usize, usize) {
    let is_one = |value: &str| if is_prefix { value.starts_with(text) } else { value == text };
    (place(values, |value| value < text), place(values, |value| value < text || is_one(value)))
}

/// How many values, which are in order, come before those for which `is_before` does not hold.
fn place(values: &StringArray, is_before: impl Fn(&str) -> bool) -> usize {
    let (mut low, mut high) = (0, values.len());
    while low < high {
        let middle = low.midpoint(high);
        match is_before(values.value(middle)) {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

/// Integers in as few bytes as they need.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Codes {
    U8(ScalarBuffer<u8>),
    U16(ScalarBuffer<u16>),
    U32(ScalarBuffer<u32>),
    U64(ScalarBuffer<u64>),
}

/// One column of one run of rows. All variants stand for values of the run's own column type
/// (`gannet_query::ColumnType`): the arrays inside have that type's Arrow type (`ColumnType::arrow`).
#[derive(Debug, Clone)]
pub enum Column {
    /// Every row has this one value (an array of length one; NULL when no row has a value).
    Constant(ArrayRef),
    /// int and time: value = base + gcd × code. NULL rows have code 0 and are cleared in `validity`.
    Packed {
        /// The smallest value.
        base: i64,
        /// The greatest common divisor of all distances from the base, at least 1.
        gcd: i64,
        /// One code a row.
        codes: Codes,
        /// Absent when no row is NULL.
        validity: Option<NullBuffer>,
    },
    /// string: distinct values, sorted by bytes, and one code a row; NULL rows have the code `values.len()`.
    Dictionary {
        /// The distinct values, without NULL.
        values: ArrayRef,
        /// One code a row, `U8` or `U16` or `U32`.
        codes: Codes,
        /// Whether any row is NULL.
        has_nulls: bool,
    },
    /// int and time: distinct values, sorted, and one code a row; NULL rows have the code `values.len()`.
    IntDictionary {
        /// The distinct values.
        values: ScalarBuffer<i64>,
        /// One code a row, `U8` or `U16` or `U32`.
        codes: Codes,
        /// Whether any row is NULL.
        has_nulls: bool,
    },
    /// float: distinct values in their total order, and one code a row; NULL rows have the code `values.len()`.
    FloatDictionary {
        /// The distinct values.
        values: ScalarBuffer<f64>,
        /// One code a row, `U8` or `U16` or `U32`.
        codes: Codes,
        /// Whether any row is NULL.
        has_nulls: bool,
    },
    /// float: value = (base + gcd × code) / 10^digits. NULL rows have code 0 and are cleared in `validity`.
    Decimal {
        /// The smallest value times 10^digits.
        base: i64,
        /// The greatest common divisor of all distances from the base, at least 1.
        gcd: i64,
        /// Digits after the point, at most 15.
        digits: u8,
        /// One code a row.
        codes: Codes,
        /// Absent when no row is NULL.
        validity: Option<NullBuffer>,
    },
    /// string: in a form for values that are mostly distinct.
    Text(Arc<StoredText>),
    /// strings: the items of all rows one after the other, as codes.
    Lists {
        /// Where the items of each row begin, and the end.
        offsets: OffsetBuffer<i32>,
        /// The distinct items, without NULL.
        values: ArrayRef,
        /// One code an item, `U8` or `U16` or `U32`; a NULL item has the code `values.len()`.
        codes: Codes,
        /// Whether any item is NULL.
        has_null_items: bool,
        /// Absent when no row is NULL.
        validity: Option<NullBuffer>,
    },
    /// Anything else, already as an Arrow array: plain floats, bools and strings, open rows.
    Plain(ArrayRef),
}

impl Column {
    /// Ints packed into as few bytes as they need; what stands at a row without value means nothing.
    pub(crate) fn packed(mut ints: Vec<u32>, validity: Option<NullBuffer>) -> Column {
        let some = validity.as_ref().and_then(|validity| validity.valid_indices().next());
        let some = some.map_or(0, |row| ints[row]);
        let at_nulls = |ints: &mut [u32], to: u32| {
            if let Some(validity) = &validity {
                put_at_nulls(ints, validity, to);
            }
        };
        // What means nothing is neither the least nor the greatest, and has the code 0 in the end.
        at_nulls(&mut ints, some);
        let (base, greatest) = ends(&ints);
        at_nulls(&mut ints, base);
        let codes = match greatest - base {
            0..=0xff => Codes::U8(less(&ints, base, |code| code as u8).into()),
            0x100..=0xffff => Codes::U16(less(&ints, base, |code| code as u16).into()),
            _ => Codes::U32(less(&ints, base, |code| code).into()),
        };
        Column::Packed { base: base.into(), gcd: 1, codes, validity }
    }
}

/// Puts a number at the rows without value.
fn put_at_nulls(ints: &mut [u32], validity: &NullBuffer, to: u32) {
    let words: Vec<u64> = validity.inner().bit_chunks().iter_padded().collect();
    vectorized(
        #[inline(always)]
        move || {
            for (ints, word) in ints.chunks_mut(64).zip(words) {
                for (half, ints) in [word as u32, (word >> 32) as u32].into_iter().zip(ints.chunks_mut(32)) {
                    for (bit, int) in (0_u32..).zip(ints) {
                        let there = (half >> bit & 1).wrapping_neg();
                        *int = *int & there | to & !there;
                    }
                }
            }
        },
    );
}

/// The least and the greatest; both 0 when there are none.
fn ends(ints: &[u32]) -> (u32, u32) {
    let Some(first) = ints.first().copied() else { return (0, 0) };
    vectorized(
        #[inline(always)]
        move || {
            ints.iter().fold((first, first), |(least, greatest), int| (least.min(*int), greatest.max(*int)))
        },
    )
}

/// What is left of each when the base is taken away.
fn less<T: Copy + Default>(ints: &[u32], base: u32, narrow: impl Fn(u32) -> T) -> Vec<T> {
    let mut codes = vec![T::default(); ints.len()];
    let all = &mut codes[..];
    vectorized(
        #[inline(always)]
        move || {
            for (code, int) in all.iter_mut().zip(ints) {
                *code = narrow(int.wrapping_sub(base));
            }
        },
    );
    codes
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn ints_are_packed_into_as_few_bytes_as_they_need() {
        let all = [7, 5, 260, 0, 70_000, u32::MAX, 1, 5];
        for count in 0..=all.len() {
            for null in [None, Some(0), Some(2), Some(5)] {
                let ints = &all[..count];
                let validity = null.map(|null| NullBuffer::from_iter((0..count).map(|row| row != null)));
                let value = |row: usize| (Some(row) != null).then_some(i64::from(ints[row]));
                let expect: Int64Array = (0..count).map(value).collect();
                let packed = Column::packed(ints.to_vec(), validity);
                assert_eq!(
                    packed.to_array(count).as_primitive::<Int64Type>(),
                    &expect,
                    "{ints:?} without {null:?}"
                );
                let Column::Packed { codes, .. } = packed else { panic!("{packed:?}") };
                assert!(null.is_none_or(|null| null >= count || codes.get(null) == 0), "{codes:?}");
            }
        }
        let none = NullBuffer::new_null(2);
        assert_eq!(Column::packed(vec![7, 8], Some(none)).to_array(2).null_count(), 2);
        let bytes = |ints: &[u32]| match Column::packed(ints.to_vec(), None) {
            Column::Packed { codes: Codes::U8(_), .. } => 1,
            Column::Packed { codes: Codes::U16(_), .. } => 2,
            Column::Packed { codes: Codes::U32(_), .. } => 4,
            _ => 8,
        };
        assert_eq!([bytes(&[1_000, 1_255]), bytes(&[0, 256]), bytes(&[1, 65_537])], [1, 2, 4]);
    }

    #[test]
    fn the_order_of_a_dictionary_tells_the_codes_of_texts_and_of_what_begins_with_them() {
        let values = StringArray::from(vec!["", "a", "ab", "abc", "abd", "b", "\u{10ffff}"]);
        for (text, codes, begin) in [
            ("", 0..1, 0..7),
            ("a", 1..2, 1..5),
            ("ab", 2..3, 2..5),
            ("abd", 4..5, 4..5),
            ("abcd", 4..4, 4..4),
            ("b", 5..6, 5..6),
            ("c", 6..6, 6..6),
            ("\u{10ffff}", 6..7, 6..7),
            ("\u{10ffff}a", 7..7, 7..7),
        ] {
            assert_eq!(codes_of(&values, text, false), (codes.start, codes.end), "{text:?}");
            assert_eq!(codes_of(&values, text, true), (begin.start, begin.end), "{text:?}...");
        }
    }
}
