//! What must be true, kept outside of the servers: every batch that was sent, what was said of it and by whom, and how
//! an answer is judged by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// The time of the first row, 2025-06-15; each batch is a minute later.
const TIME_BEGIN: i64 = 1_750_000_000;

/// What is known of a batch by who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was acknowledged.
    Acknowledged,
    /// It may have been taken.
    Unknown,
    /// It was not taken.
    Refused,
}

/// A batch that was sent once or more often.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// Its number, which every row of it carries.
    pub(crate) tag: i64,
    /// Who sent it, with which number.
    pub(crate) name: Option<(String, u64)>,
    pub(crate) rows: u64,
    /// It has to count since then.
    must_since: Option<u64>,
    /// Aggregators that acknowledged it and did not forget that.
    known_by: BTreeSet<usize>,
    acknowledged_ms: u64,
    /// It may count.
    may: bool,
    /// It counted in an answer.
    seen: bool,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {} of {} rows", self.tag, self.rows)?;
        match &self.name {
            Some((producer, sequence)) => write!(f, " ({producer} {sequence})"),
            None => Ok(()),
        }
    }
}

impl Sent {
    fn value(&self, row: u64) -> i64 {
        self.tag * 1_000 + i64::try_from(row * row % 997).unwrap_or(0)
    }

    fn sum(&self) -> i64 {
        (0..self.rows).map(|row| self.value(row)).sum()
    }

    /// Its rows as NDJSON.
    pub(crate) fn body(&self) -> String {
        let time = (TIME_BEGIN + self.tag * 60) * 1_000_000_000;
        let line = |row: u64| {
            let time = time + i64::try_from(row).unwrap_or(0);
            format!("{{\"time\":{time},\"tag\":{},\"x\":{}}}\n", self.tag, self.value(row))
        };
        (0..self.rows).map(line).collect()
    }
}

/// What was asked: tags from one to another, by one aggregator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) aggregator: usize,
    /// What had happened when it was asked.
    pub(crate) at: u64,
    /// Leaves that have to be accounted for.
    pub(crate) leaves: usize,
}

impl Asked {
    /// For all tags it is the same text each time, of which the plan is kept.
    pub(crate) fn sql(&self) -> String {
        let select = "SELECT tag, count(*) AS n, sum(x) AS s FROM t";
        match (self.from, self.to) {
            (0, i64::MAX) => format!("{select} GROUP BY tag"),
            (from, to) => format!("{select} WHERE tag >= {from} AND tag < {to} GROUP BY tag"),
        }
    }
}

/// How an answer is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judge {
    /// Rows may be missing, and the answer says how many at least.
    Honest,
    /// Nothing may be missing.
    Complete,
}

/// What an answer says of itself.
#[derive(Debug)]
struct Record {
    ratio: Option<f64>,
    covered: u64,
    answered: u64,
    /// By leaf.
    missing: Vec<(String, String, Option<u64>)>,
    truncated: bool,
}

impl Record {
    fn of(body: &Value) -> Option<Record> {
        let record = &body["completeness"];
        let missing = record["missing"].as_array()?.iter().map(|missing| {
            let text = |name: &str| missing[name].as_str().unwrap_or("").to_owned();
            (text("leaf"), text("reason"), missing["rows"].as_u64())
        });
        Some(Record {
            ratio: record["ratio"].as_f64(),
            covered: record["rows_covered"].as_u64()?,
            answered: record["leaves_answered"].as_u64()?,
            missing: missing.collect(),
            truncated: record["groups_truncated"].as_bool()?,
        })
    }

    /// Rows that are said to be missing; `None` when nobody knows.
    fn rows_missing(&self) -> Option<u64> {
        self.missing.iter().map(|(_, _, rows)| *rows).sum()
    }
}

/// Every batch that was sent.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) sent: Vec<Sent>,
    /// Acknowledgements, in order.
    moment: u64,
    /// Groups of one answer beyond which some are left out.
    pub(crate) groups_max: Option<usize>,
}

impl Model {
    /// Of nothing yet; of more groups than this some are left out.
    pub(crate) fn new(groups_max: Option<usize>) -> Model {
        Model { groups_max, ..Model::default() }
    }

    /// A batch with the next tag.
    pub(crate) fn batch(&mut self, name: Option<(String, u64)>, rows: u64) -> Sent {
        let sent = Sent {
            tag: i64::try_from(self.sent.len()).unwrap_or(i64::MAX),
            name,
            rows,
            must_since: None,
            known_by: BTreeSet::new(),
            acknowledged_ms: 0,
            may: false,
            seen: false,
        };
        self.sent.push(sent.clone());
        sent
    }

    /// The tag behind the last.
    pub(crate) fn end(&self) -> i64 {
        i64::try_from(self.sent.len()).unwrap_or(i64::MAX)
    }

