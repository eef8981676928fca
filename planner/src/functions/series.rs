//! `generate_series(start, stop [, step])` in FROM, as PostgreSQL has it: integers, or times by an interval.
//!
//! DataFusion's function makes the rows; it wants bigint or nanoseconds, exactly, and calls its column `value`.

use crate::{PlanError, PlanResult, error::sqlstate, names::GENERATE_SERIES, table};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use datafusion::{
    catalog::TableFunctionArgs,
    common::{Column, DFSchema, ScalarValue},
    datasource::provider_as_source,
    execution::SessionState,
    logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast, lit},
};

/// The relation of one column, `generate_series`, for arguments without columns. Days and months are those of `zone`.
///
/// # Errors
/// 42883 for arguments that make no series, 22023 for a step of zero, 22008 for times that nanoseconds do not reach.
pub fn generate_series(
    args: &[Expr],
    zone: &str,
    state: &SessionState,
    constant: &dyn Fn(Expr) -> PlanResult<ScalarValue>,
) -> PlanResult<LogicalPlan> {
    let types = args.iter().map(|arg| Ok(arg.get_type(&DFSchema::empty())?)).collect::<PlanResult<Vec<_>>>()?;
    let undefined = || {
        let types = types.iter().map(crate::words::full_type_name).collect::<Vec<_>>().join(", ");
        PlanError::new(sqlstate::UNDEFINED_FUNCTION, format!("function {GENERATE_SERIES}({types}) does not exist"))
            .hint("generate_series takes two integers and perhaps a step, or two times and an interval")
    };
    let [start, stop, step @ ..] = args else { return Err(undefined()) };
    let time = types[..2].iter().find(|ty| matches!(ty, DataType::Timestamp(..) | DataType::Date32));
    // Nanoseconds, because the function that makes the rows knows no other times.
    let (argument, step_type, result) = match (time, step) {
        (Some(ty), [_]) => {
            let zone = match ty {
                DataType::Timestamp(_, None) => None,
                _ => Some(zone.into()),
            };
            let result = if zone.is_some() { table::instant_type() } else { crate::zone::wall() };
            let argument = DataType::Timestamp(TimeUnit::Nanosecond, zone);
            (argument, DataType::Interval(IntervalUnit::MonthDayNano), result)
        }
        (None, [] | [_]) if types.iter().all(|ty| ty.is_integer() || ty.is_null()) => {
            (DataType::Int64, DataType::Int64, DataType::Int64)
        }
        _ => return Err(undefined()),
    };
    let mut values = vec![];
    for bound in [start, stop] {
        let typed = crate::zone::expression_in_zone(cast(bound.clone(), result.clone()), &DFSchema::empty(), zone)?;
        let value = constant(typed.data)?;
        let exact = value.cast_to(&argument).ok().filter(|exact| exact.is_null() == value.is_null());
        values.push(exact.ok_or_else(|| {
            let message = format!("timestamp out of range for {GENERATE_SERIES}");
            PlanError::new(sqlstate::DATETIME_OUT_OF_RANGE, message).hint("it makes times from 1678 to 2261")
        })?);
    }
    for step in step {
        let value = constant(cast(step.clone(), step_type.clone()))?;
        if value == ScalarValue::new_zero(&step_type)? {
            return Err(PlanError::new(sqlstate::INVALID_PARAMETER, "step size cannot equal zero"));
        }
        values.push(value);
    }
    let name = GENERATE_SERIES;
    let function = state.table_functions().get(name).cloned().ok_or_else(undefined)?;
    let args: Vec<Expr> = match values.iter().any(ScalarValue::is_null) {
        // No rows; the step need not be one.
        true => vec![lit(1i64), lit(0i64)],
        false => values.into_iter().map(|value| Expr::Literal(value, None)).collect(),
    };
    let rows = function.create_table_provider_with_args(TableFunctionArgs::new(&args, state))?;
    let rows = LogicalPlanBuilder::scan(name, provider_as_source(rows), None)?;
    let value = Expr::Column(Column::new(Some(name), "value"));
    Ok(rows.project([cast(value, result).alias(name)])?.build()?)
}
