//! What the front door counts beside the protocol: lookups by how they were found, and background tasks that have
//! stopped.

use parking_lot::Mutex;
use std::{collections::BTreeSet, sync::Arc};
use tidemark_engine::meter::{Counter, Histogram};

/// Microseconds. A lookup takes some; beyond a millisecond it waited for a disk or for a batch that was being applied.
const LOOKUPS_US: &[u64] =
    &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 1_000_000];

/// How a lookup's statement was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupPath {
    /// By the fingerprint of its text, its literals being the keys: clients that do not prepare.
    Fingerprint,
    /// Prepared, or seen for the first time.
    Prepared,
}

impl LookupPath {
    pub const ALL: [LookupPath; 2] = [LookupPath::Fingerprint, LookupPath::Prepared];

    pub fn as_str(self) -> &'static str {
        match self {
            LookupPath::Fingerprint => "fingerprint",
            LookupPath::Prepared => "prepared",
        }
    }
}

#[derive(Debug)]
pub struct Meters {
    lookups_us: [Histogram; LookupPath::ALL.len()],
    /// Keys that lookups did not get by their deadline.
    pub lookups_late: Counter,
    pub tasks: Tasks,
}

impl Default for Meters {
    fn default() -> Self {
        Meters {
            lookups_us: LookupPath::ALL.map(|_| Histogram::sharded(LOOKUPS_US)),
            lookups_late: Counter::default(),
            tasks: Tasks::default(),
        }
    }
}

impl Meters {
    /// Microseconds from a bound statement to its rows in the connection's buffer.
    pub fn lookups_us(&self, path: LookupPath) -> &Histogram {
        &self.lookups_us[path as usize]
    }
}

/// Background tasks: each is to run for as long as the server does.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    ended: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// A background task that runs.
#[derive(Debug)]
pub struct Alive {
    /// `None`: it may end now.
    name: Option<&'static str>,
    tasks: Tasks,
}

impl Alive {
    /// It ends because the server does.
    pub fn leave(mut self) {
        self.name = None;
    }
}

impl Tasks {
    /// To be held by the task for as long as it lives.
    pub fn begin(&self, name: &'static str) -> Alive {
        Alive { name: Some(name), tasks: self.clone() }
    }

    /// Those that have ended though the server has not: by a panic, which is a bug.
    pub fn ended(&self) -> Vec<&'static str> {
        self.ended.lock().iter().copied().collect()
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(name) = self.name {
            self.tasks.ended.lock().insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_panics_is_known_to_have_ended() {
        let tasks = Tasks::default();
        let (one, other) = (tasks.begin("history"), tasks.begin("online"));
        assert!(tasks.ended().is_empty());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _alive = one;
            panic!("as a bug would");
        }));
        assert!(panicked.is_err());
        assert_eq!(tasks.ended(), vec!["history"]);
        other.leave();
        assert_eq!(tasks.ended(), vec!["history"]);
    }

    #[test]
    fn each_path_of_a_lookup_has_its_own_counts() {
        let meters = Meters::default();
        meters.lookups_us(LookupPath::Fingerprint).observe(3);
        let counts = LookupPath::ALL.map(|path| meters.lookups_us(path).read().count());
        assert_eq!(counts, [1, 0]);
    }
}
