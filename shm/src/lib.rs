//! Memory that outlives a process.
//!
//! A *segment* is a named piece of POSIX shared memory. One process writes segments and leaves; the next
//! one maps them read-only and reads the same bytes at once, without copying.
//!
//! What it is not: it knows nothing of rows, blocks or tables, never waits (a lock that is held is an
//! error), never writes to a disk except for the lock file of a directory, and is no authority: whoever uses
//! it must be able to live without what it holds. It maps files for its users ([`map_file`]) and hands out memory of
//! the process's own ([`Pages`]), because mmap has one home.
//!
//! The flow of data:
//! 1. [`DirectoryLock`] makes sure that one process owns a data directory.
//! 2. [`Segments`] names the segments of one [`Instance`]; [`SharedMemory`] is where they are, for a leaf the
//!    [`OsSharedMemory`].
//! 3. Stop: a [`SegmentWrite`] per segment, then [`publish`] writes the *catalogue*, a small segment
//!    that says what the others hold, and sets its valid mark last.
//! 4. Start: [`take`] runs the gates over the catalogue and clears the valid mark before it reads its payload,
//!    then [`MappedSegment`]s hand out [`Region`]s of the other segments.
//!
//! Invariants:
//! - Bytes of a segment are checked before they are believed; any doubt is an error that names it.
//! - A segment has one owner at a time, a writer, a mapping or a reader of the catalogue, by a file lock.
//! - Segments are written by calls that can fail, and read only where they have memory, so that a full `/dev/shm` is an
//!   error and not a signal.
//! - The valid mark is set last and cleared first; a catalogue is taken at most once.
//! - `unsafe` lives in `map` and nowhere else in Gannet; mmap lives in `map` and, by calls that are safe, in `pages`.
//!
//! What is trusted: segments are created with mode 0600, mapped files lie in a directory of mode 0700, and other
//! processes of the same user leave them alone. A process of the same user that truncates one can kill its reader, as
//! it could with a signal. So can a disk that fails to read a page of a mapped file.
//!
//! Where to start: `memory`, then `segment` and `map` with `region`, then `catalogue` with `header`.

mod catalogue;
mod claims;
#[cfg(test)]
mod crashes;
mod error;
mod header;
mod holes;
mod lock;
#[allow(unsafe_code, reason = "reading mapped memory cannot be done without; this module is its only home")]
mod map;
mod memory;
mod name;
mod pages;
pub mod planted;
mod region;
mod segment;
#[cfg(test)]
mod testing;

pub use catalogue::{Edition, PAYLOAD_BYTES_MAX, publish, take};
pub use error::{HeaderError, Refusal, ShmError};
pub use header::{Expected, HEADER_BYTES, HEADER_VERSION, Header, VALID_MARK};
pub use lock::DirectoryLock;
pub use map::map_file;
pub use memory::{MappedSegment, OsSharedMemory, SegmentAccess, SegmentWrite, SharedMemory};
pub use name::{Instance, SegmentName, Segments};
pub use pages::Pages;
pub use region::{Region, RegionEnd};
