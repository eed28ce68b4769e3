//! What a start finds in shared memory.
//!
//! After a clean stop the catalogue says which columns each block has, and the manifest everything else that a question
//! needs to be planned; so nothing is opened, or even mapped, before somebody touches it, and the start is as long for
//! eight gigabytes as for one. After a crash there is no catalogue, and each block is opened and looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gannet_shm::{Edition, SegmentName, Segments, SharedMemory, ShmError};
use parking_lot::Mutex;

use super::noted::Noted;
use crate::held_block::{BlockFile, FoundSegment, HeldBlock, SegmentHome};
use crate::manifest::{BlockEntry, Home, Manifest};
use crate::row_block::{BlockError, LAYOUT_VERSION};
use crate::surroundings::Surroundings;

/// Blocks begin at multiples of this in a segment, so that their memory can be given back one by one.
pub(crate) const BLOCK_ALIGN: u64 = 4096;

/// Fewer segments are opened on one thread.
const SEGMENTS_FOR_THREADS: usize = 32;

/// Whether anything was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Source {
    #[default]
    Nothing,
    SharedMemory,
}

/// What was found in shared memory.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether there was anything.
    pub(super) source: Source,
    /// Blocks, by id.
    pub(super) blocks: BTreeMap<u64, HeldBlock>,
    /// Their bytes.
    pub(super) bytes: u64,
    /// What was refused, in words.
    pub(super) refused: Vec<String>,
}

impl Found {
    fn add(&mut self, other: Found) {
        self.blocks.extend(other.blocks);
        self.bytes += other.bytes;
        self.refused.extend(other.refused);
    }
}

/// A block that the manifest places in shared memory.
struct Wanted<'a> {
    table: &'a str,
    entry: &'a BlockEntry,
    home: &'a Home,
}

/// What a catalogue of this build and this generation is written for.
pub(crate) fn edition(generation: u64) -> Edition {
    Edition { layout_version: LAYOUT_VERSION, generation }
}

/// Opens every block that the manifest places in shared memory. After a clean stop the catalogue must be there and
/// pass its gates, or nothing in shared memory is believed.
pub(super) fn find(surroundings: &Surroundings, segments: &Segments, manifest: &Manifest) -> Found {
    let mut found = Found::default();
    let memory = &*surroundings.memory;
    let mut noted = Noted::default();
    if manifest.clean {
        match gannet_shm::take(memory, segments, edition(manifest.generation)) {
            Ok(payload) => noted = Noted::read(&payload),
            Err(refusal) => {
                found.refused.push(refusal.to_string());
                return found;
            }
        }
        found.source = Source::SharedMemory;
    }
    let mut segments_of_blocks: BTreeMap<&str, Vec<Wanted<'_>>> = BTreeMap::new();
    for table in &manifest.tables {
        for entry in &table.blocks {
            if let Some(home) = &entry.home {
                let wanted = Wanted { table: &table.name, entry, home };
                segments_of_blocks.entry(&home.segment).or_default().push(wanted);
            }
        }
    }
    if segments_of_blocks.is_empty() {
        return found;
    }
    let present = match memory.list(segments) {
        Ok(names) => names,
        Err(error) => {
            found.refused.push(error.to_string());
            return found;
        }
    };
    let finding = Finding { surroundings, segments, present: &present, noted: &noted };
    let work = Mutex::new(segments_of_blocks.into_values());
    let open_all = || {
        let mut found = Found::default();
        loop {
            let next = work.lock().next();
            let Some(wanted) = next else { return found };
            finding.segment(&wanted, &mut found);
        }
    };
    let is_quick = !noted.columns.is_empty() || work.lock().len() < SEGMENTS_FOR_THREADS;
    let others = if is_quick { 0 } else { surroundings.start_threads - 1 };
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..others).map(|_| scope.spawn(open_all)).collect();
        found.add(open_all());
        for other in others {
            match other.join() {
                Ok(part) => found.add(part),
                // What it had opened is read from disk.
                Err(_) => found.refused.push("a thread that opened segments failed".to_owned()),
            }
        }
    });
    if !found.blocks.is_empty() {
        found.source = Source::SharedMemory;
    }
    found
}

/// How blocks are found.
struct Finding<'a> {
    surroundings: &'a Surroundings,
    segments: &'a Segments,
    /// The names of all segments there are, in order.
    present: &'a [SegmentName],
    noted: &'a Noted,
}

impl Finding<'_> {
    /// Finds all blocks of one segment.
    fn segment(&self, wanted: &[Wanted<'_>], found: &mut Found) {
        let Some(Wanted { home, .. }) = wanted.first() else { return };
        let name = match self.segments.parse(&home.segment) {
            Ok(name) => name,
            Err(error) => return found.refused.push(error.to_string()),
        };
        if self.present.binary_search(&name).is_err() {
            return found.refused.push(ShmError::Missing { name }.to_string());
        }
        let size = home.segment_bytes;
        // The region takes the padding behind the block with it, so that whole pages can be given back.
        let range = |Wanted { entry, home, .. }: &Wanted<'_>| {
            let end = home.offset.saturating_add(entry.bytes);
            home.offset..end.checked_next_multiple_of(BLOCK_ALIGN).unwrap_or(end).min(size.max(end))
        };
        let ranges = wanted.iter().map(range).collect();
        let segment = Arc::new(FoundSegment::new(&self.surroundings.memory, name, size, ranges));
        for (index, Wanted { table, entry, home }) in wanted.iter().enumerate() {
            let home = SegmentHome::found((*home).clone(), &segment, index);
            match self.block(entry, home) {
                Ok(held) => {
                    found.bytes += entry.bytes;
                    found.blocks.insert(entry.id, held);
                }
                Err(what) => found.refused.push(format!("block {} of table {table}: {what}", entry.id)),
            }
        }
    }

    fn block(&self, entry: &BlockEntry, home: SegmentHome) -> Result<HeldBlock, BlockError> {
        let file = BlockFile::of(&self.surroundings.disk, entry);
        match self.noted.columns.get(&entry.id) {
            Some(columns) => Ok(HeldBlock::found(entry, home, Arc::clone(columns), file)),
            None => HeldBlock::opened(entry, home, file),
        }
    }
}

/// Removes the segments of an instance but for those kept.
pub(crate) fn remove_segments(memory: &dyn SharedMemory, segments: &Segments, kept: &BTreeSet<&str>) {
    let names: Vec<SegmentName> = match memory.list(segments) {
        Ok(names) => names,
        Err(error) => {
            tracing::warn!(%error, "segments were not listed");
            return;
        }
    };
    for name in names.iter().filter(|name| !kept.contains(name.as_str())) {
        if let Err(error) = memory.unlink(name) {
            tracing::warn!(%error, "a segment was not removed");
        }
    }
}
