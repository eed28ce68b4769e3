//! `gannet leaf decommission` and `recommission`: a person decides which leaves must exist.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use gannet_client::Status;
use reqwest::Method;
use serde::Deserialize;

use crate::client::ClientArgs;
use crate::outcome::{Exit, Failure, Outcome};
use crate::render::cell_text;
use crate::{confirm, units};

/// How long the aggregator may take when nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// `gannet leaf decommission`.
#[derive(Debug, Args)]
pub(crate) struct DecommissionArgs {
    /// The leaf's id
    leaf: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Take it out although it is up
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `gannet leaf recommission`.
#[derive(Debug, Args)]
pub(crate) struct RecommissionArgs {
    /// The leaf's id
    leaf: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Deserialize)]
struct Reply {
    rows: u64,
}

/// Runs `gannet leaf decommission`.
pub(crate) async fn run(args: DecommissionArgs) -> Outcome {
    let client = args.client.connect()?;
    let timeout = args.client.timeout.unwrap_or(TIMEOUT_DEFAULT);
    if !args.yes {
        let body = client.get_bytes(&["v1", "status"], timeout).await?;
        confirm::ask(&question(&args.leaf, &client.decode(&body)?))?;
    }
    let mut request = client.request(Method::POST, &["v1", "leaves", &args.leaf, "decommission"]);
    request = request.query(&[("confirm", args.leaf.as_str())]);
    if args.force {
        request = request.query(&[("force", "true")]);
    }
    let response = client.send(request, timeout).await?;
    let reply: Reply = client.decode(&client.successful_body(response, timeout).await?)?;
    let (leaf, rows) = (cell_text(&args.leaf), units::rows(reply.rows));
    say(&format!("{leaf}: out of the roster; {rows} no longer expected"))
}

/// Runs `gannet leaf recommission`.
pub(crate) async fn undo(args: RecommissionArgs) -> Outcome {
    let client = args.client.connect()?;
    let timeout = args.client.timeout.unwrap_or(TIMEOUT_DEFAULT);
    let request = client.request(Method::POST, &["v1", "leaves", &args.leaf, "recommission"]);
    let response = client.send(request, timeout).await?;
    client.successful_body(response, timeout).await?;
    let leaf = cell_text(&args.leaf);
    say(&format!("{leaf}: back in the roster; it counts from when it is heard of"))
}

/// What is asked before a leaf is taken out.
fn question(leaf: &str, status: &Status) -> String {
    let all: u64 = status.leaves.iter().map(|leaf| leaf.rows + leaf.rows_lost).sum();
    match status.leaves.iter().find(|known| known.leaf == leaf) {
        Some(known) => format!(
            "{} is {}; {} of {} would no longer be expected. Take it out of the roster?",
            cell_text(leaf),
            cell_text(&known.state),
            units::rows(known.rows + known.rows_lost),
            units::count(all),
        ),
        None => format!("{} is not on the roster. Take it out all the same?", cell_text(leaf)),
    }
}

fn say(text: &str) -> Result<Exit, Failure> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_question_says_how_much_it_is_about() {
        let status: Status = serde_json::from_value(json!({
            "ready": false,
            "leaves": [
                {"leaf": "leaf-0", "state": "serving", "rows": 1_000},
                {"leaf": "leaf-1", "state": "down", "rows": 200, "rows_lost": 34},
            ],
        }))
        .unwrap();
        assert_eq!(
            question("leaf-1", &status),
            "leaf-1 is down; 234 rows of 1,234 would no longer be expected. Take it out of the roster?"
        );
        assert_eq!(question("leaf-9", &status), "leaf-9 is not on the roster. Take it out all the same?");
    }
}
