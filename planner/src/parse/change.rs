//! `UPDATE`, `DELETE`, `TRUNCATE`, read by sqlparser and turned into the query that finds the rows. What only other dialects
//! have is refused.

use super::{
    cursor::Cursor,
    insert::{self, fold},
    merge,
    name::qualified,
};
use crate::{
    PlanError, PlanResult, asof,
    statement::{Change, Statement, all_of, rows_of},
};
use datafusion::sql::sqlparser::{
    ast::{
        self, AssignmentTarget, Expr, FromTable, SetExpr, TableAlias, TableFactor, TableWithJoins, UpdateTableFromKind,
    },
    dialect::PostgreSqlDialect,
    parser::Parser,
};
use tidemark_catalog::{PUBLIC_SCHEMA, QualifiedName};

pub(super) fn change(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let start = *c;
    let statement = c.embedded(|parser| parser.parse_statement())?;
    of_statement(statement, None).map_err(|error| start.place(error))
}

/// `WITH … SELECT | INSERT | UPDATE | DELETE | MERGE`
pub(super) fn with(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    if let Some(merge) = merge::behind_with(c) {
        return merge::with(c, merge);
    }
    let start = *c;
    let query = *start.clone().embedded(|parser| parser.parse_query())?;
    let ast::Query { body, with, .. } = query;
    match *body {
        SetExpr::Update(statement) | SetExpr::Delete(statement) | SetExpr::Insert(statement) => {
            c.at = c.end;
            of_statement(statement, with).map_err(|error| start.place(error))
        }
        _ => Ok(Statement::Query(c.query()?)),
    }
}

fn of_statement(statement: ast::Statement, with: Option<ast::With>) -> PlanResult<Statement> {
    match statement {
        ast::Statement::Insert(inserted) => insert::behind_with(inserted, with).map(Statement::Insert),
        ast::Statement::Update(update) => of_update(update, with).map(Statement::Change),
        ast::Statement::Delete(delete) => of_delete(delete, with).map(Statement::Change),
        _ => Err(PlanError::syntax("INSERT, UPDATE or DELETE is expected behind WITH")),
    }
}

fn of_update(update: ast::Update, with: Option<ast::With>) -> PlanResult<Change> {
    let ast::Update { table, assignments: set, from, selection, returning, output, or, order_by, limit, .. } = update;
    let foreign = output.is_some() || or.is_some() || !order_by.is_empty() || limit.is_some();
    if foreign {
        return Err(not_ours("UPDATE", "UPDATE name SET column = value, … [FROM …] [WHERE …]"));
    }
    let others = match from {
        None => vec![],
        Some(UpdateTableFromKind::AfterSet(others)) => others,
        Some(UpdateTableFromKind::BeforeSet(_)) => {
            return Err(not_ours("UPDATE", "write FROM behind SET"));
        }
    };
    let set = assignments(set)?;
    found(table, others, selection, returning, with, Some(set))
}

/// The columns that `SET` names, each once, and what each is set to.
pub(super) fn assignments(set: Vec<ast::Assignment>) -> PlanResult<(Vec<String>, Vec<Expr>)> {
    let (mut sets, mut values) = (vec![], vec![]);
    for ast::Assignment { target, value } in set {
        let (columns, new) = match (target, value) {
            (AssignmentTarget::ColumnName(name), value) => (vec![name], vec![value]),
            (AssignmentTarget::Tuple(names), Expr::Tuple(new)) if names.len() == new.len() => (names, new),
            // `SET (a) = (1)`, and `ROW(…)`.
            (AssignmentTarget::Tuple(names), Expr::Nested(value)) if names.len() == 1 => (names, vec![*value]),
            (AssignmentTarget::Tuple(_), _) => {
                return Err(PlanError::unsupported(
                    "SET (…) = takes as many values in parentheses as there are columns",
                )
                .hint("write column = value, … one by one"));
            }
        };
        for (name, value) in columns.iter().zip(new) {
            let column = insert::column(name)?;
            if sets.contains(&column) {
                return Err(PlanError::syntax(format!("multiple assignments to same column \"{column}\"")));
            }
            sets.push(column);
            values.push(value);
        }
    }
    Ok((sets, values))
}

fn of_delete(delete: ast::Delete, with: Option<ast::With>) -> PlanResult<Change> {
    let ast::Delete { tables, from, using, selection, returning, output, order_by, limit, .. } = delete;
    let FromTable::WithFromKeyword(mut from) = from else {
        return Err(PlanError::syntax("DELETE needs FROM").hint("DELETE FROM name [USING …] [WHERE …]"));
    };
    let foreign = !tables.is_empty() || output.is_some() || !order_by.is_empty() || limit.is_some() || from.len() != 1;
    if foreign {
        return Err(not_ours("DELETE", "DELETE FROM name [USING …] [WHERE …]"));
    }
    found(from.remove(0), using.unwrap_or_default(), selection, returning, with, None)
}

