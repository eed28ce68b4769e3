//! Starting: what a leaf held before is found again, in shared memory or on disk.
//!
//! In this order: lock the directory; read the manifest; read the log and apply its edits; find each block; answer
//! queries; note the start in the manifest, which may wait for a busy disk; take rows and bring back the rest. After a
//! clean stop the catalogue in shared memory is taken, whose gates compare it with the manifest and whose valid mark is
//! cleared before anything else of it is read; then blocks are served from the segments where they are, each opened when
//! it is first touched. After any other
//! end there is no catalogue to be trusted, but segments are read-only once they are written, so each block is taken
//! over from its segment by itself, if the segment is ours and as large as the manifest says and the block in it is
//! sound. Whatever is not found in shared memory is read from its file, newest first, behind queries that are already
//! answered; the log gives back the rows that were in no block.
//!
//! Invariants: nothing is served that was not checked; what is not there yet counts as missing, what cannot be had any
//! more as lost, and neither ever as covered; nothing of the disk is changed before the manifest was understood. How
//! long a start takes does not depend on the size of blocks, and after a clean stop hardly on their number.

use std::collections::BTreeMap;
use std::sync::Arc;

mod find;
mod log;
mod noted;

use gannet_query::holdings::fold_spans;
use gannet_query::{LeafState, Phase, Span};
use gannet_shm::{DirectoryLock, Instance, Segments};

use crate::held_block::{DIRECTORY, id_of_file};
use crate::leaf::{Leaf, Origin, Parts};
use crate::ledger::Ledger;
use crate::manifest::{self, BlockEntry, Manifest, spans_in};
use crate::surroundings::Surroundings;
use crate::table::{Pending, PendingRows, Table};
use crate::wal::{self, Place, Wal, WalContents, WalSettings};
use crate::{Config, LeafError};

pub(crate) use find::{BLOCK_ALIGN, edition, remove_segments};
use find::{Found, Source, find};
use log::{ReadLog, read_log};
pub(crate) use noted::Noted;

/// A file of the log gets no more records from this size on.
const LOG_FILE_BYTES: u64 = 64 << 20;
/// A log that may not be long has shorter files, because only whole files are removed and never the newest.
const LOG_FILES_MIN: u64 = 8;
/// A batch may take so much in the log; it came in one message, which is smaller.
const LOG_RECORD_BYTES_MAX: u64 = 1 << 30;

/// What a start has yet to bring back.
#[derive(Debug, Default)]
pub(crate) struct Remaining {
    /// Batches in the log, table by table, oldest first.
    pub(crate) log: Vec<(String, Vec<Place>)>,
    /// The log they are in.
    pub(crate) contents: Option<WalContents>,
    /// Blocks to be read, the newest last.
    pub(crate) blocks: Vec<(String, BlockEntry)>,
    /// Rows of the table in turn that the log could not give.
    pub(crate) unread: Vec<Span>,
    /// Blocks in shared memory whose bytes were not all checked, the newest last.
    pub(crate) unverified: Vec<(String, u64)>,
}

/// A leaf that answers about what it found, and has yet to note its start.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The leaf, which takes no rows yet.
    pub(crate) leaf: Arc<Leaf>,
    remaining: Remaining,
}

impl Attached {
    /// Notes the start in the manifest, without which nothing may change, and begins to bring back what remains.
    ///
    /// # Errors
    /// When the manifest cannot be written.
    pub(crate) fn begin(self) -> Result<Arc<Leaf>, LeafError> {
        let Attached { leaf, remaining } = self;
        // The mark of a clean stop must be gone before anything is added.
        leaf.checkpoint(&mut leaf.manifest.lock())?;
        leaf.begin_recovery(remaining);
        Ok(leaf)
    }
}

impl Leaf {
    /// Starts a leaf on this machine.
    ///
    /// # Errors
    /// When another process has the directory, the manifest or the log is not this leaf's or cannot be read, or a
    /// setting is wrong. A refusal of shared memory is no error: it is named in the log and in the status.
    pub fn start(config: Config) -> Result<Arc<Leaf>, LeafError> {
        Leaf::attach(config)?.begin()
    }

