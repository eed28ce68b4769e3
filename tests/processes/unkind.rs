//! What people and machines do to a leaf at the wrong moment: a second process on its directory, a second SIGTERM, one
//! while it starts, kills while it hands over or recovers, a disk that is full.
//!
//! Whatever they do, every acknowledged row is there in the end, once.

use std::process::Command;
use std::time::Duration;

use gannet_tests::http::Completeness;
use gannet_tests::process::{Parts, binary};
use gannet_tests::wait::until;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{post_requests, requests};

const ROWS: u64 = 40_000;
/// Kills at random moments of a stop or of a start.
const KILLS: u64 = 30;

/// Waits until the leaf that was started last has brought back everything: the aggregator may not have noticed yet
/// that another process is there.
async fn check_whole(parts: &Parts, rows: u64) {
    let answer = until(60, "every row to answer", || async {
        let answer = parts.client().query("SELECT count(*), count(DISTINCT n) FROM requests").await.ok()?;
        (answer.completeness == Completeness::whole(1, rows)).then_some(answer)
    })
    .await;
    assert_eq!(answer.rows, [[rows, rows]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_refuses_and_disturbs_nobody() {
    let parts = Parts::start(1).await;
    post_requests(parts.client(), ROWS).await;
    let (status, said) = parts.another_leaf(0, Command::new(binary())).end().await;
    assert!(!status.success(), "{status:?}");
    let holder = format!("process {}", parts.leaf(0).id());
    assert!(said.contains(&holder), "it does not name {holder}:\n{said}");
    check_whole(&parts, ROWS).await;
    parts.client().ingest("requests", &requests(ROWS, ROWS + 10)).await;
    check_whole(&parts, ROWS + 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_changes_nothing() {
    let mut parts = Parts::start(1).await;
    post_requests(parts.client(), ROWS).await;
    let leaf = parts.take_leaf(0);
    leaf.terminate();
    leaf.terminate();
    let (status, said) = leaf.end().await;
    assert!(status.success(), "{status:?}\n{said}");
    parts.start_leaf(0);
    check_whole(&parts, ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_and_sigkill_at_any_moment_of_a_start_or_a_stop() {
    let mut parts = Parts::start(1).await;
    post_requests(parts.client(), ROWS).await;
    let mut random = StdRng::seed_from_u64(11);
    for round in 0..KILLS {
        let moment = Duration::from_millis(random.random_range(0..200));
        let leaf = parts.take_leaf(0);
        match round % 3 {
            // Within the hand-over.
            0 => {
                leaf.terminate();
                tokio::time::sleep(moment / 2).await;
                leaf.kill().await;
            }
            // A crash, then within the recovery.
            1 => {
                leaf.kill().await;
                parts.start_leaf(0);
                tokio::time::sleep(moment).await;
                parts.take_leaf(0).kill().await;
            }
            // A crash, and asked to stop within the recovery.
            _ => {
                leaf.kill().await;
                parts.start_leaf(0);
                tokio::time::sleep(moment).await;
                let leaf = parts.take_leaf(0);
                leaf.terminate();
                let _ = leaf.end().await;
            }
        }
        parts.start_leaf(0);
        if round % 5 == 4 {
            check_whole(&parts, ROWS).await;
        }
    }
    check_whole(&parts, ROWS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_rows_and_loses_none() {
    let mut parts = Parts::start(1).await;
    parts.client().ingest("requests", &requests(0, 1_000)).await;
    parts.take_leaf(0).stop().await;
    parts.start_leaf_on_small_disk(0, 256);
    check_whole(&parts, 1_000).await;
    let mut rows = 1_000;
    let mut refused = 0;
    for _ in 0..40 {
        let reply = parts.client().try_ingest_as("requests", "p", rows, &requests(rows, rows + 1_000)).await;
        match reply {
            Some(reply) if reply.status == 200 => rows += 1_000,
            Some(reply) => {
                assert!([503, 507].contains(&reply.status), "{}", reply.text());
                refused += 1;
            }
            None => refused += 1,
        }
        if refused > 3 {
            break;
        }
    }
    assert!(refused > 0, "{rows} rows fit into 256 KiB");
    let counted = parts.client().count("requests").await;
    assert!(counted >= rows as i64, "{counted} rows of {rows} answer while the disk is full");
    parts.take_leaf(0).kill().await;
    // There is room again.
    parts.start_leaf(0);
    let answer = until(60, "rows to be taken again", || async {
        let more = requests(100_000, 100_010);
        parts.client().try_ingest_as("requests", "q", 0, &more).await.filter(|reply| reply.status == 200)?;
        let sql = "SELECT count(*), count(DISTINCT n) FROM requests WHERE n < 100000";
        let answer = parts.client().query(sql).await.ok()?;
        (answer.completeness.ratio == Some(1.0)).then_some(answer)
    })
    .await;
    let found = answer.rows[0][0].as_u64().unwrap();
    assert_eq!(answer.rows[0][0], answer.rows[0][1], "no row is there twice");
    assert!((rows..=rows + 1_000).contains(&found), "{found} rows of {rows} that were acknowledged");
}
