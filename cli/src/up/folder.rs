//! The folder that `gannet up` keeps everything in: made for its owner alone, used by one supervisor at a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::outcome::Failure;

/// Locked by the supervisor for as long as it lives; holds its process id, for people.
const LOCK_NAME: &str = "up.lock";

/// A folder that this process may use.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Absolute.
    pub(crate) path: PathBuf,
    /// Released by the system when the process ends, however it ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Folder, Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::failed(format!("{what} {}: {error}", path.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| failed("make data directory", &error))?;
        let path = path.canonicalize().map_err(|error| failed("find data directory", &error))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_NAME))
            .map_err(|error| failed("open the lock of data directory", &error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(&path, &mut lock)),
            Err(error) => return Err(failed("lock data directory", &error)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|error| failed("write the lock of data directory", &error))?;
        Ok(Folder { path, _lock: lock })
    }

    /// The leaves to run: `leaf-0` to `leaf-{count - 1}` and every other that has a folder here, because rows live
    /// there. In order of number.
    pub(crate) fn leaves(&self, count: usize) -> Result<Vec<String>, Failure> {
        let failed = |error| Failure::failed(format!("list data directory {}: {error}", self.path.display()));
        let mut numbers: Vec<u64> = (0..count as u64).collect();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("leaf-")?.parse::<u64>().ok());
            // `leaf-007` is not a name that was given here.
            let Some(number) = number.filter(|number| name.to_str() == Some(&format!("leaf-{number}")))
            else {
                continue;
            };
            if entry.path().is_dir() && !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        Ok(numbers.into_iter().map(|number| format!("leaf-{number}")).collect())
    }

    /// Makes the folder of a part.
    pub(crate) fn make_part(&self, part: &str) -> Result<(), Failure> {
        let path = self.path.join(part);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| Failure::failed(format!("make directory {}: {error}", path.display())))
    }
}

fn in_use(path: &Path, lock: &mut File) -> Failure {
    let mut text = String::new();
    let _ = lock.take(32).read_to_string(&mut text);
    let who = match text.trim().parse::<u32>() {
        Ok(pid) => format!("process {pid}"),
        Err(_) => "another process".to_owned(),
    };
    Failure::failed(format!("data directory {} is in use by `gannet up` ({who})", path.display()))
        .hint("stop that one first, or choose another directory with --data-dir DIR and another port with --http ADDR")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_used_once() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/data");
        let folder = Folder::lock(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(
            Folder::lock(&path).unwrap_err().message,
            format!(
                "data directory {} is in use by `gannet up` (process {})",
                folder.path.display(),
                std::process::id()
            )
        );
        drop(folder);
        Folder::lock(&path).unwrap();
        let file = parent.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(
            Folder::lock(&file).unwrap_err().message,
            format!("make data directory {}: File exists (os error 17)", file.display())
        );
    }

    #[test]
    fn leaves_with_rows_are_not_forgotten() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::lock(parent.path()).unwrap();
        assert_eq!(folder.leaves(2).unwrap(), ["leaf-0", "leaf-1"]);
        for name in ["leaf-0", "leaf-10", "leaf-3", "leaf-007", "leaf-x"] {
            folder.make_part(name).unwrap();
        }
        std::fs::write(parent.path().join("leaf-5"), "a file").unwrap();
        assert_eq!(folder.leaves(2).unwrap(), ["leaf-0", "leaf-1", "leaf-3", "leaf-10"]);
    }
}
