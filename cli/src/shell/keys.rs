//! Ctrl-C: once it cancels what runs, twice within a second it ends the shell.
//!
//! While a line is edited the terminal sends no signal, and the editor says that the key was pressed. While something
//! runs the signal comes here. A pager or an editor on the terminal gets it for itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::interrupt::Interrupt;
use crate::outcome::Exit;

/// Two presses within this time end the shell.
const TWICE_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    /// What runs.
    running: Option<Arc<watch::Sender<bool>>>,
    /// Another program has the terminal.
    is_lent: bool,
    last: Option<Instant>,
    /// A press that nobody took, and whether it was the second.
    pressed: Option<bool>,
}

impl State {
    /// Takes a press; true when it was the second.
    fn press(&mut self, now: Instant) -> bool {
        let is_second = self.last.is_some_and(|last| now.duration_since(last) < TWICE_WITHIN);
        self.last = Some(now);
        is_second
    }
}

/// What Ctrl-C means now.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys(Arc<Mutex<State>>);

impl Keys {
    /// Listens on this runtime, which must have a thread of its own.
    pub(super) fn listen(runtime: &Handle) -> Keys {
        let keys = Keys::default();
        let listener = keys.clone();
        runtime.spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                listener.signalled();
            }
        });
        keys
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signalled(&self) {
        let mut state = self.state();
        if state.is_lent {
            return;
        }
        let is_second = state.press(Instant::now());
        match &state.running {
            // What runs does not listen, such as a write to a terminal that is stopped.
            Some(_) if is_second => std::process::exit(i32::from(Exit::Interrupted.code())),
            Some(running) => {
                let _ = running.send(true);
            }
            None => state.pressed = Some(is_second),
        }
    }

    /// Something runs from now on; it is told by this.
    pub(super) fn run(&self) -> Interrupt {
        let (interrupt, sender) = Interrupt::by_hand();
        self.state().running = Some(sender);
        interrupt
    }

    /// Nothing runs any more.
    pub(super) fn rest(&self) {
        let mut state = self.state();
        state.running = None;
        state.pressed = None;
    }

    /// Runs this while another program has the terminal.
    pub(super) fn lend<T>(&self, work: impl FnOnce() -> T) -> T {
        self.state().is_lent = true;
        let done = work();
        self.state().is_lent = false;
        done
    }

    /// The editor saw the key; true when it was the second time within a second.
    pub(super) fn press(&self) -> bool {
        self.state().press(Instant::now())
    }

    /// The key was pressed while nothing ran: whether for the second time.
    pub(super) fn take_press(&self) -> Option<bool> {
        self.state().pressed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_within_a_second_is_twice() {
        let mut state = State::default();
        let begun = Instant::now();
        assert!(!state.press(begun));
        assert!(!state.press(begun + Duration::from_millis(1000)));
        assert!(state.press(begun + Duration::from_millis(1999)));
    }

    #[test]
    fn what_runs_is_told() {
        let keys = Keys::default();
        keys.signalled();
        assert_eq!((keys.take_press(), keys.take_press()), (Some(false), None));
        keys.state().last = None;
        let interrupt = keys.run();
        assert!(interrupt.check().is_ok());
        keys.lend(|| keys.signalled());
        assert!(interrupt.check().is_ok());
        keys.signalled();
        assert!(interrupt.check().is_err());
        keys.rest();
        assert!(keys.press());
    }
}
