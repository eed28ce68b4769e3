//! Expressions that compare a number with literals and ask nothing else of it.
//!
//! Between two literals such an expression does not change, so it is evaluated once per interval instead of once per
//! value, however many values there are: `CASE WHEN latency < 1000 THEN …` has as many values as branches.
//!
//! Numbers are known by keys whose order is theirs: ints and times by themselves, floats by their bits in their total
//! order. Whether -0.0 is 0.0, and what NaN is less than, is left to whoever evaluates: both zeros and all that is no
//! number have intervals of their own. A cut is the first key of an interval.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Float64Type};
use gannet_query::{BinaryOp, ColumnType, Expr};
use std::sync::Arc;

use super::columns::int_array;
use super::ints::ints;
use crate::column::{Codes, power_of_ten};

/// With more cuts, looking for the interval costs more than it saves.
const CUTS_MAX: usize = 256;

/// The key of a float.
#[inline(always)]
pub(super) fn float_key(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The float of a key.
pub(super) fn float_of_key(key: i64) -> f64 {
    // The same steps lead back.
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

/// The cuts of a column in an expression, ascending and distinct; `None` when the expression asks for more than where
/// the column's values lie.
pub(super) fn cuts(expr: &Expr, name: &str, column_type: ColumnType) -> Option<Vec<i64>> {
    if !matches!(column_type, ColumnType::Int | ColumnType::Time | ColumnType::Float) {
        return None;
    }
    let mut cuts = Cuts { name, column_type, found: Vec::new() };
    cuts.visit(expr)?;
    if column_type == ColumnType::Float && !cuts.found.is_empty() {
        cuts.found.extend([float_key(f64::NEG_INFINITY), float_key(f64::INFINITY) + 1]);
    }
    cuts.found.sort_unstable();
    cuts.found.dedup();
    (cuts.found.len() <= CUTS_MAX).then_some(cuts.found)
}

struct Cuts<'a> {
    name: &'a str,
    column_type: ColumnType,
    found: Vec<i64>,
}

impl Cuts<'_> {
    fn is_column(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Column(name) if name == self.name)
    }

    /// The keys of literals in the column's own type; NULL among them cuts nothing.
    fn keys(&self, literals: &ArrayRef) -> Option<Vec<i64>> {
        match (self.column_type, literals.data_type()) {
            (ColumnType::Float, DataType::Float64) => {
                let values = literals.as_primitive::<Float64Type>().iter().flatten();
                let both = |value: f64| if value == 0.0 { vec![-0.0, 0.0] } else { vec![value] };
                Some(values.flat_map(both).map(float_key).collect())
            }
            (ColumnType::Float, _) => None,
            (other, _) => Some(ints(literals, other)?.into_iter().flatten().collect()),
        }
    }

    /// Where the value itself begins, and where those behind it do.
    fn around(&mut self, keys: Vec<i64>) {
        self.found.extend(keys.iter().copied());
        self.after(keys);
    }

    fn after(&mut self, keys: Vec<i64>) {
        // Nothing is larger than the largest.
        self.found.extend(keys.iter().filter_map(|key| key.checked_add(1)));
    }

    fn visit(&mut self, expr: &Expr) -> Option<()> {
        match expr {
            Expr::Column(_) => return (!self.is_column(expr)).then_some(()),
            Expr::IsNull(operand) | Expr::IsNotNull(operand) if self.is_column(operand) => return Some(()),
            Expr::Binary { op, left, right } => {
                let (op, value) = match (self.is_column(left), self.is_column(right)) {
                    (true, false) => (*op, right),
                    (false, true) => (op.swapped()?, left),
                    (true, true) => return None,
                    (false, false) => {
                        self.visit(left)?;
                        return self.visit(right);
                    }
                };
                let Expr::Literal(value) = &**value else { return None };
                let keys = self.keys(value)?;
                match op {
                    _ if self.column_type == ColumnType::Float && op.swapped().is_some() => self.around(keys),
                    BinaryOp::Lt | BinaryOp::GtEq => self.found.extend(keys),
                    BinaryOp::LtEq | BinaryOp::Gt => self.after(keys),
                    BinaryOp::Eq
                    | BinaryOp::NotEq
                    | BinaryOp::IsDistinctFrom
                    | BinaryOp::IsNotDistinctFrom => self.around(keys),
                    _ => return None,
                }
                return Some(());
            }
            Expr::InList { operand, list, .. } if self.is_column(operand) => {
                let keys = self.keys(list)?;
                self.around(keys);
                return Some(());
            }
            Expr::Case { operand: Some(operand), branches, otherwise } if self.is_column(operand) => {
                for (when, then) in branches {
                    let Expr::Literal(value) = when else { return None };
                    let keys = self.keys(value)?;
                    self.around(keys);
                    self.visit(then)?;
                }
                return otherwise.as_ref().map_or(Some(()), |otherwise| self.visit(otherwise));
            }
            _ => {}
        }
        expr.children().into_iter().try_for_each(|child| self.visit(child))
    }
}

