//! A feature view made executable: DataFusion's physical expressions over Arrow batches, in and out of the key states.
//!
//! Rows of a batch are reduced to events (filter, entity key, inputs) column by column; an expression that fails on a
//! batch is tried again row by row, so only the failing rows are excluded. On the way out, slots of many instants are
//! turned into the view's columns at once.

mod events;
mod joined;

pub use events::Events;
use joined::JoinedTable;

use crate::{
    cell::Cell,
    current::Replaced,
    key::Walk,
    seam::{RejectReason, SourceBatch},
    value::{Value, array_of, array_of_cells, canonical, values_of},
    view::Step,
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray,
        TimestampMicrosecondArray, new_null_array,
    },
    compute::{cast, concat},
    datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Schema, SchemaRef},
};
use datafusion::{
    common::{
        DFSchema,
        tree_node::{Transformed, TreeNode},
    },
    error::Result as DfResult,
    execution::context::ExecutionProps,
    logical_expr::{Expr, simplify::SimplifyContext},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, create_physical_expr, expressions::BinaryExpr},
};
use std::sync::Arc;
use tidemark_catalog::{Object, ObjectId, UTC};
use tidemark_planner::{
    PlanError, PlanResult,
    bind::{history_schema, stored_fields},
    feature::{Branch, FeaturePlan, Joined, NOW_COLUMN, OutputKind},
    table::{with_found, with_status},
};

pub struct CompiledView {
    pub name: String,
    pub plan: FeaturePlan,
    pub walk: Walk,
    /// Of each branch, how its rows become the view's.
    taken: Vec<Option<Taken>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    inputs: Vec<Arc<dyn PhysicalExpr>>,
    slot_schema: SchemaRef,
    /// Stored columns that are neither key nor time.
    outputs: Vec<StoredOutput>,
    /// All stored columns, without the hidden ones.
    stored: Vec<Stored>,
    stored_schema: SchemaRef,
    /// The columns a user sees.
    pub visible_schema: SchemaRef,
    visible: Vec<Visible>,
    /// The schema of `history.<view>`.
    pub history_schema: SchemaRef,
}

/// A SELECT of UNION ALL, or one over joined tables.
struct Taken {
    joined: Vec<JoinedTable>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    columns: Vec<Arc<dyn PhysicalExpr>>,
}

enum StoredOutput {
    Slot(usize),
    Expr(Arc<dyn PhysicalExpr>, DataType),
}

/// Where a stored column comes from: its place in a [`Row`].
#[derive(Debug, Clone, Copy)]
pub enum Stored {
    Key(usize),
    Time,
    Output(usize),
}

/// Where a visible column comes from.
enum Visible {
    Stored(usize),
    /// Over the stored outputs (named as their slots) and the instant of the reading.
    Continuous {
        expr: Arc<dyn PhysicalExpr>,
        schema: SchemaRef,
        outputs: Vec<usize>,
        ty: DataType,
    },
}

/// A row of a view at an instant, as kept: enough to build any of its shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub key: Arc<[Value]>,
    pub instant_us: i64,
    pub event_us: i64,
    /// Stored columns that are neither key nor time; empty for a delete.
    pub outputs: Box<[Value]>,
}

/// A row that a view cannot use; it goes to dead letters with the view's name.
#[derive(Debug, Clone)]
pub struct RowFailure {
    pub row: usize,
    pub reason: RejectReason,
    pub error: String,
}

/// The rows to take from a batch: offset of row 0, times, which are admitted, which are deletes.
pub struct BatchRows<'a> {
    /// Index into the plan's branches: which of them the rows are of.
    pub branch: usize,
    /// The source and its batch, where they come as new ones: a view that joins tables keeps them for a while.
    pub from: Option<(ObjectId, &'a SourceBatch)>,
    pub rows: &'a RecordBatch,
    pub base_offset: u64,
    /// One per row; the event time, or a changelog row's effective time.
    pub times_us: &'a [i64],
    /// Row numbers that were not admitted, ascending.
    pub rejected: &'a [u32],
    /// Row numbers that are deletes, ascending.
    pub deletes: &'a [u32],
    /// Of a changelog: the versions that the rows replace. Views of which the walk has versions need them.
    pub replaced: Option<&'a Replaced>,
}

/// Bits of an event's mark that its offset has; above them is its branch.
const OFFSET_BITS: u32 = 56;

