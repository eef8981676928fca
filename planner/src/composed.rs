//! The user's own aggregates: an expression over other aggregates of its parameters, written out where it is called. What comes
//! out is what the user could have written by hand, so nothing behind the binding knows of them.
//!
//! ```text
//! CREATE AGGREGATE rate_of(hits bigint, tries bigint) AS sum(hits) / sum(tries)
//! rate_of(h, 1) FILTER (WHERE c) OVER w
//! (sum(h::bigint) FILTER (WHERE c) OVER w / sum(1::bigint) FILTER (WHERE c) OVER w)
//! ```

mod argument;
mod definition;

pub use argument::Arguments;
pub use definition::{define, define_again};

use crate::{
    PlanError, PlanResult,
    error::sqlstate::{self, TOO_COMPLEX},
    parse::parse_expression,
};
use datafusion::{
    logical_expr::{Volatility, planner::ContextProvider},
    sql::sqlparser::ast::{
        BinaryOperator, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
        GroupByExpr, Ident, ObjectName, Query, SetExpr, Visit, VisitMut, Visitor, VisitorMut, visit_expressions,
    },
};
use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
    sync::Arc,
};
use tidemark_catalog::{Aggregate, Object, ObjectId, Parameter, QualifiedName, Snapshot};

/// Aggregates of aggregates may grow by a factor at every level: a statement becomes no larger than this many expressions.
const EXPRESSIONS_MAX: usize = 10_000;
/// Whoever walks an expression needs stack for each level of it.
const DEPTH_MAX: usize = 500;
/// Aggregates inside aggregates.
const LEVELS_MAX: usize = 16;

/// Writes the calls of the user's aggregates out; which they are, also those inside them.
///
/// # Errors
/// 42883 for arguments that do not fit (their types are looked at where they are bound); 0A000 for clauses that would not mean
/// the same inside; 54001 where it becomes too large.
pub fn write_out(
    ast: &mut impl VisitMut,
    snapshot: &Snapshot,
    functions: &dyn ContextProvider,
) -> PlanResult<BTreeSet<ObjectId>> {
    if snapshot.aggregates().next().is_none() {
        return Ok(BTreeSet::new());
    }
    let (bodies, called) = Default::default();
    let mut writing = WritingOut {
        snapshot: snapshot.clone(),
        functions,
        bodies,
        left: EXPRESSIONS_MAX,
        level: 0,
        inside: vec![],
        called,
    };
    match ast.visit(&mut writing) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(writing.called),
    }
}

/// Refuses, in a feature view without GROUP BY, a call without OVER: what it is written out to would be reported as somebody else's.
pub(crate) fn check_over(view: &str, query: &Query, snapshot: &Snapshot) -> PlanResult<()> {
    let SetExpr::Select(select) = query.body.as_ref() else { return Ok(()) };
    if !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty()) {
        return Ok(());
    }
    let found = visit_expressions(&select.projection, |expr| match expr {
        Expr::Function(call) if call.over.is_none() => match called(&call.name, snapshot) {
            Some(object) => ControlFlow::Break(object.name.clone()),
            None => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    });
    let ControlFlow::Break(name) = found else { return Ok(()) };
    let message = format!("aggregate \"{name}\" of feature view \"{view}\" has no OVER");
    Err(PlanError::new(sqlstate::GROUPING_ERROR, message)
        .hint("OVER (PARTITION BY key ORDER BY time RANGE INTERVAL '…' PRECEDING), or GROUP BY key"))
}

/// The user's aggregate that a function's name means.
pub fn called<'a>(name: &ObjectName, snapshot: &'a Snapshot) -> Option<&'a Arc<Object>> {
    snapshot.aggregate(&own_name(name)?)
}

/// A function's name, folded, where it may be of an object of the user's.
pub(crate) fn own_name(name: &ObjectName) -> Option<QualifiedName> {
    let parts: Vec<String> = name.0.iter().map(|part| part.as_ident().map(folded)).collect::<Option<_>>()?;
    match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [name] => Some(QualifiedName::from(*name)),
        [schema, name] | ["tidemark", schema, name] => Some(QualifiedName::new(*schema, *name)),
        _ => None,
    }
}

fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// Whether a call is one of an aggregate that is no user's: it takes FILTER and OVER.
fn is_aggregate(call: &Function, functions: &dyn ContextProvider) -> bool {
    let [name] = call.name.0.as_slice() else { return false };
    let Some(name) = name.as_ident().map(folded) else { return false };
    // `lag` is maintained as an aggregate over a frame of one row.
    name == "lag" || functions.get_function_meta(&name).is_none() && functions.get_aggregate_meta(&name).is_some()
}

struct WritingOut<'a> {
    /// As what is being written out sees it.
    snapshot: Snapshot,
    functions: &'a dyn ContextProvider,
    bodies: HashMap<ObjectId, Arc<Expr>>,
    /// How many expressions the calls may still become.
    left: usize,
    level: usize,
    /// For each query that this is inside of: the aggregates without OVER that this is an argument of, and how many of them are the
    /// user's.
    inside: Vec<(usize, usize)>,
    called: BTreeSet<ObjectId>,
}

