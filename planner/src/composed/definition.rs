//! What `CREATE AGGREGATE` checks: that its expression says the same wherever it is written out, and that it can be bound.

use super::{called, is_aggregate, own_name};
use crate::{
    PlanError, PlanResult, Statement,
    bind::{Binder, NoSystemTables},
    error::sqlstate::{self, INVALID_FUNCTION_DEFINITION, INVALID_RECURSION},
    feature,
    functions::planning_state,
    meaning,
    names::GENERATE_SERIES,
    parse::{parse, parse_expression, quoted, quoted_name, written_type},
    statement::CreateAggregate,
};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    execution::SessionState,
    logical_expr::{LogicalPlan, planner::ContextProvider},
    sql::sqlparser::ast::{Expr, Function, Ident, Query, Value, Visit, Visitor},
};
use std::{collections::BTreeSet, ops::ControlFlow};
use tidemark_catalog::{
    Aggregate, Body, Change, NameRef, Object, ObjectId, Place, QualifiedName, Snapshot, SqlType, UTC,
};

/// The aggregate that a statement creates, or puts in the place of one, and where it is; `state` is the session's.
///
/// # Errors
/// 42723 for the name of a function of the system; 42P19 where it would call itself; 42703, 42803, 42P13 and 0A000 for
/// expressions that are not of aggregates of the parameters; those of binding it.
pub fn define(
    create: &CreateAggregate,
    sql: &str,
    snapshot: &Snapshot,
    state: &SessionState,
) -> PlanResult<(Aggregate, Place)> {
    let place = meaning::of_expression(snapshot.place_of(&create.name)?, &create.expression, snapshot);
    let own = QualifiedName::new(&place.schema, &create.name.name);
    let functions = Binder::new(snapshot, state, &NoSystemTables, 0);
    if is_built_in(&create.name.name, &functions) {
        let message = format!("function \"{}\" is one of the system", create.name);
        return Err(PlanError::new(sqlstate::DUPLICATE_FUNCTION, message).hint("give the aggregate another name"));
    }
    let mut checking = Checking {
        create,
        own: &own,
        snapshot,
        functions: &functions,
        inside: 0,
        aggregates: 0,
        shifted: false,
        reads: BTreeSet::new(),
    };
    if let ControlFlow::Break(error) = Visit::visit(&create.expression, &mut checking) {
        return Err(error);
    }
    let (aggregates, shifted) = (checking.aggregates, checking.shifted);
    let reads: Vec<ObjectId> = checking.reads.into_iter().collect();
    if aggregates == 0 {
        let message = format!("the expression of aggregate \"{}\" has no aggregate in it", create.name);
        return Err(PlanError::new(INVALID_FUNCTION_DEFINITION, message)
            .hint("it is an expression over aggregates of the parameters: sum(x) / count(x)"));
    }
    refuse_cycle(&own, &reads, snapshot)?;
    let mut aggregate = Aggregate {
        sql: sql.to_string(),
        expression: create.expression_text.clone(),
        parameters: create.parameters.clone(),
        returns: SqlType::Text,
        reads,
    };
    // Called as it will be: as a feature view does, and where only other queries have its functions, as they do.
    let called = with(snapshot, &own, &place, &aggregate);
    aggregate.returns = returned(&own, &aggregate, shifted, &called, &planning_state(UTC))
        .or_else(|error| returned(&own, &aggregate, shifted, &called, state).map_err(|_| error))?;
    Ok((aggregate, place))
}

/// The aggregate of the catalog under another snapshot, where what it calls may be another.
pub fn define_again(object: &Object, snapshot: &Snapshot, state: &SessionState) -> PlanResult<Aggregate> {
    let sql = object.aggregate().map_or("", |aggregate| &aggregate.sql);
    match parse(sql)?.first().map(|parsed| &parsed.statement) {
        Some(Statement::CreateAggregate(create)) => {
            define(create, sql, &snapshot.within(object), state).map(|(aggregate, _)| aggregate)
        }
        _ => Err(PlanError::new(sqlstate::INTERNAL, format!("aggregate \"{}\" cannot be read again", object.name))),
    }
}

