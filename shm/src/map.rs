//! Segments and files as memory, read-only: the one home of `unsafe`.
//!
//! A [`Mapping`] hands out [`Region`]s, each the only one over its range. A region hands out [`Bytes`] without
//! copying, from which callers make their own views. A region that was told to expire gives its memory back
//! to the system when the last of these is gone.
//!
//! There is no way to look at a whole mapping at once: a reference to bytes exists only inside a region that
//! keeps them as they are. A region lies only where the segment has memory, because reading where it has none
//! would take some, and a full `/dev/shm` would end the process.
//!
//! A file is mapped whole by [`map_file`], as bytes without regions; its own comments say what it rests on.
//!
//! Why reading a segment is sound, in four steps:
//! 1. The map is made once, lives as long as its `Mapping`, and every region holds the mapping alive.
//! 2. No other process is in: the segment belongs to our user with mode 0600, and other processes of the
//!    same user leave it alone (the crate's head says so).
//! 3. In this process, whoever opens a segment through this crate holds its exclusive flock, so no
//!    writer and no second mapping exists beside this one.
//! 4. The mapping itself changes bytes only by punching holes, and only in ranges that are marked as
//!    released, which no region covers and none ever will.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::claims::{Claims, Conflict, whole_pages};
use crate::error::ShmError;
use crate::holes;
use crate::name::SegmentName;
use crate::region::{Region, RegionEnd};
use crate::segment::{self, Identity};

/// A segment mapped read-only, and locked for as long as it or one of its regions lives.
pub(crate) struct Mapping {
    name: SegmentName,
    /// The map, as a pointer: a reference to all of it would cover memory that is being given back.
    memory: MmapRaw,
    /// Holds the lock, and punches the holes.
    file: OwnedFd,
    identity: Identity,
    /// No hole was there when the segment was opened. Those that come later are not claimed.
    whole: bool,
    claims: Mutex<Claims>,
}

impl Mapping {
    /// Maps the segment `name`, which must be ours alone, in use by nobody, and of exactly `expected_bytes`.
    /// Takes as long for a large segment as for a small one.
    pub(crate) fn open(name: &SegmentName, expected_bytes: u64) -> Result<Arc<Mapping>, ShmError> {
        let opened = segment::open_exclusive(name)?;
        let size = match usize::try_from(opened.size_bytes) {
            Ok(size) if size > 0 && opened.size_bytes == expected_bytes => size,
            _ => {
                return Err(ShmError::Size {
                    name: name.clone(),
                    found: opened.size_bytes,
                    expected: expected_bytes,
                });
            }
        };
        // A map of a descriptor that cannot write can never be made writable, not even by mistake.
        let read_only = segment::open_read_only(name, opened.identity)?;
        let memory = MmapOptions::new()
            .len(size)
            .map_raw_read_only(&read_only)
            .map_err(|source| ShmError::system("map segment", name, source))?;
        // People's data does not belong into core dumps. A kernel that cannot do this is no reason to stop.
        let _ = memory.advise(Advice::DontDump);
        let whole = holes::is_whole(&opened.file, opened.size_bytes)
            .map_err(|errno| ShmError::system("read state of segment", name, errno))?;
        Ok(Arc::new(Mapping {
            name: name.clone(),
            memory,
            file: opened.file,
            identity: opened.identity,
            whole,
            claims: Mutex::default(),
        }))
    }

    /// The name of the segment.
    pub(crate) fn name(&self) -> &SegmentName {
        &self.name
    }

    /// The size of the segment, which is never zero.
    pub(crate) fn size_bytes(&self) -> usize {
        self.memory.len()
    }

