//! Segments as files under `/dev/shm`: creating, opening behind gates, removing.
//!
//! The life of a segment: [`SegmentWriter::create`] makes the name; the writer fills it and finishes; later
//! processes open it, one at a time; somebody unlinks it. A writer that is dropped unfinished takes its segment
//! with it.
//!
//! Invariants:
//! - Whoever writes, maps or takes a segment holds an exclusive flock on it for as long as it does, so memory
//!   that is mapped is never written, not even by another part of the same process.
//! - The size of a segment is fixed when it is made.
//! - Bytes get into a segment by calls that can fail, never through a mapping, so a full `/dev/shm` is an error and
//!   not a SIGBUS. Reserving memory first would say so earlier, and made a hand-over on two threads some percent slower.
//! - A finished segment has memory behind every byte, so its readers need none.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::shm;
use shared_memory::{ShmemConf, ShmemError};

use crate::error::ShmError;
use crate::holes;
use crate::name::SegmentName;

/// Where Linux keeps the names of shared memory.
pub(crate) const DIRECTORY: &str = "/dev/shm";
/// A signal costs the work of one piece and not of all. Larger and smaller ones measured the same.
const WRITE_BYTES: usize = 1 << 20;
/// The most an address can count, and a slice may hold.
const SEGMENT_BYTES_MAX: u64 = isize::MAX as u64;

/// A segment that is being filled.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    name: SegmentName,
    file: OwnedFd,
    identity: Identity,
    size_bytes: u64,
    finished: bool,
}

/// Which file a name led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// A segment that exists, is ours alone, and is locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) name: SegmentName,
    pub(crate) file: OwnedFd,
    pub(crate) identity: Identity,
    pub(crate) size_bytes: u64,
}

impl SegmentWriter {
    /// Makes the segment `name` of `size_bytes`, mode 0600. It takes memory when it is written.
    /// A name that is taken is [`ShmError::Exists`]; room that is not there now is [`ShmError::NoSpace`], and
    /// then nothing of the segment stays behind.
    pub(crate) fn create(name: &SegmentName, size_bytes: u64) -> Result<SegmentWriter, ShmError> {
        let size = match usize::try_from(size_bytes) {
            Ok(size) if size_bytes > 0 && size_bytes <= SEGMENT_BYTES_MAX => size,
            _ => {
                return Err(ShmError::SegmentBytes {
                    name: name.clone(),
                    bytes: size_bytes,
                    limit_bytes: SEGMENT_BYTES_MAX,
                });
            }
        };
        // Writing would find out as well, but only after it took all the memory there is.
        let free_bytes = available_bytes()?;
        if size_bytes > free_bytes {
            return Err(ShmError::NoSpace {
                name: name.clone(),
                bytes: size_bytes,
                available_bytes: free_bytes,
            });
        }
        match ShmemConf::new().os_id(name.as_str()).size(size).create() {
            // The descriptor and the writable map close here; the name is ours to keep or to remove.
            Ok(mut created) => created.set_owner(false),
            Err(ShmemError::MappingIdExists) => return Err(ShmError::Exists { name: name.clone() }),
            Err(source) => return Err(ShmError::Create { name: name.clone(), source }),
        };
        let opened = open_exclusive(name).and_then(|opened| match opened.size_bytes == size_bytes {
            true => Ok(opened),
            false => Err(ShmError::Replaced { name: name.clone() }),
        });
        let OpenSegment { file, identity, .. } = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // We made the name a moment ago. If somebody took it from us, the first error says so.
                let _ = unlink(name);
                return Err(error);
            }
        };
        // From here on, dropping the writer removes the name.
        Ok(SegmentWriter { name: name.clone(), file, identity, size_bytes, finished: false })
    }

    /// The name of the segment.
    pub(crate) fn name(&self) -> &SegmentName {
        &self.name
    }

    /// The size of the segment.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Copies `bytes` to `offset`. Nothing is written when they do not fit.
    pub(crate) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ShmError> {
        check_bounds(&self.name, self.size_bytes, offset, bytes)?;
        let mut at = offset;
        for piece in bytes.chunks(WRITE_BYTES) {
            write_all(&self.file, at, piece).map_err(|errno| self.failed("write segment", errno))?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Leaves the segment to whoever opens it next. What was never written is zero.
    pub(crate) fn finish(mut self) -> Result<(), ShmError> {
        let filled = match holes::is_whole(&self.file, self.size_bytes) {
            Ok(true) => Ok(()),
            Ok(false) => holes::fill(&self.file, self.size_bytes),
            Err(errno) => Err(errno),
        };
        filled.map_err(|errno| self.failed("fill segment", errno))?;
        // A name that vanished or was replaced meanwhile would leave the bytes to nobody.
        match identity_of(&self.name)? {
            Some(identity) if identity == self.identity => {
                self.finished = true;
                Ok(())
            }
            Some(_) => Err(ShmError::Replaced { name: self.name.clone() }),
            None => Err(ShmError::Missing { name: self.name.clone() }),
        }
    }

    fn failed(&self, action: &'static str, errno: Errno) -> ShmError {
        match errno {
            // A memory limit of the process's group shows as ENOMEM.
            Errno::NOSPC | Errno::NOMEM => ShmError::NoSpace {
                name: self.name.clone(),
                bytes: self.size_bytes,
                available_bytes: available_bytes().unwrap_or(0),
            },
            errno => ShmError::system(action, &self.name, errno),
        }
    }
}

impl OpenSegment {
    /// Fills `into` from `offset` on, as far as the segment goes. Returns how much there was.
    pub(crate) fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, ShmError> {
        read_all(&self.file, offset, into)
            .map_err(|errno| ShmError::system("read segment", &self.name, errno))
    }

    /// Writes all of `bytes` at `offset`. Nothing is written when they do not fit.
    pub(crate) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ShmError> {
        check_bounds(&self.name, self.size_bytes, offset, bytes)?;
        write_all(&self.file, offset, bytes)
            .map_err(|errno| ShmError::system("write segment", &self.name, errno))
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody is left to tell. What stays behind is found by the next listing of names.
            let _ = unlink_same(&self.name, self.identity);
        }
    }
}

