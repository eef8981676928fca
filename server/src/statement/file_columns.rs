//! Batches as files of columns hold them: Parquet, and Arrow's IPC.
//!
//! Arrow has our types as they are. Parquet's own INTERVAL has milliseconds, ours microseconds, and PyArrow reads it as twelve bytes. So an interval is
//! written as the text that it is shown as, which DuckDB, PostgreSQL and pandas read back exactly, as in history's tables.

use crate::{pg::PgError, wire::show_interval};
use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use std::{collections::BTreeSet, sync::Arc};
use tidemark_planner::words::type_name;

/// How the columns of a query become those of a file.
pub struct FileColumns {
    pub schema: SchemaRef,
}

impl FileColumns {
    /// Of an Arrow file or stream: names may be there twice, as in a result.
    pub fn arrow(shown: &Schema) -> FileColumns {
        let fields = shown.fields().iter();
        let fields = fields.map(|field| Field::new(field.name(), field.data_type().clone(), field.is_nullable()));
        FileColumns { schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())) }
    }

    /// Of a Parquet file.
    ///
    /// # Errors
    /// 42701 for names that are there twice, 0A000 for types that a file cannot hold.
    pub fn parquet(shown: &Schema) -> Result<FileColumns, PgError> {
        let mut names = BTreeSet::new();
        let mut fields = vec![];
        for field in shown.fields() {
            if !names.insert(field.name()) {
                return Err(PgError::error("42701", format!("column \"{}\" specified more than once", field.name()))
                    .hint("in a Parquet file every column has a name of its own: use AS"));
            }
            let ty = match field.data_type() {
                DataType::Interval(_) | DataType::Duration(_) | DataType::Null => DataType::Utf8,
                ty if has_interval(ty) => {
                    let message = format!("column \"{}\" cannot be written to Parquet", field.name());
                    return Err(PgError::error("0A000", message)
                        .detail(format!("its type is {}", type_name(ty)))
                        .hint(format!("cast it: \"{}\"::text", field.name())));
                }
                ty => ty.clone(),
            };
            fields.push(Field::new(field.name(), ty, field.is_nullable()));
        }
        Ok(FileColumns { schema: Arc::new(Schema::new(fields)) })
    }

    pub fn batch(&self, batch: &RecordBatch) -> Result<RecordBatch, PgError> {
        let columns = batch.columns().iter().zip(self.schema.fields()).map(|(array, field)| {
            match (array.data_type(), field.data_type()) {
                (DataType::Interval(_) | DataType::Duration(_), DataType::Utf8) => texts(array),
                (from, to) if from == to => Ok(array.clone()),
                (_, to) => Ok(arrow::compute::cast(array, to)?),
            }
        });
        let columns = columns.collect::<Result<Vec<_>, PgError>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

fn has_interval(ty: &DataType) -> bool {
    match ty {
        DataType::Interval(_) | DataType::Duration(_) => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            has_interval(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| has_interval(field.data_type())),
        _ => false,
    }
}

fn texts(array: &ArrayRef) -> Result<ArrayRef, PgError> {
    let texts = (0..array.len()).map(|row| (!array.is_null(row)).then(|| show_interval(array, row)));
    Ok(Arc::new(StringArray::from_iter(texts)))
}
