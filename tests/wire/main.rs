//! Real clients at a real server: tokio-postgres in binary, COPY in all its formats, cancellation, 500 connections, psql, drivers of Python,
//! Node, Go and Java, passwords and TLS, what 35 clients were recorded to send, and bytes that nobody should.

// The seams rule the product; a test may wait for a server and run clients beside each other.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../server/mod.rs"]
mod server;

mod arrow;
mod binary;
mod cancel;
mod captures;
mod changes;
mod clients;
mod copy;
mod cursors;
mod dbt;
mod deprecated;
mod fingerprint;
mod hostile;
mod idle;
mod lake;
mod locked;
mod many;
mod names;
mod notify;
mod parameters;
mod process;
mod progress;
mod psql;
mod python;
mod soak;
