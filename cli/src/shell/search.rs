//! Ctrl-R: what was typed before, found by parts of it, also when letters between them are left out.
//!
//! While it is on, the line holds what is searched for, and below it stand the statements that were found, the best
//! first. Nothing is read from the terminal here: the editor passes keys on ([`Search::press`]) and shows what
//! [`Search::shown`] gives. Leaving it always gives a line back, the one that was there or the one that was chosen. The
//! editor can only put a whole line in the place of another, with its cursor at the end, when it completes; so a key that
//! changes the line completes it, with [`Search::take_line`].

use std::collections::HashSet;

use rustyline::{Cmd, KeyCode, KeyEvent, Modifiers};

use crate::render::{self, Style};
use crate::units;

/// Statements that are shown at a time.
const SHOWN_MAX: usize = 10;
/// Places in a statement at which a part of it is tried to begin.
const TRIED_MAX: usize = 16;
/// More of a long statement is not looked at.
const SEARCHED_CHARS_MAX: usize = 2_000;

/// A search, while it is on. See the module.
#[derive(Debug, Default)]
pub(super) struct Search {
    searching: Option<Searching>,
    /// What is to be put in the place of the line.
    line: Option<String>,
}

#[derive(Debug)]
struct Searching {
    /// The line as it was.
    before: String,
    /// What is searched for, once anything was found for it.
    sought: Option<String>,
    /// What was found, the best first.
    found: Vec<String>,
    chosen: usize,
}

impl Search {
    /// Whether the line is what is searched for.
    pub(super) fn is_on(&self) -> bool {
        self.searching.is_some()
    }

    /// Ends it without a line, because the line is gone.
    pub(super) fn stop(&mut self) {
        *self = Search::default();
    }

    /// What is to be put in the place of the line now.
    pub(super) fn line(&self) -> Option<&str> {
        self.line.as_deref()
    }

    /// The same, once.
    pub(super) fn take_line(&mut self) -> Option<String> {
        self.line.take()
    }

    fn replace_line(&mut self, with: String) -> Cmd {
        self.line = Some(with);
        Cmd::Complete
    }

    /// What a key means; nothing when it means what it always does.
    pub(super) fn press(&mut self, key: KeyEvent, line: &str, is_at_end: bool) -> Option<Cmd> {
        let KeyEvent(code, modifiers) = key;
        let control = |letter: char| code == KeyCode::Char(letter) && modifiers == Modifiers::CTRL;
        let plain = |wanted: KeyCode| code == wanted && modifiers == Modifiers::NONE;
        let Some(searching) = &mut self.searching else {
            if !control('R') {
                return None;
            }
            let before = line.to_owned();
            self.searching = Some(Searching { before, sought: None, found: Vec::new(), chosen: 0 });
            // A begun statement of several lines is no good to search by.
            let sought = if line.contains('\n') { "" } else { line };
            return Some(self.replace_line(sought.to_owned()));
        };
        let takes = plain(KeyCode::Enter) || control('J') || control('M') || plain(KeyCode::Tab);
        if takes || (plain(KeyCode::Right) && is_at_end) {
            let Searching { before, mut found, chosen, .. } = self.searching.take()?;
            let taken = if chosen < found.len() { found.swap_remove(chosen) } else { before };
            return Some(self.replace_line(taken));
        }
        if plain(KeyCode::Esc) || "GCD".chars().any(control) {
            let before = self.searching.take()?.before;
            return Some(self.replace_line(before));
        }
        let last = searching.found.len().saturating_sub(1);
        if plain(KeyCode::Down) || control('N') || control('R') {
            searching.chosen = (searching.chosen + 1).min(last);
        } else if plain(KeyCode::Up) || control('P') || control('S') {
            searching.chosen = searching.chosen.saturating_sub(1);
        } else {
            return None;
        }
        Some(Cmd::Repaint)
    }

