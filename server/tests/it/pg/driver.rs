//! The protocol as a real driver sees it: tokio-postgres over TCP.

use super::fake::*;
use futures::{SinkExt, StreamExt, TryStreamExt};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use tidemark_engine::seam::Clock;
use tidemark_server::pg::{Settings, bind};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

/// A server on a port of its own.
async fn listening(settings: Settings) -> (World, SocketAddr) {
    let world = world(settings);
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = world.server.clone();
    world.clock.spawn("serve", Box::pin(async move { server.serve(listener, std::future::pending()).await }));
    (world, address)
}

async fn connect(world: &World, address: SocketAddr) -> Client {
    let mut config = Config::new();
    config.host(address.ip().to_string()).port(address.port()).user("ann").dbname("tidemark");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    world.clock.spawn("client", Box::pin(async move { drop(connection.await) }));
    client
}

#[tokio::test]
async fn prepared_statements_take_binary_parameters_and_give_binary_rows() {
    let (world, address) = listening(Settings::default()).await;
    let client = connect(&world, address).await;
    let lookup = client.prepare("lookup $1").await.unwrap();
    assert_eq!(lookup.columns()[1].name(), "value");
    for key in [1i64, -0, 7, i64::from(i32::MAX)] {
        let row = client.query_one(&lookup, &[&key]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (key, key * 10));
    }
    let row = client.query_one("echo $1", &[&"grüß dich"]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "grüß dich");
    let error = client.query("fail", &[]).await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().hint(), Some("a hint"));
}

#[tokio::test]
async fn pipelined_queries_answer_in_order() {
    let (world, address) = listening(Settings::default()).await;
    let client = connect(&world, address).await;
    let lookup = client.prepare("lookup $1").await.unwrap();
    let keys: Vec<i64> = (0..500).collect();
    let (client, lookup) = (&client, &lookup);
    let lookups = keys.iter().map(|key| async move { client.query_one(lookup, &[key]).await });
    let rows = futures::future::try_join_all(lookups).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), keys);
}

#[tokio::test]
async fn a_cursor_reads_in_parts_within_a_transaction() {
    let (world, address) = listening(Settings::default()).await;
    let mut client = connect(&world, address).await;
    let statement = client.prepare("series 10").await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind(&statement, &[]).await.unwrap();
    let mut parts = Vec::new();
    for _ in 0..3 {
        parts.push(transaction.query_portal(&portal, 4).await.unwrap().len());
    }
    assert_eq!(parts, [4, 4, 2]);
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_large_result_streams() {
    let (world, address) = listening(Settings::default()).await;
    let client = connect(&world, address).await;
    let no_parameters: [&(dyn ToSql + Sync); 0] = [];
    let rows = client.query_raw("series 300000", no_parameters).await.unwrap();
    let (count, sum) = rows
        .try_fold((0u64, 0i64), |(count, sum), row| async move { Ok((count + 1, sum + row.get::<_, i64>(0))) })
        .await
        .unwrap();
    assert_eq!((count, sum), (300_000, 300_000 * 300_001 / 2));
    assert_eq!(world.fake.batches.load(Ordering::SeqCst), 300);
}

#[tokio::test]
async fn the_drivers_cancel_token_stops_a_running_stream() {
    let (world, address) = listening(Settings::default()).await;
    let client = connect(&world, address).await;
    let token = client.cancel_token();
    let cancel = async {
        world.begun(1).await;
        token.cancel_query(NoTls).await.unwrap();
    };
    let (result, ()) = futures::join!(client.batch_execute("stall"), cancel);
    assert_eq!(result.unwrap_err().code().unwrap().code(), "57014");
    client.batch_execute("nothing").await.unwrap();
}

#[tokio::test]
async fn copy_goes_in_and_out() {
    let (world, address) = listening(Settings::default()).await;
    let client = connect(&world, address).await;
    let sink = client.copy_in("copyin").await.unwrap();
    futures::pin_mut!(sink);
    for row in 0..10_000 {
        sink.send(bytes::Bytes::from(format!("{row}\tx\n"))).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 10_000);
    assert_eq!(world.fake.copied.lock().iter().filter(|byte| **byte == b'\n').count(), 10_000);
    let out = client.copy_out("copyout 3").await.unwrap();
    let data: Vec<_> = out.map(|chunk| chunk.unwrap()).collect().await;
    assert_eq!(data.concat(), b"0\tx\n0\ty\n1\tx\n1\ty\n2\tx\n2\ty\n");
    // A sink dropped unfinished is a CopyFail.
    let sink = client.copy_in::<_, bytes::Bytes>("copyin").await.unwrap();
    drop(sink);
    world.dropped(1).await;
    client.batch_execute("nothing").await.unwrap();
}

#[tokio::test]
async fn simple_queries_give_rows_and_counts() {
    let (world, address) = listening(Settings::default()).await;
    let client = connect(&world, address).await;
    let messages = client.simple_query("series 2; nothing").await.unwrap();
    let rows = messages.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_))).count();
    assert_eq!(rows, 2);
}
