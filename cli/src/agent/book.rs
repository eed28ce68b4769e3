//! The book: how far each file was read, and what of it is still on its way, under which number.
//!
//! What it says, and how that keeps every line counted once:
//!
//! 1. Before a batch is sent, its *intent* is written and saved: this range of this file goes under this number of this
//!    producer, in this shape. Only a saved intent is sent.
//! 2. A number is given to one range only, and never again: the saved book knows the next number.
//! 3. An acknowledged intent is struck out. Saving that may wait: after a crash it is sent again under the same number,
//!    with the very same lines (their hash is in the intent), and the server does not count it again.
//! 4. Below `cut_to`, every byte of a file is acknowledged, or in an intent, or counted as rejected, dropped or unknown.
//!    So a file goes on at `cut_to` once its intents were sent again.
//! 5. A batch of which the server surely took nothing may get a new number, and with it perhaps another leaf: that is a
//!    new intent, and is saved before it is sent. A batch that may have been taken keeps its number until it is known.
//!
//! The book itself does no I/O; [`super::state_file`] keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::agent::identity::Identity;
use crate::agent::shape::Shape;

/// Files that are gone or no longer named, and are remembered in case they come back.
const GONE_MAX: usize = 1_000;
/// Numbers in use lie within so many: a leaf can tell that far back whether it counted a batch.
pub(crate) const NUMBERS_SPAN_MAX: u64 = 512;

/// A batch: its stream, and where it starts there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// The stream.
    pub(crate) stream: u64,
    /// Its first byte.
    pub(crate) start: u64,
}

/// A run of whole records of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// Where.
    pub(crate) key: Key,
    /// The first byte behind it.
    pub(crate) end: u64,
    /// Records in it.
    pub(crate) records: u64,
    /// Hash of its bytes.
    pub(crate) hash: u64,
}

impl Range {
    /// Of these bytes.
    pub(crate) fn of(key: Key, raw: &[u8], records: u64) -> Range {
        Range { key, end: key.start + raw.len() as u64, records, hash: xxh3_64(raw) }
    }
}

/// What is on its way. See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Intent {
    /// The first byte behind the range.
    pub(crate) end: u64,
    /// Records in the range.
    pub(crate) records: u64,
    /// Hash of the range's bytes.
    pub(crate) hash: u64,
    /// Who sends it.
    pub(crate) producer: String,
    /// Its number.
    pub(crate) sequence: u64,
    /// What its records become, by the number of the shape.
    pub(crate) shape: u32,
}

/// A file from its first byte on, or what it was before it was truncated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// The last name it was known by.
    pub(crate) path: String,
    /// Which file.
    pub(crate) identity: Identity,
    /// Everything before was cut into batches.
    pub(crate) cut_to: u64,
    /// Records before that.
    pub(crate) records: u64,
    /// What is on its way, by first byte.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) intents: BTreeMap<u64, Intent>,
    /// Nothing more will be read of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_gone: bool,
}

/// What became of records since the book was begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Acknowledged.
    pub(crate) accepted: u64,
    /// Refused, by the server or because they are no rows.
    pub(crate) rejected: u64,
    /// Dropped because there was no room.
    pub(crate) dropped: u64,
    /// Nobody knows whether they were counted.
    pub(crate) unknown: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Book {
    /// Where rows go.
    pub(crate) table: String,
    /// The name under which new batches are sent.
    pub(crate) producer: String,
    next_sequence: u64,
    next_stream: u64,
    next_shape: u32,
    /// What became of records so far.
    pub(crate) totals: Totals,
    shapes: BTreeMap<u32, Shape>,
    streams: BTreeMap<u64, Stream>,
}

impl Book {
    /// An empty book.
    pub(crate) fn new(table: &str, producer: String) -> Book {
        Book {
            table: table.to_owned(),
            producer,
            next_sequence: 1,
            next_stream: 1,
            next_shape: 1,
            totals: Totals::default(),
            shapes: BTreeMap::new(),
            streams: BTreeMap::new(),
        }
    }

    /// The streams by number.
    pub(crate) fn streams(&self) -> &BTreeMap<u64, Stream> {
        &self.streams
    }

    /// A shape by its number.
    pub(crate) fn shape(&self, number: u32) -> Option<&Shape> {
        self.shapes.get(&number)
    }

    /// The number that the next stream must have.
    pub(crate) fn next_stream(&self) -> u64 {
        self.next_stream
    }

    /// A new stream, under a number that no other has.
    pub(crate) fn open(&mut self, number: u64, path: String, identity: Identity, from: u64) {
        self.next_stream = self.next_stream.max(number + 1);
        let stream =
            Stream { path, identity, cut_to: from, records: 0, intents: BTreeMap::new(), is_gone: false };
        self.streams.insert(number, stream);
    }

