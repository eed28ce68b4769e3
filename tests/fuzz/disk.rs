//! Files of the log, manifests, and headers of the catalogue.

use std::sync::Arc;

use bytes::Bytes;
use gannet_leaf::disk::{Disk, OsDisk};
use gannet_leaf::manifest::{self, BlockEntry, Edit, Manifest};
use gannet_leaf::wal::{self, Durability, Lost, Record, RowsHeader, RowsRecord, Wal, WalError, WalSettings};
use gannet_shm::{Expected, HEADER_BYTES, HEADER_VERSION, Header, Instance, VALID_MARK};
use gannet_tests::mutate::Mutator;
use gannet_tests::reseal;
use gannet_tests::sweep::Outcome;
use rand::Rng;
use tempfile::TempDir;
use uuid::Uuid;

const INSTANCE: Uuid = Uuid::from_bytes([7; 16]);

/// A directory in memory where the machine has one: thousands of files are written.
fn directory() -> TempDir {
    TempDir::with_prefix_in("gannet-fuzz-", "/dev/shm")
        .or_else(|_| TempDir::with_prefix("gannet-fuzz-"))
        .unwrap()
}

fn put(disk: &OsDisk, path: &str, bytes: &[u8]) {
    disk.create(path).unwrap().append(&[bytes]).unwrap();
}

