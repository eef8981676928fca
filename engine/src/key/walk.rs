//! What a cursor needs to know: the frames and aggregates it keeps, and what each reader wants of them.

use super::ring::Layout;
use crate::accumulate::Accumulator;
use arrow::datatypes::DataType;
use std::ops::Range;
use tidemark_planner::feature::{Aggregate, FeaturePlan, Frame, Slot};

#[derive(Debug, Clone)]
pub struct Walk {
    pub layout: Layout,
    pub(super) frames: Vec<FrameShape>,
    /// Those of one frame lie together.
    pub(super) folds: Vec<Fold>,
    pub(super) slots: Vec<SlotSource>,
    pub(super) ttl_us: Option<i64>,
}

#[derive(Debug, Clone)]
pub(super) struct FrameShape {
    pub frame: Frame,
    pub folds: Range<usize>,
}

/// One aggregate over one frame.
#[derive(Debug, Clone)]
pub(super) struct Fold {
    pub function: Aggregate,
    /// `None`: `count(*)`.
    pub arg: Option<usize>,
    pub arg_type: Option<DataType>,
    pub filter: Option<usize>,
    pub frame: usize,
    pub ty: DataType,
    pub unbounded: bool,
}

/// Where the value of a slot comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum SlotSource {
    Fold(usize),
    /// The input of the key's latest event.
    Raw(usize),
}

impl Walk {
    pub fn new(plan: &FeaturePlan) -> Walk {
        let mut slots = vec![SlotSource::Raw(0); plan.slots.len()];
        let (mut frames, mut folds) = (vec![], vec![]);
        for (f, frame) in plan.frames.iter().enumerate() {
            let first = folds.len();
            for (s, slot) in plan.slots.iter().enumerate() {
                if let Slot::Aggregate { function, arg, filter, frame: of, ty } = slot
                    && *of == f
                {
                    slots[s] = SlotSource::Fold(folds.len());
                    folds.push(Fold {
                        function: *function,
                        arg: *arg,
                        arg_type: arg.map(|i| plan.inputs[i].ty.clone()),
                        filter: *filter,
                        frame: f,
                        ty: ty.clone(),
                        unbounded: is_unbounded(frame),
                    });
                }
            }
            frames.push(FrameShape { frame: *frame, folds: first..folds.len() });
        }
        for (slot, source) in plan.slots.iter().zip(&mut slots) {
            if let Slot::Raw { input, .. } = slot {
                *source = SlotSource::Raw(*input);
            }
        }
        Walk { layout: Layout::new(&plan.inputs), frames, folds, slots, ttl_us: plan.ttl_us }
    }

    /// How many slots an instant has.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn accumulators(&self) -> Box<[Accumulator]> {
        self.folds.iter().map(Fold::accumulator).collect()
    }
}

impl Fold {
    pub fn accumulator(&self) -> Accumulator {
        Accumulator::new(self.function, self.arg_type.as_ref(), self.unbounded)
    }
}

impl FrameShape {
    pub fn is_unbounded(&self) -> bool {
        is_unbounded(&self.frame)
    }
}

fn is_unbounded(frame: &Frame) -> bool {
    matches!(frame, Frame::Range { start_us: None, .. } | Frame::Rows { start: None, .. })
}
