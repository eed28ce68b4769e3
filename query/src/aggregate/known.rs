//! The form in which a distinct value is known: ints, times and bools as i64, floats by their bits after -0.0 became
//! 0.0 and every NaN the same NaN, texts by their bytes, lists by their texts with lengths.

use arrow::array::{ArrayRef, AsArray};
use arrow::buffer::NullBuffer;

use super::each::{for_each_valid, own_nulls, scaled_floats};
use super::scalars::{Kind, to_floats, to_ints, to_texts};
use super::{Input, Values};
use crate::QueryError;
use crate::sketch::{hash_bytes, hash_int};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known<'a> {
    /// Anything but texts.
    Int(i64),
    /// Texts.
    Bytes(&'a [u8]),
}

impl Known<'_> {
    pub(crate) fn hash(self) -> u64 {
        match self {
            Known::Int(int) => hash_int(int),
            Known::Bytes(bytes) => hash_bytes(bytes),
        }
    }
}

/// A float as the integer it is known by.
#[inline(always)]
fn float_key(value: f64) -> i64 {
    let value = if value == 0.0 { 0.0 } else { value };
    (if value.is_nan() { f64::NAN } else { value }).to_bits() as i64
}

/// Calls `visit` with the group and the form of every row that has a value. Not for codes.
#[inline(always)]
pub(crate) fn for_each(
    groups: &[u32],
    input: &Input<'_>,
    kind: Kind,
    mut visit: impl FnMut(u32, Known<'_>),
) -> Result<(), QueryError> {
    let (rows, validity) = (groups.len(), input.validity);
    match input.values {
        Values::None | Values::Codes(..) => {}
        Values::Int(values) if kind == Kind::Int => {
            let values = &values[..rows];
            for_each_valid(rows, validity, |row| visit(groups[row], Known::Int(values[row])));
        }
        Values::Array(array) => {
            let own = own_nulls(input);
            let validity = own.as_ref().or(validity);
            each_of_array(groups, array, kind, validity, |row| row, visit)?;
        }
        Values::Float(values) => {
            for_each_valid(rows, validity, |row| visit(groups[row], Known::Int(float_key(values[row]))));
        }
        Values::Int(_) | Values::Scaled(..) => {
            let floats = match input.values {
                Values::Scaled(values, digits) => scaled_floats(values, digits),
                Values::Int(values) => scaled_floats(values, 0),
                _ => Vec::new(),
            };
            for_each_valid(rows, validity, |row| visit(groups[row], Known::Int(float_key(floats[row]))));
        }
    }
    Ok(())
}

/// Calls `visit` with the group and the form of the value at the place of every row that is there. These values are
/// not NULL.
pub(crate) fn each_of_array(
    groups: &[u32],
    array: &ArrayRef,
    kind: Kind,
    validity: Option<&NullBuffer>,
    place: impl Fn(usize) -> usize,
    mut visit: impl FnMut(u32, Known<'_>),
) -> Result<(), QueryError> {
    let rows = groups.len();
    match kind {
        Kind::Int => {
            let ints = to_ints(array)?;
            for_each_valid(rows, validity, |row| visit(groups[row], Known::Int(ints.value(place(row)))));
        }
        Kind::Float => {
            let floats = to_floats(array)?;
            for_each_valid(rows, validity, |row| {
                visit(groups[row], Known::Int(float_key(floats.value(place(row)))));
            });
        }
        Kind::Text => {
            let texts = to_texts(array)?;
            for_each_valid(rows, validity, |row| {
                visit(groups[row], Known::Bytes(texts.value(place(row)).as_bytes()));
            });
        }
        Kind::Texts => {
            let lists = array.as_list::<i32>();
            let mut bytes = Vec::new();
            for_each_valid(rows, validity, |row| {
                bytes.clear();
                for item in lists.value(place(row)).as_string::<i32>().iter() {
                    let item = item.unwrap_or_default();
                    bytes.extend_from_slice(&(item.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(item.as_bytes());
                }
                visit(groups[row], Known::Bytes(&bytes));
            });
        }
    }
    Ok(())
}
