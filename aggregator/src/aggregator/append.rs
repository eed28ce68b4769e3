//! Handing row batches to leaves.
//!
//! A batch without a sender goes to one of two leaves chosen at random, and to another when that one refuses; a leaf
//! that is stopping or starting gets no more until it describes itself. A batch of
//! a sender's request goes to the one leaf that can tell whether it came before, or nowhere: the sender is asked to come
//! back. In both cases rows whose outcome is not known are never sent to another leaf, which would count them twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use gannet_proto::{decode_batches, encode_batches};
use gannet_query::LeafState;
use gannet_query::value::rows_bytes;

use super::Aggregator;
use crate::children::{Acknowledgement, Child, ChildError};
use crate::error::{ErrorCode, Failure};
use crate::ingest::dictionaries::{with_dictionaries, without_dictionaries};
use crate::placement::{Candidate, choose, pinned};
use crate::planted::{Bug, planted};
use crate::roster::{LeafAt, Noted};
use crate::sender::{Part, Sender};

/// Row batches larger than this are sent in halves, bytes; 48 MiB, well below the largest message.
const BATCH_BYTES_MAX: usize = 48 << 20;
/// When to try again after a refusal that passes by itself, and after one that somebody has to do something about.
const SOON_SECONDS: u64 = 1;
const LATER_SECONDS: u64 = 10;

/// What became of a row batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Rows accepted, now or before.
    pub rows: u64,
    /// Those of them that had been counted before, and were not counted again.
    pub duplicates: u64,
    /// What they survive.
    pub durability: String,
}

impl From<Acknowledgement> for Appended {
    fn from(taken: Acknowledgement) -> Appended {
        Appended { rows: taken.accepted, duplicates: taken.duplicates, durability: taken.durability }
    }
}

/// The leaf to which all parts of one request go.
#[derive(Debug, Clone)]
pub struct Pin {
    child: Arc<Child>,
    sender: Arc<Sender>,
}

impl Pin {
    /// A part of the request, with whom it goes to.
    pub fn part(&self, number: u32, is_last: bool) -> (Arc<Child>, Part) {
        (Arc::clone(&self.child), Part { sender: Arc::clone(&self.sender), number, is_last })
    }
}

/// Rows as they are sent: one message.
#[derive(Debug, Clone)]
pub struct Rows {
    /// An Arrow IPC stream of one batch.
    bytes: Bytes,
    has_dictionaries: bool,
}

impl Rows {
    fn of(batch: &RecordBatch, dictionary_rows_min: usize) -> Result<Rows, Failure> {
        let coded = with_dictionaries(batch, dictionary_rows_min);
        let bytes = encoded(coded.as_ref().unwrap_or(batch))?;
        Ok(Rows { bytes, has_dictionaries: coded.is_some() })
    }

    /// The message for a leaf that takes dictionaries, or does not.
    fn message(&self, takes_dictionaries: bool) -> Result<Bytes, Failure> {
        if takes_dictionaries || !self.has_dictionaries {
            return Ok(self.bytes.clone());
        }
        let batches = decode_batches(&self.bytes).map_err(|error| internal(&error))?;
        let [batch] = &batches[..] else { return Err(internal(&"rows are not one batch")) };
        encoded(&without_dictionaries(batch).map_err(|error| internal(&error))?)
    }
}

fn encoded(batch: &RecordBatch) -> Result<Bytes, Failure> {
    encode_batches(&batch.schema(), std::slice::from_ref(batch)).map_err(|error| internal(&error))
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Internal, error.to_string())
}

/// A row batch as it is sent: in one message, or in as many as its size asks for. The same batch gives the same messages.
/// From so many rows on texts that repeat are dictionaries.
///
/// # Errors
/// When a single row is larger than a message may be.
pub fn encode(batch: &RecordBatch, dictionary_rows_min: usize) -> Result<Vec<Rows>, Failure> {
    let mut messages = Vec::with_capacity(1);
    let mut open = vec![batch.clone()];
    while let Some(batch) = open.pop() {
        // What it takes without dictionaries, so that every leaf is sent the same rows in one message.
        let (rows, bytes) = (batch.num_rows(), rows_bytes(&batch));
        if bytes > BATCH_BYTES_MAX && rows > 1 {
            open.push(batch.slice(rows / 2, rows - rows / 2));
            open.push(batch.slice(0, rows / 2));
        } else if bytes > BATCH_BYTES_MAX {
            let message = format!("a row of {bytes} bytes exceeds the limit of {BATCH_BYTES_MAX}");
            return Err(Failure::new(ErrorCode::TooLarge, message));
        } else {
            messages.push(Rows::of(&batch, dictionary_rows_min)?);
        }
    }
    Ok(messages)
}

