//! `gannet bench overload`: what becomes of a server that is asked for ten times what it can give.
//!
//! First users who wait for each reply find out how much there is to be had. Then requests arrive on their own, whatever
//! becomes of the ones before: at less than that rate, at ten times that rate, and at the first rate again. Times count
//! from when a request was to arrive. It believes nothing: afterwards every batch is counted, and a refusal that a client
//! cannot act on ends the run as wrong.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::door::Door;
use super::folder::Folder;
use super::rounds::{print_json, print_text, until_interrupted};
use super::servers::{Servers, query};
use crate::outcome::{Failure, Outcome};
use crate::{runtime, units};

mod arrivals;
mod audit;
mod batches;
mod filling;
mod generator;
mod outcome;

use audit::{Audit, audit};
pub(super) use filling::fill;
use generator::{Generator, Phase};
use outcome::{Fate, Kind, Tally, recovery_seconds};

/// What is asked.
const QUESTION: &str = "SELECT service, count(*), avg(ms), max(ms), count(DISTINCT row % 500), \
     count(*) FILTER (WHERE status >= 500) FROM asked GROUP BY service ORDER BY service";
/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
const SEED: u64 = 0x6f76_6572;
/// On a machine on which fewer requests of a kind are done in a phase, phases are twice as long, and so on up to this.
const DONE_MIN: f64 = 8.0;
const LASTS_MAX: Duration = Duration::from_secs(600);

/// Measure what becomes of a server that is asked for ten times what it can give
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet bench overload
  gannet bench overload --load query --times 20 --seconds 10 --json

Starts leaves and an aggregator of this binary in a temporary directory and puts load on them over HTTP, for events, for \
queries, and for both at once:
  warm-up    8 users of each kind who wait for each reply; not counted
  capacity   as these: what there is to be had
  before     requests that arrive on their own, at 70 % of that
  overload   so many times as many as there is to be had
  after      as before, for twice as long
Arrival times are fixed in advance, and times count from them. Queries have one second. At the end every batch is \
counted: acknowledged ones must be there once, refused ones not at all. The load comes from the same machine and takes \
its share of it; so that it is a small one, bodies of batches are sent when the server says that it wants them.

Exit codes: 0 measured; 1 rows are gone or doubled, a reply was one that no client can act on, or it failed; \
130 interrupted.")]
pub(crate) struct OverloadArgs {
    /// What to load it with; once for each
    #[arg(long = "load", value_name = "LOAD", value_enum)]
    loads: Vec<Load>,
    /// How many times as much as there is to be had
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = parse_times)]
    times: f64,
    /// The share of what there is to be had that is asked for before and after; at all of it a queue grows by chance alone
    #[arg(long, value_name = "SHARE", default_value_t = 0.7, value_parser = units::parse_share)]
    normal: f64,
    /// How long each phase lasts, seconds; twice as long, and so on, when hardly anything is done in that time
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Rows of the table that queries are about
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rows: u64,
    /// Rows of a batch of events
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    batch_rows: u64,
    /// Send bodies of batches without asking first (`Expect: 100-continue`) whether they are wanted
    #[arg(long)]
    unasked: bool,
    /// Leaves
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
    leaves: u64,
    /// Write everything as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Where the servers' files go, in a directory that is removed at the end [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What a server is loaded with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
enum Load {
    /// Batches of events
    Ingest,
    /// Queries
    Query,
    /// Both at once
    Both,
}

impl Load {
    fn kinds(self) -> &'static [Kind] {
        match self {
            Load::Ingest => &[Kind::Ingest],
            Load::Query => &[Kind::Query],
            Load::Both => &[Kind::Ingest, Kind::Query],
        }
    }
}

fn parse_times(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (1.0..=100.0).contains(&value) => Ok(value),
        _ => Err(format!("`{text}` must be a number between 1 and 100")),
    }
}

/// Everything that one run found.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    processors: usize,
    leaves: u64,
    rows: u64,
    batch_rows: u64,
    times: f64,
    runs: Vec<Run>,
    /// What must not be.
    problems: Vec<String>,
}

/// One load.
#[derive(Debug, Serialize)]
struct Run {
    load: Load,
    kinds: Vec<OfKind>,
    /// Seconds after the overload until it was as before; absent when that did not come.
    recovery_seconds: Option<f64>,
    /// The most that the generator itself was late, milliseconds.
    lag_ms: f64,
    /// Why the first request without a reply had none.
    broken: Option<String>,
    audit: Audit,
}

