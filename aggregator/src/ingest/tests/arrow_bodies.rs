//! Arrow streams: every type, hostile messages, and the rows that are turned away.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::*;
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};

use super::*;

fn stream_with(batches: &[RecordBatch], options: IpcWriteOptions) -> Vec<u8> {
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batches[0].schema(), options).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    stream_with(batches, IpcWriteOptions::default())
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .unwrap()
}

fn check_columns(columns: Vec<(&str, ArrayRef)>, rows: &[&str], rejections: &[&str]) {
    let body = stream(&[batch(columns)]);
    check_case(&Case::new(BodyFormat::Arrow, &body), rows, rejections);
    check_case(&Case::new(None, &body), rows, rejections);
}

/// One column `a` of two values.
fn check_type(array: impl Array + 'static, first: &str, second: &str) {
    let shown = |value: &str| if value.is_empty() { String::new() } else { format!("a={value}") };
    check_columns(vec![("a", Arc::new(array))], &[&shown(first), &shown(second)], &[]);
}

#[test]
fn plain_types() {
    check_type(BooleanArray::from(vec![Some(true), None]), "true", "");
    check_type(Int8Array::from(vec![Some(-1), None]), "-1", "");
    check_type(UInt32Array::from(vec![1, u32::MAX]), "1", "4294967295");
    check_type(UInt64Array::from(vec![1, 2]), "1", "2");
    check_type(UInt64Array::from(vec![1, 1 << 63]), "1.0", "9.223372036854776e18");
    check_type(UInt64Array::from(vec![1, u64::MAX]), "\"1\"", "\"18446744073709551615\"");
    check_type(Float32Array::from(vec![0.5, f32::INFINITY]), "0.5", "inf");
    check_type(Float64Array::from(vec![Some(f64::NAN), None]), "NaN", "");
    check_type(LargeStringArray::from(vec!["x", ""]), "\"x\"", "\"\"");
    check_type(
        StringViewArray::from(vec![Some("a text longer than twelve bytes"), None]),
        "\"a text longer than twelve bytes\"",
        "",
    );
    check_type(BinaryArray::from(vec![b"x".as_slice(), b"\xff\x0a"]), "\"x\"", "\"ff0a\"");
    check_type(BinaryViewArray::from(vec![b"x".as_slice(), b"\xff"]), "\"x\"", "\"ff\"");
    check_type(
        FixedSizeBinaryArray::try_from(vec![b"\xff\x00".as_slice(), b"ok"]).unwrap(),
        "\"ff00\"",
        "\"ok\"",
    );
    check_type(NullArray::new(2), "", "");
    check_type(DictionaryArray::<Int8Type>::from_iter([Some("x"), None]), "\"x\"", "");
    check_type(
        DictionaryArray::<UInt16Type>::new(vec![1_u16, 0].into(), Arc::new(Int32Array::from(vec![7, 8]))),
        "8",
        "7",
    );
}

#[test]
fn decimals_and_times() {
    let decimal = |values: Vec<i128>, precision, scale| {
        Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap()
    };
    check_type(decimal(vec![1234, -50], 38, 2), "12.34", "-0.5");
    check_type(decimal(vec![1234, 1 << 60], 38, 2), "\"12.34\"", "\"11529215046068469.76\"");
    check_type(decimal(vec![1234, 1 << 60], 38, 0), "1234", "1152921504606846976");
    check_type(decimal(vec![1, 10_i128.pow(20)], 38, 0), "\"1\"", "\"100000000000000000000\"");
    check_type(Date32Array::from(vec![Some(20_000), None]), "\"2024-10-04\"", "");
    check_type(Date64Array::from(vec![0, 86_400_000]), "\"1970-01-01\"", "\"1970-01-02\"");
    check_type(Date64Array::from(vec![0, 1_500]), "\"1970-01-01T00:00:00Z\"", "\"1970-01-01T00:00:01.500Z\"");
    check_type(
        TimestampMillisecondArray::from(vec![Some(1_500), None]).with_timezone("Europe/Berlin"),
        "\"1970-01-01T00:00:01.500Z\"",
        "",
    );
    check_type(
        TimestampSecondArray::from(vec![0, 1 << 40]),
        "\"1970-01-01T00:00:00Z\"",
        "\"+36812-02-20T00:36:16Z\"",
    );
    check_type(Time32SecondArray::from(vec![0, 43_200]), "\"00:00:00\"", "\"12:00:00\"");
    check_type(DurationMillisecondArray::from(vec![1, 2]), "1", "2");
}

