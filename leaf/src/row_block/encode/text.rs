//! Strings and lists of strings.

use std::hash::BuildHasher;

use arrow::array::{Array, AsArray, ListArray, StringArray};
use arrow::buffer::Buffer;
use hashbrown::{DefaultHashBuilder, HashSet, HashTable};
use xxhash_rust::xxh3::xxh3_64;

use super::super::layout::{Encoding, PREFIX_BYTES, ValueRange};
use super::numbers::estimate;
use super::{Parts, Preference, validity_buffer};
use crate::packing::{pack, pack_bits};
use crate::text::{self, BUFFERS_MAX, Form, TextParts, filter};

/// Distinct strings in the order in which they were first seen, and which of them each string is.
#[derive(Default)]
struct Dictionary<'a> {
    values: Vec<&'a str>,
    codes: Vec<u32>,
}

/// The code of a NULL until the dictionary is complete and it gets the code just past it.
const NULL_CODE: u32 = u32::MAX;

impl<'a> Dictionary<'a> {
    /// `None` when there are more than `count_max` distinct strings.
    fn of(texts: impl Iterator<Item = Option<&'a str>>, count_max: usize) -> Option<Dictionary<'a>> {
        let hasher = DefaultHashBuilder::default();
        let mut table: HashTable<u32> = HashTable::new();
        let mut values: Vec<&str> = Vec::new();
        let mut codes = Vec::with_capacity(texts.size_hint().0);
        for text in texts {
            let Some(text) = text else {
                codes.push(NULL_CODE);
                continue;
            };
            let hash = hasher.hash_one(text);
            let known = table.find(hash, |code| values[*code as usize] == text).copied();
            let code = known.unwrap_or_else(|| {
                let code = values.len() as u32;
                values.push(text);
                table.insert_unique(hash, code, |code| hasher.hash_one(values[*code as usize]));
                code
            });
            codes.push(code);
            if values.len() > count_max {
                return None;
            }
        }
        Some(Dictionary { values, codes })
    }

    /// Sorts the values by their bytes, so that ranges and prefixes are ranges of codes; NULLs get the code past them.
    fn sorted(&self) -> Dictionary<'a> {
        let mut order: Vec<u32> = (0..self.values.len() as u32).collect();
        order.sort_unstable_by_key(|code| self.values[*code as usize]);
        let mut place = vec![0_u32; order.len()];
        for (rank, code) in order.iter().enumerate() {
            place[*code as usize] = rank as u32;
        }
        let null_code = order.len() as u32;
        let code = |code: &u32| place.get(*code as usize).copied().unwrap_or(null_code);
        let codes = self.codes.iter().map(code).collect();
        let values = order.iter().map(|code| self.values[*code as usize]).collect();
        Dictionary { values, codes }
    }

    fn codes(&self) -> Vec<u64> {
        self.codes.iter().map(|code| u64::from(*code)).collect()
    }

    /// Bytes that it takes, about.
    fn bytes(&self) -> usize {
        let text: usize = self.values.iter().map(|value| value.len() + 4).sum();
        let bits = usize::BITS - self.values.len().leading_zeros();
        text + self.codes.len() * bits as usize / 8
    }

