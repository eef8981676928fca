//! What 35 clients were recorded to send, sent to Tidemark and to PostgreSQL over the same tables: what one accepts the other
//! accepts, results have the same columns, and where the rows are the user's the same rows.
//!
//! `captures.txt` has what differs, with the reason; a statement that differs in another way fails the test, and so does one
//! that has stopped to differ. `TIDEMARK_TEST_CAPTURES_WRITE=1` writes that list anew and keeps the reasons; read what it wrote.
//!
//! The recordings are no part of the repository: `TIDEMARK_TEST_CAPTURES` names their folder, else they are looked for in
//! `shared/captures` beside the checkout.

mod conversation;
mod recorded;

use crate::server::{Folder, Server, free_port, skipped};
use anyhow::{Context, Result, ensure};
use conversation::{Answer, Conversation};
use recorded::{Recorded, Recording};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

const SEED: &str = include_str!("captures/seed.sql");
const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/captures.txt");
const DATABASE: &str = "tidemark";

/// OIDs of objects on the server that was recorded, and how to ask for those of the same objects here.
const OIDS: [(&str, &str); 6] = [
    ("16388", "(SELECT oid FROM pg_database WHERE datname = current_database())"),
    ("16389", "(SELECT oid FROM pg_namespace WHERE nspname = 'public')"),
    ("16397", "'users'::regclass::oid"),
    ("16407", "'txn'::regclass::oid"),
    ("16421", "'user_txn_view'::regclass::oid"),
    ("16425", "'user_features'::regclass::oid"),
];

/// Types that clients read alike, by OID: what Tidemark shows as one of a line, PostgreSQL may show as another of it. Literals of
/// VALUES are bigint here, sums and averages of integers are not numeric, and the catalog's texts and OIDs have fewer types.
const READ_ALIKE: [&[u32]; 3] = [
    &[20, 21, 23, 26, 700, 701, 1700],
    &[18, 19, 24, 25, 114, 1042, 1043, 2205, 2206],
    &[1002, 1003, 1009, 1015, 1034],
];

fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/captures");
    let folder = std::env::var_os("TIDEMARK_TEST_CAPTURES").map_or_else(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

#[tokio::test]
async fn recorded_clients_are_answered_as_postgresql_answers_them() -> Result<()> {
    let Some(captures) = folder() else {
        return skipped("no recordings of clients: TIDEMARK_TEST_CAPTURES names their folder");
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(captures)?.map(|file| Ok(file?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    let recordings: Vec<Recording> = files.iter().map(|file| Recording::read(file)).collect::<Result<_>>()?;
    ensure!(!recordings.is_empty(), "a folder of recordings without any");

    let postgres = match Postgres::start() {
        Ok(postgres) => postgres,
        Err(error) => return skipped(&format!("no PostgreSQL to compare with: {error:#}")),
    };
    let server_folder = Folder::new()?;
    let server = Server::start(&server_folder).await?;
    let (ours, theirs) = (server.port, postgres.port);
    let found = tokio::task::spawn_blocking(move || {
        std::thread::scope(|scope| {
            let theirs = scope.spawn(|| replay(&recordings, theirs));
            let ours = replay(&recordings, ours);
            let theirs = theirs.join().map_err(|_| anyhow::anyhow!("the replay panicked"))?;
            Ok::<_, anyhow::Error>(compare(&recordings, &ours?, &theirs?))
        })
    })
    .await??;
    drop(postgres);

    let expected = List::read()?;
    if std::env::var_os("TIDEMARK_TEST_CAPTURES_WRITE").is_some_and(|set| !set.is_empty()) {
        return expected.write(&found);
    }
    let unexpected: Vec<String> = found
        .iter()
        .filter(|difference| !expected.0.contains_key(&difference.key))
        .map(|difference| format!("new: {} | {}", difference.key, difference.reason))
        .collect();
    let known: std::collections::BTreeSet<&str> = found.iter().map(|difference| difference.key.as_str()).collect();
    let gone: Vec<String> =
        expected.0.keys().filter(|key| !known.contains(key.as_str())).map(|key| format!("gone: {key}")).collect();
    ensure!(
        unexpected.is_empty() && gone.is_empty(),
        "{} differ in a new way, {} have stopped to (TIDEMARK_TEST_CAPTURES_WRITE=1 writes captures.txt anew)\n{}\n{}\n{}",
        unexpected.len(),
        gone.len(),
        unexpected.join("\n"),
        gone.join("\n"),
        server_folder.log_tail()
    );
    Ok(())
}

/// The answers to all statements, recording by recording.
fn replay(recordings: &[Recording], port: u16) -> Result<Vec<Vec<Answer>>> {
    let startup = |given: &BTreeMap<String, String>| {
        let mut startup = given.clone();
        startup.insert("user".into(), "postgres".into());
        startup.insert("database".into(), DATABASE.into());
        if let Some(options) = startup.get_mut("options") {
            *options = options.replace("search_path=fs", "search_path=public");
        }
        startup
    };
    let mut seeding = Conversation::start(port, &startup(&BTreeMap::new()))?;
    for statement in SEED.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        let answer = seeding.simple(statement)?;
        ensure!(answer.error.is_none(), "{statement}: {:?}", answer.error);
    }
    let mut oids = vec![];
    for (recorded, question) in OIDS {
        let answer = seeding.simple(&format!("SELECT {question}"))?;
        let oid = answer.rows.first().and_then(|row| row.first()?.clone()).with_context(|| question.to_string())?;
        oids.push((recorded, oid));
    }
    let mut all = vec![];
    for recording in recordings {
        let mut client = Conversation::start(port, &startup(&recording.startup))?;
        let mut answers = vec![];
        for statement in &recording.statements {
            let sql = here(&statement.sql, &oids);
            let answer = match statement.is_simple {
                true => client.simple(&sql),
                false => client.extended(&sql, &statement.declared),
            };
            // A connection that the server has ended is one of the differences, if it is one.
            let answer = answer.or_else(|error| {
                client = Conversation::start(port, &startup(&recording.startup))?;
                Ok::<_, anyhow::Error>(Answer {
                    error: Some(("connection".into(), format!("{error:#}"))),
                    ..Answer::default()
                })
            })?;
            answers.push(answer);
            // Statements were recorded once each, so that their transactions are no more.
            if client.status == b'E' {
                client.simple("ROLLBACK")?;
            }
        }
        all.push(answers);
    }
    Ok(all)
}

/// A recorded statement about the objects of this server: its schema is `public`, its database another, and nobody waits.
fn here(sql: &str, oids: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_') {
        let (before, from) = rest.split_at(start);
        let length = from.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(from.len());
        let (word, after) = from.split_at(length);
        out.push_str(before);
        let quoted = before.ends_with('\'') && after.starts_with('\'');
        let named = before.ends_with('"') && after.starts_with('"');
        match word {
            "fs" if quoted || named || after.starts_with('.') => out.push_str("public"),
            "feat" if quoted || named => out.push_str(DATABASE),
            word => {
                out.push_str(oids.iter().find(|(recorded, _)| *recorded == word).map_or(word, |(_, oid)| oid.as_str()))
            }
        }
        rest = after;
    }
    out.push_str(rest);
    let mut parts = out.split("pg_sleep(");
    let mut at_once = parts.next().unwrap_or_default().to_string();
    for part in parts {
        at_once.push_str("pg_sleep(0");
        at_once.push_str(&part[part.find(')').unwrap_or(0)..]);
    }
    at_once
}

/// A statement that is answered otherwise than by PostgreSQL.
struct Difference {
    /// `client number kind "first words"`: the SQLSTATE of a refusal, or what differs.
    key: String,
    reason: String,
}

fn compare(recordings: &[Recording], ours: &[Vec<Answer>], theirs: &[Vec<Answer>]) -> Vec<Difference> {
    let mut all = vec![];
    for ((recording, ours), theirs) in recordings.iter().zip(ours).zip(theirs) {
        for ((statement, ours), theirs) in recording.statements.iter().zip(ours).zip(theirs) {
            if let Some((kind, reason)) = difference(statement, ours, theirs) {
                let words: Vec<&str> = statement.sql.split_whitespace().take(6).collect();
                let words: String = words.join(" ").chars().take(50).collect();
                let key = format!("{} {} {kind} {words}", recording.client, statement.number).replace('|', "/");
                all.push(Difference { key, reason });
            }
        }
    }
    all
}

fn difference(statement: &Recorded, ours: &Answer, theirs: &Answer) -> Option<(String, String)> {
    match (&ours.error, &theirs.error) {
        (Some((state, _)), Some((expected, _))) if state == expected => return None,
        (Some((state, message)), _) => return Some((state.clone(), message.clone())),
        (None, Some((state, message))) => return Some((format!("not-{state}"), message.clone())),
        (None, None) => {}
    }
    let names = |answer: &Answer| -> Vec<Vec<String>> {
        answer.columns.iter().map(|columns| columns.iter().map(|(name, _)| name.clone()).collect()).collect()
    };
    if names(ours) != names(theirs) {
        return Some(("columns".into(), format!("{:?}, not {:?}", names(ours), names(theirs))));
    }
    let pairs = ours.columns.iter().flatten().zip(theirs.columns.iter().flatten());
    let others: Vec<String> = pairs
        .filter(|((_, ours), (_, theirs))| ours != theirs && !read_alike(*ours, *theirs))
        .map(|((name, ours), (_, theirs))| format!("{name} is {ours}, not {theirs}"))
        .collect();
    if !others.is_empty() {
        return Some(("types".into(), others.join(", ")));
    }
    let verbs = |answer: &Answer| -> Vec<String> {
        answer.tags.iter().map(|tag| tag.split(' ').next().unwrap_or_default().to_string()).collect()
    };
    if verbs(ours) != verbs(theirs) {
        return Some(("tag".into(), format!("{:?}, not {:?}", ours.tags, theirs.tags)));
    }
    let sorted = |answer: &Answer| {
        let mut rows = answer.rows.clone();
        rows.sort();
        rows
    };
    if is_about_data(&statement.sql) && sorted(ours) != sorted(theirs) {
        return Some(("rows".into(), format!("{} rows and {}", ours.rows.len(), theirs.rows.len())));
    }
    None
}

fn read_alike(ours: u32, theirs: u32) -> bool {
    READ_ALIKE.iter().any(|alike| alike.contains(&ours) && alike.contains(&theirs))
}

/// Whether the rows are the user's: what servers say of themselves, of their catalogs and of the time is their own.
fn is_about_data(sql: &str) -> bool {
    let sql = sql.to_lowercase();
    const OWN: [&str; 10] =
        ["pg_", "information_schema", "version", "now()", "current", "explain", "show", "random", "uuid", "regclass"];
    !OWN.iter().any(|word| sql.contains(word))
}

/// The differences that are known, with their reasons.
struct List(BTreeMap<String, String>);

impl List {
    fn read() -> Result<List> {
        let text = std::fs::read_to_string(LIST).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |line: &str| -> Result<(String, String)> {
            let (key, reason) = line.split_once(" | ").with_context(|| format!("no reason: {line}"))?;
            Ok((key.to_string(), reason.to_string()))
        };
        Ok(List(lines.map(entry).collect::<Result<_>>()?))
    }

    /// The list as it should be now.
    fn write(&self, found: &[Difference]) -> Result<()> {
        let head: String = std::fs::read_to_string(LIST)
            .unwrap_or_default()
            .lines()
            .take_while(|line| line.starts_with('#'))
            .map(|line| format!("{line}\n"))
            .collect();
        let mut lines: Vec<String> = found
            .iter()
            .map(|Difference { key, reason }| {
                let reason = self.0.get(key).unwrap_or(reason);
                format!("{key} | {}\n", reason.split_whitespace().collect::<Vec<_>>().join(" "))
            })
            .collect();
        lines.sort();
        Ok(std::fs::write(LIST, head + &lines.concat())?)
    }
}

/// A PostgreSQL for this test, stopped when dropped.
struct Postgres {
    folder: TempDir,
    port: u16,
}

impl Postgres {
    fn start() -> Result<Postgres> {
        // Under /tmp, because the user that runs the server must reach it.
        let folder = tempfile::Builder::new().prefix("tidemark-captures-").tempdir_in("/tmp")?;
        let postgres = Postgres { folder, port: free_port()? };
        postgres.script(&["start"], &[&postgres.port.to_string()])?;
        let startup = BTreeMap::from([("user", "postgres"), ("database", "postgres")]);
        let startup = startup.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let created = Conversation::start(postgres.port, &startup)?.simple(&format!("CREATE DATABASE {DATABASE}"))?;
        ensure!(created.error.is_none(), "{:?}", created.error);
        Ok(postgres)
    }

    fn script(&self, verb: &[&str], rest: &[&str]) -> Result<()> {
        let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/postgres.sh"))
            .args(verb)
            .arg(self.folder.path())
            .args(rest)
            .output()
            .context("tests/services/postgres.sh")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Err(error) = self.script(&["stop"], &[]) {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn a_statement_is_about_the_objects_of_this_server() {
    let oids = [("16397", "20001".to_string())];
    for (sql, expected) in [
        ("select * from fs.users", "select * from public.users"),
        ("where nspname = 'fs' and \"fs\".t and x.fs > 0", "where nspname = 'public' and \"public\".t and x.fs > 0"),
        ("attrelid = '16397' or 163970 > 0", "attrelid = '20001' or 163970 > 0"),
        ("datname = 'feat'", "datname = 'tidemark'"),
        ("select pg_sleep(30), 1", "select pg_sleep(0), 1"),
    ] {
        assert_eq!(here(sql, &oids), expected);
    }
}
