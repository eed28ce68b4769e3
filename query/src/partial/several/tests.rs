//! What several children come to is what one would say that has all their rows, or it says that it may not be.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;

use super::*;
use crate::plan::Key;
use crate::{Body, TimeRange};

/// A key and a value.
type Row = (i64, Option<i64>);

const MEMORY: u64 = 1 << 30;

fn plan() -> Plan {
    let of = |function, data_type: Option<DataType>| Aggregate {
        function,
        argument: data_type.map(|data_type| (Expr::column("x"), data_type)),
        filter: None,
        weighted: false,
    };
    Plan {
        table: "t".into(),
        columns: vec![],
        time_range: TimeRange::ALL,
        filter: None,
        weight: WeightKind::One,
        output: Output::Groups {
            keys: vec![Key { expr: Expr::column("k"), data_type: DataType::Int64 }],
            aggregates: vec![
                of(AggregateFunction::Count, None),
                of(AggregateFunction::Sum, Some(DataType::Int64)),
                of(AggregateFunction::Max, Some(DataType::Int64)),
                of(AggregateFunction::Min, Some(DataType::Int64)),
                of(AggregateFunction::Distinct, Some(DataType::Int64)),
            ],
        },
    }
}

const VALUES: [(usize, Finish); 6] = [
    (0, Finish::Count),
    (1, Finish::Sum),
    (1, Finish::Count),
    (2, Finish::Value),
    (3, Finish::Value),
    (4, Finish::DistinctCount),
];

/// The groups of some rows.
fn body(rows: &[Row]) -> Body {
    let plan = plan();
    let Output::Groups { aggregates, .. } = &plan.output else { panic!("groups") };
    let mut places: BTreeMap<i64, u32> = BTreeMap::new();
    let groups: Vec<u32> = rows
        .iter()
        .map(|(key, _)| {
            let next = places.len() as u32;
            *places.entry(*key).or_insert(next)
        })
        .collect();
    let mut keys = vec![0; places.len()];
    places.iter().for_each(|(key, place)| keys[*place as usize] = *key);
    let array: Int64Array = rows.iter().map(|(_, value)| *value).collect();
    let states = aggregates.iter().map(|aggregate| {
        let mut states = States::new(aggregate, WeightKind::One).unwrap();
        states.resize(keys.len());
        let values = match aggregate.argument {
            None => Values::None,
            Some(_) => Values::Int(array.values()),
        };
        let validity = array.nulls().filter(|_| aggregate.argument.is_some());
        states.update(&groups, &Input { values, validity, weights: Weights::One, times: &[] }).unwrap();
        states.settle();
        states
    });
    let states = states.collect();
    let group_count = keys.len();
    Body::Groups(Groups { keys: vec![Arc::new(Int64Array::from(keys)) as ArrayRef], states, group_count })
}

/// Key and finished aggregates of each group.
fn shown(body: &Body) -> BTreeMap<i64, Vec<Option<i64>>> {
    let Body::Groups(groups) = body else { panic!("groups") };
    let keys = groups.keys[0].as_primitive::<Int64Type>();
    let column = |(state, finish): &(usize, Finish)| groups.states[*state].finish(finish, &DataType::Int64);
    let columns: Vec<ArrayRef> = VALUES.iter().map(|one| column(one).unwrap()).collect();
    let row = |row: usize| {
        let value = |column: &ArrayRef| {
            let column = column.as_primitive::<Int64Type>();
            column.is_valid(row).then(|| column.value(row))
        };
        (keys.value(row), columns.iter().map(value).collect())
    };
    (0..groups.group_count).map(row).collect()
}

/// What children of these rows come to below parents of parents, when the first groups of an order are wanted.
fn through(tree: &[Vec<Vec<Row>>], top: &Top, kept_min: u64, groups_max: Option<u64>) -> Sum {
    let plan = plan();
    let cutting = top.for_several(&plan, kept_min);
    let mut wanted = Wanted { groups_max, ..Wanted::default() };
    match &cutting {
        Cutting::Nothing => {}
        Cutting::Keys(keys) => wanted.top = Some(keys.clone()),
        Cutting::Any(limit) => wanted.groups_max = Some(*limit),
        Cutting::Loose(loose) => wanted.loose = Some(loose.clone()),
    }
    let mut root = Several::new(&plan, cutting.clone(), groups_max, MEMORY).unwrap();
    for leaves in tree {
        let mut between = Several::new(&plan, cutting.clone(), wanted.groups_max, MEMORY).unwrap();
        for rows in leaves {
            let (body, left_out) = cut_for_asker(body(rows), &plan, &wanted).unwrap();
            between.push(vec![body], left_out).unwrap();
        }
        let (body, left_out) = between.finish_for_parent().unwrap();
        root.push(vec![body], left_out).unwrap();
    }
    root.finish(Some(top)).unwrap()
}

