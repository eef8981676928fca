//! dbt as its users run it: `dbt/example` with the package `dbt/tidemark`, on unmodified dbt-postgres.

use crate::{
    python::python,
    server::{Folder, Server, value},
};
use anyhow::{Context, Result, ensure};
use std::{fs, path::Path};
use tokio::process::Command;

/// The newest label of each user.
const LATEST: &str = "{{ config(materialized='incremental', unique_key=['user_id']) }}
select user_id, max(at) as at, bool_or(bought) as bought from {{ ref('labels') }}
{% if is_incremental() %} where at > (select max(at) from {{ this }}) {% endif %}
group by user_id";

const KEPT: &str = "{% snapshot kept %}
{{ config(unique_key='user_id', strategy='check', check_cols=['bought'], target_schema='public') }}
select user_id, bought from {{ ref('latest_labels') }}
{% endsnapshot %}";

const LEARNT: &str = "{{ config(materialized='training_set', meta={'complete': 'state'}) }}
select l.user_id, l.at, f.clicks_5m from {{ ref('labels') }} l
asof left join {{ ref('user_clicks') }} f on l.user_id = f.user_id and l.at >= f.event_time
where l.at < timestamptz '2026-11-01 12:10:00+00'";

/// The same by MERGE, with an index, and a column that comes later.
const MERGED: &str = "{{ config(materialized='incremental', incremental_strategy='merge', unique_key='user_id',
  on_schema_change='append_new_columns', indexes=[{'columns': ['at']}]) }}
select user_id, max(at) as at from {{ ref('labels') }} group by user_id";

/// Both in schema `public_marts`.
const TABLE_IN_MARTS: &str = "{{ config(materialized='table', schema='marts') }}
select user_id, bought from {{ ref('labels') }}";
const VIEW_IN_MARTS: &str = "{{ config(materialized='feature_view', schema='marts') }}
select user_id, event_time, count(*) over (partition by user_id order by event_time) as clicks from {{ ref('clicks') }}";

struct Project<'a> {
    python: String,
    folder: &'a Path,
    port: u16,
}

