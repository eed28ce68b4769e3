//! `gannet bench agent`: how fast the agent sends a file that it is behind with, and what memory that takes.
//!
//! A file of NDJSON lines is written before any clock runs. Each round, `gannet ingest --follow` of this binary sends it
//! to a leaf below an aggregator, into a table of its own; the clock runs from the start of the agent's process to the
//! moment when a query counts every row. `gannet ingest` of the same file takes its turn, for comparison. Rows are
//! counted again when the agent has ended: a line that is lost or counted twice fails the bench.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{AsArray, types::Int64Type};
use clap::Args;
use gannet_client::QueryOptions;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::process::Child;

use super::events::Events;
use super::folder::Folder;
use super::rounds::{Spread, print_json, print_text, until_interrupted};
use super::servers::{Servers, gannet};
use super::{load, memory};
use crate::client::Client;
use crate::outcome::{Failure, Outcome};
use crate::{runtime, units};

/// Between two looks at how many rows there are.
const PAUSE: Duration = Duration::from_millis(5);
/// A round takes no longer.
const ROUND_MAX: Duration = Duration::from_secs(1_800);

/// Measure the agent: lines a second that it sends into a local leaf, and the memory it takes
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet bench agent
  gannet bench agent --rows 200000 --rounds 1 --json

Writes a file of NDJSON lines of twenty columns, starts a leaf and an aggregator of this binary, and sends it the file:
  agent    gannet ingest --follow, until a query counts every row, and the most memory it was in
  ingest   gannet ingest, from its start to its end
Both take turns, and what is shown is the median of the rounds with the least and the most. Server and agent share the \
machine. Everything it writes is in a directory that is removed at the end.

Exit codes: 0 measured; 1 it failed; 130 interrupted.")]
pub(crate) struct AgentArgs {
    /// Lines of the file
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    rows: u64,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Write everything as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Where the files go, in a directory that is removed at the end [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    processors: usize,
    rows: u64,
    bytes: u64,
    /// Rows a second of `gannet ingest --follow`.
    agent: Spread,
    /// Bytes that its process was in at most, over all rounds.
    agent_memory_peak_bytes: u64,
    /// Rows a second of `gannet ingest`.
    ingest: Spread,
}

/// Runs `gannet bench agent`.
pub(crate) fn run(args: AgentArgs) -> Outcome {
    let report = until_interrupted(runtime::small()?, measure(&args))?;
    if args.json { print_json(&report) } else { print_text(&report.text()) }
}

async fn measure(args: &AgentArgs) -> Result<Report, Failure> {
    let folder = Folder::new(args.dir.as_deref())?;
    let file = folder.path().join("events.ndjson");
    let bytes = write_events(&file, args.rows)
        .map_err(|error| Failure::failed(format!("write {}: {error}", file.display())))?;
    let server = Servers::start(folder.path(), 1).await?;
    let (mut agent, mut ingest, mut peak) = (Vec::new(), Vec::new(), 0);
    for round in 1..=args.rounds {
        let run = Run { server: &server, client: server.client()?, file: &file, rows: args.rows, round };
        let (seconds, memory) = run.agent(folder.path()).await?;
        agent.push(args.rows as f64 / seconds);
        peak = peak.max(memory);
        ingest.push(args.rows as f64 / run.ingest().await?);
        let rates = [&agent, &ingest].map(|rates| units::count(rates.last().copied().unwrap_or(0.0) as u64));
        eprintln!("round {round} of {}: agent {} rows/s, ingest {} rows/s", args.rounds, rates[0], rates[1]);
    }
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        rows: args.rows,
        bytes,
        agent: Spread::of(agent),
        agent_memory_peak_bytes: peak,
        ingest: Spread::of(ingest),
    })
}

/// Writes so many lines; gives back how many bytes they take.
fn write_events(path: &Path, rows: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let day = Duration::from_secs(24 * 3600);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(day);
    let mut events = Events::new(load::SEED, i64::try_from(since.as_nanos()).unwrap_or(i64::MAX / 2));
    let mut out = BufWriter::new(File::create(path)?);
    let mut left = rows;
    while left > 0 {
        let batch = events.batch()?;
        let batch = batch.slice(0, batch.num_rows().min(usize::try_from(left).unwrap_or(usize::MAX)));
        left -= batch.num_rows() as u64;
        arrow::json::LineDelimitedWriter::new(&mut out).write(&batch)?;
    }
    out.flush()?;
    Ok(out.into_inner()?.metadata()?.len())
}

/// One round.
struct Run<'a> {
    server: &'a Servers,
    client: Client,
    file: &'a Path,
    rows: u64,
    round: u64,
}

