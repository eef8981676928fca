//! What a run has really looked at: probes for each frame kind, aggregate and circumstance.

use crate::generate::{FUNCTIONS, is_legal};
use crate::model::{Frame, View};
use crate::postgres::Expected;
use std::collections::BTreeMap;

/// Peers: equal event times in the frame. NULL: NULL arguments in it. Late: the key lost a row to lateness before the
/// probe. Expired: the key's TTL has passed.
const CIRCUMSTANCES: [&str; 4] = ["peers", "NULL", "late", "expired"];

#[derive(Default)]
pub struct Coverage {
    cells: BTreeMap<(&'static str, String), [usize; 5]>,
    pub probes: usize,
    pub comparisons: usize,
}

impl Coverage {
    pub fn count(&mut self, view: &View, expected: &Expected, late: bool) {
        self.probes += 1;
        for (output, flags) in view.outputs.iter().zip(&expected.flags) {
            for (call, (peers, nulls)) in output.calls.iter().zip(flags) {
                let cell = self.cells.entry((call.frame.kind(), call.function.clone())).or_default();
                let present = expected.answer.is_some();
                let hits = [true, present && *peers, present && *nulls, late, expected.expired];
                for (count, hit) in cell.iter_mut().zip(hits) {
                    *count += usize::from(hit);
                }
            }
        }
    }

    /// Prints the table; the legal cells that are empty.
    pub fn report(&self) -> Vec<String> {
        let mut empty = Vec::new();
        println!(
            "{:<16} {:<22} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "frame", "aggregate", "probes", "peers", "NULL", "late", "expired"
        );
        for kind in Frame::KINDS {
            for function in FUNCTIONS.into_iter().filter(|function| is_legal(function, kind)) {
                let cell = self.cells.get(&(kind, function.to_owned())).copied().unwrap_or_default();
                println!(
                    "{kind:<16} {function:<22} {:>8} {:>8} {:>8} {:>8} {:>8}",
                    cell[0], cell[1], cell[2], cell[3], cell[4]
                );
                for (circumstance, count) in CIRCUMSTANCES.iter().zip(&cell[1..]) {
                    if *count == 0 {
                        empty.push(format!("{kind} × {function} × {circumstance}"));
                    }
                }
            }
        }
        empty
    }
}
