//! Reading the log: which records there are, which were lost, and where the torn tail begins.
//!
//! One pass over all files checks every header and every body; nothing but headers stays in memory. Behind a header
//! that is wrong the next one that is right is looked for. What a file holds from the first LSN of a later file on
//! was withdrawn or copied there, and does not count. Then the records are taken in the order of their LSNs. The
//! first one that is not sound ends the log, unless it is known to have been durable (some later header or the caller
//! says so): then it was damaged, is reported as lost, and the log goes on behind it.
//!
//! Invariants: the LSNs of places ascend, and what is missing between them is reported; no bytes make the reader
//! panic, and none make it take memory for more than they are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::disk::{Disk, DiskFile};
use crate::wal::record::{
    ALIGN, FILE_HEADER_BYTES, FileHeader, FixedHeader, RECORD_HEADER_BYTES, RECORD_MAGIC, RecordHeader,
    VERSION, decode_file_header, padding, parse_file_name, seed_of,
};
use crate::wal::{DIRECTORY, Kind, Record, RowsRecord, WalError, WalFile};

/// Bytes read at once; more than the longest record header with its names.
const WINDOW_BYTES: usize = 1 << 20;

/// What the log holds. See the module.
#[derive(Debug)]
pub struct WalContents {
    /// The records, in the order of their LSNs.
    pub places: Vec<Place>,
    /// What was durable and is lost.
    pub lost: Vec<Lost>,
    /// What was written and never known to be durable, and is ignored.
    pub torn: Option<TornTail>,
    /// Files whose header is damaged; their records were found all the same.
    pub damaged_headers: Vec<String>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) instance: Uuid,
    /// In the order they were made.
    pub(crate) files: Vec<FoundFile>,
    /// Files that were never finished, to be removed.
    pub(crate) leftovers: Vec<String>,
    pub(crate) durable_lsn: u64,
    pub(crate) next_lsn: u64,
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// All of it but the body.
    pub header: RecordHeader,
    /// Which of the files.
    pub(crate) file: usize,
    /// Where the body begins.
    pub(crate) offset: u64,
}

/// Records that were durable and cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// The header of a record is sound, its body is not.
    Body {
        /// In which file.
        file: String,
        /// What the header says.
        header: RecordHeader,
    },
    /// Nothing but the numbers of these records is known.
    Records {
        /// The first of them.
        first_lsn: u64,
        /// The last of them.
        last_lsn: u64,
    },
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Body { file, header } => match &header.kind {
                Kind::Rows(rows) => write!(
                    f,
                    "record {} in {file}: {} rows of table {} from row {} on",
                    header.lsn, rows.rows, rows.table, rows.first_row
                ),
                Kind::Edit => write!(f, "record {} in {file}: an edit", header.lsn),
            },
            Lost::Records { first_lsn, last_lsn } => write!(f, "records {first_lsn} to {last_lsn}"),
        }
    }
}

/// The end of the log that was not durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file it begins in.
    pub file: String,
    /// Where it begins there.
    pub offset: u64,
    /// Bytes from there on, with those of later files.
    pub bytes: u64,
    /// The number of the first record that is not there.
    pub first_lsn: u64,
    /// Records behind it that are sound, and ignored.
    pub records: u64,
}

/// A file of the log.
#[derive(Debug)]
pub(crate) struct FoundFile {
    pub(crate) name: String,
    pub(crate) serial: u64,
    pub(crate) file: WalFile,
}

/// A record with a sound header.
struct Candidate {
    place: Place,
    /// Where the next one begins.
    end: u64,
    body_is_sound: bool,
}

/// What one file holds.
struct Scanned {
    name: String,
    serial: u64,
    first_lsn: u64,
    bytes: u64,
    header_is_damaged: bool,
    candidates: Vec<Candidate>,
}

