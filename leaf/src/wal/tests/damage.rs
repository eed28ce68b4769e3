//! Torn tails, flipped bits, missing files and bytes that nobody of ours wrote.

use proptest::prelude::*;

use super::fake_disk::FakeDisk;
use super::record::{encode_file_header, encode_record, seed_of};
use super::*;

const FIRST: &str = "wal/0000000001-00000000000000000001.wal";

/// A log of one file with six records, and where each of them ends.
fn small_log() -> (Vec<u8>, Vec<usize>) {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Power, 1 << 20));
    let mut ends = Vec::new();
    for n in 1..=6 {
        commit(&wal, n).unwrap();
        ends.push(wal.bytes() as usize);
    }
    (disk.bytes_of(FIRST), ends)
}

fn disk_with(files: &[(&str, &[u8])]) -> FakeDisk {
    let disk = FakeDisk::default();
    files.iter().for_each(|(path, bytes)| disk.put(path, bytes));
    disk
}

/// Every record that is there is the right one; the numbers that are missing before the end are reported.
fn check_honest(found: &WalContents) -> Vec<u64> {
    let there: Vec<u64> = found.places.iter().map(|place| place.header.lsn).collect();
    for (lsn, found) in records(found) {
        assert_eq!(found, record(lsn));
    }
    let mut accounted = there.clone();
    for lost in &found.lost {
        match lost {
            Lost::Body { header, .. } => accounted.push(header.lsn),
            Lost::Records { first_lsn, last_lsn } => accounted.extend(*first_lsn..=*last_lsn),
        }
    }
    accounted.sort_unstable();
    assert_eq!(accounted, (1..found.next_lsn()).collect::<Vec<_>>(), "what is not there is reported, once");
    there
}

#[test]
fn a_tail_may_be_torn_at_any_byte() {
    let (bytes, ends) = small_log();
    for cut in 0..bytes.len() {
        let disk = disk_with(&[(FIRST, &bytes[..cut])]);
        let found = contents(&disk, 0);
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
        assert_eq!(check_honest(&found), (1..=whole).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(found.lost, [], "cut at {cut}");
        let start =
            ends.iter().copied().filter(|end| *end <= cut).max().unwrap_or(if cut < 64 { 0 } else { 64 });
        let torn = (cut > start).then(|| TornTail {
            file: FIRST["wal/".len()..].to_owned(),
            offset: start as u64,
            bytes: (cut - start) as u64,
            first_lsn: whole + 1,
            records: 0,
        });
        assert_eq!(found.torn, torn, "cut at {cut}");
        // The next life goes on behind what is sound, and its reader does not trip over the tail.
        let wal = Wal::open(Arc::new(disk.clone()), settings(Durability::Power, 1 << 20), &found).unwrap();
        for n in whole + 1..=8 {
            assert_eq!(commit(&wal, n).unwrap(), n);
        }
        check_holds(&contents(&disk, 0), 1..=8);
    }
}

#[test]
fn any_bit_may_flip() {
    let (bytes, ends) = small_log();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let found = contents(&disk_with(&[(FIRST, &flipped)]), 0);
        let there = check_honest(&found);
        let hit = ends.iter().position(|end| at < *end).map_or(0, |index| index as u64 + 1);
        if at < 64 {
            assert_eq!(there, [1, 2, 3, 4, 5, 6], "byte {at}");
            assert_eq!(found.damaged_headers, [&FIRST["wal/".len()..]], "byte {at}");
        } else if there.len() == 6 {
            assert!(found.lost.is_empty() && found.torn.is_none(), "byte {at} is padding");
        } else {
            assert_eq!(there, (1..=6).filter(|lsn| *lsn != hit).collect::<Vec<_>>(), "byte {at}");
            // The last one was never known to be durable.
            assert_eq!(
                (found.lost.len(), found.torn.is_some()),
                if hit == 6 { (0, true) } else { (1, false) }
            );
        }
        let known = contents(&disk_with(&[(FIRST, &flipped)]), 6);
        assert_eq!(
            known.lost.len(),
            6 - there.len(),
            "byte {at}: who knows that all was durable hears of each"
        );
        assert_eq!(known.next_lsn(), 7);
    }
}

#[test]
fn what_is_lost_says_whose_rows_it_held() {
    let (mut bytes, ends) = small_log();
    bytes[ends[3] + 180] ^= 1;
    bytes[ends[1] + 3] ^= 1;
    let found = contents(&disk_with(&[(FIRST, &bytes)]), 0);
    let lost: Vec<String> = found.lost.iter().map(Lost::to_string).collect();
    assert_eq!(
        lost,
        [
            "records 3 to 3".to_owned(),
            format!("record 5 in {}: 10 rows of table errors from row 50 on", &FIRST["wal/".len()..])
        ]
    );
}

