//! Records become a body that the server takes: NDJSON, or CSV under its header.
//!
//! What is NDJSON already passes through as it is. The same records under the same shape give the same bytes, which is
//! why the shape of a batch is kept with its checkpoint: a batch that is sent again is the one that was sent.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::agent::json_text::{push_text, push_value};
use crate::agent::lines::LineFormat;
use crate::agent::logfmt;
use crate::agent::pattern::{PATTERN_DEFAULT, Pattern};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The column of a row that tells how many events it stands for.
const SAMPLE_RATE: &str = "sample_rate";
/// The column of the time, unless another is named.
const TIME: &str = "time";

/// Everything that decides what a record becomes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// How records are written.
    pub(crate) format: LineFormat,
    /// Takes plain lines apart; for these only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pattern: Option<String>,
    /// Columns that every row gets, with their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) add: Vec<(String, String)>,
    /// How many events a row stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sample_rate: Option<f64>,
    /// The column that holds the time, when it is not `time`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time_field: Option<String>,
}

/// A record that is no row, by its number among the records of a batch, from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadRecord {
    /// Which.
    pub(crate) record: u64,
    /// Why.
    pub(crate) error: String,
}

/// A body, and the records that are not in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shaped {
    /// What is posted; empty when there are no rows.
    pub(crate) body: Bytes,
    /// Rows of it.
    pub(crate) rows: u64,
    /// Records that could not become rows.
    pub(crate) refused: Vec<BadRecord>,
}

/// A shape, ready to be used.
#[derive(Debug)]
pub(crate) struct Shaper {
    shape: Shape,
    pattern: Option<Pattern>,
    /// Members that every JSON row begins with, each followed by a comma.
    members: Vec<u8>,
    /// Names and values that every CSV record ends with, each after a comma.
    csv_names: Vec<u8>,
    csv_values: Vec<u8>,
}

impl Shaper {
    /// Makes a shape ready.
    ///
    /// # Errors
    /// When its pattern is none.
    pub(crate) fn new(shape: Shape) -> Result<Shaper, String> {
        let pattern = match shape.format {
            LineFormat::Lines => Some(Pattern::new(shape.pattern.as_deref().unwrap_or(PATTERN_DEFAULT))?),
            _ => None,
        };
        let mut added: Vec<(String, String)> = shape.add.clone();
        added.extend(shape.sample_rate.map(|rate| (SAMPLE_RATE.to_owned(), rate.to_string())));
        let (mut members, mut csv_names, mut csv_values) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in &added {
            push_text(&mut members, name.as_bytes());
            members.push(b':');
            push_value(&mut members, value.as_bytes());
            members.push(b',');
            push_csv(&mut csv_names, name);
            push_csv(&mut csv_values, value);
        }
        Ok(Shaper { shape, pattern, members, csv_names, csv_values })
    }

    /// The shape.
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What bodies are.
    pub(crate) fn content_type(&self) -> &'static str {
        match self.shape.format {
            LineFormat::Csv => "text/csv",
            _ => "application/x-ndjson",
        }
    }

    /// Whether NDJSON records are the body as they are.
    fn passes_through(&self) -> bool {
        self.shape.format == LineFormat::Ndjson && self.members.is_empty()
    }

    /// Turns whole records into a body. `header` is the first record of the file, for CSV; `records` is how many the
    /// bytes hold.
    pub(crate) fn body(&self, header: &[u8], raw: &Bytes, records: u64) -> Shaped {
        if records == 0 {
            return Shaped { body: Bytes::new(), rows: 0, refused: Vec::new() };
        }
        if self.passes_through() {
            return Shaped { body: raw.clone(), rows: records, refused: Vec::new() };
        }
        let added = (self.members.len() + 2) * usize::try_from(records).unwrap_or(0);
        let mut out = Vec::with_capacity(header.len() + raw.len() + raw.len() / 4 + added);
        if self.shape.format == LineFormat::Csv {
            self.push_record(&mut out, header.trim_ascii_end(), &self.csv_names);
        }
        let (mut rows, mut refused) = (0, Vec::new());
        for (number, (_, record)) in (0..).zip(self.shape.format.records(raw)) {
            let start = out.len();
            match self.push_row(&mut out, record) {
                Ok(()) => rows += 1,
                Err(error) => {
                    out.truncate(start);
                    refused.push(BadRecord { record: number, error });
                }
            }
        }
        let body = if rows == 0 { Bytes::new() } else { out.into() };
        Shaped { body, rows, refused }
    }

    fn push_row(&self, out: &mut Vec<u8>, record: &[u8]) -> Result<(), String> {
        match self.shape.format {
            LineFormat::Csv => self.push_record(out, record, &self.csv_values),
            LineFormat::Ndjson => self.push_object(out, record),
            LineFormat::Logfmt => {
                self.begin_object(out);
                if logfmt::push_members(out, record) == 0 {
                    return Err("the line holds no key=value".to_owned());
                }
                end_object(out);
            }
            LineFormat::Lines => {
                self.begin_object(out);
                let time = self.shape.time_field.as_deref().unwrap_or(TIME);
                let matches = self.pattern.as_ref().is_some_and(|it| it.push_members(out, record, time));
                if !matches {
                    return Err("the line does not match the pattern".to_owned());
                }
                end_object(out);
            }
        }
        Ok(())
    }

    fn begin_object(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        out.extend_from_slice(&self.members);
    }

    /// An object with the added members in front, so that its own win; what is no object is left for the server to name.
    fn push_object(&self, out: &mut Vec<u8>, record: &[u8]) {
        let object = record.strip_prefix(BYTE_ORDER_MARK).unwrap_or(record).trim_ascii_start();
        match object.strip_prefix(b"{") {
            None => out.extend_from_slice(record),
            Some(members) => {
                self.begin_object(out);
                if members.trim_ascii_start().first() == Some(&b'}') {
                    out.pop();
                }
                out.extend_from_slice(members);
            }
        }
        out.push(b'\n');
    }

    fn push_record(&self, out: &mut Vec<u8>, record: &[u8], added: &[u8]) {
        out.extend_from_slice(record);
        out.extend_from_slice(added);
        out.push(b'\n');
    }
}

