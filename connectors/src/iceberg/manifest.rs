//! The data files of a snapshot, with the bounds that a scan prunes by.
//!
//! Manifests never change, so each is read once; what a table no longer refers to is forgotten at its next scan.

use super::{deletes::Deletes, disk, place::Place, rewrite, schema};
use arrow::datatypes::DataType;
use datafusion::{
    common::{ColumnStatistics, Statistics, stats::Precision},
    scalar::ScalarValue,
};
use iceberg::{
    spec::{
        DataContentType, DataFile, DataFileFormat, Datum, ManifestContentType, ManifestFile, PrimitiveLiteral,
        PrimitiveType,
    },
    table::Table,
};
use object_store::path::Path;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tidemark_engine::seam::{HistoryTable, SeamError, SeamResult};

/// One data file of a history table.
#[derive(Debug, Clone)]
pub struct StepFile {
    pub path: Path,
    pub bytes: u64,
    /// The month or day, as in the manifest; `None` where another engine partitioned it otherwise.
    pub partition: Option<i32>,
    /// Which of the table's partition specs the manifest is of. A number of one spec says nothing in another.
    pub spec: i32,
    /// Sorted by (key columns, time column).
    pub sorted: bool,
    /// For the columns that files are pruned by: bounds that hold, marked exact because pruning looks at no others. They
    /// need not be values of the file.
    pub bounds: Arc<Statistics>,
    /// Rows that another engine has deleted, counted from the file's first, in order.
    pub deleted: Option<Arc<Vec<u64>>>,
}

type FilesByManifest = HashMap<String, Arc<Vec<Arc<StepFile>>>>;

/// Manifests already read, by table location.
#[derive(Default)]
pub struct Manifests {
    read: Mutex<HashMap<String, FilesByManifest>>,
    deletes: Deletes,
}

impl Manifests {
    /// The live data files of the table's current snapshot.
    pub async fn files(&self, place: &Place, table: &Table, history: &HistoryTable) -> SeamResult<Vec<Arc<StepFile>>> {
        let failed = |error| disk::failed(&format!("reading history table \"{}\"", history.name), &error);
        let metadata = table.metadata();
        let Some(snapshot) = metadata.current_snapshot() else {
            return Ok(Vec::new());
        };
        let list = table.manifest_list_reader(snapshot).load().await.map_err(failed)?;
        let mut known = self.read.lock().get(metadata.location()).cloned().unwrap_or_default();
        let mut current = FilesByManifest::new();
        let mut files = Vec::new();
        let (deleting, adding): (Vec<_>, Vec<_>) =
            list.entries().iter().partition(|manifest| manifest.content == ManifestContentType::Deletes);
        for manifest in adding {
            let of_manifest = match known.remove(&manifest.manifest_path) {
                Some(files) => files,
                None => Arc::new(read(place, table, history, manifest).await?),
            };
            files.extend(of_manifest.iter().cloned());
            current.insert(manifest.manifest_path.clone(), of_manifest);
        }
        self.read.lock().insert(metadata.location().to_string(), current);
        if deleting.is_empty() {
            return Ok(files);
        }
        self.deletes.apply(place, table, history, &deleting, files).await
    }

    pub fn forget(&self, table_location: &str) {
        self.read.lock().remove(table_location);
    }
}

async fn read(
    place: &Place,
    table: &Table,
    history: &HistoryTable,
    manifest: &ManifestFile,
) -> SeamResult<Vec<Arc<StepFile>>> {
    let spec = manifest.partition_spec_id;
    let manifest = manifest
        .load_manifest(table.file_io())
        .await
        .map_err(|error| disk::failed(&format!("reading history table \"{}\"", history.name), &error))?;
    let live = manifest.entries().iter().filter(|entry| entry.is_alive());
    live.map(|entry| step_file(place, table, history, spec, entry.data_file()).map(Arc::new)).collect()
}

