//! What only shows inside: torn tails, damage, and a disk that is full in the middle of a write.

use super::*;
use arrow::array::Int64Array;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]))
}

fn batch(ids: std::ops::Range<i64>) -> SourceBatch {
    let rows = RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(ids))]).expect("a batch");
    SourceBatch { partition: 0, base_offset: 0, append_time_us: 5, rows, admission: None }
}

fn open(dir: &Path, fsync: Fsync) -> SeamResult<EmbeddedLog> {
    EmbeddedLog::open(dir, schema(), LogSettings { fsync, ..LogSettings::default() })
}

/// Groups of several frames, of one, and of a control record alone; returns where each ends: (position, offset).
fn write_groups(log: &EmbeddedLog) -> Vec<(u64, u64)> {
    let groups = [
        vec![batch(0..3), batch(3..5)],
        vec![batch(0..0)],
        vec![batch(6..7)],
        vec![batch(7..9), batch(0..0), batch(10..12)],
    ];
    let mut ends = vec![(log.size_bytes(), 0)];
    for group in groups {
        let offset = log.append_group(&group).expect("an append");
        ends.push((log.size_bytes(), offset));
    }
    ends
}

fn end_of(log: &EmbeddedLog) -> u64 {
    let batches = log.read_from(0, usize::MAX).expect("every record");
    let read = batches.last().map_or(0, SourceBatch::end_offset);
    assert_eq!(log.readable.read().end_offset, read);
    read
}

#[test]
fn a_log_cut_at_any_byte_opens_with_exactly_the_whole_groups_before_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let ends = write_groups(&open(dir.path(), Fsync::Always).expect("a log"));
    let path = segment::path_of(dir.path(), 1);
    let whole = std::fs::read(&path).expect("the segment");
    assert_eq!(whole.len() as u64, ends.last().expect("an end").0);
    for cut in ends[0].0..=whole.len() as u64 {
        std::fs::write(&path, &whole[..cut as usize]).expect("a shorter segment");
        let (position, offset) = *ends.iter().rfind(|(end, _)| *end <= cut).expect("a whole group");
        let log = open(dir.path(), Fsync::Always).expect("a log");
        assert_eq!(end_of(&log), offset, "cut at {cut}");
        assert_eq!(log.size_bytes(), position, "cut at {cut}");
        // It goes on from there, and nothing of what was cut comes back. (Slower: not at every byte.)
        if cut % 5 != 0 {
            continue;
        }
        assert_eq!(log.append_group(&[batch(0..1)]).expect("an append"), offset + 1);
        drop(log);
        assert_eq!(end_of(&open(dir.path(), Fsync::Always).expect("a log")), offset + 1, "cut at {cut}");
    }
}

#[test]
fn a_tail_of_zeros_or_of_old_bytes_is_cut_off() {
    for tail in [vec![0; 5000], vec![0xab; 777], b"TMF1".repeat(100)] {
        let dir = tempfile::tempdir().expect("a directory");
        let (position, offset) =
            *write_groups(&open(dir.path(), Fsync::Always).expect("a log")).last().expect("an end");
        let file = OpenOptions::new().write(true).open(segment::path_of(dir.path(), 1)).expect("the segment");
        file.write_all_at(&tail, position).expect("a tail");
        let log = open(dir.path(), Fsync::Always).expect("a log");
        assert_eq!((end_of(&log), log.size_bytes()), (offset, position));
    }
}

/// The third of four groups is damaged, at each of its bytes.
fn damage_the_third_group(fsync: Fsync, check: impl Fn(SeamResult<EmbeddedLog>, u64)) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path(), fsync).expect("a log");
    let ends = write_groups(&log);
    drop(log);
    let path = segment::path_of(dir.path(), 1);
    let whole = std::fs::read(&path).expect("the segment");
    for at in ends[2].0..ends[3].0 {
        let mut damaged = whole.clone();
        damaged[at as usize] ^= 0x10;
        std::fs::write(&path, &damaged).expect("a damaged segment");
        check(open(dir.path(), fsync), ends[2].1);
    }
}

