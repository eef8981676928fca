//! From a bound SELECT to a [`FeaturePlan`], or to a refusal that says which shape would do.
//!
//! DataFusion binds names and types and coerces, and [`super::shape`] takes apart what comes back. Here window functions become
//! slots over frames, and what is left of each projection becomes an output.

use super::{
    Beside, FeaturePlan, Frame, Input, NOW_COLUMN, Output, OutputKind, Slot,
    branches::{Paired, Rows, with_row_names},
    describe_duration, is_now,
    pane::{Pane, WINDOW_END, WINDOW_START},
    shape::{Shape, unqualified},
    slot_column,
    written::{check_options, check_syntax, select_texts},
};
use crate::{
    PlanError, PlanResult,
    bind::{Binder, NoSystemTables},
    composed,
    error::sqlstate,
    functions,
    parse::duration_us,
    statement::Statement,
    table::instant_type,
    value_text,
    words::{literal, type_name},
};
use arrow_schema::{DataType, SchemaRef};
use datafusion::{
    common::{
        Column, ScalarValue,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{
        Expr, ExprSchemable, LogicalPlan, Volatility, WindowFrame, WindowFrameBound, WindowFrameUnits,
        expr::WindowFunction,
    },
    optimizer::AnalyzerRule,
    sql::sqlparser::ast,
};
use std::collections::{BTreeMap, HashMap};
use tidemark_catalog::{FeatureView, Object, ObjectId, Snapshot};

/// 20,000 days: sums of it and of any event time stay within 64 bits.
const DURATION_MAX_US: i64 = 20_000 * 86_400_000_000;

/// The plan of a feature view that is in the catalog.
pub fn plan_definition(object: &Object, snapshot: &Snapshot) -> PlanResult<FeaturePlan> {
    with_definition(object, |view, query| {
        plan_feature_view(&object.name, query, &view.options, &snapshot.within(object), &view.time_zone)
    })
}

/// The query of a definition, bound and not taken apart.
///
/// # Errors
/// Binding errors as for any query.
pub fn bound_definition(object: &Object, snapshot: &Snapshot) -> PlanResult<LogicalPlan> {
    with_definition(object, |view, query| {
        let (within, state) = (snapshot.within(object), functions::planning_state(&view.time_zone));
        Ok(Binder::new(&within, &state, &NoSystemTables, 0).defining().query(query, &[])?.plan)
    })
}

fn with_definition<T>(object: &Object, then: impl FnOnce(&FeatureView, &ast::Query) -> PlanResult<T>) -> PlanResult<T> {
    let internal = |what: &str| {
        PlanError::new(sqlstate::INTERNAL, format!("feature view \"{}\" cannot be planned again: {what}", object.name))
    };
    let view = object.feature_view().ok_or_else(|| internal("it is no feature view"))?;
    let parsed = crate::parse::parse(&view.query)?;
    match parsed.first().map(|p| &p.statement) {
        Some(Statement::Query(query)) => then(view, query),
        _ => Err(internal("its text is not a query")),
    }
}

/// Recognises the shape of `query` as feature view `name`.
///
/// # Errors
/// Binding errors as for any query; 0A000 with the nearest maintainable shape as hint for shapes that are not
/// maintained; 22023 for bad options.
pub fn plan_feature_view(
    name: &str,
    query: &ast::Query,
    options: &BTreeMap<String, String>,
    snapshot: &Snapshot,
    time_zone: &str,
) -> PlanResult<FeaturePlan> {
    check_options(name, options)?;
    check_syntax(name, query)?;
    composed::check_over(name, query, snapshot)?;
    let state = functions::kept_planning_state(time_zone);
    let bound = Binder::new(snapshot, &state, &NoSystemTables, 0).defining().query(query, &[])?;
    let options = &with_options_of_inner(name, options, &bound.reads, snapshot, time_zone)?;
    if bound.reads.iter().any(|id| snapshot.get_id(*id).is_some_and(|object| object.feature_view().is_some())) {
        let outer = Binder::new(snapshot, &state, &NoSystemTables, 0).keeping_now().query(query, &[])?;
        let aggregates = |node: &LogicalPlan| Ok(matches!(node, LogicalPlan::Window(_) | LogicalPlan::Aggregate(_)));
        if outer.plan.exists(aggregates)? {
            return Err(refused(name, "it aggregates what is aggregated already")
                .hint("its rows are those of a feature view, and no events: aggregate over the source's own rows"));
        }
    }
    let typed = crate::untyped::typed(bound.plan.clone())?;
    let coerced = datafusion::optimizer::analyzer::type_coercion::TypeCoercion::new()
        .analyze(value_text::shown_in_concat(typed)?, state.config_options())?;
    let coerced = value_text::text_casts(crate::zone::in_zone(coerced, time_zone)?)?;
    let coerced = functions::rounded::rounded_casts(coerced)?;
    let coerced = functions::span::by_length(functions::vector::read_all(coerced)?)?;
    let shape = Shape::take(name, &with_row_names(coerced)?)?;
    let Rows { branches, schema, event_time, only, beside } = Rows::of(name, shape.rows()?, snapshot)?;
    let changelog = only.and_then(Object::relation).filter(|relation| !relation.primary_key.is_empty());
    let time_name = schema.field(event_time).name().clone();

    let (projection, projection_types) = (shape.projection.clone(), shape.projection_types.clone());
    let filter = shape.filter.clone();
    let pane = shape.pane(&time_name)?;
    let mut build = Build {
        name,
        schema: &schema,
        time_name: &time_name,
        windows: shape.into_windows(&time_name)?,
        pane,
        inputs: vec![],
        frames: vec![],
        slots: vec![],
        changelog: changelog.is_some(),
        beside: beside.as_ref().map(|paired| paired.columns.clone()).unwrap_or_default(),
        beside_read: vec![],
    };
    if let Some(paired) = beside.as_ref().filter(|_| pane.is_some()) {
        let table = &paired.beside.table_name;
        return Err(refused(name, &format!("it joins table \"{table}\" to TUMBLE, HOP or SESSION"))
            .hint("join the view to the table where you look up; or ASOF JOIN takes the table as of each event"));
    }
    if let Some(table) = only.filter(|_| pane.is_some() && changelog.is_some()) {
        return Err(refused(
            name,
            &format!("TUMBLE, HOP and SESSION over table \"{}\" with a primary key are not maintained", table.name),
        )
        .hint(
            "a row that changes later would change a window that is over: write GROUP BY without them, or a window \
               RANGE INTERVAL '…' PRECEDING; or read a source",
        ));
    }

    let key = build.key(options, changelog)?;
    let of_branches = branches.iter().filter_map(|branch| branch.taken.as_ref());
    let of_branches = of_branches.flat_map(|taken| taken.columns.iter().chain(&taken.filter));
    for expr in key.iter().chain(filter.iter()).chain(of_branches) {
        build.check_row_level(expr)?;
    }
    let rows = datafusion::common::DFSchema::try_from(schema.as_ref().clone())?;
    for k in &key {
        if k.get_type(&rows)?.is_list() {
            return Err(PlanError::unsupported(format!(
                "entity key {k} of feature view \"{name}\" is an array and cannot be a key"
            )));
        }
    }

    let mut outputs = vec![];
    let texts = select_texts(query);
    for (i, (expr, output_name)) in projection.iter().enumerate() {
        let kind = build.output(expr, &key, projection_types[i].clone())?;
        let ty = stored_type(build.output_type(&kind, &projection_types[i], &key));
        let as_stored = |expr: Expr| datafusion::logical_expr::cast(expr, ty.clone());
        let kind = match kind {
            OutputKind::Expr(expr) if ty != projection_types[i] => OutputKind::Expr(as_stored(expr)),
            OutputKind::TimeContinuous { expr, bases } if ty != projection_types[i] => {
                OutputKind::TimeContinuous { expr: as_stored(expr), bases }
            }
            kind => kind,
        };
        let sql = texts.as_ref().and_then(|t| t.get(i).cloned()).unwrap_or_else(|| expr.to_string());
        outputs.push(Output { name: output_name.clone(), ty, kind, sql });
    }
    for (i, k) in key.iter().enumerate() {
        if !outputs.iter().any(|o| matches!(o.kind, OutputKind::Key(n) if n == i)) {
            return Err(PlanError::new(
                sqlstate::INVALID_DEFINITION,
                format!("feature view \"{name}\" does not select its entity key {k}"),
            )
            .hint(format!("add {k} to the SELECT list: lookups need it")));
        }
    }
    match outputs.iter().filter(|o| matches!(o.kind, OutputKind::Time)).count() {
        0 => outputs.push(Output {
            name: time_name.clone(),
            ty: instant_type(),
            kind: OutputKind::Time,
            sql: time_name.clone(),
        }),
        1 => {}
        _ => {
            return Err(PlanError::new(
                sqlstate::INVALID_DEFINITION,
                format!("feature view \"{name}\" selects its time column {time_name} twice"),
            )
            .hint(format!("the time column is the instant of the change; for the time of the last event write max({time_name}) OVER …")));
        }
    }
    let mut taken = std::collections::BTreeSet::new();
    for output in &outputs {
        if output.name.starts_with('_') {
            return Err(PlanError::new(
                "42602",
                format!("column \"{}\" of feature view \"{name}\" begins with an underscore", output.name),
            )
            .hint("such names are reserved for history's own columns; use AS"));
        }
        if output.name == "?column?" {
            return Err(PlanError::new(
                sqlstate::INVALID_DEFINITION,
                format!("feature view \"{name}\" has a feature without a name"),
            )
            .detail(format!("it is {}", output.sql))
            .hint("name the feature with AS"));
        }
        if !taken.insert(output.name.clone()) {
            return Err(PlanError::new(
                sqlstate::DUPLICATE_COLUMN,
                format!("column \"{}\" of feature view \"{name}\" is specified more than once", output.name),
            )
            .hint("name the feature with AS"));
        }
        if tidemark_catalog::SqlType::from_arrow(&output.ty).is_none() {
            return Err(refused(
                name,
                &format!("column \"{}\" has a type that cannot be stored: {}", output.name, type_name(&output.ty)),
            ));
        }
    }
    let beside = beside.map(|paired| build.paired(paired, &key)).transpose()?;
    let plan = FeaturePlan {
        beside,
        through: bound.reads.into_iter().filter(|id| branches.iter().all(|branch| branch.relation != *id)).collect(),
        branches,
        row_schema: schema.clone(),
        event_time,
        filter,
        key,
        inputs: build.inputs,
        frames: build.frames,
        slots: build.slots,
        outputs,
        time_zone: time_zone.into(),
        ttl_us: options.get("ttl").map(|t| duration_us(t)).transpose()?,
        slide_us: options.get("slide").map(|t| duration_us(t)).transpose()?,
        versions: false,
    };
    let plan = FeaturePlan { versions: changelog.is_some_and(|table| !plan.reads_latest_row(table)), ..plan };
    if let Some(slide) = plan.slide_us {
        check_slide(name, slide, &plan.frames)?;
    }
    if let Some(ttl) = plan.ttl_us {
        if ttl > DURATION_MAX_US {
            let message = format!("ttl of feature view \"{name}\" is too long");
            return Err(
                PlanError::new(sqlstate::INVALID_PARAMETER, message).hint("leave it out: a key lives for ever then")
            );
        }
        if ttl <= 0 {
            return Err(PlanError::new(
                sqlstate::INVALID_PARAMETER,
                format!("ttl of feature view \"{name}\" is not positive"),
            ));
        }
        if let Some(longest) = plan.longest_bound_us()
            && ttl < longest
        {
            return Err(PlanError::new(
                sqlstate::INVALID_PARAMETER,
                format!("ttl of feature view \"{name}\" is shorter than its longest window"),
            )
            .detail(format!("ttl is {}, the longest window {}", describe_duration(ttl), describe_duration(longest)))
            .hint(format!("set ttl to at least '{}'", describe_duration(longest))));
        }
        let is_bounded = |frame: &Frame| matches!(frame, Frame::Range { start_us: Some(_), .. });
        if let Some(frame) = plan.frames.iter().find(|frame| plan.versions && !is_bounded(frame)) {
            return Err(refused(name, &format!("it has a ttl, and {} over a table with a primary key", frame.describe()))
                .hint("leave the ttl out: a row counts until it is replaced; or bound the window by RANGE INTERVAL '…' PRECEDING"));
        }
    }
    Ok(plan)
}

/// A view over a feature view has its key, ttl and slide: it is the same rows, with other columns.
fn with_options_of_inner(
    name: &str,
    options: &BTreeMap<String, String>,
    reads: &[ObjectId],
    snapshot: &Snapshot,
    time_zone: &str,
) -> PlanResult<BTreeMap<String, String>> {
    let mut all = options.clone();
    for (inner, view) in reads.iter().filter_map(|id| snapshot.get_id(*id)).filter_map(|o| Some((o, o.feature_view()?)))
    {
        if view.time_zone != time_zone {
            return Err(refused(name, &format!("feature view \"{}\" is of time zone {}", inner.name, view.time_zone))
                .detail(format!("the session's is {time_zone}: its expressions would mean something else"))
                .hint(format!("SET TIME ZONE '{}' before creating the view", view.time_zone)));
        }
        for option in ["key", "ttl", "slide"] {
            if options.contains_key(option) {
                let message = format!(
                    "feature view \"{name}\" has an option \"{option}\", and is over feature view \"{}\"",
                    inner.name
                );
                return Err(PlanError::new(sqlstate::INVALID_PARAMETER, message)
                    .hint("leave it out: it is that of the view it is over"));
            }
            if let Some(value) = view.options.get(option) {
                all.insert(option.to_string(), value.clone());
            }
        }
    }
    Ok(all)
}

/// A slide is a grid that every bounded RANGE frame is a whole number of.
fn check_slide(name: &str, slide_us: i64, frames: &[Frame]) -> PlanResult<()> {
    let invalid = |what: String| PlanError::new(sqlstate::INVALID_PARAMETER, what);
    if slide_us <= 0 {
        return Err(invalid(format!("slide of feature view \"{name}\" is not positive")));
    }
    let bounded = frames.iter().filter_map(|frame| match frame {
        Frame::Range { start_us, .. } => *start_us,
        Frame::Rows { .. } | Frame::Pane(_) => None,
    });
    let bounded: Vec<i64> = bounded.collect();
    if bounded.is_empty() {
        return Err(invalid(format!("slide of feature view \"{name}\" has no effect"))
            .hint("leave it out: it is for windows RANGE INTERVAL '…' PRECEDING"));
    }
    match bounded.into_iter().find(|start| start % slide_us != 0) {
        Some(start) => {
            let message = format!("slide of feature view \"{name}\" does not divide its windows");
            Err(invalid(message)
                .detail(format!("{} is no multiple of {}", describe_duration(start), describe_duration(slide_us)))
                .hint("windows and slide have to be multiples, as of 1 hour and 1 minute"))
        }
        None => Ok(()),
    }
}

/// The one Arrow type that a SQL type is held in: durations are intervals, views of text are text.
pub(crate) fn stored_type(ty: DataType) -> DataType {
    tidemark_catalog::SqlType::from_arrow(&ty).map_or(ty, |sql| sql.arrow())
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

pub(super) fn refused(view: &str, why: &str) -> PlanError {
    PlanError::unsupported(format!("feature view \"{view}\" cannot be maintained: {why}"))
}

pub(super) struct Build<'a> {
    pub(super) name: &'a str,
    pub(super) schema: &'a SchemaRef,
    time_name: &'a str,
    windows: HashMap<String, WindowFunction>,
    pub(super) pane: Option<Pane>,
    pub(super) inputs: Vec<Input>,
    frames: Vec<Frame>,
    pub(super) slots: Vec<Slot>,
    /// Its events are versions of a table's rows: any of them may be taken out again.
    pub(super) changelog: bool,
    /// The columns of a table beside the entity key: by name, its column.
    beside: Vec<(String, usize, DataType)>,
    /// Those of them that outputs read, by their column.
    beside_read: Vec<usize>,
}

impl Build<'_> {
    /// The entity key: PARTITION BY, or the `key` option, or the table's primary key.
    fn key(
        &self,
        options: &BTreeMap<String, String>,
        changelog: Option<&tidemark_catalog::Relation>,
    ) -> PlanResult<Vec<Expr>> {
        let mut partition: Option<Vec<Expr>> = None;
        let mut functions: Vec<&WindowFunction> = self.windows.values().collect();
        functions.sort_by_key(|f| f.fun.name().to_string());
        for function in functions {
            let by = function.params.partition_by.iter().cloned().map(unqualified).collect::<PlanResult<Vec<_>>>()?;
            if by.is_empty() {
                return Err(PlanError::new(
                    sqlstate::WINDOWING_ERROR,
                    format!("a window of feature view \"{}\" has no PARTITION BY", self.name),
                )
                .hint("PARTITION BY names the entity key; for one global row add a constant column to the source"));
            }
            match &partition {
                None => partition = Some(by),
                Some(first) if *first == by => {}
                Some(first) => {
                    let list = |e: &[Expr]| e.iter().map(|e| e.to_string()).collect::<Vec<_>>().join(", ");
                    return Err(refused(self.name, "its windows have different PARTITION BY")
                        .detail(format!("one is by {}, another by {}", list(first), list(&by)))
                        .hint(
                            "a feature view has one entity key: make one view per key and join them where you read",
                        ));
                }
            }
        }
        let from_option = match options.get("key") {
            None => None,
            Some(list) => {
                let mut key = vec![];
                for column_name in list.split(',').map(str::trim) {
                    if self.schema.field_with_name(column_name).is_err() {
                        return Err(PlanError::new(
                            sqlstate::UNDEFINED_COLUMN,
                            format!(
                                "column \"{column_name}\" named as key of feature view \"{}\" does not exist",
                                self.name
                            ),
                        ));
                    }
                    key.push(column(column_name));
                }
                Some(key)
            }
        };
        match (partition, from_option) {
            (Some(partition), Some(option)) if partition != option => Err(PlanError::new(
                sqlstate::INVALID_PARAMETER,
                format!("the key option of feature view \"{}\" contradicts its PARTITION BY", self.name),
            )
            .hint("leave the key option out: PARTITION BY names the entity key")),
            (Some(key), _) | (None, Some(key)) => Ok(key),
            (None, None) if let Some(table) = changelog => {
                Ok(table.primary_key.iter().map(|i| column(&table.columns[*i].name)).collect())
            }
            (None, None) => Err(PlanError::new(
                sqlstate::INVALID_DEFINITION,
                format!("feature view \"{}\" has no window and no key", self.name),
            )
            .hint("add WITH (key = 'column') or a window with PARTITION BY")),
        }
    }

    /// Expressions on one row may not depend on when they are evaluated.
    fn check_row_level(&self, expr: &Expr) -> PlanResult<()> {
        let mut bad = None;
        expr.apply(|e| {
            if is_now(e) {
                bad = Some("now()".to_string());
            } else if let Expr::ScalarFunction(f) = e
                && f.func.signature().volatility != Volatility::Immutable
            {
                bad = Some(format!("{}()", f.func.name()));
            }
            Ok(if bad.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if let Some(c) = expr.column_refs().into_iter().find(|c| self.beside.iter().any(|(name, ..)| *name == c.name)) {
            return Err(refused(
                self.name,
                &format!("{c} of the joined table stands in an aggregate, a condition or the key"),
            )
            .detail("the join gives the row of the table at the instant of the reading, not one for each event")
            .hint("ASOF JOIN takes the table as of each event; or select the column outside the aggregates"));
        }
        match bad {
            None => Ok(()),
            Some(function) => Err(refused(self.name, &format!("{function} stands where its value would not be one"))
                .hint("now() may stand in the select list outside aggregates, e.g. now() - max(event_time) OVER w")),
        }
    }

    pub(super) fn input(&mut self, expr: Expr) -> PlanResult<usize> {
        self.check_row_level(&expr)?;
        let schema = datafusion::common::DFSchema::try_from(self.schema.as_ref().clone())?;
        let found = expr.get_type(&schema)?;
        let ty = stored_type(found.clone());
        let expr = if ty == found { expr } else { datafusion::logical_expr::cast(expr, ty.clone()) };
        if let Some(i) = self.inputs.iter().position(|input| input.expr == expr) {
            return Ok(i);
        }
        self.inputs.push(Input { expr, ty });
        Ok(self.inputs.len() - 1)
    }

    pub(super) fn slot(&mut self, slot: Slot) -> usize {
        match self.slots.iter().position(|s| *s == slot) {
            Some(i) => i,
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    pub(super) fn frame(&mut self, frame: Frame) -> usize {
        match self.frames.iter().position(|f| *f == frame) {
            Some(i) => i,
            None => {
                self.frames.push(frame);
                self.frames.len() - 1
            }
        }
    }

    /// The column of the table beside the entity key that this is.
    fn beside_column(&self, expr: &Expr) -> Option<(usize, DataType)> {
        let Expr::Column(column) = expr else { return None };
        let found = self.beside.iter().find(|(name, ..)| *name == column.name)?;
        Some((found.1, found.2.clone()))
    }

    /// The join is on the entity key, all of it.
    fn paired(&self, paired: Paired, key: &[Expr]) -> PlanResult<Beside> {
        let of_key = |k: &Expr| paired.on.iter().find(|(l, _)| l == k).map(|(_, at)| *at);
        let columns: Option<Vec<usize>> = key.iter().map(of_key).collect();
        match columns.filter(|columns| columns.len() == paired.on.len()) {
            Some(columns) => {
                let rows = datafusion::common::DFSchema::try_from(self.schema.as_ref().clone())?;
                for (k, at) in key.iter().zip(&columns) {
                    let (own, other) = (k.get_type(&rows)?, &self.beside[*at].2);
                    if own != *other && !(own.is_integer() && other.is_integer()) {
                        let why = format!(
                            "its key {k} is {}, that of the joined table {}",
                            type_name(&own),
                            type_name(other)
                        );
                        return Err(refused(self.name, &why).hint("give both the same type"));
                    }
                }
                Ok(Beside { key: columns, columns: self.beside_read.clone(), ..paired.beside })
            }
            None => {
                let list = |exprs: Vec<&Expr>| exprs.into_iter().map(|e| e.to_string()).collect::<Vec<_>>().join(", ");
                Err(refused(
                    self.name,
                    &format!("table \"{}\" is not joined on its entity key", paired.beside.table_name),
                )
                .detail(format!(
                    "the join is on {}, the entity key is {}",
                    list(paired.on.iter().map(|(l, _)| l).collect()),
                    list(key.iter().collect())
                ))
                .hint("ASOF JOIN takes a table as of each event, by any column"))
            }
        }
    }

    fn raw(&mut self, expr: Expr) -> PlanResult<usize> {
        if let Some((column, ty)) = self.beside_column(&expr) {
            let at = self.beside_read.iter().position(|read| *read == column).unwrap_or(self.beside_read.len());
            if at == self.beside_read.len() {
                self.beside_read.push(column);
            }
            return Ok(self.slot(Slot::Beside { column: at, ty }));
        }
        if let Expr::Column(column) = &expr
            && matches!(column.name.as_str(), WINDOW_START | WINDOW_END)
        {
            return Ok(self.slot(Slot::Bound { end: column.name == WINDOW_END, ty: instant_type() }));
        }
        let input = self.input(expr)?;
        let ty = self.inputs[input].ty.clone();
        Ok(self.slot(Slot::Raw { input, ty }))
    }

    fn output(&mut self, expr: &Expr, key: &[Expr], ty: DataType) -> PlanResult<OutputKind> {
        if let Some(i) = key.iter().position(|k| k == expr) {
            return Ok(OutputKind::Key(i));
        }
        if *expr == column(self.time_name) {
            return Ok(OutputKind::Time);
        }
        if let Expr::Column(c) = expr
            && let Some(function) = self.windows.get(&c.name).cloned()
        {
            let slot = self.aggregate(&function, &ty)?;
            if !self.is_decaying(slot) {
                return Ok(OutputKind::Slot(slot));
            }
        }
        let mut has_window = false;
        let mut has_now = false;
        let is_bound = |name: &str| matches!(name, WINDOW_START | WINDOW_END);
        expr.apply(|e| {
            has_window |= matches!(e, Expr::Column(c) if self.windows.contains_key(&c.name) || is_bound(&c.name));
            has_window |= self.beside_column(e).is_some();
            has_now |= is_now(e);
            Ok(TreeNodeRecursion::Continue)
        })?;
        let is_alone = |c: &Column| is_bound(&c.name) || self.beside_column(expr).is_some();
        if (!has_window || matches!(expr, Expr::Column(c) if is_alone(c))) && !has_now {
            return Ok(OutputKind::Slot(self.raw(expr.clone())?));
        }
        // Window functions and columns become slots; `now()` becomes a column.
        let mut bases = vec![];
        let rewritten = expr
            .clone()
            .transform(|e| {
                if is_now(&e) {
                    return Ok(Transformed::yes(Expr::Column(Column::new_unqualified(NOW_COLUMN))));
                }
                let Expr::Column(c) = &e else { return Ok(Transformed::no(e)) };
                let (slot, wanted) = match self.windows.get(&c.name).cloned() {
                    Some(function) => {
                        let wanted = self.window_type(&function)?;
                        (self.aggregate(&function, &wanted)?, wanted)
                    }
                    None => {
                        let slot = self.raw(e.clone())?;
                        (slot, self.slots[slot].ty().clone())
                    }
                };
                if self.is_decaying(slot) {
                    let (value, needed) = self.decayed(slot)?;
                    bases.extend(needed.into_iter().filter(|slot| !bases.contains(slot)).collect::<Vec<_>>());
                    has_now = true;
                    // Below it is columns of slots only.
                    return Ok(Transformed::new(value, true, TreeNodeRecursion::Jump));
                }
                if !bases.contains(&slot) {
                    bases.push(slot);
                }
                let replaced = slot_column(slot);
                Ok(Transformed::yes(if *self.slots[slot].ty() == wanted {
                    replaced
                } else {
                    datafusion::logical_expr::cast(replaced, wanted)
                }))
            })?
            .data;
        self.check_row_level(&rewritten)?;
        Ok(if has_now { OutputKind::TimeContinuous { expr: rewritten, bases } } else { OutputKind::Expr(rewritten) })
    }

    fn is_decaying(&self, slot: usize) -> bool {
        matches!(&self.slots[slot], Slot::Aggregate(call) if call.function.decays())
    }

    fn output_type(&self, kind: &OutputKind, projected: &DataType, _key: &[Expr]) -> DataType {
        match kind {
            OutputKind::Time => instant_type(),
            OutputKind::Slot(i) => self.slots[*i].ty().clone(),
            _ => projected.clone(),
        }
    }

    fn window_type(&self, function: &WindowFunction) -> PlanResult<DataType> {
        let schema = datafusion::common::DFSchema::try_from(self.schema.as_ref().clone())?;
        let mut bare = function.clone();
        bare.params.args = bare.params.args.into_iter().map(unqualified).collect::<PlanResult<Vec<_>>>()?;
        bare.params.partition_by.clear();
        bare.params.order_by.clear();
        bare.params.filter = None;
        Ok(Expr::from(bare).get_type(&schema)?)
    }

    pub(super) fn frame_of(
        &self,
        frame: &WindowFrame,
        order_by: &[datafusion::logical_expr::SortExpr],
    ) -> PlanResult<Frame> {
        match order_by {
            [] => {
                return Err(PlanError::new(
                    sqlstate::WINDOWING_ERROR,
                    format!("a window of feature view \"{}\" has no ORDER BY", self.name),
                )
                .hint(format!("add ORDER BY {} to the window", self.time_name)));
            }
            [order] if order.asc && unqualified(order.expr.clone())? == column(self.time_name) => {}
            _ => {
                return Err(refused(self.name, "a window is not ordered by the event time")
                    .hint(format!("write ORDER BY {}", self.time_name)));
            }
        }
        let refuse_following =
            || refused(self.name, "a window looks into the future").hint("end the frame at CURRENT ROW or earlier");
        match frame.units {
            WindowFrameUnits::Groups => {
                Err(refused(self.name, "GROUPS frames are not maintained").hint("use RANGE or ROWS"))
            }
            WindowFrameUnits::Range => {
                let start_us = match &frame.start_bound {
                    WindowFrameBound::Preceding(v) if v.is_null() => None,
                    WindowFrameBound::Preceding(v) => Some(self.range_us(v)?),
                    WindowFrameBound::CurrentRow => Some(0),
                    WindowFrameBound::Following(_) => return Err(refuse_following()),
                };
                let end_us = match &frame.end_bound {
                    WindowFrameBound::CurrentRow => 0,
                    WindowFrameBound::Preceding(v) if !v.is_null() => self.range_us(v)?,
                    _ => return Err(refuse_following()),
                };
                if start_us.is_some_and(|start| start < end_us) {
                    return Err(PlanError::new(
                        sqlstate::WINDOWING_ERROR,
                        format!("a window of feature view \"{}\" ends before it starts", self.name),
                    )
                    .hint("write the longer interval first: BETWEEN start PRECEDING AND end PRECEDING"));
                }
                Ok(Frame::Range { start_us, end_us })
            }
            WindowFrameUnits::Rows => {
                let rows = |v: &ScalarValue| match v.cast_to(&DataType::UInt64) {
                    Ok(ScalarValue::UInt64(Some(n))) => Ok(n),
                    _ => Err(PlanError::new(
                        sqlstate::WINDOWING_ERROR,
                        format!("frame bound {} is not a number of rows", literal(v)),
                    )),
                };
                let start = match &frame.start_bound {
                    WindowFrameBound::Preceding(v) if v.is_null() => None,
                    WindowFrameBound::Preceding(v) => Some(rows(v)?),
                    WindowFrameBound::CurrentRow => Some(0),
                    WindowFrameBound::Following(_) => return Err(refuse_following()),
                };
                let end = match &frame.end_bound {
                    WindowFrameBound::CurrentRow => 0,
                    WindowFrameBound::Preceding(v) if !v.is_null() => rows(v)?,
                    _ => return Err(refuse_following()),
                };
                if start.is_some_and(|start| start < end) {
                    return Err(PlanError::new(
                        sqlstate::WINDOWING_ERROR,
                        format!("a window of feature view \"{}\" ends before it starts", self.name),
                    ));
                }
                Ok(Frame::Rows { start, end })
            }
        }
    }

    /// A RANGE bound in microseconds.
    pub(super) fn range_us(&self, value: &ScalarValue) -> PlanResult<i64> {
        let us = match value {
            ScalarValue::IntervalMonthDayNano(Some(i)) => {
                if i.months != 0 {
                    return Err(PlanError::new(
                        sqlstate::WINDOWING_ERROR,
                        format!("a window of feature view \"{}\" is measured in months or years", self.name),
                    )
                    .hint("months differ in length: write days, e.g. INTERVAL '30 days'"));
                }
                i64::from(i.days).checked_mul(86_400_000_000).and_then(|d| d.checked_add(i.nanoseconds / 1_000))
            }
            ScalarValue::IntervalDayTime(Some(i)) => {
                Some(i64::from(i.days) * 86_400_000_000 + i64::from(i.milliseconds) * 1_000)
            }
            ScalarValue::DurationMicrosecond(Some(us)) => Some(*us),
            ScalarValue::Utf8(Some(text)) => Some(duration_us(text)?),
            _ => None,
        };
        match us {
            Some(us) if (0..=DURATION_MAX_US).contains(&us) => Ok(us),
            _ => Err(PlanError::new(
                sqlstate::WINDOWING_ERROR,
                format!("frame bound {} of feature view \"{}\" is not a usable interval", literal(value), self.name),
            )
            .hint("write INTERVAL '5 minutes' and the like, at least zero")),
        }
    }
}
