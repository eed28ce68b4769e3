//! What the tests of this crate share: an instance of their own that leaves nothing behind.

use std::ops::Deref;
use std::path::PathBuf;

use crate::error::ShmError;
use crate::memory::{OsSharedMemory, SharedMemory};
use crate::name::{Instance, SegmentName, Segments};

/// Segments of a fresh instance; whatever exists of them goes with it.
pub(crate) struct TestSegments(Segments);

impl TestSegments {
    pub(crate) fn new() -> TestSegments {
        TestSegments(Segments::new(Instance::from_bytes(uuid::Uuid::new_v4().into_bytes())))
    }

    pub(crate) fn list(&self) -> Result<Vec<SegmentName>, ShmError> {
        OsSharedMemory.list(&self.0)
    }
}

impl Deref for TestSegments {
    type Target = Segments;

    fn deref(&self) -> &Segments {
        &self.0
    }
}

impl Drop for TestSegments {
    fn drop(&mut self) {
        for name in self.list().unwrap() {
            let path = path_of(&name);
            if path.symlink_metadata().unwrap().is_dir() {
                std::fs::remove_dir(path).unwrap();
            } else {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

/// The file behind a segment.
pub(crate) fn path_of(name: &SegmentName) -> PathBuf {
    PathBuf::from(format!("/dev/shm{name}"))
}
