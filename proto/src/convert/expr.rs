//! Expressions as flat lists of nodes: children come before their parents, the last node is the root.
//!
//! Both directions are loops, so an expression as deep as a user's SQL needs no stack here. Reading takes each node as
//! a child exactly once: a list that shared nodes could stand for an expression of exponential size.

use arrow::array::{Array, ArrayRef};
use gannet_query::{BinaryOp, Expr};

use super::{ConvertError, entry, position};
use crate::batches::{decode_array, decode_type, encode_array, encode_type};
use crate::wire;

/// Nodes of one expression that is read.
pub const EXPR_NODES_MAX: usize = 100_000;

/// Depth of an expression that is read; evaluating and dropping one recurses.
pub const EXPR_DEPTH_MAX: usize = 1_000;

mod kind {
    pub(super) const COLUMN: u32 = 0;
    pub(super) const LITERAL: u32 = 1;
    pub(super) const AND: u32 = 2;
    pub(super) const OR: u32 = 3;
    pub(super) const NOT: u32 = 4;
    pub(super) const NEGATIVE: u32 = 5;
    pub(super) const IS_NULL: u32 = 6;
    pub(super) const IS_NOT_NULL: u32 = 7;
    pub(super) const IS_BOOL: u32 = 8;
    pub(super) const BINARY: u32 = 9;
    pub(super) const IN_LIST: u32 = 10;
    pub(super) const LIKE: u32 = 11;
    pub(super) const CASE: u32 = 12;
    pub(super) const CAST: u32 = 13;
    pub(super) const CALL: u32 = 14;
}

impl From<&Expr> for wire::Expr {
    fn from(root: &Expr) -> Self {
        enum Step<'a> {
            Enter(&'a Expr),
            Leave(&'a Expr, usize),
        }
        let mut nodes: Vec<wire::ExprNode> = Vec::new();
        // Indices of finished nodes whose parent is not finished yet.
        let mut finished: Vec<u32> = Vec::new();
        let mut open = vec![Step::Enter(root)];
        while let Some(step) = open.pop() {
            match step {
                Step::Enter(expr) => {
                    let children = expr.children();
                    open.push(Step::Leave(expr, children.len()));
                    open.extend(children.into_iter().rev().map(Step::Enter));
                }
                Step::Leave(expr, child_count) => {
                    let children = finished.split_off(finished.len() - child_count);
                    finished.push(nodes.len() as u32);
                    nodes.push(wire::ExprNode { children, ..node(expr) });
                }
            }
        }
        wire::Expr { nodes }
    }
}

/// A node without its children.
fn node(expr: &Expr) -> wire::ExprNode {
    let empty = wire::ExprNode::default();
    let simple = |kind| wire::ExprNode { kind, ..Default::default() };
    match expr {
        Expr::Column(name) => wire::ExprNode { kind: kind::COLUMN, name: name.clone(), ..empty },
        Expr::Literal(array) => wire::ExprNode { kind: kind::LITERAL, arrow: array_bytes(array), ..empty },
        Expr::And(_) => simple(kind::AND),
        Expr::Or(_) => simple(kind::OR),
        Expr::Not(_) => simple(kind::NOT),
        Expr::Negative(_) => simple(kind::NEGATIVE),
        Expr::IsNull(_) => simple(kind::IS_NULL),
        Expr::IsNotNull(_) => simple(kind::IS_NOT_NULL),
        Expr::IsBool { value, negated, .. } => {
            wire::ExprNode { kind: kind::IS_BOOL, flag: *value, negated: *negated, ..empty }
        }
        Expr::Binary { op, .. } => {
            wire::ExprNode { kind: kind::BINARY, op: position(&BinaryOp::ALL, op), ..empty }
        }
        Expr::InList { list, negated, .. } => {
            wire::ExprNode { kind: kind::IN_LIST, arrow: array_bytes(list), negated: *negated, ..empty }
        }
        Expr::Like { negated, case_insensitive, escape, .. } => wire::ExprNode {
            kind: kind::LIKE,
            negated: *negated,
            flag: *case_insensitive,
            escape: escape.map(String::from).unwrap_or_default(),
            ..empty
        },
        Expr::Case { operand, otherwise, .. } => {
            wire::ExprNode { kind: kind::CASE, flag: operand.is_some(), flag2: otherwise.is_some(), ..empty }
        }
        Expr::Cast { to, lenient, .. } => {
            wire::ExprNode { kind: kind::CAST, arrow: encode_type(to), flag: *lenient, ..empty }
        }
        Expr::Call { function, .. } => wire::ExprNode { kind: kind::CALL, name: function.clone(), ..empty },
    }
}

/// The literals of a node. Arrow writes every type that literals have; should one fail, no bytes are sent and whoever
/// reads the node refuses it.
fn array_bytes(array: &ArrayRef) -> bytes::Bytes {
    encode_array(array).unwrap_or_default()
}

impl TryFrom<wire::Expr> for Expr {
    type Error = ConvertError;

