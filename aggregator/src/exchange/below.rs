//! Telling children that are aggregators what people decided about leaves, and hearing what was decided there.
//!
//! A child that is an aggregator keeps a roster of its own and expects the leaves below it. A decision that it did not
//! hear of would come back with every answer of it, so each is told again and again, and at once when there is a new one.
//! Both end with the later of what they know, whoever decided it.

use std::sync::Arc;
use std::time::Duration;

use gannet_proto::{ConvertError, wire};
use parking_lot::Mutex;

use super::{TOLD_MAX, decision_of, is_reached};
use crate::children::{Child, ChildError, ChildSet};
use crate::config::Config;
use crate::roster::Roster;

/// Every decision that is known, as others are told.
pub(crate) fn decisions(roster: &Roster) -> Vec<wire::Standing> {
    let standing = |decision: crate::roster::Decision| wire::Standing {
        leaf: decision.leaf,
        home: decision.home,
        number: decision.standing.number,
        is_out: decision.standing.is_out,
        forgotten_epoch: decision.standing.forgotten_epoch,
        accepted_epoch: decision.standing.accepted_epoch,
    };
    roster.decisions().into_iter().map(standing).collect()
}

/// Takes over what a parent or a child knows to be decided.
///
/// # Errors
/// When it cannot be so; nothing is taken over then.
pub(crate) fn decide(
    roster: &mut Roster,
    standings: Vec<wire::Standing>,
    children: &ChildSet,
) -> Result<(), ConvertError> {
    if standings.len() > TOLD_MAX {
        return Err(ConvertError::Limit { what: "decisions about leaves", limit: TOLD_MAX as u64 });
    }
    let decisions: Vec<_> = standings.into_iter().map(decision_of).collect::<Result<_, _>>()?;
    for decision in decisions {
        roster.learn_decision_elsewhere(decision, |home| is_reached(children, home));
    }
    Ok(())
}

/// Tells the children.
#[derive(Debug, Clone)]
pub(crate) struct Below {
    roster: Arc<Mutex<Roster>>,
    children: Arc<ChildSet>,
    every: Duration,
    timeout: Duration,
}

impl Below {
    /// About this roster, below this aggregator.
    pub(crate) fn new(roster: &Arc<Mutex<Roster>>, children: &Arc<ChildSet>, config: &Config) -> Below {
        Below {
            roster: Arc::clone(roster),
            children: Arc::clone(children),
            every: Duration::from_millis(config.roster_exchange_ms),
            timeout: Duration::from_millis(config.describe_timeout_ms),
        }
    }

    /// Tells them again and again.
    pub(crate) async fn run(self) {
        loop {
            self.tell().await;
            tokio::time::sleep(self.every).await;
        }
    }

    /// Tells every child that is an aggregator and up.
    pub(crate) async fn tell(&self) {
        let children = self.children.now();
        let aggregators =
            children.iter().filter(|child| child.down().is_none() && child.aggregator_version().is_some());
        futures::future::join_all(aggregators.map(|child| self.tell_one(child))).await;
    }

    async fn tell_one(&self, child: &Child) {
        let known = decisions(&self.roster.lock());
        let decided = match child.decide(known, self.timeout).await {
            Ok(decided) => decided,
            // Its program is older; who decides has to do so there as well.
            Err(ChildError::NotServed) => return,
            Err(error) => {
                tracing::debug!(child = child.address(), %error, "it was not told what is decided");
                return;
            }
        };
        if let Err(error) = decide(&mut self.roster.lock(), decided, &self.children) {
            tracing::warn!(child = child.address(), %error, "what it says to be decided cannot be");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::holdings;

    /// A roster that hears of two leaves at one address.
    fn roster(at: &str) -> Roster {
        let mut roster = Roster::default();
        roster.described(at, vec![holdings("a", 2, 30), holdings("b", 1, 5)], vec![], 0);
        roster
    }

    fn tell(from: &Roster, to: &mut Roster) {
        decide(to, decisions(from), &ChildSet::default()).unwrap();
    }

    fn home(roster: &Roster, leaf: &str) -> String {
        roster.decisions().into_iter().find(|decision| decision.leaf == leaf).unwrap().home
    }

    #[test]
    fn a_decision_holds_above_and_below_and_each_knows_the_place() {
        let (mut above, mut below) = (roster("aggregator:1"), roster("leaf:1"));
        above.decommission("a");
        tell(&above, &mut below);
        assert!(below.is_decommissioned("a") && !below.is_decommissioned("b"));
        assert_eq!((home(&above, "a"), home(&below, "a")), ("aggregator:1".into(), "leaf:1".into()));
        // The later one holds, wherever it was made.
        assert!(below.recommission("a"));
        tell(&above, &mut below);
        assert!(!below.is_decommissioned("a"));
        tell(&below, &mut above);
        assert!(!above.is_decommissioned("a"));
        assert_eq!(home(&above, "a"), "aggregator:1");
        let version = above.version();
        tell(&below, &mut above);
        assert_eq!(above.version(), version, "nothing is news any more");
    }

    #[test]
    fn what_cannot_be_is_not_taken_over() {
        let mut roster = roster("leaf:1");
        let standing = |leaf: &str| wire::Standing {
            leaf: leaf.to_owned(),
            number: 1,
            is_out: true,
            ..Default::default()
        };
        let check = |roster: &mut Roster, standings, expect: &str| {
            let error = decide(roster, standings, &ChildSet::default()).unwrap_err();
            assert_eq!(error.to_string(), expect);
        };
        check(&mut roster, vec![standing("a"), standing("")], "leaf id is missing");
        check(
            &mut roster,
            vec![standing("a"); TOLD_MAX + 1],
            "decisions about leaves exceed the limit of 16384",
        );
        assert!(!roster.is_decommissioned("a"));
    }
}
