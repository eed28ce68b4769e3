//! What can go wrong in a leaf; each variant is something a caller or the door acts on.

use std::path::PathBuf;

use gannet_query::{ColumnType, LeafState};

use crate::dedup::DedupError;
use crate::manifest::ManifestError;
use crate::wal::WalError;

/// An error of a leaf. The door gives each variant its status in one match.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// A setting is not what it must be.
    #[error("{0}")]
    Config(String),
    /// The manifest cannot be read or written, or is not this leaf's.
    #[error("manifest {}: {source}", path.display())]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The write-ahead log cannot be read, or does not take rows now; come back.
    #[error("write-ahead log: {0}")]
    Log(#[from] WalError),
    /// The write-ahead log is as long as it may be; come back when blocks are written.
    #[error(
        "leaf {leaf} takes no rows for table {table}: its write-ahead log has {bytes} bytes, the limit is {limit}"
    )]
    LogFull {
        /// Which leaf.
        leaf: String,
        /// Which table.
        table: String,
        /// Bytes of the log.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The disk does not do what it must.
    #[error("{what}: {source}")]
    Disk {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nobody can tell whether a batch was counted; nothing of it was kept.
    #[error(transparent)]
    Sequence(#[from] DedupError),
    /// A row block cannot be read where it is held.
    #[error(transparent)]
    Block(#[from] crate::row_block::BlockError),
    /// Shared memory or the directory's lock.
    #[error(transparent)]
    Shm(#[from] gannet_shm::ShmError),
    /// The state of the leaf's life does not admit the request; come back.
    #[error("leaf {leaf} is {}", state.name())]
    NotServing {
        /// Which leaf.
        leaf: String,
        /// Its state.
        state: LeafState,
    },
    /// The leaf has no room for the rows, and nothing it may expire.
    #[error(
        "leaf {leaf} has no room for table {table}: {needed} bytes more than {used} in use exceed its limit of {limit}"
    )]
    Full {
        /// Which leaf.
        leaf: String,
        /// Which table.
        table: String,
        /// Bytes of the batch.
        needed: u64,
        /// Bytes in use.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// A batch is not what it must be; nothing of it was kept.
    #[error("batch for table {table}: {what}")]
    Batch {
        /// Which table.
        table: String,
        /// What is wrong with it.
        what: String,
    },
    /// The plan gives a column a type that no longer holds all its values: plan again.
    #[error("column {column} of table {table} is planned as {}, which no longer holds all its values", planned.name())]
    StalePlan {
        /// Which table.
        table: String,
        /// Which column.
        column: String,
        /// The plan's type.
        planned: ColumnType,
    },
    /// The plan cannot be run as it is: an unknown function, a division by zero.
    #[error("{0}")]
    Plan(String),
    /// The query needs more than it may have.
    #[error("{0}")]
    Limit(String),
    /// There is no room in shared memory; nothing was moved there.
    #[error("{needed} bytes do not go into shared memory, which has {available} free")]
    NoRoom {
        /// Bytes to move.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// A fault of ours.
    #[error("internal: {0}")]
    Internal(String),
}
