//! What is found out of each row without putting its value together: a number that tells values apart, and how many
//! characters a value has.
//!
//! A value is cut in one way only, so rows have the same value when they have the same shape and the same codes. Where
//! these fit into 64 bits they are one number. Plain text has no codes: values with such a field are told apart by their
//! text, and where they are many nothing is gained.

use hashbrown::HashMap;

use super::bits::{Ends, Sub, bits_for};
use super::search::{locate, shapes};
use super::{Field, Kind, SHAPES_MAX, Shape, Template};
use crate::vectors::vectorized;

/// One row in so many may have no number of its own.
const APART_SHARE: usize = 16;
/// Codes that are unpacked at once.
const VECTOR: usize = 1_024;

/// The rows that something is found out of, shape by shape.
struct Rows {
    /// The shape of each row.
    shapes: Vec<u8>,
    /// Of each shape which of its rows are meant; all without it.
    ranks: Option<Vec<Vec<u32>>>,
}

impl Rows {
    /// All rows, or those at some positions; `None` when one of them has no shape.
    fn of(template: &Template, positions: Option<&[u32]>) -> Option<Rows> {
        match positions {
            None => Some(Rows { shapes: shapes(template), ranks: None }),
            Some(positions) => {
                let (shapes, ranks) = locate(template, positions)?;
                Some(Rows { shapes, ranks: Some(ranks) })
            }
        }
    }

    fn of_shape<'a>(&'a self, index: usize, shape: &Shape) -> Ranks<'a> {
        match &self.ranks {
            Some(ranks) => Ranks::Some(&ranks[index]),
            None => Ranks::All(shape.row_count),
        }
    }

    /// Puts what was found out of the rows of each shape into the order of all rows.
    fn gather<T: Copy + Default>(&self, mut of_shapes: Vec<Vec<T>>) -> Vec<T> {
        if of_shapes.len() == 1 {
            return of_shapes.remove(0);
        }
        let mut next = [0_usize; SHAPES_MAX + 1];
        let mut count = 0;
        for (next, of_shape) in next.iter_mut().zip(&of_shapes) {
            (*next, count) = (count, count + of_shape.len());
        }
        let all = of_shapes.concat();
        let take = |shape: &u8| {
            let next = &mut next[usize::from(*shape)];
            *next += 1;
            all.get(*next - 1).copied().unwrap_or_default()
        };
        self.shapes.iter().map(take).collect()
    }
}

/// Which rows of a shape.
#[derive(Clone, Copy)]
enum Ranks<'a> {
    All(usize),
    Some(&'a [u32]),
}

impl Ranks<'_> {
    fn len(self) -> usize {
        match self {
            Ranks::All(count) => count,
            Ranks::Some(ranks) => ranks.len(),
        }
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        let (count, ranks) = match self {
            Ranks::All(count) => (count, None),
            Ranks::Some(ranks) => (ranks.len(), Some(ranks)),
        };
        (0..count).map(move |place| ranks.map_or(place, |ranks| ranks[place] as usize))
    }

    /// Adds to what is known of rows by their codes, of at most 32 bits, many rows at a time.
    fn for_codes(self, sub: Sub, codes: &[u8], of_rows: &mut [u32], add: impl Fn(&mut [u32], &[u32])) {
        vectorized(
            #[inline(always)]
            move || {
                let mut unpacked = [0_u32; VECTOR];
                for (index, of_rows) in of_rows.chunks_mut(VECTOR).enumerate() {
                    let unpacked = &mut unpacked[..of_rows.len()];
                    match self {
                        Ranks::All(_) => sub.unpack(codes, index * VECTOR, unpacked),
                        Ranks::Some(ranks) => {
                            let ranks = &ranks[index * VECTOR..];
                            let get = |rank: &u32| sub.get(codes, *rank as usize) as u32;
                            unpacked.iter_mut().zip(ranks).for_each(|(code, rank)| *code = get(rank));
                        }
                    }
                    add(of_rows, unpacked);
                }
            },
        );
    }

    /// Changes what is known of each row by its code.
    fn for_each_code<T>(self, sub: Sub, codes: &[u8], of_rows: &mut [T], change: impl Fn(&mut T, u64)) {
        match self {
            Ranks::All(_) if sub.bits() <= 32 => vectorized(
                #[inline(always)]
                move || {
                    let mut unpacked = [0_u32; VECTOR];
                    for (index, of_rows) in of_rows.chunks_mut(VECTOR).enumerate() {
                        let unpacked = &mut unpacked[..of_rows.len()];
                        sub.unpack(codes, index * VECTOR, unpacked);
                        of_rows
                            .iter_mut()
                            .zip(unpacked)
                            .for_each(|(of_row, code)| change(of_row, u64::from(*code)));
                    }
                },
            ),
            _ => of_rows
                .iter_mut()
                .zip(self.iter())
                .for_each(|(of_row, rank)| change(of_row, sub.get(codes, rank))),
        }
    }
}

