//! `GET /metrics`, in the text format of Prometheus.

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{Guarding, Shared};
use crate::aggregator::Aggregator;
use crate::metrics::QUERY_SECONDS_EDGES;
use crate::rollout::Step;

pub(super) async fn metrics(
    State(aggregator): Shared,
    Extension(guarding): Extension<Arc<Guarding>>,
) -> Response {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, text(&aggregator, &guarding)).into_response()
}

/// Text that grows metric by metric; a string takes everything.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

fn text(aggregator: &Aggregator, guarding: &Guarding) -> String {
    let mut text = Text(String::new());
    security(aggregator, guarding, &mut text);
    children(aggregator, &mut text);
    leaves(aggregator, &mut text);
    rollout(aggregator, &mut text);
    gossip(aggregator, &mut text);
    work(aggregator, &mut text);
    text.0
}

fn security(aggregator: &Aggregator, guarding: &Guarding, text: &mut Text) {
    text.head("gannet_insecure", "gauge", "1 when something is open to other machines without protection.");
    text.value("gannet_insecure", &[], u8::from(!guarding.insecure.is_empty()));
    let denied = guarding.access.denied();
    text.head("gannet_requests_denied_total", "counter", "Requests that were not let in.");
    for (why, count) in [("unauthenticated", denied.unauthenticated), ("forbidden", denied.forbidden)] {
        text.value("gannet_requests_denied_total", &[("why", why)], count);
    }
    let name = "gannet_certificate_not_after_seconds";
    text.head(name, "gauge", "When a certificate ends, in seconds since 1970.");
    for (door, tls) in [("http", guarding.tls.as_ref()), ("grpc", aggregator.tls())] {
        if let Some(not_after) = tls.and_then(|tls| tls.not_after()) {
            text.value(name, &[("door", door)], not_after);
        }
    }
}

fn children(aggregator: &Aggregator, text: &mut Text) {
    text.head("gannet_child_up", "gauge", "1 when the child can be reached.");
    for child in aggregator.children().iter() {
        let up = u8::from(child.down().is_none());
        text.value("gannet_child_up", &[("child", child.address())], up);
    }
    let others = aggregator.others();
    if !others.is_empty() {
        text.head("gannet_aggregator_up", "gauge", "1 when the other aggregator can be reached.");
    }
    for (role, other) in others {
        let labels = [("aggregator", other.address()), ("role", role)];
        text.value("gannet_aggregator_up", &labels, u8::from(other.down().is_none()));
    }
    text.head("gannet_uptime_seconds", "gauge", "Seconds since the aggregator started.");
    text.value("gannet_uptime_seconds", &[], aggregator.uptime().as_secs_f64());
}

fn gossip(aggregator: &Aggregator, text: &mut Text) {
    let Some(gossip) = aggregator.gossip() else { return };
    let counts = gossip.counts();
    text.head("gannet_gossip_messages_total", "counter", "Messages of gossip that were read.");
    text.value("gannet_gossip_messages_total", &[], counts.read());
    text.head("gannet_gossip_dropped_total", "counter", "Datagrams of gossip that were dropped, by reason.");
    for (reason, count) in counts.refused() {
        text.value("gannet_gossip_dropped_total", &[("reason", reason)], count);
    }
    text.head("gannet_gossip_members", "gauge", "Members that gossip tells of, without this one.");
    text.value("gannet_gossip_members", &[], gossip.heard().borrow().len());
}

