//! The logical node: what an `ASOF JOIN` means, with every type already agreed.

use datafusion::common::{DFSchemaRef, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore, build_join_schema};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AsofKind {
    /// Unmatched left rows are dropped.
    Inner,
    /// Unmatched left rows are kept, with NULLs on the right.
    Left,
}

/// `left time <op> right time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AsofOp {
    /// The greatest right time at or before the left time.
    GtEq,
    /// The greatest right time before the left time.
    Gt,
    /// The least right time at or after the left time.
    LtEq,
    /// The least right time after the left time.
    Lt,
}

impl AsofOp {
    /// Whether the match lies at or before the left row.
    pub fn is_backward(self) -> bool {
        matches!(self, AsofOp::GtEq | AsofOp::Gt)
    }
}

impl fmt::Display for AsofOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AsofOp::GtEq => ">=",
            AsofOp::Gt => ">",
            AsofOp::LtEq => "<=",
            AsofOp::Lt => "<",
        })
    }
}

/// How far apart the two times of a match may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tolerance {
    /// Microseconds between timestamps, units between integers.
    pub span: i64,
    /// `<` instead of `<=`.
    pub strict: bool,
}

/// At most one right row for each left row: equal keys and the nearest right time that `op` allows.
///
/// Output: the left columns, then the right ones. NULL in a key or a time matches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsofNode {
    pub left: LogicalPlan,
    pub right: LogicalPlan,
    pub kind: AsofKind,
    pub op: AsofOp,
    /// Left and right expressions of one type, never nested.
    pub keys: Vec<(Expr, Expr)>,
    /// Both `Timestamp(Microsecond, _)` or both `Int64`.
    pub left_time: Expr,
    pub right_time: Expr,
    /// Right columns that break ties of key and time: the greatest row wins, NULL being smallest. Empty where there
    /// are no ties.
    pub ties: Vec<Expr>,
    /// Applied to the match once found: it never makes an older row match.
    pub tolerance: Option<Tolerance>,
    /// What a tolerance is measured from, of the type of the times; `None`: the right time. NULL is never near enough.
    pub base: Option<Expr>,
    /// A right text column: a match that has `delete` there counts as none.
    pub operation: Option<Expr>,
    schema: DFSchemaRef,
}

impl AsofNode {
    /// A node without tolerance, ties or a delete mark: those are public fields.
    pub fn try_new(
        left: LogicalPlan,
        right: LogicalPlan,
        kind: AsofKind,
        op: AsofOp,
        keys: Vec<(Expr, Expr)>,
        left_time: Expr,
        right_time: Expr,
    ) -> Result<Self> {
        let schema = output_schema(&left, &right, kind)?;
        Ok(AsofNode {
            left,
            right,
            kind,
            op,
            keys,
            left_time,
            right_time,
            ties: vec![],
            tolerance: None,
            base: None,
            operation: None,
            schema,
        })
    }
}

fn output_schema(left: &LogicalPlan, right: &LogicalPlan, kind: AsofKind) -> Result<DFSchemaRef> {
    let join = match kind {
        AsofKind::Inner => JoinType::Inner,
        AsofKind::Left => JoinType::Left,
    };
    Ok(Arc::new(build_join_schema(left.schema(), right.schema(), &join)?))
}

impl UserDefinedLogicalNodeCore for AsofNode {
    fn name(&self) -> &str {
        "AsofJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = self.keys.iter().flat_map(|(l, r)| [l, r]);
        keys.chain([&self.left_time, &self.right_time])
            .chain(&self.ties)
            .chain(&self.base)
            .chain(&self.operation)
            .cloned()
            .collect()
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let wanted = self.expressions().len();
        let (Some(right), Some(left), true) = (inputs.pop(), inputs.pop(), exprs.len() == wanted) else {
            return datafusion::common::internal_err!("AsofJoin takes two inputs and {wanted} expressions");
        };
        let schema = output_schema(&left, &right, self.kind)?;
        let mut exprs = exprs.into_iter();
        let mut next = || {
            exprs
                .next()
                .ok_or_else(|| datafusion::error::DataFusionError::Internal("AsofJoin lost an expression".into()))
        };
        let mut keys = Vec::with_capacity(self.keys.len());
        for _ in &self.keys {
            keys.push((next()?, next()?));
        }
        let (left_time, right_time) = (next()?, next()?);
        let ties = self.ties.iter().map(|_| next()).collect::<Result<_>>()?;
        let base = self.base.as_ref().map(|_| next()).transpose()?;
        let operation = self.operation.as_ref().map(|_| next()).transpose()?;
        Ok(AsofNode {
            left,
            right,
            kind: self.kind,
            op: self.op,
            keys,
            left_time,
            right_time,
            ties,
            tolerance: self.tolerance,
            base,
            operation,
            schema,
        })
    }

    /// Projection pushdown: the columns of the two sides; those that the expressions read are added by the rule.
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let (left, right): (Vec<usize>, Vec<usize>) = output_columns.iter().partition(|&&i| i < width);
        Some(vec![left, right.into_iter().map(|i| i - width).collect()])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "AsofJoin: {:?}", self.kind)?;
        for (left, right) in &self.keys {
            write!(f, ", {left} = {right}")?;
        }
        write!(f, ", {} {} {}", self.left_time, self.op, self.right_time)?;
        if let Some(tolerance) = self.tolerance {
            let base = self.base.as_ref().unwrap_or(&self.right_time);
            write!(f, ", within {}{} of {base}", if tolerance.strict { "<" } else { "<=" }, tolerance.span)?;
        }
        if let Some(operation) = &self.operation {
            write!(f, ", deleted by {operation}")?;
        }
        Ok(())
    }
}

impl Hash for AsofNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.left.hash(state);
        self.right.hash(state);
        (self.kind, self.op, self.tolerance).hash(state);
        self.expressions().hash(state);
    }
}

impl PartialOrd for AsofNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        let by_parts = (self.kind, self.op, self.tolerance).cmp(&(other.kind, other.op, other.tolerance));
        match by_parts {
            Ordering::Equal => {}
            unequal => return Some(unequal),
        }
        let by_exprs = self.expressions().partial_cmp(&other.expressions())?;
        let by_left = || self.left.partial_cmp(&other.left);
        let by_right = || self.right.partial_cmp(&other.right);
        [Some(by_exprs), by_left(), by_right()].into_iter().find(|o| *o != Some(Ordering::Equal)).flatten()
    }
}
