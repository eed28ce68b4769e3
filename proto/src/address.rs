//! How servers name each other, connect and listen: over TCP, or over a unix socket on one machine.
//!
//! A unix socket is readable and writable by its owner only. One left behind by a dead process is replaced; one that
//! somebody still answers on is not.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

/// A connection that is not made by then has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection in use or idle is asked for a sign of life this often, and given up without one.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes in flight on a stream: the pieces of an answer and the rows of a batch should not wait for window updates.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes in flight on a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of one frame that a server of ours accepts: a row batch need not come in hundreds of them.
pub const FRAME_BYTES: u32 = 1 << 20;
/// A listener that cannot accept (for want of file descriptors, say) waits this long before it tries again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The longest path of a unix socket, with room for the name it is made under.
const UNIX_PATH_BYTES_MAX: usize = 107 - MADE_UNDER.len();
/// Appended to the path while the socket is not ready to be found.
const MADE_UNDER: &str = ".new";

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChildAddress {
    /// `host:port`.
    Tcp(String),
    /// A unix socket; a relative path is relative to the working directory.
    Unix(PathBuf),
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The text is not an address.
    #[error("address `{text}` is not host:port, http://host:port or unix:PATH: {reason}")]
    Syntax {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A socket path is longer than the system takes.
    #[error("path of unix socket `{}` has {} bytes, limit {UNIX_PATH_BYTES_MAX}", .0.display(), .0.as_os_str().len())]
    PathTooLong(PathBuf),
    /// Another process listens there.
    #[error("address `{0}` is in use by another process")]
    InUse(ChildAddress),
    /// The path of a socket is taken by something else.
    #[error("`{}` exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Where.
        address: ChildAddress,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FromStr for ChildAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |reason: &str| AddressError::Syntax { text: text.to_owned(), reason: reason.to_owned() };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(wrong("the path is empty"))
            } else if path.contains('\0') {
                Err(wrong("the path has a zero byte"))
            } else {
                Ok(ChildAddress::Unix(PathBuf::from(path)))
            };
        }
        if text.starts_with("https://") {
            return Err(wrong("TLS is not supported"));
        }
        let authority = text.strip_prefix("http://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let parsed: http::uri::Authority = authority.parse().map_err(|_| wrong("the host is malformed"))?;
        if parsed.port_u16().is_none() {
            return Err(wrong("the port is missing or above 65535"));
        }
        if parsed.host().is_empty() || authority.contains('@') {
            return Err(wrong("the host is malformed"));
        }
        Ok(ChildAddress::Tcp(authority.to_owned()))
    }
}

impl fmt::Display for ChildAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChildAddress::Tcp(authority) => f.write_str(authority),
            ChildAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A channel to a server. It connects when it is first used and again whenever the connection was lost; must be called
/// inside a tokio runtime.
///
/// # Errors
/// When the address is not one that can be connected to.
pub fn connect(address: &ChildAddress) -> Result<Channel, AddressError> {
    let authority = match address {
        ChildAddress::Tcp(authority) => authority,
        // The connector below does not look at it.
        ChildAddress::Unix(_) => "localhost",
    };
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|error| AddressError::Syntax { text: address.to_string(), reason: error.to_string() })?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    Ok(match address {
        ChildAddress::Tcp(_) => endpoint.connect_lazy(),
        ChildAddress::Unix(path) => {
            let path = path.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
        }
    })
}

/// A bound listener of either kind.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket and its path.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds. Port 0 takes a free one.
    ///
    /// # Errors
    /// When another process listens there, or the system refuses; each error names the address.
    pub async fn bind(address: &ChildAddress) -> Result<Listener, AddressError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => AddressError::InUse(address.clone()),
            _ => AddressError::Listen { address: address.clone(), source },
        };
        match address {
            ChildAddress::Tcp(authority) => {
                TcpListener::bind(authority.as_str()).await.map(Listener::Tcp).map_err(failed)
            }
            ChildAddress::Unix(path) => {
                replace_stale(path, address).await?;
                bind_unix(path).map(|listener| Listener::Unix(listener, path.clone())).map_err(failed)
            }
        }
    }

    /// Where it listens; a port 0 has become the one it got.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_address(&self) -> io::Result<ChildAddress> {
        match self {
            Listener::Tcp(listener) => {
                listener.local_addr().map(|at: SocketAddr| ChildAddress::Tcp(at.to_string()))
            }
            Listener::Unix(_, path) => Ok(ChildAddress::Unix(path.clone())),
        }
    }

    /// The connections, as a tonic server takes them. The stream never ends and never fails.
    pub fn incoming(self) -> Incoming {
        Incoming { listener: self, retry: None }
    }
}

