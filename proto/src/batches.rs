//! Record batches and Arrow types as bytes, in Arrow's IPC stream format.
//!
//! Reading never trusts the bytes: every length and offset of a message that does not lie inside it is refused before
//! anything is allocated for it, compressed buffers are refused because they can name any size, and
//! the values are validated by Arrow. Arrow's own reader panics on some malformed schemas; such a panic is caught
//! here and becomes an error.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow_ipc::reader::{read_dictionary, read_record_batch};
use arrow_ipc::writer::{DictionaryTracker, StreamWriter};
use arrow_ipc::{MessageHeader, root_as_message, root_as_schema};
use bytes::Bytes;
use gannet_query::value::rows_bytes;

use crate::ConvertError;

/// Rows in one record batch that is read; no message of 64 MiB needs more.
pub const BATCH_ROWS_MAX: i64 = 1 << 24;

/// Record batches in one stream that is read.
pub const BATCHES_MAX: usize = 65_536;

/// Streams up to this length are copied when their values are not where they may be read in place; 64 KiB.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// Room for the schema and the end of a stream.
const HEADER_BYTES: usize = 4096;

/// Marks the beginning of each message of an IPC stream.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Batches of one schema as one IPC stream.
///
/// # Errors
/// When the batches differ in schema, or Arrow cannot write one of their types.
pub fn encode_batches(schema: &Schema, batches: &[RecordBatch]) -> Result<Bytes, ConvertError> {
    // The buffers, what describes each of them, and room to begin each at its place.
    let buffers = |batch: &RecordBatch| rows_bytes(batch) + 256 * (batch.num_columns() + 1);
    let bytes: usize = batches.iter().map(buffers).sum();
    let write = || {
        let mut writer = StreamWriter::try_new(Vec::with_capacity(bytes + HEADER_BYTES), schema)?;
        batches.iter().try_for_each(|batch| writer.write(batch))?;
        writer.into_inner()
    };
    write().map(Bytes::from).map_err(|error| ConvertError::Arrow { what: "rows", text: error.to_string() })
}

/// The batches of an IPC stream, each checked against the stream's schema.
///
/// # Errors
/// When the bytes are not an IPC stream of uncompressed, valid batches.
pub fn decode_batches(bytes: &Bytes) -> Result<Vec<RecordBatch>, ConvertError> {
    let batches = guarded("rows", || {
        let mut rest = aligned(bytes);
        let mut reader = Reader::default();
        let mut batches = Vec::new();
        for _ in 0..BATCHES_MAX {
            let Some(metadata) = next_metadata(&mut rest)? else { return Ok(Some(batches)) };
            batches.extend(reader.read(metadata, &mut rest)?);
        }
        Ok(next_metadata(&mut rest)?.is_none().then_some(batches))
    });
    batches?.ok_or(ConvertError::Limit { what: "record batches", limit: BATCHES_MAX as u64 })
}

/// One array as bytes.
///
/// # Errors
/// As [`encode_batches`].
pub fn encode_array(array: &ArrayRef) -> Result<Bytes, ConvertError> {
    let schema = Arc::new(Schema::new(vec![Field::new("value", array.data_type().clone(), true)]));
    let options = RecordBatchOptions::new().with_row_count(Some(array.len()));
    let batch = RecordBatch::try_new_with_options(schema.clone(), vec![array.clone()], &options)
        .map_err(|error| ConvertError::Arrow { what: "value", text: error.to_string() })?;
    encode_batches(&schema, &[batch])
}

/// The array of [`encode_array`].
///
/// # Errors
/// When the bytes are not one batch of one column.
pub fn decode_array(bytes: &Bytes) -> Result<ArrayRef, ConvertError> {
    let batches = decode_batches(bytes)?;
    match batches.as_slice() {
        [batch] if batch.num_columns() == 1 => Ok(batch.column(0).clone()),
        _ => Err(ConvertError::Arrow { what: "value", text: "not one batch of one column".to_owned() }),
    }
}

