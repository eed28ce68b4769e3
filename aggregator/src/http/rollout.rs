//! The rolling restart: how far it is, and what may be said to it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use gannet_query::rfc3339::format_time;
use serde::{Deserialize, Serialize};

use super::{About, Shared, refused};
use crate::aggregator::{Changes, RolloutNow};
use crate::error::{ErrorCode, Failure};
use crate::rollout::{MaxUnavailable, Millis, Progress, State as RolloutState, Step, View};

/// What a start or a resume may say; what it does not say stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Request {
    max_unavailable: Option<String>,
    min_completeness: Option<f64>,
    leaf_seconds_max: Option<u64>,
    to: Option<String>,
    allow_disk: Option<bool>,
    /// Only say what would happen.
    dry_run: bool,
}

#[derive(Serialize)]
struct Reply {
    rollout: Option<RolloutText>,
}

#[derive(Serialize)]
struct RolloutText {
    id: String,
    state: &'static str,
    /// Who runs it, when it is another aggregator.
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregator: Option<String>,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pause: Option<PauseText>,
    begun: String,
    elapsed_seconds: f64,
    /// About how much longer it takes.
    left_seconds: Option<f64>,
    /// Of an answer over everything, now.
    completeness: Option<f64>,
    settings: SettingsText,
    /// How many leaves may be away at once.
    unavailable_max: usize,
    machines: usize,
    leaves: Vec<LeafText>,
}

#[derive(Serialize)]
struct PauseText {
    /// `None`: a person paused it.
    guard: Option<&'static str>,
    why: String,
}

#[derive(Serialize)]
struct SettingsText {
    max_unavailable: String,
    min_completeness: f64,
    leaf_seconds_max: u64,
    to: Option<String>,
    allow_disk: bool,
}

#[derive(Serialize)]
struct LeafText {
    leaf: String,
    machine: String,
    step: &'static str,
    /// What the leaf is now.
    state: &'static str,
    /// How long it has been at this step.
    since_seconds: f64,
    /// From the order to stop until it had all its rows again.
    seconds: Option<f64>,
    /// Where its rows came from.
    path: String,
    version_before: String,
    version: String,
    /// Rows it holds, or held.
    rows: u64,
    note: String,
}

fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1000.0
}

fn text(RolloutNow { rollout, at, view }: &RolloutNow) -> RolloutText {
    let settings = rollout.settings();
    let pause = match rollout.state() {
        RolloutState::Paused { guard, why } => {
            Some(PauseText { guard: guard.map(|guard| guard.name()), why: why.clone() })
        }
        _ => None,
    };
    let machines: std::collections::BTreeSet<&str> =
        rollout.leaves().iter().map(|leaf| leaf.machine.as_str()).collect();
    RolloutText {
        id: rollout.id(),
        state: rollout.state().name(),
        aggregator: at.clone(),
        pause,
        begun: format_time(rollout.begun_at()),
        elapsed_seconds: seconds(rollout.elapsed()),
        left_seconds: rollout.left().filter(|_| rollout.is_unfinished()).map(seconds),
        completeness: view.completeness_now(),
        settings: SettingsText {
            max_unavailable: settings.max_unavailable.to_string(),
            min_completeness: settings.min_completeness,
            leaf_seconds_max: settings.leaf_seconds_max,
            to: settings.to.clone(),
            allow_disk: settings.allow_disk,
        },
        unavailable_max: rollout.limit(),
        machines: machines.len(),
        leaves: rollout.leaves().iter().map(|leaf| leaf_text(leaf, view, rollout.elapsed())).collect(),
    }
}

fn leaf_text(leaf: &Progress, view: &View, now: Millis) -> LeafText {
    let seen = view.leaves.get(&leaf.leaf);
    let since = if leaf.step == Step::Waiting { 0 } else { now.saturating_sub(leaf.since) };
    LeafText {
        leaf: leaf.leaf.clone(),
        machine: leaf.machine.clone(),
        step: leaf.step.name(),
        state: seen.map_or("", |seen| seen.presence.name()),
        since_seconds: seconds(since),
        seconds: leaf.took.map(seconds),
        path: leaf.path.clone(),
        version_before: leaf.version_before.clone(),
        version: leaf.version.clone(),
        rows: seen.map_or(0, |seen| seen.rows),
        note: leaf.note.clone(),
    }
}

pub(super) async fn show(State(aggregator): Shared) -> Response {
    Json(Reply { rollout: aggregator.rollout_anywhere().await.as_ref().map(text) }).into_response()
}

/// What is asked for, and whether it is only to be tried.
fn changes(body: &[u8]) -> Result<(Changes, bool), Failure> {
    let wrong = |what: String| Failure::new(ErrorCode::BadRequest, what);
    let request: Request = match body {
        [] => Request::default(),
        body => serde_json::from_slice(body)
            .map_err(|error| wrong(format!("the body is not the settings of a rollout: {error}")))?,
    };
    let max_unavailable = request.max_unavailable.as_deref().map(MaxUnavailable::parse).transpose();
    let changes = Changes {
        max_unavailable: max_unavailable.map_err(|what| wrong(format!("max_unavailable {what}")))?,
        min_completeness: request.min_completeness,
        leaf_seconds_max: request.leaf_seconds_max,
        to: request.to,
        allow_disk: request.allow_disk,
    };
    Ok((changes, request.dry_run))
}

pub(super) async fn start(State(aggregator): Shared, body: Bytes) -> Response {
    if let Err(failure) = aggregator.rolls_here().await {
        return answer(Err(failure));
    }
    let started = match changes(&body) {
        Ok((changes, true)) => aggregator.plan_rollout(changes),
        Ok((changes, false)) => aggregator.start_rollout(changes).await,
        Err(failure) => Err(failure),
    };
    answer(started)
}

pub(super) async fn pause(State(aggregator): Shared) -> Response {
    if let Err(failure) = aggregator.rolls_here().await {
        return answer(Err(failure));
    }
    answer(aggregator.pause_rollout().await)
}

pub(super) async fn resume(State(aggregator): Shared, body: Bytes) -> Response {
    if let Err(failure) = aggregator.rolls_here().await {
        return answer(Err(failure));
    }
    answer(match changes(&body) {
        Ok((changes, _)) => aggregator.resume_rollout(changes).await,
        Err(failure) => Err(failure),
    })
}

pub(super) async fn abort(State(aggregator): Shared) -> Response {
    if let Err(failure) = aggregator.rolls_here().await {
        return answer(Err(failure));
    }
    answer(aggregator.abort_rollout().await)
}

fn answer(outcome: Result<RolloutNow, Failure>) -> Response {
    match outcome {
        Ok(now) => Json(Reply { rollout: Some(text(&now)) }).into_response(),
        Err(failure) => refused(failure, About::Path),
    }
}
