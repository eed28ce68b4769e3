//! Posts pieces of rows and reads what became of them.
//!
//! Each piece is posted as a numbered request of one producer. When it is not known whether its rows were accepted, it is
//! posted again under the same number, and rows that had been counted are not counted again. When it is certain that
//! nothing of it was accepted, it takes a new number, and with it perhaps another leaf that has room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Who posts.
    pub(crate) producer: Producer,
}

/// A name that nobody else has, and numbers for the requests under it.
#[derive(Debug, Clone)]
pub(crate) struct Producer {
    name: String,
    next: Arc<AtomicU64>,
}

impl Producer {
    /// A producer with a name of its own; `what` tells people where it comes from.
    pub(crate) fn new(what: &str) -> Producer {
        Producer { name: format!("{what}-{}", uuid::Uuid::new_v4()), next: Arc::new(AtomicU64::new(1)) }
    }

    fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// What became of a piece.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Reply {
    /// Rows accepted.
    pub(crate) accepted: u64,
    /// Those of them that had been counted before.
    pub(crate) duplicates: u64,
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
    /// What the server said of the rows, and whether that is all there is to say, is in the failure.
    ForNow {
        failure: PostFailure,
        wait: Option<Duration>,
    },
}

impl Target {
    /// Posts a piece, again and again while that may help.
    pub(crate) async fn post(&self, piece: &Piece) -> Result<Reply, PostFailure> {
        let started = Instant::now();
        let mut backoff = BACKOFF_FIRST;
        let mut sequence = self.producer.next();
        // What is known of the rows under this number from earlier attempts.
        let (mut known, mut rest) = (Reply::default(), Rest::NotAccepted);
        loop {
            let (mut failure, wait) = match self.attempt(piece, sequence).await {
                Ok(reply) => return Ok(reply),
                Err(Refused::ForGood(failure)) => (failure, None),
                Err(Refused::ForNow { failure, wait }) => {
                    (failure, Some(jittered(wait.unwrap_or(backoff).clamp(backoff, BACKOFF_MAX))))
                }
            };
            if failure.reply.accepted > known.accepted {
                known = failure.reply;
            }
            if failure.rest == Rest::Unknown {
                rest = Rest::Unknown;
            }
            let Some(wait) = wait.filter(|wait| started.elapsed() + *wait <= self.patience) else {
                (failure.reply, failure.rest) = (known, rest);
                return Err(failure);
            };
            tracing::info!(
                reason = failure.failure.message,
                wait_ms = wait.as_millis() as u64,
                "rows are sent again"
            );
            tokio::time::sleep(wait).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
            if rest == Rest::NotAccepted && known.accepted == 0 {
                sequence = self.producer.next();
            }
        }
    }

    async fn attempt(&self, piece: &Piece, sequence: u64) -> Result<Reply, Refused> {
        let mut request = self
            .client
            .request(Method::POST, &["v1", "events", &self.table])
            .header(CONTENT_TYPE, piece.content_type)
            .header("Gannet-Producer", &self.producer.name)
            .header("Gannet-Sequence", sequence)
            .body(piece.body.clone());
        if let Some(field) = &self.time_field {
            request = request.query(&[("time_field", field)]);
        }
        let broke_off = |failure, rest| {
            let failure = PostFailure { failure, reply: Reply::default(), rest };
            Refused::ForNow { failure, wait: None }
        };
        let response = match self.client.send(request, self.timeout).await {
            Ok(response) => response,
            Err(failure) if failure.not_sent => return Err(broke_off(failure, Rest::NotAccepted)),
            Err(failure) => return Err(broke_off(failure, Rest::Unknown)),
        };
        let status = response.status();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.map_err(|error| {
            let address = self.client.address();
            let what = format!("the reply of {address} broke off: {error}");
            broke_off(Failure::new(Exit::Unreachable, what), Rest::Unknown)
        })?;
        if status.is_success() {
            let unknown = |failure| PostFailure { failure, reply: Reply::default(), rest: Rest::Unknown };
            return self.client.decode(&body).map_err(|failure| Refused::ForGood(unknown(failure)));
        }
        let failure = self.client.refusal(status, &body);
        match fate(status, wait.is_some(), &body) {
            // Whole pieces of bad rows do not stop those after them.
            Fate::AllRejected(reply) => Ok(reply),
            Fate::ComeBack(reply, rest) => {
                let failure = PostFailure { failure, reply, rest };
                Err(Refused::ForNow { failure, wait: wait.map(Duration::from_secs) })
            }
            Fate::Failed(reply, rest) => Err(Refused::ForGood(PostFailure { failure, reply, rest })),
        }
    }
}

/// What a reply with an error status says about the rows: those that it does not name were not accepted, or nobody knows.
#[derive(Debug, PartialEq)]
enum Fate {
    AllRejected(Reply),
    ComeBack(Reply, Rest),
    Failed(Reply, Rest),
}

fn fate(status: StatusCode, asks_to_come_back: bool, body: &[u8]) -> Fate {
    let Some(error) = server_error(body) else {
        return Fate::Failed(Reply::default(), Rest::Unknown);
    };
    // A refusal before anything of the body was read says nothing of rows, which is the same as none.
    let reply: Reply = serde_json::from_slice(body).unwrap_or_default();
    if status == StatusCode::BAD_REQUEST && reply.accepted == 0 && reply.rejected_all() > 0 {
        return Fate::AllRejected(reply);
    }
    let for_now =
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::INSUFFICIENT_STORAGE];
    // A server that fails does not know what became of rows on their way to a leaf, unless it says that nothing did; and
    // of an old sequence it says itself that nobody knows.
    let is_known = match status {
        StatusCode::CONFLICT => false,
        _ if for_now.contains(&status) && asks_to_come_back => error.code != "unconfirmed",
        _ => !status.is_server_error(),
    };
    let rest = if is_known { Rest::NotAccepted } else { Rest::Unknown };
    if for_now.contains(&status) && asks_to_come_back {
        Fate::ComeBack(reply, rest)
    } else {
        Fate::Failed(reply, rest)
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
    fn refusals_tell_what_was_accepted() {
        let check = |status: u16, comes_back, body: &str, expect: Fate| {
            assert_eq!(
                fate(StatusCode::from_u16(status).unwrap(), comes_back, body.as_bytes()),
                expect,
                "{body}"
            );
        };
        let some = |accepted| Reply { accepted, ..Reply::default() };
        let come_back = |accepted, rest| Fate::ComeBack(some(accepted), rest);
        check(429, true, r#"{"error":{"code":"overloaded"}}"#, come_back(0, Rest::NotAccepted));
        check(503, true, r#"{"error":{},"accepted":0}"#, come_back(0, Rest::NotAccepted));
        check(503, true, r#"{"error":{},"accepted":7}"#, come_back(7, Rest::NotAccepted));
        check(507, true, r#"{"error":{"code":"disk_full"}}"#, come_back(0, Rest::NotAccepted));
        // Rows may have been taken.
        check(503, true, r#"{"error":{"code":"unconfirmed"}}"#, come_back(0, Rest::Unknown));
        check(503, false, r#"{"error":{},"accepted":0}"#, Fate::Failed(some(0), Rest::Unknown));
        check(500, false, r#"{"error":{},"accepted":7}"#, Fate::Failed(some(7), Rest::Unknown));
        check(409, false, r#"{"error":{"code":"sequence_too_old"}}"#, Fate::Failed(some(0), Rest::Unknown));
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
