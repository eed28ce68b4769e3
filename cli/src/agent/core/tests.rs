//! The agent against a server that refuses, loses replies and counts each number once, with crashes at any moment.

use std::collections::{BTreeMap, BTreeSet};

use gannet_client::{Error, ErrorKind, Rejection};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::agent::batch::tests::batch;
use crate::agent::book::tests::{IDENTITY, shape};
use crate::agent::buffer::Buffer;

const LINES: usize = 60;

/// A server that counts each numbered request once. Lines with `x` are rejected; a body with `y` is refused as a whole.
#[derive(Default)]
struct Server {
    known: BTreeSet<(String, u64)>,
    counted: BTreeMap<String, u32>,
}

impl Server {
    fn take(&mut self, post: &Post) -> Ending {
        let body = String::from_utf8(post.body.to_vec()).unwrap();
        if body.contains('y') {
            return Ending::BodyRefused(failed(Rest::NotAccepted));
        }
        let is_new = self.known.insert((post.producer.clone(), post.sequence));
        let mut reply = Reply::default();
        for (row, line) in (0..).zip(body.lines()) {
            if line.contains('x') {
                reply.rejected.push(Rejection { row, error: "x".to_owned() });
                continue;
            }
            reply.accepted += 1;
            if is_new {
                *self.counted.entry(line.to_owned()).or_default() += 1;
            }
        }
        Ending::Done(reply)
    }
}

fn failed(rest: Rest) -> PostError {
    PostError { error: Error::new(ErrorKind::BrokenOff, "broken"), reply: Reply::default(), rest }
}

fn line(number: usize) -> String {
    let kind = match number {
        7 | 30 => "x",
        13 | 31 => "y",
        _ => "n",
    };
    format!("{kind}{number}\n")
}

/// The agent's world: a file of lines, a saved book, requests under way.
struct World {
    core: Core,
    server: Server,
    random: StdRng,
    buffer: std::sync::Arc<Buffer>,
    /// Where each line starts, and the end.
    starts: Vec<u64>,
    next_line: usize,
    saved: Option<Vec<u8>>,
    being_saved: Option<Vec<u8>>,
    under_way: Vec<Post>,
    bad: BTreeSet<String>,
    now: Duration,
}

impl World {
    fn new(seed: u64) -> World {
        let mut starts = vec![0];
        for number in 0..LINES {
            starts.push(starts[number] + line(number).len() as u64);
        }
        let core = Core::new(Book::new("t", "p0".to_owned()), 3);
        let mut world = World {
            core,
            server: Server::default(),
            random: StdRng::seed_from_u64(seed),
            buffer: Buffer::new(1 << 20),
            starts,
            next_line: 0,
            saved: None,
            being_saved: None,
            under_way: Vec::new(),
            bad: BTreeSet::new(),
            now: Duration::ZERO,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let path = "a.log".to_owned();
        self.core.see(Seen::Opened { stream: 1, path, identity: IDENTITY, from: 0 }, self.now);
    }

    fn text(&self, from: u64, to: u64) -> String {
        let all: String = (0..LINES).map(line).collect();
        all[from as usize..to as usize].to_owned()
    }

    fn cut(&mut self) {
        let until = (self.next_line + self.random.random_range(1..6)).min(LINES);
        if until > self.next_line {
            let (start, end) = (self.starts[self.next_line], self.starts[until]);
            let batch = batch(shape(), start, &self.text(start, end), &self.buffer);
            self.core.see(Seen::Cut(batch), self.now);
            self.next_line = until;
        }
    }

    fn save(&mut self) {
        if let Some(text) = self.core.save(self.now, false).unwrap() {
            assert!(self.being_saved.replace(text).is_none());
        } else if self.random.random_bool(0.1) && self.being_saved.take().is_some() {
            self.core.not_saved(&std::io::Error::other("full"), self.now);
        } else if let Some(text) = self.being_saved.take() {
            self.saved = Some(text);
            self.core.saved();
        }
    }

    fn post(&mut self) {
        let Some(post) = self.core.next_post(self.now) else { return };
        // Whatever is sent is in the saved book, under this number.
        let book = Book::from_text(self.saved.as_ref().unwrap()).unwrap();
        let intent = &book.streams()[&post.key.stream].intents[&post.key.start];
        assert_eq!((&intent.producer, intent.sequence), (&post.producer, post.sequence));
        self.under_way.push(post);
    }

    fn end_one(&mut self, is_healthy: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.under_way.len());
        let post = self.under_way.swap_remove(index);
        let ending = match self.random.random_range(0..6) {
            _ if is_healthy => self.server.take(&post),
            0 => Ending::Later(failed(Rest::NotAccepted)),
            1 => Ending::Later(failed(Rest::Unknown)),
            2 => {
                self.server.take(&post);
                Ending::Later(failed(Rest::Unknown))
            }
            3 => Ending::ComeBack(failed(Rest::NotAccepted)),
            _ => self.server.take(&post),
        };
        let share = self.random.random();
        self.core.ended(post.key, ending, self.now, share).unwrap();
    }

