//! SQL-level `PREPARE`, `EXECUTE`, `DEALLOCATE`.

use super::{
    done,
    lookup_deadline::{self, Finding},
};
use crate::{
    database::Database,
    pg::{Bound, Completed, Formats, Outcome, PgError},
    prepared::Prepared,
    session::Session,
    wire::{FieldFormat, RowEncoder, types::pg_type_of_sql},
};
use bytes::{Bytes, BytesMut};
use datafusion::{scalar::ScalarValue, sql::sqlparser::ast};
use std::sync::Arc;
use tidemark_catalog::SqlType;
use tidemark_planner::{
    Statement,
    bind::{Binder, NoSystemTables},
    statement::Parsed,
};

pub async fn prepare(
    database: &Arc<Database>,
    session: &mut Session,
    name: &str,
    types: &[SqlType],
    statement: &Parsed,
) -> Result<Outcome, PgError> {
    if session.prepared.contains_key(name) {
        return Err(PgError::error("42P05", format!("prepared statement \"{name}\" already exists")));
    }
    let declared: Vec<u32> = types.iter().map(|t| pg_type_of_sql(t).oid).collect();
    let prepared = Prepared::new(database, session, statement.clone(), &declared, false).await?;
    session.prepared.insert(name.to_string(), Arc::new(prepared));
    done("PREPARE")
}

/// The statement of that name, and these arguments as a client would have sent them.
fn bind(
    database: &Arc<Database>,
    session: &Session,
    name: &str,
    arguments: &[ast::Expr],
    result_formats: Formats,
) -> Result<(Arc<Prepared>, Bound), PgError> {
    let prepared = session
        .prepared
        .get(name)
        .cloned()
        .ok_or_else(|| PgError::error("26000", format!("prepared statement \"{name}\" does not exist")))?;
    if arguments.len() != prepared.parameter_oids.len() {
        return Err(PgError::error("42601", format!("wrong number of parameters for prepared statement \"{name}\""))
            .detail(format!("expected {} parameters but got {}", prepared.parameter_oids.len(), arguments.len())));
    }
    let now_us = database.clock.now_us();
    let snapshot = session.snapshot(database);
    let mut parameters = vec![];
    for argument in arguments {
        let binder = Binder::new(&snapshot, &session.state, &NoSystemTables, now_us);
        parameters.push(as_text(session, binder.constant(argument, now_us)?)?);
    }
    Ok((prepared, Bound { parameters, parameter_formats: Default::default(), result_formats }))
}

/// The same for who does not run it: what it is, and its parameters.
pub fn explained(
    database: &Arc<Database>,
    session: &Session,
    name: &str,
    arguments: &[ast::Expr],
) -> Result<(Statement, Vec<ScalarValue>), PgError> {
    let (prepared, bound) = bind(database, session, name, arguments, Default::default())?;
    let parameters = super::parameters(session, &prepared, &bound)?;
    let parsed = prepared.parsed.as_ref();
    let statement = parsed.map(|parsed| parsed.statement.clone());
    Ok((statement.ok_or_else(|| PgError::error("XX000", format!("\"{name}\" was not parsed")))?, parameters))
}

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    name: &str,
    arguments: &[ast::Expr],
    bound: &Bound,
) -> Result<Outcome, PgError> {
    let (prepared, inner) = bind(database, session, name, arguments, bound.result_formats.clone())?;
    let begun_us = database.clock.now_us();
    lookup_deadline::wait_for_views(database, session, &prepared).await?;
    let mut messages = BytesMut::new();
    let mut finding = Finding::of(session);
    let is_on_path = prepared.path == session.path_key(database);
    let done = match (&prepared.lookup, &prepared.service) {
        _ if !is_on_path => None,
        (Some(lookup), _) if session.rights.may_read(lookup.shape.view) => {
            super::lookup::execute(database, session, &prepared, lookup, &inner, &mut finding, &mut messages)
        }
        (None, Some(service)) => {
            super::service_lookup::execute(database, session, &prepared, service, &inner, &mut finding, &mut messages)
        }
        _ => None,
    };
    if let Some(done) = done {
        let completed: Completed = done?;
        let of_service = prepared.service.iter().flat_map(|service| service.views());
        session.warn_of_deprecated(prepared.lookup.iter().map(|lookup| lookup.shape.view).chain(of_service));
        return Ok(Outcome::RawRows { messages, completed });
    }
    if let Some(answered) = lookup_deadline::answer(database, session, &prepared, &inner, begun_us).await? {
        return Ok(answered);
    }
    Box::pin(super::execute(database, session, &prepared, &inner)).await
}

/// A constant in text form, as a client would have sent it.
fn as_text(session: &Session, value: ScalarValue) -> Result<Option<Bytes>, PgError> {
    if value.is_null() {
        return Ok(None);
    }
    let array = value.to_array()?;
    let field = arrow::datatypes::Field::new("p", array.data_type().clone(), true);
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![field]));
    let encoder = RowEncoder::new(&schema, &[FieldFormat::Text], &session.format)?;
    let batch = arrow::array::RecordBatch::try_new(schema, vec![array])?;
    let mut row = BytesMut::new();
    encoder.encode(&batch, 0, &mut row);
    // A DataRow body: two bytes of count, four of length, then the text.
    Ok(Some(row.freeze().slice(6..)))
}

pub fn deallocate(session: &mut Session, name: Option<&str>) -> Result<Outcome, PgError> {
    match name {
        None => {
            session.prepared.clear();
            done("DEALLOCATE ALL")
        }
        Some(name) => match session.prepared.remove(name) {
            Some(_) => done("DEALLOCATE"),
            None => Err(PgError::error("26000", format!("prepared statement \"{name}\" does not exist"))),
        },
    }
}
