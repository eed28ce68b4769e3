//! Filters, keys and aggregates: every encoding gives what going row by row gives.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, StringArray,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, IntervalMonthDayNano};
use gannet_query::{
    Aggregate, AggregateFunction, BinaryOp, ColumnType, Expr, HistogramBuckets, Plan, TimeRange, WeightKind,
};

use super::fixture::*;
use crate::row_block::Preference;

/// The same rows in several arrangements must give what the reference gives.
fn check(plan: &Plan) {
    let parts = [table(0, 170), table(170, 171), table(171, 300)];
    let expect = reference(&together(&parts), plan);
    let arrangements = [
        [Encoding::Plain, Encoding::Plain, Encoding::Plain],
        [Encoding::Tight, Encoding::Tight, Encoding::Tight],
        [Encoding::Sealed, Encoding::Sealed, Encoding::Sealed],
        [Encoding::Tight, Encoding::Plain, Encoding::Sealed],
        [
            Encoding::Preferred(Preference::Packed),
            Encoding::Preferred(Preference::Dictionary),
            Encoding::Preferred(Preference::Text),
        ],
        [Encoding::Preferred(Preference::Plain), Encoding::Sealed, Encoding::Preferred(Preference::Packed)],
    ];
    for encodings in arrangements {
        let runs = parts.iter().zip(encodings).map(|(part, encoding)| run(part, encoding)).collect();
        let outcome = scan_all(runs, plan).unwrap();
        assert_eq!(answer(&outcome, plan), expect, "{plan} as {encodings:?}");
    }
    let whole = scan_all(vec![run(&together(&parts), Encoding::Tight)], plan).unwrap();
    assert_eq!(answer(&whole, plan), expect, "{plan} in one run");
}

fn check_filter(filter: Expr) {
    for weight in [WeightKind::One, WeightKind::Int] {
        check(&Plan { weight, ..plan(Some(filter.clone()), vec![], vec![count()]) });
    }
}

fn check_key(key: Expr, data_type: DataType) {
    check(&plan(None, vec![(key.clone(), data_type.clone())], vec![count()]));
    let some = binary(BinaryOp::Gt, column("small"), Expr::int(12));
    check(&plan(Some(some), vec![(key, data_type)], vec![count()]));
}

fn check_aggregate(function: AggregateFunction, argument: Expr, data_type: DataType) {
    let mut one = aggregate(function, argument, data_type);
    let service = || vec![(column("service"), DataType::Utf8)];
    for weight in [WeightKind::One, WeightKind::Int] {
        let whole = plan(None, vec![], vec![one.clone()]);
        check(&Plan { weight, ..whole });
        let few = binary(BinaryOp::Gt, column("small"), Expr::int(12));
        let part = plan(Some(few), vec![], vec![one.clone(), count()]);
        check(&Plan { weight, ..part });
    }
    for weight in [WeightKind::One, WeightKind::Int] {
        let whole = plan(None, service(), vec![one.clone()]);
        check(&Plan { weight, ..whole });
    }
    one.filter = Some(binary(BinaryOp::Eq, column("service"), Expr::text("db")));
    let some = || Some(binary(BinaryOp::Lt, column("small"), Expr::int(3)));
    for weight in [WeightKind::One, WeightKind::Int] {
        let plan = plan(some(), vec![], vec![one.clone(), count()]);
        check(&Plan { weight, ..plan });
    }
}

const COMPARISONS: [BinaryOp; 6] =
    [BinaryOp::Eq, BinaryOp::NotEq, BinaryOp::Lt, BinaryOp::LtEq, BinaryOp::Gt, BinaryOp::GtEq];

#[test]
fn sums_of_what_a_filter_leaves() {
    let sum = |name: &str| aggregate(AggregateFunction::Sum, column(name), DataType::Int64);
    let floats = |name: &str| {
        aggregate(AggregateFunction::Sum, cast(column(name), DataType::Float64), DataType::Float64)
    };
    let latency = || aggregate(AggregateFunction::Sum, column("latency"), DataType::Float64);
    let unweighted = |of: Aggregate| Aggregate { weighted: false, ..of };
    let asked = [
        vec![count(), sum("bytes"), sum("status")],
        vec![sum("small"), unweighted(sum("small")), floats("status"), unweighted(count())],
        vec![count(), latency(), sum("gone"), sum("size")],
        vec![sum("bytes"), aggregate(AggregateFunction::Max, column("bytes"), DataType::Int64)],
    ];
    for least in [-21, -12, 5, 9, 30] {
        let filter = binary(BinaryOp::Gt, column("small"), Expr::int(least));
        for aggregates in &asked {
            for weight in [WeightKind::One, WeightKind::Int] {
                check(&Plan { weight, ..plan(Some(filter.clone()), vec![], aggregates.clone()) });
            }
        }
    }
}

