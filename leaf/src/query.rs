//! A plan over what a leaf holds: a snapshot of the table, a scan of its runs, and the record of what that covers.
//!
//! What a watcher hears before the answer is there is made by the same code as the answer; only the reason for which
//! rows are missing differs: they are still to be scanned, not late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gannet_query::{
    Body, Completeness, LeafEpoch, LeftOut, Missing, MissingReason, Partial, Plan, QueryError, ScanStats,
    SoFar, Top,
};

use crate::LeafError;
use crate::leaf::Leaf;
use crate::lifecycle::Request;
use crate::runs::runs_of;
use crate::scan::{Cancel, RowRun, ScanError, ScanLimits, ScanOutcome, Watcher, scan_watched};
use crate::table::TableState;

/// Somebody who wants to hear what there is before the answer.
pub struct Watch<'a> {
    /// How often.
    pub every: Duration,
    /// Groups or rows as well, and not only the record.
    pub with_body: bool,
    /// Is called on a thread of the scan, which waits meanwhile.
    pub tell: &'a (dyn Fn(SoFar) + Sync),
}

/// What a leaf does for those who ask.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    running: AtomicU64,
    stopped_early: AtomicU64,
}

/// A query that runs, until this is dropped.
struct Running<'a>(&'a Activity);

impl<'a> Running<'a> {
    fn begin(activity: &'a Activity) -> Running<'a> {
        activity.running.fetch_add(1, Ordering::AcqRel);
        Running(activity)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What a query looks at.
struct Snapshot {
    state: Arc<TableState>,
    runs: Vec<Arc<dyn RowRun>>,
}

impl Leaf {
    /// Queries that run now.
    pub fn queries_running(&self) -> u64 {
        self.activity.running.load(Ordering::Acquire)
    }

    /// Queries since the start whose scan did not come to its end, because of their deadline or because nobody waited
    /// any more.
    pub fn queries_stopped_early(&self) -> u64 {
        self.activity.stopped_early.load(Ordering::Acquire)
    }

    /// Answers a plan with what the leaf holds, by the deadline in `cancel`.
    ///
    /// # Errors
    /// [`LeafError::NotServing`], [`LeafError::StalePlan`], [`LeafError::Plan`], [`LeafError::Limit`].
    pub fn query(&self, plan: &Plan, cancel: &Cancel) -> Result<Partial, LeafError> {
        self.query_watched(plan, cancel, None, None)
    }

    /// As [`Leaf::query`], for somebody who wants no other groups than `top` says (some of the others may be there all the
    /// same), and with somebody who wants to hear what there is before.
    ///
    /// # Errors
    /// As [`Leaf::query`].
    pub fn query_watched(
        &self,
        plan: &Plan,
        cancel: &Cancel,
        top: Option<&Top>,
        watch: Option<&Watch<'_>>,
    ) -> Result<Partial, LeafError> {
        let _running = Running::begin(&self.activity);
        let _admitted = self.queries.read_recursive();
        self.admit(Request::Query)?;
        let started = self.surroundings.clock.monotonic();
        let table = self.table(&plan.table);
        let state = table.as_ref().map(|table| table.snapshot()).unwrap_or_default();
        let snapshot = Snapshot { runs: runs_of(&state), state };
        let limits = ScanLimits {
            memory_bytes_max: self.config.query_memory_bytes_max,
            result_bytes_max: self.config.query_rows_bytes_max,
            top,
        };
        let told = |so_far: ScanOutcome<Option<Body>>| {
            let (body, completeness, stats) = self.record(plan, &snapshot, so_far, MissingReason::Running);
            if let Some(watch) = watch {
                (watch.tell)(SoFar { body, completeness, stats, left_out: LeftOut::default() });
            }
        };
        let watcher =
            watch.map(|watch| Watcher { every: watch.every, with_body: watch.with_body, tell: &told });
        let outcome = scan_watched(&snapshot.runs, plan, &limits, cancel, &self.scan_pool, watcher.as_ref())
            .map_err(|error| plan_error(plan, error))?;
        if outcome.unscanned > 0 {
            self.activity.stopped_early.fetch_add(1, Ordering::AcqRel);
        }
        for (run, error) in &outcome.unreadable {
            let rows = snapshot.runs.get(*run).map_or(0, |run| run.rows() as u64);
            tracing::warn!(table = plan.table, rows, error, "a row block cannot be read and is not served");
        }
        let (body, completeness, mut stats) = self.record(plan, &snapshot, outcome, MissingReason::Timeout);
        let elapsed = self.surroundings.clock.monotonic().saturating_sub(started);
        stats.scan_us_max = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        Ok(Partial { body, completeness, stats, left_out: LeftOut::default() })
    }

    /// What a scan found with the record of what that covers; rows that it left are missing for this reason.
    fn record<B>(
        &self,
        plan: &Plan,
        snapshot: &Snapshot,
        outcome: ScanOutcome<B>,
        unscanned: MissingReason,
    ) -> (B, Completeness, ScanStats) {
        let Snapshot { state, runs } = snapshot;
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
            let detail = match unscanned {
                MissingReason::Running => "the leaf is scanning them",
                _ => "the deadline came before all blocks were scanned",
            };
            completeness.missing.push(missing(unscanned, outcome.unscanned, detail.to_owned()));
        }
        for (run, error) in outcome.unreadable {
            let rows = runs.get(run).map_or(0, |run| run.rows() as u64);
            completeness.missing.push(missing(MissingReason::Error, rows, error));
        }
        let pending = state.pending_in(&plan.time_range);
        if pending > 0 {
            let detail = "the leaf is reading them from disk".to_owned();
            completeness.missing.push(missing(MissingReason::Restarting, pending, detail));
        }
        let unknown = self.unknown_records.load(Ordering::Relaxed);
        if unknown > 0 {
            let detail = format!(
                "{unknown} records of the write-ahead log are damaged: nobody knows what rows they held"
            );
            let rows = None;
            completeness.missing.push(Missing { rows, ..missing(MissingReason::Lost, 0, detail) });
        }
        let lost = state.lost_in(&plan.time_range);
        if lost > 0 {
            completeness.missing.push(missing(MissingReason::Lost, lost, self.lost_detail()));
        }
        (outcome.body, completeness, outcome.stats)
    }

    fn lost_detail(&self) -> String {
        match self.origin.detail.as_str() {
            "" => "rows held before the start did not come back".to_owned(),
            detail => format!("rows held before the start did not come back: {detail}"),
        }
    }
}

fn plan_error(plan: &Plan, error: ScanError) -> LeafError {
    match error {
        ScanError::StalePlan { column, plan: planned, .. } => {
            LeafError::StalePlan { table: plan.table.clone(), column, planned }
        }
        ScanError::Compile(what) | ScanError::Evaluate(what) => LeafError::Plan(what),
        ScanError::Memory { .. } => LeafError::Limit(error.to_string()),
        ScanError::Query(QueryError::Memory { .. }) => LeafError::Limit(error.to_string()),
        ScanError::Query(error) => LeafError::Plan(error.to_string()),
    }
}
