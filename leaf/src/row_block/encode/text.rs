//! Strings and lists of strings.

use arrow::array::{Array, AsArray, ListArray, StringArray};
use arrow::buffer::Buffer;
use gannet_query::Dictionary;
use gannet_query::dictionary::NULL_CODE;
use hashbrown::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_64;

use super::super::layout::{Encoding, PREFIX_BYTES, ValueRange};
use super::numbers::estimate;
use super::{Parts, Preference, validity_buffer};
use crate::coded_texts::Part;
use crate::column::Codes;
use crate::packing::{pack, pack_bits};
use crate::text::{self, BUFFERS_MAX, Form, TextParts, filter};

/// Bytes that a dictionary takes, about.
fn bytes_of(dictionary: &Dictionary<'_>) -> usize {
    let text: usize = dictionary.values.iter().map(|value| value.len() + 4).sum();
    let bits = usize::BITS - dictionary.values.len().leading_zeros();
    text + dictionary.codes.len() * bits as usize / 8
}

/// The codes of a dictionary as they are packed.
fn wide_codes(dictionary: &Dictionary<'_>) -> Vec<u64> {
    dictionary.codes.iter().map(|code| u64::from(*code)).collect()
}

/// Offsets and text of the values of a dictionary.
fn value_buffers(dictionary: &Dictionary<'_>) -> [Buffer; 2] {
    let mut offsets = Vec::with_capacity(dictionary.values.len() + 1);
    let mut text = Vec::with_capacity(dictionary.values.iter().map(|value| value.len()).sum());
    offsets.push(0_i32);
    for value in &dictionary.values {
        text.extend_from_slice(value.as_bytes());
        // The values come from one column with 32-bit offsets, so theirs fit as well.
        offsets.push(text.len() as i32);
    }
    [Buffer::from_vec(offsets), Buffer::from_vec(text)]
}

fn prefix(value: &str) -> Box<[u8]> {
    let bytes = value.as_bytes();
    bytes[..bytes.len().min(PREFIX_BYTES)].into()
}

/// Dictionaries of at most this many values are taken without a look at anything else: they scan fastest.
const SMALL_MAX: usize = 4_096;
/// Rows that are looked at to tell how many values are distinct.
const SAMPLE: usize = 1_024;
/// How many of them follow one another.
const SAMPLE_STRETCH: usize = 64;

/// Encodes strings of which at least one is not NULL.
pub(super) fn strings(array: &StringArray, preference: Preference) -> Parts {
    let value_count = array.len() - array.null_count();
    if let Some(parts) = preferred(array, preference) {
        return parts;
    }
    // A dictionary of mostly distinct values saves little and costs a sort and a detour for every value read.
    let count_max = count_max(value_count);
    let likely = looks_distinct(array);
    let dictionary = if likely { None } else { Dictionary::of(array.iter(), count_max) };
    if let Some(dictionary) = dictionary.as_ref().filter(|dictionary| dictionary.values.len() <= SMALL_MAX) {
        return of_dictionary(dictionary);
    }
    let text = text::encode(array);
    if let Some(dictionary) = &dictionary
        && text.as_ref().is_none_or(|text| bytes_of(dictionary) <= text.bytes() + text.bytes() / 2)
    {
        return of_dictionary(dictionary);
    }
    let Some(text) = text else {
        // What seemed distinct in a sample need not be.
        if let Some(dictionary) = dictionary.or_else(|| Dictionary::of(array.iter(), count_max)) {
            return of_dictionary(&dictionary);
        }
        let distinct_count = estimate_distinct(array);
        return Parts { distinct_count, range: range_of(array), ..plain(array) };
    };
    let distinct_count = dictionary
        .as_ref()
        .map_or_else(|| estimate_distinct(array), |dictionary| dictionary.values.len() as u64);
    of_text(text, array, distinct_count)
}

/// Encodes strings that came as dictionaries. `None` where [`strings`] may find something better.
pub(super) fn dictionaries(parts: &[Part]) -> Option<Parts> {
    let dictionary = joined(parts)?;
    let value_count = dictionary.codes.iter().filter(|code| **code != NULL_CODE).count();
    let distinct = dictionary.values.len();
    (distinct > 0 && distinct <= SMALL_MAX.min(count_max(value_count))).then(|| of_dictionary(&dictionary))
}

