//! One broken conversation from one seed: messages that a client could send, of statements that do something, and then in
//! another order, twice, cut, with bytes changed, with lengths that lie.

use bytes::BufMut;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

const MESSAGES: std::ops::Range<usize> = 1..25;

/// Statements that end by themselves, whatever bytes of theirs change: nothing in them counts to more than 99,999.
const STATEMENTS: [&str; 26] = [
    "SELECT n FROM v WHERE k = 1",
    "SELECT n FROM v WHERE k = $1",
    "SELECT k, n FROM v WHERE k = ANY($1)",
    "SELECT n FROM v FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-03-02 10:00:01Z' WHERE k = $1",
    "SELECT * FROM v",
    "SELECT g, repeat('x', 50) FROM generate_series(1, 3000) AS t(g)",
    "SELECT $1::text, $2::bigint, $3::numeric, $4::timestamptz",
    "SELECT $1::bigint[], $2::bytea, $3::interval, $4::uuid",
    "INSERT INTO junk VALUES (1, 'a'), (2, NULL)",
    "INSERT INTO junk VALUES ($1, $2) RETURNING a",
    "UPDATE junk SET b = 'c' WHERE a = $1",
    "DELETE FROM junk WHERE a = 1",
    "COPY junk FROM STDIN",
    "COPY junk FROM STDIN (FORMAT csv)",
    "COPY junk FROM STDIN (FORMAT binary)",
    "COPY junk TO STDOUT",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "BEGIN; DECLARE c CURSOR FOR SELECT * FROM junk; FETCH 2 FROM c",
    "FETCH 100 FROM c",
    "SET application_name = 'x'; SHOW application_name",
    "LISTEN x; NOTIFY x, 'y'",
    "PREPARE q (bigint) AS SELECT n FROM v WHERE k = $1; EXECUTE q (1); DEALLOCATE q",
    "SELECT relname, oid FROM pg_class WHERE relname LIKE 'v%'",
    "",
];
const NAMES: [&str; 4] = ["", "a", "b", "c"];

pub fn conversation(seed: u64) -> Vec<u8> {
    let dice = &mut StdRng::seed_from_u64(seed);
    let mut messages: Vec<Vec<u8>> = (0..dice.random_range(MESSAGES)).flat_map(|_| piece(dice)).collect();
    if dice.random_bool(0.3) {
        messages.shuffle(dice);
    }
    if dice.random_bool(0.3) {
        let again = messages.choose(dice).cloned();
        messages.extend(again);
    }
    if dice.random_bool(0.3) {
        let victim = dice.random_range(0..messages.len());
        lie(dice, &mut messages[victim]);
    }
    let mut bytes = if dice.random_bool(0.9) { hello(3 << 16) } else { odd_hello(dice) };
    let greeted = bytes.len();
    bytes.extend(messages.concat());
    // Mostly behind the greeting: what is before it is soon over.
    let from = if dice.random_bool(0.1) { 0 } else { greeted.min(bytes.len() - 1) };
    if dice.random_bool(0.5) {
        for _ in 0..dice.random_range(1..6) {
            let at = dice.random_range(from..bytes.len());
            bytes[at] ^= 1 << dice.random_range(0..8);
        }
    }
    if dice.random_bool(0.2) {
        let at = dice.random_range(from..bytes.len());
        let noise: Vec<u8> = (0..dice.random_range(1..40)).map(|_| dice.random()).collect();
        bytes.splice(at..at, noise);
    }
    if dice.random_bool(0.3) {
        bytes.truncate(dice.random_range(from..=bytes.len()));
    }
    bytes
}

/// What a client sends together: a query; Parse, Bind, Execute and Sync; COPY with its data; or a message alone.
fn piece(dice: &mut StdRng) -> Vec<Vec<u8>> {
    let statement = *STATEMENTS.choose(dice).expect("there are statements");
    let (name, portal) = (name(dice), name(dice));
    match dice.random_range(0..10) {
        0..3 => vec![query(statement)],
        3..6 => {
            let bind = bind(dice, portal, name);
            let describe = message(b'D', format!("P{portal}\0").as_bytes());
            vec![parse(dice, name, statement), bind, describe, execute(dice, portal), message(b'S', b"")]
        }
        6 => {
            let options = ["", " (FORMAT csv)", " (FORMAT binary)"].choose(dice).expect("there are three");
            let mut copy = vec![query(&format!("COPY junk FROM STDIN{options}"))];
            copy.extend((0..dice.random_range(0..4)).map(|_| copy_data(dice)));
            copy.push(if dice.random_bool(0.7) { message(b'c', b"") } else { message(b'f', b"no\0") });
            copy
        }
        _ => vec![alone(dice, name, portal, statement)],
    }
}

fn alone(dice: &mut StdRng, name: &str, portal: &str, statement: &str) -> Vec<u8> {
    let what = *[b'S', b'P', b'x'].choose(dice).expect("there are three");
    let named = |kind: u8| message(kind, &[&[what], name.as_bytes(), b"\0"].concat());
    match dice.random_range(0..10) {
        0 => parse(dice, name, statement),
        1 => bind(dice, portal, name),
        2 => execute(dice, portal),
        3 => named(b'D'),
        4 => named(b'C'),
        5 => message(b'S', b""),
        6 => message(b'H', b""),
        7 => copy_data(dice),
        8 => message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
        _ => {
            let body: Vec<u8> = (0..dice.random_range(0..30)).map(|_| dice.random()).collect();
            message(dice.random(), &body)
        }
    }
}

