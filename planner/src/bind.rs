//! Names and types of ordinary queries, bound by DataFusion's SQL planner over a catalog snapshot.

use crate::{
    PlanError, PlanResult,
    archive::{archive_schema, is_archived},
    asof::AsofPlanner,
    defaults,
    each_expression::each_expression,
    error::{missing, missing_object, sqlstate},
    feature::{self, FeaturePlan, NOW_COLUMN, OutputKind},
    functions::{clock, series::generate_series},
    names::{self, GENERATE_SERIES},
    respelled::respell,
    shown, status,
    table::{
        self, ContinuousColumn, RECORDED_AT_COLUMN, ROW_COLUMN, ROWS_SCHEMA, ScanTarget, StepsTable, TidemarkTable,
    },
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::{
        Column, DFSchema, DataFusionError, ScalarValue, TableReference, internal_datafusion_err,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    config::ConfigOptions,
    error::Result as DfResult,
    execution::{SessionState, session_state::SessionState as State},
    logical_expr::{
        AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource,
        WindowUDF, cast, lit,
        planner::{
            ContextProvider, ExprPlanner, PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
            TypePlanner,
        },
        simplify::SimplifyContext,
    },
    optimizer::simplify_expressions::ExprSimplifier,
    sql::{
        planner::{ParserOptions, PlannerContext, SqlToRel},
        sqlparser::ast,
    },
};
use std::{borrow::Cow, sync::Arc};
use tidemark_catalog::{
    Body, FeatureView, NameRef, Object, ObjectId, PUBLIC_SCHEMA, SearchPath, Snapshot, history_schema as history_of,
    looked_for, schema_of_history,
};

/// The tables of the schemas `tidemark`, `pg_catalog` and `information_schema`, as far as binding needs them.
pub trait SystemTables: Send + Sync {
    fn schema_of(&self, schema: &str, table: &str) -> Option<SchemaRef>;
}

/// No system tables: for planning feature views and for tests.
pub struct NoSystemTables;

impl SystemTables for NoSystemTables {
    fn schema_of(&self, _: &str, _: &str) -> Option<SchemaRef> {
        None
    }
}

/// A statement bound to what it reads.
#[derive(Debug, Clone)]
pub struct BoundQuery {
    /// Not optimised; its scans carry [`TidemarkTable`]s.
    pub plan: LogicalPlan,
    /// The catalog objects it names, directly or through views.
    pub reads: Vec<ObjectId>,
    /// Of these the relations that the query names itself: what its reader has to be allowed to read.
    pub names: Vec<ObjectId>,
}

/// Binds queries against one snapshot. `now_us` is the statement's instant: `FOR SYSTEM_TIME AS OF now()` needs it.
pub struct Binder<'a> {
    snapshot: &'a Snapshot,
    state: &'a SessionState,
    system: &'a dyn SystemTables,
    relation_planners: Vec<Arc<dyn RelationPlanner>>,
    reads: parking::Reads,
    /// Named by the query itself, not by a view in it.
    names: parking::Reads,
    now_us: i64,
    /// Whether `now()` becomes the statement's instant; a feature view's definition keeps it.
    bind_now: bool,
    /// A feature view is defined: another in its place is written out, as it cannot be read before it is computed.
    defining: bool,
    /// How many views deep this binding is; a cycle cannot be created, this is for depth only.
    depth: usize,
}

/// Views inside views deeper than this are refused rather than overflowing the stack.
const VIEW_DEPTH_MAX: usize = 16;

mod parking {
    use std::{collections::BTreeSet, sync::Mutex};
    use tidemark_catalog::ObjectId;

    /// The objects seen while binding; behind a lock because DataFusion asks through `&self`.
    #[derive(Default)]
    pub struct Reads(Mutex<BTreeSet<ObjectId>>);

    impl Reads {
        pub fn add(&self, ids: impl IntoIterator<Item = ObjectId>) {
            if let Ok(mut set) = self.0.lock() {
                set.extend(ids);
            }
        }

