//! Bugs that somebody could have made are planted, one at a time, and the simulation has to find each of them.
//!
//! A simulation that finds nothing proves something only when it is known to find what is there.

use std::time::{Duration, Instant};

use gannet_leaf::planted::Bug;
use gannet_shm::planted::Bug as ShmBug;

use crate::life::Trace;

/// Each bug has to be found within this time, and within so many seeds on a machine that is slower.
const SECONDS: u64 = 20;
const SEEDS_MIN: u64 = 500;

/// Takes the bug out again, whatever happens.
struct Planted;

impl Drop for Planted {
    fn drop(&mut self) {
        plant(None, None);
    }
}

fn plant(leaf: Option<Bug>, shm: Option<ShmBug>) {
    gannet_leaf::planted::plant(leaf);
    gannet_shm::planted::plant(shm);
}

fn check_leaf(bug: Bug) {
    check(&format!("{bug:?}"), Some(bug), None);
}

fn check_shm(bug: ShmBug) {
    check(&format!("{bug:?}"), None, Some(bug));
}

fn check(name: &str, leaf: Option<Bug>, shm: Option<ShmBug>) {
    let began = Instant::now();
    let planted = Planted;
    plant(leaf, shm);
    for seed in 1.. {
        if let Err(what) = crate::run(seed, &Trace::new(false)) {
            drop(planted);
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
fn an_acknowledgement_before_the_sync_is_found() {
    check_leaf(Bug::AckBeforeSync);
}

#[test]
fn a_directory_that_is_not_synced_is_found() {
    check_leaf(Bug::DirectoryNotSynced);
}

#[test]
fn a_sync_that_is_tried_again_after_it_failed_is_found() {
    check_leaf(Bug::RetryAfterEio);
}

#[test]
fn a_valid_mark_before_the_last_write_is_found() {
    check_shm(ShmBug::ValidMarkEarly);
}

#[test]
fn a_valid_mark_that_stays_is_found() {
    check_shm(ShmBug::MarkNotCleared);
}

#[test]
fn dedup_that_goes_with_the_log_is_found() {
    check_leaf(Bug::DedupLostOnTruncation);
}

#[test]
fn dedup_that_goes_with_attaching_is_found() {
    check_leaf(Bug::DedupLostOnAttach);
}

#[test]
fn a_generation_that_is_not_compared_is_found() {
    check_shm(ShmBug::GenerationNotCompared);
}

#[test]
fn a_block_id_that_is_not_checked_is_found() {
    check_leaf(Bug::BlockIdNotChecked);
}

#[test]
fn retention_by_the_wall_clock_is_found() {
    check_leaf(Bug::RetentionByWallClock);
}

#[test]
fn rows_that_are_replayed_twice_are_found() {
    check_leaf(Bug::ReplayTwice);
}

#[test]
fn a_checkpoint_that_claims_too_much_is_found() {
    check_leaf(Bug::CheckpointTooFar);
}
