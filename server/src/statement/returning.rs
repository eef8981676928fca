//! `RETURNING`: a query over the rows that a statement has put in, changed or taken away.

use super::{encoder, query, query::Analysed};
use crate::{
    database::Database,
    pg::{Bound, Outcome, PgError, RowsTag},
    prepared::Prepared,
    session::Session,
};
use arrow::{
    array::{ArrayRef, RecordBatch, UInt64Array},
    datatypes::{DataType, SchemaRef},
};
use datafusion::{
    catalog::{MemTable, TableProvider},
    logical_expr::LogicalPlan,
    scalar::ScalarValue,
    sql::sqlparser::ast::SelectItem,
};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use tidemark_catalog::Object;
use tidemark_planner::{
    bind,
    parse::returning_query,
    shown,
    table::{ScanTarget, TidemarkTable},
};

/// What a statement calls its table, and what it is to return of it.
pub struct Returning<'a> {
    pub object: &'a Object,
    pub alias: &'a str,
    pub items: &'a [SelectItem],
}

impl Returning<'_> {
    pub fn bind(
        &self,
        database: &Database,
        session: &Session,
        types: &[Option<DataType>],
    ) -> Result<Analysed, PgError> {
        let columns: Vec<&str> = self.object.columns().iter().map(|column| column.name.as_str()).collect();
        let query = returning_query(&self.object.full_name(), self.alias, self.items, &columns)?;
        query::bind(database, session, &query, types)
    }

    /// The same for who is about to change rows: what may not be read, or has other columns than the client was told, is refused
    /// while nothing has happened.
    pub fn ready(
        &self,
        database: &Database,
        session: &Session,
        prepared: &Prepared,
        types: &[Option<DataType>],
    ) -> Result<Analysed, PgError> {
        let plan = self.bind(database, session, types)?;
        one_for_each(&plan.plan)?;
        plan.check_read(session)?;
        query::still_described(prepared, &plan)?;
        Ok(plan)
    }

    /// What is returned of these rows.
    pub async fn of(
        &self,
        database: &Arc<Database>,
        session: &Session,
        plan: Analysed,
        parameters: &[ScalarValue],
        rows: &[RecordBatch],
    ) -> Result<Returned, PgError> {
        let schema = bind::placed_schema(&self.object.schema());
        let placed = rows.iter().map(|rows| {
            let places: ArrayRef = Arc::new(UInt64Array::from(vec![0; rows.num_rows()]));
            RecordBatch::try_new(schema.clone(), [&[places], rows.columns()].concat())
        });
        let placed = placed.collect::<Result<Vec<_>, _>>()?;
        let table: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(schema, vec![placed])?);
        let id = self.object.id;
        let instead = |scan: &TidemarkTable| (scan.target == ScanTarget::Rows(id)).then(|| table.clone());
        let columns = shown::columns(&plan.plan);
        let plan = query::physical_over(database, session, &session.state, plan, parameters, &instead).await?;
        let schema = shown::over(&plan.schema(), &columns);
        let batches = database.queries.run(plan, session.state.task_ctx())?.try_collect().await?;
        Ok(Returned { schema, batches })
    }
}

/// Refuses what does not return one row for each that was changed.
fn one_for_each(plan: &LogicalPlan) -> Result<(), PgError> {
    let refused = |sqlstate, what| {
        Err(PgError::error(sqlstate, format!("{what} are not allowed in RETURNING"))
            .hint("return columns, and compute over them where they arrive"))
    };
    match plan {
        LogicalPlan::Aggregate(_) => return refused("42803", "aggregate functions"),
        LogicalPlan::Window(_) => return refused("42P20", "window functions"),
        LogicalPlan::Unnest(_) => return refused("0A000", "set-returning functions"),
        _ => {}
    }
    plan.inputs().into_iter().try_for_each(one_for_each)
}

pub struct Returned {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Returned {
    /// As the answer: `tag` counts its rows.
    pub fn answer(self, session: &Session, bound: &Bound, tag: &'static str) -> Result<Outcome, PgError> {
        let encoder = encoder(session, &self.schema, bound)?;
        let stream = stream::iter(self.batches.into_iter().map(Ok)).boxed();
        Ok(Outcome::Rows { stream, encoder, tag: RowsTag::Counted(tag) })
    }
}
