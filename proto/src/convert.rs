//! Plans, expressions, completeness and holdings to and from their messages.
//!
//! Into the wire is `From<&T>`; out of it is `TryFrom`, which checks every number, index and count. Numbers of rows
//! and bytes are limited so that adding up what many children say cannot overflow.

use gannet_query::QueryError;

mod completeness;
mod expr;
mod holdings;
mod plan;
mod top;

pub use expr::{EXPR_DEPTH_MAX, EXPR_NODES_MAX};
pub use plan::PLAN_ITEMS_MAX;
pub use top::wanted;

/// The largest number of rows or bytes that a message may name; 2^52, beyond any machine and exact as a float.
pub const COUNT_MAX: u64 = 1 << 52;

/// Why a message is not what it should be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConvertError {
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A number that names nothing.
    #[error("{what} has no meaning for the number {value}")]
    Number {
        /// The field.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// Too many or too large.
    #[error("{what} exceed the limit of {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An expression whose nodes do not make a tree.
    #[error("expression node {node}: {text}")]
    Expression {
        /// Its index.
        node: usize,
        /// What is wrong with it.
        text: String,
    },
    /// Bytes that are not the Arrow data they should be.
    #[error("cannot read {what}: {text}")]
    Arrow {
        /// What the bytes should have been.
        what: &'static str,
        /// What is wrong.
        text: String,
    },
    /// A body that does not fit its plan.
    #[error("body does not fit the plan: {0}")]
    Body(String),
    /// States that cannot be.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// A number of rows or bytes, within [`COUNT_MAX`].
fn count(what: &'static str, value: u64) -> Result<u64, ConvertError> {
    if value > COUNT_MAX { Err(ConvertError::Limit { what, limit: COUNT_MAX }) } else { Ok(value) }
}

/// The entry of a list of enum values at a number from the wire.
fn entry<T: Copy>(what: &'static str, all: &[(T, &'static str)], value: u32) -> Result<T, ConvertError> {
    all.get(value as usize)
        .map(|(entry, _)| *entry)
        .ok_or(ConvertError::Number { what, value: u64::from(value) })
}

/// The number of an enum value in its list; every list holds every value.
fn position<T: PartialEq>(all: &[(T, &'static str)], value: &T) -> u32 {
    all.iter().position(|(entry, _)| entry == value).unwrap_or(all.len()) as u32
}

/// Converts every item of a list.
fn all<T, U>(items: Vec<T>) -> Result<Vec<U>, ConvertError>
where
    U: TryFrom<T, Error = ConvertError>,
{
    items.into_iter().map(U::try_from).collect()
}
