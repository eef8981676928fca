//! What is compared with a value that is held as text, read as such a value: the texts of a UUID and of `jsonb` have one form, so that
//! equal values are equal texts, as long as every text beside them has it (decision 0045). So is text that is written beside one among the
//! results of CASE and COALESCE, the items of an array, the rows of VALUES and the branches of UNION. `||` of `jsonb` merges documents.

use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    functions::uuid::{UUID_IN, invalid, uuid_of, uuids_of},
    json_text::{DELETE, concat, json, jsonb},
    shown::{self, Shown},
};
use datafusion::{
    common::{
        JoinConstraint, Result, ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, Expr, LogicalPlan, LogicalPlanBuilder, Operator, Projection, expr_rewriter::NamePreserver, lit,
    },
};
use std::sync::Arc;
use tidemark_catalog::uuid;

/// The plan with these read so. A parameter beside a UUID stays: it is one when it arrives (`shown::parameters`).
///
/// # Errors
/// 22P02: a literal beside a UUID is no UUID. 42883: a column of `json` is compared, which has no equality.
pub fn read(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    let of_columns = shown::reads(&plan, &[Shown::Uuid, Shown::Json, Shown::Jsonb])?;
    if !of_columns && !shown::makes(&plan)? {
        return Ok(plan);
    }
    let read = plan.transform_up_with_subqueries(|node| {
        let node = branches(pairs(node, of_columns)?)?;
        let inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
        let inputs: Vec<&LogicalPlan> = inputs.iter().collect();
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let read = expr.transform_up(|expr| compare(expr, &inputs, of_columns))?;
            Ok(read.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(read.data)
}

/// What a join that merges columns (`USING`, `NATURAL`) compares are pairs and no expression.
fn pairs(node: LogicalPlan, of_columns: bool) -> Result<LogicalPlan> {
    let mut join = match node {
        LogicalPlan::Join(join) if of_columns => join,
        other => return Ok(other),
    };
    let (of_left_side, of_right_side) = ([join.left.as_ref()], [join.right.as_ref()]);
    for (left, right) in &mut join.on {
        let of_left = shown::expression(left, &of_left_side);
        let of_right = shown::expression(right, &of_right_side);
        match (beside(of_left, left, Operator::Eq, true)?, beside(of_right, right, Operator::Eq, true)?) {
            _ if of_left == of_right => continue,
            (Some(as_left), _) => *right = as_left.of(right.clone())?,
            (None, Some(as_right)) => *left = as_right.of(left.clone())?,
            (None, None) => continue,
        }
        // The names are settled by now, and only columns can be merged.
        join.join_constraint = JoinConstraint::On;
    }
    Ok(LogicalPlan::Join(join))
}

/// The rows of VALUES and the branches of UNION are of one type.
fn branches(node: LogicalPlan) -> Result<LogicalPlan> {
    match node {
        LogicalPlan::Values(mut values) => {
            let no_columns = LogicalPlanBuilder::empty(false).build()?;
            for at in 0..values.schema.fields().len() {
                let shown = |row: &Vec<Expr>| shown::expression(row.get(at)?, &[&no_columns]);
                let Some(read) = values.values.iter().find_map(|row| reader(shown(row)?)) else { continue };
                for value in values.values.iter_mut().filter_map(|row| row.get_mut(at)) {
                    if is_text(value) {
                        *value = read(value.clone());
                    }
                }
            }
            Ok(LogicalPlan::Values(values))
        }
        LogicalPlan::Union(mut union) => {
            for at in 0..union.schema.fields().len() {
                let shown: Vec<Option<Shown>> = union.inputs.iter().map(|input| shown::column(input, at)).collect();
                let Some(read) = shown.iter().find_map(|shown| reader((*shown)?)) else { continue };
                for (input, _) in union.inputs.iter_mut().zip(&shown).filter(|(_, shown)| shown.is_none()) {
                    if let Some(changed) = branch(input, at, read)? {
                        *input = Arc::new(changed);
                    }
                }
            }
            Ok(LogicalPlan::Union(union))
        }
        other => Ok(other),
    }
}

/// A branch of UNION, with the text that is written as its column read so; `None`: there is none.
fn branch(plan: &LogicalPlan, at: usize, read: fn(Expr) -> Expr) -> Result<Option<LogicalPlan>> {
    let LogicalPlan::Projection(projection) = plan else { return Ok(None) };
    let Some(written) = projection.expr.get(at).map(|expr| expr.clone().unalias()).filter(is_text) else {
        return Ok(None);
    };
    let mut exprs = projection.expr.clone();
    let name = NamePreserver::new(plan).save(&exprs[at]);
    exprs[at] = name.restore(read(written));
    Ok(Some(LogicalPlan::Projection(Projection::try_new(exprs, projection.input.clone())?)))
}

/// Text that is written in the query, and has no type yet.
fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

fn compare(expr: Expr, inputs: &[&LogicalPlan], of_columns: bool) -> Result<Transformed<Expr>> {
    let shown = |expr: &Expr| shown::expression(expr, inputs);
    let beside = |shown, expr: &Expr, op| beside(shown, expr, op, of_columns);
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (of_left, of_right) = (shown(left.as_ref()), shown(right.as_ref()));
            // A column of texts beside none that is declared so stays: it may be a key that is looked up.
            let is_read = |expr: &Expr| of_columns || !matches!(expr, Expr::Column(_));
            let (left, right) = match (beside(of_left, left.as_ref(), op)?, beside(of_right, right.as_ref(), op)?) {
                (Some(as_left), _) if of_right != of_left && is_read(right.as_ref()) => {
                    (left, Box::new(as_left.of(*right)?))
                }
                (_, Some(as_right)) if of_right != of_left && is_read(left.as_ref()) => {
                    (Box::new(as_right.of(*left)?), right)
                }
                _ => (left, right),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            let is_unknown = |expr: &Expr| {
                matches!(expr, Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Null, _) | Expr::Placeholder(_))
            };
            match (shown(left.as_ref()), shown(right.as_ref())) {
                (Some(Shown::Jsonb), Some(Shown::Jsonb)) => Transformed::yes(concat(*left, *right)),
                (Some(Shown::Jsonb), _) if is_unknown(right.as_ref()) => Transformed::yes(concat(*left, *right)),
                (_, Some(Shown::Jsonb)) if is_unknown(left.as_ref()) => Transformed::yes(concat(*left, *right)),
                (Some(Shown::Json), Some(Shown::Json)) => return Err(no_concat("json", "json").into()),
                (Some(Shown::Json), Some(Shown::Jsonb)) => return Err(no_concat("json", "jsonb").into()),
                (Some(Shown::Jsonb), Some(Shown::Json)) => return Err(no_concat("jsonb", "json").into()),
                _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right })),
            }
        }
        // Planned of every difference of texts (`json_text::JsonOperators`).
        Expr::ScalarFunction(call) if call.name() == DELETE => match call.args.first().and_then(shown) {
            Some(Shown::Jsonb) => Transformed::no(Expr::ScalarFunction(call)),
            shown => return Err(no_difference(shown, call.args.get(1)).into()),
        },
        Expr::ScalarFunction(call) if call.name() == "pg_typeof" => {
            match call.args.first().and_then(|arg| type_name(shown(arg)?)) {
                Some(name) => Transformed::yes(lit(name)),
                None => Transformed::no(Expr::ScalarFunction(call)),
            }
        }
        Expr::InList(mut list) => {
            let mut of = beside(shown(list.expr.as_ref()), list.expr.as_ref(), Operator::Eq)?;
            if of.is_none() {
                let mut items = list.list.iter();
                let held = items.find_map(|item| Some((shown(item).filter(|of| type_name(*of).is_some())?, item)));
                let of_item = match held {
                    Some((shown, item)) => beside(Some(shown), item, Operator::Eq)?,
                    None => None,
                };
                if let Some(of_item) = of_item {
                    *list.expr = of_item.of((*list.expr).clone())?;
                }
                of = of_item;
            }
            match of {
                None => Transformed::no(Expr::InList(list)),
                Some(beside) => {
                    list.list = list.list.into_iter().map(|item| beside.of(item)).collect::<Result<_>>()?;
                    Transformed::yes(Expr::InList(list))
                }
            }
        }
        Expr::Between(mut between) => {
            match beside(shown(between.expr.as_ref()), between.expr.as_ref(), Operator::GtEq)? {
                None => Transformed::no(Expr::Between(between)),
                Some(beside) => {
                    between.low = Box::new(beside.of(*between.low)?);
                    between.high = Box::new(beside.of(*between.high)?);
                    Transformed::yes(Expr::Between(between))
                }
            }
        }
        Expr::ScalarFunction(mut call) if of_one_type(call.name()) => {
            match call.args.iter().find_map(|arg| reader(shown(arg)?)) {
                None => Transformed::no(Expr::ScalarFunction(call)),
                Some(read) => {
                    call.args = call.args.into_iter().map(|arg| if is_text(&arg) { read(arg) } else { arg }).collect();
                    Transformed::yes(Expr::ScalarFunction(call))
                }
            }
        }
        Expr::Case(mut case) => {
            let of = case.expr.as_deref().map(|expr| beside(shown(expr), expr, Operator::Eq)).transpose()?;
            if let Some(beside) = of.flatten() {
                for (when, _) in &mut case.when_then_expr {
                    **when = beside.of((**when).clone())?;
                }
            }
            let thens = case.when_then_expr.iter().map(|(_, then)| then);
            let read = thens.chain(&case.else_expr).find_map(|result| reader(shown(result.as_ref())?));
            if let Some(read) = read {
                let thens = case.when_then_expr.iter_mut().map(|(_, then)| then);
                for result in thens.chain(&mut case.else_expr).filter(|result| is_text(result)) {
                    **result = read((**result).clone());
                }
            }
            Transformed::yes(Expr::Case(case))
        }
        // `= ANY (array)`
        Expr::ScalarFunction(mut call)
            if call.func.name() == "array_has" && call.args.len() == 2 && shown(&call.args[1]) == Some(Shown::Uuid) =>
        {
            let array = call.args.remove(0);
            let stays = matches!(array, Expr::Placeholder(_)) || shown(&array) == Some(Shown::Uuids);
            call.args.insert(0, if stays { array } else { uuids_of(array) });
            Transformed::yes(Expr::ScalarFunction(call))
        }
        Expr::ScalarFunction(mut call)
            if call.func.name() == "array_has"
                && call.args.len() == 2
                && shown(&call.args[0]) == Some(Shown::Uuids) =>
        {
            let sought = call.args.remove(1);
            call.args.push(Beside::Uuid.of(sought)?);
            Transformed::yes(Expr::ScalarFunction(call))
        }
        other => Transformed::no(other),
    })
}

