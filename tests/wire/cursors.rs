//! Cursors by the clients that declare them: psycopg's named cursors, psql's FETCH_COUNT, and the text that others send.

use crate::python::psycopg;
use crate::server::{Folder, Server};
use anyhow::{Result, ensure};
use tokio_postgres::SimpleQueryMessage;

const SCRIPT: &str = r#"
import sys
import psycopg
from psycopg import errors
with psycopg.connect(sys.argv[1]) as c:
    for binary in (False, True):
        with c.cursor("srv", binary=binary) as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT n, 'row ' || n::text AS t FROM generate_series(1, 1000) AS g(n) WHERE n > %s ORDER BY n", (10,))
            assert [column.name for column in cursor.description] == ["n", "t"]
            assert cursor.fetchone() == (11, "row 11")
            assert cursor.fetchmany(2) == [(12, "row 12"), (13, "row 13")]
            cursor.scroll(5)
            rows = list(cursor)
            assert rows[0] == (19, "row 19") and len(rows) == 982, (rows[0], len(rows))
            assert cursor.fetchone() is None
        assert c.execute("SELECT count(*) FROM pg_cursors").fetchone() == (0,)
    # A cursor that is held is read after its transaction.
    held = c.cursor("held", withhold=True)
    held.execute("SELECT n FROM generate_series(1, 5) AS g(n) ORDER BY n")
    assert held.fetchmany(2) == [(1,), (2,)]
    c.commit()
    assert held.fetchall() == [(3,), (4,), (5,)]
    held.close()
    # One that is not is gone.
    mine = c.cursor("mine")
    mine.execute("SELECT 1")
    c.rollback()
    try:
        mine.fetchone()
        raise SystemExit("a cursor outlived its transaction")
    except errors.InvalidCursorName:
        c.rollback()
    mine.close()
    try:
        c.cursor("back", scrollable=True).execute("SELECT 1")
        raise SystemExit("a cursor scrolls")
    except errors.FeatureNotSupported:
        c.rollback()
    # A cursor that somebody else has declared.
    c.execute("DECLARE stolen CURSOR FOR SELECT n FROM generate_series(1, 3) AS g(n) ORDER BY n")
    stolen = c.cursor("stolen")
    assert stolen.fetchall() == [(1,), (2,), (3,)]
    c.rollback()
print("ok")
"#;

#[tokio::test]
async fn psycopg_reads_through_named_cursors() -> Result<()> {
    psycopg(SCRIPT).await
}

/// psqlODBC opens a cursor and takes its first rows in one query, and closes it with the transaction in another.
#[tokio::test]
async fn a_cursor_is_declared_and_fetched_in_one_query() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    let messages = client
        .simple_query(
            "BEGIN;declare \"SQL_CUR1\" cursor with hold for select n from generate_series(1, 250) AS g(n) order by n;;fetch 100 in \"SQL_CUR1\"",
        )
        .await?;
    ensure!(rows(&messages) == 100);
    ensure!(rows(&client.simple_query("fetch 100 in \"SQL_CUR1\"").await?) == 100);
    ensure!(rows(&client.simple_query("fetch 100 in \"SQL_CUR1\"").await?) == 50);
    client.simple_query("close \"SQL_CUR1\";commit").await?;
    // Far more rows than anybody would keep: the first ones are there at once, and the rest is never made.
    client
        .batch_execute("BEGIN; DECLARE long CURSOR FOR SELECT n FROM generate_series(1, 1000000000000) AS g(n)")
        .await?;
    for _ in 0..3 {
        ensure!(rows(&client.simple_query("FETCH 1000 FROM long").await?) == 1_000);
    }
    client.batch_execute("CLOSE long; COMMIT").await?;
    Ok(())
}

fn rows(messages: &[SimpleQueryMessage]) -> usize {
    messages.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count()
}
