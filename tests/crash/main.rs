//! Nothing lost, nothing doubled: a real server is killed at random moments while events stream in, and what it answers
//! afterwards is compared with what was acknowledged and with the definition of its views.
//!
//! `TIDEMARK_TEST_CRASH_SEED` repeats the decisions of a run (the moments themselves belong to the machine),
//! `TIDEMARK_TEST_CRASH_ROUNDS` makes it longer.

// The seams rule the product; a test may wait, draw a seed and run writers beside each other.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../server/mod.rs"]
mod server;

mod beside;
mod born_late;
mod changes;
mod columns;
mod composed;
mod events;
mod kill;
mod limits;
mod reference;
mod rename;
mod retention;
mod transaction;
mod verify;
mod writers;
