//! `gannet leaf accept-loss`: a person decides that rows are gone for good.

use std::io::Write;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;

use crate::client::ClientArgs;
use crate::outcome::{Exit, Outcome};
use crate::units;

/// How long the aggregator may take when nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
struct Reply {
    rows: u64,
}

/// Runs it.
pub(crate) async fn run(leaf: &str, args: ClientArgs) -> Outcome {
    let client = args.connect()?;
    let timeout = args.timeout.unwrap_or(TIMEOUT_DEFAULT);
    let request = client.request(Method::POST, &["v1", "leaves", leaf, "accept-loss"]);
    let response = client.send(request, timeout).await?;
    let body = client.successful_body(response, timeout).await?;
    let reply: Reply = client.decode(&body)?;
    writeln!(std::io::stdout(), "{leaf}: {} no longer count as missing", units::rows(reply.rows))?;
    Ok(Exit::Done)
}
