//! A leaf in a simulated world: a disk that loses what was not synced, shared memory that goes with the power, a
//! clock that jumps, and a process that ends between any two calls.
//!
//! A scenario is a seed. It draws faults, acts at random on a real [`gannet_leaf::Leaf`] in simulated surroundings, and
//! judges every answer against a model that is kept outside. Everything runs on one thread, so that a seed says all:
//! one that breaks a promise prints the command that replays it.
//!
//! Start reading at [`mod@scenario`], then [`mod@model`] and [`mod@world`]; [`mod@sim_disk`] and [`mod@sim_memory`] say
//! what survives what.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

#[cfg(feature = "planted-bugs")]
mod bugs;
mod damage;
mod life;
mod model;
mod scenario;
mod sim_disk;
mod sim_memory;
mod sim_time;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use life::Trace;
use parking_lot::Mutex;
use scenario::Report;

/// Seconds that the suite spends on seeds, unless it is told otherwise.
const SECONDS: u64 = 40;
/// Seeds that broke a promise once: damage in the last record of the log; a torn file that was removed.
const REGRESSIONS: [u64; 2] = [724, 1045];
/// However slow the machine, so many seeds are tried.
const SEEDS_MIN: u64 = 300;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number")))
}

/// Runs a seed. A promise that was broken, and a panic, is an error.
fn run(seed: u64, trace: &std::sync::Arc<Trace>) -> Result<Report, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| scenario::run(seed, trace)));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without words")))
    })
}

/// How to see again what a seed did.
fn replay_command(seed: u64) -> String {
    format!("SIMULATION_SEED={seed} cargo test -p gannet-tests --test simulation replay -- --nocapture")
}

/// What all seeds did together.
#[derive(Debug, Default)]
struct Totals {
    seeds: AtomicU64,
    reports: Mutex<Report>,
    failed: Mutex<Option<String>>,
}

impl Totals {
    fn add(&self, report: &Report) {
        let mut totals = self.reports.lock();
        totals.batches += report.batches;
        totals.acknowledged += report.acknowledged;
        totals.duplicates += report.duplicates;
        totals.refused += report.refused;
        totals.unknown += report.unknown;
        totals.queries += report.queries;
        totals.starts += report.starts;
        totals.power_cuts += report.power_cuts;
    }
}

#[test]
fn no_seed_breaks_a_promise() {
    let began = Instant::now();
    let time = Duration::from_secs(setting("SIMULATION_SECONDS").unwrap_or(SECONDS));
    let first = setting("SIMULATION_FIRST_SEED").unwrap_or(1);
    let totals = Totals::default();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if totals.failed.lock().is_some() || (at >= SEEDS_MIN && began.elapsed() >= time) {
                        return;
                    }
                    let seed = first.wrapping_add(at);
                    match run(seed, &Trace::new(false)) {
                        Ok(report) => totals.add(&report),
                        Err(what) => {
                            totals.failed.lock().get_or_insert(format!("{what}\n{}", replay_command(seed)));
                        }
                    }
                    totals.seeds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (seeds, reports) = (totals.seeds.into_inner(), totals.reports.into_inner());
    println!("{seeds} seeds in {:.1} s: {reports:?}", began.elapsed().as_secs_f64());
    if let Some(failed) = totals.failed.into_inner() {
        panic!("{failed}");
    }
    // A generator that has run dry finds nothing.
    assert!(reports.acknowledged > seeds * 5 && reports.duplicates > seeds && reports.unknown > seeds / 4);
    assert!(reports.starts > seeds * 5 && reports.power_cuts > seeds && reports.queries > seeds * 20);
}

#[test]
fn what_was_broken_once_holds() {
    for seed in REGRESSIONS {
        if let Err(what) = run(seed, &Trace::new(false)) {
            panic!("{what}\n{}", replay_command(seed));
        }
    }
}

#[test]
fn replay() {
    let seed = setting("SIMULATION_SEED").unwrap_or(1);
    let trace = Trace::new(true);
    let outcome = run(seed, &trace);
    if setting("SIMULATION_SEED").is_some() {
        trace.lines().iter().for_each(|line| println!("{line}"));
        println!("{outcome:?}");
    }
    let again = Trace::new(true);
    let _ = run(seed, &again);
    let (first, second) = (trace.lines(), again.lines());
    let differs = first.iter().zip(&second).position(|(one, other)| one != other);
    assert_eq!(differs.map(|at| (&first[at], &second[at])), None, "a seed says all that happens");
    assert_eq!(trace.hash(), again.hash());
    if let Err(what) = outcome {
        panic!("{what}\n{}", replay_command(seed));
    }
}
