//! Parameters and results in binary: every common type goes through a table, a lookup and an expression unchanged.

use crate::server::{Folder, Server, shown};
use anyhow::{Context, Result, ensure};
use bytes::{BufMut, BytesMut};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use futures::TryStreamExt;
use std::fmt::Debug;
use tokio_postgres::{
    Client, SimpleQueryMessage,
    types::{FromSql, FromSqlOwned, IsNull, ToSql, Type, to_sql_checked},
};

/// Each value in as a parameter and out as a result, through the table `t` with one column `v`.
async fn round_trip<T>(client: &Client, sql_type: &str, ty: Type, values: &[Option<T>]) -> Result<()>
where
    T: ToSql + FromSqlOwned + PartialEq + Debug + Sync,
{
    client.batch_execute(&format!("CREATE TABLE t (id BIGINT, v {sql_type})")).await?;
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2)").await?;
    ensure!(insert.params() == [Type::INT8, ty.clone()], "the parameters of an INSERT are {:?}", insert.params());
    for (id, value) in values.iter().enumerate() {
        client.execute(&insert, &[&(id as i64), value]).await.with_context(|| format!("{value:?}"))?;
    }
    let select = client.prepare("SELECT v FROM t WHERE id = $1").await?;
    ensure!(select.columns()[0].type_() == &ty, "the column is {:?}", select.columns()[0].type_());
    let echo = client.prepare_typed(&format!("SELECT $1::{sql_type} AS v"), std::slice::from_ref(&ty)).await?;
    for (id, value) in values.iter().enumerate() {
        let stored: Option<T> = client.query_one(&select, &[&(id as i64)]).await?.try_get(0)?;
        ensure!(stored == *value, "{value:?} comes back from the table as {stored:?}");
        let echoed: Option<T> = client.query_one(&echo, &[value]).await?.try_get(0)?;
        ensure!(echoed == *value, "{value:?} comes back from the expression as {echoed:?}");
    }
    client.batch_execute("DROP TABLE t").await?;
    Ok(())
}

fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).map(|time| time.with_timezone(&Utc)).unwrap_or_default()
}

#[tokio::test]
async fn every_common_type_goes_in_and_out_in_binary() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = &server.connect().await?;
    let day = |y, m, d| NaiveDate::from_ymd_opt(y, m, d);
    let local = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok();
    let clock = |text: &str| NaiveTime::parse_from_str(text, "%H:%M:%S%.f").ok();
    let mut wrong = vec![];
    macro_rules! check {
        ($sql:literal, $ty:ident, $values:expr) => {
            if let Err(error) = round_trip(client, $sql, Type::$ty, &$values).await {
                wrong.push(format!("{}: {error:#}", $sql));
                let _ = client.batch_execute("DROP TABLE IF EXISTS t").await;
            }
        };
    }
    check!("BOOLEAN", BOOL, [Some(true), Some(false), None]);
    check!("SMALLINT", INT2, [Some(i16::MIN), Some(-1), Some(i16::MAX), None]);
    check!("INTEGER", INT4, [Some(i32::MIN), Some(0), Some(i32::MAX), None]);
    check!("BIGINT", INT8, [Some(i64::MIN), Some(0), Some(i64::MAX), None]);
    check!("REAL", FLOAT4, [Some(1.5f32), Some(f32::MIN_POSITIVE), Some(f32::INFINITY), None]);
    check!("DOUBLE PRECISION", FLOAT8, [Some(0.1f64), Some(-1e300), Some(f64::NEG_INFINITY), None]);
    check!("TEXT", TEXT, [Some("é漢🦀'\"\\".to_owned()), Some(String::new()), None]);
    check!("BYTEA", BYTEA, [Some(vec![0u8, 255, 92]), Some(vec![]), None]);
    check!("DATE", DATE, [day(2024, 2, 29), day(1969, 12, 31), day(1, 1, 1), None]);
    check!("TIME", TIME, [clock("23:59:59.999999"), clock("00:00:00"), None]);
    check!("TIMESTAMP", TIMESTAMP, [local("2026-03-02 10:00:00.000001"), local("1969-12-31 23:59:59"), None]);
    check!(
        "TIMESTAMPTZ",
        TIMESTAMPTZ,
        [Some(time("2026-03-02T10:00:00.5Z")), Some(time("1900-01-01T00:00:00Z")), None]
    );
    check!("BIGINT[]", INT8_ARRAY, [Some(vec![Some(1i64), None, Some(-3)]), Some(vec![]), None]);
    check!("TEXT[]", TEXT_ARRAY, [Some(vec![Some("a,b".to_owned()), None, Some(String::new())]), None]);
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), folder.log_tail());
    Ok(())
}

