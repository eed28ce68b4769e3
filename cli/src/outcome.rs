//! How a command ends: its exit code, and for a failure what people read about it.
//!
//! Scripts act on the codes, so a code never changes its meaning.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use crate::interrupt::Interrupted;

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; for a query: complete enough.
    Done,
    /// The query or operation failed.
    Failed,
    /// Wrong usage.
    Usage,
    /// Answered and printed, but less complete than `--min-completeness`.
    Incomplete,
    /// No server there, or it does not let us in.
    Unreachable,
    /// No usable answer in time.
    Timeout,
    /// The ingest finished, but some rows were rejected.
    Rejected,
    /// A rollout paused.
    Paused,
    /// Interrupted by the user.
    Interrupted,
}

impl Exit {
    /// The number the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Incomplete => 3,
            Exit::Unreachable => 4,
            Exit::Timeout => 5,
            Exit::Rejected => 6,
            Exit::Paused => 7,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// Why a command failed, for people, and the code it ends with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    /// The code.
    pub(crate) exit: Exit,
    /// Short, lower case, names thing, value and limit. Empty: there is nobody left to tell (a closed pipe).
    pub(crate) message: String,
    /// More, in full sentences.
    pub(crate) detail: Option<String>,
    /// The line of SQL with a caret below.
    pub(crate) excerpt: Option<String>,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// Line and column in the SQL, from 1, as the server gave them.
    pub(crate) position: Option<(u32, u32)>,
    /// There was no connection, so the server cannot have seen anything of the request.
    pub(crate) not_sent: bool,
}

/// What every command returns.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure with a message only.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure {
            exit,
            message: message.into(),
            detail: None,
            excerpt: None,
            hint: None,
            position: None,
            not_sent: false,
        }
    }

    /// A failed operation.
    pub(crate) fn failed(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    /// Wrong usage that the argument parser cannot see.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Adds more, in full sentences.
    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Failure {
        self.detail = Some(detail.into());
        self
    }

    /// Everything, as it goes to stderr; the last line is the one to act on.
    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        if self.message.is_empty() {
            return text;
        }
        let _ = writeln!(text, "error: {}", printable(&self.message));
        if let Some(detail) = &self.detail {
            let _ = writeln!(text, "{}", printable(detail));
        }
        if let Some(excerpt) = &self.excerpt {
            let _ = writeln!(text, "{}", printable(excerpt));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {}", printable(hint));
        }
        text
    }
}

/// Text from data or a server, harmless to a terminal: control characters other than line ends become spaces.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::failed(format!("{error:#}"))
    }
}

impl From<io::Error> for Failure {
    /// Writing to stdout failed. A reader that closed the pipe (`| head`) has seen enough, which is no error.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::new(Exit::Done, ""),
            _ if error.get_ref().is_some_and(|inner| inner.is::<Interrupted>()) => Interrupted.into(),
            _ => Failure::failed(format!("write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_ends_with_what_to_do() {
        let mut failure =
            Failure::failed("unknown column \"duraton_ms\"").detail("It is in no leaf.").hint("try x");
        failure.excerpt = Some("select duraton_ms\n       ^".to_owned());
        assert_eq!(
            failure.report(),
            "error: unknown column \"duraton_ms\"\nIt is in no leaf.\nselect duraton_ms\n       ^\nhint: try x\n"
        );
        assert_eq!(Failure::failed("a\u{1b}[31mb").report(), "error: a [31mb\n");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let closed = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((closed.exit, closed.report().as_str()), (Exit::Done, ""));
        assert_eq!(Failure::from(io::Error::other("disk full")).exit, Exit::Failed);
    }
}
