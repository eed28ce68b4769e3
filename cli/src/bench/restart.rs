//! `gannet bench restart`: how fast a leaf stops, starts, and has every row again.
//!
//! A leaf process of this binary is filled and then ended in every way there is: asked to stop, asked again when its
//! rows are in shared memory already, stopped on a machine that then forgets memory, and killed. After each start the
//! leaf is asked over gRPC, again and again, until it has every row, or says that it never will.
//!
//! It believes nothing: an answer that counts other rows than it says it covers, or more than were acknowledged, ends
//! the run as wrong, and so do lost rows that the leaf had promised to keep.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use gannet_query::{Holdings, LeafState, MissingReason};
use rustix::process::Signal;

use super::copy::{self, Speed};
use super::folder::Folder;
use super::leaf::{Answer, Connection, Leaf};
use super::load::{self, Load};
use super::memory::{self, Sampler};
use super::plot;
use super::report::{PhaseText, Report, Run, Start, Stop};
use super::rounds::{print_json, print_text, until_interrupted};
use super::stop::{Moved, stop_of, thinned};
use crate::outcome::{Failure, Outcome};
use crate::{runtime, units};

/// Between two questions to a leaf that starts, until it answers.
const ASK_EVERY: Duration = Duration::from_micros(500);
/// Between two questions to a leaf that answers and has not everything yet, at least.
const ASK_EVERY_ANSWERED: Duration = Duration::from_millis(5);
/// And so many times as long as the last answer took, to leave it the processors; so it is with looks.
const PAUSES_FOR_ANSWER: u32 = 10;
/// But no longer, or what is there since is seen too late.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Between two looks at a leaf that stops.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a leaf may take to have every row, or to say that it never will.
const START_MAX: Duration = Duration::from_secs(1800);
/// A leaf that serves and misses rows is asked so often before it is believed.
const LOST_ANSWERS: u32 = 5;
/// How long memory is watched before the stop.
const WATCH_BEFORE: Duration = Duration::from_millis(300);
/// Room beside the rows: in memory, and in shared memory for the copies to compare with.
const ROOM_BYTES: u64 = 2 << 30;

fn pause(least: Duration, answered_in: Duration) -> Duration {
    (answered_in * PAUSES_FOR_ANSWER).clamp(least, PAUSE_MAX)
}

/// Measure how fast a leaf stops and starts: clean, killed, and from disk
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  gannet bench restart
  gannet bench restart --gb 8 --json --plot restart.svg

Starts a leaf of this binary in a temporary directory, fills it with generated events of 20 columns until it holds so many \
gigabytes, and measures:
  clean          SIGTERM, which leaves the rows in shared memory, and the next start
  clean again    the same when the rows are there already
  cold           a clean stop, shared memory removed, the page cache dropped (that takes root; else it says warm)
  kill           kill -9 of a leaf whose rows are not in shared memory, with its files in the page
                 cache
  kill, in shm   kill -9 of a leaf with the setting seal_into_shm
For each: seconds by phase, the speed of the hand-over beside a plain copy of as many bytes into fresh shared memory in the \
same run, what heap and segments take together meanwhile, and the time from exec to the first answer and to the answer \
that has every row.

It needs about twice the gigabytes in memory and shared memory together, as much on disk, and takes some minutes for \
each. Dropping the page cache slows down whatever else runs on the machine; --warm leaves it alone.

Exit codes: 0 measured; 1 an answer was wrong, rows are gone that should have survived, or it failed; 130 interrupted.")]
pub(crate) struct RestartArgs {
    /// Gigabytes (10^9 bytes) of rows to hold
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_gigabytes)]
    gb: f64,
    /// Write everything as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Where the leaf's files go, in a directory that is removed at the end [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write a plot
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Leave the page cache as it is: the start from disk reads from memory
    #[arg(long)]
    warm: bool,
}

/// Reads a number of gigabytes.
fn parse_gigabytes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.001..=4096.0).contains(&value) => Ok(value),
        _ => Err(format!("`{text}` must be a number of gigabytes between 0.001 and 4096")),
    }
}

