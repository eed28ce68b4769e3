//! Recovering: what a start did not find in shared memory comes back from disk, behind queries that are answered.
//!
//! One step at a time, each a job of its own: first the log gives back the rows that were in no block, which are the
//! newest, then blocks are read from their files, newest first. When all is there the leaf serves, and the bytes of the
//! blocks in shared memory are checked behind it, block by block; one that is damaged is read from its file.
//!
//! Invariants: rows become visible and stop being pending in one step; a file that is not what was stored is set aside,
//! its rows count as lost from then on, and the log says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bytes::Bytes;
use gannet_proto::decode_batches;
use gannet_query::{LeafState, Phase, Span};
use parking_lot::Mutex;

use crate::append::rows_not_done;
use crate::held_block::{BlockFile, FileError, HeldBlock};
use crate::leaf::Leaf;
use crate::manifest::{BlockEntry, Edit, spans_out};
use crate::open_rows::OpenChunk;
use crate::planted::{Bug, planted};
use crate::row_block::{BlockError, RowBlock};
use crate::row_ranges::RowRanges;
use crate::start::Remaining;
use crate::surroundings::JobKind;
use crate::table::{Arrival, Table};
use crate::wal::{Kind, Place, WalContents, WalError};

/// Blocks that each thread reads in one step.
const BLOCKS_FOR_THREAD: usize = 32;
/// And that it adds at once: a table's list of blocks is copied for every change, and there may be thousands of them.
const BLOCKS_PUBLISHED: usize = 8;
/// Blocks in shared memory that are opened in one step.
const BLOCKS_OPENED: usize = 64;
/// Batches of the log that are brought back in one step.
const BATCHES_AT_ONCE: usize = 64;

/// The rows of a record.
fn one_batch(body: &Bytes) -> Result<RecordBatch, String> {
    let batches = decode_batches(body).map_err(|error| error.to_string())?;
    let first = batches.first().ok_or_else(|| "it has no rows".to_owned())?;
    concat_batches(&first.schema(), &batches).map_err(|error| error.to_string())
}

impl Leaf {
    /// Begins to bring back what remains.
    pub(crate) fn begin_recovery(self: &Arc<Self>, mut remaining: Remaining) {
        // They are taken from the end.
        remaining.log.reverse();
        if remaining.log.is_empty() {
            self.is_replayed.store(true, Ordering::Release);
        }
        if remaining.log.is_empty() && remaining.blocks.is_empty() {
            self.lifecycle.enter(LeafState::Serving);
            self.open_soon(remaining.unverified.clone(), remaining.unverified);
            return;
        }
        self.lifecycle.enter(LeafState::Recovering);
        *self.recovering_since.lock() = Some(self.surroundings.clock.monotonic());
        self.recover_soon(remaining);
    }

    fn recover_soon(self: &Arc<Self>, mut remaining: Remaining) {
        let leaf = Arc::clone(self);
        let step = move || {
            // A stop needs none of this: everything is on disk.
            if leaf.lifecycle.state() != LeafState::Recovering {
                return;
            }
            if leaf.recover_step(&mut remaining) {
                leaf.recover_soon(remaining);
            } else {
                leaf.end_recovery(remaining.unverified);
            }
        };
        self.surroundings.background.spawn(JobKind::Store, Box::new(step));
    }

    /// One step; false when there was nothing left.
    fn recover_step(self: &Arc<Self>, remaining: &mut Remaining) -> bool {
        if let (Some((table, mut places)), Some(contents)) = (remaining.log.pop(), &remaining.contents) {
            let rest = places.split_off(places.len().min(BATCHES_AT_ONCE));
            remaining.unread.extend(self.replay(&table, &places, contents));
            match (rest.is_empty(), self.table(&table)) {
                (false, _) => remaining.log.push((table, rest)),
                (true, Some(held)) => held.end_log(std::mem::take(&mut remaining.unread)),
                (true, None) => {}
            }
            return true;
        }
        if !self.is_replayed.swap(true, Ordering::AcqRel) {
            remaining.contents = None;
        }
        self.load_some(&mut remaining.blocks)
    }