/// The wanted groups of all rows.
fn exactly(tree: &[Vec<Vec<Row>>], top: &Top) -> (BTreeMap<i64, Vec<Option<i64>>>, Groups) {
    let rows: Vec<Row> = tree.iter().flatten().flatten().copied().collect();
    let all = body(&rows);
    let Body::Groups(mut groups) = all.clone() else { panic!("groups") };
    groups.cut(&plan(), top).unwrap();
    (shown(&all), groups)
}

/// The values that the order is by, of the first groups.
fn ordered(groups: &Groups, top: &Top) -> Vec<Vec<String>> {
    if top.terms.is_empty() {
        return vec![];
    }
    let plan = plan();
    let columns: Vec<_> = top.terms.iter().map(|term| groups.column(&plan, term).unwrap()).collect();
    let limit = usize::try_from(top.limit).unwrap();
    let order = arrow::compute::lexsort_to_indices(&columns, Some(limit)).unwrap();
    let text = |column: &arrow::compute::SortColumn, row: &u32| {
        arrow::util::display::array_value_to_string(&column.values, *row as usize).unwrap()
    };
    order.values().iter().map(|row| columns.iter().map(|column| text(column, row)).collect()).collect()
}

fn tree() -> impl Strategy<Value = Vec<Vec<Vec<Row>>>> {
    let value = proptest::option::weighted(0.9, prop_oneof![-5i64..6, 0i64..1000]);
    // Most rows are of few keys, as most events are.
    let key = prop_oneof![3 => 0i64..4, 2 => 0i64..12, 1 => 0i64..60];
    let leaf = proptest::collection::vec((key, value), 0..60);
    proptest::collection::vec(proptest::collection::vec(leaf, 1..4), 1..4)
}

