//! A rollout as JSON text, in which it survives whoever drives it.

use serde::{Deserialize, Serialize};

use super::{Guard, MaxUnavailable, Millis, Progress, Rollout, Settings, State, Step};

/// Of the text.
const FORMAT: u32 = 1;

/// Why a text is no rollout.
#[derive(Debug, thiserror::Error)]
pub enum RolloutTextError {
    /// It is no JSON, or lacks something.
    #[error("not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another format.
    #[error("its format is {0}, this version knows format {FORMAT}")]
    Format(u32),
    /// It has a word without a meaning.
    #[error("{what} `{word}` has no meaning")]
    Word {
        /// What it should be.
        what: &'static str,
        /// What it is.
        word: String,
    },
}

#[derive(Serialize, Deserialize)]
struct RolloutText {
    format: u32,
    number: u64,
    begun_at: i64,
    now_ms: Millis,
    from_disk: u32,
    settings: SettingsText,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guard: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    why: String,
    leaves: Vec<LeafText>,
}

#[derive(Serialize, Deserialize)]
struct SettingsText {
    max_unavailable: String,
    min_completeness: f64,
    leaf_seconds_max: u64,
    to: Option<String>,
    allow_disk: bool,
}

#[derive(Serialize, Deserialize)]
struct LeafText {
    leaf: String,
    machine: String,
    step: String,
    since_ms: Millis,
    stopped_at_ms: Millis,
    epoch_before: u64,
    version_before: String,
    version: String,
    rows_lost_before: u64,
    had_rows: bool,
    took_ms: Option<Millis>,
    path: String,
    note: String,
    excused: bool,
}

impl Rollout {
    /// Its text.
    pub fn to_text(&self) -> String {
        let (guard, why) = match &self.state {
            State::Paused { guard, why } => (guard.map(|guard| guard.name().to_owned()), why.clone()),
            _ => (None, String::new()),
        };
        let Settings { max_unavailable, min_completeness, leaf_seconds_max, to, allow_disk } = &self.settings;
        let text = RolloutText {
            format: FORMAT,
            number: self.number,
            begun_at: self.begun_at,
            now_ms: self.now,
            from_disk: self.from_disk,
            settings: SettingsText {
                max_unavailable: max_unavailable.to_string(),
                min_completeness: *min_completeness,
                leaf_seconds_max: *leaf_seconds_max,
                to: to.clone(),
                allow_disk: *allow_disk,
            },
            state: self.state.name().to_owned(),
            guard,
            why,
            leaves: self.leaves.iter().map(leaf_text).collect(),
        };
        // Numbers, texts and lists of them: there is nothing that JSON cannot say.
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// Reads it again.
    ///
    /// # Errors
    /// When it is not such a text.
    pub fn from_text(text: &str) -> Result<Rollout, RolloutTextError> {
        let text: RolloutText = serde_json::from_str(text)?;
        if text.format != FORMAT {
            return Err(RolloutTextError::Format(text.format));
        }
        let wrong = |what, word: &str| RolloutTextError::Word { what, word: word.to_owned() };
        let guard = match &text.guard {
            Some(word) => {
                let known = Guard::ALL.iter().find(|(_, name)| name == word);
                Some(known.ok_or_else(|| wrong("guard", word))?.0)
            }
            None => None,
        };
        let state = match text.state.as_str() {
            "running" => State::Running,
            "paused" => State::Paused { guard, why: text.why },
            "aborted" => State::Aborted,
            "done" => State::Done,
            other => return Err(wrong("state", other)),
        };
        let share = &text.settings.max_unavailable;
        let settings = Settings {
            max_unavailable: MaxUnavailable::parse(share).map_err(|_| wrong("max_unavailable", share))?,
            min_completeness: text.settings.min_completeness,
            leaf_seconds_max: text.settings.leaf_seconds_max,
            to: text.settings.to,
            allow_disk: text.settings.allow_disk,
        };
        Ok(Rollout {
            number: text.number,
            settings,
            state,
            leaves: text.leaves.into_iter().map(progress).collect::<Result<_, _>>()?,
            begun_at: text.begun_at,
            now: text.now_ms,
            from_disk: text.from_disk,
            trouble_since: None,
            version: 1,
        })
    }
}

fn leaf_text(leaf: &Progress) -> LeafText {
    LeafText {
        leaf: leaf.leaf.clone(),
        machine: leaf.machine.clone(),
        step: leaf.step.name().to_owned(),
        since_ms: leaf.since,
        stopped_at_ms: leaf.stopped_at,
        epoch_before: leaf.epoch_before,
        version_before: leaf.version_before.clone(),
        version: leaf.version.clone(),
        rows_lost_before: leaf.rows_lost_before,
        had_rows: leaf.had_rows,
        took_ms: leaf.took,
        path: leaf.path.clone(),
        note: leaf.note.clone(),
        excused: leaf.excused,
    }
}

fn progress(text: LeafText) -> Result<Progress, RolloutTextError> {
    let known = Step::ALL.iter().find(|(_, name)| *name == text.step);
    let Some((step, _)) = known else {
        return Err(RolloutTextError::Word { what: "step", word: text.step });
    };
    Ok(Progress {
        leaf: text.leaf,
        machine: text.machine,
        step: *step,
        since: text.since_ms,
        stopped_at: text.stopped_at_ms,
        epoch_before: text.epoch_before,
        version_before: text.version_before,
        version: text.version,
        rows_lost_before: text.rows_lost_before,
        had_rows: text.had_rows,
        took: text.took_ms,
        path: text.path,
        note: text.note,
        excused: text.excused,
    })
}
