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
use std::time::Duration;

use arc_swap::ArcSwap;
use arrow::array::AsArray;
use arrow::datatypes::TimestampNanosecondType;
use gannet_query::holdings::{by_time, fold_by_time, fold_spans, rows_in};
use gannet_query::{ColumnHolding, ColumnType, Span, TIME_COLUMN, TableHolding, TimeRange, TypeSet};
use parking_lot::Mutex;

use crate::LeafError;
use crate::column::Column;
use crate::held_block::{HeldBlock, KnownColumns};
use crate::open_rows::{OpenChunk, OpenRows};
use crate::row_block::{Preference, RowBlock};

/// Open rows are sealed at this many bytes even when they are few, 128 MiB: a block is the unit of expiry and of
/// hand-over.
const SEAL_BYTES_MAX: usize = 128 << 20;

/// Blocks whose rows are counted by their times in one turn; after a start there can be thousands to count.
const BLOCKS_COUNTED_MAX: usize = 64;
/// Blocks that are opened in one turn to learn of their columns, for the same reason.
const BLOCKS_OPENED_MAX: usize = 64;

/// Rows that are on disk and not served yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingRows {
    /// What they are.
    pub of: Pending,
    /// When and how many.
    pub span: Span,
}

/// How rows come into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Somebody brought them.
    New,
    /// The log gave them back; they were pending.
    Replayed,
}

/// What is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// The row block with this id.
    Block(u64),
    /// What the log holds behind the blocks.
    Log,
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
    /// Rows that a start has yet to bring back.
    pub pending: Arc<Vec<PendingRows>>,
    /// Every type of every column.
    pub schema: Arc<BTreeMap<String, TypeSet>>,
    /// Changes whenever the schema does.
    pub schema_version: u64,
}

impl TableState {
    /// Rows served.
    pub fn rows(&self) -> u64 {
        let blocks: usize = self.blocks.iter().map(|held| held.rows()).sum();
        (blocks + self.open_runs().map(|open| open.rows()).sum::<usize>()) as u64
    }

    /// The block with this id.
    pub fn block(&self, id: u64) -> Option<&Arc<HeldBlock>> {
        let place = self.blocks.binary_search_by_key(&id, |held| held.id()).ok()?;
        self.blocks.get(place)
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        let blocks: u64 = self.blocks.iter().map(|held| held.memory_bytes()).sum();
        blocks + self.open_bytes()
    }

    fn open_bytes(&self) -> u64 {
        self.open_runs().map(|open| open.bytes() as u64).sum()
    }

    /// Open rows and those being sealed.
    pub fn open_runs(&self) -> impl Iterator<Item = &Arc<OpenRows>> {
        self.sealing.iter().chain(std::iter::once(&self.open))
    }

    /// The rows by time, those that are pending included: they are held, on disk.
    pub fn spans(&self) -> Vec<Span> {
        let blocks = self.blocks.iter().map(|held| (held.time_range(), held.rows()));
        let chunks =
            self.open_runs().flat_map(|open| open.chunks()).map(|chunk| (chunk.time_range(), chunk.rows()));
        let served = blocks.chain(chunks).map(|((first, last), rows)| Span::of(first, last, rows as u64));
        fold_spans(served.chain(self.pending.iter().map(|pending| pending.span)).collect())
    }

    /// The rows by their own times, those that are pending included. At most [`BLOCKS_COUNTED_MAX`] blocks are counted
    /// now; the others that were not counted yet are told by the times of their first and last rows.
    pub fn by_time(&self) -> Vec<Span> {
        let mut left = BLOCKS_COUNTED_MAX;
        let mut spans = Vec::new();
        // The newest first: they are asked for most.
        for held in self.blocks.iter().rev() {
            match held.known_by_time() {
                Some(known) => spans.extend_from_slice(known),
                None if left > 0 => {
                    left -= 1;
                    spans.extend_from_slice(held.by_time());
                }
                None => {
                    let (first, last) = held.time_range();
                    spans.push(Span::of(first, last, held.rows() as u64));
                }
            }
        }
        for chunk in self.open_runs().flat_map(|open| open.chunks()) {
            match chunk.column(TIME_COLUMN) {
                Some(column) => spans.extend(rows_by_time(&column, chunk.rows())),
                None => {
                    let (first, last) = chunk.time_range();
                    spans.push(Span::of(first, last, chunk.rows() as u64));
                }
            }
        }
        spans.extend(self.pending.iter().map(|pending| pending.span));
        fold_by_time(spans)
    }

