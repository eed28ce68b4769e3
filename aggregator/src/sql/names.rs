//! Names as users write them become names of the catalogue.
//!
//! Events carry names such as `userId` and `user.name`, so nothing is folded to lower case. An unquoted name means
//! the exactly equal column first, else the only one that differs in case alone; several are an error that lists
//! them. A dotted name is a column as a whole first, else a table or alias and the rest. Tables likewise.
//!
//! Queries are resolved inside out. What an inner query cannot resolve is tried in the queries around it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, Statement as SqlStatement, TableFactor, VisitMut, VisitorMut,
};

use super::scope::{Ctes, Found, Scope, find, outputs};
use super::short_forms::call;
use super::suggest::{did_you_mean, quoted_list};
use super::tables::{CATALOG, SCHEMA};
use crate::catalogue::{Catalogue, CatalogueTable};
use crate::error::{ErrorCode, Failure};

type Flow = ControlFlow<Box<Failure>>;
/// Names nothing was found for, by their place in the text, with what would be said about them.
type Unresolved = BTreeMap<(u64, u64), Failure>;

/// Resolves every name in a statement.
pub(super) fn resolve(statement: &mut Statement, catalogue: &Catalogue) -> Result<(), Failure> {
    let Statement::Statement(statement) = statement else { return Ok(()) };
    let SqlStatement::Query(query) = &mut **statement else { return Ok(()) };
    let mut resolver = Resolver {
        catalogue,
        ctes: Vec::new(),
        unresolved: BTreeMap::new(),
        open: false,
        is_function: false,
    };
    if let ControlFlow::Break(failure) = query.visit(&mut resolver) {
        return Err(*failure);
    }
    // With a table whose columns only the planner knows, the planner has the last word.
    match resolver.unresolved.into_values().next() {
        Some(failure) if !resolver.open => Err(failure),
        _ => Ok(()),
    }
}

/// The table an object name means.
pub(super) fn find_table<'a>(
    name: &ObjectName,
    catalogue: &'a Catalogue,
) -> Result<&'a CatalogueTable, Failure> {
    let idents: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
    let exact_only = idents.iter().any(|ident| ident.quote_style.is_some());
    let known = catalogue.tables.keys().map(String::as_str);
    let prefixes: [&[&str]; 3] = [&[], &[SCHEMA], &[CATALOG, SCHEMA]];
    for prefix in prefixes {
        let has_prefix = idents.len() > prefix.len()
            && prefix.iter().zip(&idents).all(|(part, ident)| ident.value.eq_ignore_ascii_case(part));
        if !has_prefix {
            continue;
        }
        let written = joined(&idents[prefix.len()..]);
        match find(&written, exact_only, known.clone()) {
            Found::As(found) => {
                if let Some(table) = catalogue.tables.get(&found) {
                    return Ok(table);
                }
            }
            Found::Several(several) => {
                return Err(ambiguous("table", &written, &several, idents.first().copied()));
            }
            Found::Nowhere => {}
        }
    }
    let written = joined(&idents);
    let failure = Failure::new(ErrorCode::NotFound, format!("table `{written}` not found"));
    let failure = at(failure, idents.first().copied());
    let names: Vec<String> = catalogue.tables.keys().cloned().collect();
    let failure = match names.is_empty() {
        true => failure.detail("There are no tables yet: a table appears with its first event."),
        false => failure.detail(format!("There are {}.", quoted_list(&names))),
    };
    Err(match did_you_mean(&written, known) {
        Some(hint) => failure.hint(hint),
        None => failure,
    })
}

fn joined(idents: &[&Ident]) -> String {
    idents.iter().map(|ident| ident.value.as_str()).collect::<Vec<_>>().join(".")
}

fn at(failure: Failure, ident: Option<&Ident>) -> Failure {
    match ident.map(|ident| ident.span.start) {
        Some(start) if start.line > 0 => failure.at(start.line, start.column),
        _ => failure,
    }
}

fn ambiguous(what: &str, written: &str, several: &[String], ident: Option<&Ident>) -> Failure {
    let failure =
        Failure::new(ErrorCode::BadRequest, format!("{what} `{written}` fits {}", quoted_list(several)))
            .hint(format!(
                "Write one of them exactly, in double quotes: \"{}\".",
                several.first().map_or("", |one| one)
            ));
    at(failure, ident)
}

/// Resolves tables on the way down and the expressions of each query once everything inside it is resolved.
struct Resolver<'a> {
    catalogue: &'a Catalogue,
    ctes: Ctes,
    unresolved: Unresolved,
    /// Some table's columns are not known before planning.
    open: bool,
    /// The next relation is the name of a table function.
    is_function: bool,
}

