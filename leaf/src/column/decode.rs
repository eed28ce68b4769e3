//! From encodings to Arrow arrays: whole columns and chosen positions.
//!
//! These are the hot loops of a scan that needs values: plain slices and iterators, one loop for each code width,
//! so that the compiler can use vector instructions. Arithmetic wraps on purpose: `base + gcd × code` is within
//! 64 bits for every code of a checked column, but its intermediate steps need not be.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, PrimitiveArray,
    TimestampNanosecondArray, UInt32Array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType, Float64Type, Int64Type, TimestampNanosecondType};

use gannet_query::ColumnType;

use super::{Codes, Column};
use crate::cast::item_field;
use crate::vectors::vectorized;

impl Codes {
    /// How many codes there are, one a row.
    pub fn len(&self) -> usize {
        match self {
            Codes::U8(codes) => codes.len(),
            Codes::U16(codes) => codes.len(),
            Codes::U32(codes) => codes.len(),
            Codes::U64(codes) => codes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The code of one row.
    ///
    /// # Panics
    /// When `index` is not below [`Codes::len`].
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        match self {
            Codes::U8(codes) => u64::from(codes[index]),
            Codes::U16(codes) => u64::from(codes[index]),
            Codes::U32(codes) => u64::from(codes[index]),
            Codes::U64(codes) => codes[index],
        }
    }

    /// Bytes of one code: 1, 2, 4 or 8.
    pub fn width(&self) -> usize {
        match self {
            Codes::U8(_) => 1,
            Codes::U16(_) => 2,
            Codes::U32(_) => 4,
            Codes::U64(_) => 8,
        }
    }

    /// The largest code, or `None` when there are none.
    pub fn max(&self) -> Option<u64> {
        vectorized(
            #[inline(always)]
            || match self {
                Codes::U8(codes) => codes.iter().copied().max().map(u64::from),
                Codes::U16(codes) => codes.iter().copied().max().map(u64::from),
                Codes::U32(codes) => codes.iter().copied().max().map(u64::from),
                Codes::U64(codes) => codes.iter().copied().max(),
            },
        )
    }

    /// The smallest code, or `None` when there are none.
    pub fn min(&self) -> Option<u64> {
        vectorized(
            #[inline(always)]
            || match self {
                Codes::U8(codes) => codes.iter().copied().min().map(u64::from),
                Codes::U16(codes) => codes.iter().copied().min().map(u64::from),
                Codes::U32(codes) => codes.iter().copied().min().map(u64::from),
                Codes::U64(codes) => codes.iter().copied().min(),
            },
        )
    }

    /// All codes as 32-bit integers; those of dictionaries always fit.
    pub fn to_u32(&self) -> ScalarBuffer<u32> {
        match self {
            Codes::U8(codes) => codes.iter().map(|code| u32::from(*code)).collect(),
            Codes::U16(codes) => codes.iter().map(|code| u32::from(*code)).collect(),
            Codes::U32(codes) => codes.clone(),
            Codes::U64(codes) => codes.iter().map(|code| *code as u32).collect(),
        }
    }

    /// The codes at some positions as 32-bit integers.
    fn take_u32(&self, positions: &[u32]) -> Vec<u32> {
        match self {
            Codes::U8(codes) => positions.iter().map(|p| u32::from(codes[*p as usize])).collect(),
            Codes::U16(codes) => positions.iter().map(|p| u32::from(codes[*p as usize])).collect(),
            Codes::U32(codes) => positions.iter().map(|p| codes[*p as usize]).collect(),
            Codes::U64(codes) => positions.iter().map(|p| codes[*p as usize] as u32).collect(),
        }
    }
}

/// `base + gcd × code` for every row.
pub fn unpack(base: i64, gcd: i64, codes: &Codes) -> Vec<i64> {
    match codes {
        Codes::U8(codes) => unpack_all(base, gcd, codes),
        Codes::U16(codes) => unpack_all(base, gcd, codes),
        Codes::U32(codes) => unpack_all(base, gcd, codes),
        Codes::U64(codes) => unpack_all(base, gcd, codes),
    }
}

/// `base + gcd × code` for the rows at some positions.
pub fn unpack_at(base: i64, gcd: i64, codes: &Codes, positions: &[u32]) -> Vec<i64> {
    match codes {
        Codes::U8(codes) => unpack_some(base, gcd, codes, positions),
        Codes::U16(codes) => unpack_some(base, gcd, codes, positions),
        Codes::U32(codes) => unpack_some(base, gcd, codes, positions),
        Codes::U64(codes) => unpack_some(base, gcd, codes, positions),
    }
}

/// A code as the integer it adds to the base. 64-bit codes wrap, see the module.
trait Code: ArrowNativeType {
    fn widen(self) -> i64;
}

impl Code for u8 {
    #[inline]
    fn widen(self) -> i64 {
        i64::from(self)
    }
}

impl Code for u16 {
    #[inline]
    fn widen(self) -> i64 {
        i64::from(self)
    }
}

impl Code for u32 {
    #[inline]
    fn widen(self) -> i64 {
        i64::from(self)
    }
}

impl Code for u64 {
    #[inline]
    fn widen(self) -> i64 {
        self as i64
    }
}

fn unpack_all<C: Code>(base: i64, gcd: i64, codes: &[C]) -> Vec<i64> {
    if gcd == 1 {
        // Without the multiplication, which has no vector form for 64 bits on plain x86-64.
        codes.iter().map(|code| base.wrapping_add(code.widen())).collect()
    } else {
        codes.iter().map(|code| base.wrapping_add(gcd.wrapping_mul(code.widen()))).collect()
    }
}

fn unpack_some<C: Code>(base: i64, gcd: i64, codes: &[C], positions: &[u32]) -> Vec<i64> {
    positions.iter().map(|p| base.wrapping_add(gcd.wrapping_mul(codes[*p as usize].widen()))).collect()
}

impl Column {
    /// Every row's value, decoded. `row_count` is the number of rows of the run, which a constant does not know.
    ///
    /// A packed column does not know whether it is an int or a time and gives an `Int64Array` for both; use
    /// [`Column::to_typed_array`] where the type matters.
    pub fn to_array(&self, row_count: usize) -> ArrayRef {
        match self {
            Column::Constant(value) => repeat(value, row_count),
            Column::Packed { base, gcd, codes, validity } => {
                Arc::new(Int64Array::new(unpack(*base, *gcd, codes).into(), validity.clone()))
            }
            Column::Dictionary { values, codes, has_nulls } => look_up(values, codes.to_u32(), *has_nulls),
            Column::IntDictionary { values, codes, has_nulls } => {
                let (values, nulls) = look_up_numbers(values, &codes.to_u32(), *has_nulls);
                Arc::new(Int64Array::new(values, nulls))
            }
            Column::FloatDictionary { values, codes, has_nulls } => {
                let (values, nulls) = look_up_numbers(values, &codes.to_u32(), *has_nulls);
                Arc::new(Float64Array::new(values, nulls))
            }
            Column::Decimal { base, gcd, digits, codes, validity } => {
                decimals(unpack(*base, *gcd, codes), *digits, validity.clone())
            }
            Column::Text(text) => Arc::new(text.to_array()),
            Column::Lists { offsets, values, codes, has_null_items, validity } => {
                lists(offsets.clone(), values, codes.to_u32(), *has_null_items, validity.clone())
            }
            Column::Plain(array) => Arc::clone(array),
        }
    }

