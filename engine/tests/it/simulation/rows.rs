//! Rows as clients send them: in order and not, late, from the future, without a key, such that an expression fails on them.

use super::views::{SECOND, T};
use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray},
    record_batch::RecordBatch,
};
use rand::{Rng, rngs::StdRng};
use std::sync::Arc;
use tidemark_catalog::{ClockMode, Object, UTC};

/// Few enough that they meet, and enough that not all of them are always at work.
const KEYS: usize = 9;

/// Some rows, each with a number of its own from `next_no` on.
pub fn batch(dice: &mut StdRng, relation: &Object, clock: ClockMode, now_us: i64, next_no: &mut i64) -> RecordBatch {
    let most = [3, 8, 24][dice.random_range(0..3)];
    let rows = dice.random_range(1..=most);
    let no: Vec<i64> = (*next_no..).take(rows).collect();
    *next_no += rows as i64;
    let text: Vec<Option<String>> = (0..rows).map(|_| text(dice)).collect();
    let x: Vec<Option<f64>> = (0..rows).map(|_| number(dice)).collect();
    let n: Vec<Option<i64>> = (0..rows).map(|_| Some(dice.random_range(0..7)).filter(|n| *n != 6)).collect();
    let id: Vec<i64> = (0..rows).map(|_| dice.random_range(0..6)).collect();
    let times: Vec<Option<i64>> = (0..rows).map(|_| time(dice, clock, now_us)).collect();
    let (no, text): (ArrayRef, ArrayRef) = (Arc::new(Int64Array::from(no)), Arc::new(StringArray::from(text)));
    let x: ArrayRef = Arc::new(Float64Array::from(x));
    let ts: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone(UTC));
    let columns = match relation.id == T {
        true => vec![no, Arc::new(Int64Array::from(id)), text, x, ts],
        false => vec![no, text, x, Arc::new(Int64Array::from(n)), ts],
    };
    RecordBatch::try_new(relation.schema(), columns).expect("rows of the relation")
}

fn text(dice: &mut StdRng) -> Option<String> {
    (!dice.random_bool(0.04)).then(|| format!("k{}", dice.random_range(0..KEYS)))
}

fn number(dice: &mut StdRng) -> Option<f64> {
    match dice.random_range(0..30) {
        0 => None,
        1 => Some(f64::NAN),
        2 => Some(1e300),
        3 => Some(0.1),
        _ => Some(f64::from(dice.random_range(-4..5))),
    }
}

fn time(dice: &mut StdRng, clock: ClockMode, now_us: i64) -> Option<i64> {
    let mut before = |seconds: i64| now_us - dice.random_range(0..seconds * SECOND);
    let (recent, older, old) = (before(2), before(8), before(90));
    // Under the events' own clock one from the future would leave all others behind.
    let ahead = match clock {
        ClockMode::System => dice.random_range(0..55 * SECOND),
        ClockMode::Event => dice.random_range(0..3 * SECOND),
    };
    let time_us = match dice.random_range(0..100) {
        0..58 => recent,
        58..80 => older,
        80..86 => old,
        86..93 => now_us + ahead,
        93..96 => now_us + ahead + if clock == ClockMode::System { 60 * SECOND } else { 0 },
        _ => return None,
    };
    // Whole seconds meet each other, and the ends of frames.
    Some(if dice.random_bool(0.5) { time_us - time_us.rem_euclid(SECOND) } else { time_us })
}

/// The numbers of the rows of a batch.
pub fn numbers(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_any().downcast_ref::<Int64Array>().expect("numbers").values().to_vec()
}
