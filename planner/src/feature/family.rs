//! Feature views that can be kept together, as one *family*: they are of the same rows by the same key, and their windows are
//! the same, so something happens to a key at the same instants in all of them. One plan then maintains what any of them
//! wants, and each is some of its columns.
//!
//! ```text
//!   a   count(*) OVER hour, sum(price) OVER day  ┐
//!   b   count(*) OVER hour, max(price) OVER day  ┼─▶ count, sum, max over the two windows: c0 c1 c2
//!   c   sum(price) OVER day / count(*) OVER hour ┘   a = c0 c1, b = c0 c2, c = c3, an expression over the same slots
//! ```
//!
//! Only where that is plainly so: one source, `RANGE` and `ROWS` windows with a beginning, nothing evaluated at the reading, and
//! inputs that no row can make fail, since a row that one view cannot use is in the others all the same.

use super::{Aggregate, Call, FeaturePlan, Frame, Input, Output, OutputKind, Slot, rename_slots};
use arrow_schema::{DataType, SchemaRef};
use datafusion::{
    common::ScalarValue,
    logical_expr::{Between, BinaryExpr, Cast, Expr, Operator, expr::InList},
};
use serde::{Deserialize, Serialize};

/// What is kept of each key of a family, and in which order. State that was saved in one shape is read in no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    inputs: Vec<(String, DataType)>,
    frames: Vec<String>,
    columns: Vec<String>,
}

/// The one plan of several views, and its shape.
#[derive(Debug, Clone)]
pub struct Family {
    pub plan: FeaturePlan,
    pub shape: Shape,
}

impl FeaturePlan {
    /// Whether it can be kept together with others.
    pub fn can_share(&self) -> bool {
        let [branch] = self.branches.as_slice() else { return false };
        let is_plain_slot = |slot: &Slot| match slot {
            Slot::Aggregate(call) => !is_decayed(call.function),
            Slot::Raw { .. } => true,
            Slot::Beside { .. } | Slot::Bound { .. } => false,
        };
        branch.taken.is_none()
            && self.beside.is_none()
            && self.through.is_empty()
            && !self.versions
            && !self.slots.is_empty()
            && self.frames.iter().all(|frame| !frame.is_unbounded() && !matches!(frame, Frame::Pane(_)))
            && self.slots.iter().all(is_plain_slot)
            && self.inputs.iter().all(|input| never_fails(&input.expr, &self.row_schema))
            && !self.outputs.iter().any(|output| matches!(output.kind, OutputKind::TimeContinuous { .. }))
    }

    /// Whether something happens to its keys at the same instants as to those of another plan that can be shared.
    pub fn is_kin(&self, other: &FeaturePlan) -> bool {
        let relation = |plan: &FeaturePlan| plan.branches.first().map(|branch| (branch.relation, branch.event_time));
        let has_all = |a: &FeaturePlan, b: &FeaturePlan| a.frames.iter().all(|frame| b.frames.contains(frame));
        relation(self) == relation(other)
            && self.row_schema == other.row_schema
            && self.event_time == other.event_time
            && self.filter == other.filter
            && self.key == other.key
            && self.ttl_us == other.ttl_us
            && self.slide_us == other.slide_us
            && has_all(self, other)
            && has_all(other, self)
    }
}

/// Their values are of one instant, and not of what is in the window alone.
fn is_decayed(function: Aggregate) -> bool {
    use Aggregate as A;
    matches!(function, A::DecaySum | A::DecayCount | A::DecayAvg | A::DecayAnchor)
}

/// Whether an expression has a value for every row: columns, constants, and comparisons of them.
pub(crate) fn never_fails(expr: &Expr, schema: &SchemaRef) -> bool {
    let fine = |expr: &Expr| never_fails(expr, schema);
    match expr {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => fine(&alias.expr),
        Expr::Not(e)
        | Expr::IsNull(e)
        | Expr::IsNotNull(e)
        | Expr::IsTrue(e)
        | Expr::IsFalse(e)
        | Expr::IsNotTrue(e)
        | Expr::IsNotFalse(e) => fine(e),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => compares(*op) && fine(left) && fine(right),
        Expr::Between(Between { expr, low, high, .. }) => fine(expr) && fine(low) && fine(high),
        Expr::InList(InList { expr, list, .. }) => fine(expr) && list.iter().all(fine),
        Expr::Cast(cast) => widens(cast, schema),
        _ => false,
    }
}

fn compares(op: Operator) -> bool {
    use Operator as O;
    matches!(
        op,
        O::Eq
            | O::NotEq
            | O::Lt
            | O::LtEq
            | O::Gt
            | O::GtEq
            | O::And
            | O::Or
            | O::IsDistinctFrom
            | O::IsNotDistinctFrom
    )
}

