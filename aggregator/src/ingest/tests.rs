//! Bodies in, batches out: one `check` for all text formats; every body is pushed whole and in small pieces.

use std::io::Write;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType};
use gannet_query::ColumnType;
use gannet_query::rfc3339::format_time;
use proptest::prelude::*;

use super::*;

mod arrow_bodies;
mod limits;
mod packed;

pub(super) const ARRIVAL_NS: i64 = 1_000_000_000;

/// What became of a body.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    pub(super) batches: Vec<RecordBatch>,
    /// Each row as `name=value` with types told apart; NULLs and the time of arrival are left out.
    pub(super) rows: Vec<String>,
    pub(super) rejections: Vec<String>,
    pub(super) rejected_count: u64,
    pub(super) failure: Option<String>,
    pub(super) notes: Vec<String>,
}

/// A body with all that can be said about it.
#[derive(Clone)]
pub(super) struct Case<'a> {
    pub(super) format: Option<BodyFormat>,
    pub(super) encoding: BodyEncoding,
    pub(super) options: IngestOptions,
    pub(super) limits: IngestLimits,
    pub(super) body: &'a [u8],
}

impl<'a> Case<'a> {
    pub(super) fn new(format: impl Into<Option<BodyFormat>>, body: &'a [u8]) -> Case<'a> {
        Case {
            format: format.into(),
            encoding: BodyEncoding::Identity,
            options: IngestOptions::default(),
            limits: IngestLimits::default(),
            body,
        }
    }

    pub(super) fn time_field(mut self, name: &str) -> Case<'a> {
        self.options.time_field = name.to_owned();
        self
    }

    pub(super) fn run(&self, piece: usize) -> Outcome {
        let (options, limits) = (self.options.clone(), self.limits.clone());
        let mut decoder = Decoder::new(self.format, self.encoding, options, limits, ARRIVAL_NS).unwrap();
        let mut batches = Vec::new();
        let mut sink = |batch| {
            batches.push(batch);
            Ok(())
        };
        let pushed = self.body.chunks(piece).try_for_each(|bytes| decoder.push(bytes, &mut sink));
        let failure = pushed.and_then(|()| decoder.finish(&mut sink)).err();
        let rows: Vec<String> = batches.iter().flat_map(shown_rows).collect();
        assert_eq!(decoder.rows_accepted(), rows.len() as u64, "accepted is what the sink got");
        assert_eq!(decoder.rows_seen(), decoder.rows_accepted() + decoder.rejected_count());
        if let Some(failure) = &failure {
            let detail = failure.detail.clone().unwrap_or_default();
            assert!(detail.contains(&format!("; {} rows before that were accepted", rows.len())), "{detail}");
            assert_eq!(decoder.push(b"{}", &mut |_| Ok(())).unwrap_err(), *failure, "a failure is final");
        }
        Outcome {
            batches,
            rows,
            rejections: decoder.rejections().iter().map(|r| format!("{}: {}", r.row, r.error)).collect(),
            rejected_count: decoder.rejected_count(),
            failure: failure.map(|failure| failure.to_string()),
            notes: decoder.notes(),
        }
    }

    /// The outcome, which is the same in pieces of any size.
    pub(super) fn outcome(&self) -> Outcome {
        let whole = self.run(self.body.len().max(1));
        for piece in [1, 7] {
            let pieces = self.run(piece);
            assert_eq!(pieces, whole, "in pieces of {piece}");
        }
        whole
    }
}

fn shown_rows(batch: &RecordBatch) -> Vec<String> {
    assert_eq!(batch.schema().field(0).name(), "time");
    assert_eq!(batch.column(0).null_count(), 0);
    for field in batch.schema().fields() {
        let column_type = ColumnType::from_arrow(field.data_type()).unwrap();
        assert_eq!(field.data_type(), &column_type.arrow());
        assert_eq!(column_type == ColumnType::Time, field.name() == "time");
    }
    (0..batch.num_rows()).map(|row| shown_row(batch, row)).collect()
}

