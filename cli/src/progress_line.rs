//! One line on stderr that says how far a query is, redrawn in place and gone at the end.
//!
//! It exists only on a terminal, never in the first tenth of a second, and at most ten times a second after. Its percentage
//! is the completeness that an answer made now would have, so it may end below 100 %.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use gannet_client::Progress;

use crate::render::{Style, cut, width};
use crate::units;

/// Nobody wants to see a line flash by.
const QUIET_FIRST: Duration = Duration::from_millis(100);
/// A line that is redrawn more often cannot be read.
const REDRAW_EVERY: Duration = Duration::from_millis(100);
/// Cells of the bar.
const BAR_WIDTH: usize = 20;
/// The same where little room is left for what is told.
const BAR_WIDTH_NARROW: usize = 6;
/// A terminal that is wide enough for the whole bar.
const WIDE: usize = 70;
/// Back to the first column, and clear to the end of the line.
const CLEAR_LINE: &str = "\r\u{1b}[K";
/// The width of a terminal that does not say its own.
const WIDTH_DEFAULT: usize = 80;

/// When to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Show {
    /// On a terminal
    Auto,
    /// On a terminal, whatever else is said
    On,
    /// Never
    Off,
}

impl Show {
    /// Whether there is a line at all.
    pub(crate) fn is_shown(self, quiet: bool) -> bool {
        let wanted = match self {
            Show::Auto => !quiet && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
            Show::On => true,
            Show::Off => false,
        };
        wanted && io::stderr().is_terminal()
    }
}

/// The line.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    is_shown: bool,
    style: Style,
    begun: Instant,
    drawn: Option<Instant>,
    progress: Option<Progress>,
    rows_written: u64,
}

impl ProgressLine {
    /// A line that begins now.
    pub(crate) fn new(is_shown: bool, style: Style) -> ProgressLine {
        let width = terminal_size::terminal_size_of(io::stderr()).map(|(width, _)| usize::from(width.0));
        let style = Style { width: width.filter(|width| *width > 0), ..style };
        ProgressLine { is_shown, style, begun: Instant::now(), drawn: None, progress: None, rows_written: 0 }
    }

    /// Takes what the server says.
    pub(crate) fn update(&mut self, progress: Progress) {
        self.progress = Some(progress);
        self.draw();
    }

    /// Takes how many rows were written.
    pub(crate) fn written(&mut self, rows: u64) {
        self.rows_written = rows;
        self.draw();
    }

    /// Draws it, if it is time.
    pub(crate) fn draw(&mut self) {
        let now = Instant::now();
        let too_soon = now.duration_since(self.begun) < QUIET_FIRST
            || self.drawn.is_some_and(|drawn| now.duration_since(drawn) < REDRAW_EVERY);
        if !self.is_shown || too_soon {
            return;
        }
        self.drawn = Some(now);
        let elapsed = now.duration_since(self.begun).as_secs_f64();
        let text = text(self.progress.as_ref(), self.rows_written, elapsed, self.style);
        let _ = write!(io::stderr().lock(), "{CLEAR_LINE}{text}");
    }

    /// Takes it away.
    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(io::stderr().lock(), "{CLEAR_LINE}");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.clear();
    }
}

/// ` ▕█████████▏ 84.1%  40/47 leaves  31,000,000 rows  0.22 s  waiting: leaf-12 +6`.
fn text(progress: Option<&Progress>, rows_written: u64, elapsed: f64, style: Style) -> String {
    let mut parts = Vec::new();
    if let Some(Progress { completeness, stats }) = progress {
        let ratio = completeness.ratio.unwrap_or(0.0).clamp(0.0, 1.0);
        let wide = style.width.unwrap_or(WIDTH_DEFAULT) >= WIDE;
        let bar = bar(ratio, if wide { BAR_WIDTH } else { BAR_WIDTH_NARROW }, style);
        parts.push(format!("{bar} {:>6}", completeness.percent()));
        parts.push(format!("{}/{} leaves", completeness.leaves_answered, completeness.leaves_asked));
        if stats.rows_scanned > 0 {
            parts.push(units::rows(stats.rows_scanned));
        }
    }
    if rows_written > 0 {
        parts.push(format!("{} written", units::rows(rows_written)));
    }
    parts.push(units::seconds(elapsed));
    let missing = progress.map_or(&[][..], |progress| &progress.completeness.missing);
    if let Some(first) = missing.first() {
        let leaf: String = first.leaf.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let more = missing.len() - 1;
        parts.push(if more > 0 { format!("waiting: {leaf} +{more}") } else { format!("waiting: {leaf}") });
    }
    let text = format!(" {}", parts.join("  "));
    // A line that wraps could not be taken away.
    let limit = style.width.unwrap_or(WIDTH_DEFAULT).saturating_sub(1);
    if width(&text) > limit { cut(&text, limit, style) } else { text }
}

fn bar(ratio: f64, width: usize, style: Style) -> String {
    let filled = (ratio * width as f64).floor() as usize;
    let (left, full, right) = if style.unicode { ("▕", "█", "▏") } else { ("[", "#", "]") };
    format!("{left}{}{}{right}", full.repeat(filled), " ".repeat(width - filled))
}

#[cfg(test)]
mod tests {
    use gannet_client::{Completeness, Missing, Stats};

    use super::*;

    #[test]
    fn a_line_says_who_is_waited_for() {
        let missing = |leaf: &str| Missing { leaf: leaf.to_owned(), ..Missing::default() };
        let progress = Progress {
            completeness: Completeness {
                ratio: Some(0.5),
                rows_covered: 1,
                rows_expected: Some(2),
                leaves_asked: 4,
                leaves_answered: 2,
                missing: vec![missing("leaf-2"), missing("leaf-3")],
                ..Completeness::default()
            },
            stats: Stats { rows_scanned: 31_000, ..Stats::default() },
        };
        let at = |width| Style { width: Some(width), ..Style::PLAIN };
        assert_eq!(
            text(Some(&progress), 0, 0.22, at(120)),
            " ▕██████████          ▏  50.0%  2/4 leaves  31,000 rows  220 ms  waiting: leaf-2 +1"
        );
        assert_eq!(text(Some(&progress), 0, 0.22, at(40)), " ▕███   ▏  50.0%  2/4 leaves  31,000 r…");
        assert_eq!(
            text(Some(&progress), 0, 0.22, Style { unicode: false, ..at(40) }),
            " [###   ]  50.0%  2/4 leaves  31,000 r~"
        );
        assert_eq!(text(None, 0, 1.5, at(40)), " 1.50 s");
        assert_eq!(text(None, 120_000, 1.5, at(60)), " 120,000 rows written  1.50 s");
    }
}
