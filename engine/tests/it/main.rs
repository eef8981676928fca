//! The engine's integration tests: one binary.

// The seams rule the product; a test may spawn and wait.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod aggregates;
mod asof;
mod cold;
mod simulation;
mod store;
mod versions;
mod windows;
