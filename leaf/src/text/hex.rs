//! Ids of hex digits: trace ids, digests, UUIDs.
//!
//! All values of a column have the same length, the same case, and dashes (those of a UUID) or none. Two digits take one
//! byte; dashes and case are part of the parameter.
//!
//! ```text
//! parameter   bits 0..16: bytes of one value (digits / 2, 1 to 64); bit 16: upper case; bit 17: dashes of a UUID
//! buffer 0    the bytes of each row, those of a row without value are zero
//! ```

use arrow::array::{Array, StringArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use xxhash_rust::xxh3::xxh3_64;

use super::number::number;
use super::{Form, TextParts, TextTest};

/// Longest value in bytes.
const BYTES_MAX: usize = 64;
const UPPER: u64 = 1 << 16;
const DASHES: u64 = 1 << 17;
/// Digits of a UUID before each dash.
const DASHED: [usize; 4] = [8, 12, 16, 20];
const UUID_BYTES: usize = 16;
const UUID_LEN: usize = 36;

/// The digits of each byte.
const fn pairs(digits: &[u8; 16]) -> [[u8; 2]; 256] {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
}
static LOWER_PAIRS: [[u8; 2]; 256] = pairs(b"0123456789abcdef");
static UPPER_PAIRS: [[u8; 2]; 256] = pairs(b"0123456789ABCDEF");

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Style {
    /// Bytes of one value.
    width: usize,
    upper: bool,
    dashes: bool,
}

/// Packed hex digits of some rows.
#[derive(Debug, Clone)]
pub struct Hex {
    style: Style,
    bytes: Buffer,
}

impl Style {
    /// The style of values like this one; the case is unknown while there are only decimal digits.
    fn of(value: &str) -> Option<(Style, Option<bool>)> {
        let dashes = value.len() == UUID_LEN && value.as_bytes()[DASHED[0]] == b'-';
        let digits = if dashes { UUID_LEN - DASHED.len() } else { value.len() };
        let width = digits / 2;
        if !digits.is_multiple_of(2) || !(1..=BYTES_MAX).contains(&width) {
            return None;
        }
        let mut cases = value.bytes().filter(u8::is_ascii_alphabetic).map(|digit| digit.is_ascii_uppercase());
        Some((Style { width, upper: false, dashes }, cases.next()))
    }

    fn parameter(self) -> u64 {
        self.width as u64 | if self.upper { UPPER } else { 0 } | if self.dashes { DASHES } else { 0 }
    }

    fn from_parameter(parameter: u64) -> Result<Style, String> {
        let width = (parameter & 0xffff) as usize;
        let style = Style { width, upper: parameter & UPPER != 0, dashes: parameter & DASHES != 0 };
        let fits = (1..=BYTES_MAX).contains(&width) && (!style.dashes || width == UUID_BYTES);
        if !fits || parameter >= DASHES << 1 {
            return Err(format!("has the parameter {parameter} of hex digits"));
        }
        Ok(style)
    }

    /// Packs a value of this style; `None` when it is of another.
    fn pack(self, value: &str, out: &mut [u8]) -> Option<()> {
        let text = value.as_bytes();
        let mut from = 0;
        if text.len() != self.width * 2 + if self.dashes { DASHED.len() } else { 0 } {
            return None;
        }
        for (index, byte) in out.iter_mut().enumerate() {
            if self.dashes && DASHED.contains(&(index * 2)) {
                if text[from] != b'-' {
                    return None;
                }
                from += 1;
            }
            *byte = self.digit(text[from])? << 4 | self.digit(text[from + 1])?;
            from += 2;
        }
        Some(())
    }

    #[inline]
    fn digit(self, digit: u8) -> Option<u8> {
        match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' if !self.upper => Some(digit - b'a' + 10),
            b'A'..=b'F' if self.upper => Some(digit - b'A' + 10),
            _ => None,
        }
    }
}

/// Packs the values of a column, if all of them are hex digits of one style.
pub fn encode(array: &StringArray) -> Option<TextParts> {
    let mut values = array.iter().flatten();
    let (mut style, mut upper) = Style::of(values.next()?)?;
    // The first value with a letter tells the case of all.
    while upper.is_none() {
        match values.next() {
            Some(value) => upper = Style::of(value)?.1,
            None => upper = Some(false),
        }
    }
    style.upper = upper == Some(true);
    let mut bytes = vec![0; array.len() * style.width];
    for (value, out) in array.iter().zip(bytes.chunks_exact_mut(style.width)) {
        if let Some(value) = value {
            style.pack(value, out)?;
        }
    }
    Some(TextParts { form: Form::Hex, parameter: style.parameter(), buffers: vec![Buffer::from_vec(bytes)] })
}

