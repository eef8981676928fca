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
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, TableScan, when};
use std::sync::Arc;

/// A right side that has steps.
pub(super) struct StepsScan {
    /// The scan's own name.
    scan: TableReference,
    /// The name that the query gives it.
    alias: Option<TableReference>,
    table: TidemarkTable,
    steps: Arc<StepsTable>,
}

impl StepsScan {
    /// Recognises a bare table (with an alias or not) that has steps; a subquery is a plain relation.
    /// `renamed`: the query gives the table's columns other names.
    pub fn find(right: &LogicalPlan, renamed: bool) -> PlanResult<Option<StepsScan>> {
        let (mut plan, mut alias) = (right, None);
        loop {
            match plan {
                LogicalPlan::SubqueryAlias(outer) => {
                    alias = alias.or_else(|| Some(outer.alias.clone()));
                    plan = &outer.input;
                }
                LogicalPlan::Projection(projection) if renamed => plan = &projection.input,
                LogicalPlan::TableScan(scan) => return Self::of(scan, alias, renamed),
                _ => return Ok(None),
            }
        }
    }

    fn of(scan: &TableScan, alias: Option<TableReference>, renamed: bool) -> PlanResult<Option<StepsScan>> {
        let Some(table) = TidemarkTable::of(&scan.source) else { return Ok(None) };
        let Some(steps) = table.steps.clone() else { return Ok(None) };
        if renamed {
            return Err(PlanError::unsupported(format!(
                "the columns of \"{}\" cannot be renamed in the FROM clause of an ASOF JOIN",
                table.name
            ))
            .hint("rename them in the select list"));
        }
        Ok(Some(StepsScan { scan: scan.table_name.clone(), alias, table: table.clone(), steps }))
    }

    /// Refuses what does not mean `V(key, left time)`.
    pub fn check(&self, condition: &Condition) -> PlanResult<()> {
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
        };
        let scan = LogicalPlanBuilder::scan(self.scan.clone(), Arc::new(source), None)?;
        match &self.alias {
            Some(alias) => scan.alias(alias.clone())?.build(),
            None => scan.build(),
        }
    }

    pub fn operation(&self) -> Column {
        self.column(OP_COLUMN)
    }

    pub fn event_time(&self) -> Column {
        self.column(EVENT_TIME_COLUMN)
    }

    fn qualifier(&self) -> &TableReference {
        self.alias.as_ref().unwrap_or(&self.scan)
    }

    fn column(&self, name: &str) -> Column {
        Column::new(Some(self.qualifier().clone()), name)
    }

    /// The columns of the user's table over the node, without those in `without`.
    pub fn user_columns(&self, node: &AsofNode, without: &[Column]) -> Result<Vec<Expr>> {
        let mut exprs = vec![];
        for field in self.table.schema.fields() {
            let column = self.column(field.name());
            if without.contains(&column) {
                continue;
            }
            let continuous = self.steps.continuous.iter().find(|c| c.name == *field.name());
            exprs.push(match continuous {
                None => Expr::Column(column),
                Some(continuous) => {
                    let value = self.at_left_time(continuous.expr.clone(), node)?.cast_to(&continuous.ty, {
                        use datafusion::logical_expr::UserDefinedLogicalNodeCore;
                        node.schema().as_ref()
                    })?;
                    let matched = Expr::Column(self.column(&self.steps.time)).is_not_null();
                    when(matched, value).end()?.alias_qualified(Some(self.qualifier().clone()), field.name())
                }
            });
        }
        Ok(exprs)
    }

    /// A time-continuous expression with the left row's time for now and the step's columns for its bases.
    fn at_left_time(&self, expr: Expr, node: &AsofNode) -> Result<Expr> {
        let now = node.left_time.clone().cast_to(&instant_type(), node.left.schema().as_ref())?;
        expr.transform(|e| {
            Ok(match e {
                Expr::Column(column) if column.name == NOW_COLUMN => Transformed::yes(now.clone()),
                Expr::Column(column) => Transformed::yes(Expr::Column(self.column(&column.name))),
                other => Transformed::no(other),
            })
        })
        .map(|rewritten| rewritten.data)
    }
}
