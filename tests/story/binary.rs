//! The binary as a person meets it: what it says of itself, what it refuses, the demo, SQL without a server.

use crate::example::{Example, succeed};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn tidemark(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn all(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// It ends with an error, and says these words.
fn refused(command: &mut Command, words: &[&str]) -> Result<()> {
    let output = command.output()?;
    let said = all(&output);
    ensure!(!output.status.success(), "{command:?} ended with 0:\n{said}");
    ensure!(!said.contains("panicked"), "{said}");
    for word in words {
        ensure!(said.contains(word), "{command:?} says nothing about {word:?}:\n{said}");
    }
    Ok(())
}

#[test]
fn help_teaches_the_idea_and_every_command_has_examples() -> Result<()> {
    let help = succeed(&mut tidemark(&["--help"]))?;
    for word in [
        "CREATE SOURCE",
        "CREATE FEATURE VIEW",
        "psql -h 127.0.0.1 -p 5433 tidemark",
        "history.user_clicks",
        "tidemark demo",
    ] {
        ensure!(help.contains(word), "nothing about {word:?}:\n{help}");
    }
    for command in ["serve", "sql", "demo"] {
        let help = succeed(&mut tidemark(&[command, "--help"]))?;
        ensure!(help.contains("Examples:") && help.contains(&format!("tidemark {command}")), "{help}");
        ensure!(!help.contains("abort-at"), "a flag for tests is shown:\n{help}");
    }
    let version = succeed(&mut tidemark(&["--version"]))?;
    ensure!(version.trim() == concat!("tidemark ", env!("CARGO_PKG_VERSION")), "{version}");
    // Nothing said is no command: the help, and an error.
    refused(&mut tidemark(&[]), &["Usage: tidemark", "serve", "sql", "demo"])
}

#[test]
fn the_sql_of_the_help_runs() -> Result<()> {
    let help = succeed(&mut tidemark(&["--help"]))?;
    let lines = help.lines().skip_while(|line| !line.contains("-- A source is")).take_while(|line| !line.is_empty());
    let sql: String = lines.filter(|line| !line.contains("\\copy")).map(|line| format!("{line}\n")).collect();
    let printed = in_process(&sql, &[])?;
    for word in ["CREATE SOURCE", "CREATE FEATURE VIEW", "INSERT 0 1", "9.99", "(1 row)"] {
        ensure!(printed.contains(word), "nothing about {word:?}:\n{printed}");
    }
    Ok(())
}

#[test]
fn a_name_that_nobody_knows_is_refused_wherever_it_stands() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let data = data.to_str().context("a name in UTF-8")?;
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", data];
    refused(tidemark(&serve).arg("--max-conections=5"), &["--max-conections", "--max-connections"])?;
    refused(tidemark(&serve).env("TIDEMARK_FSYNK", "never"), &["TIDEMARK_FSYNK", "did you mean TIDEMARK_FSYNC?"])?;
    // For tests only: a flag, written out, and nothing else.
    refused(tidemark(&serve).arg("--abort-at=somewhere"), &["somewhere", "taken-not-appended"])?;
    refused(tidemark(&serve).env("TIDEMARK_ABORT_AT", "online-put"), &["TIDEMARK_ABORT_AT"])?;
    let file = folder.path().join("tidemark.toml");
    std::fs::write(&file, "max_conections = 5\n")?;
    refused(tidemark(&serve).arg("--config").arg(&file), &["tidemark.toml", "did you mean max_connections?"])?;
    refused(tidemark(&serve).arg("--online-tick=50"), &["--online-tick", "hint: "])?;
    refused(&mut tidemark(&["sevre"]), &["sevre", "serve"])?;
    refused(&mut tidemark(&["sql"]), &["FILE"])?;
    refused(&mut tidemark(&["sql", "--in-process", "nowhere.sql"]), &["nowhere.sql"])?;
    ensure!(!std::path::Path::new(data).exists(), "a refused command line has made its data directory");
    Ok(())
}

#[tokio::test]
async fn logs_are_json_where_no_terminal_reads_them_unless_asked_otherwise() -> Result<()> {
    for (format, json) in [("auto", true), ("json", true), ("human", false)] {
        let folder = crate::server::Folder::new()?;
        let mut server = crate::server::Server::start_with(&folder, &["--log-format", format]).await?;
        server.terminate().await?;
        let log = folder.log_tail();
        let mut messages = vec![];
        for line in log.lines() {
            match serde_json::from_str::<serde_json::Value>(line) {
                Ok(object) if json => messages.push(object["message"].as_str().unwrap_or_default().to_owned()),
                Err(_) if !json => messages.push(line.to_owned()),
                _ => anyhow::bail!("--log-format {format}: {line}"),
            }
        }
        for word in ["listening", "stopped"] {
            ensure!(messages.iter().any(|message| message.contains(word)), "nothing about {word:?}:\n{log}");
        }
    }
    Ok(())
}

/// Runs SQL from standard input in a server that is gone afterwards.
fn in_process(sql: &str, more: &[&str]) -> Result<String> {
    let mut command = tidemark(&["sql", "--in-process", "-"]);
    let mut process = command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    process.stdin.take().context("no stdin")?.write_all(sql.as_bytes())?;
    let output = process.wait_with_output()?;
    ensure!(output.status.success(), "{}", all(&output));
    Ok(all(&output))
}

#[test]
fn sql_runs_without_a_server_and_on_a_data_directory_that_stays() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (file, data) = (folder.path().join("try.sql"), folder.path().join("data"));
    let create = "CREATE SOURCE clicks (k BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');\n\
                  CREATE FEATURE VIEW n AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM clicks;\n\
                  INSERT INTO clicks VALUES (1, '2026-03-02 10:00:00+00'), (1, '2026-03-02 10:01:00+00');\n";
    let ask = "SELECT k, n FROM n WHERE k = 1;\n";
    let answer = " k | n \n---+---\n 1 | 2\n(1 row)\n\n";
    std::fs::write(&file, format!("{create}{ask}"))?;
    let printed = succeed(tidemark(&["sql", "--in-process"]).arg(&file))?;
    ensure!(printed == format!("CREATE SOURCE\nCREATE FEATURE VIEW\nINSERT 0 2\n{answer}"), "{printed}");
    // In a directory that is kept the next command finds what the first has left.
    std::fs::write(&file, create)?;
    succeed(tidemark(&["sql", "--data"]).arg(&data).arg(&file))?;
    std::fs::write(&file, ask)?;
    let printed = succeed(tidemark(&["sql", "--data"]).arg(&data).arg(&file))?;
    ensure!(printed == answer, "{printed}");
    // An error ends it with 1, and is said as psql says it.
    std::fs::write(&file, "SELECT 1;\nSELECT nothing;\nSELECT 2;\n")?;
    let output = tidemark(&["sql", "--in-process"]).arg(&file).output()?;
    ensure!(output.status.code() == Some(1), "{}", all(&output));
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.contains("ERROR:") && errors.contains("stopped at line 2 of"), "{errors}");
    ensure!(!String::from_utf8_lossy(&output.stdout).contains(" 2"), "it went on after the error");
    Ok(())
}

/// How many events are streamed: the demo's own views and training set are over all flights.
const DEMO_EVENTS: &str = "30000";

#[test]
fn the_demo_tells_its_story_to_the_end() -> Result<()> {
    let flights = Example::new("flights");
    flights.derive()?;
    let folder = tempfile::tempdir()?;
    let mut command = tidemark(&["demo", "--rows", DEMO_EVENTS, "--exit", "--listen", "127.0.0.1:0", "--examples"]);
    command.arg(&flights.folder).arg("--data").arg(folder.path().join("demo"));
    let printed = succeed(&mut command)?;
    for word in [
        "1/9",
        "9/9",
        "30000 events into five views",
        "That was the whole idea",
        "Go on by hand",
        "psql -h 127.0.0.1 -p",
    ] {
        ensure!(printed.contains(word), "nothing about {word:?}:\n{printed}");
    }
    ensure!(folder.path().join("demo/train.parquet").exists(), "there is no training set");
    // Made anew only what it made itself: a directory that is there already is not touched.
    refused(&mut command, &["is not empty", "hint: "])
}
