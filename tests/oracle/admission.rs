//! Admission by the definition (semantics, section 3), for one partition under the event clock: event time alone makes
//! the watermark, and the future check is off.

use crate::model::Source;

/// For every row, in order of arrival, whether it is admitted.
pub fn admitted(source: &Source) -> Vec<bool> {
    let mut watermark_us = i64::MIN;
    source
        .rows
        .iter()
        .map(|row| {
            if row.event_time_us < watermark_us {
                return false;
            }
            watermark_us = watermark_us.max(row.event_time_us - source.delay_us);
            true
        })
        .collect()
}

#[test]
fn a_row_exactly_at_the_watermark_is_admitted_and_late_rows_move_nothing() {
    use crate::model::Row;
    let row = |event_time_us| Row { event_time_us, cells: vec![] };
    let rows = [100, 90, 89, 200, 189, 190, 150].map(row).to_vec();
    let source = Source { columns: vec![], delay_us: 10, rows };
    assert_eq!(admitted(&source), [true, true, false, true, false, true, false]);
}
