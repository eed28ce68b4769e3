//! `gannet ingest`: files into a table, in pieces, with an account of every row. With `--follow` it is [`crate::agent`].
//!
//! A thread reads and cuts, the runtime posts; at most a few pieces exist at a time. Whatever ends it, the summary says
//! how many rows were accepted, and a failure says which rows of which file it concerns.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use futures::{Stream, StreamExt};
use gannet_client::{PostError, Reply, Rest};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::agent::{self, FollowArgs};
use crate::client::{Client, ClientArgs};
use crate::ingest::cut::{Limits, Piece};
use crate::ingest::post::{Target, new_producer};
use crate::ingest::source::{Format, Reading, Source};
use crate::outcome::{Exit, Failure, Outcome};
use crate::units;

pub(crate) mod columnar;
pub(crate) mod cut;
pub(crate) mod post;
mod source;

/// A body is cut after the row that reaches this.
const PIECE_BYTES: usize = 8 << 20;
/// Rows of a request, unless told otherwise.
const BATCH_ROWS: u64 = 50_000;
/// Rows of a request of the agent, unless told otherwise: rows that are followed should not wait for others.
const FOLLOW_BATCH_ROWS: u64 = 5_000;
/// Pieces that wait for being posted.
const PIECES_WAITING: usize = 2;
/// Pieces that are posted at once, at least: the server reads one while the leaves take the other.
const PIECES_POSTED_MIN: usize = 2;
/// Pieces that are posted at once, at most.
const PIECES_POSTED_MAX: usize = 8;
/// How long one request may take when nobody says.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// How long a server that says "come back" is asked again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rejections that are shown.
const REJECTIONS_SHOWN: usize = 10;
/// A terminal with less columns has no room for a long bar.
const WIDE: u16 = 100;
/// A terminal with less columns has no room for any.
const NARROW: u16 = 70;
/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Load events from files or stdin into a table.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet ingest requests requests.ndjson.gz more.ndjson
  gannet ingest trips trips.csv --time-field pickup_datetime
  gannet ingest trips *.parquet
  journalctl -o json | gannet ingest journal -
  gannet ingest requests --follow '/var/log/app/*.ndjson' --add host=web-1 --on-error dead-letter:bad.ndjson

There is nothing to create first: a table exists from its first row, a column from its first value. Each row needs a \
time in the column `time` (RFC 3339, or a number of seconds, milliseconds, microseconds or nanoseconds); name another \
column with --time-field. Rows without a time get the time of their arrival.

The format is found by the file's name, else by its first bytes; gzip and zstd are found by their first bytes. Files are \
sent in pieces, and rows that cannot be taken are counted and named, while the others go in. Rows are searchable as soon \
as they are acknowledged. A request that breaks off is sent again for two minutes under the same number, so that its rows \
are counted once. When it stays unknown whether they were accepted the ingest ends and says so; a new run is a new sender, \
and sending the same rows again may count some of them twice.

With --follow it is an agent: it sends the lines of files as they grow, follows files that are rotated or truncated, and \
runs until SIGTERM or Ctrl-C. Lines are NDJSON, CSV, logfmt, or plain ones that a pattern takes apart. It keeps what was \
acknowledged, and what is on its way under which number, in the state file, so that every line counts once, also when \
agent or leaf crash and when replies are lost. While the server takes nothing, files lag and nothing is lost, unless \
--on-full says to drop lines; each of them is counted. Lines that are no rows are counted, and go to the file of \
--on-error dead-letter:FILE as JSON objects with error, file, first byte and line. Compressed files are left alone. When a \
log is rotated by copying, name the live file only: a copy is another file. What is rotated twice while the agent is down \
must still have a name that the patterns give (such as 'app.log*').

Exit codes: 0 all rows accepted; 1 failed; 2 wrong usage; 4 no server; 5 timeout; 6 some rows were rejected or dropped, or \
nobody knows of them; 130 interrupted.")]
pub(crate) struct IngestArgs {
    /// The table
    table: String,
    /// Files, or `-` for stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How the files are written [default: by name or first bytes]
    #[arg(short = 'F', long, value_enum)]
    format: Option<Format>,
    /// The column that holds the time of a row [default: time]
    #[arg(long, value_name = "COLUMN")]
    time_field: Option<String>,
    /// Most rows in one request [default: 50000; with --follow 5000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch_rows: Option<u64>,
    /// No progress bar and no summary
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    follow: FollowArgs,
}

