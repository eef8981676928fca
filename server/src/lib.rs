//! see ARCHITECTURE.md

pub mod pg;
