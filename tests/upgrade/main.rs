//! An upgrade to a build that writes another layout, and back.
//!
//! The old build is the `gannet` beside this test; the new one is `next-leaf`, the same leaf with the next layout version.
//! Upwards: shared memory is refused and said to be, every row comes from disk, batches that were counted are still known.
//! Downwards: the old build refuses the directory before it writes anything, and the new one goes on as if nothing had
//! been.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gannet_leaf::row_block::{LAYOUT_VERSION, LAYOUT_VERSION_OLDEST};
use gannet_tests::http::{Client, Completeness};
use gannet_tests::process::Parts;
use gannet_tests::segments;
use serde_json::{Value as Json, json};

const NEXT: &str = env!("CARGO_BIN_EXE_next-leaf");
/// Rows of a body, and bodies: more than a row block on each leaf.
const ROWS: u64 = 10_000;
const BODIES: u64 = 20;
const QUESTION: &str = "SELECT count(*), count(DISTINCT n), sum(n), count(DISTINCT s) FROM t";

fn body(number: u64) -> String {
    (number * ROWS..(number + 1) * ROWS)
        .map(|n| format!("{{\"time\":{},\"n\":{n},\"s\":\"s{}\"}}\n", 1_772_323_200 + n / 5, n % 97))
        .collect()
}

/// Posts a body under its name. How many of its rows had been counted before.
async fn post(client: &Client, number: u64) -> u64 {
    let reply = client.try_ingest_as("t", "upgrade", number, &body(number)).await.unwrap();
    assert_eq!((reply.status, &reply.json()["accepted"]), (200, &json!(ROWS)), "{}", reply.text());
    reply.json()["duplicates"].as_u64().unwrap_or(0)
}

/// Everything is there, once.
async fn check_whole(client: &Client, bodies: u64) {
    let rows = bodies * ROWS;
    let answer = client.answer(QUESTION).await;
    assert_eq!(answer.rows, [[json!(rows), json!(rows), json!(rows * (rows - 1) / 2), json!(97)]]);
    assert_eq!(answer.completeness, Completeness::whole(2, rows));
}

/// Every file of a leaf and every segment, but for the file that only says who has the directory.
fn everything(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut open = vec![directory.to_owned()];
    let mut files = segments::of(directory);
    assert!(!files.is_empty(), "the rows are in shared memory");
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_none_or(|name| name != "lock") {
                files.push(path);
            }
        }
    }
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Waits for the next life of a leaf, which serves.
async fn serving(parts: &Parts, index: usize, epoch: u64) -> Json {
    let leaf = parts
        .wait_for_leaf(index, "the leaf to serve again", |leaf| {
            leaf["state"] == "serving" && leaf["epoch"] == epoch
        })
        .await;
    assert_eq!(leaf["rows_lost"], 0, "{leaf}");
    parts.wait_until_ready().await;
    leaf
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_and_back() {
    assert_eq!(LAYOUT_VERSION, LAYOUT_VERSION_OLDEST + 1, "the new build reads what the old one wrote");
    let (next, leaves) = (Path::new(NEXT), 2);
    let mut parts = Parts::start(leaves).await;
    for number in 0..BODIES {
        assert_eq!(post(parts.client(), number).await, 0);
    }
    check_whole(parts.client(), BODIES).await;

    // Up, one leaf after the other: aggregator and the other leaf are of the old build.
    for leaf in 0..leaves {
        parts.take_leaf(leaf).stop().await;
        parts.start_leaf_of(leaf, next);
        let said = serving(&parts, leaf, 2).await;
        assert_eq!(said["source"], "disk", "{said}");
        let told = said["source_detail"].as_str().unwrap_or_default();
        let expect = format!("layout version {LAYOUT_VERSION_OLDEST}, this build reads {LAYOUT_VERSION}");
        assert!(told.contains(&expect), "{said}");
        check_whole(parts.client(), BODIES).await;
    }
    for number in 0..BODIES {
        assert_eq!(post(parts.client(), number).await, ROWS, "batch {number} is known to be there");
    }
    for number in BODIES..2 * BODIES {
        assert_eq!(post(parts.client(), number).await, 0);
    }
    check_whole(parts.client(), 2 * BODIES).await;

    // Among its own kind it is a warm restart, with blocks of both layouts.
    parts.take_leaf(0).stop().await;
    parts.start_leaf_of(0, next);
    let said = serving(&parts, 0, 3).await;
    assert_eq!((&said["source"], &said["source_detail"]), (&json!("shared memory"), &json!("")), "{said}");
    check_whole(parts.client(), 2 * BODIES).await;

    // Down: refused, and nothing is touched.
    parts.take_leaf(0).stop().await;
    let before = everything(&parts.leaf_directory(0));
    for _ in 0..2 {
        parts.start_leaf(0);
        let (status, said) = parts.take_leaf(0).end().await;
        assert!(!status.success(), "{said}");
        let expect = format!(
            "leaf.json: layout version {LAYOUT_VERSION} of row blocks, this build reads up to {LAYOUT_VERSION_OLDEST}"
        );
        assert!(said.contains(&expect), "{said}");
        assert!(everything(&parts.leaf_directory(0)) == before, "something was written");
    }

    // And up again, as if nothing had been.
    parts.start_leaf_of(0, next);
    let said = serving(&parts, 0, 4).await;
    assert_eq!(said["source"], "shared memory", "{said}");
    check_whole(parts.client(), 2 * BODIES).await;
    assert_eq!(post(parts.client(), 0).await, ROWS);
}

/// A crash upwards: what is in shared memory is taken block by block, the rest from files and the log.
#[tokio::test(flavor = "multi_thread")]
async fn upgrade_after_a_crash() {
    let mut parts = Parts::start(2).await;
    for number in 0..BODIES {
        assert_eq!(post(parts.client(), number).await, 0);
    }
    for leaf in 0..2 {
        parts.take_leaf(leaf).kill().await;
        parts.start_leaf_of(leaf, Path::new(NEXT));
        serving(&parts, leaf, 2).await;
    }
    check_whole(parts.client(), BODIES).await;
    // The first thing it wrote says who may read it.
    parts.take_leaf(1).kill().await;
    parts.start_leaf(1);
    let (status, said) = parts.take_leaf(1).end().await;
    assert!(!status.success() && said.contains("this build reads up to"), "{said}");
    parts.start_leaf_of(1, Path::new(NEXT));
    serving(&parts, 1, 3).await;
    check_whole(parts.client(), BODIES).await;
}
