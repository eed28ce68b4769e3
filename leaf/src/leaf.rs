//! A leaf: its tables, its memory, and the three things it does with them: append, query, describe.
//!
//! Nothing here is async; the door calls it from threads that may block. Scans run on the leaf's own pool.
//! Lock order: `tables` before a table's writer, never the other way; `appends` and `queries` are only ever held
//! shared by requests and taken exclusively by the hand-over, appends first.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use gannet_query::{Holdings, LeafState, Phase, TableHolding};
use gannet_shm::{DirectoryLock, Segments};
use parking_lot::{Mutex, RwLock};

use crate::ledger::Ledger;
use crate::lifecycle::{Lifecycle, Request, admits};
use crate::manifest::{BlockEntry, Manifest};
use crate::query::Activity;
use crate::store::{LastCheckpoint, Waiting};
use crate::surroundings::Surroundings;
use crate::table::Table;
use crate::wal::Wal;
use crate::{Config, LeafError};

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
    pub(crate) surroundings: Surroundings,
    pub(crate) segments: Segments,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) tables: RwLock<BTreeMap<String, Arc<Table>>>,
    pub(crate) appends: RwLock<()>,
    pub(crate) queries: RwLock<()>,
    pub(crate) wal: Wal,
    pub(crate) ledger: Ledger,
    pub(crate) manifest: Mutex<Manifest>,
    pub(crate) waiting: Waiting,
    /// Held while a run of rows becomes a block that waits to be stored.
    pub(crate) sealed: Mutex<()>,
    /// Held by whoever stores blocks.
    pub(crate) storing: Mutex<()>,
    pub(crate) last_checkpoint: Mutex<LastCheckpoint>,
    pub(crate) phases: Mutex<Vec<Phase>>,
    /// The tables as they were when a stop began to take them apart.
    pub(crate) last_tables: Mutex<Option<Vec<TableHolding>>>,
    pub(crate) used_bytes: AtomicI64,
    pub(crate) next_block_id: AtomicU64,
    pub(crate) rows_ingested: AtomicU64,
    /// Bytes of the runs that wait to be sealed or are being sealed.
    pub(crate) sealing_bytes: AtomicU64,
    /// The rows of the log are back, so new ones may come.
    pub(crate) is_replayed: AtomicBool,
    /// A block is being subsampled.
    pub(crate) is_subsampling: AtomicBool,
    /// The last block that was sealed found no room in shared memory.
    pub(crate) shm_is_short: AtomicBool,
    /// See [`Manifest::unknown_records`].
    pub(crate) unknown_records: AtomicU64,
    /// Blocks that could not be read from their files.
    pub(crate) unread: Mutex<Vec<(String, BlockEntry)>>,
    pub(crate) recovering_since: Mutex<Option<Duration>>,
    pub(crate) retention: Mutex<crate::retention::Watch>,
    pub(crate) activity: Activity,
    pub(crate) epoch: u64,
    /// How long it ran in its lives before.
    ran_before_seconds: u64,
    /// What time it was for the age of rows when it last ran.
    pub(crate) ran_until_ns: Option<i64>,
    started: Duration,
    pub(crate) origin: Origin,
    pub(crate) scan_pool: rayon::ThreadPool,
    _lock: Option<DirectoryLock>,
}

/// Parts of a leaf that a start brings together, see [`crate::start`].
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) manifest: Manifest,
    pub(crate) lock: Option<DirectoryLock>,
    pub(crate) tables: BTreeMap<String, Arc<Table>>,
    pub(crate) origin: Origin,
    pub(crate) phases: Vec<Phase>,
    pub(crate) wal: Wal,
    pub(crate) ledger: Ledger,
    pub(crate) surroundings: Surroundings,
    pub(crate) segments: Segments,
}

