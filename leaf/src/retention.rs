//! What a leaf does about once a second, and how rows leave it.
//!
//! Rows leave block by block: when all of a block is older than the table's retention, when a table takes more bytes
//! than it may, or when the leaf needs the memory; the oldest go first. Whatever leaves gives its memory back at once
//! and its file when the log says so.
//!
//! Age is measured by a clock that does not jump: it follows the monotonic clock, and moves towards the wall clock by
//! at most a tenth of the time that passes. A wall clock that is set ten years ahead makes rows expire a little early
//! and never all at once.
//!
//! Invariants: what waits to expire is still served; rows that expired are never lost, and lost rows are forgotten when
//! they would have expired.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gannet_query::Span;

use crate::LeafError;
use crate::leaf::Leaf;
use crate::lifecycle::Request;
use crate::manifest::Edit;
use crate::planted::{Bug, planted};
use crate::table::Table;
use crate::wal::Durability;

/// A clock that is set ahead is followed by this part of the time that passes.
const FOLLOW_PART: i64 = 10;
/// After a stop the wall clock is believed as far as this behind the last time the leaf ran.
const BELIEVED_STOP_NS: i64 = 24 * 3600 * 1_000_000_000;
/// A difference worth telling somebody.
const JUMP_NS: i64 = 60 * 1_000_000_000;
/// A log that takes this part of its limit has its oldest rows sealed.
pub(crate) const LOG_PART: u64 = 2;

/// The clock that age is measured by.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Its time, and the monotonic time it was taken at.
    last: Option<(i64, Duration)>,
    has_told: bool,
}

impl Watch {
    /// The time for retention.
    pub(crate) fn now(&mut self, monotonic: Duration, wall_ns: i64, ran_until_ns: Option<i64>) -> i64 {
        if planted(Bug::RetentionByWallClock) {
            return wall_ns;
        }
        let now = match self.last {
            None => ran_until_ns.map_or(wall_ns, |until| wall_ns.min(until.saturating_add(BELIEVED_STOP_NS))),
            Some((time, at)) => {
                let passed = i64::try_from(monotonic.saturating_sub(at).as_nanos()).unwrap_or(i64::MAX);
                wall_ns.min(time.saturating_add(passed).saturating_add(passed / FOLLOW_PART))
            }
        };
        let ahead = wall_ns.saturating_sub(now);
        if ahead > JUMP_NS && !self.has_told {
            tracing::warn!(
                ahead_seconds = ahead / 1_000_000_000,
                "the wall clock jumped ahead: rows expire by it slowly"
            );
        }
        self.has_told = ahead > JUMP_NS;
        self.last = Some((now, monotonic));
        now
    }

    /// The time it last told.
    pub(crate) fn last(&self) -> Option<i64> {
        self.last.map(|(time, _)| time)
    }
}

impl Leaf {
    /// Seals what waited long enough, expires what retention says, and keeps the disk up with it. Called about once a
    /// second.
    pub fn maintain(self: &Arc<Self>) {
        let _admitted = self.appends.read();
        if self.admit(Request::Append).is_err() {
            return;
        }
        let clock = &self.surroundings.clock;
        let now = self.retention_now();
        let tables: Vec<Arc<Table>> = self.tables.read().values().cloned().collect();
        for table in &tables {
            let age = Duration::from_secs(self.config.seal_age_seconds);
            if let Some(run) = table.take_aged(age, clock.monotonic()) {
                self.seal(table, run, self.sealing_bytes_max(table.name()));
            }
            self.expire_by_retention(table, now);
            self.subsample_soon(table, now);
        }
        self.seal_for_log();
        self.work_soon();
        self.load_unread();
        if self.config.durability == Durability::Process
            && let Err(error) = self.wal.sync()
        {
            tracing::error!(leaf = self.id(), %error, "the log was not synced");
        }
        self.checkpoint_if_due();
    }

    /// The time that the age of rows is measured by.
    pub(crate) fn retention_now(&self) -> i64 {
        let clock = &self.surroundings.clock;
        let ran_until = self.ran_until_ns;
        self.retention.lock().now(clock.monotonic(), clock.wall_ns(), ran_until)
    }

    /// Seals the open rows that keep the oldest file of the log, when the log gets long.
    fn seal_for_log(self: &Arc<Self>) {
        if self.wal.bytes() < self.config.wal_bytes_max / LOG_PART {
            return;
        }
        let Some(oldest) = self.wal.files().into_iter().next() else { return };
        for table in oldest.tables.keys().filter_map(|name| self.table(name)) {
            if let Some(run) = table.take_open() {
                self.seal(&table, run, self.sealing_bytes_max(table.name()));
            }
        }
    }

    /// Expires the oldest blocks until `needed` more bytes fit.
    pub(crate) fn make_room(self: &Arc<Self>, table: &str, needed: u64) -> Result<(), LeafError> {
        let limit = self.config.memory_limit_bytes;
        while self.used_bytes().saturating_add(needed) > limit {
            if !self.expire_oldest() {
                return Err(LeafError::Full {
                    leaf: self.config.id.clone(),
                    table: table.to_owned(),
                    needed,
                    used: self.used_bytes(),
                    limit,
                });
            }
        }
        Ok(())
    }

