//! Tables that are Parquet files of somebody else: `CREATE TABLE t [(columns)] WITH (connector = 'parquet', path = '…')`.

use crate::{database::Database, pg::PgError};
use datafusion::catalog::TableProvider;
use std::sync::Arc;
use tidemark_catalog::{Encode, ObjectId, Relation};
use tidemark_connectors::files::{self, FilesTable};
use tidemark_planner::statement::CreateRelation;

/// Looks at the files: gives the relation their columns, or checks those that were declared.
pub async fn complete(database: &Database, create: &CreateRelation, relation: &mut Relation) -> Result<(), PgError> {
    let name = &create.name;
    if let Some(option) = create.options.keys().find(|option| !["connector", "path"].contains(&option.as_str())) {
        return Err(PgError::error("22023", format!("table \"{name}\" of Parquet files has no option \"{option}\""))
            .hint("options are connector, path"));
    }
    let refused = [
        (!create.primary_key.is_empty(), "PRIMARY KEY"),
        (create.watermark.is_some(), "WATERMARK"),
        (create.upsert || create.encode != Encode::Json, "FORMAT"),
    ];
    if let Some((_, what)) = refused.iter().find(|(is_there, _)| *is_there) {
        return Err(PgError::error("0A000", format!("table \"{name}\" of Parquet files cannot have a {what}"))
            .hint("files are read as they are; CREATE TABLE … and INSERT … SELECT from them keeps what is declared"));
    }
    let path = create.options.get("path").filter(|path| !path.is_empty()).ok_or_else(|| {
        PgError::error("22023", format!("table \"{name}\" of Parquet files needs a path"))
            .hint("path = '/folder/file.parquet', a folder, or '/folder/a*.parquet'")
    })?;
    let path = database.folder.join(path);
    if create.columns.is_empty() {
        relation.columns = files::infer(&path).await?;
        return Ok(());
    }
    files::verify(&path, &relation.columns).await?;
    Ok(())
}

/// The files as a table to scan; `None` where the table was dropped meanwhile.
pub fn provider(database: &Database, id: ObjectId) -> Option<Arc<dyn TableProvider>> {
    let snapshot = database.snapshot();
    let relation = snapshot.get_id(id)?.relation()?;
    let path = database.folder.join(relation.files()?);
    Some(Arc::new(FilesTable::new(path, relation.columns.clone())))
}
