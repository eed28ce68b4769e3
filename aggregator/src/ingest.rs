//! Request bodies become row batches: bytes in, normalised Arrow record batches out.
//!
//! A [`Decoder`] takes a body piece by piece, unpacks gzip or zstd, splits it into rows (NDJSON, JSON, CSV, or Arrow
//! IPC stream) and hands complete batches to a sink. It is synchronous, knows no network and no clock (the time of
//! arrival is an argument), and its memory does not grow with the body: batches go to the sink as soon as they are
//! full, and whoever is slow to take them slows the decoding down.
//!
//! Invariants
//! * A batch has `time` first, never NULL, and then columns of exactly the Arrow types of
//!   [`gannet_query::ColumnType::arrow`]; a column without any value is left out; names are unique.
//! * A row that cannot be taken is a [`Rejection`] with its number and reason, and the rows around it go on. A body
//!   that cannot be read on is a [`Failure`]; every row before that place went to the sink.
//! * The same body gives the same batches in whatever pieces it is pushed.
//! * No input makes it panic, hang, or hold more than the limits of [`IngestLimits`] say.
//!
//! Start with [`Decoder::push`]; `batch` is where rows become columns.

use std::cell::Cell;

use arrow::record_batch::RecordBatch;

use crate::error::{ErrorCode, Failure};

mod arrow_body;
mod arrow_columns;
mod arrow_text;
pub mod batch;
mod columns;
mod csv_body;
pub(crate) mod dictionaries;
mod json_body;
mod json_row;
mod mark;
mod media;
mod row_error;
mod tally;
mod times;
mod unpack;

pub use batch::BatchBuilder;
pub use media::{BodyEncoding, BodyFormat};
pub use row_error::RowError;
pub use tally::Rejection;

use tally::{Intake, Tally};

/// Whoever takes complete batches. An error of theirs ends the decoding and is returned as it is.
pub type Sink<'a> = dyn FnMut(RecordBatch) -> Result<(), Failure> + 'a;

/// What a decoder accepts and how much it holds at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestLimits {
    /// Columns of a row, and of a batch; a row with more is rejected.
    pub columns_max: usize,
    /// Length of a column's name.
    pub column_name_bytes_max: usize,
    /// Length of one text, or of all items of a list together (each item counts one byte more).
    pub value_bytes_max: usize,
    /// Length of a line, JSON object or CSV record; a longer one is rejected.
    pub line_bytes_max: usize,
    /// A line that is still not over after this many bytes ends the request.
    pub endless_line_bytes_max: u64,
    /// Objects and lists inside each other.
    pub nesting_max: usize,
    /// Rows of a batch.
    pub batch_rows_max: usize,
    /// Bytes of a batch, about.
    pub batch_bytes_max: usize,
    /// Rejections that are kept; all are counted.
    pub rejections_kept_max: usize,
    /// Length of one Arrow message, both as sent and with its buffers decompressed.
    pub arrow_message_bytes_max: usize,
    /// Values of one array of one Arrow message.
    pub arrow_values_max: usize,
}

impl Default for IngestLimits {
    fn default() -> IngestLimits {
        IngestLimits {
            columns_max: 2_000,
            column_name_bytes_max: 256,
            value_bytes_max: 1 << 20,
            line_bytes_max: 8 << 20,
            endless_line_bytes_max: 256 << 20,
            nesting_max: 32,
            batch_rows_max: 65_536,
            batch_bytes_max: 8 << 20,
            rejections_kept_max: 100,
            arrow_message_bytes_max: 256 << 20,
            arrow_values_max: 1 << 24,
        }
    }
}

/// Whether the first record of a CSV body names the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CsvHeader {
    /// It does.
    #[default]
    First,
    /// It does not: the columns are called c1, c2, …
    None,
}

/// What the request says about its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestOptions {
    /// The column that holds the time of a row; it becomes `time`. Nested ones are named with dots. When it is not
    /// `time` itself, a column called `time` is kept under the name `original_time`.
    pub time_field: String,
    /// For CSV.
    pub csv_header: CsvHeader,
}

impl Default for IngestOptions {
    fn default() -> IngestOptions {
        IngestOptions { time_field: gannet_query::TIME_COLUMN.to_owned(), csv_header: CsvHeader::First }
    }
}

/// Length of a table's name.
const TABLE_NAME_BYTES_MAX: usize = 128;

/// Refuses names that a table cannot have: a name is 1 to 128 bytes long, without control characters and `/`.
///
/// # Errors
/// `BadRequest`, naming the rule that is broken.
pub fn check_table_name(name: &str) -> Result<(), Failure> {
    let bad = |what: String| Err(Failure::new(ErrorCode::BadRequest, what));
    if name.is_empty() {
        return bad("table name is empty".to_owned());
    }
    if name.len() > TABLE_NAME_BYTES_MAX {
        let bytes = name.len();
        return bad(format!(
            "table name of {bytes} bytes is longer than the limit of {TABLE_NAME_BYTES_MAX} bytes"
        ));
    }
    match name.chars().find(|c| c.is_control() || *c == '/') {
        Some(c) => bad(format!("table name {name:?} contains the character {c:?}, which is not allowed")),
        None => Ok(()),
    }
}

