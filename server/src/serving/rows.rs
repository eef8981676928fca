//! A feature view in a planned query on a serving node: a feature service, an expression over a looked up row. Its entity keys
//! have to be in the conditions; all of its rows only the owner has.

use super::{Served, Serving, external, refusal};
use crate::{
    pg::PgError,
    session::{LOOKUP_DEADLINE, MAX_STALENESS, SharedSettings, lookup_deadline_us},
    statement::lookup_deadline,
    system::Settings as _,
};
use ahash::AHashSet;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::{TableType, memory::MemorySourceConfig},
    error::Result as DfResult,
    logical_expr::{Expr, Operator, TableProviderFilterPushDown, utils::split_conjunction},
    physical_plan::ExecutionPlan,
    scalar::ScalarValue,
};
use std::{fmt, sync::Arc};
use tidemark_engine::{
    compiled::{CompiledView, Row},
    provider::{equal, key_value, wanted_values},
    value::Value,
};
use tidemark_planner::{
    status::{EXPIRED, LATE, PRESENT, STALE},
    table::{has_found, has_status, with_found, with_status},
};

pub struct RowsTable {
    serving: Arc<Serving>,
    view: Arc<Served>,
    schema: SchemaRef,
    /// Who is told of stale rows.
    session: Arc<SharedSettings>,
    /// The session's deadline, microseconds, and the instant that it means for this statement.
    deadline: Option<(i64, i64)>,
}

impl RowsTable {
    /// # Errors
    /// This version cannot plan the view.
    pub fn new(
        serving: Arc<Serving>,
        view: Arc<Served>,
        session: Arc<SharedSettings>,
        wanted: &Schema,
    ) -> Result<RowsTable, PgError> {
        let schema = &view.compiled()?.visible_schema;
        let schema = if has_status(wanted) { with_status(schema) } else { schema.clone() };
        let schema = if has_found(wanted) { with_found(&schema) } else { schema };
        let deadline_us = session.get(LOOKUP_DEADLINE).and_then(|value| lookup_deadline_us(&value));
        let deadline = deadline_us.map(|us| (us, serving.clock.now_us().saturating_add(us)));
        Ok(RowsTable { serving, view, schema, session, deadline })
    }
}

impl fmt::Debug for RowsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowsTable({} in Redis)", self.view.name)
    }
}

#[async_trait]
impl TableProvider for RowsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let compiled = self.view.compiled().map_err(external)?;
        let Some(keys) = wanted_keys(compiled, filters) else {
            let what = format!("reading feature view \"{}\" without its entity key", self.view.name);
            return Err(external(
                refusal("0A000", &what).detail("a serving node looks keys up: key = value, or IN a list"),
            ));
        };
        let max_staleness = self.session.get(MAX_STALENESS);
        self.serving.check_freshness(&self.view, max_staleness.as_deref()).map_err(external)?;
        let asked = keys.len();
        let until_us = self.deadline.map(|(_, until_us)| until_us);
        let reading = self.serving.read(&self.view, keys, until_us).await.map_err(external)?;
        let late = reading.late.len();
        if let Some((deadline_us, _)) = self.deadline.filter(|_| late > 0) {
            // Only behind an outer join that asks for `_status` something can be said of these.
            if !has_found(&self.schema) {
                let late = format!("{late} of {asked} keys were not there");
                return Err(external(lookup_deadline::refusal(&self.view.name, deadline_us).detail(late)));
            }
            self.session.tell(lookup_deadline::warning(late, asked, deadline_us));
        }
        if let Some(warning) = reading.warning {
            self.session.tell(warning);
        }
        let rows: Vec<&Row> = reading.rows.iter().collect();
        let status = |row: usize| if reading.stale[row] { STALE } else { PRESENT };
        let batch = match (has_found(&self.schema), has_status(&self.schema)) {
            (true, _) => {
                let because = |why: &'static str| move |key: Vec<Value>| (Arc::<[Value]>::from(key), why);
                let expired = reading.expired.into_iter().map(because(EXPIRED));
                let absent: Vec<_> = expired.chain(reading.late.into_iter().map(because(LATE))).collect();
                compiled.visible_with_absent(&rows, reading.now_us, status, &absent)?
            }
            (false, true) => compiled.visible_with_status(&rows, reading.now_us, status)?,
            (false, false) => compiled.visible(&rows, reading.now_us)?,
        };
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema(), projection.cloned())?)
    }
}

/// The entity keys that the filters ask for, each once; `None`: they ask for more than keys.
fn wanted_keys(compiled: &CompiledView, filters: &[Expr]) -> Option<Vec<Vec<Value>>> {
    if let Some(key) = wanted_values(compiled, filters) {
        return Some(vec![key]);
    }
    let [output] = compiled.plan.key_outputs()[..] else { return None };
    let column = &compiled.plan.outputs[output].name;
    let ty = compiled.key_types().ok()?.into_iter().next()?;
    let mut keys = filters.iter().flat_map(split_conjunction).find_map(|filter| list(filter, column, &ty))?;
    let mut seen = AHashSet::with_capacity(keys.len());
    keys.retain(|key| seen.insert(key.clone()));
    Some(keys.into_iter().map(|key| vec![key]).collect())
}

/// The keys of `column IN (…)`, and of what the planner makes of a short list: `column = 1 OR column = 2`. What no key can equal
/// is none of them.
fn list(filter: &Expr, column: &str, ty: &DataType) -> Option<Vec<Value>> {
    let key = |literal: &ScalarValue| key_value(literal.clone(), ty);
    match filter {
        Expr::InList(list) if !list.negated => {
            let Expr::Column(of) = list.expr.as_ref() else { return None };
            let literal = |item: &Expr| match item {
                Expr::Literal(literal, _) => Some(key(literal)),
                _ => None,
            };
            let keys: Vec<Option<Value>> = list.list.iter().map(literal).collect::<Option<_>>()?;
            (of.name == column).then(|| keys.into_iter().flatten().collect())
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::Or => {
            let mut keys = list(&binary.left, column, ty)?;
            keys.extend(list(&binary.right, column, ty)?);
            Some(keys)
        }
        other => equal(other, column).map(|literal| key(literal).into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::{col, lit};

    #[test]
    fn keys_are_found_in_lists_and_in_what_the_planner_makes_of_them() {
        let keys = |filter: Expr| list(&filter, "k", &DataType::Int64);
        let some = |keys: &[i64]| Some(keys.iter().map(|key| Value::Int(*key)).collect::<Vec<_>>());
        assert_eq!(keys(col("k").in_list(vec![lit(1_i64), lit(2_i64)], false)), some(&[1, 2]));
        assert_eq!(keys(col("k").eq(lit(1_i64)).or(lit(2_i64).eq(col("k")))), some(&[1, 2]));
        assert_eq!(keys(col("k").eq(lit(1_i64))), some(&[1]));
        assert_eq!(keys(col("k").eq(lit(ScalarValue::Int64(None)))), some(&[]));
        for more in [
            col("k").in_list(vec![lit(1_i64)], true),
            col("k").in_list(vec![col("n")], false),
            col("n").in_list(vec![lit(1_i64)], false),
            col("k").eq(lit(1_i64)).or(col("n").eq(lit(1_i64))),
            col("k").gt(lit(1_i64)),
        ] {
            assert_eq!(keys(more.clone()), None, "{more}");
        }
    }
}
