//! ASOF JOIN in the planner.

use crate::PlanResult;
use datafusion::sql::sqlparser::{ast, tokenizer::TokenWithSpan};

pub fn mark_asof_tokens(_: &mut Vec<TokenWithSpan>) -> PlanResult<()> {
    Ok(())
}

pub fn nest_asof(_: &mut ast::Query) -> PlanResult<()> {
    Ok(())
}
