//! How fast a message of JSON becomes columns, beside `serde_json` to a struct: 150-byte events with their fields in the order
//! of the columns, and shuffled. `json EVENTS ROUNDS`; benches/json_decode.py starts it.
//!
//! Both take every field. The struct is measured twice: with texts of its own, as a program keeps them and as our columns do, and
//! with texts borrowed from the message, which is all that a loop over one message at a time needs.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock")]

use anyhow::{Context, Result, ensure};
use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::{Float64Type, Int64Type, TimestampMicrosecondType},
};
use serde::Deserialize;
use std::{env, hint::black_box, time::Instant};
use tidemark_catalog::{Column, SqlType};
use tidemark_connectors::json::{Epoch, Field, JsonRows};

/// Rows until the columns are finished, as a source makes batches.
const BATCH: usize = 8192;
const FIELDS: usize = 8;

#[derive(Deserialize)]
struct Owned {
    user_id: i64,
    event: String,
    price: f64,
    event_time: i64,
    session: String,
    page: String,
    score: f64,
    retries: i64,
}

#[derive(Deserialize)]
struct Borrowed<'a> {
    user_id: i64,
    event: &'a str,
    price: f64,
    event_time: i64,
    session: &'a str,
    page: &'a str,
    score: f64,
    retries: i64,
}

/// What all decoders must agree on: sums that every value of every row goes into.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    rows: u64,
    whole: i64,
    real: f64,
    text: u64,
}

impl Sums {
    fn add(&mut self, whole: [i64; 3], real: [f64; 2], texts: [&str; 3]) {
        self.rows += 1;
        for x in whole {
            self.whole = self.whole.wrapping_mul(31).wrapping_add(x);
        }
        // Sixteenths: the sum is exact.
        self.real += real[0] + 3.0 * real[1];
        for text in texts {
            for byte in text.bytes() {
                self.text = self.text.wrapping_mul(31).wrapping_add(u64::from(byte));
            }
        }
    }

    fn add_columns(&mut self, columns: &[ArrayRef]) {
        let users = columns[0].as_primitive::<Int64Type>();
        let events = columns[1].as_string::<i32>();
        let prices = columns[2].as_primitive::<Float64Type>();
        let times = columns[3].as_primitive::<TimestampMicrosecondType>();
        let sessions = columns[4].as_string::<i32>();
        let pages = columns[5].as_string::<i32>();
        let scores = columns[6].as_primitive::<Float64Type>();
        let retries = columns[7].as_primitive::<Int64Type>();
        for at in 0..users.len() {
            let whole = [users.value(at), times.value(at) / 1000, retries.value(at)];
            let texts = [events.value(at), sessions.value(at), pages.value(at)];
            self.add(whole, [prices.value(at), scores.value(at)], texts);
        }
    }
}

fn columns() -> Vec<Field> {
    let field = |name: &str, ty: SqlType, epoch: Option<Epoch>| Field {
        column: Column { name: name.to_string(), ty, not_null: true, comment: None },
        path: vec![name.to_string()],
        epoch,
    };
    vec![
        field("user_id", SqlType::Int8, None),
        field("event", SqlType::Text, None),
        field("price", SqlType::Float8, None),
        field("event_time", SqlType::TimestampTz, Some(Epoch::Millis)),
        field("session", SqlType::Text, None),
        field("page", SqlType::Text, None),
        field("score", SqlType::Float8, None),
        field("retries", SqlType::Int8, None),
    ]
}

/// The next number of a fixed sequence (a linear congruence by Knuth), its upper bits.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn messages(events: u64, is_shuffled: bool) -> Vec<String> {
    let mut state = 7;
    let message = |i: u64| {
        let mut fields = [
            format!("\"user_id\":{}", i * 1_103_515_245 % 2_147_483_648 / 8 % 100_000),
            format!("\"event\":\"{}\"", ["view", "cart", "buy", "search"][(i % 4) as usize]),
            format!("\"price\":{}", (i * 40_503 % 4096) as f64 / 16.0),
            format!("\"event_time\":{}", 1_767_225_600_000 + i),
            format!("\"session\":\"{:016x}\"", i.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            format!("\"page\":\"/catalog/shoes/{}\"", i % 1000),
            format!("\"score\":{}", (i % 16) as f64 / 16.0),
            format!("\"retries\":{}", i % 3),
        ];
        if is_shuffled {
            for at in (1..FIELDS).rev() {
                fields.swap(at, next(&mut state) as usize % (at + 1));
            }
        }
        format!("{{{}}}", fields.join(","))
    };
    (0..events).map(message).collect()
}

/// Nanoseconds for all messages, without the finished columns' being looked at.
fn ours(messages: &[String], mut look: impl FnMut(&[ArrayRef])) -> Result<u128> {
    let mut rows = JsonRows::new(columns()).map_err(anyhow::Error::msg)?;
    let mut spent = 0;
    for batch in messages.chunks(BATCH) {
        let begun = Instant::now();
        for message in batch {
            rows.push(message.as_bytes()).map_err(anyhow::Error::msg)?;
        }
        let finished = black_box(rows.finish().map_err(anyhow::Error::msg)?);
        spent += begun.elapsed().as_nanos();
        look(&finished);
    }
    Ok(spent)
}

fn owned(messages: &[String]) -> Result<u128> {
    let begun = Instant::now();
    for message in messages {
        black_box(serde_json::from_slice::<Owned>(message.as_bytes())?);
    }
    Ok(begun.elapsed().as_nanos())
}

fn borrowed(messages: &[String]) -> Result<u128> {
    let begun = Instant::now();
    for message in messages {
        black_box(serde_json::from_slice::<Borrowed<'_>>(message.as_bytes())?);
    }
    Ok(begun.elapsed().as_nanos())
}

fn check(messages: &[String]) -> Result<()> {
    let (mut columns, mut own, mut lent) = (Sums::default(), Sums::default(), Sums::default());
    ours(messages, |finished| columns.add_columns(finished))?;
    for message in messages {
        let e: Owned = serde_json::from_slice(message.as_bytes())?;
        own.add([e.user_id, e.event_time, e.retries], [e.price, e.score], [&e.event, &e.session, &e.page]);
        let e: Borrowed<'_> = serde_json::from_slice(message.as_bytes())?;
        lent.add([e.user_id, e.event_time, e.retries], [e.price, e.score], [e.event, e.session, e.page]);
    }
    ensure!(columns == own && own == lent, "the decoders differ:\n  {columns:?}\n  {own:?}\n  {lent:?}");
    Ok(())
}

fn main() -> Result<()> {
    // `cargo bench` adds `--bench`.
    let numbers: Vec<u64> = env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let [events, rounds] = numbers[..] else { anyhow::bail!("usage: json EVENTS ROUNDS") };
    for (order, is_shuffled) in [("in order", false), ("shuffled", true)] {
        let messages = messages(events, is_shuffled);
        check(&messages).context(order)?;
        let bytes: usize = messages.iter().map(String::len).sum();
        for _ in 0..rounds {
            let nanoseconds = [ours(&messages, |_| ())?, owned(&messages)?, borrowed(&messages)?];
            let [ours, owned, borrowed] = nanoseconds.map(|ns| ns as f64 / events as f64);
            println!("{order},{},{ours:.2},{owned:.2},{borrowed:.2}", bytes / events as usize);
        }
    }
    Ok(())
}