        pub fn get(&self) -> BTreeSet<ObjectId> {
            self.0.lock().map(|set| set.clone()).unwrap_or_default()
        }
    }
}

impl<'a> Binder<'a> {
    pub fn new(snapshot: &'a Snapshot, state: &'a SessionState, system: &'a dyn SystemTables, now_us: i64) -> Self {
        Self::nested(snapshot, state, system, now_us, 0)
    }

    fn nested(
        snapshot: &'a Snapshot,
        state: &'a SessionState,
        system: &'a dyn SystemTables,
        now_us: i64,
        depth: usize,
    ) -> Self {
        Binder {
            snapshot,
            state,
            system,
            relation_planners: vec![
                Arc::new(SystemTimePlanner { snapshot: snapshot.clone(), now_us, zone: session_zone(state).into() }),
                Arc::new(AsofPlanner),
            ],
            reads: Default::default(),
            names: Default::default(),
            now_us,
            bind_now: true,
            defining: false,
            depth,
        }
    }

    /// Leaves `now()` in the plan: for definitions, which are evaluated at many instants.
    pub fn keeping_now(mut self) -> Self {
        self.bind_now = false;
        self
    }

    /// Writes feature views out: for the definition of one that reads others.
    pub fn defining(mut self) -> Self {
        self.defining = true;
        self.keeping_now()
    }

    /// Binds a query; `parameter_types` are the types declared for `$1`, `$2`, … (`None`: to be inferred).
    ///
    /// Equal names of columns are told apart in the plan: [`names::shown_schema`] is what a client should see.
    pub fn query(&self, query: &ast::Query, parameter_types: &[Option<DataType>]) -> PlanResult<BoundQuery> {
        crate::joins::check(query)?;
        let mut query = query.clone();
        if !self.defining {
            status::ask(&mut query, self.snapshot)?;
        }
        names::name_columns(&mut query);
        self.reads.add(crate::composed::write_out(&mut query, self.snapshot, self)?);
        crate::calls::check(&query, self)?;
        crate::respelled::write_out(&mut query, self.defining)?;
        let plan = match self.plan(&query, parameter_types) {
            Err(error) if names::is_duplicate(&error) => {
                names::expand(&mut query, &mut |probe| Ok(names::columns_of(&self.plan(&probe, parameter_types)?)))
                    .and_then(|()| self.plan(&query, parameter_types))?
            }
            planned => planned?,
        };
        // A definition reads no row that is not there.
        let plan = if self.defining { plan } else { defaults::fill(plan)? };
        let plan = crate::any_parameter::infer(names::mark_renamed(plan)?)?;
        let plan = crate::compared::read(plan)?;
        let plan = crate::json_text::documents::mark(plan)?;
        let plan = if self.bind_now { at_instant(plan, self.now_us)? } else { plan };
        let [reads, names] = [&self.reads, &self.names].map(|seen| seen.get().into_iter().collect());
        Ok(BoundQuery { plan, reads, names })
    }

    fn plan(&self, query: &ast::Query, parameter_types: &[Option<DataType>]) -> DfResult<LogicalPlan> {
        let options = ParserOptions::from(&self.state.config().options().sql_parser);
        let planner = SqlToRel::new_with_options(self, options);
        let mut context = PlannerContext::new();
        if !parameter_types.is_empty() {
            context = context.with_prepare_param_data_types(
                parameter_types.iter().map(|t| t.as_ref().map(|t| Arc::new(Field::new("", t.clone(), true)))).collect(),
            );
        }
        let statement = ast::Statement::Query(Box::new(query.clone()));
        planner.sql_statement_to_plan_with_context(statement, &mut context)
    }

    /// The constant that `expr` is, for statements that take one (no columns, no subqueries).
    pub fn constant(&self, expr: &ast::Expr, now_us: i64) -> PlanResult<ScalarValue> {
        evaluate_constant(constant_in_zone(self.constant_expr(expr)?, session_zone(self.state), now_us)?, now_us)
    }

