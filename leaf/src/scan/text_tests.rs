//! Tests of text and of lists that a column may answer without decoding: from a conjunct to the test, and from the test
//! to the rows that are left.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder, StringArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use gannet_query::{BinaryOp, ColumnType, Expr};

use super::Stop;
use super::columns::{ListCodes, Run, Shape};
use super::domain::narrow_codes;
use super::prepare::ColumnSpec;
use super::selection::Selection;
use crate::column::{Codes, codes_of};
use crate::text::TextTest;
use crate::vectors::pack_bits;

/// A test of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ColumnTest {
    /// Of a string column.
    Text(TextTest),
    /// Of a string column: the row has a value, which does not pass.
    NotText(TextTest),
    /// Of a column of lists: the list has one of these items.
    HasItem(Vec<String>),
    /// Of any column: the row has no value.
    IsNull,
    /// Of any column: the row has a value.
    IsNotNull,
}

/// What every text that a LIKE pattern takes must contain. The pattern itself is then only asked of what is left.
pub(super) fn hints(expr: &Expr, specs: &[ColumnSpec]) -> Option<(usize, Vec<TextTest>)> {
    let Expr::Like { operand, pattern, negated: false, case_insensitive: false, escape: None } = expr else {
        return None;
    };
    let Expr::Column(name) = &**operand else { return None };
    let column =
        specs.iter().position(|spec| &spec.name == name && spec.column_type == ColumnType::String)?;
    let pattern = literal(pattern).filter(|pattern| !pattern.contains('\\'))?;
    let parts = pattern.split(['%', '_']).filter(|part| !part.is_empty());
    let tests: Vec<TextTest> = parts.map(|part| TextTest::Contains(part.to_owned())).collect();
    (!tests.is_empty()).then_some((column, tests))
}

/// The column and the test, when a conjunct is one. NULL passes none of them but the one for it.
pub(super) fn column_test(expr: &Expr, specs: &[ColumnSpec]) -> Option<(usize, ColumnTest)> {
    match positive(expr) {
        Some(positive) => match column_test(&positive, specs)? {
            (column, ColumnTest::Text(test)) => Some((column, ColumnTest::NotText(test))),
            _ => None,
        },
        None => plain_test(expr, specs),
    }
}

/// What a negation denies, where that is a test of text.
fn positive(expr: &Expr) -> Option<Cow<'_, Expr>> {
    Some(Cow::Owned(match expr {
        Expr::Not(operand) => return Some(Cow::Borrowed(operand)),
        Expr::Binary { op: BinaryOp::NotEq, left, right } => {
            Expr::Binary { op: BinaryOp::Eq, left: left.clone(), right: right.clone() }
        }
        // Nothing is known not to be among values of which one is NULL.
        Expr::InList { operand, list, negated: true } if list.null_count() == 0 => {
            Expr::InList { operand: operand.clone(), list: Arc::clone(list), negated: false }
        }
        Expr::Like { operand, pattern, negated: true, case_insensitive: false, escape: None } => Expr::Like {
            operand: operand.clone(),
            pattern: pattern.clone(),
            negated: false,
            case_insensitive: false,
            escape: None,
        },
        _ => return None,
    }))
}

