//! `gannet table`: which tables there are, and which columns a table has.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use gannet_client::TableDescription;
use serde::Deserialize;

use crate::client::{Client, ClientArgs};
use crate::outcome::{Exit, Outcome};
use crate::render::{self, Table};
use crate::units;

/// How long the aggregator may take when nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// What to do with tables.
#[derive(Debug, Subcommand)]
pub(crate) enum TableCommand {
    /// List the tables with their rows, memory and times
    #[command(after_long_help = "\
Example:
  gannet table list

There is nothing to create: a table exists from its first row.")]
    List(ListArgs),
    /// List the columns of a table
    #[command(after_long_help = "\
Example:
  gannet table describe requests

`null` is the share of rows without a value, `distinct` an estimate of how many different values there are. A column may \
change its type; the one shown holds every value there is.")]
    Describe(DescribeArgs),
}

/// `gannet table list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print the server's whole reply
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `gannet table describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The table
    table: String,
    /// Print the server's whole reply
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Deserialize)]
struct Tables {
    tables: Vec<gannet_client::Table>,
}

/// Runs it.
pub(crate) async fn run(command: TableCommand) -> Outcome {
    let (segments, json, args) = match &command {
        TableCommand::List(list) => (vec!["v1", "tables"], list.json, &list.client),
        TableCommand::Describe(describe) => {
            (vec!["v1", "tables", describe.table.as_str()], describe.json, &describe.client)
        }
    };
    let client = Client::new(&args.server)?;
    let body = client.get_bytes(&segments, args.timeout.unwrap_or(TIMEOUT_DEFAULT)).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match command {
        _ if json => {
            out.write_all(&body)?;
            writeln!(out)?;
        }
        TableCommand::List(_) => print_list(&mut out, &client.decode(&body)?)?,
        TableCommand::Describe(_) => print_described(&mut out, &client.decode(&body)?)?,
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn print_list(out: &mut dyn Write, tables: &Tables) -> io::Result<()> {
    let columns = [
        ("table", false),
        ("rows", true),
        ("memory", true),
        ("columns", true),
        ("oldest", false),
        ("newest", false),
    ];
    let mut shown = Table::new(columns.map(|(name, right)| (name.to_owned(), right)));
    for table in &tables.tables {
        shown.text_row([
            table.name.clone(),
            units::count(table.rows),
            units::bytes(table.bytes),
            units::count(table.columns),
            table.time_min.clone().unwrap_or_default(),
            table.time_max.clone().unwrap_or_default(),
        ]);
    }
    shown.write(out, render::style())?;
    let count = tables.tables.len();
    match count {
        0 => writeln!(out, "no tables yet: a table exists from its first row"),
        1 => writeln!(out, "1 table"),
        _ => writeln!(out, "{count} tables"),
    }
}

fn print_described(out: &mut dyn Write, table: &TableDescription) -> io::Result<()> {
    let columns = [("column", false), ("type", false), ("null", true), ("distinct", true), ("memory", true)];
    let mut shown = Table::new(columns.map(|(name, right)| (name.to_owned(), right)));
    for column in &table.columns {
        shown.text_row([
            column.name.clone(),
            column.type_name.clone(),
            null_percent(column.null_share),
            units::count(column.distinct_estimate),
            units::bytes(column.bytes),
        ]);
    }
    shown.write(out, render::style())?;
    // A name may hold anything; the renderer made the columns' names harmless, this is the table's.
    let name: String = table.name.chars().filter(|c| !c.is_control()).collect();
    let columns = table.columns.len();
    write!(out, "{name}: {columns} columns · {} · {}", units::rows(table.rows), units::bytes(table.bytes))?;
    match (&table.time_min, &table.time_max) {
        (Some(min), Some(max)) => writeln!(out, " · {min} to {max}"),
        _ => writeln!(out),
    }
}

/// `0%` and `100%` only for exactly none and all.
fn null_percent(share: f64) -> String {
    match share {
        share if share <= 0.0 => "0%".to_owned(),
        share if share >= 1.0 => "100%".to_owned(),
        share => format!("{:.1}%", (share * 100.0).clamp(0.1, 99.9)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_listed() {
        let check = |tables: serde_json::Value, expect: &str| {
            let mut out = Vec::new();
            print_list(&mut out, &serde_json::from_value(tables).unwrap()).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        check(
            json!({"tables": [{"name": "requests", "rows": 1_000_000, "bytes": 61_234_567, "columns": 13,
                "time_min": "2026-11-20T09:00:00Z", "time_max": "2026-11-21T09:00:00Z"}]}),
            " table    │      rows │  memory │ columns │ oldest               │ newest\n\
             ──────────┼───────────┼─────────┼─────────┼──────────────────────┼──────────────────────\n \
             requests │ 1,000,000 │ 61.2 MB │      13 │ 2026-11-20T09:00:00Z │ 2026-11-21T09:00:00Z\n\
             1 table\n",
        );
        check(
            json!({"tables": []}),
            " table │ rows │ memory │ columns │ oldest │ newest\n\
             ───────┼──────┼────────┼─────────┼────────┼────────\n\
             no tables yet: a table exists from its first row\n",
        );
    }

    #[test]
    fn columns_are_described() {
        let table = json!({"name": "t\n", "rows": 10, "bytes": 1200, "time_min": null, "time_max": null, "columns": [
            {"name": "time", "type": "int", "null_share": 0.0, "distinct_estimate": 10, "bytes": 700},
            {"name": "error", "type": "string", "null_share": 0.9999, "distinct_estimate": 1, "bytes": 500},
        ]});
        let mut out = Vec::new();
        print_described(&mut out, &serde_json::from_value(table).unwrap()).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            " column │ type   │  null │ distinct │ memory\n\
             ────────┼────────┼───────┼──────────┼────────\n \
             time   │ int    │    0% │       10 │  700 B\n \
             error  │ string │ 99.9% │        1 │  500 B\n\
             t: 2 columns · 10 rows · 1.2 KB\n"
        );
    }
}
