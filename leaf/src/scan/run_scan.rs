//! One scan over many runs: who takes which run, and how their results become one.
//!
//! Each thread of the pool takes the next run from a shared list until there is none, and merges into a result of its
//! own; the results are merged at the end. Under an order by time the list begins with the runs that the first rows
//! are in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arrow::array::new_null_array;
use gannet_query::{Body, Merger, Plan, RowSet, ScanStats, Share, TimeRange};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use super::arguments::RowWeights;
use super::columns::Run;
use super::gathering::Gathering;
use super::groups;
use super::numbering::Scratch;
use super::prepare::{Conjunct, OutputPlan, Prepared, prepare};
use super::ranked::{self, Shared};
use super::selection::Selection;
use super::{Cancel, RowRun, ScanError, ScanLimits, ScanOutcome, Stop, filter, text_tests};

/// What all threads of a scan share.
struct Scan<'a> {
    runs: &'a [Arc<dyn RowRun>],
    /// The runs that overlap the time range, in the order they are taken.
    order: Vec<usize>,
    next: AtomicUsize,
    failed: AtomicBool,
    prepared: &'a Prepared<'a>,
    limits: &'a ScanLimits,
    cancel: &'a Cancel,
    shared: Option<Shared>,
}

/// What one thread has.
struct Gathered {
    gathering: Gathering,
    stats: ScanStats,
    events: f64,
    rows_covered: u64,
    unreadable: Vec<(usize, String)>,
    unscanned: u64,
    newest_time: Option<i64>,
}

pub(super) fn scan(
    runs: &[Arc<dyn RowRun>],
    plan: &Plan,
    limits: &ScanLimits,
    cancel: &Cancel,
) -> Result<ScanOutcome, ScanError> {
    let prepared = guarded(|| prepare(plan))?;
    let relevant = |run: &Arc<dyn RowRun>| {
        let (first, last) = run.time_range();
        run.rows() > 0 && plan.time_range.overlaps(first, last)
    };
    let mut order: Vec<usize> = (0..runs.len()).filter(|index| relevant(&runs[*index])).collect();
    let shared = match &prepared.output {
        OutputPlan::Groups(_) => None,
        OutputPlan::Rows(rows) => {
            match rows.by_time {
                Some(true) => order.sort_by_key(|index| std::cmp::Reverse(runs[*index].time_range().1)),
                Some(false) => order.sort_by_key(|index| runs[*index].time_range().0),
                None => {}
            }
            if let Some(by) = rows.by_value {
                // What is likely to be among the first comes first; what is not known could be anything.
                let name = &prepared.specs[by.column].name;
                let end = |index: &usize| match (runs[*index].int_range(name), by.descending) {
                    (None, _) => i128::MIN,
                    (Some((_, max)), true) => -i128::from(max),
                    (Some((min, _)), false) => i128::from(min),
                };
                order.sort_by_key(end);
            }
            Some(Shared::new(rows))
        }
    };
    let irrelevant_blocks = runs.iter().filter(|run| run.is_block() && !relevant(run)).count() as u64;
    let threads = rayon::current_num_threads().min(order.len()).max(1);
    let scan = Scan {
        runs,
        order,
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        prepared: &prepared,
        limits,
        cancel,
        shared,
    };
    let gathered: Vec<Result<Gathered, ScanError>> =
        (0..threads).into_par_iter().with_max_len(1).map(|_| scan.take_runs()).collect();
    let mut outcome = scan.finish(gathered.into_iter().collect::<Result<_, _>>()?)?;
    outcome.stats.blocks_pruned += irrelevant_blocks;
    Ok(outcome)
}

/// A panic in an evaluated function is an error of the query, not of the process.
fn guarded<T, E: From<ScanError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(ScanError::Evaluate(format!("an expression of the query: it panicked: {text}")).into())
    })
}

