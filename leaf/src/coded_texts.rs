//! Columns of texts that come as dictionaries, and stay so until they are sealed.
//!
//! Whoever sends many rows sends the distinct texts of a column once, in order, and one code a row. That is a fraction of
//! the bytes on the wire, in the log and in memory, a scan reads it as it reads a sealed dictionary, and sealing only joins
//! what was told apart before. Not for small row batches, which are merged as they come.
//!
//! Invariants of a column that [`kept`] gives: its values are distinct, in order of their bytes, not NULL, and each of
//! them is some row's; the code of a row without value lies just behind the last value, as in a block.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, PrimitiveArray, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowDictionaryKeyType, ArrowNativeType, DataType, UInt8Type, UInt16Type};

use crate::column::{Codes, Column};

/// A column with longer texts is unpacked as it comes, so that a block of rows always can be: bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Whether an array of this type may be such a column.
pub(crate) fn is_coded(data_type: &DataType) -> bool {
    let DataType::Dictionary(keys, values) = data_type else { return false };
    matches!(**keys, DataType::UInt8 | DataType::UInt16) && **values == DataType::Utf8
}

/// A column that came as a dictionary as it is kept; `None` for one that has to be unpacked, and for any other.
pub(crate) fn kept(array: &ArrayRef) -> Option<ArrayRef> {
    match array.data_type() {
        data_type if !is_coded(data_type) => None,
        DataType::Dictionary(keys, _) if **keys == DataType::UInt8 => kept_as::<UInt8Type>(array),
        _ => kept_as::<UInt16Type>(array),
    }
}

fn kept_as<K: ArrowDictionaryKeyType>(array: &ArrayRef) -> Option<ArrayRef> {
    let dictionary = array.as_dictionary_opt::<K>()?;
    let values = dictionary.values().as_string_opt::<i32>()?;
    let is_sound =
        values.null_count() == 0 && (0..values.len()).all(|at| values.value(at).len() <= TEXT_BYTES_MAX);
    let in_order = (1..values.len()).all(|at| values.value(at - 1) < values.value(at));
    if !is_sound || !in_order {
        return None;
    }
    let keys = dictionary.keys();
    let mut used = vec![false; values.len()];
    // Codes of NULLs may be anything; those of values are below their number.
    let mut are_in_place = true;
    for (row, key) in keys.values().iter().enumerate() {
        let code = key.as_usize();
        if keys.is_valid(row) {
            *used.get_mut(code)? = true;
        } else {
            are_in_place &= code == values.len();
        }
    }
    if are_in_place && !used.contains(&false) {
        return Some(Arc::clone(array));
    }
    compacted(keys, values, &used)
}

/// The column without the values that no row has.
fn compacted<K: ArrowDictionaryKeyType>(
    keys: &PrimitiveArray<K>,
    values: &StringArray,
    used: &[bool],
) -> Option<ArrayRef> {
    let mut places = Vec::with_capacity(used.len());
    let mut count = 0;
    for is_used in used {
        places.push(K::Native::from_usize(count)?);
        count += usize::from(*is_used);
    }
    let null_code = match keys.null_count() {
        0 => K::Native::default(),
        _ => K::Native::from_usize(count)?,
    };
    let place = |(row, key): (usize, &K::Native)| match keys.is_valid(row) {
        true => places.get(key.as_usize()).copied().unwrap_or(null_code),
        false => null_code,
    };
    let codes: Vec<K::Native> = keys.values().iter().enumerate().map(place).collect();
    let kept = values.iter().zip(used).filter(|(_, is_used)| **is_used).map(|(value, _)| value);
    let values: StringArray = kept.collect();
    let keys = PrimitiveArray::<K>::try_new(codes.into(), keys.nulls().cloned()).ok()?;
    Some(Arc::new(DictionaryArray::try_new(keys, Arc::new(values)).ok()?))
}

/// One part of a column of texts: rows of one batch.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// Texts, as they are kept.
    Coded {
        /// The distinct ones.
        values: StringArray,
        /// One code a row.
        codes: Codes,
    },
    /// So many rows without value.
    Absent(usize),
}

/// What is in a column that is kept.
pub(crate) fn part(array: &ArrayRef) -> Option<Part> {
    let (values, codes, _) = parts(array)?;
    Some(Part::Coded { values: values.as_string_opt()?.clone(), codes })
}

/// A column that is kept as a scan sees it.
pub(crate) fn column(array: &ArrayRef) -> Option<Column> {
    let (values, codes, nulls) = parts(array)?;
    Some(Column::Dictionary { values, codes, has_nulls: nulls.is_some_and(|nulls| nulls.null_count() > 0) })
}

