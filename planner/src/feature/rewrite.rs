//! Small rewrites of expressions: finding `now()`, naming slots.

use datafusion::{
    common::{
        Column,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, Volatility},
};

/// Whether this very node is `now()` (also written `CURRENT_TIMESTAMP`).
pub fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(f) if f.func.name() == "now")
}

/// The name of a function in the expression that asks a clock or chance for its value, `now()` aside.
pub fn clock_function(expr: &Expr) -> Option<String> {
    let mut found = None;
    let _ = expr.apply(|e| {
        if let Expr::ScalarFunction(f) = e
            && f.func.signature().volatility != Volatility::Immutable
            && !is_now(e)
        {
            found = Some(f.func.name().to_string());
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// The column that stands for slot `i` in output expressions.
pub fn slot_column(i: usize) -> Expr {
    Expr::Column(Column::new_unqualified(format!("s{i}")))
}

/// Replaces the slot columns of an output expression by other (unqualified) column names.
pub fn rename_slots(expr: &Expr, name_of: &dyn Fn(usize) -> Option<String>) -> Expr {
    let renamed = expr.clone().transform(|e| {
        if let Expr::Column(column) = &e
            && let Some(slot) = column.name.strip_prefix('s').and_then(|n| n.parse::<usize>().ok())
            && let Some(name) = name_of(slot)
        {
            return Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name))));
        }
        Ok(Transformed::no(e))
    });
    // The closure never fails.
    renamed.map(|t| t.data).unwrap_or_else(|_| expr.clone())
}
