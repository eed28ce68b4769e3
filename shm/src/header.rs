//! The header of the catalogue: pure byte code, no system calls.
//!
//! The header is a frozen prefix. Its fields never move, never change their meaning and are never removed, in
//! any version, because a build must be able to refuse what another build wrote, and to say why. A later
//! `header_version` may only add fields behind it.
//!
//! All numbers are little-endian.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic |
//! | 8 | 4 | header version |
//! | 12 | 4 | layout version: of the payload and of what it speaks of |
//! | 16 | 4 | byte order mark of the writer's machine: 1 little, 2 big |
//! | 20 | 4 | page size of the writer's machine |
//! | 24 | 16 | instance |
//! | 40 | 4 | uid of the writer |
//! | 44 | 4 | zero |
//! | 48 | 8 | generation of the disk state that the contents belong to |
//! | 56 | 8 | size of the segment |
//! | 64 | 8 | length of the payload, which follows the header and fills the segment |
//! | 72 | 8 | xxh3 of the payload |
//! | 80 | 8 | xxh3 of bytes 0 to 80 |
//! | 88 | 8 | valid mark, outside the checksum: [`VALID_MARK`] or zero |
//!
//! Invariants: decoding never panics, whatever the bytes; encoding what was decoded gives the same bytes.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{HeaderError, Refusal};
use crate::name::Instance;

/// The length of the header.
pub const HEADER_BYTES: usize = 96;
/// The version of the header that this build writes and reads.
pub const HEADER_VERSION: u32 = 1;
/// The valid mark when it is set. Clear is zero, so that memory nobody wrote is not valid.
pub const VALID_MARK: u64 = 0x6469_6c61_765f_6e67;
/// The first eight bytes, `GANNETSH`.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"GANNETSH");
/// The byte order of this machine.
pub(crate) const BYTE_ORDER: u32 = if cfg!(target_endian = "little") { 1 } else { 2 };

const MAGIC_AT: usize = 0;
const HEADER_VERSION_AT: usize = 8;
const LAYOUT_VERSION_AT: usize = 12;
const BYTE_ORDER_AT: usize = 16;
const PAGE_BYTES_AT: usize = 20;
const INSTANCE_AT: usize = 24;
const OWNER_AT: usize = 40;
const ZERO_AT: usize = 44;
const GENERATION_AT: usize = 48;
const SEGMENT_BYTES_AT: usize = 56;
const PAYLOAD_BYTES_AT: usize = 64;
const PAYLOAD_CHECKSUM_AT: usize = 72;
const HEADER_CHECKSUM_AT: usize = 80;
/// Where the valid mark stands; it is the only field that is written by itself.
pub(crate) const VALID_MARK_AT: usize = 88;

const _: () = {
    assert!(HEADER_VERSION_AT == MAGIC_AT + 8);
    assert!(LAYOUT_VERSION_AT == HEADER_VERSION_AT + 4);
    assert!(BYTE_ORDER_AT == LAYOUT_VERSION_AT + 4);
    assert!(PAGE_BYTES_AT == BYTE_ORDER_AT + 4);
    assert!(INSTANCE_AT == PAGE_BYTES_AT + 4);
    assert!(OWNER_AT == INSTANCE_AT + 16);
    assert!(ZERO_AT == OWNER_AT + 4);
    assert!(GENERATION_AT == ZERO_AT + 4);
    assert!(SEGMENT_BYTES_AT == GENERATION_AT + 8);
    assert!(PAYLOAD_BYTES_AT == SEGMENT_BYTES_AT + 8);
    assert!(PAYLOAD_CHECKSUM_AT == PAYLOAD_BYTES_AT + 8);
    assert!(HEADER_CHECKSUM_AT == PAYLOAD_CHECKSUM_AT + 8);
    assert!(VALID_MARK_AT == HEADER_CHECKSUM_AT + 8);
    assert!(HEADER_BYTES == VALID_MARK_AT + 8);
    assert!(HEADER_BYTES <= 256);
    assert!(VALID_MARK != 0);
};

/// The fields of the header, without the magic and the header's own checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The version of the header.
    pub header_version: u32,
    /// The version of the payload and of what it speaks of.
    pub layout_version: u32,
    /// The byte order of the writer's machine: 1 little, 2 big.
    pub byte_order: u32,
    /// The page size of the writer's machine.
    pub page_bytes: u32,
    /// Whose catalogue this is.
    pub instance: Instance,
    /// The user who wrote it.
    pub owner_uid: u32,
    /// The generation of the disk state that the contents belong to.
    pub generation: u64,
    /// The size of the segment.
    pub segment_bytes: u64,
    /// The length of the payload.
    pub payload_bytes: u64,
    /// The xxh3 of the payload.
    pub payload_checksum: u64,
    /// [`VALID_MARK`] when the catalogue is complete and was not taken yet.
    pub valid_mark: u64,
}

/// What the reader knows by itself and compares a header with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The size that the system says the segment has.
    pub segment_bytes: u64,
    /// The layout that this build reads.
    pub layout_version: u32,
    /// The page size of this machine.
    pub page_bytes: u32,
    /// Who we are.
    pub instance: Instance,
    /// The user we run as.
    pub owner_uid: u32,
    /// The generation that the disk has.
    pub generation: u64,
    /// The longest payload that is believed.
    pub payload_bytes_max: u64,
}

