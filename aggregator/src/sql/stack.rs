//! Threads with big stacks, for work that recurses as deep as a user's SQL is nested.
//!
//! Parsing is bounded by a depth, but a flat chain such as `1+1+1+…` becomes a tree as deep as it is long, and even
//! dropping such a tree recurses. All of that happens here, also for statements that are refused. What leaves these
//! threads is plans within the limits of [`super::limits`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use parking_lot::Mutex;

use crate::error::{ErrorCode, Failure};
use crate::surroundings::Planning;

/// Bytes of address space for each stack; memory is only used as deep as a stack ever grew.
const STACK_BYTES: usize = 256 << 20;
/// Statements that may wait for a thread.
const WAITING_MAX: usize = 256;

type Job = Box<dyn FnOnce() + Send>;

/// A few threads with big stacks.
#[derive(Debug)]
pub(super) struct BigStacks {
    jobs: SyncSender<Job>,
    planning: Planning,
}

impl BigStacks {
    /// Starts the threads; they end when this is dropped.
    ///
    /// # Errors
    /// When the system has no room for a thread.
    pub(super) fn start(threads: usize, planning: Planning) -> std::io::Result<BigStacks> {
        let (jobs, waiting) = sync_channel(WAITING_MAX);
        let waiting: Arc<Mutex<Receiver<Job>>> = Arc::new(Mutex::new(waiting));
        for index in 0..threads.max(1) {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new().name(format!("sql-{index}")).stack_size(STACK_BYTES).spawn(
                move || {
                    loop {
                        // The guard goes before the job runs, so that another thread can take the next one.
                        let next = waiting.lock().recv();
                        let Ok(job) = next else { return };
                        // A panic is the job's: its result is never sent, and its owner says so.
                        let _ = catch_unwind(AssertUnwindSafe(job));
                    }
                },
            )?;
        }
        Ok(BigStacks { jobs, planning })
    }

    /// Runs a job on one of the threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let ended = || Err(Failure::new(ErrorCode::Internal, "planning this statement failed"));
        match self.planning {
            Planning::Beside => {
                let (reply, answer) = tokio::sync::oneshot::channel();
                self.send(Box::new(move || drop(reply.send(job()))))?;
                answer.await.unwrap_or_else(|_| ended())
            }
            Planning::Alone => {
                let (reply, answer) = sync_channel(1);
                self.send(Box::new(move || drop(reply.send(job()))))?;
                answer.recv().unwrap_or_else(|_| ended())
            }
        }
    }

    fn send(&self, job: Job) -> Result<(), Failure> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Failure::new(
                ErrorCode::Overloaded,
                format!("{WAITING_MAX} statements wait to be planned already"),
            )
            .retry_after(1),
            TrySendError::Disconnected(_) => {
                Failure::new(ErrorCode::Internal, "the planning threads are gone")
            }
        })
    }
}
