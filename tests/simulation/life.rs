//! One life of a simulated process: from a start to the call at which it ends.
//!
//! Disk and shared memory ask the same [`Life`] before every call, so that it can end between any two of them. What a
//! process does after its end, in destructors and loops, reaches nobody: every call fails and changes nothing.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It happens.
    Alive,
    /// The process ends in it: a part of it may have happened.
    Dying,
    /// The process had ended before.
    Dead,
}

/// What happened in all lives of a scenario, for whoever replays it.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: Mutex<Vec<String>>,
    hash: Mutex<u64>,
    keeps_lines: bool,
}

impl Trace {
    /// One that keeps its lines, or only their hash.
    pub(crate) fn new(keeps_lines: bool) -> Arc<Trace> {
        Arc::new(Trace { keeps_lines, ..Trace::default() })
    }

    /// Adds a line.
    pub(crate) fn add(&self, line: fmt::Arguments<'_>) {
        let line = line.to_string();
        let mut hash = self.hash.lock();
        *hash = xxhash_rust::xxh3::xxh3_64_with_seed(line.as_bytes(), *hash);
        if self.keeps_lines {
            self.lines.lock().push(line);
        }
    }

    /// The lines, in order.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().clone()
    }

    /// A hash over all lines, kept or not.
    pub(crate) fn hash(&self) -> u64 {
        *self.hash.lock()
    }
}

/// One life of a process. Clones are the same life.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    inner: Arc<Inner>,
    pub(crate) trace: Arc<Trace>,
}

#[derive(Debug)]
struct Inner {
    calls: AtomicU64,
    ends_at: AtomicU64,
    ended: AtomicBool,
}

impl Life {
    /// A life that ends when somebody ends it.
    pub(crate) fn new(trace: &Arc<Trace>) -> Life {
        let inner = Inner {
            calls: AtomicU64::new(0),
            ends_at: AtomicU64::new(u64::MAX),
            ended: AtomicBool::new(false),
        };
        Life { inner: Arc::new(inner), trace: Arc::clone(trace) }
    }

    /// It ends in the `calls`th call from now, counted from 1.
    pub(crate) fn end_in(&self, calls: u64) {
        let now = self.inner.calls.load(Ordering::Relaxed);
        self.inner.ends_at.store(now.saturating_add(calls.max(1)), Ordering::Relaxed);
    }

    /// Whatever was planned, it goes on.
    pub(crate) fn go_on(&self) {
        self.inner.ends_at.store(u64::MAX, Ordering::Relaxed);
    }

    /// Ends it now.
    pub(crate) fn end(&self) {
        self.inner.ended.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.inner.ended.load(Ordering::Relaxed)
    }

    /// Counts a call.
    pub(crate) fn step(&self) -> Step {
        if self.has_ended() {
            return Step::Dead;
        }
        let call = self.inner.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if call >= self.inner.ends_at.load(Ordering::Relaxed) {
            self.end();
            self.trace.add(format_args!("the process ends in call {call}"));
            return Step::Dying;
        }
        Step::Alive
    }

    /// What a process is told that has ended.
    pub(crate) fn over() -> io::Error {
        io::Error::other("the process has ended")
    }
}
