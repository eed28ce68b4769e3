use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::testing::{TestSegments, path_of};

fn finished(name: &SegmentName, bytes: &[u8]) {
    let mut writer = SegmentWriter::create(name, bytes.len() as u64).unwrap();
    writer.write_at(0, bytes).unwrap();
    writer.finish().unwrap();
}

fn refused(name: &SegmentName) -> String {
    open_exclusive(name).unwrap_err().to_string()
}

#[test]
fn what_is_written_stays() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    // More than one piece, and not a whole number of them.
    let bytes: Vec<u8> = (0..WRITE_BYTES * 2 + 12_345).map(|at| (at % 251) as u8).collect();
    let mut writer = SegmentWriter::create(&name, bytes.len() as u64).unwrap();
    assert_eq!((writer.name(), writer.size_bytes()), (&name, bytes.len() as u64));
    let path = path_of(&name);
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!((metadata.len(), metadata.blocks()), (bytes.len() as u64, 0), "memory comes with writing");
    let (front, back) = bytes.split_at(1000);
    writer.write_at(1000, back).unwrap();
    writer.write_at(0, front).unwrap();
    writer.finish().unwrap();
    assert!(path.metadata().unwrap().blocks() * 512 >= bytes.len() as u64);
    assert!(std::fs::read(&path).unwrap() == bytes);
    assert_eq!(segments.list().unwrap(), std::slice::from_ref(&name));
    unlink(&name).unwrap();
    assert_eq!(segments.list().unwrap(), []);
    assert_eq!(unlink(&name).unwrap_err().to_string(), format!("segment `{name}` does not exist"));
}

#[test]
fn writes_stay_inside() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let mut writer = SegmentWriter::create(&name, 10).unwrap();
    let mut check = |offset: u64, bytes: &[u8], end: Option<u64>| {
        let text =
            end.map(|end| format!("range {offset}..{end} is empty or outside segment `{name}` of 10 bytes"));
        assert_eq!(writer.write_at(offset, bytes).err().map(|error| error.to_string()), text);
    };
    check(0, &[1; 10], None);
    check(10, &[], None);
    check(0, &[1; 11], Some(11));
    check(10, &[1], Some(11));
    check(11, &[], Some(11));
    check(u64::MAX, &[1], Some(u64::MAX));
    assert_eq!(path_of(&name).metadata().unwrap().len(), 10);
}

#[test]
fn a_name_is_made_once() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let writer = SegmentWriter::create(&name, 10).unwrap();
    let taken = format!("segment `{name}` already exists");
    assert_eq!(SegmentWriter::create(&name, 10).unwrap_err().to_string(), taken);
    writer.finish().unwrap();
    assert_eq!(SegmentWriter::create(&name, 10).unwrap_err().to_string(), taken);
    let elsewhere = segments.name("b").unwrap();
    std::os::unix::fs::symlink("/dev/shm/elsewhere", path_of(&elsewhere)).unwrap();
    assert_eq!(
        SegmentWriter::create(&elsewhere, 10).unwrap_err().to_string(),
        format!("segment `{elsewhere}` already exists")
    );
}

#[test]
fn an_unfinished_segment_goes_with_its_writer() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    drop(SegmentWriter::create(&name, 10).unwrap());
    assert_eq!(segments.list().unwrap(), []);

    // A segment that came under the same name meanwhile is not ours to remove.
    let writer = SegmentWriter::create(&name, 10).unwrap();
    unlink(&name).unwrap();
    finished(&name, b"other");
    drop(writer);
    assert_eq!(std::fs::read(path_of(&name)).unwrap(), b"other");
}

#[test]
fn a_writer_that_lost_its_name_does_not_finish() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let lost = SegmentWriter::create(&name, 10).unwrap();
    unlink(&name).unwrap();
    let replaced = SegmentWriter::create(&name, 10).unwrap();
    unlink(&name).unwrap();
    assert_eq!(lost.finish().unwrap_err().to_string(), format!("segment `{name}` does not exist"));
    finished(&name, b"other");
    assert_eq!(
        replaced.finish().unwrap_err().to_string(),
        format!("segment `{name}` was replaced while it was opened")
    );
}

#[test]
fn sizes_have_limits() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    for bytes in [0, SEGMENT_BYTES_MAX + 1, u64::MAX] {
        assert_eq!(
            SegmentWriter::create(&name, bytes).unwrap_err().to_string(),
            format!(
                "segment `{name}` cannot have {bytes} bytes, the least is 1 and the most {SEGMENT_BYTES_MAX}"
            )
        );
    }
    assert_eq!(segments.list().unwrap(), []);
}

#[test]
fn too_much_is_an_error_and_leaves_nothing() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let stat = rustix::fs::statvfs(DIRECTORY).unwrap();
    if stat.f_blocks == 0 {
        // Mounted without a limit: there is no number of bytes that is too much for certain.
        assert_eq!(available_bytes().unwrap(), u64::MAX);
        return;
    }
    let too_much = available_bytes().unwrap() + (1 << 30);
    let check = |result: Result<(), ShmError>| match result.unwrap_err() {
        ShmError::NoSpace { name: found, bytes, available_bytes } => {
            assert_eq!((found, bytes), (name.clone(), too_much));
            assert!(available_bytes < too_much);
        }
        other => panic!("{other}"),
    };
    check(SegmentWriter::create(&name, too_much).map(drop));
    assert_eq!(segments.list().unwrap(), []);
}

