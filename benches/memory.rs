//! What rows take: bytes a row by column and encoding, and the memory of the process that holds them.
//!
//! Goals: where the bytes of a table are, and how much the process takes beyond them, also after blocks expired.
//! Not a goal: speed. The same rows give the same bytes, and the hash of all images says whether they are.
//!
//! `cargo bench -p gannet-benches --bench memory [-- ROWS]`

use std::collections::BTreeMap;

use gannet_benches::measure::{Arguments, resident_bytes};
use gannet_benches::request_batches;
use gannet_leaf::row_block::{ROWS_PER_BLOCK_MAX, RowBlock};
use xxhash_rust::xxh3::xxh3_64;

/// Days of rows that pass through when memory after churn is measured, a day being what is held at once.
const CHURN_DAYS: u64 = 3;

fn main() {
    let arguments = Arguments::of_process();
    let rows = arguments.rows_or(2_000_000, 5_000);
    let before = resident_bytes();
    let mut blocks: Vec<RowBlock> = seal_day(rows, 1).collect();
    let held = resident_bytes().saturating_sub(before);
    print_columns(&blocks);
    let images: u64 = images(&blocks);
    println!("\n{:<34} {:>14} {:>10}", "process", "bytes", "of images");
    print_share("images of all blocks", images, images);
    print_share("resident memory grew by", held, images);
    for day in 2..2 + CHURN_DAYS {
        // As a leaf at its limit does: the oldest block goes before the newest comes.
        let mut day = seal_day(rows, day);
        for old in &mut blocks {
            if let Some(new) = day.next() {
                *old = new;
            }
        }
    }
    let churned = resident_bytes().saturating_sub(before);
    print_share("after days of rows came and went", churned, self::images(&blocks));
    let hash = blocks.iter().map(|block| xxh3_64(block.image())).fold(0, u64::wrapping_add);
    blocks.clear();
    print_share("after all expired", resident_bytes().saturating_sub(before), images);
    println!("\nimages {hash:016x}");
}

fn images(blocks: &[RowBlock]) -> u64 {
    blocks.iter().map(|block| block.image().len() as u64).sum()
}

/// Sealed blocks of a day, one at a time, so that no more than one block's rows are there decoded.
fn seal_day(rows: usize, seed: u64) -> impl Iterator<Item = RowBlock> {
    request_batches(rows, ROWS_PER_BLOCK_MAX, seed)
        .enumerate()
        .map(|(id, batch)| RowBlock::seal(id as u64, &[batch]).expect("a batch of this size can be sealed"))
}

fn print_columns(blocks: &[RowBlock]) {
    let rows: usize = blocks.iter().map(RowBlock::rows).sum();
    let mut found: BTreeMap<(&str, &str), (u64, usize)> = BTreeMap::new();
    for meta in blocks.iter().flat_map(RowBlock::columns) {
        let entry = found.entry((&meta.name, meta.encoding())).or_default();
        *entry = (entry.0 + meta.bytes, entry.1 + 1);
    }
    println!("{rows} rows in {} blocks", blocks.len());
    println!("{:<16} {:<12} {:>7} {:>12} {:>7}", "column", "encoding", "blocks", "bytes/row", "share");
    let all = images(blocks) as f64;
    let line = |name: &str, encoding: &str, count: usize, bytes: f64| {
        let (per_row, share) = (bytes / rows as f64, bytes / all * 100.0);
        println!("{name:<16} {encoding:<12} {count:>7} {per_row:>12.3} {share:>6.1}%");
    };
    for ((name, encoding), (bytes, count)) in &found {
        line(name, encoding, *count, *bytes as f64);
    }
    let columns: u64 = found.values().map(|(bytes, _)| bytes).sum();
    line("directory, gaps", "", blocks.len(), all - columns as f64);
    line("all", "", blocks.len(), all);
}

fn print_share(what: &str, bytes: u64, images: u64) {
    println!("{what:<34} {bytes:>14} {:>9.0}%", bytes as f64 / images as f64 * 100.0);
}
