//! What is compared with a value that is held as text, read as such a value: the texts of a UUID and of `jsonb` have one form, so that
//! equal values are equal texts, as long as every text beside them has it (decision 0045). So is text that is written beside one in COALESCE.

use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    functions::uuid::{UUID_IN, invalid, uuid_of, uuids_of},
    json_text::{json, jsonb},
    shown::{self, Shown},
};
use datafusion::{
    common::{
        JoinConstraint, Result, ScalarValue,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, expr_rewriter::NamePreserver},
};
use tidemark_catalog::uuid;

/// The plan with these read so. A parameter beside a UUID stays: it is one when it arrives (`shown::parameters`).
///
/// # Errors
/// 22P02: a literal beside a UUID is no UUID. 42883: a column of `json` is compared, which has no equality.
pub fn read(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    if !shown::reads(&plan, &[Shown::Uuid, Shown::Json, Shown::Jsonb])? {
        return Ok(plan);
    }
    let read = plan.transform_up_with_subqueries(|node| {
        let node = pairs(node)?;
        let inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
        let inputs: Vec<&LogicalPlan> = inputs.iter().collect();
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let read = expr.transform_up(|expr| compare(expr, &inputs))?;
            Ok(read.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(read.data)
}

/// What a join that merges columns (`USING`, `NATURAL`) compares are pairs and no expression.
fn pairs(node: LogicalPlan) -> Result<LogicalPlan> {
    let mut join = match node {
        LogicalPlan::Join(join) => join,
        other => return Ok(other),
    };
    let (of_left_side, of_right_side) = ([join.left.as_ref()], [join.right.as_ref()]);
    for (left, right) in &mut join.on {
        let of_left = shown::expression(left, &of_left_side);
        let of_right = shown::expression(right, &of_right_side);
        match (beside(of_left, left, Operator::Eq)?, beside(of_right, right, Operator::Eq)?) {
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

fn compare(expr: Expr, inputs: &[&LogicalPlan]) -> Result<Transformed<Expr>> {
    let shown = |expr: &Expr| shown::expression(expr, inputs);
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (of_left, of_right) = (shown(left.as_ref()), shown(right.as_ref()));
            let (left, right) = match (beside(of_left, left.as_ref(), op)?, beside(of_right, right.as_ref(), op)?) {
                (Some(as_left), _) if of_right != of_left => (left, Box::new(as_left.of(*right)?)),
                (_, Some(as_right)) if of_right != of_left => (Box::new(as_right.of(*left)?), right),
                _ => (left, right),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::InList(mut list) => match beside(shown(list.expr.as_ref()), list.expr.as_ref(), Operator::Eq)? {
            None => Transformed::no(Expr::InList(list)),
            Some(beside) => {
                list.list = list.list.into_iter().map(|item| beside.of(item)).collect::<Result<_>>()?;
                Transformed::yes(Expr::InList(list))
            }
        },
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
        Expr::ScalarFunction(mut call) if call.func.name() == "coalesce" => {
            match call.args.iter().find_map(|arg| reader(shown(arg)?)) {
                None => Transformed::no(Expr::ScalarFunction(call)),
                Some(read) => {
                    let is_text = |arg: &Expr| matches!(arg, Expr::Literal(ScalarValue::Utf8(Some(_)), _));
                    call.args = call.args.into_iter().map(|arg| if is_text(&arg) { read(arg) } else { arg }).collect();
                    Transformed::yes(Expr::ScalarFunction(call))
                }
            }
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
        other => Transformed::no(other),
    })
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

fn beside(shown: Option<Shown>, expr: &Expr, op: Operator) -> PlanResult<Option<Beside>> {
    match shown {
        Some(Shown::Uuid) => Ok(Some(Beside::Uuid)),
        Some(Shown::Jsonb) => Ok(Some(Beside::Jsonb)),
        // Parts of documents, which are texts that are shown as json, may be compared.
        Some(Shown::Json) if matches!(expr, Expr::Column(_)) => {
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
