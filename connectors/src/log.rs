//! The embedded log: a durable source of one partition (0) in a directory of append-only files, for who has no Kafka.
//!
//! ```text
//! DIR/0000000001.log    segment header (with the schema) · group · group · …
//!     0000000002.log    …                                            a group: one frame per batch, all or nothing
//! ```
//!
//! `log/segment.rs` has the bytes of a segment's header, `log/frame.rs` those of a frame, `log/admission.rs` those of
//! the admission decision that is stored with its records.
//!
//! **Offsets.** A row takes up one offset and so does a control record (a batch without rows), so that a position can
//! stand behind it: the offset after a batch is `base_offset + max(rows, 1)`
//! (`SourceBatch::end_offset`).
//!
//! **Atomic groups.** The first and last frame of an append are marked. Opening reads the newest segment and cuts off
//! whatever follows its last whole group. A group records whether all before it was synced when it was written; if
//! such a group stands intact behind damage, the damage is no torn tail and the log is not opened but reported.
//!
//! **Cost.** An append is one write of its bytes and, under `Fsync::Always`, one fdatasync. A poll reads from a sparse
//! index (or the place where an earlier poll ended) in large pieces and hands out Arrow arrays that point into them.
//!
//! File I/O is plain blocking `std::fs` inside the async functions: a read comes from the page cache, a write goes to
//! it, and the fsync is the point of an append. The runtime has several threads; appends to one log are serialised by
//! the caller.

mod admission;
mod frame;
mod read;
mod segment;
#[cfg(test)]
mod tests;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use frame::{FIRST, LAST, PREDECESSORS_SYNCED};
use parking_lot::{Mutex, RwLock};
use read::{FrameReader, Next, ScanError, SparseIndex};
use segment::{SegmentFile, SegmentHeader};
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tidemark_engine::seam::{Positions, SeamError, SeamResult, Source, SourceBatch};

/// When an append is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before it returns.
    Always,
    /// At the first append whose append time is this much after the last sync; there is no thread behind it, so what
    /// was appended last waits for the next append or `sync()`. A crash of the machine loses at most that; a crash of
    /// the process loses nothing.
    EveryMs(u64),
    /// When the operating system likes, at `sync()`, and when a segment is full.
    Never,
}

#[derive(Debug, Clone)]
pub struct LogSettings {
    pub fsync: Fsync,
    /// A segment that has reached this size is closed and a new one begun; retention removes whole segments.
    pub segment_bytes: u64,
    /// The most the log may take on disk; an append beyond it is `SeamError::Full`. `None`: what the disk has.
    pub max_bytes: Option<u64>,
}

impl Default for LogSettings {
    fn default() -> Self {
        LogSettings { fsync: Fsync::Always, segment_bytes: 64 << 20, max_bytes: None }
    }
}

#[derive(Debug)]
pub struct EmbeddedLog {
    dir: PathBuf,
    /// That of records that come; earlier segments may lack its last columns.
    schema: RwLock<SchemaRef>,
    settings: LogSettings,
    /// Taken first where both are taken, and held over the fsync, which readers do not wait for.
    writer: Mutex<Writer>,
    /// What can be read: whole groups only, as durable as the setting says.
    readable: RwLock<Readable>,
    /// Where the last polls ended, so that the next ones need not seek: (offset, segment, position).
    resume: Mutex<VecDeque<(u64, u64, u64)>>,
    /// Bytes appended since it was opened.
    appended: AtomicU64,
}

/// As many readers of one log as are remembered; the others seek by the index.
const RESUME_MAX: usize = 16;

#[derive(Debug)]
struct Writer {
    segment: SegmentFile,
    sequence: u64,
    /// How many columns the segment's records have.
    columns: usize,
    /// Where the next frame goes, in the file and in the log.
    position: u64,
    end_offset: u64,
    append_us_max: i64,
    all_synced: bool,
    last_sync_us: i64,
    broken: Option<Broken>,
    buffer: Vec<u8>,
}

