//! The front door: the Postgres wire, sessions, one file per statement, wiring.

pub mod cli;
pub mod client;
pub mod demo;
pub mod in_process;
pub mod logging;
pub mod pg;
pub mod serve;
pub mod settings;
pub mod wire;
