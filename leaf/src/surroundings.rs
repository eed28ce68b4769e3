//! What a leaf lives in: files, shared memory, time, threads that work behind it, and the network.
//!
//! A leaf reaches all of these through [`Surroundings`] and nothing else, so that a simulation can put its own in their
//! place and decide what happens when. The ones of this machine are made by [`Surroundings::of`].
//!
//! Invariants: monotonic time never goes back and counts from an arbitrary moment; nothing that must be right depends
//! on the wall clock, only what people see and how long rows are kept.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gannet_proto::network::{Network, System};
use gannet_shm::{OsSharedMemory, SharedMemory};

use crate::disk::{Disk, OsDisk};
use crate::{Config, LeafError};

/// How far work behind a leaf steps back for appends and queries, as `nice` counts.
const NICENESS: i32 = 10;
/// Threads that seal: on a machine with more cores, this many keep up with what its network brings.
const SEAL_THREADS_MAX: usize = 4;
/// Threads that copy at a stop: more of them only wait for memory.
const HAND_OVER_THREADS_MAX: usize = 4;
/// Threads that open blocks at a start: the rest of the machine has work of its own.
const START_THREADS_MAX: usize = 8;
/// Sealing casts values with functions that recurse as deep as types nest.
const STACK_BYTES: usize = 8 << 20;
/// How long a thread waits for work before it ends. An allocator keeps what a thread freed for that thread, however long it
/// does nothing: a leaf that had taken in ten million rows kept two fifths of their size more than it held.
pub const IDLE_MAX: Duration = Duration::from_millis(500);

/// Time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Time that never goes back, since an arbitrary moment.
    fn monotonic(&self) -> Duration;

    /// Nanoseconds since 1970, as this machine believes.
    fn wall_ns(&self) -> i64;
}

/// Something to be done behind a leaf.
pub type Job = Box<dyn FnOnce() + Send>;

/// What a job is about; jobs of one kind are begun in the order they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Sealing rows: takes processors.
    Seal,
    /// Writing and reading files: waits for the disk.
    Store,
    /// Anything but a scan that a door is asked for: soon done. Only a door gives these, and the next, inside a tokio
    /// runtime.
    Request,
    /// Handing over at a stop, which waits for scans to end.
    HandOver,
}

/// Threads that work behind a leaf.
pub trait Background: fmt::Debug + Send + Sync {
    /// Does the job some time, on another thread.
    fn spawn(&self, kind: JobKind, job: Job);

    /// Does a scan that somebody waits for, on a thread of the pool from its beginning to its end: a thread of its own
    /// would be woken twice to do nothing but wait. Who waits hears that there is no answer when the job panics.
    fn scan(&self, pool: &rayon::ThreadPool, job: Job) {
        pool.spawn_fifo(move || drop(catch_unwind(AssertUnwindSafe(job))));
    }
}

/// All of it. See the module.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The files of the data directory.
    pub disk: Arc<dyn Disk>,
    /// Memory that outlives the process.
    pub memory: Arc<dyn SharedMemory>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Work behind the leaf.
    pub background: Arc<dyn Background>,
    /// How other members of the cluster are told of the leaf.
    pub network: Arc<dyn Network>,
    /// Threads that copy at a stop.
    pub hand_over_threads: usize,
    /// Threads that open blocks at a start, or read their files; at least 1.
    pub start_threads: usize,
    /// What a leaf that never ran names its segments and its log by.
    pub instance: uuid::Uuid,
}

impl Surroundings {
    /// Those of this machine, for a leaf with these settings.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn of(config: &Config) -> Result<Surroundings, LeafError> {
        Ok(Surroundings {
            disk: Arc::new(OsDisk::new(&config.data_dir)),
            memory: Arc::new(OsSharedMemory),
            clock: Arc::new(OsClock::start()),
            background: Arc::new(Threads::start()?),
            network: Arc::new(System),
            hand_over_threads: hand_over_threads(),
            start_threads: cores().min(START_THREADS_MAX),
            instance: uuid::Uuid::new_v4(),
        })
    }
}

/// The clock of this machine.
#[derive(Debug)]
pub(crate) struct OsClock {
    started: Instant,
}

