//! Steps to Parquet: one file per month or day, sorted by (entity key, time).

use super::{disk, order::Ordered, schema};
use arrow::{
    array::{ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float32Type, Float64Type, Int32Type},
    temporal_conversions::date32_to_datetime,
};
use iceberg::{
    spec::{DataFile, Datum, Literal, Struct, Transform},
    table::Table,
    transform::create_transform_function,
    writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriter, ParquetWriterBuilder},
};
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        metadata::SortingColumn,
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};
use tidemark_engine::seam::{HistoryTable, SeamError, SeamResult};
use uuid::Uuid;

/// Rows per row group, which is what a writer holds in memory and what a Bloom filter is for: parquet's own number.
const ROW_GROUP_ROWS: u64 = 1 << 20;
/// Bounds of a row group that are longer are cut short: parquet's own number.
const BOUND_BYTES: usize = 64;
/// Rows per data page: a lookup of one key reads one page per column, not a row group.
const PAGE_ROWS: usize = 8192;
/// A column's dictionary that grows beyond is given up, and the rest is written without one. Enough for what repeats
/// (8,192 numbers); at the usual megabyte, a column of which every value is another costs twice as much to write and
/// takes more room (docs/benchmarks.md, "What a step costs in a file").
const DICTIONARY_BYTES: usize = 64 << 10;
/// Of files with more rows than a page, key columns have a Bloom filter: where a file has few of the keys and they lie far
/// apart, bounds say nothing and the filter says that a key is not there. One key in a hundred is looked for in vain: 10
/// bits for each key, which at two steps a key is a hundredth of the file; parquet folds a filter that was made for more.
const FALSE_POSITIVES: f64 = 0.01;
/// Rows that are put together at a time, in order, before they are encoded: a batch of the engine's. Some ten milliseconds of
/// work, after which others have their turn.
const GATHERED_ROWS: usize = 1 << 14;

/// Writes the steps below the table's location and adds each file's location to `written` before its first byte, so
/// that the caller can remove them all if the commit does not happen. The names contain the commit's id: names that only count would be used again by the next process, and overwrite live
/// data.
pub async fn write_steps(
    base: &Table,
    history: &HistoryTable,
    steps: &[RecordBatch],
    commit: Uuid,
    written: &mut Vec<String>,
) -> SeamResult<Vec<DataFile>> {
    let table_schema = base.metadata().current_schema();
    let steps = steps.iter().filter(|batch| batch.num_rows() > 0);
    let batches: Vec<RecordBatch> =
        steps.map(|batch| schema::to_storage(batch, table_schema)).collect::<SeamResult<_>>()?;
    if batches.is_empty() {
        return Ok(Vec::new());
    }
    let with_nan: HashSet<String> = batches.iter().flat_map(columns_with_nan).collect();
    let transform = schema::partition_transform(history, base.metadata())?;
    let (rows, partitions) = ordered_by_partition(history, transform, batches)?;
    let what = format!("writing steps of history table \"{}\"", history.name);
    let mut files = Vec::with_capacity(partitions.len());
    for (number, (partition, places)) in partitions.into_iter().enumerate() {
        let location = new_location(base, partition, commit, number);
        written.push(location.clone());
        let mut writer = open_file(base, history, &location, places.len() as u64, &with_nan).await?;
        let mut with_long = HashSet::new();
        for from in places.clone().step_by(GATHERED_ROWS) {
            let to = places.end.min(from + GATHERED_ROWS);
            let rows = rows.gather(from..to).map_err(SeamError::not_done)?;
            note_long(&rows, places.len() as u64, &mut with_long);
            writer.write(&rows).await.map_err(|error| disk::failed(&what, &error))?;
            tokio::task::yield_now().await;
        }
        files.extend(close_file(base, history, writer, partition, &with_long).await?);
    }
    Ok(files)
}

/// Where the `number`th file of a commit goes.
pub fn new_location(base: &Table, partition: i32, commit: Uuid, number: usize) -> String {
    let by_day =
        base.metadata().default_partition_spec().fields().iter().any(|field| field.transform == Transform::Day);
    let folder = if by_day { day_folder(partition) } else { month_folder(partition) };
    format!("{}/data/{folder}/{commit}-{number:05}.parquet", base.metadata().location())
}

