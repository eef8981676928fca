//! Lookups by the fingerprint of their text answer what the parser's would: the same statement at once, again, and where a
//! comment keeps it from having a fingerprint; as text and in binary.

use crate::server::{Folder, Server, shown};
use anyhow::{Result, ensure};
use tokio_postgres::{Client, SimpleQueryMessage, types::Type};

const SETUP: &str = "
    CREATE SOURCE clicks (user_id BIGINT, item TEXT, day DATE, price DOUBLE PRECISION, cents NUMERIC(10,2), small SMALLINT,
        ratio REAL, ok BOOLEAN, raw BYTEA, local TIMESTAMP, hour TIME, span INTERVAL, at TIMESTAMPTZ NOT NULL,
        WATERMARK FOR at AS at) WITH (clock = 'event');
    CREATE FEATURE VIEW users AS SELECT user_id, at, count(*) OVER w AS n, sum(price) OVER w AS total, sum(cents) OVER w AS cents,
        price, small, ratio, ok, raw, local, hour, span, day, item FROM clicks WINDOW w AS (PARTITION BY user_id ORDER BY at);
    CREATE FEATURE VIEW idle AS SELECT user_id, at, now() - max(at) OVER w AS idle, count(*) OVER w AS n FROM clicks
        WINDOW w AS (PARTITION BY user_id ORDER BY at);
    CREATE FEATURE VIEW items AS SELECT item, at, count(*) OVER (PARTITION BY item ORDER BY at) AS n FROM clicks;
    CREATE FEATURE VIEW pairs AS SELECT user_id, item, at, count(*) OVER (PARTITION BY user_id, item ORDER BY at) AS n FROM clicks;
    CREATE FEATURE VIEW days AS SELECT day, at, count(*) OVER (PARTITION BY day ORDER BY at) AS n FROM clicks;
    CREATE FEATURE VIEW moments AS SELECT local, at, count(*) OVER (PARTITION BY local ORDER BY at) AS n FROM clicks;
    CREATE FEATURE VIEW sums AS SELECT cents, at, count(*) OVER (PARTITION BY cents ORDER BY at) AS n FROM clicks;
    INSERT INTO clicks VALUES
        (1, 'a', '2026-03-01', 1.5, 1.25, -3, 0.1, true, '\\x00ff', '2026-03-02 10:00:00.5', '10:00', '1 month 2 days 3 seconds', '2026-03-02 10:00:00+00'),
        (-7, 'it''s', '1969-12-31', 'NaN', -0.5, NULL, 'Infinity', NULL, NULL, NULL, NULL, NULL, '2026-03-02 10:01:00+00'),
        (1, '5', '2026-03-01', -0.25, NULL, 7, NULL, false, '', '1969-12-31 23:59:59', '23:59:59.999999', '-1 seconds', '2026-03-02 10:02:00+00'),
        (9223372036854775807, 'é', NULL, 1e300, 99999999.99, 1, 1, true, '\\x5c', '2026-03-02 10:00:00', '00:00', '0 seconds', '2026-03-02 10:03:00+00')";

fn statements() -> Vec<String> {
    let shapes: &[(&str, &[&str])] = &[
        (
            "SELECT * FROM users WHERE user_id = ?",
            &[
                "1",
                "-7",
                "'1'",
                "' 1'",
                "9223372036854775807",
                "9223372036854775808",
                "1.0",
                "1e0",
                "'x'",
                "007",
                "- 7",
                "NULL",
                "true",
                "1::bigint",
                "1 -8",
            ],
        ),
        ("select total, n from users where user_id=?;", &["1", "-7", "2"]),
        ("SELECT u.n AS m, u.item FROM public.users AS u WHERE ? = u.user_id", &["1", "-7"]),
        ("SELECT \"n\", \"total\" FROM \"users\" WHERE \"user_id\" = ?", &["1", "-7"]),
        (
            "SELECT user_id, n FROM users WHERE user_id IN (?)",
            &["1", "1, -7", "1,1,1", "-7, 1, 99", "1, 'x'", "'1', 1", "1, NULL", "1, 1.0", "1,2,3,4,5,6,7,8,9,10"],
        ),
        ("SELECT user_id, n FROM users WHERE user_id = ANY (ARRAY[?])", &["1", "1,-7", "'1',2"]),
        (
            "SELECT user_id, n FROM users WHERE user_id = ANY (?)",
            &["'{1,-7}'", "'{}'", "'{1,NULL}'", "'{x}'", "'1'", "1"],
        ),
        ("SELECT user_id, n FROM users WHERE user_id = ANY (?::bigint[])", &["'{1,-7}'", "'{-7}'"]),
        ("SELECT user_id, idle, n FROM idle WHERE user_id = ?", &["1", "-7", "3"]),
        (
            "SELECT * FROM items WHERE item = ?",
            &["'a'", "'it''s'", "'5'", "5", "'é'", "''", "'a '", "E'a'", "$$a$$", "'a\\'", "'a' 'b'", "-5"],
        ),
        ("SELECT n FROM pairs WHERE item = ? AND user_id = ?", &["'a'|1", "'5'|1", "5|1", "'a'|'1'", "'a'|x", "1|'a'"]),
        ("SELECT n FROM pairs WHERE user_id = ? AND item = ?", &["1|'a'", "-7|'it''s'", "'a'|1"]),
        ("SELECT day, n FROM days WHERE day = ?", &["'2026-03-01'", "'1969-12-31'", "'20260301'", "'soon'", "5"]),
        ("SELECT local, n FROM moments WHERE local = ?", &["'2026-03-02 10:00:00'", "'2026-03-02T10:00:00.5'"]),
        ("SELECT cents, n FROM sums WHERE cents = ?", &["'1.25'", "1.25", "1", "-0.5", "'-0.50'"]),
        ("SELECT n FROM users WHERE user_id = ? LIMIT ?", &["1|1", "1|0"]),
        ("SELECT n, ? AS x FROM users WHERE user_id = ?", &["1|1", "2|1"]),
        ("SELECT nothing FROM users WHERE user_id = ?", &["1", "2"]),
        ("SELECT n FROM nothing WHERE user_id = ?", &["1", "2"]),
        ("SELECT n FROM users WHERE user_id = ?; SELECT ? AS x", &["1|2", "2|3"]),
    ];
    let fill =
        |shape: &str, literals: &str| literals.split('|').fold(shape.to_owned(), |sql, one| sql.replacen('?', one, 1));
    shapes.iter().flat_map(|(shape, cases)| cases.iter().map(|literals| fill(shape, literals))).collect()
}