fn plain_test(expr: &Expr, specs: &[ColumnSpec]) -> Option<(usize, ColumnTest)> {
    let column = |expr: &Expr, column_type: ColumnType| {
        let Expr::Column(name) = expr else { return None };
        specs.iter().position(|spec| &spec.name == name && spec.column_type == column_type)
    };
    let text_column = |expr: &Expr| column(expr, ColumnType::String);
    match expr {
        Expr::IsNull(operand) | Expr::IsNotNull(operand) => {
            let Expr::Column(name) = &**operand else { return None };
            let column = specs.iter().position(|spec| &spec.name == name)?;
            let is_null = matches!(expr, Expr::IsNull(_));
            Some((column, if is_null { ColumnTest::IsNull } else { ColumnTest::IsNotNull }))
        }
        Expr::Binary { op: BinaryOp::Eq, left, right } => {
            let (column, value) = match (text_column(left), text_column(right)) {
                (Some(column), None) => (column, right),
                (None, Some(column)) => (column, left),
                _ => return None,
            };
            Some((column, ColumnTest::Text(TextTest::Among(vec![literal(value)?]))))
        }
        Expr::InList { operand, list, negated: false } => {
            let mut values = texts(list)?;
            values.sort_unstable();
            values.dedup();
            let some = !values.is_empty();
            some.then_some((text_column(operand)?, ColumnTest::Text(TextTest::Among(values))))
        }
        Expr::Like { operand, pattern, negated: false, case_insensitive: false, escape: None } => {
            Some((text_column(operand)?, ColumnTest::Text(like(&literal(pattern)?)?)))
        }
        Expr::Call { function, arguments } => {
            let [operand, value] = &arguments[..] else { return None };
            let test = match function.as_str() {
                "starts_with" => TextTest::StartsWith(literal(value)?),
                "ends_with" => TextTest::EndsWith(literal(value)?),
                "contains" => TextTest::Contains(literal(value)?),
                "array_has" | "list_has" | "array_contains" | "list_contains" => {
                    let column = column(operand, ColumnType::Strings)?;
                    return Some((column, ColumnTest::HasItem(vec![literal(value)?])));
                }
                "array_has_any" | "list_has_any" | "arrays_overlap" => {
                    let column = column(operand, ColumnType::Strings)?;
                    return Some((column, ColumnTest::HasItem(list_literal(value)?)));
                }
                _ => return None,
            };
            Some((text_column(operand)?, ColumnTest::Text(test)))
        }
        _ => None,
    }
}

/// The test of a pattern whose only wildcards are `%`.
fn like(pattern: &str) -> Option<TextTest> {
    if pattern.contains(['_', '\\']) {
        return None;
    }
    let (begins_open, ends_open) = (pattern.starts_with('%'), pattern.ends_with('%'));
    let part = pattern.trim_matches('%');
    if part.contains('%') {
        let parts = part.split('%').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        return Some(TextTest::Parts { parts, begins: !begins_open, ends: !ends_open });
    }
    let part = part.to_owned();
    Some(match (begins_open, ends_open) {
        (false, false) => TextTest::Among(vec![part]),
        (true, true) => TextTest::Contains(part),
        (false, true) => TextTest::StartsWith(part),
        (true, false) => TextTest::EndsWith(part),
    })
}

fn literal(expr: &Expr) -> Option<String> {
    let Expr::Literal(array) = expr else { return None };
    let mut values = texts(array).filter(|values| values.len() == 1 && array.len() == 1)?;
    values.pop()
}

/// The texts of a literal list, if all of them are there.
fn list_literal(expr: &Expr) -> Option<Vec<String>> {
    let Expr::Literal(array) = expr else { return None };
    let list = array.as_list_opt::<i32>().filter(|list| list.len() == 1 && list.is_valid(0))?;
    let items = list.value(0);
    texts(&items).filter(|texts| texts.len() == items.len())
}

/// The texts of an array of literals, without NULLs.
fn texts(array: &ArrayRef) -> Option<Vec<String>> {
    let owned = |value: &str| value.to_owned();
    Some(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().flatten().map(owned).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().flatten().map(owned).collect(),
        DataType::Utf8View => array.as_string_view().iter().flatten().map(owned).collect(),
        _ => return None,
    })
}

