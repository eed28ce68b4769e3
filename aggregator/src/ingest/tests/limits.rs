//! Bodies beyond the limits: the limit is named, the rest goes on, and memory stays small.

use super::*;

/// Limits small enough to meet in a test.
fn small() -> IngestLimits {
    IngestLimits {
        columns_max: 3,
        column_name_bytes_max: 8,
        value_bytes_max: 10,
        line_bytes_max: 60,
        endless_line_bytes_max: 200,
        nesting_max: 3,
        batch_rows_max: 4,
        rejections_kept_max: 2,
        ..IngestLimits::default()
    }
}

fn check_small(format: BodyFormat, body: &str, rows: &[&str], rejections: &[&str]) {
    let mut case = Case::new(format, body.as_bytes());
    case.limits = small();
    check_case(&case, rows, rejections);
}

#[test]
fn rows_beyond_a_limit() {
    check_small(
        NdJson,
        "{\"a\":1,\"b\":2,\"c\":3}\n{\"a\":1,\"b\":2,\"c\":3,\"d\":4}\n{\"a\":2}",
        &["a=1 b=2 c=3", "a=2"],
        &["1: row has more columns than the limit of 3"],
    );
    check_small(
        NdJson,
        "{\"abcdefghi\":1}\n{\"a\":{\"b\":{\"c\":{\"d\":1}}}}",
        &[],
        &[
            "0: column name abcdefghi… of 9 bytes is longer than the limit of 8 bytes",
            "1: values are nested deeper than the limit of 3 levels",
        ],
    );
    check_small(
        NdJson,
        "{\"a\":\"0123456789\"}\n{\"a\":\"0123456789a\"}\n{\"a\":[1,2,3,4,5,6]}",
        &["a=\"0123456789\""],
        &[
            "1: column a: value of 11 bytes is longer than the limit of 10 bytes",
            "2: column a: value of 12 bytes is longer than the limit of 10 bytes",
        ],
    );
    let long = " ".repeat(100);
    check_small(
        NdJson,
        &format!("{{\"a\":{long}1}}\n{{\"a\":2}}"),
        &["a=2"],
        &["0: row is longer than the limit of 60 bytes"],
    );
    check_small(
        Json,
        &format!("[{{\"a\":{long}1}},{{\"a\":2}}]"),
        &["a=2"],
        &["0: row is longer than the limit of 60 bytes"],
    );
    check_small(
        Csv,
        &format!("a\n{long}\n\"{long}\n2\n"),
        &["a=2"],
        &["0: row is longer than the limit of 60 bytes", "1: row is longer than the limit of 60 bytes"],
    );
}

#[test]
fn a_line_without_end_ends_the_request() {
    for (format, start) in [(NdJson, "{\"a\":1}\n{"), (Json, "[{\"a\":1},{"), (Csv, "a\n1\n\"")] {
        let body = format!("{start}{}", " ".repeat(300));
        let mut case = Case::new(format, body.as_bytes());
        case.limits = small();
        let outcome = case.run(50);
        assert_eq!(
            outcome.failure.as_deref(),
            Some("a row is not over after the limit of 200 bytes"),
            "{body}"
        );
        assert_eq!(outcome.rows, ["a=1"]);
    }
}

#[test]
fn rejections_are_counted_beyond_those_kept() {
    let mut case = Case::new(NdJson, b"x\nx\nx\nx\n");
    case.limits = small();
    let outcome = case.outcome();
    assert_eq!((outcome.rejections.len(), outcome.rejected_count), (2, 4));
}

#[test]
fn batches_close() {
    let body: String = (0..10).map(|row| format!("{{\"a\":{row}}}\n")).collect();
    let mut case = Case::new(NdJson, body.as_bytes());
    case.limits = small();
    let sizes = |outcome: &Outcome| outcome.batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>();
    assert_eq!(sizes(&case.outcome()), [4, 4, 2]);
    // New columns in every row: the columns of a batch stay within the limit, and no value is lost.
    let body: String =
        (0..10).map(|row| format!("{{\"x\":1,\"a{row}\":{row},\"b{row}\":\"{row}\"}}\n")).collect();
    let mut case = Case::new(NdJson, body.as_bytes());
    case.limits = small();
    let outcome = case.outcome();
    assert_eq!(outcome.rows[9], "x=1 a9=9 b9=\"9\"");
    assert_eq!(sizes(&outcome), [1; 10]);
    // Text closes a batch by its bytes.
    let row = format!("{{\"a\":\"{}\"}}\n", "x".repeat(1 << 20));
    let outcome = Case::new(NdJson, row.repeat(9).as_bytes()).run(1 << 16);
    assert_eq!(sizes(&outcome), [8, 1]);
}

#[test]
fn a_row_of_a_million_columns() {
    let columns: Vec<String> = (0..1_000_000).map(|column| format!("\"c{column}\":1")).collect();
    let mut body = format!("{{{}}}\n{{\"a\":1}}\n", columns.join(","));
    let limits = IngestLimits { line_bytes_max: 32 << 20, ..IngestLimits::default() };
    let mut case = Case::new(NdJson, body.as_bytes());
    case.limits = limits;
    let outcome = case.run(1 << 20);
    assert_eq!(outcome.rejections, ["0: row has more columns than the limit of 2000"]);
    assert_eq!(outcome.rows, ["a=1"]);
    body = (0..1_000_000).map(|_| ",").collect();
    let failure = Case::new(Csv, body.as_bytes()).run(1 << 20).failure;
    assert_eq!(failure.as_deref(), Some("CSV body has 1000001 columns, more than the limit of 2000"));
}

#[test]
fn a_line_of_ten_megabytes() {
    let body = format!("{{\"a\":1}}\n{{\"a\":\"{}\"}}\n{{\"a\":2}}", "x".repeat(10 << 20));
    let outcome = Case::new(NdJson, body.as_bytes()).run(1 << 16);
    assert_eq!(outcome.rejections, ["1: row is longer than the limit of 8388608 bytes"]);
    assert_eq!(outcome.rows, ["a=1", "a=2"]);
}

#[test]
fn deep_nesting() {
    for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
        let body = format!("{{\"a\":{}1{}}}", open.repeat(100_000), close.repeat(100_000));
        let outcome = Case::new(NdJson, body.as_bytes()).run(1 << 16);
        assert_eq!(outcome.rejections, ["0: values are nested deeper than the limit of 32 levels"]);
    }
}
