//! The server's parts, each from outside.

// The seams rule the product; a test may spawn and wait.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod auth;
mod client;
mod clock;
mod front;
mod metrics;
mod pg;
mod restore;
mod settings;
mod system;
