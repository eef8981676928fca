//! The integration tests of this crate, one binary.

// The seams rule the product; a test may spawn and wait.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
mod contract_clock;
mod contract_history;
mod contract_online;
mod contract_source;
mod contract_state;
