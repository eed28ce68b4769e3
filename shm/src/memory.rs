//! Shared memory as a leaf uses it: the one seam between what outlives a process and the system that keeps it.
//!
//! Everything that a leaf does with segments goes through [`SharedMemory`], so that a simulation can fill it, lose it,
//! or end the process between any two calls. [`OsSharedMemory`] is the real one, POSIX shared memory.
//!
//! What every implementation keeps:
//! - A segment has one owner at a time: a writer, a mapping, or whoever opened it. Ownership ends with its value and
//!   with the process.
//! - Bytes that were written survive the process, not the machine.
//! - A segment that was not finished is gone when its writer is dropped; it stays when the process dies first.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::ShmError;
use crate::map::Mapping;
use crate::name::{SegmentName, Segments};
use crate::region::Region;
use crate::segment::{self, OpenSegment, SegmentWriter};

/// The segments of one machine. See the module.
pub trait SharedMemory: fmt::Debug + Send + Sync {
    /// Makes the segment `name` of `size_bytes`, for its owner alone.
    ///
    /// # Errors
    /// [`ShmError::Exists`] for a name that is taken, [`ShmError::NoSpace`] when there is no room for the segment, and
    /// then nothing of it stays behind.
    fn create(&self, name: &SegmentName, size_bytes: u64) -> Result<Box<dyn SegmentWrite>, ShmError>;

    /// Opens a finished segment, whatever its size, for reading and writing at places.
    ///
    /// # Errors
    /// When it is not there, not ours alone, or in use.
    fn open(&self, name: &SegmentName) -> Result<Box<dyn SegmentAccess>, ShmError>;

    /// Maps a segment of exactly `expected_bytes`, read-only.
    ///
    /// # Errors
    /// When it is not there, not ours alone, in use, or of another size.
    fn map(&self, name: &SegmentName, expected_bytes: u64) -> Result<Arc<dyn MappedSegment>, ShmError>;

    /// Removes a name. Mappings stay valid; the memory goes with the last of them.
    ///
    /// # Errors
    /// [`ShmError::Missing`] when there is no such name.
    fn unlink(&self, name: &SegmentName) -> Result<(), ShmError>;

    /// Every segment of an instance that exists now, in order of name, whatever its state.
    ///
    /// # Errors
    /// When the system refuses.
    fn list(&self, segments: &Segments) -> Result<Vec<SegmentName>, ShmError>;

    /// How many bytes new segments can still take; without a limit on it, more than anybody has.
    ///
    /// # Errors
    /// When the system does not say.
    fn available_bytes(&self) -> Result<u64, ShmError>;
}

/// A segment that is being filled. Dropped unfinished, it takes its segment with it.
pub trait SegmentWrite: fmt::Debug + Send {
    /// The name of the segment.
    fn name(&self) -> &SegmentName;

    /// The size of the segment.
    fn size_bytes(&self) -> u64;

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// When they do not fit, and then nothing is written; [`ShmError::NoSpace`] when the memory is used up, and then a
    /// part of them may be.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ShmError>;

    /// Leaves the segment to whoever opens it next. What was never written is zero.
    ///
    /// # Errors
    /// When the name no longer leads to the segment.
    fn finish(self: Box<Self>) -> Result<(), ShmError>;
}

/// A segment that is open, and nobody else's, for as long as this lives.
pub trait SegmentAccess: fmt::Debug + Send {
    /// Its size.
    fn size_bytes(&self) -> u64;

    /// Fills `into` from `offset` on, as far as the segment goes. Returns how much there was.
    ///
    /// # Errors
    /// When the system refuses.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, ShmError>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// When they do not fit, and then nothing is written, or when the system refuses.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ShmError>;
}

/// A segment mapped read-only, and nobody else's for as long as it or one of its regions lives.
pub trait MappedSegment: fmt::Debug + Send + Sync {
    /// The name of the segment.
    fn name(&self) -> &SegmentName;

    /// The size of the segment, which is never zero.
    fn size_bytes(&self) -> usize;

    /// The one region over `range`, as long as it or its bytes live.
    ///
    /// # Errors
    /// When the range is empty, outside the segment, overlaps a region in use, was given back, or was never written.
    fn region(self: Arc<Self>, range: Range<usize>) -> Result<Region, ShmError>;

    /// From now on the name of the segment goes when no region is in use and every region there was has
    /// expired. Before the first region it stays.
    fn unlink_when_empty(&self);
}

/// The shared memory of this machine, under `/dev/shm`.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsSharedMemory;

impl SharedMemory for OsSharedMemory {
    fn create(&self, name: &SegmentName, size_bytes: u64) -> Result<Box<dyn SegmentWrite>, ShmError> {
        Ok(Box::new(SegmentWriter::create(name, size_bytes)?))
    }

    fn open(&self, name: &SegmentName) -> Result<Box<dyn SegmentAccess>, ShmError> {
        Ok(Box::new(segment::open_exclusive(name)?))
    }

    fn map(&self, name: &SegmentName, expected_bytes: u64) -> Result<Arc<dyn MappedSegment>, ShmError> {
        Ok(Mapping::open(name, expected_bytes)?)
    }

    fn unlink(&self, name: &SegmentName) -> Result<(), ShmError> {
        segment::unlink(name)
    }

    fn list(&self, segments: &Segments) -> Result<Vec<SegmentName>, ShmError> {
        // What does not read as one of our names was not made by us and is left alone.
        let ours = |file_name: String| segments.parse(&format!("/{file_name}")).ok();
        let mut names: Vec<SegmentName> = segment::file_names()?.into_iter().filter_map(ours).collect();
        names.sort();
        Ok(names)
    }

    fn available_bytes(&self) -> Result<u64, ShmError> {
        segment::available_bytes()
    }
}

impl SegmentWrite for SegmentWriter {
    fn name(&self) -> &SegmentName {
        self.name()
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ShmError> {
        self.write_at(offset, bytes)
    }

    fn finish(self: Box<Self>) -> Result<(), ShmError> {
        (*self).finish()
    }
}

impl SegmentAccess for OpenSegment {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, ShmError> {
        self.read_at(offset, into)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ShmError> {
        self.write_at(offset, bytes)
    }
}

impl MappedSegment for Mapping {
    fn name(&self) -> &SegmentName {
        self.name()
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes()
    }

    fn region(self: Arc<Self>, range: Range<usize>) -> Result<Region, ShmError> {
        Mapping::region(&self, range)
    }

    fn unlink_when_empty(&self) {
        self.unlink_when_empty();
    }
}
