//! A history table as DataFusion scans it: the files of one snapshot, pruned, read by DataFusion's Parquet reader.

use super::{
    deletes,
    manifest::{self, StepFile},
    place::Place,
    readers::{Lease, LeasedFiles},
};
use arrow::{
    compute::SortOptions,
    datatypes::{DataType, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DFSchema, Statistics, pruning::PrunableStatistics},
    datasource::{
        listing::PartitionedFile,
        physical_plan::{
            FileGroup, FileScanConfigBuilder, FileSource, ParquetSource,
            parquet::{CachedParquetFileReaderFactory, ParquetAccessPlan},
        },
        source::DataSourceExec,
    },
    error::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_expr::{LexOrdering, PhysicalExpr, PhysicalSortExpr, expressions::Column},
    physical_optimizer::pruning::PruningPredicate,
    physical_plan::{ExecutionPlan, empty::EmptyExec, metrics::MetricBuilder},
};
use object_store::path::Path;
use std::{cmp::Reverse, collections::HashMap, sync::Arc};
use tidemark_engine::seam::HistoryTable;

/// Up to this many files per core a scan keeps each in a partition of its own and can promise their order; beyond, it
/// would open too many files at once.
const ORDERED_FILES_PER_PARTITION: usize = 4;

/// The table as of one commit.
#[derive(Debug)]
pub struct HistorySnapshot {
    history: HistoryTable,
    /// Its files, which stay for as long as this or a plan made of it does.
    lease: Arc<Lease>,
    place: Place,
}

impl HistorySnapshot {
    pub fn new(history: HistoryTable, lease: Arc<Lease>, place: Place) -> Self {
        HistorySnapshot { history, lease, place }
    }

    /// A filter that files can be pruned by: over key columns, the time column and `_recorded_at` only. Floats are left out: bounds
    /// leave out NaN, which SQL orders above every number.
    fn prunes(&self, filter: &Expr) -> bool {
        let columns = manifest::pruning_columns(&self.history);
        let is_known = |name: &str| {
            columns.iter().map(|&column| self.history.schema.field(column)).any(|field| {
                // Intervals are stored as text, which has another order.
                let other = matches!(field.data_type(), DataType::Float32 | DataType::Float64 | DataType::Interval(_));
                field.name() == name && !other
            })
        };
        !filter.is_volatile() && filter.column_refs().iter().all(|column| is_known(&column.name))
    }

    /// (key columns, time column), where the types have one order everywhere.
    fn ordering(&self) -> Option<LexOrdering> {
        let columns = self.history.key.iter().chain([&self.history.time]);
        let options = SortOptions { descending: false, nulls_first: false };
        let sort = |&index: &usize| {
            let field = self.history.schema.field(index);
            let other = matches!(field.data_type(), DataType::Float32 | DataType::Float64 | DataType::Interval(_));
            (!other).then(|| PhysicalSortExpr::new(Arc::new(Column::new(field.name(), index)), options))
        };
        LexOrdering::new(columns.map(sort).collect::<Option<Vec<_>>>()?)
    }

    fn pruned(&self, predicate: Option<&Arc<dyn PhysicalExpr>>) -> Vec<Arc<StepFile>> {
        let (schema, all) = (&self.history.schema, self.lease.files());
        let keep = predicate.and_then(|predicate| {
            let bounds = all.iter().map(|file| file.bounds.clone()).collect();
            let bounds = PrunableStatistics::new(bounds, schema.clone());
            // Pruning is an optimization: where it cannot be done every file is read.
            PruningPredicate::try_new(predicate.clone(), schema.clone()).ok()?.prune(&bounds).ok()
        });
        match keep {
            Some(keep) => all.iter().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| file.clone()).collect(),
            None => all.to_vec(),
        }
    }
}