/// Ends an object whose members each end with a comma.
fn end_object(out: &mut Vec<u8>) {
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(b"}\n");
}

fn push_csv(out: &mut Vec<u8>, field: &str) {
    out.push(b',');
    if field.contains(['"', ',', '\n', '\r']) || field.starts_with(' ') {
        out.extend_from_slice(format!("\"{}\"", field.replace('"', "\"\"")).as_bytes());
    } else {
        out.extend_from_slice(field.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(format: LineFormat) -> Shape {
        Shape { format, pattern: None, add: Vec::new(), sample_rate: None, time_field: None }
    }

    fn check(shape: Shape, header: &str, raw: &str, body: &str, refused: &[(u64, &str)]) {
        let raw = Bytes::from(raw.to_owned());
        let records = shape.format.records(&raw).count() as u64;
        let shaped = Shaper::new(shape).unwrap().body(header.as_bytes(), &raw, records);
        assert_eq!(String::from_utf8(shaped.body.to_vec()).unwrap(), body);
        assert_eq!(shaped.rows + refused.len() as u64, records);
        let got: Vec<_> = shaped.refused.iter().map(|bad| (bad.record, bad.error.as_str())).collect();
        assert_eq!(got, refused);
    }

    #[test]
    fn records_become_rows() {
        let text = "{\"a\":1}\n\n{\"a\":2}\n";
        check(plain(LineFormat::Ndjson), "", text, text, &[]);
        check(plain(LineFormat::Ndjson), "", "\n", "", &[]);
        check(plain(LineFormat::Csv), "a,b\r\n", "1,2\n\n\"x\ny\",3\r\n", "a,b\n1,2\n\"x\ny\",3\n", &[]);
        check(plain(LineFormat::Logfmt), "", "a=1 b=x\nc\n", "{\"a\":1,\"b\":\"x\"}\n{\"c\":true}\n", &[]);
        check(plain(LineFormat::Lines), "", "INFO up\n", "{\"level\":\"INFO\",\"message\":\"up\"}\n", &[]);
        let shape = Shape { pattern: Some("^n=(?P<n>[0-9]+)$".to_owned()), ..plain(LineFormat::Lines) };
        let error = "the line does not match the pattern";
        check(shape.clone(), "", "n=1\nn=x\n\nn=3\n", "{\"n\":1}\n{\"n\":3}\n", &[(1, error)]);
        check(shape, "", "x\n", "", &[(0, error)]);
    }

    #[test]
    fn columns_are_added() {
        let add = vec![("host".to_owned(), "web,1".to_owned()), ("rack".to_owned(), "7".to_owned())];
        let with = |format| Shape { add: add.clone(), sample_rate: Some(10.0), ..plain(format) };
        check(
            with(LineFormat::Ndjson),
            "",
            "\u{feff}{\"a\":1}\n { }\nnull\n",
            "{\"host\":\"web,1\",\"rack\":7,\"sample_rate\":10,\"a\":1}\n\
             {\"host\":\"web,1\",\"rack\":7,\"sample_rate\":10 }\nnull\n",
            &[],
        );
        check(with(LineFormat::Csv), "a\n", "1\n", "a,host,rack,sample_rate\n1,\"web,1\",7,10\n", &[]);
        check(
            with(LineFormat::Logfmt),
            "",
            "a=1\n",
            "{\"host\":\"web,1\",\"rack\":7,\"sample_rate\":10,\"a\":1}\n",
            &[],
        );
    }
}
