//! Comparisons of a float column with a literal, on the integers of decimals.
//!
//! Dividing by a power of ten keeps the order of integers, so the floats that pass a comparison are those of a range of
//! integers. Its ends are searched for with the very division that decodes, so that not a single value is judged
//! differently.

use std::cmp::Ordering;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use gannet_query::{BinaryOp, ColumnType, Expr};

use super::ints::IntTest;
use super::prepare::ColumnSpec;
use crate::column::power_of_ten;

/// The column, the comparison and the literal, when a conjunct compares one float column with one.
pub(super) fn float_test(expr: &Expr, specs: &[ColumnSpec]) -> Option<(usize, BinaryOp, f64)> {
    let Expr::Binary { op, left, right } = expr else { return None };
    let column = |expr: &Expr| {
        let Expr::Column(name) = expr else { return None };
        specs.iter().position(|spec| &spec.name == name && spec.column_type == ColumnType::Float)
    };
    let (op, column, value) = match (column(left), column(right)) {
        (Some(column), None) => (*op, column, right),
        (None, Some(column)) => (op.swapped()?, column, left),
        _ => return None,
    };
    use BinaryOp::{Eq, Gt, GtEq, Lt, LtEq};
    let Expr::Literal(array) = &**value else { return None };
    let is_one = array.data_type() == &DataType::Float64 && array.len() == 1 && array.is_valid(0);
    let is_order = matches!(op, Eq | Lt | LtEq | Gt | GtEq);
    // There is one zero: -0.0 is compared as 0.0, and no decimal is -0.0.
    (is_one && is_order).then(|| (column, op, array.as_primitive::<Float64Type>().value(0) + 0.0))
}

/// The integers whose decimals pass, in the total order of floats, which is the one that columns are compared in.
pub(super) fn over_decimals(op: BinaryOp, literal: f64, digits: u8) -> Option<IntTest> {
    let power = power_of_ten(digits);
    // The first integer whose float is not below the literal, and the first whose float is above.
    let first = |passes: &dyn Fn(Ordering) -> bool| {
        let (mut low, mut high) = (i128::from(i64::MIN), i128::from(i64::MAX) + 1);
        while low < high {
            let middle = (low + high).div_euclid(2);
            match passes((middle as i64 as f64 / power).total_cmp(&literal)) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        low
    };
    let (from, after) = (first(&Ordering::is_ge), first(&Ordering::is_gt));
    let (min, max) = (i128::from(i64::MIN), i128::from(i64::MAX));
    let (low, high) = match op {
        BinaryOp::Eq => (from, after - 1),
        BinaryOp::Lt => (min, from - 1),
        BinaryOp::LtEq => (min, after - 1),
        BinaryOp::Gt => (after, max),
        BinaryOp::GtEq => (from, max),
        _ => return None,
    };
    match low <= high {
        true => Some(IntTest::Within(i64::try_from(low).ok()?, i64::try_from(high).ok()?)),
        false => Some(IntTest::Within(1, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_integers_says_the_same() {
        use BinaryOp::{Eq, Gt, GtEq, Lt, LtEq};
        let literals = [0.0, -0.0, 0.1, 0.3, 20.5, -7.25, 1e300, -1e300, f64::INFINITY, f64::NAN, 1e-9];
        for digits in [0, 1, 3, 15] {
            for literal in literals {
                for op in [Eq, Lt, LtEq, Gt, GtEq] {
                    let test = over_decimals(op, literal, digits).expect("an order");
                    for int in [-7250, -8, -7, -1, 0, 1, 2, 3, 205, 300, 20_499, 20_500, 20_501, i64::MAX] {
                        let order = (int as f64 / power_of_ten(digits)).total_cmp(&literal);
                        let expect = match op {
                            Eq => order.is_eq(),
                            Lt => order.is_lt(),
                            LtEq => order.is_le(),
                            Gt => order.is_gt(),
                            _ => order.is_ge(),
                        };
                        assert_eq!(test.passes(int), expect, "{int} e-{digits} {} {literal}", op.sign());
                    }
                }
            }
        }
    }
}
