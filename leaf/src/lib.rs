//! A leaf: holds recent events in memory, column by column, and scans them.
//!
//! Rows come in as row batches ([`Leaf::append`]), are open and searchable at once, and are sealed into immutable row
//! blocks of up to 65,536 rows. A plan comes in, a partial goes out ([`Leaf::query`]). A clean stop leaves the blocks
//! in shared memory ([`Leaf::hand_over`]); the next start serves them from there ([`Leaf::start`]).
//!
//! A leaf never sees SQL, knows no other leaf, and never answers without completeness. Only [`mod@service`] knows the
//! wire. Invariants: a row block never changes; its image is the same bytes in heap and shared memory; bytes are
//! checked before they are believed; the valid mark of a hand-over is set last and cleared first.
//!
//! Start reading at [`mod@table`], then [`mod@row_block`] and [`mod@scan`], then [`mod@restart`].

mod append;
pub mod cast;
mod coded_texts;
pub mod column;
pub mod config;
pub mod dedup;
mod delete;
pub mod disk;
mod drain;
pub mod error;
mod hand_over;
pub mod held_block;
pub mod leaf;
pub mod ledger;
pub mod lifecycle;
pub mod manifest;
mod membership;
pub mod open_rows;
pub mod packing;
pub mod planted;
pub mod query;
mod recover;
mod retention;
pub mod row_block;
pub mod row_ranges;
pub mod runs;
pub mod scan;
pub mod service;
mod start;
mod store;
mod subsample;
pub mod surroundings;
pub mod table;
pub mod text;
mod vectors;
pub mod wal;

pub use append::{Batch, Receipt};
pub use config::{Config, TableConfig};
pub use drain::Drained;
pub use error::LeafError;
pub use hand_over::Stopped;
pub use leaf::Leaf;
pub use service::run;
pub use surroundings::hand_over_threads;