#[test]
fn expressions_of_codes_of_two_bytes() {
    let rows = 0..2_600;
    let some = |row: usize, salt: u64| !noise(row, salt).is_multiple_of(13);
    let price = |row| some(row, 51).then(|| (noise(row, 52) % 500) as f64 / 4.0 - 20.0);
    // There is no zero, but a code for it.
    let size = |row| {
        some(row, 53).then(|| match (noise(row, 54) % 600) as i64 {
            300 => 3,
            other => other * 3 - 900,
        })
    };
    let mut table = table(0, 2_600);
    table.push((
        "price".into(),
        ColumnType::Float,
        Arc::new(rows.clone().map(price).collect::<Float64Array>()),
    ));
    table.push(("amount".into(), ColumnType::Int, Arc::new(rows.map(size).collect::<Int64Array>())));
    let rounded = || call("round", vec![column("price")]);
    let positive = || call("abs", vec![column("amount")]);
    let inverse = || binary(BinaryOp::Divide, Expr::int(1_000), column("amount"));
    let keys = [(rounded(), DataType::Float64), (positive(), DataType::Int64), (inverse(), DataType::Int64)];
    let filters = [
        binary(BinaryOp::Gt, rounded(), float(31.0)),
        binary(BinaryOp::Lt, positive(), Expr::int(301)),
        Expr::IsNull(Box::new(positive())),
    ];
    let mut plans: Vec<Plan> =
        filters.into_iter().map(|filter| plan(Some(filter), vec![], vec![count()])).collect();
    for (key, data_type) in keys {
        plans.push(plan(None, vec![(key.clone(), data_type.clone())], vec![count()]));
        plans.push(plan(None, vec![], vec![aggregate(AggregateFunction::Sum, key, data_type)]));
    }
    for mut plan in plans {
        let more = [("price", ColumnType::Float), ("amount", ColumnType::Int)];
        plan.columns.extend(more.map(|(name, column_type)| (name.to_owned(), column_type)));
        let expect = reference(&table, &plan);
        for encoding in
            [Encoding::Plain, Encoding::Tight, Encoding::Sealed, Encoding::Preferred(Preference::Packed)]
        {
            let outcome = scan_all(vec![run(&table, encoding)], &plan).unwrap();
            assert_eq!(answer(&outcome, &plan), expect, "{plan} as {encoding:?}");
        }
    }
}

#[test]
fn comparisons_of_computed_floats() {
    use BinaryOp::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Multiply, NotEq, Plus};
    let small = || cast(column("small"), DataType::Float64);
    for op in [Eq, NotEq, Lt, LtEq, Gt, GtEq] {
        let sum = binary(Plus, column("latency"), small());
        check_filter(binary(op, sum.clone(), float(-0.0)));
        check_filter(binary(op, float(2.5), sum));
        // Divided by zero, by nothing, and zero by zero.
        let ratio = binary(Divide, column("latency"), small());
        check_filter(binary(op, ratio.clone(), column("latency")));
        check_filter(binary(
            op,
            binary(Multiply, ratio, float(3.0)),
            binary(Minus, small(), float(f64::NAN)),
        ));
        check_filter(binary(op, column("latency"), float(-0.0)));
        check_filter(binary(op, column("latency"), float(3.75)));
        let both = vec![binary(Gt, column("small"), Expr::int(12)), binary(op, column("latency"), small())];
        check_filter(Expr::And(both));
    }
}

