//! Stopping into shared memory.
//!
//! In this order: refuse new batches; let queries end; seal what is open; write what is not on disk, and make a
//! checkpoint: from here on the disk holds everything. Then copy each block that is not in shared memory yet into a
//! segment, freeing its memory as it goes; write the manifest with the next generation and the places of the blocks;
//! publish the catalogue, whose valid mark is set last.
//!
//! Without room, or out of time, the rest is left behind: what was copied is noted, but the stop is not a clean one,
//! and the next start takes the copies one by one and reads the rest from disk. Nothing is lost either way, because
//! every acknowledged row is in a block file or in the log.
//!
//! Invariants: a place in shared memory is noted only after all of its bytes are there; memory in use, heap and shared
//! together, grows by no more than a segment for each thread that copies.

use std::sync::Arc;
use std::time::Duration;

use gannet_query::{LeafState, Phase};
use parking_lot::Mutex;

use crate::LeafError;
use crate::leaf::Leaf;
use crate::manifest::{self, Home};
use crate::start::{BLOCK_ALIGN, Noted, edition};
use crate::table::Table;

/// A segment takes blocks up to this size together; while it is written, so much is in memory twice.
const SEGMENT_BYTES: u64 = 8 << 20;

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything is in shared memory.
    HandedOver,
    /// Some or all of it is only on disk.
    OnDisk,
}

/// Blocks that go into one segment together.
struct Group {
    table: Arc<Table>,
    /// Id and bytes.
    blocks: Vec<(u64, u64)>,
}

/// A hand-over under way.
struct Copying<'a> {
    leaf: &'a Leaf,
    generation: u64,
    deadline: Duration,
    work: Mutex<Work>,
}

struct Work {
    groups: std::vec::IntoIter<Group>,
    written: u64,
    bytes: u64,
    /// Table, block and its place.
    placed: Vec<(String, u64, Home)>,
    failed: Option<LeafError>,
}

impl Leaf {
    /// Stops: hands everything over to shared memory, if that can be, else leaves it on disk. Afterwards the leaf only
    /// waits to be dropped.
    ///
    /// # Errors
    /// When the disk does not take what is not on it yet. The log still holds every acknowledged row.
    pub fn hand_over(self: &Arc<Self>) -> Result<Stopped, LeafError> {
        let clock = &self.surroundings.clock;
        let began = clock.monotonic();
        let limit = Duration::from_secs(self.config.hand_over_seconds_max);
        let was_recovering = self.lifecycle.state() == LeafState::Recovering;
        self.lifecycle.begin_stop();
        let _appends = self.appends.write();
        let tables: Vec<Arc<Table>> = self.tables.read().values().cloned().collect();
        // Queries that still run keep their snapshot; one that never ends must not stop the stop.
        let queries = self.queries.try_write_for(limit / 4);
        self.lifecycle.enter(LeafState::HandingOver);
        drop(queries);
        tables.iter().for_each(|table| self.seal_rest(table));
        // Whoever sealed the last runs beside us has by then said that they wait to be stored.
        drop(self.sealed.lock());
        let stored = self.store_all().and_then(|()| {
            let mut manifest = self.manifest.lock();
            self.checkpoint(&mut manifest)?;
            self.empty_log(&manifest);
            Ok(())
        });
        let on_disk = clock.monotonic();
        let phase = |name: &str, seconds: f64, bytes| Phase { name: name.to_owned(), seconds, bytes };
        self.phases.lock().push(phase("writing to disk", (on_disk - began).as_secs_f64(), 0));
        if let Err(error) = stored {
            self.lifecycle.enter(LeafState::Stopped);
            return Err(error);
        }
        let rows: u64 = tables.iter().map(|table| table.snapshot().rows()).sum();
        // A leaf that was still reading blocks from disk would hand over a part; the next start goes on reading.
        let copied = match was_recovering {
            true => Ok((0, Stopped::OnDisk)),
            false => self.copy_out(&tables, began + limit),
        };
        let seconds = (clock.monotonic() - on_disk).as_secs_f64();
        self.lifecycle.enter(LeafState::Stopped);
        let (bytes, stopped) = copied?;
        self.phases.lock().push(phase("handing over", seconds, bytes));
        match stopped {
            Stopped::HandedOver => {
                tracing::info!(leaf = self.id(), rows, bytes, seconds, "handed over to shared memory");
            }
            Stopped::OnDisk => {
                tracing::info!(leaf = self.id(), rows, bytes, seconds, "stopped with rows on disk")
            }
        }
        Ok(stopped)
    }

    fn seal_rest(self: &Arc<Self>, table: &Arc<Table>) {
        table.take_open();
        for run in &table.snapshot().sealing {
            self.seal_now(table, run);
        }
    }

