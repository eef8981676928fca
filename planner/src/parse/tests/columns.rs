//! `ALTER TABLE` of columns, indexes, and what `MERGE` is turned into.

use super::*;
use crate::statement::{ColumnChange, CreateIndex, MergeAction};
use tidemark_catalog::QualifiedName;

#[test]
fn columns_are_added_dropped_renamed_and_given_defaults() {
    let alter = |kind, changes: Vec<ColumnChange>| Statement::AlterColumns {
        kind,
        if_exists: false,
        name: "t".into(),
        changes,
    };
    let added = |name: &str, ty, not_null, default: Option<&str>| ColumnChange::Add {
        if_not_exists: false,
        column: column(name, ty, not_null),
        default: default.map(str::to_string),
    };
    check(
        "alter table only_a_name add column a int default -1 not null, add \"B\" text default 'it''s', drop column c cascade",
        Statement::AlterColumns {
            kind: ObjectKind::Table,
            if_exists: false,
            name: "only_a_name".into(),
            changes: vec![
                added("a", SqlType::Int4, true, Some("-1")),
                added("B", SqlType::Text, false, Some("it's")),
                ColumnChange::Drop { if_exists: false, name: "c".into() },
            ],
        },
    );
    check(
        "ALTER SOURCE IF EXISTS public.t ADD IF NOT EXISTS at TIMESTAMPTZ DEFAULT NULL",
        Statement::AlterColumns {
            kind: ObjectKind::Source,
            if_exists: true,
            name: QualifiedName::new("public", "t"),
            changes: vec![ColumnChange::Add {
                if_not_exists: true,
                column: column("at", SqlType::TimestampTz, false),
                default: None,
            }],
        },
    );
    let rename = ColumnChange::Rename { name: "a".into(), to: "b".into() };
    check("ALTER TABLE t RENAME COLUMN a TO b", alter(ObjectKind::Table, vec![rename.clone()]));
    check("ALTER TABLE t RENAME a TO b", alter(ObjectKind::Table, vec![rename]));
    let default = |value: Option<&str>| ColumnChange::SetDefault { name: "a".into(), value: value.map(str::to_string) };
    check(
        "ALTER TABLE t ALTER COLUMN a SET DEFAULT true, ALTER a DROP DEFAULT",
        alter(ObjectKind::Table, vec![default(Some("true")), default(None)]),
    );
    let Ok(parsed) = parse("CREATE TABLE t (a int DEFAULT 7 NOT NULL, b text DEFAULT NULL)") else { panic!() };
    let Statement::CreateRelation(create) = &parsed[0].statement else { panic!() };
    assert_eq!(create.defaults, options(&[("a", "7")]));
}

#[test]
fn of_an_index_little_is_kept() {
    let index = |name: Option<&str>, table: QualifiedName, unique, columns: &[Option<&str>]| {
        Statement::CreateIndex(CreateIndex {
            name: name.map(str::to_string),
            table,
            unique,
            columns: columns.iter().map(|column| column.map(str::to_string)).collect(),
        })
    };
    check("CREATE INDEX ON t (a)", index(None, "t".into(), false, &[Some("a")]));
    check(
        "create unique index concurrently if not exists s.\"I\" on only public.t using btree (a desc, lower(b), (c + 1)) where a > 0",
        index(Some("I"), QualifiedName::new("public", "t"), true, &[Some("a"), None, None]),
    );
    check(
        "DROP INDEX IF EXISTS s.i, j CASCADE",
        Statement::DropIndex { if_exists: true, names: vec![QualifiedName::new("s", "i"), "j".into()] },
    );
}

#[test]
fn a_merge_is_one_query_over_the_table_and_its_source() {
    let sql = "WITH s AS (SELECT 1 AS id) MERGE INTO public.t USING s ON t.id = CASE WHEN true THEN s.id END
               WHEN MATCHED AND t.n = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET n = s.id / 2
               WHEN NOT MATCHED AND id > 1 THEN DO NOTHING WHEN NOT MATCHED THEN INSERT (id, n) VALUES (id, DEFAULT)";
    let parsed = parse(sql).unwrap();
    let Statement::Merge(merge) = &parsed[0].statement else { panic!("{parsed:?}") };
    assert_eq!((&merge.table, merge.alias.as_str()), (&QualifiedName::new("public", "t"), "t"));
    let clauses: Vec<_> = merge.clauses.iter().map(|c| (c.action, c.columns.join(" "), c.values)).collect();
    let expected = [
        (MergeAction::Delete, "", 0),
        (MergeAction::Update, "n", 1),
        (MergeAction::Nothing, "", 0),
        (MergeAction::Insert, "id n", 2),
    ];
    assert_eq!(clauses, expected.map(|(action, columns, values)| (action, columns.to_string(), values)));
    let query = merge.query.to_string();
    assert!(
        query.starts_with(
            "WITH s AS (SELECT 1 AS id) SELECT \"t\".*, CASE WHEN \"t\".\"$row\" IS NOT NULL AND (t.n = 1) THEN 0"
        ),
        "{query}"
    );
    assert!(query.contains("WHEN \"t\".\"$row\" IS NULL AND (\"s\".id > 1) THEN 2"), "{query}");
    assert!(
        query.contains(" = 1 THEN s.id / 2 END AS \"$value2\", \"s\".id AS \"$value3\", DEFAULT AS \"$value4\""),
        "{query}"
    );
    assert!(
        query.ends_with("FROM \"$rows\".\"public\".\"t\" AS \"t\" RIGHT JOIN s ON t.id = CASE WHEN true THEN s.id END"),
        "{query}"
    );
    // Where nothing is put in, what is not matched is not read.
    let parsed = parse("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DELETE").unwrap();
    let Statement::Merge(merge) = &parsed[0].statement else { panic!("{parsed:?}") };
    assert!(merge.query.to_string().contains(" INNER JOIN s "), "{}", merge.query);
}
