//! What clients ask of the catalog, planned and run over a small one: psql's own statements and drivers' questions.

pub mod catalog;
mod clients;
mod own;
mod psql;
mod psql_statements;
