use std::sync::Mutex;

use super::*;
use crate::error::ShmError;
use crate::name::{Instance, SegmentName, Segments};

/// A segment in the process's own memory, as a simulation makes one, that notes how its regions ended.
#[derive(Debug)]
struct Simulated {
    name: SegmentName,
    bytes: Bytes,
    ends: Mutex<Vec<(Range<usize>, RegionEnd)>>,
}

impl MappedSegment for Simulated {
    fn name(&self) -> &SegmentName {
        &self.name
    }

    fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn region(self: Arc<Self>, range: Range<usize>) -> Result<Region, ShmError> {
        let (noted, at) = (Arc::clone(&self), range.clone());
        let memory = self.bytes.slice(range.clone());
        Ok(Region::new(self, range.start, memory, move |_, end| noted.ends.lock().unwrap().push((at, end))))
    }

    fn unlink_when_empty(&self) {}
}

#[test]
fn a_segment_hears_once_how_a_region_ended() {
    let name = Segments::new(Instance::from_bytes([7; 16])).name("a").unwrap();
    let bytes = Bytes::from_static(b"0123456789");
    let segment = Arc::new(Simulated { name: name.clone(), bytes, ends: Mutex::default() });
    let region = |range| Arc::clone(&segment).region(range).unwrap();
    let ends = || std::mem::take(&mut *segment.ends.lock().unwrap());

    let kept = region(0..4);
    assert_eq!((kept.as_slice(), kept.range(), kept.segment().name()), (&b"0123"[..], 0..4, &name));
    let (clone, view) = (kept.clone(), kept.bytes().slice(2..3));
    drop(kept);
    drop(clone);
    assert_eq!(ends(), []);
    assert_eq!(view, b"2"[..]);
    drop(view);
    assert_eq!(ends(), [(0..4, RegionEnd::Kept)]);

    let expired = region(4..10);
    let (clone, view) = (expired.clone(), expired.bytes());
    expired.expire();
    expired.expire();
    drop((expired, view));
    assert_eq!(ends(), []);
    drop(clone);
    assert_eq!(ends(), [(4..10, RegionEnd::Expired)]);
}