#[test]
fn lengths_of_texts_are_ints_of_their_own() {
    let literal = |value: i32| Expr::Literal(Arc::new(Int32Array::from(vec![value])));
    for name in ["url", "service", "region"] {
        let length = || call("character_length", vec![column(name)]);
        let wide = || cast(length(), DataType::Int64);
        check_filter(binary(BinaryOp::Gt, length(), literal(4)));
        check_filter(binary(BinaryOp::LtEq, literal(9), length()));
        check_filter(binary(BinaryOp::NotEq, wide(), Expr::int(2)));
        check_filter(binary(
            BinaryOp::Gt,
            binary(BinaryOp::Multiply, wide(), column("small")),
            Expr::int(30),
        ));
        check_filter(binary(BinaryOp::Lt, length(), call("character_length", vec![column("service")])));
        check_filter(Expr::IsNull(Box::new(length())));
        check_filter(Expr::IsNotNull(Box::new(length())));
        let list: ArrayRef = Arc::new(Int32Array::from(vec![Some(3), Some(8), None]));
        for negated in [false, true] {
            let list = Arc::clone(&list);
            check_filter(Expr::InList { operand: Box::new(length()), list, negated });
        }
        check_key(length(), DataType::Int32);
        check_key(wide(), DataType::Int64);
        check_key(binary(BinaryOp::Divide, wide(), Expr::int(3)), DataType::Int64);
        check_aggregate(AggregateFunction::Sum, wide(), DataType::Int64);
        check_aggregate(AggregateFunction::Max, length(), DataType::Int32);
        check_aggregate(AggregateFunction::Sum, cast(length(), DataType::Float64), DataType::Float64);
    }
}

#[test]
fn counts_of_columns_without_numbers() {
    let texts = || DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    for (name, data_type) in [
        ("service", DataType::Utf8),
        ("region", DataType::Utf8),
        ("url", DataType::Utf8),
        ("ok", DataType::Boolean),
        ("tags", texts()),
    ] {
        check_aggregate(AggregateFunction::Sum, column(name), data_type);
    }
}

#[test]
fn lengths_of_lists_are_ints_of_their_own() {
    let literal = |value: u64| Expr::Literal(Arc::new(UInt64Array::from(vec![value])));
    let length = || call("array_length", vec![column("tags")]);
    let wide = || cast(length(), DataType::Int64);
    check_filter(binary(BinaryOp::Gt, length(), literal(1)));
    check_filter(binary(BinaryOp::GtEq, literal(2), length()));
    check_filter(binary(BinaryOp::Lt, length(), literal(u64::MAX)));
    check_filter(binary(BinaryOp::Eq, wide(), Expr::int(0)));
    check_filter(Expr::IsNull(Box::new(length())));
    check_key(length(), DataType::UInt64);
    check_key(wide(), DataType::Int64);
    check_aggregate(AggregateFunction::Sum, wide(), DataType::Int64);
    check_aggregate(AggregateFunction::Max, length(), DataType::UInt64);
    // Along a dimension it is another function.
    check_filter(binary(BinaryOp::Eq, call("array_length", vec![column("tags"), Expr::int(2)]), literal(1)));
}

#[test]
fn comparisons_of_ints_and_times() {
    for op in COMPARISONS {
        for (name, values) in [
            ("status", vec![200, 201, 404, 1500, 0, 9_999]),
            ("small", vec![-21, -20, 0, 19, 20]),
            ("wide", vec![i64::MIN, i64::MIN + 1, -1, 0, 8, i64::MAX]),
            ("bytes", vec![500_000_000_000]),
            ("gone", vec![1]),
        ] {
            for value in values {
                check_filter(binary(op, column(name), Expr::int(value)));
            }
        }
        check_filter(binary(op, Expr::int(404), column("status")));
        check_filter(binary(op, column("time"), time(START + 700 * SECOND)));
        check_filter(binary(op, column("small"), Expr::literal(Arc::new(Int64Array::from(vec![None])))));
    }
}

#[test]
fn lists_and_ranges() {
    let list = |values: Vec<Option<i64>>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    for name in ["status", "small", "wide", "gone", "bytes"] {
        for negated in [false, true] {
            for values in [vec![Some(404), Some(7), Some(0)], vec![Some(200), None], vec![None], vec![]] {
                let operand = Box::new(column(name));
                check_filter(Expr::InList { operand, list: list(values), negated });
            }
        }
    }
    for negated in [false, true] {
        let texts = Arc::new(StringArray::from(vec![Some("db"), Some("Web"), Some("/item/7")]));
        for name in ["service", "url", "region"] {
            let operand = Box::new(column(name));
            check_filter(Expr::InList { operand, list: texts.clone(), negated });
        }
    }
    check_filter(Expr::And(vec![
        binary(BinaryOp::GtEq, column("small"), Expr::int(-5)),
        binary(BinaryOp::LtEq, column("small"), Expr::int(5)),
        binary(BinaryOp::GtEq, column("time"), time(START + 100 * SECOND)),
    ]));
}

