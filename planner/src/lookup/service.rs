//! Lookups of several feature views at once: a feature service by its keys, or feature views beside one another, with any
//! expressions over one row on top.
//!
//! ```sql
//! SELECT * FROM ranking WHERE user_id = $1 AND item = ANY ($2)
//! SELECT u.n, u.n * 1.0 / i.n AS share, $3::float8 AS score FROM users u, items i WHERE u.user_id = $1 AND i.item = $2 LIMIT 1
//! ```
//!
//! Recognised from the bound plan, once. What is kept needs no plan to be answered: keys are expressions over the parameters,
//! each choice of keys has at most one row, and what is shown of it are expressions over the members' columns. Anything else
//! (other joins, aggregates, ORDER BY, a table) is planned as a query.

use super::spine::{self, Spine};
use crate::{
    asof::{
        AsofKind,
        service::{Key, Service, Values, add, over},
    },
    feature::{NOW_COLUMN, clock_function, is_now},
    table::{ScanTarget, instant_type},
};
use arrow_schema::{DataType, Field};
use datafusion::{
    common::{
        DFSchema, DFSchemaRef, TableReference,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        EmptyRelation, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator,
        expr::{BinaryExpr, InList, Placeholder},
        utils::{conjunction, split_conjunction},
    },
    scalar::ScalarValue,
    sql::sqlparser::ast,
};
use std::{collections::HashMap, sync::Arc};
use tidemark_catalog::{Object, ObjectId, Snapshot};

#[derive(Debug)]
pub struct ServiceLookup {
    pub members: Vec<LookedUp>,
    /// For each a choice of one of its items: a row for every choice.
    pub lists: Vec<Items>,
    /// Instead of lists: a row for every row of it.
    pub spine: Option<Spine>,
    /// What is shown, of rows with the columns [`Self::input`]: a projection, perhaps over a filter, over nothing.
    pub plan: LogicalPlan,
    /// The columns of each member in turn, then [`NOW_COLUMN`], the parameters (`$1`, …), an item of each list, the columns of the spine.
    pub input: DFSchemaRef,
    pub limit: Option<usize>,
}

#[derive(Debug)]
pub struct LookedUp {
    pub view: ObjectId,
    /// An expression for each column of the entity key, over parameters and items.
    pub key: Vec<Expr>,
    pub key_types: Vec<DataType>,
    /// Without its row there is no row.
    pub is_required: bool,
}

/// The values of a list, over parameters.
#[derive(Debug)]
pub enum Items {
    /// `= ANY (array)`.
    Array(Expr),
    /// `IN (…)`.
    Each(Vec<Expr>),
}

/// Whether binding the query another time for [`recognise`] may pay: its FROM names feature views and views only, and the keys
/// asked for.
pub fn may_be(query: &ast::Query, snapshot: &Snapshot) -> bool {
    let plain = query.with.is_none() && query.order_by.is_none() && query.fetch.is_none() && query.locks.is_empty();
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return false };
    let ungrouped = matches!(&select.group_by, ast::GroupByExpr::Expressions(e, m) if e.is_empty() && m.is_empty());
    let is_view = |relation: &ast::TableFactor| {
        let ast::TableFactor::Table { name, args: None, version: None, sample: None, .. } = relation else {
            return false;
        };
        super::object_named(name, snapshot).is_some_and(|object| match object {
            Object { .. } if object.feature_view().is_some() => true,
            object => object.kind() == tidemark_catalog::ObjectKind::View,
        })
    };
    let tables = select
        .from
        .iter()
        .flat_map(|from| std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)));
    let (spines, tables): (Vec<_>, Vec<_>) = tables.partition(|table| spine::may_be(table));
    plain
        && ungrouped
        && select.distinct.is_none()
        && select.having.is_none()
        && select.qualify.is_none()
        && (select.selection.is_some() || !spines.is_empty())
        && !tables.is_empty()
        && tables.into_iter().all(is_view)
}

/// The lookup that a plan is, if it is one. The plan was bound with `now()` kept, and with parameters of these types; it has not
/// been analysed.
pub fn recognise(plan: &LogicalPlan, parameters: &[DataType]) -> Option<ServiceLookup> {
    let (plan, limit) = limited(plan)?;
    let mut projections = vec![];
    let mut below = plan;
    while let LogicalPlan::Projection(projection) = below {
        projections.push(projection);
        below = &projection.input;
    }
    let (conditions, below) = match below {
        LogicalPlan::Filter(filter) => (split_conjunction(&filter.predicate), filter.input.as_ref()),
        other => (vec![], other),
    };
    if projections.is_empty() {
        return None;
    }
    let mut asked = Asked {
        service: Service::current(below).ok()?,
        schema: below.schema(),
        values: Values::new(),
        lists: vec![],
        rest: vec![],
    };
    conditions.into_iter().try_for_each(|condition| asked.condition(condition))?;
    let mut columns = asked.service.outputs.clone();
    for projection in projections.iter().rev() {
        let shown = projection.expr.iter().map(|expr| over(expr, projection.input.schema(), &columns));
        columns = shown.collect::<Result<_, _>>().ok()?;
    }
    asked.lookup(columns, plan.schema(), parameters, limit)
}

