//! A leaf: its tables, its memory, and the three things it does with them: append, query, describe.
//!
//! Nothing here is async; the door calls it from threads that may block. Scans run on the leaf's own pool.
//! Lock order: `tables` before a table's writer, never the other way; `appends` and `queries` are only ever held
//! shared by requests and taken exclusively by the hand-over, appends first.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use gannet_query::value::rows_bytes;
use gannet_query::{
    Completeness, Holdings, LeafEpoch, LeafState, Missing, MissingReason, Partial, Phase, Plan, TIME_COLUMN,
    TableHolding,
};
use parking_lot::{Mutex, RwLock};

use crate::lifecycle::{Lifecycle, Request, admits};
use crate::manifest::{Manifest, TableManifest, spans_out};
use crate::open_rows::OpenRows;
use crate::runs::runs_of;
use crate::scan::{Cancel, ScanError, ScanLimits, scan};
use crate::table::Table;
use crate::{Config, LeafError};

/// Rows that wait to be sealed may take this many bytes; a large append that adds more seals its own.
const SEALING_BYTES_MAX: u64 = 256 << 20;
/// They may also take at most this part of a leaf's memory, and of what their table may take: rows that are not sealed
/// are several times as large, and the room they need for a while must not cost older rows.
const SEALING_PART_OF_MEMORY: u64 = 8;
/// Appends of fewer rows leave the sealing to others until twice as much waits.
const LARGE_APPEND_ROWS: usize = 4096;
/// Threads that seal: on a machine with more cores, this many keep up with what its network brings.
const SEAL_THREADS_MAX: usize = 4;
/// How far sealing steps back behind appends and queries, as `nice` counts.
const SEAL_NICENESS: i32 = 10;
/// Scans recurse as deep as expressions nest.
const SCAN_STACK_BYTES: usize = 64 << 20;

/// Where a leaf's rows came from when it started.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// `shared memory`, or `nothing`.
    pub source: String,
    /// Why shared memory was refused, empty when it was not.
    pub detail: String,
    /// Rows that came with the start.
    pub rows: u64,
}

/// A leaf. See the module.
#[derive(Debug)]
pub struct Leaf {
    pub(crate) config: Config,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) tables: RwLock<BTreeMap<String, Arc<Table>>>,
    pub(crate) appends: RwLock<()>,
    pub(crate) queries: RwLock<()>,
    pub(crate) manifest: Mutex<Manifest>,
    pub(crate) origin: Origin,
    pub(crate) phases: Mutex<Vec<Phase>>,
    pub(crate) used_bytes: AtomicI64,
    pub(crate) next_block_id: AtomicU64,
    pub(crate) epoch: u64,
    pub(crate) _lock: gannet_shm::DirectoryLock,
    rows_ingested: AtomicU64,
    scan_pool: rayon::ThreadPool,
    seal_pool: rayon::ThreadPool,
    /// Bytes of the runs that wait to be sealed or are being sealed.
    sealing_bytes: AtomicU64,
}

/// Parts of a leaf that a start brings together, see [`crate::restart`].
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) manifest: Manifest,
    pub(crate) lock: gannet_shm::DirectoryLock,
    pub(crate) tables: BTreeMap<String, Arc<Table>>,
    pub(crate) origin: Origin,
    pub(crate) phases: Vec<Phase>,
    pub(crate) next_block_id: u64,
}

impl Leaf {
    pub(crate) fn from_parts(config: Config, parts: Parts) -> Result<Leaf, LeafError> {
        let pool = |threads: usize, name: &'static str, niceness: i32| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .stack_size(SCAN_STACK_BYTES)
                .thread_name(move |index| format!("{name}-{index}"))
                .start_handler(move |_| step_back(niceness))
                .build()
                .map_err(|error| LeafError::Internal(format!("start {name} threads: {error}")))
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let used: u64 = parts.tables.values().map(|table| table.snapshot().bytes()).sum();
        let leaf = Leaf {
            scan_pool: pool(config.scan_threads, "scan", 0)?,
            seal_pool: pool(cores.min(SEAL_THREADS_MAX), "seal", SEAL_NICENESS)?,
            lifecycle: Lifecycle::default(),
            tables: RwLock::new(parts.tables),
            appends: RwLock::default(),
            queries: RwLock::default(),
            epoch: parts.manifest.epoch,
            manifest: Mutex::new(parts.manifest),
            origin: parts.origin,
            phases: Mutex::new(parts.phases),
            used_bytes: AtomicI64::new(i64::try_from(used).unwrap_or(i64::MAX)),
            next_block_id: AtomicU64::new(parts.next_block_id),
            rows_ingested: AtomicU64::new(0),
            sealing_bytes: AtomicU64::new(0),
            _lock: parts.lock,
            config,
        };
        leaf.lifecycle.enter(LeafState::Serving);
        Ok(leaf)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.config.id
    }

