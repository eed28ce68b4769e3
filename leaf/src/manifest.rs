//! What a leaf knows of itself on disk: `leaf.json` in its data directory, and the edits since it was written.
//!
//! The manifest is the authority on which rows exist, where they are, which generation of shared memory may be
//! attached, and which batches were counted. It is a checkpoint: between two of them every change is an [`Edit`] in
//! the write-ahead log, and the state of a leaf is the manifest with the edits behind its [`Manifest::checkpoint_lsn`]
//! applied in order.
//!
//! The file is two lines of JSON: `{"format":2,"layout":2,"bytes":N,"xxh3":"…"}` with length and xxh3-64 of the second
//! line, then the manifest. `layout` is the newest layout of row blocks that whoever wrote it may add; a build that does
//! not know it refuses the directory before it writes anything. It is replaced atomically: write, sync, rename, sync the directory. Format 1 was the manifest alone,
//! without blocks, and is read as a leaf whose rows are in shared memory of another layout: they count as lost.
//!
//! Invariants: a block's rows are in `done` of its table; no row number is in two blocks; an edit can be applied twice
//! and changes nothing the second time; bytes that are not a manifest are an error that says why, and nothing is
//! written then.

mod check;
mod file;

use gannet_query::Span;
use gannet_query::holdings::fold_spans;
use serde::{Deserialize, Serialize};

use crate::dedup::Dedup;
use crate::row_ranges::RowRanges;

pub use file::{FILE, FORMAT, ManifestError, load, store};

/// The manifest. See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The leaf's id; a directory belongs to one leaf for ever.
    pub id: String,
    /// Names this leaf's segments and its log; drawn once.
    pub instance: uuid::Uuid,
    /// Grows with each start.
    pub epoch: u64,
    /// Grows with each hand-over; the catalogue in shared memory must have the same.
    pub generation: u64,
    /// The last stop handed everything over.
    pub clean: bool,
    /// Everything up to this number of the log is in here, but for rows that are not done.
    pub checkpoint_lsn: u64,
    /// No block has this number or a greater one.
    pub next_block_id: u64,
    /// How long the leaf has run in all its lives.
    pub running_seconds: u64,
    /// What time it was for the age of rows, nanoseconds UTC; none before it was first asked.
    pub ran_until_ns: Option<i64>,
    /// Records of the log of which nothing but their number is left: nobody knows what rows were in them.
    #[serde(default)]
    pub unknown_records: u64,
    /// What each table holds.
    pub tables: Vec<TableManifest>,
    /// Batches that were counted.
    pub dedup: Dedup,
}

/// One table of the manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableManifest {
    /// Its name.
    pub name: String,
    /// The number of the next row that comes.
    pub next_row: u64,
    /// Rows that the log need not bring back: they are in blocks, or have left.
    pub done: RowRanges,
    /// Numbers that were given to batches that were then not accepted: if the log holds one, it does not count.
    #[serde(default, skip_serializing_if = "RowRanges::is_empty")]
    pub withdrawn: RowRanges,
    /// Rows that were lost, as `[first, last, rows]` by time.
    pub lost: Vec<(i64, i64, u64)>,
    /// Its blocks, in the order they were sealed.
    pub blocks: Vec<BlockEntry>,
}

/// A row block that has a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockEntry {
    /// Its id, which names its file.
    pub id: u64,
    /// The numbers of the rows it was sealed from.
    pub numbers: RowRanges,
    /// Its rows; fewer than numbers when it was subsampled.
    pub rows: u64,
    /// The time of its oldest row.
    pub first: i64,
    /// The time of its newest row.
    pub last: i64,
    /// Bytes of its image.
    pub bytes: u64,
    /// The xxh3-64 of its image.
    pub xxh3: u64,
    /// Its place in shared memory, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<Home>,
}

/// A place in shared memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Home {
    /// The segment's name.
    pub segment: String,
    /// The segment's size.
    pub segment_bytes: u64,
    /// Where in it the image begins.
    pub offset: u64,
}

