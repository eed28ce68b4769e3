//! The image of a row block: its bytes, written and read here and nowhere else.
//!
//! An image is the same in heap, in shared memory and on disk. It holds offsets from its own first byte and no
//! pointers; every number is little-endian and of fixed size. It must begin at an address that is a multiple of 64.
//!
//! ```text
//! header, 128 bytes
//!    0   8  magic "GNTBLOCK"
//!    8   4  layout version
//!   12   4  column count
//!   16   8  block id
//!   24   8  row count, 1 to 65,536
//!   32   8  time of the oldest row
//!   40   8  time of the newest row
//!   48   8  image length in bytes, a multiple of 64
//!   56   8  directory offset (128)
//!   64   8  directory length in bytes
//!   72  48  zero
//!  120   8  checksum of bytes 0..120 and of the directory
//!
//! directory: 256 bytes for each column, in strictly ascending order of name
//!    0   4  name offset, from the directory's first byte
//!    4   2  name length in bytes, 1 to 256
//!    6   1  column type: 0 bool, 1 int, 2 float, 3 string, 4 strings, 5 time
//!    7   1  encoding, see `Encoding`
//!    8   1  flags: 1 holds ints beyond ±2^53, 2 has a range, 4 its codes have a base for each 1,024, 8 has a sum
//!    9   1  bits of one stored code, see `packing`
//!   10   1  bytes of one code when it is unpacked: 1, 2, 4 or 8
//!   11   1  Decimal: digits after the point; Lists: bits of one list length
//!   12   1  range of a string: bytes of the first
//!   13   1  range of a string: bytes of the last
//!   14   2  zero
//!   16   8  rows without a value
//!   24   8  distinct values (of a strings column: distinct items); estimated where they are very many
//!   32  16  range, first: the int, the bits of the float, or the first 16 bytes of the string
//!   48  16  range, last
//!   64   8  base, or the constant's bits, or the parameter of stored text
//!   72   8  gcd; Lists: how many items
//!   80   8  values in the dictionary
//!   88  16  sum of the values of an int column
//!  104   4  codes stored aside as patches
//!  108   4  zero
//!  112 144  six buffers: offset, length in bytes, checksum, 8 bytes each
//! then the names, back to back in the order of the columns
//!
//! buffers, each at the next multiple of 64, in the order of the directory; zero bytes up to a multiple of 64
//! ```
//!
//! Checksums are xxh3-64 seeded with the block id, so that a valid block in the wrong place is refused, and so is
//! a buffer of another block. The checksum of header and directory is checked when an image is opened, that of a
//! buffer when it is first touched.
//!
//! This module never looks into buffers: what it promises of an opened image is that every place lies inside it,
//! is aligned, and is as long as encoding and row count say.

use arrow::buffer::{Buffer, MutableBuffer};
use gannet_query::{ColumnType, TypeSet};
use gannet_shm::Pages;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::BlockError;
use super::cursor::Cursor;
use crate::packing::Packing;
use crate::text::Form;

#[cfg(target_endian = "big")]
compile_error!("buffers of an image are read in place, so the machine must be little-endian");

/// The version of the layout this build writes.
pub const LAYOUT_VERSION: u32 = if cfg!(feature = "next-layout") { 3 } else { 2 };
/// The oldest version that it reads.
pub const LAYOUT_VERSION_OLDEST: u32 = 2;
/// Buffers and images begin at multiples of this.
pub const ALIGNMENT: usize = 64;
/// The longest name of a column, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// The most columns of one row block.
pub const COLUMNS_MAX: usize = 65_536;

const WIDE: u8 = 1;
const HAS_RANGE: u8 = 2;
const FRAMED: u8 = 4;
const HAS_SUM: u8 = 8;
const FLAGS_MAX: u8 = 15;
/// Images from this size are mappings of their own, so that one that expires leaves no hole in the heap.
const PAGES_MIN: usize = 256 << 10;
const MAGIC: [u8; 8] = *b"GNTBLOCK";
const HEADER_BYTES: usize = 128;
const CHECKSUM_AT: usize = 120;
const ENTRY_BYTES: usize = 256;
/// Buffers that an entry has room for.
pub(super) const BUFFERS: usize = 6;
/// Bytes of a string that its range keeps.
pub(super) const PREFIX_BYTES: usize = 16;

