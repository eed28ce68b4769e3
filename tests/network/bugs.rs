//! Bugs that somebody could have made are planted, one at a time, and the simulation has to find each of them.

use std::time::{Duration, Instant};

use gannet_aggregator::planted::Bug;
use gannet_leaf::planted::Bug as LeafBug;

use crate::life::Trace;

/// Each bug has to be found within this time, and within so many seeds on a machine that is slower.
const SECONDS: u64 = 20;
const SEEDS_MIN: u64 = 20;

fn check(aggregator: Option<Bug>, leaf: Option<LeafBug>) {
    let name = format!("{aggregator:?} {leaf:?}");
    let began = Instant::now();
    for seed in 1.. {
        let plant = move || {
            gannet_aggregator::planted::plant(aggregator);
            gannet_leaf::planted::plant(leaf);
        };
        if let Err(what) = crate::run_after(plant, seed, &Trace::new(false)) {
            let seconds = began.elapsed().as_secs_f64();
            println!("{name}: found by seed {seed} after {seconds:.1} s: {what}");
            let sound = crate::run(seed, &Trace::new(false));
            assert!(sound.is_ok(), "seed {seed} fails without the bug as well: {sound:?}");
            return;
        }
        if seed >= SEEDS_MIN && began.elapsed() >= Duration::from_secs(SECONDS) {
            panic!("{name} was not found by {seed} seeds in {:.1} s", began.elapsed().as_secs_f64());
        }
    }
}

#[test]
fn a_retry_at_another_leaf_is_found() {
    check(Some(Bug::RetryAtAnotherLeaf), None);
}

#[test]
fn a_denominator_from_gossip_is_found() {
    check(Some(Bug::DenominatorFromGossip), None);
}

#[test]
fn a_leaf_that_counts_twice_is_found() {
    check(Some(Bug::BothEpochsCounted), None);
}

#[test]
fn a_truncation_that_is_not_told_is_found() {
    check(Some(Bug::TruncationNotFlagged), None);
}

#[test]
fn a_scan_that_goes_on_is_found() {
    check(None, Some(LeafBug::CancelNotHonoured));
}

#[test]
fn a_crowd_that_waits_is_found() {
    check(Some(Bug::EverybodyWaits), None);
}
