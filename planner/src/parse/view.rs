//! `CREATE FEATURE VIEW`, `CREATE VIEW`, and `EXPLAIN` of them and of queries.

use super::{cursor::Cursor, statement};
use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    statement::{CreateFeatureView, ExplainFormat, Statement},
};
use datafusion::sql::sqlparser::tokenizer::Token;

/// Behind `CREATE [OR REPLACE] FEATURE VIEW`.
pub(super) fn create_feature_view(c: &mut Cursor<'_>, or_replace: bool) -> PlanResult<CreateFeatureView> {
    let if_not_exists = c.if_not_exists();
    let name = c.object_name()?;
    if c.at_token(&Token::LParen) {
        return Err(c.unexpected().hint("a feature view takes its column names from its query: SELECT … AS name"));
    }
    let options = if c.eat("WITH") { c.options()? } else { Default::default() };
    c.expect("AS")?;
    let query_text = c.rest_text().to_string();
    let query = c.query()?;
    Ok(CreateFeatureView { or_replace, if_not_exists, name, options, query, query_text })
}

/// Behind `CREATE VIEW`.
pub(super) fn create_view(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let if_not_exists = c.if_not_exists();
    let name = c.object_name()?;
    let columns = if c.at_token(&Token::LParen) { c.names()? } else { vec![] };
    if c.at("WITH") {
        return Err(c.place(
            PlanError::unsupported("options of a view are not supported").hint("did you mean CREATE FEATURE VIEW?"),
        ));
    }
    c.expect("AS")?;
    let query_text = c.rest_text().to_string();
    let query = c.query()?;
    Ok(Statement::CreateView { name, if_not_exists, columns, query, query_text })
}

/// `EXPLAIN [ANALYZE] [VERBOSE] …` or `EXPLAIN ( option [value], … ) …`
pub(super) fn explain(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("EXPLAIN")?;
    let start = *c;
    let mut analyze = false;
    let mut verbose = false;
    let mut format = ExplainFormat::Text;
    // `EXPLAIN (SELECT 1)` has a query in its parentheses
    let parenthesised_query = ["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|word| c.at_ahead(1, word))
        || c.peek(1) == Some(&Token::LParen);
    if c.at_token(&Token::LParen) && !parenthesised_query {
        c.list(|option| {
            let place = *option;
            match option.label()?.as_str() {
                "analyze" | "analyse" => analyze = switch(option)?,
                "verbose" => verbose = switch(option)?,
                "format" => format = explain_format(option)?,
                "costs" | "buffers" | "timing" | "summary" | "settings" | "wal" => {
                    switch(option)?;
                }
                name => {
                    return Err(place.place(PlanError::syntax(format!("unrecognized EXPLAIN option \"{name}\""))));
                }
            }
            Ok(())
        })?;
    } else {
        analyze = c.eat("ANALYZE") || c.eat("ANALYSE");
        verbose = c.eat("VERBOSE");
    }
    let explained = *c;
    if c.at_all(&["CREATE", "FEATURE"]) || c.at_all(&["CREATE", "OR", "REPLACE", "FEATURE"]) {
        if analyze {
            return Err(start.place(
                PlanError::unsupported("EXPLAIN ANALYZE CREATE FEATURE VIEW is not supported")
                    .hint("leave ANALYZE out"),
            ));
        }
        c.expect("CREATE")?;
        let or_replace = c.eat_all(&["OR", "REPLACE"]);
        c.expect("FEATURE")?;
        c.expect("VIEW")?;
        let create = create_feature_view(c, or_replace)?;
        return Ok(Statement::ExplainFeatureView { create, format });
    }
    if format == ExplainFormat::Probes {
        return Err(start.place(
            PlanError::new(sqlstate::INVALID_PARAMETER, "FORMAT PROBES explains only CREATE FEATURE VIEW")
                .hint("EXPLAIN (FORMAT PROBES) CREATE FEATURE VIEW …"),
        ));
    }
    match statement(c)? {
        statement @ (Statement::Query(_)
        | Statement::Insert(_)
        | Statement::Change(_)
        | Statement::Merge(_)
        | Statement::Execute { .. }
        | Statement::CreateTableAs { .. }
        | Statement::CreateTrainingSet(_)) => {
            Ok(Statement::Explain { analyze, verbose, format, statement: Box::new(statement) })
        }
        _ => Err(explained.place(PlanError::unsupported("this statement cannot be explained").hint(
            "EXPLAIN takes a query, INSERT, UPDATE, DELETE, MERGE, EXECUTE, CREATE TABLE AS, CREATE TRAINING SET or CREATE FEATURE VIEW",
        ))),
    }
}

fn explain_format(c: &mut Cursor<'_>) -> PlanResult<ExplainFormat> {
    let start = *c;
    match c.option_value()?.to_lowercase().as_str() {
        "text" => Ok(ExplainFormat::Text),
        "json" => Ok(ExplainFormat::Json),
        "probes" => Ok(ExplainFormat::Probes),
        other => Err(start.place(
            PlanError::unsupported(format!("EXPLAIN (FORMAT {}) is not supported", other.to_uppercase()))
                .hint("the formats are TEXT, JSON and, for a feature view, PROBES"),
        )),
    }
}

/// The value of a boolean option; none means true.
pub(super) fn switch(c: &mut Cursor<'_>) -> PlanResult<bool> {
    if c.done() || c.at_token(&Token::Comma) {
        return Ok(true);
    }
    let start = *c;
    match c.option_value()?.to_lowercase().as_str() {
        "true" | "on" | "1" => Ok(true),
        "false" | "off" | "0" => Ok(false),
        _ => Err(start.unexpected().hint("the value is true or false")),
    }
}