/// Runs `gannet bench restart`.
pub(crate) fn run(args: RestartArgs) -> Outcome {
    let report = until_interrupted(runtime::small()?, measure(&args))?;
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::svg(&report))
            .map_err(|error| Failure::failed(format!("write {}: {error}", path.display())))?;
    }
    let done = if args.json { print_json(&report) } else { print_text(&report.text()) }?;
    match report.problems.as_slice() {
        [] => Ok(done),
        problems => Err(Failure::failed(problems.join("; "))),
    }
}

/// How a leaf ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop,
    StopAndForget,
    Kill,
}

/// A bench under way.
struct Bench {
    report: Report,
    warm: bool,
    /// What the rows in the leaf are.
    load: Load,
}

async fn measure(args: &RestartArgs) -> Result<Report, Failure> {
    let bytes = (args.gb * 1e9) as u64;
    // Dropped last: leaves take their segments with them by what is in it.
    let folder = Folder::new(args.dir.as_deref())?;
    check_room(bytes, folder.path())?;
    let mut bench = Bench {
        report: Report {
            version: env!("CARGO_PKG_VERSION"),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            bytes_asked: bytes,
            copy: Vec::new(),
            runs: Vec::new(),
            skipped: Vec::new(),
            problems: Vec::new(),
        },
        warm: args.warm,
        load: Load { rows: 0, sum: 0, bytes: 0, seconds: 0.0, durability: String::new() },
    };
    bench.in_heap(&folder.path().join("heap"), bytes).await?;
    bench.in_shared_memory(&folder.path().join("shm"), bytes).await?;
    Ok(bench.report)
}

/// Refuses what does not fit, before anything is made.
fn check_room(bytes: u64, folder: &Path) -> Result<(), Failure> {
    let free = |path: &Path| -> Result<u64, Failure> {
        let said = rustix::fs::statvfs(path);
        let said = said.map_err(|error| Failure::failed(format!("room in {}: {error}", path.display())))?;
        Ok(said.f_bavail.saturating_mul(said.f_frsize))
    };
    let room = ROOM_BYTES.min(bytes.max(256 << 20));
    let refuse = |what: &str, needed: u64, there: u64| {
        let (needed, there) = (units::bytes(needed), units::bytes(there));
        Err(Failure::usage(format!("{what} has {there} free, {needed} are needed"))
            .hint("ask for less with --gb"))
    };
    let shm = Path::new(copy::SHARED_MEMORY);
    // The hand-over copies before it frees, and open rows take more than sealed ones.
    for (what, needed, there) in [
        (copy::SHARED_MEMORY, bytes + room, free(shm)?),
        ("memory", bytes + bytes / 4 + room, memory::available_bytes().unwrap_or(u64::MAX)),
        (&*folder.to_string_lossy(), 3 * bytes, free(folder)?),
    ] {
        if there < needed {
            return refuse(what, needed, there);
        }
    }
    Ok(())
}

/// Settings of the bench's leaf, with or without `seal_into_shm`; `None` when this leaf does not know that setting.
fn settings(bytes: u64, seal_into_shm: bool) -> Option<String> {
    let limit = bytes.saturating_mul(2).saturating_add(ROOM_BYTES);
    let known = format!("memory_limit_bytes = {limit}\n");
    let line = format!("seal_into_shm = {seal_into_shm}\n");
    match toml::from_str::<gannet_leaf::Config>(&line) {
        Ok(_) => Some(known + &line),
        // Without the setting, rows are in the heap.
        Err(_) => (!seal_into_shm).then_some(known),
    }
}

/// Reads the files of a leaf. They come and go while it runs, and a figure beside others is not worth the run: `None` when
/// they could not be read.
async fn read_files(leaf: &Leaf) -> Option<Speed> {
    let folder = leaf.data_folder();
    tokio::task::spawn_blocking(move || copy::read_files(&folder)).await.ok()?.ok()
}

/// Tells somebody who waits what is going on.
fn say(what: &str) {
    eprintln!("{what}");
}

