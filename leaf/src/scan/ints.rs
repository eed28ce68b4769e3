//! Comparisons of an int or time column with literals, on ranges and on packed codes.
//!
//! A test over values becomes a test over codes once per run, so that the loop over rows compares narrow integers and
//! decodes nothing. NULL passes no test: validity is applied by whoever runs it.

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampNanosecondType};
use gannet_query::{BinaryOp, ColumnType, Expr};

use super::members::{Members, Places};
use super::prepare::ColumnSpec;
use super::selection::Selection;
use crate::column::Codes;
use crate::vectors::pack_bits;

/// Which values pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IntTest {
    /// Those from the first to the last, both inclusive; none when the first is larger.
    Within(i64, i64),
    /// All but one.
    Not(i64),
    /// These.
    Among(Members),
    /// All but these.
    NotAmong(Members),
}

/// Which codes pass; the same over codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CodeTest {
    Never,
    Always,
    /// From the first to the last, both inclusive.
    Within(u64, u64),
    Not(u64),
    /// Those of these values.
    Among(Listed),
    NotAmong(Listed),
}

/// A list of values, and how codes become values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    members: Members,
    base: i64,
    gcd: i64,
}

const NEVER: IntTest = IntTest::Within(1, 0);

/// The column and the test, when a conjunct compares one int or time column with literals of its own type.
pub(super) fn int_test(expr: &Expr, specs: &[ColumnSpec]) -> Option<(usize, IntTest)> {
    let int_column = |expr: &Expr| {
        let Expr::Column(name) = expr else { return None };
        let index = specs.iter().position(|spec| &spec.name == name)?;
        matches!(specs[index].column_type, ColumnType::Int | ColumnType::Time).then_some(index)
    };
    match expr {
        Expr::Binary { op, left, right } => {
            let (op, column, value) = match (int_column(left), int_column(right)) {
                (Some(column), None) => (*op, column, right),
                (None, Some(column)) => (op.swapped()?, column, left),
                _ => return None,
            };
            let Expr::Literal(value) = &**value else { return None };
            let value = ints(value, specs[column].column_type)?;
            let value = value.first().copied().flatten();
            Some((column, compare(op, value)?))
        }
        Expr::InList { operand, list, negated } => {
            let column = int_column(operand)?;
            // Of an empty list even NULL is no member; that is left to the general way.
            let values = ints(list, specs[column].column_type).filter(|values| !values.is_empty())?;
            let has_null = values.contains(&None);
            let members = Members::new(values.into_iter().flatten().collect());
            Some((
                column,
                match (negated, has_null, members) {
                    (false, _, Some(members)) => IntTest::Among(members),
                    (true, false, Some(members)) => IntTest::NotAmong(members),
                    // x NOT IN (…, NULL) is NULL where it is not false, and nothing is NULL's equal.
                    _ => NEVER,
                },
            ))
        }
        _ => None,
    }
}

/// The literals of an array whose type is the column's, zone aside.
pub(super) fn ints(array: &ArrayRef, column_type: ColumnType) -> Option<Vec<Option<i64>>> {
    match (column_type, array.data_type()) {
        (ColumnType::Int, DataType::Int64) => Some(array.as_primitive::<Int64Type>().iter().collect()),
        (ColumnType::Time, DataType::Timestamp(TimeUnit::Nanosecond, _)) => {
            Some(array.as_primitive::<TimestampNanosecondType>().iter().collect())
        }
        _ => None,
    }
}

fn compare(op: BinaryOp, value: Option<i64>) -> Option<IntTest> {
    let test = |value: i64| {
        Some(match op {
            BinaryOp::Eq => IntTest::Within(value, value),
            BinaryOp::NotEq => IntTest::Not(value),
            BinaryOp::Lt => value.checked_sub(1).map_or(NEVER, |last| IntTest::Within(i64::MIN, last)),
            BinaryOp::LtEq => IntTest::Within(i64::MIN, value),
            BinaryOp::Gt => value.checked_add(1).map_or(NEVER, |first| IntTest::Within(first, i64::MAX)),
            BinaryOp::GtEq => IntTest::Within(value, i64::MAX),
            _ => return None,
        })
    };
    match value {
        Some(value) => test(value),
        // A comparison with NULL is NULL; IS DISTINCT FROM is none of these operators.
        None => test(0).map(|_| NEVER),
    }
}

impl IntTest {
    /// True when no value from `min` to `max` can pass.
    pub(super) fn excludes(&self, min: i64, max: i64) -> bool {
        match self {
            IntTest::Within(first, last) => first > last || *last < min || *first > max,
            IntTest::Not(value) => min == max && min == *value,
            IntTest::Among(members) => {
                let values = members.values();
                let next = values.partition_point(|value| *value < min);
                values.get(next).is_none_or(|value| *value > max)
            }
            IntTest::NotAmong(members) => min == max && members.has(min),
        }
    }

    /// True when a value passes.
    pub(super) fn passes(&self, value: i64) -> bool {
        match self {
            IntTest::Within(first, last) => (*first..=*last).contains(&value),
            IntTest::Not(other) => value != *other,
            IntTest::Among(members) => members.has(value),
            IntTest::NotAmong(members) => !members.has(value),
        }
    }

