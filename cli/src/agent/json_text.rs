//! Writes rows as JSON text, straight into a body.
//!
//! What is written is always valid JSON on one line: bytes that are no UTF-8 become replacement characters. A value is
//! written as a number only when it reads back as it was written, so that `007` and `1e5` stay texts.

/// Appends a JSON string.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    match std::str::from_utf8(text) {
        Ok(text) => push_escaped(out, text.as_bytes()),
        Err(_) => push_escaped(out, String::from_utf8_lossy(text).as_bytes()),
    }
}

/// Appends what reads as a number or truth value as such, and everything else as a string.
pub(crate) fn push_value(out: &mut Vec<u8>, value: &[u8]) {
    if matches!(value, b"true" | b"false") || is_number(value) {
        out.extend_from_slice(value);
    } else {
        push_text(out, value);
    }
}

fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut done = 0;
    for (at, byte) in text.iter().enumerate() {
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&text[done..at]);
        done = at + 1;
        if escaped.is_empty() {
            let digits = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
        } else {
            out.extend_from_slice(escaped);
        }
    }
    out.extend_from_slice(&text[done..]);
    out.push(b'"');
}

/// An integer of at most 18 digits or a decimal number of at most 17, as JSON writes them.
fn is_number(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let whole = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let (whole, fraction) = digits.split_at(whole);
    let whole_is_fit = match whole {
        [] => false,
        [b'0'] => true,
        [first, ..] => *first != b'0' && whole.len() <= 18,
    };
    let fraction_is_fit = match fraction {
        [] => value != b"-0",
        [b'.', decimals @ ..] => {
            !decimals.is_empty()
                && decimals.iter().all(u8::is_ascii_digit)
                && whole.len() + decimals.len() <= 17
        }
        _ => false,
    };
    whole_is_fit && fraction_is_fit
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_keep_what_they_say() {
        let check = |value: &str, expect: &str| {
            let mut out = Vec::new();
            push_value(&mut out, value.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        for number in ["0", "7", "-12", "0.5", "-0.25", "123456789012345678", "true", "false"] {
            check(number, number);
        }
        for text in
            ["", "-", "007", "1e5", "1.", ".5", "+1", "1234567890123456789", "1_0", "nan", "-0", "0x1"]
        {
            check(text, &format!("\"{text}\""));
        }
        check("a\"b\\\u{1}\n\té", "\"a\\\"b\\\\\\u0001\\n\\té\"");
    }

    proptest! {
        #[test]
        fn what_is_written_is_json(text: Vec<u8>) {
            let mut out = Vec::new();
            push_text(&mut out, &text);
            let read: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&text).into_owned());
            let mut out = Vec::new();
            push_value(&mut out, &text);
            let _: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert!(!out.contains(&b'\n'));
        }
    }
}
