//! Why a leaf refused a batch, where its gRPC status alone does not tell.
//!
//! The status says what any client may do about it; the metadata key beside it says which of the reasons it was.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The metadata key of a status that holds a reason's name.
pub const REASON_KEY: &str = "gannet-reason";

/// A reason to refuse a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The disk has no room for the log; nothing of the batch was kept.
    DiskFull,
    /// The sequence is so old that nobody can tell any more whether it was counted.
    SequenceTooOld,
    /// The leaf remembers as many producers as it may.
    TooManyProducers,
}

impl Reason {
    const ALL: [Reason; 3] = [Reason::DiskFull, Reason::SequenceTooOld, Reason::TooManyProducers];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Reason::DiskFull => "disk_full",
            Reason::SequenceTooOld => "sequence_too_old",
            Reason::TooManyProducers => "too_many_producers",
        }
    }

    fn code(self) -> Code {
        match self {
            Reason::DiskFull | Reason::TooManyProducers => Code::ResourceExhausted,
            Reason::SequenceTooOld => Code::InvalidArgument,
        }
    }

    /// A status that tells it.
    pub fn status(self, message: impl Into<String>) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert(REASON_KEY, MetadataValue::from_static(self.name()));
        Status::with_metadata(self.code(), message, metadata)
    }

    /// The reason that a status tells; `None` without one, or with one that this version does not know.
    pub fn of(status: &Status) -> Option<Reason> {
        let name = status.metadata().get(REASON_KEY)?.to_str().ok()?;
        Reason::ALL.into_iter().find(|reason| reason.name() == name && reason.code() == status.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_its_reason() {
        for reason in Reason::ALL {
            let status = reason.status("no");
            assert_eq!((status.message(), Reason::of(&status)), ("no", Some(reason)));
        }
        assert_eq!(Reason::of(&Status::resource_exhausted("full")), None);
        let mut unknown = Status::resource_exhausted("full");
        unknown.metadata_mut().insert(REASON_KEY, MetadataValue::from_static("moon_full"));
        assert_eq!(Reason::of(&unknown), None);
        // A name beside a status that it does not belong to is not believed.
        unknown.metadata_mut().insert(REASON_KEY, MetadataValue::from_static("sequence_too_old"));
        assert_eq!(Reason::of(&unknown), None);
    }
}
