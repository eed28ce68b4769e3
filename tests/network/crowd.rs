//! A crowd: ten times as many queries, then batches, as can be had, while nothing is broken.
//!
//! First a few users who wait for each reply find out how much there is to be had; then requests arrive on their own,
//! whatever becomes of the ones before; then a few users again. Everybody gets a definite reply in time, who is sent away
//! is told when to come back, most of what could be done before is done all the time, and soon after the crowd has gone
//! everything is as before.
//!
//! Processors are simulated for scans, and requests of leaves take their time; what an aggregator works costs nothing. So
//! this is about queues and turns: who waits, for how long, and whether what is done is still wanted.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::clients::{Shared, WAYS};

/// How many times as much as there is to be had.
const TIMES: f64 = 10.0;
/// What of it is to be done all the same: four fifths, and so few are done that chance takes another.
const GOODPUT_MIN: f64 = 0.6;
/// Users of each kind who wait for each reply.
const USERS: usize = 8;
/// How long capacity is measured, and how long the crowd stays.
const LASTS: Duration = Duration::from_secs(2);
/// After the crowd everything is as before within this time.
const CALM_WITHIN: Duration = Duration::from_secs(10);
/// Requests in a row that have to be done at once before it counts as calm.
const CALM: usize = 5;
/// Everybody has a definite reply within this time, and waits no longer.
const REPLY_WITHIN: Duration = Duration::from_secs(1);
/// Who was sent away waits before the next request.
const PAUSE: Duration = Duration::from_millis(100);
/// What a look at the clock costs a scan meanwhile, and how long a request of a leaf waits at most, in milliseconds.
const LOOK_MS: u64 = 5;
const REQUEST_MS: u64 = 400;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Batch,
    Query,
}

/// Requests of one kind that were made, and those of them that were done.
#[derive(Debug, Default)]
struct Tally {
    made: Cell<u64>,
    done: Cell<u64>,
}

impl Tally {
    fn add(&self, is_done: bool) {
        self.made.set(self.made.get() + 1);
        self.done.set(self.done.get() + u64::from(is_done));
    }

    fn per_second(&self) -> f64 {
        self.done.get() as f64 / LASTS.as_secs_f64()
    }
}

impl Kind {
    /// Makes a request of an aggregator; true when it was done. Everything else that is promised is looked at on the way.
    async fn ask(self, shared: &Shared, aggregator: usize, rng: &mut StdRng) -> bool {
        let begun = Instant::now();
        let is_done = match self {
            Kind::Batch => {
                let name = format!("crowd-{}", rng.random::<u64>());
                let sent = shared.model.borrow_mut().batch(Some((name, 1)), 1);
                shared.deliver_once(&sent, aggregator).await
            }
            Kind::Query => {
                let reply = shared.query(aggregator, (0, i64::MAX), REPLY_WITHIN).await;
                reply.is_some_and(|reply| reply.body["completeness"]["ratio"].as_f64() == Some(1.0))
            }
        };
        if begun.elapsed() > REPLY_WITHIN + WAYS {
            shared.broken(format!("one of a crowd had to wait for {:?}: {self:?}", begun.elapsed()));
        }
        is_done
    }
}

/// Users who wait for each reply, for so long.
async fn closed(shared: &Rc<Shared>, kind: Kind, rng: &mut StdRng) -> Rc<Tally> {
    let tally = Rc::<Tally>::default();
    let end = Instant::now() + LASTS;
    let users = (0..USERS).map(|_| {
        let (shared, tally) = (Rc::clone(shared), Rc::clone(&tally));
        let mut rng = StdRng::seed_from_u64(rng.random());
        tokio::task::spawn_local(async move {
            while Instant::now() < end {
                let is_done = kind.ask(&shared, 0, &mut rng).await;
                if Instant::now() < end {
                    tally.add(is_done);
                }
                if !is_done {
                    sleep(PAUSE).await;
                }
            }
        })
    });
    for user in users.collect::<Vec<_>>() {
        user.await.unwrap();
    }
    tally
}

/// Requests that arrive on their own, so many a second; what is done of them while they arrive.
async fn open(shared: &Rc<Shared>, kind: Kind, per_second: f64, seed: u64) -> Rc<Tally> {
    let tally = Rc::<Tally>::default();
    let mut rng = StdRng::seed_from_u64(seed);
    let end = Instant::now() + LASTS;
    let mut requests = Vec::new();
    loop {
        sleep(Duration::from_secs_f64(-(1.0 - rng.random::<f64>()).ln() / per_second)).await;
        if Instant::now() >= end {
            break;
        }
        let (shared, tally) = (Rc::clone(shared), Rc::clone(&tally));
        let mut rng = StdRng::seed_from_u64(rng.random());
        requests.push(tokio::task::spawn_local(async move {
            let is_done = kind.ask(&shared, 0, &mut rng).await;
            tally.add(is_done && Instant::now() < end);
        }));
    }
    for request in requests {
        request.await.unwrap();
    }
    tally
}

/// See the module.
pub(crate) async fn crowd(shared: &Rc<Shared>, rng: &mut StdRng) {
    for machine in &shared.machines {
        machine.speed.set_look_ms(LOOK_MS);
        machine.speed.set_request_ms(REQUEST_MS);
    }
    // One kind after the other: batches make blocks, and queries of more blocks take longer.
    let kinds = [Kind::Query, Kind::Batch];
    for kind in kinds {
        let capacity = closed(shared, kind, rng).await.per_second();
        shared.note(format_args!("a crowd comes to where {capacity} {kind:?} a second are done"));
        if capacity == 0.0 {
            return shared.broken(format!("{USERS} users are too many for a {kind:?}"));
        }
        let tally = open(shared, kind, TIMES * capacity, rng.random()).await;
        let (made, done) = (tally.made.get(), tally.per_second());
        shared.note(format_args!("the crowd has gone: of {made} {kind:?} {done} a second were done"));
        if done < GOODPUT_MIN * capacity {
            shared.broken(format!("{done} of {capacity} {kind:?} a second were done in a crowd"));
        }
        let mut report = shared.report.borrow_mut();
        report.crowd += made;
        report.sent_away += made - tally.done.get();
    }
    let gone = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < CALM {
        let mut all_done = true;
        for kind in kinds {
            all_done &= kind.ask(shared, 0, rng).await;
        }
        in_a_row = if all_done { in_a_row + 1 } else { 0 };
        if gone.elapsed() > CALM_WITHIN {
            return shared.broken(format!("{CALM_WITHIN:?} after a crowd requests are still sent away"));
        }
    }
    for machine in &shared.machines {
        machine.speed.set_look_ms(0);
        machine.speed.set_request_ms(0);
    }
}
