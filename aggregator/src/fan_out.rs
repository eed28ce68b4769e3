//! Asking every child and merging what comes back.
//!
//! All children are asked at once, under one deadline; each gets what is left of it less a margin for the way back.
//! A child known to be down is not waited for, a child that is late is left out, unless it had said what there is so far
//! (`refining`). What a child sends counts only when its completeness has come with it, so the answer always equals the
//! aggregate over the rows that the record says are covered (`gathering`).
//!
//! Invariants: a leaf counts once, by its id; every leaf of the roster is in the record, as answered or as missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use gannet_proto::{decode_body, wire};
use gannet_query::{Body, Completeness, LeafEpoch, MissingReason, Partial, Plan, ScanStats, Top};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::children::{Child, ChildAnswer, ChildError, ChildSet, Description, RunLimits, wire_plan};
use crate::config::Config;
use crate::error::{ErrorCode, Failure};
use crate::roster::Roster;
use crate::sql::errors::refused_by_child;

mod buckets;
mod gathering;
mod refining;

use gathering::Gathering;
use refining::Refining;
pub use refining::Watch;

/// Bodies smaller than this are decoded and merged where they arrive; larger ones on a blocking thread.
const MERGED_IN_PLACE_BYTES_MAX: usize = 32 << 10;

/// Whatever can answer a plan: the fan-out over children in a server, something simpler in tests of the planner.
#[async_trait]
pub trait Answerer: Send + Sync + std::fmt::Debug {
    /// The merged partial of every leaf, by the deadline.
    async fn answer(&self, plan: &Plan, deadline: Instant) -> Result<Partial, Failure>;

    /// As `answer`, when only some of the groups are wanted: the others may be missing.
    async fn answer_top(
        &self,
        plan: &Plan,
        _top: Option<&Top>,
        deadline: Instant,
    ) -> Result<Partial, Failure> {
        self.answer(plan, deadline).await
    }

    /// As `answer_top`, with somebody who wants to hear what there is before.
    async fn answer_watched(
        &self,
        plan: &Plan,
        top: Option<&Top>,
        deadline: Instant,
        _watch: Option<&Watch>,
    ) -> Result<Partial, Failure> {
        self.answer_top(plan, top, deadline).await
    }
}

/// Asks all children.
#[derive(Debug)]
pub struct FanOut {
    children: Arc<ChildSet>,
    roster: Arc<Mutex<Roster>>,
    config: Arc<Config>,
}

/// Why there is no partial at all.
#[derive(Debug)]
pub enum GatherError {
    /// The plan's types no longer fit what a leaf holds: describe the children and plan again.
    Stale(String),
    /// The query fails.
    Failed(Failure),
}

/// The fan-outs of one statement: remembers whether one of them failed because the plan was stale.
#[derive(Debug)]
pub struct Asking {
    fan_out: Arc<FanOut>,
    query_id: String,
    stale: AtomicBool,
}

impl Asking {
    /// For one run of a statement.
    pub fn new(fan_out: Arc<FanOut>, query_id: String) -> Asking {
        Asking { fan_out, query_id, stale: AtomicBool::new(false) }
    }

    /// A plan was stale: describe the children and plan again.
    pub fn was_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }
}

#[async_trait]
impl Answerer for Asking {
    async fn answer(&self, plan: &Plan, deadline: Instant) -> Result<Partial, Failure> {
        self.answer_top(plan, None, deadline).await
    }

    async fn answer_top(
        &self,
        plan: &Plan,
        top: Option<&Top>,
        deadline: Instant,
    ) -> Result<Partial, Failure> {
        self.answer_watched(plan, top, deadline, None).await
    }

    async fn answer_watched(
        &self,
        plan: &Plan,
        top: Option<&Top>,
        deadline: Instant,
        watch: Option<&Watch>,
    ) -> Result<Partial, Failure> {
        match self.fan_out.gather(plan, top, deadline, &self.query_id, watch).await {
            Ok(partial) => answered(partial),
            Err(GatherError::Failed(failure)) => Err(failure),
            Err(GatherError::Stale(text)) => {
                self.stale.store(true, Ordering::Release);
                let message = format!("the columns of table `{}` changed while the query ran", plan.table);
                Err(Failure::new(ErrorCode::Unavailable, message).detail(text).retry_after(1))
            }
        }
    }
}