/// NUMERIC and INTERVAL have no Rust type in the driver: in as text, out as text, compared by the server.
#[tokio::test]
async fn numeric_and_interval_parameters_are_exact() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client.batch_execute("CREATE TABLE t (n NUMERIC(20,5), s INTERVAL)").await?;
    for (n, s) in [("123456789012345.00001", "1 day 2 hours 3 minutes"), ("-0.00001", "-3 days")] {
        client
            .execute("INSERT INTO t VALUES ($1::text::numeric(20,5), $2::text::interval)", &[&n, &s])
            .await
            .with_context(|| format!("{n}, {s}"))?;
        let row = client
            .query_one("SELECT n::text, s::text FROM t WHERE n = $1::text::numeric(20,5)", &[&n])
            .await
            .with_context(|| n.to_owned())?;
        ensure!(row.try_get::<_, String>(0)? == n, "{n} is {}", row.try_get::<_, String>(0)?);
    }
    Ok(())
}

#[tokio::test]
async fn prepared_lookups_take_keys_of_every_shape() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE c (k BIGINT, item TEXT, x DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW v AS SELECT k, at, count(*) OVER w AS n, sum(x) OVER w AS total FROM c WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '1 hour' PRECEDING);
             CREATE FEATURE VIEW pairs AS SELECT k, item, at, sum(x) OVER (PARTITION BY k, item ORDER BY at) AS total FROM c",
        )
        .await?;
    let at = time("2026-03-02T10:00:00Z");
    let insert = client.prepare("INSERT INTO c VALUES ($1, $2, $3, $4)").await?;
    let get = client.prepare("SELECT n, total, at FROM v WHERE k = $1").await?;
    ensure!(get.params() == [Type::INT8], "{:?}", get.params());
    ensure!(client.query_opt(&get, &[&1i64]).await?.is_none());
    for (k, item, x) in [(1i64, "a", 0.5), (2, "b", 2.0), (1, "a", 1.0), (1, "b", 4.0)] {
        ensure!(client.execute(&insert, &[&k, &item, &x, &at]).await? == 1);
    }
    let row = client.query_one(&get, &[&1i64]).await?;
    ensure!(
        (row.try_get::<_, i64>(0)?, row.try_get::<_, f64>(1)?, row.try_get::<_, DateTime<Utc>>(2)?) == (3, 5.5, at)
    );
    ensure!(client.query_opt(&get, &[&None::<i64>]).await?.is_none());
    ensure!(client.query_opt(&get, &[&99i64]).await?.is_none());

    let many = client.prepare("SELECT k, n FROM v WHERE k = ANY($1)").await?;
    ensure!(many.params() == [Type::INT8_ARRAY], "{:?}", many.params());
    let mut found: Vec<(i64, i64)> = vec![];
    for row in client.query(&many, &[&vec![1i64, 99, 2, 1]]).await? {
        found.push((row.try_get(0)?, row.try_get(1)?));
    }
    found.sort_unstable();
    ensure!(found == [(1, 3), (2, 1)], "{found:?}");

    let pair = client.prepare("SELECT total FROM pairs WHERE item = $1 AND k = $2").await?;
    ensure!(pair.params() == [Type::TEXT, Type::INT8], "{:?}", pair.params());
    let total: f64 = client.query_one(&pair, &[&"a", &1i64]).await?.try_get(0)?;
    ensure!(total == 1.5);

    // On-demand features: a parameter in the select list
    let sql = "SELECT total / nullif($2::float8, 0) AS rel, $2::float8 AS score FROM v WHERE k = $1";
    let row = client.query_one(sql, &[&1i64, &2.0f64]).await?;
    ensure!((row.try_get::<_, f64>(0)?, row.try_get::<_, f64>(1)?) == (2.75, 2.0));

    // A parameter that is not one
    let Err(error) = client.query("SELECT n FROM v WHERE k = $2", &[&1i64, &"one"]).await else {
        anyhow::bail!("text was taken for a key")
    };
    ensure!(error.as_db_error().is_none(), "the driver knows the types: {}", shown(&error));
    Ok(())
}

/// As pgvector's clients have it.
#[derive(Debug, Clone, PartialEq)]
struct Vector(Vec<f32>);

