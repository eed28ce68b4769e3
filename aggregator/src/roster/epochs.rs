//! Which epoch of a leaf is known, and where its newest is: of two processes with one id the newest counts.

use gannet_query::LeafEpoch;

use super::{LeafRecord, Roster};

impl LeafRecord {
    /// The newest epoch that was heard of, whether or not it has begun to say what it holds.
    pub(super) fn newest_epoch(&self) -> u64 {
        self.said.as_ref().map_or(self.epoch, |said| said.epoch.max(self.epoch))
    }
}

impl Roster {
    /// The epoch of what is known of a leaf.
    pub fn epoch(&self, leaf: &str) -> Option<u64> {
        self.leaves.get(leaf).map(|record| record.epoch)
    }

    /// Where the newest epoch of a leaf is that was ever heard of, and which it is.
    pub fn newest(&self, leaf: &str) -> Option<(&str, u64)> {
        let record = self.leaves.get(leaf)?;
        Some((&record.child, record.newest_epoch()))
    }

    /// Where a newer epoch of a leaf is than the one that answered from here, and which it is.
    pub fn newer_elsewhere(&self, answered: &LeafEpoch, at: &str) -> Option<(&str, u64)> {
        self.newest(&answered.leaf).filter(|(home, newest)| *newest > answered.epoch && *home != at)
    }

    /// True when a leaf that was heard of before has said what it holds in an epoch, or has begun to.
    pub fn has_described(&self, leaf: &str, epoch: u64) -> bool {
        let Some(record) = self.leaves.get(leaf) else { return true };
        record.epoch == epoch || record.said.as_ref().is_some_and(|said| said.epoch == epoch)
    }
}
