//! Wide right sides are read late: the features of a row only when some label can use that row.
//!
//! The filter that the labels make (`prune.rs`) leaves out files, row groups and pages. Here it becomes exact for each row as
//! well, and a scan of Parquet files is told to ask it between columns: key and time are decoded first, the other
//! columns only of the rows that pass.
//!
//! ```text
//! labels (7, 10:00)          k, ts of a page      7 09:00 | 8 09:30 | 7 11:00     l.ts >= r.ts
//!                            can be used          yes       no        no
//!                            features decoded     1 row of 3
//! ```
//!
//! It only prunes, as that filter does: a node that lets a filter through lets this one through, and whatever does not ask it
//! gives the join more rows than it needs. What a scan asks for each row cannot fail.

use super::exec::Condition;
use super::labels::Index;
use super::prune;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::internal_err;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use datafusion::physical_expr::{conjunction, split_conjunction};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use tidemark_planner::asof::AsofOp;

type Expr = Arc<dyn PhysicalExpr>;
type Plan = Arc<dyn ExecutionPlan>;

/// Below so many rows of the right side all of it is read at once: it takes some milliseconds.
const ROWS_MIN: usize = 100_000;
/// So many rows of the right side for each label: with fewer most rows can be used, and key and time would be read twice
/// for nothing.
const ROWS_PER_LABEL: usize = 10;
/// Bytes of a row's other columns, at least, and how many times those of its key and time.
const WIDTH_MIN: usize = 64;
const WIDTH_RATIO: usize = 2;
/// What a value without a fixed width is taken for, bytes.
const VALUE_BYTES: usize = 32;

/// When features are read late, as a session's configuration has it (an extension); by itself, by statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Late {
    /// Of a wide right side that has many rows for each label.
    #[default]
    ByStatistics,
    /// Wherever it can be done.
    Always,
    Never,
}

/// Whether the features of a right side should be read late.
pub fn pays(left: &Plan, right: &Plan, condition: &Condition) -> bool {
    // The scan knows columns, and all of them are asked for at once.
    if prune::columns(condition).len() != condition.right_keys.len() + 1 {
        return false;
    }
    match condition.late {
        Late::Always => true,
        Late::Never => false,
        // Without a key nearly every row is before some label.
        Late::ByStatistics => !condition.right_keys.is_empty() && is_wide(right, condition) && has_many(left, right),
    }
}

fn is_wide(right: &Plan, condition: &Condition) -> bool {
    let first: Vec<usize> = condition
        .right_keys
        .iter()
        .chain([&condition.right_time])
        .filter_map(|expr| expr.downcast_ref::<Column>().map(Column::index))
        .collect();
    let (mut found_by, mut others) = (0, 0);
    for (at, field) in right.schema().fields().iter().enumerate() {
        let bytes = match field.data_type() {
            DataType::Boolean => 1,
            other => other.primitive_width().unwrap_or(VALUE_BYTES),
        };
        if first.contains(&at) {
            found_by += bytes;
        } else {
            others += bytes;
        }
    }
    others >= WIDTH_MIN && others >= found_by * WIDTH_RATIO
}

/// Labels of which nobody knows how many there are count as few, which they are as a rule.
fn has_many(left: &Plan, right: &Plan) -> bool {
    let rows = |plan: &Plan| plan.partition_statistics(None).ok()?.num_rows.get_value().copied();
    let Some(rights) = rows(right) else { return false };
    rights >= ROWS_MIN && rows(left).is_none_or(|labels| rights / ROWS_PER_LABEL >= labels)
}

