//! What a child returns, and how two of them become one.
//!
//! A partial is columnar: one array per group key, one [`States`] per aggregate. [`Merger`] adds partials up by the
//! values of their keys; it serves the blocks of one leaf, the leaves of an aggregator and the aggregators of a tree
//! alike. Rows merge by sorting what came and keeping the first `limit`.

use arrow::array::{ArrayRef, RecordBatch};

use crate::{Completeness, ScanStats, States};

mod keys;
mod merger;

pub use merger::Merger;

/// What a child returns.
#[derive(Debug, Clone)]
pub struct Partial {
    /// Groups or rows, after the plan's [`crate::Output`].
    pub body: Body,
    /// How complete it is.
    pub completeness: Completeness,
    /// What the scan did.
    pub stats: ScanStats,
}

/// Groups or rows.
#[derive(Debug, Clone)]
pub enum Body {
    /// Aggregates by group.
    Groups(Groups),
    /// Rows.
    Rows(RowSet),
}

/// Groups with their keys and states. Every array and every state has one length; keys are distinct.
#[derive(Debug, Clone)]
pub struct Groups {
    /// One array per key of the plan, of the key's type.
    pub keys: Vec<ArrayRef>,
    /// One per aggregate of the plan.
    pub states: Vec<States>,
    /// How many groups. Without keys it is 1, or 0 for "nothing scanned yet".
    pub group_count: usize,
}

/// Rows in the plan's order.
#[derive(Debug, Clone)]
pub struct RowSet {
    /// Record batches whose columns are the plan's output columns; all together in the plan's order.
    pub batches: Vec<RecordBatch>,
}

#[cfg(test)]
mod tests;
