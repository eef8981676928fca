//! A table that is Parquet files on the local disk, written by somebody else: read only, listed anew by every query.
//!
//! Columns go by name. A file's column becomes ours only where that loses nothing; otherwise the file is refused, before a row
//! of it is read. So every query reads the footers of all files first: some kilobytes each, which the scan needs anyway.
//! Iceberg tables of somebody else's ([`IcebergTable`]) are read by the same rules for types.

mod arrow_files;
mod deletes;
mod floats;
mod iceberg_scan;
pub mod iceberg_table;

pub use arrow_files::ArrowFiles;
pub use iceberg_table::IcebergTable;

use arrow::{
    compute::can_cast_types,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DFSchema, Statistics, stats::Precision},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder},
        source::DataSourceExec,
    },
    error::{DataFusionError, Result as DfResult},
    execution::object_store::ObjectStoreUrl,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_plan::ExecutionPlan,
};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tidemark_catalog::{Column, SqlType};

/// Why files cannot be read as a table; in a query it comes inside [`DataFusionError::External`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FilesError {
    /// 58P01 no such file, 58030 cannot be read, 42703, 42701 and 42P17 a column that is missing, there twice, or none, 42804
    /// another type, 0A000 a type that SQL does not have.
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl FilesError {
    pub fn new(sqlstate: &'static str, message: String) -> FilesError {
        FilesError { sqlstate, message, detail: None, hint: None }
    }

    pub fn detail(self, detail: String) -> FilesError {
        FilesError { detail: Some(detail), ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> FilesError {
        FilesError { hint: Some(hint.into()), ..self }
    }

    pub fn unreadable(file: &Path, error: &io::Error) -> FilesError {
        let message = format!("could not read \"{}\": {error}", file.display());
        match error.kind() {
            io::ErrorKind::NotFound => FilesError::new("58P01", message).hint("it is a path on the server's machine"),
            _ => FilesError::new("58030", message),
        }
    }
}

type Result<T> = std::result::Result<T, FilesError>;

/// The columns of the files at `path`, by those of the first, none NOT NULL; every other file must have them too.
pub async fn infer(path: &Path) -> Result<Vec<Column>> {
    let files = list(path, "parquet").await?;
    let Some(first) = files.first() else { return Ok(vec![]) };
    let found = footer(first).await?.schema().clone();
    let mut columns: Vec<Column> = vec![];
    for field in found.fields() {
        if columns.iter().any(|column| column.name == *field.name()) {
            let message = format!("file \"{}\" has more than one column \"{}\"", first.display(), field.name());
            return Err(FilesError::new("42701", message).hint("in a table every column has a name of its own"));
        }
        columns.push(column(first, field)?);
    }
    if columns.is_empty() {
        return Err(FilesError::new("42P17", format!("file \"{}\" has no columns", first.display())));
    }
    for file in &files[1..] {
        check(file, footer(file).await?.schema(), &columns)?;
    }
    Ok(columns)
}

/// Whether all files at `path` have these columns.
pub async fn verify(path: &Path, columns: &[Column]) -> Result<()> {
    for file in &list(path, "parquet").await? {
        check(file, footer(file).await?.schema(), columns)?;
    }
    Ok(())
}

/// The files of a path, in the order of their names: the file itself; those of a folder that end in `.extension`; those whose
/// name matches, where the last part of the path has `*`. Names that begin with `.` or `_` are other programs' notes
/// (`_SUCCESS`, half-written files) and are left out. Folders within are not looked into.
pub async fn list(path: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let unreadable = |error: io::Error| FilesError::unreadable(path, &error);
    let last = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let all = format!("*.{extension}");
    let (folder, pattern) = match path.parent() {
        Some(folder) if last.contains('*') => (folder, last.as_str()),
        _ if tokio::fs::metadata(path).await.map_err(unreadable)?.is_dir() => (path, all.as_str()),
        _ => return Ok(vec![path.to_path_buf()]),
    };
    let mut entries = tokio::fs::read_dir(folder).await.map_err(unreadable)?;
    let mut files = vec![];
    while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(['.', '_']) || !matches(pattern, &name) {
            continue;
        }
        // Of what a link points to.
        if tokio::fs::metadata(entry.path()).await.map_err(unreadable)?.is_file() {
            files.push(entry.path());
        }
    }
    if files.is_empty() {
        let message = format!("there is no file \"{}\"", folder.join(pattern).display());
        return Err(FilesError::new("58P01", message)
            .hint(format!("a path on the server's machine: a file, a folder, or a*.{extension}")));
    }
    files.sort();
    Ok(files)
}

/// Whether a name matches a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let Some((middle, last)) = rest.rsplit_once('*') else { return name.ends_with(rest) };
    // The leftmost place for each part leaves most for those behind it.
    for part in middle.split('*') {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

async fn footer(path: &Path) -> Result<ArrowReaderMetadata> {
    let mut file = tokio::fs::File::open(path).await.map_err(|error| FilesError::unreadable(path, &error))?;
    ArrowReaderMetadata::load_async(&mut file, ArrowReaderOptions::new()).await.map_err(|error| {
        FilesError::new("58030", format!("\"{}\" cannot be read as Parquet", path.display())).detail(error.to_string())
    })
}

/// The SQL type that holds every value of a file's column exactly; `None` where there is none: what has nanoseconds,
/// decimals of more than 38 digits, intervals, structs, maps, lists of lists.
fn sql_type(ty: &DataType) -> Option<SqlType> {
    let sql = match ty {
        DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Time64(TimeUnit::Nanosecond) => None,
        DataType::Date64 | DataType::Interval(_) | DataType::Duration(_) => None,
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s)
            if *p > 38 || *s < 0 =>
        {
            None
        }
        DataType::Dictionary(_, value) => sql_type(value),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            match sql_type(item.data_type())? {
                SqlType::Array(_) => None,
                item => Some(SqlType::Array(Box::new(item))),
            }
        }
        _ => SqlType::from_arrow(ty),
    };
    sql.filter(|sql| *ty == sql.arrow() || can_cast_types(ty, &sql.arrow()))
}

