//! `gannet leaf list`: the leaves one by one, with what tells them apart: where they are, and which program they run.
//!
//! How they are doing is `gannet status`.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use gannet_client::Status;

use crate::client::ClientArgs;
use crate::outcome::{Exit, Outcome};
use crate::render::{self, Style, Table};
use crate::units;

/// How long the aggregator may take when nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// `gannet leaf list`.
#[derive(Debug, Args)]
pub(crate) struct LeafListArgs {
    /// Print the server's whole reply
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Runs it.
pub(crate) async fn run(args: LeafListArgs) -> Outcome {
    let client = args.client.connect()?;
    let body = client.get_bytes(&["v1", "status"], args.client.timeout.unwrap_or(TIMEOUT_DEFAULT)).await?;
    let mut out = io::stdout().lock();
    if args.json {
        out.write_all(&body)?;
        writeln!(out)?;
    } else {
        print(&mut out, &client.decode(&body)?, render::style())?;
    }
    Ok(Exit::Done)
}

fn print(out: &mut dyn Write, status: &Status, style: Style) -> io::Result<()> {
    let columns = [
        ("leaf", false),
        ("state", false),
        ("address", false),
        ("version", false),
        ("rows", true),
        ("memory", true),
        ("taken", true),
    ];
    let mut table = Table::new(columns.map(|(name, right)| (name.to_owned(), right)));
    for leaf in &status.leaves {
        table.text_row([
            leaf.leaf.clone(),
            leaf.state.clone(),
            leaf.address.clone(),
            leaf.version.clone(),
            units::count(leaf.rows),
            units::bytes(leaf.memory_used_bytes),
            units::count(leaf.rows_ingested),
        ]);
    }
    for child in &status.unheard {
        let texts = ["?", "never heard of", &child.leaf, "", "", "", ""];
        table.text_row(texts.map(str::to_owned));
    }
    table.write(out, style).map(|_| ())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn leaves_are_listed() {
        let status = serde_json::from_value(json!({
            "ready": false,
            "leaves": [{"leaf": "leaf-0", "state": "serving", "address": "box:7710", "version": "0.1.0",
                "rows": 1234, "memory_used_bytes": 61_234_567, "rows_ingested": 34}],
            "unheard": [{"leaf": "box:7711", "detail": "no answer yet"}],
        }));
        let mut out = Vec::new();
        print(&mut out, &status.unwrap(), Style::PLAIN).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            " leaf   │ state          │ address  │ version │  rows │  memory │ taken\n\
             ────────┼────────────────┼──────────┼─────────┼───────┼─────────┼───────\n \
             leaf-0 │ serving        │ box:7710 │ 0.1.0   │ 1,234 │ 61.2 MB │    34\n \
             ?      │ never heard of │ box:7711 │         │       │         │\n"
        );
    }
}
