//! A condition on one column: as SQL, as a part of a link (`status:ge:500`), and as JSON (`["status", ">=", 500]`).
//!
//! Only conditions of this simple form are filters, so that whoever reads a link can show them as such; all others stay
//! SQL. A value in a link is what it looks like: a number, `true`, `false`, else a text; texts that would be read as
//! something else are in double quotes, as JSON has them.

use serde_json::Value as Json;

use crate::query::statements::is_closed;
use crate::sql_names::{is_keyword, quoted_name, unquoted};
use crate::sql_tokens::{Kind, Token, tokens};

/// Digits of a number that a float keeps.
const DIGITS_MAX: usize = 17;

/// What a column is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// An integer.
    Int(i64),
    /// A finite number that is no integer.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(String),
}

/// How it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
    /// `in`
    In,
    /// `not in`
    NotIn,
    /// `like`
    Like,
    /// `not like`
    NotLike,
    /// `is null`
    Null,
    /// `is not null`
    NotNull,
}

/// Each comparison in links, and in SQL and JSON.
const NAMES: [(Comparison, &str, &str); 12] = [
    (Comparison::Equal, "eq", "="),
    (Comparison::Unequal, "ne", "!="),
    (Comparison::Less, "lt", "<"),
    (Comparison::AtMost, "le", "<="),
    (Comparison::Greater, "gt", ">"),
    (Comparison::AtLeast, "ge", ">="),
    (Comparison::In, "in", "in"),
    (Comparison::NotIn, "nin", "not in"),
    (Comparison::Like, "like", "like"),
    (Comparison::NotLike, "nlike", "not like"),
    (Comparison::Null, "null", "is null"),
    (Comparison::NotNull, "notnull", "is not null"),
];

impl Comparison {
    fn names(self) -> (&'static str, &'static str) {
        let found = NAMES.iter().find(|(known, ..)| *known == self);
        // Every comparison is in the list, which a test goes through.
        found.map_or(("", ""), |(_, link, sql)| (link, sql))
    }

    fn takes_none(self) -> bool {
        matches!(self, Comparison::Null | Comparison::NotNull)
    }

