//! Arithmetic of floats and their functions, a stretch of rows at a time.
//!
//! Arithmetic of floats never fails, so it may be done for rows that are out as well, in plain loops from one buffer into
//! the next. Each step and function is the one that DataFusion does, so that the values are the same to the last bit. A
//! square root of what is below zero is an error: who computes one asks first whether there may be any.

use arrow::array::AsArray;
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float64Type};
use gannet_query::{BinaryOp, ColumnType, Expr};

use super::Stop;
use super::columns::Run;
use super::prepare::ColumnSpec;
use super::readers::Floats;
use super::selection::Rows;
use crate::vectors::vectorized;

/// An expression of number columns and literals.
#[derive(Debug)]
pub(super) enum Formula {
    Floats(usize),
    Ints(usize),
    Literal(f64),
    Step(Op, Box<[Formula; 2]>),
    Called(Function, Box<Formula>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    Plus,
    Minus,
    Times,
    Over,
}

/// A function of one float.
#[derive(Debug, Clone, Copy)]
pub(super) enum Function {
    Negative,
    Absolute,
    SquareRoot,
    Ln,
    Log2,
    Log10,
    Exp,
    Floor,
    Ceil,
}

/// The formula, when an expression of floats is one.
pub(super) fn formula(expr: &Expr, specs: &[ColumnSpec]) -> Option<Formula> {
    let column = |name: &str, column_type| {
        specs.iter().position(|spec| spec.name == name && spec.column_type == column_type)
    };
    match expr {
        Expr::Column(name) => column(name, ColumnType::Float).map(Formula::Floats),
        Expr::Cast { operand, to: DataType::Float64, .. } => match &**operand {
            Expr::Column(name) => column(name, ColumnType::Int).map(Formula::Ints),
            _ => None,
        },
        Expr::Literal(value) => value.as_primitive_opt::<Float64Type>()?.iter().next()?.map(Formula::Literal),
        Expr::Negative(operand) => called(Function::Negative, operand, specs),
        Expr::Call { function, arguments } => match &arguments[..] {
            [operand] => called(Function::of(function)?, operand, specs),
            _ => None,
        },
        Expr::Binary { op, left, right } => {
            let op = match op {
                BinaryOp::Plus => Op::Plus,
                BinaryOp::Minus => Op::Minus,
                BinaryOp::Multiply => Op::Times,
                BinaryOp::Divide => Op::Over,
                _ => return None,
            };
            Some(Formula::Step(op, Box::new([formula(left, specs)?, formula(right, specs)?])))
        }
        _ => None,
    }
}

fn called(function: Function, operand: &Expr, specs: &[ColumnSpec]) -> Option<Formula> {
    Some(Formula::Called(function, Box::new(formula(operand, specs)?)))
}

impl Formula {
    pub(super) fn has_column(&self) -> bool {
        match self {
            Formula::Floats(_) | Formula::Ints(_) => true,
            Formula::Literal(_) => false,
            Formula::Step(_, operands) => operands.iter().any(Formula::has_column),
            Formula::Called(_, operand) => operand.has_column(),
        }
    }

    /// Whether some function in it fails for some floats.
    pub(super) fn can_fail(&self) -> bool {
        match self {
            Formula::Floats(_) | Formula::Ints(_) | Formula::Literal(_) => false,
            Formula::Step(_, operands) => operands.iter().any(Formula::can_fail),
            Formula::Called(function, operand) => {
                matches!(function, Function::SquareRoot) || operand.can_fail()
            }
        }
    }

    /// Whether it may fail for a row of a run, as far as can be told without reading the values.
    pub(super) fn may_fail(&self, run: &Run<'_>) -> Result<bool, Stop> {
        Ok(match self {
            Formula::Floats(_) | Formula::Ints(_) | Formula::Literal(_) => false,
            Formula::Step(_, operands) => operands[0].may_fail(run)? || operands[1].may_fail(run)?,
            Formula::Called(Function::SquareRoot, operand) => {
                operand.may_fail(run)? || operand.least(run)?.is_none_or(|least| least < 0.0)
            }
            Formula::Called(_, operand) => operand.may_fail(run)?,
        })
    }

    /// Nothing below this comes out, if anything is known.
    fn least(&self, run: &Run<'_>) -> Result<Option<f64>, Stop> {
        let least = |floats: &Floats<'_>| match floats {
            Floats::Constant(value) => *value,
            Floats::Ints(ints) => ints.ends().map(|(least, _)| least as f64),
            Floats::Scaled(ints, power) => ints.ends().map(|(least, _)| least as f64 / power),
            Floats::Values(..) | Floats::Cast(..) => None,
        };
        Ok(match self {
            Formula::Floats(column) => least(&run.slot(*column)?.floats(run.row_count)?),
            Formula::Ints(column) => least(&Floats::Ints(run.slot(*column)?.ints(run.row_count)?)),
            Formula::Literal(value) => Some(*value),
            Formula::Step(Op::Plus, operands) => {
                operands[0].least(run)?.zip(operands[1].least(run)?).map(|(left, right)| left + right)
            }
            Formula::Called(Function::Absolute, _) => Some(0.0),
            Formula::Step(..) | Formula::Called(..) => None,
        })
    }
}