impl Template {
    /// A number for each row, or for those at some positions, that equal values share; `None` where finding it takes
    /// decoding.
    pub(in super::super) fn tuples(&self, positions: Option<&[u32]>) -> Option<Vec<u64>> {
        let shape_bits = u32::from(bits_for(self.shapes.len() as u64 - 1));
        let is_apart = |shape: &&Shape| !shape.has_tuples(shape_bits);
        let apart: usize = self.shapes.iter().filter(is_apart).map(|shape| shape.row_count).sum();
        if apart * APART_SHARE > self.row_count {
            return None;
        }
        let rows = Rows::of(self, positions)?;
        let of_shape = |(index, shape): (usize, &Shape)| {
            let ranks = rows.of_shape(index, shape);
            let mut tuples = vec![index as u64; ranks.len()];
            if !shape.has_tuples(shape_bits) {
                self.number_text(index, shape_bits, ranks, &mut tuples);
                return tuples;
            }
            let mut shift = shape_bits;
            for field in shape.fields.iter().filter(|field| field.codes.bits() > 0) {
                ranks.for_each_code(field.codes, &self.codes, &mut tuples, move |tuple, code| {
                    *tuple |= code << shift;
                });
                shift += u32::from(field.codes.bits());
            }
            tuples
        };
        let of_shapes = self.shapes.iter().enumerate().map(of_shape).collect();
        Some(rows.gather(of_shapes))
    }

    /// Numbers values of a shape by their text.
    fn number_text(&self, index: usize, shape_bits: u32, ranks: Ranks<'_>, tuples: &mut [u64]) {
        let mut known: HashMap<Vec<u8>, u64> = HashMap::new();
        let mut value = Vec::new();
        for (tuple, rank) in tuples.iter_mut().zip(ranks.iter()) {
            value.clear();
            self.append_at(index, rank, &mut value);
            let next = known.len() as u64;
            *tuple |= *known.entry_ref(&value).or_insert(next) << shape_bits;
        }
    }

    /// How many characters the value of each row has, or of those at some positions; `None` when one of them has no shape.
    pub(in super::super) fn characters(&self, positions: Option<&[u32]>) -> Option<Vec<u32>> {
        let rows = Rows::of(self, positions)?;
        let of_shape = |(index, shape): (usize, &Shape)| {
            let ranks = rows.of_shape(index, shape);
            let mut literals =
                shape.literals.iter().map(|literal| characters(literal)).fold(0, u32::wrapping_add);
            let digits: Vec<_> = shape.fields.iter().map(Digits::of).collect();
            for digits in digits.iter().flatten() {
                literals = literals.wrapping_add(digits.least);
            }
            let mut lengths = vec![literals; ranks.len()];
            for (field, digits) in shape.fields.iter().zip(digits) {
                self.add_characters((field, digits), ranks, &mut lengths);
            }
            lengths
        };
        let of_shapes = self.shapes.iter().enumerate().map(of_shape).collect();
        Some(rows.gather(of_shapes))
    }