const _: () = assert!(8 + 4 + 4 + 8 * 7 + 48 == CHECKSUM_AT && CHECKSUM_AT + 8 == HEADER_BYTES);
const _: () =
    assert!(4 + 2 + 8 + 2 + 2 * 8 + 2 * PREFIX_BYTES + 3 * 8 + 16 + 8 + BUFFERS * 24 == ENTRY_BYTES);
const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGNMENT));

/// How a column's values became buffers. The number is the byte in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// No row has a value. No buffers.
    Null = 0,
    /// Every row has one value, in `base`; of a string, in buffer 0.
    Constant = 1,
    /// int, time: base + gcd × code. Buffers: codes, validity.
    Packed = 2,
    /// string: distinct values in order. Buffers: codes, offsets of values (4 bytes each), text of values.
    Dictionary = 3,
    /// string as it is. Buffers: offsets (4 bytes each), text, validity.
    Text = 4,
    /// bool. Buffers: bits, validity.
    Bits = 5,
    /// float as it is. Buffers: floats, validity.
    Floats = 6,
    /// float: (base + gcd × code) / 10^digits, exactly. Buffers: codes, validity.
    Decimal = 7,
    /// strings. Buffers: list lengths, codes of items, offsets of values, text of values, validity.
    Lists = 8,
    /// int, time: distinct values in order. Buffers: codes, values (8 bytes each).
    IntDictionary = 9,
    /// float: distinct values in their total order. Buffers: codes, values (8 bytes each).
    FloatDictionary = 10,
    /// string as `text::hex` has it. Buffers: up to four of that form, validity, filter of values.
    Hex = 11,
    /// string as `text::template` has it. Buffers as of `Hex`.
    Template = 12,
}

impl Encoding {
    const ALL: [(Encoding, &'static str); 13] = [
        (Encoding::Null, "null"),
        (Encoding::Constant, "constant"),
        (Encoding::Packed, "packed"),
        (Encoding::Dictionary, "dictionary"),
        (Encoding::Text, "plain"),
        (Encoding::Bits, "bitmap"),
        (Encoding::Floats, "plain"),
        (Encoding::Decimal, "decimal"),
        (Encoding::Lists, "dictionary"),
        (Encoding::IntDictionary, "dictionary"),
        (Encoding::FloatDictionary, "dictionary"),
        (Encoding::Hex, "hex"),
        (Encoding::Template, "template"),
    ];

    fn from_byte(byte: u8) -> Option<Encoding> {
        Self::ALL.get(usize::from(byte)).map(|(encoding, _)| *encoding)
    }

    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The form of stored text, of those that are one.
    pub(super) fn form(self) -> Option<Form> {
        match self {
            Encoding::Hex => Some(Form::Hex),
            Encoding::Template => Some(Form::Template),
            _ => None,
        }
    }

    /// How text of a form is stored.
    pub(super) fn of_form(form: Form) -> Encoding {
        match form {
            Form::Hex => Encoding::Hex,
            Form::Template => Encoding::Template,
        }
    }
}

/// The least and the greatest value of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueRange {
    /// Of an int or time column.
    Int(i64, i64),
    /// Of a float column, in the total order of floats: a positive NaN is above infinity, -0.0 below 0.0.
    Float(f64, f64),
    /// Of a string column: the first 16 bytes of the least and of the greatest value. The first 16 bytes of every
    /// value lie between the two.
    Text(Box<[u8]>, Box<[u8]>),
}

