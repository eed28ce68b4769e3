//! How fast bodies become sealed rows: decoded, appended and sealed on one thread, by format.
//!
//! Goals: the processor time of each step for the same rows in every format. Not a goal: HTTP, the wire and more than
//! one client; `benches/peers/run` measures those. The hash is of the sealed images: formats that carry the same
//! values give the same hash.
//!
//! `cargo bench -p gannet-benches --bench ingest [-- ROWS] [FORMAT]`

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use gannet_aggregator::ingest::{BodyEncoding, BodyFormat, Decoder, IngestLimits, IngestOptions};
use gannet_benches::measure::{Arguments, median_seconds};
use gannet_benches::{START_NS, requests};
use gannet_leaf::held_block::HeldBlock;
use gannet_leaf::open_rows::OpenChunk;
use gannet_leaf::row_block::Preference;
use gannet_leaf::row_ranges::RowOrder;
use gannet_leaf::table::{Arrival, Table};
use xxhash_rust::xxh3::xxh3_64;

/// What a door reads from a connection at a time.
const PIECE_BYTES: usize = 64 << 10;
const COLUMNS_MAX: usize = 1_000;

/// A body: the name of its format, the format, and its bytes.
type Body = (&'static str, BodyFormat, Vec<u8>);
/// The same, before the rows are written.
type Maker = (&'static str, BodyFormat, fn(&[RecordBatch]) -> Vec<u8>);

const MAKERS: [Maker; 4] = [
    ("NDJSON", BodyFormat::NdJson, ndjson),
    ("JSON", BodyFormat::Json, json),
    ("CSV", BodyFormat::Csv, csv),
    ("Arrow", BodyFormat::Arrow, arrow_stream),
];

fn main() {
    let arguments = Arguments::of_process();
    let rows = arguments.rows_or(400_000, 2_000);
    println!("{rows} rows; µs/row of one thread");
    println!(
        "{:<10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>12} {:>9}  images",
        "format", "bytes/row", "decode", "append", "seal", "all", "rows/s", "MB/s"
    );
    let batches = requests(rows, 8_192, 1);
    for (name, format, body) in bodies(&batches, &arguments) {
        measure(name, format, &body, rows, &arguments);
    }
}

fn measure(name: &str, format: BodyFormat, body: &[u8], rows: usize, arguments: &Arguments) {
    let runs = if arguments.measured { 3 } else { 1 };
    let ((hash, steps), seconds) = median_seconds(runs, || ingest(format, body, rows));
    let [decode, append, seal] = steps.map(|step| step * 1e6 / rows as f64);
    println!(
        "{name:<10} {:>10.1} {decode:>9.3} {append:>9.3} {seal:>9.3} {:>9.3} {:>12.0} {:>9.1}  {hash:016x}",
        body.len() as f64 / rows as f64,
        seconds * 1e6 / rows as f64,
        rows as f64 / seconds,
        body.len() as f64 / seconds / 1e6,
    );
}

/// Decodes, appends and seals a body. Returns the hash of the images and the seconds of the three steps.
fn ingest(format: BodyFormat, body: &[u8], rows: usize) -> (u64, [f64; 3]) {
    let mut taken: Vec<RecordBatch> = Vec::new();
    let mut sink = |batch: RecordBatch| {
        taken.push(batch);
        Ok(())
    };
    let started = Instant::now();
    let (options, limits) = (IngestOptions::default(), IngestLimits::default());
    let mut decoder = Decoder::new(Some(format), BodyEncoding::Identity, options, limits, START_NS)
        .expect("the format is known");
    for piece in body.chunks(PIECE_BYTES) {
        decoder.push(piece, &mut sink).expect("the body is sound");
    }
    decoder.finish(&mut sink).expect("the body is whole");
    assert_eq!((decoder.rows_accepted(), decoder.rejected_count()), (rows as u64, 0), "every row is taken");
    let decoded = started.elapsed().as_secs_f64();

    let table = Table::empty("requests");
    let (mut appended, mut sealed) = (0.0, 0.0);
    let mut id = 0;
    let mut seal = |runs: Vec<_>| {
        let started = Instant::now();
        for run in runs {
            let block = table.encode(&run, id, Preference::Best).expect("appended rows can be sealed");
            let held = HeldBlock::sealed(block.expect("the run waits"), run.numbers());
            table.put_sealed(&run, Arc::new(held)).expect("the run is still there");
            id += 1;
        }
        sealed += started.elapsed().as_secs_f64();
    };
    let mut next_row = 0;
    for batch in &taken {
        let started = Instant::now();
        let chunk = OpenChunk::new(batch.clone()).expect("the rows can be kept");
        table.admit(&chunk, COLUMNS_MAX).expect("there are few columns");
        let mut numbers = RowOrder::default();
        numbers.push(next_row, batch.num_rows() as u64);
        next_row += batch.num_rows() as u64;
        let outcome = table.insert(chunk.numbered(numbers), Arrival::New, Duration::ZERO);
        appended += started.elapsed().as_secs_f64();
        seal(outcome.to_seal);
    }
    seal(table.take_open().into_iter().collect());
    let state = table.snapshot();
    assert_eq!((state.rows(), state.open.rows()), (rows as u64, 0), "every row is sealed");
    let hash = state
        .blocks
        .iter()
        .map(|held| held.block().map_or(0, |block| xxh3_64(block.image())))
        .fold(0, u64::wrapping_add);
    (hash, [decoded, appended, sealed])
}

fn bodies(batches: &[RecordBatch], arguments: &Arguments) -> Vec<Body> {
    let wanted = MAKERS.into_iter().filter(|(name, ..)| arguments.wants(name));
    wanted.map(|(name, format, make)| (name, format, make(batches))).collect()
}

fn ndjson(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).expect("writing to memory succeeds");
    writer.finish().expect("writing to memory succeeds");
    writer.into_inner()
}

fn json(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).expect("writing to memory succeeds");
    writer.finish().expect("writing to memory succeeds");
    writer.into_inner()
}

/// CSV has no lists, so this one goes without the tags.
fn csv(batches: &[RecordBatch]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = arrow::csv::Writer::new(&mut body);
    for batch in batches {
        let schema = batch.schema();
        let kept: Vec<usize> =
            (0..batch.num_columns()).filter(|at| schema.field(*at).name() != "tags").collect();
        let batch = batch.project(&kept).expect("the columns are there");
        writer.write(&batch).expect("writing to memory succeeds");
    }
    drop(writer);
    body.flush().expect("memory needs no flush");
    body
}

fn arrow_stream(batches: &[RecordBatch]) -> Vec<u8> {
    let schema = batches.first().map(RecordBatch::schema).expect("there is a batch");
    let mut writer =
        arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &schema).expect("writing to memory succeeds");
    for batch in batches {
        writer.write(batch).expect("writing to memory succeeds");
    }
    writer.into_inner().expect("writing to memory succeeds")
}