#[test]
fn rows_that_look_like_a_record_are_not_taken_for_one() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Power, 1 << 20));
    commit(&wal, 1).unwrap();
    // A record of another file of this leaf, in the rows of a record whose header is then damaged.
    let mut forged = Vec::new();
    encode_record(
        &mut forged,
        &Record::Edit(Bytes::new()),
        0x2d06_8005_38d3_94c2,
        2,
        1,
        seed_of(INSTANCE, 9),
    );
    let mut header = Vec::new();
    encode_record(&mut header, &Record::Edit(Bytes::from(forged.clone())), 0, 2, 1, 0);
    wal.commit(&wal.submit(Record::Edit(Bytes::from(forged)))).unwrap();
    commit(&wal, 3).unwrap();
    let mut bytes = disk.bytes_of(FIRST);
    let at = bytes.windows(8).enumerate().filter(|(_, word)| word == b"gannetwr").nth(1).unwrap().0;
    bytes[at + 9] ^= 1;
    let found = contents(&disk_with(&[(FIRST, &bytes)]), 0);
    assert_eq!(records(&found), [(1, record(1)), (3, record(3))]);
    assert_eq!(found.lost, [Lost::Records { first_lsn: 2, last_lsn: 2 }]);
}

#[test]
fn a_file_that_is_gone_is_missed_unless_it_was_truncated() {
    let disk = FakeDisk::default();
    let wal = open(&disk, settings(Durability::Power, 300));
    for n in 1..=12 {
        commit(&wal, n).unwrap();
    }
    let files = wal.files();
    let names = disk.names();
    disk.remove_now(&names[1]);
    let gone = Lost::Records { first_lsn: files[1].first_lsn, last_lsn: files[1].last_lsn };
    assert_eq!(contents(&disk, 0).lost, [gone]);
    disk.remove_now(&names[0]);
    assert_eq!(contents(&disk, files[1].last_lsn).lost, []);
    let known = files[1].last_lsn - 1;
    let gone = Lost::Records { first_lsn: known + 1, last_lsn: known + 1 };
    assert_eq!(contents(&disk, known).lost, [gone]);
}

#[test]
fn what_is_not_ours_is_refused_by_name() {
    let check = |name: &str, bytes: &[u8], expect: &str| {
        let disk = disk_with(&[(&format!("wal/{name}"), bytes)]);
        let error = read(Arc::new(disk.clone()), INSTANCE, 0).unwrap_err();
        assert_eq!(error.to_string(), expect);
        assert_eq!(disk.bytes_of(&format!("wal/{name}")), bytes, "nothing is written");
        assert!(!error.may_survive() && !error.is_full());
    };
    let name = &FIRST["wal/".len()..];
    let mut newer = encode_file_header(INSTANCE, 1, 1);
    let version = super::record::VERSION + 1;
    newer[8..12].copy_from_slice(&version.to_le_bytes());
    let checksum = xxh3_64(&newer[..56]).to_le_bytes();
    newer[56..].copy_from_slice(&checksum);
    check(name, &newer, &format!("log file {name} has version {version}, this build reads {}", version - 1));
    let other = encode_file_header(Uuid::from_u128(8), 1, 1);
    let (ours, theirs) = (INSTANCE, Uuid::from_u128(8));
    check(name, &other, &format!("log file {name} belongs to instance {theirs}, this leaf is {ours}"));
    for name in
        ["1.wal", "0000000001-00000000000000000000.wal", "00000000001-00000000000000000001.wal", ".wal"]
    {
        check(name, b"", &format!("log file {name} has a name that this build does not know"));
    }
    let disk =
        disk_with(&[("wal/notes.txt", b"not a log"), ("wal/0000000004-00000000000000000001.wal.new", b"")]);
    let wal = open(&disk, settings(Durability::Power, 1000));
    commit(&wal, 1).unwrap();
    assert_eq!(disk.names(), ["wal/0000000005-00000000000000000001.wal", "wal/notes.txt"]);
}

#[test]
fn a_body_that_changes_after_reading_is_an_error() {
    let (bytes, ends) = small_log();
    let found = contents(&disk_with(&[(FIRST, &bytes)]), 0);
    let body = |bytes: &[u8]| {
        let changed = WalContents { disk: Arc::new(disk_with(&[(FIRST, bytes)])), ..contents_of(&found) };
        changed.body(&found.places[0]).map_err(|error| error.to_string())
    };
    assert_eq!(body(&bytes).unwrap(), record(1).body());
    let expect = format!("record 1 in {} is not what it was when the log was read", &FIRST["wal/".len()..]);
    let mut flipped = bytes.clone();
    flipped[ends[0] - 9] ^= 1;
    assert_eq!(body(&flipped), Err(expect.clone()));
    assert_eq!(body(&bytes[..ends[0] - 9]), Err(expect));
}

