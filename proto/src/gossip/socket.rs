//! The socket of gossip: UDP, with every datagram sealed and every message looked at before it is decoded.
//!
//! The library that keeps the members' state hands over messages that only it can encode and decode, and it does so on
//! its own UDP socket alone. So each message takes a detour on this machine: a socket of the library (`codec`) and one of
//! ours (`relay`) on loopback send each other the plain bytes, one message at a time, and only sealed bytes leave the
//! machine. What reaches the codec from anybody but the relay is dropped.
//!
//! Invariant: the codec never sees a byte that was not proven and admitted.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket as Codec};
use futures::FutureExt;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use super::key::ClusterKey;
use super::seal::{DATAGRAM_BYTES_MAX, Opener, Refused, Sealer};
use super::shape::Known;
use crate::network::{Datagrams, Network};

/// A message that the library does not read in this time is none.
const DECODE_TIME_MAX: Duration = Duration::from_millis(200);
/// Dropped datagrams are told in the log at most this often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Datagrams that were dropped, by reason, and those that were read.
#[derive(Debug, Default)]
pub struct Counts {
    refused: [AtomicU64; Refused::ALL.len()],
    read: AtomicU64,
}

impl Counts {
    /// How many were dropped for each reason, by its name.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.refused.iter().map(|count| count.load(Ordering::Relaxed));
        Refused::ALL.iter().zip(counts).map(|((_, name), count)| (*name, count))
    }

    /// How many messages were read.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    fn refuse(&self, why: Refused) {
        if let Some(index) = Refused::ALL.iter().position(|(reason, _)| *reason == why) {
            self.refused[index].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How sockets of gossip are made.
pub(super) struct Sealed {
    pub(super) key: ClusterKey,
    /// Who this is in datagrams.
    pub(super) sender: u64,
    /// How messages name this run.
    pub(super) name: String,
    pub(super) started: u64,
    /// Where others reach it.
    pub(super) advertised: SocketAddr,
    pub(super) counts: Arc<Counts>,
    /// The socket that was bound to learn its port; used once.
    pub(super) bound: Mutex<Option<Box<dyn Datagrams>>>,
    /// Where the next is bound.
    pub(super) network: Arc<dyn Network>,
}

#[async_trait::async_trait]
impl Transport for Sealed {
    async fn open(&self, listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner).take();
        let outer = match bound {
            Some(bound) => bound,
            None => self.network.datagrams(listen).await?,
        };
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let codec = Codec::open(loopback).await?;
        let relay = UdpSocket::bind(loopback).await?;
        relay.connect(codec.local_addr()?).await?;
        Ok(Box::new(SealedSocket {
            outer,
            relay_at: relay.local_addr()?,
            relay,
            codec,
            sealer: Sealer::new(self.key.clone(), self.sender, self.advertised),
            opener: Opener::new(self.key.clone(), self.sender),
            known: Known::new(&self.name, self.started, self.advertised),
            counts: Arc::clone(&self.counts),
            buffer: vec![0; DATAGRAM_BYTES_MAX + 1],
            decoding: None,
            told: None,
        }))
    }
}

struct SealedSocket {
    outer: Box<dyn Datagrams>,
    relay: UdpSocket,
    relay_at: SocketAddr,
    codec: Codec,
    sealer: Sealer,
    opener: Opener,
    known: Known,
    counts: Arc<Counts>,
    buffer: Vec<u8>,
    /// A message is on its way from the relay to the codec: who gets the answer, and until when it is awaited.
    decoding: Option<(SocketAddr, Instant)>,
    told: Option<Instant>,
}

#[async_trait::async_trait]
impl Socket for SealedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.outer.local_address()?)
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        // A message that was given up may have come after all.
        while self.relay.try_recv(&mut self.buffer).is_ok() {}
        self.codec.send(self.relay_at, envelope).await?;
        let Ok(length) = timeout(DECODE_TIME_MAX, self.relay.recv(&mut self.buffer)).await else {
            return Ok(SendOutcome { num_bytes_sent: 0 });
        };
        let mut sent = 0;
        for datagram in self.sealer.seal(&self.buffer[..length?], now_ms()) {
            match self.outer.send_to(&datagram, to).await {
                Ok(bytes) => sent += bytes,
                // One address that cannot be reached is no broken socket.
                Err(error) => tracing::debug!(%to, %error, "gossip was not sent"),
            }
        }
        Ok(SendOutcome { num_bytes_sent: sent })
    }

    /// May be dropped at any await: what was received then is lost, or read at the next call.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            if let Some((from, until)) = self.decoding {
                match timeout_at(until, self.codec.recv()).await {
                    Ok(outcome) => {
                        let outcome = outcome?;
                        if outcome.from_addr == self.relay_at {
                            self.decoding = None;
                            self.counts.read.fetch_add(1, Ordering::Relaxed);
                            return Ok(RecvOutcome { from_addr: from, ..outcome });
                        }
                    }
                    Err(_) => {
                        self.decoding = None;
                        self.refuse(Refused::Malformed, from);
                    }
                }
                continue;
            }
            let (length, seems_from) = match self.outer.recv_from(&mut self.buffer).await {
                Ok(received) => received,
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            match self.open(length) {
                Ok(None) => {}
                Err(why) => self.refuse(why, seems_from),
                Ok(Some((from, message))) => {
                    while self.codec.recv().now_or_never().is_some() {}
                    self.relay.send(&message).await?;
                    self.decoding = Some((from, Instant::now() + DECODE_TIME_MAX));
                }
            }
        }
    }
}

impl SealedSocket {
    /// The message that the datagram in the buffer completes, when it may be believed.
    fn open(&mut self, length: usize) -> Result<Option<(SocketAddr, Vec<u8>)>, Refused> {
        let now = now_ms();
        let Some((from, message)) = self.opener.open(&self.buffer[..length], now)? else { return Ok(None) };
        self.known.admit(&message, now)?;
        Ok(Some((from, message)))
    }

    fn refuse(&mut self, why: Refused, from: SocketAddr) {
        self.counts.refuse(why);
        if self.told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
            self.told = Some(Instant::now());
            tracing::warn!(?why, seems_from = %from, "gossip is dropped; others are counted and not told for a minute");
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::Interrupted
    )
}

/// Milliseconds UTC.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
