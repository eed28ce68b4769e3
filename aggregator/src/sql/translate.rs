//! DataFusion's expressions, said in the words a leaf understands.
//!
//! What has no translation is `None`, and then the expression stays on the aggregator. Nothing is approximated: a
//! translated expression means exactly what the original means.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr as SqlExpr, Operator};
use gannet_query::{BinaryOp, Expr, TIME_COLUMN, TimeRange};

use super::subqueries::InValues;

/// The expression of a leaf that means the same, if there is one.
pub(super) fn translate(expr: &SqlExpr) -> Option<Expr> {
    Some(match expr {
        SqlExpr::Alias(alias) => translate(&alias.expr)?,
        SqlExpr::Column(column) => Expr::column(&column.name),
        SqlExpr::Literal(value, _) => Expr::literal(literal(value)?),
        SqlExpr::BinaryExpr(binary) => translate_binary(binary)?,
        SqlExpr::Not(operand) => Expr::Not(boxed(operand)?),
        SqlExpr::Negative(operand) => Expr::Negative(boxed(operand)?),
        SqlExpr::IsNull(operand) | SqlExpr::IsUnknown(operand) => Expr::IsNull(boxed(operand)?),
        SqlExpr::IsNotNull(operand) | SqlExpr::IsNotUnknown(operand) => Expr::IsNotNull(boxed(operand)?),
        SqlExpr::IsTrue(operand) => is_bool(operand, true, false)?,
        SqlExpr::IsNotTrue(operand) => is_bool(operand, true, true)?,
        SqlExpr::IsFalse(operand) => is_bool(operand, false, false)?,
        SqlExpr::IsNotFalse(operand) => is_bool(operand, false, true)?,
        SqlExpr::Between(between) => {
            let operand = translate(&between.expr)?;
            let (low, high) = (translate(&between.low)?, translate(&between.high)?);
            if between.negated {
                let below = Expr::binary(BinaryOp::Lt, operand.clone(), low);
                Expr::Or(vec![below, Expr::binary(BinaryOp::Gt, operand, high)])
            } else {
                let above = Expr::binary(BinaryOp::GtEq, operand.clone(), low);
                Expr::And(vec![above, Expr::binary(BinaryOp::LtEq, operand, high)])
            }
        }
        SqlExpr::Like(like) => Expr::Like {
            operand: boxed(&like.expr)?,
            pattern: boxed(&like.pattern)?,
            negated: like.negated,
            case_insensitive: like.case_insensitive,
            escape: like.escape_char,
        },
        SqlExpr::InList(in_list) => translate_in_list(in_list)?,
        SqlExpr::Case(case) => Expr::Case {
            operand: optional(case.expr.as_deref())?,
            branches: case
                .when_then_expr
                .iter()
                .map(|(when, then)| Some((translate(when)?, translate(then)?)))
                .collect::<Option<_>>()?,
            otherwise: optional(case.else_expr.as_deref())?,
        },
        SqlExpr::Cast(cast) => {
            Expr::Cast { operand: boxed(&cast.expr)?, to: cast.field.data_type().clone(), lenient: false }
        }
        SqlExpr::TryCast(cast) => {
            Expr::Cast { operand: boxed(&cast.expr)?, to: cast.field.data_type().clone(), lenient: true }
        }
        SqlExpr::ScalarFunction(call) => match (InValues::of(&call.func), &call.args[..]) {
            (Some(among), [operand]) => Expr::InList {
                operand: boxed(operand)?,
                list: Arc::clone(&among.values),
                negated: among.negated,
            },
            _ => Expr::Call {
                function: call.func.name().to_owned(),
                arguments: call.args.iter().map(translate).collect::<Option<_>>()?,
            },
        },
        _ => return None,
    })
}

fn boxed(expr: &SqlExpr) -> Option<Box<Expr>> {
    translate(expr).map(Box::new)
}

fn optional(expr: Option<&SqlExpr>) -> Option<Option<Box<Expr>>> {
    match expr {
        Some(expr) => boxed(expr).map(Some),
        None => Some(None),
    }
}

fn is_bool(operand: &SqlExpr, value: bool, negated: bool) -> Option<Expr> {
    Some(Expr::IsBool { operand: boxed(operand)?, value, negated })
}

/// A literal in one of the plain layouts: leaves know text as Utf8 only.
fn literal(value: &ScalarValue) -> Option<ArrayRef> {
    match value {
        ScalarValue::Dictionary(_, inner) | ScalarValue::RunEndEncoded(_, _, inner) => literal(inner),
        ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text) => {
            ScalarValue::Utf8(text.clone()).to_array().ok()
        }
        other => other.to_array().ok(),
    }
}

