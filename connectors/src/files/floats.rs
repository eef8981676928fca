//! Row groups are left out by the bounds of columns, but not by those of floats: they leave out NaN, which SQL orders above
//! every number. A filter comes to a scan late, by the optimizer, so the bounds themselves are taken away from what the scan
//! reads at the end of a file; a filter over other columns leaves out what it can.

use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use datafusion::{
    common::config::TableParquetOptions,
    datasource::{
        listing::PartitionedFile,
        physical_plan::{ParquetFileReaderFactory, ParquetSource, parquet::DefaultParquetFileReaderFactory},
    },
    error::Result as DfResult,
    physical_plan::metrics::ExecutionPlanMetricsSet,
};
use futures::{FutureExt, future::BoxFuture};
use object_store::ObjectStore;
use parquet::{
    arrow::{arrow_reader::ArrowReaderOptions, async_reader::AsyncFileReader},
    basic::{LogicalType, Type},
    errors::Result,
    file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData},
};
use std::{ops::Range, sync::Arc};

pub(super) fn is_float(ty: &DataType) -> bool {
    matches!(ty, DataType::Float32 | DataType::Float64)
}

/// A source of files in the store; `reads_floats`: some of the columns that are read are floats.
pub(super) fn source(schema: SchemaRef, reads_floats: bool, store: Arc<dyn ObjectStore>) -> ParquetSource {
    let source = ParquetSource::new(schema);
    if !reads_floats {
        return source;
    }
    let mut options = TableParquetOptions::default();
    // Bounds of pages are read from elsewhere in the file. A Bloom filter has bits, of which -0.0 and 0.0 are not the same.
    options.global.enable_page_index = false;
    options.global.bloom_filter_on_read = false;
    let files = WithoutFloats(DefaultParquetFileReaderFactory::new(store));
    source.with_table_parquet_options(options).with_parquet_file_reader_factory(Arc::new(files))
}

#[derive(Debug)]
struct WithoutFloats(DefaultParquetFileReaderFactory);

impl ParquetFileReaderFactory for WithoutFloats {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> DfResult<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(Reader(self.0.create_reader(partition_index, file, metadata_size_hint, metrics)?)))
    }
}

struct Reader(Box<dyn AsyncFileReader + Send>);

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.0.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        self.0.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move { without_floats(self.0.get_metadata(options).await?.as_ref()).map(Arc::new) }.boxed()
    }
}

/// The end of a file without the bounds of floats.
fn without_floats(end: &ParquetMetaData) -> Result<ParquetMetaData> {
    let is_float = |column: &ColumnChunkMetaData| {
        matches!(column.column_type(), Type::FLOAT | Type::DOUBLE)
            || matches!(column.column_descr().logical_type_ref(), Some(LogicalType::Float16))
    };
    let column = |column: ColumnChunkMetaData| match is_float(&column) {
        true => column.into_builder().clear_statistics().build(),
        false => Ok(column),
    };
    let group = |group: RowGroupMetaData| {
        let mut builder = group.into_builder();
        let columns = builder.take_columns().into_iter().map(column).collect::<Result<Vec<_>>>()?;
        builder.set_column_metadata(columns).build()
    };
    let mut builder = end.clone().into_builder();
    let groups = builder.take_row_groups().into_iter().map(group).collect::<Result<Vec<_>>>()?;
    Ok(builder.set_row_groups(groups).build())
}