fn column(file: &Path, field: &Field) -> Result<Column> {
    let ty = sql_type(field.data_type()).ok_or_else(|| no_counterpart(file, field))?;
    Ok(Column { name: field.name().clone(), ty, not_null: false, comment: None })
}

fn no_counterpart(file: &Path, field: &Field) -> FilesError {
    let hint = match field.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            "times have microseconds here: write it so (pandas: to_parquet(…, coerce_timestamps='us')), \
             or declare the table's columns without it"
        }
        _ => "declare the table's columns without it",
    };
    let message = format!("column \"{}\" of file \"{}\" has no type in SQL", field.name(), file.display());
    FilesError::new("0A000", message).detail(format!("its type is {}", field.data_type())).hint(hint)
}

/// Whether a type holds all values of another, unchanged.
fn holds(to: &SqlType, from: &SqlType) -> bool {
    match (from, to) {
        (SqlType::Int2, SqlType::Int4 | SqlType::Int8) | (SqlType::Int4, SqlType::Int8) => true,
        (SqlType::Float4, SqlType::Float8) => true,
        // Who takes the rows in reads the texts: no table of files has such a column.
        (SqlType::Text, SqlType::Uuid | SqlType::Json | SqlType::Jsonb) => true,
        (SqlType::Numeric { precision: p, scale: s }, SqlType::Numeric { precision, scale }) => {
            let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
            scale >= s && whole(*precision, *scale) >= whole(*p, *s)
        }
        (from, to) => from == to,
    }
}

/// Whether a file has the columns of the table; what else it has is not looked at.
fn check(file: &Path, found: &Schema, columns: &[Column]) -> Result<()> {
    for column in columns {
        let name = &column.name;
        let of_file = || format!("column \"{name}\" of file \"{}\"", file.display());
        let Ok(field) = found.field_with_name(name) else {
            let there: Vec<&str> = found.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(FilesError::new("42703", format!("file \"{}\" has no column \"{name}\"", file.display()))
                .hint(format!("it has: {}", there.join(", "))));
        };
        let ty = sql_type(field.data_type()).ok_or_else(|| no_counterpart(file, field))?;
        if !holds(&column.ty, &ty) {
            return Err(FilesError::new("42804", format!("{} is {ty}, not {}", of_file(), column.ty))
                .hint(format!("declare it {ty}, and cast it in the SELECT")));
        }
        if column.not_null && field.is_nullable() {
            return Err(FilesError::new("42804", format!("{} may be NULL", of_file()))
                .hint("leave NOT NULL out, or filter in the SELECT"));
        }
    }
    Ok(())
}

