//! A catalog for statements to be planned over.

use crate::system::catalog;
use datafusion::{execution::SessionState, logical_expr::LogicalPlan, sql::sqlparser::ast};
use std::sync::{Arc, LazyLock, OnceLock};
use tidemark_catalog::{
    Body, Change, ClockMode, Column, FeatureView, Object, ObjectId, Relation, Snapshot, SqlType, View,
};
use tidemark_planner::{
    PlanResult, Statement,
    bind::Binder,
    composed,
    error::sqlstate::FEATURE_NOT_SUPPORTED,
    feature::{FeaturePlan, plan_feature_view, retention},
    lookup::{self, fingerprint::Fingerprint},
    names,
    parse::parse,
    probes::probes_sql,
    statement::{CopySource, CreateFeatureView, CreateRelation, Parsed, ResetTo},
};
use tidemark_server::system::{self, SystemTablesOf};

pub struct World {
    snapshot: Arc<Snapshot>,
    /// Made when the first query is bound.
    tables: OnceLock<SystemTablesOf>,
    state: Arc<SessionState>,
}

impl World {
    /// A session's functions are the same over any catalog, and take long to put together.
    fn of(snapshot: Snapshot) -> World {
        static STATE: LazyLock<Arc<SessionState>> =
            LazyLock::new(|| Arc::new(catalog::state(&catalog::tables(Arc::new(Snapshot::default())))));
        World { snapshot: Arc::new(snapshot), tables: OnceLock::new(), state: STATE.clone() }
    }

    /// What the tests of the system's tables browse.
    pub fn browsed() -> World {
        World::of(catalog::snapshot())
    }

    /// What these statements leave, those that can be planned.
    pub fn created_by(statements: &[String]) -> World {
        let mut world = World::of(Snapshot::default());
        for (number, sql) in statements.iter().enumerate() {
            for parsed in parse(sql).unwrap_or_default() {
                if let Ok(Some((name, body))) = world.created(&parsed) {
                    let id = ObjectId(ObjectId::FIRST.0 + number as u32);
                    let object = Object { id, name, created_us: 0, comment: None, place: Default::default(), body };
                    world = World::of(world.snapshot.apply(&[Change::Put(object)]));
                }
            }
        }
        world
    }

    fn created(&self, parsed: &Parsed) -> PlanResult<Option<(String, Body)>> {
        let column = |name: String, ty: SqlType| Column { name, ty, not_null: false, comment: None };
        Ok(Some(match &parsed.statement {
            Statement::CreateRelation(create) => (create.name.name.clone(), Body::Source(relation(create))),
            Statement::CreateView { name, query, query_text, .. } => {
                let (plan, reads) = self.bind(query)?;
                let fields = plan.schema().fields().iter();
                let named = |field: &Arc<arrow::datatypes::Field>| {
                    Some(column(names::shown(field.name()).to_string(), SqlType::from_arrow(field.data_type())?))
                };
                let columns = fields.filter_map(named).collect();
                let view = View { sql: parsed.text.clone(), query: query_text.clone(), columns, reads };
                (name.name.clone(), Body::View(view))
            }
            Statement::CreateFeatureView(create) => {
                let plan = self.feature_view(create)?;
                let fields = plan.outputs.iter();
                let columns = fields
                    .filter_map(|output| Some(column(output.name.clone(), SqlType::from_arrow(&output.ty)?)))
                    .collect();
                let view = FeatureView {
                    sql: parsed.text.clone(),
                    query: create.query_text.clone(),
                    relation: plan.relations()[0],
                    others: plan.relations()[1..].to_vec(),
                    through: plan.through.clone(),
                    columns,
                    key: plan.key_outputs(),
                    time: plan.time_output(),
                    features: vec![],
                    ttl_us: plan.ttl_us,
                    time_zone: "UTC".into(),
                    owner: None,
                    tags: vec![],
                    options: create.options.clone(),
                    version: 1,
                    history_start_us: None,
                };
                (create.name.name.clone(), Body::FeatureView(view))
            }
            Statement::CreateAggregate(create) => {
                let (aggregate, _) = composed::define(create, &parsed.text, &self.snapshot, &self.state)?;
                (create.name.name.clone(), Body::Aggregate(aggregate))
            }
            _ => return Ok(None),
        }))
    }

    /// Everything that is done with a text before anything is read or changed; how much came out, in nodes of plans.
    pub fn plan(&self, sql: &str) -> PlanResult<usize> {
        let _ = Fingerprint::of(sql);
        let mut nodes = 0;
        let mut first = None;
        for parsed in parse(sql)? {
            match self.statement(&parsed.statement, &parsed.text) {
                Ok(more) => nodes += more,
                Err(error) => first = first.or(Some(error)),
            }
        }
        first.map_or(Ok(nodes), Err)
    }

