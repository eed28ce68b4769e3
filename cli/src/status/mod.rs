//! `gannet status`: every leaf, what it holds, where that came from, and what is wrong.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use gannet_client::Status;

use crate::client::ClientArgs;
use crate::outcome::{Exit, Outcome};
use crate::render::{self, Table};
use crate::units;

pub(crate) mod watch;

/// How long the aggregator may take when nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Nobody reads faster.
const EVERY_MIN: Duration = Duration::from_millis(100);

/// See the leaves: their state, rows and memory, and where their rows came from.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet status
  gannet status --watch
  gannet status --json | jq '.leaves[] | select(.state != \"serving\")'

`from` says where the rows of a leaf came from when it started: shared memory (a hand-over), or nothing; `start` says how \
long that took. `lost` are rows that were acknowledged once and that the leaf came back without; they lower the \
completeness of answers until somebody decides: gannet leaf accept-loss LEAF.

--watch asks again and again until Ctrl-C, with the rows a second that leaves take and the completeness that an answer over \
everything would have; on a terminal it is redrawn in place, elsewhere it is a line each time, with --json the reply.")]
pub(crate) struct StatusArgs {
    /// Print the server's whole reply
    #[arg(long)]
    json: bool,
    /// Show it again and again
    #[arg(short, long)]
    watch: bool,
    /// How often
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = units::parse_duration, requires = "watch")]
    every: Duration,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs it.