impl Aggregator {
    /// The leaf that all parts of a sender's request go to, the same each time the request comes.
    ///
    /// # Errors
    /// When it is down, or cannot be told because a child was never heard of.
    pub fn pin(&self, table: &str, sender: Sender) -> Result<Pin, Failure> {
        let refuse = |message: String, detail: String| {
            let refused = Failure::new(ErrorCode::Unavailable, message).detail(detail);
            Err(refused.hint(come_back(&sender)).retry_after(SOON_SECONDS))
        };
        let roster = self.roster.lock();
        let mut leaves = BTreeMap::new();
        let children = self.children.now();
        for child in children.iter().filter(|child| !child.takes_no_rows()) {
            match roster.leaf_at(child.address()) {
                LeafAt::Leaf(leaf) => {
                    leaves.entry(leaf).or_insert(child);
                }
                LeafAt::NoLeaf => {}
                LeafAt::Unheard => {
                    let at = child.address();
                    let message = format!(
                        "the leaf for this batch of table `{table}` cannot be told: child {at} was never heard of"
                    );
                    let why = child.down().unwrap_or_else(|| "it has not said yet what it holds".to_owned());
                    return refuse(message, format!("{why}. Start it, or take it out of the children."));
                }
            }
        }
        let chosen = pinned(leaves.keys().copied(), sender.number(table));
        let Some((leaf, child)) = chosen.and_then(|leaf| leaves.get_key_value(leaf)) else {
            let message = format!("no leaf takes rows of table `{table}` now");
            return refuse(message, "No child is a leaf.".to_owned());
        };
        if planted(Bug::RetryAtAnotherLeaf)
            && child.down().is_some()
            && let Some(other) = leaves.values().find(|other| other.down().is_none())
        {
            return Ok(Pin { child: Arc::clone(other), sender: Arc::new(sender) });
        }
        if let Some(why) = child.down() {
            child.probe_soon();
            let message = format!("leaf {leaf}, which takes this batch of table `{table}`, is down");
            return refuse(message, format!("{}: {why}.", child.address()));
        }
        Ok(Pin { child: Arc::clone(child), sender: Arc::new(sender) })
    }

    /// Hands a row batch that nobody will send again to a leaf. A leaf that refuses is passed over for another; when a
    /// leaf's outcome is not known, that is an error that says so.
    ///
    /// # Errors
    /// When no leaf takes the rows, or it is not known whether one did.
    pub async fn append(&self, table: &str, rows: Rows) -> Result<Appended, Failure> {
        self.counted(self.place(table, rows).await)
    }

    /// Hands a part of a sender's request to its leaf.
    ///
    /// # Errors
    /// When the leaf does not take it, or it is not known whether it did; the same request may come again.
    pub async fn append_part(
        &self,
        table: &str,
        rows: Rows,
        (child, part): (Arc<Child>, Part),
    ) -> Result<Appended, Failure> {
        let timeout = Duration::from_millis(self.config.append_timeout_ms);
        let rows = self.message_for(&child, &rows)?;
        let mut outcome = child.append(table, rows.clone(), Some(&part), timeout).await;
        if matches!(outcome, Err(ChildError::Lost(_))) {
            // Nobody knows what became of the rows but this leaf, which counts them once. A refusal now says nothing of
            // the first time: the rows may be in its log, and the sender must not give them another number.
            let again = child.append(table, rows, Some(&part), timeout).await;
            if again.is_ok() {
                outcome = again;
            }
        }
        let outcome = match outcome {
            Ok(taken) => Ok(self.noted(&child, taken).await),
            Err(error) => Err(not_taken(table, &child, &part.sender, error)),
        };
        self.counted(outcome)
    }

    fn counted(&self, outcome: Result<Appended, Failure>) -> Result<Appended, Failure> {
        match &outcome {
            Ok(taken) => self.metrics.batch_taken(taken.rows, taken.duplicates),
            Err(_) => self.metrics.batch_failed(),
        }
        outcome
    }

    /// Notes in the roster what a leaf holds after it took rows.
    async fn noted(&self, child: &Arc<Child>, taken: Acknowledgement) -> Appended {
        let noted = {
            let mut roster = self.roster.lock();
            roster.acknowledged(&taken.holdings, taken.accepted - taken.duplicates);
            roster.appended(child.address(), &taken.holdings)
        };
        if noted == Noted::DescribeFirst && !self.fan_out.refresh(child).await {
            tracing::warn!(child = child.address(), "took rows and then did not say what it holds");
        }
        taken.into()
    }

    async fn place(&self, table: &str, rows: Rows) -> Result<Appended, Failure> {
        let timeout = Duration::from_millis(self.config.append_timeout_ms);
        let children = self.children.now();
        let mut tried = BTreeSet::new();
        let mut refusals: Vec<(usize, ChildError)> = Vec::new();
        while refusals.len() < self.config.append_attempts_max {
            let Some(index) = choose(&self.candidates(&children, &tried), &mut rand::rng()) else { break };
            tried.insert(index);
            let child = &children[index];
            match child.append(table, self.message_for(child, &rows)?, None, timeout).await {
                Ok(taken) => return Ok(self.noted(child, taken).await),
                Err(ChildError::Refused(text)) => return Err(Failure::new(ErrorCode::BadRequest, text)),
                Err(ChildError::TooLarge(text)) => return Err(Failure::new(ErrorCode::TooLarge, text)),
                Err(error) if error.may_have_happened() => return Err(unconfirmed(table, child, &error)),
                Err(error) => refusals.push((index, error)),
            }
        }
        // Leaves that said before that they take no rows now were not asked again.
        let closed = children.iter().enumerate().filter(|(index, _)| !tried.contains(index));
        refusals.extend(closed.filter_map(|(index, child)| Some((index, child.closed()?))));
        Err(not_placed(&children, table, &refusals))
    }

