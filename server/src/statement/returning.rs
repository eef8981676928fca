//! `RETURNING`: a query over the rows that a statement has put in, changed or taken away.

use super::{query, query::Analysed, streamed};
use crate::{
    database::Database,
    pg::{Bound, Outcome, PgError, RowsTag},
    session::Session,
};
use arrow::{
    array::{ArrayRef, RecordBatch, UInt64Array},
    datatypes::DataType,
};
use datafusion::{
    catalog::{MemTable, TableProvider},
    scalar::ScalarValue,
    sql::sqlparser::ast::SelectItem,
};
use std::sync::Arc;
use tidemark_catalog::Object;
use tidemark_planner::{
    bind, names,
    parse::returning_query,
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
        let query = returning_query(&self.object.name, self.alias, self.items, &columns)?;
        query::bind(database, session, &query, types)
    }

    /// The answer: `tag` counts its rows.
    pub async fn rows(
        &self,
        database: &Arc<Database>,
        session: &Session,
        plan: Analysed,
        parameters: &[ScalarValue],
        rows: Vec<RecordBatch>,
        bound: &Bound,
        tag: &'static str,
    ) -> Result<Outcome, PgError> {
        let schema = bind::placed_schema(&self.object.schema());
        let placed = rows.iter().map(|rows| {
            let places: ArrayRef = Arc::new(UInt64Array::from(vec![0; rows.num_rows()]));
            RecordBatch::try_new(schema.clone(), [&[places], rows.columns()].concat())
        });
        let placed = placed.collect::<Result<Vec<_>, _>>()?;
        let table: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(schema, vec![placed])?);
        let id = self.object.id;
        let instead = |scan: &TidemarkTable| (scan.target == ScanTarget::Rows(id)).then(|| table.clone());
        let plan = query::physical_over(database, session, &session.state, plan, parameters, &instead).await?;
        let shown = names::shown_schema(&plan.schema());
        let stream = database.queries.run(plan, session.state.task_ctx())?;
        match streamed(session, &shown, stream, bound)? {
            Outcome::Rows { stream, encoder, .. } => Ok(Outcome::Rows { stream, encoder, tag: RowsTag::Counted(tag) }),
            other => Ok(other),
        }
    }
}
