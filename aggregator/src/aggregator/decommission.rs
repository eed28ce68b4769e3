//! Taking leaves out of the roster and back in: what a person decides, once, for all aggregators.
//!
//! Aggregators below are heard before a decision is made, so that it is later than theirs, and told at once; one that is
//! away is told when it comes back.

use gannet_proto::wire;

use super::Aggregator;
use crate::error::{ErrorCode, Failure};
use crate::exchange;

/// Leaves that an error names at most.
const NAMED_MAX: usize = 8;

impl Aggregator {
    /// Takes a leaf that is gone out of the roster. Gives back how many rows are no longer expected.
    ///
    /// # Errors
    /// When no such leaf is known, it can still be reached, or the decision cannot be written.
    pub async fn decommission(&self, leaf: &str) -> Result<u64, Failure> {
        if self.reaches(leaf) {
            let message = format!("leaf `{leaf}` is up");
            return Err(Failure::new(ErrorCode::WrongState, message)
                .detail("Its rows would be in no answer any more although they are there.".to_owned())
                .hint("Stop it first; its rows stay on its disk. Or use force."));
        }
        self.decommission_by_force(leaf).await
    }

    /// Takes a leaf out of the roster, even one that is up: it is asked for nothing any more and gets no rows. Gives back
    /// how many rows are no longer expected.
    ///
    /// # Errors
    /// When no such leaf is known, or the decision cannot be written.
    pub async fn decommission_by_force(&self, leaf: &str) -> Result<u64, Failure> {
        self.below.tell().await;
        let rows = self.roster.lock().decommission(leaf);
        let Some(rows) = rows else { return Err(self.unknown_leaf(leaf)) };
        tracing::warn!(leaf, rows, "a leaf was taken out of the roster");
        self.keep_decision().await?;
        self.below.tell().await;
        Ok(rows)
    }

    /// Takes a leaf back into the roster.
    ///
    /// # Errors
    /// When it was not out, or the decision cannot be written.
    pub async fn recommission(&self, leaf: &str) -> Result<(), Failure> {
        self.below.tell().await;
        let was_out = self.roster.lock().recommission(leaf);
        if !was_out {
            let message = format!("leaf `{leaf}` is not decommissioned");
            return Err(Failure::new(ErrorCode::NotFound, message));
        }
        tracing::warn!(leaf, "a leaf was taken back into the roster");
        self.keep_decision().await?;
        self.below.tell().await;
        self.refresh().await;
        Ok(())
    }

    /// Takes over what a parent knows to be decided, and passes it on. Everything that is decided here then.
    ///
    /// # Errors
    /// When it cannot be so, or cannot be written.
    pub(crate) async fn decide(
        &self,
        standings: Vec<wire::Standing>,
    ) -> Result<Vec<wire::Standing>, Failure> {
        let (before, after) = {
            let mut roster = self.roster.lock();
            let before = roster.version();
            exchange::decide(&mut roster, standings, &self.children)
                .map_err(|error| Failure::new(ErrorCode::BadRequest, error.to_string()))?;
            (before, roster.version())
        };
        if before != after {
            self.keep_decision().await?;
            self.below.tell().await;
        }
        Ok(exchange::decisions(&self.roster.lock()))
    }

    /// A decision must not be lost by a crash: the roster is written before anybody is told that it counts.
    async fn keep_decision(&self) -> Result<(), Failure> {
        self.save().await.map_err(|error| {
            let message = format!("the decision counts, but it is not written: {error}");
            Failure::new(ErrorCode::Internal, message).hint("Decide again when the disk is well.")
        })
    }

    fn reaches(&self, leaf: &str) -> bool {
        let at = self.roster.lock().child_of(leaf).map(|(child, reachable)| (child.to_owned(), reachable));
        at.is_some_and(|(at, reachable)| {
            reachable && self.children.get(&at).is_some_and(|child| child.down().is_none())
        })
    }

    fn unknown_leaf(&self, leaf: &str) -> Failure {
        let roster = self.roster.lock();
        if roster.is_decommissioned(leaf) {
            let message = format!("leaf `{leaf}` is decommissioned already");
            return Failure::new(ErrorCode::NotFound, message);
        }
        let mut known: Vec<&str> = roster.leaf_ids().take(NAMED_MAX + 1).collect();
        let more = if known.len() > NAMED_MAX { " and more" } else { "" };
        known.truncate(NAMED_MAX);
        let failure = Failure::new(ErrorCode::NotFound, format!("no leaf `{leaf}` is known"));
        match known.as_slice() {
            [] => failure,
            known => failure.detail(format!("Known are {}{more}.", known.join(", "))),
        }
    }
}
