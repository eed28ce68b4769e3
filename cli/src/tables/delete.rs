//! `gannet table delete`: every row of a table goes, after a person said its name twice.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;

use crate::client::ClientArgs;
use crate::outcome::{Exit, Failure, Outcome};
use crate::units;

/// Leaves write what they had not written yet, and remove files.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(150);

/// `gannet table delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The table
    table: String,
    /// The table's name once more
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Deserialize)]
struct Deleted {
    rows: u64,
}

/// Runs it.
pub(super) async fn run(args: &DeleteArgs) -> Outcome {
    let DeleteArgs { table, confirm, client: connection } = args;
    if confirm.as_ref() != Some(table) {
        let hint = format!("its rows are gone for good then; if that is wanted: --confirm={table}");
        return Err(Failure::usage(format!("deleting table `{table}` is not confirmed")).hint(hint));
    }
    let client = connection.connect()?;
    let timeout = connection.timeout.unwrap_or(TIMEOUT_DEFAULT);
    let request = client.request(Method::DELETE, &["v1", "tables", table]).query(&[("confirm", table)]);
    let response = client.send(request, timeout).await?;
    let deleted: Deleted = client.decode(&client.successful_body(response, timeout).await?)?;
    let name: String = table.chars().filter(|c| !c.is_control()).collect();
    writeln!(std::io::stdout(), "{name}: {} deleted", units::rows(deleted.rows))?;
    Ok(Exit::Done)
}
