//! `CREATE TRAINING SET` and `REFRESH TRAINING SET`: the rows of a query, kept with what it takes to say where they came from and
//! to compute them again.
//!
//! ```text
//! compute (long, nothing locked)            commit (short, under the catalog's lock)
//!   rows go into a log of their own    ──▶    the set points to that log; the one before goes
//! ```
//!
//! So whoever reads a set sees the rows of one computation, whole. Then its table in the warehouse gets them too (`lake.rs`).

mod basis;
mod compute;
mod digest;

use super::{
    create_relation::{exists, named, placed},
    done,
};
use crate::{
    database::{Database, find},
    lake,
    pg::{Outcome, PgError},
    progress::Doing,
    session::Session,
};
use compute::{Wanted, compute};
use datafusion::sql::sqlparser::ast;
use std::sync::Arc;
use tidemark_catalog::{Body, Change, Column, Complete, Object, ObjectKind, Place, QualifiedName, Record, TrainingSet};
use tidemark_engine::progress::Phase;
use tidemark_planner::{Statement, meaning, parse::parse, statement::CreateTrainingSet};

pub async fn create(
    database: &Arc<Database>,
    session: &mut Session,
    create: &CreateTrainingSet,
    sql: &str,
) -> Result<Outcome, PgError> {
    const TAG: &str = "CREATE TRAINING SET";
    let name = &create.name.to_string();
    if let Some(existing) = named(database, session, &create.name, None)? {
        let catalog = database.owner()?.catalog.lock().await;
        return exists(session, &catalog, &existing, create.if_not_exists, TAG);
    }
    let (complete, has_table) = (complete(create)?, has_table(create)?);
    let running = database.begin(session, Doing::new(TAG, name, Some("rows")));
    let progress = &running.progress;
    let wanted =
        Wanted { name, query: &create.query, complete, as_recorded: None, for_owner: None, within: None, progress };
    let computed = compute(database, session, wanted).await?;
    progress.enter(Phase::Finishing);
    let _held = session.hold.hold();
    let mut catalog = database.owner()?.catalog.lock().await;
    if let Some(existing) = named(database, session, &create.name, None)? {
        return exists(session, &catalog, &existing, create.if_not_exists, TAG);
    }
    let tag = format!("SELECT {}", computed.record.rows);
    tell_provisional(session, &computed.record);
    let snapshot = session.lasting(database);
    let (Place { schema, .. }, sql) = placed(&snapshot, &create.name, None, sql)?;
    let place = meaning::of_query(schema, &create.query, &snapshot, &database.system(session));
    let set = TrainingSet {
        sql,
        query: create.query_text.clone(),
        columns: computed.columns,
        complete,
        rows: computed.rows.id,
        record: computed.record,
        has_table,
    };
    let object = Object {
        id: catalog.allocate_id().await?,
        name: create.name.name.clone(),
        created_us: database.clock.now_us(),
        comment: None,
        place,
        body: Body::TrainingSet(set),
    };
    database.create(&mut catalog, session, object.clone()).await?;
    computed.rows.keep();
    drop(catalog);
    lake::settle(database, session, &object).await;
    Ok(Outcome::Done { tag: tag.into() })
}

