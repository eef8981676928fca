//! What the names of a definition mean: where each that says no schema was found when the definition was made. It is kept with the
//! definition, so that neither another search path nor something made later under that name elsewhere changes it.

use crate::{archive::is_archived, bind::SystemTables, composed, names::folded};
use datafusion::sql::sqlparser::ast::{self, Expr, visit_expressions, visit_relations};
use std::ops::ControlFlow;
use tidemark_catalog::{Place, SearchPath, Snapshot, looked_for, schema_of_history};

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
        Some(of) => {
            snapshot.get((of, name)).is_some_and(|object| object.feature_view().is_some() || is_archived(object))
        }
        None => system.schema_of(schema, name).is_some() || snapshot.get((*schema, name)).is_some(),
    };
    looked_for(path).find(has).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Statement, bind::NoSystemTables, parse::parse};
    use std::sync::Arc;
    use tidemark_catalog::{Aggregate, Body, Object, ObjectId, Schema, SqlType, View};

    fn snapshot(path: &[&str]) -> Snapshot {
        let object = |id, schema: &str, name: &str, body| Object {
            id: ObjectId(id),
            name: name.to_string(),
            created_us: 0,
            comment: None,
            place: Place::of(schema),
            body,
        };
        let view = || Body::View(View { sql: String::new(), query: String::new(), columns: vec![], reads: vec![] });
        let (sql, expression) = (String::new(), "sum(x)".to_string());
        let rate = Aggregate { sql, expression, parameters: vec![], returns: SqlType::Int8, reads: vec![] };
        let objects = [
            object(1, "public", "a", view()),
            object(2, "marts", "a", view()),
            object(3, "public", "b", view()),
            object(4, "marts", "rate", Body::Aggregate(rate)),
        ];
        let schema = Schema { id: ObjectId(10), name: "marts".to_string(), created_us: 0, comment: None };
        let path = path.iter().map(|schema| schema.to_string()).collect();
        Snapshot::new(1, objects).with_schemas([schema]).on(Arc::new(SearchPath::Schemas(path)))
    }

    fn place(sql: &str, path: &[&str]) -> Place {
        let Some(Statement::Query(query)) = parse(sql).expect(sql).pop().map(|parsed| parsed.statement) else {
            panic!("{sql} is no query")
        };
        of_query("public".to_string(), &query, &snapshot(path), &NoSystemTables)
    }

    #[test]
    fn what_is_not_in_public_is_noted_where_no_schema_is_said() {
        let sql = "SELECT rate(a.x), sum(x) FROM a JOIN b ON true JOIN public.a AS c ON true WHERE EXISTS (SELECT 1 FROM gone)";
        let mut expected = Place::of("public");
        assert_eq!(place(sql, &["public"]), expected);
        expected.relations.note("a", "marts");
        expected.aggregates.note("rate", "marts");
        assert_eq!(place(sql, &["marts", "public"]), expected);
        assert_eq!(place("SELECT marts.rate(x) FROM marts.a", &["marts"]), Place::of("public"));
    }

    #[test]
    fn a_definition_that_is_looked_at_again_means_the_same() {
        let first = place("SELECT rate(x) FROM a", &["marts", "public"]);
        let again = snapshot(&["public"]).on(Arc::new(SearchPath::Definition(first.clone())));
        let Some(Statement::Query(query)) =
            parse("SELECT rate(x) FROM a").expect("it parses").pop().map(|parsed| parsed.statement)
        else {
            panic!("it is a query")
        };
        assert_eq!(of_query("public".to_string(), &query, &again, &NoSystemTables), first);
    }
}
