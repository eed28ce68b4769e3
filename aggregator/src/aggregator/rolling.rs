//! Driving a rollout: looks at the leaves, keeps its text, and gives the orders it comes to.
//!
//! The text is durable before an order is given, and what was begun is taken up again by the next process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::{Aggregator, orders};
use crate::children::Child;
use crate::error::{ErrorCode, Failure};
use crate::rollout::{MaxUnavailable, Millis, Refused, Rollout, Seen, Settings, State, View};
use crate::roster_file::{RosterFileError, replace};

/// The text's name in the data directory.
const NAME: &str = "rollout.json";
/// How long another aggregator may take to tell of its rollout.
const TELL_MAX: Duration = Duration::from_secs(2);
/// How often an open rollout is looked at.
const TICK: Duration = Duration::from_millis(100);

/// The rollout there is or was, and who drives it.
#[derive(Debug)]
pub(super) struct Rolling {
    path: PathBuf,
    current: Mutex<Current>,
    /// Held by whoever writes; the version that the file has.
    kept: tokio::sync::Mutex<u64>,
    wake: Arc<Notify>,
    driver: OnceLock<Driver>,
}

#[derive(Debug)]
struct Current {
    rollout: Option<Rollout>,
    /// When this process took it up, and how long it had run by then.
    taken_up: (Instant, Millis),
    /// Changes whenever another rollout takes its place.
    edition: u64,
}

#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Settings that somebody named; the others stay as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// See [`Settings::max_unavailable`].
    pub max_unavailable: Option<MaxUnavailable>,
    /// See [`Settings::min_completeness`].
    pub min_completeness: Option<f64>,
    /// See [`Settings::leaf_seconds_max`].
    pub leaf_seconds_max: Option<u64>,
    /// See [`Settings::to`].
    pub to: Option<String>,
    /// See [`Settings::allow_disk`].
    pub allow_disk: Option<bool>,
}

impl Changes {
    fn of(self, settings: Settings) -> Settings {
        Settings {
            max_unavailable: self.max_unavailable.unwrap_or(settings.max_unavailable),
            min_completeness: self.min_completeness.unwrap_or(settings.min_completeness),
            leaf_seconds_max: self.leaf_seconds_max.unwrap_or(settings.leaf_seconds_max),
            to: self.to.or(settings.to),
            allow_disk: self.allow_disk.unwrap_or(settings.allow_disk),
        }
    }
}

/// A rollout, and what is seen of the leaves now.
#[derive(Debug, Clone)]
pub struct RolloutNow {
    /// The rollout.
    pub rollout: Rollout,
    /// Who runs it, when it is another aggregator.
    pub at: Option<String>,
    /// The leaves.
    pub view: View,
}

impl Rolling {
    /// Takes up what the data directory has. A text that cannot be used is put aside: nothing goes on by itself then.
    pub(super) fn open(data_dir: &Path) -> Rolling {
        let path = data_dir.join(NAME);
        let rollout = std::fs::read_to_string(&path).ok().and_then(|text| match Rollout::from_text(&text) {
            Ok(rollout) => Some(rollout),
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "the rollout is not taken up; its file is put aside");
                if let Err(error) = std::fs::rename(&path, path.with_extension("json.bad")) {
                    tracing::error!(%error, "nor could it be put aside");
                }
                None
            }
        });
        let ran = rollout.as_ref().map_or(0, Rollout::elapsed);
        let version = rollout.as_ref().map_or(0, Rollout::version);
        let current = Current { rollout, taken_up: (Instant::now(), ran), edition: 0 };
        Rolling {
            path,
            current: Mutex::new(current),
            kept: tokio::sync::Mutex::new(version),
            wake: Arc::default(),
            driver: OnceLock::new(),
        }
    }

    /// Begins to drive, until the aggregator is gone. Must be called inside a tokio runtime.
    pub(super) fn drive(&self, aggregator: &Arc<Aggregator>) {
        let driving = drive(Arc::downgrade(aggregator), Arc::clone(&self.wake));
        self.driver.get_or_init(|| Driver(tokio::spawn(driving)));
    }

    fn is_open(&self) -> bool {
        self.current.lock().rollout.as_ref().is_some_and(Rollout::is_open)
    }

    /// Writes the text if it changed.
    async fn keep(&self) -> Result<(), RosterFileError> {
        let mut kept = self.kept.lock().await;
        let (version, text) = {
            let current = self.current.lock();
            let Some(rollout) = &current.rollout else { return Ok(()) };
            // Rollouts of this process have numbers of their own, and each its versions.
            let version = (current.edition << 32) + rollout.version();
            if version == *kept {
                return Ok(());
            }
            (version, rollout.to_text())
        };
        let path = self.path.clone();
        let write = tokio::task::spawn_blocking(move || replace(&path, &text));
        write.await.unwrap_or_else(|error| {
            let source = std::io::Error::other(error);
            Err(RosterFileError::Io { what: "write", path: self.path.clone(), source })
        })?;
        *kept = version;
        Ok(())
    }
}

