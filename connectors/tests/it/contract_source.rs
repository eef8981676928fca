//! What every `Source` that can be appended to keeps to, and what the embedded log promises besides.

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, new_null_array};
use arrow::datatypes::{DataType, Field, Int64Type, IntervalUnit, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use tidemark_connectors::log::{EmbeddedLog, Fsync, LogSettings};
use tidemark_engine::seam::{
    AdmittedBatch, Positions, Reject, RejectReason, Removal, SeamError, SeamResult, Source, SourceBatch,
};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)]))
}

/// Rows `ids`; no rows: a control record.
fn batch(ids: std::ops::Range<i64>, append_time_us: i64) -> SourceBatch {
    let names = ids.clone().map(|i| (i % 3 != 0).then(|| format!("name {i}"))).collect::<StringArray>();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(ids)), Arc::new(names)];
    let rows = RecordBatch::try_new(schema(), columns).expect("a batch");
    // The source assigns both: what is given here must not matter.
    SourceBatch { partition: 77, base_offset: 777, append_time_us, rows, admission: None }
}

fn at(offset: u64) -> Positions {
    let mut positions = Positions::default();
    positions.set(0, offset);
    positions
}

/// One record: its offset, append time, and its row (none: a control record).
type Record = (u64, i64, Option<(i64, Option<String>)>);

fn records(batches: &[SourceBatch]) -> Vec<Record> {
    let of = |b: &SourceBatch| -> Vec<Record> {
        assert_eq!(b.partition, 0);
        let (ids, names) = (b.rows.column(0).as_primitive::<Int64Type>(), b.rows.column(1).as_string::<i32>());
        let row = |i: usize| (ids.value(i), names.iter().nth(i).flatten().map(str::to_string));
        match b.rows.num_rows() {
            0 => vec![(b.base_offset, b.append_time_us, None)],
            n => (0..n).map(|i| (b.base_offset + i as u64, b.append_time_us, Some(row(i)))).collect(),
        }
    };
    batches.iter().flat_map(of).collect()
}

/// Everything from `from` on, read in polls of about `rows_max` rows.
async fn read(source: &dyn Source, from: u64, rows_max: usize) -> Vec<SourceBatch> {
    let (mut all, mut next) = (vec![], from);
    loop {
        let batches = source.poll(&at(next), rows_max).await.expect("a poll");
        let Some(last) = batches.last() else { return all };
        let rows: usize = batches.iter().map(|b| b.rows.num_rows().max(1)).sum();
        assert!(batches.len() == 1 || rows <= rows_max, "{rows} rows in {} batches", batches.len());
        next = last.end_offset();
        all.extend(batches);
    }
}

/// `fresh` makes a new, empty place and returns what opens it, again and again.
async fn source_contract<O: Fn() -> Arc<dyn Source>>(fresh: impl Fn() -> O) {
    an_empty_source_has_an_empty_range(fresh()).await;
    records_come_back_in_order_from_any_position_and_after_a_reopen(fresh()).await;
    a_control_record_has_a_position_of_its_own(fresh()).await;
    a_batch_of_other_columns_is_refused_and_the_group_with_it(fresh()).await;
    readers_beside_a_writer_see_whole_groups_in_order(fresh()).await;
}

async fn an_empty_source_has_an_empty_range(open: impl Fn() -> Arc<dyn Source>) {
    for _ in 0..2 {
        let source = open();
        assert_eq!(source.range().await.expect("a range"), (at(0), at(0)));
        assert_eq!(source.poll(&Positions::default(), 10).await.expect("a poll").len(), 0);
        assert_eq!(source.poll(&at(5), 10).await.expect("a poll behind the end").len(), 0);
        assert_eq!(source.append(vec![]).await.expect("no batches"), at(0));
        source.sync().await.expect("a sync");
        source.commit(&at(0), Some(i64::MAX)).await.expect("a commit");
    }
}

async fn records_come_back_in_order_from_any_position_and_after_a_reopen(open: impl Fn() -> Arc<dyn Source>) {
    let source = open();
    assert_eq!(source.append(vec![batch(0..3, 10)]).await.expect("an append"), at(3));
    assert_eq!(source.append(vec![batch(3..4, 11), batch(4..40, 12)]).await.expect("an append"), at(40));
    let expected = records(&read(&*source, 0, usize::MAX).await);
    let ids = expected.iter().map(|(offset, _, row)| (*offset, row.as_ref().expect("a row").0)).collect::<Vec<_>>();
    assert_eq!(ids, (0..40).map(|i| (i as u64, i)).collect::<Vec<_>>());
    for reopen in [false, true] {
        let source = if reopen { open() } else { source.clone() };
        assert_eq!(source.range().await.expect("a range"), (at(0), at(40)));
        for from in 0..=40 {
            for rows_max in [0, 1, 5, 1000] {
                assert_eq!(records(&read(&*source, from, rows_max).await), expected[from as usize..]);
            }
        }
    }
}

