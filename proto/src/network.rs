//! The network that servers are in: how they connect and how they send datagrams. [`System`] is the one of this machine;
//! a simulation puts its own in its place, and listens with an [`Accept`] of its own ([`crate::address::Listener`]).
//!
//! Whoever stands in for the system decides what arrives, and when; it never sees what TLS hides.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UdpSocket};

use crate::address::ChildAddress;

/// Bytes in both directions, in order.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Takes connections.
pub trait Accept: fmt::Debug + Send {
    /// The next connection, and who connected.
    ///
    /// # Errors
    /// When accepting fails; the caller tries again after a while.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Stream>, SocketAddr)>>;

    /// Where it listens.
    ///
    /// # Errors
    /// When nobody says.
    fn local_address(&self) -> io::Result<ChildAddress>;
}

/// A socket for datagrams.
#[async_trait]
pub trait Datagrams: fmt::Debug + Send + Sync {
    /// Sends one.
    ///
    /// # Errors
    /// When it cannot be sent to this address.
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize>;

    /// The next one, cut to the buffer, and whom it seems to come from. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When receiving fails.
    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// See the module.
#[async_trait]
pub trait Network: fmt::Debug + Send + Sync {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// When nobody is reached.
    async fn connect(&self, authority: &str) -> io::Result<Box<dyn Stream>>;

    /// A socket for datagrams; port 0 takes a free one.
    ///
    /// # Errors
    /// When it cannot be bound there.
    async fn datagrams(&self, at: SocketAddr) -> io::Result<Box<dyn Datagrams>>;
}

/// The network of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

#[async_trait]
impl Network for System {
    async fn connect(&self, authority: &str) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn datagrams(&self, at: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        Ok(Box::new(UdpSocket::bind(at).await?))
    }
}

#[async_trait]
impl Datagrams for UdpSocket {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        UdpSocket::send_to(self, bytes, to).await
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        UdpSocket::recv_from(self, buffer).await
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}
