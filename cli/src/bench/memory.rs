//! What a process and its segments take, sampled while something happens; and the processor time it took.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::copy::SHARED_MEMORY;

/// Between two samples.
const EVERY: Duration = Duration::from_millis(5);
/// The heap may change by no more while the segments are looked at, or what moves between them is counted twice.
const BLUR_BYTES_MAX: u64 = 2 << 20;

/// What was taken at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Since the sampling began.
    pub(super) seconds: f64,
    /// Memory of the process itself: neither files nor segments.
    pub(super) heap_bytes: u64,
    /// Memory of the segments.
    pub(super) shm_bytes: u64,
}

impl Sample {
    /// Both together.
    pub(super) fn bytes(&self) -> u64 {
        self.heap_bytes + self.shm_bytes
    }
}

/// Seconds of processor time that a process has taken; 0 when it is gone.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    cpu_seconds_in(&stat)
}

/// The same, as the system writes it: after the name, which may have spaces, the 12th and 13th word are hundredths.
fn cpu_seconds_in(stat: &str) -> f64 {
    let words = stat.rsplit_once(')').map_or("", |(_, words)| words).split_whitespace();
    let ticks: u64 = words.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// A thread that takes samples until it is asked for them.
#[derive(Debug)]
pub(super) struct Sampler {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    /// Begins, for a process and the segments whose names begin so.
    pub(super) fn start(pid: u32, prefix: String) -> Sampler {
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let mut samples = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                if let Some((heap_bytes, shm_bytes)) = taken(pid, &prefix) {
                    let seconds = started.elapsed().as_secs_f64();
                    samples.push(Sample { seconds, heap_bytes, shm_bytes });
                }
                std::thread::sleep(EVERY);
            }
            samples
        });
        Sampler { ends, thread }
    }

    /// Ends, and gives back what was sampled.
    pub(super) fn finish(self) -> Vec<Sample> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Heap and segments at one moment; `None` when they changed too fast to say.
fn taken(pid: u32, prefix: &str) -> Option<(u64, u64)> {
    // The process may be gone by now; what it took is gone as well.
    let heap = || heap_bytes(pid).unwrap_or(0);
    let before = heap();
    let segments = segment_bytes(prefix);
    let after = heap();
    (before.abs_diff(after) <= BLUR_BYTES_MAX).then_some((after, segments))
}

/// Anonymous memory of a process.
pub(super) fn heap_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kibibytes(&status, "RssAnon:").map(|kibibytes| kibibytes * 1024)
}

/// The most memory that a process was in.
pub(super) fn peak_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kibibytes(&status, "VmHWM:").map(|kibibytes| kibibytes * 1024)
}

/// Memory that the machine could give to programs now.
pub(super) fn available_bytes() -> Option<u64> {
    let said = std::fs::read_to_string("/proc/meminfo").ok()?;
    kibibytes(&said, "MemAvailable:").map(|kibibytes| kibibytes * 1024)
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// What the segments whose names begin so take.
pub(super) fn segment_bytes(prefix: &str) -> u64 {
    // A segment that goes while it is looked at takes nothing.
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    segments(prefix).iter().map(|path| bytes(path)).sum()
}

/// The segments whose names begin so.
pub(super) fn segments(prefix: &str) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(SHARED_MEMORY) else { return Vec::new() };
    let ours = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with(prefix);
    entries.flatten().filter(|entry| ours(&entry.file_name())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_system_are_read() {
        let text = "Name:\tgannet\nRssAnon:\t    1204 kB\nRssFile:\t 7 kB\n";
        assert_eq!(kibibytes(text, "RssAnon:"), Some(1204));
        assert_eq!(kibibytes(text, "RssShmem:"), None);
        assert_eq!(kibibytes("RssAnon: many kB", "RssAnon:"), None);
        assert!(heap_bytes(std::process::id()).is_some_and(|bytes| bytes > 0));
        assert!(peak_bytes(std::process::id()) >= heap_bytes(std::process::id()));
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
        assert_eq!(cpu_seconds_in("7 (a (b) c) S 1 7 7 0 -1 4 1 0 0 0 250 50 0 0 20 0 4 0 9"), 3.0);
        assert_eq!(cpu_seconds_in(""), 0.0);
    }

    #[test]
    fn segments_are_found_by_their_prefix() {
        let prefix = format!("gannet-bench-{}-", uuid::Uuid::new_v4());
        let path = Path::new(SHARED_MEMORY).join(format!("{prefix}1"));
        std::fs::write(&path, vec![1; 10_000]).unwrap();
        let found = (segments(&prefix), segment_bytes(&prefix));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found, (vec![path], 12_288));
        assert_eq!(segment_bytes(&prefix), 0);
    }
}
