//! An answer that gets better while the leaves reply: NDJSON lines `progress`, `partial` and, last, `final`.
//!
//! A server that knows no partial answers sends the final line only, which is read the same way.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;

use crate::answer::{Answer, Stats};
use crate::completeness::Completeness;
use crate::error::{Error, ErrorKind, ServerError};
use crate::json_rows::{self, Column};

/// Longer lines are refused: they would not fit in memory as values.
const LINE_BYTES_MAX: usize = 1 << 30;

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// How far the work is.
    Progress(Progress),
    /// An answer over what has replied so far.
    Partial(Answer),
    /// The answer.
    Final(Answer),
}

/// How far the work is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// What an answer made now would cover.
    pub completeness: Completeness,
    /// What it took so far.
    pub stats: Stats,
}

/// Answers that are arriving. Dropping it closes the connection, and the server stops.
#[derive(Debug)]
pub struct Refined {
    address: String,
    response: Response,
    /// How long to wait for the next line.
    patience: Duration,
    lines: Lines,
    done: bool,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    columns: Vec<Column>,
    #[serde(default)]
    rows: Vec<Vec<Value>>,
    #[serde(default)]
    completeness: Completeness,
    #[serde(default)]
    stats: Stats,
    error: Option<ServerError>,
}

impl Refined {
    pub(crate) fn new(address: String, response: Response, patience: Duration) -> Refined {
        Refined { address, response, patience, lines: Lines::default(), done: false }
    }

    /// The next step; `None` after the final one. Lines of kinds that this client does not know are passed over.
    ///
    /// # Errors
    /// When the server fails after it began to answer, the connection breaks, or the lines are no answers.
    pub async fn next(&mut self) -> Result<Option<Step>, Error> {
        while !self.done {
            let Some(line) = self.line().await? else {
                let message = format!("the reply of {} broke off before the final answer", self.address);
                return Err(Error::new(ErrorKind::BrokenOff, message));
            };
            if let Some(step) = read(&self.address, &line)? {
                self.done = matches!(step, Step::Final(_));
                return Ok(Some(step));
            }
        }
        Ok(None)
    }

    /// The final answer; what comes before it is passed over.
    ///
    /// # Errors
    /// As [`Refined::next`].
    pub async fn last(mut self) -> Result<Answer, Error> {
        loop {
            match self.next().await? {
                Some(Step::Final(answer)) => return Ok(answer),
                Some(_) => {}
                None => return Err(Error::new(ErrorKind::BrokenOff, "the final answer was taken already")),
            }
        }
    }

    async fn line(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(line) = self.lines.next() {
                return Ok(Some(line));
            }
            if self.lines.rest.len() > LINE_BYTES_MAX {
                let why = format!("a line is longer than {LINE_BYTES_MAX} bytes");
                return Err(Error::foreign(&self.address, &why, b""));
            }
            let arrived = tokio::time::timeout(self.patience, self.response.chunk()).await;
            let arrived = arrived.map_err(|_| Error::timed_out(&self.address, self.patience))?;
            match arrived.map_err(|error| Error::of_connection(&self.address, &error, self.patience))? {
                Some(bytes) => self.lines.rest.extend_from_slice(&bytes),
                None => return Ok(self.lines.last()),
            }
        }
    }
}

/// Bytes cut into lines. Each byte is looked at once, however long a line is.
#[derive(Debug, Default)]
struct Lines {
    rest: BytesMut,
    searched: usize,
}

impl Lines {
    fn next(&mut self) -> Option<Bytes> {
        loop {
            let found = self.rest[self.searched..].iter().position(|byte| *byte == b'\n');
            let Some(at) = found.map(|at| self.searched + at) else {
                self.searched = self.rest.len();
                return None;
            };
            let line = self.rest.split_to(at).freeze();
            self.rest.advance(1);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }

    /// The last line may have no end.
    fn last(&mut self) -> Option<Bytes> {
        self.searched = 0;
        let line = self.rest.split().freeze();
        (!line.trim_ascii().is_empty()).then_some(line)
    }
}

fn read(address: &str, line: &[u8]) -> Result<Option<Step>, Error> {
    let foreign = |why: &str| Error::foreign(address, why, line);
    let line: Line = serde_json::from_slice(line).map_err(|error| foreign(&error.to_string()))?;
    if let Some(error) = line.error {
        return Err(Error::of_line(error));
    }
    let is_final = match line.kind.as_str() {
        "progress" => {
            return Ok(Some(Step::Progress(Progress { completeness: line.completeness, stats: line.stats })));
        }
        "partial" => false,
        "final" => true,
        _ => return Ok(None),
    };
    let (schema, batch) = json_rows::batch(&line.columns, line.rows).map_err(|why| foreign(&why))?;
    let answer = Answer { schema, batches: vec![batch], completeness: line.completeness, stats: line.stats };
    Ok(Some(if is_final { Step::Final(answer) } else { Step::Partial(answer) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Result<Option<&str>, &str>) {
        let found = read("http://a:1", line.as_bytes());
        let found = found.map(|step| {
            step.map(|step| match step {
                Step::Progress(progress) => format!("progress {}", progress.completeness.percent()),
                Step::Partial(answer) => format!("partial {}", answer.row_count()),
                Step::Final(answer) => format!("final {}", answer.row_count()),
            })
        });
        let expect = expect.map(|text| text.map(str::to_owned)).map_err(str::to_owned);
        assert_eq!(found.map_err(|error| error.message), expect, "{line}");
    }

    #[test]
    fn lines_are_told_apart() {
        check(
            r#"{"type":"progress","completeness":{"ratio":0.5,"rows_covered":1,"rows_expected":2}}"#,
            Ok(Some("progress 50.0%")),
        );
        check(
            r#"{"type":"partial","columns":[{"name":"n","type":"int"}],"rows":[[1]]}"#,
            Ok(Some("partial 1")),
        );
        check(r#"{"type":"final","columns":[],"rows":[]}"#, Ok(Some("final 0")));
        check(r#"{"type":"news"}"#, Ok(None));
        check(r#"{"type":"error","error":{"code":"timeout","message":"too late"}}"#, Err("too late"));
        check(r#"{"error":{"message":"too late"}}"#, Err("too late"));
        check(
            "x",
            Err("http://a:1 sent something else than was asked for: expected value at line 1 column 1"),
        );
        check(
            r#"{"type":"final","columns":[{"name":"n","type":"int"}],"rows":[[1,2]]}"#,
            Err("http://a:1 sent something else than was asked for: row 0 has 2 values for 1 columns"),
        );
    }

    #[test]
    fn bytes_are_cut_into_lines() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in ["a", "b\n", "\n", "c\nd\ne", ""] {
            lines.rest.extend_from_slice(piece.as_bytes());
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        assert_eq!(found, ["ab", "c", "d"]);
        assert_eq!((lines.last().as_deref(), lines.last()), (Some(&b"e"[..]), None));
    }
}
