//! Answers as JSON, NDJSON, CSV and Arrow.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::writer::StreamWriter;
use gannet_query::{Bucket, Completeness, ScanStats, rfc3339::format_time};
use serde::Serialize;

use super::cells::{Cells, csv_field, type_name};
use super::shortened;
use crate::error::Failure;
use crate::sql::SqlAnswer;

/// Missing leaves that are listed in a header.
const LISTED_IN_HEADER_MAX: usize = 16;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
}

impl Format {
    /// The first format that an Accept header names; JSON when it names none of them.
    pub(super) fn accepted(accept: &str) -> Format {
        let media = accept.split(',').map(|range| range.split(';').next().unwrap_or("").trim());
        let known = media.filter_map(|media| match media.to_ascii_lowercase().as_str() {
            "application/json" | "*/*" | "application/*" => Some(Format::Json),
            "application/x-ndjson" | "application/jsonl" => Some(Format::Ndjson),
            "text/csv" | "text/*" => Some(Format::Csv),
            "application/vnd.apache.arrow.stream" => Some(Format::Arrow),
            _ => None,
        });
        known.into_iter().next().unwrap_or(Format::Json)
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8",
            Format::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// An answer in a format.
///
/// # Errors
/// When Arrow cannot cast or write a value, which is a fault of ours.
pub(super) fn body(answer: &SqlAnswer, elapsed: Duration, format: Format) -> Result<Vec<u8>, ArrowError> {
    match format {
        Format::Json => json(answer, elapsed, b"{"),
        Format::Ndjson => json(answer, elapsed, b"{\"type\":\"final\",").map(|mut line| {
            line.push(b'\n');
            line
        }),
        Format::Csv => csv(answer),
        Format::Arrow => arrow(answer, elapsed),
    }
}

/// A line with the answer over what is covered so far.
///
/// # Errors
/// As [`body`].
pub(super) fn partial(answer: &SqlAnswer, elapsed: Duration) -> Result<Vec<u8>, ArrowError> {
    let mut line = json(answer, elapsed, b"{\"type\":\"partial\",")?;
    line.push(b'\n');
    Ok(line)
}

/// A line with what an answer made now would cover.
pub(super) fn progress(completeness: &Completeness, stats: &ScanStats, elapsed: Duration) -> Vec<u8> {
    let mut line = b"{\"type\":\"progress\",\"completeness\":".to_vec();
    put(&mut line, &CompletenessText::new(completeness, usize::MAX, Details::Shown));
    line.extend_from_slice(b",\"stats\":");
    put(&mut line, &StatsText::new(stats, elapsed));
    line.extend_from_slice(b"}\n");
    line
}

/// A line with why there is no answer.
pub(super) fn failed(failure: Failure) -> Vec<u8> {
    let mut line = b"{\"type\":\"error\",\"error\":".to_vec();
    put(&mut line, &shortened(failure));
    line.extend_from_slice(b"}\n");
    line
}

/// The completeness of an answer for a header: ASCII, and of bounded length.
pub(super) fn completeness_header(completeness: &Completeness) -> String {
    let shown = CompletenessText::new(completeness, LISTED_IN_HEADER_MAX, Details::Left);
    let mut text = String::new();
    for character in serde_json::to_string(&shown).unwrap_or_default().chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[derive(Serialize)]
struct CompletenessText<'a> {
    ratio: Option<f64>,
    rows_covered: u64,
    rows_expected: Option<u64>,
    leaves_asked: u64,
    leaves_answered: u64,
    missing: Vec<MissingText<'a>>,
    groups_truncated: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    approximate: bool,
    newest_time: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    buckets: Vec<BucketText>,
}

#[derive(Serialize)]
struct BucketText {
    time: String,
    ratio: Option<f64>,
    rows_covered: u64,
    rows_expected: Option<u64>,
}

#[derive(Serialize)]
struct MissingText<'a> {
    leaf: &'a str,
    reason: &'static str,
    rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

/// Whether the words beside a reason are shown.
#[derive(Clone, Copy, PartialEq)]
enum Details {
    Shown,
    Left,
}

impl<'a> CompletenessText<'a> {
    fn new(completeness: &'a Completeness, listed_max: usize, details: Details) -> CompletenessText<'a> {
        let missing = completeness.missing.iter().take(listed_max).map(|missing| MissingText {
            leaf: &missing.leaf,
            reason: missing.reason.name(),
            rows: missing.rows,
            detail: (details == Details::Shown && !missing.detail.is_empty())
                .then_some(missing.detail.as_str()),
        });
        let bucket = |bucket: &Bucket| BucketText {
            time: format_time(bucket.time),
            ratio: bucket.ratio(),
            rows_covered: bucket.rows_covered,
            rows_expected: bucket.rows_expected,
        };
        let buckets = match details {
            Details::Shown => completeness.buckets.iter().map(bucket).collect(),
            Details::Left => Vec::new(),
        };
        CompletenessText {
            ratio: completeness.ratio(),
            rows_covered: completeness.rows_covered,
            rows_expected: completeness.rows_expected(),
            leaves_asked: completeness.leaves_asked(),
            leaves_answered: completeness.leaves_answered(),
            missing: missing.collect(),
            groups_truncated: completeness.groups_truncated,
            approximate: completeness.approximate,
            newest_time: completeness.newest_time.map(format_time),
            buckets,
        }
    }
}

#[derive(Serialize)]
struct StatsText {
    elapsed_ms: f64,
    rows_scanned: u64,
    blocks_scanned: u64,
    blocks_pruned: u64,
    stored_rows: u64,
    represented_events: u64,
    scan_ms_max: f64,
}

impl StatsText {
    fn new(stats: &ScanStats, elapsed: Duration) -> StatsText {
        StatsText {
            elapsed_ms: elapsed.as_micros() as f64 / 1e3,
            rows_scanned: stats.rows_scanned,
            blocks_scanned: stats.blocks_scanned,
            blocks_pruned: stats.blocks_pruned,
            stored_rows: stats.stored_rows,
            represented_events: stats.represented_events,
            scan_ms_max: stats.scan_us_max as f64 / 1e3,
        }
    }
}

#[derive(Serialize)]
struct ColumnText<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    type_name: String,
}

/// So many rows tell how much room the others take, so that a large answer is not moved again and again.
const ROWS_WEIGHED: usize = 1_000;
/// More room is not made ahead: the first rows may be unlike the others.
const ROOM_MAX: usize = 64 << 20;

fn json(answer: &SqlAnswer, elapsed: Duration, open: &[u8]) -> Result<Vec<u8>, ArrowError> {
    let mut out = open.to_vec();
    let fields = answer.schema.fields().iter();
    let columns: Vec<ColumnText<'_>> = fields
        .map(|field| ColumnText { name: field.name(), type_name: type_name(field.data_type()) })
        .collect();
    out.extend_from_slice(b"\"columns\":");
    put(&mut out, &columns);
    out.extend_from_slice(b",\"rows\":[");
    let mut first = true;
    let row_count: usize = answer.batches.iter().map(RecordBatch::num_rows).sum();
    let (mut written, start) = (0, out.len());
    for batch in &answer.batches {
        let cells = batch.columns().iter().map(Cells::new).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            out.extend_from_slice(if first { b"[" } else { b",[" });
            first = false;
            for (index, column) in cells.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                column.write_json(row, &mut out);
            }
            out.push(b']');
            written += 1;
            if written == ROWS_WEIGHED {
                let bytes = (out.len() - start).div_ceil(ROWS_WEIGHED);
                out.reserve((row_count - written).saturating_mul(bytes + bytes / 8).min(ROOM_MAX));
            }
        }
    }
    out.extend_from_slice(b"],\"completeness\":");
    put(&mut out, &CompletenessText::new(&answer.completeness, usize::MAX, Details::Shown));
    out.extend_from_slice(b",\"stats\":");
    put(&mut out, &StatsText::new(&answer.stats, elapsed));
    out.push(b'}');
    Ok(out)
}

