//! Merging is associative, commutative and has an identity: rows split in any way over children, merged in any
//! order and through the wire form, finish to the same answer as one pass over all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Int64Type};
use proptest::prelude::*;

use super::*;
use crate::{
    Aggregate, AggregateFunction, Expr, Finish, HistogramBuckets, Input, Key, Output, Plan, QueryError,
    TimeRange, Values, WeightKind, Weights,
};

#[derive(Debug, Clone)]
struct Row {
    key: Option<i8>,
    int: Option<i64>,
    float: Option<f64>,
    text: Option<u8>,
    weight: i64,
}

fn row() -> impl Strategy<Value = Row> {
    (
        proptest::option::weighted(0.9, -3i8..3),
        proptest::option::weighted(0.8, prop_oneof![any::<i64>(), -50i64..50]),
        proptest::option::weighted(0.8, -1e6f64..1e6),
        proptest::option::weighted(0.8, any::<u8>()),
        1i64..1000,
    )
        .prop_map(|(key, int, float, text, weight)| Row { key, int, float, text, weight })
}

fn aggregates() -> Vec<(Aggregate, Vec<Finish>)> {
    let make = |function: AggregateFunction, argument: Option<DataType>| Aggregate {
        function,
        argument: argument.map(|data_type| (Expr::column("x"), data_type)),
        filter: None,
        weighted: true,
    };
    let int = || Some(DataType::Int64);
    let float = || Some(DataType::Float64);
    let text = || Some(DataType::Utf8);
    vec![
        (make(AggregateFunction::Count, None), vec![Finish::Count]),
        (make(AggregateFunction::Sum, int()), vec![Finish::Average, Finish::Count]),
        (make(AggregateFunction::Sum, float()), vec![Finish::Sum, Finish::Average]),
        (make(AggregateFunction::Sum, text()), vec![Finish::Count]),
        (make(AggregateFunction::Min, int()), vec![Finish::Value]),
        (make(AggregateFunction::Max, float()), vec![Finish::Value]),
        (make(AggregateFunction::Max, text()), vec![Finish::Value]),
        (
            make(AggregateFunction::Moments, float()),
            vec![Finish::Variance { sample: true }, Finish::StandardDeviation { sample: false }],
        ),
        (make(AggregateFunction::Distinct, int()), vec![Finish::DistinctCount]),
        (make(AggregateFunction::Distinct, text()), vec![Finish::DistinctCount]),
        (make(AggregateFunction::ApproxDistinct, text()), vec![Finish::DistinctCount]),
        (make(AggregateFunction::Quantiles, float()), vec![Finish::Quantile(0.5), Finish::Quantile(0.99)]),
        (
            make(AggregateFunction::Histogram(HistogramBuckets::Width(1000.0)), float()),
            vec![Finish::Histogram],
        ),
        (make(AggregateFunction::First { ignore_nulls: false }, text()), vec![Finish::Value]),
        (make(AggregateFunction::Last { ignore_nulls: true }, int()), vec![Finish::Value]),
    ]
}

fn plan() -> Plan {
    Plan {
        table: "t".to_owned(),
        columns: vec![],
        time_range: TimeRange::ALL,
        filter: None,
        weight: WeightKind::Int,
        output: Output::Groups {
            keys: vec![
                Key { expr: Expr::column("k"), data_type: DataType::Int64 },
                Key { expr: Expr::column("t"), data_type: DataType::Utf8 },
            ],
            aggregates: aggregates().into_iter().map(|(aggregate, _)| aggregate).collect(),
        },
    }
}

