//! What a leaf keeps on disk behind its appends: block files, edits in the log, checkpoints.
//!
//! Sealed blocks and expired blocks wait in a queue; one job at a time takes them from there. A block is stored in
//! this order: its file is written and synced, the directory is synced, an edit says in the log that it exists. An
//! expired block goes the other way: first the edit, then the file. What fails is put back and tried again by the
//! next turn of maintenance; until then the log holds the rows.
//!
//! A checkpoint replaces the manifest by the state of now and then removes what it makes superfluous of the log.
//!
//! Invariants: edits are logged and applied under the lock of the manifest, in one order; a checkpoint contains no
//! batch that is not safely in the log, and skips none that is on its way; the log keeps every row that is not done.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Mutex, MutexGuard};

use crate::LeafError;
use crate::held_block::{BlockFile, HeldBlock, SegmentHome};
use crate::leaf::Leaf;
use crate::manifest::{self, Edit, Home, Manifest, spans_out};
use crate::planted::{Bug, planted};
use crate::retention::LOG_PART;
use crate::row_block::RowBlock;
use crate::surroundings::JobKind;
use crate::table::Table;

/// Blocks that are written before one sync of their directory.
const BLOCKS_AT_ONCE: usize = 8;
/// A checkpoint is due when the log has grown by this much,
const CHECKPOINT_LOG_BYTES: u64 = 64 << 20;
/// or after this long when there is anything new.
const CHECKPOINT_SECONDS: u64 = 30;

/// What waits for the disk.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    unstored: VecDeque<(Arc<Table>, u64)>,
    gone: Vec<(Arc<Table>, Arc<HeldBlock>)>,
    /// A job is on its way or at work.
    is_worked_on: bool,
}

/// When the last checkpoint was made.
#[derive(Debug, Default)]
pub(crate) struct LastCheckpoint {
    lsn: u64,
    log_bytes: u64,
    seconds: u64,
}

impl Leaf {
    /// Has a sealed block written to disk.
    pub(crate) fn store_soon(self: &Arc<Self>, table: &Arc<Table>, id: u64) {
        self.waiting.queue.lock().unstored.push_back((Arc::clone(table), id));
        self.work_soon();
    }

    /// Has blocks that a table no longer holds removed from disk.
    pub(crate) fn remove_soon(self: &Arc<Self>, table: &Arc<Table>, gone: Vec<Arc<HeldBlock>>) {
        self.waiting.queue.lock().gone.extend(gone.into_iter().map(|held| (Arc::clone(table), held)));
        self.work_soon();
    }

    /// Starts a job for what waits, unless there is one.
    pub(crate) fn work_soon(self: &Arc<Self>) {
        let mut queue = self.waiting.queue.lock();
        if queue.is_worked_on || (queue.unstored.is_empty() && queue.gone.is_empty()) {
            return;
        }
        queue.is_worked_on = true;
        drop(queue);
        let leaf = Arc::clone(self);
        let work = move || {
            let outcome = leaf.store_some(&leaf.storing.lock());
            leaf.waiting.queue.lock().is_worked_on = false;
            match outcome {
                Ok(()) => leaf.work_soon(),
                Err(error) => tracing::error!(leaf = leaf.id(), %error, "blocks wait to be written"),
            }
        };
        self.surroundings.background.spawn(JobKind::Store, Box::new(work));
    }

    /// Stores and removes everything that waits, now.
    ///
    /// # Errors
    /// The first thing that fails; what is left still waits.
    pub(crate) fn store_all(&self) -> Result<(), LeafError> {
        loop {
            // What a job has taken from the queue is stored when it lets go of this.
            let turn = self.storing.lock();
            let queue = self.waiting.queue.lock();
            if queue.unstored.is_empty() && queue.gone.is_empty() {
                return Ok(());
            }
            drop(queue);
            self.store_some(&turn)?;
        }
    }

    /// Stores some blocks, and removes those that are gone.
    fn store_some(&self, _turn: &MutexGuard<'_, ()>) -> Result<(), LeafError> {
        let (unstored, gone) = {
            let mut queue = self.waiting.queue.lock();
            let some = queue.unstored.len().min(BLOCKS_AT_ONCE);
            (queue.unstored.drain(..some).collect::<Vec<_>>(), std::mem::take(&mut queue.gone))
        };
        let stored = self.store_blocks(&unstored);
        if stored.is_err() {
            let mut queue = self.waiting.queue.lock();
            unstored.into_iter().rev().for_each(|waiting| queue.unstored.push_front(waiting));
        }
        let removed = self.remove_blocks(&gone);
        if removed.is_err() {
            self.waiting.queue.lock().gone.extend(gone);
        }
        stored.and(removed)
    }

