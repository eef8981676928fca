//! `OPTIMIZE history.v` and `VACUUM history.v`: care for the history table of a feature view.

use super::{cursor::Cursor, duration::duration_us, session};
use crate::{PlanError, PlanResult, statement::Statement};

pub(super) fn optimize(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    c.expect("OPTIMIZE")?;
    let place = *c;
    let mut path = c.path()?;
    match (path.pop(), path.pop(), path.pop()) {
        (Some(view), Some(schema), None) if schema == "history" => Ok(Statement::Optimize { view }),
        (Some(name), _, _) => Err(place.place(
            PlanError::syntax(format!("there are no files of \"{name}\" to optimize"))
                .hint("OPTIMIZE history.<feature view>"),
        )),
        _ => Err(place.unexpected()),
    }
}

/// PostgreSQL's `VACUUM` has nothing to clean; of a history table it removes what has been replaced.
pub(super) fn vacuum(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let mut ahead = *c;
    ahead.expect("VACUUM")?;
    match ahead.path() {
        Ok(path) if path.len() == 2 && path[0] == "history" => {
            let view = path[1].clone();
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
        _ => session::maintenance(c, "VACUUM"),
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
        let view = || "a v".to_string();
        assert_eq!(one("optimize history.\"a v\"").unwrap(), Statement::Optimize { view: view() });
        let vacuum = |retain_us| Statement::VacuumHistory { view: view(), retain_us };
        assert_eq!(one("VACUUM history.\"a v\";").unwrap(), vacuum(None));
        assert_eq!(one("VACUUM history.\"a v\" RETAIN '2 days'").unwrap(), vacuum(Some(172_800_000_000)));
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
