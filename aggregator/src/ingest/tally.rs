//! Counting rows, and the path each takes into a batch.

use arrow::record_batch::RecordBatch;

use super::Sink;
use super::batch::BatchBuilder;
use super::row_error::RowError;
use crate::error::Failure;

/// A row that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rejection {
    /// Its number in the request, from 0. Blank lines and a CSV header have none.
    pub row: u64,
    /// Why.
    pub error: String,
}

/// What was seen of a body so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rows_seen: u64,
    pub(super) rejected_count: u64,
    pub(super) rejections: Vec<Rejection>,
    /// Bytes of the unpacked body that were read.
    pub(super) body_bytes: u64,
    kept_max: usize,
}

impl Tally {
    pub(super) fn new(kept_max: usize) -> Tally {
        Tally { kept_max, ..Tally::default() }
    }

    pub(super) fn reject(&mut self, row: u64, error: &RowError) {
        self.rejected_count += 1;
        if self.rejections.len() < self.kept_max {
            self.rejections.push(Rejection { row, error: error.to_string() });
        }
    }
}

/// Where a format puts its rows.
pub(super) struct Intake<'a, 's> {
    pub(super) builder: &'a mut BatchBuilder,
    pub(super) tally: &'a mut Tally,
    pub(super) sink: &'a mut Sink<'s>,
}

impl Intake<'_, '_> {
    /// One row: `fill` puts its values into the batch. What goes wrong with it concerns this row alone.
    pub(super) fn row(
        &mut self,
        fill: impl FnOnce(&mut BatchBuilder) -> Result<(), RowError>,
    ) -> Result<(), Failure> {
        self.row_of(&[], fill)
    }

    /// One row whose texts may be put as parts of `source`.
    pub(super) fn row_of(
        &mut self,
        source: &[u8],
        fill: impl FnOnce(&mut BatchBuilder) -> Result<(), RowError>,
    ) -> Result<(), Failure> {
        let row = self.tally.rows_seen;
        self.tally.rows_seen += 1;
        self.builder.begin_row();
        match fill(self.builder).and_then(|()| self.builder.end_row_of(source)) {
            Ok(()) => self.deliver_ready(),
            Err(error) => {
                self.builder.abandon_row();
                self.tally.reject(row, &error);
                Ok(())
            }
        }
    }

    /// One row that is rejected before anything is read of it.
    pub(super) fn reject_row(&mut self, error: &RowError) {
        self.tally.reject(self.tally.rows_seen, error);
        self.tally.rows_seen += 1;
    }

    /// A batch that did not come from the builder.
    pub(super) fn deliver(&mut self, batch: RecordBatch) -> Result<(), Failure> {
        (self.sink)(batch)
    }

    #[inline]
    fn deliver_ready(&mut self) -> Result<(), Failure> {
        if !self.builder.is_ready() {
            return Ok(());
        }
        for batch in self.builder.take_ready()? {
            (self.sink)(batch)?;
        }
        Ok(())
    }

    /// Every row taken so far goes to the sink, in a batch that may be small.
    pub(super) fn deliver_all(&mut self) -> Result<(), Failure> {
        self.builder.close_batch();
        self.deliver_ready()
    }
}
