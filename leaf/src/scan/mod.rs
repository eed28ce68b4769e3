//! The scan: runs of rows × a plan → the body of a partial.
//!
//! A run is a row block or a chunk of open rows; the scan knows both only as a [`RowRun`]. It is synchronous, holds no
//! lock, knows no runtime and never sees SQL, storage or the wire. The steps, per run:
//!
//! 1. *prune*: the run is proven irrelevant by its times, by the range of its ints, or by columns it lacks;
//! 2. *filter*: one conjunct after the other narrows a [`selection::Selection`], on codes where that is possible;
//! 3. *group*: every key becomes codes, the codes of all keys one group number a row;
//! 4. *aggregate*: the states of the run's groups, merged by value once per run. Rows instead of groups are sorted
//!    and cut per run, and only the survivors are decoded.
//!
//! Invariants:
//! * A run counts whole or not at all: its groups are merged after its last row was seen.
//! * How a column is encoded never shows in the result.
//! * An expression that fails on values which the other conjuncts exclude does not fail the scan.
//!
//! Start reading at [`scan`], then `run_scan`, `filter`, `keys`, `groups` and `ranked`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gannet_query::{Body, ColumnType, Plan, QueryError, ScanStats, Top, TypeSet};

use crate::column::Column;
use crate::surroundings::Clock;

mod arguments;
mod arithmetic;
mod code_sums;
mod coder;
mod columns;
mod compile;
mod compound;
mod cuts;
mod derive;
mod domain;
mod filter;
mod float_comparisons;
mod float_formulas;
mod floats;
mod gathering;
mod groups;
mod interim;
mod intern;
mod ints;
mod key_ids;
mod keys;
mod list_keys;
mod members;
mod numbering;
mod pairs;
mod prepare;
mod ranked;
mod readers;
mod run_scan;
mod selection;
mod steps;
#[cfg(test)]
mod tests;
mod text_tests;
mod whole;

/// A run of rows that can be scanned: a row block or a chunk of open rows. It does not change while it is scanned.
pub trait RowRun: Send + Sync {
    /// Sees to it that what the run says of its columns can be relied on. Is called before anything of them is asked.
    ///
    /// # Errors
    /// When the run as a whole cannot be read.
    fn ready(&self) -> Result<(), RunError> {
        Ok(())
    }
    /// How many rows.
    fn rows(&self) -> usize;
    /// The first and last `time`, both inclusive.
    fn time_range(&self) -> (i64, i64);
    /// A column in the run's own type; `None` when the run lacks it.
    ///
    /// # Errors
    /// When the column's bytes cannot be trusted or read.
    fn column(&self, name: &str) -> Result<Option<Column>, RunError>;
    /// The rows of a column at some ascending positions.
    ///
    /// # Errors
    /// As [`RowRun::column`].
    fn column_at(&self, name: &str, rows: &[u32]) -> Result<Option<Column>, RunError> {
        Ok(self.column(name)?.map(|column| column.pick(rows)))
    }
    /// The place of a column among those of this run, and the types of its values in it; `None` when the run lacks it.
    /// It is looked for where it was in another run first: thousands of runs mostly have the same columns.
    fn find(&self, name: &str, near: usize) -> Option<(usize, TypeSet)>;
    /// The smallest and largest value of an int or time column, when they are known. It is looked for as by
    /// [`RowRun::find`].
    fn int_range(&self, name: &str, near: usize) -> Option<(i64, i64)>;
    /// False when no row has this text in a string column, or one that begins with it.
    fn may_hold_text(&self, _name: &str, _value: &str, _is_prefix: bool) -> bool {
        true
    }
    /// The sum of an int column's values and the number of rows without one, when they are known. It is looked for as by
    /// [`RowRun::find`].
    fn int_sum(&self, _name: &str, _near: usize) -> Option<(i128, u64)> {
        None
    }
    /// True for a row block, false for open rows.
    fn is_block(&self) -> bool;
}

/// Why a run's column cannot be read, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RunError(pub String);

/// How much one scan may take, and give.
#[derive(Debug, Clone, Copy)]
pub struct ScanLimits<'a> {
    /// Bytes for groups and their states, for each scanning thread and for the merged result.
    pub memory_bytes_max: u64,
    /// Bytes of rows, for plans that ask for rows.
    pub result_bytes_max: u64,
    /// Other groups than these may be left out, where that saves work. Who wants no others cuts the outcome once more.
    pub top: Option<&'a Top>,
}

/// A time of a clock.
#[derive(Debug, Clone)]
pub struct Deadline {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Its monotonic time.
    pub at: Duration,
}

impl Deadline {
    fn is_past(&self) -> bool {
        self.clock.monotonic() >= self.at
    }
}

/// When to stop: at a deadline, or when the caller no longer waits.
#[derive(Debug, Default)]
pub struct Cancel {
    deadline: Option<Deadline>,
    cancelled: AtomicBool,
    abandoned: AtomicBool,
}

