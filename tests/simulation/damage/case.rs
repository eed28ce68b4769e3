//! One case of damage: what is damaged and how, and what the leaf that is started on it may say.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use gannet_leaf::Leaf;
use gannet_leaf::scan::Cancel;
use gannet_query::expr::BinaryOp;
use gannet_query::plan::OutputColumn;
use gannet_query::{Body, Expr, Output, Plan, TimeRange, WeightKind};
use gannet_shm::SegmentName;
use gannet_tests::mutate::Mutator;
use gannet_tests::sweep::Outcome;
use gannet_tests::{encodings, reseal};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::held::{ADDED, Ended, Held, files_of};
use crate::life::Trace;
use crate::sim_disk::Drive;
use crate::world::{End, Stopped, World};

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    Log,
    Block,
    Segment,
    Catalogue,
}

impl Kind {
    fn of_file(path: &str) -> Option<Kind> {
        match path {
            "leaf.json" => Some(Kind::Manifest),
            path if path.starts_with("wal/") => Some(Kind::Log),
            path if path.starts_with("blocks/") => Some(Kind::Block),
            _ => None,
        }
    }

    fn of_segment(name: &SegmentName) -> Kind {
        if name.as_str().ends_with("-catalogue") { Kind::Catalogue } else { Kind::Segment }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Manifest => "manifest",
            Kind::Log => "log",
            Kind::Block => "block",
            Kind::Segment => "segment",
            Kind::Catalogue => "catalogue",
        }
    }
}

/// Where an artefact is.
#[derive(Debug, Clone)]
enum Place {
    File(String),
    Segment(SegmentName),
}

/// A machine with one artefact damaged.
struct Damaged<'a> {
    held: &'a Held,
    kind: Kind,
    place: Place,
    before: Vec<u8>,
    /// None when it is gone.
    after: Option<Vec<u8>>,
    /// The checksums are right: what the bytes say cannot be told from what was written.
    resealed: bool,
    said: String,
}

/// What a table answers.
struct Answer {
    rows: BTreeSet<u64>,
    /// Rows that are said to be missing; none when nobody knows.
    missing: Option<u64>,
}

/// Runs a case.
pub(super) fn run(worlds: &[Held], number: u64) -> Outcome {
    let mut rng = StdRng::seed_from_u64(number);
    let held = &worlds[rng.random_range(0..worlds.len())];
    let damaged = damage(held, number, &mut rng);
    let what = || format!("{:?} {:?} {:?}: {}", held.ended, damaged.place, damaged.resealed, damaged.said);
    judge(&damaged, &mut rng).map_err(|error| format!("{error}\n{}", what()))
}

fn damage<'a>(held: &'a Held, number: u64, rng: &mut StdRng) -> Damaged<'a> {
    let mut artefacts: Vec<(Kind, Place, &Vec<u8>)> = Vec::new();
    let files = held.files.iter().filter_map(|(path, bytes)| Some((Kind::of_file(path)?, path, bytes)));
    artefacts.extend(files.map(|(kind, path, bytes)| (kind, Place::File(path.clone()), bytes)));
    let segments = held.segments.iter();
    artefacts
        .extend(segments.map(|(name, bytes)| (Kind::of_segment(name), Place::Segment(name.clone()), bytes)));
    // Each kind is as likely as any other, however many there are of it.
    let kinds: Vec<Kind> = artefacts.iter().map(|(kind, ..)| *kind).collect();
    let kind = loop {
        let kind =
            [Kind::Manifest, Kind::Log, Kind::Block, Kind::Segment, Kind::Catalogue][rng.random_range(0..5)];
        if kinds.contains(&kind) {
            break kind;
        }
    };
    let of_kind: Vec<_> = artefacts.iter().filter(|(of, ..)| *of == kind).collect();
    let (_, place, before) = of_kind[rng.random_range(0..of_kind.len())];
    let (place, before) = (place.clone(), (*before).clone());
    if rng.random_bool(0.03) {
        return Damaged { held, kind, place, before, after: None, resealed: false, said: "gone".to_owned() };
    }
    let resealed = rng.random_bool(0.5);
    let mut mutator = Mutator::new(number, &held.pieces);
    let mut after = before.clone();
    match kind {
        Kind::Manifest if resealed => after = changed_manifest(&mut mutator, &before, rng),
        Kind::Log if resealed => change_log(&mut mutator, held, &place, &mut after, rng),
        Kind::Segment if resealed => change_segment(&mut mutator, &mut after, rng),
        Kind::Catalogue if resealed => {
            mutator.change(&mut after);
            reseal::catalogue(&mut after);
        }
        // A checksum of it is in the manifest; with that put right it is a block that was written so.
        _ => mutator.change(&mut after),
    }
    let resealed = resealed && kind != Kind::Block;
    Damaged { held, kind, place, before, after: Some(after), resealed, said: mutator.said() }
}

