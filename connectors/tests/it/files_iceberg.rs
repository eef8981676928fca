//! A table that is an Iceberg table of somebody else's, with rows taken back by position: PyIceberg writes none of these, so the
//! table is written here, entry by entry.

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema as ArrowSchema},
    util::pretty::pretty_format_batches,
};
use datafusion::{
    arrow::{array::AsArray, datatypes::Int64Type},
    catalog::TableProvider,
    error::DataFusionError,
    prelude::{SessionConfig, SessionContext},
};
use iceberg::{
    TableCreation,
    io::{FileIO, FileIOBuilder, LocalFsStorageFactory},
    spec::{
        DataContentType, DataFile, DataFileBuilder, DataFileFormat, MAIN_BRANCH, ManifestListWriter,
        ManifestWriterBuilder, NestedField, Operation, PartitionSpec, PrimitiveType, Schema, Snapshot, Summary,
        TableMetadata, TableMetadataBuilder, Type,
    },
};
use parquet::{
    arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY},
    file::properties::WriterProperties,
};
use std::{collections::HashMap, fs::File, path::Path, sync::Arc};
use tidemark_catalog::{Column, SqlType};
use tidemark_connectors::files::{FilesError, FilesTable, IcebergTable, iceberg_table};

fn field(name: &str, ty: DataType, id: i32) -> Field {
    let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_string(), id.to_string())]);
    Field::new(name, ty, true).with_metadata(id)
}

/// Writes a Parquet file of row groups of four rows.
fn write(path: &Path, batch: RecordBatch, content: DataContentType) -> DataFile {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(4)).build();
    let mut writer = ArrowWriter::try_new(File::create_new(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    DataFileBuilder::default()
        .content(content)
        .file_path(format!("file://{}", path.display()))
        .file_format(DataFileFormat::Parquet)
        .record_count(batch.num_rows() as u64)
        .file_size_in_bytes(std::fs::metadata(path).unwrap().len())
        .build()
        .unwrap()
}

fn rows(path: &Path, ids: std::ops::Range<i64>) -> DataFile {
    let schema = Arc::new(ArrowSchema::new(vec![field("id", DataType::Int64, 1)]));
    let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(ids))]).unwrap();
    write(path, batch, DataContentType::Data)
}

/// Position deletes: file and place.
fn deletes(path: &Path, gone: &[(&DataFile, i64)]) -> DataFile {
    let schema = Arc::new(ArrowSchema::new(vec![
        field("file_path", DataType::Utf8, 2_147_483_546),
        field("pos", DataType::Int64, 2_147_483_545),
    ]));
    let files = StringArray::from_iter_values(gone.iter().map(|(file, _)| file.file_path()));
    let places = Int64Array::from_iter_values(gone.iter().map(|(_, at)| *at));
    let batch = RecordBatch::try_new(schema, vec![Arc::new(files), Arc::new(places)]).unwrap();
    write(path, batch, DataContentType::PositionDeletes)
}

/// The metadata of a table of these files, each with the number of its commit.
async fn table(io: &FileIO, folder: &Path, data: &[(DataFile, i64)], deleted: &[(DataFile, i64)]) -> TableMetadata {
    let id = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    table_of(vec![id], io, folder, data, deleted).await
}

async fn table_of(
    fields: Vec<NestedField>,
    io: &FileIO,
    folder: &Path,
    data: &[(DataFile, i64)],
    deleted: &[(DataFile, i64)],
) -> TableMetadata {
    let location = format!("file://{}", folder.display());
    let schema = Schema::builder().with_fields(fields.into_iter().map(Arc::new)).build().unwrap();
    let creation = TableCreation::builder().name("t".to_string()).location(location.clone()).schema(schema).build();
    let builder = TableMetadataBuilder::from_table_creation(creation).unwrap();
    let metadata = builder.build().unwrap().metadata;
    let mut manifests = vec![];
    for (name, files) in [("data", data), ("deletes", deleted)] {
        let output = io.new_output(format!("{location}/metadata/{name}-{}.avro", deleted.len())).unwrap();
        let schema = metadata.current_schema().clone();
        let writer = ManifestWriterBuilder::new(output, Some(7), schema, PartitionSpec::unpartition_spec());
        let mut writer = match name {
            "data" => writer.build_v2_data(),
            _ => writer.build_v2_deletes(),
        };
        for (file, sequence) in files {
            writer.add_file(file.clone(), *sequence).unwrap();
        }
        manifests.push(writer.write_manifest_file().await.unwrap());
    }
    let list = format!("{location}/metadata/snap-{}.avro", deleted.len());
    let output = io.new_output(&list).unwrap().writer().await.unwrap();
    let mut writer = ManifestListWriter::v2(output, 7, None, 2);
    writer.add_manifests(manifests.into_iter()).unwrap();
    writer.close().await.unwrap();
    let snapshot = Snapshot::builder()
        .with_snapshot_id(7)
        .with_parent_snapshot_id(None)
        .with_sequence_number(2)
        .with_timestamp_ms(metadata.last_updated_ms())
        .with_manifest_list(list)
        .with_summary(Summary { operation: Operation::Append, additional_properties: HashMap::new() })
        .with_schema_id(metadata.current_schema_id())
        .build();
    let builder = metadata.into_builder(Some(format!("{location}/metadata/v0.metadata.json")));
    builder.set_branch_snapshot(snapshot, MAIN_BRANCH).unwrap().build().unwrap().metadata
}