#[test]
fn filters_over_texts_and_others() {
    let service = || column("service");
    check_filter(like(service(), "%b%"));
    check_filter(like(column("url"), "/item/1%"));
    check_filter(binary(BinaryOp::RegexMatch, service(), Expr::text("^[a-d]")));
    check_filter(binary(BinaryOp::Eq, call("lower", vec![service()]), Expr::text("web")));
    check_filter(Expr::IsNull(Box::new(service())));
    check_filter(Expr::IsNotNull(Box::new(column("small"))));
    check_filter(Expr::Not(Box::new(binary(BinaryOp::Lt, service(), Expr::text("c")))));
    check_filter(binary(BinaryOp::Eq, column("region"), Expr::text("eu")));
    check_filter(binary(BinaryOp::Eq, column("region"), Expr::text("us")));
    check_filter(binary(BinaryOp::Lt, column("latency"), float(3.0)));
    check_filter(binary(BinaryOp::Eq, column("latency"), float(0.0)));
    check_filter(column("ok"));
    check_filter(Expr::IsBool { operand: Box::new(column("ok")), value: true, negated: true });
    check_filter(Expr::Or(vec![
        binary(BinaryOp::Eq, service(), Expr::text("db")),
        binary(BinaryOp::Gt, column("bytes"), column("status")),
        column("ok"),
    ]));
    check_filter(call("array_has", vec![column("tags"), Expr::text("t2")]));
    check_filter(binary(BinaryOp::Eq, binary(BinaryOp::Modulo, column("small"), Expr::int(3)), Expr::int(1)));
    check_filter(binary(BinaryOp::IsDistinctFrom, column("small"), column("gone")));
    check_filter(Expr::Case {
        operand: None,
        branches: vec![(binary(BinaryOp::Gt, column("small"), Expr::int(0)), column("ok"))],
        otherwise: Some(Box::new(binary(BinaryOp::Eq, column("region"), Expr::text("eu")))),
    });
    check_filter(Expr::And(vec![]));
    check_filter(Expr::Or(vec![]));
    // A long AND of which each conjunct keeps most rows, over several columns at once.
    check_filter(Expr::And(vec![
        binary(BinaryOp::NotEq, service(), Expr::text("cache")),
        binary(BinaryOp::Lt, column("small"), column("status")),
        binary(BinaryOp::NotEq, column("status"), Expr::int(500)),
        binary(BinaryOp::Lt, column("latency"), float(9.0)),
        like(column("url"), "%1%"),
    ]));
}

#[test]
fn tests_of_texts_and_what_denies_them() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["/item/7", "Web", "db"]));
    for name in ["service", "url", "region"] {
        let operand = || column(name);
        let among = |negated| Expr::InList { operand: Box::new(operand()), list: texts.clone(), negated };
        let mut tests: Vec<Expr> = ["%b%", "/item/1%", "d%", "%", "eu", "%1", "/%1", ""]
            .map(|pattern| like(operand(), pattern))
            .into();
        tests.extend(
            ["", "c", "/item", "\u{10ffff}"]
                .map(|text| call("starts_with", vec![operand(), Expr::text(text)])),
        );
        tests.extend(
            ["db", "/item/7", "eu", "nothing"].map(|text| binary(BinaryOp::Eq, operand(), Expr::text(text))),
        );
        tests.push(among(false));
        for test in tests {
            check_filter(test.clone());
            // Behind a filter that leaves few rows as well.
            check_filter(Expr::And(vec![
                binary(BinaryOp::Eq, column("small"), Expr::int(3)),
                Expr::Not(Box::new(test.clone())),
            ]));
            check_filter(Expr::Not(Box::new(Expr::Not(Box::new(test.clone())))));
            check_filter(Expr::Not(Box::new(test)));
        }
        check_filter(among(true));
        check_filter(binary(BinaryOp::NotEq, operand(), Expr::text("db")));
        check_filter(Expr::Like {
            operand: Box::new(operand()),
            pattern: Box::new(Expr::text("%e%")),
            negated: true,
            case_insensitive: false,
            escape: None,
        });
    }
}