impl Current {
    fn now(&self) -> Millis {
        let (since, ran) = self.taken_up;
        ran + u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn drive(aggregator: Weak<Aggregator>, wake: Arc<Notify>) {
    let mut failing = false;
    loop {
        let Some(is_open) = aggregator.upgrade().map(|aggregator| aggregator.rolling.is_open()) else {
            return;
        };
        if is_open || failing {
            tokio::time::sleep(TICK).await;
        } else {
            wake.notified().await;
        }
        let Some(aggregator) = aggregator.upgrade() else { return };
        match aggregator.roll_on().await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, source, "the rollout waits until its file can be written");
            }
            Err(_) => {}
        }
    }
}

impl Aggregator {
    /// Takes the rollout a step further.
    async fn roll_on(self: &Arc<Self>) -> Result<(), RosterFileError> {
        let view = self.view();
        let (actions, in_flight) = {
            let mut current = self.rolling.current.lock();
            let now = current.now();
            match current.rollout.as_mut().filter(|rollout| rollout.is_open()) {
                Some(rollout) => {
                    let actions = rollout.tick(&view, now);
                    let leaves = rollout.leaves().iter().filter(|leaf| leaf.step.is_in_flight());
                    (actions, leaves.map(|leaf| leaf.leaf.clone()).collect::<Vec<_>>())
                }
                None => (Vec::new(), Vec::new()),
            }
        };
        self.rolling.keep().await?;
        self.look_at(&in_flight);
        let orders = actions.into_iter().map(|action| async move {
            if let Err(error) = self.order(action.order, &action.leaf, action.epoch).await {
                // What is seen next decides; the order is given again if it still has to be.
                tracing::debug!(%error, leaf = action.leaf, "an order of the rollout was not followed");
            }
        });
        futures::future::join_all(orders).await;
        Ok(())
    }

    /// Has the children of these leaves describe themselves now.
    fn look_at(&self, leaves: &[String]) {
        if leaves.is_empty() {
            return;
        }
        let known = self.roster().lock().leaves();
        for leaf in known.iter().filter(|known| leaves.contains(&known.leaf)) {
            if let Some(child) = self.child_at(&leaf.child) {
                child.probe_soon();
            }
        }
    }

