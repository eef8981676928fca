//! What a result's column is shown as where PostgreSQL's type is another than the one that its values are held in: `1` is an
//! `integer`, held in 64 bits, and `document -> 'a'` is `json`, held as text.
//!
//! Read off a plan that is there already, so that types, coercion and what is stored stay as they are. A column is shown as an
//! `integer` only where every value that it can have is written in the query and fits one. Where nothing is known the column is
//! shown as what holds it, which is also what the catalog says of a view's columns (decision 0038).

use crate::{
    json_text::{self, JSON, JSONB},
    names,
};
use arrow_schema::{DataType, Schema, SchemaRef};
use datafusion::{
    common::{Column, ScalarValue},
    logical_expr::{BinaryExpr, Distinct, Expr, LogicalPlan, Operator, cast, expr::Case},
};
use std::sync::Arc;

/// Field metadata: the name of the type to show (`oid`, `name`, `varchar(10)`, `_text`, `int2vector`, …).
pub const PG_TYPE: &str = "pg.type";

/// How deep plans and expressions are looked into, on a thread's stack: sums of more terms are shown as what holds them.
const DEPTH_MAX: usize = 64;

/// At how many of them, for one column: subqueries in subqueries may name a column twice, and that one two others.
const LOOKS_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Every value is NULL: of the type of what it stands beside.
    Nothing,
    Int4,
    Json,
    Jsonb,
}

impl Shown {
    /// The type's name, where values of this Arrow type can be shown so.
    fn name(self, held: &DataType) -> Option<&'static str> {
        match (self, held) {
            (Shown::Int4, DataType::Int64) => Some("int4"),
            (Shown::Json, DataType::Utf8) => Some("json"),
            (Shown::Jsonb, DataType::Utf8) => Some("jsonb"),
            _ => None,
        }
    }
}

/// The columns of a plan as they are shown to a client, with their names.
pub fn schema(plan: &LogicalPlan) -> SchemaRef {
    over(plan.schema().as_arrow(), &columns(plan))
}

/// What each column of a plan is shown as; `None`: as what it is.
pub fn columns(plan: &LogicalPlan) -> Vec<Option<Shown>> {
    (0..plan.schema().fields().len())
        .map(|at| of_values(plan, at).or_else(|| Look { left: LOOKS_MAX }.column(plan, at, 0)))
        .collect()
}

/// A column of VALUES that are all of the query, and not keys that are looked up.
fn of_values(plan: &LogicalPlan, at: usize) -> Option<Shown> {
    match plan {
        LogicalPlan::Sort(sort) => of_values(&sort.input, at),
        LogicalPlan::Limit(limit) => of_values(&limit.input, at),
        LogicalPlan::Values(values) => {
            let mut look = Look { left: LOOKS_MAX };
            same(values.values.iter().map(|row| look.expression(row.get(at)?, plan, 0)))
        }
        _ => None,
    }
}

/// The columns of a plan as expressions over it that are shown as what holds them: those of a view are of the types that the catalog
/// says, as clients go by the one and by the other.
pub(crate) fn held(plan: &LogicalPlan) -> Vec<Expr> {
    let shown = plan.schema().iter().zip(columns(plan));
    let held = shown.map(|(named, shown)| {
        let column = Expr::Column(Column::from(named));
        match shown {
            None | Some(Shown::Nothing) => column,
            Some(_) => cast(column, named.1.data_type().clone()),
        }
    });
    held.collect()
}

/// The columns of a result, with the names and types that a client is shown.
pub fn over(schema: &Schema, shown: &[Option<Shown>]) -> SchemaRef {
    let named = names::shown_schema(schema);
    if shown.iter().all(Option::is_none) {
        return named;
    }
    let fields = named.fields().iter().enumerate().map(|(at, field)| {
        let name = shown.get(at).copied().flatten().and_then(|shown| shown.name(field.data_type()));
        match name {
            None => field.clone(),
            Some(name) => {
                let mut metadata = field.metadata().clone();
                metadata.insert(PG_TYPE.to_string(), name.to_string());
                Arc::new(field.as_ref().clone().with_metadata(metadata))
            }
        }
    });
    Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), named.metadata().clone()))
}

/// Looks into a plan for one column.
struct Look {
    /// At how many plans and expressions it may still look.
    left: usize,
}

