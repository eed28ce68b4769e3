//! A leaf stops and starts again.
//!
//! After a clean stop it serves the same rows from shared memory, sealed and open ones, again and again. When the
//! segments are gone, or a byte of them is not what it was, it reads its files; when those are gone as well it says
//! what is missing and serves none of it. Two processes never share a directory.

use std::path::PathBuf;

use gannet_tests::cluster::{Cluster, Settings, Shape};
use gannet_tests::http::{Answer, Completeness, Missing};
use gannet_tests::segments;
use gannet_tests::wait::until;
use serde_json::Value as Json;

use crate::{numbered, sum};

const ONE: Shape = Shape { leaves: 1, intermediate: false };

async fn with_rows(rows: u64) -> Cluster {
    let cluster = Cluster::start(ONE).await;
    cluster.feed(0, &[("t".to_owned(), numbered(0, rows))]).await;
    cluster.wait_for_rows(&[("t", rows)]).await;
    cluster
}

/// What the root says of the leaf once it is in its n-th life.
async fn in_life(cluster: &Cluster, epoch: u64) -> Json {
    until(60, "the root to see the leaf in its new life", || async {
        let leaf = cluster.status().await["leaves"][0].clone();
        (leaf["epoch"] == epoch && leaf["state"] == "serving").then_some(leaf)
    })
    .await
}

