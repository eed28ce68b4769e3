//! A channel to one server: how requests of gRPC clients become streams of an HTTP/2 connection.
//!
//! An aggregator asks thousands of children at once, and what that takes is the parts that a request goes through. So a
//! request is taken from its client to the connection (crate h2) without a queue, a task or a wait in between, and as
//! every request of ours is one message, its head, its body and its end leave in one write.
//!
//! It connects when it is first used, and again whenever the connection was lost; who asks meanwhile waits for the
//! same attempt, and an attempt goes on when they stop waiting. A connection gives a sign of life every so often, or
//! is given up.
//!
//! Invariants: dropping what waits for a reply, or reads it, resets the stream, so that the server hears that nobody
//! wants it any more. What could not connect is a [`tonic::ConnectError`]; nothing was sent then.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use h2::client::SendRequest;
use h2::{Ping, PingPong, Reason, RecvStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Request, Response, Uri, Version};
use http_body::{Body as _, Frame};
use parking_lot::Mutex;
use tonic::body::Body;
use tower::Service;

use crate::address::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES, HEADER_BYTES_MAX, KEEP_ALIVE, STREAM_WINDOW_BYTES,
};
use crate::network::Stream;

/// A connection that is not made by then has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Any failure.
type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// How to connect.
type Connect = dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync;
/// An attempt to connect, and what became of it.
type Attempt = Shared<BoxFuture<'static, Result<Line, Arc<io::Error>>>>;

/// See the module.
#[derive(Clone)]
pub struct Channel(Arc<Shape>);

struct Shape {
    authority: Authority,
    connect: Box<Connect>,
    newest: Mutex<Option<Attempt>>,
}

/// A connection.
#[derive(Clone)]
struct Line {
    requests: SendRequest<Bytes>,
    ended: Arc<AtomicBool>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({})", self.0.authority)
    }
}

impl Channel {
    /// To a server of this name, over what this gives. Nothing is connected yet.
    pub(crate) fn new<C>(authority: Authority, connect: C) -> Channel
    where
        C: Fn() -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync + 'static,
    {
        Channel(Arc::new(Shape { authority, connect: Box::new(connect), newest: Mutex::default() }))
    }

    /// The newest attempt to connect; a new one when that failed or its connection has ended.
    fn attempt(&self) -> Attempt {
        let mut newest = self.0.newest.lock();
        let is_of_use = |attempt: &&Attempt| match attempt.peek() {
            None => true,
            Some(Ok(line)) => !line.ended.load(Ordering::Relaxed),
            Some(Err(_)) => false,
        };
        if let Some(attempt) = newest.as_ref().filter(is_of_use) {
            return attempt.clone();
        }
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connect((self.0.connect)()));
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        let attempt = async move { connecting.await.unwrap_or_else(|_| Err(late())).map_err(Arc::new) };
        let attempt = attempt.boxed().shared();
        // It goes on without those who wait for it.
        tokio::spawn(attempt.clone());
        *newest = Some(attempt.clone());
        attempt
    }

    /// A connection that takes a request.
    async fn line(&self) -> Result<SendRequest<Bytes>, BoxError> {
        let unconnected = |error: Arc<io::Error>| tonic::ConnectError(Box::new(error));
        let line = self.attempt().await.map_err(unconnected)?;
        match line.requests.ready().await {
            Ok(requests) => Ok(requests),
            // The server was about to end it, or it broke just now: that is known before anything is sent.
            Err(_) => {
                line.ended.store(true, Ordering::Relaxed);
                let line = self.attempt().await.map_err(unconnected)?;
                Ok(line.requests.ready().await?)
            }
        }
    }

    /// Sends a request and waits for the head of its reply.
    async fn send(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (mut head, body) = request.into_parts();
        let body = whole(body).await?;
        let mut uri = std::mem::take(&mut head.uri).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.0.authority.clone());
        uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        head.uri = Uri::from_parts(uri)?;
        head.version = Version::HTTP_2;
        let mut requests = self.line().await?;
        let (reply, mut stream) = requests.send_request(Request::from_parts(head, ()), false)?;
        stream.send_data(body, true)?;
        let reply = reply.await?;
        Ok(reply.map(|stream| Body::new(Reply(stream))))
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().send(request).boxed()
    }
}

