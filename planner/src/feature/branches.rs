//! The rows a feature view is over: those of one source or table, or of several by UNION ALL, with tables joined to them.
//!
//! ```text
//! Scan                                           its rows as they are
//! Union(Projection*(Filter*(Scan)), …)           FROM (SELECT … FROM a WHERE … UNION ALL SELECT … FROM b) e
//! Projection(AsofNode(Scan, Scan of steps))      FROM a ASOF JOIN t ON a.k = t.k AND a.at >= t.at
//! Join(one of these, Scan)                       … JOIN t ON a.key = t.key: beside the key, not beside its events
//! ```
//!
//! All of a view's branches are append-only and share one clock mode; their event times are one column of the union. What is
//! joined is a table with a primary key, by that key: at most one version of it counts at an instant.

use super::{
    Beside, Branch, Joined, Taken,
    recognise::{refused, stored_type},
    shape::unqualified,
};
use crate::{
    PlanError, PlanResult,
    asof::{AsofKind, AsofNode, AsofOp},
    error::sqlstate,
    names,
    table::{EVENT_TIME_COLUMN, OP_COLUMN, ScanTarget, TidemarkTable},
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::{
    common::{
        Column, JoinType, ScalarValue, TableReference,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, Expr, Join, LogicalPlan, Operator, TableScan, cast, lit, utils::split_conjunction, when,
    },
};
use std::sync::Arc;
use tidemark_catalog::{Object, Relation, Snapshot};

/// What a view is over, before anything is computed of it.
pub(super) struct Rows<'a> {
    pub branches: Vec<Branch>,
    pub schema: SchemaRef,
    /// Index into `schema`.
    pub event_time: usize,
    /// The one relation, if there is one: its primary key and whether it is a changelog are the view's.
    pub only: Option<&'a Object>,
    pub beside: Option<Paired>,
}

/// A table that a plain join puts beside each entity key.
pub(super) struct Paired {
    pub beside: Beside,
    /// What each of the primary key's columns is equal to, over the rows, and which column it is.
    pub on: Vec<(Expr, usize)>,
    /// By their names among the rows: the table's columns.
    pub columns: Vec<(String, usize, DataType)>,
}