/// A partial that at least one leaf answered; anything else is an error, not an empty success.
fn answered(partial: Partial) -> Result<Partial, Failure> {
    let completeness = &partial.completeness;
    if !completeness.answered.is_empty() {
        return Ok(partial);
    }
    let only = |reason| {
        !completeness.missing.is_empty()
            && completeness.missing.iter().all(|missing| missing.reason == reason)
    };
    let code = if only(MissingReason::Timeout) {
        ErrorCode::Timeout
    } else if only(MissingReason::Overloaded) {
        ErrorCode::Overloaded
    } else {
        ErrorCode::Unavailable
    };
    let mut reasons: Vec<String> = completeness
        .missing
        .iter()
        .take(10)
        .map(|missing| format!("{}: {} ({})", missing.leaf, missing.reason.name(), missing.detail))
        .collect();
    if completeness.missing.len() > 10 {
        reasons.push(format!("and {} more", completeness.missing.len() - 10));
    }
    let detail = match reasons.as_slice() {
        [] => "No children are configured.".to_owned(),
        reasons => format!("{}.", reasons.join("; ")),
    };
    Err(Failure::new(code, "no leaf answered").detail(detail).retry_after(1))
}

/// What one child returned, decoded.
#[derive(Clone)]
struct Decoded {
    child: Arc<Child>,
    bodies: Vec<Body>,
    bytes: usize,
    completeness: Completeness,
    stats: ScanStats,
}

impl Decoded {
    /// The same with its record only.
    fn without_body(&self) -> Decoded {
        Decoded {
            child: Arc::clone(&self.child),
            bodies: Vec::new(),
            bytes: 0,
            completeness: self.completeness.clone(),
            stats: self.stats,
        }
    }
}

impl FanOut {
    /// Over these children.
    pub fn new(children: Arc<ChildSet>, roster: Arc<Mutex<Roster>>, config: Arc<Config>) -> FanOut {
        FanOut { children, roster, config }
    }

    /// The merged partial of every leaf that answered by the deadline, which may be none. Only groups that a `top` does
    /// not want may be missing from it; an only child leaves them out, several are asked for all.
    ///
    /// # Errors
    /// When the plan is stale, wrong, or needs more than the query may take.
    pub async fn gather(
        &self,
        plan: &Plan,
        top: Option<&Top>,
        deadline: Instant,
        query_id: &str,
        watch: Option<&Watch>,
    ) -> Result<Partial, GatherError> {
        let mut gathering = Gathering::new(self, plan)?;
        let mut refining = watch.map(|watch| Refining::new(self, plan, watch));
        let mut asked = self.ask((plan, top), deadline, query_id, (&mut gathering, refining.as_mut()));
        let mut held = Vec::new();
        loop {
            let outcome = tokio::select! {
                biased;
                outcome = asked.join_next() => outcome,
                () = refining::due(refining.as_ref()) => {
                    if let Some(refining) = &mut refining {
                        refining.tell().await;
                    }
                    continue;
                }
            };
            let Some(outcome) = outcome else { break };
            let (child, outcome) = outcome.map_err(|error| {
                let message = format!("asking a child ended early: {error}");
                GatherError::Failed(Failure::new(ErrorCode::Internal, message))
            })?;
            let outcome = match outcome {
                Err(ChildError::Stale(text)) => return Err(GatherError::Stale(text)),
                Err(ChildError::Refused(text)) => {
                    return Err(GatherError::Failed(refused_by_child(&text)));
                }
                Err(ChildError::TooLarge(text)) => {
                    return Err(GatherError::Failed(Failure::new(ErrorCode::TooLarge, text)));
                }
                other => other,
            };
            let outcome = match &mut refining {
                Some(refining) => refining.ended(&child, outcome).await,
                None => outcome,
            };
            match outcome {
                Ok(decoded) if gathering.is_contested(&decoded) => held.push(decoded),
                Ok(decoded) => gathering.add(decoded).await?,
                Err(error) => gathering.missed(&child, error.reason(), &error.to_string()),
            }
        }
        // Of two processes with one id the newest epoch counts.
        let newest = |decoded: &Decoded| decoded.completeness.answered.iter().map(|leaf| leaf.epoch).max();
        held.sort_by_key(|decoded| std::cmp::Reverse(newest(decoded)));
        for decoded in held {
            gathering.add(decoded).await?;
        }
        gathering.finish(deadline).await
    }

    /// The children that are asked: those that stand for nothing but leaves that were taken out of the roster are not.
    fn asked_children(&self) -> Vec<Arc<Child>> {
        let children = self.children.now();
        let roster = self.roster.lock();
        children.iter().filter(|child| !roster.is_retired(child.address())).cloned().collect()
    }

