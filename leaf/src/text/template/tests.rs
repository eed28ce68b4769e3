use arrow::array::{Array, StringArray};
use arrow::buffer::Buffer;
use proptest::prelude::*;

use super::super::{Form, StoredText, TextParts, TextTest, Verified};
use super::*;

fn open(parts: TextParts, array: &StringArray) -> StoredText {
    StoredText::open(parts, array.len(), array.nulls().cloned(), Verified::No).expect("what was encoded")
}

fn tests(needle: &str) -> [TextTest; 4] {
    let text = needle.to_owned();
    [
        TextTest::Contains(text.clone()),
        TextTest::StartsWith(text.clone()),
        TextTest::EndsWith(text.clone()),
        TextTest::Among(vec![text]),
    ]
}

/// The needle in parts, with everything open or closed at its ends.
fn parted(needle: &str) -> Vec<TextTest> {
    let parts: Vec<String> =
        needle.split([' ', '=', '2']).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    if parts.len() < 2 {
        return Vec::new();
    }
    let ends = [(false, false), (true, false), (false, true), (true, true)];
    ends.map(|(begins, ends)| TextTest::Parts { parts: parts.clone(), begins, ends }).to_vec()
}

fn plain(array: &StringArray, test: &TextTest) -> Vec<bool> {
    array.iter().map(|value| value.is_some_and(|value| test.passes(value))).collect()
}

fn check_search(text: &StoredText, array: &StringArray, test: &TextTest) {
    let expect = plain(array, test);
    let found: Vec<bool> = text.matches(test, None).expect("always answers").iter().collect();
    assert_eq!(found, expect, "{test:?}");
    let positions: Vec<u32> = (0..array.len() as u32).filter(|row| row % 3 != 1).collect();
    let found: Vec<bool> = text.matches(test, Some(&positions)).expect("always answers").iter().collect();
    let expect: Vec<bool> = positions.iter().map(|row| expect[*row as usize]).collect();
    assert_eq!(found, expect, "{test:?} of some");
}

/// Encodes, and checks that values come back; at most so many bytes.
fn check(array: &StringArray, bytes_max: usize) -> StoredText {
    let parts = encode(array).expect("has few shapes");
    assert!(parts.bytes() <= bytes_max, "{} bytes", parts.bytes());
    let text = open(parts, array);
    assert_eq!(&text.to_array(), array);
    let ends = [array.len() as u32 - 1, 0, array.len() as u32 / 2];
    let expect: StringArray =
        ends.iter().map(|row| array.is_valid(*row as usize).then(|| array.value(*row as usize))).collect();
    assert_eq!(text.take(&ends), expect);
    let parts = encode(array).expect("has few shapes");
    let template = Template::open(&parts, array.len(), Verified::Before).expect("what was encoded");
    let mut alone = Vec::new();
    for row in (0..array.len()).rev().filter(|row| array.is_valid(*row)) {
        alone.clear();
        template.reader().append(row, &mut alone);
        assert_eq!(alone, array.value(row).as_bytes(), "row {row}");
    }
    check_undecoded(&text, &template, array);
    text
}

/// What is found without decoding is what decoding finds.
fn check_undecoded(text: &StoredText, template: &Template, array: &StringArray) {
    let some: Vec<u32> = (0..array.len() as u32).filter(|row| row % 3 != 1).collect();
    for positions in [None, Some(&some[..])] {
        let rows: Vec<usize> = match positions {
            None => (0..array.len()).collect(),
            Some(positions) => positions.iter().map(|row| *row as usize).collect(),
        };
        let tuples = template.tuples(positions);
        let mut of_values = std::collections::HashMap::new();
        let mut of_tuples = std::collections::HashMap::new();
        for (place, row) in rows.iter().enumerate().filter(|(_, row)| array.is_valid(**row)) {
            let Some(tuple) = tuples.as_ref().map(|tuples| tuples[place]) else { break };
            assert_eq!(*of_values.entry(array.value(*row)).or_insert(tuple), tuple, "row {row}");
            assert_eq!(*of_tuples.entry(tuple).or_insert(array.value(*row)), array.value(*row), "row {row}");
        }
        let picked = positions.map_or_else(|| text.clone(), |positions| text.pick(positions));
        let characters = picked.characters().expect("every row has a shape");
        for (place, row) in rows.iter().enumerate().filter(|(_, row)| array.is_valid(**row)) {
            assert_eq!(characters[place], array.value(*row).chars().count() as u32, "row {row}");
        }
        if let Some((codes, firsts)) = picked.number() {
            let values = picked.to_array();
            let again: Vec<u32> = codes.iter().map(|code| firsts[*code as usize]).collect();
            assert_eq!(picked.take(&again), values);
            let distinct: std::collections::BTreeSet<_> = values.iter().collect();
            assert_eq!(firsts.len(), distinct.len());
        }
    }
}

