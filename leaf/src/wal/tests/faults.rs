//! Calls that fail, processes that die and machines that lose power, at every call there is.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use super::fake_disk::{FakeDisk, Fault, Unsynced};
use super::*;

/// What one life of a log has promised.
#[derive(Debug, Default)]
struct Promises {
    /// Acknowledged records by LSN.
    acked: BTreeMap<u64, u64>,
    /// Refused for good: never to be seen.
    gone: Vec<u64>,
    /// Everything up to this survives a power cut.
    durable_lsn: u64,
    /// Everything below this may have been removed.
    truncated_below: u64,
    errors: u64,
}

impl Promises {
    fn note(&mut self, n: u64, outcome: Result<u64, WalError>) {
        match outcome {
            Ok(lsn) => assert_eq!(self.acked.insert(lsn, n), None, "LSN {lsn} was given twice"),
            Err(error) => {
                self.errors += 1;
                if !error.may_survive() {
                    self.gone.push(n);
                }
            }
        }
    }
}

/// Rotation, groups, syncs and truncation; goes on after errors as a leaf does.
fn live(disk: &FakeDisk, level: Durability, first_n: u64, promises: &mut Promises) -> Result<(), WalError> {
    let known = promises.truncated_below.saturating_sub(1);
    let found = read(Arc::new(disk.clone()), INSTANCE, known)?;
    let wal = Wal::open(Arc::new(disk.clone()), settings(level, 700), &found)?;
    for n in first_n..first_n + 12 {
        if n % 4 == 0 {
            let tickets: Vec<Ticket> = (0..3).map(|part| wal.submit(record(n + 100 * part))).collect();
            for (part, ticket) in (0..).zip(&tickets) {
                promises.note(n + 100 * part, wal.commit(ticket));
            }
        } else {
            promises.note(n, commit(&wal, n));
        }
        if n % 5 == 0 {
            promises.errors += u64::from(wal.sync().is_err());
        }
        if n % 9 == 0 {
            let below = wal.durable_lsn().saturating_sub(2);
            promises.truncated_below = promises.truncated_below.max(below);
            promises.errors += u64::from(wal.truncate(below).is_err());
        }
        promises.durable_lsn = promises.durable_lsn.max(wal.durable_lsn());
        if level == Durability::Power {
            let last = promises.acked.last_key_value().map_or(0, |(lsn, _)| *lsn);
            assert!(wal.durable_lsn() >= last, "what is acknowledged is durable");
        }
    }
    Ok(())
}

/// What was acknowledged up to an LSN is there, what was refused is not, and nothing that was not submitted.
fn check_kept(disk: &FakeDisk, promises: &Promises, up_to_lsn: u64, told: &str) {
    let found = contents(disk, promises.truncated_below.saturating_sub(1));
    assert_eq!(found.lost, [], "{told}: nothing is lost");
    let there: BTreeMap<u64, Record> = records(&found).into_iter().collect();
    let needed =
        promises.acked.iter().filter(|(lsn, _)| (promises.truncated_below..=up_to_lsn).contains(lsn));
    for (lsn, n) in needed {
        assert_eq!(there.get(lsn), Some(&record(*n)), "{told}: LSN {lsn}, {promises:?}");
    }
    for (index, (lsn, one)) in there.iter().enumerate() {
        if let Some(n) = promises.acked.get(lsn).filter(|_| *lsn <= up_to_lsn) {
            assert_eq!(*one, record(*n), "{told}: LSN {lsn}");
        }
        assert!((0..400).any(|n| *one == record(n)), "{told}: a record that nobody wrote");
        assert!(there.values().skip(index + 1).all(|other| other != one), "{told}: LSN {lsn} is there twice");
        assert!(promises.gone.iter().all(|n| *one != record(*n)), "{told}: LSN {lsn} was refused");
    }
}

