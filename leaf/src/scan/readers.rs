//! Reading the numbers of one column of a run, a stretch of rows at a time, without decoding the rest.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{Float64Type, Int64Type, TimestampNanosecondType};

use super::selection::Rows;
use crate::column::Codes;

/// The integers of an int or time column.
#[derive(Debug)]
pub(super) enum Ints<'a> {
    /// One for all rows; `None` is NULL.
    Constant(Option<i64>),
    /// base + gcd × code.
    Packed { base: i64, gcd: i64, codes: &'a Codes, validity: Option<&'a NullBuffer> },
    /// The number at the code; the code `null` is that of NULL.
    Dictionary { table: Vec<i64>, codes: &'a Codes, null: Option<u32> },
    /// As they are.
    Values(&'a [i64], Option<&'a NullBuffer>),
    /// Those of a column that was cast.
    Cast(ScalarBuffer<i64>, Option<NullBuffer>),
}

/// The floats of a float column.
#[derive(Debug)]
pub(super) enum Floats<'a> {
    /// One for all rows; `None` is NULL.
    Constant(Option<f64>),
    /// As they are.
    Values(&'a [f64], Option<&'a NullBuffer>),
    /// Those of a column that was cast.
    Cast(ScalarBuffer<f64>, Option<NullBuffer>),
    /// Ints as floats.
    Ints(Ints<'a>),
    /// Ints over a power of ten.
    Scaled(Ints<'a>, f64),
}

impl Ints<'_> {
    /// The values at some rows; what is read for a NULL means nothing. They are put into `out` unless they lie
    /// next to each other already.
    pub(super) fn read<'s>(&'s self, rows: Rows<'_>, out: &'s mut Vec<i64>) -> &'s [i64] {
        match self {
            Ints::Constant(value) => {
                out.clear();
                out.resize(rows.len(), value.unwrap_or(0));
            }
            Ints::Packed { base, gcd, codes, .. } => match codes {
                Codes::U8(codes) => unpack(rows, codes, *base, *gcd, i64::from, out),
                Codes::U16(codes) => unpack(rows, codes, *base, *gcd, i64::from, out),
                Codes::U32(codes) => unpack(rows, codes, *base, *gcd, i64::from, out),
                // Distances of more than i64::MAX wrap around twice and come out right.
                Codes::U64(codes) => unpack(rows, codes, *base, *gcd, |code| code as i64, out),
            },
            Ints::Dictionary { table, codes, .. } => look_up(table, codes, rows, out),
            Ints::Values(values, _) => return read(values, rows, out),
            Ints::Cast(values, _) => return read(values, rows, out),
        }
        out
    }

    /// No value is larger in magnitude; `None` where only the values tell.
    pub(super) fn bound(&self) -> Option<u64> {
        match self {
            Ints::Constant(value) => Some(value.unwrap_or(0).unsigned_abs()),
            Ints::Packed { base, gcd, codes, .. } => {
                let last = i128::from(*base) + i128::from(*gcd) * i128::from(code_max(codes)?);
                Some(u64::try_from(last.unsigned_abs()).unwrap_or(u64::MAX).max(base.unsigned_abs()))
            }
            Ints::Dictionary { table, .. } => table.iter().map(|value| value.unsigned_abs()).max(),
            Ints::Values(..) | Ints::Cast(..) => None,
        }
    }

    /// No value is smaller; `None` where only the values tell.
    pub(super) fn least(&self) -> Option<i64> {
        self.ends().map(|(least, _)| least)
    }

    /// No value is smaller than the first or larger than the second; `None` where only the values tell.
    pub(super) fn ends(&self) -> Option<(i64, i64)> {
        match self {
            Ints::Constant(value) => Some((value.unwrap_or(0), value.unwrap_or(0))),
            // Whatever the codes are, they lead up from the base, unless they could lead around the end.
            Ints::Packed { base, gcd, codes, .. } => {
                let last = i128::from(*base) + i128::from(*gcd) * i128::from(code_max(codes)?);
                i64::try_from(last).ok().filter(|_| *gcd >= 0).map(|last| (*base, last))
            }
            // The last one is read for NULL.
            Ints::Dictionary { table, .. } => {
                let (_, values) = table.split_last()?;
                Some((values.iter().copied().min()?, values.iter().copied().max()?))
            }
            Ints::Values(..) | Ints::Cast(..) => None,
        }
    }

    /// Which of some rows have a value; `None` when all have one.
    pub(super) fn nulls(&self, rows: Rows<'_>) -> Option<NullBuffer> {
        match self {
            Ints::Constant(Some(_)) => None,
            Ints::Constant(None) => Some(NullBuffer::new_null(rows.len())),
            Ints::Packed { validity, .. } | Ints::Values(_, validity) => nulls_at(*validity, rows),
            Ints::Dictionary { codes, null, .. } => nulls_coded(codes, *null, rows),
            Ints::Cast(_, validity) => nulls_at(validity.as_ref(), rows),
        }
    }

    /// Whether some row has no value.
    pub(super) fn has_nulls(&self) -> bool {
        match self {
            Ints::Constant(value) => value.is_none(),
            Ints::Dictionary { null, .. } => null.is_some(),
            Ints::Packed { validity, .. } | Ints::Values(_, validity) => {
                validity.is_some_and(|validity| validity.null_count() > 0)
            }
            Ints::Cast(_, validity) => validity.as_ref().is_some_and(|validity| validity.null_count() > 0),
        }
    }
}

