//! Text to statements. The text is tokenised once, in PostgreSQL's dialect, and cut at its semicolons; each statement
//! is recognised by its first words. What is ours, or what PostgreSQL clients send and sqlparser reads differently, is
//! read here by recursive descent; the queries and expressions inside are sqlparser's. Nothing is bound to a catalog.

mod aggregate;
mod change;
mod columns;
mod copy;
mod cursor;
mod declare;
mod definition;
mod dialect;
mod duration;
mod embedded;
mod grant;
mod ignored;
mod index;
mod insert;
mod maintain;
mod merge;
mod name;
mod notify;
mod object;
mod relation;
mod renamed;
mod reset;
mod role;
mod schema;
mod secret;
mod secrets;
mod session;
mod text;
mod training_set;
mod types;
mod view;

#[cfg(test)]
mod tests;

pub use change::returning_query;
pub use definition::definition;
pub use dialect::TidemarkDialect;
pub use duration::duration_us;
pub(crate) use name::{quoted, quoted_name};
pub use renamed::{calling_by_name, under_name};
pub use secrets::{loggable, without_secrets};
pub(crate) use types::written_type;

use crate::{
    PlanError, PlanResult,
    statement::{Parsed, Statement},
};
use cursor::Cursor;
use datafusion::sql::sqlparser::{ast, tokenizer::Token};
use text::Text;

/// The statements of a text, in order; empty ones are dropped. Every error has the position of the offending
/// character in the whole text (1-based, in characters), where there is one to point at.
pub fn parse(sql: &str) -> PlanResult<Vec<Parsed>> {
    let text = Text::new(sql);
    let tokens = text.tokens()?;
    let mut statements = vec![];
    let mut start = 0;
    for end in 0..=tokens.len() {
        if end == tokens.len() || tokens[end].token == Token::SemiColon {
            if start < end {
                statements.push(parsed(Cursor::new(&text, &tokens, start, end))?);
            }
            start = end + 1;
        }
    }
    Ok(statements)
}

/// An expression alone, as a definition keeps it.
pub fn parse_expression(sql: &str) -> PlanResult<ast::Expr> {
    let text = Text::new(sql);
    let tokens = text.tokens()?;
    Cursor::new(&text, &tokens, 0, tokens.len()).expr()
}

/// One statement, which must fill the cursor.
fn parsed(mut cursor: Cursor<'_>) -> PlanResult<Parsed> {
    let text = cursor.rest_text().to_string();
    let statement = statement(&mut cursor)?;
    cursor.finish()?;
    Ok(Parsed { statement, text })
}

/// PostgreSQL statements that have no meaning here, at least so far: known words get an honest answer, not a syntax error.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("LOCK", "every statement reads a consistent snapshot by itself"),
    ("DO", "run the statements one by one"),
    ("CALL", "run the statements one by one"),
    ("REFRESH", "REFRESH ONLINE STORE FOR a view puts its rows there again, REFRESH TRAINING SET computes one again"),
    ("REINDEX", "there are no indexes to rebuild"),
    ("CLUSTER", "there are no indexes to order by"),
    ("IMPORT", "create the tables one by one"),
    ("LOAD", "there are no extensions"),
    ("SECURITY", "there are no security labels"),
];

fn statement(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    if c.at_token(&Token::LParen) {
        return Ok(Statement::Query(c.query()?));
    }
    let Some(word) = c.keyword(0) else { return Err(c.unexpected()) };
    match word.as_str() {
        "SELECT" | "VALUES" | "TABLE" => Ok(Statement::Query(c.query()?)),
        "WITH" => change::with(c),
        "INSERT" => insert::insert(c),
        "UPDATE" | "DELETE" => change::change(c),
        "MERGE" => merge::merge(c),
        "TRUNCATE" => change::truncate(c),
        "CREATE" => create(c),
        "DROP" => object::drop(c),
        "ALTER" => object::alter(c),
        "COMMENT" => object::comment(c),
        "DESCRIBE" | "DESC" => object::describe(c),
        "EXPLAIN" => view::explain(c),
        "COPY" => copy::copy(c),
        "GRANT" | "REVOKE" => grant::grant(c),
        "REASSIGN" => object::reassign(c),
        "CHECKPOINT" => alone(c, Statement::Checkpoint),
        "FLUSH" => alone(c, Statement::Flush),
        "REFRESH" if c.at_all(&["REFRESH", "MATERIALIZED"]) => object::refresh_materialized(c),
        "REFRESH" if c.at_all(&["REFRESH", "ONLINE"]) => object::refresh_online_store(c),
        "REFRESH" if c.at_all(&["REFRESH", "TRAINING"]) => training_set::refresh(c),
        "OPTIMIZE" => maintain::optimize(c),
        "SHOW" => session::show(c),
        "SET" => session::set(c),
        "RESET" => session::reset(c),
        "BEGIN" | "START" => session::begin(c),
        "COMMIT" | "END" => session::commit(c),
        "ROLLBACK" | "ABORT" => session::rollback(c),
        "SAVEPOINT" => session::savepoint(c),
        "RELEASE" => session::release(c),
        "PREPARE" => session::prepare(c),
        "EXECUTE" => session::execute(c),
        "DEALLOCATE" => session::deallocate(c),
        "DISCARD" => session::discard(c),
        "DECLARE" => declare::declare(c),
        "FETCH" => declare::fetch(c, false),
        "MOVE" => declare::fetch(c, true),
        "CLOSE" => declare::close(c),
        "LISTEN" => notify::listen(c),
        "UNLISTEN" => notify::unlisten(c),
        "NOTIFY" => notify::notify(c),
        "VACUUM" => maintain::vacuum(c),
        "ANALYZE" | "ANALYSE" => session::maintenance(c, "ANALYZE"),
        _ => Err(match UNSUPPORTED.iter().find(|(known, _)| *known == word) {
            Some((known, hint)) => c.place(PlanError::unsupported(format!("{known} is not supported")).hint(*hint)),
            None => c.unexpected(),
        }),
    }
}

