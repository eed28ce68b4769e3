//! What can go wrong, said so that a person can act on it.

use std::io;
use std::path::PathBuf;

use crate::name::{Instance, SegmentName};

/// A call on segments or locks that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ShmError {
    /// The text is not a uuid.
    #[error("instance `{text}` is not a uuid")]
    Instance {
        /// The start of what was given.
        text: String,
    },
    /// The name is longer than the system allows.
    #[error("segment name `{name}` has {name_bytes} bytes, the limit is {limit_bytes}")]
    NameTooLong {
        /// The name as asked for.
        name: String,
        /// Its length.
        name_bytes: usize,
        /// The most it may have.
        limit_bytes: usize,
    },
    /// The suffix is empty or holds a character that names must not have.
    #[error("segment name `{name}` must end in letters, digits, `-`, `_` or `.` after its prefix")]
    NameCharacters {
        /// The name as asked for, escaped.
        name: String,
    },
    /// The name belongs to another instance, or to another program.
    #[error("segment name `{name}` does not start with `{prefix}`")]
    NameForeign {
        /// The name as found, escaped.
        name: String,
        /// What our names start with.
        prefix: String,
    },
    /// The name is taken.
    #[error("segment `{name}` already exists")]
    Exists {
        /// The segment.
        name: SegmentName,
    },
    /// There is no such segment.
    #[error("segment `{name}` does not exist")]
    Missing {
        /// The segment.
        name: SegmentName,
    },
    /// Something else was planted at the name.
    #[error("segment `{name}` is a {kind}, only a regular file is accepted")]
    NotRegular {
        /// The segment.
        name: SegmentName,
        /// What it is instead.
        kind: &'static str,
    },
    /// The segment belongs to another user.
    #[error("segment `{name}` belongs to user {found}, this process runs as user {expected}")]
    Owner {
        /// The segment.
        name: SegmentName,
        /// Who owns it.
        found: u32,
        /// Who we are.
        expected: u32,
    },
    /// Group or others may open the segment.
    #[error("segment `{name}` has mode {mode:04o}, only its owner may have access (0600)")]
    Mode {
        /// The segment.
        name: SegmentName,
        /// Its permission bits.
        mode: u32,
    },
    /// The segment has a second name, or lost its only one while it was opened.
    #[error("segment `{name}` has {links} names, exactly 1 is accepted")]
    Links {
        /// The segment.
        name: SegmentName,
        /// How many names it has.
        links: u64,
    },
    /// The segment is not as long as it must be.
    #[error("segment `{name}` has {found} bytes, expected {expected}")]
    Size {
        /// The segment.
        name: SegmentName,
        /// Its size.
        found: u64,
        /// What the caller expected.
        expected: u64,
    },
    /// The name led to two different files within one call.
    #[error("segment `{name}` was replaced while it was opened")]
    Replaced {
        /// The segment.
        name: SegmentName,
    },
    /// A writer, a mapping or a reader of the catalogue holds the segment's lock.
    #[error("segment `{name}` is in use by another owner")]
    Busy {
        /// The segment.
        name: SegmentName,
    },
    /// `/dev/shm` cannot hold the segment.
    #[error("no space for segment `{name}`: {bytes} bytes asked, {available_bytes} bytes free in /dev/shm")]
    NoSpace {
        /// The segment.
        name: SegmentName,
        /// What was asked for.
        bytes: u64,
        /// What was free.
        available_bytes: u64,
    },
    /// A segment of no bytes, or of more than an address can count.
    #[error("segment `{name}` cannot have {bytes} bytes, the least is 1 and the most {limit_bytes}")]
    SegmentBytes {
        /// The segment.
        name: SegmentName,
        /// What was asked for.
        bytes: u64,
        /// The most a segment may have.
        limit_bytes: u64,
    },
    /// The catalogue would be larger than a reader accepts.
    #[error("catalogue `{name}` would hold {bytes} bytes, the limit is {limit_bytes}")]
    CatalogueBytes {
        /// The catalogue's segment.
        name: SegmentName,
        /// What was asked for.
        bytes: u64,
        /// The most a catalogue may hold.
        limit_bytes: u64,
    },
    /// The range is empty or reaches outside the segment.
    #[error("range {start}..{end} is empty or outside segment `{name}` of {size} bytes")]
    OutOfBounds {
        /// The segment.
        name: SegmentName,
        /// First byte.
        start: u64,
        /// First byte after the range.
        end: u64,
        /// The size of the segment.
        size: u64,
    },
    /// Part of the range was never written, or was given back by an earlier process.
    #[error("range {start}..{end} of segment `{name}` has no memory at {hole}")]
    Hole {
        /// The segment.
        name: SegmentName,
        /// First byte.
        start: u64,
        /// First byte after the range.
        end: u64,
        /// The first byte without memory.
        hole: u64,
    },
    /// Part of the range belongs to a region that is in use.
    #[error("range {start}..{end} of segment `{name}` overlaps a region in use")]
    Claimed {
        /// The segment.
        name: SegmentName,
        /// First byte.
        start: u64,
        /// First byte after the range.
        end: u64,
    },
    /// Part of the range was given back to the system.
    #[error("range {start}..{end} of segment `{name}` overlaps memory that was given back")]
    Released {
        /// The segment.
        name: SegmentName,
        /// First byte.
        start: u64,
        /// First byte after the range.
        end: u64,
    },
    /// Another process owns the directory.
    #[error("directory `{}` is in use by {}", directory.display(), owner_text(*.owner_pid))]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// Its owner, when the lock file says so.
        owner_pid: Option<u32>,
    },
    /// The lock file is not a plain file.
    #[error("lock file `{}` is a {kind}, only a regular file is accepted", path.display())]
    LockFile {
        /// The lock file.
        path: PathBuf,
        /// What it is instead.
        kind: &'static str,
    },
    /// The system refused a call.
    #[error("{action} `{subject}`")]
    System {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        subject: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The segment could not be created.
    #[error("create segment `{name}`")]
    Create {
        /// The segment.
        name: SegmentName,
        /// What the system said.
        #[source]
        source: shared_memory::ShmemError,
    },
}

