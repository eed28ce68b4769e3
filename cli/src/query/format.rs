//! Answers in the formats that there are: for people whole, for programs batch by batch as they arrive.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::writer::StreamWriter;
use clap::ValueEnum;
use gannet_client::{Completeness, Stats};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::cells::{Cells, Zone, is_number};
use crate::outcome::Failure;
use crate::query::output::Output;
use crate::render::{self, Style, Table};
use crate::units;

/// Rows that formats for people show when nobody says.
const SHOWN_ROWS_MAX: usize = 10_000;
/// Bytes of text that are made before they are handed on.
const TEXT_BYTES: usize = 1 << 16;
/// Where the record of completeness stands in Arrow and Parquet files.
const COMPLETENESS: &str = "gannet.completeness";
/// Where the statistics stand.
const STATS: &str = "gannet.stats";

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people
    Table,
    /// One line a value, for rows of many columns
    Vertical,
    /// The server's whole reply: columns, rows, completeness, statistics
    Json,
    /// One JSON object a row
    Ndjson,
    /// Comma-separated values with a header line
    Csv,
    /// Tab-separated values with a header line; NULL is \N
    Tsv,
    /// A table for a document or a ticket
    Markdown,
    /// An Arrow IPC stream
    Arrow,
    /// A Parquet file
    Parquet,
}

impl Format {
    /// Bytes that are no text.
    pub(crate) fn is_binary(self) -> bool {
        matches!(self, Format::Arrow | Format::Parquet)
    }

    /// Made for people: shown whole, with a line about completeness or in place of one.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Format::Table | Format::Vertical | Format::Markdown)
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Vertical => "vertical",
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Markdown => "markdown",
            Format::Arrow => "arrow",
            Format::Parquet => "parquet",
        }
    }

    /// The format that the ending of a file's name means.
    pub(crate) fn of_file(path: &Path) -> Option<Format> {
        Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Format::Json,
            "ndjson" | "jsonl" => Format::Ndjson,
            "csv" => Format::Csv,
            "tsv" => Format::Tsv,
            "md" => Format::Markdown,
            "arrow" | "arrows" => Format::Arrow,
            "parquet" => Format::Parquet,
            "txt" => Format::Table,
            _ => return None,
        })
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// The format.
    pub(crate) format: Format,
    /// The zone of times; Arrow and Parquet keep instants.
    pub(crate) zone: Zone,
    /// No more rows than this.
    pub(crate) max_rows: Option<usize>,
    /// What the screen can show.
    pub(crate) style: Style,
    /// Whether tables end with a line about the answer.
    pub(crate) footer: bool,
}

/// What is said about an answer beside its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// How complete it is.
    pub(crate) completeness: &'a Completeness,
    /// What it took.
    pub(crate) stats: Stats,
    /// It is not the final answer.
    pub(crate) is_partial: bool,
}

/// An answer being written.
pub(crate) struct Printer<'a> {
    layout: Layout,
    about: About<'a>,
    schema: SchemaRef,
    target: Target<'a>,
    /// Rows that were written.
    written: usize,
}

enum Target<'a> {
    /// Collected until the end.
    Whole {
        out: &'a mut Output,
        batches: Vec<RecordBatch>,
    },
    /// Text, row by row.
    Lines {
        out: &'a mut Output,
        buffer: Vec<u8>,
    },
    Arrow {
        writer: Box<StreamWriter<&'a mut Output>>,
        schema: SchemaRef,
    },
    Parquet {
        writer: Box<ArrowWriter<&'a mut Output>>,
        schema: SchemaRef,
    },
}

