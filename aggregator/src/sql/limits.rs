//! What SQL may be: text, then one statement, of a kind that only reads, and of a bounded size.
//!
//! Everything here runs on a big stack (see [`super::stack`]), and the tree that is refused is dropped there too.

use std::ops::ControlFlow;

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, Select, Statement as SqlStatement, TableFactor, Visit, VisitMut,
    Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::ParserError;

use super::errors::{failure, parser_failure};
use crate::error::{ErrorCode, Failure};

/// Bytes of SQL text.
pub(super) const TEXT_BYTES_MAX: usize = 64 << 10;
/// Nodes of the syntax tree, without the literals of IN lists.
pub(super) const NODES_MAX: usize = 4_096;
/// Members of one IN list.
pub(super) const IN_LIST_MAX: usize = 10_000;
/// Nesting of parentheses, subqueries and the like, as the parser counts it.
const PARSER_DEPTH_MAX: usize = 50;
/// Depth of an expression, chains of AND and OR not counted: they are balanced later.
pub(super) const DEPTH_MAX: usize = 400;
/// SELECTs in one statement.
pub(super) const SELECTS_MAX: usize = 128;
/// Tables, subqueries and functions in FROM, all SELECTs together.
pub(super) const RELATIONS_MAX: usize = 64;
/// WITH inside WITH: each level doubles the planner's work.
pub(super) const WITH_DEPTH_MAX: usize = 4;

/// The one statement of a text, within the limits.
pub(super) fn parse(sql: &str) -> Result<Statement, Failure> {
    if sql.len() > TEXT_BYTES_MAX {
        let message = format!("sql text has {} bytes, the limit is {TEXT_BYTES_MAX}", sql.len());
        return Err(Failure::new(ErrorCode::TooLarge, message));
    }
    let mut statements = parse_text(sql).map_err(|error| match error.message.contains("found: EOF") {
        // What is missing is missing at the end.
        true if error.position.is_none() => {
            let lines = sql.lines().count().max(1);
            let column = sql.lines().last().map_or(0, |line| line.chars().count()) + 1;
            error.at(lines as u64, column as u64)
        }
        _ => error,
    })?;
    let statement = match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => statement,
        (None, _) => return Err(Failure::new(ErrorCode::BadRequest, "there is no statement")),
        (Some(_), more) => {
            let message = format!("there are {} statements, one at a time is the limit", more + 1);
            return Err(Failure::new(ErrorCode::BadRequest, message));
        }
    };
    check(&statement)?;
    Ok(statement)
}

fn parse_text(sql: &str) -> Result<std::collections::VecDeque<Statement>, Failure> {
    DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(PARSER_DEPTH_MAX)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| match &error {
            DataFusionError::SQL(inner, _) => match inner.as_ref() {
                ParserError::ParserError(text) | ParserError::TokenizerError(text) => parser_failure(text),
                ParserError::RecursionLimitExceeded => parser_failure("recursion limit"),
            },
            other => failure(other),
        })
}

fn check(statement: &Statement) -> Result<(), Failure> {
    let statement = match statement {
        Statement::Statement(statement) => statement,
        Statement::Explain(explain) => return check(&explain.statement),
        other => return Err(refused(&other.to_string())),
    };
    match &**statement {
        SqlStatement::Query(_)
        | SqlStatement::ShowTables { .. }
        | SqlStatement::ShowColumns { .. }
        | SqlStatement::ExplainTable { .. } => {}
        other => return Err(refused(&other.to_string())),
    }
    let mut meter = Meter::default();
    match statement.visit(&mut meter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(failure) => Err(*failure),
    }
}

/// The refusal of a statement that does not only read, by its first words.
fn refused(text: &str) -> Failure {
    let mut words = text.split_whitespace().map(str::to_uppercase);
    let mut name = words.next().unwrap_or_default();
    if matches!(name.as_str(), "CREATE" | "DROP" | "ALTER" | "SHOW" | "SELECT") {
        let second = words.next().unwrap_or_default();
        name = format!("{name} {second}");
        if second == "EXTERNAL" {
            name = format!("{name} {}", words.next().unwrap_or_default());
        }
    }
    Failure::new(ErrorCode::Unsupported, format!("{name} is not supported: SQL here only reads")).hint(
        "Use SELECT, SHOW TABLES, DESCRIBE or EXPLAIN. Tables and columns appear with their first event.",
    )
}

