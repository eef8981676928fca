//! What a result's column is shown as where PostgreSQL's type is another than the one that its values are held in: `1` is an
//! `integer`, held in 64 bits, and `document -> 'a'` is `json`, held as text.
//!
//! Read off a plan that is there already, so that types, coercion and what is stored stay as they are. A column is shown as an
//! `integer` only where every value that it can have is written in the query and fits one. Where nothing is known the column is
//! shown as what holds it, which is also what the catalog says of a view's columns (decision 0038). A column that was declared as
//! `uuid`, `json` or `jsonb` is held as text, and is shown so as far as a query passes it on (decision 0045).

use crate::{
    asof::AsofNode,
    compared::compares,
    functions::uuid::{UUID_IN, UUIDS_IN},
    json_text::{self, JSON, JSONB},
    names,
    table::TidemarkTable,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::{
        Column, ScalarValue,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{BinaryExpr, Distinct, Expr, LogicalPlan, Operator, cast, expr::Case},
};
use std::{collections::BTreeMap, sync::Arc};
use tidemark_catalog::SqlType;

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
    Uuid,
    /// An array of UUIDs.
    Uuids,
}

impl Shown {
    /// The type's name, where values of this Arrow type can be shown so.
    fn name(self, held: &DataType) -> Option<&'static str> {
        match (self, held) {
            (Shown::Int4, DataType::Int64) => Some("int4"),
            (Shown::Json, DataType::Utf8) => Some("json"),
            (Shown::Jsonb, DataType::Utf8) => Some("jsonb"),
            (Shown::Uuid, DataType::Utf8) => Some("uuid"),
            (Shown::Uuids, DataType::List(item)) if *item.data_type() == DataType::Utf8 => Some("_uuid"),
            _ => None,
        }
    }

    /// What a column that is declared so is shown as; `None`: as what holds it.
    pub fn of(ty: &SqlType) -> Option<Shown> {
        match ty {
            SqlType::Uuid => Some(Shown::Uuid),
            SqlType::Json => Some(Shown::Json),
            SqlType::Jsonb => Some(Shown::Jsonb),
            _ => None,
        }
    }

    /// The type of columns that are declared so.
    pub fn declared(self) -> Option<SqlType> {
        match self {
            Shown::Uuid => Some(SqlType::Uuid),
            Shown::Json => Some(SqlType::Json),
            Shown::Jsonb => Some(SqlType::Jsonb),
            Shown::Nothing | Shown::Int4 | Shown::Uuids => None,
        }
    }

    /// Whether columns can be: whatever passes values on keeps that.
    fn is_declared(&self) -> bool {
        self.declared().is_some()
    }
}

/// By name, the columns that are shown as another type than what holds them.
pub fn declared(columns: &[tidemark_catalog::Column]) -> Vec<(String, Shown)> {
    columns.iter().filter_map(|column| Some((column.name.clone(), Shown::of(&column.ty)?))).collect()
}

