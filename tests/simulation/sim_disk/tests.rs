use std::collections::BTreeSet;

use gannet_leaf::disk::OsDisk;
use rand::SeedableRng;

use super::*;
use crate::life::Trace;

fn life() -> Life {
    Life::new(&Trace::new(false))
}

fn read(disk: &dyn Disk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(path).ok()?;
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    Some(bytes)
}

/// What 200 power cuts leave of the file `a`, after `act` on a disk with an empty directory `d` that is durable.
fn left_of(path: &str, act: impl Fn(&SimDisk)) -> BTreeSet<Option<Vec<u8>>> {
    (0..200)
        .map(|seed| {
            let drive = Drive::new();
            let before = life();
            let disk = drive.of(&before);
            disk.create_directory("d").unwrap();
            disk.sync_directory("").unwrap();
            act(&disk);
            before.end();
            drive.power_cut(&mut StdRng::seed_from_u64(seed));
            let after = read(&drive.of(&life()), path);
            // What is there after a cut stays, however often the power goes.
            drive.power_cut(&mut StdRng::seed_from_u64(seed + 1));
            assert_eq!(read(&drive.of(&life()), path), after);
            after
        })
        .collect()
}

fn write(disk: &SimDisk, path: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
    let mut file = disk.create(path).unwrap();
    file.append(&[bytes]).unwrap();
    file
}

#[test]
fn only_what_was_synced_survives_for_sure() {
    let synced = left_of("d/a", |disk| {
        write(disk, "d/a", b"abc").sync().unwrap();
        disk.sync_directory("d").unwrap();
    });
    assert_eq!(synced, BTreeSet::from([Some(b"abc".to_vec())]));
    let no_directory = left_of("d/a", |disk| write(disk, "d/a", b"abc").sync().unwrap());
    assert_eq!(no_directory, BTreeSet::from([None, Some(b"abc".to_vec())]));
    let no_sync = left_of("d/a", |disk| {
        write(disk, "d/a", b"abc");
        disk.sync_directory("d").unwrap();
    });
    for expected in [&b""[..], b"a", b"ab", b"abc", b"\0\0\0"] {
        assert!(no_sync.contains(&Some(expected.to_vec())), "{expected:?}");
    }
    assert!(!no_sync.contains(&None));
    let orphan = left_of("e/a", |disk| {
        disk.create_directory("e").unwrap();
        write(disk, "e/a", b"abc").sync().unwrap();
        disk.sync_directory("e").unwrap();
    });
    assert_eq!(orphan, BTreeSet::from([None, Some(b"abc".to_vec())]), "the directory itself was not synced");
}

#[test]
fn a_synced_prefix_is_never_torn() {
    let left = left_of("d/a", |disk| {
        let mut file = write(disk, "d/a", &[1; 700]);
        file.sync().unwrap();
        disk.sync_directory("d").unwrap();
        file.append(&[&[2; 2_000]]).unwrap();
        file.append(&[&[3; 10]]).unwrap();
    });
    assert!(left.len() > 50, "{} outcomes", left.len());
    for left in &left {
        let left = left.as_ref().unwrap();
        assert!(left.len() >= 700 && left.len() <= 2_710);
        assert_eq!(left[..700], [1; 700]);
        // Inside the sector that holds both, what is new is there or not.
        let rest = left.get(700..1_024).unwrap_or(&left[700..]);
        assert!(rest.windows(2).all(|pair| pair[0] == pair[1]) || rest.iter().any(|byte| *byte > 3));
    }
    let torn = |left: &&Option<Vec<u8>>| left.as_ref().unwrap()[700..].contains(&0);
    assert!(left.iter().filter(torn).count() > 10);
}

