//! What a process leaves behind that is killed, and what one does that finds no room: each in a process of its own, which
//! is this test binary started again for one of its tests.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::testing::{TestSegments, path_of};
use crate::{
    Edition, HEADER_BYTES, Instance, MappedSegment, OsSharedMemory, SegmentName, Segments, SharedMemory,
    ShmError, publish, take,
};

/// Says in a child whose segments it plays with; a test that is a child's part does nothing without.
const INSTANCE: &str = "GANNET_TEST_CHILD_OF_INSTANCE";
/// What a child says when it has done its part.
const READY: &str = "ready to be killed";
const EDITION: Edition = Edition { layout_version: 1, generation: 1 };
const PAGE: usize = 4096;

fn bytes(pages: usize) -> Vec<u8> {
    (0..pages * PAGE).map(|at| (at % 251) as u8 + 1).collect()
}

fn finished(name: &SegmentName, pages: usize) {
    let mut writer = OsSharedMemory.create(name, (pages * PAGE) as u64).unwrap();
    writer.write_at(0, &bytes(pages)).unwrap();
    writer.finish().unwrap();
}

fn map(name: &SegmentName, pages: usize) -> Arc<dyn MappedSegment> {
    OsSharedMemory.map(name, (pages * PAGE) as u64).unwrap()
}

/// The segments this process plays with, when it is a child.
fn segments_of_child() -> Option<Segments> {
    let instance = std::env::var(INSTANCE).ok()?;
    Some(Segments::new(Instance::parse(&instance).unwrap()))
}

/// Arguments for the test binary that run one test and let it speak.
fn only(test: &str) -> [String; 3] {
    [format!("crashes::{test}"), "--exact".to_owned(), "--nocapture".to_owned()]
}

#[test]
fn child_that_is_killed() {
    let Some(segments) = segments_of_child() else { return };
    let name = |suffix: &str| segments.name(suffix).unwrap();
    finished(&name("finished"), 4);
    publish(&OsSharedMemory, &segments, EDITION, b"payload").unwrap();

    let mut unfinished = OsSharedMemory.create(&name("unfinished"), 4 * PAGE as u64).unwrap();
    unfinished.write_at(0, &bytes(2)).unwrap();

    finished(&name("mapped"), 4);
    let mapped = map(&name("mapped"), 4);
    mapped.unlink_when_empty();
    let region = Arc::clone(&mapped).region(2 * PAGE..4 * PAGE).unwrap();
    let expired = mapped.region(0..PAGE).unwrap();
    expired.expire();
    drop(expired);

    println!("\n{READY}");
    // The parent never writes, so this ends with the process.
    let _ = std::io::stdin().read(&mut [0]);
    drop((region, unfinished));
}

