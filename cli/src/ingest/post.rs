//! Posts pieces of rows and reads what became of them.
//!
//! A piece is sent again only when it is certain that nothing of it was accepted: the server said so and asked to come
//! back, or there was no connection to send it over. An outcome nobody knows ends the ingest, because rows could be
//! counted twice.

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::client::{Client, server_error};
use crate::ingest::cut::Piece;
use crate::outcome::{Exit, Failure};

/// First wait before a piece is sent again; it doubles.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait, whatever the server asks for.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Where rows go.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The server.
    pub(crate) client: Client,
    /// The table.
    pub(crate) table: String,
    /// The column that holds the time, when it is not `time`.
    pub(crate) time_field: Option<String>,
    /// How long one request may take.
    pub(crate) timeout: Duration,
    /// How long a piece that is refused for now is tried again.
    pub(crate) patience: Duration,
}

/// What became of a piece.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Reply {
    /// Rows accepted.
    pub(crate) accepted: u64,
    /// The first rejections.
    pub(crate) rejected: Vec<Rejection>,
    /// All rejections, when there are more than the listed ones.
    pub(crate) rejected_count: Option<u64>,
    /// What the accepted rows survive.
    pub(crate) durability: String,
    /// What the sender should know though nothing is wrong.
    pub(crate) notes: Vec<String>,
}

/// A row that was not accepted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Rejection {
    /// Its number in the request, from 0.
    pub(crate) row: u64,
    /// Why.
    pub(crate) error: String,
}

impl Reply {
    /// How many rows were rejected.
    pub(crate) fn rejected_all(&self) -> u64 {
        self.rejected_count.unwrap_or(0).max(self.rejected.len() as u64)
    }
}

/// A piece that failed, and what became of its rows before that, as far as it is known.
#[derive(Debug)]
pub(crate) struct PostFailure {
    /// Why.
    pub(crate) failure: Failure,
    /// What is known of its rows.
    pub(crate) reply: Reply,
    /// Whether rows beyond those may have been accepted as well.
    pub(crate) rest: Rest,
}

/// The rows of a failed piece of which the reply says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// They were not accepted.
    NotAccepted,
    /// Nobody knows.
    Unknown,
}

/// How one attempt ended, other than well.
enum Refused {
    ForGood(PostFailure),
    ForNow { failure: Failure, wait: Option<Duration> },
}

