//! Time and background work that go on when the scenario says so.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use gannet_leaf::surroundings::{Background, Clock, Job, JobKind};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;

/// What time it is when a scenario begins: a Tuesday in 2025.
const EPOCH_NS: i64 = 1_750_000_000_000_000_000;

/// The time of a simulated machine. Clones are the same time.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimTime {
    passed_ns: Arc<AtomicU64>,
    /// By how much the wall clock is wrong.
    wrong_ns: Arc<AtomicI64>,
}

/// The clock of one life: its monotonic time begins somewhere else in each.
#[derive(Debug)]
pub(crate) struct SimClock {
    time: SimTime,
    began_ns: u64,
}

impl SimTime {
    /// Lets time pass.
    pub(crate) fn pass(&self, time: Duration) {
        self.passed_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(0), Ordering::Relaxed);
    }

    /// The right time, in nanoseconds since 1970.
    pub(crate) fn now_ns(&self) -> i64 {
        EPOCH_NS + i64::try_from(self.passed_ns.load(Ordering::Relaxed)).unwrap_or(i64::MAX - EPOCH_NS)
    }

    /// Sets by how much the wall clock is wrong.
    pub(crate) fn set_wrong(&self, wrong_ns: i64) {
        self.wrong_ns.store(wrong_ns, Ordering::Relaxed);
    }

    /// The clock of a new life.
    pub(crate) fn clock(&self) -> Arc<SimClock> {
        let began_ns = self.passed_ns.load(Ordering::Relaxed);
        Arc::new(SimClock { time: self.clone(), began_ns })
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.time.passed_ns.load(Ordering::Relaxed) - self.began_ns)
    }

    fn wall_ns(&self) -> i64 {
        self.time.now_ns().saturating_add(self.time.wrong_ns.load(Ordering::Relaxed))
    }
}

/// The jobs of each kind that wait, oldest first.
type Queues = Vec<(JobKind, VecDeque<Job>)>;

/// Jobs that wait until the scenario runs them. Clones are the same queue.
#[derive(Clone, Default)]
pub(crate) struct SimBackground {
    jobs: Arc<Mutex<Queues>>,
}

impl std::fmt::Debug for SimBackground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimBackground").field("waiting", &self.waiting()).finish()
    }
}

impl Background for SimBackground {
    fn spawn(&self, kind: JobKind, job: Job) {
        let mut jobs = self.jobs.lock();
        match jobs.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, queue)) => queue.push_back(job),
            None => jobs.push((kind, VecDeque::from([job]))),
        }
    }
}

impl SimBackground {
    /// How many jobs wait.
    pub(crate) fn waiting(&self) -> usize {
        self.jobs.lock().iter().map(|(_, queue)| queue.len()).sum()
    }

    /// Runs the oldest job of one of the kinds. False when there was none.
    pub(crate) fn run_one(&self, rng: &mut StdRng) -> bool {
        let job = {
            let mut jobs = self.jobs.lock();
            let mut waiting: Vec<_> = jobs.iter_mut().filter(|(_, queue)| !queue.is_empty()).collect();
            if waiting.is_empty() {
                return false;
            }
            let chosen = rng.random_range(0..waiting.len());
            waiting[chosen].1.pop_front()
        };
        job.is_some_and(|job| {
            job();
            true
        })
    }

    /// Forgets every job: the process that wanted them has ended.
    pub(crate) fn clear(&self) {
        // Dropped outside of the lock: a job may be the last that holds its leaf.
        let jobs = std::mem::take(&mut *self.jobs.lock());
        drop(jobs);
    }
}
