//! `ASOF JOIN` from SQL text to rows.

mod plans;
mod reference;
mod refusals;
mod steps;
mod world;
