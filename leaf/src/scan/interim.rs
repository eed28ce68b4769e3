//! What a scan has found so far, for a watcher who wants to hear of it before it is over.
//!
//! Threads scan with results of their own. Now and then a thread *hands in* all it has: its groups or rows together with
//! the count of what they cover, as one, under one lock. What was handed in is told at most as often as the watcher
//! wants, and it is what the scan would return if its deadline came now: the groups or rows of the runs that are counted
//! as covered, and of no others. The same results are merged once more at the end, so nothing is done twice.
//!
//! Invariants:
//! * groups or rows and their counts are handed in together or not at all;
//! * under an order with a limit, rows are handed in before other threads learn of them: whatever a thread left out
//!   because better rows are known, those rows are in what is told;
//! * telling takes at most a tenth of the time of one thread, and a body beyond [`BODY_BYTES_MAX`] is not told at all.

use std::time::Instant;

use gannet_query::{Body, Merger};
use parking_lot::{Mutex, MutexGuard};

use super::gathering::Gathering;
use super::run_scan::{Counts, Gathered};
use super::{ScanError, ScanOutcome, Watcher};

/// Larger bodies are not told: making and sending them would cost too much.
const BODY_BYTES_MAX: usize = 4 << 20;
/// After telling took so long, so many times as long passes until the next time.
const PAUSE_FACTOR: u32 = 10;

/// What was handed in, and who hears of it.
pub(super) struct Interim<'a> {
    watcher: &'a Watcher<'a>,
    /// Rows of all runs that the scan is about.
    row_count: u64,
    rows_of: &'a (dyn Fn(usize) -> u64 + Sync),
    held: Mutex<Held>,
}

struct Held {
    gathering: Merger,
    counts: Counts,
    with_body: bool,
    next: Instant,
}

impl<'a> Interim<'a> {
    /// `merger` is what a scan of nothing gives; `rows_of` tells the rows of a run.
    pub(super) fn new(
        watcher: &'a Watcher<'a>,
        merger: Merger,
        row_count: u64,
        rows_of: &'a (dyn Fn(usize) -> u64 + Sync),
    ) -> Interim<'a> {
        let next = Instant::now() + watcher.every;
        let held = Held { gathering: merger, counts: Counts::default(), with_body: watcher.with_body, next };
        Interim { watcher, row_count, rows_of, held: Mutex::new(held) }
    }

    /// Hands in what a thread has when it is time to, unless another thread is at it. `empty` makes a new result for
    /// the thread, and a new sum.
    pub(super) fn offer(
        &self,
        gathered: &mut Gathered,
        empty: impl Fn() -> Result<(Gathering, Merger), ScanError>,
    ) -> Result<(), ScanError> {
        if gathered.handed_in.elapsed() < self.watcher.every {
            return Ok(());
        }
        let Some(held) = self.held.try_lock() else { return Ok(()) };
        self.hand_in(held, gathered, empty)
    }

    /// Hands in what a thread has, now.
    pub(super) fn give(
        &self,
        gathered: &mut Gathered,
        empty: impl Fn() -> Result<(Gathering, Merger), ScanError>,
    ) -> Result<(), ScanError> {
        self.hand_in(self.held.lock(), gathered, empty)
    }

    fn hand_in(
        &self,
        mut held: MutexGuard<'_, Held>,
        gathered: &mut Gathered,
        empty: impl Fn() -> Result<(Gathering, Merger), ScanError>,
    ) -> Result<(), ScanError> {
        gathered.handed_in = Instant::now();
        if held.with_body {
            let (gathering, _) = empty()?;
            let body = std::mem::replace(&mut gathered.gathering, gathering).finish()?.finish()?;
            held.gathering.push(body)?;
        }
        held.counts.merge(std::mem::take(&mut gathered.counts));
        let begun = Instant::now();
        if begun < held.next {
            return Ok(());
        }
        let body = if held.with_body { held.take_body(empty)? } else { None };
        (self.watcher.tell)(self.outcome(&held.counts, body));
        held.next = Instant::now() + self.watcher.every.max(begun.elapsed() * PAUSE_FACTOR);
        Ok(())
    }

    fn outcome(&self, counts: &Counts, body: Option<Body>) -> ScanOutcome<Option<Body>> {
        let mut counts = counts.clone();
        let unreadable: u64 = counts.unreadable.iter().map(|(run, _)| (self.rows_of)(*run)).sum();
        counts.unscanned = self.row_count.saturating_sub(counts.rows_covered).saturating_sub(unreadable);
        counts.outcome(body)
    }

    /// What was handed in.
    pub(super) fn finish(self) -> (Merger, Counts) {
        let held = self.held.into_inner();
        (held.gathering, held.counts)
    }
}

impl Held {
    /// A copy of the sum, unless it is too large.
    fn take_body(
        &mut self,
        empty: impl Fn() -> Result<(Gathering, Merger), ScanError>,
    ) -> Result<Option<Body>, ScanError> {
        let (_, merger) = empty()?;
        let body = std::mem::replace(&mut self.gathering, merger).finish()?;
        self.with_body = body.memory_bytes() <= BODY_BYTES_MAX;
        let copy = self.with_body.then(|| body.clone());
        self.gathering.push(body)?;
        Ok(copy)
    }
}