    /// Adds the characters of a field that not all its values have.
    fn add_characters(
        &self,
        (field, digits): (&Field, Option<Digits>),
        ranks: Ranks<'_>,
        lengths: &mut [u32],
    ) {
        let codes = &self.codes[..];
        match &field.kind {
            Kind::Number { width, base } => {
                if let Some(Digits { more_from, .. }) = digits {
                    let more_from = &more_from[..];
                    if more_from.is_empty() {
                        return;
                    }
                    return ranks.for_codes(
                        field.codes,
                        codes,
                        lengths,
                        #[inline(always)]
                        move |lengths, codes| {
                            for from in more_from.iter().copied() {
                                let more = lengths.iter_mut().zip(codes);
                                more.for_each(|(length, code)| {
                                    *length = length.wrapping_add(u32::from(*code >= from))
                                });
                            }
                        },
                    );
                }
                let (base, least) = (*base, (*width).max(1) as u32);
                ranks.for_each_code(field.codes, codes, lengths, move |length, code| {
                    *length = length.wrapping_add(digits_of(base.wrapping_add(code)).max(least));
                });
            }
            Kind::Words { ends, count, bytes } => {
                let of_words = self.of_pieces(ends, *count, *bytes);
                let of_words = &of_words[..];
                // Words take at most 24 bits.
                ranks.for_codes(
                    field.codes,
                    codes,
                    lengths,
                    #[inline(always)]
                    move |lengths, codes| {
                        for (length, code) in lengths.iter_mut().zip(codes) {
                            let of_word = of_words.get(*code as usize).copied().unwrap_or(0);
                            *length = length.wrapping_add(of_word);
                        }
                    },
                );
            }
            Kind::Plain { ends, bytes } => match ranks {
                Ranks::All(count) => {
                    let of_rows = self.of_pieces(ends, count, *bytes);
                    let add = |(length, more): (&mut u32, u32)| *length = length.wrapping_add(more);
                    lengths.iter_mut().zip(of_rows).for_each(add);
                }
                Ranks::Some(ranks) => {
                    for (length, rank) in lengths.iter_mut().zip(ranks) {
                        let piece = ends.get(codes, &self.text, *rank as usize);
                        *length = length.wrapping_add(characters(piece));
                    }
                }
            },
        }
    }

    /// How many characters each of some pieces of text has, which have so many bytes together.
    fn of_pieces(&self, ends: &Ends, count: usize, bytes: usize) -> Vec<u32> {
        match ends.text(&self.text, bytes).is_ascii() {
            true => ends.lengths(&self.codes),
            false => {
                let piece = |piece| characters(ends.get(&self.codes, &self.text, piece));
                (0..count).map(piece).collect()
            }
        }
    }
}

/// How many digits the numbers of a field have, told by their codes of at most 32 bits.
struct Digits {
    /// All of them have so many.
    least: u32,
    /// From each of these codes on there is one more.
    more_from: Vec<u32>,
}

impl Digits {
    /// `None` for other fields, and for numbers of more than 32 bits.
    fn of(field: &Field) -> Option<Digits> {
        let Kind::Number { width, base } = field.kind else { return None };
        let bits = u32::from(field.codes.bits());
        let greatest = base.checked_add(1_u64.checked_shl(bits).filter(|_| bits <= 32)? - 1)?;
        let least = digits_of(base).max(width as u32);
        let powers = (least..digits_of(greatest)).map(|digits| 10_u64.pow(digits));
        // None is below the least number, and none above the greatest.
        Some(Digits { least, more_from: powers.map(|power| (power - base) as u32).collect() })
    }
}

fn digits_of(number: u64) -> u32 {
    number.checked_ilog10().map_or(1, |log| log + 1)
}

impl Shape {
    /// Whether its rows are told apart by their codes, beside so many bits for the shape.
    fn has_tuples(&self, shape_bits: u32) -> bool {
        let bits: u32 = self.fields.iter().map(|field| u32::from(field.codes.bits())).sum();
        let is_plain = self.fields.iter().any(|field| matches!(field.kind, Kind::Plain { .. }));
        !is_plain && bits + shape_bits <= u64::BITS
    }
}

/// Characters of UTF-8: every byte but those that go on with one.
fn characters(text: &[u8]) -> u32 {
    text.iter().filter(|byte| **byte & 0xc0 != 0x80).count() as u32
}
