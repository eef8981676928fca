//! INSERT, UPDATE, DELETE and TRUNCATE through `kill -9`: a statement that was acknowledged has happened, one that was cut off has
//! happened as a whole or not at all, and a feature view over the table says what one says that is born afterwards.

use crate::server::{Folder, Server, rows};
use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{collections::BTreeMap, time::Duration};
use tokio_postgres::Client;

/// Checkpoints and segments often enough that what is removed leaves the disk, too.
const ARGUMENTS: [&str; 6] =
    ["--commit-interval", "150ms", "--checkpoint-interval", "100ms", "--log-segment-bytes", "64KB"];
const ROUNDS: usize = 6;
/// Statements of a round before the kill may come, and at most after that.
const STATEMENTS: usize = 25;

const CREATE: &str = "CREATE TABLE plain (n BIGINT, v BIGINT);
    CREATE TABLE keyed (id BIGINT PRIMARY KEY, grp BIGINT, v BIGINT, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
    CREATE FEATURE VIEW by_group AS SELECT grp, count(*) AS n, sum(v) AS v FROM keyed GROUP BY grp";

/// What the tables have.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    plain: Vec<(i64, i64)>,
    keyed: BTreeMap<i64, (i64, i64)>,
    /// Numbers the statements, and gives them their times.
    statements: i64,
}

impl Model {
    /// A statement, and what there is after it.
    fn next(&self, chance: &mut StdRng) -> (String, Model) {
        let mut after = self.clone();
        after.statements += 1;
        let at = format!("TIMESTAMPTZ '2026-03-01 00:00:00+00' + INTERVAL '{} seconds'", after.statements);
        let (modulus, rest) = (chance.random_range(2..5_i64), chance.random_range(0..2_i64));
        let meant = |n: i64| n % modulus == rest;
        let sql = match chance.random_range(0..24) {
            0..=4 => {
                let first = after.statements * 100_000;
                let rows = if chance.random_range(0..4) == 0 { 6000 } else { chance.random_range(1..200_i64) };
                after.plain.extend((first..first + rows).map(|n| (n, 0)));
                format!("INSERT INTO plain SELECT n, 0 FROM generate_series({first}, {}) AS g(n)", first + rows - 1)
            }
            5..=9 => {
                after.plain.iter_mut().filter(|(n, _)| meant(*n)).for_each(|(_, v)| *v += 1);
                format!("UPDATE plain SET v = v + 1 WHERE n % {modulus} = {rest}")
            }
            10..=12 => {
                after.plain.retain(|(n, _)| !meant(*n));
                format!("DELETE FROM plain WHERE n % {modulus} = {rest}")
            }
            13 => {
                after.plain.clear();
                "TRUNCATE plain".to_string()
            }
            14..=17 => {
                let ids: Vec<i64> = (0..chance.random_range(1..20)).map(|_| chance.random_range(0..60)).collect();
                let mut seen = BTreeMap::new();
                for id in ids {
                    seen.insert(id, (id % 7, after.statements));
                }
                let values: Vec<String> =
                    seen.iter().map(|(id, (grp, v))| format!("({id}, {grp}, {v}, {at})")).collect();
                after.keyed.extend(seen);
                format!(
                    "INSERT INTO keyed VALUES {} ON CONFLICT (id) DO UPDATE SET grp = excluded.grp, v = excluded.v, at = excluded.at",
                    values.join(", ")
                )
            }
            18..=19 => {
                after.keyed.iter_mut().filter(|(id, _)| meant(**id)).for_each(|(_, (grp, v))| {
                    *v *= 2;
                    *grp = (*grp + 1) % 7;
                });
                format!("UPDATE keyed SET v = v * 2, grp = (grp + 1) % 7, at = {at} WHERE id % {modulus} = {rest}")
            }
            20..=21 => {
                // Keys change: none is there twice, as all of them are mirrored.
                after.keyed = after.keyed.into_iter().map(|(id, row)| (59 - id, row)).collect();
                format!("UPDATE keyed SET id = 59 - id, at = {at}")
            }
            22 => {
                after.keyed.retain(|id, _| !meant(*id));
                format!("DELETE FROM keyed WHERE id % {modulus} = {rest}")
            }
            _ => {
                after.keyed.clear();
                "TRUNCATE keyed".to_string()
            }
        };
        (sql, after)
    }

