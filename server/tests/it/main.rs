//! The server's parts, each from outside.

mod client;
mod pg;
mod settings;
mod system;
