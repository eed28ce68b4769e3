//! The log file of a part: appended to by the part itself, read along by the supervisor.
//!
//! The part writes to the file directly, so its log does not depend on the supervisor. Warnings and errors are shown
//! on the supervisor's terminal; the rest stays in the file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log larger than this is put aside (as `NAME.1`, replacing the one before) when its part is started.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// What is read at one look; the rest waits for the next.
const LOOK_BYTES: u64 = 1 << 20;
/// A longer line is shown in pieces.
const LINE_BYTES_MAX: usize = 16 << 10;

/// A log being read along.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    read_to: u64,
    begun: Vec<u8>,
}

/// A line that people should see, or that the supervisor acts on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Notice {
    /// A warning or an error, without its time.
    Show(String),
    /// The leaf left its rows in shared memory.
    HandedOver {
        /// How many.
        rows: u64,
        /// How large.
        bytes: u64,
        /// How long it took.
        seconds: f64,
    },
}

impl Log {
    /// Opens the log for a part that is about to start: returns the end to write to as well.
    pub(crate) fn open(path: &Path) -> io::Result<(Log, File)> {
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            let mut aside = path.as_os_str().to_owned();
            aside.push(".1");
            std::fs::rename(path, aside)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let read_to = file.metadata()?.len();
        Ok((Log { path: path.to_owned(), read_to, begun: Vec::new() }, file))
    }

    /// What was written since the last look.
    pub(crate) fn look(&mut self) -> Vec<Notice> {
        let mut new = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read_to))?;
            file.take(LOOK_BYTES).read_to_end(&mut new)
        });
        let Ok(read) = read else { return Vec::new() };
        self.read_to += read as u64;
        let mut notices = Vec::new();
        for byte in new {
            if byte != b'\n' && self.begun.len() < LINE_BYTES_MAX {
                self.begun.push(byte);
                continue;
            }
            notices.extend(notice(&String::from_utf8_lossy(&self.begun)));
            self.begun.clear();
            if byte != b'\n' {
                self.begun.push(byte);
            }
        }
        notices
    }
}

/// The message that a leaf logs at the end of a hand-over.
const HANDED_OVER: &str = "handed over to shared memory";

fn notice(line: &str) -> Option<Notice> {
    if line.contains(HANDED_OVER) {
        let handed = Notice::HandedOver {
            rows: field(line, "rows")?,
            bytes: field(line, "bytes")?,
            seconds: field(line, "seconds")?,
        };
        return Some(handed);
    }
    // `2026-11-21T09:30:00.000000Z  WARN gannet_leaf::restart: text key=value`
    let after_time = line.split_once(' ').map_or("", |(_, rest)| rest.trim_start());
    for level in ["WARN", "ERROR"] {
        if let Some(rest) = after_time.strip_prefix(level).and_then(|rest| rest.strip_prefix(' ')) {
            let text = rest.split_once(": ").map_or(rest, |(_, text)| text);
            let word = if level == "WARN" { "warning" } else { "error" };
            return Some(Notice::Show(printable(&format!("{word}: {text}"))));
        }
    }
    // What ends a program is not written by its log.
    let ending = ["error: ", "hint: ", "thread '"].iter().any(|start| line.starts_with(start));
    ending.then(|| Notice::Show(printable(line)))
}

fn field<T: std::str::FromStr>(line: &str, name: &str) -> Option<T> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_become_notices() {
        let check = |line: &str, expect: Option<Notice>| assert_eq!(notice(line), expect, "{line}");
        let show = |text: &str| Some(Notice::Show(text.to_owned()));
        check(
            "2026-11-21T09:30:00.1Z  WARN gannet_leaf::restart: shared memory refused leaf=\"leaf-0\"",
            show("warning: shared memory refused leaf=\"leaf-0\""),
        );
        check("2026-11-21T09:30:00.1Z ERROR a::b: rows stay open", show("error: rows stay open"));
        check("2026-11-21T09:30:00.1Z  INFO a::b: a WARN inside", None);
        check("error: port in use", show("error: port in use"));
        check("thread 'main' panicked at x.rs:1:1:", show("thread 'main' panicked at x.rs:1:1:"));
        check("", None);
        check(
            "2026-11-21T09:30:00.1Z  INFO gannet_leaf::restart: handed over to shared memory leaf=\"leaf-0\" \
             rows=500123 bytes=61234567 seconds=0.31",
            Some(Notice::HandedOver { rows: 500_123, bytes: 61_234_567, seconds: 0.31 }),
        );
        check("handed over to shared memory rows=x", None);
    }

    #[test]
    fn only_new_lines_are_seen_and_each_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leaf.log");
        std::fs::write(&path, "error: an old one\n").unwrap();
        let (mut log, mut file) = Log::open(&path).unwrap();
        assert_eq!(log.look(), []);
        file.write_all(b"error: fir").unwrap();
        assert_eq!(log.look(), []);
        file.write_all(b"st\nerror: second\n").unwrap();
        assert_eq!(
            log.look(),
            [Notice::Show("error: first".to_owned()), Notice::Show("error: second".to_owned())]
        );
        assert_eq!(log.look(), []);
    }

    #[test]
    fn a_large_log_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leaf.log");
        File::create(&path).unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        Log::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        assert_eq!(std::fs::metadata(folder.path().join("leaf.log.1")).unwrap().len(), LOG_BYTES_MAX + 1);
    }
}
