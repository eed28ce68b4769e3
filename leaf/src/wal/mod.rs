//! The write-ahead log of a leaf: what was acknowledged and is not yet in a row block on disk.
//!
//! A record is submitted, which gives it its place in the order, and committed, which blocks until it is as durable
//! as the log promises: over a power cut ([`Durability::Power`]) or over the end of the process
//! ([`Durability::Process`]). Who commits first while nobody writes becomes the leader, takes everything that was
//! submitted, writes it with one call, syncs it once and wakes the others; a thread that is alone never waits.
//! Numbers (LSN, from 1) are given when a group is written, so a group that fails leaves no gap.
//!
//! After a failed sync nothing is known of a file any more: it is never written or synced again, and everything that
//! is not known to be durable is written once more, from memory, to a new file. A group that could not be appended
//! is withdrawn: the file is cut back and closed. Whatever stays behind in it does not count, because a file ends, at
//! its own first LSN, everything in files made before it.
//!
//! It never looks into bodies, never copies them, and knows neither tables nor blocks: who owns the rows says up to
//! which LSN the log may be truncated. Invariants: nothing is acknowledged before it, its file and its file's name
//! are as durable as the level says; what a reader accepts has no gaps that it does not report; a file is made under
//! a name that no file had before; at most one thread writes.
//!
//! Lock order: `syncing`, `writer`; `queue` alone. Start reading at [`record`], where the bytes are described.

mod read;
pub mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex, MutexGuard};
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

pub use read::{Lost, Place, TornTail, WalContents, read};
pub(crate) use record::ROW_NUMBERS_MAX;
use record::ROWS_MAX;
pub use record::{Kind, Record, RecordHeader, RowsHeader, RowsRecord};

use crate::disk::Disk;
use writer::Writer;

/// Where the files are, below the data directory.
pub const DIRECTORY: &str = "wal";

/// What an acknowledged record survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A power cut.
    Power,
    /// The end of the process, however sudden. A power cut loses what was not synced since.
    Process,
}

impl Durability {
    /// The word users read.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Power => "power",
            Durability::Process => "process",
        }
    }
}

/// The settings of a log.
#[derive(Debug, Clone)]
pub struct WalSettings {
    /// What an acknowledgement means.
    pub level: Durability,
    /// A file that has so many bytes gets no more records.
    pub file_bytes_max: u64,
    /// Bytes of a record's body.
    pub record_bytes_max: u64,
}

/// A file of the log, as it is told to who decides what is still needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFile {
    /// The first LSN it can have.
    pub first_lsn: u64,
    /// The last that counts; one less than the first when there is none.
    pub last_lsn: u64,
    /// Its length.
    pub bytes: u64,
    /// For each table the span `[from, to)` around the numbers of all its rows in the file.
    pub tables: BTreeMap<String, (u64, u64)>,
}

impl WalFile {
    /// Counts a record in.
    fn note(&mut self, lsn: u64, kind: &Kind) {
        self.last_lsn = lsn;
        if let Kind::Rows(rows) = kind {
            self.note_rows(rows);
        }
    }

    fn note_rows(&mut self, rows: &RowsHeader) {
        let (from, to) = (rows.first_row, rows.first_row.saturating_add(rows.rows));
        match self.tables.get_mut(&*rows.table) {
            Some(span) => *span = (span.0.min(from), span.1.max(to)),
            None => {
                self.tables.insert(rows.table.to_string(), (from, to));
            }
        }
    }
}

/// What can go wrong with the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// A group could not be written; it was withdrawn.
    #[error("append to {file}: {source}")]
    Append {
        /// Which file.
        file: String,
        /// Nothing of the group is left, whatever happens next.
        gone: bool,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// A sync failed, and so did writing everything to a new file.
    #[error("sync of {file} failed, and a new file did not help: {source}")]
    Sync {
        /// Which file.
        file: String,
        /// What the system says of the new file.
        source: Arc<io::Error>,
    },
    /// A file or the directory cannot be opened, read, synced or removed.
    #[error("{step} {file}: {source}")]
    File {
        /// What was tried.
        step: &'static str,
        /// Which file.
        file: String,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// A record is larger than the log takes.
    #[error("a record of {bytes} bytes exceeds record_bytes_max of {limit}")]
    TooLarge {
        /// Bytes of its body.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The name of a table or a producer, or a key, is longer than a header can tell.
    #[error("a name of {bytes} bytes in a record exceeds {}", u16::MAX)]
    NameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A table has had as many rows as there are numbers, or these are too many for one record.
    #[error(
        "{rows} rows from number {first_row} on exceed {ROWS_MAX} in a record or {ROW_NUMBERS_MAX} in a table"
    )]
    RowNumbers {
        /// The first of them.
        first_row: u64,
        /// How many.
        rows: u64,
    },
    /// The record was in no group of this log, or its group was given up half-way.
    #[error("the record was given up before it was written")]
    Abandoned,
    /// A file is of a version that this build does not read.
    #[error("log file {file} has version {found}, this build reads {supported}")]
    Version {
        /// Which file.
        file: String,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// A file is another leaf's.
    #[error("log file {file} belongs to instance {found}, this leaf is {expected}")]
    Instance {
        /// Which file.
        file: String,
        /// Whose it is.
        found: Uuid,
        /// Who we are.
        expected: Uuid,
    },
    /// A file has a name that no build before this one gave.
    #[error("log file {file} has a name that this build does not know")]
    Name {
        /// Which file.
        file: String,
    },
    /// A record is not what it was when the log was read.
    #[error("record {lsn} in {file} is not what it was when the log was read")]
    Changed {
        /// Which file.
        file: String,
        /// Which record.
        lsn: u64,
    },
}

impl WalError {
    fn file(step: &'static str, file: &str, source: io::Error) -> WalError {
        WalError::File { step, file: file.to_owned(), source: Arc::new(source) }
    }

    /// The record was not acknowledged, and may all the same be found after a crash: its outcome is unknown.
    pub fn may_survive(&self) -> bool {
        match self {
            WalError::Append { gone, .. } => !gone,
            WalError::Sync { .. } | WalError::Abandoned => true,
            _ => false,
        }
    }

    /// The disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            WalError::Append { source, .. }
            | WalError::Sync { source, .. }
            | WalError::File { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
                )
            }
            _ => false,
        }
    }
}

