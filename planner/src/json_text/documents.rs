//! A column of `json` or `jsonb` goes into JSON as the document that it is: `json_build_object('a', d)`. Its type is known when the query
//! is bound; what says itself that it is a document has its letter by then ([`super::made`]).

use super::made::{ARRAY, ITEMS, OBJECT, PAIRS, VALUE};
use crate::{
    PlanResult,
    shown::{self, Shown},
};
use datafusion::{
    common::{
        Column, Result, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan, expr_rewriter::NamePreserver, lit},
};

/// The plan, in which the letters say so of what is shown as `json` or `jsonb`.
///
/// # Errors
/// Of DataFusion's walk over a plan; none of ours.
pub(crate) fn mark(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    if !makes_json(&plan)? {
        return Ok(plan);
    }
    let marked = plan.transform_up_with_subqueries(|node| {
        let inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
        let inputs: Vec<&LogicalPlan> = inputs.iter().collect();
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let marked = expr.transform_up(|expr| Ok(marked(expr, &inputs)))?;
            Ok(marked.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(marked.data)
}

fn makes_json(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                found = found || matches!(expr, Expr::ScalarFunction(call) if is_gathered(call.name()).is_some());
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}

/// Whether it takes arrays of what goes in; `None`: it makes no JSON.
fn is_gathered(name: &str) -> Option<bool> {
    match name {
        VALUE | OBJECT | ARRAY => Some(false),
        ITEMS | PAIRS => Some(true),
        _ => None,
    }
}

fn marked(expr: Expr, inputs: &[&LogicalPlan]) -> Transformed<Expr> {
    let Expr::ScalarFunction(mut call) = expr else { return Transformed::no(expr) };
    let Some(is_gathered) = is_gathered(call.name()) else { return Transformed::no(Expr::ScalarFunction(call)) };
    let letters = match call.args.split_first() {
        Some((Expr::Literal(ScalarValue::Utf8(Some(letters)), _), values)) if letters.len() == values.len() => {
            let each = letters.chars().zip(values).map(|(letter, value)| {
                let shown = if is_gathered { of_items(value, inputs) } else { shown::expression(value, inputs) };
                if matches!(shown, Some(Shown::Json | Shown::Jsonb)) { 'j' } else { letter }
            });
            Some(each.collect::<String>()).filter(|marked| marked != letters)
        }
        _ => None,
    };
    match letters {
        None => Transformed::no(Expr::ScalarFunction(call)),
        Some(letters) => {
            call.args[0] = lit(letters);
            Transformed::yes(Expr::ScalarFunction(call))
        }
    }
}

/// What the items of an array are shown as that an aggregate below has gathered.
fn of_items(array: &Expr, inputs: &[&LogicalPlan]) -> Option<Shown> {
    match array {
        Expr::Column(column) => inputs.iter().find_map(|input| gathered(input, column)),
        _ => None,
    }
}

fn gathered(plan: &LogicalPlan, column: &Column) -> Option<Shown> {
    let at = plan.schema().maybe_index_of_column(column)?;
    let (mut computed, input) = match plan {
        LogicalPlan::Filter(filter) => return gathered(&filter.input, column),
        LogicalPlan::Aggregate(aggregate) => {
            let keys = aggregate.schema.fields().len().checked_sub(aggregate.aggr_expr.len())?;
            (aggregate.aggr_expr.get(at.checked_sub(keys)?)?, &aggregate.input)
        }
        LogicalPlan::Window(window) => match at.checked_sub(window.input.schema().fields().len()) {
            None => return gathered(&window.input, column),
            Some(at) => (window.window_expr.get(at)?, &window.input),
        },
        _ => return None,
    };
    while let Expr::Alias(alias) = computed {
        computed = alias.expr.as_ref();
    }
    let args = match computed {
        Expr::AggregateFunction(call) => &call.params.args,
        Expr::WindowFunction(call) => &call.params.args,
        _ => return None,
    };
    shown::expression(args.first()?, &[input.as_ref()])
}