    fn takes_many(self) -> bool {
        matches!(self, Comparison::In | Comparison::NotIn)
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Filter {
    /// The column, without quotes.
    column: String,
    comparison: Comparison,
    values: Vec<Value>,
}

impl Filter {
    /// A filter that holds as many values as its comparison takes.
    fn new(column: String, comparison: Comparison, values: Vec<Value>) -> Result<Filter, String> {
        let comparison = match (comparison, values.len()) {
            // Several values mean any of them.
            (Comparison::Equal, 2..) => Comparison::In,
            (Comparison::Unequal, 2..) => Comparison::NotIn,
            (other, _) => other,
        };
        let (name, _) = comparison.names();
        if column.is_empty() {
            return Err("it names no column".to_owned());
        }
        match values.len() {
            0 if comparison.takes_none() => {}
            0 => return Err(format!("`{name}` needs a value")),
            _ if comparison.takes_none() => return Err(format!("`{name}` takes no value")),
            1 => {}
            _ if comparison.takes_many() => {}
            _ => return Err(format!("`{name}` takes one value")),
        }
        Ok(Filter { column, comparison, values })
    }

    /// The filter that SQL is, when it is one.
    pub(crate) fn of_sql(sql: &str) -> Option<Filter> {
        if !is_closed(sql) {
            return None;
        }
        let all: Vec<Token<'_>> = tokens(sql).collect();
        let (first, rest) = all.split_first()?;
        let column = match first.kind {
            Kind::Word if !is_keyword(first.text) => first.text.to_owned(),
            Kind::QuotedName => unquoted(first.text),
            _ => return None,
        };
        let (comparison, rest) = comparison(rest)?;
        let values = match comparison {
            Comparison::Null | Comparison::NotNull => rest.is_empty().then(Vec::new)?,
            Comparison::In | Comparison::NotIn => list(rest)?,
            _ => match value(rest)? {
                (value, []) => vec![value],
                _ => return None,
            },
        };
        Filter::new(column, comparison, values).ok()
    }

    /// The filter as SQL.
    pub(crate) fn sql(&self) -> String {
        let (column, (_, name)) = (quoted_name(&self.column), self.comparison.names());
        let values: Vec<String> = self.values.iter().map(Value::sql).collect();
        match self.comparison {
            Comparison::Null | Comparison::NotNull => format!("{column} {name}"),
            Comparison::In | Comparison::NotIn => format!("{column} {name} ({})", values.join(", ")),
            _ => format!("{column} {name} {}", values.concat()),
        }
    }

    /// Reads `column:comparison:value,value`.
    pub(crate) fn of_link(text: &str) -> Result<Filter, String> {
        let wrong = |why: &str| format!("filter `{text}`: {why}");
        let (column, rest) =
            name(text).ok_or_else(|| wrong("must be COLUMN:COMPARISON:VALUE, such as status:ge:500"))?;
        let (word, values) = match rest.split_once(':') {
            Some((word, values)) => (word, parse_values(values).map_err(|why| wrong(&why))?),
            None => (rest, Vec::new()),
        };
        let found = NAMES.iter().find(|(_, link, _)| *link == word);
        let Some((comparison, ..)) = found else {
            let known: Vec<&str> = NAMES.iter().map(|(_, link, _)| *link).collect();
            return Err(wrong(&format!("`{word}` must be one of {}", known.join(", "))));
        };
        Filter::new(column, *comparison, values).map_err(|why| wrong(&why))
    }

    /// The filter as a part of a link.
    pub(crate) fn link(&self) -> String {
        let head = format!("{}:{}", name_text(&self.column), self.comparison.names().0);
        if self.values.is_empty() {
            return head;
        }
        let values: Vec<String> = self.values.iter().map(Value::link).collect();
        format!("{head}:{}", values.join(","))
    }

    /// Reads `[column, comparison, value]`.
    pub(crate) fn of_json(json: &Json) -> Result<Filter, String> {
        let wrong = |why: &str| format!("filter {json}: {why}");
        let parts = json.as_array().map(Vec::as_slice).unwrap_or_default();
        let [Json::String(column), Json::String(word), values @ ..] = parts else {
            return Err(wrong("must be [COLUMN, COMPARISON, VALUE]"));
        };
        let found = NAMES.iter().find(|(_, _, sql)| sql.eq_ignore_ascii_case(word));
        let (comparison, ..) = found.ok_or_else(|| wrong("compares in a way that is not known"))?;
        let values = match values {
            [] => Vec::new(),
            [Json::Array(values)] => values.iter().collect(),
            [value] => vec![value],
            _ => return Err(wrong("must be [COLUMN, COMPARISON, VALUE]")),
        };
        let values: Option<Vec<Value>> = values.into_iter().map(Value::of_json).collect();
        let values = values.ok_or_else(|| wrong("values must be numbers, texts, true or false"))?;
        Filter::new(column.clone(), *comparison, values).map_err(|why| wrong(&why))
    }

    /// The filter as JSON.
    pub(crate) fn json(&self) -> Json {
        let mut parts = vec![Json::from(self.column.as_str()), Json::from(self.comparison.names().1)];
        let mut values: Vec<Json> = self.values.iter().map(Value::json).collect();
        match self.comparison {
            Comparison::Null | Comparison::NotNull => {}
            Comparison::In | Comparison::NotIn => parts.push(Json::Array(values)),
            _ => parts.append(&mut values),
        }
        Json::Array(parts)
    }
}

/// A name at the start of a text and what follows its colon; a name in double quotes is a JSON string.
pub(super) fn name(text: &str) -> Option<(String, &str)> {
    if text.starts_with('"') {
        let (name, rest) = json_text(text)?;
        return Some((name, rest.strip_prefix(':')?));
    }
    let (name, rest) = text.split_once(':')?;
    Some((name.to_owned(), rest))
}

/// A name as [`name`] reads it.
pub(super) fn name_text(name: &str) -> String {
    if name.contains(':') || name.starts_with('"') { Json::from(name).to_string() } else { name.to_owned() }
}

/// The JSON string that a text begins with, and what follows it.
fn json_text(text: &str) -> Option<(String, &str)> {
    let mut reader = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let found = reader.next()?.ok()?;
    let end = reader.byte_offset();
    Some((found, &text[end..]))
}

impl Value {
    fn sql(&self) -> String {
        match self {
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            other => other.plain(),
        }
    }

    /// A number or truth value as everybody writes it; of a text the text.
    fn plain(&self) -> String {
        match self {
            Value::Int(number) => number.to_string(),
            // With a point or an exponent, so that it stays a float.
            Value::Float(number) => format!("{number:?}"),
            Value::Bool(truth) => truth.to_string(),
            Value::Text(text) => text.clone(),
        }
    }

    fn link(&self) -> String {
        let plain = self.plain();
        let reads_back = parse_values(&plain).is_ok_and(|read| read == std::slice::from_ref(self));
        if reads_back { plain } else { Json::from(plain).to_string() }
    }

    fn json(&self) -> Json {
        match self {
            Value::Int(number) => Json::from(*number),
            Value::Float(number) => Json::from(*number),
            Value::Bool(truth) => Json::from(*truth),
            Value::Text(text) => Json::from(text.as_str()),
        }
    }

    fn of_json(json: &Json) -> Option<Value> {
        match json {
            Json::Number(number) => match number.as_i64() {
                Some(number) => Some(Value::Int(number)),
                None => number.as_f64().filter(|number| number.is_finite()).map(Value::Float),
            },
            Json::Bool(truth) => Some(Value::Bool(*truth)),
            Json::String(text) => Some(Value::Text(text.clone())),
            _ => None,
        }
    }

    /// What a word is.
    fn of_word(word: &str) -> Value {
        match word {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => number(word).unwrap_or_else(|| Value::Text(word.to_owned())),
        }
    }
}

/// A number that SQL, JSON and links write alike, and that nothing is lost of.
fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let begins_right = digits.starts_with(|c: char| c.is_ascii_digit());
    if !begins_right || (digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.")) {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Value::Int);
    }
    let count = digits.bytes().filter(u8::is_ascii_digit).count();
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    let number = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    (is_plain && count <= DIGITS_MAX).then_some(Value::Float(number))
}

/// The values of a link: words between commas, or JSON strings.
fn parse_values(text: &str) -> Result<Vec<Value>, String> {
    let mut values = Vec::new();
    let mut rest = text;
    loop {
        let (value, after) = if rest.starts_with('"') {
            let (text, after) = json_text(rest).ok_or("a text lacks its closing \"")?;
            (Value::Text(text), after)
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (Value::of_word(&rest[..end]), &rest[end..])
        };
        values.push(value);
        if after.is_empty() {
            return Ok(values);
        }
        rest = after.strip_prefix(',').ok_or("a comma must follow a text in quotes")?;
    }
}

/// The comparison that tokens begin with, and those behind it.
fn comparison<'a, 'b>(tokens: &'b [Token<'a>]) -> Option<(Comparison, &'b [Token<'a>])> {
    let symbols = tokens.iter().take_while(|token| "=<>!".chars().any(|symbol| token.is_symbol(symbol)));
    let symbols: String = symbols.map(|token| token.text).collect();
    let words: Vec<String> = tokens.iter().take(3).map(|token| token.text.to_ascii_lowercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (found, count) = match (symbols.as_str(), &words[..]) {
        ("=" | "==", _) => (Comparison::Equal, symbols.len()),
        ("!=" | "<>", _) => (Comparison::Unequal, 2),
        ("<", _) => (Comparison::Less, 1),
        ("<=", _) => (Comparison::AtMost, 2),
        (">", _) => (Comparison::Greater, 1),
        (">=", _) => (Comparison::AtLeast, 2),
        (_, ["not", "in", ..]) => (Comparison::NotIn, 2),
        (_, ["not", "like", ..]) => (Comparison::NotLike, 2),
        (_, ["is", "not", "null"]) => (Comparison::NotNull, 3),
        (_, ["is", "null", ..]) => (Comparison::Null, 2),
        (_, ["in", ..]) => (Comparison::In, 1),
        (_, ["like", ..]) => (Comparison::Like, 1),
        _ => return None,
    };
    Some((found, &tokens[count..]))
}

/// The value that tokens begin with, and those behind it.
fn value<'a, 'b>(tokens: &'b [Token<'a>]) -> Option<(Value, &'b [Token<'a>])> {
    let (first, rest) = tokens.split_first()?;
    let found = match first.kind {
        Kind::Number => number(first.text)?,
        Kind::Text if first.text.starts_with('\'') => {
            let inner = first.text.strip_prefix('\'')?.strip_suffix('\'')?;
            Value::Text(inner.replace("''", "'"))
        }
        Kind::Word => match Value::of_word(&first.text.to_ascii_lowercase()) {
            truth @ Value::Bool(_) => truth,
            _ => return None,
        },
        Kind::Symbol if first.is_symbol('-') => {
            let (next, rest) = rest.split_first()?;
            let is_number = next.kind == Kind::Number && next.start == first.end();
            return is_number.then(|| Some((number(&format!("-{}", next.text))?, rest)))?;
        }
        _ => return None,
    };
    Some((found, rest))
}