/// A record that was submitted.
#[derive(Debug)]
pub struct Ticket(Arc<Entry>);

/// A record on its way.
#[derive(Debug)]
struct Entry {
    record: Record,
    body_xxh3: OnceLock<u64>,
    outcome: OnceLock<Result<u64, WalError>>,
}

impl Entry {
    fn new(record: Record) -> Entry {
        Entry { record, body_xxh3: OnceLock::new(), outcome: OnceLock::new() }
    }

    /// The checksum of the body, computed once, by whoever comes first.
    fn body_xxh3(&self) -> u64 {
        *self.body_xxh3.get_or_init(|| xxh3_64(self.record.body()))
    }

    fn finish(&self, outcome: Result<u64, WalError>) {
        // Only the leader of its group tells an entry its outcome, and a second one would be a give-up after the fact.
        let _ = self.outcome.set(outcome);
    }
}

/// The records that wait for a leader, in the order they were submitted.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Arc<Entry>>,
    leading: bool,
}

/// The write-ahead log. See the module.
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    settings: WalSettings,
    queue: Mutex<Queue>,
    turn: Condvar,
    /// Held by who syncs or truncates in the background.
    syncing: Mutex<()>,
    writer: Mutex<Writer>,
    seen: Seen,
}

/// What is told without waiting for who writes.
#[derive(Debug, Default)]
struct Seen {
    durable_lsn: AtomicU64,
    written_lsn: AtomicU64,
    bytes: AtomicU64,
    unsynced_bytes: AtomicU64,
    sync_failures: AtomicU64,
}

impl Wal {
    /// Opens the log behind what was read from it. Everything that was found is durable afterwards, so that nothing
    /// later can be acknowledged on top of something that a power cut still takes away.
    ///
    /// # Errors
    /// When the directory cannot be made or synced, or what was found can neither be synced nor written again.
    pub fn open(disk: Arc<dyn Disk>, settings: WalSettings, contents: &WalContents) -> Result<Wal, WalError> {
        let writer = Writer::open(disk.clone(), settings.clone(), contents)?;
        let wal = Wal {
            disk,
            settings,
            queue: Mutex::default(),
            turn: Condvar::new(),
            syncing: Mutex::new(()),
            writer: Mutex::new(writer),
            seen: Seen::default(),
        };
        wal.publish(&wal.writer.lock());
        Ok(wal)
    }