/// A formula over the columns of a run.
#[derive(Debug)]
pub(super) enum Computed<'a> {
    Column(Floats<'a>),
    Literal(f64),
    Step { op: Op, operands: Box<[Computed<'a>; 2]>, buffers: [Vec<f64>; 2] },
    Called(Function, Box<Computed<'a>>, Vec<f64>),
}

impl<'a> Computed<'a> {
    /// Reads nothing yet.
    pub(super) fn of(run: &'a Run<'_>, formula: &Formula) -> Result<Computed<'a>, Stop> {
        Ok(match formula {
            Formula::Floats(column) => Computed::Column(run.slot(*column)?.floats(run.row_count)?),
            Formula::Ints(column) => Computed::Column(Floats::Ints(run.slot(*column)?.ints(run.row_count)?)),
            Formula::Literal(value) => Computed::Literal(*value),
            Formula::Step(op, operands) => {
                let [left, right] = &**operands;
                let operands = Box::new([Computed::of(run, left)?, Computed::of(run, right)?]);
                Computed::Step { op: *op, operands, buffers: Default::default() }
            }
            Formula::Called(function, operand) => {
                Computed::Called(*function, Box::new(Computed::of(run, operand)?), Vec::new())
            }
        })
    }

    /// The values at some rows; what is read for a NULL means nothing.
    pub(super) fn read<'s>(
        &'s mut self,
        rows: Rows<'_>,
        ints: &'s mut Vec<i64>,
        out: &'s mut Vec<f64>,
    ) -> &'s [f64] {
        match self {
            Computed::Column(floats) => return floats.read(rows, ints, out),
            Computed::Literal(value) => {
                out.clear();
                out.resize(rows.len(), *value);
            }
            Computed::Step { op, operands, buffers: [first, second] } => {
                let [left, right] = &mut **operands;
                // The ints are only needed while the floats are made of them.
                let left = left.read(rows, ints, first);
                let mut ints = Vec::new();
                let right = right.read(rows, &mut ints, second);
                out.clear();
                out.resize(rows.len(), 0.0);
                let (op, all) = (*op, &mut out[..]);
                vectorized(
                    #[inline(always)]
                    move || op.compute(left, right, all),
                );
            }
            Computed::Called(function, operand, buffer) => {
                let operand = operand.read(rows, ints, buffer);
                out.clear();
                out.resize(rows.len(), 0.0);
                let (function, all) = (*function, &mut out[..]);
                vectorized(
                    #[inline(always)]
                    move || function.compute(operand, all),
                );
            }
        }
        out
    }

    /// Which of some rows have a value; `None` when all have one.
    pub(super) fn nulls(&self, rows: Rows<'_>) -> Option<NullBuffer> {
        match self {
            Computed::Literal(_) => None,
            Computed::Column(floats) => floats.nulls(rows),
            Computed::Step { operands, .. } => {
                let [left, right] = &**operands;
                NullBuffer::union(left.nulls(rows).as_ref(), right.nulls(rows).as_ref())
            }
            Computed::Called(_, operand, _) => operand.nulls(rows),
        }
    }

    /// Whether some row has no value.
    pub(super) fn has_nulls(&self) -> bool {
        match self {
            Computed::Literal(_) => false,
            Computed::Column(floats) => floats.has_nulls(),
            Computed::Step { operands, .. } => operands.iter().any(Computed::has_nulls),
            Computed::Called(_, operand, _) => operand.has_nulls(),
        }
    }
}

impl Op {
    #[inline(always)]
    fn compute(self, left: &[f64], right: &[f64], out: &mut [f64]) {
        let all = out.iter_mut().zip(left.iter().zip(right));
        match self {
            Op::Plus => all.for_each(|(out, (left, right))| *out = left + right),
            Op::Minus => all.for_each(|(out, (left, right))| *out = left - right),
            Op::Times => all.for_each(|(out, (left, right))| *out = left * right),
            Op::Over => all.for_each(|(out, (left, right))| *out = left / right),
        }
    }
}

impl Function {
    fn of(name: &str) -> Option<Function> {
        Some(match name {
            "abs" => Function::Absolute,
            "sqrt" => Function::SquareRoot,
            "ln" => Function::Ln,
            "log2" => Function::Log2,
            "log10" => Function::Log10,
            "exp" => Function::Exp,
            "floor" => Function::Floor,
            "ceil" => Function::Ceil,
            _ => return None,
        })
    }

    #[inline(always)]
    fn compute(self, operand: &[f64], out: &mut [f64]) {
        let all = out.iter_mut().zip(operand);
        match self {
            Function::Negative => all.for_each(|(out, float)| *out = -float),
            Function::Absolute => all.for_each(|(out, float)| *out = float.abs()),
            Function::SquareRoot => all.for_each(|(out, float)| *out = float.sqrt()),
            Function::Ln => all.for_each(|(out, float)| *out = float.ln()),
            Function::Log2 => all.for_each(|(out, float)| *out = float.log2()),
            Function::Log10 => all.for_each(|(out, float)| *out = float.log10()),
            Function::Exp => all.for_each(|(out, float)| *out = float.exp()),
            Function::Floor => all.for_each(|(out, float)| *out = float.floor()),
            Function::Ceil => all.for_each(|(out, float)| *out = float.ceil()),
        }
    }
}
