//! Tables that are replaced as a whole: what is in them after every commit, who reads what was there before, and whose they are.

use crate::{
    contract_history::{NEW_YEAR, flights, instant, steps, tag},
    test_clock::TestClock,
};
use arrow::{
    array::*,
    datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, Schema},
};
use datafusion::{
    error::DataFusionError,
    physical_plan::{SendableRecordBatchStream, stream::RecordBatchStreamAdapter},
    prelude::SessionContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};
use tidemark_catalog::{ObjectId, SqlType};
use tidemark_connectors::{
    files::{IcebergTable, iceberg_table},
    iceberg::IcebergHistory,
};
use tidemark_engine::seam::{HistoryStore, KeptTable, SeamError};

const SET: ObjectId = ObjectId(16_500);

fn labels(name: &str, computation: u32) -> KeptTable {
    let fields = vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ts", SqlType::TimestampTz.arrow(), true),
        Field::new("share", DataType::Float64, true),
        Field::new("small", DataType::Int16, true),
        Field::new("waited", DataType::Interval(IntervalUnit::MonthDayNano), true),
    ];
    let comments = ["the label", "", "", "", ""].map(String::from).to_vec();
    let properties = BTreeMap::from([("tidemark.rows".to_string(), computation.to_string())]);
    let (name, computation) = (name.to_string(), ObjectId(computation));
    KeptTable { id: SET, name, schema: Arc::new(Schema::new(fields)), comments, computation, properties }
}

fn rows(table: &KeptTable, ids: std::ops::Range<i64>) -> RecordBatch {
    let count = ids.clone().count();
    let times = TimestampMicrosecondArray::from_iter_values(ids.clone().map(|id| NEW_YEAR + id));
    let waited = IntervalMonthDayNano::new(1, 2, 3_500_000_000);
    let shares = ids.clone().map(|id| match id % 3 {
        0 => None,
        1 => Some(f64::NAN),
        _ => Some(id as f64 / 2.0),
    });
    RecordBatch::try_new(
        table.schema.clone(),
        vec![
            Arc::new(Int64Array::from_iter_values(ids)),
            Arc::new(times.with_timezone("+00:00")),
            Arc::new(Float64Array::from_iter(shares)),
            Arc::new(Int16Array::from(vec![7; count])),
            Arc::new(IntervalMonthDayNanoArray::from(vec![waited; count])),
        ],
    )
    .unwrap()
}

fn stream(table: &KeptTable, batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let batches = futures::stream::iter(batches.into_iter().map(Ok::<_, DataFusionError>));
    Box::pin(RecordBatchStreamAdapter::new(table.schema.clone(), batches))
}

/// Batches of the ids from one to before another.
async fn keep(store: &IcebergHistory, table: &KeptTable, ids: &[(i64, i64)]) -> Result<(), SeamError> {
    let batches = ids.iter().map(|(from, to)| rows(table, *from..*to)).collect();
    store.keep(table, stream(table, batches)).await
}

async fn metadata_file(store: &IcebergHistory, name: &str) -> Option<PathBuf> {
    let location = store.metadata_file(name).await.unwrap()?;
    Some(PathBuf::from(location.strip_prefix("file://").expect("a local file")))
}

/// The ids that an Iceberg table has, as our reader of others' tables sees it.
async fn ids(metadata: &Path) -> Vec<i64> {
    let columns = iceberg_table::infer(metadata).await.unwrap();
    let context = SessionContext::new();
    context.register_table("t", Arc::new(IcebergTable::new(metadata.to_path_buf(), columns))).unwrap();
    let batches = context.sql("SELECT id FROM t ORDER BY id").await.unwrap().collect().await.unwrap();
    let ids = batches.iter().flat_map(|batch| {
        batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().iter().flatten().collect::<Vec<_>>()
    });
    ids.collect()
}

