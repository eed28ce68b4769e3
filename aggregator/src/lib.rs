//! SQL to plan, fan-out, merge, and the doors.
//!
//! An aggregator turns SQL into a plan ([`sql`]), asks every child for its partial of it ([`fan_out`]), merges what
//! comes back, and says with every answer how complete it is. What must exist is in the [`roster`], which survives
//! restarts; who is there is the matter of [`membership`], who can be reached that of [`children`]. Events come in over HTTP, are read by [`ingest`] and
//! go to leaves by [`placement`].
//!
//! An aggregator never sees a row block, shared memory or a disk block, and it holds no rows: what it knows beyond one
//! request is the roster. It serves the same gRPC `Query` as a leaf, so an aggregator can be the child of another.
//!
//! Invariants: no answer without completeness; the answer equals the aggregate over exactly the rows that the record
//! says are covered; expected rows come from the roster, never from who happens to be up; a row batch whose outcome is
//! not known is never sent to another leaf in silence.
//!
//! Who may use the HTTP door is said by [`access`].
//!
//! Start reading at [`Aggregator`], then [`fan_out`] and [`roster`].

pub mod access;
pub mod admission;
pub mod aggregator;
pub mod catalogue;
pub mod children;
pub mod config;
pub mod error;
mod exchange;
#[cfg(test)]
mod fakes;
pub mod fan_out;
pub mod http;
pub mod ingest;
pub mod membership;
pub mod metrics;
pub mod placement;
pub mod planted;
pub mod rollout;
pub mod roster;
pub mod roster_file;
mod run;
pub mod sender;
mod service;
pub mod sql;
pub mod surroundings;

pub use aggregator::{Aggregator, Appended, QueryOptions, StartError};
pub use config::{Config, ConfigError};
pub use error::{ErrorCode, Failure};
pub use run::{Doors, RunError, run, run_in};
pub use sql::SqlAnswer;
pub use surroundings::Surroundings;
