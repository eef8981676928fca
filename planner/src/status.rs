//! `_status` and `_event_time` of feature views: columns that are there for who names them, and for nobody else.
//!
//! ```sql
//! SELECT u.*, u._status, now() - u._event_time AS age FROM unnest($1::bigint[]) k (user_id) LEFT JOIN users u USING (user_id)
//! ```
//!
//! A query that names one reads its feature views under the schema [`SCHEMA`], where they have both; wildcards over them are
//! written out, without. So `*` is the same with them and without, and what does not name them does not pay for them.

use crate::{PlanError, PlanResult, error::sqlstate, lookup::object_named, names};
use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableAlias, TableFactor, TableWithJoins, VisitMut, VisitorMut,
    WildcardAdditionalOptions, visit_expressions,
};
use std::{collections::BTreeSet, ops::ControlFlow};
use tidemark_catalog::{Object, Snapshot};

pub use crate::table::{EVENT_TIME_COLUMN, STATUS_COLUMN};

/// Feature views with both columns. Nobody can write such a name.
pub const SCHEMA: &str = "with status\0";

/// What `_status` says of an entity that has a row, that has none, and, on a serving node, of one whose row does not hold any more.
pub const PRESENT: &str = "present";
pub const MISSING: &str = "missing";
pub const STALE: &str = "stale";
/// Of one that had a row until the view's TTL was over, as long as that is known.
pub const EXPIRED: &str = "expired";
/// Of one whose row, if there is one, was not to be had within `tidemark.lookup_deadline`.
pub const LATE: &str = "late";

