//! Rows that another engine has deleted without writing their files again: the position deletes of Iceberg's format v2.
//! We write none. <https://iceberg.apache.org/spec/#position-delete-files>
//!
//! ```text
//!   delete file   (file_path, pos), Parquet ──▶ positions by data file ──▶ what of each row group a scan reads
//! ```
//!
//! Equality deletes name rows by their values: every row would have to be compared with them. They are refused.

use super::{disk, manifest::StepFile, place::Place};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use datafusion::{
    common::stats::Precision,
    datasource::{
        listing::PartitionedFile,
        physical_plan::parquet::{ParquetAccessPlan, metadata::DFParquetMetadata},
    },
    execution::runtime_env::RuntimeEnv,
};
use iceberg::{
    Error,
    spec::{DataContentType, DataFile, DataFileFormat, ManifestFile},
    table::Table,
};
use object_store::{ObjectStore, path::Path};
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};
use tidemark_engine::seam::{HistoryTable, SeamError, SeamResult};

/// Deleted rows by data file, counted from the file's first.
type Positions = HashMap<Path, Vec<u64>>;

/// Delete files already read, by location: they never change. Of one table hardly ever any.
#[derive(Default)]
pub struct Deletes {
    read: Mutex<HashMap<String, Arc<Positions>>>,
}

impl Deletes {
    /// The files with what these manifests say is deleted of them.
    ///
    /// # Errors
    /// They name delete files that cannot be applied.
    pub async fn apply(
        &self,
        place: &Place,
        table: &Table,
        history: &HistoryTable,
        manifests: &[&ManifestFile],
        files: Vec<Arc<StepFile>>,
    ) -> SeamResult<Vec<Arc<StepFile>>> {
        let failed = |error: Error| disk::failed(&format!("reading history table \"{}\"", history.name), &error);
        let mut all = Positions::new();
        let mut current = HashSet::new();
        for manifest in manifests {
            let entries = manifest.load_manifest(table.file_io()).await.map_err(failed)?;
            for entry in entries.entries().iter().filter(|entry| entry.is_alive()) {
                let positions = self.positions(place, table, history, entry.data_file()).await?;
                current.insert(entry.file_path().to_string());
                for (file, deleted) in positions.iter() {
                    all.entry(file.clone()).or_default().extend(deleted);
                }
            }
        }
        let below = table.metadata().location();
        self.read.lock().retain(|location, _| current.contains(location) || !location.starts_with(below));
        let without = |file: Arc<StepFile>| match all.remove(&file.path) {
            None => file,
            Some(mut deleted) => {
                deleted.sort_unstable();
                deleted.dedup();
                let mut bounds = file.bounds.as_ref().clone();
                // Nobody may count the rows without reading them.
                bounds.num_rows = match bounds.num_rows {
                    Precision::Exact(rows) => Precision::Inexact(rows.saturating_sub(deleted.len())),
                    other => other,
                };
                let file = file.as_ref().clone();
                Arc::new(StepFile { deleted: Some(Arc::new(deleted)), bounds: Arc::new(bounds), ..file })
            }
        };
        Ok(files.into_iter().map(without).collect())
    }

    async fn positions(
        &self,
        place: &Place,
        table: &Table,
        history: &HistoryTable,
        file: &DataFile,
    ) -> SeamResult<Arc<Positions>> {
        let known = self.read.lock().get(file.file_path()).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        if file.content_type() != DataContentType::PositionDeletes || file.file_format() != DataFileFormat::Parquet {
            return Err(SeamError::NotDone(format!(
                "history table \"{}\" has a file of {:?} in format {} that another engine wrote; only position deletes in \
                 Parquet can be applied (let that engine write its deletes into the files, or write them by position)",
                history.name,
                file.content_type(),
                file.file_format()
            )));
        }
        let what = format!("reading delete file {} of history table \"{}\"", file.file_path(), history.name);
        let read = async { table.file_io().new_input(file.file_path())?.read().await };
        let bytes = read.await.map_err(|error| disk::failed(&what, &error))?;
        let broken = |error: &dyn std::fmt::Display| SeamError::NotDone(format!("{what}: {error}"));
        let batches = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        let mut positions = Positions::new();
        for batch in batches.map_err(|error| broken(&error))? {
            add(&mut positions, place, &batch.map_err(|error| broken(&error))?).map_err(|error| broken(&error))?;
        }
        let positions = Arc::new(positions);
        self.read.lock().insert(file.file_path().to_string(), positions.clone());
        Ok(positions)
    }
}