fn get(disk: &OsDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn records() -> Vec<Record> {
    let rows = |number: u64, bytes: usize| {
        Record::Rows(RowsRecord {
            header: RowsHeader {
                table: "requests".into(),
                first_row: number * 10,
                rows: 10,
                time_min: -5,
                time_max: 1 << 60,
                producer: if number.is_multiple_of(2) { "tailer-1".into() } else { "".into() },
                sequence: number,
                part: 0,
                last_part: true,
                idempotency_key: number.is_multiple_of(3).then(|| "key".into()),
            },
            body: vec![number as u8; bytes].into(),
        })
    };
    let edit = Record::Edit(Bytes::from_static(b"{\"edit\":\"unknown_accepted\"}"));
    vec![rows(0, 100), edit.clone(), rows(1, 0), rows(2, 3_000), edit, rows(3, 77)]
}

fn settings() -> WalSettings {
    WalSettings { level: Durability::Power, file_bytes_max: 1 << 20, record_bytes_max: 1 << 20 }
}

/// The cases of the log: one file of two.
pub(crate) fn wal_cases() -> impl Fn(u64) -> Outcome {
    let directory = directory();
    let disk = Arc::new(OsDisk::new(directory.path()));
    let made = wal::read(disk.clone(), INSTANCE, 0).unwrap();
    let log = Wal::open(disk.clone(), settings(), &made).unwrap();
    for (number, record) in records().into_iter().enumerate() {
        if number == 3 {
            log.rotate().unwrap();
        }
        log.commit(&log.submit(record)).unwrap();
    }
    drop((log, made));
    let names = disk.list(wal::DIRECTORY).unwrap();
    assert_eq!(names.len(), 2);
    let files: Vec<Vec<u8>> = names.iter().map(|name| get(&disk, &format!("wal/{name}"))).collect();
    move |number| {
        let _ = directory.path();
        for name in disk.list(wal::DIRECTORY).unwrap() {
            disk.remove(&format!("wal/{name}")).unwrap();
        }
        let mut mutator = Mutator::new(number, &files);
        let which = mutator.random().random_range(0..2);
        let resealed = mutator.random().random_bool(0.5);
        let mut changed = files[which].clone();
        mutator.change(&mut changed);
        if resealed {
            reseal::log(&mut changed, *INSTANCE.as_bytes(), which as u64 + 1);
        }
        for (at, name) in names.iter().enumerate() {
            put(&disk, &format!("wal/{name}"), if at == which { &changed } else { &files[at] });
        }
        let known_durable = mutator.random().random_range(0..8);
        let said = mutator.said();
        check_log(&disk, known_durable, resealed).map_err(|what| format!("{what}\nfile {which}: {said}"))
    }
}

fn check_log(disk: &Arc<OsDisk>, known_durable: u64, resealed: bool) -> Outcome {
    let contents = match wal::read(disk.clone(), INSTANCE, known_durable) {
        Ok(contents) => contents,
        Err(WalError::Version { .. } | WalError::Instance { .. }) if resealed => {
            return Ok("refused".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    let mut lsn = 0;
    let mut bodies = Vec::new();
    for place in &contents.places {
        if place.header.lsn <= lsn || place.header.lsn >= contents.next_lsn() {
            return Err(format!("record {} behind {lsn} before {}", place.header.lsn, contents.next_lsn()));
        }
        lsn = place.header.lsn;
        let record = contents.record(place).map_err(|error| format!("a body that was sound: {error}"))?;
        let written = usize::try_from(lsn).ok().and_then(|lsn| records().into_iter().nth(lsn - 1));
        if !resealed && written.as_ref() != Some(&record) {
            return Err(format!("record {lsn} is not what was written"));
        }
        bodies.push((lsn, record));
    }
    for lost in &contents.lost {
        let (first, last) = match lost {
            Lost::Body { header, .. } => (header.lsn, header.lsn),
            Lost::Records { first_lsn, last_lsn } => (*first_lsn, *last_lsn),
        };
        if first == 0 || first > last || bodies.iter().any(|(lsn, _)| (first..=last).contains(lsn)) {
            return Err(format!("records {first} to {last} are lost and there"));
        }
    }
    let is_whole = bodies.len() == records().len();
    // Whatever it was, the log goes on behind it, and what it held is still there.
    let log = Wal::open(disk.clone(), settings(), &contents).map_err(|error| error.to_string())?;
    let added = Record::Edit(Bytes::from_static(b"more"));
    match log.commit(&log.submit(added.clone())) {
        Ok(lsn) => bodies.push((lsn, added)),
        Err(error) => return Err(format!("takes nothing more: {error}")),
    }
    drop(log);
    let again = wal::read(disk.clone(), INSTANCE, known_durable).map_err(|error| error.to_string())?;
    let found: Result<Vec<_>, _> = again
        .places
        .iter()
        .map(|place| again.record(place).map(|record| (place.header.lsn, record)))
        .collect();
    let found = found.map_err(|error| error.to_string())?;
    if let Some((lsn, _)) = bodies.iter().find(|body| !found.contains(body)) {
        return Err(format!("record {lsn} is gone when the log is read again"));
    }
    Ok(if is_whole { "read" } else { "part" }.to_owned())
}

/// The cases of the manifest.
pub(crate) fn manifest_cases() -> impl Fn(u64) -> Outcome {
    let mut known = Manifest::new("leaf-1", INSTANCE);
    known.epoch = 3;
    known.next_block_id = 9;
    let mut first = 0;
    for id in 1..5 {
        let numbers = serde_json::from_value(serde_json::json!([[first, first + 100]])).unwrap();
        let block =
            BlockEntry { id, numbers, rows: 100, first: 5, last: 9, bytes: 4_096, xxh3: id, home: None };
        known.apply(Edit::BlockAdded { table: format!("t{}", id % 2), block, replaces: vec![] });
        first += 100;
    }
    known.table("t1").lost = vec![(5, 9, 2)];
    for table in &mut known.tables {
        let done = table.done.clone();
        let gaps = done.missing_in(0, table.next_row);
        gaps.iter().for_each(|(from, to)| table.done.insert(*from, *to));
    }
    let directory = directory();
    let disk = OsDisk::new(directory.path());
    manifest::store(&disk, &known).unwrap();
    let whole = get(&disk, manifest::FILE);
    let end = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let body: serde_json::Value = serde_json::from_slice(&whole[end..]).unwrap();
    let pieces = vec![whole.clone(), br#"{"format":1,"id":"leaf-1","instance":"00000000-0000-0000-0000-000000000007","epoch":3,"generation":2,"tables":[{"name":"t","spans":[[0,59,5]],"lost":[]}]}"#.to_vec()];
    move |number| {
        let _ = directory.path();
        let mut mutator = Mutator::new(number, &pieces);
        let kind = mutator.random().random_range(0..6);
        let changed = match kind {
            0 => {
                let mut changed = pieces[1].clone();
                mutator.change(&mut changed);
                changed
            }
            1 => {
                let mut changed = whole.clone();
                mutator.change(&mut changed);
                changed
            }
            2 => {
                let mut changed = whole[end..].to_vec();
                mutator.change(&mut changed);
                reseal::manifest(&changed)
            }
            _ => {
                let mut document = body.clone();
                mutator.change_json(&mut document);
                reseal::manifest(document.to_string().as_bytes())
            }
        };
        put(&disk, manifest::FILE, &changed);
        let read = match manifest::load(&disk, "leaf-1") {
            Ok(Some(read)) => read,
            Ok(None) => return Err("it is not there".to_owned()),
            Err(_) => return Ok("refused".to_owned()),
        };
        if kind == 1 && changed != pieces[1] && read != known {
            return Err(format!("it was read as something else: {}", mutator.said()));
        }
        manifest::store(&disk, &read).map_err(|error| format!("cannot be written again: {error}"))?;
        match manifest::load(&disk, "leaf-1") {
            Ok(Some(again)) if again == read => Ok("read".to_owned()),
            other => Err(format!("it does not come back: {other:?}\n{}", mutator.said())),
        }
    }
}

/// The cases of the catalogue's header.
pub(crate) fn catalogue_cases() -> impl Fn(u64) -> Outcome {
    let payload = b"{\"leaf\":\"leaf-1\",\"epoch\":3}";
    let expected = Expected {
        segment_bytes: (HEADER_BYTES + payload.len()) as u64,
        layout_version: 2,
        page_bytes: 4_096,
        instance: Instance::from_bytes([7; 16]),
        owner_uid: 1_000,
        generation: 12,
        payload_bytes_max: 1 << 20,
    };
    let header = Header {
        header_version: HEADER_VERSION,
        layout_version: expected.layout_version,
        byte_order: 1,
        page_bytes: expected.page_bytes,
        instance: expected.instance,
        owner_uid: expected.owner_uid,
        generation: expected.generation,
        segment_bytes: expected.segment_bytes,
        payload_bytes: payload.len() as u64,
        payload_checksum: xxhash_rust::xxh3::xxh3_64(payload),
        valid_mark: VALID_MARK,
    };
    let whole = [&header.encode()[..], payload].concat();
    let pieces = vec![whole.clone(), vec![0; 200]];
    move |number| {
        let mut mutator = Mutator::new(number, &pieces);
        let mut changed = whole.clone();
        let resealed = mutator.random().random_bool(0.5);
        mutator.change(&mut changed);
        if resealed {
            reseal::catalogue(&mut changed);
        }
        let Ok(read) = Header::decode(&changed) else { return Ok("refused".to_owned()) };
        if read.encode()[..] != changed[..HEADER_BYTES] {
            return Err(format!("a header does not encode to what it was: {}", mutator.said()));
        }
        let expected = Expected { segment_bytes: changed.len() as u64, ..expected.clone() };
        if read.check(&expected).is_err() || read.check_payload(&changed[HEADER_BYTES..]).is_err() {
            return Ok("judged".to_owned());
        }
        if !resealed && changed != whole {
            return Err(format!("other bytes were taken: {}", mutator.said()));
        }
        Ok("read".to_owned())
    }
}
