//! The front door: the Postgres wire, sessions, one file per statement, wiring.

pub mod pg;
pub mod system;
pub mod wire;
