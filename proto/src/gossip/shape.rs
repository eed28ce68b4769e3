//! What messages of gossip may hold: read before the library that keeps the members' state sees them.
//!
//! A message that is proven comes from a member, and a member may be broken or old. So everything that could make the
//! state grow without bound, or break a rule that the library takes for granted, is refused here: too many members, keys
//! that nobody sets, long texts, deletions, versions that go back, blocks that unpack to more than a message is worth.
//!
//! The format is chitchat's (0.13, both versions of its digest). It says of itself which version it is.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::seal::Refused;

/// Members, those that ended a short while ago too.
pub(super) const MEMBERS_MAX: usize = 4_096;
/// The one key that members set: what they say of themselves.
pub(super) const KEY: &str = "is";
/// The longest text that a member says of itself, bytes.
pub(super) const VALUE_BYTES_MAX: usize = 1_024;
/// The longest name of a member or a cluster, bytes.
pub(super) const NAME_BYTES_MAX: usize = 128;
/// What the blocks of one list may unpack to, bytes.
const UNPACKED_BYTES_MAX: usize = 8 << 20;
/// A member that no digest named for so long is forgotten; the library forgets it earlier.
pub(super) const FORGET_MS: u64 = 2_400_000;

const MAGIC: u16 = 45_139;
const BLOCK_BYTES_MAX: usize = 65_535;

/// A run of one member: its name, when it started, and where it gossips.
type Run = (String, u64, SocketAddr);

/// Who was named in messages; see the module.
#[derive(Debug)]
pub(super) struct Known {
    /// Who this is: nobody else says what it is.
    own: Run,
    /// When a digest named it last.
    runs: HashMap<Run, u64>,
}

impl Known {
    pub(super) fn new(name: &str, started: u64, at: SocketAddr) -> Known {
        Known { own: (name.to_owned(), started, at), runs: HashMap::new() }
    }

    /// Checks a message, and notes whom it names.
    ///
    /// # Errors
    /// Why it is to be dropped; then nobody is noted.
    pub(super) fn admit(&mut self, message: &[u8], now_ms: u64) -> Result<(), Refused> {
        let mut text = Reader(message);
        if text.u16()? != MAGIC {
            return Err(Refused::Malformed);
        }
        let version = text.u8()?;
        let kind = text.u8()?;
        let mut named = Vec::new();
        if kind <= 1 {
            named = digest(version, &mut text)?;
        }
        match kind {
            0 => drop(text.string(NAME_BYTES_MAX)?),
            1 | 2 => delta(&unpacked(&mut text)?, &self.own)?,
            3 => {}
            _ => return Err(Refused::Malformed),
        }
        if !text.0.is_empty() {
            return Err(Refused::Malformed);
        }
        self.note(named, now_ms)
    }

    fn note(&mut self, named: Vec<Run>, now_ms: u64) -> Result<(), Refused> {
        let new = |runs: &HashMap<Run, u64>| named.iter().filter(|run| !runs.contains_key(*run)).count();
        if self.runs.len() + new(&self.runs) > MEMBERS_MAX {
            self.runs.retain(|_, seen| now_ms.saturating_sub(*seen) <= FORGET_MS);
            if self.runs.len() + new(&self.runs) > MEMBERS_MAX {
                return Err(Refused::TooMany);
            }
        }
        self.runs.extend(named.into_iter().map(|run| (run, now_ms)));
        Ok(())
    }
}

/// The members that a digest names, each once.
fn digest(version: u8, text: &mut Reader<'_>) -> Result<Vec<Run>, Refused> {
    let mut named = Vec::new();
    match version {
        0 => {
            for _ in 0..text.u16()? {
                named.push(digest_entry(text)?);
                limited(named.len())?;
            }
        }
        1 => {
            let bytes = unpacked(text)?;
            let mut entries = Reader(&bytes);
            while !entries.0.is_empty() {
                named.push(digest_entry(&mut entries)?);
                limited(named.len())?;
            }
        }
        _ => return Err(Refused::Malformed),
    }
    named.sort();
    named.dedup();
    Ok(named)
}

