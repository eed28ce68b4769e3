use std::io::Write;

use super::*;
use crate::agent::lines::{CutLimits, LineFormat};
use crate::agent::shape::Shape;

/// A folder of logs, and what watching it tells.
struct Logs {
    folder: tempfile::TempDir,
    watch: Watch,
    now: Duration,
    /// Batches that nobody acknowledged, which hold their room.
    held: Vec<Batch>,
}

fn settings(pattern: String, on_full: OnFull, read_from: ReadFrom) -> WatchSettings {
    let pace = Pace { limits: CutLimits { records: 2, bytes: 1000 }, delay: Duration::from_millis(100) };
    WatchSettings { patterns: vec![pattern], read_from, on_full, pace }
}

fn watch_with(folder: &Path, buffer: u64, settings: WatchSettings, remembered: Vec<Remembered>) -> Watch {
    let _ = folder;
    let shape =
        Shape { format: LineFormat::Lines, pattern: None, add: vec![], sample_rate: None, time_field: None };
    let formats = Formats::new(Some(LineFormat::Lines), shape);
    Watch::new(settings, formats, Buffer::new(buffer), remembered, 1)
}

impl Logs {
    fn new(pattern: &str) -> Logs {
        Logs::with(pattern, OnFull::Block, 1 << 20)
    }

