//! A rolling restart: every leaf is drained, stopped and awaited, few at a time, for as long as nothing is wrong.
//!
//! It is a plain state machine: it does no I/O and knows no clock. Whoever drives it says what is seen of the leaves and
//! how much time has passed ([`Rollout::tick`]), keeps its text (`text`) before it does what comes back, and may forget
//! everything else at any moment: what was done is found out again from what is seen, and orders name the life of the
//! leaf that they are meant for, so that giving one twice does no harm. Who starts the new process is not its business.
//!
//! Invariants: a leaf is only begun while fewer leaves are away than may be, none of them on its machine, and what is left
//! is complete enough; a leaf is done when a later life of it serves all its rows; a guard (`guards`) pauses, and only a
//! person goes on after that.

use std::collections::BTreeMap;

mod guards;
mod plan;
mod steps;
mod text;

pub use plan::Refused;
pub use text::RolloutTextError;

/// Something that a leaf is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Take no new batches.
    Drain,
    /// Take batches again.
    Undrain,
    /// Hand over and end.
    Stop,
}

/// Milliseconds of the time that a rollout has run. The time in which nobody drives it does not count, and no wall clock
/// is asked, so that none that jumps can make a leaf late.
pub type Millis = u64;

/// How many leaves may be away at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxUnavailable {
    /// This part of all leaves, 0 to 1, and always one.
    Share(f64),
    /// So many.
    Leaves(usize),
}

impl MaxUnavailable {
    /// Of this many leaves.
    pub fn of(self, leaves: usize) -> usize {
        match self {
            MaxUnavailable::Share(share) => ((leaves as f64 * share).floor() as usize).max(1),
            MaxUnavailable::Leaves(count) => count.max(1),
        }
    }

    /// Reads `2%` or `3`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<MaxUnavailable, String> {
        let wrong =
            || format!("`{text}` must be a number of leaves, such as 2, or a share of them, such as 2%");
        match text.strip_suffix('%') {
            Some(number) => match number.trim().parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => {
                    Ok(MaxUnavailable::Share(percent / 100.0))
                }
                _ => Err(wrong()),
            },
            None => match text.trim().parse::<usize>() {
                Ok(count) if count > 0 => Ok(MaxUnavailable::Leaves(count)),
                _ => Err(wrong()),
            },
        }
    }
}

impl std::fmt::Display for MaxUnavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MaxUnavailable::Share(share) => {
                // Ten digits are more than anybody types, and fewer than floats get wrong.
                let percent = format!("{:.10}", share * 100.0);
                write!(f, "{}%", percent.trim_end_matches('0').trim_end_matches('.'))
            }
            MaxUnavailable::Leaves(count) => write!(f, "{count}"),
        }
    }
}

/// What a rollout may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How many leaves may be away at once.
    pub max_unavailable: MaxUnavailable,
    /// The least completeness of answers meanwhile, 0 to 1.
    pub min_completeness: f64,
    /// A leaf that is not back this long after it was stopped pauses the rollout.
    pub leaf_seconds_max: u64,
    /// The version that leaves must come back with; those that run it already are left alone.
    pub to: Option<String>,
    /// Leaves that come back from disk do not pause the rollout.
    pub allow_disk: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_unavailable: MaxUnavailable::Share(0.02),
            min_completeness: 0.95,
            leaf_seconds_max: 600,
            to: None,
            allow_disk: false,
        }
    }
}

/// Whether a leaf is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It cannot be reached.
    Away,
    /// It is starting: it has not all its rows yet.
    Starting,
    /// It serves all its rows.
    Serving,
    /// It serves all its rows, and takes no new ones.
    Draining,
    /// It is handing over.
    Stopping,
}

impl Presence {
    /// Every presence with its word, which files and replies have.
    pub const ALL: [(Presence, &'static str); 5] = [
        (Presence::Away, "down"),
        (Presence::Starting, "starting"),
        (Presence::Serving, "serving"),
        (Presence::Draining, "draining"),
        (Presence::Stopping, "stopping"),
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(presence, _)| *presence == self).map_or("down", |(_, name)| name)
    }

    /// All its rows are in answers.
    fn answers(self) -> bool {
        matches!(self, Presence::Serving | Presence::Draining)
    }
}

/// What is seen of a leaf.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The machine it runs on.
    pub machine: String,
    /// Which of its lives this is.
    pub epoch: u64,
    /// The version of its program.
    pub version: String,
    /// Whether it is there.
    pub presence: Presence,
    /// Where its rows came from when it started.
    pub source: String,
    /// Why not from somewhere faster.
    pub source_detail: String,
    /// Rows it holds, or held.
    pub rows: u64,
    /// Rows it once held that are gone.
    pub rows_lost: u64,
}