    /// Drops the row block whose newest row is oldest, of all tables. False when there is none.
    fn expire_oldest(self: &Arc<Self>) -> bool {
        let tables: Vec<Arc<Table>> = self.tables.read().values().cloned().collect();
        let oldest = tables
            .iter()
            .flat_map(|table| {
                let state = table.snapshot();
                let blocks: Vec<(i64, u64)> =
                    state.blocks.iter().map(|held| (held.time_range().1, held.id())).collect();
                blocks.into_iter().map(move |(last, id)| (last, id, table))
            })
            .min_by_key(|(last, id, _)| (*last, *id));
        let Some((_, id, table)) = oldest else { return false };
        self.expire(table, "memory limit", |oldest| oldest == id);
        true
    }

    /// Drops blocks of a table by their ids.
    fn expire(self: &Arc<Self>, table: &Arc<Table>, why: &str, is_gone: impl Fn(u64) -> bool) {
        let gone = table.expire(|held| is_gone(held.id()));
        if gone.is_empty() {
            return;
        }
        let rows: usize = gone.iter().map(|held| held.rows()).sum();
        let bytes: u64 = gone.iter().map(|held| held.memory_bytes()).sum();
        self.used_bytes.fetch_sub(bytes as i64, Ordering::Relaxed);
        tracing::info!(table = table.name(), rows, bytes, why, "rows expired");
        self.remove_soon(table, gone);
    }

    fn expire_by_retention(self: &Arc<Self>, table: &Arc<Table>, now: i64) {
        let seconds = self.config.retention_seconds_of(table.name());
        let state = table.snapshot();
        if seconds > 0 {
            let oldest =
                now.saturating_sub(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000));
            let old = |id| {
                let held = state.blocks.iter().find(|held| held.id() == id);
                held.is_some_and(|held| held.time_range().1 < oldest)
            };
            if state.blocks.iter().any(|held| held.time_range().1 < oldest) {
                self.expire(table, "retention", old);
            }
            if state.lost.iter().any(|span| span.last < oldest) {
                table.set_lost(state.lost.iter().copied().filter(|span| span.last >= oldest).collect());
            }
        }
        let bytes_max = self.config.table_bytes_max_of(table.name());
        if bytes_max > 0 {
            let state = table.snapshot();
            let mut over = state.bytes().saturating_sub(bytes_max);
            let mut blocks: Vec<(i64, u64, u64)> = state
                .blocks
                .iter()
                .map(|held| (held.time_range().1, held.id(), held.memory_bytes()))
                .collect();
            blocks.sort_unstable();
            let mut oldest = Vec::new();
            for (_, id, bytes) in blocks {
                if over == 0 {
                    break;
                }
                over = over.saturating_sub(bytes);
                oldest.push(id);
            }
            self.expire(table, "bytes of the table", |id| oldest.contains(&id));
        }
    }

    /// Forgets the rows that are gone for good. Returns how many.
    ///
    /// # Errors
    /// When that cannot be logged; what could not is not forgotten.
    pub fn accept_loss(&self) -> Result<u64, LeafError> {
        let tables: Vec<Arc<Table>> = self.tables.read().values().cloned().collect();
        let mut rows = 0;
        for table in tables {
            let lost: u64 = table.snapshot().lost.iter().map(|span: &Span| span.rows).sum();
            if lost > 0 {
                let edit = Edit::RowsLost { table: table.name().to_owned(), lost: Vec::new() };
                self.log_edits(&mut self.manifest.lock(), vec![edit])?;
                table.set_lost(Vec::new());
                rows += lost;
            }
        }
        if self.unknown_records.load(Ordering::Relaxed) > 0 {
            self.log_edits(&mut self.manifest.lock(), vec![Edit::UnknownAccepted])?;
            self.unknown_records.store(0, Ordering::Relaxed);
        }
        tracing::info!(rows, "loss accepted");
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_clock_that_jumps_is_followed_slowly() {
        let mut watch = Watch::default();
        let at = Duration::from_secs;
        assert_eq!(watch.now(at(0), 1000 * SECOND, None), 1000 * SECOND);
        assert_eq!(watch.now(at(10), 1010 * SECOND, None), 1010 * SECOND);
        // Ten years ahead: eleven seconds pass in ten.
        let ahead = 10 * 365 * 24 * 3600 * SECOND;
        assert_eq!(watch.now(at(20), 1020 * SECOND + ahead, None), 1021 * SECOND);
        assert_eq!(watch.now(at(120), 1120 * SECOND + ahead, None), 1131 * SECOND);
        // Back again, and further: rows are kept longer, which does no harm.
        assert_eq!(watch.now(at(130), 1130 * SECOND, None), 1130 * SECOND);
        assert_eq!(watch.now(at(140), 500 * SECOND, None), 500 * SECOND);
        assert_eq!(watch.last(), Some(500 * SECOND));
    }

    #[test]
    fn a_long_stop_is_believed_for_a_day() {
        let day = 24 * 3600 * SECOND;
        let started = |wall, until| Watch::default().now(Duration::ZERO, wall, Some(until));
        assert_eq!(started(5 * day, 5 * day - 7), 5 * day);
        assert_eq!(started(9 * day, 5 * day), 6 * day);
        assert_eq!(started(3 * day, 5 * day), 3 * day);
    }
}