fn no_difference(of: Option<Shown>, what: Option<&Expr>) -> PlanError {
    let of = of.and_then(type_name).unwrap_or("text");
    let what = if matches!(what, Some(Expr::Literal(ScalarValue::Int64(_), _))) { "bigint" } else { "text" };
    PlanError::new(sqlstate::UNDEFINED_FUNCTION, format!("operator does not exist: {of} - {what}")).hint(
        "- takes numbers, times, or a jsonb and the name or the place of what is left out of it: x::jsonb - 'name'",
    )
}

fn no_concat(left: &str, right: &str) -> PlanError {
    PlanError::new(sqlstate::UNDEFINED_FUNCTION, format!("operator does not exist: {left} || {right}"))
        .hint("jsonb has it: x::jsonb || y::jsonb merges two documents, x::text || y::text joins their texts")
}

/// What `pg_typeof` says of what is held as text.
fn type_name(shown: Shown) -> Option<&'static str> {
    match shown {
        Shown::Uuid => Some("uuid"),
        Shown::Uuids => Some("uuid[]"),
        Shown::Json => Some("json"),
        Shown::Jsonb => Some("jsonb"),
        Shown::Nothing | Shown::Int4 => None,
    }
}

/// Whether the arguments of the function are all of one type.
fn of_one_type(function: &str) -> bool {
    matches!(function, "coalesce" | "greatest" | "least" | "nullif" | "make_array")
}

