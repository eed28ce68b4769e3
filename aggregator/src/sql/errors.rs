//! DataFusion's errors as users read them: short message, detail, hint, position.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use super::suggest::{did_you_mean, quoted_list};
use crate::error::{ErrorCode, Failure};

/// A failure of ours on its way through DataFusion; [`failure`] takes it out unchanged.
pub(super) fn external(failure: Failure) -> DataFusionError {
    DataFusionError::External(Box::new(failure))
}

/// What a user is told about an error of DataFusion.
pub(super) fn failure(error: &DataFusionError) -> Failure {
    if let Some(ours) = find_ours(error) {
        return ours.clone();
    }
    match error {
        DataFusionError::Context(_, inner) => failure(inner),
        DataFusionError::Shared(inner) => failure(inner),
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let told = failure(inner);
            match diagnostic.span {
                Some(span) if told.position.is_none() => told.at(span.start.line, span.start.column),
                _ => told,
            }
        }
        DataFusionError::Collection(all) => match all.first() {
            Some(first) => failure(first),
            None => Failure::new(ErrorCode::Internal, "planning failed without a reason"),
        },
        DataFusionError::SQL(error, _) => parser_failure(&error.to_string()),
        DataFusionError::SchemaError(error, _) => schema_failure(error),
        DataFusionError::ArrowError(error, _) => arrow_failure(error),
        DataFusionError::ResourcesExhausted(what) => {
            Failure::new(ErrorCode::TooLarge, "the query needs more memory than it may have")
                .detail(what.clone())
                .hint("Narrow the time range, group by fewer columns, or add a LIMIT.")
        }
        DataFusionError::NotImplemented(what) => told(ErrorCode::Unsupported, what),
        DataFusionError::Plan(what)
        | DataFusionError::Configuration(what)
        | DataFusionError::Execution(what) => told(ErrorCode::BadRequest, what),
        DataFusionError::External(error) => match error.downcast_ref::<DataFusionError>() {
            Some(inner) => failure(inner),
            None => library_failure(&error.to_string()),
        },
        other => Failure::new(ErrorCode::Internal, "the query could not be planned or run")
            .detail(short(&other.to_string())),
    }
}

/// A failure of ours anywhere in the chain of causes.
fn find_ours(error: &DataFusionError) -> Option<&Failure> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return Some(failure);
        }
        if let Some(DataFusionError::External(inner)) = error.downcast_ref::<DataFusionError>()
            && let Some(failure) = inner.downcast_ref::<Failure>()
        {
            return Some(failure);
        }
        if let Some(arrow::error::ArrowError::ExternalError(inner)) = error.downcast_ref()
            && let Some(failure) = inner.downcast_ref::<Failure>()
        {
            return Some(failure);
        }
        cause = error.source();
    }
    None
}

/// The parser's message without its place, which becomes the position.
pub(super) fn parser_failure(message: &str) -> Failure {
    let message = message.trim_start_matches("sql parser error: ");
    if message.contains("recursion limit") {
        return Failure::new(ErrorCode::TooLarge, "sql nests deeper than the limit of 50");
    }
    let (text, place) = match message.rfind(" at Line: ") {
        Some(at) => (&message[..at], &message[at + " at Line: ".len()..]),
        None => (message, ""),
    };
    let told = Failure::new(ErrorCode::BadRequest, format!("sql does not parse: {}", lower_first(text)));
    match place.split_once(", Column: ") {
        Some((line, column)) => match (line.trim().parse(), column.trim().parse()) {
            (Ok(line), Ok(column)) => told.at(line, column),
            _ => told,
        },
        None => told,
    }
}

fn schema_failure(error: &SchemaError) -> Failure {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let names: Vec<String> = valid_fields.iter().map(|column| column.name.clone()).collect();
            let told = Failure::new(ErrorCode::NotFound, format!("column `{}` not found", field.name));
            let told = match names.is_empty() {
                true => told,
                false => told.detail(format!("There are {}.", quoted_list(&names))),
            };
            match did_you_mean(&field.name, names.iter().map(String::as_str)) {
                Some(hint) => told.hint(hint),
                None => told,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Failure::new(ErrorCode::BadRequest, format!("column `{}` is in more than one table", field.name))
                .hint("Write it with its table: table.column.")
        }
        other => told(ErrorCode::BadRequest, &other.to_string()),
    }
}

fn division_by_zero() -> Failure {
    Failure::new(ErrorCode::BadRequest, "division by zero").hint("Guard the divisor: x / nullif(y, 0).")
}

