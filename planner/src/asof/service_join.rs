//! An `ASOF JOIN` to a feature service: one to each of its members, and the service's own expressions on top.
//!
//! ```text
//! l ASOF LEFT JOIN ranking r ON l.user_id = r.user_id AND l.item = r.item AND l.ts >= r.at
//!   CASE WHEN users and items were found THEN users.n * 1.0 / items.n END AS ratio, …
//!     AsofJoin items   l.item = items.item,         l.ts >= items.at
//!       AsofJoin users   l.user_id = users.user_id,   l.ts >= users.at
//!         l
//! ```
//!
//! The time in the condition says only which time is meant; it may be the time column of any member, or the greatest of
//! several. An equality in the condition is on a key column of a member, and goes on to the keys that the service's joins
//! make equal to it.

use super::condition::Condition;
use super::plan::{columns, extension, project_over, steps_node};
use super::service::{self, Key, Members, Service, Values, add, over};
use super::steps::at_left_time;
use super::{AsofKind, refuse};
use crate::{PlanError, PlanResult, defaults, error::sqlstate};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, lit};

pub(super) fn over_service(
    left: LogicalPlan,
    right: &LogicalPlan,
    mut service: Service,
    kind: AsofKind,
    condition: Condition,
    using: &[Column],
) -> Result<LogicalPlan> {
    let name = service::name(right);
    service.check(&name, right, &condition).map_err(refuse)?;
    let values = service.values(&name, right, &condition).map_err(refuse)?;
    let left_columns: Vec<Column> = columns(left.schema()).collect();
    let mut plan = left;
    let mut last = None;
    for (at, member) in service.members.iter().enumerate() {
        let steps = &member.steps;
        let mut keys = vec![];
        for column in steps.key() {
            let key = Key { member: at, column: column.clone() };
            let equal = values.get(&key).into_iter().flatten();
            keys.extend(equal.map(|left| (left.clone(), Expr::Column(steps.column(column)))));
        }
        let condition = Condition {
            keys,
            op: condition.op,
            left_time: condition.left_time.clone(),
            right_time: Expr::Column(steps.time()),
            tolerance: condition.tolerance.clone(),
        };
        let kind = if service.present.contains(&at) { kind } else { AsofKind::Left };
        let node = steps_node(plan, steps, kind, &condition)?;
        plan = extension(node.clone());
        last = Some(node);
    }
    let node = last.ok_or_else(|| internal_datafusion_err!("a feature service without members"))?;
    let mut shown = vec![];
    let outputs = service.outputs.iter().zip(defaults::of_columns(right));
    for ((qualifier, field), (output, default)) in right.schema().iter().zip(outputs) {
        if using.contains(&Column::from((qualifier, field))) {
            continue;
        }
        let mut value = at_left_time(service.shown(output.clone(), kind)?, &node)?;
        if let Some(default) = default.filter(|_| kind == AsofKind::Left && !service.present.is_empty()) {
            let found = service.where_found(&service.present, lit(true))?.is_not_null();
            value = defaults::or(found, value, default)?;
        }
        shown.push(value.alias_qualified(qualifier.cloned(), field.name()));
    }
    project_over(plan, left_columns, shown)
}

