//! Rows cut into any blocks and runs, and blocks merged as any tree, finish to what a naive pass over all rows gives.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use proptest::prelude::*;

use super::*;
use crate::{QueryError, Value, WeightKind};

const GROUPS: usize = 5;

#[derive(Debug, Clone)]
struct Row {
    group: u32,
    int: Option<i64>,
    cents: Option<i64>,
    text: Option<u32>,
    weight: i64,
}

fn row() -> impl Strategy<Value = Row> {
    let int = prop_oneof![4 => -50i64..50, 1 => any::<i64>(), 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    let cents = prop_oneof![4 => 1i64..100_000, 1 => -1_000i64..1_000, 1 => Just(1i64 << 60)];
    (
        0..GROUPS as u32,
        proptest::option::weighted(0.9, int),
        proptest::option::weighted(0.9, cents),
        proptest::option::weighted(0.9, 0u32..20),
        1i64..1000,
    )
        .prop_map(|(group, int, cents, text, weight)| Row { group, int, cents, text, weight })
}

/// How an argument reaches the states.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    None,
    Int,
    Float,
    Scaled,
    Codes,
    Texts,
}

fn cases() -> Vec<(AggregateFunction, Form)> {
    use AggregateFunction::*;
    vec![
        (Count, Form::None),
        (Sum, Form::Int),
        (Sum, Form::Float),
        (Sum, Form::Scaled),
        (Sum, Form::Codes),
        (Sum, Form::Texts),
        (Min, Form::Int),
        (Max, Form::Int),
        (Min, Form::Float),
        (Max, Form::Scaled),
        (Min, Form::Codes),
        (Max, Form::Texts),
        (Quantiles, Form::Float),
        (Quantiles, Form::Scaled),
        (Distinct, Form::Int),
        (Distinct, Form::Scaled),
        (Distinct, Form::Codes),
        (Distinct, Form::Texts),
        (ApproxDistinct, Form::Int),
        (ApproxDistinct, Form::Codes),
        (ApproxDistinct, Form::Texts),
        (Moments, Form::Scaled),
        (First { ignore_nulls: false }, Form::Int),
        (Last { ignore_nulls: true }, Form::Codes),
        (Last { ignore_nulls: false }, Form::Texts),
        (Histogram(HistogramBuckets::Width(100.0)), Form::Scaled),
    ]
}

fn aggregate(function: AggregateFunction, form: Form) -> Aggregate {
    let data_type = match form {
        Form::None => None,
        Form::Int => Some(DataType::Int64),
        Form::Float | Form::Scaled => Some(DataType::Float64),
        Form::Codes | Form::Texts => Some(DataType::Utf8),
    };
    let argument = data_type.map(|data_type| (Expr::column("x"), data_type));
    Aggregate { function, argument, filter: None, weighted: true }
}

/// The texts of a block: their codes differ from block to block, and one of them is NULL.
fn dictionary(block: usize) -> ArrayRef {
    let text = |code: usize| (code < 20).then(|| format!("text {}", (code + block) % 20));
    Arc::new((0..21).map(text).collect::<StringArray>())
}