impl<'a> Printer<'a> {
    /// Begins an answer of these columns.
    pub(crate) fn new(
        layout: Layout,
        schema: &SchemaRef,
        about: About<'a>,
        out: &'a mut Output,
    ) -> Result<Printer<'a>, Failure> {
        let target = match layout.format {
            Format::Table | Format::Vertical | Format::Markdown | Format::Json => {
                Target::Whole { out, batches: Vec::new() }
            }
            Format::Ndjson => Target::Lines { out, buffer: Vec::new() },
            Format::Csv | Format::Tsv => {
                let mut buffer = Vec::new();
                for (index, field) in schema.fields().iter().enumerate() {
                    match layout.format {
                        Format::Csv => {
                            separate(index, b',', &mut buffer);
                            push_csv(field.name(), &mut buffer);
                        }
                        _ => {
                            separate(index, b'\t', &mut buffer);
                            push_tsv(field.name().as_bytes(), &mut buffer);
                        }
                    }
                }
                buffer.push(b'\n');
                Target::Lines { out, buffer }
            }
            Format::Arrow => {
                let schema = with_metadata(schema, about);
                let writer = Box::new(StreamWriter::try_new(out, &schema).map_err(arrow_failure)?);
                Target::Arrow { writer, schema }
            }
            Format::Parquet => {
                let schema = with_metadata(schema, about);
                let pairs = schema.metadata().iter();
                let pairs = pairs.map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_key_value_metadata(Some(pairs))
                    .build();
                let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties));
                Target::Parquet { writer: Box::new(writer.map_err(parquet_failure)?), schema }
            }
        };
        Ok(Printer { layout, about, schema: Arc::clone(schema), target, written: 0 })
    }

    /// How many rows were written.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Takes rows; false when no more are needed.
    pub(crate) fn rows(&mut self, batch: &RecordBatch) -> Result<bool, Failure> {
        let is_for_people = self.layout.format.is_for_people();
        let limit = self.layout.max_rows.unwrap_or(if is_for_people { SHOWN_ROWS_MAX } else { usize::MAX });
        let batch = batch.slice(0, batch.num_rows().min(limit - self.written));
        self.written += batch.num_rows();
        if batch.num_rows() > 0 {
            let zone = self.layout.zone;
            match &mut self.target {
                Target::Whole { batches, .. } => batches.push(batch),
                Target::Lines { out, buffer } => {
                    write_lines(self.layout.format, &batch, zone, buffer, &mut **out)?;
                }
                Target::Arrow { writer, schema } => {
                    let batch = batch.with_schema(Arc::clone(schema)).map_err(arrow_failure)?;
                    writer.write(&batch).map_err(arrow_failure)?;
                }
                Target::Parquet { writer, schema } => {
                    let batch = batch.with_schema(Arc::clone(schema)).map_err(arrow_failure)?;
                    writer.write(&batch).map_err(parquet_failure)?;
                }
            }
        }
        Ok(is_for_people || self.written < limit)
    }

    /// Ends it; `rows` is how many the whole answer has.
    pub(crate) fn end(self, rows: usize) -> Result<(), Failure> {
        let written = self.written;
        match self.target {
            Target::Whole { out, batches } => {
                let answer = Whole { schema: &self.schema, batches: &batches, layout: self.layout };
                match self.layout.format {
                    Format::Vertical => answer.write_vertical(out)?,
                    Format::Markdown => answer.write_markdown(out)?,
                    _ => answer.write_table(out)?,
                }
                if self.layout.footer && self.layout.format != Format::Markdown && !answer.is_plan() {
                    writeln!(out, "{}", render::fold(&footer(self.about, written, rows), self.layout.style))?;
                }
                out.flush()?;
            }
            Target::Lines { out, buffer } => {
                out.write_all(&buffer)?;
                out.flush()?;
            }
            Target::Arrow { mut writer, .. } => {
                writer.finish().map_err(arrow_failure)?;
                writer.flush().map_err(arrow_failure)?;
            }
            Target::Parquet { writer, .. } => {
                writer.close().map_err(parquet_failure)?;
            }
        }
        Ok(())
    }
}

fn with_metadata(schema: &SchemaRef, about: About<'_>) -> SchemaRef {
    let mut metadata = schema.metadata().clone();
    // Both are records of numbers and texts, which always become JSON.
    metadata.insert(COMPLETENESS.to_owned(), serde_json::to_string(about.completeness).unwrap_or_default());
    metadata.insert(STATS.to_owned(), serde_json::to_string(&about.stats).unwrap_or_default());
    Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata))
}

fn arrow_failure(error: ArrowError) -> Failure {
    match error {
        ArrowError::IoError(_, error) => error.into(),
        error => Failure::failed(format!("write the answer as Arrow: {error}")),
    }
}

fn parquet_failure(error: ParquetError) -> Failure {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => (*error).into(),
            Err(inner) => Failure::failed(format!("write the answer as Parquet: {inner}")),
        },
        error => Failure::failed(format!("write the answer as Parquet: {error}")),
    }
}