fn not_ours(command: &str, hint: &str) -> PlanError {
    PlanError::syntax(format!("this form of {command} is not PostgreSQL's")).hint(hint)
}

/// The query that finds the rows.
fn found(
    target: TableWithJoins,
    others: Vec<TableWithJoins>,
    selection: Option<Expr>,
    returning: Option<Vec<ast::SelectItem>>,
    with: Option<ast::With>,
    set: Option<(Vec<String>, Vec<Expr>)>,
) -> PlanResult<Change> {
    let TableWithJoins { relation: TableFactor::Table { name, alias, .. }, joins } = target else {
        return Err(PlanError::unsupported("only a table can be changed").hint("name the table"));
    };
    if !joins.is_empty() {
        return Err(PlanError::syntax("the table that is changed cannot be joined where it is named")
            .hint("UPDATE t SET … FROM other WHERE …, DELETE FROM t USING other WHERE …"));
    }
    let table = qualified(insert::parts(&name)?)?;
    let alias = match alias {
        None => table.name.clone(),
        Some(TableAlias { name, columns, .. }) if columns.is_empty() => fold(&name),
        Some(_) => return Err(PlanError::syntax("the table that is changed has the names of its own columns")),
    };
    let mut query = query_over(&table, &alias)?;
    query.with = with;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(PlanError::syntax("no query can be made of this"));
    };
    let (sets, values) = set.map_or((None, vec![]), |(sets, values)| (Some(sets), values));
    select.projection = vec![all_of(&alias)];
    let named = values.into_iter().enumerate().map(|(i, expr)| ast::SelectItem::ExprWithAlias {
        expr,
        alias: ast::Ident::with_quote('"', format!("$set{i}")),
    });
    select.projection.extend(named);
    select.from.extend(others);
    select.selection = selection;
    if alias == table.name {
        unqualify(&mut query, &table);
    }
    asof::nest_asof(&mut query)?;
    super::ignored::check(&mut query)?;
    Ok(Change { table, alias, sets, query, returning })
}

/// `schema.t.column` and `tidemark.schema.t.column` by the name that the table has in the query.
pub(super) fn unqualify(query: &mut ast::Query, table: &QualifiedName) {
    let known = table.schema.as_deref().unwrap_or(PUBLIC_SCHEMA);
    let _ = ast::visit_expressions_mut(query, |expr| {
        if let Expr::CompoundIdentifier(parts) = expr {
            let names: Vec<String> = parts.iter().map(fold).collect();
            if let [database @ .., schema, of, _] = names.as_slice()
                && schema == known
                && *of == table.name
                && (database.is_empty() || database == ["tidemark"])
            {
                parts.drain(..names.len() - 2);
            }
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
}

/// `SELECT FROM "$rows".table AS alias`, to be completed.
pub(super) fn query_over(table: &QualifiedName, alias: &str) -> PlanResult<Box<ast::Query>> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let text = format!("SELECT 1 FROM {} AS {}", rows_of(table), quoted(alias));
    let parsed = Parser::new(&PostgreSqlDialect {}).try_with_sql(&text).and_then(|mut parser| parser.parse_query());
    parsed.map_err(|error| PlanError::syntax(error.to_string()))
}

/// The query over the rows that a statement has changed or put in: `SELECT … FROM "$rows".table AS alias`.
pub fn returning_query(
    table: &QualifiedName,
    alias: &str,
    items: &[ast::SelectItem],
    columns: &[&str],
) -> PlanResult<Box<ast::Query>> {
    let mut query = query_over(table, alias)?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = crate::statement::returned(items, alias, columns);
    }
    super::ignored::check(&mut query)?;
    Ok(query)
}

/// `TRUNCATE [TABLE] [ONLY] name [*], … [RESTART IDENTITY | CONTINUE IDENTITY] [CASCADE | RESTRICT]`
pub(super) fn truncate(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("TRUNCATE")?;
    c.eat("TABLE");
    let mut tables = vec![];
    loop {
        c.eat("ONLY");
        tables.push(c.object_name()?);
        c.eat_token(&datafusion::sql::sqlparser::tokenizer::Token::Mul);
        if !c.eat_token(&datafusion::sql::sqlparser::tokenizer::Token::Comma) {
            break;
        }
    }
    // There are no sequences, and no foreign keys.
    let _ = c.eat_all(&["RESTART", "IDENTITY"]) || c.eat_all(&["CONTINUE", "IDENTITY"]);
    let _ = c.eat("CASCADE") || c.eat("RESTRICT");
    Ok(Statement::Truncate { tables })
}
