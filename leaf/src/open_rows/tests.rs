//! Open rows: what was appended is there, in order, and old lists stay as they were.

use super::*;
use arrow::array::{
    AsArray, BooleanArray, DictionaryArray, Float64Array, Int64Array, StringArray, TimestampNanosecondArray,
    UInt16Array,
};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use gannet_query::{ColumnType, Dictionary};

use crate::cast::cast_column;

fn batch(times: std::ops::Range<i64>, columns: &[(&str, ArrayRef)]) -> RecordBatch {
    let time = TimestampNanosecondArray::from(times.collect::<Vec<_>>()).with_timezone("+00:00");
    let mut all: Vec<(&str, ArrayRef, bool)> = vec![(TIME_COLUMN, Arc::new(time), false)];
    all.extend(columns.iter().map(|(name, array)| (*name, Arc::clone(array), true)));
    RecordBatch::try_from_iter_with_nullable(all).expect("columns of one length")
}

fn ints(values: std::ops::Range<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values.collect::<Vec<_>>()))
}

impl OpenRows {
    /// Appends rows, numbered on from those there are.
    fn add(&self, rows: RecordBatch) -> Result<OpenRows, RowsError> {
        if rows.num_rows() == 0 {
            return Ok(self.clone());
        }
        let chunk = OpenChunk::new(rows)?;
        let mut numbers = RowOrder::default();
        numbers.push(self.rows() as u64, chunk.rows() as u64);
        Ok(self.append(chunk.numbered(numbers)))
    }
}

/// The times of all rows, in order.
fn times(open: &OpenRows) -> Vec<i64> {
    let batches = open.batches();
    let times = batches.iter().map(|batch| batch.column_by_name(TIME_COLUMN).expect("time"));
    times.flat_map(|array| array.as_primitive::<TimestampNanosecondType>().values().to_vec()).collect()
}

fn check_whole(open: &OpenRows) {
    assert_eq!(open.rows(), open.chunks().iter().map(|chunk| chunk.rows()).sum::<usize>());
    assert_eq!(open.bytes(), open.chunks().iter().map(|chunk| chunk.bytes()).sum::<usize>());
    for chunk in open.chunks() {
        assert!(chunk.rows() > 0);
        assert_eq!(Some(chunk.time_range()), time_range(chunk.batch().column_by_name("time").expect("time")));
        for (name, types) in chunk.columns() {
            let Some(Column::Plain(array)) = chunk.column(name) else { panic!("column {name}") };
            assert_eq!(ColumnType::from_arrow(array.data_type()), types.resolve());
            assert_eq!(chunk.find(name).map(|(_, types)| types), Some(types));
        }
    }
}

#[test]
fn single_rows_end_in_few_chunks() {
    let mut open = OpenRows::default();
    assert_eq!((open.rows(), open.bytes(), open.time_range()), (0, 0, None));
    for row in 0..1000 {
        let before = open.clone();
        open = open.add(batch(row..row + 1, &[("a", ints(row..row + 1))])).expect("one row");
        assert_eq!(before.rows(), row as usize);
        assert!(open.chunks().len() <= 10, "{} chunks at row {row}", open.chunks().len());
    }
    check_whole(&open);
    assert_eq!(times(&open), (0..1000).collect::<Vec<_>>());
    assert_eq!(open.time_range(), Some((0, 999)));
    let sizes: Vec<usize> = open.chunks().iter().map(|chunk| chunk.rows()).collect();
    assert!(sizes.windows(2).all(|pair| pair[0] > pair[1]), "{sizes:?}");
}

#[test]
fn large_chunks_are_not_merged_beyond_a_block() {
    let mut open = OpenRows::default();
    for part in 0..3 {
        open = open.add(batch(part * 40_000..(part + 1) * 40_000, &[])).expect("rows");
    }
    assert_eq!(open.chunks().len(), 3);
    assert_eq!(times(&open), (0..120_000).collect::<Vec<_>>());
}

