//! Passwords at the door, message by message, on a clock that stands still.

use super::fake::*;
use super::raw::*;
use bytes::BufMut;
use tidemark_engine::seam::Clock;
use tidemark_server::pg::{Settings, bind};
use tidemark_server::scram::{Client, PLAIN, PLUS};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// The client's first message: the mechanism and what it says.
pub fn sasl_first(mechanism: &str, first: &str) -> Vec<u8> {
    let mut body = format!("{mechanism}\0").into_bytes();
    body.put_u32(first.len() as u32);
    body.put_slice(first.as_bytes());
    message(b'p', &body)
}

/// What the server says in its SASL message, behind the code.
pub fn sasl_text(reply: &Reply) -> String {
    String::from_utf8_lossy(&reply.body[4..]).into_owned()
}

/// Everything up to the end of the login, or of the connection.
pub async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    raw: &mut Raw<S>,
    hello: Vec<u8>,
    password: &str,
    clock: &dyn Clock,
) -> Vec<Reply> {
    raw.send(&[hello]).await;
    let mut replies = vec![raw.next().await.expect("it asks")];
    let mut client = Client::new(password, clock);
    raw.send(&[sasl_first(PLAIN, &client.first())]).await;
    let reply = raw.next().await.expect("it goes on");
    let said = sasl_text(&reply);
    replies.push(reply);
    let last = client.last(&said).expect("the server's first message");
    raw.send(&[message(b'p', last.as_bytes())]).await;
    while let Some(reply) = raw.next().await {
        let is_last = matches!(reply.kind, 'Z' | 'E');
        replies.push(reply);
        if is_last {
            break;
        }
    }
    replies
}

fn guarded(settings: Settings) -> World {
    let world = world(settings);
    *world.fake.password.lock() = Some("pencil".to_owned());
    world
}

fn at_once() -> Settings {
    Settings { auth_delay: None, ..Settings::default() }
}

