//! `MERGE`: read here, because sqlparser has other dialects' forms of it and not `DO NOTHING`, and turned into the one query
//! that joins the table with the source and says of each row which clause it is for.

use super::{
    change::{assignments, query_over, unqualify},
    cursor::Cursor,
    insert::fold,
};
use crate::{
    PlanError, PlanResult, asof,
    exact::number,
    statement::{Merge, MergeAction, MergeClause, Statement, all_of, is_default},
    table::ROW_COLUMN,
};
use datafusion::sql::sqlparser::{
    ast::{
        self, BinaryOperator, CaseWhen, Expr, Ident, Join, JoinConstraint, JoinOperator, SelectItem, SetExpr,
        TableFactor, Value, VisitMut, VisitorMut, helpers::attached_token::AttachedToken,
    },
    keywords::Keyword,
    parser::Parser,
    tokenizer::{Token, TokenWithSpan},
};
use std::ops::ControlFlow;

/// Where `MERGE` stands behind `WITH …`.
pub(super) fn behind_with<'a>(c: &Cursor<'a>) -> Option<Cursor<'a>> {
    find(c, "MERGE").filter(|here| here.at_ahead(1, "INTO"))
}

/// `WITH … MERGE`: `merge` is where the second begins.
pub(super) fn with(c: &mut Cursor<'_>, merge: Cursor<'_>) -> PlanResult<Statement> {
    // What a WITH needs to be a query.
    let mut tokens: Vec<TokenWithSpan> = c.tokens[c.at..merge.at].to_vec();
    let span = c.tokens[merge.at].span;
    let closing = [Token::make_keyword("SELECT"), Token::Number("1".to_string(), false)];
    tokens.extend(closing.map(|token| TokenWithSpan::new(token, span)));
    let mut common = Cursor { tokens: &tokens, at: 0, end: tokens.len(), ..*c };
    let query = common.embedded(|parser| parser.parse_query())?;
    c.at = merge.at;
    read(c, query.with)
}

/// `MERGE INTO [ONLY] name [*] [[AS] alias] USING source ON condition WHEN …`
pub(super) fn merge(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    read(c, None)
}

/// The first place outside parentheses and CASE where this word stands.
fn find<'a>(c: &Cursor<'a>, word: &str) -> Option<Cursor<'a>> {
    let mut depth = 0i32;
    (c.at..c.end).map(|at| Cursor { at, ..*c }).find(|here| {
        if here.at > c.at && c.tokens[here.at - 1].token == Token::Period {
            // `t.end`
            return false;
        }
        match here.peek(0) {
            Some(Token::LParen) => depth += 1,
            Some(Token::RParen) => depth -= 1,
            Some(_) if here.at("CASE") => depth += 1,
            Some(_) if here.at("END") => depth -= 1,
            _ => {}
        }
        depth == 0 && here.at(word)
    })
}

/// A clause as it is read.
struct When {
    matched: bool,
    condition: Option<Expr>,
    action: MergeAction,
    columns: Vec<String>,
    values: Vec<Expr>,
}

