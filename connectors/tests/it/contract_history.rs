//! The contract of `HistoryStore`: what every implementation promises, and beside it what only Iceberg has (files,
//! months, pruning).

use crate::test_clock::TestClock;
use arrow::{
    array::*,
    compute::{concat_batches, lexsort_to_indices, take_record_batch},
    datatypes::{DataType, Field, IntervalMonthDayNano, IntervalUnit, Schema, TimeUnit},
    util::pretty::pretty_format_batches,
};
use datafusion::{physical_plan::displayable, prelude::SessionContext};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tidemark_catalog::{ObjectId, SqlType};
use tidemark_connectors::iceberg::IcebergHistory;
use tidemark_engine::seam::{CommitTag, HistoryPartition, HistoryStore, HistoryTable, Positions, SeamError};

pub const HOUR: i64 = 3_600_000_000;
pub const DAY: i64 = 24 * HOUR;
/// 2013-01-01T00:00:00Z.
pub const NEW_YEAR: i64 = 1_356_998_400_000_000;

pub fn flights(name: &str, view: u32) -> HistoryTable {
    let time = SqlType::TimestampTz.arrow();
    let fields = vec![
        Field::new("origin", DataType::Utf8, false),
        Field::new("ts", time.clone(), false),
        Field::new("delay_1h", DataType::Float64, true),
        Field::new("departures_1h", DataType::Int64, true),
        Field::new("_op", DataType::Utf8, false),
        Field::new("_event_time", time.clone(), true),
        Field::new("_recorded_at", time, false),
    ];
    let comments = ["airport", "", "mean delay, minutes", "", "", "", ""].map(String::from).to_vec();
    let schema = Arc::new(Schema::new(fields));
    let partition = HistoryPartition::Month;
    HistoryTable { view: ObjectId(view), name: name.to_string(), schema, key: vec![0], time: 1, comments, partition }
}

/// One step per (origin, instant); the delay is a function of both.
pub fn steps(table: &HistoryTable, rows: &[(&str, i64)]) -> RecordBatch {
    let instants = || rows.iter().map(|(_, ts)| *ts);
    let time = |values: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(values).with_timezone("+00:00")) as ArrayRef;
    RecordBatch::try_new(
        table.schema.clone(),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|(origin, _)| *origin))),
            time(instants().collect()),
            Arc::new(Float64Array::from_iter(instants().map(|ts| (ts % (5 * HOUR) != 0).then_some(ts as f64 / 2.0)))),
            Arc::new(Int64Array::from_iter_values(instants().map(|ts| ts / HOUR))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "upsert"))),
            time(instants().collect()),
            time(instants().map(|ts| ts + 1).collect()),
        ],
    )
    .unwrap()
}

pub fn tag(epoch: u64, sequence: u64) -> CommitTag {
    let mut positions = Positions::default();
    positions.set(0, sequence * 10);
    positions.set(3, u64::MAX - sequence);
    CommitTag { frontier_us: NEW_YEAR + sequence as i64, positions, view_version: 1, writer_epoch: epoch, sequence }
}

pub async fn context(store: &Arc<dyn HistoryStore>, table: &HistoryTable) -> SessionContext {
    let context = SessionContext::new();
    context.register_table("h", store.provider(table).await.unwrap()).unwrap();
    context
}

async fn query(store: &Arc<dyn HistoryStore>, table: &HistoryTable, sql: &str) -> RecordBatch {
    let frame = context(store, table).await.sql(sql).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.unwrap();
    concat_batches(&schema, &batches).unwrap()
}

/// All rows, by (key, time); their schema is the declared one.
pub async fn scan(store: &Arc<dyn HistoryStore>, table: &HistoryTable) -> RecordBatch {
    let rows = query(store, table, "SELECT * FROM h").await;
    assert_eq!(rows.schema().fields(), table.schema.fields());
    by_key_and_time(table, &rows)
}

fn by_key_and_time(table: &HistoryTable, rows: &RecordBatch) -> RecordBatch {
    let sort: Vec<_> = table.key.iter().chain([&table.time]).map(|&i| rows.column(i).clone()).collect();
    let sort: Vec<_> = sort.into_iter().map(|values| arrow::compute::SortColumn { values, options: None }).collect();
    take_record_batch(rows, &lexsort_to_indices(&sort, None).unwrap()).unwrap()
}

pub fn assert_same_rows(left: &RecordBatch, right: &RecordBatch) {
    let text = |rows: &RecordBatch| pretty_format_batches(std::slice::from_ref(rows)).unwrap().to_string();
    assert_eq!(left.columns(), right.columns(), "\n{}\n{}", text(left), text(right));
}

/// Files that a query would open.
pub async fn files_planned(store: &Arc<dyn HistoryStore>, table: &HistoryTable, filter: &str) -> usize {
    let frame = context(store, table).await.sql(&format!("SELECT * FROM h WHERE {filter}")).await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    displayable(plan.as_ref()).indent(true).to_string().matches(".parquet").count()
}

