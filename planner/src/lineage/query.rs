//! The columns of a query, followed down its plan to the columns of the objects that it reads.

use super::{Edge, Origin, Role};
use crate::{
    PlanResult, Statement,
    bind::{Binder, NoSystemTables},
    error::{PlanError, sqlstate},
    functions,
    parse::parse,
    table::{ScanTarget, TidemarkTable},
};
use datafusion::{
    common::{
        Column, DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan},
};
use std::collections::BTreeSet;
use tidemark_catalog::{ObjectId, Snapshot};

/// Where each column of a plan comes from.
type Columns = Vec<BTreeSet<Origin>>;

/// The edges of a query's columns.
///
/// # Errors
/// It cannot be bound again: something that it reads is gone or defined otherwise.
pub(super) fn edges(text: &str, snapshot: &Snapshot) -> PlanResult<BTreeSet<Edge>> {
    let parsed = parse(text)?;
    let Some(Statement::Query(query)) = parsed.first().map(|parsed| &parsed.statement) else {
        return Err(PlanError::new(sqlstate::INTERNAL, "it is no query"));
    };
    let state = functions::planning_state("UTC");
    let bound = Binder::new(snapshot, &state, &NoSystemTables, 0).keeping_now().query(query, &[])?;
    let follow = Follow { snapshot };
    let mut edges = BTreeSet::new();
    for (at, origins) in follow.columns(&bound.plan).into_iter().enumerate() {
        let edge = |(from, from_column)| Edge { column: Some(at), role: Role::Value, from, from_column };
        edges.extend(origins.into_iter().map(edge));
    }
    // What it reads without showing any of it.
    for (from, _) in follow.scanned(&bound.plan) {
        if !edges.iter().any(|edge: &Edge| edge.from == from) {
            edges.insert(Edge { column: None, role: Role::Join, from, from_column: None });
        }
    }
    Ok(edges)
}

struct Follow<'a> {
    snapshot: &'a Snapshot,
}

impl Follow<'_> {
    /// One for each column of the plan's schema.
    fn columns(&self, plan: &LogicalPlan) -> Columns {
        let width = plan.schema().fields().len();
        let mut columns: Columns = match plan {
            LogicalPlan::TableScan(scan) => {
                let Some(table) = TidemarkTable::of(&scan.source) else { return vec![BTreeSet::new(); width] };
                let fields = scan.projected_schema.fields().iter();
                fields.map(|field| self.origin(table, field.name()).into_iter().collect()).collect()
            }
            LogicalPlan::Projection(projection) => self.exprs(&projection.expr, &projection.input),
            LogicalPlan::Aggregate(aggregate) => {
                let mut columns = self.exprs(&aggregate.group_expr, &aggregate.input);
                // Of GROUPING SETS there is one expression, and the columns are found by their names.
                if columns.len() + aggregate.aggr_expr.len() != width {
                    return self.by_name(plan);
                }
                let of_rows: BTreeSet<Origin> =
                    self.scanned(&aggregate.input).into_iter().map(|(from, _)| (from, None)).collect();
                for origins in self.exprs(&aggregate.aggr_expr, &aggregate.input) {
                    // It counts rows.
                    columns.push(if origins.is_empty() { of_rows.clone() } else { origins });
                }
                columns
            }
            LogicalPlan::Window(window) => {
                let mut columns = self.columns(&window.input);
                columns.extend(self.exprs(&window.window_expr, &window.input));
                columns
            }
            LogicalPlan::Union(union) => {
                let mut columns: Columns = vec![BTreeSet::new(); width];
                for input in &union.inputs {
                    columns.iter_mut().zip(self.columns(input)).for_each(|(all, of)| all.extend(of));
                }
                columns
            }
            LogicalPlan::SubqueryAlias(alias) => self.columns(&alias.input),
            other => {
                let inputs = other.inputs();
                let columns: Columns = inputs.iter().flat_map(|input| self.columns(input)).collect();
                match inputs.as_slice() {
                    // A filter, an order, a limit; a join of any kind shows the columns of the left and of the right, or of one of them.
                    _ if columns.len() == width => columns,
                    [] => vec![BTreeSet::new(); width],
                    _ => return self.by_name(other),
                }
            }
        };
        columns.resize(width, BTreeSet::new());
        columns
    }

    /// Of a node that gives other columns than its inputs have: those of the same name, whoever's they are.
    fn by_name(&self, plan: &LogicalPlan) -> Columns {
        let inputs: Vec<(&LogicalPlan, Columns)> =
            plan.inputs().into_iter().map(|input| (input, self.columns(input))).collect();
        let of = |column: &Column| {
            inputs
                .iter()
                .find_map(|(input, columns)| columns.get(input.schema().maybe_index_of_column(column)?).cloned())
        };
        plan.schema().columns().iter().map(|column| of(column).unwrap_or_default()).collect()
    }

    fn exprs(&self, exprs: &[Expr], input: &LogicalPlan) -> Columns {
        let of_input = self.columns(input);
        exprs.iter().map(|expr| self.expr(expr, input.schema(), &of_input)).collect()
    }

    fn expr(&self, expr: &Expr, schema: &DFSchema, of_input: &Columns) -> BTreeSet<Origin> {
        let mut origins = BTreeSet::new();
        let _ = expr.apply(|expr| {
            match expr {
                Expr::Column(column) => {
                    let known = schema.maybe_index_of_column(column).and_then(|at| of_input.get(at));
                    origins.extend(known.into_iter().flatten().cloned());
                }
                Expr::ScalarSubquery(subquery) => {
                    origins.extend(self.columns(&subquery.subquery).into_iter().flatten());
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        });
        origins
    }

    /// The objects that a plan scans, also in its subqueries, with the names of the tables.
    fn scanned(&self, plan: &LogicalPlan) -> BTreeSet<(ObjectId, String)> {
        let mut found = BTreeSet::new();
        let _ = plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && let Some(table) = TidemarkTable::of(&scan.source)
            {
                found.extend(self.object(table).map(|id| (id, table.name.clone())));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        found
    }

    fn object(&self, table: &TidemarkTable) -> Option<ObjectId> {
        match &table.target {
            // The rows of a training set are in a log that is no object.
            ScanTarget::Relation(id) => match self.snapshot.get_id(*id) {
                Some(_) => Some(*id),
                None => {
                    let is_its = |object: &&std::sync::Arc<tidemark_catalog::Object>| {
                        object.training_set().is_some_and(|set| set.rows == *id)
                    };
                    self.snapshot.objects().find(is_its).map(|object| object.id)
                }
            },
            ScanTarget::Rows(id)
            | ScanTarget::CurrentRows(id)
            | ScanTarget::AsOf(id, _)
            | ScanTarget::Steps(id)
            | ScanTarget::History(id)
            | ScanTarget::Files(id) => Some(*id),
            ScanTarget::System(_) | ScanTarget::Nothing => None,
        }
    }

    /// The column of the object; what history has beside, of the feature that it is the base of.
    fn origin(&self, table: &TidemarkTable, name: &str) -> Option<Origin> {
        let id = self.object(table)?;
        let columns = self.snapshot.get_id(id)?.columns();
        let has = |name: &str| columns.iter().any(|column| column.name == name);
        let base =
            || name.trim_end_matches(|c: char| c.is_ascii_digit()).strip_suffix("_base").filter(|name| has(name));
        match has(name) {
            true => Some((id, Some(name.to_string()))),
            false => Some((id, Some(base().unwrap_or(name).to_string()))),
        }
    }
}
