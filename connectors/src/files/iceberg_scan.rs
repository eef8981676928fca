//! The plan that reads the data files of an Iceberg table: each column by its field id, wherever and under whatever name a file
//! has it.
//!
//! Files that have the columns alike are read by one scan; where they do not all, the scans are put together.

use super::{
    FilesError, Result,
    deletes::{Positions, access},
    floats, footer, holds,
    iceberg_table::local,
    no_counterpart, sql_type,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::{Statistics, config::TableParquetOptions},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder},
        source::DataSourceExec,
    },
    error::Result as DfResult,
    execution::object_store::ObjectStoreUrl,
    physical_expr::{
        PhysicalExpr,
        expressions::{Column as At, Literal},
    },
    physical_plan::{ExecutionPlan, empty::EmptyExec, projection::ProjectionExec, union::UnionExec},
    scalar::ScalarValue,
};
use object_store::ObjectStore;
use parquet::{arrow::arrow_reader::ArrowReaderMetadata, schema::types::Type};
use std::{collections::HashMap, io, path::Path, sync::Arc};
use tidemark_catalog::Column;

/// A data file of the current snapshot.
#[derive(Debug)]
pub(super) struct LakeFile {
    /// As the metadata has it.
    pub location: String,
    pub bytes: u64,
    /// Of the commit that added it.
    pub sequence: i64,
    /// For each column its value in all rows, where the file's partition says so.
    pub constants: Vec<Option<ScalarValue>>,
    pub bounds: Arc<Statistics>,
}

/// Where the values of a column come from.
#[derive(Debug, Clone, PartialEq)]
enum From {
    /// The file's column of this name.
    File(String),
    /// The file is older than the column, or its partition has the value.
    Constant(ScalarValue),
}

/// Files that have the columns alike.
pub(super) struct Group {
    from: Vec<From>,
    /// Some rows are left out.
    has_deletes: bool,
    files: Vec<PartitionedFile>,
}

/// The table that is read.
pub(super) struct Wanted<'a> {
    pub columns: &'a [Column],
    pub schema: &'a SchemaRef,
    /// The columns' field ids.
    pub ids: &'a [i32],
    /// What files without field ids call their columns, by field id.
    pub names: &'a HashMap<i32, Vec<String>>,
    /// The local disk.
    pub store: Arc<dyn ObjectStore>,
}

