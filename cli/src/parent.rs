//! The tie of a part to the supervisor that started it, and the signals that end a server.

use std::sync::Arc;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::outcome::{Exit, Failure};

/// Asks the system for SIGTERM when the supervisor is gone, so that a part never outlives it unnoticed.
pub(crate) fn follow(parent_pid: u32) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| {
        Failure::failed(format!("ask for a signal at the end of process {parent_pid}: {error}"))
    })?;
    // It may have ended before the request; then no signal comes.
    let parent = getppid().map(Pid::as_raw_nonzero).and_then(|pid| u32::try_from(pid.get()).ok());
    if parent != Some(parent_pid) {
        return Err(Failure::failed(format!("process {parent_pid}, which started this one, is gone")));
    }
    Ok(())
}

/// Resolves at the first SIGTERM, SIGINT or SIGHUP. Of those that follow, the second is answered and the third ends the
/// process at once: a person who insists knows what is lost.
pub(crate) fn shutdown_signal() -> Result<impl Future<Output = ()> + Send, Failure> {
    let failed = |error| Failure::failed(format!("listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    let first = Arc::new(Notify::new());
    let notify = Arc::clone(&first);
    tokio::spawn(async move {
        let mut insisted = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => insisted += 1,
                _ = hang_up.recv() => {}
            }
            notify.notify_one();
            match insisted {
                0 | 1 => tracing::info!("asked to stop"),
                2 => {
                    tracing::warn!("already stopping; one more Ctrl-C ends it at once, and rows may be lost")
                }
                _ => {
                    tracing::error!("ended at once as asked");
                    std::process::exit(i32::from(Exit::Interrupted.code()));
                }
            }
        }
    });
    Ok(async move { first.notified().await })
}
