//! Asking before something is done that people would not want done by a slip.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::outcome::{Exit, Failure};

/// Whether `--no-input` was said.
static NEVER_ASK: AtomicBool = AtomicBool::new(false);

/// From now on nobody is asked.
pub(crate) fn never_ask() {
    NEVER_ASK.store(true, Ordering::Relaxed);
}

/// Asks on the terminal. Where there is none, nobody can say yes that way.
pub(crate) fn ask(question: &str) -> Result<(), Failure> {
    if NEVER_ASK.load(Ordering::Relaxed) {
        return Err(Failure::usage("this is not confirmed, and --no-input says not to ask")
            .hint("--yes does it without asking, --dry-run says what would be done"));
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage("this is not confirmed, and there is no terminal to ask at")
            .hint("--yes does it without asking, --dry-run says what would be done"));
    }
    let failed = |error: io::Error| Failure::failed(format!("ask on the terminal: {error}"));
    let mut terminal = io::stderr().lock();
    write!(terminal, "{question} [y/N] ").and_then(|()| terminal.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    if is_yes(&answer) { Ok(()) } else { Err(Failure::new(Exit::Failed, "nothing was done")) }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_who_said_so() {
        never_ask();
        let failure = ask("Really?").unwrap_err();
        assert_eq!(failure.message, "this is not confirmed, and --no-input says not to ask");
    }

    #[test]
    fn only_yes_is_yes() {
        assert!(["y\n", "YES", " yes \n"].into_iter().all(is_yes));
        assert!(!["", "\n", "n", "yes please", "yy"].into_iter().any(is_yes));
    }
}