/// What PostgreSQL's grammar reads by words of its own, as in `extract(epoch FROM x)`.
const WORDED: [&str; 7] = ["extract", "overlay", "position", "row", "substring", "treat", "trim"];

/// A name that a call would not come from, or that has a meaning already.
fn is_built_in(name: &str, functions: &Binder<'_>) -> bool {
    WORDED.contains(&name)
        || functions.get_function_meta(name).is_some()
        || functions.get_aggregate_meta(name).is_some()
        || functions.get_window_meta(name).is_some()
        || functions.get_higher_order_meta(name).is_some()
        || feature::Aggregate::from_name(name).is_some()
        || name == GENERATE_SERIES
        || !matches!(parse_expression(&format!("{}(x)", quoted(name))), Ok(Expr::Function(_)))
}

fn refuse_cycle(own: &QualifiedName, reads: &[ObjectId], snapshot: &Snapshot) -> PlanResult<()> {
    let mut open: Vec<ObjectId> = reads.to_vec();
    let mut seen = BTreeSet::new();
    while let Some(object) = open.pop().filter(|id| seen.insert(*id)).and_then(|id| snapshot.get_id(id)) {
        let inner = object.reads();
        if inner.iter().any(|id| snapshot.get_id(*id).is_some_and(|object| object.full_name() == *own)) {
            let message =
                format!("aggregate \"{}\" would call itself, through aggregate \"{}\"", own.name, object.name);
            return Err(PlanError::new(INVALID_RECURSION, message).hint("an aggregate is written out: it has to end"));
        }
        open.extend(inner);
    }
    Ok(())
}

fn with(snapshot: &Snapshot, own: &QualifiedName, place: &Place, aggregate: &Aggregate) -> Snapshot {
    let id = snapshot.aggregate(own).map_or(ObjectId(0), |object| object.id);
    let body = Body::Aggregate(aggregate.clone());
    let (name, place) = (own.name.clone(), place.clone());
    snapshot.apply(&[Change::Put(Object { id, name, created_us: 0, comment: None, place, body })])
}

/// The type of a call.
fn returned(
    own: &QualifiedName,
    aggregate: &Aggregate,
    shifted: bool,
    snapshot: &Snapshot,
    state: &SessionState,
) -> PlanResult<SqlType> {
    let name = &own.name;
    let mut columns = vec![];
    for parameter in &aggregate.parameters {
        columns.push(format!("CAST(NULL AS {}) AS {}", written_type(&parameter.ty)?, quoted(&parameter.name)));
    }
    let names: Vec<String> = aggregate.parameters.iter().map(|parameter| quoted(&parameter.name)).collect();
    let over = if shifted { " OVER ()" } else { "" };
    let call = format!(
        "SELECT {}({}){over} FROM (SELECT {}) AS called",
        quoted_name(NameRef::from(own)),
        names.join(", "),
        columns.join(", ")
    );
    let Some(Statement::Query(query)) = parse(&call)?.into_iter().next().map(|parsed| parsed.statement) else {
        return Err(PlanError::new(sqlstate::INTERNAL, format!("aggregate \"{name}\" cannot be called")));
    };
    let bound = Binder::new(snapshot, state, &NoSystemTables, 0).keeping_now().query(&query, &[])?;
    refuse_clocks(name, &bound.plan)?;
    let plan = state.analyzer().execute_and_check(bound.plan, state.config_options(), |_, _| {})?;
    let ty = plan.schema().field(0).data_type();
    SqlType::from_arrow(ty).ok_or_else(|| {
        PlanError::unsupported(format!("aggregate \"{name}\" has a type that has no name here: {ty}"))
            .hint("cast the expression")
    })
}

fn refuse_clocks(name: &str, plan: &LogicalPlan) -> PlanResult<()> {
    let mut clock = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            let now = expr.exists(|e| Ok(feature::is_now(e)))?.then(|| "now".to_string());
            clock = clock.take().or(now).or_else(|| feature::clock_function(expr));
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    match clock {
        Some(function) => {
            let message = format!("aggregate \"{name}\" calls {function}(), whose value is another at each time");
            Err(PlanError::new(INVALID_FUNCTION_DEFINITION, message)
                .hint("make it a parameter, or call it outside of the aggregate"))
        }
        None => Ok(()),
    }
}

