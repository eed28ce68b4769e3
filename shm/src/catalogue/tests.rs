use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::*;
use crate::memory::OsSharedMemory;
use crate::name::Instance;
use crate::testing::{TestSegments, path_of};

const EDITION: Edition = Edition { layout_version: 3, generation: 7 };

fn stored(segments: &Segments) -> Vec<u8> {
    std::fs::read(path_of(&segments.catalogue())).unwrap()
}

/// Puts these bytes where the catalogue is, as another build might have left them.
fn plant(segments: &Segments, bytes: &[u8]) {
    let path = path_of(&segments.catalogue());
    let _ = std::fs::remove_file(&path);
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Takes a catalogue. Other tests start processes, which hold every lock of this one until they are another program.
fn taken(segments: &Segments, edition: Edition) -> Result<Vec<u8>, String> {
    let begun = std::time::Instant::now();
    loop {
        match take(&OsSharedMemory, segments, edition) {
            Err(busy) if busy.reason() == "busy" && begun.elapsed().as_secs() < 10 => {
                std::thread::yield_now()
            }
            other => return other.map_err(|refusal| refusal.to_string()),
        }
    }
}

fn refused(segments: &Segments, edition: Edition) -> String {
    taken(segments, edition).unwrap_err()
}

#[test]
fn a_catalogue_is_taken_once() {
    let segments = TestSegments::new();
    let missing = format!("segment `{}` does not exist", segments.catalogue());
    assert_eq!(refused(&segments, EDITION), missing);
    for payload in [&b"payload"[..], b"", &[7; 3_000_000]] {
        publish(&OsSharedMemory, &segments, EDITION, payload).unwrap();
        assert!(taken(&segments, EDITION).unwrap() == payload);
        assert_eq!(refused(&segments, EDITION), "valid mark is clear");
        assert_eq!(refused(&segments, EDITION), "valid mark is clear");
    }
    // A new one takes the place of one that was never taken.
    publish(&OsSharedMemory, &segments, EDITION, b"old").unwrap();
    publish(&OsSharedMemory, &segments, Edition { generation: 8, ..EDITION }, b"new").unwrap();
    assert_eq!(taken(&segments, Edition { generation: 8, ..EDITION }).unwrap(), b"new");
}

#[test]
fn the_wrong_edition_is_refused_and_left_as_it_was() {
    let segments = TestSegments::new();
    publish(&OsSharedMemory, &segments, EDITION, b"payload").unwrap();
    let before = stored(&segments);
    assert_eq!(
        refused(&segments, Edition { layout_version: 4, ..EDITION }),
        "layout version 3, this build reads 4"
    );
    assert_eq!(refused(&segments, Edition { generation: 8, ..EDITION }), "generation 7, the disk has 8");
    assert_eq!(stored(&segments), before);
    assert_eq!(taken(&segments, EDITION).unwrap(), b"payload");
}

#[test]
fn what_another_build_left_is_refused_by_name() {
    let segments = TestSegments::new();
    publish(&OsSharedMemory, &segments, EDITION, b"payload").unwrap();
    let good = Header::decode(&stored(&segments)).unwrap();
    let check = |change: &dyn Fn(&mut Header), text: &str| {
        let mut header = good.clone();
        change(&mut header);
        let mut bytes = header.encode().to_vec();
        bytes.extend(b"payload");
        plant(&segments, &bytes);
        assert_eq!(refused(&segments, EDITION), text);
        assert_eq!(stored(&segments), bytes, "a refusal changes nothing");
    };
    check(&|h| h.header_version = 2, "header version 2, this build reads 1");
    check(&|h| h.byte_order = 2, "byte order mark 2, this machine has 1");
    check(&|h| h.page_bytes = 1, &format!("page size 1, this machine has {}", rustix::param::page_size()));
    let foreign = Instance::from_bytes([1; 16]);
    check(&|h| h.instance = foreign, &format!("instance {foreign}, expected {}", segments.instance()));
    check(
        &|h| h.owner_uid += 1,
        &format!("written by user {}, expected user {}", good.owner_uid + 1, good.owner_uid),
    );
    check(&|h| h.segment_bytes += 1, "segment has 103 bytes, its header says 104");
    check(&|h| h.payload_bytes = 6, "payload of 6 bytes, the segment has room for 7");
    check(&|h| h.payload_bytes = 1 << 40, "payload of 1099511627776 bytes, the limit is 67108864");
    check(&|h| h.valid_mark = 0, "valid mark is clear");
}

#[test]
fn every_flipped_bit_is_refused() {
    let segments = TestSegments::new();
    publish(&OsSharedMemory, &segments, EDITION, b"payload").unwrap();
    let good = stored(&segments);
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        plant(&segments, &flipped);
        let reason = match bit / 8 {
            0..8 => "magic",
            8..88 => "header_checksum",
            88..HEADER_BYTES => "valid_mark",
            _ => "payload_checksum",
        };
        assert_eq!(take(&OsSharedMemory, &segments, EDITION).unwrap_err().reason(), reason, "bit {bit}");
        assert!(take(&OsSharedMemory, &segments, EDITION).is_err(), "bit {bit}, asked again");
    }
    plant(&segments, &good);
    assert_eq!(taken(&segments, EDITION).unwrap(), b"payload");
}

