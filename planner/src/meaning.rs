//! What the names of a definition mean: where each that says no schema was found when the definition was made. It is kept with the
//! definition, so that neither another search path nor something made later under that name elsewhere changes it.

use crate::{bind::SystemTables, composed, names::folded};
use datafusion::sql::sqlparser::ast::{self, Expr, visit_expressions, visit_relations};
use std::ops::ControlFlow;
use tidemark_catalog::{Place, SearchPath, Snapshot, TEMPORARY_SCHEMA, schema_of_history};

/// The schemas where a name without one is looked for, in this order. The catalog's tables come first, where the path does not say
/// otherwise.
pub(crate) fn looked_for(path: &[String]) -> impl Iterator<Item = &str> {
    let catalog = (!path.iter().any(|schema| schema == "pg_catalog")).then_some("pg_catalog");
    [TEMPORARY_SCHEMA].into_iter().chain(catalog).chain(path.iter().map(String::as_str))
}

/// Of a query that is kept in `schema`. A name that the query gives itself, by WITH, hides the relation here as it does there.
pub fn of_query(schema: String, query: &ast::Query, snapshot: &Snapshot, system: &dyn SystemTables) -> Place {
    let mut place = Place::of(schema);
    let _ = visit_relations(query, |name| {
        if let [part] = name.0.as_slice()
            && let Some(name) = part.as_ident().map(folded)
            && let Some(schema) = schema_of(&name, snapshot, system)
        {
            place.relations.note(&name, &schema);
        }
        ControlFlow::<()>::Continue(())
    });
    let _ = visit_expressions(query, |expr| {
        aggregate(expr, snapshot, &mut place);
        ControlFlow::<()>::Continue(())
    });
    place
}

/// Of the expression of an aggregate.
pub fn of_expression(schema: String, expr: &Expr, snapshot: &Snapshot) -> Place {
    let mut place = Place::of(schema);
    let _ = visit_expressions(expr, |expr| {
        aggregate(expr, snapshot, &mut place);
        ControlFlow::<()>::Continue(())
    });
    place
}

fn aggregate(expr: &Expr, snapshot: &Snapshot, place: &mut Place) {
    let Expr::Function(call) = expr else { return };
    let Some(name) = composed::own_name(&call.name).filter(|name| name.schema.is_none()) else { return };
    if let Some(object) = snapshot.aggregate(&name) {
        place.aggregates.note(&name.name, object.schema_name());
    }
}

fn schema_of(name: &str, snapshot: &Snapshot, system: &dyn SystemTables) -> Option<String> {
    let path = match snapshot.path() {
        SearchPath::Definition(place) => return place.relations.0.get(name).cloned(),
        SearchPath::Schemas(path) => path,
    };
    let has = |schema: &&str| match schema_of_history(schema) {
        Some(of) => snapshot.get((of, name)).is_some_and(|object| object.feature_view().is_some()),
        None => system.schema_of(schema, name).is_some() || snapshot.get((*schema, name)).is_some(),
    };
    looked_for(path).find(has).map(str::to_string)
}