/// The groups of some rows, computed by `update`; `first_time` makes the times of different parts differ.
fn groups_of(rows: &[(usize, Row)]) -> Groups {
    let mut numbers: BTreeMap<(Option<i8>, Option<u8>), u32> = BTreeMap::new();
    let of = |row: &Row| (row.key, row.text.map(|text| text % 3));
    for (_, row) in rows {
        let next = numbers.len() as u32;
        numbers.entry(of(row)).or_insert(next);
    }
    let groups: Vec<u32> = rows.iter().map(|(_, row)| numbers[&of(row)]).collect();
    let ints: Vec<i64> = rows.iter().map(|(_, row)| row.int.unwrap_or(7)).collect();
    let floats: Vec<f64> = rows.iter().map(|(_, row)| row.float.unwrap_or(7.0)).collect();
    let texts: ArrayRef = Arc::new(
        rows.iter().map(|(_, row)| row.text.map(|text| format!("t{text}"))).collect::<StringArray>(),
    );
    let times: Vec<i64> = rows.iter().map(|(index, _)| (*index / 4) as i64).collect();
    let weights: Vec<i64> = rows.iter().map(|(_, row)| row.weight).collect();
    let int_validity = NullBuffer::from_iter(rows.iter().map(|(_, row)| row.int.is_some()));
    let float_validity = NullBuffer::from_iter(rows.iter().map(|(_, row)| row.float.is_some()));
    let mut states = Vec::new();
    for (aggregate, _) in aggregates() {
        let (values, validity) = match aggregate.argument.as_ref().map(|(_, data_type)| data_type) {
            None => (Values::None, None),
            Some(DataType::Int64) => (Values::Int(&ints), Some(&int_validity)),
            Some(DataType::Float64) => (Values::Float(&floats), Some(&float_validity)),
            Some(_) => (Values::Array(&texts), None),
        };
        let mut state = States::new(&aggregate, WeightKind::Int).unwrap();
        state.resize(numbers.len());
        let input = Input { values, validity, weights: Weights::Int(&weights), times: &times };
        state.update(&groups, &input).unwrap();
        states.push(state);
    }
    let mut ordered: Vec<_> = numbers.into_iter().collect();
    ordered.sort_by_key(|(_, number)| *number);
    let ints: Int64Array = ordered.iter().map(|((key, _), _)| key.map(i64::from)).collect();
    let texts: StringArray = ordered.iter().map(|((_, text), _)| text.map(|text| text.to_string())).collect();
    Groups { keys: vec![Arc::new(ints), Arc::new(texts)], states, group_count: ordered.len() }
}

/// Through the wire form and back.
fn travel(groups: Groups) -> Groups {
    let states = groups.states.iter().zip(aggregates()).map(|(states, (aggregate, _))| {
        let arrays = states.to_arrays().unwrap();
        let types: Vec<DataType> = arrays.iter().map(|array| array.data_type().clone()).collect();
        assert_eq!(types, States::array_types(&aggregate, WeightKind::Int).unwrap());
        States::from_arrays(&aggregate, WeightKind::Int, &arrays).unwrap()
    });
    Groups { states: states.collect(), ..groups }
}

/// The finished answer: key → one text a column; floats to nine digits.
fn finish(groups: &Groups) -> BTreeMap<String, Vec<String>> {
    let mut answer: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut columns = Vec::new();
    for (states, (aggregate, finishes)) in groups.states.iter().zip(aggregates()) {
        let data_type = aggregate.argument.map_or(DataType::Null, |(_, data_type)| data_type);
        for finish in finishes {
            let column = states.finish(&finish, &data_type).unwrap();
            assert_eq!(column.data_type(), &finish.data_type(&data_type));
            columns.push(column);
        }
    }
    let text = |array: &ArrayRef, index: usize| {
        if let Some(floats) = array.as_any().downcast_ref::<Float64Array>() {
            if floats.is_null(index) { "NULL".to_owned() } else { format!("{:.6e}", floats.value(index)) }
        } else {
            arrow::util::display::array_value_to_string(array, index).unwrap()
        }
    };
    for group in 0..groups.group_count {
        let null = |index: usize| groups.keys[index].is_null(group);
        let key = format!(
            "{}{} {}{}",
            text(&groups.keys[0], group),
            null(0),
            text(&groups.keys[1], group),
            null(1)
        );
        answer.insert(key, columns.iter().map(|column| text(column, group)).collect());
    }
    answer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn rows_split_in_any_way_give_one_answer(
        rows in proptest::collection::vec((row(), 0usize..4), 0..200),
        rotate in 0usize..4,
    ) {
        let rows: Vec<(usize, (Row, usize))> = rows.into_iter().enumerate().collect();
        let all: Vec<(usize, Row)> = rows.iter().map(|(index, (row, _))| (*index, row.clone())).collect();
        let mut whole = Merger::new(&plan(), u64::MAX).unwrap();
        whole.push(Body::Groups(groups_of(&all))).unwrap();
        let mut parts = Merger::new(&plan(), u64::MAX).unwrap();
        for part in 0..4 {
            let part = (part + rotate) % 4;
            let rows: Vec<(usize, Row)> = rows
                .iter()
                .filter(|(_, (_, of))| *of == part)
                .map(|(index, (row, _))| (*index, row.clone()))
                .collect();
            parts.push(Body::Groups(travel(groups_of(&rows)))).unwrap();
        }
        let (Body::Groups(whole), Body::Groups(parts)) = (whole.finish().unwrap(), parts.finish().unwrap()) else {
            unreachable!("groups were pushed")
        };
        prop_assert_eq!(finish(&whole), finish(&parts));
    }
}

