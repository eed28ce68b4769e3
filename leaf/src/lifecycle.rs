//! The states of a leaf's life and the requests each admits: one table.
//!
//! starting → attaching | recovering → serving → draining → handing over → stopped. A state only ever moves forward,
//! but for one step back: a hand-over that finds no room before it has moved anything returns to serving.

use std::sync::atomic::{AtomicU8, Ordering};

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
        (LeafState::Recovering | LeafState::Draining, Request::Query) => true,
        (LeafState::Recovering | LeafState::Draining, Request::Append) => false,
        (LeafState::Starting | LeafState::Attaching | LeafState::HandingOver | LeafState::Stopped, _) => {
            false
        }
    }
}

/// The current state, shared between threads.
#[derive(Debug)]
pub struct Lifecycle(AtomicU8);

impl Default for Lifecycle {
    fn default() -> Lifecycle {
        Lifecycle(AtomicU8::new(0))
    }
}

impl Lifecycle {
    /// The state now.
    pub fn state(&self) -> LeafState {
        let number = usize::from(self.0.load(Ordering::Acquire));
        LeafState::ALL.get(number).map_or(LeafState::Stopped, |(state, _)| *state)
    }

    /// Moves to a state.
    pub fn enter(&self, state: LeafState) {
        let number = LeafState::ALL.iter().position(|(known, _)| *known == state).unwrap_or(0);
        self.0.store(number as u8, Ordering::Release);
        tracing::info!(state = state.name(), "leaf state");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serving_takes_rows() {
        for (state, _) in LeafState::ALL {
            assert_eq!(admits(state, Request::Append), state == LeafState::Serving, "{state:?}");
        }
        assert!(admits(LeafState::Draining, Request::Query));
        assert!(!admits(LeafState::HandingOver, Request::Query));
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
