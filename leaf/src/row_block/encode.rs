//! From a column of values to the encoding that stores it best.
//!
//! What a column is stored as is decided by what it holds, measured: a single value costs nothing; integers get a
//! base, a common divisor and codes as narrow as they can be; strings get a dictionary unless most are distinct;
//! floats that are decimals become integers when that halves them and gives every bit back. Between two encodings
//! of like size the one that scans faster is taken, which is why there is no compression on top.

mod text;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};
use gannet_query::value::EXACT_INT_MAX;
use gannet_query::{ColumnType, TypeSet};
use hashbrown::HashSet;

use super::layout::{BUFFERS, ColumnMeta, Encoding, Place, Stored, ValueRange};
use super::shape::DECIMAL_DIGITS_MAX;

/// Integers of at most this many steps from least to greatest are counted in a bitmap.
const COUNT_BITS_MAX: u64 = 1 << 20;

/// An encoded column. Its places are filled in when the image is put together.
pub(super) type Encoded = (ColumnMeta, Vec<Buffer>);

/// Encodes a column whose array has exactly the column type's Arrow type.
pub(super) fn encode(name: &str, column_type: ColumnType, array: &ArrayRef) -> Encoded {
    let parts = match column_type {
        _ if array.null_count() == array.len() => Parts::new(Encoding::Null),
        ColumnType::Bool => bools(array.as_boolean()),
        ColumnType::Int => ints(array.as_primitive::<Int64Type>().values(), array.nulls()),
        ColumnType::Time => ints(array.as_primitive::<TimestampNanosecondType>().values(), array.nulls()),
        ColumnType::Float => floats(array.as_primitive::<Float64Type>()),
        ColumnType::String => text::strings(array.as_string()),
        ColumnType::Strings => text::lists(array.as_list()),
    };
    let wide = column_type == ColumnType::Int && parts.is_wide();
    let meta = ColumnMeta {
        name: name.to_owned(),
        column_type,
        types: TypeSet::of(column_type, wide),
        null_count: array.null_count() as u64,
        distinct_count: parts.distinct_count,
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
    range: Option<ValueRange>,
}

impl Parts {
    fn new(encoding: Encoding) -> Parts {
        let buffers = [Place::default(); BUFFERS];
        let stored =
            Stored { encoding, code_bytes: 0, parameter: 0, base: 0, gcd: 0, value_count: 0, buffers };
        Parts { stored, buffers: Vec::new(), distinct_count: 0, range: None }
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

fn ints(values: &[i64], validity: Option<&NullBuffer>) -> Parts {
    let packed = Packed::of(values, validity);
    let range = Some(ValueRange::Int(packed.base, packed.last));
    let distinct_count = packed.distinct_count(values, validity);
    if packed.base == packed.last && validity.is_none_or(|validity| validity.null_count() == 0) {
        let mut parts = Parts::new(Encoding::Constant);
        parts.stored.base = packed.base;
        return Parts { distinct_count, range, ..parts };
    }
    let mut parts = Parts { distinct_count, range, ..Parts::new(Encoding::Packed) };
    packed.store(values, validity, &mut parts);
    parts
}

/// How integers are packed: value = base + gcd × code.
struct Packed {
    base: i64,
    last: i64,
    gcd: i64,
}

impl Packed {
    /// Measures integers of which at least one is valid.
    fn of(values: &[i64], validity: Option<&NullBuffer>) -> Packed {
        let valid = || values.iter().enumerate().filter(|(row, _)| is_valid(validity, *row)).map(|(_, v)| *v);
        let (base, last) = match validity {
            // Without NULLs these are two plain loops over a slice, which become vector instructions.
            None => (values.iter().copied().min(), values.iter().copied().max()),
            Some(_) => (valid().min(), valid().max()),
        };
        let (base, last) = (base.unwrap_or(0), last.unwrap_or(0));
        let mut gcd = 0_u64;
        for value in valid() {
            let distance = value.wrapping_sub(base) as u64;
            if gcd == 0 || !distance.is_multiple_of(gcd) {
                gcd = common_divisor(gcd, distance);
            }
            if gcd == 1 {
                break;
            }
        }
        // Two values more than 2^63 apart have a divisor that is no i64; all equal values have none.
        let gcd = i64::try_from(gcd).unwrap_or(1).max(1);
        Packed { base, last, gcd }
    }

    fn code(&self, value: i64) -> u64 {
        value.wrapping_sub(self.base) as u64 / self.gcd as u64
    }

    fn code_max(&self) -> u64 {
        self.code(self.last)
    }

    fn code_bytes(&self) -> u8 {
        width(self.code_max())
    }

    fn distinct_count(&self, values: &[i64], validity: Option<&NullBuffer>) -> u64 {
        let valid = || values.iter().enumerate().filter(|(row, _)| is_valid(validity, *row)).map(|(_, v)| *v);
        if self.code_max() > COUNT_BITS_MAX {
            return valid().collect::<HashSet<i64>>().len() as u64;
        }
        let mut seen = vec![0_u64; self.code_max() as usize / 64 + 1];
        for value in valid() {
            let code = self.code(value);
            seen[code as usize / 64] |= 1 << (code % 64);
        }
        seen.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Adds codes and validity to a column.
    fn store(&self, values: &[i64], validity: Option<&NullBuffer>, parts: &mut Parts) {
        let codes = values.iter().enumerate().map(|(row, value)| match is_valid(validity, row) {
            true => self.code(*value),
            false => 0,
        });
        parts.stored.base = self.base;
        parts.stored.gcd = self.gcd;
        parts.stored.code_bytes = self.code_bytes();
        parts.buffers = vec![narrow(codes, self.code_bytes()), validity_buffer(validity)];
    }
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Bytes that every code up to the largest fits in.
fn width(code_max: u64) -> u8 {
    match code_max {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

/// Codes in their width; every one fits.
fn narrow(codes: impl Iterator<Item = u64>, code_bytes: u8) -> Buffer {
    match code_bytes {
        1 => Buffer::from_vec(codes.map(|code| code as u8).collect::<Vec<_>>()),
        2 => Buffer::from_vec(codes.map(|code| code as u16).collect::<Vec<_>>()),
        4 => Buffer::from_vec(codes.map(|code| code as u32).collect::<Vec<_>>()),
        _ => Buffer::from_vec(codes.collect::<Vec<_>>()),
    }
}

fn floats(array: &Float64Array) -> Parts {
    let valid = || array.iter().flatten();
    let (mut first, mut last) = (f64::INFINITY, f64::NEG_INFINITY);
    // The total order, so that NaN and -0.0 have a place too. Starting values are replaced by the first value.
    for (index, value) in valid().enumerate() {
        if index == 0 || value.total_cmp(&first).is_lt() {
            first = value;
        }
        if index == 0 || value.total_cmp(&last).is_gt() {
            last = value;
        }
    }
    let range = Some(ValueRange::Float(first, last));
    let distinct_count = valid().map(f64::to_bits).collect::<HashSet<u64>>().len() as u64;
    if distinct_count == 1 && array.null_count() == 0 {
        let mut parts = Parts::new(Encoding::Constant);
        parts.stored.base = first.to_bits() as i64;
        return Parts { distinct_count, range, ..parts };
    }
    if let Some(parts) = decimals(array) {
        return Parts { distinct_count, range, ..parts };
    }
    let buffers = vec![array.values().inner().clone(), validity_buffer(array.nulls())];
    Parts { buffers, distinct_count, range, ..Parts::new(Encoding::Floats) }
}

/// Floats as integers over a power of ten, if every bit comes back and they take at most half the bytes.
fn decimals(array: &Float64Array) -> Option<Parts> {
    let mut digits = 0;
    for value in array.iter().flatten() {
        while scaled(value, digits).is_none() {
            digits += 1;
            if digits > DECIMAL_DIGITS_MAX {
                return None;
            }
        }
    }
    // A value that is exact with few digits need not be with more: it may leave the exact integers.
    let ints: Option<Vec<i64>> =
        array.iter().map(|value| value.map_or(Some(0), |value| scaled(value, digits))).collect();
    let ints = ints?;
    let packed = Packed::of(&ints, array.nulls());
    if packed.code_bytes() > 4 {
        return None;
    }
    let mut parts = Parts::new(Encoding::Decimal);
    parts.stored.parameter = digits;
    packed.store(&ints, array.nulls(), &mut parts);
    Some(parts)
}

/// The integer that, divided by 10^digits, is this float to the last bit.
fn scaled(value: f64, digits: u8) -> Option<i64> {
    let power = power_of_ten(digits);
    let product = (value * power).round();
    // NaN fails the comparison; -0.0 and whatever rounding changed fail the second one.
    if product.abs() > EXACT_INT_MAX as f64 || product.is_nan() {
        return None;
    }
    let int = product as i64;
    (unscaled(int, digits).to_bits() == value.to_bits()).then_some(int)
}

/// The float of a decimal: the inverse of how it was scaled.
#[inline]
pub(super) fn unscaled(int: i64, digits: u8) -> f64 {
    int as f64 / power_of_ten(digits)
}

/// Powers of ten up to 10^22 are exact floats.
pub(super) fn power_of_ten(digits: u8) -> f64 {
    const POWERS: [f64; DECIMAL_DIGITS_MAX as usize + 1] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    POWERS.get(usize::from(digits)).copied().unwrap_or(1.0)
}
