//! Short forms become functions that DataFusion and the leaves know.
//!
//! | form | becomes |
//! | --- | --- |
//! | `p50(x)` … `p999(x)` | an aggregate made for the name |
//! | `unweighted(f(…))` | `unweighted_f(…)`, also made for the name |
//! | `time_bucket('1m', time)` | `date_bin(INTERVAL '1 minutes', time)` |
//! | `contains_any(x, 'a', 'b')`, `contains_all`, `contains_none` | `array_has_any(x, make_array('a', 'b'))` … |
//! | `list_starts(x, 'a', 'b')`, `list_ends(x, …)` | comparisons of elements |
//!
//! Before that, columns of a SELECT without a name get the text they were written as, so that answers read like the
//! question.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectName, ObjectNamePart, Select, SelectItem, UnaryOperator, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::errors::failure;
use super::functions::{Percentile, UNWEIGHTED_PREFIX, Unweighted};
use crate::error::{ErrorCode, Failure, Position};

type Flow = ControlFlow<Box<Failure>>;

/// Characters that lpad and rpad fill up to.
const PADDED_LENGTH_MAX: u32 = 10_000;

/// Longest text that a column is named by.
const NAME_LENGTH_MAX: usize = 120;

/// Names the columns that have no name.
pub(super) fn name_columns(statement: &mut Statement) {
    if let Statement::Statement(statement) = statement {
        let _ = statement.visit(&mut Namer);
    }
}

struct Namer;

impl VisitorMut for Namer {
    type Break = ();

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut taken: Vec<String> = select.projection.iter().filter_map(name_of).collect();
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            if is_name(expr) {
                continue;
            }
            let text: String = expr.to_string().chars().take(NAME_LENGTH_MAX).collect();
            let mut name = text.clone();
            let mut number = 2;
            while taken.contains(&name) {
                name = format!("{text}_{number}");
                number += 1;
            }
            taken.push(name.clone());
            let expr = std::mem::replace(expr, Expr::Identifier(Ident::new("")));
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
        }
        ControlFlow::Continue(())
    }
}

/// A column, also one whose dotted name parses as a field of something.
fn is_name(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::CompoundFieldAccess { access_chain, .. } => {
            access_chain.iter().all(|access| matches!(access, AccessExpr::Dot(_)))
        }
        Expr::Function(function) => matches!(function.args, FunctionArguments::None),
        _ => false,
    }
}

fn name_of(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(ident.value.clone()),
        _ => None,
    }
}

/// Rewrites every short form, and makes the functions that a statement names and the session does not have.
pub(super) fn rewrite(statement: &mut Statement, state: &mut SessionState) -> Result<Places, Failure> {
    let Statement::Statement(statement) = statement else { return Ok(Places::default()) };
    let mut rewriter = Rewriter { state, places: Places::default() };
    match statement.visit(&mut rewriter) {
        ControlFlow::Continue(()) => Ok(rewriter.places),
        ControlFlow::Break(failure) => Err(*failure),
    }
}

/// Where functions are called, for errors of the planner that name a function only.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<(String, Position)>);

impl Places {
    /// The failure with the place of the function its message begins with.
    pub(super) fn place(&self, failure: Failure) -> Failure {
        let named =
            |name: &str| failure.message.strip_prefix(name).is_some_and(|rest| rest.starts_with(" cannot"));
        match self.0.iter().find(|(name, _)| failure.position.is_none() && named(name)) {
            Some((_, place)) => failure.at(place.line, place.column),
            None => failure,
        }
    }
}

struct Rewriter<'a> {
    state: &'a mut SessionState,
    places: Places,
}

impl VisitorMut for Rewriter<'_> {
    type Break = Box<Failure>;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let Some(name) = function_name(function) else { return ControlFlow::Continue(()) };
        if let Some(start) =
            function.name.0.first().and_then(|part| part.as_ident()).map(|ident| ident.span.start)
        {
            self.places.0.push((name.clone(), Position { line: start.line, column: start.column }));
        }
        match self.rewritten(&name, function) {
            Ok(None) => {}
            Ok(Some(replacement)) => *expr = replacement,
            Err(problem) => return ControlFlow::Break(Box::new(placed(problem, function))),
        }
        ControlFlow::Continue(())
    }
}