#[test]
fn damage_before_synced_groups_is_reported_and_not_taken_for_a_torn_tail() {
    damage_the_third_group(Fsync::Always, |opened, _| {
        let error = opened.expect_err("a damaged log").to_string();
        assert!(error.contains("damaged at byte") && error.contains("0000000001.log"), "{error}");
    });
}

#[test]
fn without_fsync_the_groups_after_a_hole_are_lost_with_it() {
    damage_the_third_group(Fsync::Never, |opened, before| assert_eq!(end_of(&opened.expect("a log")), before));
}

#[test]
fn damage_in_an_older_segment_is_an_error_of_the_poll() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = LogSettings { segment_bytes: 1, ..LogSettings::default() };
    let log = EmbeddedLog::open(dir.path(), schema(), settings).expect("a log");
    write_groups(&log);
    let path = segment::path_of(dir.path(), 3);
    let file = OpenOptions::new().write(true).open(&path).expect("the third segment");
    let length = file.metadata().expect("a length").len();
    file.write_all_at(&[0xff], length - 1).expect("a damaged byte");
    let error = log.read_from(0, usize::MAX).expect_err("a damaged record").to_string();
    assert!(error.contains("0000000003.log") && error.contains("checksum"), "{error}");
    file.set_len(length - 8).expect("a shorter segment");
    log.read_from(0, usize::MAX).expect_err("a record cut off");
}

#[test]
fn a_segment_that_is_missing_or_has_a_damaged_header_is_reported() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = LogSettings { segment_bytes: 1, ..LogSettings::default() };
    write_groups(&EmbeddedLog::open(dir.path(), schema(), settings).expect("a log"));
    let path = segment::path_of(dir.path(), 2);
    let whole = std::fs::read(&path).expect("the second segment");
    for at in 0..48 {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).expect("a damaged header");
        open(dir.path(), Fsync::Always).expect_err("a damaged header");
    }
    std::fs::write(&path, &whole[..30]).expect("half a header");
    open(dir.path(), Fsync::Always).expect_err("half a header");
    std::fs::remove_file(&path).expect("no segment");
    let error = open(dir.path(), Fsync::Always).expect_err("a missing segment").to_string();
    assert!(error.contains("missing"), "{error}");
}

#[test]
fn a_segment_that_was_never_finished_is_cleared_away() {
    let dir = tempfile::tempdir().expect("a directory");
    write_groups(&open(dir.path(), Fsync::Always).expect("a log"));
    let unfinished = dir.path().join("0000000002.new");
    std::fs::write(&unfinished, b"half a head").expect("an unfinished segment");
    assert_eq!(end_of(&open(dir.path(), Fsync::Always).expect("a log")), 12);
    assert!(!unfinished.exists());
}

#[test]
fn a_disk_that_fills_up_within_a_write_leaves_nothing_of_the_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path(), Fsync::Always).expect("a log");
    write_groups(&log);
    let (before, offset) = (log.size_bytes(), end_of(&log));
    let path = segment::path_of(dir.path(), 1);
    let group = [batch(12..14), batch(14..90)];
    for budget in [0, 1, 47, 48, 200, 900] {
        log.writer.lock().segment.budget = Some(budget);
        let error = log.append_group(&group).expect_err("a full disk");
        assert!(matches!(error, SeamError::Full(_)), "{error:?}");
        assert_eq!(std::fs::metadata(&path).expect("the segment").len(), before);
        assert_eq!(end_of(&log), offset);
    }
    log.writer.lock().segment.budget = None;
    assert_eq!(log.append_group(&group).expect("room again"), offset + 78);
    drop(log);
    assert_eq!(end_of(&open(dir.path(), Fsync::Always).expect("a log")), offset + 78);
}

