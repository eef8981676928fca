//! Steps to Parquet: one file per month, sorted by (entity key, time).

use super::{disk, schema};
use arrow::{
    array::{ArrayRef, AsArray, RecordBatch},
    compute::{SortColumn, concat_batches, lexsort_to_indices, partition, take_record_batch},
    datatypes::{DataType, Float32Type, Float64Type, Int32Type},
};
use iceberg::{
    spec::{DataFile, Literal, Struct, Transform},
    table::Table,
    transform::create_transform_function,
    writer::file_writer::{FileWriter, FileWriterBuilder, ParquetWriter, ParquetWriterBuilder},
};
use parquet::{
    basic::{Compression, ZstdLevel},
    file::{
        metadata::SortingColumn,
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};
use std::{collections::HashSet, ops::Range};
use tidemark_engine::seam::{HistoryTable, SeamError, SeamResult};
use uuid::Uuid;

/// Rows per data page: a lookup of one key reads one page per column, not a row group.
const PAGE_ROWS: usize = 8192;

/// Writes the steps below the table's location and adds each file's location to `written` before its first byte, so
/// that the caller can remove them all if the commit does not happen. The names contain the commit's id: names that
/// only count would be used again by the next process, and overwrite live data.
pub async fn write_steps(
    base: &Table,
    history: &HistoryTable,
    steps: &[RecordBatch],
    commit: Uuid,
    written: &mut Vec<String>,
) -> SeamResult<Vec<DataFile>> {
    let what = format!("writing steps of history table \"{}\"", history.name);
    let failed = |error: iceberg::Error| disk::failed(&what, &error);
    let metadata = base.metadata();
    let table_schema = metadata.current_schema();
    let batches: Vec<RecordBatch> =
        steps.iter().map(|batch| schema::to_storage(batch, table_schema)).collect::<SeamResult<_>>()?;
    let Some(first) = batches.iter().find(|batch| batch.num_rows() > 0) else {
        return Ok(Vec::new());
    };
    let rows = concat_batches(&first.schema(), &batches).map_err(SeamError::not_done)?;
    let (rows, months) = sorted_by_month(history, rows)?;

    let mut files = Vec::with_capacity(months.len());
    for (number, (month, range)) in months.into_iter().enumerate() {
        let rows = rows.slice(range.start, range.len());
        let location = new_location(base, month, commit, number);
        written.push(location.clone());
        let mut writer = open_file(base, history, &location, &columns_with_nan(&rows)).await?;
        writer.write(&rows).await.map_err(failed)?;
        files.extend(close_file(base, history, writer, month).await?);
    }
    Ok(files)
}

/// Where the `number`th file of a commit goes.
pub fn new_location(base: &Table, month: i32, commit: Uuid, number: usize) -> String {
    format!("{}/data/{}/{commit}-{number:05}.parquet", base.metadata().location(), month_folder(month))
}

/// A file for rows of one month, as the table stores them, that come in order. `with_nan`: columns in which a row may
/// have NaN.
pub async fn open_file(
    base: &Table,
    history: &HistoryTable,
    location: &str,
    with_nan: &HashSet<String>,
) -> SeamResult<ParquetWriter> {
    let failed =
        |error: iceberg::Error| disk::failed(&format!("writing steps of history table \"{}\"", history.name), &error);
    let output = base.file_io().new_output(location).map_err(failed)?;
    let schema = base.metadata().current_schema().clone();
    ParquetWriterBuilder::new(writer_properties(history, with_nan), schema).build(output).await.map_err(failed)
}

/// Ends a file; what a manifest says of it.
pub async fn close_file(
    base: &Table,
    history: &HistoryTable,
    writer: ParquetWriter,
    month: i32,
) -> SeamResult<Vec<DataFile>> {
    let what = format!("writing steps of history table \"{}\"", history.name);
    let mut files = Vec::new();
    for mut file in writer.close().await.map_err(|error| disk::failed(&what, &error))? {
        // The crate's writers leave the sort order out; readers may trust the order only where it is named.
        let file = file
            .partition(Struct::from_iter([Some(Literal::int(month))]))
            .partition_spec_id(base.metadata().default_partition_spec_id())
            .sort_order_id(schema::SORT_ORDER_ID as i32)
            .build();
        files.push(file.map_err(|error| SeamError::NotDone(format!("{what}: {error}")))?);
    }
    Ok(files)
}

/// `2013-01`. For people: readers take the partition from the manifest. Without the column's name, which may hold
/// anything.
fn month_folder(month: i32) -> String {
    format!("{:04}-{:02}", 1970 + month.div_euclid(12), month.rem_euclid(12) + 1)
}

/// A month, counted from January 1970, and its range of rows.
type MonthRows = (i32, Range<usize>);

/// The rows ordered by (month, key, time), and each month with its range of rows.
fn sorted_by_month(history: &HistoryTable, rows: RecordBatch) -> SeamResult<(RecordBatch, Vec<MonthRows>)> {
    let column = |index: &usize| -> SeamResult<ArrayRef> {
        let name = history.schema.field(*index).name();
        rows.column_by_name(name)
            .cloned()
            .ok_or_else(|| SeamError::NotDone(format!("history table \"{}\" lacks column \"{name}\"", history.name)))
    };
    let time = column(&history.time)?;
    let month = create_transform_function(&Transform::Month)
        .and_then(|month| month.transform(time))
        .map_err(SeamError::not_done)?;
    let mut order = vec![SortColumn { values: month.clone(), options: None }];
    for index in history.key.iter().chain([&history.time]) {
        order.push(SortColumn { values: column(index)?, options: None });
    }
    let order = lexsort_to_indices(&order, None).map_err(SeamError::not_done)?;
    let sorted = take_record_batch(&rows, &order).map_err(SeamError::not_done)?;
    let months = arrow::compute::take(&month, &order, None).map_err(SeamError::not_done)?;
    let ranges = partition(std::slice::from_ref(&months)).map_err(SeamError::not_done)?.ranges();
    let months = months.as_primitive::<Int32Type>();
    Ok((sorted, ranges.into_iter().map(|range| (months.value(range.start), range)).collect()))
}

fn columns_with_nan(rows: &RecordBatch) -> HashSet<String> {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    columns.filter(|(_, column)| has_nan(column)).map(|(field, _)| field.name().clone()).collect()
}

fn writer_properties(history: &HistoryTable, with_nan: &HashSet<String>) -> WriterProperties {
    let sorting = history.key.iter().chain([&history.time]);
    let sorting = sorting
        .map(|&column| SortingColumn { column_idx: column as i32, descending: false, nulls_first: true })
        .collect();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_sorting_columns(Some(sorting))
        .set_created_by(concat!("tidemark ", env!("CARGO_PKG_VERSION")).to_string());
    for column in with_nan {
        // Statistics leave NaN out, but SQL orders it above every number: a reader that prunes `x > 5` by them would
        // lose the row.
        let path = ColumnPath::from(vec![column.clone()]);
        properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
    }
    properties.build()
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
    use super::month_folder;

    #[test]
    fn a_month_has_a_folder_before_1970_too() {
        assert_eq!(month_folder(0), "1970-01");
        assert_eq!(month_folder(-1), "1969-12");
        assert_eq!(month_folder(516), "2013-01");
        assert_eq!(month_folder(527), "2013-12");
    }
}