fn cuts(seed: u64) -> [Unsynced; 5] {
    let torn = |n: u64| Unsynced::Torn((seed * 3 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    [Unsynced::Gone, Unsynced::Kept, torn(0), torn(1), torn(2)]
}

/// Calls that one life makes when nothing fails.
fn calls_of_a_life(level: Durability) -> u64 {
    let disk = FakeDisk::default();
    let mut promises = Promises::default();
    live(&disk, level, 1, &mut promises).unwrap();
    assert_eq!(promises.errors, 0);
    disk.calls()
}

#[test]
fn death_at_any_call_loses_nothing_that_was_acknowledged() {
    for level in [Durability::Power, Durability::Process] {
        for call in 1..=calls_of_a_life(level) {
            let disk = FakeDisk::default();
            disk.fail_at(call, Fault::Gone);
            let mut promises = Promises::default();
            let _ = live(&disk, level, 1, &mut promises);
            // Errors after the death were told to nobody.
            promises.gone.clear();
            let told = format!("{level:?}, killed at call {call}");
            check_kept(&disk.after_kill(), &promises, u64::MAX, &told);
            let durable = if level == Durability::Power { u64::MAX } else { promises.durable_lsn };
            for cut in cuts(call) {
                let told = format!("{level:?}, power cut at call {call}, {cut:?}");
                check_kept(&disk.after_power_cut(cut), &promises, durable, &told);
            }
        }
    }
}

#[test]
fn a_second_life_keeps_what_the_first_promised() {
    for call in 1..=calls_of_a_life(Durability::Power) {
        for (index, cut) in [None].into_iter().chain(cuts(call).map(Some)).enumerate() {
            let disk = FakeDisk::default();
            disk.fail_at(call, Fault::Gone);
            let mut promises = Promises::default();
            let _ = live(&disk, Durability::Power, 1, &mut promises);
            let disk = cut.map_or_else(|| disk.after_kill(), |cut| disk.after_power_cut(cut));
            // Anywhere in the second life.
            disk.fail_at(disk.calls() + 1 + (call * 7 + index as u64 * 13) % 70, Fault::Gone);
            let _ = live(&disk, Durability::Power, 20, &mut promises);
            promises.gone.clear();
            let told = format!("call {call}, {cut:?}");
            check_kept(&disk.after_kill(), &promises, u64::MAX, &told);
            for then in cuts(call + 1) {
                let told = format!("{told}, then {then:?}");
                check_kept(&disk.after_power_cut(then), &promises, u64::MAX, &told);
            }
        }
    }
}

#[test]
fn any_call_may_fail() {
    for level in [Durability::Power, Durability::Process] {
        for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
            let mut failed = 0;
            for call in 1.. {
                let disk = FakeDisk::default();
                disk.fail_at(call, Fault::Once(kind));
                let mut promises = Promises::default();
                if live(&disk, level, 1, &mut promises).is_err() {
                    // It did not even start; the next try works.
                    live(&disk, level, 1, &mut promises).unwrap();
                }
                failed += u64::from(promises.errors > 0);
                assert_eq!(disk.after_failed_sync(), 0, "{level:?}, call {call}");
                let told = format!("{level:?}, {kind:?} at call {call}");
                check_kept(&disk.after_kill(), &promises, u64::MAX, &told);
                let durable = if level == Durability::Power { u64::MAX } else { promises.durable_lsn };
                for cut in cuts(call) {
                    check_kept(&disk.after_power_cut(cut), &promises, durable, &format!("{told}, {cut:?}"));
                }
                if disk.calls() < call {
                    break;
                }
            }
            assert!(failed > 10, "{level:?}: {failed}");
        }
    }
}

#[test]
fn death_may_come_after_a_failure() {
    for level in [Durability::Power, Durability::Process] {
        for call in 5..=calls_of_a_life(level) {
            for later in 1..12 {
                let disk = FakeDisk::default();
                disk.fail_at(call, Fault::Once(ErrorKind::Other));
                disk.fail_at(call + later, Fault::Gone);
                let mut promises = Promises::default();
                let _ = live(&disk, level, 1, &mut promises);
                promises.gone.clear();
                let told = format!("{level:?}, failure at call {call}, death {later} calls later");
                check_kept(&disk.after_kill(), &promises, u64::MAX, &told);
                let durable = if level == Durability::Power { u64::MAX } else { promises.durable_lsn };
                let cut = cuts(call * 12 + later)[(later % 5) as usize];
                check_kept(&disk.after_power_cut(cut), &promises, durable, &format!("{told}, {cut:?}"));
            }
        }
    }
}

#[test]
fn a_failed_append_is_withdrawn_and_its_numbers_are_given_again() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Power, 1 << 20));
    commit(&wal, 1).unwrap();
    let tickets = [wal.submit(record(50)), wal.submit(record(51)), wal.submit(record(52))];
    disk.fail_at(disk.calls() + 1, Fault::Once(ErrorKind::StorageFull));
    for ticket in &tickets {
        let error = wal.commit(ticket).unwrap_err();
        let expect = "append to wal/0000000001-00000000000000000001.wal: no storage space";
        assert_eq!(error.to_string(), expect);
        assert!(error.is_full() && !error.may_survive());
    }
    check_holds(&contents(&disk.after_power_cut(Unsynced::Kept), 0), 1..=1);
    assert_eq!(commit(&wal, 2).unwrap(), 2);
    check_holds(&contents(&disk, 0), 1..=2);
    assert_eq!(disk.names().len(), 2, "the first file is closed");
    assert_eq!(wal.sync_failures(), 0);
}

