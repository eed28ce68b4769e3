//! A leaf has a limit, and meets it.
//!
//! When there are sealed rows, the oldest go, and answers are complete about what is there. When there is nothing
//! to let go, new rows are refused by name, with a hint to come back, and what was there stays as it was.

use std::fmt::Write;

use gannet_tests::cluster::{Cluster, Settings, Shape};
use serde_json::json;

const ONE: Shape = Shape { leaves: 1, intermediate: false };

/// Rows that do not compress: each carries a text of its own.
fn bulky(from: u64, until: u64) -> String {
    let mut text = String::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in from..until {
        let _ = write!(text, "{{\"time\":{},\"n\":{number},\"text\":\"", 1_772_323_200 + number);
        for part in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number * 8 + part + 1);
            let _ = write!(text, "{state:016x}");
        }
        text.push_str("\"}\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_rows_go_first() {
    const ROWS: u64 = 60_000;
    const STEP: u64 = 5_000;
    let settings = Settings {
        leaf: |config| {
            config.memory_limit_bytes = 3 << 20;
            config.seal_age_seconds = 0;
        },
        ..Settings::default()
    };
    let cluster = Cluster::start_with(ONE, settings).await;
    for from in (0..ROWS).step_by(STEP as usize) {
        cluster.client().ingest("t", &bulky(from, from + STEP)).await;
        cluster.seal(&["t"]).await;
    }
    let answer = cluster.client().answer("SELECT count(*), min(n), max(n) FROM t").await;
    let int = |column: usize| answer.rows[0][column].as_u64().unwrap();
    let (count, min, max) = (int(0), int(1), int(2));
    assert!((STEP..ROWS).contains(&count), "{count} of {ROWS} rows of about 70 bytes are in 3 MiB");
    // What is left is the newest, without a gap.
    assert_eq!((max, max - min + 1), (ROWS - 1, count));
    // Expired is not missing: nobody expects those rows.
    assert_eq!((answer.completeness.ratio, answer.completeness.rows_covered), (Some(1.0), count));
    let used = cluster.leaf(0).used_bytes();
    assert!(used <= 3 << 20, "{used} bytes in use");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_are_refused_by_name() {
    let settings = Settings { leaf: |config| config.memory_limit_bytes = 2 << 20, ..Settings::default() };
    let cluster = Cluster::start_with(ONE, settings).await;
    cluster.client().ingest("t", &bulky(0, 2_000)).await;
    // Nothing is sealed here, so nothing can go.
    let mut refused = None;
    let mut taken = 2_000;
    for from in (2_000..100_000).step_by(2_000) {
        let body = bulky(from, from + 2_000).into_bytes();
        let reply = cluster.client().post("/v1/events/t", "application/x-ndjson", None, body).await;
        match reply.status {
            200 => taken += 2_000,
            _ => {
                refused = Some(reply);
                break;
            }
        }
    }
    let reply = refused.expect("100,000 rows of about 150 bytes do not fit into 2 MiB");
    let refusal = reply.refusal();
    assert_eq!((refusal.status, refusal.code.as_str()), (429, "overloaded"));
    for part in ["leaf-0", "table t", "2097152"] {
        assert!(refusal.all().contains(part), "{part} is not in {refusal:?}");
    }
    assert!(reply.headers.contains_key("retry-after"), "{:?}", reply.headers);
    let answer = cluster.client().answer("SELECT count(*), max(n) FROM t").await;
    assert_eq!(answer.rows, [vec![json!(taken), json!(taken - 1)]]);
    assert_eq!(answer.completeness.ratio, Some(1.0));
}

/// Rows with many columns, of which each row leaves out some.
fn many_columns(rows: usize, columns: usize) -> String {
    let mut body = String::new();
    for row in 0..rows {
        let there = (0..columns).filter(|column| (row + column) % 5 != 0);
        let cells: Vec<String> = there.map(|column| format!("\"c{column}\":{row}")).collect();
        let _ = writeln!(body, "{{{}}}", cells.join(","));
    }
    body
}

/// A batch with many columns takes what its values take: all of it is taken, and counted once.
#[tokio::test(flavor = "multi_thread")]
async fn many_columns_count_once() {
    const ROWS: usize = 2_000;
    const COLUMNS: usize = 400;
    let cluster = Cluster::start(ONE).await;
    cluster.client().ingest("t", &many_columns(ROWS, COLUMNS)).await;
    let answer = cluster.client().answer("SELECT count(*), count(c399), max(c399) FROM t").await;
    assert_eq!(answer.rows, [vec![json!(ROWS), json!(ROWS / 5 * 4), json!(ROWS - 1)]]);
    // Eight bytes a value, a bit a value for NULLs, and the time.
    let used = cluster.leaf(0).used_bytes();
    let least = (ROWS * COLUMNS * 8) as u64;
    assert!((least / 2..least * 3).contains(&used), "{used} bytes in use by values of {least}");
}

/// Rows of which each has a column of its own: few values in many columns.
#[tokio::test(flavor = "multi_thread")]
async fn sparse_columns_count_once() {
    const ROWS: usize = 900;
    let cluster = Cluster::start(ONE).await;
    let body: String = (0..ROWS).map(|row| format!("{{\"k{row}\":{row}}}\n")).collect();
    cluster.client().ingest("t", &body).await;
    let answer = cluster.client().answer("SELECT count(*), count(k7), max(k899) FROM t").await;
    assert_eq!(answer.rows, [vec![json!(ROWS), json!(1), json!(899)]]);
    let used = cluster.leaf(0).used_bytes();
    assert!(used < (ROWS * ROWS * 16) as u64, "{used} bytes in use by {ROWS} values");
}

/// Rows that a leaf sends to the aggregator count once as well: 5 MB are far from the 256 MiB that may be pulled.
#[tokio::test(flavor = "multi_thread")]
async fn many_columns_are_pulled_at_their_size() {
    const ROWS: usize = 2_000;
    const COLUMNS: usize = 300;
    let cluster = Cluster::start(ONE).await;
    // In small bodies, so that this is about the way back.
    for _ in 0..ROWS / 100 {
        cluster.client().ingest("t", &many_columns(100, COLUMNS)).await;
    }
    let answer = cluster.client().answer("SELECT * FROM t ORDER BY c1 DESC").await;
    assert_eq!((answer.rows.len(), answer.columns.len()), (ROWS, COLUMNS + 1));
    let answer = cluster.client().answer("SELECT * FROM t").await;
    assert_eq!(answer.rows.len(), ROWS);
}
