//! Who still reads which data files: what a scan of this process has planned to read is not removed, however long it
//! takes.
//!
//! A lease lives in the table's provider and in every plan made of it, down to what opens the files; when the last of them
//! is dropped, so is the lease. Another process, or another engine, has no lease: for them the age that `expire` is told
//! has to do.

use super::manifest::StepFile;
use datafusion::{
    datasource::{
        listing::PartitionedFile,
        physical_plan::{ParquetFileReaderFactory, parquet::CachedParquetFileReaderFactory},
    },
    error::Result,
    physical_plan::metrics::ExecutionPlanMetricsSet,
};
use parking_lot::Mutex;
use parquet::arrow::async_reader::AsyncFileReader;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

/// The files that a scan may read.
#[derive(Debug, Default)]
pub struct Lease {
    files: Vec<Arc<StepFile>>,
}

impl Lease {
    /// Of files that nothing removes meanwhile.
    pub fn of_own(files: Vec<Arc<StepFile>>) -> Arc<Lease> {
        Arc::new(Lease { files })
    }

    pub fn files(&self) -> &[Arc<StepFile>] {
        &self.files
    }
}

/// Leases by table location.
#[derive(Default)]
pub struct Readers {
    leases: Mutex<HashMap<String, Vec<Weak<Lease>>>>,
}

impl Readers {
    pub fn lease(&self, table_location: &str, files: Vec<Arc<StepFile>>) -> Arc<Lease> {
        let lease = Arc::new(Lease { files });
        let mut leases = self.leases.lock();
        let of_table = leases.entry(table_location.to_string()).or_default();
        of_table.retain(|lease| lease.strong_count() > 0);
        of_table.push(Arc::downgrade(&lease));
        lease
    }

    /// The names of the table's files that somebody may still read.
    pub fn leased(&self, table_location: &str) -> HashSet<String> {
        let leases = self.leases.lock();
        let alive = leases.get(table_location).into_iter().flatten().filter_map(Weak::upgrade);
        let names = |lease: Arc<Lease>| -> Vec<String> {
            lease.files.iter().filter_map(|file| file.path.filename().map(String::from)).collect()
        };
        alive.flat_map(names).collect()
    }

    pub fn forget(&self, table_location: &str) {
        self.leases.lock().remove(table_location);
    }
}

/// Opens data files, and holds the lease on them. What is at the end of a file is read once: files never change.
#[derive(Debug)]
pub struct LeasedFiles {
    files: CachedParquetFileReaderFactory,
    _lease: Arc<Lease>,
}

impl LeasedFiles {
    pub fn new(files: CachedParquetFileReaderFactory, lease: Arc<Lease>) -> LeasedFiles {
        LeasedFiles { files, _lease: lease }
    }
}

impl ParquetFileReaderFactory for LeasedFiles {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        self.files.create_reader(partition_index, file, metadata_size_hint, metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::common::Statistics;
    use object_store::path::Path;

    fn file(name: &str) -> Arc<StepFile> {
        let bounds = Arc::new(Statistics::new_unknown(&arrow::datatypes::Schema::empty()));
        let path = Path::from(format!("a/b/{name}"));
        Arc::new(StepFile { path, bytes: 1, partition: None, spec: 0, sorted: true, bounds, deleted: None })
    }

    #[test]
    fn what_a_scan_may_read_is_known_until_the_last_of_it_is_dropped() {
        let readers = Readers::default();
        let one = readers.lease("t", vec![file("1"), file("2")]);
        let other = readers.lease("t", vec![file("2"), file("3")]);
        readers.lease("u", vec![file("4")]);
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<HashSet<_>>();
        assert_eq!(readers.leased("t"), names(&["1", "2", "3"]));
        assert_eq!(readers.leased("u"), names(&[]));
        let plan = one.clone();
        drop(one);
        assert_eq!(readers.leased("t"), names(&["1", "2", "3"]));
        drop(plan);
        assert_eq!(readers.leased("t"), names(&["2", "3"]));
        drop(other);
        assert!(readers.leased("t").is_empty());
    }
}
