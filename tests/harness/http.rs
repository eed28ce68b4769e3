//! What a user sends and gets: events, SQL, answers with their completeness, refusals with their hint.

use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Value as Json, json};

/// Longest wait for any reply; a test that meets it has found a hang.
const REPLY_SECONDS_MAX: u64 = 120;

/// A user of one HTTP door.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

/// A reply as it came.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers by lower-case name.
    pub headers: std::collections::BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("status {}, no JSON ({error}): {}", self.status, self.text()))
    }

    /// The reply as a refusal, whatever its status.
    ///
    /// # Panics
    /// When it is not the one shape of an error.
    pub fn refusal(&self) -> Refusal {
        let error = &self.json()["error"];
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        let place = |name: &str| error["position"][name].as_u64();
        Refusal {
            status: self.status,
            code: text("code").unwrap_or_else(|| panic!("an error without code: {}", self.text())),
            message: text("message").unwrap_or_else(|| panic!("an error without message: {}", self.text())),
            detail: text("detail"),
            hint: text("hint"),
            position: place("line").zip(place("column")),
        }
    }
}

/// An error as users meet it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What a program acts on.
    pub code: String,
    /// What people read.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Line and column in the SQL.
    pub position: Option<(u64, u64)>,
}

impl Refusal {
    /// Message, detail and hint in one text, for looking things up in it.
    pub fn all(&self) -> String {
        [Some(&self.message), self.detail.as_ref(), self.hint.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Who is missing in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The leaf.
    pub leaf: String,
    /// Why.
    pub reason: String,
    /// Its rows, when they are known.
    pub rows: Option<u64>,
}

/// How complete an answer is.
#[derive(Debug, Clone, PartialEq)]
pub struct Completeness {
    /// Covered over expected, when it is known.
    pub ratio: Option<f64>,
    /// Rows that the answer speaks of.
    pub rows_covered: u64,
    /// Rows that there are.
    pub rows_expected: Option<u64>,
    /// Leaves that had to answer.
    pub leaves_asked: u64,
    /// Leaves that did.
    pub leaves_answered: u64,
    /// What is missing.
    pub missing: Vec<Missing>,
}

impl Completeness {
    /// Of nothing missing among this many leaves.
    pub fn whole(leaves: u64, rows: u64) -> Completeness {
        Completeness {
            ratio: Some(1.0),
            rows_covered: rows,
            rows_expected: Some(rows),
            leaves_asked: leaves,
            leaves_answered: leaves,
            missing: Vec::new(),
        }
    }

    fn of(json: &Json) -> Completeness {
        let count = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("no {name} in {json}"));
        Completeness {
            ratio: json["ratio"].as_f64(),
            rows_covered: count("rows_covered"),
            rows_expected: json["rows_expected"].as_u64(),
            leaves_asked: count("leaves_asked"),
            leaves_answered: count("leaves_answered"),
            missing: json["missing"]
                .as_array()
                .unwrap_or_else(|| panic!("no missing in {json}"))
                .iter()
                .map(|one| Missing {
                    leaf: one["leaf"].as_str().unwrap_or_default().to_owned(),
                    reason: one["reason"].as_str().unwrap_or_default().to_owned(),
                    rows: one["rows"].as_u64(),
                })
                .collect(),
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Names and types of the columns.
    pub columns: Vec<(String, String)>,
    /// The rows.
    pub rows: Vec<Vec<Json>>,
    /// How complete.
    pub completeness: Completeness,
    /// What it took.
    pub stats: Json,
}

impl Answer {
    fn of(json: &Json) -> Answer {
        let list =
            |name: &str| json[name].as_array().cloned().unwrap_or_else(|| panic!("no {name} in {json}"));
        Answer {
            columns: list("columns")
                .iter()
                .map(|column| {
                    let text = |name: &str| column[name].as_str().unwrap_or_default().to_owned();
                    (text("name"), text("type"))
                })
                .collect(),
            rows: list("rows").iter().map(|row| row.as_array().cloned().unwrap()).collect(),
            completeness: Completeness::of(&json["completeness"]),
            stats: json["stats"].clone(),
        }
    }

    /// The one value of a one-row, one-column answer as an int.
    ///
    /// # Panics
    /// When it is not that.
    pub fn int(&self) -> i64 {
        match self.rows.as_slice() {
            [row] if row.len() == 1 => row[0].as_i64().unwrap_or_else(|| panic!("{} is no int", row[0])),
            rows => panic!("{rows:?} is not one value"),
        }
    }
}

impl Client {
    /// A user of the door at `http://host:port`.
    pub fn new(base: &str) -> Client {
        let http = reqwest::Client::builder()
            .no_proxy()
            // A connection that the server closed, because it refused a body it did not read, is not used again.
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(REPLY_SECONDS_MAX))
            .build()
            .unwrap();
        Client { base: base.trim_end_matches('/').to_owned(), http }
    }

    /// The door's address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a request; `None` when nobody replied, which is what a dead server looks like.
    async fn send(&self, request: reqwest::RequestBuilder) -> Option<Reply> {
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let headers = response.headers().iter();
        let headers = headers
            .map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            })
            .collect();
        let body = response.bytes().await.ok()?.to_vec();
        Some(Reply { status, headers, body })
    }