impl Cancel {
    /// Stops at the deadline, if there is one.
    pub fn new(deadline: Option<Deadline>) -> Cancel {
        Cancel { deadline, ..Cancel::default() }
    }

    /// Stops now: nobody waits for the outcome.
    pub fn cancel(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// True when nobody waits for the outcome.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// True when it is time to stop.
    pub fn is_cancelled(&self) -> bool {
        if self.cancelled.load(Ordering::Relaxed) {
            return true;
        }
        let late = self.deadline.as_ref().is_some_and(Deadline::is_past);
        if late {
            // A deadline does not come back; the next check is a load.
            self.cancelled.store(true, Ordering::Relaxed);
        }
        late
    }
}

/// What a scan found; or, with an optional body, has found so far.
#[derive(Debug)]
pub struct ScanOutcome<B = Body> {
    /// Groups or rows, of the covered runs and no others.
    pub body: B,
    /// What was done.
    pub stats: ScanStats,
    /// Rows of the runs that overlap the plan's time range and were scanned or proven irrelevant.
    pub rows_covered: u64,
    /// Runs that could not be read, by index, with the reason; their rows are not covered.
    pub unreadable: Vec<(usize, String)>,
    /// Rows of runs that were left when the deadline came.
    pub unscanned: u64,
    /// No covered row inside the plan's time range is newer than this.
    pub newest_time: Option<i64>,
}

/// Why a scan has no outcome.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ScanError {
    /// The plan was made for other types than are held now; the aggregator plans again.
    #[error("plan is stale: column `{column}` is {} in the plan, {} here", plan.name(), held.name())]
    StalePlan {
        /// The column.
        column: String,
        /// Its type in the plan.
        plan: ColumnType,
        /// The type that holds the plan's and the run's values.
        held: ColumnType,
    },
    /// An expression names what does not exist, or its types do not fit.
    #[error("cannot compile {0}")]
    Compile(String),
    /// An expression failed on a value of a selected row.
    #[error("cannot evaluate {0}")]
    Evaluate(String),
    /// The result would take more memory than it may have.
    #[error("query needs more than {limit} bytes for its {what}")]
    Memory {
        /// The limit in bytes.
        limit: u64,
        /// `groups` or `rows`.
        what: &'static str,
    },
    /// Aggregating or merging failed.
    #[error(transparent)]
    Query(QueryError),
}

impl From<QueryError> for ScanError {
    fn from(error: QueryError) -> ScanError {
        match error {
            QueryError::Memory { limit, .. } => ScanError::Memory { limit, what: "groups" },
            other => ScanError::Query(other),
        }
    }
}

/// Why the scan of one run ended early.
#[derive(Debug)]
enum Stop {
    /// The run cannot be read: it is left out and reported.
    Unreadable(String),
    /// The deadline came.
    Cancelled,
    /// The whole scan fails.
    Failed(ScanError),
}

impl<E: Into<ScanError>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.into())
    }
}

impl From<arrow::error::ArrowError> for ScanError {
    fn from(error: arrow::error::ArrowError) -> ScanError {
        ScanError::Evaluate(error.to_string())
    }
}

/// Somebody who wants to hear of a scan before it is over. See `interim`.
pub struct Watcher<'a> {
    /// How often.
    pub every: Duration,
    /// Groups or rows as well, and not only how much is covered.
    pub with_body: bool,
    /// Is called on a thread of the scan, which waits meanwhile.
    pub tell: &'a (dyn Fn(ScanOutcome<Option<Body>>) + Sync),
}

/// Scans runs for a plan on a pool's threads.
///
/// # Errors
/// [`ScanError`]; a run that cannot be read and a deadline that comes are no errors but part of the outcome.
pub fn scan(
    runs: &[Arc<dyn RowRun>],
    plan: &Plan,
    limits: &ScanLimits<'_>,
    cancel: &Cancel,
    pool: &rayon::ThreadPool,
) -> Result<ScanOutcome, ScanError> {
    scan_watched(runs, plan, limits, cancel, pool, None)
}

/// As [`scan`], with somebody who wants to hear of it before it is over.
///
/// # Errors
/// As [`scan`].
pub fn scan_watched(
    runs: &[Arc<dyn RowRun>],
    plan: &Plan,
    limits: &ScanLimits<'_>,
    cancel: &Cancel,
    pool: &rayon::ThreadPool,
    watcher: Option<&Watcher<'_>>,
) -> Result<ScanOutcome, ScanError> {
    let start = Instant::now();
    // Everything happens on the pool: expressions can be thousands of levels deep, and its stacks are made for that.
    let mut outcome = pool.install(|| run_scan::scan(runs, plan, limits, cancel, watcher))?;
    outcome.stats.scan_us_max = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(outcome)
}
