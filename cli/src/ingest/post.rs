//! Posts pieces of rows and reads what became of them.
//!
//! A piece is sent again only when it is certain that nothing of it was accepted: the server said so, or there was no
//! connection to send it over. An outcome nobody knows ends the ingest, because rows could be counted twice.

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::client::Client;
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
#[derive(Debug, Clone, Default, Deserialize)]
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
#[derive(Debug, Clone, Default, Deserialize)]
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

/// A piece that failed, and what of it was accepted before that, as far as it is known.
#[derive(Debug)]
pub(crate) struct PostFailure {
    /// Why.
    pub(crate) failure: Failure,
    /// Rows of the piece that were accepted; `None` when nobody knows.
    pub(crate) accepted: Option<u64>,
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
                return Err(PostFailure { failure, accepted: Some(0) });
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
        let unknown = |failure: Failure| Refused::ForGood(PostFailure { failure, accepted: None });
        let response = match self.client.send(request, self.timeout).await {
            Ok(response) => response,
            Err(failure) if failure.not_sent => return Err(Refused::ForNow { failure, wait: None }),
            Err(failure) => return Err(unknown(failure)),
        };
        let status = response.status();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.map_err(|error| {
            unknown(Failure::new(
                Exit::Unreachable,
                format!("the reply of {} broke off: {error}", self.client.address()),
            ))
        })?;
        if status.is_success() {
            return self.client.decode(&body).map_err(unknown);
        }
        let failure = self.client.refusal(status, &body);
        let accepted = accepted_of_refusal(&body);
        let for_now = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if for_now && accepted == Some(0) {
            return Err(Refused::ForNow { failure, wait: wait.map(Duration::from_secs) });
        }
        Err(Refused::ForGood(PostFailure { failure, accepted }))
    }
}

/// Rows that were accepted although the request failed; `None` when the reply does not say.
fn accepted_of_refusal(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Envelope {
        accepted: Option<u64>,
    }
    serde_json::from_slice::<Envelope>(body).ok()?.accepted
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
        assert_eq!(accepted_of_refusal(br#"{"error":{},"accepted":7}"#), Some(7));
        assert_eq!(accepted_of_refusal(br#"{"error":{}}"#), None);
        assert_eq!(accepted_of_refusal(b"<html>"), None);
        let reply: Reply = serde_json::from_str(
            r#"{"accepted":1,"rejected":[{"row":0,"error":"e"}],"durability":"memory"}"#,
        )
        .unwrap();
        assert_eq!((reply.accepted, reply.rejected_all()), (1, 1));
        let many: Reply =
            serde_json::from_str(r#"{"accepted":1,"rejected":[],"rejected_count":900}"#).unwrap();
        assert_eq!(many.rejected_all(), 900);
    }

    #[test]
    fn waits_are_spread() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(2));
            assert!((2.0..=3.0).contains(&wait.as_secs_f64()), "{wait:?}");
        }
    }
}
