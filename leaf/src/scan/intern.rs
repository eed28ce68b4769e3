//! Numbering the distinct values of an array, NULL among them.
//!
//! Values are equal when a group key says so: -0.0 is 0.0, and every NaN is the same NaN.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Float32Type, Float64Type, TimeUnit};
use arrow::row::{RowConverter, SortField};
use hashbrown::HashMap;

use super::ScanError;
use super::readers::int_parts;

/// A number for every value, and the distinct values in the order of their numbers.
pub(super) fn intern(array: &ArrayRef) -> Result<(Vec<u32>, ArrayRef), ScanError> {
    let array = &plain_floats(array);
    let (codes, firsts) = match array.data_type() {
        DataType::Null => (vec![0; array.len()], vec![0; array.len().min(1)]),
        DataType::Boolean => number(array.as_boolean().iter()),
        DataType::Int64 | DataType::Timestamp(TimeUnit::Nanosecond, _) => match int_parts(array) {
            Some((values, None)) => number(values.iter().map(|value| Some(*value))),
            Some((values, Some(nulls))) => {
                number(values.iter().zip(nulls.iter()).map(|(value, valid)| valid.then_some(*value)))
            }
            None => by_row(array)?,
        },
        DataType::Float64 => {
            number(array.as_primitive::<Float64Type>().iter().map(|value| value.map(f64::to_bits)))
        }
        DataType::Utf8 => number(array.as_string::<i32>().iter()),
        DataType::LargeUtf8 => number(array.as_string::<i64>().iter()),
        DataType::Utf8View => number(array.as_string_view().iter()),
        _ => by_row(array)?,
    };
    let values = take(array, &UInt32Array::from(firsts), None)?;
    Ok((codes, values))
}

/// Numbers in order of first appearance, and the index of each first appearance.
pub(super) fn number<K: Hash + Eq>(keys: impl Iterator<Item = Option<K>>) -> (Vec<u32>, Vec<u32>) {
    let count = keys.size_hint().0;
    // Where most are distinct, a table that begins small is made anew again and again.
    let mut numbers: HashMap<K, u32> = HashMap::with_capacity(count / 8);
    let mut null = None;
    let mut firsts: Vec<u32> = Vec::new();
    let mut codes = Vec::with_capacity(count);
    for (index, key) in keys.enumerate() {
        let mut next = || {
            firsts.push(index as u32);
            firsts.len() as u32 - 1
        };
        codes.push(match key {
            Some(key) => *numbers.entry(key).or_insert_with(next),
            None => *null.get_or_insert_with(&mut next),
        });
    }
    (codes, firsts)
}

/// Any other type, by Arrow's comparable row format.
fn by_row(array: &ArrayRef) -> Result<(Vec<u32>, Vec<u32>), ScanError> {
    let converter = RowConverter::new(vec![SortField::new(array.data_type().clone())])?;
    let rows = converter.convert_columns(&[Arc::clone(array)])?;
    Ok(number(rows.iter().map(Some)))
}

/// Floats with one zero and one NaN; other arrays as they are.
fn plain_floats(array: &ArrayRef) -> ArrayRef {
    if let Some(floats) = array.as_primitive_opt::<Float64Type>() {
        return Arc::new(floats.unary::<_, Float64Type>(|value| match value {
            0.0 => 0.0,
            value if value.is_nan() => f64::NAN,
            value => value,
        }));
    }
    if let Some(floats) = array.as_primitive_opt::<Float32Type>() {
        return Arc::new(floats.unary::<_, Float32Type>(|value| match value {
            0.0 => 0.0,
            value if value.is_nan() => f32::NAN,
            value => value,
        }));
    }
    Arc::clone(array)
}
