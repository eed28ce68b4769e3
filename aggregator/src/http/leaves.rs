//! Draining and stopping leaves.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::{About, Shared, named, refused};
use crate::aggregator::Aggregator;
use crate::error::{ErrorCode, Failure};
use crate::rollout::Order;

/// What goes with an order.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Options {
    /// Only say whether it can be given, and what it would touch.
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Obeyed {
    leaf: String,
    /// What it was before.
    was: &'static str,
    /// There was nothing to do.
    already: bool,
    /// No batch is on its way in any more.
    settled: bool,
    dry_run: bool,
    /// Rows it holds.
    rows: u64,
    /// Rows that all leaves must hold.
    rows_of_all: u64,
}

type Named = Result<Path<String>, PathRejection>;
type Optional = Result<Query<Options>, QueryRejection>;

pub(super) async fn drain(State(aggregator): Shared, path: Named, options: Optional) -> Response {
    answer(give(&aggregator, Order::Drain, path, options).await)
}

pub(super) async fn undrain(State(aggregator): Shared, path: Named, options: Optional) -> Response {
    answer(give(&aggregator, Order::Undrain, path, options).await)
}

pub(super) async fn stop(State(aggregator): Shared, path: Named, options: Optional) -> Response {
    answer(give(&aggregator, Order::Stop, path, options).await)
}

async fn give(
    aggregator: &Aggregator,
    order: Order,
    path: Named,
    options: Optional,
) -> Result<Obeyed, Failure> {
    let leaf = named(path)?;
    let Query(options) = options.map_err(|error| {
        Failure::new(ErrorCode::BadRequest, error.body_text()).hint("The only option is dry_run=true.")
    })?;
    let known = aggregator.ordered(order, &leaf)?;
    // Anything that serves or drains said so itself.
    let was = known.leaf.said.as_ref().map_or("", |said| said.state.name());
    let mut reply = Obeyed {
        already: (order == Order::Drain && was == "draining")
            || (order == Order::Undrain && was == "serving"),
        settled: true,
        leaf,
        was,
        dry_run: options.dry_run,
        rows: known.leaf.rows,
        rows_of_all: known.rows_of_all,
    };
    if !options.dry_run {
        let obeyed = aggregator.order(order, &reply.leaf, 0).await?;
        (reply.already, reply.settled) = (obeyed.already, obeyed.settled);
        tracing::info!(leaf = reply.leaf, order = ?order, "an operator's order was followed");
    }
    Ok(reply)
}

fn answer(outcome: Result<Obeyed, Failure>) -> Response {
    match outcome {
        Ok(reply) => Json(reply).into_response(),
        Err(failure) => refused(failure, About::Path),
    }
}