impl Floats<'_> {
    /// As [`Ints::has_nulls`].
    pub(super) fn has_nulls(&self) -> bool {
        match self {
            Floats::Constant(value) => value.is_none(),
            Floats::Values(_, validity) => validity.is_some_and(|validity| validity.null_count() > 0),
            Floats::Cast(_, validity) => validity.as_ref().is_some_and(|validity| validity.null_count() > 0),
            Floats::Ints(ints) | Floats::Scaled(ints, _) => ints.has_nulls(),
        }
    }

    /// As [`Ints::read`].
    pub(super) fn read<'s>(
        &'s self,
        rows: Rows<'_>,
        ints: &'s mut Vec<i64>,
        out: &'s mut Vec<f64>,
    ) -> &'s [f64] {
        match self {
            Floats::Constant(value) => {
                out.clear();
                out.resize(rows.len(), value.unwrap_or(0.0));
            }
            Floats::Values(values, _) => return read(values, rows, out),
            Floats::Cast(values, _) => return read(values, rows, out),
            Floats::Ints(reader) => {
                let values = reader.read(rows, ints);
                out.clear();
                out.extend(values.iter().map(|value| *value as f64));
            }
            Floats::Scaled(reader, power) => {
                let values = reader.read(rows, ints);
                out.clear();
                out.extend(values.iter().map(|value| *value as f64 / power));
            }
        }
        out
    }

    /// As [`Ints::nulls`].
    pub(super) fn nulls(&self, rows: Rows<'_>) -> Option<NullBuffer> {
        match self {
            Floats::Constant(Some(_)) => None,
            Floats::Constant(None) => Some(NullBuffer::new_null(rows.len())),
            Floats::Values(_, validity) => nulls_at(*validity, rows),
            Floats::Cast(_, validity) => nulls_at(validity.as_ref(), rows),
            Floats::Ints(ints) | Floats::Scaled(ints, _) => ints.nulls(rows),
        }
    }
}

/// What codes could hold at most, which nothing in a directory can belie; `None` for 64 bits.
pub(super) fn code_max(codes: &Codes) -> Option<u64> {
    match codes {
        Codes::U8(_) => Some(u64::from(u8::MAX)),
        Codes::U16(_) => Some(u64::from(u16::MAX)),
        Codes::U32(_) => Some(u64::from(u32::MAX)),
        Codes::U64(_) => None,
    }
}

/// A slice of the values, or a copy of those that are asked for.
fn read<'s, T: Copy>(values: &'s [T], rows: Rows<'_>, out: &'s mut Vec<T>) -> &'s [T] {
    match rows {
        Rows::Range { start, count } => &values[start..start + count],
        Rows::At(_) => {
            rows.read(values, out, |value| value);
            out
        }
    }
}

