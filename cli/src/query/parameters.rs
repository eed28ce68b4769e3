//! `--param NAME=VALUE`: values put into SQL as literals, so that no value can become anything else than a value.
//!
//! The type is taken from the text (`42`, `0.5`, `true`, `null`, else a string), or named: `NAME:string=42`.

use std::collections::BTreeSet;
use std::fmt;

use crate::outcome::Failure;
use crate::query::statements::{Statement, parameters};

/// A parameter with its value as SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parameter {
    name: String,
    literal: String,
}

/// The types a value may be said to have.
const TYPES: [&str; 5] = ["string", "int", "float", "bool", "time"];

/// Reads `name=value` and `name:type=value`.
pub(crate) fn parse(text: &str) -> Result<Parameter, String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("parameter `{text}` must be NAME=VALUE"))?;
    let (name, type_name) = match name.split_once(':') {
        Some((name, type_name)) => (name, Some(type_name)),
        None => (name, None),
    };
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Err(format!("parameter name `{name}` must be letters, digits and _"));
    }
    let literal = match type_name {
        None => guessed(value),
        Some(type_name) => typed(name, type_name, value)?,
    };
    Ok(Parameter { name: name.to_owned(), literal })
}

fn guessed(value: &str) -> String {
    match value.to_ascii_lowercase().as_str() {
        keyword @ ("true" | "false" | "null") => keyword.to_owned(),
        _ if value.parse::<i64>().is_ok() && !value.starts_with('+') => number(value),
        _ if is_decimal(value) => number(value),
        _ => string(value),
    }
}

fn typed(name: &str, type_name: &str, value: &str) -> Result<String, String> {
    let wrong = || format!("parameter `{name}` is `{value}`, must be {type_name}");
    match type_name {
        "string" => Ok(string(value)),
        "int" => value.parse::<i64>().map(|_| number(value.trim_start_matches('+'))).map_err(|_| wrong()),
        "float" if is_decimal(value) || value.parse::<i64>().is_ok() => {
            Ok(format!("CAST({} AS DOUBLE)", string(value)))
        }
        "bool" => match value.to_ascii_lowercase().as_str() {
            keyword @ ("true" | "false") => Ok(keyword.to_owned()),
            _ => Err(wrong()),
        },
        "time" if !value.is_empty() => Ok(format!("TIMESTAMP {}", string(value))),
        other if TYPES.contains(&other) => Err(wrong()),
        other => Err(format!("parameter `{name}` has type `{other}`, must be one of {}", TYPES.join(", "))),
    }
}

/// Digits with a point or an exponent, and nothing that only looks like a number to a machine (`inf`, `nan`).
fn is_decimal(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte))
        && value.bytes().any(|byte| byte.is_ascii_digit())
        && !value.starts_with('+')
        && value.parse::<f64>().is_ok_and(f64::is_finite)
}

/// A sign before a number could meet another one in the SQL and begin a comment: `5 -$n`.
fn number(value: &str) -> String {
    if value.starts_with('-') { format!("({value})") } else { value.to_owned() }
}

fn string(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name, self.literal)
    }
}

/// Puts the values into all statements. Without any value, SQL is left as it is.
pub(crate) fn fill(statements: &mut [Statement], values: &[Parameter]) -> Result<(), Failure> {
    if values.is_empty() {
        return Ok(());
    }
    let mut used = BTreeSet::new();
    for statement in statements {
        let mut sql = String::with_capacity(statement.sql.len());
        let mut copied = 0;
        for (range, name) in parameters(&statement.sql) {
            // The last value of a name counts, as with other flags.
            let Some(value) = values.iter().rev().find(|value| value.name == name) else {
                return Err(Failure::usage(format!("parameter ${name} of the SQL has no value"))
                    .hint(format!("give it one with --param {name}=VALUE")));
            };
            used.insert(value.name.clone());
            sql.push_str(&statement.sql[copied..range.start]);
            sql.push_str(&value.literal);
            copied = range.end;
        }
        sql.push_str(&statement.sql[copied..]);
        statement.sql = sql;
    }
    match values.iter().find(|value| !used.contains(&value.name)) {
        None => Ok(()),
        Some(value) => Err(Failure::usage(format!("the SQL has no parameter ${}", value.name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::statements::split;

    fn check(sql: &str, values: &[&str], expect: Result<&str, &str>) {
        let values: Result<Vec<Parameter>, String> = values.iter().map(|value| parse(value)).collect();
        let found = values.and_then(|values| {
            let mut statements = split(sql);
            fill(&mut statements, &values).map_err(|failure| failure.message)?;
            Ok(statements.into_iter().map(|statement| statement.sql).collect::<Vec<_>>().join("; "))
        });
        assert_eq!(found, expect.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn values_are_typed_literals() {
        check("a = $a", &["a=42"], Ok("a = 42"));
        check("5 -$a", &["a=-42"], Ok("5 -(-42)"));
        check("$a", &["a=0.5"], Ok("0.5"));
        check("$a", &["a=1e3"], Ok("1e3"));
        check("$a, $b, $c", &["a=TRUE", "b=null", "c="], Ok("true, null, ''"));
        check("$a", &["a=it's; --"], Ok("'it''s; --'"));
        check("$a", &["a=inf"], Ok("'inf'"));
        check("$a", &["a=007x"], Ok("'007x'"));
        check("$a", &["a=99999999999999999999"], Ok("99999999999999999999"));
        check("$a", &["a:string=42"], Ok("'42'"));
        check("$a", &["a:float=42"], Ok("CAST('42' AS DOUBLE)"));
        check("time > $a", &["a:time=2026-11-21 09:00:00"], Ok("time > TIMESTAMP '2026-11-21 09:00:00'"));
        check("$a; '$a' $a", &["a=1", "a=2"], Ok("2; '$a' 2"));
        check("$a", &[], Ok("$a"));
    }

    #[test]
    fn mistakes_are_named() {
        check("$a", &["a"], Err("parameter `a` must be NAME=VALUE"));
        check("$a", &["a b=1"], Err("parameter name `a b` must be letters, digits and _"));
        check("$a", &["a:int=x"], Err("parameter `a` is `x`, must be int"));
        check(
            "$a",
            &["a:date=x"],
            Err("parameter `a` has type `date`, must be one of string, int, float, bool, time"),
        );
        check("$a $b", &["a=1"], Err("parameter $b of the SQL has no value"));
        check("$a", &["a=1", "b=1"], Err("the SQL has no parameter $b"));
    }
}
