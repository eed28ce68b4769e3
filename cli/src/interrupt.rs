//! Ctrl-C: the first one asks the command to stop and clean up, the second one ends it at once.

use std::io;
use std::sync::Arc;

use tokio::sync::watch;

use crate::outcome::{Exit, Failure};

/// Whether somebody said to stop.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    said: watch::Receiver<bool>,
    /// Without a listener nobody can say it, which is not the same as having said it.
    _open: Arc<watch::Sender<bool>>,
}

impl Interrupt {
    /// Listens from now on. Must be called on a runtime with a thread of its own, or it hears nothing while the command
    /// works.
    pub(crate) fn listen() -> Interrupt {
        let (sender, said) = watch::channel(false);
        let sender = Arc::new(sender);
        let open = Arc::clone(&sender);
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                let _ = sender.send(true);
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(i32::from(Exit::Interrupted.code()));
            }
        });
        Interrupt { said, _open: open }
    }

    /// One that whoever holds the other end says.
    pub(crate) fn by_hand() -> (Interrupt, Arc<watch::Sender<bool>>) {
        let (sender, said) = watch::channel(false);
        let sender = Arc::new(sender);
        (Interrupt { said, _open: Arc::clone(&sender) }, sender)
    }

    /// Comes when somebody says to stop.
    pub(crate) async fn said(&self) {
        let mut said = self.said.clone();
        if said.wait_for(|said| *said).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// An error once somebody said to stop.
    pub(crate) fn check(&self) -> io::Result<()> {
        if *self.said.borrow() { Err(io::Error::other(Interrupted)) } else { Ok(()) }
    }
}

/// Why writing ended.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

impl From<Interrupted> for Failure {
    fn from(_: Interrupted) -> Failure {
        // Who pressed Ctrl-C needs nobody to say so.
        Failure::new(Exit::Interrupted, "")
    }
}
