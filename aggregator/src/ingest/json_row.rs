//! One JSON object becomes the values of one row, straight from the text into the batch.
//!
//! Objects inside flatten with dots, lists become lists of texts, and what stands deeper in a list keeps its JSON
//! text without blanks. Integers that 64 bits do not hold keep their value (see `columns::wide_integer`), as do
//! floats too large for a float, which become text. Everything else is as RFC 8259 says; what is not JSON is an error.

use std::borrow::Cow;

use super::IngestLimits;
use super::batch::BatchBuilder;
use super::columns::{Scalar, wide_integer};
use super::row_error::RowError;

/// Reads one object, with nothing but blanks around it, into the row.
pub(super) fn read_row(bytes: &[u8], rows: &mut BatchBuilder, limits: &IngestLimits) -> Result<(), RowError> {
    let text = std::str::from_utf8(bytes).map_err(|error| RowError::Utf8 { at: error.valid_up_to() })?;
    let mut reader =
        Reader { text, bytes, at: 0, path: String::new(), depth: 0, nesting_max: limits.nesting_max };
    reader.blanks();
    match reader.peek() {
        Some(b'{') => reader.object(rows)?,
        other => return Err(reader.not_an_object(other)),
    }
    reader.blanks();
    if reader.at < bytes.len() { Err(reader.error("something follows the object")) } else { Ok(()) }
}

