//! How much memory the process holds, as the operating system counts it. Where that is not Linux, nobody tells.

/// Bytes of the process in memory now.
pub(super) fn resident_bytes() -> Option<u64> {
    // Made by the kernel when it is read: no disk is waited for.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    resident(&status)
}

/// `VmRSS:     51234 kB`
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read_and_anything_else_is_not() {
        assert_eq!(resident("Name:\ttidemark\nVmHWM:\t 9 kB\nVmRSS:\t   51234 kB\n"), Some(51_234 * 1024));
        for status in ["", "VmRSS:", "VmRSS: 5", "VmRSS: 5 MB", "VmRSS: -5 kB"] {
            assert_eq!(resident(status), None, "{status}");
        }
    }
}
