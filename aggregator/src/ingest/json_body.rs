//! Finds the rows of NDJSON and JSON bodies, wherever the pieces of the body were cut.
//!
//! A row that lies in one piece is read in place; only what a piece leaves unfinished is kept, up to the limit of a
//! line. What is longer is skipped without being kept, and is one rejected row.

use super::IngestLimits;
use super::json_row::read_row;
use super::row_error::RowError;
use super::tally::Intake;
use crate::error::{ErrorCode, Failure};

/// The unfinished row at the end of a piece.
struct Unfinished {
    bytes: Vec<u8>,
    /// Its length, also beyond what is kept.
    length: u64,
    limits: IngestLimits,
}

impl Unfinished {
    fn new(limits: IngestLimits) -> Unfinished {
        Unfinished { bytes: Vec::new(), length: 0, limits }
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.length += bytes.len() as u64;
        let limit = self.limits.endless_line_bytes_max;
        if self.length > limit {
            let what = format!("a row is not over after the limit of {limit} bytes");
            return Err(Failure::new(ErrorCode::TooLarge, what));
        }
        if self.length <= self.limits.line_bytes_max as u64 {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.bytes = Vec::new();
        }
        Ok(())
    }

    /// The row ends with `tail`: reads it into the batch.
    fn end(&mut self, tail: &[u8], intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        let line = if self.is_empty() {
            self.length = tail.len() as u64;
            tail
        } else {
            self.extend(tail)?;
            &self.bytes
        };
        let limit = self.limits.line_bytes_max;
        if self.length > limit as u64 {
            intake.reject_row(&RowError::RowLength { limit });
        } else if line.first() == Some(&b'{') || !line.iter().all(u8::is_ascii_whitespace) {
            intake.row_of(line, |rows| read_row(line, rows, &self.limits))?;
        }
        self.length = 0;
        self.bytes.clear();
        Ok(())
    }
}

/// NDJSON: a row a line; blank lines do not count.
pub(super) struct LineBody {
    unfinished: Unfinished,
}

impl LineBody {
    pub(super) fn new(limits: IngestLimits) -> LineBody {
        LineBody { unfinished: Unfinished::new(limits) }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8], intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let length = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
            let (line, rest) = bytes.split_at(length);
            intake.tally.body_bytes += length as u64;
            match line.strip_suffix(b"\n") {
                Some(line) => self.unfinished.end(line, intake)?,
                None => self.unfinished.extend(line)?,
            }
            bytes = rest;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        if self.unfinished.is_empty() { Ok(()) } else { self.unfinished.end(&[], intake) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but blanks so far.
    Start,
    /// Between objects that stand one after another.
    Between,
    /// In the array, before a row; `true` when `]` may stand here too.
    BeforeRow(bool),
    /// In the array, after a row.
    AfterRow,
    /// After the array.
    End,
    /// In an object or list.
    Nested,
    /// In a text, number or word that stands where a row should be.
    Loose,
}

/// JSON: an array of objects, or one object, or objects one after another.
///
/// Only brackets and quotes are looked at to find where a row ends; whether it is JSON is found out when it is read.
/// In an array, what stands between the rows must be right, or the rest of the body has no meaning. Objects one after
/// another may have junk between them: up to the end of its line it is one rejected row.
pub(super) struct JsonBody {
    state: State,
    in_array: bool,
    in_text: bool,
    escaped: bool,
    depth: u64,
    unfinished: Unfinished,
}

impl JsonBody {
    pub(super) fn new(limits: IngestLimits) -> JsonBody {
        JsonBody {
            state: State::Start,
            in_array: false,
            in_text: false,
            escaped: false,
            depth: 0,
            unfinished: Unfinished::new(limits),
        }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8], intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        while let Some(first) = bytes.first() {
            let used = match self.state {
                State::Nested => self.nested(bytes, intake)?,
                State::Loose => self.loose(bytes, intake)?,
                _ => usize::from(self.between(*first, intake)?),
            };
            intake.tally.body_bytes += used as u64;
            bytes = bytes.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    /// One byte outside of rows; false when it begins a row.
    fn between(&mut self, byte: u8, intake: &Intake<'_, '_>) -> Result<bool, Failure> {
        if byte.is_ascii_whitespace() {
            return Ok(true);
        }
        match (self.state, byte) {
            (State::Start, b'[') => {
                self.in_array = true;
                self.state = State::BeforeRow(true);
                Ok(true)
            }
            (State::BeforeRow(true), b']') | (State::AfterRow, b']') => {
                self.state = State::End;
                Ok(true)
            }
            (State::AfterRow, b',') => {
                self.state = State::BeforeRow(false);
                Ok(true)
            }
            (State::AfterRow, _) => Err(broken("expected ',' or ']' after a row", byte, intake)),
            (State::BeforeRow(_), b',' | b']') => Err(broken("expected a row", byte, intake)),
            (State::End, _) => Err(broken("expected nothing after the array", byte, intake)),
            (_, b'{' | b'[') => {
                self.state = State::Nested;
                Ok(false)
            }
            _ => {
                self.state = State::Loose;
                Ok(false)
            }
        }
    }

    fn row_ended(&mut self) {
        self.state = if self.in_array { State::AfterRow } else { State::Between };
        self.in_text = false;
        self.escaped = false;
        self.depth = 0;
    }

    /// Bytes of an object or list, up to its end or the end of the piece.
    fn nested(&mut self, bytes: &[u8], intake: &mut Intake<'_, '_>) -> Result<usize, Failure> {
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_text {
                self.text_byte(*byte);
                continue;
            }
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => continue,
            }
            if self.depth == 0 {
                self.unfinished.end(&bytes[..=at], intake)?;
                self.row_ended();
                return Ok(at + 1);
            }
        }
        self.unfinished.extend(bytes)?;
        Ok(bytes.len())
    }

