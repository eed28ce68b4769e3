//! What a child is asked, and how its partials add up.
//!
//! This crate is the vocabulary that leaves and aggregators share. It holds no I/O, no clock, no async code and
//! no storage: everything in it is a value or a function of values.
//!
//! * [`Plan`] is what a child is asked: one table, a time range, a filter, and either groups or rows.
//! * [`Expr`] is how filters, group keys and arguments are written down. Its functions and operators mean what
//!   they mean in DataFusion, on every leaf and on the aggregator alike.
//! * [`States`] are the mergeable states of one aggregate over many groups: `update`, `merge`, `finish`.
//! * [`Partial`] is what a child returns; merging two partials is its only operation, and order does not matter.
//! * [`Completeness`] travels beside every partial and every answer.
//! * [`Holdings`] is what a leaf says it holds; the roster of an aggregator is built from it.
//!
//! Read [`plan`] first, then [`aggregate`], then [`partial`].

pub mod aggregate;
pub mod completeness;
pub mod dictionary;
pub mod expr;
pub mod holdings;
mod literals;
pub mod partial;
pub mod plan;
pub mod rfc3339;
pub mod sketch;
mod tables;
pub mod value;

pub use aggregate::{Aggregate, AggregateFunction, Finish, HistogramBuckets, Input, States, Values, Weights};
pub use completeness::{Bucket, Completeness, LeafEpoch, Missing, MissingReason, ScanStats};
pub use dictionary::Dictionary;
pub use expr::{BinaryOp, Expr};
pub use holdings::{ColumnHolding, Holdings, LeafState, Phase, Span, TableHolding};
pub use partial::{
    Body, Cutting, Groups, LeftOut, Merger, Partial, PlacedKeys, RowSet, Several, Share, SoFar, Sum, Top,
    TopTerm, TopValue, Wanted, cut_for_asker,
};
pub use plan::{Key, OrderBy, Output, OutputColumn, Plan, TimeRange, WeightKind};
pub use value::{ColumnType, TypeSet, Value};

/// The column every row has: nanoseconds UTC.
pub const TIME_COLUMN: &str = "time";
/// The column that says how many events a row stands for.
pub const SAMPLE_RATE_COLUMN: &str = "sample_rate";

/// What went wrong inside this crate. Each variant is something a caller can act on.
#[derive(Debug, thiserror::Error, Clone, PartialEq)]
pub enum QueryError {
    /// A partial or a state does not fit the plan it is merged under.
    #[error("partial does not fit the plan: {0}")]
    Mismatch(String),
    /// An aggregate cannot take values of this type.
    #[error("{function} cannot take values of type {data_type}")]
    UnsupportedType {
        /// The aggregate's name.
        function: String,
        /// The Arrow type it was given.
        data_type: String,
    },
    /// The groups or rows of a query would take more memory than it may have.
    #[error("query needs more than {limit} bytes for {groups} groups or rows")]
    Memory {
        /// Groups or rows when the limit was met.
        groups: usize,
        /// The limit in bytes.
        limit: u64,
    },
    /// A sum left the range of 64-bit integers.
    #[error("sum of integers exceeds the range of a 64-bit integer")]
    Overflow,
}
