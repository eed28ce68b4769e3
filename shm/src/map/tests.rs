use std::os::unix::fs::FileExt;

use super::*;
use crate::segment::{SegmentWriter, unlink};
use crate::testing::{TestSegments, path_of};

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn write(name: &SegmentName, bytes: &[u8]) {
    let mut writer = SegmentWriter::create(name, bytes.len() as u64).unwrap();
    writer.write_at(0, bytes).unwrap();
    writer.finish().unwrap();
}

fn page() -> usize {
    rustix::param::page_size()
}

#[test]
fn mappings_and_regions_cross_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Mapping>();
    check::<Region>();
}

#[test]
fn regions_read_what_was_written() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let bytes = pattern(3 * page() + 7);
    write(&name, &bytes);
    let mapping = Mapping::open(&name, bytes.len() as u64).unwrap();
    assert_eq!((mapping.name(), mapping.size_bytes()), (&name, bytes.len()));
    let region = mapping.region(5..bytes.len()).unwrap();
    assert_eq!(region.range(), 5..bytes.len());
    assert_eq!((region.segment().name(), region.segment().size_bytes()), (&name, bytes.len()));
    assert!(region.as_slice() == &bytes[5..]);
    assert_eq!(mapping.region(0..5).unwrap().as_slice(), &bytes[..5]);

    // Bytes are the same memory, and keep it when everything else is gone.
    let view = region.bytes();
    assert_eq!(view.as_ptr(), region.as_slice().as_ptr());
    let tail = view.slice(page()..);
    drop((mapping, region, view));
    unlink(&name).unwrap();
    let read = std::thread::spawn(move || tail == bytes[5 + page()..]);
    assert!(read.join().unwrap());
}

#[test]
fn a_mapping_needs_the_exact_size_and_nobody_else() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let check = |expected: u64, text: &str| {
        let error = Mapping::open(&name, expected).unwrap_err().to_string();
        assert_eq!(error, format!("segment `{name}` {text}"));
    };
    check(10, "does not exist");
    write(&name, &pattern(10));
    check(9, "has 10 bytes, expected 9");
    check(11, "has 10 bytes, expected 11");
    check(0, "has 10 bytes, expected 0");
    let mapping = Mapping::open(&name, 10).unwrap();
    check(10, "is in use by another owner");
    let region = mapping.region(0..10).unwrap();
    let bytes = region.bytes();
    drop((mapping, region));
    check(10, "is in use by another owner");
    drop(bytes);
    Mapping::open(&name, 10).unwrap();

    let writer = SegmentWriter::create(&segments.name("b").unwrap(), 10).unwrap();
    assert_eq!(
        Mapping::open(writer.name(), 10).unwrap_err().to_string(),
        format!("segment `{}` is in use by another owner", writer.name())
    );
    // A file that is empty cannot be mapped, whatever is expected of it.
    std::fs::File::options().write(true).open(path_of(&name)).unwrap().set_len(0).unwrap();
    check(0, "has 0 bytes, expected 0");
}

#[test]
fn a_region_has_memory() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let page = page();
    // What a process leaves behind that ends before it has finished: pages 1 and 2 of 4.
    let writer = SegmentWriter::create(&name, 4 * page as u64).unwrap();
    std::fs::hard_link(path_of(&name), path_of(&segments.name("b").unwrap())).unwrap();
    drop(writer);
    let name = segments.name("b").unwrap();
    let file = std::fs::File::options().write(true).open(path_of(&name)).unwrap();
    file.write_all_at(&pattern(2 * page), page as u64).unwrap();
    let mapping = Mapping::open(&name, 4 * page as u64).unwrap();
    mapping.unlink_when_empty();
    let check = |range: Range<usize>, hole: usize| {
        let text =
            format!("range {}..{} of segment `{name}` has no memory at {hole}", range.start, range.end);
        assert_eq!(mapping.region(range).unwrap_err().to_string(), text);
    };
    check(0..4 * page, 0);
    check(page - 1..2 * page, page - 1);
    check(page..4 * page, 3 * page);
    check(3 * page + 1..4 * page, 3 * page + 1);
    let region = mapping.region(page..3 * page).unwrap();
    assert!(region.as_slice() == pattern(2 * page));
    assert_eq!(
        mapping.region(0..4 * page).unwrap_err().to_string(),
        format!("range 0..{} of segment `{name}` overlaps a region in use", 4 * page)
    );
    region.expire();
    drop(region);
    assert_eq!(
        mapping.region(page..3 * page).unwrap_err().to_string(),
        format!("range {page}..{} of segment `{name}` overlaps memory that was given back", 3 * page)
    );
    assert_eq!(segments.list().unwrap(), [], "what was refused does not hold the name");
}

