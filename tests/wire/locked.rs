//! psql and psycopg at a server that is locked: TLS, passwords with channel binding, client certificates. The certificates
//! are made by OpenSSL's program.

use crate::{
    python::{PYTHON, python},
    server::{Folder, Server, skipped},
};
use anyhow::{Context, Result, ensure};
use std::{path::Path, process::Stdio, time::Duration};

/// A root, a certificate for 127.0.0.1 signed by it, and one for each user.
const CERTIFICATES: &str = r#"
set -e
cd "$1"
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj '/CN=root' -keyout root.key -out root.crt
sign() {
  openssl req -new -newkey "$3" $4 -nodes -subj "/CN=$2" -keyout "$1.key" -out "$1.csr"
  printf "subjectAltName=IP:127.0.0.1\n" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA root.crt -CAkey root.key -CAcreateserial -days 30 -sha384 -extfile "$1.ext" -out "$1.crt"
  chmod 600 "$1.key"
}
sign server localhost rsa:2048 ""
sign ann ann ec "-pkeyopt ec_paramgen_curve:P-256"
"#;

/// `false`: there is no OpenSSL here.
async fn certificates(folder: &Path) -> Result<bool> {
    let mut command = tokio::process::Command::new("bash");
    command.args(["-c", CERTIFICATES, "-"]).arg(folder).kill_on_drop(true);
    let made = command.output().await?;
    if made.status.code() == Some(127) {
        return skipped("OpenSSL's program is not installed").map(|()| false);
    }
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(true)
}

/// Root makes the roles of the test and needs neither password nor certificate.
const RULES: &str = "hostssl all root 127.0.0.1/32 trust; hostssl all ann 127.0.0.1/32 cert; \
                     hostssl all tidemark 127.0.0.1/32 scram-sha-256 clientcert=verify-full; host all all all reject";

/// A server that takes encrypted connections only; the superuser's password is `master`.
async fn locked(folder: &Folder, more: &[&str]) -> Result<Server> {
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(folder.path().join("password"), "master\n")?;
    let [certificate, key, password] = [path("server.crt"), path("server.key"), path("password")];
    let mut arguments = vec!["--ssl", "require", "--ssl-cert-file", &certificate, "--ssl-key-file", &key];
    arguments.extend(["--superuser-password-file", &password, "--auth-delay", "none", "--log", "info"]);
    arguments.extend(more);
    let mut server = Server::spawn(folder, &arguments)?;
    // It cannot be asked as others are: it answers nobody who does not encrypt.
    while !folder.log_tail().contains("listening") {
        ensure!(server.is_running(), "{}", folder.log_tail());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(server)
}

/// What psql printed, or why it could not.
async fn psql(folder: &Folder, server: &Server, connection: &str, sql: &str) -> Result<Option<Result<String, String>>> {
    let mut command = tokio::process::Command::new("psql");
    command.args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql]);
    command.arg(format!("host=127.0.0.1 port={} dbname=tidemark {connection}", server.port));
    command.current_dir(folder.path()).env("LC_ALL", "C.UTF-8").env_remove("PGPASSWORD").kill_on_drop(true);
    command.env("HOME", folder.path()).stdin(Stdio::null());
    let output = match command.output().await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return skipped("psql is not installed").map(|()| None);
        }
        output => output?,
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok(Some(match output.status.success() {
        true => Ok(text(output.stdout)),
        false => Err(text(output.stderr)),
    }))
}

