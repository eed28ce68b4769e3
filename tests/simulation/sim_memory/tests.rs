use gannet_shm::{Edition, Instance, OsSharedMemory};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::life::Trace;

fn life() -> Life {
    Life::new(&Trace::new(false))
}

fn segments() -> Segments {
    Segments::new(Instance::from_bytes([7; 16]))
}

fn name(suffix: &str) -> SegmentName {
    segments().name(suffix).unwrap()
}

fn filled(memory: &dyn SharedMemory, suffix: &str, bytes: &[u8]) {
    let mut writer = memory.create(&name(suffix), bytes.len() as u64).unwrap();
    writer.write_at(0, bytes).unwrap();
    writer.finish().unwrap();
}

fn read(memory: &dyn SharedMemory, suffix: &str) -> Result<Vec<u8>, String> {
    let opened = memory.open(&name(suffix)).map_err(|error| error.to_string())?;
    let mut bytes = vec![0; usize::try_from(opened.size_bytes()).unwrap()];
    let read = opened.read_at(0, &mut bytes).map_err(|error| error.to_string())?;
    bytes.truncate(read);
    Ok(bytes)
}

#[test]
fn segments_survive_the_process_and_not_the_machine() {
    let shelf = Shelf::default();
    let first = life();
    let memory = shelf.of(&first);
    filled(&memory, "a", b"abc");
    let mut unfinished = memory.create(&name("b"), 5).unwrap();
    unfinished.write_at(1, b"xy").unwrap();
    let mapped = memory.map(&name("a"), 3).unwrap();
    let region = mapped.region(0..2).unwrap();
    first.end();
    drop(unfinished);
    assert!(memory.open(&name("a")).unwrap_err().to_string().contains("open segment"));
    let next = shelf.of(&life());
    assert_eq!(next.list(&segments()).unwrap(), [name("a"), name("b")]);
    assert_eq!(read(&next, "a").unwrap(), b"abc", "the lock went with its process");
    assert_eq!(
        read(&next, "b").unwrap(),
        b"\0xy\0\0",
        "what was not finished stays when its process ends first"
    );
    // Whoever is left of the old process changes nothing, and holds nothing.
    let held = next.map(&name("a"), 3).unwrap();
    region.expire();
    assert_eq!(region.as_slice(), b"ab");
    drop(region);
    assert!(matches!(next.map(&name("a"), 3), Err(ShmError::Busy { .. })));
    assert_eq!(held.region(0..3).unwrap().as_slice(), b"abc");
    shelf.lose();
    assert!(shelf.of(&life()).list(&segments()).unwrap().is_empty());
}

#[test]
fn what_was_there_once_can_come_back() {
    let shelf = Shelf::default();
    let memory = shelf.of(&life());
    filled(&memory, "a", b"old");
    let snapshot = shelf.snapshot();
    memory.unlink(&name("a")).unwrap();
    filled(&memory, "a", b"newer");
    filled(&memory, "c", b"c");
    shelf.restore(&snapshot);
    let memory = shelf.of(&life());
    assert_eq!(read(&memory, "a").unwrap(), b"old");
    assert_eq!(shelf.segments(), [(name("a"), 3)]);
    shelf.flip_bit(&name("a"), 9);
    assert_eq!(read(&memory, "a").unwrap(), b"ond");
}