impl Bench {
    /// The ends of a leaf whose rows are in its heap, or on disk.
    async fn in_heap(&mut self, folder: &Path, bytes: u64) -> Result<(), Failure> {
        let settings = settings(bytes, false).unwrap_or_default();
        let mut leaf = self.filled(folder, &settings, bytes).await?;
        let stop = self.stop(&mut leaf).await?;
        let moved = stop.moved_bytes.max(1 << 20);
        self.started("clean", "SIGTERM, then start", End::Stop, Some(stop), &mut leaf).await?;
        // Soon after the hand-over, so that both find memory in the same state; but while a leaf runs, because the copy
        // takes the memory in which the next start would find its own program, if nobody used that meanwhile.
        self.compare(moved).await?;
        let stop = self.stop(&mut leaf).await?;
        let what = "SIGTERM of a leaf whose rows are in shared memory already, then start";
        self.started("clean again", what, End::Stop, Some(stop), &mut leaf).await?;

        let stop = self.stop(&mut leaf).await?;
        leaf.remove_segments();
        let what = match self.forget_files() {
            Ok(()) => "SIGTERM, shared memory removed and page cache dropped, then start".to_owned(),
            Err(why) => format!("SIGTERM, shared memory removed, then start; page cache warm: {why}"),
        };
        self.started("cold", &what, End::StopAndForget, Some(stop), &mut leaf).await?;

        if self.report.runs.last().is_none_or(|run| run.start.correct_seconds.is_none()) {
            drop(leaf);
            remove(folder)?;
            leaf = self.filled(folder, &settings, bytes).await?;
        }
        // As the machine keeps files that are in use, for the start and for the comparison after it: a system moves what is
        // read a second time, which takes as long as reading it.
        for _ in 0..2 {
            read_files(&leaf).await;
        }
        leaf.kill().await?;
        let what = "kill -9 of a leaf whose rows are not in shared memory, then start; page cache warm";
        self.started("kill", what, End::Kill, None, &mut leaf).await?;
        drop(leaf);
        remove(folder)
    }

    /// Copies as many bytes as a hand-over moved, for every run that had one to be compared with.
    async fn compare(&mut self, bytes: u64) -> Result<(), Failure> {
        say("copying as many bytes into fresh shared memory");
        let failed =
            |error: &dyn std::fmt::Display| Failure::failed(format!("copy into shared memory: {error}"));
        let copies = tokio::task::spawn_blocking(move || copy::into_shared_memory(bytes)).await;
        self.report.copy = copies.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let fastest = self.report.fastest_copy();
        for stop in self.report.runs.iter_mut().filter_map(|run| run.stop.as_mut()) {
            let speeds = stop.hand_over.as_ref().zip(fastest.as_ref());
            stop.share_of_copy = speeds.map(|(moved, copy)| moved.gb_per_second / copy.gb_per_second);
        }
        Ok(())
    }

    /// The end of a leaf that seals into shared memory.
    async fn in_shared_memory(&mut self, folder: &Path, bytes: u64) -> Result<(), Failure> {
        let Some(settings) = settings(bytes, true) else {
            let skipped = "kill, in shm: this leaf does not know the setting seal_into_shm";
            self.report.skipped.push(skipped.to_owned());
            return Ok(());
        };
        let mut leaf = self.filled(folder, &settings, bytes).await?;
        leaf.kill().await?;
        let what = "kill -9 of a leaf with seal_into_shm, then start";
        self.started("kill, in shm", what, End::Kill, None, &mut leaf).await
    }

    /// A leaf that holds the bench's rows.
    async fn filled(&mut self, folder: &Path, settings: &str, bytes: u64) -> Result<Leaf, Failure> {
        let mut leaf = Leaf::new(folder, settings)?;
        leaf.start()?;
        say(&format!("loading {}", units::bytes(bytes)));
        self.load = load::fill(&mut leaf, bytes).await?;
        let rate = units::count((self.load.rows as f64 / self.load.seconds.max(1e-9)) as u64);
        let held = units::bytes(self.load.bytes);
        say(&format!("loaded {} as {held}, {rate} rows/s", units::rows(self.load.rows)));
        Ok(leaf)
    }

    fn forget_files(&self) -> Result<(), String> {
        if self.warm { Err("left alone as asked".to_owned()) } else { copy::drop_page_cache() }
    }