impl<'a> BatchRows<'a> {
    /// What comes second in the order of a key's events, after the time (semantics, section 2): branch, then offset.
    pub fn mark(&self, row: usize) -> u64 {
        (self.branch as u64) << OFFSET_BITS | (self.base_offset + row as u64)
    }

    /// All of these rows, at these times.
    pub fn all(rows: &'a RecordBatch, times_us: &'a [i64]) -> BatchRows<'a> {
        BatchRows { branch: 0, from: None, rows, base_offset: 0, times_us, rejected: &[], deletes: &[], replaced: None }
    }
}

impl CompiledView {
    pub fn new(object: &Object, plan: FeaturePlan) -> PlanResult<CompiledView> {
        let rows = DFSchema::try_from(plan.row_schema.as_ref().clone())?;
        let props = ExecutionProps::new();
        let physical = |expr: &Expr, schema: &DFSchema| -> PlanResult<Arc<dyn PhysicalExpr>> {
            // Not for speed: `coalesce` and its like exist only as what they simplify to.
            let context = SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build();
            let expr = ExprSimplifier::new(context).simplify(expr.clone())?;
            Ok(checked_arithmetic(create_physical_expr(&expr, schema, &props)?)?)
        };
        let taken = |branch: &Branch| -> PlanResult<Option<Taken>> {
            let Some(taken) = &branch.taken else { return Ok(None) };
            let relation = DFSchema::try_from(taken.schema.as_ref().clone())?;
            let joined = |joined: &Joined| -> PlanResult<JoinedTable> {
                let key = joined.key.iter().map(|k| physical(k, &relation)).collect::<PlanResult<Vec<_>>>()?;
                Ok(JoinedTable::new(joined, &taken.schema, key))
            };
            let joined = taken.joined.iter().map(joined).collect::<PlanResult<Vec<_>>>()?;
            let filter = taken.filter.as_ref().map(|f| physical(f, &relation)).transpose()?;
            let columns = taken.columns.iter().map(|c| physical(c, &relation)).collect::<PlanResult<Vec<_>>>()?;
            Ok(Some(Taken { joined, filter, columns }))
        };
        let taken = plan.branches.iter().map(taken).collect::<PlanResult<Vec<_>>>()?;
        let filter = plan.filter.as_ref().map(|f| physical(f, &rows)).transpose()?;
        let keys = plan.key.iter().map(|k| physical(k, &rows)).collect::<PlanResult<Vec<_>>>()?;
        let inputs = plan.inputs.iter().map(|i| physical(&i.expr, &rows)).collect::<PlanResult<Vec<_>>>()?;
        let slot_fields: Vec<Field> =
            plan.slots.iter().enumerate().map(|(i, s)| Field::new(format!("s{i}"), s.ty().clone(), true)).collect();
        let slot_schema = Arc::new(Schema::new(slot_fields.clone()));
        let slots = DFSchema::try_from(slot_schema.as_ref().clone())?;

        let (mut outputs, mut stored, mut visible) = (vec![], vec![], vec![]);
        let mut continuous = vec![];
        for output in &plan.outputs {
            let source = match &output.kind {
                OutputKind::Key(i) => Stored::Key(*i),
                OutputKind::Time => Stored::Time,
                OutputKind::Slot(slot) => {
                    outputs.push(StoredOutput::Slot(*slot));
                    Stored::Output(outputs.len() - 1)
                }
                OutputKind::Expr(expr) => {
                    outputs.push(StoredOutput::Expr(physical(expr, &slots)?, output.ty.clone()));
                    Stored::Output(outputs.len() - 1)
                }
                OutputKind::TimeContinuous { .. } => {
                    continuous.push((visible.len(), output));
                    visible.push(Visible::Stored(usize::MAX));
                    continue;
                }
            };
            visible.push(Visible::Stored(stored.len()));
            stored.push(source);
        }
        for (at, output) in continuous {
            let OutputKind::TimeContinuous { expr, bases } = &output.kind else { continue };
            let mut fields = vec![];
            let mut columns = vec![];
            for slot in bases {
                outputs.push(StoredOutput::Slot(*slot));
                stored.push(Stored::Output(outputs.len() - 1));
                fields.push(slot_fields[*slot].clone());
                columns.push(outputs.len() - 1);
            }
            fields.push(Field::new(NOW_COLUMN, tidemark_planner::table::instant_type(), false));
            let schema = Arc::new(Schema::new(fields));
            let df = DFSchema::try_from(schema.as_ref().clone())?;
            visible[at] =
                Visible::Continuous { expr: physical(expr, &df)?, schema, outputs: columns, ty: output.ty.clone() };
        }
        Ok(CompiledView {
            name: object.shown_name(),
            walk: Walk::new(&plan),
            taken,
            filter,
            keys,
            inputs,
            slot_schema,
            outputs,
            stored,
            stored_schema: Arc::new(Schema::new(stored_fields(&plan))),
            visible_schema: object.schema(),
            visible,
            history_schema: history_schema(&plan),
            plan,
        })
    }