    /// The agent dies; the server may still take what was under way.
    fn crash(&mut self) {
        for post in std::mem::take(&mut self.under_way) {
            if self.random.random_bool(0.5) {
                self.server.take(&post);
            }
        }
        if let Some(text) = self.being_saved.take()
            && self.random.random_bool(0.5)
        {
            self.saved = Some(text);
        }
        self.note_bad();
        let book = match &self.saved {
            Some(text) => Book::from_text(text).unwrap(),
            None => Book::new("t", "p0".to_owned()),
        };
        let stream = book.streams().get(&1).cloned();
        self.core = Core::new(book, 3);
        let Some(stream) = stream else {
            self.next_line = 0;
            return self.open();
        };
        self.next_line = self.starts.iter().position(|start| *start == stream.cut_to).unwrap();
        for (start, intent) in &stream.intents {
            let again = batch(shape(), *start, &self.text(*start, intent.end), &self.buffer);
            assert_eq!((again.range.hash, again.range.records), (intent.hash, intent.records));
            self.core.see(Seen::Again(again), self.now);
        }
    }

    fn note_bad(&mut self) {
        for news in self.core.take_news() {
            if let News::Bad(line) = news {
                assert_eq!(line.path, "a.log");
                let text = String::from_utf8(line.line).unwrap();
                assert_eq!(self.text(line.start, line.start + text.len() as u64), text);
                self.bad.insert(text);
            }
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.random_range(0..200));
        match self.random.random_range(0..20) {
            0..4 => self.cut(),
            4..9 => self.save(),
            9..13 => self.post(),
            13..18 => self.end_one(false),
            18 => self.core.see(Seen::MakeRoom(1), self.now),
            _ => self.crash(),
        }
    }

