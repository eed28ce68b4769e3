//! One JSON object becomes the values of one row, straight from the text into the batch.
//!
//! Objects inside flatten with dots, lists become lists of texts, and what stands deeper in a list keeps its JSON
//! text without blanks. Integers that 64 bits do not hold keep their value (see `columns::wide_integer`), as do
//! floats too large for a float, which become text. Everything else is as RFC 8259 says; what is not JSON is an error.

use std::borrow::Cow;

use super::IngestLimits;
use super::batch::{BatchBuilder, Followed};
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
            if is_top && self.followed(rows)? {
                if !self.another(b'}', "expected ',' or '}' after a value")? {
                    return Ok(());
                }
                continue;
            }
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

    /// A name and its value, when the name is that of the column which came next in the row before, and the value is
    /// neither an object nor a list. False when it is not, and then nothing was read.
    #[inline]
    fn followed(&mut self, rows: &mut BatchBuilder) -> Result<bool, RowError> {
        let start = self.at;
        if !self.take(b'"') {
            return Ok(false);
        }
        let Some(column) = rows.follow(self.bytes.get(self.at..).unwrap_or_default()) else {
            self.at = start;
            return Ok(false);
        };
        self.at += column.name_bytes;
        self.blanks();
        self.expect(b':', "expected ':' after a name")?;
        self.blanks();
        match self.peek() {
            Some(b'{' | b'[') => {
                self.at = start;
                Ok(false)
            }
            Some(b'"') => self.followed_text(column, rows).map(|()| true),
            Some(b'-' | b'0'..=b'9') => {
                let number = self.number()?;
                rows.put_followed(column, number).map(|()| true)
            }
            _ => {
                let plain = self.plain()?;
                rows.put_followed(column, plain.scalar()).map(|()| true)
            }
        }
    }

    #[inline]
    fn followed_text(&mut self, column: Followed, rows: &mut BatchBuilder) -> Result<(), RowError> {
        let start = self.at + 1;
        match self.string()? {
            Cow::Borrowed(text) => rows.put_source_text(column, text, start),
            Cow::Owned(text) => rows.put_followed(column, Scalar::Text(&text)),
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

    /// Reads digits, at least one, and appends them to a number, which wraps when they are too many.
    fn digits(&mut self, number: &mut u64) -> Result<usize, RowError> {
        let start = self.at;
        let rest = self.bytes.get(start..).unwrap_or_default();
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            *number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
            self.at += 1;
        }
        if self.at == start { Err(self.error("expected a digit")) } else { Ok(self.at - start) }
    }

    fn number(&mut self) -> Result<Scalar<'a>, RowError> {
        let start = self.at;
        let is_negative = self.take(b'-');
        // All digits as one integer, and how many there are before and after the point.
        let mut digits = 0;
        let whole = if self.take(b'0') { 1 } else { self.digits(&mut digits)? };
        let mut fraction = 0;
        if self.take(b'.') {
            fraction = self.digits(&mut digits)?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits(&mut 0)?;
            return Ok(float(self.since(start)));
        }
        if fraction == 0 {
            if whole <= INT_DIGITS_MAX {
                let int = digits as i64;
                return Ok(Scalar::Int(if is_negative { -int } else { int }));
            }
            let text = self.since(start);
            return Ok(text.parse().map_or_else(|_| wide_integer(text), Scalar::Int));
        }
        match POWERS_OF_TEN.get(fraction) {
            // Both are exact as floats, so their quotient is the float nearest to the number.
            Some(power) if whole + fraction <= FLOAT_DIGITS_MAX => {
                let float = digits as f64 / power;
                Ok(Scalar::Float(if is_negative { -float } else { float }))
            }
            _ => Ok(float(self.since(start))),
        }
    }

    /// A text; borrowed from the source unless it has escapes.
    #[inline]
    fn string(&mut self) -> Result<Cow<'a, str>, RowError> {
        self.at += 1;
        let start = self.at;
        self.at += plain_bytes(self.bytes.get(start..).unwrap_or_default());
        if self.peek() == Some(b'"') {
            let text = self.since(start);
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        self.string_with_escapes(start).map(Cow::Owned)
    }

    /// The rest of a text that began at `start` and is read up to something special.
    fn string_with_escapes(&mut self, mut start: usize) -> Result<String, RowError> {
        let mut unescaped = String::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    unescaped.push_str(self.since(start));
                    self.at += 1;
                    return Ok(unescaped);
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
            self.at += plain_bytes(self.bytes.get(self.at..).unwrap_or_default());
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

/// Digits that an i64 always holds.
const INT_DIGITS_MAX: usize = 18;
/// Digits of an integer that a float always holds.
const FLOAT_DIGITS_MAX: usize = 15;
/// Powers of ten with no more digits after the point than that; each is exact.
const POWERS_OF_TEN: [f64; FLOAT_DIGITS_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// The float nearest to a number, or its text when it is too large for one.
fn float(text: &str) -> Scalar<'_> {
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => Scalar::Float(float),
        _ => Scalar::Text(text),
    }
}

