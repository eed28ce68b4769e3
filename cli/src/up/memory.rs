//! How much memory the leaves may take when nobody says: half of what the machine, or the container, has.

use std::path::Path;

/// When nothing can be found out.
const FALLBACK_BYTES: u64 = 4 << 30;

/// Half of the memory, as a limit for all leaves together.
pub(crate) fn default_limit() -> u64 {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    limit_of(&read("/proc/meminfo"), &read("/sys/fs/cgroup/memory.max"))
}

fn limit_of(meminfo: &str, cgroup_max: &str) -> u64 {
    let total = meminfo
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .map(|kib| kib.saturating_mul(1024));
    // `max` means that the container has no limit of its own.
    let allowed = cgroup_max.trim().parse::<u64>().ok();
    let least = [total, allowed].into_iter().flatten().min();
    least.map_or(FALLBACK_BYTES, |bytes| bytes / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts() {
        let meminfo = "MemTotal:       16384 kB\nMemFree: 3 kB\n";
        assert_eq!(limit_of(meminfo, "max\n"), 8 << 20);
        assert_eq!(limit_of(meminfo, "4194304\n"), 2 << 20);
        assert_eq!(limit_of(meminfo, ""), 8 << 20);
        assert_eq!(limit_of("", ""), FALLBACK_BYTES);
        assert_eq!(limit_of("MemTotal: many kB", "-1"), FALLBACK_BYTES);
    }
}