fn keep(folder: &Path, name: &str, metadata: &TableMetadata) {
    std::fs::write(folder.join("metadata").join(name), serde_json::to_vec(metadata).unwrap()).unwrap();
}

async fn ids(folder: &Path, sql: &str) -> Result<Vec<i64>, DataFusionError> {
    let columns = vec![Column { name: "id".to_string(), ty: SqlType::Int8, not_null: false, comment: None }];
    let context = SessionContext::new();
    context.register_table("t", Arc::new(IcebergTable::new(folder.to_path_buf(), columns)))?;
    let batches = context.sql(sql).await?.collect().await?;
    let ids = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter().flatten());
    Ok(ids.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_taken_back_by_position_are_left_out_in_files_that_were_there_and_in_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    std::fs::create_dir_all(folder.join("metadata")).unwrap();
    let io = FileIOBuilder::new(Arc::new(LocalFsStorageFactory)).build();
    let (before, after) = (rows(&folder.join("a.parquet"), 0..10), rows(&folder.join("b.parquet"), 10..14));
    // Of the first file a row of the first row group, all of the second, and the last row. The second file was written later.
    let gone = [(&before, 1), (&before, 4), (&before, 5), (&before, 6), (&before, 7), (&before, 9), (&after, 0)];
    let gone = deletes(&folder.join("deletes.parquet"), &gone);
    let data = [(before.clone(), 1), (after.clone(), 2)];
    keep(&folder, "v1.metadata.json", &table(&io, &folder, &data, &[(gone.clone(), 1)]).await);

    let columns = iceberg_table::infer(&folder).await.unwrap();
    assert_eq!(columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id"]);
    let left = [0, 2, 3, 8, 10, 11, 12, 13];
    assert_eq!(ids(&folder, "SELECT id FROM t ORDER BY id").await.unwrap(), left);
    assert_eq!(ids(&folder, "SELECT count(*) FROM t").await.unwrap(), [8]);
    // Neither a limit nor a condition brings one back.
    assert_eq!(ids(&folder, "SELECT id FROM t WHERE id >= 1 ORDER BY id LIMIT 3").await.unwrap(), [2, 3, 8]);
    let some = ids(&folder, "SELECT id FROM t WHERE id < 10 LIMIT 4").await.unwrap();
    assert!(some.len() == 4 && some.iter().all(|id| left.contains(id)), "{some:?}");

    // Rows that were taken back by their values: refused, not shown.
    let mut by_value = DataFileBuilder::default();
    by_value.content(DataContentType::EqualityDeletes).equality_ids(Some(vec![1]));
    by_value.file_path(gone.file_path().to_string()).file_format(DataFileFormat::Parquet);
    let by_value = by_value.record_count(1).file_size_in_bytes(gone.file_size_in_bytes()).build().unwrap();
    keep(&folder, "v2.metadata.json", &table(&io, &folder, &data, &[(gone, 1), (by_value, 2)]).await);
    let error = ids(&folder, "SELECT id FROM t").await.unwrap_err();
    let DataFusionError::External(error) = error.find_root() else { panic!("{error}") };
    let error = error.downcast_ref::<FilesError>().expect("an error of files");
    assert_eq!(error.sqlstate, "0A000");
    assert!(error.message.contains("equality deletes"), "{error}");
}

async fn rows_of(context: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    context.sql(sql).await.unwrap().collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn row_groups_are_left_out_by_other_columns_where_floats_are_read_and_never_by_floats() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    std::fs::create_dir_all(folder.join("metadata")).unwrap();
    let io = FileIOBuilder::new(Arc::new(LocalFsStorageFactory)).build();
    // Three row groups; the second has NaN, of which its bounds do not tell.
    let schema = ArrowSchema::new(vec![field("id", DataType::Int64, 1), field("x", DataType::Float64, 2)]);
    let xs = (0..12).map(|n| if n == 5 { f64::NAN } else { f64::from(n) });
    let columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from_iter_values(0..12)), Arc::new(Float64Array::from_iter_values(xs))];
    let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    let file = write(&folder.join("a.parquet"), batch, DataContentType::Data);
    let fields = [("id", PrimitiveType::Long), ("x", PrimitiveType::Double)].into_iter().zip(1..);
    let fields = fields.map(|((name, ty), id)| NestedField::optional(id, name, Type::Primitive(ty))).collect();
    keep(&folder, "v1.metadata.json", &table_of(fields, &io, &folder, &[(file, 1)], &[]).await);

    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for (name, path) in [("lake", folder.clone()), ("files", folder.join("a.parquet"))] {
        let columns = [("id", SqlType::Int8), ("x", SqlType::Float8)];
        let columns = columns.map(|(name, ty)| Column { name: name.to_string(), ty, not_null: false, comment: None });
        let table: Arc<dyn TableProvider> = match name {
            "lake" => Arc::new(IcebergTable::new(path, columns.to_vec())),
            _ => Arc::new(FilesTable::new(path, columns.to_vec())),
        };
        context.register_table(name, table).unwrap();
        let explained = rows_of(&context, &format!("EXPLAIN ANALYZE SELECT x FROM {name} WHERE id >= 8")).await;
        let explained = pretty_format_batches(&explained).unwrap().to_string();
        assert!(explained.contains("row_groups_pruned_statistics=3 total → 1 matched"), "{explained}");
        let above = rows_of(&context, &format!("SELECT id FROM {name} WHERE x > 100 AND id < 8")).await;
        let above: Vec<i64> =
            above.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(above, [5], "NaN is above every number");
    }
}
