//! What columns are called in a RowDescription: the same in both protocols, planned or looked up, and equal where asked.

use crate::server::{Folder, Server};
use anyhow::{Context, Result, ensure};
use tokio_postgres::SimpleQueryMessage;

const SETUP: &str = "
    CREATE SOURCE s (k BIGINT NOT NULL, x INTEGER, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
    CREATE FEATURE VIEW f AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s;
    INSERT INTO s VALUES (1, 2, '2026-03-02 10:00:00+00');
";

/// A query and what its columns are called.
const CASES: &[(&str, &[&str])] = &[
    ("SELECT count(*), x + 1, x::bigint, 1 FROM s GROUP BY x", &["count", "?column?", "x", "?column?"]),
    ("SELECT k, k, x AS k FROM s", &["k", "k", "k"]),
    ("SELECT a.*, b.* FROM s a JOIN s b ON a.k = b.k", &["k", "x", "at", "k", "x", "at"]),
    ("SELECT *, x FROM s", &["k", "x", "at", "x"]),
    ("SELECT * FROM (SELECT a.k, b.k FROM s a, s b) AS j", &["k", "k"]),
    ("SELECT n, n, k FROM f WHERE k = 1", &["n", "n", "k"]),
    ("SELECT n, n + 1 FROM f WHERE k = 1", &["n", "?column?"]),
    ("VALUES (1, 2)", &["column1", "column2"]),
    ("SELECT current_user, pg_backend_pid() > 0", &["current_user", "?column?"]),
];

#[tokio::test]
async fn columns_are_called_what_postgresql_calls_them() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client.batch_execute(SETUP).await?;
    for (sql, names) in CASES {
        let statement = client.prepare(sql).await.with_context(|| sql.to_string())?;
        let prepared: Vec<&str> = statement.columns().iter().map(|column| column.name()).collect();
        ensure!(prepared == *names, "{sql}: {prepared:?} when prepared");
        let rows = client.query(&statement, &[]).await.with_context(|| sql.to_string())?;
        ensure!(rows.len() == 1 && rows[0].len() == names.len(), "{sql}: {} rows", rows.len());
        for message in client.simple_query(sql).await? {
            if let SimpleQueryMessage::RowDescription(columns) = message {
                let described: Vec<&str> = columns.iter().map(|column| column.name()).collect();
                ensure!(described == *names, "{sql}: {described:?} in the simple protocol");
            }
        }
    }
    Ok(())
}
