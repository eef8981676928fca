//! One file of the log: its name, its header, and writing to it so that a failed write leaves nothing behind.
//!
//! A segment is `<sequence, 10 digits>.log`. It is made complete under another name, synced and renamed, so a segment
//! that exists has a whole header. Frames follow the header; an atomic group never crosses segments.
//!
//! ```text
//! byte  0  8 bytes  "TMLOG" 0 0 1 (the last byte is the format's version)
//!       8  u32      CRC-32 of bytes 12 .. header_bytes
//!      12  u32      header_bytes, a multiple of 8
//!      16  u64      sequence
//!      24  u64      base_offset: the offset of the first record
//!      32  i64      the greatest append time of all segments before this one (least i64: none): retention reads it
//!      40  u32      schema_bytes
//!      44  u32      0
//!      48           Arrow IPC Schema message (flatbuffer), padded
//! ```

use super::frame::{ipc_options, padded, u32_at, u64_at};
use arrow::datatypes::Schema;
use arrow::ipc::convert::try_schema_from_flatbuffer_bytes;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_engine::seam::{SeamError, SeamResult};

const MAGIC: [u8; 8] = *b"TMLOG\0\0\x01";
const FIXED_BYTES: usize = 48;
/// A header larger than this is not ours; it bounds what opening allocates.
const HEADER_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentHeader {
    pub sequence: u64,
    pub base_offset: u64,
    pub append_us_max_before: i64,
}

pub(super) fn path_of(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:010}.log"))
}

/// The sequence numbers of the segments in `dir`, ascending. Segments that were never finished are removed.
pub(super) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut sequences = vec![];
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("new") => std::fs::remove_file(&path)?,
            Some("log") => {
                sequences.extend(path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok()))
            }
            _ => {}
        }
    }
    sequences.sort_unstable();
    Ok(sequences)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The header's bytes; the same for a schema whatever the numbers, so its length can be planned with.
pub(super) fn header_bytes(header: &SegmentHeader, schema: &Schema) -> SeamResult<Vec<u8>> {
    let options = ipc_options().map_err(SeamError::not_done)?;
    let message = IpcDataGenerator::default()
        .schema_to_bytes_with_dictionary_tracker(schema, &mut DictionaryTracker::new(false), &options)
        .ipc_message;
    let mut bytes = vec![0; FIXED_BYTES + padded(message.len())];
    bytes[0..8].copy_from_slice(&MAGIC);
    let whole = bytes.len() as u32;
    bytes[12..16].copy_from_slice(&whole.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.sequence.to_le_bytes());
    bytes[24..32].copy_from_slice(&header.base_offset.to_le_bytes());
    bytes[32..40].copy_from_slice(&header.append_us_max_before.to_le_bytes());
    bytes[40..44].copy_from_slice(&(message.len() as u32).to_le_bytes());
    bytes[FIXED_BYTES..FIXED_BYTES + message.len()].copy_from_slice(&message);
    let crc = crc32fast::hash(&bytes[12..]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Makes a durable segment without frames.
pub(super) fn create(dir: &Path, sequence: u64, header: &[u8]) -> io::Result<SegmentFile> {
    let path = path_of(dir, sequence);
    let unfinished = path.with_extension("new");
    let made = (|| {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished)?;
        file.write_all_at(header, 0)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, &path)?;
        sync_dir(dir)?;
        Ok(SegmentFile::new(file))
    })();
    if made.is_err() {
        // Whichever of the two names it has by now; a leftover would be taken for a segment or cleared at the next open.
        let _ = std::fs::remove_file(&unfinished);
        let _ = std::fs::remove_file(&path);
    }
    made
}

/// The header of an existing segment, the position of its first frame, and the schema it was written with.
pub(super) fn read_header(path: &Path, file: &File) -> SeamResult<(SegmentHeader, u64, Schema)> {
    let damaged = |what: &str| SeamError::NotDone(format!("log segment {} is damaged: {what}", path.display()));
    let io = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => damaged("its header is cut off"),
        _ => SeamError::io(format!("cannot read log segment {}", path.display()), &e),
    };
    let mut fixed = [0; FIXED_BYTES];
    file.read_exact_at(&mut fixed, 0).map_err(io)?;
    if fixed[..8] != MAGIC {
        return Err(damaged("it is not a log segment of this version"));
    }
    let whole = u32_at(&fixed, 12).unwrap_or(0) as usize;
    if !(FIXED_BYTES..=HEADER_BYTES_MAX).contains(&whole) {
        return Err(damaged("its header has an impossible length"));
    }
    let mut bytes = vec![0; whole];
    file.read_exact_at(&mut bytes, 0).map_err(io)?;
    if u32_at(&bytes, 8) != Some(crc32fast::hash(&bytes[12..])) {
        return Err(damaged("the checksum of its header does not match"));
    }
    let parsed = (|| {
        let header = SegmentHeader {
            sequence: u64_at(&bytes, 16)?,
            base_offset: u64_at(&bytes, 24)?,
            append_us_max_before: u64_at(&bytes, 32)? as i64,
        };
        let message = bytes.get(FIXED_BYTES..FIXED_BYTES + u32_at(&bytes, 40)? as usize)?;
        Some((header, whole as u64, try_schema_from_flatbuffer_bytes(message).ok()?))
    })();
    parsed.ok_or_else(|| damaged("its schema cannot be read"))
}

/// A segment open for writing.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub file: Arc<File>,
    /// How many more bytes the "disk" takes.
    #[cfg(test)]
    pub budget: Option<u64>,
    /// What has been written cannot be taken back.
    #[cfg(test)]
    pub undo_fails: bool,
}

impl SegmentFile {
    pub fn new(file: File) -> SegmentFile {
        SegmentFile {
            file: Arc::new(file),
            #[cfg(test)]
            budget: None,
            #[cfg(test)]
            undo_fails: false,
        }
    }

    #[cfg(not(test))]
    pub fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, position)
    }

    #[cfg(test)]
    pub fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        let fits = self.budget.unwrap_or(u64::MAX).min(bytes.len() as u64) as usize;
        self.file.write_all_at(&bytes[..fits], position)?;
        if let Some(budget) = &mut self.budget {
            *budget -= fits as u64;
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Cuts off a write that failed. `Err`: what is on disk is unknown.
    pub fn undo_to(&self, position: u64) -> io::Result<()> {
        #[cfg(test)]
        if self.undo_fails {
            return Err(io::Error::other("a disk that does not answer"));
        }
        self.file.set_len(position)?;
        self.file.sync_all()
    }
}