impl Target {
    /// Posts a piece, again and again while the server says "come back" and nothing of it was accepted.
    pub(crate) async fn post(&self, piece: &Piece) -> Result<Reply, PostFailure> {
        let started = Instant::now();
        let mut backoff = BACKOFF_FIRST;
        loop {
            let (failure, wait) = match self.attempt(piece).await {
                Ok(reply) => return Ok(reply),
                Err(Refused::ForGood(failure)) => return Err(failure),
                Err(Refused::ForNow { failure, wait }) => (failure, wait),
            };
            let wait = jittered(wait.unwrap_or(backoff).clamp(backoff, BACKOFF_MAX));
            if started.elapsed() + wait > self.patience {
                return Err(PostFailure { failure, reply: Reply::default(), rest: Rest::NotAccepted });
            }
            tracing::info!(
                reason = failure.message,
                wait_ms = wait.as_millis() as u64,
                "rows are sent again"
            );
            tokio::time::sleep(wait).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn attempt(&self, piece: &Piece) -> Result<Reply, Refused> {
        let mut request = self
            .client
            .request(Method::POST, &["v1", "events", &self.table])
            .header(CONTENT_TYPE, piece.content_type)
            .body(piece.body.clone());
        if let Some(field) = &self.time_field {
            request = request.query(&[("time_field", field)]);
        }
        let unknown =
            |failure| Refused::ForGood(PostFailure { failure, reply: Reply::default(), rest: Rest::Unknown });
        let response = match self.client.send(request, self.timeout).await {
            Ok(response) => response,
            Err(failure) if failure.not_sent => return Err(Refused::ForNow { failure, wait: None }),
            Err(failure) => return Err(unknown(failure)),
        };
        let status = response.status();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.map_err(|error| {
            let address = self.client.address();
            unknown(Failure::new(Exit::Unreachable, format!("the reply of {address} broke off: {error}")))
        })?;
        if status.is_success() {
            return self.client.decode(&body).map_err(unknown);
        }
        let failure = self.client.refusal(status, &body);
        match fate(status, wait.is_some(), &body) {
            // Whole pieces of bad rows do not stop those after them.
            Fate::AllRejected(reply) => Ok(reply),
            Fate::ComeBack => Err(Refused::ForNow { failure, wait: wait.map(Duration::from_secs) }),
            Fate::Failed(reply, rest) => Err(Refused::ForGood(PostFailure { failure, reply, rest })),
        }
    }
}

/// What a reply with an error status says about the rows.
#[derive(Debug, PartialEq)]
enum Fate {
    AllRejected(Reply),
    ComeBack,
    Failed(Reply, Rest),
}

fn fate(status: StatusCode, asks_to_come_back: bool, body: &[u8]) -> Fate {
    if server_error(body).is_none() {
        return Fate::Failed(Reply::default(), Rest::Unknown);
    }
    // A refusal before anything of the body was read says nothing of rows, which is the same as none.
    let reply: Reply = serde_json::from_slice(body).unwrap_or_default();
    if status == StatusCode::BAD_REQUEST && reply.accepted == 0 && reply.rejected_all() > 0 {
        return Fate::AllRejected(reply);
    }
    let for_now = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    match (for_now && asks_to_come_back, reply.accepted) {
        (true, 0) => Fate::ComeBack,
        (true, _) => Fate::Failed(reply, Rest::NotAccepted),
        // A server that fails does not know what became of rows on their way to a leaf.
        (false, _) if status.is_server_error() => Fate::Failed(reply, Rest::Unknown),
        (false, _) => Fate::Failed(reply, Rest::NotAccepted),
    }
}

/// Between the whole wait and half as much again, so that clients which were refused together do not return together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + 0.5 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_say_what_was_accepted() {
        let reply: Reply =
            serde_json::from_str(r#"{"accepted":1,"rejected":[{"row":0,"error":"e"}],"durability":"power"}"#)
                .unwrap();
        assert_eq!((reply.accepted, reply.rejected_all()), (1, 1));
        let many: Reply =
            serde_json::from_str(r#"{"accepted":1,"rejected":[],"rejected_count":900}"#).unwrap();
        assert_eq!(many.rejected_all(), 900);
    }

    #[test]
    fn only_what_was_surely_not_accepted_is_sent_again() {
        let check = |status: u16, comes_back, body: &str, expect: Fate| {
            assert_eq!(
                fate(StatusCode::from_u16(status).unwrap(), comes_back, body.as_bytes()),
                expect,
                "{body}"
            );
        };
        let some = |accepted| Reply { accepted, ..Reply::default() };
        check(429, true, r#"{"error":{"code":"overloaded"}}"#, Fate::ComeBack);
        check(503, true, r#"{"error":{},"accepted":0}"#, Fate::ComeBack);
        check(503, true, r#"{"error":{},"accepted":7}"#, Fate::Failed(some(7), Rest::NotAccepted));
        // Rows may have been taken: nobody asks to come back.
        check(503, false, r#"{"error":{},"accepted":0}"#, Fate::Failed(some(0), Rest::Unknown));
        check(500, false, r#"{"error":{},"accepted":7}"#, Fate::Failed(some(7), Rest::Unknown));
        check(400, false, r#"{"error":{},"accepted":7}"#, Fate::Failed(some(7), Rest::NotAccepted));
        check(502, false, "<html>", Fate::Failed(some(0), Rest::Unknown));
        let rejected = Reply { rejected_count: Some(3), ..Reply::default() };
        check(400, false, r#"{"error":{},"accepted":0,"rejected_count":3}"#, Fate::AllRejected(rejected));
    }

    #[test]
    fn waits_are_spread() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(2));
            assert!((2.0..=3.0).contains(&wait.as_secs_f64()), "{wait:?}");
        }
    }
}
