//! Handing over: how fast images of row blocks get from memory of this process into segments that outlive it.
//!
//! Goals: gigabytes a second of each way there is, beside what plain copies and the system's own pages cost, while the
//! source is freed image by image as a leaf at its limit has to. Every way has to leave the same bytes behind, and the
//! hash says that it did. Not a goal: writing through a mapping, which takes `unsafe`; what its pages alone cost is
//! measured instead.
//!
//! `cargo bench -p gannet-benches --bench hand_over [-- MEBIBYTES] [WORD]`: twice that much memory is needed.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use gannet_benches::measure::Arguments;
use gannet_shm::{Instance, OsSharedMemory, Pages, SegmentName, Segments, SharedMemory};
use memmap2::{Advice, MmapOptions};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rustix::fs::{FallocateFlags, Mode};
use rustix::shm::OFlags;
use xxhash_rust::xxh3::xxh3_64;

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
/// Runs of each way; the best counts, for everything that disturbs only makes it slower.
const RUNS: usize = 3;

/// How the bytes of a segment get into it.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// As a leaf does it.
    Writer,
    /// Pieces of this size are written to a file that only has its length.
    Write { piece: usize },
    /// The same after all of the file's memory was reserved.
    ReserveAndWrite { piece: usize },
    /// The pages of a mapping are made, and nothing is copied.
    PagesOnly,
}

struct Case {
    name: &'static str,
    way: Way,
    segment_bytes: usize,
    /// Threads, each with a segment of its own.
    threads: usize,
    /// Threads that share one segment.
    sharing: usize,
}

const fn case(name: &'static str, way: Way, segment_mib: usize, threads: usize, sharing: usize) -> Case {
    Case { name, way, segment_bytes: segment_mib * MIB, threads, sharing }
}

const MEBIBYTE: Way = Way::Write { piece: MIB };

const CASES: [Case; 13] = [
    case("pages of a mapping, no copy", Way::PagesOnly, 16, 1, 1),
    case("reserve and write", Way::ReserveAndWrite { piece: MIB }, 16, 1, 1),
    case("write", MEBIBYTE, 16, 1, 1),
    case("write 64 KiB pieces", Way::Write { piece: 64 << 10 }, 16, 1, 1),
    case("write 16 MiB pieces", Way::Write { piece: 16 * MIB }, 16, 1, 1),
    case("write segments of 64 MiB", MEBIBYTE, 64, 1, 1),
    case("write segments of 256 MiB", MEBIBYTE, 256, 1, 1),
    case("reserve and write, 2 threads", Way::ReserveAndWrite { piece: MIB }, 16, 2, 1),
    case("write, 2 threads", MEBIBYTE, 16, 2, 1),
    case("write, 2 threads, 256 MiB", MEBIBYTE, 256, 2, 1),
    case("write, 2 threads, one segment", MEBIBYTE, 64, 1, 2),
    case("segment writer", Way::Writer, 16, 1, 1),
    case("segment writer, 2 threads", Way::Writer, 16, 2, 1),
];

fn main() {
    let arguments = Arguments::of_process();
    let bytes = arguments.rows_or(1024, 4) * MIB;
    let image_bytes_max = if arguments.measured { 12 * MIB } else { 192 << 10 };
    let sizes = image_sizes(bytes, image_bytes_max);
    let runs = if arguments.measured && !arguments.once { RUNS } else { 1 };
    println!("{} images, {} MiB", sizes.len(), sizes.iter().sum::<usize>() / MIB);
    println!("{:<32} {:>8}  {:<16}", "way", "GB/s", "result");
    copies(&arguments, &sizes, runs);
    let expected = images(&sizes).iter().map(|image| xxh3_64(image)).fold(0, u64::wrapping_add);
    for case in CASES.iter().filter(|case| arguments.wants(case.name)) {
        let measured = (0..runs).map(|_| run(case, &sizes));
        let (seconds, hash) = measured.min_by(|a, b| a.0.total_cmp(&b.0)).expect("at least one run");
        match case.way {
            Way::PagesOnly => line(case.name, &sizes, seconds, ""),
            _ => {
                assert_eq!(hash, expected, "{}", case.name);
                line(case.name, &sizes, seconds, &format!("{hash:016x}"));
            }
        }
    }
}

fn line(name: &str, sizes: &[usize], seconds: f64, result: &str) {
    let bytes: usize = sizes.iter().sum();
    println!("{name:<32} {:>8.2}  {result:<16}", bytes as f64 / seconds / 1e9);
}

/// What copying costs where no segment is in the way.
fn copies(arguments: &Arguments, sizes: &[usize], runs: usize) {
    let best = |copy: &dyn Fn(&[u8])| -> f64 {
        let once = |_| {
            let source = images(sizes);
            let started = Instant::now();
            source.into_iter().for_each(|image| copy(&image));
            started.elapsed().as_secs_f64()
        };
        (0..runs).map(once).fold(f64::INFINITY, f64::min)
    };
    if arguments.wants("copy to warm memory") {
        let warm = Mutex::new(vec![1u8; sizes.iter().copied().max().unwrap_or(0)]);
        let seconds = best(&|image| {
            let mut warm = warm.lock().expect("nobody else has it");
            warm[..image.len()].copy_from_slice(image);
            black_box(&warm);
        });
        line("copy to warm memory", sizes, seconds, "");
    }
    if arguments.wants("copy to fresh memory") {
        let kept = Mutex::new(Vec::new());
        let seconds = best(&|image| {
            let mut pages = Pages::zeroed(image.len()).expect("memory");
            pages.as_mut_slice().copy_from_slice(image);
            kept.lock().expect("nobody else has it").push(pages);
        });
        line("copy to fresh memory", sizes, seconds, "");
    }
}