#[test]
fn expressions_that_only_compare_numbers() {
    let less = |name: &str, value: Expr| binary(BinaryOp::Lt, column(name), value);
    let speed = |name: &str, values: [Expr; 3]| Expr::Case {
        operand: None,
        branches: values.map(|value| (less(name, value.clone()), value)).to_vec(),
        otherwise: None,
    };
    for name in ["small", "status", "bytes", "wide"] {
        check_key(speed(name, [-5, 404, 500_000_000_000].map(Expr::int)), DataType::Int64);
        check_key(Expr::IsNull(Box::new(less(name, Expr::int(0)))), DataType::Boolean);
    }
    check_key(speed("latency", [0.0, 1.25, 7.0].map(float)), DataType::Float64);
    check_key(speed("time", [20, 300, 900].map(|at| time(START + at * SECOND))), ColumnType::Time.arrow());
    let by_value = Expr::Case {
        operand: Some(Box::new(column("status"))),
        branches: vec![(Expr::int(404), Expr::text("lost")), (Expr::int(1500), Expr::text("odd"))],
        otherwise: Some(Box::new(Expr::text("other"))),
    };
    check_key(by_value, DataType::Utf8);
    // Several columns at once.
    let slow = || binary(BinaryOp::GtEq, column("latency"), float(5.0));
    let large = || binary(BinaryOp::Gt, column("bytes"), Expr::int(400_000_000_000));
    check_filter(Expr::Or(vec![slow(), large(), column("ok")]));
    check_filter(Expr::Or(vec![
        binary(BinaryOp::Eq, column("service"), Expr::text("db")),
        Expr::And(vec![large(), less("small", Expr::int(3))]),
    ]));
    check_filter(Expr::Not(Box::new(Expr::And(vec![column("ok"), slow()]))));
    let many: ArrayRef = Arc::new((-15..15).map(|value| Some(value * 3)).collect::<Int64Array>());
    let among = Expr::InList { operand: Box::new(column("small")), list: many, negated: false };
    check_filter(Expr::Or(vec![among, large()]));
    let one_or_none = |when: Expr| Expr::Case {
        operand: None,
        branches: vec![(when, Expr::int(1))],
        otherwise: Some(Box::new(Expr::int(0))),
    };
    check_aggregate(AggregateFunction::Sum, one_or_none(large()), DataType::Int64);
    check_aggregate(AggregateFunction::Sum, one_or_none(Expr::And(vec![slow(), large()])), DataType::Int64);
}

#[test]
fn keys_of_every_type() {
    for (name, column_type, _) in table(0, 1) {
        check_key(column(&name), column_type.arrow());
    }
    check_key(call("upper", vec![column("service")]), DataType::Utf8);
    check_key(call("left", vec![column("url"), Expr::int(7)]), DataType::Utf8);
    check_key(binary(BinaryOp::Modulo, column("small"), Expr::int(7)), DataType::Int64);
    check_key(binary(BinaryOp::Divide, column("bytes"), Expr::int(100_000_000_000)), DataType::Int64);
    check_key(cast(column("status"), DataType::Int32), DataType::Int32);
    check_key(cast(column("latency"), DataType::Float32), DataType::Float32);
    check_key(cast(column("time"), DataType::Date32), DataType::Date32);
    check_key(binary(BinaryOp::Gt, column("small"), Expr::int(0)), DataType::Boolean);
    check_key(Expr::text("same"), DataType::Utf8);
}

#[test]
fn keys_of_time() {
    let time_type = || ColumnType::Time.arrow();
    for unit in ["second", "minute", "hour", "day", "week", "month", "year", "millisecond"] {
        check_key(call("date_trunc", vec![Expr::text(unit), column("time")]), time_type());
    }
    for unit in ["minute", "hour", "dow"] {
        check_key(call("date_part", vec![Expr::text(unit), column("time")]), DataType::Int32);
    }
    let interval = |months, days, nanoseconds| {
        let value = IntervalMonthDayNano::new(months, days, nanoseconds);
        Expr::literal(Arc::new(IntervalMonthDayNanoArray::from(vec![value])))
    };
    for interval in [interval(0, 0, 90 * SECOND), interval(0, 1, 0), interval(1, 0, 0), interval(0, 0, 1)] {
        check_key(call("date_bin", vec![interval.clone(), column("time")]), time_type());
        let origin = time(START + 13 * SECOND);
        check_key(call("date_bin", vec![interval, column("time"), origin]), time_type());
    }
}

