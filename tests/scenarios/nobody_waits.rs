//! One leaf; somebody asks it a question that takes minutes, and hangs up.
//!
//! The door notices that the connection is gone, the question is dropped, and the leaf stops in the middle of a block:
//! nothing of it runs any more. The same with a question that runs into its deadline.

use gannet_tests::cluster::{Cluster, Shape};
use gannet_tests::wait::until;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Milliseconds a row, and there are ten thousand.
const SLOW: &str = "SELECT count(*) FROM t WHERE levenshtein(s, reverse(s)) < 0";

async fn one_leaf() -> Cluster {
    let cluster = Cluster::start(Shape { leaves: 1, intermediate: false }).await;
    let mut rows = String::new();
    for number in 0..10_000 {
        rows += &format!("{{\"s\":\"{number}{}\"}}\n", "gannet".repeat(70));
    }
    cluster.client().ingest("t", &rows).await;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_hangs_up_stops_the_scan() {
    let cluster = one_leaf().await;
    for accept in ["application/json", "application/x-ndjson"] {
        let before = cluster.leaf(0).queries_stopped_early();
        let body = json!({ "sql": SLOW, "timeout_ms": 600_000 }).to_string();
        let at = cluster.client().base().trim_start_matches("http://").to_owned();
        let mut connection = TcpStream::connect(&at).await.unwrap();
        let request = format!(
            "POST /v1/query HTTP/1.1\r\nhost: {at}\r\naccept: {accept}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let leaf = cluster.leaf(0);
        until(60, "the scan to begin", || async { (leaf.queries_running() > 0).then_some(()) }).await;
        drop(connection);
        until(60, "the scan to stop", || async { (leaf.queries_running() == 0).then_some(()) }).await;
        assert_eq!(leaf.queries_stopped_early(), before + 1, "it stopped in the middle");
    }
    assert_eq!(cluster.client().answer("SELECT count(*) FROM t").await.int(), 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_met_in_the_middle_of_a_block() {
    let cluster = one_leaf().await;
    // On a machine that is busy elsewhere the last words of the leaf may come too late; then it is asked for longer.
    let mut asked = 0;
    let answer = loop {
        let question = json!({ "sql": SLOW, "timeout_ms": 1000 << (2 * asked) });
        asked += 1;
        match cluster.client().ask(question).await {
            Ok(answer) => break answer,
            Err(refusal) => assert!(refusal.code == "timeout" && asked < 4, "{refusal:?}"),
        }
    };
    let reasons: Vec<&str> =
        answer.completeness.missing.iter().map(|missing| missing.reason.as_str()).collect();
    assert_eq!((answer.int(), reasons), (0, vec!["timeout"]));
    // The leaf itself said so in time: it did answer, with nothing covered.
    assert_eq!((answer.completeness.leaves_answered, answer.completeness.rows_covered), (1, 0));
    assert!((1..=asked).contains(&cluster.leaf(0).queries_stopped_early()), "it stopped in the middle");
}