async fn open(folder: &Path) -> IcebergHistory {
    IcebergHistory::open(folder, TestClock::seeded(1)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_are_replaced_whole_and_those_before_stay_for_who_reads_them() {
    let root = tempfile::tempdir().unwrap();
    let store = open(&root.path().canonicalize().unwrap().join("warehouse")).await;
    let first = labels("labels", 1);
    assert!(!store.is_kept(&first).await.unwrap());
    keep(&store, &first, &[(0, 3), (3, 5)]).await.unwrap();
    assert!(store.is_kept(&first).await.unwrap());
    let before = metadata_file(&store, "labels").await.unwrap();
    let snapshot = store.snapshot_id("labels").await.unwrap();
    assert_eq!((ids(&before).await, snapshot.is_some()), ((0..5).collect(), true));

    let second = labels("labels", 2);
    assert!(!store.is_kept(&second).await.unwrap());
    keep(&store, &second, &[(10, 12)]).await.unwrap();
    assert!(store.is_kept(&second).await.unwrap() && !store.is_kept(&first).await.unwrap());
    assert_eq!(ids(&metadata_file(&store, "labels").await.unwrap()).await, [10, 11]);
    assert_eq!(ids(&before).await, [0, 1, 2, 3, 4], "who had looked it up before");
    assert_ne!(store.snapshot_id("labels").await.unwrap(), snapshot);
    let metadata = std::fs::read_to_string(metadata_file(&store, "labels").await.unwrap()).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let newest = metadata["snapshots"].as_array().unwrap().iter().max_by_key(|s| s["sequence-number"].as_i64());
    let summary = &newest.unwrap()["summary"];
    for (name, value) in [
        ("operation", "overwrite"),
        ("total-records", "2"),
        ("deleted-records", "5"),
        ("tidemark.rows", "2"),
        ("tidemark.computation", "2"),
    ] {
        assert_eq!(summary[name], value, "{summary}");
    }
    assert_eq!(metadata["properties"]["tidemark.rows"], "2");

    // None at all, and then some again.
    keep(&store, &labels("labels", 3), &[]).await.unwrap();
    assert!(ids(&metadata_file(&store, "labels").await.unwrap()).await.is_empty());
    keep(&store, &labels("labels", 4), &[(7, 8)]).await.unwrap();
    assert_eq!(ids(&metadata_file(&store, "labels").await.unwrap()).await, [7]);

    // A computation that fails half-way changes nothing, and leaves no file.
    let files = || std::fs::read_dir(before.parent().unwrap().with_file_name("data")).unwrap().count();
    let there = files();
    let failing = labels("labels", 5);
    let broken = Err(DataFusionError::Execution("no more rows".to_string()));
    let batches = futures::stream::iter([Ok(rows(&failing, 0..9)), broken]);
    let broken = Box::pin(RecordBatchStreamAdapter::new(failing.schema.clone(), batches));
    let error = store.keep(&failing, broken).await.unwrap_err();
    assert!(matches!(&error, SeamError::NotDone(text) if text.contains("no more rows")), "{error}");
    assert_eq!((files(), ids(&metadata_file(&store, "labels").await.unwrap()).await), (there, vec![7]));

    // Other columns.
    let mut other = labels("labels", 6);
    other.schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, true)]));
    other.comments = vec![String::new()];
    let batch = RecordBatch::try_new(other.schema.clone(), vec![Arc::new(Int32Array::from(vec![1, 2]))]).unwrap();
    assert!(!store.is_kept(&other).await.unwrap());
    store.keep(&other, stream(&other, vec![batch])).await.unwrap();
    let found = iceberg_table::infer(&metadata_file(&store, "labels").await.unwrap()).await.unwrap();
    assert_eq!(
        found.iter().map(|c| (c.name.as_str(), c.ty.to_string())).collect::<Vec<_>>(),
        [("id", "integer".to_string())]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_called_as_its_set_and_goes_with_it_and_no_other_takes_its_place() {
    let root = tempfile::tempdir().unwrap();
    let warehouse = root.path().canonicalize().unwrap().join("warehouse");
    let store = open(&warehouse).await;
    keep(&store, &labels("labels", 1), &[(0, 3)]).await.unwrap();
    let folder = metadata_file(&store, "labels").await.unwrap().ancestors().nth(2).unwrap().to_path_buf();
    // A set that was renamed, into another schema.
    let renamed = labels("marts.train", 1);
    assert!(store.is_kept(&renamed).await.unwrap());
    assert_eq!(metadata_file(&store, "labels").await, None);
    assert_eq!(ids(&metadata_file(&store, "marts.train").await.unwrap()).await, [0, 1, 2]);

    // History's rows are nowhere else.
    let view = flights("delays", 16_400);
    store.create(&view).await.unwrap();
    store.append(&view, vec![steps(&view, &[("JFK", NEW_YEAR)])], &tag(1, 1)).await.unwrap();
    let error = keep(&store, &labels("delays", 2), &[(0, 1)]).await.unwrap_err();
    assert!(matches!(&error, SeamError::NotDone(text) if text.contains("no training set's")), "{error}");
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 1)));

    // A view that has failed is looked for under the name that it had, which is another's by now.
    store.create(&flights("elsewhere", 16_401)).await.unwrap();
    store.forget(ObjectId(16_401), "delays").await.unwrap();
    assert_eq!(metadata_file(&store, "elsewhere").await, None);
    assert_eq!(store.last_tag("delays").await.unwrap(), Some(tag(1, 1)));

    // Of another set, or of none that there is.
    store.forget(ObjectId(1), "marts.train").await.unwrap();
    store.forget(ObjectId(1), "nothing").await.unwrap();
    store.retain(&BTreeSet::from([SET, view.view])).await.unwrap();
    assert!(store.is_kept(&renamed).await.unwrap() && folder.exists());
    // Another set has taken its name, and gives it back: a transaction that was taken back. Each has its own rows.
    let other = |name: &str| KeptTable { id: ObjectId(16_501), ..labels(name, 9) };
    keep(&store, &other("marts.own"), &[(5, 6)]).await.unwrap();
    assert!(store.is_kept(&other("marts.train")).await.unwrap());
    assert_eq!(ids(&metadata_file(&store, "marts.train").await.unwrap()).await, [5]);
    assert!(store.is_kept(&renamed).await.unwrap() && store.is_kept(&other("marts.own")).await.unwrap());
    assert_eq!(ids(&metadata_file(&store, "marts.train").await.unwrap()).await, [0, 1, 2]);
    assert_eq!(ids(&metadata_file(&store, "marts.own").await.unwrap()).await, [5]);
    // Whatever it is called.
    store.forget(other("").id, "marts.train").await.unwrap();
    assert!(metadata_file(&store, "marts.own").await.is_none() && store.is_kept(&renamed).await.unwrap());
    store.forget(SET, "marts.train").await.unwrap();
    assert!(metadata_file(&store, "marts.train").await.is_none() && !folder.exists());
    // What a crash has left of a drop goes with the next start.
    keep(&store, &renamed, &[(0, 3)]).await.unwrap();
    store.retain(&BTreeSet::from([view.view])).await.unwrap();
    assert_eq!(metadata_file(&store, "marts.train").await, None);
    assert!(store.last_tag("delays").await.unwrap().is_some());
}