    /// What a rollout sees of the leaves.
    fn view(&self) -> View {
        let down = self.down();
        let roster = self.roster().lock();
        let leaves = roster.leaves().into_iter().map(|leaf| {
            let (presence, _) = orders::presence(&leaf, &down);
            let said = leaf.said.as_ref();
            let machine = said.map(|said| said.machine.clone()).filter(|machine| !machine.is_empty());
            let seen = Seen {
                machine: machine.unwrap_or_else(|| host_of(&leaf.child)),
                epoch: said.map_or(leaf.epoch, |said| said.epoch),
                version: said.map(|said| said.version.clone()).unwrap_or_default(),
                presence,
                source: said.map(|said| said.source.clone()).unwrap_or_default(),
                source_detail: said.map(|said| said.source_detail.clone()).unwrap_or_default(),
                rows: leaf.rows,
                rows_lost: leaf.rows_lost,
            };
            (leaf.leaf, seen)
        });
        let unheard = roster.unheard().into_iter().map(|(leaf, _)| leaf);
        View { leaves: leaves.collect(), unheard: unheard.collect() }
    }

    /// The rollout there is, or was last.
    pub fn rollout(&self) -> Option<RolloutNow> {
        let view = self.view();
        let rollout = self.rolling.current.lock().rollout.clone()?;
        Some(RolloutNow { rollout, at: None, view })
    }

    /// The rollout as it is kept.
    pub(crate) fn rollout_text(&self) -> Option<String> {
        self.rolling.current.lock().rollout.as_ref().map(Rollout::to_text)
    }

    /// The rollout that runs, here or at another aggregator, or else the one that was begun last.
    pub async fn rollout_anywhere(&self) -> Option<RolloutNow> {
        let own = self.rollout();
        if own.as_ref().is_some_and(|now| now.rollout.is_unfinished()) {
            return own;
        }
        let order = |rollout: &Rollout| (rollout.is_unfinished(), rollout.begun_at());
        let others = self.rollouts_elsewhere().await.into_iter().max_by_key(|(rollout, _)| order(rollout));
        match (own, others) {
            (Some(own), Some((other, _))) if order(&own.rollout) >= order(&other) => Some(own),
            (_, Some((rollout, at))) => Some(RolloutNow { rollout, at: Some(at), view: self.view() }),
            (own, None) => own,
        }
    }

    /// The rollouts of other aggregators, with where they are.
    async fn rollouts_elsewhere(&self) -> Vec<(Rollout, String)> {
        let others = self.fan_out().between().up();
        let ask = async |other: &Child| -> Option<(Rollout, String)> {
            let text = other.rollout(TELL_MAX).await.ok().filter(|text| !text.is_empty())?;
            match Rollout::from_text(&text) {
                Ok(rollout) => Some((rollout, other.address().to_owned())),
                Err(error) => {
                    tracing::warn!(aggregator = other.address(), %error, "its rollout cannot be understood");
                    None
                }
            }
        };
        let told = futures::future::join_all(others.iter().map(|other| ask(other))).await;
        told.into_iter().flatten().collect()
    }

    /// Refuses what only the aggregator that runs a rollout can do.
    ///
    /// # Errors
    /// When another aggregator runs one.
    pub async fn rolls_here(&self) -> Result<(), Failure> {
        match self.rollout_anywhere().await {
            Some(RolloutNow { rollout, at: Some(at), .. }) if rollout.is_unfinished() => {
                let message = format!("rollout {} is run by another aggregator, at {at}", rollout.id());
                Err(Failure::new(ErrorCode::WrongState, message)
                    .hint("`gannet rollout status` shows it here too; everything else is said to that one."))
            }
            _ => Ok(()),
        }
    }

    /// The rollout that a start with these settings would begin, or go on with; nothing is changed.
    ///
    /// # Errors
    /// When it would be refused.
    pub fn plan_rollout(&self, changes: Changes) -> Result<RolloutNow, Failure> {
        let view = self.view();
        let current = self.rolling.current.lock().rollout.clone();
        let rollout = planned(current.as_ref(), changes, &view)?;
        Ok(RolloutNow { rollout, at: None, view })
    }