    /// A stream has another name now, or its first bytes are better known.
    pub(crate) fn known_as(&mut self, number: u64, path: Option<String>, identity: Identity) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.identity = identity;
            stream.path = path.unwrap_or_else(|| std::mem::take(&mut stream.path));
        }
    }

    /// Writes the intent to send a range that follows what was cut before. Its number.
    pub(crate) fn intend(&mut self, range: Range, shape: &Shape) -> u64 {
        let shape = self.number_of(shape);
        let intent = self.intent(range, shape);
        let sequence = intent.sequence;
        if let Some(stream) = self.streams.get_mut(&range.key.stream) {
            stream.cut_to = range.end;
            stream.records += range.records;
            stream.intents.insert(range.key.start, intent);
        }
        sequence
    }

    /// Passes over a range that is not sent at all.
    pub(crate) fn pass_over(&mut self, range: Range) {
        if let Some(stream) = self.streams.get_mut(&range.key.stream) {
            stream.cut_to = range.end;
            stream.records += range.records;
        }
    }

    /// Gives an intent, of which the server surely took nothing, a new number.
    pub(crate) fn renumber(&mut self, key: Key) -> Option<u64> {
        let sequence = self.next_sequence;
        let producer = self.producer.clone();
        let intent = self.streams.get_mut(&key.stream)?.intents.get_mut(&key.start)?;
        (intent.sequence, intent.producer) = (sequence, producer);
        self.next_sequence += 1;
        Some(sequence)
    }

    /// Cuts an intent, of which the server surely took nothing, in two, with new numbers.
    pub(crate) fn split(&mut self, first: Range, second: Range) -> Option<(u64, u64)> {
        let shape = self.streams.get_mut(&first.key.stream)?.intents.remove(&first.key.start)?.shape;
        let intents = [self.intent(first, shape), self.intent(second, shape)];
        let numbers = (intents[0].sequence, intents[1].sequence);
        let stream = self.streams.get_mut(&first.key.stream)?;
        for (range, intent) in [first, second].into_iter().zip(intents) {
            stream.intents.insert(range.key.start, intent);
        }
        Some(numbers)
    }

    /// Strikes an intent out.
    pub(crate) fn strike(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(&key.stream) {
            stream.intents.remove(&key.start);
            if stream.is_gone {
                self.forget_gone();
            }
        }
    }

    /// Nothing more will be read of a stream; it is remembered while others are not too many.
    pub(crate) fn gone(&mut self, number: u64) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.is_gone = true;
            self.forget_gone();
        }
    }

    /// A stream is read on, from its checkpoint or from a later byte.
    pub(crate) fn resume(&mut self, number: u64, from: u64) {
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.is_gone = false;
            stream.cut_to = stream.cut_to.max(from);
        }
    }

    /// Removes a stream whose bytes are no longer anywhere.
    pub(crate) fn forget(&mut self, number: u64) {
        if self.streams.get(&number).is_some_and(|stream| stream.intents.is_empty()) {
            self.streams.remove(&number);
        } else {
            self.gone(number);
        }
    }

    /// Forgets all streams, and sends under another name from now on.
    pub(crate) fn begin_anew(&mut self, producer: String) {
        self.streams.clear();
        self.send_as(producer);
    }

    /// Sends under another name from now on; intents keep theirs.
    pub(crate) fn send_as(&mut self, producer: String) {
        (self.producer, self.next_sequence) = (producer, 1);
    }

    /// The book as text.
    pub(crate) fn text(&mut self) -> Result<Vec<u8>, serde_json::Error> {
        let used: std::collections::BTreeSet<u32> =
            self.streams.values().flat_map(|stream| stream.intents.values().map(|it| it.shape)).collect();
        self.shapes.retain(|number, _| used.contains(number));
        serde_json::to_vec(self)
    }

    /// Reads a book.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_text(text: &[u8]) -> Result<Book, String> {
        let book: Book = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        for (number, stream) in &book.streams {
            let mut reached = 0;
            for (start, intent) in &stream.intents {
                let is_sound = *start >= reached
                    && intent.end > *start
                    && intent.end <= stream.cut_to
                    && book.shapes.contains_key(&intent.shape)
                    && (intent.producer != book.producer || intent.sequence < book.next_sequence);
                if !is_sound {
                    return Err(format!("the batch at byte {start} of stream {number} contradicts the rest"));
                }
                reached = intent.end;
            }
            if *number >= book.next_stream {
                return Err(format!("stream {number} is not below the next one, {}", book.next_stream));
            }
        }
        if book.shapes.keys().any(|number| *number >= book.next_shape) {
            return Err(format!("a shape is not below the next one, {}", book.next_shape));
        }
        Ok(book)
    }

    fn intent(&mut self, range: Range, shape: u32) -> Intent {
        let Range { end, records, hash, .. } = range;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        Intent { end, records, hash, producer: self.producer.clone(), sequence, shape }
    }

    fn number_of(&mut self, shape: &Shape) -> u32 {
        if let Some((number, _)) = self.shapes.iter().find(|(_, known)| *known == shape) {
            return *number;
        }
        let number = self.next_shape;
        self.next_shape += 1;
        self.shapes.insert(number, shape.clone());
        number
    }

    fn forget_gone(&mut self) {
        let gone = |stream: &Stream| stream.is_gone && stream.intents.is_empty();
        let too_many = self.streams.values().filter(|stream| gone(stream)).count().saturating_sub(GONE_MAX);
        let oldest: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, it)| gone(it))
            .map(|(number, _)| *number)
            .take(too_many)
            .collect();
        for number in oldest {
            self.streams.remove(&number);
        }
    }
}

