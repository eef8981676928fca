//! The floor of `scale`'s keys: a hash probe and a ring per key with two cursors, for the events of benches/stream.py, and nothing else:
//! no types, NULLs, lateness, log, steps or checkpoints. Built by rustc alone (benches/scale.py), so it is no part of the workspace.
//!
//! `kernel EVENTS KEYS STEP_MS SHORT_MS LONG_MS` prints nanoseconds of CPU an event, and the sums of its four features at all events.

use std::{env, time::Instant};

/// Events that a ring holds; the long window must not have more.
const RING: usize = 8;
const EMPTY: u64 = u64::MAX;

#[derive(Clone)]
struct Ring {
    times: [i64; RING],
    prices: [f64; RING],
    end: u32,
    short: u32,
    long: u32,
    total_short: f64,
    total_long: f64,
}

fn main() {
    let a: Vec<u64> = env::args().skip(1).map(|a| a.parse().expect("a number")).collect();
    let (events, keys, step, short, long) = (a[0], a[1], a[2] as i64, a[3] as i64, a[4] as i64);
    let mask = (keys * 2).next_power_of_two() - 1;
    let mut table = vec![(EMPTY, 0u32); mask as usize + 1];
    let empty =
        Ring { times: [0; RING], prices: [0.0; RING], end: 0, short: 0, long: 0, total_short: 0.0, total_long: 0.0 };
    let mut rings: Vec<Ring> = Vec::with_capacity(keys as usize);
    let (mut n, mut total, mut total_long, mut most_long) = (0u64, 0.0, 0.0, 0.0);
    let begun = Instant::now();
    for i in 0..events {
        let key = (i * 1103515245 % 2147483648 / 8) % keys;
        let (price, time) = ((i * 40503 % 4096) as f64 / 16.0, i as i64 * step);
        let mut at = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20 & mask;
        let ring = loop {
            let slot = &mut table[at as usize];
            if slot.0 == key {
                break &mut rings[slot.1 as usize];
            }
            if slot.0 == EMPTY {
                *slot = (key, rings.len() as u32);
                rings.push(empty.clone());
                break rings.last_mut().expect("just pushed");
            }
            at = (at + 1) & mask;
        };
        while ring.long != ring.end && ring.times[ring.long as usize % RING] < time - long {
            ring.total_long -= ring.prices[ring.long as usize % RING];
            ring.long += 1;
        }
        while ring.short != ring.end && ring.times[ring.short as usize % RING] < time - short {
            ring.total_short -= ring.prices[ring.short as usize % RING];
            ring.short += 1;
        }
        assert!(((ring.end - ring.long) as usize) < RING, "the long window has more than {RING} events of a key");
        ring.times[ring.end as usize % RING] = time;
        ring.prices[ring.end as usize % RING] = price;
        ring.end += 1;
        ring.total_short += price;
        ring.total_long += price;
        let most = (ring.long..ring.end).map(|at| ring.prices[at as usize % RING]).fold(f64::MIN, f64::max);
        n += u64::from(ring.end - ring.short);
        total += ring.total_short;
        total_long += ring.total_long;
        most_long += most;
    }
    println!("{} {events} {n} {total} {total_long} {most_long}", begun.elapsed().as_nanos() as f64 / events as f64);
}