impl VisitorMut for Resolver<'_> {
    type Break = Box<Failure>;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        let Some(with) = &mut query.with else { return ControlFlow::Continue(()) };
        for cte in &mut with.cte_tables {
            let named = cte.alias.columns.iter().map(|column| column.name.value.clone()).collect::<Vec<_>>();
            let named = (!named.is_empty()).then_some(named);
            let name = cte.alias.name.value.clone();
            if with.recursive {
                self.ctes.push((name.clone(), named.clone()));
            }
            // Visited here, ahead of the walk itself, so that later ones know its columns.
            cte.query.visit(self)?;
            let columns = named.or_else(|| outputs(&cte.query, self.catalogue, &self.ctes));
            self.ctes.push((name, columns));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> Flow {
        let scope = Scope::of(query, self.catalogue, &self.ctes);
        self.open |= scope.is_open();
        fix_wildcards(&mut query.body, &scope);
        let mut rewriter = Rewriter { scope, depth: 0, unresolved: &mut self.unresolved };
        query.visit(&mut rewriter)
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        self.is_function = matches!(factor, TableFactor::Table { args: Some(_), .. });
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> Flow {
        if std::mem::take(&mut self.is_function) {
            return ControlFlow::Continue(());
        }
        let idents: Vec<&Ident> = relation.0.iter().filter_map(|part| part.as_ident()).collect();
        if let [ident] = idents.as_slice() {
            let known = self.ctes.iter().map(|(name, _)| name.as_str());
            if let Found::As(name) = find(&ident.value, ident.quote_style.is_some(), known) {
                rename(relation, name);
                return ControlFlow::Continue(());
            }
        }
        if idents.iter().rev().skip(1).any(|ident| ident.value.eq_ignore_ascii_case("information_schema")) {
            for part in &mut relation.0 {
                if let ObjectNamePart::Identifier(ident) = part {
                    ident.value = ident.value.to_lowercase();
                }
            }
            return ControlFlow::Continue(());
        }
        match find_table(relation, self.catalogue) {
            Ok(table) => {
                rename(relation, table.name.clone());
                ControlFlow::Continue(())
            }
            Err(failure) => ControlFlow::Break(Box::new(failure)),
        }
    }
}

fn rename(relation: &mut ObjectName, name: String) {
    let span = relation.0.first().and_then(|part| part.as_ident()).map(|ident| ident.span);
    let mut ident = Ident::with_quote('"', name);
    if let Some(span) = span {
        ident.span = span;
    }
    relation.0 = vec![ObjectNamePart::Identifier(ident)];
}

/// `E.*` for a table called `e`.
fn fix_wildcards(body: &mut SetExpr, scope: &Scope) {
    match body {
        SetExpr::Select(select) => {
            for item in &mut select.projection {
                let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) =
                    item
                else {
                    continue;
                };
                let written: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
                if let Some(table) = scope.find_table(&joined(&written), false) {
                    rename(name, table.qualifier.clone());
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            fix_wildcards(left, scope);
            fix_wildcards(right, scope);
        }
        _ => {}
    }
}

/// Resolves the expressions of one query, and those of its subqueries that they could not resolve themselves.
struct Rewriter<'a> {
    scope: Scope,
    depth: usize,
    unresolved: &'a mut Unresolved,
}

impl VisitorMut for Rewriter<'_> {
    type Break = Box<Failure>;

    fn pre_visit_query(&mut self, _query: &mut Query) -> Flow {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> Flow {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        join_fields(expr);
        let Some(idents) = identifier(expr) else { return ControlFlow::Continue(()) };
        let Some(first) = idents.first().copied() else { return ControlFlow::Continue(()) };
        let place = (first.span.start.line, first.span.start.column);
        if self.depth > 1 && !self.unresolved.contains_key(&place) {
            return ControlFlow::Continue(());
        }
        let resolved = match idents.as_slice() {
            [ident] => self.plain(ident),
            _ => self.dotted(&idents),
        };
        match resolved {
            Ok(Some(resolved)) => {
                self.unresolved.remove(&place);
                *expr = resolved;
            }
            Ok(None) => {
                if !matches!(expr, Expr::Function(_)) && self.depth == 1 {
                    let failure = self.not_found(&idents);
                    self.unresolved.entry(place).or_insert(failure);
                }
            }
            Err(failure) => return ControlFlow::Break(failure),
        }
        ControlFlow::Continue(())
    }
}

/// `user.name` parses as a field of the function `user`: makes one dotted name of leading fields.
fn join_fields(expr: &mut Expr) {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return };
    let Some(mut parts) = identifier(root).map(|parts| parts.into_iter().cloned().collect::<Vec<Ident>>())
    else {
        return;
    };
    let fields = access_chain
        .iter()
        .map_while(|access| match access {
            AccessExpr::Dot(field) => {
                identifier(field).map(|parts| parts.into_iter().cloned().collect::<Vec<_>>())
            }
            AccessExpr::Subscript(_) => None,
        })
        .collect::<Vec<_>>();
    if fields.is_empty() {
        return;
    }
    access_chain.drain(..fields.len());
    parts.extend(fields.into_iter().flatten());
    let name = Expr::CompoundIdentifier(parts);
    if access_chain.is_empty() {
        *expr = name;
    } else {
        **root = name;
    }
}