/// What a row block's directory says of one column.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnMeta {
    /// Its exact name.
    pub name: String,
    /// The type of its values in this block.
    pub column_type: ColumnType,
    /// The same as a set, which also knows of ints beyond ±2^53.
    pub types: TypeSet,
    /// Rows without a value.
    pub null_count: u64,
    /// Distinct values; of a `strings` column, distinct items. An estimate within a few percent where nearly every row
    /// has a value of its own.
    pub distinct_count: u64,
    /// The sum of all values of an int column.
    pub int_sum: Option<i128>,
    /// Least and greatest value, where the type has them and a row has a value.
    pub range: Option<ValueRange>,
    /// Bytes of its buffers.
    pub bytes: u64,
    pub(super) stored: Stored,
}

impl ColumnMeta {
    /// The word for how its values are stored.
    pub fn encoding(&self) -> &'static str {
        self.stored.encoding.name()
    }

    /// Least and greatest value of an int or time column.
    pub fn int_range(&self) -> Option<(i64, i64)> {
        match self.range {
            Some(ValueRange::Int(min, max)) => Some((min, max)),
            _ => None,
        }
    }
}

/// How one column is stored: the part of a directory entry that only this folder reads.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stored {
    pub(super) encoding: Encoding,
    pub(super) packing: Packing,
    pub(super) parameter: u8,
    pub(super) base: i64,
    pub(super) gcd: i64,
    pub(super) value_count: u64,
    pub(super) buffers: [Place; BUFFERS],
}

/// Where a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) checksum: u64,
}

/// What the header says of the whole block.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Header {
    pub(super) block_id: u64,
    pub(super) row_count: usize,
    pub(super) time_first: i64,
    pub(super) time_last: i64,
}

/// The next multiple of 64.
fn align(offset: usize) -> usize {
    offset.next_multiple_of(ALIGNMENT)
}

/// The checksum of a buffer of a block.
pub(super) fn checksum(block_id: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, block_id)
}

pub(super) fn head_checksum(block_id: u64, header: &[u8], directory: &[u8]) -> u64 {
    let mut hash = Xxh3::with_seed(block_id);
    hash.update(header);
    hash.update(directory);
    hash.digest()
}

/// Puts encoded columns, sorted by name, together into an image. Fills in the places of their buffers.
pub(super) fn write(header: &Header, columns: &mut [(ColumnMeta, Vec<Buffer>)]) -> Buffer {
    let names: usize = columns.iter().map(|(column, _)| column.name.len()).sum();
    let directory_bytes = columns.len() * ENTRY_BYTES + names;
    let mut end = align(HEADER_BYTES + directory_bytes);
    for (column, buffers) in columns.iter_mut() {
        for (index, place) in column.stored.buffers.iter_mut().enumerate() {
            let bytes = buffers.get(index).map_or(&[][..], |buffer| buffer.as_slice());
            *place = Place {
                offset: end as u64,
                len: bytes.len() as u64,
                checksum: checksum(header.block_id, bytes),
            };
            end = align(end + bytes.len());
        }
    }
    let mut directory = Vec::with_capacity(directory_bytes);
    let mut name_offset = columns.len() * ENTRY_BYTES;
    for (column, _) in columns.iter() {
        write_entry(column, name_offset as u32, &mut directory);
        name_offset += column.name.len();
    }
    for (column, _) in columns.iter() {
        directory.extend_from_slice(column.name.as_bytes());
    }
    assert_eq!(directory.len(), directory_bytes, "a directory is as long as its picture says");

    let head = write_header(header, columns.len(), directory_bytes, end, &directory);
    let fill = |image: &mut [u8]| {
        image[..HEADER_BYTES].copy_from_slice(&head);
        image[HEADER_BYTES..HEADER_BYTES + directory_bytes].copy_from_slice(&directory);
        for (column, buffers) in columns.iter() {
            for (place, buffer) in column.stored.buffers.iter().zip(buffers) {
                let start = place.offset as usize;
                image[start..start + buffer.len()].copy_from_slice(buffer);
            }
        }
    };
    if end >= PAGES_MIN
        && let Ok(mut pages) = Pages::zeroed(end)
    {
        fill(pages.as_mut_slice());
        if let Ok(bytes) = pages.freeze() {
            return Buffer::from(bytes);
        }
    }
    let mut image = MutableBuffer::from_len_zeroed(end);
    fill(&mut image);
    image.into()
}

