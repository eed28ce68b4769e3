//! `POST /v1/query`.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::Instant;

use arrow::array::RecordBatch;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, RawQuery, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::access::Admitted;
use super::render::{self, Format};
use super::{About, Shared, refined, refused};
use crate::admission::Client;
use crate::aggregator::QueryOptions;
use crate::config::Config;
use crate::error::{ErrorCode, Failure};
use crate::sql::SqlAnswer;

/// The header that carries the completeness of an answer beside its rows.
const COMPLETENESS: &str = "gannet-completeness";

/// Answers that hold no more bytes are written where they are: handing them to another thread would take longer.
const WRITTEN_IN_PLACE_BYTES_MAX: usize = 16 << 10;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
    #[serde(default)]
    timeout_ms: Option<u64>,
    #[serde(default)]
    min_completeness: Option<f64>,
}

pub(super) async fn query(
    State(aggregator): Shared,
    RawQuery(parameters): RawQuery,
    request: Request,
) -> Response {
    let begun = Instant::now();
    let (Parts { headers, extensions, .. }, body) = match whole(request, aggregator.config()).await {
        Ok(whole) => whole,
        Err(failure) => return refused(failure, About::Body),
    };
    let asked = match asked(&headers, parameters.as_deref().unwrap_or(""), &body) {
        Ok(asked) => asked,
        Err(failure) => return refused(failure, About::Body),
    };
    let options = QueryOptions {
        timeout: asked.timeout_ms.map(Duration::from_millis),
        min_completeness: asked.min_completeness,
        client: client(&headers, &extensions),
    };
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let format = Format::accepted(accept);
    if format == Format::Ndjson {
        return refined::answer(aggregator, asked.sql, options, begun).await;
    }
    match aggregator.query(&asked.sql, options).await {
        Ok(answer) => written(answer, begun, format).await,
        Err(failure) => refused(failure, About::Statement),
    }
}

/// A request with all of its body, if that comes in time.
async fn whole(request: Request, config: &Config) -> Result<(Parts, Bytes), Failure> {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    let limit = Duration::from_millis(config.query_body_ms);
    match tokio::time::timeout(limit, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => Ok((parts, body)),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body of a query exceeds {} bytes", config.query_body_bytes_max);
            Err(Failure::new(ErrorCode::TooLarge, message))
        }
        Ok(Err(rejection)) => {
            let message = format!("the body did not arrive: {}", rejection.body_text());
            Err(Failure::new(ErrorCode::BadRequest, message))
        }
        Err(_) => {
            let message = format!("the body of a query did not arrive within {} ms", limit.as_millis());
            Err(Failure::new(ErrorCode::Timeout, message))
        }
    }
}

/// Who asks: the holder of a token, else whoever is at an address.
fn client(headers: &HeaderMap, extensions: &Extensions) -> Client {
    if let Some(Admitted(name)) = extensions.get() {
        return xxh3_64(name.as_bytes());
    }
    if let Some(token) = headers.get(header::AUTHORIZATION) {
        return xxh3_64(token.as_bytes());
    }
    match extensions.get::<ConnectInfo<SocketAddr>>() {
        Some(ConnectInfo(peer)) => xxh3_64(peer.ip().to_string().as_bytes()),
        None => xxh3_64(b""),
    }
}

/// An answer as the whole of a response.
pub(super) async fn written(answer: SqlAnswer, begun: Instant, format: Format) -> Response {
    let completeness = render::completeness_header(&answer.completeness);
    let elapsed = begun.elapsed();
    let bytes: usize = answer.batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let write = move || render::body(&answer, elapsed, format);
    let written = match bytes <= WRITTEN_IN_PLACE_BYTES_MAX {
        true => Ok(write()),
        false => tokio::task::spawn_blocking(write).await,
    };
    let written = match written {
        Ok(Ok(written)) => written,
        Ok(Err(error)) => return refused(unwritten(&error.to_string()), About::Statement),
        Err(error) => return refused(unwritten(&error.to_string()), About::Statement),
    };
    let mut response = written.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    if let Ok(completeness) = HeaderValue::from_str(&completeness) {
        headers.insert(COMPLETENESS, completeness);
    }
    response
}

