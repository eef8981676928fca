//! The outside world behind the engine's seams: the embedded log and stores, and the real clock.

pub mod clock;
mod fjall_db;
pub mod lock;
pub mod log;
pub mod online;
pub mod state;
