//! Deleting a table on every leaf.

use std::sync::Arc;
use std::time::Duration;

use super::Aggregator;
use crate::error::{ErrorCode, Failure};

/// How long a child may take: it writes what it had not written, and removes files.
const TIMEOUT: Duration = Duration::from_secs(120);
/// More leaves that are away are counted, not named.
const NAMED_MAX: usize = 8;

impl Aggregator {
    /// Deletes every row of a table on every leaf there is. Gives back how many rows there were; none when no leaf has
    /// such a table.
    ///
    /// # Errors
    /// When a leaf is away, for it would bring its rows back, and then nothing is deleted; or when one did not do its
    /// part, and then others may have. Doing it again is safe.
    pub async fn delete_table(&self, table: &str) -> Result<u64, Failure> {
        let away = self.away();
        if !away.is_empty() {
            let more = away.len().saturating_sub(NAMED_MAX);
            let mut named: Vec<String> = away.into_iter().take(NAMED_MAX).collect();
            if more > 0 {
                named.push(format!("{more} more"));
            }
            let message =
                format!("table `{table}` is not deleted: not every leaf is there ({})", named.join("; "));
            return Err(Failure::new(ErrorCode::Unavailable, message)
                .hint("A leaf that is away would bring its rows back. Delete the table when all are there.")
                .retry_after(1));
        }
        let children = self.children.now();
        let asked = children.iter().map(|child| async move {
            let deleted = child.delete_table(table, TIMEOUT).await;
            self.fan_out.refresh(child).await;
            (Arc::clone(child), deleted)
        });
        let mut rows = 0;
        let mut failed = Vec::new();
        for (child, deleted) in futures::future::join_all(asked).await {
            match deleted {
                Ok(deleted) => rows += deleted,
                Err(error) => failed.push(format!("{}: {error}", child.address())),
            }
        }
        // A roster that still had the rows would take them for lost when a leaf starts anew.
        if let Err(error) = self.save().await {
            tracing::warn!(%error, "the roster was not written after a table was deleted");
        }
        if failed.is_empty() {
            tracing::warn!(table, rows, "table deleted");
            return Ok(rows);
        }
        let message = format!("table `{table}` is not deleted everywhere: {}", failed.join("; "));
        Err(Failure::new(ErrorCode::Unavailable, message)
            .hint("What was deleted stays deleted. Delete the table again for the rest.")
            .retry_after(1))
    }

    /// Leaves that must be there and cannot be reached, with why.
    fn away(&self) -> Vec<String> {
        let down = |address: &str| self.children.get(address).and_then(|child| child.down());
        let roster = self.roster.lock();
        let mut away: Vec<String> =
            roster.unheard().into_iter().map(|(leaf, why)| format!("{leaf}: {why}")).collect();
        for leaf in roster.leaves() {
            let why = match leaf.configured {
                false => Some("its child is not among the configured children".to_owned()),
                true => down(&leaf.child).or(leaf.unreachable),
            };
            away.extend(why.map(|why| format!("{}: {why}", leaf.leaf)));
        }
        away
    }
}
