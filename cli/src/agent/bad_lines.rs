//! Lines that did not become rows: which they are, and where they go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gannet_aggregator::ingest::{BodyEncoding, BodyFormat, CsvHeader, Decoder, IngestLimits, IngestOptions};
use gannet_client::{Rejection, Reply};

use crate::agent::batch::Batch;
use crate::agent::json_text::push_text;
use crate::outcome::Failure;
use crate::units;

/// What of a line is told on the terminal.
const SHOWN_CHARS: usize = 80;

/// A line that did not become a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Its file.
    pub(crate) path: String,
    /// Its first byte there.
    pub(crate) start: u64,
    /// Why.
    pub(crate) error: String,
    /// What it says.
    pub(crate) line: Vec<u8>,
}

/// What becomes of bad lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OnError {
    /// They are counted.
    Skip,
    /// The agent ends at the first one.
    Stop,
    /// They are kept in a file.
    DeadLetter(PathBuf),
}

impl OnError {
    /// Reads `skip`, `stop` or `dead-letter:FILE`.
    pub(crate) fn parse(text: &str) -> Result<OnError, String> {
        match (text, text.strip_prefix("dead-letter:")) {
            ("skip", _) => Ok(OnError::Skip),
            ("stop", _) => Ok(OnError::Stop),
            (_, Some(path)) if !path.is_empty() => Ok(OnError::DeadLetter(PathBuf::from(path))),
            _ => Err(format!("`{text}` must be skip, stop or dead-letter:FILE")),
        }
    }
}

/// The file of bad lines: one JSON object each. After a crash the last ones may be there twice; `file` and `start` tell.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    file: File,
    path: PathBuf,
}

impl DeadLetters {
    /// Opens the file, to write behind what it holds.
    pub(crate) fn open(path: &Path) -> Result<DeadLetters, Failure> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file =
            file.map_err(|error| Failure::failed(format!("dead letters {}: {error}", path.display())))?;
        Ok(DeadLetters { file, path: path.to_owned() })
    }

    /// Keeps lines; when this returns they survive a power cut.
    pub(crate) fn keep(&mut self, lines: &[BadLine]) -> Result<(), Failure> {
        let mut text = Vec::new();
        for line in lines {
            text.extend_from_slice(b"{\"error\":");
            push_text(&mut text, line.error.as_bytes());
            text.extend_from_slice(b",\"file\":");
            push_text(&mut text, line.path.as_bytes());
            text.extend_from_slice(format!(",\"start\":{},\"line\":", line.start).as_bytes());
            push_text(&mut text, &line.line);
            text.extend_from_slice(b"}\n");
        }
        let kept = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        kept.map_err(|error: io::Error| {
            Failure::failed(format!("write dead letters {}: {error}", self.path.display()))
        })
    }
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = String::from_utf8_lossy(&self.line);
        let shown: String =
            line.chars().take(SHOWN_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let more = if shown.len() < line.len() { "…" } else { "" };
        write!(f, "{} at byte {}: {}: {shown}{more}", self.path, units::count(self.start), self.error)
    }
}

/// Every rejected row. A reply lists the first ones only; then the body is read as the server reads it.
pub(crate) fn all_rejections(batch: &Batch, reply: &Reply) -> Vec<Rejection> {
    let count = reply.rejected_all();
    if count <= reply.rejected.len() as u64 {
        return reply.rejected.clone();
    }
    match rejections_here(batch) {
        Some(all) if all.len() as u64 == count => all,
        _ => reply.rejected.clone(),
    }
}

fn rejections_here(batch: &Batch) -> Option<Vec<Rejection>> {
    let format = match batch.shaper.content_type() {
        "text/csv" => BodyFormat::Csv,
        _ => BodyFormat::NdJson,
    };
    let mut options = IngestOptions { csv_header: CsvHeader::First, ..IngestOptions::default() };
    if let Some(time_field) = &batch.shaper.shape().time_field {
        options.time_field.clone_from(time_field);
    }
    let limits = IngestLimits { rejections_kept_max: usize::MAX, ..IngestLimits::default() };
    let mut decoder = Decoder::new(Some(format), BodyEncoding::Identity, options, limits, 0).ok()?;
    let mut sink = |_| Ok(());
    decoder.push(&batch.shaped.body, &mut sink).ok()?;
    decoder.finish(&mut sink).ok()?;
    let rejections = decoder.rejections().iter();
    Some(rejections.map(|one| Rejection { row: one.row, error: one.error.clone() }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::batch::tests::batch;
    use crate::agent::book::tests::shape;
    use crate::agent::buffer::Buffer;

    #[test]
    fn choices_are_read() {
        assert_eq!(OnError::parse("skip"), Ok(OnError::Skip));
        assert_eq!(OnError::parse("dead-letter:a b"), Ok(OnError::DeadLetter("a b".into())));
        let expect = "`dead-letter:` must be skip, stop or dead-letter:FILE".to_owned();
        assert_eq!(OnError::parse("dead-letter:"), Err(expect));
    }

    #[test]
    fn bad_lines_are_kept_as_json() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead");
        let line = BadLine {
            path: "a.log".to_owned(),
            start: 7,
            error: "not JSON".to_owned(),
            line: b"\"\xff\n".to_vec(),
        };
        assert_eq!(line.to_string(), "a.log at byte 7: not JSON: \"\u{fffd} ");
        for _ in 0..2 {
            DeadLetters::open(&path).unwrap().keep(std::slice::from_ref(&line)).unwrap();
        }
        let expect = "{\"error\":\"not JSON\",\"file\":\"a.log\",\"start\":7,\"line\":\"\\\"\u{fffd}\\n\"}\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expect.repeat(2));
    }

    #[test]
    fn rejections_beyond_the_listed_ones_are_found() {
        let raw = "{}\nx\n".repeat(150);
        let batch = batch(shape(), 0, &raw, &Buffer::new(1 << 20));
        let first = Rejection { row: 1, error: "e".to_owned() };
        let reply =
            |count| Reply { rejected: vec![first.clone()], rejected_count: Some(count), ..Reply::default() };
        let rows: Vec<u64> = all_rejections(&batch, &reply(150)).iter().map(|one| one.row).collect();
        assert_eq!(rows, (0..150).map(|number| number * 2 + 1).collect::<Vec<_>>());
        // A server that counts otherwise is believed as far as it says something.
        assert_eq!(all_rejections(&batch, &reply(7)), std::slice::from_ref(&first));
        assert_eq!(all_rejections(&batch, &reply(1)), [first]);
    }
}
