//! CSV bodies: records as RFC 4180 has them, and as people write them.
//!
//! Fields stand between delimiters, records end with any kind of line end, a field in double quotes may hold
//! delimiters, line ends and doubled quotes. An empty field is NULL, a blank line is nothing. Each value has its own
//! type: `true` and `false` are bools, decimal numbers without leading zeros are ints or floats, and all else is text.

use super::batch::{BatchBuilder, check_column_name};
use super::columns::{Scalar, wide_integer};
use super::row_error::{RowError, shown};
use super::tally::Intake;
use super::{CsvHeader, IngestLimits};
use crate::error::{ErrorCode, Failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a field.
    Field,
    /// In a field without quotes.
    Bare,
    /// In a field with quotes.
    Quoted,
    /// After a quote in a field with quotes: its end, or the first of two.
    Quote,
}

/// See the module.
pub(super) struct CsvBody {
    delimiter: u8,
    limits: IngestLimits,
    header: CsvHeader,
    /// Names of the columns, once known.
    names: Option<Vec<String>>,
    state: State,
    /// A carriage return ended the last record; a line feed now belongs to it.
    after_return: bool,
    /// The fields of the record so far, one after another, and their ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    field_count: usize,
    /// Bytes of the record, also beyond what is kept.
    length: u64,
}

impl CsvBody {
    pub(super) fn new(delimiter: u8, header: CsvHeader, limits: IngestLimits) -> CsvBody {
        CsvBody {
            delimiter,
            limits,
            header,
            names: None,
            state: State::Field,
            after_return: false,
            text: Vec::new(),
            ends: Vec::new(),
            field_count: 0,
            length: 0,
        }
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8], intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        while let Some(first) = bytes.first() {
            let used = match self.state {
                State::Bare | State::Quoted => self.plain_run(bytes),
                State::Field | State::Quote => 0,
            };
            if used > 0 {
                self.keep(&bytes[..used])?;
                bytes = &bytes[used..];
                intake.tally.body_bytes += used as u64;
                continue;
            }
            intake.tally.body_bytes += 1;
            self.byte(*first, intake)?;
            bytes = &bytes[1..];
        }
        Ok(())
    }

    /// How many bytes from here on are nothing but content of the field.
    fn plain_run(&self, bytes: &[u8]) -> usize {
        let delimiter = self.delimiter;
        let end = if self.state == State::Quoted {
            // In a record that is too long already, the quote may be the mistake: its line ends it.
            let lost = self.length > self.limits.line_bytes_max as u64;
            // A run does not go beyond the byte that makes the record too long, wherever the pieces are cut.
            let room = (self.limits.line_bytes_max as u64 + 1).saturating_sub(self.length);
            let room = if lost { bytes.len() } else { usize::try_from(room).unwrap_or(usize::MAX) };
            let end = bytes.iter().position(|byte| *byte == b'"' || (lost && *byte == b'\n'));
            Some(end.unwrap_or(bytes.len()).min(room))
        } else {
            bytes.iter().position(|byte| *byte == delimiter || matches!(byte, b'\n' | b'\r'))
        };
        // Short runs, so that a record that becomes too long is noticed soon.
        const RUN_BYTES_MAX: usize = 64 << 10;
        end.unwrap_or(bytes.len()).min(RUN_BYTES_MAX)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.count(bytes.len())?;
        if self.length <= self.limits.line_bytes_max as u64 {
            self.text.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), Failure> {
        self.length += bytes as u64;
        let limit = self.limits.endless_line_bytes_max;
        if self.length > limit {
            let what = format!("a row is not over after the limit of {limit} bytes");
            return Err(Failure::new(ErrorCode::TooLarge, what));
        }
        Ok(())
    }

    /// One byte that may mean something.
    fn byte(&mut self, byte: u8, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        let after_return = std::mem::take(&mut self.after_return);
        match (self.state, byte) {
            (State::Field, b'\n') if after_return => Ok(()),
            (State::Field, b'"') => self.move_to(State::Quoted),
            (State::Quoted, b'"') => self.move_to(State::Quote),
            (State::Quote, b'"') => {
                self.state = State::Quoted;
                self.keep(b"\"")
            }
            (State::Quoted, _) => self.end_record(intake),
            (_, b'\n' | b'\r') => {
                self.after_return = byte == b'\r';
                self.end_record(intake)
            }
            (_, byte) if byte == self.delimiter => {
                self.end_field();
                self.move_to(State::Field)
            }
            (_, byte) => {
                self.state = State::Bare;
                self.keep(&[byte])
            }
        }
    }

    fn move_to(&mut self, state: State) -> Result<(), Failure> {
        self.state = state;
        self.count(1)
    }

    fn end_field(&mut self) {
        self.field_count += 1;
        // One more than can be used shows that there were too many.
        if self.ends.len() <= self.limits.columns_max {
            self.ends.push(self.text.len());
        }
    }

    fn end_record(&mut self, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        if self.length > 0 {
            self.end_field();
            let open = self.state == State::Quoted;
            self.record(open, intake)?;
        }
        self.state = State::Field;
        self.text.clear();
        self.text.shrink_to(self.limits.value_bytes_max);
        self.ends.clear();
        self.field_count = 0;
        self.length = 0;
        Ok(())
    }

    fn record(&mut self, open: bool, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        let Some(names) = &self.names else {
            let names = self.header_names(open)?;
            self.names = Some(names);
            return if self.header == CsvHeader::None { self.record(open, intake) } else { Ok(()) };
        };
        let limit = self.limits.line_bytes_max;
        if self.length > limit as u64 {
            intake.reject_row(&RowError::RowLength { limit });
            return Ok(());
        }
        if open {
            intake.reject_row(&RowError::OpenQuote);
            return Ok(());
        }
        let fields = self.field_count;
        if fields != names.len() {
            intake.reject_row(&RowError::Fields { fields, expected: names.len() });
            return Ok(());
        }
        intake.row(|rows| put_fields(names, &self.text, &self.ends, rows))
    }

    /// The names of the columns, from the first record or its number of fields.
    fn header_names(&self, open: bool) -> Result<Vec<String>, Failure> {
        let bad = |what: String| {
            Failure::new(ErrorCode::BadRequest, format!("CSV header: {what}")).hint(
                "A body without a header line is posted with ?csv_header=none or Content-Type: text/csv; header=absent, \
                 and loaded with gannet ingest --format csv-no-header.",
            )
        };
        if self.length > self.limits.line_bytes_max as u64 {
            return Err(bad(RowError::RowLength { limit: self.limits.line_bytes_max }.to_string()));
        }
        if self.field_count > self.limits.columns_max {
            let (fields, limit) = (self.field_count, self.limits.columns_max);
            return Err(Failure::new(
                ErrorCode::TooLarge,
                format!("CSV body has {fields} columns, more than the limit of {limit}"),
            ));
        }
        if self.header == CsvHeader::None {
            return Ok((1..=self.field_count).map(|number| format!("c{number}")).collect());
        }
        if open {
            return Err(bad(RowError::OpenQuote.to_string()));
        }
        let text = std::str::from_utf8(&self.text).map_err(|_| bad("it is not UTF-8".to_owned()))?;
        let mut names: Vec<String> = Vec::with_capacity(self.ends.len());
        let mut start = 0;
        for (place, end) in self.ends.iter().enumerate() {
            let name = text.get(start..*end).ok_or_else(|| bad("it is not UTF-8".to_owned()))?;
            start = *end;
            let name = match name.trim() {
                "" => format!("c{}", place + 1),
                name => name.to_owned(),
            };
            check_column_name(&name, self.limits.column_name_bytes_max)
                .map_err(|error| bad(error.to_string()))?;
            names.push(name);
        }
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(bad(format!("it names column {} twice", shown(twice[0]))));
        }
        Ok(names)
    }

    pub(super) fn finish(&mut self, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        self.end_record(intake)
    }
}

