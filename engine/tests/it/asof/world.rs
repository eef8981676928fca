//! Tables and a planner around them: SQL text in, rows as text out.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::TableReference;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryPool, MemoryReservation};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::{ContextProvider, ExprPlanner, RelationPlanner};
use datafusion::logical_expr::{AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::SqlToRel;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tidemark_engine::asof::install;
use tidemark_engine::scan::bind_scans;
use tidemark_planner::PlanError;
use tidemark_planner::asof::{mark_asof_tokens, nest_asof};
use tidemark_planner::table::{ScanTarget, StepsTable, TidemarkTable};

pub struct World {
    pub state: SessionState,
    tables: HashMap<String, Arc<TidemarkTable>>,
    data: HashMap<ScanTarget, Arc<dyn TableProvider>>,
}

pub fn parse(sql: &str) -> Result<Box<ast::Query>> {
    let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize_with_location()
        .map_err(|e| DataFusionError::Plan(e.to_string()))?;
    mark_asof_tokens(&mut tokens)?;
    let mut parser = Parser::new(&PostgreSqlDialect {}).with_tokens_with_locations(tokens);
    let mut query = parser.parse_query().map_err(|e| DataFusionError::Plan(format!("{sql}: {e}")))?;
    nest_asof(&mut query)?;
    Ok(query)
}

impl World {
    pub fn new(partitions: usize, batch_size: usize) -> Self {
        World::configured(SessionConfig::new().with_target_partitions(partitions).with_batch_size(batch_size))
    }

    pub fn configured(config: SessionConfig) -> Self {
        let state = install(SessionStateBuilder::new().with_default_features().with_config(config)).build();
        World { state, tables: HashMap::new(), data: HashMap::new() }
    }

    /// Where all `ASOF JOIN`s of a query get so much memory together, and the rest of the query all that it wants.
    pub fn with_asof_memory(partitions: usize, batch_size: usize, bytes: usize) -> Self {
        let pool = Arc::new(AsofPool { bytes, asof: AtomicUsize::new(0), all: AtomicUsize::new(0) });
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
        let config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(batch_size);
        let builder = SessionStateBuilder::new().with_default_features().with_config(config);
        let state = install(builder.with_runtime_env(runtime)).build();
        World { state, tables: HashMap::new(), data: HashMap::new() }
    }

    /// Waits until what a query held is given back: memory, and files on disk. Readers of files end a little later than
    /// the stream that they were for.
    pub async fn is_clean(&self) -> bool {
        let runtime = self.state.runtime_env();
        for _ in 0..100_000 {
            let files = runtime.disk_manager.spilling_progress();
            if runtime.memory_pool.reserved() == 0 && files.current_bytes == 0 && files.active_files_count == 0 {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    }

    fn memory(schema: SchemaRef, partitions: Vec<Vec<RecordBatch>>) -> Arc<MemTable> {
        Arc::new(MemTable::try_new(schema, partitions).unwrap())
    }

    /// A plain relation.
    pub fn table(&mut self, name: &str, schema: SchemaRef, partitions: Vec<Vec<RecordBatch>>) -> &mut Self {
        self.provided(name, schema.clone(), Self::memory(schema, partitions))
    }

    /// A plain relation that somebody else reads.
    pub fn provided(&mut self, name: &str, schema: SchemaRef, provider: Arc<dyn TableProvider>) -> &mut Self {
        let target = ScanTarget::System(name.to_string());
        let table = TidemarkTable::plain(target.clone(), name, schema);
        self.tables.insert(name.into(), Arc::new(table));
        self.data.insert(target, provider);
        self
    }

    /// A table with steps.
    pub fn view(&mut self, name: &str, schema: SchemaRef, current: RecordBatch, steps: StepsTable, rows: RecordBatch) {
        let target = ScanTarget::System(name.to_string());
        self.data.insert(target.clone(), Self::memory(schema.clone(), vec![vec![current]]));
        self.data.insert(steps.target.clone(), Self::memory(steps.schema.clone(), vec![vec![rows]]));
        let table = TidemarkTable { steps: Some(Arc::new(steps)), ..TidemarkTable::plain(target, name, schema) };
        self.tables.insert(name.into(), Arc::new(table));
    }

    pub fn plan(&self, sql: &str) -> Result<LogicalPlan> {
        let query = parse(sql)?;
        SqlToRel::new(self).sql_statement_to_plan(ast::Statement::Query(query))
    }

    pub fn bound(&self, sql: &str) -> Result<LogicalPlan> {
        bind_scans(self.plan(sql)?, |table| Ok(self.data[&table.target].clone()))
    }

    pub async fn physical(&self, sql: &str) -> Result<Arc<dyn ExecutionPlan>> {
        self.state.create_physical_plan(&self.bound(sql)?).await
    }

    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let batches = collect(self.physical(sql).await?, self.state.task_ctx()).await?;
        Ok(batches.iter().flat_map(text).collect())
    }

    /// The refusal of a statement.
    pub fn refusal(&self, sql: &str) -> PlanError {
        match self.plan(sql) {
            Ok(plan) => panic!("{sql} was planned:\n{plan}"),
            Err(DataFusionError::External(error)) => *error.downcast::<PlanError>().unwrap(),
            Err(other) => panic!("{sql}: {other}"),
        }
    }
}

/// Rows as text; timestamps as microseconds.
fn text(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Timestamp(..) => cast(column, &DataType::Int64).unwrap(),
            _ => column.clone(),
        })
        .collect();
    let formats: Vec<_> = columns.iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    (0..batch.num_rows()).map(|row| formats.iter().map(|f| f.value(row).to_string()).collect()).collect()
}

impl ContextProvider for World {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        match self.tables.get(name.table()) {
            Some(table) => Ok(table.clone()),
            None => Err(DataFusionError::Plan(format!("no table {name}"))),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.state.relation_planners()
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        vec![]
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        vec![]
    }

    fn udaf_names(&self) -> Vec<String> {
        vec![]
    }

    fn udwf_names(&self) -> Vec<String> {
        vec![]
    }
}

/// A limit for `ASOF JOIN`s only.
#[derive(Debug)]
struct AsofPool {
    bytes: usize,
    asof: AtomicUsize,
    all: AtomicUsize,
}

impl AsofPool {
    fn is_asof(reservation: &MemoryReservation) -> bool {
        reservation.consumer().name() == "AsofJoinExec"
    }
}

impl fmt::Display for AsofPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AsofPool({})", self.bytes)
    }
}

impl MemoryPool for AsofPool {
    fn name(&self) -> &str {
        "AsofPool"
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.all.fetch_add(additional, Ordering::SeqCst);
        if Self::is_asof(reservation) {
            self.asof.fetch_add(additional, Ordering::SeqCst);
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.all.fetch_sub(shrink, Ordering::SeqCst);
        if Self::is_asof(reservation) {
            self.asof.fetch_sub(shrink, Ordering::SeqCst);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        if Self::is_asof(reservation) && self.asof.load(Ordering::SeqCst) + additional > self.bytes {
            return Err(DataFusionError::ResourcesExhausted(format!("more than {} bytes", self.bytes)));
        }
        self.grow(reservation, additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.all.load(Ordering::SeqCst)
    }
}
