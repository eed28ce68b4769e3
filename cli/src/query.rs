//! `gannet query`: SQL in, an answer out, and with it how complete it is.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gannet_client::{Completeness, QueryOptions, Stats};
use serde::Deserialize;
use serde_json::Value;

use crate::client::{Client, ClientArgs};
use crate::completeness::warning;
use crate::outcome::{Exit, Failure, Outcome};
use crate::render::{self, Style, Table, write_csv, write_ndjson};
use crate::units;

/// Rows that a table shows when nobody says.
const TABLE_ROWS_MAX: usize = 10_000;
/// SQL files longer than the server takes are not read to their end.
const SQL_BYTES_MAX: u64 = 1 << 20;

/// Ask SQL and see how complete the answer is.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet query \"select service, count(*), p99(duration_ms) from requests
                where time > now() - interval '1 hour' group by service order by 2 desc limit 10\"
  gannet query --format csv \"select * from requests order by time desc limit 1000\" > requests.csv
  gannet query -f report.sql
  echo 'show tables' | gannet query -

The last line of a table says how many rows were scanned and how complete the answer is; with other formats it goes \
nowhere but `json`, which holds the whole record. Whenever something is missing, a warning on stderr says what and why. \
Tables round floats to six digits; the other formats are exact.

Exit codes: 0 answered; 1 failed; 2 wrong usage; 3 answered and printed, but less complete than --min-completeness; \
4 no server; 5 no usable answer in time.")]
pub(crate) struct QueryArgs {
    /// The SQL, or `-` to read it from stdin
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    sql: Option<String>,
    /// Read the SQL from a file
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How to print the answer
    #[arg(short = 'F', long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Print at most this many rows [default: 10000 for a table, else all]
    #[arg(long, value_name = "N")]
    max_rows: Option<usize>,
    /// Exit with 3 when less of the rows is covered: 0 to 1, or 0% to 100%
    #[arg(long, value_name = "SHARE", default_value = "0.9", value_parser = units::parse_share)]
    min_completeness: f64,
    #[command(flatten)]
    client: ClientArgs,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns for people
    Table,
    /// The server's whole reply: columns, rows, completeness, statistics
    Json,
    /// One JSON object a row
    Ndjson,
    /// Comma-separated values with a header line
    Csv,
}

#[derive(Debug, Deserialize)]
struct Answer {
    columns: Vec<Column>,
    rows: Vec<Vec<Value>>,
    #[serde(default)]
    completeness: Completeness,
    #[serde(default)]
    stats: Stats,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    #[serde(default, rename = "type")]
    type_name: String,
}

