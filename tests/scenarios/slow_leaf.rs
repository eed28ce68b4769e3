//! Three leaf processes; one freezes in the middle of its life.
//!
//! The first question waits for it as long as it may, and not longer: the answer comes by its deadline, is that of the
//! other two, and says who was too late. Soon the leaf counts as down and costs no waiting. When it thaws, everything
//! is there again.

use std::time::{Duration, Instant};

use gannet_tests::http::{Completeness, Missing};
use gannet_tests::process::Parts;
use gannet_tests::wait::until;
use serde_json::json;

use crate::{numbered, sum};

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_holds() {
    let parts = Parts::start(3).await;
    let client = parts.client().clone();
    for from in (0..3000).step_by(100) {
        client.ingest("t", &numbered(from, from + 100)).await;
    }
    assert_eq!(client.answer("SELECT sum(n) FROM t").await.int(), sum(0, 3000));
    let frozen =
        parts.wait_for_leaf(1, "the leaf to hold rows", |leaf| leaf["rows"].as_u64() > Some(0)).await;
    let held = frozen["rows"].as_u64().unwrap();

    parts.leaf(1).freeze();
    let begun = Instant::now();
    let question = json!({ "sql": "SELECT count(*) FROM t", "timeout_ms": 1500 });
    let answer = client.ask(question.clone()).await.unwrap();
    // Far from the ten seconds that a question has by default.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    let missing =
        |reason: &str| Missing { leaf: "leaf-1".to_owned(), reason: reason.to_owned(), rows: Some(held) };
    assert_eq!(answer.int() as u64, 3000 - held);
    assert_eq!(answer.completeness.missing, [missing("timeout")]);
    assert_eq!(
        (answer.completeness.rows_covered, answer.completeness.rows_expected),
        (3000 - held, Some(3000))
    );

    let answer = until(60, "the leaf to count as down", || async {
        let answer = client.ask(question.clone()).await.unwrap();
        (answer.completeness.missing == [missing("down")]).then_some(answer)
    })
    .await;
    assert_eq!(answer.int() as u64, 3000 - held);

    parts.leaf(1).thaw();
    parts.wait_until_ready().await;
    let answer = client.answer("SELECT count(*) FROM t").await;
    assert_eq!((answer.int(), answer.completeness.clone()), (3000, Completeness::whole(3, 3000)));
}
