//! Statements and refusals as tables, and the promise that no text makes the parser panic.

mod columns;
mod refusals;

use super::{dialect::DIALECT, duration_us, parse};
use crate::{PlanError, PlanResult, statement::*};
use datafusion::sql::sqlparser::tokenizer::Tokenizer;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tidemark_catalog::{Include, ObjectKind, QualifiedName, SqlType};

const SECOND: i64 = 1_000_000;

fn one(sql: &str) -> PlanResult<Parsed> {
    let mut statements = parse(sql)?;
    assert_eq!(statements.len(), 1, "{sql}");
    statements.pop().ok_or_else(|| PlanError::syntax("no statement"))
}

fn check(sql: &str, expected: Statement) {
    match one(sql) {
        Ok(parsed) => assert_eq!(parsed.statement, expected, "{sql}"),
        Err(error) => panic!("{sql}\n{error:?}"),
    }
}

/// The error's code and message, and the text from its position on (`""` at the end, `-` where it has none).
fn check_error(sql: &str, sqlstate: &str, message: &str, at: &str) {
    let error = match parse(sql) {
        Err(error) => error,
        Ok(parsed) => panic!("{sql}\nparsed: {parsed:?}"),
    };
    assert_eq!((error.sqlstate, error.message.as_str()), (sqlstate, message), "{sql}");
    let found = error.position.map(|position| sql.chars().skip(position - 1).collect::<String>());
    assert!(found.as_deref().unwrap_or("-").starts_with(at), "{sql}\nat {found:?}");
    assert!(!at.is_empty() || found.as_deref() == Some(""), "{sql}\nat {found:?}");
}

