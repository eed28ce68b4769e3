//! The processor of a leaf's machine: what the leaf does beside its runtime happens here, in simulated time.
//!
//! Requests run on the thread of the simulation, one after the other. A scan runs on a thread of its own, and the
//! simulation waits for it: only one of the two ever runs. Whenever the scan looks at the clock, it has cost some
//! simulated time, and the thread waits until that has passed; so a scan can be slow, be late for its deadline, and be
//! cancelled in the middle, in the same way each time. There is one core: scans and hand-overs take turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use gannet_leaf::surroundings::{Background, Clock, Job, JobKind};
use parking_lot::{Condvar, Mutex};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Semaphore;

use crate::life::Life;
use crate::sim_time::{SimBackground, SimClock};

/// How a scan's thread and the simulation take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The scan runs and the simulation waits.
    Scan,
    /// The scan waits until this much time has passed.
    Paused(Duration),
    /// The scan is done.
    Done,
    /// The machine is gone: the scan waits for nobody.
    Abandoned,
}

#[derive(Debug)]
struct Turns {
    turn: Mutex<Turn>,
    changed: Condvar,
}

impl Turns {
    fn set(&self, turn: Turn) {
        let mut now = self.turn.lock();
        if *now != Turn::Abandoned {
            *now = turn;
        }
        self.changed.notify_all();
    }

    /// Waits, on the scan's side, until this much time has passed.
    fn pause(&self, cost: Duration) {
        let mut turn = self.turn.lock();
        if *turn == Turn::Abandoned {
            return;
        }
        *turn = Turn::Paused(cost);
        self.changed.notify_all();
        while matches!(*turn, Turn::Paused(_)) {
            self.changed.wait(&mut turn);
        }
    }

    /// Waits, on the side of the simulation, until the scan pauses or ends.
    fn next(&self) -> Turn {
        let mut turn = self.turn.lock();
        while *turn == Turn::Scan {
            self.changed.wait(&mut turn);
        }
        *turn
    }
}

/// A scan that runs; when it is dropped the scan goes to its end without the simulation.
struct Running {
    turns: Arc<Turns>,
    slot: Arc<Mutex<Option<Arc<Turns>>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.turns.turn.lock() = Turn::Abandoned;
        self.turns.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        *self.slot.lock() = None;
    }
}

/// See the module. Clones are the same processor; it belongs to one life of the leaf.
#[derive(Debug, Clone)]
pub(crate) struct OneCore {
    simulation: ThreadId,
    jobs: SimBackground,
    turns: Arc<Semaphore>,
    running: Arc<Mutex<Option<Arc<Turns>>>>,
    /// What a look at the clock costs a scan, and how long requests may wait, in milliseconds.
    look_ms: Arc<AtomicU64>,
    request_ms: Arc<AtomicU64>,
    rng: Arc<Mutex<StdRng>>,
    life: Life,
}

impl OneCore {
    /// For a new life of a leaf; to be called on the thread of the simulation.
    pub(crate) fn new(speed: &Speed, jobs: &SimBackground, life: &Life, seed: u64) -> OneCore {
        OneCore {
            simulation: std::thread::current().id(),
            jobs: jobs.clone(),
            turns: Arc::new(Semaphore::new(1)),
            running: Arc::default(),
            look_ms: Arc::clone(&speed.look_ms),
            request_ms: Arc::clone(&speed.request_ms),
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            life: life.clone(),
        }
    }

    /// A clock that costs scans time to look at.
    pub(crate) fn clock(&self, clock: Arc<SimClock>) -> CostlyClock {
        CostlyClock { clock, core: self.clone() }
    }

    fn looked(&self) {
        let cost = self.look_ms.load(Ordering::Relaxed);
        if cost == 0 || std::thread::current().id() == self.simulation {
            return;
        }
        let turns = self.running.lock().clone();
        if let Some(turns) = turns {
            turns.pause(Duration::from_millis(cost));
        }
    }

    async fn take_turn(self, job: Job) {
        let Ok(_turn) = Arc::clone(&self.turns).acquire_owned().await else { return };
        let turns = Arc::new(Turns { turn: Mutex::new(Turn::Scan), changed: Condvar::new() });
        *self.running.lock() = Some(Arc::clone(&turns));
        let of_thread = Arc::clone(&turns);
        let thread = std::thread::spawn(move || {
            job();
            of_thread.set(Turn::Done);
        });
        let running = Running { turns, slot: Arc::clone(&self.running), thread: Some(thread) };
        while let Turn::Paused(cost) = running.turns.next() {
            tokio::time::sleep(cost).await;
            running.turns.set(Turn::Scan);
        }
    }
}

impl Background for OneCore {
    fn spawn(&self, kind: JobKind, job: Job) {
        match kind {
            JobKind::Seal | JobKind::Store => self.jobs.spawn(kind, job),
            JobKind::Request => {
                let wait = self.rng.lock().random_range(0..=self.request_ms.load(Ordering::Relaxed));
                let life = self.life.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    if !life.has_ended() {
                        job();
                    }
                });
            }
            JobKind::HandOver => {
                let turns = Arc::clone(&self.turns);
                tokio::spawn(async move {
                    let _turn = turns.acquire_owned().await;
                    job();
                });
            }
        }
    }

    fn scan(&self, _: &rayon::ThreadPool, job: Job) {
        drop(tokio::spawn(self.clone().take_turn(job)));
    }
}

/// How fast a machine is, over all lives of its leaf.
#[derive(Debug, Default)]
pub(crate) struct Speed {
    look_ms: Arc<AtomicU64>,
    request_ms: Arc<AtomicU64>,
}

impl Speed {
    /// What each look at the clock costs a scan.
    pub(crate) fn set_look_ms(&self, cost: u64) {
        self.look_ms.store(cost, Ordering::Relaxed);
    }

    /// How long a request waits at most before it is done.
    pub(crate) fn set_request_ms(&self, wait: u64) {
        self.request_ms.store(wait, Ordering::Relaxed);
    }
}

/// See [`OneCore::clock`].
#[derive(Debug)]
pub(crate) struct CostlyClock {
    clock: Arc<SimClock>,
    core: OneCore,
}

impl Clock for CostlyClock {
    fn monotonic(&self) -> Duration {
        self.core.looked();
        self.clock.monotonic()
    }

    fn wall_ns(&self) -> i64 {
        self.clock.wall_ns()
    }
}
