//! sqlx: pools, prepared statements in binary, arrays, `query_as`, streams, what `query!` asks while a program compiles, COPY,
//! transactions, listeners. Its argument is the port of a server with the tables of `schema.sql`; at its end it prints `ok`.

use futures::{TryStreamExt, future::try_join_all};
use sqlx::{
    Column, Connection, Either, Executor, FromRow, PgConnection, PgPool, Postgres, Row, Statement, TypeInfo,
    postgres::{PgConnectOptions, PgListener, PgPoolCopyExt, PgPoolOptions, PgSslMode, types::PgInterval},
    types::{
        Decimal,
        chrono::{DateTime, NaiveDate, NaiveTime, Utc},
    },
};
use std::{error::Error, fmt::Debug, time::Duration};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, PartialEq, FromRow)]
struct Spend {
    user_id: i64,
    at: DateTime<Utc>,
    clicks: i64,
    total: Option<Decimal>,
    last_page: Option<String>,
}

#[track_caller]
fn expect<T: PartialEq + Debug>(found: T, expected: T) {
    assert_eq!(found, expected, "found on the left, expected on the right");
}

#[track_caller]
fn refused<T: Debug>(state: &str, outcome: std::result::Result<T, sqlx::Error>) -> sqlx::Error {
    let error = outcome.expect_err("nothing was refused");
    let found = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
    assert_eq!(found.as_deref(), Some(state), "{error}");
    error
}

/// 10:00:00.123456 on 2 March 2026, and so many seconds.
fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_772_445_600_123_456 + seconds * 1_000_000).expect("it is a time")
}

fn named<'c, C: Column + 'c>(columns: impl IntoIterator<Item = &'c C>) -> Vec<(String, String)> {
    columns.into_iter().map(|column| (column.name().to_owned(), column.type_info().name().to_owned())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, shown)| ((*name).to_owned(), (*shown).to_owned())).collect()
}

/// Every type as a parameter and as a column, both in binary.
async fn types(pool: &PgPool) -> Result<()> {
    let (day, clock) = (NaiveDate::from_ymd_opt(2026, 2, 28), NaiveTime::from_hms_micro_opt(1, 2, 3, 4));
    let gap = PgInterval { months: 0, days: 3, microseconds: 7_000_000 };
    let (longs, words) =
        (vec![Some(1), None, Some(1i64 << 62)], vec![Some("a,b".to_owned()), None, Some(String::new())]);
    let marks = (1..=17).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
    let insert = format!("INSERT INTO everything VALUES ({marks})");
    let one = || {
        sqlx::query::<Postgres>(&insert)
            .bind(1i64)
            .bind(true)
            .bind(-7i16)
            .bind(70_000i32)
            .bind(1.5f32)
            .bind(0.1f64)
            .bind(Decimal::new(12_345_678, 3))
            .bind("grüße 🦀\t\\")
            .bind(vec![0u8, 255])
            .bind(day)
            .bind(clock)
            .bind(at(0).naive_utc())
            .bind(at(0))
            .bind(gap)
            .bind(&longs)
            .bind(&words)
            .bind(vec![0.5f32, -2.0])
    };
    expect(one().execute(pool).await?.rows_affected(), 1);
    let twice = refused("23505", one().execute(pool).await);
    assert!(twice.as_database_error().is_some_and(|error| error.is_unique_violation()), "{twice}");

    let row = sqlx::query("SELECT * FROM everything WHERE id = $1").bind(1i64).fetch_one(pool).await?;
    expect(row.try_get("flag")?, true);
    expect(row.try_get("small")?, -7i16);
    expect(row.try_get("whole")?, 70_000i32);
    expect(row.try_get("single")?, 1.5f32);
    expect(row.try_get("twice")?, 0.1f64);
    expect(row.try_get("money")?, Decimal::new(12_345_678, 3));
    expect(row.try_get::<&str, _>("word")?, "grüße 🦀\t\\");
    expect(row.try_get::<&[u8], _>("raw")?, [0u8, 255].as_slice());
    expect(row.try_get("day")?, day);
    expect(row.try_get("clock")?, clock);
    expect(row.try_get("naive")?, at(0).naive_utc());
    expect(row.try_get("at")?, at(0));
    expect(row.try_get("gap")?, gap);
    expect(row.try_get("longs")?, longs.clone());
    expect(row.try_get("words")?, words.clone());
    expect(row.try_get("vector")?, vec![0.5f32, -2.0]);

    let sql = "INSERT INTO everything (id, word, money, at, longs) VALUES ($1, $2, $3, $4, $5)";
    let nothing = sqlx::query(sql)
        .bind(2i64)
        .bind(None::<String>)
        .bind(None::<Decimal>)
        .bind(None::<DateTime<Utc>>)
        .bind(None::<Vec<i64>>);
    expect(nothing.execute(pool).await?.rows_affected(), 1);
    let sql = "SELECT word, money, at, longs FROM everything WHERE id = $1";
    let nothing: (Option<String>, Option<Decimal>, Option<DateTime<Utc>>, Option<Vec<i64>>) =
        sqlx::query_as(sql).bind(2i64).fetch_one(pool).await?;
    expect(nothing, (None, None, None, None));
    let same = sqlx::query_scalar("SELECT id FROM everything WHERE longs = $1").bind(&longs).fetch_all(pool).await?;
    expect(same, vec![1i64]);
    Ok(())
}

