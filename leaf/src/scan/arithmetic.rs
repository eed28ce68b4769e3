//! Arithmetic of ints, a stretch of rows at a time.
//!
//! DataFusion evaluates an expression over arrays: the columns are decoded into arrays first, and each step makes
//! another. Where what columns can hold shows that no step of an expression leaves 64 bits for any row, there is
//! nothing that one way of computing would do and another would not, and plain loops from one buffer into the next
//! give the same values. A choice (`CASE WHEN status >= 500 THEN bytes ELSE 0 END`) is made by what filters make of its
//! condition. Everything else is DataFusion's: floats, casts, steps that could overflow, and division by what could be
//! zero.

use arrow::array::AsArray;
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Int64Type};
use gannet_query::{BinaryOp, ColumnType, Expr};

use super::columns::Run;
use super::filter::narrow;
use super::prepare::{ColumnSpec, Conjunct, conjuncts};
use super::readers::Ints;
use super::selection::{Rows, Selection};
use super::{ScanError, Stop};

/// An expression of int columns and literals.
#[derive(Debug)]
pub(super) enum Formula {
    Column(usize),
    Literal(i64),
    Step(Op, Box<[Formula; 2]>),
    Absolute(Box<Formula>),
    Chosen(Box<Choice>),
}

/// One formula where a condition is true; another, or NULL, where it is not.
#[derive(Debug)]
pub(super) struct Choice {
    when: Vec<Conjunct>,
    then: Formula,
    otherwise: Option<Formula>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Plus,
    Minus,
    Times,
    /// By a literal that is neither 0 nor -1, towards zero.
    Over,
}

/// The formula, when an expression of ints is one.
pub(super) fn formula(expr: &Expr, data_type: &DataType, specs: &[ColumnSpec]) -> Option<Formula> {
    if data_type != &DataType::Int64 {
        return None;
    }
    let of = |expr: &Expr| formula(expr, data_type, specs);
    let step = |op, left, right| Some(Formula::Step(op, Box::new([left, right])));
    match expr {
        Expr::Column(name) => {
            let is_it = |spec: &ColumnSpec| &spec.name == name && spec.column_type == ColumnType::Int;
            specs.iter().position(is_it).map(Formula::Column)
        }
        Expr::Literal(value) => {
            let value = value.as_primitive_opt::<Int64Type>()?;
            value.iter().next()?.map(Formula::Literal)
        }
        Expr::Negative(operand) => step(Op::Minus, Formula::Literal(0), of(operand)?),
        Expr::Binary { op: BinaryOp::Plus, left, right } => step(Op::Plus, of(left)?, of(right)?),
        Expr::Binary { op: BinaryOp::Minus, left, right } => step(Op::Minus, of(left)?, of(right)?),
        Expr::Binary { op: BinaryOp::Multiply, left, right } => step(Op::Times, of(left)?, of(right)?),
        Expr::Binary { op: BinaryOp::Divide, left, right } => match of(right)? {
            Formula::Literal(0 | -1) => None,
            by @ Formula::Literal(_) => step(Op::Over, of(left)?, by),
            _ => None,
        },
        Expr::Call { function, arguments } if function == "abs" => match &arguments[..] {
            [operand] => Some(Formula::Absolute(Box::new(of(operand)?))),
            _ => None,
        },
        Expr::Case { operand: None, branches, otherwise } => {
            let otherwise = match otherwise {
                Some(expr) => Some(of(expr)?),
                None => None,
            };
            // The first condition that is true chooses.
            branches.iter().rev().try_fold(otherwise, |otherwise, (when, then)| {
                Some(Some(Formula::Chosen(Box::new(choice(when, of(then)?, otherwise, specs)?))))
            })?
        }
        _ => None,
    }
}

