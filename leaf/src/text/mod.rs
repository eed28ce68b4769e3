//! Text whose values are mostly distinct, stored in fewer bytes than it has.
//!
//! A dictionary is the best home for text of few distinct values. For the rest there are two: [`hex`] packs ids of hex
//! digits and UUIDs, [`template`] cuts values such as URLs, addresses and log lines into the words and numbers that vary.
//! Each gives single rows back without decoding their neighbours, and
//! answers some tests without decoding anything.
//!
//! This module knows columns of text and bytes, and nothing of row blocks, images or plans. A value comes back byte for
//! byte or is not stored in that form. Bytes that are opened are input: everything that later code relies on is checked
//! by [`StoredText::open`], and whatever the bytes say, there is no panic and no text that is not UTF-8.

pub mod filter;
pub mod hex;
mod number;
pub mod template;

use std::sync::Arc;

use arrow::array::{Array, StringArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};

use crate::column::pick_validity;
use template::{Asked, Wanted};

/// The most bytes of text that one column of a run may decode to: what one array can hold.
pub const TEXT_BYTES_MAX: u64 = i32::MAX as u64;
/// A form has at most this many buffers.
pub const BUFFERS_MAX: usize = 4;

/// Few rows have a value where it is fewer than one in this many.
const SPARSE: usize = 3;
/// Rows that tell whether values repeat.
const ROWS_LOOKED_AT: usize = 16_384;
/// They do where one in so many of those rows has a value that another has. A few values of many rows are not enough: the
/// others would be told apart for nothing.
const SHARE_REPEATED: usize = 6;

/// A form of stored text. The number is what an image says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// See [`hex`].
    Hex = 0,
    /// See [`template`].
    Template = 1,
}

impl Form {
    /// Every form with the word for it.
    pub const ALL: [(Form, &'static str); 2] = [(Form::Hex, "hex"), (Form::Template, "template")];
}

/// Text as it is stored: a number that the form knows the meaning of, and buffers.
#[derive(Debug, Clone)]
pub struct TextParts {
    /// Which form.
    pub form: Form,
    /// What the form needs beside its buffers.
    pub parameter: u64,
    /// At most [`BUFFERS_MAX`]; each is kept at a multiple of 64 bytes.
    pub buffers: Vec<Buffer>,
}

impl TextParts {
    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        self.buffers.iter().map(Buffer::len).sum()
    }
}

/// A test of text that a form may answer without decoding. All compare bytes, case-sensitively.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextTest {
    /// The value is one of these, which are sorted and distinct.
    Among(Vec<String>),
    /// The value contains this.
    Contains(String),
    /// The value begins with this.
    StartsWith(String),
    /// The value ends with this.
    EndsWith(String),
    /// The value has these parts one after the other, with anything between them. There are at least two, none of them
    /// empty.
    Parts {
        /// The parts.
        parts: Vec<String>,
        /// Nothing is before the first.
        begins: bool,
        /// Nothing is behind the last.
        ends: bool,
    },
}

impl TextTest {
    /// Whether a value passes.
    pub fn passes(&self, value: &str) -> bool {
        match self {
            TextTest::Among(values) => {
                values.binary_search_by(|candidate| candidate.as_str().cmp(value)).is_ok()
            }
            TextTest::Contains(part) => memchr::memmem::find(value.as_bytes(), part.as_bytes()).is_some(),
            TextTest::StartsWith(part) => value.starts_with(part.as_str()),
            TextTest::EndsWith(part) => value.ends_with(part.as_str()),
            TextTest::Parts { parts, begins, ends } => has_parts(value.as_bytes(), parts, *begins, *ends),
        }
    }
}

