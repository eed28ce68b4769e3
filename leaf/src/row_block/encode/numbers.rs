//! Integers, times and floats.

use arrow::array::{Array, Float64Array};
use arrow::buffer::{Buffer, NullBuffer};
use gannet_query::value::EXACT_INT_MAX;
use hashbrown::HashSet;

use super::super::layout::{Encoding, ValueRange};
use super::super::shape::DECIMAL_DIGITS_MAX;
use super::{Parts, Preference, is_valid, validity_buffer};
use crate::column::power_of_ten;
use crate::packing::Packing;

/// Integers of at most this many steps from least to greatest are counted in a bitmap.
const COUNT_BITS_MAX: u64 = 1 << 20;
/// A dictionary of numbers has at most this many: each costs eight bytes.
const DICTIONARY_MAX: usize = 4_096;
/// A dictionary must save one part in this many against codes that need no look-up.
const DICTIONARY_MARGIN: usize = 6;

/// Encodes integers of which at least one is valid.
pub(super) fn ints(values: &[i64], validity: Option<&NullBuffer>, preference: Preference) -> Parts {
    let validity = validity.filter(|validity| validity.null_count() > 0);
    let packed = Packed::of(values, validity);
    let range = Some(ValueRange::Int(packed.base, packed.last));
    let sum = match validity {
        None => values.iter().map(|value| i128::from(*value)).sum(),
        Some(_) => valid_values(values, validity).map(i128::from).sum(),
    };
    let known = Parts { range, int_sum: Some(sum), ..Parts::new(Encoding::Constant) };
    if packed.base == packed.last && validity.is_none() {
        let mut parts = Parts { distinct_count: 1, ..known };
        parts.stored.base = packed.base;
        return parts;
    }
    let codes = packed.codes(values, validity);
    let (distinct, distinct_count) = packed.distinct(values, validity, &codes);
    let known = Parts { distinct_count, ..known };
    let stored = packed.store(&codes, validity, Encoding::Packed, preference);
    let bytes = |parts: &Parts| parts.buffers.iter().map(Buffer::len).sum::<usize>();
    if let Some(mut distinct) = distinct {
        distinct.sort_unstable();
        let place = |value: i64| distinct.partition_point(|known| *known < value) as u64;
        let numbers = Buffer::from_vec(distinct.clone());
        let codes = dictionary_codes(values, validity, place, distinct.len());
        let parts = dictionary(Encoding::IntDictionary, &codes, numbers, distinct.len(), preference);
        if takes_dictionary(bytes(&parts), bytes(&stored), preference) {
            return Parts { stored: parts.stored, buffers: parts.buffers, ..known };
        }
    }
    Parts { stored: stored.stored, buffers: stored.buffers, ..known }
}

fn valid_values<'a, T: Copy>(
    values: &'a [T],
    validity: Option<&'a NullBuffer>,
) -> impl Iterator<Item = T> + 'a {
    values.iter().enumerate().filter(move |(row, _)| is_valid(validity, *row)).map(|(_, value)| *value)
}

/// Whether a dictionary is taken in the place of what is stored otherwise.
fn takes_dictionary(bytes: usize, other_bytes: usize, preference: Preference) -> bool {
    match preference {
        Preference::Best | Preference::Text => bytes + other_bytes / DICTIONARY_MARGIN < other_bytes,
        Preference::Dictionary => true,
        Preference::Plain | Preference::Packed => false,
    }
}

/// Codes into a dictionary of numbers; NULL is the code just past it.
fn dictionary_codes<T: Copy>(
    values: &[T],
    validity: Option<&NullBuffer>,
    place: impl Fn(T) -> u64,
    count: usize,
) -> Vec<u64> {
    let code = |(row, value): (usize, &T)| if is_valid(validity, row) { place(*value) } else { count as u64 };
    values.iter().enumerate().map(code).collect()
}

