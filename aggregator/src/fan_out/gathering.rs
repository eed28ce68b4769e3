//! The answers of children as they come in, and what they come to: one body, and one record in which every leaf of the
//! roster is, once.
//!
//! An answer and what there is so far are made by the same code, so both are exact for what their record says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use gannet_query::{
    Body, Completeness, Merger, Missing, MissingReason, Partial, Plan, QueryError, ScanStats, SoFar,
};

use super::{Decoded, FanOut, GatherError, buckets, on_thread};
use crate::children::Child;
use crate::error::{ErrorCode, Failure};

/// The state of one fan-out while answers come in.
pub(super) struct Gathering<'a> {
    fan_out: &'a FanOut,
    plan: &'a Plan,
    /// Taken while a blocking thread merges.
    merger: Option<Merger>,
    /// Bytes merged so far: what finishing will have to work on.
    bytes: usize,
    completeness: Completeness,
    stats: ScanStats,
    /// Leaves that more than one child says it has.
    contested: BTreeSet<String>,
    /// The leaves that count already, with the child they came through.
    counted: BTreeMap<String, String>,
}

impl<'a> Gathering<'a> {
    /// Of no answers yet.
    pub(super) fn new(fan_out: &'a FanOut, plan: &'a Plan) -> Result<Gathering<'a>, GatherError> {
        let merger = Merger::new(plan, fan_out.config.merge_bytes_max).map_err(|error| failed(&error))?;
        Ok(Gathering {
            plan,
            merger: Some(merger),
            bytes: 0,
            completeness: Completeness::default(),
            stats: ScanStats::default(),
            contested: fan_out.roster.lock().contested(),
            counted: BTreeMap::new(),
            fan_out,
        })
    }

    /// More than one child says it has a leaf that this answer is of.
    pub(super) fn is_contested(&self, decoded: &Decoded) -> bool {
        decoded.completeness.answered.iter().any(|leaf| self.contested.contains(&leaf.leaf))
    }

    /// A child did not answer: everything it stands for is missing.
    pub(super) fn missed(&mut self, child: &Child, reason: MissingReason, detail: &str) {
        let roster = self.fan_out.roster.lock();
        let missing =
            roster.missing_of(child.address(), reason, detail, &self.plan.table, &self.plan.time_range);
        self.completeness.missing.extend(missing);
    }

    /// A child answered. When one of its leaves counts already, its answer cannot be taken apart and is left out.
    pub(super) async fn add(&mut self, decoded: Decoded) -> Result<(), GatherError> {
        let answered = &decoded.completeness.answered;
        if answered.iter().any(|leaf| self.counted.contains_key(&leaf.leaf)) {
            self.leave_out(decoded);
            return Ok(());
        }
        for leaf in answered {
            self.counted.insert(leaf.leaf.clone(), decoded.child.address().to_owned());
        }
        self.bytes += decoded.bytes;
        let Some(mut merger) = self.merger.take() else {
            return Err(GatherError::Failed(Failure::new(ErrorCode::Internal, "merging ended early")));
        };
        let bodies = decoded.bodies;
        let merge = move || {
            let outcome = merger.push_pieces(bodies);
            (merger, outcome)
        };
        let merged = on_thread(decoded.bytes, merge).await;
        let (merger, outcome) =
            merged.map_err(|text| GatherError::Failed(Failure::new(ErrorCode::Internal, text)))?;
        outcome.map_err(|error| failed(&error))?;
        self.merger = Some(merger);
        self.completeness.merge(decoded.completeness);
        self.stats.merge(&decoded.stats);
        Ok(())
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
        let known = {
            let roster = self.fan_out.roster.lock();
            self.completeness.answered.iter().all(|leaf| roster.has_described(&leaf.leaf, leaf.epoch))
        };
        if !known {
            return Ok(None);
        }
        self.account();
        let body = if with_body { Some(self.body().await?) } else { None };
        Ok(Some(SoFar { body, completeness: self.completeness, stats: self.stats }))
    }

    async fn body(&mut self) -> Result<Body, GatherError> {
        let Some(merger) = self.merger.take() else {
            return Err(GatherError::Failed(Failure::new(ErrorCode::Internal, "merging ended early")));
        };
        let body = on_thread(self.bytes, move || merger.finish()).await;
        let body = body.map_err(|text| GatherError::Failed(Failure::new(ErrorCode::Internal, text)))?;
        let body = body.map_err(|error| failed(&error))?;
        let groups_max = self.fan_out.config.query_groups_max;
        match &body {
            Body::Groups(groups) if groups.group_count > groups_max => {
                let message =
                    format!("the query has {} groups, the limit is {groups_max}", groups.group_count);
                let hint = "Group by fewer columns, or by wider steps of time, or filter more.";
                Err(GatherError::Failed(Failure::new(ErrorCode::TooLarge, message).hint(hint)))
            }
            _ => Ok(body),
        }
    }

    /// Accounts for every leaf of the roster, once, and closes the body.
    pub(super) async fn finish(mut self, deadline: Instant) -> Result<Partial, GatherError> {
        let epochs = &self.completeness.answered;
        let unmet = self.fan_out.meet_new_epochs(epochs, &self.counted, deadline).await;
        self.account();
        self.completeness.missing.extend(unmet.into_iter().map(|leaf| Missing {
            leaf,
            reason: MissingReason::Lost,
            rows: None,
            answered: true,
            detail: "it was started anew and has not said yet what it came back with".to_owned(),
        }));
        let body = self.body().await?;
        Ok(Partial { body, completeness: self.completeness, stats: self.stats })
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
        let roster = self.fan_out.roster.lock();
        let named = |leaf: &str| self.counted.contains_key(leaf) || unanswered.contains(leaf);
        completeness.missing.extend(roster.missing_besides(named, table, range));
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
        completeness.answered.sort();
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
