//! Those who send slowly, or nothing, over real connections.

use std::time::Duration;
use tokio::time::Instant;

use gannet_proto::address::{Guard, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

struct Open {
    at: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    _leaf: Served,
    _folder: tempfile::TempDir,
}

impl Open {
    async fn start(header_max: Duration, connections_max: usize) -> Open {
        let folder = tempfile::tempdir().unwrap();
        let leaf = Served::start(folder.path(), "a", 30).await;
        let mut settings = config(folder.path(), &[&leaf]);
        settings.query_body_ms = 30;
        let app = router(Aggregator::start(settings).await.unwrap());
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let at = listener.local_address().unwrap().to_string();
        let incoming = listener.guarded(Guard { tls: None, first_bytes: header_max, connections_max });
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve::serve(incoming, app, header_max, async {
            let _ = stopped.await;
        }));
        Open { at, stop, serving, _leaf: leaf, _folder: folder }
    }

    /// Sends this and says nothing more; everything that comes back until the server hangs up.
    async fn send(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(&self.at).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        // A server that hangs up may do so in any way.
        let _ = stream.read_to_end(&mut reply).await;
        String::from_utf8_lossy(&reply).into_owned()
    }
}

#[tokio::test]
async fn requests_that_do_not_come_end_their_connections() {
    let open = Open::start(Duration::from_millis(30), 100).await;
    for slow in ["", "G", "PRI * HTTP/2.0\r\n", "GET /healthz HTTP/1.1\r\nhost: a\r\nx-slow: "] {
        let begun = Instant::now();
        let reply = open.send(slow).await;
        assert!(!reply.contains(" 200 "), "{slow:?}: {reply}");
        assert!(begun.elapsed() >= Duration::from_millis(25), "{slow:?} was cut off at once");
    }
    // A connection that stays silent between requests is ended too, after its reply.
    let reply = open.send("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
}

/// What a connection says until it says this.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(end) {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read_buf(&mut heard)).await;
        assert!(read.unwrap().unwrap() > 0, "it ended: {}", String::from_utf8_lossy(&heard));
    }
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn a_connection_outlives_a_body_that_was_asked_about_and_refused() {
    let open = Open::start(Duration::from_secs(10), 100).await;
    let mut stream = TcpStream::connect(&open.at).await.unwrap();
    let head = "POST /v1/events/t HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\nexpect: 100-continue\r\n\
                transfer-encoding: chunked\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(head.as_bytes()).await.unwrap();
        let refusal = until(&mut stream, "\"}}").await;
        assert!(refusal.starts_with("HTTP/1.1 415"), "{refusal}");
        assert!(!refusal.contains("connection: close"), "{refusal}");
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    }
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let healthy = until(&mut stream, "\r\n\r\n").await;
    assert!(healthy.starts_with("HTTP/1.1 200"), "{healthy}");
}

#[tokio::test]
async fn who_asks_and_then_says_nothing_is_not_waited_for_long() {
    let open = Open::start(Duration::from_secs(60), 100).await;
    let head = "POST /v1/events/t HTTP/1.1\r\nhost: a\r\ncontent-type: image/png\r\nexpect: 100-continue\r\n\
                content-length: 9\r\n\r\n";
    let replies = open.send(head).await;
    assert!(replies.starts_with("HTTP/1.1 415"), "{replies}");
    // A body that comes all the same, and has no end, is not read for long either.
    let flood = format!("{}\r\n", "x".repeat(0x1000));
    let endless = head.replace("content-length: 9", "transfer-encoding: chunked")
        + &format!("1000\r\n{flood}").repeat(1000);
    let mut stream = TcpStream::connect(&open.at).await.unwrap();
    // It may hang up while this is written, or after its refusal.
    let _ = stream.write_all(endless.as_bytes()).await;
    let hung_up = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new())).await;
    assert!(hung_up.is_ok(), "it still reads");
}

#[tokio::test]
async fn the_body_of_a_query_must_come_in_time() {
    let open = Open::start(Duration::from_secs(10), 100).await;
    let begun = "POST /v1/query HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\nconnection: close\r\n\r\nSEL";
    let reply = open.send(begun).await;
    assert!(reply.starts_with("HTTP/1.1 504"), "{reply}");
    assert!(reply.contains("the body of a query did not arrive within 30 ms"), "{reply}");
}

#[tokio::test]
async fn silent_connections_do_not_keep_others_out_for_long() {
    let open = Open::start(Duration::from_millis(50), 2).await;
    let silent = [TcpStream::connect(&open.at).await.unwrap(), TcpStream::connect(&open.at).await.unwrap()];
    let reply = open.send("GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 200 OK"), "{reply}");
    drop(silent);
}

#[tokio::test]
async fn a_stop_waits_for_requests_and_not_for_connections() {
    let open = Open::start(Duration::from_secs(3600), 100).await;
    let mut idle = TcpStream::connect(&open.at).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let never = TcpStream::connect(&open.at).await.unwrap();
    let Open { stop, serving, .. } = open;
    stop.send(()).unwrap();
    serving.await.unwrap();
    drop((idle, never));
}

#[tokio::test]
async fn http_2_peers_are_told_their_limits() {
    let open = Open::start(Duration::from_secs(10), 100).await;
    let mut stream = TcpStream::connect(&open.at).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // A frame of settings without any: three bytes of length, type 4, flags, stream 0.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "the first frame of a server is its settings");
    let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut settings).await.unwrap();
    let said: Vec<(u16, u32)> = settings
        .chunks_exact(6)
        .map(|it| (u16::from_be_bytes([it[0], it[1]]), u32::from_be_bytes([it[2], it[3], it[4], it[5]])))
        .collect();
    // MAX_CONCURRENT_STREAMS and MAX_HEADER_LIST_SIZE.
    assert!(said.contains(&(3, 128)) && said.contains(&(6, 64 << 10)), "{said:?}");
}