    /// What stands below the line now, which is all there is to see: the statements that hold what is searched for.
    /// The statements come the newest first.
    pub(super) fn shown<'a>(
        &mut self,
        line: &str,
        statements: impl Iterator<Item = std::borrow::Cow<'a, str>>,
        style: Style,
        rows: usize,
    ) -> Option<String> {
        let searching = self.searching.as_mut()?;
        if searching.sought.as_deref() != Some(line) {
            searching.found = found(line, statements);
            searching.chosen = 0;
            searching.sought = Some(line.to_owned());
        }
        let Searching { found, chosen, .. } = searching;
        let help = match found.len() {
            0 => " nothing typed before holds this · Esc leaves".to_owned(),
            some => {
                let place = format!("{} of {}", units::count(*chosen as u64 + 1), units::count(some as u64));
                format!(" {place} · Up and Down choose, Enter takes it, Esc leaves")
            }
        };
        let width = style.width.unwrap_or(80).saturating_sub(1);
        let help = if style.unicode { help } else { help.replace('·', "-") };
        let mut text = format!("\n{}", render::cut(&help, width, style));
        let shown = SHOWN_MAX.min(rows).max(1);
        let first = (*chosen + 1).saturating_sub(shown);
        for (place, statement) in found.iter().enumerate().skip(first).take(shown) {
            let mark = if place == *chosen { mark(style) } else { " " };
            let one_line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
            text.push_str(&format!(
                "\n{mark} {}",
                render::cut(&render::cell_text(&one_line), width.saturating_sub(2), style)
            ));
        }
        Some(text)
    }
}

/// What stands before the statement that Enter takes.
pub(super) fn mark(style: Style) -> &'static str {
    if style.unicode { "›" } else { ">" }
}

/// The statements that hold every word of what is searched for, the best first; of equals the newest.
fn found<'a>(sought: &str, statements: impl Iterator<Item = std::borrow::Cow<'a, str>>) -> Vec<String> {
    let words: Vec<Word> = sought.split_whitespace().map(Word::new).collect();
    let mut seen = HashSet::new();
    let mut found: Vec<(i64, String)> = Vec::new();
    for statement in statements {
        let text: Vec<char> = statement.chars().take(SEARCHED_CHARS_MAX).collect();
        let scores = words.iter().map(|word| word.score(&text));
        if let Some(score) = scores.sum::<Option<i64>>()
            && seen.insert(statement.to_string())
        {
            found.push((score, statement.into_owned()));
        }
    }
    // Sorting keeps the order of equals.
    found.sort_by_key(|(score, _)| -score);
    found.into_iter().map(|(_, statement)| statement).collect()
}

/// A word of what is searched for.
struct Word {
    letters: Vec<char>,
    /// It has a capital letter, which then must be one.
    has_case: bool,
}

impl Word {
    fn new(text: &str) -> Word {
        Word { letters: text.chars().collect(), has_case: text.chars().any(char::is_uppercase) }
    }

    fn is(&self, letter: char, other: char) -> bool {
        letter == other || (!self.has_case && letter.to_lowercase().eq(other.to_lowercase()))
    }

    /// How well a text holds the letters in their order; `None` when it does not.
    fn score(&self, text: &[char]) -> Option<i64> {
        let first = *self.letters.first()?;
        let begins = (0..text.len()).filter(|at| self.is(first, text[*at]));
        begins.take(TRIED_MAX).map_while(|begin| self.score_from(text, begin)).max()
    }

    /// The score of the letters where they come first from some place on.
    fn score_from(&self, text: &[char], begin: usize) -> Option<i64> {
        let (mut score, mut at) = (0, begin);
        let mut last: Option<usize> = None;
        for letter in &self.letters {
            let place = at + text[at..].iter().position(|other| self.is(*letter, *other))?;
            let begins_word = place == 0 || !text[place - 1].is_alphanumeric();
            let skipped = last.map_or(0, |last| place - last - 1);
            score += match last {
                Some(_) if skipped == 0 => 16,
                _ if begins_word => 12,
                _ => 4,
            };
            score -= i64::try_from(skipped.min(40)).unwrap_or(40) / 4;
            (last, at) = (Some(place), place + 1);
        }
        Some(score)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    const TYPED: [&str; 5] = [
        "select count(*) from requests;",
        "show tables;",
        "select p99(duration_ms) from requests where status >= 500;",
        "describe Deploys;",
        "select count(*) from requests;",
    ];

    /// The newest first, as a history gives them.
    fn typed() -> impl Iterator<Item = Cow<'static, str>> {
        TYPED.iter().rev().map(|text| Cow::Borrowed(*text))
    }