/// An Arrow type as bytes.
pub fn encode_type(data_type: &DataType) -> Bytes {
    let schema = Schema::new(vec![Field::new("type", data_type.clone(), true)]);
    let mut dictionaries = DictionaryTracker::new(false);
    let encoded = IpcSchemaEncoder::new().with_dictionary_tracker(&mut dictionaries).schema_to_fb(&schema);
    Bytes::copy_from_slice(encoded.finished_data())
}

/// The type of [`encode_type`].
///
/// # Errors
/// When the bytes are not a schema of one field.
pub fn decode_type(bytes: &[u8]) -> Result<DataType, ConvertError> {
    guarded("type", || {
        let schema = root_as_schema(bytes).map_err(|error| error.to_string())?;
        let schema = fb_to_schema(schema);
        match schema.fields().as_ref() {
            [field] => Ok(field.data_type().clone()),
            fields => Err(format!("schema has {} fields, not 1", fields.len())),
        }
    })
}

/// Runs a reader of Arrow's, whose panics on malformed input become errors. It only reads bytes and builds values that
/// are dropped on the way out, so nothing can be left half done.
fn guarded<T>(what: &'static str, read: impl FnOnce() -> Result<T, String>) -> Result<T, ConvertError> {
    let text = match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(text)) => text,
        Err(_) => "malformed Arrow data".to_owned(),
    };
    Err(ConvertError::Arrow { what, text })
}

/// The stream where its values may be read in place: small ones are copied at once rather than column by column.
fn aligned(bytes: &Bytes) -> Buffer {
    match bytes.as_ptr().align_offset(align_of::<i128>()) {
        1.. if bytes.len() <= COPIED_BYTES_MAX => Buffer::from_slice_ref(bytes),
        _ => Buffer::from(bytes.clone()),
    }
}

/// Takes what describes the next message from the stream; `None` at its end.
fn next_metadata(rest: &mut Buffer) -> Result<Option<Buffer>, String> {
    if rest.is_empty() {
        return Ok(None);
    }
    let head = rest.get(..8).ok_or("the stream ends inside a message's length")?;
    if head[..4] != CONTINUATION {
        return Err("a message does not begin with the continuation mark".to_owned());
    }
    let length = i32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let length = usize::try_from(length).map_err(|_| "a message has a negative length")?;
    rest.advance(8);
    match length {
        0 if rest.is_empty() => Ok(None),
        0 => Err("bytes follow the end of the stream".to_owned()),
        _ => take(rest, length).map(Some).ok_or_else(|| "the stream ends inside a message".to_owned()),
    }
}

/// So many bytes from the beginning of these, if there are so many.
fn take(rest: &mut Buffer, length: usize) -> Option<Buffer> {
    let taken = (length <= rest.len()).then(|| rest.slice_with_length(0, length))?;
    rest.advance(length);
    Some(taken)
}

/// What the messages of a stream said so far.
#[derive(Default)]
struct Reader {
    schema: Option<SchemaRef>,
    dictionaries: HashMap<i64, ArrayRef>,
}

thread_local! {
    /// The schema that was read last, after the message that it is: children that answer one question say the same.
    static NEWEST_SCHEMA: RefCell<Option<(Buffer, SchemaRef)>> = const { RefCell::new(None) };
}

