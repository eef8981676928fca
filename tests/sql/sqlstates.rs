//! The SQLSTATE of every kind of bad statement: drivers, pools and retry loops branch on it.

use crate::server::{Folder, Server, shown};
use anyhow::{Result, bail};

/// Something of every kind, to be used wrongly.
const SETUP: &str = "
    CREATE SOURCE s (k BIGINT NOT NULL, v INTEGER, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
    CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT);
    CREATE FEATURE VIEW f AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s;
    CREATE VIEW w AS SELECT n FROM f;
    INSERT INTO t VALUES (1, 'one');
";

/// SQLSTATE, PostgreSQL's name of it, statement.
const CASES: &[(&str, &str, &str)] = &[
    ("42601", "syntax_error", "SELECT 1 FROM"),
    ("42601", "syntax_error", "CREATE FEATURE VIEW x"),
    ("42601", "syntax_error", "SELECT 'unfinished"),
    ("42P01", "undefined_table", "SELECT * FROM nothing"),
    ("42P01", "undefined_table", "SELECT * FROM history.nothing"),
    ("42P01", "undefined_table", "INSERT INTO nothing VALUES (1)"),
    ("42P01", "undefined_table", "COPY nothing TO STDOUT"),
    ("42P01", "undefined_table", "CREATE FEATURE VIEW x WITH (key = 'k') AS SELECT k FROM nothing"),
    ("42703", "undefined_column", "SELECT nothing FROM s"),
    ("42703", "undefined_column", "SELECT nothing FROM f WHERE k = 1"),
    ("42703", "undefined_column", "INSERT INTO s (nothing) VALUES (1)"),
    ("42702", "ambiguous_column", "SELECT v FROM s, t"),
    ("42883", "undefined_function", "SELECT nothing(1)"),
    ("42704", "undefined_object", "CREATE SOURCE x (a nothing)"),
    ("42704", "undefined_object", "SHOW nothing"),
    ("42P07", "duplicate_table", "CREATE SOURCE s (a BIGINT)"),
    ("42P07", "duplicate_table", "CREATE VIEW f AS SELECT 1 AS a"),
    ("42701", "duplicate_column", "CREATE TABLE x (a BIGINT, a BIGINT)"),
    ("42803", "grouping_error", "SELECT k, count(*) FROM s GROUP BY v"),
    ("42804", "datatype_mismatch", "CREATE SOURCE x (a BIGINT, WATERMARK FOR a AS a)"),
    ("42809", "wrong_object_type", "DROP TABLE f"),
    ("42809", "wrong_object_type", "INSERT INTO f VALUES (1)"),
    ("42809", "wrong_object_type", "SELECT * FROM s FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-01-01 00:00:00+00'"),
    ("42P17", "invalid_object_definition", "CREATE FEATURE VIEW x AS SELECT k, v FROM s"),
    ("42P20", "windowing_error", "CREATE FEATURE VIEW x AS SELECT k, count(*) OVER (PARTITION BY k) AS n FROM s"),
    ("42P10", "invalid_column_reference", "SELECT DISTINCT k FROM s ORDER BY v"),
    ("2BP01", "dependent_objects_still_exist", "DROP SOURCE s"),
    ("2BP01", "dependent_objects_still_exist", "DROP FEATURE VIEW f"),
    ("23505", "unique_violation", "INSERT INTO t VALUES (1, 'again')"),
    ("23502", "not_null_violation", "INSERT INTO s VALUES (NULL, 1, now())"),
    ("22P02", "invalid_text_representation", "INSERT INTO s VALUES ('one', 1, now())"),
    ("22P02", "invalid_text_representation", "SELECT 'one'::bigint"),
    ("22003", "numeric_value_out_of_range", "SELECT 100000::smallint"),
    ("22012", "division_by_zero", "SELECT 1 / 0"),
    ("22007", "invalid_datetime_format", "SELECT 'soon'::timestamptz"),
    ("22023", "invalid_parameter_value", "CREATE SOURCE x (a BIGINT) WITH (colour = 'red')"),
    ("22023", "invalid_parameter_value", "SET TimeZone = 'Mars'"),
    (
        "22023",
        "invalid_parameter_value",
        "SELECT n FROM f FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2100-01-01 00:00:00+00' WHERE k = 1",
    ),
    ("42703", "undefined_column", "UPDATE t SET colour = 1"),
    ("42809", "wrong_object_type", "DELETE FROM f"),
    ("0A000", "feature_not_supported", "CREATE OR REPLACE FEATURE VIEW f AS SELECT k FROM s"),
    ("0A000", "feature_not_supported", "CREATE SEQUENCE x"),
    (
        "0A000",
        "feature_not_supported",
        "CREATE FEATURE VIEW x AS SELECT k, count(*) AS n FROM s GROUP BY k HAVING count(*) > 1",
    ),
    ("26000", "invalid_sql_statement_name", "EXECUTE nothing"),
    ("34000", "invalid_cursor_name", "CLOSE nothing"),
    ("25P01", "no_active_sql_transaction", "SAVEPOINT a"),
    ("3F000", "invalid_schema_name", "CREATE TABLE nothing.x (a BIGINT)"),
    (
        "54001",
        "statement_too_complex",
        "SELECT ((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((1))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))))",
    ),
];

#[tokio::test]
async fn a_bad_statement_has_postgresqls_sqlstate_and_leaves_the_session_as_it_was() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client.batch_execute(SETUP).await?;
    let mut wrong = vec![];
    for (sqlstate, name, sql) in CASES {
        match client.simple_query(sql).await {
            Ok(_) => wrong.push(format!("{sql}\n  should be {sqlstate} {name}, and is no error")),
            Err(error) if error.code().is_none_or(|code| code.code() != *sqlstate) => {
                wrong.push(format!("{sql}\n  should be {sqlstate} {name}, is {}", shown(&error)));
            }
            Err(_) => {}
        }
        // In both protocols.
        let extended = async { client.query(&client.prepare(sql).await?, &[]).await };
        if let Err(error) = extended.await
            && error.code().is_none_or(|code| code.code() != *sqlstate)
        {
            wrong.push(format!("{sql}\n  should be {sqlstate} {name} in the extended protocol, is {}", shown(&error)));
        }
        client.simple_query("SELECT 1").await?;
    }
    match wrong.as_slice() {
        [] => Ok(()),
        wrong => bail!("{} of {}\n{}\n{}", wrong.len(), CASES.len(), wrong.join("\n"), folder.log_tail()),
    }
}

#[tokio::test]
async fn another_database_is_refused_and_any_user_is_let_in() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let mut config = server.config();
    config.dbname("nothing");
    let Err(error) = config.connect(tokio_postgres::NoTls).await else { bail!("database nothing was let in") };
    assert_eq!(error.code().map(|code| code.code()), Some("3D000"), "{}", shown(&error));
    let (client, connection) = server.config().user("anybody").connect(tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    assert_eq!(crate::server::value(&client, "SELECT current_user").await?.as_deref(), Some("anybody"));
    Ok(())
}
