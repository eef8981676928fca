//! The functions, types and options of the SQL dialect: one DataFusion session state that every binding starts from.

mod asked;
pub mod bounded;
pub(crate) mod by_pattern;
pub(crate) mod by_row;
mod casts;
mod chance;
pub mod checked;
pub(crate) mod clock;
mod coalesce;
mod declared;
mod interval;
mod lengths;
mod made_times;
mod now;
mod one_order;
mod panes;
mod parted;
mod pattern;
pub(crate) mod percentile_disc;
mod ranks;
mod round;
pub mod rounded;
pub(crate) mod row_bytes;
pub mod series;
mod sorted;
pub mod span;
pub(crate) mod spelled;
mod subscripts;
mod sum;
mod to_char;
pub mod uuid;
pub mod vector;

use crate::{json_text, untyped, value_text};
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use datafusion::{
    common::config::ConfigOptions,
    error::Result,
    execution::{SessionState, SessionStateBuilder},
    functions_aggregate::{bool_and_or, variance},
    logical_expr::{AggregateUDF, ScalarUDF, planner::TypePlanner},
    optimizer::analyzer::{resolve_grouping_function::ResolveGroupingFunction, type_coercion::TypeCoercion},
    prelude::SessionConfig,
    sql::sqlparser::ast,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// Settings every session starts from; a session's own time zone is set on top.
pub fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new().with_information_schema(false);
    let options: &mut ConfigOptions = config.options_mut();
    options.sql_parser.dialect = datafusion::common::config::Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.parse_float_as_decimal = false;
    options.execution.time_zone = Some(tidemark_catalog::UTC.to_string());
    options.execution.parquet.schema_force_view_types = false;
    options.optimizer.expand_views_at_output = false;
    config
}

/// A session state builder with our functions and types; the engine adds its operators, the server its catalog
/// functions.
pub fn state_builder(config: SessionConfig) -> SessionStateBuilder {
    let approx_distinct = AggregateUDF::new_from_shared_impl(
        datafusion::functions_aggregate::approx_distinct::approx_distinct_udaf().inner().clone(),
    )
    .with_aliases(["approx_count_distinct"]);
    let now = Arc::new(ScalarUDF::from(now::Now::new()));
    let mut builder = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_type_planner(Arc::new(SqlTypes))
        .with_analyzer_rules(vec![
            Arc::new(ResolveGroupingFunction::new()),
            Arc::new(untyped::UntypedTexts),
            Arc::new(value_text::ShownInConcat),
            Arc::new(TypeCoercion::new()),
            Arc::new(crate::zone::SessionTimeZone),
            Arc::new(value_text::TextCasts),
            Arc::new(rounded::RoundedCasts),
            Arc::new(vector::VectorCasts),
            Arc::new(span::IntervalsByLength),
            Arc::new(checked::CheckedArithmetic),
            Arc::new(one_order::OneOrder),
        ]);
    sorted::install(&mut builder);
    builder.scalar_functions().get_or_insert_default().push(now);
    builder.scalar_functions().get_or_insert_default().push(Arc::new(round::round()));
    builder.scalar_functions().get_or_insert_default().extend(coalesce::functions().map(Arc::new));
    builder.scalar_functions().get_or_insert_default().extend(clock::functions());
    builder.scalar_functions().get_or_insert_default().extend(lengths::functions().map(Arc::new));
    builder.scalar_functions().get_or_insert_default().extend(bounded::functions().map(Arc::new));
    let by_row =
        made_times::functions().chain(parted::functions()).chain(asked::functions()).chain(chance::functions());
    builder.scalar_functions().get_or_insert_default().extend(by_row.map(Arc::new));
    builder.scalar_functions().get_or_insert_default().extend(
        [crate::zone::timezone(), to_char::to_char(), by_pattern::time_by_pattern(), row_bytes::row_bytes()]
            .map(Arc::new),
    );
    builder.aggregate_functions().get_or_insert_default().push(Arc::new(approx_distinct));
    let also = |udaf: Arc<AggregateUDF>, name: &'static str| {
        Arc::new(AggregateUDF::new_from_shared_impl(udaf.inner().clone()).with_aliases([name]))
    };
    builder
        .aggregate_functions()
        .get_or_insert_default()
        .extend([also(variance::var_samp_udaf(), "variance"), also(bool_and_or::bool_and_udaf(), "every")]);
    builder.aggregate_functions().get_or_insert_default().push(Arc::new(sum::sum()));
    builder.aggregate_functions().get_or_insert_default().extend(declared::declared().map(Arc::new));
    builder.aggregate_functions().get_or_insert_default().extend(panes::bounds().map(Arc::new));
    builder.scalar_functions().get_or_insert_default().extend(panes::panes().map(Arc::new));
    builder.scalar_functions().get_or_insert_default().extend(json_text::functions().map(Arc::new));
    builder.expr_planners().get_or_insert_default().push(Arc::new(crate::composed::Arguments));
    // Before DataFusion's, which plan every subscript.
    builder.expr_planners().get_or_insert_default().insert(0, Arc::new(subscripts::FromOne));
    builder.scalar_functions().get_or_insert_default().extend(vector::functions().map(Arc::new));
    builder.scalar_functions().get_or_insert_default().extend(uuid::functions().map(Arc::new));
    builder.expr_planners().get_or_insert_default().push(Arc::new(json_text::JsonOperators));
    builder.expr_planners().get_or_insert_default().push(Arc::new(vector::VectorOperators));
    builder.expr_planners().get_or_insert_default().push(Arc::new(casts::NamedCasts));
    builder.expr_planners().get_or_insert_default().push(Arc::new(untyped::UntypedOperands));
    builder.expr_planners().get_or_insert_default().push(Arc::new(interval::IntervalOperators));
    // The last: it plans the call, after the others have seen its arguments.
    builder.expr_planners().get_or_insert_default().push(Arc::new(ranks::SignedRanks));
    builder
}

