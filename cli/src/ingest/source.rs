//! Opens what is to be ingested: finds out format and compression, and gives pieces ready to be posted.
//!
//! The format comes from `--format`, else from the name, else from the first bytes. Compression always shows in the
//! first bytes. Nothing here holds more of a file than one piece.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;

use crate::ingest::columnar;
use crate::ingest::cut::{Limits, Piece, Pieces, TextFormat};
use crate::outcome::Failure;

/// How a file's bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object a line
    Ndjson,
    /// A JSON array of objects, or JSON objects one after another
    Json,
    /// Comma-separated values under a header line
    Csv,
    /// Comma-separated values without a header line; the columns are named c1, c2, …
    CsvNoHeader,
    /// Tab-separated values under a header line
    Tsv,
    /// An Apache Parquet file
    Parquet,
    /// An Arrow IPC file or stream
    Arrow,
}

/// What is read: a file, or stdin.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// A file.
    File(PathBuf),
    /// Standard input.
    Stdin,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::File(path) => path.display().fmt(f),
            Source::Stdin => f.write_str("stdin"),
        }
    }
}

/// How to read and cut.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// Asked for by name.
    pub(crate) format: Option<Format>,
    /// How large a piece may become.
    pub(crate) limits: Limits,
    /// Bytes read of all files so far, for the progress bar.
    pub(crate) bytes_read: Arc<AtomicU64>,
}

/// Where pieces go; `false` means that nobody wants more.
pub(crate) type Sink<'a> = dyn FnMut(Piece) -> bool + 'a;

/// Bytes that tell format and compression.
const FIRST_BYTES: usize = 64 << 10;

/// Reads all of a source, piece by piece.
pub(crate) fn read(source: &Source, reading: &Reading, sink: &mut Sink<'_>) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("read {source}: {error}"));
    let input: Box<dyn Read + Send> = match source {
        Source::File(path) => {
            let file = File::open(path).map_err(failed)?;
            if file.metadata().map_err(failed)?.is_dir() {
                return Err(Failure::usage(format!("{source} is a directory; name the files in it")));
            }
            Box::new(file)
        }
        Source::Stdin => Box::new(io::stdin()),
    };
    let input = Counted { input, bytes: Arc::clone(&reading.bytes_read) };
    let mut input: Box<dyn BufRead + Send> = Box::new(BufReader::with_capacity(FIRST_BYTES, input));
    let first = input.fill_buf().map_err(failed)?;
    let compression = Compression::of(first);
    match compression {
        Compression::None => {}
        Compression::Gzip => input = Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(input))),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(failed)?;
            input = Box::new(BufReader::new(decoder));
        }
    }
    let first = input.fill_buf().map_err(failed)?;
    let format = match reading.format {
        Some(format) => format,
        None => format_of(source, first).ok_or_else(|| {
            Failure::usage(format!("{source} has neither a name nor first bytes that tell its format"))
                .hint("name it with --format ndjson, json, csv, csv-no-header, tsv, parquet or arrow")
        })?,
    };
    let first_is_arrow_file = first.starts_with(columnar::ARROW_FILE_MAGIC);
    match format {
        Format::Ndjson => cut(source, input, TextFormat::Ndjson, reading.limits, sink),
        Format::Json => cut(source, input, TextFormat::Json, reading.limits, sink),
        Format::Csv => cut(source, input, TextFormat::Csv, reading.limits, sink),
        Format::CsvNoHeader => cut(source, input, TextFormat::CsvNoHeader, reading.limits, sink),
        Format::Tsv => cut(source, input, TextFormat::Tsv, reading.limits, sink),
        Format::Arrow if !first_is_arrow_file => {
            columnar::read_arrow_stream(source, input, reading.limits, sink)
        }
        Format::Arrow | Format::Parquet => {
            let Source::File(path) = source else {
                return Err(Failure::usage(
                    "stdin cannot be read as a Parquet or Arrow file, which ends with its index",
                )
                .hint("name the file, or write an Arrow IPC stream"));
            };
            if compression != Compression::None {
                return Err(Failure::usage(format!(
                    "{source} is compressed as a whole, which such a file must not be"
                ))
                .hint("uncompress it first; Parquet and Arrow files are compressed inside"));
            }
            // They are opened anew and counted from the beginning.
            reading.bytes_read.fetch_sub(first.len() as u64, Ordering::Relaxed);
            let file = File::open(path).map_err(failed)?;
            match format {
                Format::Parquet => columnar::read_parquet(source, file, reading, sink),
                _ => columnar::read_arrow_file(source, file, reading, sink),
            }
        }
    }
}