/// `LIMIT` with a plain number.
fn limited(plan: &LogicalPlan) -> Option<(&LogicalPlan, Option<usize>)> {
    let LogicalPlan::Limit(limit) = plan else { return Some((plan, None)) };
    let fetch = match limit.fetch.as_deref() {
        Some(Expr::Literal(ScalarValue::Int64(Some(rows)), _)) => usize::try_from(*rows).ok()?,
        _ => return None,
    };
    limit.skip.is_none().then_some((&limit.input, Some(fetch)))
}

/// What a WHERE asks of a service.
struct Asked<'a> {
    service: Service,
    schema: &'a DFSchema,
    values: Values,
    lists: Vec<Items>,
    /// Conditions that say nothing of keys.
    rest: Vec<Expr>,
}

impl Asked<'_> {
    fn condition(&mut self, condition: &Expr) -> Option<()> {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
                for (key, value) in [(left, right), (right, left)] {
                    if let Some(key) = self.key(key)
                        && is_constant(value)
                        && self.fits(&type_of(value)?, &key)
                    {
                        self.equals(&key, value.as_ref().clone());
                        return Some(());
                    }
                }
                if let Ok((from, to)) = self.service.equality(condition, self.schema, &self.service.outputs) {
                    self.service.require_equal(from, to);
                    return Some(());
                }
                if let Some((key, value)) = self.service.fixed(condition, self.schema, &self.service.outputs) {
                    self.equals(&key, value);
                    return Some(());
                }
            }
            // `= ANY (array)`.
            Expr::ScalarFunction(call) if call.func.name() == "array_has" => {
                if let [list, item] = call.args.as_slice()
                    && let Some(key) = self.key(item)
                    && is_constant(list)
                    && let DataType::List(of) = type_of(list)?
                    && self.fits(of.data_type(), &key)
                {
                    self.is_one_of(&key, Items::Array(list.clone()));
                    return Some(());
                }
            }
            Expr::InList(InList { expr, list, negated: false }) => {
                if let Some(key) = self.key(expr)
                    && list.iter().all(is_constant)
                    && list.iter().all(|item| type_of(item).is_some_and(|ty| self.fits(&ty, &key)))
                {
                    self.is_one_of(&key, Items::Each(list.clone()));
                    return Some(());
                }
            }
            _ => {}
        }
        self.rest.push(over(condition, self.schema, &self.service.outputs).ok()?);
        Some(())
    }

    fn key(&self, expr: &Expr) -> Option<Key> {
        self.service.key(&over(expr, self.schema, &self.service.outputs).ok()?)
    }

    /// Whether values of the type are compared with the key as its own type: else what is equal is the plan's to say.
    fn fits(&self, ty: &DataType, key: &Key) -> bool {
        let wanted = self.service.members[key.member].steps.ty(&key.column);
        wanted.is_some_and(|wanted| ty == wanted || ty.is_integer() && wanted.is_integer())
    }

    /// The member must be there: NULL equals nothing.
    fn equals(&mut self, key: &Key, value: Expr) {
        let with = self.service.members[key.member].shown_with.clone();
        self.service.present.extend(with);
        add(&mut self.values, key, &value);
    }

    fn is_one_of(&mut self, key: &Key, items: Items) {
        self.equals(key, column(item_name(self.lists.len())));
        self.lists.push(items);
    }

    fn lookup(
        mut self,
        shown: Vec<Expr>,
        names: &DFSchema,
        parameters: &[DataType],
        limit: Option<usize>,
    ) -> Option<ServiceLookup> {
        let service = &self.service;
        if service.members.is_empty() || service.spine.is_some() && !self.lists.is_empty() {
            return None;
        }
        for (key, value) in &service.fixed {
            add(&mut self.values, key, value);
        }
        service.spread(&mut self.values);
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = vec![];
        let mut members = vec![];
        for (at, member) in service.members.iter().enumerate() {
            let table = member.steps.table();
            let ScanTarget::CurrentRows(view) = table.target else { return None };
            let mut looked_up =
                LookedUp { view, key: vec![], key_types: vec![], is_required: service.present.contains(&at) };
            for name in member.steps.key() {
                let values = self.values.get(&Key { member: at, column: name.clone() })?;
                let [value, others @ ..] = values.as_slice() else { return None };
                // Where they differ it is absent, and not the row.
                if !others.is_empty() && !looked_up.is_required {
                    return None;
                }
                self.rest.extend(others.iter().map(|other| value.clone().eq(other.clone())));
                looked_up.key.push(with_parameters(value.clone())?);
                looked_up.key_types.push(member.steps.ty(name)?.clone());
            }
            members.push(looked_up);
            let qualifier = member.steps.qualifier();
            let of_table = table.schema.fields().iter();
            fields
                .extend(of_table.map(|f| (Some(qualifier.clone()), Arc::new(f.as_ref().clone().with_nullable(true)))));
        }
        fields.push((None, Arc::new(Field::new(NOW_COLUMN, instant_type(), false))));
        for (i, ty) in parameters.iter().enumerate() {
            // A parameter that is a numeric has the scale that it was sent with.
            if matches!(ty, DataType::Decimal128(..)) {
                return None;
            }
            fields.push((None, Arc::new(Field::new(format!("${}", i + 1), ty.clone(), true))));
        }
        for (i, list) in self.lists.iter().enumerate() {
            fields.push((None, Arc::new(Field::new(item_name(i), list.item_type()?, true))));
        }
        let of_spine = service.spine.iter().flat_map(|spine| spine.fields());
        fields.extend(of_spine.map(|field| (None, Arc::new(field))));
        let input = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new()).ok()?);
        let nothing = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: input.clone() });
        let shows = |expr: Expr| with_parameters(service.shown(expr, AsofKind::Inner).ok()?);
        let mut plan = LogicalPlanBuilder::from(nothing);
        let rest = self.rest.into_iter().map(shows).collect::<Option<Vec<_>>>()?;
        if let Some(condition) = conjunction(rest) {
            plan = plan.filter(condition).ok()?;
        }
        let shown = shown
            .into_iter()
            .zip(names.iter())
            .map(|(expr, (qualifier, field))| Some(shows(expr)?.alias_qualified(qualifier.cloned(), field.name())));
        let plan = plan.project(shown.collect::<Option<Vec<_>>>()?).ok()?.build().ok()?;
        let lists = self.lists.into_iter().map(Items::with_parameters).collect::<Option<_>>()?;
        let spine = match self.service.spine {
            Some(spine) => Some(spine.with_parameters()?),
            None => None,
        };
        Some(ServiceLookup { members, lists, spine, plan, input, limit })
    }
}

