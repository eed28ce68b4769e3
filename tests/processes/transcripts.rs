//! What is seen of the commands that ask: golden transcripts over rows that are always the same.

use std::path::Path;

use gannet_tests::process::Parts;
use gannet_tests::transcript;

use crate::requests;

/// Events in the table; the first at midnight, five a second.
const EVENTS: u64 = 20_000;

fn transcript(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("processes/transcripts").join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_ask() {
    let mut parts = Parts::start(2).await;
    let client = parts.client().clone();
    for from in (0..EVENTS).step_by(1000) {
        client.ingest("requests", &requests(from, from + 1000)).await;
    }
    let server = client.base().to_owned();
    let directory = tempfile::tempdir().unwrap();
    for name in ["query.txt", "explore.txt", "diff.txt", "narrow.txt"] {
        if transcript(name).exists() {
            transcript::check(&transcript(name), &server, directory.path()).await;
        }
    }

    // The same questions when a leaf is down: what is missing is said. How many rows it holds is left to chance, so
    // only the words are compared.
    parts.take_leaf(0).stop().await;
    parts.wait_for_leaf(0, "the leaf to be down", |leaf| leaf["state"] == "down").await;
    let said = gannet_tests::process::gannet(
        &["query", "SELECT count(*) AS n FROM requests", "--min-completeness", "1", "--server", &server],
        "",
    )
    .await;
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.starts_with("warning: completeness "), "{said:?}");
    assert!(said.err.ends_with("rows missing. Counts are lower bounds.\n"), "{said:?}");
}
