//! How benches take their arguments, time what they measure, and hash what came out.
//!
//! Goals: medians that repeat, a hash that changes when an answer does, and the memory's own speed measured in the
//! same run, because that is what a scan is to be held against. Not a goal: statistics beyond a median.

use std::time::Instant;

use arrow::array::{Array, ArrayRef};
use arrow::util::display::array_value_to_string;
use rayon::ThreadPool;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of one pass over memory: more than any cache holds.
const MEMORY_BYTES: usize = 256 << 20;

/// What a bench was asked on its command line: `[ROWS] [WORD] [--threads N] [--once]`.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// Started by `cargo bench`; else by `cargo test`, which only wants to see that it runs.
    pub measured: bool,
    /// Rows, when the caller said how many.
    pub rows: Option<usize>,
    /// Only what has this in its name.
    pub word: Option<String>,
    /// Threads that scan; 1 means the main thread itself.
    pub threads: usize,
    /// One run of each instead of a median: for callgrind.
    pub once: bool,
}

impl Arguments {
    /// Those of this process.
    pub fn of_process() -> Arguments {
        let mut arguments = Arguments { measured: false, rows: None, word: None, threads: 2, once: false };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--bench" => arguments.measured = true,
                "--once" => arguments.once = true,
                "--threads" => {
                    let count: Option<usize> = words.next().and_then(|count| count.parse().ok());
                    arguments.threads = count.expect("--threads takes a number").max(1);
                }
                // What `cargo test` passes on to every target.
                other if other.starts_with('-') => {}
                other => match other.parse() {
                    Ok(rows) => arguments.rows = Some(rows),
                    Err(_) => arguments.word = Some(other.to_owned()),
                },
            }
        }
        arguments
    }

    /// The rows asked for, or else a number that is worth measuring or one that is done at once.
    pub fn rows_or(&self, worthwhile: usize, tiny: usize) -> usize {
        self.rows.unwrap_or(if self.measured { worthwhile } else { tiny })
    }

    /// How often each thing is run.
    pub fn runs(&self) -> usize {
        if self.measured && !self.once { 7 } else { 1 }
    }

    /// Whether the caller wants to see this one.
    pub fn wants(&self, name: &str) -> bool {
        self.word.as_ref().is_none_or(|word| name.contains(word.as_str()))
    }

    /// A pool of that many threads.
    pub fn pool(&self) -> ThreadPool {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(self.threads);
        let builder = if self.threads == 1 { builder.use_current_thread() } else { builder };
        builder.build().expect("threads can be started")
    }
}

/// Runs work and returns what it gave last, with the median seconds of all runs.
pub fn median_seconds<T>(runs: usize, mut work: impl FnMut() -> T) -> (T, f64) {
    let mut seconds = Vec::with_capacity(runs);
    loop {
        let started = Instant::now();
        let given = measured(&mut work);
        seconds.push(started.elapsed().as_secs_f64());
        if seconds.len() >= runs {
            seconds.sort_by(f64::total_cmp);
            return (given, seconds[seconds.len() / 2]);
        }
    }
}

/// A name for callgrind: `--toggle-collect='*measured*'` counts what runs inside and nothing else.
#[inline(never)]
fn measured<T>(work: &mut impl FnMut() -> T) -> T {
    std::hint::black_box(work())
}

/// Bytes a second that the pool's threads together read from memory: the sum over more than any cache holds.
pub fn memory_read_speed(pool: &ThreadPool, arguments: &Arguments) -> f64 {
    let bytes = if arguments.measured && !arguments.once { MEMORY_BYTES } else { 1 << 20 };
    let words: Vec<u64> = (0..bytes as u64 / 8).collect();
    let share = words.len().div_ceil(arguments.threads);
    let sum = || -> u64 {
        let part = |part: &[u64]| part.iter().fold(0, |sum: u64, word| sum.wrapping_add(*word));
        pool.install(|| words.par_chunks(share).map(part).reduce(|| 0, u64::wrapping_add))
    };
    let (_, seconds) = median_seconds(arguments.runs(), sum);
    bytes as f64 / seconds
}

/// A hash of rows that does not depend on their order. Floats count to nine digits, because the order in which they
/// are added up is free.
pub fn hash_rows(columns: &[ArrayRef]) -> u64 {
    let rows = columns.first().map_or(0, |column| column.len());
    let row = |row: usize| {
        let texts: Vec<String> = columns.iter().map(|column| text_of(column, row)).collect();
        xxh3_64(texts.join("|").as_bytes())
    };
    (0..rows).map(row).fold(0, u64::wrapping_add)
}

fn text_of(column: &ArrayRef, row: usize) -> String {
    use arrow::array::AsArray;
    use arrow::datatypes::Float64Type;
    match column.as_primitive_opt::<Float64Type>() {
        Some(floats) if floats.is_valid(row) => format!("{:.8e}", floats.value(row)),
        _ => array_value_to_string(column, row).unwrap_or_default(),
    }
}

/// Bytes of this process that are in memory now; 0 where the system does not say.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