async fn settle() {
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_knows_the_password_is_let_in_and_who_does_not_is_not() {
    let world = guarded(at_once());
    let mut raw = Raw::new(world.dial());
    let replies = log_in(&mut raw, hello(), "pencil", world.clock.as_ref()).await;
    assert_eq!(replies[0].body, [&10u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat());
    assert_eq!((replies[2].kind, &replies[2].body[..4]), ('R', &12u32.to_be_bytes()[..]));
    assert_eq!((replies[3].kind, &replies[3].body[..]), ('R', &0u32.to_be_bytes()[..]));
    assert_eq!(replies.last().map(|reply| reply.kind), Some('Z'));
    assert_eq!(world.server.sessions(), 1);
    let mut raw = Raw::new(world.dial());
    let replies = log_in(&mut raw, hello(), "eraser", world.clock.as_ref()).await;
    let error = replies.last().unwrap();
    assert_eq!((error.sqlstate(), error.field('S').unwrap()), ("28P01".into(), "FATAL".into()));
    assert_eq!(error.field('M').unwrap(), "password authentication failed for user \"ann\"");
    assert_eq!(raw.rest().await, []);
    assert_eq!((world.server.sessions(), world.fake.refused.lock().clone()), (1, vec!["28P01"]));
    assert_eq!(world.fake.startups.lock().len(), 1);
}

#[tokio::test]
async fn a_message_that_is_not_of_the_exchange_ends_it() {
    let world = guarded(at_once());
    let cases: [(&str, Vec<Vec<u8>>, &str); 9] = [
        ("a query", vec![query("nothing")], "08P01"),
        ("another mechanism", vec![sasl_first("PLAIN", "n,,n=,r=a")], "08P01"),
        ("channel binding without TLS", vec![sasl_first(PLUS, "p=tls-server-end-point,,n=,r=a")], "08P01"),
        ("a binding that was not chosen", vec![sasl_first(PLAIN, "p=tls-server-end-point,,n=,r=a")], "08P01"),
        ("no nonce", vec![sasl_first(PLAIN, "n,,n=")], "08P01"),
        ("a length beyond the message", vec![message(b'p', b"SCRAM-SHA-256\0\0\0\0\x7fn")], "08P01"),
        ("a message too long", vec![sasl_first(PLAIN, &format!("n,,n=,r={}", "a".repeat(5_000)))], "54000"),
        ("another's nonce", vec![sasl_first(PLAIN, "n,,n=,r=a"), message(b'p', b"c=biws,r=ab,p=AAAA")], "08P01"),
        ("no proof", vec![sasl_first(PLAIN, "n,,n=,r=a"), message(b'p', b"c=biws,r=a")], "08P01"),
    ];
    for (what, messages, sqlstate) in cases {
        let mut raw = Raw::new(world.dial());
        raw.send(&[hello()]).await;
        raw.send(&messages).await;
        let replies = raw.rest().await;
        let error = replies.last().unwrap_or_else(|| panic!("{what}: nothing"));
        assert_eq!((error.kind, error.sqlstate().as_str()), ('E', sqlstate), "{what}: {replies:?}");
        assert_eq!(error.field('S').unwrap(), "FATAL", "{what}");
    }
    assert_eq!(world.server.sessions(), 0);
}

#[tokio::test]
async fn who_is_not_let_in_hears_so_after_a_while() {
    let settings = Settings::default();
    let delay = settings.auth_delay.unwrap();
    let world = guarded(settings);
    let clock = world.clock.clone();
    let mut raw = Raw::new(world.dial());
    let attempt = async move { log_in(&mut raw, hello(), "eraser", clock.as_ref()).await };
    let waiting = tokio::spawn(attempt);
    settle().await;
    assert!(!waiting.is_finished());
    world.clock.pass(delay);
    let replies = waiting.await.unwrap();
    assert_eq!(replies.last().map(Reply::sqlstate).as_deref(), Some("28P01"));
}

#[tokio::test]
async fn who_does_not_finish_is_closed_after_the_startup_timeout() {
    let settings = Settings::default();
    let timeout = settings.startup_timeout;
    let world = guarded(settings);
    let mut raw = Raw::new(world.dial());
    raw.send(&[hello()]).await;
    assert_eq!(raw.next().await.unwrap().kind, 'R');
    settle().await;
    assert_eq!((world.server.unauthenticated(), world.server.sessions()), (1, 0));
    world.clock.pass(timeout);
    assert_eq!(raw.rest().await, []);
}

#[tokio::test]
async fn strangers_beyond_the_limit_are_closed_and_take_no_place_from_those_who_are_known() {
    let settings = Settings { unauthenticated_max: 2, max_connections: 1, ..at_once() };
    let world = guarded(settings);
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = world.server.clone();
    world.clock.spawn("serve", Box::pin(async move { server.serve(listener, std::future::pending()).await }));
    let mut first = Raw::new(TcpStream::connect(address).await.unwrap());
    let mut second = TcpStream::connect(address).await.unwrap();
    // Both are there for certain once both have been asked.
    first.send(&[hello()]).await;
    assert_eq!(first.next().await.unwrap().kind, 'R');
    second.write_all(&hello()).await.unwrap();
    assert_eq!(second.read_u8().await.unwrap(), b'R');
    let mut third = TcpStream::connect(address).await.unwrap();
    // Closed, perhaps before it has said a word.
    let _ = third.write_all(&hello()).await;
    assert!(third.read_u8().await.is_err());
    drop(second);
    // The one place for sessions was not theirs.
    let mut client = Client::new("pencil", world.clock.as_ref());
    first.send(&[sasl_first(PLAIN, &client.first())]).await;
    let said = sasl_text(&first.next().await.unwrap());
    first.send(&[message(b'p', client.last(&said).unwrap().as_bytes())]).await;
    first.until('Z').await;
    while world.server.unauthenticated() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((world.server.sessions(), world.server.unauthenticated()), (1, 0));
}
