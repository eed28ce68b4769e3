//! The bytes of the write-ahead log: file headers, record headers, and what is checked before they are believed.
//!
//! A file is called `{serial:010}-{first_lsn:020}.wal`. All integers are little-endian; what is reserved is zero.
//!
//! ```text
//! file header, 64 bytes
//!    0  magic "GANNETWL"      these three stay where they are in every version, so that
//!    8  version u32           a newer file can be told from a damaged one
//!   56  xxh3 of bytes 0..56
//!   12  reserved u32
//!   16  instance, 16 bytes
//!   32  serial u64            files made later have greater ones
//!   40  first LSN u64
//!   48  reserved u64
//!
//! record: header of 128 bytes, names, padding to 8, body, padding to 8
//!    0  magic "gannetwr"
//!    8  LSN u64
//!   16  durable LSN u64       everything up to it was durable when this was written
//!   24  body length u64
//!   32  xxh3 of the body
//!   40  first row u64
//!   48  rows u64
//!   56  time min i64
//!   64  time max i64
//!   72  sequence u64
//!   80  kind u8               1 rows, 2 edit
//!   81  flags u8              bit 0: last part; bit 1: there is an idempotency key
//!   82  length of the table's name u16
//!   84  length of the producer's name u16
//!   86  length of the idempotency key u16
//!   88  part u32
//!   92  reserved u32
//!   96  xxh3 of the names     table, producer, key, one behind the other
//!  104  reserved, 16 bytes
//!  120  xxh3 of bytes 0..120, seeded by instance and serial
//! ```
//!
//! The header binds body and names to the LSN by their checksums. The seed keeps a reader that looks for the next
//! header behind a damaged one from taking a record of another file or another leaf, be it in blocks of a file that
//! was removed or in rows that somebody stored.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The version this build writes; a newer one is refused before anything is written. From 2 on rows may have dictionaries;
/// 1 is the same without.
pub const VERSION: u32 = 2;
/// The oldest version that this build reads.
const OLDEST: u32 = 1;
pub(crate) const FILE_HEADER_BYTES: usize = 64;
pub(crate) const RECORD_HEADER_BYTES: usize = 128;
/// Records, and bodies in them, begin at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// Rows of a table have smaller numbers: a thousand times as many as one has in a lifetime, and few enough that sums of
/// them stay numbers.
pub(crate) const ROW_NUMBERS_MAX: u64 = 1 << 53;
/// A record has at most this many rows.
pub(crate) const ROWS_MAX: u64 = u32::MAX as u64;
/// Records have smaller LSNs.
const LSN_MAX: u64 = 1 << 62;
const FILE_MAGIC: [u8; 8] = *b"GANNETWL";
pub(crate) const RECORD_MAGIC: [u8; 8] = *b"gannetwr";
const KIND_ROWS: u8 = 1;
const KIND_EDIT: u8 = 2;
const FLAG_LAST_PART: u8 = 1;
const FLAG_KEY: u8 = 2;

/// One entry of the log, as it is handed over.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Rows of a table.
    Rows(RowsRecord),
    /// A change of the leaf's state, opaque to the log.
    Edit(Bytes),
}

/// A record of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct RowsRecord {
    /// What is known of them without their values.
    pub header: RowsHeader,
    /// Their values, as they came; never copied.
    pub body: Bytes,
}

/// What the log knows of rows without looking at their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsHeader {
    /// Their table.
    pub table: Arc<str>,
    /// Number of the first of them in the table.
    pub first_row: u64,
    /// How many they are.
    pub rows: u64,
    /// Time of the earliest.
    pub time_min: i64,
    /// Time of the latest.
    pub time_max: i64,
    /// Who sent them.
    pub producer: Arc<str>,
    /// The producer's number of their batch.
    pub sequence: u64,
    /// Which part of the batch they are.
    pub part: u32,
    /// No part of the batch comes behind this one.
    pub last_part: bool,
    /// The key that a client gave in place of producer and sequence.
    pub idempotency_key: Option<Arc<str>>,
}

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// See [`Record::Rows`].
    Rows(RowsHeader),
    /// See [`Record::Edit`].
    Edit,
}

/// A record without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its number in the log, from 1.
    pub lsn: u64,
    /// Everything up to this was durable when the record was written.
    pub durable_lsn: u64,
    /// Length of the body.
    pub body_bytes: u64,
    /// Checksum of the body.
    pub body_xxh3: u64,
    /// What it is.
    pub kind: Kind,
}

