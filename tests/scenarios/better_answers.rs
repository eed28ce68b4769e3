//! One leaf and a question that takes seconds; somebody watches the answer come.
//!
//! The lines tell more and more rows. The question counts rows, so each line can be checked by itself: it counts exactly
//! the rows that its record says are covered. The last line is the whole answer.

use gannet_tests::cluster::{Cluster, Shape};
use serde_json::{Value, json};

/// Milliseconds a row.
const SLOW: &str = "SELECT count(*) AS n, sum(levenshtein(s, reverse(s)) * 0) FROM t";
/// Of each leaf. Each has runs of other sizes, which end at other times.
const BATCHES: [usize; 2] = [28, 20];
const BATCH_ROWS: usize = 50;

async fn check(intermediate: bool) {
    let cluster = Cluster::start(Shape { leaves: 2, intermediate }).await;
    for (leaf, batches) in BATCHES.into_iter().enumerate() {
        let row = |row: usize| format!("{{\"s\":\"{row} {}\"}}\n", "gannet".repeat(60));
        let batch = |_| ("t".to_owned(), (0..BATCH_ROWS).map(row).collect::<String>());
        cluster.feed(leaf, &(0..batches).map(batch).collect::<Vec<_>>()).await;
    }
    let all = (BATCHES.iter().sum::<usize>() * BATCH_ROWS) as u64;
    cluster.wait_for_rows(&[("t", all)]).await;
    let client = cluster.client();
    let question = json!({ "sql": SLOW, "timeout_ms": 300_000 });
    let request = reqwest::Client::new().post(format!("{}/v1/query", client.base())).json(&question);
    let reply = request.header("accept", "application/x-ndjson").send().await.unwrap();
    let text = reply.text().await.unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (last, before) = lines.split_last().unwrap();
    let shown = |line: &Value| (line["type"].as_str().unwrap().to_owned(), line["rows"][0][0].as_u64());
    assert_eq!(shown(last), ("final".to_owned(), Some(all)));
    assert_eq!(last["completeness"]["ratio"], 1.0);
    let mut covered = 0;
    for line in before {
        let record = &line["completeness"];
        assert_eq!(shown(line), ("partial".to_owned(), record["rows_covered"].as_u64()), "{line}");
        assert!(record["rows_covered"].as_u64() > Some(covered) || covered == 0, "{line}");
        assert_eq!(record["rows_expected"], all);
        covered = record["rows_covered"].as_u64().unwrap();
    }
    assert!(before.len() > 1, "the answer came in {} steps", lines.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_line_counts_what_it_covers() {
    check(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_tells_the_same() {
    check(true).await;
}
