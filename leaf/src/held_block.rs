//! A row block as a table holds it: where its bytes are, and the file that stands in for them.
//!
//! A block's image lives in the heap, in a segment, or in a mapped file. Once it is stored it has a file as well, and
//! when a column of the image turns out to be damaged, that column is read from the file, alone.
//!
//! A block that was handed over is not even opened before somebody touches one of its columns: the manifest says how
//! many rows it has and of which times, and the hand-over which columns, so that a start does nothing for each block but
//! to note it. An image that then turns out to be another than was said is a damaged one.
//!
//! Invariants: a file is read whole and its checksum compared before anything of it is believed; a file that is mapped
//! is never written; what a block says of its rows, times and columns is the same before and after it is opened.

mod place;

use std::io;
use std::sync::{Arc, OnceLock};

use arrow::buffer::Buffer;
use gannet_query::{Span, TIME_COLUMN, TypeSet};
use xxhash_rust::xxh3::Xxh3;

use crate::column::Column;
use crate::disk::Disk;
use crate::manifest::BlockEntry;
use crate::planted::{Bug, planted};
use crate::row_block::{BlockError, ColumnMeta, RowBlock, directory_memory_bytes};
use crate::row_ranges::RowRanges;

pub(crate) use place::{FoundSegment, SegmentHome};

/// The directory of block files.
pub const DIRECTORY: &str = "blocks";
/// The directory of files that are not what they were.
pub const BAD_DIRECTORY: &str = "bad";
/// A file is read this much at a time when its checksum is compared: little enough to be still in the processor's cache
/// when it is.
const READ_BYTES: usize = 256 << 10;

/// Names and types of the columns of a block, in order of name.
pub type Columns = Arc<[(String, TypeSet)]>;

/// A row block and where it lives.
#[derive(Debug)]
pub struct HeldBlock {
    id: u64,
    rows: usize,
    time_range: (i64, i64),
    bytes: u64,
    directory_memory_bytes: u64,
    /// The numbers of the rows it was sealed from.
    pub numbers: RowRanges,
    /// Its place in a segment; `None` for the heap or a mapped file.
    pub home: Option<SegmentHome>,
    /// Its columns, as the hand-over noted them.
    noted: Option<Columns>,
    /// The block in its image, once that was needed.
    block: OnceLock<Result<RowBlock, BlockError>>,
    /// Its file, once it is stored.
    file: OnceLock<BlockFile>,
    /// The block in its file, once that was needed.
    stand_in: OnceLock<Result<RowBlock, String>>,
    /// Its rows by their own times, once that was needed.
    by_time: OnceLock<Vec<Span>>,
}

/// What is known of the columns of a block without opening it.
#[derive(Debug, Clone, Copy)]
pub enum KnownColumns<'a> {
    /// The hand-over noted them.
    Noted(&'a Columns),
    /// It is open.
    Open(&'a [ColumnMeta]),
}

/// The file of a block.
#[derive(Debug, Clone)]
pub struct BlockFile {
    disk: Arc<dyn Disk>,
    id: u64,
    bytes: u64,
    xxh3: u64,
}

/// Why a file is not the block that was stored.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It has other bytes.
    #[error("its checksum is {found:016x}, not {expected:016x}")]
    Checksum {
        /// Its checksum.
        found: u64,
        /// What was noted when it was stored.
        expected: u64,
    },
    /// It is no image of the block.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl KnownColumns<'_> {
    /// Calls `each` with the name and the types of each.
    pub fn each(&self, mut each: impl FnMut(&str, TypeSet)) {
        match self {
            KnownColumns::Noted(columns) => columns.iter().for_each(|(name, types)| each(name, *types)),
            KnownColumns::Open(columns) => {
                columns.iter().for_each(|column| each(&column.name, column.types));
            }
        }
    }

    /// Whether these are known at once to be the same as others.
    pub fn is_like(&self, others: KnownColumns<'_>) -> bool {
        match (self, others) {
            (KnownColumns::Noted(some), KnownColumns::Noted(others)) => Arc::ptr_eq(some, others),
            (KnownColumns::Open(some), KnownColumns::Open(others)) => {
                let same = |(a, b): (&ColumnMeta, &ColumnMeta)| a.types == b.types && a.name == b.name;
                some.len() == others.len() && some.iter().zip(others).all(same)
            }
            _ => false,
        }
    }
}