/// What is seen of all leaves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    /// By id.
    pub leaves: BTreeMap<String, Seen>,
    /// Leaves of which nothing was ever heard.
    pub unheard: Vec<String>,
}

impl View {
    /// The part of all rows that these leaves have in answers; `None` when nobody knows. Rounded down.
    fn completeness(&self, counts: impl Fn(&str, &Seen) -> bool) -> Option<f64> {
        if !self.unheard.is_empty() {
            return None;
        }
        let expected: u64 = self.leaves.values().map(|seen| seen.rows + seen.rows_lost).sum();
        let covered: u64 =
            self.leaves.iter().filter(|(leaf, seen)| counts(leaf, seen)).map(|(_, seen)| seen.rows).sum();
        if covered == expected {
            return Some(1.0);
        }
        Some((u128::from(covered) * 1_000_000 / u128::from(expected)) as f64 / 1e6)
    }

    /// How complete an answer over everything would be now.
    pub fn completeness_now(&self) -> Option<f64> {
        self.completeness(|_, seen| seen.presence.answers())
    }
}

/// How far a leaf is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its turn has not come.
    Waiting,
    /// It is to take no new batches.
    Draining,
    /// It was told to stop.
    Stopping,
    /// It is away, or back without all its rows.
    Restoring,
    /// A later life of it serves all its rows.
    Done,
    /// It is left alone.
    Skipped,
}

impl Step {
    /// Every step with its word, which files and replies have.
    pub const ALL: [(Step, &'static str); 6] = [
        (Step::Waiting, "waiting"),
        (Step::Draining, "draining"),
        (Step::Stopping, "stopping"),
        (Step::Restoring, "restoring"),
        (Step::Done, "done"),
        (Step::Skipped, "skipped"),
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(step, _)| *step == self).map_or("waiting", |(_, name)| name)
    }

    /// It was begun and is not done.
    pub fn is_in_flight(self) -> bool {
        matches!(self, Step::Draining | Step::Stopping | Step::Restoring)
    }
}

/// A leaf's part in a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Its id.
    pub leaf: String,
    /// The machine it runs on.
    pub machine: String,
    /// How far it is.
    pub step: Step,
    /// Since when.
    pub since: Millis,
    /// When it was told to stop.
    pub stopped_at: Millis,
    /// The life that is to end.
    pub epoch_before: u64,
    /// The version that is to end.
    pub version_before: String,
    /// The version it came back with.
    pub version: String,
    /// Rows that were lost before.
    pub rows_lost_before: u64,
    /// It has rows to bring back.
    pub had_rows: bool,
    /// How long it took from the order to stop until it had all its rows again.
    pub took: Option<Millis>,
    /// Where its rows came from.
    pub path: String,
    /// What people should know.
    pub note: String,
    /// A person went on although it is late.
    pub excused: bool,
}

/// What makes a rollout pause by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// Answers are less complete than they may be, or would be.
    Completeness,
    /// Leaves are away that the rollout did not stop.
    Others,
    /// A leaf does not drain.
    Drain,
    /// A leaf takes much longer than the others.
    Slow,
    /// A leaf does not come back.
    Late,
    /// Leaves come back from disk.
    Disk,
    /// A leaf came back without all its rows.
    Lost,
    /// A leaf came back with another version than it should.
    Version,
}

impl Guard {
    /// Every guard with its word, which files and replies have.
    pub const ALL: [(Guard, &'static str); 8] = [
        (Guard::Completeness, "completeness"),
        (Guard::Others, "others_away"),
        (Guard::Drain, "not_draining"),
        (Guard::Slow, "slow"),
        (Guard::Late, "not_back"),
        (Guard::Disk, "disk"),
        (Guard::Lost, "rows_lost"),
        (Guard::Version, "version"),
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(guard, _)| *guard == self).map_or("completeness", |(_, name)| name)
    }
}

/// Whether a rollout goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It goes on by itself.
    Running,
    /// No further leaf is begun.
    Paused {
        /// Which guard paused it; `None` for a person.
        guard: Option<Guard>,
        /// Why, in words.
        why: String,
    },
    /// It was given up; leaves that were stopped are still awaited.
    Aborted,
    /// Every leaf is done.
    Done,
}

impl State {
    /// Its word.
    pub fn name(&self) -> &'static str {
        match self {
            State::Running => "running",
            State::Paused { .. } => "paused",
            State::Aborted => "aborted",
            State::Done => "done",
        }
    }
}

/// What is to be done now: an order for one life of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// What.
    pub order: Order,
    /// Who.
    pub leaf: String,
    /// In which life.
    pub epoch: u64,
}