impl Hex {
    pub(super) fn open(parts: &TextParts, row_count: usize) -> Result<Hex, String> {
        let style = Style::from_parameter(parts.parameter)?;
        let [bytes] = &parts.buffers[..] else {
            return Err(format!("has {} buffers of hex digits, not 1", parts.buffers.len()));
        };
        if bytes.len() != row_count * style.width {
            return Err(format!("has {} bytes of hex digits for {row_count} rows", bytes.len()));
        }
        Ok(Hex { style, bytes: bytes.clone() })
    }

    /// The ids of the rows at some positions.
    pub(super) fn pick(&self, positions: &[u32]) -> Hex {
        let width = self.style.width;
        let mut bytes = Vec::with_capacity(positions.len() * width);
        for row in positions {
            let start = *row as usize * width;
            bytes.extend_from_slice(&self.bytes[start..start + width]);
        }
        Hex { style: self.style, bytes: Buffer::from_vec(bytes) }
    }

    /// Bytes of each value when it is decoded.
    pub(super) fn text_bytes(&self) -> usize {
        self.style.width * 2 + if self.style.dashes { DASHED.len() } else { 0 }
    }

    #[inline]
    pub(super) fn append(&self, row: usize, out: &mut Vec<u8>) {
        let Style { width, upper, dashes } = self.style;
        let pairs = if upper { &UPPER_PAIRS } else { &LOWER_PAIRS };
        let bytes = &self.bytes[row * width..(row + 1) * width];
        // Ids of sixteen bytes are the most common, and for a known length the loop is unrolled.
        if let Ok(bytes) = <&[u8; UUID_BYTES]>::try_from(bytes) {
            let mut digits = [[0; 2]; UUID_BYTES];
            digits.iter_mut().zip(bytes).for_each(|(pair, byte)| *pair = pairs[usize::from(*byte)]);
            let digits = digits.as_flattened();
            if !dashes {
                return out.extend_from_slice(digits);
            }
            let mut text = [b'-'; UUID_LEN];
            text[..8].copy_from_slice(&digits[..8]);
            text[9..13].copy_from_slice(&digits[8..12]);
            text[14..18].copy_from_slice(&digits[12..16]);
            text[19..23].copy_from_slice(&digits[16..20]);
            text[24..].copy_from_slice(&digits[20..]);
            return out.extend_from_slice(&text);
        }
        // Only values of sixteen bytes have dashes.
        bytes.iter().for_each(|byte| out.extend_from_slice(&pairs[usize::from(*byte)]));
    }

    /// A number for the value of every row, in order of first appearance, and the row of each first appearance. Rows
    /// without value share a number.
    pub(super) fn number(&self, validity: Option<&NullBuffer>) -> (Vec<u32>, Vec<u32>) {
        match self.style.width {
            8 => number(self.bytes.as_slice().as_chunks::<8>().0, validity, |id| u64::from_le_bytes(*id)),
            16 => number(self.bytes.as_slice().as_chunks::<16>().0, validity, |id| {
                let id = u128::from_le_bytes(*id);
                id as u64 ^ (id >> 64) as u64
            }),
            width => {
                let values: Vec<&[u8]> = self.bytes.chunks_exact(width).collect();
                number(&values, validity, |id| xxh3_64(id))
            }
        }
    }

