//! Text of a few shapes: URLs, addresses, log lines.
//!
//! After Rodrigues, Luo and Yuan, "CLP: Efficient and Scalable Search on Compressed Text Logs" (OSDI 2021), with the
//! variables stored column by column. Values that differ only in some fields share a *shape*: literal text with fields
//! between. The values of a field are a column of their own: numbers, words of a dictionary, or plain text. A value that
//! has no shape in common with others is the only field of a shape without literal text. A row is found without reading
//! others, and [`search`] answers tests on words and literals instead of values.
//!
//! The parameter is 0. Buffer 0 is a directory of unsigned integers, seven bits a byte, lowest first, the high bit set
//! where another byte follows; literal text stands in it as it is:
//!
//! ```text
//! number of shapes, 1 to 255; for each shape
//!   number of its rows; number of its fields, at most 255
//!   length and bytes of a literal; then for each field
//!     0, bits, width, base             number: base + code, with zeros before it up to `width` digits
//!     1, bits, words, bytes, end bits  word: the code-th of `words` words, which are distinct and ascend
//!     2, 0, bytes, end bits            plain text
//!     length and bytes of the literal that follows
//! ```
//!
//! Buffer 1 is the text of words and plain fields, in the order of the directory. Buffer 2 holds packed numbers (see
//! [`bits`]), each kind from a byte of its own, and ends with eight zero bytes:
//!
//! ```text
//! with more than one shape  the shape of each row, in as few bits as the last shape's index needs;
//!                           for every 256th row (1,024th with more than 16 shapes) from the first, and each shape:
//!                           how many rows before that row are of the shape, in the bits of the number of rows
//! for each field            words and plain: where each group of 32 pieces of text begins, in the bits of the field's
//!                           bytes; where each piece ends after its group began, in the end bits;
//!                           numbers and words: the code of each row of the shape
//! ```

mod automaton;
mod bits;
mod cut;
mod decode;
mod encode;
mod search;
#[cfg(test)]
mod tests;
mod undecoded;

use std::sync::OnceLock;

use arrow::buffer::{BooleanBuffer, Buffer};

use super::{TEXT_BYTES_MAX, TextParts, TextTest, Verified};
use automaton::ByteSet;
use bits::{Ends, Sub, bits_for};
pub(super) use decode::Wanted;
pub use encode::encode;
pub(super) use search::Asked;

const SHAPES_MAX: usize = 255;
const FIELDS_MAX: usize = 255;
const NUMBER: u64 = 0;
const WORDS: u64 = 1;
const PLAIN: u64 = 2;
/// Most digits of a number.
const DIGITS_MAX: usize = 20;

/// Rows between two at which the ranks within shapes are stored.
fn sample_step(shape_count: usize) -> usize {
    if shape_count <= 16 { 256 } else { 1_024 }
}

/// Text of some rows, as shapes and fields.
#[derive(Debug, Clone)]
pub struct Template {
    shapes: Vec<Shape>,
    which: Option<Which>,
    row_count: usize,
    codes: Buffer,
    text: Buffer,
}

/// What some rows have in common.
#[derive(Debug, Clone)]
struct Shape {
    row_count: usize,
    /// One more than fields.
    literals: Vec<Buffer>,
    fields: Vec<Field>,
}

/// A column of values in a shape.
#[derive(Debug, Clone)]
struct Field {
    kind: Kind,
    codes: Sub,
    /// What its text has in common, found out when somebody asks.
    facts: OnceLock<Facts>,
}

/// What all pieces of a field's text have in common.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// No other byte is in them.
    bytes: ByteSet,
    /// Whether one is empty.
    has_empty: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Number { width: usize, base: u64 },
    Words { ends: Ends, count: usize, bytes: usize },
    Plain { ends: Ends, bytes: usize },
}

/// Which shape each row has.
#[derive(Debug, Clone, Copy)]
struct Which {
    shapes: Sub,
    samples: Sub,
    shape_count: usize,
}

/// Reads the directory; `None` everywhere when it ends early or says what cannot be.
struct Directory<'a> {
    bytes: &'a Buffer,
    at: usize,
}

impl Directory<'_> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return None;
            }
            number |= part << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// A number that counts something, which is at most this many.
    fn count(&mut self, max: usize) -> Option<usize> {
        self.number().and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= max)
    }

    fn literal(&mut self) -> Option<Buffer> {
        let length = self.count(self.bytes.len())?;
        let literal =
            (self.at + length <= self.bytes.len()).then(|| self.bytes.slice_with_length(self.at, length))?;
        self.at += length;
        Some(literal)
    }
}

impl Template {
    pub(super) fn open(parts: &TextParts, row_count: usize, verified: Verified) -> Result<Template, String> {
        let [directory, text, codes] = &parts.buffers[..] else {
            return Err(format!("has {} buffers of templates, not 3", parts.buffers.len()));
        };
        if parts.parameter != 0 {
            return Err(format!("has the parameter {} of templates", parts.parameter));
        }
        let template = Template::read(directory, text, codes, row_count)
            .ok_or_else(|| "has a directory of templates that does not fit its buffers".to_owned())?;
        if verified == Verified::No {
            template.verify()?;
        }
        Ok(template)
    }

