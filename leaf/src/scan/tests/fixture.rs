//! Rows, the runs that hold them in different encodings, plans, and the row-by-row reference.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder, TimestampNanosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampNanosecondType};
use arrow::util::display::array_value_to_string;
use gannet_query::{
    Aggregate, AggregateFunction, BinaryOp, Body, ColumnType, Expr, Finish, Groups, Input, Key, Output, Plan,
    States, TimeRange, TypeSet, Values, WeightKind, Weights,
};

use crate::column::{Codes, Column};
use crate::row_block::{Preference, RowBlock};
use crate::scan::compile::compile;
use crate::scan::prepare::ColumnSpec;
use crate::scan::readers::int_parts;
use crate::scan::{Cancel, RowRun, RunError, ScanError, ScanLimits, ScanOutcome, scan};

/// 2026-01-01T00:00:00Z.
pub(super) const START: i64 = 1_767_225_600_000_000_000;
pub(super) const SECOND: i64 = 1_000_000_000;

/// Columns with names and types, all of one length, as plain arrays.
pub(super) type Table = Vec<(String, ColumnType, ArrayRef)>;

/// A number that looks random, from a row and a salt.
pub(super) fn noise(row: usize, salt: u64) -> u64 {
    let mut x = (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(salt << 32 | salt);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Rows `from..to` of the test table: every type, with NULLs, in few and many distinct values.
pub(super) fn table(from: usize, to: usize) -> Table {
    let some = |row: usize, salt: u64| !noise(row, salt).is_multiple_of(11);
    let ints = |value: &dyn Fn(usize) -> Option<i64>| -> ArrayRef {
        Arc::new((from..to).map(value).collect::<Int64Array>())
    };
    let texts = |value: &dyn Fn(usize) -> Option<String>| -> ArrayRef {
        Arc::new((from..to).map(value).collect::<StringArray>())
    };
    let time = TimestampNanosecondArray::from_iter_values(
        (from..to).map(|row| START + row as i64 * 7 * SECOND + (noise(row, 1) % 20) as i64 * SECOND / 4),
    );
    let latency: Float64Array = (from..to)
        .map(|row| {
            some(row, 2).then(|| match noise(row, 3) % 9 {
                0 => -0.0,
                1 => 0.0,
                other => other as f64 * 1.25,
            })
        })
        .collect();
    let ok: BooleanArray =
        (from..to).map(|row| some(row, 4).then(|| noise(row, 5).is_multiple_of(3))).collect();
    let mut tags = ListBuilder::new(StringBuilder::new());
    for row in from..to {
        match noise(row, 6) % 4 {
            0 => tags.append_null(),
            count => tags.append_value((1..count).map(|tag| Some(format!("t{tag}")))),
        }
    }
    let service =
        |row| some(row, 7).then(|| ["api", "Web", "db", "cache", "péage"][noise(row, 8) as usize % 5].into());
    vec![
        ("time".into(), ColumnType::Time, Arc::new(time.with_timezone("+00:00"))),
        ("service".into(), ColumnType::String, texts(&service)),
        ("region".into(), ColumnType::String, texts(&|_| Some("eu".into()))),
        (
            "url".into(),
            ColumnType::String,
            texts(&|row| some(row, 9).then(|| format!("/item/{}", noise(row, 10) % 400))),
        ),
        (
            "status".into(),
            ColumnType::Int,
            ints(&|row| some(row, 11).then(|| [200, 404, 500, 1500][noise(row, 12) as usize % 4])),
        ),
        (
            "small".into(),
            ColumnType::Int,
            ints(&|row| some(row, 13).then(|| (noise(row, 14) % 40) as i64 - 20)),
        ),
        ("bytes".into(), ColumnType::Int, ints(&|row| Some((noise(row, 15) % 1_000_000_000_000) as i64))),
        (
            "wide".into(),
            ColumnType::Int,
            ints(&|row| Some([i64::MIN, -1, 0, 7, i64::MAX][noise(row, 16) as usize % 5])),
        ),
        ("latency".into(), ColumnType::Float, Arc::new(latency)),
        ("ok".into(), ColumnType::Bool, Arc::new(ok)),
        ("tags".into(), ColumnType::Strings, Arc::new(tags.finish())),
        ("gone".into(), ColumnType::Int, ints(&|_| None)),
        ("size".into(), ColumnType::Int, ints(&|row| Some((noise(row, 19) % 4_000_000_000) as i64 - 7))),
        (
            "sample_rate".into(),
            ColumnType::Int,
            ints(&|row| some(row, 17).then(|| 1 + (noise(row, 18) % 9) as i64)),
        ),
    ]
}

/// How a run holds its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are.
    Plain,
    /// Packed, dictionaries and constants wherever they can be.
    Tight,
    /// As a row block holds them.
    Sealed,
    /// As a row block holds them when it prefers some encodings.
    Preferred(Preference),
}

/// A run of rows in memory.
#[derive(Debug)]
pub(super) struct TestRun {
    pub(super) rows: usize,
    pub(super) times: (i64, i64),
    pub(super) columns: Vec<(String, ColumnType, Column)>,
    pub(super) is_block: bool,
    /// A column that cannot be read.
    pub(super) broken: Option<String>,
}

impl RowRun for TestRun {
    fn rows(&self) -> usize {
        self.rows
    }

    fn time_range(&self) -> (i64, i64) {
        self.times
    }

    fn column(&self, name: &str) -> Result<Option<Column>, RunError> {
        if self.broken.as_deref() == Some(name) {
            return Err(RunError("checksum mismatch".into()));
        }
        Ok(self.columns.iter().find(|column| column.0 == name).map(|column| column.2.clone()))
    }

    fn find(&self, name: &str, _near: usize) -> Option<(usize, TypeSet)> {
        let place = self.columns.iter().position(|column| column.0 == name)?;
        Some((place, TypeSet::of(self.columns[place].1, false)))
    }

    fn int_range(&self, name: &str, _near: usize) -> Option<(i64, i64)> {
        let (_, _, column) = self.columns.iter().find(|column| column.0 == name)?;
        match column {
            Column::Packed { base, gcd, codes, .. } => {
                let max = (0..codes.len()).map(|row| codes.get(row)).max()?;
                Some((*base, base.wrapping_add(gcd.wrapping_mul(max as i64))))
            }
            Column::Constant(value) if value.is_null(0) => None,
            Column::Constant(value) => int_parts(value)?.0.first().map(|value| (*value, *value)),
            Column::IntDictionary { values, .. } => Some((*values.first()?, *values.last()?)),
            _ => None,
        }
    }

    fn is_block(&self) -> bool {
        self.is_block
    }
}

/// The rows of a table as one run.
pub(super) fn run(table: &Table, encoding: Encoding) -> TestRun {
    let times = table[0].2.as_primitive::<TimestampNanosecondType>().values();
    let column = |(name, column_type, array): &(String, ColumnType, ArrayRef)| {
        let column = match encoding {
            Encoding::Plain => Column::Plain(array.clone()),
            Encoding::Tight => encode(array),
            Encoding::Sealed => sealed(name, array, &table[0].2, Preference::Best),
            Encoding::Preferred(preference) => sealed(name, array, &table[0].2, preference),
        };
        (name.clone(), *column_type, column)
    };
    TestRun {
        rows: times.len(),
        times: (times.iter().copied().min().unwrap_or(0), times.iter().copied().max().unwrap_or(0)),
        columns: table.iter().map(column).collect(),
        is_block: encoding != Encoding::Plain,
        broken: None,
    }
}

/// A column on its way through a row block's image.
fn sealed(name: &str, array: &ArrayRef, time: &ArrayRef, preference: Preference) -> Column {
    let columns = [("time", time), (name, array)];
    let count = if name == "time" { 1 } else { 2 };
    let batch = RecordBatch::try_from_iter(
        columns.iter().take(count).map(|(name, array)| (*name, Arc::clone(array))),
    );
    let block = RowBlock::seal_with(7, &[batch.unwrap()], preference).unwrap();
    RowBlock::open(block.image().clone(), 7).unwrap().column(name).unwrap().unwrap()
}

fn encode(array: &ArrayRef) -> Column {
    let first = array.slice(0, 1);
    if (0..array.len()).all(|row| array.slice(row, 1).to_data() == first.to_data()) {
        return Column::Constant(first);
    }
    if let Some((values, nulls)) = int_parts(array) {
        return pack(&values, nulls);
    }
    if array.data_type() == &DataType::Utf8 {
        let texts = array.as_string::<i32>();
        let mut distinct: Vec<&str> = texts.iter().flatten().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let code =
            |text: Option<&str>| text.map_or(distinct.len(), |text| distinct.partition_point(|d| *d < text));
        let codes: Vec<u64> = texts.iter().map(|text| code(text) as u64).collect();
        return Column::Dictionary {
            values: Arc::new(StringArray::from(distinct.clone())),
            codes: narrowest(&codes),
            has_nulls: texts.null_count() > 0,
        };
    }
    Column::Plain(array.clone())
}

fn pack(values: &[i64], nulls: Option<NullBuffer>) -> Column {
    let valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
    let base = (0..values.len()).filter(|row| valid(*row)).map(|row| values[row]).min().unwrap_or(0);
    let distance = |row: usize| if valid(row) { values[row].wrapping_sub(base) as u64 } else { 0 };
    let distances: Vec<u64> = (0..values.len()).map(distance).collect();
    let gcd = distances.iter().fold(0u64, |mut a, b| {
        let mut b = *b;
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    });
    let gcd = i64::try_from(gcd.max(1)).unwrap_or(1);
    let codes: Vec<u64> = distances.iter().map(|distance| distance / gcd as u64).collect();
    Column::Packed { base, gcd, codes: narrowest(&codes), validity: nulls }
}

fn narrowest(codes: &[u64]) -> Codes {
    match codes.iter().max().copied().unwrap_or(0) {
        0..256 => Codes::U8(codes.iter().map(|code| *code as u8).collect()),
        256..65_536 => Codes::U16(codes.iter().map(|code| *code as u16).collect()),
        65_536..4_294_967_296 => Codes::U32(codes.iter().map(|code| *code as u32).collect()),
        _ => Codes::U64(codes.iter().copied().collect()),
    }
}

pub(super) fn column(name: &str) -> Expr {
    Expr::column(name)
}

pub(super) fn binary(op: BinaryOp, left: Expr, right: Expr) -> Expr {
    Expr::binary(op, left, right)
}

pub(super) fn time(nanoseconds: i64) -> Expr {
    Expr::literal(Arc::new(TimestampNanosecondArray::from(vec![nanoseconds]).with_timezone("+00:00")))
}

pub(super) fn float(value: f64) -> Expr {
    Expr::literal(Arc::new(Float64Array::from(vec![value])))
}

pub(super) fn call(function: &str, arguments: Vec<Expr>) -> Expr {
    Expr::Call { function: function.into(), arguments }
}

pub(super) fn like(operand: Expr, pattern: &str) -> Expr {
    let pattern = Box::new(Expr::text(pattern));
    Expr::Like { operand: Box::new(operand), pattern, negated: false, case_insensitive: false, escape: None }
}

pub(super) fn cast(operand: Expr, to: DataType) -> Expr {
    Expr::Cast { operand: Box::new(operand), to, lenient: false }
}

pub(super) fn count() -> Aggregate {
    Aggregate { function: AggregateFunction::Count, argument: None, filter: None, weighted: true }
}

pub(super) fn aggregate(function: AggregateFunction, argument: Expr, data_type: DataType) -> Aggregate {
    Aggregate { function, argument: Some((argument, data_type)), filter: None, weighted: true }
}

/// A plan over all columns of the test table.
pub(super) fn plan(filter: Option<Expr>, keys: Vec<(Expr, DataType)>, aggregates: Vec<Aggregate>) -> Plan {
    let columns = table(0, 1).into_iter().map(|(name, column_type, _)| (name, column_type)).collect();
    let keys = keys.into_iter().map(|(expr, data_type)| Key { expr, data_type }).collect();
    Plan {
        table: "requests".into(),
        columns,
        time_range: TimeRange::ALL,
        filter,
        weight: WeightKind::One,
        output: Output::Groups { keys, aggregates },
    }
}

pub(super) const LIMITS: ScanLimits<'_> =
    ScanLimits { memory_bytes_max: 1 << 30, result_bytes_max: 1 << 30, top: None };

pub(super) fn pool() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(2).stack_size(64 << 20).build().unwrap()
}

