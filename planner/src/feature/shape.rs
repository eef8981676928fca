//! The pieces of a feature view's bound query: one projection over one relation, whatever subqueries stand between.
//!
//! ```text
//! Projection(Window*(Filter*(Scan)))             SELECT … OVER … FROM s WHERE …
//! Projection(Aggregate(Filter*(Scan)))           SELECT … FROM s GROUP BY key: running, as OVER (… RANGE UNBOUNDED PRECEDING)
//! … with Projection and Filter in between        FROM (SELECT … FROM s WHERE …), WITH, CREATE VIEW: written out
//! … with a Union or ASOF JOIN for the Scan       FROM (SELECT … UNION ALL SELECT …), see [`super::branches`]
//! ```

use super::{
    branches::gives_rows,
    pane::{Pane, WINDOW_END, WINDOW_START, pane},
    recognise::refused,
};
use crate::{PlanError, PlanResult, error::sqlstate, names};
use arrow_schema::DataType;
use datafusion::{
    common::{
        Column, ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        Aggregate as AggregateNode, Expr, LogicalPlan, SortExpr, WindowFrame, WindowFrameBound, WindowFrameUnits,
        WindowFunctionDefinition,
        expr::{AggregateFunction, WindowFunction, WindowFunctionParams},
        lit, when,
    },
};
use std::collections::HashMap;

/// Every expression has unqualified columns of the relation.
pub(super) struct Shape<'a> {
    name: &'a str,
    pub projection: Vec<(Expr, String)>,
    pub projection_types: Vec<DataType>,
    /// Window functions by the column name they appear under in the projection.
    pub windows: HashMap<String, WindowFunction>,
    pub filter: Option<Expr>,
    grouped: Option<Grouped>,
    /// TUMBLE, HOP or SESSION in GROUP BY, and the time it is over.
    pane: Option<(Expr, Pane)>,
    /// What gives the rows: a scan or a union.
    rows: Option<LogicalPlan>,
}

/// GROUP BY, and its aggregates by the column name they appear under.
type Grouped = (Vec<Expr>, Vec<(String, AggregateFunction)>);