impl OsClock {
    pub(crate) fn start() -> OsClock {
        OsClock { started: Instant::now() }
    }
}

impl Clock for OsClock {
    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn wall_ns(&self) -> i64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        since_1970.map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// Threads of this machine.
#[derive(Debug)]
struct Threads {
    seal: Workers,
    store: Workers,
}

impl Threads {
    fn start() -> Result<Threads, LeafError> {
        let seal = Workers::start(cores().min(SEAL_THREADS_MAX), "seal")?;
        Ok(Threads { seal, store: Workers::start(1, "store")? })
    }
}

impl Background for Threads {
    fn spawn(&self, kind: JobKind, job: Job) {
        match kind {
            JobKind::Seal => self.seal.spawn(job),
            JobKind::Store => self.store.spawn(job),
            // Whoever waits hears of it through a channel of the job.
            JobKind::Request | JobKind::HandOver => drop(tokio::task::spawn_blocking(job)),
        }
    }
}

/// Up to so many threads, which begin when there is work and end when there has been none for a while: those that a
/// runtime has for work that blocks, and nothing else of it.
#[derive(Debug)]
struct Workers(Option<tokio::runtime::Runtime>);

impl Workers {
    fn start(threads: usize, name: &'static str) -> Result<Workers, LeafError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(threads)
            .thread_keep_alive(IDLE_MAX)
            .thread_stack_size(STACK_BYTES)
            .thread_name(name)
            .on_thread_start(step_back)
            .build()
            .map_err(|error| LeafError::Internal(format!("start {name} threads: {error}")))?;
        Ok(Workers(Some(runtime)))
    }

    /// A job that panics ends the process: what it was about to do is done by the next one.
    fn spawn(&self, job: Job) {
        let job = move || {
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                std::process::abort();
            }
        };
        if let Some(runtime) = &self.0 {
            drop(runtime.spawn_blocking(job));
        }
    }
}

impl Drop for Workers {
    /// The last one to let go may be a job itself, which cannot wait for its own end.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Threads that copy at a stop on this machine.
pub fn hand_over_threads() -> usize {
    cores().min(HAND_OVER_THREADS_MAX)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Lets other threads go before this one. A system that refuses changes nothing but that.
fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    fn is_there(thread: &str) -> bool {
        let threads = std::fs::read_dir("/proc/self/task").unwrap();
        threads.flatten().any(|task| {
            // A thread may be gone by now.
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim_end() == thread)
        })
    }

    #[test]
    fn threads_without_work_end() {
        let workers = Workers::start(2, "ends-when-idle").unwrap();
        assert!(!is_there("ends-when-idle"), "no work, no threads");
        for _ in 0..2 {
            let (told, heard) = channel();
            workers.spawn(Box::new(move || told.send(is_there("ends-when-idle")).unwrap()));
            assert!(heard.recv().unwrap());
            let patience = Instant::now() + Duration::from_secs(30);
            while is_there("ends-when-idle") {
                assert!(Instant::now() < patience, "the thread goes on with nothing to do");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    #[test]
    fn jobs_begin_in_order() {
        let workers = Workers::start(1, "in-order").unwrap();
        let begun = Arc::new(Mutex::new(Vec::new()));
        let (told, heard) = channel::<()>();
        for number in 0..100 {
            let (begun, told) = (Arc::clone(&begun), told.clone());
            workers.spawn(Box::new(move || {
                begun.lock().unwrap().push(number);
                drop(told);
            }));
        }
        drop(told);
        heard.recv().expect_err("nothing is sent, all have ended");
        assert_eq!(*begun.lock().unwrap(), Vec::from_iter(0..100));
    }

    #[tokio::test]
    async fn a_job_may_be_the_last_that_holds_its_threads() {
        let (told, heard) = tokio::sync::oneshot::channel();
        let workers = Arc::new(Workers::start(1, "held-by-its-job").unwrap());
        let held = Arc::clone(&workers);
        let (go, wait) = channel();
        workers.spawn(Box::new(move || {
            wait.recv().unwrap();
            drop(held);
            told.send(()).unwrap();
        }));
        // Dropped where waiting is not allowed.
        drop(workers);
        go.send(()).unwrap();
        heard.await.unwrap();
    }
}
