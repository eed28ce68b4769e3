//! What the machine itself can do: copying into fresh shared memory, and reading files.
//!
//! The hand-over of a leaf is compared with the fastest way known to get bytes from a process into shared memory that
//! did not exist before: writing pieces of 1 MiB through the descriptor of a fresh segment, on one thread or on all.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

/// Where segments live.
pub(super) const SHARED_MEMORY: &str = "/dev/shm";
const MIB: u64 = 1 << 20;
/// Bytes of a segment, as a leaf makes them.
const SEGMENT_BYTES: u64 = 16 * MIB;
/// Bytes that are written at least before their segments are removed again.
const ROUND_BYTES_MIN: u64 = 256 * MIB;
/// Bytes that are copied from, more than any cache holds.
const SOURCE_BYTES: u64 = 256 * MIB;
/// What makes the kernel forget the pages of files.
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// How fast something went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Speed {
    /// Bytes.
    pub(super) bytes: u64,
    /// Seconds.
    pub(super) seconds: f64,
    /// Gigabytes (10^9) a second.
    pub(super) gb_per_second: f64,
    /// Threads that worked at once.
    pub(super) threads: usize,
}

impl Speed {
    /// That many bytes in that time.
    pub(super) fn of(bytes: u64, seconds: f64, threads: usize) -> Speed {
        Speed { bytes, seconds, gb_per_second: bytes as f64 / seconds.max(1e-9) / 1e9, threads }
    }
}

/// Segments that are removed when this is dropped.
struct Scratch {
    names: Vec<PathBuf>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for name in &self.names {
            // One that was not made yet is none.
            let _ = std::fs::remove_file(name);
        }
    }
}

/// Copies so many bytes into fresh segments, on one thread and then on all, and gives back the speeds in this order.
pub(super) fn into_shared_memory(bytes: u64) -> io::Result<Vec<Speed>> {
    let source: Vec<u8> =
        (0..SOURCE_BYTES.min(bytes.max(MIB))).map(|at| ((at * 31) >> 3) as u8 | 1).collect();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut speeds = vec![copied(&source, bytes, 1)?];
    if cores > 1 {
        speeds.push(copied(&source, bytes, cores)?);
    }
    Ok(speeds)
}

/// What the names of this process's scratch segments begin with.
fn prefix() -> String {
    format!("gannet-bench-{}-", std::process::id())
}

/// All of it at once, as far as memory goes: what is removed and written again is not fresh, and memory that the system
/// must first take from files costs the leaf time as well.
fn round_bytes() -> io::Result<u64> {
    let about = std::fs::read_to_string("/proc/meminfo")?;
    let line = about.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let room = rustix::fs::statvfs(SHARED_MEMORY)?;
    let room_bytes = match room.f_blocks {
        // No limit of its own.
        0 => u64::MAX,
        _ => room.f_bavail.saturating_mul(room.f_frsize),
    };
    Ok((kib * 1024).min(room_bytes).div_ceil(2).max(ROUND_BYTES_MIN))
}

fn copied(source: &[u8], bytes: u64, threads: usize) -> io::Result<Speed> {
    let round_max = round_bytes()?;
    let (mut left, mut seconds) = (bytes, 0.0);
    while left > 0 {
        let round = left.min(round_max);
        let path = |number| Path::new(SHARED_MEMORY).join(format!("{}{number}", prefix()));
        let scratch = Scratch { names: (0..round.div_ceil(SEGMENT_BYTES)).map(path).collect() };
        let next = AtomicU64::new(0);
        let work = || -> io::Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let from = number * SEGMENT_BYTES;
                let Some(path) = scratch.names.get(number as usize) else { return Ok(()) };
                write_segment(path, source, from, SEGMENT_BYTES.min(round - from))?;
            }
        };
        let started = Instant::now();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let failed = || io::Error::other("a copying thread ended early");
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| failed())?)
        })?;
        seconds += started.elapsed().as_secs_f64();
        left -= round;
    }
    Ok(Speed::of(bytes, seconds, threads))
}

fn write_segment(path: &Path, source: &[u8], from: u64, bytes: u64) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).open(path)?;
    file.set_len(bytes)?;
    let pieces = (source.len() as u64 / MIB).max(1);
    let mut at = 0;
    while at < bytes {
        let start = ((from + at) / MIB % pieces * MIB) as usize;
        let piece = MIB.min(bytes - at).min(source.len() as u64 - start as u64);
        file.write_all_at(&source[start..start + piece as usize], at)?;
        at += piece;
    }
    Ok(())
}

/// Makes the kernel forget the pages of files; `Err` says why it did not.
pub(super) fn drop_page_cache() -> Result<(), String> {
    std::fs::write(DROP_CACHES, "1").map_err(|error| format!("{DROP_CACHES}: {error}"))
}

/// Reads every file below a folder once, one after the other.
pub(super) fn read_files(folder: &Path) -> io::Result<Speed> {
    let mut buffer = vec![0; MIB as usize];
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    let started = Instant::now();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let mut file = File::open(entry.path())?;
                loop {
                    match file.read(&mut buffer)? {
                        0 => break,
                        read => bytes += read as u64,
                    }
                }
            }
        }
    }
    Ok(Speed::of(bytes, started.elapsed().as_secs_f64(), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_leave_nothing_behind() {
        let bytes = 2 * SEGMENT_BYTES + 12_345;
        for speed in into_shared_memory(bytes).unwrap() {
            assert_eq!(speed.bytes, bytes);
            assert!(speed.gb_per_second > 0.0);
        }
        assert_eq!(crate::bench::memory::segments(&prefix()), Vec::<PathBuf>::new());
    }

    #[test]
    fn files_are_read_to_their_ends() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("a"), vec![1; 3 << 20]).unwrap();
        std::fs::write(folder.path().join("inner/b"), b"12345").unwrap();
        assert_eq!(read_files(folder.path()).unwrap().bytes, (3 << 20) + 5);
    }
}
