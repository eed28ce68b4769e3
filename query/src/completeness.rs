//! The record beside every partial and every answer: who was asked, who answered, which rows that covers.
//!
//! Invariants, kept by the constructors and by `merge`:
//! * `leaves_asked == leaves_answered + the leaves in missing that did not answer`;
//! * `rows_covered` counts rows of blocks that were scanned or proven irrelevant, over the table and the time range
//!   of the plan at row-block granularity, each once;
//! * the ratio is unknown (`None`) as soon as one missing leaf's rows are unknown, and never rounds up.

/// A leaf and the life it is in; a leaf counts once in an answer, by its id and newest epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeafEpoch {
    /// The leaf's id, which survives restarts.
    pub leaf: String,
    /// Grows with each start of the leaf.
    pub epoch: u64,
}

/// Why rows are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MissingReason {
    /// The leaf cannot be reached.
    Down,
    /// The leaf is starting, attaching, recovering or stopping.
    Restarting,
    /// The leaf did not finish by the deadline.
    Timeout,
    /// The leaf refused for lack of room.
    Overloaded,
    /// The leaf answered with an error, or holds a block it cannot read.
    Error,
    /// The rows were held once and are gone: the leaf came back without them.
    Lost,
    /// The leaf is still at work: only in what is said before an answer is there.
    Running,
}

impl MissingReason {
    /// Every reason with the word users read; the position is its number on the wire, so new ones go last.
    pub const ALL: [(MissingReason, &'static str); 7] = [
        (MissingReason::Down, "down"),
        (MissingReason::Restarting, "restarting"),
        (MissingReason::Timeout, "timeout"),
        (MissingReason::Overloaded, "overloaded"),
        (MissingReason::Error, "error"),
        (MissingReason::Lost, "lost"),
        (MissingReason::Running, "running"),
    ];

    /// The word users read.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(reason, _)| *reason == self).map_or("error", |(_, name)| name)
    }
}

/// Rows that an answer does not cover, of one leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The leaf's id, or its address when nothing was ever heard of it.
    pub leaf: String,
    /// Why.
    pub reason: MissingReason,
    /// How many rows; `None` when nobody knows.
    pub rows: Option<u64>,
    /// The leaf did answer, with the rest of its rows.
    pub answered: bool,
    /// What happened, in words, for people.
    pub detail: String,
}

/// How complete a partial or an answer is. See the module for the invariants.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Completeness {
    /// The leaves that answered, each once.
    pub answered: Vec<LeafEpoch>,
    /// Rows of the table and time range that the answer takes into account.
    pub rows_covered: u64,
    /// What is missing, leaf by leaf.
    pub missing: Vec<Missing>,
    /// Groups were left out because there were too many. Those that are there are exact.
    pub groups_truncated: bool,
    /// The first groups of an order may be others, or have more: leaves sent only their own first ones.
    pub approximate: bool,
    /// Newest row time covered, nanoseconds UTC.
    pub newest_time: Option<i64>,
    /// The same by time, where rows are missing from groups by steps of time; otherwise empty.
    pub buckets: Vec<Bucket>,
}

/// How complete one step of time is. It is never overstated: where rows are only known by coarser times than the step,
/// covered rows are counted as outside of it, and missing ones as inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// The first time of the step, nanoseconds UTC.
    pub time: i64,
    /// Rows of it that the answer takes into account, at least.
    pub rows_covered: u64,
    /// Rows that had to be; `None` when nobody knows.
    pub rows_expected: Option<u64>,
}

impl Bucket {
    /// As [`Completeness::ratio`].
    pub fn ratio(&self) -> Option<f64> {
        ratio(self.rows_covered, self.rows_expected?)
    }
}

/// Rounded down, so that it is 1.0 only when nothing is missing.
fn ratio(covered: u64, expected: u64) -> Option<f64> {
    if expected == covered {
        return Some(1.0);
    }
    // Six digits, rounded down in integers: a float division could round up to the next one.
    let millionths = u128::from(covered) * 1_000_000 / u128::from(expected);
    Some(millionths as f64 / 1e6)
}

