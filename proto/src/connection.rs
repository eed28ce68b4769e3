//! Connections that a listener accepts, and what those who connect must do to stay: come to the point.
//!
//! A connection is nothing to anybody until its first bytes are there: TLS when it is asked for, and then the first line
//! of HTTP/1 or the preface of HTTP/2. Whoever takes too long for that is cut off, and only so many may be there at once;
//! so those who connect and say nothing cannot keep others out for long. What comes after the first bytes is the business
//! of the server above.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::address::Listener;
use crate::network::Stream;
use crate::tls::Tls;

/// A listener that cannot accept (for want of file descriptors, say) waits this long before it tries again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// What HTTP/2 begins with. Servers wait for all of it as long as what comes looks like it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What connections must do.
#[derive(Debug, Clone)]
pub struct Guard {
    /// TLS that they must speak.
    pub tls: Option<Arc<Tls>>,
    /// How long they may take to say what they want.
    pub first_bytes: Duration,
    /// How many may be there at once; those who come then wait in the system's queue.
    pub connections_max: usize,
}

impl Default for Guard {
    fn default() -> Guard {
        Guard { tls: None, first_bytes: Duration::from_secs(10), connections_max: 4096 }
    }
}

type Waiting = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// The connections of a [`Listener`].
pub struct Incoming {
    listener: Listener,
    guard: Guard,
    /// Room for connections.
    room: Arc<Semaphore>,
    /// The wait for room for the next one.
    waiting: Option<Waiting>,
    permit: Option<OwnedSemaphorePermit>,
    /// Set while accepting fails.
    retry: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("listener", &self.listener)
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl Incoming {
    pub(crate) fn new(listener: Listener, guard: Guard) -> Incoming {
        let room = Arc::new(Semaphore::new(guard.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
        Incoming { listener, guard, room, waiting: None, permit: None, retry: None }
    }

    /// Waits until one more connection may come.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.permit.is_none() {
            let room = &self.room;
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(Arc::clone(room).acquire_owned()));
            // It fails when the semaphore is closed, and nobody closes it.
            self.permit = ready!(waiting.as_mut().poll(cx)).ok();
            self.waiting = None;
        }
        Poll::Ready(())
    }
}

impl tokio_stream::Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(retry) = self.retry.as_mut() {
                ready!(retry.as_mut().poll(cx));
                self.retry = None;
            }
            ready!(self.poll_room(cx));
            let accepted = match &mut self.listener {
                Listener::Tcp(listener) => ready!(listener.poll_accept(cx)).map(|(stream, peer)| {
                    // A refused option costs latency, not correctness.
                    let _ = stream.set_nodelay(true);
                    (opened(&self.guard, Box::new(stream)), Some(peer))
                }),
                Listener::Unix(listener, _) => ready!(listener.poll_accept(cx)).map(|(stream, _)| {
                    let stream: Box<dyn Stream> = Box::new(stream);
                    (Transport::Plain(stream), None)
                }),
                Listener::Other(listener) => ready!(listener.poll_accept(cx))
                    .map(|(stream, peer)| (opened(&self.guard, stream), Some(peer))),
            };
            match accepted {
                Ok((transport, peer)) => {
                    let permit = self.permit.take();
                    let beginning = Beginning::new(self.guard.first_bytes);
                    let connection =
                        Connection { transport, peer, beginning: Some(beginning), _permit: permit };
                    return Poll::Ready(Some(Ok(connection)));
                }
                Err(_) => self.retry = Some(Box::pin(tokio::time::sleep(ACCEPT_RETRY))),
            }
        }
    }
}

fn opened(guard: &Guard, stream: Box<dyn Stream>) -> Transport {
    match &guard.tls {
        None => Transport::Plain(stream),
        Some(tls) => Transport::Greeting(Box::new(TlsAcceptor::from(tls.server()).accept(stream))),
    }
}

/// An accepted connection of any kind.
pub struct Connection {
    transport: Transport,
    peer: Option<SocketAddr>,
    /// Until the first bytes are there.
    beginning: Option<Beginning>,
    /// Its place among those that may be there at once.
    _permit: Option<OwnedSemaphorePermit>,
}

enum Transport {
    Plain(Box<dyn Stream>),
    Tls(Box<TlsStream<Box<dyn Stream>>>),
    /// TLS is being agreed on: in the task of the connection, so that nobody else waits for it.
    Greeting(Box<tokio_rustls::Accept<Box<dyn Stream>>>),
    /// TLS was not agreed on.
    Broken,
}

