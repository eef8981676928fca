//! How much the keys of all views may take in memory together. Beyond it keys that nobody has asked for lately leave it.

use std::sync::atomic::{AtomicI64, Ordering};

#[derive(Debug)]
pub struct Memory {
    limit: i64,
    used: AtomicI64,
}

impl Memory {
    /// At most about `limit` bytes; what one batch brings may come on top for a moment.
    pub fn new(limit: u64) -> Memory {
        Memory { limit: i64::try_from(limit).unwrap_or(i64::MAX), used: AtomicI64::new(0) }
    }

    pub fn unlimited() -> Memory {
        Memory::new(u64::MAX)
    }

    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    pub fn limit(&self) -> u64 {
        self.limit.unsigned_abs()
    }

    pub(super) fn grow(&self, bytes: i64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.limit
    }

    /// So far over that keys have to go whatever else they are needed for: by an eighth.
    pub(super) fn is_far_over(&self) -> bool {
        self.used.load(Ordering::Relaxed) - self.limit > self.limit / 8
    }

    /// Room for keys that nobody has asked for yet.
    pub(super) fn has_plenty(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.limit / 4 * 3
    }
}