    pub(super) fn matches(&self, test: &TextTest, positions: Option<&[u32]>) -> Option<BooleanBuffer> {
        let TextTest::Among(values) = test else { return None };
        let width = self.style.width;
        let mut wanted: Vec<Vec<u8>> = values
            .iter()
            .filter_map(|value| {
                let mut packed = vec![0; width];
                self.style.pack(value, &mut packed).map(|()| packed)
            })
            .collect();
        wanted.sort_unstable();
        let row_count = self.bytes.len() / width;
        let count = positions.map_or(row_count, <[u32]>::len);
        let at = |place: usize| {
            let row = positions.map_or(place, |positions| positions[place] as usize);
            &self.bytes[row * width..(row + 1) * width]
        };
        Some(match &wanted[..] {
            [] => BooleanBuffer::new_unset(count),
            [one] => match (<&[u8; 16]>::try_from(&one[..]), positions) {
                // Sixteen bytes are the most common and compare as one number.
                (Ok(one), None) => {
                    let (values, _) = self.bytes.as_slice().as_chunks::<16>();
                    let one = u128::from_le_bytes(*one);
                    BooleanBuffer::collect_bool(count, |row| u128::from_le_bytes(values[row]) == one)
                }
                _ => BooleanBuffer::collect_bool(count, |place| at(place) == &one[..]),
            },
            many => BooleanBuffer::collect_bool(count, |place| {
                let value = at(place);
                many.binary_search_by(|candidate| candidate.as_slice().cmp(value)).is_ok()
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StoredText, Verified};
    use super::*;

    fn check(values: &[Option<&str>], packed: Option<(usize, u64)>) {
        let array = StringArray::from(values.to_vec());
        let parts = encode(&array);
        let found = parts.as_ref().map(|parts| (parts.bytes(), parts.parameter));
        assert_eq!(found, packed, "{values:?}");
        let Some(parts) = parts else { return };
        let text = StoredText::open(parts, array.len(), array.nulls().cloned(), Verified::No).expect("opens");
        assert_eq!(text.to_array(), array);
        let ends = [array.len() as u32 - 1, 0];
        let expect: StringArray = ends.iter().map(|row| values[*row as usize]).collect();
        assert_eq!(text.take(&ends), expect);
        for value in values.iter().flatten() {
            let test = TextTest::Among(vec![(*value).to_owned()]);
            let bits: Vec<bool> = text.matches(&test, None).expect("compares bytes").iter().collect();
            assert_eq!(bits, values.iter().map(|other| *other == Some(value)).collect::<Vec<bool>>());
            let some = text.matches(&test, Some(&ends)).expect("compares bytes");
            assert_eq!(some.value(0), values[ends[0] as usize] == Some(value));
        }
        let twice: Vec<u32> = (0..array.len() as u32).flat_map(|row| [row, row]).collect();
        let (codes, firsts) = text.pick(&twice).number().expect("ids are numbered");
        let rows: Vec<u32> = codes.iter().map(|code| twice[firsts[*code as usize] as usize]).collect();
        assert_eq!(text.take(&rows), text.take(&twice));
        let distinct: std::collections::BTreeSet<Option<&str>> = values.iter().copied().collect();
        assert_eq!(firsts.len(), distinct.len(), "{values:?}");
        let none = text.matches(&TextTest::Among(vec!["zz".into()]), None).expect("compares bytes");
        assert_eq!(none.count_set_bits(), 0);
    }

    #[test]
    fn digits_come_back_byte_for_byte() {
        check(&[Some("00ff"), None, Some("a0b1")], Some((6, 2)));
        check(&[Some("0012"), Some("AB00")], Some((4, 2 | UPPER)));
        check(&[Some("12"), Some("34")], Some((2, 1)));
        let uuid = "123e4567-e89b-12d3-a456-426614174000";
        check(&[Some(uuid), Some("00000000-0000-0000-0000-0000000000ff"), None], Some((48, 16 | DASHES)));
        let trace = "99c929974e55db54eecb212a67679b43";
        check(&[Some(trace), Some("00000000000000000000000000000000"), Some(trace)], Some((48, 16)));
    }

    #[test]
    fn other_text_is_left_alone() {
        check(&[Some("00ff"), Some("00FF")], None);
        check(&[Some("00ff"), Some("00f")], None);
        check(&[Some("0f1")], None);
        check(&[Some("")], None);
        check(&[Some("xy")], None);
        check(
            &[Some("123e4567-e89b-12d3-a456-426614174000"), Some("123e4567-e89b-12d3-a456_426614174000")],
            None,
        );
        check(&[None, None], None);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let open = |parameter, bytes: usize, rows| {
            let parts =
                TextParts { form: Form::Hex, parameter, buffers: vec![Buffer::from_vec(vec![0u8; bytes])] };
            Hex::open(&parts, rows).map(|_| ())
        };
        assert_eq!(open(2, 4, 2), Ok(()));
        assert_eq!(open(2, 5, 2), Err("has 5 bytes of hex digits for 2 rows".to_owned()));
        for parameter in [0, 65, 3 | DASHES, 1 << 20] {
            assert_eq!(open(parameter, 4, 2), Err(format!("has the parameter {parameter} of hex digits")));
        }
    }
}