#[test]
fn nested_types() {
    let ints =
        ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), Some(vec![])]);
    check_type(ints, "[\"1\", \"null\"]", "[]");
    let floats = FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(
        vec![Some(vec![Some(1.0), Some(0.5)]), None],
        2,
    );
    check_type(floats, "[\"1\", \"0.5\"]", "");
    let mut strings = LargeListBuilder::new(StringBuilder::new());
    strings.append_value([Some("x"), Some("y")]);
    strings.append_null();
    check_type(strings.finish(), "[\"x\", \"y\"]", "");
    let mut lists = ListBuilder::new(ListBuilder::new(Int8Builder::new()));
    lists.values().append_value([Some(1), None]);
    lists.append(true);
    lists.append(true);
    check_type(lists.finish(), "[\"[1,null]\"]", "[]");
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("k");
    map.values().append_value(1);
    map.append(true).unwrap();
    map.append(false).unwrap();
    check_type(map.finish(), "\"{\\\"k\\\":1}\"", "");

    let inner: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let middle = StructArray::new(
        vec![Field::new("c", DataType::Int32, true)].into(),
        vec![Arc::clone(&inner)],
        Some(NullBuffer::from(vec![true, false, true])),
    );
    let fields: Fields =
        vec![Field::new("b", middle.data_type().clone(), true), Field::new("d", DataType::Int32, true)]
            .into();
    let outer = StructArray::new(
        fields,
        vec![Arc::new(middle), inner],
        Some(NullBuffer::from(vec![true, true, false])),
    );
    check_columns(vec![("a", Arc::new(outer.clone()))], &["a.b.c=1 a.d=1", "a.d=2", ""], &[]);
    let field = Arc::new(Field::new("item", outer.data_type().clone(), true));
    let list = ListArray::new(field, OffsetBuffer::from_lengths([3, 0]), Arc::new(outer), None);
    check_type(list, r#"["{\"b\":{\"c\":1},\"d\":1}", "{\"b\":null,\"d\":2}", "null"]"#, "[]");
}

#[test]
fn times_and_rates_are_checked_row_by_row() {
    let time = |array: ArrayRef, rows: &[&str], rejections: &[&str]| {
        check_columns(vec![("time", array)], rows, rejections)
    };
    time(
        Arc::new(TimestampMicrosecondArray::from(vec![Some(2_000_000), None, Some(i64::MAX)])),
        &["time=1970-01-01T00:00:02Z", ""],
        &["2: column time: 9223372036854775807 is not a time between the years 1678 and 2261"],
    );
    time(Arc::new(Date32Array::from(vec![1])), &["time=1970-01-02T00:00:00Z"], &[]);
    time(Arc::new(UInt64Array::from(vec![1_700_000_000])), &["time=2023-11-14T22:13:20Z"], &[]);
    time(Arc::new(Float64Array::from(vec![1_700_000_000.5])), &["time=2023-11-14T22:13:20.500Z"], &[]);
    time(
        Arc::new(DictionaryArray::<Int8Type>::from_iter(["2026-09-22", "x"])),
        &["time=2026-09-22T00:00:00Z"],
        &["1: column time: \"x\" is not a time between the years 1678 and 2261"],
    );
    time(
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        &[""],
        &["0: column time: a value of Arrow type Boolean is not a time between the years 1678 and 2261"],
    );
    check_columns(
        vec![
            ("sample_rate", Arc::new(Int8Array::from(vec![Some(1), Some(0), None]))),
            ("a", Arc::new(StringArray::from(vec![None, Some("gone"), None]))),
        ],
        &["sample_rate=1", ""],
        &["1: column sample_rate: 0 is not a number from 1 to 9007199254740992"],
    );
    let body = stream(&[batch(vec![
        ("time", Arc::new(Int8Array::from(vec![1]))),
        ("at", Arc::new(Int8Array::from(vec![5]))),
    ])]);
    let case = Case::new(BodyFormat::Arrow, &body).time_field("at");
    check_case(&case, &["time=1970-01-01T00:00:05Z original_time=1"], &[]);
    let outcome = Case::new(BodyFormat::Arrow, &body).time_field("ts").outcome();
    assert_eq!(
        outcome.notes,
        ["No row has a value in the column `ts`, so each got the time of its arrival. \
          If `time` holds it, post with ?time_field=time."]
    );
}