    /// As the tables say it.
    async fn read(client: &Client, statements: i64) -> Result<Model> {
        let number = |text: &Option<String>| text.as_deref().unwrap_or_default().parse::<i64>();
        let mut found = Model { statements, ..Model::default() };
        for row in rows(client, "SELECT n, v FROM plain ORDER BY n").await? {
            found.plain.push((number(&row[0])?, number(&row[1])?));
        }
        for row in rows(client, "SELECT id, grp, v FROM keyed").await? {
            found.keyed.insert(number(&row[0])?, (number(&row[1])?, number(&row[2])?));
        }
        Ok(found)
    }

    fn groups(&self) -> Vec<Vec<Option<String>>> {
        let mut groups: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for (grp, v) in self.keyed.values() {
            let group = groups.entry(*grp).or_default();
            *group = (group.0 + 1, group.1 + v);
        }
        let text = |n: i64| Some(n.to_string());
        groups.into_iter().map(|(grp, (n, v))| vec![text(grp), text(n), text(v)]).collect()
    }
}

/// Runs statements until one is cut off; what there was before it, and after it.
async fn work(client: Client, mut model: Model, mut chance: StdRng) -> Result<(Model, Model)> {
    loop {
        let (sql, mut after) = model.next(&mut chance);
        after.plain.sort_unstable();
        match client.batch_execute(&sql).await {
            Ok(()) => model = after,
            Err(error) if error.is_closed() || error.as_db_error().is_none() => return Ok((model, after)),
            Err(error) => return Err(error).context(sql),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_changed_stays_so_and_what_was_cut_off_is_whole() -> Result<()> {
    let seed = match std::env::var("TIDEMARK_TEST_CRASH_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random_range(0..1_000_000_000),
    };
    println!("TIDEMARK_TEST_CRASH_SEED={seed}");
    let folder = Folder::new()?;
    run(&folder, seed).await.with_context(|| format!("seed {seed}\nthe server's log ends:\n{}\n", folder.log_tail()))
}

async fn run(folder: &Folder, seed: u64) -> Result<()> {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut server = Server::start_with(folder, &ARGUMENTS).await?;
    server.connect().await?.batch_execute(CREATE).await?;
    let mut model = Model::default();
    for round in 1..=ROUNDS {
        // Some for certain, then until the kill.
        let client = server.connect().await?;
        for _ in 0..STATEMENTS {
            let (sql, after) = model.next(&mut chance);
            client.batch_execute(&sql).await.with_context(|| sql.clone())?;
            model = after;
        }
        model.plain.sort_unstable();
        ensure!(Model::read(&client, model.statements).await? == model, "round {round}, before the kill");
        let worker = tokio::spawn(work(client, model.clone(), StdRng::seed_from_u64(chance.random())));
        tokio::time::sleep(Duration::from_micros(chance.random_range(0..150_000))).await;
        server.kill()?;
        let (before, after) = worker.await??;
        server = Server::start_with(folder, &ARGUMENTS).await.with_context(|| format!("restart of round {round}"))?;
        let client = server.connect().await?;
        let found = Model::read(&client, after.statements).await?;
        let same = |one: &Model| one.plain == found.plain && one.keyed == found.keyed;
        ensure!(same(&before) || same(&after), "round {round}: {found:?}\nis neither {before:?}\nnor {after:?}");
        model = found;
        let shown = "SELECT grp, n, v FROM by_group WHERE n > 0 ORDER BY grp";
        ensure!(rows(&client, shown).await? == model.groups(), "round {round}: the view says something else");
    }
    let client = server.connect().await?;
    client
        .batch_execute("CREATE FEATURE VIEW twin AS SELECT grp, count(*) AS n, sum(v) AS v FROM keyed GROUP BY grp")
        .await?;
    let all = |view: &str| format!("SELECT * FROM {view} ORDER BY grp");
    ensure!(
        rows(&client, &all("by_group")).await? == rows(&client, &all("twin")).await?,
        "the twin says something else"
    );
    Ok(())
}