pub(crate) fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// What reads a text as such a value.
fn reader(shown: Shown) -> Option<fn(Expr) -> Expr> {
    match shown {
        Shown::Uuid => Some(uuid_of),
        Shown::Json => Some(json),
        Shown::Jsonb => Some(jsonb),
        _ => None,
    }
}

/// How what stands beside such a value is read.
#[derive(Clone, Copy)]
enum Beside {
    Uuid,
    Jsonb,
}

/// `of_columns`: the plan reads columns that are declared so. Without any, what is shown as `json` is a text, as it was before there were such.
fn beside(shown: Option<Shown>, expr: &Expr, op: Operator, of_columns: bool) -> PlanResult<Option<Beside>> {
    match shown {
        Some(Shown::Uuid) => Ok(Some(Beside::Uuid)),
        Some(Shown::Jsonb) => Ok(Some(Beside::Jsonb)),
        // Parts of documents, which are texts that are shown as json, may be compared.
        Some(Shown::Json) if of_columns && matches!(expr, Expr::Column(_)) => {
            let message = format!("operator does not exist: json {op} unknown");
            Err(PlanError::new(sqlstate::UNDEFINED_FUNCTION, message)
                .hint("json has no equality, as in PostgreSQL: compare its text, document::text, or as jsonb, document::jsonb"))
        }
        _ => Ok(None),
    }
}

impl Beside {
    /// A literal that is a UUID is read at once, so that who looks for keys in a plan finds a literal.
    fn of(self, expr: Expr) -> Result<Expr> {
        let stays = match (self, &expr) {
            (_, Expr::Literal(value, _)) => value.is_null(),
            (Beside::Uuid, Expr::Placeholder(_)) => true,
            (Beside::Uuid, Expr::ScalarFunction(call)) => call.func.name() == UUID_IN,
            _ => false,
        };
        match (self, expr) {
            (_, expr) if stays => Ok(expr),
            (Beside::Uuid, Expr::Literal(ScalarValue::Utf8(Some(text)), metadata)) => {
                Ok(Expr::Literal(ScalarValue::Utf8(Some(uuid::read(&text).map_err(invalid)?)), metadata))
            }
            (Beside::Uuid, other) => Ok(uuid_of(other)),
            (Beside::Jsonb, other) => Ok(jsonb(other)),
        }
    }
}
