//! Asking SQL: what may be said beside it, and the ways an answer comes.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::ACCEPT;
use reqwest::{Method, Response};
use serde::Serialize;

use crate::answer::Answer;
use crate::batches::Batches;
use crate::client::{Client, retry_after_seconds};
use crate::error::Error;
use crate::refined::Refined;

/// How long the server may take when nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The server answers by the deadline with what it has; its answer needs this much more to come back.
const REPLY_MARGIN: Duration = Duration::from_secs(5);

/// What may be said beside the SQL.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueryOptions {
    /// By when to answer with what there is; 10 seconds when nothing is said.
    pub timeout: Option<Duration>,
    /// Refuse to answer, with the code `incomplete`, when a smaller share of the rows is covered: 0 to 1.
    pub min_completeness: Option<f64>,
}

impl QueryOptions {
    /// How long to wait for the reply.
    pub(crate) fn patience(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT_DEFAULT).saturating_add(REPLY_MARGIN)
    }
}

#[derive(Serialize)]
struct Asked<'a> {
    sql: &'a str,
    timeout_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_completeness: Option<f64>,
}

impl Client {
    /// Asks, and collects the answer.
    ///
    /// # Errors
    /// When the server refuses the SQL, has no answer in time, or is not there.
    pub async fn query(&self, sql: &str, options: &QueryOptions) -> Result<Answer, Error> {
        self.query_batches(sql, options).await?.collect().await
    }

    /// Asks, and hands out the answer batch by batch as it arrives.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn query_batches(&self, sql: &str, options: &QueryOptions) -> Result<Batches, Error> {
        let response = self.ask(sql, options, "application/vnd.apache.arrow.stream").await?;
        Batches::start(self.address().to_owned(), response).await
    }

    /// Asks, and hands out ever better answers while the leaves reply; the last one is final.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn query_refined(&self, sql: &str, options: &QueryOptions) -> Result<Refined, Error> {
        let response = self.ask(sql, options, "application/x-ndjson").await?;
        Ok(Refined::new(self.address().to_owned(), response, options.patience()))
    }

    /// Asks, and returns the reply as the server wrote it: JSON with columns, rows, completeness and statistics.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub async fn query_json(&self, sql: &str, options: &QueryOptions) -> Result<Bytes, Error> {
        let response = self.ask(sql, options, "application/json").await?;
        self.successful_body(response, options.patience()).await
    }

    /// A successful reply whose body is yet to come.
    async fn ask(&self, sql: &str, options: &QueryOptions, accept: &str) -> Result<Response, Error> {
        let timeout = options.timeout.unwrap_or(TIMEOUT_DEFAULT);
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let asked = Asked { sql, timeout_ms, min_completeness: options.min_completeness };
        let request = self.request(Method::POST, &["v1", "query"]).header(ACCEPT, accept).json(&asked);
        // The body of a large answer may take longer than the answer, so the time is for the head of the reply only.
        let patience = options.patience();
        let response = match tokio::time::timeout(patience, request.send()).await {
            Ok(sent) => sent.map_err(|error| Error::of_connection(self.address(), &error, patience))?,
            Err(_) => return Err(Error::timed_out(self.address(), patience)),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, retry_after) = (response.status(), retry_after_seconds(&response));
        let body = tokio::time::timeout(patience, response.bytes()).await;
        let body = body.map_err(|_| Error::timed_out(self.address(), patience))?;
        let body = body.map_err(|error| Error::of_connection(self.address(), &error, patience))?;
        Err(Error::of_reply(self.address(), status, retry_after, &body))
    }
}