impl ToSql for Vector {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.put_i16(i16::try_from(self.0.len())?);
        out.put_i16(0);
        self.0.iter().for_each(|number| out.put_f32(*number));
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "vector"
    }

    to_sql_checked!();
}

impl FromSql<'_> for Vector {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        let numbers = raw.get(4..).ok_or("short")?.chunks_exact(4);
        let numbers = numbers.map(|number| f32::from_be_bytes([number[0], number[1], number[2], number[3]])).collect();
        let head: [u8; 4] = raw[..4].try_into()?;
        let vector = Vector(numbers);
        if head != [[0, vector.0.len() as u8], [0, 0]].concat()[..] {
            return Err(format!("a vector begins with {head:?}").into());
        }
        Ok(vector)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "vector"
    }
}

#[tokio::test]
async fn vectors_go_in_and_out_in_binary_and_in_text() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client.batch_execute("CREATE TABLE t (id BIGINT, v VECTOR(3), w VECTOR, l VECTOR(2)[])").await?;
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3, $4)").await?;
    let names: Vec<&str> = insert.params().iter().map(Type::name).collect();
    ensure!(names == ["int8", "vector", "vector", "_vector"], "{names:?}");
    let vector = |numbers: &[f32]| Some(Vector(numbers.to_vec()));
    let several = Some(vec![vector(&[1.0, 2.0]), None, vector(&[0.1, -1e10])]);
    let rows = [
        (vector(&[1.0, -0.5, f32::MAX]), vector(&[0.0]), several),
        (vector(&[f32::MIN_POSITIVE, 0.1, 1e-7]), vector(&[7.0; 200]), Some(vec![])),
        (None, None, None),
    ];
    for (id, (v, w, l)) in rows.iter().enumerate() {
        ensure!(client.execute(&insert, &[&(id as i64), v, w, l]).await? == 1);
    }
    let select = client.prepare("SELECT v, w, l FROM t ORDER BY id").await?;
    let found = client.query(&select, &[]).await?;
    for (row, expected) in found.iter().zip(&rows) {
        let (v, w, l): (Option<Vector>, Option<Vector>, Option<Vec<Option<Vector>>>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        ensure!((&v, &w, &l) == (&expected.0, &expected.1, &expected.2), "{expected:?} comes back as {row:?}");
    }
    let messages = client.simple_query("SELECT v, l FROM t WHERE id = 0").await?;
    let text = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((row.get(0)?.to_owned(), row.get(1)?.to_owned())),
        _ => None,
    });
    let expected = ("[1,-0.5,3.4028235e+38]".to_owned(), "{\"[1,2]\",NULL,\"[0.1,-1e+10]\"}".to_owned());
    ensure!(text.as_ref() == Some(&expected), "{text:?}");

    // A parameter beside a vector is one.
    let near = client.prepare("SELECT id FROM t WHERE w IS NOT NULL AND v <-> $1 < 1 ORDER BY v <-> $1").await?;
    ensure!(near.params().iter().map(Type::name).collect::<Vec<_>>() == ["vector"], "{:?}", near.params());
    let found: i64 = client.query_one(&near, &[&vector(&[0.0, 0.0, 0.0])]).await?.try_get(0)?;
    ensure!(found == 1);

    let Err(error) =
        client.execute(&insert, &[&9i64, &vector(&[1.0, 2.0]), &None::<Vector>, &None::<Vec<Vector>>]).await
    else {
        anyhow::bail!("a vector of two dimensions went where three are")
    };
    ensure!(error.code().is_some_and(|code| code.code() == "22000"), "{}", shown(&error));
    ensure!(shown(&error).contains("expected 3 dimensions, not 2"), "{}", shown(&error));
    Ok(())
}

/// A value's bytes, of any type.
#[derive(Debug, PartialEq)]
struct Raw(Vec<u8>);

