//! Files that say whom to trust: read whole, checked, and read again when they change.
//!
//! A file that holds a secret must not be readable by everybody. A change that cannot be used keeps what was there
//! before, and is told: a typing mistake must not lock everybody out, and must not let anybody in either.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The largest of these files, bytes; 1 MiB.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// What a secret's file may not allow: a group may read it, nobody else may do anything.
const MODE_FORBIDDEN: u32 = 0o037;

/// Why such a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("file {} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no file.
    #[error("{} is not a regular file", .0.display())]
    NoFile(PathBuf),
    /// It is too large.
    #[error("file {} has {bytes} bytes, limit {FILE_BYTES_MAX}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Others may read or change it.
    #[error("file {} holds a secret and has mode {mode:03o}, must be 640 or less (chmod 600)", .path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not what it must be.
    #[error("file {}: {what}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong; never the secret itself.
        what: String,
    },
}

impl FileError {
    /// A file that is not what it must be. What is said must not hold a secret.
    pub fn content(path: &Path, what: impl fmt::Display) -> FileError {
        FileError::Content { path: path.to_owned(), what: what.to_string() }
    }
}

/// Reads a file that everybody may read.
///
/// # Errors
/// When it cannot be read whole, or is too large.
pub fn read_public(path: &Path) -> Result<Vec<u8>, FileError> {
    read(path, |_| Ok(()))
}

/// Reads a file that holds a secret.
///
/// # Errors
/// When it cannot be read whole, is too large, or others may read or change it.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, FileError> {
    read(path, |mode| match mode & MODE_FORBIDDEN {
        0 => Ok(()),
        _ => Err(FileError::Mode { path: path.to_owned(), mode }),
    })
}

fn read(path: &Path, check: impl FnOnce(u32) -> Result<(), FileError>) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    // Asked before it is opened: a pipe would wait for somebody to write.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(FileError::NoFile(path.to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    // What was opened is what is judged, not what has its name now.
    check(file.metadata().map_err(failed)?.mode() & 0o777)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned(), bytes: bytes.len() as u64 });
    }
    Ok(bytes)
}

/// What tells whether a file has changed. Files that are swapped by a link differ in their inode.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    paths.iter().map(stamp).collect()
}

/// Something that is made of files, and made again when they change.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, FileError> + Send + Sync>,
    /// What is in use, and the files as they were when they were last looked at.
    state: Mutex<(Arc<T>, Vec<Stamp>)>,
}

impl<T> Watched<T> {
    /// Makes it of these files for the first time.
    ///
    /// # Errors
    /// When the files cannot be used.
    pub fn open(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Watched<T>, FileError> {
        // Looked at before they are read: a change in between is then seen the next time.
        let seen = stamps(&paths);
        let current = Arc::new(load()?);
        Ok(Watched { paths, load: Box::new(load), state: Mutex::new((current, seen)) })
    }

    /// What is in use.
    pub fn current(&self) -> Arc<T> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state.0)
    }

    /// Looks at the files; makes it again when they changed, and says whether it did.
    ///
    /// # Errors
    /// When they changed and cannot be used; what was there before stays. The same files are an error only once.
    pub fn refresh(&self) -> Result<bool, FileError> {
        let seen = stamps(&self.paths);
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.1 == seen {
                return Ok(false);
            }
            state.1 = seen;
        }
        let made = Arc::new((self.load)()?);
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = made;
        Ok(true)
    }
}

impl<T> fmt::Debug for Watched<T> {
    /// The files only: what is made of them may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("paths", &self.paths).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn written(folder: &Path, mode: u32, bytes: &[u8]) -> PathBuf {
        let path = folder.join(format!("{mode:o}"));
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn secrets_are_read_when_nobody_else_can() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o400, 0o600, 0o440, 0o640] {
            assert_eq!(read_secret(&written(folder.path(), mode, b"x")).unwrap(), b"x", "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o660, 0o602, 0o601, 0o777] {
            let path = written(folder.path(), mode, b"x");
            let expect = format!(
                "file {} holds a secret and has mode {mode:o}, must be 640 or less (chmod 600)",
                path.display()
            );
            assert_eq!(read_secret(&path).unwrap_err().to_string(), expect);
            assert_eq!(read_public(&path).unwrap(), b"x");
        }
    }

    #[test]
    fn what_is_no_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let error = |path: &Path| read_secret(path).unwrap_err().to_string();
        assert_eq!(error(at), format!("{} is not a regular file", at.display()));
        let gone = at.join("gone");
        let expect =
            format!("file {} cannot be read: No such file or directory (os error 2)", gone.display());
        assert_eq!(error(&gone), expect);
        let large = written(at, 0o600, &vec![b'x'; FILE_BYTES_MAX as usize + 1]);
        assert_eq!(error(&large), format!("file {} has 1048577 bytes, limit 1048576", large.display()));
    }

    #[test]
    fn changes_are_taken_and_mistakes_are_not() {
        fn load(path: &Path) -> Result<String, FileError> {
            let text = String::from_utf8_lossy(&read_secret(path)?).into_owned();
            if text.contains('!') { Err(FileError::content(path, "a mistake")) } else { Ok(text) }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path(), 0o600, b"one");
        let of = path.clone();
        let watched = Watched::open(vec![path.clone()], move || load(&of)).unwrap();
        assert!(!watched.refresh().unwrap());
        std::fs::write(&path, "second").unwrap();
        assert!(watched.refresh().unwrap());
        assert_eq!(*watched.current(), "second");
        std::fs::write(&path, "wrong!").unwrap();
        // The length is the same; the time may be too, on a clock that is coarse.
        let swapped = folder.path().join("swapped");
        std::fs::copy(&path, &swapped).unwrap();
        std::fs::rename(&swapped, &path).unwrap();
        let error = watched.refresh().unwrap_err().to_string();
        assert_eq!(error, format!("file {}: a mistake", path.display()));
        assert!(!watched.refresh().unwrap(), "the same mistake is told once");
        assert_eq!(*watched.current(), "second");
        std::fs::remove_file(&path).unwrap();
        assert!(watched.refresh().is_err());
        assert_eq!(*watched.current(), "second");
        assert!(!format!("{watched:?}").contains("second"));
    }
}
