//! ASOF JOIN in the planner.
use datafusion::logical_expr::planner::*;
#[derive(Debug, Default)]
pub struct AsofPlanner {}
impl RelationPlanner for AsofPlanner {
    fn plan_relation(&self, relation: datafusion::sql::sqlparser::ast::TableFactor, _: &mut dyn RelationPlannerContext) -> datafusion::error::Result<RelationPlanning> {
        Ok(RelationPlanning::Original(Box::new(relation)))
    }
}

pub fn mark_asof_tokens(
    _: &mut Vec<datafusion::sql::sqlparser::tokenizer::TokenWithSpan>,
) -> crate::PlanResult<()> {
    Ok(())
}

pub fn nest_asof(_: &mut datafusion::sql::sqlparser::ast::Query) -> crate::PlanResult<()> {
    Ok(())
}