async fn a_control_record_has_a_position_of_its_own(open: impl Fn() -> Arc<dyn Source>) {
    let source = open();
    let end = source.append(vec![batch(0..0, 1), batch(0..2, 2), batch(0..0, 3)]).await.expect("an append");
    let batches = read(&*source, 0, usize::MAX).await;
    assert_eq!(batches.iter().map(|b| b.rows.num_rows()).collect::<Vec<_>>(), [0, 2, 0]);
    assert_eq!(batches[0].rows.schema(), schema());
    assert_eq!(at(batches[2].end_offset()), end);
    assert_eq!(source.poll(&end, 10).await.expect("a poll at the end").len(), 0);
    drop(source);
    let source = open();
    assert_eq!(source.range().await.expect("a range").1, end);
    assert_eq!(records(&read(&*source, 0, 1).await), records(&batches));
}

async fn a_batch_of_other_columns_is_refused_and_the_group_with_it(open: impl Fn() -> Arc<dyn Source>) {
    let source = open();
    let other: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    let null_id = new_null_array(&DataType::Int64, 1);
    let nullable = |name: &str, column: &ArrayRef| (name.to_string(), column.clone(), true);
    for columns in [
        vec![nullable("id", &other), nullable("name", &other)],
        vec![nullable("id", &null_id), nullable("name", &other)],
        vec![nullable("name", &other)],
    ] {
        let rows = RecordBatch::try_from_iter_with_nullable(columns).expect("a batch");
        let bad = SourceBatch { rows, ..batch(0..1, 1) };
        let error = source.append(vec![batch(0..1, 1), bad]).await.expect_err("a batch of other columns");
        assert!(matches!(error, SeamError::NotDone(_)), "{error}");
    }
    assert_eq!(source.range().await.expect("a range"), (at(0), at(0)));
}