    /// Copies every block that is not yet in shared memory and notes where they are.
    fn copy_out(&self, tables: &[Arc<Table>], deadline: Duration) -> Result<(u64, Stopped), LeafError> {
        let mut manifest = self.manifest.lock();
        let groups: Vec<Group> = tables.iter().flat_map(|table| groups_of(table, SEGMENT_BYTES)).collect();
        if !groups.is_empty() {
            // Whoever asks from here on must neither see a part nor hold on to blocks that are to be freed.
            *self.last_tables.lock() = Some(self.holdings());
        }
        let needed: u64 = groups.iter().map(Group::segment_bytes).sum();
        let available = self.surroundings.memory.available_bytes()?;
        let failed = (needed > available).then_some(LeafError::NoRoom { needed, available });
        // Blocks leave their tables as they are copied.
        let noted = Noted::of(tables);
        let generation = manifest.generation + 1;
        let copying =
            Copying { leaf: self, generation, deadline, work: Mutex::new(Work::of(groups, failed)) };
        copying.run(self.surroundings.hand_over_threads);
        let Work { placed, failed, bytes, .. } = copying.work.into_inner();
        let mut next = manifest.clone();
        next.generation = generation;
        next.clean = failed.is_none();
        for (table, id, home) in placed {
            if let Some(entry) = next.table(&table).blocks.iter_mut().find(|entry| entry.id == id) {
                entry.home = Some(home);
            }
        }
        manifest::store(&*self.surroundings.disk, &next).map_err(|source| self.manifest_error(source))?;
        *manifest = next;
        if let Some(error) = failed {
            tracing::warn!(leaf = self.id(), %error, "not all was handed over: the next start reads the rest from disk");
            return Ok((bytes, Stopped::OnDisk));
        }
        let payload = noted.write(&self.config.id, self.epoch);
        match gannet_shm::publish(&*self.surroundings.memory, &self.segments, edition(generation), &payload) {
            Ok(()) => Ok((bytes, Stopped::HandedOver)),
            Err(error) => {
                tracing::warn!(leaf = self.id(), %error, "the catalogue was not published: the next start reads from disk");
                Ok((bytes, Stopped::OnDisk))
            }
        }
    }
}

impl Group {
    fn segment_bytes(&self) -> u64 {
        self.blocks.iter().map(|(_, bytes)| bytes.next_multiple_of(BLOCK_ALIGN)).sum()
    }
}

/// The blocks of a table that are not in shared memory, by segment: up to so many bytes in each, and at least a block.
fn groups_of(table: &Arc<Table>, bytes_max: u64) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for held in table.snapshot().blocks.iter().filter(|held| held.home.is_none()) {
        let block = (held.id(), held.bytes());
        match groups.last_mut() {
            Some(group) if group.segment_bytes() + block.1 <= bytes_max => group.blocks.push(block),
            _ => groups.push(Group { table: Arc::clone(table), blocks: vec![block] }),
        }
    }
    groups
}

impl Work {
    fn of(groups: Vec<Group>, failed: Option<LeafError>) -> Work {
        Work { groups: groups.into_iter(), written: 0, bytes: 0, placed: Vec::new(), failed }
    }
}

impl Copying<'_> {
    fn run(&self, threads: usize) {
        if threads <= 1 {
            while self.copy_next() {}
            return;
        }
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| while self.copy_next() {});
            }
        });
    }

    /// Copies the next group; false when there is none, or something failed.
    fn copy_next(&self) -> bool {
        let (group, number) = {
            let mut work = self.work.lock();
            if work.failed.is_some() {
                return false;
            }
            if self.leaf.surroundings.clock.monotonic() >= self.deadline {
                let seconds = self.leaf.config.hand_over_seconds_max;
                work.failed =
                    Some(LeafError::Internal(format!("the hand-over took longer than {seconds} s")));
                return false;
            }
            let Some(group) = work.groups.next() else { return false };
            work.written += 1;
            (group, work.written)
        };
        let copied = self.copy(&group, number);
        let mut work = self.work.lock();
        match copied {
            Ok(placed) => {
                let table = group.table.name();
                work.bytes += group.blocks.iter().map(|(_, bytes)| bytes).sum::<u64>();
                work.placed.extend(placed.into_iter().map(|(id, home)| (table.to_owned(), id, home)));
                true
            }
            Err(error) => {
                work.failed.get_or_insert(error);
                false
            }
        }
    }

    fn copy(&self, group: &Group, number: u64) -> Result<Vec<(u64, Home)>, LeafError> {
        let segment_bytes = group.segment_bytes();
        let name = self.leaf.segments.name(&format!("{}-{number}", self.generation))?;
        let mut writer = self.leaf.surroundings.memory.create(&name, segment_bytes)?;
        let mut placed = Vec::with_capacity(group.blocks.len());
        let mut offset = 0;
        for (id, bytes) in &group.blocks {
            // The block alone: whoever held on to a snapshot would keep what others free in the meantime.
            let held = group.table.snapshot().block(*id).map(Arc::clone);
            // Nothing expires once the appends are locked out, so the block is there.
            let Some(held) = held else { continue };
            writer.write_at(offset, held.block()?.image().as_slice())?;
            let home = Home { segment: name.as_str().to_owned(), segment_bytes, offset };
            placed.push((*id, home));
            drop(held);
            group.table.replace(*id, None);
            offset += bytes.next_multiple_of(BLOCK_ALIGN);
        }
        writer.finish()?;
        Ok(placed)
    }
}

#[cfg(test)]
mod tests;
