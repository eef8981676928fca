//! `tidemark sql`: a small psql, for machines that have none and for tests that compare what it prints.
//!
//! ```text
//! script    text to statements and backslash commands    copy_command  \copy
//! run       one item after another, and what is printed  table         rows as psql's aligned tables
//! wire      the protocol, from the client's side         report        errors and notices
//! target    postgres://…
//! ```
//!
//! What it prints depends only on the script and the answers: the same in, the same out.

pub mod copy_command;
pub mod report;
mod run;
pub mod script;
pub mod table;
mod target;
mod wire;

pub use run::{Output, Runner, Stopped};
pub use target::Target;
pub use wire::{ClientError, Connection, Reply};