async fn readers_beside_a_writer_see_whole_groups_in_order(open: impl Fn() -> Arc<dyn Source>) {
    const GROUPS: u64 = 60;
    let source = open();
    let writer = {
        let source = source.clone();
        tokio::spawn(async move {
            for group in 0..GROUPS as i64 {
                let first = group * 3;
                source.append(vec![batch(first..first + 1, 1), batch(first + 1..first + 3, 1)]).await.expect("ok");
            }
        })
    };
    let readers = (0..2).map(|_| {
        let source = source.clone();
        tokio::spawn(async move {
            let mut next = 0;
            while next < GROUPS * 3 {
                let (_, end) = source.range().await.expect("a range");
                assert_eq!(end.get(0) % 3, 0, "a range that ends within a group");
                for batch in source.poll(&at(next), usize::MAX).await.expect("a poll") {
                    assert_eq!(batch.base_offset, next);
                    assert_eq!(batch.rows.column(0).as_primitive::<Int64Type>().value(0), next as i64);
                    next = batch.end_offset();
                }
                assert_eq!(next % 3, 0, "a poll that ends within a group");
                tokio::task::yield_now().await;
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.expect("a reader");
    }
    writer.await.expect("the writer");
}

fn open_log(dir: &Path, settings: &LogSettings) -> SeamResult<EmbeddedLog> {
    EmbeddedLog::open(&dir.join("log"), schema(), settings.clone())
}

fn fresh_log(settings: LogSettings) -> impl Fn() -> Arc<dyn Source> {
    let dir = tempfile::tempdir().expect("a directory");
    move || Arc::new(open_log(dir.path(), &settings).expect("a log"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_keeps_the_contract_under_every_fsync_policy_and_segment_size() {
    for fsync in [Fsync::Always, Fsync::EveryMs(5), Fsync::Never] {
        for segment_bytes in [1, 2000, 64 << 20] {
            let settings = LogSettings { fsync, segment_bytes, max_bytes: None };
            source_contract(|| fresh_log(settings.clone())).await;
        }
    }
}

fn admission(rows: i64) -> AdmittedBatch {
    let reject = |row, reason| Reject { row, reason, error: format!("row {row}: é") };
    AdmittedBatch {
        rejected: vec![reject(1, RejectReason::Late), reject(2, RejectReason::Decode)],
        frontier_us: -5,
        max_event_us: 1 << 50,
        effective_us: (0..rows).map(|i| i * 10).collect(),
        deletes: vec![0, 2, 3],
        origin: None,
        removal: Removal { below: 7, offsets: vec![9, 1 << 40] },
    }
}

#[tokio::test]
async fn the_admission_of_a_batch_is_stored_and_follows_its_rows() {
    let open = fresh_log(LogSettings::default());
    let control = AdmittedBatch { frontier_us: 9, max_event_us: 8, ..AdmittedBatch::default() };
    let batches = vec![
        SourceBatch { admission: Some(admission(5)), ..batch(0..5, 1) },
        SourceBatch { admission: Some(control.clone()), ..batch(0..0, 2) },
        batch(5..6, 3),
    ];
    open().append(batches).await.expect("an append");
    let log = open();
    let read_back = log.poll(&at(0), 100).await.expect("a poll");
    let admissions = read_back.into_iter().map(|b| b.admission).collect::<Vec<_>>();
    assert_eq!(admissions, [Some(admission(5)), Some(control), None]);
    // From the third row on.
    let rest = log.poll(&at(2), 1).await.expect("a poll").remove(0);
    let expected = AdmittedBatch {
        rejected: vec![Reject { row: 0, ..admission(5).rejected[1].clone() }],
        effective_us: vec![20, 30, 40],
        deletes: vec![0, 1],
        origin: None,
        ..admission(5)
    };
    assert_eq!((rest.base_offset, rest.rows.num_rows()), (2, 3));
    assert_eq!(rest.admission, Some(expected));
}

#[tokio::test]
async fn every_type_of_a_source_comes_back_also_as_null_and_from_a_slice() {
    let list = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
    let types = [
        DataType::Boolean,
        DataType::Int16,
        DataType::Int32,
        DataType::Float32,
        DataType::Float64,
        DataType::Decimal128(38, 9),
        DataType::Utf8,
        DataType::Binary,
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        list,
    ];
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("0"), None, Some("1"), Some("1"), None]));
    let column = |t: &DataType| -> ArrayRef {
        match t {
            DataType::List(item) => {
                use arrow::array::ListArray;
                use arrow::buffer::OffsetBuffer;
                let lengths = OffsetBuffer::from_lengths([2, 0, 1, 0, 2]);
                Arc::new(ListArray::new(item.clone(), lengths, text.clone(), None))
            }
            t => arrow::compute::cast(&text, t).unwrap_or_else(|_| new_null_array(t, 5)),
        }
    };
    let mut fields =
        types.iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true)).collect::<Vec<_>>();
    let mut columns = types.iter().map(column).collect::<Vec<_>>();
    fields.push(Field::new("span", DataType::Interval(IntervalUnit::MonthDayNano), true));
    columns.push(new_null_array(&DataType::Interval(IntervalUnit::MonthDayNano), 5));
    let schema = Arc::new(Schema::new(fields));
    let rows = RecordBatch::try_new(schema.clone(), columns).expect("a batch");

    let dir = tempfile::tempdir().expect("a directory");
    let open = || EmbeddedLog::open(dir.path(), schema.clone(), LogSettings::default()).expect("a log");
    let append = |rows| SourceBatch { rows, ..batch(0..0, 1) };
    let slices = [rows.clone(), rows.slice(1, 3), rows.slice(4, 1)];
    open().append(slices.iter().cloned().map(append).collect()).await.expect("an append");
    let read_back = open().poll(&at(0), 100).await.expect("a poll").into_iter().map(|b| b.rows).collect::<Vec<_>>();
    assert_eq!(read_back, slices);
}

#[tokio::test]
async fn a_single_row_costs_some_hundred_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open_log(dir.path(), &LogSettings::default()).expect("a log");
    let empty = log.size_bytes();
    let with_admission = AdmittedBatch { frontier_us: -5, max_event_us: 1 << 50, ..AdmittedBatch::default() };
    log.append(vec![SourceBatch { admission: Some(with_admission), ..batch(0..1, 1) }]).await.expect("an append");
    assert!(log.size_bytes() - empty < 400, "{} bytes", log.size_bytes() - empty);
    let before = log.size_bytes();
    log.append(vec![batch(0..8192, 1)]).await.expect("an append");
    let rows = batch(0..8192, 1)
        .rows
        .columns()
        .iter()
        .map(|c| c.to_data().get_slice_memory_size().expect("a size"))
        .sum::<usize>();
    let cost = (log.size_bytes() - before) as usize;
    assert!(cost < rows + 4096, "{cost} bytes for {rows} bytes of rows");
}

#[tokio::test]
async fn a_full_log_says_so_keeps_what_it_has_and_goes_on_when_retention_made_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = LogSettings { fsync: Fsync::Never, segment_bytes: 3000, max_bytes: Some(10_000) };
    let log = open_log(dir.path(), &settings).expect("a log");
    let mut rows = 0;
    let error = loop {
        match log.append(vec![batch(rows..rows + 2, rows), batch(rows + 2..rows + 4, rows)]).await {
            Ok(_) => rows += 4,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SeamError::Full(_)), "{error:?}");
    assert!(error.to_string().contains("is full") && error.to_string().contains("10000"), "{error}");
    assert!(rows > 20 && log.size_bytes() <= 10_000);
    assert_eq!(log.range().await.expect("a range"), (at(0), at(rows as u64)));
    assert_eq!(read(&log, 0, 3).await.iter().map(|b| b.rows.num_rows()).sum::<usize>(), rows as usize);
    log.commit(&at(rows as u64), Some(rows - 4)).await.expect("a commit");
    assert_eq!(log.append(vec![batch(rows..rows + 1, rows)]).await.expect("room again"), at(rows as u64 + 1));
    let (first, end) = log.range().await.expect("a range");
    drop(log);
    assert_eq!(open_log(dir.path(), &settings).expect("a log").range().await.expect("a range"), (first, end));
}

