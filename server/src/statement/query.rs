//! Queries: bound by the planner, given their data by the engine, run by DataFusion.

use super::{
    files_table, from_text, instants,
    moment::{self, Instead},
    streamed,
};
use crate::{
    database::{Behind, Database},
    pg::{Bound, Outcome, PgError},
    prepared::{Prepared, columns, declared_types, same_columns},
    rights::Rights,
    serving::spread,
    session::Session,
};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::{
    common::{DataFusionError, ParamValues},
    execution::SessionState,
    logical_expr::LogicalPlan,
    physical_plan::{ExecutionPlan, SendableRecordBatchStream},
    scalar::ScalarValue,
    sql::sqlparser::ast,
};
use std::sync::Arc;
use tidemark_catalog::{ObjectId, Snapshot};
use tidemark_engine::{
    provider::{Moment, provider},
    scan::bind_scans,
};
use tidemark_planner::{
    absent,
    bind::{Binder, BoundQuery},
    names, shown,
    table::ScanTarget,
};

/// An analysed plan; its scans are descriptions.
#[derive(Clone)]
pub struct Analysed {
    pub plan: LogicalPlan,
    /// The objects that it reads or calls, also through views.
    pub reads: Vec<ObjectId>,
    /// The relations that the statement names.
    names: Vec<ObjectId>,
    /// The statement's instant, microseconds: that of its `now()` and of its scans.
    now_us: i64,
}

impl Analysed {
    /// # Errors
    /// 42501: the session may not read what the statement names.
    pub fn check_read(&self, session: &Session) -> Result<(), PgError> {
        session.rights.check_read(&self.names)
    }

    /// The same of another role.
    pub fn check_read_as(&self, rights: &Rights) -> Result<(), PgError> {
        rights.check_read(&self.names)
    }
}

pub fn bind(
    database: &Database,
    session: &Session,
    query: &ast::Query,
    types: &[Option<DataType>],
) -> Result<Analysed, PgError> {
    bind_at(database, session, query, types, now_us(database, session))
}

/// `now()` of a statement: that of the transaction's snapshot, where it has one.
fn now_us(database: &Database, session: &Session) -> i64 {
    session.block.snapshot().map_or_else(|| database.clock.now_us(), |taken| taken.clock_us)
}

/// The same at another instant.
pub(super) fn bind_at(
    database: &Database,
    session: &Session,
    query: &ast::Query,
    types: &[Option<DataType>],
    now_us: i64,
) -> Result<Analysed, PgError> {
    bind_over(database, session, &session.snapshot(database), query, types, now_us)
}

/// The same over another picture of the catalog than the session's.
pub(super) fn bind_over(
    database: &Database,
    session: &Session,
    snapshot: &Snapshot,
    query: &ast::Query,
    types: &[Option<DataType>],
    now_us: i64,
) -> Result<Analysed, PgError> {
    let BoundQuery { plan, reads, names } = bound(database, session, snapshot, query, types, Some(now_us))?;
    Ok(Analysed { plan: analysed(session, plan)?, reads, names, now_us })
}

/// A plan as it is bound, with its `now()` kept.
pub(super) fn bind_at_any_time(
    database: &Database,
    session: &Session,
    query: &ast::Query,
    types: &[Option<DataType>],
) -> Result<BoundQuery, PgError> {
    bound(database, session, &session.snapshot(database), query, types, None)
}

fn bound(
    database: &Database,
    session: &Session,
    snapshot: &Snapshot,
    query: &ast::Query,
    types: &[Option<DataType>],
    at_us: Option<i64>,
) -> Result<BoundQuery, PgError> {
    let system = database.system(session);
    let mut query = query.clone();
    names::name_columns(&mut query);
    super::zoned::localise(&mut query, &session.format.time_zone);
    crate::system::rewrite(&mut query);
    let binder = Binder::new(snapshot, &session.state, &system, at_us.unwrap_or_else(|| database.clock.now_us()));
    let binder = if at_us.is_some() { binder } else { binder.keeping_now() };
    Ok(binder.query(&query, types)?)
}

/// A bound plan with its casts and types settled.
pub(super) fn analysed(session: &Session, plan: LogicalPlan) -> Result<LogicalPlan, PgError> {
    let plan = from_text::read_casts(plan, &session.format.time_zone)?;
    let config = session.state.config_options();
    Ok(session.state.analyzer().execute_and_check(plan, config, |_, _| {})?)
}

/// A plan with its parameters and its data, ready to run.
///
/// # Errors
/// 42501: the session may not read what the statement names. Whatever reads rows comes by here, but for lookups.
pub async fn physical(
    database: &Arc<Database>,
    session: &Session,
    plan: Analysed,
    parameters: &[ScalarValue],
) -> Result<Arc<dyn ExecutionPlan>, PgError> {
    physical_over(database, session, &session.state, plan, parameters, &|_| None).await
}

/// The same by another state than the session's, and over tables that the caller has in the place of some.
pub(super) async fn physical_over(
    database: &Arc<Database>,
    session: &Session,
    state: &SessionState,
    Analysed { plan, names, reads, now_us }: Analysed,
    parameters: &[ScalarValue],
    instead: Instead<'_>,
) -> Result<Arc<dyn ExecutionPlan>, PgError> {
    session.rights.check_read(&names)?;
    database.read_restored(&plan, &reads).await?;
    session.warn_of_deprecated(reads);
    let plan = match parameters.is_empty() {
        true => plan,
        false => plan.replace_params_with_values(&ParamValues::from(parameters.to_vec()))?,
    };
    let plan = absent::told(plan)?;
    if session.reads_a_snapshot() {
        return moment::in_transaction(database, session, state, &plan, now_us, instead).await;
    }
    let moment = moment::of_statement(database, &plan, instead).await?;
    planned(database, session, state, &plan, now_us, moment.as_ref(), instead).await
}