pub(super) fn scan_all(runs: Vec<TestRun>, plan: &Plan) -> Result<ScanOutcome, ScanError> {
    let runs: Vec<Arc<dyn RowRun>> = runs.into_iter().map(|run| Arc::new(run) as Arc<dyn RowRun>).collect();
    scan(&runs, plan, &LIMITS, &Cancel::new(None), &pool())
}

/// Finished groups: keys as text → values as text.
pub(super) type Answer = BTreeMap<Vec<String>, Vec<String>>;

fn finishes(function: &AggregateFunction) -> Vec<Finish> {
    match function {
        AggregateFunction::Count => vec![Finish::Count],
        AggregateFunction::Sum => vec![Finish::Sum, Finish::Count],
        AggregateFunction::Min | AggregateFunction::Max => vec![Finish::Value],
        AggregateFunction::First { .. } | AggregateFunction::Last { .. } => vec![Finish::Value],
        AggregateFunction::Moments => vec![Finish::Variance { sample: false }],
        AggregateFunction::Distinct | AggregateFunction::ApproxDistinct => vec![Finish::DistinctCount],
        AggregateFunction::Quantiles => vec![Finish::Quantile(0.5)],
        AggregateFunction::Histogram(_) => vec![Finish::Histogram],
    }
}

fn text(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".into();
    }
    match array.as_primitive_opt::<Float64Type>() {
        // Sums differ in their last digits with the order of adding.
        Some(floats) => format!("{:.9e}", floats.value(row)),
        None => array_value_to_string(array, row).unwrap(),
    }
}

