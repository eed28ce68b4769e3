//! Who must exist, with what: for every leaf ever heard of, what it last held of each table by time.
//!
//! The roster is what "rows expected" is counted from, so it errs on the side of too many. It is a plain state
//! machine: it does no I/O, knows no clock, and its owner keeps its JSON text.
//!
//! Invariants:
//! * a leaf leaves the roster only when a person says so (`standing`), never because it is absent;
//! * what a leaf held shrinks by what the leaf itself says in the same epoch (retention), never by a restart: when a
//!   later epoch settles with fewer rows, the difference is *lost*, and lost rows stay expected until they are older
//!   than the table's retention or a person accepts their loss;
//! * while a leaf of a newer epoch is still starting, what it held before stands.

use std::collections::{BTreeMap, BTreeSet};

use gannet_query::holdings::rows_in;
use gannet_query::{Holdings, LeafState, Missing, MissingReason, Span, TableHolding, TimeRange};

use crate::catalogue::Catalogue;

mod credit;
mod epochs;
mod learning;
mod losses;
mod standing;
mod text;

pub use learning::{Decision, HeldByLeaf, KnownLeaf, LostRows};
pub use standing::Standing;
use standing::Standings;
pub use text::RosterError;

/// Who must exist, with what. See the module.
#[derive(Debug, Default)]
pub struct Roster {
    leaves: BTreeMap<String, LeafRecord>,
    children: BTreeMap<String, ChildRecord>,
    /// The addresses of the configured children.
    configured: BTreeSet<String>,
    /// What people decided about leaves.
    standings: Standings,
    version: u64,
}

/// What is known of one leaf.
#[derive(Debug)]
struct LeafRecord {
    /// The address of the child through which it was last heard of.
    child: String,
    /// The epoch that `tables` are of.
    epoch: u64,
    /// Rows ingested in that epoch: replies that overtook each other are told apart by it.
    rows_ingested: u64,
    /// Rows that came with the start of that epoch.
    rows_restored: u64,
    /// What it last held when it had settled.
    tables: BTreeMap<String, TableRecord>,
    /// What it last said of itself, its tables aside; `None` when it has not been heard of since the roster was read.
    said: Option<Holdings>,
}

/// What is known of one table on one leaf.
#[derive(Debug, Clone, Default, PartialEq)]
struct TableRecord {
    holding: TableHolding,
    /// Rows that did not come back with a later epoch and that the leaf itself does not count as lost.
    lost: Vec<Span>,
    /// The leaf holds nothing of it any more; it is kept because rows are lost.
    gone: bool,
    /// Rows that came by other hands before the last description.
    grew: u64,
    /// Rows that it may hold beyond what is known, should it be silent (`credit`).
    credit: u64,
}

/// What a child last said, for as long as it can be reached.
#[derive(Debug, Default, Clone, PartialEq)]
struct ChildRecord {
    /// The leaves at or below it.
    leaves: BTreeSet<String>,
    /// Leaves that it must have and cannot reach, with why.
    unreachable: BTreeMap<String, String>,
}

/// What to do after a reply to a row batch was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// Nothing.
    Done,
    /// The reply tells less than must be known (a new epoch, or columns that changed): describe the child first.
    DescribeFirst,
}

/// What a child is to a sender whose request must meet the same leaf again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeafAt<'a> {
    /// The leaf with this id.
    Leaf(&'a str),
    /// An aggregator, or a leaf that counts under another address.
    NoLeaf,
    /// Nothing was ever heard of it, so nobody knows.
    Unheard,
}

/// A leaf as status shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct LeafStatus {
    /// Its id.
    pub leaf: String,
    /// The address of its child.
    pub child: String,
    /// The epoch of what is known.
    pub epoch: u64,
    /// What it last said of itself, its tables aside; `None` when it has not been heard of since the start.
    pub said: Option<Holdings>,
    /// Why it cannot be reached below its child; `None` when it can, or when its child cannot be reached either.
    pub unreachable: Option<String>,
    /// Its child is configured.
    pub configured: bool,
    /// Rows it holds, or held.
    pub rows: u64,
    /// Bytes it holds, or held.
    pub bytes: u64,
    /// Rows that are lost.
    pub rows_lost: u64,
}