fn top() -> impl Strategy<Value = Top> {
    let value = prop_oneof![
        1 => Just(TopValue::Key(0)),
        6 => (0..VALUES.len()).prop_map(|at| TopValue::State(VALUES[at].0, VALUES[at].1.clone())),
    ];
    let term = (value, any::<bool>(), any::<bool>()).prop_map(|(value, descending, nulls_first)| TopTerm {
        value,
        descending,
        nulls_first,
    });
    (proptest::collection::vec(term, 0..3), any::<bool>(), 0u64..8).prop_map(|(terms, complete, limit)| Top {
        complete: complete || terms.is_empty(),
        terms,
        limit,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_is_exact_or_says_that_it_may_not_be(tree in tree(), top in top(), kept_min in 1u64..20) {
        let (all, expect) = exactly(&tree, &top);
        let sum = through(&tree, &top, kept_min, None);
        let Body::Groups(groups) = &sum.body else { panic!("groups") };
        if sum.is_approximate {
            return Ok(());
        }
        prop_assert_eq!(sum.left_out, LeftOut::default());
        prop_assert!(groups.group_count >= expect.group_count.min(top.limit as usize));
        for (key, values) in shown(&sum.body) {
            // More than the wanted groups may be there, but who reads them takes the first.
            if groups.group_count <= top.limit as usize {
                prop_assert_eq!(&values, &all[&key], "group {}", key);
            }
        }
        prop_assert_eq!(ordered(groups, &top), ordered(&expect, &top));
        let first: Vec<i64> = {
            let mut first = groups.clone();
            first.cut(&plan(), &Top { complete: true, ..top.clone() }).unwrap();
            first.keys[0].as_primitive::<Int64Type>().values().to_vec()
        };
        let shown = shown(&sum.body);
        for key in first {
            prop_assert_eq!(&shown[&key], &all[&key], "group {}", key);
        }
    }

    #[test]
    fn groups_that_are_too_many_are_cut_alike_and_what_is_left_is_exact(tree in tree(), groups_max in 1u64..20) {
        let plan = plan();
        let wanted = Wanted { groups_max: Some(groups_max), ..Wanted::default() };
        let mut root = Several::new(&plan, Cutting::Nothing, Some(groups_max), MEMORY).unwrap();
        for leaves in &tree {
            let mut between = Several::new(&plan, Cutting::Nothing, Some(groups_max), MEMORY).unwrap();
            for rows in leaves {
                let (body, left_out) = cut_for_asker(body(rows), &plan, &wanted).unwrap();
                between.push(vec![body], left_out).unwrap();
            }
            let (body, left_out) = between.finish_for_parent().unwrap();
            root.push(vec![body], left_out).unwrap();
        }
        let sum = root.finish(None).unwrap();
        let all = exactly(&tree, &Top { terms: vec![], complete: true, limit: u64::MAX }).0;
        let shown = shown(&sum.body);
        prop_assert_eq!(shown.len() as u64, groups_max.min(all.len() as u64));
        prop_assert_eq!(sum.left_out.hash.is_some(), shown.len() < all.len());
        prop_assert!(!sum.is_approximate);
        for (key, values) in shown {
            prop_assert_eq!(&values, &all[&key]);
        }
    }
}

fn count_desc(limit: u64) -> Top {
    let value = TopValue::State(0, Finish::Count);
    Top { terms: vec![TopTerm { value, descending: true, nulls_first: true }], complete: true, limit }
}

/// A leaf with so many rows of each key.
fn leaf(counts: &[(i64, usize)]) -> Vec<Row> {
    counts.iter().flat_map(|(key, count)| std::iter::repeat_n((*key, Some(1)), *count)).collect()
}

fn check(leaves: &[&[(i64, usize)]], limit: u64, kept: u64, expect: &[(i64, i64)], is_approximate: bool) {
    for tree in [
        vec![leaves.iter().map(|counts| leaf(counts)).collect()],
        leaves.iter().map(|counts| vec![leaf(counts)]).collect::<Vec<_>>(),
    ] {
        let plan = plan();
        let loose = Top { limit: kept, ..count_desc(limit) };
        let cutting = Cutting::Loose(loose.clone());
        let wanted = Wanted { loose: Some(loose), ..Wanted::default() };
        let mut root = Several::new(&plan, cutting.clone(), None, MEMORY).unwrap();
        for leaves in tree {
            let mut between = Several::new(&plan, cutting.clone(), None, MEMORY).unwrap();
            for rows in leaves {
                let (body, left_out) = cut_for_asker(body(&rows), &plan, &wanted).unwrap();
                between.push(vec![body], left_out).unwrap();
            }
            let (body, left_out) = between.finish_for_parent().unwrap();
            root.push(vec![body], left_out).unwrap();
        }
        let sum = root.finish(Some(&count_desc(limit))).unwrap();
        let found: Vec<(i64, i64)> =
            shown(&sum.body).iter().map(|(key, row)| (*key, row[0].unwrap())).collect();
        assert_eq!((found.as_slice(), sum.is_approximate), (expect, is_approximate));
    }
}

#[test]
fn what_is_known_to_be_right_is_not_called_approximate() {
    // Nobody left anything out.
    check(&[&[(1, 5), (2, 3)], &[(1, 5)]], 1, 2, &[(1, 10)], false);
    // Both left 3 out, which can have 2 at most; 1 has 10.
    check(&[&[(1, 5), (2, 3), (3, 1)], &[(1, 5), (2, 3), (3, 1)]], 1, 2, &[(1, 10)], false);
    check(&[&[(1, 5), (2, 3), (3, 1)], &[(1, 5), (2, 3), (3, 1)]], 2, 2, &[(1, 10), (2, 6)], false);
    // 2 lacks the second leaf, where it can have 1 more.
    check(&[&[(1, 5), (2, 3), (3, 1)], &[(1, 5), (3, 2), (2, 1)]], 1, 2, &[(1, 10)], false);
    check(&[&[(1, 5), (2, 3), (3, 1)], &[(1, 5), (3, 2), (2, 1)]], 2, 2, &[(1, 10), (2, 3)], true);
    // Nobody's first group is first of all.
    check(&[&[(1, 3), (3, 2)], &[(2, 3), (3, 2)]], 1, 1, &[(1, 3)], true);
}

#[test]
fn each_kind_of_order_has_its_way() {
    let way = |terms: Vec<(TopValue, bool)>| {
        let term = |(value, descending)| TopTerm { value, descending, nulls_first: true };
        let top = Top { terms: terms.into_iter().map(term).collect(), complete: true, limit: 10 };
        match top.for_several(&plan(), 20) {
            Cutting::Nothing => "nothing".to_owned(),
            Cutting::Keys(top) => format!("keys {} of {} terms", top.limit, top.terms.len()),
            Cutting::Any(limit) => format!("any {limit}"),
            Cutting::Loose(top) => format!("loose {} of {} terms", top.limit, top.terms.len()),
        }
    };
    let count = || TopValue::State(0, Finish::Count);
    assert_eq!(way(vec![]), "any 10");
    assert_eq!(way(vec![(TopValue::Key(0), false)]), "keys 10 of 1 terms");
    assert_eq!(way(vec![(TopValue::Key(0), false), (count(), true)]), "keys 10 of 1 terms");
    assert_eq!(way(vec![(count(), true), (TopValue::Key(0), false)]), "loose 50 of 1 terms");
    assert_eq!(way(vec![(TopValue::State(1, Finish::Average), true)]), "nothing");
}