fn alone(c: &mut Cursor<'_>, statement: Statement) -> PlanResult<Statement> {
    c.skip();
    Ok(statement)
}

/// `CREATE …`: the kind of object decides.
fn create(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let start = *c;
    c.expect("CREATE")?;
    let or_replace = c.eat_all(&["OR", "REPLACE"]);
    let refuse_replace = |kind: &str| match or_replace {
        false => Ok(()),
        true => Err(start.place(
            PlanError::unsupported(format!("CREATE OR REPLACE {kind} is not supported"))
                .hint(format!("DROP {kind} IF EXISTS, then CREATE {kind}")),
        )),
    };
    let temporary = *c;
    let scope = usize::from(c.at("GLOBAL") || c.at("LOCAL"));
    if c.at_ahead(scope, "TEMPORARY") || c.at_ahead(scope, "TEMP") {
        for _ in 0..=scope {
            c.skip();
        }
        if or_replace || !c.eat("TABLE") {
            return Err(temporary
                .place(PlanError::unsupported("only tables can be temporary").hint("CREATE TEMPORARY TABLE name …")));
        }
        return relation::create_temporary(c);
    }
    if c.eat("SOURCE") {
        refuse_replace("SOURCE")?;
        relation::create(c, tidemark_catalog::ObjectKind::Source)
    } else if c.eat("TABLE") {
        refuse_replace("TABLE")?;
        relation::create(c, tidemark_catalog::ObjectKind::Table)
    } else if c.eat_all(&["FEATURE", "VIEW"]) || c.eat_all(&["MATERIALIZED", "VIEW"]) {
        Ok(Statement::CreateFeatureView(view::create_feature_view(c, or_replace)?))
    } else if c.eat("VIEW") {
        refuse_replace("VIEW")?;
        view::create_view(c)
    } else if !or_replace && let Some(word) = role::word(c) {
        role::create(c, word)
    } else if !or_replace && c.eat("SCHEMA") {
        schema::create(c)
    } else if !or_replace && c.eat("SECRET") {
        secret::create(c)
    } else if c.eat("AGGREGATE") {
        Ok(Statement::CreateAggregate(aggregate::create(c, or_replace)?))
    } else if c.eat_all(&["TRAINING", "SET"]) {
        refuse_replace("TRAINING SET")?;
        training_set::create(c)
    } else if !or_replace && c.eat("INDEX") {
        index::create(c, false)
    } else if !or_replace && session::has_vectors(c) {
        Ok(Statement::Nothing { tag: "CREATE EXTENSION" })
    } else if !or_replace && c.eat_all(&["UNIQUE", "INDEX"]) {
        index::create(c, true)
    } else {
        let what = ["INDEX", "UNIQUE", "SCHEMA", "TRAINING", "DATABASE", "FUNCTION"];
        let what = what.iter().chain(&["TYPE", "SEQUENCE", "EXTENSION", "TRIGGER", "PROCEDURE", "UNLOGGED"]);
        for word in what {
            if c.at(word) {
                return Err(c.place(
                    PlanError::unsupported(format!("CREATE {word} is not supported"))
                        .hint("CREATE SCHEMA, SOURCE, TABLE, FEATURE VIEW, VIEW, AGGREGATE and TRAINING SET are"),
                ));
            }
        }
        Err(c.unexpected())
    }
}
