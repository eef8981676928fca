//! What it means: keyed windows, steps, frontiers, the pipeline, the `ASOF JOIN` operator, and the seams to the world.

pub mod accumulate;
pub mod admission;
pub mod asof;
pub mod cell;
pub mod compiled;
pub mod current;
pub mod dimension;
pub mod exact;
pub mod key;
pub mod layout;
pub mod meter;
pub mod online;
pub mod parallel;
pub mod progress;
pub mod provider;
pub mod runtime;
pub mod scan;
pub mod seam;
pub mod value;
pub mod view;
pub mod wording;
