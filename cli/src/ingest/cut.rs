//! Text files cut into bodies of bounded size, always between two records.
//!
//! A server's error then tells how far a file got, and neither side holds more of a file than one piece. The cutter
//! knows just enough of each format to find the ends of records; whether a record makes sense is for the server to say.

use std::io::{self, Read};

use bytes::Bytes;

/// A record longer than this ends the reading: a piece must fit into memory.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// What is read from a file at once.
const READ_BYTES: usize = 256 << 10;

/// How large a piece may become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A piece is cut after the record that reaches this.
    pub(crate) bytes: usize,
    /// Rows of a piece.
    pub(crate) rows: u64,
}

/// A run of records, ready to be posted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    /// What is posted.
    pub(crate) body: Bytes,
    /// What it is.
    pub(crate) content_type: &'static str,
    /// Number of its first row in the file, from 1. Blank lines and a header have none.
    pub(crate) first_row: u64,
    /// How many rows it has.
    pub(crate) rows: u64,
}

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextFormat {
    /// One JSON object a line.
    Ndjson,
    /// A JSON array of objects, or JSON objects one after another.
    Json,
    /// Comma-separated values under a header line.
    Csv,
    /// Comma-separated values without a header line; the columns are c1, c2 and so on.
    CsvNoHeader,
    /// Tab-separated values under a header line, with quotes as in CSV.
    Tsv,
}

/// Why a file cannot be cut further.
#[derive(Debug)]
pub(crate) enum CutError {
    /// The file cannot be read, or its compression is broken.
    Read(io::Error),
    /// The record with this number is too long.
    RecordTooLong(u64),
    /// The file ends within the record with this number.
    Truncated(u64),
    /// Something other than white space follows the end of the array, after this many rows.
    AfterTheEnd(u64),
}

impl std::fmt::Display for CutError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CutError::Read(error) => write!(f, "{error}"),
            CutError::RecordTooLong(row) => {
                write!(f, "row {row} is longer than {} MiB", RECORD_BYTES_MAX >> 20)
            }
            CutError::Truncated(row) => write!(f, "the file ends in the middle of row {row}"),
            CutError::AfterTheEnd(rows) => {
                write!(f, "the array ends after {rows} rows, and then text follows")
            }
        }
    }
}

/// A file being cut.
#[derive(Debug)]
pub(crate) struct Pieces<R> {
    input: R,
    limits: Limits,
    format: TextFormat,
    /// Bytes read and not yet cut off. For JSON only the bytes of elements and the commas between them.
    pending: Vec<u8>,
    /// Bytes read and not yet looked at.
    unread: Vec<u8>,
    unread_from: usize,
    /// End of the last whole record in `pending`, and how many there are.
    whole: usize,
    whole_rows: u64,
    rows_done: u64,
    header: Vec<u8>,
    csv: CsvState,
    json: JsonState,
    failed: Option<CutError>,
    ended: bool,
}

/// Where in a CSV record a byte is. A quote only opens a quoted field at the field's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CsvState {
    FieldStart,
    Plain,
    Quoted,
    QuoteInQuoted,
}

