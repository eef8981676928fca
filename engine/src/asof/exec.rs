//! The physical operator: one left side, and as many right sides as are joined to it.
//!
//! Distribution: the left side comes as one partition and its order is the output's; every right side comes in as many
//! partitions as it likes. The right sides are opened when the labels are known, with a filter of what these can use
//! (`prune.rs`); how it runs is in `run.rs`.

use super::counts::{Counts, Matches, suffix};
use super::known::Known;
use super::labels::LeftSide;
use super::late::{self, Late};
use super::memory::Memory;
use super::prune;
use super::run::{self, Join, Run};
use arrow::datatypes::{Field, Fields, Schema, SchemaRef};
use datafusion::common::internal_err;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::{DynamicFilterPhysicalExpr, lit};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, Partitioning};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, ChildPushdownResult, FilterDescription, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::metrics::{
    BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, SpillMetrics,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PhysicalExpr, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use tidemark_planner::asof::{AsofKind, AsofOp, Tolerance};

type Expr = Arc<dyn PhysicalExpr>;

/// A join's condition over the columns of its two inputs; see `AsofNode` for the meaning.
#[derive(Debug, Clone)]
pub struct Condition {
    pub kind: AsofKind,
    pub op: AsofOp,
    pub left: LeftSide,
    pub right_keys: Vec<Expr>,
    pub right_time: Expr,
    pub ties: Vec<Expr>,
    pub tolerance: Option<Tolerance>,
    pub base: Option<Expr>,
    pub operation: Option<Expr>,
    /// The relation on the right, for people.
    pub right: String,
    /// `None`: the right side says nothing of any instant beyond its rows.
    pub known: Option<Known>,
    pub late: Late,
}

/// One right side.
#[derive(Debug, Clone)]
pub struct Right {
    pub plan: Arc<dyn ExecutionPlan>,
    pub condition: Arc<Condition>,
    /// What its scan was told to ask for, when the labels are known.
    filter: Option<Arc<DynamicFilterPhysicalExpr>>,
    /// Its scan asks that filter before it decodes any other column.
    is_late: bool,
}

impl Right {
    pub fn new(plan: Arc<dyn ExecutionPlan>, condition: Condition) -> Right {
        Right { plan, condition: Arc::new(condition), filter: None, is_late: false }
    }
}

#[derive(Debug)]
pub struct AsofJoinExec {
    left: Arc<dyn ExecutionPlan>,
    /// All but the last are LEFT joins: every label goes to each of them.
    rights: Vec<Right>,
    /// The columns after each of them.
    schemas: Vec<SchemaRef>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl AsofJoinExec {
    pub fn try_new(left: Arc<dyn ExecutionPlan>, rights: Vec<Right>) -> Result<Self> {
        let mut schemas: Vec<SchemaRef> = vec![];
        for right in &rights {
            let before = schemas.last().cloned().unwrap_or_else(|| left.schema());
            schemas.push(output_schema(&before, &right.plan.schema(), right.condition.kind));
        }
        let Some(schema) = schemas.last().cloned() else { return internal_err!("an ASOF JOIN without a right side") };
        // The left columns come first and their rows stay in order.
        let orderings = left.equivalence_properties().oeq_class().iter().cloned();
        let equivalences = EquivalenceProperties::new_with_orderings(schema, orderings);
        let properties = PlanProperties::new(
            equivalences,
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let (properties, metrics) = (Arc::new(properties), ExecutionPlanMetricsSet::new());
        Ok(AsofJoinExec { left, rights, schemas, properties, metrics })
    }

    pub fn left(&self) -> &Arc<dyn ExecutionPlan> {
        &self.left
    }

    pub fn rights(&self) -> &[Right] {
        &self.rights
    }

    /// Of each of its joins, the first of the query first; over all executions.
    pub fn matches(&self) -> Vec<Matches> {
        let metrics = self.metrics.clone_inner();
        let rights = self.rights.iter().enumerate();
        rights.map(|(at, right)| Matches::of(&metrics, &right.condition, &self.suffix(at))).collect()
    }

    fn suffix(&self, at: usize) -> String {
        suffix(at, self.rights.len(), &self.rights[at].condition)
    }

    fn joins(&self) -> impl Iterator<Item = Arc<Join>> {
        self.rights.iter().enumerate().map(|(at, right)| {
            let left = if at == 0 { self.left.schema() } else { self.schemas[at - 1].clone() };
            Arc::new(Join {
                plan: right.plan.clone(),
                condition: right.condition.clone(),
                filter: right.filter.clone(),
                is_late: right.is_late,
                counts: Counts::new(&self.metrics, &right.condition, &right.plan.schema(), &self.suffix(at)),
                left,
                schema: self.schemas[at].clone(),
            })
        })
    }
}

fn output_schema(left: &Schema, right: &Schema, kind: AsofKind) -> SchemaRef {
    let nullable = |field: &Arc<Field>| match kind {
        AsofKind::Inner => field.clone(),
        AsofKind::Left => Arc::new(field.as_ref().clone().with_nullable(true)),
    };
    let fields: Fields = left.fields().iter().cloned().chain(right.fields().iter().map(nullable)).collect();
    let mut metadata = right.metadata().clone();
    metadata.extend(left.metadata().clone());
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

/// Whether only so many rows of something are read: left out by a filter, they would make room for others.
fn is_limited(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.fetch().is_some() || plan.children().into_iter().any(is_limited)
}

impl DisplayAs for AsofJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsofJoinExec: ")?;
        for (at, right) in self.rights.iter().enumerate() {
            let c = &right.condition;
            write!(f, "{}{:?}", if at == 0 { "" } else { "; " }, c.kind)?;
            for (left, right) in c.left.keys.iter().zip(&c.right_keys) {
                write!(f, ", {left} = {right}")?;
            }
            write!(f, ", {} {} {}", c.left.time, c.op, c.right_time)?;
            if let Some(tolerance) = c.tolerance {
                write!(f, ", within {}{}", if tolerance.strict { "<" } else { "<=" }, tolerance.span)?;
            }
        }
        write!(f, ", strategy=labels as state")?;
        let late = self.rights.iter().filter(|right| right.is_late).map(|right| right.condition.right.as_str());
        let late: Vec<&str> = late.collect();
        if late.is_empty() { Ok(()) } else { write!(f, ", features read late={}", late.join(", ")) }
    }
}

impl ExecutionPlan for AsofJoinExec {
    fn name(&self) -> &str {
        "AsofJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        [&self.left].into_iter().chain(self.rights.iter().map(|right| &right.plan)).collect()
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        let rights = self.rights.iter().map(|_| Distribution::UnspecifiedDistribution);
        [Distribution::SinglePartition].into_iter().chain(rights).collect()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        [true].into_iter().chain(self.rights.iter().map(|_| false)).collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let mut children = children.into_iter();
        let Some(left) = children.next() else { return internal_err!("an ASOF JOIN without a left side") };
        if children.len() != self.rights.len() {
            return internal_err!("an ASOF JOIN of {} right sides has {}", self.rights.len(), children.len());
        }
        let rights = self.rights.iter().zip(children).map(|(right, plan)| Right { plan, ..right.clone() }).collect();
        Ok(Arc::new(AsofJoinExec::try_new(left, rights)?))
    }

    /// Filters of others stay above: the optimizer of logical plans has put those below that may go there. Its own go to
    /// the right sides.
    fn gather_filters_for_pushdown(
        &self,
        phase: FilterPushdownPhase,
        parent_filters: Vec<Expr>,
        config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let none = || ChildFilterDescription::all_unsupported(&parent_filters);
        let mut description = FilterDescription::new().with_child(none());
        let asks = phase == FilterPushdownPhase::Post && config.optimizer.enable_join_dynamic_filter_pushdown;
        for right in &self.rights {
            let columns = prune::columns(&right.condition);
            let child = match asks && !columns.is_empty() && !is_limited(&right.plan) {
                true => none().with_self_filter(Arc::new(DynamicFilterPhysicalExpr::new(columns, lit(true)))),
                false => none(),
            };
            description = description.with_child(child);
        }
        Ok(description)
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        child_pushdown_result: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let own = child_pushdown_result.self_filters.iter().skip(1);
        let own: Vec<Option<Arc<DynamicFilterPhysicalExpr>>> = own
            .map(|filters| {
                let filter: Arc<dyn Any + Send + Sync> = filters.first()?.predicate.clone();
                filter.downcast().ok()
            })
            .collect();
        let result = FilterPushdownPropagation::if_all(child_pushdown_result);
        if own.iter().all(Option::is_none) {
            return Ok(result);
        }
        let rights = self.rights.iter().zip(own);
        let rights = rights
            .map(|(right, own)| {
                let plan = match &own {
                    Some(own) if late::pays(&self.left, &right.plan, &right.condition) => {
                        late::reading_late(&right.plan, own)?
                    }
                    _ => None,
                };
                let is_late = right.is_late || plan.is_some();
                let plan = plan.unwrap_or_else(|| right.plan.clone());
                Ok(Right { plan, filter: own.or(right.filter.clone()), is_late, ..right.clone() })
            })
            .collect::<Result<Vec<_>>>()?;
        let asks: Arc<dyn ExecutionPlan> = Arc::new(AsofJoinExec::try_new(self.left.clone(), rights)?);
        Ok(result.with_updated_node(asks))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let inputs = self.left.output_partitioning().partition_count();
        if partition != 0 || inputs != 1 {
            return internal_err!("an ASOF JOIN reads one left partition and writes one, found {inputs}");
        }
        let left = self.left.execute(0, context.clone())?;
        let gauge = |name: &'static str| MetricBuilder::new(&self.metrics).gauge(name, 0);
        let baseline = BaselineMetrics::new(&self.metrics, 0);
        let run = Arc::new(Run {
            batch_size: context.session_config().batch_size().max(1),
            memory: Memory::register(context.memory_pool(), gauge("peak_memory")),
            labels: gauge("labels"),
            labels_memory: gauge("labels_memory"),
            spills: SpillMetrics::new(&self.metrics, 0),
            compute: baseline.elapsed_compute().clone(),
            context,
        });
        let stream = futures::stream::once(run::join(run, left, self.joins().collect())).try_flatten();
        let stream = stream.inspect_ok(move |batch| baseline.output_rows().add(batch.num_rows()));
        Ok(Box::pin(cooperative(RecordBatchStreamAdapter::new(self.schema(), stream.boxed()))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
