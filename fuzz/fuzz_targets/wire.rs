//! Whatever bytes a client sends, from the first of its startup on: no panic, and every byte that comes back is of a whole message.
//! In front of the small database that the protocol's own tests have.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidemark_server::pg::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[allow(dead_code)] // what other tests ask of it
#[path = "../../server/tests/it/pg/fake.rs"]
mod fake;

/// Words at which that database waits for a test, or panics because it was told to.
const NOT_ASKED: [&str; 6] = ["panic", "whole", "hang", "slow", "endless", "stall"];

fuzz_target!(|bytes: &[u8]| {
    if NOT_ASKED.iter().any(|word| bytes.windows(word.len()).any(|found| found == word.as_bytes())) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    let replies = runtime.block_on(async {
        let settings = Settings { message_bytes_max: 1 << 16, auth_delay: None, ..Settings::default() };
        let world = fake::world(settings);
        let (client, server) = tokio::io::duplex(1 << 12);
        let (mut read, mut write) = tokio::io::split(client);
        let mut replies = Vec::new();
        let (_, read, ()) = futures::join!(
            async {
                // The server may close first; then the rest cannot be sent.
                let _ = write.write_all(bytes).await;
                let _ = write.shutdown().await;
            },
            read.read_to_end(&mut replies),
            world.server.converse(server, None),
        );
        read.expect("the answer is read");
        assert_eq!(world.server.sessions(), 0);
        replies
    });
    check_framing(&replies);
});

/// Whether what came back is whole messages, after the single byte that refuses encryption.
fn check_framing(mut replies: &[u8]) {
    while let Some((b'N', rest)) = replies.split_first()
        && (rest.is_empty() || !rest.starts_with(&[0, 0]))
    {
        replies = rest;
    }
    while !replies.is_empty() {
        let length = replies.get(1..5).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(u32::from_be_bytes);
        let length = length.expect("a message has a length") as usize;
        assert!(length >= 4 && length < replies.len(), "a broken message: {replies:?}");
        replies = &replies[1 + length..];
    }
}
