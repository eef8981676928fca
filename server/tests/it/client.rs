//! The client of `tidemark sql`: how it reads scripts and `\copy`, and that it prints what psql 15 printed.

mod copy_command;
mod recorded;
mod script;
mod target;
