//! Running an aggregator with its doors, until it is told to stop.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gannet_proto::address::{ChildAddress, Guard, Listener};
use gannet_proto::exposed::{Exposed, Protection, Way};
use gannet_proto::tls::{self, Tls};
use gannet_proto::watched::FileError;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::access::{self, Access, Grant};
use crate::aggregator::{Aggregator, StartError};
use crate::config::Config;
use crate::http::Guarding;
use crate::membership::Place;
use crate::roster_file::RosterFileError;
use crate::surroundings::Surroundings;
use crate::{http, service};

/// Why an aggregator stopped other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Something would be open to other machines.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// Certificates or tokens cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system does not say where a listener is.
    #[error("a listener has no address")]
    Address(#[source] io::Error),
    /// The gRPC door failed.
    #[error("the gRPC door failed")]
    Grpc(#[source] tonic::transport::Error),
    /// The roster could not be written at the stop.
    #[error(transparent)]
    Roster(#[from] RosterFileError),
    /// A task of ours panicked.
    #[error("a door ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Where an aggregator is asked.
#[derive(Debug)]
pub struct Doors {
    /// HTTP.
    pub http: Listener,
    /// gRPC, for an aggregator that is the child of another or that tells others what it knows.
    pub grpc: Option<Listener>,
}

/// Runs an aggregator on these listeners until `shutdown` resolves, or somebody calls Admin.Stop. Then it takes no more
/// connections, lets requests finish for a while, and writes the roster.
///
/// # Errors
/// When it cannot start, or a door fails.
pub async fn run(
    config: Config,
    http: TcpListener,
    grpc: Option<Listener>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let doors = Doors { http: Listener::Tcp(http), grpc };
    run_in(config, Surroundings::default(), doors, shutdown).await
}

/// As [`run`], in other surroundings than this machine.
///
/// # Errors
/// As [`run`].
pub async fn run_in(
    config: Config,
    surroundings: Surroundings,
    Doors { http, grpc }: Doors,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let grace = Duration::from_millis(config.stop_grace_ms);
    let (http, guarding) = guarding(&config, http, grpc.as_ref())?;
    let first_bytes = Duration::from_millis(config.http_header_ms);
    let connections_max = config.http_connections_max;
    let aggregator = Aggregator::start_in(config, surroundings).await?;
    // They end with this function.
    let mut looked_after = JoinSet::new();
    looked_after.spawn(access::look_after(Arc::clone(&guarding.access)));
    if let Some(tls) = &guarding.tls {
        looked_after.spawn(tls::look_after(Arc::clone(tls), "HTTP"));
    }
    let asked = Arc::new(Notify::new());
    let (stop, stopping) = watch::channel(false);
    let mut http = tokio::spawn({
        let incoming = http.guarded(Guard { tls: guarding.tls.clone(), first_bytes, connections_max });
        let app = http::guarded(Arc::clone(&aggregator), guarding);
        http::serve::serve(incoming, app, first_bytes, stopped(stopping.clone()))
    });
    let mut grpc = tokio::spawn({
        let (router, stopping) = (service::router(Arc::clone(&aggregator), Arc::clone(&asked)), stopping);
        let guard = Guard { tls: aggregator.tls().cloned(), ..Guard::default() };
        async move {
            match grpc {
                Some(listener) => {
                    router.serve_with_incoming_shutdown(listener.guarded(guard), stopped(stopping)).await
                }
                None => {
                    stopped(stopping).await;
                    Ok(())
                }
            }
        }
    });
    let mut outcome = tokio::select! {
        () = shutdown => Ok(()),
        () = asked.notified() => Ok(()),
        ended = &mut http => http_ended(ended),
        ended = &mut grpc => grpc_ended(ended),
    };
    // Nobody may be listening any more; then there is nothing to stop.
    let _ = stop.send(true);
    let finishing = async {
        if !http.is_finished() {
            outcome = outcome.and(http_ended((&mut http).await));
        }
        if !grpc.is_finished() {
            outcome = outcome.and(grpc_ended((&mut grpc).await));
        }
        outcome
    };
    let outcome = match tokio::time::timeout(grace, finishing).await {
        Ok(outcome) => outcome,
        Err(_) => {
            tracing::warn!(grace_ms = grace.as_millis(), "requests were still running and are cut off");
            Ok(())
        }
    };
    http.abort();
    grpc.abort();
    aggregator.save().await?;
    outcome
}

/// What guards the HTTP door, once it is certain that nothing is open that should not be.
fn guarding(
    config: &Config,
    http: Listener,
    grpc: Option<&Listener>,
) -> Result<(Listener, Guarding), RunError> {
    let tls = match (&config.http_cert, &config.http_key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(Tls::of_server(certificate, key)?),
        (Some(named), None) | (None, Some(named)) => {
            return Err(FileError::content(named, "http_cert and http_key go together").into());
        }
    };
    let access = match &config.tokens_file {
        None => Access::open(),
        Some(path) => Access::of_file(path.clone(), beside(config)?)?,
    };
    let cluster = config.tls_ca.is_some();
    let mut ways = vec![(
        Way::Http,
        http.local_address().map_err(RunError::Address)?,
        Protection { tls: tls.is_some(), tokens: access.asks() },
    )];
    let of_cluster = Protection { tls: cluster, tokens: false };
    if let Some(grpc) = grpc {
        ways.push((Way::Grpc, grpc.local_address().map_err(RunError::Address)?, of_cluster));
    }
    let checked = config.checked().map_err(StartError::from)?;
    ways.extend(checked.children.into_iter().chain(checked.aggregators).map(|place| {
        let address = match place {
            Place::Address(address) => address,
            Place::Name(name) => ChildAddress::Tcp(name),
        };
        (Way::Child, address, of_cluster)
    }));
    let exposed = ways.iter().filter_map(|(way, address, has)| Exposed::find(*way, address, *has));
    let mut insecure = Vec::new();
    for exposed in exposed {
        if !config.insecure {
            return Err(exposed.into());
        }
        let text = exposed.to_string().replace(" would be open ", " is open ");
        tracing::warn!("insecure: {text}");
        insecure.push(text);
    }
    Ok((http, Guarding { access: Arc::new(access), tls, insecure }))
}

/// The token of the supervisor, which it made for this one run.
fn beside(config: &Config) -> Result<Option<Grant>, RunError> {
    let grant = config.supervisor_token.as_deref().map(|sha256| Grant::of_everything("supervisor", sha256));
    grant.transpose().map_err(|what| FileError::content(Path::new("supervisor_token"), what).into())
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn http_ended(ended: Result<(), tokio::task::JoinError>) -> Result<(), RunError> {
    Ok(ended?)
}

fn grpc_ended(
    ended: Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>,
) -> Result<(), RunError> {
    ended?.map_err(RunError::Grpc)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::fakes::{Served, config};

    async fn get(at: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn it_serves_until_it_is_told_to_stop_and_keeps_the_roster() {
        let folder = tempfile::tempdir().unwrap();
        let leaf = Served::start(folder.path(), "a", 3).await;
        let settings = config(folder.path(), &[&leaf]);
        let file = settings.data_dir.join("roster.json");
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = http.local_addr().unwrap();
        let address = format!("unix:{}", folder.path().join("grpc.sock").display()).parse().unwrap();
        let grpc = Listener::bind(&address).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(run(settings, http, Some(grpc), async {
            let _ = stopped.await;
        }));
        assert!(get(at, "/readyz").await.starts_with("HTTP/1.1 200 OK"));
        // A parent that stays connected does not keep it from stopping.
        let parent = crate::children::Child::new(&address).unwrap();
        let described = parent.describe(Duration::from_secs(5), 1).await.unwrap();
        assert_eq!(described.leaves[0].leaf, "a");
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
        assert!(std::fs::read_to_string(file).unwrap().contains("\"leaf\":\"a\""));
        assert!(TcpStream::connect(at).await.is_err());
    }

    async fn refused(change: impl FnOnce(&mut Config), http: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = config(folder.path(), &[]);
        change(&mut settings);
        let http = TcpListener::bind(http).await.unwrap();
        let port = http.local_addr().unwrap().port().to_string();
        let error = run(settings, http, None, std::future::ready(())).await.map(|()| "it ran".to_owned());
        assert!(!folder.path().join("aggregator").exists() || error.is_ok(), "nothing was touched");
        error.unwrap_or_else(|error| error.to_string()).replace(&port, "PORT")
    }

    #[tokio::test]
    async fn what_would_be_open_does_not_start() {
        let open = "HTTP on 0.0.0.0:PORT would be open to other machines without TLS and tokens";
        assert_eq!(refused(|_| {}, "0.0.0.0:0").await, open);
        assert_eq!(refused(|config| config.insecure = true, "0.0.0.0:0").await, "it ran");
        assert_eq!(refused(|_| {}, "127.0.0.1:0").await, "it ran");
        let child = "gRPC to 10.0.0.7:7710 would be open to other machines without TLS at both ends";
        let far = |config: &mut Config| config.children = vec!["10.0.0.7:7710".to_owned()];
        assert_eq!(refused(far, "127.0.0.1:0").await, child);
        let half = |config: &mut Config| config.http_cert = Some("a.pem".into());
        assert_eq!(refused(half, "127.0.0.1:0").await, "file a.pem: http_cert and http_key go together");
        let gone = |config: &mut Config| config.tokens_file = Some("/nowhere/tokens".into());
        let expect = "file /nowhere/tokens cannot be read: No such file or directory (os error 2)";
        assert_eq!(refused(gone, "127.0.0.1:0").await, expect);
    }
}
