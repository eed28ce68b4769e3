//! The log as a whole: what comes back, in how many calls, and what its files are said to hold.

mod damage;
mod fake_disk;
mod faults;

use std::sync::Barrier;

use bytes::Bytes;

use super::*;
use crate::disk::OsDisk;
use fake_disk::{FakeDisk, Fault};

const INSTANCE: Uuid = Uuid::from_u128(7);

fn settings(level: Durability, file_bytes_max: u64) -> WalSettings {
    WalSettings { level, file_bytes_max, record_bytes_max: 1 << 20 }
}

/// The n-th record of a test; no two are the same.
fn record(n: u64) -> Record {
    if n % 4 == 3 {
        return Record::Edit(Bytes::from(format!("{{\"edit\":{n}}}")));
    }
    let header = RowsHeader {
        table: if n.is_multiple_of(2) { "requests".into() } else { "errors".into() },
        first_row: n * 10,
        rows: 10,
        time_min: -(n as i64),
        time_max: n as i64,
        producer: format!("p{}", n % 3).into(),
        sequence: n,
        part: (n % 5) as u32,
        last_part: n.is_multiple_of(3),
        idempotency_key: (n % 8 == 2).then(|| format!("key {n}").into()),
    };
    let body = Bytes::from(vec![n as u8; (n as usize * 13) % 90]);
    Record::Rows(RowsRecord { header, body })
}

fn open(disk: &FakeDisk, settings: WalSettings) -> Wal {
    let contents = contents(disk, 0);
    Wal::open(Arc::new(disk.clone()), settings, &contents).unwrap()
}

fn contents(disk: &FakeDisk, known_durable_lsn: u64) -> WalContents {
    read(Arc::new(disk.clone()), INSTANCE, known_durable_lsn).unwrap()
}

fn commit(wal: &Wal, n: u64) -> Result<u64, WalError> {
    wal.commit(&wal.submit(record(n)))
}

fn records(contents: &WalContents) -> Vec<(u64, Record)> {
    contents.places.iter().map(|place| (place.header.lsn, contents.record(place).unwrap())).collect()
}

/// The log holds record n under LSN n, and nothing else, and nothing is wrong.
fn check_holds(contents: &WalContents, lsns: std::ops::RangeInclusive<u64>) {
    assert_eq!(contents.lost, []);
    assert_eq!(contents.torn, None);
    assert_eq!(contents.damaged_headers, [""; 0]);
    assert_eq!(contents.next_lsn(), lsns.end() + 1);
    assert_eq!(records(contents), lsns.map(|lsn| (lsn, record(lsn))).collect::<Vec<_>>());
}

#[test]
fn what_was_committed_comes_back_in_order() {
    for level in [Durability::Power, Durability::Process] {
        let disk = FakeDisk::default();
        let wal = open(&disk, settings(level, 1000));
        for n in 1..=20 {
            assert_eq!(commit(&wal, n).unwrap(), n);
        }
        assert_eq!(wal.written_lsn(), 20);
        assert_eq!(wal.durable_lsn(), if level == Durability::Power { 20 } else { 0 });
        assert_eq!(wal.level(), level);
        assert!(wal.files().len() > 3, "{:?}", wal.files());
        let found = contents(&disk, 0);
        check_holds(&found, 1..=20);
        assert_eq!(found.files(), wal.files(), "a reader says of the files what the writer says");
        assert_eq!(wal.bytes(), wal.files().iter().map(|file| file.bytes).sum::<u64>());
        let next = Wal::open(Arc::new(disk.clone()), settings(level, 1000), &found).unwrap();
        assert_eq!(next.durable_lsn(), 20, "what was found is durable before anything is added");
        assert_eq!(
            next.files()[..wal.files().len()],
            wal.files(),
            "who reads behind the start needs the old ones"
        );
        assert_eq!(commit(&next, 21).unwrap(), 21);
        check_holds(&contents(&disk, 0), 1..=21);
    }
}