    /// Its state.
    pub fn state(&self) -> LeafState {
        self.lifecycle.state()
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes in use by rows.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed).max(0) as u64
    }

    fn admit(&self, request: Request) -> Result<(), LeafError> {
        let state = self.lifecycle.state();
        if admits(state, request) {
            Ok(())
        } else {
            Err(LeafError::NotServing { leaf: self.config.id.clone(), state })
        }
    }

    fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.tables.read().get(name).cloned()
    }

    fn table_or_new(&self, name: &str) -> Result<Arc<Table>, LeafError> {
        if let Some(table) = self.table(name) {
            return Ok(table);
        }
        let mut tables = self.tables.write();
        if tables.len() >= self.config.tables_max && !tables.contains_key(name) {
            let what = format!("leaf {} has {} tables, which is its limit", self.config.id, tables.len());
            return Err(LeafError::Batch { table: name.to_owned(), what });
        }
        let new = || Arc::new(Table::restored(name, Vec::new(), Vec::new()));
        Ok(Arc::clone(tables.entry(name.to_owned()).or_insert_with(new)))
    }

    /// Adds a row batch, all or nothing; its rows are visible to queries when this returns. Returns what the table
    /// now holds, with its columns if they changed.
    ///
    /// # Errors
    /// [`LeafError::NotServing`], [`LeafError::Full`], [`LeafError::Batch`]: nothing was kept then.
    pub fn append(self: &Arc<Self>, table: &str, batches: &[RecordBatch]) -> Result<TableHolding, LeafError> {
        let _admitted = self.appends.read();
        self.admit(Request::Append)?;
        let rows = self.check_batch(table, batches)?;
        let Some(rows) = rows else { return Ok(self.holding(table, false)) };
        self.make_room(table, rows_bytes(&rows) as u64)?;
        let held = self.table_or_new(table)?;
        let appended = held.append(&rows, self.config.columns_per_table_max, Instant::now())?;
        self.used_bytes.fetch_add(appended.bytes_added, Ordering::Relaxed);
        self.rows_ingested.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
        let bytes_max =
            if rows.num_rows() < LARGE_APPEND_ROWS { 2 } else { 1 } * self.sealing_bytes_max(table);
        for run in appended.to_seal {
            self.seal(&held, run, bytes_max);
        }
        Ok(self.holding(table, appended.schema_changed))
    }

    /// The batches as one, after every rule of `ingest.proto` was checked; `None` without rows.
    fn check_batch(&self, table: &str, batches: &[RecordBatch]) -> Result<Option<RecordBatch>, LeafError> {
        let wrong = |what: String| LeafError::Batch { table: table.to_owned(), what };
        if table.is_empty() || table.len() > 128 {
            return Err(wrong(format!("its name has {} bytes, not 1 to 128", table.len())));
        }
        let Some(first) = batches.first() else { return Ok(None) };
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows > self.config.batch_rows_max {
            return Err(wrong(format!("it has {rows} rows, the limit is {}", self.config.batch_rows_max)));
        }
        let bytes: usize = batches.iter().map(rows_bytes).sum();
        if bytes > self.config.batch_bytes_max.saturating_mul(4) {
            let limit = self.config.batch_bytes_max.saturating_mul(4);
            return Err(wrong(format!("it takes {bytes} bytes, the limit is {limit}")));
        }
        if rows == 0 {
            return Ok(None);
        }
        let schema = first.schema();
        for (index, field) in schema.fields().iter().enumerate() {
            let name = field.name();
            if name.is_empty() || name.len() > 256 {
                return Err(wrong(format!("a column name has {} bytes, not 1 to 256", name.len())));
            }
            if schema.fields()[..index].iter().any(|other| other.name() == name) {
                return Err(wrong(format!("column {name} is there twice")));
            }
            let known = gannet_query::ColumnType::from_arrow(field.data_type());
            let is_time = known == Some(gannet_query::ColumnType::Time);
            if known.is_none() || is_time != (name == TIME_COLUMN) {
                return Err(wrong(format!("column {name} has type {}", field.data_type())));
            }
        }
        let rows =
            arrow::compute::concat_batches(&schema, batches).map_err(|error| wrong(error.to_string()))?;
        match rows.column_by_name(TIME_COLUMN) {
            None => Err(wrong("it has no column time".to_owned())),
            Some(time) if arrow::array::Array::null_count(time) > 0 => {
                Err(wrong("a time is NULL".to_owned()))
            }
            Some(_) => Ok(Some(rows)),
        }
    }

    /// Expires the oldest blocks until `needed` more bytes fit.
    fn make_room(&self, table: &str, needed: u64) -> Result<(), LeafError> {
        let limit = self.config.memory_limit_bytes;
        while self.used_bytes().saturating_add(needed) > limit {
            if self.expire_oldest() == 0 {
                return Err(LeafError::Full {
                    leaf: self.config.id.clone(),
                    table: table.to_owned(),
                    needed,
                    used: self.used_bytes(),
                    limit,
                });
            }
        }
        Ok(())
    }

    /// Drops the row block whose newest row is oldest, of all tables. Returns the bytes that gave.
    fn expire_oldest(&self) -> u64 {
        let tables: Vec<Arc<Table>> = self.tables.read().values().cloned().collect();
        let oldest = tables
            .iter()
            .flat_map(|table| {
                let state = table.snapshot();
                let blocks: Vec<(i64, u64)> =
                    state.blocks.iter().map(|held| (held.block.time_range().1, held.block.id())).collect();
                blocks.into_iter().map(move |(last, id)| (last, id, table))
            })
            .min_by_key(|(last, id, _)| (*last, *id));
        let Some((_, id, table)) = oldest else { return 0 };
        let (rows, bytes) = table.expire(|held| held.block.id() == id);
        self.used_bytes.fetch_sub(bytes as i64, Ordering::Relaxed);
        tracing::info!(table = table.name(), rows, bytes, "expired the oldest row block: memory limit");
        bytes
    }

    /// Bytes that may wait to be sealed when rows of this table are added.
    fn sealing_bytes_max(&self, table: &str) -> u64 {
        let room = match self.config.table_bytes_max_of(table) {
            0 => self.config.memory_limit_bytes,
            bytes_max => bytes_max.min(self.config.memory_limit_bytes),
        };
        SEALING_BYTES_MAX.min(room / SEALING_PART_OF_MEMORY)
    }

    /// Seals a run in the background, or at once when more than `bytes_max` bytes wait: whoever brings more than the
    /// background can seal does a part of it, and that slows the bringing.
    fn seal(self: &Arc<Self>, table: &Arc<Table>, run: Arc<OpenRows>, bytes_max: u64) {
        let bytes = run.bytes() as u64;
        let waiting = self.sealing_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (leaf, table) = (Arc::clone(self), Arc::clone(table));
        let work = move || {
            leaf.seal_now(&table, &run);
            drop(run);
            leaf.sealing_bytes.fetch_sub(bytes, Ordering::Relaxed);
        };
        if waiting > bytes_max { work() } else { self.seal_pool.spawn_fifo(work) }
    }

    pub(crate) fn seal_now(&self, table: &Table, run: &Arc<OpenRows>) {
        let id = self.next_block_id.fetch_add(1, Ordering::Relaxed);
        match table.seal(run, id, self.config.encodings) {
            Ok(grown) => {
                self.used_bytes.fetch_add(grown, Ordering::Relaxed);
            }
            Err(error) => tracing::error!(table = table.name(), %error, "rows stay open"),
        }
    }

    /// Answers a plan with what the leaf holds, by the deadline in `cancel`.
    ///
    /// # Errors
    /// [`LeafError::NotServing`], [`LeafError::StalePlan`], [`LeafError::Plan`], [`LeafError::Limit`].
    pub fn query(&self, plan: &Plan, cancel: &Cancel) -> Result<Partial, LeafError> {
        let _admitted = self.queries.read_recursive();
        self.admit(Request::Query)?;
        let started = Instant::now();
        let table = self.table(&plan.table);
        let state = table.as_ref().map(|table| table.snapshot()).unwrap_or_default();
        let runs = runs_of(&state);
        let limits = ScanLimits {
            memory_bytes_max: self.config.query_memory_bytes_max,
            result_bytes_max: self.config.query_rows_bytes_max,
        };
        let outcome =
            scan(&runs, plan, &limits, cancel, &self.scan_pool).map_err(|error| plan_error(plan, error))?;
        let mut stats = outcome.stats;
        stats.scan_us_max = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let missing = |reason, rows, detail: String| Missing {
            leaf: self.config.id.clone(),
            reason,
            rows: Some(rows),
            answered: true,
            detail,
        };
        let mut completeness = Completeness {
            answered: vec![LeafEpoch { leaf: self.config.id.clone(), epoch: self.epoch }],
            rows_covered: outcome.rows_covered,
            newest_time: outcome.newest_time,
            ..Default::default()
        };
        if outcome.unscanned > 0 {
            let detail = "the deadline came before all blocks were scanned".to_owned();
            completeness.missing.push(missing(MissingReason::Timeout, outcome.unscanned, detail));
        }
        for (run, error) in outcome.unreadable {
            let rows = runs.get(run).map_or(0, |run| run.rows() as u64);
            tracing::warn!(table = plan.table, rows, error, "a row block cannot be read and is not served");
            completeness.missing.push(missing(MissingReason::Error, rows, error));
        }
        let lost = state.lost_in(&plan.time_range);
        if lost > 0 {
            completeness.missing.push(missing(MissingReason::Lost, lost, self.lost_detail()));
        }
        Ok(Partial { body: outcome.body, completeness, stats })
    }

    fn lost_detail(&self) -> String {
        match self.origin.detail.as_str() {
            "" => "rows held before the start did not come back".to_owned(),
            detail => format!("rows held before the start did not come back: {detail}"),
        }
    }

    /// Seals what waited long enough, expires what retention says, and notes row counts in the manifest. Called
    /// about once a second.
    pub fn maintain(self: &Arc<Self>) {
        let _admitted = self.appends.read();
        if self.admit(Request::Append).is_err() {
            return;
        }
        let tables: Vec<Arc<Table>> = self.tables.read().values().cloned().collect();
        for table in &tables {
            if let Some(run) = table.take_aged(self.config.seal_age_seconds, Instant::now()) {
                self.seal(table, run, self.sealing_bytes_max(table.name()));
            }
            self.expire_by_retention(table);
        }
        let mut manifest = self.manifest.lock();
        let now = tables_manifest(&tables);
        if manifest.tables != now {
            manifest.tables = now;
            if let Err(error) = manifest.store_unsynced(&self.config.data_dir) {
                tracing::warn!(%error, "row counts were not noted");
            }
        }
    }

    fn expire_by_retention(&self, table: &Table) {
        let seconds = self.config.retention_seconds_of(table.name());
        let mut dropped = (0, 0);
        if seconds > 0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i64);
            let oldest =
                now.saturating_sub(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000));
            dropped = table.expire(|held| held.block.time_range().1 < oldest);
            let lost = table.snapshot().lost.as_ref().clone();
            if lost.iter().any(|span| span.last < oldest) {
                table.set_lost(lost.into_iter().filter(|span| span.last >= oldest).collect());
            }
        }
        let bytes_max = self.config.table_bytes_max_of(table.name());
        if bytes_max > 0 {
            let state = table.snapshot();
            let mut over = state.bytes().saturating_sub(bytes_max);
            let mut blocks: Vec<(i64, u64, u64)> = state
                .blocks
                .iter()
                .map(|held| (held.block.time_range().1, held.block.id(), held.block.image().len() as u64))
                .collect();
            blocks.sort_unstable();
            let mut oldest = Vec::new();
            for (_, id, bytes) in blocks {
                if over == 0 {
                    break;
                }
                over = over.saturating_sub(bytes);
                oldest.push(id);
            }
            if !oldest.is_empty() {
                let more = table.expire(|held| oldest.contains(&held.block.id()));
                dropped = (dropped.0 + more.0, dropped.1 + more.1);
            }
        }
        if dropped.0 > 0 {
            self.used_bytes.fetch_sub(dropped.1 as i64, Ordering::Relaxed);
            tracing::info!(table = table.name(), rows = dropped.0, bytes = dropped.1, "expired by retention");
        }
    }

    /// Forgets the rows that are gone for good. Returns how many.
    ///
    /// # Errors
    /// When the manifest cannot be replaced; nothing is forgotten then.
    pub fn accept_loss(&self) -> Result<u64, LeafError> {
        let tables: Vec<Arc<Table>> = self.tables.read().values().cloned().collect();
        let mut manifest = self.manifest.lock();
        let mut accepted = manifest.clone();
        accepted.tables.iter_mut().for_each(|table| table.lost.clear());
        accepted.store(&self.config.data_dir)?;
        *manifest = accepted;
        let mut rows = 0;
        for table in tables {
            rows += table.snapshot().lost.iter().map(|span| span.rows).sum::<u64>();
            table.set_lost(Vec::new());
        }
        tracing::info!(rows, "loss accepted");
        Ok(rows)
    }

    fn holding(&self, table: &str, with_columns: bool) -> TableHolding {
        let Some(held) = self.table(table) else {
            return TableHolding { name: table.to_owned(), ..Default::default() };
        };
        let mut holding = held.holding(self.config.retention_seconds_of(table));
        if with_columns {
            holding.columns = held.columns();
        }
        holding
    }

    /// What it says of itself, with these tables.
    fn describe_with(&self, tables: Vec<TableHolding>) -> Holdings {
        Holdings {
            leaf: self.config.id.clone(),
            epoch: self.epoch,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: self.lifecycle.state(),
            source: self.origin.source.clone(),
            source_detail: self.origin.detail.clone(),
            memory_used_bytes: self.used_bytes(),
            memory_limit_bytes: self.config.memory_limit_bytes,
            phases: self.phases.lock().clone(),
            tables,
            rows_ingested: self.rows_ingested.load(Ordering::Relaxed),
            rows_restored: self.origin.rows,
            process: format!("process {}", std::process::id()),
        }
    }

    /// Everything it says of itself.
    pub fn describe(&self) -> Holdings {
        let names: Vec<String> = self.tables.read().keys().cloned().collect();
        self.describe_with(names.iter().map(|name| self.holding(name, true)).collect())
    }

    /// What it says of itself in an acknowledgement.
    pub fn describe_table(&self, holding: TableHolding) -> Holdings {
        self.describe_with(vec![holding])
    }
}

