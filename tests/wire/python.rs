//! Python's libraries: psycopg at the server, PyIceberg and DuckDB at its warehouse. `scripts/test.sh` has made
//! environments with them (`TIDEMARK_PYTHON`, `TIDEMARK_LAKE_PYTHON`).

use crate::server::{Folder, Server, skipped};
use anyhow::{Result, ensure};

const SCRIPT: &str = r#"
import sys
import psycopg
from datetime import datetime, timezone
with psycopg.connect(sys.argv[1], autocommit=True) as c:
    c.execute("CREATE SOURCE clicks (k BIGINT, x DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event')")
    c.execute("CREATE FEATURE VIEW spend AS SELECT k, at, sum(x) OVER (PARTITION BY k ORDER BY at) AS total FROM clicks")
    at = datetime(2026, 3, 2, 10, tzinfo=timezone.utc)
    c.execute("INSERT INTO clicks VALUES (%s, %s, %s)", (1, 0.5, at))
    with c.cursor().copy("COPY clicks FROM STDIN") as copy:
        copy.write_row((1, 1.0, at))
        copy.write_row((2, None, at))
    for binary in (False, True):
        cursor = c.cursor(binary=binary)
        assert cursor.execute("SELECT total, at FROM spend WHERE k = %s", (1,)).fetchall() == [(1.5, at)]
        assert sorted(cursor.execute("SELECT k FROM spend WHERE k = ANY(%s)", ([1, 2, 3],)).fetchall()) == [(1,), (2,)]
        assert cursor.execute("SELECT total FROM spend WHERE k = %s", (9,), prepare=True).fetchone() is None
        # Text that nothing gives a type, and an instant that decides what is read
        assert cursor.execute("SELECT %s", ("hey",)).fetchone() == ("hey",)
        assert cursor.execute("SELECT %s AS model, k FROM spend WHERE k = %s", ("m1", 2)).fetchall() == [("m1", 2)]
        for placeholder, instant in (("%t", at), ("%b", at), ("%s", str(at)), ("%s::timestamptz", str(at))):
            sql = f"SELECT total FROM spend FOR SYSTEM_TIME AS OF {placeholder} WHERE k = %s"
            assert cursor.execute(sql, (instant, 1)).fetchall() == [(1.5,)], placeholder
            c.execute(f"ALTER SOURCE clicks ADVANCE WATERMARK TO {placeholder}", (instant,))
        try:
            c.execute("SELECT total FROM spend FOR SYSTEM_TIME AS OF %s", (None,))
            raise SystemExit("as of NULL")
        except psycopg.errors.NullValueNotAllowed:
            pass
    try:
        c.execute("SELECT * FROM nothing")
        raise SystemExit("no error")
    except psycopg.errors.UndefinedTable as error:
        assert "nothing" in str(error)
print("ok")
"#;

/// The Python that this variable names; `None` where it names none, unless it must.
fn python(variable: &str) -> Result<Option<String>> {
    match std::env::var(variable) {
        Ok(python) if std::path::Path::new(&python).exists() => Ok(Some(python)),
        Ok(python) => skipped(&format!("{variable}={python} is not there")).map(|()| None),
        Err(_) => skipped(&format!("{variable} is not set")).map(|()| None),
    }
}

#[tokio::test]
async fn psycopg_looks_up_and_copies() -> Result<()> {
    let Some(python) = python("TIDEMARK_PYTHON")? else { return Ok(()) };
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let url = format!("host=127.0.0.1 port={} user=tidemark dbname=tidemark", server.port);
    let output = tokio::process::Command::new(python).args(["-c", SCRIPT, &url]).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A reader that is not ours evaluates a time-continuous feature by the formula beside its base.
#[tokio::test]
async fn the_history_tells_foreign_readers_how_to_compute_what_goes_on_with_time() -> Result<()> {
    let Some(python) = python("TIDEMARK_LAKE_PYTHON")? else { return Ok(()) };
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    client
        .batch_execute(
            "CREATE SOURCE clicks (k BIGINT, x DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
             CREATE FEATURE VIEW spend AS SELECT k, at, sum(x) OVER w AS total, now() - max(at) OVER w AS since FROM clicks
               WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '1 hour' PRECEDING);
             COMMENT ON COLUMN spend.total IS 'said after CREATE: it stays in the catalog';
             INSERT INTO clicks VALUES (1, 0.5, '2026-03-02 10:00:00+00');
             ALTER SOURCE clicks ADVANCE WATERMARK TO TIMESTAMPTZ '2026-03-02 10:30:00+00';
             CHECKPOINT",
        )
        .await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/read_history.py");
    let mut command = tokio::process::Command::new(python);
    command.arg(script).arg(folder.data().join("warehouse")).args(["spend", "k", "at", "--comments"]);
    let output = command.kill_on_drop(true).output().await?;
    let printed = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let comment = |column: &str| {
        let mut lines = printed.lines().filter_map(|line| line.split_once(','));
        lines.find(|(name, _)| *name == column).map(|(_, comment)| comment)
    };
    let formula = comment("since_base").unwrap_or_default();
    for words in ["base of since: ", "__now", "since_base", "the instant of the reading"] {
        ensure!(formula.contains(words), "nothing about {words:?} beside the base: {printed}");
    }
    // What is said after CREATE stays in the catalog.
    ensure!(comment("total") == Some(""), "{printed}");
    Ok(())
}
