//! Load: closed, where each of some users waits for a reply before the next request, which finds out how much there is to
//! be had; and open, where requests arrive when they arrive.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::door::{Door, Reply};
use super::arrivals::Arrivals;
use super::batches::Batches;
use super::outcome::{Fate, Kind, Outcome, fate_of};

/// Users of a closed load, of each kind: more than are served at once find a queue and not more speed.
const USERS: usize = 8;
/// A reply that takes longer will not come. Servers promise one within the time of a query.
const REPLY_MAX: Duration = Duration::from_secs(60);
/// So many requests of each kind arrive in a phase, however long that takes.
const ARRIVALS_MIN: usize = 3;

/// Sends requests of both kinds.
#[derive(Debug)]
pub(super) struct Generator {
    door: Door,
    batches: Batches,
    /// The server is asked before a body is sent.
    asks_first: bool,
    question: Vec<u8>,
    /// Batches sent so far: their numbers are used once.
    batches_sent: AtomicU64,
    queries_sent: AtomicU64,
}

/// What one phase of load gave.
#[derive(Debug, Default)]
pub(super) struct Phase {
    pub(super) outcomes: Vec<Outcome>,
    /// How long it was.
    pub(super) lasted: Duration,
    /// The most that a request was sent after it was to arrive: the generator itself was late.
    pub(super) lag_ms: f64,
}

impl Generator {
    /// Of batches for this table of so many rows, and of this question.
    pub(super) fn new(door: Door, table: &str, rows: u64, asks_first: bool, question: Vec<u8>) -> Generator {
        let batches = if asks_first { Batches::asking_first(table, rows) } else { Batches::new(table, rows) };
        let (batches_sent, queries_sent) = (AtomicU64::new(0), AtomicU64::new(0));
        Generator { door, batches, asks_first, question, batches_sent, queries_sent }
    }

    async fn send_batch(&self, number: u64) -> io::Result<Reply> {
        if self.asks_first {
            self.door.send_if_wanted(&self.batches.head(number), || self.batches.body(number)).await
        } else {
            self.door.send(&self.batches.request(number)).await
        }
    }

    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    /// Sends one request that was to arrive at this moment of a phase that began then.
    async fn send(&self, kind: Kind, at: Duration, begun: Instant) -> Outcome {
        let number = match kind {
            Kind::Ingest => self.batches_sent.fetch_add(1, Ordering::Relaxed),
            Kind::Query => self.queries_sent.fetch_add(1, Ordering::Relaxed),
        };
        let reply = match kind {
            Kind::Ingest => tokio::time::timeout(REPLY_MAX, self.send_batch(number)).await,
            Kind::Query => tokio::time::timeout(REPLY_MAX, self.door.send(&self.question)).await,
        };
        let fate = match reply {
            Ok(Ok(reply)) => fate_of(kind, self.batches.rows(), &reply),
            Ok(Err(error)) => Fate::Broken(error.to_string()),
            Err(_) => Fate::Odd(format!("no reply within {} s", REPLY_MAX.as_secs())),
        };
        Outcome { kind, number, at, ended: begun.elapsed(), fate }
    }

    /// Users who send one request after another for so long.
    pub(super) async fn closed(self: &Arc<Self>, kinds: &[Kind], lasts: Duration) -> Phase {
        let begun = Instant::now();
        let mut users = JoinSet::new();
        for kind in kinds.iter().copied() {
            for _ in 0..USERS {
                let generator = Arc::clone(self);
                users.spawn(async move {
                    let mut outcomes = Vec::new();
                    while begun.elapsed() < lasts {
                        outcomes.push(generator.send(kind, begun.elapsed(), begun).await);
                    }
                    outcomes
                });
            }
        }
        let mut phase = Phase { lasted: lasts, ..Phase::default() };
        while let Some(outcomes) = users.join_next().await {
            // A user that panicked is one whose requests are missing, which the counts show.
            phase.outcomes.extend(outcomes.unwrap_or_default());
        }
        phase
    }

    /// Requests that arrive at these rates for so long, and until some of each kind did, each on its own; waits for what
    /// becomes of them.
    pub(super) async fn open(self: &Arc<Self>, rates: &[(Kind, f64)], lasts: Duration, seed: u64) -> Phase {
        let arrivals = |(kind, per_second): (Kind, f64)| Arrivals::new(seed ^ kind as u64, per_second);
        let some = rates.iter().filter_map(|rate| arrivals(*rate).nth(ARRIVALS_MIN));
        let lasts = some.fold(lasts, Duration::max);
        let begun = Instant::now();
        let mut kinds = JoinSet::new();
        for (kind, per_second) in rates.iter().copied() {
            let generator = Arc::clone(self);
            let arrivals = arrivals((kind, per_second)).take_while(move |at| *at < lasts);
            kinds.spawn(async move { generator.send_at(kind, arrivals, begun).await });
        }
        let mut phase = Phase { lasted: lasts, ..Phase::default() };
        while let Some(sent) = kinds.join_next().await {
            let (outcomes, lag) = sent.unwrap_or_default();
            phase.outcomes.extend(outcomes);
            phase.lag_ms = phase.lag_ms.max(lag.as_secs_f64() * 1e3);
        }
        phase
    }

    async fn send_at(
        self: Arc<Self>,
        kind: Kind,
        arrivals: impl Iterator<Item = Duration>,
        begun: Instant,
    ) -> (Vec<Outcome>, Duration) {
        let mut requests = JoinSet::new();
        let mut lag = Duration::ZERO;
        for at in arrivals {
            let elapsed = begun.elapsed();
            if at > elapsed {
                tokio::time::sleep_until(begun + at).await;
            }
            lag = lag.max(begun.elapsed().saturating_sub(at));
            let generator = Arc::clone(&self);
            requests.spawn(async move { generator.send(kind, at, begun).await });
        }
        let mut outcomes = Vec::with_capacity(requests.len());
        while let Some(outcome) = requests.join_next().await {
            outcomes.extend(outcome);
        }
        (outcomes, lag)
    }
}
