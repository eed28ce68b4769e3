//! What `gannet ingest --follow` can be told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::agent::bad_lines::OnError;
use crate::agent::lines::LineFormat;
use crate::agent::shape::Shape;
use crate::agent::watch::{OnFull, ReadFrom};
use crate::outcome::Failure;
use crate::units;

/// A batch larger than this would be more than one row batch on the server.
const BATCH_BYTES_MAX: u64 = 4 << 20;

/// How lines are written, or that it is to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// By the file's name, else by its first line
    Auto,
    /// One JSON object a line
    Ndjson,
    /// Comma-separated values under a header line
    Csv,
    /// `key=value key="a text"`
    Logfmt,
    /// Plain lines, taken apart by --pattern
    Lines,
}

/// The flags that go with `--follow`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "With --follow")]
pub(crate) struct FollowArgs {
    /// Follow files as they grow and are rotated, until stopped; names may be quoted patterns such as '/var/log/*.log'
    #[arg(long, conflicts_with = "format")]
    pub(crate) follow: bool,
    /// Where the agent keeps what was acknowledged [default: ingest-TABLE.state in the state folder of the user]
    #[arg(long, value_name = "FILE", requires = "follow")]
    pub(crate) state_file: Option<PathBuf>,
    /// Where to begin
    #[arg(long, value_enum, default_value = "checkpoint", requires = "follow")]
    pub(crate) read_from: ReadFrom,
    /// How lines are written
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "auto", requires = "follow")]
    pub(crate) input_format: InputFormat,
    /// How plain lines are taken apart: named groups become columns [default: time and level when there, and message]
    #[arg(long, value_name = "REGEX", requires = "follow")]
    pub(crate) pattern: Option<String>,
    /// A column that every row gets, such as host=web-1; more than once for more
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_added, requires = "follow")]
    pub(crate) add: Vec<(String, String)>,
    /// How many events each line stands for
    #[arg(long, value_name = "N", value_parser = parse_sample_rate, requires = "follow")]
    pub(crate) sample_rate: Option<f64>,
    /// A batch is sent when it has this many bytes
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_batch_bytes, requires = "follow")]
    pub(crate) batch_bytes: u64,
    /// A batch is sent when its first line waited so long
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = units::parse_duration, requires = "follow")]
    pub(crate) batch_delay: Duration,
    /// Most bytes of lines that are held
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_buffer_bytes, requires = "follow")]
    pub(crate) buffer_bytes: u64,
    /// What to do when the server takes nothing and no more lines can be held
    #[arg(long, value_enum, default_value = "block", requires = "follow")]
    pub(crate) on_full: OnFull,
    /// What becomes of lines that are no rows: skip, stop, or dead-letter:FILE
    #[arg(long, value_name = "CHOICE", default_value = "skip", value_parser = OnError::parse, requires = "follow")]
    pub(crate) on_error: OnError,
    /// How long to go on sending after SIGTERM or Ctrl-C; the rest is sent after the next start
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::parse_duration, requires = "follow")]
    pub(crate) shutdown_timeout: Duration,
    /// How often the status is written when stderr is no terminal
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::parse_duration, requires = "follow")]
    pub(crate) status_interval: Duration,
}

impl FollowArgs {
    /// The format of all files, when it is not to be found out.
    pub(crate) fn format(&self) -> Option<LineFormat> {
        match self.input_format {
            // Whoever gives a pattern means plain lines.
            InputFormat::Auto => self.pattern.as_ref().map(|_| LineFormat::Lines),
            InputFormat::Ndjson => Some(LineFormat::Ndjson),
            InputFormat::Csv => Some(LineFormat::Csv),
            InputFormat::Logfmt => Some(LineFormat::Logfmt),
            InputFormat::Lines => Some(LineFormat::Lines),
        }
    }

    /// What records become; the format in it is that of files whose format is not to be found out.
    pub(crate) fn shape(&self, time_field: Option<&str>) -> Shape {
        Shape {
            format: self.format().unwrap_or(LineFormat::Lines),
            pattern: self.pattern.clone(),
            add: self.add.clone(),
            sample_rate: self.sample_rate,
            time_field: time_field.map(str::to_owned),
        }
    }

    /// Where the checkpoint is kept.
    ///
    /// # Errors
    /// When nobody says, and the user has no folder for it.
    pub(crate) fn state_path(&self, table: &str) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.state_file {
            return Ok(path.clone());
        }
        let home = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = home("XDG_STATE_HOME").or_else(|| Some(home("HOME")?.join(".local/state")));
        let folder = folder.ok_or_else(|| {
            Failure::usage("neither XDG_STATE_HOME nor HOME says where to keep the checkpoint")
                .hint("name a file with --state-file")
        })?;
        let table: String =
            table.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
        Ok(folder.join("gannet").join(format!("ingest-{table}.state")))
    }
}

fn parse_added(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` must be NAME=VALUE")),
    }
}

fn parse_sample_rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` must be a number of at least 1");
    text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 1.0).ok_or_else(wrong)
}

fn parse_batch_bytes(text: &str) -> Result<u64, String> {
    within(text, 1 << 10, BATCH_BYTES_MAX)
}

fn parse_buffer_bytes(text: &str) -> Result<u64, String> {
    within(text, 1 << 20, 64 << 30)
}

fn within(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let bytes = units::parse_size(text)?;
    if (min..=max).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("size `{text}` must be from {min} to {max} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        assert_eq!(parse_added("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(parse_added("=b"), Err("`=b` must be NAME=VALUE".to_owned()));
        assert_eq!(parse_sample_rate("10"), Ok(10.0));
        assert_eq!(parse_sample_rate("0.5"), Err("`0.5` must be a number of at least 1".to_owned()));
        assert_eq!(parse_batch_bytes("64KiB"), Ok(65_536));
        assert_eq!(
            parse_batch_bytes("1GiB"),
            Err("size `1GiB` must be from 1024 to 4194304 bytes".to_owned())
        );
    }
}