impl Record {
    /// The bytes behind the header.
    pub fn body(&self) -> &Bytes {
        match self {
            Record::Rows(rows) => &rows.body,
            Record::Edit(body) => body,
        }
    }

    /// The longest of its names, which the header must be able to tell.
    pub(crate) fn name_bytes_max(&self) -> usize {
        match self {
            Record::Edit(_) => 0,
            Record::Rows(rows) => {
                let key = rows.header.idempotency_key.as_ref().map_or(0, |key| key.len());
                rows.header.table.len().max(rows.header.producer.len()).max(key)
            }
        }
    }
}

/// Whether a record can have these rows.
pub(crate) fn are_numbers(first_row: u64, rows: u64) -> bool {
    rows <= ROWS_MAX && first_row <= ROW_NUMBERS_MAX - rows
}

/// Bytes missing to the next multiple of [`ALIGN`].
pub(crate) fn padding(bytes: u64) -> u64 {
    bytes.wrapping_neg() % ALIGN
}

/// What the checksums of record headers in one file begin with.
pub(crate) fn seed_of(instance: Uuid, serial: u64) -> u64 {
    xxh3_64_with_seed(instance.as_bytes(), serial)
}

/// The name of a file, without its directory.
pub(crate) fn file_name(serial: u64, first_lsn: u64) -> String {
    format!("{serial:010}-{first_lsn:020}.wal")
}

/// Serial and first LSN in the name of a file; LSNs begin at 1.
pub(crate) fn parse_file_name(name: &str) -> Option<(u64, u64)> {
    let (serial, first) = name.strip_suffix(".wal")?.split_once('-')?;
    let (serial, first): (u64, u64) = (serial.parse().ok()?, first.parse().ok()?);
    (first > 0 && file_name(serial, first) == name).then_some((serial, first))
}

/// The header of a file.
pub(crate) fn encode_file_header(instance: Uuid, serial: u64, first_lsn: u64) -> [u8; FILE_HEADER_BYTES] {
    let mut bytes = [0; FILE_HEADER_BYTES];
    put(&mut bytes, 0, &FILE_MAGIC);
    put(&mut bytes, 8, &VERSION.to_le_bytes());
    put(&mut bytes, 16, instance.as_bytes());
    put(&mut bytes, 32, &serial.to_le_bytes());
    put(&mut bytes, 40, &first_lsn.to_le_bytes());
    let checksum = xxh3_64(&bytes[..56]);
    put(&mut bytes, 56, &checksum.to_le_bytes());
    bytes
}

/// What the header of a file says.
#[derive(Debug, PartialEq)]
pub(crate) enum FileHeader {
    /// Its checksum or its magic is wrong.
    Damaged,
    /// It is of a version that this build does not read.
    Newer(u32),
    /// It is sound.
    Sound { instance: Uuid, serial: u64, first_lsn: u64 },
}

/// Reads the header of a file.
pub(crate) fn decode_file_header(bytes: &[u8; FILE_HEADER_BYTES]) -> FileHeader {
    if bytes[..8] != FILE_MAGIC || u64_at(bytes, 56) != xxh3_64(&bytes[..56]) {
        return FileHeader::Damaged;
    }
    match u32_at(bytes, 8) {
        OLDEST..=VERSION => {
            let mut instance = [0; 16];
            instance.copy_from_slice(&bytes[16..32]);
            FileHeader::Sound {
                instance: Uuid::from_bytes(instance),
                serial: u64_at(bytes, 32),
                first_lsn: u64_at(bytes, 40),
            }
        }
        version => FileHeader::Newer(version),
    }
}