#[test]
fn nothing_is_read_from_nothing() {
    let disk = FakeDisk::default();
    let found = contents(&disk, 41);
    assert!(found.places.is_empty() && found.lost.is_empty() && found.torn.is_none());
    assert_eq!((found.next_lsn(), found.durable_lsn()), (42, 41));
    let wal = open(&disk, settings(Durability::Power, 1000));
    assert_eq!(disk.names(), [""; 0], "no file before the first record");
    assert_eq!((wal.bytes(), wal.unsynced_bytes(), wal.durable_lsn()), (0, 0, 0));
    assert_eq!(wal.sync().unwrap(), 0);
    assert_eq!(wal.truncate(u64::MAX).unwrap(), 0);
}

#[test]
fn a_file_tells_its_numbers_and_its_rows() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Power, 1 << 20));
    for n in 1..=6 {
        commit(&wal, n).unwrap();
    }
    let files = wal.files();
    let tables = BTreeMap::from([("errors".to_owned(), (10, 60)), ("requests".to_owned(), (20, 70))]);
    assert_eq!(files.len(), 1);
    assert_eq!((files[0].first_lsn, files[0].last_lsn, &files[0].tables), (1, 6, &tables));
    assert_eq!(files[0].bytes, disk.bytes_of("wal/0000000001-00000000000000000001.wal").len() as u64);
}

#[test]
fn a_group_takes_one_append_and_one_sync() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Power, 1 << 20));
    let tickets: Vec<Ticket> = (1..=10).map(|n| wal.submit(record(n))).collect();
    let (appends, syncs) = (disk.count("append"), disk.count("sync"));
    for (index, ticket) in tickets.iter().enumerate().rev() {
        assert_eq!(wal.commit(ticket).unwrap(), index as u64 + 1, "the order is that of submitting");
    }
    assert_eq!(wal.commit(&tickets[3]).unwrap(), 4, "an outcome can be asked for again");
    assert_eq!((disk.count("append") - appends, disk.count("sync") - syncs), (1, 1));
    check_holds(&contents(&disk, 0), 1..=10);
}

#[test]
fn threads_that_commit_at_once_share_syncs() {
    let fake = FakeDisk::default();
    let wal = open(&fake, settings(Durability::Power, 1 << 20));
    let barrier = Barrier::new(8);
    let lsns: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u64)
            .map(|thread| {
                let (wal, barrier) = (&wal, &barrier);
                scope.spawn(move || {
                    let mut lsns = Vec::new();
                    for round in 0..25 {
                        // All have submitted before anybody commits, so that there is a group to be shared.
                        let ticket = wal.submit(record(thread * 25 + round));
                        barrier.wait();
                        lsns.push(wal.commit(&ticket).unwrap());
                        barrier.wait();
                    }
                    lsns
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(fake.count("sync"), 25, "one for each round");
    let mut sorted = lsns.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=200).collect::<Vec<_>>());
    let found = contents(&fake, 0);
    let mut by_lsn = records(&found);
    by_lsn.sort_by_key(|(lsn, _)| *lsn);
    for (n, lsn) in lsns.iter().enumerate() {
        assert_eq!(by_lsn[*lsn as usize - 1], (*lsn, record(n as u64)));
    }
}

#[test]
fn at_level_process_nothing_is_synced_until_it_is_asked_for() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Process, 600));
    let before = disk.count("sync") + disk.count("sync_directory");
    let bodies: usize = (1..=9).map(|n| record(n).body().len()).sum();
    for n in 1..=9 {
        commit(&wal, n).unwrap();
    }
    assert_eq!(disk.count("sync") + disk.count("sync_directory"), before);
    assert_eq!((wal.durable_lsn(), wal.unsynced_bytes()), (0, bodies as u64));
    let files = wal.files().len() as u64;
    assert_eq!(wal.sync().unwrap(), 9);
    assert_eq!(disk.count("sync") + disk.count("sync_directory"), before + files + 1);
    assert_eq!((wal.durable_lsn(), wal.unsynced_bytes()), (9, 0));
    assert_eq!(wal.sync().unwrap(), 9, "and nothing is synced twice");
    assert_eq!(disk.count("sync") + disk.count("sync_directory"), before + files + 1);
}

