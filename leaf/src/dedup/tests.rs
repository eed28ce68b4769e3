use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const PLENTY: DedupLimits = DedupLimits {
    producers_max: 100_000,
    gaps_max: 1_024,
    open_sequences_max: 1_024,
    intervals_max: 1 << 20,
    keys_max: 262_144,
    idle_seconds_min: 86_400,
};

fn part(producer: &str, sequence: u64, part: u32, last_part: bool) -> BatchName {
    BatchName { table: "t".into(), producer: producer.into(), sequence, part, last_part }
}

fn whole(producer: &str, sequence: u64) -> BatchName {
    part(producer, sequence, 0, true)
}

/// What is stored is read back as the same value and stored as the same text.
fn stored_and_read(dedup: &Dedup) -> Dedup {
    let text = serde_json::to_string(dedup).unwrap();
    let read: Dedup = serde_json::from_str(&text).unwrap();
    assert_eq!(&read, dedup);
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    read
}

fn check(dedup: &Dedup, name: &BatchName, limits: &DedupLimits, expect: &str) {
    let said = match dedup.check(name, limits) {
        Ok(known) => format!("{known:?}"),
        Err(error) => error.to_string(),
    };
    assert_eq!(said, expect);
}

#[test]
fn a_retry_is_known_after_ten_thousand_other_batches() {
    let mut dedup = Dedup::default();
    for sequence in 0..10_001 {
        check(&dedup, &whole("p", sequence), &PLENTY, "New");
        dedup.complete(&whole("p", sequence), 1, &PLENTY);
        if sequence % 2_500 == 0 {
            dedup = stored_and_read(&dedup);
        }
    }
    for sequence in 0..10_001 {
        check(&dedup, &whole("p", sequence), &PLENTY, "Counted");
    }
    check(&dedup, &whole("p", 10_001), &PLENTY, "New");
    check(&dedup, &whole("q", 0), &PLENTY, "New");
    check(&dedup, &BatchName { table: "u".into(), ..whole("p", 0) }, &PLENTY, "New");
    assert_eq!(dedup.intervals, 1);
}

#[test]
fn a_sequence_counts_when_all_its_parts_did() {
    let mut dedup = Dedup::default();
    for (number, last) in [(2, true), (0, false), (1, false)] {
        check(&dedup, &part("p", 5, number, last), &PLENTY, "New");
        dedup.complete(&part("p", 5, number, last), 1, &PLENTY);
        check(&dedup, &part("p", 5, number, last), &PLENTY, "Counted");
        dedup = stored_and_read(&dedup);
    }
    assert_eq!(dedup.tables["t"]["p"].done.iter().collect::<Vec<_>>(), [(5, 6)]);
    assert_eq!(dedup.intervals, 1);
    check(&dedup, &part("p", 5, 9, false), &PLENTY, "Counted");
}

#[test]
fn parts_that_cannot_be_are_refused() {
    let mut dedup = Dedup::default();
    dedup.complete(&part("p", 7, 3, true), 1, &PLENTY);
    check(
        &dedup,
        &part("p", 7, 4, false),
        &PLENTY,
        "part 4 of sequence 7 of producer p lies behind its last part, 3",
    );
    check(
        &dedup,
        &part("p", 7, 2, true),
        &PLENTY,
        "part 3 of sequence 7 of producer p lies behind its last part, 2",
    );
    check(
        &dedup,
        &whole("p", u64::MAX),
        &PLENTY,
        "sequence 18446744073709551615 of producer p is greater than 18446744073709551614",
    );
    dedup.complete(&whole("p", u64::MAX), 1, &PLENTY);
    // Told all the same, they do no harm: the greatest part is the last.
    dedup.complete(&part("p", 7, 5, false), 1, &PLENTY);
    dedup.complete(&part("p", 7, u32::MAX, true), 1, &PLENTY);
    check(&stored_and_read(&dedup), &part("p", 7, u32::MAX, true), &PLENTY, "Counted");
    check(&dedup, &whole("p", u64::MAX - 1), &PLENTY, "New");
    dedup.complete(&whole("p", u64::MAX - 1), 1, &PLENTY);
    check(&stored_and_read(&dedup), &whole("p", u64::MAX - 1), &PLENTY, "Counted");
}

