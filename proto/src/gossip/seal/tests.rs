//! Datagrams that are right, and that are wrong in one thing each.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000_000;

fn key(text: &str) -> ClusterKey {
    ClusterKey::of_loopback(text)
}

fn sealer(sender: u64) -> Sealer {
    Sealer::new(key("k"), sender, "10.0.0.7:7709".parse().unwrap())
}

fn opener() -> Opener {
    Opener::new(key("k"), 99)
}

/// A datagram of a head that a sender with the key chose freely.
fn sealed_with(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut datagram = sealer(1).seal(b"hello", NOW).remove(0);
    datagram.truncate(datagram.len() - PROOF_BYTES);
    change(&mut datagram);
    let proof = key("k").prove(&datagram);
    datagram.extend_from_slice(proof.as_ref());
    datagram
}

fn check(datagram: &[u8], expect: Result<&[u8], Refused>) {
    let opened = opener().open(datagram, NOW);
    let message = opened.map(|opened| opened.map(|(_, message)| message));
    assert_eq!(message, expect.map(|bytes| Some(bytes.to_vec())));
}

#[test]
fn what_is_sealed_is_opened() {
    check(&sealer(1).seal(b"hello", NOW)[0], Ok(b"hello"));
    check(&sealer(1).seal(b"", NOW)[0], Ok(b""));
    for at in ["10.0.0.7:7709", "[fe80::1]:1", "[::ffff:10.0.0.7]:7709"] {
        let at: SocketAddr = at.parse().unwrap();
        let datagram = Sealer::new(key("k"), 1, at).seal(b"x", NOW).remove(0);
        assert_eq!(opener().open(&datagram, NOW), Ok(Some((at, b"x".to_vec()))));
    }
}

#[test]
fn each_byte_that_is_changed_is_seen() {
    let good = sealer(1).seal(b"hello", NOW).remove(0);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        check(&bad, Err(if at < 4 { Refused::Malformed } else { Refused::Forged }));
    }
    for length in 0..good.len() {
        let short = HEAD_BYTES + PROOF_BYTES;
        check(&good[..length], Err(if length < short { Refused::Malformed } else { Refused::Forged }));
    }
    check(&[good.clone(), vec![0]].concat(), Err(Refused::Forged));
    let other = Sealer::new(key("other"), 1, "10.0.0.7:1".parse().unwrap()).seal(b"hello", NOW).remove(0);
    check(&other, Err(Refused::Forged));
}

#[test]
fn a_head_that_cannot_be_is_refused_though_proven() {
    check(&sealed_with(|_| {}), Ok(b"hello"));
    check(&sealed_with(|d| d[28] = 1), Err(Refused::Malformed));
    check(&sealed_with(|d| d[29] = 0), Err(Refused::Malformed));
    check(&sealed_with(|d| d[29] = 3), Err(Refused::Malformed));
    check(&sealed_with(|d| d[30] = 5), Err(Refused::Malformed));
    check(&sealed_with(|d| d[12..20].fill(0)), Err(Refused::Malformed));
    // Its own datagram, sent back.
    check(&sealed_with(|d| d[4..12].copy_from_slice(&99u64.to_le_bytes())), Err(Refused::Replayed));
}

#[test]
fn times_must_be_near() {
    let at = |sent: u64| {
        let opened = opener().open(&sealer(1).seal(b"x", sent)[0], NOW);
        opened.map(|opened| opened.is_some())
    };
    assert_eq!([at(NOW - WINDOW_MS), at(NOW), at(NOW + WINDOW_MS)], [Ok(true); 3]);
    assert_eq!([at(NOW - WINDOW_MS - 1), at(NOW + WINDOW_MS + 1), at(0)], [Err(Refused::Stale); 3]);
    assert_eq!(at(u64::MAX), Err(Refused::Stale));
}