    /// GET, when somebody replies.
    pub async fn try_get(&self, path: &str) -> Option<Reply> {
        self.send(self.http.get(format!("{}{path}", self.base))).await
    }

    /// GET.
    ///
    /// # Panics
    /// When nobody replies.
    pub async fn get(&self, path: &str) -> Reply {
        self.try_get(path).await.unwrap_or_else(|| panic!("no reply to GET {path}"))
    }

    /// Posts events under the name of a producer and a sequence; `None` when nobody replied.
    pub async fn try_ingest_as(
        &self,
        table: &str,
        producer: &str,
        sequence: u64,
        ndjson: &str,
    ) -> Option<Reply> {
        let request = self
            .http
            .post(format!("{}/v1/events/{table}", self.base))
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header("Gannet-Producer", producer)
            .header("Gannet-Sequence", sequence)
            .body(ndjson.to_owned());
        self.send(request).await
    }

    /// POST of any body.
    ///
    /// # Panics
    /// When nobody replies.
    pub async fn post(&self, path: &str, content_type: &str, encoding: Option<&str>, body: Vec<u8>) -> Reply {
        let mut request = self.http.post(format!("{}{path}", self.base)).body(body);
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(encoding) = encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        self.send(request).await.unwrap_or_else(|| panic!("no reply to POST {path}"))
    }

    /// Posts events as NDJSON and expects every one to be taken.
    ///
    /// # Panics
    /// When one is not.
    pub async fn ingest(&self, table: &str, ndjson: &str) {
        let reply = self
            .post(&format!("/v1/events/{table}"), "application/x-ndjson", None, ndjson.as_bytes().to_vec())
            .await;
        let sent = ndjson.lines().filter(|line| !line.trim().is_empty()).count() as u64;
        assert_eq!(
            (reply.status, reply.json()["accepted"].as_u64()),
            (200, Some(sent)),
            "events for {table}: {}",
            reply.text()
        );
    }

    /// POST of a question, when somebody replies.
    pub async fn try_ask(&self, question: Json) -> Option<Reply> {
        self.send(self.http.post(format!("{}/v1/query", self.base)).json(&question)).await
    }

    /// Asks with all the settings a question has.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// When nobody replies.
    pub async fn ask(&self, question: Json) -> Result<Answer, Refusal> {
        let reply = self.try_ask(question.clone()).await.unwrap_or_else(|| panic!("no reply to {question}"));
        if reply.status == 200 { Ok(Answer::of(&reply.json())) } else { Err(reply.refusal()) }
    }

    /// Asks.
    ///
    /// # Errors
    /// The refusal.
    pub async fn query(&self, sql: &str) -> Result<Answer, Refusal> {
        self.ask(json!({ "sql": sql })).await
    }

    /// Asks what must have an answer.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn answer(&self, sql: &str) -> Answer {
        self.query(sql).await.unwrap_or_else(|refusal| panic!("{sql}\n{refusal:?}"))
    }

    /// Rows of a table; none when it does not exist.
    pub async fn count(&self, table: &str) -> i64 {
        match self.query(&format!("SELECT unweighted(count(*)) FROM {table}")).await {
            Ok(answer) => answer.int(),
            Err(refusal) if refusal.code == "not_found" => 0,
            Err(refusal) => panic!("count of {table}: {refusal:?}"),
        }
    }
}
