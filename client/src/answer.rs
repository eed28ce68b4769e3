//! An answer: rows as Arrow record batches, with what they stand for and how complete they are.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::completeness::Completeness;

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Names and types of the columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// How complete it is.
    pub completeness: Completeness,
    /// What it took.
    pub stats: Stats,
}

/// What an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// From the request to the answer, in the server.
    pub elapsed_ms: f64,
    /// Rows that were looked at.
    pub rows_scanned: u64,
    /// Row blocks that were looked at.
    pub blocks_scanned: u64,
    /// Row blocks that could be left out.
    pub blocks_pruned: u64,
    /// Rows that the filter let through.
    pub stored_rows: u64,
    /// Events that those stand for, by their `sample_rate`.
    pub represented_events: u64,
    /// The longest scan of a leaf.
    pub scan_ms_max: f64,
}

impl Answer {
    /// How many rows it has.
    pub fn row_count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}