    /// The rows as the leaf that a child is takes them.
    fn message_for(&self, child: &Child, rows: &Rows) -> Result<Bytes, Failure> {
        let takes_dictionaries =
            self.roster.lock().only_leaf(child.address()).is_some_and(|leaf| leaf.takes_dictionaries);
        rows.message(takes_dictionaries)
    }

    /// The leaves that may take rows now.
    fn candidates(&self, children: &[Arc<Child>], tried: &BTreeSet<usize>) -> Vec<Candidate> {
        let roster = self.roster.lock();
        let there = children.iter().enumerate().filter(|(index, child)| {
            !tried.contains(index)
                && !child.takes_no_rows()
                && child.down().is_none()
                && child.closed().is_none()
        });
        let serving = there.filter_map(|(child, at)| {
            let said = roster.only_leaf(at.address())?;
            let free_bytes = said.memory_limit_bytes.saturating_sub(said.memory_used_bytes);
            (said.state == LeafState::Serving).then_some(Candidate { child, free_bytes })
        });
        serving.collect()
    }
}

fn not_placed(children: &[Arc<Child>], table: &str, refusals: &[(usize, ChildError)]) -> Failure {
    let all =
        |is: fn(&ChildError) -> bool| !refusals.is_empty() && refusals.iter().all(|(_, error)| is(error));
    let code = if all(|error| matches!(error, ChildError::DiskFull(_))) {
        ErrorCode::DiskFull
    } else if all(|error| matches!(error, ChildError::Overloaded(_) | ChildError::DiskFull(_))) {
        ErrorCode::Overloaded
    } else {
        ErrorCode::Unavailable
    };
    let mut reasons: Vec<String> =
        refusals.iter().map(|(index, error)| format!("{}: {error}", children[*index].address())).collect();
    let down = children.iter().filter_map(|child| Some((child, child.down()?)));
    for (child, why) in down.take(10) {
        if !refusals.iter().any(|(index, _)| Arc::ptr_eq(&children[*index], child)) {
            reasons.push(format!("{}: {why}", child.address()));
        }
    }
    let detail = match reasons.as_slice() {
        [] => "No child is a leaf that is serving.".to_owned(),
        reasons => format!("{}.", reasons.join("; ")),
    };
    let message = format!("no leaf takes rows of table `{table}` now");
    let seconds = if code == ErrorCode::DiskFull { LATER_SECONDS } else { SOON_SECONDS };
    Failure::new(code, message).detail(detail).retry_after(seconds)
}

fn unconfirmed(table: &str, child: &Child, error: &ChildError) -> Failure {
    let message = format!(
        "rows of table `{table}` may or may not have been taken: leaf at {} did not confirm them",
        child.address()
    );
    Failure::new(ErrorCode::Unconfirmed, message).detail(format!("{error}."))
}

fn come_back(sender: &Sender) -> String {
    format!("Come back with the same {}: rows that were counted are not counted again.", sender.named_by())
}

/// Why the leaf of a sender's request did not take a part of it, and what the sender can do.
fn not_taken(table: &str, child: &Child, sender: &Sender, error: ChildError) -> Failure {
    let refused = |code, text: &str| {
        let message = format!("the leaf for this batch of table `{table}` does not take it now");
        Failure::new(code, message).detail(format!("{}: {text}.", child.address())).hint(come_back(sender))
    };
    match error {
        ChildError::Refused(text) => Failure::new(ErrorCode::BadRequest, text),
        ChildError::TooLarge(text) => Failure::new(ErrorCode::TooLarge, text),
        ChildError::SequenceTooOld(text) => Failure::new(ErrorCode::SequenceTooOld, text).hint(
            "The rows may have been counted. Ask for them, and send those that are missing under a new sequence.",
        ),
        ChildError::DiskFull(text) => refused(ErrorCode::DiskFull, &text).retry_after(LATER_SECONDS),
        ChildError::TooManyProducers(text) => {
            refused(ErrorCode::Overloaded, &text).retry_after(LATER_SECONDS)
        }
        ChildError::Overloaded(text) => refused(ErrorCode::Overloaded, &text).retry_after(SOON_SECONDS),
        error if error.may_have_happened() => {
            unconfirmed(table, child, &error).hint(come_back(sender)).retry_after(SOON_SECONDS)
        }
        error => refused(ErrorCode::Unavailable, &error.to_string()).retry_after(SOON_SECONDS),
    }
}
