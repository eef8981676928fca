//! What it means: keyed windows, steps, frontiers, the pipeline, the `ASOF JOIN` operator, and the seams to the world.

pub mod asof;
pub mod scan;
pub mod seam;