/// The state that definitions of feature views are planned with, in the given time zone.
pub fn planning_state(time_zone: &str) -> SessionState {
    let mut config = session_config();
    config.options_mut().execution.time_zone = Some(time_zone.to_string());
    let mut builder = state_builder(config);
    builder.aggregate_functions().get_or_insert_default().extend(declared::in_feature_views().map(Arc::new));
    builder.build()
}

/// Time zones whose planning state is kept. Definitions have one or two; those of further zones are built each time.
const ZONES_KEPT_MAX: usize = 16;

/// [`planning_state`], built once for each time zone: it registers some hundreds of functions, and a start plans every definition again.
pub(crate) fn kept_planning_state(time_zone: &str) -> Arc<SessionState> {
    static KEPT: Mutex<BTreeMap<String, Arc<SessionState>>> = Mutex::new(BTreeMap::new());
    if let Ok(kept) = KEPT.lock()
        && let Some(state) = kept.get(time_zone)
    {
        return state.clone();
    }
    let state = Arc::new(planning_state(time_zone));
    if let Ok(mut kept) = KEPT.lock()
        && kept.len() < ZONES_KEPT_MAX
    {
        kept.insert(time_zone.to_string(), state.clone());
    }
    state
}

/// SQL types whose DataFusion default is not ours, timestamps are microseconds, and those that it does not have.
#[derive(Debug)]
struct SqlTypes;

impl TypePlanner for SqlTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        let ty = match sql_type {
            ast::DataType::Timestamp(_, zone) => match zone {
                ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone => {
                    DataType::Timestamp(TimeUnit::Microsecond, None)
                }
                ast::TimezoneInfo::Tz | ast::TimezoneInfo::WithTimeZone => {
                    DataType::Timestamp(TimeUnit::Microsecond, Some(tidemark_catalog::UTC.into()))
                }
            },
            ast::DataType::Time(_, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) => {
                DataType::Time64(TimeUnit::Microsecond)
            }
            _ => match vector::planned(sql_type)? {
                Some(vector) => vector,
                None => return Ok(None),
            },
        };
        Ok(Some(Arc::new(Field::new("", ty, true))))
    }
}

/// The planner for SQL type names.
pub fn type_planner() -> Arc<dyn TypePlanner> {
    Arc::new(SqlTypes)
}