impl VisitorMut for WritingOut<'_> {
    type Break = PlanError;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<PlanError> {
        self.inside.push((0, 0));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<PlanError> {
        self.inside.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<PlanError> {
        let Some((any, users)) = self.aggregates(expr) else { return ControlFlow::Continue(()) };
        let Some(inside) = self.inside.last_mut() else { return ControlFlow::Continue(()) };
        if users > 0 && inside.0 > 0 || inside.1 > 0 {
            let error = PlanError::new(sqlstate::GROUPING_ERROR, "aggregate function calls cannot be nested");
            return ControlFlow::Break(error.hint("aggregate in a subquery first"));
        }
        *inside = (inside.0 + any, inside.1 + users);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<PlanError> {
        if let (Some((any, users)), Some(inside)) = (self.aggregates(expr), self.inside.last_mut()) {
            *inside = (inside.0 - any, inside.1 - users);
        }
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let Some(object) = called(&call.name, &self.snapshot).cloned() else { return ControlFlow::Continue(()) };
        match self.written(call, &object) {
            Ok(written) => {
                *expr = written;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl WritingOut<'_> {
    /// One aggregate without OVER, and whether it is the user's, if that is what this is.
    fn aggregates(&self, expr: &Expr) -> Option<(usize, usize)> {
        let Expr::Function(call) = expr else { return None };
        let is_users = called(&call.name, &self.snapshot).is_some();
        (call.over.is_none() && (is_users || is_aggregate(call, self.functions))).then_some((1, usize::from(is_users)))
    }

    fn written(&mut self, call: &Function, object: &Object) -> PlanResult<Expr> {
        let Some(aggregate) = object.aggregate() else {
            return Err(PlanError::new(sqlstate::INTERNAL, format!("\"{}\" is no aggregate", object.name)));
        };
        self.called.insert(object.id);
        let (arguments, distinct) = self.arguments(call, object, aggregate)?;
        let mut expr = self.body(object, aggregate)?.as_ref().clone();
        if distinct && !is_of_the_argument_alone(&expr, &aggregate.parameters, self.functions) {
            let message = format!("DISTINCT is not supported for aggregate \"{}\"", object.name);
            return Err(PlanError::unsupported(message)
                .detail("its rows would not be the distinct ones for every aggregate in it")
                .hint("it is for those of one parameter that take nothing but that parameter; or take the distinct rows in a subquery"));
        }
        let mut apply = Applying {
            parameters: &aggregate.parameters,
            arguments: &arguments,
            call,
            distinct,
            functions: self.functions,
        };
        let _ = VisitMut::visit(&mut expr, &mut apply);
        let (size, depth) = extent(&expr);
        self.left = self.left.checked_sub(size).filter(|_| depth <= DEPTH_MAX).ok_or_else(|| {
            PlanError::new(
                TOO_COMPLEX,
                format!("statement becomes too large where aggregate \"{}\" is written out", object.name),
            )
            .detail(format!("that may be {EXPRESSIONS_MAX} expressions in all, {DEPTH_MAX} deep"))
        })?;
        Ok(Expr::Nested(Box::new(expr)))
    }

    /// The expression with the aggregates in it written out.
    fn body(&mut self, object: &Object, aggregate: &Aggregate) -> PlanResult<Arc<Expr>> {
        if let Some(body) = self.bodies.get(&object.id) {
            return Ok(body.clone());
        }
        if self.level >= LEVELS_MAX {
            return Err(PlanError::new(TOO_COMPLEX, format!("aggregate \"{}\" is nested too deeply", object.name)));
        }
        let mut expr = parse_expression(&aggregate.expression)?;
        self.level += 1;
        self.inside.push((0, 0));
        let within = self.snapshot.within(object);
        let outside = std::mem::replace(&mut self.snapshot, within);
        let visited = VisitMut::visit(&mut expr, self);
        self.snapshot = outside;
        self.inside.pop();
        self.level -= 1;
        if let ControlFlow::Break(error) = visited {
            return Err(error);
        }
        let body = Arc::new(expr);
        self.bodies.insert(object.id, body.clone());
        Ok(body)
    }

    /// What goes in the place of each parameter, and whether the call is DISTINCT.
    fn arguments(&self, call: &Function, object: &Object, aggregate: &Aggregate) -> PlanResult<(Vec<Expr>, bool)> {
        let unsupported = |clause: &str| {
            PlanError::unsupported(format!("{clause} is not supported for aggregate \"{}\"", object.name))
                .hint("an aggregate of one's own takes FILTER, DISTINCT and OVER; write the expression itself")
        };
        if !call.within_group.is_empty() {
            return Err(unsupported("WITHIN GROUP"));
        }
        if call.null_treatment.is_some() {
            return Err(unsupported("IGNORE or RESPECT NULLS"));
        }
        let wrong =
            |what: String| {
                PlanError::new(sqlstate::UNDEFINED_FUNCTION, format!("aggregate \"{}\" {what}", object.name))
                    .hint(format!("it is {}({})", object.name, aggregate.arguments()))
            };
        let FunctionArguments::List(list) = &call.args else {
            return Err(wrong("takes its arguments in parentheses".into()));
        };
        if call.parameters != FunctionArguments::None {
            return Err(wrong("takes its arguments in one pair of parentheses".into()));
        }
        if !list.clauses.is_empty() {
            return Err(unsupported("a clause inside the parentheses, such as ORDER BY,"));
        }
        let mut given = vec![];
        for argument in &list.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => given.push(expr),
                FunctionArg::Unnamed(_) => return Err(wrong("cannot be called with *".into())),
                _ => return Err(unsupported("an argument by name")),
            }
        }
        if given.len() != aggregate.parameters.len() {
            let count = |n: usize| if n == 1 { "1 argument".to_string() } else { format!("{n} arguments") };
            return Err(wrong(format!("takes {}, not {}", count(aggregate.parameters.len()), given.len())));
        }
        let mut arguments = vec![];
        for (parameter, expr) in aggregate.parameters.iter().zip(given) {
            if let Some(function) = self.volatile(expr) {
                let message = format!("{function}() cannot be an argument of aggregate \"{}\"", object.name);
                return Err(PlanError::unsupported(message)
                    .detail("it is written out, and the value would be another each time")
                    .hint("compute it in a subquery"));
            }
            arguments.push(argument::coerced(expr, parameter, object, aggregate)?);
        }
        Ok((arguments, list.duplicate_treatment == Some(DuplicateTreatment::Distinct)))
    }

    /// The name of a function in it that is another at each evaluation.
    fn volatile(&self, expr: &Expr) -> Option<String> {
        let found = visit_expressions(expr, |expr| {
            let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
            let Some(name) = call.name.0.last().and_then(|part| part.as_ident()).map(folded) else {
                return ControlFlow::Continue(());
            };
            match self.functions.get_function_meta(&name) {
                Some(function) if function.signature().volatility == Volatility::Volatile => ControlFlow::Break(name),
                _ => ControlFlow::Continue(()),
            }
        });
        match found {
            ControlFlow::Break(name) => Some(name),
            ControlFlow::Continue(()) => None,
        }
    }
}

/// Puts arguments in the places of parameters, and the call's clauses behind each aggregate. From the leaves up, so that what it
/// has put in is not looked at again: a column that is called like a parameter stays.
struct Applying<'a> {
    parameters: &'a [Parameter],
    arguments: &'a [Expr],
    call: &'a Function,
    distinct: bool,
    functions: &'a dyn ContextProvider,
}

impl VisitorMut for Applying<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => {
                let name = folded(ident);
                if let Some(i) = self.parameters.iter().position(|parameter| parameter.name == name) {
                    *expr = self.arguments[i].clone();
                }
            }
            Expr::Function(inner) if is_aggregate(inner, self.functions) => {
                inner.filter = match (self.call.filter.clone(), inner.filter.take()) {
                    // What the call keeps out, the condition inside does not see.
                    (Some(outer), Some(inner)) => Some(Box::new(Expr::BinaryOp {
                        left: Box::new(Expr::Nested(outer)),
                        op: BinaryOperator::And,
                        right: Box::new(Expr::Nested(inner)),
                    })),
                    (outer, inner) => outer.or(inner),
                };
                if self.call.over.is_some() {
                    inner.over = self.call.over.clone();
                }
                if let FunctionArguments::List(list) = &mut inner.args
                    && self.distinct
                {
                    list.duplicate_treatment = Some(DuplicateTreatment::Distinct);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Whether the distinct rows of the arguments are the distinct values that every aggregate in it reads.
fn is_of_the_argument_alone(body: &Expr, parameters: &[Parameter], functions: &dyn ContextProvider) -> bool {
    let [parameter] = parameters else { return false };
    let is_parameter = |argument: &FunctionArg| matches!(argument, FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(ident))) if folded(ident) == parameter.name);
    let is_constant =
        |argument: &FunctionArg| matches!(argument, FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(_))));
    let of_more = visit_expressions(body, |expr| {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        if !is_aggregate(call, functions) {
            return ControlFlow::Continue(());
        }
        match &call.args {
            FunctionArguments::List(list)
                if list.args.first().is_some_and(is_parameter) && list.args[1..].iter().all(is_constant) =>
            {
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Break(()),
        }
    });
    of_more.is_continue()
}

/// How many expressions it has, and how deep they nest.
fn extent(expr: &Expr) -> (usize, usize) {
    #[derive(Default)]
    struct Extent {
        size: usize,
        depth: usize,
        deepest: usize,
    }
    impl Visitor for Extent {
        type Break = ();

        fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            self.size += 1;
            self.depth += 1;
            self.deepest = self.deepest.max(self.depth);
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }
    }
    let mut extent = Extent::default();
    let _ = Visit::visit(expr, &mut extent);
    (extent.size, extent.deepest)
}