#[test]
fn a_file_is_mapped_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let open = || File::open(&path).unwrap();
    let bytes = pattern(2 * page() + 7);
    std::fs::write(&path, &bytes).unwrap();
    let len = bytes.len() as u64;
    let mapped = map_file(&open(), len).unwrap();
    assert!(mapped == bytes);
    for wrong in [0, len - 1, len + 1, u64::MAX] {
        let text = format!("the file has {len} bytes, not {wrong}");
        assert_eq!(map_file(&open(), wrong).unwrap_err().to_string(), text);
    }
    let writable = File::options().read(true).write(true).open(&path).unwrap();
    assert!(map_file(&writable, len).unwrap() == bytes, "how it was opened does not matter");

    // Another file under the name, and none: the bytes stay those that were mapped.
    let other = directory.path().join("other");
    std::fs::write(&other, b"").unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_eq!(map_file(&open(), 0).unwrap(), Bytes::new());
    std::fs::remove_file(&path).unwrap();
    let tail = mapped.slice(page()..);
    drop(mapped);
    let read = std::thread::spawn(move || tail == bytes[page()..]);
    assert!(read.join().unwrap());

    let directory = File::open(directory.path()).unwrap();
    for bytes in [0, directory.metadata().unwrap().len()] {
        let error = map_file(&directory, bytes).unwrap_err().to_string();
        assert_eq!(error, "only a regular file can be mapped");
    }
}

#[test]
fn a_range_has_one_region() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    write(&name, &pattern(100));
    let mapping = Mapping::open(&name, 100).unwrap();
    let check = |range: Range<usize>, text: Option<String>| {
        assert_eq!(mapping.region(range).err().map(|error| error.to_string()), text);
    };
    let outside =
        |range: &str| Some(format!("range {range} is empty or outside segment `{name}` of 100 bytes"));
    check(0..101, outside("0..101"));
    check(100..101, outside("100..101"));
    check(50..50, outside("50..50"));
    check(Range { start: 60, end: 50 }, outside("60..50"));
    check(usize::MAX..usize::MAX, outside("18446744073709551615..18446744073709551615"));
    check(0..usize::MAX, outside("0..18446744073709551615"));

    let region = mapping.region(10..20).unwrap();
    let claimed = || Some(format!("range 19..30 of segment `{name}` overlaps a region in use"));
    check(19..30, claimed());
    let clone = region.clone();
    drop(region);
    check(19..30, claimed());
    let bytes = clone.bytes();
    drop(clone);
    check(19..30, claimed());
    drop(bytes);
    check(19..30, None);

    let region = mapping.region(10..20).unwrap();
    region.expire();
    check(19..30, claimed());
    drop(region);
    check(19..30, Some(format!("range 19..30 of segment `{name}` overlaps memory that was given back")));
    check(20..30, None);
}