    /// The plan of a family of views, under the name of one of them: which of its outputs a step changes is kept.
    pub fn of_family(object: &Object, plan: FeaturePlan) -> PlanResult<CompiledView> {
        let mut compiled = CompiledView::new(object, plan)?;
        compiled.walk.tracks = true;
        Ok(compiled)
    }

    /// The stored outputs of many instants, one after another; a failing expression is NULL. Also how many failed.
    /// `slots` are those of `count` instants, one after another.
    pub fn outputs(&self, count: usize, slots: Vec<Value>) -> DfResult<(Vec<Value>, usize)> {
        let stride = self.plan.slots.len();
        let in_place = |(i, output): (usize, &StoredOutput)| matches!(output, StoredOutput::Slot(slot) if *slot == i);
        if self.outputs.len() == stride && self.outputs.iter().enumerate().all(in_place) {
            return Ok((slots, 0));
        }
        let mut failed = 0;
        let needs_batch = self.outputs.iter().any(|o| matches!(o, StoredOutput::Expr(..)));
        let batch = needs_batch
            .then(|| {
                let column = |i| slots.iter().skip(i).step_by(stride);
                let fields = self.slot_schema.fields().iter().enumerate();
                let arrays = fields.map(|(i, f)| array_of(f.data_type(), column(i))).collect::<Result<Vec<_>, _>>()?;
                let options = RecordBatchOptions::new().with_row_count(Some(count));
                RecordBatch::try_new_with_options(self.slot_schema.clone(), arrays, &options)
            })
            .transpose()?;
        let mut columns: Vec<Option<Vec<Value>>> = vec![];
        for output in &self.outputs {
            columns.push(match (output, &batch) {
                (StoredOutput::Expr(expr, ty), Some(batch)) => {
                    let (array, bad) = evaluate_rows(expr, batch, ty)?;
                    failed += bad.0.len();
                    Some(values_of(&array)?)
                }
                _ => None,
            });
        }
        let mut outputs = Vec::with_capacity(count * self.outputs.len());
        for row in 0..count {
            outputs.extend(self.outputs.iter().zip(&mut columns).map(|(output, column)| match (output, column) {
                (_, Some(column)) => std::mem::take(&mut column[row]),
                (StoredOutput::Slot(slot), None) => slots[row * stride + slot].clone(),
                (StoredOutput::Expr(..), None) => Value::Null,
            }));
        }
        Ok((outputs, failed))
    }

    /// The columns of a row's outputs, in their order.
    pub fn output_fields(&self) -> Vec<FieldRef> {
        let stored = self.stored.iter().zip(self.stored_schema.fields());
        stored.filter(|(source, _)| matches!(source, Stored::Output(_))).map(|(_, field)| field.clone()).collect()
    }

    /// How many stored outputs a row has.
    pub fn output_count(&self) -> usize {
        self.outputs.len()
    }