    fn read(directory: &Buffer, text: &Buffer, codes: &Buffer, row_count: usize) -> Option<Template> {
        let mut directory = Directory { bytes: directory, at: 0 };
        let shape_count = directory.count(SHAPES_MAX).filter(|count| *count > 0)?;
        let (mut text_at, mut at) = (0, 0);
        let which = if shape_count > 1 {
            let bits = u64::from(bits_for(shape_count as u64 - 1));
            let shapes = Sub::open(bits, row_count, &mut at, codes)?;
            let samples = row_count.div_ceil(sample_step(shape_count)) * shape_count;
            let samples = Sub::open(u64::from(bits_for(row_count as u64)), samples, &mut at, codes)?;
            Some(Which { shapes, samples, shape_count })
        } else {
            None
        };
        let mut shapes = Vec::with_capacity(shape_count);
        for _ in 0..shape_count {
            let row_count = directory.count(row_count)?;
            let field_count = directory.count(FIELDS_MAX)?;
            let mut shape = Shape { row_count, literals: vec![directory.literal()?], fields: Vec::new() };
            for _ in 0..field_count {
                shape.fields.push(Field::read(
                    &mut directory,
                    row_count,
                    (&mut text_at, text),
                    (&mut at, codes),
                )?);
                shape.literals.push(directory.literal()?);
            }
            shapes.push(shape);
        }
        let counted: usize = shapes.iter().map(|shape| shape.row_count).sum();
        let whole = directory.at == directory.bytes.len()
            && text_at == text.len()
            && at + bits::PAD == codes.len()
            && counted == row_count;
        whole.then(|| Template { shapes, which, row_count, codes: codes.clone(), text: text.clone() })
    }

    /// Checks what reading relies on for its result, and not for its safety.
    fn verify(&self) -> Result<(), String> {
        let mut total = 0_u64;
        for shape in &self.shapes {
            for literal in &shape.literals {
                total = total.saturating_add(literal.len() as u64 * shape.row_count as u64);
                std::str::from_utf8(literal).map_err(|_| "has a literal that is not UTF-8".to_owned())?;
            }
            for field in &shape.fields {
                total = total.saturating_add(field.verify(shape.row_count, &self.codes, &self.text)?);
            }
        }
        if total > TEXT_BYTES_MAX {
            return Err(format!("decodes to {total} bytes of text, the limit is {TEXT_BYTES_MAX}"));
        }
        let Some(which) = self.which else { return Ok(()) };
        let mut ranks = vec![0_u64; self.shapes.len()];
        for row in 0..self.row_count {
            let step = sample_step(self.shapes.len());
            if row.is_multiple_of(step) {
                let first = row / step * ranks.len();
                let stored = (0..ranks.len()).map(|shape| which.samples.get(&self.codes, first + shape));
                if !stored.eq(ranks.iter().copied()) {
                    return Err(format!("has wrong ranks of shapes at row {row}"));
                }
            }
            let shape = which.shapes.get(&self.codes, row) as usize;
            *ranks.get_mut(shape).ok_or_else(|| format!("has shape {shape} of {}", self.shapes.len()))? += 1;
        }
        let counted = self.shapes.iter().map(|shape| shape.row_count as u64);
        if !counted.eq(ranks) {
            return Err("has other numbers of rows in its shapes".to_owned());
        }
        Ok(())
    }

    /// Reads single rows, fastest in ascending order.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { template: self, next: 0, ranks: vec![0; self.shapes.len()] }
    }

    pub(super) fn matches(&self, test: &TextTest, asked: Asked<'_>) -> BooleanBuffer {
        search::matches(self, test, asked)
    }

    #[inline]
    fn append_at(&self, shape: usize, rank: usize, out: &mut Vec<u8>) {
        let Some(shape) = self.shapes.get(shape) else { return };
        let mut digits = [0; DIGITS_MAX];
        for (literal, field) in shape.literals.iter().zip(&shape.fields) {
            out.extend_from_slice(literal);
            out.extend_from_slice(field.get(rank, &self.codes, &self.text, &mut digits));
        }
        if let Some(last) = shape.literals.last() {
            out.extend_from_slice(last);
        }
    }
}

/// Reads rows of a template and remembers where it is.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    template: &'a Template,
    /// The row that `ranks` is true for.
    next: usize,
    /// For each shape, how many rows before `next` have it.
    ranks: Vec<usize>,
}

