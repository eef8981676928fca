//! At which moment the relations of a query are read.
//!
//! ```text
//! READ COMMITTED     each statement: all its sources and tables at one moment, its feature views then
//! REPEATABLE READ    each statement of the transaction: what there was at the first that read
//!   sources, tables         as their logs were
//!   feature views           below the frontier of then: nothing changes there
//!                           now, and above it: as long as no event has come, else 40001
//!   what keeps no past      0A000
//! ```

use super::query::planned;
use crate::{
    database::{Behind, Database},
    pg::PgError,
    session::{Session, Taken},
};
use datafusion::{
    catalog::TableProvider, common::tree_node::TreeNodeRecursion, execution::SessionState, logical_expr::LogicalPlan,
    physical_plan::ExecutionPlan,
};
use std::{collections::BTreeSet, sync::Arc};
use tidemark_catalog::ObjectId;
use tidemark_engine::{
    asof::Finality,
    provider::Moment,
    runtime::{Engine, ViewRuntime},
};
use tidemark_planner::table::{ScanTarget, TidemarkTable};

/// What a caller has in the place of some tables.
pub type Instead<'a> = &'a (dyn Fn(&TidemarkTable) -> Option<Arc<dyn TableProvider>> + Send + Sync);

/// How often the first query of a transaction begins anew because events came while it was planned, which takes some
/// milliseconds: enough for a stream that pauses now and then, and soon over for one that does not.
const ATTEMPTS: usize = 16;