impl CsvState {
    /// The state after a byte, and whether the byte ended a record.
    fn after(self, byte: u8, delimiter: u8) -> (CsvState, bool) {
        match (self, byte) {
            (CsvState::Quoted, b'"') => (CsvState::QuoteInQuoted, false),
            (CsvState::Quoted, _) | (CsvState::FieldStart | CsvState::QuoteInQuoted, b'"') => {
                (CsvState::Quoted, false)
            }
            (_, b'\n') => (CsvState::FieldStart, true),
            _ if byte == delimiter => (CsvState::FieldStart, false),
            _ => (CsvState::Plain, false),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct JsonState {
    /// Brackets and braces open inside the element; the array around the elements does not count.
    depth: u32,
    in_element: bool,
    in_string: bool,
    escaped: bool,
    array: ArrayState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ArrayState {
    /// Nothing but white space so far.
    #[default]
    Unseen,
    /// Elements stand one after another, without an array around them.
    None,
    Open,
    Closed,
}

impl<R: Read> Pieces<R> {
    /// Cuts what `input` gives.
    pub(crate) fn new(input: R, format: TextFormat, limits: Limits) -> Pieces<R> {
        Pieces {
            input,
            limits,
            format,
            pending: Vec::new(),
            unread: Vec::new(),
            unread_from: 0,
            whole: 0,
            whole_rows: 0,
            rows_done: 0,
            header: Vec::new(),
            csv: CsvState::FieldStart,
            json: JsonState::default(),
            failed: None,
            ended: false,
        }
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read on. What was whole before that has been returned.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, CutError> {
        loop {
            if self.take_unread() {
                return Ok(self.cut());
            }
            if let Some(error) = self.failed.take() {
                if self.whole > 0 {
                    self.failed = Some(error);
                    return Ok(self.cut());
                }
                self.ended = true;
                return Err(error);
            }
            if self.ended {
                return Ok(self.cut());
            }
            self.read_more();
        }
    }

    /// Looks at bytes that were read until a piece is full (`true`) or nothing is left.
    fn take_unread(&mut self) -> bool {
        while self.unread_from < self.unread.len() && self.failed.is_none() {
            if self.format == TextFormat::Ndjson {
                self.push_line();
                if self.is_full() {
                    return true;
                }
                continue;
            }
            let byte = self.unread[self.unread_from];
            self.unread_from += 1;
            match self.format {
                TextFormat::Ndjson | TextFormat::Csv | TextFormat::CsvNoHeader | TextFormat::Tsv => {
                    let delimiter = if self.format == TextFormat::Tsv { b'\t' } else { b',' };
                    let (state, ended) = self.csv.after(byte, delimiter);
                    self.csv = state;
                    self.push(byte, ended);
                }
                TextFormat::Json => self.push_json(byte),
            }
            if self.is_full() {
                return true;
            }
        }
        false
    }

    fn is_full(&self) -> bool {
        self.whole >= self.limits.bytes || self.whole_rows >= self.limits.rows
    }

    /// Takes the unread bytes up to the end of a line, or all of them.
    fn push_line(&mut self) {
        let unread = &self.unread[self.unread_from..];
        let end = memchr::memchr(b'\n', unread);
        let line = &unread[..end.map_or(unread.len(), |end| end + 1)];
        self.unread_from += line.len();
        self.pending.extend_from_slice(line);
        if self.pending.len() - self.whole > RECORD_BYTES_MAX + usize::from(end.is_some()) {
            self.failed = Some(CutError::RecordTooLong(self.rows_done + self.whole_rows + 1));
        } else if end.is_some() {
            self.record_ended();
        }
    }

    fn push(&mut self, byte: u8, ends_record: bool) {
        self.pending.push(byte);
        if ends_record {
            self.record_ended();
        } else if self.pending.len() - self.whole > RECORD_BYTES_MAX {
            self.failed = Some(CutError::RecordTooLong(self.rows_done + self.whole_rows + 1));
        }
    }

    fn record_ended(&mut self) {
        let blank = self.format != TextFormat::Json
            && self.pending[self.whole..].iter().all(|byte| match self.format {
                TextFormat::Ndjson => byte.is_ascii_whitespace(),
                _ => matches!(byte, b'\r' | b'\n'),
            });
        if blank {
            self.pending.truncate(self.whole);
            return;
        }
        if matches!(self.format, TextFormat::Csv | TextFormat::Tsv) && self.header.is_empty() {
            self.header = std::mem::take(&mut self.pending);
            return;
        }
        self.whole = self.pending.len();
        self.whole_rows += 1;
    }

    fn push_json(&mut self, byte: u8) {
        if self.json.in_element {
            self.push_element(byte);
            return;
        }
        let first = self.json.array == ArrayState::Unseen;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => {}
            // A byte order mark.
            0xef | 0xbb | 0xbf if first => {}
            _ if self.json.array == ArrayState::Closed => {
                self.failed = Some(CutError::AfterTheEnd(self.rows_done + self.whole_rows));
            }
            b'[' if first => self.json.array = ArrayState::Open,
            b']' if self.json.array == ArrayState::Open => self.json.array = ArrayState::Closed,
            _ => {
                if first {
                    self.json.array = ArrayState::None;
                }
                self.json.in_element = true;
                if self.whole > 0 {
                    self.pending.push(b',');
                }
                self.push_element(byte);
            }
        }
    }

    fn push_element(&mut self, byte: u8) {
        let json = &mut self.json;
        if json.in_string {
            match (json.escaped, byte) {
                (true, _) => json.escaped = false,
                (false, b'\\') => json.escaped = true,
                (false, b'"') => json.in_string = false,
                _ => {}
            }
            let ended = !json.in_string && json.depth == 0;
            return self.push_element_byte(byte, ended);
        }
        match byte {
            b'"' => json.in_string = true,
            b'{' | b'[' => json.depth += 1,
            b'}' | b']' if json.depth > 0 => {
                json.depth -= 1;
                let ended = json.depth == 0;
                return self.push_element_byte(byte, ended);
            }
            // Only elements that are no objects end without a bracket or quote of their own.
            b',' | b']' | b' ' | b'\t' | b'\n' | b'\r' if json.depth == 0 => {
                json.in_element = false;
                self.record_ended();
                return self.push_json(byte);
            }
            _ => {}
        }
        self.push_element_byte(byte, false);
    }

    fn push_element_byte(&mut self, byte: u8, ended: bool) {
        if ended {
            self.json.in_element = false;
        }
        self.push(byte, ended);
    }

    fn read_more(&mut self) {
        self.unread.resize(READ_BYTES, 0);
        self.unread_from = 0;
        let read = loop {
            match self.input.read(&mut self.unread) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.unread.truncate(*read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => self.input_ended(),
            Ok(_) => {}
            Err(error) => self.failed = Some(CutError::Read(error)),
        }
    }

    /// The last record needs no line end.
    fn input_ended(&mut self) {
        self.ended = true;
        let rest = self.pending.len() > self.whole;
        match self.format {
            TextFormat::Ndjson if rest => self.record_ended(),
            // A header alone has no rows.
            TextFormat::Csv | TextFormat::Tsv if rest && self.header.is_empty() => self.pending.clear(),
            TextFormat::Csv | TextFormat::CsvNoHeader | TextFormat::Tsv
                if rest && self.csv == CsvState::Quoted =>
            {
                self.failed = Some(CutError::Truncated(self.rows_done + self.whole_rows + 1));
            }
            TextFormat::Csv | TextFormat::CsvNoHeader | TextFormat::Tsv if rest => self.record_ended(),
            TextFormat::Json if self.json.in_element && self.json.depth == 0 && !self.json.in_string => {
                self.json.in_element = false;
                self.record_ended();
            }
            TextFormat::Json if self.json.in_element || self.json.array == ArrayState::Open => {
                self.failed = Some(CutError::Truncated(self.rows_done + self.whole_rows + 1));
            }
            _ => {}
        }
    }

    /// Takes the whole records off as a piece.
    fn cut(&mut self) -> Option<Piece> {
        if self.whole_rows == 0 {
            return None;
        }
        let begun = &self.pending[self.whole..];
        // The comma between the last whole element and the one begun after it belongs to neither piece.
        let begun =
            if self.format == TextFormat::Json { begun.strip_prefix(b",").unwrap_or(begun) } else { begun };
        // Another piece is likely to be as large as this one.
        let mut pending = Vec::with_capacity(self.whole + READ_BYTES);
        pending.extend_from_slice(begun);
        let mut records = std::mem::replace(&mut self.pending, pending);
        records.truncate(self.whole);
        let body = match self.format {
            TextFormat::Ndjson | TextFormat::CsvNoHeader => records,
            TextFormat::Csv | TextFormat::Tsv => [&self.header[..], &records].concat(),
            TextFormat::Json => [b"[", &records[..], b"]"].concat(),
        };
        let piece = Piece {
            body: body.into(),
            content_type: self.format.content_type(),
            first_row: self.rows_done + 1,
            rows: self.whole_rows,
        };
        self.rows_done += self.whole_rows;
        (self.whole, self.whole_rows) = (0, 0);
        Some(piece)
    }
}

impl TextFormat {
    fn content_type(self) -> &'static str {
        match self {
            TextFormat::Ndjson => "application/x-ndjson",
            TextFormat::Json => "application/json",
            TextFormat::Csv => "text/csv",
            TextFormat::CsvNoHeader => "text/csv; header=absent",
            TextFormat::Tsv => "text/tab-separated-values",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, so that records begin and end anywhere in a read.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let taken = self.1.min(self.0.len()).min(buffer.len());
            buffer[..taken].copy_from_slice(&self.0[..taken]);
            self.0 = &self.0[taken..];
            Ok(taken)
        }
    }

    /// Cuts at two rows or at the given bytes; the bodies and, at the end, the error if there is one.
    fn check(format: TextFormat, bytes: usize, text: &str, expect: &[&str]) {
        for step in [1, 3, 1000] {
            let limits = Limits { bytes, rows: 2 };
            let mut pieces = Pieces::new(Trickle(text.as_bytes(), step), format, limits);
            let mut got = Vec::new();
            let mut next_row = 1;
            loop {
                match pieces.next() {
                    Ok(None) => break,
                    Ok(Some(piece)) => {
                        assert_eq!(piece.first_row, next_row, "{text:?}");
                        next_row += piece.rows;
                        got.push(String::from_utf8(piece.body.to_vec()).unwrap());
                    }
                    Err(error) => {
                        got.push(format!("error: {error}"));
                        break;
                    }
                }
            }
            assert_eq!(got, expect, "{text:?} in steps of {step}");
        }
    }

    #[test]
    fn ndjson_is_cut_at_line_ends() {
        let check = |text, expect| check(TextFormat::Ndjson, 1000, text, expect);
        check("", &[]);
        check("{\"a\":1}", &["{\"a\":1}"]);
        check("1\n2\n3\n", &["1\n2\n", "3\n"]);
        check("1\r\n2\r\n3", &["1\r\n2\r\n", "3"]);
        // Blank lines are no rows, here and on the server.
        check("\n1\n \r\n3\n\n4", &["1\n3\n", "4"]);
        check("\n\n", &[]);
        super::tests::check(TextFormat::Ndjson, 3, "1\n23456\n7\n8", &["1\n23456\n", "7\n8"]);
        super::tests::check(TextFormat::Ndjson, 1, "1\n2\n", &["1\n", "2\n"]);
    }

    #[test]
    fn csv_pieces_repeat_the_header() {
        let check = |text, expect| check(TextFormat::Csv, 1000, text, expect);
        check("", &[]);
        check("a,b", &[]);
        check("a,b\n", &[]);
        check("a,b\n1,2\n3,4\n5,6", &["a,b\n1,2\n3,4\n", "a,b\n5,6"]);
        check("a\n\"x\ny\"\n\"p\"\"\n,q\"\nz\n", &["a\n\"x\ny\"\n\"p\"\"\n,q\"\n", "a\nz\n"]);
        // A quote inside a plain field is a quote.
        check("a,b\n5\" pipe,1\n6,2\n7,3\n", &["a,b\n5\" pipe,1\n6,2\n", "a,b\n7,3\n"]);
        check("\n\r\na,b\n\n1,2\n", &["a,b\n1,2\n"]);
        super::tests::check(TextFormat::CsvNoHeader, 1000, "1,2\n3,4\n5,6", &["1,2\n3,4\n", "5,6"]);
        super::tests::check(TextFormat::Tsv, 1000, "a\tb\n1,2\t\"\n\"\n3\t4", &["a\tb\n1,2\t\"\n\"\n3\t4"]);
        check("a\n1\n\"x\n", &["a\n1\n", "error: the file ends in the middle of row 2"]);
    }

    #[test]
    fn json_is_cut_between_elements() {
        let check = |text, expect| check(TextFormat::Json, 1000, text, expect);
        check("", &[]);
        check(" [ ] ", &[]);
        check(
            "[{\"a\":[1,{}]} , {\"b\":\"]},{\\\"\"},{\"c\":3}]\n",
            &["[{\"a\":[1,{}]},{\"b\":\"]},{\\\"\"}]", "[{\"c\":3}]"],
        );
        check("{\n\"a\": 1\n}\n{\"b\":2}{\"c\":3}", &["[{\n\"a\": 1\n},{\"b\":2}]", "[{\"c\":3}]"]);
        check("[1,2, null ,\"x,\"]", &["[1,2]", "[null,\"x,\"]"]);
        check("7", &["[7]"]);
        check("[{\"a\":1},{\"b\"", &["[{\"a\":1}]", "error: the file ends in the middle of row 2"]);
        check("[{\"a\":1}", &["[{\"a\":1}]", "error: the file ends in the middle of row 2"]);
        check(
            "[{\"a\":1}] {}",
            &["[{\"a\":1}]", "error: the array ends after 1 rows, and then text follows"],
        );
        check("\u{feff}[{}]", &["[{}]"]);
        super::tests::check(TextFormat::Json, 2, "[{\"a\":1},{\"b\":2}]", &["[{\"a\":1}]", "[{\"b\":2}]"]);
    }

    #[test]
    fn a_record_without_end_is_refused() {
        let endless = io::repeat(b'x');
        let mut pieces = Pieces::new(endless, TextFormat::Ndjson, Limits { bytes: 10, rows: 10 });
        assert_eq!(pieces.next().unwrap_err().to_string(), "row 1 is longer than 64 MiB");
    }
}