fn count_plan(keys: Vec<Key>) -> (Plan, Aggregate) {
    let count =
        Aggregate { function: AggregateFunction::Count, argument: None, filter: None, weighted: true };
    let output = Output::Groups { keys, aggregates: vec![count.clone()] };
    (Plan { weight: WeightKind::One, output, ..plan() }, count)
}

#[test]
fn no_keys_is_one_group_even_of_nothing() {
    let (plan, _) = count_plan(vec![]);
    let Body::Groups(groups) = Merger::new(&plan, u64::MAX).unwrap().finish().unwrap() else {
        panic!("groups")
    };
    assert_eq!(groups.group_count, 1);
    let counts = groups.states[0].finish(&Finish::Count, &DataType::Null).unwrap();
    assert_eq!(counts.as_primitive::<Int64Type>().value(0), 0);
}

#[test]
fn a_body_that_does_not_fit_is_refused_and_memory_is_limited() {
    let key = Key { expr: Expr::column("k"), data_type: DataType::Int64 };
    let (plan, count) = count_plan(vec![key]);
    let groups = |values: std::ops::Range<i64>| {
        let mut states = States::new(&count, WeightKind::One).unwrap();
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        states.resize(keys.len());
        Groups { group_count: keys.len(), keys: vec![keys], states: vec![states] }
    };
    let mut merger = Merger::new(&plan, 10_000).unwrap();
    let wrong = Groups { keys: vec![], ..groups(0..1) };
    assert!(matches!(merger.push(Body::Groups(wrong)), Err(QueryError::Mismatch(_))));
    merger.push(Body::Groups(groups(0..10))).unwrap();
    merger.push(Body::Groups(groups(5..15))).unwrap();
    let error = merger.push(Body::Groups(groups(0..1000))).unwrap_err();
    assert_eq!(error, QueryError::Memory { groups: 1000, limit: 10_000 });
}

#[test]
fn pieces_of_one_body_are_put_together_and_merged_with_others() {
    let key = Key { expr: Expr::column("k"), data_type: DataType::Int64 };
    let (plan, count) = count_plan(vec![key]);
    let piece = |values: std::ops::Range<i64>| {
        let mut states = States::new(&count, WeightKind::One).unwrap();
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        states.resize(keys.len());
        let input = Input { values: Values::None, validity: None, weights: Weights::One, times: &[] };
        states.update(&(0..keys.len() as u32).collect::<Vec<_>>(), &input).unwrap();
        Body::Groups(Groups { group_count: keys.len(), keys: vec![keys], states: vec![states] })
    };
    let counts = |merger: Merger| {
        let Body::Groups(groups) = merger.finish().unwrap() else { panic!("groups") };
        let counts = groups.states[0].finish(&Finish::Count, &DataType::Null).unwrap();
        let keys = groups.keys[0].as_primitive::<Int64Type>().values().iter().copied();
        keys.zip(counts.as_primitive::<Int64Type>().values().iter().copied()).collect::<BTreeMap<_, _>>()
    };
    let mut merger = Merger::new(&plan, u64::MAX).unwrap();
    merger.push_pieces(vec![]).unwrap();
    merger.push_pieces(vec![piece(0..3), piece(3..4), piece(4..4), piece(4..6)]).unwrap();
    merger.push_pieces(vec![piece(5..6), piece(2..3)]).unwrap();
    merger.push_pieces(vec![piece(9..10)]).unwrap();
    let expect = [(0, 1), (1, 1), (2, 2), (3, 1), (4, 1), (5, 2), (9, 1)];
    assert_eq!(counts(merger), BTreeMap::from(expect));

    let mut merger = Merger::new(&plan, 10_000).unwrap();
    let error = merger.push_pieces(vec![piece(0..1000), piece(1000..2000)]).unwrap_err();
    assert_eq!(error, QueryError::Memory { groups: 2000, limit: 10_000 });
    let wrong = Body::Groups(Groups { keys: vec![], states: vec![], group_count: 0 });
    let error = merger.push_pieces(vec![piece(0..1), wrong]).unwrap_err();
    assert!(matches!(error, QueryError::Mismatch(_)), "{error}");
    let (plan, _) = count_plan(vec![]);
    let alone = || Merger::new(&plan, u64::MAX).unwrap().finish().unwrap();
    let error = Merger::new(&plan, u64::MAX).unwrap().push_pieces(vec![alone(), alone()]).unwrap_err();
    assert_eq!(error, QueryError::Mismatch("one group in several pieces".to_owned()));
}

