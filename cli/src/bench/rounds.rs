//! What all benches do: run until they are interrupted, take the median of their rounds, print what they found.

use std::future::Future;
use std::io::Write;

use serde::Serialize;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::outcome::{Exit, Failure, Outcome};
use crate::units;

/// What the rounds gave.
#[derive(Debug, Serialize)]
pub(super) struct Spread {
    /// Each round, in order.
    pub(super) rounds: Vec<f64>,
    /// The median of them.
    pub(super) median: f64,
    /// The least.
    pub(super) least: f64,
    /// The most.
    pub(super) most: f64,
}

impl Spread {
    /// Of these rounds.
    pub(super) fn of(rounds: Vec<f64>) -> Spread {
        let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rounds.iter().copied().fold(0.0, f64::max);
        Spread { median: median(&rounds), least, most, rounds }
    }

    /// In whole numbers of a unit, for people.
    pub(super) fn text(&self, unit: &str) -> String {
        let [median, least, most] =
            [self.median, self.least, self.most].map(|value| units::count(value as u64));
        format!("{median} {unit} ({least} to {most})")
    }
}

/// The middle of the values, or between the two in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// Runs a bench until it ends or a signal asks it to; what it started goes with it.
pub(super) fn until_interrupted<T>(
    runtime: Runtime,
    bench: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            report = bench => report,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted")),
            _ = terminate.recv() => Err(Failure::new(Exit::Interrupted, "interrupted")),
        }
    })
}

/// Prints a report for programs.
pub(super) fn print_json(report: &impl Serialize) -> Outcome {
    let json = serde_json::to_string_pretty(report)
        .map_err(|error| Failure::failed(format!("write the report as JSON: {error}")))?;
    print_text(&(json + "\n"))
}

/// Prints a report for people.
pub(super) fn print_text(text: &str) -> Outcome {
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let check = |values: &[f64], expect: f64| assert_eq!(median(values), expect);
        check(&[3.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 2.0, 3.0], 2.5);
        check(&[], 0.0);
        assert_eq!(
            Spread::of(vec![3_000.0, 1_000.0, 2_000.4]).text("rows/s"),
            "2,000 rows/s (1,000 to 3,000)"
        );
    }
}
