//! Serving HTTP on connections, with limits on what those who connect may take.
//!
//! Headers that do not arrive in time end their connection; so does one that waits that long for its next request.
//! HTTP/2 peers are asked for signs of life, and may have only so many requests at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use futures::StreamExt;
use gannet_proto::connection::{Connection, Incoming};
use http::Request;
use hyper::body::Incoming as RequestBody;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::ServiceExt;

/// Requests on one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 128;
/// Headers of one HTTP/2 request; HTTP/1 has the limit of its buffer, 408 KiB.
const HEADER_BYTES_MAX: u32 = 64 << 10;
/// An HTTP/2 peer is asked for a sign of life this often, and given up without one.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves on these connections until `stopping` resolves and every request that runs then has ended.
pub(crate) async fn serve(
    mut incoming: Incoming,
    app: Router,
    header_max: Duration,
    stopping: impl Future<Output = ()>,
) {
    let builder = Arc::new(builder(header_max));
    let (stop, stopped) = watch::channel(false);
    let mut open = JoinSet::new();
    let mut stopping = std::pin::pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => break,
            Some(accepted) = incoming.next() => {
                // The stream retries by itself.
                if let Ok(connection) = accepted {
                    open.spawn(one(Arc::clone(&builder), connection, app.clone(), stopped.clone()));
                }
            }
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
    drop(incoming);
    stop.send_replace(true);
    while open.join_next().await.is_some() {}
}

fn builder(header_max: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

/// Serves one connection to its end; when everything stops, to the end of the request that runs.
async fn one(
    builder: Arc<Builder<TokioExecutor>>,
    connection: Connection,
    app: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let peer = connection.peer();
    let service = tower::service_fn(move |mut request: Request<RequestBody>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer));
        }
        app.clone().oneshot(request)
    });
    let serving = builder.serve_connection(TokioIo::new(connection), TowerToHyperService::new(service));
    let mut serving = std::pin::pin!(serving);
    let stop = async {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = stop => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        // Peers come and go as they like.
        tracing::debug!(?peer, error, "a connection ended with an error");
    }
}
