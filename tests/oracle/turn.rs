//! Whose turn it is: what a generated view has to have, so that no cell of the coverage is left to luck.

use crate::generate::{FUNCTIONS, is_legal};
use crate::model::Frame;

/// What views have at least, whatever chance adds: every function over every kind of frame has its turn, and a view some
/// of them, so that no cell of the coverage is left to luck.
#[derive(Clone, Copy)]
pub struct Turn {
    pub n: usize,
    /// Of a case whose turn it is to be a table: those have turns of their own, and no panes.
    pub is_of_changelog: bool,
}

/// Turns of a view, and of one whose windows begin and end by themselves: there are fewer of those.
const TURNS: usize = 7;
const PANE_TURNS: usize = 9;

impl Turn {
    /// Every fourth view is over windows that begin and end by themselves.
    pub fn is_of_panes(self) -> bool {
        !self.is_of_changelog && self.n % 4 == 3
    }

    /// The function and the kind of frame of turn `i`.
    pub fn cell(self, i: usize) -> (&'static str, &'static str) {
        let (view, kinds) = match self.is_of_panes() {
            true => (self.n / 4, &Frame::KINDS[6..]),
            false if self.is_of_changelog => (self.n, &Frame::KINDS[..6]),
            false => (self.n / 4 * 3 + self.n % 4, &Frame::KINDS[..6]),
        };
        match self.is_of_panes() {
            // One kind for all of the view's turns.
            true => (FUNCTIONS[(view / kinds.len() * PANE_TURNS + i) % FUNCTIONS.len()], kinds[view % kinds.len()]),
            false => {
                let n = view * TURNS + i;
                (FUNCTIONS[n % FUNCTIONS.len()], kinds[n / FUNCTIONS.len() % kinds.len()])
            }
        }
    }

    pub fn cells(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let turns = if self.is_of_panes() { PANE_TURNS } else { TURNS };
        (0..turns).map(move |i| self.cell(i)).filter(|(function, kind)| is_legal(function, kind))
    }

    /// For two rounds of all cells in three.
    pub fn has_ttl(self) -> bool {
        self.n * TURNS / (FUNCTIONS.len() * Frame::KINDS.len()) % 3 < 2
    }
}

#[test]
fn every_function_has_its_turn_over_every_kind_of_frame_and_over_tables_too() {
    use std::collections::BTreeSet;
    let met = |is_of_changelog: bool, views: usize| {
        let turns = (0..views).map(move |n| Turn { n, is_of_changelog });
        turns.flat_map(|turn| turn.cells().collect::<Vec<_>>()).collect::<BTreeSet<_>>()
    };
    let legal = |kinds: &[&'static str]| -> BTreeSet<(&'static str, &'static str)> {
        let pairs = kinds.iter().flat_map(|kind| FUNCTIONS.into_iter().map(move |function| (function, *kind)));
        pairs.filter(|(function, kind)| is_legal(function, kind)).collect()
    };
    assert_eq!(met(false, 160), legal(&Frame::KINDS));
    assert_eq!(met(true, 52), legal(&Frame::KINDS[..6]));
}