#[test]
fn cutting_a_file_short_is_not_durable_either() {
    let left = left_of("d/a", |disk| {
        let mut file = write(disk, "d/a", b"abcdef");
        file.sync().unwrap();
        disk.sync_directory("d").unwrap();
        file.truncate(2).unwrap();
        file.append(&[b"XY"]).unwrap();
        assert_eq!(read(disk, "d/a").unwrap(), b"abXY");
    });
    for expected in [&b"abcdef"[..], b"ab", b"abX", b"abXY"] {
        assert!(left.contains(&Some(expected.to_vec())), "{expected:?} of {left:?}");
    }
    assert!(left.iter().all(|left| left.as_ref().unwrap().starts_with(b"ab")));
}

#[test]
fn a_rename_is_all_or_nothing_and_needs_its_directory() {
    let left = left_of("d/a", |disk| {
        write(disk, "d/a", b"old").sync().unwrap();
        disk.sync_directory("d").unwrap();
        write(disk, "d/a.new", b"new").sync().unwrap();
        disk.rename("d/a.new", "d/a").unwrap();
        assert_eq!(read(disk, "d/a").unwrap(), b"new");
        assert_eq!(disk.list("d").unwrap(), ["a"]);
    });
    assert_eq!(left, BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]));
    let left = left_of("d/a", |disk| {
        write(disk, "d/a.new", b"new").sync().unwrap();
        disk.rename("d/a.new", "d/a").unwrap();
        disk.sync_directory("d").unwrap();
        disk.remove("d/a").unwrap();
        assert_eq!(read(disk, "d/a"), None);
    });
    assert_eq!(left, BTreeSet::from([None, Some(b"new".to_vec())]));
    let moved = left_of("d/a", |disk| {
        write(disk, "d/a", b"abc").sync().unwrap();
        disk.create_directory("bad").unwrap();
        disk.sync_directory("").unwrap();
        disk.rename("d/a", "bad/a").unwrap();
        disk.sync_directory("bad").unwrap();
        disk.sync_directory("d").unwrap();
    });
    assert_eq!(moved, BTreeSet::from([None]));
}

#[test]
fn a_sync_that_failed_has_lost_its_bytes_for_good() {
    let left = left_of("d/a", |disk| {
        let drive = Drive(Arc::clone(&disk.state));
        let mut file = write(disk, "d/a", b"abc");
        file.sync().unwrap();
        disk.sync_directory("d").unwrap();
        file.append(&[b"def"]).unwrap();
        drive.add_fault(DiskFault { call: DiskCall::Sync, nth: 1, times: 1, errno: Errno::IO }, 0);
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
        file.append(&[b"ghi"]).unwrap();
        file.sync().unwrap();
        assert_eq!(read(disk, "d/a").unwrap(), b"abcdefghi", "reads still see them");
    });
    assert_eq!(left, BTreeSet::from([Some(b"abc\0\0\0ghi".to_vec())]));
}

#[test]
fn a_kill_keeps_everything_that_was_written() {
    let drive = Drive::new();
    let before = life();
    let disk = drive.of(&before);
    disk.create_directory("d").unwrap();
    let mut file = write(&disk, "d/a", b"abc");
    before.end();
    let over = "the process has ended";
    assert_eq!(file.append(&[b"x"]).unwrap_err().to_string(), over);
    assert_eq!(file.sync().unwrap_err().to_string(), over);
    assert_eq!(file.truncate(0).unwrap_err().to_string(), over);
    assert_eq!(file.bytes().unwrap_err().to_string(), over);
    assert_eq!(file.read_at(0, &mut [0]).unwrap_err().to_string(), over);
    assert_eq!(disk.create("d/b").unwrap_err().to_string(), over);
    assert_eq!(disk.remove("d/a").unwrap_err().to_string(), over);
    assert_eq!(disk.rename("d/a", "d/b").unwrap_err().to_string(), over);
    assert_eq!(disk.sync_directory("d").unwrap_err().to_string(), over);
    assert_eq!(disk.map("d/a", 3).unwrap_err().to_string(), over);
    assert_eq!(disk.list("d").unwrap_err().to_string(), over);
    let next = drive.of(&life());
    assert_eq!(read(&next, "d/a").unwrap(), b"abc");
    assert_eq!(drive.files(), [("d/a".to_owned(), 3)]);
    // What another process wrote is durable once this one syncs it.
    next.create_directory("d").unwrap();
    next.open("d/a").unwrap().sync().unwrap();
    next.sync_directory("d").unwrap();
    next.sync_directory("").unwrap();
    drive.power_cut(&mut StdRng::seed_from_u64(1));
    assert_eq!(read(&drive.of(&life()), "d/a").unwrap(), b"abc");
}

