//! Sealing and opening the datagrams of gossip, without I/O and without a clock.
//!
//! ```text
//!  0   4  "gnt1"
//!  4   8  sender: chosen at random when it started
//! 12   8  number of this datagram among the sender's, from 1
//! 20   8  when it was sent, milliseconds UTC
//! 28   1  which part of the message this is, from 0
//! 29   1  in how many parts the message comes
//! 30  17  where the sender wants answers: 4 or 6, and the address in 16 bytes
//! 47   2  … and its port
//! 49      the part
//! end 32  HMAC-SHA256 of all before, with the cluster's key
//! ```
//!
//! Numbers are little-endian. Answers go to the address in the datagram and not to where it seems to come from, so a
//! datagram that was caught and sent again makes nobody else receive anything.
//!
//! Invariants: nothing of a datagram is believed before its proof; a datagram counts once; what is kept is bounded, of
//! senders and of messages whose other part is awaited.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::key::ClusterKey;

/// The largest payload of a UDP datagram.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;
/// How far a sender's clock may be from the receiver's, and how long a datagram may be on its way.
pub(super) const WINDOW_MS: u64 = 60_000;

const MAGIC: &[u8; 4] = b"gnt1";
const HEAD_BYTES: usize = 49;
const PROOF_BYTES: usize = 32;
const PART_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEAD_BYTES - PROOF_BYTES;
/// The largest message is one datagram long by itself, so it needs two.
const PARTS_MAX: usize = 2;
/// Senders whose numbers are remembered.
const SENDERS_MAX: usize = 8_192;
/// Messages of which a part is awaited.
const AWAITED_MAX: usize = 64;

/// Why a datagram is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// It is no datagram of ours, or holds no message that members send.
    Malformed,
    /// It was not made with the cluster's key.
    Forged,
    /// It was sent too long ago, or by a clock that is too far off.
    Stale,
    /// It was received before.
    Replayed,
    /// There are more members, or larger texts, than there may be.
    TooMany,
}

impl Refused {
    /// Every reason with its name in metrics.
    pub const ALL: [(Refused, &'static str); 5] = [
        (Refused::Malformed, "malformed"),
        (Refused::Forged, "forged"),
        (Refused::Stale, "stale"),
        (Refused::Replayed, "replayed"),
        (Refused::TooMany, "too_many"),
    ];
}

/// What makes datagrams of messages.
#[derive(Debug)]
pub(super) struct Sealer {
    key: ClusterKey,
    sender: u64,
    answer_to: SocketAddr,
    next: u64,
}

impl Sealer {
    pub(super) fn new(key: ClusterKey, sender: u64, answer_to: SocketAddr) -> Sealer {
        Sealer { key, sender, answer_to, next: 1 }
    }

    /// The datagrams of a message; none of one that is too large to be sent.
    pub(super) fn seal(&mut self, message: &[u8], now_ms: u64) -> Vec<Vec<u8>> {
        let parts: Vec<&[u8]> = match message.is_empty() {
            true => vec![message],
            false => message.chunks(PART_BYTES_MAX).collect(),
        };
        if parts.len() > PARTS_MAX {
            return Vec::new();
        }
        let count = parts.len() as u8;
        let sealed = parts.iter().enumerate().map(|(index, part)| {
            let mut datagram = Vec::with_capacity(HEAD_BYTES + part.len() + PROOF_BYTES);
            datagram.extend_from_slice(MAGIC);
            datagram.extend_from_slice(&self.sender.to_le_bytes());
            datagram.extend_from_slice(&self.next.to_le_bytes());
            datagram.extend_from_slice(&now_ms.to_le_bytes());
            datagram.extend_from_slice(&[index as u8, count]);
            put_address(&mut datagram, self.answer_to);
            datagram.extend_from_slice(part);
            let proof = self.key.prove(&datagram);
            datagram.extend_from_slice(proof.as_ref());
            self.next += 1;
            datagram
        });
        sealed.collect()
    }
}

fn put_address(datagram: &mut Vec<u8>, address: SocketAddr) {
    let (version, ip) = match address.ip() {
        IpAddr::V4(ip) => (4, ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => (6, ip.octets()),
    };
    datagram.push(version);
    datagram.extend_from_slice(&ip);
    datagram.extend_from_slice(&address.port().to_le_bytes());
}

/// The head of a datagram.
#[derive(Debug, Clone, Copy)]
struct Head {
    sender: u64,
    number: u64,
    sent_ms: u64,
    part: usize,
    parts: usize,
    answer_to: SocketAddr,
}

impl Head {
    /// What a head says; `None` when it is none.
    fn read(datagram: &[u8]) -> Option<Head> {
        let number = |at: usize| Some(u64::from_le_bytes(datagram.get(at..at + 8)?.try_into().ok()?));
        let ip: [u8; 16] = datagram.get(31..47)?.try_into().ok()?;
        let ip = match datagram.get(30)? {
            4 => IpAddr::V4(Ipv4Addr::new(ip[12], ip[13], ip[14], ip[15])),
            6 => IpAddr::V6(Ipv6Addr::from(ip)),
            _ => return None,
        };
        let port = u16::from_le_bytes(datagram.get(47..49)?.try_into().ok()?);
        let (part, parts) = (usize::from(*datagram.get(28)?), usize::from(*datagram.get(29)?));
        let head = Head {
            sender: number(4)?,
            number: number(12)?,
            sent_ms: number(20)?,
            part,
            parts,
            answer_to: SocketAddr::new(ip, port),
        };
        (part < parts && parts <= PARTS_MAX && head.number > head.part as u64).then_some(head)
    }
}

/// Which numbers of a sender were received.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    highest: u64,
    /// Bit `n` is `highest - n`.
    received: u128,
    sent_ms_max: u64,
}

impl Numbers {
    /// Notes a number. False when it was received before, or is so old that nobody knows.
    fn note(&mut self, number: u64) -> bool {
        if number > self.highest {
            let by = number - self.highest;
            self.received = if by < 128 { self.received << by } else { 0 };
            self.highest = number;
            self.received |= 1;
            return true;
        }
        let back = self.highest - number;
        if back >= 128 || self.received & (1 << back) != 0 {
            return false;
        }
        self.received |= 1 << back;
        true
    }
}

/// A message of which a part is awaited.
#[derive(Debug)]
struct Awaited {
    sender: u64,
    /// The number of its first part.
    first: u64,
    parts: Vec<Option<Vec<u8>>>,
}

/// What makes messages of datagrams. See the module.
#[derive(Debug)]
pub(super) struct Opener {
    key: ClusterKey,
    /// Who this is: its own datagrams, sent back, are nothing new.
    own: u64,
    senders: BTreeMap<u64, Numbers>,
    /// Oldest first.
    awaited: Vec<Awaited>,
}

impl Opener {
    pub(super) fn new(key: ClusterKey, own: u64) -> Opener {
        Opener { key, own, senders: BTreeMap::new(), awaited: Vec::new() }
    }