    fn store_blocks(&self, waiting: &[(Arc<Table>, u64)]) -> Result<(), LeafError> {
        let mut held = Vec::with_capacity(waiting.len());
        for (table, id) in waiting {
            let state = table.snapshot();
            // One that has expired meanwhile waits to be removed.
            let block = state.block(*id).filter(|held| held.file().is_none());
            held.extend(block.map(|block| (table, Arc::clone(block))));
        }
        if held.is_empty() {
            return Ok(());
        }
        let blocks = held.iter().map(|(_, held)| held.block()).collect::<Result<Vec<&RowBlock>, _>>()?;
        let files = BlockFile::write_all(&self.surroundings.disk, &blocks)
            .map_err(|source| LeafError::Disk { what: "write row blocks".to_owned(), source })?;
        let mut manifest = self.manifest.lock();
        let mut edits = Vec::with_capacity(held.len());
        for ((table, held), file) in held.iter().zip(&files) {
            let block = held.entry_with(file);
            edits.push(Edit::BlockAdded { table: table.name().to_owned(), block, replaces: Vec::new() });
        }
        self.log_edits(&mut manifest, edits)?;
        drop(manifest);
        for ((_, held), file) in held.into_iter().zip(files) {
            held.set_file(file);
        }
        Ok(())
    }

    fn remove_blocks(&self, gone: &[(Arc<Table>, Arc<HeldBlock>)]) -> Result<(), LeafError> {
        if gone.is_empty() {
            return Ok(());
        }
        let edits = gone
            .iter()
            .map(|(table, held)| {
                let table = table.name().to_owned();
                match held.file() {
                    Some(_) => Edit::BlocksRemoved { table, ids: vec![held.id()] },
                    None => Edit::RowsDone { table, rows: held.numbers.clone() },
                }
            })
            .collect();
        self.log_edits(&mut self.manifest.lock(), edits)?;
        // A file must not go before the word that it may.
        self.wal.sync()?;
        for file in gone.iter().filter_map(|(_, held)| held.file()) {
            if let Err(error) = file.remove() {
                tracing::warn!(%error, "the file of an expired block was not removed");
            }
        }
        Ok(())
    }