async fn ask(cluster: &Cluster) -> (i64, Option<i64>, Answer) {
    let answer = cluster.client().answer("SELECT count(*), sum(n) FROM t").await;
    (answer.rows[0][0].as_i64().unwrap(), answer.rows[0][1].as_i64(), answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_rows_from_shared_memory() {
    let mut cluster = with_rows(5000).await;
    for life in 2..5 {
        cluster.stop_leaf(0).await;
        assert!(!segments::of(cluster.leaf_directory(0)).is_empty(), "a stopped leaf leaves segments");
        cluster.start_leaf(0).await;
        let leaf = in_life(&cluster, life).await;
        assert_eq!((&leaf["source"], &leaf["source_detail"]), (&"shared memory".into(), &"".into()));
        let rows = 5000 + (life - 2) * 10;
        assert_eq!((leaf["rows_restored"].as_u64(), leaf["rows_lost"].as_u64()), (Some(rows), Some(0)));
        let (count, total, answer) = ask(&cluster).await;
        assert_eq!((count as u64, total), (rows, Some(sum(0, rows))));
        assert_eq!(answer.completeness, Completeness::whole(1, rows));
        // New rows live beside those of the life before.
        cluster.feed(0, &[("t".to_owned(), numbered(rows, rows + 10))]).await;
        let (count, total, _) = ask(&cluster).await;
        assert_eq!((count as u64, total), (rows + 10, Some(sum(0, rows + 10))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_rows_too() {
    let settings = Settings { leaf: |config| config.seal_age_seconds = 0, ..Settings::default() };
    let mut cluster = Cluster::start_with(ONE, settings).await;
    cluster.feed(0, &[("t".to_owned(), numbered(0, 70_000))]).await;
    cluster.wait_for_rows(&[("t", 70_000)]).await;
    cluster.seal(&["t"]).await;
    cluster.stop_leaf(0).await;
    cluster.start_leaf(0).await;
    let leaf = in_life(&cluster, 2).await;
    assert_eq!((&leaf["source"], &leaf["rows_lost"]), (&"shared memory".into(), &0.into()));
    let (count, total, _) = ask(&cluster).await;
    assert_eq!((count, total), (70_000, Some(sum(0, 70_000))));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_segments_it_reads_its_files() {
    let mut cluster = with_rows(1000).await;
    cluster.stop_leaf(0).await;
    segments::remove(cluster.leaf_directory(0));
    cluster.start_leaf(0).await;
    let leaf = in_life(&cluster, 2).await;
    assert_eq!((&leaf["source"], &leaf["rows_lost"]), (&"disk".into(), &0.into()));
    assert_ne!(leaf["source_detail"], "", "the status says why");
    let (count, total, answer) = ask(&cluster).await;
    assert_eq!((count, total), (1000, Some(sum(0, 1000))));
    assert_eq!(answer.completeness, Completeness::whole(1, 1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_nothing() {
    let mut cluster = with_rows(1000).await;
    for life in 2..5 {
        cluster.kill_leaf(0).await;
        cluster.start_leaf(0).await;
        let leaf = in_life(&cluster, life).await;
        assert_eq!((&leaf["source"], &leaf["rows_lost"]), (&"disk".into(), &0.into()));
        let rows = 1000 + (life - 2) * 10;
        let (count, total, answer) = ask(&cluster).await;
        assert_eq!((count as u64, total), (rows, Some(sum(0, rows))));
        assert_eq!(answer.completeness, Completeness::whole(1, rows));
        cluster.feed(0, &[("t".to_owned(), numbered(rows, rows + 10))]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anything_it_says_what_is_missing() {
    let mut cluster = with_rows(1000).await;
    cluster.stop_leaf(0).await;
    segments::remove_everything(cluster.leaf_directory(0));
    cluster.start_leaf(0).await;
    let leaf = in_life(&cluster, 2).await;
    assert_eq!((&leaf["source"], &leaf["rows_lost"]), (&"disk".into(), &1000.into()));
    assert_ne!(leaf["source_detail"], "", "the status says why");
    let ready = cluster.client().get("/readyz").await;
    assert_eq!((ready.status, ready.text().as_str()), (503, "leaf-0: 1000 rows are lost\n"));

    cluster.feed(0, &[("t".to_owned(), numbered(1000, 1010))]).await;
    let (count, _, answer) = ask(&cluster).await;
    assert_eq!(count, 10);
    assert_eq!((answer.completeness.rows_covered, answer.completeness.rows_expected), (10, Some(1010)));
    assert_eq!(answer.completeness.ratio, Some(0.009900));
    let missing = Missing { leaf: "leaf-0".to_owned(), reason: "lost".to_owned(), rows: Some(1000) };
    assert_eq!(answer.completeness.missing, [missing]);
    // The leaf did answer.
    assert_eq!((answer.completeness.leaves_asked, answer.completeness.leaves_answered), (1, 1));

    // A person decides that they are gone for good.
    let reply = cluster.client().post("/v1/leaves/leaf-0/accept-loss", "", None, Vec::new()).await;
    assert_eq!((reply.status, reply.json()["rows"].as_u64()), (200, Some(1000)));
    let (_, _, answer) = ask(&cluster).await;
    assert_eq!(answer.completeness, Completeness::whole(1, 10));
    assert_eq!(cluster.client().get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_one_process() {
    let cluster = with_rows(10).await;
    let config = gannet_leaf::Config {
        id: "leaf-0".to_owned(),
        data_dir: cluster.leaf_directory(0).to_owned(),
        ..Default::default()
    };
    let refused = tokio::task::spawn_blocking(|| gannet_leaf::Leaf::start(config)).await.unwrap();
    let error = refused.map(|_| ()).unwrap_err().to_string();
    let directory = cluster.leaf_directory(0).display().to_string();
    let pid = std::process::id().to_string();
    assert!(error.contains(&directory) && error.contains(&pid), "{error}");
    assert_eq!(ask(&cluster).await.0, 10);
}

/// The largest segment holds rows; the others are catalogues.
fn segment_of_rows(cluster: &Cluster) -> PathBuf {
    let segments = segments::of(cluster.leaf_directory(0));
    segments.into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

fn flip(path: &PathBuf, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    // In place: the segment stays the same file.
    std::fs::write(path, bytes).unwrap();
}

/// One byte that is not what it was: nobody needs it, or the file has it, or, without the file, its rows are named as
/// missing. No answer is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_is_never_served() {
    const ROWS: u64 = 3000;
    const PLACES: usize = 10;
    let mut refused = 0;
    for place in 0..PLACES {
        let mut cluster = with_rows(ROWS).await;
        cluster.stop_leaf(0).await;
        let segment = segment_of_rows(&cluster);
        let has_files = place % 2 == 0;
        if !has_files {
            for file in segments::block_files(cluster.leaf_directory(0)) {
                std::fs::remove_file(file).unwrap();
            }
        }
        let length = segment.metadata().unwrap().len() as usize;
        flip(&segment, length / PLACES * place + 7);
        cluster.start_leaf(0).await;
        in_life(&cluster, 2).await;
        let answer = cluster.client().query("SELECT count(*), sum(n), min(g), max(time) FROM t").await;
        // A block whose header is not what it was is not even a table any more.
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                assert!(!has_files, "byte {place}: {error:?}");
                refused += 1;
                continue;
            }
        };
        let (count, total) = (answer.rows[0][0].as_u64().unwrap(), answer.rows[0][1].as_i64());
        let missing: u64 = answer.completeness.missing.iter().map(|missing| missing.rows.unwrap()).sum();
        assert_eq!((count + missing, answer.completeness.rows_covered), (ROWS, count), "byte {place}");
        if missing > 0 {
            assert!(!has_files, "byte {place}");
            refused += 1;
            assert_eq!((count, total), (0, None), "byte {place}");
            assert_ne!(answer.completeness.missing[0].reason, "down");
        } else {
            assert_eq!(total, Some(sum(0, ROWS)), "byte {place}");
        }
    }
    assert!(refused > 0, "{PLACES} changed bytes and none was noticed");
}

/// The catalogue is the door to everything else: a changed byte there closes it, by name.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_catalogue_is_refused_by_name() {
    let mut cluster = with_rows(100).await;
    cluster.stop_leaf(0).await;
    let segments = segments::of(cluster.leaf_directory(0));
    let catalogue = segments.iter().find(|path| path.to_string_lossy().contains("catalogue")).unwrap();
    // Magic comes first.
    flip(catalogue, 0);
    cluster.start_leaf(0).await;
    let leaf = in_life(&cluster, 2).await;
    assert_eq!((&leaf["source"], &leaf["rows_lost"]), (&"disk".into(), &0.into()));
    let detail = leaf["source_detail"].as_str().unwrap();
    assert!(detail.contains("magic"), "{detail}");
    assert_eq!(ask(&cluster).await.1, Some(sum(0, 100)));
}