#[async_trait]
impl TableProvider for HistorySnapshot {
    fn schema(&self) -> SchemaRef {
        self.history.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.prunes(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = &self.history.schema;
        let filter = conjunction(filters.iter().filter(|filter| self.prunes(filter)).cloned());
        let predicate = match filter {
            Some(filter) => Some(state.create_physical_expr(filter, &DFSchema::try_from(schema.clone())?)?),
            None => None,
        };
        let files = self.pruned(predicate.as_ref());
        if files.is_empty() {
            let projected = match projection {
                Some(columns) => Arc::new(schema.project(columns)?),
                None => schema.clone(),
            };
            return Ok(Arc::new(EmptyExec::new(projected)));
        }

        let runtime = state.runtime_env();
        let (url, store) = self.place.readable(runtime)?;
        let footer = self.place.footer_bytes();
        let mut left = HashMap::new();
        for file in &files {
            if let Some(deleted) = &file.deleted {
                left.insert(file.path.clone(), deletes::left_of(file, deleted, store.as_ref(), footer, runtime).await?);
            }
        }
        // The reader would count the rows of a row group without those that are deleted.
        let limit = limit.filter(|_| left.is_empty());
        let ends = runtime.cache_manager.get_file_metadata_cache();
        let opener = CachedParquetFileReaderFactory::new(store, ends);
        let opener = Arc::new(LeasedFiles::new(opener, self.lease.clone()));
        let mut source = ParquetSource::new(schema.clone()).with_parquet_file_reader_factory(opener);
        if let Some(bytes) = footer {
            source = source.with_metadata_size_hint(bytes);
        }
        // What EXPLAIN ANALYZE shows beside what the reader counts itself.
        let count =
            |name: &'static str, files: usize| MetricBuilder::new(source.metrics()).global_counter(name).add(files);
        count("history_files", self.lease.files().len());
        count("history_files_pruned_by_bounds", self.lease.files().len() - files.len());
        if let Some(predicate) = predicate {
            source = source.with_predicate(predicate);
        }
        let partitions = state.config().target_partitions().max(1);
        let ordering = self.ordering().filter(|_| {
            files.iter().all(|file| file.sorted) && files.len() <= partitions * ORDERED_FILES_PER_PARTITION
        });
        let groups = match ordering {
            Some(_) => files.iter().map(|file| FileGroup::new(vec![partitioned_file(file, &left)])).collect(),
            None => balanced(files, partitions, &left),
        };
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_output_ordering(ordering.into_iter().collect())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

/// The files in at most `groups` groups of about equal bytes: largest first, each into the group that has least.
fn balanced(mut files: Vec<Arc<StepFile>>, groups: usize, left: &Left) -> Vec<FileGroup> {
    files.sort_by_key(|file| Reverse(file.bytes));
    let mut filled: Vec<(u64, Vec<PartitionedFile>)> = vec![Default::default(); groups.min(files.len())];
    for file in files {
        if let Some((bytes, group)) = filled.iter_mut().min_by_key(|(bytes, group)| (*bytes, group.len())) {
            *bytes += file.bytes;
            group.push(partitioned_file(&file, left));
        }
    }
    filled.into_iter().map(|(_, group)| FileGroup::new(group)).collect()
}

/// What is left of files of which another engine has deleted rows.
type Left = HashMap<Path, ParquetAccessPlan>;

fn partitioned_file(file: &StepFile, left: &Left) -> PartitionedFile {
    let mut partitioned = PartitionedFile::new("", file.bytes);
    partitioned.object_meta.location = file.path.clone();
    let rows = file.bounds.num_rows;
    // Bounds need not be values: the optimizer must not answer min() and max() from them.
    let statistics = Statistics { num_rows: rows, ..file.bounds.as_ref().clone().to_inexact() };
    let partitioned = partitioned.with_statistics(Arc::new(statistics));
    match left.get(&file.path) {
        Some(left) => partitioned.with_extension(left.clone()),
        None => partitioned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Field, Schema};
    use datafusion::{
        common::{ColumnStatistics, stats::Precision},
        logical_expr::{col, lit},
        physical_plan::displayable,
        prelude::SessionContext,
        scalar::ScalarValue,
    };
    use std::{
        path::PathBuf,
        time::{Duration, Instant},
    };
    use tidemark_catalog::{ObjectId, SqlType};
    use tidemark_engine::seam::HistoryPartition;

    /// So many files; file `n` has the keys from `10 n` to `10 n + 9` and was recorded at `n`.
    fn snapshot(count: i64) -> HistorySnapshot {
        let time = SqlType::TimestampTz.arrow();
        let fields = [
            Field::new("k", DataType::Int64, false),
            Field::new("ts", time.clone(), false),
            Field::new("v", DataType::Float64, true),
            Field::new("_recorded_at", time, false),
        ];
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let at = |us| ScalarValue::TimestampMicrosecond(Some(us), Some("+00:00".into()));
        let between = |least, most| ColumnStatistics {
            null_count: Precision::Exact(0),
            min_value: Precision::Exact(least),
            max_value: Precision::Exact(most),
            ..ColumnStatistics::new_unknown()
        };
        let file = |n: i64| {
            let mut bounds = Statistics::new_unknown(&schema);
            bounds.num_rows = Precision::Exact(10);
            bounds.column_statistics[0] = between(ScalarValue::from(10 * n), ScalarValue::from(10 * n + 9));
            bounds.column_statistics[1] = between(at(0), at(1000));
            bounds.column_statistics[3] = between(at(n), at(n));
            let path = Path::from(format!("warehouse/{n}.parquet"));
            let bounds = Arc::new(bounds);
            Arc::new(StepFile { path, bytes: 1000, partition: Some(0), spec: 0, sorted: true, bounds, deleted: None })
        };
        let (view, name, comments) = (ObjectId(1), "h".to_string(), vec![]);
        let files = (0..count).map(file).collect();
        let history = HistoryTable {
            view,
            name,
            key: vec![0],
            time: 1,
            comments,
            schema: schema.clone(),
            partition: HistoryPartition::Month,
        };
        HistorySnapshot::new(history, Lease::of_own(files), Place::Folder(PathBuf::from("/")))
    }

    async fn plan(snapshot: &HistorySnapshot, filter: Expr) -> Arc<dyn ExecutionPlan> {
        snapshot.scan(&SessionContext::new().state(), None, &[filter], None).await.expect("a plan")
    }

    fn files(plan: &Arc<dyn ExecutionPlan>) -> usize {
        displayable(plan.as_ref()).indent(true).to_string().matches(".parquet").count()
    }

    #[tokio::test]
    async fn files_are_pruned_by_key_and_by_when_they_were_recorded_and_the_plan_says_how_many() {
        let snapshot = snapshot(100);
        let recorded = |us| lit(ScalarValue::TimestampMicrosecond(Some(us), Some("+00:00".into())));
        assert_eq!(files(&plan(&snapshot, col("k").eq(lit(55i64))).await), 1);
        assert_eq!(files(&plan(&snapshot, col("_recorded_at").gt_eq(recorded(97))).await), 3);
        assert_eq!(files(&plan(&snapshot, col("_recorded_at").gt_eq(recorded(100))).await), 0);
        // Of other columns nothing is known that holds.
        assert!(!snapshot.prunes(&col("v").gt(lit(1.0))));
        let pruned = plan(&snapshot, col("k").in_list(vec![lit(5i64), lit(555i64)], false)).await;
        let metrics = pruned.metrics().expect("a scan has metrics");
        let count = |name: &str| metrics.sum_by_name(name).map(|value| value.as_usize());
        assert_eq!((count("history_files"), count("history_files_pruned_by_bounds")), (Some(100), Some(98)));
    }

    #[tokio::test]
    #[allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it measures")]
    async fn planning_takes_as_much_longer_as_there_are_more_files() {
        let (few, many) = (snapshot(1_000), snapshot(10_000));
        let quickest = async |snapshot: &HistorySnapshot, key: i64| {
            let mut least = Duration::MAX;
            for _ in 0..15 {
                let begun = Instant::now();
                assert_eq!(files(&plan(snapshot, col("k").eq(lit(key))).await), 1);
                least = least.min(begun.elapsed());
            }
            least
        };
        let (few, many) = (quickest(&few, 5_005).await, quickest(&many, 50_005).await);
        // Ten times as much in ten times the files; a hundred times if each were compared with each. Other tests run beside it.
        assert!(many < few * 60, "1,000 files: {few:?}, 10,000 files: {many:?}");
    }
}