#[test]
fn schemas_that_cannot_be_taken() {
    let check = |body: Vec<u8>, failure: &str| check_failure(BodyFormat::Arrow, &body, 0, failure);
    let ints: ArrayRef = Arc::new(Int8Array::from(vec![1]));
    let fields: Fields = vec![Field::new("b", DataType::Int8, true)].into();
    let inner = StructArray::new(fields, vec![Arc::clone(&ints)], None);
    check(
        stream(&[batch(vec![("a.b", Arc::clone(&ints)), ("a", Arc::new(inner))])]),
        "Arrow schema: it has two columns a.b",
    );
    let names: Vec<String> = (0..2_001).map(|column| format!("c{column}")).collect();
    let columns = names.iter().map(|name| (name.as_str(), Arc::clone(&ints))).collect();
    check_pieces(&stream(&[batch(columns)]), "Arrow stream has more columns than the limit of 2000");
    let name = "x".repeat(257);
    check_pieces(
        &stream(&[batch(vec![(&name, ints)])]),
        &format!(
            "Arrow schema: column name {}… of 257 bytes is longer than the limit of 256 bytes",
            "x".repeat(32)
        ),
    );
    let runs = RunArray::<Int32Type>::try_new(&vec![1].into(), &StringArray::from(vec!["x"])).unwrap();
    let runs: ArrayRef = Arc::new(runs);
    let failure =
        Case::new(BodyFormat::Arrow, &stream(&[batch(vec![("a", runs)])])).run(1 << 16).failure.unwrap();
    assert!(failure.starts_with("Arrow schema: column a has the type RunEndEncoded"), "{failure}");
}

fn check_pieces(body: &[u8], failure: &str) {
    let outcome = Case::new(BodyFormat::Arrow, body).run(1 << 16);
    assert_eq!(outcome.failure.as_deref(), Some(failure));
}

#[test]
fn streams_of_many_batches() {
    let part = |from: i64, rows: i64| {
        let texts = (from..from + rows).map(|row| format!("text {}", row % 7)).collect::<Vec<_>>();
        batch(vec![
            ("a", Arc::new(Int64Array::from_iter_values(from..from + rows))),
            ("b", Arc::new(StringArray::from(texts))),
        ])
    };
    let parts: Vec<RecordBatch> = (0..50).map(|number| part(number * 400, 400)).collect();
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let body = stream_with(&parts, options);
        for piece in [100, 1 << 16, body.len()] {
            let outcome = Case::new(BodyFormat::Arrow, &body).run(piece);
            assert_eq!(outcome.rows.len(), 20_000);
            assert_eq!(outcome.batches.len(), 1, "small batches are joined");
            assert_eq!(outcome.rows[19_999], "a=19999 b=\"text 0\"");
        }
    }
    let wide = part(0, 200_000);
    let outcome = Case::new(BodyFormat::Arrow, &stream(&[wide])).run(1 << 20);
    assert_eq!(outcome.rows.len(), 200_000);
    assert!(outcome.batches.iter().all(|batch| batch.num_rows() <= 65_536));
    // Rows without any column are rows still, also when the stream has no end mark.
    let empty = RecordBatch::try_new_with_options(
        Arc::new(Schema::empty()),
        vec![],
        &RecordBatchOptions::new().with_row_count(Some(3)),
    );
    let body = stream(&[empty.unwrap()]);
    check_case(&Case::new(BodyFormat::Arrow, &body), &["", "", ""], &[]);
    check_case(&Case::new(BodyFormat::Arrow, &body[..body.len() - 8]), &["", "", ""], &[]);
}

