//! Row blocks: what goes in comes out, and bytes that were not written are refused.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListBuilder, StringArray,
    StringBuilder, TimestampNanosecondArray, UInt32Array, new_null_array,
};
use arrow::datatypes::{Field, Float64Type, Schema};
use proptest::prelude::*;

use super::*;
use crate::cast::cast_column;

const ID: u64 = 77;

fn times(rows: usize) -> ArrayRef {
    let times: Vec<i64> = (0..rows as i64).map(|row| 1_000_000_000 * (row % 1000) + 5).collect();
    Arc::new(TimestampNanosecondArray::from(times).with_timezone("+00:00"))
}

fn ints(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn floats(values: Vec<Option<f64>>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

fn strings<S: AsRef<str>>(values: Vec<Option<S>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values))
}

type List = Option<Vec<Option<String>>>;

fn lists(values: Vec<List>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for value in values {
        builder.append_option(value);
    }
    Arc::new(builder.finish())
}

/// Rows with a `time` and some other columns.
fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    let rows = columns.first().map_or(1, |(_, array)| array.len());
    let mut fields = vec![Field::new("time", ColumnType::Time.arrow(), false)];
    let mut arrays = vec![times(rows)];
    for (name, array) in columns {
        fields.push(Field::new(*name, array.data_type().clone(), true));
        arrays.push(Arc::clone(array));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("columns of one length")
}

/// A copy whose bytes begin where an image must.
fn aligned(bytes: &[u8]) -> Buffer {
    let mut copy = arrow::buffer::MutableBuffer::new(bytes.len());
    copy.extend_from_slice(bytes);
    copy.into()
}

fn read(block: &RowBlock, name: &str) -> ArrayRef {
    let column_type = block.column_meta(name).expect("a column").column_type;
    let column = block.column(name).expect("a sound column").expect("a column");
    column.to_typed_array(column_type, block.rows())
}

/// Seals one column, opens a copy of the image, and expects the same values in the given encoding.
fn check(array: ArrayRef, encoding: &str) -> RowBlock {
    let sealed = RowBlock::seal(ID, &[batch(&[("x", Arc::clone(&array))])]).expect("rows to seal");
    let opened = RowBlock::open(aligned(sealed.image()), ID).expect("an image just written");
    // As text, because a NaN is not equal to itself.
    assert_eq!(format!("{:?}", opened.columns()), format!("{:?}", sealed.columns()));
    for block in [&sealed, &opened] {
        assert_eq!(&read(block, "x"), &array);
        assert_eq!(&read(block, "time"), &times(array.len()));
        for step in [1, 7, 100] {
            let rows: Vec<u32> = (0..array.len() as u32).skip(step / 2).step_by(step).collect();
            let column_type = block.column_meta("x").expect("a column").column_type;
            let column = block.column_at("x", &rows).expect("a sound column").expect("a column");
            let some =
                arrow::compute::take(&array, &UInt32Array::from(rows.clone()), None).expect("in range");
            assert_eq!(&column.to_typed_array(column_type, rows.len()), &some, "every {step}");
        }
        block.verify().expect("a sound block");
    }
    let meta = opened.column_meta("x").expect("a column");
    assert_eq!(meta.encoding(), encoding, "{array:?}");
    assert_eq!(meta.null_count, array.null_count() as u64);
    assert_eq!(opened.rows(), array.len());
    opened
}

#[test]
fn integers_come_back_from_the_narrowest_codes() {
    let bytes = |block: &RowBlock| block.column_meta("x").expect("a column").bytes;
    assert_eq!(bytes(&check(ints(vec![Some(5); 10]), "constant")), 0);
    assert_eq!(bytes(&check(ints(vec![None; 10]), "null")), 0);
    assert_eq!(bytes(&check(ints(vec![Some(-1), Some(1000), Some(-1 + 255 * 7)]), "packed")), 3);
    assert_eq!(bytes(&check(ints((0..256).map(|v| Some(v * 1_000_000)).collect()), "packed")), 256);
    // One byte for each, and one code that needs two set aside.
    assert_eq!(bytes(&check(ints((0..257).map(Some).collect()), "packed")), 264 + 10);
    assert_eq!(bytes(&check(ints(vec![Some(0), Some(1), Some(65_536)]), "packed")), 12);
    assert_eq!(bytes(&check(ints(vec![Some(i64::MIN), None, Some(i64::MAX), Some(0)]), "packed")), 33);
    assert_eq!(bytes(&check(ints(vec![Some(i64::MIN), Some(i64::MAX)]), "packed")), 16);
    assert_eq!(bytes(&check(ints(vec![Some(7), None]), "packed")), 3);
    check(ints((0..65_536).map(|v| Some(v * v)).collect()), "packed");
}

