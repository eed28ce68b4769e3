//! More is asked for than can be done: who is refused hears it, and what is done is worth doing.

use std::time::Duration;

use gannet_tests::cluster::{Cluster, Settings, Shape};
use gannet_tests::wait::until;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Milliseconds a row.
const SLOW: &str = "SELECT count(*) FROM t WHERE levenshtein(s, reverse(s)) < 0";

async fn cluster() -> Cluster {
    let aggregator = |config: &mut gannet_aggregator::Config| {
        config.events_running_max = 1;
        config.queries_running_max = 1;
    };
    let settings = Settings { aggregator, ..Settings::default() };
    Cluster::start_with(Shape { leaves: 1, intermediate: false }, settings).await
}

fn head(cluster: &Cluster, bytes: usize) -> String {
    let host = cluster.client().base().trim_start_matches("http://");
    format!(
        "POST /v1/events/t HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {bytes}\r\n\r\n"
    )
}

async fn connect(cluster: &Cluster) -> TcpStream {
    TcpStream::connect(cluster.client().base().trim_start_matches("http://")).await.unwrap()
}

/// Sends a whole body, and reads the head and the body of the reply.
async fn post(cluster: &Cluster, connection: &mut TcpStream, body: &str) -> String {
    connection.write_all((head(cluster, body.len()) + body).as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    let whole = async {
        loop {
            assert_ne!(connection.read_buf(&mut reply).await.unwrap(), 0, "the connection ended");
            let text = String::from_utf8_lossy(&reply).to_ascii_lowercase();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.is_some_and(|length| body.len() == length.parse::<usize>().unwrap()) {
                    return text;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), whole).await.expect("a reply comes")
}

/// A client that is refused before its body was read gets to read why, and keeps its connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_costs_no_connection() {
    let cluster = cluster().await;
    let mut first = connect(&cluster).await;
    first.write_all((head(&cluster, 100) + "{\"s\"").as_bytes()).await.unwrap();
    let body = format!("{{\"s\":\"{}\"}}\n", "gannet".repeat(100)).repeat(60);
    let mut second = connect(&cluster).await;
    let refused = until(60, "the first body to be read", || async {
        let mut connection = connect(&cluster).await;
        let reply = post(&cluster, &mut connection, "{\"s\":\"x\"}\n").await;
        reply.starts_with("http/1.1 429").then_some(reply)
    })
    .await;
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    for _ in 0..3 {
        let reply = post(&cluster, &mut second, &body).await;
        assert!(reply.starts_with("http/1.1 429 ") && reply.contains("\"code\":\"overloaded\""), "{reply}");
    }
    // There is room again.
    drop(first);
    let second = tokio::sync::Mutex::new(second);
    until(60, "a body to be taken", || async {
        post(&cluster, &mut *second.lock().await, &body).await.starts_with("http/1.1 200").then_some(())
    })
    .await;
}

/// A query gets its turn while there is time to answer it, or none at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_comes_in_time_or_not_at_all() {
    let cluster = cluster().await;
    let rows: String =
        (0..10_000).map(|number| format!("{{\"s\":\"{number}{}\"}}\n", "gannet".repeat(70))).collect();
    cluster.client().ingest("t", &rows).await;
    let (client, leaf) = (cluster.client().clone(), cluster.leaf(0));
    let slow = tokio::spawn(async move { client.ask(json!({ "sql": SLOW, "timeout_ms": 600_000 })).await });
    until(60, "the scan to begin", || async { (leaf.queries_running() > 0).then_some(()) }).await;
    let question = json!({ "sql": "SELECT count(*) FROM t", "timeout_ms": 200 });
    let reply = cluster.client().try_ask(question).await.unwrap();
    assert_eq!((reply.status, reply.headers["retry-after"].as_str()), (429, "1"), "{}", reply.text());
    let refusal = reply.refusal();
    assert_eq!(
        (refusal.code.as_str(), refusal.message.as_str()),
        ("overloaded", "too much of the query's time passed while it waited for its turn")
    );
    // Nothing of it reached the leaf.
    assert_eq!(leaf.queries_running(), 1);
    slow.abort();
    until(60, "the scan to stop", || async { (leaf.queries_running() == 0).then_some(()) }).await;
    assert_eq!(cluster.client().answer("SELECT count(*) FROM t").await.int(), 10_000);
}