fn shown_row(batch: &RecordBatch, row: usize) -> String {
    let mut shown = Vec::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        if array.is_null(row) {
            continue;
        }
        let value = match field.data_type() {
            DataType::Boolean => array.as_boolean().value(row).to_string(),
            DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
            DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
            DataType::Utf8 => format!("{:?}", array.as_string::<i32>().value(row)),
            DataType::List(_) => {
                let items = array.as_list::<i32>().value(row);
                let items: Vec<&str> = items.as_string::<i32>().iter().map(Option::unwrap).collect();
                format!("{items:?}")
            }
            _ => match array.as_primitive::<TimestampNanosecondType>().value(row) {
                ARRIVAL_NS => continue,
                time => format_time(time),
            },
        };
        shown.push(format!("{}={value}", field.name()));
    }
    shown.join(" ")
}

/// Checks rows and rejections of a body that is good as a whole.
fn check(format: impl Into<Option<BodyFormat>>, body: &str, rows: &[&str], rejections: &[&str]) {
    check_case(&Case::new(format, body.as_bytes()), rows, rejections);
}

fn check_case(case: &Case<'_>, rows: &[&str], rejections: &[&str]) {
    let outcome = case.outcome();
    let body = String::from_utf8_lossy(case.body);
    assert_eq!(outcome.rows, rows, "{body}");
    assert_eq!(outcome.rejections, rejections, "{body}");
    assert_eq!(outcome.failure, None, "{body}");
}

fn check_failure(format: impl Into<Option<BodyFormat>>, body: &[u8], rows: usize, failure: &str) {
    let outcome = Case::new(format, body).outcome();
    assert_eq!(outcome.failure.as_deref(), Some(failure), "{}", String::from_utf8_lossy(body));
    assert_eq!(outcome.rows.len(), rows, "{}", String::from_utf8_lossy(body));
}

use BodyFormat::{Csv, Json, NdJson, Tsv};