    /// The instant that `expr` is, microseconds; what has no zone is in the session's. `name` is what it is for.
    pub fn instant(&self, expr: &ast::Expr, now_us: i64, name: &str) -> PlanResult<i64> {
        instant(self.constant_expr(expr)?, session_zone(self.state), now_us, name)
    }

    fn constant_expr(&self, expr: &ast::Expr) -> PlanResult<Expr> {
        let options = ParserOptions::from(&self.state.config().options().sql_parser);
        let planner = SqlToRel::new_with_options(self, options);
        let mut expr = expr.clone();
        respell(&mut expr);
        Ok(planner.sql_to_expr(expr, &DFSchema::empty(), &mut PlannerContext::new())?)
    }

    fn table(&self, name: &TableReference) -> PlanResult<Arc<dyn TableSource>> {
        match named(name)? {
            (None, name) => self.relation(name),
            (Some(ROWS_SCHEMA), name) => {
                let object = self.snapshot.get(name).ok_or_else(|| self.missing(name))?;
                match &object.body {
                    // Of a source what INSERT … RETURNING has put in.
                    Body::Source(relation) | Body::Table(relation) if relation.files().is_none() => {
                        self.reads.add([object.id]);
                        self.names.add([object.id]);
                        let schema = placed_schema(&relation.schema());
                        Ok(source(ScanTarget::Rows(object.id), object, schema, None))
                    }
                    _ => Err(self.missing(name)),
                }
            }
            (Some(_), name) => {
                let object = self.snapshot.get(name).filter(|object| is_feature_view(object));
                let object = object.ok_or_else(|| self.missing(name))?;
                self.reads.add([object.id]);
                self.names.add([object.id]);
                self.current_rows(object, true)
            }
        }
    }

    fn missing(&self, name: NameRef<'_>) -> PlanError {
        missing_object(self.snapshot, "relation", name, |_| true)
    }

    /// What a name means: in the schema that it says, else the first along the path.
    fn relation(&self, name: NameRef<'_>) -> PlanResult<Arc<dyn TableSource>> {
        if let Some(schema) = name.schema {
            let found = self.in_schema(schema, name.name)?;
            return found.ok_or_else(|| match schema_of_history(schema) {
                Some(_) => self.missing_history(&name.to_string()),
                None => self.missing(name),
            });
        }
        let found = match self.snapshot.path() {
            SearchPath::Definition(place) => {
                let schema = place.relations.0.get(name.name).map_or(PUBLIC_SCHEMA, String::as_str);
                // Definitions of before there were schemas say nothing of the catalog's tables.
                self.in_schema(schema, name.name)?.or_else(|| self.system_table("pg_catalog", name.name))
            }
            SearchPath::Schemas(path) => {
                let mut found = None;
                for schema in looked_for(path) {
                    found = self.in_schema(schema, name.name)?;
                    if found.is_some() {
                        break;
                    }
                }
                found
            }
        };
        found.ok_or_else(|| self.missing(name))
    }

    fn in_schema(&self, schema: &str, table: &str) -> PlanResult<Option<Arc<dyn TableSource>>> {
        if let Some(of) = schema_of_history(schema) {
            let object = self.snapshot.get((of, table)).filter(|object| is_feature_view(object) || is_archived(object));
            return object.map(|object| self.history(object)).transpose();
        }
        if let Some(source) = self.system_table(schema, table) {
            return Ok(Some(source));
        }
        self.snapshot.get((schema, table)).map(|object| self.object(object)).transpose()
    }

    fn history(&self, object: &Object) -> PlanResult<Arc<dyn TableSource>> {
        let schema = match object.relation() {
            Some(relation) => archive_schema(relation),
            None => history_schema(&feature::plan_definition(object, self.snapshot)?),
        };
        self.reads.add([object.id]);
        self.names.add([object.id]);
        Ok(source(ScanTarget::History(object.id), object, schema, None))
    }

