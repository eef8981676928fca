//! Every error becomes what a Postgres client understands: SQLSTATE, message, detail, hint.

use crate::{pg::PgError, wire::WireError};
use datafusion::error::DataFusionError;
use tidemark_catalog::{CatalogError, NoPlace};
use tidemark_connectors::files::FilesError;
use tidemark_engine::{runtime::IngestError, seam::SeamError};
use tidemark_planner::PlanError;

impl From<WireError> for PgError {
    fn from(error: WireError) -> Self {
        let mut pg = PgError::error(error.sqlstate, error.message);
        pg.detail = error.detail;
        pg.hint = error.hint;
        pg.context = error.context;
        pg
    }
}

/// PostgreSQL's `disk_full`.
fn disk_full(message: impl Into<String>) -> PgError {
    PgError::error("53100", message)
        .hint("free space, or set a retention on the sources and run CHECKPOINT; lookups go on meanwhile")
}

/// An error of reading or writing a file: a full disk is told apart, however deep it lies.
pub fn file_error(message: String, error: &(dyn std::error::Error + 'static)) -> PgError {
    match is_disk_full(error) {
        true => disk_full(message),
        false => PgError::error("58030", message),
    }
}

/// An error of an object in a bucket. The store's words begin with where it is, and end with what can be done.
pub fn object_error(what: &str, url: &str, error: &SeamError) -> PgError {
    let (SeamError::Full(text) | SeamError::NotDone(text) | SeamError::Unknown(text)) = error;
    let text = text.strip_prefix(&format!("{url}: ")).unwrap_or(text);
    let (text, hint) = match text.split_once(" (HINT: ") {
        Some((text, hint)) => (text, hint.strip_suffix(')').unwrap_or(hint)),
        None => (text, ""),
    };
    let message = format!("could not {what} \"{url}\": {text}");
    match (error, hint) {
        (SeamError::Full(_), _) => PgError::error("53100", message).hint("make room there, or name another place"),
        (SeamError::Unknown(_), "") => {
            PgError::error("58030", message).hint("the object is there whole, or what was there before is: copy again")
        }
        (_, "") => PgError::error("58030", message),
        (_, hint) => PgError::error("58030", message).hint(hint),
    }
}

fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    std::iter::successors(Some(error), |error| error.source()).any(|error| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| matches!(io.kind(), StorageFull | QuotaExceeded))
    })
}

impl From<SeamError> for PgError {
    fn from(error: SeamError) -> Self {
        match &error {
            SeamError::Full(_) => disk_full(error.to_string()),
            SeamError::NotDone(_) => PgError::error("58000", error.to_string()),
            SeamError::Unknown(_) => {
                PgError::error("58030", error.to_string()).hint("read back what was written before trying again")
            }
        }
    }
}

impl From<NoPlace> for PgError {
    fn from(error: NoPlace) -> Self {
        PlanError::from(error).into()
    }
}

impl From<CatalogError> for PgError {
    fn from(error: CatalogError) -> Self {
        if let CatalogError::Held { by, .. } = &error {
            let detail =
                format!("session {} has changed it, or needs it as it is, and its transaction is open", by.session);
            return PgError::error("55006", error.to_string())
                .detail(detail)
                .hint("run it again when that transaction has ended; pg_stat_activity has the session");
        }
        match error.is_disk_full() {
            true => disk_full(error.to_string()),
            false => PgError::error("58000", error.to_string()),
        }
    }
}

impl From<FilesError> for PgError {
    fn from(error: FilesError) -> Self {
        let mut pg = PgError::error(error.sqlstate, error.message);
        pg.detail = error.detail;
        pg.hint = error.hint;
        pg
    }
}

impl From<IngestError> for PgError {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::NotAdmitted { .. } => PgError::error("22023", error.to_string())
                .hint("no row was changed: mend the event time that the statement gives"),
            IngestError::Altered(_) => PgError::error("40001", error.to_string()).hint("run it again"),
            IngestError::TakenBefore { .. } => PgError::error("XX000", error.to_string()),
            IngestError::Duplicate { ref key, .. } => PgError::error("23505", error.to_string())
                .detail(key.clone())
                .hint("INSERT … ON CONFLICT DO NOTHING | DO UPDATE, or declare the table FORMAT UPSERT"),
            IngestError::Seam(error) => error.into(),
            IngestError::Expression(error) => error.into(),
        }
    }
}

impl From<DataFusionError> for PgError {
    /// An error of ours that travelled through DataFusion comes back as it was; what DataFusion says of a statement or
    /// its values is the planner's to translate.
    fn from(error: DataFusionError) -> Self {
        if let DataFusionError::External(inner) = error.find_root() {
            if let Some(error) = inner.downcast_ref::<PgError>() {
                return error.clone();
            }
            if let Some(IngestError::Altered(name)) = inner.downcast_ref::<IngestError>() {
                return IngestError::Altered(name.clone()).into();
            }
            if let Some(files) = inner.downcast_ref::<FilesError>() {
                return files.clone().into();
            }
            if let Some(seam) = inner.downcast_ref::<SeamError>() {
                return match seam {
                    SeamError::Full(text) => SeamError::Full(text.clone()),
                    SeamError::NotDone(text) => SeamError::NotDone(text.clone()),
                    SeamError::Unknown(text) => SeamError::Unknown(text.clone()),
                }
                .into();
            }
        }
        // Sorts and aggregations that do not fit into memory spill.
        if is_disk_full(&error) {
            return disk_full(error.find_root().to_string());
        }
        PlanError::from(error).into()
    }
}

impl From<arrow::error::ArrowError> for PgError {
    fn from(error: arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_meets_other_columns_is_to_be_run_again() {
        let met = DataFusionError::External(Box::new(IngestError::Altered("t".to_string())));
        let error = PgError::from(met.context("planning"));
        assert_eq!((error.sqlstate, error.hint.as_deref()), ("40001", Some("run it again")));
        assert_eq!(error.message, "the columns of \"t\" were changed while the statement ran");
    }
}
