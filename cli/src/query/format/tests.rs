use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder};
use arrow_ipc::reader::StreamReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::interrupt::Interrupt;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let columns = columns.into_iter().map(|(name, array)| (name, array, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn services() -> RecordBatch {
    batch(vec![
        ("service", Arc::new(StringArray::from(vec![Some("cart"), Some("feed")])) as ArrayRef),
        ("n", Arc::new(Int64Array::from(vec![Some(12), None]))),
    ])
}

fn complete() -> Completeness {
    Completeness {
        ratio: Some(1.0),
        rows_covered: 10,
        rows_expected: Some(10),
        leaves_asked: 2,
        leaves_answered: 2,
        ..Completeness::default()
    }
}

const STATS_OF_TWO: Stats = Stats {
    elapsed_ms: 12.2,
    rows_scanned: 1_204_331,
    blocks_scanned: 3,
    blocks_pruned: 0,
    stored_rows: 0,
    represented_events: 0,
    scan_ms_max: 0.0,
};

/// The bytes of an answer, written through a file as `-o` does.
async fn printed(batches: &[RecordBatch], format: Format, max_rows: Option<usize>, stats: Stats) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut out = Output::open(Some(&path), format, &Interrupt::listen()).unwrap();
    let layout = Layout { format, zone: None, max_rows, style: Style::PLAIN, footer: true };
    let completeness = complete();
    let about = About { completeness: &completeness, stats, is_partial: false };
    let mut printer = Printer::new(layout, &batches[0].schema(), about, &mut out).unwrap();
    for batch in batches {
        if !printer.rows(batch).unwrap() {
            break;
        }
    }
    printer.end(batches.iter().map(RecordBatch::num_rows).sum()).unwrap();
    assert!(!path.exists(), "a file appears when it is whole");
    out.finish().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    std::fs::read(path).unwrap()
}

async fn check(batch: RecordBatch, format: Format, max_rows: Option<usize>, expect: &str) {
    let text = printed(&[batch], format, max_rows, STATS_OF_TWO).await;
    assert_eq!(String::from_utf8(text).unwrap(), expect);
}

#[tokio::test]
async fn formats_for_people() {
    check(
        services(),
        Format::Table,
        None,
        " service │  n\n─────────┼────\n cart    │ 12\n feed    │  ∅\n\
         2 rows · 12 ms · 1,204,331 rows scanned · completeness 100%\n",
    )
    .await;
    check(
        services(),
        Format::Table,
        Some(1),
        " service │  n\n─────────┼────\n cart    │ 12\n\
         1 of 2 rows (more with --max-rows N) · 12 ms · 1,204,331 rows scanned · completeness 100%\n",
    )
    .await;
    check(
        services(),
        Format::Vertical,
        None,
        "─── row 1\n service │ cart\n n       │ 12\n─── row 2\n service │ feed\n n       │ ∅\n\
         2 rows · 12 ms · 1,204,331 rows scanned · completeness 100%\n",
    )
    .await;
    let odd = batch(vec![("a|b", Arc::new(StringArray::from(vec!["x|y\n<b>"])) as ArrayRef)]);
    check(odd, Format::Markdown, None, "| a\\|b |\n| --- |\n| x\\|y\\\\n&lt;b> |\n").await;
    check(
        services(),
        Format::Markdown,
        None,
        "| service | n |\n| --- | ---: |\n| cart | 12 |\n| feed |  |\n",
    )
    .await;
}

#[tokio::test]
async fn sampled_rows_and_plans() {
    let stats = Stats { stored_rows: 12, represented_events: 120, ..STATS_OF_TWO };
    let text = String::from_utf8(printed(&[services()], Format::Table, None, stats).await).unwrap();
    assert_eq!(
        text.lines().last(),
        Some("2 rows · 12 ms · 1,204,331 rows scanned · 12 rows stand for 120 events · completeness 100%")
    );
    let plan = batch(vec![
        ("plan_type", Arc::new(StringArray::from(vec!["physical_plan"])) as ArrayRef),
        ("plan", Arc::new(StringArray::from(vec!["Sort\n  Gannet\n"]))),
    ]);
    check(plan, Format::Table, None, "Sort\n  Gannet\n").await;
}

#[tokio::test]
async fn formats_for_programs_are_exact() {
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("x"), Some("y\"")]);
    lists.append_null();
    let odd = batch(vec![
        ("s", Arc::new(StringArray::from(vec![Some("a,b"), Some("")])) as ArrayRef),
        ("n", Arc::new(Float64Array::from(vec![None, Some(87.329_182_736_45)]))),
        ("l,", Arc::new(lists.finish())),
        ("t", Arc::new(StringArray::from(vec![Some("say \"hi\"\n\t\\"), None]))),
    ]);
    check(
        odd.clone(),
        Format::Csv,
        None,
        "s,n,\"l,\",t\n\"a,b\",,\"[\"\"x\"\",\"\"y\\\"\"\"\"]\",\"say \"\"hi\"\"\n\t\\\"\n\"\",87.32918273645,,\n",
    )
    .await;
    check(
        odd.clone(),
        Format::Ndjson,
        None,
        "{\"s\":\"a,b\",\"n\":null,\"l,\":[\"x\",\"y\\\"\"],\"t\":\"say \\\"hi\\\"\\n\\t\\\\\"}\n\
         {\"s\":\"\",\"n\":87.32918273645,\"l,\":null,\"t\":null}\n",
    )
    .await;
    check(
        odd,
        Format::Tsv,
        None,
        "s\tn\tl,\tt\na,b\t\\N\t[\"x\",\"y\\\\\"\"]\tsay \"hi\"\\n\\t\\\\\n\t87.32918273645\t\\N\t\\N\n",
    )
    .await;
    check(services(), Format::Csv, Some(1), "service,n\ncart,12\n").await;
    check(services(), Format::Csv, Some(0), "service,n\n").await;
}

#[tokio::test]
async fn binary_formats_read_back_with_their_completeness() {
    let batches = [services(), services()];
    let bytes = printed(&batches, Format::Arrow, None, STATS_OF_TWO).await;
    let reader = StreamReader::try_new(bytes.as_slice(), None).unwrap();
    assert!(reader.schema().metadata()[COMPLETENESS].starts_with("{\"ratio\":1.0,"));
    let read: Vec<RecordBatch> = reader.map(|batch| batch.unwrap()).collect();
    assert_eq!(
        read.iter().map(|batch| batch.columns().to_vec()).collect::<Vec<_>>(),
        [services().columns().to_vec(), services().columns().to_vec()]
    );

    let bytes = printed(&batches, Format::Parquet, Some(3), STATS_OF_TWO).await;
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
    let pairs = builder.metadata().file_metadata().key_value_metadata().unwrap();
    let completeness = pairs.iter().find(|pair| pair.key == COMPLETENESS).unwrap();
    assert!(completeness.value.as_ref().unwrap().starts_with("{\"ratio\":1.0,"));
    let rows: usize = builder.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 3);
}

#[test]
fn names_of_files_mean_formats() {
    for (name, expect) in [
        ("a.PARQUET", Some(Format::Parquet)),
        ("a.jsonl", Some(Format::Ndjson)),
        ("b/a.csv", Some(Format::Csv)),
        ("a.xlsx", None),
        ("csv", None),
    ] {
        assert_eq!(Format::of_file(Path::new(name)), expect, "{name}");
    }
}
