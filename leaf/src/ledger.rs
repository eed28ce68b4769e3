//! The ledger: which rows get which numbers, and which batches were counted.
//!
//! One lock orders everything that decides whether a batch counts: it is looked up, its rows get their numbers and its
//! record gets its place in the log in one step, so that numbers in the log grow and a batch that is sent twice at once
//! is logged once. Nobody waits for a disk while holding the lock, but for a checkpoint.
//!
//! Invariants: a batch enters what was counted only after it is in the log as safely as the leaf promises; numbers are
//! given out once; the numbers of a batch that did not get into the log are noted as withdrawn, so that nobody takes
//! them for lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::dedup::{BatchName, Dedup, DedupError, DedupLimits, Known};
use crate::row_ranges::RowRanges;

/// The ledger. See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Arc<Mutex<State>>,
    limits: DedupLimits,
}

/// What the lock protects.
#[derive(Debug, Default)]
pub struct State {
    /// The number of the next row of each table.
    next_rows: BTreeMap<String, u64>,
    dedup: Dedup,
    /// Batches on their way that have a name.
    in_flight: BTreeMap<BatchName, Arc<Landing>>,
    /// Of each batch on its way: how far the log had come when it began, its table and its first row.
    begun: BTreeMap<u64, (u64, String, u64)>,
    next_flight: u64,
    /// Numbers that were given out in vain since the last checkpoint.
    withdrawn: BTreeMap<String, RowRanges>,
    /// Those of them that are not in the log as such.
    unlogged: BTreeMap<String, RowRanges>,
}

/// How a batch on its way ended.
#[derive(Debug, Default)]
pub struct Landing {
    outcome: Mutex<Option<bool>>,
    ended: Condvar,
}

/// A batch on its way. Whoever drops it before it was counted withdraws it.
#[derive(Debug)]
pub struct Flight {
    ledger: Arc<Mutex<State>>,
    has_ended: bool,
    number: u64,
    name: Option<BatchName>,
    table: String,
    /// Its first row's number.
    pub first_row: u64,
    rows: u64,
}

/// What the ledger says of a batch.
#[derive(Debug)]
pub enum Entry {
    /// It is new and may be logged.
    New,
    /// It was counted.
    Counted,
    /// The same batch is on its way: wait for it.
    Waiting(Arc<Landing>),
}

/// What a checkpoint needs to know.
#[derive(Debug)]
pub struct Books {
    /// The number of the next row of each table.
    pub next_rows: BTreeMap<String, u64>,
    /// Batches that were counted.
    pub dedup: Dedup,
    /// Numbers that were given out in vain.
    pub withdrawn: BTreeMap<String, RowRanges>,
    /// No batch that is on its way has this place in the log, or an earlier one; none when nothing is on its way.
    pub floor: Option<u64>,
}

impl Landing {
    /// Waits until the batch has ended; true when it was counted.
    pub fn wait(&self) -> bool {
        let mut outcome = self.outcome.lock();
        loop {
            match *outcome {
                Some(counted) => return counted,
                None => self.ended.wait(&mut outcome),
            }
        }
    }

    fn end(&self, counted: bool) {
        *self.outcome.lock() = Some(counted);
        self.ended.notify_all();
    }
}

impl Ledger {
    /// A ledger as a start found it.
    pub fn restored(next_rows: BTreeMap<String, u64>, dedup: Dedup) -> Ledger {
        let state = State { next_rows, dedup, ..State::default() };
        Ledger { state: Arc::new(Mutex::new(state)), limits: DedupLimits::default() }
    }

    /// Opens it for one batch or a checkpoint.
    pub fn open(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Looks a batch up.
    ///
    /// # Errors
    /// When nobody can tell whether it was counted, or there is no room to remember it.
    pub fn look_up(
        &self,
        state: &mut State,
        name: &BatchName,
        running_seconds: u64,
    ) -> Result<Entry, DedupError> {
        state.dedup.advance(running_seconds);
        if let Some(landing) = state.in_flight.get(name) {
            return Ok(Entry::Waiting(Arc::clone(landing)));
        }
        Ok(match state.dedup.check(name, &self.limits)? {
            Known::New => Entry::New,
            Known::Counted => {
                // Somebody who only sends again is not idle.
                state.dedup.complete(name, running_seconds, &self.limits);
                Entry::Counted
            }
        })
    }

    /// Gives the rows of a batch their numbers. `log_reached` is the last place in the log that is taken.
    pub fn begin(
        &self,
        state: &mut State,
        table: &str,
        rows: u64,
        name: Option<BatchName>,
        log_reached: u64,
    ) -> Flight {
        let next = state.next_rows.entry(table.to_owned()).or_default();
        let first_row = *next;
        *next += rows;
        let number = state.next_flight;
        state.next_flight += 1;
        state.begun.insert(number, (log_reached, table.to_owned(), first_row));
        if let Some(name) = &name {
            state.in_flight.insert(name.clone(), Arc::default());
        }
        let ledger = Arc::clone(&self.state);
        Flight { ledger, has_ended: false, number, name, table: table.to_owned(), first_row, rows }
    }

    /// Ends a batch: it is counted.
    pub fn counted(&self, mut flight: Flight, running_seconds: u64) {
        let mut state = self.state.lock();
        flight.has_ended = true;
        state.begun.remove(&flight.number);
        if let Some(name) = &flight.name {
            state.dedup.complete(name, running_seconds, &self.limits);
            if let Some(landing) = state.in_flight.remove(name) {
                landing.end(true);
            }
        }
    }

    /// Notes a batch that the log brought back.
    pub fn replayed(&self, table: &str, next_row: u64, name: Option<&BatchName>, running_seconds: u64) {
        let mut state = self.state.lock();
        let known = state.next_rows.entry(table.to_owned()).or_default();
        *known = (*known).max(next_row);
        if let Some(name) = name {
            state.dedup.complete(name, running_seconds, &self.limits);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let mut state = self.ledger.lock();
        let State { begun, withdrawn, unlogged, in_flight, .. } = &mut *state;
        begun.remove(&self.number);
        for numbers in [withdrawn, unlogged] {
            numbers.entry(self.table.clone()).or_default().insert(self.first_row, self.first_row + self.rows);
        }
        if let Some(landing) = self.name.as_ref().and_then(|name| in_flight.remove(name)) {
            landing.end(false);
        }
    }
}

impl State {
    /// Numbers that were given out in vain and are not in the log as such; whoever asks logs them.
    pub fn take_unlogged(&mut self) -> BTreeMap<String, RowRanges> {
        std::mem::take(&mut self.unlogged)
    }

    /// Numbers that were to be logged as given out in vain, and were not.
    pub fn give_back_unlogged(&mut self, table: &str, rows: &RowRanges) {
        self.unlogged.entry(table.to_owned()).or_default().union(rows);
    }

    /// Numbers given out in vain that a checkpoint has noted.
    pub fn forget_withdrawn(&mut self, noted: &BTreeMap<String, RowRanges>) {
        if self.withdrawn == *noted {
            self.withdrawn.clear();
        }
    }

    /// Everything a checkpoint needs to know.
    pub fn books(&self) -> Books {
        let mut next_rows = self.next_rows.clone();
        // A batch on its way may never be logged; when it is, the log tells of its numbers.
        for (_, table, first_row) in self.begun.values() {
            if let Some(next) = next_rows.get_mut(table) {
                *next = (*next).min(*first_row);
            }
        }
        Books {
            next_rows,
            dedup: self.dedup.clone(),
            withdrawn: self.withdrawn.clone(),
            floor: self.begun.values().map(|(log_reached, ..)| *log_reached).min(),
        }
    }
}
