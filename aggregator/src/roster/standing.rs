//! What people decided about leaves: that one is out of the roster for good, that it is back in, or that rows which are
//! gone are not missed any more.
//!
//! A decision is kept for ever and passed on to other aggregators, so that a leaf which was taken out does not come back
//! with what somebody else still remembers of it. A leaf that is out stays out, whatever it says and however often it
//! starts, until a person takes it back in; a new leaf takes a new id.
//!
//! Of two decisions about one leaf the later counts: each is numbered one above all that its aggregator knew. Two that
//! were made at once have the same number, and then the order of [`Standing`] decides, everywhere the same.

use std::collections::BTreeMap;

use super::{Decision, Roster};

/// A leaf's standing since the latest decision about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Standing {
    /// The number of the decision.
    pub number: u64,
    /// It is out of the roster.
    pub is_out: bool,
    /// What was held in this epoch or before is not missed, where nobody reaches the leaf.
    pub forgotten_epoch: u64,
    /// What was lost in this epoch or before is not missed.
    pub accepted_epoch: u64,
}

/// Every standing, with where the leaf was last.
pub(super) type Standings = BTreeMap<String, (Standing, String)>;

impl Roster {
    /// A leaf is out of the roster.
    pub fn is_decommissioned(&self, leaf: &str) -> bool {
        self.standings.get(leaf).is_some_and(|(standing, _)| standing.is_out)
    }

    /// What was decided about a leaf.
    pub fn standing(&self, leaf: &str) -> Option<Standing> {
        self.standings.get(leaf).map(|(standing, _)| *standing)
    }

    /// The ids of leaves that are out of the roster.
    pub fn decommissioned(&self) -> impl Iterator<Item = &str> {
        self.standings.iter().filter(|(_, (standing, _))| standing.is_out).map(|(leaf, _)| leaf.as_str())
    }

    /// Takes a leaf out: gives back the rows that are no longer expected, or `None` for a leaf never heard of.
    pub fn decommission(&mut self, leaf: &str) -> Option<u64> {
        let at = self.place_of(leaf);
        let rows = self.forget(leaf)?;
        if let Some((standing, home)) = self.standings.get_mut(leaf) {
            standing.is_out = true;
            *home = at.unwrap_or_default();
        }
        Some(rows)
    }

    /// Where a leaf is, or through whom it was heard of.
    fn place_of(&self, leaf: &str) -> Option<String> {
        let at = self.leaves.get(leaf).map(|record| record.child.clone());
        at.or_else(|| {
            let below = |(_, child): &(&String, &super::ChildRecord)| child.unreachable.contains_key(leaf);
            self.children.iter().find(below).map(|(child, _)| child.clone())
        })
    }

    /// Learns of a decision from a parent or a child, who knows the leaf in another place than it is here.
    pub fn learn_decision_elsewhere(&mut self, decision: Decision, is_reached: impl Fn(&str) -> bool) {
        let known = self.standings.get(&decision.leaf).map(|(_, home)| home.clone());
        let home = self.place_of(&decision.leaf).or(known).unwrap_or_default();
        self.learn_decision(Decision { home, ..decision }, is_reached);
    }

    /// Takes a leaf back in. False when it was not out.
    pub fn recommission(&mut self, leaf: &str) -> bool {
        if !self.is_decommissioned(leaf) {
            return false;
        }
        self.decide(leaf, |standing| standing.is_out = false);
        true
    }

    /// Forgets a leaf that will not come back: gives back the rows that are no longer expected, or `None` for a leaf
    /// never heard of. When it does come back, it counts with what it says.
    pub fn forget(&mut self, leaf: &str) -> Option<u64> {
        let record = self.leaves.remove(leaf);
        let mut named = record.is_some();
        for child in self.children.values_mut() {
            named |= child.leaves.remove(leaf);
            named |= child.unreachable.remove(leaf).is_some();
        }
        if !named {
            return None;
        }
        let epoch = record.as_ref().map_or(0, |record| record.epoch);
        self.decide(leaf, |standing| standing.forgotten_epoch = standing.forgotten_epoch.max(epoch));
        Some(record.map_or(0, |record| record.rows() + record.rows_lost()))
    }

    /// Notes a decision of a person at this aggregator.
    pub(super) fn decide(&mut self, leaf: &str, change: impl FnOnce(&mut Standing)) {
        let number = self.standings.values().map(|(standing, _)| standing.number).max().unwrap_or(0) + 1;
        let (standing, _) = self.standings.entry(leaf.to_owned()).or_default();
        standing.number = number;
        change(standing);
        self.version += 1;
    }

    /// Nothing is expected of a child: it stands for leaves that are out and for no others, or was the place of one.
    pub fn is_retired(&self, child: &str) -> bool {
        if self.standings.is_empty() {
            return false;
        }
        let is_out = match self.children.get(child) {
            Some(record) if !record.leaves.is_empty() || !record.unreachable.is_empty() => {
                record.leaves.iter().chain(record.unreachable.keys()).all(|leaf| self.is_decommissioned(leaf))
            }
            _ => self.standings.values().any(|(standing, home)| standing.is_out && home == child),
        };
        is_out && !self.leaves.values().any(|record| record.child == child)
    }

    /// Where leaves were last heard of, each address once.
    pub fn homes(&self) -> Vec<String> {
        let mut homes: Vec<String> = self.leaves.values().map(|record| record.child.clone()).collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }

    /// Forgets what children said that are not configured and that are no leaf's place.
    pub fn forget_unused_children(&mut self) {
        let (leaves, configured) = (&self.leaves, &self.configured);
        let is_home = |child: &String| leaves.values().any(|record| record.child == *child);
        self.children.retain(|child, _| configured.contains(child) || is_home(child));
    }
}
