//! psql, as people use it: the backslash commands, \copy, how errors look.

use crate::server::{Folder, Server};
use anyhow::{Context, Result, ensure};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

const SETUP: &str = "
    CREATE SOURCE clicks (user_id BIGINT NOT NULL, price DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
    CREATE TABLE labels (id BIGINT PRIMARY KEY, name TEXT);
    CREATE FEATURE VIEW spend AS SELECT user_id, at, sum(price) OVER (PARTITION BY user_id ORDER BY at) AS total FROM clicks;
    CREATE VIEW totals AS SELECT total FROM spend;
";

struct Psql {
    stdout: String,
    stderr: String,
    status: i32,
}

/// Runs a script; `None` where there is no psql, unless there must be.
async fn psql(server: &Server, script: &str, flags: &[&str]) -> Result<Option<Psql>> {
    let mut command = tokio::process::Command::new("psql");
    command
        .args(["-X", "-h", "127.0.0.1", "-p", &server.port.to_string(), "-U", "tidemark", "-d", "tidemark"])
        .args(flags);
    command.env("PGCLIENTENCODING", "UTF8").env("LC_ALL", "C.UTF-8").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return crate::server::skipped("psql is not installed").map(|()| None);
        }
        child => child?,
    };
    let mut stdin = child.stdin.take().context("psql has no stdin")?;
    stdin.write_all(script.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    Ok(Some(Psql {
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
        status: output.status.code().unwrap_or(-1),
    }))
}

async fn prepared(folder: &Folder) -> Result<Server> {
    let server = Server::start(folder).await?;
    server.connect().await?.batch_execute(SETUP).await?;
    Ok(server)
}

#[tokio::test]
async fn the_backslash_commands_show_what_there_is() -> Result<()> {
    let folder = Folder::new()?;
    let server = prepared(&folder).await?;
    let commands: &[(&str, &[&str])] = &[
        ("\\d", &["clicks", "labels", "spend", "totals"]),
        ("\\dt", &["labels"]),
        ("\\dv", &["spend", "totals", "view"]),
        (
            "\\d clicks",
            &["user_id", "bigint", "not null", "price", "double precision", "at", "timestamp with time zone"],
        ),
        ("\\d labels", &["id", "bigint", "not null", "name", "text"]),
        ("\\d spend", &["user_id", "total", "double precision"]),
        ("\\d totals", &["total", "double precision"]),
        ("\\conninfo", &["tidemark"]),
    ];
    let mut wrong = vec![];
    for (command, words) in commands {
        let Some(said) = psql(&server, command, &[]).await? else { return Ok(()) };
        let missing: Vec<_> = words.iter().filter(|word| !said.stdout.contains(**word)).collect();
        if !said.stderr.is_empty() || !missing.is_empty() {
            wrong.push(format!("{command}: nothing about {missing:?}\n{}{}", said.stdout, said.stderr));
        }
    }
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), folder.log_tail());
    let Some(said) = psql(&server, "\\d nothing", &[]).await? else { return Ok(()) };
    ensure!(said.stderr.contains("Did not find any relation named \"nothing\""), "{}{}", said.stdout, said.stderr);
    Ok(())
}

#[tokio::test]
async fn copy_loads_a_file_and_writes_one() -> Result<()> {
    let folder = Folder::new()?;
    let server = prepared(&folder).await?;
    let (file, out) = (folder.path().join("clicks.csv"), folder.path().join("out.csv"));
    std::fs::write(&file, "user_id,price,at\n1,1.5,2026-03-02 10:00:00+00\n1,,2026-03-02 10:01:00+00\n")?;
    let script = format!(
        "\\copy clicks FROM '{}' CSV HEADER\nSELECT total FROM spend WHERE user_id = 1;\n\
         \\copy (SELECT user_id, price FROM clicks ORDER BY at) TO '{}' CSV\n",
        file.display(),
        out.display()
    );
    let Some(said) = psql(&server, &script, &["-At"]).await? else { return Ok(()) };
    ensure!(said.stderr.is_empty(), "{}", said.stderr);
    ensure!(said.stdout == "COPY 2\n1.5\nCOPY 2\n", "{}", said.stdout);
    ensure!(std::fs::read_to_string(&out)? == "1,1.5\n1,\n");
    Ok(())
}

#[tokio::test]
async fn an_error_has_its_hint_and_points_at_the_place() -> Result<()> {
    let folder = Folder::new()?;
    let server = prepared(&folder).await?;
    let script = "SELECT 1 +;\nCREATE FEATURE VIEW bad AS SELECT user_id, count(*) OVER (PARTITION BY user_id) AS n FROM clicks;\n\
                  DROP SOURCE clicks;\nSELECT 7 AS still_here;\n";
    let Some(said) = psql(&server, script, &["-At"]).await? else { return Ok(()) };
    let expected =
        ["ERROR:  syntax error", "LINE 1: SELECT 1 +", "HINT:  add ORDER BY at to the window", "DETAIL:", "spend"];
    for words in expected {
        ensure!(said.stderr.contains(words), "nothing about {words:?}:\n{}", said.stderr);
    }
    ensure!(said.stdout == "7\n", "{}", said.stdout);
    ensure!(said.status == 0);
    let Some(said) = psql(
        &server,
        "SELECT * FROM nothing;\nSELECT 1;\n",
        &["-At", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"],
    )
    .await?
    else {
        return Ok(());
    };
    ensure!(said.status == 3 && said.stderr.contains("42P01"), "{}: {}", said.status, said.stderr);
    ensure!(said.stdout.is_empty());
    Ok(())
}

#[tokio::test]
async fn statements_in_one_string_and_in_a_transaction_have_their_tags() -> Result<()> {
    let folder = Folder::new()?;
    let server = prepared(&folder).await?;
    let script = "BEGIN;\nINSERT INTO labels VALUES (1, 'one'), (2, 'two');\nCOMMIT;\nPREPARE p AS SELECT name FROM labels WHERE id = $1;\n\
                  EXECUTE p (2);\nDEALLOCATE p;\nCHECKPOINT;\nCREATE TABLE x (a INT);\nDROP TABLE x;\nSET TimeZone = 'UTC';\nSHOW TimeZone;\n";
    let Some(said) = psql(&server, script, &["-At"]).await? else { return Ok(()) };
    ensure!(said.stderr.is_empty(), "{}", said.stderr);
    let expected =
        "BEGIN\nINSERT 0 2\nCOMMIT\nPREPARE\ntwo\nDEALLOCATE\nCHECKPOINT\nCREATE TABLE\nDROP TABLE\nSET\nUTC\n";
    ensure!(said.stdout == expected, "{}", said.stdout);
    Ok(())
}

/// With FETCH_COUNT psql reads every SELECT through a cursor.
#[tokio::test]
async fn a_result_is_fetched_in_portions() -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let script = "\\set FETCH_COUNT 100\nSELECT n FROM generate_series(1, 1050) AS g(n) ORDER BY n;\n";
    let Some(said) = psql(&server, script, &["-At"]).await? else { return Ok(()) };
    let lines: Vec<&str> = said.stdout.lines().collect();
    let expected: Vec<String> = (1..=1050).map(|n| n.to_string()).collect();
    ensure!(lines == expected && said.status == 0, "{} lines, {}", lines.len(), said.stderr);
    Ok(())
}
