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
    let bytes = &text[value.0 as usize..value.1 as usize];
    match level {
        Level::Fine => cut_fine(bytes, value.0, key, fields),
        Level::Coarse => cut_coarse(bytes, value.0, key, fields),
    }
}

fn cut_fine(bytes: &[u8], offset: u32, key: &mut Vec<u8>, fields: &mut Vec<Span>) {
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
        if at > start {
            key.push(MARK);
            fields.push((offset + start as u32, offset + at as u32));
        }
        while at < bytes.len() && !is_word(bytes[at]) {
            key.push(bytes[at]);
            at += 1;
        }
    }
}

fn cut_coarse(bytes: &[u8], offset: u32, key: &mut Vec<u8>, fields: &mut Vec<Span>) {
    let mut at = 0;
    let mut quoted = false;
    while at < bytes.len() {
        let start = at;
        while at < bytes.len() && if quoted { bytes[at] != b'"' } else { !is_space(bytes[at]) } {
            at += 1;
        }
        if at > start {
            key.push(MARK);
            fields.push((offset + start as u32, offset + at as u32));
        } else {
            quoted ^= bytes[at] == b'"';
            key.push(bytes[at]);
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
