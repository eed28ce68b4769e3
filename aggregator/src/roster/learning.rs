//! What aggregators that serve the same leaves tell each other, so that each expects what any of them knows.
//!
//! What is told of a leaf is what it held when it was last heard of. Two views of one epoch: the one after more rows
//! counts. Two of different epochs: the later counts, and what it did not bring of the earlier is lost, as if both had
//! been heard here. Lost rows only become more, but by a decision. So it does not matter who tells whom in which order:
//! everybody ends with the same, and nothing is forgotten on the way.

use std::collections::BTreeMap;
use std::hash::Hasher;

use gannet_query::{Holdings, Span, TableHolding};
use xxhash_rust::xxh3::Xxh3;

use super::{LeafRecord, Roster, Standing, TableRecord, losses};

/// Leaves that a roster takes from others; more are not learnt.
const LEAVES_MAX: usize = 16_384;

/// What an asker knows of a leaf, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownLeaf {
    /// Its id.
    pub leaf: String,
    /// The asker reaches it.
    pub is_reached: bool,
    /// Of what it knows.
    pub mark: u64,
}

/// Rows of a table that a leaf lost.
#[derive(Debug, Clone, PartialEq)]
pub struct LostRows {
    /// The table.
    pub table: String,
    /// The rows by time.
    pub spans: Vec<Span>,
    /// Rows of the table older than this expire, seconds; 0 means no limit.
    pub retention_seconds: u64,
}

/// What a leaf held when it was last heard of.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldByLeaf {
    /// What it held.
    pub holdings: Holdings,
    /// Where it was.
    pub home: String,
    /// What did not come back with its epoch.
    pub lost: Vec<LostRows>,
}

/// A decision about a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Its id.
    pub leaf: String,
    /// Where it was.
    pub home: String,
    /// What was decided.
    pub standing: Standing,
}

impl Roster {
    /// What is known of each leaf, in short; `is_reached` tells which of them are up.
    pub fn known(&self, is_reached: impl Fn(&str) -> bool) -> Vec<KnownLeaf> {
        let known = |(leaf, record): (&String, &LeafRecord)| {
            let is_reached = is_reached(&record.child);
            KnownLeaf { leaf: leaf.clone(), is_reached, mark: record.mark(is_reached) }
        };
        self.leaves.iter().map(known).collect()
    }

    /// What is known here of leaves, but those of which the asker knows the same.
    pub fn unknown_to(&self, asker: &[KnownLeaf]) -> Vec<HeldByLeaf> {
        let asker: BTreeMap<&str, &KnownLeaf> =
            asker.iter().map(|known| (known.leaf.as_str(), known)).collect();
        let is_known = |leaf: &str, record: &LeafRecord| {
            asker.get(leaf).is_some_and(|known| known.mark == record.mark(known.is_reached))
        };
        let news = self.leaves.iter().filter(|(leaf, record)| !is_known(leaf, record));
        news.filter_map(|(leaf, _)| self.held_by(leaf)).collect()
    }

    /// Everything known of a leaf, as others are told.
    fn held_by(&self, leaf: &str) -> Option<HeldByLeaf> {
        let record = self.leaves.get(leaf)?;
        let tables = record.tables.values().filter(|table| !table.gone).map(|table| table.holding.clone());
        let holdings = Holdings {
            tables: tables.collect(),
            epoch: record.epoch,
            rows_ingested: record.rows_ingested,
            rows_restored: record.rows_restored,
            ..self.holdings(leaf)?
        };
        let lost = record.tables.iter().filter(|(_, table)| !table.lost.is_empty());
        let lost = lost.map(|(name, table)| LostRows {
            table: name.clone(),
            spans: table.lost.clone(),
            retention_seconds: table.holding.retention_seconds,
        });
        Some(HeldByLeaf { holdings, home: record.child.clone(), lost: lost.collect() })
    }

    /// Every decision that is known.
    pub fn decisions(&self) -> Vec<Decision> {
        let decision = |(leaf, (standing, home)): (&String, &(Standing, String))| Decision {
            leaf: leaf.clone(),
            home: home.clone(),
            standing: *standing,
        };
        self.standings.iter().map(decision).collect()
    }

    /// Learns of a decision. A leaf that is reached here is not forgotten because somebody else cannot reach it.
    pub fn learn_decision(&mut self, decision: Decision, is_reached: impl Fn(&str) -> bool) {
        let Decision { leaf, home, standing } = decision;
        if self.standing(&leaf).is_some_and(|known| known >= standing) {
            return;
        }
        self.standings.insert(leaf.clone(), (standing, home));
        self.version += 1;
        let Some(record) = self.leaves.get_mut(&leaf) else { return };
        if standing.is_out || (record.epoch <= standing.forgotten_epoch && !is_reached(&record.child)) {
            self.leaves.remove(&leaf);
            return;
        }
        record.accept(standing);
    }

    /// Learns what a leaf held, from somebody who heard it. `now` is in nanoseconds UTC. Gives back the rows that
    /// turned out to be lost.
    pub fn learn(&mut self, held: HeldByLeaf, now: i64) -> u64 {
        let leaf = held.holdings.leaf.clone();
        let standing = self.standing(&leaf).unwrap_or_default();
        if standing.is_out {
            return 0;
        }
        let Some(record) = self.leaves.get_mut(&leaf) else {
            let is_forgotten = standing.number > 0 && held.holdings.epoch <= standing.forgotten_epoch;
            if !is_forgotten && self.leaves.len() < LEAVES_MAX {
                let mut record = LeafRecord::of(held);
                record.accept(standing);
                self.leaves.insert(leaf, record);
                self.version += 1;
            }
            return 0;
        };
        let before = (record.rows_lost_here(), record.mark(false));
        record.join(held, now);
        record.accept(standing);
        record.expire(now);
        if record.mark(false) != before.1 {
            self.version += 1;
        }
        record.rows_lost_here().saturating_sub(before.0)
    }
}

