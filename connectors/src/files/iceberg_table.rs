//! A table that is an Iceberg table of somebody else's on the local disk: read only, as of the snapshot that is current when a
//! query begins.
//!
//! ```text
//! path ── metadata file ── snapshot ── manifests ──┬─ data files, pruned by bounds and identity partitions
//!                                                  └─ position deletes
//! ```
//!
//! Columns go by field id: a file from before a column was renamed or added is read all the same.

use super::{
    FilesError, Result, check, column,
    deletes::Deleted,
    floats,
    iceberg_scan::{self, LakeFile},
};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{ColumnStatistics, DFSchema, Statistics, pruning::PrunableStatistics, stats::Precision},
    error::{DataFusionError, Result as DfResult},
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_optimizer::pruning::PruningPredicate,
    physical_plan::ExecutionPlan,
    scalar::ScalarValue,
};
use iceberg::{
    arrow::schema_to_arrow_schema,
    io::{FileIOBuilder, LocalFsStorageFactory},
    spec::{
        DEFAULT_SCHEMA_NAME_MAPPING, DataContentType, DataFile, DataFileFormat, Datum, FormatVersion, Literal,
        Manifest, ManifestList, NameMapping, PrimitiveLiteral, PrimitiveType, TableMetadata, Transform, Type,
    },
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use tidemark_catalog::Column;

/// The table's metadata, and the file that has it.
struct Loaded {
    file: PathBuf,
    metadata: TableMetadata,
}

fn broken(file: &Path, error: &dyn std::fmt::Display) -> FilesError {
    FilesError::new("58030", format!("\"{}\" cannot be read as a part of an Iceberg table", file.display()))
        .detail(error.to_string())
}

/// The columns of the table, with its comments, none NOT NULL.
pub async fn infer(path: &Path) -> Result<Vec<Column>> {
    let loaded = Loaded::at(path).await?;
    let arrow = loaded.arrow()?;
    let mut columns = vec![];
    for (field, of_table) in arrow.fields().iter().zip(loaded.metadata.current_schema().as_struct().fields()) {
        columns.push(Column { comment: of_table.doc.clone(), ..column(&loaded.file, field)? });
    }
    if columns.is_empty() {
        return Err(FilesError::new("42P17", format!("the Iceberg table at \"{}\" has no columns", path.display())));
    }
    Ok(columns)
}

/// Whether the table has these columns.
pub async fn verify(path: &Path, columns: &[Column]) -> Result<()> {
    let loaded = Loaded::at(path).await?;
    check(&loaded.file, &loaded.arrow()?, columns)
}

/// The local path of a location in the table's metadata.
pub(super) fn local(location: &str) -> Result<PathBuf> {
    let path = match location.split_once(':') {
        Some(("file", path)) => path,
        Some((scheme, _)) if !scheme.contains('/') => {
            let message = format!("\"{location}\" is not on the server's disk");
            return Err(FilesError::new("0A000", message).hint("only files of the local disk are read"));
        }
        _ => location,
    };
    Ok(PathBuf::from(format!("/{}", path.trim_start_matches('/'))))
}

async fn read(location: &str) -> Result<(PathBuf, Vec<u8>)> {
    let path = local(location)?;
    match tokio::fs::read(&path).await {
        Ok(bytes) => Ok((path, bytes)),
        Err(error) => Err(FilesError::unreadable(&path, &error).hint(
            "the metadata of an Iceberg table names its files by absolute paths: a table that was moved cannot be read",
        )),
    }
}

/// The number of a metadata file's version: `00003-….metadata.json`, `v3.metadata.json`.
fn version(name: &str) -> Option<u64> {
    if !(name.ends_with(".metadata.json") || name.ends_with(".metadata.json.gz")) {
        return None;
    }
    let digits = name.strip_prefix('v').unwrap_or(name);
    digits[..digits.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

/// The metadata file itself; of a table's folder the one that its `version-hint.text` names, or else the latest.
async fn metadata_file(path: &Path) -> Result<PathBuf> {
    let unreadable = |error: std::io::Error| FilesError::unreadable(path, &error);
    if !tokio::fs::metadata(path).await.map_err(unreadable)?.is_dir() {
        return Ok(path.to_path_buf());
    }
    let within = path.join("metadata");
    let is_within = tokio::fs::metadata(&within).await.is_ok_and(|within| within.is_dir());
    let folder = if is_within { within } else { path.to_path_buf() };
    let mut hinted = None;
    if let Ok(hint) = tokio::fs::read_to_string(folder.join("version-hint.text")).await {
        hinted = hint.trim().parse::<u64>().ok();
    }
    let mut entries = tokio::fs::read_dir(&folder).await.map_err(unreadable)?;
    let mut latest: Vec<(u64, String)> = vec![];
    while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(number) = version(&name).filter(|number| hinted.is_none_or(|hinted| hinted == *number)) else {
            continue;
        };
        latest.retain(|(known, _)| *known >= number);
        if latest.first().is_none_or(|(known, _)| *known == number) {
            latest.push((number, name));
        }
    }
    match latest.as_slice() {
        [(_, name)] => Ok(folder.join(name)),
        [] => Err(FilesError::new("58P01", format!("there is no Iceberg metadata in \"{}\"", folder.display())).hint(
            "path is the table's folder, or one of its metadata files: '/lake/rides/metadata/00003-….metadata.json'",
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|(_, name)| name.as_str()).collect();
            let message =
                format!("which metadata of the Iceberg table in \"{}\" is current cannot be told", folder.display());
            Err(FilesError::new("55000", message)
                .detail(format!("these are of one version: {}", names.join(", ")))
                .hint("a commit has failed there: path = '…' with the metadata file that the table's catalog names"))
        }
    }
}

impl Loaded {
    async fn at(path: &Path) -> Result<Loaded> {
        let file = metadata_file(path).await?;
        let unreadable = |error: std::io::Error| FilesError::unreadable(&file, &error);
        let absolute = tokio::fs::canonicalize(&file).await.map_err(unreadable)?;
        let io = FileIOBuilder::new(Arc::new(LocalFsStorageFactory)).build();
        let location = format!("file://{}", absolute.display());
        let metadata = TableMetadata::read_from(&io, location).await.map_err(|error| broken(&file, &error))?;
        if metadata.format_version() > FormatVersion::V2 {
            let message = format!("the Iceberg table at \"{}\" is of format version 3", path.display());
            return Err(FilesError::new("0A000", message).hint("format versions 1 and 2 are read"));
        }
        Ok(Loaded { file, metadata })
    }

    fn arrow(&self) -> Result<Schema> {
        schema_to_arrow_schema(self.metadata.current_schema()).map_err(|error| broken(&self.file, &error))
    }

    /// The field ids of the columns. Columns that the table has not are found by [`check`] before.
    fn ids(&self, columns: &[Column]) -> Result<Vec<i32>> {
        let schema = self.metadata.current_schema();
        let id = |column: &Column| {
            let missing = || broken(&self.file, &format_args!("it has no column \"{}\"", column.name));
            schema.field_by_name(&column.name).map(|field| field.id).ok_or_else(missing)
        };
        columns.iter().map(id).collect()
    }

    /// What files without field ids call their columns, by field id.
    fn names(&self) -> Result<HashMap<i32, Vec<String>>> {
        let Some(text) = self.metadata.properties().get(DEFAULT_SCHEMA_NAME_MAPPING) else { return Ok(HashMap::new()) };
        let mapping: NameMapping = serde_json::from_str(text).map_err(|error| broken(&self.file, &error))?;
        let fields = mapping.fields().iter();
        Ok(fields.filter_map(|field| Some((field.field_id()?, field.names().to_vec()))).collect())
    }

    /// The data files of the current snapshot, and the position deletes that go with them.
    async fn files(&self, ids: &[i32], schema: &SchemaRef) -> Result<(Vec<LakeFile>, Deleted)> {
        let (mut files, mut deleted) = (vec![], Deleted::default());
        let Some(snapshot) = self.metadata.current_snapshot() else { return Ok((files, deleted)) };
        let (file, bytes) = read(snapshot.manifest_list()).await?;
        let list = ManifestList::parse_with_version(&bytes, self.metadata.format_version());
        for manifest in list.map_err(|error| broken(&file, &error))?.entries() {
            let (file, bytes) = read(&manifest.manifest_path).await?;
            let entries = Manifest::parse_avro(&bytes).map_err(|error| broken(&file, &error))?;
            for entry in entries.entries().iter().filter(|entry| entry.is_alive()) {
                let of = entry.data_file();
                // One that was added by its manifest's commit has that one's number.
                let sequence = entry.sequence_number().unwrap_or(manifest.sequence_number);
                self.admit(of)?;
                match of.content_type() {
                    DataContentType::Data => {
                        let constants = self.constants(of, manifest.partition_spec_id, ids, schema);
                        let bounds = Arc::new(bounds(of, ids, &constants, schema));
                        files.push(LakeFile {
                            location: of.file_path().to_string(),
                            bytes: of.file_size_in_bytes(),
                            sequence,
                            constants,
                            bounds,
                        });
                    }
                    DataContentType::PositionDeletes => deleted.add(of.file_path(), sequence),
                    DataContentType::EqualityDeletes => {
                        let message = format!("the Iceberg table at \"{}\" has equality deletes", self.file.display());
                        return Err(FilesError::new("0A000", message)
                            .detail(format!("\"{}\" takes rows back by their values", of.file_path()))
                            .hint("rewrite the table's data files where it is written (Spark: rewrite_data_files), then read it"));
                    }
                }
            }
        }
        Ok((files, deleted))
    }

    /// # Errors
    /// 0A000: a file that we cannot read.
    fn admit(&self, of: &DataFile) -> Result<()> {
        let path = of.file_path();
        let why = match (of.file_format(), of.key_metadata()) {
            (DataFileFormat::Parquet, None) => return Ok(()),
            (DataFileFormat::Parquet, Some(_)) => "is encrypted".to_string(),
            (format, _) => format!("is in format {format}"),
        };
        let message = format!("file \"{path}\" of the Iceberg table at \"{}\" {why}", self.file.display());
        Err(FilesError::new("0A000", message).hint("only Parquet files are read"))
    }

    /// The values of identity partitions, for the columns that they are of.
    fn constants(&self, file: &DataFile, spec: i32, ids: &[i32], schema: &Schema) -> Vec<Option<ScalarValue>> {
        let Some(spec) = self.metadata.partition_spec_by_id(spec) else { return vec![None; ids.len()] };
        let constant = |(id, field): (&i32, &Arc<arrow::datatypes::Field>)| {
            let is_it = |of: &iceberg::spec::PartitionField| of.source_id == *id && of.transform == Transform::Identity;
            let value = file.partition().fields().get(spec.fields().iter().position(is_it)?)?;
            let Some(Literal::Primitive(value)) = value else { return ScalarValue::try_from(field.data_type()).ok() };
            match self.metadata.current_schema().field_by_id(*id)?.field_type.as_ref() {
                Type::Primitive(ty) => scalar(ty, value)?.cast_to(field.data_type()).ok(),
                _ => None,
            }
        };
        ids.iter().zip(schema.fields()).map(constant).collect()
    }
}

/// Marked exact because pruning looks at no others: bounds that hold, and need not be values of the file.
fn bounds(file: &DataFile, ids: &[i32], constants: &[Option<ScalarValue>], schema: &Schema) -> Statistics {
    let rows = usize::try_from(file.record_count()).unwrap_or_default();
    let mut statistics = Statistics::new_unknown(schema);
    statistics.num_rows = Precision::Exact(rows);
    for (at, id) in ids.iter().enumerate() {
        let field = schema.field(at);
        let bound = |bounds: &HashMap<i32, Datum>| {
            let bound = bounds.get(id)?;
            let value = scalar(bound.data_type(), bound.literal())?.cast_to(field.data_type()).ok()?;
            Some(Precision::Exact(value))
        };
        let known = &mut statistics.column_statistics[at];
        if let Some(value) = &constants[at] {
            let nulls = if value.is_null() { rows } else { 0 };
            known.null_count = Precision::Exact(nulls);
            known.min_value = Precision::Exact(value.clone());
            known.max_value = Precision::Exact(value.clone());
            continue;
        }
        // Of the column's type also where nothing is known: DataFusion makes one array of all files' bounds, or none.
        let unknown = || ScalarValue::try_from(field.data_type()).map(Precision::Exact).unwrap_or_default();
        let nulls = file.null_value_counts().get(id).and_then(|nulls| usize::try_from(*nulls).ok());
        *known = ColumnStatistics {
            null_count: nulls.map(Precision::Exact).unwrap_or_default(),
            min_value: bound(file.lower_bounds()).unwrap_or_else(unknown),
            max_value: bound(file.upper_bounds()).unwrap_or_else(unknown),
            ..ColumnStatistics::new_unknown()
        };
    }
    statistics
}

/// A value as DataFusion holds it; `None` for types whose bounds are not used. Floats are left out: bounds leave out NaN, which SQL
/// orders above every number.
fn scalar(ty: &PrimitiveType, value: &PrimitiveLiteral) -> Option<ScalarValue> {
    Some(match (ty, value) {
        (PrimitiveType::Boolean, PrimitiveLiteral::Boolean(value)) => ScalarValue::Boolean(Some(*value)),
        (PrimitiveType::Int | PrimitiveType::Long, PrimitiveLiteral::Int(value)) => ScalarValue::Int32(Some(*value)),
        (PrimitiveType::Date, PrimitiveLiteral::Int(value)) => ScalarValue::Date32(Some(*value)),
        (PrimitiveType::Long, PrimitiveLiteral::Long(value)) => ScalarValue::Int64(Some(*value)),
        (PrimitiveType::Time, PrimitiveLiteral::Long(value)) => ScalarValue::Time64Microsecond(Some(*value)),
        (PrimitiveType::Timestamp, PrimitiveLiteral::Long(value)) => {
            ScalarValue::TimestampMicrosecond(Some(*value), None)
        }
        (PrimitiveType::Timestamptz, PrimitiveLiteral::Long(value)) => {
            ScalarValue::TimestampMicrosecond(Some(*value), Some("+00:00".into()))
        }
        (PrimitiveType::Decimal { precision, scale }, PrimitiveLiteral::Int128(value)) => {
            ScalarValue::Decimal128(Some(*value), u8::try_from(*precision).ok()?, i8::try_from(*scale).ok()?)
        }
        (PrimitiveType::String, PrimitiveLiteral::String(value)) => ScalarValue::Utf8(Some(value.clone())),
        _ => return None,
    })
}

/// An Iceberg table as a table of these columns.
#[derive(Debug)]
pub struct IcebergTable {
    path: PathBuf,
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl IcebergTable {
    /// Reads nothing yet: a table that does not fit is an error of the scan.
    pub fn new(path: PathBuf, columns: Vec<Column>) -> IcebergTable {
        let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
        IcebergTable { path, columns, schema }
    }

    fn is_float(&self, name: &str) -> bool {
        let field = self.schema.field_with_name(name);
        field.is_ok_and(|field| floats::is_float(field.data_type()))
    }

    /// The files that may have rows of interest. Pruning is an optimization: where it cannot be done every file is read.
    fn pruned(&self, state: &dyn Session, filters: &[Expr], files: Vec<LakeFile>) -> DfResult<Vec<LakeFile>> {
        let prunes = |filter: &&Expr| {
            !filter.is_volatile() && !filter.column_refs().iter().any(|column| self.is_float(&column.name))
        };
        let Some(filter) = conjunction(filters.iter().filter(prunes).cloned()) else { return Ok(files) };
        let predicate = state.create_physical_expr(filter, &DFSchema::try_from(self.schema.clone())?)?;
        let bounds = files.iter().map(|file| file.bounds.clone()).collect();
        let bounds = PrunableStatistics::new(bounds, self.schema.clone());
        let keep = PruningPredicate::try_new(predicate, self.schema.clone()).and_then(|pruning| pruning.prune(&bounds));
        Ok(match keep {
            Ok(keep) => files.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| file).collect(),
            Err(_) => files,
        })
    }

    async fn found(&self) -> Result<(Loaded, Vec<i32>, Vec<LakeFile>, Deleted)> {
        let loaded = Loaded::at(&self.path).await?;
        check(&loaded.file, &loaded.arrow()?, &self.columns)?;
        let ids = loaded.ids(&self.columns)?;
        let (files, deleted) = loaded.files(&ids, &self.schema).await?;
        Ok((loaded, ids, files, deleted))
    }
}

#[async_trait]
impl TableProvider for IcebergTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Inexact: files, row groups and pages are left out by their bounds, the filter stays above.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let failed = |error: FilesError| DataFusionError::External(Box::new(error));
        let (loaded, ids, files, deleted) = self.found().await.map_err(failed)?;
        let files = self.pruned(state, filters, files)?;
        let deleted = deleted.of(&files).await.map_err(failed)?;
        let names = loaded.names().map_err(failed)?;
        let store = state.runtime_env().object_store(ObjectStoreUrl::local_filesystem())?;
        let table =
            iceberg_scan::Wanted { columns: &self.columns, schema: &self.schema, ids: &ids, names: &names, store };
        let projection = projection.cloned().unwrap_or_else(|| (0..self.columns.len()).collect());
        let partitions = state.config().target_partitions();
        let groups = table.groups(&files, &deleted).await.map_err(failed)?;
        table.plan(groups, &projection, partitions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metadata_file_has_a_version_by_its_name() {
        let cases = [
            ("00003-5d2c.metadata.json", Some(3)),
            ("v12.metadata.json", Some(12)),
            ("v12.gz.metadata.json", Some(12)),
            ("00010-a.metadata.json.gz", Some(10)),
            ("snap-3.avro", None),
            ("v.metadata.json", None),
            ("version-hint.text", None),
        ];
        for (name, expected) in cases {
            assert_eq!(version(name), expected, "{name}");
        }
    }

    #[test]
    fn a_location_is_a_path_of_the_local_disk_or_refused() {
        for location in ["file:///a/b", "file:/a/b", "/a/b"] {
            assert_eq!(local(location), Ok(PathBuf::from("/a/b")), "{location}");
        }
        assert_eq!(local("/a/b:c"), Ok(PathBuf::from("/a/b:c")));
        assert_eq!(local("s3://bucket/a").map_err(|error| error.sqlstate), Err("0A000"));
    }
}