impl FromSql<'_> for Raw {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// PostgreSQL's types where the values are held in others: integers that are written in the query, and JSON.
#[tokio::test]
async fn integer_literals_are_integers_and_parts_of_documents_are_json() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client.batch_execute("CREATE TABLE t (id BIGINT, d TEXT)").await?;
    client.batch_execute("INSERT INTO t VALUES (1, '{\"a\": [1, \"b\"]}')").await?;
    client.batch_execute("CREATE VIEW v AS SELECT 1 AS one, d -> 'a' AS a FROM t").await?;
    let document = |text: &str| Some(Raw(text.as_bytes().to_vec()));
    let binary = |text: &str| Some(Raw([&[1u8][..], text.as_bytes()].concat()));
    let (int4, int8) = (|n: i32| Some(Raw(n.to_be_bytes().to_vec())), |n: i64| Some(Raw(n.to_be_bytes().to_vec())));
    let cases: [(&str, Type, Option<Raw>); 17] = [
        ("SELECT 1", Type::INT4, int4(1)),
        ("SELECT -7", Type::INT4, int4(-7)),
        ("SELECT 3000000000", Type::INT8, int8(3_000_000_000)),
        ("SELECT 1::bigint", Type::INT8, int8(1)),
        ("SELECT 2147483647 + 1", Type::INT8, int8(2_147_483_648)),
        ("SELECT 2 * 3 - 1", Type::INT4, int4(5)),
        ("SELECT CASE WHEN id = 1 THEN 1 ELSE 0 END FROM t", Type::INT4, int4(1)),
        ("SELECT CASE WHEN id = 2 THEN 1 END FROM t", Type::INT4, None),
        ("SELECT x FROM (SELECT 5 AS x UNION ALL SELECT 6) AS u ORDER BY x LIMIT 1", Type::INT4, int4(5)),
        ("SELECT coalesce(id, 0) FROM t", Type::INT8, int8(1)),
        ("SELECT d -> 'a' FROM t", Type::JSON, document("[1, \"b\"]")),
        ("SELECT d::json FROM t", Type::JSON, document("{\"a\": [1, \"b\"]}")),
        ("SELECT '{\"b\":1,\"a\":2}'::jsonb", Type::JSONB, binary("{\"a\": 2, \"b\": 1}")),
        ("SELECT d::jsonb -> 'a' -> 1 FROM t", Type::JSONB, binary("\"b\"")),
        ("SELECT d -> 'a' ->> 1 FROM t", Type::TEXT, document("b")),
        // As the catalog has it.
        ("SELECT one FROM v", Type::INT8, int8(1)),
        ("SELECT a FROM v", Type::TEXT, document("[1, \"b\"]")),
    ];
    for (sql, ty, expected) in cases {
        let statement = client.prepare(sql).await.with_context(|| sql.to_owned())?;
        ensure!(statement.columns()[0].type_() == &ty, "{sql} is {:?}", statement.columns()[0].type_());
        let found: Option<Raw> = client.query_one(&statement, &[]).await?.try_get(0)?;
        ensure!(found == expected, "{sql} gives {found:?}");
        // COPY in binary goes by the same types: clients decode it by what they were told of the query.
        let pieces = client.copy_out(&format!("COPY ({sql}) TO STDOUT (FORMAT binary)")).await?;
        let append = |all: Vec<u8>, piece: bytes::Bytes| async move { Ok([&all[..], &piece[..]].concat()) };
        let copied = pieces.try_fold(vec![], append).await?;
        let value = expected.map_or(vec![], |Raw(value)| value);
        let is_same = copied.strip_suffix(&[255, 255]).is_some_and(|rows| rows.ends_with(&value));
        ensure!(is_same, "{sql} is copied as {copied:?}");
    }
    // What is sent as jsonb is text here.
    let sent = client.prepare_typed("SELECT $1::jsonb ->> 'a'", &[Type::JSONB]).await?;
    ensure!(sent.params() == [Type::JSONB], "{:?}", sent.params());
    Ok(())
}

#[tokio::test]
async fn a_prepared_statement_outlives_what_is_created_and_dropped_around_it() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let (client, other) = (server.connect().await?, server.connect().await?);
    let create = "CREATE SOURCE c (k BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
        CREATE FEATURE VIEW v AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM c;
        INSERT INTO c VALUES (1, '2026-03-02 10:00:00+00')";
    client.batch_execute(create).await?;
    let get = client.prepare("SELECT n FROM v WHERE k = $1").await?;
    ensure!(client.query_one(&get, &[&1i64]).await?.try_get::<_, i64>(0)? == 1);
    other.batch_execute("CREATE TABLE unrelated (a BIGINT)").await?;
    ensure!(client.query_one(&get, &[&1i64]).await?.try_get::<_, i64>(0)? == 1);
    other.batch_execute("DROP FEATURE VIEW v").await?;
    let Err(error) = client.query(&get, &[&1i64]).await else { anyhow::bail!("a dropped view answers") };
    ensure!(error.code().is_some_and(|code| code.code() == "42P01"), "{}", shown(&error));
    other
        .batch_execute("CREATE FEATURE VIEW v AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM c")
        .await?;
    ensure!(client.query_one(&get, &[&1i64]).await?.try_get::<_, i64>(0)? == 1);
    Ok(())
}
