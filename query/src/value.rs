//! Types and single values.
//!
//! A user's column has one of five types, and `time` is the sixth. A column may change its type from block to
//! block; a [`TypeSet`] remembers which types were ever seen, and resolves to the least type that holds them all.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, TimeUnit};

/// The type of a table's column, as the user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ColumnType {
    /// true or false
    Bool,
    /// 64-bit signed integer
    Int,
    /// 64-bit float
    Float,
    /// UTF-8 text
    String,
    /// a list of UTF-8 texts
    Strings,
    /// nanoseconds UTC; only the column `time` has this type
    Time,
}

impl ColumnType {
    /// The word users read in DESCRIBE and in answers.
    pub fn name(self) -> &'static str {
        match self {
            ColumnType::Bool => "bool",
            ColumnType::Int => "int",
            ColumnType::Float => "float",
            ColumnType::String => "string",
            ColumnType::Strings => "strings",
            ColumnType::Time => "time",
        }
    }

    /// The Arrow type that carries this column in open rows, on the wire and in DataFusion.
    pub fn arrow(self) -> DataType {
        match self {
            ColumnType::Bool => DataType::Boolean,
            ColumnType::Int => DataType::Int64,
            ColumnType::Float => DataType::Float64,
            ColumnType::String => DataType::Utf8,
            ColumnType::Strings => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
            ColumnType::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())),
        }
    }

    /// The column type an Arrow type stands for, if it is one of the six (see [`ColumnType::arrow`]).
    pub fn from_arrow(data_type: &DataType) -> Option<ColumnType> {
        match data_type {
            DataType::Boolean => Some(ColumnType::Bool),
            DataType::Int64 => Some(ColumnType::Int),
            DataType::Float64 => Some(ColumnType::Float),
            DataType::Utf8 => Some(ColumnType::String),
            DataType::List(item) if item.data_type() == &DataType::Utf8 => Some(ColumnType::Strings),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(ColumnType::Time),
            _ => None,
        }
    }
}

/// The set of types a column was seen with, over blocks and leaves. Union is merge; order does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct TypeSet(u8);

/// Integers of larger magnitude are not exact as floats.
pub const EXACT_INT_MAX: i64 = 1 << 53;

impl TypeSet {
    const BOOL: u8 = 1;
    const INT: u8 = 2;
    const WIDE_INT: u8 = 4;
    const FLOAT: u8 = 8;
    const STRING: u8 = 16;
    const STRINGS: u8 = 32;
    const TIME: u8 = 64;

    /// The set with one type in it. `wide` says that a column of ints holds values beyond ±2^53, which no float
    /// represents exactly; it is ignored for other types.
    pub fn of(column_type: ColumnType, wide: bool) -> TypeSet {
        TypeSet(match column_type {
            ColumnType::Bool => Self::BOOL,
            ColumnType::Int if wide => Self::INT | Self::WIDE_INT,
            ColumnType::Int => Self::INT,
            ColumnType::Float => Self::FLOAT,
            ColumnType::String => Self::STRING,
            ColumnType::Strings => Self::STRINGS,
            ColumnType::Time => Self::TIME,
        })
    }

    /// Both sets together.
    #[must_use]
    pub fn union(self, other: TypeSet) -> TypeSet {
        TypeSet(self.0 | other.0)
    }

    /// The bits, for the wire and for disk.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// A set from its bits; unknown bits are dropped.
    pub fn from_bits(bits: u8) -> TypeSet {
        TypeSet(bits & 127)
    }

    /// True when the column holds integers beyond ±2^53.
    pub fn is_wide(self) -> bool {
        self.0 & Self::WIDE_INT != 0
    }

    /// The least type that holds every value seen: bool → int → float → string, anything with strings → strings,
    /// and int → float goes to string when integers beyond 2^53 were seen. `None` for the empty set.
    pub fn resolve(self) -> Option<ColumnType> {
        let has = |bit: u8| self.0 & bit != 0;
        if self.0 == 0 {
            None
        } else if has(Self::STRINGS) {
            Some(ColumnType::Strings)
        } else if has(Self::STRING) {
            Some(ColumnType::String)
        } else if has(Self::TIME) {
            Some(if self.0 == Self::TIME { ColumnType::Time } else { ColumnType::String })
        } else if has(Self::FLOAT) {
            Some(if has(Self::WIDE_INT) { ColumnType::String } else { ColumnType::Float })
        } else if has(Self::INT) {
            Some(ColumnType::Int)
        } else {
            Some(ColumnType::Bool)
        }
    }
}

/// One value of any type: what an oracle, a test or a single state holds. Columns never use it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// absent
    Null,
    /// true or false
    Bool(bool),
    /// an integer, or a time or date as its integer
    Int(i64),
    /// a float
    Float(f64),
    /// text
    String(String),
    /// a list of texts
    Strings(Vec<String>),
}

/// Bytes that the rows of a batch take. Arrays that share a buffer, as those of one message do, count only the part of
/// it that is theirs.
pub fn rows_bytes(rows: &RecordBatch) -> usize {
    let bytes = |array: &ArrayRef| {
        array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
    };
    rows.columns().iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(types: &[(ColumnType, bool)], expect: ColumnType) {
        let set = types.iter().fold(TypeSet::default(), |set, (t, wide)| set.union(TypeSet::of(*t, *wide)));
        assert_eq!(set.resolve(), Some(expect), "{types:?}");
    }

    #[test]
    fn the_least_type_holds_all() {
        use ColumnType::*;
        check(&[(Bool, false)], Bool);
        check(&[(Bool, false), (Int, false)], Int);
        check(&[(Bool, false), (Float, false)], Float);
        check(&[(Int, false), (Float, false)], Float);
        check(&[(Int, true), (Float, false)], String);
        check(&[(Int, true)], Int);
        check(&[(Float, false), (String, false)], String);
        check(&[(String, false), (Strings, false)], Strings);
        check(&[(Int, false), (Strings, false)], Strings);
        check(&[(Time, false)], Time);
        assert_eq!(TypeSet::default().resolve(), None);
    }
}
