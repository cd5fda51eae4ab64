//! What the machine has, where a default depends on it.

use std::fs;
use std::path::Path;

/// Where memory cannot be found out: what a small machine has.
const UNKNOWN: u64 = 1 << 30;

const MIB: u64 = 1 << 20;

/// Memory that this process may use, in bytes: the machine's, or what its control group leaves of that.
pub(super) fn memory_bytes() -> u64 {
    let read = |path: &Path| fs::read_to_string(path).ok();
    memory_of(&read(Path::new("/proc/meminfo")).unwrap_or_default(), &cgroup_limits())
}

/// Three quarters of it for sandboxes, in whole MiB: the rest is for the host, its compilers, and what the kernel keeps of files.
pub(super) fn sandbox_memory_bytes() -> u64 {
    (memory_bytes() / 4 * 3 / MIB).max(64) * MIB
}

/// What `memory.max` says of this process's group and all above it.
fn cgroup_limits() -> Vec<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // cgroup v2 has one line, `0::/path`. Of v1 nothing is asked: who still has it says `sandbox_memory`.
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own);
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    groups.filter_map(|group| fs::read_to_string(group.join("memory.max")).ok()).collect()
}

fn memory_of(meminfo: &str, limits: &[String]) -> u64 {
    let total = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kib.parse::<u64>().ok().map(|kib| kib << 10)
    });
    // "max" is no number.
    let limits = limits.iter().filter_map(|limit| limit.trim().parse().ok());
    limits.chain(total).min().unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_the_machine_and_its_groups_counts() {
        let meminfo = "MemFree: 5 kB\nMemTotal:       24576 kB\n";
        let found = |limits: &[&str]| memory_of(meminfo, &limits.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(found(&[]), 24 * MIB);
        assert_eq!(found(&["max\n", "1048576\n"]), MIB);
        assert_eq!(found(&["99999999999\n"]), 24 * MIB);
        assert_eq!(memory_of("", &[]), UNKNOWN);
    }
}
