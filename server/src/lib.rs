//! see ARCHITECTURE.md

pub mod wire;