/// Reads the log of a data directory. Everything up to `known_durable_lsn` is known to have been durable, be it from
/// a checkpoint or from a clean stop; records up to it that would be in a file older than all that are there were
/// truncated, and are not lost.
///
/// # Errors
/// When a file cannot be read, is of a newer version, is another leaf's, or has a name that this build does not know.
pub fn read(disk: Arc<dyn Disk>, instance: Uuid, known_durable_lsn: u64) -> Result<WalContents, WalError> {
    let names = match disk.list(DIRECTORY) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(|error| WalError::file("read", DIRECTORY, error))?,
    };
    let (mut found, mut leftovers) = (Vec::new(), Vec::new());
    for name in names {
        if name.ends_with(".wal") {
            let (serial, first_lsn) =
                parse_file_name(&name).ok_or_else(|| WalError::Name { file: name.clone() })?;
            found.push((serial, first_lsn, name));
        } else if name.ends_with(".wal.new") {
            leftovers.push(name);
        }
    }
    found.sort();
    let mut files = Vec::new();
    for (index, (serial, first_lsn, name)) in found.into_iter().enumerate() {
        files.push(scan(&*disk, instance, index, (serial, first_lsn, name))?);
    }
    // Whatever a later file begins with does not count in earlier ones.
    let mut limit = u64::MAX;
    let mut durable = known_durable_lsn;
    for file in files.iter_mut().rev() {
        durable = file.candidates.iter().map(|found| found.place.header.durable_lsn).fold(durable, u64::max);
        file.candidates.retain(|found| found.place.header.lsn < limit);
        limit = limit.min(file.first_lsn);
    }
    let damaged_headers =
        files.iter().filter(|file| file.header_is_damaged).map(|file| file.name.clone()).collect();
    let mut contents = WalContents {
        places: Vec::new(),
        lost: Vec::new(),
        torn: None,
        damaged_headers,
        disk,
        instance,
        files: Vec::new(),
        leftovers,
        durable_lsn: durable,
        next_lsn: known_durable_lsn.saturating_add(1),
    };
    take_in_order(&mut contents, &mut files, known_durable_lsn);
    contents.files = files.into_iter().enumerate().map(|(index, file)| contents.found(index, file)).collect();
    Ok(contents)
}

/// Takes the records that count, in order, until the log ends.
fn take_in_order(contents: &mut WalContents, files: &mut [Scanned], known_durable_lsn: u64) {
    let durable = contents.durable_lsn;
    let Some(first) = files.first() else { return };
    let mut expected = known_durable_lsn.saturating_add(1).min(first.first_lsn);
    let mut end = None;
    'files: for index in 0..files.len() {
        let mut resume = 0;
        let candidates = std::mem::take(&mut files[index].candidates);
        for (at, found) in candidates.iter().enumerate() {
            let lsn = found.place.header.lsn;
            if lsn > expected {
                contents.lose(expected, durable.min(lsn - 1));
                if lsn - 1 > durable {
                    expected = expected.max(durable.saturating_add(1));
                    end = Some((index, resume, &candidates[at..]).into());
                    break 'files;
                }
            }
            expected = lsn;
            if found.body_is_sound {
                contents.places.push(found.place.clone());
            } else if lsn <= durable {
                let (file, header) = (files[index].name.clone(), found.place.header.clone());
                contents.lost.push(Lost::Body { file, header });
            } else {
                end = Some((index, resume, &candidates[at + 1..]).into());
                break 'files;
            }
            expected = lsn.saturating_add(1);
            resume = found.end;
        }
        if index + 1 == files.len() {
            contents.lose(expected, durable);
            expected = expected.max(durable.saturating_add(1));
            end = Some((index, resume, &[][..]).into());
        }
    }
    contents.next_lsn = expected;
    contents.torn = end.and_then(|end: End| end.torn(files, expected));
}

/// Where the log ends.
struct End {
    file: usize,
    offset: u64,
    /// Sound records behind it in its file.
    records: u64,
}

impl From<(usize, u64, &[Candidate])> for End {
    fn from((file, offset, rest): (usize, u64, &[Candidate])) -> End {
        End { file, offset, records: sound(rest) }
    }
}

fn sound(candidates: &[Candidate]) -> u64 {
    candidates.iter().filter(|found| found.body_is_sound).count() as u64
}

impl End {
    /// The tail behind it, unless there is nothing.
    fn torn(self, files: &[Scanned], first_lsn: u64) -> Option<TornTail> {
        let file = &files[self.file];
        let header = FILE_HEADER_BYTES as u64;
        // A file that ends within its header has nothing but a tail.
        // The body of a lost record may reach beyond the end of its file.
        let offset = if file.bytes < header { 0 } else { self.offset.max(header).min(file.bytes) };
        let later = &files[self.file + 1..];
        let bytes = file.bytes - offset + later.iter().map(|file| file.bytes).sum::<u64>();
        let records = self.records + later.iter().map(|file| sound(&file.candidates)).sum::<u64>();
        (bytes > 0).then(|| TornTail { file: file.name.clone(), offset, bytes, first_lsn, records })
    }
}

