//! Bugs that can be planted, to see whether the tests that look for their kind find them.
//!
//! Only a build with the feature `planted-bugs` can have one, and only the thread that asked for it; in every other
//! build [`planted`] is a constant `false`.

/// A bug. Each is a step that somebody could leave out, and that only a network with faults, or a crowd, tells from the right code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A batch of a sender goes to another leaf while its own is down.
    RetryAtAnotherLeaf,
    /// Only leaves that are there now are expected to answer.
    DenominatorFromGossip,
    /// A leaf that is there twice counts twice.
    BothEpochsCounted,
    /// That groups were left out is not told.
    TruncationNotFlagged,
    /// Bodies of events wait for their turn, however many there are and however long it takes.
    EverybodyWaits,
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
