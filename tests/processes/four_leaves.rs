//! Four leaf processes hold 400,000 rows that came over HTTP.
//!
//! One is stopped: the count is exactly the rows of the other three, and completeness says exactly that. It is started:
//! exact and 100 % again. Everything is stopped and started: the same answers, from shared memory, no row lost. One is
//! started without its segments: it reads its files. One is started without anything: it says what is missing, and goes
//! on.

use gannet_tests::http::{Client, Completeness, Missing};
use gannet_tests::process::Parts;
use gannet_tests::segments;
use serde_json::{Value as Json, json};

use crate::post_requests;

const ROWS: u64 = 400_000;

/// Count, sum, and a question with many parts, whose answers must stay the same.
const QUESTIONS: [&str; 3] = [
    "SELECT count(*), sum(n), min(time), max(time), count(DISTINCT n % 1000) FROM requests",
    "SELECT service, count(*), count(*) FILTER (WHERE status >= 500), sum(n), min(ms), max(ms) FROM requests GROUP BY service ORDER BY service",
    "SELECT n, service, ms FROM requests WHERE status = 500 ORDER BY time DESC, n DESC LIMIT 20",
];

async fn answers(client: &Client) -> Vec<Vec<Vec<Json>>> {
    let mut answers = Vec::new();
    for question in QUESTIONS {
        let answer = client.answer(question).await;
        assert_eq!(answer.completeness, Completeness::whole(4, ROWS), "{question}");
        answers.push(answer.rows);
    }
    answers
}

async fn count(client: &Client) -> (u64, Completeness) {
    let answer = client.answer("SELECT count(*) FROM requests").await;
    (answer.int() as u64, answer.completeness)
}

fn serves(leaf: &Json) -> bool {
    leaf["state"] == "serving"
}

fn thinner(missing_rows: u64, reason: &str) -> Completeness {
    let covered = ROWS - missing_rows;
    Completeness {
        // Six digits, rounded down.
        ratio: Some((covered * 1_000_000 / ROWS) as f64 / 1e6),
        rows_covered: covered,
        rows_expected: Some(ROWS),
        leaves_asked: 4,
        leaves_answered: if reason == "lost" { 4 } else { 3 },
        missing: vec![Missing {
            leaf: "leaf-2".to_owned(),
            reason: reason.to_owned(),
            rows: Some(missing_rows),
        }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_in_the_life() {
    let mut parts = Parts::start(4).await;
    post_requests(parts.client(), ROWS).await;
    let whole = answers(parts.client()).await;
    let total: u64 = ROWS * (ROWS - 1) / 2;
    assert_eq!(whole[0][0][..2], [json!(ROWS), json!(total)]);
    let mut held = Vec::new();
    for index in 0..4 {
        let leaf = parts.wait_for_leaf(index, "a leaf to serve", serves).await;
        held.push(leaf["rows"].as_u64().unwrap());
    }
    assert_eq!(held.iter().sum::<u64>(), ROWS);
    assert!(held.iter().all(|rows| *rows > 0), "{held:?}");

    // One stops.
    parts.take_leaf(2).stop().await;
    parts.wait_for_leaf(2, "the leaf to be down", |leaf| leaf["state"] == "down").await;
    assert_eq!(count(parts.client()).await, (ROWS - held[2], thinner(held[2], "down")));
    // An aggregator that starts now knows of it all the same.
    parts.stop_aggregator().await;
    parts.start_aggregator();
    parts.wait_for_leaf(0, "the new aggregator to know its leaves", serves).await;
    assert_eq!(count(parts.client()).await, (ROWS - held[2], thinner(held[2], "down")));

    // It comes back.
    parts.start_leaf(2);
    parts.wait_until_ready().await;
    assert_eq!(answers(parts.client()).await, whole);

    // Everything stops and starts.
    parts.stop_aggregator().await;
    for index in 0..4 {
        parts.take_leaf(index).stop().await;
    }
    for index in 0..4 {
        parts.start_leaf(index);
    }
    parts.start_aggregator();
    parts.wait_until_ready().await;
    assert_eq!(answers(parts.client()).await, whole);
    for (index, held) in held.iter().enumerate() {
        let leaf = parts.wait_for_leaf(index, "a leaf to serve", serves).await;
        assert_eq!(leaf["source"], "shared memory");
        assert_eq!((leaf["rows_restored"].as_u64(), leaf["rows_lost"].as_u64()), (Some(*held), Some(0)));
    }

    // One loses its segments while it is stopped.
    parts.take_leaf(2).stop().await;
    assert!(!segments::of(&parts.leaf_directory(2)).is_empty());
    segments::remove(&parts.leaf_directory(2));
    parts.start_leaf(2);
    let read = |leaf: &Json| serves(leaf) && leaf["source"] == "disk";
    parts.wait_for_leaf(2, "the leaf to read its files", read).await;
    parts.wait_until_ready().await;
    assert_eq!(answers(parts.client()).await, whole);

    // And then everything.
    parts.take_leaf(2).stop().await;
    segments::remove_everything(&parts.leaf_directory(2));
    parts.start_leaf(2);
    let leaf = parts.wait_for_leaf(2, "the leaf to miss its rows", |leaf| leaf["rows_lost"] == held[2]).await;
    assert_eq!(leaf["source"], "disk");
    assert_ne!(leaf["source_detail"], "");
    assert_eq!(count(parts.client()).await, (ROWS - held[2], thinner(held[2], "lost")));
    assert_eq!(parts.client().get("/readyz").await.status, 503);
}

/// A crash takes nothing that was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_nothing() {
    let mut parts = Parts::start(2).await;
    for _ in 0..20 {
        parts.client().ingest("t", &"{\"x\":1}\n".repeat(50)).await;
    }
    let leaf = parts.wait_for_leaf(1, "the leaf to hold rows", |leaf| leaf["rows"].as_u64() > Some(0)).await;
    assert!(leaf["rows"].as_u64() < Some(1000));
    parts.take_leaf(1).kill().await;
    parts.start_leaf(1);
    parts.wait_for_leaf(1, "the leaf to serve again", |leaf| serves(leaf) && leaf["epoch"] == 2).await;
    let answer = parts.client().answer("SELECT count(*) FROM t").await;
    assert_eq!(answer.int(), 1000);
    assert_eq!(answer.completeness, Completeness::whole(2, 1000));
}