    /// Offsets and text of the values.
    fn value_buffers(&self) -> [Buffer; 2] {
        let mut offsets = Vec::with_capacity(self.values.len() + 1);
        let mut text = Vec::with_capacity(self.values.iter().map(|value| value.len()).sum());
        offsets.push(0_i32);
        for value in &self.values {
            text.extend_from_slice(value.as_bytes());
            // The values come from one array with 32-bit offsets, so theirs fit as well.
            offsets.push(text.len() as i32);
        }
        [Buffer::from_vec(offsets), Buffer::from_vec(text)]
    }
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
    let (first, last) = ends(array);
    let known = Parts {
        range: Some(ValueRange::Text(prefix(first), prefix(last))),
        ..Parts::new(Encoding::Constant)
    };
    if first == last && array.null_count() == 0 {
        let text = Buffer::from(first.as_bytes());
        return Parts { buffers: vec![text], distinct_count: 1, ..known };
    }
    if let Some(parts) = preferred(array, preference) {
        return Parts { range: known.range, ..parts };
    }
    // A dictionary of mostly distinct values saves little and costs a sort and a detour for every value read.
    let count_max = (value_count / 2).max(2);
    let likely = looks_distinct(array);
    let dictionary = if likely { None } else { Dictionary::of(array.iter(), count_max) };
    if let Some(dictionary) = dictionary.as_ref().filter(|dictionary| dictionary.values.len() <= SMALL_MAX) {
        return Parts { range: known.range, ..of_dictionary(dictionary) };
    }
    let text = text::encode(array);
    if let Some(dictionary) = &dictionary
        && text.as_ref().is_none_or(|text| dictionary.bytes() <= text.bytes() + text.bytes() / 2)
    {
        return Parts { range: known.range, ..of_dictionary(dictionary) };
    }
    let Some(text) = text else {
        // What seemed distinct in a sample need not be.
        if let Some(dictionary) = dictionary.or_else(|| Dictionary::of(array.iter(), count_max)) {
            return Parts { range: known.range, ..of_dictionary(&dictionary) };
        }
        let distinct_count = estimate_distinct(array);
        return Parts { distinct_count, range: known.range, ..plain(array) };
    };
    let distinct_count = dictionary
        .as_ref()
        .map_or_else(|| estimate_distinct(array), |dictionary| dictionary.values.len() as u64);
    Parts { range: known.range, ..of_text(text, array, distinct_count) }
}

fn estimate_distinct(array: &StringArray) -> u64 {
    estimate(array.iter().flatten().map(|value| xxh3_64(value.as_bytes())))
}

/// What a preference other than the best makes of strings; `None` where it cannot, and for the best.
fn preferred(array: &StringArray, preference: Preference) -> Option<Parts> {
    match preference {
        Preference::Best | Preference::Packed => None,
        Preference::Plain => Some(Parts { distinct_count: estimate_distinct(array), ..plain(array) }),
        Preference::Dictionary => Dictionary::of(array.iter(), usize::MAX).map(|all| of_dictionary(&all)),
        Preference::Text => {
            let text = text::hex::encode(array).or_else(|| text::template::encode(array))?;
            Some(of_text(text, array, estimate_distinct(array)))
        }
    }
}

fn of_text(text: TextParts, array: &StringArray, distinct_count: u64) -> Parts {
    let form = text.form;
    let mut parts = Parts { distinct_count, ..Parts::new(Encoding::of_form(form)) };
    parts.stored.base = text.parameter as i64;
    parts.buffers = text.buffers;
    parts.buffers.resize(BUFFERS_MAX, Buffer::default());
    parts.buffers.push(validity_buffer(array.nulls()));
    if is_needle(form, array, distinct_count) {
        parts.buffers.push(filter::build(array.iter().flatten(), distinct_count as usize));
    }
    parts
}

/// The least and the greatest value.
fn ends(array: &StringArray) -> (&str, &str) {
    let mut values = array.iter().flatten();
    let first = values.next().unwrap_or_default();
    values.fold((first, first), |(least, greatest), value| (least.min(value), greatest.max(value)))
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
    let dictionary = dictionary.sorted();
    let mut parts = Parts::new(Encoding::Dictionary);
    parts.distinct_count = dictionary.values.len() as u64;
    parts.stored.value_count = parts.distinct_count;
    let (packing, codes) = pack(&dictionary.codes());
    parts.stored.packing = packing;
    let [offsets, text] = dictionary.value_buffers();
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
    let (packing, codes) = pack_bits(&dictionary.codes());
    parts.stored.packing = packing;
    parts.stored.parameter = lengths_packing.bits;
    let [value_offsets, text] = dictionary.value_buffers();
    parts.buffers = vec![lengths, codes, value_offsets, text, validity_buffer(array.nulls())];
    parts
}
