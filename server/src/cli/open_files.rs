//! How many files the process may open, beside the connections it is set to take: each is one, and logs, tables and the online
//! store need theirs too. Where the limit is too low a flood of clients would stop the log.

use std::path::Path;

/// Files beside connections: an open log for each source, the state store, the warehouse, and some to spare.
const OTHER_FILES: usize = 256;

/// Warns if the connections that are allowed may not all be open. Where the system does not tell its limit, nothing is said.
pub fn warn_if_too_few(max_connections: usize) {
    let Ok(limits) = std::fs::read_to_string(Path::new("/proc/self/limits")) else { return };
    let Some(files) = soft_limit(&limits) else { return };
    if files < max_connections.saturating_add(OTHER_FILES) {
        let hint = "raise the limit (ulimit -n, LimitNOFILE of a systemd unit) or lower max_connections";
        tracing::warn!(
            open_files_max = files,
            max_connections,
            needed_beside = OTHER_FILES,
            hint,
            "few files may be open"
        );
    }
}

/// `None`: it is not said, or there is none.
fn soft_limit(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn the_limit_is_read_where_there_is_one() {
    let limits =
        |soft: &str| format!("Limit  Soft Limit  Hard Limit  Units\nMax open files            {soft}   4096   files\n");
    assert_eq!(soft_limit(&limits("1024")), Some(1024));
    assert_eq!(soft_limit(&limits("unlimited")), None);
    assert_eq!(soft_limit("Max processes 5 5 processes\n"), None);
}
