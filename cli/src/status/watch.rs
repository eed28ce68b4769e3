//! `gannet status --watch`: the same leaves again and again, with how many events they take.
//!
//! On a terminal the screen is redrawn in place; elsewhere there is a line each time.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use gannet_client::{Status, percent};

use super::{StatusArgs, TIMEOUT_DEFAULT, notes, print};
use crate::interrupt::Interrupt;
use crate::outcome::{Exit, Failure, Outcome};
use crate::render::{self, width};
use crate::units;

/// Goes up this many lines and clears what is below.
pub(crate) fn up(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\u{1b}[{lines}A\r\u{1b}[J") }
}

/// Shows the status until Ctrl-C.
pub(super) async fn watch(args: &StatusArgs, every: Duration) -> Outcome {
    let client = args.client.connect()?;
    let interrupt = Interrupt::listen();
    let timeout = args.client.timeout.unwrap_or(TIMEOUT_DEFAULT);
    let is_screen = io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    let mut rates = Rates::default();
    let mut drawn = 0;
    loop {
        let asked = tokio::select! {
            biased;
            () = interrupt.said() => return Ok(Exit::Interrupted),
            asked = client.get_bytes(&["v1", "status"], timeout) => asked,
        };
        let text = match asked {
            Err(failure) if failure.exit == Exit::Usage => return Err(failure),
            // A server that is being restarted comes back.
            Err(failure) => format!("{}\n", failure.message),
            Ok(body) if args.json => {
                let mut line = String::from_utf8_lossy(&body).into_owned();
                line.push('\n');
                line
            }
            Ok(body) => {
                let status: Status = client.decode(&body)?;
                let rate = rates.take(&status, Instant::now());
                if is_screen { screen(&status, rate)? } else { line(&status, rate) }
            }
        };
        let mut out = io::stdout().lock();
        if is_screen && !args.json {
            let text = fitted(&text);
            write!(out, "{}{text}", up(drawn))?;
            drawn = text.lines().count();
        } else {
            write!(out, "{text}")?;
        }
        out.flush()?;
        drop(out);
        tokio::select! {
            biased;
            () = interrupt.said() => return Ok(Exit::Interrupted),
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// No more and no longer lines than the screen has, or they could not be drawn over.
pub(crate) fn fitted(text: &str) -> String {
    let (height, columns) = terminal_size::terminal_size_of(io::stdout())
        .map_or((24, 80), |(columns, height)| (usize::from(height.0), usize::from(columns.0)));
    let style = render::style();
    let lines = text.lines().take(height.saturating_sub(1).max(1));
    lines
        .map(|line| {
            // A line with colours has been fitted to the screen already.
            let is_long = !line.contains('\u{1b}') && width(line) >= columns;
            let line =
                if is_long { render::cut(line, columns.saturating_sub(1), style) } else { line.to_owned() };
            format!("{line}\n")
        })
        .collect()
}

fn screen(status: &Status, rate: Option<f64>) -> Result<String, Failure> {
    let mut text = Vec::new();
    print(&mut text, status)?;
    let mut text = String::from_utf8_lossy(&text).into_owned();
    text.push_str(&format!("{} · completeness now {}\n", rate_text(rate), completeness(status)));
    Ok(text)
}

/// `2026-11-21T09:00:00Z ready · 4 of 4 leaves · 1,000 rows · 200 events/s · completeness now 100%`.
fn line(status: &Status, rate: Option<f64>) -> String {
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let serving = status.leaves.iter().filter(|leaf| leaf.state == "serving").count();
    let mut line = format!(
        "{now} {} · {serving} of {} leaves serving · {} · {} · {} · completeness now {}",
        if status.ready { "ready" } else { "not ready" },
        status.leaves.len() + status.unheard.len(),
        units::rows(status.leaves.iter().map(|leaf| leaf.rows).sum()),
        units::bytes(status.leaves.iter().map(|leaf| leaf.memory_used_bytes).sum()),
        rate_text(rate),
        completeness(status),
    );
    for note in notes(status).iter().filter(|_| !status.ready) {
        line.push_str(" · ");
        line.push_str(note);
    }
    line.push('\n');
    line
}

/// A leaf that drains serves all its rows.
fn answers(state: &str) -> bool {
    matches!(state, "serving" | "draining")
}

fn rate_text(rate: Option<f64>) -> String {
    match rate {
        None => "? rows/s in".to_owned(),
        Some(rate) => format!("{} rows/s in", units::count(rate.round().max(0.0) as u64)),
    }
}

/// What an answer over everything would cover: rows of leaves that serve, of all rows that must be there.
fn completeness(status: &Status) -> String {
    if !status.unheard.is_empty() {
        return "unknown".to_owned();
    }
    let expected: u64 = status.leaves.iter().map(|leaf| leaf.rows + leaf.rows_lost).sum();
    let covered: u64 = status.leaves.iter().filter(|leaf| answers(&leaf.state)).map(|leaf| leaf.rows).sum();
    percent(covered, expected)
}

/// How many rows came since the last time.
#[derive(Debug, Default)]
struct Rates {
    last: Option<(Instant, HashMap<String, u64>)>,
}

impl Rates {
    /// Rows a second since the last call; a leaf that started anew counts from there.
    fn take(&mut self, status: &Status, now: Instant) -> Option<f64> {
        let taken: HashMap<String, u64> =
            status.leaves.iter().map(|leaf| (leaf.leaf.clone(), leaf.rows_ingested)).collect();
        let (before, known) = self.last.replace((now, taken))?;
        let rows: u64 = status
            .leaves
            .iter()
            .filter_map(|leaf| {
                let known = *known.get(&leaf.leaf)?;
                Some(leaf.rows_ingested.checked_sub(known).unwrap_or(leaf.rows_ingested))
            })
            .sum();
        let seconds = now.duration_since(before).as_secs_f64();
        (seconds > 0.0).then(|| rows as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(leaves: serde_json::Value) -> Status {
        serde_json::from_value(json!({"ready": true, "leaves": leaves})).unwrap()
    }

    #[test]
    fn rates_are_those_of_all_leaves() {
        let mut rates = Rates::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let two = |a: u64, b: u64| {
            status(json!([{"leaf": "a", "rows_ingested": a}, {"leaf": "b", "rows_ingested": b}]))
        };
        assert_eq!(rates.take(&two(10, 20), at(0)), None);
        assert_eq!(rates.take(&two(10, 220), at(2)), Some(100.0));
        // Leaf b was restarted and has taken 4 since.
        assert_eq!(rates.take(&two(12, 4), at(4)), Some(3.0));
        assert_eq!(rate_text(Some(1234.5)), "1,235 rows/s in");
    }

    #[test]
    fn what_is_down_is_missing() {
        let check = |leaves, expect: &str| assert_eq!(completeness(&status(leaves)), expect);
        check(json!([{"leaf": "a", "state": "serving", "rows": 3}]), "100%");
        check(
            json!([{"leaf": "a", "state": "serving", "rows": 3}, {"leaf": "b", "state": "down", "rows": 1}]),
            "75.0%",
        );
        check(json!([{"leaf": "a", "state": "serving", "rows": 3, "rows_lost": 1}]), "75.0%");
        let mut unheard = status(json!([]));
        unheard.unheard = serde_json::from_value(json!([{"leaf": "x"}])).unwrap();
        assert_eq!(completeness(&unheard), "unknown");
    }

    #[test]
    fn the_screen_is_drawn_over() {
        assert_eq!(up(0), "");
        assert_eq!(up(3), "\u{1b}[3A\r\u{1b}[J");
    }
}
