//! `optimize` and `vacuum` of Iceberg history: the same rows and tag in fewer files, and nothing gone that is needed.

use crate::{
    contract_history::{
        DAY, HOUR, NEW_YEAR, assert_same_rows, context, files_below, files_planned, flights, open, scan, steps, tag,
    },
    test_clock::TestClock,
};
use arrow::array::RecordBatch;
use futures::StreamExt;
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tidemark_connectors::iceberg::IcebergHistory;
use tidemark_engine::seam::{
    CommitTag, Effort, Expiry, HistoryPartition, HistoryStore, HistoryTable, Removed, Rewritten, SeamError,
};

/// As the server does it by itself.
const CAREFUL: Effort = Effort { target_bytes: 128 << 20, files_min: 8, doubling: true, bytes_max: u64::MAX };

/// Commits one step of JFK in each of these hours, each by itself.
async fn append_hours(store: &Arc<dyn HistoryStore>, table: &HistoryTable, hours: impl Iterator<Item = i64>) {
    for hour in hours {
        let sequence = store.last_tag(&table.name).await.unwrap().map_or(1, |tag: CommitTag| tag.sequence + 1);
        store.append(table, vec![steps(table, &[("JFK", NEW_YEAR + hour * HOUR)])], &tag(1, sequence)).await.unwrap();
    }
}

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
    // Whatever is old: what a scan of this process may still read stays until nobody does.
    let rows = old.sql("SELECT delay_1h FROM h").await.unwrap().collect().await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 211);
    drop(old);
    let gone = store.vacuum(&table, i64::MAX).await.unwrap();
    assert_eq!((gone.snapshots, gone.files), (0, 70));
    assert_same_rows(&scan(&store, &table).await, &all);
    assert_eq!(files_below(&data, ".parquet").len(), files_planned(&store, &table, "true").await);
    assert_eq!(store.vacuum(&table, i64::MAX).await.unwrap(), Removed::default());
    store.append(&table, vec![], &tag(2, 181)).await.unwrap();
    assert_eq!(store.optimize(&table).await.unwrap().files_after, 1);
    assert_same_rows(&scan(&open(folder.path(), 2).await, &table).await, &all);
}

/// Nessie sets the property for every table, and others may: commits went wrong then.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_which_nothing_may_go_is_committed_to_and_written_together_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
    store.create(&table).await.unwrap();
    append_hours(&store, &table, 0..3).await;
    // As another engine's commit would leave it.
    let newest = files_below(&folder.path().canonicalize().unwrap(), ".metadata.json").pop().unwrap();
    let mut metadata: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&newest).unwrap()).unwrap();
    metadata["properties"]["gc.enabled"] = "false".into();
    std::fs::write(&newest, metadata.to_string()).unwrap();

    append_hours(&store, &table, 3..6).await;
    let before = scan(&store, &table).await;
    assert_eq!(before.num_rows(), 6);
    assert_eq!(store.optimize(&table).await.unwrap().files_after, 1);
    let files = files_below(folder.path(), ".parquet").len();
    assert_eq!(files, 7);
    assert_eq!(store.vacuum(&table, i64::MAX).await.unwrap(), Removed::default());
    assert_eq!(files_below(folder.path(), ".parquet").len(), files);
    assert_same_rows(&scan(&store, &table).await, &before);
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

