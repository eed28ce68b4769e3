//! The place of a block in shared memory.
//!
//! Mapping a segment takes longer than a start may spend on each of thousands, so one in which a start found blocks is
//! mapped when the first of them is touched.
//!
//! Invariants: the regions of all blocks of a segment are taken together, because its name goes when those that were
//! taken have all expired; each is given out once.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use gannet_shm::{Region, SegmentName, SharedMemory, ShmError};
use parking_lot::Mutex;

use crate::manifest::Home;

/// A segment in which a start found blocks.
#[derive(Debug)]
pub(crate) struct FoundSegment {
    memory: Arc<dyn SharedMemory>,
    name: SegmentName,
    bytes: u64,
    /// Where its blocks are, as bytes of the segment.
    ranges: Vec<Range<u64>>,
    regions: OnceLock<Result<Regions, String>>,
}

/// One for each range, until somebody takes it.
type Regions = Mutex<Vec<Option<Result<Region, String>>>>;

/// The place of a block in shared memory.
#[derive(Debug)]
pub struct SegmentHome {
    home: Home,
    /// The region, which gives its memory back once it has expired and nobody reads it.
    region: OnceLock<Result<Region, String>>,
    /// Where the region comes from: the segment, and which of its ranges.
    found: Option<(Arc<FoundSegment>, usize)>,
}

impl FoundSegment {
    /// A segment of this name and size that has blocks at these ranges.
    pub(crate) fn new(
        memory: &Arc<dyn SharedMemory>,
        name: SegmentName,
        bytes: u64,
        ranges: Vec<Range<u64>>,
    ) -> FoundSegment {
        FoundSegment { memory: Arc::clone(memory), name, bytes, ranges, regions: OnceLock::new() }
    }

    fn map(&self) -> Result<Regions, ShmError> {
        let mapping = self.memory.map(&self.name, self.bytes)?;
        let region = |range: &Range<u64>| {
            let size = mapping.size_bytes() as u64;
            if range.end > size {
                let (start, end) = (range.start, range.end);
                return Err(format!("bytes {start} to {end} are outside its segment, which has {size}"));
            }
            let range = range.start as usize..range.end as usize;
            Arc::clone(&mapping).region(range).map_err(|error| error.to_string())
        };
        let regions = self.ranges.iter().map(|range| Some(region(range))).collect();
        mapping.unlink_when_empty();
        Ok(Mutex::new(regions))
    }

    fn take(&self, index: usize) -> Result<Region, String> {
        let regions = self.regions.get_or_init(|| self.map().map_err(|error| error.to_string()));
        let regions = regions.as_ref().map_err(String::clone)?;
        let region = regions.lock().get_mut(index).and_then(Option::take);
        region.unwrap_or_else(|| Err(format!("the place of a block in {} was taken before", self.name)))
    }
}

impl SegmentHome {
    /// A place whose segment is mapped.
    pub(crate) fn mapped(home: Home, region: Region) -> SegmentHome {
        SegmentHome { home, region: OnceLock::from(Ok(region)), found: None }
    }

    /// The place of one range of a segment.
    pub(crate) fn found(home: Home, segment: &Arc<FoundSegment>, index: usize) -> SegmentHome {
        SegmentHome { home, region: OnceLock::new(), found: Some((Arc::clone(segment), index)) }
    }

    /// The place, for the manifest.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Its memory. Maps the segment when that is touched first.
    pub(crate) fn region(&self) -> Result<&Region, String> {
        let region = self.region.get_or_init(|| match &self.found {
            Some((segment, index)) => segment.take(*index),
            None => Err("the place of a block was taken before".to_owned()),
        });
        region.as_ref().map_err(String::clone)
    }

    /// Its memory goes back to the system once nobody reads it any more.
    pub(crate) fn expire(&self) {
        match self.region() {
            Ok(region) => region.expire(),
            Err(error) => {
                tracing::warn!(
                    segment = self.home.segment,
                    error,
                    "the memory of a block was not given back"
                );
            }
        }
    }
}
