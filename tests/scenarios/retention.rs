//! Rows grow old and go, by age and by the bytes of their table; whoever asks then is told the truth about what is
//! left, and nothing counts as missing.

use gannet_tests::cluster::{Cluster, Settings, Shape};
use gannet_tests::wait::until;
use serde_json::json;

use crate::numbered;

const ONE: Shape = Shape { leaves: 1, intermediate: false };

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_go_and_are_not_missing() {
    let settings = Settings {
        leaf: |config| {
            config.seal_age_seconds = 0;
            // A century is never over while this runs, except for the table that says so.
            config.retention_seconds = 100 * 365 * 24 * 3600;
            let brief = gannet_leaf::TableConfig { retention_seconds: Some(3600), ..Default::default() };
            config.tables.insert("brief".to_owned(), brief);
        },
        ..Settings::default()
    };
    let cluster = Cluster::start_with(ONE, settings).await;
    let old = "{\"time\":\"2001-02-03T00:00:00Z\",\"n\":1}\n{\"time\":\"2001-02-03T00:00:01Z\",\"n\":2}\n";
    cluster.client().ingest("kept", old).await;
    cluster.client().ingest("brief", old).await;
    // The leaf looks after this by itself, about once a second.
    until(60, "old rows to go", || async { (cluster.client().count("brief").await == 0).then_some(()) })
        .await;
    // Without a time a row is of now, and stays.
    cluster.client().ingest("brief", "{\"n\":3}\n").await;
    let answer = cluster.client().answer("SELECT count(*), max(n) FROM brief").await;
    assert_eq!(answer.rows, [vec![json!(1), json!(3)]]);
    assert_eq!(answer.completeness.ratio, Some(1.0));
    let answer = cluster.client().answer("SELECT count(*), max(n) FROM kept").await;
    assert_eq!((answer.rows, answer.completeness.ratio), (vec![vec![json!(2), json!(2)]], Some(1.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_keeps_to_its_bytes() {
    let settings = Settings {
        leaf: |config| {
            config.seal_age_seconds = 0;
            let small = gannet_leaf::TableConfig { table_bytes_max: Some(40_000), ..Default::default() };
            config.tables.insert("small".to_owned(), small);
        },
        ..Settings::default()
    };
    let cluster = Cluster::start_with(ONE, settings).await;
    for from in (0..20_000).step_by(2_000) {
        let rows = numbered(from, from + 2_000);
        cluster.client().ingest("small", &rows).await;
        cluster.client().ingest("large", &rows).await;
        cluster.seal(&["small", "large"]).await;
    }
    let left = until(60, "the table to keep to its bytes", || async {
        let leaf = cluster.leaf(0).describe();
        let small = leaf.tables.iter().find(|table| table.name == "small")?;
        (small.bytes <= 40_000).then_some(small.rows as i64)
    })
    .await;
    let answer = cluster.client().answer("SELECT count(*), max(n) FROM small").await;
    assert_eq!(answer.rows, [vec![json!(left), json!(19_999)]]);
    assert_eq!(answer.completeness.ratio, Some(1.0));
    assert!(left < 20_000, "{left} rows in 40,000 bytes");
    assert_eq!(cluster.client().count("large").await, 20_000);
}
