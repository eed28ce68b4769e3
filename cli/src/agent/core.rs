//! What the agent decides: which batches may be sent, under which number, and what becomes of them.
//!
//! A batch goes through: cut → its intent is in the book → the book is saved → sent → acknowledged, and struck out. The
//! state machine does no I/O and knows no clock: whoever drives it saves what [`Core::save`] gives, sends what
//! [`Core::next_post`] gives, and tells it how that ended. The rules are in [`super::book`].
//!
//! Invariants: only a batch whose intent was saved is sent; a batch that may have been taken is never dropped, cut in two
//! or given another number; numbers in use lie within [`NUMBERS_SPAN_MAX`]; every record ends in exactly one of the totals.

use std::collections::BTreeMap;
use std::time::Duration;

use gannet_client::{Backoff, Ending, PostError, Reply, Rest};

use crate::agent::bad_lines::{BadLine, all_rejections};
use crate::agent::batch::Batch;
use crate::agent::book::{Book, Key, NUMBERS_SPAN_MAX};
use crate::agent::lag::Lag;
use crate::agent::watch::Seen;

/// As long as this many times the requests under way may still be sent, nothing new need be saved for sending.
const SAVED_AHEAD: usize = 2;
/// What nobody waits for is saved this often.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Refusals are told no more often than this.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    book: Book,
    held: BTreeMap<Key, Held>,
    /// Requests that may be under way at a time.
    posts_max: usize,
    posting: usize,
    /// Changes since now belong to this version of the book.
    version: u64,
    saved_version: u64,
    /// The version that is being saved.
    saving: Option<u64>,
    /// The book changed since the last version was made.
    is_changed: bool,
    saved_at: Duration,
    /// Nothing is saved before that, since saving failed.
    save_from: Duration,
    /// The server took nothing since it refused something.
    refuses: bool,
    retries: u64,
    /// When a refusal was told last.
    told_at: Option<Duration>,
    lag: Lag,
    news: Vec<News>,
}

/// What people should know.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum News {
    /// A line that did not become a row.
    Bad(BadLine),
    /// Something else.
    Warning(String),
}

/// A batch that is not acknowledged.
#[derive(Debug)]
struct Held {
    batch: Batch,
    producer: String,
    sequence: u64,
    /// The version of the book that has its intent.
    version: u64,
    phase: Phase,
    backoff: Backoff,
    may_be_taken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It may be sent from then on.
    From(Duration),
    Posting,
}

/// A batch to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    /// Which.
    pub(crate) key: Key,
    /// Under whose name.
    pub(crate) producer: String,
    /// Under which number.
    pub(crate) sequence: u64,
    /// What it is.
    pub(crate) content_type: &'static str,
    /// The rows.
    pub(crate) body: bytes::Bytes,
    /// The column of the time.
    pub(crate) time_field: Option<String>,
}

impl Core {
    /// Goes on with a book.
    pub(crate) fn new(book: Book, posts_max: usize) -> Core {
        Core {
            book,
            held: BTreeMap::new(),
            posts_max,
            posting: 0,
            version: 1,
            saved_version: 0,
            saving: None,
            is_changed: true,
            saved_at: Duration::ZERO,
            save_from: Duration::ZERO,
            refuses: false,
            retries: 0,
            told_at: None,
            lag: Lag::default(),
            news: Vec::new(),
        }
    }

    /// The book.
    pub(crate) fn book(&self) -> &Book {
        &self.book
    }

    /// Whether the server takes nothing now.
    pub(crate) fn refuses(&self) -> bool {
        self.refuses
    }

    /// Requests that had to be sent again so far.
    pub(crate) fn retries(&self) -> u64 {
        self.retries
    }

    /// Batches that are not acknowledged.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// How long the oldest line waits that is not acknowledged.
    pub(crate) fn lag(&self, now: Duration) -> Duration {
        self.lag.of(&self.book, now)
    }