    /// Logs edits and applies them.
    ///
    /// # Errors
    /// When one cannot be logged; those before it are applied.
    pub(crate) fn log_edits(&self, manifest: &mut Manifest, edits: Vec<Edit>) -> Result<(), LeafError> {
        let tickets = edits.iter().map(|edit| self.submit_edit(edit)).collect::<Result<Vec<_>, _>>()?;
        let mut outcome = Ok(());
        for (edit, ticket) in edits.into_iter().zip(tickets) {
            match self.wal.commit(&ticket).map_err(LeafError::from) {
                Ok(_) => manifest.apply(edit),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    /// Makes a checkpoint if one is due.
    pub(crate) fn checkpoint_if_due(&self) {
        let last = self.last_checkpoint.lock();
        let grown = self.wal.bytes().saturating_sub(last.log_bytes);
        let waited = self.running_seconds().saturating_sub(last.seconds);
        // A log that is near its limit must not wait to be cut.
        let is_long = self.wal.bytes() > self.config.wal_bytes_max / LOG_PART;
        let due = grown >= CHECKPOINT_LOG_BYTES
            || ((is_long || waited >= CHECKPOINT_SECONDS) && self.wal.written_lsn() > last.lsn);
        drop(last);
        if due && let Err(error) = self.checkpoint(&mut self.manifest.lock()) {
            tracing::error!(leaf = self.id(), %error, "no checkpoint was made");
        }
    }

    /// Replaces the manifest by the state of now, and removes what that makes superfluous of the log.
    ///
    /// # Errors
    /// When it cannot be written; the old manifest and the log are then as good as before.
    pub(crate) fn checkpoint(&self, manifest: &mut Manifest) -> Result<(), LeafError> {
        let (books, durable) = {
            // Held while the log is synced: what was counted by now is then in it for good.
            let ledger = self.ledger.open();
            self.wal.sync()?;
            (ledger.books(), self.wal.durable_lsn())
        };
        let mut next = manifest.clone();
        next.checkpoint_lsn = books.floor.map_or(durable, |floor| floor.min(durable));
        next.running_seconds = self.running_seconds();
        next.ran_until_ns = self.retention.lock().last().or(next.ran_until_ns);
        next.next_block_id = next.next_block_id.max(self.next_block_id.load(Ordering::Relaxed));
        next.dedup = books.dedup;
        if planted(Bug::DedupLostOnTruncation) {
            next.dedup = Default::default();
        }
        for (name, next_row) in books.next_rows {
            let table = next.table(&name);
            table.next_row = table.next_row.max(next_row);
        }
        for (name, rows) in &books.withdrawn {
            next.apply(Edit::RowsWithdrawn { table: name.clone(), rows: rows.clone() });
        }
        for table in self.tables.read().values() {
            next.table(table.name()).lost = spans_out(&table.snapshot().lost);
        }
        manifest::store(&*self.surroundings.disk, &next).map_err(|source| self.manifest_error(source))?;
        *manifest = next;
        self.ledger.open().forget_withdrawn(&books.withdrawn);
        self.truncate_log(manifest);
        *self.last_checkpoint.lock() = LastCheckpoint {
            lsn: self.wal.written_lsn(),
            log_bytes: self.wal.bytes(),
            seconds: manifest.running_seconds,
        };
        Ok(())
    }

    /// Leaves a log without records behind a checkpoint, for a start reads all that is in it.
    pub(crate) fn empty_log(&self, manifest: &Manifest) {
        match self.wal.rotate() {
            Ok(()) => self.truncate_log(manifest),
            Err(error) => tracing::warn!(leaf = self.id(), %error, "the next start reads the log"),
        }
    }

    /// Removes files of the log that nothing needs any more: all before the first that holds an edit or a batch behind
    /// the checkpoint, or a row that is not done.
    fn truncate_log(&self, manifest: &Manifest) {
        let is_done = |name: &String, from: u64, to: u64| {
            let table = manifest.tables.iter().find(|table| table.name == *name);
            planted(Bug::CheckpointTooFar)
                || table.is_some_and(|table| table.done.missing_in(from, to).is_empty())
        };
        let needed = self.wal.files().into_iter().find(|file| {
            file.last_lsn > manifest.checkpoint_lsn
                || !file.tables.iter().all(|(name, (from, to))| is_done(name, *from, *to))
        });
        let below = needed.map_or(manifest.checkpoint_lsn.saturating_add(1), |file| file.first_lsn);
        if let Err(error) = self.wal.truncate(below) {
            tracing::warn!(leaf = self.id(), %error, "the log was not cut");
        }
    }

    /// Puts a sealed block where the settings want it: in shared memory, if that can be.
    pub(crate) fn place(&self, held: HeldBlock) -> HeldBlock {
        if !self.config.seal_into_shm {
            return held;
        }
        match self.place_in_segment(&held) {
            Ok(placed) => {
                if self.shm_is_short.swap(false, Ordering::Relaxed) {
                    tracing::info!(leaf = self.id(), "shared memory has room again");
                }
                placed
            }
            Err(error) => {
                // Said once: where shared memory is small, every block meets the same.
                if !self.shm_is_short.swap(true, Ordering::Relaxed) {
                    tracing::warn!(leaf = self.id(), %error, "blocks stay in the heap: a crash will have to read them from disk");
                }
                held
            }
        }
    }

    fn place_in_segment(&self, held: &HeldBlock) -> Result<HeldBlock, LeafError> {
        let image = held.block()?.image().as_slice();
        let bytes = image.len() as u64;
        let memory = &self.surroundings.memory;
        let available = memory.available_bytes()?;
        if bytes > available {
            return Err(LeafError::NoRoom { needed: bytes, available });
        }
        let name = self.segments.name(&format!("{}-b{}", self.epoch, held.id()))?;
        let mut writer = memory.create(&name, bytes)?;
        writer.write_at(0, image)?;
        writer.finish()?;
        let home = Home { segment: name.as_str().to_owned(), segment_bytes: bytes, offset: 0 };
        let mapping = memory.map(&name, bytes)?;
        let region = Arc::clone(&mapping).region(0..image.len())?;
        mapping.unlink_when_empty();
        let image = arrow::buffer::Buffer::from(region.bytes());
        let block = RowBlock::open_verified(image, held.id())
            .map_err(|error| LeafError::Internal(format!("open a block that was just written: {error}")))?;
        Ok(held.moved(block, SegmentHome::mapped(home, region)))
    }

    pub(crate) fn manifest_error(&self, source: manifest::ManifestError) -> LeafError {
        LeafError::Manifest { path: self.config.data_dir.join(manifest::FILE), source }
    }
}
