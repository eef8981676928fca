//! What the views of a schedule mean, by definition and slowly: for one key and one instant, over all its events.

use super::events::Event;
use std::collections::BTreeMap;

/// One feature view over `events`.
pub struct View {
    pub name: &'static str,
    /// Its features, in order.
    pub features: &'static str,
    pub sql: &'static str,
    range_us: Option<i64>,
    value: fn(&[&Event]) -> Vec<String>,
}

pub const VIEWS: [View; 2] = [
    View {
        name: "ever",
        features: "howmany, total, newest",
        sql: "CREATE FEATURE VIEW ever AS SELECT k, at, count(*) OVER w AS howmany, sum(cents) OVER w AS total, max(n) OVER w AS newest \
              FROM events WINDOW w AS (PARTITION BY k ORDER BY at RANGE UNBOUNDED PRECEDING)",
        range_us: None,
        value: |events| {
            let newest = events.iter().map(|event| event.n).max();
            vec![events.len().to_string(), total(events), newest.map_or("NULL".to_string(), |n| n.to_string())]
        },
    },
    View {
        name: "recent",
        features: "howmany, total",
        sql: "CREATE FEATURE VIEW recent AS SELECT k, at, count(*) OVER w AS howmany, sum(cents) OVER w AS total \
              FROM events WINDOW w AS (PARTITION BY k ORDER BY at RANGE INTERVAL '30 seconds' PRECEDING)",
        range_us: Some(30_000_000),
        value: |events| vec![events.len().to_string(), total(events)],
    },
];

fn total(events: &[&Event]) -> String {
    match events {
        [] => "NULL".to_string(),
        events => events.iter().map(|event| event.cents).sum::<i64>().to_string(),
    }
}

/// The events of each key, by time.
pub fn by_key(events: &[Event]) -> BTreeMap<i64, Vec<&Event>> {
    let mut keys: BTreeMap<i64, Vec<&Event>> = BTreeMap::new();
    for event in events {
        keys.entry(event.k).or_default().push(event);
    }
    keys.values_mut().for_each(|events| events.sort_by_key(|event| event.at_ms));
    keys
}

/// "Now" under the event clock, as long as nobody moves the watermark by hand.
pub fn now_us(events: &[Event]) -> i64 {
    events.iter().map(|event| event.at_ms * 1000).max().unwrap_or(i64::MIN)
}

impl View {
    /// `V(k, t)` over the key's events, and the time of the latest of them.
    pub fn at(&self, events: &[&Event], t_us: i64) -> Option<(i64, Vec<String>)> {
        let known = &events[..events.partition_point(|event| event.at_ms * 1000 <= t_us)];
        let last = known.last()?;
        let from = self.range_us.map_or(0, |us| known.partition_point(|event| event.at_ms * 1000 < t_us - us));
        Some((last.at_ms * 1000, (self.value)(&known[from..])))
    }

    /// All steps of a key: the instants at which what it is becomes another, and what it becomes.
    pub fn steps(&self, events: &[&Event]) -> Vec<(i64, Vec<String>)> {
        let of_event = |event: &&Event| [Some(event.at_ms * 1000), self.range_us.map(|us| event.at_ms * 1000 + us + 1)];
        let mut instants: Vec<i64> = events.iter().flat_map(of_event).flatten().collect();
        instants.sort_unstable();
        instants.dedup();
        let (mut steps, mut before) = (vec![], None);
        for at_us in instants {
            let now = self.at(events, at_us);
            if now != before {
                steps.extend(now.clone().map(|(_, values)| (at_us, values)));
            }
            before = now;
        }
        steps
    }
}

#[test]
fn events_that_enter_and_leave_are_steps() {
    let event = |n: i64, at_ms: i64| Event { n, k: 1, cents: 10 * (n + 1), at_ms };
    let events = [event(0, 0), event(1, 10_000), event(2, 10_000)];
    let by_key = by_key(&events);
    let row = |values: &[&str]| values.iter().map(|value| value.to_string()).collect::<Vec<_>>();
    let [ever, recent] = &VIEWS;
    assert_eq!(ever.steps(&by_key[&1]), [(0, row(&["1", "10", "0"])), (10_000_000, row(&["3", "60", "2"]))]);
    let expected = [
        (0, row(&["1", "10"])),
        (10_000_000, row(&["3", "60"])),
        (30_000_001, row(&["2", "50"])),
        (40_000_001, row(&["0", "NULL"])),
    ];
    assert_eq!(recent.steps(&by_key[&1]), expected);
}