    /// What people should know since they were told last.
    pub(crate) fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Takes what was seen in the files.
    pub(crate) fn see(&mut self, seen: Seen, now: Duration) {
        match seen {
            Seen::Opened { stream, path, identity, from } => self.book.open(stream, path, identity, from),
            Seen::Resumed { stream, path, identity, from } => {
                self.book.known_as(stream, Some(path), identity);
                self.book.resume(stream, from);
            }
            Seen::Cut(batch) => self.cut(batch),
            Seen::Again(batch) => self.again(batch),
            Seen::TooLong { range, raw } => {
                self.book.pass_over(range);
                self.book.totals.rejected += 1;
                let error =
                    format!("the line is longer than {} MiB", super::follower::RECORD_BYTES_MAX >> 20);
                self.bad(range.key.stream, range.key.start, error, &raw);
            }
            Seen::PassedOver(range) => {
                self.book.pass_over(range);
                self.book.totals.dropped += range.records;
            }
            Seen::Lost { key, why } => self.lost(key, &why),
            Seen::Size { stream, size } => {
                self.lag.grown(stream, size, now);
                return;
            }
            Seen::Gone { stream } => {
                self.lag.forget(stream);
                self.book.gone(stream);
            }
            Seen::Removed { stream } => {
                self.lag.forget(stream);
                self.book.forget(stream);
            }
            Seen::MakeRoom(bytes) => self.make_room(bytes),
            Seen::Warning(warning) => {
                self.news.push(News::Warning(warning));
                return;
            }
        }
        self.is_changed = true;
    }

    fn cut(&mut self, batch: Batch) {
        let range = batch.range;
        self.book.known_as(range.key.stream, None, batch.identity);
        if batch.shaped.rows == 0 {
            self.book.pass_over(range);
            self.count_refused(&batch);
            return;
        }
        let sequence = self.book.intend(range, batch.shaper.shape());
        self.hold(batch, sequence);
    }

    /// A new intent: nothing is sent before it is saved.
    fn hold(&mut self, batch: Batch, sequence: u64) {
        let held = Held {
            producer: self.book.producer.clone(),
            sequence,
            version: self.version,
            phase: Phase::From(Duration::ZERO),
            backoff: Backoff::new(),
            may_be_taken: false,
            batch,
        };
        self.held.insert(held.batch.range.key, held);
    }

    fn again(&mut self, batch: Batch) {
        let key = batch.range.key;
        let stream = self.book.streams().get(&key.stream);
        let Some(intent) = stream.and_then(|stream| stream.intents.get(&key.start)) else { return };
        let held = Held {
            producer: intent.producer.clone(),
            sequence: intent.sequence,
            version: 0,
            phase: Phase::From(Duration::ZERO),
            backoff: Backoff::new(),
            may_be_taken: true,
            batch,
        };
        self.held.insert(key, held);
    }

    fn lost(&mut self, key: Key, why: &str) {
        let stream = self.book.streams().get(&key.stream);
        let Some(intent) = stream.and_then(|stream| stream.intents.get(&key.start)) else { return };
        let (records, end) = (intent.records, intent.end);
        self.book.totals.unknown += records;
        self.book.strike(key);
        self.news.push(News::Warning(format!(
            "{records} lines (bytes {} to {end}) may or may not have been counted, and cannot be sent again: {why}",
            key.start
        )));
    }

    /// The book as it is to be saved now, if there is something that must not wait.
    pub(crate) fn save(
        &mut self,
        now: Duration,
        is_ending: bool,
    ) -> Result<Option<Vec<u8>>, serde_json::Error> {
        if self.saving.is_some() || !self.is_changed || now < self.save_from {
            return Ok(None);
        }
        // While enough can be sent, others wait, so that one copy is for all of them: syncs of other programs wait for it.
        let is_saved = |held: &&Held| held.version <= self.saved_version;
        let can_be_sent = |held: &&Held| !matches!(held.phase, Phase::From(from) if from > now);
        let ready = self.held.values().filter(is_saved).filter(can_be_sent).count();
        let runs_dry =
            ready < self.posts_max * SAVED_AHEAD && !self.held.values().all(|held| is_saved(&held));
        let is_old = now.saturating_sub(self.saved_at) >= SAVE_EVERY;
        if !(runs_dry || is_old || (is_ending && self.posting == 0)) {
            return Ok(None);
        }
        let text = self.book.text()?;
        self.saving = Some(self.version);
        self.version += 1;
        (self.is_changed, self.saved_at) = (false, now);
        Ok(Some(text))
    }

