//! Tables that are files of somebody else: `CREATE TABLE t [(columns)] WITH (connector = 'parquet' | 'csv' | 'iceberg', path = '…')`.

mod csv;
mod csv_columns;

use crate::{database::Database, pg::PgError};
use csv::{CsvFormat, CsvTable};
use datafusion::{catalog::TableProvider, error::DataFusionError};
use std::sync::Arc;
use tidemark_catalog::{Encode, ObjectId, Relation};
use tidemark_connectors::files::{self, FilesTable, IcebergTable, iceberg_table};
use tidemark_planner::statement::CreateRelation;

/// Looks at the files: gives the relation their columns, or checks those that were declared.
pub async fn complete(database: &Database, create: &CreateRelation, relation: &mut Relation) -> Result<(), PgError> {
    let name = create.name.to_string();
    let connector = relation.connector().unwrap_or_default().to_string();
    let (of, example) = match connector.as_str() {
        "csv" => ("of CSV files", "path = '/folder/file.csv', a folder, or '/folder/a*.csv'"),
        "iceberg" => ("of an Iceberg table", "path = '/folder/table', or one of its metadata files"),
        _ => ("of Parquet files", "path = '/folder/file.parquet', a folder, or '/folder/a*.parquet'"),
    };
    let mut known = vec!["connector", "path"];
    if connector == "csv" {
        known.extend(csv::OPTIONS);
    }
    if let Some(option) = create.options.keys().find(|option| !known.contains(&option.as_str())) {
        return Err(PgError::error("22023", format!("table \"{name}\" {of} has no option \"{option}\""))
            .hint(format!("options are {}", known.join(", "))));
    }
    let refused = [
        (!create.primary_key.is_empty(), "PRIMARY KEY"),
        (create.watermark.is_some(), "WATERMARK"),
        (create.upsert || create.encode != Encode::Json, "FORMAT"),
    ];
    if let Some((_, what)) = refused.iter().find(|(is_there, _)| *is_there) {
        return Err(PgError::error("0A000", format!("table \"{name}\" {of} cannot have a {what}"))
            .hint("files are read as they are; CREATE TABLE … and INSERT … SELECT from them keeps what is declared"));
    }
    let path = create
        .options
        .get("path")
        .filter(|path| !path.is_empty())
        .ok_or_else(|| PgError::error("22023", format!("table \"{name}\" {of} needs a path")).hint(example))?;
    let path = database.folder.join(path);
    let infers = create.columns.is_empty();
    match (connector.as_str(), infers) {
        ("csv", _) => {
            let format = CsvFormat::of(&name, &relation.options)?;
            match infers {
                true => relation.columns = csv_columns::infer(&name, &path, &format).await?,
                false => csv_columns::verify(&name, &path, &format, &relation.columns).await?,
            }
        }
        ("iceberg", true) => relation.columns = iceberg_table::infer(&path).await?,
        ("iceberg", false) => iceberg_table::verify(&path, &relation.columns).await?,
        (_, true) => relation.columns = files::infer(&path).await?,
        (_, false) => files::verify(&path, &relation.columns).await?,
    }
    Ok(())
}

/// The files as a table to scan; `None` where the table was dropped meanwhile.
pub fn provider(database: &Database, id: ObjectId) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
    let snapshot = database.snapshot();
    let Some(object) = snapshot.get_id(id) else { return Ok(None) };
    let Some((relation, path)) = object.relation().and_then(|relation| Some((relation, relation.files()?))) else {
        return Ok(None);
    };
    let (path, columns) = (database.folder.join(path), relation.columns.clone());
    Ok(Some(match relation.connector() {
        Some("csv") => {
            let format = CsvFormat::of(&object.name, &relation.options);
            let format = format.map_err(|error| DataFusionError::External(Box::new(error)))?;
            Arc::new(CsvTable::new(path, columns, format))
        }
        Some("iceberg") => Arc::new(IcebergTable::new(path, columns)),
        _ => Arc::new(FilesTable::new(path, columns)),
    }))
}
