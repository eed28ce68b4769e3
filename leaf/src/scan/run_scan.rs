//! One scan over many runs: who takes which run, and how their results become one.
//!
//! Each thread of the pool takes the next run from a shared list until there is none, and merges into a result of its
//! own; the results are merged at the end. Under an order by time the list begins with the runs that the first rows
//! are in.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use arrow::array::{RecordBatch, new_null_array};
use gannet_query::{Body, Merger, Plan, RowSet, ScanStats, Share, TimeRange, Top};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use super::arguments::RowWeights;
use super::columns::Run;
use super::compound::Compound;
use super::derive::derive;
use super::gathering::Gathering;
use super::groups;
use super::interim::Interim;
use super::numbering::Scratch;
use super::prepare::{Conjunct, OutputPlan, Prepared, prepare};
use super::ranked::{self, Shared};
use super::selection::Selection;
use super::{Cancel, RowRun, ScanError, ScanLimits, ScanOutcome, Stop, Watcher, filter, text_tests};

/// What all threads of a scan share.
struct Scan<'a> {
    runs: &'a [Arc<dyn RowRun>],
    /// The runs that overlap the time range, in the order they are taken.
    order: Vec<usize>,
    next: AtomicUsize,
    failed: AtomicBool,
    prepared: &'a Prepared<'a>,
    limits: &'a ScanLimits<'a>,
    cancel: &'a Cancel,
    shared: Option<Shared>,
    interim: Option<Interim<'a>>,
    /// How several keys become one int, if they can.
    compound: Option<Arc<Compound>>,
}

/// What one thread has.
pub(super) struct Gathered {
    pub(super) gathering: Gathering,
    pub(super) counts: Counts,
    /// When it last handed in what it had, for a watcher.
    pub(super) handed_in: Instant,
}

/// What is known of groups or rows that were gathered.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    stats: ScanStats,
    events: f64,
    pub(super) rows_covered: u64,
    pub(super) unreadable: Vec<(usize, String)>,
    pub(super) unscanned: u64,
    newest_time: Option<i64>,
}

impl Counts {
    pub(super) fn merge(&mut self, other: Counts) {
        self.stats.merge(&other.stats);
        self.events += other.events;
        self.rows_covered += other.rows_covered;
        self.unreadable.extend(other.unreadable);
        self.unscanned += other.unscanned;
        self.newest_time = self.newest_time.max(other.newest_time);
    }

    pub(super) fn outcome<B>(mut self, body: B) -> ScanOutcome<B> {
        self.unreadable.sort_unstable();
        // A cast from float to int saturates.
        self.stats.represented_events = self.events.round() as u64;
        ScanOutcome {
            body,
            stats: self.stats,
            rows_covered: self.rows_covered,
            unreadable: self.unreadable,
            unscanned: self.unscanned,
            newest_time: self.newest_time,
        }
    }
}