/// What became of one kind of requests, phase by phase.
#[derive(Debug, Serialize)]
struct OfKind {
    kind: Kind,
    capacity: Tally,
    before: Tally,
    overload: Tally,
    after: Tally,
    /// What was done under overload as a share of what there was to be had.
    goodput: f64,
    /// The same for each second of processor time that servers and load took: others may use the machine as well.
    goodput_of_cpu: f64,
}

/// Runs `gannet bench overload`.
pub(crate) fn run(args: OverloadArgs) -> Outcome {
    let report = until_interrupted(runtime::large()?, measure(&args))?;
    let done = if args.json { print_json(&report) } else { print_text(&report.text()) }?;
    match report.problems.as_slice() {
        [] => Ok(done),
        problems => Err(Failure::failed(problems.join("; "))),
    }
}

async fn measure(args: &OverloadArgs) -> Result<Report, Failure> {
    raise_file_limit();
    // Dropped last: the servers are in it.
    let folder = Folder::new(args.dir.as_deref())?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        leaves: args.leaves,
        rows: args.rows,
        batch_rows: args.batch_rows,
        times: args.times,
        runs: Vec::new(),
        problems: Vec::new(),
    };
    let all = [Load::Ingest, Load::Query, Load::Both];
    let loads = if args.loads.is_empty() { &all[..] } else { &args.loads };
    for load in loads.iter().copied() {
        let folder = folder.path().join(format!("{}", report.runs.len()));
        std::fs::create_dir(&folder)
            .map_err(|error| Failure::failed(format!("make directory {}: {error}", folder.display())))?;
        let mut servers = Servers::start(&folder, args.leaves as usize).await?;
        let run = one(load, args, &servers, &mut report.problems).await?;
        servers.check()?;
        report.problems.extend(run.audit.problems());
        report.runs.push(run);
    }
    Ok(report)
}

/// Puts one load on fresh servers.
async fn one(
    load: Load,
    args: &OverloadArgs,
    servers: &Servers,
    problems: &mut Vec<String>,
) -> Result<Run, Failure> {
    let door = || Door::new(servers.at());
    eprintln!("{load:?}: filling the table that is asked");
    fill(&door(), args.rows).await?;
    let question = query(QUESTION, PATIENCE);
    let generator = Generator::new(door(), batches::TABLE, args.batch_rows, !args.unasked, question);
    let generator = Arc::new(generator);
    let kinds = load.kinds();
    let (lasts, mut outcomes) = warm_up(load, &generator, Duration::from_secs(args.seconds)).await;
    eprintln!("{load:?}: what there is to be had");
    let cpu_before = servers.cpu_seconds();
    let capacity = generator.closed(kinds, lasts).await;
    let cpu_of_capacity = servers.cpu_seconds() - cpu_before;
    let rates: Vec<_> = kinds.iter().map(|kind| (*kind, tally(&capacity, *kind).done_per_second)).collect();
    if let Some((kind, _)) = rates.iter().find(|(_, rate)| *rate == 0.0) {
        let why = format!("{kind:?}: nothing was done within {} s; give it more --seconds", lasts.as_secs());
        return Err(Failure::failed(why));
    }
    let at = |share: f64| rates.iter().map(|(kind, rate)| (*kind, rate * share)).collect::<Vec<_>>();
    eprintln!("{load:?}: before, overload, after");
    let before = generator.open(&at(args.normal), lasts, SEED).await;
    let cpu_before = servers.cpu_seconds();
    let overload = generator.open(&at(args.times), lasts, SEED + 2).await;
    let cpu_of_overload = servers.cpu_seconds() - cpu_before;
    let after = generator.open(&at(args.normal), 2 * lasts, SEED + 4).await;

    let mut found = Vec::new();
    for kind in kinds.iter().copied() {
        let (capacity, overloaded) = (tally(&capacity, kind), tally(&overload, kind));
        let of_cpu = |tally: &Tally, seconds: f64| tally.done as f64 / seconds.max(1e-2);
        found.push(OfKind {
            kind,
            goodput_of_cpu: of_cpu(&overloaded, cpu_of_overload)
                / of_cpu(&capacity, cpu_of_capacity).max(1e-9),
            goodput: overloaded.done_per_second / capacity.done_per_second.max(1e-9),
            capacity,
            before: tally(&before, kind),
            overload: overloaded,
            after: tally(&after, kind),
        });
    }
    let recovery_seconds = recovery_seconds(&after.outcomes, &before.outcomes);
    let lag_ms = [&before, &overload, &after].iter().map(|phase| phase.lag_ms).fold(0.0, f64::max);
    let phases = [capacity, before, overload, after].map(|phase| phase.outcomes);
    outcomes.extend(phases.concat());
    problems.extend(outcomes.iter().find_map(|outcome| match &outcome.fate {
        Fate::Odd(what) => Some(what.clone()),
        _ => None,
    }));
    let broken = outcomes.iter().find_map(|outcome| match &outcome.fate {
        Fate::Broken(why) => Some(why.clone()),
        _ => None,
    });
    let audit = audit(generator.door(), &outcomes, args.batch_rows).await?;
    Ok(Run { load, kinds: found, recovery_seconds, lag_ms, broken, audit })
}

