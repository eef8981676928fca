//! `OPTIMIZE history.v` and `VACUUM history.v`: care for the history table of a feature view.

use super::{cursor::Cursor, duration::duration_us, session};
use crate::{PlanError, PlanResult, statement::Statement};
use tidemark_catalog::{QualifiedName, schema_of_history};

pub(super) fn optimize(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("OPTIMIZE")?;
    let place = *c;
    let mut path = c.path()?;
    if let Some(view) = view(&path) {
        return Ok(Statement::Optimize { view });
    }
    match (path.pop(), path.pop(), path.pop()) {
        (Some(name), _, _) => Err(place.place(
            PlanError::syntax(format!("there are no files of \"{name}\" to optimize"))
                .hint("OPTIMIZE history.<feature view>"),
        )),
        _ => Err(place.unexpected()),
    }
}

/// The feature view whose history a name is.
fn view(path: &[String]) -> Option<QualifiedName> {
    let [schema, name] = path else { return None };
    Some(QualifiedName::new(schema_of_history(schema)?, name))
}

/// PostgreSQL's `VACUUM` has nothing to clean; of a history table it removes what has been replaced.
pub(super) fn vacuum(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let mut ahead = *c;
    ahead.expect("VACUUM")?;
    match ahead.path().ok().and_then(|path| view(&path)) {
        Some(view) => {
            let mut retain_us = None;
            if ahead.eat("RETAIN") {
                let place = ahead;
                let text =
                    ahead.string().map_err(|error| error.hint("VACUUM history.<feature view> RETAIN '1 day'"))?;
                retain_us = Some(duration_us(&text).map_err(|error| place.place(error))?);
            }
            *c = ahead;
            Ok(Statement::VacuumHistory { view, retain_us })
        }
        None => session::maintenance(c, "VACUUM"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn one(sql: &str) -> PlanResult<Statement> {
        parse(sql).map(|mut parsed| parsed.remove(0).statement)
    }

    #[test]
    fn care_is_for_history_tables_alone() {
        let view = || QualifiedName::new("public", "a v");
        assert_eq!(one("optimize history.\"a v\"").unwrap(), Statement::Optimize { view: view() });
        let vacuum = |retain_us| Statement::VacuumHistory { view: view(), retain_us };
        assert_eq!(one("VACUUM history.\"a v\";").unwrap(), vacuum(None));
        assert_eq!(one("VACUUM history.\"a v\" RETAIN '2 days'").unwrap(), vacuum(Some(172_800_000_000)));
        let view = QualifiedName::new("marts", "v");
        assert_eq!(one("OPTIMIZE history_marts.v").unwrap(), Statement::Optimize { view: view.clone() });
        assert_eq!(one("VACUUM history_marts.v").unwrap(), Statement::VacuumHistory { view, retain_us: None });
        for sql in ["VACUUM", "VACUUM t", "VACUUM (VERBOSE) t", "VACUUM FULL t (a)", "vacuum analyze public.t"] {
            assert_eq!(one(sql).unwrap(), Statement::Nothing { tag: "VACUUM" }, "{sql}");
        }
        for sql in
            ["OPTIMIZE", "OPTIMIZE v", "OPTIMIZE public.v", "OPTIMIZE history.v x", "VACUUM history.v RETAIN 'soon'"]
        {
            assert!(one(sql).is_err(), "{sql}");
        }
    }
}
