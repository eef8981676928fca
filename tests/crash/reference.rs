//! What the views of the crash test mean, by definition and slowly: for one key and one instant, over all its events.

use crate::events::{DELAY_US, Event, MONTH_US, decimal};
use std::collections::BTreeMap;

pub const SOURCE_SQL: &str = "CREATE SOURCE events (n BIGINT NOT NULL, k TEXT, amount NUMERIC(12,2), \
     price DOUBLE PRECISION, at TIMESTAMPTZ NOT NULL, WATERMARK FOR at AS at - INTERVAL '60 seconds') WITH (clock = 'event')";

const RANGE_US: i64 = 30_000_000;
const TTL_US: i64 = 120_000_000;

/// One feature view: how it is created, and what it says.
pub struct View {
    pub name: &'static str,
    /// `CREATE FEATURE VIEW name` comes before it.
    sql: &'static str,
    /// Its features, in order.
    pub features: &'static [&'static str],
    pub takes: fn(&Event) -> bool,
    ttl_us: Option<i64>,
    range_us: Option<i64>,
    /// Over the events of the key's life up to the instant (never empty), and those of them in the range.
    value: fn(&[&Event], &[&Event]) -> Vec<String>,
}

pub const VIEWS: [View; 4] = [
    View {
        name: "recent",
        sql: "AS SELECT k, at, count(*) OVER w AS n, sum(amount) OVER w AS total, max(price) OVER w AS highest FROM events \
              WHERE price < 90 WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '30 seconds' PRECEDING)",
        features: &["n", "total", "highest"],
        takes: |e| e.price < 90.0,
        ttl_us: None,
        range_us: Some(RANGE_US),
        value: |_, range| vec![range.len().to_string(), total(range), highest(range)],
    },
    View {
        name: "last_three",
        sql: "AS SELECT k, at, count(*) OVER w AS n, sum(amount) OVER w AS total, first_value(n) OVER w AS oldest, \
              price AS last_price FROM events WINDOW w AS (PARTITION BY k ORDER BY at ROWS 2 PRECEDING)",
        features: &["n", "total", "oldest", "last_price"],
        takes: |_| true,
        ttl_us: None,
        range_us: None,
        value: |life, _| {
            let last = &life[life.len().saturating_sub(3)..];
            let price = life[life.len() - 1].price;
            vec![last.len().to_string(), total(last), last[0].n.to_string(), price.to_string()]
        },
    },
    View {
        name: "ever",
        sql: "AS SELECT k, at, count(*) OVER w AS n, sum(amount) OVER w AS total, sum(price) OVER w AS prices FROM events \
              WINDOW w AS (PARTITION BY k ORDER BY at RANGE UNBOUNDED PRECEDING)",
        features: &["n", "total", "prices"],
        takes: |_| true,
        ttl_us: None,
        range_us: None,
        value: |life, _| {
            let prices: f64 = life.iter().map(|e| e.price).sum();
            vec![life.len().to_string(), total(life), prices.to_string()]
        },
    },
    View {
        name: "lives",
        sql: "WITH (ttl = '2 minutes') AS SELECT k, at, count(*) OVER w AS n, count(*) OVER (PARTITION BY k ORDER BY at) AS n_ever \
              FROM events WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '30 seconds' PRECEDING)",
        features: &["n", "n_ever"],
        takes: |_| true,
        ttl_us: Some(TTL_US),
        range_us: Some(RANGE_US),
        value: |life, range| vec![range.len().to_string(), life.len().to_string()],
    },
];

fn total(events: &[&Event]) -> String {
    match events {
        [] => "NULL".to_owned(),
        events => decimal(events.iter().map(|e| e.cents).sum()),
    }
}

fn highest(events: &[&Event]) -> String {
    events.iter().map(|e| e.price).reduce(f64::max).map_or("NULL".to_owned(), |price| price.to_string())
}

/// One row of history, without what is written beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub at_us: i64,
    pub op: &'static str,
    /// Empty for a delete.
    pub values: Vec<String>,
}

impl View {
    pub fn create_sql(&self, name: &str) -> String {
        format!("CREATE FEATURE VIEW {name} {}", self.sql)
    }

