//! A whole server on a clock that the test moves: what time brings by itself, to the microsecond.
//!
//! Everywhere else tests use `clock = 'event'`, where events are the time. Here the source follows the server's clock,
//! which is what a source does unless it says otherwise.

mod deadline;
mod online;
mod retention;
mod snapshot;
mod system;
mod training;
mod upkeep;
mod warehouse;
pub mod world;
