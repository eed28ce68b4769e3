//! Draining: a leaf that is to be stopped soon takes no new batches, and answers queries as before.
//!
//! It never leads to a stop by itself, and it is remembered nowhere: the next process serves. A stop begins with the same
//! state but cannot be taken back, which [`crate::lifecycle::Lifecycle::begin_stop`] keeps apart.

use std::time::Duration;

use gannet_query::LeafState;

use crate::LeafError;
use crate::leaf::Leaf;

/// How long to wait for batches that are on their way in.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

/// What came of draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// It was draining before.
    pub already: bool,
    /// No batch is on its way in any more.
    pub settled: bool,
}

impl Leaf {
    /// Takes no new batches from now on, and waits for a moment for those that are on their way in.
    ///
    /// # Errors
    /// [`LeafError::NotServing`] when it neither serves nor drains.
    pub fn drain(&self) -> Result<Drained, LeafError> {
        let began = self.lifecycle.step(LeafState::Serving, LeafState::Draining);
        let state = self.lifecycle.state();
        if !began && state != LeafState::Draining {
            return Err(LeafError::NotServing { leaf: self.config.id.clone(), state });
        }
        // Whoever adds a batch holds this; those that come later see the state.
        let settled = self.appends.try_write_for(SETTLES_WITHIN).is_some();
        Ok(Drained { already: !began, settled })
    }

    /// Takes batches again. True when it did all along.
    ///
    /// # Errors
    /// [`LeafError::NotServing`] when it is stopping, or neither serves nor drains.
    pub fn undrain(&self) -> Result<bool, LeafError> {
        if self.lifecycle.end_drain() {
            return Ok(false);
        }
        let state = match self.lifecycle.state() {
            LeafState::Serving => return Ok(true),
            LeafState::Draining => LeafState::HandingOver,
            state => state,
        };
        Err(LeafError::NotServing { leaf: self.config.id.clone(), state })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampNanosecondArray};
    use gannet_query::TIME_COLUMN;

    use super::*;
    use crate::Config;

    fn row() -> RecordBatch {
        let x: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let time: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1]).with_timezone("+00:00"));
        RecordBatch::try_from_iter_with_nullable([(TIME_COLUMN, time, false), ("x", x, true)]).unwrap()
    }

    #[test]
    fn a_leaf_that_drains_refuses_batches_until_it_is_told_to_take_them() {
        let directory = tempfile::tempdir().unwrap();
        let config =
            Config { data_dir: directory.path().to_owned(), seal_into_shm: false, ..Config::default() };
        let leaf = Leaf::start(config).unwrap();
        leaf.append("t", &[row()]).unwrap();
        assert!(leaf.undrain().unwrap(), "it served all along");
        assert_eq!(leaf.drain().unwrap(), Drained { already: false, settled: true });
        assert_eq!(leaf.drain().unwrap(), Drained { already: true, settled: true });
        let refused = leaf.append("t", &[row()]).unwrap_err();
        assert_eq!(refused.to_string(), "leaf leaf-0 is draining");
        // It says what it holds, and maintenance goes on.
        leaf.maintain();
        assert_eq!((leaf.describe().state, leaf.describe().tables[0].rows), (LeafState::Draining, 1));
        assert!(!leaf.undrain().unwrap());
        leaf.append("t", &[row()]).unwrap();
        assert_eq!(leaf.describe().tables[0].rows, 2);

        leaf.hand_over().unwrap();
        assert_eq!(leaf.drain().unwrap_err().to_string(), "leaf leaf-0 is stopped");
        assert_eq!(leaf.undrain().unwrap_err().to_string(), "leaf leaf-0 is stopped");
    }
}
