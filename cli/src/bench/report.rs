//! What a restart bench found: as JSON, and as a table for people.

use std::fmt::Write as _;

use gannet_query::Phase;
use serde::Serialize;

use super::copy::Speed;
use super::load::Load;
use super::memory::Sample;
use crate::units;

/// Everything that one run found.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    /// The version of Gannet.
    pub(super) version: &'static str,
    /// Processors of the machine.
    pub(super) processors: usize,
    /// Bytes that were asked for.
    pub(super) bytes_asked: u64,
    /// Copying into fresh shared memory in the same run: on one thread, then on all.
    pub(super) copy: Vec<Speed>,
    /// What was measured, in order.
    pub(super) runs: Vec<Run>,
    /// Measurements that were left out, with why.
    pub(super) skipped: Vec<String>,
    /// Answers that were wrong, and acknowledged rows that are gone although they should have survived.
    pub(super) problems: Vec<String>,
}

/// One end of a leaf and the start after it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Run {
    /// Its name.
    pub(super) name: &'static str,
    /// What was done.
    pub(super) what: String,
    /// What was held before.
    pub(super) load: Load,
    /// How it stopped, unless it was killed.
    pub(super) stop: Option<Stop>,
    /// How it started.
    pub(super) start: Start,
    /// Reading all its files once, under the same conditions as the start; only for starts from disk.
    pub(super) files: Option<Speed>,
}

/// A clean stop.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Stop {
    /// From SIGTERM to the end of the process.
    pub(super) seconds: f64,
    /// What it was doing, as seen from outside.
    pub(super) states: Vec<NamedSeconds>,
    /// The leaf's own account, as far as it could be asked for it.
    pub(super) phases: Vec<PhaseText>,
    /// Bytes that the segments grew by.
    pub(super) moved_bytes: u64,
    /// Moving them, by the leaf's own clock; `None` when nothing had to move.
    pub(super) hand_over: Option<Speed>,
    /// The same as a share of the fastest copy.
    pub(super) share_of_copy: Option<f64>,
    /// Heap and segments just before.
    pub(super) memory_before_bytes: u64,
    /// The most that heap and segments took together.
    pub(super) memory_peak_bytes: u64,
    /// Samples a second that this is known from.
    pub(super) samples_per_second: f64,
    /// The samples, about a hundred of them.
    pub(super) memory: Vec<Sample>,
}

/// A start.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Start {
    /// From exec to the first answer with a completeness record.
    pub(super) first_answer_seconds: f64,
    /// From exec to the first answer with every row and completeness 1; `None`: never.
    pub(super) correct_seconds: Option<f64>,
    /// From exec until the leaf said that it serves.
    pub(super) serving_seconds: f64,
    /// Where the rows came from, in the leaf's words: the path taken.
    pub(super) source: String,
    /// What it refused, in its words.
    pub(super) source_detail: String,
    /// The leaf's own account.
    pub(super) phases: Vec<PhaseText>,
    /// Rows that were acknowledged before.
    pub(super) rows_expected: u64,
    /// Rows of the last answer.
    pub(super) rows_found: u64,
    /// Seconds of reading a column of every row after that, which tells whether they are the right ones.
    pub(super) check_seconds: f64,
    /// Bytes a second from exec until every row was there, when they were read from disk.
    pub(super) gb_per_second: Option<f64>,
    /// Rows covered by answers over time.
    pub(super) rows_over_time: Vec<(f64, u64)>,
}

/// A phase in the leaf's words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct PhaseText {
    /// Its name.
    pub(super) name: String,
    /// How long.
    pub(super) seconds: f64,
    /// Bytes it handled.
    pub(super) bytes: u64,
}

impl From<Phase> for PhaseText {
    fn from(phase: Phase) -> PhaseText {
        PhaseText { name: phase.name, seconds: phase.seconds, bytes: phase.bytes }
    }
}

/// How long something took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct NamedSeconds {
    /// What.
    pub(super) name: String,
    /// How long.
    pub(super) seconds: f64,
}