impl Look {
    fn may(&mut self, depth: usize) -> Option<()> {
        self.left = self.left.checked_sub(1)?;
        (depth < DEPTH_MAX).then_some(())
    }

    fn column(&mut self, plan: &LogicalPlan, at: usize, depth: usize) -> Option<Shown> {
        self.may(depth)?;
        let depth = depth + 1;
        match plan {
            LogicalPlan::Projection(projection) => self.expression(projection.expr.get(at)?, &projection.input, depth),
            LogicalPlan::SubqueryAlias(alias) => self.column(&alias.input, at, depth),
            LogicalPlan::Filter(filter) => self.column(&filter.input, at, depth),
            LogicalPlan::Sort(sort) => self.column(&sort.input, at, depth),
            LogicalPlan::Limit(limit) => self.column(&limit.input, at, depth),
            LogicalPlan::Distinct(Distinct::All(input)) => self.column(input, at, depth),
            // What windows compute comes behind the columns that come in.
            LogicalPlan::Window(window) if at < window.input.schema().fields().len() => {
                self.column(&window.input, at, depth)
            }
            LogicalPlan::Join(join) => {
                let of_left = join.left.schema().fields().len();
                // Semi joins have the columns of one side, and some one more.
                if join.schema.fields().len() != of_left + join.right.schema().fields().len() {
                    return None;
                }
                match at.checked_sub(of_left) {
                    None => self.column(&join.left, at, depth),
                    Some(at) => self.column(&join.right, at, depth),
                }
            }
            LogicalPlan::Union(union) => same(union.inputs.iter().map(|input| self.column(input, at, depth))),
            // Also VALUES in FROM: its rows may be keys that are looked up, which are bigints as literals and as parameters.
            _ => None,
        }
    }

    /// `input` is what the expression reads.
    fn expression(&mut self, expr: &Expr, input: &LogicalPlan, depth: usize) -> Option<Shown> {
        self.may(depth)?;
        let depth = depth + 1;
        match expr {
            Expr::Alias(alias) => self.expression(&alias.expr, input, depth),
            Expr::Column(name) => self.column(input, input.schema().maybe_index_of_column(name)?, depth),
            Expr::Literal(value, _) if value.is_null() => Some(Shown::Nothing),
            // As coercion leaves it.
            Expr::Cast(cast) if matches!(cast.expr.as_ref(), Expr::Literal(value, _) if value.is_null()) => {
                Some(Shown::Nothing)
            }
            Expr::Case(Case { when_then_expr, else_expr, .. }) => {
                let branches = when_then_expr.iter().map(|(_, then)| then).chain(else_expr);
                same(branches.map(|branch| self.expression(branch, input, depth)))
            }
            Expr::ScalarSubquery(subquery) => self.column(&subquery.subquery, 0, depth),
            Expr::ScalarFunction(call) => match call.name() {
                "coalesce" | "greatest" | "least" => {
                    same(call.args.iter().map(|arg| self.expression(arg, input, depth)))
                }
                "nullif" => self.expression(call.args.first()?, input, depth),
                JSON => Some(Shown::Json),
                JSONB => Some(Shown::Jsonb),
                // A part of a document of `jsonb` is `jsonb`.
                name if matches!(json_text::operator(name), Some("->" | "#>")) => {
                    match self.expression(call.args.first()?, input, depth) {
                        Some(Shown::Jsonb) => Some(Shown::Jsonb),
                        _ => Some(Shown::Json),
                    }
                }
                _ => self.whole(expr, depth).map(|_| Shown::Int4),
            },
            _ => self.whole(expr, depth).map(|_| Shown::Int4),
        }
    }

    /// The number that arithmetic over integer literals is, where PostgreSQL computes it in 32 bits.
    fn whole(&mut self, expr: &Expr, depth: usize) -> Option<i32> {
        self.may(depth)?;
        let depth = depth + 1;
        match expr {
            Expr::Literal(ScalarValue::Int64(Some(number)), _) => i32::try_from(*number).ok(),
            Expr::Alias(alias) => self.whole(&alias.expr, depth),
            Expr::Negative(number) => self.whole(number, depth)?.checked_neg(),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.computed(*op, left, right, depth),
            // As `functions::checked` has them.
            Expr::ScalarFunction(call) => match (call.name(), call.args.as_slice()) {
                ("checked_add", [left, right]) => self.computed(Operator::Plus, left, right, depth),
                ("checked_subtract", [left, right]) => self.computed(Operator::Minus, left, right, depth),
                ("checked_multiply", [left, right]) => self.computed(Operator::Multiply, left, right, depth),
                ("checked_negate", [number]) => self.whole(number, depth)?.checked_neg(),
                _ => None,
            },
            _ => None,
        }
    }