/// Makes the query read its feature views with both columns if it names one of these.
///
/// # Errors
/// It has a wildcard that cannot be written out without them.
pub fn ask(query: &mut Query, snapshot: &Snapshot) -> PlanResult<()> {
    if !is_named(query) {
        return Ok(());
    }
    let mut asking = Asking { snapshot, own: BTreeSet::new() };
    match VisitMut::visit(query, &mut asking) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn is_named(query: &Query) -> bool {
    let found = visit_expressions(query, |expr| {
        let last = match expr {
            Expr::Identifier(ident) => Some(ident),
            Expr::CompoundIdentifier(parts) => parts.last(),
            _ => None,
        };
        match last.is_some_and(|ident| [STATUS_COLUMN, EVENT_TIME_COLUMN].contains(&names::folded(ident).as_str())) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    found.is_break()
}

struct Asking<'a> {
    snapshot: &'a Snapshot,
    /// Names of WITH, which hide the catalog's.
    own: BTreeSet<String>,
}

impl VisitorMut for Asking<'_> {
    type Break = PlanError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<PlanError> {
        let named = query.with.iter().flat_map(|with| &with.cte_tables);
        self.own.extend(named.map(|Cte { alias, .. }| names::folded(&alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<PlanError> {
        match self.write_out(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<PlanError> {
        let Some(view) = self.view(factor).map(Object::full_name) else { return ControlFlow::Continue(()) };
        let TableFactor::Table { name, alias, .. } = factor else { return ControlFlow::Continue(()) };
        alias.get_or_insert(TableAlias { explicit: true, name: quoted(&view.name), columns: vec![], at: None });
        let parts = [Some(SCHEMA), view.schema.as_deref(), Some(view.name.as_str())];
        let parts = parts.into_iter().flatten().map(|part| ObjectNamePart::Identifier(quoted(part)));
        *name = ObjectName(parts.collect());
        ControlFlow::Continue(())
    }
}

impl Asking<'_> {
    /// The feature view that a relation names. One whose columns are given names there is left as it is.
    fn view(&self, factor: &TableFactor) -> Option<&Object> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        if alias.as_ref().is_some_and(|alias| !alias.columns.is_empty()) {
            return None;
        }
        let object = object_named(name, self.snapshot).filter(|object| object.feature_view().is_some())?;
        let is_own = name.0.len() == 1 && self.own.contains(&object.name);
        (!is_own).then_some(object)
    }

    /// Wildcards over feature views become the columns that these have without being asked.
    fn write_out(&self, select: &mut Select) -> PlanResult<()> {
        let is_wildcard =
            |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
        let mut relations = vec![];
        let mut merges = false;
        select.from.iter().for_each(|from| self.relations(from, &mut relations, &mut merges));
        let has_view = relations.iter().any(|(_, view)| view.is_some());
        if !has_view || !select.projection.iter().any(is_wildcard) {
            return Ok(());
        }
        let plain = WildcardAdditionalOptions::default();
        let mut items = vec![];
        for item in std::mem::take(&mut select.projection) {
            match &item {
                SelectItem::Wildcard(options) => {
                    if merges || *options != plain {
                        return Err(unclear());
                    }
                    for (name, view) in &relations {
                        let name = name.as_ref().ok_or_else(unclear)?;
                        match view {
                            Some(view) => items.extend(columns(name, view)),
                            None => {
                                let name = ObjectName(vec![ObjectNamePart::Identifier(name.clone())]);
                                let kind = SelectItemQualifiedWildcardKind::ObjectName(name);
                                items.push(SelectItem::QualifiedWildcard(kind, plain.clone()));
                            }
                        }
                    }
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(of), options) => {
                    let of = of.0.last().and_then(|part| part.as_ident()).map(names::folded);
                    let known = relations.iter().find_map(|(name, view)| {
                        let name = name.as_ref().filter(|name| Some(names::folded(name)) == of)?;
                        Some((name, (*view)?))
                    });
                    match known {
                        Some(_) if *options != plain => return Err(unclear()),
                        Some((name, view)) => items.extend(columns(name, view)),
                        None => items.push(item),
                    }
                }
                _ => items.push(item),
            }
        }
        select.projection = items;
        Ok(())
    }

    /// The relations of a FROM in order: the name that columns are qualified by, and the feature view that it is.
    fn relations<'b>(
        &'b self,
        from: &TableWithJoins,
        relations: &mut Vec<(Option<Ident>, Option<&'b Object>)>,
        merges: &mut bool,
    ) {
        let mut add = |factor: &TableFactor, merges: &mut bool| match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.relations(table_with_joins, relations, merges);
            }
            TableFactor::Table { name, alias, .. } => {
                let view = self.view(factor);
                let own = name.0.last().and_then(|part| part.as_ident());
                relations.push((alias.as_ref().map(|alias| &alias.name).or(own).cloned(), view));
            }
            TableFactor::Derived { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => {
                relations.push((alias.as_ref().map(|alias| alias.name.clone()), None));
            }
            _ => relations.push((None, None)),
        };
        add(&from.relation, merges);
        for join in &from.joins {
            *merges |= merges_columns(&join.join_operator);
            add(&join.relation, merges);
        }
    }
}

fn merges_columns(join: &JoinOperator) -> bool {
    use JoinOperator as J;
    let (J::Join(constraint)
    | J::Inner(constraint)
    | J::Left(constraint)
    | J::LeftOuter(constraint)
    | J::Right(constraint)
    | J::RightOuter(constraint)
    | J::FullOuter(constraint)
    | J::AsOf { constraint, .. }) = join
    else {
        return false;
    };
    matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
}

fn columns(relation: &Ident, view: &Object) -> Vec<SelectItem> {
    let column = |name: &str| Expr::CompoundIdentifier(vec![relation.clone(), quoted(name)]);
    view.columns().iter().map(|known| SelectItem::UnnamedExpr(column(&known.name))).collect()
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn unclear() -> PlanError {
    PlanError::new(
        sqlstate::FEATURE_NOT_SUPPORTED,
        format!("a query that asks for {STATUS_COLUMN} or {EVENT_TIME_COLUMN} cannot have this wildcard"),
    )
    .hint("write v.* for each relation, or the columns")
}