fn separate(index: usize, mark: u8, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(mark);
    }
}

fn columns(batch: &RecordBatch, zone: Zone) -> Result<Vec<Cells>, Failure> {
    let cells = batch.columns().iter().map(|column| Cells::new(column, zone));
    cells.collect::<Result<_, _>>().map_err(arrow_failure)
}

fn write_lines(
    format: Format,
    batch: &RecordBatch,
    zone: Zone,
    buffer: &mut Vec<u8>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let cells = columns(batch, zone)?;
    let keys: Vec<Vec<u8>> = batch
        .schema()
        .fields()
        .iter()
        .enumerate()
        .map(|(index, field)| {
            let mut key = Vec::new();
            separate(index, b',', &mut key);
            let _ = serde_json::to_writer(&mut key, field.name());
            key.push(b':');
            key
        })
        .collect();
    let mut scratch = Vec::new();
    for row in 0..batch.num_rows() {
        match format {
            Format::Ndjson => {
                buffer.push(b'{');
                for (key, cells) in keys.iter().zip(&cells) {
                    buffer.extend_from_slice(key);
                    cells.write_json(row, buffer);
                }
                buffer.push(b'}');
            }
            Format::Tsv => {
                for (index, cells) in cells.iter().enumerate() {
                    separate(index, b'\t', buffer);
                    write_tsv(cells, row, buffer, &mut scratch);
                }
            }
            _ => {
                for (index, cells) in cells.iter().enumerate() {
                    separate(index, b',', buffer);
                    write_csv(cells, row, buffer);
                }
            }
        }
        buffer.push(b'\n');
        if buffer.len() >= TEXT_BYTES {
            out.write_all(buffer)?;
            buffer.clear();
        }
    }
    Ok(())
}

/// A field of CSV (RFC 4180, line ends LF): NULL is an empty field, an empty string is `""`.
fn write_csv(cells: &Cells, row: usize, out: &mut Vec<u8>) {
    let start = out.len();
    cells.write_exact(row, out);
    if cells.is_plain() {
        return;
    }
    let text = &out[start..];
    let is_quoted = match text {
        [] => !cells.is_null(row),
        [b' ', ..] | [.., b' '] => true,
        text => memchr::memchr3(b',', b'"', b'\n', text).is_some() || memchr::memchr(b'\r', text).is_some(),
    };
    if is_quoted {
        let text = String::from_utf8_lossy(&out[start..]).replace('"', "\"\"");
        out.truncate(start);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    }
}

fn push_csv(name: &str, out: &mut Vec<u8>) {
    if name.is_empty()
        || name.contains([',', '"', '\n', '\r'])
        || name.starts_with(' ')
        || name.ends_with(' ')
    {
        out.push(b'"');
        out.extend_from_slice(name.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(name.as_bytes());
    }
}

fn write_tsv(cells: &Cells, row: usize, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
    if cells.is_null(row) {
        out.extend_from_slice(b"\\N");
    } else if cells.is_plain() {
        cells.write_exact(row, out);
    } else {
        scratch.clear();
        cells.write_exact(row, scratch);
        push_tsv(scratch, out);
    }
}

/// Tabs, line ends and backslashes are escaped, so that every tab and line end is a separator.
fn push_tsv(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            other => out.push(*other),
        }
    }
}

/// An answer for people.
struct Whole<'a> {
    schema: &'a SchemaRef,
    batches: &'a [RecordBatch],
    layout: Layout,
}

