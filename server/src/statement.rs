//! Executing statements: one file each, this one sends them there.

mod advance_watermark;
mod alter_columns;
mod assign;
mod authorize;
pub mod change;
mod comment;
mod copy_formats;
mod copy_from;
mod copy_from_file;
mod copy_source;
mod copy_to;
mod copy_to_file;
mod copy_to_object;
mod create_aggregate;
mod create_feature_view;
mod create_relation;
mod create_table_as;
mod create_view;
pub mod drop;
mod explain;
mod explain_json;
mod file_columns;
mod files_table;
mod from_text;
mod grant;
mod index;
pub mod insert;
pub mod instants;
pub mod lookup;
pub mod lookup_deadline;
mod maintain;
pub mod merge;
mod moment;
mod prepare;
pub mod query;
mod refresh_online_store;
pub mod rename;
mod rename_aggregate;
mod reset_topic;
mod resume;
mod returning;
mod role;
mod schema;
mod secret;
pub mod served_lookup;
pub mod service_lookup;
mod set_default;
mod set_options;
mod set_owner;
mod settings;
mod show;
mod training_set;
mod zoned;

use crate::{
    audit::{self, Subject},
    database::{self, Database},
    pg::{Bound, EncodeRows, Outcome, PgError, RowsTag},
    prepared::Prepared,
    serving,
    session::{Session, Stay},
    wire::{FieldFormat, RowEncoder, decode_param},
};
use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use bytes::BytesMut;
use datafusion::scalar::ScalarValue;
use futures::{StreamExt, TryStreamExt, stream};
use std::{borrow::Cow, ops::Range, sync::Arc};
use tidemark_catalog::ObjectKind;
use tidemark_planner::{Statement, statement::ExplainFormat};

pub use returning::Returning;
pub use role::verifier;

/// Executes a prepared statement with its parameters, and keeps in the audit what is to be kept there.
pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    prepared: &Arc<Prepared>,
    bound: &Bound,
) -> Result<Outcome, PgError> {
    let Some(parsed) = &prepared.parsed else { return Ok(Outcome::Empty) };
    session.refresh(database);
    // As whom it began.
    let role = session.rights.clone();
    let outcome = run(database, session, prepared, bound).await;
    let error = outcome.as_ref().err();
    // A COPY may fail behind rows that it has put in.
    if session.in_transaction && (error.is_none() || matches!(parsed.statement, Statement::CopyFrom { .. })) {
        note_stays(database, session, &parsed.statement);
    }
    if audit::is_audited(&parsed.statement) || error.is_some_and(|error| error.sqlstate == "42501") {
        let event = changes(&parsed.statement).unwrap_or("STATEMENT".into());
        let by = Subject { user: &session.user, role: &role.name, peer: session.peer };
        database.audit.statement(database.clock.now_us(), &event, &by, &parsed.text, error);
    }
    outcome
}