/// Checks that a socket's path is free, or held by a socket that nobody answers on.
async fn replace_stale(path: &Path, address: &ChildAddress) -> Result<(), AddressError> {
    if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
        return Err(AddressError::PathTooLong(path.to_owned()));
    }
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(AddressError::Listen { address: address.clone(), source }),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(AddressError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => Err(AddressError::InUse(address.clone())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(AddressError::Listen { address: address.clone(), source }),
        },
    }
}

/// Makes the socket under another name, closes it to everybody else, and only then gives it its name.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let mut made_under = path.as_os_str().to_owned();
    made_under.push(MADE_UNDER);
    let made_under = PathBuf::from(made_under);
    if std::fs::symlink_metadata(&made_under).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        std::fs::remove_file(&made_under)?;
    }
    let listener = UnixListener::bind(&made_under)?;
    std::fs::set_permissions(&made_under, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&made_under, path)?;
    Ok(listener)
}

/// The connections of a [`Listener`].
#[derive(Debug)]
pub struct Incoming {
    listener: Listener,
    /// Set while accepting fails.
    retry: Option<Pin<Box<Sleep>>>,
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(retry) = self.retry.as_mut() {
                ready!(retry.as_mut().poll(cx));
                self.retry = None;
            }
            let accepted = match &self.listener {
                Listener::Tcp(listener) => ready!(listener.poll_accept(cx)).map(|(stream, _)| {
                    // A refused option costs latency, not correctness.
                    let _ = stream.set_nodelay(true);
                    Connection::Tcp(stream)
                }),
                Listener::Unix(listener, _) => {
                    ready!(listener.poll_accept(cx)).map(|(stream, _)| Connection::Unix(stream))
                }
            };
            match accepted {
                Ok(connection) => return Poll::Ready(Some(Ok(connection))),
                Err(_) => self.retry = Some(Box::pin(tokio::time::sleep(ACCEPT_RETRY))),
            }
        }
    }
}

/// An accepted connection of either kind.
#[derive(Debug)]
pub enum Connection {
    /// TCP.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
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
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Connection::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Connection::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Connection::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Connection::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connection::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Connection::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        match text.parse::<ChildAddress>() {
            Ok(address) => assert_eq!(address.to_string(), expect),
            Err(error) => assert_eq!(
                error.to_string(),
                format!("address `{text}` is not host:port, http://host:port or unix:PATH: {expect}")
            ),
        }
    }

    #[test]
    fn addresses_are_read() {
        check("127.0.0.1:7701", "127.0.0.1:7701");
        check("http://leaf-7.example:7701/", "leaf-7.example:7701");
        check("[::1]:7701", "[::1]:7701");
        check("unix:data/leaf-0.sock", "unix:data/leaf-0.sock");
        check("unix:/run/gannet/leaf.sock", "unix:/run/gannet/leaf.sock");
        check("localhost", "the port is missing or above 65535");
        check("localhost:70000", "the port is missing or above 65535");
        check(":7701", "the host is malformed");
        check("user@host:1", "the host is malformed");
        check("host:1/path", "the host is malformed");
        check("", "the host is malformed");
        check("unix:", "the path is empty");
        check("https://host:1", "TLS is not supported");
    }

    fn unix(path: PathBuf) -> ChildAddress {
        ChildAddress::Unix(path)
    }

    #[tokio::test]
    async fn a_live_socket_is_kept_and_a_dead_one_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let address = unix(folder.path().join("leaf.sock"));
        let first = Listener::bind(&address).await.unwrap();
        let ChildAddress::Unix(path) = first.local_address().unwrap() else { panic!("a unix socket") };
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let error = Listener::bind(&address).await.unwrap_err();
        assert_eq!(error.to_string(), format!("address `{address}` is in use by another process"));
        drop(first);
        let second = Listener::bind(&address).await.unwrap();
        let mut incoming = second.incoming();
        let (_stream, accepted) =
            tokio::join!(UnixStream::connect(&path), tokio_stream::StreamExt::next(&mut incoming));
        assert!(matches!(accepted, Some(Ok(Connection::Unix(_)))));
    }

    #[tokio::test]
    async fn other_things_at_the_address_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let error = Listener::bind(&unix(file.clone())).await.unwrap_err();
        assert_eq!(error.to_string(), format!("`{}` exists and is not a socket", file.display()));
        let long = PathBuf::from("x".repeat(104));
        let error = Listener::bind(&unix(long.clone())).await.unwrap_err();
        let expect = format!("path of unix socket `{}` has 104 bytes, limit 103", long.display());
        assert_eq!(error.to_string(), expect);
        let taken = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = taken.local_address().unwrap();
        let error = Listener::bind(&address).await.unwrap_err();
        assert_eq!(error.to_string(), format!("address `{address}` is in use by another process"));
    }
}