/// The lower-case name of a function that is named by one word.
fn function_name(function: &Function) -> Option<String> {
    match function.name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Some(ident.value.to_lowercase()),
        _ => None,
    }
}

fn placed(problem: Failure, function: &Function) -> Failure {
    match function.name.0.first().and_then(|part| part.as_ident()).map(|ident| ident.span.start) {
        Some(start) if start.line > 0 && problem.position.is_none() => problem.at(start.line, start.column),
        _ => problem,
    }
}

impl Rewriter<'_> {
    fn rewritten(&mut self, name: &str, function: &Function) -> Result<Option<Expr>, Failure> {
        match name {
            "unweighted" => self.unweighted(function).map(Some),
            "time_bucket" => time_bucket(function).map(Some),
            "contains_any" => contains("array_has_any", name, function).map(Some),
            "contains_all" => contains("array_has_all", name, function).map(Some),
            "contains_none" => {
                let any = contains("array_has_any", name, function)?;
                Ok(Some(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) }))
            }
            "lpad" | "rpad" => bounded_length(name, function).map(|()| None),
            "list_starts" => elements(name, function, false).map(Some),
            "list_ends" => elements(name, function, true).map(Some),
            _ => {
                if let Some(inner) = name.strip_prefix(UNWEIGHTED_PREFIX) {
                    self.make_unweighted(inner)?;
                } else {
                    self.make_percentile(name)?;
                }
                Ok(None)
            }
        }
    }

    fn make_percentile(&mut self, name: &str) -> Result<(), Failure> {
        if let Some(fraction) = Percentile::fraction_of_name(name)
            && self.state.udaf(name).is_err()
        {
            self.register(Percentile::fixed(name, fraction))?;
        }
        Ok(())
    }

    /// Makes `unweighted_f` and returns its name.
    fn make_unweighted(&mut self, inner: &str) -> Result<String, Failure> {
        self.make_percentile(inner)?;
        let inner = self.state.udaf(inner).map_err(|_| {
            Failure::new(
                ErrorCode::BadRequest,
                format!("unweighted takes an aggregate, and `{inner}` is none"),
            )
        })?;
        let name = format!("{UNWEIGHTED_PREFIX}{}", inner.name());
        if inner.inner().downcast_ref::<Unweighted>().is_none() && self.state.udaf(&name).is_err() {
            self.register(Unweighted::of(inner))?;
        }
        Ok(name)
    }

    fn register(&mut self, function: datafusion::logical_expr::AggregateUDF) -> Result<(), Failure> {
        self.state.register_udaf(Arc::new(function)).map(|_| ()).map_err(|error| failure(&error))
    }

    fn unweighted(&mut self, function: &Function) -> Result<Expr, Failure> {
        let args = arguments("unweighted", function)?;
        let [Expr::Function(inner)] = args.as_slice() else {
            return Err(Failure::new(ErrorCode::BadRequest, "unweighted takes one aggregate")
                .hint("Write unweighted(count(*)) or unweighted(avg(x))."));
        };
        let inner_name = function_name(inner).unwrap_or_default();
        let mut inner = inner.clone();
        if inner_name == "count" {
            count_rows(&mut inner);
        }
        let name = self.make_unweighted(inner_name.trim_start_matches(UNWEIGHTED_PREFIX))?;
        inner.name = ObjectName::from(vec![Ident::with_quote('"', name)]);
        if inner.filter.is_none() {
            inner.filter.clone_from(&function.filter);
        }
        if inner.over.is_none() {
            inner.over.clone_from(&function.over);
        }
        Ok(Expr::Function(inner))
    }
}

/// `count(*)` and `count()` as `count(1)`: the star means something to DataFusion for its own count only.
fn count_rows(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    let star = matches!(list.args.as_slice(), [] | [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]);
    if star {
        list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(number("1")))];
    }
}

fn number(text: &str) -> Expr {
    Expr::Value(Value::Number(text.to_owned(), false).into())
}

fn arguments(name: &str, function: &Function) -> Result<Vec<Expr>, Failure> {
    let FunctionArguments::List(list) = &function.args else {
        return Err(Failure::new(ErrorCode::BadRequest, format!("{name} needs arguments in parentheses")));
    };
    list.args
        .iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr.clone()),
            other => Err(Failure::new(ErrorCode::BadRequest, format!("{name} cannot take `{other}`"))),
        })
        .collect()
}