impl Completeness {
    /// Leaves that had to answer.
    pub fn leaves_asked(&self) -> u64 {
        self.leaves_answered() + self.missing.iter().filter(|missing| !missing.answered).count() as u64
    }

    /// Leaves that did answer.
    pub fn leaves_answered(&self) -> u64 {
        self.answered.len() as u64
    }

    /// Rows that had to be covered; `None` when a missing leaf's rows are unknown.
    pub fn rows_expected(&self) -> Option<u64> {
        self.missing
            .iter()
            .try_fold(self.rows_covered, |sum, missing| Some(sum.saturating_add(missing.rows?)))
    }

    /// `rows covered / rows expected`, rounded down so that it is 1.0 only when nothing is missing. `None` when unknown.
    pub fn ratio(&self) -> Option<f64> {
        ratio(self.rows_covered, self.rows_expected()?)
    }

    /// Adds another part of the same answer: other leaves, or other rows. Steps of time are counted when all are there.
    pub fn merge(&mut self, other: Completeness) {
        self.answered.extend(other.answered);
        self.rows_covered = self.rows_covered.saturating_add(other.rows_covered);
        self.missing.extend(other.missing);
        self.groups_truncated |= other.groups_truncated;
        self.approximate |= other.approximate;
        self.newest_time = self.newest_time.max(other.newest_time);
    }
}

/// What a scan did, added up over leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScanStats {
    /// Rows looked at: of blocks and open rows that were not pruned.
    pub rows_scanned: u64,
    /// Row blocks scanned.
    pub blocks_scanned: u64,
    /// Row blocks proven irrelevant without a scan.
    pub blocks_pruned: u64,
    /// Rows that matched the filter.
    pub stored_rows: u64,
    /// Events that those rows stand for, in whole events.
    pub represented_events: u64,
    /// The longest time a leaf spent scanning, microseconds.
    pub scan_us_max: u64,
}

impl ScanStats {
    /// Adds another scan's figures.
    pub fn merge(&mut self, other: &ScanStats) {
        self.rows_scanned += other.rows_scanned;
        self.blocks_scanned += other.blocks_scanned;
        self.blocks_pruned += other.blocks_pruned;
        self.stored_rows += other.stored_rows;
        self.represented_events = self.represented_events.saturating_add(other.represented_events);
        self.scan_us_max = self.scan_us_max.max(other.scan_us_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(rows: Option<u64>, answered: bool) -> Missing {
        Missing { leaf: "leaf-1".into(), reason: MissingReason::Down, rows, answered, detail: String::new() }
    }

    fn check(rows_covered: u64, missing: Vec<Missing>, expect: Option<f64>) {
        let completeness = Completeness { rows_covered, missing, ..Default::default() };
        assert_eq!(completeness.ratio(), expect);
    }

    #[test]
    fn the_ratio_is_never_overstated() {
        check(0, vec![], Some(1.0));
        check(10, vec![], Some(1.0));
        check(3, vec![missing(Some(1), false)], Some(0.75));
        check(99_999_999, vec![missing(Some(1), false)], Some(0.999999));
        check(2, vec![missing(Some(1), true)], Some(0.666666));
        check(10, vec![missing(None, false)], None);
        check(10, vec![missing(Some(0), false)], Some(1.0));
    }

    #[test]
    fn a_leaf_that_answered_in_part_is_asked_once() {
        let completeness = Completeness {
            answered: vec![LeafEpoch { leaf: "leaf-1".into(), epoch: 1 }],
            rows_covered: 5,
            missing: vec![missing(Some(5), true), missing(Some(1), false)],
            ..Default::default()
        };
        assert_eq!((completeness.leaves_asked(), completeness.leaves_answered()), (2, 1));
        assert_eq!(completeness.rows_expected(), Some(11));
    }
}