/// A file for so many rows of one partition, as the table stores them, that come in order. `with_nan`: columns in which a row
/// may have NaN.
pub async fn open_file(
    base: &Table,
    history: &HistoryTable,
    location: &str,
    rows: u64,
    with_nan: &HashSet<String>,
) -> SeamResult<ParquetWriter> {
    let failed =
        |error: iceberg::Error| disk::failed(&format!("writing steps of history table \"{}\"", history.name), &error);
    let output = base.file_io().new_output(location).map_err(failed)?;
    let schema = base.metadata().current_schema().clone();
    ParquetWriterBuilder::new(writer_properties(history, rows, with_nan), schema).build(output).await.map_err(failed)
}

/// Adds the columns in which these rows, of a file of so many, have a text or bytes that a row group's bounds would cut short.
/// The crate makes a file's bounds of the row groups whose bounds are whole and leaves out the others: of a file of one row
/// group it then says nothing, of several something wrong.
pub fn note_long(rows: &RecordBatch, rows_of_file: u64, with_long: &mut HashSet<String>) {
    if rows_of_file <= ROW_GROUP_ROWS {
        return;
    }
    let is_long = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().flatten().any(|text| text.len() > BOUND_BYTES),
        DataType::LargeUtf8 => column.as_string::<i64>().iter().flatten().any(|text| text.len() > BOUND_BYTES),
        DataType::Binary => column.as_binary::<i32>().iter().flatten().any(|bytes| bytes.len() > BOUND_BYTES),
        DataType::LargeBinary => column.as_binary::<i64>().iter().flatten().any(|bytes| bytes.len() > BOUND_BYTES),
        _ => false,
    };
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if !with_long.contains(field.name()) && is_long(column) {
            with_long.insert(field.name().clone());
        }
    }
}

/// Ends a file; what a manifest says of it. `with_long`: columns of which it can say no bounds (`note_long`).
pub async fn close_file(
    base: &Table,
    history: &HistoryTable,
    writer: ParquetWriter,
    partition: i32,
    with_long: &HashSet<String>,
) -> SeamResult<Vec<DataFile>> {
    let columns = base.metadata().current_schema();
    let unbounded: HashSet<i32> = with_long.iter().filter_map(|column| columns.field_id_by_name(column)).collect();
    let bounded = |bounds: &HashMap<i32, Datum>| -> HashMap<i32, Datum> {
        let bounds = bounds.iter().filter(|(id, _)| !unbounded.contains(id));
        bounds.map(|(id, bound)| (*id, bound.clone())).collect()
    };
    let what = format!("writing steps of history table \"{}\"", history.name);
    let mut files = Vec::new();
    for mut file in writer.close().await.map_err(|error| disk::failed(&what, &error))? {
        // The crate's writers leave the sort order out; readers may trust the order only where it is named.
        file.partition(Struct::from_iter([Some(Literal::int(partition))]))
            .partition_spec_id(base.metadata().default_partition_spec_id())
            .sort_order_id(schema::SORT_ORDER_ID as i32);
        let failed = |error: &dyn std::fmt::Display| SeamError::NotDone(format!("{what}: {error}"));
        let mut built = file.build().map_err(|error| failed(&error))?;
        if !unbounded.is_empty() {
            file.lower_bounds(bounded(built.lower_bounds())).upper_bounds(bounded(built.upper_bounds()));
            built = file.build().map_err(|error| failed(&error))?;
        }
        files.push(built);
    }
    Ok(files)
}

/// `2013-01`. For people: readers take the partition from the manifest. Without the column's name, which may hold
/// anything.
fn month_folder(month: i32) -> String {
    format!("{:04}-{:02}", 1970 + month.div_euclid(12), month.rem_euclid(12) + 1)
}

/// `2013-01-31`.
fn day_folder(day: i32) -> String {
    match date32_to_datetime(day) {
        Some(date) => date.format("%Y-%m-%d").to_string(),
        // Beyond the calendar of the library, so beyond a timestamp too.
        None => format!("day{day}"),
    }
}

/// A month or day, counted from January 1970, and its range of rows.
type PartitionRows = (i32, Range<usize>);