/// A call of a function by name.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(datafusion::sql::sqlparser::ast::FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// A length comes from the statement, and memory from a length: it must be a small literal.
fn bounded_length(name: &str, function: &Function) -> Result<(), Failure> {
    let length = arguments(name, function)?.into_iter().nth(1);
    let small = match length {
        Some(Expr::Value(value)) => match value.value {
            Value::Number(text, _) => text.parse().is_ok_and(|length: u32| length <= PADDED_LENGTH_MAX),
            _ => false,
        },
        _ => false,
    };
    match small {
        true => Ok(()),
        false => Err(Failure::new(
            ErrorCode::BadRequest,
            format!("{name} takes a literal length of at most {PADDED_LENGTH_MAX}"),
        )),
    }
}

fn contains(function_name: &str, name: &str, function: &Function) -> Result<Expr, Failure> {
    let (list, wanted) = list_and_texts(name, function)?;
    Ok(call(function_name, vec![list, call("make_array", wanted)]))
}

fn list_and_texts(name: &str, function: &Function) -> Result<(Expr, Vec<Expr>), Failure> {
    let mut args = arguments(name, function)?;
    if args.len() < 2 {
        return Err(Failure::new(
            ErrorCode::BadRequest,
            format!("{name} takes a list column and one or more texts"),
        )
        .hint(format!("Write {name}(tags, 'a', 'b').")));
    }
    let wanted = args.split_off(1);
    Ok((args.remove(0), wanted))
}

/// The first or last elements of a list compared one by one; a shorter list has none there and does not match.
fn elements(name: &str, function: &Function, from_end: bool) -> Result<Expr, Failure> {
    let (list, wanted) = list_and_texts(name, function)?;
    let count = wanted.len();
    let mut all: Option<Expr> = None;
    for (index, text) in wanted.into_iter().enumerate() {
        let place = if from_end { format!("-{}", count - index) } else { (index + 1).to_string() };
        let element = call("array_element", vec![list.clone(), number(&place)]);
        let same = Expr::BinaryOp { left: Box::new(element), op: BinaryOperator::Eq, right: Box::new(text) };
        all = Some(match all {
            None => same,
            Some(before) => {
                Expr::BinaryOp { left: Box::new(before), op: BinaryOperator::And, right: Box::new(same) }
            }
        });
    }
    all.ok_or_else(|| Failure::new(ErrorCode::BadRequest, format!("{name} takes one or more texts")))
        .map(|all| Expr::Nested(Box::new(all)))
}

fn time_bucket(function: &Function) -> Result<Expr, Failure> {
    let mut args = arguments("time_bucket", function)?;
    let usage = || {
        Failure::new(ErrorCode::BadRequest, "time_bucket takes a width and a time")
            .hint("Write time_bucket('5m', time); widths end in ms, s, m, h, d or w.")
    };
    if !(2..=3).contains(&args.len()) {
        return Err(usage());
    }
    if let Expr::Value(value) = &args[0] {
        let Value::SingleQuotedString(text) = &value.value else { return Err(usage()) };
        let width = width(text).ok_or_else(|| {
            Failure::new(ErrorCode::BadRequest, format!("time_bucket width `{text}` is not a length of time"))
                .hint("Write a number and ms, s, m, h, d or w, such as '5m'.")
        })?;
        args[0] = interval(&width)?;
    }
    Ok(call("date_bin", args))
}

/// `5m`, `5 minutes`, `1 hour` as an interval's text.
fn width(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u32 = if digits == 0 { 1 } else { text[..digits].parse().ok()? };
    let unit = match text[digits..].trim() {
        "ms" | "millisecond" | "milliseconds" => "milliseconds",
        "s" | "sec" | "second" | "seconds" => "seconds",
        "m" | "min" | "minute" | "minutes" => "minutes",
        "h" | "hour" | "hours" => "hours",
        "d" | "day" | "days" => "days",
        "w" | "week" | "weeks" => "weeks",
        _ => return None,
    };
    (number > 0).then(|| format!("{number} {unit}"))
}

fn interval(width: &str) -> Result<Expr, Failure> {
    Parser::new(&GenericDialect {})
        .try_with_sql(&format!("INTERVAL '{width}'"))
        .and_then(|mut parser| parser.parse_expr())
        .map_err(|error| Failure::new(ErrorCode::Internal, error.to_string()))
}