#[test]
fn a_killed_process_leaves_what_can_be_told_apart() {
    let segments = TestSegments::new();
    let name = |suffix: &str| segments.name(suffix).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(only("child_that_is_killed"))
        .env(INSTANCE, segments.instance().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = said.map(Result::unwrap).any(|line| line == READY);
    let refused = |suffix: &str, pages: usize| {
        OsSharedMemory.map(&name(suffix), (pages * PAGE) as u64).unwrap_err().to_string()
    };
    let while_it_lives = ["unfinished", "mapped"].map(|suffix| refused(suffix, 4));
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(ready && !status.success(), "{status}");
    for (suffix, refusal) in ["unfinished", "mapped"].into_iter().zip(while_it_lives) {
        assert_eq!(refusal, format!("segment `{}` is in use by another owner", name(suffix)));
    }

    let left = ["catalogue", "finished", "mapped", "unfinished"].map(name);
    assert_eq!(segments.list().unwrap(), left);
    assert_eq!(take(&OsSharedMemory, &segments, EDITION).unwrap(), b"payload");
    let hole = |suffix: &str, start: usize, end: usize, hole: usize| {
        let text = format!("range {start}..{end} of segment `{}` has no memory at {hole}", name(suffix));
        assert_eq!(map(&name(suffix), 4).region(start..end).unwrap_err().to_string(), text);
    };
    let whole = |suffix: &str, start: usize, end: usize| {
        let region = map(&name(suffix), 4).region(start..end).unwrap();
        assert!(region.as_slice() == &bytes(4)[start..end], "{suffix}");
    };
    whole("finished", 0, 4 * PAGE);
    whole("unfinished", 0, 2 * PAGE);
    hole("unfinished", 0, 4 * PAGE, 2 * PAGE);
    whole("mapped", PAGE, 4 * PAGE);
    hole("mapped", 0, PAGE, 0);
    for suffix in ["finished", "unfinished", "mapped"] {
        let text = format!("segment `{}` has {} bytes, expected {}", name(suffix), 4 * PAGE, 5 * PAGE);
        assert_eq!(refused(suffix, 5), text);
        let taken = OsSharedMemory.create(&name(suffix), 1).unwrap_err().to_string();
        assert_eq!(taken, format!("segment `{}` already exists", name(suffix)));
    }
}

/// A `/dev/shm` of a mebibyte.
#[test]
fn child_without_room() {
    let Some(segments) = segments_of_child() else { return };
    let name = |suffix: &str| segments.name(suffix).unwrap();
    let list = || OsSharedMemory.list(&segments).unwrap();
    let check = |result: Result<(), ShmError>, suffix: &str, bytes: usize, free_pages: usize| {
        let free = free_pages * PAGE;
        assert_eq!(
            result.unwrap_err().to_string(),
            format!(
                "no space for segment `{}`: {bytes} bytes asked, {free} bytes free in /dev/shm",
                name(suffix)
            )
        );
    };
    // There is room for each and not for both.
    let create = |suffix: &str, pages: usize| OsSharedMemory.create(&name(suffix), (pages * PAGE) as u64);
    let (mut first, mut second) = (create("first", 150).unwrap(), create("second", 150).unwrap());
    first.write_at(0, &bytes(150)).unwrap();
    check(second.write_at(0, &bytes(150)), "second", 150 * PAGE, 0);
    drop(second);
    assert_eq!(OsSharedMemory.available_bytes().unwrap(), 106 * PAGE as u64, "it took its memory with it");
    first.finish().unwrap();
    assert_eq!(list(), [name("first")]);
    assert!(map(&name("first"), 150).region(0..150 * PAGE).unwrap().as_slice() == bytes(150));
    check(create("second", 107).map(drop), "second", 107 * PAGE, 106);

    // What was never written has no room either.
    let second = create("second", 80).unwrap();
    finished(&name("third"), 80);
    check(second.finish(), "second", 80 * PAGE, 0);
    assert_eq!(list(), [name("first"), name("third")]);
    check(
        publish(&OsSharedMemory, &segments, EDITION, &bytes(30)),
        "catalogue",
        30 * PAGE + HEADER_BYTES,
        26,
    );

    // The last page is taken, and a part that is not there is refused; looked at, it would be the end of us.
    let sparse = name("sparse");
    let file =
        std::fs::File::options().create_new(true).write(true).mode(0o600).open(path_of(&sparse)).unwrap();
    file.set_len(4 * PAGE as u64).unwrap();
    finished(&name("rest"), 26);
    assert_eq!(OsSharedMemory.available_bytes().unwrap(), 0);
    let text = format!("range 0..{PAGE} of segment `{sparse}` has no memory at 0");
    assert_eq!(map(&sparse, 4).region(0..PAGE).unwrap_err().to_string(), text);

    OsSharedMemory.unlink(&name("third")).unwrap();
    publish(&OsSharedMemory, &segments, EDITION, &bytes(30)).unwrap();
    assert!(take(&OsSharedMemory, &segments, EDITION).unwrap() == bytes(30));
    println!("\n{READY}");
}

#[test]
fn a_full_shared_memory_is_an_error_and_leaves_nothing() {
    let mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm";
    let tried = Command::new("unshare").args(["-m", "sh", "-c", mount]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) || rustix::param::page_size() != PAGE {
        eprintln!("SKIPPED a_full_shared_memory_is_an_error_and_leaves_nothing: a small /dev/shm takes root");
        return;
    }
    let segments = TestSegments::new();
    let child = Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{mount} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(only("child_without_room"))
        .env(INSTANCE, segments.instance().to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let complained = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains(READY), "{}\n{said}\n{complained}", child.status);
}
