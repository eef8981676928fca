//! The front door: the Postgres wire, sessions, one file per statement, wiring.

mod backend;
pub mod cli;
pub mod client;
mod database;
pub mod demo;
mod errors;
mod feeds;
mod http;
pub mod in_process;
pub mod logging;
mod meters;
mod online;
pub mod pg;
mod places;
pub mod points;
mod prepared;
mod publisher;
mod queries;
pub mod serve;
mod serving;
mod session;
pub mod settings;
mod statement;
mod stats;
pub mod system;
mod warehouse;
pub mod wire;
