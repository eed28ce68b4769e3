//! Sending a question: to children, and to aggregators that have groups of children asked.
//!
//! Children that are asked by this aggregator itself take turns when they are more than the bound: a turn ends with the
//! answer, or when the child has had its share of the time, so that slow ones hold up nobody.
//!
//! Invariant: every target is in one unit at a time.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use gannet_proto::wire;
use gannet_query::{Body, Plan, Wanted};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::gathering::Expected;
use super::refining::Refining;
use super::room::Room;
use super::tree::{self, LEVELS_MAX};
use super::{Decoded, FanOut, Watch, decode};
use crate::children::{Child, ChildError, Newest, RunLimits, wire_plan};

/// After so many children other fan-outs have their turn, so that the slow ones of each are asked before the fast ones of
/// any.
const ASKED_IN_A_ROW: usize = 8;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The groups that are wanted of it.
    pub wanted: &'a Wanted,
    /// By when the answer must be there.
    pub deadline: Instant,
    /// Its name in logs.
    pub query_id: &'a str,
    /// How many aggregators stand between who asked first and this one.
    pub level: u32,
}

/// A child that is to be asked, by whomever.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) child: Arc<Child>,
    /// The one leaf that it is, as far as is known; only such a child can be given to others.
    pub(super) leaf: Option<String>,
}

/// What was sent to one server: the question to a child, or a group of children to an aggregator.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) number: usize,
    /// Who was asked.
    pub(super) child: Arc<Child>,
    /// For whom; one target is the child itself.
    pub(super) targets: Arc<[Target]>,
    /// The child stands between.
    pub(super) is_between: bool,
    /// Another aggregator failed before with the same targets.
    pub(super) is_again: bool,
}

impl Target {
    fn asked(&self) -> wire::AskedChild {
        wire::AskedChild {
            address: self.child.address().to_owned(),
            leaf: self.leaf.clone().unwrap_or_default(),
        }
    }
}

/// See the module.
pub(super) struct Asker<'a> {
    fan_out: &'a FanOut,
    question: Question<'a>,
    expected: Expected,
    plan: Arc<Plan>,
    request: wire::RunRequest,
    room: Room,
    turns: Arc<Semaphore>,
    asked: JoinSet<(Unit, Result<Decoded, ChildError>)>,
    units: usize,
}

