//! The HTTP door: events in, SQL answered, status shown.
//!
//! It turns requests into calls of [`Aggregator`] and failures into statuses, and decides nothing itself. Every error
//! has one shape, `{"error":{"code","message",…}}`, whatever the path. Where tokens are asked for, nothing of a request but
//! its head is read before its token is known to be good for it.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, middleware};
use gannet_proto::tls::Tls;
use serde::Serialize;

use crate::access::Access;
use crate::aggregator::Aggregator;
use crate::error::{ErrorCode, Failure};

mod access;
mod cells;
mod events;
mod leaves;
mod membership;
mod metrics;
mod query;
mod refined;
mod render;
mod rollout;
mod sender;
pub(crate) mod serve;
mod status;
mod unread;

type Shared = State<Arc<Aggregator>>;

/// What guards the door, and what should be known of that.
#[derive(Debug, Default)]
pub struct Guarding {
    /// Who may do what.
    pub access: Arc<Access>,
    /// The door's own TLS.
    pub tls: Option<Arc<Tls>>,
    /// What is open to other machines because a person insisted, a sentence each.
    pub insecure: Vec<String>,
}

/// Everything the door serves, to everybody.
pub fn router(aggregator: Arc<Aggregator>) -> Router {
    guarded(aggregator, Guarding::default())
}

/// Everything the door serves, to those who may ask for it.
pub fn guarded(aggregator: Arc<Aggregator>, guarding: Guarding) -> Router {
    let guard = middleware::from_fn_with_state(Arc::clone(&guarding.access), access::guard);
    routes(aggregator).layer(guard).layer(Extension(Arc::new(guarding)))
}