    #[test]
    fn statements_are_found_by_parts_of_them() {
        let check = |sought: &str, expect: &[usize]| {
            let expect: Vec<&str> = expect.iter().map(|place| TYPED[*place]).collect();
            assert_eq!(found(sought, typed()), expect, "{sought}");
        };
        check("", &[0, 3, 2, 1]);
        check("show", &[1]);
        // Letters may be left out, words stand in any order, and what is whole comes first.
        check("rqsts p99", &[2]);
        check("count", &[0]);
        check("slct", &[0, 2]);
        check("dur", &[2]);
        check("tables", &[1]);
        check("deploys", &[3]);
        check("Deploys", &[3]);
        check("DEPLOYS", &[]);
        check("zzz", &[]);
    }

    #[test]
    fn what_is_whole_is_better_than_what_is_scattered() {
        let better = |word: &str, good: &str, bad: &str| {
            let score = |text: &str| Word::new(word).score(&text.chars().collect::<Vec<_>>());
            assert!(score(good) > score(bad), "{word}: {good} {:?}, {bad} {:?}", score(good), score(bad));
        };
        better("count", "select count(*)", "select c, o from u, n, t");
        better("dur", "describe user; select dur", "describe user");
        better("ms", "select ms", "select sums");
        better("größe", "select GRÖSSE, größe", "gr öße");
    }

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent(code, Modifiers::NONE)
    }

    /// A key that puts this line in the place of what is there.
    fn gives(search: &mut Search, key: KeyEvent, line: &str, expect: &str) {
        assert_eq!(search.press(key, line, true), Some(Cmd::Complete));
        assert_eq!(search.line(), Some(expect));
        assert_eq!((search.take_line().as_deref(), search.line()), (Some(expect), None));
    }

    #[test]
    fn a_search_gives_a_line_back() {
        let control = |letter| KeyEvent(KeyCode::Char(letter), Modifiers::CTRL);
        let style = Style { width: Some(40), unicode: false, ..Style::PLAIN };
        let mut search = Search::default();
        assert_eq!(search.press(key(KeyCode::Enter), "sel", true), None);
        assert_eq!(search.shown("sel", typed(), style, 9), None);
        gives(&mut search, control('R'), "sel", "sel");
        assert_eq!(
            search.shown("sel", typed(), style, 9).unwrap(),
            "\n 1 of 3 - Up and Down choose, Enter ta~\
             \n> select count(*) from requests;\
             \n  select p99(duration_ms) from request~\
             \n  describe Deploys;"
        );
        assert_eq!(search.press(key(KeyCode::Char('x')), "sel", true), None);
        assert_eq!(search.press(key(KeyCode::Right), "sel", false), None);
        assert_eq!(search.press(control('R'), "sel", true), Some(Cmd::Repaint));
        assert_eq!(search.press(key(KeyCode::Down), "sel", true), Some(Cmd::Repaint));
        assert_eq!(search.press(key(KeyCode::Up), "sel", true), Some(Cmd::Repaint));
        let shown = search.shown("sel", typed(), style, 1).unwrap();
        assert_eq!(shown.lines().skip(2).collect::<Vec<_>>(), ["> select p99(duration_ms) from request~"]);
        gives(&mut search, key(KeyCode::Enter), "sel", TYPED[2]);
        assert!(!search.is_on());
        // What was there comes back when the search is left, and when nothing was found.
        gives(&mut search, control('R'), "a\nb", "");
        gives(&mut search, key(KeyCode::Esc), "zz", "a\nb");
        gives(&mut search, control('R'), "zzz", "zzz");
        assert_eq!(
            search.shown("zzz", typed(), style, 9).unwrap(),
            "\n nothing typed before holds this - Esc~"
        );
        gives(&mut search, key(KeyCode::Tab), "zzz", "zzz");
    }
}
