//! Parquet and Arrow files as Arrow IPC streams of bounded size: one batch of rows at a time, never the whole file.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_ipc::writer::StreamWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::ingest::cut::{Limits, Piece};
use crate::ingest::source::{Reading, Sink, Source};
use crate::outcome::Failure;

/// The first bytes of an Arrow IPC file.
pub(crate) const ARROW_FILE_MAGIC: &[u8] = b"ARROW1";
/// What an Arrow IPC stream is called over HTTP.
pub(crate) const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";
/// Rows that are decoded from Parquet at once, whatever a piece may have.
const PARQUET_ROWS_MAX: u64 = 65_536;

/// Reads a Parquet file.
pub(crate) fn read_parquet(
    source: &Source,
    file: File,
    reading: &Reading,
    sink: &mut Sink<'_>,
) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::failed(format!("read {source} as Parquet: {error}"));
    let bytes = file.metadata().map_err(|error| failed(&error))?.len();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failed(&error))?;
    let rows_all = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0).max(1);
    let rows_at_once = reading.limits.rows.clamp(1, PARQUET_ROWS_MAX);
    let reader = builder.with_batch_size(rows_at_once as usize).build().map_err(|error| failed(&error))?;
    let mut posting = Posting { source, limits: reading.limits, rows_done: 0, sink };
    // The file is read out of order; rows tell the progress.
    let (mut rows, mut counted) = (0, 0);
    for batch in reader {
        let batch = batch.map_err(|error| failed(&error))?;
        rows += batch.num_rows() as u64;
        if !posting.post(&batch)? {
            return Ok(());
        }
        let now = (u128::from(bytes) * u128::from(rows.min(rows_all)) / u128::from(rows_all)) as u64;
        reading.bytes_read.fetch_add(now - counted, Ordering::Relaxed);
        counted = now;
    }
    Ok(())
}

/// Reads an Arrow IPC file.
pub(crate) fn read_arrow_file(
    source: &Source,
    file: File,
    reading: &Reading,
    sink: &mut Sink<'_>,
) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::failed(format!("read {source} as an Arrow file: {error}"));
    let bytes = file.metadata().map_err(|error| failed(&error))?.len();
    let reader = FileReader::try_new_buffered(file, None).map_err(|error| failed(&error))?;
    let each = bytes / (reader.num_batches() as u64).max(1);
    let mut posting = Posting { source, limits: reading.limits, rows_done: 0, sink };
    for batch in reader {
        if !posting.post(&batch.map_err(|error| failed(&error))?)? {
            return Ok(());
        }
        reading.bytes_read.fetch_add(each, Ordering::Relaxed);
    }
    Ok(())
}

/// Reads an Arrow IPC stream.
pub(crate) fn read_arrow_stream(
    source: &Source,
    input: impl Read,
    limits: Limits,
    sink: &mut Sink<'_>,
) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::failed(format!("read {source} as an Arrow stream: {error}"));
    let reader = StreamReader::try_new(input, None).map_err(|error| failed(&error))?;
    let mut posting = Posting { source, limits, rows_done: 0, sink };
    for batch in reader {
        if !posting.post(&batch.map_err(|error| failed(&error))?)? {
            return Ok(());
        }
    }
    Ok(())
}

struct Posting<'a, 'b> {
    source: &'a Source,
    limits: Limits,
    rows_done: u64,
    sink: &'a mut Sink<'b>,
}

impl Posting<'_, '_> {
    /// Posts a batch in as many pieces as its size asks for; `false` when nobody wants more.
    fn post(&mut self, batch: &RecordBatch) -> Result<bool, Failure> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(true);
        }
        let by_bytes = gannet_query::value::rows_bytes(batch).div_ceil(self.limits.bytes.max(1)).max(1);
        let by_rows = (rows as u64).div_ceil(self.limits.rows.max(1)) as usize;
        let rows_each = rows.div_ceil(by_bytes.max(by_rows)).max(1);
        for first in (0..rows).step_by(rows_each) {
            let slice = batch.slice(first, rows_each.min(rows - first));
            let body = encode(&slice).map_err(|error| {
                Failure::failed(format!("write rows of {} as Arrow IPC: {error}", self.source))
            })?;
            let piece = Piece {
                body: body.into(),
                content_type: ARROW_STREAM,
                first_row: self.rows_done + 1,
                rows: slice.num_rows() as u64,
            };
            self.rows_done += piece.rows;
            if !(self.sink)(piece) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// One batch as an Arrow IPC stream.
pub(crate) fn encode(batch: &RecordBatch) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(batch)?;
    writer.into_inner()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, Int64Array, StringArray};
    use parquet::arrow::ArrowWriter;

    use super::*;
    use crate::ingest::source::{Format, read};

    fn batch(rows: i64) -> RecordBatch {
        let numbers: Arc<dyn Array> = Arc::new(Int64Array::from_iter_values(0..rows));
        let names: Arc<dyn Array> =
            Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("n{row}"))));
        RecordBatch::try_from_iter([("number", numbers), ("name", names)]).unwrap()
    }

    /// The numbers of each piece that is read from a file.
    fn pieces(path: &std::path::Path, format: Option<Format>, rows: u64) -> Result<Vec<Vec<i64>>, Failure> {
        let reading = Reading { format, limits: Limits { bytes: 1 << 20, rows }, bytes_read: Arc::default() };
        let mut pieces = Vec::new();
        read(&Source::File(path.to_owned()), &reading, &mut |piece| {
            assert_eq!(piece.content_type, ARROW_STREAM);
            let mut numbers = Vec::new();
            for batch in StreamReader::try_new(piece.body.as_ref(), None).unwrap() {
                let batch = batch.unwrap();
                let column = batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap();
                numbers.extend(column.values());
            }
            assert_eq!(piece.rows, numbers.len() as u64);
            assert_eq!(piece.first_row, numbers[0] as u64 + 1);
            pieces.push(numbers);
            true
        })?;
        Ok(pieces)
    }

    #[test]
    fn columnar_files_are_read_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let expect: Vec<Vec<i64>> = vec![(0..4).collect(), (4..8).collect(), vec![8, 9]];
        let parquet = folder.path().join("t.parquet");
        let mut writer =
            ArrowWriter::try_new(File::create(&parquet).unwrap(), batch(1).schema(), None).unwrap();
        writer.write(&batch(10)).unwrap();
        writer.close().unwrap();
        assert_eq!(pieces(&parquet, None, 4).unwrap(), expect);

        let file = folder.path().join("t.arrow");
        let mut writer =
            arrow_ipc::writer::FileWriter::try_new(File::create(&file).unwrap(), &batch(1).schema()).unwrap();
        writer.write(&batch(10)).unwrap();
        writer.finish().unwrap();
        assert_eq!(pieces(&file, None, 4).unwrap(), expect);

        let stream = folder.path().join("stream");
        std::fs::write(&stream, encode(&batch(10)).unwrap()).unwrap();
        assert_eq!(pieces(&stream, None, 4).unwrap(), expect);
        std::fs::write(&stream, &encode(&batch(10)).unwrap()[..300]).unwrap();
        let message = pieces(&stream, None, 4).unwrap_err().message;
        assert!(message.starts_with(&format!("read {} as an Arrow stream: ", stream.display())), "{message}");

        let wrong = folder.path().join("wrong.parquet");
        std::fs::write(&wrong, "no such thing").unwrap();
        let message = pieces(&wrong, None, 4).unwrap_err().message;
        assert!(message.starts_with(&format!("read {} as Parquet: ", wrong.display())), "{message}");
    }
}
