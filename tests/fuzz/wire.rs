//! Messages of `gannet.v1`: plans, partials, completeness, values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::DataType;
use bytes::Bytes;
use gannet_proto::{batches, decode_batches, decode_body, encode_batches, encode_body, wire};
use gannet_query::expr::BinaryOp;
use gannet_query::plan::{Key, OrderBy, OutputColumn};
use gannet_query::{
    Aggregate, AggregateFunction, Body, ColumnType, Completeness, Expr, LeafEpoch, Missing, MissingReason,
    Output, Plan, RowSet, TimeRange, WeightKind,
};
use gannet_tests::encodings;
use gannet_tests::mutate::Mutator;
use gannet_tests::sweep::Outcome;
use prost::Message;
use rand::Rng;

fn rows_plan() -> Plan {
    let shown = |(name, column_type): &(&str, ColumnType)| OutputColumn {
        name: (*name).to_owned(),
        expr: Expr::column(*name),
        data_type: column_type.arrow(),
    };
    let is_some = Expr::And(vec![
        Expr::binary(BinaryOp::GtEq, Expr::column("n"), Expr::int(7)),
        Expr::Or(vec![
            Expr::Not(Box::new(Expr::IsNull(Box::new(Expr::column("host"))))),
            Expr::Like {
                operand: Box::new(Expr::column("line")),
                pattern: Box::new(Expr::text("%items%")),
                negated: true,
                case_insensitive: true,
                escape: Some('#'),
            },
            Expr::InList {
                operand: Box::new(Expr::column("n")),
                list: Arc::new(Int64Array::from(vec![1, 2, 3])),
                negated: false,
            },
        ]),
    ]);
    Plan {
        table: "requests".to_owned(),
        columns: encodings::COLUMNS.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
        time_range: TimeRange::ALL,
        filter: Some(is_some),
        weight: WeightKind::One,
        output: Output::Rows {
            columns: encodings::COLUMNS.iter().map(shown).collect(),
            order_by: vec![OrderBy { column: 3, descending: true, nulls_first: false }],
            limit: Some(100),
        },
    }
}

fn groups_plan() -> Plan {
    let call = Expr::Call { function: "upper".to_owned(), arguments: vec![Expr::column("host")] };
    let case = Expr::Case {
        operand: None,
        branches: vec![(Expr::IsNotNull(Box::new(Expr::column("n"))), Expr::int(1))],
        otherwise: Some(Box::new(Expr::Cast {
            operand: Box::new(Expr::column("ratio")),
            to: DataType::Int64,
            lenient: true,
        })),
    };
    let aggregate = |function, argument| Aggregate { function, argument, filter: None, weighted: true };
    Plan {
        output: Output::Groups {
            keys: vec![
                Key { expr: call, data_type: DataType::Utf8 },
                Key { expr: case, data_type: DataType::Int64 },
            ],
            aggregates: vec![
                aggregate(AggregateFunction::Count, None),
                aggregate(AggregateFunction::Sum, Some((Expr::column("ratio"), DataType::Float64))),
                aggregate(AggregateFunction::Distinct, Some((Expr::column("trace"), DataType::Utf8))),
            ],
        },
        ..rows_plan()
    }
}

/// Changes one of some seeds.
fn changed(number: u64, seeds: &[Vec<u8>]) -> (usize, Vec<u8>, String) {
    let mut mutator = Mutator::new(number, seeds);
    let which = mutator.random().random_range(0..seeds.len());
    let mut bytes = seeds[which].clone();
    mutator.change(&mut bytes);
    let said = mutator.said();
    (which, bytes, said)
}

/// The cases of plans: what is read writes itself as what is read again as the same.
pub(crate) fn plan_cases() -> impl Fn(u64) -> Outcome {
    let seeds: Vec<Vec<u8>> =
        [rows_plan(), groups_plan()].iter().map(|plan| wire::Plan::from(plan).encode_to_vec()).collect();
    move |number| {
        let (_, bytes, said) = changed(number, &seeds);
        let Ok(message) = wire::Plan::decode(&bytes[..]) else { return Ok("no message".to_owned()) };
        let Ok(plan) = Plan::try_from(message) else { return Ok("refused".to_owned()) };
        let again = wire::Plan::from(&plan).encode_to_vec();
        let read = wire::Plan::decode(&again[..]).map_err(|error| error.to_string())?;
        let read =
            Plan::try_from(read).map_err(|error| format!("what it writes it refuses: {error}\n{said}"))?;
        // Arrow writes a time zone without a name as none.
        let shown = |plan: &Plan| format!("{plan:?}").replace("Some(\"\")", "None");
        let (read, plan) = (shown(&read), shown(&plan));
        if read != plan {
            let at = read.bytes().zip(plan.bytes()).take_while(|(one, other)| one == other).count();
            let near = |text: &str| text.chars().skip(at.saturating_sub(80)).take(200).collect::<String>();
            return Err(format!("{said}\n{}\ncomes back as\n{}", near(&plan), near(&read)));
        }
        Ok("read".to_owned())
    }
}