impl<'a> Rows<'a> {
    /// From the node that gives the rows: a scan, a union or a join.
    pub fn of(name: &str, node: &LogicalPlan, snapshot: &'a Snapshot) -> PlanResult<Rows<'a>> {
        match node {
            LogicalPlan::TableScan(scan) => {
                let (object, relation) = read(name, scan, snapshot)?;
                let event_time = event_time(name, object, relation)?;
                let branch =
                    Branch { relation: object.id, relation_name: object.name.clone(), event_time, taken: None };
                Ok(Rows {
                    branches: vec![branch],
                    schema: relation.schema(),
                    event_time,
                    only: Some(object),
                    beside: None,
                })
            }
            LogicalPlan::SubqueryAlias(alias) if matches!(*alias.input, LogicalPlan::TableScan(_)) => {
                Rows::of(name, &alias.input, snapshot)
            }
            LogicalPlan::Join(join) => Rows::paired(name, node, join, snapshot),
            node => Rows::of_selects(name, node, snapshot),
        }
    }

    fn paired(name: &str, node: &LogicalPlan, join: &Join, snapshot: &'a Snapshot) -> PlanResult<Rows<'a>> {
        let hint = "write [LEFT] JOIN table ON table.key = entity key; ASOF JOIN takes a table as of each event, by any column";
        let refuse = |what: &str| Err(refused(name, what).hint(hint));
        let is_left = match join.join_type {
            JoinType::Inner => false,
            JoinType::Left => true,
            other => return refuse(&format!("it has a {} JOIN", other.to_string().to_uppercase())),
        };
        let left = Rows::of(name, &join.left, snapshot)?;
        if left.beside.is_some() {
            return refuse("it joins two tables by its key");
        }
        if let Some(table) = left.only.filter(|only| only.relation().is_some_and(|r| !r.primary_key.is_empty())) {
            return refuse(&format!("it joins a table to table \"{}\" with a primary key", table.name));
        }
        let mut right = join.right.as_ref();
        while let LogicalPlan::SubqueryAlias(alias) = right {
            right = &alias.input;
        }
        let LogicalPlan::TableScan(scan) = right else { return refuse("it joins a query") };
        let (object, relation) = read(name, scan, snapshot)?;
        if relation.primary_key.is_empty() {
            return refuse(&format!("{} \"{}\", which it joins, has no primary key", object.kind(), object.name));
        }
        let time = event_time(name, object, relation)?;
        let mut others = left.branches.iter().filter_map(|branch| snapshot.get_id(branch.relation));
        let other = others.find(|other| other.relation().is_some_and(|r| r.clock != relation.clock));
        if let Some(other) = other {
            return Err(refused(name, &format!("\"{}\" and \"{}\" have different clocks", other.name, object.name))
                .hint("give all that it reads the same clock"));
        }
        let names = row_names(node);
        let width = join.left.schema().fields().len();
        let mut on = vec![];
        for (l, r) in equalities(join).ok_or_else(|| refused(name, "its join is not ON equal columns").hint(hint))? {
            let l = column(&names[join.left.schema().index_of_column(&l)?]);
            let at = join.right.schema().index_of_column(&r)?;
            if !relation.primary_key.contains(&at) {
                return refuse(&format!("{} is not the primary key of \"{}\"", r.name, object.name));
            }
            on.push((l, at));
        }
        let fields = relation.schema();
        let columns = fields.fields().iter().enumerate();
        let columns = columns.map(|(i, field)| (names[width + i].clone(), i, field.data_type().clone()));
        let beside =
            Beside { table: object.id, table_name: object.name.clone(), is_left, key: vec![], columns: vec![], time };
        Ok(Rows { beside: Some(Paired { beside, on, columns: columns.collect() }), ..left })
    }

    fn of_selects(name: &str, node: &LogicalPlan, snapshot: &'a Snapshot) -> PlanResult<Rows<'a>> {
        let selects = selects(name, node, snapshot)?;
        let types = node.schema().fields().iter().map(|f| stored_type(f.data_type().clone()));
        let fields: Vec<Field> =
            row_names(node).into_iter().zip(types).map(|(name, ty)| Field::new(name, ty, true)).collect();
        let (mut branches, mut times, mut clock) = (vec![], None::<Vec<usize>>, None);
        for select in selects {
            let (object, relation) = read(name, &select.scan, snapshot)?;
            if !relation.primary_key.is_empty() {
                let what = if select.joined.is_empty() { "UNION ALL has" } else { "tables are joined to" };
                return Err(refused(name, &format!("{what} table \"{}\" with a primary key", object.name)).hint(
                    "the rows of such a table are replaced, and those of a stream are not: make a view of each, by the same key",
                ));
            }
            let event_time = event_time(name, object, relation)?;
            let tables = select.joined.iter().filter_map(|joined| snapshot.get_id(joined.of.table));
            for read in std::iter::once(object).chain(tables.map(AsRef::as_ref)) {
                let Some(of_read) = read.relation() else { continue };
                match clock {
                    None => clock = Some((of_read.clock, &read.name)),
                    Some((first, of)) if first != of_read.clock => {
                        return Err(refused(name, &format!("\"{of}\" and \"{}\" have different clocks", read.name))
                            .detail("now would be one instant for some of its rows and another for the others")
                            .hint("give all that it reads the same clock"));
                    }
                    Some(_) => {}
                }
            }
            let time = &relation.columns[event_time].name;
            let is_time = |expr: &Expr| matches!(expr, Expr::Column(c) if c.name == *time);
            let here: Vec<usize> = (0..select.exprs.len()).filter(|i| is_time(&select.exprs[*i])).collect();
            if here.is_empty() {
                return Err(refused(
                    name,
                    &format!("UNION ALL does not select {time}, the event time of \"{}\"", object.name),
                )
                .hint("select the event time of every source, as it is, as one column of the UNION ALL"));
            }
            if let Some(joined) = select.joined.iter().find(|joined| !is_time(&joined.time)) {
                let of_table = &joined.of.table_name;
                return Err(refused(name, &format!("\"{of_table}\" is joined as of another time than {time}"))
                    .hint(format!("write ASOF JOIN {of_table} ON … AND {time} >= the time of {of_table}")));
            }
            times = Some(match times {
                None => here,
                Some(before) => before.into_iter().filter(|i| here.contains(i)).collect(),
            });
            let columns =
                select.exprs.into_iter().zip(&fields).map(|(expr, field)| cast(expr, field.data_type().clone()));
            branches.push(Branch {
                relation: object.id,
                relation_name: object.name.clone(),
                event_time,
                taken: Some(Taken {
                    schema: Arc::new(Schema::new(select.fields)),
                    joined: select.joined.into_iter().map(|joined| joined.of).collect(),
                    filter: select.filter,
                    columns: columns.collect(),
                }),
            });
        }
        let Some(event_time) = times.and_then(|times| times.first().copied()) else {
            return Err(refused(name, "the event times of its sources are different columns of UNION ALL")
                .hint("select the event time of every source at the same place"));
        };
        if branches.len() > BRANCHES_MAX {
            let message = format!(
                "feature view \"{name}\" reads {} relations, at most {BRANCHES_MAX} are maintained",
                branches.len()
            );
            return Err(PlanError::new(sqlstate::PROGRAM_LIMIT, message));
        }
        Ok(Rows { branches, schema: Arc::new(Schema::new(fields)), event_time, only: None, beside: None })
    }
}

/// The place of its branch stands before an event's offset, in six bits.
const BRANCHES_MAX: usize = 64;

/// One SELECT of a union; its expressions are over `fields`, unqualified, one for each column of the node it was taken from.
struct Select {
    exprs: Vec<Expr>,
    filter: Option<Expr>,
    scan: TableScan,
    /// The relation's columns, and then those of the joined tables.
    fields: Vec<Field>,
    joined: Vec<JoinedAt>,
}

/// A joined table, and the time as of which it is.
struct JoinedAt {
    of: Joined,
    time: Expr,
}

fn selects(name: &str, node: &LogicalPlan, snapshot: &Snapshot) -> PlanResult<Vec<Select>> {
    match node {
        LogicalPlan::Union(union) => {
            let each =
                union.inputs.iter().map(|input| selects(name, input, snapshot)).collect::<PlanResult<Vec<_>>>()?;
            Ok(each.into_iter().flatten().collect())
        }
        LogicalPlan::SubqueryAlias(alias) => selects(name, &alias.input, snapshot),
        LogicalPlan::Projection(projection) => {
            let mut selects = selects(name, &projection.input, snapshot)?;
            for select in &mut selects {
                let over = |expr: &Expr| select.over(expr, &projection.input);
                select.exprs = projection.expr.iter().map(over).collect::<PlanResult<Vec<_>>>()?;
            }
            Ok(selects)
        }
        LogicalPlan::Filter(filter) => {
            let mut selects = selects(name, &filter.input, snapshot)?;
            for select in &mut selects {
                let outer = select.over(&filter.predicate, &filter.input)?;
                select.filter = Some(match select.filter.take() {
                    // What the inner one keeps out, the outer one does not see.
                    Some(inner) => when(inner, outer).otherwise(lit(false))?,
                    None => outer,
                });
            }
            Ok(selects)
        }
        LogicalPlan::TableScan(scan) => {
            let fields: Vec<Field> =
                scan.projected_schema.fields().iter().map(|field| field.as_ref().clone()).collect();
            let exprs = fields.iter().map(|field| column(field.name())).collect();
            Ok(vec![Select { exprs, filter: None, scan: scan.clone(), fields, joined: vec![] }])
        }
        LogicalPlan::Join(_) => Err(refused(name, "a SELECT of its UNION ALL has a plain join")
            .hint("join the table to the UNION ALL; or ASOF JOIN takes it as of each event")),
        LogicalPlan::Distinct(_) => Err(refused(name, "UNION and DISTINCT would leave rows out that are there twice")
            .hint("every event counts: write UNION ALL, and leave DISTINCT out")),
        other => match asof(other) {
            Some(join) => {
                let mut selects = selects(name, &join.left, snapshot)?;
                selects.iter_mut().try_for_each(|select| select.join(name, join, snapshot))?;
                Ok(selects)
            }
            None => {
                let what = other.display().to_string();
                let what = what.split([':', '(']).next().unwrap_or_default().trim().to_string();
                Err(refused(name, &format!("what it is over contains a {what}"))
                    .hint("each SELECT only filters and projects one source; aggregate over all of them"))
            }
        },
    }
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

fn asof(node: &LogicalPlan) -> Option<&AsofNode> {
    match node {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref(),
        _ => None,
    }
}

/// Whether this node gives the rows that a view is over.
pub(super) fn gives_rows(node: &LogicalPlan) -> bool {
    match node {
        LogicalPlan::TableScan(_) | LogicalPlan::Union(_) | LogicalPlan::Join(_) | LogicalPlan::Distinct(_) => true,
        LogicalPlan::Projection(projection) => asof(&projection.input).is_some(),
        other => asof(other).is_some(),
    }
}

/// The columns of the rows, each by a name of its own: the first has the bare one, another has its table before it.
fn row_names(node: &LogicalPlan) -> Vec<String> {
    let mut taken: Vec<String> = vec![];
    for (qualifier, field) in node.schema().iter() {
        let mut name = names::shown(field.name()).to_string();
        if let Some(table) = qualifier.filter(|_| taken.contains(&name)) {
            name = format!("{}.{name}", table.table());
        }
        taken.push(name);
    }
    taken
}

/// A plan in which the columns of joined relations are told apart without their qualifiers.
pub(super) fn with_row_names(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    Ok(renamed(plan)?.0)
}

/// Also the new names, as long as they are those of the columns: an alias gives others.
fn renamed(plan: LogicalPlan) -> PlanResult<(LogicalPlan, Option<Renamed>)> {
    if gives_rows(&plan) {
        let renamed = plan.schema().iter().zip(row_names(&plan)).filter_map(|((qualifier, field), to)| {
            (to != names::shown(field.name())).then(|| ((qualifier.cloned(), field.name().clone()), to))
        });
        let renamed = renamed.collect();
        return Ok((plan, Some(renamed)));
    }
    let mut names = None;
    let plan = plan.map_children(|child| {
        let (child, of_child) = renamed(child)?;
        names = of_child;
        Ok(Transformed::yes(child))
    });
    let plan = plan?.data;
    let Some(renames) = names.filter(|renames| !renames.is_empty() && !matches!(plan, LogicalPlan::SubqueryAlias(_)))
    else {
        return Ok((plan, None));
    };
    let plan = plan.map_expressions(|expr| {
        let before = expr.schema_name().to_string();
        let after = expr.transform(|e| match &e {
            Expr::Column(c) => match renames.iter().find(|((q, name), _)| *q == c.relation && *name == c.name) {
                Some((_, to)) => Ok(Transformed::yes(column(to))),
                None => Ok(Transformed::no(e)),
            },
            _ => Ok(Transformed::no(e)),
        })?;
        // What is above knows an aggregate by the name it had.
        Ok(match after.transformed && after.data.schema_name().to_string() != before {
            true => Transformed::yes(after.data.alias(before)),
            false => after,
        })
    })?;
    let names = (!matches!(plan.data, LogicalPlan::Projection(_))).then_some(renames);
    Ok((plan.data, names))
}

/// By qualifier and name.
type Renamed = Vec<((Option<TableReference>, String), String)>;

impl Select {
    /// A table beside the rows.
    fn join(&mut self, name: &str, join: &AsofNode, snapshot: &Snapshot) -> PlanResult<()> {
        let mut right = &join.right;
        let label = right.schema().iter().find_map(|(qualifier, _)| qualifier.map(|q| q.table().to_string()));
        while let LogicalPlan::SubqueryAlias(alias) = right {
            right = &alias.input;
        }
        let table = match right {
            LogicalPlan::TableScan(scan) => TidemarkTable::of(&scan.source),
            _ => None,
        };
        let object = match table.map(|table| &table.target) {
            Some(ScanTarget::Steps(id)) => snapshot.get_id(*id),
            _ => None,
        };
        let Some((object, relation)) = object.and_then(|object| Some((object, object.relation()?))) else {
            let what = table.map_or("a query".to_string(), |table| format!("\"{}\"", table.name));
            return Err(refused(name, &format!("{what} is no table with a primary key and a watermark to join")).hint(
                "CREATE TABLE … (key … PRIMARY KEY, at TIMESTAMPTZ, WATERMARK FOR at AS at), and join by its key",
            ));
        };
        if join.tolerance.is_some() {
            return Err(refused(name, &format!("the join of \"{}\" has a tolerance", object.name))
                .hint("leave it out, and compare the times in a CASE over the table's columns"));
        }
        let mut key = vec![None; relation.primary_key.len()];
        for (left, right) in &join.keys {
            let (left, right) = (self.over(left, &join.left)?, unqualified(right.clone())?);
            let (bare, is_cast) = match right {
                Expr::Cast(cast) => (*cast.expr, true),
                other => (other, false),
            };
            let at = relation.primary_key.iter().position(|i| bare == column(&relation.columns[*i].name));
            let Some(at) = at else {
                return Err(refused(name, &format!("{bare} is not the primary key of its table")));
            };
            let own = &relation.columns[relation.primary_key[at]].ty.arrow();
            // Integers are one number in any width.
            if is_cast && !own.is_integer() {
                let why = format!("the key {bare} of \"{}\" is compared as another type", object.name);
                return Err(refused(name, &why).hint("cast the other side to its type"));
            }
            key[at] = Some(left);
        }
        let key: Vec<Expr> = key.into_iter().flatten().collect();
        let begin = self.fields.len();
        let label = label.unwrap_or_else(|| object.name.clone());
        let mut own = vec![];
        for field in relation.schema().fields() {
            let mut unique = format!("{label}.{}", field.name());
            while self.fields.iter().any(|taken| *taken.name() == unique) {
                unique.push('_');
            }
            own.push((field.name().clone(), unique.clone()));
            self.fields.push(Field::new(unique, field.data_type().clone(), true));
        }
        let time = &relation.columns[event_time(name, object, relation)?].name;
        for field in join.right.schema().fields() {
            // The time of a version is that from which on it counts.
            let is = if field.name() == EVENT_TIME_COLUMN { time } else { field.name() };
            self.exprs.push(match own.iter().find(|(own, _)| own == is) {
                Some((_, unique)) => column(unique),
                None if field.name() == OP_COLUMN => lit(ScalarValue::Utf8(None)),
                None => return Err(refused(name, &format!("\"{}\" has no column {is}", object.name))),
            });
        }
        let joined = Joined {
            table: object.id,
            table_name: object.name.clone(),
            key,
            is_left: join.kind == AsofKind::Left,
            is_strict: join.op == AsofOp::Gt,
            columns: begin..self.fields.len(),
        };
        let time = match self.over(&join.left_time, &join.left)? {
            Expr::Cast(cast) => *cast.expr,
            other => other,
        };
        self.joined.push(JoinedAt { of: joined, time });
        Ok(())
    }

    /// An expression over the columns of `node`, over the relation's.
    fn over(&self, expr: &Expr, node: &LogicalPlan) -> PlanResult<Expr> {
        let schema = node.schema();
        let replaced = expr.clone().transform(|e| match &e {
            Expr::Column(column) => Ok(Transformed::yes(self.exprs[schema.index_of_column(column)?].clone())),
            _ => Ok(Transformed::no(e)),
        });
        unqualified(replaced?.data)
    }
}

/// The columns, left and right, that a join's condition says are equal; `None`: it says something else.
fn equalities(join: &Join) -> Option<Vec<(Column, Column)>> {
    let bare = |expr: &Expr| match expr {
        Expr::Column(column) => Some(column.clone()),
        Expr::Cast(cast) => match cast.expr.as_ref() {
            Expr::Column(column) => Some(column.clone()),
            _ => None,
        },
        _ => None,
    };
    let mut equal = vec![];
    for (l, r) in &join.on {
        equal.push((bare(l)?, bare(r)?));
    }
    for condition in join.filter.iter().flat_map(split_conjunction) {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
        let (l, r) = (bare(left)?, bare(right)?);
        equal.push(match join.left.schema().has_column(&l) {
            true => (l, r),
            false => (r, l),
        });
    }
    let is_across = |(l, r): &(Column, Column)| join.left.schema().has_column(l) && join.right.schema().has_column(r);
    (!equal.is_empty() && equal.iter().all(is_across)).then_some(equal)
}

/// The source or table of a scan.
fn read<'a>(name: &str, scan: &TableScan, snapshot: &'a Snapshot) -> PlanResult<(&'a Object, &'a Relation)> {
    let table = TidemarkTable::of(&scan.source).ok_or_else(|| refused(name, "it does not read a source"))?;
    let id = match &table.target {
        ScanTarget::Relation(id) | ScanTarget::CurrentRows(id) => *id,
        ScanTarget::Files(_) => {
            let message = format!("it reads table \"{}\", which is files", table.name);
            return Err(refused(name, &message)
                .hint("files say nothing of what is new in them: INSERT INTO a source SELECT … FROM the table"));
        }
        _ => return Err(refused(name, &format!("it reads \"{}\"", table.name)).hint("read a source or table")),
    };
    let object = snapshot.get_id(id).ok_or_else(|| {
        refused(name, &format!("it reads \"{}\", which is no source or table", table.name))
            .hint("a feature view reads sources and tables")
    })?;
    let relation = object.relation().ok_or_else(|| {
        refused(name, &format!("it reads {} \"{}\"", object.kind(), object.name))
            .hint("a feature view reads sources and tables; views over feature views are not maintained")
    })?;
    Ok((object, relation))
}

fn event_time(name: &str, object: &Object, relation: &Relation) -> PlanResult<usize> {
    relation.event_time.ok_or_else(|| {
        PlanError::new(
            sqlstate::INVALID_DEFINITION,
            format!(
                "{} \"{}\" has no watermark, so feature view \"{name}\" cannot be kept current",
                object.kind(),
                object.name
            ),
        )
        .hint("declare WATERMARK FOR column AS column - INTERVAL '…' in the source")
    })
}
