//! One window function of a feature view, as the aggregate that is maintained for it.

use super::{
    Aggregate, Call, Frame, NOW_COLUMN, Pane, Parameter, Slot, Takes,
    recognise::{Build, refused, stored_type},
    shape::unqualified,
    slot_column,
};
use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    words::{literal, type_name},
};
use arrow_schema::DataType;
use datafusion::{
    common::{Column, ScalarValue},
    functions::math,
    logical_expr::{
        Expr, ExprSchemable, WindowFunctionDefinition, cast,
        expr::{NullTreatment, WindowFunction},
        lit,
    },
};

impl Build<'_> {
    /// The slot of one window function; `projected` is DataFusion's type for it.
    pub(super) fn aggregate(&mut self, function: &WindowFunction, projected: &DataType) -> PlanResult<usize> {
        let name = function.fun.name().to_string();
        let params = &function.params;
        if matches!(params.null_treatment, Some(NullTreatment::IgnoreNulls)) {
            return Err(refused(self.name, &format!("{name} IGNORE NULLS is not maintained"))
                .hint("filter the rows with WHERE, or aggregate with max or min"));
        }
        let mut args = params.args.iter().cloned().map(unqualified).collect::<PlanResult<Vec<_>>>()?;
        let mut frame = match self.pane {
            Some(pane) => Frame::Pane(pane),
            None => self.frame_of(&params.window_frame, params.order_by.as_slice())?,
        };
        let plain = match Aggregate::from_name(&name) {
            Some(aggregate) => aggregate,
            None if name == "lag" => {
                // The row so many rows before the latest: a frame of that one row.
                let rows = self.lag(&mut args)?;
                frame = Frame::Rows { start: Some(rows), end: rows };
                Aggregate::FirstValue
            }
            None => return Err(self.unknown(function)),
        };
        let aggregate = match params.distinct {
            false => plain,
            true => plain.distinct().ok_or_else(|| {
                refused(self.name, &format!("{name}(DISTINCT …) is not maintained"))
                    .hint("count, sum and avg are, with DISTINCT")
            })?,
        };
        let parameter = match aggregate {
            Aggregate::Rate => Parameter::Duration(self.length_us(frame)?),
            _ => self.parameter(aggregate, &mut args)?,
        };
        let other = match aggregate.takes() {
            Takes::Other | Takes::OtherAndNumber => Some(args.pop().ok_or_else(|| needs(aggregate, "two arguments"))?),
            _ => None,
        };
        if args.len() > 1 {
            return Err(refused(self.name, &format!("{name} with {} arguments is not maintained", params.args.len())));
        }
        let arg = match (aggregate, args.pop()) {
            // count(*) is bound as count(1): a literal that is not NULL counts every row.
            (Aggregate::Count, None) => None,
            (Aggregate::Count | Aggregate::Rate, Some(Expr::Literal(value, _))) if !value.is_null() => None,
            (_, None) => return Err(needs(aggregate, "an argument")),
            (Aggregate::Avg | Aggregate::AvgDistinct, Some(expr)) => Some(self.exact_average_argument(expr)?),
            (_, Some(expr)) => Some(expr),
        };
        let filter = match &params.filter {
            Some(filter) if matches!(aggregate, Aggregate::FirstValue | Aggregate::LastValue) => {
                return Err(refused(self.name, &format!("{name} with FILTER ({filter}) is not maintained"))
                    .hint("put the condition in WHERE of a view of its own"));
            }
            Some(filter) => Some(self.input(unqualified(filter.as_ref().clone())?)?),
            None => None,
        };
        if aggregate.reads_frame() && frame.is_unbounded() && !self.changelog {
            return Err(refused(self.name, &format!("{name} over a frame without a beginning is not maintained"))
                .hint("begin the frame at ROWS n PRECEDING or RANGE INTERVAL '…' PRECEDING"));
        }
        if aggregate.only_grows() && frame != (Frame::Range { start_us: None, end_us: 0 }) {
            return Err(refused(self.name, &format!("{name} over a frame that events leave is not maintained"))
                .hint("old events fade by themselves: write OVER (PARTITION BY key ORDER BY time)"));
        }
        let arg = arg.map(|expr| self.input(expr)).transpose()?;
        let other = other.map(|expr| self.input(expr)).transpose()?;
        let arg_type = arg.map(|i| self.inputs[i].ty.clone());
        let other_type = other.map(|i| self.inputs[i].ty.clone());
        if let Some(ty) = arg_type.as_ref().filter(|ty| !aggregate.fits(ty, other_type.as_ref())) {
            let types = [Some(ty), other_type.as_ref()].into_iter().flatten().map(type_name).collect::<Vec<_>>();
            let message = format!("{} over {} is not maintained", aggregate.name(), types.join(", "));
            return Err(refused(self.name, &message).hint("cast the argument"));
        }
        let ty = aggregate.result(arg_type.as_ref()).unwrap_or_else(|| stored_type(projected.clone()));
        let frame = self.frame(frame);
        Ok(self.slot(Slot::Aggregate(Call { function: aggregate, arg, other, filter, parameter, frame, ty })))
    }

    /// What a decaying aggregate is at the instant of the reading, of its value in a slot and the event time that this stands
    /// at in another.
    pub(super) fn decayed(&mut self, slot: usize) -> PlanResult<(Expr, [usize; 2])> {
        let Slot::Aggregate(call) = self.slots[slot].clone() else {
            return Err(PlanError::new(sqlstate::INTERNAL, "a slot that decays is an aggregate"));
        };
        let Parameter::Duration(half_life_us) = call.parameter else {
            return Err(PlanError::new(sqlstate::INTERNAL, "what decays has a half-life"));
        };
        let ty = Aggregate::DecayAnchor.result(None).unwrap_or(DataType::Null);
        let anchor = self.slot(Slot::Aggregate(Call { function: Aggregate::DecayAnchor, ty, ..call }));
        let age_us = cast(cast(slot_now() - slot_column(anchor), DataType::Int64), DataType::Float64);
        let half_lives = age_us / lit(half_life_us as f64);
        Ok((slot_column(slot) * math::expr_fn::power(lit(2.0), -half_lives), [slot, anchor]))
    }

    fn unknown(&self, function: &WindowFunction) -> PlanError {
        let what = match function.fun {
            WindowFunctionDefinition::WindowUDF(_) => "window function",
            _ => "aggregate",
        };
        let known: Vec<&str> = Aggregate::all().map(|a| a.name()).collect();
        refused(self.name, &format!("{what} {} is not maintained", function.fun.name()))
            .hint(format!("maintained are {}", known.join(", ")))
    }

    /// How many rows back `lag(x [, n])` looks.
    fn lag(&self, args: &mut Vec<Expr>) -> PlanResult<u64> {
        let rows = match args.len() {
            0 | 1 => 1,
            2 => match args.pop() {
                Some(Expr::Literal(value, _)) => number(&value).unwrap_or(0),
                _ => 0,
            },
            _ => {
                return Err(
                    refused(self.name, "lag with a default is not maintained").hint("coalesce(lag(x) OVER w, 0)")
                );
            }
        };
        match rows {
            0 => {
                Err(PlanError::new(sqlstate::INVALID_PARAMETER, "lag looks a constant number of rows back, at least 1"))
            }
            rows => Ok(rows),
        }
    }

    /// How long a frame is that events per second are counted over.
    fn length_us(&self, frame: Frame) -> PlanResult<i64> {
        let length_us = match frame {
            Frame::Range { start_us: Some(start_us), end_us } => start_us - end_us,
            Frame::Pane(Pane::Hop { size_us, .. }) => size_us,
            _ => 0,
        };
        match length_us {
            0 => Err(refused(self.name, "rate over a frame without a fixed length is not maintained")
                .hint("frames with a length are RANGE INTERVAL '…' PRECEDING, TUMBLE and HOP")),
            length_us => Ok(length_us),
        }
    }

    /// Takes the constant off the end of the arguments.
    fn parameter(&self, aggregate: Aggregate, args: &mut Vec<Expr>) -> PlanResult<Parameter> {
        let wanted = match aggregate.takes() {
            Takes::Nothing | Takes::Other => return Ok(Parameter::None),
            Takes::Number | Takes::OtherAndNumber => "a number of at least 1",
            Takes::Fraction => "a fraction between 0 and 1",
            Takes::Text => "a delimiter",
            Takes::Duration => "an interval, the half-life",
        };
        let last = args
            .pop()
            .filter(|_| !args.is_empty())
            .ok_or_else(|| needs(aggregate, &format!("an argument and {wanted}")))?;
        let value = match constant(last) {
            Some(value) => value,
            None => {
                let error = needs(aggregate, &format!("{wanted} as its last argument, a constant"));
                return Err(match aggregate.takes() {
                    Takes::Duration => error.hint(half_life_hint(aggregate)),
                    _ => error,
                });
            }
        };
        let invalid = || {
            let message = format!("{} needs {wanted} as its last argument", aggregate.name());
            PlanError::new(sqlstate::INVALID_PARAMETER, message)
        };
        match aggregate.takes() {
            Takes::Number | Takes::OtherAndNumber => {
                let n = number(&value).filter(|n| *n >= 1).ok_or_else(invalid)?;
                if let Some(most) = aggregate.items_max().filter(|most| n > *most) {
                    return Err(refused(self.name, &format!("{} of {n} items is not maintained", aggregate.name()))
                        .hint(format!("every step holds all of them: at most {most}")));
                }
                Ok(Parameter::Number(n))
            }
            Takes::Fraction => match value.cast_to(&DataType::Float64) {
                Ok(ScalarValue::Float64(Some(p))) if (0.0..=1.0).contains(&p) => Ok(Parameter::Fraction(p)),
                _ => Err(invalid()),
            },
            Takes::Duration => match self.range_us(&value) {
                Ok(us) if us > 0 => Ok(Parameter::Duration(us)),
                _ => {
                    let message = format!(
                        "{} needs an interval longer than zero as its last argument, the half-life, not {}",
                        aggregate.name(),
                        if value.is_null() { "NULL".to_string() } else { literal(&value) },
                    );
                    Err(PlanError::new(sqlstate::INVALID_PARAMETER, message).hint(half_life_hint(aggregate)))
                }
            },
            _ => match value.cast_to(&DataType::Utf8) {
                Ok(ScalarValue::Utf8(Some(text))) => Ok(Parameter::Text(text.into())),
                _ => Err(invalid()),
            },
        }
    }

    /// DataFusion averages integers as doubles; the exact sum of the integers themselves loses nothing.
    fn exact_average_argument(&self, expr: Expr) -> PlanResult<Expr> {
        let schema = datafusion::common::DFSchema::try_from(self.schema.as_ref().clone())?;
        if let Expr::Cast(cast) = &expr
            && cast.field.data_type() == &DataType::Float64
            && cast.expr.get_type(&schema)?.is_integer()
        {
            return Ok(cast.expr.as_ref().clone());
        }
        Ok(expr)
    }
}

fn slot_now() -> Expr {
    Expr::Column(Column::new_unqualified(NOW_COLUMN))
}

fn needs(aggregate: Aggregate, what: &str) -> PlanError {
    PlanError::syntax(format!("{} needs {what}", aggregate.name()))
}

fn half_life_hint(aggregate: Aggregate) -> String {
    let name = aggregate.name();
    format!("an event counts half after it: write {name}(x, INTERVAL '1 hour'), of days or shorter units")
}

/// The value of a literal, also behind casts.
fn constant(expr: Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Cast(cast) => constant(*cast.expr)?.cast_to(cast.field.data_type()).ok(),
        _ => None,
    }
}

fn number(value: &ScalarValue) -> Option<u64> {
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(Some(n))) => u64::try_from(n).ok(),
        _ => None,
    }
}
