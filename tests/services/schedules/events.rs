//! What a schedule sends, and what must become of each message: in time, late by its own partition, or no event at all.

use crate::broker::Sent;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::BTreeSet;

pub const PARTITIONS: usize = 3;
pub const KEYS: i64 = 12;
/// The delay of the source's watermark.
const DELAY_MS: i64 = 10_000;
/// 2026-11-15 12:00:00 UTC: far from the month's ends, at which keys repeat their rows.
pub const BASE_MS: i64 = 1_794_744_000_000;
/// Event time that passes from one message to the next.
const SPACING_MS: i64 = 100;
/// Disorder below the delay.
const DISORDER_MS: i64 = 6_000;
/// In a schedule's first messages there is no watermark yet to be late for.
const LATE_FROM: i64 = 200;

#[derive(Debug, Clone, Copy)]
pub struct Event {
    pub n: i64,
    pub k: i64,
    pub cents: i64,
    pub at_ms: i64,
}

/// Partition and offset.
pub type Place = (usize, i64);

/// A seed's messages, without end.
pub struct Stream {
    dice: StdRng,
    next_n: i64,
    offsets: [i64; PARTITIONS],
    watermarks_ms: [i64; PARTITIONS],
    /// The events that count, each once.
    pub admitted: Vec<Event>,
    pub late: BTreeSet<Place>,
    pub broken: BTreeSet<Place>,
}

impl Stream {
    pub fn new(seed: u64) -> Stream {
        Stream {
            dice: StdRng::seed_from_u64(seed),
            next_n: 0,
            offsets: [0; PARTITIONS],
            watermarks_ms: [i64::MIN; PARTITIONS],
            admitted: vec![],
            late: BTreeSet::new(),
            broken: BTreeSet::new(),
        }
    }

    /// The next messages, one of them broken.
    pub fn piece(&mut self, events: usize) -> Vec<Sent> {
        let broken_before = self.dice.random_range(0..events);
        let mut messages = vec![];
        for i in 0..events {
            let event = self.draw();
            let partition = (event.k % PARTITIONS as i64) as usize;
            if i == broken_before {
                let place = self.place(partition);
                self.broken.insert(place);
                messages.push(Sent::to(partition as i32, format!("{{\"k\": {}, \"n\": ", event.k)));
            }
            let place = self.place(partition);
            let watermark_ms = &mut self.watermarks_ms[partition];
            if event.at_ms < *watermark_ms {
                self.late.insert(place);
            } else {
                *watermark_ms = (*watermark_ms).max(event.at_ms - DELAY_MS);
                self.admitted.push(event);
            }
            let Event { n, k, cents, at_ms } = event;
            let text = format!("{{\"k\": {k}, \"n\": {n}, \"cents\": {cents}, \"at\": {at_ms}}}");
            messages.push(Sent::to(partition as i32, text));
        }
        messages
    }

    fn draw(&mut self) -> Event {
        let n = self.next_n;
        self.next_n += 1;
        let dice = &mut self.dice;
        // Some keys are busy, and some are silent for longer than the frames are.
        let k = match dice.random_range(0..4) {
            0 => n / 100 % KEYS,
            _ => dice.random_range(0..KEYS / 2),
        };
        let mut at_ms = BASE_MS + n * SPACING_MS - dice.random_range(0..DISORDER_MS);
        // Times that meet each other, and the ends of frames.
        if dice.random_bool(0.3) {
            at_ms -= at_ms.rem_euclid(500);
        }
        if n > LATE_FROM && dice.random_bool(0.03) {
            at_ms -= 60_000;
        }
        Event { n, k, cents: dice.random_range(-500..10_000), at_ms }
    }

    /// Where the next message of the partition will be.
    fn place(&mut self, partition: usize) -> Place {
        let offset = &mut self.offsets[partition];
        *offset += 1;
        (partition, *offset - 1)
    }
}

#[test]
fn every_message_is_in_time_late_or_broken() {
    let mut stream = Stream::new(3);
    let sent: usize = (0..30).map(|_| stream.piece(20).len()).sum();
    let (in_time, late, broken) = (stream.admitted.len(), stream.late.len(), stream.broken.len());
    assert_eq!((sent, in_time + late, broken), (630, 600, 30));
    assert!(late > 3, "{late} are late");
    assert!(stream.late.is_disjoint(&stream.broken));
}