#[test]
fn a_gap_too_many_raises_the_floor() {
    let limits = DedupLimits { gaps_max: 3, ..PLENTY };
    let mut dedup = Dedup::default();
    for sequence in [0, 1, 3, 5, 7, 9] {
        dedup.complete(&whole("p", sequence), 1, &limits);
    }
    let old = |sequence: u64| {
        format!(
            "sequence {sequence} of producer p is too old to tell whether it was counted; the oldest that can be told is 4"
        )
    };
    check(&dedup, &whole("p", 1), &limits, &old(1));
    check(&dedup, &whole("p", 2), &limits, &old(2));
    check(&dedup, &whole("p", 4), &limits, "New");
    check(&dedup, &whole("p", 5), &limits, "Counted");
    // One that was in flight while the floor rose above it is not new afterwards.
    dedup.complete(&whole("p", 2), 1, &limits);
    check(&dedup, &whole("p", 2), &limits, &old(2));
    dedup.complete(&whole("p", 4), 1, &limits);
    check(&stored_and_read(&dedup), &whole("p", 4), &limits, "Counted");
}

#[test]
fn an_open_sequence_too_many_raises_the_floor() {
    let limits = DedupLimits { open_sequences_max: 2, ..PLENTY };
    let mut dedup = Dedup::default();
    for sequence in [4, 2, 8] {
        dedup.complete(&part("p", sequence, 0, false), 1, &limits);
    }
    let old = "sequence 2 of producer p is too old to tell whether it was counted; the oldest that can be told is 3";
    check(&dedup, &part("p", 2, 0, false), &limits, old);
    check(&dedup, &part("p", 2, 1, true), &limits, old);
    check(&dedup, &part("p", 4, 0, false), &limits, "Counted");
    check(&dedup, &part("p", 4, 1, true), &limits, "New");
    let none = DedupLimits { open_sequences_max: 0, ..PLENTY };
    dedup.complete(&part("q", 3, 0, false), 1, &none);
    check(
        &stored_and_read(&dedup),
        &part("q", 3, 1, true),
        &none,
        "sequence 3 of producer q is too old to tell whether it was counted; the oldest that can be told is 4",
    );
}

#[test]
fn torn_parts_and_all_intervals_are_bounded() {
    let limits = DedupLimits { gaps_max: 4, intervals_max: 20, ..PLENTY };
    let mut dedup = Dedup::default();
    for number in 0..5 {
        dedup.complete(&part("p", 1, number * 2, false), 1, &limits);
    }
    assert!(matches!(
        dedup.check(&part("p", 1, 1, false), &limits),
        Err(DedupError::TooOld { floor: 2, .. })
    ));
    for producer in 0..10 {
        for sequence in 0..4 {
            dedup.complete(&whole(&format!("p{producer}"), 2 * sequence), 1, &limits);
            dedup.complete(&part(&format!("q{producer}"), 2 * sequence, 0, false), 1, &limits);
        }
    }
    // One interval a producer is the least.
    assert!(dedup.intervals <= 20 + 20, "{}", dedup.intervals);
    let counted: usize = dedup.tables.values().flat_map(BTreeMap::values).map(Producer::intervals).sum();
    assert_eq!(counted, dedup.intervals);
    stored_and_read(&dedup);
}

#[test]
fn only_the_idle_are_forgotten_when_there_are_too_many() {
    let limits = DedupLimits { producers_max: 3, ..PLENTY };
    let mut dedup = Dedup::default();
    for (at, producer) in ["a", "b", "c"].iter().enumerate() {
        dedup.complete(&whole(producer, 0), at as u64, &limits);
    }
    dedup.complete(&whole("a", 0), 100, &limits);
    let refused = "producer d is one too many: 3 are remembered, none of them idle for 86400 seconds";
    dedup.advance(86_401);
    check(&dedup, &whole("d", 0), &limits, refused);
    check(&dedup, &whole("b", 1), &limits, "New");
    dedup.advance(86_402);
    dedup.advance(5);
    check(&dedup, &whole("d", 0), &limits, "New");
    dedup = stored_and_read(&dedup);
    dedup.complete(&whole("d", 0), 86_402, &limits);
    check(&dedup, &whole("d", 0), &limits, "Counted");
    check(&dedup, &whole("a", 0), &limits, "Counted");
    check(&dedup, &whole("c", 0), &limits, "Counted");
    check(&dedup, &whole("b", 0), &limits, &refused.replace("producer d", "producer b"));
    // What was in flight is remembered beyond the limit.
    dedup.complete(&whole("e", 0), 86_402, &limits);
    check(&dedup, &whole("e", 0), &limits, "Counted");
    assert_eq!(dedup.producers(), 4);
    stored_and_read(&dedup);
    dedup.forget_table("t");
    assert_eq!((dedup.producers(), dedup.intervals), (0, 0));
    dedup.forget_table("t");
}