    /// Pending rows that a time range would have.
    pub fn pending_in(&self, range: &TimeRange) -> u64 {
        let overlapping = self.pending.iter().filter(|rows| range.overlaps(rows.span.first, rows.span.last));
        overlapping.map(|rows| rows.span.rows).sum()
    }

    /// Lost rows that a time range would have had.
    pub fn lost_in(&self, range: &TimeRange) -> u64 {
        rows_in(&self.lost, range)
    }

    /// Oldest and newest row time.
    pub fn time_range(&self) -> Option<(i64, i64)> {
        let blocks = self.blocks.iter().map(|held| held.time_range());
        let chunks = self.open_runs().flat_map(|open| open.chunks()).map(|chunk| chunk.time_range());
        blocks.chain(chunks).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    fn schema_from_rows(&self) -> BTreeMap<String, TypeSet> {
        let mut schema: BTreeMap<String, TypeSet> = BTreeMap::new();
        let mut before: Option<KnownColumns<'_>> = None;
        for held in self.blocks.iter() {
            let columns = held.known_columns();
            // Blocks are many, and mostly like the one before.
            if !before.is_some_and(|before| columns.is_like(before)) {
                columns.each(|name, types| widen(&mut schema, name, types));
            }
            before = Some(columns);
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

impl TableState {
    /// Adds the columns of one more block to the schema: thousands of blocks come back one by one.
    fn widen_schema(&mut self, columns: KnownColumns<'_>) {
        let mut is_known = true;
        columns.each(|name, types| {
            is_known &= self.schema.get(name).is_some_and(|known| known.union(types) == *known);
        });
        if is_known {
            return;
        }
        let schema = Arc::make_mut(&mut self.schema);
        columns.each(|name, types| widen(schema, name, types));
        self.schema_version += 1;
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
    /// When the oldest open row came, by the monotonic clock.
    open_since: Option<Duration>,
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
    /// A table with what a start found: blocks in order of id, rows that are lost, rows that are yet to come.
    pub fn restored(
        name: &str,
        blocks: Vec<Arc<HeldBlock>>,
        lost: Vec<Span>,
        pending: Vec<PendingRows>,
    ) -> Table {
        let mut state = TableState {
            blocks: Arc::new(blocks),
            lost: Arc::new(fold_spans(lost)),
            pending: Arc::new(pending),
            ..Default::default()
        };
        state.refresh_schema();
        Table { name: name.to_owned(), state: ArcSwap::from_pointee(state), writer: Mutex::default() }
    }

    /// A table without rows.
    pub fn empty(name: &str) -> Table {
        Table::restored(name, Vec::new(), Vec::new(), Vec::new())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything it holds now.
    pub fn snapshot(&self) -> Arc<TableState> {
        self.state.load_full()
    }

    /// Whether rows may be added: the table must not get too many columns by them.
    ///
    /// # Errors
    /// When it would.
    pub fn admit(&self, rows: &OpenChunk, columns_max: usize) -> Result<(), LeafError> {
        let state = self.state.load();
        let new = rows.columns().filter(|(name, _)| !state.schema.contains_key(*name)).count();
        let columns = state.schema.len() + new;
        if columns > columns_max {
            let what = format!("it would have {columns} columns, the limit is {columns_max}");
            return Err(LeafError::Batch { table: self.name.clone(), what });
        }
        Ok(())
    }

    /// Adds numbered rows, visible to the next snapshot.
    pub fn insert(&self, rows: OpenChunk, arrival: Arrival, now: Duration) -> Appended {
        let mut writer = self.writer.lock();
        let before = self.state.load_full();
        let mut state = (*before).clone();
        for (name, types) in rows.columns() {
            if state.schema.get(name).is_none_or(|known| known.union(types) != *known) {
                widen(Arc::make_mut(&mut state.schema), name, types);
                state.schema_version = before.schema_version + 1;
            }
        }
        if arrival == Arrival::Replayed {
            let (first, last) = rows.time_range();
            let came = Span::of(first, last, rows.rows() as u64);
            end_logged(Arc::make_mut(&mut state.pending).as_mut_slice(), came);
        }
        let mut open = before.open.append(rows);
        let mut to_seal = Vec::new();
        loop {
            match open.take_full(SEAL_BYTES_MAX) {
                Ok(Some((full, rest))) => {
                    to_seal.push(Arc::new(full));
                    open = rest;
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(table = self.name, %error, "rows stay open");
                    break;
                }
            }
        }
        writer.open_since = match (open.rows(), writer.open_since) {
            (0, _) => None,
            (_, Some(since)) if to_seal.is_empty() => Some(since),
            _ => Some(now),
        };
        state.sealing.extend(to_seal.iter().cloned());
        state.open = Arc::new(open);
        let appended = Appended {
            // Only what is open has changed, and blocks are many.
            bytes_added: signed(state.open_bytes()) - signed(before.open_bytes()),
            to_seal,
            schema_changed: state.schema_version != before.schema_version,
        };
        self.state.store(Arc::new(state));
        appended
    }

    /// Moves the open rows out to be sealed, whatever their age.
    pub fn take_open(&self) -> Option<Arc<OpenRows>> {
        self.take_aged(Duration::ZERO, Duration::MAX)
    }

    /// Moves the open rows out to be sealed, if they have waited for `age`.
    pub fn take_aged(&self, age: Duration, now: Duration) -> Option<Arc<OpenRows>> {
        let mut writer = self.writer.lock();
        let since = writer.open_since?;
        if now.saturating_sub(since) < age {
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

    /// Encodes a run of rows that is in `sealing`; `None` when it no longer is.
    ///
    /// # Errors
    /// When the rows cannot be encoded; they then stay where they are, visible and unsealed.
    pub fn encode(
        &self,
        run: &Arc<OpenRows>,
        block_id: u64,
        preference: Preference,
    ) -> Result<Option<RowBlock>, LeafError> {
        if !self.state.load().sealing.iter().any(|sealing| Arc::ptr_eq(sealing, run)) {
            return Ok(None);
        }
        RowBlock::seal_with(block_id, &run.batches(), preference)
            .map(Some)
            .map_err(|error| LeafError::Internal(format!("seal rows of table {}: {error}", self.name)))
    }

    /// Puts a block in the place of the run of rows it was made of. Returns the bytes the table grew by (mostly below
    /// zero); `None` when the run is no longer there.
    pub fn put_sealed(&self, run: &Arc<OpenRows>, block: Arc<HeldBlock>) -> Option<i64> {
        let _writer = self.writer.lock();
        let before = self.state.load_full();
        let mut state = (*before).clone();
        let place = state.sealing.iter().position(|sealing| Arc::ptr_eq(sealing, run))?;
        let grown = signed(block.memory_bytes()) - signed(state.sealing.remove(place).bytes() as u64);
        insert_in_order(&mut state, block);
        self.state.store(Arc::new(state));
        Some(grown)
    }

    /// Adds blocks that a start brought back, in the place of what was pending of them. Returns their bytes.
    pub fn publish(&self, mut came: Vec<Arc<HeldBlock>>) -> u64 {
        came.sort_unstable_by_key(|block| block.id());
        let is_here = |pending: &PendingRows| match pending.of {
            Pending::Block(id) => came.binary_search_by_key(&id, |block| block.id()).is_ok(),
            Pending::Log => false,
        };
        let _writer = self.writer.lock();
        let mut state = (*self.state.load_full()).clone();
        state.pending = Arc::new(state.pending.iter().filter(|pending| !is_here(pending)).copied().collect());
        for block in &came {
            state.widen_schema(block.known_columns());
        }
        let bytes = came.iter().map(|block| block.memory_bytes()).sum();
        let mut blocks = Vec::with_capacity(state.blocks.len() + came.len());
        blocks.extend(state.blocks.iter().cloned());
        blocks.append(&mut came);
        // Two runs in order: the sort merges them.
        blocks.sort_by_key(|block| block.id());
        state.blocks = Arc::new(blocks);
        self.state.store(Arc::new(state));
        bytes
    }

    /// The rows of a block that was pending are lost.
    pub fn lose_pending(&self, id: u64) {
        let _writer = self.writer.lock();
        let mut state = (*self.state.load_full()).clone();
        let (ended, pending): (Vec<PendingRows>, Vec<PendingRows>) =
            state.pending.iter().partition(|pending| pending.of == Pending::Block(id));
        state.pending = Arc::new(pending);
        let lost = state.lost.iter().copied().chain(ended.iter().map(|ended| ended.span));
        state.lost = Arc::new(fold_spans(lost.collect()));
        self.state.store(Arc::new(state));
    }

    /// The rows of the log have come, but for those that are left.
    pub fn end_log(&self, left: Vec<Span>) {
        let _writer = self.writer.lock();
        let mut state = (*self.state.load_full()).clone();
        let pending = Arc::make_mut(&mut state.pending);
        pending.retain(|pending| pending.of != Pending::Log);
        pending.extend(fold_spans(left).into_iter().map(|span| PendingRows { of: Pending::Log, span }));
        self.state.store(Arc::new(state));
    }

    /// Drops the blocks for which `expired` is true, and returns them.
    pub fn expire(&self, expired: impl Fn(&HeldBlock) -> bool) -> Vec<Arc<HeldBlock>> {
        let writer = self.writer.lock();
        let before = self.state.load_full();
        let (gone, kept): (Vec<_>, Vec<_>) = before.blocks.iter().cloned().partition(|held| expired(held));
        if !gone.is_empty() {
            let mut state = (*before).clone();
            state.blocks = Arc::new(kept);
            state.refresh_schema();
            self.state.store(Arc::new(state));
        }
        drop(writer);
        for held in &gone {
            held.expire();
        }
        gone
    }

    /// Puts another block in the place of one, or none while its rows move to shared memory. Returns the bytes the
    /// table grew by; `None` when the block is no longer there.
    pub fn replace(&self, block_id: u64, other: Option<Arc<HeldBlock>>) -> Option<i64> {
        let _writer = self.writer.lock();
        let before = self.state.load_full();
        let mut state = (*before).clone();
        let mut blocks = state.blocks.as_ref().clone();
        let place = blocks.iter().position(|held| held.id() == block_id)?;
        let mut grown = -signed(blocks.remove(place).memory_bytes());
        state.blocks = Arc::new(blocks);
        if let Some(other) = other {
            grown += signed(other.memory_bytes());
            state.widen_schema(other.known_columns());
            insert_in_order(&mut state, other);
        }
        self.state.store(Arc::new(state));
        Some(grown)
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
            rows: state.rows() + state.pending.iter().map(|pending| pending.span.rows).sum::<u64>(),
            bytes: state.bytes(),
            spans: state.spans(),
            by_time: Vec::new(),
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
        // Those that a start has found and nobody has opened yet are taken to be like the others.
        let mut to_open = BLOCKS_OPENED_MAX;
        let (mut rows, mut rows_open) = (0, 0);
        for held in state.blocks.iter().rev() {
            rows += held.rows() as u64;
            if !held.is_open() {
                if to_open == 0 {
                    continue;
                }
                to_open -= 1;
            }
            rows_open += held.rows() as u64;
            for column in held.columns() {
                if let Some(known) = columns.get_mut(column.name.as_str()) {
                    known.value_count += (held.rows() as u64).saturating_sub(column.null_count);
                    known.distinct_estimate = known.distinct_estimate.max(column.distinct_count);
                    known.bytes += column.bytes;
                }
            }
        }
        if rows > rows_open && rows_open > 0 {
            let scaled = |part: u64| (u128::from(part) * u128::from(rows) / u128::from(rows_open)) as u64;
            for known in columns.values_mut() {
                known.value_count = scaled(known.value_count);
                known.bytes = scaled(known.bytes);
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

/// Takes rows that came out of what is pending of the log.
fn end_logged(pending: &mut [PendingRows], came: Span) {
    let held_it = |rows: &&mut PendingRows| {
        let span = rows.span;
        rows.of == Pending::Log
            && span.first <= came.first
            && came.last <= span.last
            && span.rows >= came.rows
    };
    // When none is found the rows count as pending for a while longer, which understates and never overstates.
    if let Some(rows) = pending.iter_mut().find(held_it) {
        rows.span.rows -= came.rows;
    }
}

/// Blocks are in the order they were sealed in, whatever order they come back in.
fn insert_in_order(state: &mut TableState, block: Arc<HeldBlock>) {
    let mut blocks = state.blocks.as_ref().clone();
    let place = blocks.partition_point(|held| held.id() < block.id());
    blocks.insert(place, block);
    state.blocks = Arc::new(blocks);
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Rows by the times in their column.
pub(crate) fn rows_by_time(times: &Column, rows: usize) -> Vec<Span> {
    let times = times.to_typed_array(ColumnType::Time, rows);
    times
        .as_primitive_opt::<TimestampNanosecondType>()
        .map(|times| by_time(times.values()))
        .unwrap_or_default()
}