#[test]
fn int_sums_are_exact_or_an_error() {
    let sum = Aggregate {
        function: AggregateFunction::Sum,
        argument: Some((Expr::column("x"), DataType::Int64)),
        filter: None,
        weighted: true,
    };
    let finish = |values: &[i64], weights: &[i64]| {
        let mut states = States::new(&sum, WeightKind::Int).unwrap();
        states.resize(1);
        let input =
            Input { values: Values::Int(values), validity: None, weights: Weights::Int(weights), times: &[] };
        states.update(&vec![0; values.len()], &input).unwrap();
        states.finish(&Finish::Sum, &DataType::Int64)
    };
    let exact = finish(&[i64::MAX, i64::MAX, -i64::MAX], &[1, 1, 1]).unwrap();
    assert_eq!(exact.as_primitive::<Int64Type>().value(0), i64::MAX);
    assert_eq!(finish(&[i64::MAX, 1], &[1, 1]).unwrap_err(), QueryError::Overflow);
    assert_eq!(finish(&[i64::MAX], &[1 << 53]).unwrap_err(), QueryError::Overflow);
}

/// Keys of many groups as columns of a plan, and the same as text.
fn many_keys(form: usize, numbers: &[u64]) -> Vec<ArrayRef> {
    let ints = || numbers.iter().map(|number| (number % 7 != 3).then_some((number / 7) as i64 - 50));
    let texts = || ints().map(|int| int.map(|int| format!("user {int}")));
    match form {
        0 => vec![Arc::new(ints().collect::<Int64Array>())],
        1 => vec![Arc::new(texts().collect::<StringArray>())],
        2 => {
            let mut lists = ListBuilder::new(StringBuilder::new());
            for int in ints() {
                lists.append_option(int.map(|int| match (int, int % 2) {
                    (0, _) => vec![],
                    (_, 0) => vec![Some("user".to_owned()), Some(int.to_string())],
                    _ => vec![None, Some(int.to_string()), Some(String::new())],
                }));
            }
            vec![Arc::new(lists.finish())]
        }
        _ => vec![
            Arc::new(ints().map(|int| int.map(|int| int % 300)).collect::<Int64Array>()),
            Arc::new(texts().collect::<StringArray>()),
        ],
    }
}

fn key_text(keys: &[ArrayRef], row: usize) -> String {
    let cell = |key: &ArrayRef| match key.is_null(row) {
        true => "NULL".to_owned(),
        false => arrow::util::display::array_value_to_string(key, row).unwrap(),
    };
    keys.iter().map(cell).collect::<Vec<_>>().join("|")
}

/// A thread's merger over some blocks of numbers; counts say how often each key came.
fn many_groups(plan: &Plan, count: &Aggregate, form: usize, blocks: &[Vec<u64>], limit: u64) -> Merger {
    let mut merger = Merger::new(plan, limit).unwrap();
    for (index, numbers) in blocks.iter().enumerate() {
        let mut states = States::new(count, WeightKind::One).unwrap();
        let input = Input { values: Values::None, validity: None, weights: Weights::One, times: &[] };
        if index % 2 == 0 && form == 0 {
            // Each row is a group of its own.
            let keys = many_keys(form, numbers);
            let ints = keys[0].as_primitive::<Int64Type>();
            let (placed, places) = PlacedKeys::new(ints.values(), ints.nulls());
            states.resize(numbers.len());
            states.update(&places, &input).unwrap();
            merger.push_placed(placed, vec![states]).unwrap();
            continue;
        }
        let key = |number: &u64| if number % 7 == 3 { u64::MAX } else { number / 7 };
        let all = numbers.clone();
        let mut numbers = numbers.clone();
        numbers.sort_unstable_by_key(|number| (number % 7 == 3, number / 7));
        numbers.dedup_by_key(|number| key(number));
        let number: BTreeMap<u64, u32> = numbers.iter().map(key).zip(0..).collect();
        let groups: Vec<u32> = all.iter().map(|one| number[&key(one)]).collect();
        states.resize(numbers.len());
        states.update(&groups, &input).unwrap();
        let keys = many_keys(form, &numbers);
        merger.push(Body::Groups(Groups { keys, states: vec![states], group_count: numbers.len() })).unwrap();
    }
    merger
}