async fn run(
    database: &Arc<Database>,
    session: &mut Session,
    prepared: &Arc<Prepared>,
    bound: &Bound,
) -> Result<Outcome, PgError> {
    let Some(parsed) = &prepared.parsed else { return Ok(Outcome::Empty) };
    if database.serving().is_some() {
        admit_to_serving(&parsed.statement)?;
    }
    if !goes_before_recovery(&parsed.statement) && !database.is_restored() {
        database.all_restored().await?;
        // Others have waited with it: what they have changed since, of rights too, counts.
        session.refresh(database);
    }
    if !matches!(
        parsed.statement,
        Statement::Discard { .. }
            | Statement::Set { .. }
            | Statement::SetTransaction { .. }
            | Statement::ShowSetting { .. }
    ) {
        session.check_hidden(database)?;
    }
    authorize::authorize(session, &session.snapshot(database), &parsed.statement)?;
    if let Some(command) = changes(&parsed.statement) {
        session.may_change(&command)?;
    }
    session.queried_in_transaction |= !matches!(
        parsed.statement,
        Statement::Set { .. } | Statement::SetTransaction { .. } | Statement::ShowSetting { .. }
    );
    let _held = is_whole(&parsed.statement).then(|| session.hold.hold());
    match &parsed.statement {
        Statement::Query(query) => {
            // A lookup comes here where its view was dropped or its key does not fit; the query then says how.
            let parameters = parameters(session, prepared, bound)?;
            query::execute(database, session, prepared, query, &parameters, bound).await
        }
        Statement::Insert(statement) => {
            let parameters = parameters(session, prepared, bound)?;
            insert::execute(database, session, statement, prepared, &parameters, bound).await
        }
        Statement::Change(statement) => {
            let parameters = parameters(session, prepared, bound)?;
            change::execute(database, session, statement, prepared, &parameters, bound).await
        }
        Statement::Merge(statement) => {
            let parameters = parameters(session, prepared, bound)?;
            merge::execute(database, session, statement, prepared, &parameters).await
        }
        Statement::Truncate { tables } => change::truncate(database, session, tables).await,
        Statement::CreateRelation(statement) => {
            create_relation::execute(database, session, statement, &parsed.text, None).await
        }
        Statement::CreateTableAs { name, if_not_exists, query } => {
            let table = create_table_as::NewTable { name, query, sql: &parsed.text, temporary: None };
            create_table_as::execute(database, session, table, *if_not_exists).await
        }
        Statement::CreateTemporary { create, ends_with_transaction } => {
            session.check_temporary(database).await?;
            let temporary = Some(*ends_with_transaction);
            let created = match create.as_ref() {
                Statement::CreateTableAs { name, if_not_exists, query } => {
                    let table = create_table_as::NewTable { name, query, sql: &parsed.text, temporary };
                    create_table_as::execute(database, session, table, *if_not_exists).await
                }
                Statement::CreateRelation(statement) => {
                    create_relation::execute(database, session, statement, &parsed.text, temporary).await
                }
                _ => Err(PgError::error("0A000", "only tables can be temporary")),
            };
            if !session.in_transaction {
                session.end_temporary(database).await?;
            }
            created
        }
        Statement::CreateFeatureView(statement) => {
            create_feature_view::execute(database, session, statement, &parsed.text).await
        }
        Statement::CreateView { name, if_not_exists, columns, query, query_text } => {
            let view = create_view::NewView { name, columns, query, query_text, sql: &parsed.text };
            create_view::execute(database, session, view, *if_not_exists).await
        }
        Statement::CreateAggregate(statement) => {
            create_aggregate::execute(database, session, statement, &parsed.text).await
        }
        Statement::CreateTrainingSet(statement) => {
            training_set::create(database, session, statement, &parsed.text).await
        }
        Statement::RefreshTrainingSet { name, as_recorded } => {
            training_set::refresh(database, session, name, *as_recorded).await
        }
        Statement::Drop { kind, if_exists, names, cascade } => {
            drop::execute(database, session, *kind, *if_exists, names, *cascade).await
        }
        Statement::CreateIndex(statement) => index::create(database, session, statement),
        Statement::DropIndex { if_exists, names } => index::drop(database, session, *if_exists, names),
        Statement::Rename { kind: ObjectKind::Aggregate, if_exists, name, to } => {
            rename_aggregate::execute(database, session, *if_exists, name, to).await
        }
        Statement::Rename { kind, if_exists, name, to } => {
            rename::execute(database, session, *kind, *if_exists, name, to).await
        }
        Statement::SetOptions { kind, if_exists, name, options } => {
            set_options::execute(database, session, *kind, *if_exists, name, options).await
        }
        Statement::AlterColumns { kind, if_exists, name, changes } => {
            alter_columns::execute(database, session, *kind, *if_exists, name, changes).await
        }
        Statement::SetDefault { if_exists, name, column, value } => {
            set_default::execute(database, session, *if_exists, name, column, value.as_deref()).await
        }
        Statement::AdvanceWatermark { if_exists, name, to } => {
            let parameters = parameters(session, prepared, bound)?;
            advance_watermark::execute(database, session, *if_exists, name, to, &parameters).await
        }
        Statement::ResetTopic { kind, if_exists, name, to, allow_duplicates } => {
            let parameters = parameters(session, prepared, bound)?;
            let (kind, if_exists, allow_duplicates) = (*kind, *if_exists, *allow_duplicates);
            let reset = reset_topic::Reset { kind, if_exists, name, to, allow_duplicates };
            reset_topic::execute(database, session, reset, &parameters).await
        }
        Statement::SetOwner { kind, if_exists, name, to } => {
            set_owner::execute(database, session, *kind, *if_exists, name, to).await
        }
        Statement::ReassignOwned { from, to } => set_owner::reassign(database, session, from, to).await,
        Statement::CreateSchema { name, if_not_exists, owner } => {
            schema::create(database, session, name.as_deref(), *if_not_exists, owner.as_ref()).await
        }
        Statement::DropSchema { if_exists, names, cascade } => {
            schema::drop(database, session, *if_exists, names, *cascade).await
        }
        Statement::RenameSchema { name, to } => schema::rename(database, session, name, to).await,
        Statement::SetSchemaOwner { name, to } => schema::set_owner(database, session, name, to).await,
        Statement::CommentSchema { name, text } => schema::comment(database, session, name, text.clone()).await,
        Statement::CreateRole { name, options } => role::create(database, session, name, options).await,
        Statement::AlterRole { role, options } => role::alter(database, session, role, options).await,
        Statement::RenameRole { role, to } => role::rename(database, session, role, to).await,
        Statement::DropRole { if_exists, names } => role::drop(database, session, *if_exists, names).await,
        Statement::Grant(statement) => grant::privileges(database, session, statement).await,
        Statement::GrantRoles(statement) => grant::roles(database, session, statement).await,
        Statement::CreateSecret { name, if_not_exists, value } => {
            secret::create(database, session, name, *if_not_exists, value).await
        }
        Statement::AlterSecret { name, value } => secret::alter(database, session, name, value).await,
        Statement::DropSecret { if_exists, names } => secret::drop(database, session, *if_exists, names).await,
        Statement::ShowSecrets => {
            let batch = secret::show(database)?;
            rows(session, batch, bound, "SHOW")
        }
        Statement::RefreshView { name } => {
            database::find(&session.lasting(database), ObjectKind::FeatureView, name)?;
            session.notice(format!("feature view \"{name}\" is always fresh: there is nothing to do"));
            done("REFRESH MATERIALIZED VIEW")
        }
        Statement::Resume { if_exists, name } => resume::execute(database, session, *if_exists, name).await,
        Statement::Comment { kind, name, column, text } => {
            comment::execute(database, session, *kind, name, column.as_deref(), text.clone()).await
        }
        Statement::ShowObjects(_) | Statement::ShowCreate { .. } | Statement::Describe { .. } => {
            let batch = show::rows(database, session, &parsed.statement)?;
            rows(session, batch, bound, "SHOW")
        }
        Statement::ShowSetting { name } => {
            let batch = settings::show(session, name)?;
            rows(session, batch, bound, "SHOW")
        }
        Statement::ExplainFeatureView { create, format } => {
            let batch = explain::feature_view(database, session, create, format)?;
            rows(session, batch, bound, "EXPLAIN")
        }
        Statement::Explain { analyze, verbose, format, statement } => {
            let parameters = parameters(session, prepared, bound)?;
            // As JSON there is one tree: the physical plan's.
            let verbose = *verbose && *format != ExplainFormat::Json;
            let text = explain::query(database, session, statement, *analyze, verbose, &parameters).await?;
            let batch = explain::shown(&text, format)?;
            rows(session, batch, bound, "EXPLAIN")
        }
        Statement::Checkpoint => {
            database.owner()?.engine.checkpoint().await?;
            done("CHECKPOINT")
        }
        // INSERT and COPY have applied what they say when they return: only topics are waited for.
        Statement::Flush => {
            database.owner()?.feeds.flush(&database.snapshot()).await?;
            done("FLUSH")
        }
        Statement::RefreshOnlineStore { name } => refresh_online_store::execute(database, session, name).await,
        Statement::Optimize { view } => maintain::optimize(database, session, view).await,
        Statement::VacuumHistory { view, retain_us } => maintain::vacuum(database, session, view, *retain_us).await,
        Statement::CopyFrom { table, columns, file: None, options } => {
            copy_from::execute(database, session, table, columns, options)
        }
        Statement::CopyFrom { table, columns, file: Some(file), options } => {
            copy_from_file::execute(database, session, (table, columns), file, options).await
        }
        Statement::CopyTo { source, target, options } => {
            copy_to::execute(database, session, source, target, options).await
        }
        Statement::Set { local, name, value } => {
            session.set(name, value.as_deref(), *local)?;
            done("SET")
        }
        Statement::SetTransaction { local, isolation, read_only } => {
            session.set_modes(*local, isolation, *read_only)?;
            done("SET")
        }
        Statement::Reset { name } => {
            if name == "all" {
                session.reset_all();
            } else {
                session.set(name, None, false)?;
            }
            done("RESET")
        }
        Statement::Prepare { name, types, statement } => {
            prepare::prepare(database, session, name, types, statement).await
        }
        Statement::Execute { name, parameters } => prepare::execute(database, session, name, parameters, bound).await,
        Statement::Deallocate { name } => prepare::deallocate(session, name.as_deref()),
        Statement::Discard { what } => {
            if matches!(what.as_str(), "ALL" | "TEMP" | "TEMPORARY") {
                session.drop_all_temporary(database).await?;
            }
            if what == "ALL" {
                session.reset_all();
                session.prepared.clear();
                session.outbox.unlisten(None);
                session.events.push(crate::pg::SessionEvent::Discarded);
            }
            Ok(Outcome::Done { tag: format!("DISCARD {what}").into() })
        }
        Statement::Listen { channel } => {
            session.outbox.listen(channel)?;
            done("LISTEN")
        }
        Statement::Unlisten { channel } => {
            session.outbox.unlisten(channel.as_deref());
            done("UNLISTEN")
        }
        Statement::Notify { channel, payload } => {
            session.outbox.notify(channel, payload)?;
            done("NOTIFY")
        }
        Statement::Nothing { tag } => Ok(Outcome::Done { tag: (*tag).into() }),
        // The protocol layer answers these by `Backend::verb` and `Backend::cursor_verb`.
        Statement::Begin { .. }
        | Statement::Commit
        | Statement::Rollback
        | Statement::Savepoint { .. }
        | Statement::RollbackTo { .. }
        | Statement::Release { .. }
        | Statement::Declare { .. }
        | Statement::Fetch { .. }
        | Statement::Close { .. } => Ok(Outcome::Empty),
    }
}