    /// Stops a leaf and watches it.
    async fn stop(&mut self, leaf: &mut Leaf) -> Result<Stop, Failure> {
        let (Some(pid), Some(prefix)) = (leaf.pid(), leaf.segment_prefix()) else {
            return Err(Failure::failed("the leaf has no process or no manifest"));
        };
        let sampler = Sampler::start(pid, prefix.clone());
        let begun = Instant::now();
        tokio::time::sleep(WATCH_BEFORE).await;
        let shm_before = memory::segment_bytes(&prefix);
        let mut connection = leaf.connection()?;
        // Connected before the clock runs.
        let before = connection.describe().await.map_err(Failure::failed)?;
        let log_before = leaf.log_bytes();
        let asked = Instant::now();
        leaf.signal(Signal::TERM)?;
        let looking = async {
            let mut looks: Vec<(f64, Holdings)> = Vec::new();
            loop {
                let began = Instant::now();
                let Ok(said) = connection.describe().await else { break };
                looks.push((asked.elapsed().as_secs_f64(), said));
                tokio::time::sleep(pause(LOOK_EVERY, began.elapsed())).await;
            }
            looks
        };
        let ((ended, seconds), mut looks) =
            tokio::join!(async { (leaf.stopped().await, asked.elapsed().as_secs_f64()) }, looking);
        let samples = sampler.finish();
        ended?;
        let moved_bytes = memory::segment_bytes(&prefix).saturating_sub(shm_before);
        let at = asked.duration_since(begun).as_secs_f64();
        // What it says of its start is not of its stop.
        looks.iter_mut().for_each(|(_, said)| said.phases.retain(|phase| !before.phases.contains(phase)));
        let threads = gannet_leaf::hand_over_threads();
        let moved = Moved { bytes: moved_bytes, seconds: leaf.handed_over(log_before), threads };
        Ok(stop_of(seconds, &looks, moved, (at, &samples)))
    }

    /// Starts a leaf after its end, watches it, and adds what was found to the report.
    async fn started(
        &mut self,
        name: &'static str,
        what: &str,
        end: End,
        stop: Option<Stop>,
        leaf: &mut Leaf,
    ) -> Result<(), Failure> {
        say(&format!("{name}: {what}"));
        let start = self.start(name, end, leaf).await?;
        let files = if is_from_disk(&start.source) && start.correct_seconds.is_some() {
            if end == End::StopAndForget {
                // As the start found them; when it cannot be done, it could not be done then either.
                let _ = self.forget_files();
            }
            read_files(leaf).await
        } else {
            None
        };
        let load = self.load.clone();
        self.report.runs.push(Run { name, what: what.to_owned(), load, stop, start, files });
        Ok(())
    }

    /// Starts a leaf, asks it until it has every row or never will, and then whether they are the right ones.
    async fn start(&mut self, name: &str, end: End, leaf: &mut Leaf) -> Result<Start, Failure> {
        let started = leaf.start()?;
        let mut connection = leaf.connection()?;
        let asked = self.ask_until_final(name, started, leaf, &mut connection).await?;
        let said = loop {
            let said = connection.describe().await.map_err(Failure::failed)?;
            if serves(&said) || started.elapsed() > START_MAX {
                break said;
            }
            tokio::time::sleep(ASK_EVERY).await;
        };
        let serving = started.elapsed().as_secs_f64();
        let checking = Instant::now();
        let whole = connection.ask(true).await.map_err(Failure::failed)?;
        self.judge(name, end, &asked, &whole);
        let rate = |seconds: f64| self.load.bytes as f64 / seconds / 1e9;
        Ok(Start {
            first_answer_seconds: asked.first.unwrap_or(serving),
            correct_seconds: asked.correct,
            serving_seconds: serving,
            gb_per_second: asked.correct.filter(|_| is_from_disk(&said.source)).map(rate),
            source: said.source,
            source_detail: said.source_detail,
            phases: said.phases.into_iter().map(PhaseText::from).collect(),
            rows_expected: self.load.rows,
            rows_found: whole.count,
            check_seconds: checking.elapsed().as_secs_f64(),
            rows_over_time: thinned(&asked.over_time),
        })
    }

