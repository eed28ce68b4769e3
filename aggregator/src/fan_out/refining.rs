//! What a fan-out has so far, for somebody who wants to hear of it before it is over.
//!
//! Each unit that was asked (a child, or an aggregator for a group of them) is known by the newest that it said: what it
//! has so far, its answer, or why there will be none. What is told is what the answer would be if the deadline came now:
//! the newest of each, merged by the code that merges answers, and the others missing as still running. Nothing is told twice, and covered rows only become more.
//!
//! A child that fails after it said what it has so far is not lost whole: that stands as its answer.
//!
//! Invariants: at most one thing is kept per unit, and all together at most [`BYTES_MAX`] of encoded bodies, beyond
//! which only records are told; telling takes at most a tenth of the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use gannet_query::{MissingReason, Plan, SoFar};

use super::asking::{Target, Unit};
use super::gathering::{Expected, Gathering};
use super::{Cuts, Decoded, FanOut, decode};
use crate::children::{ChildError, Newest};

/// More encoded bytes than this are not kept and merged again and again.
const BYTES_MAX: usize = 16 << 20;
/// After telling took so long, so many times as long passes until the next time.
const PAUSE_FACTOR: u32 = 10;

/// Somebody who wants to hear what there is before an answer.
pub struct Watch {
    /// How often; nothing is told before this much time has passed.
    pub every: Duration,
    /// Groups or rows as well, and not only the record.
    pub with_body: bool,
    /// Is called with what there is so far; it must not wait.
    pub tell: Box<dyn Fn(SoFar) + Send + Sync>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("every", &self.every).field("with_body", &self.with_body).finish()
    }
}

/// What is known of a unit.
enum Known {
    /// What it has so far, or its answer. The flag says whether groups or rows are there.
    Said(Box<Decoded>, bool),
    /// There will be no answer, for this reason.
    Failed(MissingReason, String),
}

/// See the module.
pub(super) struct Refining<'a> {
    fan_out: &'a FanOut,
    plan: Arc<Plan>,
    cuts: Cuts,
    expected: Expected,
    watch: &'a Watch,
    with_body: bool,
    next: Instant,
    /// By the number of the unit.
    asked: BTreeMap<usize, (Unit, Arc<Newest>)>,
    known: BTreeMap<usize, Known>,
    /// Who is not asked, with why.
    down: Vec<(Target, String)>,
    rows_told: Option<u64>,
}

/// Resolves when something is to be told.
pub(super) async fn due(refining: Option<&Refining<'_>>) {
    match refining {
        Some(refining) => tokio::time::sleep_until(refining.next).await,
        None => std::future::pending().await,
    }
}