impl Reader<'_> {
    /// Appends the text of a row.
    pub(super) fn append(&mut self, row: usize, out: &mut Vec<u8>) {
        let (shape, rank) = self.locate(row);
        self.template.append_at(shape, rank, out);
    }

    fn locate(&mut self, row: usize) -> (usize, usize) {
        let Some(which) = self.template.which else { return (0, row) };
        if row != self.next {
            let step = sample_step(which.shape_count);
            // Going on is as cheap as long as no sample lies between.
            if row < self.next || row / step != self.next / step {
                self.next = row / step * step;
                for (shape, rank) in self.ranks.iter_mut().enumerate() {
                    let sample = row / step * which.shape_count + shape;
                    *rank = which.samples.get(&self.template.codes, sample) as usize;
                }
            }
            while self.next < row {
                self.pass(which);
            }
        }
        self.pass(which)
    }

    fn pass(&mut self, which: Which) -> (usize, usize) {
        let shape = which.shapes.get(&self.template.codes, self.next) as usize;
        self.next += 1;
        let Some(rank) = self.ranks.get_mut(shape) else { return (shape, 0) };
        *rank += 1;
        (shape, *rank - 1)
    }
}

impl Field {
    fn read(
        directory: &mut Directory<'_>,
        row_count: usize,
        (text_at, text): (&mut usize, &Buffer),
        (at, codes): (&mut usize, &Buffer),
    ) -> Option<Field> {
        let tag = directory.number()?;
        let bits = directory.number()?;
        let kind = match tag {
            NUMBER => Kind::Number { width: directory.count(DIGITS_MAX)?, base: directory.number()? },
            WORDS | PLAIN => {
                // Of distinct words one may be empty.
                let count = if tag == WORDS { directory.count(text.len() + 1)? } else { row_count };
                let bytes = directory.count(text.len() - *text_at)?;
                let ends = Ends::open((count, bytes, directory.number()?), *text_at, at, codes)?;
                *text_at += bytes;
                if tag == WORDS { Kind::Words { ends, count, bytes } } else { Kind::Plain { ends, bytes } }
            }
            _ => return None,
        };
        let bits_max = if tag == NUMBER {
            64
        } else if tag == WORDS {
            24
        } else {
            0
        };
        let codes = Sub::open(Some(bits).filter(|bits| *bits <= bits_max)?, row_count, at, codes)?;
        Some(Field { kind, codes, facts: OnceLock::new() })
    }

    /// At most how many bytes all rows decode to.
    fn verify(&self, row_count: usize, codes: &[u8], text: &[u8]) -> Result<u64, String> {
        let (ends, count, bytes) = match &self.kind {
            Kind::Number { .. } => return Ok((row_count * DIGITS_MAX) as u64),
            Kind::Words { ends, count, bytes } => (ends, *count, *bytes),
            Kind::Plain { ends, bytes } => (ends, row_count, *bytes),
        };
        if !ends.are_ascending(codes, bytes) {
            return Err("has text that ends before it begins".to_owned());
        }
        let is_utf8 = |index| std::str::from_utf8(ends.get(codes, text, index)).is_ok();
        if !(0..count).all(is_utf8) {
            return Err("has text that is not UTF-8".to_owned());
        }
        if matches!(self.kind, Kind::Plain { .. }) {
            return Ok(bytes as u64);
        }
        let mut total = 0;
        for row in 0..row_count {
            let code = self.codes.get(codes, row) as usize;
            if code >= count {
                return Err(format!("has word {code} of {count}"));
            }
            total += ends.get(codes, text, code).len() as u64;
        }
        Ok(total)
    }

    fn facts(&self, codes: &[u8], text: &[u8]) -> Facts {
        *self.facts.get_or_init(|| match &self.kind {
            Kind::Number { .. } => Facts { bytes: ByteSet::DIGITS, has_empty: false },
            Kind::Words { ends, bytes, .. } | Kind::Plain { ends, bytes } => {
                let (all, has_empty) = ends.all(codes, text, *bytes);
                Facts { bytes: ByteSet::of(all), has_empty }
            }
        })
    }

    /// The value of a row of the shape has no more bytes.
    fn length_max(&self, rank: usize, codes: &[u8], text: &[u8]) -> usize {
        match &self.kind {
            Kind::Number { .. } => DIGITS_MAX,
            Kind::Words { ends, .. } => ends.get(codes, text, self.codes.get(codes, rank) as usize).len(),
            Kind::Plain { ends, .. } => ends.get(codes, text, rank).len(),
        }
    }

    /// The value of a row of the shape; a number is written into `digits`.
    #[inline]
    fn get<'a>(
        &self,
        rank: usize,
        codes: &[u8],
        text: &'a [u8],
        digits: &'a mut [u8; DIGITS_MAX],
    ) -> &'a [u8] {
        match &self.kind {
            Kind::Number { width, base } => {
                format(base.wrapping_add(self.codes.get(codes, rank)), *width, digits)
            }
            Kind::Words { ends, .. } => ends.get(codes, text, self.codes.get(codes, rank) as usize),
            Kind::Plain { ends, .. } => ends.get(codes, text, rank),
        }
    }
}

/// A number in at least `width` digits.
#[inline]
fn format(mut number: u64, width: usize, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut at = DIGITS_MAX;
    while at > 0 && (number > 0 || at + width > DIGITS_MAX || at == DIGITS_MAX) {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    &digits[at..]
}