/// A change of the state since the manifest was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "snake_case", deny_unknown_fields)]
pub enum Edit {
    /// A block has its file, and takes the place of those named.
    BlockAdded {
        /// Of which table.
        table: String,
        /// The block.
        block: BlockEntry,
        /// Blocks that it replaces.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        replaces: Vec<u64>,
    },
    /// Blocks are given up: retention, or they cannot be read.
    BlocksRemoved {
        /// Of which table.
        table: String,
        /// Which.
        ids: Vec<u64>,
    },
    /// A batch was not accepted, though the log may hold it.
    RowsWithdrawn {
        /// Of which table.
        table: String,
        /// Their numbers.
        rows: RowRanges,
    },
    /// Rows that the log may hold have left, or cannot be brought back.
    RowsDone {
        /// Of which table.
        table: String,
        /// Their numbers.
        rows: RowRanges,
    },
    /// A person has accepted that nobody knows what was in records of the log.
    UnknownAccepted,
    /// Rows are lost.
    RowsLost {
        /// Of which table.
        table: String,
        /// All that is lost of it now.
        lost: Vec<(i64, i64, u64)>,
    },
}

/// Spans as the manifest writes them.
pub fn spans_out(spans: &[Span]) -> Vec<(i64, i64, u64)> {
    spans.iter().map(|span| (span.first, span.last, span.rows)).collect()
}

/// Spans as the manifest wrote them.
pub fn spans_in(spans: &[(i64, i64, u64)]) -> Vec<Span> {
    fold_spans(
        spans.iter().map(|(first, last, rows)| Span { first: *first, last: *last, rows: *rows }).collect(),
    )
}

impl Manifest {
    /// The manifest of a leaf that never ran.
    pub fn new(id: &str, instance: uuid::Uuid) -> Manifest {
        Manifest {
            id: id.to_owned(),
            instance,
            epoch: 0,
            generation: 0,
            clean: false,
            checkpoint_lsn: 0,
            next_block_id: 1,
            running_seconds: 0,
            ran_until_ns: None,
            unknown_records: 0,
            tables: Vec::new(),
            dedup: Dedup::default(),
        }
    }

    /// A table, which is made when it is not there.
    pub fn table(&mut self, name: &str) -> &mut TableManifest {
        let place = match self.tables.binary_search_by(|table| table.name.as_str().cmp(name)) {
            Ok(place) => place,
            Err(place) => {
                let table = TableManifest { name: name.to_owned(), ..TableManifest::default() };
                self.tables.insert(place, table);
                place
            }
        };
        &mut self.tables[place]
    }

    /// Applies a change.
    pub fn apply(&mut self, edit: Edit) {
        match edit {
            Edit::BlockAdded { table, block, replaces } => {
                self.next_block_id = self.next_block_id.max(block.id.saturating_add(1));
                let table = self.table(&table);
                table.next_row = table.next_row.max(block.numbers.end());
                table.done.union(&block.numbers);
                table.blocks.retain(|held| held.id != block.id && !replaces.contains(&held.id));
                table.blocks.push(block);
            }
            Edit::BlocksRemoved { table, ids } => {
                self.table(&table).blocks.retain(|held| !ids.contains(&held.id));
            }
            Edit::RowsWithdrawn { table, rows } => {
                self.table(&table).withdrawn.union(&rows);
                self.apply(Edit::RowsDone { table, rows });
            }
            Edit::RowsDone { table, rows } => {
                let table = self.table(&table);
                table.next_row = table.next_row.max(rows.end());
                table.done.union(&rows);
            }
            Edit::UnknownAccepted => self.unknown_records = 0,
            Edit::RowsLost { table, lost } => self.table(&table).lost = lost,
        }
    }

    /// Bytes of all blocks.
    pub fn block_bytes(&self) -> u64 {
        self.tables.iter().flat_map(|table| &table.blocks).map(|block| block.bytes).sum()
    }
}

#[cfg(test)]
mod tests;
