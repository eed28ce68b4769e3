//! One process per data directory.
//!
//! The lock is an flock on the file `lock` inside the directory. It goes away with its process, however that
//! ends, so there is no stale lock. The file itself stays: removing it would let two processes lock two
//! files of the same name.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::ShmError;
use crate::segment::kind_of;

/// The ownership of a data directory, from [`DirectoryLock::acquire`] to drop.
#[derive(Debug)]
pub struct DirectoryLock {
    directory: PathBuf,
    _file: OwnedFd,
}

impl DirectoryLock {
    /// Locks `directory`, which must exist, without waiting. The lock file then holds our process id.
    pub fn acquire(directory: &Path) -> Result<DirectoryLock, ShmError> {
        let path = directory.join("lock");
        let failed = |action: &'static str, errno: Errno| ShmError::system(action, path.display(), errno);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => file,
            Err(Errno::LOOP) => return Err(ShmError::LockFile { path, kind: "symbolic link" }),
            Err(Errno::ISDIR) => return Err(ShmError::LockFile { path, kind: "directory" }),
            Err(errno) => return Err(failed("open lock file", errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| failed("read state of lock file", errno))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            return Err(ShmError::LockFile { path, kind: kind_of(kind) });
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let owner_pid = read_pid(&file);
                return Err(ShmError::Locked { directory: directory.to_path_buf(), owner_pid });
            }
            Err(errno) => return Err(failed("lock file", errno)),
        }
        let pid = format!("{}\n", std::process::id());
        rustix::fs::ftruncate(&file, 0).map_err(|errno| failed("empty lock file", errno))?;
        // The text only helps people; a short write of a few bytes costs them the hint and nothing else.
        rustix::io::pwrite(&file, pid.as_bytes(), 0).map_err(|errno| failed("write lock file", errno))?;
        Ok(DirectoryLock { directory: directory.to_path_buf(), _file: file })
    }

    /// The directory that is locked.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

fn read_pid(file: &OwnedFd) -> Option<u32> {
    let mut text = [0u8; 16];
    let read_bytes = rustix::io::pread(file, &mut text[..], 0).ok()?;
    std::str::from_utf8(text.get(..read_bytes)?).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_has_one_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let lock = DirectoryLock::acquire(path).unwrap();
        assert_eq!(lock.directory(), path);
        let file = path.join("lock");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(
            DirectoryLock::acquire(path).unwrap_err().to_string(),
            format!("directory `{}` is in use by process {}", path.display(), std::process::id())
        );
        for unreadable in ["", "no pid", "99999999999"] {
            std::fs::write(&file, unreadable).unwrap();
            assert_eq!(
                DirectoryLock::acquire(path).unwrap_err().to_string(),
                format!("directory `{}` is in use by another process", path.display())
            );
        }
        drop(lock);
        // What an earlier owner left, longer than ours, must not show behind our own number.
        std::fs::write(&file, "1234567890123").unwrap();
        let _lock = DirectoryLock::acquire(path).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn only_a_plain_file_is_a_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let file = path.join("lock");
        let check = |kind: &str| {
            assert_eq!(
                DirectoryLock::acquire(path).unwrap_err().to_string(),
                format!("lock file `{}` is a {kind}, only a regular file is accepted", file.display())
            );
        };
        std::os::unix::fs::symlink(path.join("elsewhere"), &file).unwrap();
        check("symbolic link");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        check("directory");
        std::fs::remove_dir(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        check("named pipe");
        let missing = path.join("missing");
        assert_eq!(
            DirectoryLock::acquire(&missing).unwrap_err().to_string(),
            format!("open lock file `{}`", missing.join("lock").display())
        );
    }
}