async fn copies(pool: &PgPool) -> Result<()> {
    let mut copy = pool.copy_in_raw("COPY clicks FROM STDIN CSV").await?;
    expect((copy.is_textual(), copy.num_columns()), (true, 4));
    copy.send("7,9.50,a,2026-03-02 10:00:00.123456+00\n8,1.25,b,2026-03-02 10:00:00.123456+00\n".as_bytes()).await?;
    copy.send("7,,,2026-03-02 10:00:30.123456+00\n".as_bytes()).await?;
    expect(copy.finish().await?, 3);
    let mut copy = pool.copy_in_raw("COPY clicks FROM STDIN CSV").await?;
    copy.send("9,1,lost,2026-03-02 10:00:00+00\n".as_bytes()).await?;
    copy.abort("on second thoughts").await?;
    let mut copy = pool.copy_in_raw("COPY clicks FROM STDIN CSV").await?;
    copy.send("nine,1,lost,2026-03-02 10:00:00+00\n".as_bytes()).await?;
    refused("22P02", copy.finish().await);
    refused("42P01", pool.copy_in_raw("COPY nothing FROM STDIN").await.map(|_| ()));

    let out = pool.copy_out_raw("COPY (SELECT user_id, price, page FROM clicks ORDER BY at, user_id) TO STDOUT CSV");
    let text: Vec<u8> = out.await?.map_ok(|part| part.to_vec()).try_concat().await?;
    expect(String::from_utf8(text)?, "7,9.50,a\n8,1.25,b\n7,,\n".to_owned());
    Ok(())
}

async fn lookups(pool: &PgPool) -> Result<()> {
    let sql = "SELECT * FROM spend WHERE user_id = $1";
    let expected = Spend { user_id: 7, at: at(30), clicks: 2, total: Some(Decimal::new(950, 2)), last_page: None };
    expect(sqlx::query_as(sql).bind(7i64).fetch_one(pool).await?, expected);
    expect(sqlx::query_as::<_, Spend>(sql).bind(9i64).fetch_optional(pool).await?, None);
    let several = "SELECT user_id, clicks FROM spend WHERE user_id = ANY($1) ORDER BY user_id";
    let found: Vec<(i64, i64)> = sqlx::query_as(several).bind(vec![8i64, 7, 9]).fetch_all(pool).await?;
    expect(found, vec![(7, 2), (8, 1)]);
    let pair = "SELECT views FROM pages WHERE page = $1 AND user_id = $2";
    expect(sqlx::query_scalar(pair).bind("a").bind(7i64).fetch_one(pool).await?, 1i64);

    // More at once than there are connections
    let asked = (0..30i64).map(|n| {
        sqlx::query_scalar::<_, i64>("SELECT clicks FROM spend WHERE user_id = $1").bind(7 + n % 3).fetch_optional(pool)
    });
    expect(try_join_all(asked).await?, [Some(2), Some(1), None].repeat(10));
    Ok(())
}

/// Named statements, of which a connection keeps few; unnamed ones; several in one text; what is refused.
async fn statements(options: &PgConnectOptions) -> Result<()> {
    let mut connection = PgConnection::connect_with(&options.clone().statement_cache_capacity(2)).await?;
    for _ in 0..3 {
        for n in 1..=4i64 {
            let sql = format!("SELECT user_id * {n} + $1 FROM spend WHERE user_id = 7");
            expect(sqlx::query_scalar(&sql).bind(n).fetch_one(&mut connection).await?, 8 * n);
        }
    }
    expect(connection.cached_statements_size(), 2);
    connection.clear_cached_statements().await?;
    let once = sqlx::query_scalar::<Postgres, i64>("SELECT $1::bigint + 1").bind(1i64).persistent(false);
    expect(once.fetch_one(&mut connection).await?, 2);
    expect(connection.cached_statements_size(), 0);

    let prepared = connection.prepare("SELECT clicks, last_page FROM spend WHERE user_id = $1").await?;
    expect(named(prepared.columns()), pairs(&[("clicks", "INT8"), ("last_page", "TEXT")]));
    let found: (i64, Option<String>) = prepared.query_as().bind(8i64).fetch_one(&mut connection).await?;
    expect(found, (1, Some("b".to_owned())));

    // By the simple protocol, in text
    let rows =
        sqlx::raw_sql("SELECT 1::bigint AS n; SELECT clicks FROM spend WHERE user_id = 7").fetch_all(&mut connection);
    expect(rows.await?.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<Vec<i64>>>()?, vec![1, 2]);

    refused("42P01", sqlx::query("SELECT * FROM nothing").execute(&mut connection).await);
    refused("42703", sqlx::query("SELECT nothing FROM spend").execute(&mut connection).await);
    refused("22012", sqlx::query("SELECT 1 / $1::int").bind(0i32).execute(&mut connection).await);
    refused("23502", sqlx::query("INSERT INTO clicks (price) VALUES (1)").execute(&mut connection).await);
    connection.ping().await?;
    connection.close().await?;

    let patient = options.clone().options([("statement_timeout", "200ms")]);
    let mut connection = PgConnection::connect_with(&patient).await?;
    refused("57014", sqlx::query("SELECT pg_sleep(60)").execute(&mut connection).await);
    connection.close().await?;
    Ok(())
}