/// A value that is not an object or a list.
enum Plain<'a> {
    Text(Cow<'a, str>),
    Other(Scalar<'a>),
}

impl Plain<'_> {
    fn scalar(&self) -> Scalar<'_> {
        match self {
            Plain::Text(text) => Scalar::Text(text),
            Plain::Other(scalar) => *scalar,
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Names of the objects around, with dots between.
    path: String,
    depth: usize,
    nesting_max: usize,
}

impl<'a> Reader<'a> {
    fn error(&self, what: &'static str) -> RowError {
        RowError::Json { what, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes this byte, if it is the next one.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), RowError> {
        if self.take(byte) { Ok(()) } else { Err(self.error(what)) }
    }

    fn not_an_object(&mut self, first: Option<u8>) -> RowError {
        let what = match first {
            Some(b'[') => "a list",
            Some(b'"') => "a text",
            _ => match self.plain() {
                Ok(Plain::Other(Scalar::Null)) => "null",
                Ok(Plain::Other(Scalar::Bool(_))) => "a bool",
                Ok(_) => "a number",
                Err(error) => return error,
            },
        };
        RowError::NotAnObject(what)
    }

    fn enter(&mut self) -> Result<(), RowError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > self.nesting_max {
            return Err(RowError::Nesting { limit: self.nesting_max });
        }
        self.blanks();
        Ok(())
    }

    /// After a value in an object or list: whether another one follows. `close` ends it.
    fn another(&mut self, close: u8, what: &'static str) -> Result<bool, RowError> {
        self.blanks();
        if self.take(b',') {
            self.blanks();
            return Ok(true);
        }
        self.expect(close, what)?;
        self.depth -= 1;
        Ok(false)
    }

    fn object(&mut self, rows: &mut BatchBuilder) -> Result<(), RowError> {
        let is_top = self.depth == 0;
        self.enter()?;
        if self.take(b'}') {
            self.depth -= 1;
            return Ok(());
        }
        loop {
            let key = self.key()?;
            if is_top && self.peek() != Some(b'{') {
                self.value(&key, rows)?;
            } else {
                let around = self.path.len();
                if !is_top {
                    self.path.push('.');
                }
                self.path.push_str(&key);
                if self.peek() == Some(b'{') {
                    self.object(rows)?;
                } else {
                    let path = std::mem::take(&mut self.path);
                    self.value(&path, rows)?;
                    self.path = path;
                }
                self.path.truncate(around);
            }
            if !self.another(b'}', "expected ',' or '}' after a value")? {
                return Ok(());
            }
        }
    }

    /// A key and the colon after it.
    fn key(&mut self) -> Result<Cow<'a, str>, RowError> {
        if self.peek() != Some(b'"') {
            return Err(self.error("expected a name in double quotes"));
        }
        let key = self.string()?;
        self.blanks();
        self.expect(b':', "expected ':' after a name")?;
        self.blanks();
        Ok(key)
    }

    /// A value that is not an object.
    fn value(&mut self, name: &str, rows: &mut BatchBuilder) -> Result<(), RowError> {
        if self.peek() != Some(b'[') {
            let plain = self.plain()?;
            return rows.put(name, plain.scalar());
        }
        self.enter()?;
        rows.begin_list();
        if self.take(b']') {
            self.depth -= 1;
            return rows.end_list(name);
        }
        loop {
            if matches!(self.peek(), Some(b'{' | b'[')) {
                let mut compact = String::new();
                self.compact(&mut compact)?;
                rows.put_item(name, Scalar::Text(&compact))?;
            } else {
                let plain = self.plain()?;
                rows.put_item(name, plain.scalar())?;
            }
            if !self.another(b']', "expected ',' or ']' after an item")? {
                return rows.end_list(name);
            }
        }
    }

    /// Copies an object or list without the blanks in it.
    fn compact(&mut self, out: &mut String) -> Result<(), RowError> {
        let (is_object, open, close) =
            if self.peek() == Some(b'{') { (true, '{', '}') } else { (false, '[', ']') };
        self.enter()?;
        out.push(open);
        if self.take(close as u8) {
            self.depth -= 1;
            out.push(close);
            return Ok(());
        }
        loop {
            if is_object {
                let start = self.at;
                if self.peek() != Some(b'"') {
                    return Err(self.error("expected a name in double quotes"));
                }
                self.string()?;
                out.push_str(self.since(start));
                out.push(':');
                self.blanks();
                self.expect(b':', "expected ':' after a name")?;
                self.blanks();
            }
            if matches!(self.peek(), Some(b'{' | b'[')) {
                self.compact(out)?;
            } else {
                let start = self.at;
                self.plain()?;
                out.push_str(self.since(start));
            }
            if !self.another(close as u8, "expected ',' or the end of a list or object")? {
                out.push(close);
                return Ok(());
            }
            out.push(',');
        }
    }

    /// The text from `start` to here; both lie beside ASCII bytes, so they are character boundaries.
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn plain(&mut self) -> Result<Plain<'a>, RowError> {
        let (word, value) = match self.peek() {
            Some(b'"') => return Ok(Plain::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => return Ok(Plain::Other(self.number()?)),
            Some(b't') => ("true", Scalar::Bool(true)),
            Some(b'f') => ("false", Scalar::Bool(false)),
            Some(b'n') => ("null", Scalar::Null),
            Some(_) => return Err(self.error("expected a value")),
            None => return Err(self.error("it ends where a value should be")),
        };
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("expected a value"));
        }
        self.at += word.len();
        Ok(Plain::Other(value))
    }

    fn digits(&mut self) -> Result<(), RowError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("expected a digit")) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Scalar<'a>, RowError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        let mut is_integer = true;
        if self.take(b'.') {
            is_integer = false;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.since(start);
        if is_integer {
            return Ok(text.parse().map_or_else(|_| wide_integer(text), Scalar::Int));
        }
        Ok(match text.parse::<f64>() {
            Ok(float) if float.is_finite() => Scalar::Float(float),
            _ => Scalar::Text(text),
        })
    }

    fn string(&mut self) -> Result<Cow<'a, str>, RowError> {
        self.at += 1;
        let mut start = self.at;
        let mut unescaped = String::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    let tail = self.since(start);
                    self.at += 1;
                    if unescaped.is_empty() {
                        return Ok(Cow::Borrowed(tail));
                    }
                    unescaped.push_str(tail);
                    return Ok(Cow::Owned(unescaped));
                }
                Some(b'\\') => {
                    unescaped.push_str(self.since(start));
                    self.at += 1;
                    unescaped.push(self.escape()?);
                    start = self.at;
                }
                Some(0..0x20) => return Err(self.error("a control character in a text is not escaped")),
                Some(_) => self.at += 1,
                None => return Err(self.error("it ends inside a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, RowError> {
        let escaped = self.peek();
        self.at += 1;
        Ok(match escaped {
            Some(plain @ (b'"' | b'\\' | b'/')) => char::from(plain),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => {
                self.at -= 1;
                return Err(self.error("unknown escape in a text"));
            }
        })
    }

    fn unicode(&mut self) -> Result<char, RowError> {
        let first = self.four_hex()?;
        let code = if (0xD800..0xDC00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let second = self.four_hex()?;
            if !(0xDC00..0xE000).contains(&second) {
                return Err(self.error("half a surrogate pair in a text"));
            }
            0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.error("half a surrogate pair in a text"))
    }

    fn four_hex(&mut self) -> Result<u32, RowError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            code =
                code * 16 + digit.ok_or_else(|| self.error("expected four hexadecimal digits after \\u"))?;
            self.at += 1;
        }
        Ok(code)
    }
}
