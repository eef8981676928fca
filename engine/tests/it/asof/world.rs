//! Tables and a planner around them: SQL text in, rows as text out.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::MemTable;
use datafusion::common::TableReference;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
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
use std::sync::Arc;
use tidemark_engine::asof::install;
use tidemark_engine::scan::bind_scans;
use tidemark_planner::PlanError;
use tidemark_planner::asof::{mark_asof_tokens, nest_asof};
use tidemark_planner::table::{ScanTarget, StepsTable, TidemarkTable};

pub struct World {
    pub state: SessionState,
    tables: HashMap<String, Arc<TidemarkTable>>,
    data: HashMap<ScanTarget, Arc<MemTable>>,
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
        let config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(batch_size);
        let state = install(SessionStateBuilder::new().with_default_features().with_config(config)).build();
        World { state, tables: HashMap::new(), data: HashMap::new() }
    }

    fn memory(schema: SchemaRef, partitions: Vec<Vec<RecordBatch>>) -> Arc<MemTable> {
        Arc::new(MemTable::try_new(schema, partitions).unwrap())
    }

    /// A plain relation.
    pub fn table(&mut self, name: &str, schema: SchemaRef, partitions: Vec<Vec<RecordBatch>>) -> &mut Self {
        let target = ScanTarget::System(name.to_string());
        let table = TidemarkTable {
            target: target.clone(),
            name: name.into(),
            schema: schema.clone(),
            steps: None,
            defaults: vec![],
        };
        self.tables.insert(name.into(), Arc::new(table));
        self.data.insert(target, Self::memory(schema, partitions));
        self
    }

    /// A table with steps.
    pub fn view(&mut self, name: &str, schema: SchemaRef, current: RecordBatch, steps: StepsTable, rows: RecordBatch) {
        let target = ScanTarget::System(name.to_string());
        self.data.insert(target.clone(), Self::memory(schema.clone(), vec![vec![current]]));
        self.data.insert(steps.target.clone(), Self::memory(steps.schema.clone(), vec![vec![rows]]));
        let table = TidemarkTable { target, name: name.into(), schema, steps: Some(Arc::new(steps)), defaults: vec![] };
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