fn name(dice: &mut StdRng) -> &'static str {
    NAMES.choose(dice).expect("there are names")
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.put_u32(body.len() as u32 + 4);
    bytes.put_slice(body);
    bytes
}

fn query(sql: &str) -> Vec<u8> {
    message(b'Q', format!("{sql}\0").as_bytes())
}

fn parse(dice: &mut StdRng, name: &str, sql: &str) -> Vec<u8> {
    let mut body = format!("{name}\0{sql}\0").into_bytes();
    // int8, text, int8[], numeric, timestamptz, nobody's, left open
    let types = [20u32, 25, 1016, 1700, 1184, 4_000_000_000, 0];
    let types: Vec<u32> = (0..dice.random_range(0..5)).map(|_| *types.choose(dice).expect("there are types")).collect();
    body.put_u16(types.len() as u16);
    types.into_iter().for_each(|oid| body.put_u32(oid));
    message(b'P', &body)
}

fn bind(dice: &mut StdRng, portal: &str, name: &str) -> Vec<u8> {
    let mut body = format!("{portal}\0{name}\0").into_bytes();
    formats(dice, &mut body);
    let values: [&[u8]; 8] = [
        b"1",
        b"{1,2,3}",
        b"2026-03-02 10:00:00+00",
        b"",
        b"\xff\xfe",
        b"\0\0\0\0\0\0\0\x01",
        // An array of bigint, and one whose length is a lie.
        b"\0\0\0\x01\0\0\0\0\0\0\0\x14\0\0\0\x01\0\0\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x01",
        b"\0\0\0\x01\0\0\0\0\0\0\0\x14\x7f\xff\xff\xff\0\0\0\x01",
    ];
    let count: u16 = dice.random_range(0..5);
    body.put_u16(count);
    for _ in 0..count {
        match values.choose(dice).filter(|_| dice.random_bool(0.8)) {
            Some(value) => {
                body.put_i32(value.len() as i32);
                body.put_slice(value);
            }
            None => body.put_i32(-1),
        }
    }
    formats(dice, &mut body);
    message(b'B', &body)
}

fn formats(dice: &mut StdRng, body: &mut Vec<u8>) {
    let count: u16 = dice.random_range(0..4);
    body.put_u16(count);
    for _ in 0..count {
        body.put_i16(*[0i16, 0, 1, 1, 2, -1].choose(dice).expect("there are formats"));
    }
}

fn execute(dice: &mut StdRng, portal: &str) -> Vec<u8> {
    let mut body = format!("{portal}\0").into_bytes();
    body.put_i32(*[0i32, 0, 1, 2, 1000, -1, i32::MAX].choose(dice).expect("there are numbers"));
    message(b'E', &body)
}

fn copy_data(dice: &mut StdRng) -> Vec<u8> {
    let data: [&[u8]; 6] = [
        b"1\ta\n2\t\\N\n",
        b"1,a\n\"2\",\"b\"\"c\"\n",
        b"\\.\n",
        b"x\ty\tz",
        b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x01\0\0\0\x01a\xff\xff",
        b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02\x7f\xff\xff\xff",
    ];
    message(b'd', data.choose(dice).expect("there is data"))
}

/// A length that is not the message's: shorter, longer, as great as can be, none, or negative.
fn lie(dice: &mut StdRng, message: &mut [u8]) {
    let own = message.len() as i32 - 1;
    let lies = [own - 1, own + 1, own + 1000, i32::MAX, 1 << 28, 0, 3, -1, i32::MIN];
    message[1..5].copy_from_slice(&lies.choose(dice).expect("there are lies").to_be_bytes());
}

fn hello(version: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u32(version);
    body.put_slice(b"user\0tidemark\0database\0tidemark\0\0");
    let mut packet = Vec::new();
    packet.put_u32(body.len() as u32 + 4);
    packet.put_slice(&body);
    packet
}

/// A request for encryption first, a version that is not ours, or a packet that is too long or short.
fn odd_hello(dice: &mut StdRng) -> Vec<u8> {
    let request = |code: u32| [8u32.to_be_bytes(), code.to_be_bytes()].concat();
    match dice.random_range(0..4) {
        0 => [request(80_877_103), hello(3 << 16)].concat(),
        1 => [request(80_877_104), request(80_877_103), hello(3 << 16)].concat(),
        2 => hello((dice.random_range(0..10) << 16) + dice.random_range(0..4)),
        _ => {
            let mut packet = hello(3 << 16);
            packet[..4].copy_from_slice(&dice.random_range(0..100_000u32).to_be_bytes());
            packet
        }
    }
}

#[test]
fn a_seed_is_always_the_same_conversation() {
    for seed in 0..200 {
        assert_eq!(conversation(seed), conversation(seed));
    }
}
