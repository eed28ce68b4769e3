//! Comparisons of floats that are computed, a stretch of rows at a time.
//!
//! What comes out of formulas is compared in the order in which DataFusion compares: the total order of floats, but with
//! one zero.

use arrow::buffer::{BooleanBuffer, NullBuffer};
use gannet_query::{BinaryOp, Expr};

use super::Stop;
use super::columns::Run;
use super::cuts::float_key;
use super::float_formulas::{Computed, Formula, formula};
use super::prepare::ColumnSpec;
use super::selection::{ROWS_PER_STRETCH, Rows, Selection};
use crate::vectors::{pack_words, vectorized};

/// A comparison of two formulas, of which one has a column.
#[derive(Debug)]
pub(super) struct FloatComparison {
    order: Order,
    left: Formula,
    right: Formula,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Is,
    IsNot,
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// The comparison, when a conjunct is one.
pub(super) fn float_comparison(expr: &Expr, specs: &[ColumnSpec]) -> Option<FloatComparison> {
    let Expr::Binary { op, left, right } = expr else { return None };
    let (left, right) = (formula(left, specs)?, formula(right, specs)?);
    if left.can_fail() || right.can_fail() {
        return None;
    }
    let (op, left, right) = match (left.has_column(), right.has_column()) {
        (false, false) => return None,
        (false, true) => (op.swapped()?, right, left),
        (true, _) => (*op, left, right),
    };
    let order = match op {
        BinaryOp::Eq => Order::Is,
        BinaryOp::NotEq => Order::IsNot,
        BinaryOp::Lt => Order::Below,
        BinaryOp::LtEq => Order::AtMost,
        BinaryOp::Gt => Order::Above,
        BinaryOp::GtEq => Order::AtLeast,
        _ => return None,
    };
    Some(FloatComparison { order, left, right })
}

/// An int that is ordered as the float is, with one zero.
#[inline(always)]
fn key(float: f64) -> i64 {
    float_key(float + 0.0)
}

impl Order {
    /// One bit for each float: whether it is so ordered to another one.
    fn bits(self, floats: &[f64], other: f64) -> Vec<u64> {
        let other = key(other);
        match self {
            Order::Is => pack_words(floats, move |float| key(float) == other),
            Order::IsNot => pack_words(floats, move |float| key(float) != other),
            Order::Below => pack_words(floats, move |float| key(float) < other),
            Order::AtMost => pack_words(floats, move |float| key(float) <= other),
            Order::Above => pack_words(floats, move |float| key(float) > other),
            Order::AtLeast => pack_words(floats, move |float| key(float) >= other),
        }
    }

    /// 1 for each pair that is so ordered.
    #[inline(always)]
    fn flags(self, left: &[f64], right: &[f64], out: &mut [u8]) {
        let all = out.iter_mut().zip(left.iter().zip(right));
        match self {
            Order::Is => all.for_each(|(out, (left, right))| *out = u8::from(key(*left) == key(*right))),
            Order::IsNot => all.for_each(|(out, (left, right))| *out = u8::from(key(*left) != key(*right))),
            Order::Below => all.for_each(|(out, (left, right))| *out = u8::from(key(*left) < key(*right))),
            Order::AtMost => all.for_each(|(out, (left, right))| *out = u8::from(key(*left) <= key(*right))),
            Order::Above => all.for_each(|(out, (left, right))| *out = u8::from(key(*left) > key(*right))),
            Order::AtLeast => all.for_each(|(out, (left, right))| *out = u8::from(key(*left) >= key(*right))),
        }
    }
}

impl FloatComparison {
    /// Keeps the rows that pass.
    pub(super) fn narrow(&self, run: &Run<'_>, selection: Selection) -> Result<Selection, Stop> {
        if selection.len() * 2 < run.row_count {
            let bits = selection.with_rows(|rows| self.bits(run, rows))?;
            return Ok(selection.keep(&bits));
        }
        let bits = self.bits(run, Rows::all(run.row_count))?;
        Ok(selection.narrow(|| bits.clone(), |row| bits.value(row)))
    }

    /// One bit for each of some rows: set where it passes.
    fn bits(&self, run: &Run<'_>, rows: Rows<'_>) -> Result<BooleanBuffer, Stop> {
        let (mut left, mut right) = (Computed::of(run, &self.left)?, Computed::of(run, &self.right)?);
        // Stretches are whole words, but for the last one.
        let mut words: Vec<u64> = Vec::with_capacity(rows.len().div_ceil(64));
        let (mut ints, mut lefts, mut rights) = (Vec::new(), Vec::new(), Vec::new());
        let mut flags = [0_u8; ROWS_PER_STRETCH];
        for rows in rows.stretches(ROWS_PER_STRETCH) {
            run.look()?;
            let left = left.read(rows, &mut ints, &mut lefts);
            if let Computed::Literal(other) = right {
                words.extend(self.order.bits(left, other));
                continue;
            }
            let mut ints = Vec::new();
            let right = right.read(rows, &mut ints, &mut rights);
            let (order, flags) = (self.order, &mut flags[..rows.len()]);
            let all = &mut flags[..];
            vectorized(
                #[inline(always)]
                move || order.flags(left, right, all),
            );
            words.extend(pack_words(flags, |flag| flag != 0));
        }
        let words: Vec<u64> = words.into_iter().map(u64::to_le).collect();
        let bits = BooleanBuffer::new(words.into(), 0, rows.len());
        let nulls = NullBuffer::union(left.nulls(rows).as_ref(), right.nulls(rows).as_ref());
        Ok(match nulls {
            Some(nulls) => &bits & nulls.inner(),
            None => bits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_ordered_as_floats_are_with_one_zero() {
        let floats = [
            f64::NEG_INFINITY,
            -1e300,
            -2.5,
            -0.0,
            0.0,
            1e-300,
            2.5,
            f64::MAX,
            f64::INFINITY,
            f64::NAN,
            -f64::NAN,
        ];
        for left in floats {
            for right in floats {
                assert_eq!(
                    key(left).cmp(&key(right)),
                    (left + 0.0).total_cmp(&(right + 0.0)),
                    "{left} {right}"
                );
            }
        }
        assert_eq!(key(-0.0), key(0.0));
    }
}
