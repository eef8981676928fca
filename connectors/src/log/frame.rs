//! One frame of the log: the bytes of one batch, and back.
//!
//! All integers are little-endian; every part begins at a multiple of 8 bytes, so that Arrow buffers can be used
//! where they were read.
//!
//! ```text
//! byte  0  u32  magic "TMF1"
//!       4  u32  CRC-32 of bytes 8 .. frame_bytes
//!       8  u32  frame_bytes: the whole frame with padding
//!      12  u32  flags: 1 first of its group, 2 last of its group,
//!                      4 everything before this group was synced when it was written, 8 has an admission
//!      16  u64  base_offset
//!      24  i64  append time, microseconds since 1970 UTC
//!      32  u32  rows; 0 for a control record, which takes up one offset of its own
//!      36  u32  admission_bytes
//!      40  u32  message_bytes
//!      44  u32  body_bytes
//!      48       admission (see `admission.rs`), padded; Arrow IPC RecordBatch message (flatbuffer), padded;
//!               Arrow IPC body
//! ```
//!
//! The schema is in the segment's header, not here: a row of four columns costs about 400 bytes.

use super::admission;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::writer::{CompressionContext, DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use arrow::ipc::{MetadataVersion, root_as_message};
use arrow::record_batch::RecordBatch;
use std::collections::HashMap;
use tidemark_engine::seam::SourceBatch;

pub(super) const HEADER_BYTES: usize = 48;
const MAGIC: u32 = u32::from_le_bytes(*b"TMF1");
/// Lengths are u32 and a reader allocates what the header says: no frame is larger than this.
const FRAME_BYTES_MAX: usize = 1 << 30;

pub(super) const FIRST: u32 = 1;
pub(super) const LAST: u32 = 2;
pub(super) const PREDECESSORS_SYNCED: u32 = 4;
const HAS_ADMISSION: u32 = 8;

pub(super) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The options every log is written with: the smallest alignment Arrow knows.
pub(super) fn ipc_options() -> Result<IpcWriteOptions, ArrowError> {
    IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
}

#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHeader {
    pub frame_bytes: usize,
    pub flags: u32,
    pub base_offset: u64,
    pub append_time_us: i64,
    pub rows: u32,
    admission_bytes: usize,
    message_bytes: usize,
    body_bytes: usize,
}

impl FrameHeader {
    /// `None` unless the bytes are a header whose lengths agree. The checksum is `is_intact`'s.
    pub fn parse(bytes: &[u8]) -> Option<FrameHeader> {
        if bytes.len() < HEADER_BYTES || u32_at(bytes, 0)? != MAGIC {
            return None;
        }
        let header = FrameHeader {
            frame_bytes: u32_at(bytes, 8)? as usize,
            flags: u32_at(bytes, 12)?,
            base_offset: u64_at(bytes, 16)?,
            append_time_us: u64_at(bytes, 24)? as i64,
            rows: u32_at(bytes, 32)?,
            admission_bytes: u32_at(bytes, 36)? as usize,
            message_bytes: u32_at(bytes, 40)? as usize,
            body_bytes: u32_at(bytes, 44)? as usize,
        };
        let whole =
            HEADER_BYTES + padded(header.admission_bytes) + padded(header.message_bytes) + padded(header.body_bytes);
        (whole == header.frame_bytes && whole <= FRAME_BYTES_MAX).then_some(header)
    }

    /// The offset after this frame.
    pub fn end_offset(&self) -> u64 {
        self.base_offset.saturating_add(u64::from(self.rows.max(1)))
    }
}

pub(super) fn is_intact(frame: &[u8]) -> bool {
    frame.len() >= HEADER_BYTES && u32_at(frame, 4) == Some(crc32fast::hash(&frame[8..]))
}

