//! A feature service: a view or subquery that only looks feature views up by their entity keys and computes on top.
//!
//! ```sql
//! CREATE VIEW ranking AS
//!   SELECT u.user_id, i.item, u.at, u.n AS user_n, u.n * 1.0 / i.n AS ratio FROM users u CROSS JOIN items i
//! ```
//!
//! Taken apart here into its members, which of them must be there, and the columns over them. Because every join is by
//! whole keys, a service has at most one row for a choice of keys, at every instant, and each member's part of it is
//! that member's `V(key, instant)`: see `service_join`, and `lookup/service.rs` for the present.

use super::condition::is_plain;
use super::steps::StepsScan;
use crate::bind::now_column;
use crate::feature::{clock_function, is_now};
use crate::lookup::spine::{Spine, type_over};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, JoinType, NullEquality, TableReference};
use datafusion::logical_expr::expr::BinaryExpr;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Operator, TableScan, when};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct Service {
    /// Whether members are read as they are now, and not as of a left row's time.
    is_current: bool,
    pub members: Vec<Member>,
    pub links: Vec<Link>,
    /// The keys asked for that it is joined to, of the present only: `(VALUES …) k (user_id) LEFT JOIN users`.
    pub spine: Option<Spine>,
    /// What joins with them, or with constants, say of keys.
    pub fixed: Vec<(Key, Expr)>,
    /// The members without which the service has no row.
    pub present: Members,
    /// The service's columns over those of the members; the instant of the reading is the column `NOW_COLUMN`.
    pub outputs: Vec<Expr>,
}

/// Indices into [`Service::members`].
pub(crate) type Members = BTreeSet<usize>;

pub(crate) struct Member {
    pub steps: StepsScan,
    /// The members that must be found for this one's columns to show: itself and, behind a LEFT JOIN, those that the
    /// join is with.
    pub shown_with: Members,
}

/// A column of a member's entity key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub member: usize,
    pub column: String,
}

/// A join's equality: what the key `from` is, `to` is too. `mutual`: also the other way; across a LEFT JOIN only where
/// the optional side must be there.
pub(crate) struct Link {
    pub from: Key,
    pub to: Key,
    pub mutual: bool,
}

/// What each key has to equal.
pub(crate) type Values = BTreeMap<Key, Vec<Expr>>;

/// The name of the right side of a join, for messages: the view's, else the alias.
pub(super) fn name(plan: &LogicalPlan) -> String {
    let (mut plan, mut name) = (plan, "subquery");
    while let LogicalPlan::SubqueryAlias(alias) = plan {
        (plan, name) = (&alias.input, alias.alias.table());
    }
    name.to_string()
}

/// A part of the plan: its columns over the members, and the members without which it has no row.
struct Part {
    columns: Vec<Expr>,
    present: Members,
}

/// Why a plan is no service; completes "it …".
type Why = String;

impl Service {
    /// With its members as of a left row's time.
    pub fn of(plan: &LogicalPlan) -> Result<Service, Why> {
        Self::taken_apart(plan, false)
    }

    /// With its members as they are now: their columns are those that users see.
    pub fn current(plan: &LogicalPlan) -> Result<Service, Why> {
        Self::taken_apart(plan, true)
    }

    fn taken_apart(plan: &LogicalPlan, is_current: bool) -> Result<Service, Why> {
        let mut service = Service {
            is_current,
            members: vec![],
            links: vec![],
            spine: None,
            fixed: vec![],
            present: Members::new(),
            outputs: vec![],
        };
        let whole = service.part(plan)?;
        (service.present, service.outputs) = (whole.present, whole.columns);
        Ok(service)
    }

    fn part(&mut self, plan: &LogicalPlan) -> Result<Part, Why> {
        match plan {
            LogicalPlan::TableScan(scan) => self.member(scan),
            LogicalPlan::SubqueryAlias(alias) => self.part(&alias.input),
            LogicalPlan::Projection(projection) => {
                let input = self.part(&projection.input)?;
                let columns = projection.expr.iter().map(|e| over(e, projection.input.schema(), &input.columns));
                Ok(Part { columns: columns.collect::<Result<_, _>>()?, present: input.present })
            }
            LogicalPlan::Filter(filter) => {
                let mut part = self.part(&filter.input)?;
                for condition in split_conjunction(&filter.predicate) {
                    if let Some((key, value)) = self.fixed(condition, filter.input.schema(), &part.columns) {
                        self.require_fixed(&mut part, key, value);
                        continue;
                    }
                    let (from, to) = self.equality(condition, filter.input.schema(), &part.columns)?;
                    self.require(&mut part, from, to);
                }
                Ok(part)
            }
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::EmptyRelation(nothing) if self.is_current && nothing.produce_one_row => {
                Ok(Part { columns: vec![], present: Members::new() })
            }
            LogicalPlan::Values(_) | LogicalPlan::Unnest(_) if self.is_current && self.spine.is_none() => {
                let spine = Spine::of(plan).ok_or("reads rows that are no constants")?;
                let columns = spine.columns();
                self.spine = Some(spine);
                Ok(Part { columns, present: Members::new() })
            }
            LogicalPlan::Aggregate(_) => Err("aggregates".into()),
            LogicalPlan::Window(_) => Err("has window functions".into()),
            LogicalPlan::Distinct(_) => Err("has DISTINCT".into()),
            LogicalPlan::Sort(_) => Err("has ORDER BY".into()),
            LogicalPlan::Limit(_) => Err("has LIMIT".into()),
            LogicalPlan::Union(_) => Err("has UNION".into()),
            LogicalPlan::Extension(_) => Err("has an ASOF JOIN itself".into()),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Err("reads constant rows".into()),
            other => Err(format!("has {}", other.display())),
        }
    }

