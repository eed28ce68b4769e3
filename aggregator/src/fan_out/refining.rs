//! What a fan-out has so far, for somebody who wants to hear of it before it is over.
//!
//! Each child is known by the newest that it said: what it has so far, its answer, or why there will be none. What is
//! told is what the answer would be if the deadline came now: the newest of each child, merged by the code that merges
//! answers, and the others missing as still running. Nothing is told twice, and covered rows only become more.
//!
//! A child that fails after it said what it has so far is not lost whole: that stands as its answer.
//!
//! Invariants: at most one thing is kept per child, and all together at most [`BYTES_MAX`] of encoded bodies, beyond
//! which only records are told; telling takes at most a tenth of the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gannet_query::{MissingReason, Plan, SoFar};

use super::gathering::Gathering;
use super::{Decoded, FanOut, decode};
use crate::children::{Child, ChildError, Newest};

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

/// What is known of a child.
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
    watch: &'a Watch,
    with_body: bool,
    next: Instant,
    asked: Vec<(Arc<Child>, Arc<Newest>)>,
    /// By the address of the child.
    known: BTreeMap<String, Known>,
    rows_told: Option<u64>,
}

/// Resolves when something is to be told.
pub(super) async fn due(refining: Option<&Refining<'_>>) {
    match refining {
        Some(refining) => tokio::time::sleep_until(refining.next.into()).await,
        None => std::future::pending().await,
    }
}

impl<'a> Refining<'a> {
    pub(super) fn new(fan_out: &'a FanOut, plan: &Plan, watch: &'a Watch) -> Refining<'a> {
        // Leaves that are there twice are told apart when all answers are in.
        let contested = !fan_out.roster.lock().contested().is_empty();
        Refining {
            fan_out,
            plan: Arc::new(plan.clone()),
            watch,
            with_body: watch.with_body && !contested,
            next: Instant::now() + watch.every,
            asked: Vec::new(),
            known: BTreeMap::new(),
            rows_told: None,
        }
    }

    pub(super) fn watch(&self) -> &'a Watch {
        self.watch
    }

    /// A child is not asked, because it is down.
    pub(super) fn down(&mut self, child: &Child, why: &str) {
        let known = Known::Failed(MissingReason::Down, why.to_owned());
        self.known.insert(child.address().to_owned(), known);
    }

    /// A child is asked; gives back where to put what it says.
    pub(super) fn asked(&mut self, child: &Arc<Child>) -> Arc<Newest> {
        let newest = Arc::new(Newest::default());
        self.asked.push((Arc::clone(child), Arc::clone(&newest)));
        newest
    }

    /// A child answered or failed. Gives back what counts as its answer.
    pub(super) async fn ended(
        &mut self,
        child: &Arc<Child>,
        outcome: Result<Decoded, ChildError>,
    ) -> Result<Decoded, ChildError> {
        if outcome.is_err() {
            self.hear(child).await;
        }
        let at = child.address().to_owned();
        match outcome {
            Ok(decoded) => {
                // A large answer is not copied to be shown before it is complete.
                self.with_body &= decoded.bytes <= BYTES_MAX;
                let copy = if self.with_body { decoded.clone() } else { decoded.without_body() };
                self.know(at, copy, true);
                Ok(decoded)
            }
            Err(error) => match self.known.remove(&at) {
                Some(Known::Said(decoded, true)) => {
                    let (reason, detail) = (error.reason(), error.to_string());
                    let mut decoded = *decoded;
                    for missing in &mut decoded.completeness.missing {
                        if missing.reason == MissingReason::Running {
                            (missing.reason, missing.detail) = (reason, detail.clone());
                        }
                    }
                    self.know(at, decoded.clone(), true);
                    Ok(decoded)
                }
                _ => {
                    self.known.insert(at, Known::Failed(error.reason(), error.to_string()));
                    Err(error)
                }
            },
        }
    }

    /// Takes what a child said since it was heard last.
    async fn hear(&mut self, child: &Arc<Child>) {
        let newest = self.asked.iter().find(|(asked, _)| Arc::ptr_eq(asked, child));
        let Some((answer, has_body)) = newest.and_then(|(_, newest)| newest.take()) else { return };
        match decode(Arc::clone(child), Arc::clone(&self.plan), answer).await {
            Ok(decoded) => self.know(child.address().to_owned(), decoded, has_body),
            Err(error) => {
                tracing::debug!(child = child.address(), %error, "what there is so far is no answer")
            }
        }
    }

    /// The newest of a child. Beyond the limit bodies are let go of, for good.
    fn know(&mut self, child: String, mut decoded: Decoded, has_body: bool) {
        let size = |known: &Known| match known {
            Known::Said(decoded, _) => decoded.bytes,
            Known::Failed(..) => 0,
        };
        let others = self.known.iter().filter(|(at, _)| **at != child).map(|(_, known)| size(known));
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
        self.known.insert(child, Known::Said(Box::new(decoded), has_body && self.with_body));
    }

    /// Tells what there is, when there is more than was told.
    pub(super) async fn tell(&mut self) {
        let begun = Instant::now();
        for (child, _) in self.asked.clone() {
            self.hear(&child).await;
        }
        if let Some(so_far) = self.so_far().await {
            let covered = so_far.completeness.rows_covered;
            if !so_far.completeness.answered.is_empty() && self.rows_told.is_none_or(|told| covered > told) {
                self.rows_told = Some(covered);
                (self.watch.tell)(so_far);
            }
        }
        self.next = Instant::now() + self.watch.every.max(begun.elapsed() * PAUSE_FACTOR);
    }

    async fn so_far(&self) -> Option<SoFar> {
        let mut gathering = Gathering::new(self.fan_out, &self.plan).ok()?;
        let mut with_body = self.with_body;
        for child in &self.fan_out.asked_children() {
            match self.known.get(child.address()) {
                Some(Known::Said(decoded, has_body)) => {
                    with_body &= has_body;
                    gathering.add(Decoded::clone(decoded)).await.ok()?;
                }
                Some(Known::Failed(reason, detail)) => gathering.missed(child, *reason, detail),
                None => gathering.missed(child, MissingReason::Running, "it has not answered yet"),
            }
        }
        gathering.so_far(with_body).await.ok()?
    }
}
