//! Which of the rows that a poll found are new: neither twice, nor left out without being counted.
//!
//! Time alone cannot tell: rows arrive out of order, and many have the same time. So every poll looks again at the rows
//! of the last seconds, and a row that was shown is known again by all of its values; of rows that are the same in
//! everything, as many are shown as there are. Rows older than those seconds are settled: they are counted once, and
//! what was not shown by then is said to be skipped. Rows that arrive for a time that is settled are counted as late for
//! some minutes and never shown.

use std::collections::{BTreeMap, HashMap};

/// How long after it was settled a time is looked at for late rows.
const LATE_NANOSECONDS: i64 = 600 * 1_000_000_000;

/// A row that a poll found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Its time, in nanoseconds.
    pub(super) time: i64,
    /// All of its values, its time among them, as JSON.
    pub(super) json: String,
}

/// What of the stream was looked at.
#[derive(Debug)]
pub(super) struct Window {
    /// Rows up to this time are settled.
    settled: i64,
    /// Rows up to this time are shown no more: there were too many.
    floor: i64,
    /// How often each row after the floor was shown.
    seen: HashMap<String, (i64, u64)>,
    /// Rows after the settled time that are accounted for, by time.
    accounted: BTreeMap<i64, u64>,
    /// The newest time that was seen.
    newest: i64,
    /// Settled rows after this time are looked at for late ones.
    late_since: i64,
    /// How many rows there are after that time, as far as they were counted.
    late_known: u64,
    lateness: i64,
}

/// What to count to settle a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Rows after this time were settled before; those that are more now are late.
    pub(super) late_since: i64,
    /// Rows after this time …
    pub(super) after: i64,
    /// … up to this time are to be settled.
    pub(super) until: i64,
}

/// What was found out about a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Rows that were not shown.
    pub(super) skipped: u64,
    /// Rows that came after their time was settled.
    pub(super) late: u64,
}

impl Window {
    /// Begins with the newest rows, newest first, of which there may be more than these when `is_full`. They count as
    /// seen.
    pub(super) fn begin(rows: &[Found], is_full: bool, now: i64, lateness: i64) -> Window {
        let newest = rows.first().map_or(now, |row| row.time);
        let mut settled = newest.min(now).saturating_sub(lateness);
        if let (true, Some(oldest)) = (is_full, rows.last()) {
            // Some of the rows of the oldest time may not be among these; none of them is taken for new.
            settled = settled.max(oldest.time);
        }
        let mut window = Window {
            settled,
            floor: settled,
            seen: HashMap::new(),
            accounted: BTreeMap::new(),
            newest,
            late_since: settled,
            late_known: 0,
            lateness,
        };
        for row in rows.iter().filter(|row| row.time > settled) {
            window.account(row);
        }
        window
    }

    /// Rows after this time are to be looked at.
    pub(super) fn after(&self) -> i64 {
        self.floor
    }

    /// How many rows a poll finds that are known.
    pub(super) fn known(&self) -> u64 {
        self.seen.values().map(|(_, count)| count).sum()
    }

    /// The new ones of the rows that a poll found, oldest first, and not more than `most`. Rows come newest first;
    /// there may be older ones that were not found when `is_full`.
    pub(super) fn fresh(&mut self, rows: Vec<Found>, is_full: bool, most: usize) -> Vec<Found> {
        if let Some(first) = rows.first() {
            self.newest = self.newest.max(first.time);
        }
        if let (true, Some(oldest)) = (is_full, rows.last()) {
            self.floor = self.floor.max(oldest.time);
        }
        let mut counts: HashMap<String, u64> = HashMap::new();
        let mut fresh = Vec::new();
        for row in rows {
            let count = counts.entry(row.json.clone()).or_default();
            *count += 1;
            if self.seen.get(&row.json).is_some_and(|(_, seen)| *seen >= *count) {
                continue;
            }
            fresh.push(row);
        }
        if let Some(first_left_out) = fresh.get(most) {
            self.floor = self.floor.max(first_left_out.time);
        }
        fresh.truncate(most);
        for row in &fresh {
            self.account(row);
        }
        let floor = self.floor;
        self.seen.retain(|_, (time, _)| *time > floor);
        fresh.reverse();
        fresh
    }