    /// What [`Core::save`] gave is saved.
    pub(crate) fn saved(&mut self) {
        self.saved_version = self.saving.take().unwrap_or(self.saved_version);
    }

    /// What [`Core::save`] gave could not be saved; it is tried again after a while.
    pub(crate) fn not_saved(&mut self, why: &std::io::Error, now: Duration) {
        self.saving = None;
        self.is_changed = true;
        self.save_from = now + SAVE_EVERY;
        self.news
            .push(News::Warning(format!("the checkpoint cannot be saved, so nothing new is sent: {why}")));
    }

    /// The book as it is to be saved at the end, when nothing else is being saved.
    pub(crate) fn last_text(&mut self) -> Result<Vec<u8>, serde_json::Error> {
        self.book.text()
    }

    /// Whether everything that happened is saved.
    pub(crate) fn is_saved(&self) -> bool {
        self.saving.is_none() && !self.is_changed
    }

    /// The next batch to be sent, if one may be sent now.
    pub(crate) fn next_post(&mut self, now: Duration) -> Option<Post> {
        if self.posting >= self.posts_max {
            return None;
        }
        let lowest = self.held.values().filter(|it| it.producer == self.book.producer).map(|it| it.sequence);
        let reach = lowest.min().unwrap_or(0) + NUMBERS_SPAN_MAX;
        let may_be_sent = |held: &&mut Held| {
            held.version <= self.saved_version
                && matches!(held.phase, Phase::From(from) if from <= now)
                && (held.sequence < reach || held.producer != self.book.producer)
        };
        let held = self.held.values_mut().filter(may_be_sent).min_by_key(|held| held.sequence)?;
        held.phase = Phase::Posting;
        self.posting += 1;
        let Batch { range, shaper, shaped, .. } = &held.batch;
        Some(Post {
            key: range.key,
            producer: held.producer.clone(),
            sequence: held.sequence,
            content_type: shaper.content_type(),
            body: shaped.body.clone(),
            time_field: shaper.shape().time_field.clone(),
        })
    }

    /// When the next batch that waits may be sent again.
    pub(crate) fn next_due(&self, now: Duration) -> Option<Duration> {
        let waits = self.held.values().filter_map(|held| match held.phase {
            Phase::From(from) if held.version <= self.saved_version && from > now => Some(from),
            _ => None,
        });
        waits.min()
    }

    /// A request ended. `share` is a random number from 0 to 1. The error is a refusal of whatever would be sent.
    pub(crate) fn ended(
        &mut self,
        key: Key,
        ending: Ending,
        now: Duration,
        share: f64,
    ) -> Result<(), Box<gannet_client::Error>> {
        self.posting -= 1;
        let Some(held) = self.held.get_mut(&key) else { return Ok(()) };
        held.phase = Phase::From(now);
        match ending {
            Ending::Done(reply) => self.done(key, &reply),
            Ending::Later(failed) => self.wait(key, &failed, now, share),
            Ending::ComeBack(failed) => {
                self.wait(key, &failed, now, share);
                self.renumber(key);
            }
            Ending::BodyRefused(failed) => self.body_refused(key, &failed),
            Ending::TooOld(failed) => self.lost_number(key, &failed),
            Ending::Refused(failed) => return Err(Box::new(failed.error)),
        }
        Ok(())
    }

    fn done(&mut self, key: Key, reply: &Reply) {
        self.refuses = false;
        let Some(held) = self.strike(key) else { return };
        let rejected = reply.rejected_all();
        self.book.totals.accepted += reply.accepted;
        self.book.totals.rejected += rejected;
        let rest = held.batch.shaped.rows.saturating_sub(reply.accepted + rejected);
        if rest > 0 {
            self.book.totals.unknown += rest;
            let warning = format!("the server did not say what became of {rest} rows");
            self.news.push(News::Warning(warning));
        }
        for rejection in all_rejections(&held.batch, reply) {
            self.bad_record(&held.batch, held.batch.record_of_row(rejection.row), rejection.error);
        }
        self.count_refused(&held.batch);
    }