#[test]
fn truncation_removes_whole_files_and_never_the_newest() {
    for level in [Durability::Power, Durability::Process] {
        let disk = FakeDisk::default();
        let wal = open(&disk, settings(level, 700));
        for n in 1..=20 {
            commit(&wal, n).unwrap();
        }
        let files = wal.files();
        assert!(files.len() >= 4);
        assert_eq!(
            wal.truncate(files[1].last_lsn).unwrap(),
            1,
            "the second still has a record that is needed"
        );
        assert_eq!(wal.files(), files[1..]);
        assert!(wal.durable_lsn() >= files[0].last_lsn, "what is not needed is durable enough");
        assert_eq!(wal.truncate(files[1].last_lsn + 1).unwrap(), 1);
        check_holds(&contents(&disk, files[1].last_lsn), files[2].first_lsn..=20);
        let removed = wal.truncate(u64::MAX).unwrap();
        assert_eq!(removed as usize, files.len() - 3);
        assert_eq!(wal.files(), files[files.len() - 1..]);
        assert_eq!(commit(&wal, 21).unwrap(), 21);
        let found = contents(&disk, 20);
        assert_eq!(records(&found).last(), Some(&(21, record(21))));
        assert_eq!(found.lost, []);
    }
}

#[test]
fn a_file_that_cannot_be_removed_stays_and_so_do_newer_ones() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Power, 300));
    for n in 1..=12 {
        commit(&wal, n).unwrap();
    }
    let files = wal.files();
    disk.fail_at(disk.calls() + 3, Fault::Once(std::io::ErrorKind::PermissionDenied));
    let error = wal.truncate(12).unwrap_err().to_string();
    assert!(error.starts_with("remove wal/0000000002-"), "{error}");
    assert_eq!(wal.files(), files[1..]);
}

#[test]
fn what_cannot_be_written_is_refused_by_name() {
    let disk = FakeDisk::default();
    let wal = open(&disk, WalSettings { record_bytes_max: 100, ..settings(Durability::Power, 1000) });
    let rows = |header: RowsHeader| Record::Rows(RowsRecord { header, body: Bytes::new() });
    let Record::Rows(RowsRecord { header, .. }) = record(2) else { panic!() };
    let check = |record: Record, expect: &str| {
        let error = wal.commit(&wal.submit(record)).unwrap_err();
        assert_eq!(error.to_string(), expect);
        assert!(!error.may_survive() && !error.is_full());
    };
    check(Record::Edit(vec![0; 101].into()), "a record of 101 bytes exceeds record_bytes_max of 100");
    check(
        rows(RowsHeader { producer: "p".repeat(65_536).into(), ..header.clone() }),
        "a name of 65536 bytes in a record exceeds 65535",
    );
    check(
        rows(RowsHeader { first_row: u64::MAX, rows: 1, ..header }),
        "1 rows from number 18446744073709551615 on exceed 4294967295 in a record or 9007199254740992 in a table",
    );
    let other = open(&FakeDisk::default(), settings(Durability::Power, 1000));
    let error = other.commit(&wal.submit(record(1))).unwrap_err();
    assert_eq!(error.to_string(), "the record was given up before it was written");
    assert_eq!(commit(&wal, 2).unwrap(), 2, "a refused record takes no number, one that nobody commits does");
    check_holds(&contents(&disk, 0), 1..=2);
}

#[test]
fn on_the_disk_of_this_machine_it_is_the_same() {
    for level in [Durability::Power, Durability::Process] {
        let directory = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(OsDisk::new(directory.path()));
        for life in 0..3u64 {
            let found = read(disk.clone(), INSTANCE, 0).unwrap();
            if life > 0 {
                check_holds(&found, 1..=life * 300);
            }
            let wal = Wal::open(disk.clone(), settings(level, 20_000), &found).unwrap();
            for n in life * 300 + 1..=(life + 1) * 300 {
                assert_eq!(commit(&wal, n).unwrap(), n);
            }
            if life == 1 {
                wal.sync().unwrap();
            }
        }
        let found = read(disk.clone(), INSTANCE, 0).unwrap();
        check_holds(&found, 1..=900);
        let wal = Wal::open(disk.clone(), settings(level, 20_000), &found).unwrap();
        let files = wal.files().len();
        assert!(files > 6);
        assert_eq!(wal.truncate(901).unwrap() as usize, files - 1);
        assert_eq!(std::fs::read_dir(directory.path().join("wal")).unwrap().count(), 1);
    }
}