/// Notes what ROLLBACK does not take back of a statement.
fn note_stays(database: &Database, session: &mut Session, statement: &Statement) {
    let (what, names) = match statement {
        Statement::Insert(insert) => ("INSERT INTO", std::slice::from_ref(&insert.table)),
        Statement::Change(change) if change.sets.is_none() => ("DELETE FROM", std::slice::from_ref(&change.table)),
        Statement::Change(change) => ("UPDATE", std::slice::from_ref(&change.table)),
        Statement::Merge(merge) => ("MERGE INTO", std::slice::from_ref(&merge.table)),
        Statement::Truncate { tables } => ("TRUNCATE", tables.as_slice()),
        Statement::CopyFrom { table, .. } => ("COPY INTO", std::slice::from_ref(table)),
        Statement::AlterColumns { name, .. } => ("ALTER the columns of", std::slice::from_ref(name)),
        Statement::RefreshTrainingSet { name, .. } => ("REFRESH TRAINING SET", std::slice::from_ref(name)),
        Statement::AdvanceWatermark { name, .. } => ("ADVANCE WATERMARK of", std::slice::from_ref(name)),
        Statement::ResetTopic { name, .. } => ("RESET of", std::slice::from_ref(name)),
        Statement::Resume { name, .. } => ("RESUME of", std::slice::from_ref(name)),
        _ => return,
    };
    let snapshot = session.snapshot(database);
    for name in names {
        if let Some(object) = snapshot.get(name) {
            session.block.note_stay(Stay { object: object.id, what: format!("{what} {name}") });
        }
    }
}