/// Whether text has parts in this order. The first place of each part leaves the most room for the next.
fn has_parts(text: &[u8], parts: &[String], begins: bool, ends: bool) -> bool {
    let (mut rest, mut parts) = (text, parts);
    if let (true, [first, others @ ..]) = (begins, parts) {
        match rest.strip_prefix(first.as_bytes()) {
            Some(behind) => (rest, parts) = (behind, others),
            None => return false,
        }
    }
    if let (true, [others @ .., last]) = (ends, parts) {
        match rest.strip_suffix(last.as_bytes()) {
            Some(before) => (rest, parts) = (before, others),
            None => return false,
        }
    }
    parts.iter().all(|part| match memchr::memmem::find(rest, part.as_bytes()) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// A form's smallest way to store text, if it takes at most three quarters of what the plain text takes with four bytes
/// more for each row; `None` where plain text is as good. Rows without value take what the form likes.
pub fn encode(array: &StringArray) -> Option<TextParts> {
    let plain = plain_bytes(array);
    if let Some(parts) = hex::encode(array) {
        return Some(parts);
    }
    let best = template::encode(array)?;
    (best.bytes() * 4 <= plain * 3).then_some(best)
}

/// Bytes of text with 32-bit offsets.
fn plain_bytes(array: &StringArray) -> usize {
    let offsets = array.value_offsets();
    (offsets[array.len()] - offsets[0]) as usize + 4 * array.len()
}

/// Stored text that was opened.
#[derive(Debug, Clone)]
pub struct StoredText {
    kind: Kind,
    row_count: usize,
    validity: Option<NullBuffer>,
}

#[derive(Debug, Clone)]
enum Kind {
    Hex(hex::Hex),
    /// With the rows of the template that these are, unless they are all of them.
    Template(Arc<template::Template>, Option<Vec<u32>>),
}

/// The row of a template.
#[inline]
fn stored_row(rows: Option<&[u32]>, row: usize) -> usize {
    rows.map_or(row, |rows| rows[row] as usize)
}

impl StoredText {
    /// Opens the buffers of `row_count` rows. With `verified` they are known to have been opened before, and what is
    /// expensive to check is not checked again; that never costs memory safety, only the error.
    ///
    /// # Errors
    /// When the buffers are not what a form writes.
    pub fn open(
        parts: TextParts,
        row_count: usize,
        validity: Option<NullBuffer>,
        verified: Verified,
    ) -> Result<StoredText, String> {
        if validity.as_ref().is_some_and(|validity| validity.len() != row_count) {
            return Err(format!("has no validity of {row_count} rows"));
        }
        let kind = match parts.form {
            Form::Hex => Kind::Hex(hex::Hex::open(&parts, row_count)?),
            Form::Template => {
                Kind::Template(Arc::new(template::Template::open(&parts, row_count, verified)?), None)
            }
        };
        Ok(StoredText { kind, row_count, validity })
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.row_count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.row_count == 0
    }

    /// Which rows have a value; `None` when all have one.
    pub fn validity(&self) -> Option<&NullBuffer> {
        self.validity.as_ref()
    }

    /// The word for its form.
    pub fn form(&self) -> Form {
        match &self.kind {
            Kind::Hex(_) => Form::Hex,
            Kind::Template(..) => Form::Template,
        }
    }

    /// The values of the rows at some positions.
    pub fn take(&self, positions: &[u32]) -> StringArray {
        self.decode(Wanted::At(positions))
    }

    /// The values of all rows.
    pub fn to_array(&self) -> StringArray {
        self.decode(Wanted::Range(0, self.row_count))
    }

    /// The values of `count` rows from `start`.
    pub fn slice(&self, start: usize, count: usize) -> StringArray {
        self.decode(Wanted::Range(start, count))
    }

    /// The text of the rows at some positions, which nothing is decoded for.
    ///
    /// # Panics
    /// When a position is not below [`StoredText::len`].
    pub fn pick(&self, positions: &[u32]) -> StoredText {
        let kind = match &self.kind {
            Kind::Hex(hex) => Kind::Hex(hex.pick(positions)),
            Kind::Template(template, rows) => {
                let rows =
                    positions.iter().map(|row| stored_row(rows.as_deref(), *row as usize) as u32).collect();
                Kind::Template(Arc::clone(template), Some(rows))
            }
        };
        let validity = pick_validity(self.validity.as_ref(), positions);
        StoredText { kind, row_count: positions.len(), validity }
    }

    /// A number for the value of every row, in order of first appearance, and the row of each first appearance, where
    /// that takes no decoding and rows share values. NULL is a value here.
    pub fn number(&self) -> Option<(Vec<u32>, Vec<u32>)> {
        match &self.kind {
            Kind::Hex(hex) => Some(hex.number(self.validity.as_ref())),
            Kind::Template(template, rows) => {
                if !self.repeats(template, rows.as_deref()) {
                    return None;
                }
                let tuples = template.tuples(rows.as_deref())?;
                Some(number::number(&tuples, self.validity.as_ref(), |tuple| *tuple))
            }
        }
    }

    /// Whether some of the first rows of a template have the same value, so that of many more rows many do.
    fn repeats(&self, template: &template::Template, rows: Option<&[u32]>) -> bool {
        let valid =
            |row: &u32| self.validity.as_ref().is_none_or(|validity| validity.is_valid(*row as usize));
        let first = (0..self.row_count.min(ROWS_LOOKED_AT) as u32).filter(valid);
        let first: Vec<u32> = first.map(|row| stored_row(rows, row as usize) as u32).collect();
        let Some(mut tuples) = template.tuples(Some(&first)) else { return false };
        tuples.sort_unstable();
        tuples.dedup();
        (first.len() - tuples.len()) * SHARE_REPEATED >= first.len()
    }

    /// How many characters each value has; what is said of rows without value means nothing. `None` where that takes
    /// decoding.
    pub fn characters(&self) -> Option<Vec<u32>> {
        match &self.kind {
            Kind::Hex(hex) => Some(vec![hex.text_bytes() as u32; self.row_count]),
            Kind::Template(template, rows) => template.characters(rows.as_deref()),
        }
    }

    fn decode(&self, wanted: Wanted<'_>) -> StringArray {
        let count = wanted.len();
        let mut bytes = Vec::new();
        let mut offsets = Vec::with_capacity(count + 1);
        offsets.push(0_i32);
        let valid =
            |place: usize| self.validity.as_ref().is_none_or(|validity| validity.is_valid(wanted.row(place)));
        // Opening a form checks that all its rows together fit; the same rows again may not.
        let end = |bytes: usize| i32::try_from(bytes).expect("distinct rows decode to at most 2 GiB");
        match &self.kind {
            Kind::Hex(hex) => {
                bytes.reserve(count * hex.text_bytes());
                for place in 0..count {
                    if valid(place) {
                        hex.append(wanted.row(place), &mut bytes);
                    }
                    offsets.push(end(bytes.len()));
                }
            }
            Kind::Template(template, all) => {
                let stored = |place: usize| stored_row(all.as_deref(), wanted.row(place)) as u32;
                if self.is_sparse() {
                    let places: Vec<usize> = (0..count).filter(|place| valid(*place)).collect();
                    let rows: Vec<u32> = places.iter().map(|place| stored(*place)).collect();
                    let (mut before, mut places) = (0, places.iter());
                    let mut next = places.next();
                    template.append_all(
                        Wanted::At(&rows),
                        |_| true,
                        &mut bytes,
                        |bytes| {
                            // The rows before this one have no text.
                            let place = next.copied().unwrap_or(count);
                            offsets.resize(place + 1, before);
                            before = end(bytes);
                            offsets.push(before);
                            next = places.next();
                        },
                    );
                    offsets.resize(count + 1, before);
                } else {
                    let ended = |bytes: usize| offsets.push(end(bytes));
                    match all {
                        None => template.append_all(wanted, valid, &mut bytes, ended),
                        Some(_) => {
                            let rows: Vec<u32> = (0..count).map(stored).collect();
                            template.append_all(Wanted::At(&rows), valid, &mut bytes, ended);
                        }
                    }
                }
            }
        }
        let nulls =
            self.validity.as_ref().map(|_| NullBuffer::new(BooleanBuffer::collect_bool(count, valid)));
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        StringArray::new(OffsetBuffer::new(offsets.into()), Buffer::from_vec(bytes), nulls)
    }

    /// Whether so few rows have a value that the others are better passed over.
    fn is_sparse(&self) -> bool {
        let valid = |validity: &NullBuffer| validity.len() - validity.null_count();
        self.validity.as_ref().is_some_and(|validity| valid(validity) * SPARSE < self.row_count)
    }

    /// One bit for each of the rows at `positions`, or for each row without them: set where the test passes, not where
    /// the row has no value. `None` when decoding is as cheap.
    pub fn matches(&self, test: &TextTest, positions: Option<&[u32]>) -> Option<BooleanBuffer> {
        let bits = match &self.kind {
            Kind::Hex(hex) => hex.matches(test, positions)?,
            Kind::Template(template, all) => match (all.as_deref(), positions) {
                (None, None) => match &self.validity {
                    Some(validity) if self.is_sparse() => {
                        return Some(template.matches(test, Asked::Among(validity.inner())));
                    }
                    _ => template.matches(test, Asked::All),
                },
                (None, Some(rows)) | (Some(rows), None) => template.matches(test, Asked::At(rows)),
                (Some(all), Some(positions)) => {
                    let rows: Vec<u32> = positions.iter().map(|row| all[*row as usize]).collect();
                    template.matches(test, Asked::At(&rows))
                }
            },
        };
        Some(match (&self.validity, positions) {
            (None, _) => bits,
            (Some(validity), None) => &bits & validity.inner(),
            (Some(validity), Some(positions)) => {
                let valid = |place: usize| validity.is_valid(positions[place] as usize);
                &bits & &BooleanBuffer::collect_bool(positions.len(), valid)
            }
        })
    }
}

/// Whether bytes were opened before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// Never: everything is checked.
    No,
    /// These very bytes were, by this process.
    Before,
}