/// The dictionary of all parts; `None` when it gets too large.
fn joined(parts: &[Part]) -> Option<Dictionary<'_>> {
    let mut all = Dictionary::default();
    let mut places: HashMap<&str, u32> = HashMap::new();
    for part in parts {
        let (values, codes) = match part {
            Part::Absent(rows) => {
                all.codes.resize(all.codes.len() + rows, NULL_CODE);
                continue;
            }
            Part::Coded { values, codes } => (values, codes),
        };
        let mut to = Vec::with_capacity(values.len() + 1);
        for value in values.iter().flatten() {
            let next = all.values.len() as u32;
            let place = *places.entry(value).or_insert(next);
            if place == next {
                all.values.push(value);
            }
            to.push(place);
        }
        if all.values.len() > SMALL_MAX {
            return None;
        }
        let code = |code: usize| to.get(code).copied().unwrap_or(NULL_CODE);
        match codes {
            Codes::U8(codes) => all.codes.extend(codes.iter().map(|at| code((*at).into()))),
            Codes::U16(codes) => all.codes.extend(codes.iter().map(|at| code((*at).into()))),
            Codes::U32(_) | Codes::U64(_) => return None,
        }
    }
    Some(all)
}

/// The most distinct values of which a dictionary is made.
fn count_max(value_count: usize) -> usize {
    (value_count / 2).max(2)
}

fn estimate_distinct(array: &StringArray) -> u64 {
    estimate(array.iter().flatten().map(|value| xxh3_64(value.as_bytes())))
}

/// What a preference other than the best makes of strings; `None` where it cannot, and for the best.
fn preferred(array: &StringArray, preference: Preference) -> Option<Parts> {
    let is_best = matches!(preference, Preference::Best | Preference::Packed);
    if !is_best
        && array.null_count() == 0
        && let Some((first, last)) = ends(array)
        && first == last
    {
        return Some(constant(first));
    }
    match preference {
        Preference::Best | Preference::Packed => None,
        Preference::Plain => {
            let distinct_count = estimate_distinct(array);
            Some(Parts { distinct_count, range: range_of(array), ..plain(array) })
        }
        Preference::Dictionary => Dictionary::of(array.iter(), usize::MAX).map(|all| of_dictionary(&all)),
        Preference::Text => {
            let text = text::hex::encode(array).or_else(|| text::template::encode(array))?;
            Some(of_text(text, array, estimate_distinct(array)))
        }
    }
}

/// One value that every row has.
fn constant(value: &str) -> Parts {
    let range = Some(ValueRange::Text(prefix(value), prefix(value)));
    let buffers = vec![Buffer::from(value.as_bytes())];
    Parts { buffers, distinct_count: 1, range, ..Parts::new(Encoding::Constant) }
}

fn of_text(text: TextParts, array: &StringArray, distinct_count: u64) -> Parts {
    let form = text.form;
    let range = range_of(array);
    let mut parts = Parts { distinct_count, range, ..Parts::new(Encoding::of_form(form)) };
    parts.stored.base = text.parameter as i64;
    parts.buffers = text.buffers;
    parts.buffers.resize(BUFFERS_MAX, Buffer::default());
    parts.buffers.push(validity_buffer(array.nulls()));
    if is_needle(form, array, distinct_count) {
        parts.buffers.push(filter::build(array.iter().flatten(), distinct_count as usize));
    }
    parts
}

/// The least and the greatest value; `None` when there are none. Most values are neither, which their first eight bytes tell.
fn ends(array: &StringArray) -> Option<(&str, &str)> {
    let mut values = array.iter().flatten();
    let first = values.next()?;
    let (mut least, mut greatest) = (first, first);
    let (mut least_start, mut greatest_start) = (start(first), start(first));
    for value in values {
        let begin = start(value);
        if begin <= least_start && value < least {
            (least, least_start) = (value, begin);
        }
        if begin >= greatest_start && value > greatest {
            (greatest, greatest_start) = (value, begin);
        }
    }
    Some((least, greatest))
}

/// The first eight bytes of a value as a number that is not less than that of a smaller value.
fn start(value: &str) -> u64 {
    let bytes = value.as_bytes();
    let eight = bytes.first_chunk::<8>().copied().unwrap_or_else(|| {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        eight
    });
    u64::from_be_bytes(eight)
}

fn range_of(array: &StringArray) -> Option<ValueRange> {
    ends(array).map(|(first, last)| ValueRange::Text(prefix(first), prefix(last)))
}

