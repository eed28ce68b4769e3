//! What must be true, kept outside of the leaf: every batch that was sent, what was said of it, and what faults may
//! have taken.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use gannet_leaf::Leaf;
use gannet_leaf::dedup::BatchName;
use gannet_leaf::scan::Cancel;
use gannet_query::{
    Aggregate, AggregateFunction, Body, ColumnType, Completeness, Expr, Finish, Key, Output, Plan, TimeRange,
    WeightKind,
};

/// A batch that was sent once or more often.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    /// Its number, which every row of it carries.
    pub(crate) tag: i64,
    pub(crate) table: String,
    pub(crate) name: Option<BatchName>,
    pub(crate) rows: u64,
    /// The sum of its rows' values.
    sum: i64,
    /// The time of its first row.
    time_ns: i64,
    /// It has to count.
    pub(crate) must: bool,
    /// It may count: its outcome is not a refusal.
    pub(crate) may: bool,
    /// It was found on a disk that had lost its power or whose log was synced since.
    pub(crate) durable: bool,
    /// It was counted in an answer.
    pub(crate) seen: bool,
    /// Retention may take it.
    pub(crate) may_expire: bool,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {} of {} rows for {}", self.tag, self.rows, self.table)?;
        match &self.name {
            Some(name) => write!(f, " ({} {}.{})", name.producer, name.sequence, name.part),
            None => Ok(()),
        }
    }
}

impl Sent {
    /// A batch with the next tag.
    pub(crate) fn new(tag: i64, table: &str, name: Option<BatchName>, rows: u64, time_ns: i64) -> Sent {
        let mut sent = Sent {
            tag,
            table: table.to_owned(),
            name,
            rows,
            sum: 0,
            time_ns,
            must: false,
            may: false,
            durable: false,
            seen: false,
            may_expire: false,
        };
        sent.sum = (0..rows).map(|row| sent.value(row)).sum();
        sent
    }

    fn value(&self, row: u64) -> i64 {
        self.tag * 1_000 + i64::try_from(row * row % 997).unwrap_or(0)
    }

    /// Its rows. Every seventh batch has a column of its own.
    pub(crate) fn batch(&self) -> RecordBatch {
        let rows = 0..self.rows;
        let times: Vec<i64> =
            rows.clone().map(|row| self.time_ns + i64::try_from(row).unwrap_or(0)).collect();
        let texts: Vec<String> = rows.clone().map(|row| format!("text {} {}", row % 5, self.tag)).collect();
        let mut columns: Vec<(String, ColumnType, ArrayRef)> = vec![
            (
                "time".into(),
                ColumnType::Time,
                Arc::new(TimestampNanosecondArray::from(times).with_timezone("+00:00")),
            ),
            ("tag".into(), ColumnType::Int, Arc::new(rows.clone().map(|_| self.tag).collect::<Int64Array>())),
            ("x".into(), ColumnType::Int, Arc::new(rows.map(|row| self.value(row)).collect::<Int64Array>())),
        ];
        if self.tag % 7 == 3 {
            columns.push(("text".into(), ColumnType::String, Arc::new(StringArray::from(texts))));
        }
        let fields: Vec<Field> =
            columns.iter().map(|(name, kind, _)| Field::new(name, kind.arrow(), true)).collect();
        let arrays = columns.into_iter().map(|(_, _, array)| array).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }
}

/// What a table answers: rows and sum of values by tag, and how complete that is.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) batches: BTreeMap<i64, (u64, i64)>,
    pub(crate) completeness: Completeness,
}

impl Answer {
    /// Rows that are said to be missing.
    pub(crate) fn missing_rows(&self) -> u64 {
        self.completeness.missing.iter().map(|missing| missing.rows.unwrap_or(u64::MAX / 2)).sum()
    }
}

