//! Row batches on their way into a leaf.
//!
//! In this order: everything that can be wrong with a batch is found; room is made; the ledger says whether it was
//! counted before and gives its rows their numbers; its record goes into the log; when it is there as safely as the
//! leaf promises, the rows become visible and the batch counts as counted; then it is acknowledged.
//!
//! Invariants: what fails before the log leaves nothing behind; what is in the log is never refused; a batch that is
//! sent again is acknowledged without being added, also while the first is still on its way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bytes::Bytes;
use gannet_proto::encode_batches;
use gannet_query::value::rows_bytes;
use gannet_query::{ColumnType, TIME_COLUMN, TableHolding};

use crate::cast::held_type;
use crate::coded_texts::{self, is_coded};
use crate::dedup::BatchName;
use crate::leaf::Leaf;
use crate::ledger::{Entry, Flight, State};
use crate::lifecycle::Request;
use crate::manifest::Edit;
use crate::open_rows::{OpenChunk, OpenRows};
use crate::row_ranges::{RowOrder, RowRanges};
use crate::surroundings::JobKind;
use crate::table::{Arrival, Table};
use crate::wal::{Durability, Record, RowsHeader, RowsRecord, Ticket};
use crate::{LeafError, held_block::HeldBlock};

/// Rows that wait to be sealed may take this many bytes; a large append that adds more seals its own.
const SEALING_BYTES_MAX: u64 = 256 << 20;
/// They may also take at most this part of a leaf's memory, and of what their table may take: rows that are not sealed
/// are several times as large, and the room they need for a while must not cost older rows.
pub(crate) const SEALING_PART_OF_MEMORY: u64 = 8;
/// Appends of fewer rows leave the sealing to others until twice as much waits.
const LARGE_APPEND_ROWS: usize = 4096;

/// Numbers that were given out in vain, on their way into the log.
type Withdrawn = (Ticket, String, RowRanges);

/// A row batch as a leaf is given it.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    /// For which table.
    pub table: &'a str,
    /// Its rows.
    pub rows: &'a [RecordBatch],
    /// The same rows as an Arrow IPC stream, if they came as one: it is logged as it is.
    pub encoded: Option<Bytes>,
    /// What it is called, so that it counts once however often it is sent.
    pub name: Option<BatchName>,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Receipt {
    /// It was counted before and was not added again.
    pub duplicate: bool,
    /// What its rows survive.
    pub durability: Durability,
    /// What the table holds now, with its columns if they changed.
    pub holding: TableHolding,
}

impl Leaf {
    /// Adds rows without a name to a table; see [`Leaf::append_batch`].
    ///
    /// # Errors
    /// As [`Leaf::append_batch`].
    pub fn append(self: &Arc<Self>, table: &str, rows: &[RecordBatch]) -> Result<TableHolding, LeafError> {
        let batch = Batch { table, rows, encoded: None, name: None };
        self.append_batch(batch).map(|receipt| receipt.holding)
    }

    /// Adds a row batch, all or nothing; its rows are visible to queries and safe when this returns.
    ///
    /// # Errors
    /// [`LeafError::NotServing`], [`LeafError::Full`], [`LeafError::Batch`], [`LeafError::Sequence`],
    /// [`LeafError::Log`]: nothing was kept then.
    pub fn append_batch(self: &Arc<Self>, batch: Batch<'_>) -> Result<Receipt, LeafError> {
        let _admitted = self.appends.read();
        self.admit(Request::Append)?;
        let table = batch.table;
        let receipt = |duplicate, holding| Receipt { duplicate, durability: self.config.durability, holding };
        let Some(rows) = self.check_batch(table, batch.rows)? else {
            return Ok(receipt(false, self.holding(table, false)));
        };
        // One that was counted before needs no room.
        if let Some(name) = &batch.name {
            let known = self.ledger.look_up(&mut self.ledger.open(), name, self.running_seconds())?;
            if matches!(known, Entry::Counted) {
                return Ok(receipt(true, self.holding(table, false)));
            }
        }
        let added = rows.num_rows();
        let chunk = OpenChunk::new(rows)
            .map_err(|error| LeafError::Batch { table: table.to_owned(), what: error.to_string() })?;
        self.check_log(table)?;
        self.make_room(table, chunk.bytes() as u64)?;
        let held = self.table_or_new(table)?;
        held.admit(&chunk, self.config.columns_per_table_max)?;
        let Some(flight) = self.log_rows(&chunk, &batch)? else {
            return Ok(receipt(true, self.holding(table, false)));
        };
        let schema_changed = self.insert(&held, chunk, flight.first_row, Arrival::New);
        self.rows_ingested.fetch_add(added as u64, Ordering::Relaxed);
        self.ledger.counted(flight, self.running_seconds());
        Ok(receipt(false, self.holding(table, schema_changed)))
    }