/// The command of a statement that changes rows or definitions.
fn changes(statement: &Statement) -> Option<Cow<'static, str>> {
    let of = |verb: &str, kind: ObjectKind| Some(format!("{verb} {kind}").to_uppercase().into());
    match statement {
        Statement::Insert(_) => Some("INSERT".into()),
        Statement::Change(change) => Some(change.command().into()),
        Statement::Merge(_) => Some("MERGE".into()),
        Statement::Truncate { .. } => Some("TRUNCATE TABLE".into()),
        Statement::CopyFrom { .. } => Some("COPY FROM".into()),
        Statement::CreateRelation(create) => of("CREATE", create.kind),
        Statement::CreateTableAs { .. } => Some("CREATE TABLE AS".into()),
        Statement::CreateFeatureView(_) => of("CREATE", ObjectKind::FeatureView),
        Statement::CreateView { .. } => of("CREATE", ObjectKind::View),
        Statement::CreateAggregate(_) => of("CREATE", ObjectKind::Aggregate),
        Statement::CreateTrainingSet(_) => of("CREATE", ObjectKind::TrainingSet),
        Statement::RefreshTrainingSet { .. } => of("REFRESH", ObjectKind::TrainingSet),
        Statement::Drop { kind, .. } => of("DROP", *kind),
        Statement::CreateIndex(_) => Some("CREATE INDEX".into()),
        Statement::DropIndex { .. } => Some("DROP INDEX".into()),
        Statement::SetOwner { kind, .. } => of("ALTER", *kind),
        Statement::CreateSchema { .. } => Some("CREATE SCHEMA".into()),
        Statement::DropSchema { .. } => Some("DROP SCHEMA".into()),
        Statement::RenameSchema { .. } | Statement::SetSchemaOwner { .. } => Some("ALTER SCHEMA".into()),
        Statement::CreateRole { .. } => Some("CREATE ROLE".into()),
        Statement::AlterRole { .. } | Statement::RenameRole { .. } => Some("ALTER ROLE".into()),
        Statement::DropRole { .. } => Some("DROP ROLE".into()),
        Statement::ReassignOwned { .. } => Some("REASSIGN OWNED".into()),
        Statement::Grant(grant) => Some(if grant.is_revoke { "REVOKE" } else { "GRANT" }.into()),
        Statement::GrantRoles(grant) => Some(if grant.is_revoke { "REVOKE ROLE" } else { "GRANT ROLE" }.into()),
        Statement::CreateSecret { .. } => Some("CREATE SECRET".into()),
        Statement::AlterSecret { .. } => Some("ALTER SECRET".into()),
        Statement::DropSecret { .. } => Some("DROP SECRET".into()),
        Statement::Rename { kind, .. } | Statement::SetOptions { kind, .. } | Statement::ResetTopic { kind, .. } => {
            of("ALTER", *kind)
        }
        Statement::AlterColumns { kind, .. } => of("ALTER", *kind),
        Statement::AdvanceWatermark { .. } => of("ALTER", ObjectKind::Source),
        Statement::Resume { .. } | Statement::SetDefault { .. } => of("ALTER", ObjectKind::FeatureView),
        Statement::Comment { .. } | Statement::CommentSchema { .. } => Some("COMMENT".into()),
        Statement::RefreshOnlineStore { .. } => Some("REFRESH ONLINE STORE".into()),
        Statement::Optimize { .. } => Some("OPTIMIZE".into()),
        Statement::VacuumHistory { .. } => Some("VACUUM".into()),
        _ => None,
    }
}

