//! `CREATE AGGREGATE`.

use super::cursor::Cursor;
use crate::{
    PlanError, PlanResult,
    error::sqlstate::{INVALID_FUNCTION_DEFINITION, TOO_MANY_ARGUMENTS},
    statement::CreateAggregate,
};
use datafusion::sql::sqlparser::tokenizer::Token;
use tidemark_catalog::Parameter;

/// PostgreSQL's limit for any function.
const PARAMETERS_MAX: usize = 100;

/// Behind `CREATE [OR REPLACE] AGGREGATE`.
pub(super) fn create(c: &mut Cursor<'_>, or_replace: bool) -> PlanResult<CreateAggregate> {
    let start = *c;
    let name = c.object_name()?;
    let mut parameters: Vec<Parameter> = vec![];
    let listed = *c;
    if c.at_token(&Token::LParen) && matches!(c.peek(1), Some(Token::RParen | Token::Mul)) {
        return Err(listed.place(
            PlanError::new(INVALID_FUNCTION_DEFINITION, format!("aggregate \"{name}\" has no parameter"))
                .hint("write the expression itself: it is the same for every call"),
        ));
    }
    c.list(|c| {
        let place = *c;
        let parameter = c.identifier()?;
        if c.done() || c.at_token(&Token::Comma) {
            return Err(c.unexpected().hint("a parameter has a name and a type: (x bigint, y bigint)"));
        }
        if parameters.iter().any(|p| p.name == parameter) {
            let message = format!("parameter \"{parameter}\" of aggregate \"{name}\" specified more than once");
            return Err(place.place(PlanError::new(INVALID_FUNCTION_DEFINITION, message)));
        }
        parameters.push(Parameter { name: parameter, ty: c.sql_type()? });
        Ok(())
    })?;
    if parameters.len() > PARAMETERS_MAX {
        let message = format!("aggregate \"{name}\" has more than {PARAMETERS_MAX} parameters");
        return Err(start.place(PlanError::new(TOO_MANY_ARGUMENTS, message)));
    }
    if c.at_token(&Token::LParen) {
        return Err(c.place(
            PlanError::unsupported(format!("aggregate \"{name}\" by a state and a function is not supported")).hint(
                "an aggregate is an expression over others: CREATE AGGREGATE name (x bigint) AS sum(x) / count(x)",
            ),
        ));
    }
    c.expect("AS")?;
    let expression_text = c.rest_text().to_string();
    let expression = Box::new(c.expr()?);
    Ok(CreateAggregate { or_replace, name, parameters, expression, expression_text })
}
