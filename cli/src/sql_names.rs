//! Words and names of SQL: which words it takes for itself, and how a name is written that is like none of them.

/// What may begin a statement.
pub(crate) const BEGINNINGS: [&str; 7] =
    ["select", "with", "show tables", "describe", "explain", "explain analyze", "values"];

/// Words inside a statement.
pub(crate) const KEYWORDS: [&str; 52] = [
    "and",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "cross join",
    "desc",
    "distinct",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "filter",
    "from",
    "full join",
    "group by",
    "having",
    "ilike",
    "in",
    "inner join",
    "intersect",
    "interval",
    "is",
    "is not null",
    "is null",
    "join",
    "left join",
    "like",
    "limit",
    "not",
    "null",
    "nulls first",
    "nulls last",
    "offset",
    "on",
    "or",
    "order by",
    "over",
    "partition by",
    "right join",
    "select",
    "then",
    "timestamp",
    "true",
    "union",
    "union all",
    "when",
    "where",
];

/// Words after which the list of tables is over.
pub(crate) const CLAUSES: [&str; 12] = [
    "select", "from", "where", "group", "having", "order", "limit", "offset", "on", "using", "union",
    "window",
];

/// A word that SQL takes for itself, or a part of one.
pub(crate) fn is_keyword(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    CLAUSES.contains(&word.as_str())
        || KEYWORDS.iter().any(|keyword| keyword.split(' ').any(|part| part == word))
        || BEGINNINGS.iter().any(|keyword| keyword.split(' ').any(|part| part == word))
}

/// A name without its quotes.
pub(crate) fn unquoted(name: &str) -> String {
    let quote = match name.chars().next() {
        Some(quote @ ('"' | '`')) => quote,
        _ => return name.to_owned(),
    };
    let inner = &name[1..];
    let inner = inner.strip_suffix(quote).unwrap_or(inner);
    inner.replace(&format!("{quote}{quote}"), &quote.to_string())
}

/// A name as SQL needs it: in quotes unless it is a plain word.
pub(crate) fn quoted_name(name: &str) -> String {
    let is_start = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_plain = name.split('.').all(|part| {
        part.starts_with(is_start) && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    if is_plain && !is_keyword(name) { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let check = |name: &str, quoted: &str| {
            assert_eq!((quoted_name(name).as_str(), unquoted(quoted).as_str()), (quoted, name));
        };
        check("requests", "requests");
        check("user.id", "user.id");
        check("order", "\"order\"");
        check("a b", "\"a b\"");
        check("a\"b", "\"a\"\"b\"");
        check("1st", "\"1st\"");
        check("größe", "\"größe\"");
        check("", "\"\"");
        assert_eq!(unquoted("`a``b`"), "a`b");
        assert_eq!(unquoted("\"open"), "open");
    }
}