    /// How much memory the segment takes now; less than its size after regions expired.
    #[cfg(test)]
    pub(crate) fn resident_bytes(&self) -> Result<u64, ShmError> {
        let stat = rustix::fs::fstat(&self.file)
            .map_err(|errno| ShmError::system("read state of segment", &self.name, errno))?;
        // The unit of st_blocks is always 512 bytes.
        Ok(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512))
    }

    /// The one region over `range`, as long as it or its bytes live. A range that is empty, outside the
    /// segment, overlaps a region in use, was given back or never written is an error.
    pub(crate) fn region(self: &Arc<Self>, range: Range<usize>) -> Result<Region, ShmError> {
        let (name, start, end) = (|| self.name.clone(), range.start as u64, range.end as u64);
        if range.start >= range.end || range.end > self.size_bytes() {
            return Err(ShmError::OutOfBounds { name: name(), start, end, size: self.size_bytes() as u64 });
        }
        // Memory that is there now stays until somebody claims it and releases it, which the claim would see.
        let memory = self.check_memory(start..end);
        let claimed = match memory {
            Ok(()) => self.claims().claim(&range),
            Err(_) => self.claims().check(&range),
        };
        match claimed {
            Ok(()) => memory?,
            Err(Conflict::InUse) => return Err(ShmError::Claimed { name: name(), start, end }),
            Err(Conflict::Released) => return Err(ShmError::Released { name: name(), start, end }),
        }
        let (at, mapping) = (range.start, Arc::clone(self));
        let claim = Claim { mapping: Arc::clone(self), range };
        Ok(Region::new(mapping, at, claim, Claim::end))
    }

    fn check_memory(&self, range: Range<u64>) -> Result<(), ShmError> {
        if self.whole {
            return Ok(());
        }
        let name = || self.name.clone();
        match holes::first_hole(&self.file, &range) {
            Ok(None) => Ok(()),
            Ok(Some(hole)) => Err(ShmError::Hole { name: name(), start: range.start, end: range.end, hole }),
            Err(errno) => Err(ShmError::system("look for holes in segment", &self.name, errno)),
        }
    }

    /// From now on the name of the segment goes when no region is in use and every region there was has
    /// expired. Before the first region it stays.
    pub(crate) fn unlink_when_empty(&self) {
        if self.claims().unlink_when_empty() {
            self.unlink();
        }
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        // Every call on claims leaves them whole or does not return, so a poisoned lock means nothing here.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, range: &Range<usize>) {
        // The order matters: after this line the range can never be claimed again, so nobody can come to
        // look at it while the hole is punched.
        let should_unlink = self.claims().release(range);
        let pages = whole_pages(range, self.size_bytes(), rustix::param::page_size());
        if !pages.is_empty() {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let (start, bytes) = (pages.start as u64, pages.len() as u64);
            // Other errors than a signal cost memory until the whole segment goes, and never truth.
            while rustix::fs::fallocate(&self.file, flags, start, bytes) == Err(Errno::INTR) {}
        }
        if should_unlink {
            self.unlink();
        }
    }

    fn unlink(&self) {
        // Nobody is left to tell. A name that stays behind is found by the next listing of names.
        let _ = segment::unlink_same(&self.name, self.identity);
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("name", &self.name)
            .field("size_bytes", &self.size_bytes())
            .finish_non_exhaustive()
    }
}

/// The use of a range; it ends with [`Claim::end`], which takes it. One that is dropped otherwise keeps its range in use.
struct Claim {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl Claim {
    fn end(self, end: RegionEnd) {
        match end {
            RegionEnd::Expired => self.mapping.release(&self.range),
            RegionEnd::Kept => self.mapping.claims().keep(&self.range),
        }
    }
}

impl AsRef<[u8]> for Claim {
    fn as_ref(&self) -> &[u8] {
        let start = self.mapping.memory.as_ptr().wrapping_add(self.range.start);
        // SAFETY: bounds: `Mapping::region` makes the only claims and refused any range that does not lie inside
        // the map, so `start` and the range's length stay within one live mapping, which is at most
        // isize::MAX bytes and cannot be null. Alignment: u8 has none. Initialised: pages of a shared mapping
        // always have contents. Lifetime: the slice borrows `self`, which holds the mapping alive. Nobody
        // writes: the four steps in the head of this module; our range is marked as in use until `end` takes `self`,
        // which it cannot while the slice borrows it, so no hole is punched in it.
        unsafe { std::slice::from_raw_parts(start, self.range.len()) }
    }
}

/// All bytes of a file that has `bytes` of them, mapped read-only and not read yet.
///
/// What the caller promises, for nothing here can see it: the file is never written or cut again, by anybody. It may be
/// renamed and removed. A file that is written under another name first, in a directory of mode 0700 whose
/// [`DirectoryLock`](crate::DirectoryLock) the caller holds, is one.
///
/// What nobody can promise: a disk that cannot read a page of the file when it is first looked at, or again after the
/// system dropped it, ends the process with a signal.
///
/// # Errors
/// When it is no regular file, has another length or cannot be mapped.
pub fn map_file(file: &File, bytes: u64) -> io::Result<Bytes> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("only a regular file can be mapped"));
    }
    let found = metadata.len();
    if found != bytes {
        return Err(io::Error::other(format!("the file has {found} bytes, not {bytes}")));
    }
    if bytes == 0 {
        return Ok(Bytes::new());
    }
    let len = usize::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: bounds: the file had `len` bytes a moment ago, and stays as it is by the promise above. Nobody writes: the
    // map is read-only, and its pages are those of the file, which nobody changes by the same promise; a name that is
    // given away or removed leaves them in place. Our own code keeps it, because blocks are written under another name
    // and never after they got theirs; other processes cannot reach into a directory of mode 0700, and those of
    // our user leave it alone, as the crate's head says.
    let map = unsafe { MmapOptions::new().len(len).map(file)? };
    // People's data does not belong into core dumps. A kernel that cannot do this is no reason to stop.
    let _ = map.advise(Advice::DontDump);
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests;