/// Counts while it walks; the walk ends at the first limit, so it never goes deeper than the limits allow.
#[derive(Default)]
struct Meter {
    nodes: usize,
    list_literals: usize,
    depth: usize,
    selects: usize,
    relations: usize,
    with_depth: usize,
    statements: usize,
}

type Flow = ControlFlow<Box<Failure>>;

fn too_large(what: String) -> Flow {
    ControlFlow::Break(Box::new(Failure::new(ErrorCode::TooLarge, what)))
}

fn is_chain(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. })
}

impl Visitor for Meter {
    type Break = Box<Failure>;

    fn pre_visit_statement(&mut self, statement: &SqlStatement) -> Flow {
        self.statements += 1;
        if self.statements > 1 {
            return ControlFlow::Break(Box::new(refused(&statement.to_string())));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        self.with_depth += usize::from(query.with.is_some());
        if self.with_depth > WITH_DEPTH_MAX {
            return too_large(format!("WITH is nested deeper than the limit of {WITH_DEPTH_MAX}"));
        }
        if !query.locks.is_empty() {
            return ControlFlow::Break(Box::new(refused("SELECT FOR UPDATE")));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> Flow {
        self.with_depth -= usize::from(query.with.is_some());
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        self.selects += 1;
        if self.selects > SELECTS_MAX {
            return too_large(format!("sql has more SELECTs than the limit of {SELECTS_MAX}"));
        }
        match select.into {
            Some(_) => ControlFlow::Break(Box::new(refused("SELECT INTO"))),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, _table: &TableFactor) -> Flow {
        self.relations += 1;
        if self.relations > RELATIONS_MAX {
            return too_large(format!(
                "sql reads more tables and subqueries than the limit of {RELATIONS_MAX}"
            ));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        if let Expr::InList { list, .. } = expr {
            if list.len() > IN_LIST_MAX {
                return too_large(format!("IN list has {} members, the limit is {IN_LIST_MAX}", list.len()));
            }
            // The literals of a list become one array; they do not count.
            self.list_literals += list.iter().filter(|item| matches!(item, Expr::Value(_))).count();
        }
        self.nodes += 1;
        if self.nodes > NODES_MAX + self.list_literals {
            return too_large(format!("sql has more expressions than the limit of {NODES_MAX}"));
        }
        self.depth += usize::from(!is_chain(expr));
        if self.depth > DEPTH_MAX {
            return too_large(format!("an expression is nested deeper than the limit of {DEPTH_MAX}"));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> Flow {
        self.depth -= usize::from(!is_chain(expr));
        ControlFlow::Continue(())
    }
}

/// Rebuilds chains of AND and of OR as balanced trees: they mean the same, and nothing after this meets a tree as
/// deep as a user's list of conditions is long.
struct Balance;

impl VisitorMut for Balance {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::BinaryOp { op, .. } = expr else { return ControlFlow::Continue(()) };
        let op = op.clone();
        if is_chain(expr) {
            let mut operands = Vec::new();
            let mut open = vec![std::mem::replace(expr, placeholder())];
            while let Some(next) = open.pop() {
                match next {
                    Expr::BinaryOp { left, op: inner, right } if inner == op => open.extend([*right, *left]),
                    other => operands.push(other),
                }
            }
            // Already balanced chains come by again as parts of themselves; rebuilding them is the same tree.
            *expr = balanced(operands, &op);
        }
        ControlFlow::Continue(())
    }
}

fn placeholder() -> Expr {
    Expr::Identifier(Ident::new(""))
}

fn balanced(mut operands: Vec<Expr>, op: &BinaryOperator) -> Expr {
    match operands.len() {
        0 => placeholder(),
        1 => operands.remove(0),
        length => {
            let right = operands.split_off(length.div_ceil(2));
            let (left, right) = (balanced(operands, op), balanced(right, op));
            Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) }
        }
    }
}

/// Balances every chain of a statement; see [`Balance`].
pub(super) fn balance(statement: &mut Statement) {
    if let Statement::Statement(statement) = statement {
        let _ = statement.visit(&mut Balance);
    }
}
