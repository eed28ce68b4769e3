//! Posts events and tells what became of them.
//!
//! A request is numbered by its [`Producer`]. When it is not known whether its rows were accepted, it is posted again
//! under the same number, and rows that had been counted are not counted again. When it is certain that nothing of it was
//! accepted, it may take a new number, and with it perhaps another leaf that has room.
//!
//! [`Client::post_once`] sends once and says how that ended; [`Client::post`] goes on while that may help.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::backoff::Backoff;
use crate::client::{Client, retry_after_seconds};
use crate::error::{Error, ErrorKind, server_error};

/// Events for a table.
#[derive(Debug, Clone)]
pub struct Events {
    /// The table.
    pub table: String,
    /// What the body is, such as `application/x-ndjson` or `text/csv`.
    pub content_type: String,
    /// The rows.
    pub body: Bytes,
    /// The column that holds the time, when it is not `time`.
    pub time_field: Option<String>,
}

impl Events {
    /// Rows as NDJSON: one JSON object a line.
    pub fn ndjson(table: impl Into<String>, body: impl Into<Bytes>) -> Events {
        Events {
            table: table.into(),
            content_type: "application/x-ndjson".to_owned(),
            body: body.into(),
            time_field: None,
        }
    }
}

/// A name that nobody else has, and numbers for the requests under it. Clones share the numbers.
#[derive(Debug, Clone)]
pub struct Producer {
    name: String,
    next: Arc<AtomicU64>,
}

impl Producer {
    /// A producer whose first request has this number. A name that was used before must go on with a number that was not.
    pub fn new(name: impl Into<String>, first: u64) -> Producer {
        Producer { name: name.into(), next: Arc::new(AtomicU64::new(first)) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A number that it did not use before.
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

/// How long to wait and to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostOptions {
    /// How long one request may take.
    pub timeout: Duration,
    /// How long a request that is refused for now is tried again.
    pub patience: Duration,
}

impl Default for PostOptions {
    fn default() -> PostOptions {
        PostOptions { timeout: Duration::from_secs(60), patience: Duration::from_secs(120) }
    }
}

/// What became of the rows of a request.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Reply {
    /// Rows accepted.
    pub accepted: u64,
    /// Those of them that had been counted before.
    pub duplicates: u64,
    /// The first rejections.
    pub rejected: Vec<Rejection>,
    /// All rejections, when there are more than the listed ones.
    pub rejected_count: Option<u64>,
    /// What the accepted rows survive.
    pub durability: String,
    /// What the sender should know though nothing is wrong.
    pub notes: Vec<String>,
}

/// A row that was not accepted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Rejection {
    /// Its number in the request, from 0.
    pub row: u64,
    /// Why.
    pub error: String,
}

impl Reply {
    /// How many rows were rejected.
    pub fn rejected_all(&self) -> u64 {
        self.rejected_count.unwrap_or(0).max(self.rejected.len() as u64)
    }
}

/// The rows of a failed request of which the reply says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// They were not accepted.
    NotAccepted,
    /// Nobody knows.
    Unknown,
}

/// A request that failed, and what became of its rows, as far as it is known.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct PostError {
    /// Why.
    #[source]
    pub error: Error,
    /// What is known of its rows.
    pub reply: Reply,
    /// Whether rows beyond those may have been accepted as well.
    pub rest: Rest,
}

/// How sending once ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Every row is accounted for in the reply. It may have rejected all of them.
    Done(Reply),
    /// There was no connection or no whole reply, or the server failed: the same request may help later.
    Later(PostError),
    /// The server asks to come back.
    ComeBack(PostError),
    /// The server read the body and refuses it for good.
    BodyRefused(PostError),
    /// The server refuses the request whatever its body is.
    Refused(PostError),
    /// The number is so old that nobody can tell whether the rows were counted.
    TooOld(PostError),
}

