//! `gannet bench stall`: what a leaf process that hangs costs those who ask.
//!
//! One of several leaf processes is stopped by SIGSTOP again and again: its connections stay open and nothing comes out of
//! them. Each answer meanwhile must come by its deadline, say who is missing, and be exactly what it claims to cover; an
//! answer that is not ends the run as wrong.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value as Json;

use super::door::Door;
use super::folder::Folder;
use super::overload::fill;
use super::percentiles::percentile;
use super::rounds::{print_json, print_text, until_interrupted};
use super::servers::{Servers, query};
use crate::outcome::{Failure, Outcome};
use crate::{runtime, units};

const QUESTION: &str = "SELECT service, count(*), avg(ms) FROM asked GROUP BY service";
/// How long answers may miss a leaf that goes on.
const BACK_MAX: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Measure what a leaf process that hangs costs those who ask
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet bench stall
  gannet bench stall --stalls 200 --queries 10 --json

Starts leaves and an aggregator of this binary in a temporary directory. First queries are asked while all leaves are \
well. Then, again and again, one leaf is stopped with SIGSTOP, queries are asked one after the other, and the leaf goes \
on. Milliseconds are shown for queries when all is well, for the first query of each stall, which has to wait for its \
deadline, and for those after it, which should not have to wait at all.

Exit codes: 0 measured; 1 an answer counted other rows than it said it covers, or it failed; 130 interrupted.")]
pub(crate) struct StallArgs {
    /// How often a leaf is stopped
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    stalls: u64,
    /// Queries each time
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(2..=100_000))]
    queries: u64,
    /// The deadline of each query, milliseconds
    #[arg(long, value_name = "N", default_value_t = 1_500, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    timeout_ms: u64,
    /// Rows of the table that queries are about
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rows: u64,
    /// Leaves
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=64))]
    leaves: u64,
    /// Write everything as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Where the servers' files go, in a directory that is removed at the end [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Everything that one run found.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    processors: usize,
    leaves: u64,
    rows: u64,
    timeout_ms: u64,
    /// When all leaves are well.
    well_ms: Times,
    /// The first query of each stall.
    first_ms: Times,
    /// What the first query took beyond its deadline.
    first_over_ms: Times,
    /// Those after it.
    later_ms: Times,
    /// What any query during a stall took beyond its deadline.
    over_ms: Times,
    /// From when the leaf goes on to the end of the first whole answer.
    back_ms: Times,
}

/// How long some things took, milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Times {
    count: usize,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Times {
    fn of(values: &[f64]) -> Times {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share| percentile(&sorted, share);
        Times { count: sorted.len(), p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// Runs `gannet bench stall`.
pub(crate) fn run(args: StallArgs) -> Outcome {
    let report = until_interrupted(runtime::large()?, measure(&args))?;
    if args.json { print_json(&report) } else { print_text(&report.text()) }
}

/// An answer that was checked.
struct Answer {
    took: Duration,
    /// Who is missing.
    missing: Vec<String>,
}

async fn ask(door: &Door, timeout: Duration) -> Result<Answer, Failure> {
    let asked = Instant::now();
    let reply = door.send(&query(QUESTION, timeout)).await;
    let took = asked.elapsed();
    let reply = reply.map_err(|error| Failure::failed(format!("ask: {error}")))?;
    let wrong = || Failure::failed(format!("a wrong answer: {}", String::from_utf8_lossy(&reply.body)));
    let json: Json = serde_json::from_slice(&reply.body).map_err(|_| wrong())?;
    if reply.status != 200 {
        return Err(wrong());
    }
    let counted: u64 = json["rows"].as_array().into_iter().flatten().filter_map(|row| row[1].as_u64()).sum();
    let completeness = &json["completeness"];
    if completeness["rows_covered"].as_u64() != Some(counted) {
        return Err(wrong());
    }
    let missing = completeness["missing"].as_array().into_iter().flatten();
    let missing = missing.filter_map(|one| Some(one["leaf"].as_str()?.to_owned())).collect();
    Ok(Answer { took, missing })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

async fn measure(args: &StallArgs) -> Result<Report, Failure> {
    // Dropped last: the servers are in it.
    let folder = Folder::new(args.dir.as_deref())?;
    let mut servers = Servers::start(folder.path(), args.leaves as usize).await?;
    let door = Door::new(servers.at());
    eprintln!("filling the table that is asked");
    fill(&door, args.rows).await?;
    let timeout = Duration::from_millis(args.timeout_ms);
    let mut well = Vec::new();
    eprintln!("asking while all is well");
    for _ in 0..args.stalls * args.queries {
        well.push(ms(ask(&door, timeout).await?.took));
    }
    let (mut first, mut later, mut back) = (Vec::new(), Vec::new(), Vec::new());
    for stall in 0..args.stalls {
        eprint!("\rstall {} of {}", stall + 1, args.stalls);
        let number = (stall % args.leaves) as usize;
        servers.check()?;
        let Some(leaf) = servers.leaves().get(number) else { continue };
        leaf.signal(Signal::STOP)?;
        leaf.is_stopped().await?;
        for query in 0..args.queries {
            let answer = ask(&door, timeout).await?;
            if answer.missing != [format!("leaf-{number}")] {
                let missing = answer.missing.join(", ");
                return Err(Failure::failed(format!(
                    "leaf-{number} hangs, and an answer misses [{missing}]"
                )));
            }
            if query == 0 { &mut first } else { &mut later }.push(ms(answer.took));
        }
        leaf.signal(Signal::CONT)?;
        let gone_on = Instant::now();
        while !ask(&door, timeout).await?.missing.is_empty() {
            if gone_on.elapsed() > BACK_MAX {
                return Err(Failure::failed(format!("leaf-{number} goes on, and answers still miss it")));
            }
            tokio::time::sleep(PAUSE).await;
        }
        back.push(ms(gone_on.elapsed()));
    }
    eprintln!();
    let over =
        |took: &[f64]| took.iter().map(|ms| (ms - args.timeout_ms as f64).max(0.0)).collect::<Vec<_>>();
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        leaves: args.leaves,
        rows: args.rows,
        timeout_ms: args.timeout_ms,
        well_ms: Times::of(&well),
        first_ms: Times::of(&first),
        first_over_ms: Times::of(&over(&first)),
        later_ms: Times::of(&later),
        over_ms: Times::of(&over(&[first, later].concat())),
        back_ms: Times::of(&back),
    })
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!(
            "gannet {}, {} processors; {} on {} leaves; a deadline of {} ms\n\nmilliseconds {:<32} {:>7} {:>9} {:>9} {:>9} {:>9}\n",
            self.version,
            self.processors,
            units::rows(self.rows),
            self.leaves,
            self.timeout_ms,
            "",
            "queries",
            "p50",
            "p99",
            "p99.9",
            "max"
        );
        for (name, times) in [
            ("all leaves are well", &self.well_ms),
            ("first query of a stall", &self.first_ms),
            ("  beyond its deadline", &self.first_over_ms),
            ("later queries of a stall", &self.later_ms),
            ("any query of a stall, beyond its deadline", &self.over_ms),
            ("until whole again", &self.back_ms),
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name:<45} {:>7} {:>9.2} {:>9.2} {:>9.2} {:>9.2}",
                times.count, times.p50, times.p99, times.p999, times.max
            );
        }
        text
    }
}
