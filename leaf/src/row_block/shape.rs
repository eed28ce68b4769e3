//! What each encoding promises about its entry in the directory: which types it is for, and how long its buffers are.

use gannet_query::ColumnType;

use super::layout::{BUFFERS, ColumnMeta, Encoding, ValueRange};
use crate::packing::Packing;

/// The most digits after the point of a decimal: 10^15 × a value of 15 digits is still exact.
pub(super) const DECIMAL_DIGITS_MAX: u8 = 15;

/// Bytes of one bit for every row.
fn bit_bytes(row_count: u64) -> u64 {
    row_count.div_ceil(8)
}

/// Checks everything about a column that can be known without its buffers.
pub(super) fn check(column: &ColumnMeta, row_count: u64) -> Result<(), String> {
    let stored = &column.stored;
    if column.null_count > row_count {
        return Err(format!("has {} rows without value of {row_count}", column.null_count));
    }
    if (column.null_count == row_count) != (stored.encoding == Encoding::Null) {
        return Err("is stored as NULL but has values, or has none but is not".to_owned());
    }
    if matches!(column.range, Some(ValueRange::Int(first, last)) if first > last) {
        return Err("has a range that ends before it begins".to_owned());
    }
    check_numbers(column, row_count)?;
    let lens = buffer_lens(column, row_count)?;
    for (index, (place, len)) in stored.buffers.iter().zip(lens).enumerate() {
        if len.is_some_and(|len| len != place.len) {
            let (found, expect) = (place.len, len.unwrap_or(0));
            return Err(format!("buffer {index} has {found} bytes instead of {expect}"));
        }
    }
    Ok(())
}

fn check_numbers(column: &ColumnMeta, row_count: u64) -> Result<(), String> {
    use ColumnType::{Bool, Float, Int, String, Strings, Time};
    let stored = &column.stored;
    let (types, code_bytes_max): (&[ColumnType], u8) = match stored.encoding {
        Encoding::IntDictionary => (&[Int, Time], 4),
        Encoding::FloatDictionary => (&[Float], 4),
        Encoding::Hex | Encoding::Template => (&[String], 0),
        Encoding::Null => (&[Bool, Int, Float, String, Strings, Time], 0),
        Encoding::Constant => (&[Bool, Int, Float, String, Time], 0),
        Encoding::Packed => (&[Int, Time], 8),
        Encoding::Dictionary => (&[String], 4),
        Encoding::Text => (&[String], 0),
        Encoding::Bits => (&[Bool], 0),
        Encoding::Floats => (&[Float], 0),
        Encoding::Decimal => (&[Float], 8),
        Encoding::Lists => (&[Strings], 4),
    };
    if !types.contains(&column.column_type) {
        return Err(format!("of type {} is stored as {}", column.column_type.name(), column.encoding()));
    }
    if stored.encoding == Encoding::Constant && column.null_count != 0 {
        return Err("is constant but has rows without value".to_owned());
    }
    match code_bytes_max {
        0 if stored.packing != Packing::default() => return Err("has codes where there are none".to_owned()),
        0 => {}
        bytes_max => stored.packing.check(bytes_max)?,
    }
    if column.int_sum.is_some() && column.column_type != Int {
        return Err(format!("of type {} has a sum", column.column_type.name()));
    }
    if matches!(stored.encoding, Encoding::Packed | Encoding::Decimal) && stored.gcd < 1 {
        return Err(format!("has the divisor {}", stored.gcd));
    }
    if stored.encoding == Encoding::Decimal && stored.parameter > DECIMAL_DIGITS_MAX {
        return Err(format!("has {} digits, the limit is {DECIMAL_DIGITS_MAX}", stored.parameter));
    }
    let is_dictionary =
        matches!(stored.encoding, Encoding::Dictionary | Encoding::IntDictionary | Encoding::FloatDictionary);
    if is_dictionary && !(1..=row_count).contains(&stored.value_count) {
        return Err(format!("has {} distinct values in {row_count} rows", stored.value_count));
    }
    if stored.encoding == Encoding::Lists {
        let items = stored.gcd;
        let items_max = i64::from(i32::MAX);
        if !(0..=items_max).contains(&items) || stored.value_count > items as u64 {
            return Err(format!("has {items} items of {} values", stored.value_count));
        }
        if stored.packing.framed || stored.packing.patches > 0 {
            return Err("has item codes with bases or patches".to_owned());
        }
        list_lengths(column).check(4)?;
    }
    Ok(())
}

/// How the list lengths of a column of lists are stored.
pub(super) fn list_lengths(column: &ColumnMeta) -> Packing {
    let bits = column.stored.parameter;
    let bytes = match bits {
        0..=8 => 1,
        9..=16 => 2,
        _ => 4,
    };
    Packing { bits, bytes, framed: false, patches: 0 }
}

/// The length each buffer must have; `None` where only its content tells.
fn buffer_lens(column: &ColumnMeta, row_count: u64) -> Result<[Option<u64>; BUFFERS], String> {
    let stored = &column.stored;
    let validity = Some(if column.null_count > 0 { bit_bytes(row_count) } else { 0 });
    let none = Some(0);
    let codes = Some(stored.packing.stored_bytes(row_count as usize) as u64);
    let offsets = |count: u64| -> Result<Option<u64>, String> {
        count
            .checked_add(1)
            .and_then(|count| count.checked_mul(4))
            .map(Some)
            .ok_or_else(|| format!("has {count} values in its dictionary"))
    };
    Ok(match stored.encoding {
        Encoding::Null => [none; BUFFERS],
        Encoding::Constant if column.column_type == ColumnType::String => {
            [None, none, none, none, none, none]
        }
        Encoding::Constant => [none; BUFFERS],
        Encoding::Packed | Encoding::Decimal => [codes, validity, none, none, none, none],
        Encoding::Dictionary => [codes, offsets(stored.value_count)?, None, none, none, none],
        Encoding::IntDictionary | Encoding::FloatDictionary => {
            [codes, Some(stored.value_count * 8), none, none, none, none]
        }
        Encoding::Hex | Encoding::Template => [None, None, None, None, validity, None],
        Encoding::Text => [offsets(row_count)?, None, validity, none, none, none],
        Encoding::Bits => [Some(bit_bytes(row_count)), validity, none, none, none, none],
        Encoding::Floats => [Some(row_count * 8), validity, none, none, none, none],
        Encoding::Lists => {
            let lengths = Some(list_lengths(column).stored_bytes(row_count as usize) as u64);
            let items = Some(stored.packing.stored_bytes(stored.gcd as usize) as u64);
            [lengths, items, offsets(stored.value_count)?, None, validity, none]
        }
    })
}
