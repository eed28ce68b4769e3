//! Lines from a pipe, or from a terminal that cannot be drawn on: no editing, no completion.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::keys::Keys;
use super::statements::is_whole;
use crate::outcome::Failure;

/// What comes after the first line of a statement.
const GOES_ON: &str = "    -> ";
/// A statement that is longer is refused; the server takes much less.
const STATEMENT_BYTES_MAX: usize = 1 << 20;
/// How often Ctrl-C is looked for while nobody types.
const LOOKED_EVERY: Duration = Duration::from_millis(50);

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Typed {
    /// Statements and meta commands, the last of which may lack its end only where the input ends.
    Text(String),
    /// Ctrl-C, and whether it ends the shell.
    Interrupted {
        /// It was the second within a second.
        is_second: bool,
    },
    /// Ctrl-D, or the end of the pipe.
    End,
}

/// Reads lines of stdin.
#[derive(Debug)]
pub(super) struct LineReader {
    lines: Receiver<io::Result<String>>,
    /// A line is read when it is asked for: other programs on the terminal read lines too.
    ask: Sender<()>,
    is_asked: bool,
    /// Prompts are for people.
    has_prompt: bool,
}

impl LineReader {
    /// Reads from now on, with prompts or without.
    pub(super) fn start(has_prompt: bool) -> LineReader {
        let (ask, asked) = channel();
        let (sender, lines) = channel();
        std::thread::spawn(move || send_lines(&asked, &sender));
        LineReader { lines, ask, is_asked: false, has_prompt }
    }

    /// Reads until something can be run, to go on with what was begun.
    pub(super) fn read(&mut self, prompt: &str, begun: &str, keys: &Keys) -> Result<Typed, Failure> {
        let mut text = begun.to_owned();
        if !text.is_empty() {
            text.push('\n');
        }
        loop {
            if self.has_prompt {
                let mut out = io::stdout().lock();
                out.write_all(if text.is_empty() { prompt } else { GOES_ON }.as_bytes())?;
                out.flush()?;
            }
            let line = match self.line(keys) {
                Err(is_second) => return Ok(Typed::Interrupted { is_second }),
                Ok(line) => line,
            };
            let Some(line) = line else {
                return Ok(if text.trim().is_empty() { Typed::End } else { Typed::Text(text) });
            };
            let line = line.map_err(|error| Failure::failed(format!("read stdin: {error}")))?;
            text.push_str(&line);
            if text.len() > STATEMENT_BYTES_MAX {
                return Err(Failure::usage(format!(
                    "a statement of stdin exceeds the limit of {STATEMENT_BYTES_MAX} bytes"
                )));
            }
            if text.trim().is_empty() {
                text.clear();
            } else if is_whole(&text) {
                return Ok(Typed::Text(text));
            }
        }
    }

    /// The next line; nothing after the last. An error says that Ctrl-C was pressed, and whether for the second time.
    fn line(&mut self, keys: &Keys) -> Result<Option<io::Result<String>>, bool> {
        if !std::mem::replace(&mut self.is_asked, true) {
            // Nobody listens after the last line, which the channel of lines says.
            let _ = self.ask.send(());
        }
        loop {
            match self.lines.recv_timeout(LOOKED_EVERY) {
                Ok(line) => {
                    self.is_asked = false;
                    return Ok(Some(line));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(is_second) = keys.take_press() {
                        return Err(is_second);
                    }
                }
            }
        }
    }
}

/// A line each time that one is asked for, until there are no more.
fn send_lines(asked: &Receiver<()>, sender: &Sender<io::Result<String>>) {
    while asked.recv().is_ok() {
        let mut bytes = Vec::new();
        // One byte more than is taken tells a line that is too long from one that just fits.
        let read = io::stdin().lock().take(STATEMENT_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes);
        let line = match read {
            Ok(0) => return,
            Ok(_) => String::from_utf8(bytes)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a line is not UTF-8")),
            Err(error) => Err(error),
        };
        if sender.send(line).is_err() {
            return;
        }
    }
}
