//! What a cursor needs to know: the frames and aggregates it keeps, and what each reader wants of them.

use super::ring::Layout;
use crate::accumulate::{Accumulator, Function};
use std::ops::Range;
use tidemark_planner::feature::{FeaturePlan, Frame, Pane, Slot};

#[derive(Debug, Clone)]
pub struct Walk {
    pub layout: Layout,
    pub(super) frames: Vec<FrameShape>,
    /// Those of one frame lie together.
    pub(super) folds: Vec<Fold>,
    pub(super) slots: Vec<SlotSource>,
    pub(super) ttl_us: Option<i64>,
    /// Events leave on this grid; 1: exactly.
    pub(super) slide_us: i64,
    /// The windows that the one frame is the last of that is over.
    pub(super) pane: Option<Pane>,
    /// The events are versions of a changelog's rows (`versions.rs`).
    pub versions: bool,
    /// Without a row of the joined table the key is not shown.
    pub(super) needs_partner: bool,
    /// Several views read it, each some of its columns: when which of them last changed is kept too.
    pub tracks: bool,
}

#[derive(Debug, Clone)]
pub(super) struct FrameShape {
    pub frame: Frame,
    pub folds: Range<usize>,
    /// Its events never leave it one by one.
    pub unbounded: bool,
}

/// One aggregate over one frame.
#[derive(Debug, Clone)]
pub(super) struct Fold {
    pub of: Function,
    /// `None`: `count(*)`.
    pub arg: Option<usize>,
    pub other: Option<usize>,
    pub filter: Option<usize>,
    pub frame: usize,
}

/// Where the value of a slot comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum SlotSource {
    Fold(usize),
    /// The input of the key's latest event.
    Raw(usize),
    /// A column of the joined table's row.
    Partner(usize),
    /// Where the shown window begins or ends.
    Bound {
        end: bool,
    },
}

impl Walk {
    pub fn new(plan: &FeaturePlan) -> Walk {
        let mut slots = vec![SlotSource::Raw(0); plan.slots.len()];
        let (mut frames, mut folds) = (vec![], vec![]);
        for (f, frame) in plan.frames.iter().enumerate() {
            let first = folds.len();
            let unbounded = frame.is_unbounded() && !plan.versions;
            for (s, slot) in plan.slots.iter().enumerate() {
                if let Slot::Aggregate(call) = slot
                    && call.frame == f
                {
                    slots[s] = SlotSource::Fold(folds.len());
                    let of = Function {
                        function: call.function,
                        parameter: call.parameter.clone(),
                        arg: call.arg.map(|i| plan.inputs[i].ty.clone()),
                        ty: call.ty.clone(),
                        unbounded,
                        any_order: plan.versions,
                    };
                    folds.push(Fold { of, arg: call.arg, other: call.other, filter: call.filter, frame: f });
                }
            }
            frames.push(FrameShape { frame: *frame, folds: first..folds.len(), unbounded });
        }
        for (slot, source) in plan.slots.iter().zip(&mut slots) {
            match slot {
                Slot::Raw { input, .. } => *source = SlotSource::Raw(*input),
                Slot::Beside { column, .. } => *source = SlotSource::Partner(*column),
                Slot::Bound { end, .. } => *source = SlotSource::Bound { end: *end },
                Slot::Aggregate(_) => {}
            }
        }
        Walk {
            layout: Layout::new(&plan.inputs, plan.versions),
            frames,
            folds,
            slots,
            ttl_us: plan.ttl_us,
            slide_us: plan.slide_us.unwrap_or(1),
            pane: plan.pane(),
            versions: plan.versions,
            needs_partner: plan.beside.as_ref().is_some_and(|beside| !beside.is_left),
            tracks: false,
        }
    }

    /// How many slots an instant has.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// The first instant at or after `at_us` at which events may leave.
    pub(super) fn on_grid(&self, at_us: i64) -> i64 {
        match self.slide_us {
            1 => at_us,
            slide_us => at_us.saturating_add((-at_us).rem_euclid(slide_us)),
        }
    }

    pub(super) fn accumulators(&self) -> Box<[Accumulator]> {
        self.folds.iter().map(|fold| fold.of.accumulator()).collect()
    }
}