impl Wanted<'_> {
    /// Reads the footers, and finds each file's columns.
    pub(super) async fn groups(&self, files: &[LakeFile], deleted: &Positions) -> Result<Vec<Group>> {
        let mut groups: Vec<Group> = vec![];
        for file in files {
            let path = local(&file.location)?;
            let footer = footer(&path).await?;
            let from = self.from(&path, &footer, &file.constants)?;
            let mut partitioned = partitioned(&path, file).await?;
            let gone = deleted.get(&file.location);
            if let Some(gone) = gone {
                let rows = footer.metadata().row_groups().iter().map(|group| group.num_rows().max(0) as u64);
                partitioned = partitioned.with_extension(access(gone, rows));
            }
            let has_deletes = gone.is_some();
            match groups.iter_mut().find(|group| group.has_deletes == has_deletes && group.from == from) {
                Some(group) => group.files.push(partitioned),
                None => groups.push(Group { from, has_deletes, files: vec![partitioned] }),
            }
        }
        Ok(groups)
    }

    fn from(&self, path: &Path, footer: &ArrowReaderMetadata, constants: &[Option<ScalarValue>]) -> Result<Vec<From>> {
        let fields = footer.metadata().file_metadata().schema_descr().root_schema().get_fields();
        let id = |field: &Type| field.get_basic_info().has_id().then(|| field.get_basic_info().id());
        let has_ids = fields.iter().any(|field| id(field).is_some());
        if !has_ids && self.names.is_empty() {
            let message = format!("file \"{}\" of the Iceberg table has no field ids", path.display());
            return Err(FilesError::new("0A000", message)
                .hint("set schema.name-mapping.default where the table is written, or read the files with connector = 'parquet'"));
        }
        let mut all = vec![];
        for (at, column) in self.columns.iter().enumerate() {
            let is_it = |field: &Type| match has_ids {
                true => id(field) == Some(self.ids[at]),
                false => {
                    self.names.get(&self.ids[at]).is_some_and(|names| names.iter().any(|name| name == field.name()))
                }
            };
            let found = fields.iter().find(|field| is_it(field));
            all.push(match (found, &constants[at]) {
                (Some(field), _) => {
                    self.fits(path, footer, field.name(), column)?;
                    From::File(field.name().to_string())
                }
                (None, Some(constant)) => From::Constant(constant.clone()),
                (None, None) if column.not_null => {
                    let message = format!("file \"{}\" has no column \"{}\"", path.display(), column.name);
                    return Err(FilesError::new("42804", message).hint("leave NOT NULL out"));
                }
                (None, None) => From::Constant(null(&column.ty.arrow())),
            });
        }
        Ok(all)
    }

    fn fits(&self, path: &Path, footer: &ArrowReaderMetadata, name: &str, column: &Column) -> Result<()> {
        let missing = || FilesError::new("58030", format!("\"{}\" has no Arrow column \"{name}\"", path.display()));
        let field = footer.schema().field_with_name(name).map_err(|_| missing())?;
        let ty = sql_type(field.data_type()).ok_or_else(|| no_counterpart(path, field))?;
        match holds(&column.ty, &ty) {
            true => Ok(()),
            false => Err(FilesError::new(
                "42804",
                format!("column \"{name}\" of file \"{}\" is {ty}, not {}", path.display(), column.ty),
            )),
        }
    }

    /// All groups, each by a scan of its own.
    pub(super) fn plan(
        &self,
        groups: Vec<Group>,
        projection: &[usize],
        partitions: usize,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        if groups.is_empty() {
            return Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(projection)?))));
        }
        let scans = groups.into_iter().map(|group| self.scan(group, projection, partitions));
        UnionExec::try_new(scans.collect::<DfResult<Vec<_>>>()?)
    }

    fn scan(&self, group: Group, projection: &[usize], partitions: usize) -> DfResult<Arc<dyn ExecutionPlan>> {
        // The columns that the files have, in the table's order and types and under the files' names; and of each of the table's
        // columns its place there.
        let (mut fields, mut places) = (vec![], vec![]);
        for (field, from) in self.schema.fields().iter().zip(&group.from) {
            places.push(match from {
                From::File(name) => {
                    fields.push(Field::new(name, field.data_type().clone(), field.is_nullable()));
                    Some(fields.len() - 1)
                }
                From::Constant(_) => None,
            });
        }
        let read: Vec<usize> = projection.iter().filter_map(|at| places[*at]).collect();
        let reads_floats = read.iter().any(|at| floats::is_float(fields[*at].data_type()));
        let mut source = floats::source(Arc::new(Schema::new(fields)), reads_floats, self.store.clone());
        // Where rows are left out, nothing may choose row groups by what is known of all their rows.
        if group.has_deletes {
            let mut options = TableParquetOptions::default();
            options.global.pruning = false;
            options.global.enable_page_index = false;
            options.global.bloom_filter_on_read = false;
            source = source.with_table_parquet_options(options);
        }
        let mut files = vec![vec![]; partitions.clamp(1, group.files.len().max(1))];
        let partitions = files.len();
        for (at, file) in group.files.into_iter().enumerate() {
            files[at % partitions].push(file);
        }
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(files.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(Some(read))?
            .build();
        let scan = DataSourceExec::from_data_source(config);
        let mut place = 0;
        let mut shown: Vec<(Arc<dyn PhysicalExpr>, String)> = vec![];
        for at in projection {
            let expr: Arc<dyn PhysicalExpr> = match &group.from[*at] {
                From::File(name) => {
                    place += 1;
                    Arc::new(At::new(name, place - 1))
                }
                From::Constant(value) => Arc::new(Literal::new(value.clone())),
            };
            shown.push((expr, self.schema.field(*at).name().clone()));
        }
        let is_as_it_is =
            |(at, from): (&usize, &From)| matches!(from, From::File(name) if name == self.schema.field(*at).name());
        if projection.iter().map(|at| (at, &group.from[*at])).all(is_as_it_is) {
            return Ok(scan);
        }
        Ok(Arc::new(ProjectionExec::try_new(shown, scan)?))
    }
}

fn null(ty: &DataType) -> ScalarValue {
    // Every type of ours has one.
    ScalarValue::try_from(ty).unwrap_or(ScalarValue::Null)
}

async fn partitioned(path: &Path, file: &LakeFile) -> Result<PartitionedFile> {
    let unreadable = |error: io::Error| FilesError::unreadable(path, &error);
    let absolute = tokio::fs::canonicalize(path).await.map_err(unreadable)?;
    let location =
        object_store::path::Path::from_absolute_path(&absolute).map_err(|error| unreadable(io::Error::other(error)))?;
    let mut partitioned = PartitionedFile::new("", file.bytes);
    partitioned.object_meta.location = location;
    Ok(partitioned)
}