fn leaves(aggregator: &Aggregator, text: &mut Text) {
    let leaves = aggregator.roster().lock().leaves();
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&crate::roster::LeafStatus) -> u64| {
        text.head(name, "gauge", help);
        for leaf in &leaves {
            text.value(name, &[("leaf", &leaf.leaf)], value(leaf));
        }
    };
    gauge("gannet_leaf_rows", "Rows the leaf last said it holds.", &|leaf| leaf.rows);
    gauge("gannet_leaf_bytes", "Bytes the leaf last said its tables take.", &|leaf| leaf.bytes);
    gauge("gannet_leaf_rows_lost", "Rows of the leaf that are lost.", &|leaf| leaf.rows_lost);
    gauge("gannet_leaf_memory_used_bytes", "Memory the leaf uses.", &|leaf| {
        leaf.said.as_ref().map_or(0, |said| said.memory_used_bytes)
    });
    gauge("gannet_leaf_memory_limit_bytes", "Memory the leaf may use.", &|leaf| {
        leaf.said.as_ref().map_or(0, |said| said.memory_limit_bytes)
    });
}

fn rollout(aggregator: &Aggregator, text: &mut Text) {
    let Some(now) = aggregator.rollout() else { return };
    text.head("gannet_rollout_state", "gauge", "1 for the state that the last rollout is in.");
    for state in ["running", "paused", "aborted", "done"] {
        let is = u8::from(now.rollout.state().name() == state);
        text.value("gannet_rollout_state", &[("state", state)], is);
    }
    text.head("gannet_rollout_leaves", "gauge", "Leaves of the last rollout by the step they are at.");
    for (step, name) in Step::ALL {
        let count = now.rollout.leaves().iter().filter(|leaf| leaf.step == step).count();
        text.value("gannet_rollout_leaves", &[("step", name)], count);
    }
}

fn work(aggregator: &Aggregator, text: &mut Text) {
    let counts = aggregator.metrics().counts();
    let load = aggregator.load();
    for (name, help, value) in [
        ("gannet_queries_running", "Queries that run now.", load.running),
        ("gannet_queries_waiting", "Queries that wait for their turn.", load.waiting),
    ] {
        text.head(name, "gauge", help);
        text.value(name, &[], value);
    }
    let mut counter = |name: &str, help: &str, value: u64| {
        text.head(name, "counter", help);
        text.value(name, &[], value);
    };
    counter("gannet_ingest_rows_total", "Rows accepted.", counts.rows_ingested);
    counter(
        "gannet_ingest_rows_duplicate_total",
        "Rows that came again and were not counted again.",
        counts.rows_duplicate,
    );
    counter("gannet_ingest_rows_rejected_total", "Rows rejected for what they are.", counts.rows_rejected);
    counter("gannet_ingest_bytes_total", "Bytes of bodies with events.", counts.bytes_ingested);
    counter("gannet_ingest_batches_total", "Row batches that leaves took.", counts.batches_ingested);
    counter(
        "gannet_ingest_batches_failed_total",
        "Row batches that no leaf confirmed.",
        counts.batches_failed,
    );
    text.head("gannet_queries_total", "counter", "Queries by outcome.");
    for (outcome, count) in &counts.queries {
        text.value("gannet_queries_total", &[("outcome", outcome)], count);
    }
    text.head("gannet_query_seconds", "histogram", "Time of queries, failed ones too.");
    let mut below = 0;
    for (edge, count) in QUERY_SECONDS_EDGES.iter().zip(&counts.query_buckets) {
        below += count;
        text.value("gannet_query_seconds_bucket", &[("le", &edge.to_string())], below);
    }
    let all: u64 = counts.query_buckets.iter().sum();
    text.value("gannet_query_seconds_bucket", &[("le", "+Inf")], all);
    text.value("gannet_query_seconds_sum", &[], counts.query_seconds);
    text.value("gannet_query_seconds_count", &[], all);
    let known = counts.completeness.iter().flatten();
    if let (Some(last), Some(least)) = (counts.completeness.back(), known.copied().reduce(f64::min)) {
        if let Some(last) = last {
            text.head("gannet_query_completeness_last", "gauge", "Completeness of the last answer.");
            text.value("gannet_query_completeness_last", &[], last);
        }
        text.head("gannet_query_completeness_min", "gauge", "Least completeness of the last 100 answers.");
        text.value("gannet_query_completeness_min", &[], least);
    }
}