#[test]
fn the_directory_knows_the_values() {
    let meta = |array| check_meta(array);
    fn check_meta(array: ArrayRef) -> ColumnMeta {
        let block = RowBlock::seal(ID, &[batch(&[("x", array)])]).expect("rows to seal");
        block.column_meta("x").expect("a column").clone()
    }
    let some = meta(ints(vec![Some(3), Some(-4), None, Some(3)]));
    assert_eq!((some.int_range(), some.distinct_count, some.null_count), (Some((-4, 3)), 2, 1));
    assert!(!some.types.is_wide());
    assert!(meta(ints(vec![Some((1 << 53) + 1), Some(0)])).types.is_wide());
    assert!(!meta(ints(vec![Some(1 << 53), Some(-(1 << 53))])).types.is_wide());
    assert!(meta(ints(vec![Some(i64::MIN)])).types.is_wide());
    assert_eq!(meta(ints((0..3000).map(|v| Some(v * v * v * v)).collect())).distinct_count, 3000);

    let floats = meta(floats(vec![Some(2.5), Some(-0.0), None, Some(0.0)]));
    assert_eq!(floats.distinct_count, 3);
    let Some(ValueRange::Float(first, last)) = floats.range else { panic!("{:?}", floats.range) };
    assert_eq!((first.to_bits(), last), ((-0.0_f64).to_bits(), 2.5));

    let texts = meta(strings(vec![Some("b"), None, Some("a text of more than sixteen bytes"), Some("b")]));
    let expect = ValueRange::Text(b"a text of more t".as_slice().into(), b"b".as_slice().into());
    assert_eq!((texts.range, texts.distinct_count), (Some(expect), 2));
    assert_eq!(meta(strings::<&str>(vec![None])).range, None);

    let block = RowBlock::seal(ID, &[batch(&[("x", ints(vec![Some(1); 1500]))])]).expect("rows to seal");
    assert_eq!(block.time_range(), (5, 999_000_000_005));
    assert_eq!((block.id(), block.rows(), block.columns().len()), (ID, 1500, 2));
    assert!(block.column_meta("y").is_none() && block.column("y").expect("no such column").is_none());
    assert_eq!(
        format!("{block:?}"),
        format!("RowBlock {{ id: 77, rows: 1500, columns: 2, bytes: {} }}", block.image().len())
    );
}

#[test]
fn floats_come_back_to_the_last_bit() {
    let check_bits = |values: Vec<Option<f64>>, encoding| {
        let block = check(floats(values.clone()), encoding);
        let array = read(&block, "x");
        let array = array.as_primitive::<Float64Type>();
        for (row, value) in values.iter().enumerate() {
            let found = array.is_valid(row).then(|| array.value(row).to_bits());
            assert_eq!(found, value.map(f64::to_bits), "row {row}");
        }
    };
    let odd_nan = f64::from_bits(0xfff8_0000_0000_1234);
    check_bits(vec![Some(f64::NAN), Some(odd_nan), Some(0.0), Some(-0.0), None], "plain");
    check_bits(vec![Some(odd_nan); 3], "constant");
    check_bits(vec![Some(-0.0); 3], "constant");
    check_bits(vec![Some(0.0), Some(-0.0)], "plain");
    check_bits(vec![Some(0.1), Some(12.25), None, Some(-3.0)], "decimal");
    check_bits((0..1000).map(|v| Some(f64::from(v) / 100.0)).collect(), "decimal");
    check_bits((1..1000).map(|v| Some(1.0 / f64::from(v))).collect(), "plain");
    check_bits(vec![Some(f64::MAX), Some(f64::MIN_POSITIVE), Some(f64::INFINITY)], "plain");
    check_bits(vec![None, None], "null");
    // Exact with one digit and with nine, but not both under the same power of ten.
    check_bits(vec![Some(4_503_599_627_370_497.5), Some(0.000_000_001)], "plain");
}

#[test]
fn bools_come_back() {
    let bools = |values: Vec<Option<bool>>| Arc::new(BooleanArray::from(values)) as ArrayRef;
    check(bools(vec![Some(true); 9]), "constant");
    check(bools(vec![Some(false); 9]), "constant");
    check(bools(vec![Some(true), None]), "bitmap");
    check(bools((0..1001).map(|v| (v % 5 != 0).then_some(v % 3 == 0)).collect()), "bitmap");
    check(bools(vec![None]), "null");
    // A slice whose bits begin inside a byte.
    check(bools((0..100).map(|v| (v % 7 != 0).then_some(v % 3 == 0)).collect()).slice(13, 50), "bitmap");
}