    /// Sends the plan to every child that is not known to be down.
    fn ask(
        &self,
        (plan, top): (&Plan, Option<&Top>),
        deadline: Instant,
        query_id: &str,
        (gathering, mut refining): (&mut Gathering<'_>, Option<&mut Refining<'_>>),
    ) -> JoinSet<(Arc<Child>, Result<Decoded, ChildError>)> {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let margin = self.config.margin(remaining);
        let for_child = remaining.saturating_sub(margin);
        // Half of the margin is for the way back from the child, the other half for merging.
        let until = deadline.checked_sub(margin / 2).unwrap_or(deadline);
        // What several children cut could not be added up.
        let children = self.asked_children();
        let top = top.filter(|_| children.len() == 1).map(wire::Top::from);
        let watch = refining.as_ref().map(|refining| refining.watch());
        let request = wire::RunRequest {
            plan: Some(wire_plan(plan)),
            deadline_ms: u32::try_from(for_child.as_millis()).unwrap_or(u32::MAX),
            query_id: query_id.to_owned(),
            top,
            so_far_ms: watch.map_or(0, |watch| u32::try_from(watch.every.as_millis()).unwrap_or(u32::MAX)),
            so_far_body: watch.is_some_and(|watch| watch.with_body),
        };
        let limits = RunLimits {
            until,
            bytes_max: self.config.child_answer_bytes_max,
            silence_max: Duration::from_millis(self.config.child_silence_ms_max),
        };
        let shared = Arc::new(plan.clone());
        let mut asked = JoinSet::new();
        for child in &children {
            if let Some(why) = child.down() {
                gathering.missed(child, MissingReason::Down, &why);
                if let Some(refining) = refining.as_mut() {
                    refining.down(child, &why);
                }
                continue;
            }
            let so_far = refining.as_mut().map(|refining| refining.asked(child));
            let (child, plan, request) = (Arc::clone(child), Arc::clone(&shared), request.clone());
            asked.spawn(async move {
                let answer = child.run(request, &limits, so_far.as_deref()).await;
                let decoded = match answer {
                    Ok(answer) => decode(Arc::clone(&child), plan, answer).await,
                    Err(error) => Err(error),
                };
                (child, decoded)
            });
        }
        asked
    }

    /// Asks a child what it holds and notes it in the roster. False when the child did not say.
    pub async fn refresh(&self, child: &Child) -> bool {
        let _turn = child.turn_to_describe().await;
        let timeout = Duration::from_millis(self.config.describe_timeout_ms);
        let Ok(description) = child.describe(timeout, self.config.describe_failures_max).await else {
            return false;
        };
        let Description { leaves, unreachable } = description;
        let lost = self.roster.lock().described(child.address(), leaves, unreachable, now());
        for (leaf, rows) in lost {
            tracing::warn!(leaf, rows, "a leaf came back without rows that it held");
        }
        true
    }

    /// Asks every child that is not down what it holds.
    pub async fn refresh_all(&self) {
        let children = self.children.now();
        let up = children.iter().filter(|child| child.down().is_none());
        futures::future::join_all(up.map(|child| self.refresh(child))).await;
    }

    /// Describes the children of leaves whose answers are of an epoch that the roster has not seen: until then it does
    /// not know what they came back without. Gives back the leaves of which it still does not know by the deadline.
    async fn meet_new_epochs(
        &self,
        epochs: &[LeafEpoch],
        counted: &BTreeMap<String, String>,
        deadline: Instant,
    ) -> Vec<String> {
        let unseen: Vec<String> = {
            let roster = self.roster.lock();
            let unseen = epochs
                .iter()
                .filter(|answered| roster.epoch(&answered.leaf).is_some_and(|known| known != answered.epoch));
            unseen.map(|answered| answered.leaf.clone()).collect()
        };
        let at = |leaf: &String| counted.get(leaf).map(String::as_str);
        let children = self.children.now();
        let children =
            children.iter().filter(|child| unseen.iter().any(|leaf| at(leaf) == Some(child.address())));
        let met = futures::future::join_all(children.map(async |child| {
            let met = tokio::time::timeout_at(deadline.into(), self.refresh(child)).await;
            (child.address(), met.unwrap_or(false))
        }));
        let unmet: BTreeSet<&str> =
            met.await.into_iter().filter(|(_, met)| !met).map(|(child, _)| child).collect();
        unseen.into_iter().filter(|leaf| at(leaf).is_some_and(|child| unmet.contains(child))).collect()
    }
}

/// Nanoseconds UTC.
fn now() -> i64 {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}

/// Decodes a child's pieces, on a blocking thread when they are large.
async fn decode(child: Arc<Child>, plan: Arc<Plan>, answer: ChildAnswer) -> Result<Decoded, ChildError> {
    let bytes = answer.pieces.iter().map(|piece| piece.len()).sum();
    let pieces = answer.pieces;
    let decode = move || pieces.iter().map(|piece| decode_body(&plan, piece)).collect::<Result<Vec<_>, _>>();
    let bodies = on_thread(bytes, decode).await.map_err(ChildError::Failed)?;
    let bodies = bodies.map_err(|error| ChildError::Failed(format!("the answer is malformed: {error}")))?;
    Ok(Decoded { child, bodies, bytes, completeness: answer.completeness, stats: answer.stats })
}

/// Runs work over this many bytes: here when they are few, else on a blocking thread.
async fn on_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    if bytes <= MERGED_IN_PLACE_BYTES_MAX {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("a thread ended early: {error}"))
}

#[cfg(test)]
mod tests;