/// True when a run certainly has no row that passes, judged without reading a column.
pub(super) fn excludes(run: &Run<'_>, column: usize, test: &ColumnTest) -> bool {
    match test {
        ColumnTest::IsNull => false,
        _ if run.is_missing(column) => true,
        ColumnTest::Text(TextTest::Among(values)) => {
            !values.iter().any(|value| run.may_hold_text(column, value, false))
        }
        ColumnTest::Text(TextTest::StartsWith(text)) => !run.may_hold_text(column, text, true),
        ColumnTest::Text(TextTest::Parts { parts, begins: true, .. }) => {
            parts.first().is_some_and(|text| !run.may_hold_text(column, text, true))
        }
        ColumnTest::Text(_) | ColumnTest::NotText(_) | ColumnTest::HasItem(_) | ColumnTest::IsNotNull => {
            false
        }
    }
}

/// Runs a test without decoding; gives the selection back when the column's shape does not allow it.
pub(super) fn narrow(
    run: &Run<'_>,
    column: usize,
    test_of: &ColumnTest,
    selection: Selection,
) -> Result<Result<Selection, Selection>, Stop> {
    Ok(match (run.slot(column)?.shape(), test_of) {
        (Shape::Text(text), ColumnTest::Text(test) | ColumnTest::NotText(test)) => {
            let rows = match &selection {
                Selection::Rows(rows) => Some(rows.as_slice()),
                Selection::All(_) | Selection::Bits { .. } => None,
            };
            let mut bits = text.matches(test, rows);
            if let (Some(bits), true) = (&mut bits, matches!(test_of, ColumnTest::NotText(_))) {
                *bits = others(bits, text.validity(), rows);
            }
            match (bits, &selection) {
                (None, _) => Err(selection),
                (Some(bits), Selection::Rows(_)) => Ok(selection.keep(&bits)),
                (Some(bits), _) => Ok(selection.narrow(|| bits.clone(), |row| bits.value(row))),
            }
        }
        (
            Shape::Dictionary { values, codes, has_nulls },
            ColumnTest::Text(test) | ColumnTest::NotText(test),
        ) => {
            let is_wanted = matches!(test_of, ColumnTest::Text(_));
            match values.as_string_opt().and_then(|values| codes_that_pass(values, test)) {
                Some(ranges) => {
                    let mut table = vec![!is_wanted; values.len()];
                    ranges.iter().for_each(|(first, end)| table[*first..*end].fill(is_wanted));
                    // NULL is never kept.
                    table.extend(has_nulls.then_some(false));
                    Ok(narrow_codes(codes, selection, &table))
                }
                None => Err(selection),
            }
        }
        (Shape::Lists(lists), ColumnTest::HasItem(item)) => Ok(has_item(&lists, item, selection)),
        (Shape::Text(text), ColumnTest::IsNull | ColumnTest::IsNotNull) => {
            Ok(by_validity(text.validity(), test_of, selection))
        }
        (
            Shape::Packed { validity, .. }
            | Shape::Decimal { validity, .. }
            | Shape::Ints { validity, .. }
            | Shape::Bits { validity, .. }
            | Shape::Lists(ListCodes { validity, .. }),
            ColumnTest::IsNull | ColumnTest::IsNotNull,
        ) => Ok(by_validity(validity, test_of, selection)),
        _ => Err(selection),
    })
}

/// The codes that pass, where the order of a dictionary's values tells them: from the first to before the second.
fn codes_that_pass(values: &StringArray, test: &TextTest) -> Option<Vec<(usize, usize)>> {
    let of =
        |text: &String, is_prefix| Some(codes_of(values, text, is_prefix)).filter(|(first, end)| first < end);
    match test {
        TextTest::Among(texts) => Some(texts.iter().filter_map(|text| of(text, false)).collect()),
        TextTest::StartsWith(text) => Some(of(text, true).into_iter().collect()),
        TextTest::EndsWith(_) | TextTest::Contains(_) | TextTest::Parts { .. } => None,
    }
}