impl ShmError {
    pub(crate) fn system(
        action: &'static str,
        subject: impl ToString,
        source: impl Into<io::Error>,
    ) -> ShmError {
        ShmError::System { action, subject: subject.to_string(), source: source.into() }
    }
}

fn owner_text(owner_pid: Option<u32>) -> String {
    match owner_pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_string(),
    }
}

/// Bytes that are no header of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes end before the header does.
    #[error("header has {found} bytes, expected {expected}")]
    TooShort {
        /// How many bytes there are.
        found: u64,
        /// How many a header has.
        expected: u64,
    },
    /// The bytes do not start as a catalogue does.
    #[error("magic {found:016x}, expected {expected:016x}")]
    Magic {
        /// The first eight bytes.
        found: u64,
        /// What they must be.
        expected: u64,
    },
    /// The header was changed after it was written.
    #[error("header checksum {found:016x}, computed {expected:016x}")]
    Checksum {
        /// What the header says.
        found: u64,
        /// What its bytes add up to.
        expected: u64,
    },
    /// What is zero in every version is not.
    #[error("reserved bytes {found:08x}, expected zero")]
    Reserved {
        /// What stands there.
        found: u32,
    },
}

/// Why a catalogue was not believed. Whoever gets one goes to disk.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The segment of the catalogue could not be opened or read.
    #[error(transparent)]
    Segment(#[from] ShmError),
    /// The header cannot be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The segment is not as long as its header says.
    #[error("segment has {found} bytes, its header says {expected}")]
    SegmentBytes {
        /// The size of the segment.
        found: u64,
        /// What the header says.
        expected: u64,
    },
    /// The header was written by a build with another header.
    #[error("header version {found}, this build reads {expected}")]
    HeaderVersion {
        /// What the header says.
        found: u32,
        /// What this build reads.
        expected: u32,
    },
    /// The contents were written by a build with another layout.
    #[error("layout version {found}, this build reads {expected}")]
    LayoutVersion {
        /// What the header says.
        found: u32,
        /// What this build reads.
        expected: u32,
    },
    /// The contents were written by a machine of another byte order.
    #[error("byte order mark {found}, this machine has {expected}")]
    ByteOrder {
        /// What the header says.
        found: u32,
        /// The mark of this machine.
        expected: u32,
    },
    /// The contents were laid out for pages of another size.
    #[error("page size {found}, this machine has {expected}")]
    PageBytes {
        /// What the header says.
        found: u32,
        /// The page size of this machine.
        expected: u32,
    },
    /// The catalogue belongs to another instance.
    #[error("instance {found}, expected {expected}")]
    Instance {
        /// What the header says.
        found: Instance,
        /// Who we are.
        expected: Instance,
    },
    /// The catalogue was written by another user.
    #[error("written by user {found}, expected user {expected}")]
    Owner {
        /// What the header says.
        found: u32,
        /// Who we are.
        expected: u32,
    },
    /// The disk has moved on since the catalogue was written, or went back.
    #[error("generation {found}, the disk has {expected}")]
    Generation {
        /// What the header says.
        found: u64,
        /// What the disk says.
        expected: u64,
    },
    /// The payload does not fill the segment behind the header.
    #[error("payload of {found} bytes, the segment has room for {expected}")]
    PayloadBytes {
        /// What the header says.
        found: u64,
        /// What fits behind the header.
        expected: u64,
    },
    /// The payload is longer than anything we write.
    #[error("payload of {found} bytes, the limit is {limit}")]
    PayloadTooLong {
        /// What the header says.
        found: u64,
        /// The most it may be.
        limit: u64,
    },
    /// The catalogue was never finished, or was taken before.
    #[error("valid mark is clear")]
    ValidMarkClear,
    /// The valid mark is neither set nor clear.
    #[error("valid mark {found:016x}, expected {expected:016x}")]
    ValidMark {
        /// What stands in its place.
        found: u64,
        /// The mark when it is set.
        expected: u64,
    },
    /// The payload was changed after it was written.
    #[error("payload checksum {found:016x}, the header says {expected:016x}")]
    PayloadChecksum {
        /// What the bytes add up to.
        found: u64,
        /// What the header says.
        expected: u64,
    },
}