#[test]
fn memory_runs_out_page_by_page() {
    let shelf = Shelf::default();
    let memory = shelf.of(&life());
    shelf.set_capacity(Some(2 * PAGE_BYTES as u64));
    assert!(matches!(
        memory.create(&name("a"), 2 * PAGE_BYTES as u64 + 1),
        Err(ShmError::NoSpace { available_bytes: 8_192, .. })
    ));
    // Two segments that fit alone do not fit together, which shows only when they are written.
    let mut first = memory.create(&name("a"), 2 * PAGE_BYTES as u64).unwrap();
    let mut second = memory.create(&name("b"), 2 * PAGE_BYTES as u64).unwrap();
    first.write_at(0, &[1; PAGE_BYTES]).unwrap();
    let error = second.write_at(0, &[2; 2 * PAGE_BYTES]).unwrap_err();
    assert!(matches!(error, ShmError::NoSpace { bytes: 8_192, available_bytes: 0, .. }), "{error}");
    drop(second);
    assert_eq!(memory.available_bytes().unwrap(), PAGE_BYTES as u64);
    first.write_at(PAGE_BYTES as u64, &[1; PAGE_BYTES]).unwrap();
    first.finish().unwrap();
    let mapped = memory.map(&name("a"), 2 * PAGE_BYTES as u64).unwrap();
    let region = Arc::clone(&mapped).region(0..PAGE_BYTES).unwrap();
    region.expire();
    assert_eq!(memory.available_bytes().unwrap(), 0);
    drop(region);
    assert_eq!(memory.available_bytes().unwrap(), PAGE_BYTES as u64);
    memory.unlink(&name("a")).unwrap();
    assert_eq!(memory.available_bytes().unwrap(), PAGE_BYTES as u64, "the memory goes with the mapping");
    drop(mapped);
    assert_eq!(memory.available_bytes().unwrap(), 2 * PAGE_BYTES as u64);
}

#[test]
fn faults_hit_the_calls_they_are_set_for() {
    let shelf = Shelf::default();
    let memory = shelf.of(&life());
    let fault = |call, errno| shelf.add_fault(MemoryFault { call, nth: 1, times: 1, errno }, 1);
    filled(&memory, "a", b"abc");
    fault(MemoryCall::Open, Errno::WOULDBLOCK);
    assert!(matches!(memory.open(&name("a")), Err(ShmError::Busy { .. })));
    fault(MemoryCall::Map, Errno::ACCESS);
    assert!(matches!(memory.map(&name("a"), 3), Err(ShmError::System { .. })));
    fault(MemoryCall::Create, Errno::NOSPC);
    assert!(matches!(memory.create(&name("b"), 3), Err(ShmError::NoSpace { .. })));
    let mut writer = memory.create(&name("b"), 3).unwrap();
    fault(MemoryCall::Write, Errno::IO);
    assert!(writer.write_at(0, b"xyz").is_err());
    drop(writer);
    for call in [MemoryCall::Unlink, MemoryCall::List, MemoryCall::Available, MemoryCall::Read] {
        fault(call, Errno::IO);
    }
    assert!(memory.unlink(&name("a")).is_err());
    assert!(memory.list(&segments()).is_err());
    assert!(memory.available_bytes().is_err());
    assert!(read(&memory, "a").is_err());
    assert_eq!(memory.list(&segments()).unwrap(), [name("a")]);
    fault(MemoryCall::Unlink, Errno::IO);
    shelf.heal();
    memory.unlink(&name("a")).unwrap();
}

#[test]
fn a_life_can_end_in_the_middle_of_a_write() {
    let shelf = Shelf::default();
    let life = life();
    let memory = shelf.of(&life);
    shelf.add_fault(MemoryFault { call: MemoryCall::List, nth: 9, times: 1, errno: Errno::IO }, 2);
    let mut writer = memory.create(&name("a"), 3).unwrap();
    life.end_in(1);
    assert!(writer.write_at(0, b"abc").is_err());
    assert!(writer.finish().is_err());
    assert_eq!(read(&shelf.of(&Life::new(&life.trace)), "a").unwrap(), b"ab\0");
}

#[test]
fn a_catalogue_is_published_and_taken_once() {
    let memory = Shelf::default().of(&life());
    let edition = Edition { layout_version: 3, generation: 5 };
    gannet_shm::publish(&memory, &segments(), edition, b"payload").unwrap();
    let older = Edition { generation: 4, ..edition };
    assert!(gannet_shm::take(&memory, &segments(), older).is_err());
    assert_eq!(gannet_shm::take(&memory, &segments(), edition).unwrap(), b"payload");
    assert_eq!(gannet_shm::take(&memory, &segments(), edition).unwrap_err().reason(), "valid_mark");
}

/// What is open in one of the places.
#[derive(Default)]
enum Open {
    #[default]
    Nothing,
    Writer(Box<dyn SegmentWrite>),
    Access(Box<dyn SegmentAccess>),
    Mapped(Arc<dyn MappedSegment>, Vec<Region>),
}