impl HeldBlock {
    /// A block that was sealed and has no file yet.
    pub fn sealed(block: RowBlock, numbers: RowRanges) -> HeldBlock {
        HeldBlock {
            id: block.id(),
            rows: block.rows(),
            time_range: block.time_range(),
            bytes: block.image().len() as u64,
            directory_memory_bytes: block.directory_memory_bytes(),
            numbers,
            home: None,
            noted: None,
            block: OnceLock::from(Ok(block)),
            file: OnceLock::new(),
            stand_in: OnceLock::new(),
            by_time: OnceLock::new(),
        }
    }

    /// A block that has a file.
    pub fn stored(block: RowBlock, entry: &BlockEntry, file: BlockFile) -> HeldBlock {
        let held = HeldBlock::sealed(block, entry.numbers.clone());
        held.set_file(file);
        held
    }

    /// A block that a start found in a segment, and nobody has opened yet.
    pub(crate) fn found(
        entry: &BlockEntry,
        home: SegmentHome,
        columns: Columns,
        file: BlockFile,
    ) -> HeldBlock {
        let names = columns.iter().map(|(name, _)| name.as_str());
        HeldBlock {
            id: entry.id,
            rows: usize::try_from(entry.rows).unwrap_or(usize::MAX),
            time_range: (entry.first, entry.last),
            bytes: entry.bytes,
            directory_memory_bytes: directory_memory_bytes(names),
            numbers: entry.numbers.clone(),
            home: Some(home),
            noted: Some(columns),
            block: OnceLock::new(),
            file: OnceLock::from(file),
            stand_in: OnceLock::new(),
            by_time: OnceLock::new(),
        }
    }

    /// A block that a start found in a segment of which nothing is noted but what the manifest says.
    ///
    /// # Errors
    /// As [`HeldBlock::block`].
    pub(crate) fn opened(
        entry: &BlockEntry,
        home: SegmentHome,
        file: BlockFile,
    ) -> Result<HeldBlock, BlockError> {
        let found = HeldBlock { noted: None, ..HeldBlock::found(entry, home, Columns::default(), file) };
        let block = found.open()?;
        let directory_memory_bytes = block.directory_memory_bytes();
        Ok(HeldBlock { directory_memory_bytes, block: OnceLock::from(Ok(block)), ..found })
    }

    /// The same block at another place.
    pub fn moved(&self, block: RowBlock, home: SegmentHome) -> HeldBlock {
        let held = HeldBlock { home: Some(home), ..HeldBlock::sealed(block, self.numbers.clone()) };
        if let Some(file) = self.file() {
            held.set_file(file.clone());
        }
        held
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its rows, at least one.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The times of its oldest and its newest row.
    pub fn time_range(&self) -> (i64, i64) {
        self.time_range
    }

    /// Whether somebody has touched it.
    pub fn is_open(&self) -> bool {
        self.block.get().is_some()
    }

    /// The block in its image. Opens it when it is called first.
    ///
    /// # Errors
    /// When the image cannot be had, or is not what was noted of it.
    pub fn block(&self) -> Result<&RowBlock, BlockError> {
        self.block.get_or_init(|| self.open()).as_ref().map_err(BlockError::clone)
    }

    fn open(&self) -> Result<RowBlock, BlockError> {
        let corrupt = |what| BlockError::Corrupt { block: self.id, what };
        let Some(home) = &self.home else { return Err(corrupt("is in no segment".to_owned())) };
        let region = home.region().map_err(corrupt)?;
        let image = Buffer::from(region.bytes().slice(..self.bytes as usize));
        let id = match planted(Bug::BlockIdNotChecked) {
            true => image.get(16..24).and_then(|id| id.try_into().ok()).map_or(0, u64::from_le_bytes),
            false => self.id,
        };
        self.check(RowBlock::open(image, id)?)
    }

    /// What was planned with must be true of whatever is read.
    fn check(&self, block: RowBlock) -> Result<RowBlock, BlockError> {
        let corrupt = |what: &str| Err(BlockError::Corrupt { block: self.id, what: what.to_owned() });
        if block.rows() != self.rows || block.time_range() != self.time_range {
            return corrupt("it is not the block the manifest speaks of");
        }
        let same = |(noted, found): (&(String, TypeSet), &ColumnMeta)| {
            noted.0 == found.name && noted.1 == found.types
        };
        let is_as_noted = |noted: &Columns| {
            noted.len() == block.columns().len() && noted.iter().zip(block.columns()).all(same)
        };
        match self.noted.as_ref().is_none_or(is_as_noted) {
            true => Ok(block),
            false => corrupt("it has other columns than the hand-over noted"),
        }
    }

    /// The block in its image, or else in its file: as many rows of the same times and columns as it said before.
    ///
    /// # Errors
    /// As [`HeldBlock::block`], when the file is no better.
    pub fn readable(&self) -> Result<&RowBlock, BlockError> {
        self.block().or_else(|error| self.stand_in(&error).ok_or(error))
    }

    /// The block in its file, because of this error in memory. Opens it when it is called first.
    fn stand_in(&self, error: &BlockError) -> Option<&RowBlock> {
        let file = self.file.get()?;
        let stand_in = self.stand_in.get_or_init(|| {
            let opened = file.open().and_then(|block| Ok(self.check(block)?));
            let opened = opened.map_err(|error| error.to_string());
            tracing::warn!(block = self.id, %error, file = opened.is_ok(), "a block in memory is damaged");
            opened
        });
        stand_in.as_ref().ok()
    }

    /// The place of a column among the columns, and the types of its values; it is looked for in one place first.
    pub fn find(&self, name: &str, near: usize) -> Option<(usize, TypeSet)> {
        let Some(noted) = &self.noted else {
            return self.readable().ok()?.find(name, near).map(|(place, column)| (place, column.types));
        };
        let place = match noted.get(near) {
            Some((known, _)) if known == name => near,
            _ => noted.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok()?,
        };
        Some((place, noted[place].1))
    }

    /// Its columns, without opening it.
    pub fn known_columns(&self) -> KnownColumns<'_> {
        match &self.noted {
            Some(columns) => KnownColumns::Noted(columns),
            None => KnownColumns::Open(self.columns()),
        }
    }

