//! Why one row was rejected.

/// The reason a row could not be taken; its text goes to the sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Not JSON.
    #[error("not JSON at byte {at}: {what}")]
    Json {
        /// What was found or missing.
        what: &'static str,
        /// Offset in the row.
        at: usize,
    },
    /// JSON, but not an object.
    #[error("a row must be a JSON object, this is {0}")]
    NotAnObject(&'static str),
    /// Objects and lists too deep in each other.
    #[error("values are nested deeper than the limit of {limit} levels")]
    Nesting {
        /// The limit.
        limit: usize,
    },
    /// Too many columns.
    #[error("row has more columns than the limit of {limit}")]
    Columns {
        /// The limit.
        limit: usize,
    },
    /// A column's name is too long.
    #[error("column name {name}… of {bytes} bytes is longer than the limit of {limit} bytes")]
    ColumnName {
        /// How it begins.
        name: String,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A column without a name.
    #[error("a column has an empty name")]
    EmptyName,
    /// A value is too long.
    #[error("column {column}: value of {bytes} bytes is longer than the limit of {limit} bytes")]
    Value {
        /// The column.
        column: String,
        /// The value's length, or how much of it was read.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not a time, or one out of range.
    #[error("column {column}: {value} is not a time between the years 1678 and 2261")]
    Time {
        /// The column.
        column: String,
        /// The value, shortened.
        value: String,
    },
    /// Not a usable sample rate.
    #[error("column sample_rate: {value} is not a number from 1 to 9007199254740992")]
    SampleRate {
        /// The value, shortened.
        value: String,
    },
    /// The line, object or record is too long.
    #[error("row is longer than the limit of {limit} bytes")]
    RowLength {
        /// The limit.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("not UTF-8 at byte {at}")]
    Utf8 {
        /// Offset in the row, for CSV without its delimiters and quotes.
        at: usize,
    },
    /// A CSV record with more or fewer fields than the header.
    #[error("record has {fields} fields, expected {expected}")]
    Fields {
        /// Its fields.
        fields: usize,
        /// The header's.
        expected: usize,
    },
    /// A CSV record that ends inside quotes.
    #[error("a quoted field is never closed")]
    OpenQuote,
}

/// A value as errors show it: at most 64 characters.
pub(super) fn shown(value: &str) -> String {
    const SHOWN_CHARS: usize = 64;
    match value.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}
