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

    /// Prints the table.
    pub fn report(&self) {
        println!(
            "{:<16} {:<22} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "frame", "aggregate", "probes", "peers", "NULL", "late", "expired"
        );
        for (kind, function, cell) in self.legal() {
            println!(
                "{kind:<16} {function:<22} {:>8} {:>8} {:>8} {:>8} {:>8}",
                cell[0], cell[1], cell[2], cell[3], cell[4]
            );
        }
    }

    /// The legal cells that nothing has looked at.
    pub fn empty(&self) -> Vec<String> {
        let cells = self.legal().flat_map(|(kind, function, cell)| {
            let empty = CIRCUMSTANCES.iter().zip(cell.into_iter().skip(1)).filter(|(_, count)| *count == 0);
            empty.map(move |(circumstance, _)| format!("{kind} × {function} × {circumstance}"))
        });
        cells.collect()
    }

    fn legal(&self) -> impl Iterator<Item = (&'static str, &'static str, [usize; 5])> {
        let pairs =
            Frame::KINDS.into_iter().flat_map(|kind| FUNCTIONS.into_iter().map(move |function| (kind, function)));
        pairs.filter(|(kind, function)| is_legal(function, kind)).map(move |(kind, function)| {
            (kind, function, self.cells.get(&(kind, function.to_owned())).copied().unwrap_or_default())
        })
    }
}
