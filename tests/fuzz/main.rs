//! Whatever reads bytes that may be anything, tried with bytes that are nearly right.
//!
//! Each target has seeds, made by the code that writes such bytes, and changes them: bits, numbers, ranges, pieces of
//! other seeds. Where a checksum stands over the bytes, half of the cases put it right again, so that the checks behind
//! it are reached. Every case is a number, so that each can be run again; the cases of the suite are always the same.
//! Nothing may panic, hang, or take memory beyond a limit that the system enforces; what is read at all is what was
//! written, unless the checksums were put right, and reads the same once it is written again.
//!
//! `just fuzz TARGET SECONDS` tries cases that nobody tried before.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and the backtrace says where")]

mod bodies;
mod disk;
mod image;
mod wire;

use gannet_tests::sweep::{self, Sweep};

/// Runs the cases of a target for a moment, or as long as the environment says.
fn fuzz(worker: &'static str) {
    let counts = sweep::run(&Sweep { target: "fuzz", worker, seconds: 2, cases_min: 100 });
    // A target that takes everything, or nothing, is not looking.
    let taken: u64 = counts.iter().filter(|(did, _)| did.starts_with("read")).map(|(_, count)| count).sum();
    let all: u64 = counts.values().sum();
    assert!(taken > 0 && taken < all, "{taken} of {all} were read: {counts:?}");
}

/// Two tests for each target: its worker, and the run of the suite.
macro_rules! targets {
    ($($name:ident, $cases:ident: $case:expr;)*) => {$(
        #[test]
        fn $cases() {
            sweep::worker($case);
        }

        #[test]
        fn $name() {
            fuzz(stringify!($cases));
        }
    )*};
}

targets! {
    image, image_cases: image::cases();
    wal, wal_cases: disk::wal_cases();
    manifest, manifest_cases: disk::manifest_cases();
    catalogue, catalogue_cases: disk::catalogue_cases();
    plan, plan_cases: wire::plan_cases();
    partial, partial_cases: wire::partial_cases();
    completeness, completeness_cases: wire::completeness_cases();
    values, values_cases: wire::values_cases();
    ndjson, ndjson_cases: bodies::ndjson_cases();
    json, json_cases: bodies::json_cases();
    csv, csv_cases: bodies::csv_cases();
    arrow, arrow_cases: bodies::arrow_cases();
    packed, packed_cases: bodies::packed_cases();
}
