//! What a scan of Iceberg history need not read, and how it says so.

use crate::contract_history::{HOUR, NEW_YEAR, flights, open, steps, tag};
use arrow::{array::AsArray, util::pretty::pretty_format_batches};
use datafusion::prelude::{SessionConfig, SessionContext};
use std::sync::Arc;
use tidemark_engine::seam::{HistoryStore, HistoryTable};

async fn context(store: &Arc<dyn HistoryStore>, table: &HistoryTable) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    context.register_table("h", store.provider(table).await.unwrap()).unwrap();
    context
}

/// What EXPLAIN ANALYZE says of the query.
async fn explained(store: &Arc<dyn HistoryStore>, table: &HistoryTable, filter: &str) -> String {
    let sql = format!("EXPLAIN ANALYZE SELECT ts FROM h WHERE {filter}");
    let rows = context(store, table).await.sql(&sql).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&rows).unwrap().to_string()
}

async fn count(store: &Arc<dyn HistoryStore>, table: &HistoryTable, filter: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM h WHERE {filter}");
    let rows = context(store, table).await.sql(&sql).await.unwrap().collect().await.unwrap();
    rows[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0)
}

/// A commit of so many keys, each with one step; only even numbers.
async fn append_keys(store: &Arc<dyn HistoryStore>, table: &HistoryTable, keys: usize, sequence: u64) {
    let names: Vec<String> = (0..keys).map(|n| format!("user_{:06}", 2 * n)).collect();
    let rows: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), NEW_YEAR + sequence as i64 * HOUR)).collect();
    store.append(table, vec![steps(table, &rows)], &tag(1, sequence)).await.unwrap();
}

/// Of twenty keys that are not there, for how many the plan says so; a filter errs for one in a hundred.
async fn pruned(store: &Arc<dyn HistoryStore>, table: &HistoryTable, said: &str) -> usize {
    let mut times = 0;
    for n in 0..20 {
        let filter = format!("origin = 'user_{:06}'", 88 * n + 1);
        times += usize::from(explained(store, table, &filter).await.contains(said));
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_the_key_is_known_by_its_bloom_filter_where_bounds_do_not_tell() {
    let folder = tempfile::tempdir().unwrap();
    let (store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
    store.create(&table).await.unwrap();
    append_keys(&store, &table, 20_000, 1).await;
    append_keys(&store, &table, 20_000, 2).await;
    // A small one has no filter: its column is one page, read at once.
    append_keys(&store, &table, 1_000, 3).await;
    let text = explained(&store, &table, "origin = 'user_000777'").await;
    assert!(text.contains("history_files=3") && text.contains("history_files_pruned_by_bounds=0"), "{text}");
    assert!(pruned(&store, &table, "row_groups_pruned_bloom_filter=3 total → 1 matched").await >= 15, "{text}");
    assert_eq!(count(&store, &table, "origin = 'user_000777'").await, 0);
    // What is there is found, whatever filters say: they never say no in vain.
    for n in (0..20_000).step_by(1_999) {
        let filter = format!("origin = 'user_{:06}'", 2 * n);
        assert_eq!(count(&store, &table, &filter).await, if n < 1_000 { 3 } else { 2 }, "{filter}");
    }
    // Outside of all bounds no file is opened at all; inside those of one, one is.
    assert!(!explained(&store, &table, "origin = 'zebra'").await.contains("parquet"));
    assert!(explained(&store, &table, "origin = 'user_030001'").await.contains("history_files_pruned_by_bounds=1"));
    // Written together they have a filter of all their keys.
    assert_eq!(store.optimize(&table).await.unwrap().files_after, 1);
    assert!(pruned(&store, &table, "row_groups_pruned_bloom_filter=1 total → 0 matched").await >= 15);
    assert_eq!(count(&store, &table, "origin = 'user_000778'").await, 3);
}
