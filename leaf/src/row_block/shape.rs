//! What each encoding promises about its entry in the directory: which types it is for, and how long its buffers are.

use gannet_query::ColumnType;

use super::layout::{BUFFERS, ColumnMeta, Encoding, ValueRange};

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
    if code_bytes_max > 0 && !(is_width(stored.code_bytes) && stored.code_bytes <= code_bytes_max) {
        return Err(format!("has codes of {} bytes", stored.code_bytes));
    }
    if matches!(stored.encoding, Encoding::Packed | Encoding::Decimal) && stored.gcd < 1 {
        return Err(format!("has the divisor {}", stored.gcd));
    }
    if stored.encoding == Encoding::Decimal && stored.parameter > DECIMAL_DIGITS_MAX {
        return Err(format!("has {} digits, the limit is {DECIMAL_DIGITS_MAX}", stored.parameter));
    }
    if stored.encoding == Encoding::Dictionary && !(1..=row_count).contains(&stored.value_count) {
        return Err(format!("has {} distinct values in {row_count} rows", stored.value_count));
    }
    if stored.encoding == Encoding::Lists {
        let width = stored.parameter;
        if !(is_width(width) && width <= 4) {
            return Err(format!("has list lengths of {width} bytes"));
        }
        let items = &stored.buffers[1];
        if !items.len.is_multiple_of(u64::from(stored.code_bytes)) || stored.value_count > items.len {
            return Err(format!("has {} bytes of item codes for {} values", items.len, stored.value_count));
        }
    }
    Ok(())
}

fn is_width(bytes: u8) -> bool {
    matches!(bytes, 1 | 2 | 4 | 8)
}

/// The length each buffer must have; `None` where only its content tells.
fn buffer_lens(column: &ColumnMeta, row_count: u64) -> Result<[Option<u64>; BUFFERS], String> {
    let stored = &column.stored;
    let validity = Some(if column.null_count > 0 { bit_bytes(row_count) } else { 0 });
    let none = Some(0);
    let codes = Some(row_count * u64::from(stored.code_bytes));
    let offsets = |count: u64| -> Result<Option<u64>, String> {
        count
            .checked_add(1)
            .and_then(|count| count.checked_mul(4))
            .map(Some)
            .ok_or_else(|| format!("has {count} values in its dictionary"))
    };
    Ok(match stored.encoding {
        Encoding::Null => [none; BUFFERS],
        Encoding::Constant if column.column_type == ColumnType::String => [None, none, none, none, none],
        Encoding::Constant => [none; BUFFERS],
        Encoding::Packed | Encoding::Decimal => [codes, validity, none, none, none],
        Encoding::Dictionary => [codes, offsets(stored.value_count)?, None, none, none],
        Encoding::Text => [offsets(row_count)?, None, validity, none, none],
        Encoding::Bits => [Some(bit_bytes(row_count)), validity, none, none, none],
        Encoding::Floats => [Some(row_count * 8), validity, none, none, none],
        Encoding::Lists => {
            let lengths = Some(row_count * u64::from(stored.parameter));
            [lengths, None, offsets(stored.value_count)?, None, validity]
        }
    })
}