#[test]
fn what_was_never_written_is_zero_and_has_memory() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let page = rustix::param::page_size();
    let mut writer = SegmentWriter::create(&name, 8 * page as u64 + 1).unwrap();
    writer.write_at(3 * page as u64 + 5, &[7; 10]).unwrap();
    writer.finish().unwrap();
    let mut expected = vec![0; 8 * page + 1];
    expected[3 * page + 5..][..10].fill(7);
    assert_eq!(path_of(&name).metadata().unwrap().blocks() * 512, 9 * page as u64);
    assert!(std::fs::read(path_of(&name)).unwrap() == expected);
}

#[test]
fn a_segment_has_one_owner_at_a_time() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let busy = format!("segment `{name}` is in use by another owner");
    let writer = SegmentWriter::create(&name, 10).unwrap();
    assert_eq!(refused(&name), busy);
    writer.finish().unwrap();
    let opened = open_exclusive(&name).unwrap();
    assert_eq!(refused(&name), busy);
    drop(opened);
    open_exclusive(&name).unwrap();
}

#[test]
fn every_gate_refuses_alone() {
    let segments = TestSegments::new();
    let check = |break_it: &dyn Fn(&SegmentName), text: &str| {
        let name = segments.name("gate").unwrap();
        finished(&name, b"bytes");
        open_exclusive(&name).unwrap();
        break_it(&name);
        assert_eq!(refused(&name), format!("segment `{name}` {text}"));
        for left in segments.list().unwrap() {
            let path = path_of(&left);
            std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).unwrap();
        }
    };
    let remove = |name: &SegmentName| std::fs::remove_file(path_of(name)).unwrap();
    check(&remove, "does not exist");
    check(
        &|name| {
            // A good segment behind the link does not help.
            let target = segments.name("target").unwrap();
            finished(&target, b"bytes");
            remove(name);
            std::os::unix::fs::symlink(path_of(&target), path_of(name)).unwrap();
        },
        "is a symbolic link, only a regular file is accepted",
    );
    check(
        &|name| {
            remove(name);
            std::fs::create_dir(path_of(name)).unwrap();
        },
        "is a directory, only a regular file is accepted",
    );
    check(
        &|name| {
            remove(name);
            let mode = Mode::RUSR | Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, path_of(name), FileType::Fifo, mode, 0).unwrap();
        },
        "is a named pipe, only a regular file is accepted",
    );
    check(
        &|name| {
            remove(name);
            drop(std::os::unix::net::UnixListener::bind(path_of(name)).unwrap());
        },
        "is a socket, only a regular file is accepted",
    );
    for mode in [0o601, 0o602, 0o604, 0o610, 0o620, 0o640, 0o666] {
        check(
            &|name| {
                std::fs::set_permissions(path_of(name), std::fs::Permissions::from_mode(mode)).unwrap();
            },
            &format!("has mode {mode:04o}, only its owner may have access (0600)"),
        );
    }
    check(
        &|name| {
            std::fs::hard_link(path_of(name), path_of(&segments.name("second").unwrap())).unwrap();
        },
        "has 2 names, exactly 1 is accepted",
    );
    if rustix::process::geteuid().is_root() {
        check(
            &|name| std::os::unix::fs::chown(path_of(name), Some(12_345), None).unwrap(),
            "belongs to user 12345, this process runs as user 0",
        );
    }
}

/// The gates once more without the system, for the cases that need rights to be set up.
#[test]
fn facts_are_judged() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let check = |kind: FileType, owner_uid: u32, mode: u32, links: u64, text: Option<&str>| {
        let identity = Identity { device: 1, inode: 1 };
        let facts = Facts { kind, owner_uid, mode, links, size_bytes: 1, identity };
        let found = check_facts(&name, &facts, 1000).err().map(|error| error.to_string());
        assert_eq!(found, text.map(|text| format!("segment `{name}` {text}")));
    };
    check(FileType::RegularFile, 1000, 0o600, 1, None);
    check(FileType::RegularFile, 1000, 0o400, 1, None);
    check(FileType::BlockDevice, 1000, 0o600, 1, Some("is a block device, only a regular file is accepted"));
    check(FileType::RegularFile, 0, 0o600, 1, Some("belongs to user 0, this process runs as user 1000"));
    check(
        FileType::RegularFile,
        1000,
        0o660,
        1,
        Some("has mode 0660, only its owner may have access (0600)"),
    );
    check(FileType::RegularFile, 1000, 0o600, 0, Some("has 0 names, exactly 1 is accepted"));
}

#[test]
fn a_listing_holds_our_names_only() {
    let segments = TestSegments::new();
    let other = TestSegments::new();
    finished(&segments.name("b").unwrap(), b"1");
    finished(&segments.name("a").unwrap(), b"1");
    finished(&other.name("c").unwrap(), b"1");
    std::fs::create_dir(path_of(&segments.name("d").unwrap())).unwrap();
    let odd = format!("/dev/shm{}not ours", segments.prefix());
    std::fs::write(&odd, b"").unwrap();
    let names = segments.list().unwrap();
    std::fs::remove_file(&odd).unwrap();
    assert_eq!(names, ["a", "b", "d"].map(|suffix| segments.name(suffix).unwrap()));
}