/// Runs `gannet query`.
pub(crate) async fn run(args: QueryArgs) -> Outcome {
    let client = Client::new(&args.client.server)?;
    let sql = read_sql(&args)?;
    let options = QueryOptions { timeout: args.client.timeout, min_completeness: None };
    let body = client.inner().query_json(&sql, &options).await;
    let body = body.map_err(|error| with_excerpt(error.into(), &sql))?;
    let answer: Answer = client.decode(&body)?;

    let mut out = io::BufWriter::new(io::stdout().lock());
    match if args.json { Format::Json } else { args.format } {
        Format::Json => {
            out.write_all(&body)?;
            writeln!(out)?;
        }
        format => print(&mut out, &answer, format, args.max_rows)?,
    }
    out.flush()?;
    drop(out);
    if let Some(warning) = warning(&answer.completeness) {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    Ok(if answer.completeness.reaches(args.min_completeness) { Exit::Done } else { Exit::Incomplete })
}

fn read_sql(args: &QueryArgs) -> Result<String, Failure> {
    let mut sql = String::new();
    match (&args.file, args.sql.as_deref()) {
        (Some(path), _) => {
            std::fs::File::open(path)
                .and_then(|file| file.take(SQL_BYTES_MAX).read_to_string(&mut sql))
                .map_err(|error| Failure::failed(format!("read {}: {error}", path.display())))?;
        }
        (None, Some("-")) => {
            io::stdin()
                .lock()
                .take(SQL_BYTES_MAX)
                .read_to_string(&mut sql)
                .map_err(|error| Failure::failed(format!("read SQL from stdin: {error}")))?;
        }
        (None, Some(text)) => sql.push_str(text),
        (None, None) => {}
    }
    if sql.trim().is_empty() {
        return Err(Failure::usage("the SQL is empty").hint("try: gannet query \"show tables\""));
    }
    Ok(sql)
}

fn print(out: &mut dyn Write, answer: &Answer, format: Format, max_rows: Option<usize>) -> io::Result<()> {
    let limit = max_rows.unwrap_or(if format == Format::Table { TABLE_ROWS_MAX } else { usize::MAX });
    let rows = &answer.rows[..answer.rows.len().min(limit)];
    let names = answer.columns.iter().map(|column| column.name.as_str());
    match format {
        Format::Json => {}
        Format::Csv => write_csv(out, names, rows)?,
        Format::Ndjson => write_ndjson(out, names, rows)?,
        Format::Table => print_table(out, answer, rows, render::style())?,
    }
    Ok(())
}

/// The answer to EXPLAIN: the plan as it is indented, a line a step.
fn print_plan(out: &mut dyn Write, rows: &[Vec<Value>]) -> io::Result<()> {
    for plan in rows.iter().filter_map(|row| row.get(1)).filter_map(Value::as_str) {
        for line in plan.lines() {
            let shown: String = line.chars().filter(|c| !c.is_control()).collect();
            writeln!(out, "{shown}")?;
        }
    }
    Ok(())
}

fn is_plan(answer: &Answer) -> bool {
    let names = answer.columns.iter().map(|column| column.name.as_str());
    names.eq(["plan_type", "plan"])
}

fn print_table(out: &mut dyn Write, answer: &Answer, rows: &[Vec<Value>], style: Style) -> io::Result<()> {
    if is_plan(answer) {
        return print_plan(out, rows);
    }
    let is_number = |index: usize, type_name: &str| {
        matches!(type_name, "int" | "float")
            || rows
                .iter()
                .filter_map(|row| row.get(index))
                .find(|value| !value.is_null())
                .is_some_and(Value::is_number)
    };
    let columns = answer.columns.iter().enumerate();
    let mut table =
        Table::new(columns.map(|(index, column)| (column.name.clone(), is_number(index, &column.type_name))));
    for row in rows {
        table.row(row);
    }
    if !answer.columns.is_empty() {
        table.write(out, style)?;
    }
    writeln!(out, "{}", footer(answer, rows.len()))
}

/// `20 rows · 12 ms · 1,204,331 rows scanned · completeness 100%`.
fn footer(answer: &Answer, shown: usize) -> String {
    let all = answer.rows.len() as u64;
    let rows = if shown as u64 == all {
        units::rows(all)
    } else {
        format!("{} of {} (more with --max-rows N)", units::count(shown as u64), units::rows(all))
    };
    let stats = &answer.stats;
    let sampled = if stats.represented_events == stats.stored_rows {
        String::new()
    } else {
        format!(
            " · {} stand for {} events",
            units::rows(stats.stored_rows),
            units::count(stats.represented_events)
        )
    };
    format!(
        "{rows} · {} · {} scanned{sampled} · completeness {}",
        units::seconds(stats.elapsed_ms / 1000.0),
        units::rows(stats.rows_scanned),
        answer.completeness.percent()
    )
}

/// Adds the line of SQL that the failure points to, with a caret below the place.
fn with_excerpt(mut failure: Failure, sql: &str) -> Failure {
    if let Some((line, column)) = failure.position {
        failure.excerpt = excerpt(sql, line as usize, column as usize);
    }
    failure
}

/// Characters that are shown on either side of the place.
const EXCERPT_CONTEXT: usize = 70;

fn excerpt(sql: &str, line: usize, column: usize) -> Option<String> {
    let text: Vec<char> = sql.lines().nth(line.checked_sub(1)?)?.chars().collect();
    // One past the end is where something is missing.
    let at = column.checked_sub(1).filter(|at| *at <= text.len())?;
    let first = at.saturating_sub(EXCERPT_CONTEXT);
    let shown: String = text.iter().skip(first).take(2 * EXCERPT_CONTEXT).collect();
    let before: String = text[first..at].iter().map(|c| if *c == '\t' { '\t' } else { ' ' }).collect();
    let label = format!("line {line}: ");
    Some(format!("{label}{shown}\n{}{before}^", " ".repeat(label.len())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(rows: Value) -> Answer {
        serde_json::from_value(json!({
            "columns": [{"name": "service", "type": "string"}, {"name": "n", "type": "int"}],
            "rows": rows,
            "completeness": {"ratio": 1.0, "rows_covered": 10, "rows_expected": 10, "leaves_asked": 2,
                "leaves_answered": 2, "missing": []},
            "stats": {"elapsed_ms": 12.2, "rows_scanned": 1_204_331, "blocks_scanned": 3},
        }))
        .unwrap()
    }

    fn printed(answer: &Answer, format: Format, max_rows: Option<usize>) -> String {
        let mut out = Vec::new();
        print(&mut out, answer, format, max_rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_plan_is_printed_as_it_is_indented() {
        let plan = serde_json::from_value(json!({
            "columns": [{"name": "plan_type", "type": "string"}, {"name": "plan", "type": "string"}],
            "rows": [["physical_plan", "Sort\n  Gannet\n"]],
            "completeness": {"ratio": 1.0, "rows_covered": 0, "rows_expected": 0, "leaves_asked": 0,
                "leaves_answered": 0, "missing": []},
            "stats": {"elapsed_ms": 1.0, "rows_scanned": 0, "blocks_scanned": 0},
        }));
        assert_eq!(printed(&plan.unwrap(), Format::Table, None), "Sort\n  Gannet\n");
    }

    #[test]
    fn tables_end_with_completeness() {
        let answer = answer(json!([["cart", 12], ["feed", null]]));
        assert_eq!(
            printed(&answer, Format::Table, None),
            " service │  n\n─────────┼────\n cart    │ 12\n feed    │  ∅\n\
             2 rows · 12 ms · 1,204,331 rows scanned · completeness 100%\n"
        );
        assert_eq!(
            printed(&answer, Format::Table, Some(1)).lines().last(),
            Some("1 of 2 rows (more with --max-rows N) · 12 ms · 1,204,331 rows scanned · completeness 100%")
        );
        let mut sampled = answer;
        (sampled.stats.stored_rows, sampled.stats.represented_events) = (12, 120);
        assert_eq!(
            printed(&sampled, Format::Table, None).lines().last(),
            Some(
                "2 rows · 12 ms · 1,204,331 rows scanned · 12 rows stand for 120 events · completeness 100%"
            )
        );
        let answer = sampled;
        assert_eq!(printed(&answer, Format::Csv, Some(1)), "service,n\ncart,12\n");
        assert_eq!(
            printed(&answer, Format::Ndjson, None),
            "{\"service\":\"cart\",\"n\":12}\n{\"service\":\"feed\",\"n\":null}\n"
        );
    }

    #[test]
    fn errors_point_at_their_place() {
        let check = |sql: &str, line, column, expect: Option<&str>| {
            assert_eq!(excerpt(sql, line, column).as_deref(), expect, "{sql:?} {line}:{column}");
        };
        check("select duraton_ms", 1, 8, Some("line 1: select duraton_ms\n               ^"));
        check("select\n\tx", 2, 2, Some("line 2: \tx\n        \t^"));
        check("select", 1, 7, Some("line 1: select\n              ^"));
        check("select", 1, 8, None);
        check("select", 0, 1, None);
        check("select", 1, 0, None);
        check("select", 2, 1, None);
        let long = excerpt(&"x".repeat(10_000), 1, 5_000).unwrap();
        assert_eq!(long.lines().map(|line| line.chars().count()).collect::<Vec<_>>(), [148, 79]);
    }
}
