//! The runtimes of the commands: one thread for clients and the supervisor, many for servers.

use gannet_leaf::surroundings::IDLE_MAX;
use tokio::runtime::{Builder, Runtime};

use crate::outcome::Failure;

/// Everything on the calling thread.
pub(crate) fn small() -> Result<Runtime, Failure> {
    started(Builder::new_current_thread().enable_all().build())
}

/// The calling thread, and one beside it that keeps the connection going and hears Ctrl-C while answers are written.
pub(crate) fn paired() -> Result<Runtime, Failure> {
    started(Builder::new_multi_thread().worker_threads(1).enable_all().build())
}

/// A thread for each core; those for work that blocks end soon when there is none, and give their memory back.
pub(crate) fn large() -> Result<Runtime, Failure> {
    started(Builder::new_multi_thread().thread_keep_alive(IDLE_MAX).enable_all().build())
}

fn started(runtime: std::io::Result<Runtime>) -> Result<Runtime, Failure> {
    runtime.map_err(|error| Failure::failed(format!("start the runtime: {error}")))
}