/// A body on its way to row batches. See the module.
pub struct Decoder {
    unpacker: unpack::Unpacker,
    body: Body,
    mark: mark::MarkFilter,
    builder: BatchBuilder,
    tally: Tally,
    options: IngestOptions,
    limits: IngestLimits,
    /// The last rows of a body that cannot be read to its end go to the sink as well.
    delivers_rest: bool,
    failed: Option<Failure>,
}

/// The rows of a body in one of the formats.
enum Body {
    /// The format is not known yet; the first bytes wait here.
    Unknown(Vec<u8>),
    Json(json_body::JsonBody),
    Lines(json_body::LineBody),
    Csv(csv_body::CsvBody),
    Arrow(Box<arrow_body::ArrowBody>),
}

impl Body {
    fn feed_text(&mut self, bytes: &[u8], intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        match self {
            Body::Json(body) => body.feed(bytes, intake),
            Body::Lines(body) => body.feed(bytes, intake),
            Body::Csv(body) => body.feed(bytes, intake),
            Body::Unknown(_) | Body::Arrow(_) => Ok(()),
        }
    }
}

impl Decoder {
    /// A decoder for one body. Without a format, the first bytes tell. `arrival_ns` is the time of rows that have
    /// none, in nanoseconds UTC.
    pub fn new(
        format: Option<BodyFormat>,
        encoding: BodyEncoding,
        options: IngestOptions,
        limits: IngestLimits,
        arrival_ns: i64,
    ) -> Result<Decoder, Failure> {
        let builder = BatchBuilder::new(&options.time_field, limits.clone(), arrival_ns);
        let mut decoder = Decoder {
            unpacker: unpack::Unpacker::new(encoding)?,
            body: Body::Unknown(Vec::new()),
            mark: mark::MarkFilter::new(),
            builder,
            tally: Tally::new(limits.rejections_kept_max),
            options,
            limits,
            delivers_rest: true,
            failed: None,
        };
        if let Some(format) = format {
            decoder.body = decoder.body_of(format, arrival_ns);
        }
        Ok(decoder)
    }

    /// From a body that cannot be read to its end only those batches are taken that the whole body would have had too:
    /// the rows after them may come again with it.
    #[must_use]
    pub fn only_whole_bodies(mut self) -> Decoder {
        self.delivers_rest = false;
        self
    }

    fn body_of(&self, format: BodyFormat, arrival_ns: i64) -> Body {
        let limits = self.limits.clone();
        match format {
            BodyFormat::Json => Body::Json(json_body::JsonBody::new(limits)),
            BodyFormat::NdJson => Body::Lines(json_body::LineBody::new(limits)),
            BodyFormat::Csv => Body::Csv(csv_body::CsvBody::new(b',', self.options.csv_header, limits)),
            BodyFormat::Tsv => Body::Csv(csv_body::CsvBody::new(b'\t', self.options.csv_header, limits)),
            BodyFormat::Arrow => Body::Arrow(Box::new(arrow_body::ArrowBody::new(
                &self.options.time_field,
                limits,
                arrival_ns,
            ))),
        }
    }

    /// Takes the next piece of the body and hands the batches it completes to the sink.
    ///
    /// # Errors
    /// When the body cannot be read on (every row before that place has gone to the sink, unless
    /// [`Decoder::only_whole_bodies`]), or with the sink's own error. After an error only the same error follows.
    pub fn push(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), Failure> {
        self.guarded(sink, |decoder, sink| {
            let mut unpacked = Vec::new();
            let (mut rest, mut more) = (bytes, false);
            while more || !rest.is_empty() {
                let Some(step) = decoder.unpacker.step(rest, &mut unpacked)? else {
                    return decoder.feed(rest, sink);
                };
                rest = rest.get(step.consumed..).unwrap_or_default();
                more = step.more;
                decoder.feed(&unpacked, sink)?;
                unpacked.clear();
            }
            Ok(())
        })
    }