impl Scan<'_> {
    fn gathered(&self) -> Result<Gathered, ScanError> {
        Ok(Gathered {
            gathering: Gathering::new(self.prepared.plan, self.limits.memory_bytes_max)?,
            stats: ScanStats::default(),
            events: 0.0,
            rows_covered: 0,
            unreadable: Vec::new(),
            unscanned: 0,
            newest_time: None,
        })
    }

    fn take_runs(&self) -> Result<Gathered, ScanError> {
        let mut gathered = self.gathered()?;
        let mut scratch = Scratch::default();
        while !self.failed.load(Ordering::Relaxed) {
            let Some(index) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            if let Err(error) = self.take_run(*index, &mut gathered, &mut scratch) {
                self.failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(gathered)
    }

    fn take_run(
        &self,
        index: usize,
        gathered: &mut Gathered,
        scratch: &mut Scratch,
    ) -> Result<(), ScanError> {
        let run = &*self.runs[index];
        let row_count = run.rows() as u64;
        if self.cancel.is_cancelled() {
            gathered.unscanned += row_count;
            return Ok(());
        }
        let found = match guarded(|| self.scan_run(run, gathered, scratch)) {
            Ok(found) => found,
            Err(Stop::Cancelled) => {
                gathered.unscanned += row_count;
                return Ok(());
            }
            Err(Stop::Unreadable(reason)) => {
                gathered.unreadable.push((index, reason));
                return Ok(());
            }
            Err(Stop::Failed(error)) => return Err(error),
        };
        match found {
            None => gathered.stats.blocks_pruned += u64::from(run.is_block()),
            Some(found) => {
                gathered.stats.blocks_scanned += u64::from(run.is_block());
                gathered.stats.rows_scanned += row_count;
                gathered.stats.stored_rows += found.row_count;
                gathered.events += found.events;
            }
        }
        gathered.rows_covered += row_count;
        let last = run.time_range().1;
        let last = match self.prepared.plan.time_range.max {
            i64::MAX => last,
            end => last.min(end - 1),
        };
        gathered.newest_time = gathered.newest_time.max(Some(last));
        Ok(())
    }

    /// One run, whose groups or rows are added when it was seen to its end; `None` when it was pruned.
    fn scan_run(
        &self,
        run: &dyn RowRun,
        gathered: &mut Gathered,
        scratch: &mut Scratch,
    ) -> Result<Option<Found>, Stop> {
        let prepared = self.prepared;
        let run = Run::open(run, &prepared.specs, self.cancel)?;
        let (first, last) = run.time_range();
        let TimeRange { min, max } = prepared.plan.time_range;
        let mut range = (min, if max == i64::MAX { max } else { max - 1 });
        if let (Some(shared), OutputPlan::Rows(plan)) = (&self.shared, &prepared.output) {
            match shared.open_range(plan, range) {
                Some(open) => range = open,
                None => return Ok(None),
            }
        }
        if range.0 > last || range.1 < first {
            return Ok(None);
        }
        if prepared.conjuncts.iter().any(|conjunct| is_never_true(&run, conjunct, prepared.time)) {
            return Ok(None);
        }
        let mut selection = Selection::All(run.row_count);
        if range.0 > first || range.1 < last {
            selection = filter::narrow_time(&run, prepared.time, range, selection)?;
        }
        if let (Some(shared), OutputPlan::Rows(plan)) = (&self.shared, &prepared.output) {
            if shared.excludes(&run, plan) {
                return Ok(None);
            }
            selection = shared.narrow(&run, plan, selection)?;
        }
        let selection = filter::narrow(&run, &prepared.conjuncts, selection)?.settle();
        let row_count = selection.len() as u64;
        let picked;
        let (run, selection) = match selection {
            Selection::Rows(rows) if !rows.is_empty() => {
                let selection = Selection::All(rows.len());
                picked = run.pick(rows);
                (&picked, selection)
            }
            selection => (&run, selection),
        };
        let events = match &prepared.output {
            OutputPlan::Groups(plan) => match groups::aggregate(run, prepared, plan, &selection, scratch)? {
                Some(groups) => {
                    let events = groups.events;
                    gathered.gathering.push_run(groups)?;
                    events
                }
                None => 0.0,
            },
            OutputPlan::Rows(plan) => match &self.shared {
                Some(shared) if !selection.is_empty() => {
                    let events = RowWeights::of(run, prepared)?.events(&selection, scratch);
                    if let Some(batch) = ranked::rows(run, plan, self.limits, shared, selection)? {
                        gathered.gathering.push(Body::Rows(RowSet { batches: vec![batch] }))?;
                    }
                    events
                }
                _ => 0.0,
            },
        };
        Ok(Some(Found { row_count, events }))
    }

    fn finish(&self, mut threads: Vec<Gathered>) -> Result<ScanOutcome, ScanError> {
        let mut whole = self.gathered()?;
        if self.cancel.is_abandoned() {
            // Merging what nobody waits for would only take time: nothing is covered.
            threads.clear();
            whole.unscanned = self.order.iter().map(|run| self.runs[*run].rows() as u64).sum();
        }
        if let OutputPlan::Groups(plan) = &self.prepared.output
            && plan.keys.is_empty()
        {
            let one = groups::empty_group(self.prepared.plan, plan)?;
            whole.gathering.push(Body::Groups(one))?;
        }
        let mut mergers = vec![whole.gathering.finish()?];
        for gathered in threads {
            mergers.push(gathered.gathering.finish()?);
            whole.stats.merge(&gathered.stats);
            whole.events += gathered.events;
            whole.rows_covered += gathered.rows_covered;
            whole.unreadable.extend(gathered.unreadable);
            whole.unscanned += gathered.unscanned;
            whole.newest_time = whole.newest_time.max(gathered.newest_time);
        }
        // Millions of groups are merged share by share, each by a thread of its own.
        let shares = Merger::shares(mergers)?;
        let bodies: Result<Vec<Body>, _> = shares.into_par_iter().map(Share::merge).collect();
        let body = Merger::join(bodies?, self.limits.memory_bytes_max)?;
        whole.unreadable.sort_unstable();
        // A cast from float to int saturates.
        whole.stats.represented_events = whole.events.round() as u64;
        Ok(ScanOutcome {
            body,
            stats: whole.stats,
            rows_covered: whole.rows_covered,
            unreadable: whole.unreadable,
            unscanned: whole.unscanned,
            newest_time: whole.newest_time,
        })
    }
}

/// What a run gave.
struct Found {
    row_count: u64,
    events: f64,
}

/// True when a conjunct is proven to keep no row of the run, without reading a column.
fn is_never_true(run: &Run<'_>, conjunct: &Conjunct, time: usize) -> bool {
    if let Some((column, test)) = &conjunct.int_test {
        let range = if *column == time { Some(run.time_range()) } else { run.int_range(*column) };
        return run.is_missing(*column) || range.is_some_and(|(min, max)| test.excludes(min, max));
    }
    if let Some((column, test)) = &conjunct.column_test {
        return text_tests::excludes(run, *column, test);
    }
    let compiled = &conjunct.compiled;
    if compiled.volatile || !compiled.columns.iter().all(|column| run.is_missing(*column)) {
        return false;
    }
    // Every row is the same to it: all columns are NULL, or there are none.
    let nulls =
        compiled.columns.iter().map(|column| new_null_array(&run.spec(*column).column_type.arrow(), 1));
    match compiled.evaluate(nulls.collect(), 1).and_then(|value| filter::truth(&value)) {
        Ok(truth) => truth.count_set_bits() == 0,
        // It fails only if rows are left when it is its turn.
        Err(_) => false,
    }
}