#[test]
fn a_life_ends_in_the_call_it_was_told() {
    let drive = Drive::new();
    let life = life();
    let disk = drive.of(&life);
    disk.create_directory("d").unwrap();
    let mut file = disk.create("d/a").unwrap();
    drive.add_fault(DiskFault { call: DiskCall::Map, nth: 1, times: 1, errno: Errno::IO }, 2);
    life.end_in(2);
    file.append(&[b"abc"]).unwrap();
    assert!(!life.has_ended());
    assert_eq!(file.append(&[b"def"]).unwrap_err().to_string(), "the process has ended");
    assert!(life.has_ended());
    assert!(file.sync().is_err());
    assert_eq!(read(&drive.of(&Life::new(&life.trace)), "d/a").unwrap(), b"abcde", "a part was written");
}

#[test]
fn faults_hit_the_calls_they_are_set_for() {
    let drive = Drive::new();
    let disk = drive.of(&life());
    let fault = |call, nth, times, errno| drive.add_fault(DiskFault { call, nth, times, errno }, 1);
    fault(DiskCall::Create, 2, 2, Errno::NOSPC);
    let made: Vec<bool> = ["a", "b", "c", "d"].iter().map(|path| disk.create(path).is_ok()).collect();
    assert_eq!(made, [true, false, false, true]);
    fault(DiskCall::Append, 1, 1, Errno::IO);
    let mut file = disk.create("a").unwrap();
    assert_eq!(file.append(&[b"abc"]).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(read(&disk, "a").unwrap(), b"a", "a part was written");
    drive.set_capacity(4);
    assert_eq!(disk.free_bytes().unwrap(), 3);
    assert_eq!(file.append(&[b"bc", b"def"]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(read(&disk, "a").unwrap(), b"abcd");
    file.truncate(2).unwrap();
    file.append(&[b"XY"]).unwrap();
    fault(DiskCall::Read, 1, u64::MAX, Errno::IO);
    let mut bytes = [0; 4];
    assert!(disk.open("a").unwrap().read_at(0, &mut bytes).is_err());
    assert!(disk.open("a").unwrap().read_at(0, &mut bytes).is_err());
    drive.heal();
    assert_eq!(disk.open("a").unwrap().read_at(0, &mut bytes).unwrap(), 4);
    assert_eq!(&bytes, b"abXY");
    assert_eq!(drive.flip_bit("a", 9, 4), Some(1));
    assert_eq!(read(&disk, "a").unwrap(), b"a`XY");
    assert_eq!(drive.flip_bit("none", 9, 4), None);
    assert!(disk.open("a").unwrap().append(&[b"x"]).is_err(), "what is opened is for reading");
    assert!(disk.open("a").unwrap().truncate(0).is_err());
}

/// One operation on a disk, and what it said, in words that do not depend on the disk.
fn operate(disk: &dyn Disk, files: &mut [Option<Box<dyn DiskFile>>], rng: &mut StdRng) -> String {
    let directories = ["", "d", "d/e", "none"];
    let names = ["a", "b", "d/a", "d/b", "d/e/a", "none/a"];
    let name = names[rng.random_range(0..names.len())];
    let other = names[rng.random_range(0..names.len())];
    let directory = directories[rng.random_range(0..3)];
    let at = rng.random_range(0..4_usize);
    let number = rng.random_range(0..2_000_u64);
    let bytes: Vec<u8> = (0..rng.random_range(0..1_500)).map(|at| (at % 251) as u8).collect();
    let said = |outcome: io::Result<String>| match outcome {
        Ok(said) => said,
        Err(error) => format!("{:?} {:?}", error.kind(), error.raw_os_error()),
    };
    let unit = |outcome: io::Result<()>| said(outcome.map(|()| "done".to_owned()));
    match rng.random_range(0..14) {
        0 => unit(disk.create_directory(directory)),
        1 => said(disk.list(directories[at]).map(|names| names.join(","))),
        2 | 3 => said(disk.create(name).map(|file| {
            files[at] = Some(file);
            "made".to_owned()
        })),
        4 => said(disk.open(name).map(|file| {
            files[at] = Some(file);
            "opened".to_owned()
        })),
        5 => said(disk.map(name, number).map(|bytes| format!("{bytes:?}"))),
        6 => unit(disk.rename(name, other)),
        7 => unit(disk.remove(name)),
        8 => unit(disk.sync_directory(directories[at])),
        kind => {
            let Some(file) = files[at].as_mut() else { return "no file".to_owned() };
            match kind {
                9 | 10 => unit(file.append(&[&bytes, b"", b"end"])),
                11 => unit(file.sync()),
                12 => unit(file.truncate(number)),
                _ => {
                    let mut into = vec![0; 700];
                    let read = file.read_at(number, &mut into);
                    said(read.map(|read| format!("{} {:?}", file.bytes().unwrap(), &into[..read])))
                }
            }
        }
    }
}

#[test]
fn it_does_what_a_real_disk_does() {
    for seed in 0..60 {
        let directory = tempfile::tempdir().unwrap();
        let real = OsDisk::new(directory.path());
        let drive = Drive::new();
        let simulated = drive.of(&life());
        let mut real_files: Vec<Option<Box<dyn DiskFile>>> = (0..4).map(|_| None).collect();
        let mut simulated_files: Vec<Option<Box<dyn DiskFile>>> = (0..4).map(|_| None).collect();
        for step in 0..200 {
            let rng = || StdRng::seed_from_u64(seed * 1_000 + step);
            let expected = operate(&real, &mut real_files, &mut rng());
            let found = operate(&simulated, &mut simulated_files, &mut rng());
            assert_eq!(found, expected, "step {step} of seed {seed}");
        }
        for directory in ["", "d", "d/e"] {
            let names = real.list(directory);
            assert_eq!(simulated.list(directory).ok(), names.as_ref().ok().cloned());
            for name in names.into_iter().flatten() {
                let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
                assert_eq!(read(&simulated, &path), read(&real, &path), "{path} of seed {seed}");
            }
        }
    }
}

#[test]
fn what_was_synced_is_there_after_any_cut() {
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let drive = Drive::new();
        let before = life();
        let disk = drive.of(&before);
        disk.create_directory("d").unwrap();
        disk.sync_directory("").unwrap();
        // For each file what was synced, and what was written since.
        let mut synced: BTreeMap<String, (Vec<u8>, Vec<u8>)> = BTreeMap::new();
        for number in 0..rng.random_range(1..6) {
            let path = format!("d/{number}");
            let mut file = disk.create(&path).unwrap();
            let (mut durable, mut written) = (Vec::new(), Vec::new());
            for _ in 0..rng.random_range(1..6) {
                let bytes = vec![rng.random_range(1..=255); rng.random_range(1..900)];
                file.append(&[&bytes]).unwrap();
                written.extend_from_slice(&bytes);
                if rng.random_bool(0.5) {
                    file.sync().unwrap();
                    durable = written.clone();
                }
            }
            disk.sync_directory("d").unwrap();
            synced.insert(path, (durable, written));
        }
        before.end();
        drive.power_cut(&mut rng);
        let disk = drive.of(&life());
        for (path, (durable, written)) in synced {
            let left = read(&disk, &path).unwrap();
            assert!(left.starts_with(&durable), "{path} of seed {seed}");
            assert!(left.len() <= written.len(), "{path} of seed {seed}");
        }
    }
}