impl<'a> Asker<'a> {
    pub(super) fn new(
        fan_out: &'a FanOut,
        question: Question<'a>,
        (expected, wanted): (Expected, &Wanted),
        watch: Option<&Watch>,
    ) -> Asker<'a> {
        let millis = |every: Duration| u32::try_from(every.as_millis()).unwrap_or(u32::MAX);
        let request = wire::RunRequest {
            plan: Some(wire_plan(question.plan)),
            deadline_ms: 0,
            query_id: question.query_id.to_owned(),
            top: wanted.top.as_ref().map(Into::into),
            loose: wanted.loose.as_ref().map(Into::into),
            groups_max: wanted.groups_max,
            so_far_ms: watch.map_or(0, |watch| millis(watch.every)),
            so_far_body: watch.is_some_and(|watch| watch.with_body),
            asked: Vec::new(),
            level: question.level,
            // What is told on the way is added up again and again.
            alone: wanted.alone && watch.is_none(),
        };
        Asker {
            fan_out,
            question,
            expected,
            plan: Arc::new(question.plan.clone()),
            request,
            room: Room::new(fan_out.config.answers_bytes_max),
            turns: Arc::new(Semaphore::new(fan_out.config.children_max.max(1))),
            asked: JoinSet::new(),
            units: 0,
        }
    }

    /// The next outcome; `None` when all are in.
    pub(super) async fn next(
        &mut self,
    ) -> Option<Result<(Unit, Result<Decoded, ChildError>), tokio::task::JoinError>> {
        self.asked.join_next().await
    }

    /// There is time to ask somebody else.
    pub(super) fn has_time(&self) -> bool {
        let left = self.question.deadline.saturating_duration_since(Instant::now());
        left > 2 * Duration::from_millis(self.fan_out.config.margin_ms_min)
    }

    /// Asks these children; when they are more than the bound, by other aggregators, where there are any.
    pub(super) async fn ask(&mut self, mut targets: Vec<Target>, mut refining: Option<&mut Refining<'_>>) {
        let config = &self.fan_out.config;
        let aggregators = match targets.len() > config.children_max && self.question.level < LEVELS_MAX {
            true => self.fan_out.between.aggregators(),
            false => Vec::new(),
        };
        let are_up: Vec<bool> = aggregators.iter().map(|aggregator| aggregator.down().is_none()).collect();
        if !are_up.contains(&true) {
            return self.ask_directly(targets, refining).await;
        }
        let lendable = targets.extract_if(.., |target| target.leaf.is_some()).collect::<Vec<_>>();
        let count = tree::group_count(lendable.len(), config.children_max, aggregators.len());
        self.ask_directly(targets, refining.as_deref_mut()).await;
        let groups = tree::groups(lendable.len(), count);
        for (group, place) in groups.iter().zip(tree::given(groups.len(), &are_up)) {
            let Some(group) = lendable.get(group.clone()).filter(|group| !group.is_empty()) else { continue };
            let unit = self.unit(Arc::clone(&aggregators[place]), group.into(), false);
            self.send(Unit { is_between: true, ..unit }, Duration::MAX, refining.as_deref_mut());
        }
    }

    /// Asks these children without anybody between, the slowest first.
    pub(super) async fn ask_directly(
        &mut self,
        mut targets: Vec<Target>,
        mut refining: Option<&mut Refining<'_>>,
    ) {
        let left = self.question.deadline.saturating_duration_since(Instant::now());
        let turns = targets.len().div_ceil(self.fan_out.config.children_max.max(1)).max(1);
        // Everybody is asked within half of the time, however slow the others are.
        let share = left / 2 / u32::try_from(turns).unwrap_or(u32::MAX);
        targets.sort_by_cached_key(|target| Reverse(target.child.pace()));
        for (place, target) in targets.into_iter().enumerate() {
            if place > 0 && place % ASKED_IN_A_ROW == 0 {
                tokio::task::yield_now().await;
            }
            let unit = self.unit(Arc::clone(&target.child), [target].into(), false);
            self.send(unit, share, refining.as_deref_mut());
        }
    }

    /// The children of an aggregator that failed: by another one, or without any when that failed too.
    pub(super) async fn ask_again(&mut self, failed: &Unit, refining: Option<&mut Refining<'_>>) {
        let others = self.fan_out.between.up();
        let others = others.iter().filter(|other| !Arc::ptr_eq(other, &failed.child));
        let others: Vec<_> = others.collect();
        // Not always the same one: it would get the groups of all that failed.
        let other = others.get(failed.number % others.len().max(1)).filter(|_| !failed.is_again);
        match other {
            Some(other) => {
                let unit = self.unit(Arc::clone(other), Arc::clone(&failed.targets), true);
                self.send(Unit { is_between: true, ..unit }, Duration::MAX, refining);
            }
            None => self.ask_directly(failed.targets.to_vec(), refining).await,
        }
    }

    fn unit(&mut self, child: Arc<Child>, targets: Arc<[Target]>, is_again: bool) -> Unit {
        self.units += 1;
        Unit { number: self.units, child, targets, is_between: false, is_again }
    }

    /// Sends one unit. A child of ours keeps its turn for no longer than its share of the time.
    fn send(&mut self, unit: Unit, share: Duration, refining: Option<&mut Refining<'_>>) {
        let so_far = refining.map(|refining| refining.asked(&unit));
        let mut request = self.request.clone();
        if unit.is_between {
            request.asked = unit.targets.iter().map(Target::asked).collect();
            request.level += 1;
        }
        let turns = (!unit.is_between).then(|| Arc::clone(&self.turns));
        let (config, plan, room) =
            (Arc::clone(&self.fan_out.config), Arc::clone(&self.plan), self.room.clone());
        let deadline = self.question.deadline;
        let expected = match unit.is_between {
            true => Expected::OfAsker,
            false => self.expected,
        };
        self.asked.spawn(async move {
            let turn = match turns {
                Some(turns) => tokio::time::timeout_at(deadline, turns.acquire_owned()).await.ok(),
                None => None,
            };
            let remaining = deadline.saturating_duration_since(Instant::now());
            let margin = config.margin(remaining);
            let for_child = remaining.saturating_sub(margin);
            request.deadline_ms = u32::try_from(for_child.as_millis()).unwrap_or(u32::MAX);
            let silence_max = Duration::from_millis(config.child_silence_ms_max);
            let limits = RunLimits {
                // Half of the margin is for the way back from the child, the other half for merging.
                until: deadline.checked_sub(margin / 2).unwrap_or(deadline),
                bytes_max: config.child_answer_bytes_max,
                silence_max,
                taken_within: unit.is_between.then_some(silence_max / 4),
                room,
            };
            let outcome = {
                let answer = answer((&unit, expected), request, &limits, so_far.as_deref(), plan);
                let mut answer = std::pin::pin!(answer);
                match tokio::time::timeout(share, &mut answer).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        drop(turn);
                        answer.await
                    }
                }
            };
            (unit, outcome)
        });
    }
}

async fn answer(
    (unit, expected): (&Unit, Expected),
    request: wire::RunRequest,
    limits: &RunLimits,
    so_far: Option<&Newest>,
    plan: Arc<Plan>,
) -> Result<Decoded, ChildError> {
    let alone = request.alone;
    let answer = unit.child.run(request, limits, so_far).await?;
    let decoded = decode(Arc::clone(&unit.child), plan, answer).await?;
    if !alone && decoded.bodies.iter().any(Body::is_concluded) {
        let text = "it counted distinct values that are to be added up with those of others";
        return Err(ChildError::Failed(text.to_owned()));
    }
    if expected == Expected::OfAsker {
        // Who is expected is not for who answers to say.
        let stranger =
            decoded.completeness.answered.iter().find(|answered| {
                !unit.targets.iter().any(|target| target.leaf.as_ref() == Some(&answered.leaf))
            });
        if let Some(stranger) = stranger {
            let text = format!("leaf {} answered, which was not asked", stranger.leaf);
            return Err(ChildError::Failed(text));
        }
    }
    Ok(decoded)
}