#[tokio::test]
async fn retention_removes_whole_old_segments_only_and_never_what_is_still_needed() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = LogSettings { fsync: Fsync::Never, segment_bytes: 2000, max_bytes: None };
    let mut log = open_log(dir.path(), &settings).expect("a log");
    for i in 0..100 {
        log.append(vec![batch(i..i + 1, i * 1000)]).await.expect("an append");
    }
    let files = || std::fs::read_dir(dir.path().join("log")).expect("files").count();
    let all = files();
    assert!(all > 5);
    for (positions, keep_from_us) in [(100, None), (0, Some(i64::MAX)), (100, Some(0)), (100, Some(i64::MIN))] {
        assert_eq!(log.kept_from(&at(positions), keep_from_us).await.expect("a position"), at(0));
        log.commit(&at(positions), keep_from_us).await.expect("a commit");
        assert_eq!((files(), log.range().await.expect("a range").0), (all, at(0)), "{positions} {keep_from_us:?}");
    }
    let mut last_first = 0;
    for (positions, keep_from_us) in [(30, i64::MAX), (100, 50_000), (60, 99_000)] {
        let kept = log.kept_from(&at(positions), Some(keep_from_us)).await.expect("a position");
        assert_eq!(log.range().await.expect("a range").0, at(last_first), "asking removes nothing");
        log.commit(&at(positions), Some(keep_from_us)).await.expect("a commit");
        let first = log.range().await.expect("a range").0.get(0);
        assert_eq!(kept, at(first));
        let needed = positions.min(keep_from_us.min(100_000) as u64 / 1000);
        assert!(first <= needed, "{first} is the first left and {needed} is needed");
        assert!(first + 20 > needed && first > last_first, "{first} is the first left and {needed} is needed");
        last_first = first;
        // A reader that asks for what is gone begins with what is left; the same after a reopen.
        for _ in 0..2 {
            let left = records(&read(&log, 0, 7).await).into_iter().map(|r| r.0).collect::<Vec<_>>();
            assert_eq!(left, (first..100).collect::<Vec<_>>());
            drop(log);
            log = open_log(dir.path(), &settings).expect("a log");
        }
    }
    // The segment being written stays, whatever is asked.
    log.commit(&at(100), Some(i64::MAX)).await.expect("a commit");
    assert_eq!(files(), 1);
    assert_eq!(log.append(vec![batch(0..1, 1)]).await.expect("an append"), at(101));
}

#[tokio::test]
async fn a_log_opened_with_other_columns_names_the_column() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open_log(dir.path(), &LogSettings::default()).expect("a log"));
    for (field, says) in [
        (Field::new("name", DataType::Int32, true), "Int32"),
        (Field::new("name", DataType::Utf8, false), "NOT NULL"),
        (Field::new("title", DataType::Utf8, true), "\"title\""),
    ] {
        let other = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), field]));
        let error = EmbeddedLog::open(&dir.path().join("log"), other, LogSettings::default()).expect_err("others");
        assert!(error.to_string().contains(says) && error.to_string().contains("\"name\""), "{error}");
    }
    let fewer = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)]));
    EmbeddedLog::open(&dir.path().join("log"), fewer, LogSettings::default()).expect_err("fewer columns");
}

