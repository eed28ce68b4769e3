//! Strings and lists of strings.

use std::hash::BuildHasher;

use arrow::array::{Array, AsArray, ListArray, StringArray};
use arrow::buffer::Buffer;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::super::layout::{Encoding, PREFIX_BYTES, ValueRange};
use super::{Parts, narrow, validity_buffer, width};

/// Distinct strings in the order in which they were first seen, and which of them each string is.
struct Dictionary<'a> {
    values: Vec<&'a str>,
    codes: Vec<u32>,
}

/// The code of a NULL until the dictionary is complete and it gets the code just past it.
const NULL_CODE: u32 = u32::MAX;

impl<'a> Dictionary<'a> {
    fn of(texts: impl Iterator<Item = Option<&'a str>>) -> Dictionary<'a> {
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
        }
        Dictionary { values, codes }
    }

    /// Sorts the values by their bytes, so that ranges and prefixes are ranges of codes; NULLs get the code past them.
    fn sort(mut self) -> Dictionary<'a> {
        let mut order: Vec<u32> = (0..self.values.len() as u32).collect();
        order.sort_unstable_by_key(|code| self.values[*code as usize]);
        let mut place = vec![0_u32; order.len()];
        for (rank, code) in order.iter().enumerate() {
            place[*code as usize] = rank as u32;
        }
        let null_code = order.len() as u32;
        for code in &mut self.codes {
            *code = place.get(*code as usize).copied().unwrap_or(null_code);
        }
        self.values = order.iter().map(|code| self.values[*code as usize]).collect();
        self
    }

    fn code_bytes(&self, has_nulls: bool) -> u8 {
        width((self.values.len() as u64 + u64::from(has_nulls)).saturating_sub(1))
    }

    fn code_buffer(&self, code_bytes: u8) -> Buffer {
        narrow(self.codes.iter().map(|code| u64::from(*code)), code_bytes)
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

/// Encodes strings of which at least one is not NULL.
pub(super) fn strings(array: &StringArray) -> Parts {
    let value_count = array.len() - array.null_count();
    let has_nulls = array.null_count() > 0;
    let dictionary = Dictionary::of(array.iter());
    let distinct_count = dictionary.values.len() as u64;
    let first = dictionary.values.iter().min().map_or_else(Box::default, |value| prefix(value));
    let last = dictionary.values.iter().max().map_or_else(Box::default, |value| prefix(value));
    let range = Some(ValueRange::Text(first, last));
    if distinct_count == 1 && !has_nulls {
        let text = Buffer::from(array.value(0).as_bytes());
        return Parts { buffers: vec![text], distinct_count, range, ..Parts::new(Encoding::Constant) };
    }
    // A dictionary of mostly distinct values saves little and costs a sort and a detour for every value read.
    if distinct_count > 2 && distinct_count > value_count as u64 / 2 {
        return Parts { distinct_count, range, ..plain(array) };
    }
    let dictionary = dictionary.sort();
    let mut parts = Parts { distinct_count, range, ..Parts::new(Encoding::Dictionary) };
    parts.stored.code_bytes = dictionary.code_bytes(has_nulls);
    parts.stored.value_count = distinct_count;
    let [offsets, text] = dictionary.value_buffers();
    parts.buffers = vec![dictionary.code_buffer(parts.stored.code_bytes), offsets, text];
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
    );
    let has_null_items = dictionary.codes.contains(&NULL_CODE);
    let dictionary = dictionary.sort();
    let mut parts = Parts::new(Encoding::Lists);
    parts.distinct_count = dictionary.values.len() as u64;
    parts.stored.value_count = dictionary.values.len() as u64;
    parts.stored.code_bytes = dictionary.code_bytes(has_null_items);
    parts.stored.parameter = width(lengths.iter().copied().max().unwrap_or(0));
    let [value_offsets, text] = dictionary.value_buffers();
    parts.buffers = vec![
        narrow(lengths.into_iter(), parts.stored.parameter),
        dictionary.code_buffer(parts.stored.code_bytes),
        value_offsets,
        text,
        validity_buffer(array.nulls()),
    ];
    parts
}