impl Items {
    fn item_type(&self) -> Option<DataType> {
        match self {
            Items::Array(array) => match type_of(array)? {
                DataType::List(of) => Some(of.data_type().clone()),
                _ => None,
            },
            // Integers of several widths are the widest.
            Items::Each(items) => items.iter().map(type_of).try_fold(DataType::Null, |widest, ty| {
                let ty = ty?;
                let is_wider = ty.primitive_width() > widest.primitive_width();
                Some(if widest.is_null() || is_wider { ty } else { widest })
            }),
        }
    }

    fn with_parameters(self) -> Option<Items> {
        Some(match self {
            Items::Array(array) => Items::Array(with_parameters(array)?),
            Items::Each(items) => Items::Each(items.into_iter().map(with_parameters).collect::<Option<_>>()?),
        })
    }
}

/// The column of the input with an item of list `i`. No column of a view has a space in its name that is not quoted, and none
/// is without its view here.
fn item_name(i: usize) -> String {
    format!("item {}", i + 1)
}

fn column(name: String) -> Expr {
    Expr::Column(datafusion::common::Column::new_unqualified(name))
}

pub(super) fn type_of(expr: &Expr) -> Option<DataType> {
    expr.get_type(&DFSchema::empty()).ok()
}

/// Whether it depends on parameters only.
pub(super) fn is_constant(expr: &Expr) -> bool {
    !expr.any_column_refs()
        && clock_function(expr).is_none()
        && !expr.is_volatile()
        && expr.exists(|e| Ok(is_now(e) || matches!(e, Expr::ScalarSubquery(_)))).is_ok_and(|found| !found)
}

/// The parameters as columns of the input. `None`: one of them has no type.
pub(super) fn with_parameters(expr: Expr) -> Option<Expr> {
    let mut untyped = false;
    let expr = expr.transform(|e| {
        Ok(match e {
            Expr::Placeholder(Placeholder { id, field: Some(field) }) if !field.data_type().is_null() => {
                Transformed::yes(column(id))
            }
            Expr::Placeholder(_) => {
                untyped = true;
                Transformed::no(e)
            }
            e => Transformed::no(e),
        })
    });
    expr.ok().map(|expr| expr.data).filter(|_| !untyped)
}