impl Stop {
    /// What heap and segments took more than before.
    pub(super) fn memory_over_bytes(&self) -> u64 {
        self.memory_peak_bytes.saturating_sub(self.memory_before_bytes)
    }
}

impl Start {
    /// Rows that did not come back.
    pub(super) fn rows_lost(&self) -> u64 {
        self.rows_expected.saturating_sub(self.rows_found)
    }
}

impl Report {
    /// The fastest of the copies.
    pub(super) fn fastest_copy(&self) -> Option<Speed> {
        self.copy.iter().copied().max_by(|a, b| a.gb_per_second.total_cmp(&b.gb_per_second))
    }

    /// As people read it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let asked = units::bytes(self.bytes_asked);
        writeln!(out, "gannet {}, {} processors, {asked} asked for", self.version, self.processors)?;
        let copies = self.copy.iter().map(|copy| format!("{} on {}", speed(copy), threads(copy.threads)));
        writeln!(out, "copy into fresh shared memory: {}", copies.collect::<Vec<_>>().join(", "))?;
        for run in &self.runs {
            write_run(out, run)?;
        }
        for skipped in &self.skipped {
            writeln!(out, "\nleft out: {skipped}")?;
        }
        for problem in &self.problems {
            writeln!(out, "\nwrong: {problem}")?;
        }
        Ok(())
    }
}

fn write_run(out: &mut String, run: &Run) -> std::fmt::Result {
    let held = format!("{} in {}", units::bytes(run.load.bytes), units::rows(run.load.rows));
    writeln!(out, "\n{}: {}", run.name, run.what)?;
    line(out, "held", &format!("{held}, acknowledged with durability {}", run.load.durability))?;
    if let Some(stop) = &run.stop {
        write_stop(out, stop)?;
    }
    let start = &run.start;
    line(out, "first answer", &format!("{} after exec", units::seconds(start.first_answer_seconds)))?;
    let correct = match (start.correct_seconds, start.gb_per_second) {
        (Some(seconds), Some(rate)) => format!("{} after exec, {rate:.2} GB/s", units::seconds(seconds)),
        (Some(seconds), None) => format!("{} after exec", units::seconds(seconds)),
        (None, _) => {
            let lost = gannet_client::percent(start.rows_lost(), start.rows_expected);
            format!("never, {lost} lost ({})", units::rows(start.rows_lost()))
        }
    };
    line(out, "complete", &correct)?;
    line(out, "serving", &format!("{} after exec", units::seconds(start.serving_seconds)))?;
    let source = match start.source_detail.as_str() {
        "" => start.source.clone(),
        detail => format!("{} ({detail})", start.source),
    };
    line(out, "path taken", &source)?;
    write_phases(out, "phases of the start", &start.phases)?;
    if let Some(files) = &run.files {
        line(out, "reading the files", &format!("{} in {}", speed(files), units::seconds(files.seconds)))?;
    }
    line(out, "checking every row", &units::seconds(start.check_seconds))
}

fn write_stop(out: &mut String, stop: &Stop) -> std::fmt::Result {
    line(out, "stop", &format!("{} from SIGTERM to exit", units::seconds(stop.seconds)))?;
    let states: Vec<String> =
        stop.states.iter().map(|state| format!("{} {}", state.name, units::seconds(state.seconds))).collect();
    line(out, "as seen from outside", &states.join(", "))?;
    write_phases(out, "phases of the stop", &stop.phases)?;
    let moved = match (&stop.hand_over, stop.share_of_copy) {
        (Some(moved), Some(share)) => format!(
            "{} moved at {}, {:.0} % of the fastest copy",
            units::bytes(moved.bytes),
            speed(moved),
            share * 100.0
        ),
        (Some(moved), None) => format!("{} moved at {}", units::bytes(moved.bytes), speed(moved)),
        (None, _) => "nothing had to move".to_owned(),
    };
    line(out, "hand-over", &moved)?;
    let memory = format!(
        "{} before, {} at most ({} more), {:.0} samples/s",
        units::bytes(stop.memory_before_bytes),
        units::bytes(stop.memory_peak_bytes),
        units::bytes(stop.memory_over_bytes()),
        stop.samples_per_second
    );
    line(out, "heap and segments", &memory)
}

