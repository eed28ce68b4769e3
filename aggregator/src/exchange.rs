//! What aggregators tell each other of leaves, as messages, and asking for it again and again.
//!
//! Each aggregator asks every other one that it knows; nobody is told what it did not ask for. What comes is checked like
//! everything from the wire, and bounded: decisions and leaves beyond a limit are not learnt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gannet_proto::address::ChildAddress;
use gannet_proto::{ConvertError, wire};
use gannet_query::Span;
use parking_lot::Mutex;

use crate::children::{Child, ChildSet};
use crate::config::Config;
use crate::membership::MembersWatch;
use crate::roster::{Decision, HeldByLeaf, KnownLeaf, LostRows, Roster, Standing};

mod below;

pub(crate) use below::{Below, decide, decisions};

/// Decisions or leaves that one message tells of.
const TOLD_AT_ONCE: usize = 64;
/// Decisions or leaves that one aggregator is believed to know.
const TOLD_MAX: usize = 16_384;
/// Spans of lost rows of one table.
const LOST_SPANS_MAX: usize = 1_024;
/// How long another aggregator may take to tell.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What another aggregator knows.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// What was decided.
    pub(crate) decisions: Vec<Decision>,
    /// What leaves held.
    pub(crate) leaves: Vec<HeldByLeaf>,
}

impl Told {
    /// Takes one message.
    pub(crate) fn add(&mut self, reply: wire::LearnReply) -> Result<(), ConvertError> {
        let limit = |what| ConvertError::Limit { what, limit: TOLD_MAX as u64 };
        if self.decisions.len() + reply.standings.len() > TOLD_MAX {
            return Err(limit("decisions about leaves"));
        }
        if self.leaves.len() + reply.leaves.len() > TOLD_MAX {
            return Err(limit("leaves"));
        }
        for standing in reply.standings {
            self.decisions.push(decision_of(standing)?);
        }
        for held in reply.leaves {
            self.leaves.push(held_of(held)?);
        }
        Ok(())
    }
}

fn decision_of(standing: wire::Standing) -> Result<Decision, ConvertError> {
    let wire::Standing { leaf, home, number, is_out, forgotten_epoch, accepted_epoch } = standing;
    if leaf.is_empty() {
        return Err(ConvertError::Missing("leaf id"));
    }
    // So that the next number is one.
    if number > gannet_proto::convert::COUNT_MAX {
        return Err(ConvertError::Limit { what: "decisions", limit: gannet_proto::convert::COUNT_MAX });
    }
    Ok(Decision { leaf, home, standing: Standing { number, is_out, forgotten_epoch, accepted_epoch } })
}

fn held_of(held: wire::HeldByLeaf) -> Result<HeldByLeaf, ConvertError> {
    let holdings = held.holdings.ok_or(ConvertError::Missing("holdings"))?.try_into()?;
    let lost = held.lost.into_iter().map(|lost| {
        if lost.spans.len() > LOST_SPANS_MAX {
            return Err(ConvertError::Limit { what: "spans of lost rows", limit: LOST_SPANS_MAX as u64 });
        }
        let spans = lost.spans.into_iter().map(Span::try_from).collect::<Result<_, _>>()?;
        Ok(LostRows { table: lost.table, spans, retention_seconds: lost.retention_seconds })
    });
    Ok(HeldByLeaf { holdings, home: held.home, lost: lost.collect::<Result<_, _>>()? })
}

/// What an asker knows, as a request.
pub(crate) fn request(roster: &Roster, children: &ChildSet) -> wire::LearnRequest {
    let known = roster.known(|home| is_reached(children, home)).into_iter();
    let known =
        known.map(|known| wire::KnownLeaf { leaf: known.leaf, reached: known.is_reached, mark: known.mark });
    wire::LearnRequest { known: known.collect() }
}

/// What is known here and not by the asker, as replies.
pub(crate) fn replies(roster: &Roster, request: wire::LearnRequest) -> Vec<wire::LearnReply> {
    let asker = request.known.into_iter().take(TOLD_MAX);
    let asker: Vec<KnownLeaf> = asker
        .map(|known| KnownLeaf { leaf: known.leaf, is_reached: known.reached, mark: known.mark })
        .collect();
    let standings = decisions(roster);
    let held = |held: &HeldByLeaf| wire::HeldByLeaf {
        holdings: Some((&held.holdings).into()),
        home: held.home.clone(),
        lost: held
            .lost
            .iter()
            .map(|lost| wire::LostRows {
                table: lost.table.clone(),
                spans: lost.spans.iter().map(Into::into).collect(),
                retention_seconds: lost.retention_seconds,
            })
            .collect(),
    };
    let leaves = roster.unknown_to(&asker);
    let standings = standings
        .chunks(TOLD_AT_ONCE)
        .map(|some| wire::LearnReply { standings: some.to_vec(), leaves: Vec::new() });
    // A leaf may hold thousands of tables, so each goes by itself.
    let leaves =
        leaves.iter().map(|leaf| wire::LearnReply { standings: Vec::new(), leaves: vec![held(leaf)] });
    standings.chain(leaves).collect()
}

fn is_reached(children: &ChildSet, home: &str) -> bool {
    children.get(home).is_some_and(|child| child.down().is_none())
}

