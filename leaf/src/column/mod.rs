//! Columns as a scan sees them, and the encodings behind them.
//!
//! A [`Column`] is one column of one run of rows (a row block, or a chunk of open rows). It keeps the encoding
//! visible, so that a scan can work on codes: evaluate a predicate once per distinct value, compare packed integers
//! without decoding, group by codes. [`Column::to_array`] and [`Column::take`] decode for everything else.
//! The buffers are zero-copy views of the block's image, whoever owns its bytes.

mod decode;

pub use decode::{unpack, unpack_at};

use arrow::array::ArrayRef;
use arrow::buffer::{NullBuffer, ScalarBuffer};

/// Integers in as few bytes as they need.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum Codes {
    U8(ScalarBuffer<u8>),
    U16(ScalarBuffer<u16>),
    U32(ScalarBuffer<u32>),
    U64(ScalarBuffer<u64>),
}

/// One column of one run of rows. All variants stand for values of the run's own column type
/// (`gannet_query::ColumnType`): the arrays inside have that type's Arrow type (`ColumnType::arrow`).
#[derive(Debug, Clone)]
pub enum Column {
    /// Every row has this one value (an array of length one; NULL when no row has a value).
    Constant(ArrayRef),
    /// int and time: value = base + gcd × code. NULL rows have code 0 and are cleared in `validity`.
    Packed {
        /// The smallest value.
        base: i64,
        /// The greatest common divisor of all distances from the base, at least 1.
        gcd: i64,
        /// One code a row.
        codes: Codes,
        /// Absent when no row is NULL.
        validity: Option<NullBuffer>,
    },
    /// string: distinct values, sorted by bytes, and one code a row; NULL rows have the code `values.len()`.
    Dictionary {
        /// The distinct values, without NULL.
        values: ArrayRef,
        /// One code a row, `U8` or `U16` or `U32`.
        codes: Codes,
        /// Whether any row is NULL.
        has_nulls: bool,
    },
    /// Anything else, already as an Arrow array: floats, bools, plain strings, lists, open rows.
    Plain(ArrayRef),
}