fn add(states: &mut States, form: Form, weight: WeightKind, rows: &[Row], block: usize, texts: &ArrayRef) {
    let groups: Vec<u32> = rows.iter().map(|row| row.group).collect();
    let ints: Vec<i64> = rows.iter().map(|row| row.int.unwrap_or(9)).collect();
    let cents: Vec<i64> = rows.iter().map(|row| row.cents.unwrap_or(9)).collect();
    let floats: Vec<f64> = cents.iter().map(|cents| *cents as f64 / 100.0).collect();
    let code = |text: u32| (text + 20 - block as u32 % 20) % 20;
    // NULL is a code whose value is NULL, or one beyond all values.
    let null = 20 + block as u32 % 2;
    let codes: Vec<u32> = rows.iter().map(|row| row.text.map_or(null, code)).collect();
    let array: ArrayRef =
        Arc::new(rows.iter().map(|row| row.text.map(|text| format!("text {text}"))).collect::<StringArray>());
    let weights: Vec<i64> = rows.iter().map(|row| row.weight).collect();
    let float_weights: Vec<f64> = weights.iter().map(|weight| *weight as f64 / 8.0).collect();
    let of_ints = NullBuffer::from_iter(rows.iter().map(|row| row.int.is_some()));
    let of_cents = NullBuffer::from_iter(rows.iter().map(|row| row.cents.is_some()));
    let (values, validity) = match form {
        Form::None => (Values::None, None),
        Form::Int => (Values::Int(&ints), Some(&of_ints)),
        Form::Float => (Values::Float(&floats), Some(&of_cents)),
        Form::Scaled => (Values::Scaled(&cents, 2), Some(&of_cents)),
        Form::Codes => (Values::Codes(&codes, texts), None),
        Form::Texts => (Values::Array(&array), None),
    };
    // Times that are equal now and then.
    let times: Vec<i64> = weights.iter().map(|weight| weight / 4).collect();
    let weights = match weight {
        WeightKind::One => Weights::One,
        WeightKind::Int => Weights::Int(&weights),
        WeightKind::Float => Weights::Float(&float_weights),
    };
    let validity = validity.filter(|validity| validity.null_count() > 0);
    states.update(&groups, &Input { values, validity, weights, times: &times }).unwrap();
}

/// The states of some rows, in runs of this many.
fn states_of(
    aggregate: &Aggregate,
    form: Form,
    weight: WeightKind,
    rows: &[Row],
    run: usize,
    block: usize,
) -> States {
    let mut states = States::new(aggregate, weight).unwrap();
    states.resize(GROUPS);
    if block.is_multiple_of(2) {
        let values = rows.iter().flat_map(|row| [row.int, row.cents]).flatten();
        let weights = rows.iter().map(|row| row.weight.unsigned_abs());
        // A NULL's place holds a 9, see `add`.
        states.set_bounds(values.map(i64::unsigned_abs).chain([9]).max(), weights.max());
    }
    let texts = dictionary(block);
    for run in rows.chunks(run.max(1)) {
        add(&mut states, form, weight, run, block, &texts);
    }
    states
}

/// Merges neighbours until one is left; every third goes over the wire.
fn merge_all(aggregate: &Aggregate, weight: WeightKind, mut all: Vec<States>, picks: &[usize]) -> States {
    let to: Vec<u32> = (0..GROUPS as u32).rev().collect();
    let mut turned = vec![false; all.len()];
    for step in 0.. {
        if all.len() == 1 {
            break;
        }
        let at = picks[step % picks.len()] % (all.len() - 1);
        let (mut theirs, their_turn) = (all.remove(at + 1), turned.remove(at + 1));
        if step % 3 == 0 {
            theirs = States::from_arrays(aggregate, weight, &theirs.to_arrays().unwrap()).unwrap();
        }
        if their_turn != turned[at] {
            all[at].merge(&theirs, &to).unwrap();
        } else {
            // Ours turns round: groups are merged into new states in the opposite order, then theirs as well.
            let mut fresh = States::new(aggregate, weight).unwrap();
            fresh.resize(GROUPS);
            fresh.merge(&all[at], &to).unwrap();
            fresh.merge_range(&theirs, 0..2, &to[..2]).unwrap();
            fresh.merge_range(&theirs, 2..GROUPS, &to[2..]).unwrap();
            all[at] = fresh;
            turned[at] = !turned[at];
        }
    }
    let order: Vec<u32> = if turned[0] { to } else { (0..GROUPS as u32).collect() };
    all[0].take(&order)
}

fn close(answer: f64, exact: f64, magnitudes: f64) -> bool {
    (answer - exact).abs() <= magnitudes * 1e-11
}

/// One group's finished states beside its rows.
struct Group<'a> {
    states: &'a States,
    form: Form,
    weight: WeightKind,
    group: usize,
    /// The rows whose argument is there, with their values as floats and their weights.
    there: Vec<(&'a Row, f64, f64)>,
    events: f64,
    name: String,
}

