//! logfmt: `at=info msg="a \"quoted\" text" took=12.5 cached`, pair by pair.
//!
//! Pairs stand between spaces. A key without `=` is true; a quoted value is a text whatever it looks like, and may hold
//! `\"`, `\\`, `\n`, `\r` and `\t`. Nothing but a line without any pair is refused: logs are written by people.

use crate::agent::json_text::{push_text, push_value};

/// Appends the pairs of a line as members of a JSON object, each followed by a comma. How many there were.
pub(crate) fn push_members(out: &mut Vec<u8>, line: &[u8]) -> usize {
    let mut rest = line;
    let mut members = 0;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return members;
        }
        let key_end = rest.iter().position(|byte| *byte == b'=' || byte.is_ascii_whitespace());
        let (key, after) = rest.split_at(key_end.unwrap_or(rest.len()));
        let Some(value) = after.strip_prefix(b"=") else {
            rest = after;
            push_text(out, key);
            out.extend_from_slice(b":true,");
            members += 1;
            continue;
        };
        // `=value` has no name, so nothing could be asked about it but that it is there.
        push_text(out, if key.is_empty() { b"_" } else { key });
        out.push(b':');
        rest = match value.strip_prefix(b"\"").and_then(quoted) {
            Some((text, after)) => {
                push_text(out, &text);
                after
            }
            None => {
                let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
                push_value(out, &value[..end]);
                &value[end..]
            }
        };
        out.push(b',');
        members += 1;
    }
}

/// Whether a line looks as if it were logfmt: it begins with `key=`.
pub(crate) fn looks_like(line: &[u8]) -> bool {
    let is_of_key = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-@".contains(byte);
    let key = line.iter().take_while(|byte| is_of_key(byte)).count();
    key > 0 && line.get(key) == Some(&b'=') && line.get(key + 1) != Some(&b'=')
}

/// The text up to the closing quote, and what follows; `None` without a closing quote.
fn quoted(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => return Some((text, &bytes[at + 1..])),
            b'\\' => {
                at += 1;
                match bytes.get(at)? {
                    b'n' => text.push(b'\n'),
                    b'r' => text.push(b'\r'),
                    b't' => text.push(b'\t'),
                    b'"' => text.push(b'"'),
                    b'\\' => text.push(b'\\'),
                    other => text.extend_from_slice(&[b'\\', *other]),
                }
            }
            byte => text.push(*byte),
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(line: &[u8]) -> String {
        let mut out = b"{".to_vec();
        if push_members(&mut out, line) > 0 {
            out.pop();
        }
        out.push(b'}');
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_read() {
        let check = |line: &str, expect: &str| assert_eq!(object(line.as_bytes()), expect, "{line}");
        check("", "{}");
        check("at=info n=7 took=12.5ms ok=true", r#"{"at":"info","n":7,"took":"12.5ms","ok":true}"#);
        check(r#"msg="a \"b\"\n\q c" id="007" n="7""#, r#"{"msg":"a \"b\"\n\\q c","id":"007","n":"7"}"#);
        check("  cached  a=  b=\"\" c=x=y ", r#"{"cached":true,"a":"","b":"","c":"x=y"}"#);
        // A quote that is never closed is part of the value.
        check("a=\"b c", r#"{"a":"\"b","c":true}"#);
        check("=x", r#"{"_":"x"}"#);
        check("a=\"x\"y=1", r#"{"a":"x","y":1}"#);
    }

    #[test]
    fn it_is_told_from_other_lines() {
        let check = |line: &str, expect: bool| assert_eq!(looks_like(line.as_bytes()), expect, "{line}");
        check("level=info msg=x", true);
        check("ts.unix=1 a", true);
        check("{\"a\":1}", false);
        check("2026-01-01 a=b", false);
        check("a==b", false);
        check("", false);
    }

    proptest! {
        #[test]
        fn any_line_becomes_json(line: Vec<u8>) {
            let _: serde_json::Value = serde_json::from_str(&object(&line)).unwrap();
        }
    }
}
