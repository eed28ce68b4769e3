//! The answers of children as they come in, and what they come to: one body, and one record in which every leaf that is
//! expected is, once.
//!
//! An answer and what there is so far are made by the same code, so both are exact for what their record says. Who asks
//! for another aggregator accounts for the children it was given and leaves rows that are missing to its asker.

use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

use gannet_query::{
    Completeness, LeftOut, Missing, MissingReason, Partial, Plan, QueryError, ScanStats, Several, SoFar, Sum,
};

use super::asking::{Target, Unit};
use super::{Cuts, Decoded, FanOut, GatherError, buckets, on_thread};
use crate::error::{ErrorCode, Failure};
use crate::planted::{Bug, planted};

/// Who says who is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// The roster of this aggregator.
    OfRoster,
    /// Another aggregator, which gave the children.
    OfAsker,
}

/// The state of one fan-out while answers come in.
pub(super) struct Gathering<'a> {
    fan_out: &'a FanOut,
    expected: Expected,
    plan: &'a Plan,
    /// Taken while a blocking thread merges.
    several: Option<Several>,
    cuts: &'a Cuts,
    /// Bytes merged so far: what finishing will have to work on.
    bytes: usize,
    completeness: Completeness,
    stats: ScanStats,
    /// Leaves that more than one child says it has.
    contested: BTreeSet<String>,
    /// Answers of leaves that are there twice.
    held: Vec<(Unit, Decoded)>,
    /// The leaves that count already, with where they are.
    counted: BTreeMap<String, String>,
}

/// Where a leaf is that is in the answer of a unit.
fn place_of<'u>(unit: &'u Unit, leaf: &str) -> &'u str {
    let target = unit.targets.iter().find(|target| target.leaf.as_deref() == Some(leaf));
    target.map_or(unit.child.address(), |target| target.child.address())
}