    /// The events it takes, by key, in order.
    pub fn by_key<'a>(&self, events: &'a [Event]) -> BTreeMap<&'a str, Vec<&'a Event>> {
        let mut keys: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        for event in events.iter().filter(|event| (self.takes)(event)) {
            if let Some(key) = &event.key {
                keys.entry(key).or_default().push(event);
            }
        }
        keys.values_mut().for_each(|events| events.sort_by_key(|event| event.at_us));
        keys
    }

    /// `V(k, t)` over the key's events, and the time of the latest of them.
    pub fn at(&self, events: &[&Event], t_us: i64) -> Option<(i64, Vec<String>)> {
        let known = &events[..events.partition_point(|event| event.at_us <= t_us)];
        let last = known.last()?;
        let mut born = 0;
        if let Some(ttl_us) = self.ttl_us {
            if t_us > last.at_us + ttl_us {
                return None;
            }
            born = (1..known.len()).rev().find(|i| known[*i].at_us - known[i - 1].at_us > ttl_us).unwrap_or(0);
        }
        let life = &known[born..];
        let from = self.range_us.map_or(0, |range_us| life.partition_point(|event| event.at_us < t_us - range_us));
        Some((last.at_us, (self.value)(life, &life[from..])))
    }

    /// All steps of a key with an instant below the frontier.
    pub fn steps(&self, events: &[&Event], frontier_us: i64) -> Vec<Step> {
        let mut instants: Vec<i64> = events
            .iter()
            .flat_map(|e| [Some(e.at_us), self.range_us.map(|r| e.at_us + r + 1), self.ttl_us.map(|t| e.at_us + t + 1)])
            .flatten()
            .chain([MONTH_US])
            .filter(|at_us| *at_us < frontier_us)
            .collect();
        instants.sort_unstable();
        instants.dedup();
        let (mut steps, mut before) = (vec![], None);
        for at_us in instants {
            let now = self.at(events, at_us);
            if now != before {
                steps.push(match &now {
                    Some((_, values)) => Step { at_us, op: "upsert", values: values.clone() },
                    None => Step { at_us, op: "delete", values: vec![] },
                });
            } else if let (MONTH_US, Some((_, values))) = (at_us, &now) {
                steps.push(Step { at_us, op: "carry", values: values.clone() });
            }
            before = now;
        }
        steps
    }
}

/// The source's frontier: its greatest admitted event time minus the delay.
pub fn frontier_us(events: &[Event]) -> i64 {
    events.iter().map(|event| event.at_us).max().map_or(i64::MIN, |newest| newest - DELAY_US)
}

#[test]
fn a_gap_longer_than_the_ttl_ends_a_life() {
    let event = |n: u64, at_s: i64| Event { n, key: Some("k".into()), cents: 100, price: 1.0, at_us: at_s * 1_000_000 };
    let events = [event(0, 0), event(1, 10), event(2, 131), event(3, 132)];
    let events: Vec<&Event> = events.iter().collect();
    let lives = &VIEWS[3];
    let steps: Vec<(i64, &str, Vec<String>)> =
        lives.steps(&events, i64::MAX).into_iter().map(|s| (s.at_us, s.op, s.values)).collect();
    let row = |n: i32, ever: i32| vec![n.to_string(), ever.to_string()];
    let expected = [
        (0, "upsert", row(1, 1)),
        (10_000_000, "upsert", row(2, 2)),
        (30_000_001, "upsert", row(1, 2)),
        (40_000_001, "upsert", row(0, 2)),
        (130_000_001, "delete", vec![]),
        (131_000_000, "upsert", row(1, 1)),
        (132_000_000, "upsert", row(2, 2)),
        (161_000_001, "upsert", row(1, 2)),
        (162_000_001, "upsert", row(0, 2)),
        (252_000_001, "delete", vec![]),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_quiet_key_repeats_its_row_when_a_month_begins_and_an_absent_one_does_not() {
    let event = |n: u64, at_us: i64| Event { n, key: Some("k".into()), cents: 100, price: 1.0, at_us };
    let ops = |view: &View, at_us: i64| {
        let event = event(0, at_us);
        let steps = view.steps(&[&event], MONTH_US + 1);
        steps.iter().map(|step| step.op).collect::<Vec<_>>()
    };
    let [recent, _, _, lives] = &VIEWS;
    assert_eq!(ops(recent, MONTH_US - 1), ["upsert", "carry"]);
    assert_eq!(ops(recent, MONTH_US), ["upsert"]);
    assert_eq!(ops(recent, MONTH_US - RANGE_US - 1), ["upsert", "upsert"]);
    assert_eq!(ops(lives, MONTH_US - TTL_US), ["upsert", "upsert", "carry"]);
    assert_eq!(ops(lives, MONTH_US - TTL_US - 2), ["upsert", "upsert", "delete"]);
}
