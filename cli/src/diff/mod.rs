//! `gannet diff`: what is different between some rows and the rest, across all columns.

use std::io::{self, Write};

use clap::Args;

use crate::charts::Chart;
use crate::charts::bars::bar;
use crate::charts::numbers::full;
use crate::client::ClientArgs;
use crate::diff::question::{Question, choose};
use crate::diff::score::{Column, Difference, Value};
use crate::explore::screen::Screen;
use crate::explore::span::instant_text;
use crate::explore::{DrawingArgs, RangeArgs, ask, finish, now};
use crate::outcome::{Exit, Failure, Outcome};
use crate::query::statements::Statement;
use crate::query::{AnswerArgs, print_answers};
use crate::render::{Style, Table, cell_text, fold};

mod question;
mod score;

/// Fewer selected events than this say little about anything.
const SELECTED_MIN: f64 = 30.0;
/// Below this width only differences are shown.
const NARROW: usize = 64;

/// Columns that differ less are much the same on both sides.
const SCORE_MIN: f64 = 0.01;

/// See what is different between some rows and the rest, across all columns
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet diff requests --select 'status >= 500'
  gannet diff requests --select 'duration_ms > 1000' --where \"service = 'checkout'\" --last 6h
  gannet diff requests --select \"time > now() - interval '10 minutes'\" --last 2h
  gannet diff requests --select \"build = '118'\" --against \"build = '117'\"

For every column, the share of each value among the selected rows is compared with its share among the rest; numbers are \
compared by size, lists by what they hold, and NULL is a value. Columns are ranked by their largest difference. Left out \
are columns that the conditions name, and those of which nearly every value is different.

