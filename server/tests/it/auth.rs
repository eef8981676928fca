//! A whole server that is locked: who gets in, what he may do there, and what it refuses to be started with.

use crate::pg::passwords::log_in;
use crate::pg::raw::{Raw, Reply, kinds, startup};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tidemark_connectors::clock::SystemClock;
use tidemark_engine::seam::Clock;
use tidemark_server::serve::{self, Running};
use tidemark_server::settings::{Http, Settings, Ssl, hba::hba};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

struct Locked {
    running: Running,
    settings: Settings,
    _folder: TempDir,
}

/// The superuser's password is `master`.
async fn locked() -> Locked {
    let folder = tempfile::tempdir().expect("a directory");
    let settings = settings(folder.path());
    let running = serve::start(&settings).await.expect("it starts");
    Locked { running, settings, _folder: folder }
}

fn settings(folder: &Path) -> Settings {
    let file = folder.join("password");
    std::fs::write(&file, "master\n").expect("the file is written");
    Settings {
        listen: "127.0.0.1:0".parse().expect("an address"),
        http: Http::Off,
        data: folder.join("data"),
        auth_delay: None,
        superuser_password_file: Some(file),
        ..Settings::default()
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new(Handle::current()))
}

impl Locked {
    async fn connect(&self, user: &str, password: &str) -> Result<Client, String> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.running.address.port()).user(user).dbname("tidemark").password(password);
        match config.connect(NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                Ok(client)
            }
            Err(error) => Err(told(&error)),
        }
    }

    async fn master(&self) -> Client {
        self.connect("tidemark", "master").await.expect("the superuser is let in")
    }

    async fn raw(&self) -> Raw<TcpStream> {
        Raw::new(TcpStream::connect(self.running.address).await.expect("it listens"))
    }
}

fn told(error: &tokio_postgres::Error) -> String {
    let told = error.as_db_error().map(|error| format!("{}: {}", error.code().code(), error.message()));
    told.unwrap_or_else(|| error.to_string())
}

async fn value(client: &Client, sql: &str) -> Result<String, String> {
    let messages = client.simple_query(sql).await.map_err(|error| told(&error))?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(rows.collect::<Vec<_>>().join(","))
}

