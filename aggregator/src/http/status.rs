//! Tables, leaves and readiness.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use gannet_query::LeafState;
use gannet_query::rfc3339::format_time;
use serde::{Deserialize, Serialize};

use super::access::Admitted;
use super::{About, Guarding, Shared, named, refused};
use crate::aggregator::Aggregator;
use crate::catalogue::CatalogueTable;
use crate::error::{ErrorCode, Failure};
use crate::roster::LeafStatus;

#[derive(Serialize)]
struct TableText {
    name: String,
    rows: u64,
    bytes: u64,
    time_min: Option<String>,
    time_max: Option<String>,
    columns: usize,
}

impl TableText {
    fn new(table: &CatalogueTable) -> TableText {
        TableText {
            name: table.name.clone(),
            rows: table.rows,
            bytes: table.bytes,
            time_min: table.time_range.map(|(min, _)| format_time(min)),
            time_max: table.time_range.map(|(_, max)| format_time(max)),
            columns: table.columns.len(),
        }
    }
}

pub(super) async fn tables(State(aggregator): Shared) -> Response {
    #[derive(Serialize)]
    struct Tables {
        tables: Vec<TableText>,
    }
    let catalogue = aggregator.catalogue();
    Json(Tables { tables: catalogue.tables.values().map(TableText::new).collect() }).into_response()
}

pub(super) async fn table(State(aggregator): Shared, path: Result<Path<String>, PathRejection>) -> Response {
    let name = match named(path) {
        Ok(name) => name,
        Err(failure) => return refused(failure, About::Path),
    };
    #[derive(Serialize)]
    struct Column {
        name: String,
        #[serde(rename = "type")]
        column_type: &'static str,
        null_share: f64,
        distinct_estimate: u64,
        bytes: u64,
    }
    #[derive(Serialize)]
    struct Table {
        name: String,
        rows: u64,
        bytes: u64,
        time_min: Option<String>,
        time_max: Option<String>,
        columns: Vec<Column>,
    }
    let catalogue = aggregator.catalogue();
    let Some(table) = catalogue.tables.get(&name) else {
        return refused(no_table(&name), About::Path);
    };
    let columns = table.columns.iter().map(|column| Column {
        name: column.name.clone(),
        column_type: column.column_type.name(),
        null_share: null_share(table.rows, column.value_count),
        distinct_estimate: column.distinct_estimate,
        bytes: column.bytes,
    });
    let shown = TableText::new(table);
    Json(Table {
        name: shown.name,
        rows: shown.rows,
        bytes: shown.bytes,
        time_min: shown.time_min,
        time_max: shown.time_max,
        columns: columns.collect(),
    })
    .into_response()
}

/// The share of rows without a value, four digits.
fn null_share(rows: u64, values: u64) -> f64 {
    if rows == 0 {
        return 0.0;
    }
    let nulls = rows.saturating_sub(values);
    (nulls as f64 / rows as f64 * 1e4).round() / 1e4
}

/// Deletes a table. Its name is said twice, so that nobody does it by a slip.
pub(super) async fn delete_table(
    State(aggregator): Shared,
    path: Result<Path<String>, PathRejection>,
    confirmed: Result<Query<Confirmed>, QueryRejection>,
) -> Response {
    let name = match named(path) {
        Ok(name) => name,
        Err(failure) => return refused(failure, About::Path),
    };
    if !confirmed.is_ok_and(|Query(confirmed)| confirmed.confirm.as_deref() == Some(&name)) {
        let message = format!("deleting table `{name}` is not confirmed");
        let hint =
            "Say its name again: DELETE /v1/tables/NAME?confirm=NAME. Its rows are gone for good then.";
        return refused(Failure::new(ErrorCode::BadRequest, message).hint(hint), About::Path);
    }
    let is_known = aggregator.catalogue().tables.contains_key(&name);
    // A leaf may hold rows that nobody described yet, so it is tried all the same.
    match aggregator.delete_table(&name).await {
        Ok(0) if !is_known => refused(no_table(&name), About::Path),
        Ok(rows) => Json(Deleted { table: name, rows }).into_response(),
        Err(failure) => refused(failure, About::Path),
    }
}

/// What goes with a deletion.
#[derive(Deserialize)]
pub(super) struct Confirmed {
    confirm: Option<String>,
}

#[derive(Serialize)]
struct Deleted {
    table: String,
    rows: u64,
}

fn no_table(name: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("no leaf holds a table `{name}`"))
        .hint("GET /v1/tables lists the tables. A table exists from its first row.")
}

#[derive(Serialize)]
struct LeafText {
    leaf: String,
    address: String,
    state: &'static str,
    detail: String,
    epoch: u64,
    version: String,
    process: String,
    machine: String,
    source: String,
    source_detail: String,
    rows: u64,
    bytes: u64,
    rows_lost: u64,
    rows_ingested: u64,
    rows_restored: u64,
    memory_used_bytes: u64,
    memory_limit_bytes: u64,
    phases: Vec<PhaseText>,
}

#[derive(Serialize)]
struct PhaseText {
    name: String,
    seconds: f64,
    bytes: u64,
}

/// Another aggregator: a child, or one that asks for this one.
#[derive(Serialize)]
struct OtherText {
    address: String,
    role: &'static str,
    state: &'static str,
    version: String,
    detail: String,
}

/// Every other aggregator that this one works with.
fn others(aggregator: &Aggregator) -> Vec<OtherText> {
    let others = aggregator.others().into_iter().map(|(role, other)| {
        let down = other.down();
        OtherText {
            address: other.address().to_owned(),
            role,
            state: if down.is_none() { "up" } else { DOWN },
            version: other.aggregator_version().unwrap_or_default(),
            detail: down.unwrap_or_default(),
        }
    });
    others.collect()
}

