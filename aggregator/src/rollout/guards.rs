//! What keeps the next leaf waiting, and what pauses a rollout.

use std::collections::BTreeSet;

use super::{Action, Guard, Millis, Rollout, Step, View};

/// So many leaves that come back from disk are no accident.
pub(super) const FROM_DISK_MAX: u32 = 2;
/// So many leaves tell what is usual.
pub(super) const SLOW_KNOWN_MIN: usize = 3;
/// A leaf is slow when it takes so many times the usual, and longer than a restart takes anywhere.
const SLOW_TIMES: u64 = 3;
const SLOW_MIN: Millis = 30_000;
/// What is wrong beside the rollout may be over in a moment, such as a reply that came late. Nothing is begun meanwhile.
const PATIENCE: Millis = 5_000;

/// When a leaf counts as slow.
pub(super) fn slow_after(usual: Millis) -> Millis {
    usual.saturating_mul(SLOW_TIMES).max(SLOW_MIN)
}

/// Why no leaf is begun now.
enum Waits {
    /// For leaves that the rollout stopped.
    ForOwn,
    /// Something is wrong.
    Trouble(Guard, String),
    /// There is none.
    Over,
}

impl Rollout {
    /// Pauses when something is wrong beside the leaves that are restarted.
    pub(super) fn watch(&mut self, view: &View) {
        // The most telling first: who is away, what is too thin now, what would be.
        let trouble = match self.next(view) {
            Ok(_) | Err(Waits::ForOwn | Waits::Over) => self.too_thin(view),
            Err(Waits::Trouble(Guard::Others, why)) => Some((Guard::Others, why)),
            Err(Waits::Trouble(guard, why)) => Some(self.too_thin(view).unwrap_or((guard, why))),
        };
        let Some((guard, why)) = trouble else {
            self.trouble_since = None;
            return;
        };
        let now = self.now;
        let since = *self.trouble_since.get_or_insert(now);
        if now.saturating_sub(since) >= PATIENCE {
            self.trouble_since = None;
            self.trip(guard, why);
        }
    }

    /// Answers are less complete than they may be.
    fn too_thin(&self, view: &View) -> Option<(Guard, String)> {
        let least = self.settings.min_completeness;
        match view.completeness_now() {
            Some(ratio) if ratio >= least => None,
            Some(ratio) => {
                let why = format!("answers are {} complete, less than {}", percent(ratio), percent(least));
                Some((Guard::Completeness, why))
            }
            None => Some((Guard::Completeness, format!("nothing is known of {}", view.unheard.join(", ")))),
        }
    }

    /// Begins the next leaf, if one may be begun.
    pub(super) fn begin_next(&mut self, view: &View) -> Option<Action> {
        let index = self.next(view).ok()?;
        let seen = view.leaves.get(&self.leaves[index].leaf)?;
        Some(self.begin(index, seen))
    }

    /// The leaf to begin now.
    fn next(&self, view: &View) -> Result<usize, Waits> {
        let own: BTreeSet<&str> = self
            .leaves
            .iter()
            .filter(|leaf| leaf.step.is_in_flight())
            .map(|leaf| leaf.leaf.as_str())
            .collect();
        let waiting: Vec<usize> =
            (0..self.leaves.len()).filter(|index| self.leaves[*index].step == Step::Waiting).collect();
        if waiting.is_empty() {
            return Err(Waits::Over);
        }
        let mut away: Vec<String> = view.unheard.clone();
        let others = view
            .leaves
            .iter()
            .filter(|(leaf, seen)| !own.contains(leaf.as_str()) && !seen.presence.answers());
        away.extend(others.map(|(leaf, seen)| format!("{leaf} is {}", seen.presence.name())));
        if own.len() + away.len() >= self.limit() {
            return Err(match (own.is_empty(), away.is_empty()) {
                (_, true) => Waits::ForOwn,
                (_, false) => {
                    let why = format!("{}, and the rollout did not stop it", away.join(", "));
                    Waits::Trouble(Guard::Others, why)
                }
            });
        }
        let mut busy: BTreeSet<&str> = view
            .leaves
            .values()
            .filter(|seen| !seen.presence.answers())
            .map(|seen| seen.machine.as_str())
            .collect();
        // Of a leaf that is away nobody says any more where it runs.
        busy.extend(
            self.leaves.iter().filter(|leaf| leaf.step.is_in_flight()).map(|leaf| leaf.machine.as_str()),
        );
        let least = self.settings.min_completeness;
        let mut thinnest: Option<(f64, &str)> = None;
        for index in waiting {
            let name = self.leaves[index].leaf.as_str();
            let Some(seen) = view.leaves.get(name) else { continue };
            if !seen.presence.answers() || busy.contains(seen.machine.as_str()) {
                continue;
            }
            let left = |leaf: &str, seen: &super::Seen| {
                seen.presence.answers() && !own.contains(leaf) && leaf != name
            };
            let ratio = view.completeness(left).unwrap_or(0.0);
            if ratio >= least {
                return Ok(index);
            }
            thinnest = Some((ratio, name));
        }
        match thinnest {
            Some((ratio, name)) if own.is_empty() => {
                let (is, least) = (percent(ratio), percent(least));
                let why = format!("answers would be {is} complete without {name}, less than {least}");
                Err(Waits::Trouble(Guard::Completeness, why))
            }
            _ if own.is_empty() => {
                Err(Waits::Trouble(Guard::Others, "no leaf is left on a machine where all serve".to_owned()))
            }
            _ => Err(Waits::ForOwn),
        }
    }
}

/// `97.8 %`, rounded down.
pub(super) fn percent(ratio: f64) -> String {
    if ratio >= 1.0 {
        return "100 %".to_owned();
    }
    format!("{:.1} %", (ratio * 1000.0 + 1e-6).floor() / 10.0)
}