fn translate_in_list(in_list: &datafusion::logical_expr::expr::InList) -> Option<Expr> {
    let operand = translate(&in_list.expr)?;
    let literals: Option<Vec<ArrayRef>> = in_list
        .list
        .iter()
        .map(|item| match item {
            SqlExpr::Literal(value, _) => literal(value),
            _ => None,
        })
        .collect();
    if let Some(literals) = literals {
        let parts: Vec<&dyn Array> = literals.iter().map(|array| array.as_ref()).collect();
        // One list has one type; what coercion left mixed is compared one by one below.
        if let Ok(list) = arrow::compute::concat(&parts) {
            return Some(Expr::InList { operand: Box::new(operand), list, negated: in_list.negated });
        }
    }
    let any = in_list
        .list
        .iter()
        .map(|item| Some(Expr::binary(BinaryOp::Eq, operand.clone(), translate(item)?)))
        .collect::<Option<Vec<_>>>()?;
    Some(if in_list.negated { Expr::Not(Box::new(Expr::Or(any))) } else { Expr::Or(any) })
}

fn translate_binary(binary: &BinaryExpr) -> Option<Expr> {
    if matches!(binary.op, Operator::And | Operator::Or) {
        let mut operands = Vec::new();
        collect_operands(binary, binary.op, &mut operands)?;
        return Some(match binary.op {
            Operator::And => Expr::And(operands),
            _ => one_of(&operands).unwrap_or(Expr::Or(operands)),
        });
    }
    if let Some((negated, case_insensitive)) = like_operator(binary.op) {
        let (operand, pattern) = (boxed(&binary.left)?, boxed(&binary.right)?);
        return Some(Expr::Like { operand, pattern, negated, case_insensitive, escape: None });
    }
    let (op, left, right) = (operator(binary.op)?, translate(&binary.left)?, translate(&binary.right)?);
    Some(is_within(op, &left, &right).unwrap_or_else(|| Expr::binary(op, left, right)))
}

/// `position('x' in text) > 0` asks whether the text contains it, which leaves can tell without putting texts together.
fn is_within(op: BinaryOp, left: &Expr, right: &Expr) -> Option<Expr> {
    let (op, position, literal) = match (left, right) {
        (Expr::Literal(value), position) => (op.swapped()?, position, value),
        (position, Expr::Literal(value)) => (op, position, value),
        _ => return None,
    };
    let Expr::Call { function, arguments } = position else { return None };
    if function != "strpos" {
        return None;
    }
    let is_there = match (op, int(literal)?) {
        (BinaryOp::Gt | BinaryOp::NotEq, 0) | (BinaryOp::GtEq, 1) => true,
        (BinaryOp::Eq | BinaryOp::LtEq, 0) | (BinaryOp::Lt, 1) => false,
        _ => return None,
    };
    let contains = Expr::Call { function: "contains".to_owned(), arguments: arguments.clone() };
    Some(if is_there { contains } else { Expr::Not(Box::new(contains)) })
}

/// The int of a literal, if it is one.
fn int(literal: &ArrayRef) -> Option<i64> {
    match ScalarValue::try_from_array(literal, 0).ok()?.cast_to(&DataType::Int64).ok()? {
        ScalarValue::Int64(value) => value,
        _ => None,
    }
}

/// The operands of a chain of one operator, left to right, without recursion along the left side.
fn collect_operands(binary: &BinaryExpr, op: Operator, operands: &mut Vec<Expr>) -> Option<()> {
    let mut open: Vec<&SqlExpr> = vec![&binary.right, &binary.left];
    while let Some(expr) = open.pop() {
        match expr {
            SqlExpr::BinaryExpr(inner) if inner.op == op => open.extend([&*inner.right, &*inner.left]),
            other => operands.push(translate(other)?),
        }
    }
    Some(())
}

/// `x = 1 OR x = 2 OR …` is a list again: the planner takes short lists apart, and leaves look up lists as a whole.
fn one_of(operands: &[Expr]) -> Option<Expr> {
    let mut column: Option<&str> = None;
    let mut literals: Vec<&dyn Array> = Vec::with_capacity(operands.len());
    for operand in operands {
        let Expr::Binary { op: BinaryOp::Eq, left, right } = operand else { return None };
        let (Expr::Column(name), Expr::Literal(value)) = (&**left, &**right) else { return None };
        if column.is_some_and(|column| column != name) {
            return None;
        }
        column = Some(name);
        literals.push(value.as_ref());
    }
    let list = arrow::compute::concat(&literals).ok()?;
    Some(Expr::InList { operand: Box::new(Expr::column(column?)), list, negated: false })
}