    /// Bytes of something else, up to the comma, bracket or line end after it or the end of the piece.
    fn loose(&mut self, bytes: &[u8], intake: &mut Intake<'_, '_>) -> Result<usize, Failure> {
        for (at, byte) in bytes.iter().enumerate() {
            let ends = match byte {
                _ if self.in_array && self.in_text => {
                    self.text_byte(*byte);
                    false
                }
                b'"' => {
                    self.in_text = true;
                    false
                }
                b',' | b']' => self.in_array,
                b'\n' => true,
                _ => false,
            };
            if ends {
                self.unfinished.end(&bytes[..at], intake)?;
                self.row_ended();
                return Ok(at);
            }
        }
        self.unfinished.extend(bytes)?;
        Ok(bytes.len())
    }

    fn text_byte(&mut self, byte: u8) {
        if self.escaped {
            self.escaped = false;
        } else if byte == b'\\' {
            self.escaped = true;
        } else if byte == b'"' {
            self.in_text = false;
        }
    }

    pub(super) fn finish(&mut self, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        match self.state {
            State::Loose if !self.in_array => self.unfinished.end(&[], intake),
            State::Start | State::Between | State::End => Ok(()),
            State::Nested | State::Loose => Err(ended("inside a row", intake)),
            State::BeforeRow(_) | State::AfterRow => Err(ended("before the ']' of its array", intake)),
        }
    }
}

fn broken(expected: &str, byte: u8, intake: &Intake<'_, '_>) -> Failure {
    let (at, row) = (intake.tally.body_bytes, intake.tally.rows_seen);
    let found = char::from(byte).escape_default();
    Failure::new(
        ErrorCode::BadRequest,
        format!("JSON body is broken at byte {at}, row {row}: {expected}, found '{found}'"),
    )
}

fn ended(place: &str, intake: &Intake<'_, '_>) -> Failure {
    let (at, row) = (intake.tally.body_bytes, intake.tally.rows_seen);
    Failure::new(ErrorCode::BadRequest, format!("JSON body ends {place}, at byte {at}, row {row}"))
}