#[test]
fn many_groups_merge_part_by_part_and_in_shares() {
    for form in 0..4 {
        let list = DataType::new_list(DataType::Utf8, true);
        let types = [DataType::Int64, DataType::Utf8, list, DataType::Int64];
        let mut keys = vec![Key { expr: Expr::column("k"), data_type: types[form].clone() }];
        if form == 3 {
            keys.push(Key { expr: Expr::column("t"), data_type: DataType::Utf8 });
        }
        let (plan, count) = count_plan(keys);
        let number = |row: u64| crate::sketch::hash_int(row as i64) % 400_000;
        let block = |block: u64| (block * 20_000..(block + 1) * 20_000).map(number).collect::<Vec<u64>>();
        let blocks: Vec<Vec<u64>> = (0..5).map(block).collect();
        let mut expect: BTreeMap<String, i64> = BTreeMap::new();
        for numbers in &blocks {
            let keys = many_keys(form, numbers);
            for row in 0..numbers.len() {
                *expect.entry(key_text(&keys, row)).or_default() += 1;
            }
        }
        let check = |body: Body| {
            let Body::Groups(groups) = body else { panic!("groups") };
            let counts = groups.states[0].finish(&Finish::Count, &DataType::Null).unwrap();
            let counts = counts.as_primitive::<Int64Type>();
            assert_eq!((groups.group_count, counts.len()), (expect.len(), expect.len()), "{form}");
            for row in 0..groups.group_count {
                assert_eq!(expect[&key_text(&groups.keys, row)], counts.value(row), "{form}");
            }
            let two = groups.take(&[5, 0]).unwrap();
            assert_eq!(key_text(&two.keys, 0), key_text(&groups.keys, 5));
            let taken = two.states[0].finish(&Finish::Count, &DataType::Null).unwrap();
            assert_eq!(taken.as_primitive::<Int64Type>().values(), &[counts.value(5), counts.value(0)]);
        };
        check(many_groups(&plan, &count, form, &blocks, u64::MAX).finish().unwrap());
        // So little memory that what waits is merged again and again.
        check(many_groups(&plan, &count, form, &blocks, 24 << 20).finish().unwrap());
        for cut in [1, 4] {
            let threads = [&blocks[cut..], &blocks[..cut], &[]];
            let mergers = threads.map(|blocks| many_groups(&plan, &count, form, blocks, u64::MAX));
            let shares = Merger::shares(mergers.into()).unwrap();
            assert!(shares.len() > 1);
            let bodies: Vec<Body> = shares.into_iter().map(|share| share.merge(None).unwrap()).collect();
            let error = Merger::join(bodies.clone(), 1_000).unwrap_err();
            assert_eq!(error, QueryError::Memory { groups: expect.len(), limit: 1_000 });
            check(Merger::join(bodies, u64::MAX).unwrap());
        }
    }
}

#[test]
fn few_groups_and_memory_in_shares() {
    let (plan, count) = count_plan(vec![Key { expr: Expr::column("k"), data_type: DataType::Int64 }]);
    let mergers = [&[vec![1, 2, 70]][..], &[], &[vec![70, 900]]]
        .map(|blocks| many_groups(&plan, &count, 0, blocks, u64::MAX));
    let shares = Merger::shares(mergers.into()).unwrap();
    let bodies: Vec<Body> = shares.into_iter().map(|share| share.merge(None).unwrap()).collect();
    assert_eq!(bodies.len(), 1);
    let Body::Groups(groups) = Merger::join(bodies, u64::MAX).unwrap() else { panic!("groups") };
    assert_eq!(groups.group_count, 3);
    assert_eq!(groups.take(&[3]).unwrap_err(), QueryError::Mismatch("group 3 of 3".to_owned()));
    let error = Merger::join(vec![], u64::MAX).unwrap_err();
    assert_eq!(error, QueryError::Mismatch("no bodies to join".to_owned()));

    let mut merger = Merger::new(&plan, 100_000).unwrap();
    let (placed, places) = PlacedKeys::new(&(0..70_000).collect::<Vec<i64>>(), None);
    assert_eq!((placed.len(), placed.is_empty()), (70_000, false));
    let mut sorted = places.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..70_000), "each row has a place of its own");
    let states = || {
        let mut states = States::new(&count, WeightKind::One).unwrap();
        states.resize(70_000);
        states
    };
    let error = merger.push_placed(placed, vec![states()]).unwrap_err();
    assert_eq!(error, QueryError::Memory { groups: 70_000, limit: 100_000 });
    for (types, states, wanted) in [
        (DataType::Utf8, vec![states()], "1 states for a plan with 1 keys and 1 aggregates"),
        (DataType::Int64, vec![], "0 states for a plan with 1 keys and 1 aggregates"),
    ] {
        let (plan, _) = count_plan(vec![Key { expr: Expr::column("k"), data_type: types }]);
        let (placed, _) = PlacedKeys::new(&vec![5; 70_000], None);
        let error = Merger::new(&plan, u64::MAX).unwrap().push_placed(placed, states).unwrap_err();
        assert_eq!(error, QueryError::Mismatch(format!("70000 rows with one int key and {wanted}")));
    }
}
