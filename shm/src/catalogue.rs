//! The catalogue: a small segment that says what the other segments of an instance hold.
//!
//! It is published last at a stop and taken first at a start. What it says is the caller's business; here it is
//! a payload behind a header.
//!
//! Invariants:
//! - The valid mark is set by a write of its own, after everything else is in place.
//! - It is cleared before the first byte of the payload is read: if we die half-way, the next start finds it
//!   clear and goes to disk.
//! - The payload is judged as a private copy, so what was checked is what is used.

use crate::error::{Refusal, ShmError};
use crate::header::{self, Expected, HEADER_BYTES, HEADER_VERSION, Header, VALID_MARK, VALID_MARK_AT};
use crate::memory::SharedMemory;
use crate::name::Segments;
use crate::planted::{Bug, planted};

/// The longest payload, written or believed.
pub const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// What a payload was written for. Whoever takes a catalogue names the edition it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edition {
    /// The version of the payload and of what it speaks of.
    pub layout_version: u32,
    /// The generation of the disk state that the contents belong to.
    pub generation: u64,
}

/// Writes the catalogue of `segments`, in place of the one there was. It is valid when this returns without
/// an error; otherwise there is none.
///
/// The caller owns the instance, by a [`DirectoryLock`](crate::DirectoryLock) for example, and has finished
/// the segments that the payload speaks of.
pub fn publish(
    memory: &dyn SharedMemory,
    segments: &Segments,
    edition: Edition,
    payload: &[u8],
) -> Result<(), ShmError> {
    let name = segments.catalogue();
    let payload_bytes = payload.len() as u64;
    // The old catalogue speaks of the past whatever happens next. Were it left in the way of a new one, it
    // would be in the way for ever.
    match memory.unlink(&name) {
        Ok(()) | Err(ShmError::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    if payload_bytes > PAYLOAD_BYTES_MAX {
        let limit_bytes = PAYLOAD_BYTES_MAX;
        return Err(ShmError::CatalogueBytes { name, bytes: payload_bytes, limit_bytes });
    }
    let segment_bytes = HEADER_BYTES as u64 + payload_bytes;
    let header = Header {
        header_version: HEADER_VERSION,
        layout_version: edition.layout_version,
        byte_order: header::BYTE_ORDER,
        page_bytes: page_bytes(),
        instance: segments.instance(),
        owner_uid: rustix::process::geteuid().as_raw(),
        generation: edition.generation,
        segment_bytes,
        payload_bytes,
        payload_checksum: header::checksum(payload),
        valid_mark: 0,
    };
    let mut writer = memory.create(&name, segment_bytes)?;
    writer.write_at(0, &header.encode())?;
    if planted(Bug::ValidMarkEarly) {
        writer.write_at(VALID_MARK_AT as u64, &VALID_MARK.to_le_bytes())?;
    }
    writer.write_at(HEADER_BYTES as u64, payload)?;
    if !planted(Bug::ValidMarkEarly) {
        writer.write_at(VALID_MARK_AT as u64, &VALID_MARK.to_le_bytes())?;
    }
    writer.finish()
}

/// Takes the payload of the catalogue of `segments`, if it is of this very edition. It can be taken once:
/// the valid mark is clear afterwards. A refusal changes nothing, but for one of the payload's checksum,
/// which leaves the mark clear as well.
pub fn take(memory: &dyn SharedMemory, segments: &Segments, edition: Edition) -> Result<Vec<u8>, Refusal> {
    let mut opened = memory.open(&segments.catalogue())?;
    let mut header = [0u8; HEADER_BYTES];
    let present = opened.read_at(0, &mut header)?;
    // What is missing of a short segment is refused as too short.
    let header = Header::decode(header.get(..present).unwrap_or_default())?;
    header.check(&Expected {
        segment_bytes: opened.size_bytes(),
        layout_version: edition.layout_version,
        page_bytes: page_bytes(),
        instance: segments.instance(),
        owner_uid: rustix::process::geteuid().as_raw(),
        generation: if planted(Bug::GenerationNotCompared) { header.generation } else { edition.generation },
        payload_bytes_max: PAYLOAD_BYTES_MAX,
    })?;

    if !planted(Bug::MarkNotCleared) {
        opened.write_at(VALID_MARK_AT as u64, &0u64.to_le_bytes())?;
    }

    // The gates bounded the length by the size of the segment and by the limit.
    let mut payload = vec![0u8; usize::try_from(header.payload_bytes).unwrap_or(0)];
    let present = opened.read_at(HEADER_BYTES as u64, &mut payload)?;
    payload.truncate(present);
    header.check_payload(&payload)?;
    Ok(payload)
}

fn page_bytes() -> u32 {
    u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
