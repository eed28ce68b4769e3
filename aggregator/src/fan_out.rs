//! Asking every child and merging what comes back.
//!
//! Children are asked at once, under one deadline; each gets what is left of it less a margin for the way back. When they
//! are more than the bound, groups of them are given to other aggregators, which ask them for this one ([`tree`]); a
//! group whose aggregator fails is given to another, or asked directly. A child known to be down is not waited for, a
//! child that is late is left out, unless it had said what there is so far (`refining`). What a child sends counts only
//! when its completeness has come with it, so the answer always equals the aggregate over the rows that the record says
//! are covered (`gathering`).
//!
//! Invariants: a leaf counts once, by its id; every leaf of the roster is in the record, as answered or as missing,
//! whoever stood between.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

use async_trait::async_trait;
use gannet_proto::decode_body;
use gannet_query::{
    Body, Completeness, Cutting, LeafEpoch, LeftOut, MissingReason, Partial, Plan, ScanStats, Top, Wanted,
};
use parking_lot::Mutex;

use crate::children::{Child, ChildAnswer, ChildError, ChildSet, Description};
use crate::config::Config;
use crate::error::{ErrorCode, Failure};
use crate::roster::{LeafAt, Roster};
use crate::sql::errors::refused_by_child;

mod asking;
pub mod between;
mod buckets;
mod gathering;
mod refining;
pub mod room;
pub mod tree;

pub use asking::Question;
use asking::{Asker, Target, Unit};
use between::Between;
use gathering::{Expected, Gathering};
use refining::Refining;
pub use refining::Watch;
use room::Held;
use tree::AskedChild;

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
    between: Between,
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
        let wanted = Wanted { top: top.cloned(), alone: true, ..Wanted::default() };
        match self.fan_out.gather(plan, &wanted, deadline, &self.query_id, watch).await {
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

/// How the groups of a question are cut, below and here.
#[derive(Debug, Clone)]
struct Cuts {
    /// What is wanted of all children together.
    wanted: Wanted,
    /// What each of them is asked for.
    of_each: Wanted,
    /// How they cut what is added up here.
    cutting: Cutting,
    /// More groups than this are not kept.
    groups_max: u64,
}

impl Cuts {
    /// What one child cuts is final, unless somebody above adds it up.
    fn of(question: &Question<'_>, children: usize, config: &Config) -> Cuts {
        let wanted = question.wanted.clone();
        let own = config.query_groups_max as u64;
        let groups_max = wanted.groups_max.unwrap_or(own).min(own);
        let cutting = match (&wanted.loose, &wanted.top) {
            (Some(loose), _) => Cutting::Loose(loose.clone()),
            (None, Some(top)) if children > 1 => top.for_several(question.plan, config.top_groups_min),
            (None, _) => Cutting::Nothing,
        };
        let alone = wanted.alone && children == 1;
        let mut of_each = Wanted { groups_max: Some(groups_max), alone, ..Wanted::default() };
        match &cutting {
            Cutting::Nothing if children == 1 => of_each.top = wanted.top.clone(),
            Cutting::Nothing => {}
            Cutting::Keys(top) => of_each.top = Some(top.clone()),
            Cutting::Loose(top) => of_each.loose = Some(top.clone()),
            Cutting::Any(limit) => of_each.groups_max = Some(groups_max.min(*limit)),
        }
        Cuts { wanted, of_each, cutting, groups_max }
    }
}

/// What one child returned, decoded.
#[derive(Clone)]
struct Decoded {
    child: Arc<Child>,
    bodies: Vec<Body>,
    bytes: usize,
    completeness: Completeness,
    stats: ScanStats,
    left_out: LeftOut,
    /// The room that it takes until it is merged.
    _held: Arc<Held>,
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
            left_out: self.left_out,
            _held: Arc::default(),
        }
    }

    /// A copy that is kept to be shown, in room of its own.
    fn shown(&self) -> Decoded {
        Decoded { _held: Arc::default(), ..self.clone() }
    }
}

impl FanOut {
    /// Over these children.
    pub fn new(children: Arc<ChildSet>, roster: Arc<Mutex<Roster>>, config: Arc<Config>) -> FanOut {
        let between = Between::new(Arc::clone(&children));
        FanOut { children, between, roster, config }
    }

    /// The other aggregators, and the children of others.
    pub fn between(&self) -> &Between {
        &self.between
    }