impl<'a> Refining<'a> {
    pub(super) fn new(
        fan_out: &'a FanOut,
        (plan, cuts): (&Plan, Cuts),
        expected: Expected,
        watch: &'a Watch,
    ) -> Refining<'a> {
        Refining {
            fan_out,
            plan: Arc::new(plan.clone()),
            cuts,
            expected,
            watch,
            with_body: watch.with_body,
            next: Instant::now() + watch.every,
            asked: BTreeMap::new(),
            known: BTreeMap::new(),
            down: Vec::new(),
            rows_told: None,
        }
    }

    /// A child is not asked, because it is down.
    pub(super) fn down(&mut self, target: &Target, why: &str) {
        self.down.push((target.clone(), why.to_owned()));
    }

    /// A unit is asked; gives back where to put what it says.
    pub(super) fn asked(&mut self, unit: &Unit) -> Arc<Newest> {
        let newest = Arc::new(Newest::default());
        self.asked.insert(unit.number, (unit.clone(), Arc::clone(&newest)));
        newest
    }

    /// Others are asked in its place.
    pub(super) fn replaced(&mut self, unit: &Unit) {
        self.asked.remove(&unit.number);
        self.known.remove(&unit.number);
    }

    /// A unit answered or failed. Gives back what counts as its answer.
    pub(super) async fn ended(
        &mut self,
        unit: &Unit,
        outcome: Result<Decoded, ChildError>,
    ) -> Result<Decoded, ChildError> {
        if outcome.is_err() {
            self.hear(unit).await;
        }
        match outcome {
            Ok(decoded) => {
                // A large answer is not copied to be shown before it is complete.
                self.with_body &= decoded.bytes <= BYTES_MAX;
                let copy = if self.with_body { decoded.shown() } else { decoded.without_body() };
                self.know(unit.number, copy, true);
                Ok(decoded)
            }
            Err(error) => match self.known.remove(&unit.number) {
                Some(Known::Said(decoded, true)) => {
                    let (reason, detail) = (error.reason(), error.to_string());
                    let mut decoded = *decoded;
                    for missing in &mut decoded.completeness.missing {
                        if missing.reason == MissingReason::Running {
                            (missing.reason, missing.detail) = (reason, detail.clone());
                        }
                    }
                    self.know(unit.number, decoded.clone(), true);
                    Ok(decoded)
                }
                _ => {
                    self.known.insert(unit.number, Known::Failed(error.reason(), error.to_string()));
                    Err(error)
                }
            },
        }
    }

    /// Takes what a unit said since it was heard last.
    async fn hear(&mut self, unit: &Unit) {
        let newest = self.asked.get(&unit.number).and_then(|(_, newest)| newest.take());
        let Some((answer, has_body)) = newest else { return };
        match decode(Arc::clone(&unit.child), Arc::clone(&self.plan), answer).await {
            Ok(decoded) => self.know(unit.number, decoded, has_body),
            Err(error) => {
                tracing::debug!(child = unit.child.address(), %error, "what there is so far is no answer")
            }
        }
    }

    /// The newest of a unit. Beyond the limit bodies are let go of, for good.
    fn know(&mut self, unit: usize, mut decoded: Decoded, has_body: bool) {
        let size = |known: &Known| match known {
            Known::Said(decoded, _) => decoded.bytes,
            Known::Failed(..) => 0,
        };
        let others = self.known.iter().filter(|(number, _)| **number != unit).map(|(_, known)| size(known));
        if others.sum::<usize>() + decoded.bytes > BYTES_MAX {
            self.with_body = false;
        }
        if !self.with_body {
            decoded = decoded.without_body();
            for known in self.known.values_mut() {
                if let Known::Said(decoded, has_body) = known {
                    (**decoded, *has_body) = (decoded.without_body(), false);
                }
            }
        }
        self.known.insert(unit, Known::Said(Box::new(decoded), has_body && self.with_body));
    }

    /// Tells what there is, when there is more than was told.
    pub(super) async fn tell(&mut self) {
        let begun = Instant::now();
        let units: Vec<Unit> = self.asked.values().map(|(unit, _)| unit.clone()).collect();
        for unit in &units {
            self.hear(unit).await;
        }
        if let Some(so_far) = self.so_far(&units).await {
            let covered = so_far.completeness.rows_covered;
            if !so_far.completeness.answered.is_empty() && self.rows_told.is_none_or(|told| covered > told) {
                self.rows_told = Some(covered);
                (self.watch.tell)(so_far);
            }
        }
        self.next = Instant::now() + self.watch.every.max(begun.elapsed() * PAUSE_FACTOR);
    }

    async fn so_far(&self, units: &[Unit]) -> Option<SoFar> {
        let mut gathering = Gathering::new(self.fan_out, &self.plan, &self.cuts, self.expected).ok()?;
        let mut with_body = self.with_body;
        for (target, why) in &self.down {
            gathering.missed(target, MissingReason::Down, why);
        }
        for unit in units {
            match self.known.get(&unit.number) {
                Some(Known::Said(decoded, has_body)) => {
                    with_body &= has_body;
                    let decoded = Decoded::clone(decoded);
                    if unit.is_between {
                        // Whoever is asked again has a unit of their own.
                        gathering.add_group(unit, decoded).await.ok()?;
                    } else {
                        gathering.add(unit, decoded).await.ok()?;
                    }
                }
                Some(Known::Failed(reason, detail)) => gathering.missed_all(unit, *reason, detail),
                None => gathering.missed_all(unit, MissingReason::Running, "it has not answered yet"),
            }
        }
        gathering.so_far(with_body).await.ok()?
    }
}
