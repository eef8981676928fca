//! The bytes of an admission decision inside a frame.
//!
//! ```text
//! i64 frontier · i64 greatest event time
//! u32 rejects, each: u32 row · u8 reason · u32 length · error text (UTF-8)
//! u32 deletes, each: u32 row
//! u32 effective times, each: i64
//! ```

use tidemark_engine::seam::{AdmittedBatch, Reject, RejectReason};

pub(super) fn encode(out: &mut Vec<u8>, admitted: &AdmittedBatch) {
    out.extend_from_slice(&admitted.frontier_us.to_le_bytes());
    out.extend_from_slice(&admitted.max_event_us.to_le_bytes());
    count(out, admitted.rejected.len());
    for reject in &admitted.rejected {
        out.extend_from_slice(&reject.row.to_le_bytes());
        out.push(code(reject.reason));
        count(out, reject.error.len());
        out.extend_from_slice(reject.error.as_bytes());
    }
    count(out, admitted.deletes.len());
    for row in &admitted.deletes {
        out.extend_from_slice(&row.to_le_bytes());
    }
    count(out, admitted.effective_us.len());
    for time in &admitted.effective_us {
        out.extend_from_slice(&time.to_le_bytes());
    }
}

/// `None` when the bytes are not exactly one decision.
pub(super) fn decode(bytes: &[u8]) -> Option<AdmittedBatch> {
    let mut rest = bytes;
    let frontier_us = i64::from_le_bytes(take(&mut rest)?);
    let max_event_us = i64::from_le_bytes(take(&mut rest)?);
    let rejected = (0..length(&mut rest)?)
        .map(|_| {
            let row = u32::from_le_bytes(take(&mut rest)?);
            let [code] = take(&mut rest)?;
            let error_bytes = length(&mut rest)?;
            let (error, after) = rest.split_at_checked(error_bytes)?;
            rest = after;
            Some(Reject { row, reason: reason(code)?, error: std::str::from_utf8(error).ok()?.to_string() })
        })
        .collect::<Option<Vec<_>>>()?;
    let deletes =
        (0..length(&mut rest)?).map(|_| take(&mut rest).map(u32::from_le_bytes)).collect::<Option<Vec<_>>>()?;
    let effective_us =
        (0..length(&mut rest)?).map(|_| take(&mut rest).map(i64::from_le_bytes)).collect::<Option<Vec<_>>>()?;
    rest.is_empty().then_some(AdmittedBatch { rejected, frontier_us, max_event_us, effective_us, deletes })
}

/// Rows of one batch are counted in u32, and a frame is far below 4 GiB.
fn count(out: &mut Vec<u8>, n: usize) {
    out.extend_from_slice(&(n as u32).to_le_bytes());
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(take(rest)?) as usize)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn code(reason: RejectReason) -> u8 {
    match reason {
        RejectReason::Decode => 1,
        RejectReason::EventTime => 2,
        RejectReason::Future => 3,
        RejectReason::Late => 4,
        RejectReason::NullKey => 5,
        RejectReason::Expression => 6,
    }
}

fn reason(code: u8) -> Option<RejectReason> {
    Some(match code {
        1 => RejectReason::Decode,
        2 => RejectReason::EventTime,
        3 => RejectReason::Future,
        4 => RejectReason::Late,
        5 => RejectReason::NullKey,
        6 => RejectReason::Expression,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_admission() -> impl Strategy<Value = AdmittedBatch> {
        let reject = (any::<u32>(), 1u8..=6, "\\PC{0,12}").prop_map(|(row, code, error)| Reject {
            row,
            reason: reason(code).expect("a known code"),
            error,
        });
        (
            prop::collection::vec(reject, 0..4),
            any::<i64>(),
            any::<i64>(),
            prop::collection::vec(any::<i64>(), 0..5),
            prop::collection::vec(any::<u32>(), 0..5),
        )
            .prop_map(|(rejected, frontier_us, max_event_us, effective_us, deletes)| AdmittedBatch {
                rejected,
                frontier_us,
                max_event_us,
                effective_us,
                deletes,
            })
    }

    proptest! {
        #[test]
        fn an_admission_reads_back_as_written_and_no_part_of_it_reads_at_all(admitted in any_admission()) {
            let mut bytes = vec![];
            encode(&mut bytes, &admitted);
            prop_assert_eq!(decode(&bytes), Some(admitted));
            for end in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..end]), None);
            }
        }
    }
}
