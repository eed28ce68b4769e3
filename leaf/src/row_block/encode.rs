//! From a column of values to the encoding that stores it best.
//!
//! What a column is stored as is decided by what it holds, measured: a single value costs nothing; integers get a
//! base, a common divisor and codes in as few bits as they need, or a dictionary where that is smaller; floats that are
//! decimals become integers when that halves them and gives every bit back; strings get a dictionary, or one of the
//! forms of `text` where most are distinct. Between two encodings of like size the one that scans faster is taken, which
//! is why there is no general compression on top.

mod numbers;
mod text;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use gannet_query::value::EXACT_INT_MAX;
use gannet_query::{ColumnType, TypeSet};

use super::layout::{BUFFERS, ColumnMeta, Encoding, Place, Stored, ValueRange};
use crate::coded_texts::Part;
use crate::packing::{self, Packing};

/// Which encodings a leaf prefers. Every one of them holds every value; only the best is small and fast. The others are
/// there so that tests can see all rows through each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// What is measured to be best.
    #[default]
    Best,
    /// Plain codes, plain floats and plain text.
    Plain,
    /// Codes in vectors with bases and patches, and no dictionary of numbers.
    Packed,
    /// A dictionary for everything that can have one.
    Dictionary,
    /// Text in the forms for mostly distinct values, whatever they cost.
    Text,
}

impl Preference {
    /// Stores codes in the preferred way.
    fn pack(self, codes: &[u64]) -> (Packing, Buffer) {
        match self {
            Preference::Best | Preference::Text => packing::pack(codes),
            Preference::Plain | Preference::Dictionary => packing::pack_plain(codes),
            Preference::Packed => packing::pack_framed(codes),
        }
    }
}

/// An encoded column. Its places are filled in when the image is put together.
pub(super) type Encoded = (ColumnMeta, Vec<Buffer>);

/// Encodes a column whose array has exactly the column type's Arrow type.
pub(super) fn encode(
    name: &str,
    column_type: ColumnType,
    array: &ArrayRef,
    preference: Preference,
) -> Encoded {
    let parts = match column_type {
        _ if array.null_count() == array.len() => Parts::new(Encoding::Null),
        ColumnType::Bool => bools(array.as_boolean()),
        ColumnType::Int => {
            numbers::ints(array.as_primitive::<Int64Type>().values(), array.nulls(), preference)
        }
        ColumnType::Time => {
            numbers::ints(array.as_primitive::<TimestampNanosecondType>().values(), array.nulls(), preference)
        }
        ColumnType::Float => numbers::floats(array.as_primitive::<Float64Type>(), preference),
        ColumnType::String => text::strings(array.as_string(), preference),
        ColumnType::Strings => text::lists(array.as_list()),
    };
    described(name, column_type, array.null_count(), parts)
}

/// Encodes a column of strings that came as dictionaries; `None` where its values may be stored better.
pub(super) fn encode_coded(name: &str, parts: &[Part], null_count: usize) -> Option<Encoded> {
    Some(described(name, ColumnType::String, null_count, text::dictionaries(parts)?))
}

fn described(name: &str, column_type: ColumnType, null_count: usize, parts: Parts) -> Encoded {
    let wide = column_type == ColumnType::Int && parts.is_wide();
    let meta = ColumnMeta {
        name: name.to_owned(),
        column_type,
        types: TypeSet::of(column_type, wide),
        null_count: null_count as u64,
        distinct_count: parts.distinct_count,
        int_sum: parts.int_sum.filter(|_| column_type == ColumnType::Int),
        range: parts.range,
        bytes: parts.buffers.iter().map(|buffer| buffer.len() as u64).sum(),
        stored: parts.stored,
    };
    (meta, parts.buffers)
}

/// Whether an integer is beyond what floats represent exactly.
pub(crate) fn is_wide(value: i64) -> bool {
    value.unsigned_abs() > EXACT_INT_MAX as u64
}

/// A column without what it has in common with all others.
struct Parts {
    stored: Stored,
    buffers: Vec<Buffer>,
    distinct_count: u64,
    int_sum: Option<i128>,
    range: Option<ValueRange>,
}

impl Parts {
    fn new(encoding: Encoding) -> Parts {
        let buffers = [Place::default(); BUFFERS];
        let packing = Packing::default();
        let stored = Stored { encoding, packing, parameter: 0, base: 0, gcd: 0, value_count: 0, buffers };
        Parts { stored, buffers: Vec::new(), distinct_count: 0, int_sum: None, range: None }
    }

    fn is_wide(&self) -> bool {
        matches!(self.range, Some(ValueRange::Int(first, last)) if is_wide(first) || is_wide(last))
    }
}

/// The bits of a validity, from bit 0; no bytes when every row has a value.
fn validity_buffer(validity: Option<&NullBuffer>) -> Buffer {
    match validity {
        Some(validity) if validity.null_count() > 0 => {
            validity.inner().sliced().slice_with_length(0, validity.len().div_ceil(8))
        }
        _ => Buffer::default(),
    }
}

fn is_valid(validity: Option<&NullBuffer>, row: usize) -> bool {
    validity.is_none_or(|validity| validity.is_valid(row))
}

fn bools(array: &BooleanArray) -> Parts {
    let mut seen = [false; 2];
    for value in array.iter().flatten() {
        seen[usize::from(value)] = true;
    }
    let distinct_count = seen.iter().filter(|seen| **seen).count() as u64;
    if distinct_count == 1 && array.null_count() == 0 {
        let mut parts = Parts::new(Encoding::Constant);
        parts.stored.base = i64::from(seen[1]);
        return Parts { distinct_count, ..parts };
    }
    let bits = array.values().sliced().slice_with_length(0, array.len().div_ceil(8));
    let buffers = vec![bits, validity_buffer(array.nulls())];
    Parts { buffers, distinct_count, ..Parts::new(Encoding::Bits) }
}