    fn statement(&self, statement: &Statement, text: &str) -> PlanResult<usize> {
        match statement {
            Statement::Query(query) => {
                let _ = lookup::recognise(query, &self.snapshot);
                self.bind(query).map(|(plan, _)| size(&plan))
            }
            Statement::CreateView { query, .. } | Statement::CreateTableAs { query, .. } => {
                self.bind(query).map(|(plan, _)| size(&plan))
            }
            Statement::CreateTrainingSet(create) => self.bind(&create.query).map(|(plan, _)| size(&plan)),
            Statement::Insert(insert) => self.bind(&insert.query).map(|(plan, _)| size(&plan)),
            Statement::CopyTo { source: CopySource::Query { query, .. }, .. } => {
                self.bind(query).map(|(plan, _)| size(&plan))
            }
            Statement::CreateFeatureView(create) | Statement::ExplainFeatureView { create, .. } => {
                let plan = self.feature_view(create)?;
                for relation in plan.relations().into_iter().filter_map(|id| self.snapshot.get_id(id)) {
                    retention::check_view(&create.name.name, &plan, relation)?;
                }
                // What PostgreSQL has no counterpart of is refused, and nothing else.
                match probes_sql(&plan, &create.name.name) {
                    Err(error) if error.sqlstate != FEATURE_NOT_SUPPORTED => return Err(error),
                    _ => {}
                }
                Ok(plan.outputs.len() + plan.slots.len() + plan.inputs.len())
            }
            Statement::CreateAggregate(create) => composed::define(create, text, &self.snapshot, &self.state)
                .map(|(aggregate, _)| aggregate.parameters.len()),
            Statement::AdvanceWatermark { to, name, .. }
            | Statement::ResetTopic { to: ResetTo::Instant(to), name, .. } => {
                self.binder().instant(to, 0, &name.to_string()).map(|_| 1)
            }
            Statement::Execute { parameters, .. } => {
                parameters.iter().try_for_each(|parameter| self.binder().constant(parameter, 0).map(|_| ()))?;
                Ok(parameters.len())
            }
            Statement::Prepare { statement, .. } => self.statement(&statement.statement, &statement.text),
            Statement::Explain { statement, .. } => self.statement(statement, text),
            _ => Ok(0),
        }
    }

    fn binder(&self) -> Binder<'_> {
        Binder::new(&self.snapshot, &self.state, self.tables.get_or_init(|| catalog::tables(self.snapshot.clone())), 0)
    }

    /// As a session binds a query.
    fn bind(&self, query: &ast::Query) -> PlanResult<(LogicalPlan, Vec<ObjectId>)> {
        let mut query = query.clone();
        names::name_columns(&mut query);
        system::rewrite(&mut query);
        let bound = self.binder().query(&query, &[])?;
        let plan = self.state.analyzer().execute_and_check(bound.plan, self.state.config_options(), |_, _| {})?;
        Ok((plan, bound.reads))
    }

    fn feature_view(&self, create: &CreateFeatureView) -> PlanResult<FeaturePlan> {
        plan_feature_view(&create.name.name, &create.query, &create.options, &self.snapshot, "Europe/Zurich")
    }
}

fn relation(create: &CreateRelation) -> Relation {
    let at = |name: &str| create.columns.iter().position(|column| column.name == name);
    let columns = create.columns.iter();
    Relation {
        columns: columns
            .map(|c| Column { name: c.name.clone(), ty: c.ty.clone(), not_null: c.not_null, comment: None })
            .collect(),
        primary_key: create.primary_key.iter().filter_map(|name| at(name)).collect(),
        upsert: create.upsert,
        encode: create.encode,
        event_time: create.watermark.as_ref().and_then(|(name, _)| at(name)),
        delay_us: 0,
        clock: ClockMode::Event,
        max_ahead_us: 0,
        idle_timeout_us: 0,
        retention_us: None,
        dead_letter_retention_us: None,
        options: Default::default(),
        includes: vec![],
        layout: Default::default(),
        sql: String::new(),
    }
}

/// The nodes and expressions of a plan.
fn size(plan: &LogicalPlan) -> usize {
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    let mut count = 0;
    let _ = plan.apply_with_subqueries(|node| {
        count += 1;
        node.apply_expressions(|expr| {
            expr.apply(|_| {
                count += 1;
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    count
}