/// The checksum of a payload, as the header holds it.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

impl Header {
    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(MAGIC_AT, &MAGIC.to_le_bytes());
        put(HEADER_VERSION_AT, &self.header_version.to_le_bytes());
        put(LAYOUT_VERSION_AT, &self.layout_version.to_le_bytes());
        put(BYTE_ORDER_AT, &self.byte_order.to_le_bytes());
        put(PAGE_BYTES_AT, &self.page_bytes.to_le_bytes());
        put(INSTANCE_AT, &self.instance.to_bytes());
        put(OWNER_AT, &self.owner_uid.to_le_bytes());
        put(GENERATION_AT, &self.generation.to_le_bytes());
        put(SEGMENT_BYTES_AT, &self.segment_bytes.to_le_bytes());
        put(PAYLOAD_BYTES_AT, &self.payload_bytes.to_le_bytes());
        put(PAYLOAD_CHECKSUM_AT, &self.payload_checksum.to_le_bytes());
        put(VALID_MARK_AT, &self.valid_mark.to_le_bytes());
        let header_checksum = checksum(&bytes[..HEADER_CHECKSUM_AT]);
        bytes[HEADER_CHECKSUM_AT..VALID_MARK_AT].copy_from_slice(&header_checksum.to_le_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`: its length, magic, checksum and what is always zero are gates, no other
    /// field is judged here, so that a header of any version can be looked at.
    pub fn decode(bytes: &[u8]) -> Result<Header, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::TooShort { found: bytes.len() as u64, expected: HEADER_BYTES as u64 });
        };
        let magic = u64_at(bytes, MAGIC_AT);
        if magic != MAGIC {
            return Err(HeaderError::Magic { found: magic, expected: MAGIC });
        }
        let found = u64_at(bytes, HEADER_CHECKSUM_AT);
        let expected = checksum(&bytes[..HEADER_CHECKSUM_AT]);
        if found != expected {
            return Err(HeaderError::Checksum { found, expected });
        }
        match u32_at(bytes, ZERO_AT) {
            0 => {}
            found => return Err(HeaderError::Reserved { found }),
        }
        Ok(Header {
            header_version: u32_at(bytes, HEADER_VERSION_AT),
            layout_version: u32_at(bytes, LAYOUT_VERSION_AT),
            byte_order: u32_at(bytes, BYTE_ORDER_AT),
            page_bytes: u32_at(bytes, PAGE_BYTES_AT),
            instance: Instance::from_bytes(array_at(bytes, INSTANCE_AT)),
            owner_uid: u32_at(bytes, OWNER_AT),
            generation: u64_at(bytes, GENERATION_AT),
            segment_bytes: u64_at(bytes, SEGMENT_BYTES_AT),
            payload_bytes: u64_at(bytes, PAYLOAD_BYTES_AT),
            payload_checksum: u64_at(bytes, PAYLOAD_CHECKSUM_AT),
            valid_mark: u64_at(bytes, VALID_MARK_AT),
        })
    }

    /// The gates behind the magic and the checksum, in a fixed order. The first that fails is the answer.
    pub fn check(&self, expected: &Expected) -> Result<(), Refusal> {
        gate(expected.segment_bytes, self.segment_bytes, |found, expected| Refusal::SegmentBytes {
            found,
            expected,
        })?;
        gate(self.header_version, HEADER_VERSION, |found, expected| Refusal::HeaderVersion {
            found,
            expected,
        })?;
        gate(self.layout_version, expected.layout_version, |found, expected| Refusal::LayoutVersion {
            found,
            expected,
        })?;
        gate(self.byte_order, BYTE_ORDER, |found, expected| Refusal::ByteOrder { found, expected })?;
        gate(self.page_bytes, expected.page_bytes, |found, expected| Refusal::PageBytes { found, expected })?;
        gate(self.instance, expected.instance, |found, expected| Refusal::Instance { found, expected })?;
        gate(self.owner_uid, expected.owner_uid, |found, expected| Refusal::Owner { found, expected })?;
        gate(self.generation, expected.generation, |found, expected| Refusal::Generation {
            found,
            expected,
        })?;
        if self.payload_bytes > expected.payload_bytes_max {
            let limit = expected.payload_bytes_max;
            return Err(Refusal::PayloadTooLong { found: self.payload_bytes, limit });
        }
        let room = self.segment_bytes.saturating_sub(HEADER_BYTES as u64);
        gate(self.payload_bytes, room, |found, expected| Refusal::PayloadBytes { found, expected })?;
        match self.valid_mark {
            VALID_MARK => Ok(()),
            0 => Err(Refusal::ValidMarkClear),
            found => Err(Refusal::ValidMark { found, expected: VALID_MARK }),
        }
    }

    /// The last gate, over the payload.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), Refusal> {
        gate(payload.len() as u64, self.payload_bytes, |found, expected| Refusal::PayloadBytes {
            found,
            expected,
        })?;
        gate(checksum(payload), self.payload_checksum, |found, expected| Refusal::PayloadChecksum {
            found,
            expected,
        })
    }
}

fn gate<T: PartialEq>(found: T, expected: T, refusal: impl Fn(T, T) -> Refusal) -> Result<(), Refusal> {
    if found == expected { Ok(()) } else { Err(refusal(found, expected)) }
}

// The offsets are constants whose ends are asserted above to lie inside the header.
fn array_at<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0u8; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests;
