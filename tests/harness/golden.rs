//! Golden files: events, questions about them, and the answers, in one text.
//!
//! ```text
//! # name: weights
//! # description: what sample_rate does
//!
//! rows requests
//! {"time": "2026-03-01T00:00:00Z", "ms": 200, "sample_rate": 10}
//!
//! query
//! SELECT count(*), avg(ms) FROM requests
//! ----
//! 10 | 200.0
//!
//! error
//! SELECT foo FROM requests
//! ----
//! not_found: column `foo` not found
//! at 1:8
//!
//! plan
//! SELECT count(*) FROM requests
//! ----
//! count(*)
//! ```
//!
//! Sections are separated by blank lines; `#` begins a comment line between them. All `rows` of a file are there
//! before its first question. After `query` may stand `sorted` (the answer has no order: both sides are sorted) and
//! `names` (the first line holds the names of the columns). The first line of an `error` is code and message, exactly;
//! after it stand those of `at`, `detail:` and `hint:` that matter. The lines of a `plan` must occur in EXPLAIN.
//!
//! Cells are separated by ` | `. A float has a point, text stands as it is, the empty text is `(empty)`, NULL is
//! `NULL`, lists and structs are JSON. Floats agree within a relative 1e-9; `~ 650.0` asks for 1 % only, which is
//! what a percentile promises.

use std::path::Path;

use serde_json::Value as Json;

use crate::http::{Answer, Client, Refusal};

/// What a section asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An answer.
    Query {
        /// The answer has no order.
        sorted: bool,
        /// The first line holds the names of the columns.
        names: bool,
    },
    /// A refusal.
    Error,
    /// Texts that occur in EXPLAIN.
    Plan,
}

/// A question and what is said to it.
#[derive(Debug, Clone)]
pub struct Question {
    /// Where it stands, counted from 1.
    pub line: usize,
    /// What it asks for.
    pub kind: Kind,
    /// The SQL.
    pub sql: String,
    /// The expectation, line by line.
    pub expected: Vec<String>,
    /// The lines of the expectation: from, until.
    span: (usize, usize),
}

/// A golden file.
#[derive(Debug, Clone)]
pub struct Golden {
    /// Its file name.
    pub name: String,
    /// Events by table, in order.
    pub rows: Vec<(String, Vec<String>)>,
    /// Questions in order.
    pub questions: Vec<Question>,
    lines: Vec<String>,
}

impl Golden {
    /// Reads a file.
    ///
    /// # Panics
    /// With file and line, when it is not a golden file.
    pub fn read(path: &Path) -> Golden {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Golden::parse(&path.file_name().unwrap().to_string_lossy(), &text)
    }

    /// Reads a text; see [`Golden::read`].
    pub fn parse(name: &str, text: &str) -> Golden {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for head in ["# name: ", "# description: "] {
            assert!(lines.iter().any(|line| line.starts_with(head)), "{name}: no line `{head}…`");
        }
        let mut golden =
            Golden { name: name.to_owned(), rows: Vec::new(), questions: Vec::new(), lines: lines.clone() };
        let mut at = 0;
        while at < lines.len() {
            if lines[at].trim().is_empty() || lines[at].starts_with('#') {
                at += 1;
                continue;
            }
            let end = (at..lines.len()).find(|line| lines[*line].trim().is_empty()).unwrap_or(lines.len());
            golden.section(at, end);
            at = end;
        }
        golden
    }