    fn finish(&mut self) {
        for _ in 0..10_000 {
            self.now += Duration::from_secs(1);
            self.cut();
            self.save();
            self.post();
            self.end_one(true);
            if self.next_line == LINES && self.core.held() == 0 && self.core.is_saved() {
                return self.note_bad();
            }
        }
        panic!("{} batches are never taken", self.core.held());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_line_counts_once(seed: u64) {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.finish();
        let (mut accepted, mut rejected, mut dropped) = (0, 0, 0);
        for number in 0..LINES {
            let text = line(number);
            let text = text.trim_end();
            match world.server.counted.get(text) {
                Some(count) => {
                    prop_assert_eq!(*count, 1, "{} counts {} times", text, count);
                    accepted += 1;
                }
                None if world.bad.contains(text) => rejected += 1,
                None => dropped += 1,
            }
        }
        // A bad line may have been dropped after a crash that made the agent forget that it was bad.
        let totals = world.core.book().totals;
        prop_assert_eq!(totals.accepted, accepted);
        prop_assert_eq!(totals.rejected + totals.dropped, rejected + dropped);
        prop_assert!(totals.dropped >= dropped);
        prop_assert_eq!(totals.unknown, 0);
        prop_assert_eq!(world.buffer.used(), 0);
    }
}

fn core_with(lines: &[usize]) -> (World, Vec<Key>) {
    let mut world = World::new(1);
    let mut keys = Vec::new();
    for number in lines {
        let start = world.starts[*number];
        let batch = batch(shape(), start, &line(*number), &world.buffer);
        keys.push(batch.range.key);
        world.core.see(Seen::Cut(batch), world.now);
    }
    (world, keys)
}

fn save(world: &mut World) {
    world.saved = Some(world.core.save(world.now, false).unwrap().unwrap());
    world.core.saved();
}

#[test]
fn nothing_is_sent_before_it_is_saved() {
    let (mut world, _) = core_with(&[0]);
    assert!(world.core.next_post(world.now).is_none());
    let _ = world.core.save(world.now, false).unwrap().unwrap();
    assert!(world.core.next_post(world.now).is_none());
    // What was cut while it was being saved waits for the next copy.
    let more = batch(shape(), 3, &line(1), &world.buffer);
    world.core.see(Seen::Cut(more), world.now);
    world.core.saved();
    assert_eq!(world.core.next_post(world.now).unwrap().sequence, 1);
    assert!(world.core.next_post(world.now).is_none());
    save(&mut world);
    assert_eq!(world.core.next_post(world.now).unwrap().sequence, 2);
}

#[test]
fn one_copy_is_for_all_that_wait_while_enough_can_be_sent() {
    let mut world = World::new(1);
    // Three requests at a time: six that may be sent are enough.
    let cut = |world: &mut World, numbers: std::ops::Range<u64>| {
        for number in numbers {
            let batch = batch(shape(), number * 3, "n0\n", &world.buffer);
            world.core.see(Seen::Cut(batch), world.now);
        }
    };
    cut(&mut world, 0..8);
    save(&mut world);
    cut(&mut world, 8..9);
    assert!(world.core.save(world.now, false).unwrap().is_none());
    for _ in 0..3 {
        let post = world.core.next_post(world.now).unwrap();
        assert!(world.core.save(world.now, false).unwrap().is_none());
        let ending = world.server.take(&post);
        world.core.ended(post.key, ending, world.now, 0.5).unwrap();
    }
    // Five are left.
    assert!(world.core.save(world.now, false).unwrap().is_some());
    world.core.saved();
    // What waits is saved after a while all the same.
    cut(&mut world, 9..10);
    assert!(world.core.save(world.now, false).unwrap().is_none());
    assert!(world.core.save(world.now + SAVE_EVERY, false).unwrap().is_some());
}

#[test]
fn a_number_changes_only_when_nothing_was_taken() {
    let (mut world, keys) = core_with(&[0]);
    save(&mut world);
    let later = Duration::from_secs(60);
    let check = |world: &mut World, ending: Ending, sequence: u64| {
        world.core.ended(keys[0], ending, world.now, 0.5).unwrap();
        world.now += later;
        if world.core.save(world.now, false).unwrap().is_some() {
            world.core.saved();
        }
        assert_eq!(world.core.next_post(world.now).unwrap().sequence, sequence);
    };
    assert_eq!(world.core.next_post(world.now).unwrap().sequence, 1);
    check(&mut world, Ending::Later(failed(Rest::NotAccepted)), 1);
    check(&mut world, Ending::ComeBack(failed(Rest::NotAccepted)), 2);
    check(&mut world, Ending::Later(failed(Rest::Unknown)), 2);
    check(&mut world, Ending::ComeBack(failed(Rest::NotAccepted)), 2);
    assert!(world.core.refuses());
    // Nor is it dropped any more.
    world.core.see(Seen::MakeRoom(1 << 20), world.now);
    assert_eq!((world.core.held(), world.core.book().totals.dropped), (1, 0));
}

#[test]
fn waits_are_kept() {
    let (mut world, keys) = core_with(&[0]);
    save(&mut world);
    world.core.next_post(world.now).unwrap();
    let error = Error { retry_after_seconds: Some(2), ..Error::new(ErrorKind::Refused, "full") };
    let refused = PostError { error, reply: Reply::default(), rest: Rest::Unknown };
    world.core.ended(keys[0], Ending::ComeBack(refused), world.now, 0.5).unwrap();
    let due = Duration::from_millis(2050);
    assert_eq!(world.core.next_due(world.now), Some(due));
    assert!(world.core.next_post(Duration::from_millis(2049)).is_none());
    assert!(world.core.next_post(due).is_some());
    let warning = "full; lines are sent again until they are taken".to_owned();
    assert_eq!(world.core.take_news(), [News::Warning(warning)]);
}

#[test]
fn numbers_in_use_lie_near_each_other() {
    let mut world = World::new(1);
    for number in 0..=NUMBERS_SPAN_MAX {
        let batch = batch(shape(), number * 3, "n0\n", &world.buffer);
        world.core.see(Seen::Cut(batch), world.now);
    }
    save(&mut world);
    // The first one is never answered, and all others at once.
    let first = world.core.next_post(world.now).unwrap();
    let mut highest = 0;
    while let Some(post) = world.core.next_post(world.now) {
        highest = post.sequence;
        let ending = world.server.take(&post);
        world.core.ended(post.key, ending, world.now, 0.5).unwrap();
    }
    assert_eq!((first.sequence, highest), (1, NUMBERS_SPAN_MAX));
    let ending = world.server.take(&first);
    world.core.ended(first.key, ending, world.now, 0.5).unwrap();
    assert_eq!(world.core.next_post(world.now).unwrap().sequence, NUMBERS_SPAN_MAX + 1);
}

#[test]
fn what_nobody_knows_is_counted_as_that() {
    let (mut world, keys) = core_with(&[0, 1]);
    save(&mut world);
    world.core.next_post(world.now).unwrap();
    world.core.ended(keys[0], Ending::TooOld(failed(Rest::Unknown)), world.now, 0.5).unwrap();
    world.core.see(Seen::Lost { key: keys[1], why: "a.log is gone".to_owned() }, world.now);
    assert_eq!(world.core.book().totals.unknown, 2);
    let told = world.core.take_news();
    let lost =
        "1 lines (bytes 3 to 6) may or may not have been counted, and cannot be sent again: a.log is gone";
    assert_eq!(told[1], News::Warning(lost.to_owned()));
}
