//! The assembled servers in a simulated network: leaves and aggregators as they are started, with tonic, chitchat and
//! HTTP, on hosts whose links lose, hold and delay what is sent, in time that passes as fast as there is nothing to do.
//!
//! A scenario is a seed. It draws a cluster (static or found by gossip), faults and when they come, and those who use the
//! cluster; every answer is judged against a model that is kept outside. In some, more is asked for in the end than can be
//! done ([`mod@crowd`]). A seed that breaks a promise prints the command that replays it.
//!
//! What a seed says: the servers and their settings; which faults come, when, and for how long; how far hosts are from
//! each other; what every client draws. Time is simulated everywhere, also in scans, which run in lockstep with the
//! network ([`mod@one_core`]), so how fast or busy this machine is changes nothing.
//! What a seed does not say: what the servers and our dependencies leave to chance (which leaf takes rows that nobody will
//! send again, whom to gossip with, `select!`, hash maps), and the order of what happens at the same instant on one host
//! when threads are involved that simulated time waits for. So a replay has the same faults at the same times in the same
//! network, and conversations in it that may go another way: what one run finds, another finds mostly, not always. A
//! failure says what was broken, with the answer that broke it.
//!
//! The network is harsher than TCP: what a partition takes is not sent again, and such a connection is dead until
//! somebody notices.
//!
//! Start reading at [`mod@scenario`], then [`mod@faults`], [`mod@clients`] and [`mod@model`].

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

#[cfg(feature = "planted-bugs")]
mod bugs;
mod clients;
mod crowd;
mod faults;
mod http;
mod machine;
mod model;
mod one_core;
mod scenario;
mod wires;

// The machines are those of the simulation of one leaf.
#[allow(dead_code, reason = "the other simulation uses more of it")]
#[path = "../simulation/life.rs"]
mod life;
#[allow(dead_code, reason = "the other simulation uses more of it")]
#[path = "../simulation/sim_disk.rs"]
mod sim_disk;
#[allow(dead_code, reason = "the other simulation uses more of it")]
#[path = "../simulation/sim_memory.rs"]
mod sim_memory;
#[allow(dead_code, reason = "the other simulation uses more of it")]
#[path = "../simulation/sim_time.rs"]
mod sim_time;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clients::Report;
use life::Trace;
use parking_lot::Mutex;

/// Seconds that the suite spends on seeds, unless it is told otherwise.
const SECONDS: u64 = 20;
/// However slow the machine, so many seeds are tried.
const SEEDS_MIN: u64 = 6;
/// Plans are run on the thread of the simulation, in a build without optimisation.
const STACK_BYTES: usize = 32 << 20;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text}, which is no number")))
}

/// Runs a seed on a thread of its own, which begins with this. A promise that was broken, and a panic, is an error.
fn run_after(begin: impl FnOnce() + Send + 'static, seed: u64, trace: &Arc<Trace>) -> Result<Report, String> {
    let trace = Arc::clone(trace);
    let run = move || {
        begin();
        let outcome = catch_unwind(AssertUnwindSafe(|| scenario::run(seed, &trace)));
        outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panic: {}", text.unwrap_or("without words")))
        })
    };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(run).unwrap();
    thread.join().unwrap_or_else(|_| Err("the thread of the simulation ended early".to_owned()))
}

fn run(seed: u64, trace: &Arc<Trace>) -> Result<Report, String> {
    run_after(|| {}, seed, trace)
}

/// How to see again what a seed did.
fn replay_command(seed: u64) -> String {
    format!("NETWORK_SEED={seed} cargo test -p gannet-tests --test network replay -- --nocapture")
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
        totals.again += report.again;
        totals.unknown += report.unknown;
        totals.answers += report.answers;
        totals.thin += report.thin;
        totals.refused += report.refused;
        totals.starts += report.starts;
        totals.crowd += report.crowd;
        totals.sent_away += report.sent_away;
        totals.healed_ms = totals.healed_ms.max(report.healed_ms);
    }
}

#[test]
fn no_seed_breaks_a_promise() {
    let began = Instant::now();
    let time = Duration::from_secs(setting("NETWORK_SECONDS").unwrap_or(SECONDS));
    let first = setting("NETWORK_FIRST_SEED").unwrap_or(1);
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
                    // Kept, because a replay may go another way.
                    let trace = Trace::new(true);
                    match run(seed, &trace) {
                        Ok(report) => totals.add(&report),
                        Err(what) => {
                            let happened = trace.lines().join("\n");
                            let failed = format!("{happened}\n{what}\n{}", replay_command(seed));
                            totals.failed.lock().get_or_insert(failed);
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
    assert!(reports.acknowledged > seeds * 20 && reports.again > seeds && reports.unknown > 0);
    assert!(reports.sent_away * 2 > reports.crowd && reports.crowd > seeds * 20);
    assert!(reports.answers > seeds * 20 && reports.thin > seeds && reports.starts > seeds);
}

#[test]
fn replay() {
    let seed = setting("NETWORK_SEED").unwrap_or(1);
    let trace = Trace::new(true);
    let outcome = run(seed, &trace);
    if setting("NETWORK_SEED").is_some() {
        trace.lines().iter().for_each(|line| println!("{line}"));
        println!("{outcome:?}");
    }
    if let Err(what) = outcome {
        panic!("{what}\n{}", replay_command(seed));
    }
}
