//! The files of a leaf: the one seam between what must survive and the system that keeps it.
//!
//! Everything that a leaf writes below its data directory goes through [`Disk`], so that a simulation can cut the
//! power, fill the disk or fail a sync at any call. Names are relative to the data directory, with `/`; they are made
//! of numbers and fixed words, never of anything a user wrote.
//!
//! What survives: bytes that were appended survive the process; they survive a power cut after [`DiskFile::sync`]
//! returned `Ok`, and a name that was made, renamed or removed does after [`Disk::sync_directory`] did. After a sync
//! that failed nothing is known of the file any more, whatever a later sync says: write a new one (Rebello et al.,
//! "Can Applications Recover from fsync Failures?", ATC 2020).

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::OFlags;

/// The files of one data directory. See the module.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a directory unless it is there.
    ///
    /// # Errors
    /// When the system refuses.
    fn create_directory(&self, directory: &str) -> io::Result<()>;

    /// The names of the files in a directory, in order, without their directory.
    ///
    /// # Errors
    /// When the system refuses; a directory that is not there is [`io::ErrorKind::NotFound`].
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Makes an empty file, in place of one that was there, for appending and reading.
    ///
    /// # Errors
    /// When the system refuses.
    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and for [`DiskFile::sync`], and for nothing else. A sync makes survive what was
    /// written through any handle.
    ///
    /// # Errors
    /// When the system refuses; a file that is not there is [`io::ErrorKind::NotFound`].
    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>>;

    /// All bytes of a file that has `bytes` of them, mapped and not read.
    ///
    /// # Errors
    /// When the system refuses, or the file has another length.
    fn map(&self, path: &str, bytes: u64) -> io::Result<Bytes>;

    /// Gives a file another name, in place of a file that has it.
    ///
    /// # Errors
    /// When the system refuses.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When the system refuses.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes the names in a directory survive a power cut. The data directory itself is the empty name.
    ///
    /// # Errors
    /// When the system cannot say that they do.
    fn sync_directory(&self, directory: &str) -> io::Result<()>;

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// When the system does not say.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Adds the pieces, in order, at the end.
    ///
    /// # Errors
    /// When not all was written; the file may have grown by a part of it.
    fn append(&mut self, pieces: &[&[u8]]) -> io::Result<()>;

    /// Makes all bytes survive a power cut.
    ///
    /// # Errors
    /// When the system cannot say that they do. The file must not be written to again.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to a length.
    ///
    /// # Errors
    /// When the system refuses.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;

    /// Its length.
    ///
    /// # Errors
    /// When the system does not say.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `into` from `offset` on, as far as there is something. Returns how much there was.
    ///
    /// # Errors
    /// When the system refuses.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

/// The disk of this machine.
#[derive(Debug, Clone)]
pub struct OsDisk {
    root: PathBuf,
}

impl OsDisk {
    /// The files below a directory, which must exist.
    pub fn new(root: &Path) -> OsDisk {
        OsDisk { root: root.to_path_buf() }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.clone() } else { self.root.join(name) }
    }
}

/// An open file of this machine.
#[derive(Debug)]
struct OsFile(File);

/// A link in the place of a file is somebody else's file.
fn no_links() -> i32 {
    (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed()
}

impl Disk for OsDisk {
    fn create_directory(&self, directory: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(self.path(directory))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.path(directory))? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(no_links())
            .open(self.path(path))?;
        file.set_len(0)?;
        Ok(Box::new(OsFile(file)))
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).custom_flags(no_links()).open(self.path(path))?;
        Ok(Box::new(OsFile(file)))
    }

    fn map(&self, path: &str, bytes: u64) -> io::Result<Bytes> {
        let file = OpenOptions::new().read(true).custom_flags(no_links()).open(self.path(path))?;
        gannet_shm::map_file(&file, bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(path))
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        File::open(self.path(directory))?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl DiskFile for OsFile {
    fn append(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = slices.as_mut_slice();
        // Leaves out empty pieces, which would look like an end.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.0.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.0.metadata().map(|metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut read = 0;
        while read < into.len() {
            match self.0.read_at(&mut into[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_read_renamed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let disk = OsDisk::new(directory.path());
        disk.create_directory("wal").unwrap();
        disk.create_directory("wal").unwrap();
        let mut file = disk.create("wal/1.new").unwrap();
        file.append(&[b"", b"abc", b"", b"def"]).unwrap();
        file.append(&[]).unwrap();
        file.sync().unwrap();
        assert_eq!(file.bytes().unwrap(), 6);
        file.truncate(5).unwrap();
        file.append(&[b"!"]).unwrap();
        disk.rename("wal/1.new", "wal/1").unwrap();
        disk.sync_directory("wal").unwrap();
        disk.sync_directory("").unwrap();
        assert_eq!(disk.list("wal").unwrap(), ["1"]);
        let mut bytes = [0; 8];
        assert_eq!(disk.open("wal/1").unwrap().read_at(1, &mut bytes).unwrap(), 5);
        assert_eq!(&bytes[..5], b"bcde!");
        assert_eq!(&disk.map("wal/1", 6).unwrap()[..], b"abcde!");
        assert_eq!(disk.map("wal/1", 7).unwrap_err().to_string(), "the file has 6 bytes, not 7");
        assert!(disk.free_bytes().unwrap() > 0);
        disk.remove("wal/1").unwrap();
        assert_eq!(disk.open("wal/1").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.list("blocks").unwrap_err().kind(), io::ErrorKind::NotFound);
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), directory.path().join("wal/2"))
            .unwrap();
        assert!(disk.create("wal/2").is_err(), "a link is not followed");
    }
}
