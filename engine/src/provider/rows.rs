//! Rows of a feature view at one instant: now, or `FOR SYSTEM_TIME AS OF`.

use super::{seam, wanted_key, wanted_values};
use crate::{
    compiled::Row,
    key::month_start,
    runtime::{Engine, ViewRuntime},
    value::{Value, encode_row},
    view::{AllLooked, Looked},
};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::{TableType, memory::MemorySourceConfig},
    error::Result as DfResult,
    logical_expr::{Expr, TableProviderFilterPushDown, lit},
    physical_plan::{ExecutionPlan, collect},
    scalar::ScalarValue,
};
use std::{collections::HashMap, fmt, sync::Arc};
use tidemark_catalog::UTC;
use tidemark_planner::{
    status::{EXPIRED, PRESENT},
    table::{has_found, has_status, with_found, with_status},
};

pub struct RowsTable {
    view: Arc<ViewRuntime>,
    at_us: i64,
    /// Set for `AS OF`: history is needed.
    past: Option<Arc<Engine>>,
    with_status: bool,
    /// Of entities that have no row, too. Of the present only.
    with_absent: bool,
}

/// Rows, and of the entities that have none those of which it is known why.
#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    absent: Vec<(Arc<[Value]>, &'static str)>,
}

impl RowsTable {
    pub fn current(view: Arc<ViewRuntime>, at_us: i64) -> Self {
        RowsTable { view, at_us, past: None, with_status: false, with_absent: false }
    }

    pub fn as_of(engine: Arc<Engine>, view: Arc<ViewRuntime>, at_us: i64) -> Self {
        RowsTable { view, at_us, past: Some(engine), with_status: false, with_absent: false }
    }

    /// With the columns that this schema has.
    pub fn showing(self, schema: &Schema) -> Self {
        RowsTable { with_status: has_status(schema), with_absent: has_found(schema), ..self }
    }

    /// What is known of the present: of this entity, or of all.
    fn found(&self, key: Option<Vec<Value>>) -> DfResult<Found> {
        let state = &self.view.state;
        let Some(key) = key else {
            let AllLooked { rows, expired } = state.look_at_all(self.at_us)?;
            return Ok(Found { rows, absent: expired.into_iter().map(|key| (key, EXPIRED)).collect() });
        };
        Ok(match state.look(&encode_row(&key), self.at_us)? {
            Looked::Row(row) => Found { rows: vec![row], absent: vec![] },
            Looked::Expired => Found { rows: vec![], absent: vec![(key.into(), EXPIRED)] },
            Looked::Missing => Found::default(),
        })
    }

    async fn rows(&self, state: &dyn Session, key: Option<&[u8]>, key_filters: &[Expr]) -> DfResult<Vec<Row>> {
        let Some(engine) = &self.past else {
            return match key {
                Some(key) => Ok(self.view.state.lookup(key, self.at_us)?.into_iter().collect()),
                None => self.view.state.rows(self.at_us),
            };
        };
        let mut latest: HashMap<Arc<[Value]>, (Row, bool)> = HashMap::new();
        let (committed_us, steps) = self.view.state.steps_above_history(self.at_us, key)?;
        if committed_us > i64::MIN {
            for (row, delete) in self.history(engine, state, committed_us, key, key_filters).await? {
                keep_latest(&mut latest, row, delete);
            }
        }
        for step in steps.iter().filter(|step| step.instant_us <= self.at_us) {
            keep_latest(&mut latest, step.row(), step.op == crate::view::Op::Delete);
        }
        Ok(latest.into_values().filter(|(_, delete)| !delete).map(|(row, _)| row).collect())
    }

    /// The filters that read key columns only, without qualifiers.
    fn key_filters(&self, filters: &[Expr]) -> Vec<Expr> {
        let plan = &self.view.state.compiled.plan;
        let keys: Vec<&str> = plan.key_outputs().into_iter().map(|i| plan.outputs[i].name.as_str()).collect();
        filters
            .iter()
            .flat_map(datafusion::logical_expr::utils::split_conjunction)
            .filter(|f| f.column_refs().iter().all(|c| keys.contains(&c.name.as_str())))
            .map(|f| datafusion::logical_expr::expr_rewriter::unnormalize_col(f.clone()))
            .collect()
    }

    /// The steps of the month that `at_us` lies in: every live key has one at its start (`carry`).
    async fn history(
        &self,
        engine: &Engine,
        state: &dyn Session,
        committed_us: i64,
        key: Option<&[u8]>,
        key_filters: &[Expr],
    ) -> DfResult<Vec<(Row, bool)>> {
        let table = self.view.history.read().clone();
        let provider = engine.seams.history.provider(&table).await.map_err(seam)?;
        let schema = provider.schema();
        let time = schema.field(table.time).name().clone();
        let instant = |us: i64| lit(ScalarValue::TimestampMicrosecond(Some(us), Some(UTC.into())));
        let column = || Expr::Column(datafusion::common::Column::new_unqualified(time.clone()));
        let mut filters = vec![
            column().lt_eq(instant(self.at_us)),
            column().gt_eq(instant(month_start(self.at_us))),
            column().lt(instant(committed_us)),
        ];
        filters.extend(key_filters.iter().cloned());
        let stored = schema.fields().len() - 1;
        let projection: Vec<usize> = (0..stored).collect();
        let plan = provider.scan(state, Some(&projection), &filters, None).await?;
        let batches = collect(plan, state.task_ctx()).await?;
        let mut rows = vec![];
        for batch in batches {
            for (row, delete) in self.view.state.compiled.rows_of(&batch)? {
                let inside = row.instant_us <= self.at_us && row.instant_us < committed_us;
                if inside && key.is_none_or(|k| encode_row(&row.key) == k) {
                    rows.push((row, delete));
                }
            }
        }
        Ok(rows)
    }
}

fn keep_latest(latest: &mut HashMap<Arc<[Value]>, (Row, bool)>, row: Row, delete: bool) {
    let newer = latest.get(&row.key).is_none_or(|(old, _)| old.instant_us <= row.instant_us);
    if newer {
        latest.insert(row.key.clone(), (row, delete));
    }
}

impl fmt::Debug for RowsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowsTable({} at {})", self.view.state.compiled.name, self.at_us)
    }
}

#[async_trait]
impl TableProvider for RowsTable {
    fn schema(&self) -> SchemaRef {
        let schema = &self.view.state.compiled.visible_schema;
        match (self.with_absent, self.with_status) {
            (true, _) => with_found(&with_status(schema)),
            (false, true) => with_status(schema),
            (false, false) => schema.clone(),
        }
    }

    fn table_type(&self) -> TableType {
        TableType::View
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
        if self.with_absent {
            let compiled = &self.view.state.compiled;
            let Found { rows, absent } = self.found(wanted_values(compiled, filters))?;
            let rows: Vec<&Row> = rows.iter().collect();
            let batch = compiled.visible_with_absent(&rows, self.at_us, |_| PRESENT, &absent)?;
            return Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema(), projection.cloned())?);
        }
        let key = wanted_key(&self.view, filters);
        // Filters on the key hold for history's columns too, by the same names.
        let key_filters = if key.is_some() { self.key_filters(filters) } else { vec![] };
        let rows = self.rows(state, key.as_deref(), &key_filters).await?;
        let rows: Vec<&Row> = rows.iter().collect();
        let compiled = &self.view.state.compiled;
        let batch = match self.with_status {
            true => compiled.visible_with_status(&rows, self.at_us, |_| PRESENT)?,
            false => compiled.visible(&rows, self.at_us)?,
        };
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema(), projection.cloned())?)
    }
}
