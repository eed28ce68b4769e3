//! The demo of `gannet up --demo`: a day of request events for a table that has none yet, then a steady stream.
//!
//! It is a client like any other: it posts Arrow IPC streams over HTTP. It gives up quietly when it cannot go on, and
//! never stands in the way of the server it feeds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use crate::client::Client;
use crate::demo::events::{BACKFILL_NS, Generator, backfill_times};
use crate::ingest::columnar::{ARROW_STREAM, encode};
use crate::ingest::cut::Piece;
use crate::ingest::post::{Target, new_producer};
use crate::outcome::Failure;
use crate::units;
use crate::up::terminal::Terminal;

mod events;

/// Where the events go.
const TABLE: &str = "requests";
/// Events of the last day.
const BACKFILL_ROWS: u64 = 1_000_000;
/// Events in one request of the backfill.
const BATCH_ROWS: usize = 20_000;
/// How often the stream posts, and how many events at a time on average.
const STREAM_EVERY: Duration = Duration::from_millis(250);
const STREAM_ROWS: u64 = 50;
/// How long one request may take, and how long one that is refused for now is tried again.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Where the backfill and the stream begin in the generator's numbers; the same events each time.
const SEED: u64 = 0x6761_6e6e_6574;

/// Runs until it is aborted, or cannot go on.
pub(crate) async fn run(client: Client, terminal: Terminal) {
    match feed(client, &terminal).await {
        Ok(()) => {}
        Err(failure) => {
            terminal.progress("");
            terminal.say(&format!("demo: stopped: {}", failure.message));
        }
    }
}

async fn feed(client: Client, terminal: &Terminal) -> Result<(), Failure> {
    let target = Target {
        client,
        table: TABLE.to_owned(),
        time_field: None,
        timeout: REQUEST_MAX,
        patience: REQUEST_MAX,
        producer: new_producer("gannet-demo"),
    };
    let now = now_ns();
    let held = rows_held(&target.client).await?;
    if held == 0 {
        backfill(&target, now, terminal).await?;
    } else {
        terminal.say(&format!("demo: table {TABLE} has {} already", units::rows(held)));
    }
    let a_second = STREAM_ROWS as f64 / STREAM_EVERY.as_secs_f64();
    terminal.say(&format!("demo: about {a_second} events a second follow until you stop"));
    stream(&target, now, terminal).await
}

/// Rows of the demo's table; none when there is no such table.
async fn rows_held(client: &Client) -> Result<u64, Failure> {
    #[derive(Deserialize)]
    struct Table {
        rows: u64,
    }
    let response = client.send(client.request(Method::GET, &["v1", "tables", TABLE]), REQUEST_MAX).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(0);
    }
    let body = client.successful_body(response, REQUEST_MAX).await?;
    client.decode::<Table>(&body).map(|table| table.rows)
}

/// Posts a day of events that ends now, oldest first.
async fn backfill(target: &Target, now: i64, terminal: &Terminal) -> Result<(), Failure> {
    let (sender, mut batches) = tokio::sync::mpsc::channel(2);
    // Making events takes as long as posting them; the supervisor's thread has other things to do.
    std::thread::spawn(move || {
        let mut generator = Generator::new(SEED, now);
        let times = backfill_times(SEED, now - BACKFILL_NS, now, BACKFILL_ROWS);
        for times in times.chunks(BATCH_ROWS) {
            if sender.blocking_send(generator.batch(times).and_then(|batch| piece(&batch))).is_err() {
                return;
            }
        }
    });
    let mut posted = 0;
    let mut told = 0;
    while let Some(piece) = batches.recv().await {
        let piece = piece.map_err(|error| Failure::failed(format!("make events: {error}")))?;
        let reply = target.post(&piece).await.map_err(|failed| Failure::from(failed.error))?;
        posted += reply.accepted;
        let text = format!(
            "demo: {} of {} events of the last day",
            units::count(posted),
            units::count(BACKFILL_ROWS)
        );
        terminal.progress(&text);
        let quarters = posted * 4 / BACKFILL_ROWS;
        if !terminal.can_redraw() && quarters > told {
            told = quarters;
            terminal.say(&text);
        }
    }
    terminal.progress("");
    terminal.say(&format!("demo: {} events of the last day are in table {TABLE}", units::count(posted)));
    Ok(())
}

/// Posts events of the present, on and on. A request that fails is not repeated; the next ones are new.
async fn stream(target: &Target, since: i64, terminal: &Terminal) -> Result<(), Failure> {
    let mut generator = Generator::new(SEED ^ now_ns().unsigned_abs(), since);
    let mut ticks = tokio::time::interval(STREAM_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut failing = false;
    let mut last = now_ns();
    loop {
        ticks.tick().await;
        let now = now_ns();
        let times = generator.times_between(last, now, STREAM_ROWS);
        last = now;
        let made = generator.batch(&times).and_then(|batch| piece(&batch));
        let made = made.map_err(|error| Failure::failed(format!("make events: {error}")))?;
        match target.post(&made).await {
            Ok(_) => failing = false,
            Err(failed) if !failing => {
                failing = true;
                terminal.say(&format!("demo: events are not taken: {}", failed.error.message));
            }
            Err(_) => {}
        }
    }
}

fn piece(batch: &RecordBatch) -> Result<Piece, arrow::error::ArrowError> {
    let rows = batch.num_rows() as u64;
    Ok(Piece { body: encode(batch)?.into(), content_type: ARROW_STREAM, first_row: 1, rows })
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
