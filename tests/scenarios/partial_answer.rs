//! Four leaves hold 100, 200, 300 and 400 rows. The third stops.
//!
//! The answer is exactly that of the other three, and says so: who is missing, why, with how many rows, and a ratio
//! that is rounded down. Whoever wants more than that gets an error. The aggregator is restarted while the leaf is
//! away and has forgotten nothing. The leaf comes back, and nothing is missing any more. When nobody is left, that is
//! an error and no empty answer.

use gannet_tests::cluster::{Cluster, Shape};
use gannet_tests::http::{Completeness, Missing};
use gannet_tests::wait::until;
use serde_json::json;

use crate::{numbered, sum};

const BOUNDS: [(u64, u64); 4] = [(0, 100), (100, 300), (300, 600), (600, 1000)];

async fn four_leaves() -> Cluster {
    let cluster = Cluster::start(Shape { leaves: 4, intermediate: false }).await;
    for (leaf, (from, until)) in BOUNDS.into_iter().enumerate() {
        cluster.feed(leaf, &[("t".to_owned(), numbered(from, until))]).await;
    }
    cluster.wait_for_rows(&[("t", 1000)]).await;
    cluster
}

/// Count and sum of everything, with the completeness of the answer.
async fn ask(cluster: &Cluster) -> (i64, i64, Completeness) {
    let answer = cluster.client().answer("SELECT count(*), sum(n) FROM t").await;
    let int = |column: usize| answer.rows[0][column].as_i64().unwrap();
    (int(0), int(1), answer.completeness.clone())
}

async fn wait_for_state(cluster: &Cluster, leaf: usize, state: &str) {
    until(60, "the state of a leaf to change", || async {
        (cluster.status().await["leaves"][leaf]["state"] == state).then_some(())
    })
    .await;
}

