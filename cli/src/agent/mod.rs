//! `gannet ingest --follow`: an agent that sends the lines of files as they grow, and counts every one once.
//!
//! A thread watches the files ([`watch`], [`follower`]): it follows them through rotation and truncation, cuts whole
//! records into batches ([`lines`]) and turns them into bodies ([`shape`]). A loop ([`run`]) sends them, saves checkpoints
//! ([`state_file`]) and does what a state machine without I/O decides ([`core`]), whose memory is the [`book`]: which
//! range of which file is on its way under which number. Read there how a line is counted once whatever crashes.
//!
//! It never holds more than the [`buffer`] allows, never sends a batch whose intent is not saved, and never drops a line
//! without counting it. Lines it has not sent stay in their files.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod args;
mod bad_lines;
mod batch;
mod book;
mod buffer;
mod core;
mod follower;
mod formats;
mod identity;
mod json_text;
mod lag;
mod lines;
mod logfmt;
mod pattern;
mod remembered;
mod run;
mod shape;
mod state_file;
mod status_line;
mod watch;

pub(crate) use args::FollowArgs;

use self::bad_lines::{DeadLetters, OnError};
use self::book::Book;
use self::buffer::Buffer;
use self::core::Core;
use self::follower::Pace;
use self::formats::Formats;
use self::lines::CutLimits;
use self::remembered::Remembered;
use self::run::Agent;
use self::shape::Shaper;
use self::state_file::{Found, StateFile};
use self::status_line::StatusLine;
use self::watch::{OnFull, ReadFrom, Watch, WatchSettings};
use crate::ingest::post::new_name;
use crate::outcome::{Failure, Outcome};

/// Requests under way at a time: some are read by the server while others wait for its disk, which syncs once for all
/// of them.
const POSTS_MAX: usize = 4;
/// Batches that are held while lines can wait in their files; more would only be memory.
const HELD_AHEAD: u64 = 4 * POSTS_MAX as u64;

/// Where the lines come from and go to, beside the flags of the agent itself.
pub(crate) struct Source {
    /// The server.
    pub(crate) client: gannet_client::Client,
    /// How long one request may take.
    pub(crate) timeout: Duration,
    /// The table.
    pub(crate) table: String,
    /// Names and patterns of files.
    pub(crate) patterns: Vec<String>,
    /// The column that holds the time, when it is not `time`.
    pub(crate) time_field: Option<String>,
    /// Most rows of a batch.
    pub(crate) batch_rows: u64,
    /// Nothing is written but warnings.
    pub(crate) is_quiet: bool,
}

/// Runs the agent.
pub(crate) async fn run(args: FollowArgs, source: Source) -> Outcome {
    gannet_aggregator::ingest::check_table_name(&source.table)
        .map_err(|failure| Failure::usage(failure.message))?;
    for pattern in &source.patterns {
        if pattern == "-" {
            return Err(Failure::usage("stdin cannot be followed: it cannot be read again after a crash")
                .hint("pipe it into `gannet ingest TABLE -`, or write it to a file and follow that"));
        }
        glob::Pattern::new(pattern)
            .map_err(|error| Failure::usage(format!("pattern `{pattern}` is none: {error}")))?;
    }
    let shape = args.shape(source.time_field.as_deref());
    Shaper::new(shape.clone()).map_err(Failure::usage)?;
    let (state, found) = StateFile::open(&args.state_path(&source.table)?)?;
    let mut line = StatusLine::new(&source.table, args.status_interval, source.is_quiet);
    let book = begin(found, &source.table, args.read_from, state.path(), &mut line)?;
    let dead_letters = match &args.on_error {
        OnError::DeadLetter(path) => Some(DeadLetters::open(path)?),
        _ => None,
    };
    let buffer = Buffer::new(match args.on_full {
        OnFull::Block => args.buffer_bytes.min(HELD_AHEAD * args.batch_bytes),
        OnFull::DropNewest | OnFull::DropOldest => args.buffer_bytes,
    });
    let bytes = usize::try_from(args.batch_bytes).unwrap_or(usize::MAX);
    let limits = CutLimits { records: source.batch_rows, bytes };
    let settings = WatchSettings {
        patterns: source.patterns,
        read_from: args.read_from,
        on_full: args.on_full,
        pace: Pace { limits, delay: args.batch_delay },
    };
    let remembered = Remembered::of(&book)
        .map_err(|why| Failure::failed(format!("state file {}: {why}", state.path().display())))?;
    let formats = Formats::new(args.format(), shape);
    let watch = Watch::new(settings, formats, Arc::clone(&buffer), remembered, book.next_stream());
    let agent = Agent {
        before: book.totals,
        core: Core::new(book, POSTS_MAX),
        client: source.client,
        state: Arc::new(state),
        buffer,
        line,
        on_error: args.on_error,
        dead_letters,
        timeout: source.timeout,
        shutdown_timeout: args.shutdown_timeout,
        started: Instant::now(),
        told: 0,
    };
    agent.run(watch).await
}

/// The book to go on with.
fn begin(
    found: Found,
    table: &str,
    read_from: ReadFrom,
    path: &Path,
    line: &mut StatusLine,
) -> Result<Book, Failure> {
    let name = || new_name("gannet-agent");
    let mut book = match found {
        Found::Nothing => Book::new(table, name()),
        Found::Book(book) => *book,
        Found::Previous(mut book, why) => {
            line.tell(&format!(
                "warning: state file {}: {why}; going on from the copy before. Lines sent after it are counted twice",
                path.display()
            ));
            book.send_as(name());
            *book
        }
    };
    if book.table != table {
        let message = format!("state file {} is that of table `{}`", path.display(), book.table);
        return Err(Failure::usage(message).hint("name another file with --state-file"));
    }
    if read_from == ReadFrom::Beginning {
        book.begin_anew(name());
    }
    Ok(book)
}