/// The values in parentheses that tokens are.
fn list(tokens: &[Token<'_>]) -> Option<Vec<Value>> {
    let (open, mut rest) = tokens.split_first()?;
    if !open.is_symbol('(') {
        return None;
    }
    let mut values = Vec::new();
    loop {
        let (found, after) = value(rest)?;
        values.push(found);
        let (next, after) = after.split_first()?;
        if next.is_symbol(')') {
            return after.is_empty().then_some(values);
        }
        if !next.is_symbol(',') {
            return None;
        }
        rest = after;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any filter.
    pub(crate) fn filters() -> impl Strategy<Value = Filter> {
        let value = prop_oneof![
            any::<i64>().prop_map(Value::Int),
            (-1_000_000_i64..1_000_000).prop_map(|n| Value::Float(n as f64 / 64.0)),
            any::<bool>().prop_map(Value::Bool),
            "[a-z0-9 ,:'\"\\\\%&=+ü-]{0,8}".prop_map(Value::Text),
        ];
        let column = "[a-zA-Z_][a-z0-9_.:\" ü]{0,6}";
        (column, 0..NAMES.len(), prop::collection::vec(value, 1..4)).prop_map(|(column, which, values)| {
            let comparison = NAMES[which].0;
            let count = match comparison {
                _ if comparison.takes_none() => 0,
                _ if comparison.takes_many() => values.len(),
                _ => 1,
            };
            Filter::new(column, comparison, values[..count].to_vec()).unwrap()
        })
    }

    #[test]
    fn simple_conditions_are_filters() {
        let check = |sql: &str, link: &str, again: &str| {
            let filter = Filter::of_sql(sql).unwrap_or_else(|| panic!("{sql}"));
            assert_eq!((filter.link().as_str(), filter.sql().as_str()), (link, again), "{sql}");
            assert_eq!(Filter::of_link(link), Ok(filter.clone()));
            assert_eq!(Filter::of_json(&filter.json()), Ok(filter));
        };
        check("status >= 500", "status:ge:500", "status >= 500");
        check("status>=500", "status:ge:500", "status >= 500");
        check("x<>-1.5", "x:ne:-1.5", "x != -1.5");
        check("service = 'cart'", "service:eq:cart", "service = 'cart'");
        check("service = '500'", "service:eq:\"500\"", "service = '500'");
        check("service = ''", "service:eq:", "service = ''");
        check("a = 'it''s, \"x\"'", "a:eq:\"it's, \\\"x\\\"\"", "a = 'it''s, \"x\"'");
        check("ok = TRUE", "ok:eq:true", "ok = true");
        check("region in ('eu','us')", "region:in:eu,us", "region in ('eu', 'us')");
        check("region NOT IN ('a,b', 5)", "region:nin:\"a,b\",5", "region not in ('a,b', 5)");
        check("url like '%/cart%'", "url:like:%/cart%", "url like '%/cart%'");
        check("a is null", "a:null", "a is null");
        check("user.id IS NOT NULL", "user.id:notnull", "user.id is not null");
        check("\"a:b\" = 1", "\"a:b\":eq:1", "\"a:b\" = 1");
        for sql in [
            "",
            "status",
            "not ok",
            "a = b",
            "a = 1 or b = 2",
            "a = 1 -- x",
            "f(a) = 1",
            "a + 1 = 2",
            "a in (select 1)",
            "a in ()",
            "a = 99999999999999999999",
            "a = 007",
            "a between 1 and 2",
            "a = 'x",
            "a = $$x$$",
            "a = - 1",
            "in = 1",
            "a = 1)",
            "a in (1,)",
            "a is",
            "a like 'x' escape '!'",
        ] {
            assert_eq!(Filter::of_sql(sql), None, "{sql}");
        }
    }

    #[test]
    fn what_is_no_filter_is_named() {
        let check = |text: &str, why: &str| {
            assert_eq!(Filter::of_link(text), Err(format!("filter `{text}`: {why}")));
        };
        check("status", "must be COLUMN:COMPARISON:VALUE, such as status:ge:500");
        check(":eq:1", "it names no column");
        check("a:gte:1", "`gte` must be one of eq, ne, lt, le, gt, ge, in, nin, like, nlike, null, notnull");
        check("a:ge", "`ge` needs a value");
        check("a:ge:1,2", "`ge` takes one value");
        check("a:null:1", "`null` takes no value");
        check("a:eq:\"x", "a text lacks its closing \"");
        check("a:in:\"x\"y", "a comma must follow a text in quotes");
        assert_eq!(Filter::of_link("a:eq:x,y"), Filter::of_link("a:in:x,y"));
        let json = serde_json::json!(["a", ">=", null]);
        let why = "filter [\"a\",\">=\",null]: values must be numbers, texts, true or false";
        assert_eq!(Filter::of_json(&json), Err(why.to_owned()));
    }

    proptest! {
        #[test]
        fn filters_come_back(filter in filters()) {
            prop_assert_eq!(Filter::of_link(&filter.link()), Ok(filter.clone()));
            prop_assert_eq!(Filter::of_json(&filter.json()), Ok(filter.clone()));
            prop_assert!(is_closed(&filter.sql()));
            prop_assert_eq!(Filter::of_sql(&filter.sql()), Some(filter));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a-z:,\"'\\\\0-9ü=<>()-]{0,24}") {
            let _ = Filter::of_sql(&text);
            if let Ok(filter) = Filter::of_link(&text) {
                prop_assert_eq!(Filter::of_link(&filter.link()), Ok(filter));
            }
        }
    }
}
