//! Who may run a query now, and who waits for how long: so that one client's many queries do not keep out another's few.
//!
//! So many queries run at once. The others wait, each client's in the order they came; a turn that becomes free goes to
//! the client with the fewest running queries, and among those to the one that was served longest ago. When the first of a
//! client has waited for more than half of what it may, more is asked for than can be done: then the last comes first, as
//! long as that is so. Who came before has little time left to be answered in, and by turns in order everybody would get
//! one when it is almost too late. The queue is
//! bounded: when it is full, a client that has nothing waiting takes the place of the newest query of the client with
//! the most, and everybody else is told to come back.
//!
//! It knows no clock: every time is an argument.
//!
//! Invariants: never more than the maximum run or wait; whoever goes away leaves the queue, and a turn that was given to
//! somebody who is gone is given on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Who asks, as a number: the hash of an address or a token.
pub type Client = u64;

/// Why there is no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may.
    Full,
    /// No turn came in time.
    Late,
}

/// How many run and wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Queries that run.
    pub running: usize,
    /// Queries that wait.
    pub waiting: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Admission {
    queue: Arc<Mutex<Queue>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    queue: Arc<Mutex<Queue>>,
    client: Client,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.lock().ended(self.client, Instant::now());
    }
}

/// A place in the queue, until it is dropped.
struct Place {
    queue: Arc<Mutex<Queue>>,
    client: Client,
    number: u64,
    called: oneshot::Receiver<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        if !queue.leave(self.client, self.number) && self.called.try_recv().is_ok() {
            // It was called and nobody heard.
            queue.ended(self.client, Instant::now());
        }
    }
}

impl Admission {
    /// At most so many queries run, and so many wait.
    pub fn new(running_max: usize, waiting_max: usize) -> Admission {
        let queue = Queue { running_max, waiting_max, ..Queue::default() };
        Admission { queue: Arc::new(Mutex::new(queue)) }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// When too many wait already, or none comes until then.
    pub async fn turn(&self, client: Client, until: Instant) -> Result<Turn, Refused> {
        let entered = self.queue.lock().enter(client, (Instant::now(), until))?;
        let turn = || Turn { queue: Arc::clone(&self.queue), client };
        let Some((number, called)) = entered else { return Ok(turn()) };
        let mut place = Place { queue: Arc::clone(&self.queue), client, number, called };
        match tokio::time::timeout_at(until, &mut place.called).await {
            Ok(Ok(())) => Ok(turn()),
            // Another client took the place.
            Ok(Err(_)) => Err(Refused::Full),
            Err(_) => Err(Refused::Late),
        }
    }

    /// How many run and wait now.
    pub fn load(&self) -> Load {
        let queue = self.queue.lock();
        Load { running: queue.running, waiting: queue.waiting }
    }
}

/// The queue as a state machine: it knows no time.
#[derive(Debug, Default)]
struct Queue {
    running_max: usize,
    waiting_max: usize,
    running: usize,
    waiting: usize,
    clients: HashMap<Client, Line>,
    /// Numbers places, and counts calls.
    counter: u64,
}

/// The queries of one client.
#[derive(Debug, Default)]
struct Line {
    running: usize,
    waiting: VecDeque<Waiting>,
    /// When it was called last, by the counter.
    called: u64,
}

/// A query that waits.
#[derive(Debug)]
struct Waiting {
    number: u64,
    /// When it came, and until when it waits.
    time: (Instant, Instant),
    call: oneshot::Sender<()>,
}

impl Line {
    /// Whose turn it is.
    fn next(&mut self, now: Instant) -> Option<Waiting> {
        let (since, until) = self.waiting.front()?.time;
        let is_late = now.saturating_duration_since(since) > until.saturating_duration_since(now);
        if is_late { self.waiting.pop_back() } else { self.waiting.pop_front() }
    }
}

impl Queue {
    /// Somebody comes: they run at once (`None`), wait, or are refused.
    fn enter(
        &mut self,
        client: Client,
        time: (Instant, Instant),
    ) -> Result<Option<(u64, oneshot::Receiver<()>)>, Refused> {
        if self.running < self.running_max && self.waiting == 0 {
            self.run(client);
            return Ok(None);
        }
        if self.waiting >= self.waiting_max && !self.make_room(client) {
            return Err(Refused::Full);
        }
        self.counter += 1;
        let (call, called) = oneshot::channel();
        self.clients.entry(client).or_default().waiting.push_back(Waiting {
            number: self.counter,
            time,
            call,
        });
        self.waiting += 1;
        Ok(Some((self.counter, called)))
    }