/// What the reading thread sends: a piece, or why it ends.
type FromReader = (Arc<Source>, Result<Piece, Failure>);

/// Runs `gannet ingest`.
pub(crate) async fn run(args: IngestArgs) -> Outcome {
    let client = args.client.connect()?;
    let timeout = args.client.timeout.unwrap_or(TIMEOUT_DEFAULT);
    if args.follow.follow {
        return follow(args, client, timeout).await;
    }
    // Nobody should wait through the retries to learn that there is no server.
    client.get_bytes(&["healthz"], timeout).await?;
    let sources: Vec<Source> = args.files.iter().map(|path| source_of(path)).collect();
    let bytes_all = bytes_of(&sources)?;
    let reading = Reading {
        format: args.format,
        limits: Limits { bytes: PIECE_BYTES, rows: args.batch_rows.unwrap_or(BATCH_ROWS) },
        bytes_read: Arc::default(),
    };
    let target = Target {
        client,
        table: args.table,
        time_field: args.time_field,
        timeout,
        patience: PATIENCE,
        producer: new_producer("gannet-ingest"),
    };
    let bar = if args.quiet { ProgressBar::hidden() } else { progress_bar(bytes_all) };
    let bytes_read = Arc::clone(&reading.bytes_read);
    let mut account = Account::new();

    let wanted = Arc::new(AtomicBool::new(true));
    let pieces = spawn_reader(sources, reading, Arc::clone(&wanted));
    let ending = ingest(&target, pieces, &wanted, &mut account, &bar, &bytes_read).await;
    bar.finish_and_clear();
    if !args.quiet || account.rejected > 0 || ending.is_err() {
        // Nobody reads stderr: that must not turn a good ingest into a bad one.
        let _ = io::stderr().lock().write_all(account.summary().as_bytes());
    }
    match ending? {
        Exit::Done if account.rejected > 0 => Ok(Exit::Rejected),
        exit => Ok(exit),
    }
}

/// Follows files instead.
async fn follow(args: IngestArgs, client: Client, timeout: Duration) -> Outcome {
    let patterns = args.files.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let source = agent::Source {
        client: client.inner().clone(),
        timeout,
        table: args.table,
        patterns,
        time_field: args.time_field,
        batch_rows: args.batch_rows.unwrap_or(FOLLOW_BATCH_ROWS),
        is_quiet: args.quiet,
    };
    agent::run(args.follow, source).await
}

fn source_of(path: &Path) -> Source {
    if path.as_os_str() == "-" { Source::Stdin } else { Source::File(path.to_owned()) }
}

/// Bytes of all files, `None` with stdin among them. Looks at every file before the first is read.
fn bytes_of(sources: &[Source]) -> Result<Option<u64>, Failure> {
    let mut bytes = Some(0);
    for source in sources {
        match source {
            Source::Stdin => bytes = None,
            Source::File(path) => {
                let metadata = std::fs::metadata(path)
                    .map_err(|error| Failure::usage(format!("file {}: {error}", path.display())))?;
                bytes = bytes.filter(|_| metadata.is_file()).map(|sum: u64| sum + metadata.len());
            }
        }
    }
    Ok(bytes)
}

fn progress_bar(bytes_all: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let width = terminal_size::terminal_size_of(io::stderr()).map_or(WIDE, |(width, _)| width.0);
    let (bar, template) = match bytes_all {
        Some(bytes) if width < NARROW => (ProgressBar::new(bytes), "{percent:>3}%  {msg}"),
        Some(bytes) if width < WIDE => {
            (ProgressBar::new(bytes), "{bar:10} {percent:>3}%  {decimal_bytes}/{decimal_total_bytes}  {msg}")
        }
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:20} {percent:>3}%  {decimal_bytes}/{decimal_total_bytes}  {msg}  {eta} left",
        ),
        None => (ProgressBar::no_length(), "{spinner}  {decimal_bytes}  {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn spawn_reader(
    sources: Vec<Source>,
    reading: Reading,
    wanted: Arc<AtomicBool>,
) -> mpsc::Receiver<FromReader> {
    let (sender, receiver) = mpsc::channel(PIECES_WAITING);
    // A thread of its own: a read from stdin may never return, and must not keep the runtime from ending.
    std::thread::spawn(move || {
        for source in sources {
            let source = Arc::new(source);
            let send = |message| sender.blocking_send((Arc::clone(&source), message)).is_ok();
            let mut sink = |piece| wanted.load(Ordering::Relaxed) && send(Ok(piece));
            if let Err(failure) = source::read(&source, &reading, &mut sink) {
                send(Err(failure));
                return;
            }
            if !wanted.load(Ordering::Relaxed) {
                return;
            }
        }
    });
    receiver
}