    /// The message that a datagram completes, and where its sender wants answers; `None` while a part is awaited.
    ///
    /// # Errors
    /// Why the datagram is dropped.
    pub(super) fn open(
        &mut self,
        datagram: &[u8],
        now_ms: u64,
    ) -> Result<Option<(SocketAddr, Vec<u8>)>, Refused> {
        if datagram.len() < HEAD_BYTES + PROOF_BYTES || !datagram.starts_with(MAGIC) {
            return Err(Refused::Malformed);
        }
        let (proven, proof) = datagram.split_at(datagram.len() - PROOF_BYTES);
        if !self.key.is_proven(proven, proof) {
            return Err(Refused::Forged);
        }
        let head = Head::read(proven).ok_or(Refused::Malformed)?;
        if head.sent_ms.abs_diff(now_ms) > WINDOW_MS {
            return Err(Refused::Stale);
        }
        self.count_once(&head, now_ms)?;
        let part = proven[HEAD_BYTES..].to_vec();
        if head.parts == 1 {
            return Ok(Some((head.answer_to, part)));
        }
        Ok(self.complete(&head, part).map(|message| (head.answer_to, message)))
    }

    fn count_once(&mut self, head: &Head, now_ms: u64) -> Result<(), Refused> {
        if head.sender == self.own {
            return Err(Refused::Replayed);
        }
        if let Some(numbers) = self.senders.get_mut(&head.sender) {
            numbers.sent_ms_max = numbers.sent_ms_max.max(head.sent_ms);
            return if numbers.note(head.number) { Ok(()) } else { Err(Refused::Replayed) };
        }
        if self.senders.len() >= SENDERS_MAX {
            // Whatever these sent is stale by now, so that it need not be remembered.
            self.senders.retain(|_, numbers| now_ms.saturating_sub(numbers.sent_ms_max) <= WINDOW_MS);
            if self.senders.len() >= SENDERS_MAX {
                return Err(Refused::TooMany);
            }
        }
        let numbers = Numbers { highest: head.number, received: 1, sent_ms_max: head.sent_ms };
        self.senders.insert(head.sender, numbers);
        Ok(())
    }

    /// Puts a part to its message; gives back the message when it is complete.
    fn complete(&mut self, head: &Head, part: Vec<u8>) -> Option<Vec<u8>> {
        let first = head.number - head.part as u64;
        let found = self.awaited.iter().position(|one| (one.sender, one.first) == (head.sender, first));
        let index = found.unwrap_or_else(|| {
            if self.awaited.len() == AWAITED_MAX {
                self.awaited.remove(0);
            }
            self.awaited.push(Awaited { sender: head.sender, first, parts: vec![None; head.parts] });
            self.awaited.len() - 1
        });
        *self.awaited[index].parts.get_mut(head.part)? = Some(part);
        if self.awaited[index].parts.iter().any(Option::is_none) {
            return None;
        }
        let message = self.awaited.remove(index);
        Some(message.parts.into_iter().flatten().flatten().collect())
    }
}

#[cfg(test)]
mod tests;
