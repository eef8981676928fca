//! The integration tests of this crate, one binary.

// The seams rule the product; a test may spawn and wait.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../../../tests/broker/mod.rs"]
mod broker;
mod contract_clock;
mod contract_history;
mod contract_kafka;
mod contract_online;
mod contract_redis;
mod contract_source;
mod contract_state;
mod engine_faults;
mod files_iceberg;
mod history_bucket;
mod history_maintenance;
mod history_postgres;
mod history_pruning;
mod history_rest;
mod history_schemas;
#[path = "../../../tests/http_proxy/mod.rs"]
mod http_proxy;
mod kept_tables;
#[path = "../../../tests/postgres_server/mod.rs"]
mod postgres_server;
#[path = "../../../tests/redis_server/mod.rs"]
mod redis_server;
mod redis_serving;
#[path = "../../../tests/rest_catalog/mod.rs"]
mod rest_catalog;
mod restoring;
#[path = "../../../tests/s3_server/mod.rs"]
mod s3_server;
mod several_sources;
mod source_archive;
mod test_clock;

/// A test cannot run for want of a tool or a place: said where it is read, for the test harness would keep it to itself.
/// Under `scripts/test.sh`, which provides all of them, it is a failure.
fn skipped(why: &str) {
    use std::io::Write;
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|set| !set.is_empty());
    // It has said itself what this machine does not allow.
    let allowed = why.contains("TIDEMARK_SMALL_DISK") && is_set("TIDEMARK_TEST_NO_DISK");
    assert!(!is_set("TIDEMARK_TEST_NO_SKIP") || allowed, "this test would be skipped: {why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
