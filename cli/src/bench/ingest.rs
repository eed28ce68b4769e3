//! `gannet bench ingest`: what it costs that acknowledged rows survive.
//!
//! The same batches, made and encoded before any clock runs, go to a fresh leaf process once for each way to keep rows:
//! `process`, `power`, and `power` without `seal_into_shm`. The rounds are interleaved, each begins with another way, and
//! what counts is the median of the rounds, so that a machine with other work treats all ways alike. The clock stops at
//! the last acknowledgement. Batches repeat when there are fewer of them than rows asked for; the rows are the bench's
//! own and nobody else's.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Args;
use futures::StreamExt;
use gannet_proto::encode_batches;
use serde::Serialize;

use super::events::{BATCH_ROWS, Events};
use super::folder::Folder;
use super::leaf::Leaf;
use super::load;
use super::rounds::{median, print_json, print_text, until_interrupted};
use crate::outcome::{Failure, Outcome};
use crate::{runtime, units};

/// Bytes of encoded batches that are kept in memory; they repeat after that.
const KEPT_BYTES_MAX: usize = 512 << 20;
/// Bytes a leaf may take for each row, generously.
const ROW_BYTES: u64 = 512;

/// Measure what durability costs: rows a second that a leaf acknowledges
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet bench ingest
  gannet bench ingest --rows 1000000 --batch-rows 5000 --json

Starts a fresh leaf of this binary for each way to keep rows, sends it the same batches over gRPC, and measures rows from \
the first batch to the last acknowledgement, sealing included:
  process          durability = \"process\": rows survive the end of the process
  power            durability = \"power\", the default: they survive a power failure too
  power, in heap   the same with seal_into_shm = false
The ways take turns, and what is shown is the median of the rounds with the least and the most, and the share of `process`.
Everything it writes is in a directory that is removed at the end; what `power` costs depends on the disk it is on.

Exit codes: 0 measured; 1 it failed; 130 interrupted.")]
pub(crate) struct IngestArgs {
    /// Rows to send in each round, to each leaf
    #[arg(long, value_name = "N", default_value_t = 4_000_000, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000))]
    rows: u64,
    /// Rows of a batch
    #[arg(long, value_name = "N", default_value_t = BATCH_ROWS, value_parser = clap::value_parser!(u64).range(1..=BATCH_ROWS))]
    batch_rows: u64,
    /// Batches on their way at once
    #[arg(long, value_name = "N", default_value_t = load::IN_FLIGHT as u64, value_parser = clap::value_parser!(u64).range(1..=64))]
    senders: u64,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Write everything as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Where the leaves' files go, in a directory that is removed at the end [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A way to keep rows: its name, and the settings that choose it.
const WAYS: [(&str, &str); 3] = [
    ("process", "durability = \"process\"\n"),
    ("power", "durability = \"power\"\n"),
    ("power, in heap", "durability = \"power\"\nseal_into_shm = false\n"),
];

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    processors: usize,
    rows: u64,
    batch_rows: u64,
    senders: u64,
    ways: Vec<Way>,
}

#[derive(Debug, Serialize)]
struct Way {
    name: &'static str,
    /// What the leaf said that acknowledged rows survive.
    durability: String,
    /// Rows a second of each round.
    rows_per_second: Vec<f64>,
    median: f64,
    /// The median as a share of that of `process`.
    share_of_process: f64,
}

/// Runs `gannet bench ingest`.
pub(crate) fn run(args: IngestArgs) -> Outcome {
    let report = until_interrupted(runtime::small()?, measure(&args))?;
    if args.json { print_json(&report) } else { print_text(&report.text()) }
}

async fn measure(args: &IngestArgs) -> Result<Report, Failure> {
    let folder = Folder::new(args.dir.as_deref())?;
    let batches = batches(args)?;
    let mut ways: Vec<Way> = WAYS
        .iter()
        .map(|(name, _)| Way {
            name,
            durability: String::new(),
            rows_per_second: Vec::new(),
            median: 0.0,
            share_of_process: 0.0,
        })
        .collect();
    for round in 0..args.rounds as usize {
        for turn in 0..WAYS.len() {
            let which = (round + turn) % WAYS.len();
            let (name, settings) = WAYS[which];
            let path = folder.path().join(format!("{round}-{which}"));
            let (seconds, durability) = fill(&path, settings, &batches, args).await?;
            let rate = args.rows as f64 / seconds;
            eprintln!("round {} of {}: {name}: {} rows/s", round + 1, args.rounds, units::count(rate as u64));
            ways[which].rows_per_second.push(rate);
            ways[which].durability = durability;
        }
    }
    for way in &mut ways {
        way.median = median(&way.rows_per_second);
    }
    let process = ways.first().map_or(0.0, |way| way.median);
    ways.iter_mut().for_each(|way| way.share_of_process = way.median / process.max(1e-9));
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        rows: args.rows,
        batch_rows: args.batch_rows,
        senders: args.senders,
        ways,
    })
}

/// A batch: its rows, and their bytes on the wire.
type Encoded = (u64, Bytes);

