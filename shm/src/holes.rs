//! Parts of a segment that have no memory behind them: finding them, and filling them.
//!
//! A read of such a part through a mapping takes memory, and when there is none the reader is killed by a signal. So a
//! segment is finished only when it has no holes, and no region is handed out over one.

use std::ops::Range;
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::segment::write_all;

/// What fills holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Whether a file of `size_bytes` is known to have no hole, at a price that does not depend on its size.
pub(crate) fn is_whole(file: impl AsFd, size_bytes: u64) -> Result<bool, Errno> {
    let stat = rustix::fs::fstat(file)?;
    let page_bytes = rustix::param::page_size() as u64;
    // Where pages are larger than the usual ones, more memory than the size can be there and a hole all the same.
    let usual_pages = u64::try_from(stat.st_blksize) == Ok(page_bytes);
    // The unit of st_blocks is always 512 bytes.
    let bytes = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    Ok(usual_pages && bytes == size_bytes.next_multiple_of(page_bytes))
}

/// Where the first hole in `range` begins, which must lie inside the file.
pub(crate) fn first_hole(file: impl AsFd, range: &Range<u64>) -> Result<Option<u64>, Errno> {
    // There is always a hole behind the last byte.
    let hole = rustix::fs::seek(file, SeekFrom::Hole(range.start))?;
    Ok((hole < range.end).then_some(hole))
}

/// Gives memory, of zeros, to every part of a file of `size_bytes` that has none.
pub(crate) fn fill(file: impl AsFd, size_bytes: u64) -> Result<(), Errno> {
    let mut at = 0;
    while at < size_bytes
        && let Some(hole) = first_hole(&file, &(at..size_bytes))?
    {
        at = match rustix::fs::seek(&file, SeekFrom::Data(hole)) {
            Ok(data) => data.min(size_bytes),
            Err(Errno::NXIO) => size_bytes,
            Err(errno) => return Err(errno),
        };
        let mut from = hole;
        while from < at {
            let zeros = ZEROS.get(..usize::try_from(at - from).unwrap_or(usize::MAX)).unwrap_or(&ZEROS);
            write_all(&file, from, zeros)?;
            from += zeros.len() as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::testing::{TestSegments, path_of};

    const PAGE: u64 = 4096;

    /// A sparse file with a byte in each of these pages, looked at in `/dev/shm` as segments are.
    fn check(pages: &[u64], size_bytes: u64, holes: &[(Range<u64>, Option<u64>)]) {
        let segments = TestSegments::new();
        let path = path_of(&segments.name("holes").unwrap());
        let file = std::fs::File::options().create_new(true).read(true).write(true).open(path).unwrap();
        file.set_len(size_bytes).unwrap();
        for page in pages {
            file.write_all_at(&[7], page * PAGE).unwrap();
        }
        for (range, hole) in holes {
            assert_eq!(first_hole(&file, range), Ok(*hole), "{range:?} of {pages:?}");
        }
        let whole = pages.len() as u64 == size_bytes.div_ceil(PAGE);
        assert_eq!(is_whole(&file, size_bytes), Ok(whole), "{pages:?} of {size_bytes}");
        fill(&file, size_bytes).unwrap();
        assert_eq!((is_whole(&file, size_bytes), file.metadata().unwrap().len()), (Ok(true), size_bytes));
        assert_eq!(first_hole(&file, &(0..size_bytes)), Ok(None));
        let mut read = vec![1; size_bytes as usize];
        file.read_exact_at(&mut read, 0).unwrap();
        for (at, byte) in read.iter().enumerate() {
            let marked = (at as u64).is_multiple_of(PAGE) && pages.contains(&(at as u64 / PAGE));
            assert_eq!(*byte, if marked { 7 } else { 0 }, "byte {at} of {pages:?}");
        }
    }

    #[test]
    fn holes_are_found_and_filled() {
        if rustix::param::page_size() as u64 != PAGE {
            eprintln!("SKIPPED holes_are_found_and_filled: pages have another size than {PAGE}");
            return;
        }
        check(&[0], 1, &[(0..1, None)]);
        check(&[], 1, &[(0..1, Some(0))]);
        check(&[0, 1], PAGE + 1, &[(0..PAGE + 1, None), (PAGE..PAGE + 1, None)]);
        check(&[0], PAGE + 1, &[(0..PAGE, None), (0..PAGE + 1, Some(PAGE))]);
        check(
            &[1, 3],
            5 * PAGE,
            &[
                (0..5 * PAGE, Some(0)),
                (PAGE - 1..2 * PAGE, Some(PAGE - 1)),
                (PAGE..2 * PAGE, None),
                (PAGE + 7..2 * PAGE + 1, Some(2 * PAGE)),
                (3 * PAGE..5 * PAGE, Some(4 * PAGE)),
            ],
        );
        check(&[], 100 * PAGE, &[(50 * PAGE..51 * PAGE, Some(50 * PAGE))]);
    }
}
