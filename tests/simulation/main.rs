//! A leaf in a simulated world: a disk that loses what was not synced, shared memory that goes with the power, a
//! clock that jumps, and a process that ends between any two calls.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

mod life;
mod sim_disk;
mod sim_memory;
