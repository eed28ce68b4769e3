//! Running an aggregator with its doors, until it is told to stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gannet_proto::address::Listener;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};

use crate::aggregator::{Aggregator, StartError};
use crate::config::Config;
use crate::roster_file::RosterFileError;
use crate::{http, service};

/// Why an aggregator stopped other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The HTTP door failed.
    #[error("the HTTP door failed")]
    Http(#[source] io::Error),
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
    let grace = Duration::from_millis(config.stop_grace_ms);
    let aggregator = Aggregator::start(config).await?;
    let asked = Arc::new(Notify::new());
    let (stop, stopping) = watch::channel(false);
    let mut http = tokio::spawn({
        let app = http::router(Arc::clone(&aggregator));
        let stopping = stopped(stopping.clone());
        async move {
            axum::serve(http, app.into_make_service_with_connect_info::<SocketAddr>())
                .with_graceful_shutdown(stopping)
                .await
        }
    });
    let mut grpc = tokio::spawn({
        let (router, stopping) = (service::router(Arc::clone(&aggregator), Arc::clone(&asked)), stopping);
        async move {
            match grpc {
                Some(listener) => {
                    router.serve_with_incoming_shutdown(listener.incoming(), stopped(stopping)).await
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

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn http_ended(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), RunError> {
    ended?.map_err(RunError::Http)
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
}