    /// The body is over: the last rows go to the sink.
    ///
    /// # Errors
    /// As [`Decoder::push`]; a body that ends too early is one that cannot be read on.
    pub fn finish(&mut self, sink: &mut Sink<'_>) -> Result<(), Failure> {
        self.guarded(sink, |decoder, sink| {
            let mut unpacked = Vec::new();
            decoder.unpacker.finish(&mut unpacked)?;
            decoder.feed(&unpacked, sink)?;
            if let Body::Unknown(start) = &mut decoder.body {
                let start = std::mem::take(start);
                if start.iter().all(u8::is_ascii_whitespace) {
                    return Ok(());
                }
                decoder.body = decoder.body_of(media::sniff_all(&start)?, decoder.builder.arrival_ns());
                decoder.feed(&start, sink)?;
            }
            let mut intake = Intake { builder: &mut decoder.builder, tally: &mut decoder.tally, sink };
            let held = decoder.mark.finish();
            decoder.body.feed_text(&held, &mut intake)?;
            match &mut decoder.body {
                Body::Unknown(_) => {}
                Body::Json(body) => body.finish(&mut intake)?,
                Body::Lines(body) => body.finish(&mut intake)?,
                Body::Csv(body) => body.finish(&mut intake)?,
                Body::Arrow(body) => body.finish(&mut intake)?,
            }
            intake.deliver_all()
        })
    }

    /// Runs one step. When the body fails, the rows before the failure still go to the sink, and the failure says how
    /// far the body was read.
    fn guarded(
        &mut self,
        sink: &mut Sink<'_>,
        step: impl FnOnce(&mut Decoder, &mut Sink<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone());
        }
        let sink_failed = Cell::new(false);
        let mut watched = |batch: RecordBatch| sink(batch).inspect_err(|_| sink_failed.set(true));
        let Err(mut failure) = step(self, &mut watched) else { return Ok(()) };
        if !sink_failed.get() {
            failure = self.deliver_rest(failure, &mut watched);
        }
        self.failed = Some(failure.clone());
        Err(failure)
    }

    fn deliver_rest(&mut self, failure: Failure, sink: &mut Sink<'_>) -> Failure {
        if !self.delivers_rest {
            let read = format!(
                "The body was read up to byte {}, and of the rows before that only whole row batches were taken.",
                self.tally.body_bytes
            );
            return with_detail(failure, read);
        }
        let mut intake = Intake { builder: &mut self.builder, tally: &mut self.tally, sink };
        if let Body::Arrow(body) = &mut self.body
            && let Err(failure) = body.deliver_pending(&mut intake)
        {
            return failure;
        }
        if let Err(failure) = intake.deliver_all() {
            return failure;
        }
        let (accepted, rejected) = (self.rows_accepted(), self.rejected_count());
        let read = format!(
            "The body was read up to byte {}; {accepted} rows before that were accepted and {rejected} rejected.",
            self.tally.body_bytes
        );
        with_detail(failure, read)
    }

    fn feed(&mut self, bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), Failure> {
        if bytes.is_empty() {
            return Ok(());
        }
        if let Body::Unknown(start) = &mut self.body {
            start.extend_from_slice(bytes);
            let Some(format) = media::sniff(start, self.limits.line_bytes_max)? else { return Ok(()) };
            let start = std::mem::take(start);
            self.body = self.body_of(format, self.builder.arrival_ns());
            return self.feed(&start, sink);
        }
        let mut intake = Intake { builder: &mut self.builder, tally: &mut self.tally, sink };
        if let Body::Arrow(body) = &mut self.body {
            return body.feed(bytes, &mut intake);
        }
        let (held, rest) = self.mark.strip(bytes);
        self.body.feed_text(&held, &mut intake)?;
        self.body.feed_text(rest, &mut intake)
    }

    /// Rows met so far, accepted or rejected.
    pub fn rows_seen(&self) -> u64 {
        self.tally.rows_seen
    }

    /// Rows accepted so far; after `finish` or a failure of the body, all of them went to the sink.
    pub fn rows_accepted(&self) -> u64 {
        self.tally.rows_seen - self.tally.rejected_count
    }

    /// The first rejections, see [`IngestLimits::rejections_kept_max`].
    pub fn rejections(&self) -> &[Rejection] {
        &self.tally.rejections
    }

    /// How many rows were rejected.
    pub fn rejected_count(&self) -> u64 {
        self.tally.rejected_count
    }

    /// What the sender should know though nothing is wrong, in full sentences; complete after `finish`.
    pub fn notes(&self) -> Vec<String> {
        let (timed, candidate) = match &self.body {
            Body::Arrow(body) => (body.saw_time(), body.time_candidate()),
            _ => (self.builder.saw_time(), self.builder.time_candidate()),
        };
        if timed || self.rows_accepted() == 0 {
            return Vec::new();
        }
        let field = &self.options.time_field;
        let hint = match candidate {
            Some(name) => format!("If `{name}` holds it, post with ?time_field={name}."),
            None => "If another column holds it, post with ?time_field=NAME.".to_owned(),
        };
        vec![format!(
            "No row has a value in the column `{field}`, so each got the time of its arrival. {hint}"
        )]
    }
}

fn with_detail(failure: Failure, more: String) -> Failure {
    let detail = match &failure.detail {
        Some(detail) => format!("{detail} {more}"),
        None => more,
    };
    failure.detail(detail)
}

#[cfg(test)]
mod tests;
