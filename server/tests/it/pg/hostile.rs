//! Garbage: no bytes may panic the server, hang it, or make it answer with a broken message.

use super::fake::*;
use super::passwords::sasl_first;
use super::raw::*;
use proptest::prelude::*;
use tidemark_server::pg::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Serves one client that sends `bytes` and leaves; every byte that came back.
fn converse(bytes: &[u8]) -> Vec<u8> {
    converse_with(bytes, None)
}

/// The same where a client has to know a password.
fn converse_with(bytes: &[u8], password: Option<&str>) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let world = world(Settings { message_bytes_max: 1 << 16, auth_delay: None, ..Settings::default() });
        *world.fake.password.lock() = password.map(str::to_owned);
        let (client, server) = tokio::io::duplex(1 << 12);
        let (mut read, mut write) = tokio::io::split(client);
        let mut replies = Vec::new();
        // Not spawned: a panic of the connection is a panic of this test.
        let (_, read, ()) = futures::join!(
            async {
                // The server may close first; then the rest cannot be sent.
                let _ = write.write_all(bytes).await;
                let _ = write.shutdown().await;
            },
            read.read_to_end(&mut replies),
            world.server.converse(server, None),
        );
        read.unwrap();
        assert_eq!(world.server.sessions(), 0);
        replies
    })
}

/// Whether what came back is whole messages.
fn check_framing(mut replies: &[u8]) {
    while let Some(b'N') = replies.first()
        && (replies.len() == 1 || !replies[1..].starts_with(&[0, 0]))
    {
        replies = &replies[1..];
    }
    while !replies.is_empty() {
        let length = replies.get(1..5).map(|length| u32::from_be_bytes(length.try_into().unwrap()) as usize);
        let length = length.unwrap_or_else(|| panic!("a broken message: {replies:?}"));
        assert!(length >= 4 && length < replies.len(), "a broken message: {replies:?}");
        replies = &replies[1 + length..];
    }
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let sql = prop::sample::select(vec![
        "echo $1",
        "lookup $1",
        "lookups $1",
        "raw 3",
        "series 3000",
        "failafter 3",
        "fail",
        "begin",
        "commit",
        "rollback",
        "savepoint a",
        "rollbackto a",
        "release a",
        "deallocate all",
        "close all",
        "discard",
        "copyin",
        "copyout 3",
        "notice x",
        "set a b",
        "",
        "begin; nothing; fail",
        "nothing; copyin; series 2",
    ]);
    let name = || prop::sample::select(vec!["", "a", "b"]);
    let parameters = prop::collection::vec(prop::sample::select(vec!["1", "5", "-1", "x"]), 0..3);
    let formats = || prop::collection::vec(-1i16..3, 0..4);
    prop_oneof![
        sql.clone().prop_map(query),
        (name(), sql).prop_map(|(name, sql)| parse(name, sql)),
        (name(), name(), formats(), parameters, formats())
            .prop_map(|(portal, statement, f, values, r)| bind_formats(portal, statement, &f, &values, &r)),
        (prop::sample::select(vec!['S', 'P', 'x']), name()).prop_map(|(what, name)| describe(what, name)),
        (prop::sample::select(vec!['S', 'P', 'x']), name()).prop_map(|(what, name)| close(what, name)),
        (name(), -1i32..5).prop_map(|(name, rows)| execute(name, rows)),
        Just(sync()),
        Just(flush()),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|data| message(b'd', &data)),
        Just(message(b'c', b"")),
        Just(message(b'f', b"no\0")),
        Just(message(b'F', b"")),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(kind, body)| message(kind, &body)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases * 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400), greeted: bool) {
        let greeting = if greeted { hello() } else { Vec::new() };
        check_framing(&converse(&[greeting, bytes].concat()));
    }

    #[test]
    fn nobody_gets_in_by_random_messages_where_there_is_a_password(
        first in prop::sample::select(vec!["n,,n=,r=a", "y,,n=,r=a", "n,,n=,r=", "p=x,,n=,r=a", ",,,", ""]),
        mechanism in prop::sample::select(vec!["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "", "PLAIN"]),
        last in "(c=biws,)?(r=[a-z]{0,9},)?(p=[A-Za-z=]{0,50})?",
        rest in prop::collection::vec(any_message(), 0..5),
        cut in any::<prop::sample::Index>(),
        whole: bool,
    ) {
        let messages = [hello(), sasl_first(mechanism, first), message(b'p', last.as_bytes()), rest.concat()];
        let mut bytes = messages.concat();
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        let replies = converse_with(&bytes, Some("pencil"));
        check_framing(&replies);
        // AuthenticationOk
        prop_assert!(!replies.windows(9).any(|bytes| bytes == b"R\0\0\0\x08\0\0\0\0"));
    }

    #[test]
    fn random_sequences_of_messages_are_answered_in_whole_messages(messages in prop::collection::vec(any_message(), 0..40)) {
        check_framing(&converse(&[hello(), messages.concat()].concat()));
    }

    #[test]
    fn mutated_sequences_of_messages_are_survived(
        messages in prop::collection::vec(any_message(), 1..30),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<prop::sample::Index>(),
        whole: bool,
        from_start: bool,
    ) {
        let mut bytes = [hello(), messages.concat()].concat();
        let first = if from_start { 0 } else { hello().len() };
        for (at, value) in flips {
            let at = first + at.index(bytes.len() - first);
            bytes[at] ^= value;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        check_framing(&converse(&bytes));
    }
}