/// All of a request's body, which is there already: it is one message.
async fn whole(body: Body) -> Result<Bytes, tonic::Status> {
    let mut body = std::pin::pin!(body);
    let mut pieces = Vec::new();
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        pieces.extend(frame?.into_data());
    }
    let mut pieces = pieces.into_iter();
    let first = pieces.next().unwrap_or_default();
    match pieces.len() {
        0 => Ok(first),
        _ => {
            let mut all = BytesMut::from(first);
            pieces.for_each(|piece| all.extend_from_slice(&piece));
            Ok(all.freeze())
        }
    }
}

/// Connects and serves the connection in a task of its own.
async fn connect(stream: BoxFuture<'static, io::Result<Box<dyn Stream>>>) -> io::Result<Line> {
    let stream = stream.await?;
    let (requests, mut connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_header_list_size(HEADER_BYTES_MAX)
        .enable_push(false)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    let ended = Arc::new(AtomicBool::new(false));
    let line = Line { requests, ended: Arc::clone(&ended) };
    let signs = connection.ping_pong();
    tokio::spawn(async move {
        tokio::select! {
            outcome = connection => {
                if let Err(error) = outcome {
                    tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended with an error");
                }
            }
            () = silence(signs) => tracing::debug!("a connection ended without a sign of life"),
        }
        ended.store(true, Ordering::Relaxed);
    });
    Ok(line)
}

/// Returns when the other end gives no sign of life.
async fn silence(signs: Option<PingPong>) {
    let Some(mut signs) = signs else { return std::future::pending().await };
    loop {
        tokio::time::sleep(KEEP_ALIVE).await;
        match tokio::time::timeout(KEEP_ALIVE, signs.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection says so itself.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// The body of a reply.
struct Reply(RecvStream);

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let stream = &mut self.0;
        match std::task::ready!(stream.poll_data(context)) {
            Some(Ok(piece)) => {
                // It fails for streams that are gone, which take no more anyway.
                let _ = stream.flow_control().release_capacity(piece.len());
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            // All is said.
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => Poll::Ready(None),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers: Result<Option<HeaderMap>, _> = std::task::ready!(stream.poll_trailers(context));
                Poll::Ready(trailers.map(|trailers| trailers.map(Frame::trailers)).transpose())
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;

    use super::*;

    /// A channel that connects after so long, and the other ends of its connections.
    fn channel(takes: Duration) -> (Channel, Arc<AtomicUsize>, mpsc::UnboundedReceiver<DuplexStream>) {
        let (connected, ends) = mpsc::unbounded_channel();
        let attempts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&attempts);
        let channel = Channel::new(Authority::from_static("server:1"), move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let connected = connected.clone();
            let connect = async move {
                tokio::time::sleep(takes).await;
                let (here, there) = tokio::io::duplex(64 << 10);
                let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
                connected.send(there).map_err(refused)?;
                Ok(Box::new(here) as Box<dyn Stream>)
            };
            connect.boxed()
        });
        (channel, attempts, ends)
    }

    /// Replies to so many requests with their paths and bodies, and hangs up.
    async fn serve(end: DuplexStream, requests: usize) {
        let mut connection = h2::server::handshake(end).await.unwrap();
        for _ in 0..requests {
            let (request, mut reply) = connection.accept().await.unwrap().unwrap();
            tokio::spawn(async move {
                let said = format!("{} ", request.uri());
                let mut body = request.into_body();
                let mut stream = reply.send_response(Response::new(()), false).unwrap();
                stream.send_data(Bytes::from(said), false).unwrap();
                while let Some(piece) = body.data().await {
                    let piece = piece.unwrap();
                    body.flow_control().release_capacity(piece.len()).unwrap();
                    stream.send_data(piece, false).unwrap();
                }
                stream.send_trailers(HeaderMap::from_iter([(http::header::AGE, 7.into())])).unwrap();
            });
        }
        // What was begun is finished.
        connection.graceful_shutdown();
        while connection.accept().await.is_some() {}
    }

    async fn ask(channel: &Channel, body: &str) -> Result<String, BoxError> {
        let body = Body::new(http_body_util::Full::new(Bytes::copy_from_slice(body.as_bytes())));
        let reply = channel.clone().call(Request::post("/s/m").body(body).unwrap()).await?;
        let reply = http_body_util::BodyExt::collect(reply.into_body()).await?;
        assert_eq!(reply.trailers().map(|trailers| trailers[http::header::AGE].clone()), Some(7.into()));
        Ok(String::from_utf8(reply.to_bytes().to_vec())?)
    }

    #[tokio::test]
    async fn it_connects_when_it_is_used_and_again_when_the_connection_was_lost() {
        let (channel, attempts, mut ends) = channel(Duration::ZERO);
        let server = tokio::spawn(async move {
            while let Some(end) = ends.recv().await {
                serve(end, 3).await;
            }
        });
        assert_eq!(attempts.load(Ordering::Relaxed), 0);
        for number in 0..9 {
            assert_eq!(ask(&channel, "x").await.unwrap(), "http://server:1/s/m x", "{number}");
        }
        assert_eq!(attempts.load(Ordering::Relaxed), 3);
        // More than fits into any window, both ways and at once.
        let large = "0123456789abcdef".repeat(2 * STREAM_WINDOW_BYTES as usize / 16);
        let all = futures::future::join_all((0..3).map(|_| ask(&channel, &large))).await;
        for said in all {
            assert!(said.unwrap() == format!("http://server:1/s/m {large}"));
        }
        assert_eq!(attempts.load(Ordering::Relaxed), 4);
        server.abort();
    }

    #[tokio::test]
    async fn who_cannot_connect_is_told_so() {
        let (channel, attempts, ends) = channel(Duration::ZERO);
        drop(ends);
        for number in 1..=2 {
            let error = ask(&channel, "").await.unwrap_err();
            assert!(error.downcast_ref::<tonic::ConnectError>().is_some(), "{error:?}");
            assert_eq!(attempts.load(Ordering::Relaxed), number);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_goes_on_without_those_who_wait_and_is_everybodys() {
        let (channel, attempts, mut ends) = channel(Duration::from_millis(500));
        let impatient = tokio::time::timeout(Duration::from_millis(100), ask(&channel, "")).await;
        assert!(impatient.is_err());
        tokio::spawn(async move { serve(ends.recv().await.unwrap(), 3).await });
        let all = futures::future::join_all(["a", "b", "c"].map(|body| ask(&channel, body))).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(attempts.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_takes_two_seconds_or_is_none() {
        let (channel, _, _ends) = channel(Duration::from_secs(3600));
        let begun = tokio::time::Instant::now();
        let error = ask(&channel, "").await.unwrap_err();
        assert!(error.downcast_ref::<tonic::ConnectError>().is_some(), "{error:?}");
        assert_eq!(begun.elapsed().as_secs(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_without_a_sign_of_life_is_given_up() {
        let (channel, attempts, mut ends) = channel(Duration::ZERO);
        let begun = tokio::time::Instant::now();
        let error = ask(&channel, "").await.unwrap_err();
        assert!(error.downcast_ref::<tonic::ConnectError>().is_none(), "{error:?}");
        assert_eq!(begun.elapsed().as_secs(), 20);
        let _silent = ends.recv().await.unwrap();
        tokio::spawn(async move { serve(ends.recv().await.unwrap(), 1).await });
        assert!(ask(&channel, "").await.is_ok());
        assert_eq!(attempts.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn who_waits_no_longer_resets_the_stream() {
        let (channel, _, mut ends) = channel(Duration::ZERO);
        let asking = channel.clone();
        let asked = tokio::spawn(async move { ask(&asking, "").await });
        let mut connection = h2::server::handshake(ends.recv().await.unwrap()).await.unwrap();
        let (_request, mut reply) = connection.accept().await.unwrap().unwrap();
        asked.abort();
        let reset = tokio::select! {
            reset = std::future::poll_fn(|context| reply.poll_reset(context)) => reset.unwrap(),
            _ = connection.accept() => panic!("nothing else was asked"),
        };
        assert_eq!(reset, Reason::CANCEL);
    }
}