#[test]
fn several_keys() {
    let keys = |names: &[&str]| {
        let table = table(0, 1);
        let key = |name: &&str| {
            let column_of = table.iter().find(|column| column.0 == **name).unwrap();
            (column(name), column_of.1.arrow())
        };
        names.iter().map(key).collect::<Vec<_>>()
    };
    for names in [
        &["service", "status"][..],
        &["service", "small", "ok", "region"],
        &["url", "bytes", "service"],
        &["bytes", "time", "wide", "url", "latency"],
        &["status", "status"],
    ] {
        let count_and_sum =
            vec![count(), aggregate(AggregateFunction::Sum, column("small"), DataType::Int64)];
        check(&plan(None, keys(names), count_and_sum));
    }
}

#[test]
fn aggregates_over_every_type() {
    use AggregateFunction::*;
    for (name, column_type, _) in table(0, 1) {
        let data_type = column_type.arrow();
        for function in [Sum, Min, Max, Distinct, ApproxDistinct] {
            // Sums of the extremes leave 64 bits; no order over lists.
            let is_refused = (name == "wide" && function == Sum)
                || (column_type == ColumnType::Strings && matches!(function, Min | Max));
            if !is_refused {
                check_aggregate(function, column(&name), data_type.clone());
            }
        }
        for function in [First { ignore_nulls: true }, Last { ignore_nulls: false }] {
            check_aggregate(function, column(&name), data_type.clone());
        }
    }
    let buckets = HistogramBuckets::Width(2.0);
    for function in [Moments, Quantiles, Histogram(buckets)] {
        check_aggregate(function.clone(), column("latency"), DataType::Float64);
        check_aggregate(function, cast(column("small"), DataType::Float64), DataType::Float64);
    }
    check_aggregate(Max, call("upper", vec![column("service")]), DataType::Utf8);
    check_aggregate(Sum, call("character_length", vec![column("service")]), DataType::Int32);
    let length = cast(call("character_length", vec![column("service")]), DataType::Int64);
    check_aggregate(Sum, length, DataType::Int64);
    check_aggregate(Distinct, cast(column("time"), DataType::Date32), DataType::Date32);
}

#[test]
fn weights_in_all_their_forms() {
    let aggregates = || {
        let mut unweighted = count();
        unweighted.weighted = false;
        vec![
            count(),
            unweighted,
            aggregate(AggregateFunction::Sum, column("small"), DataType::Int64),
            aggregate(AggregateFunction::Max, column("small"), DataType::Int64),
            aggregate(AggregateFunction::Quantiles, column("latency"), DataType::Float64),
        ]
    };
    for keys in [vec![], vec![(column("service"), DataType::Utf8)]] {
        let plan = plan(Some(binary(BinaryOp::Gt, column("small"), Expr::int(-9))), keys, aggregates());
        check(&Plan { weight: WeightKind::Int, ..plan });
    }
}

#[test]
fn arithmetic_of_ints() {
    let of = |op, left: &str, right: &str| binary(op, column(left), column(right));
    for op in [BinaryOp::Plus, BinaryOp::Minus, BinaryOp::Multiply] {
        // With and without NULLs, below zero, as one value, and beyond 64 bits, where it wraps.
        for (left, right) in [("status", "small"), ("size", "small"), ("bytes", "gone")] {
            check_aggregate(AggregateFunction::Sum, of(op, left, right), DataType::Int64);
        }
        check_aggregate(AggregateFunction::Max, of(op, "wide", "size"), DataType::Int64);
        check_aggregate(AggregateFunction::Sum, binary(op, column("size"), Expr::int(-3)), DataType::Int64);
        check_aggregate(AggregateFunction::Max, binary(op, Expr::int(7), column("size")), DataType::Int64);
    }
    for by in [1, -7, 1_000, i64::MIN] {
        let over = binary(BinaryOp::Divide, of(BinaryOp::Minus, "status", "size"), Expr::int(by));
        check_aggregate(AggregateFunction::Sum, over.clone(), DataType::Int64);
        let negative = Expr::Negative(Box::new(over));
        check_aggregate(AggregateFunction::Min, negative.clone(), DataType::Int64);
        check_aggregate(AggregateFunction::Distinct, negative, DataType::Int64);
    }
}

