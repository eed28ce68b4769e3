//! The one shape of an error that leaves this crate: a code a program can act on, a message that names the thing,
//! the value and the limit, and for SQL a detail, a hint and a position.

use serde::Serialize;

/// What kind of failure it is; one match in the HTTP door gives each its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong: SQL that does not parse, a body that is not what it says (400).
    BadRequest,
    /// A table or column that no leaf holds (404 for a table in a path, else 400).
    NotFound,
    /// SQL that Gannet understands but does not do (400).
    Unsupported,
    /// A limit of the request: text, rows, columns, groups, memory (413 for bodies, else 400).
    TooLarge,
    /// No token that is one here (401).
    Unauthenticated,
    /// A token that is not for this (403).
    Forbidden,
    /// No room or too much at once; come back (429).
    Overloaded,
    /// The content type or encoding of a body (415).
    UnsupportedMedia,
    /// The disk of the leaf that would take the rows is full; come back (507).
    DiskFull,
    /// A sequence so old that nobody can tell whether its rows were counted (409).
    SequenceTooOld,
    /// What is asked for cannot be done in the state that something is in (409).
    WrongState,
    /// No leaf answered, or the server is stopping; come back (503).
    Unavailable,
    /// Rows may or may not have been taken (503).
    Unconfirmed,
    /// Nothing usable by the deadline (504).
    Timeout,
    /// The answer is thinner than `min_completeness` asked for (503).
    Incomplete,
    /// A fault of ours (500).
    Internal,
}

/// A place in SQL text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

/// An error as users meet it.
#[derive(Debug, Clone, PartialEq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The kind.
    pub code: ErrorCode,
    /// Short, factual, lower case.
    pub message: String,
    /// More, in full sentences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// What to do, in full sentences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where in the SQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Seconds after which trying again makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl Failure {
    /// An error with a message only.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            retry_after_seconds: None,
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Failure {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a place in the SQL text.
    #[must_use]
    pub fn at(mut self, line: u64, column: u64) -> Failure {
        self.position = Some(Position { line, column });
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Failure {
        self.retry_after_seconds = Some(seconds);
        self
    }
}
