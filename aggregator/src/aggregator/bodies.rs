//! Who may read a body of events now, and who may work on a piece of one.
//!
//! So many bodies are read at once; many of them wait for their client most of the time. A few more wait a moment for a
//! turn, so that a burst is no overload, and everybody else is told to come back. Where somebody has been waiting all the
//! time for longer than anybody may wait, it is no burst: a long queue then only makes everybody late (Nichols and
//! Jacobson, "Controlling Queue Delay", 2012), so that few may wait until nobody does. Working on what arrived takes a
//! processor: as many do so at once as there are processors, so that queries and everybody else who needs one get their
//! share however many bodies there are.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::config::Config;
use crate::error::{ErrorCode, Failure};
use crate::planted::{Bug, planted};

/// When there always is somebody who waits, those who do are a share of those who are being read: enough to go on with.
const STANDING_SHARE: usize = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Bodies {
    reading: Semaphore,
    waiting: Mutex<Waiting>,
    /// Who may wait in a burst.
    waiting_max: usize,
    /// Who may wait when it is none.
    standing_max: usize,
    wait: Duration,
    decoding: Arc<Decoding>,
    /// What is said to those who are sent away.
    refusal: String,
}

/// Who waits for a turn.
#[derive(Debug)]
struct Waiting {
    count: usize,
    /// Since when there has always been somebody; of no meaning when there is nobody.
    since: Instant,
}

/// A place among them, until it is dropped.
#[derive(Debug)]
struct Place<'a>(&'a Mutex<Waiting>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().count -= 1;
    }
}

impl Bodies {
    pub(crate) fn new(config: &Config) -> Bodies {
        let (reading, waiting) = (config.events_running_max, config.events_waiting_max);
        Bodies {
            reading: Semaphore::new(reading),
            waiting: Mutex::new(Waiting { count: 0, since: Instant::now() }),
            waiting_max: waiting,
            standing_max: waiting.min(reading.div_ceil(STANDING_SHARE)),
            wait: Duration::from_millis(config.events_wait_ms),
            decoding: Arc::new(Decoding::new(config.decoding_threads)),
            refusal: format!("{reading} bodies of events are being read, the limit"),
        }
    }

    /// A turn to read a body.
    ///
    /// # Errors
    /// When none comes soon, or too many wait for one already.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(turn) = self.reading.try_acquire() {
            return Ok(turn);
        }
        let refused = || Failure::new(ErrorCode::Overloaded, self.refusal.clone()).retry_after(1);
        if planted(Bug::EverybodyWaits) {
            return self.reading.acquire().await.map_err(|_| refused());
        }
        let _place = self.place().ok_or_else(refused)?;
        match tokio::time::timeout(self.wait, self.reading.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(refused()),
        }
    }

    fn place(&self) -> Option<Place<'_>> {
        let mut waiting = self.waiting.lock();
        if waiting.count == 0 {
            waiting.since = Instant::now();
        }
        let is_burst = waiting.since.elapsed() <= self.wait;
        let most = if is_burst { self.waiting_max } else { self.standing_max };
        (waiting.count < most).then(|| {
            waiting.count += 1;
            Place(&self.waiting)
        })
    }

    /// Turns to work on what arrived.
    pub(crate) fn decoding(&self) -> Arc<Decoding> {
        Arc::clone(&self.decoding)
    }
}

/// Turns for threads, which wait for one.
#[derive(Debug)]
pub(crate) struct Decoding {
    free: Mutex<usize>,
    ended: Condvar,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a>(&'a Decoding);

impl Decoding {
    fn new(turns: usize) -> Decoding {
        Decoding { free: Mutex::new(turns), ended: Condvar::new() }
    }

    /// Waits for a turn. Only for threads that may wait.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let mut free = self.free.lock();
        self.ended.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::future::poll_immediate;

    use super::*;

    #[tokio::test]
    async fn some_read_some_wait_and_the_rest_is_sent_away() {
        let limits = Config { events_running_max: 2, events_waiting_max: 1, ..Config::default() };
        let bodies = Bodies::new(&limits);
        let (one, _two) = (bodies.turn().await.unwrap(), bodies.turn().await.unwrap());
        let mut third = Box::pin(bodies.turn());
        assert!(poll_immediate(&mut third).await.is_none());
        let refused = bodies.turn().await.unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str(), refused.retry_after_seconds),
            (ErrorCode::Overloaded, "2 bodies of events are being read, the limit", Some(1))
        );
        drop(one);
        let third = third.await.unwrap();
        let mut fourth = Box::pin(bodies.turn());
        assert!(poll_immediate(&mut fourth).await.is_none());
        // Whoever goes away leaves their place.
        drop(fourth);
        let mut fifth = Box::pin(bodies.turn());
        assert!(poll_immediate(&mut fifth).await.is_none());
        drop(third);
        assert!(fifth.await.is_ok());
    }

    #[tokio::test]
    async fn nobody_waits_for_long() {
        let limits = Config { events_running_max: 1, events_wait_ms: 1, ..Config::default() };
        let bodies = Bodies::new(&limits);
        let _turn = bodies.turn().await.unwrap();
        assert_eq!(bodies.turn().await.unwrap_err().code, ErrorCode::Overloaded);
    }

    #[tokio::test]
    async fn few_wait_where_somebody_always_does() {
        let limits = Config {
            events_running_max: 8,
            events_waiting_max: 100,
            events_wait_ms: 200,
            ..Config::default()
        };
        let bodies = Bodies::new(&limits);
        let mut turns = Vec::new();
        for _ in 0..8 {
            turns.push(bodies.turn().await.unwrap());
        }
        let mut waits = Vec::new();
        for _ in 0..50 {
            let mut wait = Box::pin(bodies.turn());
            assert!(poll_immediate(&mut wait).await.is_none(), "a burst");
            waits.push(wait);
        }
        std::thread::sleep(Duration::from_millis(250));
        assert!(poll_immediate(&mut Box::pin(bodies.turn())).await.is_some_and(|turn| turn.is_err()));
        // Two of eight are few enough.
        waits.truncate(1);
        let mut second = Box::pin(bodies.turn());
        assert!(poll_immediate(&mut second).await.is_none());
        assert!(poll_immediate(&mut Box::pin(bodies.turn())).await.is_some_and(|turn| turn.is_err()));
        // Once nobody waits, the next ones are a burst again.
        drop((waits, second));
        let mut waits: Vec<_> = (0..50).map(|_| Box::pin(bodies.turn())).collect();
        for wait in &mut waits {
            assert!(poll_immediate(wait).await.is_none());
        }
    }

    #[test]
    fn no_more_work_than_may() {
        let decoding = Decoding::new(2);
        let (now, most) = (Mutex::new(0), Mutex::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _turn = decoding.turn();
                        let count = {
                            let mut now = now.lock();
                            *now += 1;
                            *now
                        };
                        let mut most = most.lock();
                        *most = count.max(*most);
                        drop(most);
                        *now.lock() -= 1;
                    }
                });
            }
        });
        assert!((1..=2).contains(&*most.lock()), "{most:?}");
        assert_eq!(*decoding.free.lock(), 2);
    }
}