#[test]
fn strings_come_back() {
    check(strings(vec![Some("a"); 4]), "constant");
    check(strings(vec![Some("")]), "constant");
    check(strings::<&str>(vec![None; 3]), "null");
    check(strings(vec![Some("a"), None, Some(""), Some("a")]), "dictionary");
    check(strings((0..1000).map(|v| Some(format!("{}", v % 300))).collect()), "dictionary");
    check(
        strings((0..65_536).map(|v| (v % 9 > 0).then(|| format!("é{}", v % 20_000))).collect()),
        "template",
    );
    check(strings((0..1000).map(|v| Some(format!("{v}"))).collect()), "template");
    check(
        strings((0..1000).map(|v| (v % 2 == 0).then(|| format!("{v}"))).collect()).slice(3, 400),
        "template",
    );
    let letters = |v: u64| {
        let noise = v.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..8).map(|at| char::from(b'a' + (noise >> (at * 8)) as u8 % 26)).collect::<String>()
    };
    check(strings((0..1000).map(|v| Some(letters(v))).collect()), "plain");
    check(strings((0..1000).map(|v| (v % 2 == 0).then(|| letters(v))).collect()).slice(3, 400), "plain");
}

#[test]
fn a_dictionary_is_sorted_and_null_is_past_it() {
    let block = check(strings(vec![Some("b"), None, Some("a"), Some("b"), Some("a")]), "dictionary");
    let Some(Column::Dictionary { values, codes, has_nulls }) = block.column("x").expect("sound") else {
        panic!("no dictionary")
    };
    assert_eq!(&values, &strings(vec![Some("a"), Some("b")]));
    assert_eq!((0..5).map(|row| codes.get(row)).collect::<Vec<_>>(), vec![1, 2, 0, 1, 0]);
    assert!(has_nulls);
}

#[test]
fn a_dictionary_is_as_wide_as_null_needs() {
    let texts = |count: usize| (0..2 * count).map(move |v| Some(format!("{:03}", v % count)));
    let width = |values: Vec<Option<String>>| match check(strings(values), "dictionary").column("x") {
        Ok(Some(Column::Dictionary { codes, .. })) => codes.width(),
        other => panic!("{other:?}"),
    };
    assert_eq!(width(texts(256).collect()), 1);
    assert_eq!(width(texts(256).chain([None]).collect()), 2);
    assert_eq!(width(texts(257).collect()), 2);
}

#[test]
fn lists_come_back() {
    let list = |items: &[&str]| Some(items.iter().map(|item| Some((*item).to_owned())).collect::<Vec<_>>());
    check(lists(vec![list(&["a", "b"]), None, list(&[]), list(&["b", ""])]), "dictionary");
    check(lists(vec![Some(vec![None, Some("x".to_owned()), None])]), "dictionary");
    check(lists(vec![list(&[]), list(&[])]), "dictionary");
    check(lists(vec![list(&[]), None]), "dictionary");
    check(lists(vec![Some(vec![None]), None]), "dictionary");
    check(lists(vec![None, None]), "null");
    check(lists((0..500).map(|v| list(&vec!["item"; v % 300])).collect()), "dictionary");
    check(lists((0..500).map(|v| list(&vec!["item"; v % 7])).collect()).slice(11, 100), "dictionary");
}

#[test]
fn every_size_of_a_block_is_sealed() {
    check(ints(vec![Some(1)]), "constant");
    for rows in [2, 7, 8, 9, 63, 64, 65, 65_535, 65_536] {
        check(ints((0..rows).map(|v| (v % 3 != 1).then_some(v)).collect()), "packed");
    }
}

#[test]
fn batches_of_different_columns_and_types_become_one_block() {
    let rows = [
        batch(&[("a", ints(vec![Some(1), None])), ("b", strings(vec![Some("x"), None]))]),
        batch(&[]),
        batch(&[("c", floats(vec![Some(1.5)])), ("a", floats(vec![Some(2.5)]))]).slice(0, 0),
        batch(&[("a", Arc::new(BooleanArray::from(vec![true])))]),
        batch(&[("b", lists(vec![Some(vec![Some("y".to_owned())])]))]),
    ];
    let block = RowBlock::seal(ID, &rows).expect("rows to seal");
    assert_eq!(block.columns().iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "time"]);
    assert_eq!(&read(&block, "a"), &floats(vec![Some(1.0), None, None, Some(1.0), None]));
    let one = |text: &str| Some(vec![Some(text.to_owned())]);
    assert_eq!(&read(&block, "b"), &lists(vec![one("x"), None, None, None, one("y")]));
    assert_eq!(&read(&block, "c"), &new_null_array(&ColumnType::Float.arrow(), 5));
}

#[test]
fn wide_integers_meet_floats_as_strings() {
    let wide = (1 << 53) + 1;
    let rows = [batch(&[("a", ints(vec![Some(wide)]))]), batch(&[("a", floats(vec![Some(0.5)]))])];
    let block = RowBlock::seal(ID, &rows).expect("rows to seal");
    assert_eq!(&read(&block, "a"), &strings(vec![Some("9007199254740993"), Some("0.5")]));
}

