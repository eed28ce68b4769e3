//! What a child returns, and how two of them become one.
//!
//! A partial is columnar: one array per group key, one [`States`] per aggregate. [`Merger`] adds partials up by the
//! values of their keys; it serves the blocks of one leaf, the leaves of an aggregator and the aggregators of a tree
//! alike. Rows merge by sorting what came and keeping the first `limit`.

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, take};

use crate::{Completeness, QueryError, ScanStats, States};

mod keys;
mod merger;
mod parts;
mod placed;
mod several;
mod top;

pub use merger::{Merger, Share};
pub use placed::PlacedKeys;
pub use several::{Cutting, LeftOut, Several, Sum, Wanted, cut_for_asker};
pub use top::{Top, TopTerm, TopValue};

/// What a child returns.
#[derive(Debug, Clone)]
pub struct Partial {
    /// Groups or rows, after the plan's [`crate::Output`].
    pub body: Body,
    /// How complete it is.
    pub completeness: Completeness,
    /// What the scan did.
    pub stats: ScanStats,
    /// Groups that an asker did not want, or that were too many.
    pub left_out: LeftOut,
}

/// What a child has so far: what it would return if its time were over now. A later one replaces it.
#[derive(Debug, Clone)]
pub struct SoFar {
    /// Groups or rows, of the covered rows and no others; `None` when only the record is told.
    pub body: Option<Body>,
    /// How complete it is; rows that are still to be scanned are missing as [`crate::MissingReason::Running`].
    pub completeness: Completeness,
    /// What the scan did so far.
    pub stats: ScanStats,
    /// As of a partial.
    pub left_out: LeftOut,
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

impl Body {
    /// Nothing can be added to some of it, see [`States::conclude`].
    pub fn is_concluded(&self) -> bool {
        match self {
            Body::Groups(groups) => groups.states.iter().any(States::is_concluded),
            Body::Rows(_) => false,
        }
    }

    /// Bytes in memory, about.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Body::Groups(groups) => {
                let states: usize = groups.states.iter().map(States::memory_bytes).sum();
                states + groups.keys.iter().map(|key| key.get_array_memory_size()).sum::<usize>()
            }
            Body::Rows(rows) => rows.batches.iter().map(crate::value::rows_bytes).sum(),
        }
    }
}

impl Groups {
    /// These groups, in this order: the first of an order by an aggregate, for example, when they have met all others.
    ///
    /// # Errors
    /// When a number is not that of a group.
    pub fn take(&self, groups: &[u32]) -> Result<Groups, QueryError> {
        if let Some(group) = groups.iter().find(|group| **group as usize >= self.group_count) {
            return Err(QueryError::Mismatch(format!("group {group} of {}", self.group_count)));
        }
        let places = UInt32Array::from(groups.to_vec());
        let keys = self
            .keys
            .iter()
            .map(|key| take(key, &places, None))
            .collect::<Result<_, _>>()
            .map_err(|error| QueryError::Mismatch(format!("group keys: {error}")))?;
        let states = self.states.iter().map(|states| states.take(groups)).collect();
        Ok(Groups { keys, states, group_count: groups.len() })
    }

    /// Groups of one plan, one after the other; no key is in two of them.
    pub(crate) fn concat(all: Vec<Groups>) -> Result<Groups, QueryError> {
        let columns = all.first().map_or(0, |groups| groups.keys.len());
        let mut keys = Vec::with_capacity(columns);
        for column in 0..columns {
            let parts: Option<Vec<&dyn Array>> =
                all.iter().map(|groups| Some(groups.keys.get(column)?.as_ref())).collect();
            let parts = parts.ok_or_else(|| QueryError::Mismatch("groups of different plans".to_owned()))?;
            keys.push(concat(&parts).map_err(|error| QueryError::Mismatch(format!("group keys: {error}")))?);
        }
        let mut all = all.into_iter();
        let Some(Groups { mut states, mut group_count, .. }) = all.next() else {
            return Err(QueryError::Mismatch("no groups to put together".to_owned()));
        };
        for groups in all {
            if groups.states.len() != states.len() {
                return Err(QueryError::Mismatch("groups of different plans".to_owned()));
            }
            group_count += groups.group_count;
            for (ours, theirs) in states.iter_mut().zip(groups.states) {
                ours.append(theirs)?;
            }
        }
        states.iter_mut().for_each(States::settle);
        Ok(Groups { keys, states, group_count })
    }
}

/// Rows in the plan's order.
#[derive(Debug, Clone)]
pub struct RowSet {
    /// Record batches whose columns are the plan's output columns; all together in the plan's order.
    pub batches: Vec<RecordBatch>,
}

#[cfg(test)]
mod tests;