#[test]
fn an_expired_region_gives_its_pages_back() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let bytes = pattern(8 * page() + 10);
    write(&name, &bytes);
    let mapping = Mapping::open(&name, bytes.len() as u64).unwrap();
    let resident = |pages: u64| assert_eq!(mapping.resident_bytes().unwrap(), pages * page() as u64);
    resident(9);
    let first = mapping.region(0..4 * page()).unwrap();
    let second = mapping.region(4 * page()..bytes.len()).unwrap();
    first.expire();
    let view = first.bytes().slice(10..20);
    drop(first);
    resident(9);
    assert_eq!(view, bytes[10..20]);
    drop(view);
    resident(5);
    assert!(second.as_slice() == &bytes[4 * page()..], "the neighbour is untouched");
    assert_eq!(path_of(&name).metadata().unwrap().len(), bytes.len() as u64, "the size stays");

    // The bytes behind the last whole page go with the last page of the segment.
    second.expire();
    drop(second);
    resident(0);
}

#[test]
fn a_page_that_two_regions_share_stays() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let bytes = pattern(4 * page());
    write(&name, &bytes);
    let mapping = Mapping::open(&name, bytes.len() as u64).unwrap();
    let middle = page() * 3 / 2;
    let front = mapping.region(0..middle).unwrap();
    let back = mapping.region(middle..4 * page()).unwrap();
    front.expire();
    drop(front);
    assert_eq!(mapping.resident_bytes().unwrap(), 3 * page() as u64);
    assert!(back.as_slice() == &bytes[middle..]);
}

#[test]
fn a_dropped_region_that_did_not_expire_keeps_its_bytes() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let bytes = pattern(2 * page());
    write(&name, &bytes);
    for _ in 0..2 {
        let mapping = Mapping::open(&name, bytes.len() as u64).unwrap();
        mapping.unlink_when_empty();
        assert!(mapping.region(0..bytes.len()).unwrap().as_slice() == bytes);
        assert!(mapping.region(page()..bytes.len()).unwrap().as_slice() == &bytes[page()..]);
    }
    assert_eq!(segments.list().unwrap(), [name]);
}

#[test]
fn the_name_goes_with_the_last_expired_region() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    write(&name, &pattern(2 * page()));
    let mapping = Mapping::open(&name, 2 * page() as u64).unwrap();
    let first = mapping.region(0..page()).unwrap();
    let second = mapping.region(page()..2 * page()).unwrap();
    mapping.unlink_when_empty();
    first.expire();
    drop(first);
    assert_eq!(segments.list().unwrap(), std::slice::from_ref(&name));
    second.expire();
    assert_eq!(segments.list().unwrap(), std::slice::from_ref(&name));
    drop(second);
    assert_eq!(segments.list().unwrap(), []);

    // A new segment under the old name is not ours to remove.
    write(&name, &pattern(page()));
    let mapping = Mapping::open(&name, page() as u64).unwrap();
    let region = mapping.region(0..page()).unwrap();
    unlink(&name).unwrap();
    write(&name, b"new");
    region.expire();
    drop(region);
    mapping.unlink_when_empty();
    assert_eq!(segments.list().unwrap(), [name]);
}

#[test]
fn regions_come_and_go_in_many_threads() {
    let segments = TestSegments::new();
    let name = segments.name("a").unwrap();
    let page_count = 64;
    let bytes = pattern(page_count * page());
    write(&name, &bytes);
    let mapping = Mapping::open(&name, bytes.len() as u64).unwrap();
    let views: Vec<Vec<Bytes>> = (0..page_count)
        .map(|at| {
            let region = mapping.region(at * page()..(at + 1) * page()).unwrap();
            region.expire();
            vec![region.bytes(); 4]
        })
        .collect();
    mapping.unlink_when_empty();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let mine: Vec<Bytes> = views.iter().map(|views| views[thread].clone()).collect();
            let bytes = &bytes;
            scope.spawn(move || {
                for (at, view) in mine.into_iter().enumerate() {
                    assert!(view == bytes[at * page()..(at + 1) * page()]);
                }
            });
        }
        drop(views);
    });
    assert_eq!(mapping.resident_bytes().unwrap(), 0);
    assert_eq!(segments.list().unwrap(), []);
}