    /// Reads some blocks from their files, the newest first; false when there was none left.
    fn load_some(self: &Arc<Self>, blocks: &mut Vec<(String, BlockEntry)>) -> bool {
        let threads = self.surroundings.start_threads;
        let count = if threads > 1 { threads * BLOCKS_FOR_THREAD } else { 1 };
        let some = Mutex::new(blocks.split_off(blocks.len().saturating_sub(count)));
        let load_all = || {
            let mut piece = Vec::new();
            let mut came: BTreeMap<String, Vec<Arc<HeldBlock>>> = BTreeMap::new();
            // A stop waits for nobody who reads.
            while self.lifecycle.state() == LeafState::Recovering {
                let next = some.lock().pop();
                let Some((table, entry)) = next else { break };
                if let Some(block) = self.read_block(&table, &entry, &mut piece) {
                    let blocks = came.entry(table.clone()).or_default();
                    blocks.push(block);
                    if blocks.len() >= BLOCKS_PUBLISHED {
                        self.publish(&table, std::mem::take(blocks));
                    }
                }
            }
            for (table, blocks) in came {
                self.publish(&table, blocks);
            }
        };
        let is_left = !some.lock().is_empty();
        std::thread::scope(|scope| {
            for _ in 1..threads.min(some.lock().len()) {
                scope.spawn(load_all);
            }
            load_all();
        });
        is_left
    }

