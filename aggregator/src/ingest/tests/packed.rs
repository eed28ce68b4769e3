//! gzip and zstd bodies, whole, in several parts, cut short and damaged.

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Both encodings of these parts, one after another.
fn packed(parts: &[&[u8]]) -> [(BodyEncoding, Vec<u8>); 2] {
    [
        (BodyEncoding::Gzip, parts.iter().flat_map(|part| gzip(part)).collect()),
        (BodyEncoding::Zstd, parts.iter().flat_map(|part| zstd(part)).collect()),
    ]
}

fn case(encoding: BodyEncoding, body: &[u8]) -> Case<'_> {
    let mut case = Case::new(NdJson, body);
    case.encoding = encoding;
    case
}

#[test]
fn parts_follow_each_other() {
    for (encoding, body) in packed(&[b"{\"a\":1}\n{\"a\"", b"", b":2}\n"]) {
        check_case(&case(encoding, &body), &["a=1", "a=2"], &[]);
    }
    for (encoding, body) in packed(&[]) {
        check_case(&case(encoding, &body), &[], &[]);
    }
}

#[test]
fn large_bodies() {
    let rows: String =
        (0..200_000).map(|row| format!("{{\"a\":{row},\"b\":\"text {}\"}}\n", row * 7919)).collect();
    for (encoding, body) in packed(&[rows.as_bytes()]) {
        for piece in [1 << 10, 1 << 16, body.len()] {
            let outcome = case(encoding, &body).run(piece);
            assert_eq!(outcome.rows.len(), 200_000, "{encoding:?} {piece} {:?}", outcome.failure);
            assert_eq!(outcome.rows[199_999], format!("a=199999 b=\"text {}\"", 199_999 * 7919));
        }
    }
}

#[test]
fn cut_bodies_fail_after_their_rows() {
    for (encoding, body) in packed(&[b"{\"a\":1}\n", b"{\"a\":2}\n"]) {
        let expect = match encoding {
            BodyEncoding::Gzip => "gzip body ends before its data is complete, or is damaged",
            _ => "zstd body ends before its data is complete",
        };
        for missing in [1, 3, 5] {
            let outcome = case(encoding, &body[..body.len() - missing]).run(4);
            let failure = outcome.failure.unwrap();
            assert_eq!(failure, expect, "{missing}");
            assert!(outcome.rows.starts_with(&["a=1".to_owned()]));
        }
    }
}

#[test]
fn damaged_bodies_fail() {
    let rows = "{\"a\":\"some text that is long enough to be packed, packed, packed\"}\n".repeat(3);
    for (encoding, body) in packed(&[rows.as_bytes()]) {
        for place in 0..body.len() {
            for bit in 0..8 {
                let mut body = body.clone();
                body[place] ^= 1 << bit;
                case(encoding, &body).run(11);
            }
        }
        let junk = [body.as_slice(), b"junk"].concat();
        assert!(case(encoding, &junk).run(junk.len()).failure.is_some());
    }
    let outcome = case(BodyEncoding::Gzip, b"{\"a\":1,\"b\":2}\n").run(8);
    assert_eq!(outcome.failure.as_deref(), Some("gzip body cannot be unpacked: invalid gzip header"));
    let outcome = case(BodyEncoding::Zstd, b"{\"a\":1}\n").run(8);
    assert_eq!(outcome.failure.as_deref(), Some("zstd body cannot be unpacked: Unknown frame descriptor"));
}

#[test]
fn a_bomb_stops_at_the_limit_of_a_line() {
    let blanks = vec![b'x'; 64 << 20];
    for (encoding, body) in packed(&[&blanks]) {
        let mut case = case(encoding, &body);
        case.limits.endless_line_bytes_max = 16 << 20;
        let failure = case.run(body.len()).failure;
        assert_eq!(failure.as_deref(), Some("a row is not over after the limit of 16777216 bytes"));
    }
}

#[test]
fn a_window_too_large_is_refused() {
    // A frame header that asks for a window of 64 MiB: no single segment, exponent 16.
    let frame = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 16 << 3, 0x01, 0x00, 0x00];
    let failure = case(BodyEncoding::Zstd, &frame).run(frame.len()).failure;
    assert_eq!(
        failure.as_deref(),
        Some("zstd body cannot be unpacked: Frame requires too much memory for decoding")
    );
}