    /// The same test over codes, where value = base + gcd × code.
    pub(super) fn over_codes(&self, base: i64, gcd: i64) -> CodeTest {
        let listed = |members: &Members| Listed { members: members.clone(), base, gcd };
        let gcd = i128::from(gcd.max(1));
        let distance = |value: i64| i128::from(value) - i128::from(base);
        // Distances are below 2^64, so codes fit.
        let code = |value: i64| match distance(value) {
            d if d < 0 || d % gcd != 0 => None,
            d => u64::try_from(d / gcd).ok(),
        };
        match self {
            IntTest::Within(first, last) => {
                let (first, last) = (distance(*first).max(0), distance(*last));
                let low = (first + gcd - 1) / gcd;
                if last < 0 || low > last / gcd {
                    return CodeTest::Never;
                }
                CodeTest::Within(
                    u64::try_from(low).unwrap_or(u64::MAX),
                    u64::try_from(last / gcd).unwrap_or(u64::MAX),
                )
            }
            IntTest::Not(value) => code(*value).map_or(CodeTest::Always, CodeTest::Not),
            IntTest::Among(members) => CodeTest::Among(listed(members)),
            IntTest::NotAmong(members) => CodeTest::NotAmong(listed(members)),
        }
    }
}

/// Keeps the rows whose code passes and that are not NULL.
pub(super) fn narrow(
    selection: Selection,
    codes: &Codes,
    test: &CodeTest,
    validity: Option<&NullBuffer>,
) -> Selection {
    match codes {
        Codes::U8(codes) => narrow_codes(selection, codes, test, validity),
        Codes::U16(codes) => narrow_codes(selection, codes, test, validity),
        Codes::U32(codes) => narrow_codes(selection, codes, test, validity),
        Codes::U64(codes) => narrow_codes(selection, codes, test, validity),
    }
}

/// The same over values that are not packed.
pub(super) fn narrow_values(
    selection: Selection,
    values: &[i64],
    test: &IntTest,
    validity: Option<&NullBuffer>,
) -> Selection {
    match test {
        IntTest::Within(first, last) => {
            let (first, last) = (*first, *last);
            narrow_by(selection, values, validity, move |value| value >= first && value <= last)
        }
        IntTest::Not(other) => {
            let other = *other;
            narrow_by(selection, values, validity, move |value| value != other)
        }
        IntTest::Among(members) => narrow_listed(selection, values, validity, members, false, |value| value),
        IntTest::NotAmong(members) => {
            narrow_listed(selection, values, validity, members, true, |value| value)
        }
    }
}

/// Keeps the rows whose value is in a list, or is not.
fn narrow_listed<T: Copy>(
    selection: Selection,
    rows: &[T],
    validity: Option<&NullBuffer>,
    members: &Members,
    negated: bool,
    value: impl Fn(T) -> i64 + Copy,
) -> Selection {
    match members.places() {
        Places::Bits(words) => {
            narrow_by(selection, rows, validity, move |row| members.has_bit(words, value(row)) != negated)
        }
        Places::Starts { shift, starts } => narrow_by(selection, rows, validity, move |row| {
            members.is_in_stretch(*shift, starts, value(row)) != negated
        }),
    }
}

fn narrow_by<T: Copy>(
    selection: Selection,
    values: &[T],
    validity: Option<&NullBuffer>,
    test: impl Fn(T) -> bool + Copy,
) -> Selection {
    selection.narrow(
        || with_validity(pack_bits(values, test), validity),
        |row| test(values[row]) && validity.is_none_or(|validity| validity.is_valid(row)),
    )
}

fn with_validity(bits: BooleanBuffer, validity: Option<&NullBuffer>) -> BooleanBuffer {
    match validity {
        Some(validity) => &bits & validity.inner(),
        None => bits,
    }
}

fn narrow_codes<T: ArrowNativeTypeOp>(
    selection: Selection,
    codes: &[T],
    test: &CodeTest,
    validity: Option<&NullBuffer>,
) -> Selection {
    let code_max = u64::MAX >> (64 - 8 * size_of::<T>());
    let narrow = |code: u64| T::usize_as(code as usize);
    match test {
        CodeTest::Never => Selection::none(),
        CodeTest::Within(low, _) if *low > code_max => Selection::none(),
        CodeTest::Within(low, high) if *low > 0 || *high < code_max => {
            // One unsigned comparison says both: codes below `low` wrap around to large ones.
            let span = narrow((*high).min(code_max) - low);
            let low = narrow(*low);
            narrow_by(selection, codes, validity, move |code| code.sub_wrapping(low).is_le(span))
        }
        CodeTest::Not(other) if *other <= code_max => {
            let other = narrow(*other);
            narrow_by(selection, codes, validity, move |code| code.is_ne(other))
        }
        CodeTest::Always | CodeTest::Within(..) | CodeTest::Not(_) => match validity {
            None => selection,
            Some(_) => narrow_by(selection, codes, validity, |_| true),
        },
        CodeTest::Among(listed) | CodeTest::NotAmong(listed) => {
            let Listed { members, base, gcd } = listed;
            let negated = matches!(test, CodeTest::NotAmong(_));
            // A code is a distance from the base, which 64 bits can say: no more than that wraps around.
            let value = move |code: T| base.wrapping_add(gcd.wrapping_mul(code.as_usize() as i64));
            narrow_listed(selection, codes, validity, members, negated, value)
        }
    }
}
