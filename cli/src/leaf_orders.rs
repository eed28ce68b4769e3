//! `gannet leaf drain`, `undrain` and `stop`: one leaf is told what to do, through its aggregator.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use gannet_client::percent;
use reqwest::Method;
use serde::Deserialize;

use crate::client::ClientArgs;
use crate::outcome::{Exit, Failure, Outcome};
use crate::render::cell_text;
use crate::{confirm, units};

/// How long the aggregator may take when nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// `gannet leaf drain` and `undrain`.
#[derive(Debug, Args)]
pub(crate) struct OrderArgs {
    /// The leaf's id
    leaf: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// `gannet leaf stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reply {
    leaf: String,
    was: String,
    already: bool,
    settled: bool,
    rows: u64,
    rows_of_all: u64,
}

/// Runs `gannet leaf drain`.
pub(crate) async fn drain(args: OrderArgs) -> Outcome {
    let reply = send(&args, "drain", Trial::of(&args)).await?;
    let leaf = cell_text(&reply.leaf);
    say(&if args.dry_run {
        would(&reply, "drained")
    } else if reply.already {
        format!("{leaf}: was draining already")
    } else if reply.settled {
        format!("{leaf}: drains: no new rows go there, queries go on; back with: gannet leaf undrain {leaf}")
    } else {
        format!("{leaf}: drains; a batch is still on its way in, and draining it again waits for it")
    })
}

/// Runs `gannet leaf undrain`.
pub(crate) async fn undrain(args: OrderArgs) -> Outcome {
    let reply = send(&args, "undrain", Trial::of(&args)).await?;
    let leaf = cell_text(&reply.leaf);
    say(&if args.dry_run {
        would(&reply, "undrained")
    } else if reply.already {
        format!("{leaf}: was serving already")
    } else {
        format!("{leaf}: takes rows again")
    })
}

/// Runs `gannet leaf stop`.
pub(crate) async fn stop(StopArgs { order: args, yes }: StopArgs) -> Outcome {
    if args.dry_run || !yes {
        let reply = send(&args, "stop", Trial::Only).await?;
        if args.dry_run {
            return say(&format!("{}; {}", would(&reply, "stopped"), meanwhile(&reply)));
        }
        confirm::ask(&format!(
            "{} holds {}; {}. Stop it?",
            cell_text(&reply.leaf),
            rows(&reply),
            meanwhile(&reply)
        ))?;
    }
    let reply = send(&args, "stop", Trial::InEarnest).await?;
    let leaf = cell_text(&reply.leaf);
    say(&format!("{leaf}: hands its rows over and ends; systemd, Kubernetes or `gannet up` start it again"))
}

/// Whether an order is only tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    Only,
    InEarnest,
}

impl Trial {
    fn of(args: &OrderArgs) -> Trial {
        if args.dry_run { Trial::Only } else { Trial::InEarnest }
    }
}

async fn send(args: &OrderArgs, order: &str, trial: Trial) -> Result<Reply, Failure> {
    let client = args.client.connect()?;
    let timeout = args.client.timeout.unwrap_or(TIMEOUT_DEFAULT);
    let mut request = client.request(Method::POST, &["v1", "leaves", &args.leaf, order]);
    if trial == Trial::Only {
        request = request.query(&[("dry_run", "true")]);
    }
    let response = client.send(request, timeout).await?;
    client.decode(&client.successful_body(response, timeout).await?)
}

fn rows(reply: &Reply) -> String {
    format!("{} of {}", units::count(reply.rows), units::rows(reply.rows_of_all))
}

fn would(reply: &Reply, done: &str) -> String {
    let (leaf, was) = (cell_text(&reply.leaf), cell_text(&reply.was));
    if reply.already {
        return format!("{leaf}: is {was} already");
    }
    format!("{leaf}: would be {done}; it is {was} and holds {}", rows(reply))
}

fn meanwhile(reply: &Reply) -> String {
    let left = reply.rows_of_all.saturating_sub(reply.rows);
    format!("until it is back, answers are {} complete", percent(left, reply.rows_of_all))
}

fn say(line: &str) -> Outcome {
    writeln!(io::stdout(), "{line}")?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stop_costs_is_said() {
        let reply = Reply {
            leaf: "leaf-1".to_owned(),
            was: "serving".to_owned(),
            rows: 250,
            rows_of_all: 1000,
            ..Reply::default()
        };
        assert_eq!(
            would(&reply, "stopped"),
            "leaf-1: would be stopped; it is serving and holds 250 of 1,000 rows"
        );
        assert_eq!(meanwhile(&reply), "until it is back, answers are 75.0% complete");
        let draining = Reply { already: true, was: "draining".to_owned(), ..reply };
        assert_eq!(would(&draining, "drained"), "leaf-1: is draining already");
    }
}
