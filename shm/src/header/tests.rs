use super::*;

fn header() -> Header {
    Header {
        header_version: HEADER_VERSION,
        layout_version: 3,
        byte_order: BYTE_ORDER,
        page_bytes: 4096,
        instance: Instance::from_bytes(*b"sixteen bytes ok"),
        owner_uid: 1000,
        generation: 7,
        segment_bytes: HEADER_BYTES as u64 + 5,
        payload_bytes: 5,
        payload_checksum: checksum(b"hello"),
        valid_mark: VALID_MARK,
    }
}

fn expected() -> Expected {
    Expected {
        segment_bytes: HEADER_BYTES as u64 + 5,
        layout_version: 3,
        page_bytes: 4096,
        instance: Instance::from_bytes(*b"sixteen bytes ok"),
        owner_uid: 1000,
        generation: 7,
        payload_bytes_max: 100,
    }
}

#[test]
fn what_is_always_zero_is_zero() {
    let mut bytes = header().encode();
    bytes[ZERO_AT] = 7;
    let checksum = checksum(&bytes[..HEADER_CHECKSUM_AT]);
    bytes[HEADER_CHECKSUM_AT..VALID_MARK_AT].copy_from_slice(&checksum.to_le_bytes());
    let error = Header::decode(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "reserved bytes 00000007, expected zero");
    assert_eq!(Refusal::Header(error).reason(), "header_reserved");
}

#[test]
fn a_header_comes_back_as_it_was() {
    let bytes = header().encode();
    assert_eq!(Header::decode(&bytes), Ok(header()));
    header().check(&expected()).unwrap();
    header().check_payload(b"hello").unwrap();
    let mut longer = bytes.to_vec();
    longer.extend(b"whatever a later version puts behind");
    assert_eq!(Header::decode(&longer), Ok(header()));
}

/// The frozen prefix, byte by byte. If this test fails, the code is wrong: no build may change it.
#[test]
fn the_prefix_is_frozen() {
    let header = Header { byte_order: 1, ..header() };
    let hex: String = header.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "47414e4e45545348",                 // GANNETSH
            "0100000003000000",                 // header version, layout version
            "0100000000100000",                 // byte order, page size
            "7369787465656e206279746573206f6b", // instance
            "e803000000000000",                 // uid, zero
            "0700000000000000",                 // generation
            "6500000000000000",                 // segment
            "0500000000000000",                 // payload
            "fddc625c55e85595",                 // xxh3 of hello
            "bfb37d4e42c2ce32",                 // xxh3 of all before
            "676e5f76616c6964",                 // valid mark
        )
    );
}

#[test]
fn every_truncation_is_too_short() {
    let bytes = header().encode();
    for found in 0..HEADER_BYTES {
        assert_eq!(
            Header::decode(&bytes[..found]),
            Err(HeaderError::TooShort { found: found as u64, expected: HEADER_BYTES as u64 })
        );
    }
}

#[test]
fn every_flipped_bit_is_refused() {
    let bytes = header().encode();
    for bit in 0..HEADER_BYTES * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        let refusal = match Header::decode(&flipped) {
            Ok(header) => header.check(&expected()).unwrap_err(),
            Err(error) => error.into(),
        };
        let reason = match bit / 8 {
            0..8 => "magic",
            8..88 => "header_checksum",
            _ => "valid_mark",
        };
        assert_eq!(refusal.reason(), reason, "bit {bit}: {refusal}");
    }
}

#[test]
fn every_gate_refuses_alone() {
    let check = |change: fn(&mut Header), reason: &str, text: &str| {
        let mut changed = header();
        change(&mut changed);
        // Through the bytes, as a reader meets it: a header of another version still has a good checksum.
        let refusal = Header::decode(&changed.encode()).unwrap().check(&expected()).unwrap_err();
        assert_eq!((refusal.reason(), refusal.to_string().as_str()), (reason, text));
    };
    check(|h| h.segment_bytes += 1, "segment_size", "segment has 101 bytes, its header says 102");
    check(|h| h.header_version = 2, "header_version", "header version 2, this build reads 1");
    check(|h| h.layout_version = 4, "layout_version", "layout version 4, this build reads 3");
    check(|h| h.byte_order ^= 3, "byte_order", "byte order mark 2, this machine has 1");
    check(|h| h.page_bytes = 65536, "page_size", "page size 65536, this machine has 4096");
    check(
        |h| h.instance = Instance::from_bytes([0xab; 16]),
        "instance",
        "instance abababab-abab-abab-abab-abababababab, expected 73697874-6565-6e20-6279-746573206f6b",
    );
    check(|h| h.owner_uid = 0, "owner", "written by user 0, expected user 1000");
    check(|h| h.generation = 8, "generation", "generation 8, the disk has 7");
    check(|h| h.payload_bytes = 4, "payload_size", "payload of 4 bytes, the segment has room for 5");
    check(|h| h.payload_bytes = 101, "payload_size", "payload of 101 bytes, the limit is 100");
    check(
        |h| h.payload_bytes = u64::MAX,
        "payload_size",
        "payload of 18446744073709551615 bytes, the limit is 100",
    );
    check(|h| h.valid_mark = 0, "valid_mark", "valid mark is clear");
    check(|h| h.valid_mark = 1, "valid_mark", "valid mark 0000000000000001, expected 64696c61765f6e67");
}

#[test]
fn the_first_gate_answers() {
    let mut all_wrong = header();
    all_wrong.header_version = 9;
    all_wrong.generation = 9;
    all_wrong.valid_mark = 0;
    let check = |header: &Header, reason: &str| {
        assert_eq!(header.check(&expected()).unwrap_err().reason(), reason);
    };
    check(&all_wrong, "header_version");
    all_wrong.header_version = HEADER_VERSION;
    check(&all_wrong, "generation");
    all_wrong.generation = 7;
    check(&all_wrong, "valid_mark");
}

#[test]
fn a_changed_payload_is_refused() {
    let check = |payload: &[u8], text: &str| {
        assert_eq!(header().check_payload(payload).unwrap_err().to_string(), text);
    };
    check(b"", "payload of 0 bytes, the segment has room for 5");
    check(
        b"hellp",
        &format!("payload checksum {:016x}, the header says {:016x}", checksum(b"hellp"), checksum(b"hello")),
    );
}