impl WalContents {
    /// The number of the next record.
    pub fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// Everything up to this is known to have been durable.
    pub fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    /// Reads the body of a record again.
    ///
    /// # Errors
    /// When it cannot be read, or is not what it was when the log was read.
    pub fn body(&self, place: &Place) -> Result<Bytes, WalError> {
        let found = &self.files[place.file];
        let changed = || WalError::Changed { file: found.name.clone(), lsn: place.header.lsn };
        let path = path_of(&found.name);
        let file = self.disk.open(&path).map_err(|error| WalError::file("read", &path, error))?;
        let file_bytes = file.bytes().map_err(|error| WalError::file("read", &path, error))?;
        let end = place.offset.checked_add(place.header.body_bytes).filter(|end| *end <= file_bytes);
        let bytes = end.and_then(|_| usize::try_from(place.header.body_bytes).ok()).ok_or_else(changed)?;
        let mut body = vec![0; bytes];
        let read =
            file.read_at(place.offset, &mut body).map_err(|error| WalError::file("read", &path, error))?;
        if read < bytes || xxh3_64(&body) != place.header.body_xxh3 {
            return Err(changed());
        }
        Ok(Bytes::from(body))
    }

    /// The record at a place, with its body.
    ///
    /// # Errors
    /// As [`WalContents::body`].
    pub fn record(&self, place: &Place) -> Result<Record, WalError> {
        let body = self.body(place)?;
        Ok(match &place.header.kind {
            Kind::Edit => Record::Edit(body),
            Kind::Rows(header) => Record::Rows(RowsRecord { header: header.clone(), body }),
        })
    }

    /// The files, oldest first.
    pub fn files(&self) -> Vec<WalFile> {
        self.files.iter().map(|found| found.file.clone()).collect()
    }

    fn lose(&mut self, first_lsn: u64, last_lsn: u64) {
        if first_lsn <= last_lsn {
            self.lost.push(Lost::Records { first_lsn, last_lsn });
        }
    }

    /// What the log keeps of a file: the records in it that were taken.
    fn found(&self, index: usize, scanned: Scanned) -> FoundFile {
        let mut file = WalFile {
            first_lsn: scanned.first_lsn,
            last_lsn: scanned.first_lsn.saturating_sub(1),
            bytes: scanned.bytes,
            tables: BTreeMap::new(),
        };
        let from = self.places.partition_point(|place| place.file < index);
        for place in self.places[from..].iter().take_while(|place| place.file == index) {
            file.note(place.header.lsn, &place.header.kind);
        }
        FoundFile { name: scanned.name, serial: scanned.serial, file }
    }
}

/// Finds the records of one file.
fn scan(
    disk: &dyn Disk,
    instance: Uuid,
    index: usize,
    (serial, first_lsn, name): (u64, u64, String),
) -> Result<Scanned, WalError> {
    let path = path_of(&name);
    let failed = |error| WalError::file("read", &path, error);
    let file = disk.open(&path).map_err(failed)?;
    let mut window = Window { bytes: file.bytes().map_err(failed)?, file, start: 0, buffer: Vec::new() };
    let header = window.get(0, FILE_HEADER_BYTES).map_err(failed)?;
    let header_is_damaged = match header.and_then(|bytes| bytes.first_chunk()).map(decode_file_header) {
        None => false,
        Some(FileHeader::Damaged) => true,
        Some(FileHeader::Newer(found)) => {
            return Err(WalError::Version { file: name, found, supported: VERSION });
        }
        Some(FileHeader::Sound { instance: found, .. }) if found != instance => {
            return Err(WalError::Instance { file: name, found, expected: instance });
        }
        Some(FileHeader::Sound { serial: own, first_lsn: first, .. }) => (own, first) != (serial, first_lsn),
    };
    let seed = seed_of(instance, serial);
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut at = FILE_HEADER_BYTES as u64;
    while at < window.bytes {
        // What is older than the record before it is a copy from somewhere else.
        let least = candidates.last().map_or(first_lsn, |last| last.place.header.lsn.saturating_add(1));
        match window.record(at, seed, index).map_err(failed)? {
            Some(found) if found.place.header.lsn >= least => {
                at = found.end;
                candidates.push(found);
            }
            _ => at = window.find_magic(at + ALIGN).map_err(failed)?,
        }
    }
    Ok(Scanned { name, serial, first_lsn, bytes: window.bytes, header_is_damaged, candidates })
}

