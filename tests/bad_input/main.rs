//! What nobody should send, through the front door.
//!
//! Each piece of it gets a clear error that names the thing, the value and the limit. The process lives, which the
//! next question shows; and nothing that was acknowledged changes, which is counted before and after.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

mod bodies;
mod compressed;
mod requests;
mod sql;

use gannet_tests::cluster::{Cluster, Shape};
use gannet_tests::http::{Client, Reply};
use serde_json::json;

/// A cluster with something worth keeping: three rows in `kept`.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(Shape { leaves: 1, intermediate: false }).await;
    cluster.client().ingest("kept", "{\"n\":1}\n{\"n\":2,\"zero\":0}\n{\"n\":3,\"s\":\"x\"}\n").await;
    still_there(cluster.client()).await;
    cluster
}

/// The process lives, and holds what it held.
async fn still_there(client: &Client) {
    let answer = client.answer("SELECT count(*), sum(n) FROM kept").await;
    assert_eq!((answer.rows, answer.completeness.ratio), (vec![vec![json!(3), json!(6)]], Some(1.0)));
}

/// A body for a table of its own, and what must become of it.
struct Body<'a> {
    what: &'a str,
    content_type: &'a str,
    encoding: Option<&'a str>,
    body: Vec<u8>,
    /// The status; 200 when other rows of the body were taken.
    status: u16,
    /// Rows taken, when that is certain.
    accepted: Option<u64>,
    /// Texts that the reply holds.
    says: &'a [&'a str],
}

impl Default for Body<'_> {
    fn default() -> Self {
        Body {
            what: "",
            content_type: "application/x-ndjson",
            encoding: None,
            body: Vec::new(),
            status: 400,
            accepted: Some(0),
            says: &[],
        }
    }
}

/// Posts a body. What is in the table afterwards is exactly what the reply says was accepted.
async fn check(client: &Client, case: Body<'_>) -> Reply {
    let table: String = case
        .what
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .collect();
    let path = format!("/v1/events/{table}");
    let reply = client.post(&path, case.content_type, case.encoding, case.body).await;
    let text = reply.text();
    assert_eq!(reply.status, case.status, "{}: {text}", case.what);
    for part in case.says {
        assert!(text.contains(part), "{}: `{part}` is not in {text}", case.what);
    }
    assert!(text.len() < 100_000, "{}: a reply of {} bytes", case.what, text.len());
    let accepted = reply.json()["accepted"].as_u64().unwrap_or_default();
    if let Some(expected) = case.accepted {
        assert_eq!(accepted, expected, "{}: {text}", case.what);
    }
    assert_eq!(client.count(&table).await as u64, accepted, "{}: {text}", case.what);
    still_there(client).await;
    reply
}
