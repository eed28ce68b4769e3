//! Which leaves must exist: what people decide.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::{About, Shared, named, refused};
use crate::error::{ErrorCode, Failure};

/// What goes with taking a leaf out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    /// Its id, said again.
    confirm: Option<String>,
    /// Even when it is up.
    #[serde(default)]
    force: bool,
}

/// Takes a leaf out of the roster. Its id is said twice, so that nobody does it by a slip.
pub(super) async fn decommission(
    State(aggregator): Shared,
    path: Result<Path<String>, PathRejection>,
    options: Result<Query<Options>, QueryRejection>,
) -> Response {
    #[derive(Serialize)]
    struct Out {
        leaf: String,
        rows: u64,
    }
    let leaf = match named(path) {
        Ok(leaf) => leaf,
        Err(failure) => return refused(failure, About::Path),
    };
    let options = match options {
        Ok(Query(options)) if options.confirm.as_deref() == Some(&leaf) => options,
        Ok(_) | Err(_) => {
            let failure =
                Failure::new(ErrorCode::BadRequest, format!("taking leaf `{leaf}` out is not confirmed"));
            let hint = "Say its id again: POST /v1/leaves/ID/decommission?confirm=ID, and &force=true when it is up.";
            return refused(failure.hint(hint), About::Path);
        }
    };
    let outcome = if options.force {
        aggregator.decommission_by_force(&leaf).await
    } else {
        aggregator.decommission(&leaf).await
    };
    match outcome {
        Ok(rows) => Json(Out { leaf, rows }).into_response(),
        Err(failure) => refused(failure, About::Path),
    }
}

/// Takes a leaf back in.
pub(super) async fn recommission(
    State(aggregator): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    #[derive(Serialize)]
    struct Back {
        leaf: String,
    }
    let leaf = match named(path) {
        Ok(leaf) => leaf,
        Err(failure) => return refused(failure, About::Path),
    };
    match aggregator.recommission(&leaf).await {
        Ok(()) => Json(Back { leaf }).into_response(),
        Err(failure) => refused(failure, About::Path),
    }
}