fn tally(phase: &Phase, kind: Kind) -> Tally {
    Tally::of(&phase.outcomes, kind, phase.lasted)
}

/// The first requests make connections and plans, and rows that came a moment ago are still to be sealed: for a while more
/// can be had than in the long run. Gives back how long phases are to last, at least as long as this, and what became of
/// the requests.
async fn warm_up(
    load: Load,
    generator: &Arc<Generator>,
    mut lasts: Duration,
) -> (Duration, Vec<outcome::Outcome>) {
    let mut outcomes = Vec::new();
    eprintln!("{load:?}: warming up");
    loop {
        let warm = generator.closed(load.kinds(), lasts).await;
        let done = load.kinds().iter().map(|kind| tally(&warm, *kind).done_per_second * lasts.as_secs_f64());
        let fewest = done.fold(f64::INFINITY, f64::min);
        outcomes.extend(warm.outcomes);
        if lasts >= LASTS_MAX || fewest >= DONE_MIN {
            return (lasts, outcomes);
        }
        lasts = (2 * lasts).min(LASTS_MAX);
        eprintln!("{load:?}: hardly anything was done; warming up for {} s", lasts.as_secs());
    }
}

/// Every request that waits has a connection.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!(
            "gannet {}, {} processors, {} leaves; queries about {}, batches of {} events; overload is {} times what there \
             is to be had\n",
            self.version,
            self.processors,
            self.leaves,
            units::rows(self.rows),
            units::count(self.batch_rows),
            self.times
        );
        // Writing to a string cannot fail.
        for run in &self.runs {
            let _ = write!(text, "\n{:?}", run.load);
            let _ = match run.recovery_seconds {
                Some(seconds) => write!(text, ": as before after {seconds:.2} s"),
                None => write!(text, ": not as before by the end"),
            };
            let audit = &run.audit;
            let _ = writeln!(
                text,
                "; {} batches acknowledged, {} lost, {} doubled, {} refused and there; load up to {:.0} ms late",
                units::count(audit.acknowledged),
                audit.lost,
                audit.doubled,
                audit.refused_and_there,
                run.lag_ms
            );
            for of in &run.kinds {
                of.write(&mut text);
            }
            if let Some(why) = &run.broken {
                let _ = writeln!(text, "  the first request without a reply: {why}");
            }
        }
        text
    }
}

impl OfKind {
    fn write(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "  {:?}: {:.0} % of what there is to be had is done under overload, {:.0} % for each second of processor time\n  {:<10} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8}  \
             {:<22} {:<22}",
            self.kind,
            self.goodput * 100.0,
            self.goodput_of_cpu * 100.0,
            "",
            "offered/s",
            "done/s",
            "done",
            "refused",
            "late",
            "broken",
            "done ms p50 p99 max",
            "refused ms p50 p99 max"
        );
        let phases = [
            ("capacity", &self.capacity),
            ("before", &self.before),
            ("overload", &self.overload),
            ("after", &self.after),
        ];
        for (name, tally) in phases {
            let ms = |[p50, p99, max]: [f64; 3]| format!("{p50:.1} {p99:.1} {max:.1}");
            let _ = writeln!(
                text,
                "  {name:<10} {:>9.1} {:>9.1} {:>9} {:>8} {:>8} {:>8}  {:<22} {:<22}",
                tally.offered_per_second,
                tally.done_per_second,
                tally.done,
                tally.refused,
                tally.late,
                tally.broken + tally.unconfirmed + tally.odd,
                ms(tally.done_ms),
                ms(tally.refused_ms)
            );
        }
    }
}