/// What `query!` asks while a program compiles: it prepares, and explains the statement by its name.
async fn descriptions(options: &PgConnectOptions) -> Result<()> {
    let mut connection = PgConnection::connect_with(options).await?;
    let described = connection.describe("SELECT s.user_id, s.at, s.total FROM spend s WHERE s.user_id = $1").await?;
    expect(named(described.columns()), pairs(&[("user_id", "INT8"), ("at", "TIMESTAMPTZ"), ("total", "NUMERIC")]));
    let Some(Either::Left(parameters)) = described.parameters() else { return Err("no parameters".into()) };
    expect(parameters.iter().map(|one| one.name()).collect(), vec!["INT8"]);
    let joined = "SELECT l.user_id, s.clicks FROM labels l LEFT JOIN spend s ON s.user_id = l.user_id";
    expect(named(connection.describe(joined).await?.columns()), pairs(&[("user_id", "INT8"), ("clicks", "INT8")]));
    connection.close().await?;
    Ok(())
}

async fn transactions(pool: &PgPool) -> Result<()> {
    let mut block = pool.begin().await?;
    for n in 0..500i64 {
        let insert = sqlx::query("INSERT INTO labels VALUES ($1, $2, $3)").bind(n).bind(at(n)).bind(n % 2 == 0);
        insert.execute(&mut *block).await?;
    }
    let mut inner = block.begin().await?;
    refused("22012", sqlx::query("SELECT 1 / 0").execute(&mut *inner).await);
    refused("25P02", sqlx::query("SELECT 1").execute(&mut *inner).await);
    inner.rollback().await?;
    expect(sqlx::query_scalar("SELECT count(*) FROM labels").fetch_one(&mut *block).await?, 500i64);
    block.commit().await?;

    // One that is dropped is rolled back before its connection is used again
    let mut dropped = pool.begin().await?;
    refused("22012", sqlx::query("SELECT 1 / 0").execute(&mut *dropped).await);
    drop(dropped);
    let mut reading = pool.begin_with("BEGIN READ ONLY").await?;
    refused("25006", sqlx::query("INSERT INTO labels VALUES (1, NULL, NULL)").execute(&mut *reading).await);
    reading.rollback().await?;

    // Row by row
    let rows = sqlx::query_scalar::<_, i64>("SELECT user_id FROM labels ORDER BY user_id").fetch(pool);
    expect(rows.try_collect::<Vec<_>>().await?, (0..500).collect());
    // Left before its end: what is still on its way does not become the next answer
    let mut rows = sqlx::query_scalar::<_, i64>("SELECT user_id FROM labels ORDER BY user_id").fetch(pool);
    expect(rows.try_next().await?, Some(0));
    drop(rows);
    expect(sqlx::query_scalar("SELECT count(*) FROM labels WHERE bought").fetch_one(pool).await?, 250i64);
    Ok(())
}

async fn listeners(pool: &PgPool) -> Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen("News").await?;
    listener.listen_all(["a", "b"]).await?;
    for (channel, payload) in [("news", "nobody's"), ("News", "grüße"), ("b", "")] {
        sqlx::query("SELECT pg_notify($1, $2)").bind(channel).bind(payload).execute(pool).await?;
    }
    for (channel, payload) in [("News", "grüße"), ("b", "")] {
        let heard = tokio::time::timeout(PATIENCE, listener.recv()).await??;
        expect((heard.channel(), heard.payload()), (channel, payload));
    }
    listener.unlisten("a").await?;
    listener.unlisten_all().await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).ok_or("the port is missing")?;
    let url = format!("postgres://tidemark@127.0.0.1:{port}/tidemark?sslmode=disable&application_name=clients");
    let mut connection = PgConnection::connect(&url).await?;
    let name: String = sqlx::query_scalar("SHOW application_name").fetch_one(&mut connection).await?;
    expect(name.as_str(), "clients");
    connection.close().await?;

    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port.parse()?)
        .username("tidemark")
        .database("tidemark")
        .ssl_mode(PgSslMode::Disable);
    let pool = PgPoolOptions::new().max_connections(4).after_connect(|connection, _| {
        Box::pin(async move {
            connection.execute("SET application_name = 'pooled'").await?;
            Ok(())
        })
    });
    let pool = pool.connect_with(options.clone()).await?;
    expect(sqlx::query_scalar("SHOW application_name").fetch_one(&pool).await?, "pooled".to_owned());
    types(&pool).await?;
    copies(&pool).await?;
    lookups(&pool).await?;
    statements(&options).await?;
    descriptions(&options).await?;
    transactions(&pool).await?;
    listeners(&pool).await?;
    pool.close().await;
    println!("ok");
    Ok(())
}
