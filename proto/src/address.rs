//! How servers name each other, connect and listen: over TCP, with or without TLS, or over a unix socket on one
//! machine.
//!
//! A unix socket is readable and writable by its owner only. One left behind by a dead process is replaced; one that
//! somebody still answers on is not.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, TryFutureExt};
use http::uri::Authority;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::Server;

use crate::channel::Channel;
pub use crate::connection::{Connection, Guard, Incoming};
use crate::exposed::Exposed;
use crate::network::{Accept, Network, Stream, System};
use crate::tls::Tls;

/// A connection in use or idle is asked for a sign of life this often, and given up without one.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes in flight on a stream: the pieces of an answer and the rows of a batch should not wait for window updates.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes in flight on a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Bytes of one frame that servers and clients of ours accept: a row batch need not come in hundreds of them.
pub const FRAME_BYTES: u32 = 1 << 20;
/// Requests on one connection to a server of ours at once; more wait on the client's side.
const STREAMS_MAX: u32 = 1024;
/// Headers of one request or reply; ours are a few hundred bytes.
pub(crate) const HEADER_BYTES_MAX: u32 = 16 << 10;
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
    /// It may not be asked without TLS.
    #[error(transparent)]
    Exposed(#[from] Box<Exposed>),
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
            return Err(wrong("whether TLS is spoken is said by tls_ca, tls_cert and tls_key"));
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

impl ChildAddress {
    /// Whether only processes of this machine can be there. A name other than `localhost` may be anywhere.
    pub fn is_local(&self) -> bool {
        let ChildAddress::Tcp(authority) = self else { return true };
        let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// A gRPC server with the limits of all of ours.
pub fn grpc_server() -> Server {
    Server::builder()
        .max_frame_size(FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
}

/// A channel to a server of the system's network, as [`connect_over`] without TLS.
///
/// # Errors
/// When the address is not one that can be connected to.
pub fn connect(address: &ChildAddress) -> Result<Channel, AddressError> {
    let network: Arc<dyn Network> = Arc::new(System);
    connect_over(&network, address, None)
}

/// A channel to a server. It connects when it is first used and again whenever the connection was lost; must be called
/// inside a tokio runtime. With TLS, servers that are reached over TCP must show a certificate for the host of their
/// address, and are shown ours.
///
/// # Errors
/// When the address is not one that can be connected to.
pub fn connect_over(
    network: &Arc<dyn Network>,
    address: &ChildAddress,
    tls: Option<&Arc<Tls>>,
) -> Result<Channel, AddressError> {
    let authority = match address {
        ChildAddress::Tcp(authority) => authority.as_str(),
        // Nobody looks at it.
        ChildAddress::Unix(_) => "localhost",
    };
    let authority = Authority::from_str(authority)
        .map_err(|error| AddressError::Syntax { text: address.to_string(), reason: error.to_string() })?;
    Ok(match address {
        ChildAddress::Tcp(at) => {
            let (at, network) = (at.clone(), Arc::clone(network));
            match tls {
                None => Channel::new(authority, move || {
                    let (at, network) = (at.clone(), Arc::clone(&network));
                    async move { network.connect(&at).await }.boxed()
                }),
                Some(tls) => {
                    let tls = Arc::clone(tls);
                    let name = tls.name().cloned().map_or_else(|| server_name(address), Ok)?;
                    Channel::new(authority, move || {
                        let (at, network) = (at.clone(), Arc::clone(&network));
                        // Taken anew each time: it may have been read again since.
                        let (name, client) = (name.clone(), tls.client());
                        let connected = async move { connect_tls(network.connect(&at), name, client).await };
                        connected.map_ok(boxed).boxed()
                    })
                }
            }
        }
        ChildAddress::Unix(path) => {
            let path = path.clone();
            Channel::new(authority, move || UnixStream::connect(path.clone()).map_ok(boxed).boxed())
        }
    })
}

fn boxed(stream: impl Stream + 'static) -> Box<dyn Stream> {
    Box::new(stream)
}

/// Whose certificate a server must show.
fn server_name(address: &ChildAddress) -> Result<ServerName<'static>, AddressError> {
    let text = address.to_string();
    let wrong = |reason: &str| AddressError::Syntax { text: text.clone(), reason: reason.to_owned() };
    let host = text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|_| wrong("the host can have no certificate"))
}

async fn connect_tls(
    connecting: impl Future<Output = io::Result<Box<dyn Stream>>>,
    name: ServerName<'static>,
    client: Option<Arc<ClientConfig>>,
) -> io::Result<tokio_rustls::client::TlsStream<Box<dyn Stream>>> {
    let client = client.ok_or_else(|| io::Error::other("there is no certificate to show"))?;
    TlsConnector::from(client).connect(name, connecting.await?).await
}

/// A bound listener of any kind.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket and its path.
    Unix(UnixListener, PathBuf),
    /// One of a network that stands in for the system's.
    Other(Box<dyn Accept>),
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
            Listener::Other(listener) => listener.local_address(),
        }
    }

    /// The connections, as a tonic server takes them. The stream never ends and never fails.
    pub fn incoming(self) -> Incoming {
        self.guarded(Guard::default())
    }

    /// The connections, with what they must do to stay. The stream never ends and never fails.
    pub fn guarded(self, guard: Guard) -> Incoming {
        Incoming::new(self, guard)
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
        check("https://host:1", "whether TLS is spoken is said by tls_ca, tls_cert and tls_key");
    }

    #[test]
    fn what_is_local_is_known() {
        let check = |text: &str, expect: bool| {
            assert_eq!(text.parse::<ChildAddress>().unwrap().is_local(), expect, "{text}");
        };
        for local in
            ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "LocalHost:1", "unix:a"]
        {
            check(local, true);
        }
        for open in
            ["0.0.0.0:1", "[::]:1", "10.0.0.7:1", "[::ffff:10.0.0.7]:1", "localhost.example:1", "leaf:1"]
        {
            check(open, false);
        }
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
        assert!(accepted.is_some_and(|accepted| accepted.is_ok()));
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
