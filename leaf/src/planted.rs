//! Bugs that can be planted, to see whether the tests that look for their kind find them.
//!
//! Only a build with the feature `planted-bugs` can have one, and only the thread that asked for it; in every other
//! build [`planted`] is a constant `false`.

/// A bug. Each is a step that somebody could leave out, and that only a crash or a fault tells from the right code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A batch is acknowledged before its record is synced.
    AckBeforeSync,
    /// The directory is not synced after a file of the log was made.
    DirectoryNotSynced,
    /// After a sync that failed the same file is synced again, and believed.
    RetryAfterEio,
    /// The valid mark of a hand-over is set before everything is written.
    ValidMarkEarly,
    /// The valid mark stays when a hand-over is taken.
    MarkNotCleared,
    /// What is known of producers goes with the log when it is truncated.
    DedupLostOnTruncation,
    /// What is known of producers is forgotten when shared memory is attached.
    DedupLostOnAttach,
    /// Shared memory of another generation is taken.
    GenerationNotCompared,
    /// A row block is taken without a look at its id.
    BlockIdNotChecked,
    /// Rows expire by the wall clock alone, however it jumps.
    RetentionByWallClock,
    /// Replay inserts rows that are in row blocks already.
    ReplayTwice,
    /// A checkpoint claims records that are not durable in any other place.
    CheckpointTooFar,
    /// A scan goes on when nobody waits for it any more.
    CancelNotHonoured,
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug for this thread, in place of the one before; `None` plants none.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this thread has that bug.
#[cfg(feature = "planted-bugs")]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// No bug is planted in this build.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
