//! The states of a leaf's life and the requests each admits: one table.
//!
//! starting → attaching → recovering → serving → draining → handing over → stopped. A state only ever moves forward, but
//! for one: a leaf that drains serves again when it is told to, until its stop begins.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use gannet_query::LeafState;

/// What somebody wants of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// New rows.
    Append,
    /// A plan to run.
    Query,
}

/// Whether a state admits a request. Describing and stopping are always admitted.
pub fn admits(state: LeafState, request: Request) -> bool {
    match (state, request) {
        (LeafState::Serving, _) => true,
        // As soon as the log is read; see `Leaf::admit`.
        (LeafState::Recovering, _) => true,
        // What was found is there; nothing changes before the start is noted on disk.
        (LeafState::Attaching | LeafState::Draining, Request::Query) => true,
        (LeafState::Attaching | LeafState::Draining, Request::Append) => false,
        (LeafState::Starting | LeafState::HandingOver | LeafState::Stopped, _) => false,
    }
}

/// The current state, shared between threads.
#[derive(Debug, Default)]
pub struct Lifecycle {
    /// A position in [`LeafState::ALL`], whose first is `starting`.
    state: AtomicU8,
    /// A stop has begun.
    stopping: AtomicBool,
}

impl Lifecycle {
    /// The state now.
    pub fn state(&self) -> LeafState {
        let number = usize::from(self.state.load(Ordering::Acquire));
        LeafState::ALL.get(number).map_or(LeafState::Stopped, |(state, _)| *state)
    }

    /// Moves from one state to another; false when somebody else has moved it meanwhile.
    pub fn step(&self, from: LeafState, to: LeafState) -> bool {
        let moved =
            self.state.compare_exchange(number(from), number(to), Ordering::AcqRel, Ordering::Acquire);
        if moved.is_ok() {
            tracing::info!(state = to.name(), "leaf state");
        }
        moved.is_ok()
    }

    /// Moves to a state.
    pub fn enter(&self, state: LeafState) {
        self.state.store(number(state), Ordering::Release);
        tracing::info!(state = state.name(), "leaf state");
    }

    /// Begins a stop, which nothing takes back.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.enter(LeafState::Draining);
    }

    /// From draining back to serving; false when it was not draining, or a stop has begun.
    pub fn end_drain(&self) -> bool {
        if self.stopping.load(Ordering::SeqCst) || !self.step(LeafState::Draining, LeafState::Serving) {
            return false;
        }
        // A stop that began in between has said `draining` or will say what follows; it must not be read as serving.
        if self.stopping.load(Ordering::SeqCst) {
            self.step(LeafState::Serving, LeafState::Draining);
            return false;
        }
        true
    }
}

fn number(state: LeafState) -> u8 {
    LeafState::ALL.iter().position(|(known, _)| *known == state).unwrap_or(0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taken_before_a_stop_begins() {
        for (state, _) in LeafState::ALL {
            let takes = matches!(state, LeafState::Serving | LeafState::Recovering);
            assert_eq!(admits(state, Request::Append), takes, "{state:?}");
        }
        assert!(admits(LeafState::Draining, Request::Query));
        assert!(admits(LeafState::Attaching, Request::Query));
        assert!(!admits(LeafState::HandingOver, Request::Query));
    }

    #[test]
    fn a_drain_is_taken_back_until_a_stop_begins() {
        let lifecycle = Lifecycle::default();
        assert!(!lifecycle.end_drain());
        lifecycle.enter(LeafState::Draining);
        assert!(lifecycle.end_drain());
        assert_eq!(lifecycle.state(), LeafState::Serving);
        lifecycle.begin_stop();
        assert!(!lifecycle.end_drain());
        assert_eq!(lifecycle.state(), LeafState::Draining);
    }

    #[test]
    fn states_are_kept() {
        let lifecycle = Lifecycle::default();
        assert_eq!(lifecycle.state(), LeafState::Starting);
        for (state, _) in LeafState::ALL {
            lifecycle.enter(state);
            assert_eq!(lifecycle.state(), state);
        }
    }
}