#[test]
fn every_length_but_the_right_one_is_refused() {
    let segments = TestSegments::new();
    publish(&OsSharedMemory, &segments, EDITION, b"payload").unwrap();
    let good = stored(&segments);
    for len in 0..good.len() {
        plant(&segments, &good[..len]);
        let text = if len < HEADER_BYTES {
            format!("header has {len} bytes, expected {HEADER_BYTES}")
        } else {
            format!("segment has {len} bytes, its header says {}", good.len())
        };
        assert_eq!(refused(&segments, EDITION), text);
    }
    let mut longer = good.clone();
    longer.push(0);
    plant(&segments, &longer);
    assert_eq!(refused(&segments, EDITION), "segment has 104 bytes, its header says 103");
}

/// The mark is clear from before the payload is read: not even a payload that cannot be believed is looked
/// at twice.
#[test]
fn a_bad_payload_clears_the_mark() {
    let segments = TestSegments::new();
    publish(&OsSharedMemory, &segments, EDITION, b"payload").unwrap();
    let mut bytes = stored(&segments);
    bytes[HEADER_BYTES] ^= 1;
    plant(&segments, &bytes);
    assert_eq!(take(&OsSharedMemory, &segments, EDITION).unwrap_err().reason(), "payload_checksum");
    assert_eq!(refused(&segments, EDITION), "valid mark is clear");
}

#[test]
fn a_payload_beyond_the_limit_is_not_written() {
    let segments = TestSegments::new();
    publish(&OsSharedMemory, &segments, EDITION, b"old").unwrap();
    let payload = vec![0; usize::try_from(PAYLOAD_BYTES_MAX).unwrap() + 1];
    assert_eq!(
        publish(&OsSharedMemory, &segments, EDITION, &payload).unwrap_err().to_string(),
        format!("catalogue `{}` would hold 67108865 bytes, the limit is 67108864", segments.catalogue())
    );
    // The old one does not speak for the new state.
    assert_eq!(segments.list().unwrap(), []);
}

#[test]
fn a_catalogue_in_use_is_refused() {
    let segments = TestSegments::new();
    publish(&OsSharedMemory, &segments, EDITION, b"payload").unwrap();
    let opened = crate::segment::open_exclusive(&segments.catalogue()).unwrap();
    let refusal = take(&OsSharedMemory, &segments, EDITION).unwrap_err();
    assert_eq!(refusal.reason(), "busy");
    drop(opened);
    assert_eq!(taken(&segments, EDITION).unwrap(), b"payload");
}

/// Each planted bug breaks the promise it is named after, and no other build has it.
#[cfg(feature = "planted-bugs")]
#[test]
fn planted_bugs_break_what_they_say() {
    use crate::planted::plant;
    let segments = TestSegments::new();
    publish(&OsSharedMemory, &segments, EDITION, b"payload").unwrap();
    plant(Some(Bug::MarkNotCleared));
    assert_eq!(taken(&segments, EDITION).unwrap(), b"payload");
    assert_eq!(taken(&segments, EDITION).unwrap(), b"payload", "taken twice");
    plant(Some(Bug::GenerationNotCompared));
    let later = Edition { generation: 8, ..EDITION };
    assert_eq!(taken(&segments, later).unwrap(), b"payload", "of another generation");
    plant(Some(Bug::ValidMarkEarly));
    publish(&OsSharedMemory, &segments, EDITION, b"payload").unwrap();
    plant(None);
    assert_eq!(taken(&segments, EDITION).unwrap(), b"payload");
    assert_eq!(refused(&segments, EDITION), "valid mark is clear");
}
