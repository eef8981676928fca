//! `COPY t FROM 'file'`: rows out of a file of the server or an object of a bucket, the backfill of a source from what others have
//! kept.
//!
//! Text, CSV and binary are read as they are from a client. Parquet and Arrow have columns with names and types: they go by name,
//! where nothing is lost, as in a table of such files; several files in the order of their names. Of any file only some batches are in
//! memory, but a table takes all of its rows together, and they wait.

use super::{
    copy_from::{BATCH_ROWS, Intake},
    copy_source::{Local, Pieces},
    insert::{column_map, target},
};
use crate::{
    database::Database,
    pg::{Outcome, PgError, SessionEvent},
    session::Session,
    wire::{CopyDecoder, types::declared_schema},
};
use datafusion::{catalog::TableProvider, execution::SessionState, physical_plan::SendableRecordBatchStream};
use futures::TryStreamExt;
use std::{path::Path, sync::Arc};
use tidemark_catalog::{Column, QualifiedName};
use tidemark_connectors::files::{ArrowFiles, FilesTable};
use tidemark_planner::statement::{CopyFormat, CopyOptions};

pub async fn execute(
    database: &Arc<Database>,
    session: &mut Session,
    (table, columns): (&QualifiedName, &[String]),
    file: &str,
    options: &CopyOptions,
) -> Result<Outcome, PgError> {
    let snapshot = session.snapshot(database);
    let object = target(&snapshot, table)?.clone();
    let map = column_map(&object, columns)?;
    let mut intake = Intake::new(database, session, object.clone(), map.clone(), "FILE");
    match options.format {
        CopyFormat::Text | CopyFormat::Csv | CopyFormat::Binary => {
            let zone = session.format.time_zone;
            let schema = declared_schema(object.columns());
            let mut decoder = CopyDecoder::new(&table.name, options, schema, &map, zone, BATCH_ROWS)?;
            let mut pieces = Pieces::open(database, file).await?;
            while let Some(piece) = pieces.piece().await? {
                let given = intake.decoded(decoder.feed(&piece)).await?;
                intake.take(given).await?;
            }
            let given = intake.decoded(decoder.finish()).await?;
            intake.take(given).await?;
        }
        CopyFormat::Parquet | CopyFormat::Arrow => {
            let wanted: Vec<Column> = map
                .iter()
                // What is missing in a row is said of the relation, as by INSERT.
                .map(|at| Column { not_null: false, ..object.columns()[*at].clone() })
                .collect();
            let local = Local::of(database, session, file).await?;
            let refused = |error: PgError| local.named(uncastable(error));
            let mut batches = scan(database, session, &local.path, wanted, options.format).await.map_err(refused)?;
            loop {
                match batches.try_next().await {
                    Ok(Some(batch)) => intake.take(vec![batch]).await?,
                    Ok(None) => break,
                    Err(error) => return Err(refused(intake.so_far(error.into()).await)),
                }
            }
        }
    }
    let copied = intake.finish().await?;
    session.events.extend(copied.notice.map(SessionEvent::Notice));
    Ok(Outcome::Done { tag: copied.tag.into() })
}

/// The rows of the files, one file after the other: whether an event is late depends on what came before it.
async fn scan(
    database: &Database,
    session: &Session,
    path: &Path,
    columns: Vec<Column>,
    format: CopyFormat,
) -> Result<SendableRecordBatchStream, PgError> {
    let files: Arc<dyn TableProvider> = match format {
        CopyFormat::Arrow => Arc::new(ArrowFiles::new(path.to_path_buf(), columns)),
        _ => Arc::new(FilesTable::new(path.to_path_buf(), columns)),
    };
    let mut state: SessionState = session.state.clone();
    state.config_mut().options_mut().execution.target_partitions = 1;
    let plan = files.scan(&state, None, &[], None).await?;
    Ok(database.queries.run(plan, state.task_ctx())?)
}

/// A statement has no place for a cast.
fn uncastable(error: PgError) -> PgError {
    match error.sqlstate {
        "42804" => {
            error.hint("CREATE TABLE f WITH (connector = 'parquet', path = '…'), and INSERT INTO … SELECT with a cast")
        }
        _ => error,
    }
}