impl Refusal {
    /// A short fixed word for counters and status.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::Segment(ShmError::Missing { .. }) => "missing",
            Refusal::Segment(ShmError::Busy { .. }) => "busy",
            Refusal::Segment(_) => "segment",
            Refusal::Header(HeaderError::TooShort { .. }) => "header_size",
            Refusal::Header(HeaderError::Magic { .. }) => "magic",
            Refusal::Header(HeaderError::Checksum { .. }) => "header_checksum",
            Refusal::Header(HeaderError::Reserved { .. }) => "header_reserved",
            Refusal::SegmentBytes { .. } => "segment_size",
            Refusal::HeaderVersion { .. } => "header_version",
            Refusal::LayoutVersion { .. } => "layout_version",
            Refusal::ByteOrder { .. } => "byte_order",
            Refusal::PageBytes { .. } => "page_size",
            Refusal::Instance { .. } => "instance",
            Refusal::Owner { .. } => "owner",
            Refusal::Generation { .. } => "generation",
            Refusal::PayloadBytes { .. } | Refusal::PayloadTooLong { .. } => "payload_size",
            Refusal::ValidMarkClear | Refusal::ValidMark { .. } => "valid_mark",
            Refusal::PayloadChecksum { .. } => "payload_checksum",
        }
    }
}