pub fn files_below(folder: &Path, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files_below(&entry.path(), ending)),
            false => found.extend(entry.path().to_str().filter(|path| path.ends_with(ending)).map(String::from)),
        }
    }
    found.sort();
    found
}

fn not_done(error: SeamError, part: &str) {
    assert!(matches!(&error, SeamError::NotDone(text) if text.contains(part)), "{error:?} should say {part:?}");
}

/// What every implementation promises. `reopen` opens the same store again, as another process would.
pub async fn contract<F>(reopen: impl Fn() -> F)
where
    F: Future<Output = Arc<dyn HistoryStore>>,
{
    let store = reopen().await;
    let table = flights("airport_delays", 16400);

    // A table that is not there.
    not_done(store.last_tag("airport_delays").await.unwrap_err(), "\"airport_delays\" does not exist");
    not_done(store.append(&table, vec![], &tag(1, 1)).await.unwrap_err(), "does not exist");
    not_done(store.rename("airport_delays", "other").await.unwrap_err(), "does not exist");
    store.as_ref().drop("airport_delays").await.unwrap();

    // An empty one; taken up by a start it is the same.
    store.create(&table).await.unwrap();
    assert_eq!(store.last_tag("airport_delays").await.unwrap(), None);
    assert_eq!(store.take_up(&table).await.unwrap(), None);
    assert_eq!(scan(&store, &table).await.num_rows(), 0);

    // Steps in any order and in several batches are all there, once, as given.
    let first = steps(&table, &[("LGA", NEW_YEAR + HOUR), ("EWR", NEW_YEAR + 2 * HOUR), ("EWR", NEW_YEAR - DAY)]);
    let second = steps(&table, &[("EWR", NEW_YEAR + 40 * DAY), ("JFK", NEW_YEAR)]);
    store.append(&table, vec![first.clone(), second.clone()], &tag(1, 1)).await.unwrap();
    let given = by_key_and_time(&table, &concat_batches(&table.schema, [&first, &second]).unwrap());
    assert_same_rows(&scan(&store, &table).await, &given);
    assert_eq!(store.last_tag("airport_delays").await.unwrap(), Some(tag(1, 1)));

    // A provider is the table as of its commit, whatever happens later.
    let before = context(&store, &table).await;
    // No steps: the tag moves alone.
    store.append(&table, vec![], &tag(1, 2)).await.unwrap();
    store.append(&table, vec![RecordBatch::new_empty(table.schema.clone())], &tag(1, 3)).await.unwrap();
    assert_eq!(store.last_tag("airport_delays").await.unwrap(), Some(tag(1, 3)));
    assert_same_rows(&scan(&store, &table).await, &given);
    store.append(&table, vec![steps(&table, &[("JFK", NEW_YEAR + DAY)])], &tag(1, 4)).await.unwrap();
    let count = before.sql("SELECT delay_1h FROM h").await.unwrap().collect().await.unwrap();
    assert_eq!(count.iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
    assert_eq!(scan(&store, &table).await.num_rows(), 6);

    // Filters and projections see the same rows as a scan.
    let filtered = query(
        &store,
        &table,
        "SELECT departures_1h, origin FROM h WHERE origin IN ('EWR', 'JFK') AND ts >= '2013-01-01' AND delay_1h > 0",
    )
    .await;
    let all = scan(&store, &table).await;
    let expected = (0..all.num_rows()).filter(|&row| {
        let delay = all["delay_1h"].as_primitive::<arrow::datatypes::Float64Type>();
        let ts = all["ts"].as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        all["origin"].as_string::<i32>().value(row) != "LGA" && ts.value(row) >= NEW_YEAR && delay.is_valid(row)
    });
    assert_eq!(filtered.num_rows(), expected.count());
    assert_eq!(filtered.num_columns(), 2);
    let count = query(&store, &table, "SELECT count(*), max(origin), min(ts) FROM h").await;
    assert_eq!(count.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0), 6);
    assert_eq!(count.column(1).as_string::<i32>().value(0), "LGA");

    // A newer writer fences the older one; a commit made before is refused: nothing changes.
    store.append(&table, vec![], &tag(7, 5)).await.unwrap();
    let late = vec![steps(&table, &[("LGA", NEW_YEAR + 3 * DAY)])];
    not_done(store.append(&table, late.clone(), &tag(6, 6)).await.unwrap_err(), "epoch 6 is fenced by epoch 7");
    not_done(store.append(&table, late.clone(), &tag(7, 5)).await.unwrap_err(), "commit 5 is not after commit 5");
    assert_eq!(store.last_tag("airport_delays").await.unwrap(), Some(tag(7, 5)));
    assert_eq!(scan(&store, &table).await.num_rows(), 6);

    // Creating it again changes nothing; another process sees and continues it.
    store.create(&table).await.unwrap();
    let other = reopen().await;
    assert_eq!(other.last_tag("airport_delays").await.unwrap(), Some(tag(7, 5)));
    assert_eq!(other.take_up(&table).await.unwrap(), Some(tag(7, 5)));
    other.append(&table, late, &tag(8, 6)).await.unwrap();
    not_done(store.append(&table, vec![], &tag(7, 7)).await.unwrap_err(), "fenced");
    assert_eq!(scan(&store, &table).await.num_rows(), 7);
    assert_same_rows(&scan(&store, &table).await, &scan(&other, &table).await);

    // A steps batch that lacks a column is refused whole.
    let partial = steps(&table, &[("LGA", NEW_YEAR)]).project(&[0, 1]).unwrap();
    not_done(store.append(&table, vec![partial], &tag(8, 7)).await.unwrap_err(), "delay_1h");
    assert_eq!(store.last_tag("airport_delays").await.unwrap(), Some(tag(8, 6)));

    // Renamed, with its rows and tag; names do not collide.
    let renamed = flights("delays by airport", 16400);
    store.rename("airport_delays", "delays by airport").await.unwrap();
    assert_eq!(scan(&store, &renamed).await.num_rows(), 7);
    assert_eq!(store.last_tag("delays by airport").await.unwrap(), Some(tag(8, 6)));
    not_done(store.last_tag("airport_delays").await.unwrap_err(), "does not exist");
    store.create(&flights("second", 16401)).await.unwrap();
    not_done(store.rename("second", "delays by airport").await.unwrap_err(), "already exists");
    store.rename("second", "second").await.unwrap();
    store.append(&renamed, vec![], &tag(8, 7)).await.unwrap();

    // Who asks for it by the old name, after a crash between the two halves of a rename, gets it back, not an empty one.
    // A table of another view with a name and number that look alike is not taken for it.
    store.create(&flights("x-16400-y", 16402)).await.unwrap();
    let reopened = reopen().await;
    reopened.create(&table).await.unwrap();
    assert_eq!(scan(&reopened, &table).await.num_rows(), 7);
    assert_eq!(reopened.last_tag("airport_delays").await.unwrap(), Some(tag(8, 7)));
    not_done(reopened.last_tag("delays by airport").await.unwrap_err(), "does not exist");
    reopened.append(&table, vec![], &tag(9, 8)).await.unwrap();
    reopened.rename("airport_delays", "delays by airport").await.unwrap();
    assert_eq!(reopened.take_up(&table).await.unwrap(), Some(tag(9, 8)));
    reopened.rename("airport_delays", "delays by airport").await.unwrap();

    // A table of the same name that belongs to another view is replaced.
    let replaced = flights("delays by airport", 16999);
    assert_eq!(store.take_up(&replaced).await.unwrap(), None);
    assert_eq!(store.last_tag("delays by airport").await.unwrap(), None);
    assert_eq!(scan(&store, &replaced).await.num_rows(), 0);
    // That view finds it again, with all of its rows: names may have been exchanged when a crash came.
    let found = flights("as it was", 16400);
    store.create(&found).await.unwrap();
    assert_eq!(scan(&store, &found).await.num_rows(), 7);
    assert_eq!(scan(&store, &replaced).await.num_rows(), 0);

    // Of views that are gone the tables go; the others stay. Names that look like another view's decide nothing.
    store.create(&flights("gone", 17001)).await.unwrap();
    store.create(&flights("stays-17001-y", 17002)).await.unwrap();
    reopen().await.retain(&[16999, 17002].map(ObjectId).into()).await.unwrap();
    not_done(store.last_tag("gone").await.unwrap_err(), "does not exist");
    not_done(store.last_tag("second").await.unwrap_err(), "does not exist");
    assert_eq!(store.last_tag("stays-17001-y").await.unwrap(), None);

    // Dropped, and created anew.
    store.append(&replaced, vec![first], &tag(1, 1)).await.unwrap();
    store.as_ref().drop("delays by airport").await.unwrap();
    store.as_ref().drop("delays by airport").await.unwrap();
    not_done(store.last_tag("delays by airport").await.unwrap_err(), "does not exist");
    store.create(&replaced).await.unwrap();
    assert_eq!(scan(&store, &replaced).await.num_rows(), 0);
}