#[test]
fn what_a_failed_append_left_behind_does_not_count() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Power, 1 << 20));
    commit(&wal, 1).unwrap();
    let tickets = [wal.submit(record(50)), wal.submit(record(51)), wal.submit(record(52))];
    // The append fails, and so does cutting the file back.
    disk.fail_at(disk.calls() + 1, Fault::Once(ErrorKind::Other));
    disk.fail_at(disk.calls() + 2, Fault::Once(ErrorKind::Other));
    assert!(wal.commit(&tickets[0]).unwrap_err().may_survive());
    assert_eq!(records(&contents(&disk, 0)).len(), 3, "two of the three are in the file");
    assert_eq!(commit(&wal, 2).unwrap(), 2);
    check_holds(&contents(&disk, 0), 1..=2);
    assert_eq!(wal.files(), contents(&disk, 0).files());
}

#[test]
fn a_failed_sync_sends_everything_to_a_new_file() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Power, 1 << 20));
    commit(&wal, 1).unwrap();
    disk.fail_at(disk.calls() + 2, Fault::Once(ErrorKind::Other));
    assert_eq!(commit(&wal, 2).unwrap(), 2, "nobody hears of it");
    assert_eq!((wal.sync_failures(), disk.after_failed_sync()), (1, 0));
    assert_eq!(disk.names().len(), 2);
    check_holds(&contents(&disk.after_power_cut(Unsynced::Gone), 0), 1..=2);
    assert_eq!(wal.files(), contents(&disk, 0).files());
}

#[test]
fn at_level_process_a_failed_sync_sends_what_was_not_durable_to_a_new_file() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Process, 600));
    for n in 1..=3 {
        commit(&wal, n).unwrap();
    }
    assert_eq!(wal.sync().unwrap(), 3);
    for n in 4..=12 {
        commit(&wal, n).unwrap();
    }
    disk.fail_at(disk.calls() + 2, Fault::Once(ErrorKind::Other));
    assert_eq!(wal.sync().unwrap(), 12);
    assert_eq!((wal.sync_failures(), wal.unsynced_bytes(), disk.after_failed_sync()), (1, 0, 0));
    check_holds(&contents(&disk.after_power_cut(Unsynced::Gone), 0), 1..=12);
    let files = wal.files();
    assert_eq!(files.last().map(|file| (file.first_lsn, file.last_lsn)), Some((4, 12)));
    assert_eq!(commit(&wal, 13).unwrap(), 13);
}