impl Service {
    /// Refuses what does not mean the service as of the left row's time.
    fn check(&self, name: &str, right: &LogicalPlan, condition: &Condition) -> PlanResult<()> {
        let time = over(&condition.right_time, right.schema(), &self.outputs);
        if !time.is_ok_and(|time| self.is_time(&time)) {
            let shown: Vec<_> =
                self.members.iter().map(|m| format!("\"{}\" of \"{}\"", m.steps.time().name, m.steps.name())).collect();
            return Err(PlanError::unsupported(format!(
                "an ASOF JOIN over \"{name}\" must compare a time column of its feature views, not {}",
                condition.right_time
            ))
            .hint(format!("let it show one, or the greatest() of several: {}", shown.join(", "))));
        }
        if !condition.op.is_backward() {
            return Err(PlanError::unsupported(format!(
                "an ASOF JOIN over \"{name}\" cannot look ahead: {} {} {}",
                condition.left_time, condition.op, condition.right_time
            ))
            .hint("use >= or >: features from the future would leak into the result"));
        }
        if condition.tolerance.is_some() && self.members.len() > 1 {
            return Err(PlanError::unsupported(format!(
                "a tolerance over \"{name}\", which is of {} feature views, could mean any of them",
                self.members.len()
            ))
            .hint("join the feature views themselves, one ASOF JOIN each, with its own tolerance"));
        }
        Ok(())
    }

    fn is_time(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Column(_) => self.members.iter().any(|member| expr.try_as_col() == Some(&member.steps.time())),
            Expr::ScalarFunction(f) => f.func.name() == "greatest" && f.args.iter().all(|arg| self.is_time(arg)),
            _ => false,
        }
    }

    /// What the condition says of each key, directly and through the service's own joins. A member whose key it names
    /// must be there.
    fn values(&mut self, name: &str, right: &LogicalPlan, condition: &Condition) -> PlanResult<Values> {
        let mut values = Values::new();
        for (l, r) in &condition.keys {
            let key = over(r, right.schema(), &self.outputs).ok().and_then(|expr| self.key(&expr));
            let Some(key) = key else {
                return Err(PlanError::unsupported(format!(
                    "{l} = {r} in an ASOF JOIN over \"{name}\" is not on an entity key of its feature views"
                ))
                .detail(self.keys_in_words())
                .hint("filter after matching in WHERE"));
            };
            self.present.extend(&self.members[key.member].shown_with);
            add(&mut values, &key, l);
        }
        self.spread(&mut values);
        for (at, member) in self.members.iter().enumerate() {
            for column in member.steps.key() {
                if !values.contains_key(&Key { member: at, column: column.clone() }) {
                    return Err(PlanError::new(
                        sqlstate::INVALID_PARAMETER,
                        format!(
                            "an ASOF JOIN over \"{name}\" needs an equality on the key column \"{column}\" of \"{}\"",
                            member.steps.name()
                        ),
                    )
                    .detail(self.keys_in_words())
                    .hint(format!("add it to ON; \"{name}\" has to show the column")));
                }
            }
        }
        Ok(values)
    }

    fn keys_in_words(&self) -> String {
        let keys = self
            .members
            .iter()
            .map(|m| format!("the entity key of \"{}\" is ({})", m.steps.name(), m.steps.key().join(", ")));
        keys.collect::<Vec<_>>().join("; ")
    }

    /// A column of the service over the matched members: NULL where the service has no row, and the columns of a member
    /// behind a LEFT JOIN NULL where that join finds none.
    pub(crate) fn shown(&self, output: Expr, kind: AsofKind) -> Result<Expr> {
        let always = |member: usize| -> Members { [member].into_iter().chain(self.present.iter().copied()).collect() };
        let whole = match (kind, output.try_as_col().and_then(|c| self.member_of(c.relation.as_ref()?))) {
            // The join itself has dropped the rows.
            (AsofKind::Inner, _) => Members::new(),
            // Where the only one that must be there is not, its own columns are NULL already.
            (AsofKind::Left, Some(own)) => self.present.iter().copied().filter(|member| *member != own).collect(),
            (AsofKind::Left, None) => self.present.clone(),
        };
        let output = output.transform(|e| {
            let own = e.try_as_col().and_then(|column| self.member_of(column.relation.as_ref()?));
            let Some(own) = own else { return Ok(Transformed::no(e)) };
            let others = self.members[own].shown_with.difference(&always(own)).copied().collect();
            Ok(Transformed::yes(self.where_found(&others, e)?))
        })?;
        self.where_found(&whole, output.data)
    }
}