impl<'a> Group<'a> {
    fn new(states: &'a States, form: Form, weight: WeightKind, group: usize, rows: &'a [Row]) -> Group<'a> {
        let weight_of = |row: &Row| match weight {
            WeightKind::One => 1.0,
            WeightKind::Int => row.weight as f64,
            WeightKind::Float => row.weight as f64 / 8.0,
        };
        let value_of = |row: &Row| match form {
            Form::None => Some(0.0),
            Form::Int => row.int.map(|int| int as f64),
            Form::Float | Form::Scaled => row.cents.map(|cents| cents as f64 / 100.0),
            Form::Codes | Form::Texts => row.text.map(|_| 0.0),
        };
        let rows = rows.iter().filter(|row| row.group as usize == group);
        let there: Vec<(&Row, f64, f64)> =
            rows.filter_map(|row| Some((row, value_of(row)?, weight_of(row)))).collect();
        let events = there.iter().map(|(_, _, weight)| weight).sum();
        Group { states, form, weight, group, there, events, name: format!("{form:?} {weight:?} {group}") }
    }

    fn finish(&self, finish: Finish) -> Result<ArrayRef, QueryError> {
        let data_type = match self.form {
            Form::Int => DataType::Int64,
            Form::Codes | Form::Texts => DataType::Utf8,
            Form::None | Form::Float | Form::Scaled => DataType::Float64,
        };
        self.states.finish(&finish, &data_type)
    }

    fn int(&self, array: ArrayRef) -> i64 {
        array.as_primitive::<Int64Type>().value(self.group)
    }

    fn float(&self, array: ArrayRef) -> Option<f64> {
        let floats: &Float64Array = array.as_primitive::<Float64Type>();
        floats.is_valid(self.group).then(|| floats.value(self.group))
    }

    fn check_count(&self) {
        let count = self.int(self.finish(Finish::Count).unwrap());
        assert_eq!(count as f64, self.events.round(), "{}", self.name);
    }

    fn check_sum(&self) {
        self.check_count();
        let products = self.there.iter().map(|(_, value, weight)| value * weight);
        let (sum, magnitudes): (f64, f64) = (products.clone().sum(), products.map(f64::abs).sum());
        match self.float(self.finish(Finish::Average).unwrap()) {
            Some(average) => {
                assert!(close(average * self.events, sum, magnitudes), "{}: {average}", self.name)
            }
            None => assert!(self.there.is_empty(), "{}", self.name),
        }
        if self.form != Form::Int || self.weight == WeightKind::Float || self.there.is_empty() {
            return;
        }
        let weight = |row: &Row| if self.weight == WeightKind::One { 1 } else { i128::from(row.weight) };
        let exact: i128 =
            self.there.iter().map(|(row, _, _)| i128::from(row.int.unwrap()) * weight(row)).sum();
        match self.finish(Finish::Sum) {
            Ok(sums) => assert_eq!(i128::from(self.int(sums)), exact, "{}", self.name),
            // The sum of another group may be the one that is too large.
            Err(error) => assert_eq!(error, QueryError::Overflow, "{}", self.name),
        }
    }

    fn check_extreme(&self, is_min: bool) {
        let array = self.finish(Finish::Value).unwrap();
        let best = match self.form {
            Form::Int => {
                let ints = self.there.iter().filter_map(|(row, _, _)| row.int);
                (if is_min { ints.min() } else { ints.max() }).map(|int| int.to_string())
            }
            Form::Codes | Form::Texts => {
                let texts = self.there.iter().filter_map(|(row, _, _)| row.text);
                let texts = texts.map(|text| format!("text {text}"));
                if is_min { texts.min() } else { texts.max() }
            }
            Form::None | Form::Float | Form::Scaled => {
                let cents = self.there.iter().filter_map(|(row, _, _)| row.cents);
                let best = if is_min { cents.min() } else { cents.max() };
                best.map(|cents| format!("{:?}", cents as f64 / 100.0))
            }
        };
        let text = arrow::util::display::array_value_to_string(&array, self.group).unwrap();
        assert_eq!(array.is_valid(self.group).then_some(text), best, "{}", self.name);
    }

    fn check_quantiles(&self) {
        let mut sorted = self.there.clone();
        sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
        for fraction in [0.0, 0.1, 0.5, 0.99, 1.0] {
            let mut seen = 0.0;
            let exact = sorted.iter().find(|(_, _, weight)| {
                seen += weight;
                seen >= self.events * fraction * (1.0 - 1e-12)
            });
            let answer = self.float(self.finish(Finish::Quantile(fraction)).unwrap());
            assert_eq!(answer.is_some(), exact.is_some(), "{}", self.name);
            if let (Some(answer), Some((_, exact, _))) = (answer, exact) {
                let error = (answer - exact).abs();
                assert!(error <= exact.abs() * 0.01, "{}: {answer} for {exact}", self.name);
            }
        }
    }

    fn check_by_time(&self, is_last: bool, ignore_nulls: bool, rows: &[Row]) {
        let value = |row: &Row| match self.form {
            Form::Int => row.int.map(Value::Int),
            _ => row.text.map(|text| Value::String(format!("text {text}"))),
        };
        let mut rows: Vec<(i64, Value)> = rows
            .iter()
            .filter(|row| row.group as usize == self.group)
            .map(|row| (row.weight / 4, value(row).unwrap_or(Value::Null)))
            .filter(|(_, value)| !ignore_nulls || *value != Value::Null)
            .collect();
        rows.sort_by(|a, b| {
            let by_time = if is_last { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) };
            by_time.then_with(|| super::scalars::compare(&a.1, &b.1))
        });
        let expect = match rows.first() {
            None | Some((_, Value::Null)) => None,
            Some((_, Value::Int(int))) => Some(int.to_string()),
            Some((_, Value::String(text))) => Some(text.clone()),
            Some(other) => panic!("{other:?}"),
        };
        let array = self.finish(Finish::Value).unwrap();
        let text = arrow::util::display::array_value_to_string(&array, self.group).unwrap();
        assert_eq!(array.is_valid(self.group).then_some(text), expect, "{}", self.name);
    }

    /// `slack` is by how many the count may be wrong.
    fn check_distinct(&self, slack: i64) {
        let value = |row: &Row| match self.form {
            Form::Int => (row.int, None, None),
            Form::Scaled => (None, row.cents, None),
            _ => (None, None, row.text),
        };
        let values: BTreeSet<_> = self.there.iter().map(|(row, _, _)| value(row)).collect();
        let count = self.int(self.finish(Finish::DistinctCount).unwrap());
        assert!((count - values.len() as i64).abs() <= slack, "{}: {count}", self.name);
    }
}