#[test]
fn choices_between_ints() {
    let case = |branches: Vec<(Expr, Expr)>, otherwise: Option<Expr>| Expr::Case {
        operand: None,
        branches,
        otherwise: otherwise.map(Box::new),
    };
    let conditions = [
        binary(BinaryOp::GtEq, column("status"), Expr::int(404)),
        binary(BinaryOp::Eq, column("service"), Expr::text("db")),
        binary(BinaryOp::Lt, column("latency"), Expr::literal(Arc::new(Float64Array::from(vec![40.0])))),
        column("ok"),
        Expr::And(vec![column("ok"), binary(BinaryOp::NotEq, column("small"), Expr::int(3))]),
        binary(BinaryOp::Gt, Expr::int(0), column("gone")),
    ];
    for when in conditions {
        for (then, otherwise) in [
            (column("size"), Some(Expr::int(0))),
            (Expr::int(-4), Some(column("size"))),
            (column("size"), None),
            (column("size"), Some(binary(BinaryOp::Multiply, column("size"), Expr::int(2)))),
            // With NULLs, and beyond 64 bits.
            (column("small"), Some(column("size"))),
            (column("wide"), Some(binary(BinaryOp::Plus, column("wide"), column("size")))),
        ] {
            let adds = then.columns() != ["wide"];
            let chosen = case(vec![(when.clone(), then)], otherwise);
            if adds {
                check_aggregate(AggregateFunction::Sum, chosen.clone(), DataType::Int64);
            }
            check_aggregate(AggregateFunction::Max, chosen, DataType::Int64);
        }
    }
    let few = || binary(BinaryOp::Lt, column("size"), Expr::int(900));
    let second = binary(BinaryOp::Eq, column("service"), Expr::text("db"));
    let several = case(vec![(few(), column("size")), (second, Expr::int(7))], Some(Expr::int(-1)));
    let plus = binary(BinaryOp::Plus, several.clone(), column("size"));
    check_aggregate(AggregateFunction::Sum, several, DataType::Int64);
    check_aggregate(AggregateFunction::Min, plus, DataType::Int64);
}

#[test]
fn functions_of_floats() {
    let call = |function: &str, operand: Expr| Expr::Call {
        function: function.to_owned(),
        arguments: vec![operand],
    };
    let floats = |name: &str| cast(column(name), DataType::Float64);
    let half = || Expr::literal(Arc::new(Float64Array::from(vec![0.5])));
    for operand in [floats("bytes"), call("abs", column("latency")), floats("status")] {
        let root = call("sqrt", operand);
        check_aggregate(AggregateFunction::Sum, root.clone(), DataType::Float64);
        check_filter(binary(BinaryOp::Gt, root, Expr::literal(Arc::new(Float64Array::from(vec![20.0])))));
    }
    for function in ["abs", "ln", "log2", "log10", "exp", "floor", "ceil"] {
        // With NULLs, below zero, and far above.
        for operand in
            [column("latency"), floats("small"), binary(BinaryOp::Multiply, floats("size"), half())]
        {
            let called = call(function, operand);
            check_aggregate(AggregateFunction::Max, called.clone(), DataType::Float64);
            check_filter(binary(BinaryOp::Gt, called.clone(), half()));
            let negative = Expr::Negative(Box::new(binary(BinaryOp::Divide, called, half())));
            check_aggregate(AggregateFunction::Sum, negative, DataType::Float64);
        }
    }
}

#[test]
fn distances_of_ints() {
    for (left, right) in [("size", Expr::int(500)), ("small", Expr::int(3)), ("status", column("size"))] {
        let arguments = vec![binary(BinaryOp::Minus, column(left), right)];
        let distance = Expr::Call { function: "abs".to_owned(), arguments };
        check_aggregate(AggregateFunction::Sum, distance.clone(), DataType::Int64);
        check_aggregate(AggregateFunction::Max, distance, DataType::Int64);
    }
}