/// Whether it needs no feature view, or waits for those that it reads by itself. The others wait until all are back from a start.
fn goes_before_recovery(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Query(_)
            | Statement::Prepare { .. }
            | Statement::Execute { .. }
            | Statement::Deallocate { .. }
            | Statement::Set { .. }
            | Statement::SetTransaction { .. }
            | Statement::Reset { .. }
            | Statement::ShowSetting { .. }
            | Statement::Listen { .. }
            | Statement::Unlisten { .. }
            | Statement::Notify { .. }
            | Statement::Discard { .. }
            | Statement::Nothing { .. }
    )
}

/// Refuses what a serving node cannot do. What it cannot read is refused where it would be read.
fn admit_to_serving(statement: &Statement) -> Result<(), PgError> {
    match statement {
        Statement::Checkpoint => Err(serving::refusal("0A000", "CHECKPOINT")),
        Statement::Flush => Err(serving::refusal("0A000", "FLUSH")),
        other => changes(other).map_or(Ok(()), |command| Err(serving::refusal("25006", &command))),
    }
}

/// Whether it changes several places that have to agree, and so goes on to its end whoever wants to stop it. What takes rows
/// in holds on only while they are applied; a refresh may end after any row.
fn is_whole(statement: &Statement) -> bool {
    match statement {
        Statement::Insert(_) | Statement::Change(_) | Statement::Merge(_) => false,
        Statement::Truncate { .. } | Statement::CopyFrom { .. } => false,
        Statement::CreateTableAs { .. } => false,
        Statement::RefreshOnlineStore { .. } => false,
        // Computes for long, and holds on only while it commits.
        Statement::CreateTrainingSet(_) | Statement::RefreshTrainingSet { .. } => false,
        // They may have to ask a broker, or read files, and hold on when they have.
        Statement::CreateRelation(_) | Statement::SetOptions { .. } | Statement::ResetTopic { .. } => false,
        // Safe to stop anywhere, and long.
        Statement::Optimize { .. } | Statement::VacuumHistory { .. } => false,
        Statement::Checkpoint => true,
        other => changes(other).is_some(),
    }
}