#[tokio::test]
async fn psql_logs_in_over_tls_with_channel_binding_and_not_without() -> Result<()> {
    let folder = Folder::new()?;
    if !certificates(folder.path()).await? {
        return Ok(());
    }
    let server = locked(&folder, &[]).await?;
    let master = "user=tidemark password=master sslmode=verify-full sslrootcert=root.crt";
    let setup = "CREATE ROLE ann LOGIN PASSWORD 'geheim'; CREATE TABLE t (a BIGINT); GRANT SELECT ON t TO ann";
    let Some(done) = psql(&folder, &server, master, setup).await? else { return Ok(()) };
    ensure!(done.is_ok(), "{done:?}\n{}", folder.log_tail());
    let cases = [
        ("user=ann password=geheim sslmode=verify-full sslrootcert=root.crt channel_binding=require", Ok("0")),
        ("user=ann password=geheim sslmode=require channel_binding=disable", Ok("0")),
        ("user=ann password=wrong sslmode=require", Err("password authentication failed for user \"ann\"")),
        ("user=nobody password=wrong sslmode=require", Err("password authentication failed for user \"nobody\"")),
        ("user=ann password=geheim sslmode=disable", Err("this server takes encrypted connections only")),
        ("user=ann password=geheim sslmode=verify-full sslrootcert=ann.crt", Err("certificate verify failed")),
    ];
    for (connection, expected) in cases {
        let said = psql(&folder, &server, connection, "SELECT count(*) FROM t").await?.context("psql is here")?;
        match expected {
            Ok(rows) => ensure!(said.as_deref() == Ok(rows), "{connection}: {said:?}"),
            Err(words) => ensure!(said.as_ref().is_err_and(|text| text.contains(words)), "{connection}: {said:?}"),
        }
    }
    // The key is nobody's to read, and passwords are in no log.
    let log = std::fs::read_to_string(folder.path().join("server.log"))?;
    ensure!(!log.contains("geheim") && log.contains("CREATE ROLE ann LOGIN PASSWORD '********'"), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_client_certificate_lets_in_whom_it_names() -> Result<()> {
    let folder = Folder::new()?;
    if !certificates(folder.path()).await? {
        return Ok(());
    }
    let roots = folder.path().join("root.crt").display().to_string();
    let server = locked(&folder, &["--ssl-ca-file", &roots, "--hba", RULES, "--superuser", "root"]).await?;
    let Some(done) =
        psql(&folder, &server, "user=root sslmode=require", "CREATE ROLE ann LOGIN; CREATE ROLE ben LOGIN").await?
    else {
        return Ok(());
    };
    ensure!(done.is_ok(), "{done:?}\n{}", folder.log_tail());
    let shown = "sslmode=require sslcert=ann.crt sslkey=ann.key";
    let cases = [
        (format!("user=ann {shown}"), Ok("ann")),
        ("user=ann sslmode=require".to_owned(), Err("certificate authentication failed for user \"ann\"")),
        (format!("user=ben {shown}"), Err("rejects")),
        (format!("user=tidemark password=x {shown}"), Err("certificate authentication failed for user \"tidemark\"")),
    ];
    for (connection, expected) in cases {
        let said = psql(&folder, &server, &connection, "SELECT current_user").await?.context("psql is here")?;
        match expected {
            Ok(rows) => ensure!(said.as_deref() == Ok(rows), "{connection}: {said:?}"),
            Err(words) => ensure!(said.as_ref().is_err_and(|text| text.contains(words)), "{connection}: {said:?}"),
        }
    }
    Ok(())
}

const SCRIPT: &str = r#"
import sys
import psycopg
url = sys.argv[1]
with psycopg.connect(url + " user=tidemark password=master channel_binding=require", autocommit=True) as c:
    assert c.pgconn.ssl_in_use
    c.execute("CREATE ROLE ann LOGIN PASSWORD 'geheim'")
    c.execute("CREATE SOURCE clicks (k BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at) WITH (clock = 'event')")
    c.execute("CREATE FEATURE VIEW n AS SELECT k, at, count(*) OVER (PARTITION BY k ORDER BY at) AS n FROM clicks")
    c.execute("INSERT INTO clicks VALUES (1, '2026-03-02 10:00:00+00')")
    with psycopg.connect(url + " user=ann password=geheim", autocommit=True) as ann:
        look = lambda: ann.execute("SELECT n FROM n WHERE k = %s", (1,), prepare=True).fetchone()
        for _ in range(3):
            try:
                look()
                raise SystemExit("not granted")
            except psycopg.errors.InsufficientPrivilege as error:
                assert "permission denied for feature view n" in str(error)
            c.execute("GRANT SELECT ON n TO ann")
            assert look() == (1,)
            c.execute("REVOKE SELECT ON n FROM ann")
    # Large results and COPY, encrypted.
    assert sum(row[0] for row in c.execute("SELECT i FROM generate_series(1, 100000) AS t(i)")) == 5000050000
    with c.cursor().copy("COPY clicks FROM STDIN") as copy:
        for k in range(20000):
            copy.write_row((k, "2026-03-02 10:00:01+00"))
    assert c.execute("SELECT count(*) FROM n").fetchone() == (20000,)
for wrong in (" user=tidemark password=wrong", " user=tidemark"):
    try:
        psycopg.connect(url + wrong)
        raise SystemExit("let in" + wrong)
    except psycopg.OperationalError as error:
        assert "password" in str(error), error
print("ok")
"#;

#[tokio::test]
async fn psycopg_works_over_tls_with_a_password() -> Result<()> {
    let Some(python) = python(PYTHON)? else { return Ok(()) };
    let folder = Folder::new()?;
    if !certificates(folder.path()).await? {
        return Ok(());
    }
    let server = locked(&folder, &[]).await?;
    let roots = folder.path().join("root.crt").display().to_string();
    let url = format!("host=127.0.0.1 port={} dbname=tidemark sslmode=verify-full sslrootcert={roots}", server.port);
    let mut command = tokio::process::Command::new(python);
    command.args(["-c", SCRIPT, &url]).env("HOME", folder.path()).env_remove("PGPASSWORD").kill_on_drop(true);
    let output = command.output().await?;
    ensure!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), folder.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_key_that_everybody_may_read_is_refused() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new()?;
    if !certificates(folder.path()).await? {
        return Ok(());
    }
    let key = folder.path().join("server.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644))?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [certificate, key] = [path("server.crt"), path("server.key")];
    let mut server = Server::spawn(&folder, &["--ssl", "on", "--ssl-cert-file", &certificate, "--ssl-key-file", &key])?;
    ensure!(!server.ended().await?.success());
    ensure!(folder.log_tail().contains("may be read by everybody"), "{}", folder.log_tail());
    Ok(())
}