/// Lets other threads go before this one, as far as `niceness` says. A system that refuses changes nothing but that.
fn step_back(niceness: i32) {
    if niceness != 0
        && let Err(error) = rustix::process::setpriority_process(None, niceness)
    {
        tracing::debug!(%error, niceness, "a thread keeps its priority");
    }
}

/// What the manifest notes of the tables.
pub(crate) fn tables_manifest(tables: &[Arc<Table>]) -> Vec<TableManifest> {
    tables
        .iter()
        .map(|table| {
            let state = table.snapshot();
            TableManifest {
                name: table.name().to_owned(),
                spans: spans_out(&state.spans()),
                lost: spans_out(&state.lost),
            }
        })
        .collect()
}

fn plan_error(plan: &Plan, error: ScanError) -> LeafError {
    match error {
        ScanError::StalePlan { column, plan: planned, .. } => {
            LeafError::StalePlan { table: plan.table.clone(), column, planned }
        }
        ScanError::Compile(what) | ScanError::Evaluate(what) => LeafError::Plan(what),
        ScanError::Memory { .. } => LeafError::Limit(error.to_string()),
        ScanError::Query(gannet_query::QueryError::Memory { .. }) => LeafError::Limit(error.to_string()),
        ScanError::Query(error) => LeafError::Plan(error.to_string()),
    }
}
