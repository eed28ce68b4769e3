//! Plain lines taken apart by a regular expression: each named group that takes part becomes a column.
//!
//! The expression is matched anywhere in the line unless it is anchored; the engine needs time linear in the line.

use regex::bytes::Regex;

use crate::agent::json_text::{push_text, push_value};

/// What plain lines mean when nobody says: a time and a level in front when they are there, and the rest as message.
pub(crate) const PATTERN_DEFAULT: &str = concat!(
    r"^(?:\[?(?P<time>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)\]?[ \t]+)?",
    r"(?:\[?(?P<level>(?i:trace|debug|info|notice|warn|warning|error|err|critical|fatal))\]?:?[ \t]+)?",
    r"(?P<message>.*)$"
);

/// An expression with named groups.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    regex: Regex,
    /// Number and name of each named group.
    groups: Vec<(usize, String)>,
}

impl Pattern {
    /// Reads an expression.
    ///
    /// # Errors
    /// When it is none, or names no group.
    pub(crate) fn new(text: &str) -> Result<Pattern, String> {
        let regex = Regex::new(text).map_err(|error| format!("pattern is no regular expression: {error}"))?;
        let named = regex.capture_names().enumerate();
        let groups: Vec<_> = named.filter_map(|(group, name)| Some((group, name?.to_owned()))).collect();
        if groups.is_empty() {
            return Err(format!("pattern `{text}` has no named group such as (?P<message>.*)"));
        }
        Ok(Pattern { regex, groups })
    }

    /// Appends the groups of a line as members of a JSON object, each followed by a comma. `false`: it does not match.
    ///
    /// In the group `time` a comma before the fraction, as some loggers write it, becomes a dot. The group `message` is
    /// always a text.
    pub(crate) fn push_members(&self, out: &mut Vec<u8>, line: &[u8], time: &str) -> bool {
        let Some(captures) = self.regex.captures(line) else { return false };
        for (group, name) in &self.groups {
            let Some(value) = captures.get(*group) else { continue };
            push_text(out, name.as_bytes());
            out.push(b':');
            if name == time {
                let value: Vec<u8> =
                    value.as_bytes().iter().map(|byte| if *byte == b',' { b'.' } else { *byte }).collect();
                push_value(out, &value);
            } else if name == "message" {
                push_text(out, value.as_bytes());
            } else {
                push_value(out, value.as_bytes());
            }
            out.push(b',');
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, line: &str, expect: Option<&str>) {
        let mut out = Vec::new();
        let matches = Pattern::new(pattern).unwrap().push_members(&mut out, line.as_bytes(), "time");
        let members = String::from_utf8(out).unwrap();
        assert_eq!(matches.then_some(members.trim_end_matches(',')), expect, "{line}");
    }

    #[test]
    fn the_default_takes_times_and_levels() {
        let check = |line: &str, expect: &str| check(PATTERN_DEFAULT, line, Some(expect));
        check("started", r#""message":"started""#);
        check("12", r#""message":"12""#);
        check(
            "2026-11-21T09:30:00.5Z WARN disk is slow",
            r#""time":"2026-11-21T09:30:00.5Z","level":"WARN","message":"disk is slow""#,
        );
        check(
            "2026-11-21 09:30:00,123 [info] up",
            r#""time":"2026-11-21 09:30:00.123","level":"info","message":"up""#,
        );
        check("[2026-11-21T09:30:00+01:00] x", r#""time":"2026-11-21T09:30:00+01:00","message":"x""#);
        check("error: no room", r#""level":"error","message":"no room""#);
        check("errors happen", r#""message":"errors happen""#);
    }

    #[test]
    fn named_groups_become_columns() {
        let pattern =
            r#"^(?P<client>\S+) "(?P<method>\w+) (?P<path>\S+)" (?P<status>\d+)(?: (?P<ms>[\d.]+))?$"#;
        check(
            pattern,
            r#"10.0.0.1 "GET /a?b=\"" 200 1.5"#,
            Some(r#""client":"10.0.0.1","method":"GET","path":"/a?b=\\\"","status":200,"ms":1.5"#),
        );
        check(
            pattern,
            r#"10.0.0.1 "GET /" 200"#,
            Some(r#""client":"10.0.0.1","method":"GET","path":"/","status":200"#),
        );
        check(pattern, "nonsense", None);
        assert_eq!(
            Pattern::new("a(b)").unwrap_err(),
            "pattern `a(b)` has no named group such as (?P<message>.*)"
        );
        assert!(Pattern::new("(").unwrap_err().starts_with("pattern is no regular expression: "));
    }
}