/// Sizes of images in whole pages, until they are `bytes` together.
fn image_sizes(bytes: usize, image_bytes_max: usize) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(1);
    let (mut sizes, mut sum) = (Vec::new(), 0);
    while sum < bytes {
        let size = random.random_range(image_bytes_max / 12..=image_bytes_max).next_multiple_of(PAGE);
        sizes.push(size);
        sum += size;
    }
    sizes
}

fn images(sizes: &[usize]) -> Vec<Bytes> {
    let mut random = StdRng::seed_from_u64(2);
    let image = |size: &usize| {
        let mut pages = Pages::zeroed(*size).expect("memory");
        random.fill_bytes(pages.as_mut_slice());
        pages.freeze().expect("read-only")
    };
    sizes.iter().map(image).collect()
}

/// A segment to be: its name, its images with their places, and its size.
struct Planned {
    name: SegmentName,
    images: Vec<(usize, Bytes)>,
    bytes: usize,
}

fn plan(segments: &Segments, images: Vec<Bytes>, segment_bytes: usize) -> Vec<Planned> {
    let mut planned: Vec<Planned> = Vec::new();
    for image in images {
        let number = planned.len();
        let bytes = image.len();
        match planned.last_mut().filter(|last| last.bytes + bytes <= segment_bytes) {
            Some(last) => {
                last.images.push((last.bytes, image));
                last.bytes += bytes;
            }
            None => {
                let name = segments.name(&format!("bench-{number}")).expect("a short name");
                planned.push(Planned { name, images: vec![(0, image)], bytes });
            }
        }
    }
    planned
}

/// Segments that go when the bench is done with them, however that ends.
struct Cleanup(Segments);

impl Drop for Cleanup {
    fn drop(&mut self) {
        for name in OsSharedMemory.list(&self.0).expect("names of segments") {
            OsSharedMemory.unlink(&name).expect("a segment of our own");
        }
    }
}

/// Seconds of one hand-over, and a hash of what it left behind.
fn run(case: &Case, sizes: &[usize]) -> (f64, u64) {
    let mut instance = [0; 16];
    rand::rng().fill_bytes(&mut instance);
    let segments = Cleanup(Segments::new(Instance::from_bytes(instance)));
    let planned = plan(&segments.0, images(sizes), case.segment_bytes);
    let written: Vec<(SegmentName, usize)> =
        planned.iter().map(|planned| (planned.name.clone(), planned.bytes)).collect();
    let places: Vec<Vec<(usize, usize)>> = planned
        .iter()
        .map(|planned| planned.images.iter().map(|(at, image)| (*at, image.len())).collect())
        .collect();
    let planned: Vec<Mutex<Option<Planned>>> =
        planned.into_iter().map(|planned| Mutex::new(Some(planned))).collect();
    let next = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..case.threads {
            scope.spawn(|| {
                while let Some(planned) = planned.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let planned = planned.lock().expect("nobody else has it").take();
                    write(case, planned.expect("each number is given out once"));
                }
            });
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let hash = written.iter().zip(&places).map(|((name, bytes), places)| {
        let mapped = OsSharedMemory.map(name, *bytes as u64).expect("the segment that was written");
        let region = mapped.region(0..*bytes).expect("all of it");
        let all = region.as_slice();
        places.iter().map(|(at, len)| xxh3_64(&all[*at..at + len])).fold(0, u64::wrapping_add)
    });
    let hash = if matches!(case.way, Way::PagesOnly) { 0 } else { hash.fold(0, u64::wrapping_add) };
    (seconds, hash)
}

fn write(case: &Case, planned: Planned) {
    match case.way {
        Way::Writer => {
            let created = OsSharedMemory.create(&planned.name, planned.bytes as u64);
            let mut writer = created.expect("room for a segment");
            for (at, image) in planned.images {
                writer.write_at(at as u64, &image).expect("room for an image");
            }
            writer.finish().expect("a segment under its name");
        }
        Way::Write { piece } if case.sharing > 1 => {
            let file = create(&planned);
            let images = Mutex::new(planned.images.into_iter());
            std::thread::scope(|scope| {
                for _ in 0..case.sharing {
                    scope.spawn(|| {
                        loop {
                            let image = images.lock().expect("nobody else has it").next();
                            let Some((at, image)) = image else { break };
                            write_pieces(&file, at, &image, piece);
                        }
                    });
                }
            });
        }
        Way::Write { piece } => {
            let file = create(&planned);
            planned.images.into_iter().for_each(|(at, image)| write_pieces(&file, at, &image, piece));
        }
        Way::ReserveAndWrite { piece } => {
            let file = create(&planned);
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, planned.bytes as u64).expect("room");
            planned.images.into_iter().for_each(|(at, image)| write_pieces(&file, at, &image, piece));
        }
        Way::PagesOnly => {
            let file = create(&planned);
            let map = MmapOptions::new().len(planned.bytes).map_raw(&file).expect("a mapping");
            for (at, image) in planned.images {
                map.advise_range(Advice::PopulateWrite, at, image.len()).expect("room for pages");
            }
        }
    }
}

fn create(planned: &Planned) -> OwnedFd {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
    let file = rustix::shm::open(planned.name.as_str(), flags, Mode::RUSR | Mode::WUSR).expect("a new name");
    rustix::fs::ftruncate(&file, planned.bytes as u64).expect("a length");
    file
}

fn write_pieces(file: &OwnedFd, mut at: usize, image: &[u8], piece: usize) {
    for mut bytes in image.chunks(piece) {
        while !bytes.is_empty() {
            let written = rustix::io::pwrite(file, bytes, at as u64).expect("room for a piece");
            at += written;
            bytes = &bytes[written..];
        }
    }
}