impl Client {
    /// Posts events, again and again while that may help.
    ///
    /// # Errors
    /// When the server refuses them for good, or the patience is over. The error tells what is known of the rows.
    pub async fn post(
        &self,
        events: &Events,
        producer: &Producer,
        options: &PostOptions,
    ) -> Result<Reply, PostError> {
        let started = Instant::now();
        let mut backoff = Backoff::new();
        let mut sequence = producer.next();
        // What is known of the rows under this number from earlier attempts.
        let (mut known, mut rest) = (Reply::default(), Rest::NotAccepted);
        loop {
            let (mut failed, wait) =
                match self.post_once(events, &producer.name, sequence, options.timeout).await {
                    Ending::Done(reply) => return Ok(reply),
                    Ending::Later(failed) | Ending::ComeBack(failed) => {
                        let asked = failed.error.retry_after_seconds.map(|it| Duration::from_secs(it.into()));
                        (failed, Some(backoff.next(asked, rand::random())))
                    }
                    Ending::BodyRefused(failed) | Ending::Refused(failed) | Ending::TooOld(failed) => {
                        (failed, None)
                    }
                };
            if failed.reply.accepted > known.accepted {
                known = failed.reply;
            }
            if failed.rest == Rest::Unknown {
                rest = Rest::Unknown;
            }
            let Some(wait) = wait.filter(|wait| started.elapsed() + *wait <= options.patience) else {
                (failed.reply, failed.rest) = (known, rest);
                return Err(failed);
            };
            tracing::info!(
                reason = failed.error.message,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "rows are sent again"
            );
            tokio::time::sleep(wait).await;
            if rest == Rest::NotAccepted && known.accepted == 0 {
                sequence = producer.next();
            }
        }
    }

    /// Posts events once, under a number of a producer.
    pub async fn post_once(
        &self,
        events: &Events,
        producer: &str,
        sequence: u64,
        timeout: Duration,
    ) -> Ending {
        let mut request = self
            .request(Method::POST, &["v1", "events", &events.table])
            .header(CONTENT_TYPE, &events.content_type)
            .header("Gannet-Producer", producer)
            .header("Gannet-Sequence", sequence)
            .body(events.body.clone());
        if let Some(field) = &events.time_field {
            request = request.query(&[("time_field", field)]);
        }
        let later = |error: Error| {
            let rest = if error.kind == ErrorKind::NotSent { Rest::NotAccepted } else { Rest::Unknown };
            Ending::Later(PostError { error, reply: Reply::default(), rest })
        };
        let response = match self.send(request, timeout).await {
            Ok(response) => response,
            Err(error) => return later(error),
        };
        let (status, retry_after) = (response.status(), retry_after_seconds(&response));
        let body = match response.bytes().await {
            Ok(body) => body,
            Err(error) => return later(Error::of_connection(self.address(), &error, timeout)),
        };
        if status.is_success() {
            return match self.decode(&body) {
                Ok(reply) => Ending::Done(reply),
                Err(error) => later(error),
            };
        }
        ending(Error::of_reply(self.address(), status, retry_after, &body), status, &body)
    }
}

/// What a reply with an error status says about the rows: those that it does not name were not accepted, or nobody knows.
fn ending(error: Error, status: StatusCode, body: &[u8]) -> Ending {
    if server_error(body).is_none() {
        // Something between here and the server: it may have passed the request on.
        let failed = PostError { error, reply: Reply::default(), rest: Rest::Unknown };
        return Ending::Later(failed);
    }
    // A refusal before anything of the body was read says nothing of rows, which is the same as none.
    let reply: Reply = serde_json::from_slice(body).unwrap_or_default();
    let is_about_body = serde_json::from_slice::<AboutBody>(body).is_ok_and(|it| it.accepted.is_some());
    // Whole bodies of bad rows do not stop those after them.
    if status == StatusCode::BAD_REQUEST && reply.accepted == 0 && reply.rejected_all() > 0 {
        return Ending::Done(reply);
    }
    let for_now =
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::INSUFFICIENT_STORAGE];
    let asks_to_come_back = for_now.contains(&status) && error.retry_after_seconds.is_some();
    // A server that fails does not know what became of rows on their way to a leaf, unless it says that nothing did; and
    // of an old sequence it says itself that nobody knows.
    let is_known = match status {
        StatusCode::CONFLICT => false,
        _ if asks_to_come_back => &*error.code != "unconfirmed",
        _ => !status.is_server_error(),
    };
    let rest = if is_known { Rest::NotAccepted } else { Rest::Unknown };
    let failed = PostError { error, reply, rest };
    match status {
        _ if asks_to_come_back => Ending::ComeBack(failed),
        StatusCode::CONFLICT => Ending::TooOld(failed),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Ending::Later(failed),
        _ if status.is_server_error() => Ending::Later(failed),
        _ if is_about_body => Ending::BodyRefused(failed),
        _ => Ending::Refused(failed),
    }
}

/// Tells a refusal of rows from one of the request.
#[derive(Deserialize)]
struct AboutBody {
    accepted: Option<u64>,
}

#[cfg(test)]
mod tests;