    fn section(&mut self, start: usize, end: usize) {
        let place = format!("{}:{}", self.name, start + 1);
        let mut words = self.lines[start].split_whitespace();
        let kind = match words.next() {
            Some("rows") => {
                let table =
                    words.next().unwrap_or_else(|| panic!("{place}: rows of which table?")).to_owned();
                self.rows.push((table, self.lines[start + 1..end].to_vec()));
                return;
            }
            Some("query") => {
                let flags: Vec<&str> = words.collect();
                let unknown = flags.iter().find(|flag| !["sorted", "names"].contains(flag));
                assert!(unknown.is_none(), "{place}: unknown flag {unknown:?}");
                assert!(flags.len() < 2, "{place}: names stand in the first line, which sorting would move");
                Kind::Query { sorted: flags.contains(&"sorted"), names: flags.contains(&"names") }
            }
            Some("error") => Kind::Error,
            Some("plan") => Kind::Plan,
            other => panic!("{place}: section {other:?} is none of rows, query, error, plan"),
        };
        let split = (start..end).find(|line| self.lines[*line].trim() == "----");
        let split = split.unwrap_or_else(|| panic!("{place}: no line ----"));
        self.questions.push(Question {
            line: start + 1,
            kind,
            sql: self.lines[start + 1..split].join("\n"),
            expected: self.lines[split + 1..end].to_vec(),
            span: (split + 1, end),
        });
    }

    /// Asks every question. Returns what was not as expected, told for people, and the answers as they would stand
    /// in the file.
    pub async fn ask(&self, client: &Client) -> (Vec<String>, Vec<Vec<String>>) {
        let mut told = Vec::new();
        let mut found = Vec::new();
        for question in &self.questions {
            let lines = question.ask(client).await;
            if !question.fits(&lines) {
                told.push(format!(
                    "{}:{}\n{}\nexpected:\n    {}\nfound:\n    {}",
                    self.name,
                    question.line,
                    question.sql,
                    question.expected.join("\n    "),
                    lines.join("\n    ")
                ));
            }
            found.push(lines);
        }
        (told, found)
    }

    /// The text of the file with these answers in the place of its expectations; where an expectation fits, it stays
    /// as a person wrote it.
    pub fn completed(&self, found: &[Vec<String>]) -> String {
        let mut lines = self.lines.clone();
        for (question, found) in self.questions.iter().zip(found).rev() {
            if !question.fits(found) && question.kind != Kind::Plan {
                lines.splice(question.span.0..question.span.1, found.iter().cloned());
            }
        }
        lines.join("\n") + "\n"
    }
}

impl Question {
    async fn ask(&self, client: &Client) -> Vec<String> {
        let sql = match self.kind {
            Kind::Plan => format!("EXPLAIN {}", self.sql),
            _ => self.sql.clone(),
        };
        match client.query(&sql).await {
            Err(refusal) => refusal_lines(&refusal),
            Ok(answer) if self.kind == Kind::Plan => {
                let texts = answer.rows.iter().flatten().filter_map(Json::as_str);
                texts.flat_map(str::lines).map(str::to_owned).collect()
            }
            Ok(answer) => {
                let mut lines = answer_lines(&answer);
                if matches!(self.kind, Kind::Query { sorted: true, .. }) {
                    lines.sort();
                }
                if matches!(self.kind, Kind::Query { names: true, .. }) {
                    let names: Vec<String> = answer.columns.iter().map(|(name, _)| name.clone()).collect();
                    lines.insert(0, names.join(" | "));
                }
                lines
            }
        }
    }

    fn fits(&self, found: &[String]) -> bool {
        match self.kind {
            // The first line is the message; of detail, hint and place a file names what it cares about.
            Kind::Error => {
                self.expected.first() == found.first()
                    && !self.expected.is_empty()
                    && self.expected.iter().all(|line| found.contains(line))
            }
            Kind::Plan => self.expected.iter().all(|text| found.iter().any(|line| line.contains(text))),
            Kind::Query { sorted, .. } => {
                let mut expected = self.expected.clone();
                if sorted {
                    expected.sort();
                }
                expected.len() == found.len()
                    && expected.iter().zip(found).all(|(expected, found)| line_fits(expected, found))
            }
        }
    }
}

fn line_fits(expected: &str, found: &str) -> bool {
    let (expected, found): (Vec<&str>, Vec<&str>) =
        (expected.split(" | ").collect(), found.split(" | ").collect());
    expected.len() == found.len()
        && expected.iter().zip(found).all(|(expected, found)| cell_fits(expected, found))
}

