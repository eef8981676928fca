//! What it means: keyed windows, steps, frontiers, the pipeline, the `ASOF JOIN` operator, and the seams to the world.

pub mod accumulate;
pub mod exact;
pub mod key;
pub mod seam;
pub mod value;