fn like_operator(op: Operator) -> Option<(bool, bool)> {
    match op {
        Operator::LikeMatch => Some((false, false)),
        Operator::ILikeMatch => Some((false, true)),
        Operator::NotLikeMatch => Some((true, false)),
        Operator::NotILikeMatch => Some((true, true)),
        _ => None,
    }
}

fn operator(op: Operator) -> Option<BinaryOp> {
    Some(match op {
        Operator::Eq => BinaryOp::Eq,
        Operator::NotEq => BinaryOp::NotEq,
        Operator::Lt => BinaryOp::Lt,
        Operator::LtEq => BinaryOp::LtEq,
        Operator::Gt => BinaryOp::Gt,
        Operator::GtEq => BinaryOp::GtEq,
        Operator::Plus => BinaryOp::Plus,
        Operator::Minus => BinaryOp::Minus,
        Operator::Multiply => BinaryOp::Multiply,
        Operator::Divide => BinaryOp::Divide,
        Operator::Modulo => BinaryOp::Modulo,
        Operator::IsDistinctFrom => BinaryOp::IsDistinctFrom,
        Operator::IsNotDistinctFrom => BinaryOp::IsNotDistinctFrom,
        Operator::RegexMatch => BinaryOp::RegexMatch,
        Operator::RegexIMatch => BinaryOp::RegexIMatch,
        Operator::RegexNotMatch => BinaryOp::RegexNotMatch,
        Operator::RegexNotIMatch => BinaryOp::RegexNotIMatch,
        Operator::BitwiseAnd => BinaryOp::BitwiseAnd,
        Operator::BitwiseOr => BinaryOp::BitwiseOr,
        Operator::BitwiseXor => BinaryOp::BitwiseXor,
        Operator::BitwiseShiftLeft => BinaryOp::BitwiseShiftLeft,
        Operator::BitwiseShiftRight => BinaryOp::BitwiseShiftRight,
        Operator::StringConcat => BinaryOp::StringConcat,
        _ => return None,
    })
}

/// Splits filters into the time range they ask for and what the range does not say.
pub(super) fn split_time_range(filters: Vec<Expr>) -> (TimeRange, Option<Expr>) {
    let mut range = TimeRange::ALL;
    let mut rest = Vec::new();
    for filter in filters {
        for conjunct in conjuncts(filter) {
            match time_bound(&conjunct) {
                Some((min, max)) => {
                    range.min = range.min.max(min);
                    range.max = range.max.min(max);
                }
                None => rest.push(conjunct),
            }
        }
    }
    let filter = match rest.len() {
        0 => None,
        1 => rest.pop(),
        _ => Some(Expr::And(rest)),
    };
    (range, filter)
}

fn conjuncts(expr: Expr) -> Vec<Expr> {
    match expr {
        Expr::And(all) => all.into_iter().flat_map(conjuncts).collect(),
        other => vec![other],
    }
}

/// The half-open range that a comparison of `time` with a literal says, if it says all of it.
fn time_bound(conjunct: &Expr) -> Option<(i64, i64)> {
    let Expr::Binary { op, left, right } = conjunct else { return None };
    let (op, value) = match (&**left, &**right) {
        (Expr::Column(name), Expr::Literal(value)) if name == TIME_COLUMN => (*op, value),
        (Expr::Literal(value), Expr::Column(name)) if name == TIME_COLUMN => (op.swapped()?, value),
        _ => return None,
    };
    let DataType::Timestamp(TimeUnit::Nanosecond, _) = value.data_type() else { return None };
    if value.is_null(0) {
        return None;
    }
    let integers = arrow::compute::cast(value, &DataType::Int64).ok()?;
    let ns = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(integers.as_ref()).value(0);
    // The last nanosecond there is cannot be an exclusive end: such a comparison stays a filter.
    let after = ns.checked_add(1).filter(|after| *after != i64::MAX)?;
    match op {
        BinaryOp::GtEq => Some((ns, i64::MAX)),
        BinaryOp::Gt => Some((after, i64::MAX)),
        BinaryOp::Lt => Some((i64::MIN, ns)),
        BinaryOp::LtEq => Some((i64::MIN, after)),
        BinaryOp::Eq => Some((ns, after)),
        _ => None,
    }
}
