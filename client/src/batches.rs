//! An answer batch by batch: an Arrow IPC stream decoded while it arrives, in memory for one batch at a time.
//!
//! The record of completeness and the statistics stand in the metadata of the schema, so they are known before the first
//! row is.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow_ipc::reader::StreamDecoder;
use reqwest::Response;
use serde::de::DeserializeOwned;

use crate::answer::{Answer, Stats};
use crate::completeness::Completeness;
use crate::error::{Error, ErrorKind};

/// Where the record of completeness stands in the metadata of the schema.
const COMPLETENESS: &str = "gannet.completeness";
/// Where the statistics stand.
const STATS: &str = "gannet.stats";
/// A connection on which nothing comes for so long is broken.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// An answer that is arriving. Dropping it closes the connection.
#[derive(Debug)]
pub struct Batches {
    address: String,
    response: Response,
    decoder: StreamDecoder,
    /// Bytes that arrived and are not decoded yet.
    rest: Buffer,
    schema: SchemaRef,
    completeness: Completeness,
    stats: Stats,
    first: Option<RecordBatch>,
    ended: bool,
}

impl Batches {
    /// Reads as far as the schema.
    pub(crate) async fn start(address: String, response: Response) -> Result<Batches, Error> {
        let mut batches = Batches {
            address,
            response,
            decoder: StreamDecoder::new(),
            rest: Buffer::default(),
            schema: SchemaRef::new(arrow::datatypes::Schema::empty()),
            completeness: Completeness::default(),
            stats: Stats::default(),
            first: None,
            ended: false,
        };
        batches.first = batches.read().await?;
        let Some(schema) = batches.decoder.schema() else {
            return Err(Error::foreign(&batches.address, "no Arrow stream", b""));
        };
        // Without the record nobody knows what is missing, which is what the default says.
        batches.completeness = batches.metadata(&schema, COMPLETENESS)?.unwrap_or_default();
        batches.stats = batches.metadata(&schema, STATS)?.unwrap_or_default();
        batches.schema = schema;
        Ok(batches)
    }

    fn metadata<T: DeserializeOwned>(&self, schema: &SchemaRef, key: &str) -> Result<Option<T>, Error> {
        let Some(text) = schema.metadata().get(key) else { return Ok(None) };
        let read = serde_json::from_str(text);
        read.map(Some).map_err(|error| {
            let why = format!("metadata {key} of the schema: {error}");
            Error::foreign(&self.address, &why, text.as_bytes())
        })
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How complete the answer is.
    pub fn completeness(&self) -> &Completeness {
        &self.completeness
    }

    /// What the answer took.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The next rows; `None` after the last ones.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no Arrow stream.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        match self.first.take() {
            Some(batch) => Ok(Some(batch)),
            None => self.read().await,
        }
    }

    /// All rows that are left.
    ///
    /// # Errors
    /// As [`Batches::next`].
    pub async fn collect(mut self) -> Result<Answer, Error> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        Ok(Answer { schema: self.schema, batches, completeness: self.completeness, stats: self.stats })
    }

    async fn read(&mut self) -> Result<Option<RecordBatch>, Error> {
        loop {
            if !self.rest.is_empty() {
                let decoded = self.decoder.decode(&mut self.rest);
                if let Some(batch) = decoded.map_err(|error| self.damaged(&error))? {
                    return Ok(Some(batch));
                }
            }
            if self.ended {
                return Ok(None);
            }
            let arrived = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await;
            let arrived = arrived.map_err(|_| Error::timed_out(&self.address, SILENCE_MAX))?;
            match arrived.map_err(|error| Error::of_connection(&self.address, &error, SILENCE_MAX))? {
                Some(bytes) => self.rest = Buffer::from(bytes),
                None => {
                    self.ended = true;
                    let finished = self.decoder.finish();
                    finished.map_err(|_| {
                        let message = format!("the reply of {} broke off", self.address);
                        Error::new(ErrorKind::BrokenOff, message)
                    })?;
                }
            }
        }
    }

    fn damaged(&self, error: &arrow::error::ArrowError) -> Error {
        Error::foreign(&self.address, &format!("no Arrow stream: {error}"), b"")
    }
}
