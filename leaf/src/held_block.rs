//! A row block as a table holds it: where its bytes are, and the file that stands in for them.
//!
//! A block's image lives in the heap, in a segment, or in a mapped file. Once it is stored it has a file as well, and
//! when a column of the image turns out to be damaged, that column is read from the file, alone.
//!
//! Invariants: a file is read whole and its checksum compared before anything of it is believed; a file that is mapped
//! is never written.

use std::io;
use std::sync::{Arc, OnceLock};

use arrow::buffer::Buffer;
use gannet_query::{Span, TIME_COLUMN};
use gannet_shm::Region;
use xxhash_rust::xxh3::Xxh3;

use crate::column::Column;
use crate::disk::Disk;
use crate::manifest::{BlockEntry, Home};
use crate::row_block::{BlockError, RowBlock};
use crate::row_ranges::RowRanges;

/// The directory of block files.
pub const DIRECTORY: &str = "blocks";
/// The directory of files that are not what they were.
pub const BAD_DIRECTORY: &str = "bad";
/// A file is read this much at a time when its checksum is compared.
const READ_BYTES: usize = 1 << 20;

/// A row block and where it lives.
#[derive(Debug)]
pub struct HeldBlock {
    /// The block.
    pub block: RowBlock,
    /// The numbers of the rows it was sealed from.
    pub numbers: RowRanges,
    /// Its place in a segment; `None` for the heap or a mapped file.
    pub home: Option<SegmentHome>,
    /// Its file, once it is stored.
    file: OnceLock<BlockFile>,
    /// The block in its file, once that was needed.
    stand_in: OnceLock<Result<RowBlock, String>>,
    /// Its rows by their own times, once that was needed.
    by_time: OnceLock<Vec<Span>>,
}

/// The place of a block in shared memory.
#[derive(Debug)]
pub struct SegmentHome {
    /// The region, which gives its memory back once it has expired and nobody reads it.
    pub region: Region,
    /// Where that is.
    pub home: Home,
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

impl HeldBlock {
    /// A block that was sealed and has no file yet.
    pub fn sealed(block: RowBlock, numbers: RowRanges) -> HeldBlock {
        let (file, stand_in, by_time) = Default::default();
        HeldBlock { block, numbers, home: None, file, stand_in, by_time }
    }

    /// A block that has a file.
    pub fn stored(
        block: RowBlock,
        entry: &BlockEntry,
        home: Option<SegmentHome>,
        file: BlockFile,
    ) -> HeldBlock {
        let held = HeldBlock { home, ..HeldBlock::sealed(block, entry.numbers.clone()) };
        held.set_file(file);
        held
    }

    /// The same block at another place.
    pub fn moved(&self, block: RowBlock, home: SegmentHome) -> HeldBlock {
        let held = HeldBlock { home: Some(home), ..HeldBlock::sealed(block, self.numbers.clone()) };
        if let Some(file) = self.file() {
            held.set_file(file.clone());
        }
        held
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
        self.block.image().len() as u64
    }

    /// Bytes it takes in memory: its image, and what is kept of its directory beside it.
    pub fn memory_bytes(&self) -> u64 {
        self.bytes() + self.block.directory_memory_bytes()
    }

    /// Its rows by their own times, if that was counted.
    pub fn known_by_time(&self) -> Option<&[Span]> {
        self.by_time.get().map(Vec::as_slice)
    }

    /// Its rows by their own times. Counts them when it is called first.
    pub fn by_time(&self) -> &[Span] {
        self.by_time.get_or_init(|| {
            let (first, last) = self.block.time_range();
            let rows = self.block.rows();
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
        let error = match self.block.column(name) {
            Ok(column) => return Ok(column),
            Err(error) => error,
        };
        let Some(file) = self.file.get() else { return Err(error) };
        let stand_in = self.stand_in.get_or_init(|| {
            let opened = file.open().map_err(|error| error.to_string());
            tracing::warn!(block = self.block.id(), %error, file = opened.is_ok(), "a block in memory is damaged");
            opened
        });
        match stand_in {
            Ok(block) => block.column(name),
            Err(_) => Err(error),
        }
    }

    /// The rows of a column at some ascending positions, from the image or else from the file.
    ///
    /// # Errors
    /// As [`HeldBlock::column`].
    pub fn column_at(&self, name: &str, rows: &[u32]) -> Result<Option<Column>, BlockError> {
        match self.block.column_at(name, rows) {
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
        let (first, last) = self.block.time_range();
        BlockEntry {
            id: self.block.id(),
            numbers: self.numbers.clone(),
            rows: self.block.rows() as u64,
            first,
            last,
            bytes: file.bytes,
            xxh3: file.xxh3,
            home: self.home.as_ref().map(|place| place.home.clone()),
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
        let path = self.path();
        let file = self.disk.open(&path)?;
        let mut hasher = Xxh3::new();
        // Reading first turns a sector that cannot be read into an error; touching a map of it would be a signal.
        let mut piece = vec![0; READ_BYTES];
        let mut at = 0;
        loop {
            let read = file.read_at(at, &mut piece)?;
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