#[test]
fn a_hundred_thousand_producers_are_remembered_and_one_more_refused() {
    let mut dedup = Dedup::default();
    for producer in 0..PLENTY.producers_max {
        dedup.complete(&whole(&format!("p{producer}"), 3), 1, &PLENTY);
    }
    assert!(matches!(
        dedup.check(&whole("q", 0), &PLENTY),
        Err(DedupError::TooManyProducers { limit: 100_000, .. })
    ));
    let dedup = stored_and_read(&dedup);
    check(&dedup, &whole("p0", 3), &PLENTY, "Counted");
    check(&dedup, &whole("p99999", 3), &PLENTY, "Counted");
}

#[test]
fn keys_are_remembered_in_a_ring() {
    let limits = DedupLimits { keys_max: 100, producers_max: 0, ..PLENTY };
    let mut dedup = Dedup::default();
    let key = |number: u32| BatchName::of_key("t", &number.to_be_bytes(), number % 3, true);
    for number in 0..150 {
        check(&dedup, &key(number), &limits, "New");
        dedup.complete(&key(number), 1, &limits);
        dedup.complete(&key(number), 1, &limits);
        if number % 40 == 0 {
            dedup = stored_and_read(&dedup);
        }
    }
    assert_eq!((dedup.keys(), dedup.producers()), (100, 0));
    check(&dedup, &key(49), &limits, "New");
    check(&dedup, &key(50), &limits, "Counted");
    check(&dedup, &key(149), &limits, "Counted");
    check(&dedup, &BatchName { table: "u".into(), ..key(149) }, &limits, "New");
    check(&dedup, &BatchName { sequence: 1, ..key(149) }, &limits, "New");
    check(&dedup, &BatchName { part: 7, ..key(149) }, &limits, "New");
    // A producer that is only called like one is a producer.
    check(
        &dedup,
        &whole("key:12", 0),
        &limits,
        "producer key:12 is one too many: 0 are remembered, none of them idle for 86400 seconds",
    );
}

fn check_stored(text: &str, expect: &str) {
    let error = serde_json::from_str::<Dedup>(text).unwrap_err().to_string();
    assert!(error.contains(expect), "{error}");
}