#[test]
fn rows_that_cannot_be_sealed_are_named() {
    let check = |rows: &[RecordBatch], expect: &str| {
        let error = RowBlock::seal(ID, rows).expect_err("rows that cannot be sealed");
        assert_eq!(error.to_string(), format!("cannot seal row block 77: {expect}"));
    };
    let only = |name: &str, array: ArrayRef| {
        RecordBatch::try_from_iter_with_nullable([(name, array, true)]).expect("one")
    };
    check(&[], "0 rows are no run of 1 to 65536 rows");
    check(&[batch(&[("a", ints(vec![Some(1); 65_537]))])], "65537 rows are no run of 1 to 65536 rows");
    check(&[only("a", ints(vec![Some(1)]))], "column time is absent");
    check(&[only("time", ints(vec![Some(1)]))], "column time has the Arrow type Int64");
    check(&[only("time", new_null_array(&ColumnType::Time.arrow(), 2))], "column time is NULL in 2 rows");
    let one = || ints(vec![Some(1)]);
    check(&[batch(&[("a", one()), ("a", one())])], "column a is twice in one row batch");
    check(&[batch(&[("", one())])], "name of a column has 0 bytes, it must have 1 to 256");
    check(&[batch(&[(&"x".repeat(257), one())])], "name of a column has 257 bytes, it must have 1 to 256");
    let small: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1]));
    check(&[batch(&[("a", small)])], "column a: cannot read a column of Arrow type Int32");
}

