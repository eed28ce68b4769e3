//! The names a query can speak of: columns of its tables, its own aliases, the outputs of its subqueries.

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableAlias,
    TableFactor, TableWithJoins,
};

use crate::catalogue::Catalogue;

/// A table of FROM.
#[derive(Debug, Clone)]
pub(super) struct ScopeTable {
    /// What its columns are qualified with.
    pub(super) qualifier: String,
    /// Its columns; `None` when nobody knows them before planning.
    pub(super) columns: Option<Vec<String>>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// In FROM.
    pub(super) tables: Vec<ScopeTable>,
    /// Of the SELECT list and of the outputs of parenthesised queries.
    pub(super) aliases: Vec<String>,
}

/// Common table expressions seen so far, the newest last, with their columns.
pub(super) type Ctes = Vec<(String, Option<Vec<String>>)>;

/// How a name was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// As it is written, or in one other spelling, which is this.
    As(String),
    /// In several spellings.
    Several(Vec<String>),
    /// Not at all.
    Nowhere,
}

/// Finds a name among others: exactly, or without regard to case when it may and only one fits.
pub(super) fn find<'a>(name: &str, exact_only: bool, known: impl Iterator<Item = &'a str> + Clone) -> Found {
    if known.clone().any(|one| one == name) {
        return Found::As(name.to_owned());
    }
    if exact_only {
        return Found::Nowhere;
    }
    let lower = name.to_lowercase();
    let mut fitting: Vec<String> =
        known.filter(|one| one.to_lowercase() == lower).map(str::to_owned).collect();
    fitting.sort();
    fitting.dedup();
    match fitting.len() {
        0 => Found::Nowhere,
        1 => Found::As(fitting.remove(0)),
        _ => Found::Several(fitting),
    }
}

impl Scope {
    /// What a query's own expressions can name. Its subqueries and the names of its tables are resolved already.
    pub(super) fn of(query: &Query, catalogue: &Catalogue, ctes: &Ctes) -> Scope {
        let mut scope = Scope::default();
        scope.add_body(&query.body, catalogue, ctes);
        scope
    }

    fn add_body(&mut self, body: &SetExpr, catalogue: &Catalogue, ctes: &Ctes) {
        match body {
            SetExpr::Select(select) => {
                for table in &select.from {
                    self.add_joined(table, catalogue, ctes);
                }
                self.aliases.extend(select.projection.iter().filter_map(alias_of));
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.add_body(left, catalogue, ctes);
                self.add_body(right, catalogue, ctes);
            }
            SetExpr::Query(query) => {
                self.aliases.extend(outputs(query, catalogue, ctes).into_iter().flatten());
            }
            _ => {}
        }
    }

    fn add_joined(&mut self, table: &TableWithJoins, catalogue: &Catalogue, ctes: &Ctes) {
        self.add_factor(&table.relation, catalogue, ctes);
        for join in &table.joins {
            self.add_factor(&join.relation, catalogue, ctes);
        }
    }

    fn add_factor(&mut self, factor: &TableFactor, catalogue: &Catalogue, ctes: &Ctes) {
        let (name, columns, alias) = match factor {
            TableFactor::Table { name, alias, args, .. } => {
                let columns = match args {
                    None => table_columns(name, catalogue, ctes),
                    Some(_) => None,
                };
                (last_part(name), columns, alias)
            }
            TableFactor::Derived { subquery, alias, .. } => {
                (String::new(), outputs(subquery, catalogue, ctes), alias)
            }
            TableFactor::NestedJoin { table_with_joins, .. } => {
                self.add_joined(table_with_joins, catalogue, ctes);
                return;
            }
            _ => {
                self.tables.push(ScopeTable { qualifier: String::new(), columns: None });
                return;
            }
        };
        self.tables.push(aliased(name, columns, alias.as_ref()));
    }

    /// The columns of all tables.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> + Clone {
        self.tables.iter().flat_map(|table| table.columns.iter().flatten()).map(String::as_str)
    }

    /// Whether a table's columns are not known before planning.
    pub(super) fn is_open(&self) -> bool {
        self.tables.iter().any(|table| table.columns.is_none())
    }

    /// A column, else an alias.
    pub(super) fn find(&self, name: &str, exact_only: bool) -> Found {
        let aliases = self.aliases.iter().map(String::as_str);
        match find(name, true, self.columns().chain(aliases.clone())) {
            Found::Nowhere => match find(name, exact_only, self.columns()) {
                Found::Nowhere => find(name, exact_only, aliases),
                found => found,
            },
            found => found,
        }
    }

    /// A table by its qualifier.
    pub(super) fn find_table(&self, qualifier: &str, exact_only: bool) -> Option<&ScopeTable> {
        let known = self.tables.iter().map(|table| table.qualifier.as_str()).filter(|name| !name.is_empty());
        match find(qualifier, exact_only, known) {
            Found::As(name) => self.tables.iter().find(|table| table.qualifier == name),
            _ => None,
        }
    }
}

fn aliased(name: String, columns: Option<Vec<String>>, alias: Option<&TableAlias>) -> ScopeTable {
    let Some(alias) = alias else { return ScopeTable { qualifier: name, columns } };
    let columns = match alias.columns.is_empty() {
        true => columns,
        false => Some(alias.columns.iter().map(|column| column.name.value.clone()).collect()),
    };
    ScopeTable { qualifier: alias.name.value.clone(), columns }
}

fn last_part(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.clone()).unwrap_or_default()
}

fn table_columns(name: &ObjectName, catalogue: &Catalogue, ctes: &Ctes) -> Option<Vec<String>> {
    if name.0.len() != 1 {
        return None;
    }
    let name = last_part(name);
    if let Some((_, columns)) = ctes.iter().rev().find(|(cte, _)| *cte == name) {
        return columns.clone();
    }
    let table = catalogue.tables.get(&name)?;
    Some(table.columns.iter().map(|column| column.name.clone()).collect())
}

fn alias_of(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        _ => None,
    }
}

/// The columns a query returns, where they are known before planning.
pub(super) fn outputs(query: &Query, catalogue: &Catalogue, ctes: &Ctes) -> Option<Vec<String>> {
    body_outputs(&query.body, catalogue, ctes)
}

fn body_outputs(body: &SetExpr, catalogue: &Catalogue, ctes: &Ctes) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => select_outputs(select, catalogue, ctes),
        SetExpr::SetOperation { left, .. } => body_outputs(left, catalogue, ctes),
        SetExpr::Query(query) => outputs(query, catalogue, ctes),
        _ => None,
    }
}

fn select_outputs(select: &Select, catalogue: &Catalogue, ctes: &Ctes) -> Option<Vec<String>> {
    let mut scope = Scope::default();
    for table in &select.from {
        scope.add_joined(table, catalogue, ctes);
    }
    let mut names = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::ExprWithAlias { alias, .. } => names.push(alias.value.clone()),
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => names.push(ident.value.clone()),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                names.push(parts.last()?.value.clone());
            }
            SelectItem::Wildcard(_) => {
                for table in &scope.tables {
                    names.extend(table.columns.clone()?);
                }
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                names.extend(scope.find_table(&last_part(name), false)?.columns.clone()?);
            }
            _ => return None,
        }
    }
    Some(names)
}