/// An error of a library below DataFusion; those of the regex compiler are about the user's pattern.
fn library_failure(text: &str) -> Failure {
    if text.starts_with("regex parse error") || text.starts_with("Compiled regex exceeds") {
        return told(ErrorCode::BadRequest, &text.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    Failure::new(ErrorCode::Internal, short(text))
}

/// What a child refused to compute, which is about the query: in a leaf's words, or in ours from an aggregator below.
pub(crate) fn refused_by_child(text: &str) -> Failure {
    if text.ends_with("Divide by zero error") || text == "division by zero" {
        division_by_zero()
    } else {
        told(ErrorCode::BadRequest, text)
    }
}

fn arrow_failure(error: &arrow::error::ArrowError) -> Failure {
    use arrow::error::ArrowError;
    match error {
        ArrowError::DivideByZero => division_by_zero(),
        ArrowError::ArithmeticOverflow(what) => {
            Failure::new(ErrorCode::BadRequest, "a number left the range of its type").detail(short(what))
        }
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(inner) => failure(inner),
            None => library_failure(&inner.to_string()),
        },
        ArrowError::CastError(what)
        | ArrowError::ParseError(what)
        | ArrowError::ComputeError(what)
        | ArrowError::InvalidArgumentError(what) => told(ErrorCode::BadRequest, what),
        other => Failure::new(ErrorCode::Internal, "the answer could not be computed")
            .detail(short(&other.to_string())),
    }
}

/// The first line is the message, the rest the detail.
fn told(code: ErrorCode, what: &str) -> Failure {
    let what = what.trim_start_matches("Error during planning: ").trim_start_matches("Execution error: ");
    if let Some((function, types)) = wrong_arguments(what) {
        return Failure::new(ErrorCode::BadRequest, format!("{function} cannot take {}", user_types(types)))
            .hint("Cast the argument, for example CAST(x AS DOUBLE); any type can be counted.");
    }
    if let Some(function) = between(what, "Invalid function '", "'") {
        let failure = Failure::new(code, format!("unknown function `{function}`"));
        let near =
            between(what, "Did you mean '", "'").and_then(|near| did_you_mean(function, [near].into_iter()));
        return match near {
            Some(hint) => failure.hint(hint),
            None => failure,
        };
    }
    if what.contains("OuterReferenceColumn") {
        return Failure::new(
            ErrorCode::Unsupported,
            "a subquery in this place cannot name columns of the rows around it",
        )
        .hint("Write it as a join; the items of a list as FROM t, UNNEST(list) AS u(item).");
    }
    if what.contains("comparison operation") && what.contains("List(Utf8)") {
        return Failure::new(code, "a list of strings cannot be compared with a single value")
            .hint("Write contains_any(tags, 'a'), or compare an element: tags[1] = 'a'.");
    }
    let (first, rest) = what.split_once('\n').unwrap_or((what, ""));
    let failure = Failure::new(code, lower_first(first.trim().trim_end_matches('.')));
    match rest.trim() {
        "" => failure,
        rest => failure.detail(short(rest)),
    }
}

/// The function and the Arrow types it was given, when it cannot take them.
fn wrong_arguments(what: &str) -> Option<(&str, &str)> {
    let call = between(what, "No function matches the given name and argument types '", "'. You")?;
    call.strip_suffix(')')?.split_once('(')
}

/// Arrow types in the words of users.
fn user_types(types: &str) -> String {
    let word = |name: &str| match name.trim() {
        "Utf8" | "Utf8View" | "LargeUtf8" => "string".to_owned(),
        "Boolean" => "bool".to_owned(),
        "Float64" | "Float32" => "float".to_owned(),
        "List(Utf8)" => "strings".to_owned(),
        name if name.starts_with("Int") || name.starts_with("UInt") => "int".to_owned(),
        name if name.starts_with("Timestamp") => "time".to_owned(),
        name => name.to_owned(),
    };
    match types {
        "" => "no arguments".to_owned(),
        _ if types.starts_with("Timestamp") && !types.contains("), ") => "time".to_owned(),
        _ => types.split(", ").map(word).collect::<Vec<_>>().join(", "),
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let length = text[start..].find(after)?;
    Some(&text[start..start + length])
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), text.chars().nth(1)) {
        // An abbreviation such as SQL keeps its capitals.
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// Long texts are cut: an error is read by people.
fn short(text: &str) -> String {
    const LENGTH_MAX: usize = 600;
    match text.char_indices().nth(LENGTH_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
