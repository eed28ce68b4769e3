//! The file that keeps the roster: read at the start, written whole and swapped in by a rename.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::roster::{Roster, RosterError};

/// Its name in the data directory.
const NAME: &str = "roster.json";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RosterFileError {
    /// The system refused.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The text is not a roster. Starting without it would expect too few rows, so nobody does that in silence.
    #[error("cannot use `{}` (move it away to start with an empty roster)", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: RosterError,
    },
}

/// The file, and what was last written to it.
#[derive(Debug)]
pub struct RosterFile {
    path: PathBuf,
    written: String,
}

impl RosterFile {
    /// Opens the file in a data directory, which is made if need be; gives back the roster in it, an empty one if
    /// there is no file.
    ///
    /// # Errors
    /// When the directory or the file cannot be used.
    pub fn open(data_dir: &Path) -> Result<(RosterFile, Roster), RosterFileError> {
        fs::create_dir_all(data_dir).map_err(|source| failed("make directory", data_dir, source))?;
        let path = data_dir.join(NAME);
        let written = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(failed("read", &path, source)),
        };
        let roster = match written.as_str() {
            "" => Roster::default(),
            text => Roster::from_text(text)
                .map_err(|source| RosterFileError::Text { path: path.clone(), source })?,
        };
        Ok((RosterFile { path, written }, roster))
    }

    /// Writes the text if it differs from what the file has: a new file, durable, that then takes the old one's name.
    ///
    /// # Errors
    /// When it cannot be written; the old file stands.
    pub fn save(&mut self, text: String) -> Result<(), RosterFileError> {
        if text == self.written {
            return Ok(());
        }
        replace(&self.path, &text)?;
        self.written = text;
        Ok(())
    }
}

/// Writes a new file, durable, that then takes the old one's name.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), RosterFileError> {
    let new = path.with_extension("json.new");
    let write = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| failed("write", &new, source))?;
    fs::rename(&new, path).map_err(|source| failed("replace", path, source))?;
    if let Some(directory) = path.parent() {
        let sync = File::open(directory).and_then(|directory| directory.sync_all());
        sync.map_err(|source| failed("sync directory", directory, source))?;
    }
    Ok(())
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> RosterFileError {
    RosterFileError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("a/b");
        let (mut file, mut roster) = RosterFile::open(&data_dir).unwrap();
        roster.described("c", vec![], vec![("l".into(), "why".into())], 0);
        file.save(roster.to_text()).unwrap();
        let (_, read) = RosterFile::open(&data_dir).unwrap();
        assert_eq!(read.to_text(), roster.to_text());
        assert!(!data_dir.join("roster.json.new").exists());
    }

    #[test]
    fn a_file_that_is_no_roster_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        fs::write(&path, "{").unwrap();
        let error = RosterFile::open(folder.path()).unwrap_err().to_string();
        let expect = format!("cannot use `{}` (move it away to start with an empty roster)", path.display());
        assert_eq!(error, expect);
    }
}
