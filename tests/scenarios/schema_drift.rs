//! Columns change their type while people ask.
//!
//! A question planned for ints meets a leaf that holds texts by now: it is planned again, and nobody notices. A writer
//! changes types with every batch while a reader asks all the time: no answer is an error, counts only grow, and in
//! the end everything is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gannet_tests::cluster::{Cluster, Settings, Shape};
use serde_json::json;

const TWO: Shape = Shape { leaves: 2, intermediate: false };

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_plan_is_made_again() {
    // The root asks its leaves what they hold once, and then only when it has a reason to.
    let settings =
        Settings { aggregator: |config| config.describe_interval_ms = 3_600_000, ..Settings::default() };
    let cluster = Cluster::start_with(TWO, settings).await;
    cluster.feed(0, &[("t".to_owned(), "{\"x\":1}\n{\"x\":2}\n".to_owned())]).await;
    assert_eq!(cluster.client().answer("SELECT sum(x) FROM t").await.int(), 3);

    // Behind its back, through another aggregator.
    cluster.feed(1, &[("t".to_owned(), "{\"x\":0.5}\n".to_owned())]).await;
    let answer = cluster.client().answer("SELECT sum(x), count(*) FROM t").await;
    assert_eq!(answer.rows, [vec![json!(3.5), json!(3)]]);
    cluster.feed(0, &[("t".to_owned(), "{\"x\":\"many\"}\n".to_owned())]).await;
    let answer = cluster.client().answer("SELECT x, count(*) FROM t GROUP BY x ORDER BY x").await;
    let row = |text: &str| vec![json!(text), json!(1)];
    assert_eq!(answer.rows, [row("0.5"), row("1"), row("2"), row("many")]);
    // What no longer makes sense is refused by name.
    let refusal = cluster.client().query("SELECT sum(x) FROM t").await.unwrap_err();
    assert_eq!((refusal.status, refusal.message.as_str()), (400, "sum cannot take string"));
    // A column that came behind its back is found.
    cluster.feed(0, &[("t".to_owned(), "{\"new\":7}\n".to_owned())]).await;
    assert_eq!(cluster.client().answer("SELECT max(new) FROM t").await.int(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn types_change_while_people_ask() {
    const BATCHES: u64 = 60;
    let cluster = Cluster::start(TWO).await;
    cluster.client().ingest("t", "{\"x\":1,\"batch\":0}\n").await;
    let done = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (client, done) = (cluster.client().clone(), Arc::clone(&done));
        async move {
            let values = ["true", "7", "2.5", "\"text\"", "[\"a\",\"b\"]", "null"];
            for batch in 1..=BATCHES {
                let value = values[batch as usize % values.len()];
                let late = format!("c{}", batch / 10);
                let line = format!("{{\"x\":{value},\"batch\":{batch},\"{late}\":{value}}}\n");
                client.ingest("t", &line.repeat(5)).await;
            }
            done.store(true, Ordering::Release);
        }
    });
    let mut last = 0;
    let mut asked = 0;
    while !done.load(Ordering::Acquire) {
        let answer = cluster.client().answer("SELECT count(*), count(x), min(x), max(batch) FROM t").await;
        let count = answer.rows[0][0].as_i64().unwrap();
        assert!(count >= last, "{count} rows after {last}");
        assert_eq!(answer.completeness.ratio, Some(1.0));
        last = count;
        asked += 1;
    }
    writer.await.unwrap();
    assert!(asked > 1, "the reader came too late");
    let answer = cluster.client().answer("SELECT count(*), count(x), max(batch) FROM t").await;
    // Every sixth batch is NULL.
    let nulls = (1..=BATCHES).filter(|batch| batch % 6 == 5).count() as u64 * 5;
    assert_eq!(answer.rows, [vec![json!(1 + BATCHES * 5), json!(1 + BATCHES * 5 - nulls), json!(BATCHES)]]);
}