/// Nothing can be appended.
#[derive(Debug)]
struct Broken {
    why: String,
    /// All before the group that failed is on disk: when that is cut off, all is well again. Else nobody knows what is on disk.
    can_mend: bool,
}

#[derive(Debug)]
struct Readable {
    /// Ascending; never empty; the last is the one being written.
    segments: VecDeque<Segment>,
    end_offset: u64,
}

impl Readable {
    /// How many segments from the oldest on may go: their records are before `positions` and past retention. Never the
    /// one being written; without `keep_from_us` nothing is past retention.
    fn expired(&self, positions: &Positions, keep_from_us: Option<i64>) -> usize {
        let Some(keep_from_us) = keep_from_us else { return 0 };
        let goes = |next: &&Segment| {
            next.header.base_offset <= positions.get(0) && next.header.append_us_max_before < keep_from_us
        };
        self.segments.iter().skip(1).take_while(goes).count()
    }
}

#[derive(Debug)]
struct Segment {
    header: SegmentHeader,
    /// How many columns its records have.
    columns: usize,
    /// The first frame.
    start: u64,
    end: u64,
    /// `None`: written by an earlier process and not read yet.
    index: Option<SparseIndex>,
    /// Open while it is written; others are opened to be read.
    file: Option<Arc<File>>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, making it if it is not there. An existing one must have been written with the same
    /// column names, types and nullability, but that the last columns may have come since, and that what could not be NULL may be
    /// (see [`Source::widen`]). What a crash left half written is cut off.
    pub fn open(dir: &Path, schema: SchemaRef, settings: LogSettings) -> SeamResult<Self> {
        if let Some(field) = schema.fields().iter().find(|f| has_dictionary(f.data_type())) {
            return Err(SeamError::NotDone(format!(
                "column \"{}\" is dictionary-encoded, which the log does not store",
                field.name()
            )));
        }
        let io = |e: std::io::Error| SeamError::io(format!("cannot open log {}", dir.display()), &e);
        std::fs::create_dir_all(dir).map_err(io)?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            segment::sync_dir(parent).map_err(io)?;
        }
        let sequences = segment::list(dir).map_err(io)?;
        let mut segments = VecDeque::with_capacity(sequences.len());
        for (i, sequence) in sequences.iter().enumerate() {
            let path = segment::path_of(dir, *sequence);
            let file = File::open(&path).map_err(io)?;
            let (header, start, written) = segment::read_header(&path, &file)?;
            check_schema(dir, &written, &schema)?;
            if header.sequence != *sequence || sequences[0] + i as u64 != *sequence {
                return Err(SeamError::NotDone(format!(
                    "log {} is damaged: the segment before {} is missing or files were renamed",
                    dir.display(),
                    path.display()
                )));
            }
            let end = file.metadata().map_err(io)?.len();
            let columns = written.fields().len();
            segments.push_back(Segment { header, columns, start, end, index: None, file: None });
        }
        if segments.is_empty() {
            let header = SegmentHeader { sequence: 1, base_offset: 0, append_us_max_before: i64::MIN };
            let bytes = segment::header_bytes(&header, &schema)?;
            segment::create(dir, 1, &bytes).map_err(io)?;
            let start = bytes.len() as u64;
            let columns = schema.fields().len();
            segments.push_back(Segment { header, columns, start, end: start, index: None, file: None });
        }
        let writer = open_newest(dir, &mut segments)?;
        Ok(EmbeddedLog {
            dir: dir.to_path_buf(),
            schema: RwLock::new(schema),
            settings,
            readable: RwLock::new(Readable { segments, end_offset: writer.end_offset }),
            writer: Mutex::new(writer),
            resume: Mutex::new(VecDeque::with_capacity(RESUME_MAX)),
            appended: AtomicU64::new(0),
        })
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.read().clone()
    }

    /// What the log takes up on disk.
    pub fn size_bytes(&self) -> u64 {
        self.readable.read().segments.iter().map(|s| s.end).sum()
    }

    /// Removes a log that is not open; one that does not exist is removed already.
    pub fn drop_files(dir: &Path) -> SeamResult<()> {
        let io = |e: std::io::Error| SeamError::io(format!("cannot remove log {}", dir.display()), &e);
        match std::fs::remove_dir_all(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(io),
        }
    }

    fn append_group(&self, batches: &[SourceBatch]) -> SeamResult<u64> {
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        self.mend(writer)?;
        let Some(last) = batches.last() else { return Ok(writer.end_offset) };
        batches.iter().try_for_each(|b| self.check_batch(&b.rows))?;

        // Encode, noting for the index which offset begins where relative to the group.
        let mut offset = writer.end_offset;
        let mut append_us_max = writer.append_us_max;
        let mut frames = Vec::with_capacity(batches.len());
        writer.buffer.clear();
        for (i, batch) in batches.iter().enumerate() {
            let flags = if i == 0 { FIRST } else { 0 }
                | if i + 1 == batches.len() { LAST } else { 0 }
                | if writer.all_synced { PREDECESSORS_SYNCED } else { 0 };
            frames.push((offset, writer.buffer.len() as u64));
            frame::encode(&mut writer.buffer, batch, offset, flags)
                .map_err(|e| SeamError::NotDone(format!("log {}: {e}", self.dir.display())))?;
            offset += (batch.rows.num_rows() as u64).max(1);
            append_us_max = append_us_max.max(batch.append_time_us);
        }

        let group_bytes = writer.buffer.len() as u64;
        self.make_room(writer, group_bytes)?;
        let begin = writer.position;
        if let Err(e) = writer.segment.write_at(&writer.buffer, begin) {
            return Err(self.undo(writer, "write", e));
        }
        let due = match self.settings.fsync {
            Fsync::Always => true,
            Fsync::EveryMs(ms) => last.append_time_us.abs_diff(writer.last_sync_us) >= ms.saturating_mul(1000),
            Fsync::Never => false,
        };
        if due {
            match writer.segment.file.sync_data() {
                Ok(()) => writer.last_sync_us = last.append_time_us,
                // Only this group can be affected, and it can be taken back.
                Err(e) if writer.all_synced => return Err(self.undo(writer, "sync", e)),
                Err(e) => return Err(self.broken_sync(writer, e)),
            }
        }
        writer.all_synced = due;
        writer.position = begin + group_bytes;
        writer.end_offset = offset;
        writer.append_us_max = append_us_max;
        self.appended.fetch_add(group_bytes, Ordering::Relaxed);
        // One huge group must not be paid for in memory ever after.
        writer.buffer.clear();
        writer.buffer.shrink_to(4 << 20);

        let mut readable = self.readable.write();
        readable.end_offset = offset;
        if let Some(segment) = readable.segments.back_mut() {
            segment.end = writer.position;
            let index = segment.index.get_or_insert_default();
            frames.iter().for_each(|(offset, at)| index.note(*offset, begin + at));
        }
        Ok(offset)
    }

    fn check_batch(&self, rows: &RecordBatch) -> SeamResult<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let refused = |what: String| Err(SeamError::NotDone(format!("log {}: {what}", self.dir.display())));
        let schema = self.schema();
        if rows.num_columns() != schema.fields().len() {
            return refused(format!("{} columns given, {} expected", rows.num_columns(), schema.fields().len()));
        }
        for (field, column) in schema.fields().iter().zip(rows.columns()) {
            if field.data_type() != column.data_type() {
                return refused(format!(
                    "column \"{}\" is of type {} and was given {}",
                    field.name(),
                    field.data_type(),
                    column.data_type()
                ));
            }
            if !field.is_nullable() && column.null_count() > 0 {
                return refused(format!("column \"{}\" cannot be NULL", field.name()));
            }
        }
        Ok(())
    }

    /// Sees to it that a group of this size may be written at the writer's position: within the log's limit, and in a
    /// segment that is not full.
    fn make_room(&self, writer: &mut Writer, group_bytes: u64) -> SeamResult<()> {
        let (used, start) = {
            let readable = self.readable.read();
            let start = readable.segments.back().map_or(0, |s| s.start);
            (readable.segments.iter().map(|s| s.end).sum::<u64>(), start)
        };
        let schema = self.schema();
        // A segment has one set of columns.
        let is_narrow = writer.columns < schema.fields().len();
        let is_full = writer.position > start && writer.position + group_bytes > self.settings.segment_bytes;
        let roll = is_narrow || is_full;
        let more = group_bytes + if roll { start } else { 0 };
        if let Some(max) = self.settings.max_bytes.filter(|max| used + more > *max) {
            return Err(SeamError::Full(format!(
                "log {} is full: it takes {used} of at most {max} bytes and {more} more were to be appended; shorten \
                 its retention or raise its limit",
                self.dir.display()
            )));
        }
        if !roll {
            return Ok(());
        }
        if !writer.all_synced {
            if let Err(e) = writer.segment.file.sync_data() {
                return Err(self.broken_sync(writer, e));
            }
            writer.all_synced = true;
        }
        let header = SegmentHeader {
            sequence: writer.sequence + 1,
            base_offset: writer.end_offset,
            append_us_max_before: writer.append_us_max,
        };
        let bytes = segment::header_bytes(&header, &schema)?;
        let file = segment::create(&self.dir, header.sequence, &bytes)
            .map_err(|e| SeamError::io(format!("cannot begin a segment of log {}", self.dir.display()), &e))?;
        let start = bytes.len() as u64;
        let mut readable = self.readable.write();
        if let Some(full) = readable.segments.back_mut() {
            full.file = None;
        }
        let open = Some(file.file.clone());
        let columns = schema.fields().len();
        readable.segments.push_back(Segment { header, columns, start, end: start, index: None, file: open });
        writer.segment = file;
        writer.columns = columns;
        writer.sequence = header.sequence;
        writer.position = start;
        Ok(())
    }

    /// After a failed write or sync of the newest group: cuts it off, so that it certainly did not happen.
    fn undo(&self, writer: &mut Writer, what: &str, error: std::io::Error) -> SeamError {
        let name = self.dir.display();
        match writer.segment.undo_to(writer.position) {
            Ok(()) => SeamError::io(format!("cannot {what} log {name}"), &error),
            Err(undo) => {
                let can_mend = writer.all_synced;
                let until = if can_mend { "what it has begun can be cut off" } else { "it is opened again" };
                let why = format!("log {name} takes no more records until {until}: {error}, then {undo}");
                writer.broken = Some(Broken { why: why.clone(), can_mend });
                SeamError::Unknown(why)
            }
        }
    }

    /// Cuts off what a failed append has left, where that could not be done at once and would do.
    fn mend(&self, writer: &mut Writer) -> SeamResult<()> {
        let Some(broken) = &writer.broken else { return Ok(()) };
        if !broken.can_mend || writer.segment.undo_to(writer.position).is_err() {
            return Err(SeamError::NotDone(broken.why.clone()));
        }
        tracing::warn!(log = %self.dir.display(), "an append that had failed is cut off now; the log goes on");
        writer.broken = None;
        Ok(())
    }

    /// After a failed sync of groups that were already acknowledged: nobody knows what is on disk.
    fn broken_sync(&self, writer: &mut Writer, error: std::io::Error) -> SeamError {
        let name = self.dir.display();
        let why = format!("log {name} takes no more records until it is opened again: cannot sync it: {error}");
        writer.broken = Some(Broken { why: why.clone(), can_mend: false });
        SeamError::Unknown(why)
    }

    fn read_from(&self, from: u64, rows_max: usize) -> SeamResult<Vec<SourceBatch>> {
        let mut batches = vec![];
        let mut rows = 0;
        let mut offset = from;
        while let Some(place) = self.place(offset)? {
            offset = offset.max(place.base_offset);
            let damaged = |position: u64, what: &str| {
                let path = segment::path_of(&self.dir, place.sequence);
                SeamError::NotDone(format!("log segment {} is damaged at byte {position}: {what}", path.display()))
            };
            let io = |e: std::io::Error| SeamError::io(format!("cannot read log {}", self.dir.display()), &e);
            let mut reader = FrameReader::new(&place.file, place.position, place.end);
            let before = offset;
            let schema = self.first_columns(place.columns);
            loop {
                let position = reader.position;
                let header = match reader.peek().map_err(io)? {
                    Next::Frame(header) => header,
                    Next::End => break,
                    Next::Damage => return Err(damaged(position, "no record begins there")),
                };
                if header.end_offset() <= offset {
                    reader.skip(&header);
                    continue;
                }
                let new_rows = (header.end_offset() - header.base_offset.max(offset)) as usize;
                if !batches.is_empty() && rows + new_rows > rows_max {
                    self.remember(offset, place.sequence, position);
                    return Ok(batches);
                }
                let bytes = reader.take(&header).map_err(io)?;
                let bytes = bytes.ok_or_else(|| damaged(position, "the checksum does not match"))?;
                let batch = frame::decode(&header, &bytes, &schema).map_err(|e| damaged(position, &e))?;
                batches.push(without_rows_before(batch, offset));
                rows += new_rows;
                offset = header.end_offset();
            }
            if offset == before {
                return Err(damaged(place.end, "it ends before the next segment begins"));
            }
            self.remember(offset, place.sequence, place.end);
        }
        Ok(batches)
    }

    /// Where to begin reading for the first record at or after `offset`; `None` at the end.
    fn place(&self, offset: u64) -> SeamResult<Option<Place>> {
        let found = {
            let readable = self.readable.read();
            let first = readable.segments.front().map_or(0, |s| s.header.base_offset);
            if offset.max(first) >= readable.end_offset {
                return Ok(None);
            }
            let after = readable.segments.partition_point(|s| s.header.base_offset <= offset.max(first));
            let Some(segment) = after.checked_sub(1).and_then(|i| readable.segments.get(i)) else { return Ok(None) };
            let resumed = self.resume.lock().iter().find(|r| r.0 == offset && r.1 == segment.header.sequence).copied();
            let position = resumed.map(|r| r.2);
            let position = position.or_else(|| segment.index.as_ref().map(|i| i.seek(offset).unwrap_or(segment.start)));
            (segment.header, segment.columns, segment.start, segment.end, segment.file.clone(), position)
        };
        let (header, columns, start, end, file, position) = found;
        let io = |e: std::io::Error| SeamError::io(format!("cannot read log {}", self.dir.display()), &e);
        let file = match file {
            Some(file) => file,
            None => Arc::new(File::open(segment::path_of(&self.dir, header.sequence)).map_err(io)?),
        };
        let position = match position {
            Some(position) => position,
            None => self.index_segment(&header, &file, start, end).map_err(io)?.seek(offset).unwrap_or(start),
        };
        Ok(Some(Place { sequence: header.sequence, base_offset: header.base_offset, columns, file, position, end }))
    }

    /// The schema of records from before the further columns came.
    fn first_columns(&self, columns: usize) -> SchemaRef {
        let schema = self.schema();
        match columns < schema.fields().len() {
            true => Arc::new(Schema::new(schema.fields().iter().take(columns).cloned().collect::<Vec<_>>())),
            false => schema,
        }
    }

    /// Makes the index of a segment that an earlier process wrote, by its frames' headers.
    fn index_segment(&self, header: &SegmentHeader, file: &File, start: u64, end: u64) -> std::io::Result<SparseIndex> {
        let mut index = SparseIndex::default();
        let mut reader = FrameReader::new(file, start, end);
        while let Next::Frame(header) = reader.peek()? {
            index.note(header.base_offset, reader.position);
            reader.skip(&header);
        }
        let mut readable = self.readable.write();
        if let Some(segment) = readable.segments.iter_mut().find(|s| s.header.sequence == header.sequence) {
            segment.index = Some(index.clone());
        }
        Ok(index)
    }

    fn remember(&self, offset: u64, sequence: u64, position: u64) {
        let mut resume = self.resume.lock();
        if resume.iter().any(|r| r.0 == offset && r.1 == sequence) {
            return;
        }
        if resume.len() == RESUME_MAX {
            resume.pop_front();
        }
        resume.push_back((offset, sequence, position));
    }
}