/// Whether nearly all values of a sample are distinct. The sample is of rows that follow one another, here and there:
/// what comes again often comes again soon, as the id of a trace does in its spans.
fn looks_distinct(array: &StringArray) -> bool {
    if array.len() < SAMPLE * 4 {
        return false;
    }
    let step = array.len() / (SAMPLE / SAMPLE_STRETCH);
    let starts = (0..array.len() - SAMPLE_STRETCH).step_by(step);
    let rows = starts.flat_map(|start| start..start + SAMPLE_STRETCH);
    let sample: Vec<&str> = rows.filter(|row| array.is_valid(*row)).map(|row| array.value(row)).collect();
    let distinct: HashSet<&str> = sample.iter().copied().collect();
    sample.len() > SAMPLE / 4 && distinct.len() * 10 > sample.len() * 9
}

/// Whether values are looked up one by one: long, and hardly one of them twice, or ids of which each has a few rows.
fn is_needle(form: Form, array: &StringArray, distinct_count: u64) -> bool {
    const BYTES_MIN: usize = 12;
    let value_count = array.len() - array.null_count();
    let offsets = array.value_offsets();
    let bytes = (offsets[array.len()] - offsets[0]) as usize;
    let are_many = match form {
        Form::Hex => distinct_count * 64 > value_count as u64,
        Form::Template => distinct_count * 10 > value_count as u64 * 9,
    };
    are_many && bytes >= value_count * BYTES_MIN && value_count >= SAMPLE
}

fn of_dictionary(dictionary: &Dictionary<'_>) -> Parts {
    if let [value] = dictionary.values[..]
        && !dictionary.codes.contains(&NULL_CODE)
    {
        return constant(value);
    }
    let dictionary = dictionary.sorted();
    let ends = dictionary.values.first().zip(dictionary.values.last());
    let range = ends.map(|(first, last)| ValueRange::Text(prefix(first), prefix(last)));
    let mut parts = Parts { range, ..Parts::new(Encoding::Dictionary) };
    parts.distinct_count = dictionary.values.len() as u64;
    parts.stored.value_count = parts.distinct_count;
    let (packing, codes) = pack(&wide_codes(&dictionary));
    parts.stored.packing = packing;
    let [offsets, text] = value_buffers(&dictionary);
    parts.buffers = vec![codes, offsets, text];
    parts
}

fn plain(array: &StringArray) -> Parts {
    let offsets = array.value_offsets();
    let (begin, end) = (offsets[0], offsets[array.len()]);
    let text = array.values().slice_with_length(begin as usize, (end - begin) as usize);
    let offsets: Vec<i32> = offsets.iter().map(|offset| offset - begin).collect();
    let buffers = vec![Buffer::from_vec(offsets), text, validity_buffer(array.nulls())];
    Parts { buffers, ..Parts::new(Encoding::Text) }
}

/// Encodes lists of which at least one is not NULL.
pub(super) fn lists(array: &ListArray) -> Parts {
    let items = array.values().as_string::<i32>();
    let offsets = array.value_offsets();
    let lengths: Vec<u64> = (0..array.len())
        .map(|row| if array.is_valid(row) { (offsets[row + 1] - offsets[row]) as u64 } else { 0 })
        .collect();
    let dictionary = Dictionary::of(
        // A NULL list may cover items nobody sees.
        (0..array.len())
            .filter(|row| array.is_valid(*row))
            .flat_map(|row| offsets[row] as usize..offsets[row + 1] as usize)
            .map(|item| items.is_valid(item).then(|| items.value(item))),
        usize::MAX,
    );
    let dictionary = dictionary.map(|dictionary| dictionary.sorted()).unwrap_or_default();
    let mut parts = Parts::new(Encoding::Lists);
    parts.distinct_count = dictionary.values.len() as u64;
    parts.stored.value_count = dictionary.values.len() as u64;
    parts.stored.gcd = dictionary.codes.len() as i64;
    let (lengths_packing, lengths) = pack_bits(&lengths);
    let (packing, codes) = pack_bits(&wide_codes(&dictionary));
    parts.stored.packing = packing;
    parts.stored.parameter = lengths_packing.bits;
    let [value_offsets, text] = value_buffers(&dictionary);
    parts.buffers = vec![lengths, codes, value_offsets, text, validity_buffer(array.nulls())];
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ends_are_the_least_and_the_greatest(
            texts in proptest::collection::vec(proptest::option::of("[\0ab]{0,11}|[a-zä]{0,3}"), 0..40),
        ) {
            let array = StringArray::from(texts.clone());
            let values = || texts.iter().flatten().map(String::as_str);
            prop_assert_eq!(ends(&array), values().min().zip(values().max()));
        }
    }
}