impl<'a> Shape<'a> {
    pub fn take(name: &'a str, plan: &LogicalPlan) -> PlanResult<Self> {
        let LogicalPlan::Projection(projection) = plan else {
            return Err(refused(name, "its shape is not a projection of one source")
                .hint("write SELECT key, time, aggregates OVER window FROM source"));
        };
        let mut shape = Shape {
            name,
            projection: vec![],
            projection_types: vec![],
            windows: HashMap::new(),
            filter: None,
            grouped: None,
            pane: None,
            rows: None,
        };
        for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
            shape.projection_types.push(field.data_type().clone());
            shape.projection.push((unqualified(expr.clone())?, names::shown(field.name()).to_string()));
        }
        let mut node = projection.input.as_ref();
        while let Some(input) = shape.descend(node)? {
            node = input;
        }
        let of_window = |column: &&Column| shape.windows.contains_key(&column.name);
        let read = shape.windows.values().flat_map(|function| {
            let params = &function.params;
            params.args.iter().chain(&params.partition_by).chain(params.filter.as_deref())
        });
        if read.flat_map(|expr| expr.column_refs()).any(|column| of_window(&column)) {
            return Err(shape.twice());
        }
        Ok(shape)
    }

    fn twice(&self) -> PlanError {
        refused(self.name, "it aggregates what is aggregated already")
            .hint("write one GROUP BY, or windows, over the source's own rows")
    }

    /// Takes one node apart; what is below it.
    fn descend<'p>(&mut self, node: &'p LogicalPlan) -> PlanResult<Option<&'p LogicalPlan>> {
        match node {
            LogicalPlan::Window(window) => {
                self.check_undivided()?;
                if self.grouped.is_some() {
                    return Err(self.twice());
                }
                for expr in &window.window_expr {
                    let column = expr.schema_name().to_string();
                    match expr.clone().unalias() {
                        Expr::WindowFunction(function) => {
                            self.windows.insert(column, *function);
                        }
                        other => return Err(refused(self.name, &format!("{other} is not a window function"))),
                    }
                }
                Ok(Some(&window.input))
            }
            LogicalPlan::Aggregate(aggregate) => {
                self.check_undivided()?;
                if !self.windows.is_empty() || self.grouped.is_some() {
                    return Err(self.twice());
                }
                self.group(aggregate)?;
                Ok(Some(&aggregate.input))
            }
            LogicalPlan::Filter(filter) => {
                let condition = unqualified(filter.predicate.clone())?;
                self.filter = Some(match self.filter.take() {
                    // What the inner one keeps out, the outer one does not see.
                    Some(outer) => when(condition, outer).otherwise(lit(false))?,
                    None => condition,
                });
                Ok(Some(&filter.input))
            }
            rows if gives_rows(rows) => {
                self.rows = Some(rows.clone());
                Ok(None)
            }
            LogicalPlan::Projection(projection) => {
                let names = projection.schema.fields().iter().map(|field| field.name().clone());
                let exprs = projection.expr.iter().cloned().map(unqualified).collect::<PlanResult<Vec<_>>>()?;
                self.write_out(&names.zip(exprs).collect())?;
                Ok(Some(&projection.input))
            }
            LogicalPlan::SubqueryAlias(alias) => Ok(Some(&alias.input)),
            other => {
                let what = other.display().to_string();
                let what = what.split([':', '(']).next().unwrap_or_default().trim().to_string();
                Err(refused(self.name, &format!("it contains a {what}"))
                    .hint("select from one source or table, with WHERE and windows"))
            }
        }
    }

    /// Between the aggregates and the view's columns nothing may stand but expressions.
    fn check_undivided(&self) -> PlanResult<()> {
        if self.filter.is_some() {
            return Err(refused(self.name, "it filters what is aggregated").hint(
                "a key stays, whatever its values; put conditions on rows in WHERE or FILTER, and those on values where you read",
            ));
        }
        if !self.windows.is_empty() && self.grouped.is_some() {
            return Err(refused(self.name, "it aggregates what is aggregated already"));
        }
        Ok(())
    }

    fn group(&mut self, aggregate: &AggregateNode) -> PlanResult<()> {
        let mut by = vec![];
        let mut written = HashMap::new();
        for expr in &aggregate.group_expr {
            if matches!(expr, Expr::GroupingSet(_)) {
                return Err(refused(self.name, "GROUPING SETS, CUBE and ROLLUP are not maintained")
                    .hint("a feature view has one entity key"));
            }
            let name = expr.schema_name().to_string();
            let expr = unqualified(expr.clone())?;
            match pane(self.name, &expr)? {
                Some(_) if self.pane.is_some() => {
                    return Err(
                        refused(self.name, "it has two kinds of windows in GROUP BY").hint("make a view of each")
                    );
                }
                Some(found) => {
                    written.insert(name, Expr::Column(Column::new_unqualified(WINDOW_START)));
                    self.pane = Some(found);
                }
                None => {
                    written.insert(name, expr.clone());
                    by.push(expr);
                }
            }
        }
        if by.is_empty() {
            return Err(refused(self.name, "an aggregate without OVER or GROUP BY has no key")
                .hint("add GROUP BY key, or OVER (PARTITION BY key ORDER BY time RANGE INTERVAL '…' PRECEDING)"));
        }
        let mut calls = vec![];
        for expr in &aggregate.aggr_expr {
            let name = expr.schema_name().to_string();
            match expr.clone().unalias() {
                Expr::AggregateFunction(call) if matches!(call.func.name(), "window_start" | "window_end") => {
                    if self.pane.is_none() {
                        return Err(refused(self.name, &format!("{}() is of no window", call.func.name()))
                            .hint("add TUMBLE, HOP or SESSION to GROUP BY"));
                    }
                    let bound = if call.func.name() == "window_start" { WINDOW_START } else { WINDOW_END };
                    written.insert(name, Expr::Column(Column::new_unqualified(bound)));
                }
                Expr::AggregateFunction(call) => calls.push((name, call)),
                other => return Err(refused(self.name, &format!("{other} is not an aggregate"))),
            }
        }
        self.write_out(&written)?;
        self.grouped = Some((by, calls));
        Ok(())
    }

    /// Puts the expressions of a subquery in the place of its columns.
    fn write_out(&mut self, written: &HashMap<String, Expr>) -> PlanResult<()> {
        let windows = &self.windows;
        let calls: Vec<&String> =
            self.grouped.iter().flat_map(|(_, calls)| calls.iter().map(|(name, _)| name)).collect();
        let replace = |expr: Expr| -> PlanResult<Expr> {
            let replaced = expr.transform(|e| match &e {
                Expr::Column(column) if !windows.contains_key(&column.name) && !calls.contains(&&column.name) => {
                    Ok(match written.get(&column.name) {
                        Some(expr) => Transformed::yes(expr.clone()),
                        None => Transformed::no(e),
                    })
                }
                _ => Ok(Transformed::no(e)),
            });
            Ok(replaced?.data)
        };
        let projection = std::mem::take(&mut self.projection);
        let projection = projection.into_iter().map(|(expr, name)| Ok((replace(expr)?, name)));
        let projection = projection.collect::<PlanResult<Vec<_>>>()?;
        let filter = self.filter.take().map(replace).transpose()?;
        let mut rewritten = HashMap::new();
        for (name, mut function) in self.windows.clone() {
            let params = &mut function.params;
            for expr in params.args.iter_mut().chain(&mut params.partition_by).chain(params.filter.as_deref_mut()) {
                *expr = replace(unqualified(expr.clone())?)?;
            }
            for sort in &mut params.order_by {
                sort.expr = replace(unqualified(sort.expr.clone())?)?;
            }
            rewritten.insert(name, function);
        }
        let mut grouped = self.grouped.clone();
        if let Some((by, calls)) = &mut grouped {
            for (_, call) in calls.iter_mut() {
                let params = &mut call.params;
                for expr in params.args.iter_mut().chain(params.filter.as_deref_mut()) {
                    *expr = replace(unqualified(expr.clone())?)?;
                }
                for sort in &mut params.order_by {
                    sort.expr = replace(unqualified(sort.expr.clone())?)?;
                }
            }
            for expr in by {
                *expr = replace(expr.clone())?;
            }
        }
        if let Some((time, _)) = &mut self.pane {
            let replaced = replace(time.clone())?;
            *time = replaced;
        }
        (self.projection, self.filter, self.windows, self.grouped) = (projection, filter, rewritten, grouped);
        Ok(())
    }

    /// What gives the rows: a scan or a union.
    pub fn rows(&self) -> PlanResult<&LogicalPlan> {
        self.rows.as_ref().ok_or_else(|| refused(self.name, "it does not read a source"))
    }

    /// The windows of GROUP BY. They are over the event time.
    pub fn pane(&self, time: &str) -> PlanResult<Option<Pane>> {
        match &self.pane {
            Some((over, _)) if *over != Expr::Column(Column::new_unqualified(time)) => {
                Err(refused(self.name, "its windows are not over the event time")
                    .hint(format!("the first argument is {time}")))
            }
            pane => Ok(pane.as_ref().map(|(_, pane)| *pane)),
        }
    }

    /// The window functions; an aggregate with GROUP BY is one over everything so far.
    pub fn into_windows(mut self, time: &str) -> PlanResult<HashMap<String, WindowFunction>> {
        let Some((by, calls)) = self.grouped.take() else { return Ok(self.windows) };
        if calls.is_empty() {
            return Err(refused(self.name, "its GROUP BY has no aggregate").hint("add count(*)"));
        }
        let time = Expr::Column(Column::new_unqualified(time));
        for (name, call) in calls {
            let params = call.params;
            let is_time = |sort: &SortExpr| sort.asc && sort.expr == time;
            if !params.order_by.iter().all(is_time) {
                return Err(refused(self.name, &format!("{name} is not ordered by the event time"))
                    .hint("a feature view's aggregates are in event-time order: leave ORDER BY out"));
            }
            let params = WindowFunctionParams {
                args: params.args,
                partition_by: by.clone(),
                order_by: vec![time.clone().sort(true, false)],
                window_frame: WindowFrame::new_bounds(
                    WindowFrameUnits::Range,
                    WindowFrameBound::Preceding(ScalarValue::Null),
                    WindowFrameBound::CurrentRow,
                ),
                filter: params.filter,
                null_treatment: params.null_treatment,
                distinct: params.distinct,
            };
            let fun = WindowFunctionDefinition::AggregateUDF(call.func);
            self.windows.insert(name, WindowFunction { fun, params });
        }
        Ok(self.windows)
    }
}

/// Strips qualifiers and names: a feature view reads one relation, so a bare name is enough. Subqueries are refused here.
pub(super) fn unqualified(expr: Expr) -> PlanResult<Expr> {
    Ok(expr
        .transform(|e| match e {
            Expr::Column(c) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(c.name)))),
            // A name inside an expression is only there to tell its columns apart (`functions::casts`).
            Expr::Alias(alias) => Ok(Transformed::yes(*alias.expr)),
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                Err(PlanError::unsupported("subqueries in a feature view's expressions cannot be maintained")
                    .hint("join the other relation where you look up or train")
                    .into())
            }
            Expr::Placeholder(p) => Err(PlanError::new(
                sqlstate::INVALID_DEFINITION,
                format!("there is no parameter {} in a feature view's definition", p.id),
            )
            .into()),
            other => Ok(Transformed::no(other)),
        })?
        .data)
}