/// The rows with a value that do not pass a test, of those that do; both of some rows alone, where they are told.
fn others(passing: &BooleanBuffer, validity: Option<&NullBuffer>, rows: Option<&[u32]>) -> BooleanBuffer {
    match (validity, rows) {
        (None, _) => !passing,
        (Some(validity), None) => validity.inner() & &!passing,
        (Some(validity), Some(rows)) => {
            let is_other = |place: usize| !passing.value(place) && validity.is_valid(rows[place] as usize);
            BooleanBuffer::collect_bool(rows.len(), is_other)
        }
    }
}

fn by_validity(validity: Option<&NullBuffer>, test: &ColumnTest, selection: Selection) -> Selection {
    match (validity, test) {
        (None, ColumnTest::IsNull) => Selection::none(),
        (None, _) => selection,
        (Some(validity), ColumnTest::IsNull) => {
            selection.narrow(|| !validity.inner(), |row| validity.is_null(row))
        }
        (Some(validity), _) => selection.narrow(|| validity.inner().clone(), |row| validity.is_valid(row)),
    }
}

fn has_item(lists: &ListCodes<'_>, items: &[String], selection: Selection) -> Selection {
    let values = lists.values.as_string::<i32>();
    let wanted: Vec<bool> = (0..values.len() + 1)
        .map(|code| code < values.len() && items.iter().any(|item| item == values.value(code)))
        .collect();
    if !wanted.contains(&true) {
        return Selection::none();
    }
    match lists.codes {
        Codes::U8(codes) => narrow_lists(lists, codes, &wanted, selection),
        Codes::U16(codes) => narrow_lists(lists, codes, &wanted, selection),
        Codes::U32(codes) => narrow_lists(lists, codes, &wanted, selection),
        // Codes of items have at most 32 bits.
        Codes::U64(_) => Selection::none(),
    }
}

fn narrow_lists<T: Copy + Into<u32>>(
    lists: &ListCodes<'_>,
    codes: &[T],
    wanted: &[bool],
    selection: Selection,
) -> Selection {
    let is_wanted = |code: T| wanted.get(code.into() as usize).copied().unwrap_or(false);
    let is_valid = |row: usize| lists.validity.is_none_or(|validity: &NullBuffer| validity.is_valid(row));
    if let Selection::Rows(_) = &selection {
        let has = |row: usize| {
            let (from, to) = (lists.offsets[row] as usize, lists.offsets[row + 1] as usize);
            codes[from..to].iter().any(|code| is_wanted(*code)) && is_valid(row)
        };
        return selection.narrow(|| BooleanBuffer::collect_bool(lists.offsets.len() - 1, has), has);
    }
    // All items are compared at once; rows are looked for only where there is one.
    let items = pack_bits(codes, is_wanted);
    let mut rows = BooleanBufferBuilder::new(lists.offsets.len() - 1);
    rows.append_n(lists.offsets.len() - 1, false);
    let mut row = 0;
    for item in items.set_indices() {
        while lists.offsets[row + 1] as usize <= item {
            row += 1;
        }
        rows.set_bit(row, is_valid(row));
    }
    let rows = rows.finish();
    selection.narrow(|| rows.clone(), |row| rows.value(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_tests_where_they_are_one() {
        let check = |pattern: &str, expect: Option<TextTest>| assert_eq!(like(pattern), expect, "{pattern}");
        check("abc", Some(TextTest::Among(vec!["abc".into()])));
        check("%a b%", Some(TextTest::Contains("a b".into())));
        check("a%", Some(TextTest::StartsWith("a".into())));
        check("%a", Some(TextTest::EndsWith("a".into())));
        check("%", Some(TextTest::Contains(String::new())));
        check("%%", Some(TextTest::Contains(String::new())));
        check("", Some(TextTest::Among(vec![String::new()])));
        let parts = |parts: [&str; 2], begins, ends| {
            Some(TextTest::Parts { parts: parts.map(str::to_owned).to_vec(), begins, ends })
        };
        check("a%b", parts(["a", "b"], true, true));
        check("%a%%bc%", parts(["a", "bc"], false, false));
        check("a%b_", None);
        check("a_", None);
        check("a\\%", None);
    }
}