fn changed_manifest(mutator: &mut Mutator<'_>, before: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let end = before.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut body = before[end..].to_vec();
    if rng.random_bool(0.2) {
        mutator.change(&mut body);
    } else {
        let mut document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        mutator.change_json(&mut document);
        body = document.to_string().into_bytes();
    }
    reseal::manifest(&body)
}

fn change_log(mutator: &mut Mutator<'_>, held: &Held, place: &Place, bytes: &mut Vec<u8>, rng: &mut StdRng) {
    let Place::File(path) = place else { return };
    let serial = path.split(['/', '-']).nth(1).unwrap().parse().unwrap();
    // Mostly in the header of a record, which is small beside its body.
    let records = reseal::records(bytes);
    if !records.is_empty() && rng.random_bool(0.6) {
        let at = records[rng.random_range(0..records.len())];
        let mut header = bytes[at..at + 128].to_vec();
        mutator.change_within(&mut header, 8);
        header.resize(128, 0);
        bytes[at..at + 128].copy_from_slice(&header);
    } else {
        mutator.change(bytes);
    }
    reseal::log(bytes, held.instance(), serial);
}

fn change_segment(mutator: &mut Mutator<'_>, bytes: &mut [u8], rng: &mut StdRng) {
    let starts: Vec<usize> =
        (0..bytes.len()).step_by(4096).filter(|at| bytes[*at..].starts_with(b"GNTBLOCK")).collect();
    let at = starts[rng.random_range(0..starts.len())];
    let len = u64::from_le_bytes(bytes[at + 48..at + 56].try_into().unwrap()) as usize;
    let mut image = bytes[at..at + len].to_vec();
    if rng.random_bool(0.5) {
        // In the directory, which is small beside the buffers.
        let head = 128 + u64::from_le_bytes(image[64..72].try_into().unwrap()) as usize;
        let mut changed = image[..head].to_vec();
        mutator.change(&mut changed);
        changed.resize(head, 0);
        image[..head].copy_from_slice(&changed);
    } else {
        mutator.change(&mut image);
        image.resize(len, 0);
    }
    reseal::image(&mut image);
    bytes[at..at + len].copy_from_slice(&image);
}

impl Held {
    fn instance(&self) -> [u8; 16] {
        let (_, manifest) = self.files.iter().find(|(path, _)| path == "leaf.json").unwrap();
        let body = std::str::from_utf8(manifest).unwrap().split_once('\n').unwrap().1;
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        uuid::Uuid::parse_str(body["instance"].as_str().unwrap()).unwrap().into_bytes()
    }
}

impl Damaged<'_> {
    fn machine(&self, rng: &mut StdRng) -> World {
        let mut world = World::new(self.held.config.clone(), rng, &Trace::new(false));
        world.drive = Drive::with(&self.held.files);
        self.held.segments.iter().for_each(|(name, bytes)| world.shelf.put(name, bytes));
        match (&self.place, &self.after) {
            (Place::File(path), Some(bytes)) => world.drive.put(path, bytes),
            (Place::File(path), None) => world.drive.lose(path),
            (Place::Segment(name), Some(bytes)) => world.shelf.put(name, bytes),
            (Place::Segment(name), None) => world.shelf.remove(name),
        }
        world
    }

    /// The damaged artefact is not the only one that holds its rows.
    fn is_spare(&self) -> bool {
        match self.kind {
            Kind::Segment | Kind::Catalogue => true,
            Kind::Block => self.held.ended != Ended::Killed,
            Kind::Manifest | Kind::Log => false,
        }
    }
}

fn judge(damaged: &Damaged<'_>, rng: &mut StdRng) -> Outcome {
    let mut world = damaged.machine(rng);
    let untouched = files_of(&world.drive);
    let done = |what: &str| {
        let checksums = if damaged.resealed { ", checksums right" } else { "" };
        Ok(format!("{} {what}{checksums}", damaged.kind.name()))
    };
    match world.start(None) {
        Ok(()) => {}
        Err(Stopped::Broken(what)) => return Err(what),
        Err(Stopped::Refused(why)) => {
            if damaged.is_spare() {
                return Err(format!("refused to start for damage of what it can do without: {why}"));
            }
            if files_of(&world.drive) != untouched {
                return Err(format!("refused to start, and changed files: {why}"));
            }
            return done("refused");
        }
    }
    let leaf = world.leaf().unwrap();
    look_at_all(damaged, &leaf, false)?;
    few_rows(damaged, &leaf)?;
    world.run_jobs(1, rng);
    look_at_all(damaged, &leaf, false)?;
    world.settle(4, rng);
    let found = look_at_all(damaged, &leaf, true)?;
    few_rows(damaged, &leaf)?;
    let added = leaf.append("t", std::slice::from_ref(&damaged.held.added));
    if let Err(error) = &added
        && !damaged.resealed
    {
        return Err(format!("takes no rows any more: {error}"));
    }
    if rng.random_bool(0.5) {
        again(damaged, world, leaf, found.clone(), added.is_ok(), rng)?;
    }
    done(if found.values().all(|answer| *answer == Some(0)) { "whole" } else { "missing" })
}

