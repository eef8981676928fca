//! A feature view or changelog table on the right of an `ASOF JOIN` means its history: `V(key, left time)`.
//!
//! The scan of current rows becomes a scan of the steps. One row per (key, instant), a `delete` step is a match with
//! nothing, and time-continuous features are computed at the left row's time from the step's base columns:
//!
//! ```text
//! steps of k:   09:00 upsert  clicks=1 …  09:05 upsert  clicks=0 …  10:00 delete
//! left row      at 09:03 -> clicks=1      at 09:07 -> clicks=0      at 10:00 -> NULLs, or no row in an INNER join
//! ```

use super::condition::Condition;
use super::node::AsofNode;
use crate::feature::NOW_COLUMN;
use crate::table::{EVENT_TIME_COLUMN, OP_COLUMN, StepsTable, TidemarkTable, instant_type};
use crate::{PlanError, PlanResult, error::sqlstate};
use arrow_schema::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, TableScan, cast, when};
use std::sync::Arc;

/// A right side that has steps, or a member of one.
pub(crate) struct StepsScan {
    /// The scan's own name.
    scan: TableReference,
    /// The name that the query gives it.
    alias: Option<TableReference>,
    table: TidemarkTable,
    steps: Arc<StepsTable>,
}

impl StepsScan {
    /// Recognises a bare table (with an alias or not) that has steps.
    pub fn find(right: &LogicalPlan) -> Option<StepsScan> {
        let (mut plan, mut alias) = (right, None);
        loop {
            match plan {
                LogicalPlan::SubqueryAlias(outer) => {
                    alias = alias.or_else(|| Some(outer.alias.clone()));
                    plan = &outer.input;
                }
                LogicalPlan::TableScan(scan) => return Self::of(scan, alias),
                _ => return None,
            }
        }
    }

    /// The scan of a table that has steps.
    pub fn of(scan: &TableScan, alias: Option<TableReference>) -> Option<StepsScan> {
        let table = TidemarkTable::of(&scan.source)?;
        let steps = table.steps.clone()?;
        Some(StepsScan { scan: scan.table_name.clone(), alias, table: table.clone(), steps })
    }

    /// Refuses what does not mean `V(key, left time)`.
    pub(super) fn check(&self, condition: &Condition) -> PlanResult<()> {
        let (name, time) = (&self.table.name, &self.steps.time);
        let history = format!("to match its steps by other columns, join history.{name}");
        if !self.is_column(&condition.right_time, time) {
            return Err(PlanError::unsupported(format!(
                "an ASOF JOIN over \"{name}\" must compare its time column \"{time}\", not {}",
                condition.right_time
            ))
            .hint(history));
        }
        if !condition.op.is_backward() {
            return Err(PlanError::unsupported(format!(
                "an ASOF JOIN over \"{name}\" cannot look ahead: {} {} {}",
                condition.left_time, condition.op, condition.right_time
            ))
            .hint("use >= or >: features from the future would leak into the result"));
        }
        let is_key = |expr: &Expr| self.steps.key.iter().any(|key| self.is_column(expr, key));
        if let Some((left, right)) = condition.keys.iter().find(|(_, right)| !is_key(right)) {
            return Err(PlanError::unsupported(format!(
                "{left} = {right} in an ASOF JOIN over \"{name}\" is not on its entity key"
            ))
            .detail(format!("its entity key is ({})", self.steps.key.join(", ")))
            .hint(format!("filter after matching in WHERE; {history}")));
        }
        let missing = self.steps.key.iter().find(|key| !condition.keys.iter().any(|(_, r)| self.is_column(r, key)));
        if let Some(key) = missing {
            return Err(PlanError::new(
                sqlstate::INVALID_PARAMETER,
                format!("an ASOF JOIN over \"{name}\" needs an equality on its key column \"{key}\""),
            )
            .detail(format!("its entity key is ({})", self.steps.key.join(", ")))
            .hint(history));
        }
        Ok(())
    }

    fn is_column(&self, expr: &Expr, name: &str) -> bool {
        matches!(expr, Expr::Column(column) if column.name == name)
    }

    /// The scan of the steps, under the same name.
    pub fn plan(&self) -> Result<LogicalPlan> {
        let source = TidemarkTable {
            target: self.steps.target.clone(),
            name: self.table.name.clone(),
            schema: self.steps.schema.clone(),
            steps: None,
            defaults: vec![],
            shown: self.table.shown.clone(),
        };
        let scan = LogicalPlanBuilder::scan(self.scan.clone(), Arc::new(source), None)?;
        match &self.alias {
            Some(alias) => scan.alias(alias.clone())?.build(),
            None => scan.build(),
        }
    }

    /// The name of the table.
    pub fn name(&self) -> &str {
        &self.table.name
    }

    /// What it is of the present: the scan that it was found as.
    pub fn table(&self) -> &TidemarkTable {
        &self.table
    }

    /// The columns that the user knows, of the present.
    pub fn current_columns(&self) -> impl Iterator<Item = Expr> {
        self.table.schema.fields().iter().map(|field| Expr::Column(self.column(field.name())))
    }

    /// The names of the entity key's columns.
    pub fn key(&self) -> &[String] {
        &self.steps.key
    }

    /// The type of a stored column.
    pub fn ty(&self, column: &str) -> Option<&DataType> {
        self.steps.schema.field_with_name(column).ok().map(|field| field.data_type())
    }

    pub fn time(&self) -> Column {
        self.column(&self.steps.time)
    }

    pub fn operation(&self) -> Column {
        self.column(OP_COLUMN)
    }

    pub fn event_time(&self) -> Column {
        self.column(EVENT_TIME_COLUMN)
    }

    pub fn qualifier(&self) -> &TableReference {
        self.alias.as_ref().unwrap_or(&self.scan)
    }

    pub fn column(&self, name: &str) -> Column {
        Column::new(Some(self.qualifier().clone()), name)
    }

    /// Whether a step was found.
    pub fn is_matched(&self) -> Expr {
        Expr::Column(self.time()).is_not_null()
    }

    /// The columns that the user knows and what they are over the steps; time-continuous ones read the instant from the
    /// column [`NOW_COLUMN`].
    pub fn user_columns(&self) -> Result<Vec<(Column, Expr)>> {
        let columns = self.table.schema.fields().iter().map(|field| {
            let column = self.column(field.name());
            let value = match self.steps.continuous.iter().find(|c| c.name == *field.name()) {
                None => Expr::Column(column.clone()),
                Some(continuous) => {
                    let value = cast(self.over_steps(continuous.expr.clone())?, continuous.ty.clone());
                    when(self.is_matched(), value).end()?
                }
            };
            Ok((column, value))
        });
        columns.collect()
    }

    /// A time-continuous expression with the step's columns for its bases.
    fn over_steps(&self, expr: Expr) -> Result<Expr> {
        let over = expr.transform(|e| {
            Ok(match e {
                Expr::Column(column) if column.name != NOW_COLUMN => {
                    Transformed::yes(Expr::Column(self.column(&column.name)))
                }
                other => Transformed::no(other),
            })
        })?;
        Ok(over.data)
    }
}

/// The expression with the left row's time for the instant of the reading.
pub(super) fn at_left_time(expr: Expr, node: &AsofNode) -> Result<Expr> {
    let now = node.left_time.clone().cast_to(&instant_type(), node.left.schema().as_ref())?;
    let at = expr.transform(|e| {
        Ok(match e {
            Expr::Column(column) if column.name == NOW_COLUMN => Transformed::yes(now.clone()),
            other => Transformed::no(other),
        })
    })?;
    Ok(at.data)
}
