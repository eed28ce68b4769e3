//! Stories: one file each, told in its first lines.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

mod better_answers;
mod client;
mod full_memory;
mod membership;
mod nobody_waits;
mod overload;
mod partial_answer;
mod restart;
mod retention;
mod schema_drift;
mod slow_leaf;
mod tree;

use std::fmt::Write;

/// NDJSON of rows with the numbers `from..until`, a second apart, on 2026-03-01.
fn numbered(from: u64, until: u64) -> String {
    let mut text = String::new();
    for number in from..until {
        let (hour, minute, second) = (number / 3600 % 24, number / 60 % 60, number % 60);
        let group = number % 3;
        let _ = writeln!(
            text,
            "{{\"time\":\"2026-03-01T{hour:02}:{minute:02}:{second:02}Z\",\"n\":{number},\"g\":\"g{group}\"}}"
        );
    }
    text
}

/// The sum of the numbers `from..until`.
fn sum(from: u64, until: u64) -> i64 {
    (from..until).sum::<u64>() as i64
}