Both sides come from one request. Exit codes are those of gannet query.")]
pub(crate) struct DiffArgs {
    /// The table
    table: String,
    /// Which rows are looked at
    #[arg(long, value_name = "CONDITION")]
    select: String,
    /// Which rows they are compared with [default: all others]
    #[arg(long, value_name = "CONDITION")]
    against: Option<String>,
    /// Only rows for which this is true, on both sides; may be repeated
    #[arg(long = "where", value_name = "CONDITION")]
    filters: Vec<String>,
    #[command(flatten)]
    range: RangeArgs,
    /// How many columns to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// How many values of each column to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    values: usize,
    /// Print the SQL and ask nothing but which columns there are
    #[arg(long)]
    sql: bool,
    #[command(flatten)]
    drawing: DrawingArgs,
    #[command(flatten)]
    answer: AnswerArgs,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs it.
pub(crate) async fn run(args: DiffArgs) -> Outcome {
    let screen = args.drawing.screen(&args.answer, Chart::None, now());
    let (from, to) = args.range.resolve(screen.now, screen.zone).map_err(Failure::usage)?;
    let mut question = Question {
        table: args.table.clone(),
        select: args.select.clone(),
        against: args.against.clone(),
        filters: args.filters.clone(),
        from,
        to,
        columns: Vec::new(),
    };
    question.check().map_err(Failure::usage)?;
    let client = args.client.connect()?;
    let table = client.inner().table(&args.table).await?;
    let conditions: Vec<&str> =
        [&args.select].into_iter().chain(&args.against).chain(&args.filters).map(String::as_str).collect();
    let (columns, left_out) = choose(&table, &conditions);
    if columns.is_empty() {
        return Err(Failure::failed(format!("table {} has no column to compare", args.table)));
    }
    question.columns = columns;
    let statement = Statement { sql: question.sql(), line: 1 };
    if args.sql {
        writeln!(io::stdout(), "{}", statement.sql)?;
        return Ok(Exit::Done);
    }
    if args.answer.format.is_some() || args.answer.json || args.answer.output.is_some() {
        return print_answers(&client, &[statement], &args.answer, Chart::None, args.client.timeout).await;
    }
    let (answer, is_partial) = ask(&client, &statement, &args.answer, &args.client).await?;
    let difference = score::read(&question, &answer)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    args.print(&mut out, &difference, &question, screen)?;
    if !left_out.is_empty() && !args.answer.quiet {
        let named: Vec<String> =
            left_out.iter().map(|(name, why)| format!("{} ({why})", cell_text(name))).collect();
        writeln!(out, "left out: {}", named.join(", "))?;
    }
    finish(&mut out, &answer, is_partial, &args.answer, screen.style)
}

impl DiffArgs {
    fn print(
        &self,
        out: &mut dyn Write,
        difference: &Difference,
        question: &Question,
        screen: Screen,
    ) -> io::Result<()> {
        let (selected, rest) = (full(difference.selected), full(difference.rest));
        let (from, to) = (instant_text(question.from, screen.zone), instant_text(question.to, screen.zone));
        let against = self.against.as_deref().map_or("the rest".to_owned(), cell_text);
        let heading = format!("{} · {from} to {to}", cell_text(&self.table));
        writeln!(out, "{}", fold(&heading, screen.style))?;
        let noun = if difference.selected == 1.0 { "event" } else { "events" };
        writeln!(out, "{selected} {noun} of {} against {rest} of {against}", cell_text(&self.select))?;
        if difference.selected < SELECTED_MIN || difference.rest < SELECTED_MIN {
            return writeln!(out, "fewer than {SELECTED_MIN} events on a side are too few to compare");
        }
        writeln!(out)?;
        let bar_width = if screen.width < 90 { 8 } else { 16 };
        let both = if screen.style.unicode { "▓ more ░ less" } else { "+ more - less" };
        let head = [
            ("column", false),
            ("value", false),
            ("selected", true),
            ("rest", true),
            ("difference", true),
            (both, false),
        ];
        // Where there is no room for all of it, what counts is the difference.
        let shown: &[usize] = if screen.width < NARROW { &[0, 1, 4] } else { &[0, 1, 2, 3, 4, 5] };
        let head = shown.iter().map(|place| head[*place]);
        let mut table = Table::new(head.map(|(name, right)| (name.to_owned(), right)));
        let (different, alike): (Vec<&Column>, Vec<&Column>) =
            difference.columns.iter().partition(|column| column.score >= SCORE_MIN);
        for column in different.iter().take(self.limit) {
            for (index, value) in column.values.iter().take(self.values.max(1)).enumerate() {
                let name = if index == 0 { column.name.clone() } else { String::new() };
                let cells = [
                    Some(name),
                    value.text.clone(),
                    Some(percent(value.selected)),
                    Some(percent(value.rest)),
                    Some(format!("{:+.1}%", value.difference() * 100.0)),
                    Some(bars(value, bar_width, screen.style)),
                ];
                table.row(shown.iter().map(|place| cells[*place].clone()));
            }
        }
        if different.is_empty() {
            writeln!(out, "no column differs by more than {}", percent(SCORE_MIN))?;
        } else {
            table.write(out, Style { width: Some(screen.width), ..screen.style })?;
        }
        let shown = different.len().min(self.limit);
        if shown < different.len() {
            writeln!(out, "{shown} of {} columns (more with --limit N)", different.len())?;
        }
        if !alike.is_empty() {
            let names: Vec<String> = alike.iter().map(|column| cell_text(&column.name)).collect();
            writeln!(out, "much the same: {}", names.join(", "))?;
        }
        Ok(())
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// Both shares in one line: what both have is full, what only the selected have is darker than what only the rest have.
fn bars(value: &Value, width: usize, style: Style) -> String {
    let cells = |share: f64| (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    let (selected, rest) = (cells(value.selected), cells(value.rest));
    let both = bar(selected.min(rest) as f64 / width as f64, width, style.unicode);
    let (more, less) = if style.unicode { ("▓", "░") } else { ("+", "-") };
    let only = if selected > rest { more.repeat(selected - rest) } else { less.repeat(rest - selected) };
    format!("{both}{only}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_both_sides() {
        let check = |selected, rest, expect: &str| {
            assert_eq!(bars(&Value { text: None, selected, rest }, 8, Style::PLAIN), expect);
        };
        check(0.5, 0.25, "██▓▓");
        check(0.25, 0.5, "██░░");
        check(0.0, 1.0, "░░░░░░░░");
        check(0.5, 0.5, "████");
    }
}