/// How many bytes stand before the first double quote, backslash or control character.
#[inline]
fn plain_bytes(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return index * 8 + (special.trailing_zeros() / 8) as usize;
        }
    }
    let is_special = |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\');
    words.len() * 8 + tail.iter().position(is_special).unwrap_or(tail.len())
}

/// Marks the highest bit of the first byte that is special, eight at a time; bytes after it may be marked wrongly.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let quote = word ^ (EACH * b'"' as u64);
    let backslash = word ^ (EACH * b'\\' as u64);
    let zero = |word: u64| word.wrapping_sub(EACH) & !word;
    (zero(quote) | zero(backslash) | (word.wrapping_sub(EACH * 0x20) & !word)) & (EACH * 0x80)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_special_byte_is_found_at_every_place() {
        for byte in 0..=255_u8 {
            let is_special = byte < 0x20 || byte == b'"' || byte == b'\\';
            for at in 0..20 {
                let mut bytes = vec![b'a'; 20];
                bytes[at] = byte;
                assert_eq!(plain_bytes(&bytes), if is_special { at } else { 20 }, "{byte} at {at}");
                bytes[19] = b'"';
                assert_eq!(plain_bytes(&bytes), if is_special { at } else { 19 }, "{byte} at {at}");
            }
        }
    }

    /// A number as it is read, and as the standard library reads it.
    fn check(text: &str) {
        let mut reader =
            Reader { text, bytes: text.as_bytes(), at: 0, path: String::new(), depth: 0, nesting_max: 1 };
        let found = reader.number().unwrap();
        assert_eq!(reader.at, text.len());
        match (found, text.contains(['.', 'e', 'E'])) {
            (Scalar::Int(int), false) => assert_eq!(text.parse(), Ok(int), "{text}"),
            (Scalar::Float(float), true) => {
                assert_eq!(text.parse::<f64>().unwrap().to_bits(), float.to_bits(), "{text}");
            }
            (Scalar::Float(float), false) => assert_eq!(format!("{float:.0}"), text),
            (Scalar::Text(kept), _) => assert_eq!(kept, text),
            (other, _) => panic!("{text} became {other:?}"),
        }
    }

    #[test]
    fn numbers_are_exact() {
        for text in [
            "0",
            "-0",
            "-0.0",
            "0.1",
            "0.30000000000000004",
            "123456789012345.6",
            "12345678901234.5",
            "1e-400",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
            "18446744073709551616",
            "999999999999999999",
            "1000000000000000000",
            "0.000000000000001",
            "0.0000000000000001",
            "1e400",
            "5e-324",
            "2.2250738585072011e-308",
            "9007199254740993.0",
            "1.7976931348623157e308",
        ] {
            check(text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_number_is_exact(text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?") {
            check(&text);
        }
    }
}
