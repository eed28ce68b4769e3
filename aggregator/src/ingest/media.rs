//! What a body says it is, and what its first bytes say.

use super::mark::BYTE_ORDER_MARK;
use crate::error::{ErrorCode, Failure};

/// How rows are written in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// An array of objects, or objects one after another.
    Json,
    /// One object a line.
    NdJson,
    /// Fields between commas.
    Csv,
    /// Fields between tabs.
    Tsv,
    /// An Arrow IPC stream.
    Arrow,
}

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEncoding {
    /// Not at all.
    Identity,
    /// One or more gzip members.
    Gzip,
    /// One or more zstd frames.
    Zstd,
}

const KNOWN_TYPES: &str = "Known are application/x-ndjson, application/json, text/csv, text/tab-separated-values and \
    application/vnd.apache.arrow.stream; without a content type the first bytes decide.";

fn unsupported(message: String) -> Failure {
    Failure::new(ErrorCode::UnsupportedMedia, message)
}

impl BodyFormat {
    /// The format a `Content-Type` names; `None` when the header is absent or one that clients send without being
    /// asked, and then the first bytes of the body tell.
    ///
    /// # Errors
    /// `UnsupportedMedia` for any other type.
    pub fn from_content_type(content_type: Option<&str>) -> Result<Option<BodyFormat>, Failure> {
        let Some(given) = content_type else { return Ok(None) };
        let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "" | "*/*" | "text/plain" | "application/octet-stream" | "application/x-www-form-urlencoded" => {
                Ok(None)
            }
            "application/json" | "text/json" => Ok(Some(BodyFormat::Json)),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonl"
            | "application/jsonlines"
            | "application/x-jsonlines"
            | "application/json-lines" => Ok(Some(BodyFormat::NdJson)),
            "text/csv" | "application/csv" => Ok(Some(BodyFormat::Csv)),
            "text/tab-separated-values" | "text/tsv" => Ok(Some(BodyFormat::Tsv)),
            "application/vnd.apache.arrow.stream" => Ok(Some(BodyFormat::Arrow)),
            "application/vnd.apache.arrow.file" => Err(arrow_file()),
            "application/vnd.apache.parquet" | "application/parquet" | "application/x-parquet" => {
                Err(parquet_file())
            }
            other => {
                let shown = super::row_error::shown(other);
                Err(unsupported(format!("content type {shown} is not known")).hint(KNOWN_TYPES))
            }
        }
    }
}

impl BodyEncoding {
    /// The encoding a `Content-Encoding` names.
    ///
    /// # Errors
    /// `UnsupportedMedia` for one that is not known, or more than one.
    pub fn from_content_encoding(content_encoding: Option<&str>) -> Result<BodyEncoding, Failure> {
        match content_encoding.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(BodyEncoding::Identity),
            "gzip" | "x-gzip" => Ok(BodyEncoding::Gzip),
            "zstd" => Ok(BodyEncoding::Zstd),
            other => {
                let shown = super::row_error::shown(other);
                Err(unsupported(format!("content encoding {shown} is not known"))
                    .hint("Known are gzip, zstd and identity."))
            }
        }
    }
}

fn arrow_file() -> Failure {
    unsupported("an Arrow file cannot be posted, only an Arrow stream".to_owned())
        .hint("Write it with a stream writer, or load the file with `gannet ingest`.")
}

fn parquet_file() -> Failure {
    unsupported("a Parquet file cannot be posted".to_owned()).hint("Load it with `gannet ingest`.")
}

/// The marks of formats that are longer than one byte.
const MARKS: [&[u8]; 5] = [b"\xFF\xFF\xFF\xFF", b"ARROW1", b"PAR1", b"\x1F\x8B", b"\x28\xB5\x2F\xFD"];

/// The format the first bytes show; `None` when more are needed.
pub(super) fn sniff(start: &[u8], blank_max: usize) -> Result<Option<BodyFormat>, Failure> {
    if MARKS.iter().any(|mark| mark.len() > start.len() && mark.starts_with(start))
        || (start.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(start))
    {
        return Ok(None);
    }
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start);
    if text.iter().all(u8::is_ascii_whitespace) {
        if start.len() <= blank_max {
            return Ok(None);
        }
        return Err(Failure::new(
            ErrorCode::BadRequest,
            format!("body begins with more than {blank_max} blank bytes"),
        ));
    }
    sniff_all(start).map(Some)
}

/// The format of a body that begins, or is, like this.
pub(super) fn sniff_all(start: &[u8]) -> Result<BodyFormat, Failure> {
    let [stream, file, parquet, gzip, zstd] = MARKS;
    let text = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(start);
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{' | b'[') => Ok(BodyFormat::Json),
        _ if start.starts_with(stream) => Ok(BodyFormat::Arrow),
        _ if start.starts_with(file) => Err(arrow_file()),
        _ if start.starts_with(parquet) => Err(parquet_file()),
        _ if start.starts_with(gzip) || start.starts_with(zstd) => {
            let name = if start.starts_with(gzip) { "gzip" } else { "zstd" };
            Err(unsupported(format!("body is packed with {name}, but no content encoding says so"))
                .hint(format!("Send the header Content-Encoding: {name}.")))
        }
        _ => Err(unsupported("cannot tell the format of the body from its first bytes".to_owned())
            .hint(format!("Send a Content-Type. {KNOWN_TYPES}"))),
    }
}
