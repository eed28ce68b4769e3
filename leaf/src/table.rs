//! One table on one leaf: open rows, rows being sealed, and row blocks.
//!
//! The state of a table is immutable and replaced as a whole, so a reader takes a snapshot without a lock and sees
//! every row exactly once, whatever is sealed, expired or handed over meanwhile. Everything that replaces the state
//! holds `writer`; it is the only lock of a table, and nobody waits for anything else while holding it.
//!
//! Invariants: a row is in exactly one of open rows, sealing, and blocks; row blocks never change; the schema holds
//! every type of every column in the table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use arrow::array::RecordBatch;
use gannet_query::holdings::{fold_spans, rows_in};
use gannet_query::{ColumnHolding, Span, TableHolding, TimeRange, TypeSet};
use parking_lot::Mutex;

use crate::LeafError;
use crate::open_rows::OpenRows;
use crate::row_block::{Preference, RowBlock};

/// Open rows are sealed at this many bytes even when they are few, 128 MiB: a block is the unit of expiry and of
/// hand-over.
const SEAL_BYTES_MAX: usize = 128 << 20;

/// A row block and, when it lives in shared memory, where.
#[derive(Debug)]
pub struct HeldBlock {
    /// The block.
    pub block: RowBlock,
    /// Its place in a segment; `None` for the heap.
    pub home: Option<SegmentHome>,
}

/// The place of a block in shared memory.
#[derive(Debug)]
pub struct SegmentHome {
    /// The region, which gives its memory back once it has expired and nobody reads it.
    pub region: gannet_shm::Region,
    /// The segment's name.
    pub segment: String,
    /// Where in it.
    pub offset: u64,
}

impl HeldBlock {
    fn bytes(&self) -> u64 {
        self.block.image().len() as u64
    }
}

/// Everything a table holds at one moment.
#[derive(Debug, Clone, Default)]
pub struct TableState {
    /// Row blocks, oldest sealed first.
    pub blocks: Arc<Vec<Arc<HeldBlock>>>,
    /// Full runs of open rows that are being sealed.
    pub sealing: Vec<Arc<OpenRows>>,
    /// The newest rows.
    pub open: Arc<OpenRows>,
    /// Rows that were held once and are gone other than by retention.
    pub lost: Arc<Vec<Span>>,
    /// Every type of every column.
    pub schema: Arc<BTreeMap<String, TypeSet>>,
    /// Changes whenever the schema does.
    pub schema_version: u64,
}

impl TableState {
    /// Rows held.
    pub fn rows(&self) -> u64 {
        let blocks: usize = self.blocks.iter().map(|held| held.block.rows()).sum();
        (blocks + self.open_runs().map(|open| open.rows()).sum::<usize>()) as u64
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        let blocks: u64 = self.blocks.iter().map(|held| held.bytes()).sum();
        blocks + self.open_runs().map(|open| open.bytes() as u64).sum::<u64>()
    }

    /// Open rows and those being sealed.
    pub fn open_runs(&self) -> impl Iterator<Item = &Arc<OpenRows>> {
        self.sealing.iter().chain(std::iter::once(&self.open))
    }

    /// The rows by time.
    pub fn spans(&self) -> Vec<Span> {
        let blocks = self.blocks.iter().map(|held| (held.block.time_range(), held.block.rows()));
        let chunks =
            self.open_runs().flat_map(|open| open.chunks()).map(|chunk| (chunk.time_range(), chunk.rows()));
        fold_spans(
            blocks.chain(chunks).map(|((first, last), rows)| Span::of(first, last, rows as u64)).collect(),
        )
    }

    /// Lost rows that a time range would have had.
    pub fn lost_in(&self, range: &TimeRange) -> u64 {
        rows_in(&self.lost, range)
    }