fn parts(array: &ArrayRef) -> Option<(ArrayRef, Codes, Option<NullBuffer>)> {
    if let Some(dictionary) = array.as_dictionary_opt::<UInt8Type>() {
        let keys = dictionary.keys();
        return Some((
            Arc::clone(dictionary.values()),
            Codes::U8(keys.values().clone()),
            keys.nulls().cloned(),
        ));
    }
    let dictionary = array.as_dictionary_opt::<UInt16Type>()?;
    let keys = dictionary.keys();
    Some((Arc::clone(dictionary.values()), Codes::U16(keys.values().clone()), keys.nulls().cloned()))
}

/// Bytes of the texts of all rows, were they unpacked; `None` for any other column.
pub(crate) fn unpacked_bytes(array: &ArrayRef) -> Option<u64> {
    fn sum<K: ArrowDictionaryKeyType>(dictionary: &DictionaryArray<K>) -> u64 {
        let Some(values) = dictionary.values().as_string_opt::<i32>() else { return 0 };
        let length = |key: Option<K::Native>| {
            let at = key.map(ArrowNativeType::as_usize).filter(|at| *at < values.len());
            at.map_or(0, |at| values.value_length(at).unsigned_abs().into())
        };
        dictionary.keys().iter().fold(0, |sum: u64, key| sum.saturating_add(length(key)))
    }
    array
        .as_dictionary_opt::<UInt8Type>()
        .map(sum)
        .or_else(|| array.as_dictionary_opt::<UInt16Type>().map(sum))
}

#[cfg(test)]
mod tests {
    use arrow::array::{UInt8Array, UInt16Array};
    use arrow::compute::cast;

    use super::*;

    fn coded(keys: Vec<Option<u8>>, values: Vec<Option<&str>>) -> ArrayRef {
        let values: ArrayRef = Arc::new(StringArray::from(values));
        Arc::new(DictionaryArray::try_new(UInt8Array::from(keys), values).unwrap())
    }

    fn texts(array: &ArrayRef) -> Vec<Option<String>> {
        let texts = cast(array, &DataType::Utf8).unwrap();
        texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    }

    fn check_kept(array: &ArrayRef, values_left: usize) {
        let kept = kept(array).unwrap();
        assert_eq!(texts(&kept), texts(array));
        let Some(Column::Dictionary { values, codes, has_nulls }) = column(&kept) else { panic!("{kept:?}") };
        assert_eq!((values.len(), has_nulls), (values_left, kept.null_count() > 0));
        for row in 0..kept.len() {
            assert_eq!(codes.get(row) == values_left as u64, kept.is_null(row), "row {row} of {kept:?}");
        }
    }

    #[test]
    fn dictionaries_are_kept_without_what_no_row_has() {
        let values = || vec![Some(""), Some("a"), Some("ab"), Some("b")];
        let whole = coded(vec![Some(2), Some(0), Some(3), Some(1)], values());
        assert!(Arc::ptr_eq(&kept(&whole).unwrap(), &whole));
        check_kept(&whole, 4);
        check_kept(&coded(vec![Some(3), None, Some(1), Some(3)], values()), 2);
        check_kept(&coded(vec![None, None], values()), 0);
        check_kept(&whole.slice(1, 2), 2);
        let keys = UInt16Array::from(vec![Some(1), None, Some(0)]);
        let wide: ArrayRef =
            Arc::new(DictionaryArray::try_new(keys, Arc::new(StringArray::from(values()))).unwrap());
        check_kept(&wide, 2);
    }

    #[test]
    fn what_is_no_dictionary_as_it_is_kept_is_unpacked() {
        for values in [
            vec![Some("b"), Some("a")],
            vec![Some("a"), Some("a")],
            vec![Some("a"), None],
            vec![Some("a"), Some(&*"x".repeat(TEXT_BYTES_MAX + 1))],
        ] {
            assert!(kept(&coded(vec![Some(0), Some(1)], values.clone())).is_none(), "{values:?}");
        }
        let plain: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        assert!(kept(&plain).is_none() && unpacked_bytes(&plain).is_none());
        let ints = cast(&coded(vec![Some(0)], vec![Some("7")]), &DataType::Int64).unwrap();
        let numbers = arrow::compute::cast(
            &ints,
            &DataType::Dictionary(DataType::UInt8.into(), DataType::Int64.into()),
        );
        assert!(kept(&numbers.unwrap()).is_none());
        // A byte tells 256 values apart, and then there is no code left for NULL.
        let all: Vec<String> = (0..256).map(|value| format!("{value:03}")).collect();
        let keys = (0..=255).map(Some).chain([None]).collect();
        assert!(kept(&coded(keys, all.iter().map(|value| Some(value.as_str())).collect())).is_none());
    }

    #[test]
    fn unpacked_texts_are_weighed() {
        let array = coded(vec![Some(1), None, Some(1), Some(0)], vec![Some("ab"), Some("cde")]);
        assert_eq!(unpacked_bytes(&array), Some(8));
        assert_eq!(unpacked_bytes(&array.slice(1, 1)), Some(0));
    }
}