    fn with(pattern: &str, on_full: OnFull, buffer: u64) -> Logs {
        let folder = tempfile::tempdir().unwrap();
        let pattern = folder.path().join(pattern).display().to_string();
        let settings = settings(pattern, on_full, ReadFrom::Checkpoint);
        let watch = watch_with(folder.path(), buffer, settings, Vec::new());
        Logs { folder, watch, now: Duration::ZERO, held: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = File::options().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// What several looks tell, in short.
    fn look(&mut self) -> Vec<String> {
        self.look_while(false)
    }

    fn look_while(&mut self, refuses: bool) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..8 {
            self.now += SCAN_EVERY;
            self.watch.turn(self.now, refuses, &mut |seen| all.push(seen));
        }
        let folder = format!("{}/", self.folder.path().display());
        all.into_iter().filter_map(|seen| self.short(seen)).map(|text| text.replace(&folder, "")).collect()
    }

    fn short(&mut self, seen: Seen) -> Option<String> {
        let text = |batch: &Batch| String::from_utf8(batch.raw.to_vec()).unwrap().replace('\n', ";");
        Some(match seen {
            Seen::Opened { stream, path, from, .. } => format!("open {stream} {path} {from}"),
            Seen::Resumed { stream, path, .. } => format!("resume {stream} {path}"),
            Seen::Cut(batch) => {
                let text = format!("{}: {}", batch.range.key.stream, text(&batch));
                self.held.push(batch);
                text
            }
            Seen::Again(batch) => format!("again {}: {}", batch.range.key.stream, text(&batch)),
            Seen::TooLong { range, .. } => format!("too long {}", range.end),
            Seen::PassedOver(range) => format!("passed over {}", range.records),
            Seen::Lost { key, why } => format!("lost {}: {why}", key.start),
            Seen::Size { .. } => return None,
            Seen::Gone { stream } => format!("gone {stream}"),
            Seen::Removed { stream } => format!("removed {stream}"),
            Seen::MakeRoom(bytes) => format!("make room {bytes}"),
            Seen::Warning(warning) => format!("warning: {warning}"),
        })
    }
}

#[test]
fn files_are_found_when_they_come() {
    let mut logs = Logs::new("*.log");
    assert_eq!(logs.look(), ["warning: nothing is named *.log yet; waiting for it"]);
    logs.append("a.log", "1\n2\n3\n");
    logs.append("other", "x\n");
    assert_eq!(logs.look(), ["open 1 a.log 0", "1: 1;2;", "1: 3;"]);
    logs.append("b.log", "4\n");
    logs.append("a.log", "5\n");
    assert_eq!(logs.look(), ["open 2 b.log 0", "1: 5;", "2: 4;"]);
    assert!(logs.look().is_empty());
}

#[test]
fn a_rotated_file_is_finished_before_the_new_one() {
    let mut logs = Logs::new("a.log");
    logs.append("a.log", "1\n");
    assert_eq!(logs.look(), ["open 1 a.log 0", "1: 1;"]);
    logs.append("a.log", "2\n3\n4\nha");
    logs.rename("a.log", "a.log.1");
    logs.append("a.log", "new\n");
    assert_eq!(logs.look(), ["1: 2;3;", "1: 4;", "open 2 a.log 0", "2: new;"]);
    // Whoever still has it open may write on.
    logs.append("a.log.1", "lf\nend");
    assert_eq!(logs.look(), ["1: half;"]);
    // Until it is quiet for long; then its last line is one, too.
    logs.now += NAMELESS_QUIET;
    assert_eq!(logs.look(), ["1: end", "gone 1"]);
    // Should it come back, it is known.
    logs.append("a.log.1", "\nmore\n");
    logs.rename("a.log", "a.log.2");
    logs.rename("a.log.1", "a.log");
    assert_eq!(logs.look(), ["resume 1 a.log", "1: ;more;"]);
}

#[test]
fn renamed_files_that_are_named_still_are_not_read_twice() {
    let mut logs = Logs::new("a.log*");
    logs.append("a.log", "1\n");
    assert_eq!(logs.look(), ["open 1 a.log 0", "1: 1;"]);
    logs.rename("a.log", "a.log.1");
    logs.append("a.log", "2\n");
    assert_eq!(logs.look(), ["open 2 a.log 0", "resume 1 a.log.1", "2: 2;"]);
    std::fs::write(logs.path("a.log.2.gz"), b"\x1f\x8b\x08....").unwrap();
    assert_eq!(logs.look(), ["warning: a.log.2.gz is compressed, and is not followed"]);
    assert!(logs.look().is_empty());
}

#[test]
fn a_removed_file_is_forgotten() {
    let mut logs = Logs::new("a.log");
    logs.append("a.log", "1\nha");
    assert_eq!(logs.look(), ["open 1 a.log 0", "1: 1;"]);
    std::fs::remove_file(logs.path("a.log")).unwrap();
    assert_eq!(logs.look(), ["warning: nothing is named a.log yet; waiting for it"]);
    logs.now += NAMELESS_QUIET;
    assert_eq!(logs.look(), ["1: ha", "removed 1"]);
}

#[test]
fn a_truncated_file_begins_anew() {
    let mut logs = Logs::new("a.log");
    logs.append("a.log", "1\n2\n");
    assert_eq!(logs.look(), ["open 1 a.log 0", "1: 1;2;"]);
    std::fs::write(logs.path("a.log"), "3\n").unwrap();
    assert_eq!(
        logs.look(),
        ["warning: a.log was truncated; it is read from its start", "removed 1", "open 2 a.log 0", "2: 3;"]
    );
}

#[test]
fn a_full_buffer_blocks_or_drops() {
    // The rest stays in the file.
    let mut logs = Logs::with("a.log", OnFull::Block, 4000);
    logs.append("a.log", &format!("{}\n", "x".repeat(3500)));
    assert_eq!(logs.look().len(), 2);
    logs.append("a.log", "1\n");
    assert!(logs.look_while(true).is_empty());
    logs.held.clear();
    assert_eq!(logs.look(), ["1: 1;"]);

    for (on_full, expect) in [(OnFull::DropNewest, "passed over 1"), (OnFull::DropOldest, "make room 502")] {
        let mut logs = Logs::with("a.log", on_full, 4000);
        logs.append("a.log", &format!("{}\n", "x".repeat(3500)));
        logs.look();
        logs.append("a.log", &format!("{}\n", "y".repeat(501)));
        // A server that is merely slow makes files lag.
        assert!(logs.look().is_empty());
        assert_eq!(logs.look_while(true)[0], expect);
    }
}

fn remembered(logs: &Logs, name: &str, cut_to: u64, again: &[(u64, &str)]) -> Remembered {
    let file = File::open(logs.path(name)).unwrap();
    let shaper = |logs: &Logs| {
        let mut formats = Formats::new(Some(LineFormat::Lines), logs.watch.formats.shape().clone());
        formats.shaper_of(Path::new("x"), &file).unwrap().unwrap()
    };
    let again = again.iter().rev().map(|(start, raw)| {
        let key = Key { stream: 7, start: *start };
        (Range::of(key, raw.as_bytes(), 1), shaper(logs))
    });
    Remembered {
        stream: 7,
        path: logs.path(name).display().to_string(),
        identity: Identity::of(&file).unwrap(),
        cut_to,
        again: again.collect(),
        is_gone: false,
    }
}

fn restart(logs: &mut Logs, read_from: ReadFrom, known: Vec<Remembered>) {
    let settings = WatchSettings {
        patterns: logs.watch.settings.patterns.clone(),
        ..settings(String::new(), OnFull::Block, read_from)
    };
    logs.watch = watch_with(logs.folder.path(), 1 << 20, settings, known);
    logs.watch.next_stream = 8;
}

#[test]
fn a_start_sends_again_what_was_on_its_way() {
    let mut logs = Logs::new("a.log");
    logs.append("a.log", "1\n2\n3\n4\n");
    let known = remembered(&logs, "a.log", 6, &[(0, "1\n"), (4, "3\n")]);
    // It was rotated while nobody looked.
    logs.rename("a.log", "a.log.1");
    logs.append("a.log", "new\n");
    restart(&mut logs, ReadFrom::Checkpoint, vec![known]);
    assert_eq!(
        logs.look(),
        ["open 8 a.log 0", "resume 7 a.log.1", "again 7: 1;", "again 7: 3;", "8: new;", "7: 4;"]
    );
}

#[test]
fn what_cannot_be_sent_again_is_named() {
    let mut logs = Logs::new("a.log");
    logs.append("a.log", "1\n2\n");
    let known = remembered(&logs, "a.log", 4, &[(0, "1\n"), (2, "x\n")]);
    restart(&mut logs, ReadFrom::Checkpoint, vec![known]);
    assert_eq!(
        logs.look(),
        ["resume 7 a.log", "again 7: 1;", "lost 2: a.log does not hold its lines any more"]
    );
    let known = remembered(&logs, "a.log", 4, &[(0, "1\n")]);
    std::fs::remove_file(logs.path("a.log")).unwrap();
    logs.append("a.log", "other\n");
    restart(&mut logs, ReadFrom::Checkpoint, vec![known]);
    assert_eq!(
        logs.look(),
        ["open 8 a.log 0", "lost 0: a.log is gone, or is not what it was", "gone 7", "8: other;"]
    );
}

#[test]
fn the_end_is_that_of_the_files_that_are_there() {
    let mut logs = Logs::new("*.log");
    logs.append("a.log", "1\n");
    restart(&mut logs, ReadFrom::End, Vec::new());
    assert_eq!(logs.look(), ["open 8 a.log 2"]);
    logs.append("a.log", "2\n");
    logs.append("b.log", "3\n");
    assert_eq!(logs.look(), ["open 9 b.log 0", "8: 2;", "9: 3;"]);
}