    fn missing_history(&self, name: &str) -> PlanError {
        let views = self.snapshot.objects().filter(|object| is_feature_view(object) || is_archived(object));
        let placed = views.map(|view| (history_of(view.schema_name()), view));
        let open = placed.filter(|(schema, _)| !self.snapshot.closed().contains(schema.as_str()));
        let others: Vec<String> = open.map(|(schema, view)| format!("{schema}.{}", view.name)).collect();
        missing("relation", name, others.iter().map(String::as_str))
    }

    fn system_table(&self, schema: &str, table: &str) -> Option<Arc<dyn TableSource>> {
        let arrow = self.system.schema_of(schema, table)?;
        Some(Arc::new(TidemarkTable::plain(ScanTarget::System(format!("{schema}.{table}")), table, arrow)))
    }

    fn object(&self, object: &Object) -> PlanResult<Arc<dyn TableSource>> {
        self.reads.add([object.id]);
        self.names.add([object.id]);
        match &object.body {
            Body::Aggregate(_) => {
                let message = format!("\"{}\" is an aggregate, and no relation", object.name);
                Err(PlanError::new(sqlstate::WRONG_OBJECT_TYPE, message))
            }
            Body::Table(relation) if relation.files().is_some() => {
                Ok(source(ScanTarget::Files(object.id), object, relation.schema(), None))
            }
            Body::Source(relation) | Body::Table(relation) => {
                let steps = relation_steps(object);
                Ok(source(ScanTarget::Relation(object.id), object, relation.schema(), steps))
            }
            Body::FeatureView(view) if self.defining => {
                let plan = written_out(self.written(object, &view.query)?, object, view)?;
                Ok(Arc::new(ViewSource { schema: Arc::new(plan.schema().as_arrow().clone()), plan }))
            }
            Body::FeatureView(_) => self.current_rows(object, false),
            Body::TrainingSet(set) => Ok(source(ScanTarget::Relation(set.rows), object, object.schema(), None)),
            Body::View(view) => {
                let plan = self.written(object, &view.query)?;
                // A definition is shown to nobody.
                let columns = if self.defining { columns_of(&plan) } else { shown::held(&plan, object.columns()) };
                let plan = renamed(plan, columns, object)?;
                Ok(Arc::new(ViewSource { schema: object.schema(), plan }))
            }
        }
    }

    /// The rows of a feature view, with the columns of `status` or without.
    fn current_rows(&self, object: &Object, with_status: bool) -> PlanResult<Arc<dyn TableSource>> {
        let plan = feature::plan_definition(object, self.snapshot)?;
        let mut steps = view_steps(object, &plan);
        let mut schema = object.schema();
        let mut defaults = object.feature_view().map_or(Ok(vec![]), defaults::of)?;
        if with_status {
            let name = status::STATUS_COLUMN.to_string();
            schema = table::with_status(&schema);
            defaults.push((name.clone(), defaults::of_status()));
            // A step that is found says that there is a row.
            steps.continuous.push(ContinuousColumn { name, ty: DataType::Utf8, expr: lit(status::PRESENT) });
        }
        let (target, name) = (ScanTarget::CurrentRows(object.id), object.name.clone());
        let shown = shown::declared(object.columns());
        Ok(Arc::new(TidemarkTable { target, name, schema, steps: Some(Arc::new(steps)), defaults, shown }))
    }

    /// The query of a view, bound.
    fn written(&self, object: &Object, query: &str) -> PlanResult<LogicalPlan> {
        if self.depth >= VIEW_DEPTH_MAX {
            return Err(PlanError::new("54001", format!("view \"{}\" is nested too deeply", object.name)));
        }
        let parsed = crate::parse::parse(query)?;
        let Some(crate::Statement::Query(query)) = parsed.first().map(|p| &p.statement) else {
            return Err(PlanError::new(sqlstate::INTERNAL, format!("view \"{}\" has no query", object.name)));
        };
        // Whoever reads the view says which instant its now() is.
        let within = self.snapshot.within(object);
        let inner = Binder::nested(&within, self.state, self.system, self.now_us, self.depth + 1);
        let inner = if self.defining { inner.defining() } else { inner.keeping_now() };
        let bound = inner.query(query, &[])?;
        self.reads.add(bound.reads.iter().copied());
        Ok(bound.plan)
    }
}

