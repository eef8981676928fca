//! The rows of a training set: bound, computed, put into a log of their own, and what is to be recorded of them.

use super::{
    basis::{Basis, not_as_recorded},
    digest::Digest,
};
use crate::{
    database::Database,
    pg::PgError,
    rights::Rights,
    session::Session,
    statement::{create_table_as::columns, insert::fit, instants, moment::scans, query},
};
use datafusion::{catalog::TableProvider, physical_plan::ExecutionPlan, sql::sqlparser::ast};
use futures::TryStreamExt;
use std::{any::Any, sync::Arc};
use tidemark_catalog::{Body, Column, Complete, Joined, Object, ObjectId, Record, Relation};
use tidemark_engine::{
    asof::{AsofJoinExec, Finality},
    progress::{Phase, Progress},
    provider::log_between,
    runtime::Conflict,
};
use tidemark_planner::{
    shown,
    table::{ScanTarget, TidemarkTable},
};

pub struct Wanted<'a> {
    pub name: &'a str,
    pub query: &'a ast::Query,
    pub complete: Complete,
    /// Computed again from what is recorded here, with the same rows or none.
    pub as_recorded: Option<&'a Record>,
    /// Whose rows they are to be, if not the session's: computed for somebody else, they show him nothing that he may not read.
    pub for_owner: Option<Arc<Rights>>,
    /// Whose definition the query is: its names mean what they meant when that was made. `None`: it is about to be made.
    pub within: Option<&'a Object>,
    /// Counts rows.
    pub progress: &'a Progress,
}

pub struct Computed {
    pub columns: Vec<Column>,
    pub rows: Rows,
    pub record: Record,
}

pub async fn compute(database: &Arc<Database>, session: &Session, wanted: Wanted<'_>) -> Result<Computed, PgError> {
    let Wanted { name, query, complete, as_recorded, for_owner, within, progress } = wanted;
    let owner = database.owner()?;
    let engine = &owner.engine;
    if session.reads_a_snapshot() {
        return Err(PgError::error(
            "0A000",
            format!("training set \"{name}\" cannot be computed in a transaction with a snapshot"),
        )
        .detail("it has a snapshot of its own, which its record tells")
        .hint("BEGIN ISOLATION LEVEL READ COMMITTED, or no transaction"));
    }
    let time_zone = session.get("timezone").unwrap_or("UTC").to_string();
    let recorded = match as_recorded {
        Some(record) if record.time_zone != time_zone => {
            let message = format!("training set \"{name}\" was computed in time zone {}", record.time_zone);
            return Err(PgError::error("55000", message).hint(format!("SET timezone = '{}' first", record.time_zone)));
        }
        Some(record) => Some(Basis::recorded(engine, &database.snapshot(), name, record).await?),
        None => None,
    };
    let at_us = as_recorded.map_or_else(|| database.clock.now_us(), |record| record.at_us);
    let query = instants::written(query, &[], &session.format.time_zone)?;
    let (snapshot, plan) = loop {
        let snapshot = database.snapshot();
        let seen = match within {
            Some(object) => Arc::new(session.lasting(database).within(object)),
            None => session.snapshot(database),
        };
        let plan = query::bind_over(database, session, &seen, &query, &[], at_us)?;
        // The definitions that are recorded are those that were bound.
        if database.snapshot().generation == snapshot.generation {
            break (snapshot, plan);
        }
    };
    if let Some(own) = session.named_temporary(&plan.reads) {
        return Err(PgError::error("0A000", format!("training set \"{name}\" cannot read temporary table \"{own}\""))
            .hint("CREATE TABLE what it is to be computed from: it has to be there for the next REFRESH, whoever asks for that"));
    }
    if let Some(owner) = &for_owner {
        plan.check_read_as(owner)?;
        if let Some(table) = scans(&plan.plan).iter().find(|table| matches!(table.target, ScanTarget::System(_))) {
            let message =
                format!("training set \"{name}\" reads {}, which shows more to you than to its owner", table.name);
            return Err(PgError::error("42501", message).hint(format!("SET ROLE {}, then REFRESH it", owner.name)));
        }
    }
    let scans = scans(&plan.plan);
    let basis = match recorded {
        Some(basis) => basis,
        None => Basis::now(engine, &snapshot, &scans).await?,
    };
    let reads = basis.reads(&snapshot, &plan.reads);
    if let Some(record) = as_recorded
        && let Some(read) = reads.iter().find(|read| record.reads.iter().all(|before| before.id != read.id))
    {
        return Err(not_as_recorded(name, &format!("it reads {} \"{}\" now", read.kind, read.name)));
    }
    if complete == Complete::Final {
        basis.check_final(&snapshot, &plan.plan)?;
    }
    let mut state = (*session.state).clone();
    let completes = complete == Complete::State;
    let finality = Finality { frontiers: basis.frontiers.clone(), completes, of_snapshot: false };
    state.config_mut().set_extension(Arc::new(finality));
    let as_of_basis = |table: &TidemarkTable| -> Option<Arc<dyn TableProvider>> {
        let ScanTarget::Relation(id) = &table.target else { return None };
        let (from, to) = basis.logs.get(id)?;
        Some(log_between(engine.source(*id)?, *from, *to))
    };
    let marks = shown::columns(&plan.plan);
    let plan = query::physical_over(database, session, &state, plan, &[], &as_of_basis).await?;
    let columns = columns(&shown::over(&plan.schema(), &marks))?;

    let id = owner.catalog.lock().await.allocate_id().await?;
    let body = Body::Table(Relation::plain(columns.clone(), String::new()));
    let (name_of_rows, created_us) = (name.to_string(), database.clock.now_us());
    let place = Default::default();
    let table = Object { id, name: name_of_rows, created_us, comment: None, place, body };
    let rows = Rows { database: database.clone(), id, is_kept: false };
    engine.create_source(&table).await?;
    let all: Vec<usize> = (0..columns.len()).collect();
    let (mut count, mut digest) = (0, Digest::default());
    progress.count(Phase::Computing, None, database.clock.now_us());
    let mut batches = database.queries.run(plan.clone(), state.task_ctx())?;
    while let Some(batch) = batches.try_next().await? {
        if batch.num_rows() > 0 {
            let batch = fit(&table, &all, &batch, &session.format.time_zone)?;
            digest.add(&batch)?;
            progress.add(batch.num_rows() as u64);
            count += engine.ingest(id, vec![batch], Conflict::Error).await?.rows as u64;
        }
    }
    // On disk before the catalog says so, whatever the fsync setting.
    if let Some(log) = engine.source(id).map(|source| source.log()) {
        log.sync().await?;
    }
    let mut joins = vec![];
    joined(&plan, &mut joins);
    let record = Record { at_us, time_zone, rows: count, digest: digest.hex(), reads, joins };
    match as_recorded {
        Some(before) if (before.rows, &before.digest) != (record.rows, &record.digest) => {
            Err(others(name, before, &record))
        }
        Some(before) => Ok(Computed { columns, rows, record: before.clone() }),
        None => Ok(Computed { columns, rows, record }),
    }
}