/// Learns what another aggregator told. Gives back, for the log, the rows that turned out to be lost by leaf.
pub(crate) fn learn(roster: &mut Roster, told: Told, children: &ChildSet, now: i64) -> Vec<(String, u64)> {
    for decision in told.decisions {
        roster.learn_decision(decision, |home| is_reached(children, home));
    }
    let mut lost = Vec::new();
    for held in told.leaves {
        let leaf = held.holdings.leaf.clone();
        let rows = roster.learn(held, now);
        if rows > 0 {
            lost.push((leaf, rows));
        }
    }
    lost
}

/// Asks the other aggregators.
#[derive(Debug)]
pub(crate) struct Exchange {
    members: MembersWatch,
    roster: Arc<Mutex<Roster>>,
    children: Arc<ChildSet>,
    every: Duration,
}

impl Exchange {
    /// Among these members, about this roster.
    pub(crate) fn new(
        members: &MembersWatch,
        roster: &Arc<Mutex<Roster>>,
        children: &Arc<ChildSet>,
        config: &Config,
    ) -> Exchange {
        Exchange {
            members: members.clone(),
            roster: Arc::clone(roster),
            children: Arc::clone(children),
            every: Duration::from_millis(config.roster_exchange_ms),
        }
    }

    /// Asks every other aggregator, again and again, and at once when there is a new one.
    pub(crate) async fn run(mut self) {
        let mut others: BTreeMap<ChildAddress, Arc<Child>> = BTreeMap::new();
        loop {
            let members = Arc::clone(&self.members.borrow_and_update());
            others.retain(|address, _| members.aggregators.iter().any(|member| member.address == *address));
            for member in &members.aggregators {
                if others.contains_key(&member.address) {
                    continue;
                }
                match self.children.beside(&member.address) {
                    Ok(other) => drop(others.insert(member.address.clone(), Arc::new(other))),
                    Err(error) => tracing::debug!(address = %member.address, %error, "cannot be asked"),
                }
            }
            futures::future::join_all(others.values().map(|other| self.ask(other))).await;
            // News or not: it is time.
            let _ = tokio::time::timeout(self.every, self.members.changed()).await;
        }
    }

    async fn ask(&self, other: &Child) {
        let request = request(&self.roster.lock(), &self.children);
        match other.learn(request, TIMEOUT).await {
            Ok(told) => {
                let now = chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX);
                for (leaf, rows) in learn(&mut self.roster.lock(), told, &self.children, now) {
                    tracing::warn!(
                        leaf,
                        rows,
                        from = other.address(),
                        "a leaf held rows that it came back without"
                    );
                }
            }
            Err(error) => tracing::debug!(aggregator = other.address(), %error, "it told nothing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::holdings;

    fn reply(change: impl FnOnce(&mut wire::LearnReply)) -> Result<Told, ConvertError> {
        let mut roster = Roster::default();
        roster.described("at", vec![holdings("a", 2, 30), holdings("b", 1, 5)], vec![], 0);
        roster.decommission("b");
        let mut told = Told::default();
        for mut reply in replies(&roster, wire::LearnRequest::default()) {
            if !reply.leaves.is_empty() {
                reply.standings.push(wire::Standing { leaf: "c".into(), ..Default::default() });
                change(&mut reply);
                return told.add(reply).map(|()| told);
            }
            told.add(reply)?;
        }
        Ok(told)
    }

    fn check(change: impl FnOnce(&mut wire::LearnReply), expect: &str) {
        assert_eq!(reply(change).unwrap_err().to_string(), expect);
    }

    #[test]
    fn what_is_told_is_learnt() {
        let told = reply(|_| {}).unwrap();
        let mut roster = Roster::default();
        assert!(learn(&mut roster, told, &ChildSet::default(), 0).is_empty());
        assert!(roster.is_decommissioned("b") && !roster.is_decommissioned("a"));
        assert_eq!(roster.rows_expected("a", "t", &gannet_query::TimeRange::ALL), 30);
        assert_eq!(roster.homes(), ["at"]);
        // Nothing is news any more but the decisions.
        let again = replies(&roster, request(&roster, &ChildSet::default()));
        assert!(again.iter().all(|reply| reply.leaves.is_empty()));
    }

    #[test]
    fn what_is_told_is_checked() {
        check(|reply| reply.standings[0].leaf.clear(), "leaf id is missing");
        check(|reply| reply.standings[0].number = u64::MAX, "decisions exceed the limit of 4503599627370496");
        check(|reply| reply.leaves[0].holdings = None, "holdings is missing");
        check(
            |reply| {
                let spans = vec![wire::Span::default(); LOST_SPANS_MAX + 1];
                reply.leaves[0].lost.push(wire::LostRows { spans, ..Default::default() });
            },
            "spans of lost rows exceed the limit of 1024",
        );
        check(
            |reply| reply.standings = vec![reply.standings[0].clone(); TOLD_MAX + 1],
            "decisions about leaves exceed the limit of 16384",
        );
        check(
            |reply| reply.leaves = vec![reply.leaves[0].clone(); TOLD_MAX + 1],
            "leaves exceed the limit of 16384",
        );
    }
}
