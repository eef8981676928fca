//! The outside world behind the engine's seams: the embedded log and stores, the Iceberg history, and the real clock.

pub mod clock;
mod column;
mod csv;
pub mod files;
mod fjall_db;
mod format;
pub mod iceberg;
pub mod json;
pub mod kafka;
pub mod lock;
pub mod log;
pub mod online;
pub mod redis;
pub mod state;