    fn try_from(message: wire::Expr) -> Result<Self, ConvertError> {
        let count = message.nodes.len();
        if count > EXPR_NODES_MAX {
            return Err(ConvertError::Limit { what: "nodes of an expression", limit: EXPR_NODES_MAX as u64 });
        }
        let mut built: Vec<Option<(Expr, usize)>> = Vec::with_capacity(count);
        for (index, node) in message.nodes.into_iter().enumerate() {
            let refused = |text: String| ConvertError::Expression { node: index, text };
            let mut children = Vec::with_capacity(node.children.len().min(index));
            let mut depth = 1;
            for child in &node.children {
                let taken = built.get_mut(*child as usize).and_then(Option::take);
                let (expr, child_depth) = taken.ok_or_else(|| {
                    refused(format!("child {child} is not before it, or has a parent already"))
                })?;
                depth = depth.max(child_depth + 1);
                children.push(expr);
            }
            if depth > EXPR_DEPTH_MAX {
                return Err(ConvertError::Limit {
                    what: "levels of an expression",
                    limit: EXPR_DEPTH_MAX as u64,
                });
            }
            let expr = build(node, children).map_err(|error| match error {
                BuildError::Shape(text) => refused(text),
                BuildError::Convert(error) => error,
            })?;
            built.push(Some((expr, depth)));
        }
        let root = built.pop().flatten().ok_or(ConvertError::Missing("expression"))?;
        if let Some(node) = built.iter().position(Option::is_some) {
            return Err(ConvertError::Expression { node, text: "it has no parent".to_owned() });
        }
        Ok(root.0)
    }
}

enum BuildError {
    Shape(String),
    Convert(ConvertError),
}

impl From<ConvertError> for BuildError {
    fn from(error: ConvertError) -> Self {
        BuildError::Convert(error)
    }
}

/// Exactly so many children.
fn exactly<const N: usize>(children: Vec<Expr>) -> Result<[Box<Expr>; N], BuildError> {
    let count = children.len();
    let boxed: Vec<Box<Expr>> = children.into_iter().map(Box::new).collect();
    boxed.try_into().map_err(|_| BuildError::Shape(format!("it has {count} children, not {N}")))
}

fn build(node: wire::ExprNode, children: Vec<Expr>) -> Result<Expr, BuildError> {
    let negated = node.negated;
    Ok(match node.kind {
        kind::COLUMN => exactly::<0>(children).map(|_| Expr::Column(node.name))?,
        kind::LITERAL => {
            let [] = exactly(children)?;
            let array = decode_array(&node.arrow)?;
            if array.len() != 1 {
                return Err(BuildError::Shape(format!("literal of {} values, not 1", array.len())));
            }
            Expr::Literal(array)
        }
        kind::AND => Expr::And(children),
        kind::OR => Expr::Or(children),
        kind::NOT => exactly(children).map(|[e]| Expr::Not(e))?,
        kind::NEGATIVE => exactly(children).map(|[e]| Expr::Negative(e))?,
        kind::IS_NULL => exactly(children).map(|[e]| Expr::IsNull(e))?,
        kind::IS_NOT_NULL => exactly(children).map(|[e]| Expr::IsNotNull(e))?,
        kind::IS_BOOL => {
            let [operand] = exactly(children)?;
            Expr::IsBool { operand, value: node.flag, negated }
        }
        kind::BINARY => {
            let [left, right] = exactly(children)?;
            Expr::Binary { op: entry("operator", &BinaryOp::ALL, node.op)?, left, right }
        }
        kind::IN_LIST => {
            let [operand] = exactly(children)?;
            Expr::InList { operand, list: decode_array(&node.arrow)?, negated }
        }
        kind::LIKE => {
            let [operand, pattern] = exactly(children)?;
            let mut characters = node.escape.chars();
            let escape = characters.next();
            if characters.next().is_some() {
                return Err(BuildError::Shape("its escape is more than one character".to_owned()));
            }
            Expr::Like { operand, pattern, negated, case_insensitive: node.flag, escape }
        }
        kind::CASE => case(&node, children)?,
        kind::CAST => {
            let [operand] = exactly(children)?;
            Expr::Cast { operand, to: decode_type(&node.arrow)?, lenient: node.flag }
        }
        kind::CALL => Expr::Call { function: node.name, arguments: children },
        kind => {
            return Err(ConvertError::Number { what: "kind of an expression", value: u64::from(kind) }.into());
        }
    })
}

fn case(node: &wire::ExprNode, children: Vec<Expr>) -> Result<Expr, BuildError> {
    let count = children.len();
    let ends = usize::from(node.flag) + usize::from(node.flag2);
    if count < ends + 2 || !(count - ends).is_multiple_of(2) {
        return Err(BuildError::Shape(format!("CASE has {count} children")));
    }
    let mut children = children.into_iter();
    let operand = if node.flag { children.next().map(Box::new) } else { None };
    let otherwise = if node.flag2 { children.next_back().map(Box::new) } else { None };
    let mut branches = Vec::with_capacity(children.len() / 2);
    while let (Some(when), Some(then)) = (children.next(), children.next()) {
        branches.push((when, then));
    }
    Ok(Expr::Case { operand, branches, otherwise })
}

#[cfg(test)]
mod tests;
