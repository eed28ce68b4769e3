//! Cuts values into literal text and fields.
//!
//! The bytes of a value are cut only before and after ASCII, so all pieces are UTF-8. No field is empty.

/// Where a field is, in a shape's key. No byte of UTF-8.
pub(super) const MARK: u8 = 0xff;

/// Where a piece of text lies.
pub(super) type Span = (u32, u32);

/// How values are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// Fields are runs of letters and digits.
    Fine,
    /// Fields are what stands in quotes, and else what stands between spaces and brackets.
    Coarse,
}

/// Cuts the value at a span. Its key is the text between fields with a mark for each field.
pub(super) fn cut(text: &[u8], value: Span, level: Level, key: &mut Vec<u8>, fields: &mut Vec<Span>) {
    key.clear();
    let (mut at, end) = value;
    let mut quoted = false;
    while at < end {
        let byte = text[at as usize];
        let rest = &text[at as usize..end as usize];
        let length = match level {
            Level::Fine => rest.iter().position(|byte| !is_word(*byte)),
            Level::Coarse if quoted => rest.iter().position(|byte| *byte == b'"'),
            Level::Coarse => rest.iter().position(|byte| is_space(*byte)),
        };
        let length = length.unwrap_or(rest.len()) as u32;
        if length > 0 {
            key.push(MARK);
            fields.push((at, at + length));
            at += length;
        } else {
            quoted ^= byte == b'"';
            key.push(byte);
            at += 1;
        }
    }
}

/// Whether a byte is part of a word, for each byte.
const WORD: [bool; 256] = {
    let mut word = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        word[byte] = byte >= 0x80 || byte == b'_' as usize || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    word
};

#[inline]
fn is_word(byte: u8) -> bool {
    WORD[usize::from(byte)]
}

#[inline]
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'"' | b'[' | b']' | b'(' | b')')
}