impl Project<'_> {
    /// What one command of dbt prints; an error where it fails.
    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(Path::new(&self.python).with_file_name("dbt"));
        command.arg("--no-use-colors").args(arguments).current_dir(self.folder).kill_on_drop(true);
        command.env("DBT_PROFILES_DIR", ".").env("DO_NOT_TRACK", "1").env("TIDEMARK_PORT", self.port.to_string());
        let output = command.output().await.context("dbt runs")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "dbt {arguments:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
        Ok(printed)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_project_is_built_tested_left_alone_and_changed() -> Result<()> {
    let Some(python) = python("TIDEMARK_TEST_DBT_PYTHON")? else { return Ok(()) };
    let folder = Folder::new()?;
    let server = Server::start(&folder).await?;
    let client = server.connect().await?;
    let dbt = folder.path().join("dbt");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("dbt"), &dbt)?;
    let example = dbt.join("example");
    let project = Project { python, folder: &example, port: server.port };

    project.run(&["deps"]).await?;
    // Seeds, models and tests in the order of what they need.
    let built = project.run(&["build"]).await?;
    for made in ["CREATE SOURCE", "CREATE FEATURE VIEW", "CREATE VIEW", "PASS not_null_user_clicks_user_id"] {
        ensure!(built.contains(made), "nothing of {made}: {built}");
    }
    let spend =
        "SELECT spend_5m FROM user_clicks FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-11-01 12:04:30Z' WHERE user_id = 7";
    ensure!(value(&client, spend).await?.as_deref() == Some("14"));
    let labels = "SELECT string_agg(coalesce(clicks_5m::text, '-'), ' ' ORDER BY user_id, at) FROM bought";
    ensure!(value(&client, labels).await?.as_deref() == Some("1 2 1 -"));
    let comment = "SELECT comment FROM tidemark.features WHERE view = 'user_clicks' AND name = 'clicks_5m'";
    ensure!(value(&client, comment).await?.as_deref() == Some("Clicks in the last five minutes"));
    let owner = "SELECT owner FROM tidemark.feature_views WHERE name = 'user_clicks'";
    ensure!(value(&client, owner).await?.as_deref() == Some("ranking"));

    // Again: what is as it would be made is left alone.
    let created = "SELECT created_at::text FROM tidemark.feature_views WHERE name = 'user_clicks'";
    let first = value(&client, created).await?;
    let again = project.run(&["run"]).await?;
    ensure!(again.matches("UNCHANGED").count() == 2, "{again}");
    ensure!(value(&client, created).await? == first);

    // Another definition: the view is made anew from the source's log, and has the name.
    let model = example.join("models/user_clicks.sql");
    let text = fs::read_to_string(&model)?;
    fs::write(&model, text.replace("as last_price", "as latest_price"))?;
    project.run(&["run"]).await?;
    ensure!(value(&client, created).await? != first);
    let latest = "SELECT latest_price FROM user_clicks WHERE user_id = 8";
    ensure!(value(&client, latest).await?.as_deref() == Some("2"));
    let left = "SELECT count(*) FROM tidemark.feature_views WHERE name LIKE '%dbt%'";
    ensure!(value(&client, left).await?.as_deref() == Some("0"));

    // A source is not: its rows would go.
    let model = example.join("models/clicks.sql");
    let text = fs::read_to_string(&model)?;
    fs::write(&model, text.replace("price DOUBLE PRECISION", "price REAL"))?;
    let Err(refused) = project.run(&["run", "--select", "clicks"]).await else {
        anyhow::bail!("the source was changed")
    };
    ensure!(refused.to_string().contains("--full-refresh"), "{refused}");

    // Seeds are loaded again, incremental models take what is new, a snapshot keeps what was: on temporary tables and DELETE.
    let labels = fs::read_to_string(example.join("seeds/labels.csv"))?;
    fs::write(example.join("seeds/labels.csv"), labels.replace("true", "false"))?;
    project.run(&["seed", "--select", "labels"]).await?;
    ensure!(value(&client, "SELECT count(*) FROM labels WHERE bought").await?.as_deref() == Some("0"));
    ensure!(value(&client, "SELECT count(*) FROM labels").await?.as_deref() == Some("4"));
    fs::write(example.join("models/latest_labels.sql"), LATEST)?;
    fs::create_dir_all(example.join("snapshots"))?;
    fs::write(example.join("snapshots/kept.sql"), KEPT)?;
    project.run(&["run", "--select", "latest_labels"]).await?;
    project.run(&["snapshot"]).await?;
    let users = "SELECT count(*) || ' ' || count(DISTINCT user_id) FROM latest_labels";
    ensure!(value(&client, users).await?.as_deref() == Some("3 3"));
    client.batch_execute("UPDATE labels SET at = at + INTERVAL '1 day', bought = true WHERE user_id = 7").await?;
    let again = project.run(&["run", "--select", "latest_labels"]).await?;
    ensure!(again.contains("INSERT 0 1"), "only what is new: {again}");
    ensure!(value(&client, users).await?.as_deref() == Some("3 3"));
    ensure!(value(&client, "SELECT count(*) FROM latest_labels WHERE bought").await?.as_deref() == Some("1"));
    project.run(&["snapshot"]).await?;
    let versions = "SELECT count(*) || ' ' || count(dbt_valid_to) FROM kept WHERE user_id = 7";
    ensure!(value(&client, versions).await?.as_deref() == Some("2 1"));

    // By MERGE, and with a further column.
    let model = example.join("models/merged.sql");
    fs::write(&model, MERGED)?;
    project.run(&["run", "--select", "merged"]).await?;
    client.batch_execute("DELETE FROM merged WHERE user_id = 7").await?;
    let again = project.run(&["run", "--select", "merged"]).await?;
    ensure!(again.contains("MERGE 3"), "{again}");
    ensure!(
        value(&client, "SELECT count(*) || ' ' || count(DISTINCT user_id) FROM merged").await?.as_deref()
            == Some("3 3")
    );
    fs::write(&model, MERGED.replace("max(at) as at", "max(at) as at, bool_or(bought) as bought"))?;
    project.run(&["run", "--select", "merged"]).await?;
    ensure!(
        value(&client, "SELECT count(bought) || ' ' || sum(bought::int) FROM merged").await?.as_deref() == Some("3 1")
    );

    // A training set is made, and with the same text refreshed.
    fs::write(example.join("models/learnt.sql"), LEARNT)?;
    for done in ["SELECT 2", "REFRESH TRAINING SET"] {
        let learnt = project.run(&["run", "--select", "learnt"]).await?;
        ensure!(learnt.contains(done), "nothing of {done}: {learnt}");
        ensure!(
            value(&client, "SELECT rows FROM tidemark.training_sets WHERE name = 'learnt'").await?.as_deref()
                == Some("2")
        );
    }

    // A custom schema: made by dbt, and found again.
    fs::write(example.join("models/bought_of.sql"), TABLE_IN_MARTS)?;
    fs::write(example.join("models/clicks_of.sql"), VIEW_IN_MARTS)?;
    for left in [0, 1] {
        let made = project.run(&["run", "--select", "bought_of", "clicks_of"]).await?;
        ensure!(made.matches("UNCHANGED").count() == left, "{made}");
    }
    let there = "SELECT string_agg(table_name, ' ' ORDER BY table_name) FROM information_schema.tables WHERE table_schema = 'public_marts'";
    ensure!(value(&client, there).await?.as_deref() == Some("bought_of clicks_of"));
    let same = "SELECT count(*) FROM public_marts.clicks_of c JOIN user_clicks u ON c.user_id = u.user_id";
    ensure!(value(&client, same).await? == value(&client, "SELECT count(*) FROM user_clicks").await?);

    project.run(&["docs", "generate"]).await?;
    let catalog = fs::read_to_string(example.join("target/catalog.json"))?;
    ensure!(catalog.contains("latest_price") && catalog.contains("Clicks in the last five minutes"), "{catalog}");
    Ok(())
}
