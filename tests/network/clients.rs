//! Those who use the servers: producers that send batches and send them again when nobody said what became of them,
//! people who ask, and an auditor who wants everything to be there once nothing is broken any more.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::crowd::crowd;
use crate::http::{NoReply, Reply, ask};
use crate::life::Trace;
use crate::machine::{Machine, Station};
use crate::model::{Asked, Judge, Model, Outcome, Sent};

/// An answer is there so much after its deadline at the latest.
const LATE_MAX: Duration = Duration::from_millis(50);
/// What four ways between a client and its aggregator take, and the ticks of the simulation.
pub(crate) const WAYS: Duration = Duration::from_millis(60);
/// Every batch gets a definite reply within this time.
const REPLY_MAX: Duration = Duration::from_secs(10);
/// How often a producer sends a batch at most.
const ATTEMPTS_MAX: usize = 6;
/// What a look at the clock costs a scan that is to be cancelled; and how long somebody waits for it.
const SLOW_LOOK_MS: u64 = 300;
const WAITED: Duration = Duration::from_millis(500);
/// A scan that nobody waits for has ended after this time: one look, and 100 ms.
const CANCELLED_WITHIN: Duration = Duration::from_millis(SLOW_LOOK_MS + 100);

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The servers start.
    Warm,
    /// The first leaf goes to another machine.
    Move,
    /// Everything is there.
    Ready,
    /// Things break.
    Chaos,
    /// Nothing is broken any more, and everything has to come back.
    Heal,
    /// Everything was found to be there.
    Done,
}

/// How a scenario went.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Report {
    pub(crate) batches: u64,
    pub(crate) acknowledged: u64,
    pub(crate) again: u64,
    pub(crate) unknown: u64,
    pub(crate) answers: u64,
    pub(crate) thin: u64,
    pub(crate) refused: u64,
    pub(crate) starts: u64,
    pub(crate) healed_ms: u64,
    /// Requests of crowds, and those of them that were not done.
    pub(crate) crowd: u64,
    pub(crate) sent_away: u64,
}

/// What clients and the scenario share; all of them are on one thread.
pub(crate) struct Shared {
    pub(crate) phase: Cell<Phase>,
    pub(crate) model: RefCell<Model>,
    pub(crate) report: RefCell<Report>,
    pub(crate) failure: RefCell<Option<String>>,
    /// Why not everything is there yet.
    pub(crate) lacking: RefCell<String>,
    pub(crate) machines: Vec<Rc<Machine>>,
    pub(crate) stations: Vec<(Rc<Station>, SocketAddr)>,
    /// Leaves that have to be accounted for.
    pub(crate) leaves: usize,
    /// The first leaf moves at the beginning. From then on every batch has a sender: its old machine may come back, and
    /// rows without one may go to any leaf that is there.
    pub(crate) moves: bool,
    /// In the end more is asked for than can be done.
    pub(crate) is_crowded: bool,
    /// The life in which each aggregator first said something.
    pub(crate) heard: Vec<Cell<u64>>,
    pub(crate) now: Cell<Duration>,
    pub(crate) trace: Arc<Trace>,
}