fn cut(
    source: &Source,
    input: impl Read,
    format: TextFormat,
    limits: Limits,
    sink: &mut Sink<'_>,
) -> Result<(), Failure> {
    let mut pieces = Pieces::new(input, format, limits);
    while let Some(piece) =
        pieces.next().map_err(|error| Failure::failed(format!("read {source}: {error}")))?
    {
        if !sink(piece) {
            return Ok(());
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn of(first: &[u8]) -> Compression {
        match first {
            [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
            // A zstd frame, or a skippable frame before one.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

fn format_of(source: &Source, first: &[u8]) -> Option<Format> {
    let by_name = match source {
        Source::File(path) => format_of_name(&path.to_string_lossy()),
        // The usual thing to pipe, unless the first bytes say otherwise.
        Source::Stdin => None,
    };
    let by_bytes = format_of_bytes(first);
    match (by_name, by_bytes) {
        // `.json` files are as often one object a line as they are arrays.
        (Some(Format::Json), Some(Format::Ndjson)) => Some(Format::Ndjson),
        (Some(format), _) => Some(format),
        (None, None) if *source == Source::Stdin => Some(Format::Ndjson),
        (None, by_bytes) => by_bytes,
    }
}

fn format_of_name(name: &str) -> Option<Format> {
    let name = name.to_ascii_lowercase();
    let compressed = [".gz", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending));
    let (_, ending) = compressed.unwrap_or(&name).rsplit_once('.')?;
    match ending {
        "ndjson" | "jsonl" | "jsonlines" => Some(Format::Ndjson),
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv),
        "tsv" | "tab" => Some(Format::Tsv),
        "parquet" | "pq" => Some(Format::Parquet),
        "arrow" | "arrows" | "ipc" | "feather" => Some(Format::Arrow),
        _ => None,
    }
}

fn format_of_bytes(first: &[u8]) -> Option<Format> {
    if first.starts_with(b"PAR1") {
        return Some(Format::Parquet);
    }
    // A stream begins with a continuation marker.
    if first.starts_with(columnar::ARROW_FILE_MAGIC) || first.starts_with(&[0xff; 4]) {
        return Some(Format::Arrow);
    }
    let text = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first);
    let text = text.trim_ascii_start();
    match text.first()? {
        b'[' => Some(Format::Json),
        b'{' => Some(if starts_with_whole_line(text) { Format::Ndjson } else { Format::Json }),
        _ => None,
    }
}

/// Whether the first line is an object of its own; when it is not, objects run over several lines.
fn starts_with_whole_line(text: &[u8]) -> bool {
    match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => serde_json::from_slice::<serde::de::IgnoredAny>(&text[..end]).is_ok(),
        // A line longer than what was looked at is no pretty-printing.
        None => true,
    }
}

struct Counted<R> {
    input: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn names_tell_the_format() {
        let check = |name: &str, expect: Option<Format>| assert_eq!(format_of_name(name), expect, "{name}");
        check("a/requests.ndjson", Some(Format::Ndjson));
        check("requests.JSONL.gz", Some(Format::Ndjson));
        check("x.json.zst", Some(Format::Json));
        check("trips.csv", Some(Format::Csv));
        check("trips.parquet", Some(Format::Parquet));
        check("t.arrow", Some(Format::Arrow));
        check("t.feather", Some(Format::Arrow));
        check("access.log", None);
        check("noname", None);
    }

    #[test]
    fn first_bytes_tell_the_format() {
        let check =
            |first: &[u8], expect: Option<Format>| assert_eq!(format_of_bytes(first), expect, "{first:?}");
        check(b" {\"a\":1}\n{", Some(Format::Ndjson));
        check(b"{\n \"a\": 1\n}", Some(Format::Json));
        check(b"\xef\xbb\xbf[{}]", Some(Format::Json));
        check(b"PAR1....", Some(Format::Parquet));
        check(b"ARROW1\0\0", Some(Format::Arrow));
        check(&[0xff, 0xff, 0xff, 0xff, 0, 1], Some(Format::Arrow));
        check(b"127.0.0.1 - -", None);
        check(b"", None);
        let json = Source::File("x.json".into());
        assert_eq!(format_of(&json, b"{\"a\":1}\n{\"a\":2}\n"), Some(Format::Ndjson));
        assert_eq!(format_of(&json, b"[1]"), Some(Format::Json));
        assert_eq!(format_of(&Source::Stdin, b""), Some(Format::Ndjson));
        assert_eq!(format_of(&Source::File("x".into()), b"text"), None);
    }

    fn read_all(path: &std::path::Path, format: Option<Format>) -> Result<Vec<u8>, Failure> {
        let limits = Limits { bytes: 1 << 20, rows: 1000 };
        let reading = Reading { format, limits, bytes_read: Arc::default() };
        let mut bytes = Vec::new();
        read(&Source::File(path.to_owned()), &reading, &mut |piece| {
            bytes.extend_from_slice(&piece.body);
            true
        })?;
        Ok(bytes)
    }

    #[test]
    fn compressed_files_are_read_whatever_their_name() {
        let folder = tempfile::tempdir().unwrap();
        let text = b"{\"a\":1}\n{\"a\":2}\n".as_slice();
        let plain = folder.path().join("plain.log");
        std::fs::write(&plain, text).unwrap();
        let gz = folder.path().join("one.ndjson.gz");
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        let member = encoder.finish().unwrap();
        // Two members one after another, as `cat a.gz b.gz` makes.
        std::fs::write(&gz, [member.clone(), member.clone()].concat()).unwrap();
        let zst = folder.path().join("one");
        std::fs::write(&zst, zstd::encode_all(text, 1).unwrap()).unwrap();
        assert_eq!(read_all(&plain, None).unwrap(), text);
        assert_eq!(read_all(&gz, None).unwrap(), [text, text].concat());
        assert_eq!(read_all(&zst, None).unwrap(), text);

        let cut_off = folder.path().join("cut.ndjson.gz");
        std::fs::write(&cut_off, &member[..member.len() - 9]).unwrap();
        let message = read_all(&cut_off, None).unwrap_err().message;
        assert!(message.starts_with(&format!("read {}: ", cut_off.display())), "{message}");
        let unknown = folder.path().join("access.log");
        std::fs::write(&unknown, "127.0.0.1 - -\n").unwrap();
        assert_eq!(
            read_all(&unknown, None).unwrap_err().message,
            format!("{} has neither a name nor first bytes that tell its format", unknown.display())
        );
        assert_eq!(
            read_all(folder.path(), None).unwrap_err().message,
            format!("{} is a directory; name the files in it", folder.path().display())
        );
    }
}
