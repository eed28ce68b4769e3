//! How fast a leaf scans: each kind of column decoded, and each thing a plan can ask, over sealed row blocks.
//!
//! Goals: the cost of touching, filtering, grouping and aggregating inside one leaf, held against the speed at which
//! the same threads read plain memory in the same run. Not a goal: end-to-end time; `benches/peers/run` measures
//! that. Under `cargo test` it runs on a few rows, so that it cannot rot; every line prints a hash of its answer, so
//! that nobody makes the answer faster by making it another one.
//!
//! `cargo bench -p gannet-benches --bench scan [-- ROWS] [WORD] [--threads N]`; only lines with WORD in their name.
//!
//! Instruction counts, which other load on the machine does not disturb:
//! `valgrind --tool=callgrind --toggle-collect='*measured*' target/release/deps/scan-… --bench --once --threads 1
//! 500000 'group string'`.

use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, TimestampNanosecondArray};
use arrow::buffer::Buffer;
use arrow::datatypes::{Field, Schema};
use gannet_benches::columns::{KINDS, Kind, column};
use gannet_benches::kernels::{Kernel, kernels};
use gannet_benches::measure::{Arguments, hash_rows, median_seconds, memory_read_speed};
use gannet_benches::{START_NS, request_batches};
use gannet_leaf::held_block::HeldBlock;
use gannet_leaf::row_block::{ROWS_PER_BLOCK_MAX, RowBlock};
use gannet_leaf::row_ranges::RowRanges;
use gannet_leaf::runs::runs_of;
use gannet_leaf::scan::{Cancel, RowRun, ScanLimits, scan};
use gannet_leaf::table::{Table, TableState};
use gannet_query::ColumnType;
use rayon::ThreadPool;

const VALUE: &str = "value";
const LIMITS: ScanLimits<'_> = ScanLimits { memory_bytes_max: 8 << 30, result_bytes_max: 1 << 30, top: None };

fn main() {
    let arguments = Arguments::of_process();
    let pool = arguments.pool();
    let memory = memory_read_speed(&pool, &arguments);
    println!("{} threads read memory at {:.1} GB/s", arguments.threads, memory / 1e9);
    decode(&arguments, memory);
    scans(&arguments, &pool, memory);
}

/// Decodes each kind of column on one thread and reads what that gave.
fn decode(arguments: &Arguments, memory: f64) {
    let kinds: Vec<&Kind> = KINDS.iter().filter(|kind| arguments.wants(kind.0)).collect();
    if kinds.is_empty() {
        return;
    }
    let memory = memory / arguments.threads as f64;
    println!("\nGB/s are of encoded bytes; the share is of what one thread reads from memory");
    println!(
        "{:<26} {:<12} {:>11} {:>9} {:>12} {:>7} {:>7}  values",
        "column", "encoding", "bytes/value", "ns/value", "values/s", "GB/s", "share"
    );
    let rows = arguments.rows_or(1 << 20, 3_000);
    for kind in kinds {
        let blocks: Vec<RowBlock> = (0..rows)
            .step_by(ROWS_PER_BLOCK_MAX)
            .map(|first| single(kind, first, ROWS_PER_BLOCK_MAX.min(rows - first)))
            .collect();
        let touch =
            || blocks.iter().map(|block| sum_of(&decoded(block).to_data())).fold(0, u64::wrapping_add);
        let (_, seconds) = median_seconds(arguments.runs(), touch);
        let meta = blocks[0].column_meta(VALUE).expect("the block was sealed with this column");
        let bytes =
            blocks.iter().filter_map(|block| block.column_meta(VALUE)).map(|meta| meta.bytes).sum::<u64>();
        let speed = bytes as f64 / seconds;
        println!(
            "{:<26} {:<12} {:>11.2} {:>9.2} {:>12.0} {:>7.2} {:>6.0}%  {:016x}",
            kind.0,
            meta.encoding(),
            bytes as f64 / rows as f64,
            seconds * 1e9 / rows as f64,
            rows as f64 / seconds,
            speed / 1e9,
            speed / memory * 100.0,
            hash_rows(&[decoded(&blocks[0])]),
        );
    }
}

