//! `ASOF JOIN` from SQL text to rows.

mod plans;
mod reference;
mod refusals;
mod service;
mod steps;
mod world;