/// What a reference names: an object, or with a first part that no statement has ([`ROWS_SCHEMA`], [`status::SCHEMA`]) something
/// else of one.
fn named(reference: &TableReference) -> PlanResult<(Option<&'static str>, NameRef<'_>)> {
    let marker = |part: &str| [ROWS_SCHEMA, status::SCHEMA].into_iter().find(|marker| *marker == part);
    match reference {
        TableReference::Bare { table } => Ok((None, NameRef { schema: None, name: table })),
        TableReference::Partial { schema, table } => Ok(match marker(schema) {
            Some(marker) => (Some(marker), NameRef { schema: None, name: table }),
            None => (None, NameRef { schema: Some(schema), name: table }),
        }),
        TableReference::Full { catalog, schema, table } => {
            let name = NameRef { schema: Some(schema), name: table };
            match (marker(catalog), &**catalog) {
                (Some(marker), _) => Ok((Some(marker), name)),
                (None, "tidemark") => Ok((None, name)),
                (None, _) => Err(PlanError::unsupported(format!(
                    "cross-database references are not implemented: \"{catalog}.{name}\""
                ))),
            }
        }
    }
}

fn source(
    target: ScanTarget,
    object: &Object,
    schema: SchemaRef,
    steps: Option<Arc<StepsTable>>,
) -> Arc<dyn TableSource> {
    let shown = shown::declared(object.columns());
    Arc::new(TidemarkTable { steps, shown, ..TidemarkTable::plain(target, &object.name, schema) })
}

/// The columns of a table, and the place of each row before them.
pub fn placed_schema(schema: &SchemaRef) -> SchemaRef {
    let row = Arc::new(Field::new(ROW_COLUMN, DataType::UInt64, false));
    Arc::new(Schema::new(std::iter::once(row).chain(schema.fields().iter().cloned()).collect::<Vec<_>>()))
}

fn is_feature_view(object: &Object) -> bool {
    object.feature_view().is_some()
}

/// What `history.<view>` shows: the columns as stored, and the three hidden ones.
pub fn history_schema(plan: &FeaturePlan) -> SchemaRef {
    let mut fields: Vec<Field> = stored_fields(plan);
    fields.push(Field::new(table::OP_COLUMN, DataType::Utf8, false));
    fields.push(Field::new(table::EVENT_TIME_COLUMN, table::instant_type(), true));
    fields.push(Field::new(RECORDED_AT_COLUMN, table::instant_type(), false));
    Arc::new(Schema::new(fields))
}

/// The view's columns as history keeps them: in the view's order without the time-continuous ones, then the base
/// columns of those.
pub fn stored_fields(plan: &FeaturePlan) -> Vec<Field> {
    let mut fields = vec![];
    for output in &plan.outputs {
        match output.kind {
            OutputKind::TimeContinuous { .. } => {}
            OutputKind::Key(_) | OutputKind::Time => fields.push(Field::new(&output.name, output.ty.clone(), false)),
            _ => fields.push(Field::new(&output.name, output.ty.clone(), true)),
        }
    }
    for (name, slot) in plan.base_columns() {
        fields.push(Field::new(name, plan.slots[slot].ty().clone(), true));
    }
    fields
}

/// The steps side of a feature view.
pub fn view_steps(object: &Object, plan: &FeaturePlan) -> StepsTable {
    let bases = plan.base_columns();
    let continuous = plan
        .outputs
        .iter()
        .filter_map(|output| match &output.kind {
            OutputKind::TimeContinuous { expr, .. } => Some(ContinuousColumn {
                name: output.name.clone(),
                ty: output.ty.clone(),
                expr: feature::rename_slots(expr, &|slot| {
                    bases.iter().find(|(_, s)| *s == slot).map(|(name, _)| name.clone())
                }),
            }),
            _ => None,
        })
        .collect();
    StepsTable {
        target: ScanTarget::Steps(object.id),
        schema: table::steps_schema(stored_fields(plan)),
        time: plan.outputs[plan.time_output()].name.clone(),
        key: plan.key_outputs().into_iter().map(|i| plan.outputs[i].name.clone()).collect(),
        continuous,
    }
}

