use super::file::{decode, encode};
use super::*;
use crate::disk::{Disk, OsDisk};
use crate::row_block::LAYOUT_VERSION;

fn ranges(pairs: &[(u64, u64)]) -> RowRanges {
    let mut ranges = RowRanges::default();
    pairs.iter().for_each(|(from, to)| ranges.insert(*from, *to));
    ranges
}

fn block(id: u64, numbers: &[(u64, u64)]) -> BlockEntry {
    let numbers = ranges(numbers);
    let rows = numbers.count();
    BlockEntry { id, numbers, rows, first: 10, last: 20, bytes: 4096, xxh3: u64::MAX - id, home: None }
}

fn manifest() -> Manifest {
    let mut manifest = Manifest::new("leaf-1", uuid::Uuid::from_u128(7));
    manifest.epoch = 7;
    manifest.apply(Edit::BlockAdded { table: "t".into(), block: block(3, &[(0, 100)]), replaces: vec![] });
    manifest.table("t").lost = vec![(0, 59, 3)];
    let home = Home { segment: "/a".into(), segment_bytes: 1 << 24, offset: 4096 };
    manifest.table("t").blocks[0].home = Some(home);
    manifest
}

#[test]
fn it_comes_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let disk = OsDisk::new(directory.path());
    assert!(load(&disk, "leaf-1").unwrap().is_none());
    let manifest = manifest();
    store(&disk, &manifest).unwrap();
    assert_eq!(load(&disk, "leaf-1").unwrap(), Some(manifest));
    assert_eq!(
        load(&disk, "leaf-2").unwrap_err().to_string(),
        "it belongs to leaf leaf-1, this one is leaf-2"
    );
    assert_eq!(disk.list("").unwrap(), [FILE]);
}

#[test]
fn what_is_not_ours_is_refused() {
    let check = |text: &str, expect: &str| {
        assert_eq!(decode(text.as_bytes()).unwrap_err().to_string(), expect);
    };
    check("", "parse: EOF while parsing a value at line 1 column 0");
    check("{}", "it has no format number");
    check("{\"format\":3,\"shape\":\"unknown\"}\n", "format 3, this build reads up to 2");
    check(
        "{\"format\":2,\"layout\":9,\"bytes\":1,\"xxh3\":\"0\"}\n?",
        &format!("layout version 9 of row blocks, this build reads up to {LAYOUT_VERSION}"),
    );
    check("{\"format\":2}\n{}", "parse: missing field `bytes`");
    check("{\"format\":2,\"bytes\":3,\"xxh3\":\"0\"}\n{}", "it has 2 bytes, not 3");
    check("{\"format\":2,\"bytes\":2,\"xxh3\":\"0\"}\n{}", "its checksum is 1349cde127705c16, not 0");
    check("{\"format\":1}", "parse: missing field `id` at line 1 column 12");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let check = |change: &dyn Fn(&mut Manifest), expect: &str| {
        let mut broken = manifest();
        change(&mut broken);
        let error = decode(&encode(&broken).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), expect);
    };
    let table =
        |change: fn(&mut TableManifest)| move |manifest: &mut Manifest| change(&mut manifest.tables[0]);
    decode(&encode(&manifest()).unwrap()).unwrap();
    check(
        &|manifest| manifest.epoch = u64::MAX,
        "it has the epoch 18446744073709551615, the limit is 4611686018427387904",
    );
    check(&|manifest| manifest.next_block_id = 3, "it has block 3 twice, or not below 3");
    check(&|manifest| manifest.tables.push(TableManifest::default()), "it has table  out of order");
    check(
        &table(|table| table.next_row = 99),
        "it has table t that has rows up to 100 of 99, the limit is 18014398509481984",
    );
    check(
        &table(|table| table.next_row = u64::MAX),
        "it has table t that has rows up to 100 of 18446744073709551615, the limit is 18014398509481984",
    );
    check(
        &table(|table| table.blocks.push(table.blocks[0].clone())),
        "it has table t that has a row in two blocks",
    );
    check(
        &table(|table| table.done = ranges(&[(0, 99)])),
        "it has table t that has a row in a block that is not done",
    );
    check(
        &table(|table| table.blocks[0].rows = 101),
        "it has table t that has block 3 of 101 rows that were 100, the limit is 65536",
    );
    check(
        &table(|table| table.blocks[0].rows = 0),
        "it has table t that has block 3 of 0 rows that were 100, the limit is 65536",
    );
    check(
        &table(|table| table.blocks[0].first = 21),
        "it has table t that has block 3 that begins at 21 and ends at 20",
    );
    check(
        &table(|table| table.lost = vec![(0, 1, 1 << 62), (0, 1, 1)]),
        "it has table t that lost 4611686018427387905 rows, the limit is 4611686018427387904",
    );
    check(&table(|table| table.lost = vec![(1, 0, 1)]), "it has table t that lost rows from 1 to 0");
}

#[test]
fn no_byte_can_change_unnoticed() {
    let whole = encode(&manifest()).unwrap();
    for place in 0..whole.len() {
        for bit in [1, 0x10, 0x80] {
            let mut bytes = whole.clone();
            bytes[place] ^= bit;
            // The first line may be spelt in another way; what it says must still be true.
            if let Ok(read) = decode(&bytes) {
                assert_eq!(read, manifest(), "byte {place}");
            }
        }
        assert!(decode(&whole[..place]).is_err(), "cut at {place}");
    }
}

#[test]
fn an_older_format_counts_its_rows_as_lost() {
    let text = "{\"format\":1,\"id\":\"leaf-1\",\"instance\":\"00000000-0000-0000-0000-000000000007\",\"epoch\":3,\
                \"generation\":2,\"clean\":true,\"tables\":[{\"name\":\"t\",\"spans\":[[0,59,5]],\"lost\":[[60,119,1]]}]}";
    let read = decode(text.as_bytes()).unwrap();
    assert_eq!((read.epoch, read.generation, read.clean), (3, 2, false));
    assert_eq!(read.tables[0].lost, [(0, 59, 5), (60, 119, 1)]);
}

#[test]
fn edits_can_be_applied_again() {
    let mut manifest = Manifest::new("leaf-1", uuid::Uuid::nil());
    let edits = [
        Edit::BlockAdded { table: "t".into(), block: block(5, &[(0, 100)]), replaces: vec![] },
        Edit::BlockAdded { table: "t".into(), block: block(6, &[(100, 150), (160, 170)]), replaces: vec![] },
        Edit::RowsDone { table: "t".into(), rows: ranges(&[(150, 160)]) },
        Edit::BlockAdded { table: "t".into(), block: block(7, &[(0, 100)]), replaces: vec![5] },
        Edit::BlocksRemoved { table: "t".into(), ids: vec![6] },
        Edit::RowsLost { table: "t".into(), lost: vec![(0, 59, 2)] },
    ];
    for edit in &edits {
        let text = serde_json::to_vec(edit).unwrap();
        let read: Edit = serde_json::from_slice(&text).unwrap();
        assert_eq!(&read, edit);
        manifest.apply(read.clone());
        let once = manifest.clone();
        manifest.apply(read);
        assert_eq!(manifest, once);
    }
    let table = &manifest.tables[0];
    assert_eq!((table.next_row, table.done.clone()), (170, ranges(&[(0, 170)])));
    assert_eq!(table.blocks.iter().map(|block| block.id).collect::<Vec<_>>(), [7]);
    assert_eq!(manifest.next_block_id, 8);
}