impl Roster {
    /// Names the configured children.
    pub fn configure(&mut self, children: impl IntoIterator<Item = String>) {
        self.configured = children.into_iter().collect();
        self.version += 1;
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Notes what a child said it and the leaves below it hold, and which it cannot reach, with why. `now` is in
    /// nanoseconds UTC. Gives back, for the log, the rows that turned out to be lost by leaf.
    pub fn described(
        &mut self,
        child: &str,
        leaves: Vec<Holdings>,
        unreachable: Vec<(String, String)>,
        now: i64,
    ) -> Vec<(String, u64)> {
        let record = ChildRecord {
            leaves: leaves.iter().map(|holdings| holdings.leaf.clone()).collect(),
            unreachable: unreachable.into_iter().collect(),
        };
        if self.children.get(child) != Some(&record) {
            self.children.insert(child.to_owned(), record);
            self.version += 1;
        }
        let mut lost = Vec::new();
        for holdings in leaves {
            let leaf = holdings.leaf.clone();
            let rows = self.note(child, holdings, now);
            if rows > 0 {
                lost.push((leaf, rows));
            }
        }
        lost
    }

    /// Notes one leaf's holdings; gives back the rows newly found lost.
    fn note(&mut self, child: &str, mut said: Holdings, now: i64) -> u64 {
        if self.is_decommissioned(&said.leaf) {
            return 0;
        }
        let tables = std::mem::take(&mut said.tables);
        let settled = matches!(said.state, LeafState::Serving | LeafState::Draining);
        let Some(record) = self.leaves.get_mut(&said.leaf) else {
            let tables = tables.into_iter().map(|holding| (holding.name.clone(), holding.into())).collect();
            let record = LeafRecord {
                child: child.to_owned(),
                epoch: said.epoch,
                rows_ingested: said.rows_ingested,
                rows_restored: said.rows_restored,
                tables,
                said: Some(said.clone()),
            };
            self.leaves.insert(said.leaf, record);
            self.version += 1;
            return 0;
        };
        let newest = record.newest_epoch();
        // Of two processes with one id the newer epoch counts. At one address there is only one process, so an older
        // epoch there is a leaf that began anew without what it knew.
        if said.epoch < newest && child != record.child {
            return 0;
        }
        let same_epoch = said.epoch == record.epoch;
        if same_epoch && said.rows_ingested < record.rows_ingested {
            return 0;
        }
        if same_epoch && child == record.child && record.says_as_before(&tables) {
            record.said = Some(said);
            record.credit(&BTreeMap::new());
            self.version += u64::from(record.expire(now));
            return 0;
        }
        self.version += 1;
        record.child = child.to_owned();
        if settled {
            record.rows_restored = said.rows_restored;
        }
        let mut lost_rows = 0;
        if settled && same_epoch {
            let growth = record.growth(&tables);
            record.replace(tables, BTreeMap::new());
            record.credit(&growth);
            record.rows_ingested = said.rows_ingested;
        } else if settled {
            let lost = losses::losses(record.epoch, &record.tables, &(&said).into(), &tables, now);
            lost_rows = lost.values().flatten().map(|span| span.rows).sum();
            let before = record.rows_lost_here();
            for table in record.tables.values_mut() {
                table.lost.clear();
            }
            record.replace(tables, lost);
            record.credit(&BTreeMap::new());
            record.epoch = said.epoch;
            record.rows_ingested = said.rows_ingested;
            lost_rows = lost_rows.saturating_sub(before);
        } else if same_epoch && said.state != LeafState::HandingOver && said.state != LeafState::Stopped {
            // A leaf that was first heard of while it starts: what it has so far.
            record.replace(tables, BTreeMap::new());
        }
        record.said = Some(said);
        record.expire(now);
        lost_rows
    }

    /// Notes what a leaf says it holds after it took a row batch; the holdings have that one table.
    pub fn appended(&mut self, child: &str, said: &Holdings) -> Noted {
        let Some(record) = self.leaves.get_mut(&said.leaf) else { return Noted::DescribeFirst };
        if said.epoch > record.epoch || record.child != child {
            return Noted::DescribeFirst;
        }
        if said.epoch < record.epoch || said.rows_ingested < record.rows_ingested {
            return Noted::Done;
        }
        let columns_known = |table: &TableHolding| {
            let known = record.tables.get(&table.name);
            !table.columns.is_empty()
                || known.is_some_and(|known| known.holding.schema_version == table.schema_version)
        };
        if !said.tables.iter().all(columns_known) {
            return Noted::DescribeFirst;
        }
        for table in &said.tables {
            let known = record.tables.entry(table.name.clone()).or_default();
            let columns = if table.columns.is_empty() {
                std::mem::take(&mut known.holding.columns)
            } else {
                table.columns.clone()
            };
            let by_time = match table.by_time.is_empty() {
                true => std::mem::take(&mut known.holding.by_time),
                false => table.by_time.clone(),
            };
            known.holding = TableHolding { columns, by_time, ..table.clone() };
        }
        record.rows_ingested = said.rows_ingested;
        if let Some(before) = record.said.as_mut() {
            before.memory_used_bytes = said.memory_used_bytes;
            before.memory_limit_bytes = said.memory_limit_bytes;
            before.rows_ingested = said.rows_ingested;
        }
        self.version += 1;
        Noted::Done
    }

    /// Rows that a leaf must account for when it is silent, over a table and a time range.
    pub fn rows_expected(&self, leaf: &str, table: &str, range: &TimeRange) -> u64 {
        let record = self.leaves.get(leaf).and_then(|record| record.tables.get(table));
        record.map_or(0, |table| {
            rows_in(&table.holding.spans, range)
                + rows_in(&table.holding.lost, range)
                + rows_in(&table.lost, range)
                + table.credit
        })
    }

    /// What a leaf last held of a table, and its rows that are lost without the leaf knowing of it.
    pub fn held(&self, leaf: &str, table: &str) -> Option<(&TableHolding, &[Span])> {
        let record = self.leaves.get(leaf)?.tables.get(table)?;
        Some((&record.holding, &record.lost))
    }

    /// The ids of all leaves ever heard of.
    pub fn leaf_ids(&self) -> impl Iterator<Item = &str> {
        self.leaves.keys().map(String::as_str)
    }

    /// Rows of a leaf that are lost without the leaf knowing of it, over a table and a time range.
    pub fn rows_lost(&self, leaf: &str, table: &str, range: &TimeRange) -> u64 {
        let record = self.leaves.get(leaf).and_then(|record| record.tables.get(table));
        record.map_or(0, |table| rows_in(&table.lost, range))
    }

    /// What is missing when a child does not answer: every leaf it stands for.
    pub fn missing_of(
        &self,
        child: &str,
        reason: MissingReason,
        detail: &str,
        table: &str,
        range: &TimeRange,
    ) -> Vec<Missing> {
        let missing = |leaf: &str, rows: Option<u64>| Missing {
            leaf: leaf.to_owned(),
            reason,
            rows,
            answered: false,
            detail: detail.to_owned(),
        };
        if self.is_retired(child) {
            return Vec::new();
        }
        let known = self.leaves.iter().filter(|(_, record)| record.child == child);
        let mut all: Vec<Missing> =
            known.map(|(leaf, _)| missing(leaf, Some(self.rows_expected(leaf, table, range)))).collect();
        if let Some(record) = self.children.get(child) {
            let unheard = record.unreachable.keys().filter(|leaf| self.is_unheard(leaf));
            all.extend(unheard.map(|leaf| missing(leaf, None)));
        }
        if all.is_empty() {
            all.push(missing(child, None));
        }
        all
    }

    /// What is missing when none of these leaves that the roster knows was named in any answer.
    pub fn missing_besides(
        &self,
        named: impl Fn(&str) -> bool,
        table: &str,
        range: &TimeRange,
    ) -> Vec<Missing> {
        let unnamed = self.leaves.iter().filter(|(leaf, _)| !named(leaf));
        let missing = unnamed.map(|(leaf, record)| Missing {
            leaf: leaf.clone(),
            reason: MissingReason::Down,
            rows: Some(self.rows_expected(leaf, table, range)),
            answered: false,
            detail: if self.configured.contains(&record.child) {
                format!("its child {} did not name it", record.child)
            } else {
                format!("its child {} is not among the configured children", record.child)
            },
        });
        missing.collect()
    }

    /// The leaves that more than one configured child says it has.
    pub fn contested(&self) -> BTreeSet<String> {
        let mut once = BTreeSet::new();
        let children = self.children.iter().filter(|(child, _)| self.configured.contains(*child));
        let leaves = children.flat_map(|(_, record)| &record.leaves);
        leaves.filter(|leaf| !once.insert(leaf.as_str())).cloned().collect()
    }

    /// The id of the one leaf that a child is, with what it last said; `None` for an aggregator with several leaves,
    /// and for a child not yet heard of.
    pub fn only_leaf(&self, child: &str) -> Option<&Holdings> {
        let record = self.children.get(child)?;
        let leaf =
            record.leaves.first().filter(|_| record.leaves.len() == 1 && record.unreachable.is_empty())?;
        self.leaves.get(leaf)?.said.as_ref()
    }

    /// The leaf that a configured child is, up or not: what every aggregator with the same children agrees on.
    pub fn leaf_at(&self, child: &str) -> LeafAt<'_> {
        let mut known = self.leaves.iter().filter(|(_, record)| record.child == child);
        let leaf = match self.children.get(child) {
            Some(record) if record.leaves.len() == 1 && record.unreachable.is_empty() => {
                record.leaves.first()
            }
            Some(_) => return LeafAt::NoLeaf,
            None => match (known.next(), known.next()) {
                (Some((leaf, _)), None) => Some(leaf),
                _ => None,
            },
        };
        let leaf = match leaf {
            Some(leaf) if self.is_decommissioned(leaf) => return LeafAt::NoLeaf,
            Some(leaf) => leaf,
            None if self.is_retired(child) => return LeafAt::NoLeaf,
            None => return LeafAt::Unheard,
        };
        let home = self.leaves.get(leaf).map(|record| &record.child);
        match home {
            // The same leaf under two addresses counts at the one it was last heard of.
            Some(home) if home != child && self.configured.contains(home) => LeafAt::NoLeaf,
            _ => LeafAt::Leaf(leaf),
        }
    }