    /// The values of the rows at `positions`, decoded, in the order of the positions.
    ///
    /// As with [`Column::to_array`], a packed column gives an `Int64Array`; see [`Column::take_typed`].
    ///
    /// # Panics
    /// When a position is not below the run's row count, or when the same long text is taken so often that the
    /// result exceeds 2 GiB; distinct positions never do.
    pub fn take(&self, positions: &[u32]) -> ArrayRef {
        match self {
            Column::Constant(value) => repeat(value, positions.len()),
            Column::Packed { base, gcd, codes, validity } => {
                let validity = validity.as_ref().map(|validity| take_validity(validity, positions));
                Arc::new(Int64Array::new(unpack_at(*base, *gcd, codes, positions).into(), validity))
            }
            Column::Dictionary { values, codes, has_nulls } => {
                look_up(values, codes.take_u32(positions).into(), *has_nulls)
            }
            Column::IntDictionary { values, codes, has_nulls } => {
                let (values, nulls) = look_up_numbers(values, &codes.take_u32(positions), *has_nulls);
                Arc::new(Int64Array::new(values, nulls))
            }
            Column::FloatDictionary { values, codes, has_nulls } => {
                let (values, nulls) = look_up_numbers(values, &codes.take_u32(positions), *has_nulls);
                Arc::new(Float64Array::new(values, nulls))
            }
            Column::Decimal { base, gcd, digits, codes, validity } => {
                let validity = validity.as_ref().map(|validity| take_validity(validity, positions));
                decimals(unpack_at(*base, *gcd, codes, positions), *digits, validity)
            }
            Column::Text(text) => Arc::new(text.take(positions)),
            Column::Lists { offsets, values, codes, has_null_items, validity } => {
                let range = |row: &u32| offsets[*row as usize]..offsets[*row as usize + 1];
                let items: Vec<u32> =
                    positions.iter().flat_map(|row| range(row).map(|at| at as u32)).collect();
                let codes = codes.take_u32(&items);
                let offsets = OffsetBuffer::from_lengths(positions.iter().map(|row| range(row).len()));
                let validity = validity.as_ref().map(|validity| take_validity(validity, positions));
                lists(offsets, values, codes.into(), *has_null_items, validity)
            }
            Column::Plain(array) => take_plain(array, positions),
        }
    }