fn write_header(header: &Header, columns: usize, directory: usize, image: usize, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&LAYOUT_VERSION.to_le_bytes());
    out.extend_from_slice(&(columns as u32).to_le_bytes());
    out.extend_from_slice(&header.block_id.to_le_bytes());
    out.extend_from_slice(&(header.row_count as u64).to_le_bytes());
    out.extend_from_slice(&header.time_first.to_le_bytes());
    out.extend_from_slice(&header.time_last.to_le_bytes());
    out.extend_from_slice(&(image as u64).to_le_bytes());
    out.extend_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
    out.extend_from_slice(&(directory as u64).to_le_bytes());
    out.extend_from_slice(&[0; 48]);
    let checksum = head_checksum(header.block_id, &out, bytes);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

fn type_byte(column_type: ColumnType) -> u8 {
    match column_type {
        ColumnType::Bool => 0,
        ColumnType::Int => 1,
        ColumnType::Float => 2,
        ColumnType::String => 3,
        ColumnType::Strings => 4,
        ColumnType::Time => 5,
    }
}

fn type_from_byte(byte: u8) -> Option<ColumnType> {
    use ColumnType::{Bool, Float, Int, String, Strings, Time};
    [Bool, Int, Float, String, Strings, Time].get(usize::from(byte)).copied()
}