pub(super) fn finish(groups: &Groups, aggregates: &[Aggregate]) -> Answer {
    let mut columns = Vec::new();
    for (states, aggregate) in groups.states.iter().zip(aggregates) {
        let data_type =
            aggregate.argument.as_ref().map_or(DataType::Int64, |(_, data_type)| data_type.clone());
        for how in finishes(&aggregate.function) {
            columns.push(states.finish(&how, &data_type).unwrap());
        }
    }
    let texts =
        |arrays: &[ArrayRef], row: usize| arrays.iter().map(|array| text(array, row)).collect::<Vec<_>>();
    let answer: Answer =
        (0..groups.group_count).map(|row| (texts(&groups.keys, row), texts(&columns, row))).collect();
    assert_eq!(answer.len(), groups.group_count, "keys are distinct");
    answer
}

pub(super) fn answer(outcome: &ScanOutcome, plan: &Plan) -> Answer {
    match (&outcome.body, &plan.output) {
        (Body::Groups(groups), Output::Groups { aggregates, .. }) => finish(groups, aggregates),
        _ => panic!("not groups"),
    }
}

/// An expression, evaluated on one row at a time.
pub(super) fn by_row(table: &Table, expr: &Expr, data_type: &DataType) -> impl Fn(usize) -> ArrayRef {
    let spec = |name: &str, column_type| ColumnSpec { name: name.to_owned(), column_type, lengths_of: None };
    let specs: Vec<ColumnSpec> = table.iter().map(|(name, t, _)| spec(name, *t)).collect();
    let compiled = compile(expr, &specs, Some(data_type)).unwrap();
    let arrays: Vec<ArrayRef> = compiled.columns.iter().map(|column| table[*column].2.clone()).collect();
    move |row| compiled.evaluate(arrays.iter().map(|array| array.slice(row, 1)).collect(), 1).unwrap()
}