    /// Gives the rows their numbers and logs them; `None` when the batch was counted before.
    fn log_rows(&self, chunk: &OpenChunk, batch: &Batch<'_>) -> Result<Option<Flight>, LeafError> {
        let body = match &batch.encoded {
            Some(encoded) => encoded.clone(),
            None => encode_batches(&batch.rows[0].schema(), batch.rows)
                .map_err(|error| LeafError::Internal(format!("encode a batch: {error}")))?,
        };
        let rows = chunk.rows() as u64;
        let (ticket, flight, edits) = loop {
            let mut ledger = self.ledger.open();
            if let Some(name) = &batch.name {
                match self.ledger.look_up(&mut ledger, name, self.running_seconds())? {
                    Entry::New => {}
                    Entry::Counted => return Ok(None),
                    Entry::Waiting(landing) => {
                        drop(ledger);
                        match landing.wait() {
                            true => return Ok(None),
                            // The first one failed: this one is new again.
                            false => continue,
                        }
                    }
                }
            }
            let edits = self.submit_withdrawn(&mut ledger)?;
            let reached = self.wal.written_lsn();
            let flight = self.ledger.begin(&mut ledger, batch.table, rows, batch.name.clone(), reached);
            let header = header_of(batch, flight.first_row, rows, chunk.time_range());
            let record = Record::Rows(RowsRecord { header, body: body.clone() });
            break (self.wal.submit(record), flight, edits);
        };
        self.commit_withdrawn(edits);
        match self.wal.commit(&ticket) {
            Ok(_) => Ok(Some(flight)),
            Err(error) => {
                drop(flight);
                // At once, if the log takes it: after a crash before that the numbers would be taken for lost rows.
                let edits = self.submit_withdrawn(&mut self.ledger.open());
                self.commit_withdrawn(edits.unwrap_or_default());
                Err(error.into())
            }
        }
    }

    /// Hands the numbers that were given out in vain to the log.
    fn submit_withdrawn(&self, ledger: &mut State) -> Result<Vec<Withdrawn>, LeafError> {
        let mut edits = Vec::new();
        for (table, rows) in ledger.take_unlogged() {
            let edit = Edit::RowsWithdrawn { table: table.clone(), rows: rows.clone() };
            edits.push((self.submit_edit(&edit)?, table, rows));
        }
        Ok(edits)
    }

    fn commit_withdrawn(&self, edits: Vec<Withdrawn>) {
        for (edit, table, rows) in edits {
            if self.wal.commit(&edit).is_err() {
                self.ledger.open().give_back_unlogged(&table, &rows);
            }
        }
    }

    /// Makes logged rows visible. True when the table's columns changed.
    pub(crate) fn insert(
        self: &Arc<Self>,
        table: &Arc<Table>,
        chunk: OpenChunk,
        first_row: u64,
        arrival: Arrival,
    ) -> bool {
        let rows = chunk.rows();
        let mut numbers = RowOrder::default();
        numbers.push(first_row, rows as u64);
        let appended = table.insert(chunk.numbered(numbers), arrival, self.surroundings.clock.monotonic());
        self.used_bytes.fetch_add(appended.bytes_added, Ordering::Relaxed);
        let bytes_max = if rows < LARGE_APPEND_ROWS { 2 } else { 1 } * self.sealing_bytes_max(table.name());
        for run in appended.to_seal {
            self.seal(table, run, bytes_max);
        }
        appended.schema_changed
    }

    /// The batches as one, after every rule of `ingest.proto` was checked; `None` without rows.
    pub(crate) fn check_batch(
        &self,
        table: &str,
        batches: &[RecordBatch],
    ) -> Result<Option<RecordBatch>, LeafError> {
        let wrong = |what: String| LeafError::Batch { table: table.to_owned(), what };
        if table.is_empty() || table.len() > 128 {
            return Err(wrong(format!("its name has {} bytes, not 1 to 128", table.len())));
        }
        let Some(first) = batches.first() else { return Ok(None) };
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows > self.config.batch_rows_max {
            return Err(wrong(format!("it has {rows} rows, the limit is {}", self.config.batch_rows_max)));
        }
        let bytes = batches.iter().map(unpacked_bytes).fold(0, usize::saturating_add);
        if bytes > self.config.batch_bytes_max.saturating_mul(4) {
            let limit = self.config.batch_bytes_max.saturating_mul(4);
            return Err(wrong(format!("it takes {bytes} bytes, the limit is {limit}")));
        }
        if rows == 0 {
            return Ok(None);
        }
        let schema = first.schema();
        for (index, field) in schema.fields().iter().enumerate() {
            let name = field.name();
            if name.is_empty() || name.len() > 256 {
                return Err(wrong(format!("a column name has {} bytes, not 1 to 256", name.len())));
            }
            if schema.fields()[..index].iter().any(|other| other.name() == name) {
                return Err(wrong(format!("column {name} is there twice")));
            }
            let known = held_type(field.data_type());
            let is_time = known == Some(ColumnType::Time);
            if known.is_none() || is_time != (name == TIME_COLUMN) {
                return Err(wrong(format!("column {name} has type {}", field.data_type())));
            }
        }
        let rows = match batches {
            [one] => one.clone(),
            // Dictionaries of several batches are of several values.
            _ if schema.fields().iter().any(|field| is_coded(field.data_type())) => {
                return Err(wrong("dictionaries come in one record batch".to_owned()));
            }
            _ => concat_batches(&schema, batches).map_err(|error| wrong(error.to_string()))?,
        };
        match rows.column_by_name(TIME_COLUMN) {
            None => Err(wrong("it has no column time".to_owned())),
            Some(time) if arrow::array::Array::null_count(time) > 0 => {
                Err(wrong("a time is NULL".to_owned()))
            }
            Some(_) => Ok(Some(rows)),
        }
    }

