//! What a table's files are like, and which of them a rewrite writes together: the same rule for both, so that what is
//! counted is what is done.

use super::{IcebergHistory, disk, fold, manifest::StepFile, vacuum};
use iceberg::{
    Error,
    spec::{ManifestContentType, TableMetadata},
};
use std::collections::BTreeMap;
use tidemark_engine::seam::{Effort, HistoryTable, SeamResult, Survey};

pub async fn survey(
    store: &IcebergHistory,
    history: &HistoryTable,
    effort: &Effort,
    old_us: i64,
) -> SeamResult<Survey> {
    let failed = |error: Error| disk::failed(&format!("reading history table \"{}\"", history.name), &error);
    let table = store.load_own(history).await?;
    let metadata = table.metadata();
    let old = vacuum::old_snapshots(history, metadata, old_us)?;
    let mut survey = Survey {
        snapshots: metadata.snapshots().count() as u64,
        old_snapshots: old.len() as u64,
        oldest_us: old.iter().map(|old| old.succeeded_us).min(),
        ..Survey::default()
    };
    let Some(snapshot) = metadata.current_snapshot() else { return Ok(survey) };
    let list = table.manifest_list_reader(snapshot).load().await.map_err(failed)?;
    survey.manifests = list.entries().len() as u64;
    survey.small_manifests = list.entries().iter().filter(|manifest| fold::is_small(metadata, manifest)).count() as u64;
    let mut partitions: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    // Who has deleted rows beside their files is to write them into the files: until then nothing is rewritten here.
    let is_clean = list.entries().iter().all(|manifest| manifest.content == ManifestContentType::Data);
    for file in store.manifests.files(&store.place, &table, history).await? {
        survey.files += 1;
        survey.bytes += file.bytes;
        if let Some(partition) = partition(&file, metadata).filter(|_| is_small(effort, file.bytes)) {
            partitions.entry(partition).or_default().push(file.bytes);
        }
    }
    for mut sizes in partitions.into_values().filter(|_| is_clean) {
        sizes.sort_unstable();
        survey.small_files += together(effort, &sizes) as u64;
    }
    Ok(survey)
}

/// The month or day of a file that may be written together with others of it; `None` for one of another partition spec, foreign
/// or older, which is read and otherwise left alone.
pub fn partition(file: &StepFile, metadata: &TableMetadata) -> Option<i32> {
    file.partition.filter(|_| file.spec == metadata.default_partition_spec_id())
}

/// Whether a file of so many bytes is written together with others at all.
pub fn is_small(effort: &Effort, bytes: u64) -> bool {
    bytes < effort.target_bytes / 2
}

/// How many of a partition's small files, the smallest first, are written together; `sizes` is in that order.
pub fn together(effort: &Effort, sizes: &[u64]) -> usize {
    let mut count = sizes.len();
    if effort.doubling {
        count = 0;
        let mut before: u64 = 0;
        for (place, bytes) in sizes.iter().enumerate() {
            if *bytes <= before {
                count = place + 1;
            }
            before = before.saturating_add(*bytes);
        }
    }
    if count < effort.files_min.max(2) { 0 } else { count }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAREFUL: Effort = Effort { target_bytes: 128 << 20, files_min: 4, doubling: true, bytes_max: u64::MAX };

    #[test]
    fn a_large_file_waits_until_the_small_ones_are_as_large_together() {
        assert_eq!(together(&CAREFUL, &[10, 10, 10]), 0, "too few");
        assert_eq!(together(&CAREFUL, &[10, 10, 10, 10]), 4);
        assert_eq!(together(&CAREFUL, &[10, 10, 10, 10, 41]), 4);
        assert_eq!(together(&CAREFUL, &[10, 10, 10, 10, 40]), 5);
        assert_eq!(together(&CAREFUL, &[10, 10, 10, 10, 40, 80, 161]), 6);
        assert_eq!(together(&Effort::WHOLE, &[10, 1000]), 2);
        assert_eq!(together(&Effort::WHOLE, &[10]), 0);
    }

    proptest! {
        /// The law behind `doubling`, with files that are appended and written together as the server does it.
        #[test]
        fn files_stay_few_and_no_byte_is_written_again_more_often_than_its_file_can_double(
            appended in prop::collection::vec(1u64..50, 1..600),
        ) {
            // Each file: its bytes, and how often the byte that was written most often was.
            let mut files: Vec<(u64, u32)> = vec![];
            for bytes in &appended {
                files.push((*bytes, 0));
                files.sort_unstable();
                let sizes: Vec<u64> = files.iter().map(|(bytes, _)| *bytes).collect();
                let count = together(&CAREFUL, &sizes);
                if count > 0 {
                    let merged: Vec<_> = files.drain(..count).collect();
                    let times = merged.iter().map(|(_, times)| times).max().copied().unwrap_or(0) + 1;
                    files.push((merged.iter().map(|(bytes, _)| bytes).sum(), times));
                }
            }
            let all: u64 = appended.iter().sum();
            let doublings = u64::BITS - all.leading_zeros();
            prop_assert!(files.iter().all(|(_, times)| *times <= doublings), "{files:?}");
            prop_assert!(files.len() <= doublings as usize + CAREFUL.files_min, "{files:?}");
        }
    }
}