/// Counts rows and adds values, by tag.
pub(crate) fn ask(leaf: &Leaf, table: &str) -> Result<Answer, String> {
    let aggregate = |function, argument: Option<&str>| Aggregate {
        function,
        argument: argument.map(|name| (Expr::column(name), DataType::Int64)),
        filter: None,
        weighted: true,
    };
    let plan = Plan {
        table: table.to_owned(),
        columns: vec![("tag".into(), ColumnType::Int), ("x".into(), ColumnType::Int)],
        time_range: TimeRange::ALL,
        filter: None,
        weight: WeightKind::One,
        output: Output::Groups {
            keys: vec![Key { expr: Expr::column("tag"), data_type: DataType::Int64 }],
            aggregates: vec![aggregate(AggregateFunction::Sum, Some("x"))],
        },
    };
    let partial = leaf.query(&plan, &Cancel::new(None)).map_err(|error| error.to_string())?;
    let Body::Groups(groups) = &partial.body else { return Err("groups were asked for".to_owned()) };
    let ints = |array: &ArrayRef| array.as_any().downcast_ref::<Int64Array>().cloned();
    let mut batches = BTreeMap::new();
    if groups.group_count > 0 {
        let finish =
            |finish| groups.states[0].finish(&finish, &DataType::Int64).map_err(|error| error.to_string());
        let columns = (ints(&groups.keys[0]), ints(&finish(Finish::Count)?), ints(&finish(Finish::Sum)?));
        let (Some(tags), Some(counts), Some(sums)) = columns else {
            return Err("the columns of the answer are no integers".to_owned());
        };
        for group in 0..groups.group_count {
            // A tag that is NULL is of a row that nobody sent.
            let tag = if tags.is_null(group) { -1 } else { tags.value(group) };
            let count = u64::try_from(counts.value(group)).unwrap_or(u64::MAX);
            if batches.insert(tag, (count, sums.value(group))).is_some() {
                return Err(format!("batch {tag} is in two groups"));
            }
        }
    }
    Ok(Answer { batches, completeness: partial.completeness })
}

/// How an answer is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judge {
    /// Rows may be missing, and the answer says how many at least.
    Honest,
    /// Nothing may be missing.
    Complete,
}

/// Every batch that was sent.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) sent: Vec<Sent>,
    /// The log has lost records of which nobody knows what they were: a batch of them whose rows are in a block may count
    /// twice when it is sent again, and rows behind all that the log knows of a table are missed by nobody.
    pub(crate) lost_records: bool,
}

impl Model {
    /// The power was cut: at level process, what was not known to be durable may be gone.
    pub(crate) fn power_cut(&mut self, keeps_unsynced: bool) {
        if keeps_unsynced {
            return;
        }
        for sent in self.sent.iter_mut().filter(|sent| !sent.durable) {
            sent.must = false;
            sent.seen = false;
        }
    }

    /// What was seen until now is on the disk for good.
    pub(crate) fn is_durable(&mut self) {
        self.sent.iter_mut().filter(|sent| sent.seen).for_each(|sent| sent.durable = true);
    }

    /// Judges what a table answers. Every broken promise is an error.
    pub(crate) fn judge(&mut self, table: &str, answer: &Answer, judge: Judge) -> Result<(), String> {
        let mut absent = 0;
        let mut covered = 0;
        for (tag, (count, _)) in &answer.batches {
            covered += count;
            if !self.sent.iter().any(|sent| sent.tag == *tag && sent.table == table) {
                return Err(format!("{count} rows of batch {tag} in {table}, which nobody sent there"));
            }
        }
        for sent in self.sent.iter_mut().filter(|sent| sent.table == table) {
            let (count, sum) = answer.batches.get(&sent.tag).copied().unwrap_or_default();
            if count > 0 && !sent.may {
                return Err(format!("{sent} was refused, and {count} rows of it count"));
            }
            if self.lost_records && count == 2 * sent.rows && sum == 2 * sent.sum {
                continue;
            }
            if count > sent.rows {
                return Err(format!("{sent} counts {count} rows"));
            }
            if count == sent.rows {
                if sum != sent.sum {
                    return Err(format!("the values of {sent} add up to {sum}, not {}", sent.sum));
                }
                sent.seen = true;
                continue;
            }
            if count > 0 && judge == Judge::Complete {
                return Err(format!("only {count} rows of {sent} count"));
            }
            if (sent.must || sent.seen) && !sent.may_expire {
                if judge == Judge::Complete {
                    let was = if sent.must { "acknowledged" } else { "seen" };
                    return Err(format!("{sent} was {was} and is gone"));
                }
                absent += sent.rows - count;
            }
        }
        if answer.completeness.rows_covered != covered {
            let said = answer.completeness.rows_covered;
            return Err(format!("{table} answers from {covered} rows and says {said}"));
        }
        let missing = answer.missing_rows();
        if absent > missing && !self.lost_records {
            return Err(format!("{absent} rows of {table} are missing, and the answer says {missing}"));
        }
        if judge == Judge::Complete && missing > 0 {
            let said = &answer.completeness.missing;
            return Err(format!(
                "nothing of {table} is missing, and the answer says {missing} rows: {said:?}"
            ));
        }
        Ok(())
    }
}