    /// Oldest and newest row time.
    pub fn time_range(&self) -> Option<(i64, i64)> {
        let blocks = self.blocks.iter().map(|held| held.block.time_range());
        let chunks = self.open_runs().flat_map(|open| open.chunks()).map(|chunk| chunk.time_range());
        blocks.chain(chunks).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    fn schema_from_rows(&self) -> BTreeMap<String, TypeSet> {
        let mut schema: BTreeMap<String, TypeSet> = BTreeMap::new();
        for held in self.blocks.iter() {
            for column in held.block.columns() {
                widen(&mut schema, &column.name, column.types);
            }
        }
        for open in self.open_runs() {
            for (name, types) in open.types() {
                widen(&mut schema, &name, types);
            }
        }
        schema
    }

    /// Takes the schema from the rows, and counts a new version if it changed.
    fn refresh_schema(&mut self) {
        let schema = self.schema_from_rows();
        if schema != *self.schema {
            self.schema = Arc::new(schema);
            self.schema_version += 1;
        }
    }
}

fn widen(schema: &mut BTreeMap<String, TypeSet>, name: &str, types: TypeSet) {
    match schema.get_mut(name) {
        Some(known) => *known = known.union(types),
        None => {
            schema.insert(name.to_owned(), types);
        }
    }
}

/// One table. See the module.
#[derive(Debug)]
pub struct Table {
    name: String,
    state: ArcSwap<TableState>,
    writer: Mutex<Writer>,
}

/// What only writers need.
#[derive(Debug, Default)]
struct Writer {
    /// When the oldest open row came.
    open_since: Option<Instant>,
}

/// What an append did.
#[derive(Debug)]
pub struct Appended {
    /// Bytes the table grew by.
    pub bytes_added: i64,
    /// Full runs that must now be sealed with [`Table::seal`].
    pub to_seal: Vec<Arc<OpenRows>>,
    /// Whether a column appeared or gained a type.
    pub schema_changed: bool,
}

impl Table {
    /// A table with what a restart brought back.
    pub fn restored(name: &str, blocks: Vec<Arc<HeldBlock>>, lost: Vec<Span>) -> Table {
        let mut state = TableState { blocks: Arc::new(blocks), lost: Arc::new(lost), ..Default::default() };
        state.refresh_schema();
        Table { name: name.to_owned(), state: ArcSwap::from_pointee(state), writer: Mutex::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything it holds now.
    pub fn snapshot(&self) -> Arc<TableState> {
        self.state.load_full()
    }

    /// Adds rows, visible to the next snapshot. All or nothing.
    ///
    /// # Errors
    /// When the table would have too many columns, or the rows cannot be kept.
    pub fn append(
        &self,
        rows: &RecordBatch,
        columns_max: usize,
        now: Instant,
    ) -> Result<Appended, LeafError> {
        let mut writer = self.writer.lock();
        let before = self.state.load_full();
        let internal = |what: String| LeafError::Internal(format!("append to table {}: {what}", self.name));
        let mut open = before.open.append(rows.clone()).map_err(|error| internal(error.to_string()))?;
        let mut state = (*before).clone();
        for (name, types) in open.types() {
            if state.schema.get(&name).is_none_or(|known| known.union(types) != *known) {
                widen(Arc::make_mut(&mut state.schema), &name, types);
                state.schema_version = before.schema_version + 1;
            }
        }
        if state.schema.len() > columns_max {
            let what = format!("it would have {} columns, the limit is {columns_max}", state.schema.len());
            return Err(LeafError::Batch { table: self.name.clone(), what });
        }
        let mut to_seal = Vec::new();
        while let Some((full, rest)) =
            open.take_full(SEAL_BYTES_MAX).map_err(|error| internal(error.to_string()))?
        {
            to_seal.push(Arc::new(full));
            open = rest;
        }
        writer.open_since = match (open.rows(), writer.open_since) {
            (0, _) => None,
            (_, Some(since)) if to_seal.is_empty() => Some(since),
            _ => Some(now),
        };
        state.sealing.extend(to_seal.iter().cloned());
        state.open = Arc::new(open);
        let appended = Appended {
            bytes_added: rows_bytes(&state) - rows_bytes(&before),
            to_seal,
            schema_changed: state.schema_version != before.schema_version,
        };
        self.state.store(Arc::new(state));
        Ok(appended)
    }

    /// Moves the open rows out to be sealed, if they have waited for `age_seconds`.
    pub fn take_aged(&self, age_seconds: u64, now: Instant) -> Option<Arc<OpenRows>> {
        let mut writer = self.writer.lock();
        let since = writer.open_since?;
        if now.saturating_duration_since(since).as_secs() < age_seconds {
            return None;
        }
        writer.open_since = None;
        let mut state = (*self.state.load_full()).clone();
        let open = std::mem::take(&mut state.open);
        if open.rows() == 0 {
            return None;
        }
        state.sealing.push(Arc::clone(&open));
        self.state.store(Arc::new(state));
        Some(open)
    }

    /// Seals a run of rows that is in `sealing` and puts the row block in its place. Returns the bytes the table
    /// grew by (mostly below zero).
    ///
    /// # Errors
    /// When the rows cannot be encoded; they then stay where they are, visible and unsealed.
    pub fn seal(&self, run: &Arc<OpenRows>, block_id: u64, preference: Preference) -> Result<i64, LeafError> {
        let is_there = |state: &TableState| state.sealing.iter().any(|sealing| Arc::ptr_eq(sealing, run));
        if !is_there(&self.state.load()) {
            return Ok(0);
        }
        let block = RowBlock::seal_with(block_id, &run.batches(), preference)
            .map_err(|error| LeafError::Internal(format!("seal rows of table {}: {error}", self.name)))?;
        let _writer = self.writer.lock();
        let before = self.state.load_full();
        let mut state = (*before).clone();
        let Some(place) = state.sealing.iter().position(|sealing| Arc::ptr_eq(sealing, run)) else {
            return Ok(0);
        };
        state.sealing.remove(place);
        let mut blocks = state.blocks.as_ref().clone();
        blocks.push(Arc::new(HeldBlock { block, home: None }));
        state.blocks = Arc::new(blocks);
        let grown = rows_bytes(&state) - rows_bytes(&before);
        self.state.store(Arc::new(state));
        Ok(grown)
    }

    /// Drops the blocks for which `expired` is true. Returns rows and bytes dropped.
    pub fn expire(&self, expired: impl Fn(&HeldBlock) -> bool) -> (u64, u64) {
        let writer = self.writer.lock();
        let before = self.state.load_full();
        let (mut rows, mut bytes) = (0, 0);
        let mut kept = Vec::with_capacity(before.blocks.len());
        for held in before.blocks.iter() {
            if expired(held) {
                rows += held.block.rows() as u64;
                bytes += held.bytes();
                if let Some(home) = &held.home {
                    home.region.expire();
                }
            } else {
                kept.push(Arc::clone(held));
            }
        }
        if rows > 0 {
            let mut state = (*before).clone();
            state.blocks = Arc::new(kept);
            state.refresh_schema();
            self.state.store(Arc::new(state));
        }
        // Giving memory back takes a while; nobody should wait for it.
        drop(writer);
        (rows, bytes)
    }

    /// Takes a block out while its rows move to shared memory, and `moved` in its place.
    pub fn replace(&self, block_id: u64, moved: Option<Arc<HeldBlock>>) {
        let _writer = self.writer.lock();
        let mut state = (*self.state.load_full()).clone();
        let mut blocks = state.blocks.as_ref().clone();
        if let Some(place) = blocks.iter().position(|held| held.block.id() == block_id) {
            match moved {
                Some(moved) => blocks[place] = moved,
                None => {
                    blocks.remove(place);
                }
            }
        }
        state.blocks = Arc::new(blocks);
        self.state.store(Arc::new(state));
    }

    /// Counts rows as lost, or forgets the lost ones with an empty list.
    pub fn set_lost(&self, lost: Vec<Span>) {
        let _writer = self.writer.lock();
        let mut state = (*self.state.load_full()).clone();
        state.lost = Arc::new(fold_spans(lost));
        self.state.store(Arc::new(state));
    }

    /// What it holds, for the roster, without its columns.
    pub fn holding(&self, retention_seconds: u64) -> TableHolding {
        let state = self.state.load();
        TableHolding {
            name: self.name.clone(),
            rows: state.rows(),
            bytes: state.bytes(),
            spans: state.spans(),
            lost: state.lost.as_ref().clone(),
            time_range: state.time_range(),
            columns: Vec::new(),
            schema_version: state.schema_version,
            retention_seconds,
        }
    }

    /// Its columns, for the catalogue.
    pub fn columns(&self) -> Vec<ColumnHolding> {
        let state = self.state.load();
        let mut columns: BTreeMap<&str, ColumnHolding> = BTreeMap::new();
        for (name, types) in state.schema.iter() {
            let empty = ColumnHolding {
                name: name.clone(),
                types: *types,
                value_count: 0,
                distinct_estimate: 0,
                bytes: 0,
            };
            columns.insert(name, empty);
        }
        for held in state.blocks.iter() {
            for column in held.block.columns() {
                if let Some(known) = columns.get_mut(column.name.as_str()) {
                    known.value_count += (held.block.rows() as u64).saturating_sub(column.null_count);
                    known.distinct_estimate = known.distinct_estimate.max(column.distinct_count);
                    known.bytes += column.bytes;
                }
            }
        }
        for open in state.open_runs() {
            for (name, values, bytes) in open.value_counts() {
                if let Some(known) = columns.get_mut(name.as_str()) {
                    known.value_count += values;
                    known.bytes += bytes;
                }
            }
        }
        columns.into_values().collect()
    }
}

fn rows_bytes(state: &TableState) -> i64 {
    i64::try_from(state.bytes()).unwrap_or(i64::MAX)
}
