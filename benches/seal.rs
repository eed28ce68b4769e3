//! Sealing: what it costs to turn rows into a row block, by column and in whole.
//!
//! Goals: rows a second of one thread, where the time goes, and what it buys in bytes. Not a goal: how many threads seal
//! at once. Each line has a hash of the images, which are the same on every machine.
//!
//! `cargo bench -p gannet-benches --bench seal [-- ROWS] [WORD]`: only columns whose name contains the word.
//! Under load, count instructions: `valgrind --tool=callgrind target/release/deps/seal-… 65536 --once`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use gannet_benches::measure::{Arguments, median_seconds};
use gannet_benches::request_batches;
use gannet_leaf::row_block::{ROWS_PER_BLOCK_MAX, RowBlock};
use xxhash_rust::xxh3::xxh3_64;

fn main() {
    let arguments = Arguments::of_process();
    let rows = arguments.rows_or(ROWS_PER_BLOCK_MAX, 2_000).min(ROWS_PER_BLOCK_MAX);
    let batch = request_batches(rows, rows, 1).next().expect("one batch of at least one row");
    println!("{rows} rows");
    println!("{:<16} {:<12} {:>10} {:>10}  {:<16}", "column", "encoding", "ns/row", "bytes/row", "image");
    let time = batch.column_by_name("time").expect("every batch has times");
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if !arguments.wants(field.name()) {
            continue;
        }
        let mut columns: Vec<(&str, ArrayRef)> = vec![("time", Arc::clone(time))];
        if field.name() != "time" {
            columns.push((field.name(), Arc::clone(array)));
        }
        let alone = RecordBatch::try_from_iter(columns).expect("columns of one length");
        line(&arguments, field.name(), &alone);
    }
    if arguments.wants("all") {
        line(&arguments, "all", &batch);
    }
}

/// Seals rows; a column alone is sealed beside `time`, whose own line says what that costs.
fn line(arguments: &Arguments, name: &str, rows: &RecordBatch) {
    let seal = || RowBlock::seal(1, std::slice::from_ref(rows)).expect("rows of one block");
    let (block, seconds) = median_seconds(arguments.runs(), seal);
    let (encoding, bytes) = match block.column_meta(name) {
        Some(meta) => (meta.encoding(), meta.bytes),
        None => ("", block.image().len() as u64),
    };
    let per_row = |value: f64| value / block.rows() as f64;
    println!(
        "{name:<16} {encoding:<12} {:>10.1} {:>10.3}  {:016x}",
        per_row(seconds * 1e9),
        per_row(bytes as f64),
        xxh3_64(block.image())
    );
}
