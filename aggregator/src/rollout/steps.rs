//! The steps of one leaf: waiting → draining → stopping → restoring → done.

use super::{Action, Guard, Millis, Order, Presence, Progress, Rollout, Seen, State, Step, View};

/// A leaf that does not drain for this long has something else to do.
const DRAINS_WITHIN: Millis = 30_000;

impl Rollout {
    /// Takes every leaf that was begun as far as what is seen of it allows.
    pub(super) fn follow(&mut self, view: &View) -> Vec<Action> {
        let mut actions = Vec::new();
        for index in 0..self.leaves.len() {
            let leaf = &self.leaves[index];
            if matches!(leaf.step, Step::Done | Step::Skipped) {
                continue;
            }
            let Some(seen) = view.leaves.get(&leaf.leaf) else {
                self.leaves[index].note = "it is no longer on the roster".to_owned();
                self.step(index, Step::Skipped);
                continue;
            };
            let order = match leaf.step {
                Step::Waiting | Step::Done | Step::Skipped => None,
                Step::Draining if self.takes_back() => self.take_back(index, seen),
                Step::Draining => self.drain(index, seen),
                Step::Stopping => self.stop(index, seen),
                Step::Restoring => {
                    self.restore(index, seen);
                    None
                }
            };
            let leaf = &self.leaves[index];
            let (name, epoch) = (leaf.leaf.clone(), leaf.epoch_before);
            actions.extend(order.map(|order| Action { order, leaf: name, epoch }));
        }
        actions
    }

    /// A leaf that only drains goes back to work: nobody knows when the rollout goes on.
    fn takes_back(&self) -> bool {
        matches!(self.state, State::Aborted | State::Paused { guard: Some(_), .. })
    }

    pub(super) fn step(&mut self, index: usize, step: Step) {
        let (id, now) = (self.id(), self.now);
        let leaf = &mut self.leaves[index];
        tracing::info!(rollout = id, leaf = leaf.leaf, step = step.name(), "rollout of a leaf");
        leaf.step = step;
        leaf.since = now;
        self.version += 1;
    }

    /// Begins a leaf: notes what it is now.
    pub(super) fn begin(&mut self, index: usize, seen: &Seen) -> Action {
        let leaf = &mut self.leaves[index];
        leaf.machine.clone_from(&seen.machine);
        leaf.epoch_before = seen.epoch;
        leaf.version_before.clone_from(&seen.version);
        leaf.rows_lost_before = seen.rows_lost;
        leaf.had_rows = seen.rows > 0;
        leaf.excused = false;
        let action = Action { order: Order::Drain, leaf: leaf.leaf.clone(), epoch: seen.epoch };
        self.step(index, Step::Draining);
        action
    }

    fn take_back(&mut self, index: usize, seen: &Seen) -> Option<Order> {
        if seen.epoch == self.leaves[index].epoch_before && seen.presence == Presence::Draining {
            return Some(Order::Undrain);
        }
        self.step(index, Step::Waiting);
        None
    }

    fn drain(&mut self, index: usize, seen: &Seen) -> Option<Order> {
        let leaf = &self.leaves[index];
        let is_same = seen.epoch == leaf.epoch_before;
        match seen.presence {
            Presence::Draining if is_same => {
                self.leaves[index].stopped_at = self.now;
                self.step(index, Step::Stopping);
                Some(Order::Stop)
            }
            Presence::Serving if is_same => {
                if self.now.saturating_sub(leaf.since) > DRAINS_WITHIN {
                    let why = format!("{} does not drain", leaf.leaf);
                    self.trip(Guard::Drain, why);
                    return None;
                }
                Some(Order::Drain)
            }
            // It ended by itself, or somebody else stops it.
            _ => {
                self.leaves[index].stopped_at = self.now;
                self.step(index, Step::Restoring);
                None
            }
        }
    }

    fn stop(&mut self, index: usize, seen: &Seen) -> Option<Order> {
        let is_same = seen.epoch == self.leaves[index].epoch_before;
        if is_same && seen.presence.answers() {
            self.check_time(index);
            return Some(Order::Stop);
        }
        self.step(index, Step::Restoring);
        self.restore(index, seen);
        None
    }

    fn restore(&mut self, index: usize, seen: &Seen) {
        let is_same = seen.epoch == self.leaves[index].epoch_before;
        match (is_same, seen.presence.answers()) {
            (false, true) => self.arrive(index, seen),
            // It was out of reach for a moment, and never ended.
            (true, true) => self.step(index, Step::Draining),
            (_, false) => self.check_time(index),
        }
    }

    /// A later life of a leaf serves all its rows.
    fn arrive(&mut self, index: usize, seen: &Seen) {
        let now = self.now;
        let leaf = &mut self.leaves[index];
        leaf.took = Some(now.saturating_sub(leaf.stopped_at));
        leaf.version.clone_from(&seen.version);
        leaf.path = if leaf.had_rows { seen.source.clone() } else { String::new() };
        leaf.note.clone_from(&seen.source_detail);
        let name = leaf.leaf.clone();
        let lost = seen.rows_lost.saturating_sub(leaf.rows_lost_before);
        let from_disk = leaf.had_rows && seen.source != "shared memory";
        self.step(index, Step::Done);
        if lost > 0 {
            self.leaves[index].note = format!("{lost} rows are lost; {}", seen.source_detail);
            self.trip(Guard::Lost, format!("{name} came back without {lost} of its rows"));
        }
        if let Some(to) = self.settings.to.clone().filter(|to| *to != seen.version) {
            let why = format!("{name} came back with version {}, not {to}", seen.version);
            self.trip(Guard::Version, why);
        }
        if from_disk {
            self.from_disk += 1;
            if self.from_disk >= super::guards::FROM_DISK_MAX && !self.settings.allow_disk {
                let why = if seen.source_detail.is_empty() { "" } else { ": " };
                let why = format!(
                    "{} leaves came back from disk, {name} the last{why}{}",
                    self.from_disk, seen.source_detail
                );
                self.trip(Guard::Disk, why);
            }
        }
    }

    /// A leaf that is away for too long.
    fn check_time(&mut self, index: usize) {
        let leaf = &self.leaves[index];
        if leaf.excused {
            return;
        }
        let away = self.now.saturating_sub(leaf.stopped_at);
        let seconds = away / 1000;
        if away > self.settings.leaf_seconds_max.saturating_mul(1000) {
            let why = format!("{} is not back after {seconds} s", leaf.leaf);
            self.trip(Guard::Late, why);
        } else if let Some(usual) = self.usual().filter(|usual| away > super::guards::slow_after(*usual)) {
            let why = format!(
                "{} has been away for {seconds} s, and the others took {:.1} s",
                leaf.leaf,
                usual as f64 / 1000.0
            );
            self.trip(Guard::Slow, why);
        }
    }

    /// The median time of the leaves that are done, when there are enough to know.
    fn usual(&self) -> Option<Millis> {
        let known = self.leaves.iter().filter(|leaf: &&Progress| leaf.took.is_some()).count();
        self.median().filter(|_| known >= super::guards::SLOW_KNOWN_MIN)
    }
}
