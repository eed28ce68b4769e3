//! The line of SQL that an error is about, with a caret below the place.

use crate::outcome::Failure;
use crate::query::statements::Statement;

/// Cells that an excerpt takes, unless the terminal is narrower.
const EXCERPT_MAX: usize = 148;
/// Less says nothing.
const EXCERPT_MIN: usize = 24;

/// Adds the line that the failure points to.
pub(crate) fn with_excerpt(mut failure: Failure, statement: &Statement) -> Failure {
    if let Some((line, column)) = failure.position {
        // An excerpt that wraps would have its caret at another place.
        let width = terminal_size::terminal_size_of(std::io::stderr()).map(|(width, _)| usize::from(width.0));
        let width = width.map_or(EXCERPT_MAX, |width| width.clamp(EXCERPT_MIN, EXCERPT_MAX));
        failure.excerpt = excerpt(&statement.sql, statement.line, (line as usize, column as usize), width);
    }
    failure
}

/// `first` is the number of the SQL's first line in its file.
fn excerpt(sql: &str, first: usize, (line, column): (usize, usize), width: usize) -> Option<String> {
    let text: Vec<char> = sql.lines().nth(line.checked_sub(1)?)?.chars().collect();
    // One past the end is where something is missing.
    let at = column.checked_sub(1).filter(|at| *at <= text.len())?;
    let label = format!("line {}: ", first + line - 1);
    let space = width.saturating_sub(label.len()).max(2);
    // The place is in the middle, unless the line begins or ends nearer.
    let from = at.saturating_sub(space / 2).min((text.len() + 1).saturating_sub(space));
    let shown: String = text.iter().skip(from).take(space).collect();
    let before: String = text[from..at].iter().map(|c| if *c == '\t' { '\t' } else { ' ' }).collect();
    Some(format!("{label}{shown}\n{}{before}^", " ".repeat(label.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_point_at_their_place() {
        let check = |sql: &str, first, line, column, expect: Option<&str>| {
            assert_eq!(
                excerpt(sql, first, (line, column), EXCERPT_MAX).as_deref(),
                expect,
                "{sql:?} {line}:{column}"
            );
        };
        check("select duraton_ms", 1, 1, 8, Some("line 1: select duraton_ms\n               ^"));
        check("select\n\tx", 1, 2, 2, Some("line 2: \tx\n        \t^"));
        check("select\n\tx", 9, 2, 2, Some("line 10: \tx\n         \t^"));
        check("select", 1, 1, 7, Some("line 1: select\n              ^"));
        check("select", 1, 1, 8, None);
        check("select", 1, 0, 1, None);
        check("select", 1, 1, 0, None);
        check("select", 1, 2, 1, None);
        let lengths = |column: usize, width: usize| {
            let long = excerpt(&"x".repeat(10_000), 1, (1, column), width).unwrap();
            long.lines().map(|line| line.chars().count()).collect::<Vec<_>>()
        };
        assert_eq!(lengths(5_000, 148), [148, 79]);
        assert_eq!(lengths(5_000, 40), [40, 25]);
        assert_eq!(lengths(3, 40), [40, 11]);
        assert_eq!(lengths(10_001, 40), [39, 40]);
    }
}