    /// Asks a leaf again and again until it has every row, or says that it never will.
    async fn ask_until_final(
        &mut self,
        name: &str,
        started: Instant,
        leaf: &mut Leaf,
        connection: &mut Connection,
    ) -> Result<Asked, Failure> {
        let mut asked = Asked::default();
        let elapsed = || started.elapsed().as_secs_f64();
        while started.elapsed() <= START_MAX {
            let begun = Instant::now();
            match connection.ask(false).await {
                Ok(answer) => {
                    let took = begun.elapsed();
                    asked.note(elapsed(), &answer);
                    self.check(name, &answer);
                    if answer.count == self.load.rows && answer.completeness.missing.is_empty() {
                        asked.correct = Some(elapsed());
                        return Ok(asked);
                    }
                    if is_final(&answer) && matches!(connection.describe().await, Ok(said) if serves(&said)) {
                        asked.final_answers += 1;
                        if asked.final_answers >= LOST_ANSWERS {
                            return Ok(asked);
                        }
                    }
                    tokio::time::sleep(pause(ASK_EVERY_ANSWERED, took)).await;
                }
                Err(why) => {
                    leaf.check()?;
                    tracing::debug!(why, "the leaf does not answer yet");
                    tokio::time::sleep(ASK_EVERY).await;
                    if asked.first.is_none() {
                        // A connection that failed waits before it is made again; a new one does not.
                        *connection = leaf.connection()?;
                    }
                }
            }
        }
        let seconds = START_MAX.as_secs();
        Err(Failure::failed(format!("{name}: the leaf neither has every row nor gives up after {seconds} s")))
    }

    /// Notes an answer that cannot be right.
    fn check(&mut self, name: &str, answer: &Answer) {
        let (count, covered) = (answer.count, answer.completeness.rows_covered);
        let wrong = if count != covered {
            format!("{name}: an answer counts {count} rows and says that it covers {covered}")
        } else if count > self.load.rows {
            format!("{name}: an answer counts {count} rows of {} that were acknowledged", self.load.rows)
        } else {
            return;
        };
        if !self.report.problems.contains(&wrong) {
            self.report.problems.push(wrong);
        }
    }

    /// Notes rows that are gone although they should not be, or not the ones that were sent.
    fn judge(&mut self, name: &str, end: End, asked: &Asked, whole: &Answer) {
        self.check(name, whole);
        let durability = self.load.durability.as_str();
        let promised = end == End::Stop || matches!(durability, "process" | "power");
        let lost = self.load.rows.saturating_sub(whole.count);
        if asked.correct.is_none() && promised {
            let lost = units::rows(lost);
            let what = format!("{name}: {lost} are lost that were acknowledged with durability {durability}");
            self.report.problems.push(what);
        }
        if asked.correct.is_some() && whole.sum != Some(self.load.sum) {
            let (sum, expected) = (whole.sum.unwrap_or(0), self.load.sum);
            let what =
                format!("{name}: the remainders of all rows' numbers add up to {sum} instead of {expected}");
            self.report.problems.push(what);
        }
    }
}

/// What the questions to a leaf that starts have shown so far.
#[derive(Debug, Default)]
struct Asked {
    first: Option<f64>,
    correct: Option<f64>,
    final_answers: u32,
    over_time: Vec<(f64, u64)>,
}

impl Asked {
    fn note(&mut self, seconds: f64, answer: &Answer) {
        self.first.get_or_insert(seconds);
        if self.over_time.last().is_none_or(|(_, rows)| *rows != answer.count) {
            self.over_time.push((seconds, answer.count));
        }
    }
}

/// Nothing more will come than what this answer has.
fn is_final(answer: &Answer) -> bool {
    answer.completeness.missing.iter().all(|missing| missing.reason == MissingReason::Lost)
}

/// Whether rows were read from files; in shared memory there is nothing to read.
fn is_from_disk(source: &str) -> bool {
    source.contains("disk")
}

fn serves(said: &Holdings) -> bool {
    said.state == LeafState::Serving
}

fn remove(folder: &Path) -> Result<(), Failure> {
    std::fs::remove_dir_all(folder)
        .map_err(|error| Failure::failed(format!("remove {}: {error}", folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gigabytes_are_read() {
        assert_eq!(parse_gigabytes("0.02"), Ok(0.02));
        for text in ["0", "-1", "NaN", "much", "5000"] {
            let expect = format!("`{text}` must be a number of gigabytes between 0.001 and 4096");
            assert_eq!(parse_gigabytes(text), Err(expect));
        }
    }
}