/// Posts what the reader sends until it ends, something fails, or the user interrupts.
async fn ingest(
    target: &Target,
    pieces: mpsc::Receiver<FromReader>,
    wanted: &AtomicBool,
    account: &mut Account,
    bar: &ProgressBar,
    bytes_read: &AtomicU64,
) -> Outcome {
    let mut outcomes = std::pin::pin!(post_all(target, pieces, wanted));
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut ticks = tokio::time::interval(TICK);
    let mut ending = Ok(Exit::Done);
    loop {
        tokio::select! {
            outcome = outcomes.next() => {
                let Some((source, outcome)) = outcome else { return ending };
                if let Err(failure) = account.add(&source, outcome) {
                    // What is on its way is still counted; nothing more is sent, and the first failure is told.
                    wanted.store(false, Ordering::Relaxed);
                    ending = ending.and(Err(failure));
                }
            }
            _ = &mut interrupted => {
                account.interrupted = true;
                return Ok(Exit::Interrupted);
            }
            _ = ticks.tick() => {
                bar.set_position(bytes_read.load(Ordering::Relaxed));
                bar.set_message(account.progress());
            }
        }
    }
}

/// How one piece ended, or why there is none.
struct Posted {
    first_row: u64,
    rows: u64,
    result: Result<Reply, PostError>,
}

fn post_all<'a>(
    target: &'a Target,
    mut pieces: mpsc::Receiver<FromReader>,
    wanted: &'a AtomicBool,
) -> impl Stream<Item = (Arc<Source>, Result<Posted, Failure>)> + 'a {
    futures::stream::poll_fn(move |context| {
        if wanted.load(Ordering::Relaxed) { pieces.poll_recv(context) } else { std::task::Poll::Ready(None) }
    })
    .map(move |(source, piece)| async move {
        match piece {
            Err(failure) => (source, Err(failure)),
            Ok(piece) => {
                let result = target.post(&piece).await;
                (source, Ok(Posted { first_row: piece.first_row, rows: piece.rows, result }))
            }
        }
    })
    .buffered(pieces_posted())
}

/// A server on this machine decodes as many pieces at once as there are cores.
fn pieces_posted() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.clamp(PIECES_POSTED_MIN, PIECES_POSTED_MAX)
}

/// What became of the rows so far.
#[derive(Debug)]
struct Account {
    started: Instant,
    accepted: u64,
    /// Accepted rows that a request had brought before.
    duplicates: u64,
    rejected: u64,
    /// Rows of requests that broke off.
    unknown: u64,
    shown: Vec<String>,
    notes: Vec<String>,
    interrupted: bool,
}

impl Account {
    fn new() -> Account {
        Account {
            started: Instant::now(),
            accepted: 0,
            duplicates: 0,
            rejected: 0,
            unknown: 0,
            shown: Vec::new(),
            notes: Vec::new(),
            interrupted: false,
        }
    }

    fn add(&mut self, source: &Source, outcome: Result<Posted, Failure>) -> Result<(), Failure> {
        let Posted { first_row, rows, result } = outcome?;
        let (failure, rest, reply) = match result {
            Ok(reply) => {
                self.note(source, first_row, reply);
                return Ok(());
            }
            Err(PostError { error, reply, rest }) => (Failure::from(error), rest, reply),
        };
        let accepted = reply.accepted;
        let known = accepted + reply.rejected_all();
        self.note(source, first_row, reply);
        let last_row = first_row + rows.saturating_sub(1);
        let which =
            format!("Rows {} to {} of {source} failed", units::count(first_row), units::count(last_row));
        let fate = match (rest, accepted) {
            (Rest::NotAccepted, 0) => "none of them was accepted".to_owned(),
            (Rest::NotAccepted, some) => format!("{} of them were accepted before that", units::count(some)),
            (Rest::Unknown, 0) => "nobody knows whether they were accepted".to_owned(),
            (Rest::Unknown, some) => {
                format!("{} of them were surely accepted, nobody knows about the others", units::count(some))
            }
        };
        if rest == Rest::Unknown {
            self.unknown += rows.saturating_sub(known);
        }
        let mut failure = failure;
        let said = failure.detail.take().map_or_else(String::new, |detail| format!("{detail}\n"));
        let before = if first_row == 1 { "" } else { "; rows before them are in the summary" };
        Err(failure.detail(format!("{said}{which}, {fate}{before}.")))
    }