    /// Forgets rows of a leaf that did not come back with a later epoch: gives back how many, or `None` for a leaf never
    /// heard of. What the leaf itself counts as lost is the leaf's to forget.
    pub fn accept_loss(&mut self, leaf: &str) -> Option<u64> {
        let record = self.leaves.get_mut(leaf)?;
        let rows = record.rows_lost_here();
        record.tables.values_mut().for_each(|table| table.lost.clear());
        record.tables.retain(|_, table| !table.gone);
        let epoch = record.epoch;
        self.decide(leaf, |standing| standing.accepted_epoch = epoch);
        Some(rows)
    }

    /// The configured child that says it has a leaf, and whether it can reach it.
    pub fn child_of(&self, leaf: &str) -> Option<(&str, bool)> {
        let at = self.leaves.get(leaf).map(|record| record.child.as_str());
        let has = |(child, record): &(&String, &ChildRecord)| {
            self.configured.contains(*child)
                && match at {
                    Some(at) => at == child.as_str() && record.leaves.contains(leaf),
                    None => record.unreachable.contains_key(leaf),
                }
        };
        let (child, record) = self.children.iter().find(has)?;
        Some((child, !record.unreachable.contains_key(leaf)))
    }

    /// The tables and columns of all leaves, those of leaves that are down too.
    pub fn catalogue(&self) -> Catalogue {
        let holdings: Vec<Holdings> = self.leaves.keys().filter_map(|leaf| self.holdings(leaf)).collect();
        Catalogue::from_holdings(&holdings)
    }

