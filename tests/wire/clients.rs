//! Drivers and tools as their users run them, each against a server of its own: a script or program in `tests/wire/clients/`
//! asserts what it reads, and says `ok`. `scripts/setup.sh test` installs the clients, `setup.sh test-long` those of the longer
//! run.

use crate::server::{Folder, Server, skipped};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// What every script finds: a stream, tables, feature views, a view. No rows.
const SCHEMA: &str = include_str!("clients/schema.sql");

fn clients(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/clients").join(path)
}

/// Runs a client on a server with the schema; the port is its last argument.
async fn run(program: impl AsRef<Path>, arguments: &[&str]) -> Result<()> {
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    server.connect().await?.batch_execute(SCHEMA).await.context("the schema")?;
    let mut command = Command::new(program.as_ref());
    command.args(arguments).arg(server.port.to_string()).current_dir(folder.path()).kill_on_drop(true);
    let output = command.output().await.with_context(|| program.as_ref().display().to_string())?;
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{said}{wrong}\nof the server:\n{}", folder.log_tail());
    ensure!(said.trim_end().ends_with("ok"), "it ended before its end: {said}{wrong}");
    Ok(())
}

/// One of `clients/python/`, in the environment that the variable names.
async fn python(variable: &str, script: &str) -> Result<()> {
    let Some(python) = crate::python::python(variable)? else { return Ok(()) };
    let script = clients("python").join(script);
    run(python, &["-W", "error", &script.display().to_string()]).await
}

/// As [`python`], of packages whose own deprecations are no errors.
async fn unchecked_python(variable: &str, script: &str) -> Result<()> {
    let Some(python) = crate::python::python(variable)? else { return Ok(()) };
    run(python, &[&clients("python").join(script).display().to_string()]).await
}

/// Where the drivers of `clients/python/requirements.txt` are.
const PYTHON: &str = "TIDEMARK_TEST_CLIENTS_PYTHON";
/// Where those of the longer run are: of `requirements-long.txt`, `-superset.txt`, `-dbt-adapter.txt` and `-sqlmesh.txt`.
const PYTHON_LONG: &str = "TIDEMARK_TEST_CLIENTS_LONG_PYTHON";
const PYTHON_SUPERSET: &str = "TIDEMARK_TEST_SUPERSET_PYTHON";
const PYTHON_DBT_ADAPTER: &str = "TIDEMARK_TEST_DBT_ADAPTER_PYTHON";
const PYTHON_SQLMESH: &str = "TIDEMARK_TEST_SQLMESH_PYTHON";

#[tokio::test]
async fn psycopg_3_in_all_its_ways() -> Result<()> {
    python(PYTHON, "psycopg3.py").await
}

#[tokio::test]
async fn psycopg_2_in_all_its_ways() -> Result<()> {
    python(PYTHON, "psycopg2_.py").await
}

#[tokio::test]
async fn asyncpg_with_its_pools_and_arrays() -> Result<()> {
    python(PYTHON, "asyncpg_.py").await
}

#[tokio::test]
async fn sqlalchemy_reflects_and_maps_over_three_drivers() -> Result<()> {
    python(PYTHON, "sqlalchemy_.py").await
}

#[tokio::test]
async fn adbc_reads_and_writes_arrow() -> Result<()> {
    python(PYTHON, "adbc.py").await
}

#[tokio::test]
#[ignore = "long: its packages are 700 MB"]
async fn pandas_polars_connectorx_and_duckdb_read_frames() -> Result<()> {
    python(PYTHON_LONG, "frames.py").await
}

#[tokio::test]
#[ignore = "long: with frames.py's packages"]
async fn psqlodbc_by_declared_cursors_and_all_at_once() -> Result<()> {
    python(PYTHON_LONG, "odbc.py").await
}

#[tokio::test]
#[ignore = "long: with frames.py's packages"]
async fn great_expectations_validates_a_feature_view_and_a_source() -> Result<()> {
    unchecked_python(PYTHON_LONG, "great_expectations_.py").await
}

#[tokio::test]
#[ignore = "long: it makes its own database first, in minutes"]
async fn superset_has_datasets_charts_and_sql_lab() -> Result<()> {
    unchecked_python(PYTHON_SUPERSET, "superset_.py").await
}

#[tokio::test]
#[ignore = "long: its packages are 380 MB"]
async fn sqlmesh_plans_runs_and_audits() -> Result<()> {
    unchecked_python(PYTHON_SQLMESH, "sqlmesh_.py").await
}

#[tokio::test]
#[ignore = "long: a command of dbt takes seconds, and these are dozens"]
async fn the_basic_tests_of_dbt_adapters() -> Result<()> {
    let Some(python) = crate::python::python(PYTHON_DBT_ADAPTER)? else { return Ok(()) };
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let mut command = Command::new(python);
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir"]).arg(folder.path());
    command.arg(clients("dbt_adapter/test_basic.py")).current_dir(folder.path()).kill_on_drop(true);
    command.env("TIDEMARK_PORT", server.port.to_string()).env("DO_NOT_TRACK", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().await.context("pytest")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("11 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

async fn node(script: &str) -> Result<()> {
    if !clients("node/node_modules").exists() {
        return skipped("tests/wire/clients/node/node_modules is not there");
    }
    run("node", &[&clients("node").join(script).display().to_string()]).await
}

#[tokio::test]
async fn node_postgres_with_cursors_streams_and_copy() -> Result<()> {
    node("node_postgres.mjs").await
}

#[tokio::test]
async fn postgres_js_with_cursors_and_copy() -> Result<()> {
    node("postgres_js.mjs").await
}

async fn go(scenario: &str) -> Result<()> {
    let program = clients("go/.built/clients");
    if !program.exists() {
        return skipped("tests/wire/clients/go/.built/clients is not there");
    }
    run(program, &[scenario]).await
}

#[tokio::test]
async fn pgx_in_its_five_ways_to_run_a_statement() -> Result<()> {
    go("pgx").await
}

#[tokio::test]
async fn lib_pq_with_parameters_in_text_and_binary() -> Result<()> {
    go("pq").await
}

#[tokio::test]
#[ignore = "long: it is built by itself, in minutes"]
async fn sqlx_with_its_pools_descriptions_and_listeners() -> Result<()> {
    let program = clients("rust/.built/clients");
    if !program.exists() {
        return skipped("tests/wire/clients/rust/.built/clients is not there");
    }
    run(program, &[]).await
}

#[tokio::test]
async fn pgjdbc_and_hikaricp() -> Result<()> {
    let jars = clients("java/.jars");
    if !jars.exists() {
        return skipped("tests/wire/clients/java/.jars is not there");
    }
    let jars = jars.join("*").display().to_string();
    // Started as a source file: one class, compiled in memory.
    run("java", &["-XX:TieredStopAtLevel=1", "-cp", &jars, &clients("java/Clients.java").display().to_string()]).await
}