    /// Begins a rollout; goes on with one that is paused; leaves one alone that runs.
    ///
    /// # Errors
    /// When a leaf is not there, the settings would never allow the first step, or it cannot be kept.
    pub async fn start_rollout(&self, changes: Changes) -> Result<RolloutNow, Failure> {
        self.refresh().await;
        let view = self.view();
        {
            let mut current = self.rolling.current.lock();
            let next = planned(current.rollout.as_ref(), changes, &view)?;
            let is_new = current.rollout.as_ref().is_none_or(|rollout| rollout.number() != next.number());
            if is_new {
                current.taken_up = (Instant::now(), 0);
                current.edition += 1;
            }
            current.rollout = Some(next);
        }
        self.changed().await
    }

    /// Begins no further leaf.
    ///
    /// # Errors
    /// When no rollout runs, or this cannot be kept.
    pub async fn pause_rollout(&self) -> Result<RolloutNow, Failure> {
        self.change("paused", Rollout::pause).await
    }

    /// Goes on after a pause.
    ///
    /// # Errors
    /// When none is paused, or this cannot be kept.
    pub async fn resume_rollout(&self, changes: Changes) -> Result<RolloutNow, Failure> {
        changes.clone().of(Settings::default()).check().map_err(refused)?;
        self.change("resumed", |rollout| {
            let settings = changes.of(rollout.settings().clone());
            rollout.resume(settings)
        })
        .await
    }

    /// Gives it up; leaves that were stopped come back all the same.
    ///
    /// # Errors
    /// When there is none, or this cannot be kept.
    pub async fn abort_rollout(&self) -> Result<RolloutNow, Failure> {
        self.change("aborted", Rollout::abort).await
    }

    async fn change(
        &self,
        what: &str,
        change: impl FnOnce(&mut Rollout) -> bool,
    ) -> Result<RolloutNow, Failure> {
        {
            let mut current = self.rolling.current.lock();
            let Some(rollout) = &mut current.rollout else {
                let failure =
                    Failure::new(ErrorCode::WrongState, format!("there is no rollout to be {what}"));
                return Err(failure.hint("`gannet rollout start` begins one."));
            };
            if !change(rollout) {
                let (id, state) = (rollout.id(), rollout.state().name());
                let message = format!("rollout {id} is {state} and cannot be {what}");
                return Err(Failure::new(ErrorCode::WrongState, message)
                    .hint("`gannet rollout status` shows how far it is."));
            }
        }
        self.changed().await
    }

    /// Keeps what was changed, and has it done.
    async fn changed(&self) -> Result<RolloutNow, Failure> {
        self.rolling.keep().await.map_err(|error| {
            let why = std::error::Error::source(&error).map(|source| format!("{source}."));
            let failure = Failure::new(ErrorCode::Internal, format!("the rollout is not kept: {error}"));
            failure.detail(why.unwrap_or_default())
        })?;
        self.rolling.wake.notify_one();
        self.rollout().ok_or_else(|| Failure::new(ErrorCode::Internal, "the rollout is gone"))
    }
}

fn refused(refused: Refused) -> Failure {
    Failure::new(ErrorCode::WrongState, refused.message).hint(refused.hint)
}

/// What a start leads to.
fn planned(current: Option<&Rollout>, changes: Changes, view: &View) -> Result<Rollout, Failure> {
    match current {
        Some(rollout) if *rollout.state() == State::Running => Ok(rollout.clone()),
        Some(rollout) if rollout.is_unfinished() => {
            let mut rollout = rollout.clone();
            let settings = changes.of(rollout.settings().clone());
            settings.check().map_err(refused)?;
            rollout.resume(settings);
            Ok(rollout)
        }
        before => {
            let number = before.map_or(0, Rollout::number) + 1;
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let begun_at = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
            Rollout::plan(view, changes.of(Settings::default()), number, begun_at).map_err(refused)
        }
    }
}

/// The host of an address: what tells machines apart where leaves do not say.
fn host_of(address: &str) -> String {
    if address.starts_with("unix:") {
        return "this machine".to_owned();
    }
    address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned()
}

#[cfg(test)]
mod tests;