    /// The first half of a start, after which queries can be answered: writing the manifest waits for the disk, which
    /// may be busy with what the last process left.
    ///
    /// # Errors
    /// As [`Leaf::start`].
    pub(crate) fn attach(config: Config) -> Result<Attached, LeafError> {
        config.check()?;
        create_directory(&config)?;
        let lock = DirectoryLock::acquire(&config.data_dir)?;
        let surroundings = Surroundings::of(&config)?;
        attach(config, surroundings, Some(lock))
    }

    /// Starts a leaf in these surroundings. Whoever made them sees to it that nobody else uses them.
    ///
    /// # Errors
    /// As [`Leaf::start`].
    pub fn start_in(config: Config, surroundings: Surroundings) -> Result<Arc<Leaf>, LeafError> {
        config.check()?;
        attach(config, surroundings, None)?.begin()
    }
}

fn attach(
    config: Config,
    surroundings: Surroundings,
    lock: Option<DirectoryLock>,
) -> Result<Attached, LeafError> {
    let began = surroundings.clock.monotonic();
    let mut manifest = load_or_make(&config, &surroundings)?;
    let contents = wal::read(Arc::clone(&surroundings.disk), manifest.instance, manifest.checkpoint_lsn)?;
    let mut log = read_log(&mut manifest, &contents);
    manifest.epoch += 1;
    manifest.check().map_err(|what| {
        let path = config.data_dir.join(manifest::FILE);
        let what = format!("with the edits of the log it {what}");
        LeafError::Manifest { path, source: manifest::ManifestError::Broken(what) }
    })?;
    let segments = Segments::new(Instance::from_bytes(*manifest.instance.as_bytes()));
    let mut found = find(&surroundings, &segments, &manifest);
    let detail = [log.damage.clone(), std::mem::take(&mut found.refused)].concat();
    manifest.clean = false;
    let (tables, remaining) = restore(&mut manifest, &mut log, &mut found);
    remove_strays(&surroundings, &segments, &manifest, log.is_sound() && manifest.unknown_records == 0);

    let rows = tables.values().map(|table| table.holding(0).rows).sum();
    let origin = Origin { source: source_of(found.source, &remaining), detail: detail.join("; "), rows };
    if !origin.detail.is_empty() {
        tracing::warn!(leaf = config.id, source = origin.source, detail = origin.detail, "not all was found");
    }
    let settings = WalSettings {
        level: config.durability,
        file_bytes_max: LOG_FILE_BYTES.min(config.wal_bytes_max / LOG_FILES_MIN),
        record_bytes_max: LOG_RECORD_BYTES_MAX,
    };
    let wal = Wal::open(Arc::clone(&surroundings.disk), settings, &contents)?;
    wal.begin()?;
    let remaining = Remaining { contents: Some(contents), ..remaining };
    let next_rows = manifest.tables.iter().map(|table| (table.name.clone(), table.next_row)).collect();
    let ledger = Ledger::restored(next_rows, std::mem::take(&mut log.dedup));
    let seconds = (surroundings.clock.monotonic() - began).as_secs_f64();
    let phase = Phase { name: "attaching".to_owned(), seconds, bytes: found.bytes };
    let parts =
        Parts { manifest, lock, tables, origin, phases: vec![phase], wal, ledger, surroundings, segments };
    let leaf = Arc::new(Leaf::from_parts(config, parts)?);
    // A wall clock that jumps from here on is known to jump.
    leaf.retention_now();
    leaf.lifecycle.enter(LeafState::Attaching);
    Ok(Attached { leaf, remaining })
}

/// The manifest of the directory. One that has none gets its first one, before anything else is written.
fn load_or_make(config: &Config, surroundings: &Surroundings) -> Result<Manifest, LeafError> {
    let disk = &*surroundings.disk;
    let refused = |source| LeafError::Manifest { path: config.data_dir.join(manifest::FILE), source };
    let known = manifest::load(disk, &config.id).map_err(refused)?;
    if known.is_none() {
        // A leaf that never ran has nothing; with a new manifest all of this would belong to nobody, and be removed.
        for directory in [wal::DIRECTORY, DIRECTORY] {
            let files = disk.list(directory).unwrap_or_default().len();
            if files > 0 {
                return Err(refused(manifest::ManifestError::Gone { directory, files }));
            }
        }
    }
    for directory in [wal::DIRECTORY, DIRECTORY] {
        disk.create_directory(directory)
            .map_err(|source| LeafError::Disk { what: format!("make directory {directory}"), source })?;
    }
    match known {
        Some(manifest) => Ok(manifest),
        None => {
            let manifest = Manifest::new(&config.id, surroundings.instance);
            manifest::store(disk, &manifest).map_err(refused)?;
            Ok(manifest)
        }
    }
}

