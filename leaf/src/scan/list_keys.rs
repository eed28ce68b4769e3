//! Group keys that are lists: rows are told apart by the codes of their items, and only one list of each is decoded.
//!
//! The codes of a short list make one integer; longer ones are compared as they are. Lists are one key when they have
//! the same items in the same order; NULL is another than the empty list.

use super::coder::Numbers;
use super::columns::ListCodes;
use super::intern::number;
use super::selection::Rows;
use crate::column::Codes;

/// A number for the list of each of some rows, in order of first appearance, and the row where each came first.
pub(super) fn number_lists(lists: &ListCodes<'_>, rows: Rows<'_>) -> (Vec<u32>, Vec<u32>) {
    match lists.codes {
        Codes::U8(codes) => numbered(lists, codes, rows),
        Codes::U16(codes) => numbered(lists, codes, rows),
        Codes::U32(codes) => numbered(lists, codes, rows),
        Codes::U64(codes) => numbered(lists, codes, rows),
    }
}

fn numbered<T>(lists: &ListCodes<'_>, codes: &[T], rows: Rows<'_>) -> (Vec<u32>, Vec<u32>)
where
    T: Copy + Into<u64> + std::hash::Hash + Eq,
{
    let items = |row: usize| &codes[lists.offsets[row] as usize..lists.offsets[row + 1] as usize];
    let is_null = |row: usize| lists.validity.is_some_and(|validity| validity.is_null(row));
    // NULL items have the code behind the last value.
    let bits = usize::BITS - lists.values.len().leading_zeros();
    let places = (0..rows.len()).map(|place| rows.get(place));
    let longest = places.clone().map(|row| items(row).len()).max().unwrap_or(0);
    // The first bit that is set tells how many items there are.
    if longest.saturating_mul(bits as usize) < 64 {
        let mut numbers = Numbers::default();
        let mut firsts = Vec::new();
        let listed = places.map(|row| {
            let code = match is_null(row) {
                true => numbers.number_null(),
                false => numbers
                    .number(items(row).iter().fold(1, |all, code| all << bits | Into::<u64>::into(*code))),
            };
            if code as usize == firsts.len() {
                firsts.push(row as u32);
            }
            code
        });
        return (listed.collect(), firsts);
    }
    let (listed, firsts) = number(places.map(|row| (!is_null(row)).then(|| items(row))));
    (listed, firsts.into_iter().map(|place| rows.get(place as usize) as u32).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};
    use arrow::buffer::NullBuffer;

    use super::*;

    /// Lists as their items' codes.
    type Lists = [Option<Vec<u8>>];

    fn check(lists: &Lists, codes: &dyn Fn(Vec<u8>) -> Codes, rows: Rows<'_>) {
        let ends = lists.iter().scan(0, |end, list| {
            *end += list.as_ref().map_or(0, Vec::len) as i32;
            Some(*end)
        });
        let offsets: Vec<i32> = std::iter::once(0).chain(ends).collect();
        let values: ArrayRef = Arc::new((0..200).map(|item| Some(item.to_string())).collect::<StringArray>());
        let validity = NullBuffer::from_iter(lists.iter().map(Option::is_some));
        let codes = codes(lists.iter().flatten().flatten().copied().collect());
        let lists_coded =
            ListCodes { offsets: &offsets, values: &values, codes: &codes, validity: Some(&validity) };
        let mut known = HashMap::new();
        let mut firsts = Vec::new();
        let expect = (0..rows.len()).map(|place| {
            let row = rows.get(place);
            *known.entry(&lists[row]).or_insert_with(|| {
                firsts.push(row as u32);
                firsts.len() as u32 - 1
            })
        });
        let expect: Vec<u32> = expect.collect();
        assert_eq!(number_lists(&lists_coded, rows), (expect, firsts));
    }

    fn check_all(lists: &Lists) {
        let positions: Vec<u32> = (0..lists.len() as u32).rev().step_by(2).collect();
        for rows in [Rows::Range { start: 0, count: lists.len() }, Rows::At(&positions)] {
            check(lists, &|codes| Codes::U8(codes.into()), rows);
            check(lists, &|codes| Codes::U16(codes.into_iter().map(u16::from).collect()), rows);
            check(lists, &|codes| Codes::U32(codes.into_iter().map(u32::from).collect()), rows);
        }
    }

    #[test]
    fn rows_with_the_same_items_in_the_same_order_have_the_same_number() {
        let lists: Vec<Option<Vec<u8>>> = [
            Some(vec![]),
            None,
            Some(vec![0]),
            Some(vec![0, 0]),
            Some(vec![1, 0]),
            Some(vec![0, 1]),
            None,
            Some(vec![]),
            Some(vec![200, 199]),
            Some(vec![0, 1]),
            Some(vec![0]),
        ]
        .into();
        check_all(&lists);
        // Seven codes of eight bits leave room for the bit before them, eight do not.
        for length in [7, 8] {
            let mut longer = lists.clone();
            longer.extend([
                Some(vec![0; length]),
                Some(vec![200; length]),
                Some(vec![0; length]),
                Some(vec![0; length - 1]),
            ]);
            check_all(&longer);
        }
        check_all(&[]);
    }
}
