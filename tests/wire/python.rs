//! psycopg, where the test command has made an environment with it (`TIDEMARK_PYTHON`).

use crate::server::{Folder, Server};
use anyhow::{Result, ensure};

const SCRIPT: &str = r#"
import sys
try:
    import psycopg
except ImportError:
    print("skipped: no psycopg")
    sys.exit(0)
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
    try:
        c.execute("SELECT * FROM nothing")
        raise SystemExit("no error")
    except psycopg.errors.UndefinedTable as error:
        assert "nothing" in str(error)
print("ok")
"#;

#[tokio::test]
async fn psycopg_looks_up_and_copies() -> Result<()> {
    let Ok(python) = std::env::var("TIDEMARK_PYTHON") else {
        println!("skipped: TIDEMARK_PYTHON is not set");
        return Ok(());
    };
    if !std::path::Path::new(&python).exists() {
        println!("skipped: {python} is not there");
        return Ok(());
    }
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let url = format!("host=127.0.0.1 port={} user=tidemark dbname=tidemark", server.port);
    let output = tokio::process::Command::new(python).args(["-c", SCRIPT, &url]).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