fn read(c: &mut Cursor<'_>, with: Option<ast::With>) -> PlanResult<Statement> {
    let start = *c;
    c.expect("MERGE")?;
    c.expect("INTO")?;
    c.eat("ONLY");
    let table = c.object_name()?;
    c.eat_token(&Token::Mul);
    let alias = match c.eat("AS") || !c.at("USING") {
        true => c.identifier()?,
        false => table.name.clone(),
    };
    c.expect("USING")?;
    let Some(first) = find(c, "WHEN") else {
        return Err(Cursor { at: c.end, ..*c }.unexpected().hint("WHEN [NOT] MATCHED THEN … is missing"));
    };
    let using = *c;
    let mut joined = Cursor { end: first.at, ..*c };
    let (source, on) = joined.embedded(|parser| {
        let source = parser.parse_table_factor()?;
        parser.expect_keyword_is(Keyword::ON)?;
        Ok((source, parser.parse_expr()?))
    })?;
    let name = source_name(&source).ok_or_else(|| {
        using.place(
            PlanError::unsupported("the source of MERGE has no name of its own")
                .hint("USING name, USING (SELECT …) AS name"),
        )
    })?;
    if name == alias {
        return Err(using.place(
            PlanError::new("42712", format!("name \"{alias}\" specified more than once"))
                .detail("The name is used both as MERGE target table and data source."),
        ));
    }
    c.at = first.at;
    let mut whens = vec![];
    // Which kind of clause has had one without a condition.
    let mut unconditional = [false; 2];
    while !c.done() {
        let here = *c;
        let when = when(c)?;
        let was_unconditional = &mut unconditional[usize::from(when.matched)];
        if *was_unconditional {
            let message = "unreachable WHEN clause specified after unconditional WHEN clause";
            return Err(here.place(PlanError::syntax(message)));
        }
        *was_unconditional = when.condition.is_none();
        whens.push(when);
    }
    let mut query = query_over(&table, &alias)?;
    query.with = with;
    for when in whens.iter_mut().filter(|when| !when.matched) {
        let mut of_source = OfSource { source: &name, target: &alias, depth: 0 };
        for expr in when.condition.iter_mut().chain(&mut when.values) {
            if let ControlFlow::Break(error) = VisitMut::visit(expr, &mut of_source) {
                return Err(start.place(error));
            }
        }
    }
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(PlanError::syntax("no query can be made of this"));
    };
    // Where nothing is done with a row that is not matched, there is none.
    let on = JoinConstraint::On(on);
    let join_operator = match whens.iter().any(|when| !when.matched && when.action != MergeAction::Nothing) {
        true => JoinOperator::Right(on),
        false => JoinOperator::Inner(on),
    };
    if let Some(from) = select.from.first_mut() {
        from.joins.push(Join { relation: source, global: false, join_operator });
    }
    let chosen = chosen(&alias, &whens);
    select.projection = vec![all_of(&alias), named(Merge::CLAUSE.to_string(), chosen.clone())];
    let mut clauses = vec![];
    for (i, When { action, columns, values, .. }) in whens.into_iter().enumerate() {
        clauses.push(MergeClause { action, columns, values: values.len() });
        for value in values {
            let at = select.projection.len();
            let value = if is_harmless(&value) { value } else { only_where(&chosen, i, value) };
            select.projection.push(named(format!("$value{at}"), value));
        }
    }
    if alias == table.name {
        unqualify(&mut query, &table);
    }
    asof::nest_asof(&mut query)?;
    super::ignored::check(&mut query).map_err(|error| start.place(error))?;
    Ok(Statement::Merge(Merge { table, alias, clauses, query }))
}

/// `WHEN [NOT] MATCHED [AND condition] THEN …`, to where the next one begins.
fn when(c: &mut Cursor<'_>) -> PlanResult<When> {
    c.expect("WHEN")?;
    let matched = !c.eat("NOT");
    c.expect("MATCHED")?;
    if c.at("BY") {
        return Err(c.place(
            PlanError::unsupported("WHEN NOT MATCHED BY is not supported, as in PostgreSQL 15")
                .hint("DELETE FROM name WHERE NOT EXISTS (…) takes away what the source does not have"),
        ));
    }
    let mut condition = None;
    if c.eat("AND") {
        let then = find(c, "THEN").ok_or_else(|| Cursor { at: c.end, ..*c }.unexpected())?;
        condition = Some(Cursor { end: then.at, ..*c }.expr()?);
        c.at = then.at;
    }
    c.expect("THEN")?;
    if let Some(returning) = find(c, "RETURNING") {
        return Err(returning.place(
            PlanError::unsupported("MERGE … RETURNING is not supported, as in PostgreSQL 15")
                .hint("SELECT the rows behind it, or use INSERT, UPDATE and DELETE"),
        ));
    }
    let end = find(c, "WHEN").map_or(c.end, |next| next.at);
    let mut action = Cursor { end, ..*c };
    let mut when = When { matched, condition, action: MergeAction::Nothing, columns: vec![], values: vec![] };
    if action.eat_all(&["DO", "NOTHING"]) {
        action.finish()?;
    } else if matched && action.eat("DELETE") {
        when.action = MergeAction::Delete;
        action.finish()?;
    } else if matched && action.eat("UPDATE") {
        when.action = MergeAction::Update;
        action.expect("SET")?;
        let start = action;
        let set = action.embedded(|parser| parser.parse_comma_separated(Parser::parse_assignment))?;
        (when.columns, when.values) = assignments(set).map_err(|error| start.place(error))?;
    } else if !matched && action.eat("INSERT") {
        when.action = MergeAction::Insert;
        insert(&mut action, &mut when)?;
    } else {
        return Err(action.unexpected());
    }
    c.at = end;
    Ok(when)
}

