//! Why a child did not do what it was asked, and what follows from that.

use gannet_query::MissingReason;

/// Why a child did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildError {
    /// It could not be connected to; it was not asked.
    Down(String),
    /// The connection was lost after it was asked.
    Lost(String),
    /// It did not answer in time.
    Timeout,
    /// It is starting or stopping, and did nothing.
    Restarting(String),
    /// It has no room, and did nothing.
    Overloaded(String),
    /// Its disk is full, and it did nothing.
    DiskFull(String),
    /// It remembers as many producers as it may, and did nothing.
    TooManyProducers(String),
    /// It cannot tell any more whether a sequence was counted, and did nothing now.
    SequenceTooOld(String),
    /// The plan's types no longer fit what it holds.
    Stale(String),
    /// What it was asked is wrong.
    Refused(String),
    /// What it was asked is larger than it may be.
    TooLarge(String),
    /// It does not serve this call.
    NotServed,
    /// Anything else.
    Failed(String),
}

impl ChildError {
    /// As what the child's leaves are missing from an answer.
    pub fn reason(&self) -> MissingReason {
        match self {
            ChildError::Down(_) | ChildError::Lost(_) => MissingReason::Down,
            ChildError::Timeout => MissingReason::Timeout,
            ChildError::Restarting(_) => MissingReason::Restarting,
            ChildError::Overloaded(_) => MissingReason::Overloaded,
            ChildError::DiskFull(_)
            | ChildError::TooManyProducers(_)
            | ChildError::SequenceTooOld(_)
            | ChildError::Stale(_)
            | ChildError::Refused(_)
            | ChildError::TooLarge(_)
            | ChildError::NotServed
            | ChildError::Failed(_) => MissingReason::Error,
        }
    }

    /// Whether what was asked may have been done although the child did not say so.
    pub fn may_have_happened(&self) -> bool {
        match self {
            ChildError::Lost(_) | ChildError::Timeout | ChildError::Failed(_) => true,
            ChildError::Down(_)
            | ChildError::Restarting(_)
            | ChildError::Overloaded(_)
            | ChildError::DiskFull(_)
            | ChildError::TooManyProducers(_)
            | ChildError::SequenceTooOld(_)
            | ChildError::Stale(_)
            | ChildError::Refused(_)
            | ChildError::TooLarge(_)
            | ChildError::NotServed => false,
        }
    }
}

impl std::fmt::Display for ChildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ChildError::Timeout => "no answer in time",
            ChildError::NotServed => "the call is not served here",
            ChildError::Down(text)
            | ChildError::Lost(text)
            | ChildError::Restarting(text)
            | ChildError::Overloaded(text)
            | ChildError::DiskFull(text)
            | ChildError::TooManyProducers(text)
            | ChildError::SequenceTooOld(text)
            | ChildError::Stale(text)
            | ChildError::Refused(text)
            | ChildError::TooLarge(text)
            | ChildError::Failed(text) => text,
        })
    }
}