impl Shared {
    pub(crate) fn note(&self, line: std::fmt::Arguments<'_>) {
        self.trace.add(format_args!("{:>6} ms: {line}", self.now.get().as_millis()));
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.now.get().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn broken(&self, what: String) {
        self.failure.borrow_mut().get_or_insert(what);
    }

    /// The life an aggregator is in, if it was heard in it.
    fn life_of(&self, aggregator: usize) -> Option<u64> {
        let (station, _) = &self.stations[aggregator];
        let life = station.lives.get();
        (station.up.get() && self.heard[aggregator].get() == life).then_some(life)
    }

    /// Asks an aggregator. No reply from one that was there all the time breaks a promise.
    async fn ask(
        &self,
        aggregator: usize,
        call: &str,
        headers: &[(&str, String)],
        body: &str,
        patience: Duration,
    ) -> Result<Reply, NoReply> {
        let (station, at) = &self.stations[aggregator];
        let (life, begun) = (self.life_of(aggregator), station.lives.get());
        let reply = ask(*at, call, headers, body, patience).await;
        match &reply {
            Ok(reply) if reply.code() == "overloaded" && reply.retry_after.is_none() => {
                self.broken(format!("somebody is sent away and not told when to come back: {}", reply.body));
            }
            Ok(_) if station.up.get() && station.lives.get() == begun => self.heard[aggregator].set(begun),
            Ok(_) => {}
            Err(why) if life.is_some() && life == self.life_of(aggregator) => {
                self.broken(format!("no reply to {call} within {patience:?}: {why}"));
            }
            Err(_) => {}
        }
        reply
    }

    /// Sends a batch once.
    async fn send(&self, sent: &Sent, aggregator: usize) -> Outcome {
        let mut headers = vec![("content-type", "application/x-ndjson".to_owned())];
        if let Some((producer, sequence)) = &sent.name {
            headers.push(("gannet-producer", producer.clone()));
            headers.push(("gannet-sequence", sequence.to_string()));
        }
        self.model.borrow_mut().sending(sent.tag);
        let reply = self.ask(aggregator, "POST /v1/events/t", &headers, &sent.body(), REPLY_MAX).await;
        let outcome = match &reply {
            Ok(reply) if reply.status == 200 => {
                if reply.body["accepted"].as_u64() != Some(sent.rows) {
                    self.broken(format!("{sent} was acknowledged as {}", reply.body));
                }
                Outcome::Acknowledged
            }
            Ok(reply) => match reply.code() {
                "unavailable" | "overloaded" => Outcome::Refused,
                "unconfirmed" => Outcome::Unknown,
                other => {
                    self.broken(format!("{sent} failed with {other}: {}", reply.body));
                    Outcome::Unknown
                }
            },
            Err(NoReply::Unreached) => Outcome::Refused,
            Err(NoReply::Broken(_) | NoReply::Silence) => Outcome::Unknown,
        };
        self.note(format_args!("{sent} at aggregator {aggregator}: {outcome:?}"));
        outcome
    }

    /// Sends a batch until it is clear what became of it, or somebody has had enough.
    async fn deliver(&self, sent: &Sent, rng: &mut StdRng, attempts_max: usize) -> bool {
        let mut unknown = false;
        for attempt in 0..attempts_max {
            let aggregator = rng.random_range(0..self.stations.len());
            if attempt > 0 {
                self.report.borrow_mut().again += 1;
                sleep(Duration::from_millis(rng.random_range(20..600))).await;
            }
            match self.send(sent, aggregator).await {
                Outcome::Acknowledged => {
                    let by = (aggregator, self.now_ms());
                    self.model.borrow_mut().came(sent.tag, Outcome::Acknowledged, by);
                    self.report.borrow_mut().acknowledged += 1;
                    return true;
                }
                Outcome::Unknown => unknown = true,
                Outcome::Refused => {}
            }
            // Nobody may send again what nobody can tell from another batch.
            if unknown && sent.name.is_none() {
                break;
            }
        }
        let outcome = if unknown { Outcome::Unknown } else { Outcome::Refused };
        self.report.borrow_mut().unknown += u64::from(unknown);
        self.model.borrow_mut().came(sent.tag, outcome, (0, self.now_ms()));
        false
    }

    /// Sends a batch once; true when it was acknowledged.
    pub(crate) async fn deliver_once(&self, sent: &Sent, aggregator: usize) -> bool {
        let outcome = self.send(sent, aggregator).await;
        self.report.borrow_mut().unknown += u64::from(outcome == Outcome::Unknown);
        self.model.borrow_mut().came(sent.tag, outcome, (aggregator, self.now_ms()));
        outcome == Outcome::Acknowledged
    }

    /// Asks what is there, and judges the answer. `None` when there was none.
    pub(crate) async fn query(
        &self,
        aggregator: usize,
        (from, to): (i64, i64),
        timeout: Duration,
    ) -> Option<Reply> {
        let asked = self.asked(aggregator, (from, to));
        let body = json!({"sql": asked.sql(), "timeout_ms": timeout.as_millis() as u64}).to_string();
        let headers = [("content-type", "application/json".to_owned())];
        let (life, begun) = (self.life_of(aggregator), Instant::now());
        let reply = self.ask(aggregator, "POST /v1/query", &headers, &body, timeout + REPLY_MAX).await;
        let took = begun.elapsed();
        if life.is_some() && life == self.life_of(aggregator) && took > timeout + LATE_MAX + WAYS {
            self.broken(format!("an answer that was due after {timeout:?} came after {took:?}"));
        }
        let reply = reply.ok()?;
        if reply.status != 200 {
            // A table is heard of with the first leaf that has rows of it.
            let is_early = self.phase.get() < Phase::Chaos && reply.code() == "not_found";
            if !is_early && !matches!(reply.code(), "unavailable" | "timeout" | "overloaded") {
                self.broken(format!("a query failed: {}", reply.body));
            }
            self.report.borrow_mut().refused += 1;
            self.note(format_args!("no answer of aggregator {aggregator}: {}", reply.code()));
            return None;
        }
        let ratio = reply.body["completeness"]["ratio"].as_f64();
        self.report.borrow_mut().answers += 1;
        self.report.borrow_mut().thin += u64::from(ratio != Some(1.0));
        let answered = &reply.body["completeness"]["leaves_answered"];
        self.note(format_args!("aggregator {aggregator} answered from {answered} leaves: {ratio:?}"));
        if let Err(what) = self.model.borrow_mut().judge(&asked, &reply.body, Judge::Honest) {
            self.broken(what);
        }
        Some(reply)
    }

    fn asked(&self, aggregator: usize, (from, to): (i64, i64)) -> Asked {
        let at = self.model.borrow().now();
        let leaves = if self.phase.get() < Phase::Chaos { 0 } else { self.leaves };
        Asked { from, to, aggregator, at, leaves }
    }

    /// Whether an aggregator has everything; if not, why.
    async fn audit(&self, aggregator: usize) -> Result<(), String> {
        let (end, most) = {
            let model = self.model.borrow();
            (model.end(), model.groups_max.and_then(|most| i64::try_from(most).ok()))
        };
        let mut from = 0;
        while from < end {
            let to = most.map_or(i64::MAX, |most| from + most);
            let asked = self.asked(aggregator, (from, to));
            let reply = self.query(aggregator, (from, to), Duration::from_secs(2)).await;
            let reply = reply.ok_or_else(|| format!("aggregator {aggregator} does not answer"))?;
            self.model.borrow_mut().judge(&asked, &reply.body, Judge::Complete)?;
            from = to;
        }
        Ok(())
    }

    /// Sends batches until most leaves should have some.
    async fn scatter(&self, rng: &mut StdRng) {
        let mut taken = 0;
        while taken < 4 * self.leaves {
            sleep(Duration::from_millis(50)).await;
            let sent = self.model.borrow_mut().batch(None, 3);
            taken += usize::from(self.deliver(&sent, rng, 1).await);
        }
    }

    /// Waits until every aggregator has everything, and takes a batch.
    async fn all_there(&self, rng: &mut StdRng, name: &str) {
        for sequence in 1.. {
            sleep(Duration::from_millis(if sequence < 4 { 100 } else { 800 })).await;
            let sent = self.model.borrow_mut().batch(Some((name.to_owned(), sequence)), 3);
            let mut outcome = match self.deliver(&sent, rng, 1).await {
                true => Ok(()),
                false => Err("a batch was not taken".to_owned()),
            };
            for aggregator in 0..self.stations.len() {
                if outcome.is_ok() {
                    outcome = self.audit(aggregator).await;
                }
            }
            match outcome {
                Ok(()) => return,
                Err(why) => *self.lacking.borrow_mut() = why,
            }
        }
    }

    /// Asks, goes away, and looks whether the leaves go on.
    async fn cancelled(&self) {
        self.machines.iter().for_each(|machine| machine.speed.set_look_ms(SLOW_LOOK_MS));
        let asked = self.asked(0, (0, i64::MAX));
        let body = json!({"sql": asked.sql(), "timeout_ms": 60_000}).to_string();
        let headers = [("content-type", "application/json".to_owned())];
        // The connection is closed when nobody waits any more.
        let reply = ask(self.stations[0].1, "POST /v1/query", &headers, &body, WAITED).await;
        let asked_for = reply.is_err();
        sleep(WAYS + CANCELLED_WITHIN).await;
        for machine in &self.machines {
            let running = machine.leaf().map_or(0, |leaf| leaf.queries_running());
            if asked_for && running > 0 {
                self.broken(format!("{} goes on with a query that nobody waits for", machine.host));
            }
        }
        self.note(format_args!("went away: {asked_for}"));
        self.machines.iter().for_each(|machine| machine.speed.set_look_ms(0));
    }
}

/// Sends batches until nothing is broken any more.
pub(crate) async fn produce(shared: Rc<Shared>, number: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    for sequence in 1.. {
        sleep(Duration::from_millis(rng.random_range(20..400))).await;
        if shared.phase.get() != Phase::Chaos {
            if shared.phase.get() > Phase::Chaos {
                return;
            }
            continue;
        }
        let is_named = shared.moves || rng.random_bool(0.8);
        let name = is_named.then(|| (format!("producer-{number}"), sequence));
        let rows = rng.random_range(1..30);
        let sent = shared.model.borrow_mut().batch(name, rows);
        shared.report.borrow_mut().batches += 1;
        shared.deliver(&sent, &mut rng, ATTEMPTS_MAX).await;
    }
}

/// Asks until nothing is broken any more.
pub(crate) async fn wonder(shared: Rc<Shared>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    loop {
        sleep(Duration::from_millis(rng.random_range(10..300))).await;
        match shared.phase.get() {
            Phase::Warm | Phase::Move | Phase::Ready => continue,
            Phase::Chaos => {}
            Phase::Heal | Phase::Done => return,
        }
        let end = shared.model.borrow().end();
        let range = if rng.random_bool(0.8) { (0, i64::MAX) } else { (rng.random_range(0..end), end) };
        let timeout = [100, 300, 1_000, 3_000].choose(&mut rng).copied().unwrap_or(1_000);
        let aggregator = rng.random_range(0..shared.stations.len());
        shared.query(aggregator, range, Duration::from_millis(timeout)).await;
    }
}

/// Sees that everything is there at the beginning, and again at the end.
pub(crate) async fn audit(shared: Rc<Shared>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    if shared.moves {
        shared.scatter(&mut rng).await;
        shared.phase.set(Phase::Move);
    }
    shared.all_there(&mut rng, "first").await;
    // Rosters are written by then.
    sleep(Duration::from_millis(1_500)).await;
    shared.phase.set(Phase::Ready);
    while shared.phase.get() != Phase::Heal {
        sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    shared.all_there(&mut rng, "last").await;
    shared.report.borrow_mut().healed_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    shared.cancelled().await;
    if shared.is_crowded {
        crowd(&shared, &mut rng).await;
    }
    sleep(Duration::from_millis(500)).await;
    shared.all_there(&mut rng, "after").await;
    shared.phase.set(Phase::Done);
}