#[test]
fn chunks_that_are_large_are_not_copied() {
    let mut open = OpenRows::default();
    for part in 0..8 {
        open = open.add(batch(part * 5_000..(part + 1) * 5_000, &[])).expect("rows");
        // Small ones after it are merged among themselves.
        open = open.add(batch(0..1, &[])).expect("a row");
        open = open.add(batch(0..1, &[])).expect("a row");
    }
    let sizes: Vec<usize> = open.chunks().iter().map(|chunk| chunk.rows()).collect();
    assert_eq!(sizes, [&[5_000][..], &[5_002; 7], &[2]].concat());
    check_whole(&open);
}

#[test]
fn merged_chunks_take_the_least_type() {
    let open = OpenRows::default();
    let open = open.add(batch(0..1, &[("a", Arc::new(BooleanArray::from(vec![true])))])).expect("a bool");
    let open = open.add(batch(1..2, &[("a", ints(7..8)), ("b", ints(1..2))])).expect("an int");
    let column = |open: &OpenRows, name: &str| match open.chunks()[0].column(name) {
        Some(Column::Plain(array)) => array,
        other => panic!("{other:?}"),
    };
    assert_eq!(open.chunks().len(), 1);
    assert_eq!(column(&open, "a").as_primitive::<Int64Type>().values().to_vec(), vec![1, 7]);
    assert_eq!(&column(&open, "b"), &(Arc::new(Int64Array::from(vec![None, Some(1)])) as ArrayRef));
    assert!(open.chunks()[0].column("c").is_none() && open.chunks()[0].find("c").is_none());

    let wide = (1_i64 << 53) + 1;
    let rows = batch(2..4, &[("a", Arc::new(Float64Array::from(vec![0.5, 2.0])))]);
    let floats = open.add(rows).expect("a float");
    assert_eq!(floats.types()["a"].resolve(), Some(ColumnType::Float));
    let strings = open.add(batch(2..4, &[("a", ints(wide..wide + 2))])).expect("wide ints");
    assert!(strings.types()["a"].is_wide());
    let rows = batch(4..8, &[("a", Arc::new(Float64Array::from(vec![0.5; 4])))]);
    let strings = strings.add(rows).expect("a float");
    let expect: Vec<&str> =
        vec!["1", "7", "9007199254740993", "9007199254740994", "0.5", "0.5", "0.5", "0.5"];
    assert_eq!(&column(&strings, "a"), &(Arc::new(StringArray::from(expect)) as ArrayRef));
    check_whole(&strings);
}

#[test]
fn rows_are_split_where_asked() {
    let mut open = OpenRows::default();
    for (first, end) in [(0, 100), (100, 150), (150, 160)] {
        open = open.add(batch(first..end, &[("a", ints(first..end))])).expect("rows");
    }
    for rows in [0, 1, 99, 100, 101, 150, 155, 160, 1000] {
        let (first, rest) = open.split(rows).expect("rows that were taken");
        check_whole(&first);
        check_whole(&rest);
        assert_eq!(first.rows(), rows.min(160));
        assert_eq!([times(&first), times(&rest)].concat(), (0..160).collect::<Vec<_>>());
    }
    let large = OpenRows::default().add(batch(0..200_000, &[])).expect("rows");
    let (first, rest) = large.split(ROWS_PER_BLOCK_MAX).expect("rows that were taken");
    assert_eq!((first.rows(), rest.rows()), (65_536, 134_464));
    assert_eq!(rest.time_range(), Some((65_536, 199_999)));
}

