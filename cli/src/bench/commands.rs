//! `gannet bench cli`: how long a command takes from start to end, which is what people wait for who type one.
//!
//! Each command is a process of this binary whose output nobody reads. They take turns, so that a machine with other work
//! treats all alike, and a first run of each is not counted: the program is then in memory, as it is for who just used it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use clap::Args;
use gannet_client::{Events, PostOptions};
use serde::Serialize;

use super::folder::Folder;
use super::rounds::{Spread, print_json, print_text, until_interrupted};
use super::servers::{Servers, gannet};
use crate::ingest::post::new_producer;
use crate::outcome::{Failure, Outcome};
use crate::runtime;

/// Measure how long commands take from start to end
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet bench cli
  gannet bench cli --rounds 100 --json

Starts a leaf and an aggregator of this binary with a table of a few rows, and measures whole processes:
  version   gannet version, which asks nobody
  query     gannet query \"select count(*) from t\"
  status    gannet status
They take turns, and what is shown is the median of the rounds with the least and the most.

Exit codes: 0 measured; 1 it failed; 130 interrupted.")]
pub(crate) struct CommandsArgs {
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rounds: u64,
    /// Write everything as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Where the server's files go, in a directory that is removed at the end [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The commands: a name, and what is typed; those that ask get the server besides.
const COMMANDS: [(&str, &[&str], bool); 3] = [
    ("version", &["version"], false),
    ("query", &["query", "select count(*) from t"], true),
    ("status", &["status"], true),
];

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    processors: usize,
    commands: Vec<Measured>,
}

#[derive(Debug, Serialize)]
struct Measured {
    name: &'static str,
    milliseconds: Spread,
}

/// Runs `gannet bench cli`.
pub(crate) fn run(args: CommandsArgs) -> Outcome {
    let report = until_interrupted(runtime::small()?, measure(&args))?;
    if args.json { print_json(&report) } else { print_text(&report.text()) }
}

async fn measure(args: &CommandsArgs) -> Result<Report, Failure> {
    let folder = Folder::new(args.dir.as_deref())?;
    let server = Servers::start(folder.path(), 1).await?;
    let rows = Events::ndjson("t", "{\"a\":1}\n{\"a\":2}\n");
    let producer = new_producer("gannet-bench");
    let posted = server.client()?.inner().post(&rows, &producer, &PostOptions::default()).await;
    posted.map_err(|failed| Failure::from(failed.error))?;
    let mut taken: Vec<Vec<f64>> = vec![Vec::new(); COMMANDS.len()];
    for round in 0..=args.rounds {
        for ((name, line, asks), taken) in COMMANDS.iter().zip(&mut taken) {
            let mut command = gannet()?;
            command.args(*line).stdout(Stdio::null()).stderr(Stdio::null());
            if *asks {
                command.args(["--server", &server.url()]);
            }
            let started = Instant::now();
            let status = command.status().await;
            let milliseconds = started.elapsed().as_secs_f64() * 1e3;
            let status = status.map_err(|error| Failure::failed(format!("start gannet {name}: {error}")))?;
            if !status.success() {
                return Err(Failure::failed(format!("gannet {name} ended with {status}")));
            }
            if round > 0 {
                taken.push(milliseconds);
            }
        }
    }
    let commands = COMMANDS.iter().zip(taken);
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        commands: commands
            .map(|((name, ..), taken)| Measured { name, milliseconds: Spread::of(taken) })
            .collect(),
    })
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!("gannet {}, {} processors\n\n", self.version, self.processors);
        for Measured { name, milliseconds } in &self.commands {
            let Spread { median, least, most, .. } = milliseconds;
            text.push_str(&format!("{name:<8} {median:>6.1} ms ({least:.1} to {most:.1})\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_milliseconds() {
        let command = |name, taken| Measured { name, milliseconds: Spread::of(taken) };
        let commands = vec![command("version", vec![8.72, 9.0, 8.5]), command("query", vec![14.0])];
        let report = Report { version: "0.1.0", processors: 2, commands };
        assert_eq!(
            report.text(),
            "gannet 0.1.0, 2 processors\n\nversion     8.7 ms (8.5 to 9.0)\nquery      14.0 ms (14.0 to 14.0)\n"
        );
    }
}