#[test]
fn json_values() {
    check(
        NdJson,
        "{\"a\":1,\"b\":-2.5,\"c\":true,\"d\":\"x\",\"e\":null}",
        &["a=1 b=-2.5 c=true d=\"x\""],
        &[],
    );
    check(NdJson, r#"{"a":{"b":{"c":1},"d":"x"},"e":{}}"#, &["a.b.c=1 a.d=\"x\""], &[]);
    check(
        NdJson,
        r#"{"a":[1,2.50,"x",true,null],"b":[]}"#,
        &[r#"a=["1", "2.5", "x", "true", "null"] b=[]"#],
        &[],
    );
    check(
        NdJson,
        r#"{"a":[{ "b" : [1, 2.50 , "x y"], "c":{} }, [ ] ]}"#,
        &[r#"a=["{\"b\":[1,2.50,\"x y\"],\"c\":{}}", "[]"]"#],
        &[],
    );
    check(NdJson, r#"{"a":1,"a":2,"b":1,"b":null,"c":{"d":1},"c.d":2}"#, &["a=2 c.d=2"], &[]);
    check(
        NdJson,
        r#"{"a":"\"\\\/\b\f\n\r\tA\u00e9\ud83d\ude00é"}"#,
        &["a=\"\\\"\\\\/\\u{8}\\u{c}\\n\\r\\tAéé😀é\"".replace("éé😀é", "é😀é").as_str()],
        &[],
    );
    check(
        NdJson,
        r#"{"a":9223372036854775807,"b":-9223372036854775808}"#,
        &["a=9223372036854775807 b=-9223372036854775808"],
        &[],
    );
    check(
        NdJson,
        r#"{"a":9223372036854775808,"b":18446744073709551615}"#,
        &["a=9.223372036854776e18 b=\"18446744073709551615\""],
        &[],
    );
    check(NdJson, r#"{"a":1e400,"b":1e2,"c":-0.0,"d":-0}"#, &["a=\"1e400\" b=100.0 c=-0.0 d=0"], &[]);
    check(NdJson, " \t{} \n\n{ }\r\n", &["", ""], &[]);
}

#[test]
fn the_order_of_columns_does_not_matter() {
    // Rows like the one before, rows that leave columns out, swap them, say them twice, or bring escapes and prefixes
    // of known names: each value ends in its own column.
    let names = ["a", "ab", "seven_7", "eight_88", "a_name_of_many_bytes", "gänse", r#"q\"q"#, r"tab\t"];
    let row = |order: &[usize]| {
        let fields = order.iter().map(|index| format!("\"{}\" :{index}", names[*index]));
        format!("{{{}}}\n", fields.collect::<Vec<_>>().join(","))
    };
    let all: Vec<usize> = (0..names.len()).collect();
    let orders =
        [&all[..], &all, &[7, 6, 5, 4, 3, 2, 1, 0], &all, &[1, 3, 5, 7], &[0, 2], &all, &[6, 6, 0], &all];
    let body: String = orders.iter().map(|order| row(order)).collect();
    let plain = |index: usize| names[index].replace(r#"\""#, "\"").replace(r"\t", "\t");
    let expect: Vec<String> = orders
        .iter()
        .map(|order| {
            let there = all.iter().filter(|index| order.contains(index));
            there.map(|index| format!("{}={index}", plain(*index))).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
    check(NdJson, &body, &expect, &[]);
    // What only looks like a known name is none, and a row that breaks off leaves nothing behind.
    check(
        NdJson,
        "{\"a\":1,\"b\":\"x\"}\n{\"a\"\"b\":1}\n{\"a\":2,\"b\":\"y}\n{\"a\\u0062\":3}\n{\"a\":{\"b\":4}}\n{\"a\":[5]}\n",
        &["a=[\"1\"] b=\"x\"", "ab=3", "a.b=4", "a=[\"5\"]"],
        &[
            "1: not JSON at byte 4: expected ':' after a name",
            "2: not JSON at byte 14: it ends inside a text",
        ],
    );
}

#[test]
fn bad_json_rejects_its_row() {
    let rows = ["a=1", "a=2"];
    for (bad, error) in [
        ("oops", "not JSON at byte 0: expected a value"),
        ("nul", "not JSON at byte 0: expected a value"),
        ("[1]", "a row must be a JSON object, this is a list"),
        ("\"x\"", "a row must be a JSON object, this is a text"),
        ("1", "a row must be a JSON object, this is a number"),
        ("null", "a row must be a JSON object, this is null"),
        ("{\"a\":NaN}", "not JSON at byte 5: expected a value"),
        ("{\"a\":01}", "not JSON at byte 6: expected ',' or '}' after a value"),
        ("{\"a\":1.}", "not JSON at byte 7: expected a digit"),
        ("{\"a\":1,}", "not JSON at byte 7: expected a name in double quotes"),
        ("{\"a\" 1}", "not JSON at byte 5: expected ':' after a name"),
        ("{\"a\":[1 2]}", "not JSON at byte 8: expected ',' or ']' after an item"),
        ("{\"a\":", "not JSON at byte 5: it ends where a value should be"),
        ("{\"a\":\"x", "not JSON at byte 7: it ends inside a text"),
        ("{\"a\":\"\t\"}", "not JSON at byte 6: a control character in a text is not escaped"),
        ("{\"a\":\"\\x\"}", "not JSON at byte 7: unknown escape in a text"),
        ("{\"a\":\"\\ud800\"}", "not JSON at byte 12: half a surrogate pair in a text"),
        ("{\"a\":1}{\"a\":1}", "not JSON at byte 7: something follows the object"),
        ("{\"\":1}", "a column has an empty name"),
    ] {
        let body = format!("{{\"a\":1}}\n{bad}\n{{\"a\":2}}");
        check(NdJson, &body, &rows, &[&format!("1: {error}")]);
    }
    let case = Case::new(NdJson, b"{\"a\":1}\n{\"a\":\"\xff\"}\n{\"a\":2}");
    check_case(&case, &rows, &["1: not UTF-8 at byte 6"]);
}

#[test]
fn json_bodies() {
    for format in [Some(Json), None] {
        check(format, r#"[{"a":1},{"a":2}]"#, &["a=1", "a=2"], &[]);
        check(format, " [ {\"a\":1} ,\n {\"a\":\"]}\\\"\"} ] \n", &["a=\"1\"", "a=\"]}\\\"\""], &[]);
        check(format, "[]", &[], &[]);
        check(format, "{\n \"a\": 1\n}", &["a=1"], &[]);
        check(format, "{\"a\":1}{\"a\":2}\n{\"a\":3}\n", &["a=1", "a=2", "a=3"], &[]);
        check(format, "\u{feff}[{\"a\":1}]", &["a=1"], &[]);
        check(format, "", &[], &[]);
        check(format, " \n ", &[], &[]);
    }
    check(
        Json,
        r#"[1, "a,]b" , {"a":1}, [2], {"a" 1}, true]"#,
        &["a=1"],
        &[
            "0: a row must be a JSON object, this is a number",
            "1: a row must be a JSON object, this is a text",
            "3: a row must be a JSON object, this is a list",
            "4: not JSON at byte 5: expected ':' after a name",
            "5: a row must be a JSON object, this is a bool",
        ],
    );
    check(
        Json,
        "{\"a\":1}\noops, \"x\n{\"a\":2}\n",
        &["a=1", "a=2"],
        &["1: not JSON at byte 0: expected a value"],
    );
}

#[test]
fn json_bodies_that_break() {
    let one = r#"[{"a":1}"#;
    let check = |tail: &str, failure: &str| {
        check_failure(Json, format!("{one}{tail}").as_bytes(), 1, failure);
    };
    check(";", "JSON body is broken at byte 8, row 1: expected ',' or ']' after a row, found ';'");
    check(" {}", "JSON body is broken at byte 9, row 1: expected ',' or ']' after a row, found '{'");
    check(",,", "JSON body is broken at byte 9, row 1: expected a row, found ','");
    check(",]", "JSON body is broken at byte 9, row 1: expected a row, found ']'");
    check("]x", "JSON body is broken at byte 9, row 1: expected nothing after the array, found 'x'");
    check("", "JSON body ends before the ']' of its array, at byte 8, row 1");
    check(",", "JSON body ends before the ']' of its array, at byte 9, row 1");
    check(",{\"a\"", "JSON body ends inside a row, at byte 13, row 1");
}

#[test]
fn types_grow() {
    let body = |values: &[&str]| values.iter().map(|v| format!("{{\"a\":{v}}}\n")).collect::<String>();
    let check = |values: &[&str], expect: &[&str]| {
        let rows: Vec<String> = expect.iter().map(|v| format!("a={v}").replace("a=-", "")).collect();
        check(NdJson, &body(values), &rows.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    };
    check(&["true", "2"], &["1", "2"]);
    check(&["2", "true"], &["2", "1"]);
    check(&["true", "2.5", "3"], &["1.0", "2.5", "3.0"]);
    check(&["1", "2.5"], &["1.0", "2.5"]);
    check(&["9007199254740993", "2.5"], &["\"9007199254740993\"", "\"2.5\""]);
    check(&["2.5", "9007199254740993", "1"], &["\"2.5\"", "\"9007199254740993\"", "\"1\""]);
    check(&["9007199254740992", "0.5"], &["9007199254740992.0", "0.5"]);
    check(&["true", "1", "1.0", "\"x\""], &["\"true\"", "\"1\"", "\"1\"", "\"x\""]);
    check(&["1", "false", "\"x\"", "null", "true"], &["\"1\"", "\"false\"", "\"x\"", "-", "\"true\""]);
    check(&["1e21", "\"x\""], &["\"1000000000000000000000\"", "\"x\""]);
    check(&["null", "true", "null", "[\"x\"]", "null"], &["-", "[\"true\"]", "-", "[\"x\"]", "-"]);
    check(&["[]", "1", "\"x\""], &["[]", "[\"1\"]", "[\"x\"]"]);
    check(&["\"x\"", "1", "[1,2]"], &["[\"x\"]", "[\"1\"]", "[\"1\", \"2\"]"]);
}

#[test]
fn times_come_from_the_time_field() {
    check(NdJson, r#"{"time":"2026-09-22T12:00:00Z","a":1}"#, &["time=2026-09-22T12:00:00Z a=1"], &[]);
    check(NdJson, r#"{"time":1700000000.5}"#, &["time=2023-11-14T22:13:20.500Z"], &[]);
    check(NdJson, r#"{"time":null}"#, &[""], &[]);
    check(
        NdJson,
        "{\"time\":\"soon\"}\n{\"time\":true}\n{\"time\":[1]}\n{\"time\":9e30}\n{\"time\":\"\"}\n{\"time\":-99999999999}",
        &[],
        &[
            "0: column time: \"soon\" is not a time between the years 1678 and 2261",
            "1: column time: true is not a time between the years 1678 and 2261",
            "2: column time: a list is not a time between the years 1678 and 2261",
            "3: column time: 9000000000000000000000000000000 is not a time between the years 1678 and 2261",
            "4: column time: \"\" is not a time between the years 1678 and 2261",
            "5: column time: -99999999999 is not a time between the years 1678 and 2261",
        ],
    );
    let case = Case::new(NdJson, br#"{"time":"noon","at":{"ms":1700000000000}}"#).time_field("at.ms");
    check_case(&case, &["time=2023-11-14T22:13:20Z original_time=\"noon\""], &[]);
    let case = Case::new(NdJson, br#"{"time":"noon","at":1,"original_time":2}"#).time_field("at");
    check_case(
        &case,
        &["time=1970-01-01T00:00:01Z original_time_=\"noon\" original_time=2"]
            .map(|row| row.strip_prefix("time=1970-01-01T00:00:01Z ").unwrap()),
        &[],
    );
}

#[test]
fn notes_tell_of_a_time_that_was_not_found() {
    let note = |case: Case<'_>| case.outcome().notes.join(" ");
    let start = |name: &str| {
        format!("No row has a value in the column `{name}`, so each got the time of its arrival.")
    };
    assert_eq!(
        note(Case::new(NdJson, br#"{"Timestamp":5}"#)),
        start("time") + " If `Timestamp` holds it, post with ?time_field=Timestamp."
    );
    assert_eq!(
        note(Case::new(Csv, b"a\n1")),
        start("time") + " If another column holds it, post with ?time_field=NAME."
    );
    assert_eq!(
        note(Case::new(NdJson, br#"{"time":5}"#).time_field("at")),
        start("at") + " If `time` holds it, post with ?time_field=time."
    );
    assert_eq!(note(Case::new(NdJson, b"{\"time\":5}\n{\"ts\":5}")), "");
    assert_eq!(note(Case::new(NdJson, b"")), "");
}

#[test]
fn sample_rates_are_checked() {
    check(
        NdJson,
        "{\"sample_rate\":1}\n{\"sample_rate\":0}\n{\"sample_rate\":null}\n{\"sample_rate\":\"5\"}\n{\"sample_rate\":[5]}",
        &["sample_rate=1", ""],
        &[
            "1: column sample_rate: 0 is not a number from 1 to 9007199254740992",
            "3: column sample_rate: \"5\" is not a number from 1 to 9007199254740992",
            "4: column sample_rate: a list is not a number from 1 to 9007199254740992",
        ],
    );
    check(
        NdJson,
        "{\"sample_rate\":2}\n{\"sample_rate\":1.5}\n{\"sample_rate\":9007199254740993}",
        &["sample_rate=2.0", "sample_rate=1.5"],
        &["2: column sample_rate: 9007199254740993 is not a number from 1 to 9007199254740992"],
    );
}

#[test]
fn csv_bodies() {
    check(Csv, "a,b\n1,x\r\n2,\r3,y", &["a=1 b=\"x\"", "a=2", "a=3 b=\"y\""], &[]);
    check(Csv, "a,b\n\n1,2\n\n", &["a=1 b=2"], &[]);
    check(Csv, "\u{feff}\"a\",b\n1,2", &["a=1 b=2"], &[]);
    check(Csv, "a\n\"x,\n\"\"y\"\"\"\n\"\"\n", &["a=\"x,\\n\\\"y\\\"\"", ""], &[]);
    check(Csv, "a\nx\"y\n\"x\"z\n", &["a=\"x\\\"y\"", "a=\"xz\""], &[]);
    check(Csv, " a ,,a b\n1,2,3", &["a=1 c2=2 a b=3"], &[]);
    check(Csv, "a\ntrue\n2\n2.5", &["a=1.0", "a=2.0", "a=2.5"], &[]);
    check(Csv, "a\nNaN\n1", &["a=NaN", "a=1.0"], &[]);
    check(Csv, "zip\n02134\n94103", &["zip=\"02134\"", "zip=\"94103\""], &[]);
    check(
        Csv,
        "time,a\n2026-09-22,1\n1700000000,2\nx,3",
        &["time=2026-09-22T00:00:00Z a=1", "time=2023-11-14T22:13:20Z a=2"],
        &["2: column time: \"x\" is not a time between the years 1678 and 2261"],
    );
    check(Tsv, "a\tb\n1,5\t2", &["a=\"1,5\" b=2"], &[]);
    check(Csv, "", &[], &[]);
    check(Csv, "a,b\n", &[], &[]);
    check(
        Csv,
        "a,b\n1\n1,2,3\n4,5\n\"6,7\n",
        &["a=4 b=5"],
        &[
            "0: record has 1 fields, expected 2",
            "1: record has 3 fields, expected 2",
            "3: a quoted field is never closed",
        ],
    );
    let mut case = Case::new(Csv, b"1,x\n2,y");
    case.options.csv_header = CsvHeader::None;
    check_case(&case, &["c1=1 c2=\"x\"", "c1=2 c2=\"y\""], &[]);
    let case = Case::new(Csv, b"a,b\n\xff,1\n\xc3,\xa9\n3,4");
    check_case(&case, &["a=3 b=4"], &["0: not UTF-8 at byte 0", "1: not UTF-8 at byte 0"]);
    check_failure(Csv, b"a,a\n1,2", 0, "CSV header: it names column a twice");
    check_failure(Csv, b"a,\xff\n1,2", 0, "CSV header: it is not UTF-8");
    check_failure(Csv, b"a,\"b\n1,2", 0, "CSV header: a quoted field is never closed");
}

#[test]
fn content_types() {
    let check = |given: Option<&str>, expect: Result<Option<BodyFormat>, &str>| {
        let found = BodyFormat::from_content_type(given).map_err(|failure| failure.to_string());
        assert_eq!(found, expect.map_err(str::to_owned), "{given:?}");
    };
    check(None, Ok(None));
    check(Some("application/x-www-form-urlencoded"), Ok(None));
    check(Some("Application/JSON; charset=utf-8"), Ok(Some(Json)));
    check(Some("application/x-ndjson"), Ok(Some(NdJson)));
    check(Some("text/csv;header=present"), Ok(Some(Csv)));
    check(Some("application/vnd.apache.arrow.stream"), Ok(Some(BodyFormat::Arrow)));
    check(Some("application/xml"), Err("content type application/xml is not known"));
    check(Some("application/vnd.apache.parquet"), Err("a Parquet file cannot be posted"));
    assert_eq!(BodyEncoding::from_content_encoding(Some(" GZIP ")), Ok(BodyEncoding::Gzip));
    assert_eq!(BodyEncoding::from_content_encoding(None), Ok(BodyEncoding::Identity));
    let failure = BodyEncoding::from_content_encoding(Some("br")).unwrap_err();
    assert_eq!(
        (failure.code, failure.message.as_str()),
        (ErrorCode::UnsupportedMedia, "content encoding br is not known")
    );
}

#[test]
fn bodies_of_unknown_format() {
    check_failure(None, b"hello", 0, "cannot tell the format of the body from its first bytes");
    check_failure(None, b"\xff", 0, "cannot tell the format of the body from its first bytes");
    check_failure(None, b"PAR1....", 0, "a Parquet file cannot be posted");
    check_failure(None, b"ARROW1..", 0, "an Arrow file cannot be posted, only an Arrow stream");
    check_failure(None, b"\x1f\x8b....", 0, "body is packed with gzip, but no content encoding says so");
}

#[test]
fn table_names() {
    let check = |name: &str, expect: Result<(), &str>| {
        let found = check_table_name(name).map_err(|failure| failure.to_string());
        assert_eq!(found, expect.map_err(str::to_owned));
    };
    check("requests", Ok(()));
    check("Été 2026.x", Ok(()));
    check(&"x".repeat(128), Ok(()));
    check("", Err("table name is empty"));
    check(&"x".repeat(129), Err("table name of 129 bytes is longer than the limit of 128 bytes"));
    check("a/b", Err("table name \"a/b\" contains the character '/', which is not allowed"));
    check("a\nb", Err("table name \"a\\nb\" contains the character '\\n', which is not allowed"));
}

#[test]
fn the_sinks_error_ends_it() {
    let mut decoder = Decoder::new(
        Some(NdJson),
        BodyEncoding::Identity,
        IngestOptions::default(),
        IngestLimits::default(),
        0,
    )
    .unwrap();
    let refusal = Failure::new(ErrorCode::Overloaded, "no room");
    decoder.push(b"{\"a\":1}\n", &mut |_| Ok(())).unwrap();
    assert_eq!(decoder.finish(&mut |_| Err(refusal.clone())), Err(refusal.clone()));
    assert_eq!(decoder.push(b"{}", &mut |_| Ok(())), Err(refusal));
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(
        body in proptest::collection::vec(any::<u8>(), 0..300),
        format in proptest::sample::select(vec![None, Some(Json), Some(NdJson), Some(Csv), Some(BodyFormat::Arrow)]),
        encoding in proptest::sample::select(vec![BodyEncoding::Identity, BodyEncoding::Gzip, BodyEncoding::Zstd]),
        piece in 1_usize..50,
    ) {
        let mut case = Case::new(format, &body);
        case.encoding = encoding;
        case.run(piece);
    }

    #[test]
    fn what_looks_like_rows_causes_no_panic(
        body in r#"[ \[\]{}",:\n\\a1e.tu-]{0,120}"#,
        format in proptest::sample::select(vec![Json, NdJson, Csv]),
    ) {
        Case::new(format, body.as_bytes()).outcome();
    }

    /// What is JSON is decided as serde_json does.
    #[test]
    fn json_is_json(row in r#"\{"a":[ \[\]{}",:\\a019e.trufalsn+-]{0,12}\}"#) {
        let mut rows = BatchBuilder::new("time", IngestLimits::default(), 0);
        rows.begin_row();
        let ours = json_row::read_row(row.as_bytes(), &mut rows, &IngestLimits::default());
        let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&row);
        match (ours, theirs) {
            (Ok(()), Err(error)) => prop_assert!(error.to_string().contains("out of range"), "{row}: {error}"),
            (Err(error @ (RowError::Json { .. } | RowError::NotAnObject(_))), Ok(_)) => {
                prop_assert!(false, "{row}: {error}");
            }
            _ => {}
        }
    }
}