    fn member(&mut self, scan: &TableScan) -> Result<Part, Why> {
        let at = self.members.len();
        // A name of its own: a view may be a member twice, or stand on the left too.
        let alias = TableReference::bare(format!("member {} {}", at + 1, scan.table_name.table()));
        let steps = StepsScan::of(scan, Some(alias))
            .ok_or_else(|| format!("reads \"{}\", which has no history", scan.table_name.table()))?;
        let columns = match self.is_current {
            true => steps.current_columns().collect(),
            false => steps.user_columns().map_err(|e| e.to_string())?.into_iter().map(|(_, value)| value).collect(),
        };
        self.members.push(Member { steps, shown_with: [at].into() });
        Ok(Part { columns, present: [at].into() })
    }

    fn join(&mut self, join: &Join) -> Result<Part, Why> {
        let (first, spine_first) = (self.members.len(), self.spine.is_some());
        let left = self.part(&join.left)?;
        let (middle, left_width) = (self.members.len(), left.columns.len());
        let spine_middle = self.spine.is_some();
        let right = self.part(&join.right)?;
        let end = self.members.len();
        let spine_is_optional = match join.join_type {
            JoinType::Left => self.spine.is_some() != spine_middle,
            JoinType::Right => spine_middle != spine_first,
            _ => false,
        };
        if spine_is_optional {
            return Err("has constant rows on the optional side of an outer join".into());
        }
        let mut part = Part { columns: [left.columns, right.columns].concat(), present: left.present };
        let on = join.on.iter().map(|(l, r)| l.clone().eq(r.clone()));
        let conditions = on.chain(join.filter.iter().flat_map(split_conjunction).cloned());
        let (mut equalities, mut fixed) = (vec![], vec![]);
        for condition in conditions {
            match self.fixed(&condition, &join.schema, &part.columns) {
                Some(value) => fixed.push(value),
                None => equalities.push(self.equality(&condition, &join.schema, &part.columns)?),
            }
        }
        let (optional, optional_present) = match join.join_type {
            _ if join.null_equality != NullEquality::NullEqualsNothing => return Err("compares NULLs".into()),
            JoinType::Inner => {
                part.present.extend(right.present);
                equalities.into_iter().for_each(|(from, to)| self.require(&mut part, from, to));
                fixed.into_iter().for_each(|(key, value)| self.require_fixed(&mut part, key, value));
                return Ok(part);
            }
            JoinType::Left => (middle..end, right.present),
            JoinType::Right => {
                let optional = std::mem::replace(&mut part.present, right.present);
                (first..middle, optional)
            }
            other => return Err(format!("has a {} JOIN", other.to_string().to_uppercase())),
        };
        let mut needed = optional_present;
        for (one, other) in equalities {
            let (from, to) = if optional.contains(&one.member) { (other, one) } else { (one, other) };
            if !optional.contains(&to.member) || optional.contains(&from.member) {
                return Err("has an outer join on a condition within one side".into());
            }
            needed.extend(&self.members[from.member].shown_with);
            needed.extend(&self.members[to.member].shown_with);
            self.links.push(Link { from, to, mutual: false });
        }
        for (key, value) in fixed {
            if !optional.contains(&key.member) {
                return Err("has an outer join on a condition within one side".into());
            }
            needed.extend(&self.members[key.member].shown_with);
            self.fixed.push((key, value));
        }
        // What the optional side computes is NULL with it, a constant too.
        let computed = match join.join_type {
            JoinType::Left => &mut part.columns[left_width..],
            _ => &mut part.columns[..left_width],
        };
        for value in computed.iter_mut().filter(|value| value.try_as_col().is_none()) {
            *value = self.where_found(&needed, value.clone()).map_err(|e| e.to_string())?;
        }
        self.members[optional].iter_mut().for_each(|member| member.shown_with.extend(&needed));
        Ok(part)
    }

    /// An equality that every row fulfils. Returns the members that must be there for it.
    fn link(&mut self, from: Key, to: Key) -> Members {
        let with = |key: &Key| self.members[key.member].shown_with.iter().copied();
        let members = with(&from).chain(with(&to)).collect();
        self.links.push(Link { from, to, mutual: true });
        members
    }

