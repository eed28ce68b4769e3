//! Bodies come back as they went, in pieces that fit; bodies of another plan are refused.

use arrow::array::{AsArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use gannet_query::{
    Aggregate, AggregateFunction, Expr, Finish, Input, Key, Merger, OutputColumn, TimeRange, Values,
    WeightKind, Weights,
};
use proptest::prelude::*;

use super::*;

fn aggregate(function: AggregateFunction, argument: Option<DataType>) -> Aggregate {
    let argument = argument.map(|data_type| (Expr::column("x"), data_type));
    Aggregate { function, argument, filter: None, weighted: true }
}

fn plan(keys: &[DataType], aggregates: Vec<Aggregate>) -> Plan {
    let key = |data_type: &DataType| Key { expr: Expr::column("k"), data_type: data_type.clone() };
    let output = Output::Groups { keys: keys.iter().map(key).collect(), aggregates };
    Plan {
        table: "t".into(),
        columns: vec![],
        time_range: TimeRange::ALL,
        filter: None,
        weight: WeightKind::One,
        output,
    }
}

fn sums() -> Plan {
    let aggregates = vec![
        aggregate(AggregateFunction::Count, None),
        aggregate(AggregateFunction::Sum, Some(DataType::Int64)),
        aggregate(AggregateFunction::Distinct, Some(DataType::Int64)),
    ];
    plan(&[DataType::Int64], aggregates)
}

/// One group per value, each with one row of that value.
fn groups(plan: &Plan, values: &[i64]) -> Groups {
    let Output::Groups { aggregates, .. } = &plan.output else { panic!("a plan of groups") };
    let rows: Vec<u32> = (0..values.len() as u32).collect();
    let states = aggregates.iter().map(|aggregate| {
        let mut states = States::new(aggregate, plan.weight).unwrap();
        states.resize(values.len());
        let values = if aggregate.argument.is_some() { Values::Int(values) } else { Values::None };
        states.update(&rows, &Input { values, validity: None, weights: Weights::One, times: &[] }).unwrap();
        states
    });
    Groups {
        states: states.collect(),
        keys: vec![Arc::new(Int64Array::from(values.to_vec()))],
        group_count: values.len(),
    }
}

fn merged(plan: &Plan, pieces: &[Bytes]) -> Groups {
    let mut merger = Merger::new(plan, 1 << 30).unwrap();
    for piece in pieces {
        merger.push(decode_body(plan, piece).unwrap()).unwrap();
    }
    match merger.finish().unwrap() {
        Body::Groups(groups) => groups,
        Body::Rows(_) => panic!("groups come back as groups"),
    }
}

#[test]
fn many_groups_travel_in_pieces() {
    let plan = sums();
    let values: Vec<i64> = (0..PIECE_ROWS_MAX as i64 * 2 + 5).collect();
    let pieces = encode_body(&Body::Groups(groups(&plan, &values))).unwrap();
    assert!(pieces.len() >= 3);
    assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX));
    let back = merged(&plan, &pieces);
    assert_eq!(back.group_count, values.len());
    let keys = back.keys[0].as_primitive::<Int64Type>();
    let sums = back.states[1].finish(&Finish::Sum, &DataType::Int64).unwrap();
    assert_eq!(keys, sums.as_primitive::<Int64Type>());
}

#[test]
fn groups_without_keys_and_without_aggregates() {
    let one = plan(&[], vec![aggregate(AggregateFunction::Count, None)]);
    let mut states = States::new(&aggregate(AggregateFunction::Count, None), WeightKind::One).unwrap();
    states.resize(1);
    let body = Body::Groups(Groups { keys: vec![], states: vec![states], group_count: 1 });
    assert_eq!(merged(&one, &encode_body(&body).unwrap()).group_count, 1);
    let keys_only = plan(&[DataType::Utf8], vec![]);
    let keys: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec![Some("a"), None]))];
    let body = Body::Groups(Groups { keys: keys.clone(), states: vec![], group_count: 2 });
    assert_eq!(merged(&keys_only, &encode_body(&body).unwrap()).keys, keys);
    let none = Body::Groups(Groups { keys, states: vec![], group_count: 0 });
    assert!(encode_body(&none).is_err(), "keys and count must agree");
    assert_eq!(encode_body(&Body::Rows(RowSet { batches: vec![] })).unwrap(), Vec::<Bytes>::new());
}