/// A choice whose condition is told without looking at rows one by one, between what is not literals alone: those are
/// looked at once for each value.
fn choice(when: &Expr, then: Formula, otherwise: Option<Formula>, specs: &[ColumnSpec]) -> Option<Choice> {
    if !then.reads_columns() && !otherwise.as_ref().is_some_and(Formula::reads_columns) {
        return None;
    }
    let is_bool = |expr: &&Expr| matches!(expr, Expr::Column(_));
    let exprs = when.conjuncts();
    let when = conjuncts(when, specs).ok()?;
    let is_told = |conjunct: &Conjunct| {
        conjunct.int_test.is_some() || conjunct.column_test.is_some() || conjunct.float_test.is_some()
    };
    let told = when.iter().zip(&exprs).all(|(conjunct, expr)| is_told(conjunct) || is_bool(expr));
    told.then_some(Choice { when, then, otherwise })
}

impl Formula {
    fn reads_columns(&self) -> bool {
        match self {
            Formula::Column(_) | Formula::Chosen(_) => true,
            Formula::Literal(_) => false,
            Formula::Step(_, operands) => operands.iter().any(Formula::reads_columns),
            Formula::Absolute(operand) => operand.reads_columns(),
        }
    }
}

/// A formula over the columns of one run, none of whose steps leaves 64 bits.
#[derive(Debug)]
pub(super) enum Computed<'a> {
    Column(Ints<'a>),
    Literal(i64),
    Step { op: Op, operands: Box<[Computed<'a>; 2]>, buffers: [Vec<i64>; 2] },
    Absolute(Box<Computed<'a>>, Vec<i64>),
    Chosen(Box<Chosen<'a>>),
}

/// A choice whose condition has been looked at.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    /// Of each row of the run whether the condition is true.
    is_then: Vec<bool>,
    then: Computed<'a>,
    /// None where what is not chosen is NULL.
    otherwise: Option<Computed<'a>>,
    picked: Vec<bool>,
    buffers: [Vec<i64>; 2],
}

/// The least and the greatest that may come out.
type Bounds = (i128, i128);

impl<'a> Computed<'a> {
    /// `None` when some step could leave 64 bits, as far as can be told without reading the values.
    pub(super) fn of(run: &'a Run<'_>, formula: &Formula) -> Result<Option<Computed<'a>>, Stop> {
        Ok(Computed::bounded(run, formula)?.map(|(computed, _)| computed))
    }

    fn bounded(run: &'a Run<'_>, formula: &Formula) -> Result<Option<(Computed<'a>, Bounds)>, Stop> {
        Ok(match formula {
            Formula::Literal(value) => {
                Some((Computed::Literal(*value), (i128::from(*value), i128::from(*value))))
            }
            Formula::Column(column) => {
                let ints = run.slot(*column)?.ints(run.row_count)?;
                let ends = ints.ends().map(|(least, greatest)| (least.into(), greatest.into()));
                ends.map(|ends| (Computed::Column(ints), ends))
            }
            Formula::Step(op, operands) => {
                let [left, right] = &**operands;
                let Some((left, left_ends)) = Computed::bounded(run, left)? else { return Ok(None) };
                let Some((right, right_ends)) = Computed::bounded(run, right)? else { return Ok(None) };
                let ends = op.ends(left_ends, right_ends);
                let fits = |end: i128| i64::try_from(end).is_ok();
                (fits(ends.0) && fits(ends.1)).then(|| {
                    let operands = Box::new([left, right]);
                    (Computed::Step { op: *op, operands, buffers: Default::default() }, ends)
                })
            }
            Formula::Absolute(operand) => {
                let Some((operand, (least, greatest))) = Computed::bounded(run, operand)? else {
                    return Ok(None);
                };
                let end = least.abs().max(greatest.abs());
                i64::try_from(end)
                    .is_ok()
                    .then(|| (Computed::Absolute(Box::new(operand), Vec::new()), (0, end)))
            }
            Formula::Chosen(choice) => Computed::chosen(run, choice)?,
        })
    }

    fn chosen(run: &'a Run<'_>, choice: &Choice) -> Result<Option<(Computed<'a>, Bounds)>, Stop> {
        let Some((then, mut ends)) = Computed::bounded(run, &choice.then)? else { return Ok(None) };
        let mut otherwise = None;
        if let Some(formula) = &choice.otherwise {
            let Some((computed, other)) = Computed::bounded(run, formula)? else { return Ok(None) };
            ends = (ends.0.min(other.0), ends.1.max(other.1));
            otherwise = Some(computed);
        }
        let selection = match narrow(run, &choice.when, Selection::All(run.row_count)) {
            Ok(selection) => selection,
            // It may fail on rows that nobody asks for.
            Err(Stop::Failed(ScanError::Evaluate(_))) => return Ok(None),
            Err(stop) => return Err(stop),
        };
        let (picked, buffers) = Default::default();
        let is_then = selection.into_marks(run.row_count);
        Ok(Some((Computed::Chosen(Box::new(Chosen { is_then, then, otherwise, picked, buffers })), ends)))
    }

    /// The values at some rows; what is read for a NULL means nothing. They are put into `out` unless they lie next to
    /// each other already.
    pub(super) fn read<'s>(&'s mut self, rows: Rows<'_>, out: &'s mut Vec<i64>) -> &'s [i64] {
        match self {
            Computed::Column(ints) => return ints.read(rows, out),
            Computed::Literal(value) => {
                out.clear();
                out.resize(rows.len(), *value);
            }
            Computed::Step { op, operands, buffers: [first, second] } => match &mut **operands {
                [Computed::Literal(left), right] => {
                    let left = *left;
                    op.compute(right.read(rows, second).iter().map(move |right| (left, *right)), out);
                }
                [left, Computed::Literal(right)] => {
                    let right = *right;
                    op.compute(left.read(rows, first).iter().map(move |left| (*left, right)), out);
                }
                [left, right] => {
                    let (left, right) = (left.read(rows, first), right.read(rows, second));
                    op.compute(left.iter().copied().zip(right.iter().copied()), out);
                }
            },
            Computed::Absolute(operand, buffer) => {
                out.clear();
                out.extend(operand.read(rows, buffer).iter().map(|value| value.wrapping_abs()));
            }
            Computed::Chosen(chosen) => chosen.read(rows, out),
        }
        out
    }

    /// Which of some rows have a value; `None` when all have one.
    pub(super) fn nulls(&self, rows: Rows<'_>) -> Option<NullBuffer> {
        match self {
            Computed::Literal(_) => None,
            Computed::Column(ints) => ints.nulls(rows),
            Computed::Step { operands, .. } => {
                let [left, right] = &**operands;
                NullBuffer::union(left.nulls(rows).as_ref(), right.nulls(rows).as_ref())
            }
            Computed::Absolute(operand, _) => operand.nulls(rows),
            Computed::Chosen(chosen) => chosen.nulls(rows),
        }
    }

    /// Whether some row has no value.
    pub(super) fn has_nulls(&self) -> bool {
        match self {
            Computed::Literal(_) => false,
            Computed::Column(ints) => ints.has_nulls(),
            Computed::Step { operands, .. } => operands.iter().any(Computed::has_nulls),
            Computed::Absolute(operand, _) => operand.has_nulls(),
            Computed::Chosen(chosen) => {
                chosen.then.has_nulls() || chosen.otherwise.as_ref().is_none_or(Computed::has_nulls)
            }
        }
    }
}