    /// It is sent again later, as it is.
    fn wait(&mut self, key: Key, failed: &PostError, now: Duration, share: f64) {
        if !self.refuses && self.told_at.is_none_or(|at| now.saturating_sub(at) >= TELL_EVERY) {
            self.told_at = Some(now);
            let warning = format!("{}; lines are sent again until they are taken", failed.error.message);
            self.news.push(News::Warning(warning));
        }
        self.refuses = true;
        self.retries += 1;
        let Some(held) = self.held.get_mut(&key) else { return };
        held.may_be_taken |= failed.rest == Rest::Unknown || failed.reply.accepted > 0;
        let asked = failed.error.retry_after_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        held.phase = Phase::From(now + held.backoff.next(asked, share));
    }

    /// Another number may find another leaf.
    fn renumber(&mut self, key: Key) {
        let Some(held) = self.held.get_mut(&key).filter(|held| !held.may_be_taken) else { return };
        if let Some(sequence) = self.book.renumber(key) {
            (held.sequence, held.version) = (sequence, self.version);
            held.producer.clone_from(&self.book.producer);
            self.is_changed = true;
        }
    }

    /// Finds the record that is the reason, by halves.
    fn body_refused(&mut self, key: Key, failed: &PostError) {
        let Some(held) = self.held.remove(&key) else { return };
        self.is_changed = true;
        let error = failed.error.detail.as_ref().map_or_else(
            || failed.error.message.clone(),
            |detail| format!("{}: {detail}", failed.error.message),
        );
        let batch = if failed.reply.accepted == 0 {
            match held.batch.split() {
                Ok((first, second)) => {
                    if let Some((one, other)) = self.book.split(first.range, second.range) {
                        self.hold(first, one);
                        self.hold(second, other);
                    }
                    return;
                }
                Err(single) => *single,
            }
        } else {
            held.batch
        };
        self.book.strike(key);
        let refused = batch.shaped.rows.saturating_sub(failed.reply.accepted);
        self.book.totals.accepted += failed.reply.accepted;
        self.book.totals.rejected += refused;
        let error = if batch.shaped.rows == 1 { error } else { format!("and {} more: {error}", refused - 1) };
        self.bad_record(&batch, batch.record_of_row(0), error);
        self.count_refused(&batch);
    }

    fn lost_number(&mut self, key: Key, failed: &PostError) {
        let Some(held) = self.strike(key) else { return };
        let rows = held.batch.shaped.rows;
        self.book.totals.unknown += rows;
        self.news
            .push(News::Warning(format!("nobody knows whether {rows} rows were counted: {}", failed.error)));
        self.count_refused(&held.batch);
    }

    /// Drops batches that were surely not taken, the oldest first.
    fn make_room(&mut self, bytes: u64) {
        let mut freed = 0;
        while freed < bytes {
            let may_go = |held: &&Held| !held.may_be_taken && held.phase != Phase::Posting;
            let oldest = self.held.values().filter(may_go).min_by_key(|held| held.sequence);
            let Some(key) = oldest.map(|held| held.batch.range.key) else { return };
            let Some(held) = self.strike(key) else { return };
            freed += held.batch.room.bytes();
            self.book.totals.dropped += held.batch.range.records;
        }
    }

    fn strike(&mut self, key: Key) -> Option<Held> {
        let held = self.held.remove(&key)?;
        self.book.strike(key);
        self.is_changed = true;
        Some(held)
    }

    fn count_refused(&mut self, batch: &Batch) {
        self.book.totals.rejected += batch.shaped.refused.len() as u64;
        for bad in &batch.shaped.refused {
            self.bad_record(batch, bad.record, bad.error.clone());
        }
    }

    fn bad_record(&mut self, batch: &Batch, record: u64, error: String) {
        let (start, line) = batch.record(record).unwrap_or((batch.range.key.start, b""));
        self.bad(batch.range.key.stream, start, error, line);
    }

    fn bad(&mut self, stream: u64, start: u64, error: String, line: &[u8]) {
        let path = self.book.streams().get(&stream).map(|it| it.path.clone()).unwrap_or_default();
        self.news.push(News::Bad(BadLine { path, start, error, line: line.to_vec() }));
    }
}

#[cfg(test)]
mod tests;