    /// The merged partial of every leaf that answered by the deadline, which may be none. Groups that are not wanted may
    /// be missing from it; several children are asked for them as [`Top::for_several`] says. When the first groups of an
    /// order cannot be proven to be them, this aggregator asks its children again for all groups, unless others stand
    /// between; then the record says that they are approximate.
    ///
    /// # Errors
    /// When the plan is stale, wrong, or needs more than the query may take.
    pub async fn gather(
        &self,
        plan: &Plan,
        wanted: &Wanted,
        deadline: Instant,
        query_id: &str,
        watch: Option<&Watch>,
    ) -> Result<Partial, GatherError> {
        let begun = Instant::now();
        let question = Question { plan, wanted, deadline, query_id, level: 0 };
        let targets = self.targets();
        let direct = targets.len() <= self.config.children_max;
        let partial = self.gather_from(question, Expected::OfRoster, targets, watch).await?;
        let (took, left) = (begun.elapsed(), deadline.saturating_duration_since(Instant::now()));
        if !partial.completeness.approximate || !direct || wanted.loose.is_some() || left < took * 4 {
            return Ok(partial);
        }
        tracing::debug!(query_id, "the first groups cannot be proven to be them; asking for all");
        let all = Wanted { top: None, ..wanted.clone() };
        let question = Question { wanted: &all, ..question };
        match self.gather_from(question, Expected::OfRoster, self.targets(), watch).await {
            // All of them are too many; what there is says that it is approximate.
            Err(GatherError::Failed(failure)) if failure.code == ErrorCode::TooLarge => Ok(partial),
            other => other,
        }
    }

    /// As [`FanOut::gather`], of the children that another aggregator named: those that do not answer are missing by
    /// their ids, with rows that only the asker knows.
    ///
    /// # Errors
    /// As [`FanOut::gather`].
    pub async fn gather_for(
        &self,
        question: Question<'_>,
        asked: &[AskedChild],
        watch: Option<&Watch>,
    ) -> Result<Partial, GatherError> {
        let own = self.children.now();
        let own: HashMap<&str, &Arc<Child>> = own.iter().map(|child| (child.address(), child)).collect();
        let target = |asked: &AskedChild| {
            let child = match own.get(asked.address.as_str()) {
                Some(child) => Arc::clone(child),
                None => self.between.lend(&asked.address).map_err(|error| {
                    let text = format!("leaf {} cannot be asked: {error}", asked.leaf);
                    // Whoever asked has it asked by somebody else.
                    GatherError::Failed(Failure::new(ErrorCode::Unavailable, text))
                })?,
            };
            Ok(Target { child, leaf: Some(asked.leaf.clone()) })
        };
        let targets = asked.iter().map(target).collect::<Result<Vec<_>, _>>()?;
        self.gather_from(question, Expected::OfAsker, targets, watch).await
    }

    /// The children that are asked, each with the one leaf that it is; those that stand for nothing but leaves that were
    /// taken out of the roster are not. A leaf that is there twice, or not where it was heard of last, is asked by this
    /// aggregator itself, which then takes the newest epoch.
    fn targets(&self) -> Vec<Target> {
        let children = self.children.now();
        let roster = self.roster.lock();
        let contested = roster.contested();
        let is_home = |leaf: &str, at: &str| roster.newest(leaf).is_none_or(|(home, _)| home == at);
        let target = |child: &Arc<Child>| {
            let at = child.address();
            let leaf = match roster.leaf_at(at) {
                LeafAt::Leaf(leaf) if !contested.contains(leaf) && is_home(leaf, at) => Some(leaf.to_owned()),
                LeafAt::Leaf(_) | LeafAt::NoLeaf | LeafAt::Unheard => None,
            };
            Target { child: Arc::clone(child), leaf }
        };
        children.iter().filter(|child| !roster.is_retired(child.address())).map(target).collect()
    }

