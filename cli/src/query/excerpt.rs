//! The line of SQL that an error is about, with a caret below the place.

use crate::outcome::Failure;
use crate::query::statements::Statement;

/// Characters that are shown on either side of the place.
const EXCERPT_CONTEXT: usize = 70;

/// Adds the line that the failure points to.
pub(crate) fn with_excerpt(mut failure: Failure, statement: &Statement) -> Failure {
    if let Some((line, column)) = failure.position {
        failure.excerpt = excerpt(&statement.sql, statement.line, line as usize, column as usize);
    }
    failure
}

/// `first` is the number of the SQL's first line in its file.
fn excerpt(sql: &str, first: usize, line: usize, column: usize) -> Option<String> {
    let text: Vec<char> = sql.lines().nth(line.checked_sub(1)?)?.chars().collect();
    // One past the end is where something is missing.
    let at = column.checked_sub(1).filter(|at| *at <= text.len())?;
    let from = at.saturating_sub(EXCERPT_CONTEXT);
    let shown: String = text.iter().skip(from).take(2 * EXCERPT_CONTEXT).collect();
    let before: String = text[from..at].iter().map(|c| if *c == '\t' { '\t' } else { ' ' }).collect();
    let label = format!("line {}: ", first + line - 1);
    Some(format!("{label}{shown}\n{}{before}^", " ".repeat(label.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_point_at_their_place() {
        let check = |sql: &str, first, line, column, expect: Option<&str>| {
            assert_eq!(excerpt(sql, first, line, column).as_deref(), expect, "{sql:?} {line}:{column}");
        };
        check("select duraton_ms", 1, 1, 8, Some("line 1: select duraton_ms\n               ^"));
        check("select\n\tx", 1, 2, 2, Some("line 2: \tx\n        \t^"));
        check("select\n\tx", 9, 2, 2, Some("line 10: \tx\n         \t^"));
        check("select", 1, 1, 7, Some("line 1: select\n              ^"));
        check("select", 1, 1, 8, None);
        check("select", 1, 0, 1, None);
        check("select", 1, 1, 0, None);
        check("select", 1, 2, 1, None);
        let long = excerpt(&"x".repeat(10_000), 1, 1, 5_000).unwrap();
        assert_eq!(long.lines().map(|line| line.chars().count()).collect::<Vec<_>>(), [148, 79]);
    }
}