/// A block of one column beside its times.
fn single(kind: &Kind, first: usize, rows: usize) -> RowBlock {
    let values = column(kind, rows, first as u64);
    let times = (first..first + rows).map(|row| START_NS + row as i64 * 1_000_000);
    let times = TimestampNanosecondArray::from_iter_values(times).with_timezone("+00:00");
    let fields = vec![
        Field::new("time", ColumnType::Time.arrow(), true),
        Field::new(VALUE, values.data_type().clone(), true),
    ];
    let batch =
        RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(times) as ArrayRef, values])
            .expect("both arrays have one length");
    RowBlock::seal(first as u64, &[batch]).expect("a batch of this size can be sealed")
}

fn decoded(block: &RowBlock) -> ArrayRef {
    let column_type = block.column_meta(VALUE).expect("the block was sealed with this column").column_type;
    let column = block.column(VALUE).expect("the block was made by this process");
    column.expect("the block was sealed with this column").to_typed_array(column_type, block.rows())
}

/// Reads every byte of an array: columns that are stored as they are cost nothing to decode, only to read.
fn sum_of(data: &ArrayData) -> u64 {
    let words = |buffer: &Buffer| {
        let (words, rest) = buffer.as_slice().as_chunks::<8>();
        let sum = words.iter().fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word)));
        rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
    };
    let own = data.buffers().iter().map(words).fold(0, u64::wrapping_add);
    data.child_data().iter().map(sum_of).fold(own, u64::wrapping_add)
}

/// Runs each kernel over a table of requests.
fn scans(arguments: &Arguments, pool: &ThreadPool, memory: f64) {
    let kernels: Vec<Kernel> = kernels().into_iter().filter(|kernel| arguments.wants(kernel.name)).collect();
    if kernels.is_empty() {
        return;
    }
    let state = table(arguments.rows_or(4_000_000, 5_000));
    let runs = runs_of(&state);
    println!("\n{} rows; GB/s are of the encoded bytes of the columns a plan reads", state.rows());
    println!("{:<24} {:>9} {:>14} {:>7} {:>7}  answer", "plan", "ms", "rows/s", "GB/s", "share");
    for kernel in &kernels {
        let (hash, seconds) = median_seconds(arguments.runs(), || run(kernel, &runs, pool));
        let speed = bytes_read(kernel, &state) as f64 / seconds;
        println!(
            "{:<24} {:>9.3} {:>14.0} {:>7.2} {:>6.0}%  {hash:016x}",
            kernel.name,
            seconds * 1e3,
            state.rows() as f64 / seconds,
            speed / 1e9,
            speed / memory * 100.0,
            hash = hash(),
        );
    }
}

/// Scans, and leaves the hash of the answer for when the time is taken.
fn run<'a>(kernel: &'a Kernel, runs: &[Arc<dyn RowRun>], pool: &ThreadPool) -> impl Fn() -> u64 + use<'a> {
    let outcome = scan(runs, &kernel.plan, &LIMITS, &Cancel::new(None), pool).expect("the plan is sound");
    assert!(outcome.unreadable.is_empty() && outcome.unscanned == 0, "every row of {} counts", kernel.name);
    move || kernel.hash(&outcome.body).expect("the states can be finished")
}

fn table(rows: usize) -> Arc<TableState> {
    let seal = |(id, batch): (usize, RecordBatch)| {
        let block = RowBlock::seal(id as u64, &[batch]).expect("a batch of this size can be sealed");
        Arc::new(HeldBlock::sealed(block, RowRanges::default()))
    };
    let blocks = request_batches(rows, ROWS_PER_BLOCK_MAX, 1).enumerate().map(seal).collect();
    Table::restored("requests", blocks, Vec::new(), Vec::new()).snapshot()
}

/// Encoded bytes of the columns that a plan reads, whether or not it is clever enough to skip some.
fn bytes_read(kernel: &Kernel, state: &TableState) -> u64 {
    let names = kernel.plan.columns.iter().map(|(name, _)| name);
    names
        .flat_map(|name| state.blocks.iter().filter_map(move |held| held.readable().ok()?.column_meta(name)))
        .map(|meta| meta.bytes)
        .sum()
}
