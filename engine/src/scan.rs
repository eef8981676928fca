//! From descriptions to data: puts a provider in the place of every [`TidemarkTable`] of a plan.

use crate::runtime::IngestError;
use datafusion::catalog::TableProvider;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::tree_node::Transformed;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{LogicalPlan, TableScan};
use std::sync::Arc;
use tidemark_planner::table::TidemarkTable;

/// Binds every scan of a [`TidemarkTable`], also in subqueries and under an `ASOF JOIN`; projection, filters and fetch
/// stay as they are. A provider must have the columns that the description promised.
pub fn bind_scans(
    plan: LogicalPlan,
    provider: impl Fn(&TidemarkTable) -> Result<Arc<dyn TableProvider>>,
) -> Result<LogicalPlan> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let Some(table) = TidemarkTable::of(&scan.source) else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let provider = provider(table)?;
        check(table, provider.as_ref())?;
        let source = provider_as_source(provider);
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan })))
    })
    .map(|bound| bound.data)
}

fn check(table: &TidemarkTable, provider: &dyn TableProvider) -> Result<()> {
    let (promised, found) = (table.schema.clone(), provider.schema());
    let same = promised.fields().len() == found.fields().len()
        && promised
            .fields()
            .iter()
            .zip(found.fields())
            .all(|(p, f)| p.name() == f.name() && p.data_type() == f.data_type());
    if same {
        return Ok(());
    }
    // `ALTER TABLE` has come in between: the catalog has its columns first, then its log.
    Err(DataFusionError::External(Box::new(IngestError::Altered(table.name.clone()))))
}
