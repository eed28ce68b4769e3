//! What a start finds in shared memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::buffer::Buffer;
use gannet_shm::{Edition, MappedSegment, SegmentName, Segments, SharedMemory};
use parking_lot::Mutex;

use crate::held_block::{BlockFile, HeldBlock, SegmentHome};
use crate::manifest::{BlockEntry, Home, Manifest};
use crate::planted::{Bug, planted};
use crate::row_block::{LAYOUT_VERSION, RowBlock};
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
    if manifest.clean {
        if let Err(refusal) = gannet_shm::take(memory, segments, edition(manifest.generation)) {
            found.refused.push(refusal.to_string());
            return found;
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
    let work = Mutex::new(segments_of_blocks.into_values());
    let open_all = || {
        let mut found = Found::default();
        loop {
            let next = work.lock().next();
            let Some(wanted) = next else { return found };
            open_segment(surroundings, segments, &wanted, &mut found);
        }
    };
    let others = if work.lock().len() < SEGMENTS_FOR_THREADS { 0 } else { surroundings.start_threads - 1 };
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

/// Opens all blocks of one segment.
fn open_segment(surroundings: &Surroundings, segments: &Segments, wanted: &[Wanted<'_>], found: &mut Found) {
    let Some(Wanted { home, .. }) = wanted.first() else { return };
    let name = segments.parse(&home.segment);
    let mapping = match name.and_then(|name| surroundings.memory.map(&name, home.segment_bytes)) {
        Ok(mapping) => mapping,
        Err(error) => return found.refused.push(error.to_string()),
    };
    for Wanted { table, entry, home } in wanted {
        match open_block(surroundings, &mapping, home, entry) {
            Ok(held) => {
                found.bytes += entry.bytes;
                found.blocks.insert(entry.id, held);
            }
            Err(what) => found.refused.push(format!("block {} of table {table}: {what}", entry.id)),
        }
    }
    mapping.unlink_when_empty();
}

fn open_block(
    surroundings: &Surroundings,
    mapping: &Arc<dyn MappedSegment>,
    home: &Home,
    entry: &BlockEntry,
) -> Result<HeldBlock, String> {
    let out_of_range = || format!("{} bytes at {} are outside its segment", entry.bytes, home.offset);
    let size = mapping.size_bytes() as u64;
    let end = home.offset.checked_add(entry.bytes).filter(|end| *end <= size).ok_or_else(out_of_range)?;
    // The region takes the padding behind the block with it, so that whole pages can be given back.
    let padded = end.next_multiple_of(BLOCK_ALIGN).min(size);
    let region = Arc::clone(mapping)
        .region(home.offset as usize..padded as usize)
        .map_err(|error| error.to_string())?;
    let image = Buffer::from(region.bytes().slice(..entry.bytes as usize));
    let id = match planted(Bug::BlockIdNotChecked) {
        true => image.get(16..24).and_then(|id| id.try_into().ok()).map_or(0, u64::from_le_bytes),
        false => entry.id,
    };
    let block = RowBlock::open(image, id).map_err(|error| error.to_string())?;
    if block.rows() as u64 != entry.rows || block.time_range() != (entry.first, entry.last) {
        return Err("it is not the block the manifest speaks of".to_owned());
    }
    let file = BlockFile::of(&surroundings.disk, entry);
    Ok(HeldBlock::stored(block, entry, Some(SegmentHome { region, home: home.clone() }), file))
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
