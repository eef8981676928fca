//! TLS and SASL, against a broker that wants both: who is let in, who is told why not, and that no password is to be
//! seen anywhere.

use crate::{
    broker::Broker,
    comes, refused, run,
    server::{Folder, Server, rows},
};
use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_tls_and_passwords_is_read_and_written() -> Result<()> {
    let Some(broker) = crate::secure_broker()? else { return Ok(()) };
    let folder = Folder::new()?;
    let outcome = all(&broker, &folder).await;
    outcome.with_context(|| format!("the server's log ends:\n{}\n", folder.log_tail()))
}

async fn all(broker: &Broker, folder: &Folder) -> Result<()> {
    let mut server = Server::start(folder).await?;
    let client = server.connect().await?;
    who_knows_the_password_is_let_in(broker, &client).await.context("in")?;
    who_does_not_is_told_why(broker, &client).await.context("out")?;
    server.kill()?;
    let server = Server::start(folder).await?;
    let client = server.connect().await?;
    // The password is kept, and shown to nobody.
    run(&client, "INSERT INTO plain VALUES (2)").await?;
    run(&client, "FLUSH").await?;
    // Once more 1 and 2: from `by_name`, into the same topic.
    comes(&client, "SELECT n FROM plain ORDER BY n", "1\n1\n2\n2\n3").await?;
    no_password_is_shown(folder, &client).await
}

fn create(broker: &Broker, name: &str, mechanism: &str, user: &str, password: &str, ca: &str) -> String {
    let (address, ca) = (broker.secure_address(), broker.file(ca));
    format!(
        "CREATE SOURCE {name} (n BIGINT) WITH (connector = 'kafka', topic = 'safe', properties.bootstrap.server = '{address}',
           properties.security.protocol = 'SASL_SSL', properties.sasl.mechanism = '{mechanism}',
           properties.sasl.username = '{user}', properties.sasl.password = '{password}',
           properties.ssl.ca.location = '{}', scan.startup.mode = 'latest')",
        ca.display()
    )
}

async fn who_knows_the_password_is_let_in(broker: &Broker, client: &Client) -> Result<()> {
    broker.create_topic("safe", 1, &[]).await?;
    let cases = [
        ("scram256", "SCRAM-SHA-256", "alice", "alices-secret"),
        ("scram512", "SCRAM-SHA-512", "alice", "alices-secret"),
        ("plain", "PLAIN", "bob", "bobs-secret"),
    ];
    for (name, mechanism, user, password) in cases {
        run(client, &create(broker, name, mechanism, user, password, "ca.pem")).await?;
        run(client, &format!("INSERT INTO {name} VALUES (1)")).await?;
        run(client, "FLUSH").await?;
        comes(client, &format!("SELECT max(n) FROM {name}"), "1").await.context(name)?;
    }
    by_a_secret(broker, client).await
}

/// The password under a name: what is wrong is refused, what is changed is used, and what is in use stays.
async fn by_a_secret(broker: &Broker, client: &Client) -> Result<()> {
    run(client, "CREATE SECRET alices AS 'not-alices-secret'").await?;
    let create = create(broker, "by_name", "SCRAM-SHA-256", "alice", "", "ca.pem")
        .replace("properties.sasl.password = ''", "properties.sasl.password = SECRET alices");
    refused(client, &create, "28000: source \"by_name\": the Kafka broker at").await?;
    run(client, "ALTER SECRET alices AS 'alices-secret'").await?;
    run(client, &create).await?;
    run(client, "INSERT INTO by_name VALUES (1)").await?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT max(n) FROM by_name", "1").await?;
    refused(client, "DROP SECRET alices", "2BP01: cannot drop secret \"alices\"").await?;
    let shown = rows(client, "SHOW CREATE SOURCE by_name").await?.remove(0).remove(1).unwrap_or_default();
    ensure!(shown.contains("properties.sasl.password = SECRET alices"), "{shown}");
    // A value that is wrong is noticed when it connects anew, and mended the same way.
    run(client, "ALTER SECRET alices AS 'not-alices-secret'").await?;
    run(client, "ALTER SECRET alices AS 'alices-secret'").await?;
    run(client, "INSERT INTO by_name VALUES (2)").await?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT max(n) FROM by_name", "2").await
}

async fn who_does_not_is_told_why(broker: &Broker, client: &Client) -> Result<()> {
    let wrong = create(broker, "s", "SCRAM-SHA-256", "alice", "not-alices-secret", "ca.pem");
    refused(client, &wrong, "28000: source \"s\": the Kafka broker at 127.0.0.1:").await?;
    refused(client, &wrong, "invalid credentials with SASL mechanism SCRAM-SHA-256").await?;
    let wrong = create(broker, "s", "PLAIN", "bob", "not-bobs-secret", "ca.pem");
    refused(client, &wrong, "refuses the credentials: ").await?;
    let untrusted = create(broker, "s", "SCRAM-SHA-256", "alice", "alices-secret", "other-ca.pem");
    refused(client, &untrusted, "08001: source \"s\": no trusted TLS connection to the Kafka broker at 127.0.0.1:")
        .await?;
    refused(client, &untrusted, "certificate verify failed").await?;
    let unlike = create(broker, "s", "SCRAM-SHA-256", "alice", "alices-secret", "ca.pem").replace(
        "properties.ssl.ca.location",
        "properties.ssl.key.pem = 'no-key-but-secret', properties.ssl.ca.location",
    );
    refused(client, &unlike, "22023: source \"s\": ").await?;
    // What does not work is not kept.
    let set = "ALTER SOURCE scram256 SET (properties.sasl.password = 'not-alices-secret')";
    refused(client, set, "28000: source \"scram256\": the Kafka broker at").await?;
    run(client, "INSERT INTO scram256 VALUES (3)").await?;
    run(client, "FLUSH").await?;
    comes(client, "SELECT max(n) FROM scram256", "3").await
}

async fn no_password_is_shown(folder: &Folder, client: &Client) -> Result<()> {
    let mut shown = String::new();
    for sql in [
        "SHOW CREATE SOURCE scram256",
        "SHOW CREATE SOURCE plain",
        "SHOW SOURCES",
        "DESCRIBE plain",
        "SELECT * FROM tidemark.sources",
        "SELECT * FROM tidemark.pipelines",
    ] {
        let answer = rows(client, sql).await?;
        ensure!(!answer.is_empty(), "{sql}");
        shown.extend(answer.into_iter().flatten().flatten());
    }
    ensure!(shown.contains("properties.sasl.password = '********'"), "{shown}");
    shown += &std::fs::read_to_string(folder.path().join("server.log"))?;
    ensure!(!shown.contains("-secret"), "a password is shown: {shown}");
    Ok(())
}