fn write_entry(column: &ColumnMeta, name_offset: u32, out: &mut Vec<u8>) {
    let stored = &column.stored;
    let Packing { bits, bytes, framed, patches } = stored.packing;
    let (first, last, first_len, last_len) = range_bytes(column.range.as_ref());
    out.extend_from_slice(&name_offset.to_le_bytes());
    out.extend_from_slice(&(column.name.len() as u16).to_le_bytes());
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let flags = flag(column.types.is_wide(), WIDE)
        | flag(column.range.is_some(), HAS_RANGE)
        | flag(framed, FRAMED)
        | flag(column.int_sum.is_some(), HAS_SUM);
    out.extend_from_slice(&[type_byte(column.column_type), stored.encoding as u8, flags]);
    out.extend_from_slice(&[bits, bytes, stored.parameter, first_len, last_len, 0, 0]);
    out.extend_from_slice(&column.null_count.to_le_bytes());
    out.extend_from_slice(&column.distinct_count.to_le_bytes());
    out.extend_from_slice(&first);
    out.extend_from_slice(&last);
    out.extend_from_slice(&stored.base.to_le_bytes());
    out.extend_from_slice(&stored.gcd.to_le_bytes());
    out.extend_from_slice(&stored.value_count.to_le_bytes());
    out.extend_from_slice(&column.int_sum.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&patches.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for place in &stored.buffers {
        out.extend_from_slice(&place.offset.to_le_bytes());
        out.extend_from_slice(&place.len.to_le_bytes());
        out.extend_from_slice(&place.checksum.to_le_bytes());
    }
}

type Prefix = [u8; PREFIX_BYTES];

fn range_bytes(range: Option<&ValueRange>) -> (Prefix, Prefix, u8, u8) {
    let fill = |bytes: &[u8]| {
        let mut prefix = [0; PREFIX_BYTES];
        let len = bytes.len().min(PREFIX_BYTES);
        prefix[..len].copy_from_slice(&bytes[..len]);
        (prefix, len as u8)
    };
    let (first, last) = match range {
        None => (fill(&[]), fill(&[])),
        Some(ValueRange::Int(first, last)) => (fill(&first.to_le_bytes()), fill(&last.to_le_bytes())),
        Some(ValueRange::Float(first, last)) => (fill(&first.to_le_bytes()), fill(&last.to_le_bytes())),
        Some(ValueRange::Text(first, last)) => (fill(first), fill(last)),
    };
    (first.0, last.0, first.1, last.1)
}

/// Reads and checks header and directory of an image: everything but what is inside the buffers.
pub(super) fn read(image: &Buffer, expected_id: u64) -> Result<(Header, Vec<ColumnMeta>), BlockError> {
    let corrupt = |what: String| BlockError::Corrupt { block: expected_id, what };
    if !(image.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
        return Err(corrupt(format!("image does not begin at a multiple of {ALIGNMENT} bytes in memory")));
    }
    let bytes = image.as_slice();
    let Some(head) = bytes.get(..HEADER_BYTES) else {
        return Err(corrupt(format!(
            "image has {} bytes, the header alone needs {HEADER_BYTES}",
            bytes.len()
        )));
    };
    let mut cursor = Cursor::new(head);
    if cursor.array() != MAGIC {
        return Err(corrupt("image does not begin with the magic of a row block".to_owned()));
    }
    let version = cursor.u32();
    if !(LAYOUT_VERSION_OLDEST..=LAYOUT_VERSION).contains(&version) {
        return Err(BlockError::Version { block: expected_id, found: version });
    }
    let column_count = cursor.u32() as usize;
    let block_id = cursor.u64();
    if block_id != expected_id {
        return Err(BlockError::WrongBlock { expected: expected_id, found: block_id });
    }
    let row_count = cursor.u64();
    let (time_first, time_last) = (cursor.i64(), cursor.i64());
    let (image_bytes, directory_offset, directory_bytes) = (cursor.u64(), cursor.u64(), cursor.u64());
    if image_bytes != bytes.len() as u64 || !bytes.len().is_multiple_of(ALIGNMENT) {
        return Err(corrupt(format!("image has {} bytes, its header says {image_bytes}", bytes.len())));
    }
    // Both comparisons are made without adding, which could overflow.
    let room = (bytes.len() - HEADER_BYTES) as u64;
    if directory_offset != HEADER_BYTES as u64 || directory_bytes > room {
        return Err(corrupt(format!("directory of {directory_bytes} bytes exceeds the image")));
    }
    let directory = &bytes[HEADER_BYTES..HEADER_BYTES + directory_bytes as usize];
    let expected = Cursor::new(&head[CHECKSUM_AT..]).u64();
    if head_checksum(block_id, &head[..CHECKSUM_AT], directory) != expected {
        return Err(corrupt("checksum of header and directory does not match".to_owned()));
    }
    if !(1..=super::ROWS_PER_BLOCK_MAX as u64).contains(&row_count) {
        return Err(corrupt(format!("row count is {row_count}, the limit is {}", super::ROWS_PER_BLOCK_MAX)));
    }
    let header = Header { block_id, row_count: row_count as usize, time_first, time_last };
    let columns = read_directory(directory, column_count, &header, bytes.len())?;
    Ok((header, columns))
}

fn read_directory(
    directory: &[u8],
    column_count: usize,
    header: &Header,
    image_bytes: usize,
) -> Result<Vec<ColumnMeta>, BlockError> {
    let corrupt = |what: String| BlockError::Corrupt { block: header.block_id, what };
    if column_count > COLUMNS_MAX || column_count * ENTRY_BYTES > directory.len() {
        let bytes = directory.len();
        return Err(corrupt(format!("directory of {bytes} bytes cannot hold {column_count} columns")));
    }
    let mut columns: Vec<ColumnMeta> = Vec::with_capacity(column_count);
    let mut name_offset = column_count * ENTRY_BYTES;
    let mut end = align(HEADER_BYTES + directory.len());
    for entry in directory.chunks_exact(ENTRY_BYTES).take(column_count) {
        let column = read_entry(entry, directory, &mut name_offset).map_err(&corrupt)?;
        let refuse = |what| BlockError::Column { block: header.block_id, column: column.name.clone(), what };
        if columns.last().is_some_and(|previous| previous.name >= column.name) {
            return Err(refuse("is not in order of name".to_owned()));
        }
        super::shape::check(&column, header.row_count as u64).map_err(&refuse)?;
        for place in &column.stored.buffers {
            if place.offset != end as u64 || place.len > (image_bytes.saturating_sub(end)) as u64 {
                let (offset, len) = (place.offset, place.len);
                return Err(refuse(format!("buffer of {len} bytes at {offset} is not where it must be")));
            }
            end = align(end + place.len as usize);
        }
        columns.push(column);
    }
    if name_offset != directory.len() || end != image_bytes {
        return Err(corrupt("directory or image has bytes that belong to no column".to_owned()));
    }
    Ok(columns)
}

/// Reads one entry; `name_offset` is where its name must be, and moves behind it.
fn read_entry(entry: &[u8], directory: &[u8], name_offset: &mut usize) -> Result<ColumnMeta, String> {
    let mut cursor = Cursor::new(entry);
    let (name_at, name_len) = (cursor.u32() as usize, usize::from(cursor.u16()));
    let name = directory
        .get(*name_offset..*name_offset + name_len)
        .ok_or("name of a column is not in the directory")?;
    if name_at != *name_offset || !(1..=NAME_BYTES_MAX).contains(&name_len) {
        return Err(format!(
            "name of a column has {name_len} bytes at {name_at}, the limit is {NAME_BYTES_MAX}"
        ));
    }
    *name_offset += name_len;
    let name = std::str::from_utf8(name).map_err(|_| "name of a column is not UTF-8")?.to_owned();
    let [column_type, encoding, flags, bits, bytes, parameter, first_len, last_len, ..] =
        cursor.array::<10>();
    let column_type =
        type_from_byte(column_type).ok_or_else(|| format!("column {name} has type {column_type}"))?;
    let encoding =
        Encoding::from_byte(encoding).ok_or_else(|| format!("column {name} has encoding {encoding}"))?;
    if flags > FLAGS_MAX {
        return Err(format!("column {name} has flags {flags}"));
    }
    let (null_count, distinct_count) = (cursor.u64(), cursor.u64());
    let (first, last): (Prefix, Prefix) = (cursor.array(), cursor.array());
    let range = match flags & HAS_RANGE {
        0 => None,
        _ => Some(
            read_range(column_type, &first, &last, first_len, last_len)
                .ok_or_else(|| format!("column {name} has a range its type does not have"))?,
        ),
    };
    let (base, gcd, value_count) = (cursor.i64(), cursor.i64(), cursor.u64());
    let sum = i128::from_le_bytes(cursor.array());
    let int_sum = (flags & HAS_SUM != 0).then_some(sum);
    let patches = cursor.u32();
    let _ = cursor.u32();
    let packing = Packing { bits, bytes, framed: flags & FRAMED != 0, patches };
    let buffers: [Place; BUFFERS] =
        std::array::from_fn(|_| Place { offset: cursor.u64(), len: cursor.u64(), checksum: cursor.u64() });
    // A sum of lengths from an image cannot be trusted to fit; places are checked after this.
    let bytes = buffers.iter().fold(0_u64, |sum, place| sum.saturating_add(place.len));
    let types = TypeSet::of(column_type, flags & WIDE != 0);
    let stored = Stored { encoding, packing, parameter, base, gcd, value_count, buffers };
    Ok(ColumnMeta { name, column_type, types, null_count, distinct_count, int_sum, range, bytes, stored })
}

fn read_range(
    column_type: ColumnType,
    first: &Prefix,
    last: &Prefix,
    first_len: u8,
    last_len: u8,
) -> Option<ValueRange> {
    let int = |prefix: &Prefix| Cursor::new(prefix).i64();
    let float = |prefix: &Prefix| f64::from_bits(Cursor::new(prefix).u64());
    match column_type {
        ColumnType::Int | ColumnType::Time => Some(ValueRange::Int(int(first), int(last))),
        ColumnType::Float => Some(ValueRange::Float(float(first), float(last))),
        ColumnType::String => {
            let (first, last) = (first.get(..usize::from(first_len))?, last.get(..usize::from(last_len))?);
            Some(ValueRange::Text(first.into(), last.into()))
        }
        ColumnType::Bool | ColumnType::Strings => None,
    }
}
