//! `CREATE TABLE t AS query`.

use super::{
    create_relation::{exists, named, placed},
    insert::fit,
    query,
};
use crate::{
    database::Database,
    pg::{Outcome, PgError},
    progress::Doing,
    session::Session,
};
use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast;
use futures::TryStreamExt;
use std::sync::Arc;
use tidemark_catalog::{Body, Column, Object, QualifiedName, Relation};
use tidemark_engine::{progress::Phase, runtime::Conflict};
use tidemark_planner::{shown, words::type_name};

/// What is to be made; `temporary`: whether it ends with its transaction, if it is the session's own.
pub struct NewTable<'a> {
    pub name: &'a QualifiedName,
    pub query: &'a ast::Query,
    pub sql: &'a str,
    pub temporary: Option<bool>,
}

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    NewTable { name, query, sql, temporary }: NewTable<'_>,
    if_not_exists: bool,
) -> Result<Outcome, PgError> {
    let existing = |session: &Session| named(database, session, name, temporary);
    if let Some(existing) = existing(session)? {
        let catalog = database.owner()?.catalog.lock().await;
        return exists(session, &catalog, &existing, if_not_exists, "CREATE TABLE AS");
    }
    let running = database.begin(session, Doing::new("CREATE TABLE AS", &name.to_string(), Some("rows")));
    let (schema, mut batches) = query::run(database, session, query, &[], &[]).await?;
    let columns = columns(&schema)?;
    let mut catalog = Some(database.owner()?.catalog.lock().await);
    let Some(locked) = &mut catalog else { return Err(PgError::error("XX000", "the catalog is not locked")) };
    if let Some(existing) = existing(session)? {
        return exists(session, locked, &existing, if_not_exists, "CREATE TABLE AS");
    }
    let (place, sql) = placed(&session.lasting(database), name, temporary, sql)?;
    let object = Object {
        id: locked.allocate_id().await?,
        name: name.name.clone(),
        created_us: database.clock.now_us(),
        comment: None,
        place,
        body: Body::Table(Relation::plain(columns, sql)),
    };
    database.owner()?.engine.create_source(&object).await?;
    if let Some(ends_with_transaction) = temporary {
        // Nobody else is concerned. Given up half way it is the session's to remove.
        catalog = None;
        session.begin_temporary(object.clone(), ends_with_transaction);
    }
    let all: Vec<usize> = (0..object.columns().len()).collect();
    running.count_rows(Phase::Computing, database.clock.now_us());
    // Filled before it is in the catalog: whoever sees the table sees all of it.
    let filled: Result<usize, PgError> = async {
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await? {
            if batch.num_rows() > 0 {
                running.add(batch.num_rows());
                let batch = fit(&object, &all, &batch, &session.format.time_zone)?;
                rows += database.owner()?.engine.ingest(object.id, vec![batch], Conflict::Error).await?.rows;
            }
        }
        match &mut catalog {
            None => session.show_temporary(database, object.id),
            Some(catalog) => {
                // A commit that is given up half-way may have happened, and nobody here would know.
                let _held = session.hold.hold();
                database.create(catalog, session, object.clone()).await?;
            }
        }
        Ok(rows)
    }
    .await;
    match filled {
        Ok(rows) => Ok(Outcome::Done { tag: format!("SELECT {rows}").into() }),
        Err(error) => {
            if !session.drop_temporary(database, object.id).await? {
                database.owner()?.engine.drop_source(object.id).await?;
            }
            Err(error)
        }
    }
}

/// The columns of a result, to be kept.
pub fn columns(schema: &Schema) -> Result<Vec<Column>, PgError> {
    let mut columns: Vec<Column> = vec![];
    for field in schema.fields() {
        let ty = shown::sql_type(field).ok_or_else(|| {
            PgError::error(
                "0A000",
                format!(
                    "column \"{}\" has a type that cannot be stored: {}",
                    field.name(),
                    type_name(field.data_type())
                ),
            )
        })?;
        if columns.iter().any(|c| &c.name == field.name()) {
            return Err(PgError::error("42701", format!("column \"{}\" specified more than once", field.name()))
                .hint("name the columns with AS"));
        }
        columns.push(Column { name: field.name().clone(), ty, not_null: false, comment: None });
    }
    Ok(columns)
}
