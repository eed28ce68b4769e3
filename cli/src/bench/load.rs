//! Filling a leaf with so many bytes of events.

use std::cell::Cell;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::StreamExt;
use gannet_proto::encode_batches;
use gannet_query::Holdings;
use serde::Serialize;
use tonic::Code;

use super::events::{Events, TABLE};
use super::leaf::{Connection, Leaf, remainder};
use crate::outcome::Failure;
use crate::units;

/// Batches on their way at once.
pub(super) const IN_FLIGHT: usize = 3;
/// How long a leaf may say "come back".
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two tries, and between two looks at what is held.
const PAUSE: Duration = Duration::from_millis(50);
/// Looks at what is held that have to agree before it counts as settled.
const SAME_LOOKS: u32 = 40;
/// So much of what was asked for is enough: open rows take more than sealed ones.
const ENOUGH_PERCENT: u64 = 97;
/// The same events each time.
pub(super) const SEED: u64 = 0x7265_7374;

/// What was loaded, and how.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Load {
    /// Rows acknowledged.
    pub(super) rows: u64,
    /// The sum of the remainders of their numbers.
    #[serde(skip)]
    pub(super) sum: i64,
    /// Bytes the leaf says they take, once they were sealed.
    pub(super) bytes: u64,
    /// Seconds from the first batch to the last acknowledgement.
    pub(super) seconds: f64,
    /// What the leaf says acknowledged rows survive.
    pub(super) durability: String,
}

/// Loads until the leaf holds so many bytes.
pub(super) async fn fill(leaf: &mut Leaf, bytes: u64) -> Result<Load, Failure> {
    let connection = ready(leaf).await?;
    let day = Duration::from_secs(24 * 3600);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(day);
    let mut events = Events::new(SEED, i64::try_from(since.as_nanos()).unwrap_or(i64::MAX / 2));
    let mut load = Load { rows: 0, sum: 0, bytes: 0, seconds: 0.0, durability: String::new() };
    let started = Instant::now();
    loop {
        events = round(&connection, events, bytes, &mut load).await?;
        load.seconds = started.elapsed().as_secs_f64();
        load.bytes = settled(leaf, connection.clone()).await?;
        if load.bytes >= bytes / 100 * ENOUGH_PERCENT {
            return Ok(load);
        }
    }
}

/// Waits until a leaf that was just started answers.
pub(super) async fn ready(leaf: &mut Leaf) -> Result<Connection, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        leaf.check()?;
        let mut connection = leaf.connection()?;
        match connection.describe().await {
            Ok(_) => return Ok(connection),
            Err(why) if Instant::now() > deadline => {
                return Err(Failure::failed(format!("the leaf does not answer: {why}")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Rows on their way: the number of the first, and all of them encoded.
pub(super) type Made = Result<(u64, Bytes), String>;

/// What a leaf said of one batch.
pub(super) struct Taken {
    first: u64,
    /// Rows it took.
    pub(super) rows: u64,
    /// What the table takes now.
    bytes: u64,
    /// What they survive.
    pub(super) durability: String,
}

/// Sends batches until the leaf says that it holds so many bytes.
async fn round(
    connection: &Connection,
    mut events: Events,
    bytes: u64,
    load: &mut Load,
) -> Result<Events, Failure> {
    let (sender, mut batches) = tokio::sync::mpsc::channel::<Made>(IN_FLIGHT);
    let making = std::thread::spawn(move || {
        loop {
            let first = events.rows();
            let made = events.batch().map_err(|error| error.to_string()).and_then(|batch| {
                let encoded = encode_batches(&batch.schema(), &[batch]);
                encoded.map(|rows| (first, rows)).map_err(|error| error.to_string())
            });
            if sender.blocking_send(made).is_err() {
                return events;
            }
        }
    });
    let enough = Cell::new(false);
    let enough = &enough;
    let batches =
        futures::stream::poll_fn(
            move |context| {
                if enough.get() { Poll::Ready(None) } else { batches.poll_recv(context) }
            },
        );
    {
        let appends = batches.map(|made| append(connection.clone(), made)).buffer_unordered(IN_FLIGHT);
        let mut appends = std::pin::pin!(appends);
        // Those on their way are waited for: what the leaf took has to be known.
        while let Some(taken) = appends.next().await {
            let Taken { first, rows, bytes: held, durability } = taken?;
            load.sum += (first..first + rows).map(remainder).sum::<u64>() as i64;
            load.rows += rows;
            load.durability = durability;
            enough.set(enough.get() || held >= bytes);
        }
    }
    making.join().map_err(|_| Failure::failed("a thread that makes events ended early"))
}

/// Appends one batch, again when the leaf says "come back".
pub(super) async fn append(mut connection: Connection, made: Made) -> Result<Taken, Failure> {
    let (first, rows) = made.map_err(|why| Failure::failed(format!("make events: {why}")))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connection.append(rows.clone()).await {
            Ok(reply) => {
                let holdings = reply.holdings.and_then(|holdings| Holdings::try_from(holdings).ok());
                let table = holdings.and_then(|said| said.tables.into_iter().find(|t| t.name == TABLE));
                let bytes = table.map_or(0, |table| table.bytes);
                return Ok(Taken { first, rows: reply.accepted, bytes, durability: reply.durability });
            }
            Err(status)
                if matches!(status.code(), Code::ResourceExhausted | Code::Unavailable)
                    && Instant::now() < deadline =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => {
                return Err(Failure::failed(format!("the leaf does not take events: {}", status.message())));
            }
        }
    }
}

/// Waits until the leaf's bytes do not change any more, and gives them back.
async fn settled(leaf: &mut Leaf, mut connection: Connection) -> Result<u64, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let (mut before, mut same) = (None, 0);
    loop {
        leaf.check()?;
        let held = connection.describe().await.map_err(Failure::failed)?;
        let table = held.tables.iter().find(|table| table.name == TABLE);
        let now = table.map(|table| (table.rows, table.bytes));
        same = if now == before { same + 1 } else { 0 };
        before = now;
        if same >= SAME_LOOKS || Instant::now() > deadline {
            let bytes = now.map_or(0, |(_, bytes)| bytes);
            tracing::info!(held = units::bytes(bytes), "loaded");
            return Ok(bytes);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