/// The batches of one round, in order.
fn batches(args: &IngestArgs) -> Result<Vec<Encoded>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("make events: {error}"));
    let day = Duration::from_secs(24 * 3600);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(day);
    let mut events = Events::new(load::SEED, i64::try_from(since.as_nanos()).unwrap_or(i64::MAX / 2));
    let mut made: Vec<Encoded> = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    while rows < args.rows && bytes < KEPT_BYTES_MAX {
        let batch = events.batch().map_err(|error| failed(&error))?;
        let mut from = 0;
        while from < batch.num_rows() && rows < args.rows {
            let count =
                (args.batch_rows as usize).min(batch.num_rows() - from).min((args.rows - rows) as usize);
            let part = batch.slice(from, count);
            let encoded = encode_batches(&part.schema(), &[part]).map_err(|error| failed(&error))?;
            (rows, bytes, from) = (rows + count as u64, bytes + encoded.len(), from + count);
            made.push((count as u64, encoded));
        }
    }
    let kept = made.len();
    while rows < args.rows {
        let next = made[made.len() % kept].clone();
        rows += next.0;
        made.push(next);
    }
    Ok(made)
}

/// Sends every batch to a fresh leaf; gives back how long that took, and what the leaf says its rows survive.
async fn fill(
    folder: &Path,
    settings: &str,
    batches: &[Encoded],
    args: &IngestArgs,
) -> Result<(f64, String), Failure> {
    let limit = args.rows.saturating_mul(ROW_BYTES).max(4 << 30);
    let mut leaf = Leaf::new(folder, &format!("memory_limit_bytes = {limit}\n{settings}"))?;
    leaf.start()?;
    let connection = load::ready(&mut leaf).await?;
    let started = Instant::now();
    let sent = batches.iter().map(|(_, encoded)| load::append(connection.clone(), Ok((0, encoded.clone()))));
    let mut replies = std::pin::pin!(futures::stream::iter(sent).buffer_unordered(args.senders as usize));
    let (mut rows, mut durability) = (0, String::new());
    while let Some(taken) = replies.next().await {
        let taken = taken?;
        rows += taken.rows;
        durability = taken.durability;
    }
    let seconds = started.elapsed().as_secs_f64();
    let expected: u64 = batches.iter().map(|(rows, _)| rows).sum();
    if rows != expected {
        let (rows, expected) = (units::rows(rows), units::rows(expected));
        return Err(Failure::failed(format!("the leaf acknowledged {rows} of {expected}")));
    }
    leaf.kill().await?;
    drop(leaf);
    std::fs::remove_dir_all(folder)
        .map_err(|error| Failure::failed(format!("remove {}: {error}", folder.display())))?;
    Ok((seconds * args.rows as f64 / expected as f64, durability))
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!(
            "gannet {}, {} processors; {} in batches of {}, {} on their way at once\n\n",
            self.version,
            self.processors,
            units::rows(self.rows),
            units::count(self.batch_rows),
            self.senders
        );
        for way in &self.ways {
            let least = way.rows_per_second.iter().copied().fold(f64::INFINITY, f64::min);
            let most = way.rows_per_second.iter().copied().fold(0.0, f64::max);
            let count = |rate: f64| units::count(rate as u64);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{:<14} {:>10} rows/s ({} to {}), {:.0} % of process",
                way.name,
                count(way.median),
                count(least),
                count(most),
                way.share_of_process * 100.0
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(rows: u64, batch_rows: u64) -> IngestArgs {
        IngestArgs { rows, batch_rows, senders: 3, rounds: 1, json: false, dir: None }
    }

    #[test]
    fn batches_hold_the_rows_asked_for() {
        let check = |rows, batch_rows, expect: &[u64]| {
            let made = batches(&args(rows, batch_rows)).unwrap();
            let counts: Vec<u64> = made.iter().map(|(rows, _)| *rows).collect();
            assert_eq!(counts, expect);
        };
        check(1_000, 65_536, &[1_000]);
        check(70_000, 65_536, &[65_536, 4_464]);
        check(70_000, 40_000, &[40_000, 25_536, 4_464]);
    }

    #[test]
    fn people_read_shares() {
        let way = |name, median: f64, share_of_process| Way {
            name,
            durability: name.to_owned(),
            rows_per_second: vec![median - 10.0, median, median + 10.0],
            median,
            share_of_process,
        };
        let report = Report {
            version: "0.1.0",
            processors: 2,
            rows: 4_000_000,
            batch_rows: 65_536,
            senders: 3,
            ways: vec![way("process", 1_000_000.0, 1.0), way("power", 850_000.0, 0.85)],
        };
        assert_eq!(
            report.text(),
            "gannet 0.1.0, 2 processors; 4,000,000 rows in batches of 65,536, 3 on their way at once\n\n\
             process         1,000,000 rows/s (999,990 to 1,000,010), 100 % of process\n\
             power             850,000 rows/s (849,990 to 850,010), 85 % of process\n"
        );
    }
}
