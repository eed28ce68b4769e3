//! What the agent says of itself: one line, redrawn on a terminal, else written now and then.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::agent::book::Totals;
use crate::render::{Style, cut, width};
use crate::units;

/// How often the line of a terminal is redrawn.
const REDRAW_EVERY: Duration = Duration::from_millis(500);

/// What the line tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Status {
    /// What became of records since the start.
    pub(crate) totals: Totals,
    /// How long the oldest line waits.
    pub(crate) lag: Duration,
    /// Requests that were sent again.
    pub(crate) retries: u64,
    /// Bytes held, of the limit.
    pub(crate) held: (u64, u64),
}

/// Writes it to stderr. See the module.
#[derive(Debug)]
pub(crate) struct StatusLine {
    table: String,
    every: Duration,
    is_terminal: bool,
    is_quiet: bool,
    is_drawn: bool,
    last: Option<(Duration, u64)>,
}

impl StatusLine {
    /// Of a table; written every so often where it cannot be redrawn.
    pub(crate) fn new(table: &str, every: Duration, is_quiet: bool) -> StatusLine {
        let is_terminal = io::stderr().is_terminal();
        let every = if is_terminal { REDRAW_EVERY } else { every };
        StatusLine { table: table.to_owned(), every, is_terminal, is_quiet, is_drawn: false, last: None }
    }

    /// Whether it is time for it.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        let last = self.last.map_or(Duration::ZERO, |(at, _)| at);
        !self.is_quiet && now.saturating_sub(last) >= self.every
    }

    /// Writes the line.
    pub(crate) fn show(&mut self, status: &Status, now: Duration) {
        let parts = line(&self.table, status, self.last, now);
        self.last = Some((now, status.totals.accepted));
        // A line that wraps could not be taken away.
        let width = terminal_size::terminal_size_of(io::stderr()).map(|(width, _)| usize::from(width.0));
        let text = match width.filter(|width| self.is_terminal && *width > 0) {
            Some(width) => fitted(parts, width - 1),
            None => whole(&parts),
        };
        // Nobody reads stderr: that must not stop the agent.
        let mut out = io::stderr().lock();
        let _ = if self.is_terminal {
            write!(out, "\r\x1b[K{text}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{text}")
        };
        self.is_drawn = self.is_terminal;
    }

    /// Writes the line for the last time, with the rate since the start.
    pub(crate) fn show_last(&mut self, status: &Status, now: Duration) {
        if !self.is_quiet {
            let parts = line(&self.table, status, None, now);
            self.tell(&whole(&parts));
        }
    }

    /// Writes something else, above the line.
    pub(crate) fn tell(&mut self, text: &str) {
        self.erase();
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Takes the line away.
    pub(crate) fn erase(&mut self) {
        if std::mem::take(&mut self.is_drawn) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// Something that the line tells.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    text: String,
    /// It may be left out where there is no room.
    is_dull: bool,
}

fn whole(parts: &[Part]) -> String {
    parts.iter().map(|part| part.text.as_str()).collect::<Vec<_>>().join("  ")
}

/// The line in so many cells.
fn fitted(mut parts: Vec<Part>, limit: usize) -> String {
    while width(&whole(&parts)) > limit
        && let Some(dull) = parts.iter().rposition(|part| part.is_dull)
    {
        parts.remove(dull);
    }
    cut(&whole(&parts), limit, Style { unicode: false, ..Style::PLAIN })
}

fn line(table: &str, status: &Status, last: Option<(Duration, u64)>, now: Duration) -> Vec<Part> {
    let Status { totals, lag, retries, held } = status;
    let (since, before) = last.unwrap_or((Duration::ZERO, 0));
    let seconds = now.saturating_sub(since).as_secs_f64().max(0.001);
    let rate = (totals.accepted.saturating_sub(before) as f64 / seconds) as u64;
    let part = |text: String, is_dull: bool| Part { text, is_dull };
    let count = |name: &str, number: u64| part(format!("{name} {}", units::count(number)), number == 0);
    let mut parts = vec![
        part(table.to_owned(), false),
        part(format!("sent {}", units::count(totals.accepted)), false),
        part(format!("{}/s", units::count(rate)), false),
        part(format!("lag {:.1} s", lag.as_secs_f64()), false),
        count("retry", *retries),
        count("rejected", totals.rejected),
        count("dropped", totals.dropped),
    ];
    if totals.unknown > 0 {
        parts.push(count("unknown", totals.unknown));
    }
    parts.push(part(format!("buffer {}%", (held.0 * 100).div_ceil(held.1.max(1))), true));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_matters() {
        let totals = Totals { accepted: 1_200_000, rejected: 3, dropped: 0, unknown: 0 };
        let lag = Duration::from_millis(840);
        let status = Status { totals, lag, retries: 2, held: (1 << 20, 64 << 20) };
        let second = Duration::from_secs;
        assert_eq!(
            whole(&line("requests", &status, Some((second(10), 1_191_820)), second(12))),
            "requests  sent 1,200,000  4,090/s  lag 0.8 s  retry 2  rejected 3  dropped 0  buffer 2%"
        );
        let status = Status { totals: Totals { unknown: 5, ..totals }, held: (0, 0), ..status };
        assert_eq!(
            whole(&line("t", &status, None, second(1))),
            "t  sent 1,200,000  1,200,000/s  lag 0.8 s  retry 2  rejected 3  dropped 0  unknown 5  buffer 0%"
        );
    }

    #[test]
    fn what_is_dull_gives_way() {
        let totals = Totals { accepted: 1_200_000, rejected: 3, dropped: 0, unknown: 0 };
        let status = Status { totals, lag: Duration::ZERO, retries: 0, held: (1, 2) };
        let check = |limit: usize, expect: &str| {
            assert_eq!(fitted(line("t", &status, None, Duration::from_secs(10)), limit), expect);
        };
        check(83, "t  sent 1,200,000  120,000/s  lag 0.0 s  retry 0  rejected 3  dropped 0  buffer 50%");
        check(79, "t  sent 1,200,000  120,000/s  lag 0.0 s  retry 0  rejected 3  dropped 0");
        check(70, "t  sent 1,200,000  120,000/s  lag 0.0 s  retry 0  rejected 3");
        check(55, "t  sent 1,200,000  120,000/s  lag 0.0 s  rejected 3");
        check(39, "t  sent 1,200,000  120,000/s  lag 0.0 ~");
    }
}