    /// Names and types of its columns, for the next start.
    pub fn noted_columns(&self) -> Columns {
        match self.known_columns() {
            KnownColumns::Noted(columns) => Arc::clone(columns),
            KnownColumns::Open(columns) => {
                columns.iter().map(|column| (column.name.clone(), column.types)).collect()
            }
        }
    }

    /// Its columns in order of name; none when it cannot be read. Opens it.
    pub fn columns(&self) -> &[ColumnMeta] {
        self.readable().map(RowBlock::columns).unwrap_or_default()
    }

    /// False when a string column certainly has no row with this value, or one that begins with it.
    pub fn may_hold_text(&self, name: &str, value: &str, is_prefix: bool) -> bool {
        self.readable().is_ok_and(|block| block.may_hold_text(name, value, is_prefix))
    }

    /// Its memory goes back to the system once nobody reads it any more.
    pub fn expire(&self) {
        if let Some(home) = &self.home {
            home.expire();
        }
    }

    /// Notes that it is stored.
    pub fn set_file(&self, file: BlockFile) {
        // A block is stored once; a second file of it would be the same.
        let _ = self.file.set(file);
    }

    /// Its file, if it is stored.
    pub fn file(&self) -> Option<&BlockFile> {
        self.file.get()
    }

    /// Bytes of its image.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes it takes in memory: its image, and what is kept of its directory beside it, or will be.
    pub fn memory_bytes(&self) -> u64 {
        self.bytes + self.directory_memory_bytes
    }

    /// Its rows by their own times, if that was counted.
    pub fn known_by_time(&self) -> Option<&[Span]> {
        self.by_time.get().map(Vec::as_slice)
    }

    /// Its rows by their own times. Counts them when it is called first.
    pub fn by_time(&self) -> &[Span] {
        self.by_time.get_or_init(|| {
            let (first, last) = self.time_range;
            let rows = self.rows;
            match self.column(TIME_COLUMN) {
                Ok(Some(column)) => crate::table::rows_by_time(&column, rows),
                _ => vec![Span::of(first, last, rows as u64)],
            }
        })
    }

    /// One column, from the image or else from the file.
    ///
    /// # Errors
    /// When both are damaged; it tells of the image.
    pub fn column(&self, name: &str) -> Result<Option<Column>, BlockError> {
        let error = match self.block().and_then(|block| block.column(name)) {
            Ok(column) => return Ok(column),
            Err(error) => error,
        };
        match self.stand_in(&error) {
            Some(block) => block.column(name),
            None => Err(error),
        }
    }