#[test]
fn a_dictionary_of_large_texts_does_not_unpack_at_once() {
    let large = "x".repeat(1 << 19);
    let keys = Int32Array::from(vec![0; 40]);
    let dictionary = DictionaryArray::new(keys, Arc::new(StringArray::from(vec![large.as_str()])));
    let body = stream(&[batch(vec![("a", Arc::new(dictionary))])]);
    let outcome = Case::new(BodyFormat::Arrow, &body).run(1 << 16);
    assert_eq!(outcome.rows.len(), 40);
    assert!(outcome.batches.iter().all(|batch| batch.get_array_memory_size() < 10 << 20));
    let large = "x".repeat((1 << 20) + 1);
    let texts = StringArray::from(vec!["small", &large, "small"]);
    let body = stream(&[batch(vec![("a", Arc::new(texts))])]);
    let outcome = Case::new(BodyFormat::Arrow, &body).run(1 << 16);
    assert_eq!(outcome.rows, ["a=\"small\"", "a=\"small\""]);
    assert_eq!(
        outcome.rejections,
        ["1: column a: value of 1048577 bytes is longer than the limit of 1048576 bytes"]
    );
}

#[test]
fn hostile_streams_end_in_an_error() {
    let check = |body: &[u8], failure: &str| check_failure(BodyFormat::Arrow, body, 0, failure);
    check(b"hello there", "header of an Arrow message of 1819043176 is larger than the limit of 16777216");
    check(
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        "header of an Arrow message of 4294967295 is larger than the limit of 16777216",
    );
    check(
        b"\xff\xff\xff\xff\x04\0\0\0abcd",
        "Arrow stream is broken before byte 12, at row 0: the header of a message is not one",
    );
    check(b"\xff\xff", "Arrow stream is broken before byte 2, at row 0: it ends inside a message");
    check(
        b"\xff\xff\xff\xff\0\0\0\0x",
        "Arrow stream is broken before byte 8, at row 0: bytes follow the end of the stream",
    );
    let good = stream(&[batch(vec![("a", Arc::new(Int64Array::from(vec![1, 2, 3])))])]);
    let cut = &good[..good.len() - 20];
    let failure = Case::new(BodyFormat::Arrow, cut).outcome().failure.unwrap();
    assert!(failure.ends_with("it ends inside a message"), "{failure}");
}

/// Whatever bit of a stream of all kinds of columns flips, it ends in rows or an error.
#[test]
fn flipped_bits_are_survived() {
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("x"), None]);
    lists.append_value([Some("y")]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("time", Arc::new(TimestampSecondArray::from(vec![1, 2]).with_timezone("UTC"))),
        ("a", Arc::new(Int64Array::from(vec![Some(1), None]))),
        ("b", Arc::new(StringArray::from(vec!["x", "y"]))),
        ("c", Arc::new(DictionaryArray::<Int8Type>::from_iter(["x", "y"]))),
        ("d", Arc::new(lists.finish())),
        ("e", Arc::new(StringViewArray::from(vec!["short", "one that is longer than a view"]))),
        ("f", Arc::new(Decimal128Array::from(vec![1, 2]).with_precision_and_scale(10, 2).unwrap())),
    ];
    let batch = batch(columns);
    for compression in [None, Some(CompressionType::ZSTD)] {
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let good = stream_with(std::slice::from_ref(&batch), options);
        for place in 0..good.len() {
            let mut body = good.clone();
            body[place] ^= 1 << (place % 8);
            Case::new(BodyFormat::Arrow, &body).run(body.len());
        }
    }
}