    fn computed(&mut self, op: Operator, left: &Expr, right: &Expr, depth: usize) -> Option<i32> {
        let (left, right) = (self.whole(left, depth)?, self.whole(right, depth)?);
        match op {
            Operator::Plus => left.checked_add(right),
            Operator::Minus => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide => left.checked_div(right),
            Operator::Modulo => left.checked_rem(right),
            _ => None,
        }
    }
}

/// What all of them are shown as.
fn same(mut each: impl Iterator<Item = Option<Shown>>) -> Option<Shown> {
    each.try_fold(Shown::Nothing, |all, one| match (all, one?) {
        (Shown::Nothing, one) => Some(one),
        (all, one) => (one == all || one == Shown::Nothing).then_some(all),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn what_is_written_as_an_integer_is_one_and_parts_of_documents_are_json() {
        let context = SessionContext::new_with_state(crate::functions::planning_state("UTC"));
        let table = "(SELECT 1 AS small, x AS large, d FROM (VALUES (3000000000, '{}'), (1, NULL)) AS t (x, d)) AS t";
        for (expression, expected) in [
            ("1", Some("int4")),
            ("-2147483647", Some("int4")),
            ("2147483648", None),
            ("1::bigint", None),
            ("2147483647 + 1", None),
            ("7 - 2 * 3", Some("int4")),
            ("count(*) OVER ()", None),
            ("small", Some("int4")),
            ("large", None),
            ("small + 1", None),
            ("CASE WHEN large > 1 THEN 1 ELSE -1 END", Some("int4")),
            ("CASE WHEN large > 1 THEN 1 END", Some("int4")),
            ("CASE WHEN large > 1 THEN small ELSE large END", None),
            ("coalesce(NULL, 1)", Some("int4")),
            ("coalesce(large, 1)", None),
            ("(SELECT 1)", Some("int4")),
            ("1.5", None),
            ("'1'", None),
            ("NULL", None),
            ("d", None),
            ("json_object_field(d, 'a')", Some("json")),
            ("json_object_field_text(d, 'a')", None),
            ("json_object_field(jsonb(d), 'a')", Some("jsonb")),
            ("coalesce(json(d), NULL)", Some("json")),
            ("upper(json(d))", None),
        ] {
            let sql = format!("SELECT x FROM (SELECT {expression} AS x FROM {table}) AS y ORDER BY x LIMIT 1");
            let frame = context.sql(&sql).await.unwrap_or_else(|error| panic!("{expression}: {error}"));
            let state = context.state();
            let plan = state
                .analyzer()
                .execute_and_check(frame.logical_plan().clone(), state.config_options(), |_, _| {})
                .unwrap_or_else(|error| panic!("{expression}: {error}"));
            for plan in [frame.logical_plan(), &plan] {
                let schema = schema(plan);
                let found = schema.field(0).metadata().get(PG_TYPE).map(String::as_str);
                assert_eq!(found, expected, "{expression}");
            }
        }
    }

    #[tokio::test]
    async fn branches_of_a_union_agree_or_are_what_they_are() {
        let context = SessionContext::new_with_state(crate::functions::planning_state("UTC"));
        for (sql, expected) in [
            ("SELECT 1 AS x UNION ALL SELECT 2", Some("int4")),
            ("SELECT 1 AS x UNION SELECT 2", Some("int4")),
            ("SELECT 1 AS x UNION ALL SELECT 5000000000", None),
            ("SELECT 1 AS x UNION ALL SELECT NULL", Some("int4")),
            ("VALUES (1), (NULL), (-2) ORDER BY 1 LIMIT 2", Some("int4")),
            ("VALUES (1), (5000000000)", None),
            ("SELECT x FROM (VALUES (1)) AS t (x)", None),
            ("SELECT a.x FROM (SELECT 1 AS x) AS a LEFT JOIN (SELECT 1 AS y) AS b ON a.x = b.y", Some("int4")),
        ] {
            let frame = context.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            let schema = schema(frame.logical_plan());
            assert_eq!(schema.field(0).metadata().get(PG_TYPE).map(String::as_str), expected, "{sql}");
        }
    }
}
