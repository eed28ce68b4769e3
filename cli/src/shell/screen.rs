//! Answers on the screen: how much of one is shown, and when a pager takes over.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use gannet_client::Answer;

use super::keys::Keys;
use crate::interrupt::Interrupt;
use crate::outcome::Failure;
use crate::query::format::{About, Format, Layout, Printer, footer};
use crate::query::output::Output;
use crate::render::fold;
use crate::units;

/// Rows of an answer that are shown without being asked for.
pub(super) const ROWS_SHOWN: usize = 40;
/// The pager that is used when the environment names none: it leaves short text alone, keeps colours, cuts long lines.
const PAGER: &str = "less -FIRX -S";

/// An answer that was printed, to be shown again.
#[derive(Debug)]
pub(super) struct Shown {
    /// The answer.
    pub(super) answer: Answer,
    /// It is not the final one.
    pub(super) is_partial: bool,
    /// There were more rows, which nobody kept.
    pub(super) has_more: bool,
    /// The format it was printed in.
    pub(super) format: Format,
}

impl Shown {
    /// The answer as text: the first rows, or all of them.
    pub(super) fn text(&self, layout: Layout, rows: Option<usize>) -> Result<String, Failure> {
        let about = About {
            completeness: &self.answer.completeness,
            stats: self.answer.stats,
            is_partial: self.is_partial,
        };
        let (interrupt, _sender) = Interrupt::by_hand();
        let mut out = Output::in_memory(&interrupt);
        let layout = Layout {
            format: self.format,
            max_rows: Some(rows.unwrap_or(usize::MAX)),
            footer: false,
            ..layout
        };
        let mut printer = Printer::new(layout, &self.answer.schema, about, &mut out)?;
        for batch in &self.answer.batches {
            printer.rows(batch)?;
        }
        let all = self.answer.row_count();
        let shown = rows.map_or(all, |rows| rows.min(all));
        printer.end(all)?;
        if layout.format != Format::Markdown && !self.is_plan() {
            writeln!(out, "{}", fold(&footer(about, all, all), layout.style))?;
        }
        if let Some(note) = self.what_is_left_out(shown, all) {
            writeln!(out, "{note}")?;
        }
        Ok(String::from_utf8_lossy(&out.into_memory()?).into_owned())
    }

    fn is_plan(&self) -> bool {
        self.answer.schema.fields().iter().map(|field| field.name().as_str()).eq(["plan_type", "plan"])
    }

    fn what_is_left_out(&self, shown: usize, all: usize) -> Option<String> {
        let all_rows = units::rows(all as u64);
        if self.has_more {
            let shown = units::count(shown as u64);
            return Some(format!("({shown} of more than {all_rows}; \\o FILE writes all, or add LIMIT)"));
        }
        (shown < all).then(|| format!("({shown} of {all_rows}; \\last shows all)"))
    }
}

/// Rows and columns of the screen.
pub(super) fn size() -> Option<(usize, usize)> {
    let (width, height) = terminal_size::terminal_size_of(io::stdout())?;
    Some((usize::from(height.0), usize::from(width.0))).filter(|(height, width)| *height > 0 && *width > 0)
}

/// Lines of the screen that a text takes, which may wrap.
fn lines_taken(text: &str, columns: usize) -> usize {
    text.lines().map(|line| crate::render::width(line).div_ceil(columns).max(1)).sum()
}

/// Shows a text, in the pager when it is taller than the screen and that is wanted.
pub(super) fn show(text: &str, is_paged: bool, keys: &Keys) -> Result<(), Failure> {
    if is_paged
        && let Some((rows, columns)) = size()
        && lines_taken(text, columns) >= rows
        && keys.lend(|| page(text))
    {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Shows a text in the pager; false when there is none.
fn page(text: &str) -> bool {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let pager = variable("GANNET_PAGER").or_else(|| variable("PAGER")).unwrap_or_else(|| PAGER.to_owned());
    let started = Command::new("sh").args(["-c", &pager]).stdin(Stdio::piped()).spawn();
    let Ok(mut child) = started else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // Who leaves the pager early has seen enough.
        let _ = stdin.write_all(text.as_bytes());
    }
    // The codes of a shell for a program that is not there or cannot be run.
    child.wait().is_ok_and(|status| !matches!(status.code(), Some(126 | 127)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use gannet_client::{Completeness, Stats};

    use super::*;
    use crate::render::Style;

    fn numbers(rows: i64, has_more: bool) -> Shown {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        let batch = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let completeness =
            Completeness { ratio: Some(1.0), rows_expected: Some(0), ..Completeness::default() };
        let answer =
            Answer { schema: batch.schema(), batches: vec![batch], completeness, stats: Stats::default() };
        Shown { answer, is_partial: false, has_more, format: Format::Table }
    }

    fn text(shown: &Shown, rows: Option<usize>) -> String {
        let layout =
            Layout { format: Format::Csv, zone: None, max_rows: None, style: Style::PLAIN, footer: true };
        shown.text(layout, rows).unwrap()
    }

    #[test]
    fn what_is_left_out_is_said() {
        assert_eq!(
            text(&numbers(3, false), Some(2)),
            " n\n───\n 0\n 1\n3 rows · 0.0 ms · 0 rows scanned · completeness 100%\n(2 of 3 rows; \\last shows all)\n"
        );
        assert_eq!(
            text(&numbers(2, false), Some(2)),
            " n\n───\n 0\n 1\n2 rows · 0.0 ms · 0 rows scanned · completeness 100%\n"
        );
        assert!(
            text(&numbers(2, true), Some(1))
                .ends_with("(1 of more than 2 rows; \\o FILE writes all, or add LIMIT)\n")
        );
        assert_eq!(text(&numbers(50_000, false), None).lines().count(), 50_003);
    }

    #[test]
    fn long_lines_take_more_than_one() {
        assert_eq!(lines_taken("abc\n\nabcdef\n", 3), 4);
        assert_eq!(lines_taken("", 3), 0);
    }
}