impl Whole<'_> {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.schema.fields().iter().map(|field| field.name().as_str())
    }

    /// The answer to EXPLAIN.
    fn is_plan(&self) -> bool {
        self.names().eq(["plan_type", "plan"])
    }

    /// Calls this for every row.
    fn each_row(&self, mut write: impl FnMut(usize, &[Cells]) -> io::Result<()>) -> Result<(), Failure> {
        for batch in self.batches {
            let cells = columns(batch, self.layout.zone)?;
            for row in 0..batch.num_rows() {
                write(row, &cells)?;
            }
        }
        Ok(())
    }

    fn write_table(&self, out: &mut dyn Write) -> Result<(), Failure> {
        if self.is_plan() {
            return self.write_plan(out);
        }
        let fields = self.schema.fields().iter();
        let mut table = Table::new(fields.map(|field| (field.name().clone(), is_number(field.data_type()))));
        self.each_row(|row, cells| {
            table.row(cells.iter().map(|cells| cells.text(row)));
            Ok(())
        })?;
        if !self.schema.fields().is_empty() {
            let left_out = table.write(out, self.layout.style)?;
            if left_out.columns > 0 {
                let all = self.schema.fields().len();
                let shown = all - left_out.columns;
                writeln!(out, "{shown} of {all} columns fit; all with --format vertical")?;
            }
        }
        Ok(())
    }

    /// A plan as it is indented, a line a step.
    fn write_plan(&self, out: &mut dyn Write) -> Result<(), Failure> {
        self.each_row(|row, cells| {
            for line in cells[1].text(row).unwrap_or_default().lines() {
                let shown: String = line.chars().filter(|c| !render::is_harmful(*c)).collect();
                writeln!(out, "{shown}")?;
            }
            Ok(())
        })
    }

    fn write_vertical(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let style = self.layout.style;
        let names: Vec<String> = self.names().map(render::cell_text).collect();
        let space = names.iter().map(|name| render::width(name)).max().unwrap_or(0);
        let (bar, dash) = if style.unicode { ("│", "─") } else { ("|", "-") };
        let mut number = 0;
        self.each_row(|row, cells| {
            number += 1;
            writeln!(out, "{}", style.dim(&format!("{} row {number}", dash.repeat(3))))?;
            for (name, cells) in names.iter().zip(cells) {
                let gap = " ".repeat(space - render::width(name));
                let text = match cells.text(row) {
                    None => style.dim(style.null()),
                    Some(text) => text
                        .chars()
                        .flat_map(|c| {
                            let escaped = render::is_harmful(c).then(|| c.escape_default());
                            let plain = escaped.is_none().then_some(c);
                            escaped.into_iter().flatten().chain(plain)
                        })
                        .collect(),
                };
                writeln!(out, " {name}{gap} {} {text}", style.dim(bar))?;
            }
            Ok(())
        })
    }

    fn write_markdown(&self, out: &mut dyn Write) -> Result<(), Failure> {
        if self.schema.fields().is_empty() {
            return Ok(());
        }
        let escape = |text: &str| -> String {
            render::cell_text(text).replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;")
        };
        let names: Vec<String> = self.names().map(escape).collect();
        writeln!(out, "| {} |", names.join(" | "))?;
        let fields = self.schema.fields().iter();
        let rules: Vec<&str> =
            fields.map(|field| if is_number(field.data_type()) { "---:" } else { "---" }).collect();
        writeln!(out, "| {} |", rules.join(" | "))?;
        self.each_row(|row, cells| {
            let texts: Vec<String> = cells
                .iter()
                .map(|cells| cells.text(row).map_or_else(String::new, |text| escape(&text)))
                .collect();
            writeln!(out, "| {} |", texts.join(" | "))
        })
    }
}

/// `20 rows · 12 ms · 1,204,331 rows scanned · completeness 100%`.
pub(crate) fn footer(about: About<'_>, shown: usize, rows: usize) -> String {
    let rows = if shown == rows {
        units::rows(rows as u64)
    } else {
        format!("{} of {} (more with --max-rows N)", units::count(shown as u64), units::rows(rows as u64))
    };
    let partial = if about.is_partial { "partial · " } else { "" };
    format!("{partial}{rows} · {}", what_it_took(About { is_partial: false, ..about }))
}

/// `12 ms · 1,204,331 rows scanned · completeness 100%`.
pub(crate) fn what_it_took(about: About<'_>) -> String {
    let stats = &about.stats;
    let sampled = if stats.represented_events == stats.stored_rows {
        String::new()
    } else {
        format!(
            " · {} stand for {} events",
            units::rows(stats.stored_rows),
            units::count(stats.represented_events)
        )
    };
    let partial = if about.is_partial { "partial · " } else { "" };
    format!(
        "{partial}{} · {} scanned{sampled} · completeness {}",
        units::seconds(stats.elapsed_ms / 1000.0),
        units::rows(stats.rows_scanned),
        about.completeness.percent()
    )
}

#[cfg(test)]
mod tests;