/// The cases of bodies of partials: each has the columns that the plan asks for.
pub(crate) fn partial_cases() -> impl Fn(u64) -> Outcome {
    let plan = rows_plan();
    let body = Body::Rows(RowSet { batches: vec![encodings::batch(0, 40), encodings::batch(40, 1)] });
    let seeds: Vec<Vec<u8>> = encode_body(&body).unwrap().iter().map(|piece| piece.to_vec()).collect();
    move |number| {
        let (_, bytes, said) = changed(number, &seeds);
        let Ok(body) = decode_body(&plan, &Bytes::from(bytes)) else { return Ok("refused".to_owned()) };
        let Body::Rows(rows) = body else { return Err("rows became groups".to_owned()) };
        for batch in &rows.batches {
            look(batch)?;
            if batch.num_columns() != encodings::COLUMNS.len() {
                return Err(format!("{} columns\n{said}", batch.num_columns()));
            }
        }
        Ok("read".to_owned())
    }
}

/// Every value of a batch can be shown.
fn look(batch: &RecordBatch) -> Result<(), String> {
    for column in batch.columns() {
        column.to_data().validate_full().map_err(|error| format!("an array that is none: {error}"))?;
    }
    Ok(())
}

/// The cases of completeness: no sum of it overflows, and the ratio is one.
pub(crate) fn completeness_cases() -> impl Fn(u64) -> Outcome {
    let missing = |leaf: &str, rows| Missing {
        leaf: leaf.to_owned(),
        reason: MissingReason::Lost,
        rows,
        answered: rows.is_none(),
        detail: "what happened".to_owned(),
    };
    let completeness = Completeness {
        answered: vec![LeafEpoch { leaf: "leaf-1".to_owned(), epoch: 3 }],
        rows_covered: 1_000,
        missing: vec![missing("leaf-2", Some(7)), missing("leaf-3", Some(1_000_000))],
        newest_time: Some(5),
        ..Completeness::default()
    };
    let seeds = vec![wire::Completeness::from(&completeness).encode_to_vec()];
    move |number| {
        let (_, bytes, said) = changed(number, &seeds);
        let Ok(message) = wire::Completeness::decode(&bytes[..]) else { return Ok("no message".to_owned()) };
        let Ok(mut read) = Completeness::try_from(message) else { return Ok("refused".to_owned()) };
        if read.ratio().is_some_and(|ratio| !(0.0..=1.0).contains(&ratio)) {
            return Err(format!("the ratio is {:?}\n{said}", read.ratio()));
        }
        let is_whole = read.missing.iter().all(|missing| missing.rows == Some(0));
        if read.ratio() == Some(1.0) && !is_whole && read.rows_covered < u64::MAX / 2 {
            return Err(format!("nothing is missing of {read:?}\n{said}"));
        }
        read.merge(read.clone());
        let _ = (read.ratio(), read.leaves_asked());
        Ok("read".to_owned())
    }
}

/// The cases of record batches, single arrays and types.
pub(crate) fn values_cases() -> impl Fn(u64) -> Outcome {
    let batch = encodings::batch(0, 30);
    let array: ArrayRef = batch.column(0).clone();
    let seeds = vec![
        encode_batches(&batch.schema(), std::slice::from_ref(&batch)).unwrap().to_vec(),
        batches::encode_array(&array).unwrap().to_vec(),
        batches::encode_type(&ColumnType::Strings.arrow()).to_vec(),
    ];
    move |number| {
        let (which, bytes, _) = changed(number, &seeds);
        let is_read = match which {
            0 => {
                let read = decode_batches(&Bytes::from(bytes));
                read.iter().flatten().try_for_each(look)?;
                read.is_ok()
            }
            1 => {
                let read = batches::decode_array(&Bytes::from(bytes));
                if let Ok(array) = &read {
                    array.to_data().validate_full().map_err(|error| error.to_string())?;
                }
                read.is_ok()
            }
            _ => batches::decode_type(&bytes).is_ok(),
        };
        Ok(if is_read { "read" } else { "refused" }.to_owned())
    }
}