/// Whether a filter is true, row by row.
pub(super) fn is_true(table: &Table, expr: Option<&Expr>) -> Vec<bool> {
    let rows = 0..table[0].2.len();
    let Some(expr) = expr else { return rows.map(|_| true).collect() };
    let value = by_row(table, expr, &DataType::Boolean);
    rows.map(|row| value(row).as_boolean().iter().next().unwrap() == Some(true)).collect()
}

/// One group of the reference: its rows, and the values of its rows for each aggregate.
type Member = (Vec<ArrayRef>, Vec<usize>);

/// The answer, row by row.
pub(super) fn reference(table: &Table, plan: &Plan) -> Answer {
    let Output::Groups { keys, aggregates } = &plan.output else { panic!("not groups") };
    let mut members: BTreeMap<Vec<String>, Member> = BTreeMap::new();
    if keys.is_empty() {
        members.insert(Vec::new(), (Vec::new(), Vec::new()));
    }
    let evaluated: Vec<_> = keys.iter().map(|key| by_row(table, &key.expr, &key.data_type)).collect();
    let selected = is_true(table, plan.filter.as_ref());
    for (row, selected) in selected.into_iter().enumerate() {
        let at = table[0].2.as_primitive::<TimestampNanosecondType>().value(row);
        if !plan.time_range.contains(at, at) || !selected {
            continue;
        }
        let values: Vec<ArrayRef> = evaluated.iter().map(|key| key(row)).collect();
        let name = values
            .iter()
            .map(|value| text(value, 0).replace("-0.0", "0.0").replace("-0.000000000e0", "0.000000000e0"));
        members.entry(name.collect()).or_insert_with(|| (values.clone(), Vec::new())).1.push(row);
    }
    let finish_group = |(name, (_, rows)): (Vec<String>, Member)| {
        let states = aggregates.iter().map(|aggregate| states(table, plan, aggregate, &rows)).collect();
        let groups = Groups { keys: Vec::new(), states, group_count: 1 };
        (name, finish(&groups, aggregates).remove(&Vec::new()).unwrap())
    };
    members.into_iter().map(finish_group).collect()
}

