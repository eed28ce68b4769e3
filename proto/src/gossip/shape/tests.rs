//! Messages as the library writes them, and messages that hold one thing too many.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000_000;

fn known() -> Known {
    Known::new("leaf/me", 7, "10.0.0.1:7709".parse().unwrap())
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes(), text.as_bytes()].concat()
}

fn run(name: &str, started: u64) -> Vec<u8> {
    [&string(name)[..], &started.to_le_bytes(), &[4, 10, 0, 0, 1], &7709u16.to_le_bytes()].concat()
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A list of one block that is not packed.
fn block(bytes: &[u8]) -> Vec<u8> {
    match bytes.is_empty() {
        true => vec![0],
        false => [&[2], &(bytes.len() as u16).to_le_bytes()[..], bytes, &[0]].concat(),
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let packed = zstd::bulk::compress(bytes, 0).unwrap();
    [&[1], &(packed.len() as u16).to_le_bytes()[..], &packed].concat()
}

fn message(version: u8, kind: u8, body: &[&[u8]]) -> Vec<u8> {
    [&MAGIC.to_le_bytes()[..], &[version, kind], &body.concat()].concat()
}

fn told(name: &str, ops: &[Vec<u8>]) -> Vec<u8> {
    [&[0], &run(name, 1)[..], &numbers(&[0, 0]), &ops.concat()].concat()
}

fn says(key: &str, value: &str, version: u64, status: u8) -> Vec<u8> {
    [&[1], &string(key)[..], &string(value), &numbers(&[version]), &[status]].concat()
}

fn check(message: &[u8], expect: Result<(), Refused>) {
    assert_eq!(known().admit(message, NOW), expect);
}

fn check_delta(ops: &[u8], expect: Result<(), Refused>) {
    check(&message(1, 2, &[&block(ops)]), expect);
    let entry = [run("leaf/a", 1), numbers(&[5, 0, 3])].concat();
    check(&message(0, 1, &[&1u16.to_le_bytes(), &entry, &block(ops)]), expect);
    check(&message(1, 1, &[&block(&entry), &[&packed(ops)[..], &[0]].concat()]), expect);
}

#[test]
fn what_members_send_is_admitted() {
    let entry = [run("leaf/a", 1), numbers(&[5, 0, 3])].concat();
    check(&message(0, 0, &[&1u16.to_le_bytes(), &entry, &string("gannet")]), Ok(()));
    check(&message(1, 0, &[&block(&entry), &string("gannet")]), Ok(()));
    check(&message(1, 3, &[]), Ok(()));
    check_delta(&[], Ok(()));
    let ops = [told("leaf/a", &[says("is", "x", 1, 0), says("is", "y", 2, 0)]), told("leaf/b", &[])].concat();
    check_delta(&ops, Ok(()));
    check_delta(&told("leaf/a", &[[vec![2], numbers(&[9])].concat()]), Ok(()));
}

#[test]
fn each_thing_that_is_too_much_is_refused() {
    let bad = Err(Refused::Malformed);
    let much = Err(Refused::TooMany);
    check(b"", bad);
    check(&message(1, 4, &[]), bad);
    check(&message(2, 0, &[&block(b""), &string("gannet")]), bad);
    check(&message(1, 3, &[b"more"]), bad);
    check(&message(1, 0, &[&block(b""), &string(&"g".repeat(129))]), much);
    check(&message(0, 0, &[&2u16.to_le_bytes(), &run("leaf/a", 1)]), bad);
    // Versions that were forgotten.
    check(&message(1, 0, &[&block(&[run("leaf/a", 1), numbers(&[5, 1, 3])].concat()), &string("g")]), bad);
    check_delta(&[&[0], &run("leaf/a", 1)[..], &numbers(&[1, 0])].concat(), bad);
    // Others who say what this is, a member twice, and texts without one.
    let own = [&[0], &run("leaf/me", 7)[..], &numbers(&[0, 0])].concat();
    check_delta(&own, bad);
    check_delta(&[told("leaf/a", &[]), told("leaf/a", &[])].concat(), bad);
    check_delta(&says("is", "x", 1, 0), bad);
    // Other keys, long texts, deletions, versions that go back.
    check_delta(&told("leaf/a", &[says("other", "x", 1, 0)]), much);
    check_delta(&told("leaf/a", &[says("is", &"x".repeat(1_025), 1, 0)]), much);
    check_delta(&told("leaf/a", &[says("is", "x", 1, 1)]), bad);
    check_delta(&told("leaf/a", &[says("is", "x", 1, 2)]), bad);
    check_delta(&told("leaf/a", &[says("is", "x", 2, 0), says("is", "y", 2, 0)]), bad);
    check_delta(&told("leaf/a", &[says("is", "x", 0, 0)]), bad);
    check_delta(&told("leaf/a", &[says("is", "x", 2, 0), [vec![2], numbers(&[1])].concat()]), bad);
    check_delta(&told(&"a".repeat(129), &[]), much);
    check_delta(&[3], bad);
}

#[test]
fn blocks_that_unpack_to_too_much_are_refused() {
    let bomb = packed(&vec![0; BLOCK_BYTES_MAX]);
    let blocks = [bomb.repeat(UNPACKED_BYTES_MAX / BLOCK_BYTES_MAX + 1), vec![0]].concat();
    assert!(blocks.len() < 65_507);
    check(&message(1, 2, &[&blocks]), Err(Refused::TooMany));
    check(&message(1, 2, &[&[1, 3, 0, 1, 2, 3, 0]]), Err(Refused::Malformed));
    check(&message(1, 2, &[&[3, 0, 0]]), Err(Refused::Malformed));
}

#[test]
fn members_are_bounded_and_forgotten_when_nobody_names_them() {
    let mut known = known();
    let named = |names: std::ops::Range<usize>| -> Vec<u8> {
        let entries: Vec<Vec<u8>> =
            names.map(|n| [run(&format!("leaf/{n}"), 1), numbers(&[1, 0, 1])].concat()).collect();
        let count = entries.len() as u16;
        message(0, 0, &[&count.to_le_bytes(), &entries.concat(), &string("gannet")])
    };
    for start in (0..MEMBERS_MAX).step_by(512) {
        assert_eq!(known.admit(&named(start..start + 512), NOW), Ok(()));
    }
    assert_eq!(known.admit(&named(0..512), NOW + 1), Ok(()));
    assert_eq!(known.admit(&named(MEMBERS_MAX..MEMBERS_MAX + 1), NOW), Err(Refused::TooMany));
    assert_eq!(known.admit(&named(MEMBERS_MAX..MEMBERS_MAX + 1), NOW + FORGET_MS + 1), Ok(()));
    assert_eq!(known.runs.len(), 513);
}

proptest! {
    #[test]
    fn arbitrary_messages_are_read_to_their_end_or_refused(
        version in 0u8..3, kind in 0u8..5, body in prop::collection::vec(any::<u8>(), 0..600), framed: bool,
    ) {
        let body = if framed { block(&body) } else { body };
        let _ = known().admit(&message(version, kind, &[&body]), NOW);
        let _ = known().admit(&body, NOW);
    }
}