/// The columns of statements that answer with rows and are not queries.
pub fn result_schema(session: &Session, statement: &Statement) -> Option<SchemaRef> {
    match statement {
        Statement::ShowObjects(_) | Statement::ShowCreate { .. } | Statement::Describe { .. } => {
            Some(show::schema(statement))
        }
        Statement::ShowSetting { name } => Some(settings::schema(name)),
        Statement::ShowSecrets => Some(text_schema(&secret::COLUMNS)),
        Statement::ExplainFeatureView { format, .. } | Statement::Explain { format, .. } => {
            Some(explain::schema(format))
        }
        Statement::Execute { name, .. } => session.prepared.get(name).and_then(|p| p.schema.clone()),
        _ => None,
    }
}

pub fn done(tag: &'static str) -> Result<Outcome, PgError> {
    Ok(Outcome::Done { tag: tag.into() })
}

pub fn text_schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|n| Field::new(*n, DataType::Utf8, true)).collect::<Vec<_>>()))
}

/// A result of text columns, row by row.
pub fn text_rows(schema: SchemaRef, rows: &[Vec<Option<String>>]) -> Result<RecordBatch, PgError> {
    let columns = (0..schema.fields().len())
        .map(|i| Arc::new(StringArray::from_iter(rows.iter().map(|r| r.get(i).cloned().flatten()))) as ArrayRef)
        .collect();
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// One batch as the answer.
pub fn rows(session: &Session, batch: RecordBatch, bound: &Bound, tag: &'static str) -> Result<Outcome, PgError> {
    let encoder = encoder(session, &batch.schema(), bound)?;
    let stream = stream::once(async move { Ok(batch) }).boxed();
    Ok(Outcome::Rows { stream, encoder, tag: RowsTag::Plain(tag) })
}

/// A stream of batches as the answer.
pub fn streamed(
    session: &Session,
    schema: &Schema,
    batches: datafusion::physical_plan::SendableRecordBatchStream,
    bound: &Bound,
) -> Result<Outcome, PgError> {
    let encoder = encoder(session, schema, bound)?;
    Ok(Outcome::Rows { stream: batches.map_err(PgError::from).boxed(), encoder, tag: RowsTag::SELECT })
}

struct BatchEncoder(RowEncoder);

impl EncodeRows for BatchEncoder {
    fn encode(&mut self, batch: &RecordBatch, rows: Range<usize>, out: &mut BytesMut) -> Result<(), PgError> {
        self.0.encode_batch(batch, rows, out);
        Ok(())
    }
}

pub fn result_format(bound: &Bound, column: usize) -> FieldFormat {
    match bound.result_formats.of(column).code() {
        1 => FieldFormat::Binary,
        _ => FieldFormat::Text,
    }
}

pub fn result_formats(bound: &Bound, columns: usize) -> Vec<FieldFormat> {
    (0..columns).map(|i| result_format(bound, i)).collect()
}

pub fn encoder(session: &Session, schema: &Schema, bound: &Bound) -> Result<Box<dyn EncodeRows>, PgError> {
    let formats = result_formats(bound, schema.fields().len());
    Ok(Box::new(BatchEncoder(RowEncoder::new(schema, &formats, &session.format)?)))
}

/// The parameters' values, as the statement's types.
fn parameters(session: &Session, prepared: &Prepared, bound: &Bound) -> Result<Vec<ScalarValue>, PgError> {
    prepared
        .parameter_oids
        .iter()
        .enumerate()
        .map(|(i, oid)| {
            let format = match bound.parameter_formats.of(i).code() {
                1 => FieldFormat::Binary,
                _ => FieldFormat::Text,
            };
            let bytes = bound.parameters.get(i).and_then(|b| b.as_deref());
            Ok(decode_param(*oid, format, bytes, &session.format.time_zone)?)
        })
        .collect()
}