#[test]
fn full_rows_are_taken_by_rows_or_bytes() {
    let open = OpenRows::default().add(batch(0..65_535, &[])).expect("rows");
    assert!(open.take_full(SEAL_BYTES_MAX).expect("rows that were taken").is_none());
    let open = open.add(batch(65_535..65_540, &[])).expect("rows");
    let (full, rest) = open.take_full(SEAL_BYTES_MAX).expect("rows that were taken").expect("enough rows");
    assert_eq!((full.rows(), rest.rows()), (65_536, 4));

    let mut open = OpenRows::default();
    for (first, end) in [(0, 100), (100, 150), (150, 160)] {
        open = open.add(batch(first..end, &[])).expect("rows");
    }
    let taken = |bytes_max: usize| {
        let parts = open.take_full(bytes_max).expect("rows that were taken");
        parts.map(|(full, rest)| (full.rows(), rest.rows()))
    };
    let bytes: Vec<usize> = open.chunks().iter().map(|chunk| chunk.bytes()).collect();
    assert_eq!(taken(open.bytes()), None);
    assert_eq!(taken(open.bytes() - 1), Some((150, 10)));
    assert_eq!(taken(bytes[0] + bytes[1] - 1), Some((100, 60)));
    assert_eq!(taken(0), Some((100, 60)));
}

#[test]
fn values_are_counted() {
    let some: ArrayRef = Arc::new(StringArray::from(vec![Some("abc"), None]));
    let open = OpenRows::default().add(batch(0..2, &[("a", some)])).expect("rows");
    let open = open.add(batch(2..3, &[("b", ints(0..1))])).expect("rows");
    let counts: Vec<(String, u64)> = open.value_counts().into_iter().map(|(name, n, _)| (name, n)).collect();
    assert_eq!(counts, [("a".to_owned(), 1), ("b".to_owned(), 1), ("time".to_owned(), 3)]);
    let of_values: u64 = open.value_counts().iter().map(|(_, _, bytes)| bytes).sum();
    // A time column and another one in each of two chunks.
    assert_eq!(of_values + 4 * COLUMN_OVERHEAD_BYTES as u64, open.bytes() as u64);
    assert_eq!(open.chunks().len(), 2);
}

#[test]
fn empty_batches_add_nothing_and_odd_ones_are_refused() {
    let open = OpenRows::default().add(batch(0..1, &[])).expect("a row");
    assert_eq!(open.add(batch(0..0, &[])).expect("no rows").rows(), 1);
    let without_time = RecordBatch::try_from_iter([("a", ints(0..1))]).expect("one column");
    assert_eq!(open.add(without_time).expect_err("no time"), RowsError::Time("is absent".to_owned()));
}

#[test]
fn open_rows_and_their_block_hold_the_same_values() {
    let mut open = OpenRows::default();
    for row in 0..50_i64 {
        let value: ArrayRef = match row % 3 {
            0 => ints(row..row + 1),
            1 => Arc::new(Float64Array::from(vec![row as f64 / 4.0])),
            _ => Arc::new(Float64Array::from(vec![None])),
        };
        open = open.add(batch(row..row + 1, &[("a", value)])).expect("a row");
    }
    let block = crate::row_block::RowBlock::seal(1, &open.batches()).expect("rows to seal");
    let sealed = block.column("a").expect("sound").expect("a column").to_array(50);
    let mut row = 0;
    for chunk in open.chunks() {
        let Some(Column::Plain(array)) = chunk.column("a") else { panic!("no column") };
        let array = cast_column(&array, ColumnType::Float).expect("a cast up the ladder");
        assert_eq!(&array, &sealed.slice(row, chunk.rows()));
        row += chunk.rows();
    }
}

