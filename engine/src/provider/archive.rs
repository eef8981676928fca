//! `history.<source>`: the events of a source's archive, as in the Iceberg table.

use super::seam;
use crate::runtime::{Engine, SourceRuntime};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::TableType,
    error::Result as DfResult,
    logical_expr::{Expr, TableProviderFilterPushDown},
    physical_plan::ExecutionPlan,
};
use std::{fmt, sync::Arc};

pub struct ArchiveTable {
    engine: Arc<Engine>,
    source: Arc<SourceRuntime>,
    schema: SchemaRef,
}

impl ArchiveTable {
    pub fn new(engine: Arc<Engine>, source: Arc<SourceRuntime>, schema: SchemaRef) -> Self {
        ArchiveTable { engine, source, schema }
    }
}

impl fmt::Debug for ArchiveTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchiveTable({})", self.source.name.read())
    }
}

#[async_trait]
impl TableProvider for ArchiveTable {
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
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let archive = self.engine.archive_provider(&self.source).await.map_err(seam)?;
        archive.scan(state, projection, filters, limit).await
    }
}