    async fn gather_from(
        &self,
        question: Question<'_>,
        expected: Expected,
        mut targets: Vec<Target>,
        watch: Option<&Watch>,
    ) -> Result<Partial, GatherError> {
        let cuts = Cuts::of(&question, targets.len(), &self.config);
        let mut gathering = Gathering::new(self, question.plan, &cuts, expected)?;
        let mut refining =
            watch.map(|watch| Refining::new(self, (question.plan, cuts.clone()), expected, watch));
        if expected == Expected::OfRoster {
            targets.retain(|target| {
                let Some(why) = target.child.down() else { return true };
                gathering.missed(target, MissingReason::Down, &why);
                if let Some(refining) = &mut refining {
                    refining.down(target, &why);
                }
                false
            });
        }
        let mut asker = Asker::new(self, question, (expected, &cuts.of_each), watch);
        asker.ask(targets, refining.as_mut()).await;
        let mut round = Round { gathering, refining, asker };
        loop {
            let outcome = tokio::select! {
                biased;
                outcome = round.asker.next() => outcome,
                () = refining::due(round.refining.as_ref()) => {
                    if let Some(refining) = &mut round.refining {
                        refining.tell().await;
                    }
                    continue;
                }
            };
            let Some(outcome) = outcome else { break };
            let (unit, outcome) = outcome.map_err(|error| {
                let message = format!("asking a child ended early: {error}");
                GatherError::Failed(Failure::new(ErrorCode::Internal, message))
            })?;
            round.take(unit, outcome).await?;
        }
        round.gathering.finish(question.deadline).await
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
            let met = tokio::time::timeout_at(deadline, self.refresh(child)).await;
            (child.address(), met.unwrap_or(false))
        }));
        let unmet: BTreeSet<&str> =
            met.await.into_iter().filter(|(_, met)| !met).map(|(child, _)| child).collect();
        unseen.into_iter().filter(|leaf| at(leaf).is_some_and(|child| unmet.contains(child))).collect()
    }
}

/// A question that is on its way.
struct Round<'a> {
    gathering: Gathering<'a>,
    refining: Option<Refining<'a>>,
    asker: Asker<'a>,
}

impl Round<'_> {
    /// Takes what a unit came to.
    async fn take(&mut self, unit: Unit, outcome: Result<Decoded, ChildError>) -> Result<(), GatherError> {
        let Round { gathering, refining, asker } = self;
        let outcome = unless_hopeless(outcome)?;
        if let Err(error) = &outcome
            && unit.is_between
            && asker.has_time()
        {
            tracing::warn!(aggregator = unit.child.address(), %error, "asking others in its place");
            if let Some(refining) = refining {
                refining.replaced(&unit);
            }
            asker.ask_again(&unit, refining.as_mut()).await;
            return Ok(());
        }
        let outcome = match refining {
            Some(refining) => refining.ended(&unit, outcome).await,
            None => outcome,
        };
        match outcome {
            Ok(decoded) if unit.is_between => {
                let again = gathering.add_group(&unit, decoded).await?;
                if asker.has_time() {
                    asker.ask_directly(again, refining.as_mut()).await;
                } else {
                    let detail = format!("aggregator {} did not reach it", unit.child.address());
                    again.iter().for_each(|one| gathering.missed(one, MissingReason::Timeout, &detail));
                }
            }
            Ok(decoded) => gathering.add(&unit, decoded).await?,
            Err(error) => gathering.missed_all(&unit, error.reason(), &error.to_string()),
        }
        Ok(())
    }
}

/// An outcome that is one of the child; what is wrong with the question is wrong everywhere.
fn unless_hopeless(outcome: Result<Decoded, ChildError>) -> Result<Result<Decoded, ChildError>, GatherError> {
    match outcome {
        Err(ChildError::Stale(text)) => Err(GatherError::Stale(text)),
        Err(ChildError::Refused(text)) => Err(GatherError::Failed(refused_by_child(&text))),
        Err(ChildError::TooLarge(text)) => Err(GatherError::Failed(Failure::new(ErrorCode::TooLarge, text))),
        other => Ok(other),
    }
}

/// Nanoseconds UTC.
fn now() -> i64 {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}

/// Decodes a child's pieces, on a blocking thread when they are large.
async fn decode(child: Arc<Child>, plan: Arc<Plan>, answer: ChildAnswer) -> Result<Decoded, ChildError> {
    let mut answer = answer;
    let bytes = answer.pieces.iter().map(|piece| piece.len()).sum();
    let pieces = std::mem::take(&mut answer.pieces);
    let plan = match answer.left_out.bound {
        Some(_) => Arc::new(plan.with_lacks()),
        None => plan,
    };
    let decode = move || pieces.iter().map(|piece| decode_body(&plan, piece)).collect::<Result<Vec<_>, _>>();
    let bodies = on_thread(bytes, decode).await.map_err(ChildError::Failed)?;
    let bodies = bodies.map_err(|error| ChildError::Failed(format!("the answer is malformed: {error}")))?;
    let ChildAnswer { completeness, stats, left_out, held, .. } = answer;
    Ok(Decoded { child, bodies, bytes, completeness, stats, left_out, _held: Arc::new(held) })
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