impl LeafRecord {
    /// Of what somebody else heard.
    fn of(held: HeldByLeaf) -> LeafRecord {
        let HeldByLeaf { mut holdings, home, lost } = held;
        let tables = std::mem::take(&mut holdings.tables);
        let tables = tables.into_iter().map(|holding| (holding.name.clone(), TableRecord::from(holding)));
        let mut record = LeafRecord {
            child: home,
            epoch: holdings.epoch,
            rows_ingested: holdings.rows_ingested,
            rows_restored: holdings.rows_restored,
            tables: tables.collect(),
            said: None,
        };
        for LostRows { table: name, spans, retention_seconds } in lost {
            record.join_lost(&TableHolding { name, retention_seconds, ..Default::default() }, spans);
        }
        record
    }

    /// Joins what somebody else heard. See the module.
    fn join(&mut self, held: HeldByLeaf, now: i64) {
        let mut other = LeafRecord::of(held);
        if other.epoch == self.epoch {
            if other.order() > self.order() {
                std::mem::swap(&mut self.tables, &mut other.tables);
                (self.rows_ingested, self.rows_restored) = (other.rows_ingested, other.rows_restored);
            }
            for (_, table) in other.tables {
                self.join_lost(&table.holding, table.lost);
            }
        } else {
            if other.epoch > self.epoch {
                // What was said before is of the earlier epoch, and of its place.
                std::mem::swap(self, &mut other);
            }
            let here = self.tables.values().filter(|table| !table.gone);
            let here: Vec<TableHolding> = here.map(|table| table.holding.clone()).collect();
            let LeafRecord { epoch, rows_restored, rows_ingested, .. } = *self;
            let began = losses::Began { epoch, rows_restored, rows_ingested };
            // These include what the earlier epoch had lost.
            let lost = losses::losses(other.epoch, &other.tables, &began, &here, now);
            for (name, spans) in lost {
                if let Some(table) = other.tables.get(&name) {
                    self.join_lost(&table.holding, spans);
                }
            }
        }
        self.tables.retain(|_, table| !table.gone || !table.lost.is_empty());
    }

    /// Of lost rows of a table the more count. `held` is what the table was.
    fn join_lost(&mut self, held: &TableHolding, mut lost: Vec<Span>) {
        if lost.is_empty() {
            return;
        }
        lost.sort_unstable();
        let record = self.tables.entry(held.name.clone()).or_insert_with(|| TableRecord {
            holding: TableHolding {
                name: held.name.clone(),
                columns: held.columns.clone(),
                schema_version: held.schema_version,
                retention_seconds: held.retention_seconds,
                ..Default::default()
            },
            lost: Vec::new(),
            gone: true,
            grew: 0,
            credit: 0,
        });
        let mut known = std::mem::take(&mut record.lost);
        known.sort_unstable();
        let weight = |spans: &[Span]| spans.iter().map(|span| span.rows).fold(0, u64::saturating_add);
        record.lost = if (weight(&lost), &lost) > (weight(&known), &known) { lost } else { known };
    }

    /// Nothing that a person accepted is missed.
    fn accept(&mut self, standing: Standing) {
        if standing.accepted_epoch >= self.epoch && standing.number > 0 {
            self.tables.values_mut().for_each(|table| table.lost.clear());
            self.tables.retain(|_, table| !table.gone);
        }
    }

    /// Which of two views of one epoch is the later: the one after more rows. Two after the same are told apart by what
    /// they hold, the same way everywhere, and the one with more rows counts.
    fn order(&self) -> (u64, u64, u64) {
        (self.rows_ingested, self.rows(), self.mark_of_held())
    }

    /// A number that differs when what others should know of the leaf differs.
    fn mark(&self, is_reached: bool) -> u64 {
        let mut hash = Xxh3::new();
        hash.write_u64(self.epoch);
        for (name, table) in self.tables.iter().filter(|(_, table)| !table.lost.is_empty()) {
            hash.write_u64(name.len() as u64);
            hash.write(name.as_bytes());
            let mut lost = table.lost.clone();
            lost.sort_unstable();
            add(&mut hash, &lost);
        }
        if !is_reached {
            hash.write_u64(self.rows_ingested);
            hash.write_u64(self.mark_of_held());
        }
        hash.finish()
    }

    /// A number that differs when the tables it holds differ.
    fn mark_of_held(&self) -> u64 {
        let mut hash = Xxh3::new();
        for (name, table) in self.tables.iter().filter(|(_, table)| !table.gone) {
            hash.write_u64(name.len() as u64);
            hash.write(name.as_bytes());
            hash.write_u64(table.holding.schema_version);
            add(&mut hash, &table.holding.spans);
            add(&mut hash, &table.holding.lost);
        }
        hash.finish()
    }
}

fn add(hash: &mut Xxh3, spans: &[Span]) {
    hash.write_u64(spans.len() as u64);
    for span in spans {
        hash.write_i64(span.first);
        hash.write_i64(span.last);
        hash.write_u64(span.rows);
    }
}

#[cfg(test)]
mod tests;