#[test]
fn rows_keep_their_numbers() {
    let chunk = |times: std::ops::Range<i64>, first: u64| {
        let mut numbers = RowOrder::default();
        numbers.push(first, times.clone().count() as u64);
        OpenChunk::new(batch(times, &[])).expect("rows").numbered(numbers)
    };
    // They come in another order than they were numbered in, and are merged and cut.
    let open = OpenRows::default().append(chunk(0..3, 100)).append(chunk(3..5, 10)).append(chunk(5..9, 50));
    assert_eq!(open.chunks().len(), 1);
    let (first, rest) = open.split(4).expect("a cut");
    let numbers = |open: &OpenRows| open.numbers().iter().collect::<Vec<_>>();
    assert_eq!(numbers(&open), [(10, 12), (50, 54), (100, 103)]);
    assert_eq!((times(&first), numbers(&first)), (vec![0, 1, 2, 3], vec![(10, 11), (100, 103)]));
    assert_eq!((times(&rest), numbers(&rest)), (vec![4, 5, 6, 7, 8], vec![(11, 12), (50, 54)]));
}

/// Texts that repeat, some NULL, as a plain column and as a dictionary.
fn texts(rows: usize, distinct: usize) -> (ArrayRef, ArrayRef) {
    let text = |row: usize| (row % 11 != 5).then(|| format!("text {:04}", row * 7 % distinct));
    let plain: StringArray = (0..rows).map(text).collect();
    let sorted = Dictionary::of(plain.iter(), usize::MAX).expect("any number").sorted();
    let codes = sorted.codes.iter().map(|code| *code as u16).collect::<Vec<_>>();
    let keys = UInt16Array::new(codes.into(), plain.nulls().cloned());
    let values: ArrayRef = Arc::new(StringArray::from_iter_values(&sorted.values));
    let coded = DictionaryArray::try_new(keys, values).expect("codes of the values");
    (Arc::new(plain), Arc::new(coded))
}

#[test]
fn dictionaries_are_kept_until_they_are_sealed() {
    let seal = |open: &OpenRows| crate::row_block::RowBlock::seal(1, &open.batches()).expect("rows to seal");
    for distinct in [1, 2, 300, 2_000, 5_000] {
        let (mut plain, mut coded) = (OpenRows::default(), OpenRows::default());
        for rows in [5_000_usize, 4_096, 6_000] {
            let from = plain.rows() as i64;
            let (as_plain, as_coded) = texts(rows, distinct);
            plain = plain.add(batch(from..from + rows as i64, &[("a", as_plain)])).expect("rows");
            coded = coded.add(batch(from..from + rows as i64, &[("a", as_coded)])).expect("rows");
        }
        // A batch without the column, and a cut in the middle of a chunk.
        let more = batch(15_096..20_096, &[]);
        plain = plain.add(more.clone()).expect("rows");
        coded = coded.add(more).expect("rows").split(14_000).expect("a cut").0;
        plain = plain.split(14_000).expect("a cut").0;
        assert!(coded.bytes() < plain.bytes() || distinct > 300);
        for (plain, coded) in plain.chunks().iter().zip(coded.chunks()) {
            let (Some(Column::Plain(array)), Some(column)) = (plain.column("a"), coded.column("a")) else {
                panic!("{:?}", coded.column("a"))
            };
            assert!(matches!(column, Column::Dictionary { .. }), "{column:?}");
            assert_eq!(&array, &column.to_array(plain.rows()));
        }
        let (of_plain, of_coded) = (seal(&plain), seal(&coded));
        assert_eq!(of_plain.image().as_slice(), of_coded.image().as_slice(), "{distinct} distinct texts");
    }
}

#[test]
fn dictionaries_of_batches_that_are_merged_are_unpacked() {
    let (plain, coded) = texts(20, 3);
    let open = OpenRows::default().add(batch(0..20, &[("a", Arc::clone(&coded))])).expect("rows");
    assert!(matches!(open.chunks()[0].column("a"), Some(Column::Dictionary { .. })));
    let open = open.add(batch(20..40, &[("a", coded)])).expect("rows");
    assert_eq!(open.chunks().len(), 1);
    let Some(Column::Plain(array)) = open.chunks()[0].column("a") else { panic!("{open:?}") };
    assert_eq!([array.slice(0, 20), array.slice(20, 20)], [Arc::clone(&plain), plain]);
}
