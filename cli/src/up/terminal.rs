//! What `gannet up` says: lines on stderr, and on a terminal one line of progress that is redrawn below them.
//!
//! A terminal that went away never stops anything: errors of writing are ignored.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by all tasks of the supervisor.
#[derive(Debug, Clone)]
pub(crate) struct Terminal {
    progress: Arc<Mutex<String>>,
    is_terminal: bool,
}

/// Back to the first column, and clear to the end of the line.
const CLEAR_LINE: &str = "\r\u{1b}[K";

impl Terminal {
    /// Finds out whether stderr is a terminal.
    pub(crate) fn new() -> Terminal {
        Terminal { progress: Arc::default(), is_terminal: io::stderr().is_terminal() }
    }

    /// Progress can be redrawn here.
    pub(crate) fn can_redraw(&self) -> bool {
        self.is_terminal
    }

    /// A line.
    pub(crate) fn say(&self, text: &str) {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let clear = if progress.is_empty() { "" } else { CLEAR_LINE };
        let _ = write!(io::stderr().lock(), "{clear}{text}\n{progress}");
    }

    /// Text on stdout, for those who read what comes out of `up`.
    pub(crate) fn print(&self, text: &str) {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if !progress.is_empty() {
            let _ = write!(io::stderr().lock(), "{CLEAR_LINE}");
        }
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        let _ = write!(io::stderr().lock(), "{progress}");
    }

    /// Redraws the line of progress; an empty text removes it. Nothing happens where there is no terminal.
    pub(crate) fn progress(&self, text: &str) {
        if !self.is_terminal {
            return;
        }
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone_into(&mut progress);
        let _ = write!(io::stderr().lock(), "{CLEAR_LINE}{text}");
    }
}
