//! Reading frames in file order, in large pieces, and finding where a damaged log ends.

use super::frame::{self, FIRST, FrameHeader, HEADER_BYTES, LAST, PREDECESSORS_SYNCED};
use arrow::buffer::{Buffer, MutableBuffer};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// One read: large enough that its system call does not show, small enough to read for a single row.
const CHUNK_BYTES: u64 = 256 << 10;
/// A seek reads at most this much before its record.
const INDEX_EVERY_BYTES: u64 = 16 << 10;

/// What stands at a reader's position.
pub(super) enum Next {
    Frame(FrameHeader),
    /// Bytes that are not a whole frame.
    Damage,
    End,
}

/// A position in a segment's file that moves from frame to frame.
pub(super) struct FrameReader<'a> {
    file: &'a File,
    pub position: u64,
    end: u64,
    chunk: Buffer,
    chunk_position: u64,
}

impl<'a> FrameReader<'a> {
    /// Reads the frames between two positions; `position` is the beginning of one.
    pub fn new(file: &'a File, position: u64, end: u64) -> FrameReader<'a> {
        FrameReader { file, position, end, chunk: Buffer::from(&[] as &[u8]), chunk_position: position }
    }

    /// The header of the next frame, which lies within the file; its content is not looked at.
    pub fn peek(&mut self) -> io::Result<Next> {
        let rest = self.end.saturating_sub(self.position);
        if rest == 0 {
            return Ok(Next::End);
        }
        if rest < HEADER_BYTES as u64 {
            return Ok(Next::Damage);
        }
        Ok(match FrameHeader::parse(&self.bytes(HEADER_BYTES)?) {
            Some(header) if header.frame_bytes as u64 <= rest => Next::Frame(header),
            _ => Next::Damage,
        })
    }

    /// The bytes of the frame just peeked at, if its checksum holds; moves behind it.
    pub fn take(&mut self, header: &FrameHeader) -> io::Result<Option<Buffer>> {
        let bytes = self.bytes(header.frame_bytes)?;
        if !frame::is_intact(&bytes) {
            return Ok(None);
        }
        self.skip(header);
        Ok(Some(bytes))
    }

    pub fn skip(&mut self, header: &FrameHeader) {
        self.position += header.frame_bytes as u64;
    }

    fn bytes(&mut self, length: usize) -> io::Result<Buffer> {
        let at = (self.position - self.chunk_position) as usize;
        if at + length > self.chunk.len() {
            let wanted = CHUNK_BYTES.max(length as u64).min(self.end - self.position);
            let mut chunk = MutableBuffer::from_len_zeroed(wanted as usize);
            self.file.read_exact_at(&mut chunk, self.position)?;
            self.chunk = chunk.into();
            self.chunk_position = self.position;
            return Ok(self.chunk.slice_with_length(0, length));
        }
        Ok(self.chunk.slice_with_length(at, length))
    }
}

/// (offset, position of its frame), ascending, some kilobytes apart.
#[derive(Debug, Default, Clone)]
pub(super) struct SparseIndex(Vec<(u64, u64)>);

impl SparseIndex {
    pub fn note(&mut self, offset: u64, position: u64) {
        if self.0.last().is_none_or(|(_, last)| position - last >= INDEX_EVERY_BYTES) {
            self.0.push((offset, position));
        }
    }

    /// The position of a frame at or before `offset`.
    pub fn seek(&self, offset: u64) -> Option<u64> {
        let after = self.0.partition_point(|(o, _)| *o <= offset);
        Some(self.0.get(after.checked_sub(1)?)?.1)
    }
}

/// Where the whole groups of a segment end.
pub(super) struct Scan {
    pub end: u64,
    pub end_offset: u64,
    pub append_us_max: i64,
    pub index: SparseIndex,
}

pub(super) enum ScanError {
    Io(io::Error),
    /// Damaged at this position, and a later group that was begun only after the damaged one was durable is intact:
    /// this is not the trace of a crash.
    Damaged(u64),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        ScanError::Io(error)
    }
}

/// Reads a whole segment and checks every frame.
pub(super) fn scan(file: &File, start: u64, base_offset: u64) -> Result<Scan, ScanError> {
    let length = file.metadata()?.len();
    let mut reader = FrameReader::new(file, start, length);
    let mut scan = Scan { end: start, end_offset: base_offset, append_us_max: i64::MIN, index: SparseIndex::default() };
    // The frames of the group being read, noted in the index when its last one has been seen.
    let mut group: Vec<(u64, u64)> = vec![];
    let (mut offset, mut append_us_max) = (base_offset, i64::MIN);
    loop {
        let position = reader.position;
        let header = match reader.peek()? {
            Next::End => return Ok(scan),
            Next::Frame(header) if header.base_offset == offset && (header.flags & FIRST != 0) == group.is_empty() => {
                header
            }
            Next::Frame(_) | Next::Damage => break,
        };
        if reader.take(&header)?.is_none() {
            break;
        }
        group.push((offset, position));
        offset = header.end_offset();
        append_us_max = append_us_max.max(header.append_time_us);
        if header.flags & LAST != 0 {
            group.drain(..).for_each(|(offset, position)| scan.index.note(offset, position));
            scan.end = reader.position;
            scan.end_offset = offset;
            scan.append_us_max = append_us_max;
        }
    }
    match durable_group_after(file, reader.position + 8, length, offset)? {
        true => Err(ScanError::Damaged(reader.position)),
        false => Ok(scan),
    }
}

/// Frames begin at multiples of 8 after the header, which itself is one.
fn durable_group_after(file: &File, position: u64, length: u64, offset: u64) -> io::Result<bool> {
    if position >= length {
        return Ok(false);
    }
    let mut tail = vec![0; (length - position) as usize];
    file.read_exact_at(&mut tail, position)?;
    Ok((0..tail.len()).step_by(8).any(|at| {
        FrameHeader::parse(&tail[at..]).is_some_and(|header| {
            header.flags & (FIRST | PREDECESSORS_SYNCED) == FIRST | PREDECESSORS_SYNCED
                && header.base_offset >= offset
                && tail.get(at..at + header.frame_bytes).is_some_and(frame::is_intact)
        })
    }))
}