/// What no binding is needed to refuse; and which aggregates it calls.
struct Checking<'a> {
    create: &'a CreateAggregate,
    own: &'a QualifiedName,
    snapshot: &'a Snapshot,
    functions: &'a Binder<'a>,
    /// How many aggregates deep this is.
    inside: usize,
    aggregates: usize,
    /// It has `lag`, which is called with OVER alone.
    shifted: bool,
    reads: BTreeSet<ObjectId>,
}

impl Checking<'_> {
    fn is_aggregate(&self, call: &Function) -> bool {
        called(&call.name, self.snapshot).is_some() || is_aggregate(call, self.functions)
    }

    fn call(&mut self, call: &Function) -> PlanResult<()> {
        let name = &self.create.name;
        if call.over.is_some() {
            return Err(PlanError::unsupported(format!("OVER inside aggregate \"{name}\" is not supported"))
                .hint("leave it out: the window of a call goes to every aggregate inside"));
        }
        let is_itself = match called(&call.name, self.snapshot) {
            Some(object) => object.full_name() == *self.own,
            None => own_name(&call.name).is_some_and(|name| {
                name.name == self.own.name && (name.schema.is_none() || name.schema == self.own.schema)
            }),
        };
        if is_itself {
            return Err(PlanError::new(INVALID_RECURSION, format!("aggregate \"{name}\" would call itself"))
                .hint("an aggregate is written out: it has to end"));
        }
        if !self.is_aggregate(call) {
            return Ok(());
        }
        if self.inside > 0 {
            return Err(PlanError::new(sqlstate::GROUPING_ERROR, "aggregate function calls cannot be nested")
                .hint(format!("{} stands inside another aggregate of aggregate \"{name}\"", call.name)));
        }
        self.inside += 1;
        self.aggregates += 1;
        self.shifted |= call.name.to_string().eq_ignore_ascii_case("lag");
        if let Some(object) = called(&call.name, self.snapshot) {
            self.reads.insert(object.id);
        }
        Ok(())
    }

    fn column(&self, parts: &[Ident]) -> PlanResult<()> {
        let name = &self.create.name;
        let written = parts.iter().map(Ident::to_string).collect::<Vec<_>>().join(".");
        let parameters: Vec<&str> = self.create.parameters.iter().map(|p| p.name.as_str()).collect();
        let known = matches!(parts, [part] if parameters.contains(&super::folded(part).as_str()));
        if !known {
            return Err(PlanError::new(
                sqlstate::UNDEFINED_COLUMN,
                format!("aggregate \"{name}\" has no parameter \"{}\"", written.trim_matches('"')),
            )
            .hint(format!("its parameters are {}", parameters.join(", "))));
        }
        if self.inside == 0 {
            let message = format!(
                "parameter \"{}\" of aggregate \"{name}\" is not inside an aggregate",
                written.trim_matches('"')
            );
            return Err(PlanError::new(sqlstate::GROUPING_ERROR, message)
                .hint(format!("a group has many values of it: write max({written}) or the like")));
        }
        Ok(())
    }
}

impl Visitor for Checking<'_> {
    type Break = PlanError;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<PlanError> {
        ControlFlow::Break(
            PlanError::unsupported(format!("a subquery inside aggregate \"{}\" is not supported", self.create.name))
                .hint("make its value a parameter"),
        )
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<PlanError> {
        let checked = match expr {
            Expr::Function(call) => self.call(call),
            Expr::Identifier(ident) => self.column(std::slice::from_ref(ident)),
            Expr::CompoundIdentifier(parts) => self.column(parts),
            Expr::Value(value) => match &value.value {
                Value::Placeholder(number) => Err(PlanError::new(
                    sqlstate::UNDEFINED_PARAMETER,
                    format!("there is no parameter {number} in aggregate \"{}\"", self.create.name),
                )
                .hint("its parameters have names")),
                _ => Ok(()),
            },
            _ => Ok(()),
        };
        match checked {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<PlanError> {
        if matches!(expr, Expr::Function(call) if self.is_aggregate(call)) {
            self.inside -= 1;
        }
        ControlFlow::Continue(())
    }
}