    fn account(&mut self, row: &Found) {
        self.seen.entry(row.json.clone()).or_insert((row.time, 0)).1 += 1;
        *self.accounted.entry(row.time).or_default() += 1;
    }

    /// What to count now; nothing while no time has become old enough.
    pub(super) fn stretch(&self, now: i64) -> Option<Stretch> {
        let until = self.newest.min(now).saturating_sub(self.lateness);
        let is_older = until > self.settled;
        is_older.then_some(Stretch { late_since: self.late_since, after: self.settled, until })
    }

    /// What to count at the end, when nothing more is waited for; nothing when all is settled.
    pub(super) fn rest(&self, now: i64) -> Option<Stretch> {
        let until = self.newest.min(now);
        let is_older = until > self.settled;
        is_older.then_some(Stretch { late_since: self.late_since, after: self.settled, until })
    }

    /// Takes what was counted: rows of the stretch, and rows before it that were settled already.
    pub(super) fn settle(&mut self, stretch: Stretch, rows: u64, rows_before: u64) -> Settled {
        let later = self.accounted.split_off(&stretch.until.saturating_add(1));
        let accounted: u64 = std::mem::replace(&mut self.accounted, later).values().sum();
        let late = rows_before.saturating_sub(self.late_known);
        self.late_known = self.late_known.max(rows_before) + rows;
        self.settled = stretch.until;
        self.floor = self.floor.max(stretch.until);
        let floor = self.floor;
        self.seen.retain(|_, (time, _)| *time > floor);
        if self.settled.saturating_sub(self.late_since) > LATE_NANOSECONDS {
            self.late_since = self.settled;
            self.late_known = 0;
        }
        Settled { skipped: rows.saturating_sub(accounted), late }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(time: i64, json: &str) -> Found {
        Found { time, json: json.to_owned() }
    }

    /// A table, and polls of it as a server would answer them.
    #[derive(Debug, Default)]
    struct Rows(Vec<Found>);

    impl Rows {
        fn newest(&self, after: i64, most: usize) -> (Vec<Found>, bool) {
            let mut rows: Vec<Found> = self.0.iter().filter(|row| row.time > after).cloned().collect();
            rows.sort_by_key(|row| std::cmp::Reverse(row.time));
            rows.truncate(most);
            let is_full = rows.len() == most;
            (rows, is_full)
        }

        fn count(&self, after: i64, until: i64) -> u64 {
            self.0.iter().filter(|row| row.time > after && row.time <= until).count() as u64
        }

        fn poll(&self, window: &mut Window, most: usize) -> Vec<String> {
            let limit = window.known() as usize + most + 1;
            let (rows, is_full) = self.newest(window.after(), limit);
            window.fresh(rows, is_full, most).into_iter().map(|row| row.json).collect()
        }

        fn settle(&self, window: &mut Window, now: i64) -> Settled {
            let Some(stretch) = window.stretch(now) else { return Settled::default() };
            let before = self.count(stretch.late_since, stretch.after);
            window.settle(stretch, self.count(stretch.after, stretch.until), before)
        }
    }

    #[test]
    fn new_rows_are_shown_once() {
        let mut table = Rows(vec![row(10, "a")]);
        let mut window = Window::begin(&table.0, false, 100, 5);
        assert_eq!(table.poll(&mut window, 9), [""; 0]);
        table.0.extend([row(11, "b"), row(10, "a"), row(10, "c")]);
        assert_eq!(table.poll(&mut window, 9), ["c", "a", "b"]);
        assert_eq!(table.poll(&mut window, 9), [""; 0]);
        // Out of order, but not late.
        table.0.push(row(7, "d"));
        assert_eq!(table.poll(&mut window, 9), ["d"]);
        assert_eq!(table.settle(&mut window, 100), Settled::default());
        table.0.push(row(20, "e"));
        assert_eq!(table.poll(&mut window, 9), ["e"]);
        assert_eq!(table.settle(&mut window, 100), Settled { skipped: 0, late: 0 });
        // Now 15 is settled.
        table.0.push(row(15, "f"));
        assert_eq!(table.poll(&mut window, 9), [""; 0]);
        table.0.push(row(21, "g"));
        assert_eq!(table.poll(&mut window, 9), ["g"]);
        assert_eq!(table.settle(&mut window, 100), Settled { skipped: 0, late: 1 });
    }

    #[test]
    fn too_many_are_counted() {
        let mut table = Rows::default();
        let mut window = Window::begin(&[], false, 0, 5);
        table.0.extend((1..=10).map(|time| row(time, &time.to_string())));
        assert_eq!(table.poll(&mut window, 3), ["8", "9", "10"]);
        assert_eq!(table.poll(&mut window, 3), [""; 0]);
        assert_eq!(table.settle(&mut window, 100), Settled { skipped: 5, late: 0 });
        table.0.push(row(30, "30"));
        assert_eq!(table.poll(&mut window, 3), ["30"]);
        assert_eq!(table.settle(&mut window, 100), Settled { skipped: 2, late: 0 });
        let rest = window.rest(100).unwrap();
        assert_eq!((rest.after, rest.until), (25, 30));
        assert_eq!(window.settle(rest, table.count(25, 30), 10), Settled::default());
        assert_eq!(window.rest(100), None);
    }

    #[test]
    fn a_time_in_the_future_does_not_stop_it() {
        let mut table = Rows::default();
        let mut window = Window::begin(&[], false, 0, 5);
        table.0.push(row(1_000_000, "x"));
        assert_eq!(table.poll(&mut window, 9), ["x"]);
        table.settle(&mut window, 20);
        table.0.push(row(18, "y"));
        assert_eq!(table.poll(&mut window, 9), ["y"]);
    }

    proptest! {
        /// Every row is shown once, or counted as skipped or late, whatever the order in which rows come.
        #[test]
        fn nothing_is_lost_or_repeated(
            start in prop::collection::vec((0_i64..40, 0_u8..3), 0..12),
            polls in prop::collection::vec((prop::collection::vec((0_i64..40, 0_u8..3), 0..8), 0_usize..5), 1..20),
        ) {
            let make = |(time, kind): (i64, u8)| row(time, &format!("{time} {kind}"));
            let mut table = Rows(start.into_iter().map(make).collect());
            let (rows, is_full) = table.newest(i64::MIN, 6);
            let mut window = Window::begin(&rows, is_full, 1000, 8);
            // What was there before: not shown, not skipped.
            let first = window.settled;
            let begun_with = table.count(first, i64::MAX);
            let (mut shown, mut skipped, mut late) = (Vec::new(), 0, 0);
            for (number, (arrived, most)) in polls.into_iter().enumerate() {
                // Time goes on.
                let arrived = arrived.into_iter().map(|(time, kind)| (time + 10 * number as i64, kind));
                let arrived: Vec<Found> = arrived.map(make).collect();
                table.0.extend(arrived);
                shown.extend(table.poll(&mut window, most));
                let settled = table.settle(&mut window, 1000);
                skipped += settled.skipped;
                late += settled.late;
            }
            // Everything that is left becomes old.
            table.0.push(row(900, "900"));
            shown.extend(table.poll(&mut window, 1));
            for time in [950, 990] {
                table.0.push(row(time, &time.to_string()));
                shown.extend(table.poll(&mut window, 1));
                let settled = table.settle(&mut window, 2000);
                skipped += settled.skipped;
                late += settled.late;
            }
            let open = table.count(window.settled, i64::MAX);
            let open_shown: u64 = window.accounted.values().sum();
            let all = table.0.len() as u64 - table.count(i64::MIN, first);
            prop_assert_eq!(shown.len() as u64 + skipped + late + begun_with + (open - open_shown), all);
            // Nothing is shown more often than it is there.
            for json in &shown {
                let there = table.0.iter().filter(|row| row.json == *json).count();
                prop_assert!(shown.iter().filter(|other| *other == json).count() <= there);
            }
        }
    }
}