fn hello(user: &str) -> Vec<u8> {
    startup(3 << 16, &[("user", user), ("database", "tidemark")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_superuser_of_the_settings_logs_in_by_the_password_of_the_file_and_nobody_without_one() {
    let server = locked().await;
    let client = server.master().await;
    assert_eq!(value(&client, "SELECT current_user").await.unwrap(), "tidemark");
    assert!(server.connect("tidemark", "wrong").await.unwrap_err().starts_with("28P01"));
    assert!(server.connect("anybody", "master").await.unwrap_err().starts_with("28P01"));
    // Passwords are shown as such and nothing more.
    let shown = value(&client, "SELECT rolpassword FROM pg_authid WHERE rolname = 'tidemark'").await.unwrap();
    assert_eq!(shown, "********");
    client.batch_execute("CREATE ROLE ann LOGIN PASSWORD 'geheim'; CREATE ROLE ben PASSWORD 'geheim'").await.unwrap();
    server.connect("ann", "geheim").await.expect("ann is let in");
    assert_eq!(server.connect("ben", "geheim").await.unwrap_err(), "28000: role \"ben\" is not permitted to log in");
    // Everybody may change his own password, and it is kept over a restart.
    let ann = server.connect("ann", "geheim").await.unwrap();
    ann.batch_execute("ALTER ROLE ann PASSWORD 'neu'").await.unwrap();
    drop((client, ann));
    let Locked { running, settings, _folder } = server;
    running.shutdown().await.expect("it stops");
    let running = serve::start(&settings).await.expect("it starts again");
    let server = Locked { running, settings, _folder };
    assert!(server.connect("ann", "geheim").await.is_err());
    server.connect("ann", "neu").await.expect("by the new password");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_nobody_has_is_answered_as_one_whose_password_is_wrong() {
    let server = locked().await;
    server.master().await.batch_execute("CREATE ROLE ann LOGIN PASSWORD 'geheim'").await.unwrap();
    let clock = clock();
    let salt = |replies: &[Reply]| {
        let first = String::from_utf8_lossy(&replies[1].body[4..]).into_owned();
        let attribute = |name: &str| first.split(',').find_map(|a| a.strip_prefix(name).map(str::to_owned)).unwrap();
        (attribute("s="), attribute("i="))
    };
    let mut seen = vec![];
    for user in ["ann", "nobody", "nobody"] {
        let mut raw = server.raw().await;
        let replies = log_in(&mut raw, hello(user), "wrong", clock.as_ref()).await;
        let error = replies.last().unwrap();
        let message = error.field('M').unwrap().replace(user, "…");
        seen.push((kinds(&replies), error.sqlstate(), message, error.field('H'), salt(&replies)));
    }
    let [ann, nobody, again] = seen.try_into().expect("three");
    assert_eq!((&ann.0, &ann.1, &ann.2, &ann.3), (&nobody.0, &nobody.1, &nobody.2, &nobody.3));
    assert_eq!((ann.4.0.len(), &ann.4.1), (nobody.4.0.len(), &nobody.4.1));
    // Who asks again for a name that is there gets the same salt, and so for one that is not.
    assert_eq!(nobody.4, again.4);
    assert_ne!(ann.4.0, nobody.4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_log_in_at_once_each_by_his_own_password() {
    let server = locked().await;
    let master = server.master().await;
    let roles: Vec<String> = (0..20).map(|i| format!("CREATE ROLE r{i} LOGIN PASSWORD 'p{i}'")).collect();
    master.batch_execute(&roles.join(";")).await.unwrap();
    let attempts = (0..60).map(|i| {
        let server = &server;
        async move {
            let (role, is_right) = (i % 20, i % 3 != 0);
            let password = if is_right { format!("p{role}") } else { format!("p{}", role + 1) };
            let client = server.connect(&format!("r{role}"), &password).await;
            assert_eq!(client.is_ok(), is_right, "{role}");
            if let Ok(client) = client {
                assert_eq!(value(&client, "SELECT current_user").await.unwrap(), format!("r{role}"));
            }
        }
    });
    futures::future::join_all(attempts).await;
    let failed =
        value(&master, "SELECT count(*) FROM tidemark.audit WHERE event = 'login' AND sqlstate = '28P01'").await;
    assert_eq!(failed.unwrap(), "20");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_is_gone_in_sessions_that_are_open() {
    let server = locked().await;
    let master = server.master().await;
    let setup =
        "CREATE SOURCE s (k BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event');
        CREATE FEATURE VIEW v AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM s;
        INSERT INTO s VALUES (1, '2026-03-02 10:00:00+00');
        CREATE ROLE ann LOGIN PASSWORD 'geheim'; GRANT SELECT ON v TO ann";
    master.batch_execute(setup).await.unwrap();
    let ann = server.connect("ann", "geheim").await.unwrap();
    let prepared = ann.prepare("SELECT n FROM v WHERE k = $1").await.unwrap();
    let denied = "42501: permission denied for feature view v";
    let ask = || async {
        let by_prepared = ann.query(&prepared, &[&1i64]).await.map(|rows| rows[0].get::<_, i64>(0).to_string());
        let by_text = value(&ann, "SELECT n FROM v WHERE k = 1").await;
        let planned = value(&ann, "SELECT max(n) FROM v").await;
        [by_prepared.map_err(|error| told(&error)), by_text, planned]
    };
    let all = |answer: Result<&str, &str>| [(); 3].map(|()| answer.map(str::to_owned).map_err(str::to_owned));
    for _ in 0..3 {
        assert_eq!(ask().await, all(Ok("1")));
        master.batch_execute("REVOKE SELECT ON v FROM ann").await.unwrap();
        assert_eq!(ask().await, all(Err(denied)));
        master.batch_execute("GRANT tidemark_reader TO ann").await.unwrap();
        assert_eq!(ask().await, all(Ok("1")));
        master.batch_execute("REVOKE tidemark_reader FROM ann").await.unwrap();
        assert_eq!(ask().await, all(Err(denied)));
        master.batch_execute("GRANT SELECT ON v TO ann").await.unwrap();
    }
    // A role that is dropped has nothing any more.
    master.batch_execute("DROP ROLE ann").await.unwrap();
    assert_eq!(ask().await, all(Err(denied)));
    assert!(value(&ann, "CREATE TABLE t (a BIGINT)").await.unwrap_err().starts_with("42501"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_decide_in_order_and_the_audit_tells_who_was_refused() {
    let folder = tempfile::tempdir().expect("a directory");
    let rules = "host all mallory all reject; host all +apps 127.0.0.1/32 scram-sha-256; host all tidemark all trust";
    let settings = Settings { hba: hba(rules).expect("rules"), ..settings(folder.path()) };
    let running = serve::start(&settings).await.expect("it starts");
    let server = Locked { running, settings, _folder: folder };
    let master = server.connect("tidemark", "whatever").await.expect("it is trusted");
    let setup = "CREATE ROLE apps; CREATE ROLE shop LOGIN PASSWORD 'geheim' IN ROLE apps; CREATE ROLE mallory LOGIN";
    master.batch_execute(setup).await.unwrap();
    server.connect("shop", "geheim").await.expect("a member");
    assert!(server.connect("shop", "wrong").await.unwrap_err().starts_with("28P01"));
    assert!(server.connect("mallory", "").await.unwrap_err().starts_with("28000: rule 1 of hba rejects"));
    assert!(server.connect("nobody", "").await.unwrap_err().starts_with("28000: no rule of hba"));
    let refused = value(&master, "SELECT \"user\" FROM tidemark.audit WHERE event = 'login' ORDER BY at").await;
    assert_eq!(refused.unwrap(), "shop,mallory,nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_does_not_start_where_it_would_be_open_or_in_the_clear() {
    let folder = tempfile::tempdir().expect("a directory");
    let plain = Settings { superuser_password_file: None, ..settings(folder.path()) };
    let open: std::net::SocketAddr = "0.0.0.0:0".parse().expect("an address");
    let trust = hba("host all all all scram-sha-256; host all all 10.0.0.0/8 trust").expect("rules");
    let with_file = |name: &str| Some(folder.path().join(name));
    let cases = [
        (Settings { listen: open, ..plain.clone() }, "no role has a password"),
        (Settings { listen: open, hba: trust, ..plain.clone() }, "rule 2 of hba trusts clients beyond this machine"),
        (Settings { ssl: Ssl::Require, ..plain.clone() }, "ssl needs a certificate and its private key"),
        (Settings { ssl: Ssl::Off, ssl_cert_file: with_file("c"), ..plain.clone() }, "and ssl is off"),
        (
            Settings { ssl: Ssl::On, ssl_cert_file: with_file("c"), ssl_key_file: with_file("k"), ..plain.clone() },
            "cannot read the private key",
        ),
        (
            Settings { hba: hba("hostssl all all all cert").expect("rules"), ..plain.clone() },
            "certificates or rules for encrypted connections are given",
        ),
        (
            Settings { superuser_password_file: with_file("missing"), ..plain.clone() },
            "cannot read the superuser's password",
        ),
    ];
    for (settings, expected) in cases {
        let error = serve::start(&settings).await.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // With a password it is open to who knows it.
    let running = serve::start(&Settings { listen: open, ..settings(folder.path()) }).await.expect("it starts");
    running.shutdown().await.expect("it stops");
}
