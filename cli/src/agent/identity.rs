//! Which file is which: device, inode, and a hash of the first bytes.
//!
//! A name says nothing, since rotation renames files; an inode alone neither, since a new file may get the inode of one
//! that was removed. A file shorter than [`HEAD_BYTES`] is known by what it has, and known better once it has grown.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes at the start of a file that tell it from others.
pub(crate) const HEAD_BYTES: usize = 1024;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The device it is on.
    pub(crate) device: u64,
    /// Its inode there.
    pub(crate) inode: u64,
    /// How many bytes are hashed.
    pub(crate) head_bytes: u64,
    /// Their hash.
    pub(crate) head: u64,
}

impl Identity {
    /// Of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Identity> {
        let metadata = file.metadata()?;
        let head = head(file, HEAD_BYTES)?;
        Ok(Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            head_bytes: head.len() as u64,
            head: xxh3_64(&head),
        })
    }

    /// Whether it can be the inode of this file; its first bytes are not looked at.
    pub(crate) fn is_inode_of(&self, metadata: &std::fs::Metadata) -> bool {
        (self.device, self.inode) == (metadata.dev(), metadata.ino())
    }

    /// Whether the open file is this one, perhaps grown.
    pub(crate) fn is_of(&self, file: &File) -> io::Result<bool> {
        Ok(self.is_inode_of(&file.metadata()?) && self.begins(file)?)
    }

    /// Whether the open file still begins as it did.
    pub(crate) fn begins(&self, file: &File) -> io::Result<bool> {
        let known = usize::try_from(self.head_bytes).unwrap_or(HEAD_BYTES).min(HEAD_BYTES);
        let head = head(file, known)?;
        Ok(head.len() == known && xxh3_64(&head) == self.head)
    }
}

/// The first bytes, as many as there are.
fn head(file: &File, bytes: usize) -> io::Result<Vec<u8>> {
    let mut head = vec![0; bytes];
    let length = read_at(file, &mut head, 0)?;
    head.truncate(length);
    Ok(head)
}

/// Fills a buffer from a place in a file, as far as there is something.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], from: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], from + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_known_while_it_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut writer = File::create(&path).unwrap();
        writer.write_all(b"first\n").unwrap();
        let file = File::open(&path).unwrap();
        let young = Identity::of(&file).unwrap();
        assert_eq!(young.head_bytes, 6);
        writer.write_all(&[b'x'; 3000]).unwrap();
        assert!(young.is_of(&file).unwrap());
        let grown = Identity::of(&file).unwrap();
        assert_eq!(grown.head_bytes, 1024);
        // Renamed, it is the same; another file is not, nor is this one written anew.
        std::fs::rename(&path, folder.path().join("a.1")).unwrap();
        assert!(grown.is_of(&File::open(folder.path().join("a.1")).unwrap()).unwrap());
        std::fs::write(&path, "first\n").unwrap();
        assert!(!young.is_of(&File::open(&path).unwrap()).unwrap());
        std::fs::write(folder.path().join("a.1"), "anew").unwrap();
        assert!(!young.is_of(&file).unwrap() && !grown.is_of(&file).unwrap());
    }
}
