//! Making a rollout: what must hold before anything is stopped.

use std::collections::BTreeMap;

use super::guards::percent;
use super::{Millis, Progress, Rollout, Settings, State, Step, View};

/// Leaves named in one message.
const NAMED_MAX: usize = 8;

/// Why a rollout does not begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Rollout {
    /// A rollout of every leaf that is seen, which has done nothing yet. `begun_at` is in nanoseconds UTC.
    ///
    /// # Errors
    /// When a leaf is not there, or the settings would never allow the first step.
    pub fn plan(view: &View, settings: Settings, number: u64, begun_at: i64) -> Result<Rollout, Refused> {
        settings.check()?;
        everybody_is_there(view)?;
        one_may_be_away(view, &settings)?;
        let leaves = in_order(view, &settings);
        Ok(Rollout {
            number,
            settings,
            state: State::Running,
            leaves,
            begun_at,
            now: 0,
            from_disk: 0,
            trouble_since: None,
            version: 1,
        })
    }
}

impl Settings {
    /// Checks what their types do not.
    ///
    /// # Errors
    /// Names the setting, its value and what it must be.
    pub fn check(&self) -> Result<(), Refused> {
        let least = self.min_completeness;
        if !(0.0..=1.0).contains(&least) {
            let message = format!("min_completeness is {least}, it must be between 0 and 1");
            return Err(Refused { message, hint: "0.95 lets a twentieth of the rows be away.".to_owned() });
        }
        Ok(())
    }
}

fn everybody_is_there(view: &View) -> Result<(), Refused> {
    if view.leaves.is_empty() && view.unheard.is_empty() {
        let hint = "Name children, or wait until they were heard of.".to_owned();
        return Err(Refused { message: "there are no leaves to restart".to_owned(), hint });
    }
    let away = view.leaves.iter().filter(|(_, seen)| !seen.presence.answers());
    let mut away: Vec<String> =
        away.map(|(leaf, seen)| format!("{leaf} is {}", seen.presence.name())).collect();
    away.extend(view.unheard.iter().map(|leaf| format!("nothing was ever heard of {leaf}")));
    if away.is_empty() {
        return Ok(());
    }
    let more = away.len().saturating_sub(NAMED_MAX);
    away.truncate(NAMED_MAX);
    if more > 0 {
        away.push(format!("{more} more"));
    }
    let message = format!("a rollout begins when every leaf serves: {}", away.join(", "));
    Err(Refused { message, hint: "Start what is missing; `gannet status` says why it is.".to_owned() })
}

/// The guard of completeness must let each leaf go by itself.
fn one_may_be_away(view: &View, settings: &Settings) -> Result<(), Refused> {
    let Some((largest, _)) = view.leaves.iter().max_by_key(|(_, seen)| seen.rows) else { return Ok(()) };
    let ratio = view.completeness(|leaf, seen| seen.presence.answers() && leaf != largest).unwrap_or(0.0);
    if ratio >= settings.min_completeness {
        return Ok(());
    }
    let (is, least) = (percent(ratio), percent(settings.min_completeness));
    let message = format!("answers would be {is} complete while {largest} restarts, less than {least}");
    // A little less than what it is now, because rows go on coming.
    let enough = ((ratio * 100.0).floor() - 1.0).max(0.0) / 100.0;
    let count = view.leaves.len();
    let leaves = if count == 1 { "1 leaf".to_owned() } else { format!("{count} leaves") };
    let hint =
        format!("With {leaves} a restart costs that much. If that will do: --min-completeness {enough}");
    Err(Refused { message, hint })
}

/// The leaves machine by machine in turn, so that those of one machine are far from each other, each machine's by name.
fn in_order(view: &View, settings: &Settings) -> Vec<Progress> {
    let mut machines: BTreeMap<&str, Vec<Progress>> = BTreeMap::new();
    let mut names: Vec<&String> = view.leaves.keys().collect();
    // `leaf-10` after `leaf-9`.
    names.sort_by_key(|name| (name.len(), name.as_str()));
    for name in names {
        let seen = &view.leaves[name];
        let is_there = settings.to.as_ref().is_some_and(|to| *to == seen.version);
        machines.entry(&seen.machine).or_default().push(Progress {
            leaf: name.clone(),
            machine: seen.machine.clone(),
            step: if is_there { Step::Skipped } else { Step::Waiting },
            since: 0,
            stopped_at: 0,
            epoch_before: seen.epoch,
            version_before: seen.version.clone(),
            version: if is_there { seen.version.clone() } else { String::new() },
            rows_lost_before: seen.rows_lost,
            had_rows: seen.rows > 0,
            took: None::<Millis>,
            path: String::new(),
            note: if is_there { format!("it runs {} already", seen.version) } else { String::new() },
            excused: false,
        });
    }
    let mut queues: Vec<_> = machines.into_values().map(Vec::into_iter).collect();
    let mut leaves = Vec::new();
    loop {
        let before = leaves.len();
        leaves.extend(queues.iter_mut().filter_map(Iterator::next));
        if leaves.len() == before {
            return leaves;
        }
    }
}