/// Adds the header of a record with its names and their padding.
pub(crate) fn encode_record(
    into: &mut Vec<u8>,
    record: &Record,
    body_xxh3: u64,
    lsn: u64,
    durable_lsn: u64,
    seed: u64,
) {
    let mut bytes = [0; RECORD_HEADER_BYTES];
    put(&mut bytes, 0, &RECORD_MAGIC);
    put(&mut bytes, 8, &lsn.to_le_bytes());
    put(&mut bytes, 16, &durable_lsn.to_le_bytes());
    put(&mut bytes, 24, &(record.body().len() as u64).to_le_bytes());
    put(&mut bytes, 32, &body_xxh3.to_le_bytes());
    bytes[80] = KIND_EDIT;
    let start = into.len();
    into.extend_from_slice(&bytes);
    if let Record::Rows(RowsRecord { header, .. }) = record {
        let key = header.idempotency_key.as_deref();
        put(&mut bytes, 40, &header.first_row.to_le_bytes());
        put(&mut bytes, 48, &header.rows.to_le_bytes());
        put(&mut bytes, 56, &header.time_min.to_le_bytes());
        put(&mut bytes, 64, &header.time_max.to_le_bytes());
        put(&mut bytes, 72, &header.sequence.to_le_bytes());
        bytes[80] = KIND_ROWS;
        bytes[81] = u8::from(header.last_part) * FLAG_LAST_PART + u8::from(key.is_some()) * FLAG_KEY;
        put(&mut bytes, 88, &header.part.to_le_bytes());
        let names = [&*header.table, &*header.producer, key.unwrap_or_default()];
        for (at, name) in [82, 84, 86].into_iter().zip(names) {
            // The names were measured when the record was submitted; a longer one would fail its own checksum.
            put(&mut bytes, at, &(name.len() as u16).to_le_bytes());
            into.extend_from_slice(name.as_bytes());
        }
    }
    let names_xxh3 = xxh3_64(&into[start + RECORD_HEADER_BYTES..]);
    put(&mut bytes, 96, &names_xxh3.to_le_bytes());
    let checksum = xxh3_64_with_seed(&bytes[..120], seed);
    put(&mut bytes, 120, &checksum.to_le_bytes());
    put(&mut into[start..], 0, &bytes);
    into.resize(into.len() + padding((into.len() - start) as u64) as usize, 0);
}

/// The fixed part of a record's header, whose checksum was right; its names are not read yet.
#[derive(Debug)]
pub(crate) struct FixedHeader<'a> {
    bytes: &'a [u8; RECORD_HEADER_BYTES],
}

impl<'a> FixedHeader<'a> {
    /// `None` when the bytes are not the header of a record of this file.
    pub(crate) fn check(bytes: &'a [u8; RECORD_HEADER_BYTES], seed: u64) -> Option<FixedHeader<'a>> {
        let sound =
            bytes[..8] == RECORD_MAGIC && u64_at(bytes, 120) == xxh3_64_with_seed(&bytes[..120], seed);
        sound.then_some(FixedHeader { bytes })
    }

    pub(crate) fn lsn(&self) -> u64 {
        u64_at(self.bytes, 8)
    }

    /// Length of the names without their padding.
    pub(crate) fn names_bytes(&self) -> usize {
        [82, 84, 86].into_iter().map(|at| usize::from(u16_at(self.bytes, at))).sum()
    }

    /// The whole header, when the names are those that were written and mean something to this build.
    pub(crate) fn with_names(&self, names: &[u8]) -> Option<RecordHeader> {
        let bytes = self.bytes;
        if names.len() != self.names_bytes() || xxh3_64(names) != u64_at(bytes, 96) {
            return None;
        }
        // What the writer never writes.
        let (lsn, durable) = (self.lsn(), u64_at(bytes, 16));
        if durable >= lsn || lsn > LSN_MAX || !are_numbers(u64_at(bytes, 40), u64_at(bytes, 48)) {
            return None;
        }
        let kind = match bytes[80] {
            KIND_EDIT => Kind::Edit,
            KIND_ROWS => {
                let (table, rest) = names.split_at_checked(usize::from(u16_at(bytes, 82)))?;
                let (producer, key) = rest.split_at_checked(usize::from(u16_at(bytes, 84)))?;
                let text = |name: &[u8]| std::str::from_utf8(name).ok().map(Arc::<str>::from);
                let key = if bytes[81] & FLAG_KEY == 0 { None } else { Some(text(key)?) };
                Kind::Rows(RowsHeader {
                    table: text(table)?,
                    first_row: u64_at(bytes, 40),
                    rows: u64_at(bytes, 48),
                    time_min: u64_at(bytes, 56).cast_signed(),
                    time_max: u64_at(bytes, 64).cast_signed(),
                    producer: text(producer)?,
                    sequence: u64_at(bytes, 72),
                    part: u32_at(bytes, 88),
                    last_part: bytes[81] & FLAG_LAST_PART != 0,
                    idempotency_key: key,
                })
            }
            _ => return None,
        };
        Some(RecordHeader {
            lsn: self.lsn(),
            durable_lsn: u64_at(bytes, 16),
            body_bytes: u64_at(bytes, 24),
            body_xxh3: u64_at(bytes, 32),
            kind,
        })
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