struct Place {
    sequence: u64,
    base_offset: u64,
    columns: usize,
    file: Arc<File>,
    position: u64,
    end: u64,
}

#[async_trait]
impl Source for EmbeddedLog {
    async fn append(&self, batches: Vec<SourceBatch>) -> SeamResult<Positions> {
        Ok(position(self.append_group(&batches)?))
    }

    async fn poll(&self, from: &Positions, rows_max: usize) -> SeamResult<Vec<SourceBatch>> {
        self.read_from(from.get(0), rows_max)
    }

    async fn range(&self) -> SeamResult<(Positions, Positions)> {
        let readable = self.readable.read();
        let first = readable.segments.front().map_or(0, |s| s.header.base_offset);
        Ok((position(first), position(readable.end_offset)))
    }

    async fn kept_from(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<Positions> {
        let readable = self.readable.read();
        let first = readable.segments.get(readable.expired(positions, keep_from_us));
        Ok(position(first.map_or(0, |segment| segment.header.base_offset)))
    }

    async fn commit(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<()> {
        let io = |e: std::io::Error| SeamError::io(format!("cannot shorten log {}", self.dir.display()), &e);
        let mut readable = self.readable.write();
        let expired = readable.expired(positions, keep_from_us);
        for _ in 0..expired {
            // Oldest first: whatever is left after a crash is a log without a gap.
            std::fs::remove_file(segment::path_of(&self.dir, readable.segments[0].header.sequence)).map_err(io)?;
            readable.segments.pop_front();
        }
        if expired > 0 { segment::sync_dir(&self.dir).map_err(io) } else { Ok(()) }
    }

    async fn sync(&self) -> SeamResult<()> {
        let mut writer = self.writer.lock();
        self.mend(&mut writer)?;
        if !writer.all_synced {
            if let Err(e) = writer.segment.file.sync_data() {
                return Err(self.broken_sync(&mut writer, e));
            }
            writer.all_synced = true;
        }
        Ok(())
    }

    async fn widen(&self, schema: SchemaRef) -> SeamResult<()> {
        // Nobody appends meanwhile; the next append begins a segment for it.
        let _writer = self.writer.lock();
        let mut known = self.schema.write();
        check_schema(&self.dir, &known, &schema)?;
        *known = schema;
        Ok(())
    }

    fn appended_bytes(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        let writer = self.writer.get_mut();
        if !writer.all_synced
            && writer.broken.is_none()
            && let Err(error) = writer.segment.file.sync_data()
        {
            tracing::warn!(log = %self.dir.display(), %error, "cannot sync the log while closing it");
        }
    }
}

fn position(offset: u64) -> Positions {
    let mut positions = Positions::default();
    positions.set(0, offset);
    positions
}

/// Opens the newest segment for writing, cutting off what a crash left unfinished.
fn open_newest(dir: &Path, segments: &mut VecDeque<Segment>) -> SeamResult<Writer> {
    let io = |e: std::io::Error| SeamError::io(format!("cannot open log {}", dir.display()), &e);
    let Some(newest) = segments.back_mut() else {
        return Err(SeamError::NotDone(format!("log {} has no segment", dir.display())));
    };
    let path = segment::path_of(dir, newest.header.sequence);
    let file = File::options().read(true).write(true).open(&path).map_err(io)?;
    let scan = read::scan(&file, newest.start, newest.header.base_offset).map_err(|e| match e {
        ScanError::Io(e) => io(e),
        ScanError::Damaged(position) => SeamError::NotDone(format!(
            "log segment {} is damaged at byte {position} and intact behind it, which no crash does; restore the file, \
             or cut it at that byte to give up what follows",
            path.display()
        )),
    })?;
    let torn = newest.end - scan.end;
    if torn > 0 {
        tracing::warn!(
            log = %dir.display(),
            bytes = torn,
            offset = scan.end_offset,
            "cut {torn} bytes off the end of the log: an append that had not finished"
        );
        file.set_len(scan.end).map_err(io)?;
    }
    // What was read here may be in the page cache only.
    file.sync_all().map_err(io)?;
    let segment = SegmentFile::new(file);
    newest.end = scan.end;
    newest.index = Some(scan.index);
    newest.file = Some(segment.file.clone());
    Ok(Writer {
        segment,
        sequence: newest.header.sequence,
        columns: newest.columns,
        position: scan.end,
        end_offset: scan.end_offset,
        append_us_max: newest.header.append_us_max_before.max(scan.append_us_max),
        all_synced: true,
        last_sync_us: i64::MIN,
        broken: None,
        buffer: vec![],
    })
}

fn has_dictionary(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(..) => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            has_dictionary(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|f| has_dictionary(f.data_type())),
        _ => false,
    }
}

/// The columns that were written come first, and may be NULL where they could not be.
fn check_schema(dir: &Path, written: &Schema, asked: &Schema) -> SeamResult<()> {
    let describe =
        |f: &Field| format!("\"{}\" {}{}", f.name(), f.data_type(), if f.is_nullable() { "" } else { " NOT NULL" });
    let (written, asked) = (written.fields(), asked.fields());
    let same = |a: &Field, b: &Field| {
        let is_kept = a.name() == b.name() && (b.is_nullable() || !a.is_nullable());
        is_kept && a.data_type().equals_datatype(b.data_type())
    };
    match written.iter().zip(asked).find(|(a, b)| !same(a, b)) {
        Some((a, b)) => Err(SeamError::NotDone(format!(
            "log {} was written with the column {} and is opened with {}",
            dir.display(),
            describe(a),
            describe(b)
        ))),
        None if written.len() > asked.len() => Err(SeamError::NotDone(format!(
            "log {} was written with {} columns and is opened with {}",
            dir.display(),
            written.len(),
            asked.len()
        ))),
        None => Ok(()),
    }
}

/// The rows of `batch` from `offset` on, with what admission said about them.
fn without_rows_before(mut batch: SourceBatch, offset: u64) -> SourceBatch {
    let skip = offset.saturating_sub(batch.base_offset) as usize;
    if skip == 0 || skip >= batch.rows.num_rows() {
        return batch;
    }
    batch.rows = batch.rows.slice(skip, batch.rows.num_rows() - skip);
    batch.base_offset = offset;
    if let Some(admitted) = &mut batch.admission {
        let skip = skip as u32;
        admitted.rejected.retain_mut(|r| r.row.checked_sub(skip).map(|row| r.row = row).is_some());
        admitted.deletes.retain_mut(|d| d.checked_sub(skip).map(|row| *d = row).is_some());
        admitted.effective_us.drain(..admitted.effective_us.len().min(skip as usize));
        if let Some(origin) = &mut admitted.origin {
            origin.skip_rows(skip);
        }
    }
    batch
}
