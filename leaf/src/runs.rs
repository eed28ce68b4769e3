//! Row blocks and chunks of open rows as the scan sees them.

use std::sync::Arc;

use gannet_query::TypeSet;

use crate::column::Column;
use crate::held_block::HeldBlock;
use crate::open_rows::OpenChunk;
use crate::scan::{RowRun, RunError};
use crate::table::TableState;

/// Every run of a snapshot: blocks, rows being sealed, open rows.
pub fn runs_of(state: &TableState) -> Vec<Arc<dyn RowRun>> {
    let blocks = state.blocks.iter().map(|held| Arc::clone(held) as Arc<dyn RowRun>);
    let open =
        state.open_runs().flat_map(|open| open.chunks()).map(|chunk| Arc::clone(chunk) as Arc<dyn RowRun>);
    blocks.chain(open).collect()
}

impl RowRun for HeldBlock {
    fn ready(&self) -> Result<(), RunError> {
        self.readable().map(|_| ()).map_err(|error| RunError(error.to_string()))
    }

    fn rows(&self) -> usize {
        HeldBlock::rows(self)
    }

    fn time_range(&self) -> (i64, i64) {
        HeldBlock::time_range(self)
    }

    fn column(&self, name: &str) -> Result<Option<Column>, RunError> {
        HeldBlock::column(self, name).map_err(|error| RunError(error.to_string()))
    }

    fn column_at(&self, name: &str, rows: &[u32]) -> Result<Option<Column>, RunError> {
        HeldBlock::column_at(self, name, rows).map_err(|error| RunError(error.to_string()))
    }

    fn find(&self, name: &str, near: usize) -> Option<(usize, TypeSet)> {
        HeldBlock::find(self, name, near)
    }

    fn int_range(&self, name: &str, near: usize) -> Option<(i64, i64)> {
        self.readable().ok()?.find(name, near)?.1.int_range()
    }

    fn may_hold_text(&self, name: &str, value: &str, is_prefix: bool) -> bool {
        HeldBlock::may_hold_text(self, name, value, is_prefix)
    }

    fn int_sum(&self, name: &str, near: usize) -> Option<(i128, u64)> {
        let (_, meta) = self.readable().ok()?.find(name, near)?;
        Some((meta.int_sum?, meta.null_count))
    }

    fn is_block(&self) -> bool {
        true
    }
}

impl RowRun for OpenChunk {
    fn rows(&self) -> usize {
        self.rows()
    }

    fn time_range(&self) -> (i64, i64) {
        self.time_range()
    }

    fn column(&self, name: &str) -> Result<Option<Column>, RunError> {
        Ok(self.column(name))
    }

    fn find(&self, name: &str, _near: usize) -> Option<(usize, TypeSet)> {
        OpenChunk::find(self, name)
    }

    fn int_range(&self, _name: &str, _near: usize) -> Option<(i64, i64)> {
        None
    }

    fn is_block(&self) -> bool {
        false
    }
}
