//! Who sends a body of events, so that a body which comes again is counted once.
//!
//! A sender names each of their requests, by a number or by a key. A request travels to its leaf in parts, and the leaf
//! remembers which of them it has: that is why a request must become the same parts, for the same leaf, each time it
//! comes. The parts are the decoder's matter, the leaf is that of [`crate::placement`].

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

/// Bytes of a producer's name, and of an idempotency key.
pub const NAME_BYTES_MAX: usize = 256;

/// Who sends a request, and which of theirs it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A producer that numbers its requests.
    Producer {
        /// Its name.
        producer: String,
        /// The number of the request.
        sequence: u64,
    },
    /// A key that no other request has.
    Key(String),
}

impl Sender {
    /// What to repeat when the request is sent again.
    pub fn named_by(&self) -> &'static str {
        match self {
            Sender::Producer { .. } => "sequence",
            Sender::Key(_) => "idempotency key",
        }
    }

    /// A number for the request among those of a table: the same in every process and version, since a retry may come
    /// through another aggregator.
    pub fn number(&self, table: &str) -> u64 {
        let mut hash = Xxh3::new();
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(table.as_bytes());
        match self {
            Sender::Producer { producer, sequence } => {
                add(producer.as_bytes());
                add(&sequence.to_le_bytes());
            }
            Sender::Key(key) => add(key.as_bytes()),
        }
        hash.digest()
    }
}

/// A row batch among those of one request.
#[derive(Debug, Clone)]
pub struct Part {
    /// Whose request.
    pub sender: Arc<Sender>,
    /// Its number, from 0.
    pub number: u32,
    /// No part has a higher number.
    pub is_last: bool,
}