fn without_the_third() -> Completeness {
    Completeness {
        ratio: Some(0.7),
        rows_covered: 700,
        rows_expected: Some(1000),
        leaves_asked: 4,
        leaves_answered: 3,
        missing: vec![Missing { leaf: "leaf-2".to_owned(), reason: "down".to_owned(), rows: Some(300) }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_says_exactly_what_is_missing() {
    let mut cluster = four_leaves().await;
    assert_eq!(ask(&cluster).await, (1000, sum(0, 1000), Completeness::whole(4, 1000)));

    cluster.stop_leaf(2).await;
    let rest = sum(0, 1000) - sum(300, 600);
    // Whatever the aggregator knows at this moment, it does not count the missing rows.
    let (count, total, completeness) = ask(&cluster).await;
    assert_eq!(
        (count, total, completeness.rows_covered, completeness.rows_expected),
        (700, rest, 700, Some(1000))
    );
    wait_for_state(&cluster, 2, "down").await;
    assert_eq!(ask(&cluster).await, (700, rest, without_the_third()));

    // By group, and as rows: the same record.
    let groups = cluster.client().answer("SELECT g, count(*) FROM t GROUP BY g ORDER BY g").await;
    assert_eq!(
        groups.rows,
        [vec![json!("g0"), json!(234)], vec![json!("g1"), json!(233)], vec![json!("g2"), json!(233)]]
    );
    assert_eq!(groups.completeness, without_the_third());
    let rows = cluster.client().answer("SELECT n FROM t ORDER BY time DESC LIMIT 1").await;
    assert_eq!((rows.rows, rows.completeness), (vec![vec![json!(999)]], without_the_third()));

    // Enough for one, too little for another.
    let wanted = |least: f64| json!({ "sql": "SELECT count(*) FROM t", "min_completeness": least });
    assert_eq!(cluster.client().ask(wanted(0.7)).await.unwrap().int(), 700);
    let refusal = cluster.client().ask(wanted(0.71)).await.unwrap_err();
    assert_eq!((refusal.status, refusal.code.as_str()), (503, "incomplete"));
    assert_eq!(refusal.message, "completeness is 0.7, less than the 0.71 asked for");
    assert_eq!(refusal.detail.as_deref(), Some("Missing: leaf-2: down (300 rows)."));

    cluster.restart_root().await;
    assert_eq!(ask(&cluster).await, (700, rest, without_the_third()));

    cluster.start_leaf(2).await;
    wait_for_state(&cluster, 2, "serving").await;
    assert_eq!(ask(&cluster).await, (1000, sum(0, 1000), Completeness::whole(4, 1000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_an_error() {
    let mut cluster = four_leaves().await;
    for leaf in 0..4 {
        cluster.stop_leaf(leaf).await;
    }
    let refusal = cluster.client().query("SELECT count(*) FROM t").await.unwrap_err();
    assert_eq!(
        (refusal.status, refusal.code.as_str(), refusal.message.as_str()),
        (503, "unavailable", "no leaf answered")
    );
    for leaf in 0..4 {
        cluster.start_leaf(leaf).await;
        wait_for_state(&cluster, leaf, "serving").await;
    }
    assert_eq!(ask(&cluster).await, (1000, sum(0, 1000), Completeness::whole(4, 1000)));
}

/// Rows outside the time range of a question are not missing in it.
#[tokio::test(flavor = "multi_thread")]
async fn completeness_is_about_the_time_range() {
    let mut cluster = Cluster::start(Shape { leaves: 2, intermediate: false }).await;
    cluster.feed(0, &[("t".to_owned(), numbered(0, 100))]).await;
    cluster.feed(1, &[("t".to_owned(), numbered(7200, 7300))]).await;
    cluster.wait_for_rows(&[("t", 200)]).await;
    cluster.stop_leaf(1).await;
    wait_for_state(&cluster, 1, "down").await;
    let early = cluster.client().answer("SELECT count(*) FROM t WHERE time < '2026-03-01T01:00:00Z'").await;
    assert_eq!((early.int(), early.completeness.ratio), (100, Some(1.0)));
    assert_eq!(early.completeness.rows_expected, Some(100));
    let late = cluster.client().answer("SELECT count(*) FROM t WHERE time >= '2026-03-01T01:00:00Z'").await;
    assert_eq!((late.int(), late.completeness.ratio), (0, Some(0.0)));
    assert_eq!(late.completeness.rows_expected, Some(100));
}

/// An aggregator in the middle changes nothing about the record.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_tells_the_same() {
    let mut cluster = Cluster::start(Shape { leaves: 3, intermediate: true }).await;
    for leaf in 0..3 {
        let from = leaf as u64 * 100;
        cluster.feed(leaf, &[("t".to_owned(), numbered(from, from + 100))]).await;
    }
    cluster.wait_for_rows(&[("t", 300)]).await;
    assert_eq!(ask(&cluster).await, (300, sum(0, 300), Completeness::whole(3, 300)));
    cluster.stop_leaf(1).await;
    let (count, completeness) = until(60, "the middle to say who is down", || async {
        let (count, _, completeness) = ask(&cluster).await;
        (completeness.missing.first()?.reason == "down").then_some((count, completeness))
    })
    .await;
    assert_eq!((count, completeness.ratio), (200, Some(0.666666)));
    assert_eq!((completeness.leaves_asked, completeness.leaves_answered), (3, 2));
    let missing = Missing { leaf: "leaf-1".to_owned(), reason: "down".to_owned(), rows: Some(100) };
    assert_eq!(completeness.missing, [missing]);
}

/// Who is missing thins only the steps of time in which they have rows.
#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_time_says_how_complete_it_is() {
    let mut cluster = Cluster::start(Shape { leaves: 2, intermediate: false }).await;
    cluster.feed(0, &[("t".to_owned(), numbered(0, 240))]).await;
    cluster.feed(1, &[("t".to_owned(), numbered(120, 180))]).await;
    cluster.wait_for_rows(&[("t", 300)]).await;
    let by_minute = "SELECT date_trunc('minute', time) AS at, count(*) FROM t GROUP BY 1 ORDER BY 1";
    let ask = async |cluster: &Cluster| {
        let question = json!({ "sql": by_minute }).to_string().into_bytes();
        cluster.client().post("/v1/query", "application/json", None, question).await.json()
    };
    assert!(ask(&cluster).await["completeness"]["buckets"].is_null(), "nothing is missing");
    cluster.stop_leaf(1).await;
    wait_for_state(&cluster, 1, "down").await;
    let bucket = |minute: u64, ratio: f64, covered: u64, expected: u64| {
        json!({
            "time": format!("2026-03-01T00:0{minute}:00Z"),
            "ratio": ratio, "rows_covered": covered, "rows_expected": expected,
        })
    };
    let expect = json!([
        bucket(0, 1.0, 60, 60),
        bucket(1, 1.0, 60, 60),
        bucket(2, 0.5, 60, 120),
        bucket(3, 1.0, 60, 60)
    ]);
    // What a leaf holds by time is told with its next description.
    until(60, "the rows by time to be told", || async {
        (ask(&cluster).await["completeness"]["buckets"] == expect).then_some(())
    })
    .await;
}