    fn publish(&self, table: &str, came: Vec<Arc<HeldBlock>>) {
        let Some(held) = self.table(table).filter(|_| !came.is_empty()) else { return };
        let bytes = held.publish(came);
        self.used_bytes.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Brings back the rows of some batches. Returns those that cannot be read now.
    fn replay(self: &Arc<Self>, table: &str, places: &[Place], contents: &WalContents) -> Vec<Span> {
        let mut left = Vec::new();
        let Some(held) = self.table(table) else { return left };
        let done = self.manifest.lock().table(table).done.clone();
        for place in places {
            let Kind::Rows(rows) = &place.header.kind else { continue };
            let body = match contents.body(place) {
                Ok(body) => Ok(body),
                // What the system refuses now it may give later. The log keeps the rows until they are done.
                Err(error @ WalError::File { .. }) => {
                    tracing::error!(table, %error, "rows of the log cannot be read; the next start tries again");
                    left.push(Span::of(rows.time_min, rows.time_max, rows.rows));
                    continue;
                }
                Err(error) => Err(error.to_string()),
            };
            match body.and_then(|body| one_batch(&body)) {
                Ok(batch) if batch.num_rows() as u64 == rows.rows => {
                    let none = RowRanges::default();
                    let done = if planted(Bug::ReplayTwice) { &none } else { &done };
                    for (first, rows) in rows_not_done(&batch, rows.first_row, done) {
                        match OpenChunk::new(rows) {
                            Ok(chunk) => _ = self.insert(&held, chunk, first, Arrival::Replayed),
                            Err(error) => self.lose_batch(&held, place, &error.to_string()),
                        }
                    }
                }
                Ok(_) => self.lose_batch(&held, place, "it has another number of rows"),
                Err(what) => self.lose_batch(&held, place, &what),
            }
        }
        left
    }

    /// A batch of the log cannot be brought back, though it was sound when the log was looked over.
    fn lose_batch(&self, table: &Table, place: &Place, what: &str) {
        let Kind::Rows(rows) = &place.header.kind else { return };
        tracing::error!(
            table = table.name(),
            lsn = place.header.lsn,
            rows = rows.rows,
            what,
            "rows of the log are lost"
        );
        let mut lost = table.snapshot().lost.as_ref().clone();
        lost.push(Span::of(rows.time_min, rows.time_max, rows.rows));
        table.set_lost(lost);
        let mut numbers = RowRanges::default();
        numbers.insert(rows.first_row, rows.first_row + rows.rows);
        let name = table.name().to_owned();
        let edits = vec![
            Edit::RowsDone { table: name.clone(), rows: numbers },
            Edit::RowsLost { table: name, lost: spans_out(&table.snapshot().lost) },
        ];
        self.note_loss(edits);
    }

    fn note_loss(&self, edits: Vec<Edit>) {
        if let Err(error) = self.log_edits(&mut self.manifest.lock(), edits) {
            tracing::error!(leaf = self.id(), %error, "a loss was not noted; the next start finds it again");
        }
    }

    /// Reads a block from its file, through this memory. `None` when it is tried again, or given up.
    fn read_block(&self, table: &str, entry: &BlockEntry, piece: &mut Vec<u8>) -> Option<Arc<HeldBlock>> {
        let held = self.table(table)?;
        let file = BlockFile::of(&self.surroundings.disk, entry);
        match file.open_through(piece) {
            Ok(block) => return Some(Arc::new(HeldBlock::stored(block, entry, file))),
            // What the system refuses now it may give later: the rows stay pending.
            Err(FileError::Io(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!(table, block = entry.id, %error, "a block cannot be read; it is tried again");
                self.unread.lock().push((table.to_owned(), entry.clone()));
            }
            // Another build reads it, and will: nothing is lost.
            Err(FileError::Block(error @ BlockError::Version { .. })) => {
                tracing::error!(table, block = entry.id, %error, "a block is left to the build that wrote it");
                self.unread.lock().push((table.to_owned(), entry.clone()));
            }
            Err(error) => self.lose_block(&held, entry.id, &file, &error.to_string()),
        }
        None
    }

    /// Tries blocks again that could not be read.
    pub(crate) fn load_unread(self: &Arc<Self>) {
        for (table, entry) in std::mem::take(&mut *self.unread.lock()) {
            let leaf = Arc::clone(self);
            let job = move || {
                if let Some(block) = leaf.read_block(&table, &entry, &mut Vec::new()) {
                    leaf.publish(&table, vec![block]);
                }
            };
            self.surroundings.background.spawn(JobKind::Store, Box::new(job));
        }
    }

    /// Gives a block up: its file is set aside, its rows are lost, and the log says so.
    fn lose_block(&self, table: &Table, id: u64, file: &BlockFile, what: &str) {
        tracing::error!(table = table.name(), block = id, what, "the rows of a block are lost");
        table.lose_pending(id);
        if let Err(error) = file.set_aside() {
            tracing::warn!(block = id, %error, "its file was not set aside");
        }
        let name = table.name().to_owned();
        let lost = spans_out(&table.snapshot().lost);
        let edits = vec![
            Edit::BlocksRemoved { table: name.clone(), ids: vec![id] },
            Edit::RowsLost { table: name, lost },
        ];
        self.note_loss(edits);
    }

    fn end_recovery(self: &Arc<Self>, unverified: Vec<(String, u64)>) {
        let since = self.recovering_since.lock().take();
        if let Some(since) = since {
            let seconds = self.surroundings.clock.monotonic().saturating_sub(since).as_secs_f64();
            let bytes = self.used_bytes();
            self.phases.lock().push(Phase { name: "recovering".to_owned(), seconds, bytes });
            tracing::info!(leaf = self.id(), seconds, bytes, "recovered from disk");
        }
        if self.lifecycle.step(LeafState::Recovering, LeafState::Serving) {
            self.open_soon(unverified.clone(), unverified);
        }
    }

    /// Opens the blocks that were found in shared memory and that nobody has touched, some in each job, so that the
    /// first question about all of them need not; then checks them.
    fn open_soon(self: &Arc<Self>, mut unopened: Vec<(String, u64)>, unverified: Vec<(String, u64)>) {
        if unopened.is_empty() {
            return self.verify_soon(unverified);
        }
        let leaf = Arc::clone(self);
        let step = move || {
            for (table, id) in unopened.split_off(unopened.len().saturating_sub(BLOCKS_OPENED)) {
                let table = leaf.table(&table).map(|table| table.snapshot());
                if let Some(held) = table.as_ref().and_then(|state| state.block(id)) {
                    // A failure is found again, and mended, when the block is checked.
                    let _ = held.block();
                }
            }
            if matches!(leaf.lifecycle.state(), LeafState::Serving | LeafState::Draining) {
                leaf.open_soon(unopened, unverified);
            }
        };
        self.surroundings.background.spawn(JobKind::Seal, Box::new(step));
    }

    /// Checks all bytes of the blocks that were found in shared memory, one in each job.
    fn verify_soon(self: &Arc<Self>, mut unverified: Vec<(String, u64)>) {
        let Some((table, id)) = unverified.pop() else { return };
        let leaf = Arc::clone(self);
        let step = move || {
            if !matches!(leaf.lifecycle.state(), LeafState::Serving | LeafState::Draining) {
                return;
            }
            if let Some(table) = leaf.table(&table) {
                leaf.verify(&table, id);
            }
            leaf.verify_soon(unverified);
        };
        self.surroundings.background.spawn(JobKind::Seal, Box::new(step));
    }

    pub(crate) fn verify(self: &Arc<Self>, table: &Arc<Table>, id: u64) {
        let state = table.snapshot();
        let Some(held) = state.block(id) else { return };
        let Err(error) = held.block().and_then(RowBlock::verify) else { return };
        let Some((file, entry)) = held.file().zip(held.entry()) else { return };
        tracing::warn!(table = table.name(), block = id, %error, "a block in shared memory is damaged");
        match file.open() {
            Ok(block) => {
                let entry = BlockEntry { home: None, ..entry };
                let loaded = HeldBlock::stored(block, &entry, file.clone());
                table.replace(id, Some(Arc::new(loaded)));
                let edit =
                    Edit::BlockAdded { table: table.name().to_owned(), block: entry, replaces: vec![] };
                if let Err(error) = self.log_edits(&mut self.manifest.lock(), vec![edit]) {
                    tracing::warn!(block = id, %error, "its place on disk was not noted");
                }
                held.expire();
            }
            // Some of its columns may still be read; what cannot be is named by the queries that need it.
            Err(file_error) => {
                tracing::error!(block = id, error = %file_error, "its file is damaged as well");
            }
        }
    }
}
