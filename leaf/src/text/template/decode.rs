//! Putting many values together.
//!
//! Rows come in stretches. The codes of each field are unpacked for a stretch at once, shape by shape; then the values are
//! written row by row, each behind the one before. So pieces can be copied sixteen bytes at a time, whatever their length:
//! what was copied too much, the next piece overwrites. Words and small numbers are looked up in tables of where their
//! text lies, which are made once for all rows that are asked for.

use super::bits::Sub;
use super::{DIGITS_MAX, Field, Kind, Template, format};
use crate::vectors::vectorized;

/// Rows of a stretch.
const STRETCH: usize = 1_024;
/// Bytes that are copied at once.
const CHUNK: usize = 16;
/// Numbers of at most so many bits are looked up.
const TABLE_BITS_MAX: u8 = 10;
/// For fewer rows than these, preparing does not pay.
const ROWS_MIN: usize = 64;
/// Words that take no more bytes are copied together with the literal before them.
const OWN_BYTES_MAX: usize = 1 << 16;
/// Longer words are put in one by one, because room is made for the longest.
const WORD_BYTES_MAX: u32 = 1_024;

/// Which rows of a template are put together.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Wanted<'a> {
    /// So many rows from a first one on.
    Range(usize, usize),
    /// By position.
    At(&'a [u32]),
}

/// A piece of text.
#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    at: u32,
    length: u32,
}

/// How the values of a field get into the text.
enum Way<'a> {
    /// The piece at the code, of the column's text or, if they are `own`, of the decoder's.
    Table { pieces: Vec<Piece>, own: bool, codes: Sub },
    /// The digits of base + code.
    Digits { base: u64, width: usize, codes: Sub },
    /// One by one.
    Single(&'a Field),
}

/// A shape, prepared.
struct Steps<'a> {
    /// What comes before each field.
    literals: Vec<Piece>,
    ways: Vec<Way<'a>>,
    last: Piece,
    /// No value takes more bytes, but for what is put in one by one.
    bytes_max: usize,
}

/// The codes of a stretch in one shape, and where it is.
#[derive(Default)]
struct Stretch {
    ranks: Vec<usize>,
    /// Of one field after another, one for each rank.
    codes: Vec<u32>,
    next: usize,
}

/// Puts values together.
struct Decoder<'a> {
    template: &'a Template,
    /// Literals and numbers.
    own: Vec<u8>,
    shapes: Vec<Steps<'a>>,
}

impl Template {
    /// Appends the values of rows, and says of one after the other where it ended. Nothing is appended for rows that are not
    /// valid.
    pub(in super::super) fn append_all(
        &self,
        wanted: Wanted<'_>,
        valid: impl Fn(usize) -> bool,
        out: &mut Vec<u8>,
        mut ended: impl FnMut(usize),
    ) {
        let count = wanted.len();
        if count < ROWS_MIN {
            let mut reader = self.reader();
            for place in 0..count {
                if valid(place) {
                    reader.append(wanted.row(place), out);
                }
                ended(out.len());
            }
            return;
        }
        let decoder = Decoder::new(self, count);
        let mut stretches: Vec<Stretch> = self.shapes.iter().map(|_| Stretch::default()).collect();
        let mut shapes = Vec::with_capacity(STRETCH);
        let mut reader = self.reader();
        for start in (0..count).step_by(STRETCH) {
            shapes.clear();
            stretches.iter_mut().for_each(|stretch| stretch.ranks.clear());
            for place in start..count.min(start + STRETCH) {
                let (shape, rank) = reader.locate(wanted.row(place));
                shapes.push(shape as u8);
                if let Some(stretch) = stretches.get_mut(shape) {
                    stretch.ranks.push(rank);
                }
            }
            decoder.unpack(&mut stretches);
            decoder.append(&shapes, &mut stretches, |place| valid(start + place), out, &mut ended);
        }
    }
}

impl Wanted<'_> {
    /// How many.
    pub(in super::super) fn len(self) -> usize {
        match self {
            Wanted::Range(_, count) => count,
            Wanted::At(rows) => rows.len(),
        }
    }

    /// The row at a place among them.
    pub(in super::super) fn row(self, place: usize) -> usize {
        match self {
            Wanted::Range(first, _) => first + place,
            Wanted::At(rows) => rows[place] as usize,
        }
    }
}