impl<'a> Gathering<'a> {
    /// Of no answers yet.
    pub(super) fn new(
        fan_out: &'a FanOut,
        plan: &'a Plan,
        cuts: &'a Cuts,
        expected: Expected,
    ) -> Result<Gathering<'a>, GatherError> {
        let memory = fan_out.config.merge_bytes_max;
        let several = Several::new(plan, cuts.cutting.clone(), Some(cuts.groups_max), memory);
        let contested = match expected {
            Expected::OfRoster => fan_out.roster.lock().contested(),
            Expected::OfAsker => BTreeSet::new(),
        };
        Ok(Gathering {
            expected,
            plan,
            several: Some(several.map_err(|error| failed(&error))?),
            cuts,
            bytes: 0,
            completeness: Completeness::default(),
            stats: ScanStats::default(),
            contested,
            held: Vec::new(),
            counted: BTreeMap::new(),
            fan_out,
        })
    }

    /// A leaf of this answer is there twice: more than one child says it has it, or the roster knows a newer epoch of it
    /// elsewhere, whether or not that is heard.
    fn is_contested(&self, unit: &Unit, decoded: &Decoded) -> bool {
        if self.expected == Expected::OfAsker || planted(Bug::BothEpochsCounted) {
            return false;
        }
        let roster = self.fan_out.roster.lock();
        let answered = &decoded.completeness.answered;
        answered.iter().any(|leaf| {
            self.contested.contains(&leaf.leaf)
                || roster.newer_elsewhere(leaf, place_of(unit, &leaf.leaf)).is_some()
        })
    }

    /// Why an answer of a leaf that is there twice does not count: there is a newer epoch of the leaf elsewhere, and no
    /// answer of it. It holds rows that this one never saw.
    fn outdated(&self, unit: &Unit, decoded: &Decoded) -> Option<String> {
        let roster = self.fan_out.roster.lock();
        let uncounted =
            decoded.completeness.answered.iter().filter(|leaf| !self.counted.contains_key(&leaf.leaf));
        uncounted.into_iter().find_map(|leaf| {
            let at = place_of(unit, &leaf.leaf);
            let (home, newest) = roster.newer_elsewhere(leaf, at)?;
            Some(format!(
                "its epoch {newest} at {home} did not answer, and epoch {} at {at} is older",
                leaf.epoch
            ))
        })
    }

    /// Decides about leaves that are there twice, as all answers are in: the newest epoch counts, and when that did not
    /// answer, none does.
    async fn settle(&mut self) -> Result<(), GatherError> {
        let mut held = std::mem::take(&mut self.held);
        let newest = |decoded: &Decoded| decoded.completeness.answered.iter().map(|leaf| leaf.epoch).max();
        held.sort_by_key(|(_, decoded)| std::cmp::Reverse(newest(decoded)));
        for (unit, decoded) in held {
            match self.outdated(&unit, &decoded) {
                None => self.count(&unit, decoded).await?,
                Some(why) => self.without(decoded, &why),
            }
        }
        Ok(())
    }

    /// A child did not answer: everything it stands for is missing.
    pub(super) fn missed(&mut self, target: &Target, reason: MissingReason, detail: &str) {
        if planted(Bug::DenominatorFromGossip) {
            return;
        }
        let at = target.child.address();
        match self.expected {
            Expected::OfRoster => {
                let roster = self.fan_out.roster.lock();
                let missing = roster.missing_of(at, reason, detail, &self.plan.table, &self.plan.time_range);
                self.completeness.missing.extend(missing);
            }
            Expected::OfAsker => self.completeness.missing.push(Missing {
                leaf: target.leaf.clone().unwrap_or_else(|| at.to_owned()),
                reason,
                rows: None,
                answered: false,
                detail: detail.to_owned(),
            }),
        }
    }

    /// Nobody answered whom a unit was for.
    pub(super) fn missed_all(&mut self, unit: &Unit, reason: MissingReason, detail: &str) {
        unit.targets.iter().for_each(|target| self.missed(target, reason, detail));
    }

    /// Leaves of an answer count already: they came through others.
    fn counts_already(&self, decoded: &Decoded) -> bool {
        !planted(Bug::BothEpochsCounted)
            && decoded.completeness.answered.iter().any(|leaf| self.counted.contains_key(&leaf.leaf))
    }

    /// An aggregator that stands between answered. Its missing leaves are missing as this roster knows them. Gives back
    /// the targets that it did not account for, or that it cannot reach and this aggregator can; and when one of its
    /// leaves counts already, all others, because its answer cannot be taken apart.
    pub(super) async fn add_group(
        &mut self,
        unit: &Unit,
        mut decoded: Decoded,
    ) -> Result<Vec<Target>, GatherError> {
        if self.counts_already(&decoded) {
            tracing::warn!(aggregator = unit.child.address(), "a leaf of its answer counts already");
            let again = unit
                .targets
                .iter()
                .filter(|target| !target.leaf.as_ref().is_some_and(|leaf| self.counted.contains_key(leaf)));
            return Ok(again.cloned().collect());
        }
        let answered: BTreeSet<&str> =
            decoded.completeness.answered.iter().map(|leaf| leaf.leaf.as_str()).collect();
        let unanswered: BTreeMap<&str, &Missing> = decoded
            .completeness
            .missing
            .iter()
            .filter(|missing| !missing.answered)
            .map(|missing| (missing.leaf.as_str(), missing))
            .collect();
        let (mut again, mut missed) = (Vec::new(), Vec::new());
        for target in &*unit.targets {
            let leaf = target.leaf.as_deref().unwrap_or_default();
            match unanswered.get(leaf) {
                _ if answered.contains(leaf) => {}
                // Nobody here knows better either than to say so; but a way that is closed to one may be open to another.
                Some(missing) if missing.reason != MissingReason::Down || target.child.down().is_some() => {
                    missed.push((target.clone(), missing.reason, missing.detail.clone()));
                }
                _ => again.push(target.clone()),
            }
        }
        decoded.completeness.missing.retain(|missing| missing.answered);
        for (target, reason, detail) in missed {
            self.missed(&target, reason, &detail);
        }
        self.add(unit, decoded).await?;
        Ok(again)
    }

    /// A child answered. Of a leaf that is there twice it waits until all answers are in.
    pub(super) async fn add(&mut self, unit: &Unit, decoded: Decoded) -> Result<(), GatherError> {
        if self.is_contested(unit, &decoded) {
            self.held.push((unit.clone(), decoded));
            return Ok(());
        }
        self.count(unit, decoded).await
    }

    /// Counts an answer. When one of its leaves counts already, it cannot be taken apart and is left out.
    async fn count(&mut self, unit: &Unit, decoded: Decoded) -> Result<(), GatherError> {
        if self.counts_already(&decoded) {
            self.leave_out(decoded);
            return Ok(());
        }
        for leaf in &decoded.completeness.answered {
            self.counted.insert(leaf.leaf.clone(), place_of(unit, &leaf.leaf).to_owned());
        }
        self.bytes += decoded.bytes;
        let Some(mut several) = self.several.take() else {
            return Err(GatherError::Failed(Failure::new(ErrorCode::Internal, "merging ended early")));
        };
        let (bodies, left_out) = (decoded.bodies, decoded.left_out);
        let merge = move || {
            let outcome = several.push(bodies, left_out);
            (several, outcome)
        };
        let merged = on_thread(decoded.bytes, merge).await;
        let (several, outcome) =
            merged.map_err(|text| GatherError::Failed(Failure::new(ErrorCode::Internal, text)))?;
        outcome.map_err(|error| failed(&error))?;
        self.several = Some(several);
        self.completeness.merge(decoded.completeness);
        self.stats.merge(&decoded.stats);
        Ok(())
    }

    /// An answer does not count: its leaves are missing.
    fn without(&mut self, decoded: Decoded, why: &str) {
        let roster = self.fan_out.roster.lock();
        let (table, range) = (&self.plan.table, &self.plan.time_range);
        let missing = decoded.completeness.answered.into_iter().map(|answered| Missing {
            rows: Some(roster.rows_expected(&answered.leaf, table, range)),
            leaf: answered.leaf,
            reason: MissingReason::Error,
            answered: false,
            detail: why.to_owned(),
        });
        self.completeness.missing.extend(missing);
        let unanswered = decoded.completeness.missing.into_iter().filter(|missing| !missing.answered);
        self.completeness.missing.extend(unanswered);
    }

    fn leave_out(&mut self, decoded: Decoded) {
        let roster = self.fan_out.roster.lock();
        for leaf in &decoded.completeness.answered {
            let through = self.counted.get(&leaf.leaf);
            tracing::warn!(leaf = leaf.leaf, child = decoded.child.address(), "a leaf answered twice");
            let detail = match through {
                Some(first) => {
                    format!(
                        "answered through {first} and again through {}; counted once",
                        decoded.child.address()
                    )
                }
                None => {
                    format!("its child {} sent rows of a leaf that counts already", decoded.child.address())
                }
            };
            let rows = match through {
                Some(_) => 0,
                None => roster.rows_expected(&leaf.leaf, &self.plan.table, &self.plan.time_range),
            };
            self.completeness.missing.push(Missing {
                leaf: leaf.leaf.clone(),
                reason: MissingReason::Error,
                rows: Some(rows),
                answered: through.is_some(),
                detail,
            });
        }
        let unanswered = decoded.completeness.missing.into_iter().filter(|missing| !missing.answered);
        self.completeness.missing.extend(unanswered);
    }

    /// What there is so far: as [`Gathering::finish`], at once, and only of leaves of which the roster knows what they
    /// came back with. A body is only made when it is wanted.
    pub(super) async fn so_far(mut self, with_body: bool) -> Result<Option<SoFar>, GatherError> {
        self.settle().await?;
        let known = self.expected == Expected::OfAsker || {
            let roster = self.fan_out.roster.lock();
            self.completeness.answered.iter().all(|leaf| roster.has_described(&leaf.leaf, leaf.epoch))
        };
        if !known {
            return Ok(None);
        }
        self.account();
        let (mut body, mut left_out) = (None, LeftOut::default());
        if with_body {
            let sum = self.sum().await?;
            (body, left_out) = (Some(sum.body), sum.left_out);
        }
        Ok(Some(SoFar { body, completeness: self.completeness, stats: self.stats, left_out }))
    }

    /// What was added up, and in the record what that does to groups. Who adds this up with others is told what was left
    /// out; whoever asked first only that something was.
    async fn sum(&mut self) -> Result<Sum, GatherError> {
        let Some(several) = self.several.take() else {
            return Err(GatherError::Failed(Failure::new(ErrorCode::Internal, "merging ended early")));
        };
        let (is_for_parent, top) = (self.cuts.wanted.loose.is_some(), self.cuts.wanted.top.clone());
        let add_up = move || match is_for_parent {
            true => {
                let (body, left_out) = several.finish_for_parent()?;
                Ok(Sum { body, left_out, is_approximate: false })
            }
            false => several.finish(top.as_ref()),
        };
        let sum = on_thread(self.bytes, add_up).await;
        let sum = sum.map_err(|text| GatherError::Failed(Failure::new(ErrorCode::Internal, text)))?;
        let sum = sum.map_err(|error| failed(&error))?;
        self.completeness.approximate |= sum.is_approximate;
        // Who said how many are wanted is told from where on they are missing.
        self.completeness.groups_truncated |= sum.left_out.hash.is_some()
            && self.cuts.wanted.groups_max.is_none()
            && !planted(Bug::TruncationNotFlagged);
        Ok(sum)
    }

    /// Accounts for every leaf of the roster, once, and closes the body.
    pub(super) async fn finish(mut self, deadline: Instant) -> Result<Partial, GatherError> {
        self.settle().await?;
        let epochs = &self.completeness.answered;
        let unmet = match self.expected {
            Expected::OfRoster => self.fan_out.meet_new_epochs(epochs, &self.counted, deadline).await,
            Expected::OfAsker => Vec::new(),
        };
        let overtaken = self.overtaken();
        let unmet = unmet.into_iter().filter(|leaf| overtaken.iter().all(|missing| missing.leaf != *leaf));
        self.completeness.missing.extend(unmet.map(|leaf| Missing {
            leaf,
            reason: MissingReason::Lost,
            rows: None,
            answered: true,
            detail: "it was started anew and has not said yet what it came back with".to_owned(),
        }));
        self.completeness.missing.extend(overtaken);
        self.account();
        let Sum { body, left_out, .. } = self.sum().await?;
        Ok(Partial { body, completeness: self.completeness, stats: self.stats, left_out })
    }

    /// The leaves that count with an epoch of which it turned out only then that there is a newer one elsewhere.
    fn overtaken(&self) -> Vec<Missing> {
        if self.expected == Expected::OfAsker || planted(Bug::BothEpochsCounted) {
            return Vec::new();
        }
        let roster = self.fan_out.roster.lock();
        let overtaken = self.completeness.answered.iter().filter_map(|leaf| {
            let (home, newest) = roster.newer_elsewhere(leaf, self.counted.get(&leaf.leaf)?)?;
            Some(Missing {
                leaf: leaf.leaf.clone(),
                reason: MissingReason::Lost,
                rows: None,
                answered: true,
                detail: format!(
                    "epoch {} answered before anything was heard of {newest} at {home}",
                    leaf.epoch
                ),
            })
        });
        overtaken.collect()
    }

    pub(super) fn account(&mut self) {
        let (table, range) = (&self.plan.table, &self.plan.time_range);
        let completeness = &mut self.completeness;
        // A leaf may be missing through one child and have answered through another.
        let mut unanswered = BTreeSet::new();
        completeness.missing.retain(|missing| {
            missing.answered
                || (!self.counted.contains_key(&missing.leaf) && unanswered.insert(missing.leaf.clone()))
        });
        completeness.answered.sort();
        if self.expected == Expected::OfAsker {
            return completeness.missing.sort_by(|a, b| (&a.leaf, a.reason).cmp(&(&b.leaf, b.reason)));
        }
        let roster = self.fan_out.roster.lock();
        let named = |leaf: &str| self.counted.contains_key(leaf) || unanswered.contains(leaf);
        if !planted(Bug::DenominatorFromGossip) {
            completeness.missing.extend(roster.missing_besides(named, table, range));
        }
        for leaf in self.counted.keys() {
            let rows = roster.rows_lost(leaf, table, range);
            if rows > 0 {
                completeness.missing.push(Missing {
                    leaf: leaf.clone(),
                    reason: MissingReason::Lost,
                    rows: Some(rows),
                    answered: true,
                    detail: "the leaf held these rows once and came back without them".to_owned(),
                });
            }
        }
        completeness.buckets = buckets::buckets(&roster, self.plan, completeness);
        completeness.missing.sort_by(|a, b| (&a.leaf, a.reason).cmp(&(&b.leaf, b.reason)));
    }
}

/// What an error of merging means for the query.
pub(super) fn failed(error: &QueryError) -> GatherError {
    let code = match error {
        QueryError::Memory { .. } => ErrorCode::TooLarge,
        QueryError::UnsupportedType { .. } => ErrorCode::Unsupported,
        QueryError::Overflow => ErrorCode::BadRequest,
        QueryError::Mismatch(_) => ErrorCode::Internal,
    };
    GatherError::Failed(Failure::new(code, error.to_string()))
}