fn dictionary(
    encoding: Encoding,
    codes: &[u64],
    numbers: Buffer,
    count: usize,
    preference: Preference,
) -> Parts {
    let mut parts = Parts::new(encoding);
    let (packing, codes) = preference.pack(codes);
    parts.stored.packing = packing;
    parts.stored.value_count = count as u64;
    parts.buffers = vec![codes, numbers];
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
        let valid = || valid_values(values, validity);
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
        let distance = value.wrapping_sub(self.base) as u64;
        if self.gcd == 1 { distance } else { distance / self.gcd as u64 }
    }

    /// One code a row, 0 for NULL.
    fn codes(&self, values: &[i64], validity: Option<&NullBuffer>) -> Vec<u64> {
        let code = |(row, value): (usize, &i64)| if is_valid(validity, row) { self.code(*value) } else { 0 };
        match validity {
            None => values.iter().map(|value| self.code(*value)).collect(),
            Some(_) => values.iter().enumerate().map(code).collect(),
        }
    }

    /// The distinct values, where they are few enough for a dictionary, and how many there are.
    fn distinct(
        &self,
        values: &[i64],
        validity: Option<&NullBuffer>,
        codes: &[u64],
    ) -> (Option<Vec<i64>>, u64) {
        if self.code(self.last) > COUNT_BITS_MAX {
            let mut few = HashSet::new();
            for value in valid_values(values, validity) {
                few.insert(value);
                if few.len() > DICTIONARY_MAX {
                    let hashes = valid_values(values, validity).map(|value| spread(value as u64));
                    return (None, estimate(hashes));
                }
            }
            let count = few.len() as u64;
            return (Some(few.into_iter().collect()), count);
        }
        let mut seen = vec![0_u64; self.code(self.last) as usize / 64 + 1];
        for code in codes.iter().enumerate().filter(|(row, _)| is_valid(validity, *row)).map(|(_, code)| code)
        {
            seen[*code as usize / 64] |= 1 << (code % 64);
        }
        let count: u64 = seen.iter().map(|word| u64::from(word.count_ones())).sum();
        let few = (count <= DICTIONARY_MAX as u64).then(|| {
            let codes =
                (0..seen.len() as u64 * 64).filter(|code| seen[*code as usize / 64] >> (code % 64) & 1 == 1);
            codes.map(|code| self.base.wrapping_add(self.gcd.wrapping_mul(code as i64))).collect()
        });
        (few, count)
    }

    fn store(
        &self,
        codes: &[u64],
        validity: Option<&NullBuffer>,
        encoding: Encoding,
        preference: Preference,
    ) -> Parts {
        let mut parts = Parts::new(encoding);
        let (packing, codes) = preference.pack(codes);
        parts.stored.base = self.base;
        parts.stored.gcd = self.gcd;
        parts.stored.packing = packing;
        parts.buffers = vec![codes, validity_buffer(validity)];
        parts
    }
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Spreads an integer over all bits.
fn spread(value: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (product as u64) ^ ((product >> 64) as u64)
}

/// How many distinct hashes there are, by linear counting (Whang, Vander-Zanden, Taylor, "A Linear-Time Probabilistic
/// Counting Algorithm for Database Applications", 1990): within about one percent for the rows of a block.
pub(super) fn estimate(hashes: impl Iterator<Item = u64>) -> u64 {
    const BITS: u64 = 1 << 18;
    let mut seen = vec![0_u64; BITS as usize / 64];
    for hash in hashes {
        let bit = hash % BITS;
        seen[bit as usize / 64] |= 1 << (bit % 64);
    }
    let empty: u64 = seen.iter().map(|word| u64::from(word.count_zeros())).sum();
    (BITS as f64 * (BITS as f64 / empty.max(1) as f64).ln()).round() as u64
}

/// Encodes floats of which at least one is not NULL.
pub(super) fn floats(array: &Float64Array, preference: Preference) -> Parts {
    let valid = || array.iter().flatten();
    let validity = array.nulls().filter(|validity| validity.null_count() > 0);
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
    let mut few = HashSet::new();
    for value in valid() {
        few.insert(value.to_bits());
        if few.len() > DICTIONARY_MAX {
            break;
        }
    }
    let is_few = few.len() <= DICTIONARY_MAX;
    let distinct_count =
        if is_few { few.len() as u64 } else { estimate(valid().map(|value| spread(value.to_bits()))) };
    let known = Parts { distinct_count, range, ..Parts::new(Encoding::Constant) };
    if distinct_count == 1 && validity.is_none() {
        let mut parts = known;
        parts.stored.base = first.to_bits() as i64;
        return parts;
    }
    let bytes = |parts: &Parts| parts.buffers.iter().map(Buffer::len).sum::<usize>();
    let scaled = if preference == Preference::Plain { None } else { decimals(array, preference) };
    let mut best = scaled.unwrap_or_else(|| {
        let buffers = vec![array.values().inner().clone(), validity_buffer(validity)];
        Parts { buffers, ..Parts::new(Encoding::Floats) }
    });
    if is_few {
        let mut distinct: Vec<f64> = few.into_iter().map(f64::from_bits).collect();
        distinct.sort_unstable_by(f64::total_cmp);
        let place = |value: f64| distinct.partition_point(|known| known.total_cmp(&value).is_lt()) as u64;
        let numbers = Buffer::from_vec(distinct.clone());
        let codes = dictionary_codes(array.values(), validity, place, distinct.len());
        let parts = dictionary(Encoding::FloatDictionary, &codes, numbers, distinct.len(), preference);
        if takes_dictionary(bytes(&parts), bytes(&best), preference) {
            best = parts;
        }
    }
    Parts { stored: best.stored, buffers: best.buffers, ..known }
}

/// Floats as integers over a power of ten, if every bit comes back and they take at most half the bytes.
fn decimals(array: &Float64Array, preference: Preference) -> Option<Parts> {
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
    let codes = packed.codes(&ints, array.nulls());
    let mut parts = packed.store(&codes, array.nulls(), Encoding::Decimal, preference);
    parts.stored.parameter = digits;
    let Packing { bytes, .. } = parts.stored.packing;
    (bytes <= 4 || parts.buffers[0].len() * 2 <= array.len() * 8).then_some(parts)
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
    let back = int as f64 / power;
    (back.to_bits() == value.to_bits()).then_some(int)
}