/// The versions of a changelog table; `None` for relations without a primary key or an own time.
fn relation_steps(object: &Object) -> Option<Arc<StepsTable>> {
    let relation = object.relation()?;
    let time = relation.event_time?;
    if relation.primary_key.is_empty() {
        return None;
    }
    Some(Arc::new(StepsTable {
        target: ScanTarget::Steps(object.id),
        schema: table::steps_schema(relation.columns.iter().map(|c| c.field())),
        time: relation.columns[time].name.clone(),
        key: relation.primary_key.iter().map(|i| relation.columns[*i].name.clone()).collect(),
        continuous: vec![],
    }))
}

/// A feature view's query under the names of its columns. Where it does not select the time column, that is added if it can be: it
/// is not there beside what GROUP BY makes.
fn written_out(plan: LogicalPlan, object: &Object, view: &FeatureView) -> PlanResult<LogicalPlan> {
    let LogicalPlan::Projection(projection) = &plan else { return rename_columns(plan, object) };
    let time = &object.columns()[view.time].name;
    let selected = projection.expr.len();
    let below = projection.input.schema().qualified_fields_with_unqualified_name(time);
    match (selected < object.columns().len(), below.as_slice()) {
        (true, [(qualifier, field)]) => {
            let exprs = projection.expr.iter().cloned();
            let exprs: Vec<Expr> = exprs.chain([Expr::Column(Column::from((*qualifier, *field)))]).collect();
            let input = projection.input.as_ref().clone();
            rename_columns(LogicalPlanBuilder::from(input).project(exprs)?.build()?, object)
        }
        _ => rename_columns(plan, object),
    }
}

/// Gives the plan of a view's query the names its definition has, unqualified.
fn rename_columns(plan: LogicalPlan, object: &Object) -> PlanResult<LogicalPlan> {
    let columns = columns_of(&plan);
    renamed(plan, columns, object)
}

fn columns_of(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

fn renamed(plan: LogicalPlan, columns: Vec<Expr>, object: &Object) -> PlanResult<LogicalPlan> {
    let wanted = columns.into_iter().zip(object.columns());
    let exprs = wanted.map(|(column, wanted)| column.alias(&wanted.name)).collect::<Vec<_>>();
    Ok(LogicalPlanBuilder::from(plan).project(exprs)?.build()?)
}

#[derive(Debug)]
struct ViewSource {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

/// `v FOR SYSTEM_TIME AS OF t`.
#[derive(Debug)]
struct SystemTimePlanner {
    snapshot: Snapshot,
    now_us: i64,
    /// Of the session.
    zone: Arc<str>,
}

impl RelationPlanner for SystemTimePlanner {
    fn plan_relation(
        &self,
        relation: ast::TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DfResult<RelationPlanning> {
        let ast::TableFactor::Table { name, alias, version: Some(version), .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let ast::TableVersion::ForSystemTimeAsOf(at) = version else {
            return Err(PlanError::unsupported(format!("this form of table version on \"{name}\""))
                .hint("write FOR SYSTEM_TIME AS OF timestamptz '…'")
                .into());
        };
        let reference = context.object_name_to_table_reference(name.clone())?;
        let (marker, name) = named(&reference)?;
        let object = self.snapshot.get(name).filter(|_| marker != Some(ROWS_SCHEMA));
        let Some(object) = object else {
            return Err(missing_object(&self.snapshot, "relation", name, |_| true).into());
        };
        if !matches!(object.body, Body::FeatureView(_) | Body::View(_)) {
            return Err(no_history(&format!(
                "{} \"{}\" has no history to read AS OF a time",
                object.kind(),
                object.name
            ))
            .into());
        }
        // Binding the name as usual records the read and finds the definition.
        let current = context.context_provider().get_table_source(reference.clone())?;
        let expr = context.sql_to_expr(at.clone(), &DFSchema::empty())?;
        let at_us = instant(expr, &self.zone, self.now_us, &object.name)?;
        let plan = match current.get_logical_plan() {
            Some(view) => {
                let view = view_as_of(view.into_owned(), &object.name, at_us)?;
                LogicalPlanBuilder::from(view).alias(reference)?
            }
            None => {
                let table = TidemarkTable::of(&current).and_then(|table| table.as_of(at_us));
                let table = table.ok_or_else(|| internal_datafusion_err!("\"{}\" has no past", object.name))?;
                LogicalPlanBuilder::scan(reference, Arc::new(table), None)?
            }
        };
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan.build()?, alias.clone()))))
    }
}

