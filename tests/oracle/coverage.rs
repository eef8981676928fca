//! What a run has really looked at: probes for each frame kind, aggregate and circumstance.

use crate::generate::{FUNCTIONS, is_legal};
use crate::model::{Frame, View};
use crate::postgres::Expected;
use std::collections::BTreeMap;

/// Peers: equal event times in the frame. NULL: NULL arguments in it. Late: the key lost a row to lateness before the
/// probe. Delete: the key gave up a row of a table before it. Expired: the key's TTL has passed.
const CIRCUMSTANCES: [&str; 5] = ["peers", "NULL", "late", "delete", "expired"];

/// What became of the rows of a probe's key before it, beside what PostgreSQL tells.
#[derive(Clone, Copy)]
pub struct Before {
    pub late: bool,
    pub delete: bool,
}

#[derive(Default)]
pub struct Coverage {
    cells: BTreeMap<(&'static str, String), [usize; 6]>,
    /// Questions that PostgreSQL has answered and a reader was asked.
    pub probes: usize,
    pub comparisons: usize,
}

impl Coverage {
    pub fn count(&mut self, view: &View, expected: &Expected, before: Before) {
        for (output, flags) in view.outputs.iter().zip(&expected.flags) {
            for (call, (peers, nulls)) in output.calls.iter().zip(flags) {
                let cell = self.cells.entry((call.frame.kind(), call.function.clone())).or_default();
                let present = expected.answer.is_some();
                let hits = [true, present && *peers, present && *nulls, before.late, before.delete, expected.expired];
                for (count, hit) in cell.iter_mut().zip(hits) {
                    *count += usize::from(hit);
                }
            }
        }
    }

    /// Adds what another has looked at.
    pub fn merge(&mut self, other: Coverage) {
        self.probes += other.probes;
        self.comparisons += other.comparisons;
        for (at, counts) in other.cells {
            let cell = self.cells.entry(at).or_default();
            cell.iter_mut().zip(counts).for_each(|(count, more)| *count += more);
        }
    }

    /// Prints the table; a cell that cannot be is a dash.
    pub fn report(&self) {
        print!("{:<16} {:<22} {:>8}", "frame", "aggregate", "probes");
        CIRCUMSTANCES.iter().for_each(|name| print!(" {name:>8}"));
        println!();
        for (kind, function, cell) in self.legal() {
            print!("{kind:<16} {function:<22} {:>8}", cell[0]);
            for (circumstance, count) in CIRCUMSTANCES.iter().zip(&cell[1..]) {
                let shown = if can_be(kind, circumstance) { count.to_string() } else { "-".to_owned() };
                print!(" {shown:>8}");
            }
            println!();
        }
    }

    /// The legal cells that nothing has looked at.
    pub fn empty(&self) -> Vec<String> {
        let cells = self.legal().flat_map(|(kind, function, cell)| {
            let counts = CIRCUMSTANCES.iter().zip(cell.into_iter().skip(1));
            let empty = counts.filter(move |(circumstance, count)| *count == 0 && can_be(kind, circumstance));
            empty.map(move |(circumstance, _)| format!("{kind} × {function} × {circumstance}"))
        });
        cells.collect()
    }

    fn legal(&self) -> impl Iterator<Item = (&'static str, &'static str, [usize; 6])> {
        let pairs =
            Frame::KINDS.into_iter().flat_map(|kind| FUNCTIONS.into_iter().map(move |function| (kind, function)));
        pairs.filter(|(kind, function)| is_legal(function, kind)).map(move |(kind, function)| {
            (kind, function, self.cells.get(&(kind, function.to_owned())).copied().unwrap_or_default())
        })
    }
}

/// Windows that begin and end by themselves are over streams only, which give up nothing.
fn can_be(kind: &str, circumstance: &str) -> bool {
    circumstance != "delete" || !matches!(kind, "tumble" | "hop" | "session")
}

#[test]
fn what_nothing_has_looked_at_is_named_unless_it_cannot_be() {
    let empty = Coverage::default().empty();
    assert!(empty.contains(&"rows × sum × delete".to_owned()), "{empty:?}");
    assert!(empty.contains(&"hop × sum × late".to_owned()), "{empty:?}");
    assert!(!empty.contains(&"hop × sum × delete".to_owned()), "{empty:?}");
}