/// One value of each interval.
pub(super) fn values(cuts: &[i64], column_type: ColumnType) -> ArrayRef {
    let before = cuts.first().map_or(0, |first| first.saturating_sub(1));
    let keys = std::iter::once(before).chain(cuts.iter().copied());
    match column_type {
        ColumnType::Float => Arc::new(keys.map(|key| Some(float_of_key(key))).collect::<Float64Array>()),
        other => int_array(keys.collect(), None, other),
    }
}

/// What a packed code stands for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scale {
    Int,
    /// Over a power of ten.
    Decimal(u8),
}

/// For each cut the first code that is not before it, for as long as there is one.
pub(super) fn thresholds(cuts: &[i64], base: i64, gcd: i64, scale: Scale, codes: &Codes) -> Vec<u64> {
    let code_max = u64::MAX >> (64 - 8 * codes.width());
    let key = |code: u64| {
        let int = i128::from(base) + i128::from(gcd) * i128::from(code);
        match scale {
            // Codes that are in use do not lead out of 64 bits.
            Scale::Int => int,
            Scale::Decimal(digits) => i128::from(float_key(int as f64 / power_of_ten(digits))),
        }
    };
    let reached = cuts.iter().map_while(|cut| {
        let cut = i128::from(*cut);
        let (mut low, mut high) = (0, code_max);
        if key(high) < cut {
            return None;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match key(middle) < cut {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Some(low)
    });
    reached.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    fn binary(op: BinaryOp, value: i64) -> Expr {
        Expr::binary(op, Expr::column("x"), Expr::Literal(Arc::new(Int64Array::from(vec![value]))))
    }

    fn check(expr: &Expr, expect: Option<&[i64]>) {
        assert_eq!(cuts(expr, "x", ColumnType::Int).as_deref(), expect, "{expr}");
    }

    #[test]
    fn comparisons_cut_where_they_change() {
        use BinaryOp::{Eq, Gt, GtEq, Lt, LtEq, Plus};
        check(&binary(Lt, 5), Some(&[5]));
        check(&binary(GtEq, 5), Some(&[5]));
        check(&binary(LtEq, 5), Some(&[6]));
        check(&binary(Gt, i64::MAX), Some(&[]));
        check(&binary(Eq, 5), Some(&[5, 6]));
        check(&binary(Plus, 5), None);
        check(&Expr::Or(vec![binary(Lt, 7), Expr::Not(Box::new(binary(Eq, 3)))]), Some(&[3, 4, 7]));
        check(&Expr::IsNull(Box::new(Expr::column("x"))), Some(&[]));
        check(&Expr::column("y"), Some(&[]));
        check(&Expr::column("x"), None);
        let case = Expr::Case {
            operand: Some(Box::new(Expr::column("x"))),
            branches: vec![(Expr::Literal(Arc::new(Int64Array::from(vec![200]))), Expr::text("ok"))],
            otherwise: Some(Box::new(Expr::column("x"))),
        };
        check(&case, None);
    }

    #[test]
    fn keys_of_floats_have_their_order() {
        let floats =
            [f64::NEG_INFINITY, -1e300, -2.5, -0.0, 0.0, 1e-300, 2.5, 1e300, f64::INFINITY, f64::NAN];
        for pair in floats.windows(2) {
            assert!(float_key(pair[0]) < float_key(pair[1]), "{pair:?}");
        }
        assert!(floats.iter().all(|value| float_of_key(float_key(*value)).to_bits() == value.to_bits()));
    }

    #[test]
    fn thresholds_are_the_first_codes() {
        let codes = Codes::U8(vec![0].into());
        assert_eq!(thresholds(&[-9, 10, 11, 530, 531], 10, 2, Scale::Int, &codes), [0, 0, 1]);
        let cuts = [float_key(0.3), float_key(0.3) + 1, float_key(99.0)];
        assert_eq!(thresholds(&cuts, 0, 1, Scale::Decimal(1), &codes), [3, 4]);
    }
}
