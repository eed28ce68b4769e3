//! A range of a segment that is in use: the bytes that everybody reads, and what happens when nobody does any more.
//!
//! A [`Region`] hands out [`Bytes`] without copying, from which callers make their own views. When the last of them and
//! of the region's clones is gone, its segment is told so, and whether the region had expired.
//!
//! Invariants: the segment is told once, and after every view is gone; expiring cannot be taken back. Memory is not
//! touched here, and where it comes from is the segment's business.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::memory::MappedSegment;

/// How the use of a region ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionEnd {
    /// The region had expired: its memory is wanted by nobody and goes back to the system.
    Expired,
    /// Nobody reads it now, but its bytes stay where they are.
    Kept,
}

/// A range of a segment that is in use. Clones are the same region.
#[derive(Clone)]
pub struct Region {
    bytes: Bytes,
    range: Range<usize>,
    expired: Arc<AtomicBool>,
    segment: Arc<dyn MappedSegment>,
}

impl Region {
    /// The region over `memory`, which begins at `start` in `segment`. `ended` gets the memory back once the region,
    /// its clones and all bytes of it are gone.
    ///
    /// For segments to make; whoever reads asks [`MappedSegment::region`], which sees to it that no two overlap.
    pub fn new<M, F>(segment: Arc<dyn MappedSegment>, start: usize, memory: M, ended: F) -> Region
    where
        M: AsRef<[u8]> + Send + 'static,
        F: FnOnce(M, RegionEnd) + Send + 'static,
    {
        let expired = Arc::new(AtomicBool::new(false));
        let owner = Owner { expired: Arc::clone(&expired), parts: Some((memory, ended)) };
        let bytes = Bytes::from_owner(owner);
        let range = start..start.saturating_add(bytes.len());
        Region { bytes, range, expired, segment }
    }

    /// The bytes of the region.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of the region, without copying. They keep the region in use, and so do their clones, slices
    /// and whatever is made of them.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Where the region lies in its segment.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The segment it lies in.
    pub fn segment(&self) -> &Arc<dyn MappedSegment> {
        &self.segment
    }

    /// Gives the memory of the region back to the system once nobody reads it any more: when the last of
    /// its clones and bytes is dropped. Only whole pages go back before the segment itself does, so whoever
    /// wants all of it back starts regions on pages. There is no way to take this back.
    pub fn expire(&self) {
        self.expired.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("name", self.segment.name())
            .field("range", &self.range)
            .field("expired", &self.expired)
            .finish()
    }
}

/// The memory behind the bytes of a region. It is dropped with the last of them.
struct Owner<M, F: FnOnce(M, RegionEnd)> {
    expired: Arc<AtomicBool>,
    /// `None` only while this is dropped.
    parts: Option<(M, F)>,
}

impl<M: AsRef<[u8]>, F: FnOnce(M, RegionEnd)> AsRef<[u8]> for Owner<M, F> {
    fn as_ref(&self) -> &[u8] {
        match &self.parts {
            Some((memory, _)) => memory.as_ref(),
            None => &[],
        }
    }
}

impl<M, F: FnOnce(M, RegionEnd)> Drop for Owner<M, F> {
    fn drop(&mut self) {
        let end = if self.expired.load(Ordering::Acquire) { RegionEnd::Expired } else { RegionEnd::Kept };
        if let Some((memory, ended)) = self.parts.take() {
            ended(memory, end);
        }
    }
}

#[cfg(test)]
mod tests;