    /// Everything known of a leaf, as it would say it: rows that only the roster knows to be lost are among its lost
    /// rows.
    pub fn holdings(&self, leaf: &str) -> Option<Holdings> {
        let record = self.leaves.get(leaf)?;
        let tables = record.tables.values().map(|table| {
            let mut holding = table.holding.clone();
            holding.lost.extend(&table.lost);
            holding.lost = gannet_query::holdings::fold_spans(holding.lost);
            holding
        });
        let said = record.said.clone().unwrap_or_else(|| Holdings {
            leaf: leaf.to_owned(),
            epoch: record.epoch,
            version: String::new(),
            state: LeafState::Stopped,
            source: String::new(),
            source_detail: String::new(),
            memory_used_bytes: 0,
            memory_limit_bytes: 0,
            phases: Vec::new(),
            tables: Vec::new(),
            rows_ingested: record.rows_ingested,
            rows_restored: 0,
            process: String::new(),
            machine: String::new(),
            takes_dictionaries: false,
        });
        Some(Holdings { tables: tables.collect(), ..said })
    }

    /// Every leaf, as status shows it.
    pub fn leaves(&self) -> Vec<LeafStatus> {
        let status = |(leaf, record): (&String, &LeafRecord)| LeafStatus {
            leaf: leaf.clone(),
            child: record.child.clone(),
            epoch: record.epoch,
            said: record.said.clone(),
            unreachable: self
                .children
                .get(&record.child)
                .and_then(|child| child.unreachable.get(leaf))
                .cloned(),
            configured: self.configured.contains(&record.child),
            rows: record.rows(),
            bytes: record.tables.values().map(|table| table.holding.bytes).sum(),
            rows_lost: record.rows_lost(),
        };
        self.leaves.iter().map(status).collect()
    }