/// A plan over its data: relations as at `moment`, where that has them.
pub(super) async fn planned(
    database: &Arc<Database>,
    session: &Session,
    state: &SessionState,
    plan: &LogicalPlan,
    now_us: i64,
    moment: Option<&Moment>,
    instead: Instead<'_>,
) -> Result<Arc<dyn ExecutionPlan>, PgError> {
    let system = database.system(session);
    let plan = bind_scans(plan.clone(), |table| {
        if let Some(provider) = instead(table) {
            return Ok(provider);
        }
        let own = match database.behind() {
            Behind::Owner(owner) => provider(&owner.engine, table, now_us, moment)?,
            Behind::Serving(serving) => serving.provider(table, &session.shared)?,
        };
        if let Some(provider) = own {
            return Ok(provider);
        }
        let found = match &table.target {
            ScanTarget::System(name) => system.provider(name)?,
            ScanTarget::Files(id) => files_table::provider(database, *id)?,
            _ => None,
        };
        found.ok_or_else(|| DataFusionError::Plan(format!("relation \"{}\" does not exist", table.name)))
    })?;
    let plan = match database.behind() {
        Behind::Owner(_) => plan,
        Behind::Serving(_) => spread(state.optimize(&plan)?)?,
    };
    Ok(state.create_physical_plan(&plan).await?)
}

/// Runs a query without showing it to the client yet. The schema has the names a client would see, which may be equal.
pub async fn run(
    database: &Arc<Database>,
    session: &Session,
    query: &ast::Query,
    types: &[Option<DataType>],
    parameters: &[ScalarValue],
) -> Result<(SchemaRef, SendableRecordBatchStream), PgError> {
    let query = instants::written(query, parameters, &session.format.time_zone)?;
    let plan = bind(database, session, &query, types)?;
    let columns = shown::columns(&plan.plan);
    let plan = physical(database, session, plan, parameters).await?;
    Ok((shown::over(&plan.schema(), &columns), database.queries.run(plan, session.state.task_ctx())?))
}

/// The same, its rows in the order in which one thread finds them: whoever appends them to a log has them come so, and the watermark goes by that.
/// Several threads would give a later row before an earlier one, which would be late then.
pub async fn run_in_order(
    database: &Arc<Database>,
    session: &Session,
    query: &ast::Query,
    types: &[Option<DataType>],
    parameters: &[ScalarValue],
) -> Result<(SchemaRef, SendableRecordBatchStream), PgError> {
    if matches!(*query.body, ast::SetExpr::Values(_)) {
        return run(database, session, query, types, parameters).await;
    }
    let query = instants::written(query, parameters, &session.format.time_zone)?;
    let plan = bind(database, session, &query, types)?;
    let columns = shown::columns(&plan.plan);
    let mut state = session.state.clone();
    state.config_mut().options_mut().execution.target_partitions = 1;
    let plan = physical_over(database, session, &state, plan, parameters, &|_| None).await?;
    Ok((shown::over(&plan.schema(), &columns), database.queries.run(plan, state.task_ctx())?))
}

/// What the client was told of the columns must still be so: something of the same name may have taken the place of what the
/// statement was prepared over. PostgreSQL says the same (`RevalidateCachedQuery`).
pub(super) fn still_described(prepared: &Prepared, plan: &Analysed) -> Result<(), PgError> {
    let Some(told) = &prepared.columns else { return Ok(()) };
    if same_columns(told, &columns(&shown::schema(&plan.plan))) {
        return Ok(());
    }
    Err(PgError::error("0A000", "cached plan must not change result type")
        .detail("what the statement reads has other columns than when it was prepared")
        .hint("prepare it again: DEALLOCATE, or a new connection"))
}

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    prepared: &Prepared,
    query: &ast::Query,
    parameters: &[ScalarValue],
    bound: &Bound,
) -> Result<Outcome, PgError> {
    let plan = match &prepared.plan {
        // One that was planned before the snapshot was taken has another instant.
        Some(plan) if session.block.snapshot().is_none_or(|taken| taken.clock_us == plan.now_us) => plan.clone(),
        _ => {
            let query = instants::written(query, parameters, &session.format.time_zone)?;
            let plan = bind(database, session, &query, &declared_types(&prepared.parameter_oids)?)?;
            let is_as_then = prepared.generation == database.generation()
                && prepared.temporary_version == session.temporary_version()
                && prepared.path == session.path_key(database);
            if !is_as_then {
                still_described(prepared, &plan)?;
            }
            plan
        }
    };
    let columns = if prepared.schema.is_none() { shown::columns(&plan.plan) } else { vec![] };
    let plan = physical(database, session, plan, parameters).await?;
    let shown = prepared.schema.clone().unwrap_or_else(|| shown::over(&plan.schema(), &columns));
    let stream = database.queries.run(plan, session.state.task_ctx())?;
    streamed(session, &shown, stream, bound)
}
