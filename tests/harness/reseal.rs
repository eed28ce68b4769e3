//! Checksums put right again over bytes that were changed, so that damage reaches the checks behind them.
//!
//! Written from what the formats say of themselves and not with the code that reads them, so that the two check each
//! other: an artefact that nobody changed must stay as it is. Bytes that are too broken to find the checksums in are
//! left alone.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize, width: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

fn set(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(place) = at.checked_add(8).and_then(|end| bytes.get_mut(at..end)) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

fn index(number: u64) -> Option<usize> {
    usize::try_from(number).ok()
}

/// The image of a row block: its buffers, then header and directory.
pub fn image(bytes: &mut [u8]) {
    let _ = image_or_less(bytes);
}

fn image_or_less(bytes: &mut [u8]) -> Option<()> {
    let id = number(bytes, 16)?;
    let columns = short(bytes, 12, 4)?.min(bytes.len() / 256);
    for column in 0..columns {
        for buffer in 0..6 {
            let entry = 128 + column * 256 + 112 + buffer * 24;
            let place = number(bytes, entry).zip(number(bytes, entry + 8));
            let range = place.and_then(|(at, len)| {
                let at = index(at)?;
                bytes.get(at..at.checked_add(index(len)?)?)
            });
            if let Some(range) = range {
                let checksum = xxh3_64_with_seed(range, id);
                set(bytes, entry + 16, checksum);
            }
        }
    }
    let directory = index(number(bytes, 64)?)?;
    let mut hash = Xxh3::with_seed(id);
    hash.update(bytes.get(..120)?);
    hash.update(bytes.get(128..128_usize.checked_add(directory)?)?);
    set(bytes, 120, hash.digest());
    Some(())
}

/// The catalogue: its payload, then its header.
pub fn catalogue(bytes: &mut [u8]) {
    if bytes.len() < 96 {
        return;
    }
    let payload = xxh3_64(&bytes[96..]);
    set(bytes, 72, payload);
    let header = xxh3_64(&bytes[..80]);
    set(bytes, 80, header);
}

/// The manifest: length and checksum of its second line.
pub fn manifest(body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("{{\"format\":2,\"bytes\":{},\"xxh3\":\"{:016x}\"}}\n", body.len(), xxh3_64(body))
            .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A file of the log, of this instance and with this serial: its header, then every record that can be found.
pub fn log(bytes: &mut [u8], instance: [u8; 16], serial: u64) {
    if bytes.len() < 64 {
        return;
    }
    let header = xxh3_64(&bytes[..56]);
    set(bytes, 56, header);
    let seed = xxh3_64_with_seed(&instance, serial);
    for at in records(bytes) {
        let _ = record(&mut bytes[at..], seed);
    }
}

/// Where records of a log file begin, by their magic.
pub fn records(bytes: &[u8]) -> Vec<usize> {
    (64..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(b"gannetwr")).collect()
}

/// One record at the start of these bytes.
fn record(bytes: &mut [u8], seed: u64) -> Option<()> {
    let names: usize = [82, 84, 86].into_iter().map(|at| short(bytes, at, 2)).sum::<Option<usize>>()?;
    let body = 128 + names.next_multiple_of(8);
    let end = body.checked_add(index(number(bytes, 24)?)?)?;
    if let Some(body) = bytes.get(body..end) {
        let checksum = xxh3_64(body);
        set(bytes, 32, checksum);
    }
    let checksum = xxh3_64(bytes.get(128..128 + names)?);
    set(bytes, 96, checksum);
    let checksum = xxh3_64_with_seed(bytes.get(..120)?, seed);
    set(bytes, 120, checksum);
    Some(())
}