async fn simple(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Err(error) => shown(&error),
        Ok(messages) => messages
            .iter()
            .map(|message| match message {
                SimpleQueryMessage::RowDescription(columns) => {
                    columns.iter().map(|c| c.name()).collect::<Vec<_>>().join(",") + "\n"
                }
                SimpleQueryMessage::Row(row) => {
                    format!("{:?}\n", (0..row.len()).map(|i| row.get(i)).collect::<Vec<_>>())
                }
                SimpleQueryMessage::CommandComplete(n) => format!("{n}\n"),
                _ => String::new(),
            })
            .collect(),
    }
}

/// Any value as the bytes that came.
#[derive(Debug)]
struct Bytes(#[allow(dead_code)] Vec<u8>);

impl<'a> tokio_postgres::types::FromSql<'a> for Bytes {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Bytes(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

async fn binary(client: &Client, sql: &str) -> String {
    match client.query(sql, &[]).await {
        Err(error) => shown(&error),
        Ok(rows) => rows
            .iter()
            .map(|row| {
                let types: Vec<_> = row.columns().iter().map(|c| format!("{} {}", c.name(), c.type_())).collect();
                let cells: Vec<_> = (0..row.len()).map(|i| row.get::<_, Option<Bytes>>(i)).collect();
                format!("{types:?} {cells:?}\n")
            })
            .collect(),
    }
}

#[tokio::test]
async fn a_lookup_known_by_its_fingerprint_answers_what_parsing_it_would() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = &server.connect().await?;
    client.batch_execute(SETUP).await?;
    let mut wrong = vec![];
    // Twice: the second time round every fingerprint is known.
    for sql in statements().iter().chain(&statements()) {
        let without = format!("/* not to be cut up */ {sql}");
        let (a, b) = (simple(client, &without).await, simple(client, sql).await);
        if a != b {
            wrong.push(format!("{sql}\n  parsed:   {a}\n  recalled: {b}"));
        }
        let (a, b) = (binary(client, &without).await, binary(client, sql).await);
        if a != b {
            wrong.push(format!("{sql} (extended)\n  parsed:   {a}\n  recalled: {b}"));
        }
    }
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), folder.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_known_fingerprint_forgets_a_view_that_is_dropped_or_made_again() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = &server.connect().await?;
    client.batch_execute(SETUP).await?;
    let lookup = |key: i64| format!("SELECT n FROM items WHERE item = '{key}'");
    let named = client.prepare(&lookup(5)).await?;
    let again = client.prepare(&lookup(5)).await?;
    for _ in 0..2 {
        ensure!(simple(client, &lookup(5)).await.contains("\"1\""));
    }
    client.batch_execute("DROP FEATURE VIEW items").await?;
    ensure!(simple(client, &lookup(5)).await.starts_with("42P01"), "a dropped view answers");
    ensure!(client.query(&named, &[]).await.is_err() && client.query(&again, &[]).await.is_err());
    client.batch_execute("CREATE FEATURE VIEW items AS SELECT item, at, 7 + count(*) OVER (PARTITION BY item ORDER BY at) AS n FROM clicks").await?;
    for _ in 0..2 {
        ensure!(simple(client, &lookup(5)).await.contains("\"8\""));
    }
    for statement in [&named, &again] {
        ensure!(client.query_one(statement, &[]).await?.get::<_, i64>(0) == 8);
    }
    Ok(())
}

#[tokio::test]
async fn a_known_fingerprint_is_still_refused_in_a_failed_transaction_and_reads_the_session_zone() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = &server.connect().await?;
    client.batch_execute(SETUP).await?;
    let sql = "SELECT at, n FROM users WHERE user_id = 1";
    ensure!(simple(client, sql).await.contains("2026-03-02 10:02:00+00"));
    client.batch_execute("SET TIME ZONE 'Asia/Tokyo'").await?;
    ensure!(simple(client, sql).await.contains("2026-03-02 19:02:00+09"));
    client.batch_execute("BEGIN").await?;
    ensure!(client.batch_execute("SELECT nothing").await.is_err());
    ensure!(simple(client, sql).await.starts_with("25P02"));
    client.batch_execute("ROLLBACK").await?;
    ensure!(simple(client, sql).await.contains("19:02"));
    Ok(())
}