/// What a table has at the codes of some rows.
#[inline]
pub(super) fn look_up<T: Copy>(table: &[T], codes: &Codes, rows: Rows<'_>, out: &mut Vec<T>) {
    match codes {
        Codes::U8(codes) => rows.read(codes, out, move |code| table[usize::from(code)]),
        Codes::U16(codes) => rows.read(codes, out, move |code| table[usize::from(code)]),
        Codes::U32(codes) => rows.read(codes, out, move |code| table[code as usize]),
        Codes::U64(codes) => rows.read(codes, out, move |code| table[code as usize]),
    }
}

#[inline]
fn unpack<T: Copy>(
    rows: Rows<'_>,
    codes: &[T],
    base: i64,
    gcd: i64,
    wide: impl Fn(T) -> i64,
    out: &mut Vec<i64>,
) {
    match gcd {
        // Without the multiplication, which has no vector form for 64 bits on plain x86-64.
        1 => rows.read(codes, out, move |code| base.wrapping_add(wide(code))),
        _ => rows.read(codes, out, move |code| base.wrapping_add(gcd.wrapping_mul(wide(code)))),
    }
}

/// The validity at some rows; `None` when all are there.
pub(super) fn nulls_at(validity: Option<&NullBuffer>, rows: Rows<'_>) -> Option<NullBuffer> {
    let validity = validity.filter(|validity| validity.null_count() > 0)?;
    let nulls = match rows {
        Rows::Range { start, count } if count == validity.len() && start == 0 => validity.clone(),
        Rows::Range { start, count } => validity.slice(start, count),
        Rows::At(rows) => {
            let bits = validity.inner();
            NullBuffer::new(BooleanBuffer::collect_bool(rows.len(), |place| bits.value(rows[place] as usize)))
        }
    };
    (nulls.null_count() > 0).then_some(nulls)
}

/// The validity at some rows of codes, one of which is that of NULL; `None` when all are there.
pub(super) fn nulls_coded(codes: &Codes, null: Option<u32>, rows: Rows<'_>) -> Option<NullBuffer> {
    let null = u64::from(null?);
    let valid = |place| codes.get(rows.get(place)) != null;
    let nulls = NullBuffer::new(BooleanBuffer::collect_bool(rows.len(), valid));
    (nulls.null_count() > 0).then_some(nulls)
}

/// Calls `visit` with every row that is NULL, in order.
#[inline]
pub(super) fn for_each_null(nulls: &NullBuffer, mut visit: impl FnMut(usize)) {
    for (index, word) in nulls.inner().bit_chunks().iter_padded().enumerate() {
        let rows = nulls.len() - index * 64;
        let mut left = if rows < 64 { !word & ((1 << rows) - 1) } else { !word };
        while left != 0 {
            visit(index * 64 + left.trailing_zeros() as usize);
            left &= left - 1;
        }
    }
}

/// Values and NULLs of an array of ints or nanosecond times.
pub(super) fn int_parts(array: &ArrayRef) -> Option<(ScalarBuffer<i64>, Option<NullBuffer>)> {
    let nulls = || array.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
    if let Some(ints) = array.as_primitive_opt::<Int64Type>() {
        return Some((ints.values().clone(), nulls()));
    }
    let times = array.as_primitive_opt::<TimestampNanosecondType>()?;
    Some((times.values().clone(), nulls()))
}

/// The values of an array of ints or nanosecond times.
pub(super) fn int_values(array: &ArrayRef) -> Option<&[i64]> {
    if let Some(ints) = array.as_primitive_opt::<Int64Type>() {
        return Some(ints.values());
    }
    Some(array.as_primitive_opt::<TimestampNanosecondType>()?.values())
}

/// Values and NULLs of an array of floats.
pub(super) fn float_parts(array: &ArrayRef) -> Option<(ScalarBuffer<f64>, Option<NullBuffer>)> {
    let floats = array.as_primitive_opt::<Float64Type>()?;
    let nulls = floats.nulls().filter(|nulls| nulls.null_count() > 0).cloned();
    Some((floats.values().clone(), nulls))
}
