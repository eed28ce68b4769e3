//! Filling the table that benches ask.

use std::time::Duration;

use super::super::door::Door;
use super::batches::Batches;
use super::outcome::{Fate, Kind, fate_of};
use crate::outcome::Failure;

/// The table that is asked.
const ASKED: &str = "asked";
/// Rows of a batch that fills it.
const FILLING_ROWS: u64 = 5_000;
/// Before a batch that was refused is sent again.
const PAUSE: Duration = Duration::from_millis(50);

/// Fills it with so many rows.
pub(in crate::bench) async fn fill(door: &Door, rows: u64) -> Result<(), Failure> {
    let mut sent = 0;
    while sent < rows {
        let count = FILLING_ROWS.min(rows - sent);
        let reply = door.send(&Batches::new(ASKED, count).request(2 * sent)).await;
        let reply = reply.map_err(|error| Failure::failed(format!("fill the table {ASKED}: {error}")))?;
        match fate_of(Kind::Ingest, count, &reply) {
            Fate::Done => sent += count,
            Fate::Refused => tokio::time::sleep(PAUSE).await,
            other => return Err(Failure::failed(format!("fill the table {ASKED}: {other:?}"))),
        }
    }
    Ok(())
}
