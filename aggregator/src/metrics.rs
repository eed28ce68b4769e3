//! What the server counts of its work, for `/metrics`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::ErrorCode;

/// Upper edges of the buckets of query times, seconds.
pub const QUERY_SECONDS_EDGES: [f64; 12] =
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0];

/// Answers whose completeness is remembered.
const COMPLETENESS_KEPT: usize = 100;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    counts: Mutex<Counts>,
}

/// The counters at one moment.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    /// Queries by outcome: `complete`, `incomplete`, `unknown`, or the code of an error.
    pub queries: BTreeMap<&'static str, u64>,
    /// Queries by time, in the buckets of [`QUERY_SECONDS_EDGES`] and one above.
    pub query_buckets: [u64; QUERY_SECONDS_EDGES.len() + 1],
    /// Seconds of all queries together.
    pub query_seconds: f64,
    /// Completeness of the last answers; an unknown one is `None`.
    pub completeness: VecDeque<Option<f64>>,
    /// Rows accepted, those aside that had been counted before.
    pub rows_ingested: u64,
    /// Rows that came again and were not counted again.
    pub rows_duplicate: u64,
    /// Rows refused for what they are.
    pub rows_rejected: u64,
    /// Bytes of bodies with events, as they came.
    pub bytes_ingested: u64,
    /// Row batches accepted by leaves.
    pub batches_ingested: u64,
    /// Row batches that failed, or whose outcome is not known.
    pub batches_failed: u64,
}

impl Metrics {
    /// A query that got an answer.
    pub fn answered(&self, took: Duration, ratio: Option<f64>) {
        let outcome = match ratio {
            Some(1.0) => "complete",
            Some(_) => "incomplete",
            None => "unknown",
        };
        let mut counts = self.counts.lock();
        counts.query(outcome, took);
        if counts.completeness.len() == COMPLETENESS_KEPT {
            counts.completeness.pop_front();
        }
        counts.completeness.push_back(ratio);
    }

    /// A query that failed with this code.
    pub fn failed(&self, took: Duration, code: &'static str) {
        self.counts.lock().query(code, took);
    }

    /// A row batch that a leaf took; of its rows, so many had been counted before.
    pub fn batch_taken(&self, rows: u64, duplicates: u64) {
        let mut counts = self.counts.lock();
        counts.rows_ingested += rows.saturating_sub(duplicates);
        counts.rows_duplicate += duplicates;
        counts.batches_ingested += 1;
    }

    /// A row batch that no leaf confirmed.
    pub fn batch_failed(&self) {
        self.counts.lock().batches_failed += 1;
    }

    /// A body with events was read to this length, and this many of its rows were rejected.
    pub fn body_read(&self, bytes: u64, rows_rejected: u64) {
        let mut counts = self.counts.lock();
        counts.bytes_ingested += bytes;
        counts.rows_rejected += rows_rejected;
    }

    /// All counters now.
    pub fn counts(&self) -> Counts {
        self.counts.lock().clone()
    }
}

impl Counts {
    fn query(&mut self, outcome: &'static str, took: Duration) {
        let seconds = took.as_secs_f64();
        *self.queries.entry(outcome).or_default() += 1;
        let bucket = QUERY_SECONDS_EDGES.iter().position(|edge| seconds <= *edge);
        self.query_buckets[bucket.unwrap_or(QUERY_SECONDS_EDGES.len())] += 1;
        self.query_seconds += seconds;
    }
}

/// The outcome of a query that failed with a code.
pub fn code_name(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadRequest => "bad_request",
        ErrorCode::NotFound => "not_found",
        ErrorCode::Unsupported => "unsupported",
        ErrorCode::TooLarge => "too_large",
        ErrorCode::Unauthenticated => "unauthenticated",
        ErrorCode::Forbidden => "forbidden",
        ErrorCode::Overloaded => "overloaded",
        ErrorCode::UnsupportedMedia => "unsupported_media",
        ErrorCode::DiskFull => "disk_full",
        ErrorCode::SequenceTooOld => "sequence_too_old",
        ErrorCode::WrongState => "wrong_state",
        ErrorCode::Unavailable => "unavailable",
        ErrorCode::Unconfirmed => "unconfirmed",
        ErrorCode::Timeout => "timeout",
        ErrorCode::Incomplete => "incomplete_refused",
        ErrorCode::Internal => "internal",
    }
}
