//! Bugs that can be planted, to see whether the tests that look for their kind find them.
//!
//! Only a build with the feature `planted-bugs` can have one, and only the thread that asked for it; in every other
//! build `planted` is a constant `false`.

/// A bug. Each is a step that somebody could leave out or move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// The valid mark of a catalogue is set before its payload is written.
    ValidMarkEarly,
    /// The valid mark stays when a catalogue is taken.
    MarkNotCleared,
    /// A catalogue of another generation is taken.
    GenerationNotCompared,
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