#[test]
fn several_aggregates_of_few_and_of_many_groups() {
    use AggregateFunction::*;
    let of = |function, name: &str| aggregate(function, column(name), DataType::Int64);
    let filtered = |function, name: &str| {
        let mut one = of(function, name);
        one.filter = Some(binary(BinaryOp::Lt, column("small"), Expr::int(3)));
        one
    };
    let aggregates = || {
        let mut rows = count();
        rows.weighted = false;
        vec![
            count(),
            rows,
            of(Sum, "small"),
            of(Sum, "size"),
            of(Max, "size"),
            of(Min, "size"),
            of(Max, "small"),
            aggregate(Sum, column("latency"), DataType::Float64),
            aggregate(Sum, cast(column("size"), DataType::Float64), DataType::Float64),
            filtered(Sum, "size"),
            filtered(Min, "size"),
        ]
    };
    let key = |name: &str| (column(name), column_type(name).arrow());
    let few = Some(binary(BinaryOp::Gt, column("small"), Expr::int(12)));
    // Of the last there are so many that three hundred pairs of codes are numbers.
    for (keys, rows) in [(&["service"][..], 300), (&["small", "service"], 2_500)] {
        let part = table(0, rows);
        for (weight, filter) in [(WeightKind::Int, None), (WeightKind::One, few.clone())] {
            let keys = keys.iter().map(|name| key(name)).collect();
            let plan = Plan { weight, ..plan(filter, keys, aggregates()) };
            let expect = reference(&part, &plan);
            for encoding in [Encoding::Plain, Encoding::Tight, Encoding::Sealed] {
                let outcome = scan_all(vec![run(&part, encoding)], &plan).unwrap();
                assert_eq!(answer(&outcome, &plan), expect, "{plan} as {encoding:?}");
            }
        }
    }
}

fn column_type(name: &str) -> ColumnType {
    table(0, 1).into_iter().find(|(known, _, _)| known == name).map(|(_, of, _)| of).unwrap()
}

#[test]
fn time_ranges_cut_runs() {
    let rows: Vec<i64> = [0, 60, 170, 171, 300].map(|row| START + row * 7 * SECOND).to_vec();
    for min in &rows {
        for max in rows.iter().chain([&i64::MAX]) {
            let plan = plan(None, vec![(column("ok"), DataType::Boolean)], vec![count()]);
            check(&Plan { time_range: TimeRange { min: *min, max: *max }, ..plan });
        }
    }
}

#[test]
fn a_smaller_type_is_cast_up() {
    use ColumnType::*;
    let cases = [
        ("ok", vec![Int, Float, String, Strings]),
        ("small", vec![Float, String, Strings]),
        ("latency", vec![String, Strings]),
        ("service", vec![Strings]),
        ("region", vec![Strings]),
        ("gone", vec![Float, String]),
    ];
    let parts = [table(0, 200), table(200, 300)];
    for (name, types) in cases {
        for to in types {
            let mut plan = plan(None, vec![(column(name), to.arrow())], vec![count()]);
            plan.columns.iter_mut().filter(|known| known.0 == name).for_each(|known| known.1 = to);
            let mut cast_table = together(&parts);
            for (known, column_type, array) in cast_table.iter_mut().filter(|known| known.0 == name) {
                (*column_type, *array) = (to, crate::cast::cast_column(array, to).unwrap());
                assert_eq!(array.data_type(), &to.arrow(), "{known}");
            }
            let expect = reference(&cast_table, &plan);
            for encoding in [
                Encoding::Plain,
                Encoding::Tight,
                Encoding::Sealed,
                Encoding::Preferred(Preference::Dictionary),
            ] {
                let runs = parts.iter().map(|part| run(part, encoding)).collect();
                let found = answer(&scan_all(runs, &plan).unwrap(), &plan);
                assert_eq!(found, expect, "{name} to {to:?} from {encoding:?}");
            }
        }
    }
}

#[test]
fn a_missing_column_reads_as_null() {
    let without = |name: &str, mut run: TestRun| {
        run.columns.retain(|column| column.0 != name);
        run
    };
    for (name, column_type, _) in table(0, 1).into_iter().skip(1) {
        let plan = plan(None, vec![(column(&name), column_type.arrow())], vec![count()]);
        let plan = Plan { weight: WeightKind::Int, ..plan };
        let parts = [table(0, 200), table(200, 300)];
        let mut nulls = parts[0].clone();
        let known = nulls.iter_mut().find(|known| known.0 == name).unwrap();
        known.2 = arrow::array::new_null_array(&column_type.arrow(), 200);
        let expect = reference(&together(&[nulls, parts[1].clone()]), &plan);
        for encoding in [Encoding::Plain, Encoding::Tight, Encoding::Sealed] {
            let runs = vec![without(&name, run(&parts[0], encoding)), run(&parts[1], encoding)];
            assert_eq!(answer(&scan_all(runs, &plan).unwrap(), &plan), expect, "{name} from {encoding:?}");
        }
    }
}

#[test]
fn list_items_keep_their_field() {
    let data_type = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    assert_eq!(ColumnType::Strings.arrow(), data_type);
    assert!(table(0, 9)[10].2.data_type() == &data_type);
}