impl Chosen<'_> {
    fn read(&mut self, rows: Rows<'_>, out: &mut Vec<i64>) {
        let Chosen { is_then, then, otherwise, picked, buffers: [first, second] } = self;
        rows.read(is_then, picked, |is_then| is_then);
        let literal = match (&*then, &*otherwise) {
            (_, Some(Computed::Literal(other))) => Some((*other, false)),
            (_, None) => Some((0, false)),
            (Computed::Literal(then), _) => Some((*then, true)),
            _ => None,
        };
        out.clear();
        match (literal, otherwise) {
            (Some((literal, true)), Some(otherwise)) => {
                let pairs = picked.iter().zip(otherwise.read(rows, first));
                out.extend(pairs.map(|(is_then, other)| if *is_then { literal } else { *other }));
            }
            (None, Some(otherwise)) => {
                let (then, other) = (then.read(rows, first), otherwise.read(rows, second));
                let pairs = picked.iter().zip(then.iter().zip(other));
                out.extend(pairs.map(|(is_then, (then, other))| if *is_then { *then } else { *other }));
            }
            (literal, _) => {
                let other = literal.map_or(0, |(literal, _)| literal);
                let pairs = picked.iter().zip(then.read(rows, first));
                out.extend(pairs.map(|(is_then, then)| if *is_then { *then } else { other }));
            }
        }
    }

    fn nulls(&self, rows: Rows<'_>) -> Option<NullBuffer> {
        let then = self.then.nulls(rows);
        let other = match &self.otherwise {
            Some(otherwise) => otherwise.nulls(rows),
            None => Some(NullBuffer::new_null(rows.len())),
        };
        if then.is_none() && other.is_none() {
            return None;
        }
        let is_then = BooleanBuffer::collect_bool(rows.len(), |place| self.is_then[rows.get(place)]);
        let there = match then {
            Some(then) => &is_then & then.inner(),
            None => is_then.clone(),
        };
        let other = match other {
            Some(other) => &!&is_then & other.inner(),
            None => !&is_then,
        };
        Some((&there | &other).into())
    }
}