fn limited(members: usize) -> Result<(), Refused> {
    if members > MEMBERS_MAX { Err(Refused::TooMany) } else { Ok(()) }
}

fn digest_entry(text: &mut Reader<'_>) -> Result<Run, Refused> {
    let run = text.run()?;
    let (_heartbeat, forgotten, _version) = (text.u64()?, text.u64()?, text.u64()?);
    none(forgotten)?;
    Ok(run)
}

/// Nobody deletes what they said, so nothing was ever forgotten of it.
fn none(version: u64) -> Result<(), Refused> {
    if version == 0 { Ok(()) } else { Err(Refused::Malformed) }
}

/// Checks what members say of themselves, as a delta tells it.
fn delta(bytes: &[u8], own: &Run) -> Result<(), Refused> {
    let mut text = Reader(bytes);
    // The version of the member that is being told, and whether only that was told of it.
    let mut version: Option<u64> = None;
    let (mut members, mut closed) = (HashSet::new(), true);
    while !text.0.is_empty() {
        match text.u8()? {
            0 => {
                let run = text.run()?;
                if run == *own || !members.insert(run) {
                    return Err(Refused::Malformed);
                }
                none(text.u64()?)?;
                text.u64()?;
                limited(members.len())?;
                (version, closed) = (Some(0), false);
            }
            1 if !closed => {
                if text.string(NAME_BYTES_MAX)? != KEY {
                    return Err(Refused::TooMany);
                }
                text.string(VALUE_BYTES_MAX)?;
                let next = text.u64()?;
                if text.u8()? != 0 || version.is_none_or(|before| next <= before) {
                    return Err(Refused::Malformed);
                }
                version = Some(next);
            }
            // Only of a member of which nothing else is told.
            2 if !closed && version == Some(0) => {
                text.u64()?;
                closed = true;
            }
            _ => return Err(Refused::Malformed),
        }
    }
    Ok(())
}

/// The bytes of a list of blocks, packed or not.
fn unpacked(text: &mut Reader<'_>) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    let mut block = vec![0; BLOCK_BYTES_MAX];
    loop {
        let kind = text.u8()?;
        if kind == 0 {
            return Ok(bytes);
        }
        let length = usize::from(text.u16()?);
        let packed = text.take(length)?;
        match kind {
            1 => {
                let length = zstd::bulk::decompress_to_buffer(packed, &mut block);
                let length = length.map_err(|_| Refused::Malformed)?;
                bytes.extend_from_slice(&block[..length]);
            }
            2 => bytes.extend_from_slice(packed),
            _ => return Err(Refused::Malformed),
        }
        if bytes.len() > UNPACKED_BYTES_MAX {
            return Err(Refused::TooMany);
        }
    }
}

/// Reads from the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Refused::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        self.take(N)?.try_into().map_err(|_| Refused::Malformed)
    }

    fn u8(&mut self) -> Result<u8, Refused> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, Refused> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Refused> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn string(&mut self, bytes_max: usize) -> Result<&'a str, Refused> {
        let length = usize::from(self.u16()?);
        if length > bytes_max {
            return Err(Refused::TooMany);
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| Refused::Malformed)
    }

    fn run(&mut self) -> Result<Run, Refused> {
        let name = self.string(NAME_BYTES_MAX)?.to_owned();
        let started = self.u64()?;
        let ip = match self.u8()? {
            4 => std::net::IpAddr::from(self.array::<4>()?),
            6 => std::net::IpAddr::from(self.array::<16>()?),
            _ => return Err(Refused::Malformed),
        };
        Ok((name, started, SocketAddr::new(ip, self.u16()?)))
    }
}

#[cfg(test)]
mod tests;
