//! The tour in README.md, run as it stands there: "what follows is what came out", and still does.

use crate::example::difference;
use crate::server::{Folder, Server};
use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const BEGIN: &str = "## A tour of two minutes";

/// The SQL of each block, and what the README says comes out of it (nothing said: a definition).
fn blocks(readme: &str) -> Result<Vec<(String, Option<String>)>> {
    let tour = readme.split_once(BEGIN).context("the README has no tour")?.1;
    let tour = tour.split("\n## ").next().unwrap_or(tour);
    let mut blocks: Vec<(String, Option<String>)> = vec![];
    let mut rest = tour;
    while let Some((_, after)) = rest.split_once("```") {
        let (language, after) = after.split_once('\n').context("a block without lines")?;
        let (text, after) = after.split_once("```").context("a block without an end")?;
        match language {
            "sql" => blocks.push((text.to_owned(), None)),
            "text" => blocks.last_mut().context("output before any SQL")?.1 = Some(text.to_owned()),
            other => anyhow::bail!("a block of {other:?} in the tour"),
        }
        rest = after;
    }
    Ok(blocks)
}

/// The README leaves out what every definition answers, counts of rows and blank lines; `EXPLAIN` has its plan only.
fn told(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().collect();
    let mut told = String::new();
    for (i, line) in lines.iter().enumerate() {
        let is_plan_head = line.trim() == "QUERY PLAN" || (i > 0 && lines[i - 1].trim() == "QUERY PLAN");
        let is_count = line.starts_with('(') && (line.ends_with(" row)") || line.ends_with(" rows)"));
        let is_tag = ["CREATE ", "ALTER ", "CHECKPOINT"].iter().any(|tag| line.starts_with(tag));
        if line.trim().is_empty() || is_plan_head || is_count || is_tag {
            continue;
        }
        // A script's notices say where they come from, a terminal's do not.
        let line = line.find("NOTICE:  ").map_or(*line, |at| &line[at..]);
        told.push_str(line.trim_end());
        told.push('\n');
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_tour_prints_what_the_readme_says() -> Result<()> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))?;
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let url = format!("postgres://tidemark@127.0.0.1:{}/tidemark", server.port);
    let (mut wrong, mut compared) = (vec![], 0);
    for (sql, expected) in blocks(&readme)? {
        let (screen, screen_end) = std::io::pipe()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.args(["sql", "--url", &url, "-"]).stdin(Stdio::piped());
        let mut process = command.stdout(screen_end.try_clone()?).stderr(screen_end).spawn()?;
        drop(command); // it holds the pipe's writing end open
        process.stdin.take().context("no stdin")?.write_all(sql.as_bytes())?;
        let printed = std::io::read_to_string(screen)?;
        ensure!(process.wait()?.success(), "{sql}\n{printed}");
        let Some(expected) = expected else { continue };
        compared += 1;
        // Where the README shows a tag, it is compared; where it does not, an INSERT's is left out.
        let mut printed = told(&printed);
        if !expected.contains("INSERT 0") {
            printed =
                printed.lines().filter(|line| !line.starts_with("INSERT 0")).map(|line| format!("{line}\n")).collect();
        }
        let expected = told(&expected);
        if printed != expected {
            wrong.push(format!("{sql}{}", difference(&expected, &printed)));
        }
    }
    ensure!(compared >= 8, "only {compared} outputs in the tour");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