/// The file, if it is one that can be read; `spec`: of its manifest.
pub fn step_file(
    place: &Place,
    table: &Table,
    history: &HistoryTable,
    spec: i32,
    file: &DataFile,
) -> SeamResult<StepFile> {
    if file.content_type() != DataContentType::Data || file.file_format() != DataFileFormat::Parquet {
        return Err(SeamError::NotDone(format!(
            "history table \"{}\" has a file of {:?} in format {} that another engine wrote; only Parquet data files can \
             be read (let that engine write it as Parquet)",
            history.name,
            file.content_type(),
            file.file_format()
        )));
    }
    Ok(StepFile {
        path: place.object(file.file_path())?,
        bytes: file.file_size_in_bytes(),
        partition: rewrite::partition_of(file),
        spec,
        sorted: file.sort_order_id().is_some_and(|order| i64::from(order) == schema::SORT_ORDER_ID),
        bounds: Arc::new(bounds(table, history, file)?),
        deleted: None,
    })
}

/// By which files are pruned: key columns, the time column, and when a step was recorded; none of them is ever NULL.
pub fn pruning_columns(history: &HistoryTable) -> Vec<usize> {
    let recorded = history.schema.index_of("_recorded_at").ok();
    let recorded = recorded.filter(|index| !history.schema.field(*index).is_nullable());
    history.key.iter().copied().chain([history.time]).chain(recorded).collect()
}

fn bounds(table: &Table, history: &HistoryTable, file: &DataFile) -> SeamResult<Statistics> {
    let mut statistics = Statistics::new_unknown(&history.schema);
    statistics.num_rows = Precision::Exact(file.record_count() as usize);
    for column in pruning_columns(history) {
        let field = history.schema.field(column);
        let id = schema::field_id(table.metadata().current_schema(), field.name())?;
        let bound = |bounds: &HashMap<i32, Datum>| {
            // Stored as text, which has another order.
            if matches!(field.data_type(), DataType::Interval(_)) {
                return None;
            }
            let value = scalar(bounds.get(&id)?)?.cast_to(field.data_type()).ok()?;
            Some(Precision::Exact(value))
        };
        // Of the column's type also where nothing is known: DataFusion makes one array of all files' bounds, or none.
        let unknown = || ScalarValue::try_from(field.data_type()).map(Precision::Exact).unwrap_or_default();
        statistics.column_statistics[column] = ColumnStatistics {
            null_count: Precision::Exact(0),
            min_value: bound(file.lower_bounds()).unwrap_or_else(unknown),
            max_value: bound(file.upper_bounds()).unwrap_or_else(unknown),
            ..ColumnStatistics::new_unknown()
        };
    }
    Ok(statistics)
}

/// A bound as DataFusion holds it; `None` for types whose bounds are not used. Floats are left out because Iceberg's
/// bounds leave out NaN, which SQL orders above every number.
fn scalar(bound: &Datum) -> Option<ScalarValue> {
    Some(match (bound.data_type(), bound.literal()) {
        (PrimitiveType::Boolean, PrimitiveLiteral::Boolean(value)) => ScalarValue::Boolean(Some(*value)),
        (PrimitiveType::Int, PrimitiveLiteral::Int(value)) => ScalarValue::Int32(Some(*value)),
        (PrimitiveType::Date, PrimitiveLiteral::Int(value)) => ScalarValue::Date32(Some(*value)),
        (PrimitiveType::Long, PrimitiveLiteral::Long(value)) => ScalarValue::Int64(Some(*value)),
        (PrimitiveType::Timestamp, PrimitiveLiteral::Long(value)) => {
            ScalarValue::TimestampMicrosecond(Some(*value), None)
        }
        (PrimitiveType::Timestamptz, PrimitiveLiteral::Long(value)) => {
            ScalarValue::TimestampMicrosecond(Some(*value), Some("+00:00".into()))
        }
        (PrimitiveType::String, PrimitiveLiteral::String(value)) => ScalarValue::Utf8(Some(value.clone())),
        _ => return None,
    })
}