/// A log of which the disk takes 200 bytes of a group, and does not let them be taken back; and that group.
fn stuck(dir: &Path, fsync: Fsync) -> (EmbeddedLog, [SourceBatch; 2], u64) {
    let log = open(dir, fsync).expect("a log");
    write_groups(&log);
    let (group, offset) = ([batch(12..14), batch(14..90)], end_of(&log));
    let disk = |budget, undo_fails| {
        let mut writer = log.writer.lock();
        writer.segment.budget = budget;
        writer.segment.undo_fails = undo_fails;
    };
    disk(Some(200), true);
    let error = log.append_group(&group).expect_err("a disk that fails");
    assert!(matches!(error, SeamError::Unknown(_)), "{error:?}");
    disk(None, true);
    for _ in 0..2 {
        let error = log.append_group(&group).expect_err("it is not known what is there");
        assert!(matches!(error, SeamError::NotDone(_)), "{error:?}");
        futures::executor::block_on(log.sync()).expect_err("nor that all is");
        assert_eq!(end_of(&log), offset);
    }
    disk(None, false);
    (log, group, offset)
}

#[test]
fn an_append_that_could_not_be_taken_back_is_cut_off_before_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, group, offset) = stuck(dir.path(), Fsync::Always);
    // Shorter than what is left of the first.
    assert_eq!(log.append_group(&[batch(0..1)]).expect("an append"), offset + 1);
    assert_eq!(log.append_group(&group).expect("an append"), offset + 79);
    assert_eq!(end_of(&log), offset + 79);
    drop(log);
    assert_eq!(end_of(&open(dir.path(), Fsync::Always).expect("a log")), offset + 79);
}

#[test]
fn where_more_than_the_append_may_be_lost_the_log_is_to_be_opened_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (log, group, offset) = stuck(dir.path(), Fsync::Never);
    log.append_group(&group).expect_err("nobody knows what is there");
    drop(log);
    assert_eq!(end_of(&open(dir.path(), Fsync::Never).expect("a log")), offset);
}

#[test]
fn every_ms_syncs_when_the_append_times_say_so_and_sync_does_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path(), Fsync::EveryMs(10)).expect("a log");
    let append = |append_time_us| {
        log.append_group(&[SourceBatch { append_time_us, ..batch(0..1) }]).expect("an append");
        log.writer.lock().all_synced
    };
    let synced = [1_000_000, 1_000_001, 1_009_999, 1_010_000, 1_010_001].map(append);
    assert_eq!(synced, [true, false, false, true, false]);
    futures::executor::block_on(log.sync()).expect("a sync");
    assert!(log.writer.lock().all_synced);
    // A clock that was set back does not put the next sync off for long.
    assert!(append(500_000));
}

#[test]
fn a_log_without_use_for_its_memory_gives_it_back_and_reads_seek_by_the_index() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path(), Fsync::Never).expect("a log");
    log.append_group(&[batch(0..1_000_000)]).expect("a large append");
    assert!(log.writer.lock().buffer.capacity() <= 5 << 20);
    for i in 0..2000 {
        log.append_group(&[batch(i..i + 1)]).expect("an append");
    }
    for reopened in [false, true] {
        let log = if reopened { &open(dir.path(), Fsync::Never).expect("a log") } else { &log };
        for offset in [0, 1, 999_999, 1_000_000, 1_001_234, 1_001_999] {
            let place = log.place(offset).expect("a place").expect("a record");
            let mut reader = FrameReader::new(&place.file, place.position, place.end);
            let Next::Frame(header) = reader.peek().expect("a frame") else {
                panic!("no frame where the index points")
            };
            assert!(header.base_offset <= offset && offset - header.base_offset < 1_000_000.min(offset + 1));
            let got = log.read_from(offset, 1).expect("a poll").remove(0);
            assert_eq!(got.base_offset, offset);
        }
    }
}
