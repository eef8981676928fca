//! When a client hears of notifications, by the bytes.

use super::fake::world;
use super::protocol::{codes, settle};
use super::raw::*;
use tidemark_server::pg::Settings;

/// Sender, channel and payload.
fn told(reply: &Reply) -> (i32, String) {
    let sender = i32::from_be_bytes(reply.body[..4].try_into().unwrap());
    (sender, String::from_utf8_lossy(&reply.body[4..]).into_owned())
}

#[tokio::test]
async fn a_client_that_waits_is_told_at_once() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    settle().await;
    world.notify(&["one", "two"]);
    for payload in ["one", "two"] {
        let reply = raw.next().await.unwrap();
        assert_eq!((reply.kind, told(&reply)), ('A', (9, format!("c\0{payload}\0"))));
    }
    // It goes on as if nothing had been.
    assert_eq!(kinds(&raw.ask(&[query("nothing")]).await), "CZ");
}

#[tokio::test]
async fn nothing_is_told_while_a_transaction_is_open() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("begin")]).await;
    world.notify(&["one"]);
    settle().await;
    assert_eq!(kinds(&raw.ask(&[query("nothing")]).await), "CZ");
    assert_eq!(kinds(&raw.ask(&[query("commit")]).await), "CAZ");
    raw.ask(&[query("begin")]).await;
    world.notify(&["two"]);
    assert_eq!(kinds(&raw.ask(&[query("fail")]).await), "EZ");
    assert_eq!(kinds(&raw.ask(&[query("rollback")]).await), "CAZ");
    assert_eq!(kinds(&raw.ask(&[query("nothing; nothing")]).await), "CCZ");
}

#[tokio::test]
async fn a_batch_of_the_extended_protocol_is_told_at_its_end() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.send(&[parse("", "nothing"), flush()]).await;
    assert_eq!(raw.next().await.unwrap().kind, '1');
    world.notify(&["one"]);
    settle().await;
    assert_eq!(kinds(&raw.ask(&[bind("", "", &[]), execute("", 0), sync()]).await), "2CAZ");
}

#[tokio::test]
async fn a_client_that_takes_too_few_is_disconnected_and_told_why() {
    let world = world(Settings::default());
    let (mut raw, _) = Raw::connected(world.dial()).await;
    raw.ask(&[query("begin")]).await;
    world.fake.startups.lock()[0].bell.overflow();
    let rest = raw.rest().await;
    assert_eq!((kinds(&rest), codes(&rest)), ("E".into(), vec!["53400".to_owned()]));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_too() {
    let world = world(Settings::default());
    let (raw, _) = Raw::connected(world.dial_with(1 << 12)).await;
    world.notify(&["x".repeat(1 << 14).as_str()]);
    settle().await;
    assert_eq!(world.server.sessions(), 1);
    world.fake.startups.lock()[0].bell.overflow();
    settle().await;
    assert_eq!(world.server.sessions(), 0);
    drop(raw);
}