fn check(states: &States, function: &AggregateFunction, form: Form, weight: WeightKind, rows: &[Row]) {
    for group in 0..GROUPS {
        let group = Group::new(states, form, weight, group, rows);
        match function {
            AggregateFunction::Count => group.check_count(),
            AggregateFunction::Sum => group.check_sum(),
            AggregateFunction::Min => group.check_extreme(true),
            AggregateFunction::Max => group.check_extreme(false),
            AggregateFunction::Quantiles => group.check_quantiles(),
            AggregateFunction::Distinct => group.check_distinct(0),
            // Of so few, two at most share a register.
            AggregateFunction::ApproxDistinct => group.check_distinct(2),
            AggregateFunction::Moments => {
                let deviation = group.finish(Finish::Variance { sample: false }).unwrap();
                assert_eq!(group.float(deviation).is_some(), !group.there.is_empty());
            }
            AggregateFunction::Histogram(_) => {
                let lists = group.finish(Finish::Histogram).unwrap();
                let buckets = lists.as_list::<i32>().value(group.group);
                let counts = buckets.as_struct().column(2).as_primitive::<Int64Type>();
                let sum: i64 = counts.values().iter().sum();
                // Each bucket's count is rounded.
                assert!((sum as f64 - group.events).abs() <= counts.len() as f64 / 2.0 + 1e-9);
            }
            AggregateFunction::First { ignore_nulls } => group.check_by_time(false, *ignore_nulls, rows),
            AggregateFunction::Last { ignore_nulls } => group.check_by_time(true, *ignore_nulls, rows),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn states_are_what_a_naive_pass_gives(
        rows in proptest::collection::vec(row(), 0..300),
        cuts in proptest::collection::vec(0usize..300, 0..6),
        run in 1usize..130,
        picks in proptest::collection::vec(any::<usize>(), 1..6),
        weight in prop_oneof![Just(WeightKind::One), Just(WeightKind::Int), Just(WeightKind::Float)],
    ) {
        let mut ends: Vec<usize> = cuts.into_iter().map(|cut| cut.min(rows.len())).collect();
        ends.push(rows.len());
        ends.sort_unstable();
        for (function, form) in cases() {
            let aggregate = aggregate(function.clone(), form);
            let weight = aggregate.weight_kind(weight);
            let mut start = 0;
            let blocks = ends.iter().enumerate().map(|(block, end)| {
                let states = states_of(&aggregate, form, weight, &rows[start..*end], run, block);
                start = *end;
                states
            });
            let merged = merge_all(&aggregate, weight, blocks.collect(), &picks);
            check(&merged, &function, form, weight, &rows);
            let whole = states_of(&aggregate, form, weight, &rows, rows.len(), 0);
            check(&whole, &function, form, weight, &rows);
        }
    }
}

/// Rows of a reproducible mix for the tests below.
fn numbers(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|number| crate::sketch::hash_int(number as i64))
}

#[test]
fn float_sums_stay_within_their_bound() {
    for group_count in [1u32, 3] {
        let floats = |scale: f64| numbers(200_000).map(move |n| (n as i64 as f64) / scale);
        let values: Vec<f64> = floats(1e15).zip(floats(1e3)).map(|(a, b)| a + b).collect();
        let groups: Vec<u32> = (0..values.len() as u32).map(|row| row % group_count).collect();
        let sum = aggregate(AggregateFunction::Sum, Form::Float);
        let mut states = States::new(&sum, WeightKind::One).unwrap();
        states.resize(group_count as usize);
        let input =
            Input { values: Values::Float(&values), validity: None, weights: Weights::One, times: &[] };
        states.update(&groups, &input).unwrap();
        let sums = states.finish(&Finish::Sum, &DataType::Float64).unwrap();
        for group in 0..group_count {
            let of_group =
                values.iter().zip(&groups).filter(|(_, of)| **of == group).map(|(value, _)| *value);
            // Two to the 20th of all values are whole numbers.
            let exact: i128 = of_group.clone().map(|value| (value * 1_048_576.0) as i128).sum();
            let magnitudes: f64 = of_group.map(f64::abs).sum();
            let answer = sums.as_primitive::<Float64Type>().value(group as usize);
            assert!(close(answer, exact as f64 / 1_048_576.0, magnitudes), "{group}: {answer}");
        }
    }
}

#[test]
fn many_distinct_values_are_counted_exactly() {
    let distinct = aggregate(AggregateFunction::Distinct, Form::Int);
    let mut blocks = Vec::new();
    let mut expect = [BTreeSet::new(), BTreeSet::new()];
    for block in 0..4u64 {
        let values: Vec<i64> = numbers(60_000).map(|n| ((n + block) % 90_000) as i64 - 5).collect();
        let groups: Vec<u32> = (0..60_000).map(|row| row % 2).collect();
        for (value, group) in values.iter().zip(&groups) {
            expect[*group as usize].insert(*value);
        }
        let mut states = States::new(&distinct, WeightKind::One).unwrap();
        states.resize(2);
        let input = Input { values: Values::Int(&values), validity: None, weights: Weights::One, times: &[] };
        states.update(&groups, &input).unwrap();
        blocks.push(states);
    }
    let count = |states: &States| {
        let counts = states.finish(&Finish::DistinctCount, &DataType::Int64).unwrap();
        let counts = counts.as_primitive::<Int64Type>();
        [counts.value(0) as usize, counts.value(1) as usize]
    };
    let expect = [expect[0].len(), expect[1].len()];
    let mut halves = [States::new(&distinct, WeightKind::One).unwrap(), blocks[3].clone()];
    halves[0].resize(2);
    halves[0].merge(&blocks[0], &[0, 1]).unwrap();
    halves[0].merge(&blocks[1], &[0, 1]).unwrap();
    halves[1].merge(&blocks[2], &[0, 1]).unwrap();
    let [mut all, other] = halves;
    let wire = |states: &States| {
        States::from_arrays(&distinct, WeightKind::One, &states.to_arrays().unwrap()).unwrap()
    };
    let mut of_wire = wire(&all);
    assert_eq!(count(&of_wire), count(&all));
    of_wire.merge(&wire(&other), &[0, 1]).unwrap();
    all.merge(&other, &[0, 1]).unwrap();
    assert_eq!((count(&all), count(&of_wire)), (expect, expect));
}

#[test]
fn a_list_that_names_a_value_twice_counts_it_once() {
    let distinct = aggregate(AggregateFunction::Distinct, Form::Int);
    let list = arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>([Some(
        [7, 8, 7].into_iter().map(Some),
    )]);
    let states = States::from_arrays(&distinct, WeightKind::One, &[Arc::new(list)]).unwrap();
    let counts = states.finish(&Finish::DistinctCount, &DataType::Int64).unwrap();
    assert_eq!(counts.as_primitive::<Int64Type>().value(0), 2);
    let list = arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(7), None])]);
    let error = States::from_arrays(&distinct, WeightKind::One, &[Arc::new(list)]).unwrap_err();
    assert_eq!(error, QueryError::Mismatch("state array has 1 NULLs, not 0".to_owned()));
}