/// Another start finds no less than the first did.
fn again(
    damaged: &Damaged<'_>,
    mut world: World,
    leaf: std::sync::Arc<Leaf>,
    found: BTreeMap<&'static str, Option<u64>>,
    added: bool,
    rng: &mut StdRng,
) -> Result<(), String> {
    let before = rows_of(damaged, &leaf)?;
    drop(leaf);
    let stops = rng.random_bool(0.5);
    match stops {
        true => {
            let stopped = world.stop();
            world.exit();
            match stopped {
                Ok(()) => {}
                Err(Stopped::Refused(_)) if damaged.resealed => return Ok(()),
                Err(error) => return Err(format!("does not stop: {error:?}")),
            }
        }
        false => world.end(End::Kill, rng),
    }
    match world.start(None) {
        Ok(()) => {}
        Err(Stopped::Refused(_)) if damaged.resealed => return Ok(()),
        Err(error) => return Err(format!("does not start again (stopped: {stops}): {error:?}")),
    }
    world.settle(4, rng);
    let leaf = world.leaf().unwrap();
    let after = rows_of(damaged, &leaf)?;
    if damaged.resealed {
        return Ok(());
    }
    if before != after {
        let gone: Vec<_> =
            before.iter().map(|(table, rows)| rows.difference(&after[table]).count()).collect();
        return Err(format!(
            "{gone:?} rows of {:?} are gone with the second start (stopped: {stops})",
            before.keys()
        ));
    }
    let is_there = after.get("t").is_some_and(|rows| ADDED.clone().all(|row| rows.contains(&row)));
    if added && !is_there {
        return Err("rows that were added behind the damage are gone".to_owned());
    }
    // What is missing stays missing: it does not fall silent.
    for (table, missing) in found {
        let now = ask(damaged, &leaf, table, None)?.missing;
        if missing.is_none_or(|missing| missing > 0) && now == Some(0) {
            return Err(format!(
                "{missing:?} rows of {table} were missing, and the next start says nothing of them"
            ));
        }
    }
    Ok(())
}

fn rows_of(damaged: &Damaged<'_>, leaf: &Leaf) -> Result<BTreeMap<&'static str, BTreeSet<u64>>, String> {
    damaged.held.rows.keys().map(|table| Ok((*table, ask(damaged, leaf, table, None)?.rows))).collect()
}

/// Asks every table for all rows, and says how many are missing.
fn look_at_all(
    damaged: &Damaged<'_>,
    leaf: &Leaf,
    is_settled: bool,
) -> Result<BTreeMap<&'static str, Option<u64>>, String> {
    let mut missing = BTreeMap::new();
    for (table, count) in &damaged.held.rows {
        let answer = ask(damaged, leaf, table, None)?;
        missing.insert(*table, answer.missing);
        if damaged.resealed {
            continue;
        }
        let absent: Vec<u64> = (0..*count).filter(|row| !answer.rows.contains(row)).collect();
        if is_settled && damaged.is_spare() && (!absent.is_empty() || answer.missing != Some(0)) {
            return Err(format!(
                "{} of {table} are absent, {:?} missing, though all are elsewhere",
                ranges(&absent),
                answer.missing
            ));
        }
        let Some(missing) = answer.missing else { continue };
        let silent = (absent.len() as u64).saturating_sub(missing);
        if silent == 0 {
            continue;
        }
        // The end of a log can be cut off, and nobody can tell: its last records were perhaps never written.
        let is_end = (*count - silent..*count).all(|row| absent.contains(&row));
        if damaged.kind != Kind::Log || !is_end || last_record_is_there(damaged) {
            return Err(format!("{} of {table} are absent, and only {missing} are missing", ranges(&absent)));
        }
    }
    Ok(missing)
}

/// Ascending numbers in short.
fn ranges(numbers: &[u64]) -> String {
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    runs.map(|run| format!("{}..={}", run[0], run[run.len() - 1])).collect::<Vec<_>>().join(", ")
}