#[tokio::test(flavor = "multi_thread")]
async fn small_files_wait_until_they_are_many_and_a_large_one_until_they_are_as_large() {
    let folder = tempfile::tempdir().unwrap();
    let (store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
    store.create(&table).await.unwrap();
    let empty = store.survey(&table, &CAREFUL, i64::MAX).await.unwrap();
    assert_eq!((empty.files, empty.manifests, empty.snapshots), (0, 0, 0));
    append_hours(&store, &table, 0..7).await;
    let few = store.survey(&table, &CAREFUL, 0).await.unwrap();
    assert_eq!((few.files, few.small_files, few.manifests, few.snapshots, few.old_snapshots), (7, 0, 7, 7, 0));
    assert_eq!(store.compact(&table, &CAREFUL).await.unwrap(), Rewritten::default());
    append_hours(&store, &table, 7..8).await;
    let many = store.survey(&table, &CAREFUL, i64::MAX).await.unwrap();
    assert_eq!((many.files, many.small_files, many.old_snapshots), (8, 8, 7));
    assert!(many.oldest_us.is_some() && many.bytes > 0, "{many:?}");
    let before = scan(&store, &table).await;
    let done = store.compact(&table, &CAREFUL).await.unwrap();
    assert_eq!((done.files_before, done.files_after, done.bytes_before), (8, 1, many.bytes));
    let after = store.survey(&table, &CAREFUL, 0).await.unwrap();
    assert_eq!((after.files, after.small_files, after.bytes, after.manifests), (1, 0, done.bytes_after, 1));
    assert_same_rows(&scan(&store, &table).await, &before);
    // The file that was made is not taken up again by few small ones: too few, whatever their sizes are.
    append_hours(&store, &table, 8..14).await;
    assert_eq!(store.survey(&table, &CAREFUL, 0).await.unwrap().small_files, 0);
    assert_eq!(store.compact(&table, &CAREFUL).await.unwrap(), Rewritten::default());
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 14)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_ends_a_rewrite_and_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
    store.create(&table).await.unwrap();
    // Eight files in each of two months.
    append_hours(&store, &table, (0..8).flat_map(|hour| [hour, hour + 24 * 40])).await;
    let all = scan(&store, &table).await;
    let little = Effort { bytes_max: 1, ..CAREFUL };
    for left in [9, 2] {
        let done = store.compact(&table, &little).await.unwrap();
        assert_eq!((done.files_before, done.files_after), (8, 1));
        assert_eq!(files_planned(&store, &table, "true").await, left);
        assert_same_rows(&scan(&store, &table).await, &all);
    }
    assert_eq!(store.compact(&table, &Effort { bytes_max: 0, ..CAREFUL }).await.unwrap(), Rewritten::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_by_day_has_a_file_for_each_day_and_is_cared_for_day_by_day() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1).await;
    let table = HistoryTable { partition: HistoryPartition::Day, ..flights("delays", 16400) };
    store.create(&table).await.unwrap();
    for sequence in 1..=3 {
        // The first and the last microsecond of two days, of which one is the last of a year.
        let rows = [-DAY, -1, 0, DAY - 1].map(|at| (["EWR", "JFK", "LGA"][sequence - 1], NEW_YEAR + at));
        store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence as u64)).await.unwrap();
    }
    let all = scan(&store, &table).await;
    assert_eq!((all.num_rows(), files_planned(&store, &table, "true").await), (12, 6));
    let folders = |day: &str| files_below(folder.path(), ".parquet").iter().filter(|file| file.contains(day)).count();
    assert_eq!((folders("/2012-12-31/"), folders("/2013-01-01/")), (3, 3));
    assert_eq!(files_planned(&store, &table, "ts < '2013-01-01'").await, 3);
    assert_eq!(store.optimize(&table).await.unwrap().files_after, 2);
    assert_eq!(files_planned(&store, &table, "ts >= '2013-01-01'").await, 1);
    // What a table is partitioned by it keeps, whatever its view is said to have now.
    let table = HistoryTable { partition: HistoryPartition::Month, ..table };
    let again = open(folder.path(), 2).await;
    again.append(&table, vec![steps(&table, &[("SFO", NEW_YEAR + 2 * DAY)])], &tag(1, 4)).await.unwrap();
    assert_eq!(folders("/2013-01-03/"), 1);
    assert_eq!(scan(&again, &table).await.num_rows(), 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_are_written_together_and_name_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let (store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
    store.create(&table).await.unwrap();
    append_hours(&store, &table, (0..6).map(|month| month * 24 * 31)).await;
    let (before, files) = (scan(&store, &table).await, files_below(folder.path(), ".parquet"));
    let survey = store.survey(&table, &CAREFUL, 0).await.unwrap();
    assert_eq!((survey.manifests, survey.small_manifests), (6, 6));
    let done = store.fold_manifests(&table).await.unwrap();
    assert_eq!((done.manifests_before, done.manifests_after), (6, 1));
    assert_same_rows(&scan(&store, &table).await, &before);
    assert_eq!(files_below(folder.path(), ".parquet"), files);
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 6)));
    assert_eq!(files_planned(&store, &table, "ts < '2013-01-15'").await, 1);
    // Everything goes on as before: appends, rewrites of files that a folded manifest names, the end of snapshots.
    append_hours(&store, &table, 1..3).await;
    assert_eq!(store.optimize(&table).await.unwrap().files_before, 3);
    assert!(store.vacuum(&table, i64::MAX).await.unwrap().snapshots > 5);
    let again = open(folder.path(), 2).await;
    assert_eq!(scan(&again, &table).await.num_rows(), 8);
    assert_eq!(files_below(folder.path(), ".parquet").len(), files_planned(&again, &table, "true").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_has_begun_ends_though_all_that_it_reads_is_replaced_and_expired() {
    let folder = tempfile::tempdir().unwrap();
    let (store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
    store.create(&table).await.unwrap();
    append_hours(&store, &table, 0..40).await;
    let plan = {
        let one = datafusion::prelude::SessionConfig::new().with_target_partitions(1);
        let context = datafusion::prelude::SessionContext::new_with_config(one);
        context.register_table("h", store.provider(&table).await.unwrap()).unwrap();
        context.sql("SELECT ts FROM h").await.unwrap().execute_stream().await.unwrap()
    };
    // Nothing is left but what was planned, and it has read one file or two.
    let mut rows = plan;
    let mut read = rows.next().await.unwrap().unwrap().num_rows();
    assert!(read < 40);
    assert_eq!(store.optimize(&table).await.unwrap().files_after, 1);
    assert!(store.vacuum(&table, i64::MAX).await.unwrap().snapshots > 0);
    assert_eq!(files_below(folder.path(), ".parquet").len(), 41);
    while let Some(batch) = rows.next().await {
        read += batch.unwrap().num_rows();
    }
    assert_eq!(read, 40);
    drop(rows);
    let gone = store.vacuum(&table, i64::MAX).await.unwrap();
    assert_eq!((gone.files, files_below(folder.path(), ".parquet").len()), (40, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_have_an_age_of_their_own_and_what_expires_does_not_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
    store.create(&table).await.unwrap();
    append_hours(&store, &table, 0..8).await;
    let some = files_below(folder.path(), ".parquet").remove(0);
    let orphan = some.replace(".parquet", "-left.parquet");
    std::fs::copy(&some, &orphan).unwrap();
    assert_eq!(store.compact(&table, &CAREFUL).await.unwrap().files_before, 8);
    // What was replaced goes with its snapshots. The orphan might be another engine's that has not committed yet.
    let gone =
        store.expire(&table, &Expiry { snapshots_before_us: i64::MAX, orphans_before_us: Some(0) }).await.unwrap();
    assert!(gone.snapshots == 8 && gone.files >= 16, "{gone:?}");
    assert_eq!(files_below(folder.path(), ".parquet").len(), 2);
    let nothing = Expiry { snapshots_before_us: i64::MAX, orphans_before_us: None };
    assert_eq!(store.expire(&table, &nothing).await.unwrap(), Removed::default());
    assert!(std::path::Path::new(&orphan).exists());
    let all = Expiry { orphans_before_us: Some(i64::MAX), ..nothing };
    assert_eq!(store.expire(&table, &all).await.unwrap().files, 1);
    assert_eq!(scan(&store, &table).await.num_rows(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_care_for_one_table_lose_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let table = flights("delays", 16400);
    let stores = [open(folder.path(), 1).await, open(folder.path(), 2_000_000).await];
    stores[0].create(&table).await.unwrap();
    for round in 0..4 {
        append_hours(&stores[0], &table, round * 8..round * 8 + 8).await;
        let expiry = Expiry { snapshots_before_us: i64::MAX, orphans_before_us: None };
        let care = |store: Arc<dyn HistoryStore>| {
            let table = table.clone();
            async move {
                let done = store.compact(&table, &CAREFUL).await.map(|_| ());
                done.and(store.fold_manifests(&table).await.map(|_| ()))
            }
        };
        let (one, other) = futures::future::join(care(stores[0].clone()), care(stores[1].clone())).await;
        for done in [&one, &other] {
            // Whoever comes second finds its files replaced, or the table moved five times.
            assert!(matches!(done, Ok(()) | Err(SeamError::NotDone(_))), "{done:?}");
        }
        assert!(one.is_ok() || other.is_ok(), "{one:?}, {other:?}");
        stores[1].expire(&table, &expiry).await.unwrap();
    }
    let rows: Vec<_> = (0..32).map(|hour| ("JFK", NEW_YEAR + hour * HOUR)).collect();
    assert_same_rows(&scan(&stores[0], &table).await, &steps(&table, &rows));
    assert_eq!(stores[1].last_tag("delays").await.unwrap(), Some(tag(1, 32)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_commit_takes_long_holds_up_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (slow, other) = (flights("slow", 16400), flights("other", 16401));
    let whole: Arc<OnceLock<Arc<dyn HistoryStore>>> = Arc::default();
    let (inside, beside, begun) = (whole.clone(), other.clone(), AtomicBool::new(false));
    // In the middle of a commit of the one, all that can be done with the other.
    let hook = move || {
        let Some(store) = inside.get() else { return };
        if begun.swap(true, Ordering::Relaxed) {
            return;
        }
        let work = async {
            append_hours(store, &beside, 8..9).await;
            assert_eq!(store.optimize(&beside).await.unwrap().files_before, 9);
            store.fold_manifests(&beside).await.unwrap();
            assert!(store.vacuum(&beside, i64::MAX).await.unwrap().files >= 9);
            assert_eq!(scan(store, &beside).await.num_rows(), 9);
        };
        let work = tokio::time::timeout(Duration::from_secs(120), work);
        let done = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work));
        done.expect("it waits for another table's commit");
    };
    let store = IcebergHistory::open(folder.path(), TestClock::seeded(1)).await.unwrap();
    let store: Arc<dyn HistoryStore> = Arc::new(store.with_files_written(Box::new(hook)));
    store.create(&slow).await.unwrap();
    store.create(&other).await.unwrap();
    append_hours(&store, &other, 0..8).await;
    assert!(whole.set(store.clone()).is_ok());
    append_hours(&store, &slow, 0..1).await;
    assert_eq!((scan(&store, &slow).await.num_rows(), files_planned(&store, &other, "true").await), (1, 1));
}

/// What may happen to a table, in any order.
#[derive(Debug, Clone)]
enum Event {
    /// Steps: airport and hour.
    Append(Vec<(usize, i64)>),
    Compact {
        files_min: usize,
        doubling: bool,
        bytes_max: u64,
    },
    Fold,
    Expire,
    Vacuum,
    /// Another process goes on.
    Reopen,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => prop::collection::vec((0usize..4, 0i64..2000), 1..30).prop_map(Event::Append),
        3 => (2usize..5, any::<bool>(), prop_oneof![Just(1), Just(5000), Just(u64::MAX)])
            .prop_map(|(files_min, doubling, bytes_max)| Event::Compact { files_min, doubling, bytes_max }),
        1 => Just(Event::Fold),
        1 => Just(Event::Expire),
        1 => Just(Event::Vacuum),
        1 => Just(Event::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    #[test]
    fn no_care_changes_a_row_or_the_tag(events in prop::collection::vec(event(), 1..24)) {
        const AIRPORTS: [&str; 4] = ["EWR", "JFK", "LGA", "SFO"];
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (mut store, table) = (open(folder.path(), 1).await, flights("delays", 16400));
            store.create(&table).await.unwrap();
            let (mut rows, mut sequence, mut opened) = (BTreeMap::new(), 0, 1);
            for event in events {
                match event {
                    Event::Append(appended) => {
                        // One row for each key and instant, ever.
                        let new: BTreeMap<_, _> = appended.iter().map(|step| (*step, ())).collect();
                        let new: Vec<_> = new.into_keys().filter(|step| !rows.contains_key(step)).collect();
                        rows.extend(new.iter().map(|step| (*step, ())));
                        let new: Vec<_> =
                            new.iter().map(|(airport, hour)| (AIRPORTS[*airport], NEW_YEAR + hour * HOUR)).collect();
                        sequence += 1;
                        store.append(&table, vec![steps(&table, &new)], &tag(1, sequence)).await.unwrap();
                    }
                    Event::Compact { files_min, doubling, bytes_max } => {
                        let effort = Effort { files_min, doubling, bytes_max, ..CAREFUL };
                        let survey = store.survey(&table, &effort, 0).await.unwrap();
                        let done = store.compact(&table, &effort).await.unwrap();
                        // What is counted is what is done.
                        assert_eq!(survey.small_files > 0, done.files_before > 0, "{survey:?}, {done:?}");
                    }
                    Event::Fold if sequence > 0 && !rows.is_empty() => {
                        store.fold_manifests(&table).await.unwrap();
                    }
                    Event::Expire => {
                        let expiry = Expiry { snapshots_before_us: i64::MAX, orphans_before_us: None };
                        store.expire(&table, &expiry).await.unwrap();
                    }
                    Event::Vacuum => {
                        store.vacuum(&table, i64::MAX).await.unwrap();
                    }
                    Event::Fold => {}
                    Event::Reopen => {
                        opened += 1_000_000;
                        store = open(folder.path(), opened).await;
                    }
                }
                let found = scan(&store, &table).await;
                let expected: Vec<_> =
                    rows.keys().map(|(airport, hour): &(usize, i64)| (AIRPORTS[*airport], NEW_YEAR + hour * HOUR)).collect();
                assert_same_rows(&found, &steps(&table, &expected));
                let last = store.last_tag("delays").await.unwrap();
                assert_eq!(last, (sequence > 0).then(|| tag(1, sequence)));
            }
            store.vacuum(&table, i64::MAX).await.unwrap();
            let files = files_below(folder.path(), ".parquet").len();
            assert_eq!(files, files_planned(&store, &table, "true").await, "no file is left that nothing names");
        });
    }
}