/// Adds the rows of a delete file.
fn add(positions: &mut Positions, place: &Place, batch: &RecordBatch) -> Result<(), String> {
    let column = |name: &str, ty: DataType| {
        let column = batch.column_by_name(name).ok_or_else(|| format!("it has no column {name}"))?;
        let column = cast(column, &ty).map_err(|error| error.to_string())?;
        if column.null_count() > 0 { Err(format!("its column {name} has NULLs")) } else { Ok(column) }
    };
    let (paths, rows) = (column("file_path", DataType::Utf8)?, column("pos", DataType::Int64)?);
    for (path, row) in paths.as_string::<i32>().iter().zip(rows.as_primitive::<Int64Type>().values()) {
        let path = place.object(path.unwrap_or_default()).map_err(|error| error.to_string())?;
        let row = u64::try_from(*row).map_err(|_| format!("its position {row} is below zero"))?;
        positions.entry(path).or_default().push(row);
    }
    Ok(())
}

/// What is left of a file in the store. `footer`: how much of its end is read at first.
///
/// # Errors
/// The end of the file cannot be read.
pub async fn left_of(
    file: &StepFile,
    deleted: &[u64],
    store: &dyn ObjectStore,
    footer: Option<usize>,
    runtime: &RuntimeEnv,
) -> datafusion::error::Result<ParquetAccessPlan> {
    let mut object = PartitionedFile::new("", file.bytes).object_meta;
    object.location = file.path.clone();
    let ends = runtime.cache_manager.get_file_metadata_cache();
    let end = DFParquetMetadata::new(store, &object).with_metadata_size_hint(footer);
    let end = end.with_file_metadata_cache(Some(ends)).fetch_metadata().await?;
    let row_groups: Vec<usize> = end.row_groups().iter().map(|group| group.num_rows() as usize).collect();
    Ok(access_plan(&row_groups, deleted))
}

/// `row_groups`: the rows of each; `deleted`: in order, each once.
fn access_plan(row_groups: &[usize], deleted: &[u64]) -> ParquetAccessPlan {
    let mut plan = ParquetAccessPlan::new_all(row_groups.len());
    let mut first = 0;
    for (group, rows) in row_groups.iter().enumerate() {
        let place = |row: usize| deleted.partition_point(|deleted| *deleted < row as u64);
        let gone = &deleted[place(first)..place(first + rows)];
        if gone.len() == *rows {
            plan.skip(group);
        } else if !gone.is_empty() {
            let gone = gone.iter().map(|row| *row as usize - first);
            let starts = std::iter::once(0).chain(gone.clone().map(|row| row + 1));
            let kept = starts.zip(gone.chain([*rows])).map(|(start, end)| start..end);
            plan.scan_selection(group, RowSelection::from_consecutive_ranges(kept, *rows));
        }
        first += rows;
    }
    plan
}

#[cfg(test)]
mod foreign;

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use datafusion::datasource::physical_plan::parquet::RowGroupAccess;
    use parquet::arrow::arrow_reader::RowSelector;
    use std::path::PathBuf;

    #[test]
    fn what_is_left_of_row_groups_is_all_but_the_deleted_rows() {
        let plan = access_plan(&[4, 3, 2, 5], &[0, 2, 7, 8, 9, 13, 99]);
        let selected = |selectors: Vec<RowSelector>| RowGroupAccess::Selection(RowSelection::from(selectors));
        let (skip, select) = (RowSelector::skip, RowSelector::select);
        assert_eq!(
            plan.into_inner(),
            [
                selected(vec![skip(1), select(1), skip(1), select(1)]),
                RowGroupAccess::Scan,
                RowGroupAccess::Skip,
                selected(vec![skip(1), select(3), skip(1)]),
            ]
        );
        assert_eq!(access_plan(&[2], &[]).into_inner(), [RowGroupAccess::Scan]);
    }

    #[test]
    fn delete_files_name_a_data_file_in_any_spelling_and_nothing_else_is_taken() {
        let batch = |paths: Vec<&str>, rows: Vec<i64>| {
            let columns: [(&str, ArrayRef); 2] =
                [("file_path", Arc::new(StringArray::from(paths))), ("pos", Arc::new(Int64Array::from(rows)))];
            RecordBatch::try_from_iter(columns).expect("a batch")
        };
        let (place, mut positions) = (Place::Folder(PathBuf::from("/w")), Positions::new());
        add(
            &mut positions,
            &place,
            &batch(vec!["file:///w/a.parquet", "/w/a.parquet", "file:/w/b.parquet"], vec![3, 1, 0]),
        )
        .expect("positions");
        let of = |path: &str| positions.get(&Path::from(path)).cloned();
        assert_eq!((of("w/a.parquet"), of("w/b.parquet"), of("w/c.parquet")), (Some(vec![3, 1]), Some(vec![0]), None));
        let below_zero = add(&mut Positions::new(), &place, &batch(vec!["/w/a.parquet"], vec![-1]));
        assert_eq!(below_zero, Err("its position -1 is below zero".to_string()));
        let other: [(&str, ArrayRef); 1] = [("pos", Arc::new(Int64Array::from(vec![1])))];
        let other = RecordBatch::try_from_iter(other).expect("a batch");
        assert_eq!(add(&mut Positions::new(), &place, &other), Err("it has no column file_path".to_string()));
    }
}