/// Tables with what was found, and what is still to be brought back.
fn restore(
    manifest: &mut Manifest,
    log: &mut ReadLog,
    found: &mut Found,
) -> (BTreeMap<String, Arc<Table>>, Remaining) {
    let mut remaining = Remaining::default();
    let mut tables = BTreeMap::new();
    for table in &mut manifest.tables {
        let records = log.rows.remove(&table.name).unwrap_or_default();
        log.lose_missing(table, &records);
        let mut blocks = Vec::new();
        let mut pending = Vec::new();
        for entry in &mut table.blocks {
            match found.blocks.remove(&entry.id) {
                Some(held) => {
                    remaining.unverified.push((table.name.clone(), entry.id));
                    blocks.push(Arc::new(held));
                }
                None => {
                    entry.home = None;
                    let span = Span::of(entry.first, entry.last, entry.rows);
                    pending.push(PendingRows { of: Pending::Block(entry.id), span });
                    remaining.blocks.push((table.name.clone(), entry.clone()));
                }
            }
        }
        blocks.sort_by_key(|held| held.id());
        let logged = fold_spans(records.iter().map(|record| record.span).collect());
        pending.extend(logged.into_iter().map(|span| PendingRows { of: Pending::Log, span }));
        if !records.is_empty() {
            let places = records.into_iter().map(|record| record.place).collect();
            remaining.log.push((table.name.clone(), places));
        }
        if blocks.is_empty() && pending.is_empty() && table.lost.is_empty() {
            // Its rows have all left or were deleted; the manifest knows it for its numbers alone.
            continue;
        }
        let restored = Table::restored(&table.name, blocks, spans_in(&table.lost), pending);
        tables.insert(table.name.clone(), Arc::new(restored));
    }
    // Read from the end, the newest first.
    remaining.blocks.sort_by_key(|(_, entry)| (entry.last, entry.id));
    (tables, remaining)
}

fn source_of(source: Source, remaining: &Remaining) -> String {
    let from_disk = !remaining.blocks.is_empty() || !remaining.log.is_empty();
    match (source, from_disk) {
        (Source::SharedMemory, false) => "shared memory",
        (Source::SharedMemory, true) => "shared memory and disk",
        (Source::Nothing, true) => "disk",
        (Source::Nothing, false) => "nothing",
    }
    .to_owned()
}

fn create_directory(config: &Config) -> Result<(), LeafError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir).map_err(|error| {
        LeafError::Config(format!("setting data_dir is {}: create it: {error}", config.data_dir.display()))
    })
}

/// Removes what nobody names: segments, and, if the log can be believed, files of blocks that were not committed or are
/// given up.
fn remove_strays(surroundings: &Surroundings, segments: &Segments, manifest: &Manifest, log_is_sound: bool) {
    let blocks = || manifest.tables.iter().flat_map(|table| &table.blocks);
    let kept = blocks().filter_map(|block| Some(block.home.as_ref()?.segment.as_str()));
    remove_segments(&*surroundings.memory, segments, &kept.collect());
    if !log_is_sound {
        return;
    }
    let named: std::collections::BTreeSet<u64> = blocks().map(|block| block.id).collect();
    let files = surroundings.disk.list(DIRECTORY).unwrap_or_default();
    for name in files {
        if id_of_file(&name).is_none_or(|id| !named.contains(&id))
            && let Err(error) = surroundings.disk.remove(&format!("{DIRECTORY}/{name}"))
        {
            tracing::warn!(%error, name, "a stray file was not removed");
        }
    }
}

#[cfg(test)]
mod tests;