/// The rows ordered by (partition, key, time), and each partition with its places in that order.
fn ordered_by_partition(
    history: &HistoryTable,
    transform: Transform,
    batches: Vec<RecordBatch>,
) -> SeamResult<(Ordered, Vec<PartitionRows>)> {
    let column = |batch: &RecordBatch, index: usize| -> SeamResult<ArrayRef> {
        let name = history.schema.field(index).name();
        batch
            .column_by_name(name)
            .cloned()
            .ok_or_else(|| SeamError::NotDone(format!("history table \"{}\" lacks column \"{name}\"", history.name)))
    };
    let partition_of = create_transform_function(&transform).map_err(SeamError::not_done)?;
    let partition = |batch: &RecordBatch| -> SeamResult<ArrayRef> {
        let partition = partition_of.transform(column(batch, history.time)?).map_err(SeamError::not_done)?;
        // A day comes as a date.
        cast(&partition, &DataType::Int32).map_err(SeamError::not_done)
    };
    let partitions: Vec<ArrayRef> = batches.iter().map(partition).collect::<SeamResult<_>>()?;
    let mut by = Vec::with_capacity(batches.len());
    for (batch, partition) in batches.iter().zip(&partitions) {
        let mut columns = vec![partition.clone()];
        for index in history.key.iter().chain([&history.time]) {
            columns.push(column(batch, *index)?);
        }
        by.push(columns);
    }
    let rows = Ordered::new(batches, by).map_err(SeamError::not_done)?;
    let partitions: Vec<_> = partitions.iter().map(|partition| partition.as_primitive::<Int32Type>()).collect();
    let partition_at = |place: usize| {
        let (batch, row) = rows.at(place);
        partitions[batch].value(row)
    };
    let mut ranges: Vec<PartitionRows> = Vec::new();
    let mut from = 0;
    while from < rows.len() {
        let partition = partition_at(from);
        let end = first_place(from, rows.len(), |place| partition_at(place) > partition);
        ranges.push((partition, from..end));
        from = end;
    }
    Ok((rows, ranges))
}

/// The first place for which it is true; from there on it stays so. `end` if there is none.
fn first_place(mut from: usize, mut end: usize, is: impl Fn(usize) -> bool) -> usize {
    while from < end {
        let middle = from + (end - from) / 2;
        match is(middle) {
            true => end = middle,
            false => from = middle + 1,
        }
    }
    from
}

fn columns_with_nan(rows: &RecordBatch) -> HashSet<String> {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    columns.filter(|(_, column)| has_nan(column)).map(|(field, _)| field.name().clone()).collect()
}

fn writer_properties(history: &HistoryTable, rows: u64, with_nan: &HashSet<String>) -> WriterProperties {
    let sorting = history.key.iter().chain([&history.time]);
    let sorting = sorting
        .map(|&column| SortingColumn { column_idx: column as i32, descending: false, nulls_first: true })
        .collect();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES)
        // Scans look for pages by key and time; of other columns the bounds of a row group do.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS as usize))
        .set_sorting_columns(Some(sorting))
        .set_created_by(concat!("tidemark ", env!("CARGO_PKG_VERSION")).to_string());
    for (index, field) in history.schema.fields().iter().enumerate() {
        let path = || ColumnPath::from(vec![field.name().clone()]);
        if index == history.time || history.key.contains(&index) {
            properties = properties.set_column_statistics_enabled(path(), EnabledStatistics::Page);
        }
        if history.key.contains(&index) && rows > PAGE_ROWS as u64 && is_filtered(field.data_type()) {
            properties = properties
                .set_column_bloom_filter_fpp(path(), FALSE_POSITIVES)
                .set_column_bloom_filter_ndv(path(), rows.min(ROW_GROUP_ROWS));
        }
        match field.data_type() {
            // A key's times grow, and hardly one comes twice.
            DataType::Timestamp(..) => {
                properties = properties
                    .set_column_dictionary_enabled(path(), false)
                    .set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED);
            }
            // For when there are too many for a dictionary.
            DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                properties = properties.set_column_encoding(path(), Encoding::DELTA_BINARY_PACKED);
            }
            _ => {}
        }
    }
    for column in with_nan {
        // Statistics leave NaN out, but SQL orders it above every number: a reader that prunes `x > 5` by them would
        // lose the row.
        let path = ColumnPath::from(vec![column.clone()]);
        properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
    }
    properties.build()
}

/// Types of which a reader asks a Bloom filter.
fn is_filtered(ty: &DataType) -> bool {
    matches!(ty, DataType::Int32 | DataType::Int64 | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn has_nan(column: &ArrayRef) -> bool {
    match column.data_type() {
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().flatten().any(f32::is_nan),
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().flatten().any(f64::is_nan),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{day_folder, month_folder};

    #[test]
    fn months_and_days_have_folders_before_1970_too() {
        assert_eq!(month_folder(0), "1970-01");
        assert_eq!(month_folder(-1), "1969-12");
        assert_eq!(month_folder(516), "2013-01");
        assert_eq!(month_folder(527), "2013-12");
        assert_eq!((day_folder(0).as_str(), day_folder(-1).as_str()), ("1970-01-01", "1969-12-31"));
        assert_eq!(day_folder(15_706), "2013-01-01");
    }
}