fn put_fields(
    names: &[String],
    text: &[u8],
    ends: &[usize],
    rows: &mut BatchBuilder,
) -> Result<(), RowError> {
    let text = std::str::from_utf8(text).map_err(|error| RowError::Utf8 { at: error.valid_up_to() })?;
    let mut start = 0;
    for (name, end) in names.iter().zip(ends) {
        let field = text.get(start..*end).ok_or(RowError::Utf8 { at: start })?;
        start = *end;
        rows.put(name, typed(field))?;
    }
    Ok(())
}

/// A field as the value it looks like.
fn typed(field: &str) -> Scalar<'_> {
    match field {
        "" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        "NaN" | "nan" => return Scalar::Float(f64::NAN),
        "inf" | "Infinity" => return Scalar::Float(f64::INFINITY),
        "-inf" | "-Infinity" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let digits = field.strip_prefix('-').unwrap_or(field).as_bytes();
    // 007 is a code, not a number; so is +49.
    let looks_like_number = match digits {
        [b'0'] => field == "0",
        [b'0', b'.', ..] | [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if !looks_like_number {
        return Scalar::Text(field);
    }
    if digits.iter().all(u8::is_ascii_digit) {
        return field.parse().map_or_else(|_| wide_integer(field), Scalar::Int);
    }
    let is_numeric = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    match field.parse::<f64>() {
        Ok(float) if float.is_finite() && digits.iter().all(is_numeric) => Scalar::Float(float),
        _ => Scalar::Text(field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_type_they_look_like() {
        for (field, expect) in [
            ("", Scalar::Null),
            ("True", Scalar::Bool(true)),
            ("0", Scalar::Int(0)),
            ("-12", Scalar::Int(-12)),
            ("-0", Scalar::Text("-0")),
            ("007", Scalar::Text("007")),
            ("+4", Scalar::Text("+4")),
            ("1.", Scalar::Float(1.0)),
            ("0.5", Scalar::Float(0.5)),
            ("-1.5e3", Scalar::Float(-1500.0)),
            ("1e999", Scalar::Text("1e999")),
            ("1.2.3", Scalar::Text("1.2.3")),
            ("2026-09-22", Scalar::Text("2026-09-22")),
            ("9223372036854775808", Scalar::Float(9_223_372_036_854_775_808.0)),
            ("18446744073709551615", Scalar::Text("18446744073709551615")),
            ("inf", Scalar::Float(f64::INFINITY)),
        ] {
            assert_eq!(typed(field), expect, "{field}");
        }
    }
}
