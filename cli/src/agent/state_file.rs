//! Keeps the book on disk, whole or not at all.
//!
//! A new copy is written beside the old one, synced, and put in its place by renaming; the folder is synced, and the copy
//! before is kept under `.previous`. The first line holds a checksum of the rest, so that a torn or emptied file is seen.
//! A lock beside it keeps a second agent away, which would give out the same numbers.
//!
//! When only the previous copy can be read, it does not know what was intended after it. Going on from there under the
//! same producer could give a number to other lines, and the server would take them for duplicates: lines would be lost.
//! So the agent goes on under a new name; lines sent since that copy are then counted twice, and it says so.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use xxhash_rust::xxh3::xxh3_64;

use crate::agent::book::Book;
use crate::outcome::Failure;

/// First words of the file, and the version of what follows.
const MAGIC: &str = "gannet-agent-state 1";
/// A larger file was not written by this.
const BYTES_MAX: u64 = 256 << 20;

/// The file that keeps the book.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    /// Held as long as the agent lives.
    _lock: File,
}

/// What was found at the start.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// No book was ever kept here.
    Nothing,
    /// The book as it was saved last.
    Book(Box<Book>),
    /// The copy before the last, and why the last cannot be read.
    Previous(Box<Book>, String),
}

/// Why a copy cannot be read.
#[derive(Debug)]
enum Unread {
    Missing,
    Damaged(String),
}

impl StateFile {
    /// Takes possession of the file and reads what it holds.
    ///
    /// # Errors
    /// When another agent has it, or neither copy can be read.
    pub(crate) fn open(path: &Path) -> Result<(StateFile, Found), Failure> {
        let shown = path.display();
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|error| Failure::failed(format!("create folder {}: {error}", folder.display())))?;
        }
        let lock_path = beside(path, ".lock");
        let failed = |error: io::Error| Failure::failed(format!("lock state file {shown}: {error}"));
        let lock = OpenOptions::new().create(true).append(true).open(&lock_path).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Failure::failed(format!("state file {shown} is in use by another agent"))
                    .hint("stop the other agent, or name another file with --state-file"));
            }
            Err(error) => return Err(failed(error.into())),
        }
        let file = StateFile { path: path.to_owned(), _lock: lock };
        let found = match (read(path), read(&beside(path, ".previous"))) {
            (Ok(book), _) => Found::Book(Box::new(book)),
            (Err(Unread::Missing), Err(Unread::Missing)) => Found::Nothing,
            (Err(why), Ok(book)) => Found::Previous(Box::new(book), why.text()),
            (Err(why), Err(_)) => {
                let message = format!("state file {shown}: {}", why.text());
                return Err(Failure::failed(message).hint(
                    "remove it to begin anew (--read-from says where); lines sent before may count twice then",
                ));
            }
        };
        Ok((file, found))
    }

    /// Puts a new copy in the place of the last one; when this returns, it survives a power cut.
    pub(crate) fn save(&self, book: &[u8]) -> io::Result<()> {
        let fresh = beside(&self.path, ".new");
        let mut file = File::create(&fresh)?;
        writeln!(file, "{MAGIC} {:016x}", xxh3_64(book))?;
        file.write_all(book)?;
        file.sync_data()?;
        drop(file);
        let previous = beside(&self.path, ".previous");
        match std::fs::remove_file(&previous).and_then(|()| std::fs::hard_link(&self.path, &previous)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // There was no previous one yet; and nothing to keep at the very first time.
                match std::fs::hard_link(&self.path, &previous) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    linked => linked?,
                }
            }
            linked => linked?,
        }
        std::fs::rename(&fresh, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Unread {
    fn text(self) -> String {
        match self {
            Unread::Missing => "it is gone".to_owned(),
            Unread::Damaged(why) => why,
        }
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn read(path: &Path) -> Result<Book, Unread> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unread::Missing),
        Err(error) => return Err(Unread::Damaged(error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(|error| Unread::Damaged(error.to_string()))?;
    let damaged = |why: &str| Unread::Damaged(why.to_owned());
    if bytes.is_empty() {
        return Err(damaged("it is empty"));
    }
    let end = memchr::memchr(b'\n', &bytes).ok_or_else(|| damaged("it has no first line"))?;
    let (first, rest) = bytes.split_at(end + 1);
    let text = &rest;
    let first = String::from_utf8_lossy(first);
    let sum =
        first.trim_end().strip_prefix(MAGIC).ok_or_else(|| damaged("it is no state of this version"))?;
    if sum.trim() != format!("{:016x}", xxh3_64(text)) {
        return Err(damaged("its checksum is wrong"));
    }
    Book::from_text(text).map_err(Unread::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::book::tests::IDENTITY;

    fn book(table: &str) -> (Book, Vec<u8>) {
        let mut book = Book::new(table, "p".to_owned());
        book.open(1, "a.log".to_owned(), IDENTITY, 7);
        let text = book.text().unwrap();
        (book, text)
    }

    fn found(path: &Path) -> Found {
        StateFile::open(path).unwrap().1
    }

    #[test]
    fn what_was_saved_last_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new folder").join("agent.state");
        let (file, nothing) = StateFile::open(&path).unwrap();
        assert_eq!(nothing, Found::Nothing);
        let second = StateFile::open(&path).unwrap_err();
        assert_eq!(second.message, format!("state file {} is in use by another agent", path.display()));
        for table in ["a", "b", "c"] {
            file.save(&book(table).1).unwrap();
        }
        drop(file);
        assert_eq!(found(&path), Found::Book(Box::new(book("c").0)));
    }

    #[test]
    fn a_damaged_file_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (file, _) = StateFile::open(&path).unwrap();
        file.save(&book("a").1).unwrap();
        file.save(&book("b").1).unwrap();
        drop(file);
        let whole = std::fs::read(&path).unwrap();
        let check = |bytes: Option<&[u8]>, why: &str| {
            match bytes {
                Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            assert_eq!(found(&path), Found::Previous(Box::new(book("a").0), why.to_owned()));
        };
        check(Some(b""), "it is empty");
        check(Some(&whole[..whole.len() - 1]), "its checksum is wrong");
        check(Some(b"gannet"), "it has no first line");
        check(Some(b"other\n"), "it is no state of this version");
        check(None, "it is gone");
        std::fs::write(&path, "").unwrap();
        std::fs::write(beside(&path, ".previous"), "").unwrap();
        let refused = StateFile::open(&path).unwrap_err();
        assert_eq!(refused.message, format!("state file {}: it is empty", path.display()));
    }
}