/// The record that proves all others is untouched and where it was.
fn last_record_is_there(damaged: &Damaged<'_>) -> bool {
    let Some(after) = &damaged.after else { return false };
    let Some(at) = reseal::records(&damaged.before).last().copied() else { return false };
    // Its file's name says which LSN it begins with, and a header in front of it may only say more.
    damaged.held.ended != Ended::Stopped
        && after.len() == damaged.before.len()
        && after[at..] == damaged.before[at..]
}

/// Asks for few rows of each table, which are found without reading the others.
fn few_rows(damaged: &Damaged<'_>, leaf: &Leaf) -> Result<(), String> {
    for (table, count) in &damaged.held.rows {
        for row in [3, count / 2] {
            let answer = ask(damaged, leaf, table, Some(row))?;
            if !damaged.resealed
                && !answer.rows.contains(&row)
                && answer.missing == Some(0)
                && damaged.kind != Kind::Log
            {
                return Err(format!("row {row} of {table} is absent, and nothing is missing"));
            }
        }
    }
    Ok(())
}

/// Asks for all columns of all rows, or of one.
fn ask(damaged: &Damaged<'_>, leaf: &Leaf, table: &str, only: Option<u64>) -> Result<Answer, String> {
    let column = |(name, column_type): &(&str, gannet_query::ColumnType)| OutputColumn {
        name: (*name).to_owned(),
        expr: Expr::column(*name),
        data_type: column_type.arrow(),
    };
    let plan = Plan {
        table: table.to_owned(),
        columns: encodings::COLUMNS
            .iter()
            .map(|(name, column_type)| ((*name).to_owned(), *column_type))
            .collect(),
        time_range: TimeRange::ALL,
        filter: only.map(|row| Expr::binary(BinaryOp::Eq, Expr::column("n"), Expr::int(row as i64))),
        weight: WeightKind::One,
        output: Output::Rows {
            columns: encodings::COLUMNS.iter().map(column).collect(),
            order_by: Vec::new(),
            limit: None,
        },
    };
    let partial = match leaf.query(&plan, &Cancel::new(None)) {
        Ok(partial) => partial,
        Err(_) if damaged.resealed => return Ok(Answer { rows: BTreeSet::new(), missing: None }),
        Err(error) => return Err(format!("table {table} does not answer: {error}")),
    };
    let Body::Rows(rows) = &partial.body else { return Err("rows were asked for".to_owned()) };
    let mut answer = Answer { rows: BTreeSet::new(), missing: Some(0) };
    for missing in &partial.completeness.missing {
        answer.missing = answer.missing.zip(missing.rows).map(|(sum, rows)| sum.saturating_add(rows));
    }
    for batch in &rows.batches {
        check_rows(damaged, table, batch, &mut answer)?;
    }
    let (covered, count) = (partial.completeness.rows_covered, answer.rows.len() as u64);
    if only.is_none() && covered != count && !damaged.resealed {
        return Err(format!("{table} answers with {count} rows and says {covered}"));
    }
    Ok(answer)
}

/// Every row is as it was, and comes once.
fn check_rows(
    damaged: &Damaged<'_>,
    table: &str,
    batch: &RecordBatch,
    answer: &mut Answer,
) -> Result<(), String> {
    // Values under checksums that are right may be any; the manifest and the catalogue hold none.
    if damaged.resealed && matches!(damaged.kind, Kind::Segment | Kind::Log) {
        return Ok(());
    }
    let numbers = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>();
    let numbers: Vec<u64> = numbers.iter().map(|n| n.unwrap_or(-1) as u64).collect();
    let count = damaged.held.rows[table];
    for number in &numbers {
        if (*number >= count && !ADDED.contains(number)) || !answer.rows.insert(*number) {
            return Err(format!("{table} answers with row {number}, twice or made up"));
        }
    }
    for is_added in [false, true] {
        let (first, known) =
            if is_added { (ADDED.start, &damaged.held.added) } else { (0, &damaged.held.known) };
        let at: UInt64Array =
            numbers.iter().filter(|n| ADDED.contains(n) == is_added).map(|n| n - first).collect();
        let mine: UInt64Array = (0..numbers.len() as u64)
            .filter(|row| ADDED.contains(&numbers[*row as usize]) == is_added)
            .collect();
        if at.is_empty() {
            continue;
        }
        let (wanted, found) =
            (take_record_batch(known, &at).unwrap(), take_record_batch(batch, &mine).unwrap());
        for (name, _) in encodings::COLUMNS {
            if wanted.column_by_name(name).unwrap() != found.column_by_name(name).unwrap() {
                return Err(format!("column {name} of {table} has other values"));
            }
        }
    }
    Ok(())
}