/// Whether a constant is cast that can be, or a column of numbers to a type that has all of them.
fn widens(cast: &Cast, schema: &SchemaRef) -> bool {
    use DataType as T;
    let column = match cast.expr.as_ref() {
        Expr::Column(column) => column,
        Expr::Literal(constant, _) => return constant.cast_to(cast.field.data_type()).is_ok(),
        _ => return false,
    };
    let Ok(field) = schema.field_with_name(&column.name) else { return false };
    matches!(
        (field.data_type(), cast.field.data_type()),
        (T::Int16, T::Int32 | T::Int64 | T::Float32 | T::Float64)
            | (T::Int32, T::Int64 | T::Float64)
            | (T::Int64, T::Float64)
            | (T::Float32, T::Float64)
    )
}

impl Family {
    /// The one plan of views that are kin. With `kept` it is of that shape: what none of them wants any more stays, since keys have
    /// been saved with it.
    ///
    /// `None`: they are no kin, or want what is not in that shape, or two expressions that differ read alike.
    pub fn of(plans: &[&FeaturePlan], kept: Option<&Shape>) -> Option<Family> {
        let first = *plans.first()?;
        if !plans.iter().all(|plan| plan.can_share() && plan.is_kin(first)) {
            return None;
        }
        let mut making = Making { inputs: vec![], frames: vec![], slots: vec![], columns: vec![], kept };
        making.frames = match kept {
            None => first.frames.clone(),
            Some(shape) => {
                let named = |name: &String| first.frames.iter().find(|frame| frame_name(frame) == *name).copied();
                shape.frames.iter().map(named).collect::<Option<Vec<_>>>()?
            }
        };
        if making.frames.len() != first.frames.len() {
            return None;
        }
        if let Some(shape) = kept {
            let null = |ty: &DataType| ScalarValue::try_new_null(ty).ok().map(|null| Expr::Literal(null, None));
            for (name, ty) in &shape.inputs {
                making.inputs.push((name.clone(), Input { expr: null(ty)?, ty: ty.clone() }, false));
            }
            making.columns.extend(shape.columns.iter().map(|name| (name.clone(), None)));
        }
        for plan in plans {
            making.add(plan)?;
        }
        Some(making.finish(first))
    }

    /// Which of the family's columns are those of one of its views that are neither key nor time, in that view's order.
    pub fn columns(&self, of: &FeaturePlan) -> Option<Vec<usize>> {
        let own = of.outputs.iter().filter_map(|output| column_name(of, output));
        own.map(|name| self.shape.columns.iter().position(|column| *column == name)).collect()
    }
}

/// A family's plan in the making.
struct Making<'a> {
    /// With whether a view has asked for it.
    inputs: Vec<(String, Input, bool)>,
    frames: Vec<Frame>,
    slots: Vec<Slot>,
    /// `None`: no view wants it any more.
    columns: Vec<(String, Option<Output>)>,
    kept: Option<&'a Shape>,
}