/// Removes the name of a segment. Mappings of it stay valid; its memory goes with the last of them.
pub(crate) fn unlink(name: &SegmentName) -> Result<(), ShmError> {
    match shm::unlink(name.as_str()) {
        Ok(()) => Ok(()),
        Err(Errno::NOENT) => Err(ShmError::Missing { name: name.clone() }),
        Err(errno) => Err(ShmError::system("unlink segment", name, errno)),
    }
}

/// Removes the name only when it still leads to the file that was opened under it.
pub(crate) fn unlink_same(name: &SegmentName, identity: Identity) -> Result<(), ShmError> {
    match identity_of(name)? {
        Some(found) if found == identity => unlink(name),
        Some(_) => Err(ShmError::Replaced { name: name.clone() }),
        None => Err(ShmError::Missing { name: name.clone() }),
    }
}

/// How many bytes `/dev/shm` can still hold; without a limit on it, more than anybody has.
pub(crate) fn available_bytes() -> Result<u64, ShmError> {
    let stat = rustix::fs::statvfs(DIRECTORY)
        .map_err(|errno| ShmError::system("read free space of", DIRECTORY, errno))?;
    // A tmpfs that was mounted without a limit reports no blocks at all.
    if stat.f_blocks == 0 {
        return Ok(u64::MAX);
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The names of all files in `/dev/shm` that are text.
pub(crate) fn file_names() -> Result<Vec<String>, ShmError> {
    let failed = |source: std::io::Error| ShmError::system("list", DIRECTORY, source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(DIRECTORY).map_err(failed)? {
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Opens a segment for reading and writing behind the gates, and locks it.
pub(crate) fn open_exclusive(name: &SegmentName) -> Result<OpenSegment, ShmError> {
    // Opening a pipe for reading alone would wait for its writer, so this opening comes first.
    let file = open(name, shm::OFlags::RDWR)?;
    check_facts(name, &Facts::read(name, &file)?, rustix::process::geteuid().as_raw())?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(ShmError::Busy { name: name.clone() }),
        Err(errno) => return Err(ShmError::system("lock segment", name, errno)),
    }
    // Read again under the lock: only now nobody else gives the segment its size, or takes its name.
    let facts = Facts::read(name, &file)?;
    check_facts(name, &facts, rustix::process::geteuid().as_raw())?;
    Ok(OpenSegment { name: name.clone(), file, identity: facts.identity, size_bytes: facts.size_bytes })
}

/// Opens the same segment once more, only for reading.
pub(crate) fn open_read_only(name: &SegmentName, same: Identity) -> Result<OwnedFd, ShmError> {
    let file = open(name, shm::OFlags::RDONLY)?;
    if Facts::read(name, &file)?.identity != same {
        return Err(ShmError::Replaced { name: name.clone() });
    }
    Ok(file)
}

fn open(name: &SegmentName, access: shm::OFlags) -> Result<OwnedFd, ShmError> {
    // `shm` has no words of its own for these two; the system knows one set of flags. NONBLOCK changes
    // nothing for regular files and keeps a planted pipe from stopping us.
    let flags = access | shm::OFlags::from_bits_retain((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits());
    let not_regular = |kind| Err(ShmError::NotRegular { name: name.clone(), kind });
    match shm::open(name.as_str(), flags, Mode::empty()) {
        Ok(file) => Ok(file),
        Err(Errno::NOENT) => Err(ShmError::Missing { name: name.clone() }),
        Err(Errno::LOOP) => not_regular(kind_of(FileType::Symlink)),
        Err(Errno::ISDIR) => not_regular(kind_of(FileType::Directory)),
        Err(Errno::NXIO) => not_regular(kind_of(FileType::Socket)),
        Err(errno) => Err(ShmError::system("open segment", name, errno)),
    }
}

fn identity_of(name: &SegmentName) -> Result<Option<Identity>, ShmError> {
    match open(name, shm::OFlags::RDONLY) {
        Ok(file) => Ok(Some(Facts::read(name, &file)?.identity)),
        Err(ShmError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What fstat says of an open file.
struct Facts {
    kind: FileType,
    owner_uid: u32,
    mode: u32,
    links: u64,
    size_bytes: u64,
    identity: Identity,
}

impl Facts {
    fn read(name: &SegmentName, file: &OwnedFd) -> Result<Facts, ShmError> {
        let stat = rustix::fs::fstat(file)
            .map_err(|errno| ShmError::system("read state of segment", name, errno))?;
        #[allow(clippy::useless_conversion, reason = "the field has 32 bits on some machines")]
        let links = u64::from(stat.st_nlink);
        Ok(Facts {
            kind: FileType::from_raw_mode(stat.st_mode),
            owner_uid: stat.st_uid,
            mode: stat.st_mode & 0o7777,
            links,
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            identity: Identity { device: stat.st_dev, inode: stat.st_ino },
        })
    }
}

fn check_facts(name: &SegmentName, facts: &Facts, uid: u32) -> Result<(), ShmError> {
    let name = || name.clone();
    if facts.kind != FileType::RegularFile {
        return Err(ShmError::NotRegular { name: name(), kind: kind_of(facts.kind) });
    }
    if facts.owner_uid != uid {
        return Err(ShmError::Owner { name: name(), found: facts.owner_uid, expected: uid });
    }
    if facts.mode & 0o077 != 0 {
        return Err(ShmError::Mode { name: name(), mode: facts.mode });
    }
    if facts.links != 1 {
        return Err(ShmError::Links { name: name(), links: facts.links });
    }
    Ok(())
}

pub(crate) fn kind_of(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "regular file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "named pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "file of unknown kind",
    }
}

fn check_bounds(name: &SegmentName, size: u64, start: u64, bytes: &[u8]) -> Result<(), ShmError> {
    match start.checked_add(bytes.len() as u64) {
        Some(end) if end <= size => Ok(()),
        end => Err(ShmError::OutOfBounds { name: name.clone(), start, end: end.unwrap_or(u64::MAX), size }),
    }
}

/// Writes all of `bytes` at `at`.
pub(crate) fn write_all(file: impl AsFd, mut at: u64, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&file, bytes, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => {
                at += written as u64;
                bytes = bytes.get(written..).unwrap_or(&[]);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Fills `bytes` from `at` as far as the file goes, and returns how much there was.
fn read_all(file: impl AsFd, at: u64, bytes: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..)
        && !rest.is_empty()
    {
        match rustix::io::pread(&file, rest, at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
