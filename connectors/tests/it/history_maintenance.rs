//! `optimize` and `vacuum` of Iceberg history: the same rows and tag in fewer files, and nothing gone that is needed.

use crate::contract_history::{
    DAY, HOUR, NEW_YEAR, assert_same_rows, context, files_below, files_planned, flights, open, scan, steps, tag,
};
use arrow::array::RecordBatch;
use tidemark_engine::seam::{Removed, Rewritten};

#[tokio::test(flavor = "multi_thread")]
async fn small_files_become_one_per_month_with_the_same_rows_and_what_they_were_goes_when_old_enough() {
    let folder = tempfile::tempdir().unwrap();
    let (store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
    store.create(&table).await.unwrap();
    assert_eq!(store.optimize(&table).await.unwrap(), Rewritten::default());
    assert_eq!(store.vacuum(&table, i64::MAX).await.unwrap().snapshots, 0);
    // More files of a month than are merged at once, and one of another month, which stays as it is.
    for sequence in 1..=70 {
        let rows = ["JFK", "EWR", "LGA"].map(|origin| (origin, NEW_YEAR + (sequence as i64 * 37 % 71) * HOUR));
        store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence)).await.unwrap();
    }
    store.append(&table, vec![steps(&table, &[("EWR", NEW_YEAR - DAY)])], &tag(1, 71)).await.unwrap();
    let (before, old) = (scan(&store, &table).await, context(&store, &table).await);
    assert_eq!(files_planned(&store, &table, "true").await, 71);

    let done = store.optimize(&table).await.unwrap();
    assert_eq!((done.files_before, done.files_after), (70, 1));
    assert!(done.bytes_after < done.bytes_before, "{done:?}");
    assert_eq!(files_planned(&store, &table, "true").await, 2);
    assert_same_rows(&scan(&store, &table).await, &before);
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 71)));
    assert_eq!(files_planned(&store, &table, "ts < '2013-01-01'").await, 1);
    assert_eq!(store.optimize(&table).await.unwrap(), Rewritten::default());

    // Whoever read before goes on reading; nothing is old yet.
    store.vacuum(&table, 0).await.unwrap();
    let rows = old.sql("SELECT delay_1h FROM h").await.unwrap().collect().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 211);
    // Many commits later what was replaced is still held, by the tag that the rewrite has set.
    for sequence in 72..=180 {
        let rows = [("SFO", NEW_YEAR + sequence as i64 * HOUR)];
        store.append(&table, vec![steps(&table, &rows)], &tag(2, sequence)).await.unwrap();
    }
    store.vacuum(&table, 0).await.unwrap();
    let rows = old.sql("SELECT delay_1h FROM h").await.unwrap().collect().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 211);

    // A crash has left files that nothing names.
    let data = folder.path().canonicalize().unwrap().join("public");
    let some = files_below(&data, ".parquet").remove(0);
    std::fs::copy(&some, some.replace(".parquet", "-left.parquet")).unwrap();
    let all = scan(&store, &table).await;
    let gone = store.vacuum(&table, i64::MAX).await.unwrap();
    assert!(gone.snapshots > 90 && gone.files > 71 && gone.bytes > 0, "{gone:?}");
    assert_same_rows(&scan(&store, &table).await, &all);
    assert_eq!(files_below(&data, ".parquet").len(), files_planned(&store, &table, "true").await);
    assert_eq!(store.vacuum(&table, i64::MAX).await.unwrap(), Removed::default());
    store.append(&table, vec![], &tag(2, 181)).await.unwrap();
    assert_eq!(store.optimize(&table).await.unwrap().files_after, 1);
    assert_same_rows(&scan(&open(folder.path(), 2).await, &table).await, &all);
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_and_rewrites_beside_each_other_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
    store.create(&table).await.unwrap();
    let appends = async {
        for sequence in 1..=30 {
            let rows = [("JFK", NEW_YEAR + sequence as i64 * HOUR)];
            store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence)).await.unwrap();
        }
    };
    let rewrites = async {
        for _ in 0..15 {
            store.optimize(&table).await.unwrap();
            store.vacuum(&table, i64::MAX).await.unwrap();
        }
    };
    futures::future::join(appends, rewrites).await;
    let rows: Vec<_> = (1..=30).map(|hour| ("JFK", NEW_YEAR + hour * HOUR)).collect();
    assert_same_rows(&scan(&store, &table).await, &steps(&table, &rows));
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 30)));
}

/// The table's metadata as it would be, had every commit been made so much later.
fn move_times(folder: &std::path::Path, by_ms: i64) {
    let file = files_below(folder, ".metadata.json").pop().unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let later = |time: &mut serde_json::Value| *time = (time.as_i64().unwrap() + by_ms).into();
    later(&mut json["last-updated-ms"]);
    for list in ["snapshots", "snapshot-log", "metadata-log"] {
        json[list].as_array_mut().unwrap().iter_mut().for_each(|entry| later(&mut entry["timestamp-ms"]));
    }
    std::fs::write(&file, json.to_string()).unwrap();
}

/// When each snapshot was made, in the order of the commits, and when the table was changed last; milliseconds.
fn times(folder: &std::path::Path) -> Vec<i64> {
    let file = files_below(folder, ".metadata.json").pop().unwrap();
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let log = json["snapshot-log"].as_array().unwrap().iter();
    log.map(|entry| &entry["timestamp-ms"])
        .chain([&json["last-updated-ms"]])
        .map(|time| time.as_i64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_by_hours_stops_no_commit_and_times_do_not_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
    store.create(&table).await.unwrap();
    store.append(&table, vec![steps(&table, &[("JFK", NEW_YEAR)])], &tag(1, 1)).await.unwrap();
    store.append(&table, vec![steps(&table, &[("EWR", NEW_YEAR)])], &tag(1, 2)).await.unwrap();
    // As if it had been three hours later then than it is now.
    move_times(folder.path(), 3 * 3_600_000);
    let before = times(folder.path());
    for sequence in 3..=6 {
        // Without steps it is another kind of commit.
        let rows = match sequence % 2 {
            0 => vec![],
            _ => vec![steps(&table, &[("LGA", NEW_YEAR + sequence as i64 * HOUR)])],
        };
        store.append(&table, rows, &tag(1, sequence)).await.unwrap();
    }
    assert_eq!(store.optimize(&table).await.unwrap().files_before, 4);
    assert!(store.vacuum(&table, i64::MAX).await.unwrap().snapshots > 0);
    store.append(&table, vec![steps(&table, &[("SFO", NEW_YEAR)])], &tag(1, 7)).await.unwrap();
    let after = times(folder.path());
    assert!(after.is_sorted() && after.first() >= before.last(), "{before:?}, {after:?}");
    let rows = [
        ("EWR", NEW_YEAR),
        ("JFK", NEW_YEAR),
        ("LGA", NEW_YEAR + 3 * HOUR),
        ("LGA", NEW_YEAR + 5 * HOUR),
        ("SFO", NEW_YEAR),
    ];
    assert_same_rows(&scan(&store, &table).await, &steps(&table, &rows));
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 7)));
}
