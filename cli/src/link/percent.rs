//! Texts as parts of an address: UTF-8, with `%` and two digits for each byte that would mean something else there.
//!
//! What stays as it is keeps links readable: letters, digits and `- _ . ~ : , ( ) *`. A plus reads as a blank, as
//! browsers write it.

/// Appends a text.
pub(super) fn push(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~:,()*".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// The text of a part.
pub(super) fn read(part: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let digits = (digit(rest.next()), digit(rest.next()));
                let (Some(high), Some(low)) = digits else {
                    return Err(format!("`{part}`: two hexadecimal digits must follow a %"));
                };
                // Two digits of four bits each.
                (high << 4 | low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| format!("`{part}` is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_readable() {
        let mut out = String::new();
        push(&mut out, "count,p99(duration_ms) > 5&ü=+%");
        assert_eq!(out, "count,p99(duration_ms)%20%3E%205%26%C3%BC%3D%2B%25");
        assert_eq!(read("a+b%20c"), Ok("a b c".to_owned()));
        assert_eq!(read("%2"), Err("`%2`: two hexadecimal digits must follow a %".to_owned()));
        assert_eq!(read("%zz"), Err("`%zz`: two hexadecimal digits must follow a %".to_owned()));
        assert_eq!(read("%ff"), Err("`%ff` is not UTF-8".to_owned()));
    }

    proptest! {
        #[test]
        fn texts_come_back(text: String) {
            let mut out = String::new();
            push(&mut out, &text);
            prop_assert!(out.is_ascii() && !out.contains([' ', '&', '=', '#', '?', '/', '+', '"', '\'']));
            prop_assert_eq!(read(&out), Ok(text));
        }

        #[test]
        fn any_part_is_read_or_refused(text: String) {
            let _ = read(&text);
        }
    }
}
