//! Which format a file has: by choice, by its name, or by its first line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::agent::identity::read_at;
use crate::agent::lines::LineFormat;
use crate::agent::logfmt;
use crate::agent::shape::{Shape, Shaper};

/// How much of a file is looked at.
const FIRST_BYTES: usize = 64 << 10;

/// Makes shapers for files.
#[derive(Debug)]
pub(crate) struct Formats {
    format: Option<LineFormat>,
    /// The shape of all files but for its format.
    shape: Shape,
    shapers: BTreeMap<&'static str, Arc<Shaper>>,
}

impl Formats {
    /// With a format for all files, or `None` to find it for each.
    pub(crate) fn new(format: Option<LineFormat>, shape: Shape) -> Formats {
        Formats { format, shape, shapers: BTreeMap::new() }
    }

    /// The shape of all files but for its format.
    #[cfg(test)]
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What the records of a file become; inside, a warning when that cannot be told yet.
    pub(crate) fn shaper_of(&mut self, path: &Path, file: &File) -> io::Result<Result<Arc<Shaper>, String>> {
        let format = match self.format.or_else(|| by_name(path)) {
            Some(format) => format,
            None => {
                let mut first = vec![0; FIRST_BYTES];
                let length = read_at(file, &mut first, 0)?;
                let Some(format) = by_bytes(&first[..length]) else {
                    return Ok(Err(format!("{} has no line yet that tells its format", path.display())));
                };
                format
            }
        };
        let name = name_of(format);
        if let Some(shaper) = self.shapers.get(name) {
            return Ok(Ok(Arc::clone(shaper)));
        }
        let shaper = match Shaper::new(Shape { format, ..self.shape.clone() }) {
            Ok(shaper) => Arc::new(shaper),
            Err(why) => return Ok(Err(why)),
        };
        self.shapers.insert(name, Arc::clone(&shaper));
        Ok(Ok(shaper))
    }
}

fn name_of(format: LineFormat) -> &'static str {
    match format {
        LineFormat::Ndjson => "ndjson",
        LineFormat::Csv => "csv",
        LineFormat::Logfmt => "logfmt",
        LineFormat::Lines => "lines",
    }
}

fn by_name(path: &Path) -> Option<LineFormat> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "ndjson" | "jsonl" | "json" | "jsonlines" => Some(LineFormat::Ndjson),
        "csv" => Some(LineFormat::Csv),
        "logfmt" => Some(LineFormat::Logfmt),
        _ => None,
    }
}

/// By the first line that is not blank, once it has come so far that it tells.
fn by_bytes(first: &[u8]) -> Option<LineFormat> {
    let text = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first).trim_ascii_start();
    let end = memchr::memchr(b'\n', text);
    if text.starts_with(b"{") {
        return Some(LineFormat::Ndjson);
    }
    if end.is_none() && first.len() < FIRST_BYTES {
        return None;
    }
    let line = &text[..end.unwrap_or(text.len())];
    Some(if logfmt::looks_like(line) { LineFormat::Logfmt } else { LineFormat::Lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_first_lines_tell_the_format() {
        let check = |name: &str, expect| assert_eq!(by_name(Path::new(name)), expect, "{name}");
        check("a/b.ndjson", Some(LineFormat::Ndjson));
        check("b.JSON", Some(LineFormat::Ndjson));
        check("b.csv", Some(LineFormat::Csv));
        check("b.log", None);
        check("b.ndjson.1", None);
        let check = |first: &str, expect| assert_eq!(by_bytes(first.as_bytes()), expect, "{first}");
        check("", None);
        check("\n {\"a\":", Some(LineFormat::Ndjson));
        check("level=in", None);
        check("\nlevel=info msg=x\nplain\n", Some(LineFormat::Logfmt));
        check("2026-11-21 started\n", Some(LineFormat::Lines));
    }
}
