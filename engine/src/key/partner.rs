//! The row of a joined table beside the events of a key: its versions, of which one counts at an instant.
//!
//! ```text
//! ring      e0   e1            e2     e3
//! partner      v0        v1                 deleted        a cursor counts what it has passed, of both
//! ```

use crate::{cell::Cell, value::Value};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc};

/// By absolute index, oldest first; the front is dropped when no cursor needs it any more.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Partner {
    first: u64,
    versions: VecDeque<Version>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Version {
    effective_us: i64,
    /// The columns that the view reads; `None`: deleted.
    row: Option<Arc<[Value]>>,
}

impl Partner {
    fn end(&self) -> u64 {
        self.first + self.versions.len() as u64
    }

    fn get(&self, index: u64) -> Option<&Version> {
        self.versions.get(index.checked_sub(self.first)? as usize)
    }

    /// When version `next` begins; `i64::MAX`: there is none.
    pub fn time(&self, next: u64) -> i64 {
        self.get(next).map_or(i64::MAX, |version| version.effective_us)
    }

    /// Whether there is a row once the versions before `next` have begun.
    pub fn is_there(&self, next: u64) -> bool {
        next.checked_sub(1).and_then(|last| self.get(last)).is_some_and(|version| version.row.is_some())
    }

    /// A column of that row.
    pub fn cell(&self, next: u64, column: usize) -> Cell<'_> {
        let version = next.checked_sub(1).and_then(|last| self.get(last));
        version.and_then(|version| version.row.as_ref()).map_or(Cell::Null, |row| Cell::of(&row[column]))
    }

    /// The row changes, not before its last change; which version that is. The later of two at one instant counts.
    pub fn change(&mut self, effective_us: i64, row: Option<Arc<[Value]>>) -> u64 {
        if self.versions.back().is_some_and(|last| last.effective_us >= effective_us) {
            self.versions.pop_back();
        }
        self.versions.push_back(Version { effective_us, row });
        self.end() - 1
    }

    /// Forgets what was before version `next` - 1.
    pub fn drop_before(&mut self, next: u64) {
        while self.first + 1 < next && !self.versions.is_empty() {
            self.versions.pop_front();
            self.first += 1;
        }
    }

    /// Whether there is, or will be, a row.
    pub fn is_needed(&self, next: u64) -> bool {
        self.is_there(next) || next < self.end()
    }

    pub fn memory(&self) -> usize {
        let values = self.versions.iter().flat_map(|version| version.row.iter()).flat_map(|row| row.iter());
        self.versions.capacity() * size_of::<Version>()
            + values.map(|value| size_of::<Value>() + value.encoded_len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: i64) -> Option<Arc<[Value]>> {
        Some([Value::Int(value)].into())
    }

    fn shown(partner: &Partner, next: u64) -> Option<Value> {
        partner.is_there(next).then(|| partner.cell(next, 0).to_value())
    }

    #[test]
    fn versions_begin_one_after_the_other_and_of_two_at_once_the_later_counts() {
        let mut partner = Partner::default();
        assert!(!partner.is_needed(0) && partner.time(0) == i64::MAX);
        let changes = [(10, row(1), 0), (20, row(2), 1), (20, row(3), 1), (20, None, 1), (30, row(4), 2)];
        for (effective_us, row, index) in changes {
            assert_eq!(partner.change(effective_us, row), index);
        }
        assert_eq!([0, 1, 2, 3].map(|next| partner.time(next)), [10, 20, 30, i64::MAX]);
        assert_eq!(
            [0, 1, 2, 3].map(|next| shown(&partner, next)),
            [None, Some(Value::Int(1)), None, Some(Value::Int(4))]
        );
        assert!(partner.cell(2, 0).is_null(), "it is deleted");
        assert_eq!([0, 2, 3].map(|next| partner.is_needed(next)), [true; 3]);
    }

    #[test]
    fn the_version_that_counts_is_kept_and_those_before_it_go() {
        let mut partner = Partner::default();
        for value in 1..=4 {
            partner.change(10 * value, row(value));
        }
        for (next, kept) in [(0, 4), (1, 4), (2, 3), (3, 2), (4, 1), (4, 1)] {
            partner.drop_before(next);
            assert_eq!(partner.versions.len(), kept, "{next}");
            assert_eq!(shown(&partner, next), (next > 0).then_some(Value::Int(next as i64)));
        }
        assert_eq!((partner.end(), partner.time(4)), (4, i64::MAX));
        // What is dropped already is no version any more.
        assert_eq!(shown(&partner, 3), None);
        partner.change(50, None);
        assert!(partner.is_needed(4) && !partner.is_needed(5));
    }
}