impl Leaf {
    pub(crate) fn from_parts(config: Config, parts: Parts) -> Result<Leaf, LeafError> {
        let scan_pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.scan_threads)
            .stack_size(SCAN_STACK_BYTES)
            .thread_name(|index| format!("scan-{index}"))
            .build()
            .map_err(|error| LeafError::Internal(format!("start scan threads: {error}")))?;
        let used: u64 = parts.tables.values().map(|table| table.snapshot().bytes()).sum();
        let Parts { manifest, surroundings, .. } = parts;
        Ok(Leaf {
            scan_pool,
            lifecycle: Lifecycle::default(),
            tables: RwLock::new(parts.tables),
            appends: RwLock::default(),
            queries: RwLock::default(),
            wal: parts.wal,
            ledger: parts.ledger,
            waiting: Waiting::default(),
            sealed: Mutex::default(),
            storing: Mutex::default(),
            last_checkpoint: Mutex::default(),
            phases: Mutex::new(parts.phases),
            last_tables: Mutex::default(),
            used_bytes: AtomicI64::new(i64::try_from(used).unwrap_or(i64::MAX)),
            next_block_id: AtomicU64::new(manifest.next_block_id),
            rows_ingested: AtomicU64::new(0),
            sealing_bytes: AtomicU64::new(0),
            is_replayed: AtomicBool::new(false),
            is_subsampling: AtomicBool::new(false),
            shm_is_short: AtomicBool::new(false),
            unknown_records: AtomicU64::new(manifest.unknown_records),
            unread: Mutex::default(),
            recovering_since: Mutex::default(),
            retention: Mutex::default(),
            activity: Activity::default(),
            epoch: manifest.epoch,
            ran_before_seconds: manifest.running_seconds,
            ran_until_ns: manifest.ran_until_ns,
            started: surroundings.clock.monotonic(),
            manifest: Mutex::new(manifest),
            segments: parts.segments,
            surroundings,
            origin: parts.origin,
            _lock: parts.lock,
            config,
        })
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.config.id
    }

    /// Its state.
    pub fn state(&self) -> LeafState {
        self.lifecycle.state()
    }

    /// Which of its lives this is: grows with each start.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes in use by rows.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed).max(0) as u64
    }

    /// How long it has run in all its lives.
    pub fn running_seconds(&self) -> u64 {
        let now = self.surroundings.clock.monotonic();
        self.ran_before_seconds + now.saturating_sub(self.started).as_secs()
    }

    pub(crate) fn admit(&self, request: Request) -> Result<(), LeafError> {
        let state = self.lifecycle.state();
        let log_is_read = request != Request::Append || self.is_replayed.load(Ordering::Acquire);
        if admits(state, request) && log_is_read {
            Ok(())
        } else {
            Err(LeafError::NotServing { leaf: self.config.id.clone(), state })
        }
    }

    pub(crate) fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.tables.read().get(name).cloned()
    }

    pub(crate) fn table_or_new(&self, name: &str) -> Result<Arc<Table>, LeafError> {
        if let Some(table) = self.table(name) {
            return Ok(table);
        }
        let mut tables = self.tables.write();
        if tables.len() >= self.config.tables_max && !tables.contains_key(name) {
            let what = format!("leaf {} has {} tables, which is its limit", self.config.id, tables.len());
            return Err(LeafError::Batch { table: name.to_owned(), what });
        }
        Ok(Arc::clone(tables.entry(name.to_owned()).or_insert_with(|| Arc::new(Table::empty(name)))))
    }

    pub(crate) fn holding(&self, table: &str, with_columns: bool) -> TableHolding {
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
            machine: self.config.machine.clone(),
            takes_dictionaries: true,
        }
    }

    /// Everything it says of itself; once a stop takes its tables apart, what was in them before.
    pub fn describe(&self) -> Holdings {
        let last = self.last_tables.lock().clone();
        self.describe_with(last.unwrap_or_else(|| self.holdings()))
    }

    pub(crate) fn holdings(&self) -> Vec<TableHolding> {
        let names: Vec<String> = self.tables.read().keys().cloned().collect();
        let tables = names.iter().map(|name| {
            let by_time = self.table(name).map(|table| table.snapshot().by_time()).unwrap_or_default();
            TableHolding { by_time, ..self.holding(name, true) }
        });
        tables.collect()
    }

    /// What it says of itself in an acknowledgement.
    pub fn describe_table(&self, holding: TableHolding) -> Holdings {
        self.describe_with(vec![holding])
    }
}
