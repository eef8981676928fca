//! Parameters that the statement gives no type, that stand for an instant, and that are arrays.

use crate::server::{Folder, Server, shown};
use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, NaiveDateTime, Utc};
use tokio_postgres::types::Type;

const SETUP: &str = "
    CREATE TABLE t (k BIGINT, name TEXT);
    INSERT INTO t VALUES (7, 'seven');
    CREATE SOURCE s (k BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at - INTERVAL '1 hour') WITH (clock = 'event');
    CREATE FEATURE VIEW v AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s;
    INSERT INTO s VALUES (7, '2026-03-02 10:00:00+00'), (7, '2026-03-02 10:10:00+00'), (7, '2026-03-02 10:20:00+00');
";

async fn set_up(folder: &Folder) -> Result<(Server, tokio_postgres::Client)> {
    let server = Server::start(folder).await?;
    let client = server.connect().await?;
    client.batch_execute(SETUP).await?;
    Ok((server, client))
}

fn time(text: &str) -> Result<DateTime<Utc>> {
    Ok(DateTime::parse_from_rfc3339(text)?.with_timezone(&Utc))
}

#[tokio::test]
async fn a_parameter_that_nothing_gives_a_type_is_text() -> Result<()> {
    let folder = Folder::new()?;
    let (_server, client) = set_up(&folder).await?;
    // What is asked, and the types of its parameters and of its columns.
    let cases: [(&str, &[Type], &[Type]); 9] = [
        ("SELECT $1", &[Type::TEXT], &[Type::TEXT]),
        ("SELECT $1 AS model, k FROM t WHERE k = $2", &[Type::TEXT, Type::INT8], &[Type::TEXT, Type::INT8]),
        ("SELECT CASE WHEN true THEN $1 END", &[Type::TEXT], &[Type::TEXT]),
        ("VALUES ($1, 1)", &[Type::TEXT], &[Type::TEXT, Type::INT4]),
        ("SELECT said FROM (SELECT $1 AS said) AS x", &[Type::TEXT], &[Type::TEXT]),
        ("SELECT $1 UNION SELECT 'seven'", &[Type::TEXT], &[Type::TEXT]),
        // Here something does.
        ("SELECT coalesce($1, 3)", &[Type::INT8], &[Type::INT8]),
        ("SELECT $1 UNION ALL SELECT k FROM t", &[Type::INT8], &[Type::INT8]),
        ("SELECT $1, k FROM t WHERE k = $1", &[Type::INT8], &[Type::INT8, Type::INT8]),
    ];
    for (sql, parameters, columns) in cases {
        let statement = client.prepare(sql).await.with_context(|| sql.to_owned())?;
        ensure!(statement.params() == parameters, "{sql}: parameters {:?}", statement.params());
        let found: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
        ensure!(found == columns, "{sql}: columns {found:?}");
        let row = match parameters {
            [Type::TEXT, Type::INT8] => client.query_one(&statement, &[&"seven", &7i64]).await,
            [Type::INT8] => client.query(&statement, &[&7i64]).await.map(|mut rows| rows.remove(0)),
            _ => client.query_one(&statement, &[&"seven"]).await,
        }
        .with_context(|| sql.to_owned())?;
        match &columns[0] {
            &Type::TEXT => ensure!(row.try_get::<_, &str>(0)? == "seven", "{sql}: {row:?}"),
            _ => ensure!(row.try_get::<_, i64>(0)? == 7, "{sql}: {row:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn types_that_postgresql_describes_are_described() -> Result<()> {
    let folder = Folder::new()?;
    let (_server, client) = set_up(&folder).await?;
    let cases: [(&str, &[Type], &[Type]); 8] = [
        ("SELECT $1::jsonb -> 'a'", &[Type::JSONB], &[Type::JSONB]),
        ("SELECT k FROM t WHERE name = CAST($2 AS json) ->> 'a' AND k = $1", &[Type::INT8, Type::JSON], &[Type::INT8]),
        ("INSERT INTO t VALUES ($1, $2::jsonb ->> 'a')", &[Type::INT8, Type::JSONB], &[]),
        ("SELECT $1::bigint", &[Type::INT8], &[Type::INT8]),
        ("VALUES (1, NULL), (-1, 'a') ORDER BY 1", &[], &[Type::INT4, Type::TEXT]),
        ("VALUES (1), (5000000000)", &[], &[Type::INT8]),
        ("INSERT INTO t VALUES (8, 'eight') RETURNING 1 AS one, k", &[], &[Type::INT4, Type::INT8]),
        ("DELETE FROM t WHERE k = 9 RETURNING -1 AS one, name", &[], &[Type::INT4, Type::TEXT]),
    ];
    for (sql, parameters, columns) in cases {
        let statement = client.prepare(sql).await.with_context(|| sql.to_owned())?;
        ensure!(statement.params() == parameters, "{sql}: parameters {:?}", statement.params());
        let found: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
        ensure!(found == columns, "{sql}: columns {found:?}");
        // What is described is what comes.
        if columns.first() == Some(&Type::INT4) {
            let rows = client.query(&statement, &[]).await.with_context(|| sql.to_owned())?;
            rows.iter().try_for_each(|row| row.try_get::<_, i32>(0).map(drop)).with_context(|| sql.to_owned())?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_parameter_stands_for_an_instant() -> Result<()> {
    let folder = Folder::new()?;
    let (_server, client) = set_up(&folder).await?;
    let sql = "SELECT n, $1 AS note FROM v FOR SYSTEM_TIME AS OF $3 WHERE k = $2";
    let as_of = client.prepare(sql).await?;
    ensure!(as_of.params() == [Type::TEXT, Type::INT8, Type::TIMESTAMPTZ], "{:?}", as_of.params());
    // One statement, three instants.
    for (at, n) in [("2026-03-02T10:00:00Z", 1), ("2026-03-02T10:15:00Z", 2), ("2026-03-02T10:20:00Z", 3)] {
        let row = client.query_one(&as_of, &[&"seen", &7i64, &time(at)?]).await.context(at)?;
        ensure!((row.try_get::<_, i64>(0)?, row.try_get::<_, &str>(1)?) == (n, "seen"), "{at}: {row:?}");
    }
    let Err(error) = client.query(&as_of, &[&"seen", &7i64, &None::<DateTime<Utc>>]).await else {
        bail!("a view was read as of NULL")
    };
    ensure!(error.code().is_some_and(|code| code.code() == "22004"), "{}", shown(&error));

    // A cast, arithmetic, and a time without a zone, which is in the session's.
    let sql = "SELECT n FROM v FOR SYSTEM_TIME AS OF $1::timestamptz - INTERVAL '5 minutes' WHERE k = 7";
    let n: i64 = client.query_one(sql, &[&time("2026-03-02T10:15:00Z")?]).await?.try_get(0)?;
    ensure!(n == 2, "five minutes before, {n}");
    client.batch_execute("SET TimeZone = 'Europe/Berlin'").await?;
    let sql = "SELECT n FROM v FOR SYSTEM_TIME AS OF $1 WHERE k = 7";
    let local = client.prepare_typed(sql, &[Type::TIMESTAMP]).await?;
    let at = NaiveDateTime::parse_from_str("2026-03-02 11:10:00", "%Y-%m-%d %H:%M:%S")?;
    let n: i64 = client.query_one(&local, &[&at]).await?.try_get(0)?;
    ensure!(n == 2, "at 11:10 in Berlin, {n}");
    let Err(error) = client.prepare_typed(sql, &[Type::INT8]).await else { bail!("a number was taken for an instant") };
    ensure!(error.code().is_some_and(|code| code.code() == "42804"), "{}", shown(&error));

    // Into a table
    let sql = "INSERT INTO t (k, name) SELECT n, $2 FROM v FOR SYSTEM_TIME AS OF $1 WHERE k = 7";
    client.execute(sql, &[&time("2026-03-02T10:10:00Z")?, &"two"]).await?;
    ensure!(client.query_one("SELECT k FROM t WHERE name = 'two'", &[]).await?.try_get::<_, i64>(0)? == 2);

    let advance = client.prepare("ALTER SOURCE s ADVANCE WATERMARK TO $1").await?;
    ensure!(advance.params() == [Type::TIMESTAMPTZ], "{:?}", advance.params());
    client.execute(&advance, &[&time("2026-03-02T12:00:00Z")?]).await?;
    let sql = "SELECT watermark FROM tidemark.sources WHERE name = 's'";
    let watermark: DateTime<Utc> = client.query_one(sql, &[]).await?.try_get(0)?;
    ensure!(watermark == time("2026-03-02T12:00:00Z")?, "the watermark is {watermark}");
    let Err(error) = client.execute(&advance, &[&None::<DateTime<Utc>>]).await else { bail!("NULL was taken") };
    ensure!(error.code().is_some_and(|code| code.code() == "22004"), "{}", shown(&error));
    Ok(())
}

/// What asyncpg does where it meets an array: it asks what the array's type is made of, with `oid[]` in binary.
#[tokio::test]
async fn a_driver_asks_what_an_array_is_made_of() -> Result<()> {
    let folder = Folder::new()?;
    let (_server, client) = set_up(&folder).await?;
    let walk = client.prepare(include_str!("../../server/tests/it/system/asyncpg_types.sql")).await?;
    ensure!(walk.params() == [Type::OID_ARRAY], "{:?}", walk.params());
    for (sql, array) in [
        ("SELECT k FROM v WHERE k = ANY ($1)", Type::INT8_ARRAY),
        ("SELECT k FROM t WHERE k = ANY ($1)", Type::INT8_ARRAY),
        ("SELECT $1::bigint[]", Type::INT8_ARRAY),
    ] {
        let statement = client.prepare(sql).await.with_context(|| sql.to_owned())?;
        ensure!(statement.params() == std::slice::from_ref(&array), "{sql}: {:?}", statement.params());
        let made_of = client.query(&walk, &[&vec![array.oid()]]).await.with_context(|| sql.to_owned())?;
        let oids: Vec<u32> = made_of.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        ensure!(oids == [Type::INT8.oid(), array.oid()], "{array} is made of {oids:?}");
        let rows = client.query(&statement, &[&vec![7i64, 8]]).await.with_context(|| sql.to_owned())?;
        ensure!(rows.len() == 1, "{sql}: {} rows", rows.len());
    }
    let array = client.query_one("SELECT array[1, 2]", &[]).await?;
    ensure!(array.try_get::<_, Vec<i64>>(0)? == [1, 2], "{array:?}");
    // A client may say that its integers are narrower.
    for sql in ["SELECT k FROM t WHERE k = ANY ($1)", "SELECT k FROM v WHERE k = ANY ($1)"] {
        let narrow = client.prepare_typed(sql, &[Type::INT4_ARRAY]).await.with_context(|| sql.to_owned())?;
        ensure!(client.query(&narrow, &[&vec![7i32, -1]]).await?.len() == 1, "{sql}");
    }
    Ok(())
}

/// What would be stored as another value is refused, whatever way it comes.
#[tokio::test]
async fn a_parameter_of_another_type_is_not_stored() -> Result<()> {
    let folder = Folder::new()?;
    let (_server, client) = set_up(&folder).await?;
    client.batch_execute("CREATE TABLE w (k BIGINT, b BOOLEAN, at TIMESTAMPTZ)").await?;
    let insert = client.prepare_typed("INSERT INTO w (at) VALUES ($1)", &[Type::INT4]).await?;
    let Err(error) = client.execute(&insert, &[&3i32]).await else { bail!("3 was taken for an instant") };
    ensure!(
        shown(&error).contains("column \"at\" is of type timestamp with time zone but expression is of type integer"),
        "{}",
        shown(&error)
    );
    let insert = client.prepare_typed("INSERT INTO w (k) VALUES ($1)", &[Type::BOOL]).await?;
    let Err(error) = client.execute(&insert, &[&true]).await else { bail!("true was taken for a number") };
    ensure!(error.code().is_some_and(|code| code.code() == "42804"), "{}", shown(&error));
    // A narrower integer and a text are. What is declared as nothing has the type of its column.
    let types = [Type::INT2, Type::TEXT];
    let insert = client.prepare_typed("INSERT INTO w (k, b, at) SELECT $1, $2, $3", &types).await?;
    ensure!(insert.params() == [Type::INT2, Type::TEXT, Type::TIMESTAMPTZ], "{:?}", insert.params());
    client.execute(&insert, &[&3i16, &"true", &time("2026-03-02T10:00:00Z")?]).await?;
    let row = client.query_one("SELECT k, b, at FROM w", &[]).await?;
    let found = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    ensure!(found == (3i64, true, time("2026-03-02T10:00:00Z")?), "{found:?}");
    Ok(())
}