impl<'a> Decoder<'a> {
    fn new(template: &'a Template, count: usize) -> Decoder<'a> {
        let mut own = Vec::new();
        let shapes = template
            .shapes
            .iter()
            .map(|shape| {
                let mut literals: Vec<Piece> = Vec::with_capacity(shape.fields.len());
                let mut ways: Vec<Way<'_>> = Vec::with_capacity(shape.fields.len());
                for (literal, field) in shape.literals.iter().zip(&shape.fields) {
                    let (literal, way) = Way::of(field, literal, template, count, &mut own);
                    literals.push(literal);
                    ways.push(way);
                }
                let last = shape.literals.last().map(|literal| add(&mut own, literal)).unwrap_or_default();
                let fixed: usize = literals.iter().chain([&last]).map(|piece| piece.length as usize).sum();
                let bytes_max = fixed + ways.iter().map(Way::bytes_max).sum::<usize>();
                Steps { literals, ways, last, bytes_max }
            })
            .collect();
        // So that the last piece is copied like the others.
        own.extend([0; CHUNK]);
        Decoder { template, own, shapes }
    }

    /// Reads the codes of the rows of a stretch.
    fn unpack(&self, stretches: &mut [Stretch]) {
        for (stretch, steps) in stretches.iter_mut().zip(&self.shapes) {
            stretch.next = 0;
            let count = stretch.ranks.len();
            stretch.codes.clear();
            stretch.codes.resize(count * steps.ways.len(), 0);
            let (Some(first), Some(last)) = (stretch.ranks.first(), stretch.ranks.last()) else { continue };
            let is_range = last.wrapping_sub(*first) == count - 1;
            for (way, codes) in steps.ways.iter().zip(stretch.codes.chunks_exact_mut(count)) {
                let (Way::Table { codes: sub, .. } | Way::Digits { codes: sub, .. }) = way else { continue };
                if is_range {
                    unpack(*sub, &self.template.codes, *first, codes);
                } else {
                    let ranks = stretch.ranks.iter();
                    codes.iter_mut().zip(ranks).for_each(|(code, rank)| {
                        *code = sub.get(&self.template.codes, *rank) as u32;
                    });
                }
            }
        }
    }

    /// Puts the rows of a stretch together.
    fn append(
        &self,
        shapes: &[u8],
        stretches: &mut [Stretch],
        valid: impl Fn(usize) -> bool,
        bytes: &mut Vec<u8>,
        mut ended: impl FnMut(usize),
    ) {
        let of_shape = |(stretch, steps): (&Stretch, &Steps<'_>)| self.bytes_max(steps, &stretch.ranks);
        let bytes_max: usize = stretches.iter().zip(&self.shapes).map(of_shape).sum();
        let mut at = bytes.len();
        bytes.resize(at + bytes_max + CHUNK, 0);
        let out = &mut bytes[..];
        for (place, shape) in shapes.iter().enumerate() {
            let shape = usize::from(*shape);
            if let (Some(steps), Some(stretch)) = (self.shapes.get(shape), stretches.get_mut(shape)) {
                let index = stretch.next;
                stretch.next += 1;
                if valid(place) {
                    at = self.append_row(steps, stretch, index, out, at);
                }
            }
            ended(at);
        }
        bytes.truncate(at);
    }

    /// The values of rows of a shape take no more bytes.
    fn bytes_max(&self, steps: &Steps<'_>, ranks: &[usize]) -> usize {
        let template = self.template;
        let singles = steps.ways.iter().map(|way| match way {
            Way::Single(field) => {
                ranks.iter().map(|rank| field.length_max(*rank, &template.codes, &template.text)).sum()
            }
            Way::Table { .. } | Way::Digits { .. } => 0,
        });
        ranks.len() * steps.bytes_max + singles.sum::<usize>()
    }

    /// Writes a row behind what is there, and returns where it ends.
    #[inline(always)]
    fn append_row(
        &self,
        steps: &Steps<'_>,
        stretch: &Stretch,
        index: usize,
        out: &mut [u8],
        at: usize,
    ) -> usize {
        let (count, mut at) = (stretch.ranks.len(), at);
        let (own, text) = (&self.own[..], &self.template.text[..]);
        let mut codes = stretch.codes.get(index..).unwrap_or_default().iter().step_by(count);
        for (literal, way) in steps.literals.iter().zip(&steps.ways) {
            if literal.length > 0 {
                at = put(out, at, own, *literal);
            }
            let code = codes.next().copied().unwrap_or_default();
            at = match way {
                Way::Table { pieces, own: is_own, .. } => {
                    let source = if *is_own { own } else { text };
                    put(out, at, source, pieces.get(code as usize).copied().unwrap_or_default())
                }
                Way::Digits { base, width, .. } => {
                    put_digits(out, at, base.wrapping_add(u64::from(code)), *width)
                }
                Way::Single(field) => {
                    let mut digits = [0; DIGITS_MAX];
                    let rank = stretch.ranks[index];
                    copy(out, at, field.get(rank, &self.template.codes, text, &mut digits))
                }
            };
        }
        if steps.last.length == 0 { at } else { put(out, at, own, steps.last) }
    }
}

/// Reads codes that lie next to each other.
fn unpack(sub: Sub, codes: &[u8], first: usize, out: &mut [u32]) {
    vectorized(
        #[inline(always)]
        move || sub.unpack(codes, first, out),
    );
}

/// Appends text to the decoder's own.
fn add(own: &mut Vec<u8>, text: &[u8]) -> Piece {
    add_all(own, [text, &[]])
}

/// Appends two texts as one piece.
fn add_all(own: &mut Vec<u8>, texts: [&[u8]; 2]) -> Piece {
    let at = own.len();
    texts.iter().for_each(|text| own.extend_from_slice(text));
    Piece { at: at as u32, length: (own.len() - at) as u32 }
}

impl<'a> Way<'a> {
    /// The way of a field, and what of the literal before it is left to be put there.
    fn of(
        field: &'a Field,
        literal: &[u8],
        template: &Template,
        count: usize,
        own: &mut Vec<u8>,
    ) -> (Piece, Way<'a>) {
        let codes = field.codes;
        match &field.kind {
            Kind::Number { width, base } if codes.bits() <= TABLE_BITS_MAX && 1 << codes.bits() <= count => {
                let mut digits = [0; DIGITS_MAX];
                let numbers = (0..1_u64 << codes.bits()).map(|code| base.wrapping_add(code));
                let pieces = numbers
                    .map(|number| add_all(own, [literal, format(number, *width, &mut digits)]))
                    .collect();
                (Piece::default(), Way::Table { pieces, own: true, codes })
            }
            Kind::Number { width, base } if codes.bits() <= 32 => {
                (add(own, literal), Way::Digits { base: *base, width: *width, codes })
            }
            Kind::Words { ends, count: words, bytes } if *words <= count => {
                let pieces = ends.pieces(&template.codes);
                let length = |length| u32::try_from(length).unwrap_or(u32::MAX);
                let pieces = pieces.map(|(at, bytes)| Piece { at: at as u32, length: length(bytes) });
                let pieces: Vec<Piece> = pieces.collect();
                if pieces.iter().any(|piece| piece.length > WORD_BYTES_MAX) {
                    return (add(own, literal), Way::Single(field));
                }
                // One piece is put faster than two.
                if literal.len() * words + bytes <= OWN_BYTES_MAX {
                    let word = |word| ends.get(&template.codes, &template.text, word);
                    let pieces = (0..*words).map(|index| add_all(own, [literal, word(index)])).collect();
                    return (Piece::default(), Way::Table { pieces, own: true, codes });
                }
                (add(own, literal), Way::Table { pieces, own: false, codes })
            }
            Kind::Number { .. } | Kind::Words { .. } | Kind::Plain { .. } => {
                (add(own, literal), Way::Single(field))
            }
        }
    }

    fn bytes_max(&self) -> usize {
        match self {
            Way::Table { pieces, .. } => pieces.iter().map(|piece| piece.length as usize).max().unwrap_or(0),
            Way::Digits { .. } => DIGITS_MAX,
            Way::Single(_) => 0,
        }
    }
}

/// Copies a piece, and what follows it up to a whole number of chunks, for which there is room. Returns where it ends.
#[inline(always)]
fn put(out: &mut [u8], at: usize, source: &[u8], piece: Piece) -> usize {
    let (from, length) = (piece.at as usize, piece.length as usize);
    let mut done = 0;
    loop {
        let to = out.get_mut(at + done..).and_then(|bytes| bytes.first_chunk_mut::<CHUNK>());
        let chunk = source.get(from + done..).and_then(|source| source.first_chunk::<CHUNK>());
        let (Some(chunk), Some(to)) = (chunk, to) else {
            // Near the end of the column's text.
            return copy(out, at, source.get(from..from + length).unwrap_or_default());
        };
        *to = *chunk;
        done += CHUNK;
        if done >= length {
            return at + length;
        }
    }
}

/// Writes a number in at least `width` digits. Returns where it ends.
#[inline(always)]
fn put_digits(out: &mut [u8], at: usize, mut number: u64, width: usize) -> usize {
    let digits = number.checked_ilog10().map_or(1, |log| log as usize + 1).max(width);
    let Some(to) = out.get_mut(at..at + digits) else { return at };
    let (rest, pairs) = to.as_rchunks_mut::<2>();
    for pair in pairs.iter_mut().rev() {
        let two = (number % 100) as u8;
        number /= 100;
        *pair = [b'0' + two / 10, b'0' + two % 10];
    }
    rest.iter_mut().for_each(|digit| *digit = b'0' + (number % 10) as u8);
    at + digits
}

/// Copies text that there is room for. Returns where it ends.
fn copy(out: &mut [u8], at: usize, text: &[u8]) -> usize {
    let Some(to) = out.get_mut(at..at + text.len()) else { return at };
    to.copy_from_slice(text);
    at + text.len()
}
