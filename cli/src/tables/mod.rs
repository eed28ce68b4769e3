//! `gannet table`: which tables there are, and which columns a table has.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, Subcommand};
use gannet_client::TableDescription;
use serde::Deserialize;

use crate::client::ClientArgs;
use crate::outcome::{Exit, Outcome};
use crate::render::{self, Table};
use crate::units;

mod delete;
pub(crate) mod describe;

/// A terminal of so many columns has room for seconds.
const SECONDS_FROM: usize = 90;
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
    /// List the columns of a table, with their most frequent values
    #[command(after_long_help = "\
Example:
  gannet table describe requests

`null` is the share of rows without a value, `distinct` an estimate of how many different values there are. A column may \
change its type; the one shown holds every value there is. The most frequent values are those of stored rows, of columns with \
at most 10,000 different ones.")]
    Describe(DescribeArgs),
    /// Delete every row of a table, for good
    #[command(after_long_help = "\
Example:
  gannet table delete trips --confirm=trips

Every leaf must be there: one that is away would bring its rows back. What was deleted stays deleted, through restarts and \
crashes; events that arrive afterwards make the table anew. It cannot be undone.")]
    Delete(delete::DeleteArgs),
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
    /// Leave out the most frequent values, which take a question for each column
    #[arg(long)]
    no_values: bool,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Deserialize)]
struct Tables {
    tables: Vec<gannet_client::Table>,
}

/// Runs it.
pub(crate) async fn run(command: TableCommand) -> Outcome {
    if let TableCommand::Describe(DescribeArgs { table, json: false, no_values: false, client }) = &command {
        let client = client.connect()?;
        let text = describe::text(client.inner(), table, render::style()).await?;
        io::stdout().lock().write_all(text.as_bytes())?;
        return Ok(Exit::Done);
    }
    let (segments, json, args) = match &command {
        TableCommand::Delete(args) => return delete::run(args).await,
        TableCommand::List(list) => (vec!["v1", "tables"], list.json, &list.client),
        TableCommand::Describe(describe) => {
            (vec!["v1", "tables", describe.table.as_str()], describe.json, &describe.client)
        }
    };
    let client = args.connect()?;
    let body = client.get_bytes(&segments, args.timeout.unwrap_or(TIMEOUT_DEFAULT)).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match command {
        _ if json => {
            out.write_all(&body)?;
            writeln!(out)?;
        }
        TableCommand::Delete(_) => {}
        TableCommand::List(_) => print_list(&mut out, &client.decode(&body)?)?,
        TableCommand::Describe(_) => {
            let table: TableDescription = client.decode(&body)?;
            out.write_all(describe::described(&table, &[], render::style()).as_bytes())?;
        }
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
    let style = render::style();
    let is_narrow = style.width.is_some_and(|width| width < SECONDS_FROM);
    let time = |text: Option<&str>| {
        let text = units::seconds_only(text);
        match text.get(..16) {
            // `2026-11-21 09:30`: two whole minutes say more than two seconds that are cut.
            Some(minutes) if is_narrow => minutes.replace('T', " "),
            _ => text,
        }
    };
    for table in &tables.tables {
        shown.text_row([
            table.name.clone(),
            units::count(table.rows),
            units::bytes(table.bytes),
            units::count(table.columns),
            time(table.time_min.as_deref()),
            time(table.time_max.as_deref()),
        ]);
    }
    shown.write(out, style)?;
    let count = tables.tables.len();
    match count {
        0 => writeln!(out, "no tables yet: a table exists from its first row"),
        1 => writeln!(out, "1 table"),
        _ => writeln!(out, "{count} tables"),
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
}