/// `INSERT [(columns)] { VALUES (…) | DEFAULT VALUES }`
fn insert(c: &mut Cursor<'_>, when: &mut When) -> PlanResult<()> {
    if c.eat_all(&["DEFAULT", "VALUES"]) {
        return c.finish();
    }
    if c.at_token(&Token::LParen) {
        when.columns = c.names()?;
    }
    if c.at("OVERRIDING") {
        let error = PlanError::unsupported("OVERRIDING is not supported");
        return Err(c.place(error.hint("remove it: there are no identity columns")));
    }
    c.expect("VALUES")?;
    let start = *c;
    when.values = c.parenthesised()?.exprs()?;
    c.finish()?;
    if !when.columns.is_empty() && when.values.len() != when.columns.len() {
        let (more, fewer) = match when.values.len() > when.columns.len() {
            true => ("expressions", "target columns"),
            false => ("target columns", "expressions"),
        };
        return Err(start.place(PlanError::syntax(format!("INSERT has more {more} than {fewer}"))));
    }
    Ok(())
}

/// By what name the expressions call the source.
fn source_name(source: &TableFactor) -> Option<String> {
    let alias = match source {
        TableFactor::Table { name, alias: None, .. } => return name.0.last()?.as_ident().map(fold),
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::UNNEST { alias, .. } => alias,
        _ => return None,
    };
    alias.as_ref().map(|alias| fold(&alias.name))
}

/// Behind `WHEN NOT MATCHED` there is no row of the table: a name without a table is one of the source's columns.
struct OfSource<'a> {
    source: &'a str,
    target: &'a str,
    /// How many queries lie around: inside one, names are its own.
    depth: usize,
}

impl VisitorMut for OfSource<'_> {
    type Break = PlanError;

    fn pre_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<PlanError> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<PlanError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<PlanError> {
        match expr {
            Expr::Identifier(_) if is_default(expr) => {}
            Expr::Identifier(column) if self.depth == 0 => {
                *expr = Expr::CompoundIdentifier(vec![Ident::with_quote('"', self.source), column.clone()]);
            }
            Expr::CompoundIdentifier(parts)
                if self.depth == 0 && parts.len() > 1 && fold(&parts[parts.len() - 2]) == self.target =>
            {
                let target = self.target;
                return ControlFlow::Break(
                    PlanError::new("42P01", format!("invalid reference to FROM-clause entry for table \"{target}\""))
                        .detail(format!(
                            "There is an entry for table \"{target}\", but it cannot be referenced from this part of the query."
                        ))
                        .hint("behind WHEN NOT MATCHED there is no row of it"),
                );
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `CASE WHEN matched AND condition THEN 0 WHEN … END`
fn chosen(alias: &str, whens: &[When]) -> Expr {
    let place = || {
        let names = [alias, ROW_COLUMN].map(|name| Ident::with_quote('"', name));
        Box::new(Expr::CompoundIdentifier(names.to_vec()))
    };
    let conditions = whens.iter().enumerate().map(|(i, when)| {
        let is_there = if when.matched { Expr::IsNotNull(place()) } else { Expr::IsNull(place()) };
        let condition = match &when.condition {
            None => is_there,
            Some(condition) => Expr::BinaryOp {
                left: Box::new(is_there),
                op: BinaryOperator::And,
                right: Box::new(Expr::Nested(Box::new(condition.clone()))),
            },
        };
        CaseWhen { condition, result: whole(i) }
    });
    case(conditions.collect())
}

/// `CASE WHEN chosen = clause THEN value END`
fn only_where(chosen: &Expr, clause: usize, value: Expr) -> Expr {
    let condition =
        Expr::BinaryOp { left: Box::new(chosen.clone()), op: BinaryOperator::Eq, right: Box::new(whole(clause)) };
    case(vec![CaseWhen { condition, result: value }])
}

fn case(conditions: Vec<CaseWhen>) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions,
        else_result: None,
    }
}

fn whole(number: usize) -> Expr {
    Expr::value(Value::Number(number.to_string(), false))
}

/// A column, a literal or a parameter can be read of any row: nothing in it fails.
fn is_harmless(value: &Expr) -> bool {
    matches!(value, Expr::Value(_) | Expr::Identifier(_) | Expr::CompoundIdentifier(_)) || number(value).is_some()
}

fn named(name: String, expr: Expr) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) }
}