/// The wait for the first bytes.
struct Beginning {
    deadline: Pin<Box<Sleep>>,
    /// How many bytes of the preface of HTTP/2 came.
    matched: usize,
}

impl Beginning {
    fn new(first_bytes: Duration) -> Beginning {
        Beginning { deadline: Box::pin(tokio::time::sleep(first_bytes)), matched: 0 }
    }

    /// Whether these bytes end it: they are no preface, or its end.
    fn ends_with(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            if PREFACE.get(self.matched) != Some(byte) {
                return true;
            }
            self.matched += 1;
        }
        self.matched == PREFACE.len()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connection {
    /// Who connected; nobody over a unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Goes on with TLS until it is agreed on, if it is asked for.
    fn poll_greeting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Transport::Greeting(greeting) = &mut self.transport else { return Poll::Ready(Ok(())) };
        match ready!(Pin::new(greeting).poll(cx)) {
            Ok(stream) => {
                self.transport = Transport::Tls(Box::new(stream));
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                tracing::debug!(peer = ?self.peer, %error, "TLS was not agreed on");
                self.transport = Transport::Broken;
                Poll::Ready(Err(error))
            }
        }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_greeting(cx))?;
        match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Greeting(_) | Transport::Broken => Poll::Ready(Err(not_agreed())),
        }
    }
}

fn not_agreed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "TLS was not agreed on")
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = this.poll_bytes(cx, buffer);
        let Some(beginning) = &mut this.beginning else { return read };
        match read {
            Poll::Ready(outcome) => {
                if beginning.ends_with(&buffer.filled()[before..]) {
                    this.beginning = None;
                }
                Poll::Ready(outcome)
            }
            Poll::Pending => {
                ready!(beginning.deadline.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was asked in time")))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_greeting(cx))?;
        match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Greeting(_) | Transport::Broken => Poll::Ready(Err(not_agreed())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
            // Nothing was written yet.
            Transport::Greeting(_) | Transport::Broken => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Greeting(_) | Transport::Broken => {
                this.transport = Transport::Broken;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_greeting(cx))?;
        match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Transport::Greeting(_) | Transport::Broken => Poll::Ready(Err(not_agreed())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            // What TLS does with several slices is what it does with one.
            Transport::Tls(_) | Transport::Greeting(_) | Transport::Broken => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_stream::{Stream as _, StreamExt};

    use super::*;

    async fn pair(guard: Guard) -> (Incoming, String) {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let at = listener.local_address().unwrap().to_string();
        (listener.guarded(guard), at)
    }

    /// Whether a server that gets only these bytes and then waits is told to give up.
    async fn check(bytes: &[u8], cut_off: bool) {
        let (mut incoming, at) =
            pair(Guard { first_bytes: Duration::from_millis(20), ..Guard::default() }).await;
        let mut client = TcpStream::connect(&at).await.unwrap();
        client.write_all(bytes).await.unwrap();
        let mut connection = incoming.next().await.unwrap().unwrap();
        let mut read = vec![0; bytes.len()];
        connection.read_exact(&mut read).await.unwrap();
        let next = tokio::time::timeout(Duration::from_millis(60), connection.read_u8()).await;
        match next {
            Ok(outcome) => {
                assert!(cut_off, "{bytes:?}");
                assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            Err(_) => assert!(!cut_off, "{bytes:?}"),
        }
    }

    #[tokio::test]
    async fn those_who_do_not_come_to_the_point_are_cut_off() {
        check(b"", true).await;
        check(b"P", true).await;
        check(b"PRI * HTTP/2.0\r\n\r\nSM", true).await;
        check(PREFACE, false).await;
        check(b"POST", false).await;
        check(b"G", false).await;
    }

    #[tokio::test]
    async fn only_so_many_are_there_at_once() {
        let (mut incoming, at) = pair(Guard { connections_max: 1, ..Guard::default() }).await;
        let _first = TcpStream::connect(&at).await.unwrap();
        let _second = TcpStream::connect(&at).await.unwrap();
        let first = incoming.next().await.unwrap().unwrap();
        assert!(at_once(&mut incoming).await.is_none());
        drop(first);
        assert!(incoming.next().await.unwrap().unwrap().peer().is_some());
    }

    /// What comes at once, if anything does.
    async fn at_once(incoming: &mut Incoming) -> Option<Connection> {
        std::future::poll_fn(|cx| match Pin::new(&mut *incoming).poll_next(cx) {
            Poll::Ready(Some(Ok(connection))) => Poll::Ready(Some(connection)),
            _ => Poll::Ready(None),
        })
        .await
    }
}