/// Something in the query has no past, or values were taken that were not final.
fn others(name: &str, before: &Record, now: &Record) -> PgError {
    let provisional: u64 = before.joins.iter().map(|join| join.provisional).sum();
    let why = match provisional {
        0 => {
            "something that it reads keeps no past: files, current rows, history.<view>, or a function such as random()"
                .to_string()
        }
        n => format!("{n} values of labels at or above a frontier were completed from state, and have changed since"),
    };
    let error = not_as_recorded(name, "the rows are others than those recorded")
        .detail(format!("{} rows were recorded, {} are there now; {why}", before.rows, now.rows));
    match before.views_of_unknown_defaults().as_slice() {
        [] => error,
        views => error.hint(format!(
            "its record does not say what defaults the features of {} had: if others than now, ALTER FEATURE VIEW … ALTER \
             COLUMN … SET DEFAULT as they were, and again; or REFRESH TRAINING SET {name} computes it by what there is now",
            views.join(", ")
        )),
    }
}

/// The `ASOF JOIN`s of a plan that has run, the innermost first.
fn joined(plan: &Arc<dyn ExecutionPlan>, joins: &mut Vec<Joined>) {
    plan.children().into_iter().for_each(|child| joined(child, joins));
    if let Some(join) = (plan.as_ref() as &dyn Any).downcast_ref::<AsofJoinExec>() {
        joins.extend(join.matches().into_iter().map(|matches| Joined {
            name: matches.name,
            matched: matches.matched as u64,
            unmatched: matches.unmatched as u64,
            provisional: matches.provisional as u64,
        }));
    }
}

/// The log of rows that no training set has yet. It goes if none takes it: after an error, or a cancel request.
pub struct Rows {
    database: Arc<Database>,
    pub id: ObjectId,
    is_kept: bool,
}

impl Rows {
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let (database, id) = (self.database.clone(), self.id);
        let remove = async move {
            let Some(owner) = database.as_owner() else { return };
            if let Err(error) = owner.engine.drop_source(id).await {
                tracing::warn!(log = %id, %error, "rows of a training set that was not made are left behind");
            }
        };
        self.database.clock.spawn("rows of a training set", Box::pin(remove));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tidemark_catalog::Read;

    #[test]
    fn a_record_that_does_not_say_what_defaults_there_were_says_what_to_do() {
        let read = |defaults| Read {
            id: ObjectId::FIRST,
            name: "spending".into(),
            kind: "feature view".into(),
            definition: String::new(),
            frontier_us: None,
            log: None,
            defaults,
            history_snapshot: None,
        };
        let record = |defaults| Record {
            at_us: 0,
            time_zone: "UTC".into(),
            rows: 1,
            digest: String::new(),
            reads: vec![read(defaults)],
            joins: vec![],
        };
        let hint = |before: Record| others("t", &before, &before).hint.unwrap_or_default();
        assert!(hint(record(None)).starts_with("its record does not say what defaults the features of spending had"));
        assert!(hint(record(Some(BTreeMap::new()))).starts_with("its rows stay as they are"));
    }
}