fn cell_fits(expected: &str, found: &str) -> bool {
    if expected == found {
        return true;
    }
    let (expected, relative) = match expected.strip_prefix("~ ") {
        Some(expected) => (expected, 0.01),
        None => (expected, 1e-9),
    };
    let is_float = |text: &str| text.contains('.') && text.parse::<f64>().is_ok();
    if !is_float(expected) || !is_float(found) {
        return false;
    }
    let (expected, found): (f64, f64) = (expected.parse().unwrap(), found.parse().unwrap());
    (expected - found).abs() <= expected.abs() * relative
}

fn answer_lines(answer: &Answer) -> Vec<String> {
    let row = |row: &Vec<Json>| {
        let cells =
            row.iter().zip(&answer.columns).map(|(cell, (_, column_type))| cell_text(cell, column_type));
        cells.collect::<Vec<_>>().join(" | ")
    };
    answer.rows.iter().map(row).collect()
}

fn cell_text(cell: &Json, column_type: &str) -> String {
    match cell {
        Json::Null => "NULL".to_owned(),
        Json::String(text) if text.is_empty() => "(empty)".to_owned(),
        Json::String(text) => text.replace('\n', "\\n"),
        // A float that happens to be whole may travel as `650`; here it always has its point.
        Json::Number(number) if column_type == "float" => {
            number.as_f64().map_or_else(|| number.to_string(), |float| format!("{float:?}"))
        }
        other => other.to_string(),
    }
}

fn refusal_lines(refusal: &Refusal) -> Vec<String> {
    // A message of several lines stands in one.
    let in_one = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines = vec![format!("{}: {}", refusal.code, in_one(&refusal.message))];
    lines.extend(refusal.position.map(|(line, column)| format!("at {line}:{column}")));
    lines.extend(refusal.detail.iter().map(|detail| format!("detail: {}", in_one(detail))));
    lines.extend(refusal.hint.iter().map(|hint| format!("hint: {}", in_one(hint))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# name: a\n# description: b\n\nrows t\n{\"x\":1}\n{\"x\":2}\n\n# why\nquery sorted\nSELECT x\nFROM t\n----\n1 | a\n2.0 | ~ 100.0\n\nerror\nSELECT y FROM t\n----\nnot_found: column `y` not found\n";

    #[test]
    fn a_file_has_rows_and_questions() {
        let golden = Golden::parse("a.slt", FILE);
        assert_eq!(golden.rows, [("t".to_owned(), vec!["{\"x\":1}".to_owned(), "{\"x\":2}".to_owned()])]);
        let question = &golden.questions[0];
        assert_eq!((question.line, question.sql.as_str()), (9, "SELECT x\nFROM t"));
        assert_eq!(golden.questions[1].kind, Kind::Error);
        let same = [question.expected.clone(), golden.questions[1].expected.clone()];
        assert_eq!(golden.completed(&same), FILE);
        let other = [vec!["3".to_owned()], golden.questions[1].expected.clone()];
        assert!(golden.completed(&other).contains("----\n3\n\nerror"));
    }

    #[test]
    fn cells_fit_within_what_is_promised() {
        for (expected, found, fits) in [
            ("650.0", "650.0000000001", true),
            ("650.0", "650.1", false),
            ("~ 650.0", "655.0", true),
            ("~ 650.0", "657.0", false),
            ("650", "650.0", false),
            ("650", "651", false),
            ("NULL", "NULL", true),
        ] {
            assert_eq!(cell_fits(expected, found), fits, "{expected} against {found}");
        }
        assert!(!line_fits("1 | 2", "1"));
    }

    #[test]
    fn values_are_written_one_way() {
        for (json, column_type, expect) in [
            ("650", "float", "650.0"),
            ("650", "int", "650"),
            ("null", "float", "NULL"),
            ("\"\"", "string", "(empty)"),
            ("[\"a\",null]", "strings", "[\"a\",null]"),
            ("true", "bool", "true"),
            ("\"NaN\"", "float", "NaN"),
        ] {
            let json: Json = serde_json::from_str(json).unwrap();
            assert_eq!(cell_text(&json, column_type), expect);
        }
    }
}