pub async fn open(folder: &Path, seed: u64) -> Arc<dyn HistoryStore> {
    Arc::new(IcebergHistory::open(folder, TestClock::seeded(seed)).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn iceberg_keeps_the_contract_of_a_history_store() {
    // A folder name that is not a URL as it stands.
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a warehouse, 100% #1?");
    let opened = AtomicU64::new(1);
    contract(|| open(&folder, opened.fetch_add(1_000_000, Ordering::Relaxed))).await;
}

/// A table with a column of every type, and eight steps: four with values, four with NULLs.
fn every_type() -> (HistoryTable, RecordBatch) {
    let time = SqlType::TimestampTz.arrow();
    let list = |item: SqlType| SqlType::Array(Box::new(item)).arrow();
    let types = [
        SqlType::Bool.arrow(),
        SqlType::Int2.arrow(),
        SqlType::Int4.arrow(),
        SqlType::Int8.arrow(),
        SqlType::Float4.arrow(),
        SqlType::Float8.arrow(),
        SqlType::Numeric { precision: 5, scale: 2 }.arrow(),
        SqlType::Numeric { precision: 18, scale: 0 }.arrow(),
        SqlType::Numeric { precision: 38, scale: 10 }.arrow(),
        SqlType::Text.arrow(),
        SqlType::Bytea.arrow(),
        SqlType::Date.arrow(),
        SqlType::Time.arrow(),
        SqlType::Timestamp.arrow(),
        SqlType::TimestampTz.arrow(),
        SqlType::Interval.arrow(),
        DataType::Duration(TimeUnit::Microsecond),
        list(SqlType::Int2),
        list(SqlType::Text),
        list(SqlType::TimestampTz),
        list(SqlType::Interval),
        SqlType::Vector(Some(2)).arrow(),
    ];
    let interval = |months, days, nanos| IntervalMonthDayNano::new(months, days, nanos);
    let intervals = [
        interval(14, -3, 3_723_000_000_001),
        interval(0, 0, 0),
        interval(-1, 0, -500_000_000),
        interval(i32::MAX, i32::MIN, i64::MAX),
    ];
    let strings = ["", "NULL", "naïve \u{1F600} \"quoted\"", "a\nb"];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![true, false, true, false])),
        Arc::new(Int16Array::from(vec![i16::MIN, i16::MAX, 0, 1])),
        Arc::new(Int32Array::from(vec![i32::MIN, i32::MAX, 0, 1])),
        Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX, 0, 1])),
        Arc::new(Float32Array::from(vec![f32::NAN, f32::INFINITY, -0.0, f32::MIN_POSITIVE])),
        Arc::new(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY, -0.0, 0.1])),
        Arc::new(Decimal128Array::from(vec![-99_999, 99_999, 0, 1]).with_precision_and_scale(5, 2).unwrap()),
        Arc::new(
            Decimal128Array::from(vec![-1, 999_999_999_999_999_999, 0, 1]).with_precision_and_scale(18, 0).unwrap(),
        ),
        Arc::new(
            Decimal128Array::from(vec![-(10i128.pow(37)), 10i128.pow(38) - 1, 0, 1])
                .with_precision_and_scale(38, 10)
                .unwrap(),
        ),
        Arc::new(StringArray::from(strings.to_vec())),
        Arc::new(BinaryArray::from(vec![b"".as_slice(), b"\0\xff", b"x", b"yy"])),
        Arc::new(Date32Array::from(vec![-719_162, 0, 15_706, 100_000])),
        Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999, 1, 2])),
        Arc::new(TimestampMicrosecondArray::from(vec![NEW_YEAR, -1, 0, i64::from(i32::MAX) * 1_000_000])),
        Arc::new(TimestampMicrosecondArray::from(vec![NEW_YEAR, -1, 0, 1]).with_timezone("+00:00")),
        Arc::new(IntervalMonthDayNanoArray::from(intervals.to_vec())),
        Arc::new(DurationMicrosecondArray::from(vec![i64::MIN, i64::MAX, 0, 1])),
        Arc::new(ListArray::from_iter_primitive::<arrow::datatypes::Int16Type, _, _>([
            Some(vec![Some(1), None, Some(i16::MIN)]),
            Some(vec![]),
            Some(vec![None]),
            Some(vec![Some(7)]),
        ])),
        {
            let mut list = ListBuilder::new(StringBuilder::new());
            for text in strings {
                list.append_value([Some(text), None, Some("x")]);
            }
            Arc::new(list.finish())
        },
        {
            let mut list = ListBuilder::new(TimestampMicrosecondBuilder::new().with_timezone("+00:00"));
            for ts in [NEW_YEAR, 0, -1, 1] {
                list.append_value([Some(ts), None]);
            }
            Arc::new(list.finish())
        },
        {
            let mut list = ListBuilder::new(IntervalMonthDayNanoBuilder::new());
            for value in intervals {
                list.append_value([Some(value), None]);
            }
            Arc::new(list.finish())
        },
        {
            let DataType::List(item) = SqlType::Vector(Some(2)).arrow() else { panic!("a vector is a list") };
            let mut list = ListBuilder::new(Float32Builder::new()).with_field(item);
            for x in [0.5, f32::MAX, -1.0, 1e-7] {
                list.append_value([Some(x), Some(1.0)]);
            }
            Arc::new(list.finish())
        },
    ];
    assert!(matches!(types[15], DataType::Interval(IntervalUnit::MonthDayNano)));

    // The key is a smallint and a date; then each type as a feature; then the columns of every history table.
    let mut fields = vec![
        Field::new("k", DataType::Int16, false),
        Field::new("day", DataType::Date32, false),
        Field::new("at", time.clone(), false),
        // Must not collide with the partition field's name.
        Field::new("at_month", DataType::Int32, true),
    ];
    fields.extend(types.iter().enumerate().map(|(i, ty)| Field::new(format!("f{i}"), ty.clone(), true)));
    fields.push(Field::new("_op", DataType::Utf8, false));
    let schema = Arc::new(Schema::new(fields));
    let table = HistoryTable {
        view: ObjectId(20000),
        name: "types".to_string(),
        comments: vec![],
        key: vec![0, 1],
        time: 2,
        schema: schema.clone(),
        partition: HistoryPartition::Month,
    };
    // Four rows of values, then four of NULLs.
    let rows = 8;
    let mut all: Vec<ArrayRef> = vec![
        Arc::new(Int16Array::from_iter_values((0..rows).map(|i| i as i16 - 4))),
        Arc::new(Date32Array::from_iter_values((0..rows).map(|i| 20_000 - i))),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values((0..rows).map(|i| NEW_YEAR + i as i64 * 20 * DAY))
                .with_timezone("+00:00"),
        ),
        Arc::new(Int32Array::from_iter((0..rows).map(Some))),
    ];
    for (column, ty) in columns.iter().zip(&types) {
        assert_eq!(column.data_type(), ty);
        let nulls = new_null_array(ty, 4);
        all.push(arrow::compute::concat(&[column.as_ref(), nulls.as_ref()]).unwrap());
    }
    all.push(Arc::new(StringArray::from_iter_values((0..rows).map(|_| "upsert"))));
    let given = RecordBatch::try_new(schema, all).unwrap();
    (table, given)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back_as_it_was_with_its_nulls() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1).await;
    let (table, given) = every_type();
    store.create(&table).await.unwrap();
    store.append(&table, vec![given.clone()], &tag(1, 1)).await.unwrap();
    let read = scan(&store, &table).await;
    // NaN equals NaN here, as in SQL: compared by bits through the rows' text where values would not be.
    for (column, field) in given.columns().iter().zip(given.schema().fields()) {
        let text = |column: &ArrayRef| format!("{column:?}");
        assert_eq!(text(&read[field.name().as_str()]), text(column), "{}", field.name());
    }

    // A filter over a smallint key, stored as int, and a date key; NaN is above every number.
    let count = async |filter: &str| {
        let sql = format!("SELECT k FROM h WHERE {filter}");
        query(&store, &table, &sql).await.num_rows()
    };
    assert_eq!(count("k >= 2 AND k < 10").await, 2);
    assert_eq!(count("day <= '2024-10-01'").await, 5);
    assert_eq!(count("f5 > 1000").await, 1);
    assert_eq!(count("f4 > 1000").await, 2);
    // Five files, one per month; only those that can have such keys are read.
    assert_eq!(files_planned(&store, &table, "true").await, 5);
    assert_eq!(files_planned(&store, &table, "k >= 2").await, 1);
    assert_eq!(files_planned(&store, &table, "k = 100").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_iceberg_cannot_store_is_refused_with_the_column_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1).await;
    let mut table = flights("t", 16400);
    let mut fields: Vec<_> = table.schema.fields().iter().cloned().collect();
    fields[2] = Arc::new(Field::new("bad", DataType::Decimal128(5, -2), true));
    table.schema = Arc::new(Schema::new(fields));
    not_done(store.create(&table).await.unwrap_err(), "column \"bad\" of history table \"t\"");
    not_done(store.last_tag("t").await.unwrap_err(), "does not exist");
    assert!(files_below(folder.path(), ".json").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_one_per_month_sorted_by_key_and_time_and_pruned_by_both() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    // Two commits, each over three months; the second has other airports.
    for (sequence, origins) in [(1, ["EWR", "JFK", "LGA"]), (2, ["SEA", "SFO", "SJU"])] {
        let mut rows: Vec<(&str, i64)> = Vec::new();
        for (nth, origin) in origins.into_iter().enumerate() {
            rows.extend((0..90).rev().map(|day| (origin, NEW_YEAR + day * DAY + nth as i64)));
        }
        store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence)).await.unwrap();
    }
    let files = files_below(&folder.path().join("public"), ".parquet");
    assert_eq!(files.len(), 6);
    for month in ["2013-01", "2013-02", "2013-03"] {
        assert_eq!(files.iter().filter(|file| file.contains(&format!("/data/{month}/"))).count(), 2);
    }
    for file in &files {
        let reader =
            parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file).unwrap());
        let rows = reader.unwrap().build().unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
        assert_same_rows(&rows, &by_key_and_time(&table, &rows));
    }

    let planned = async |filter: &str| files_planned(&store, &table, filter).await;
    assert_eq!(planned("true").await, 6);
    assert_eq!(planned("ts >= '2013-03-01T00:00:00Z'").await, 2);
    assert_eq!(planned("ts < '2013-01-15T00:00:00Z' AND origin = 'JFK'").await, 1);
    assert_eq!(planned("origin IN ('SFO', 'EWR')").await, 6);
    assert_eq!(planned("origin IN ('SFO', 'SJU') AND ts BETWEEN '2013-02-02' AND '2013-02-03'").await, 1);
    assert_eq!(planned("origin > 'M'").await, 3);
    assert_eq!(planned("ts > '2014-01-01'").await, 0);
    // Few files promise their order: a merge by (key, time) needs no sort.
    let frame = context(&store, &table).await.sql("SELECT * FROM h ORDER BY origin, ts").await.unwrap();
    let plan = displayable(frame.create_physical_plan().await.unwrap().as_ref()).indent(true).to_string();
    assert!(plan.contains("SortPreservingMergeExec") && !plan.contains("SortExec"), "{plan}");
    // Not over key and time: every file is read.
    assert_eq!(planned("delay_1h > 1e300").await, 6);
    let rows =
        query(&store, &table, "SELECT ts FROM h WHERE origin = 'JFK' AND ts >= '2013-02-01' AND ts < '2013-03-01'")
            .await;
    assert_eq!(rows.num_rows(), 28);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_draw_the_same_names_never_overwrite_each_others_files() {
    let folder = tempfile::tempdir().unwrap();
    let table = flights("delays", 16400);
    open(folder.path(), 1).await.create(&table).await.unwrap();
    for sequence in 1..=5 {
        // Each is a new process with another seed; its count of files begins again.
        let store = open(folder.path(), sequence * 1_000).await;
        store
            .append(&table, vec![steps(&table, &[("JFK", NEW_YEAR + sequence as i64)])], &tag(sequence, sequence))
            .await
            .unwrap();
        assert_eq!(scan(&store, &table).await.num_rows(), sequence as usize);
    }
    assert_eq!(files_below(folder.path(), ".parquet").len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_race_one_wins_each_commit_and_the_others_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let table = flights("delays", 16400);
    let first = open(folder.path(), 1).await;
    first.create(&table).await.unwrap();
    let mut committed = 0;
    for round in 1..=5u64 {
        let attempts = (0..4u64).map(|writer| {
            let (folder, table) = (folder.path(), &table);
            async move {
                let store = open(folder, (round * 10 + writer) * 1_000).await;
                let rows = steps(table, &[("JFK", NEW_YEAR + round as i64 * DAY + writer as i64)]);
                store.append(table, vec![rows], &tag(1, round)).await
            }
        });
        let mut won = 0;
        for attempt in futures::future::join_all(attempts).await {
            match attempt {
                Ok(()) => won += 1,
                Err(SeamError::NotDone(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        // The same sequence number cannot be committed twice; and somebody always gets through.
        assert_eq!(won, 1, "round {round}");
        committed += won;
        assert_eq!(first.last_tag("delays").await.unwrap(), Some(tag(1, round)));
    }
    assert_eq!(scan(&first, &table).await.num_rows(), committed);
    assert_eq!(files_below(folder.path(), ".parquet").len(), committed);
    assert_eq!(files_below(folder.path(), "-m0.avro").len(), committed);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_and_tag_are_one_metadata_file_and_old_ones_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    let metadata = || files_below(folder.path(), ".metadata.json");
    assert_eq!(metadata().len(), 1);
    store.append(&table, vec![steps(&table, &[("JFK", NEW_YEAR)])], &tag(1, 1)).await.unwrap();
    assert_eq!(metadata().len(), 2);
    let text = std::fs::read_to_string(&metadata()[1]).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected = "2013-01-01T00:00:00.000001Z";
    assert_eq!(json["properties"]["tidemark.frontier"], expected);
    assert_eq!(json["snapshots"][0]["summary"]["tidemark.frontier"], expected);
    assert_eq!(json["snapshots"][0]["summary"]["tidemark.positions"], json["properties"]["tidemark.positions"]);
    assert_eq!(json["format-version"], 2);
    assert_eq!(json["partition-specs"][0]["fields"][0]["field-id"], 1000);
    assert_eq!(json["schemas"][0]["fields"][0]["doc"], "airport");

    // Commits without steps make no snapshot; many commits do not keep every metadata file and snapshot.
    for sequence in 2..=130 {
        let rows = match sequence % 8 {
            0 => vec![],
            _ => vec![steps(&table, &[("JFK", NEW_YEAR + sequence as i64)])],
        };
        store.append(&table, rows, &tag(1, sequence)).await.unwrap();
    }
    assert_eq!(metadata().len(), 21);
    assert_eq!(files_below(folder.path(), ".avro").iter().filter(|file| file.contains("/snap-")).count(), 100);
    assert_eq!(scan(&store, &table).await.num_rows(), 130 - 16);

    // Renaming moves no file; dropping leaves none, of this table.
    store.create(&flights("other", 16401)).await.unwrap();
    store.rename("delays", "renamed").await.unwrap();
    store.as_ref().drop("renamed").await.unwrap();
    assert!(files_below(folder.path(), ".parquet").is_empty());
    assert_eq!(metadata().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_written_is_not_done_and_the_table_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    let location = std::fs::read_dir(folder.path().join("public")).unwrap().next().unwrap().unwrap().path();
    // A file where the folder of the data files has to be.
    std::fs::write(location.join("data"), "in the way").unwrap();
    let rows = vec![steps(&table, &[("JFK", NEW_YEAR)])];
    not_done(
        store.append(&table, rows.clone(), &tag(1, 1)).await.unwrap_err(),
        "writing steps of history table \"delays\"",
    );
    assert_eq!(store.last_tag("delays").await.unwrap(), None);
    std::fs::remove_file(location.join("data")).unwrap();
    store.append(&table, rows, &tag(1, 1)).await.unwrap();
    assert_eq!(scan(&store, &table).await.num_rows(), 1);
}

/// Microseconds as the script prints a timestamptz.
pub fn instant(us: i64) -> String {
    let time = arrow::temporal_conversions::timestamp_us_to_datetime(us).unwrap();
    format!("{}+00", time.format("%Y-%m-%d %H:%M:%S%.6f"))
}

/// What the script prints of one row of `flights`.
fn printed(rows: &RecordBatch, row: usize) -> String {
    let ts =
        |column: &str| instant(rows[column].as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(row));
    let delay = rows["delay_1h"].as_primitive::<arrow::datatypes::Float64Type>();
    let delay = if delay.is_valid(row) { format!("{:?}", delay.value(row)) } else { String::new() };
    let departures = rows["departures_1h"].as_primitive::<arrow::datatypes::Int64Type>().value(row);
    format!("{},{delay},{departures},upsert,{},{}", ts("ts"), ts("_event_time"), ts("_recorded_at"))
}

/// Needs `TIDEMARK_LAKE_PYTHON`: a Python with `tests/python/requirements-lake.txt` installed.
#[tokio::test(flavor = "multi_thread")]
async fn pyiceberg_and_duckdb_read_the_rows_that_we_read_and_join_them_alike() {
    let Ok(python) = std::env::var("TIDEMARK_LAKE_PYTHON") else {
        return crate::skipped("TIDEMARK_LAKE_PYTHON is not set");
    };
    let folder = tempfile::tempdir().unwrap();
    let warehouse = folder.path().join("a warehouse");
    let store = open(&warehouse, 1).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/read_history.py");
    let read = |arguments: &[&str]| {
        let output = std::process::Command::new(&python).arg(&script).arg(&warehouse).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };

    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    for sequence in 1..=3 {
        let rows: Vec<_> =
            (0..60).map(|n| (["EWR", "JFK", "LGA"][n % 3], NEW_YEAR + n as i64 * DAY + sequence)).collect();
        store.append(&table, vec![steps(&table, &rows)], &tag(1, sequence as u64)).await.unwrap();
    }
    let rows = scan(&store, &table).await;
    let origins = rows["origin"].as_string::<i32>();
    let expected: String = (0..180).map(|row| format!("{},{}\n", origins.value(row), printed(&rows, row))).collect();
    let daily_expected = expected.clone();
    let header = "origin,ts,delay_1h,departures_1h,_op,_event_time,_recorded_at\n";
    assert_eq!(read(&["delays", "origin", "ts"]), header.to_string() + &expected);
    // And the same when its manifests are one, and its files were written together, and what they were is gone.
    assert_eq!(store.fold_manifests(&table).await.unwrap().manifests_after, 1);
    assert_eq!(read(&["delays", "origin", "ts"]), header.to_string() + &expected);
    assert_eq!(store.optimize(&table).await.unwrap().files_after, 3);
    assert_eq!(read(&["delays", "origin", "ts"]), header.to_string() + &expected);
    assert!(store.vacuum(&table, i64::MAX).await.unwrap().files > 0);
    assert_eq!(read(&["delays", "origin", "ts"]), header.to_string() + &expected);

    // By day it is the same rows.
    let daily = HistoryTable { partition: HistoryPartition::Day, ..flights("daily", 16401) };
    store.create(&daily).await.unwrap();
    store.append(&daily, vec![rows.slice(0, 100), rows.slice(100, 80)], &tag(1, 1)).await.unwrap();
    assert_eq!(read(&["daily", "origin", "ts"]), header.to_string() + &daily_expected);

    // The row that was current: a nested loop here, ASOF LEFT JOIN there.
    let asked: Vec<(&str, i64)> = (0..40)
        .map(|n| (["LGA", "EWR", "SFO", "JFK"][n % 4], NEW_YEAR - DAY + n as i64 * 37 * HOUR + n as i64 % 3))
        .chain([("JFK", NEW_YEAR + DAY + 2), ("JFK", NEW_YEAR + DAY + 1), ("JFK", NEW_YEAR + DAY)])
        .collect();
    let mut spine = "label,origin,ts\n".to_string();
    let mut expected = "label,origin,ts,history_ts,delay_1h,departures_1h,_op,_event_time,_recorded_at\n".to_string();
    let times = rows["ts"].as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    for (label, (origin, at)) in asked.into_iter().enumerate() {
        let current = (0..180).filter(|&row| origins.value(row) == origin && times.value(row) <= at);
        let current = current.max_by_key(|&row| times.value(row)).map(|row| printed(&rows, row));
        let asked = format!("{label},{origin},{}", instant(at));
        spine += &format!("{asked}\n");
        expected += &format!("{asked},{}\n", current.unwrap_or_else(|| ",,,,,".to_string()));
    }
    let spine_file = folder.path().join("spine.csv");
    std::fs::write(&spine_file, spine).unwrap();
    assert_eq!(read(&["delays", "origin", "ts", "--asof", spine_file.to_str().unwrap()]), expected);

    // Every type: the two engines agree with each other (the script fails otherwise).
    let (table, given) = every_type();
    store.create(&table).await.unwrap();
    store.append(&table, vec![given], &tag(1, 1)).await.unwrap();
    assert_eq!(read(&["types", "k,day", "at"]).lines().filter(|line| line.ends_with(",upsert")).count(), 8);
    // Rewritten by another engine, in its own files and without our summary: the rows, the tag and the next commit
    // are as if nothing had happened.
    let rewrite = "import sys, urllib.parse\n\
        from pyiceberg.catalog.sql import SqlCatalog\n\
        uri = 'sqlite:///' + urllib.parse.quote(sys.argv[1]) + '/catalog.db'\n\
        table = SqlCatalog('tidemark', uri=uri).load_table(('public', sys.argv[2]))\n\
        table.overwrite(table.scan().to_arrow())\n";
    for table in [&flights("delays", 16400), &every_type().0] {
        let before = scan(&store, table).await;
        let tag_before = store.last_tag(&table.name).await.unwrap().unwrap();
        let args = ["-c", rewrite, warehouse.to_str().unwrap(), &table.name];
        let output = std::process::Command::new(&python).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let after = scan(&store, table).await;
        assert_eq!(format!("{:?}", after.columns()), format!("{:?}", before.columns()));
        assert_eq!(store.last_tag(&table.name).await.unwrap().as_ref(), Some(&tag_before));
        store.append(table, vec![], &tag(1, tag_before.sequence + 1)).await.unwrap();
    }
    let more = steps(&flights("delays", 16400), &[("SFO", NEW_YEAR)]);
    store.append(&flights("delays", 16400), vec![more], &tag(1, 9)).await.unwrap();
    assert_eq!(scan(&store, &flights("delays", 16400)).await.num_rows(), 181);
    assert_eq!(read(&["delays", "origin", "ts"]).lines().count(), 182);

    // An empty table has columns.
    store.create(&flights("nothing", 16402)).await.unwrap();
    assert_eq!(read(&["nothing", "origin", "ts"]), header);
}

/// Needs `TIDEMARK_SMALL_DISK`: a folder on a file system of some 100 MB, which `scripts/test.sh` makes.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_to_be_full_and_leaves_the_table_as_it_was() {
    let Ok(disk) = std::env::var("TIDEMARK_SMALL_DISK") else {
        return crate::skipped("TIDEMARK_SMALL_DISK is not set: a folder on a small file system");
    };
    let folder = tempfile::tempdir_in(disk).unwrap();
    // A few megabytes are left.
    let mut ballast = tempfile::tempfile_in(folder.path()).unwrap();
    while fs4::available_space(folder.path()).unwrap() > 4 << 20 {
        std::io::Write::write_all(&mut ballast, &[7; 64 << 10]).unwrap();
    }
    let store = open(folder.path(), 1).await;
    let table = flights("delays", 16400);
    store.create(&table).await.unwrap();
    let rows: Vec<_> = (0..2_000).map(|n| ("JFK", NEW_YEAR + n * 1_234_567)).collect();
    let (mut committed, mut full) = (0, None);
    while full.is_none() {
        assert!(committed < 1_000, "the disk is not small");
        match store.append(&table, vec![steps(&table, &rows)], &tag(1, committed + 1)).await {
            Ok(()) => committed += 1,
            Err(error) => full = Some(error),
        }
    }
    assert!(matches!(full, Some(SeamError::Full(_))), "{full:?}");
    assert_eq!(store.last_tag("delays").await.unwrap(), (committed > 0).then(|| tag(1, committed)));
    assert_eq!(files_below(folder.path(), ".parquet").len() as u64, committed);
    assert_eq!(scan(&store, &table).await.num_rows() as u64, committed * 2_000);
    // There is room again after a drop.
    store.as_ref().drop("delays").await.unwrap();
    store.create(&table).await.unwrap();
    store.append(&table, vec![steps(&table, &rows)], &tag(1, 1)).await.unwrap();
}