fn no_history(message: &str) -> PlanError {
    PlanError::new(sqlstate::WRONG_OBJECT_TYPE, message)
        .hint("FOR SYSTEM_TIME AS OF reads feature views, and views over nothing else")
}

/// A view as of an instant: all that it reads, and its `now()`.
fn view_as_of(plan: LogicalPlan, view: &str, at_us: i64) -> PlanResult<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let mut clock = None;
        node.apply_expressions(|expr| {
            clock = clock.take().or_else(|| feature::clock_function(expr));
            Ok(TreeNodeRecursion::Continue)
        })?;
        if let Some(function) = clock {
            let message = format!("view \"{view}\" calls {function}(), which cannot be evaluated AS OF a time");
            return Err(PlanError::unsupported(message).hint("now() can").into());
        }
        let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
        let Some(table) = TidemarkTable::of(&scan.source).and_then(|table| table.as_of(at_us)) else {
            let message = format!("view \"{view}\" reads \"{}\", which cannot be read AS OF a time", scan.table_name);
            return Err(no_history(&message).into());
        };
        scan.source = Arc::new(table);
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    })?;
    at_instant(plan.data, at_us)
}

fn session_zone(state: &SessionState) -> &str {
    state.config().options().execution.time_zone.as_deref().unwrap_or(tidemark_catalog::UTC)
}

/// A constant as an instant, microseconds.
fn instant(expr: Expr, zone: &str, now_us: i64, name: &str) -> PlanResult<i64> {
    // A number would be taken for microseconds since 1970.
    let is_time = !expr.get_type(&DFSchema::empty())?.is_numeric();
    let is_infinity = is_infinity(&expr);
    let instant = constant_in_zone(cast(expr, table::instant_type()), zone, now_us);
    match instant.and_then(|expr| evaluate_constant(expr, now_us)) {
        Ok(ScalarValue::TimestampMicrosecond(Some(i64::MAX | i64::MIN), _)) if is_time => Err(infinite(name)),
        Ok(ScalarValue::TimestampMicrosecond(Some(us), _)) if is_time => Ok(us),
        _ if is_infinity => Err(infinite(name)),
        _ => Err(PlanError::new(
            sqlstate::DATATYPE_MISMATCH,
            format!("the time for \"{name}\" is not a timestamp with time zone"),
        )
        .hint("write timestamptz '2026-11-01 00:00:00+00'")),
    }
}

/// `'infinity'` and the like, also behind casts: a text that is no time to those who read it here.
fn is_infinity(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => is_infinity(&cast.expr),
        Expr::Literal(value, _) => {
            let text = value.try_as_str().flatten().unwrap_or_default().trim();
            let text = text.strip_prefix(['+', '-']).unwrap_or(text);
            ["infinity", "inf"].iter().any(|word| text.eq_ignore_ascii_case(word))
        }
        _ => false,
    }
}

fn infinite(name: &str) -> PlanError {
    let message = format!("timestamp out of range: the time for \"{name}\" is infinite");
    PlanError::new(sqlstate::DATETIME_OUT_OF_RANGE, message).hint(
        "write a time of the years 1 to 9999; FOR SYSTEM_TIME AS OF reads from the view's history_start, which is in \
         tidemark.feature_views, to now()",
    )
}

