//! What a hand-over keeps in memory while it copies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, Weak};
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray};
use gannet_shm::{
    MappedSegment, OsSharedMemory, SegmentAccess, SegmentName, SegmentWrite, Segments, SharedMemory, ShmError,
};

use super::*;
use crate::config::Config;
use crate::held_block::HeldBlock;
use crate::surroundings::Surroundings;

/// How long a block may take to be freed before it counts as kept.
const FREED_WITHIN: Duration = Duration::from_secs(20);

/// The shared memory of this machine, in which the first block takes as long as it takes until another one is freed.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<Watch>);

#[derive(Debug, Default)]
struct Watch {
    blocks: OnceLock<Vec<Weak<HeldBlock>>>,
    is_writing: AtomicBool,
    saw_freed: AtomicBool,
}

#[derive(Debug)]
struct WaitingWriter(Box<dyn SegmentWrite>, Arc<Watch>);

impl SharedMemory for Waiting {
    fn create(&self, name: &SegmentName, size_bytes: u64) -> Result<Box<dyn SegmentWrite>, ShmError> {
        Ok(Box::new(WaitingWriter(OsSharedMemory.create(name, size_bytes)?, Arc::clone(&self.0))))
    }

    fn open(&self, name: &SegmentName) -> Result<Box<dyn SegmentAccess>, ShmError> {
        OsSharedMemory.open(name)
    }

    fn map(&self, name: &SegmentName, expected_bytes: u64) -> Result<Arc<dyn MappedSegment>, ShmError> {
        OsSharedMemory.map(name, expected_bytes)
    }

    fn unlink(&self, name: &SegmentName) -> Result<(), ShmError> {
        OsSharedMemory.unlink(name)
    }

    fn list(&self, segments: &Segments) -> Result<Vec<SegmentName>, ShmError> {
        OsSharedMemory.list(segments)
    }

    fn available_bytes(&self) -> Result<u64, ShmError> {
        OsSharedMemory.available_bytes()
    }
}

impl SegmentWrite for WaitingWriter {
    fn name(&self) -> &SegmentName {
        self.0.name()
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ShmError> {
        let watch = &self.1;
        if !watch.is_writing.swap(true, Ordering::SeqCst) {
            let blocks = watch.blocks.get().map_or(&[][..], Vec::as_slice);
            let began = Instant::now();
            while began.elapsed() < FREED_WITHIN && !watch.saw_freed.load(Ordering::SeqCst) {
                let is_freed = blocks.iter().any(|block| block.strong_count() == 0);
                watch.saw_freed.store(is_freed, Ordering::SeqCst);
                std::thread::yield_now();
            }
        }
        self.0.write_at(offset, bytes)
    }

    fn finish(self: Box<Self>) -> Result<(), ShmError> {
        self.0.finish()
    }
}

#[test]
fn a_block_is_freed_while_another_is_still_copied() {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        id: "leaf-7".to_owned(),
        data_dir: directory.path().to_owned(),
        retention_seconds: 0,
        seal_into_shm: false,
        ..Config::default()
    };
    let memory = Waiting::default();
    let surroundings =
        Surroundings { memory: Arc::new(memory.clone()), ..Surroundings::of(&config).unwrap() };
    let leaf = Leaf::start_in(config, surroundings).unwrap();
    let times = TimestampNanosecondArray::from_iter_values(0..150_000).with_timezone("+00:00");
    let x = Int64Array::from_iter_values(0..150_000);
    let columns: Vec<(&str, ArrayRef)> = vec![("time", Arc::new(times)), ("x", Arc::new(x))];
    leaf.append("t", &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap();
    let table = leaf.table("t").unwrap();
    leaf.seal_rest(&table);
    let blocks: Vec<Weak<HeldBlock>> = table.snapshot().blocks.iter().map(Arc::downgrade).collect();
    assert_eq!(blocks.len(), 3);
    memory.0.blocks.set(blocks).unwrap();

    let work = Mutex::new(Work::of(groups_of(&table, 1), None));
    let deadline = leaf.surroundings.clock.monotonic() + Duration::from_secs(60);
    let copying = Copying { leaf: &leaf, generation: 2, deadline, work };
    copying.run(2);
    let Work { placed, failed, .. } = copying.work.into_inner();
    for name in OsSharedMemory.list(&leaf.segments).unwrap() {
        OsSharedMemory.unlink(&name).unwrap();
    }
    assert!(failed.is_none(), "{failed:?}");
    assert_eq!(placed.len(), 3);
    assert!(memory.0.saw_freed.load(Ordering::SeqCst), "the copy of one block kept the others in memory");
}
