//! The server's parts, each from outside.

mod pg;
mod system;