fn routes(aggregator: Arc<Aggregator>) -> Router {
    let query_bytes = aggregator.config().query_body_bytes_max;
    Router::new()
        .route("/", get(index))
        .route("/v1/query", post(query::query).layer(DefaultBodyLimit::max(query_bytes)))
        .route("/v1/events/{table}", post(events::events).layer(DefaultBodyLimit::disable()))
        .route("/v1/tables", get(status::tables))
        .route("/v1/tables/{table}", get(status::table).delete(status::delete_table))
        .route("/v1/status", get(status::status))
        .route("/v1/leaves/{leaf}/accept-loss", post(status::accept_loss))
        .route("/v1/leaves/{leaf}/drain", post(leaves::drain))
        .route("/v1/leaves/{leaf}/undrain", post(leaves::undrain))
        .route("/v1/leaves/{leaf}/stop", post(leaves::stop))
        .route("/v1/rollout", get(rollout::show))
        .route("/v1/rollout/start", post(rollout::start))
        .route("/v1/rollout/pause", post(rollout::pause))
        .route("/v1/rollout/resume", post(rollout::resume))
        .route("/v1/rollout/abort", post(rollout::abort))
        .route("/v1/leaves/{leaf}/decommission", post(membership::decommission))
        .route("/v1/leaves/{leaf}/recommission", post(membership::recommission))
        .route("/healthz", get(healthz))
        .route("/readyz", get(status::ready))
        .route("/metrics", get(metrics::metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(aggregator)
}

/// What an error is about, where that decides its status.
#[derive(Debug, Clone, Copy)]
enum About {
    /// The statement in a request.
    Statement,
    /// The body of a request.
    Body,
    /// A thing named in the path.
    Path,
}

/// One exhaustive match from failure to status.
fn status_of(code: ErrorCode, about: About) -> StatusCode {
    match (code, about) {
        (ErrorCode::NotFound, About::Path) => StatusCode::NOT_FOUND,
        (ErrorCode::TooLarge, About::Body) => StatusCode::PAYLOAD_TOO_LARGE,
        (ErrorCode::BadRequest | ErrorCode::NotFound | ErrorCode::Unsupported | ErrorCode::TooLarge, _) => {
            StatusCode::BAD_REQUEST
        }
        (ErrorCode::Unauthenticated, _) => StatusCode::UNAUTHORIZED,
        (ErrorCode::Forbidden, _) => StatusCode::FORBIDDEN,
        (ErrorCode::Overloaded, _) => StatusCode::TOO_MANY_REQUESTS,
        (ErrorCode::UnsupportedMedia, _) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        (ErrorCode::DiskFull, _) => StatusCode::INSUFFICIENT_STORAGE,
        (ErrorCode::SequenceTooOld | ErrorCode::WrongState, _) => StatusCode::CONFLICT,
        (ErrorCode::Unavailable | ErrorCode::Unconfirmed | ErrorCode::Incomplete, _) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        (ErrorCode::Timeout, _) => StatusCode::GATEWAY_TIMEOUT,
        (ErrorCode::Internal, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// An error as its response.
fn refused(failure: Failure, about: About) -> Response {
    #[derive(Serialize)]
    struct Refused {
        error: Failure,
    }
    refused_with(failure, about, |error| Refused { error })
}

/// Characters of a message or a detail that are sent: an error names what it refuses, it does not send it all back.
const ERROR_TEXT_MAX: usize = 2000;

fn cut(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(ERROR_TEXT_MAX) {
        text.truncate(at);
        text.push('…');
    }
}

/// An error with texts of bounded length.
fn shortened(mut failure: Failure) -> Failure {
    cut(&mut failure.message);
    if let Some(detail) = &mut failure.detail {
        cut(detail);
    }
    failure
}

/// The name in a path, or why it is none.
fn named(path: Result<Path<String>, PathRejection>) -> Result<String, Failure> {
    match path {
        Ok(Path(name)) => Ok(name),
        Err(error) => {
            Err(Failure::new(ErrorCode::BadRequest, format!("the path holds no name: {}", error.body_text()))
                .hint("Names are UTF-8, with % escapes for what a path cannot hold."))
        }
    }
}

/// An error as its response, in a body that says more than the error.
fn refused_with<T: Serialize>(failure: Failure, about: About, body: impl FnOnce(Failure) -> T) -> Response {
    let failure = shortened(failure);
    let status = status_of(failure.code, about);
    let retry_after = failure.retry_after_seconds;
    if failure.code == ErrorCode::Internal {
        tracing::error!(error = failure.message, detail = failure.detail, "request failed");
    }
    let mut response = (status, Json(body(failure))).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

async fn unknown_path(uri: Uri) -> Response {
    let failure = Failure::new(ErrorCode::NotFound, format!("nothing is served at `{}`", uri.path()))
        .hint("GET / lists what is.");
    refused(failure, About::Path)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("`{}` is not served for method {method}", uri.path());
    let mut response =
        refused(Failure::new(ErrorCode::BadRequest, message).hint("GET / lists what is."), About::Path);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn index() -> String {
    format!(
        "Gannet {}: recent events in memory, asked with SQL; every answer says how complete it is.

POST /v1/events/{{table}}              events: NDJSON, JSON array, CSV or Arrow IPC stream; gzip or zstd
POST /v1/query                       {{\"sql\":\"SELECT …\",\"timeout_ms\":…,\"min_completeness\":…}}, or SQL as plain text
GET  /v1/tables                      the tables
GET  /v1/tables/{{table}}              a table's columns
DELETE /v1/tables/{{table}}?confirm={{table}}   delete every row of it, for good
GET  /v1/status                      the leaves: state, rows, bytes, where their data came from
POST /v1/leaves/{{leaf}}/accept-loss   forget rows that are gone for good
POST /v1/leaves/{{leaf}}/drain         take no new batches; /undrain takes them again, /stop hands over and ends
GET  /v1/rollout                     the rolling restart there is, or was; POST /v1/rollout/start, pause, resume, abort
POST /v1/leaves/{{leaf}}/decommission?confirm={{leaf}}   take a leaf out of the roster; /recommission takes it back in
GET  /healthz  /readyz  /metrics     process up; serving all its data; Prometheus text
",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests;
