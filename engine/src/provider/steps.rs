//! Steps of a feature view: `history.<view>` as committed, and the completed history that an `ASOF JOIN` reads.

use super::{seam, wanted_key};
use crate::{
    runtime::{Engine, ViewRuntime},
    view::Step,
};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Column, DFSchema},
    datasource::{TableType, memory::MemorySourceConfig},
    error::Result as DfResult,
    logical_expr::{Expr, TableProviderFilterPushDown, lit},
    physical_expr::create_physical_expr,
    physical_plan::{ExecutionPlan, filter::FilterExec, projection::ProjectionExec, union::UnionExec},
    scalar::ScalarValue,
};
use std::{fmt, sync::Arc};
use tidemark_catalog::{ObjectId, UTC};

pub struct HistoryTable {
    engine: Arc<Engine>,
    view: Arc<ViewRuntime>,
}

impl HistoryTable {
    pub fn new(engine: Arc<Engine>, view: Arc<ViewRuntime>) -> Self {
        HistoryTable { engine, view }
    }
}

impl fmt::Debug for HistoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HistoryTable({})", self.view.state.compiled.name)
    }
}

#[async_trait]
impl TableProvider for HistoryTable {
    fn schema(&self) -> SchemaRef {
        self.view.state.compiled.history_schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let table = self.view.history.read().clone();
        let provider = self.engine.seams.history.provider(&table).await.map_err(seam)?;
        provider.scan(state, projection, filters, limit).await
    }
}

pub struct StepsTable {
    engine: Arc<Engine>,
    view: Arc<ViewRuntime>,
    /// Completed up to and including this instant.
    now_us: i64,
    schema: SchemaRef,
}

impl StepsTable {
    pub fn new(engine: Arc<Engine>, view: Arc<ViewRuntime>, now_us: i64) -> Self {
        let full = &view.state.compiled.history_schema;
        let schema = Arc::new(Schema::new(full.fields()[..full.fields().len() - 1].to_vec()));
        StepsTable { engine, view, now_us, schema }
    }

    pub fn id(&self) -> ObjectId {
        self.view.state.id
    }

    /// The view's name.
    pub fn view(&self) -> &str {
        &self.view.state.compiled.name
    }

    /// The instant, microseconds, after which nothing is known.
    pub fn now_us(&self) -> i64 {
        self.now_us
    }
}

impl fmt::Debug for StepsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepsTable({} up to {})", self.view.state.compiled.name, self.now_us)
    }
}

#[async_trait]
impl TableProvider for StepsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let key = wanted_key(&self.view, filters);
        let (committed_us, steps) = self.view.state.steps_above_history(self.now_us, key.as_deref())?;
        let above: Vec<Step<'_>> = steps.iter().collect();
        let above = self.view.state.compiled.steps(&above, None)?;
        let above = MemorySourceConfig::try_new_exec(&[vec![above]], self.schema(), projection.cloned())?;
        if committed_us == i64::MIN {
            return Ok(above);
        }
        // Below `committed_us` from the table, at or above it from state: no step twice, none missing.
        let table = self.view.history.read().clone();
        let provider = self.engine.seams.history.provider(&table).await.map_err(seam)?;
        let bound = Expr::Column(Column::new_unqualified(self.schema.field(table.time).name()))
            .lt(lit(ScalarValue::TimestampMicrosecond(Some(committed_us), Some(UTC.into()))));
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let mut read = wanted.clone();
        if !read.contains(&table.time) {
            read.push(table.time);
        }
        let mut pushed = filters.to_vec();
        pushed.push(bound.clone());
        let below = provider.scan(state, Some(&read), &pushed, None).await?;
        let df_schema = DFSchema::try_from(below.schema().as_ref().clone())?;
        let predicate = create_physical_expr(&bound, &df_schema, state.execution_props())?;
        let below: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(predicate, below)?);
        let exprs = (0..wanted.len())
            .map(|i| {
                let name = below.schema().field(i).name().clone();
                let column: Arc<dyn datafusion::physical_expr::PhysicalExpr> =
                    Arc::new(datafusion::physical_expr::expressions::Column::new(&name, i));
                (column, name)
            })
            .collect::<Vec<_>>();
        let below: Arc<dyn ExecutionPlan> = Arc::new(ProjectionExec::try_new(exprs, below)?);
        UnionExec::try_new(vec![below, above])
    }
}