    /// The rows of a column at some ascending positions, from the image or else from the file.
    ///
    /// # Errors
    /// As [`HeldBlock::column`].
    pub fn column_at(&self, name: &str, rows: &[u32]) -> Result<Option<Column>, BlockError> {
        match self.block().and_then(|block| block.column_at(name, rows)) {
            Ok(column) => Ok(column),
            Err(_) => Ok(self.column(name)?.map(|column| column.pick(rows))),
        }
    }

    /// Its entry in the manifest, if it is stored.
    pub fn entry(&self) -> Option<BlockEntry> {
        Some(self.entry_with(self.file.get()?))
    }

    /// Its entry in the manifest with this file.
    pub fn entry_with(&self, file: &BlockFile) -> BlockEntry {
        let (first, last) = self.time_range;
        BlockEntry {
            id: self.id,
            numbers: self.numbers.clone(),
            rows: self.rows as u64,
            first,
            last,
            bytes: file.bytes,
            xxh3: file.xxh3,
            home: self.home.as_ref().map(|place| place.home().clone()),
        }
    }
}

/// The name of a block's file.
pub fn file_name(id: u64) -> String {
    format!("{id:016x}.block")
}

/// The id of the block whose file has this name.
pub fn id_of_file(name: &str) -> Option<u64> {
    let id = u64::from_str_radix(name.strip_suffix(".block")?, 16).ok()?;
    (file_name(id) == name).then_some(id)
}

impl BlockFile {
    /// The file of a block that was stored.
    pub fn of(disk: &Arc<dyn Disk>, entry: &BlockEntry) -> BlockFile {
        BlockFile { disk: Arc::clone(disk), id: entry.id, bytes: entry.bytes, xxh3: entry.xxh3 }
    }

    /// Writes images, so that all of them survive a power cut when this returns. Whatever fails leaves files that
    /// nobody names.
    ///
    /// # Errors
    /// When the system refuses any step.
    pub fn write_all(disk: &Arc<dyn Disk>, blocks: &[&RowBlock]) -> io::Result<Vec<BlockFile>> {
        let mut files = Vec::with_capacity(blocks.len());
        for block in blocks {
            let image = block.image().as_slice();
            let path = format!("{DIRECTORY}/{}", file_name(block.id()));
            let new = format!("{path}.new");
            let mut file = disk.create(&new)?;
            file.append(&[image])?;
            file.sync()?;
            drop(file);
            disk.rename(&new, &path)?;
            files.push(BlockFile {
                disk: Arc::clone(disk),
                id: block.id(),
                bytes: image.len() as u64,
                xxh3: xxhash_rust::xxh3::xxh3_64(image),
            });
        }
        disk.sync_directory(DIRECTORY)?;
        Ok(files)
    }

    fn path(&self) -> String {
        format!("{DIRECTORY}/{}", file_name(self.id))
    }

    /// Reads the file, compares its checksum, and maps it.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was stored.
    pub fn open(&self) -> Result<RowBlock, FileError> {
        self.open_through(&mut Vec::new())
    }

    /// The same for somebody who opens many, and keeps what they are read through.
    ///
    /// # Errors
    /// As [`BlockFile::open`].
    pub fn open_through(&self, piece: &mut Vec<u8>) -> Result<RowBlock, FileError> {
        let path = self.path();
        let file = self.disk.open(&path)?;
        let mut hasher = Xxh3::new();
        // Reading first turns a sector that cannot be read into an error; touching a map of it would be a signal.
        piece.resize(READ_BYTES, 0);
        let mut at = 0;
        loop {
            let read = file.read_at(at, piece)?;
            if read == 0 {
                break;
            }
            hasher.update(&piece[..read]);
            at += read as u64;
        }
        let found = hasher.digest();
        if found != self.xxh3 {
            return Err(FileError::Checksum { found, expected: self.xxh3 });
        }
        let image = self.disk.map(&path, self.bytes)?;
        Ok(RowBlock::open_verified(Buffer::from(image), self.id)?)
    }

    /// Removes the file.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self) -> io::Result<()> {
        self.disk.remove(&self.path())
    }

    /// Moves the file away, for somebody to look at.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn set_aside(&self) -> io::Result<()> {
        self.disk.create_directory(BAD_DIRECTORY)?;
        self.disk.rename(&self.path(), &format!("{BAD_DIRECTORY}/{}", file_name(self.id)))
    }
}