/// One operation on shared memory, and what it said.
fn operate(memory: &dyn SharedMemory, segments: &Segments, open: &mut [Open], rng: &mut StdRng) -> String {
    let name = segments.name(["a", "b", "c"][rng.random_range(0..3)]).unwrap();
    let at = rng.random_range(0..open.len());
    let size: u64 = [3, 5_000, 8_192, 12_288][rng.random_range(0..4)];
    let offset = rng.random_range(0..9_000_u64);
    let bytes: Vec<u8> = (0..rng.random_range(1..5_000)).map(|at| (at % 251) as u8).collect();
    let range = [0..3, 0..4_096, 4_096..5_000, 4_096..8_192, 100..9_000, 8_192..12_288]
        [rng.random_range(0..6)]
    .clone();
    let said = |outcome: Result<String, ShmError>| outcome.unwrap_or_else(|error| format!("{error}"));
    match rng.random_range(0..13) {
        0 | 1 => said(memory.create(&name, size).map(|writer| {
            open[at] = Open::Writer(writer);
            "made".to_owned()
        })),
        2 => said(memory.open(&name).map(|access| {
            open[at] = Open::Access(access);
            "opened".to_owned()
        })),
        3 | 4 => said(memory.map(&name, size).map(|mapped| {
            open[at] = Open::Mapped(mapped, Vec::new());
            "mapped".to_owned()
        })),
        5 => said(memory.unlink(&name).map(|()| "unlinked".to_owned())),
        6 => said(memory.list(segments).map(|names| format!("{names:?}"))),
        kind => match (&mut open[at], kind) {
            (Open::Nothing, _) => "nothing".to_owned(),
            (opened, 7) => {
                *opened = Open::Nothing;
                "dropped".to_owned()
            }
            (Open::Writer(writer), 8..=10) => {
                let outcome = writer.write_at(offset, &bytes).map(|()| "written".to_owned());
                format!("{} {} {}", writer.name(), writer.size_bytes(), said(outcome))
            }
            (opened @ Open::Writer(_), _) => match std::mem::take(opened) {
                Open::Writer(writer) => said(writer.finish().map(|()| "finished".to_owned())),
                _ => "nothing".to_owned(),
            },
            (Open::Access(access), 8) => said(access.write_at(offset, &bytes).map(|()| "written".to_owned())),
            (Open::Access(access), _) => {
                let mut into = vec![0; 6_000];
                said(access.read_at(offset, &mut into).map(|read| format!("{:?}", &into[..read])))
            }
            (Open::Mapped(mapped, _), 8) => {
                mapped.unlink_when_empty();
                format!("{} {}", mapped.name(), mapped.size_bytes())
            }
            (Open::Mapped(mapped, regions), 9 | 10) => said(Arc::clone(mapped).region(range).map(|region| {
                let said = format!("{:?} {:?}", region.range(), region.as_slice());
                regions.push(region);
                said
            })),
            (Open::Mapped(_, regions), _) => match regions.pop() {
                Some(region) if kind == 11 => {
                    region.expire();
                    "expired".to_owned()
                }
                Some(_) => "kept".to_owned(),
                None => "no region".to_owned(),
            },
        },
    }
}

#[test]
fn it_does_what_real_shared_memory_does() {
    for seed in 0..40_u8 {
        let mut instance = [seed; 16];
        instance[..4].copy_from_slice(&std::process::id().to_le_bytes());
        let segments = Segments::new(Instance::from_bytes(instance));
        let shelf = Shelf::default();
        let simulated = shelf.of(&life());
        let (mut real_open, mut simulated_open): (Vec<Open>, Vec<Open>) =
            (0..3).map(|_| (Open::Nothing, Open::Nothing)).unzip();
        for step in 0..250 {
            let rng = || StdRng::seed_from_u64(u64::from(seed) * 1_000 + step);
            let expected = operate(&OsSharedMemory, &segments, &mut real_open, &mut rng());
            let found = operate(&simulated, &segments, &mut simulated_open, &mut rng());
            assert_eq!(found, expected, "step {step} of seed {seed}");
        }
        drop(real_open);
        for name in OsSharedMemory.list(&segments).unwrap() {
            OsSharedMemory.unlink(&name).unwrap();
        }
    }
}