#[test]
fn what_is_concluded_tells_numbers_and_takes_no_more_values() {
    let texts: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["a", "b", "a", "c"]));
    for (values, form) in [(Values::Int(&[7, 8, 7, 9]), Form::Int), (Values::Array(&texts), Form::Texts)] {
        let distinct = aggregate(AggregateFunction::Distinct, form);
        let made = |groups: &[u32]| {
            let mut states = States::new(&distinct, WeightKind::One).unwrap();
            states.resize(3);
            let input = Input { values, validity: None, weights: Weights::One, times: &[] };
            states.update(groups, &input).unwrap();
            states
        };
        let counts = |states: &States| {
            let counts = states.finish(&Finish::DistinctCount, &DataType::Int64).unwrap();
            counts.as_primitive::<Int64Type>().values().to_vec()
        };
        let open = made(&[0, 0, 0, 1]);
        let mut concluded = open.clone();
        concluded.conclude();
        assert_eq!((open.is_concluded(), concluded.is_concluded()), (false, true));
        let arrays = concluded.to_arrays().unwrap();
        assert_eq!(arrays[0].as_primitive::<Int64Type>().values(), &[2, 1, 0]);
        let of_wire = States::from_arrays(&distinct, WeightKind::One, &arrays).unwrap();
        assert_eq!((counts(&of_wire), of_wire.is_concluded()), (vec![2, 1, 0], true));
        assert_eq!(counts(&of_wire.take(&[1, 0])), [1, 2]);
        // Where there is nothing yet the numbers can be put, in any order and after each other.
        let mut empty = States::new(&distinct, WeightKind::One).unwrap();
        empty.resize(4);
        empty.merge(&of_wire, &[3, 1, 0]).unwrap();
        assert_eq!(counts(&empty), [0, 1, 0, 2]);
        let mut both = of_wire.clone();
        both.append(of_wire.clone()).unwrap();
        assert_eq!(counts(&both), [2, 1, 0, 2, 1, 0]);
        let refused =
            QueryError::Mismatch("distinct values that were counted already cannot be added up".to_owned());
        let (mut ours, mut theirs) = (open.clone(), of_wire.clone());
        assert_eq!(ours.merge(&of_wire, &[0, 1, 2]), Err(refused.clone()));
        assert_eq!(theirs.merge(&open, &[0, 1, 2]), Err(refused.clone()));
        assert_eq!(theirs.merge(&of_wire, &[0, 1, 2]), Err(refused.clone()));
    }
    let distinct = aggregate(AggregateFunction::Distinct, Form::Int);
    for wrong in [vec![Some(1), None], vec![Some(-1)]] {
        let array: ArrayRef = Arc::new(arrow::array::Int64Array::from(wrong));
        States::from_arrays(&distinct, WeightKind::One, &[array]).unwrap_err();
    }
}
