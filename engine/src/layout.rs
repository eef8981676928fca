//! A log as its table has it now: rows come out with the columns of the table, and go in with those of the log
//! (`catalog/src/layout.rs`). Who reads or writes a table's log goes through here, so nobody else knows of columns that came or
//! went. One is of one layout for ever: a scan that began before an `ALTER TABLE` goes on with what it knew.

use crate::{
    seam::{Positions, SeamError, SeamResult, Source, SourceBatch},
    value::{Value, values_of},
};
use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array},
    datatypes::{DataType, SchemaRef},
    error::ArrowError,
};
use async_trait::async_trait;
use datafusion::{error::Result as DfResult, scalar::ScalarValue};
use std::sync::Arc;
use tidemark_catalog::Relation;
use tidemark_planner::defaults;

/// The value that a default's text is; NULL without one.
///
/// # Errors
/// The text is no value of the type, or the type has no defaults.
pub fn constant(ty: &DataType, text: Option<&str>) -> DfResult<ScalarValue> {
    let Some(text) = text else { return ScalarValue::try_from(ty) };
    let read = defaults::read(text, ty)?;
    read.as_literal().cloned().ok_or_else(|| {
        datafusion::error::DataFusionError::Execution(format!("a column of type {ty} cannot have a default"))
    })
}

#[derive(Debug)]
struct Layout {
    /// The table's.
    schema: SchemaRef,
    stored: SchemaRef,
    /// For each of the table's columns its place in the log, and what rows have that were appended before it came.
    read: Vec<(usize, ScalarValue)>,
    /// For each of the log's columns its place in the table; `None`: dropped.
    written: Vec<Option<usize>>,
}

impl Layout {
    fn of(relation: &Relation) -> DfResult<Layout> {
        let (schema, stored) = (relation.schema(), relation.stored());
        let mut read = vec![];
        for (i, field) in schema.fields().iter().enumerate() {
            let at = stored.iter().position(|stored| stored.column == Some(i)).ok_or_else(|| {
                datafusion::error::DataFusionError::Execution(format!("column \"{}\" is in no log", field.name()))
            })?;
            read.push((at, constant(field.data_type(), stored[at].missing.as_deref())?));
        }
        let written = stored.iter().map(|stored| stored.column).collect();
        Ok(Layout { schema, stored: relation.stored_schema(), read, written })
    }

    /// Rows of the log, which may be from before some columns came, as the table has them.
    fn read(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let column = |(at, missing): &(usize, ScalarValue)| match rows.columns().get(*at) {
            Some(column) => Ok(column.clone()),
            None => {
                missing.to_array_of_size(rows.num_rows()).map_err(|error| ArrowError::ExternalError(Box::new(error)))
            }
        };
        let columns = self.read.iter().map(column).collect::<Result<Vec<ArrayRef>, _>>()?;
        of(&self.schema, columns, rows.num_rows())
    }

    fn write(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = self.written.iter().zip(self.stored.fields());
        let columns = columns.map(|(at, field)| match at.and_then(|at| rows.columns().get(at)) {
            Some(column) => column.clone(),
            None => new_null_array(field.data_type(), rows.num_rows()),
        });
        of(&self.stored, columns.collect(), rows.num_rows())
    }
}

fn of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// How to make rows of one layout those of a later one: for each column its place before, or what it has where it is new.
pub fn moved(before: &Relation, after: &Relation) -> DfResult<Vec<Result<usize, Value>>> {
    let (old, new) = (before.stored(), after.stored());
    let mut moved = vec![];
    for (i, column) in after.columns.iter().enumerate() {
        let at = new.iter().position(|stored| stored.column == Some(i));
        let known = at.and_then(|at| old.get(at)?.column);
        moved.push(match known {
            Some(before) => Ok(before),
            None => {
                let missing = at.and_then(|at| new[at].missing.as_deref());
                let value = values_of(&constant(&column.ty.arrow(), missing)?.to_array()?)?.pop();
                Err(value.unwrap_or_default())
            }
        });
    }
    Ok(moved)
}

struct LaidOut {
    log: Arc<dyn Source>,
    layout: Layout,
}

/// The log as the table has it.
pub fn laid_out(log: &Arc<dyn Source>, relation: &Relation) -> SeamResult<Arc<dyn Source>> {
    if relation.layout.stored.is_empty() {
        return Ok(log.clone());
    }
    let layout = Layout::of(relation).map_err(SeamError::not_done)?;
    Ok(Arc::new(LaidOut { log: log.clone(), layout }))
}

#[async_trait]
impl Source for LaidOut {
    async fn append(&self, mut batches: Vec<SourceBatch>) -> SeamResult<Positions> {
        for batch in &mut batches {
            batch.rows = self.layout.write(&batch.rows).map_err(SeamError::not_done)?;
        }
        self.log.append(batches).await
    }

    async fn poll(&self, from: &Positions, rows_max: usize) -> SeamResult<Vec<SourceBatch>> {
        let mut batches = self.log.poll(from, rows_max).await?;
        for batch in &mut batches {
            batch.rows = self.layout.read(&batch.rows).map_err(SeamError::not_done)?;
        }
        Ok(batches)
    }

    async fn range(&self) -> SeamResult<(Positions, Positions)> {
        self.log.range().await
    }

    async fn kept_from(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<Positions> {
        self.log.kept_from(positions, keep_from_us).await
    }

    async fn commit(&self, positions: &Positions, keep_from_us: Option<i64>) -> SeamResult<()> {
        self.log.commit(positions, keep_from_us).await
    }

    async fn sync(&self) -> SeamResult<()> {
        self.log.sync().await
    }

    async fn widen(&self, schema: SchemaRef) -> SeamResult<()> {
        self.log.widen(schema).await
    }

    fn appended_bytes(&self) -> u64 {
        self.log.appended_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Int32Type, Int64Type};
    use tidemark_catalog::{Column, SqlType};

    fn column(name: &str, ty: SqlType) -> Column {
        Column { name: name.to_string(), ty, not_null: false, comment: None }
    }

    #[test]
    fn rows_come_out_with_the_columns_of_the_table_and_go_in_with_those_of_the_log() {
        let mut relation = Relation::plain(vec![column("a", SqlType::Int8), column("b", SqlType::Text)], String::new());
        let old = RecordBatch::try_new(
            relation.schema(),
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["x", "y"]))],
        )
        .unwrap();
        let before = relation.clone();
        relation.columns[1].not_null = true;
        relation.drop_column(0);
        relation.add_column(column("c", SqlType::Int4), Some("7".to_string()));
        let layout = Layout::of(&relation).unwrap();

        let read = layout.read(&old).unwrap();
        assert_eq!(read.schema(), relation.schema());
        assert_eq!(read.column(0).as_string::<i32>().value(1), "y");
        assert_eq!(read.column(1).as_primitive::<Int32Type>().values(), &[7, 7]);

        let written = layout.write(&read).unwrap();
        assert_eq!(written.schema(), relation.stored_schema());
        assert_eq!(written.column(0).as_primitive::<Int64Type>().null_count(), 2, "a dropped column is NULL");
        assert_eq!(layout.read(&written).unwrap(), read);

        assert_eq!(moved(&before, &relation).unwrap(), vec![Ok(1), Err(Value::Int(7))]);
    }
}