fn spread(row: u64) -> u64 {
    row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

fn urls(count: u64) -> StringArray {
    let resources = ["users", "items", "orders", "payments", "feed", "photos"];
    let actions = ["get", "list", "export", "import"];
    (0..count)
        .map(|row| {
            let some = spread(row);
            (row % 97 != 5).then(|| {
                format!(
                    "https://www.example.com/api/v{}/{}/{}?item={}&page={}",
                    some % 2 + 1,
                    resources[some as usize / 2 % 6],
                    actions[some as usize / 16 % 4],
                    some / 64 % 5_000_000,
                    some % 17
                )
            })
        })
        .collect()
}

#[test]
fn urls_take_few_bytes_and_are_searched() {
    let array = urls(5_000);
    // 1 + 3 + 2 + 23 + 5 bits.
    let text = check(&array, 5_000 * 34 / 8 + 300);
    for needle in [
        "payments/export",
        "item=1",
        "=12",
        "/v1/",
        "https",
        "7",
        "",
        "page=16",
        "e",
        "&",
        "s/i",
        "/items/list?item=3",
        "nothing",
        array.value(7),
        array.value(4_999),
    ] {
        tests(needle).iter().for_each(|test| check_search(&text, &array, test));
    }
    let mut some: Vec<String> = (0..40).map(|row| array.value(row * 100 + 1).to_owned()).collect();
    some.push(format!("{}0", array.value(3)));
    some.sort_unstable();
    some.dedup();
    check_search(&text, &array, &TextTest::Among(some));
}

#[test]
fn addresses_take_four_bytes() {
    let ip = |row| u32::to_le_bytes(spread(row) as u32);
    let array: StringArray =
        (0..5_000).map(|row| Some(ip(row).map(|part| part.to_string()).join("."))).collect();
    let text = check(&array, 5_000 * 4 + 100);
    for needle in ["1.1", "10.", ".255", "25", "0.0.0.0", array.value(9)] {
        tests(needle).iter().for_each(|test| check_search(&text, &array, test));
    }
}

#[test]
fn log_lines_of_several_shapes_come_back() {
    let array: StringArray = (0..6_000_u64)
        .map(|row| {
            let some = spread(row);
            Some(match some % 50 {
                0 => format!("odd {} line {}", "-".repeat(row as usize % 90), spread(some)),
                1..=20 => format!(
                    "[{:02}:{:02}:07] took {} ms (worker {})",
                    some % 24,
                    some % 60,
                    some % 900,
                    some % 7
                ),
                21..=40 => {
                    format!("connection from 10.0.{}.{} closed: \"bye\"", some % 256, some / 256 % 256)
                }
                _ => format!("größe={} naïve", some % 70_000),
            })
        })
        .collect();
    let text = check(&array, 6_000 * 10);
    for needle in ["worker 3", "ms (w", "10.0.1", "größe=5", "ve", "line 1", "closed: \"", "[0", "e"] {
        tests(needle).iter().for_each(|test| check_search(&text, &array, test));
    }
}

#[test]
fn few_rare_values_come_back() {
    let array: StringArray = (0..3_000)
        .map(|row| {
            Some(if row % 1_000 == 7 { ["", "a", "é"][row / 1_000].into() } else { format!("{row}-{row}") })
        })
        .collect();
    let text = check(&array, 3_000 * 5);
    ["", "a", "é", "17-", "7-1007"]
        .iter()
        .flat_map(|needle| tests(needle))
        .for_each(|test| check_search(&text, &array, &test));
    // A shape that no row has, with a dictionary of no words.
    let directory = vec![2, 3, 0, 1, b'x', 0, 1, 0, 1, 0, 0, 0, 0, 0];
    let mut codes = vec![0; 1 + 1];
    codes.extend_from_slice(&[0; bits::PAD]);
    let buffers = [directory, Vec::new(), codes].map(Buffer::from_vec).to_vec();
    let parts = TextParts { form: Form::Template, parameter: 0, buffers };
    let template = Template::open(&parts, 3, Verified::No).expect("three times x");
    let positions = vec![1; 300];
    for test in tests("x") {
        let found = search::matches(&template, &test, search::Asked::At(&positions));
        assert_eq!(found.count_set_bits(), 300);
    }
}

#[test]
fn other_text_is_left_alone() {
    let refuse = |array: StringArray| assert!(encode(&array).is_none());
    refuse(StringArray::from(Vec::<&str>::new()));
    refuse(StringArray::from(vec![None::<&str>; 3]));
    refuse((0..2_000).map(|row| Some(format!("{:x}{:x}", spread(row), spread(row + 9_999)))).collect());
}

#[test]
fn damaged_bytes_are_refused_or_harmless() {
    let array = urls(600);
    let parts = encode(&array).expect("has few shapes");
    let mut refused = 0;
    for (index, buffer) in parts.buffers.iter().enumerate() {
        for at in 0..buffer.len() {
            let mut bytes = buffer.to_vec();
            bytes[at] ^= 1 << (at % 8);
            refused += usize::from(try_bytes(&parts, index, bytes, array.len()));
        }
        for length in 0..buffer.len() {
            assert!(try_bytes(&parts, index, buffer[..length].to_vec(), array.len()));
        }
    }
    assert!(refused > 20, "{refused}");
    let parameter = TextParts { parameter: 1, ..parts.clone() };
    let refused = Template::open(&parameter, 600, Verified::No).map(|_| ());
    assert_eq!(refused, Err("has the parameter 1 of templates".to_owned()));
    let few = TextParts { buffers: Vec::new(), ..parts };
    let refused = Template::open(&few, 600, Verified::No).map(|_| ());
    assert_eq!(refused, Err("has 0 buffers of templates, not 3".to_owned()));
}

/// Whether one changed buffer is refused; if not, rows are read and searched, with and without its being verified.
fn try_bytes(parts: &TextParts, index: usize, bytes: Vec<u8>, row_count: usize) -> bool {
    let mut parts = parts.clone();
    parts.buffers[index] = Buffer::from_vec(bytes);
    for verified in [Verified::Before, Verified::No] {
        let Ok(template) = Template::open(&parts, row_count, verified) else {
            if verified == Verified::No {
                return true;
            }
            continue;
        };
        let mut out = Vec::new();
        let mut reader = template.reader();
        for row in (0..row_count).step_by(50) {
            reader.append(row, &mut out);
        }
        out.clear();
        let mut ended = 0;
        template.append_all(Wanted::Range(0, row_count), |_| true, &mut out, |_| ended += 1);
        assert_eq!(ended, row_count);
        assert!(template.characters(None).is_some_and(|found| found.len() == row_count));
        assert!(template.tuples(None).is_none_or(|found| found.len() == row_count));
        for test in tests("s/export?item=4") {
            assert_eq!(search::matches(&template, &test, search::Asked::All).len(), row_count);
        }
        if verified == Verified::No {
            assert!(std::str::from_utf8(&out).is_ok());
        }
    }
    false
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,3}",
        "0[0-9]{1,2}",
        "[0-9]{17,22}",
        "[a-c]{1,3}",
        "[a-b]é?",
        Just("b2".to_owned()),
        Just(String::new()),
    ]
}