/// The same contents once more.
fn contents_of(found: &WalContents) -> WalContents {
    read(found.disk.clone(), found.instance, 0).unwrap()
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(
        files in prop::collection::vec((1u64..9, 1u64..20, prop::collection::vec(any::<u8>(), 0..400)), 0..4),
        known in 0u64..30,
    ) {
        let disk = FakeDisk::default();
        for (serial, first, bytes) in &files {
            disk.put(&format!("wal/{}", record::file_name(*serial, *first)), bytes);
        }
        let found = contents(&disk, known);
        prop_assert!(found.places.is_empty());
        let wal = Wal::open(Arc::new(disk.clone()), settings(Durability::Power, 1000), &found).unwrap();
        prop_assert_eq!(commit(&wal, 1).unwrap(), found.next_lsn());
        let again = contents(&disk, known);
        prop_assert_eq!(records(&again), [(found.next_lsn(), record(1))]);
        prop_assert_eq!(again.torn, None);
    }

    /// Headers with right checksums and any fields, some of them with bodies that are not there.
    #[test]
    fn headers_that_lie_are_read_without_harm(
        fields in prop::collection::vec((prop::array::uniform16(any::<u64>()), 0usize..60, any::<bool>()), 1..6),
        first in prop::sample::select(vec![1u64, 2, u64::MAX - 1, u64::MAX]),
        known in prop::sample::select(vec![0u64, 1, 40, u64::MAX - 1]),
    ) {
        let seed = seed_of(INSTANCE, 1);
        let mut bytes = encode_file_header(INSTANCE, 1, first).to_vec();
        for (words, more, small) in &fields {
            let mut header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            header[..8].copy_from_slice(b"gannetwr");
            header[80] = (words[10] % 3) as u8;
            header[82..88].fill(0);
            header[96..104].copy_from_slice(&xxh3_64(b"").to_le_bytes());
            if *small {
                header[24..32].copy_from_slice(&(*more as u64).to_le_bytes());
                header[32..40].copy_from_slice(&xxh3_64(&vec![0; *more]).to_le_bytes());
            }
            let checksum = xxhash_rust::xxh3::xxh3_64_with_seed(&header[..120], seed);
            header[120..].copy_from_slice(&checksum.to_le_bytes());
            bytes.extend_from_slice(&header);
            bytes.resize(bytes.len() + more.next_multiple_of(8), 0);
        }
        let disk = disk_with(&[(&format!("wal/{}", record::file_name(1, first)), &bytes)]);
        let found = contents(&disk, known);
        for place in &found.places {
            prop_assert!(found.body(place).unwrap().len() <= bytes.len());
        }
        let ascending = found.places.windows(2).all(|pair| pair[0].header.lsn < pair[1].header.lsn);
        prop_assert!(ascending);
        let _ = Wal::open(Arc::new(disk.clone()), settings(Durability::Process, 1000), &found).unwrap();
    }

    /// Several changes to a log of several files: what is there is right, what is missing is reported.
    #[test]
    fn a_damaged_log_is_read_honestly(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let disk = FakeDisk::default();
        let wal = open(&disk, settings(Durability::Power, 500));
        for n in 1..=14 {
            commit(&wal, n).unwrap();
        }
        let mut files: Vec<(String, Vec<u8>)> =
            disk.names().into_iter().map(|name| (name.clone(), disk.bytes_of(&name))).collect();
        for (file, at, value) in &changes {
            let bytes = &mut file.get_mut(&mut files).1;
            // Behind the header of the file, where a right version or instance could only be forged.
            let at = 64 + at.index(bytes.len() - 64);
            bytes[at] = *value;
        }
        if let Some((file, at)) = cut {
            let bytes = &mut file.get_mut(&mut files).1;
            bytes.truncate(at.index(bytes.len()));
        }
        let disk = FakeDisk::default();
        files.iter().for_each(|(name, bytes)| disk.put(name, bytes));
        let found = contents(&disk, 0);
        check_honest(&found);
        let next = found.next_lsn();
        let all = found.places.len() == 14;
        prop_assert!(all || !found.lost.is_empty() || found.torn.is_some() || next < 15);
        let wal = Wal::open(Arc::new(disk.clone()), settings(Durability::Power, 500), &found).unwrap();
        prop_assert_eq!(commit(&wal, next).unwrap(), next);
        let again = contents(&disk, 0);
        check_honest(&again);
        prop_assert_eq!(again.next_lsn(), next + 1);
        prop_assert_eq!(again.places.len(), found.places.len() + 1);
        prop_assert_eq!(again.lost, found.lost);
    }
}