    fn stored_columns(&self, rows: &[Step<'_>]) -> DfResult<Vec<ArrayRef>> {
        Ok(self
            .stored
            .iter()
            .zip(self.stored_schema.fields())
            .map(|(source, field)| match source {
                Stored::Key(i) => array_of(field.data_type(), rows.iter().map(|r| &r.key[*i])),
                Stored::Time => array_of_cells(field.data_type(), rows.iter().map(|r| Cell::Int(r.instant_us))),
                Stored::Output(i) => array_of_cells(field.data_type(), rows.iter().map(|r| r.outputs.cell(*i))),
            })
            .collect::<Result<Vec<_>, _>>()?)
    }

    /// Rows as steps: stored columns, `_op`, `_event_time` and, given the time of writing, `_recorded_at`.
    pub fn steps(&self, steps: &[Step<'_>], recorded_at_us: Option<i64>) -> DfResult<RecordBatch> {
        let mut columns = self.stored_columns(steps)?;
        columns.push(Arc::new(arrow::array::StringArray::from_iter_values(steps.iter().map(|s| s.op.as_str()))));
        columns.push(Arc::new(
            TimestampMicrosecondArray::from_iter_values(steps.iter().map(|s| s.event_us)).with_timezone(UTC),
        ));
        let mut fields = self.history_schema.fields().to_vec();
        match recorded_at_us {
            Some(at) => columns.push(Arc::new(
                TimestampMicrosecondArray::from_iter_values(steps.iter().map(|_| at)).with_timezone(UTC),
            )),
            None => {
                fields.pop();
            }
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// Where a scalar column that a user sees is kept; `None` for a time-continuous one, which is evaluated when it is
    /// read, and for an array.
    pub fn stored(&self, column: usize) -> Option<Stored> {
        if self.visible_schema.fields().get(column)?.data_type().is_nested() {
            return None;
        }
        match self.visible.get(column)? {
            Visible::Stored(i) => self.stored.get(*i).copied(),
            Visible::Continuous { .. } => None,
        }
    }

    /// Rows as a user sees them, read at `at_us`.
    pub fn visible(&self, rows: &[&Row], at_us: i64) -> DfResult<RecordBatch> {
        let steps: Vec<Step<'_>> = rows.iter().map(|row| Step::holding(row)).collect();
        let stored = self.stored_columns(&steps)?;
        let mut columns = vec![];
        for visible in &self.visible {
            columns.push(match visible {
                Visible::Stored(i) => stored[*i].clone(),
                Visible::Continuous { expr, schema, outputs, ty } => {
                    let null = Value::Null;
                    let mut arrays = outputs
                        .iter()
                        .zip(schema.fields())
                        .map(|(o, f)| array_of(f.data_type(), rows.iter().map(|r| r.outputs.get(*o).unwrap_or(&null))))
                        .collect::<Result<Vec<_>, _>>()?;
                    arrays.push(Arc::new(
                        TimestampMicrosecondArray::from_iter_values(rows.iter().map(|_| at_us)).with_timezone(UTC),
                    ));
                    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
                    evaluate_rows(expr, &batch, ty)?.0
                }
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(self.visible_schema.clone(), columns, &options)?)
    }

    /// The same, and beside each row the time of its key's latest event and its status (`tidemark_planner::status`).
    pub fn visible_with_status(
        &self,
        rows: &[&Row],
        at_us: i64,
        status: impl Fn(usize) -> &'static str,
    ) -> DfResult<RecordBatch> {
        let visible = self.visible(rows, at_us)?;
        let events = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.event_us));
        let status = StringArray::from_iter_values((0..rows.len()).map(status));
        let mut columns = visible.columns().to_vec();
        columns.extend([Arc::new(events.with_timezone(UTC)) as ArrayRef, Arc::new(status)]);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(RecordBatch::try_new_with_options(with_status(&self.visible_schema), columns, &options)?)
    }

    /// The same, and behind these rows entities that have none: of each there are its key and why. A last column says which are rows
    /// ([`with_found`]).
    pub fn visible_with_absent(
        &self,
        rows: &[&Row],
        at_us: i64,
        status: impl Fn(usize) -> &'static str,
        absent: &[(Arc<[Value]>, &'static str)],
    ) -> DfResult<RecordBatch> {
        let visible = self.visible_with_status(rows, at_us, status)?;
        let keys = self.plan.key_outputs();
        let mut columns = Vec::with_capacity(visible.num_columns() + 1);
        for (i, column) in visible.columns().iter().enumerate() {
            let ty = column.data_type();
            let more: ArrayRef = match keys.iter().position(|key| *key == i) {
                Some(at) => array_of(ty, absent.iter().map(|(key, _)| &key[at]))?,
                None if i + 1 == visible.num_columns() => {
                    Arc::new(StringArray::from_iter_values(absent.iter().map(|(_, why)| *why)))
                }
                None => new_null_array(ty, absent.len()),
            };
            columns.push(concat(&[column.as_ref(), more.as_ref()])?);
        }
        let count = rows.len() + absent.len();
        let is_there: BooleanArray = (0..count).map(|row| (row < rows.len()).then_some(true)).collect();
        columns.push(Arc::new(is_there));
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(with_found(&visible.schema()), columns, &options)?)
    }

    /// Rows of a batch in the steps schema (as history or [`CompiledView::steps`] gives them), with `_op`.
    pub fn rows_of(&self, batch: &RecordBatch) -> DfResult<Vec<(Row, bool)>> {
        let columns = (0..self.stored.len()).map(|i| values_of(batch.column(i))).collect::<Result<Vec<_>, _>>()?;
        let ops = cast(batch.column(self.stored.len()), &DataType::Utf8)?;
        let ops = ops.as_string::<i32>();
        let events = values_of(batch.column(self.stored.len() + 1))?;
        let int = |v: &Value| if let Value::Int(i) = v { *i } else { 0 };
        Ok((0..batch.num_rows())
            .map(|row| {
                let mut key = vec![Value::Null; self.plan.key.len()];
                let mut outputs = vec![Value::Null; self.outputs.len()];
                let mut instant_us = 0;
                for (source, column) in self.stored.iter().zip(&columns) {
                    match source {
                        Stored::Key(i) => key[*i] = column[row].clone(),
                        Stored::Time => instant_us = int(&column[row]),
                        Stored::Output(i) => outputs[*i] = column[row].clone(),
                    }
                }
                let row_value =
                    Row { key: key.into(), instant_us, event_us: int(&events[row]), outputs: outputs.into() };
                (row_value, ops.value(row) == "delete")
            })
            .collect())
    }

    /// Types of the entity key's columns.
    pub fn key_types(&self) -> DfResult<Vec<DataType>> {
        self.keys.iter().map(|k| k.data_type(&self.plan.row_schema)).collect()
    }
}

/// −0 becomes 0 and every NaN the one NaN before any expression sees them: Arrow compares doubles by their total order,
/// where −0 is less than 0.
fn canonical_floats(rows: &RecordBatch) -> DfResult<RecordBatch> {
    let columns = rows.columns().iter().map(|column| -> ArrayRef {
        match column.data_type() {
            DataType::Float64 => Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(canonical)),
            DataType::Float32 => Arc::new(
                column
                    .as_primitive::<Float32Type>()
                    .unary::<_, Float32Type>(|x| if x.is_nan() { f32::NAN } else { x + 0.0 }),
            ),
            _ => column.clone(),
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(rows.schema(), columns.collect(), &options)?)
}

/// Rows on which an expression failed, ascending, and how.
#[derive(Default)]
struct Failed(Vec<(usize, String)>);

impl Failed {
    fn contains(&self, row: usize) -> bool {
        self.0.binary_search_by_key(&row, |(r, _)| *r).is_ok()
    }

    fn report(self, index: &[usize], reason: RejectReason, out: &mut Vec<RowFailure>) {
        out.extend(self.0.into_iter().map(|(row, error)| RowFailure { row: index[row], reason, error }));
    }
}

/// Evaluates over a batch; where that fails, row by row. Failing rows are NULL.
fn evaluate_rows(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch, ty: &DataType) -> DfResult<(ArrayRef, Failed)> {
    let whole = |batch: &RecordBatch| -> DfResult<ArrayRef> {
        let array = expr.evaluate(batch)?.into_array(batch.num_rows())?;
        Ok(if array.data_type() == ty { array } else { cast(&array, ty)? })
    };
    match whole(batch) {
        Ok(array) => Ok((array, Failed::default())),
        Err(error) if batch.num_rows() == 1 => {
            let error = PlanError::from(error).message;
            Ok((arrow::array::new_null_array(ty, 1), Failed(vec![(0, error)])))
        }
        Err(_) => {
            let mut failed = Failed::default();
            let mut arrays = Vec::with_capacity(batch.num_rows());
            for row in 0..batch.num_rows() {
                let (array, bad) = evaluate_rows(expr, &batch.slice(row, 1), ty)?;
                failed.0.extend(bad.0.into_iter().map(|(_, error)| (row, error)));
                arrays.push(array);
            }
            let arrays: Vec<&dyn Array> = arrays.iter().map(|a| a.as_ref()).collect();
            let array = if arrays.is_empty() { arrow::array::new_empty_array(ty) } else { concat(&arrays)? };
            Ok((array, failed))
        }
    }
}

/// DataFusion's integer arithmetic wraps by default; ours fails, as PostgreSQL's does.
fn checked_arithmetic(expr: Arc<dyn PhysicalExpr>) -> DfResult<Arc<dyn PhysicalExpr>> {
    Ok(expr
        .transform(|e| {
            let Some(binary) = (e.as_ref() as &dyn std::any::Any).downcast_ref::<BinaryExpr>() else {
                return Ok(Transformed::no(e));
            };
            let checked = binary.clone().with_fail_on_overflow(true);
            Ok(Transformed::yes(Arc::new(checked) as Arc<dyn PhysicalExpr>))
        })?
        .data)
}

/// The error for an object that cannot be compiled any more.
pub fn internal(name: &str, error: impl std::fmt::Display) -> PlanError {
    PlanError::new("XX000", format!("feature view \"{name}\": {error}"))
}
