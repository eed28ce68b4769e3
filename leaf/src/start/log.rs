//! What the log says at a start: edits to apply, batches that were counted, rows to bring back, rows that are lost.

use std::collections::BTreeMap;

use gannet_query::Span;

use crate::append::name_of;
use crate::dedup::{Dedup, DedupLimits};
use crate::manifest::{Edit, Manifest, TableManifest};
use crate::planted::{Bug, planted};
use crate::row_ranges::RowRanges;
use crate::wal::{Kind, Lost, Place, RowsHeader, WalContents};

/// A batch in the log with rows that are not done.
pub(super) struct Logged {
    /// Where it is.
    pub(super) place: Place,
    /// The numbers of its rows.
    numbers: (u64, u64),
    /// When and how many.
    pub(super) span: Span,
}

/// A batch whose rows cannot be had any more.
struct LostBatch {
    table: String,
    numbers: (u64, u64),
    times: (i64, i64),
}

/// What the log says.
#[derive(Default)]
pub(super) struct ReadLog {
    /// Rows to bring back, by table.
    pub(super) rows: BTreeMap<String, Vec<Logged>>,
    /// Batches that were counted.
    pub(super) dedup: Dedup,
    /// What is wrong with the log, in words.
    pub(super) damage: Vec<String>,
    lost: Vec<LostBatch>,
}

/// Applies the edits behind the checkpoint, counts the batches behind it, and lists the batches with rows to bring
/// back.
pub(super) fn read_log(manifest: &mut Manifest, contents: &WalContents) -> ReadLog {
    let mut log = ReadLog { dedup: std::mem::take(&mut manifest.dedup), ..ReadLog::default() };
    if planted(Bug::DedupLostOnAttach) && manifest.clean {
        log.dedup = Dedup::default();
    }
    for place in &contents.places {
        if place.header.kind != Kind::Edit || place.header.lsn <= manifest.checkpoint_lsn {
            continue;
        }
        let edit = contents.body(place).map_err(|error| error.to_string()).and_then(|body| {
            serde_json::from_slice::<Edit>(&body).map_err(|error| format!("parse: {error}"))
        });
        match edit {
            Ok(edit) => manifest.apply(edit),
            Err(what) => log.damage.push(format!("edit {} of the log: {what}", place.header.lsn)),
        }
    }
    // Only now all edits are known that say which rows are done, and which batches were not accepted after all.
    for place in &contents.places {
        if let Kind::Rows(rows) = &place.header.kind {
            log.note_rows(manifest, place, rows);
        }
    }
    log.note_damage(manifest, contents);
    log
}

impl ReadLog {
    fn note_rows(&mut self, manifest: &mut Manifest, place: &Place, rows: &RowsHeader) {
        let is_new = place.header.lsn > manifest.checkpoint_lsn;
        let running_seconds = manifest.running_seconds;
        let numbers = (rows.first_row, rows.first_row + rows.rows);
        let table = manifest.table(&rows.table);
        table.next_row = table.next_row.max(numbers.1);
        if is_new
            && !table.withdrawn.contains(rows.first_row)
            && let Some(name) = name_of(rows)
        {
            self.dedup.complete(&name, running_seconds, &DedupLimits::default());
        }
        let count: u64 = table.done.missing_in(numbers.0, numbers.1).iter().map(|(from, to)| to - from).sum();
        if count > 0 || planted(Bug::ReplayTwice) {
            let span = Span::of(rows.time_min, rows.time_max, count);
            let logged = Logged { place: place.clone(), numbers, span };
            self.rows.entry(rows.table.to_string()).or_default().push(logged);
        }
    }

    fn note_damage(&mut self, manifest: &mut Manifest, contents: &WalContents) {
        let (manifest_checkpoint, running_seconds) = (manifest.checkpoint_lsn, manifest.running_seconds);
        // From its first start on a leaf has a file of the log; only behind a clean stop nothing is in it.
        if contents.files().is_empty() && manifest.epoch > 0 && !manifest.clean {
            self.damage.push("the log has no file".to_owned());
            manifest.unknown_records = manifest.unknown_records.saturating_add(1);
        }
        for file in &contents.damaged_headers {
            self.damage.push(format!("the header of log file {file} is damaged"));
        }
        if let Some(torn) = &contents.torn {
            tracing::info!(
                file = torn.file,
                bytes = torn.bytes,
                records = torn.records,
                "the log ends in a torn tail"
            );
        }
        for lost in &contents.lost {
            self.damage.push(format!("the log has lost {lost}"));
            if let Lost::Records { first_lsn, last_lsn } = lost {
                // Those before the checkpoint are told once; all they can hide is rows that are not done.
                let records = (last_lsn - first_lsn).saturating_add(1);
                manifest.unknown_records = manifest.unknown_records.saturating_add(records);
            }
            if let Lost::Body { header, .. } = lost
                && let Kind::Rows(rows) = &header.kind
            {
                let numbers = (rows.first_row, rows.first_row + rows.rows);
                let table = manifest.table(&rows.table);
                table.next_row = table.next_row.max(numbers.1);
                let times = (rows.time_min, rows.time_max);
                // Its rows are in blocks, so it counts; rows that are lost may be sent again.
                if header.lsn > manifest_checkpoint
                    && table.done.missing_in(numbers.0, numbers.1).is_empty()
                    && !table.withdrawn.contains(rows.first_row)
                    && let Some(name) = name_of(rows)
                {
                    self.dedup.complete(&name, running_seconds, &DedupLimits::default());
                }
                self.lost.push(LostBatch { table: rows.table.to_string(), numbers, times });
            }
        }
    }

    /// Nothing is wrong with it.
    pub(super) fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }

    /// Counts rows of a table as lost that were numbered and are neither done nor in the log.
    pub(super) fn lose_missing(&self, table: &mut TableManifest, records: &[Logged]) {
        let mut known = table.done.clone();
        records.iter().for_each(|record| known.insert(record.numbers.0, record.numbers.1));
        let mut gone = RowRanges::default();
        known.missing_in(0, table.next_row).into_iter().for_each(|(from, to)| gone.insert(from, to));
        table.done.union(&gone);
        let mut unexplained = gone.count();
        // Of some it is known when they were.
        for lost in self.lost.iter().filter(|lost| lost.table == table.name) {
            let (from, to) = lost.numbers;
            let not_gone: u64 = gone.missing_in(from, to).iter().map(|(from, to)| to - from).sum();
            let rows = ((to - from) - not_gone).min(unexplained);
            unexplained -= rows;
            let span = Span::of(lost.times.0, lost.times.1, rows);
            table.lost.push((span.first, span.last, span.rows));
        }
        table.lost.push((i64::MIN, i64::MAX, unexplained));
        table.lost.retain(|(_, _, rows)| *rows > 0);
    }
}