fn states(table: &Table, plan: &Plan, aggregate: &Aggregate, rows: &[usize]) -> States {
    let mut states = States::new(aggregate, plan.weight).unwrap();
    states.resize(1);
    let times = table[0].2.as_primitive::<TimestampNanosecondType>().values();
    let selected = is_true(table, aggregate.filter.as_ref());
    let argument = aggregate.argument.as_ref().map(|(expr, data_type)| by_row(table, expr, data_type));
    for row in rows.iter().copied().filter(|row| selected[*row]) {
        let value = argument.as_ref().map(|argument| argument(row));
        let (ints, floats);
        let mut validity = None;
        let values = match &value {
            None => Values::None,
            Some(array) => match array.data_type() {
                DataType::Int64 => {
                    ints = array.as_primitive::<Int64Type>().values().to_vec();
                    validity = array.nulls().cloned();
                    Values::Int(&ints)
                }
                DataType::Float64 => {
                    floats = array.as_primitive::<Float64Type>().values().to_vec();
                    validity = array.nulls().cloned();
                    Values::Float(&floats)
                }
                _ => Values::Array(array),
            },
        };
        let rate = &table.last().unwrap().2;
        let rate = [if rate.is_valid(row) { rate.as_primitive::<Int64Type>().value(row) } else { 1 }];
        let weights = match aggregate.weight_kind(plan.weight) {
            WeightKind::One => Weights::One,
            _ => Weights::Int(&rate),
        };
        let input = Input { values, validity: validity.as_ref(), weights, times: &times[row..=row] };
        states.update(&[0], &input).unwrap();
    }
    states
}

/// Rows of one table after those of another.
pub(super) fn together(parts: &[Table]) -> Table {
    let column = |index: usize| {
        let arrays: Vec<&dyn Array> = parts.iter().map(|part| &*part[index].2).collect();
        (parts[0][index].0.clone(), parts[0][index].1, concat(&arrays).unwrap())
    };
    (0..parts[0].len()).map(column).collect()
}