/// The same plan, its Parquet scans that have this filter asking it between columns; `None` where no scan does.
///
/// Such a scan asks the filters of the query too, which the query itself asks above it. Those that can fail stay there: the
/// error would not be the query's own, nor would the rows that it is asked for. A filter over a key that is computed
/// is asked nowhere but for bounds.
pub fn reading_late(plan: &Plan, filter: &DynamicFilterPhysicalExpr) -> Result<Option<Plan>> {
    let (mut some, own) = (false, filter.expression_id());
    let late = plan
        .clone()
        .transform_up(|node| {
            let scan = (node.as_ref() as &dyn Any).downcast_ref::<DataSourceExec>();
            let Some((config, source)) = scan.and_then(DataSourceExec::downcast_to_file_source::<ParquetSource>) else {
                return Ok(Transformed::no(node));
            };
            let Some(asked) = source.filter() else { return Ok(Transformed::no(node)) };
            let safe: Vec<Expr> =
                split_conjunction(&asked).into_iter().filter(|part| cannot_fail(part)).cloned().collect();
            // Whoever reads all tables so has no filters above the scans.
            let is_late = source.table_parquet_options().global.pushdown_filters;
            if is_late || !safe.iter().any(|part| part.expression_id() == own) {
                return Ok(Transformed::no(node));
            }
            some = true;
            let source = Arc::new(source.with_predicate(conjunction(safe)).with_pushdown_filters(true));
            let config = FileScanConfigBuilder::from(config.clone()).with_source(source).build();
            Ok(Transformed::yes(DataSourceExec::from_data_source(config) as Plan))
        })
        .data()?;
    Ok(some.then_some(late))
}

/// Whether an expression has a value for every row: columns that are compared.
fn cannot_fail(expr: &Expr) -> bool {
    let compares = |op: &Operator| {
        use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
        matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | And | Or)
    };
    let itself = match expr.downcast_ref::<BinaryExpr>() {
        Some(binary) => compares(binary.op()),
        None => {
            let is_value = expr.is::<Column>() || expr.is::<Literal>();
            let is_test = expr.is::<IsNullExpr>() || expr.is::<IsNotNullExpr>() || expr.is::<NotExpr>();
            is_value || is_test || expr.is::<InListExpr>() || expr.is::<DynamicFilterPhysicalExpr>()
        }
    };
    itself && expr.children().into_iter().all(cannot_fail)
}

/// A filter that prunes, made exact for each row. What is exact comes first: where it leaves little, the rest is only asked for that.
pub fn exact(prunes: Expr, index: &Arc<Index>, condition: &Condition) -> Expr {
    let usable: Expr = Arc::new(Usable {
        keys: condition.right_keys.clone(),
        time: condition.right_time.clone(),
        op: condition.op,
        index: Arc::downgrade(index),
    });
    Arc::new(BinaryExpr::new(usable, Operator::And, prunes))
}

/// Whether some label can use a row.
#[derive(Debug)]
struct Usable {
    keys: Vec<Expr>,
    time: Expr,
    op: AsofOp,
    /// A plan outlives its executions and must not hold their labels. Once they are gone every row passes.
    index: Weak<Index>,
}

impl PartialEq for Usable {
    fn eq(&self, other: &Self) -> bool {
        let keys = self.keys.len() == other.keys.len() && self.keys.iter().zip(&other.keys).all(|(a, b)| a.eq(b));
        keys && self.time.eq(&other.time) && self.op == other.op && self.index.ptr_eq(&other.index)
    }
}

impl Eq for Usable {}

impl Hash for Usable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.keys.hash(state);
        self.time.hash(state);
        self.index.as_ptr().hash(state);
    }
}

impl fmt::Display for Usable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "usable(")?;
        for key in &self.keys {
            write!(f, "{key}, ")?;
        }
        write!(f, "{})", self.time)
    }
}

impl PhysicalExpr for Usable {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, _: &Schema) -> Result<bool> {
        Ok(false)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let usable = match self.index.upgrade() {
            Some(index) => {
                let mut usable = vec![false; batch.num_rows()];
                for (_, row) in index.find(&self.keys, &self.time, self.op, batch)?.rows {
                    usable[row as usize] = true;
                }
                usable
            }
            None => vec![true; batch.num_rows()],
        };
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(usable))))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.keys.iter().chain([&self.time]).collect()
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Expr>) -> Result<Expr> {
        match children.pop() {
            Some(time) if children.len() == self.keys.len() => {
                Ok(Arc::new(Usable { keys: children, time, op: self.op, index: self.index.clone() }))
            }
            _ => internal_err!("a filter by labels has other keys than it had"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