pub(super) fn scan(
    runs: &[Arc<dyn RowRun>],
    plan: &Plan,
    limits: &ScanLimits<'_>,
    cancel: &Cancel,
    watcher: Option<&Watcher<'_>>,
) -> Result<ScanOutcome, ScanError> {
    let (plan, lengths_of) = derive(plan);
    let plan = &*plan;
    let prepared = guarded(|| prepare(plan, &lengths_of))?;
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
            if let Some(by) = rows.by_value.filter(|by| prepared.specs[by.column].lengths_of.is_none()) {
                // What is likely to be among the first comes first; what is not known could be anything.
                let name = &prepared.specs[by.column].name;
                let end = |index: &usize| match (runs[*index].int_range(name, 0), by.descending) {
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
    let rows_of = |run: usize| runs[run].rows() as u64;
    let row_count = order.iter().map(|run| rows_of(*run)).sum();
    let in_order = order.iter().map(|run| &*runs[*run]);
    let compound = Compound::new(&prepared, in_order, limits.memory_bytes_max).map(Arc::new);
    let interim = match watcher {
        Some(watcher) => {
            let nothing = nothing(&prepared, limits)?.finish()?;
            Some(Interim::new(watcher, nothing, row_count, &rows_of))
        }
        None => None,
    };
    let scan = Scan {
        runs,
        order,
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        prepared: &prepared,
        limits,
        cancel,
        shared,
        interim,
        compound,
    };
    let gathered: Vec<Result<Gathered, ScanError>> =
        (0..threads).into_par_iter().with_max_len(1).map(|_| scan.take_runs()).collect();
    let mut outcome = scan.finish(gathered.into_iter().collect::<Result<_, _>>()?)?;
    outcome.stats.blocks_pruned += irrelevant_blocks;
    Ok(outcome)
}

/// What a scan of no runs gives.
fn nothing(prepared: &Prepared<'_>, limits: &ScanLimits) -> Result<Gathering, ScanError> {
    let mut gathering = Gathering::new(prepared.plan, None, limits.memory_bytes_max)?;
    if let OutputPlan::Groups(plan) = &prepared.output
        && plan.keys.is_empty()
    {
        gathering.push(Body::Groups(groups::empty_group(prepared.plan, plan)?))?;
    }
    Ok(gathering)
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
    /// For a thread, and for what the threads hand in.
    fn empty(&self) -> Result<(Gathering, Merger), ScanError> {
        let (plan, bytes_max) = (self.prepared.plan, self.limits.memory_bytes_max);
        Ok((Gathering::new(plan, self.compound.as_ref(), bytes_max)?, Merger::new(plan, bytes_max)?))
    }

    fn take_runs(&self) -> Result<Gathered, ScanError> {
        let (gathering, _) = self.empty()?;
        let mut gathered = Gathered { gathering, counts: Counts::default(), handed_in: Instant::now() };
        let mut scratch = Scratch::default();
        while !self.failed.load(Ordering::Relaxed) {
            let Some(index) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) else { break };
            let taken = self.take_run(*index, &mut gathered, &mut scratch);
            let offered = taken.and_then(|()| match &self.interim {
                Some(interim) => interim.offer(&mut gathered, || self.empty()),
                None => Ok(()),
            });
            if let Err(error) = offered {
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
            gathered.counts.unscanned += row_count;
            return Ok(());
        }
        let found = match guarded(|| self.scan_run(run, &mut gathered.gathering, scratch)) {
            Ok(found) => found,
            Err(Stop::Cancelled) => {
                gathered.counts.unscanned += row_count;
                return Ok(());
            }
            Err(Stop::Unreadable(reason)) => {
                gathered.counts.unreadable.push((index, reason));
                return Ok(());
            }
            Err(Stop::Failed(error)) => return Err(error),
        };
        let counts = &mut gathered.counts;
        let mut rows = None;
        match found {
            None => counts.stats.blocks_pruned += u64::from(run.is_block()),
            Some(found) => {
                counts.stats.blocks_scanned += u64::from(run.is_block());
                counts.stats.rows_scanned += row_count;
                counts.stats.stored_rows += found.row_count;
                counts.events += found.events;
                rows = found.rows;
            }
        }
        counts.rows_covered += row_count;
        let last = run.time_range().1;
        let last = match self.prepared.plan.time_range.max {
            i64::MAX => last,
            end => last.min(end - 1),
        };
        counts.newest_time = counts.newest_time.max(Some(last));
        if let (Some(rows), Some(shared), OutputPlan::Rows(plan)) =
            (rows, &self.shared, &self.prepared.output)
        {
            if let Some(interim) = &self.interim {
                interim.give(gathered, || self.empty())?;
            }
            shared.report(plan, self.limits, &rows)?;
        }
        Ok(())
    }

    /// One run, whose groups or rows are added when it was seen to its end; `None` when it was pruned.
    fn scan_run(
        &self,
        run: &dyn RowRun,
        gathering: &mut Gathering,
        scratch: &mut Scratch,
    ) -> Result<Option<Found>, Stop> {
        let prepared = self.prepared;
        let run = Run::open(run, &prepared.specs, &mut scratch.places, self.cancel)?;
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
        let selection = filter::narrow(&run, &prepared.conjuncts, selection)?;
        if let OutputPlan::Groups(plan) = &prepared.output
            && let Some(counted) = groups::counted(&run, prepared, plan, &selection)?
        {
            let (row_count, events) = (counted.row_count as u64, counted.events);
            gathering.push_run(counted)?;
            return Ok(Some(Found { row_count, events, rows: None }));
        }
        let selection = selection.settle();
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
        let (events, rows) = self.take_rows(run, selection, gathering, scratch)?;
        Ok(Some(Found { row_count, events, rows }))
    }

    /// Adds the selected rows of a run; gives back how many events they stand for, and the rows where those are asked for.
    fn take_rows(
        &self,
        run: &Run<'_>,
        selection: Selection,
        gathering: &mut Gathering,
        scratch: &mut Scratch,
    ) -> Result<(f64, Option<RecordBatch>), Stop> {
        let prepared = self.prepared;
        match &prepared.output {
            OutputPlan::Groups(plan) => {
                let apart = gathering.takes_rows();
                let groups = groups::aggregate(run, prepared, plan, &selection, apart, scratch)?;
                let events = groups.as_ref().map_or(0.0, |groups| groups.events);
                groups.map(|groups| gathering.push_run(groups)).transpose()?;
                Ok((events, None))
            }
            OutputPlan::Rows(plan) if self.shared.is_some() && !selection.is_empty() => {
                let events = RowWeights::of(run, prepared)?.events(&selection, scratch);
                let rows = ranked::rows(run, plan, self.limits, selection)?;
                if let Some(batch) = &rows {
                    gathering.push(Body::Rows(RowSet { batches: vec![batch.clone()] }))?;
                }
                Ok((events, rows))
            }
            OutputPlan::Rows(_) => Ok((0.0, None)),
        }
    }

    fn finish(self, mut threads: Vec<Gathered>) -> Result<ScanOutcome, ScanError> {
        let mut mergers = Vec::new();
        let mut counts = Counts::default();
        if self.cancel.is_abandoned() {
            // Merging what nobody waits for would only take time: nothing is covered.
            threads.clear();
            counts.unscanned = self.order.iter().map(|run| self.runs[*run].rows() as u64).sum();
        } else if let Some(interim) = self.interim {
            let (merger, handed_in) = interim.finish();
            if handed_in.rows_covered > 0 {
                mergers.push(merger);
            }
            counts.merge(handed_in);
        }
        let mut gathered: Vec<Gathering> = Vec::with_capacity(threads.len());
        for thread in threads {
            counts.merge(thread.counts);
            // The first one absorbs what it can.
            let left = match gathered.first_mut() {
                Some(first) => first.absorb(thread.gathering)?,
                None => Some(thread.gathering),
            };
            gathered.extend(left);
        }
        let body = match Gathering::packed(gathered, &mut mergers)? {
            Ok((compound, packed)) => merged(packed, self.prepared.plan, self.limits, Some(&compound))?,
            Err(gathered) => {
                for gathering in gathered {
                    mergers.push(gathering.finish()?);
                }
                // Without keys there is a group even of no rows.
                let is_keyless =
                    matches!(&self.prepared.output, OutputPlan::Groups(plan) if plan.keys.is_empty());
                if mergers.is_empty() || is_keyless {
                    mergers.push(nothing(self.prepared, self.limits)?.finish()?);
                }
                merged(mergers, self.prepared.plan, self.limits, None)?
            }
        };
        Ok(counts.outcome(body))
    }
}

/// One body of all mergers, which hold the groups of several keys as one int if `compound` says how.
fn merged(
    mergers: Vec<Merger>,
    plan: &Plan,
    limits: &ScanLimits<'_>,
    compound: Option<&Compound>,
) -> Result<Body, ScanError> {
    // Millions of groups are merged share by share, each by a thread of its own.
    let shares = Merger::shares(mergers)?;
    let top = limits.top.filter(|_| shares.len() > 1);
    let (by_ints, by_keys) = match compound {
        Some(compound) if top.is_some_and(|top| compound.takes(top)) => (top, None),
        Some(_) => (None, top),
        None => (top, top),
    };
    let by_ints = by_ints.map(|top| (compound.map_or(plan, Compound::plan), top));
    let cut = |body: &mut Body, wanted: Option<(&Plan, &Top)>| {
        if let (Body::Groups(groups), Some((plan, top))) = (body, wanted) {
            // The wanted groups of all are among those of the shares. Without an order all are as good.
            let _ = groups.cut(plan, top);
        }
    };
    let merge = |share: Share| {
        let mut body = share.merge(by_ints)?;
        cut(&mut body, by_ints);
        if let Some(compound) = compound {
            body = compound.apart(body)?;
            cut(&mut body, by_keys.map(|top| (plan, top)));
        }
        Ok(body)
    };
    let bodies: Result<Vec<Body>, ScanError> = shares.into_par_iter().map(merge).collect();
    Ok(Merger::join(bodies?, limits.memory_bytes_max)?)
}

/// What a run gave.
struct Found {
    row_count: u64,
    events: f64,
    /// Its rows, where rows are asked for.
    rows: Option<RecordBatch>,
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
