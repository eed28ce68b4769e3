//! Reads Arrow IPC streams from bytes that nobody vouches for.
//!
//! Messages are cut out of the stream here and looked at before the Arrow reader sees them: the length of a message,
//! of its arrays and of its buffers once decompressed must be within limits, and buffers must lie inside the message.
//! The reader then validates every array. It still panics on some schemas that no Arrow library writes, so it runs
//! under `catch_unwind`, and such a stream is broken like any other.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::buffer::Buffer;
use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use arrow_ipc::reader::StreamDecoder;

use super::IngestLimits;
use super::arrow_columns::Columns;
use super::tally::Intake;
use crate::error::{ErrorCode, Failure};

const CONTINUATION: [u8; 4] = [0xFF; 4];
/// The end of a stream, as the reader wants to see it.
const END: [u8; 8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
/// Length of a message without its body.
const HEADER_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Clone, Copy)]
enum State {
    /// The mark and the length of a message, so many bytes of which are the mark.
    Length(usize),
    /// A message header that ends at this byte of `message`.
    Header { start: usize, end: usize },
    /// A message body that ends at this byte of `message`.
    Body { end: usize },
    /// The mark of the end was there.
    End,
}

/// See the module.
pub(super) struct ArrowBody {
    limits: IngestLimits,
    decoder: StreamDecoder,
    state: State,
    /// The message so far, with its mark and length.
    message: Vec<u8>,
    /// Bytes of each dictionary that was sent in parts.
    dictionary_bytes: HashMap<i64, usize>,
    columns: Columns,
    /// Normalised rows of one schema that do not fill a batch yet.
    pending: Vec<RecordBatch>,
    pending_rows: usize,
    pending_bytes: usize,
}

impl ArrowBody {
    pub(super) fn new(time_field: &str, limits: IngestLimits, arrival_ns: i64) -> ArrowBody {
        ArrowBody {
            columns: Columns::new(time_field, limits.clone(), arrival_ns),
            limits,
            decoder: StreamDecoder::new(),
            state: State::Length(0),
            message: Vec::new(),
            dictionary_bytes: HashMap::new(),
            pending: Vec::new(),
            pending_rows: 0,
            pending_bytes: 0,
        }
    }

    pub(super) fn saw_time(&self) -> bool {
        self.columns.saw_time()
    }

