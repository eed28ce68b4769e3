//! What is remembered of one producer in one table.

use std::collections::BTreeMap;

use super::{BatchName, DedupError, DedupLimits, Known, RowRanges};

/// The batches of one producer that were counted.
///
/// Invariants: an open sequence is not in `done`, is not complete, and has a part; below `floor`, what is neither done
/// nor open cannot be told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Producer {
    /// The running time at which it was last heard of.
    pub(super) seen: u64,
    /// See the type.
    pub(super) floor: u64,
    /// Sequences of which every part was counted.
    pub(super) done: RowRanges,
    /// Sequences of which some parts were counted.
    pub(super) open: BTreeMap<u64, Parts>,
    /// Intervals of all open sequences, and one for each of these.
    pub(super) open_intervals: usize,
}

/// The parts seen of one sequence.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Parts {
    /// Which.
    pub(super) seen: RowRanges,
    /// The last one, when it was seen.
    pub(super) last: Option<u32>,
}

impl Parts {
    pub(super) fn intervals(&self) -> usize {
        1 + self.seen.iter().len()
    }

    /// Whether every part was seen, up to the last.
    pub(super) fn are_complete(&self) -> bool {
        self.last.is_some_and(|last| self.seen.missing_in(0, u64::from(last) + 1).is_empty())
    }

    fn check(&self, name: &BatchName) -> Result<Known, DedupError> {
        if self.seen.contains(u64::from(name.part)) {
            return Ok(Known::Counted);
        }
        let behind = |part: u32, last: u32| DedupError::PartBehindLast {
            producer: name.producer.clone(),
            sequence: name.sequence,
            part,
            last,
        };
        match self.last {
            Some(last) if name.part > last => Err(behind(name.part, last)),
            // Parts are 32-bit numbers, so the greatest seen is one.
            _ if name.last_part && u64::from(name.part) < self.seen.end() => {
                let seen = u32::try_from(self.seen.end() - 1).unwrap_or(u32::MAX);
                Err(behind(seen, name.part))
            }
            _ => Ok(Known::New),
        }
    }

    fn complete(&mut self, name: &BatchName) {
        self.seen.insert(u64::from(name.part), u64::from(name.part) + 1);
        if name.last_part {
            self.last = Some(name.part);
        }
        // A last part that others lie behind was refused when it came in; the greatest is the last one then.
        let greatest = u32::try_from(self.seen.end() - 1).unwrap_or(u32::MAX);
        self.last = self.last.map(|last| last.max(greatest));
    }
}

impl Producer {
    /// Intervals held, which is what it costs.
    pub(super) fn intervals(&self) -> usize {
        self.done.iter().len() + self.open_intervals
    }

    pub(super) fn check(&self, name: &BatchName) -> Result<Known, DedupError> {
        if self.done.contains(name.sequence) {
            return Ok(Known::Counted);
        }
        if let Some(parts) = self.open.get(&name.sequence) {
            return parts.check(name);
        }
        if name.sequence < self.floor {
            return Err(DedupError::TooOld {
                producer: name.producer.clone(),
                sequence: name.sequence,
                floor: self.floor,
            });
        }
        Ok(Known::New)
    }

    pub(super) fn complete(&mut self, name: &BatchName) {
        let sequence = name.sequence;
        // What cannot be told is refused, and that includes what was counted below the floor.
        if self.done.contains(sequence) || (sequence < self.floor && !self.open.contains_key(&sequence)) {
            return;
        }
        if name.part == 0 && name.last_part && !self.open.contains_key(&sequence) {
            self.done.insert(sequence, sequence + 1);
            return;
        }
        let parts = self.open.entry(sequence).or_default();
        let before = if parts.seen.is_empty() { 0 } else { parts.intervals() };
        parts.complete(name);
        let after = parts.intervals();
        let complete = parts.are_complete();
        self.open_intervals = self.open_intervals - before + after;
        if complete {
            self.close(sequence);
            self.done.insert(sequence, sequence + 1);
        }
    }

    /// Raises the floor until it is within the limits, beside the intervals of other producers.
    pub(super) fn keep_within(&mut self, limits: &DedupLimits, others: usize) {
        self.keep_highest_done(limits.gaps_max.max(1));
        if self.open_intervals > limits.gaps_max {
            let torn = self.open.iter().filter(|(_, parts)| parts.seen.iter().len() > limits.gaps_max.max(1));
            let torn: Vec<u64> = torn.map(|(sequence, _)| *sequence).collect();
            torn.into_iter().for_each(|sequence| self.close_untold(sequence));
        }
        while self.open.len() > limits.open_sequences_max {
            self.close_lowest_open();
        }
        let room = limits.intervals_max.saturating_sub(others).max(1);
        self.keep_highest_done(room.saturating_sub(self.open_intervals).max(1));
        while self.intervals() > room && !self.open.is_empty() {
            self.close_lowest_open();
        }
    }

    fn keep_highest_done(&mut self, intervals: usize) {
        let more = self.done.iter().len().saturating_sub(intervals);
        if let Some(to) = self.done.remove_first(more) {
            self.floor = self.floor.max(to);
        }
    }

    fn close_lowest_open(&mut self) {
        if let Some(sequence) = self.open.keys().next().copied() {
            self.close_untold(sequence);
        }
    }

    /// Forgets the parts of a sequence, after which its other parts cannot be told any more.
    fn close_untold(&mut self, sequence: u64) {
        self.close(sequence);
        self.floor = self.floor.max(sequence + 1);
    }

    fn close(&mut self, sequence: u64) {
        if let Some(parts) = self.open.remove(&sequence) {
            self.open_intervals -= parts.intervals();
        }
    }
}