/// The type that a column of a result is kept as, where the result has what [`over`] says of it.
pub fn sql_type(field: &Field) -> Option<SqlType> {
    let shown = field.metadata().get(PG_TYPE).filter(|_| *field.data_type() == DataType::Utf8);
    match shown.map(String::as_str) {
        Some("uuid") => Some(SqlType::Uuid),
        _ => SqlType::from_arrow(field.data_type()),
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
pub(crate) fn held(plan: &LogicalPlan, catalog: &[tidemark_catalog::Column]) -> Vec<Expr> {
    let shown = plan.schema().iter().zip(columns(plan)).enumerate();
    let held = shown.map(|(at, (named, shown))| {
        let column = Expr::Column(Column::from(named));
        match shown {
            None | Some(Shown::Nothing) => column,
            shown if catalog.get(at).is_some_and(|declared| Shown::of(&declared.ty) == shown) => column,
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

/// By column, the type of what is kept of the plan's rows, where that is another than what holds it. JSON is kept as such only where a
/// column is read that is declared so: what is taken out of texts stays text, as it was before there were such columns.
///
/// # Errors
/// Of DataFusion's walk over a plan; none of ours.
pub fn kept(plan: &LogicalPlan) -> Result<Vec<Option<SqlType>>> {
    let reads_json = reads(plan, &[Shown::Json, Shown::Jsonb])?;
    let kept = columns(plan).into_iter().zip(plan.schema().fields()).map(|(shown, field)| {
        let ty = shown.filter(|shown| reads_json || *shown == Shown::Uuid)?.declared()?;
        (ty.arrow() == *field.data_type()).then_some(ty)
    });
    Ok(kept.collect())
}

/// What an expression over these plans is shown as.
pub(crate) fn expression(expr: &Expr, inputs: &[&LogicalPlan]) -> Option<Shown> {
    inputs.iter().find_map(|input| Look { left: LOOKS_MAX }.expression(expr, input, 0))
}

/// What a column of a plan is shown as.
pub(crate) fn column(plan: &LogicalPlan, at: usize) -> Option<Shown> {
    Look { left: LOOKS_MAX }.column(plan, at, 0)
}

/// Whether a plan calls what makes values that are held as text, or asks of their type.
pub(crate) fn makes(plan: &LogicalPlan) -> Result<bool> {
    const MADE_BY: [&str; 7] = [UUID_IN, UUIDS_IN, "gen_random_uuid", JSON, JSONB, "pg_typeof", json_text::DELETE];
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found = found || matches!(expr, Expr::ScalarFunction(call) if MADE_BY.contains(&call.name()));
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}

/// Whether a plan reads a column that is declared as one of these.
pub(crate) fn reads(plan: &LogicalPlan, wanted: &[Shown]) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = TidemarkTable::of(&scan.source)
        {
            found = found || table.shown.iter().any(|(_, shown)| wanted.contains(shown));
        }
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// By name (`$1`), the parameters that are UUIDs or arrays of such: cast to one, or compared with one.
pub fn parameters(plan: &LogicalPlan) -> Result<BTreeMap<String, Shown>> {
    let mut found = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        let inputs = node.inputs();
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                asked(expr, &inputs, &mut found);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// Notes the parameters of which the expression asks that they are UUIDs.
fn asked(expr: &Expr, inputs: &[&LogicalPlan], found: &mut BTreeMap<String, Shown>) {
    let is_uuid = |expr: &Expr| expression(expr, inputs) == Some(Shown::Uuid);
    let mut note = |expr: &Expr, shown: Shown| {
        if let Some(name) = parameter(expr) {
            found.entry(name.to_string()).or_insert(shown);
        }
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) => {
            if is_uuid(left.as_ref()) {
                note(right.as_ref(), Shown::Uuid);
            } else if is_uuid(right.as_ref()) {
                note(left.as_ref(), Shown::Uuid);
            }
        }
        Expr::Case(case) if case.expr.as_deref().is_some_and(is_uuid) => {
            case.when_then_expr.iter().for_each(|(when, _)| note(when.as_ref(), Shown::Uuid));
        }
        Expr::InList(list) if is_uuid(list.expr.as_ref()) => list.list.iter().for_each(|item| note(item, Shown::Uuid)),
        Expr::InList(list) if list.list.iter().any(is_uuid) => note(list.expr.as_ref(), Shown::Uuid),
        Expr::Between(between) if is_uuid(between.expr.as_ref()) => {
            note(between.low.as_ref(), Shown::Uuid);
            note(between.high.as_ref(), Shown::Uuid);
        }
        Expr::ScalarFunction(call) => match (call.name(), call.args.as_slice()) {
            (UUID_IN, [text]) => note(text, Shown::Uuid),
            (UUIDS_IN, [texts]) => note(texts, Shown::Uuids),
            ("array_has", [array, sought]) if is_uuid(sought) => note(array, Shown::Uuids),
            ("array_has", [array, sought]) if expression(array, inputs) == Some(Shown::Uuids) => {
                note(sought, Shown::Uuid);
            }
            _ => {}
        },
        _ => {}
    }
}

/// The name of the parameter that it is, behind casts that coercion has put there or not.
fn parameter(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Placeholder(parameter) => Some(parameter.id.as_str()),
        Expr::Cast(cast) => parameter(&cast.expr),
        _ => None,
    }
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
            LogicalPlan::Distinct(Distinct::On(distinct)) => {
                self.expression(distinct.select_expr.get(at)?, &distinct.input, depth).filter(Shown::is_declared)
            }
            LogicalPlan::TableScan(scan) => {
                TidemarkTable::of(&scan.source)?.shown(scan.projected_schema.field(at).name())
            }
            // What windows compute comes behind the columns that come in.
            LogicalPlan::Window(window) => match at.checked_sub(window.input.schema().fields().len()) {
                None => self.column(&window.input, at, depth),
                Some(at) => self.taken(window.window_expr.get(at)?, &window.input, depth),
            },
            LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.as_slice() {
                [Expr::GroupingSet(_), ..] => None,
                keys => match (keys.get(at), at.checked_sub(keys.len())) {
                    (Some(key), _) => self.expression(key, &aggregate.input, depth).filter(Shown::is_declared),
                    (None, at) => self.taken(aggregate.aggr_expr.get(at?)?, &aggregate.input, depth),
                },
            },
            LogicalPlan::Extension(extension) => {
                let asof: &AsofNode = extension.node.as_any().downcast_ref()?;
                let shown = match at.checked_sub(asof.left.schema().fields().len()) {
                    None => self.column(&asof.left, at, depth),
                    Some(at) => self.column(&asof.right, at, depth),
                };
                shown.filter(Shown::is_declared)
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
            // An integer in VALUES in FROM may be a key that is looked up, which is a bigint as a literal and as a parameter.
            LogicalPlan::Values(values) => {
                let rows = values.values.iter().map(|row| self.expression(row.get(at)?, plan, depth));
                same(rows).filter(Shown::is_declared)
            }
            LogicalPlan::Unnest(unnest) => {
                let of = *unnest.dependency_indices.get(at)?;
                let is_list = unnest.list_type_columns.iter().any(|(column, _)| *column == of);
                match self.column(&unnest.input, of, depth)? {
                    Shown::Uuids if is_list => Some(Shown::Uuid),
                    shown => Some(shown).filter(|shown| !is_list && shown.is_declared()),
                }
            }
            _ => None,
        }
    }

    /// What an aggregate or a window takes out of its rows: a value as it came.
    fn taken(&mut self, expr: &Expr, input: &LogicalPlan, depth: usize) -> Option<Shown> {
        let (name, args) = match expr {
            Expr::Alias(alias) => return self.taken(&alias.expr, input, depth),
            Expr::AggregateFunction(call) => (call.func.name(), &call.params.args),
            Expr::WindowFunction(call) => (call.fun.name(), &call.params.args),
            _ => return None,
        };
        let takes = ["first_value", "last_value", "nth_value", "lag", "lead", "min", "max"].contains(&name);
        let value = args.first().filter(|_| takes)?;
        self.expression(value, input, depth).filter(Shown::is_declared)
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
                UUID_IN | "gen_random_uuid" => Some(Shown::Uuid),
                UUIDS_IN => Some(Shown::Uuids),
                "make_array" => same(call.args.iter().map(|arg| self.expression(arg, input, depth)))
                    .filter(|shown| *shown == Shown::Uuid)
                    .map(|_| Shown::Uuids),
                json_text::CONCAT | json_text::DELETE => Some(Shown::Jsonb),
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
            ("uuid_in(d)", Some("uuid")),
            ("gen_random_uuid()", Some("uuid")),
            ("gen_random_uuid()::text", None),
            ("coalesce(uuid_in(d), NULL)", Some("uuid")),
            ("upper(uuid_in(d))", None),
            ("max(uuid_in(d)) OVER ()", Some("uuid")),
            ("uuids_in(ARRAY[d])", Some("_uuid")),
            ("ARRAY[uuid_in(d), NULL]", Some("_uuid")),
            ("ARRAY[d]", None),
            ("jsonb_concat(jsonb(d), d)", Some("jsonb")),
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
            ("SELECT x FROM (VALUES (uuid_in('a')), (NULL)) AS t (x)", Some("uuid")),
            ("SELECT x FROM (VALUES (uuid_in('a')), ('a')) AS t (x)", None),
            ("SELECT unnest(ARRAY[uuid_in('a')]) AS x", Some("uuid")),
            ("SELECT unnest(ARRAY['a']) AS x", None),
            ("SELECT a.x FROM (SELECT 1 AS x) AS a LEFT JOIN (SELECT 1 AS y) AS b ON a.x = b.y", Some("int4")),
        ] {
            let frame = context.sql(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
            let schema = schema(frame.logical_plan());
            assert_eq!(schema.field(0).metadata().get(PG_TYPE).map(String::as_str), expected, "{sql}");
        }
    }
}