fn rows_plan(columns: &[(&str, DataType)]) -> Plan {
    let column = |(name, data_type): &(&str, DataType)| OutputColumn {
        name: (*name).to_owned(),
        expr: Expr::column(*name),
        data_type: data_type.clone(),
    };
    let columns = columns.iter().map(column).collect();
    Plan { output: Output::Rows { columns, order_by: vec![], limit: None }, ..sums() }
}

#[test]
fn wide_rows_are_cut_by_bytes() {
    let wide = "x".repeat(1 << 20);
    let column: ArrayRef = Arc::new(StringArray::from(vec![wide.as_str(); 20]));
    let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
    let body = Body::Rows(RowSet { batches: vec![batch.clone()] });
    let pieces = encode_body(&body).unwrap();
    assert_eq!(pieces.len(), 4, "20 MiB in pieces of at most 8");
    let plan = rows_plan(&[("a", DataType::Utf8)]);
    let mut rows = 0;
    for piece in &pieces {
        let Body::Rows(set) = decode_body(&plan, piece).unwrap() else { panic!("rows come back as rows") };
        rows += set.batches.iter().map(RecordBatch::num_rows).sum::<usize>();
    }
    assert_eq!(rows, 20);
    let huge = "x".repeat(MESSAGE_BYTES_MAX);
    let column: ArrayRef = Arc::new(StringArray::from(vec![huge]));
    let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
    assert_eq!(
        encode_body(&Body::Rows(RowSet { batches: vec![batch] })).unwrap_err().to_string(),
        "bytes of one group or row exceed the limit of 67108864"
    );
}

fn check(plan: &Plan, columns: Vec<ArrayRef>, expect: &str) {
    let named = columns.into_iter().enumerate().map(|(index, array)| (index.to_string(), array, true));
    let batch = RecordBatch::try_from_iter_with_nullable(named).unwrap();
    let bytes = encode_batches(&batch.schema(), &[batch]).unwrap();
    assert_eq!(decode_body(plan, &bytes).unwrap_err().to_string(), expect);
}

#[test]
fn bodies_of_another_plan_are_refused() {
    let int = || -> ArrayRef { Arc::new(Int64Array::from(vec![1, 2])) };
    let float = || -> ArrayRef { Arc::new(Float64Array::from(vec![1.0, 2.0])) };
    let fit = "body does not fit the plan: ";
    let keys = plan(&[DataType::Int64], vec![]);
    check(&keys, vec![float()], &format!("{fit}group key 0 has type Float64, the plan says Int64"));
    check(&keys, vec![int(), int()], &format!("{fit}1 columns more than the plan's groups have"));
    check(&sums(), vec![int()], &format!("{fit}1 columns are too few for the plan's groups"));
    let none = plan(&[], vec![aggregate(AggregateFunction::Count, None)]);
    check(&none, vec![int()], &format!("{fit}2 groups for a plan without keys"));
    let rows = rows_plan(&[("a", DataType::Int64)]);
    check(&rows, vec![int(), int()], &format!("{fit}rows of 2 columns for a plan of 1"));
    check(&rows, vec![float()], &format!("{fit}column 0 has type Float64, the plan says Int64"));
    let empty = decode_body(&keys, &Bytes::new()).unwrap_err().to_string();
    assert_eq!(empty, format!("{fit}0 batches of groups in one piece, not 1"));
}

proptest! {
    #[test]
    fn hostile_pieces_are_errors_not_panics(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let plan = sums();
        let pieces = encode_body(&Body::Groups(groups(&plan, &[1, 2, 3]))).unwrap();
        let mut bytes = pieces[0].to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = decode_body(&plan, &Bytes::from(bytes));
    }
}