    fn note(&mut self, source: &Source, first_row: u64, reply: Reply) {
        self.accepted += reply.accepted;
        self.duplicates += reply.duplicates;
        self.rejected += reply.rejected_all();
        let room = REJECTIONS_SHOWN - self.shown.len();
        self.shown.extend(reply.rejected.into_iter().take(room).map(|rejection| {
            format!("  {source}:{}: {}", first_row.saturating_add(rejection.row), rejection.error)
        }));
        for note in reply.notes {
            // The server speaks to those who write requests themselves.
            let note = note.replace("post with ?time_field=", "use --time-field ");
            if !self.notes.contains(&note) && self.notes.len() < REJECTIONS_SHOWN {
                self.notes.push(note);
            }
        }
    }

    fn rate(&self) -> u64 {
        (self.accepted as f64 / self.started.elapsed().as_secs_f64().max(0.001)) as u64
    }

    fn progress(&self) -> String {
        let rejected = if self.rejected == 0 {
            String::new()
        } else {
            format!(", {} rejected", units::count(self.rejected))
        };
        format!("{}{rejected}  {}/s", units::rows(self.accepted), units::count(self.rate()))
    }

    fn summary(&self) -> String {
        let took = units::seconds(self.started.elapsed().as_secs_f64());
        let mut text = format!(
            "{}accepted {} in {took} ({} rows/s), rejected {}",
            if self.interrupted { "interrupted: " } else { "" },
            units::rows(self.accepted),
            units::count(self.rate()),
            units::count(self.rejected),
        );
        if self.duplicates > 0 {
            let count = units::count(self.duplicates);
            text.push_str(&format!(", sent twice and counted once {count}"));
        }
        if self.unknown > 0 {
            text.push_str(&format!(", unknown {}", units::count(self.unknown)));
        }
        if self.interrupted {
            text.push_str("; what was on its way may have been accepted");
        }
        text.push('\n');
        for line in &self.shown {
            text.push_str(&line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>());
            text.push('\n');
        }
        let more = self.rejected.saturating_sub(self.shown.len() as u64);
        if more > 0 && !self.shown.is_empty() {
            text.push_str(&format!("  and {} more\n", units::count(more)));
        }
        for note in &self.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use gannet_client::{Error, ErrorKind, Rejection};

    use super::*;

    fn posted(first_row: u64, rows: u64, result: Result<Reply, PostError>) -> Result<Posted, Failure> {
        Ok(Posted { first_row, rows, result })
    }

    #[test]
    fn the_account_names_rejected_rows() {
        let mut account = Account::new();
        let source = Source::File("a.ndjson".into());
        let rejected = vec![Rejection { row: 2, error: "not JSON\nat byte 1".to_owned() }];
        let reply =
            Reply { accepted: 9, duplicates: 4, rejected, rejected_count: Some(3), ..Reply::default() };
        account.add(&source, posted(101, 12, Ok(reply))).unwrap();
        let summary = account.summary();
        let mut lines = summary.lines();
        let first = lines.next().unwrap();
        assert!(
            first.starts_with("accepted 9 rows in ")
                && first.ends_with(", rejected 3, sent twice and counted once 4"),
            "{first}"
        );
        assert_eq!(lines.collect::<Vec<_>>(), ["  a.ndjson:103: not JSON at byte 1", "  and 2 more"]);
    }

    #[test]
    fn a_failure_names_its_rows_and_their_fate() {
        let check = |accepted: u64, rest: Rest, fate: &str, unknown: u64| {
            let mut account = Account::new();
            let reply = Reply { accepted, rejected_count: Some(1), ..Reply::default() };
            let failure = PostError { error: Error::new(ErrorKind::Refused, "no room"), reply, rest };
            let failure = account.add(&Source::Stdin, posted(1001, 500, Err(failure))).unwrap_err();
            assert_eq!(
                failure.detail.unwrap(),
                format!("Rows 1,001 to 1,500 of stdin failed, {fate}; rows before them are in the summary.")
            );
            assert_eq!((account.accepted, account.rejected, account.unknown), (accepted, 1, unknown));
        };
        check(0, Rest::NotAccepted, "none of them was accepted", 0);
        check(20, Rest::NotAccepted, "20 of them were accepted before that", 0);
        check(0, Rest::Unknown, "nobody knows whether they were accepted", 499);
        check(20, Rest::Unknown, "20 of them were surely accepted, nobody knows about the others", 479);
    }
}