fn write_phases(out: &mut String, name: &str, phases: &[PhaseText]) -> std::fmt::Result {
    if phases.is_empty() {
        return Ok(());
    }
    let phase = |phase: &PhaseText| match phase.bytes {
        0 => format!("{} {}", phase.name, units::seconds(phase.seconds)),
        bytes => format!("{} {} ({})", phase.name, units::seconds(phase.seconds), units::bytes(bytes)),
    };
    line(out, name, &phases.iter().map(phase).collect::<Vec<_>>().join(", "))
}

fn line(out: &mut String, name: &str, value: &str) -> std::fmt::Result {
    writeln!(out, "  {name:<21} {value}")
}

fn speed(speed: &Speed) -> String {
    format!("{:.2} GB/s", speed.gb_per_second)
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") }
}

#[cfg(test)]
pub(super) fn sample() -> Report {
    let load =
        Load { rows: 1000, sum: 0, bytes: 2_000_000_000, seconds: 9.0, durability: "power".to_owned() };
    let start = Start {
        first_answer_seconds: 0.031,
        correct_seconds: Some(0.04),
        serving_seconds: 0.05,
        source: "shared memory".to_owned(),
        source_detail: String::new(),
        phases: vec![PhaseText { name: "attaching".to_owned(), seconds: 0.01, bytes: 2_000_000_000 }],
        rows_expected: 1000,
        rows_found: 1000,
        check_seconds: 0.5,
        gb_per_second: None,
        rows_over_time: vec![(0.031, 400), (0.04, 1000)],
    };
    let at = |seconds, heap_bytes, shm_bytes| Sample { seconds, heap_bytes, shm_bytes };
    let stop = Stop {
        seconds: 1.2,
        states: vec![NamedSeconds { name: "handing over".to_owned(), seconds: 1.0 }],
        phases: Vec::new(),
        moved_bytes: 2_000_000_000,
        hand_over: Some(Speed::of(2_000_000_000, 1.0, 1)),
        share_of_copy: Some(0.8),
        memory_before_bytes: 2_000_000_000,
        memory_peak_bytes: 2_016_000_000,
        samples_per_second: 95.0,
        memory: vec![
            at(0.0, 2_000_000_000, 0),
            at(0.6, 1_008_000_000, 1_008_000_000),
            at(1.2, 0, 2_000_000_000),
        ],
    };
    let lost = Start { correct_seconds: None, rows_found: 0, source: "nothing".to_owned(), ..start.clone() };
    let clean = Run {
        name: "clean",
        what: "SIGTERM, then start".to_owned(),
        load: load.clone(),
        stop: Some(stop),
        start,
        files: None,
    };
    let kill = Run { name: "kill", what: "kill -9".to_owned(), load, stop: None, start: lost, files: None };
    Report {
        version: "0.1.0",
        processors: 2,
        bytes_asked: 2_000_000_000,
        copy: vec![Speed::of(2_000_000_000, 1.0, 1), Speed::of(2_000_000_000, 0.8, 2)],
        runs: vec![clean, kill],
        skipped: vec!["x".to_owned()],
        problems: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_what_happened() {
        let text = sample().text();
        for expect in [
            "copy into fresh shared memory: 2.00 GB/s on 1 thread, 2.50 GB/s on 2 threads\n",
            "clean: SIGTERM, then start\n",
            "  held                  2.0 GB in 1,000 rows, acknowledged with durability power\n",
            "  hand-over             2.0 GB moved at 2.00 GB/s, 80 % of the fastest copy\n",
            "  heap and segments     2.0 GB before, 2.0 GB at most (16.0 MB more), 95 samples/s\n",
            "  complete              40 ms after exec\n",
            "  phases of the start   attaching 10 ms (2.0 GB)\n",
            "  complete              never, 100% lost (1,000 rows)\n",
            "left out: x\n",
        ] {
            assert!(text.contains(expect), "{expect:?} is not in\n{text}");
        }
    }
}