/// A block with every encoding.
fn sample() -> RowBlock {
    let lists = vec![Some(vec![Some("p".to_owned()), None]), None, Some(vec![Some("q".to_owned())])];
    let rows = batch(&[
        ("all_null", ints(vec![None; 3])),
        ("bits", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("constant", strings(vec![Some("same"); 3])),
        ("decimal", floats(vec![Some(0.5), None, Some(0.25)])),
        ("dictionary", strings(vec![Some("a"), None, Some("b")])),
        ("floats", floats(vec![Some(1.0 / 3.0), Some(2.0 / 3.0), Some(f64::NAN)])),
        ("few_floats", floats(vec![Some(1.0 / 3.0), None, Some(f64::NAN)])),
        ("hex", strings(vec![Some("0aff"), Some("77b0"), Some("10b2")])),
        ("lists", self::lists(lists)),
        ("packed", ints(vec![Some(1), None, Some(300)])),
        ("text", strings(vec![Some("one"), Some("two"), Some("three")])),
    ]);
    RowBlock::seal(ID, &[rows]).expect("rows to seal")
}

#[test]
fn the_sample_has_every_encoding() {
    let block = sample();
    let encodings: Vec<_> = block.columns().iter().map(|column| column.encoding()).collect();
    assert_eq!(
        encodings,
        [
            "null",
            "bitmap",
            "constant",
            "decimal",
            "dictionary",
            "dictionary",
            "plain",
            "hex",
            "dictionary",
            "packed",
            "plain",
            "packed"
        ]
    );
}

/// The bytes of the sample that hold header, directory and names, and the places of its buffers.
fn head_bytes(block: &RowBlock) -> usize {
    block.columns()[0].stored.buffers[0].offset as usize
}

#[test]
fn a_flipped_bit_in_header_or_directory_is_refused() {
    let block = sample();
    let mut bytes = block.image().to_vec();
    let head = head_bytes(&block);
    let checked = 128 + u64::from_le_bytes(bytes[64..72].try_into().expect("8 bytes")) as usize;
    for bit in 0..head * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let opened = RowBlock::open(aligned(&bytes), ID);
        // Behind the directory are zeros that nobody reads.
        assert_eq!(opened.is_err(), bit / 8 < checked, "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn a_flipped_bit_in_a_buffer_is_found_when_it_is_touched() {
    let block = sample();
    let mut bytes = block.image().to_vec();
    for column in block.columns() {
        for (index, place) in column.stored.buffers.iter().enumerate() {
            for bit in place.offset as usize * 8..(place.offset + place.len) as usize * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                let opened = RowBlock::open(aligned(&bytes), ID).expect("buffers are not read");
                let what = format!("has a buffer {index} whose checksum does not match");
                let expect = BlockError::Column { block: ID, column: column.name.clone(), what };
                assert_eq!(opened.column(&column.name).expect_err("touched"), expect);
                assert_eq!(opened.verify().expect_err("verified"), expect);
                let others = block.columns().iter().filter(|other| other.name != column.name);
                for other in others {
                    assert!(opened.column(&other.name).is_ok(), "{} for {}", other.name, column.name);
                }
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

#[test]
fn values_are_checked_even_under_a_right_checksum() {
    let block = sample();
    // Anything may be in a buffer whose checksum was made to match: an error or a column, never a panic.
    for column in block.columns() {
        for (index, place) in column.stored.buffers.iter().enumerate() {
            for byte in [0_u8, 1, 0x7f, 0x80, 0xff] {
                for at in place.offset..place.offset + place.len {
                    let mut bytes = block.image().to_vec();
                    bytes[at as usize] = byte;
                    let mut forged = RowBlock::open(aligned(&bytes), ID).expect("buffers are not read");
                    let at_column = forged.index_of(&column.name).expect("a column");
                    let place = &mut forged.columns[at_column].stored.buffers[index];
                    let (start, end) = (place.offset as usize, (place.offset + place.len) as usize);
                    place.checksum = layout::checksum(ID, &bytes[start..end]);
                    if let Ok(Some(found)) = forged.column(&column.name) {
                        assert_eq!(found.to_array(3).len(), 3);
                        assert_eq!(found.take(&[2, 0]).len(), 2);
                    }
                }
            }
        }
    }
}

/// Columns of enough rows for codes to be packed, framed and patched, and for dictionaries and filters to pay.
fn large_columns() -> Vec<(&'static str, &'static str, ArrayRef)> {
    const ROWS: i64 = 3_000;
    let noise = |row: i64| (row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let some = |row: i64| row % 7 != 3;
    let far = [200, 404, 503, 1_000_000_007];
    let of = |value: &dyn Fn(i64) -> i64| ints((0..ROWS).map(|row| Some(value(row))).collect());
    let lists = (0..ROWS).map(|row| {
        let items = (0..row % 4).map(|item| (item != 2).then(|| format!("t{}", noise(row + item) % 20)));
        some(row).then(|| items.collect())
    });
    vec![
        (
            "few_floats",
            "dictionary",
            floats((0..ROWS).map(|row| some(row).then(|| 1.0 / (2 + row % 5) as f64)).collect()),
        ),
        (
            "few_ints",
            "dictionary",
            ints((0..ROWS).map(|row| some(row).then(|| far[row as usize % 4])).collect()),
        ),
        ("framed", "packed", of(&|row| row / 1_024 * 1_000_000 + (noise(row) % 900) as i64)),
        ("hex", "hex", strings((0..ROWS).map(|row| Some(format!("{:016x}", noise(row)))).collect())),
        ("lists", "dictionary", self::lists(lists.collect())),
        (
            "packed",
            "packed",
            ints((0..ROWS).map(|row| some(row).then(|| (noise(row) % 5_000) as i64)).collect()),
        ),
        (
            "patched",
            "packed",
            of(&|row| if row % 500 == 9 { i64::MAX / 3 } else { (noise(row) % 8_000) as i64 }),
        ),
        ("scaled", "decimal", floats((0..ROWS).map(|row| Some((noise(row) % 5_000) as f64 / 8.0)).collect())),
    ]
}

#[test]
fn large_columns_come_back() {
    for (name, encoding, array) in large_columns() {
        let block = check(Arc::clone(&array), encoding);
        let column = block.column("x").expect("a sound column").expect("a column");
        let positions: Vec<u32> = (0..3_000).rev().step_by(37).collect();
        let expect =
            arrow::compute::take(&array, &UInt32Array::from(positions.clone()), None).expect("in range");
        let column_type = block.column_meta("x").expect("a column").column_type;
        assert_eq!(&column.take_typed(column_type, &positions), &expect, "{name}");
        let packing = block.column_meta("x").expect("a column").stored.packing;
        assert_eq!((packing.framed, packing.patches > 0), (name == "framed", name == "patched"), "{name}");
    }
}

#[test]
fn every_preference_holds_every_value() {
    use Preference::{Best, Dictionary, Packed, Plain, Text};
    let mut seen = std::collections::BTreeSet::new();
    let mut columns = large_columns();
    let urls = (0..3_000).map(|row| (row % 5 > 0).then(|| format!("/api/v1/items/{row}?page={}", row % 9)));
    columns.push(("urls", "template", strings(urls.collect())));
    columns.push((
        "extremes",
        "packed",
        ints((0..3_000).map(|row| Some(if row % 2 == 0 { i64::MIN } else { i64::MAX - row })).collect()),
    ));
    for (name, _, array) in &columns {
        for preference in [Best, Plain, Packed, Dictionary, Text] {
            let rows = batch(&[("x", Arc::clone(array))]);
            let sealed = RowBlock::seal_with(ID, &[rows], preference).expect("rows to seal");
            let block = RowBlock::open(aligned(sealed.image()), ID).expect("an image just written");
            assert_eq!(&read(&block, "x"), array, "{name} {preference:?}");
            block.verify().expect("a sound block");
            let meta = block.column_meta("x").expect("a column");
            let packing = meta.stored.packing;
            seen.insert(format!("{:?}", meta.stored.encoding));
            seen.insert(format!("framed {}", packing.framed));
            seen.insert(format!("patched {}", packing.patches > 0));
        }
    }
    let expect = [
        "Decimal",
        "Dictionary",
        "FloatDictionary",
        "Floats",
        "Hex",
        "IntDictionary",
        "Lists",
        "Packed",
        "Template",
        "Text",
        "framed false",
        "framed true",
        "patched false",
        "patched true",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), expect);
}

#[test]
fn a_filter_tells_which_texts_are_not_there() {
    let columns = large_columns();
    let block = RowBlock::seal(ID, &[batch(&[("hex", Arc::clone(&columns[3].2))])]).expect("rows to seal");
    let mut bytes = block.image().to_vec();
    let value = columns[3].2.as_string::<i32>().value(7).to_owned();
    let place = block.column_meta("hex").expect("a column").stored.buffers[decode::TEXT_FILTER];
    assert!(place.len > 0);
    let opened = RowBlock::open(aligned(&bytes), ID).expect("an image just written");
    assert!(opened.may_hold_text("hex", &value, false) && !opened.may_hold_text("gone", &value, false));
    let admitted = (0..1_000).filter(|n| opened.may_hold_text("hex", &format!("000{n:013x}"), false)).count();
    assert!(admitted < 100, "{admitted} of 1000");
    // A filter that was damaged admits everything.
    bytes[place.offset as usize..(place.offset + place.len) as usize].fill(0);
    let damaged = RowBlock::open(aligned(&bytes), ID).expect("buffers are not read");
    assert!(damaged.may_hold_text("hex", &value, false) && damaged.column("hex").is_err());
}

#[test]
fn the_range_of_a_text_column_tells_which_prefixes_are_not_there() {
    let texts: StringArray = (0..3_000).map(|row| Some(format!("/shop/items/{row:08}/of-many"))).collect();
    let block = RowBlock::seal(ID, &[batch(&[("path", Arc::new(texts))])]).expect("rows to seal");
    for (prefix, is_there) in [
        ("", true),
        ("/", true),
        ("/shop/items/0", true),
        ("/shop/items/00000000/of", true),
        ("/shop/items/00009", true),
        ("/shop/items/1", false),
        ("/shop/items/ ", false),
        ("/shop/j", false),
        ("/shop/h", false),
        ("0", false),
    ] {
        assert_eq!(block.may_hold_text("path", prefix, true), is_there, "{prefix}");
    }
    // No row is the prefix itself.
    assert!(!block.may_hold_text("path", "/shop/items/", false) && !block.may_hold_text("path", "", false));
}

#[test]
fn ids_of_a_few_rows_here_and_there_have_a_filter_of_the_ids() {
    let id = |n: usize| format!("{:016x}", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let seal = |id_of: &dyn Fn(usize) -> usize| {
        let ids: StringArray = (0..20_000).map(|row| Some(id(id_of(row)))).collect();
        let block = RowBlock::seal(ID, &[batch(&[("id", Arc::new(ids))])]).expect("rows to seal");
        RowBlock::open(aligned(block.image()), ID).expect("an image just written")
    };
    let encoding = |block: &RowBlock| block.column_meta("id").expect("a column").encoding().to_owned();
    for rows_each in [1, 5] {
        let ids = 20_000 / rows_each;
        let block = seal(&|row| row % ids);
        assert_eq!(encoding(&block), "hex", "{rows_each} rows each");
        assert!((0..ids).all(|n| block.may_hold_text("id", &id(n), false)));
        let admitted = (0..1_000).filter(|n| block.may_hold_text("id", &id(50_000 + n), false)).count();
        assert!(admitted < 100, "{admitted} of 1000");
        let place = block.column_meta("id").expect("a column").stored.buffers[decode::TEXT_FILTER];
        // A byte for each id.
        let bytes = place.len as usize;
        assert!((ids * 3 / 4..ids * 5 / 4 + 64).contains(&bytes), "{bytes} bytes for {ids} ids");
    }
    // Ids whose rows are near one another, as the spans of a trace are, are a dictionary, which needs no filter.
    for rows_each in [5, 20, 2_000] {
        let ids = 20_000 / rows_each;
        let block = seal(&|row| row / (rows_each * 4) * 4 + row % 4);
        assert_eq!(encoding(&block), "dictionary", "{rows_each} rows each");
        assert!(block.may_hold_text("id", &id(50_000), false), "the column was not read");
        block.column("id").expect("a sound column");
        assert!((0..ids).all(|n| block.may_hold_text("id", &id(n), false)));
        assert!((0..1_000).all(|n| !block.may_hold_text("id", &id(50_000 + n), false)));
        assert!(block.may_hold_text("id", &id(1)[..12], true) && !block.may_hold_text("id", "g", true));
    }
}

#[test]
fn large_columns_survive_any_bytes() {
    let columns = large_columns();
    let columns: Vec<(&str, ArrayRef)> =
        columns.iter().map(|(name, _, array)| (*name, Arc::clone(array))).collect();
    let block = RowBlock::seal(ID, &[batch(&columns)]).expect("rows to seal");
    let mut bytes = block.image().to_vec();
    for column in block.columns() {
        for (index, place) in column.stored.buffers.iter().enumerate().filter(|(_, place)| place.len > 0) {
            for turn in 0..40_u64 {
                let at = (place.offset + turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % place.len) as usize;
                let kept = bytes[at];
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff][turn as usize % 5];
                let mut forged = RowBlock::open(aligned(&bytes), ID).expect("buffers are not read");
                let at_column = forged.index_of(&column.name).expect("a column");
                let place = &mut forged.columns[at_column].stored.buffers[index];
                let (start, end) = (place.offset as usize, (place.offset + place.len) as usize);
                place.checksum = layout::checksum(ID, &bytes[start..end]);
                if let Ok(Some(found)) = forged.column(&column.name) {
                    assert_eq!(found.to_array(3_000).len(), 3_000);
                    assert_eq!(found.take(&[2_999, 0]).len(), 2);
                }
                bytes[at] = kept;
            }
        }
    }
}

#[test]
fn forged_values_are_named() {
    let check = |name: &str, index: usize, forged: &[u8], expect: &str| {
        let block = sample();
        let mut bytes = block.image().to_vec();
        let place = block.column_meta(name).expect("a column").stored.buffers[index];
        bytes[place.offset as usize..][..forged.len()].copy_from_slice(forged);
        let mut opened = RowBlock::open(aligned(&bytes), ID).expect("buffers are not read");
        let column = opened.index_of(name).expect("a column");
        opened.columns[column].stored.buffers[index].checksum =
            layout::checksum(ID, &bytes[place.offset as usize..][..place.len as usize]);
        let error = opened.column(name).expect_err("a forged column");
        assert_eq!(error.to_string(), format!("row block 77: column {name} {expect}"));
    };
    check("dictionary", 0, &[3], "has the code 3 in a dictionary of 2 values");
    check("dictionary", 0, &[2], "has 2 rows without value, its entry says 1");
    check("dictionary", 2, b"ba", "has a dictionary that is not in order");
    check("dictionary", 1, &[1], "has offsets that do not ascend from the start to the end of its text");
    check(
        "text",
        0,
        &[0, 0, 0, 0, 9],
        "has offsets that do not ascend from the start to the end of its text",
    );
    check("packed", 1, &[0b111], "has 0 rows without value, its entry says 1");
    check("lists", 0, &[3], "has lists of 4 items, but 3 items");
}

#[test]
fn integers_beyond_64_bits_are_refused() {
    let block = RowBlock::seal(ID, &[batch(&[("x", ints(vec![Some(i64::MAX), Some(i64::MAX - 9)]))])]);
    let block = block.expect("rows to seal");
    // What this process sealed is not checked again, so it has to come from elsewhere.
    let mut block = RowBlock::open(aligned(block.image()), ID).expect("an image just written");
    let column = block.index_of("x").expect("a column");
    block.columns[column].stored.base += 1;
    assert_eq!(
        block.column("x").expect_err("a forged base").to_string(),
        "row block 77: column x holds the integer 9223372036854775808, which has more than 64 bits"
    );
}

#[test]
fn a_cut_image_is_refused() {
    let block = sample();
    let bytes = block.image().as_slice();
    for len in 0..bytes.len() {
        assert!(RowBlock::open(aligned(&bytes[..len]), ID).is_err(), "{len} bytes");
    }
    let longer = [bytes, &[0; 64]].concat();
    let expect = format!("row block 77: image has {} bytes, its header says {}", longer.len(), bytes.len());
    assert_eq!(RowBlock::open(aligned(&longer), ID).expect_err("a longer image").to_string(), expect);
}

#[test]
fn a_block_in_the_wrong_place_is_refused() {
    let block = sample();
    let error = RowBlock::open(block.image().clone(), 78).expect_err("another block");
    assert_eq!(error, BlockError::WrongBlock { expected: 78, found: ID });
    assert_eq!(error.to_string(), "row block 77 is in the place of row block 78");
    // Also when somebody makes the ids agree.
    let mut bytes = block.image().to_vec();
    bytes[16..24].copy_from_slice(&78_u64.to_le_bytes());
    let error = RowBlock::open(aligned(&bytes), 78).expect_err("another block");
    assert_eq!(error.to_string(), "row block 78: checksum of header and directory does not match");
}

#[test]
fn an_image_of_another_version_or_address_is_refused() {
    let block = sample();
    let mut bytes = block.image().to_vec();
    bytes[8] = 9;
    let error = RowBlock::open(aligned(&bytes), ID).expect_err("another version");
    assert_eq!(error.to_string(), "row block 77: layout version 9, this build reads 2");
    let shifted = aligned(&[&[0; 8], block.image().as_slice()].concat()).slice(8);
    let error = RowBlock::open(shifted, ID).expect_err("another address");
    assert_eq!(error.to_string(), "row block 77: image does not begin at a multiple of 64 bytes in memory");
}

/// One column of rows: a type and a seed for each value.
fn any_array(rows: usize) -> impl Strategy<Value = ArrayRef> {
    let rows = rows..=rows;
    let option = |value| prop::option::weighted(0.8, value);
    let small = prop_oneof![-3..3_i64, any::<i64>(), Just(i64::MIN), Just(i64::MAX)];
    let float = prop_oneof![any::<f64>(), (-900..900_i32).prop_map(|v| f64::from(v) / 100.0), Just(-0.0)];
    let text = prop_oneof!["[ab]{0,2}", "\\PC{0,8}"];
    prop_oneof![
        prop::collection::vec(option(any::<bool>().boxed()), rows.clone())
            .prop_map(|values| Arc::new(BooleanArray::from(values)) as ArrayRef),
        prop::collection::vec(prop::option::weighted(0.8, small), rows.clone()).prop_map(ints),
        prop::collection::vec(prop::option::weighted(0.8, -5_000..5_000_i64), rows.clone()).prop_map(ints),
        prop::collection::vec(prop::option::weighted(0.8, float), rows.clone()).prop_map(floats),
        prop::collection::vec(prop::option::weighted(0.8, text.clone()), rows.clone()).prop_map(strings),
        prop::collection::vec(
            prop::option::weighted(0.8, prop::collection::vec(prop::option::weighted(0.9, text), 0..4)),
            rows
        )
        .prop_map(lists),
    ]
}

fn any_rows() -> impl Strategy<Value = Vec<Vec<(&'static str, ArrayRef)>>> {
    let batch = (1..40_usize).prop_flat_map(|rows| {
        let column =
            |name: &'static str| prop::option::of(any_array(rows).prop_map(move |array| (name, array)));
        (column("a"), column("b"), column("c"), any_array(rows).prop_map(|array| ("d", array)))
            .prop_map(|(a, b, c, d)| [a, b, c, Some(d)].into_iter().flatten().collect())
    });
    prop::collection::vec(batch, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_rows_come_back(rows in any_rows()) {
        let batches: Vec<RecordBatch> = rows.iter().map(|columns| batch(columns)).collect();
        let sealed = RowBlock::seal(ID, &batches).expect("rows to seal");
        let opened = RowBlock::open(aligned(sealed.image()), ID).expect("an image just written");
        opened.verify().expect("a sound block");
        for name in ["a", "b", "c", "d"] {
            let Some(meta) = opened.column_meta(name) else {
                prop_assert!(batches.iter().all(|batch| batch.column_by_name(name).is_none()));
                continue;
            };
            let arrays: Vec<ArrayRef> = batches.iter().map(|batch| match batch.column_by_name(name) {
                Some(array) => cast_column(array, meta.column_type).expect("a cast up the ladder"),
                None => new_null_array(&meta.column_type.arrow(), batch.num_rows()),
            }).collect();
            let arrays: Vec<&dyn Array> = arrays.iter().map(|array| array.as_ref()).collect();
            let expect = arrow::compute::concat(&arrays).expect("arrays of one type");
            for block in [&sealed, &opened] {
                prop_assert_eq!(&read(block, name), &expect);
                let positions: Vec<u32> = (0..expect.len() as u32).step_by(3).collect();
                let some = arrow::compute::take(&expect, &UInt32Array::from(positions.clone()), None).expect("in range");
                let column = block.column(name).expect("sound").expect("a column");
                prop_assert_eq!(&column.take_typed(meta.column_type, &positions), &some);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(seed in prop::collection::vec((any::<u16>(), any::<u8>()), 1..12)) {
        let block = sample();
        let mut bytes = block.image().to_vec();
        for (at, byte) in seed {
            let at = usize::from(at) % head_bytes(&block);
            bytes[at] = byte;
        }
        // With a right checksum, so that the checks behind it are reached.
        let directory = u64::from_le_bytes(bytes[64..72].try_into().expect("8 bytes"));
        let id = u64::from_le_bytes(bytes[16..24].try_into().expect("8 bytes"));
        if let Some(end) = (directory as usize).checked_add(128).filter(|end| *end <= bytes.len()) {
            let sum = layout::head_checksum(id, &bytes[..120], &bytes[128..end]);
            bytes[120..128].copy_from_slice(&sum.to_le_bytes());
        }
        if let Ok(opened) = RowBlock::open(aligned(&bytes), id) {
            let rows = opened.rows();
            for column in opened.columns() {
                if let Ok(Some(found)) = opened.column(&column.name) {
                    prop_assert_eq!(found.to_array(rows).len(), rows);
                }
            }
        }
    }
}