#[test]
fn a_log_that_is_broken_tries_again_with_each_commit() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Process, 1 << 20));
    commit(&wal, 1).unwrap();
    // The sync, and making the new file.
    disk.fail_at(disk.calls() + 2, Fault::Once(ErrorKind::Other));
    disk.fail_at(disk.calls() + 3, Fault::Once(ErrorKind::Other));
    let error = wal.sync().unwrap_err();
    assert_eq!(
        error.to_string(),
        "sync of wal/0000000002-00000000000000000001.wal failed, and a new file did not help: other error"
    );
    assert_eq!((wal.durable_lsn(), wal.written_lsn()), (0, 1));
    disk.fail_at(disk.calls() + 2, Fault::Once(ErrorKind::StorageFull));
    let error = commit(&wal, 50).unwrap_err();
    assert!(error.is_full() && error.may_survive());
    check_holds(&contents(&disk.after_kill(), 0), 1..=1);
    assert_eq!(commit(&wal, 2).unwrap(), 2);
    assert_eq!(wal.durable_lsn(), 2, "the new file was synced");
    check_holds(&contents(&disk.after_power_cut(Unsynced::Gone), 0), 1..=2);
}

#[test]
fn what_was_found_and_is_not_known_to_be_durable_is_written_again() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Process, 600));
    for n in 1..=8 {
        commit(&wal, n).unwrap();
    }
    drop(wal);
    // A sync may have failed before the end, and another one of the same file would say nothing.
    let disk = disk.after_kill();
    let found = contents(&disk, 0);
    // Directory, its sync, making the new file, writing to it, its sync.
    disk.fail_at(disk.calls() + 5, Fault::Once(ErrorKind::Other));
    Wal::open(Arc::new(disk.clone()), settings(Durability::Power, 600), &found).unwrap_err();
    let wal = Wal::open(Arc::new(disk.clone()), settings(Durability::Power, 600), &found).unwrap();
    assert_eq!((wal.durable_lsn(), disk.after_failed_sync()), (8, 0));
    assert!(
        found.places.iter().all(|place| found.body(place).is_ok()),
        "who reads behind the start finds all"
    );
    assert_eq!(commit(&wal, 9).unwrap(), 9);
    check_holds(&contents(&disk.after_power_cut(Unsynced::Gone), 0), 1..=9);
}

#[test]
fn a_leader_that_panics_gives_its_group_up_and_the_lead_on() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Power, 1 << 20));
    let ticket = wal.submit(record(9));
    // The disk of the tests does not make a file that is there.
    disk.put("wal/0000000001-00000000000000000001.wal", b"");
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| commit(&wal, 1))).unwrap_err();
    assert_eq!(wal.commit(&ticket).unwrap_err().to_string(), "the record was given up before it was written");
    assert_eq!(commit(&wal, 1).unwrap(), 1);
}

#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_are_found_by_a_power_cut() {
    use crate::planted::{Bug, plant};
    let check = |bug: Bug, failure: Option<u64>| {
        let disk = FakeDisk::default();
        let wal = open(&disk, settings(Durability::Power, 1 << 20));
        plant(Some(bug));
        if let Some(call) = failure {
            disk.fail_at(disk.calls() + call, Fault::Once(ErrorKind::Other));
        }
        assert_eq!(commit(&wal, 1).unwrap(), 1);
        plant(None);
        contents(&disk.after_power_cut(Unsynced::Gone), 0).places.len()
    };
    assert_eq!(check(Bug::AckBeforeSync, None), 0);
    assert_eq!(check(Bug::DirectoryNotSynced, None), 0);
    assert_eq!(check(Bug::RetryAfterEio, Some(3)), 0);
    assert_eq!(check(Bug::ReplayTwice, Some(3)), 1, "a bug of somebody else");
}
