//! Deleting a table, after a person decided so.
//!
//! The rows leave as rows do that expire: out of memory first, then an edit in the log says that they are done, then
//! their files go. When [`Leaf::delete_table`] returns, the edits are durable, so no start brings the rows back,
//! whether after a stop or a crash. A crash before that may leave some of them; deleting once more removes those.
//!
//! Rows that arrive afterwards make the table anew. Their numbers go on where those of the deleted ones ended, and what
//! producers sent before stays counted, so that a retry of a deleted batch does not come back either.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gannet_query::LeafState;

use crate::LeafError;
use crate::leaf::Leaf;
use crate::lifecycle::Request;
use crate::manifest::Edit;

impl Leaf {
    /// Deletes a table. Returns how many rows it had; none when there is no such table.
    ///
    /// # Errors
    /// [`LeafError::NotServing`] while rows of it are still to be read from disk, and what the disk says. The rows are
    /// then still there, or on their way out: call it again.
    pub fn delete_table(self: &Arc<Self>, name: &str) -> Result<u64, LeafError> {
        let rows = self.take_out(name)?;
        // What an earlier call could not write is written with it.
        self.store_all()?;
        tracing::warn!(table = name, rows, "table deleted");
        Ok(rows)
    }

    /// Empties a table in memory and has what was in it removed.
    pub(crate) fn take_out(self: &Arc<Self>, name: &str) -> Result<u64, LeafError> {
        // Nobody appends to it or expires rows of it meanwhile.
        let _alone = self.appends.write();
        self.admit(Request::Append)?;
        let Some(table) = self.table(name) else { return Ok(0) };
        if !table.snapshot().pending.is_empty() {
            return Err(LeafError::NotServing { leaf: self.id().to_owned(), state: LeafState::Recovering });
        }
        // Blocks know how to leave; open rows become some.
        table.take_open();
        for run in &table.snapshot().sealing {
            self.seal_now(&table, run);
        }
        // Whoever sealed beside us has by then said that the block waits to be stored.
        drop(self.sealed.lock());
        let state = table.snapshot();
        if state.open_runs().any(|run| run.rows() > 0) {
            return Err(LeafError::Internal(format!("rows of table {name} cannot be sealed and are kept")));
        }
        if !state.lost.is_empty() {
            let edit = Edit::RowsLost { table: name.to_owned(), lost: Vec::new() };
            self.log_edits(&mut self.manifest.lock(), vec![edit])?;
            table.set_lost(Vec::new());
        }
        let gone = table.expire(|_| true);
        let bytes: u64 = gone.iter().map(|held| held.bytes()).sum();
        self.used_bytes.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
        self.remove_soon(&table, gone);
        self.tables.write().remove(name);
        Ok(state.rows())
    }
}
