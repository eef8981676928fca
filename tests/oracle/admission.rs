//! Admission by the definition (semantics, section 3), for one partition under the event clock: event time alone makes
//! the watermark, and the future check is off. Each part of a source that is split has its own watermark.

use crate::model::{Cell, EVENT_TIME, Row, Source, Ty, instant};
use std::collections::BTreeMap;

/// For every row, in order of arrival, the row as it counts; `None`: it is not admitted.
///
/// A row of a table with a primary key is never late: log order wins, and its time is no earlier than the watermark
/// before it and than the last change of its key.
pub fn admitted(source: &Source) -> Vec<Option<Row>> {
    let mut watermarks_us = [i64::MIN; 2];
    let mut changed_us: BTreeMap<&str, i64> = BTreeMap::new();
    let key = source.primary_key.as_ref().map(|name| source.column(name));
    let mut admitted = Vec::with_capacity(source.rows.len());
    for row in &source.rows {
        let own_us = row.event_time_us;
        let watermark_us = &mut watermarks_us[usize::from(row.second)];
        let counts = match key {
            Some(key) => {
                let key = row.cells[key].as_deref().unwrap_or_default();
                let before = changed_us.entry(key).or_insert(i64::MIN);
                *before = own_us.max(*watermark_us).max(*before);
                Some(at(source, row, *before))
            }
            None => (own_us >= *watermark_us).then(|| row.clone()),
        };
        if counts.is_some() {
            *watermark_us = (*watermark_us).max(own_us - source.delay_us);
        }
        admitted.push(counts);
    }
    admitted
}

/// Of admitted rows, the time from which on the next row with the same primary key counts instead.
pub fn until(source: &Source, admitted: &[&Row]) -> Vec<Option<i64>> {
    let mut until = vec![None; admitted.len()];
    let Some(key) = source.primary_key.as_ref().map(|name| source.column(name)) else { return until };
    let mut last: BTreeMap<&Cell, usize> = BTreeMap::new();
    for (i, row) in admitted.iter().enumerate() {
        if let Some(before) = last.insert(&row.cells[key], i) {
            until[before] = Some(row.event_time_us);
        }
    }
    until
}

/// The row with another event time.
fn at(source: &Source, row: &Row, event_time_us: i64) -> Row {
    let mut row = Row { event_time_us, ..row.clone() };
    let column = source.column(EVENT_TIME);
    row.cells[column] = Some(event_time(source.columns[column].1, event_time_us));
    row
}

/// An event time as the column's text.
pub fn event_time(ty: Ty, us: i64) -> String {
    let text = instant(us);
    match ty {
        Ty::Timestamp => text.trim_end_matches("+00").to_owned(),
        _ => text,
    }
}

#[test]
fn a_row_exactly_at_the_watermark_is_admitted_and_late_rows_move_nothing() {
    let row = |event_time_us| Row { event_time_us, cells: vec![], second: false };
    let rows = [100, 90, 89, 200, 189, 190, 150].map(row).to_vec();
    let source = Source { columns: vec![], primary_key: None, delay_us: 10, is_split: false, rows };
    let admitted: Vec<bool> = admitted(&source).iter().map(Option::is_some).collect();
    assert_eq!(admitted, [true, true, false, true, false, true, false]);
}

#[test]
fn a_change_counts_from_the_watermark_and_from_the_keys_last_change_on() {
    let row = |key: &str, event_time_us| Row { event_time_us, cells: vec![Some(key.to_owned()), None], second: false };
    let columns = vec![("k".to_owned(), Ty::Text), (EVENT_TIME.to_owned(), Ty::Instant)];
    let rows = vec![row("a", 100), row("a", 95), row("b", 95), row("b", 80), row("a", 200), row("b", 100)];
    let source = Source { columns, primary_key: Some("k".to_owned()), delay_us: 10, is_split: false, rows };
    let times: Vec<i64> = admitted(&source).into_iter().flatten().map(|row| row.event_time_us).collect();
    assert_eq!(times, [100, 100, 95, 95, 200, 190]);
}