    /// Configured children, and leaves below them, of which nothing was ever heard, with why.
    pub fn unheard(&self) -> Vec<(String, String)> {
        let mut unheard = Vec::new();
        for child in &self.configured {
            match self.children.get(child) {
                Some(record) => {
                    let leaves = record.unreachable.iter().filter(|(leaf, _)| self.is_unheard(leaf));
                    unheard.extend(leaves.map(|(leaf, why)| (leaf.clone(), why.clone())));
                }
                None if self.leaves.values().any(|record| record.child == *child) => {}
                None if self.is_retired(child) => {}
                None => unheard.push((child.clone(), "nothing was ever heard of it".to_owned())),
            }
        }
        unheard
    }
}

impl Roster {
    /// Nothing is known of a leaf that must be there.
    fn is_unheard(&self, leaf: &str) -> bool {
        !self.leaves.contains_key(leaf) && !self.is_decommissioned(leaf)
    }
}

impl LeafRecord {
    /// Takes the tables a leaf holds now. A table that is gone stays, empty, for as long as rows of it are lost.
    fn replace(&mut self, tables: Vec<TableHolding>, mut lost: BTreeMap<String, Vec<Span>>) {
        let mut before = std::mem::take(&mut self.tables);
        for mut holding in tables {
            let mut record = before.remove(&holding.name).unwrap_or_default();
            if holding.columns.is_empty() && holding.schema_version == record.holding.schema_version {
                holding.columns = record.holding.columns;
            }
            // What the leaf begins to count as lost by itself, the roster need not count again.
            let known = record.holding.lost.iter().map(|span| span.rows).sum::<u64>();
            let says = holding.lost.iter().map(|span| span.rows).sum::<u64>();
            losses::forget(&mut record.lost, says.saturating_sub(known));
            record.lost.extend(lost.remove(&holding.name).unwrap_or_default());
            record.holding = holding;
            record.gone = false;
            self.tables.insert(record.holding.name.clone(), record);
        }
        for (name, mut record) in before {
            record.lost.extend(lost.remove(&name).unwrap_or_default());
            if !record.lost.is_empty() {
                let TableHolding { name: table, columns, schema_version, retention_seconds, .. } =
                    record.holding;
                record.holding = TableHolding {
                    name: table,
                    columns,
                    schema_version,
                    retention_seconds,
                    ..Default::default()
                };
                record.gone = true;
                self.tables.insert(name, record);
            }
        }
    }

    /// The leaf holds exactly what is known of it.
    fn says_as_before(&self, tables: &[TableHolding]) -> bool {
        let held = self.tables.values().filter(|table| !table.gone).count();
        let same = |holding: &TableHolding| {
            self.tables.get(&holding.name).is_some_and(|known| !known.gone && known.holding == *holding)
        };
        held == tables.len() && tables.iter().all(same)
    }

    /// Lost rows that the table would have let go by now are no longer missed. True when there were any.
    fn expire(&mut self, now: i64) -> bool {
        let before = self.rows_lost_here();
        for table in self.tables.values_mut() {
            let oldest = losses::oldest(table.holding.retention_seconds, now);
            table.lost.retain(|span| span.last >= oldest);
        }
        self.tables.retain(|_, table| !table.gone || !table.lost.is_empty());
        self.rows_lost_here() != before
    }

    fn rows(&self) -> u64 {
        self.tables.values().map(|table| table.holding.rows).sum()
    }

    fn rows_lost_here(&self) -> u64 {
        self.tables.values().flat_map(|table| &table.lost).map(|span| span.rows).sum()
    }

    fn rows_lost(&self) -> u64 {
        let said =
            self.tables.values().flat_map(|table| &table.holding.lost).map(|span| span.rows).sum::<u64>();
        said + self.rows_lost_here()
    }
}

impl From<TableHolding> for TableRecord {
    fn from(holding: TableHolding) -> TableRecord {
        TableRecord { holding, lost: Vec::new(), gone: false, grew: 0, credit: 0 }
    }
}

#[cfg(test)]
mod tests;