/// The tables that a plan scans, also in its subqueries.
pub fn scans(plan: &LogicalPlan) -> Vec<TidemarkTable> {
    let mut found = vec![];
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found.extend(TidemarkTable::of(&scan.source).cloned());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

/// Whether it has rows that come and go.
fn has_rows(table: &TidemarkTable) -> bool {
    !matches!(table.target, ScanTarget::System(_) | ScanTarget::Nothing)
}

/// The moment of a statement by itself; `None`: it reads one relation, which has one anyway.
pub async fn of_statement(
    database: &Database,
    plan: &LogicalPlan,
    instead: Instead<'_>,
) -> Result<Option<Moment>, PgError> {
    let Behind::Owner(owner) = database.behind() else { return Ok(None) };
    let tables: Vec<TidemarkTable> = scans(plan).into_iter().filter(has_rows).collect();
    if tables.len() < 2 {
        return Ok(None);
    }
    let relations: BTreeSet<ObjectId> = tables
        .iter()
        .filter(|table| instead(table).is_none())
        .filter_map(|table| match table.target {
            ScanTarget::Relation(id) => Some(id),
            _ => None,
        })
        .collect();
    match relations.is_empty() {
        true => Ok(None),
        false => Ok(Some(Moment::of(&owner.engine, &relations).await?)),
    }
}

/// Plans a query of a transaction whose queries all read what the first has found.
pub async fn in_transaction(
    database: &Arc<Database>,
    session: &Session,
    state: &SessionState,
    plan: &LogicalPlan,
    now_us: i64,
    instead: Instead<'_>,
) -> Result<Arc<dyn ExecutionPlan>, PgError> {
    let tables: Vec<TidemarkTable> =
        scans(plan).into_iter().filter(|table| has_rows(table) && instead(table).is_none()).collect();
    if tables.is_empty() {
        return planned(database, session, state, plan, now_us, None, instead).await;
    }
    let Behind::Owner(owner) = database.behind() else {
        return Err(PgError::error("0A000", "a serving node has no snapshots")
            .detail("its rows are what its owner has put, each when it came")
            .hint("BEGIN ISOLATION LEVEL READ COMMITTED, or ask the owner"));
    };
    for table in &tables {
        check(session, table)?;
    }
    database.all_restored().await?;
    let reading = Reading { database, session, state, plan, tables: &tables, engine: &owner.engine, instead };
    if let Some(taken) = session.block.snapshot() {
        return reading.at(taken).await;
    }
    let mut attempt = 1;
    loop {
        let taken = Taken { moment: Moment::of_all(&owner.engine).await?, clock_us: now_us };
        match reading.at(&taken).await {
            Ok(plan) => {
                session.block.fix(taken);
                return Ok(plan);
            }
            Err(error) if error.sqlstate == "40001" && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Refuses what no snapshot can be had of.
fn check(session: &Session, table: &TidemarkTable) -> Result<(), PgError> {
    let name = &table.name;
    let (message, hint) = match table.target {
        ScanTarget::History(_) => (
            format!("history.{name} cannot be read in a transaction with a snapshot"),
            format!("it goes as far as it is committed: read \"{name}\" itself"),
        ),
        ScanTarget::Files(_) => (
            format!("\"{name}\" cannot be read in a transaction with a snapshot"),
            "its files are somebody else's, who may replace them".to_string(),
        ),
        ScanTarget::Relation(id) | ScanTarget::Rows(id) | ScanTarget::Steps(id) if session.block.has_changed(id) => {
            return Err(changed(session, name));
        }
        ScanTarget::Relation(id) if session.block.snapshot().is_some_and(|taken| !taken.moment.has(id)) => (
            format!("\"{name}\" was made after the transaction's first read"),
            "its snapshot does not have it".to_string(),
        ),
        _ => return Ok(()),
    };
    Err(refused(session, message).hint(format!("{hint}; or BEGIN ISOLATION LEVEL READ COMMITTED")))
}

fn refused(session: &Session, message: String) -> PgError {
    let level = session.get("transaction_isolation").unwrap_or_default();
    PgError::error("0A000", message)
        .detail(format!("the transaction is {level}: all its queries read what the first has found"))
}

/// The transaction has changed rows, which is at once and for everybody: no moment has its own changes and nobody else's.
fn changed(session: &Session, name: &str) -> PgError {
    refused(
        session,
        format!("\"{name}\" cannot be read after the transaction has changed rows that it has, or is made of"),
    )
    .hint("read it first, or in another transaction; or BEGIN ISOLATION LEVEL READ COMMITTED")
}

/// A query of such a transaction.
struct Reading<'a> {
    database: &'a Arc<Database>,
    session: &'a Session,
    state: &'a SessionState,
    plan: &'a LogicalPlan,
    tables: &'a [TidemarkTable],
    engine: &'a Arc<Engine>,
    instead: Instead<'a>,
}

impl Reading<'_> {
    /// Planned as of a snapshot. Whatever has no versions is read while it is planned: so it is as it was then if it was
    /// before that and is after.
    async fn at(&self, taken: &Taken) -> Result<Arc<dyn ExecutionPlan>, PgError> {
        let Reading { database, session, state, plan, instead, .. } = *self;
        let (moment, now_us) = (&taken.moment, taken.clock_us);
        self.check_present(moment).await?;
        if self.steps_hold(moment).await {
            let planned = planned(database, session, state, plan, now_us, Some(moment), instead).await?;
            self.check_present(moment).await?;
            if self.steps_hold(moment).await {
                return Ok(planned);
            }
        }
        // Labels below the frontiers of then have what they had; others are refused.
        let frontiers = moment.frontiers();
        for table in self.tables {
            if let ScanTarget::Steps(id) = table.target
                && (!frontiers.contains_key(&id) || self.has_changed(id))
            {
                return Err(self.moved(table, id));
            }
        }
        let mut state = state.clone();
        let finality = Finality { frontiers: frontiers.clone(), completes: false, of_snapshot: true };
        state.config_mut().set_extension(Arc::new(finality));
        let planned = planned(database, session, &state, plan, now_us, Some(moment), instead).await?;
        self.check_present(moment).await?;
        Ok(planned)
    }

    /// What is of now, or not final yet, must be as it was.
    async fn check_present(&self, moment: &Moment) -> Result<(), PgError> {
        let frontiers = moment.frontiers();
        for table in self.tables {
            let id = match table.target {
                ScanTarget::CurrentRows(id) | ScanTarget::Rows(id) => id,
                ScanTarget::AsOf(id, at_us) if frontiers.get(&id).is_none_or(|frontier_us| at_us >= *frontier_us) => id,
                _ => continue,
            };
            if !moment.still_holds(self.engine, id).await {
                return Err(self.moved(table, id));
            }
        }
        Ok(())
    }

    async fn steps_hold(&self, moment: &Moment) -> bool {
        for table in self.tables {
            if let ScanTarget::Steps(id) = table.target
                && !moment.still_holds(self.engine, id).await
            {
                return false;
            }
        }
        true
    }

    /// Whether the transaction itself has changed what it is, or is made of.
    fn has_changed(&self, id: ObjectId) -> bool {
        let block = &self.session.block;
        let of_view = |view: &ViewRuntime| view.sources.iter().any(|reading| block.has_changed(reading.source.id));
        block.has_changed(id) || self.engine.view(id).is_some_and(|view| of_view(&view))
    }

    fn moved(&self, table: &TidemarkTable, id: ObjectId) -> PgError {
        let name = &table.name;
        if self.has_changed(id) {
            return changed(self.session, name);
        }
        let error = |what: String| {
            PgError::error("40001", format!("could not serialize access: {what} since the transaction's first read"))
        };
        match table.target {
            ScanTarget::Rows(_) => error(format!("rows of \"{name}\" have changed")).hint("run the transaction again"),
            _ => error(format!("events have come to feature view \"{name}\""))
                .detail("a view keeps no versions of what is not final: its rows of now, and all at or above its frontier")
                .hint(format!(
                    "run the transaction again; or read \"{name}\" FOR SYSTEM_TIME AS OF a time below its frontier; or READ COMMITTED"
                )),
        }
    }
}