#[test]
fn what_is_stored_is_checked() {
    let with =
        |producer: &str| format!(r#"{{"running_seconds":9,"tables":{{"t":{{"p":{producer}}}}},"keys":""}}"#);
    let good: Dedup = serde_json::from_str(&with("[9,3,[[0,5]],[[7,2,[[1,3]]]]]")).unwrap();
    check(&good, &part("p", 7, 1, false), &PLENTY, "Counted");
    check(&good, &part("p", 7, 0, false), &PLENTY, "New");
    check_stored(&with("[10,0,[[0,5]],[]]"), "producer p of table t: heard of at 10 seconds of 9");
    check_stored(&with("[9,0,[],[]]"), "it has no sequence");
    check_stored(&with("[9,0,[[5,5]],[]]"), "row range [5, 5) holds no row");
    check_stored(&with("[9,0,[[0,5]],[[4,null,[[0,1]]]]]"), "sequence 4 is open and cannot be");
    check_stored(&with("[9,0,[[0,5]],[[7,null,[[0,1]]],[7,null,[[0,1]]]]]"), "sequence 7 is out of order");
    check_stored(&with("[9,0,[],[[7,null,[]]]]"), "the parts of open sequence 7 cannot be");
    check_stored(&with("[9,0,[],[[7,2,[[0,3]]]]]"), "the parts of open sequence 7 cannot be");
    check_stored(&with("[9,0,[],[[7,2,[[1,4]]]]]"), "the parts of open sequence 7 cannot be");
    check_stored(&with("[9,0,[],[[7,null,[[0,4294967297]]]]]"), "the parts of open sequence 7 cannot be");
    check_stored(&with("[9,0,[],[[18446744073709551615,null,[[0,1]]]]]"), "is open and cannot be");
    let keys = |keys: &str| format!(r#"{{"running_seconds":9,"tables":{{}},"keys":"{keys}"}}"#);
    check_stored(&keys("abc"), "keys of 3 digits, not a multiple of 32");
    check_stored(&keys(&"x".repeat(32)), "byte 120 in a key, not a hex digit");
    check_stored(&keys(&"A".repeat(32)), "byte 65 in a key, not a hex digit");
    check_stored(&keys(&"a".repeat(64)), "a key is there twice");
    check_stored(r#"{"running_seconds":9,"tables":{},"keys":"","more":1}"#, "unknown field");
    check_stored("[]", "invalid");
}

/// A batch of the model: sequences have as many parts as their number says.
fn name(table: u8, producer: u8, sequence: u64, number: u32) -> BatchName {
    let parts = 1 + u32::try_from(sequence % 4).unwrap();
    let number = number % parts;
    BatchName {
        table: format!("t{table}"),
        producer: format!("p{producer}"),
        sequence,
        part: number,
        last_part: number + 1 == parts,
    }
}

proptest! {
    #[test]
    fn within_its_limits_it_is_a_set(
        sent in proptest::collection::vec((0_u8..2, 0_u8..3, 0_u64..60, 0_u32..4, 0_u8..40), 0..600),
    ) {
        let mut counted: HashSet<BatchName> = HashSet::new();
        let mut dedup = Dedup::default();
        for (at, (table, producer, sequence, number, act)) in sent.into_iter().enumerate() {
            let name = name(table, producer, sequence, number);
            let expect = if counted.contains(&name) { Known::Counted } else { Known::New };
            prop_assert_eq!(dedup.check(&name, &PLENTY).unwrap(), expect);
            dedup.complete(&name, at as u64, &PLENTY);
            counted.insert(name);
            if act == 0 {
                dedup = stored_and_read(&dedup);
            }
        }
        for name in &counted {
            prop_assert_eq!(dedup.check(name, &PLENTY).unwrap(), Known::Counted);
        }
    }

    #[test]
    fn beyond_its_limits_it_never_counts_twice_and_never_drops(
        sent in proptest::collection::vec((0_u8..2, 0_u8..4, 0_u64..40, 0_u32..4, 0_u8..40), 0..400),
        limits in (1_usize..9, 1_usize..6, 0_usize..4, 1_usize..30, 1_u64..50).prop_map(
            |(producers_max, gaps_max, open_sequences_max, intervals_max, idle_seconds_min)| DedupLimits {
                producers_max, gaps_max, open_sequences_max, intervals_max, keys_max: 1, idle_seconds_min,
            }
        ),
    ) {
        let mut counted: HashSet<BatchName> = HashSet::new();
        let mut heard: HashMap<(String, String), u64> = HashMap::new();
        let mut dedup = Dedup::default();
        for (at, (table, producer, sequence, number, act)) in sent.into_iter().enumerate() {
            let now = at as u64;
            dedup.advance(now);
            let name = name(table, producer, sequence, number);
            let who = (name.table.clone(), name.producer.clone());
            match dedup.check(&name, &limits) {
                Ok(Known::New) => {
                    prop_assert!(!counted.contains(&name), "{:?} would count twice", name);
                    dedup.complete(&name, now, &limits);
                    prop_assert_ne!(dedup.check(&name, &limits), Ok(Known::New));
                    counted.insert(name);
                    heard.insert(who, now);
                }
                Ok(Known::Counted) => {
                    prop_assert!(counted.contains(&name), "{:?} would be dropped", name);
                    dedup.complete(&name, now, &limits);
                    heard.insert(who, now);
                }
                Err(DedupError::TooOld { floor, .. }) => prop_assert!(name.sequence < floor),
                Err(DedupError::TooManyProducers { .. }) => {
                    prop_assert!(heard.len() >= limits.producers_max && !heard.contains_key(&who));
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
            // A producer may be forgotten only when it was idle for long enough, and then with all its batches.
            let gone = |(table, producer): &(String, String)| dedup.producer(table, producer).is_none();
            prop_assert!(heard.iter().all(|(who, seen)| !gone(who) || now - seen > limits.idle_seconds_min));
            heard.retain(|who, _| !gone(who));
            counted.retain(|name| !gone(&(name.table.clone(), name.producer.clone())));
            prop_assert!(dedup.producers() <= limits.producers_max);
            prop_assert!(dedup.intervals <= limits.intervals_max + limits.producers_max);
            let intervals: usize =
                dedup.tables.values().flat_map(BTreeMap::values).map(Producer::intervals).sum();
            prop_assert_eq!(dedup.intervals, intervals);
            if act == 0 {
                dedup = stored_and_read(&dedup);
            }
        }
    }

    #[test]
    fn what_is_mutated_is_read_or_refused(
        sent in proptest::collection::vec((0_u8..2, 0_u8..3, 0_u64..60, 0_u32..4), 1..50),
        at in any::<proptest::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut dedup = Dedup::default();
        for (table, producer, sequence, number) in sent {
            dedup.complete(&name(table, producer, sequence, number), 7, &PLENTY);
            dedup.complete(&BatchName::of_key("t", &sequence.to_be_bytes(), 0, true), 7, &PLENTY);
        }
        let mut text = serde_json::to_vec(&dedup).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(read) = serde_json::from_slice::<Dedup>(&text) {
            stored_and_read(&read);
        }
    }
}