impl Making<'_> {
    fn add(&mut self, plan: &FeaturePlan) -> Option<()> {
        let inputs = plan.inputs.iter().map(|input| self.input(input)).collect::<Option<Vec<usize>>>()?;
        let frame = |frame: &Frame| self.frames.iter().position(|known| known == frame);
        let frames = plan.frames.iter().map(frame).collect::<Option<Vec<usize>>>()?;
        let mut slots = vec![];
        for slot in &plan.slots {
            let slot = moved(slot, &inputs, &frames)?;
            slots.push(match self.slots.iter().position(|known| *known == slot) {
                Some(known) => known,
                None => {
                    self.slots.push(slot);
                    self.slots.len() - 1
                }
            });
        }
        for output in &plan.outputs {
            let kind = match &output.kind {
                OutputKind::Slot(slot) => OutputKind::Slot(*slots.get(*slot)?),
                OutputKind::Expr(expr) => {
                    OutputKind::Expr(rename_slots(expr, &|slot| slots.get(slot).map(|slot| format!("s{slot}"))))
                }
                _ => continue,
            };
            self.column(column_name(plan, output)?, Output { kind, ..output.clone() })?;
        }
        Some(())
    }

    fn input(&mut self, input: &Input) -> Option<usize> {
        let name = input.expr.to_string();
        let found = self.inputs.iter().position(|(known, of, _)| *known == name && of.ty == input.ty);
        match found {
            Some(i) if self.inputs[i].2 => (self.inputs[i].1.expr == input.expr).then_some(i),
            Some(i) => {
                self.inputs[i].1 = input.clone();
                self.inputs[i].2 = true;
                Some(i)
            }
            None if self.kept.is_some() => None,
            None => {
                self.inputs.push((name, input.clone(), true));
                Some(self.inputs.len() - 1)
            }
        }
    }

    fn column(&mut self, name: String, output: Output) -> Option<()> {
        let is_same = |known: &Output| {
            known.ty == output.ty
                && match (&known.kind, &output.kind) {
                    (OutputKind::Slot(a), OutputKind::Slot(b)) => a == b,
                    (OutputKind::Expr(a), OutputKind::Expr(b)) => a == b,
                    _ => false,
                }
        };
        match self.columns.iter_mut().find(|(known, _)| *known == name) {
            Some((_, Some(known))) => is_same(known).then_some(()),
            Some((_, unwanted)) => {
                *unwanted = Some(output);
                Some(())
            }
            None if self.kept.is_some() => None,
            None => {
                self.columns.push((name, Some(output)));
                Some(())
            }
        }
    }

    fn finish(self, first: &FeaturePlan) -> Family {
        let shape = Shape {
            inputs: self.inputs.iter().map(|(name, input, _)| (name.clone(), input.ty.clone())).collect(),
            frames: self.frames.iter().map(frame_name).collect(),
            columns: self.columns.iter().map(|(name, _)| name.clone()).collect(),
        };
        let is_fixed = |output: &&Output| matches!(output.kind, OutputKind::Key(_) | OutputKind::Time);
        let mut outputs: Vec<Output> = first.outputs.iter().filter(is_fixed).cloned().collect();
        for (i, (_, output)) in self.columns.into_iter().enumerate() {
            // What nobody wants has a place only: any value does.
            let unwanted = || Output {
                name: String::new(),
                ty: self.slots[0].ty().clone(),
                kind: OutputKind::Slot(0),
                sql: String::new(),
            };
            outputs.push(Output { name: format!("c{i}"), ..output.unwrap_or_else(unwanted) });
        }
        let inputs = self.inputs.into_iter().map(|(_, input, _)| input).collect();
        let plan = FeaturePlan { inputs, frames: self.frames, slots: self.slots, outputs, ..first.clone() };
        Family { plan, shape }
    }
}

/// A slot of one plan over the inputs and frames of another.
fn moved(slot: &Slot, inputs: &[usize], frames: &[usize]) -> Option<Slot> {
    let input = |of: Option<usize>| match of {
        None => Some(None),
        Some(i) => inputs.get(i).map(|i| Some(*i)),
    };
    Some(match slot {
        Slot::Aggregate(call) => Slot::Aggregate(Call {
            arg: input(call.arg)?,
            other: input(call.other)?,
            filter: input(call.filter)?,
            frame: *frames.get(call.frame)?,
            ..call.clone()
        }),
        Slot::Raw { input, ty } => Slot::Raw { input: *inputs.get(*input)?, ty: ty.clone() },
        Slot::Beside { .. } | Slot::Bound { .. } => return None,
    })
}

fn frame_name(frame: &Frame) -> String {
    format!("{frame:?}")
}

/// What a column is, whichever view it is in; `None`: key or time.
fn column_name(plan: &FeaturePlan, output: &Output) -> Option<String> {
    let slot = |slot: usize| plan.slots.get(slot).map(|slot| slot_name(plan, slot));
    let text = match &output.kind {
        OutputKind::Slot(i) => slot(*i)?,
        OutputKind::Expr(expr) => rename_slots(expr, &|i| slot(i)).to_string(),
        _ => return None,
    };
    Some(format!("{text}: {}", output.ty))
}

fn slot_name(plan: &FeaturePlan, slot: &Slot) -> String {
    let input = |i: usize| plan.inputs.get(i).map(|input| format!("{}: {}", input.expr, input.ty)).unwrap_or_default();
    let or_none = |of: Option<usize>| of.map(input).unwrap_or_default();
    match slot {
        Slot::Aggregate(Call { function, arg, other, filter, parameter, frame, ty }) => {
            let frame = plan.frames.get(*frame).map(frame_name).unwrap_or_default();
            let (arg, other, filter) = (or_none(*arg), or_none(*other), or_none(*filter));
            format!("{function:?}({arg}; {other}; {filter}; {parameter:?}) over {frame}: {ty}")
        }
        Slot::Raw { input: i, ty } => format!("{}: {ty}", input(*i)),
        Slot::Beside { .. } | Slot::Bound { .. } => format!("{slot:?}"),
    }
}

#[cfg(test)]
mod tests;
