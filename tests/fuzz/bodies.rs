//! Bodies of events as clients send them.

use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use gannet_aggregator::ingest::{BodyEncoding, BodyFormat, Decoder, IngestLimits, IngestOptions};
use gannet_query::ColumnType;
use gannet_tests::mutate::Mutator;
use gannet_tests::sweep::Outcome;
use gannet_tests::{encodings, rows};
use rand::Rng;

fn limits() -> IngestLimits {
    IngestLimits {
        line_bytes_max: 64 << 10,
        endless_line_bytes_max: 1 << 20,
        batch_rows_max: 64,
        arrow_message_bytes_max: 1 << 20,
        ..IngestLimits::default()
    }
}

/// What a body came to.
#[derive(PartialEq)]
struct Read {
    batches: Vec<RecordBatch>,
    rejected: u64,
    /// It was read to its end.
    ended: bool,
}

/// Reads a body in pieces.
fn read(
    bytes: &[u8],
    format: Option<BodyFormat>,
    encoding: BodyEncoding,
    piece: usize,
) -> Result<Read, String> {
    let decoder = Decoder::new(format, encoding, IngestOptions::default(), limits(), 5);
    let mut decoder = decoder.map_err(|error| error.to_string())?;
    let mut batches = Vec::new();
    let mut sink = |batch| {
        batches.push(batch);
        Ok(())
    };
    let pushed = bytes.chunks(piece).try_for_each(|piece| decoder.push(piece, &mut sink));
    let ended = pushed.and_then(|()| decoder.finish(&mut sink)).is_ok();
    for batch in &batches {
        let schema = batch.schema();
        if schema.field(0).name() != "time" || batch.column(0).null_count() > 0 || batch.num_rows() == 0 {
            return Err("a batch without times".to_owned());
        }
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            if ColumnType::from_arrow(field.data_type()).is_none() {
                return Err(format!("a column of type {}", field.data_type()));
            }
            column.to_data().validate_full().map_err(|error| format!("an array that is none: {error}"))?;
        }
    }
    let (rows, rejected) =
        (batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>(), decoder.rejected_count());
    if ended && (rows != decoder.rows_accepted() || rows + rejected != decoder.rows_seen()) {
        let (accepted, seen) = (decoder.rows_accepted(), decoder.rows_seen());
        return Err(format!("{rows} rows of {accepted} accepted, {rejected} rejected, {seen} seen"));
    }
    Ok(Read { batches, rejected, ended })
}

fn case(number: u64, seeds: &[Vec<u8>], format: Option<BodyFormat>, encoding: BodyEncoding) -> Outcome {
    let mut mutator = Mutator::new(number, seeds);
    let mut bytes = seeds[mutator.random().random_range(0..seeds.len())].clone();
    mutator.change(&mut bytes);
    let piece = [1, 7, 64, 4_096][mutator.random().random_range(0..4)];
    let whole = read(&bytes, format, encoding, usize::MAX)?;
    let in_pieces = read(&bytes, format, encoding, piece)?;
    let is_same = if whole.ended { whole == in_pieces } else { !in_pieces.ended };
    if !is_same {
        let said = |read: &Read| {
            let rows: usize = read.batches.iter().map(RecordBatch::num_rows).sum();
            format!("{rows} rows, {} rejected, to the end: {}", read.rejected, read.ended)
        };
        let (whole, pieces) = (said(&whole), said(&in_pieces));
        return Err(format!("at once {whole}; in pieces of {piece} {pieces}: {}", mutator.said()));
    }
    Ok(match (whole.ended, whole.rejected) {
        (true, 0) => "read",
        (true, _) => "rejected rows",
        (false, _) => "refused",
    }
    .to_owned())
}

fn events() -> Vec<rows::Row> {
    rows::rows(rows::RowsOf { seed: 3, count: 20, sampling: rows::Sampling::Ints })
}

/// The cases of NDJSON.
pub(crate) fn ndjson_cases() -> impl Fn(u64) -> Outcome {
    let odd = r#"{"time":"2026-03-01T00:00:00Z","a":{"b":[{"c":1e400},null,"\ud83d\ude00\u0000"]},"a.b":2}"#;
    let seeds = vec![rows::ndjson(&events()).into_bytes(), format!("{odd}\n\n{odd}").into_bytes()];
    move |number| case(number, &seeds, Some(BodyFormat::NdJson), BodyEncoding::Identity)
}

/// The cases of JSON arrays; the first bytes say what they are.
pub(crate) fn json_cases() -> impl Fn(u64) -> Outcome {
    let lines = rows::ndjson(&events());
    let array = format!("[{}]", lines.trim_end().replace('\n', ","));
    let deep = format!("[{}1{}]", "{\"a\":[".repeat(40), "]}".repeat(40));
    let seeds = vec![array.into_bytes(), deep.into_bytes()];
    move |number| case(number, &seeds, Some(BodyFormat::Json), BodyEncoding::Identity)
}

/// The cases of CSV.
pub(crate) fn csv_cases() -> impl Fn(u64) -> Outcome {
    let mut text = "time,host,n,\"odd, \"\"name\"\"\",ratio\r\n".to_owned();
    for n in 0..30 {
        text.push_str(&format!("2026-03-01T00:00:{n:02}Z,\"web,{n}\",{n},\"line\nbreak\",{n}.5\n"));
    }
    let seeds = vec![text.into_bytes(), b"\xef\xbb\xbfa,b\n1,2\n\"3".to_vec()];
    move |number| case(number, &seeds, Some(BodyFormat::Csv), BodyEncoding::Identity)
}

/// The cases of Arrow streams.
pub(crate) fn arrow_cases() -> impl Fn(u64) -> Outcome {
    let stream = |batch: &RecordBatch, options: IpcWriteOptions| {
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(batch).unwrap();
        writer.write(&batch.slice(3, 5)).unwrap();
        writer.into_inner().unwrap()
    };
    let batch = encodings::batch(0, 20);
    let host: Arc<dyn Array> = arrow::compute::cast(
        batch.column_by_name("host").unwrap(),
        &arrow::datatypes::DataType::Dictionary(
            Box::new(arrow::datatypes::DataType::Int8),
            Box::new(arrow::datatypes::DataType::Utf8),
        ),
    )
    .unwrap();
    let dictionary = RecordBatch::try_from_iter([("host", host)]).unwrap();
    let seeds =
        vec![stream(&batch, IpcWriteOptions::default()), stream(&dictionary, IpcWriteOptions::default())];
    move |number| case(number, &seeds, Some(BodyFormat::Arrow), BodyEncoding::Identity)
}

/// The cases of gzip and zstd around NDJSON.
pub(crate) fn packed_cases() -> impl Fn(u64) -> Outcome {
    let lines = rows::ndjson(&events()).into_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&lines).unwrap();
    let bomb = zstd::encode_all(&vec![b' '; 4 << 20][..], 1).unwrap();
    let seeds = vec![gzip.finish().unwrap(), zstd::encode_all(&lines[..], 3).unwrap(), bomb];
    move |number| {
        let encoding = if number.is_multiple_of(2) { BodyEncoding::Gzip } else { BodyEncoding::Zstd };
        case(number, &seeds, Some(BodyFormat::NdJson), encoding)
    }
}
