//! `CREATE TRAINING SET` and `REFRESH TRAINING SET`.

use super::cursor::Cursor;
use crate::{
    PlanResult,
    statement::{CreateTrainingSet, Statement},
};

/// Behind `CREATE TRAINING SET`.
pub(super) fn create(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    let if_not_exists = c.if_not_exists();
    let name = c.object_name()?;
    let options = if c.eat("WITH") { c.options()? } else { Default::default() };
    c.expect("AS")?;
    let query_text = c.rest_text().to_string();
    let query = c.query()?;
    Ok(Statement::CreateTrainingSet(CreateTrainingSet { if_not_exists, name, options, query, query_text }))
}

/// `REFRESH TRAINING SET name [AS RECORDED]`
pub(super) fn refresh(c: &mut Cursor<'_>) -> PlanResult<Statement> {
    for word in ["REFRESH", "TRAINING", "SET"] {
        c.expect(word)?;
    }
    Ok(Statement::RefreshTrainingSet { name: c.object_name()?, as_recorded: c.eat_all(&["AS", "RECORDED"]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parse::parse, parse::under_name};
    use tidemark_catalog::{ObjectKind, QualifiedName};

    fn one(sql: &str) -> PlanResult<Statement> {
        parse(sql).map(|mut parsed| parsed.remove(0).statement)
    }

    #[test]
    fn a_training_set_is_an_object_like_others() {
        let sql = "CREATE TRAINING SET IF NOT EXISTS \"T\" WITH (complete = 'state') AS SELECT 1 AS x -- one";
        let Ok(Statement::CreateTrainingSet(create)) = one(sql) else { panic!("{:?}", one(sql)) };
        assert_eq!((create.name.name.as_str(), create.query_text.as_str()), ("T", "SELECT 1 AS x"));
        assert!(create.if_not_exists && create.options["complete"] == "state");
        let renamed = under_name("create training set t AS SELECT 1 AS t", "u").unwrap();
        assert_eq!(renamed, "create training set u AS SELECT 1 AS t");
        let (kind, name) = (ObjectKind::TrainingSet, QualifiedName::from("t"));
        for (sql, expected) in [
            ("REFRESH TRAINING SET t", Statement::RefreshTrainingSet { name: name.clone(), as_recorded: false }),
            (
                "refresh training set t as recorded",
                Statement::RefreshTrainingSet { name: name.clone(), as_recorded: true },
            ),
            ("SHOW TRAINING SETS", Statement::ShowObjects(kind)),
            ("SHOW CREATE TRAINING SET t", Statement::ShowCreate { kind, name: name.clone() }),
            ("DESCRIBE TRAINING SET t", Statement::Describe { name: name.clone() }),
            (
                "DROP TRAINING SET t",
                Statement::Drop { kind, if_exists: false, names: vec![name.clone()], cascade: false },
            ),
        ] {
            assert_eq!(one(sql).as_ref(), Ok(&expected), "{sql}");
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_an_error() {
        for sql in [
            "CREATE TRAINING t AS SELECT 1",
            "CREATE TRAINING SET t",
            "CREATE TRAINING SET t AS 1",
            "CREATE OR REPLACE TRAINING SET t AS SELECT 1",
            "REFRESH TRAINING SET",
            "REFRESH TRAINING SET t AS",
            "REFRESH TRAINING SET t RECORDED",
        ] {
            assert!(one(sql).is_err(), "{sql}");
        }
    }
}