    /// How many acknowledgements there were.
    pub(crate) fn now(&self) -> u64 {
        self.moment
    }

    /// It is being sent: from now on it may count.
    pub(crate) fn sending(&mut self, tag: i64) -> Option<&mut Sent> {
        let sent = self.sent.get_mut(usize::try_from(tag).ok()?)?;
        sent.may = true;
        Some(sent)
    }

    /// What became of it, when no attempt is under way any more.
    pub(crate) fn came(&mut self, tag: i64, outcome: Outcome, (aggregator, now_ms): (usize, u64)) {
        self.moment += 1;
        let moment = self.moment;
        let Some(sent) = usize::try_from(tag).ok().and_then(|tag| self.sent.get_mut(tag)) else { return };
        match outcome {
            Outcome::Acknowledged => {
                sent.must_since.get_or_insert(moment);
                sent.known_by.insert(aggregator);
                sent.acknowledged_ms = now_ms;
            }
            Outcome::Refused if sent.must_since.is_none() => sent.may = false,
            Outcome::Refused | Outcome::Unknown => {}
        }
    }

    /// An aggregator is gone, and with it what it had not written since then.
    pub(crate) fn forgot(&mut self, aggregator: usize, since_ms: u64) {
        for sent in self.sent.iter_mut().filter(|sent| sent.acknowledged_ms >= since_ms) {
            sent.known_by.remove(&aggregator);
        }
    }

    /// Judges an answer. Every broken promise is an error.
    pub(crate) fn judge(&mut self, asked: &Asked, body: &Value, judge: Judge) -> Result<(), String> {
        let wrong = |what: String| Err(format!("{what}; aggregator {} answered {body}", asked.aggregator));
        let Some(record) = Record::of(body) else { return wrong("an answer without its record".to_owned()) };
        let groups = match groups(body) {
            Ok(groups) => groups,
            Err(what) => return wrong(what),
        };
        let found: u64 = groups.values().map(|(count, _)| count).sum();
        let mut leaves: BTreeSet<&str> = record.missing.iter().map(|(leaf, ..)| leaf.as_str()).collect();
        if record.answered as usize + leaves.len() < asked.leaves {
            let accounted = record.answered as usize + leaves.len();
            return wrong(format!("{accounted} leaves are accounted for, and there are {}", asked.leaves));
        }
        leaves.clear();
        let all_there = record.rows_missing() == Some(0);
        if all_there != (record.ratio == Some(1.0)) {
            return wrong("the ratio does not say what is missing".to_owned());
        }
        let all_there = all_there && record.missing.iter().all(|(_, reason, _)| reason == "error");
        if judge == Judge::Complete && !all_there {
            return wrong("nothing is missing, and the answer says that something is".to_owned());
        }
        if found > record.covered {
            return wrong(format!("{found} rows of {} covered ones", record.covered));
        }
        let mut absent = 0;
        for sent in &mut self.sent {
            let group = groups.get(&sent.tag).copied();
            if !(asked.from..asked.to).contains(&sent.tag) {
                match group {
                    Some(_) => return wrong(format!("{sent} was not asked for")),
                    None => continue,
                }
            }
            match group {
                Some(_) if !sent.may => return wrong(format!("{sent} was refused, and counts")),
                Some((count, sum)) if (count, sum) != (sent.rows, sent.sum()) => {
                    return wrong(format!("{sent} counts {count} rows that add up to {sum}"));
                }
                Some(_) => sent.seen = true,
                None => {
                    let must = sent.must_since.is_some_and(|since| since <= asked.at);
                    let is_gone = must || (judge == Judge::Complete && sent.seen);
                    if is_gone && all_there && !record.truncated {
                        let was = if must { "acknowledged" } else { "seen" };
                        return wrong(format!("{sent} was {was} and is gone"));
                    }
                    if must && sent.known_by.contains(&asked.aggregator) {
                        absent += sent.rows;
                    }
                }
            }
        }
        if groups.keys().any(|tag| !(0..self.end()).contains(tag)) {
            return wrong("rows that nobody sent".to_owned());
        }
        if !record.truncated && record.rows_missing().is_some_and(|missing| missing < absent) {
            return wrong(format!("{absent} rows are missing, and the answer says less"));
        }
        Ok(())
    }
}

/// Rows and sum by tag.
fn groups(body: &Value) -> Result<BTreeMap<i64, (u64, i64)>, String> {
    let rows = body["rows"].as_array().ok_or("an answer without rows")?;
    let mut groups = BTreeMap::new();
    for row in rows {
        let (Some(tag), Some(count), Some(sum)) = (row[0].as_i64(), row[1].as_u64(), row[2].as_i64()) else {
            return Err(format!("a row that is none: {row}"));
        };
        if groups.insert(tag, (count, sum)).is_some() {
            return Err(format!("tag {tag} has two groups"));
        }
    }
    Ok(groups)
}
