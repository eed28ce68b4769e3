//! Expressions of every kind come back as they went; hostile lists of nodes are refused.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::DataType;
use proptest::prelude::*;

use super::*;

fn boxed(name: &str) -> Box<Expr> {
    Box::new(Expr::column(name))
}

fn leaf() -> impl Strategy<Value = Expr> {
    prop_oneof![
        "[a-zA-Z_.é]{0,8}".prop_map(Expr::Column),
        any::<i64>().prop_map(Expr::int),
        ".{0,12}".prop_map(|text| Expr::text(&text)),
        Just(Expr::Literal(Arc::new(Int64Array::from(vec![None])))),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    leaf().prop_recursive(5, 60, 4, |inner| {
        let one = inner.clone().prop_map(Box::new);
        let many = proptest::collection::vec(inner.clone(), 0..4);
        let pairs = proptest::collection::vec((inner.clone(), inner.clone()), 1..3);
        prop_oneof![
            many.clone().prop_map(Expr::And),
            many.clone().prop_map(Expr::Or),
            one.clone().prop_map(Expr::Not),
            one.clone().prop_map(Expr::Negative),
            one.clone().prop_map(Expr::IsNull),
            one.clone().prop_map(Expr::IsNotNull),
            (one.clone(), any::<bool>(), any::<bool>()).prop_map(|(operand, value, negated)| Expr::IsBool {
                operand,
                value,
                negated
            }),
            (0..BinaryOp::ALL.len(), inner.clone(), inner.clone())
                .prop_map(|(op, left, right)| Expr::binary(BinaryOp::ALL[op].0, left, right)),
            (one.clone(), any::<bool>()).prop_map(|(operand, negated)| Expr::InList {
                operand,
                list: Arc::new(StringArray::from(vec![Some("a"), None])),
                negated
            }),
            (one.clone(), one.clone(), any::<bool>(), any::<bool>(), any::<Option<char>>()).prop_map(
                |(operand, pattern, negated, case_insensitive, escape)| Expr::Like {
                    operand,
                    pattern,
                    negated,
                    case_insensitive,
                    escape
                }
            ),
            (proptest::option::of(one.clone()), pairs, proptest::option::of(one.clone()))
                .prop_map(|(operand, branches, otherwise)| Expr::Case { operand, branches, otherwise }),
            (one, any::<bool>()).prop_map(|(operand, lenient)| Expr::Cast {
                operand,
                to: DataType::Utf8View,
                lenient
            }),
            many.prop_map(|arguments| Expr::Call { function: "concat".to_owned(), arguments }),
        ]
    })
}

proptest! {
    #[test]
    fn expressions_come_back_as_they_went(expr in expr()) {
        let back = Expr::try_from(wire::Expr::from(&expr)).unwrap();
        prop_assert_eq!(format!("{expr:?}"), format!("{back:?}"));
    }

    #[test]
    fn hostile_nodes_are_errors_not_panics(
        expr in expr(),
        node in any::<prop::sample::Index>(),
        kind in 0u32..20,
        child in any::<u8>(),
        bits in any::<[bool; 4]>(),
    ) {
        let mut message = wire::Expr::from(&expr);
        let at = node.index(message.nodes.len());
        let node = &mut message.nodes[at];
        node.kind = kind;
        node.op = u32::from(child);
        if bits[0] { node.children.push(u32::from(child)); }
        if bits[1] { node.children.pop(); }
        if bits[2] { node.flag = !node.flag; }
        if bits[3] { node.flag2 = !node.flag2; }
        let _ = Expr::try_from(message);
    }
}

fn check(change: impl FnOnce(&mut Vec<wire::ExprNode>), expect: &str) {
    let expr = Expr::And(vec![Expr::column("a"), Expr::Not(boxed("b"))]);
    let mut message = wire::Expr::from(&expr);
    change(&mut message.nodes);
    assert_eq!(Expr::try_from(message).unwrap_err().to_string(), expect);
}

#[test]
fn lists_that_are_no_trees_are_refused() {
    let taken = |node, child| {
        format!("expression node {node}: child {child} is not before it, or has a parent already")
    };
    check(|nodes| nodes[3].children = vec![0, 3], &taken(3, 3));
    check(|nodes| nodes[3].children = vec![0, 2, 2], &taken(3, 2));
    check(|nodes| nodes[3].children = vec![0, 1], &taken(3, 1));
    check(|nodes| nodes[3].children = vec![0], "expression node 2: it has no parent");
    check(|nodes| nodes[2].children = vec![], "expression node 2: it has 0 children, not 1");
    check(|nodes| nodes[2].kind = 12, "expression node 2: CASE has 1 children");
    check(|nodes| nodes[2].kind = 15, "kind of an expression has no meaning for the number 15");
    check(|nodes| nodes.clear(), "expression is missing");
    check(|nodes| nodes[0].kind = 1, "cannot read value: not one batch of one column");
    check(
        |nodes| {
            nodes[0].kind = 1;
            nodes[0].arrow = encode_array(&(Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)).unwrap();
        },
        "expression node 0: literal of 2 values, not 1",
    );
    check(
        |nodes| *nodes = vec![wire::ExprNode::default(); EXPR_NODES_MAX + 1],
        "nodes of an expression exceed the limit of 100000",
    );
    check(
        |nodes| {
            *nodes = vec![wire::ExprNode::default()];
            nodes.extend((0..1000).map(|child| wire::ExprNode {
                kind: 4,
                children: vec![child],
                ..Default::default()
            }));
        },
        "levels of an expression exceed the limit of 1000",
    );
}

#[test]
fn deep_expressions_need_no_stack() {
    let mut deep = Expr::column("a");
    for _ in 0..EXPR_DEPTH_MAX - 1 {
        deep = Expr::Not(Box::new(deep));
    }
    let back = Expr::try_from(wire::Expr::from(&deep)).unwrap();
    assert_eq!(back.columns(), ["a"]);
}
