//! stand-in until the system tables are merged
use datafusion::{logical_expr::ScalarUDF, sql::sqlparser::ast};
use std::sync::Arc;
pub fn functions() -> Vec<Arc<ScalarUDF>> { vec![] }
pub fn rewrite(_: &mut ast::Query) {}
