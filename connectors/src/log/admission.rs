//! The bytes of an admission decision inside a frame.
//!
//! ```text
//! i64 frontier · i64 greatest event time
//! u32 rejects, each: u32 row · u8 reason · u32 length · error text (UTF-8)
//! u32 deletes, each: u32 row
//! u32 effective times, each: i64
//! ```
//! Where the highest bit of the rejects' number is set, the rows were taken from a topic, and it goes on (the bit below
//! it: reading was set elsewhere by hand):
//!
//! ```text
//! u32 runs, each: u32 row · u32 partition · u64 offset · i64 append time
//! u32 undecoded, each: u32 partition · u64 offset · i64 append time · u32 length · error · u32 length · payload
//! u32 taken, each: u32 partition · u64 next offset · i64 watermark
//! ```
//! Where the third bit is set, rows of the log are no more (after what came from a topic, if both are):
//!
//! ```text
//! u64 below · u32 offsets, each: u64
//! ```

use tidemark_engine::seam::{AdmittedBatch, Origin, Reject, RejectReason, Removal, Run, Taken, Undecoded};

/// In the number of rejects: an origin follows.
const HAS_ORIGIN: u32 = 1 << 31;
/// Beside it: the origin is a reset.
const IS_RESET: u32 = 1 << 30;
/// Beside them: rows are removed.
const HAS_REMOVAL: u32 = 1 << 29;

pub(super) fn encode(out: &mut Vec<u8>, admitted: &AdmittedBatch) {
    out.extend_from_slice(&admitted.frontier_us.to_le_bytes());
    out.extend_from_slice(&admitted.max_event_us.to_le_bytes());
    let flags = match &admitted.origin {
        None => 0,
        Some(origin) if origin.is_reset => HAS_ORIGIN | IS_RESET,
        Some(_) => HAS_ORIGIN,
    };
    let flags = flags | if admitted.removal.is_empty() { 0 } else { HAS_REMOVAL };
    out.extend_from_slice(&(admitted.rejected.len() as u32 | flags).to_le_bytes());
    for reject in &admitted.rejected {
        out.extend_from_slice(&reject.row.to_le_bytes());
        out.push(code(reject.reason));
        text(out, &reject.error);
    }
    count(out, admitted.deletes.len());
    for row in &admitted.deletes {
        out.extend_from_slice(&row.to_le_bytes());
    }
    count(out, admitted.effective_us.len());
    for time in &admitted.effective_us {
        out.extend_from_slice(&time.to_le_bytes());
    }
    if let Some(origin) = &admitted.origin {
        encode_origin(out, origin);
    }
    if !admitted.removal.is_empty() {
        out.extend_from_slice(&admitted.removal.below.to_le_bytes());
        count(out, admitted.removal.offsets.len());
        for offset in &admitted.removal.offsets {
            out.extend_from_slice(&offset.to_le_bytes());
        }
    }
}

fn encode_origin(out: &mut Vec<u8>, origin: &Origin) {
    count(out, origin.runs.len());
    for run in &origin.runs {
        out.extend_from_slice(&run.row.to_le_bytes());
        out.extend_from_slice(&run.partition.to_le_bytes());
        out.extend_from_slice(&run.offset.to_le_bytes());
        out.extend_from_slice(&run.append_us.to_le_bytes());
    }
    count(out, origin.undecoded.len());
    for message in &origin.undecoded {
        out.extend_from_slice(&message.partition.to_le_bytes());
        out.extend_from_slice(&message.offset.to_le_bytes());
        out.extend_from_slice(&message.append_us.to_le_bytes());
        text(out, &message.error);
        text(out, &message.payload);
    }
    count(out, origin.taken.len());
    for taken in &origin.taken {
        out.extend_from_slice(&taken.partition.to_le_bytes());
        out.extend_from_slice(&taken.next.to_le_bytes());
        out.extend_from_slice(&taken.watermark_us.to_le_bytes());
    }
}

