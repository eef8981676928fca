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

/// Partitions that are told of one by one; a topic may have thousands.
const TOLD: usize = 10;

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

/// What this does to the records, for who asked for it; `None`: every partition goes on where it stood. Offsets are not
/// records one to one (transactions, compaction), so it says at most how many.
#[must_use]
pub fn moves(places: &BTreeMap<u32, Place>, next: &BTreeMap<u32, u64>, to: &BTreeMap<u32, u64>) -> Option<String> {
    let mut each = vec![];
    for (partition, goes_on) in to {
        let (Some(stands), Some(place)) = (next.get(partition), places.get(partition)) else { continue };
        let way = |word: &str| format!("partition {partition} goes {word} from offset {stands} to {goes_on}");
        if goes_on < stands {
            let again = match place.high.min(*stands).saturating_sub(*goes_on) {
                0 => "nothing is read again: the topic ends there".to_string(),
                again => format!("up to {again} records are read again"),
            };
            each.push(format!("{}: {again}", way("back")));
        } else if goes_on > stands {
            let (skipped, lost) = (goes_on - stands, place.low.min(*goes_on).saturating_sub(*stands));
            let lost = match lost {
                0 => String::new(),
                _ => format!(", of which {lost} are lost: the topic does not have them any more"),
            };
            each.push(format!("{}: up to {skipped} records are never read{lost}", way("on")));
        }
    }
    let more = each.len().saturating_sub(TOLD);
    each.truncate(TOLD);
    if more > 0 {
        each.push(format!("and so in {more} partitions more"));
    }
    (!each.is_empty()).then(|| each.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_again_and_what_is_lost_is_told() {
        let place = |low, high, chosen| Place { low, high, chosen };
        let told = |place: Place, stands: u64| {
            let (places, next): (BTreeMap<_, _>, BTreeMap<_, _>) = ([(0, place)].into(), [(0, stands)].into());
            let to = going_on(&places, &next, true).expect("with duplicates anything goes");
            moves(&places, &next, &to)
        };
        assert_eq!(told(place(0, 9, Some(5)), 5), None);
        assert_eq!(told(place(0, 9, None), 5), None);
        let told = |low, high, chosen, stands| told(place(low, high, Some(chosen)), stands).unwrap_or_default();
        assert_eq!(told(0, 9, 2, 5), "partition 0 goes back from offset 5 to 2: up to 3 records are read again");
        // Made anew, with fewer records.
        assert_eq!(told(0, 1, 0, 5), "partition 0 goes back from offset 5 to 0: up to 1 records are read again");
        let ends = "partition 0 goes back from offset 5 to 0: nothing is read again: the topic ends there";
        assert_eq!(told(0, 0, 0, 5), ends);
        assert_eq!(told(0, 9, 9, 5), "partition 0 goes on from offset 5 to 9: up to 4 records are never read");
        let lost = ", of which 2 are lost: the topic does not have them any more";
        for (goes_on, skipped) in [(9, 4), (7, 2)] {
            let on =
                format!("partition 0 goes on from offset 5 to {goes_on}: up to {skipped} records are never read{lost}");
            assert_eq!(told(7, 9, goes_on, 5), on);
        }
    }

    #[test]
    fn of_many_partitions_some_are_told_and_a_new_one_is_not() {
        let places: BTreeMap<u32, Place> = (0..13).map(|n| (n, Place { low: 0, high: 9, chosen: Some(9) })).collect();
        let next: BTreeMap<u32, u64> = (0..12).map(|n| (n, 4)).collect();
        let to = going_on(&places, &next, false).expect("on");
        let told = moves(&places, &next, &to).unwrap_or_default();
        assert_eq!(told.matches("up to 5 records").count(), TOLD);
        assert!(told.ends_with("; and so in 2 partitions more"), "{told}");
    }

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