    /// [`Column::to_array`], with the Arrow type of the column type even when the column is packed.
    pub fn to_typed_array(&self, column_type: ColumnType, row_count: usize) -> ArrayRef {
        typed(self.to_array(row_count), column_type)
    }

    /// [`Column::take`], with the Arrow type of the column type even when the column is packed.
    pub fn take_typed(&self, column_type: ColumnType, positions: &[u32]) -> ArrayRef {
        typed(self.take(positions), column_type)
    }
}

/// Gives integers that are times the type of times, without copying.
fn typed(array: ArrayRef, column_type: ColumnType) -> ArrayRef {
    match array.as_primitive_opt::<Int64Type>() {
        Some(ints) if column_type == ColumnType::Time => {
            let times: TimestampNanosecondArray = ints.reinterpret_cast();
            Arc::new(times.with_timezone("+00:00"))
        }
        _ => array,
    }
}

/// An array of one value, `row_count` times.
fn repeat(value: &ArrayRef, row_count: usize) -> ArrayRef {
    if value.is_null(0) {
        return new_null_array(value.data_type(), row_count);
    }
    match value.data_type() {
        DataType::Int64 => {
            let value = value.as_primitive::<Int64Type>().value(0);
            Arc::new(Int64Array::new(vec![value; row_count].into(), None))
        }
        DataType::Float64 => {
            let value = value.as_primitive::<Float64Type>().value(0);
            Arc::new(Float64Array::new(vec![value; row_count].into(), None))
        }
        DataType::Timestamp(..) => {
            let time = value.as_primitive_opt::<TimestampNanosecondType>().map_or(0, |times| times.value(0));
            let times: PrimitiveArray<TimestampNanosecondType> = vec![time; row_count].into();
            Arc::new(times.with_data_type(value.data_type().clone()))
        }
        DataType::Boolean => {
            let bits = match value.as_boolean().value(0) {
                true => BooleanBuffer::new_set(row_count),
                false => BooleanBuffer::new_unset(row_count),
            };
            Arc::new(BooleanArray::new(bits, None))
        }
        _ => take_plain(value, &vec![0; row_count]),
    }
}

/// Powers of ten up to 10^22 are exact floats; digits beyond 15 are of no column.
pub fn power_of_ten(digits: u8) -> f64 {
    const POWERS: [f64; 16] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    POWERS.get(usize::from(digits)).copied().unwrap_or(1.0)
}

fn decimals(ints: Vec<i64>, digits: u8, validity: Option<NullBuffer>) -> ArrayRef {
    let power = power_of_ten(digits);
    let values: ScalarBuffer<f64> = ints.into_iter().map(|int| int as f64 / power).collect();
    Arc::new(Float64Array::new(values, validity))
}

/// Lists of the values of some item codes. Offsets, codes and size were checked when the column was opened.
fn lists(
    offsets: OffsetBuffer<i32>,
    values: &ArrayRef,
    codes: ScalarBuffer<u32>,
    has_null_items: bool,
    validity: Option<NullBuffer>,
) -> ArrayRef {
    let items = look_up(values, codes, has_null_items);
    Arc::new(ListArray::new(item_field(), offsets, items, validity))
}

/// The numbers of a dictionary for some codes; the code just past it is NULL.
fn look_up_numbers<T: ArrowNativeType>(
    values: &[T],
    codes: &[u32],
    has_nulls: bool,
) -> (ScalarBuffer<T>, Option<NullBuffer>) {
    let at = |code: &u32| values.get(*code as usize).copied().unwrap_or_default();
    let nulls = has_nulls.then(|| {
        NullBuffer::new(BooleanBuffer::collect_bool(codes.len(), |row| (codes[row] as usize) < values.len()))
    });
    (codes.iter().map(at).collect(), nulls)
}

/// The values of a dictionary for some codes; the code just past the dictionary is NULL.
fn look_up(values: &ArrayRef, codes: ScalarBuffer<u32>, has_nulls: bool) -> ArrayRef {
    let null_code = values.len() as u32;
    let validity = has_nulls
        .then(|| NullBuffer::new(BooleanBuffer::collect_bool(codes.len(), |row| codes[row] != null_code)));
    let indices = UInt32Array::new(codes, validity);
    arrow::compute::take(values, &indices, None)
        .expect("codes and decoded length are checked when the column is opened")
}

fn take_plain(array: &ArrayRef, positions: &[u32]) -> ArrayRef {
    let indices = UInt32Array::from(positions.to_vec());
    arrow::compute::take(array, &indices, None)
        .expect("distinct positions give at most the bytes of the column")
}

fn take_validity(validity: &NullBuffer, positions: &[u32]) -> NullBuffer {
    let bits = validity.inner();
    NullBuffer::new(BooleanBuffer::collect_bool(positions.len(), |i| bits.value(positions[i] as usize)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    fn packed(base: i64, gcd: i64, codes: Codes, valid: Option<Vec<bool>>) -> Column {
        Column::Packed { base, gcd, codes, validity: valid.map(NullBuffer::from) }
    }

    fn check(column: &Column, column_type: ColumnType, expect: ArrayRef) {
        assert_eq!(&column.to_typed_array(column_type, expect.len()), &expect, "{column:?}");
        let positions: Vec<u32> = (0..expect.len() as u32).rev().step_by(2).collect();
        let some =
            arrow::compute::take(&expect, &UInt32Array::from(positions.clone()), None).expect("in range");
        assert_eq!(&column.take_typed(column_type, &positions), &some, "{column:?}");
        assert_eq!(column.take_typed(column_type, &[]).len(), 0);
    }

    #[test]
    fn packed_columns_decode_in_every_width() {
        let expect = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let dense = || expect(vec![Some(-7), Some(-2), Some(8)]);
        check(&packed(-7, 5, Codes::U8(vec![0, 1, 3].into()), None), ColumnType::Int, dense());
        check(&packed(-7, 5, Codes::U16(vec![0, 1, 3].into()), None), ColumnType::Int, dense());
        check(&packed(-7, 5, Codes::U32(vec![0, 1, 3].into()), None), ColumnType::Int, dense());
        check(&packed(-7, 5, Codes::U64(vec![0, 1, 3].into()), None), ColumnType::Int, dense());
        check(
            &packed(1, 1, Codes::U8(vec![0, 0, 255].into()), Some(vec![true, false, true])),
            ColumnType::Int,
            expect(vec![Some(1), None, Some(256)]),
        );
        check(
            &packed(i64::MIN, 1, Codes::U64(vec![0, u64::MAX].into()), None),
            ColumnType::Int,
            expect(vec![Some(i64::MIN), Some(i64::MAX)]),
        );
        let times = TimestampNanosecondArray::from(vec![5, 6]).with_timezone("+00:00");
        check(&packed(5, 1, Codes::U8(vec![0, 1].into()), None), ColumnType::Time, Arc::new(times));
    }

    #[test]
    fn dictionaries_and_constants_decode() {
        let values: ArrayRef = Arc::new(StringArray::from(vec!["", "b"]));
        let column =
            Column::Dictionary { values, codes: Codes::U8(vec![1, 2, 0, 1].into()), has_nulls: true };
        let expect = StringArray::from(vec![Some("b"), None, Some(""), Some("b")]);
        check(&column, ColumnType::String, Arc::new(expect));

        let one = |array: ArrayRef| Column::Constant(array);
        check(
            &one(Arc::new(StringArray::from(vec!["x"]))),
            ColumnType::String,
            Arc::new(StringArray::from(vec!["x"; 3])),
        );
        check(
            &one(Arc::new(BooleanArray::from(vec![true]))),
            ColumnType::Bool,
            Arc::new(BooleanArray::from(vec![true; 9])),
        );
        check(
            &one(Arc::new(Float64Array::from(vec![-0.0]))),
            ColumnType::Float,
            Arc::new(Float64Array::from(vec![-0.0; 2])),
        );
        let strings = ColumnType::Strings.arrow();
        check(&one(new_null_array(&strings, 1)), ColumnType::Strings, new_null_array(&strings, 4));
        let time = Arc::new(TimestampNanosecondArray::from(vec![5]).with_timezone("+00:00"));
        let times = TimestampNanosecondArray::from(vec![5, 5]).with_timezone("+00:00");
        check(&one(time), ColumnType::Time, Arc::new(times));
    }

    #[test]
    fn codes_know_their_size() {
        let codes = Codes::U16(vec![3, 700, 1].into());
        assert_eq!((codes.len(), codes.get(1), codes.max(), codes.width()), (3, 700, Some(700), 2));
        assert!(!codes.is_empty() && Codes::U8(Vec::new().into()).is_empty());
        assert_eq!(codes.to_u32().to_vec(), vec![3, 700, 1]);
    }
}