impl Reader {
    /// Reads a message, whose body is next in the stream. A batch is given back, anything else kept.
    fn read(&mut self, metadata: Buffer, rest: &mut Buffer) -> Result<Option<RecordBatch>, String> {
        if self.schema.is_none() {
            self.schema = newest_schema(&metadata);
            if self.schema.is_some() {
                return Ok(None);
            }
        }
        let message = root_as_message(&metadata).map_err(|error| error.to_string())?;
        let body = usize::try_from(message.bodyLength()).ok().and_then(|length| take(rest, length));
        let body = body.ok_or("the stream ends inside a message's body")?;
        let text = |error: ArrowError| error.to_string();
        match (message.header_type(), &self.schema) {
            (MessageHeader::Schema, None) if body.is_empty() => {
                let schema = message.header_as_schema().ok_or("the schema has no header")?;
                let schema = Arc::new(fb_to_schema(schema));
                if metadata.len() <= COPIED_BYTES_MAX {
                    // Not as a part of the stream, which it would keep.
                    let newest = (Buffer::from_slice_ref(&metadata), Arc::clone(&schema));
                    NEWEST_SCHEMA.with(|kept| *kept.borrow_mut() = Some(newest));
                }
                self.schema = Some(schema);
                Ok(None)
            }
            (MessageHeader::RecordBatch, Some(schema)) => {
                let batch = checked_batch(message.header_as_record_batch(), body.len())?;
                let (schema, version) = (Arc::clone(schema), message.version());
                read_record_batch(&body, batch, schema, &self.dictionaries, None, &version)
                    .map(Some)
                    .map_err(text)
            }
            (MessageHeader::DictionaryBatch, Some(schema)) => {
                let dictionary = message.header_as_dictionary_batch().ok_or("a dictionary has no header")?;
                checked_batch(dictionary.data(), body.len())?;
                read_dictionary(&body, dictionary, schema, &mut self.dictionaries, &message.version())
                    .map(|()| None)
                    .map_err(text)
            }
            _ => Err("a message is neither the schema at the beginning nor a batch after it".to_owned()),
        }
    }
}

/// The schema of this message, if it was the last that this thread read.
fn newest_schema(metadata: &Buffer) -> Option<SchemaRef> {
    NEWEST_SCHEMA.with(|kept| {
        let kept = kept.borrow();
        kept.as_ref().filter(|(message, _)| message == metadata).map(|(_, schema)| Arc::clone(schema))
    })
}