fn literal_instant(now_us: i64) -> Expr {
    Expr::Literal(ScalarValue::TimestampMicrosecond(Some(now_us), Some(tidemark_catalog::UTC.into())), None)
}

/// The expression with `now()`, and what a clock on the wall shows then, at one instant.
fn read_clocks(expr: Expr, now_us: i64) -> DfResult<Transformed<Expr>> {
    expr.transform(|e| {
        Ok(match clock::shown_by(&e) {
            Some(ty) => Transformed::yes(cast(literal_instant(now_us), ty)),
            None if feature::is_now(&e) => Transformed::yes(literal_instant(now_us)),
            None => Transformed::no(e),
        })
    })
}

/// A constant to be evaluated, with its clocks read and its times in `zone`.
fn constant_in_zone(expr: Expr, zone: &str, now_us: i64) -> PlanResult<Expr> {
    let schema = Arc::new(DFSchema::empty());
    let expr = constants(&schema).coerce(read_clocks(expr, now_us)?.data, &schema)?;
    Ok(crate::zone::expression_in_zone(expr, &schema, zone)?.data)
}

/// What evaluates constants.
fn constants(schema: &Arc<DFSchema>) -> ExprSimplifier {
    ExprSimplifier::new(SimplifyContext::builder().with_schema(schema.clone()).build())
}

/// The plan with every clock read at one instant, also inside subqueries; columns keep their names.
fn at_instant(plan: LogicalPlan, now_us: i64) -> PlanResult<LogicalPlan> {
    Ok(each_expression(plan, |expr, _| read_clocks(expr, now_us))?)
}

/// Evaluates an expression without columns, with `now()` as given.
pub fn evaluate_constant(expr: Expr, now_us: i64) -> PlanResult<ScalarValue> {
    let expr = read_clocks(expr, now_us)?.data;
    let schema = Arc::new(DFSchema::empty());
    let simplifier = constants(&schema);
    let expr = crate::functions::rounded::rounded(simplifier.coerce(expr, &schema)?, &schema)?.data;
    let expr = crate::functions::vector::read_casts(expr, &schema)?.data;
    let expr = crate::value_text::written(expr, &schema)?.data;
    let expr = crate::functions::checked::checked(expr, &schema)?.data;
    let expr = simplifier.simplify(expr)?;
    match expr {
        Expr::Literal(value, _) => Ok(value),
        other => Err(PlanError::new(sqlstate::INVALID_PARAMETER, format!("{other} is not a constant"))
            .hint("only literals, casts of them and now() can stand here")),
    }
}

/// The column that time-continuous expressions read.
pub fn now_column() -> Expr {
    Expr::Column(Column::new_unqualified(NOW_COLUMN))
}

impl ContextProvider for Binder<'_> {
    fn get_table_source(&self, name: TableReference) -> DfResult<Arc<dyn TableSource>> {
        self.table(&name).map_err(DataFusionError::from)
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> DfResult<Arc<dyn TableSource>> {
        if name != GENERATE_SERIES {
            let message = format!("function {name}() in FROM does not exist");
            return Err(PlanError::new(sqlstate::UNDEFINED_FUNCTION, message)
                .hint("generate_series is the one function that makes rows")
                .into());
        }
        let zone = session_zone(self.state);
        let in_zone = |arg| constant_in_zone(arg, zone, self.now_us);
        let args = args.into_iter().map(in_zone).collect::<PlanResult<Vec<_>>>()?;
        let constant = |expr| evaluate_constant(expr, self.now_us);
        let plan = generate_series(&args, zone, self.state, &constant)?;
        Ok(Arc::new(ViewSource { schema: Arc::new(plan.schema().as_arrow().clone()), plan }))
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> DfResult<Arc<dyn TableSource>> {
        let table = datafusion::datasource::cte_worktable::CteWorkTable::new(name, schema);
        Ok(datafusion::datasource::provider_as_source(Arc::new(table)))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(crate::functions::type_planner())
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        State::scalar_functions(self.state).get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        self.state.scalar_functions().keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.state.aggregate_functions().keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.state.window_functions().keys().cloned().collect()
    }
}