#[test]
fn a_datagram_counts_once() {
    let mut sealer = sealer(1);
    let all: Vec<Vec<u8>> = (0..300u32).map(|n| sealer.seal(&n.to_le_bytes(), NOW).remove(0)).collect();
    let mut opener = opener();
    // In pairs that overtook each other.
    for pair in all.chunks(2) {
        assert!(opener.open(&pair[1], NOW).is_ok() && opener.open(&pair[0], NOW).is_ok());
    }
    for datagram in &all {
        assert_eq!(opener.open(datagram, NOW), Err(Refused::Replayed));
    }
    // One that is overtaken by so many that nobody knows any more.
    let late = sealer.seal(b"late", NOW).remove(0);
    for _ in 0..128 {
        let next = sealer.seal(b"next", NOW).remove(0);
        opener.open(&next, NOW).unwrap();
    }
    assert_eq!(opener.open(&late, NOW), Err(Refused::Replayed));
}

#[test]
fn senders_are_bounded_and_forgotten_when_they_are_stale() {
    let mut opener = opener();
    for sender in 0..SENDERS_MAX as u64 {
        opener.open(&sealer(1_000 + sender).seal(b"x", NOW)[0], NOW).unwrap();
    }
    assert_eq!(opener.open(&sealer(1).seal(b"x", NOW)[0], NOW), Err(Refused::TooMany));
    let later = NOW + WINDOW_MS + 1;
    let datagram = sealer(1).seal(b"x", later).remove(0);
    assert!(opener.open(&datagram, later).is_ok());
    assert_eq!(opener.senders.len(), 1);
    assert_eq!(opener.open(&datagram, later), Err(Refused::Replayed));
    // What was sent before its sender was forgotten is stale.
    assert_eq!(opener.open(&sealer(1_000).seal(b"x", NOW)[0], later), Err(Refused::Stale));
}

#[test]
fn a_large_message_comes_in_two_parts_in_any_order() {
    let message: Vec<u8> = (0..DATAGRAM_BYTES_MAX).map(|n| n as u8).collect();
    let mut sealer = sealer(1);
    let parts = sealer.seal(&message, NOW);
    assert!(parts.len() == 2 && parts.iter().all(|part| part.len() <= DATAGRAM_BYTES_MAX));
    let at = "10.0.0.7:7709".parse().unwrap();
    for order in [[0, 1], [1, 0]] {
        let mut opener = opener();
        assert_eq!(opener.open(&parts[order[0]], NOW), Ok(None));
        assert_eq!(opener.open(&parts[order[1]], NOW), Ok(Some((at, message.clone()))));
        assert!(opener.awaited.is_empty());
    }
    assert!(sealer.seal(&vec![0; 2 * PART_BYTES_MAX + 1], NOW).is_empty());
    // Of many halves only the newest are kept.
    let mut opener = opener();
    let halves: Vec<Vec<u8>> = (0..=AWAITED_MAX).map(|_| sealer.seal(&message, NOW).remove(0)).collect();
    halves.iter().for_each(|half| assert_eq!(opener.open(half, NOW), Ok(None)));
    assert_eq!(opener.awaited.len(), AWAITED_MAX);
}

proptest! {
    #[test]
    fn arbitrary_datagrams_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000), ours: bool) {
        let mut bytes = bytes;
        if ours && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(MAGIC);
        }
        let mut opener = opener();
        prop_assert!(opener.open(&bytes, NOW).is_err());
        prop_assert!(opener.senders.is_empty() && opener.awaited.is_empty());
    }

    #[test]
    fn any_head_by_a_member_is_opened_or_refused(
        heads in prop::collection::vec(prop::collection::vec(any::<u8>(), 46..90), 1..40),
    ) {
        let mut opener = opener();
        for head in heads {
            let mut datagram = [MAGIC.as_slice(), &head].concat();
            datagram.resize(datagram.len().max(HEAD_BYTES), 0);
            datagram[20..28].copy_from_slice(&NOW.to_le_bytes());
            datagram[29] %= 4;
            let proof = key("k").prove(&datagram);
            datagram.extend_from_slice(proof.as_ref());
            let _ = opener.open(&datagram, NOW);
        }
        prop_assert!(opener.senders.len() <= 40 && opener.awaited.len() <= 40);
    }
}