    fn run(&mut self, client: Client) {
        self.counter += 1;
        self.running += 1;
        let line = self.clients.entry(client).or_default();
        line.running += 1;
        line.called = self.counter;
    }

    /// Sends the newest of the client with the most away, for one that has nothing waiting.
    fn make_room(&mut self, client: Client) -> bool {
        if self.clients.get(&client).is_some_and(|line| !line.waiting.is_empty()) {
            return false;
        }
        let most = self.clients.values_mut().max_by_key(|line| line.waiting.len());
        let Some(line) = most.filter(|line| line.waiting.len() > 1) else { return false };
        // Dropping its end tells whoever waits.
        line.waiting.pop_back();
        self.waiting -= 1;
        true
    }

    /// Somebody goes away; false when they were not waiting any more.
    fn leave(&mut self, client: Client, number: u64) -> bool {
        let Some(line) = self.clients.get_mut(&client) else { return false };
        let before = line.waiting.len();
        line.waiting.retain(|waiting| waiting.number != number);
        let left = before - line.waiting.len();
        self.waiting -= left;
        self.forget(client);
        left > 0
    }

    /// A query is over: the next is called.
    fn ended(&mut self, client: Client, now: Instant) {
        self.running -= 1;
        if let Some(line) = self.clients.get_mut(&client) {
            line.running -= 1;
        }
        self.forget(client);
        while self.running < self.running_max && self.waiting > 0 {
            let waiting = self.clients.iter().filter(|(_, line)| !line.waiting.is_empty());
            let next = waiting.min_by_key(|(client, line)| (line.running, line.called, **client));
            let Some(next) = next.map(|(client, _)| *client) else { return };
            let called = self.clients.get_mut(&next).and_then(|line| line.next(now));
            self.waiting -= 1;
            match called.map(|waiting| waiting.call.send(())) {
                Some(Ok(())) => self.run(next),
                // Whoever waited is gone.
                _ => self.forget(next),
            }
        }
    }

