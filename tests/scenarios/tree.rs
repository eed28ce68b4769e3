//! Seven leaves, of which the root asks three at once by itself; two other aggregators ask the rest for it.
//!
//! Nobody can tell from the answers: they are those of a root that asks everybody, groups and their order included. A leaf
//! stops, and is missed with its rows. Both aggregators end without a word, one after the other, and the root goes on
//! with those that are left, or alone.

use gannet_tests::cluster::{Cluster, Shape};
use gannet_tests::http::{Completeness, Missing};
use gannet_tests::wait::until;

use crate::{numbered, sum};

const LEAVES: u64 = 7;
const ROWS: u64 = 50;
const BY_GROUP: &str = "SELECT g, count(*), max(n) FROM t GROUP BY g ORDER BY g";
const FIRST: &str = "SELECT n % 40, count(*), sum(n) FROM t GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 5";
const NEWEST: &str = "SELECT n FROM t ORDER BY time DESC LIMIT 3";

/// Count and sum of everything, with the completeness of the answer.
async fn ask(cluster: &Cluster) -> (i64, i64, Completeness) {
    let answer = cluster.client().answer("SELECT count(*), sum(n) FROM t").await;
    let int = |column: usize| answer.rows[0][column].as_i64().unwrap();
    (int(0), int(1), answer.completeness.clone())
}

/// Waits until status and metrics say this of the aggregators that ask for the root.
async fn wait_for_helpers(cluster: &Cluster, expect: &[&str]) {
    until(60, "the aggregators between to be shown", || async {
        let status = cluster.client().get("/v1/status").await.json();
        let helpers = status["aggregators"].as_array().unwrap().iter();
        let states: Vec<&str> = helpers
            .filter(|other| other["role"] == "helper")
            .filter_map(|other| other["state"].as_str())
            .collect();
        let metrics = cluster.client().get("/metrics").await.text();
        let up =
            metrics.lines().filter(|line| line.starts_with("gannet_aggregator_up{") && line.ends_with("} 1"));
        let is_up = |state: &&&str| **state == "up";
        (states == expect && up.count() == expect.iter().filter(is_up).count()).then_some(())
    })
    .await;
}

/// A person decides at the root about a leaf two levels below: the aggregator between stops expecting it too, and keeps that
/// over a restart of the root.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_reaches_the_aggregators_below() {
    let mut cluster = Cluster::start(Shape { leaves: 3, intermediate: true }).await;
    for leaf in 0..3 {
        let rows = numbered(leaf * ROWS, (leaf + 1) * ROWS);
        cluster.feed(leaf as usize, &[("t".to_owned(), rows)]).await;
    }
    cluster.wait_for_rows(&[("t", 3 * ROWS)]).await;
    let status = cluster.client().get("/v1/status").await.json();
    let between = &status["aggregators"][0];
    assert_eq!((&between["role"], &between["state"]), (&"child".into(), &"up".into()), "{status}");
    assert_eq!(between["version"], env!("CARGO_PKG_VERSION"), "{status}");

    let becomes = async |cluster: &Cluster, what: &str, rows: u64, leaves: u64, missing: usize| {
        until(60, what, || async {
            let (count, _, completeness) = ask(cluster).await;
            let found = (count as u64, completeness.leaves_asked, completeness.missing.len());
            (found == (rows, leaves, missing)).then_some(completeness)
        })
        .await
    };
    cluster.stop_leaf(2).await;
    becomes(&cluster, "the leaf to be missed", 2 * ROWS, 3, 1).await;
    let post = async |cluster: &Cluster, path: &str| {
        // The root hears that a leaf is down or back when the aggregator between describes itself again.
        until(60, path, || async {
            let reply = cluster.client().post(path, "application/json", None, Vec::new()).await;
            assert!([200, 409].contains(&reply.status), "{}", reply.text());
            (reply.status == 200).then_some(())
        })
        .await;
    };
    post(&cluster, "/v1/leaves/leaf-2/decommission?confirm=leaf-2").await;
    let whole = becomes(&cluster, "nobody to expect the leaf", 2 * ROWS, 2, 0).await;
    assert_eq!(whole, Completeness::whole(2, 2 * ROWS));
    // It stays out when it comes back, on both levels.
    cluster.start_leaf(2).await;
    cluster.restart_root().await;
    assert_eq!(becomes(&cluster, "the leaf to stay out", 2 * ROWS, 2, 0).await, whole);
    post(&cluster, "/v1/leaves/leaf-2/recommission").await;
    let whole = becomes(&cluster, "the leaf to be back", 3 * ROWS, 3, 0).await;
    assert_eq!(whole, Completeness::whole(3, 3 * ROWS));
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregators_ask_for_each_other() {
    let mut cluster = Cluster::start(Shape { leaves: LEAVES as usize, intermediate: false }).await;
    for leaf in 0..LEAVES {
        let rows = numbered(leaf * ROWS, (leaf + 1) * ROWS);
        cluster.feed(leaf as usize, &[("t".to_owned(), rows)]).await;
    }
    let all = LEAVES * ROWS;
    cluster.wait_for_rows(&[("t", all)]).await;
    let questions = [BY_GROUP, FIRST, NEWEST];
    let mut alone = Vec::new();
    for sql in questions {
        alone.push(cluster.client().answer(sql).await.rows);
    }

    cluster.put_between(2, 3).await;
    let whole = Completeness::whole(LEAVES, all);
    wait_for_helpers(&cluster, &["up", "up"]).await;
    assert_eq!(ask(&cluster).await, (all as i64, sum(0, all), whole.clone()));
    for (sql, expect) in questions.into_iter().zip(&alone) {
        assert_eq!(&cluster.client().answer(sql).await.rows, expect, "{sql}");
    }

    cluster.kill_between(0).await;
    wait_for_helpers(&cluster, &["down", "up"]).await;
    assert_eq!(ask(&cluster).await, (all as i64, sum(0, all), whole.clone()));
    cluster.kill_between(1).await;
    assert_eq!(ask(&cluster).await, (all as i64, sum(0, all), whole));

    cluster.put_between(2, 3).await;
    cluster.stop_leaf(2).await;
    let (count, total, completeness) = until(60, "the leaf to be down", || async {
        let told = ask(&cluster).await;
        (told.2.missing.first()?.reason == "down").then_some(told)
    })
    .await;
    let rest = sum(0, all) - sum(2 * ROWS, 3 * ROWS);
    assert_eq!((count, total), ((all - ROWS) as i64, rest));
    let missing = Missing { leaf: "leaf-2".to_owned(), reason: "down".to_owned(), rows: Some(ROWS) };
    assert_eq!((completeness.ratio, completeness.missing), (Some(0.857142), vec![missing]));
    cluster.start_leaf(2).await;
    until(60, "everything to be there", || async {
        (ask(&cluster).await.2 == Completeness::whole(LEAVES, all)).then_some(())
    })
    .await;
}
