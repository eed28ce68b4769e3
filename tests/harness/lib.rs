//! What the tests of Gannet are made with: seeded rows, an oracle, clusters in one process, the real binary, and a
//! runner of golden files. Nothing of it ships.
//!
//! Everything asks over HTTP, as a user does, so that a test knows no more of Gannet than its doors. Start reading at
//! [`cluster`], then [`arrangement`] and [`golden`]; [`oracle`] stands alone.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

pub mod arrangement;
pub mod cluster;
pub mod encodings;
pub mod golden;
pub mod http;
pub mod mutate;
pub mod namespaces;
pub mod oracle;
pub mod process;
pub mod reseal;
pub mod rows;
pub mod segments;
pub mod sweep;
pub mod terminal;
pub mod transcript;
pub mod wait;