/// A batch of which no length or offset lies outside its body.
fn checked_batch(
    batch: Option<arrow_ipc::RecordBatch<'_>>,
    body: usize,
) -> Result<arrow_ipc::RecordBatch<'_>, String> {
    let batch = batch.ok_or("a batch has no header")?;
    if batch.compression().is_some() {
        return Err("buffers are compressed".to_owned());
    }
    if !(0..=BATCH_ROWS_MAX).contains(&batch.length()) {
        return Err(format!("a batch has {} rows, limit {BATCH_ROWS_MAX}", batch.length()));
    }
    let mut buffer_count = 0;
    for buffer in batch.buffers().iter().flatten() {
        let end = usize::try_from(buffer.offset())
            .ok()
            .zip(usize::try_from(buffer.length()).ok())
            .and_then(|(offset, length)| offset.checked_add(length));
        if end.is_none_or(|end| end > body) {
            return Err("a buffer lies outside its message".to_owned());
        }
        buffer_count += 1;
    }
    for node in batch.nodes().iter().flatten() {
        // A list may have more items than rows, but each item needs a bit of the body at least, or is NULL.
        let items_max = BATCH_ROWS_MAX.max(body as i64 * 8);
        if !(0..=items_max).contains(&node.length()) || !(0..=node.length()).contains(&node.null_count()) {
            return Err(format!("a column has {} values and {} NULLs", node.length(), node.null_count()));
        }
    }
    let variadic: i64 = batch
        .variadicBufferCounts()
        .iter()
        .flatten()
        .fold(0, |sum: i64, count| if count < 0 { i64::MAX } else { sum.saturating_add(count) });
    if variadic > buffer_count {
        return Err("a view column names buffers that are not there".to_owned());
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        DictionaryArray, Float64Array, Int64Array, ListArray, NullArray, StringArray, StringViewArray,
    };
    use arrow::datatypes::{Int8Type, Int64Type, IntervalUnit, TimeUnit};
    use proptest::prelude::*;

    use super::*;

    fn batch() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("int", Arc::new(Int64Array::from(vec![Some(1), None, Some(i64::MIN)]))),
            ("float", Arc::new(Float64Array::from(vec![f64::NAN, -0.0, 1.5]))),
            ("text", Arc::new(StringArray::from(vec![Some("a"), None, Some("gänse")]))),
            ("view", Arc::new(StringViewArray::from(vec!["short", "a text longer than twelve bytes", ""]))),
            ("code", Arc::new(["x", "y", "x"].into_iter().collect::<DictionaryArray<Int8Type>>())),
            (
                "list",
                Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
                    Some(vec![Some(1), None]),
                    None,
                    Some(vec![]),
                ])),
            ),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
            .unwrap()
    }

    #[test]
    fn batches_come_back_as_they_went() {
        let batch = batch();
        let bytes = encode_batches(&batch.schema(), &[batch.clone(), batch.slice(1, 1)]).unwrap();
        let back = decode_batches(&bytes).unwrap();
        assert_eq!(back, [batch.clone(), batch.slice(1, 1)]);
        let none = encode_batches(&batch.schema(), &[]).unwrap();
        assert_eq!(decode_batches(&none).unwrap(), []);
        assert_eq!(decode_batches(&Bytes::new()).unwrap(), []);
    }

    #[test]
    fn batches_come_back_from_wherever_their_bytes_lie_and_whatever_was_read_before() {
        let batch = batch();
        let others = batch.project(&[2, 0]).unwrap();
        for at in [0, 1, 4, 8, 15] {
            for batch in [&batch, &others, &others, &batch] {
                let bytes = encode_batches(&batch.schema(), std::slice::from_ref(batch)).unwrap();
                let moved = Bytes::from([&vec![7; at], bytes.as_ref()].concat()).slice(at..);
                assert_eq!(decode_batches(&moved).unwrap(), std::slice::from_ref(batch));
            }
        }
    }

    #[test]
    fn rows_without_columns_keep_their_count() {
        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let schema = Arc::new(Schema::empty());
        let batch = RecordBatch::try_new_with_options(schema.clone(), vec![], &options).unwrap();
        let bytes = encode_batches(&schema, &[batch]).unwrap();
        assert_eq!(decode_batches(&bytes).unwrap()[0].num_rows(), 7);
    }

    #[test]
    fn types_come_back_as_they_went() {
        let item = Arc::new(Field::new("item", DataType::Utf8View, false));
        let types = [
            DataType::Null,
            DataType::Int8,
            DataType::Decimal128(12, -3),
            DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::List(item.clone()),
            DataType::Struct(vec![item].into()),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        ];
        for data_type in types {
            assert_eq!(decode_type(&encode_type(&data_type)), Ok(data_type));
        }
    }

    fn check_refused(batch: &RecordBatch, options: arrow_ipc::writer::IpcWriteOptions, expect: &str) {
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(batch).unwrap();
        let bytes = Bytes::from(writer.into_inner().unwrap());
        let error = decode_batches(&bytes).unwrap_err();
        assert_eq!(error, ConvertError::Arrow { what: "rows", text: expect.to_owned() });
    }

    #[test]
    fn sizes_that_bytes_do_not_back_are_refused() {
        let options = arrow_ipc::writer::IpcWriteOptions::default();
        let zstd = options.clone().try_with_compression(Some(arrow_ipc::CompressionType::ZSTD)).unwrap();
        let long: ArrayRef = Arc::new(Int64Array::from(vec![7; 1000]));
        check_refused(&RecordBatch::try_from_iter([("a", long)]).unwrap(), zstd, "buffers are compressed");
        let nulls: ArrayRef = Arc::new(NullArray::new(1 << 40));
        let batch = RecordBatch::try_from_iter([("a", nulls)]).unwrap();
        check_refused(&batch, options, "a batch has 1099511627776 rows, limit 16777216");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn hostile_bytes_are_errors_not_panics(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let batch = batch();
            let mut bytes = encode_batches(&batch.schema(), &[batch]).unwrap().to_vec();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            // A changed value may be a valid one; all that is asked is a result.
            let _ = decode_batches(&Bytes::from(bytes.clone()));
            let _ = decode_type(&bytes);
        }

        #[test]
        fn random_bytes_are_errors(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            prop_assert!(decode_batches(&Bytes::from(bytes.clone())).is_err());
            let _ = decode_type(&bytes);
        }
    }
}