/// Appends the frame of `batch` to `out`. On an error `out` may hold a part of it.
pub(super) fn encode(out: &mut Vec<u8>, batch: &SourceBatch, base_offset: u64, flags: u32) -> Result<(), String> {
    let start = out.len();
    let rows = u32::try_from(batch.rows.num_rows()).map_err(|_| "a batch has more than 4 billion rows".to_string())?;
    let flags = flags | if batch.admission.is_some() { HAS_ADMISSION } else { 0 };
    out.resize(start + HEADER_BYTES, 0);
    if let Some(admitted) = &batch.admission {
        admission::encode(out, admitted);
    }
    let admission_bytes = out.len() - start - HEADER_BYTES;
    out.resize(start + HEADER_BYTES + padded(admission_bytes), 0);
    let (mut message_bytes, mut body_bytes) = (0, 0);
    if rows > 0 {
        let options = ipc_options().map_err(|e| e.to_string())?;
        let (_, encoded) = IpcDataGenerator::default()
            .encode(&batch.rows, &mut DictionaryTracker::new(false), &options, &mut CompressionContext::default())
            .map_err(|e| format!("cannot encode a batch: {e}"))?;
        message_bytes = encoded.ipc_message.len();
        body_bytes = encoded.arrow_data.len();
        out.extend_from_slice(&encoded.ipc_message);
        out.resize(out.len() + padded(message_bytes) - message_bytes, 0);
        out.extend_from_slice(&encoded.arrow_data);
        out.resize(out.len() + padded(body_bytes) - body_bytes, 0);
    }
    let frame_bytes = out.len() - start;
    if frame_bytes > FRAME_BYTES_MAX {
        return Err(format!(
            "a batch of {frame_bytes} bytes is too large, at most {FRAME_BYTES_MAX} fit in one record"
        ));
    }
    let frame = &mut out[start..];
    frame[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    frame[8..12].copy_from_slice(&(frame_bytes as u32).to_le_bytes());
    frame[12..16].copy_from_slice(&flags.to_le_bytes());
    frame[16..24].copy_from_slice(&base_offset.to_le_bytes());
    frame[24..32].copy_from_slice(&batch.append_time_us.to_le_bytes());
    frame[32..36].copy_from_slice(&rows.to_le_bytes());
    frame[36..40].copy_from_slice(&(admission_bytes as u32).to_le_bytes());
    frame[40..44].copy_from_slice(&(message_bytes as u32).to_le_bytes());
    frame[44..48].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    let crc = crc32fast::hash(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// The batch of an intact frame. Its columns point into `frame`; nothing is copied that is aligned.
pub(super) fn decode(header: &FrameHeader, frame: &Buffer, schema: &SchemaRef) -> Result<SourceBatch, String> {
    let admission_end = HEADER_BYTES + header.admission_bytes;
    let message_start = HEADER_BYTES + padded(header.admission_bytes);
    let message_end = message_start + header.message_bytes;
    let body_start = message_start + padded(header.message_bytes);
    let admission = if header.flags & HAS_ADMISSION != 0 {
        Some(admission::decode(&frame[HEADER_BYTES..admission_end]).ok_or("its admission cannot be read")?)
    } else {
        None
    };
    let rows = if header.rows == 0 {
        RecordBatch::new_empty(schema.clone())
    } else {
        let message = root_as_message(&frame[message_start..message_end]).map_err(|e| e.to_string())?;
        let batch = message.header_as_record_batch().ok_or("its message is not a record batch")?;
        let body = frame.slice_with_length(body_start, header.body_bytes);
        read_record_batch(&body, batch, schema.clone(), &HashMap::new(), None, &message.version())
            .map_err(|e| e.to_string())?
    };
    if rows.num_rows() != header.rows as usize {
        return Err(format!("it holds {} rows and says {}", rows.num_rows(), header.rows));
    }
    Ok(SourceBatch {
        partition: 0,
        base_offset: header.base_offset,
        append_time_us: header.append_time_us,
        rows,
        admission,
    })
}