impl Run<'_> {
    /// Seconds that the agent took, and the most memory it was in.
    async fn agent(&self, folder: &Path) -> Result<(f64, u64), Failure> {
        let table = format!("agent_{}", self.round);
        let state = folder.join(format!("{table}.state"));
        let started = Instant::now();
        let mut process = self.started(
            gannet()?
                .args(["ingest", &table, "--follow", "--read-from", "beginning", "--quiet", "--state-file"])
                .arg(state),
        )?;
        while self.count(&table).await < self.rows {
            if let Ok(Some(status)) = process.try_wait() {
                return Err(Failure::failed(format!("the agent ended by itself with {status}")));
            }
            if started.elapsed() > ROUND_MAX {
                return Err(Failure::failed(format!("the agent takes more than {} s", ROUND_MAX.as_secs())));
            }
            tokio::time::sleep(PAUSE).await;
        }
        let seconds = started.elapsed().as_secs_f64();
        let peak = process.id().and_then(memory::peak_bytes).unwrap_or(0);
        signal(&process, Signal::TERM)?;
        ended(process, "the agent").await?;
        self.check(&table).await?;
        Ok((seconds, peak))
    }

    /// Seconds that it took without following.
    async fn ingest(&self) -> Result<f64, Failure> {
        let table = format!("ingest_{}", self.round);
        let started = Instant::now();
        ended(self.started(gannet()?.args(["ingest", &table, "--quiet"]))?, "gannet ingest").await?;
        let seconds = started.elapsed().as_secs_f64();
        self.check(&table).await?;
        Ok(seconds)
    }

    fn started(&self, command: &mut tokio::process::Command) -> Result<Child, Failure> {
        command
            .args(["--server", &self.server.url()])
            .arg(self.file)
            .spawn()
            .map_err(|error| Failure::failed(format!("start gannet ingest: {error}")))
    }

    /// The rows of a table; none before the first.
    async fn count(&self, table: &str) -> u64 {
        let sql = format!("select count(*) from {table}");
        let Ok(answer) = self.client.inner().query(&sql, &QueryOptions::default()).await else { return 0 };
        let count = answer.batches.first().and_then(|batch| batch.columns().first());
        let count = count.and_then(|column| column.as_primitive_opt::<Int64Type>()?.values().first());
        count.and_then(|count| u64::try_from(*count).ok()).unwrap_or(0)
    }

    async fn check(&self, table: &str) -> Result<(), Failure> {
        let (found, wanted) = (self.count(table).await, self.rows);
        if found == wanted {
            return Ok(());
        }
        let (found, wanted) = (units::count(found), units::rows(wanted));
        Err(Failure::failed(format!("table {table} holds {found} of {wanted}")))
    }
}

async fn ended(mut process: Child, what: &str) -> Result<(), Failure> {
    let status =
        process.wait().await.map_err(|error| Failure::failed(format!("wait for {what}: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::failed(format!("{what} ended with {status}"))) }
}

impl Report {
    fn text(&self) -> String {
        format!(
            "gannet {}, {} processors; {} of NDJSON, {} bytes each\n\n\
             agent    {}, at most {} of memory\n\
             ingest   {}\n",
            self.version,
            self.processors,
            units::rows(self.rows),
            self.bytes / self.rows.max(1),
            self.agent.text("rows/s"),
            units::bytes(self.agent_memory_peak_bytes),
            self.ingest.text("rows/s"),
        )
    }
}

/// Sends a signal to a process of the bench.
fn signal(process: &Child, signal: Signal) -> Result<(), Failure> {
    let raw = process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let pid = raw.ok_or_else(|| Failure::failed("signal a process: it has ended"))?;
    kill_process(pid, signal).map_err(|error| Failure::failed(format!("signal a process: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_many_as_were_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.ndjson");
        let bytes = write_events(&path, 1_234).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!((text.lines().count(), text.len() as u64), (1_234, bytes));
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["n"], 0);
    }

    #[test]
    fn people_read_rates() {
        let report = Report {
            version: "0.1.0",
            processors: 2,
            rows: 1_000_000,
            bytes: 485_000_321,
            agent: Spread::of(vec![310_000.0, 300_000.0, 305_000.0]),
            agent_memory_peak_bytes: 63 << 20,
            ingest: Spread::of(vec![436_000.0]),
        };
        assert_eq!(
            report.text(),
            "gannet 0.1.0, 2 processors; 1,000,000 rows of NDJSON, 485 bytes each\n\n\
             agent    305,000 rows/s (300,000 to 310,000), at most 66.1 MB of memory\n\
             ingest   436,000 rows/s (436,000 to 436,000)\n"
        );
    }
}
