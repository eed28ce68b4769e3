//! The simulated network as our servers see it: listeners, connections and datagrams of turmoil behind the traits of
//! `gannet_proto::network`, and the mischief that somebody can do to datagrams.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use gannet_proto::address::ChildAddress;
use gannet_proto::network::{Accept, Datagrams, Network, Stream};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

/// Datagrams of the past that can come again.
const KEPT_MAX: usize = 64;

/// What is done to datagrams, while it is switched on.
#[derive(Debug)]
pub(crate) struct Mischief {
    on: AtomicBool,
    rng: Mutex<StdRng>,
    /// What was sent, by anybody.
    heard: Mutex<Vec<Vec<u8>>>,
}

impl Mischief {
    pub(crate) fn new(rng: StdRng) -> Arc<Mischief> {
        Arc::new(Mischief { on: AtomicBool::new(false), rng: Mutex::new(rng), heard: Mutex::default() })
    }

    pub(crate) fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// What goes out in place of a datagram.
    fn instead(&self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut heard = self.heard.lock();
        if heard.len() < KEPT_MAX {
            heard.push(datagram.to_vec());
        }
        if !self.on.load(Ordering::Relaxed) {
            return vec![datagram.to_vec()];
        }
        let mut rng = self.rng.lock();
        let mut sent = datagram.to_vec();
        match rng.random_range(0..6) {
            0 => Vec::new(),
            1 => vec![sent.clone(), sent],
            2 => {
                let at = rng.random_range(0..sent.len().max(1));
                if let Some(byte) = sent.get_mut(at) {
                    *byte ^= 1 << rng.random_range(0..8);
                }
                vec![sent]
            }
            3 => {
                sent.truncate(rng.random_range(0..=datagram.len()));
                vec![sent]
            }
            4 => vec![heard[rng.random_range(0..heard.len())].clone(), sent],
            _ => vec![sent],
        }
    }
}

/// The network of a simulation.
#[derive(Debug, Clone)]
pub(crate) struct Wires {
    pub(crate) mischief: Arc<Mischief>,
}

#[async_trait]
impl Network for Wires {
    async fn connect(&self, authority: &str) -> io::Result<Box<dyn Stream>> {
        let at: SocketAddr = authority.parse().map_err(io::Error::other)?;
        Ok(Box::new(TcpStream::connect(at).await?))
    }

    async fn datagrams(&self, at: SocketAddr) -> io::Result<Box<dyn Datagrams>> {
        let socket = UdpSocket::bind(at).await?;
        Ok(Box::new(Post { socket, mischief: Arc::clone(&self.mischief) }))
    }
}

#[derive(Debug)]
struct Post {
    socket: UdpSocket,
    mischief: Arc<Mischief>,
}

#[async_trait]
impl Datagrams for Post {
    async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        for datagram in self.mischief.instead(bytes) {
            self.socket.send_to(&datagram, to).await?;
        }
        Ok(bytes.len())
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

type Accepting = Pin<Box<dyn Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send>>;

/// A listener of a simulated host.
pub(crate) struct Door {
    listener: Arc<TcpListener>,
    accepting: Option<Accepting>,
}

impl Door {
    /// Listens on this port of the host that it runs on.
    pub(crate) async fn open(port: u16) -> io::Result<Box<Door>> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        Ok(Box::new(Door { listener: Arc::new(listener), accepting: None }))
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl Accept for Door {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Stream>, SocketAddr)>> {
        let accepting = self.accepting.get_or_insert_with(|| {
            let listener = Arc::clone(&self.listener);
            Box::pin(async move { listener.accept().await })
        });
        let accepted = ready!(accepting.as_mut().poll(cx));
        self.accepting = None;
        Poll::Ready(accepted.map(|(stream, peer)| (Box::new(stream) as Box<dyn Stream>, peer)))
    }

    fn local_address(&self) -> io::Result<ChildAddress> {
        self.listener.local_addr().map(|at| ChildAddress::Tcp(at.to_string()))
    }
}