fn line() -> impl Strategy<Value = String> {
    let shape = prop_oneof![3 => Just("/1 2=3"), 2 => Just("1.2.\"3\""), 1 => Just("[1]-2é3"), 1 => Just("")];
    (shape, piece(), piece(), piece()).prop_map(|(shape, first, second, third)| {
        shape
            .replace('1', "\u{1}")
            .replace('2', "\u{2}")
            .replace('3', "\u{3}")
            .replace('\u{1}', &first)
            .replace('\u{2}', &second)
            .replace('\u{3}', &third)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_lines_come_back_and_are_searched(
        lines in proptest::collection::vec(proptest::option::weighted(0.9, line()), 1..60),
        more in 300_usize..700,
        one_in in prop_oneof![3 => Just(1), 1 => Just(4_usize)],
        needles in proptest::collection::vec("[0-9a-cé./= \"]{0,4}", 1..6),
        cuts in proptest::collection::vec((any::<usize>(), 0_usize..9, 1_usize..9), 1..6),
    ) {
        // The same lines over and over make few shapes, and enough rows for tables; few rows may have a value at all.
        let line = |row: usize| lines[row * 7 % lines.len()].as_deref().filter(|_| row.is_multiple_of(one_in));
        let array: StringArray = (0..more * one_in).map(line).collect();
        prop_assume!(array.null_count() < array.len());
        for level in [cut::Level::Fine, cut::Level::Coarse] {
            let Some(parts) = encode::encode_at(&array, level) else { continue };
            prop_assert_eq!(parts.form, Form::Template);
            let text = open(parts, &array);
            prop_assert_eq!(&text.to_array(), &array);
            for needle in &needles {
                tests(needle).iter().for_each(|test| check_search(&text, &array, test));
            }
            for (row, from, length) in &cuts {
                let Some(line) = &lines[row % lines.len()] else { continue };
                let part: String = line.chars().skip(*from).take(*length).collect();
                tests(&part).iter().for_each(|test| check_search(&text, &array, test));
                parted(&part).iter().chain(&parted(line)).for_each(|test| check_search(&text, &array, test));
            }
        }
    }
}

#[test]
fn values_are_told_apart_without_decoding() {
    let address = |row: u64| {
        let some = spread(row) % 700;
        (row % 11 != 3).then(|| format!("10.{}.{}.{}", some % 3, some % 5 * 40, some % 251))
    };
    let array: StringArray = (0..5_000).map(address).collect();
    let (codes, firsts) = check(&array, 40_000).number().expect("they repeat");
    assert_eq!(codes.len(), 5_000);
    assert!(firsts.len() < 702, "{} values", firsts.len());

    let distinct: StringArray =
        (0..5_000_u64).map(|row| Some(format!("item {} of page {}", spread(row), row))).collect();
    assert_eq!(check(&distinct, 60_000).number(), None);
}

#[test]
fn characters_are_no_bytes() {
    let words = ["größe", "höhe", "weight", "長さ"];
    let value = |row: u64| {
        format!("measured {} of part {:04} → {}", words[(spread(row) % 4) as usize], row % 300, row % 1_000)
    };
    let array: StringArray = (0..3_000_u64).map(|row| Some(value(row))).collect();
    check(&array, 60_000);
}

#[test]
fn few_rows_with_text_come_back_as_well() {
    let value = |row: u64| {
        format!("select id, total from items where tenant = {} and id = {}", row % 50, spread(row))
    };
    for share in [7, 300] {
        for first in [0, 3] {
            let array: StringArray =
                (0..6_000_u64).map(|row| (row % share == first).then(|| value(row))).collect();
            let text = check(&array, 120_000);
            assert_eq!(text.slice(1_000, 5_000), array.slice(1_000, 5_000));
            assert_eq!(text.slice(5_999, 1), array.slice(5_999, 1));
        }
    }
}

#[test]
fn text_of_every_kind_is_put_together() {
    // Long words, long literals, numbers of every length, and text without any shape.
    let value = |row: u64| match row % 5 {
        0 => format!("{} wrote {} bytes", "x".repeat((spread(row) % 3 * 700) as usize), row * row * row),
        1 => {
            format!("{:020}-{}", u64::MAX - row * 77_777, "a literal that is longer than a chunk ".repeat(3))
        }
        2 => format!("<{}>{}", spread(row) % 9, spread(row) % 2_000),
        3 => format!("{:x}", spread(row) as u128 * u128::from(spread(row + 1))),
        _ => String::new(),
    };
    let array: StringArray = (0..4_000_u64).map(|row| (row % 31 != 6).then(|| value(row))).collect();
    let text = check(&array, 1_000_000);
    for (start, count) in [(0, 70), (100, 2_000), (3_990, 10), (1_023, 1_026)] {
        assert_eq!(text.slice(start, count), array.slice(start, count));
    }
}