    fn require(&mut self, part: &mut Part, from: Key, to: Key) {
        part.present.extend(self.link(from, to));
    }

    /// The same for a key that has to equal a constant.
    fn require_fixed(&mut self, part: &mut Part, key: Key, value: Expr) {
        part.present.extend(&self.members[key.member].shown_with);
        self.fixed.push((key, value));
    }

    /// The key that a condition says equals a constant, or a column of the spine.
    pub fn fixed(&self, condition: &Expr, schema: &DFSchema, columns: &[Expr]) -> Option<(Key, Expr)> {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
        if !self.is_current {
            return None;
        }
        let (left, right) = (over(left, schema, columns).ok()?, over(right, schema, columns).ok()?);
        let (key, value) = match (self.key(&left), self.key(&right)) {
            (Some(key), None) => (key, right),
            (None, Some(key)) => (key, left),
            _ => return None,
        };
        let ty = type_over(self.spine.as_ref(), &value)?;
        let wanted = self.members[key.member].steps.ty(&key.column)?;
        // Else what equals it is the plan's to say.
        (ty == *wanted || ty.is_integer() && wanted.is_integer()).then_some((key, value))
    }

    /// Gives keys the values of those that the joins make them equal to.
    pub fn spread(&self, values: &mut Values) {
        loop {
            let mut changed = false;
            for link in &self.links {
                changed |= spread(values, &link.from, &link.to);
                if link.mutual || self.present.contains(&link.to.member) {
                    changed |= spread(values, &link.to, &link.from);
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// The same of the whole service.
    pub fn require_equal(&mut self, from: Key, to: Key) {
        let members = self.link(from, to);
        self.present.extend(members);
    }

    /// The value, and NULL where one of the members is not found.
    pub fn where_found(&self, members: &Members, value: Expr) -> datafusion::error::Result<Expr> {
        match conjunction(members.iter().map(|member| self.members[*member].steps.is_matched())) {
            Some(found) => when(found, value).end(),
            None => Ok(value),
        }
    }

    /// The keys that a condition says are equal.
    pub fn equality(&self, condition: &Expr, schema: &DFSchema, columns: &[Expr]) -> Result<(Key, Key), Why> {
        let other = || format!("has the condition {condition}, which is no equality of entity keys");
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return Err(other()) };
        let key = |expr| over(expr, schema, columns).ok().and_then(|expr| self.key(&expr)).ok_or_else(other);
        let (left, right) = (key(left)?, key(right)?);
        let ty = |key: &Key| self.members[key.member].steps.ty(&key.column);
        match (ty(&left), ty(&right)) {
            // Else what equals the one need not equal the other.
            (Some(l), Some(r)) if l == r || l.is_integer() && r.is_integer() => Ok((left, right)),
            _ => Err(format!("has the condition {condition}, between keys of different types")),
        }
    }

    /// The key column that an expression over the members is.
    pub fn key(&self, expr: &Expr) -> Option<Key> {
        let column = expr.try_as_col()?;
        let member = self.member_of(column.relation.as_ref()?)?;
        let is_key = self.members[member].steps.key().contains(&column.name);
        is_key.then(|| Key { member, column: column.name.clone() })
    }

    pub fn member_of(&self, qualifier: &TableReference) -> Option<usize> {
        self.members.iter().position(|member| member.steps.qualifier() == qualifier)
    }
}

/// Whether that was new.
pub(crate) fn add(values: &mut Values, key: &Key, value: &Expr) -> bool {
    let known = values.entry(key.clone()).or_default();
    let new = !known.contains(value);
    if new {
        known.push(value.clone());
    }
    new
}

fn spread(values: &mut Values, from: &Key, to: &Key) -> bool {
    let known = values.get(from).cloned().unwrap_or_default();
    known.iter().fold(false, |changed, value| add(values, to, value) | changed)
}

/// An expression over a plan's output as one over the members.
pub(crate) fn over(expr: &Expr, schema: &DFSchema, columns: &[Expr]) -> Result<Expr, Why> {
    let expr = expr.clone().unalias();
    if !is_plain(&expr) {
        return Err(format!("computes {expr}, which is more than an expression over one row"));
    }
    if let Some(function) = clock_function(&expr) {
        return Err(format!("calls {function}(), which is not evaluated at the left row's time"));
    }
    let mut lost = None;
    let over = expr.transform(|e| {
        Ok(match e {
            Expr::Column(column) => match schema.maybe_index_of_column(&column).and_then(|at| columns.get(at)) {
                Some(value) => Transformed::yes(value.clone()),
                None => {
                    lost = Some(column.to_string());
                    Transformed::no(Expr::Column(column))
                }
            },
            e if is_now(&e) => Transformed::yes(now_column()),
            e => Transformed::no(e),
        })
    });
    match (over, lost) {
        (Ok(over), None) => Ok(over.data),
        (Err(error), _) => Err(format!("computes what cannot be read: {error}")),
        (_, Some(column)) => Err(format!("reads the column {column} from elsewhere")),
    }
}
