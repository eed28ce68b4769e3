//! Many numbered cases, each of which might end its process: a panic, an abort, a hang, or memory without end.
//!
//! [`run`] starts this very test binary once for each core, as workers that run every so-manieth case and say which one
//! they are at. A worker that ends badly or says nothing for long has found something: the failure names the case and
//! the command that runs it again, alone. A worker's memory is limited by the system.
//!
//! `SWEEP_SECONDS` in the environment sets how long a sweep goes on, `SWEEP_FIRST` at which case it begins.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

/// A case takes milliseconds. One that takes this long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(60);
/// So many addresses a worker may use beyond what its first case took: artefacts are a thousand times smaller.
const WORKER_BYTES_MORE: u64 = 256 << 20;

/// What a case came to, in a word or two that are counted.
pub type Outcome = Result<String, String>;

/// Cases of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// The test target that has the worker.
    pub target: &'static str,
    /// The path of the test that calls [`worker`].
    pub worker: &'static str,
    /// How long it goes on, unless the environment says otherwise.
    pub seconds: u64,
    /// However slow the machine, so many cases are run.
    pub cases_min: u64,
}

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number")))
}

/// The test that runs cases: those it is told by the environment, or the first one alone.
///
/// # Panics
/// When a case breaks a promise.
pub fn worker(case: impl Fn(u64) -> Outcome) {
    let run = |number| case(number).unwrap_or_else(|what| panic!("case {number}: {what}"));
    if let Some(number) = setting("SWEEP_CASE") {
        println!("case {number}: {}", run(number));
        return;
    }
    let Some(step) = setting("SWEEP_STEP") else {
        run(1);
        return;
    };
    run(1);
    let limit = Some(address_bytes_peak() + WORKER_BYTES_MORE);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).expect("a limit can be lowered");
    let first = setting("SWEEP_FIRST").unwrap_or(1);
    let least = setting("SWEEP_LEAST").unwrap_or(0);
    let until = Instant::now() + Duration::from_secs(setting("SWEEP_SECONDS").unwrap_or(0));
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut out = std::io::stdout();
    let mut say = |line: String| {
        // Whoever does not listen any more has ended.
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    };
    for at in (setting("SWEEP_AT").unwrap_or(0)..).step_by(usize::try_from(step).unwrap_or(1)) {
        if at >= least && Instant::now() >= until {
            break;
        }
        let number = first.wrapping_add(at);
        say(format!("\ncase {number}\n"));
        *counts.entry(run(number)).or_default() += 1;
    }
    for (outcome, count) in counts {
        say(format!("\ndid {count} {outcome}\n"));
    }
}

/// The most addresses this process ever used, bytes.
fn address_bytes_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells of a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    let kib = peak.and_then(|peak| peak.trim().strip_suffix("kB")).map(|kib| kib.trim().parse::<u64>());
    kib.expect("a peak").expect("a number") * 1024
}

/// Runs cases in workers, and says how often each outcome came.
///
/// # Panics
/// When a case breaks a promise, ends its worker, or hangs.
pub fn run(sweep: &Sweep) -> BTreeMap<String, u64> {
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let broken = AtomicBool::new(false);
    let began = Instant::now();
    let found: Vec<Result<BTreeMap<String, u64>, String>> = std::thread::scope(|scope| {
        let watch = |at| watch(sweep, at, workers, &broken);
        let watched: Vec<_> = (0..workers).map(|at| scope.spawn(move || watch(at))).collect();
        watched.into_iter().map(|one| one.join().expect("a watcher does not panic")).collect()
    });
    let mut counts = BTreeMap::new();
    for found in found {
        match found {
            Ok(found) => {
                found.into_iter().for_each(|(outcome, count)| *counts.entry(outcome).or_default() += count)
            }
            Err(what) => panic!("{what}"),
        }
    }
    let cases: u64 = counts.values().sum();
    println!("{}: {cases} cases in {:.1} s: {counts:?}", sweep.worker, began.elapsed().as_secs_f64());
    counts
}

/// Starts a worker and listens until it ends.
fn watch(sweep: &Sweep, at: u64, workers: u64, broken: &AtomicBool) -> Result<BTreeMap<String, u64>, String> {
    let text = |number: u64| number.to_string();
    let seconds = setting("SWEEP_SECONDS").unwrap_or(sweep.seconds);
    let mut child = Command::new(std::env::current_exe().expect("a test knows its binary"))
        .args(["--exact", sweep.worker, "--nocapture", "--test-threads", "1"])
        .envs([("SWEEP_AT", text(at)), ("SWEEP_STEP", text(workers)), ("SWEEP_SECONDS", text(seconds))])
        .env("SWEEP_LEAST", text(sweep.cases_min))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a test can start itself");
    let (tell, hear) = mpsc::channel();
    let out = BufReader::new(child.stdout.take().expect("it is piped"));
    let lines = std::thread::spawn(move || {
        for line in out.lines().map_while(Result::ok) {
            // Nobody listens to a worker that was ended.
            let _ = tell.send(line);
        }
    });
    let mut err = child.stderr.take().expect("it is piped");
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    let (mut last, mut counts, mut hung, mut heard) = (None, BTreeMap::new(), false, Instant::now());
    loop {
        match hear.recv_timeout(Duration::from_secs(1)) {
            Ok(line) => {
                heard = Instant::now();
                if let Some(case) = line.strip_prefix("case ") {
                    last = Some(case.to_owned());
                } else if let Some((count, outcome)) =
                    line.strip_prefix("did ").and_then(|did| did.split_once(' '))
                {
                    counts.insert(outcome.to_owned(), count.parse().unwrap_or(0));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => hung = heard.elapsed() >= HANGS_AFTER,
        }
        if hung || broken.load(Ordering::Relaxed) {
            // It may have ended by itself.
            let _ = child.kill();
            break;
        }
    }
    let status = child.wait().expect("a child can be waited for");
    let _ = lines.join();
    let said = errors.join().unwrap_or_default();
    if status.success() && !hung {
        return Ok(counts);
    }
    if broken.swap(true, Ordering::Relaxed) {
        return Ok(counts);
    }
    let tail: Vec<&str> = said.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect();
    let case = last.unwrap_or_default();
    let how =
        if hung { format!("hangs for {} s", HANGS_AFTER.as_secs()) } else { format!("ends with {status}") };
    Err(format!(
        "{}\ncase {case} {how}; again:\nSWEEP_CASE={case} cargo test -p gannet-tests --test {} -- --exact {} --nocapture",
        tail.join("\n"),
        sweep.target,
        sweep.worker
    ))
}