    /// A client without queries is not remembered.
    fn forget(&mut self, client: Client) {
        let idle = |line: &Line| line.running == 0 && line.waiting.is_empty();
        if self.clients.get(&client).is_some_and(idle) {
            self.clients.remove(&client);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::Duration;

    use futures::future::poll_immediate;
    use futures::task::noop_waker;

    use super::*;

    type Comes<'a> = Pin<Box<dyn Future<Output = Result<Turn, Refused>> + 'a>>;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    async fn come(admission: &Admission, client: Client) -> Result<Turn, Comes<'_>> {
        let mut waiting: Comes<'_> = Box::pin(admission.turn(client, far()));
        match poll_immediate(&mut waiting).await {
            Some(turn) => Ok(turn.unwrap()),
            None => Err(waiting),
        }
    }

    fn turn_of(waiting: &mut Comes<'_>) -> Option<Result<Turn, Refused>> {
        match waiting.as_mut().poll(&mut Context::from_waker(&noop_waker())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    fn load(running: usize, waiting: usize) -> Load {
        Load { running, waiting }
    }

    #[tokio::test]
    async fn turns_go_round_the_clients_and_not_by_arrival() {
        let admission = Admission::new(2, 10);
        let (one, two) = (come(&admission, 1).await.ok().unwrap(), come(&admission, 1).await.ok().unwrap());
        let mut greedy = Vec::new();
        for _ in 0..3 {
            greedy.push(come(&admission, 1).await.err().unwrap());
        }
        let mut modest = come(&admission, 2).await.err().unwrap();
        assert_eq!(admission.load(), load(2, 4));
        drop(one);
        // The one who came last has nothing running.
        let turn = turn_of(&mut modest).unwrap().unwrap();
        assert!(turn_of(&mut greedy[0]).is_none());
        drop(two);
        let next = turn_of(&mut greedy[0]).unwrap().unwrap();
        assert_eq!(admission.load(), load(2, 2));
        drop((turn, next));
        let last = [turn_of(&mut greedy[1]).unwrap(), turn_of(&mut greedy[2]).unwrap()];
        assert!(last.iter().all(Result::is_ok));
        drop(last);
        assert_eq!(admission.load(), load(0, 0));
        assert!(admission.queue.lock().clients.is_empty(), "nobody is remembered");
    }

    #[test]
    fn the_last_comes_first_while_the_first_has_waited_too_long() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut queue = Queue { running_max: 1, waiting_max: 10, ..Queue::default() };
        let enter = |queue: &mut Queue, ms| queue.enter(1, (at(ms), at(ms + 500))).unwrap();
        assert!(enter(&mut queue, 0).is_none());
        let mut waiting: Vec<_> =
            [0, 10, 300, 310].into_iter().map(|ms| enter(&mut queue, ms).unwrap().1).collect();
        let mut called = |queue: &mut Queue, ms| {
            queue.ended(1, at(ms));
            waiting.iter_mut().position(|called| called.try_recv().is_ok())
        };
        // In order, as long as nobody waits for long.
        assert_eq!(called(&mut queue, 240), Some(0));
        // The next has waited 310 of 500 ms: the one that came last has the most time left.
        assert_eq!(called(&mut queue, 320), Some(3));
        assert_eq!(called(&mut queue, 330), Some(2));
        assert_eq!(called(&mut queue, 340), Some(1));
        assert_eq!((queue.running, queue.waiting), (1, 0));
    }

    #[tokio::test]
    async fn a_full_queue_makes_room_for_who_has_nothing_in_it() {
        let admission = Admission::new(1, 2);
        let turn = come(&admission, 1).await.ok().unwrap();
        let mut first = come(&admission, 1).await.err().unwrap();
        let mut second = come(&admission, 1).await.err().unwrap();
        assert_eq!(admission.turn(1, far()).await.unwrap_err(), Refused::Full);
        let mut other = come(&admission, 2).await.err().unwrap();
        assert_eq!(turn_of(&mut second).unwrap().unwrap_err(), Refused::Full);
        // One each: nobody is sent away for a third.
        assert_eq!(admission.turn(3, far()).await.unwrap_err(), Refused::Full);
        assert_eq!(admission.load(), load(1, 2));
        drop(turn);
        let turn = turn_of(&mut other).unwrap().unwrap();
        drop(turn);
        assert!(turn_of(&mut first).unwrap().is_ok());
    }

    #[tokio::test]
    async fn who_goes_away_leaves_no_trace() {
        let admission = Admission::new(1, 2);
        let turn = come(&admission, 1).await.ok().unwrap();
        let waiting = come(&admission, 2).await.err().unwrap();
        drop(waiting);
        assert_eq!(admission.load(), load(1, 0));
        // Called, and gone before it heard.
        let waiting = come(&admission, 2).await.err().unwrap();
        drop(turn);
        assert_eq!(admission.load(), load(1, 0));
        drop(waiting);
        assert_eq!(admission.load(), load(0, 0));
        assert!(come(&admission, 3).await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_too_long_is_refused() {
        let admission = Admission::new(1, 2);
        let _turn = come(&admission, 1).await.ok().unwrap();
        assert_eq!(admission.turn(2, Instant::now()).await.unwrap_err(), Refused::Late);
        assert_eq!(admission.load(), load(1, 0));
    }
}