impl Stream {
    /// Everything before this byte is done with.
    pub(crate) fn done_to(&self) -> u64 {
        self.intents.keys().next().copied().unwrap_or(self.cut_to)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::agent::lines::LineFormat;

    pub(crate) fn shape() -> Shape {
        let format = LineFormat::Ndjson;
        Shape { format, pattern: None, add: Vec::new(), sample_rate: None, time_field: None }
    }

    pub(crate) const IDENTITY: Identity = Identity { device: 1, inode: 2, head_bytes: 3, head: u64::MAX };

    fn range(start: u64, end: u64) -> Range {
        Range { key: Key { stream: 1, start }, end, records: end - start, hash: 9 }
    }

    fn book() -> Book {
        let mut book = Book::new("t", "p".to_owned());
        book.open(1, "a.log".to_owned(), IDENTITY, 0);
        book
    }

    #[test]
    fn numbers_are_given_once() {
        let mut book = book();
        assert_eq!(book.intend(range(0, 10), &shape()), 1);
        assert_eq!(book.intend(range(10, 30), &shape()), 2);
        assert_eq!(book.renumber(range(0, 10).key), Some(3));
        assert_eq!(book.split(range(10, 20), range(20, 30)), Some((4, 5)));
        let stream = &book.streams()[&1];
        assert_eq!((stream.cut_to, stream.records, stream.done_to()), (30, 30, 0));
        let held: Vec<_> = stream.intents.iter().map(|(at, it)| (*at, it.end, it.sequence)).collect();
        assert_eq!(held, [(0, 10, 3), (10, 20, 4), (20, 30, 5)]);
        book.strike(range(0, 10).key);
        assert_eq!(book.streams()[&1].done_to(), 10);
        assert_eq!(book.renumber(range(0, 10).key), None);
        // What is read back goes on where it was.
        let mut read = Book::from_text(&book.text().unwrap()).unwrap();
        assert_eq!(read, book);
        assert_eq!(read.intend(range(30, 31), &shape()), 6);
        read.pass_over(range(31, 40));
        assert_eq!((read.streams()[&1].cut_to, read.streams()[&1].intents.len()), (40, 3));
    }

    #[test]
    fn a_book_that_contradicts_itself_is_refused() {
        let mut book = book();
        book.intend(range(0, 10), &shape());
        let text = String::from_utf8(book.text().unwrap()).unwrap();
        let check = |from: &str, to: &str, expect: &str| {
            assert!(text.contains(from), "{text}");
            assert_eq!(Book::from_text(text.replace(from, to).as_bytes()).unwrap_err(), expect);
        };
        let batch = "the batch at byte 0 of stream 1 contradicts the rest";
        check("\"next_sequence\":2", "\"next_sequence\":1", batch);
        check("\"cut_to\":10", "\"cut_to\":9", batch);
        check("\"shape\":1", "\"shape\":7", batch);
        check("\"next_stream\":2", "\"next_stream\":1", "stream 1 is not below the next one, 1");
        check("\"next_shape\":2", "\"next_shape\":1", "a shape is not below the next one, 1");
        assert!(Book::from_text(b"").is_err());
    }

    #[test]
    fn streams_that_are_gone_are_remembered_for_a_while() {
        let mut book = Book::new("t", "p".to_owned());
        for number in 1..=GONE_MAX as u64 + 5 {
            book.open(number, number.to_string(), IDENTITY, 0);
            book.gone(number);
        }
        assert_eq!(book.streams().keys().next(), Some(&6));
        // What is on its way is never forgotten.
        let range = Range { key: Key { stream: 7, start: 0 }, ..range(0, 4) };
        book.intend(range, &shape());
        book.forget(7);
        assert!(book.streams()[&7].is_gone);
        book.strike(range.key);
        book.forget(7);
        assert_eq!(book.streams().get(&7), None);
    }
}
