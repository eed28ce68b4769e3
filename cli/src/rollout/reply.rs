//! A rollout as the aggregator tells it.

use serde::Deserialize;

/// The whole reply.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Reply {
    pub(super) rollout: Option<Rollout>,
}

/// A rollout.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Rollout {
    pub(super) id: String,
    pub(super) state: String,
    /// Who runs it, when it is another aggregator.
    pub(super) aggregator: Option<String>,
    pub(super) pause: Option<Pause>,
    pub(super) elapsed_seconds: f64,
    pub(super) left_seconds: Option<f64>,
    pub(super) completeness: Option<f64>,
    pub(super) settings: Settings,
    pub(super) unavailable_max: u64,
    pub(super) machines: u64,
    pub(super) leaves: Vec<Leaf>,
}

/// Why it is paused.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Pause {
    /// `None`: a person paused it.
    pub(super) guard: Option<String>,
    pub(super) why: String,
}

/// What it may do.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    pub(super) min_completeness: f64,
    pub(super) leaf_seconds_max: u64,
    pub(super) to: Option<String>,
    pub(super) allow_disk: bool,
}

/// A leaf of it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Leaf {
    pub(super) leaf: String,
    pub(super) machine: String,
    pub(super) step: String,
    pub(super) state: String,
    pub(super) since_seconds: f64,
    pub(super) seconds: Option<f64>,
    pub(super) path: String,
    pub(super) version_before: String,
    pub(super) version: String,
    pub(super) rows: u64,
    pub(super) note: String,
}

impl Leaf {
    /// It was begun and is not done.
    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.step.as_str(), "draining" | "stopping" | "restoring")
    }

    /// Its turn is over.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.step.as_str(), "done" | "skipped")
    }

    /// It did not come back the fast way.
    pub(super) fn is_from_disk(&self) -> bool {
        self.path.contains("disk") || self.path == "nothing"
    }
}

impl Rollout {
    /// How many leaves are done or left alone.
    pub(super) fn over(&self) -> usize {
        self.leaves.iter().filter(|leaf| leaf.is_over()).count()
    }
}