#[tokio::test]
async fn a_log_takes_further_columns_and_keeps_the_records_from_before_as_they_were() {
    let dir = tempfile::tempdir().expect("a directory");
    let wider = |name_is_needed: bool| -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, !name_is_needed),
            Field::new("more", DataType::Int64, true),
        ]))
    };
    let wide = |ids: std::ops::Range<i64>| {
        let narrow = batch(ids, 1);
        let more = narrow.rows.column(0).clone();
        let columns = [narrow.rows.columns(), &[more]].concat();
        let rows = RecordBatch::try_new(wider(false), columns).expect("a batch");
        SourceBatch { rows, ..narrow }
    };
    let widths = |batches: &[SourceBatch]| batches.iter().map(|b| b.rows.num_columns()).collect::<Vec<_>>();

    let log = open_log(dir.path(), &LogSettings::default()).expect("a log");
    log.append(vec![batch(0..2, 1)]).await.expect("an append");
    log.widen(wider(true)).await.expect_err("a column that may be NULL cannot be needed");
    log.widen(wider(false)).await.expect("further columns");
    log.append(vec![batch(2..3, 1)]).await.expect_err("a record without the column");
    assert_eq!(widths(&read(&log, 0, 100).await), [2]);
    assert_eq!(log.append(vec![wide(2..4), wide(4..4)]).await.expect("an append"), at(5));
    assert_eq!(widths(&read(&log, 0, 100).await), [2, 3, 3]);
    drop(log);

    // As after a crash that came before the first append of the new kind, and once more.
    open_log(dir.path(), &LogSettings::default()).expect_err("fewer columns than it has");
    for ids in [4..6, 6..8] {
        let log = EmbeddedLog::open(&dir.path().join("log"), wider(false), LogSettings::default()).expect("a log");
        log.append(vec![wide(ids)]).await.expect("an append");
        let all = read(&log, 0, 100).await;
        let ids: Vec<i64> =
            all.iter().flat_map(|b| b.rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(ids, (0..ids.len() as i64).collect::<Vec<_>>());
        assert_eq!(widths(&all)[..3], [2, 3, 3]);
        // From the middle, over the place where the columns change.
        assert_eq!(widths(&read(&log, 1, 1).await)[..2], [2, 3]);
    }
}

#[tokio::test]
async fn dropped_files_are_gone_and_dropping_again_is_no_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open_log(dir.path(), &LogSettings::default()).expect("a log");
    log.append(vec![batch(0..9, 1)]).await.expect("an append");
    drop(log);
    for _ in 0..2 {
        EmbeddedLog::drop_files(&dir.path().join("log")).expect("a drop");
        assert!(!dir.path().join("log").exists());
    }
    let log = open_log(dir.path(), &LogSettings::default()).expect("a new log");
    assert_eq!(log.range().await.expect("a range"), (at(0), at(0)));
}

#[derive(Debug, Clone)]
enum Act {
    /// One group of batches with so many rows each.
    Append(Vec<u8>),
    Poll(u8, u8),
    Sync,
    Reopen,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => prop::collection::vec(0u8..6, 0..4).prop_map(Act::Append),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(from, max)| Act::Poll(from, max)),
        1 => Just(Act::Sync),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases / 5))]
    #[test]
    fn the_embedded_log_holds_what_a_vector_of_records_holds(
        acts in prop::collection::vec(any_act(), 1..30),
        segment_bytes in prop::sample::select(vec![1u64, 900, 5000, 1 << 20]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let open = fresh_log(LogSettings { fsync: Fsync::Never, segment_bytes, max_bytes: None });
        let mut log = open();
        let mut expected: Vec<Record> = vec![];
        for act in acts {
            match act {
                Act::Append(sizes) => {
                    let mut group = vec![];
                    for size in sizes {
                        let first = expected.len() as i64;
                        let mut one = batch(first..first + i64::from(size), first * 10);
                        group.push(one.clone());
                        (one.partition, one.base_offset) = (0, first as u64);
                        expected.extend(records(&[one]));
                    }
                    let end = runtime.block_on(log.append(group)).expect("an append");
                    prop_assert_eq!(end, at(expected.len() as u64));
                }
                Act::Poll(from, rows_max) => {
                    let from = from as usize % (expected.len() + 1);
                    let batches = runtime.block_on(read(&*log, from as u64, rows_max as usize));
                    prop_assert_eq!(&records(&batches), &expected[from..]);
                }
                Act::Sync => runtime.block_on(log.sync()).expect("a sync"),
                Act::Reopen => {
                    drop(log);
                    log = open();
                }
            }
        }
        prop_assert_eq!(records(&runtime.block_on(read(&*log, 0, 4))), expected);
    }
}
