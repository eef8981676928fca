//! What it means: keyed windows, steps, frontiers, the pipeline, the `ASOF JOIN` operator, and the seams to the world.

pub mod exact;
pub mod seam;
pub mod value;