fn options(given: &[(&str, &str)]) -> BTreeMap<String, String> {
    given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn column(name: &str, ty: SqlType, not_null: bool) -> ColumnDef {
    ColumnDef { name: name.into(), ty, not_null }
}

fn relation(kind: ObjectKind, name: &str) -> CreateRelation {
    CreateRelation {
        kind,
        name: name.into(),
        if_not_exists: false,
        columns: vec![],
        defaults: BTreeMap::new(),
        includes: vec![],
        primary_key: vec![],
        watermark: None,
        options: BTreeMap::new(),
        upsert: false,
        encode: Default::default(),
    }
}

#[test]
fn a_source_has_columns_a_watermark_and_options() {
    check(
        "create source if not exists Public.Clicks (user_id BIGINT NOT NULL, \"Item\" integer null, price numeric(18, 2),
           -- the time
           event_time timestamp with time zone not null,
           WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds')
         WITH (clock = 'event', properties.bootstrap.server = 'localhost:9092', N = -1) FORMAT PLAIN ENCODE JSON",
        Statement::CreateRelation(CreateRelation {
            name: QualifiedName::new("public", "clicks"),
            if_not_exists: true,
            columns: vec![
                column("user_id", SqlType::Int8, true),
                column("Item", SqlType::Int4, false),
                column("price", SqlType::Numeric { precision: 18, scale: 2 }, false),
                column("event_time", SqlType::TimestampTz, true),
            ],
            watermark: Some(("event_time".into(), 5 * SECOND)),
            options: options(&[
                ("clock", "event"),
                ("n", "-1"),
                ("properties.bootstrap.server", "localhost:9092"),
            ]),
            ..relation(ObjectKind::Source, "clicks")
        }),
    );
}

#[test]
fn a_source_includes_what_a_broker_knows_of_a_message() {
    check(
        "CREATE SOURCE s (x int) INCLUDE key AS k INCLUDE header 'trace' text AS trace INCLUDE timestamp AS at,
         INCLUDE offset AS \"Offset\" WITH (connector = 'kafka')",
        Statement::CreateRelation(CreateRelation {
            columns: vec![
                column("x", SqlType::Int4, false),
                column("k", SqlType::Bytea, false),
                column("trace", SqlType::Text, false),
                column("at", SqlType::TimestampTz, false),
                column("Offset", SqlType::Int8, false),
            ],
            includes: vec![
                (1, Include::Key),
                (2, Include::Header("trace".into())),
                (3, Include::Timestamp),
                (4, Include::Offset),
            ],
            options: options(&[("connector", "kafka")]),
            ..relation(ObjectKind::Source, "s")
        }),
    );
    let refused = "INCLUDE KEY as integer is not supported";
    check_error("CREATE SOURCE s (x int) INCLUDE key int AS k", "0A000", refused, "int AS");
    check_error("CREATE SOURCE s (x int) INCLUDE key AS x", "42701", "column \"x\" specified more than once", "key AS");
}

#[test]
fn a_table_has_a_key_that_is_never_null() {
    let users = CreateRelation {
        columns: vec![column("id", SqlType::Int8, true), column("plan", SqlType::Text, false)],
        primary_key: vec!["id".into()],
        upsert: true,
        ..relation(ObjectKind::Table, "users")
    };
    let expected = Statement::CreateRelation(users);
    check("CREATE TABLE users (id bigint primary key, plan text) FORMAT UPSERT ENCODE JSON", expected.clone());
    let Statement::CreateRelation(users) = expected else { panic!("it is a table") };
    let expected = Statement::CreateRelation(CreateRelation { name: QualifiedName::new("public", "users"), ..users });
    check(
        "CREATE TABLE tidemark.public.users (id int8, plan varchar(10), CONSTRAINT pk PRIMARY KEY (id)) FORMAT UPSERT",
        expected,
    );
}

#[test]
fn a_watermark_is_the_column_or_the_column_minus_a_fixed_interval() {
    for (text, delay_us) in [
        ("ts", 0),
        ("ts - INTERVAL '5 seconds'", 5 * SECOND),
        ("ts - interval '5' second", 5 * SECOND),
        ("ts - interval '1 day 02:00:00'", 26 * 3600 * SECOND),
    ] {
        let sql = format!("CREATE SOURCE s (ts timestamptz, WATERMARK FOR ts AS {text})");
        let Ok(Parsed { statement: Statement::CreateRelation(created), .. }) = one(&sql) else { panic!("{sql}") };
        assert_eq!(created.watermark, Some(("ts".to_string(), delay_us)), "{sql}");
    }
}

#[test]
fn every_type_has_its_postgresql_spellings() {
    let list = |ty| SqlType::Array(Box::new(ty));
    for (text, ty) in [
        ("bool", SqlType::Bool),
        ("BOOLEAN", SqlType::Bool),
        ("int2", SqlType::Int2),
        ("smallint", SqlType::Int2),
        ("int", SqlType::Int4),
        ("int4", SqlType::Int4),
        ("integer", SqlType::Int4),
        ("int8", SqlType::Int8),
        ("pg_catalog.int8", SqlType::Int8),
        ("bigint", SqlType::Int8),
        ("real", SqlType::Float4),
        ("float4", SqlType::Float4),
        ("float(24)", SqlType::Float4),
        ("float", SqlType::Float8),
        ("float8", SqlType::Float8),
        ("double precision", SqlType::Float8),
        ("numeric(9)", SqlType::Numeric { precision: 9, scale: 0 }),
        ("decimal(38,38)", SqlType::Numeric { precision: 38, scale: 38 }),
        ("text", SqlType::Text),
        ("varchar", SqlType::Text),
        ("character varying(3)", SqlType::Text),
        ("char(1)", SqlType::Text),
        ("uuid", SqlType::Uuid),
        ("json", SqlType::Json),
        ("jsonb", SqlType::Jsonb),
        ("bytea", SqlType::Bytea),
        ("date", SqlType::Date),
        ("time", SqlType::Time),
        ("time without time zone", SqlType::Time),
        ("timestamp", SqlType::Timestamp),
        ("timestamp(6) without time zone", SqlType::Timestamp),
        ("timestamp with time zone", SqlType::TimestampTz),
        ("timestamptz", SqlType::TimestampTz),
        ("interval", SqlType::Interval),
        ("int[]", list(SqlType::Int4)),
        ("double precision[3]", list(SqlType::Float8)),
        ("text array", list(SqlType::Text)),
    ] {
        check(
            &format!("CREATE TABLE t (c {text} NOT NULL)"),
            Statement::CreateRelation(CreateRelation {
                columns: vec![column("c", ty, true)],
                ..relation(ObjectKind::Table, "t")
            }),
        );
    }
}

#[test]
fn a_view_keeps_its_query_as_it_was_written() {
    let sql = "  CREATE OR REPLACE FEATURE VIEW \"Ü\" WITH (ttl = '30 days', tags='a,b') AS /* é */ SELECT  'ü;' AS Ä,\n count(*) OVER w FROM c -- end\n ;";
    let Ok(parsed) = one(sql) else { panic!("{:?}", one(sql)) };
    assert_eq!(parsed.text, sql.trim().trim_end_matches([';', '\n', ' ']).trim_end_matches(" -- end"));
    let Statement::CreateFeatureView(view) = parsed.statement else { panic!() };
    assert_eq!((view.name.name.as_str(), view.or_replace, view.if_not_exists), ("Ü", true, false));
    assert_eq!(view.options, options(&[("tags", "a,b"), ("ttl", "30 days")]));
    assert_eq!(view.query_text, "SELECT  'ü;' AS Ä,\n count(*) OVER w FROM c");
    assert_eq!(view.query.to_string(), "SELECT 'ü;' AS Ä, count(*) OVER w FROM c");

    let Ok(parsed) = one("CREATE VIEW IF NOT EXISTS v (a, \"B\") AS (SELECT 1, 2)") else { panic!() };
    let Statement::CreateView { name, if_not_exists, columns, query_text, .. } = parsed.statement else { panic!() };
    assert_eq!((name.name.as_str(), if_not_exists, query_text.as_str()), ("v", true, "(SELECT 1, 2)"));
    assert_eq!(columns, ["a", "B"]);
}

#[test]
fn explain_takes_queries_and_feature_views() {
    for (sql, format) in [
        ("EXPLAIN CREATE FEATURE VIEW v AS SELECT 1", ExplainFormat::Text),
        ("EXPLAIN (FORMAT PROBES) CREATE FEATURE VIEW v AS SELECT 1", ExplainFormat::Probes),
        ("explain (format 'text', costs off) create or replace feature view v as select 1", ExplainFormat::Text),
    ] {
        match one(sql) {
            Ok(Parsed { statement: Statement::ExplainFeatureView { create, format: found }, .. }) => {
                assert_eq!((create.name.name.as_str(), found), ("v", format), "{sql}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    assert!(matches!(
        one("EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE p(NULL)"),
        Ok(Parsed { statement: Statement::Explain { verbose: true, format: ExplainFormat::Json, .. }, .. })
    ));
    for (sql, expected) in [
        ("EXPLAIN SELECT 1", (false, false)),
        ("EXPLAIN ANALYZE VERBOSE SELECT 1", (true, true)),
        ("EXPLAIN (ANALYZE, VERBOSE false) VALUES (1)", (true, false)),
        ("EXPLAIN (SELECT 1)", (false, false)),
        ("EXPLAIN INSERT INTO t VALUES (1)", (false, false)),
        ("EXPLAIN (VERBOSE) EXECUTE p(NULL)", (false, true)),
    ] {
        match one(sql) {
            Ok(Parsed { statement: Statement::Explain { analyze, verbose, .. }, .. }) => {
                assert_eq!((analyze, verbose), expected, "{sql}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn statements_about_objects_name_their_kind() {
    let names = |names: &[QualifiedName]| names.to_vec();
    check(
        "DROP FEATURE VIEW IF EXISTS a, public.\"B\" CASCADE",
        Statement::Drop {
            kind: ObjectKind::FeatureView,
            if_exists: true,
            names: names(&["a".into(), QualifiedName::new("public", "B")]),
            cascade: true,
        },
    );
    check(
        "drop source s restrict",
        Statement::Drop { kind: ObjectKind::Source, if_exists: false, names: names(&["s".into()]), cascade: false },
    );
    check(
        "ALTER TABLE \"tidemark\".\"public\".\"t\" RENAME TO \"T2\"",
        Statement::Rename {
            kind: ObjectKind::Table,
            if_exists: false,
            name: QualifiedName::new("public", "t"),
            to: "T2".into(),
        },
    );
    check(
        "ALTER SOURCE IF EXISTS s SET (retention = '7 days')",
        Statement::SetOptions {
            kind: ObjectKind::Source,
            if_exists: true,
            name: "s".into(),
            options: options(&[("retention", "7 days")]),
        },
    );
    let default = |value: Option<&str>| Statement::SetDefault {
        if_exists: false,
        name: "v".into(),
        column: "n".into(),
        value: value.map(String::from),
    };
    check("ALTER FEATURE VIEW v ALTER COLUMN n SET DEFAULT -1.5", default(Some("-1.5")));
    check("ALTER FEATURE VIEW v ALTER n SET DEFAULT 'it''s'", default(Some("it's")));
    check("ALTER FEATURE VIEW v ALTER n SET DEFAULT INTERVAL '1 day'", default(Some("1 day")));
    check("ALTER FEATURE VIEW v ALTER n SET DEFAULT true", default(Some("true")));
    check("ALTER FEATURE VIEW v ALTER n SET DEFAULT NULL", default(None));
    check("ALTER FEATURE VIEW v ALTER n DROP DEFAULT", default(None));
    check(
        "COMMENT ON FEATURE VIEW v IS $x$it's$x$",
        Statement::Comment {
            kind: Some(ObjectKind::FeatureView),
            name: "v".into(),
            column: None,
            text: Some("it's".into()),
        },
    );
    check(
        "comment on column marts.v.c is null",
        Statement::Comment { kind: None, name: QualifiedName::new("marts", "v"), column: Some("c".into()), text: None },
    );
    check("SHOW FEATURE VIEWS", Statement::ShowObjects(ObjectKind::FeatureView));
    check("SHOW sources", Statement::ShowObjects(ObjectKind::Source));
    check("SHOW TABLES", Statement::ShowObjects(ObjectKind::Table));
    check("SHOW VIEWS", Statement::ShowObjects(ObjectKind::View));
    check("SHOW CREATE VIEW v", Statement::ShowCreate { kind: ObjectKind::View, name: "v".into() });
    for sql in ["DESCRIBE v", "desc feature view v", "DESCRIBE SOURCE v"] {
        check(sql, Statement::Describe { name: "v".into() });
    }
    check("DESCRIBE source", Statement::Describe { name: "source".into() });
    check("CHECKPOINT", Statement::Checkpoint);
    check("FLUSH;", Statement::Flush);
    for sql in ["REFRESH ONLINE STORE FOR v", "refresh online store for feature view v;"] {
        check(sql, Statement::RefreshOnlineStore { name: "v".into() });
    }
    for to in ["TIMESTAMPTZ '2026-12-01'", "now()", "'2026-12-01'::timestamptz"] {
        let sql = &format!("ALTER SOURCE s ADVANCE WATERMARK TO {to}");
        assert!(matches!(one(sql).map(|p| p.statement), Ok(Statement::AdvanceWatermark { .. })), "{sql}");
    }
}

fn copy_options(format: CopyFormat) -> CopyOptions {
    CopyOptions::of(format)
}

#[test]
fn copy_in_takes_options_in_parentheses_and_in_words() {
    let csv = CopyOptions { header: true, ..copy_options(CopyFormat::Csv) };
    let odd = CopyOptions {
        delimiter: Some(b'\t'),
        null: Some("NA".into()),
        quote: Some(b'\''),
        escape: Some(b'\\'),
        ..copy_options(CopyFormat::Csv)
    };
    for (sql, options) in [
        ("COPY t FROM STDIN", copy_options(CopyFormat::Text)),
        ("copy t from stdin csv", copy_options(CopyFormat::Csv)),
        ("COPY t FROM STDIN WITH CSV HEADER", csv.clone()),
        ("COPY t FROM STDIN CSV HEADER", csv.clone()),
        ("COPY t FROM STDIN (FORMAT csv, HEADER)", csv.clone()),
        ("COPY t FROM STDIN WITH (FORMAT 'csv', HEADER true, ENCODING 'UTF8')", csv),
        ("COPY t FROM STDIN WITH (FORMAT \"binary\")", copy_options(CopyFormat::Binary)),
        ("copy t from stdin binary", copy_options(CopyFormat::Binary)),
        ("COPY BINARY t FROM STDIN", copy_options(CopyFormat::Binary)),
        ("COPY t FROM STDIN DELIMITER AS E'\\t' NULL 'NA' CSV QUOTE '''' ESCAPE AS '\\'", odd.clone()),
        ("COPY t FROM STDIN (FORMAT csv, DELIMITER E'\\t', NULL 'NA', QUOTE '''', ESCAPE '\\')", odd),
    ] {
        check(sql, Statement::CopyFrom { table: "t".into(), columns: vec![], file: None, options });
    }
    check(
        "COPY \"t\" ( a,\"B\" ) FROM STDIN;",
        Statement::CopyFrom {
            table: "t".into(),
            columns: vec!["a".into(), "B".into()],
            file: None,
            options: copy_options(CopyFormat::Text),
        },
    );
}

#[test]
fn copy_takes_a_file_of_the_server_and_says_how_it_is_written() {
    let from = |options| Statement::CopyFrom { table: "t".into(), columns: vec![], file: Some("f".into()), options };
    check("COPY t FROM 'f' (FORMAT parquet)", from(copy_options(CopyFormat::Parquet)));
    check("COPY t FROM 'f' (FORMAT arrow)", from(copy_options(CopyFormat::Arrow)));
    check("COPY t FROM 'f' CSV", from(copy_options(CopyFormat::Csv)));
    let to = |target, options| Statement::CopyTo {
        source: CopySource::Table { name: "t".into(), columns: vec![] },
        target,
        options,
    };
    let file = || CopyTarget::File("f".into());
    check("COPY t TO STDOUT (FORMAT arrow)", to(CopyTarget::Stdout, copy_options(CopyFormat::Arrow)));
    for (options, compression, row_group_rows) in [
        ("COMPRESSION zstd", CopyCompression::Zstd(3), CopyOptions::ROW_GROUP_ROWS),
        ("COMPRESSION 'ZSTD', COMPRESSION_LEVEL 19, ROW_GROUP_SIZE 1000", CopyCompression::Zstd(19), 1000),
        ("COMPRESSION none", CopyCompression::Uncompressed, CopyOptions::ROW_GROUP_ROWS),
        ("ROW_GROUP_SIZE '500'", CopyCompression::Snappy, 500),
    ] {
        let parquet = CopyOptions { compression, row_group_rows, ..copy_options(CopyFormat::Parquet) };
        check(&format!("COPY t TO 'f' (FORMAT parquet, {options})"), to(file(), parquet));
    }
}

#[test]
fn copy_out_takes_a_table_or_a_query() {
    check(
        "COPY t (a) TO STDOUT CSV",
        Statement::CopyTo {
            source: CopySource::Table { name: "t".into(), columns: vec!["a".into()] },
            target: CopyTarget::Stdout,
            options: copy_options(CopyFormat::Csv),
        },
    );
    for (sql, query, file) in [
        ("COPY (SELECT  (1) FROM t) TO 'f.parquet' (FORMAT parquet)", "SELECT  (1) FROM t", true),
        ("COPY (VALUES (1)) TO STDOUT WITH (FORMAT parquet)", "", false),
        ("COPY history.v (a, b) TO 'f' (FORMAT parquet)", "SELECT \"a\", \"b\" FROM history.v", true),
        ("COPY tidemark.features TO 'f' (FORMAT parquet)", "SELECT * FROM tidemark.features", true),
    ] {
        match one(sql) {
            Ok(Parsed {
                statement: Statement::CopyTo { source: CopySource::Query { text, .. }, target, options },
                ..
            }) => {
                assert_eq!((text.as_str(), options.format), (query, CopyFormat::Parquet), "{sql}");
                assert_eq!(matches!(target, CopyTarget::File(_)), file, "{sql}");
            }
            other => assert!(!file, "{sql}: {other:?}"),
        }
    }
}

#[test]
fn insert_appends_or_replaces_whole_rows() {
    for (sql, expected) in [
        ("INSERT INTO t VALUES (1, 2), ($1, $2)", (OnConflict::Error, vec![])),
        ("insert into t select a, b from s on conflict do nothing", (OnConflict::Nothing, vec![])),
        (
            "INSERT INTO t AS x SELECT 1 ON CONFLICT (A, b) DO UPDATE SET c = EXCLUDED.c",
            (OnConflict::Replace, vec!["a", "b", "c"]),
        ),
    ] {
        match one(sql) {
            Ok(Parsed { statement: Statement::Insert(insert), .. }) => {
                assert_eq!((insert.table.name.as_str(), insert.columns.len()), ("t", 0), "{sql}");
                assert_eq!(
                    (insert.on_conflict, insert.replaces.iter().map(String::as_str).collect()),
                    expected,
                    "{sql}"
                );
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    let Ok(Parsed { statement: Statement::Insert(insert), .. }) = one("INSERT INTO \"T\" (A, \"B\") VALUES (1, 2)")
    else {
        panic!()
    };
    assert_eq!((insert.table.name.as_str(), insert.columns), ("T", vec!["a".to_string(), "B".to_string()]));
}

#[test]
fn queries_are_sqlparsers() {
    for (sql, written) in [
        ("select 1", "SELECT 1"),
        ("(SELECT 1) UNION ALL SELECT 2", "(SELECT 1) UNION ALL SELECT 2"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "WITH a AS (SELECT 1) SELECT * FROM a"),
        ("VALUES (1, $1::bigint)", "VALUES (1, $1::BIGINT)"),
        ("TABLE history.v ORDER BY 1", "SELECT * FROM history.v ORDER BY 1"),
        (
            "SELECT * FROM v FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-11-01' WHERE a = 1",
            "SELECT * FROM v FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-11-01' WHERE a = 1",
        ),
        ("SELECT at.a FROM v at", "SELECT at.a FROM v at"),
        ("SELECT a FROM v WHERE user_id = ANY($1)", "SELECT a FROM v WHERE user_id = ANY($1)"),
    ] {
        match one(sql) {
            Ok(Parsed { statement: Statement::Query(query), .. }) => assert_eq!(query.to_string(), written),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn a_text_is_cut_at_its_semicolons_and_each_statement_keeps_its_own_text() {
    let texts = |sql: &str| parse(sql).map(|all| all.into_iter().map(|parsed| parsed.text).collect::<Vec<_>>());
    assert_eq!(texts(" ;; -- nothing\n ;"), Ok(vec![]));
    assert_eq!(texts(""), Ok(vec![]));
    assert_eq!(
        texts("SELECT 'ä;' ; /* ; */ SELECT $q$;$q$ , \";\"\r\n;\nBEGIN"),
        Ok(["SELECT 'ä;'", "SELECT $q$;$q$ , \";\"", "BEGIN"].map(String::from).to_vec())
    );
}

#[test]
fn settings_have_names_and_values() {
    let set = |name: &str, value: Option<&str>| Statement::Set {
        local: false,
        name: name.into(),
        value: value.map(String::from),
    };
    for (sql, expected) in [
        ("SET extra_float_digits = 3", set("extra_float_digits", Some("3"))),
        ("SET SESSION search_path TO 'fs'", set("search_path", Some("fs"))),
        ("SET search_path = \"$user\", public", set("search_path", Some("\"$user\", public"))),
        ("set DateStyle TO ISO, MDY", set("datestyle", Some("iso, mdy"))),
        ("SET application_name = 'psql'", set("application_name", Some("psql"))),
        ("SET background_ddl = on", set("background_ddl", Some("on"))),
        ("SET my.Setting TO DEFAULT", set("my.setting", None)),
        ("SET TIME ZONE 'Europe/Berlin'", set("timezone", Some("Europe/Berlin"))),
        ("SET TIME ZONE UTC", set("timezone", Some("utc"))),
        ("SET TIME ZONE -7", set("timezone", Some("-7"))),
        ("SET TIME ZONE LOCAL", set("timezone", None)),
        ("SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE", set("timezone", Some("+02:00"))),
        ("SET NAMES 'UTF8'", set("client_encoding", Some("UTF8"))),
        ("SET SCHEMA 'public'", set("search_path", Some("public"))),
        ("SET ROLE NONE", set("role", Some("none"))),
        ("SET SESSION AUTHORIZATION DEFAULT", set("session_authorization", None)),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            set("default_transaction_isolation", Some("serializable")),
        ),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", set("default_transaction_read_only", Some("off"))),
        (
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            Statement::SetTransaction { local: true, isolation: "repeatable read", read_only: true },
        ),
        (
            "SET LOCAL statement_timeout TO '5s'",
            Statement::Set { local: true, name: "statement_timeout".into(), value: Some("5s".into()) },
        ),
        ("SHOW TIME ZONE", Statement::ShowSetting { name: "timezone".into() }),
        ("show Transaction Isolation Level", Statement::ShowSetting { name: "transaction_isolation".into() }),
        ("SHOW server_version", Statement::ShowSetting { name: "server_version".into() }),
        ("SHOW ALL", Statement::ShowSetting { name: "all".into() }),
        ("RESET ALL", Statement::Reset { name: "all".into() }),
        ("RESET SESSION AUTHORIZATION", Statement::Reset { name: "session_authorization".into() }),
    ] {
        check(sql, expected);
    }
}

#[test]
fn transactions_and_prepared_statements_are_as_in_postgresql() {
    for (sql, read_only, isolation) in [
        ("BEGIN", None, None),
        ("begin work", None, None),
        ("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ", None, Some("repeatable read")),
        ("BEGIN READ ONLY", Some(true), None),
        ("BEGIN READ WRITE", Some(false), None),
        ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE", Some(true), Some("serializable")),
        ("START TRANSACTION READ ONLY NOT DEFERRABLE", Some(true), None),
    ] {
        check(sql, Statement::Begin { read_only, isolation });
    }
    let name = || "a".to_string();
    for (sql, expected) in [
        ("COMMIT", Statement::Commit),
        ("END TRANSACTION", Statement::Commit),
        ("COMMIT AND NO CHAIN", Statement::Commit),
        ("ROLLBACK", Statement::Rollback),
        ("ABORT WORK", Statement::Rollback),
        ("SAVEPOINT \"a\"", Statement::Savepoint { name: name() }),
        ("ROLLBACK TO SAVEPOINT a", Statement::RollbackTo { name: name() }),
        ("rollback transaction to a", Statement::RollbackTo { name: name() }),
        ("RELEASE \"a\"", Statement::Release { name: name() }),
        ("RELEASE SAVEPOINT A", Statement::Release { name: name() }),
        ("DEALLOCATE ALL", Statement::Deallocate { name: None }),
        ("DEALLOCATE PREPARE a", Statement::Deallocate { name: Some(name()) }),
        ("DISCARD ALL", Statement::Discard { what: "ALL".into() }),
        ("discard temporary", Statement::Discard { what: "TEMP".into() }),
        ("CLOSE ALL", Statement::Close { name: None }),
        ("CLOSE a", Statement::Close { name: Some(name()) }),
        ("LISTEN a", Statement::Listen { channel: name() }),
        ("UNLISTEN \"a\"", Statement::Unlisten { channel: Some(name()) }),
        ("UNLISTEN *", Statement::Unlisten { channel: None }),
        ("NOTIFY A", Statement::Notify { channel: name(), payload: String::new() }),
        ("notify a,'x'", Statement::Notify { channel: name(), payload: "x".into() }),
        ("vacuum analyze pgbench_tellers", Statement::Nothing { tag: "VACUUM" }),
        ("ANALYZE (VERBOSE) public.t (a, b), u", Statement::Nothing { tag: "ANALYZE" }),
        ("SET CONSTRAINTS ALL DEFERRED", Statement::Nothing { tag: "SET CONSTRAINTS" }),
    ] {
        check(sql, expected);
    }
    match one("PREPARE a (int, text[]) AS  SELECT $1,  $2 ;") {
        Ok(Parsed { statement: Statement::Prepare { name, types, statement }, .. }) => {
            assert_eq!((name.as_str(), statement.text.as_str()), ("a", "SELECT $1,  $2"));
            assert_eq!(types, [SqlType::Int4, SqlType::Array(Box::new(SqlType::Text))]);
        }
        other => panic!("{other:?}"),
    }
    match one("PREPARE a (uuid[]) AS SELECT $1") {
        Ok(Parsed { statement: Statement::Prepare { types, .. }, .. }) => {
            assert_eq!(types, [SqlType::Array(Box::new(SqlType::Uuid))]);
        }
        other => panic!("{other:?}"),
    }
    match one("EXECUTE a (1, 'x' || 'y', NULL)") {
        Ok(Parsed { statement: Statement::Execute { parameters, .. }, .. }) => assert_eq!(parameters.len(), 3),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_drivers_send_to_set_up_reset_and_probe_a_session_parses() {
    for sql in [
        "SET DateStyle = 'ISO';SET extra_float_digits = 2;show transaction_isolation",
        "SET application_name = 'PostgreSQL JDBC Driver'",
        "SET INTERVALSTYLE = POSTGRES",
        "SET synchronize_seqscans TO off",
        "SET idle_in_transaction_session_timeout = 0",
        "SET client_min_messages TO warning",
        "SET standard_conforming_strings = on",
        "SET client_encoding TO 'UTF-8'",
        "SET row_security = off",
        "show standard_conforming_strings",
        "SHOW search_path",
        "SHOW server_version_num",
        "BEGIN; SELECT 1; COMMIT",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
        "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;",
        "ROLLBACK; DISCARD ALL",
        "SAVEPOINT JDBC_SAVEPOINT_0; RELEASE SAVEPOINT JDBC_SAVEPOINT_0",
        "-- ping",
        "/* comment */ SELECT 1 /* comment */;",
        "",
    ] {
        assert!(parse(sql).is_ok(), "{sql}: {:?}", parse(sql));
    }
}

#[test]
fn cursors_are_declared_fetched_and_moved() {
    use crate::statement::Direction::*;
    for (sql, direction) in [
        ("FETCH c", Next(1)),
        ("FETCH next", Next(1)),
        ("FETCH NEXT c", Next(1)),
        ("FETCH FORWARD FROM c", Next(1)),
        ("FETCH FORWARD 100 FROM \"c\"", Next(100)),
        ("FETCH 100 IN c", Next(100)),
        ("FETCH +2 c", Next(2)),
        ("FETCH 0 FROM c", Next(0)),
        ("FETCH ALL FROM c", Next(u64::MAX)),
        ("FETCH FORWARD ALL c", Next(u64::MAX)),
        ("FETCH BACKWARD -3 FROM c", Next(3)),
        ("FETCH FIRST FROM c", Absolute(1)),
        ("FETCH ABSOLUTE 5 c", Absolute(5)),
        ("FETCH RELATIVE 5 c", Relative(5)),
        ("FETCH RELATIVE 0 c", Next(0)),
        ("FETCH LAST c", Backward),
        ("FETCH PRIOR c", Backward),
        ("FETCH -1 c", Backward),
        ("FETCH BACKWARD c", Backward),
        ("FETCH BACKWARD ALL c", Backward),
        ("FETCH ABSOLUTE -1 c", Backward),
        ("FETCH RELATIVE -1 c", Backward),
    ] {
        let cursor = if sql == "FETCH next" { "next" } else { "c" }.to_string();
        check(sql, Statement::Fetch { cursor: cursor.clone(), direction, moves: false });
        check(&sql.replace("FETCH", "MOVE"), Statement::Fetch { cursor, direction, moves: true });
    }
    for (sql, binary, held) in [
        ("DECLARE c CURSOR FOR SELECT 1", false, false),
        ("DECLARE \"c\" BINARY NO SCROLL INSENSITIVE CURSOR WITH HOLD FOR SELECT 1 ;", true, true),
        ("declare c no scroll binary cursor without hold for select 1", true, false),
    ] {
        match one(sql).map(|parsed| parsed.statement) {
            Ok(Statement::Declare { name, is_binary, is_held, query }) => {
                assert_eq!((name.as_str(), is_binary, is_held), ("c", binary, held), "{sql}");
                assert_eq!(query.text.to_lowercase(), "select 1");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
    check_error("DECLARE c SCROLL CURSOR FOR SELECT 1", "0A000", "SCROLL cursors are not supported", "SCROLL");
    check_error(
        "DECLARE c CURSOR FOR INSERT INTO t VALUES (1)",
        "42601",
        "syntax error at or near \"INSERT\"",
        "INSERT",
    );
    check_error("FETCH 1.5 FROM c", "42601", "syntax error at or near \"1.5\"", "1.5");
}

#[test]
fn durations_are_fixed_lengths() {
    const HOUR: i64 = 3600 * SECOND;
    for (text, us) in [
        ("5 minutes", 300 * SECOND),
        ("30 days", 30 * 24 * HOUR),
        ("1 day 02:00:00", 26 * HOUR),
        ("500 ms", SECOND / 2),
        ("1 h", HOUR),
        ("1h30m", HOUR + 1800 * SECOND),
        ("1.5 hours", HOUR + HOUR / 2),
        ("0 s", 0),
        ("00:00:00.000001", 1),
        ("2 WEEKS", 14 * 24 * HOUR),
        (" +1 us ", 1),
        ("106751991 days", 106_751_991 * 24 * HOUR),
    ] {
        assert_eq!(duration_us(text), Ok(us), "{text}");
    }
    for (text, sqlstate) in [
        ("", "22023"),
        ("5", "22023"),
        ("minutes", "22023"),
        ("1 fortnight", "22023"),
        ("1 month", "22023"),
        ("-1 day", "22023"),
        ("1 day ago", "22023"),
        ("1:2:3:4", "22023"),
        ("00:60", "22023"),
        ("1..5 s", "22023"),
        ("106751992 days", "22008"),
        ("9999999999999999999 weeks", "22008"),
        ("é", "22023"),
    ] {
        assert_eq!(duration_us(text).map_err(|error| error.sqlstate), Err(sqlstate), "{text}");
    }
}

#[test]
fn a_long_or_deep_statement_is_refused_before_it_exhausts_the_stack() {
    let chain = |n: usize| format!("SELECT 1 WHERE {}", vec!["a = 1"; n].join(" OR "));
    let union = |n: usize| vec!["SELECT 1"; n].join(" UNION ALL ");
    let nested = |n: usize| format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n));
    let cases = move || {
        for sql in [
            chain(950),
            union(270),
            nested(30),
            format!("SELECT 1{}", " + 1".repeat(1900)),
            format!("SELECT * FROM t WHERE a IN ({}1)", "1, ".repeat(50_000)),
        ] {
            let parsed = parse(&sql).map(|parsed| (parsed.clone() == parsed, format!("{parsed:?}").len()));
            assert!(parsed.is_ok_and(|(same, _)| same));
        }
        for sql in [
            chain(100_000),
            union(100_000),
            format!("SELECT {}1{}", "(".repeat(50), format!("{})", " + 1".repeat(1000)).repeat(50)),
            nested(100_000),
            format!("SELECT 1{}", "::int".repeat(100_000)),
            format!("SELECT {}1", "- ".repeat(100_000)),
            format!("SELECT a{}", "[1]".repeat(100_000)),
            // Which sqlparser would try twice at every level.
            format!("SELECT f(SELECT {}){}'a')", "(SELECT ".repeat(60), ")".repeat(60)),
        ] {
            assert_eq!(parse(&sql).map_err(|error| error.sqlstate), Err("54001"));
        }
    };
    // the stack of a server's worker
    #[allow(clippy::disallowed_methods, reason = "a test of what the stack holds needs one of that size")]
    let worker = std::thread::Builder::new().stack_size(64 << 20).spawn(cases);
    assert!(worker.is_ok_and(|worker| worker.join().is_ok()));
}

/// Texts that look like statements, so that the tests get past the first word.
fn sql_like() -> impl Strategy<Value = String> {
    let words = "CREATE SOURCE TABLE FEATURE VIEW OR REPLACE IF NOT EXISTS WITH FORMAT UPSERT ENCODE WATERMARK FOR AS INTERVAL '5 s' \
        '1 month' ( ) ( ) , , ; - . = * :: [ ] $1 1 1.5 'x' \"Q\" $$d$$ E'\\t' a b c t.c public numeric int text timestamptz PRIMARY KEY \
        COPY FROM TO STDIN STDOUT CSV HEADER NULL DELIMITER SELECT FROM WHERE UNION VALUES INSERT INTO ON CONFLICT DO UPDATE SET \
        EXPLAIN ANALYZE DROP ALTER RENAME ADVANCE COMMENT COLUMN IS SHOW ALL BEGIN READ ONLY ISOLATION LEVEL PREPARE EXECUTE TIME ZONE \
        GLOBAL LEFT JOIN SYSTEM_TIME OF TABLE é 漢字 '";
    let words: Vec<&'static str> = words.split_whitespace().collect();
    proptest::collection::vec(proptest::sample::select(words), 0..30).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(sql in "\\PC*") {
        let _ = parse(&sql);
        let _ = duration_us(&sql);
    }

    #[test]
    fn arbitrary_characters_never_panic(sql in proptest::collection::vec(any::<char>(), 0..60)) {
        let sql: String = sql.into_iter().collect();
        let _ = parse(&sql);
    }

    #[test]
    fn likely_words_never_panic_and_errors_point_into_the_text(sql in sql_like()) {
        match parse(&sql) {
            Ok(statements) => for parsed in statements {
                prop_assert!(sql.contains(&parsed.text));
                prop_assert_eq!(parse(&parsed.text).map(|again| again[0].text.clone()), Ok(parsed.text));
            },
            Err(error) => prop_assert!(error.position.is_none_or(|p| (1..=sql.chars().count() + 1).contains(&p))),
        }
    }

    /// The slow reference for slicing: the tokens' slices, white space included, are the text.
    #[test]
    fn slices_of_all_tokens_make_the_text(sql in "[aé漢'\"$\\r\\n;,.( )1-]{0,40}") {
        let text = super::text::Text::new(&sql);
        if let Ok(tokens) = Tokenizer::new(&DIALECT, &sql).tokenize_with_location() {
            let slices: String = tokens.iter().map(|token| text.slice(token.span, token.span)).collect();
            prop_assert_eq!(slices, sql);
        }
    }
}