    pub(super) fn time_candidate(&self) -> Option<&str> {
        self.columns.time_candidate()
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8], intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        while !bytes.is_empty() {
            let end = match self.state {
                State::Length(mark) => mark + 4,
                State::Header { end, .. } | State::Body { end } => end,
                State::End => return Err(broken(intake, "bytes follow the end of the stream")),
            };
            let wanted = end.saturating_sub(self.message.len()).min(bytes.len());
            let (now, later) = bytes.split_at(wanted);
            self.message.extend_from_slice(now);
            bytes = later;
            intake.tally.body_bytes += wanted as u64;
            while self.is_at_end_of_step() {
                self.step(intake)?;
            }
        }
        Ok(())
    }

    fn is_at_end_of_step(&self) -> bool {
        match self.state {
            State::Length(mark) => self.message.len() == mark + 4,
            State::Header { end, .. } | State::Body { end } => self.message.len() == end,
            State::End => false,
        }
    }

    /// The part of the message that was waited for is there.
    fn step(&mut self, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        self.state = match self.state {
            State::Length(mark) => {
                let word = self.message.get(mark..mark + 4).and_then(|word| <[u8; 4]>::try_from(word).ok());
                let word = word.unwrap_or_default();
                if mark == 0 && word == CONTINUATION {
                    State::Length(4)
                } else {
                    let length = u32::from_le_bytes(word) as usize;
                    let start = mark + 4;
                    if length > HEADER_BYTES_MAX {
                        return Err(too_large("header of an Arrow message", length, HEADER_BYTES_MAX));
                    }
                    if length == 0 { State::End } else { State::Header { start, end: start + length } }
                }
            }
            State::Header { start, end } => {
                let body = self.check_header(start).map_err(|error| match error {
                    HeaderError::Broken(what) => broken(intake, &what),
                    HeaderError::Limit(failure) => failure,
                })?;
                State::Body { end: end + body }
            }
            State::Body { .. } => {
                self.check_buffers(intake)?;
                let message = std::mem::take(&mut self.message);
                self.decode(Buffer::from_vec(message), intake)?;
                State::Length(0)
            }
            State::End => State::End,
        };
        Ok(())
    }

    /// Looks at the header that begins at `start`; gives the length of the body.
    fn check_header(&self, start: usize) -> Result<usize, HeaderError> {
        let header = self.message.get(start..).unwrap_or_default();
        let message = arrow_ipc::root_as_message(header)
            .map_err(|_| HeaderError::Broken("the header of a message is not one".to_owned()))?;
        let length = message.bodyLength();
        let limit = self.limits.arrow_message_bytes_max;
        match usize::try_from(length) {
            Ok(length) if length <= limit => Ok(length),
            Ok(length) => Err(HeaderError::Limit(too_large("Arrow message", length, limit))),
            Err(_) => Err(HeaderError::Broken(format!("a message says it has {length} bytes"))),
        }
    }

    /// Checks what a complete message says about its arrays and buffers.
    fn check_buffers(&mut self, intake: &Intake<'_, '_>) -> Result<(), Failure> {
        let start = if self.message.starts_with(&CONTINUATION) { 8 } else { 4 };
        let header = self.message.get(start..).unwrap_or_default();
        let not_one = |_| broken(intake, "the header of a message is not one");
        let message = arrow_ipc::root_as_message(header).map_err(not_one)?;
        let body_start =
            self.message.len().saturating_sub(usize::try_from(message.bodyLength()).unwrap_or(0));
        let body = self.message.get(body_start..).unwrap_or_default();
        let dictionary = message.header_as_dictionary_batch();
        let batch = match &dictionary {
            Some(dictionary) => dictionary.data(),
            None => message.header_as_record_batch(),
        };
        let Some(batch) = batch else { return Ok(()) };
        let values_max = self.limits.arrow_values_max;
        let nodes = batch.nodes().into_iter().flatten().map(|node| node.length());
        for length in nodes.chain([batch.length()]) {
            match usize::try_from(length) {
                Ok(values) if values <= values_max => {}
                Ok(values) => return Err(too_large("Arrow array, in values,", values, values_max)),
                Err(_) => return Err(broken(intake, &format!("an array says it has {length} values"))),
            }
        }
        let mut unpacked = 0_usize;
        for buffer in batch.buffers().into_iter().flatten() {
            let place = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
            let bytes = place.and_then(|(offset, length)| body.get(offset..offset.checked_add(length)?));
            let bytes = bytes.ok_or_else(|| broken(intake, "a buffer lies outside of its message"))?;
            let packed_length = bytes.first_chunk::<8>().filter(|_| batch.compression().is_some());
            let length = match packed_length.map(|length| i64::from_le_bytes(*length)) {
                // -1 says that this buffer was left as it is.
                None | Some(-1) => bytes.len(),
                Some(length) => usize::try_from(length)
                    .map_err(|_| broken(intake, &format!("a buffer says it has {length} bytes")))?,
            };
            unpacked = unpacked.saturating_add(length);
        }
        let limit = self.limits.arrow_message_bytes_max;
        if let Some(dictionary) = dictionary {
            let earlier = self.dictionary_bytes.entry(dictionary.id()).or_default();
            *earlier = if dictionary.isDelta() { earlier.saturating_add(unpacked) } else { unpacked };
            unpacked = self.dictionary_bytes.values().fold(0, |sum, bytes| sum.saturating_add(*bytes));
        }
        if unpacked > limit { Err(too_large("Arrow message once unpacked", unpacked, limit)) } else { Ok(()) }
    }

    /// Decodes a message. The reader acts on one without a body only when the next one comes.
    fn decode(&mut self, mut message: Buffer, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        while !message.is_empty() {
            let had_schema = self.decoder.schema().is_some();
            let decoder = &mut self.decoder;
            let batch = match catch_unwind(AssertUnwindSafe(|| decoder.decode(&mut message))) {
                Ok(Ok(batch)) => batch,
                Ok(Err(error)) => return Err(broken(intake, &error.to_string())),
                Err(_) => return Err(broken(intake, "a message says what no Arrow library writes")),
            };
            if !had_schema && let Some(schema) = self.decoder.schema() {
                self.columns.check_schema(&schema)?;
            }
            let Some(batch) = batch else { continue };
            let mut normalised = Vec::new();
            // The columns were validated, but kernels of all types run over them: none may end the process.
            let (columns, tally) = (&mut self.columns, &mut *intake.tally);
            let taken = catch_unwind(AssertUnwindSafe(|| columns.take(&batch, tally, &mut normalised)));
            for batch in normalised {
                self.put(batch, intake)?;
            }
            taken.unwrap_or_else(|_| Err(broken(intake, "a column cannot be read")))?;
        }
        Ok(())
    }

    /// Adds normalised rows to those that wait for a full batch.
    fn put(&mut self, batch: RecordBatch, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let bytes = bytes_in_use(&batch);
        let is_other = self.pending.first().is_some_and(|first| first.schema() != batch.schema());
        let rows = self.pending_rows + batch.num_rows();
        if is_other
            || rows > self.limits.batch_rows_max
            || self.pending_bytes + bytes > self.limits.batch_bytes_max
        {
            self.deliver_pending(intake)?;
        }
        self.pending_rows += batch.num_rows();
        self.pending_bytes += bytes;
        self.pending.push(batch);
        Ok(())
    }

    /// The rows that wait go to the sink.
    pub(super) fn deliver_pending(&mut self, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        let pending = std::mem::take(&mut self.pending);
        self.pending_rows = 0;
        self.pending_bytes = 0;
        let batch = match pending.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            [first, ..] => concat_batches(&first.schema(), &pending).map_err(|error| {
                Failure::new(ErrorCode::Internal, format!("cannot join row batches: {error}"))
            })?,
        };
        intake.deliver(batch)
    }

    pub(super) fn finish(&mut self, intake: &mut Intake<'_, '_>) -> Result<(), Failure> {
        match self.state {
            State::Length(_) if self.message.is_empty() => {}
            State::End => {}
            State::Length(_) | State::Header { .. } | State::Body { .. } => {
                return Err(broken(intake, "it ends inside a message"));
            }
        }
        self.decode(Buffer::from_vec(END.to_vec()), intake)?;
        self.deliver_pending(intake)
    }
}

/// Bytes of the rows of a batch, also when its arrays are slices of larger ones.
fn bytes_in_use(batch: &RecordBatch) -> usize {
    let sizes = batch.columns().iter().map(|array| array.to_data().get_slice_memory_size());
    sizes.map(|size| size.unwrap_or(0)).sum()
}

enum HeaderError {
    Broken(String),
    Limit(Failure),
}

fn broken(intake: &Intake<'_, '_>, what: &str) -> Failure {
    let (at, row) = (intake.tally.body_bytes, intake.tally.rows_seen);
    Failure::new(
        ErrorCode::BadRequest,
        format!("Arrow stream is broken before byte {at}, at row {row}: {what}"),
    )
}

fn too_large(what: &str, value: usize, limit: usize) -> Failure {
    Failure::new(ErrorCode::TooLarge, format!("{what} of {value} is larger than the limit of {limit}"))
}