impl Op {
    /// What may come out of operands within these bounds.
    fn ends(self, left: Bounds, right: Bounds) -> Bounds {
        match self {
            Op::Plus => (left.0 + right.0, left.1 + right.1),
            Op::Minus => (left.0 - right.1, left.1 - right.0),
            Op::Times | Op::Over => {
                let of =
                    |left: i128, right: i128| if self == Op::Times { left * right } else { left / right };
                let corners =
                    [of(left.0, right.0), of(left.0, right.1), of(left.1, right.0), of(left.1, right.1)];
                corners.iter().fold((corners[0], corners[0]), |(least, greatest), corner| {
                    (least.min(*corner), greatest.max(*corner))
                })
            }
        }
    }

    /// Puts what comes out of pairs of operands into `out`. What is read for NULL may wrap.
    #[inline(always)]
    fn compute(self, pairs: impl Iterator<Item = (i64, i64)>, out: &mut Vec<i64>) {
        out.clear();
        match self {
            Op::Plus => out.extend(pairs.map(|(left, right)| left.wrapping_add(right))),
            Op::Minus => out.extend(pairs.map(|(left, right)| left.wrapping_sub(right))),
            Op::Times => out.extend(pairs.map(|(left, right)| left.wrapping_mul(right))),
            Op::Over => out.extend(pairs.map(|(left, right)| left.wrapping_div(right))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_lies_within_its_ends() {
        let ranges = [(0, 0), (-5, 7), (3, 9), (-9, -2), (i64::MIN, i64::MAX), (0, i64::MAX)];
        for op in [Op::Plus, Op::Minus, Op::Times, Op::Over] {
            for left in ranges {
                for right in ranges.into_iter().chain([(7, 7), (-3, -3)]) {
                    // Only literals divide, and these two do not.
                    if op == Op::Over && (right.0 != right.1 || matches!(right.0, 0 | -1)) {
                        continue;
                    }
                    check(op, left, right);
                }
            }
        }
    }

    fn check(op: Op, left: (i64, i64), right: (i64, i64)) {
        let ends = op.ends((left.0.into(), left.1.into()), (right.0.into(), right.1.into()));
        let within = |(least, greatest): (i64, i64)| {
            let some = [least, least.saturating_add(1), least / 2, 0, greatest / 3, greatest];
            some.into_iter().filter(move |value| (least..=greatest).contains(value))
        };
        let pairs: Vec<(i64, i64)> =
            within(left).flat_map(|left| within(right).map(move |right| (left, right))).collect();
        let mut found = Vec::new();
        op.compute(pairs.iter().copied(), &mut found);
        for ((left, right), found) in pairs.into_iter().zip(found) {
            let (wide_left, wide_right) = (i128::from(left), i128::from(right));
            let expect = match op {
                Op::Plus => wide_left + wide_right,
                Op::Minus => wide_left - wide_right,
                Op::Times => wide_left * wide_right,
                Op::Over => wide_left / wide_right,
            };
            assert!(
                (ends.0..=ends.1).contains(&expect),
                "{left} {op:?} {right} is {expect}, not in {ends:?}"
            );
            let fits = i64::try_from(expect).is_ok();
            assert!(!fits || i128::from(found) == expect, "{left} {op:?} {right} is {expect}, not {found}");
        }
    }
}