/// A piece of a file in memory, moved forward as it is read.
struct Window {
    file: Box<dyn DiskFile>,
    /// Length of the file.
    bytes: u64,
    /// Where the buffer begins in the file.
    start: u64,
    buffer: Vec<u8>,
}

impl Window {
    /// What is in memory from an offset on; read when it would be less than `least`.
    fn some(&mut self, offset: u64, least: usize) -> std::io::Result<&[u8]> {
        let there = offset.checked_sub(self.start).filter(|skip| *skip <= self.buffer.len() as u64);
        let skip = match there.map(|skip| skip as usize) {
            Some(skip) if self.buffer.len() - skip >= least => skip,
            _ => {
                let rest = self.bytes.saturating_sub(offset).min(WINDOW_BYTES as u64) as usize;
                self.buffer.resize(rest, 0);
                self.start = offset;
                let read = self.file.read_at(offset, &mut self.buffer);
                self.buffer.truncate(*read.as_ref().unwrap_or(&0));
                read?;
                0
            }
        };
        Ok(&self.buffer[skip..])
    }

    /// So many bytes, unless the file ends before them. Not more than a window.
    fn get(&mut self, offset: u64, bytes: usize) -> std::io::Result<Option<&[u8]>> {
        Ok(self.some(offset, bytes)?.get(..bytes))
    }

    /// The record at an offset, if there is a sound header.
    fn record(&mut self, at: u64, seed: u64, file: usize) -> std::io::Result<Option<Candidate>> {
        let Some(fixed) = self.get(at, RECORD_HEADER_BYTES)?.and_then(|bytes| bytes.first_chunk()).copied()
        else {
            return Ok(None);
        };
        let Some(fixed) = FixedHeader::check(&fixed, seed) else { return Ok(None) };
        let names = fixed.names_bytes();
        let names_at = at + RECORD_HEADER_BYTES as u64;
        let Some(header) = self.get(names_at, names)?.and_then(|names| fixed.with_names(names)) else {
            return Ok(None);
        };
        let offset = names_at + names as u64 + padding(names as u64);
        let Some(end) = offset.checked_add(header.body_bytes) else { return Ok(None) };
        let Some(padded) = end.checked_add(padding(header.body_bytes)) else { return Ok(None) };
        let body_is_sound = padded <= self.bytes && self.hash(offset, end)? == Some(header.body_xxh3);
        Ok(Some(Candidate { place: Place { header, file, offset }, end: padded, body_is_sound }))
    }

    /// The checksum of a part of the file, unless the file ends before it.
    fn hash(&mut self, mut from: u64, to: u64) -> std::io::Result<Option<u64>> {
        let mut hash = Xxh3::new();
        while from < to {
            let piece = self.some(from, 1)?;
            let piece = &piece[..piece.len().min((to - from).min(WINDOW_BYTES as u64) as usize)];
            if piece.is_empty() {
                return Ok(None);
            }
            hash.update(piece);
            from += piece.len() as u64;
        }
        Ok(Some(hash.digest()))
    }

    /// Where the next header may begin; the end of the file when nothing looks like one.
    fn find_magic(&mut self, mut from: u64) -> std::io::Result<u64> {
        while from < self.bytes {
            let piece = self.some(from, RECORD_MAGIC.len())?;
            let (words, _) = piece.as_chunks::<8>();
            if let Some(at) = words.iter().position(|word| *word == RECORD_MAGIC) {
                return Ok(from + at as u64 * ALIGN);
            }
            if words.is_empty() {
                break;
            }
            from += words.len() as u64 * ALIGN;
        }
        Ok(self.bytes)
    }
}

/// The path of a file of the log.
pub(crate) fn path_of(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}