pub(crate) async fn run(args: StatusArgs) -> Outcome {
    if args.watch {
        return watch::watch(&args, args.every.max(EVERY_MIN)).await;
    }
    let client = args.client.connect()?;
    let timeout = args.client.timeout.unwrap_or(TIMEOUT_DEFAULT);
    let body = client.get_bytes(&["v1", "status"], timeout).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.json {
        out.write_all(&body)?;
        writeln!(out)?;
    } else {
        print(&mut out, &client.decode(&body)?)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// Writes it for people.
pub(crate) fn print(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let columns = [
        ("leaf", false),
        ("state", false),
        ("rows", true),
        ("memory", true),
        ("of", true),
        ("from", false),
        ("start", true),
        ("lost", true),
    ];
    let mut table = Table::new(columns.map(|(name, right)| (name.to_owned(), right)));
    for leaf in &status.leaves {
        let start = match leaf.phases.as_slice() {
            [] => String::new(),
            phases => units::seconds(phases.iter().map(|phase| phase.seconds).sum()),
        };
        let texts = [
            leaf.leaf.clone(),
            leaf.state.clone(),
            units::count(leaf.rows),
            units::bytes(leaf.memory_used_bytes),
            units::bytes(leaf.memory_limit_bytes),
            leaf.source.clone(),
            start,
            units::count(leaf.rows_lost),
        ];
        table.text_row(texts);
    }
    for child in &status.unheard {
        let nothing = || String::new();
        let texts = [
            child.leaf.clone(),
            "never heard of".to_owned(),
            nothing(),
            nothing(),
            nothing(),
            nothing(),
            nothing(),
        ];
        table.text_row(texts);
    }
    table.write(out, render::style())?;
    if !status.aggregators.is_empty() {
        aggregators(status).write(out, render::style())?;
    }
    let serving = status.leaves.iter().filter(|leaf| leaf.state == "serving").count();
    let all = format!(
        "{} · {serving} of {} leaves serving · {} · {} · aggregator up {}",
        if status.ready { "ready" } else { "not ready" },
        status.leaves.len() + status.unheard.len(),
        units::rows(status.leaves.iter().map(|leaf| leaf.rows).sum()),
        units::bytes(status.leaves.iter().map(|leaf| leaf.memory_used_bytes).sum()),
        units::seconds(status.aggregator.uptime_seconds),
    );
    writeln!(out, "{}", render::fold(&all, render::style()))?;
    for note in notes(status) {
        writeln!(out, "{note}")?;
    }
    Ok(())
}

/// The other aggregators, as a table.
fn aggregators(status: &Status) -> Table {
    let mut table =
        Table::new(["aggregator", "role", "state", "version"].map(|name| (name.to_owned(), false)));
    for other in &status.aggregators {
        table.text_row([&other.address, &other.role, &other.state, &other.version].map(Clone::clone));
    }
    table
}

/// What somebody should know or do, a line for each.
fn notes(status: &Status) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |leaf: &str, text: &str| {
        notes.push(format!("{leaf}: {text}").chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
    };
    for insecure in &status.insecure {
        note("insecure", insecure);
    }
    for leaf in &status.leaves {
        if !leaf.detail.is_empty() {
            note(&leaf.leaf, &leaf.detail);
        }
        if !leaf.source_detail.is_empty() {
            note(&leaf.leaf, &leaf.source_detail);
        }
        if leaf.rows_lost > 0 {
            let lost = units::rows(leaf.rows_lost);
            let id = &leaf.leaf;
            note(
                id,
                &format!("{lost} lost; answers count them as missing until: gannet leaf accept-loss {id}"),
            );
        }
    }
    for child in &status.unheard {
        note(&child.leaf, &child.detail);
    }
    for other in status.aggregators.iter().filter(|other| !other.detail.is_empty()) {
        note(&other.address, &other.detail);
    }
    notes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(status: serde_json::Value, expect: &str) {
        let mut out = Vec::new();
        print(&mut out, &serde_json::from_value(status).unwrap()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn everything_well() {
        check(
            json!({
                "ready": true,
                "aggregator": {"version": "0.1.0", "uptime_seconds": 185.2, "process_id": 7, "children": 1},
                "leaves": [{
                    "leaf": "leaf-0", "state": "serving", "rows": 500_123, "bytes": 5, "rows_lost": 0,
                    "source": "shared memory", "source_detail": "", "detail": "",
                    "memory_used_bytes": 61_234_567, "memory_limit_bytes": 4_000_000_000_u64,
                    "phases": [{"name": "attaching", "seconds": 0.012, "bytes": 5}],
                }],
                "unheard": [],
            }),
            " leaf   │ state   │    rows │  memory │     of │ from          │ start │ lost\n\
             ────────┼─────────┼─────────┼─────────┼────────┼───────────────┼───────┼──────\n \
             leaf-0 │ serving │ 500,123 │ 61.2 MB │ 4.0 GB │ shared memory │ 12 ms │    0\n\
             ready · 1 of 1 leaves serving · 500,123 rows · 61.2 MB · aggregator up 3m05s\n",
        );
    }

    #[test]
    fn other_aggregators_are_shown() {
        check(
            json!({
                "ready": true,
                "leaves": [],
                "aggregators": [
                    {"address": "10.0.0.5:7701", "role": "child", "state": "up", "version": "0.1.0"},
                    {"address": "10.0.0.6:7701", "role": "helper", "state": "down", "detail": "connection refused"},
                ],
            }),
            " leaf │ state │ rows │ memory │ of │ from │ start │ lost\n\
             ──────┼───────┼──────┼────────┼────┼──────┼───────┼──────\n \
             aggregator    │ role   │ state │ version\n\
             ───────────────┼────────┼───────┼─────────\n \
             10.0.0.5:7701 │ child  │ up    │ 0.1.0\n \
             10.0.0.6:7701 │ helper │ down  │\n\
             ready · 0 of 0 leaves serving · 0 rows · 0 B · aggregator up 0.0 ms\n\
             10.0.0.6:7701: connection refused\n",
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        check(
            json!({
                "ready": false,
                "insecure": ["HTTP on 0.0.0.0:7700 is open to other machines without TLS and tokens"],
                "leaves": [
                    {"leaf": "leaf-0", "state": "down", "detail": "connection refused"},
                    {"leaf": "leaf-1", "state": "serving", "source": "nothing", "source_detail": "no segments",
                        "rows_lost": 7},
                ],
                "unheard": [{"leaf": "unix:leaf-2/leaf.sock", "detail": "no answer yet"}],
            }),
            " leaf                  │ state          │ rows │ memory │  of │ from    │ start │ lost\n\
             ───────────────────────┼────────────────┼──────┼────────┼─────┼─────────┼───────┼──────\n \
             leaf-0                │ down           │    0 │    0 B │ 0 B │         │       │    0\n \
             leaf-1                │ serving        │    0 │    0 B │ 0 B │ nothing │       │    7\n \
             unix:leaf-2/leaf.sock │ never heard of │      │        │     │         │\n\
             not ready · 1 of 3 leaves serving · 0 rows · 0 B · aggregator up 0.0 ms\n\
             insecure: HTTP on 0.0.0.0:7700 is open to other machines without TLS and tokens\n\
             leaf-0: connection refused\n\
             leaf-1: no segments\n\
             leaf-1: 7 rows lost; answers count them as missing until: gannet leaf accept-loss leaf-1\n\
             unix:leaf-2/leaf.sock: no answer yet\n",
        );
    }
}