/// Needs `TIDEMARK_LAKE_PYTHON`: a Python with `tests/python/requirements-lake.txt` installed.
#[tokio::test(flavor = "multi_thread")]
async fn pyiceberg_and_duckdb_read_the_rows_of_the_last_computation() {
    let Ok(python) = std::env::var("TIDEMARK_LAKE_PYTHON") else {
        return crate::skipped("TIDEMARK_LAKE_PYTHON is not set");
    };
    let root = tempfile::tempdir().unwrap();
    let warehouse = root.path().join("warehouse");
    let store = open(&warehouse).await;
    keep(&store, &labels("labels", 1), &[(0, 9)]).await.unwrap();
    let table = labels("labels", 2);
    keep(&store, &table, &[(0, 2), (2, 6)]).await.unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/read_history.py");
    let arguments = ["labels", "id", "ts"];
    let output = std::process::Command::new(&python).arg(&script).arg(&warehouse).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let share = |id: i64| match id % 3 {
        0 => String::new(),
        1 => "nan".to_string(),
        _ => format!("{:?}", id as f64 / 2.0),
    };
    let line = |id: i64| format!("{id},{},{},7,1 mons 2 days 3.500000000 secs\n", instant(NEW_YEAR + id), share(id));
    let expected = "id,ts,share,small,waited\n".to_string() + &(0..6).map(line).collect::<String>();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