/// The parts of a name, if an expression is one. `user` and the like parse as functions without parentheses.
fn identifier(expr: &Expr) -> Option<Vec<&Ident>> {
    match expr {
        Expr::Identifier(ident) => Some(vec![ident]),
        Expr::CompoundIdentifier(parts) => Some(parts.iter().collect()),
        Expr::Function(function) if matches!(function.args, FunctionArguments::None) => {
            match function.name.0.as_slice() {
                [ObjectNamePart::Identifier(ident)] => Some(vec![ident]),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Functions that SQL writes without parentheses, where no column has their name.
fn constant(ident: &Ident) -> Option<Expr> {
    let name = ident.value.to_lowercase();
    match name.as_str() {
        "current_date" | "current_time" | "current_timestamp" | "today" => Some(call(&name, vec![])),
        _ => None,
    }
}

type Resolved = Result<Option<Expr>, Box<Failure>>;

impl Rewriter<'_> {
    fn plain(&self, ident: &Ident) -> Resolved {
        match self.scope.find(&ident.value, ident.quote_style.is_some()) {
            Found::As(name) => Ok(Some(Expr::Identifier(renamed(ident, name)))),
            Found::Several(several) => {
                Err(Box::new(ambiguous("column", &ident.value, &several, Some(ident))))
            }
            Found::Nowhere if ident.quote_style.is_none() => Ok(constant(ident)),
            Found::Nowhere => Ok(None),
        }
    }

    fn dotted(&self, idents: &[&Ident]) -> Resolved {
        let exact_only = idents.iter().any(|ident| ident.quote_style.is_some());
        let first = idents[0];
        let whole = joined(idents);
        // Exact before other cases, and the whole name before its parts.
        for exact in if exact_only { vec![true] } else { vec![true, false] } {
            match find(&whole, exact, self.scope.columns()) {
                Found::As(name) => return Ok(Some(Expr::Identifier(renamed(first, name)))),
                Found::Several(several) => {
                    return Err(Box::new(ambiguous("column", &whole, &several, Some(first))));
                }
                Found::Nowhere => {}
            }
            for split in (1..idents.len()).rev() {
                let Some(table) = self.scope.find_table(&joined(&idents[..split]), exact) else { continue };
                let qualifier = renamed(first, table.qualifier.clone());
                let rest = joined(&idents[split..]);
                let Some(columns) = &table.columns else {
                    let mut parts = vec![qualifier];
                    parts.extend(idents[split..].iter().map(|ident| (*ident).clone()));
                    return Ok(Some(Expr::CompoundIdentifier(parts)));
                };
                match find(&rest, exact, columns.iter().map(String::as_str)) {
                    Found::As(name) => {
                        let column = renamed(idents[split], name);
                        return Ok(Some(Expr::CompoundIdentifier(vec![qualifier, column])));
                    }
                    Found::Several(several) => {
                        return Err(Box::new(ambiguous("column", &rest, &several, Some(idents[split]))));
                    }
                    Found::Nowhere => {}
                }
            }
        }
        if did_you_mean(&whole, self.scope.columns()).is_some() {
            return Ok(None);
        }
        // A field of a column that is a struct.
        match self.scope.find(&first.value, first.quote_style.is_some()) {
            Found::As(name) => {
                let mut parts = vec![renamed(first, name)];
                parts.extend(idents[1..].iter().map(|ident| (*ident).clone()));
                Ok(Some(Expr::CompoundIdentifier(parts)))
            }
            _ => Ok(None),
        }
    }

    fn not_found(&self, idents: &[&Ident]) -> Failure {
        let table = (1..idents.len()).rev().find_map(|split| {
            Some((self.scope.find_table(&joined(&idents[..split]), false)?, joined(&idents[split..])))
        });
        let (known, written): (Vec<String>, String) = match table {
            Some((table, rest)) => (table.columns.clone().unwrap_or_default(), rest),
            None => (self.scope.columns().map(str::to_owned).collect(), joined(idents)),
        };
        let failure = Failure::new(ErrorCode::NotFound, format!("column `{written}` not found"));
        let failure = at(failure, idents.first().copied());
        let failure = match known.is_empty() {
            true => failure,
            false => failure.detail(format!("There are {}.", quoted_list(&known))),
        };
        let aliases = self.scope.aliases.iter().map(String::as_str);
        match did_you_mean(&written, known.iter().map(String::as_str).chain(aliases)) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// The identifier under its real name; quoted, so that nothing reads it otherwise.
fn renamed(ident: &Ident, name: String) -> Ident {
    Ident { value: name, quote_style: Some('"'), span: ident.span }
}
