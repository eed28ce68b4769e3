//! What `gannet up` says at its end about each leaf: handed over, or what happened instead.

use crate::units;
use crate::up::part::{Ended, how_it_ended};

/// One line for a leaf; the words `handed over` appear only when its rows are in shared memory.
pub(crate) fn line(leaf: &Ended) -> String {
    let name = &leaf.name;
    if let (false, Some((rows, bytes, seconds))) = (leaf.killed, leaf.handed_over) {
        let (rows, bytes) = (units::rows(rows), units::bytes(bytes));
        return format!("  {name}  handed over {rows} ({bytes} copied) in {}", units::seconds(seconds));
    }
    let mut text = match leaf.status {
        Some(status) if status.success() && !leaf.killed => format!("  {name}  left its rows on disk"),
        Some(status) => format!("  {name}  handed nothing over: it {}", how_it_ended(status)),
        None => format!("  {name}  handed nothing over: it was not running"),
    };
    if let Some(error) = &leaf.last_error {
        text.push_str(&format!(" ({error})"));
    }
    text.push_str(&format!("; see {}", leaf.log.display()));
    text
}

/// All of a leaf's rows are where the next start finds them.
pub(crate) fn is_well(leaf: &Ended) -> bool {
    !leaf.killed && leaf.status.is_some_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(status: Option<ExitStatus>, handed_over: Option<(u64, u64, f64)>, error: Option<&str>) -> Ended {
        Ended {
            name: "leaf-0".to_owned(),
            log: "/data/leaf-0/leaf.log".into(),
            status,
            killed: status.is_some_and(|status| status.signal() == Some(9)),
            handed_over,
            last_error: error.map(str::to_owned),
        }
    }

    #[test]
    fn each_ending_has_its_words() {
        let check = |leaf: Ended, text: &str, well: bool| {
            assert_eq!((line(&leaf).as_str(), is_well(&leaf)), (text, well));
        };
        let exit = |code: i32| Some(ExitStatus::from_raw(code << 8));
        check(
            ended(exit(0), Some((500_123, 61_234_567, 0.31)), None),
            "  leaf-0  handed over 500,123 rows (61.2 MB copied) in 310 ms",
            true,
        );
        check(
            ended(exit(0), None, Some("warning: 9 bytes do not go into shared memory, which has 0 free")),
            "  leaf-0  left its rows on disk (warning: 9 bytes do not go into shared memory, which has 0 free); see \
             /data/leaf-0/leaf.log",
            true,
        );
        check(
            ended(exit(1), None, Some("error: sync of a: no space")),
            "  leaf-0  handed nothing over: it ended with exit code 1 (error: sync of a: no space); see \
             /data/leaf-0/leaf.log",
            false,
        );
        check(
            ended(Some(ExitStatus::from_raw(9)), None, None),
            "  leaf-0  handed nothing over: it was killed by signal 9; see /data/leaf-0/leaf.log",
            false,
        );
        check(
            ended(None, None, None),
            "  leaf-0  handed nothing over: it was not running; see /data/leaf-0/leaf.log",
            false,
        );
    }
}
