//! `ASOF JOIN` from SQL text to rows.

mod late;
mod memory;
mod plans;
mod pruning;
mod reference;
mod refusals;
mod service;
mod steps;
mod world;