/// The word for a leaf that does not answer.
const DOWN: &str = "down";

/// The state of a leaf as it is now, and why when it is down.
fn state(leaf: &LeafStatus, down: &BTreeMap<String, String>) -> (&'static str, String) {
    if !leaf.configured {
        return (DOWN, format!("its child {} is not among the configured children", leaf.child));
    }
    if let Some(why) = down.get(&leaf.child).or(leaf.unreachable.as_ref()) {
        return (DOWN, why.clone());
    }
    match &leaf.said {
        Some(said) => (said.state.name(), String::new()),
        None => (DOWN, "its child does not name it".to_owned()),
    }
}

fn leaf_text(leaf: LeafStatus, down: &BTreeMap<String, String>) -> LeafText {
    let (state, detail) = state(&leaf, down);
    let said = leaf.said;
    let phases = said.iter().flat_map(|said| &said.phases);
    let phases = phases.map(|phase| PhaseText {
        name: phase.name.clone(),
        seconds: phase.seconds,
        bytes: phase.bytes,
    });
    LeafText {
        phases: phases.collect(),
        state,
        detail,
        leaf: leaf.leaf,
        address: leaf.child,
        epoch: said.as_ref().map_or(leaf.epoch, |said| said.epoch),
        version: said.as_ref().map(|said| said.version.clone()).unwrap_or_default(),
        process: said.as_ref().map(|said| said.process.clone()).unwrap_or_default(),
        machine: said.as_ref().map(|said| said.machine.clone()).unwrap_or_default(),
        source: said.as_ref().map(|said| said.source.clone()).unwrap_or_default(),
        source_detail: said.as_ref().map(|said| said.source_detail.clone()).unwrap_or_default(),
        rows: leaf.rows,
        bytes: leaf.bytes,
        rows_lost: leaf.rows_lost,
        rows_ingested: said.as_ref().map_or(0, |said| said.rows_ingested),
        rows_restored: said.as_ref().map_or(0, |said| said.rows_restored),
        memory_used_bytes: said.as_ref().map_or(0, |said| said.memory_used_bytes),
        memory_limit_bytes: said.as_ref().map_or(0, |said| said.memory_limit_bytes),
    }
}

pub(super) async fn status(
    State(aggregator): Shared,
    Extension(guarding): Extension<Arc<Guarding>>,
) -> Response {
    #[derive(Serialize)]
    struct AggregatorText {
        version: &'static str,
        uptime_seconds: f64,
        process_id: u32,
        children: usize,
    }
    #[derive(Serialize)]
    struct Unheard {
        leaf: String,
        detail: String,
    }
    #[derive(Serialize)]
    struct Status {
        ready: bool,
        aggregator: AggregatorText,
        /// What is open to other machines because a person insisted.
        insecure: Vec<String>,
        leaves: Vec<LeafText>,
        unheard: Vec<Unheard>,
        aggregators: Vec<OtherText>,
    }
    let down = aggregator.down();
    let not_ready = not_ready(&aggregator, &down);
    let roster = aggregator.roster().lock();
    let unheard = roster.unheard().into_iter().map(|(leaf, why)| {
        let detail = down.get(&leaf).cloned().unwrap_or(why);
        Unheard { leaf, detail }
    });
    Json(Status {
        ready: not_ready.is_empty(),
        aggregator: AggregatorText {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: aggregator.uptime().as_secs_f64(),
            process_id: std::process::id(),
            children: aggregator.children().len(),
        },
        insecure: guarding.insecure.clone(),
        leaves: roster.leaves().into_iter().map(|leaf| leaf_text(leaf, &down)).collect(),
        unheard: unheard.collect(),
        aggregators: others(&aggregator),
    })
    .into_response()
}

/// Every leaf that is not serving all its data, with why.
fn not_ready(aggregator: &Aggregator, down: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let roster = aggregator.roster().lock();
    let mut not_ready = roster.unheard();
    for leaf in roster.leaves() {
        let (state, detail) = state(&leaf, down);
        // A leaf that drains serves all its rows.
        if state != LeafState::Serving.name() && state != LeafState::Draining.name() {
            let why = if detail.is_empty() { state.to_owned() } else { format!("{state}: {detail}") };
            not_ready.push((leaf.leaf, why));
        } else if leaf.rows_lost > 0 {
            not_ready.push((leaf.leaf, format!("{} rows are lost", leaf.rows_lost)));
        }
    }
    not_ready
}

pub(super) async fn ready(
    State(aggregator): Shared,
    Extension(guarding): Extension<Arc<Guarding>>,
    admitted: Option<Extension<Admitted>>,
) -> Response {
    let not_ready = not_ready(&aggregator, &aggregator.down());
    if aggregator.children().is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no children are known\n").into_response();
    }
    if not_ready.is_empty() {
        return (StatusCode::OK, "ready\n").into_response();
    }
    if guarding.access.asks() && admitted.is_none() {
        // What there is, and where, is only for those who show who they are.
        return (StatusCode::SERVICE_UNAVAILABLE, "not all rows are served\n").into_response();
    }
    let text: String = not_ready.iter().map(|(leaf, why)| format!("{leaf}: {why}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

pub(super) async fn accept_loss(
    State(aggregator): Shared,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    let leaf = match named(path) {
        Ok(leaf) => leaf,
        Err(failure) => return refused(failure, About::Path),
    };
    #[derive(Serialize)]
    struct Accepted {
        leaf: String,
        rows: u64,
    }
    match aggregator.accept_loss(&leaf).await {
        Ok(rows) => Json(Accepted { leaf, rows }).into_response(),
        Err(failure) => refused(failure, About::Path),
    }
}