/// `as_recorded`: what it was computed from then, else what there is now.
pub async fn refresh(
    database: &Arc<Database>,
    session: &mut Session,
    name: &QualifiedName,
    as_recorded: bool,
) -> Result<Outcome, PgError> {
    let object = find(&session.lasting(database), ObjectKind::TrainingSet, name)?.clone();
    let name = &name.to_string();
    let set = object.training_set().ok_or_else(|| PgError::error("XX000", "not a training set"))?;
    let query = query(name, &set.query)?;
    let as_recorded = as_recorded.then_some(&set.record);
    let snapshot = database.snapshot();
    let owner = snapshot.access.owner(object.id);
    let for_owner = (owner != session.rights.actor.role).then(|| database.rights(&snapshot, owner));
    let running = database.begin(session, Doing::new("REFRESH TRAINING SET", name, Some("rows")));
    let progress = &running.progress;
    let within = Some(object.as_ref());
    let wanted = Wanted { name, query: &query, complete: set.complete, as_recorded, for_owner, within, progress };
    let computed = compute(database, session, wanted).await?;
    progress.enter(Phase::Finishing);
    let _held = session.hold.hold();
    let owner = database.owner()?;
    let mut catalog = owner.catalog.lock().await;
    let snapshot = database.snapshot();
    let now = snapshot.get_id(object.id).cloned();
    let rows_before = now.as_ref().and_then(|now| now.training_set()).map(|set| set.rows);
    let Some(now) = now.filter(|_| rows_before == Some(set.rows)) else {
        return Err(PgError::error("55000", format!("training set \"{name}\" was dropped or refreshed meanwhile"))
            .hint("REFRESH it again, if it is there"));
    };
    let columns = commented(computed.columns, now.columns());
    if let Some(reader) = snapshot.readers(now.id).next().filter(|_| !same(&columns, now.columns())) {
        let message = format!(
            "cannot give training set \"{name}\" other columns: {} \"{}\" reads it",
            reader.kind(),
            reader.name
        );
        return Err(PgError::error("2BP01", message).hint("drop what reads it, REFRESH, and create that again"));
    }
    tell_provisional(session, &computed.record);
    let mut changed = now.as_ref().clone();
    if let Body::TrainingSet(set) = &mut changed.body {
        (set.columns, set.rows, set.record) = (columns, computed.rows.id, computed.record);
    }
    database.commit_for_good(&mut catalog, session, &[Change::Put(changed.clone())]).await?;
    computed.rows.keep();
    if let Err(error) = owner.engine.drop_source(set.rows).await {
        tracing::warn!(set = name, %error, "rows of a training set that were replaced are left behind");
    }
    drop(catalog);
    lake::settle(database, session, &changed).await;
    done("REFRESH TRAINING SET")
}

fn complete(create: &CreateTrainingSet) -> Result<Complete, PgError> {
    let name = &create.name;
    if let Some(option) = create.options.keys().find(|option| !["complete", "iceberg"].contains(&option.as_str())) {
        return Err(PgError::error("22023", format!("training set \"{name}\" has no option \"{option}\""))
            .hint("options are complete: 'final' or 'state', and iceberg: true or false"));
    }
    match create.options.get("complete").map(String::as_str) {
        None | Some("final") => Ok(Complete::Final),
        Some("state") => Ok(Complete::State),
        Some(other) => Err(PgError::error(
            "22023",
            format!("option \"complete\" of training set \"{name}\" is 'final' or 'state', not '{other}'"),
        )
        .hint("'final' refuses labels at or above a frontier, 'state' gives them what is known now")),
    }
}

/// Whether the warehouse is to have its rows too.
fn has_table(create: &CreateTrainingSet) -> Result<bool, PgError> {
    match create.options.get("iceberg").map(|said| said.to_lowercase()).as_deref() {
        None | Some("true" | "on") => Ok(true),
        Some("false" | "off") => Ok(false),
        Some(other) => Err(PgError::error(
            "22023",
            format!("option \"iceberg\" of training set \"{}\" is true or false, not '{other}'", create.name),
        )
        .hint("true, the default, keeps the rows in an Iceberg table of the warehouse too, for other engines")),
    }
}

/// The query that a definition keeps.
fn query(name: &str, text: &str) -> Result<Box<ast::Query>, PgError> {
    match parse(text)?.pop().map(|parsed| parsed.statement) {
        Some(Statement::Query(query)) => Ok(query),
        _ => Err(PgError::error("XX000", format!("training set \"{name}\" has no query"))),
    }
}

fn tell_provisional(session: &mut Session, record: &Record) {
    let provisional: u64 = record.joins.iter().map(|join| join.provisional).sum();
    if provisional > 0 {
        session.notice(format!(
            "{provisional} values of labels at or above a frontier were completed from state, and may still change: \
             REFRESH TRAINING SET takes them again"
        ));
    }
}

/// The columns with the comments of those that were called so before.
fn commented(mut columns: Vec<Column>, before: &[Column]) -> Vec<Column> {
    for column in &mut columns {
        column.comment = before.iter().find(|b| b.name == column.name).and_then(|b| b.comment.clone());
    }
    columns
}

fn same(columns: &[Column], others: &[Column]) -> bool {
    let shape = |columns: &[Column]| columns.iter().map(|c| (c.name.clone(), c.ty.clone())).collect::<Vec<_>>();
    shape(columns) == shape(others)
}