fn decode_origin(rest: &mut &[u8], is_reset: bool) -> Option<Origin> {
    let runs = (0..length(rest)?).map(|_| {
        Some(Run {
            row: u32::from_le_bytes(take(rest)?),
            partition: u32::from_le_bytes(take(rest)?),
            offset: u64::from_le_bytes(take(rest)?),
            append_us: i64::from_le_bytes(take(rest)?),
        })
    });
    let runs = runs.collect::<Option<_>>()?;
    let undecoded = (0..length(rest)?).map(|_| {
        Some(Undecoded {
            partition: u32::from_le_bytes(take(rest)?),
            offset: u64::from_le_bytes(take(rest)?),
            append_us: i64::from_le_bytes(take(rest)?),
            error: take_text(rest)?,
            payload: take_text(rest)?,
        })
    });
    let undecoded = undecoded.collect::<Option<_>>()?;
    let taken = (0..length(rest)?).map(|_| {
        Some(Taken {
            partition: u32::from_le_bytes(take(rest)?),
            next: u64::from_le_bytes(take(rest)?),
            watermark_us: i64::from_le_bytes(take(rest)?),
        })
    });
    Some(Origin { runs, undecoded, taken: taken.collect::<Option<_>>()?, is_reset })
}

/// `None` when the bytes are not exactly one decision.
pub(super) fn decode(bytes: &[u8]) -> Option<AdmittedBatch> {
    let mut rest = bytes;
    let frontier_us = i64::from_le_bytes(take(&mut rest)?);
    let max_event_us = i64::from_le_bytes(take(&mut rest)?);
    let rejects = u32::from_le_bytes(take(&mut rest)?);
    let rejected = (0..rejects & !(HAS_ORIGIN | IS_RESET | HAS_REMOVAL))
        .map(|_| {
            let row = u32::from_le_bytes(take(&mut rest)?);
            let [code] = take(&mut rest)?;
            Some(Reject { row, reason: reason(code)?, error: take_text(&mut rest)? })
        })
        .collect::<Option<Vec<_>>>()?;
    let deletes =
        (0..length(&mut rest)?).map(|_| take(&mut rest).map(u32::from_le_bytes)).collect::<Option<Vec<_>>>()?;
    let effective_us =
        (0..length(&mut rest)?).map(|_| take(&mut rest).map(i64::from_le_bytes)).collect::<Option<Vec<_>>>()?;
    let origin = match rejects & HAS_ORIGIN {
        0 => None,
        _ => Some(decode_origin(&mut rest, rejects & IS_RESET != 0)?),
    };
    let removal = match rejects & HAS_REMOVAL {
        0 => Removal::default(),
        _ => Removal {
            below: u64::from_le_bytes(take(&mut rest)?),
            offsets: (0..length(&mut rest)?).map(|_| take(&mut rest).map(u64::from_le_bytes)).collect::<Option<_>>()?,
        },
    };
    let admitted = AdmittedBatch { rejected, frontier_us, max_event_us, effective_us, deletes, origin, removal };
    rest.is_empty().then_some(admitted)
}

/// Rows of one batch are counted in u32, and a frame is far below 4 GiB.
fn count(out: &mut Vec<u8>, n: usize) {
    out.extend_from_slice(&(n as u32).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let bytes = length(rest)?;
    let (text, after) = rest.split_at_checked(bytes)?;
    *rest = after;
    Some(std::str::from_utf8(text).ok()?.to_string())
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

    fn any_origin() -> impl Strategy<Value = Origin> {
        let run = (any::<u32>(), any::<u32>(), any::<u64>(), any::<i64>());
        let run = run.prop_map(|(row, partition, offset, append_us)| Run { row, partition, offset, append_us });
        let undecoded = (any::<u32>(), any::<u64>(), any::<i64>(), "\\PC{0,9}", "\\PC{0,9}").prop_map(
            |(partition, offset, append_us, error, payload)| Undecoded { partition, offset, append_us, error, payload },
        );
        let taken = (any::<u32>(), any::<u64>(), any::<i64>());
        let taken = taken.prop_map(|(partition, next, watermark_us)| Taken { partition, next, watermark_us });
        let some = 0..3;
        let runs = prop::collection::vec(run, some.clone());
        let undecoded = prop::collection::vec(undecoded, some.clone());
        let taken = prop::collection::vec(taken, some);
        (runs, undecoded, taken, any::<bool>()).prop_map(|(runs, undecoded, taken, is_reset)| Origin {
            runs,
            undecoded,
            taken,
            is_reset,
        })
    }

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
            prop::option::of(any_origin()),
            (0u64..3, prop::collection::vec(any::<u64>(), 0..3)),
        )
            .prop_map(|(rejected, frontier_us, max_event_us, effective_us, deletes, origin, removed)| {
                AdmittedBatch {
                    removal: Removal { below: removed.0, offsets: removed.1 },
                    rejected,
                    frontier_us,
                    max_event_us,
                    effective_us,
                    deletes,
                    origin,
                }
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
