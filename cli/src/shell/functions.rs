//! The functions of SQL that are worth knowing here: what they take, and what for.
//!
//! Only a choice of the scalar functions is listed. What one takes is an example that a test asks a server about.

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it takes, as it could stand in a statement over columns `x`, `y`, `text`, `tags` and `time`.
    pub(crate) takes: &'static str,
    /// What it gives.
    pub(crate) gives: &'static str,
    /// In a few words.
    pub(crate) says: &'static str,
}

const fn function(
    name: &'static str,
    takes: &'static str,
    gives: &'static str,
    says: &'static str,
) -> Function {
    Function { name, takes, gives, says }
}

/// Aggregates first, then by what they work on.
pub(crate) const FUNCTIONS: [Function; 74] = [
    function("count", "*", "int", "events, weighted by sample_rate; count(x) those with a value"),
    function("sum", "x", "number", "weighted sum"),
    function("avg", "x", "float", "weighted average"),
    function("min", "x", "same", "smallest value"),
    function("max", "x", "same", "largest value"),
    function("p50", "x", "float", "median, within 1 %"),
    function("p75", "x", "float", "75th percentile, within 1 %"),
    function("p90", "x", "float", "90th percentile, within 1 %"),
    function("p95", "x", "float", "95th percentile, within 1 %"),
    function("p99", "x", "float", "99th percentile, within 1 %"),
    function("p999", "x", "float", "99.9th percentile, within 1 %"),
    function("median", "x", "float", "median, within 1 %"),
    function("approx_percentile_cont", "x, 0.9", "float", "any percentile, within 1 %"),
    function("approx_distinct", "x", "int", "different values, with a standard error of 0.8 %"),
    function("histogram", "x, 10", "list", "counts by buckets of a width"),
    function("first_value", "x", "same", "the value of the oldest event"),
    function("last_value", "x", "same", "the value of the newest event"),
    function("stddev", "x", "float", "standard deviation of a sample"),
    function("var_samp", "x", "float", "variance of a sample"),
    function("unweighted", "count(*)", "same", "an aggregate over stored rows, without sample_rate"),
    function("now", "", "time", "the time of the query"),
    function("time_bucket", "'5m', time", "time", "the beginning of a bucket of time"),
    function("date_trunc", "'minute', time", "time", "cut to second, minute, hour, day, week, month"),
    function("date_bin", "interval '5 minutes', time", "time", "the beginning of a bucket of time"),
    function("date_part", "'hour', time", "number", "a part of a time: hour, dow, day, month, year"),
    function(
        "to_timestamp",
        "'2026-11-21 09:00:00'",
        "time",
        "a time from text, or from a number of seconds",
    ),
    function("to_char", "time, '%H:%M'", "string", "a time as text"),
    function("contains_any", "tags, 'a', 'b'", "bool", "a list holds one of these"),
    function("contains_all", "tags, 'a', 'b'", "bool", "a list holds all of these"),
    function("contains_none", "tags, 'a', 'b'", "bool", "a list holds none of these"),
    function("list_starts", "tags, 'a'", "bool", "a list begins with these"),
    function("list_ends", "tags, 'a'", "bool", "a list ends with these"),
    function("array_length", "tags", "int", "how many items a list has"),
    function("array_to_string", "tags, ','", "string", "the items of a list as text"),
    function("coalesce", "x, y", "same", "the first that is not NULL"),
    function("nullif", "x, y", "same", "NULL when both are equal"),
    function("greatest", "x, y", "same", "the larger"),
    function("least", "x, y", "same", "the smaller"),
    function("lower", "text", "string", "in small letters"),
    function("upper", "text", "string", "in capital letters"),
    function("length", "text", "int", "characters"),
    function("octet_length", "text", "int", "bytes"),
    function("substr", "text, 1, 3", "string", "a part, counted from 1"),
    function("left", "text, 3", "string", "the first characters"),
    function("right", "text, 3", "string", "the last characters"),
    function("trim", "text", "string", "without blanks at both ends"),
    function("concat", "text, 'b'", "string", "put together"),
    function("replace", "text, 'a', 'b'", "string", "every place replaced"),
    function("split_part", "text, '/', 1", "string", "the nth part between delimiters"),
    function("strpos", "text, 'a'", "int", "where a part begins, from 1; 0 when nowhere"),
    function("starts_with", "text, 'a'", "bool", "begins with this"),
    function("ends_with", "text, 'a'", "bool", "ends with this"),
    function("contains", "text, 'a'", "bool", "holds this"),
    function("regexp_like", "text, '^a'", "bool", "matches"),
    function("regexp_replace", "text, '^a', 'b'", "string", "the first match replaced; 'g' for all"),
    function("regexp_count", "text, 'a+'", "int", "how often it matches"),
    function("reverse", "text", "string", "backwards"),
    function("lpad", "text, 8, ' '", "string", "filled at the left"),
    function("rpad", "text, 8, ' '", "string", "filled at the right"),
    function("encode", "text, 'hex'", "string", "as hex or base64"),
    function("abs", "x", "number", "without its sign"),
    function("round", "x, 2", "number", "rounded"),
    function("floor", "x", "number", "rounded down"),
    function("ceil", "x", "number", "rounded up"),
    function("trunc", "x", "number", "rounded towards 0"),
    function("sqrt", "x", "float", "square root"),
    function("power", "x, y", "number", "x to the power of y"),
    function("exp", "x", "float", "e to the power of x"),
    function("ln", "x", "float", "natural logarithm"),
    function("log10", "x", "float", "logarithm of base 10"),
    function("log2", "x", "float", "logarithm of base 2"),
    function("row_number", "", "int", "position in a window, with OVER (…)"),
    function("lag", "x", "same", "value of the row before, with OVER (…)"),
    function("lead", "x", "same", "value of the row after, with OVER (…)"),
];

impl Function {
    /// `p99(x) → float`.
    pub(crate) fn signature(&self) -> String {
        format!("{}({}) → {}", self.name, self.takes, self.gives)
    }
}

/// The function of this name, in whatever case.
pub(super) fn named(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name.eq_ignore_ascii_case(name))
}