/// A rolling restart. See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// Counts rollouts of this aggregator, from 1.
    number: u64,
    settings: Settings,
    state: State,
    /// The leaves in the order in which they are begun.
    leaves: Vec<Progress>,
    /// When it was begun, nanoseconds UTC, for people.
    begun_at: i64,
    /// How long it has run.
    now: Millis,
    /// Leaves that came back from disk since a person went on last.
    from_disk: u32,
    /// Since when it cannot go on although nothing is in flight, or something is wrong beside it.
    trouble_since: Option<Millis>,
    /// Grows with every change that must be kept.
    version: u64,
}

impl Rollout {
    /// What it is called.
    pub fn id(&self) -> String {
        format!("r-{}", self.number)
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What it may do.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether it goes on.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The leaves in the order in which they are begun.
    pub fn leaves(&self) -> &[Progress] {
        &self.leaves
    }

    /// When it was begun, nanoseconds UTC.
    pub fn begun_at(&self) -> i64 {
        self.begun_at
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Millis {
        self.now
    }

    /// Grows with every change that must be kept.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many leaves may be away at once.
    pub fn limit(&self) -> usize {
        self.settings.max_unavailable.of(self.leaves.len())
    }

    /// Somebody has to look at it again: it runs, or leaves that it stopped are not back.
    pub fn is_open(&self) -> bool {
        self.state == State::Running || self.leaves.iter().any(|leaf| leaf.step.is_in_flight())
    }

    /// It is neither done nor given up.
    pub fn is_unfinished(&self) -> bool {
        matches!(self.state, State::Running | State::Paused { .. })
    }

    /// How much longer it takes if nothing changes; `None` before the first leaf is done.
    pub fn left(&self) -> Option<Millis> {
        let left = self.leaves.iter().filter(|leaf| leaf.step == Step::Waiting || leaf.step.is_in_flight());
        let turns = left.count().div_ceil(self.limit().min(self.machines()).max(1)) as u64;
        Some(self.median()? * turns)
    }

    fn machines(&self) -> usize {
        let machines: std::collections::BTreeSet<&str> =
            self.leaves.iter().map(|leaf| leaf.machine.as_str()).collect();
        machines.len()
    }

    /// The median time of the leaves that are done.
    fn median(&self) -> Option<Millis> {
        let mut took: Vec<Millis> = self.leaves.iter().filter_map(|leaf| leaf.took).collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied()
    }

    /// Looks at the leaves and says what is to be done. What it says is done only after its text was kept, if its version
    /// changed. Time never runs backwards.
    pub fn tick(&mut self, view: &View, now: Millis) -> Vec<Action> {
        self.now = self.now.max(now);
        let mut actions = self.follow(view);
        if self.state == State::Running {
            self.watch(view);
        }
        if self.state == State::Running
            && let Some(action) = self.begin_next(view)
        {
            actions.push(action);
        }
        let finished = |leaf: &Progress| matches!(leaf.step, Step::Done | Step::Skipped);
        if self.is_unfinished() && self.leaves.iter().all(finished) && self.guard().is_none() {
            self.enter(State::Done);
        }
        actions
    }

    /// The guard that paused it.
    fn guard(&self) -> Option<Guard> {
        match &self.state {
            State::Paused { guard, .. } => *guard,
            _ => None,
        }
    }

    /// Begins no further leaf until somebody resumes. False when it does not run.
    pub fn pause(&mut self) -> bool {
        let runs = self.state == State::Running;
        if runs {
            self.enter(State::Paused { guard: None, why: "somebody paused it".to_owned() });
        }
        runs
    }

    /// Goes on, with these settings. False when it was not paused.
    pub fn resume(&mut self, settings: Settings) -> bool {
        let paused = matches!(self.state, State::Paused { .. });
        if paused {
            self.settings = settings;
            self.from_disk = 0;
            self.trouble_since = None;
            for leaf in self.leaves.iter_mut().filter(|leaf| leaf.step.is_in_flight()) {
                leaf.excused = true;
            }
            self.enter(State::Running);
        }
        paused
    }

    /// Gives it up. False when it is over already.
    pub fn abort(&mut self) -> bool {
        let unfinished = self.is_unfinished();
        if unfinished {
            self.enter(State::Aborted);
        }
        unfinished
    }

    fn enter(&mut self, state: State) {
        tracing::info!(rollout = self.id(), state = state.name(), "rollout");
        self.state = state;
        self.version += 1;
    }

    fn trip(&mut self, guard: Guard, why: String) {
        if self.is_unfinished() && self.guard().is_none() {
            tracing::warn!(rollout = self.id(), guard = guard.name(), why, "the rollout pauses");
            self.enter(State::Paused { guard: Some(guard), why });
        }
    }
}

#[cfg(test)]
mod tests;