    /// Refuses rows while the log is longer than it may be: it gets shorter when blocks are written.
    fn check_log(&self, table: &str) -> Result<(), LeafError> {
        let (bytes, limit) = (self.wal.bytes(), self.config.wal_bytes_max);
        if bytes <= limit {
            return Ok(());
        }
        Err(LeafError::LogFull { leaf: self.config.id.clone(), table: table.to_owned(), bytes, limit })
    }

    /// Bytes that may wait to be sealed when rows of this table are added.
    pub(crate) fn sealing_bytes_max(&self, table: &str) -> u64 {
        let room = match self.config.table_bytes_max_of(table) {
            0 => self.config.memory_limit_bytes,
            bytes_max => bytes_max.min(self.config.memory_limit_bytes),
        };
        SEALING_BYTES_MAX.min(room / SEALING_PART_OF_MEMORY)
    }

    /// Seals a run in the background, or at once when more than `bytes_max` bytes wait: whoever brings more than the
    /// background can seal does a part of it, and that slows the bringing.
    pub(crate) fn seal(self: &Arc<Self>, table: &Arc<Table>, run: Arc<OpenRows>, bytes_max: u64) {
        let bytes = run.bytes() as u64;
        let waiting = self.sealing_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (leaf, table) = (Arc::clone(self), Arc::clone(table));
        let work = move || {
            leaf.seal_now(&table, &run);
            drop(run);
            leaf.sealing_bytes.fetch_sub(bytes, Ordering::Relaxed);
        };
        if waiting > bytes_max {
            work();
        } else {
            self.surroundings.background.spawn(JobKind::Seal, Box::new(work));
        }
    }

    pub(crate) fn seal_now(self: &Arc<Self>, table: &Arc<Table>, run: &Arc<OpenRows>) {
        let id = self.next_block_id.fetch_add(1, Ordering::Relaxed);
        let block = match table.encode(run, id, self.config.encodings) {
            Ok(Some(block)) => block,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(table = table.name(), %error, "rows stay open");
                return;
            }
        };
        let held = self.place(HeldBlock::sealed(block, run.numbers()));
        // Together, so that a stop that finds all runs sealed finds all blocks waiting to be stored.
        let _together = self.sealed.lock();
        if let Some(grown) = table.put_sealed(run, Arc::new(held)) {
            self.used_bytes.fetch_add(grown, Ordering::Relaxed);
            self.store_soon(table, id);
        }
    }

    /// The edit's ticket in the log.
    pub(crate) fn submit_edit(&self, edit: &Edit) -> Result<Ticket, LeafError> {
        let text = serde_json::to_vec(edit)
            .map_err(|error| LeafError::Internal(format!("write an edit: {error}")))?;
        Ok(self.wal.submit(Record::Edit(text.into())))
    }
}

/// Bytes that the rows of a batch take, were its dictionaries unpacked.
fn unpacked_bytes(batch: &RecordBatch) -> usize {
    let texts = batch.columns().iter().filter_map(coded_texts::unpacked_bytes);
    let texts = texts.fold(0, u64::saturating_add);
    rows_bytes(batch).saturating_add(usize::try_from(texts).unwrap_or(usize::MAX))
}

/// What the log notes of a batch.
fn header_of(batch: &Batch<'_>, first_row: u64, rows: u64, (time_min, time_max): (i64, i64)) -> RowsHeader {
    let name = batch.name.as_ref();
    RowsHeader {
        table: batch.table.into(),
        first_row,
        rows,
        time_min,
        time_max,
        producer: name.map_or("", |name| name.producer.as_str()).into(),
        sequence: name.map_or(0, |name| name.sequence),
        part: name.map_or(0, |name| name.part),
        last_part: name.is_none_or(|name| name.last_part),
        idempotency_key: None,
    }
}

/// The name of a batch that the log noted; none for one that had none.
pub(crate) fn name_of(header: &RowsHeader) -> Option<BatchName> {
    (!header.producer.is_empty()).then(|| BatchName {
        table: header.table.to_string(),
        producer: header.producer.to_string(),
        sequence: header.sequence,
        part: header.part,
        last_part: header.last_part,
    })
}

/// The rows of a batch whose numbers begin at `first_row` that are not done, as batches with the number of their
/// first row.
pub(crate) fn rows_not_done(rows: &RecordBatch, first_row: u64, done: &RowRanges) -> Vec<(u64, RecordBatch)> {
    let missing = done.missing_in(first_row, first_row + rows.num_rows() as u64);
    let cut = |(from, to): (u64, u64)| (from, rows.slice((from - first_row) as usize, (to - from) as usize));
    missing.into_iter().map(cut).collect()
}
