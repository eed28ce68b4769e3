//! Where records of a log end: at line ends, or for CSV at line ends outside quotes.
//!
//! Only whole records are ever cut off. A blank record is no row, here and on the server, so that both number rows
//! alike; a line end may be `\n` or `\r\n`.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the lines of a followed file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LineFormat {
    /// One JSON object a line
    Ndjson,
    /// Comma-separated values; the first record of each file names the columns
    Csv,
    /// `key=value key="a text"`
    Logfmt,
    /// Plain lines, taken apart by a pattern
    Lines,
}

/// A run of whole records at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// How long it is.
    pub(crate) bytes: usize,
    /// Records that are not blank.
    pub(crate) records: u64,
    /// Whether it ends because a limit was reached, and not because there are no more whole records.
    pub(crate) is_full: bool,
}

/// How large a run of records may become; one record is always taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CutLimits {
    /// Records.
    pub(crate) records: u64,
    /// Bytes.
    pub(crate) bytes: usize,
}

impl LineFormat {
    /// Where the record that begins these bytes ends, behind its line end; `None` when it does not end here.
    pub(crate) fn record_end(self, bytes: &[u8]) -> Option<usize> {
        match self {
            LineFormat::Csv => csv_record_end(bytes),
            _ => memchr::memchr(b'\n', bytes).map(|at| at + 1),
        }
    }

    /// Whether a record is no row.
    pub(crate) fn is_blank(self, record: &[u8]) -> bool {
        match self {
            LineFormat::Csv => record.iter().all(|byte| matches!(byte, b'\r' | b'\n')),
            _ => {
                record.first().is_none_or(u8::is_ascii_whitespace)
                    && record.iter().all(u8::is_ascii_whitespace)
            }
        }
    }

    /// The longest run of whole records within the limits. `None`: not even one record is whole.
    pub(crate) fn cut(self, bytes: &[u8], limits: CutLimits) -> Option<Cut> {
        let mut cut = Cut { bytes: 0, records: 0, is_full: false };
        while let Some(length) = self.record_end(&bytes[cut.bytes..]) {
            let end = cut.bytes + length;
            if cut.bytes > 0 && (end > limits.bytes || cut.records >= limits.records) {
                cut.is_full = true;
                break;
            }
            cut.records += u64::from(!self.is_blank(&bytes[cut.bytes..end]));
            cut.bytes = end;
        }
        (cut.bytes > 0).then_some(cut)
    }

    /// The records that are not blank, each with its place. What does not end is the last one.
    pub(crate) fn records(self, bytes: &[u8]) -> Records<'_> {
        Records { format: self, bytes, at: 0 }
    }
}

/// See [`LineFormat::records`].
#[derive(Debug, Clone)]
pub(crate) struct Records<'a> {
    format: LineFormat,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Records<'a> {
    /// Its place, and its bytes without the line end.
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<(usize, &'a [u8])> {
        while self.at < self.bytes.len() {
            let start = self.at;
            let rest = &self.bytes[start..];
            let length = self.format.record_end(rest).unwrap_or(rest.len());
            self.at += length;
            let record = &rest[..length];
            if !self.format.is_blank(record) {
                let record = record.strip_suffix(b"\n").unwrap_or(record);
                return Some((start, record.strip_suffix(b"\r").unwrap_or(record)));
            }
        }
        None
    }
}

/// A quote only opens a quoted field at the field's start, as the server has it.
fn csv_record_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut at_field_start = true;
    while at < bytes.len() {
        if at_field_start && bytes[at] == b'"' {
            // To the quote that ends the field; doubled ones are part of it.
            at += 1;
            loop {
                at += memchr::memchr(b'"', bytes.get(at..)?)? + 1;
                match bytes.get(at) {
                    Some(b'"') => at += 1,
                    _ => break,
                }
            }
        }
        at += memchr::memchr2(b',', b'\n', bytes.get(at..)?)? + 1;
        if bytes[at - 1] == b'\n' {
            return Some(at);
        }
        at_field_start = true;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(records: u64, bytes: usize) -> CutLimits {
        CutLimits { records, bytes }
    }

    #[test]
    fn whole_records_are_cut() {
        let check =
            |format: LineFormat, text: &str, within: CutLimits, expect: Option<(usize, u64, bool)>| {
                let cut = format.cut(text.as_bytes(), within);
                assert_eq!(cut.map(|cut| (cut.bytes, cut.records, cut.is_full)), expect, "{text:?}");
            };
        let wide = limits(100, 100);
        for format in [LineFormat::Ndjson, LineFormat::Logfmt, LineFormat::Lines] {
            check(format, "", wide, None);
            check(format, "half", wide, None);
            check(format, "a\nhalf", wide, Some((2, 1, false)));
            check(format, "a\n\n \r\nb\n", wide, Some((8, 2, false)));
            check(format, "\n\n", wide, Some((2, 0, false)));
            check(format, "a\nb\nc\n", limits(2, 100), Some((4, 2, true)));
            check(format, "a\nb\n", limits(2, 100), Some((4, 2, false)));
            check(format, "aa\nbb\ncc\n", limits(9, 7), Some((6, 2, true)));
            // One record is taken, however long.
            check(format, "aaaaaaaaa\nb\n", limits(1, 3), Some((10, 1, true)));
        }
        let csv = LineFormat::Csv;
        check(csv, "1,\"a\nb\",2\n3", wide, Some((10, 1, false)));
        check(csv, "1,\"a\nb", wide, None);
        check(csv, "1,\"a\"\"\nb\"\n2,x\"y\nz\n", wide, Some((18, 3, false)));
        check(csv, "\"a\"", wide, None);
        check(csv, ",\n \n\r\n", wide, Some((6, 2, false)));
    }

    #[test]
    fn records_have_places() {
        let records: Vec<_> = LineFormat::Lines.records(b"a\r\n\nb \nhalf").collect();
        assert_eq!(records, [(0, &b"a"[..]), (4, b"b "), (7, b"half")]);
        let records: Vec<_> = LineFormat::Csv.records(b"a,\"\n\"\n\nb").collect();
        assert_eq!(records, [(0, &b"a,\"\n\""[..]), (7, b"b")]);
    }

    proptest! {
        /// However it is cut, the pieces put together are the text up to its last whole record, and the rows add up.
        #[test]
        fn cuts_add_up(text in "[a,\"\n\r ]{0,60}", rows in 1u64..4, bytes in 1usize..12, csv: bool) {
            let format = if csv { LineFormat::Csv } else { LineFormat::Lines };
            let text = text.as_bytes();
            let (mut at, mut records) = (0, 0);
            while let Some(cut) = format.cut(&text[at..], limits(rows, bytes)) {
                prop_assert!(cut.records <= rows);
                at += cut.bytes;
                records += cut.records;
            }
            prop_assert!(format.record_end(&text[at..]).is_none());
            let whole = format.cut(text, limits(1000, 1000));
            prop_assert_eq!(whole.map_or((0, 0), |cut| (cut.bytes, cut.records)), (at, records));
            prop_assert_eq!(format.records(&text[..at]).count() as u64, records);
        }
    }
}