pub(super) fn unwritten(why: &str) -> Failure {
    Failure::new(ErrorCode::Internal, format!("the answer could not be written: {why}"))
}

/// The statement and its options, from JSON or from SQL as plain text with the options as parameters of the path.
fn asked(headers: &HeaderMap, parameters: &str, body: &[u8]) -> Result<Asked, Failure> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let message = format!("the body is not UTF-8 at byte {}", error.valid_up_to());
        Failure::new(ErrorCode::BadRequest, message)
    })?;
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?"));
    let media = content_type.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let is_json = match media.as_str() {
        "application/json" => true,
        "text/plain" | "application/sql" | "text/sql" => false,
        // What clients send who were not told otherwise.
        "" | "application/x-www-form-urlencoded" => text.trim_start().starts_with('{'),
        other => {
            let message = format!("content type `{other}` is not one of queries");
            let hint = "Send application/json with {\"sql\": …}, or SQL as text/plain.";
            return Err(Failure::new(ErrorCode::UnsupportedMedia, message).hint(hint));
        }
    };
    if is_json {
        return serde_json::from_str(text).map_err(|error| {
            Failure::new(ErrorCode::BadRequest, format!("the body is not a query: {error}"))
                .hint("A query is {\"sql\": …, \"timeout_ms\": …, \"min_completeness\": …}.")
        });
    }
    let mut asked = Asked { sql: text.to_owned(), timeout_ms: None, min_completeness: None };
    for pair in parameters.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let wrong =
            || Failure::new(ErrorCode::BadRequest, format!("parameter `{name}` is `{value}`, not a number"));
        match name {
            "timeout_ms" => asked.timeout_ms = Some(value.parse().map_err(|_| wrong())?),
            "min_completeness" => asked.min_completeness = Some(value.parse().map_err(|_| wrong())?),
            other => {
                let message = format!("there is no parameter `{other}`");
                let hint = "Parameters are timeout_ms and min_completeness.";
                return Err(Failure::new(ErrorCode::BadRequest, message).hint(hint));
            }
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        media: &str,
        parameters: &str,
        body: &str,
        expect: Result<(&str, Option<u64>, Option<f64>), &str>,
    ) {
        let mut headers = HeaderMap::new();
        if !media.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(media).unwrap());
        }
        let found = asked(&headers, parameters, body.as_bytes())
            .map(|asked| (asked.sql, asked.timeout_ms, asked.min_completeness))
            .map_err(|failure| failure.message);
        let expect = expect.map(|(sql, a, b)| (sql.to_owned(), a, b)).map_err(str::to_owned);
        assert_eq!(found, expect);
    }

    #[test]
    fn queries_are_json_or_text() {
        check("application/json", "", r#"{"sql":"SELECT 1"}"#, Ok(("SELECT 1", None, None)));
        let full = r#"{"sql":"SELECT 1","timeout_ms":5,"min_completeness":0.5}"#;
        check("application/json; charset=utf-8", "", full, Ok(("SELECT 1", Some(5), Some(0.5))));
        check("", "", r#" {"sql":"SELECT 1"}"#, Ok(("SELECT 1", None, None)));
        check("application/x-www-form-urlencoded", "", "SELECT 1", Ok(("SELECT 1", None, None)));
        check(
            "text/plain",
            "timeout_ms=7&min_completeness=1",
            "SELECT 1",
            Ok(("SELECT 1", Some(7), Some(1.0))),
        );
        check("text/plain", "timeout=7", "SELECT 1", Err("there is no parameter `timeout`"));
        check("text/plain", "timeout_ms=x", "SELECT 1", Err("parameter `timeout_ms` is `x`, not a number"));
        check("image/png", "", "SELECT 1", Err("content type `image/png` is not one of queries"));
        check(
            "application/json",
            "",
            r#"{"sql":"SELECT 1","timeout":5}"#,
            Err("the body is not a query: unknown field `timeout`, expected one of `sql`, `timeout_ms`, \
                 `min_completeness` at line 1 column 27"),
        );
    }
}