/// Writes a value as JSON; a buffer in memory takes everything.
fn put<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    let _ = serde_json::to_writer(out, value);
}

fn csv(answer: &SqlAnswer) -> Result<Vec<u8>, ArrowError> {
    let mut out = Vec::new();
    for (index, field) in answer.schema.fields().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        csv_field(field.name(), &mut out);
    }
    out.extend_from_slice(b"\r\n");
    for batch in &answer.batches {
        let cells = batch.columns().iter().map(Cells::new).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            for (index, column) in cells.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                column.write_csv(row, &mut out);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
    Ok(out)
}

/// The record of completeness and the statistics stand in the metadata of the schema, before the first row.
fn arrow(answer: &SqlAnswer, elapsed: Duration) -> Result<Vec<u8>, ArrowError> {
    let completeness = CompletenessText::new(&answer.completeness, usize::MAX, Details::Shown);
    let text = serde_json::to_string(&completeness).unwrap_or_default();
    let mut metadata = answer.schema.metadata().clone();
    metadata.insert("gannet.completeness".to_owned(), text);
    let stats = serde_json::to_string(&StatsText::new(&answer.stats, elapsed)).unwrap_or_default();
    metadata.insert("gannet.stats".to_owned(), stats);
    let schema: SchemaRef = Arc::new(Schema::new_with_metadata(answer.schema.fields().clone(), metadata));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    for batch in &answer.batches {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().to_vec();
        writer.write(&RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?)?;
    }
    writer.into_inner()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow_ipc::reader::StreamReader;
    use gannet_query::{LeafEpoch, Missing, MissingReason};

    use super::*;

    fn answer() -> SqlAnswer {
        let name: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        let count: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let batch =
            RecordBatch::try_from_iter_with_nullable([("name", name, true), ("n", count, true)]).unwrap();
        SqlAnswer {
            schema: batch.schema(),
            batches: vec![batch],
            completeness: Completeness {
                answered: vec![LeafEpoch { leaf: "leaf-1".into(), epoch: 1 }],
                rows_covered: 3,
                missing: vec![Missing {
                    leaf: "leaf-ü".into(),
                    reason: MissingReason::Down,
                    rows: Some(1),
                    answered: false,
                    detail: "cannot connect".into(),
                }],
                groups_truncated: false,
                approximate: false,
                newest_time: Some(0),
                buckets: vec![],
            },
            stats: ScanStats { rows_scanned: 3, blocks_scanned: 1, ..Default::default() },
            fan_outs: 1,
        }
    }

    fn check(format: Format, expect: &str) {
        let body = body(&answer(), Duration::from_micros(1500), format).unwrap();
        assert_eq!(String::from_utf8(body).unwrap(), expect);
    }

    const REST: &str = "\"columns\":[{\"name\":\"name\",\"type\":\"string\"},{\"name\":\"n\",\"type\":\"int\"}],\
        \"rows\":[[\"a\",1],[null,2]],\
        \"completeness\":{\"ratio\":0.75,\"rows_covered\":3,\"rows_expected\":4,\"leaves_asked\":2,\
        \"leaves_answered\":1,\"missing\":[{\"leaf\":\"leaf-ü\",\"reason\":\"down\",\"rows\":1,\
        \"detail\":\"cannot connect\"}],\"groups_truncated\":false,\"newest_time\":\"1970-01-01T00:00:00Z\"},\
        \"stats\":{\"elapsed_ms\":1.5,\"rows_scanned\":3,\"blocks_scanned\":1,\"blocks_pruned\":0,\
        \"stored_rows\":0,\"represented_events\":0,\"scan_ms_max\":0.0}}";

    #[test]
    fn answers_have_four_forms() {
        check(Format::Json, &format!("{{{REST}"));
        check(Format::Ndjson, &format!("{{\"type\":\"final\",{REST}\n"));
        check(Format::Csv, "name,n\r\na,1\r\n,2\r\n");
        let bytes = body(&answer(), Duration::ZERO, Format::Arrow).unwrap();
        let reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
        assert!(reader.schema().metadata()["gannet.completeness"].starts_with("{\"ratio\":0.75,"));
        assert!(
            reader.schema().metadata()["gannet.stats"].starts_with("{\"elapsed_ms\":0.0,\"rows_scanned\":3,")
        );
        assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 2);
    }

    #[test]
    fn the_header_is_ascii() {
        assert_eq!(
            completeness_header(&answer().completeness),
            "{\"ratio\":0.75,\"rows_covered\":3,\"rows_expected\":4,\"leaves_asked\":2,\"leaves_answered\":1,\
             \"missing\":[{\"leaf\":\"leaf-\\u00fc\",\"reason\":\"down\",\"rows\":1}],\
             \"groups_truncated\":false,\"newest_time\":\"1970-01-01T00:00:00Z\"}"
        );
    }

    #[test]
    fn the_first_known_media_type_counts() {
        let formats = [
            ("", Format::Json),
            ("*/*", Format::Json),
            ("text/html, text/csv;q=0.9", Format::Csv),
            ("application/x-ndjson", Format::Ndjson),
            ("Application/Vnd.Apache.Arrow.Stream", Format::Arrow),
            ("image/png", Format::Json),
        ];
        for (accept, expect) in formats {
            assert_eq!(Format::accepted(accept), expect, "{accept}");
        }
    }
}