    /// Makes the first file of a log that has none, so that a log whose files are gone can be told from one in which
    /// nothing was ever written.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn begin(&self) -> Result<(), WalError> {
        let mut writer = self.writer.lock();
        let begun = writer.begin();
        self.publish(&writer);
        begun
    }

    /// Gives a record its place in the order. It is written when this or any later record is committed.
    pub fn submit(&self, record: Record) -> Ticket {
        let entry = Arc::new(Entry::new(record));
        match self.refuse(&entry.record) {
            Some(error) => entry.finish(Err(error)),
            None => self.queue.lock().waiting.push(entry.clone()),
        }
        Ticket(entry)
    }

    /// Why a record cannot be written at all.
    fn refuse(&self, record: &Record) -> Option<WalError> {
        let (bytes, limit) = (record.body().len() as u64, self.settings.record_bytes_max);
        if bytes > limit {
            return Some(WalError::TooLarge { bytes, limit });
        }
        let bytes = record.name_bytes_max();
        if bytes > usize::from(u16::MAX) {
            return Some(WalError::NameTooLong { bytes });
        }
        match record {
            Record::Rows(RowsRecord { header: RowsHeader { first_row, rows, .. }, .. })
                if !record::are_numbers(*first_row, *rows) =>
            {
                Some(WalError::RowNumbers { first_row: *first_row, rows: *rows })
            }
            _ => None,
        }
    }

    /// Blocks until a record is durable at the level of the log, and returns its LSN.
    ///
    /// # Errors
    /// When it could not be made so; see [`WalError::may_survive`] for what that means.
    pub fn commit(&self, ticket: &Ticket) -> Result<u64, WalError> {
        let entry = &*ticket.0;
        // Each thread looks at its own body, before anybody waits for it.
        entry.body_xxh3();
        let mut queue = self.queue.lock();
        loop {
            if let Some(outcome) = entry.outcome.get() {
                return outcome.clone();
            }
            if !queue.leading {
                break;
            }
            self.turn.wait(&mut queue);
        }
        queue.leading = true;
        let group = std::mem::take(&mut queue.waiting);
        drop(queue);
        let group = Group { wal: self, entries: group };
        group.write();
        drop(group);
        entry.outcome.get().cloned().unwrap_or(Err(WalError::Abandoned))
    }

    /// Makes everything durable that was written, for the background at level process. Others commit meanwhile.
    /// Returns the LSN up to which everything is durable.
    ///
    /// # Errors
    /// When a sync failed and writing everything to a new file did, too. The next call tries again.
    pub fn sync(&self) -> Result<u64, WalError> {
        let _turn = self.syncing.lock();
        let mut writer = self.writer.lock();
        if let Some(plan) = writer.plan_sync() {
            let outcome = MutexGuard::unlocked(&mut writer, || plan.run(&*self.disk));
            writer.finish_sync(&plan, outcome);
        }
        let outcome = writer.mend();
        self.publish(&writer);
        outcome.map(|()| writer.durable_lsn())
    }

    /// Begins a new file, so that all others can be removed: a leaf that stops leaves nothing for its next start to read.
    ///
    /// # Errors
    /// When the new file cannot be made; the log is then as it was.
    pub fn rotate(&self) -> Result<(), WalError> {
        let _turn = self.syncing.lock();
        let mut writer = self.writer.lock();
        let outcome = writer.rotate();
        self.publish(&writer);
        outcome
    }

    /// Removes the oldest files as long as all their records are below an LSN; never the newest file. Returns how many.
    ///
    /// # Errors
    /// When a file cannot be removed, or not for good; all newer ones are still there.
    pub fn truncate(&self, below_lsn: u64) -> Result<u64, WalError> {
        let _turn = self.syncing.lock();
        let mut removed = 0;
        let mut writer = self.writer.lock();
        while let Some(file) = writer.take_oldest(below_lsn) {
            let path = file.path();
            if let Err(error) = MutexGuard::unlocked(&mut writer, || self.disk.remove(&path)) {
                writer.put_back(file);
                return Err(WalError::file("remove", &path, error));
            }
            writer.forget(&file);
            removed += 1;
            self.publish(&writer);
            // One after the other, so that a power cut never takes a file away and brings an older one back: a
            // reader would miss what was between them.
            MutexGuard::unlocked(&mut writer, || writer::sync_directory(&*self.disk))
                .map_err(|error| WalError::file("sync", DIRECTORY, error))?;
        }
        Ok(removed)
    }

    /// Everything up to this survives a power cut.
    pub fn durable_lsn(&self) -> u64 {
        self.seen.durable_lsn.load(Ordering::Acquire)
    }

    /// The last LSN that was given.
    pub fn written_lsn(&self) -> u64 {
        self.seen.written_lsn.load(Ordering::Acquire)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that are kept in memory until they are synced.
    pub fn unsynced_bytes(&self) -> u64 {
        self.seen.unsynced_bytes.load(Ordering::Relaxed)
    }

    /// How many syncs failed since the start.
    pub fn sync_failures(&self) -> u64 {
        self.seen.sync_failures.load(Ordering::Relaxed)
    }

    /// The files, oldest first.
    pub fn files(&self) -> Vec<WalFile> {
        self.writer.lock().files()
    }

    /// What acknowledged means.
    pub fn level(&self) -> Durability {
        self.settings.level
    }

    fn publish(&self, writer: &Writer) {
        self.seen.durable_lsn.store(writer.durable_lsn(), Ordering::Release);
        self.seen.written_lsn.store(writer.written_lsn(), Ordering::Release);
        self.seen.bytes.store(writer.bytes(), Ordering::Relaxed);
        self.seen.unsynced_bytes.store(writer.unsynced_bytes(), Ordering::Relaxed);
        self.seen.sync_failures.store(writer.sync_failures(), Ordering::Relaxed);
    }
}

/// A group in the hands of its leader. Dropping it hands the lead on, also when the leader panics.
struct Group<'a> {
    wal: &'a Wal,
    entries: Vec<Arc<Entry>>,
}

impl Group<'_> {
    fn write(&self) {
        if self.entries.is_empty() {
            return;
        }
        let mut writer = self.wal.writer.lock();
        let outcome = writer.write(&self.entries);
        self.wal.publish(&writer);
        for (index, entry) in self.entries.iter().enumerate() {
            entry.finish(outcome.clone().map(|first| first + index as u64));
        }
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        for entry in &self.entries {
            if entry.outcome.get().is_none() {
                entry.finish(Err(WalError::Abandoned));
            }
        }
        self.wal.queue.lock().leading = false;
        self.wal.turn.notify_all();
    }
}