/// The files at a path as a table of these columns.
#[derive(Debug)]
pub struct FilesTable {
    path: PathBuf,
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl FilesTable {
    /// Reads nothing yet: files that do not fit are an error of the scan.
    pub fn new(path: PathBuf, columns: Vec<Column>) -> FilesTable {
        let schema = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
        FilesTable { path, columns, schema }
    }

    fn reads_floats(&self, projection: Option<&Vec<usize>>) -> bool {
        let is_float = |at: usize| floats::is_float(self.schema.field(at).data_type());
        match projection {
            Some(columns) => columns.iter().any(|at| is_float(*at)),
            None => (0..self.schema.fields().len()).any(is_float),
        }
    }

    async fn files(&self) -> Result<Vec<PartitionedFile>> {
        let mut files = vec![];
        for file in list(&self.path, "parquet").await? {
            let footer = footer(&file).await?;
            check(&file, footer.schema(), &self.columns)?;
            let unreadable = |error: io::Error| FilesError::unreadable(&file, &error);
            let bytes = tokio::fs::metadata(&file).await.map_err(unreadable)?.len();
            let absolute = tokio::fs::canonicalize(&file).await.map_err(unreadable)?;
            let location = object_store::path::Path::from_absolute_path(&absolute)
                .map_err(|error| FilesError::unreadable(&file, &io::Error::other(error)))?;
            let mut partitioned = PartitionedFile::new("", bytes);
            partitioned.object_meta.location = location;
            let rows = usize::try_from(footer.metadata().file_metadata().num_rows()).unwrap_or_default();
            // What the planner chooses a join's sides by. Inexact: the file may be another when it is read.
            let statistics = Statistics { num_rows: Precision::Inexact(rows), ..Statistics::new_unknown(&self.schema) };
            files.push(partitioned.with_statistics(Arc::new(statistics)));
        }
        Ok(files)
    }
}

#[async_trait]
impl TableProvider for FilesTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Inexact: row groups and pages are left out by their bounds, the filter stays above. Columns of a filter that is not
    /// handed down whole stay in the projection.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let files = self.files().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let store = state.runtime_env().object_store(ObjectStoreUrl::local_filesystem())?;
        let mut source = floats::source(self.schema.clone(), self.reads_floats(projection), store);
        if let Some(filter) = conjunction(filters.iter().cloned()) {
            let schema = DFSchema::try_from(self.schema.clone())?;
            source = source.with_predicate(state.create_physical_expr(filter, &schema)?);
        }
        // In turn: DataFusion divides them again by bytes where that is worth it.
        let mut groups = vec![vec![]; state.config().target_partitions().clamp(1, files.len().max(1))];
        let partitions = groups.len();
        for (at, file) in files.into_iter().enumerate() {
            groups[at % partitions].push(file);
        }
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::local_filesystem(), Arc::new(source))
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        let cases = [
            ("*.parquet", "a.parquet", true),
            ("*.parquet", "a.parquet.part", false),
            ("a*", "a", true),
            ("a*a", "a", false),
            ("day-*-*.parquet", "day-1-2.parquet", true),
            ("day-*-*.parquet", "day-1.parquet", false),
            ("*b*c*", "abxc", true),
            ("*b*c*", "acxb", false),
            ("**", "", true),
            ("a.parquet", "a.parquet", true),
        ];
        for (pattern, name, is_match) in cases {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }

    #[test]
    fn a_column_is_taken_only_where_nothing_is_lost() {
        let list = |item: DataType| DataType::List(Arc::new(Field::new("element", item, true)));
        let utc = |unit: TimeUnit| DataType::Timestamp(unit, Some("UTC".into()));
        let cases = [
            (DataType::UInt8, Some("smallint")),
            (DataType::UInt16, Some("integer")),
            (DataType::UInt32, Some("bigint")),
            (DataType::UInt64, Some("numeric(20,0)")),
            (DataType::Decimal128(38, 10), Some("numeric(38,10)")),
            (DataType::Decimal256(39, 0), None),
            (DataType::LargeUtf8, Some("text")),
            (DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), Some("text")),
            (DataType::FixedSizeBinary(16), Some("bytea")),
            (utc(TimeUnit::Millisecond), Some("timestamp with time zone")),
            (utc(TimeUnit::Microsecond), Some("timestamp with time zone")),
            (utc(TimeUnit::Nanosecond), None),
            (DataType::Timestamp(TimeUnit::Nanosecond, None), None),
            (DataType::Time32(TimeUnit::Millisecond), Some("time without time zone")),
            (DataType::Time64(TimeUnit::Nanosecond), None),
            (list(DataType::Float32), Some("real[]")),
            (list(list(DataType::Float32)), None),
            (list(DataType::Timestamp(TimeUnit::Nanosecond, None)), None),
            (DataType::Struct(vec![Field::new("a", DataType::Int32, true)].into()), None),
        ];
        for (ty, expected) in cases {
            assert_eq!(sql_type(&ty).map(|ty| ty.to_string()).as_deref(), expected, "{ty}");
        }
    }

    #[test]
    fn a_declared_type_may_be_wider_than_the_file_and_never_narrower() {
        let numeric = |precision, scale| SqlType::Numeric { precision, scale };
        assert!(holds(&SqlType::Int8, &SqlType::Int2) && !holds(&SqlType::Int2, &SqlType::Int8));
        assert!(holds(&SqlType::Float8, &SqlType::Float4) && !holds(&SqlType::Float8, &SqlType::Int8));
        assert!(holds(&numeric(12, 3), &numeric(10, 2)) && !holds(&numeric(10, 3), &numeric(10, 2)));
        assert!(!holds(&SqlType::TimestampTz, &SqlType::Timestamp) && holds(&SqlType::Text, &SqlType::Text));
    }
}
