//! Where reading goes on after `ALTER SOURCE … RESET TO`: on purpose somewhere else than where it stands.
//!
//! ```text
//!   taken  0 ─────────────── next          the log has these rows
//!   topic         low ──────────────── high
//!                  ▲ back: rows from here to next come a second time
//!                              next ─▲ on: what lies between is never read
//! ```
//!
//! Offsets do not tell a topic that was made anew from one that was cut off at its end. So whatever goes back behind
//! what was taken, to where there are records, needs a word that says so.

use super::{KafkaError, Kind, Place};
use std::collections::BTreeMap;

/// For each partition of the topic the offset to go on from; `next` is where reading stands, `again` says that records
/// may be read a second time. A partition of which nothing was chosen stays where it is, a new one begins at its first
/// record.
///
/// # Errors
/// Records would be read a second time.
pub fn going_on(
    places: &BTreeMap<u32, Place>,
    next: &BTreeMap<u32, u64>,
    again: bool,
) -> Result<BTreeMap<u32, u64>, KafkaError> {
    let mut to = BTreeMap::new();
    for (partition, place) in places {
        let stands = next.get(partition).copied();
        let goes_on = place.chosen.or(stands).unwrap_or(place.low);
        if let Some(stands) = stands.filter(|stands| !again && goes_on < place.high.min(*stands)) {
            let message = format!(
                "partition {partition} would go back from offset {stands} to {goes_on}: the rows of the records \
                 between come a second time"
            );
            let hint = "RESET TO … ALLOW DUPLICATES goes back, also where the topic was made anew and has other \
                        records at these offsets; RESET TO LATEST goes on with what comes";
            return Err(KafkaError::new(Kind::Again, message).hint(hint));
        }
        to.insert(*partition, goes_on);
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(place: (u64, u64, Option<u64>), stands: Option<u64>, expected: Option<u64>, with_duplicates: u64) {
        let (low, high, chosen) = place;
        let places: BTreeMap<u32, Place> = [(0, Place { low, high, chosen })].into();
        let next: BTreeMap<u32, u64> = stands.map(|stands| (0, stands)).into_iter().collect();
        let to = |again| going_on(&places, &next, again).map(|to| to[&0]);
        assert_eq!(to(false).ok(), expected, "{place:?} from {stands:?}");
        assert_eq!(to(true), Ok(with_duplicates), "{place:?} from {stands:?}");
    }

    #[test]
    fn going_back_to_where_there_are_records_needs_a_word() {
        // Records are gone: on to what there is.
        check((7, 9, Some(7)), Some(5), Some(7), 7);
        check((7, 9, Some(9)), Some(5), Some(9), 9);
        // Back.
        check((0, 9, Some(4)), Some(5), None, 4);
        check((0, 9, Some(5)), Some(5), Some(5), 5);
        // Made anew, or cut off: nobody can tell.
        check((0, 1, Some(0)), Some(5), None, 0);
        check((0, 1, Some(1)), Some(5), Some(1), 1);
        check((0, 0, Some(0)), Some(5), Some(0), 0);
        // Nothing was said of it.
        check((0, 9, None), Some(5), Some(5), 5);
        check((3, 9, None), None, Some(3), 3);
    }

    #[test]
    fn a_partition_that_is_no_more_is_forgotten() {
        let places: BTreeMap<u32, Place> = [(0, Place { low: 0, high: 4, chosen: Some(4) })].into();
        let next: BTreeMap<u32, u64> = [(0, 2), (1, 7)].into();
        assert_eq!(going_on(&places, &next, false), Ok([(0, 4)].into()));
    }
}
