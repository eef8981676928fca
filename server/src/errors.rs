//! Every error becomes what a Postgres client understands: SQLSTATE, message, detail, hint.

use crate::{pg::PgError, wire::WireError};
use datafusion::error::DataFusionError;
use tidemark_catalog::CatalogError;
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

impl From<SeamError> for PgError {
    fn from(error: SeamError) -> Self {
        match &error {
            SeamError::Full(_) => PgError::error("53100", error.to_string())
                .hint("free space, or set a retention on the sources and run CHECKPOINT; lookups go on meanwhile"),
            SeamError::NotDone(_) => PgError::error("58000", error.to_string()),
            SeamError::Unknown(_) => {
                PgError::error("58030", error.to_string()).hint("read back what was written before trying again")
            }
        }
    }
}

impl From<CatalogError> for PgError {
    fn from(error: CatalogError) -> Self {
        PgError::error("58000", error.to_string())
    }
}

impl From<IngestError> for PgError {
    fn from(error: IngestError) -> Self {
        match error {
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
            if let Some(seam) = inner.downcast_ref::<SeamError>() {
                return match seam {
                    SeamError::Full(text) => SeamError::Full(text.clone()),
                    SeamError::NotDone(text) => SeamError::NotDone(text.clone()),
                    SeamError::Unknown(text) => SeamError::Unknown(text.clone()),
                }
                .into();
            }
        }
        PlanError::from(error).into()
    }
}

impl From<arrow::error::ArrowError> for PgError {
    fn from(error: arrow::error::ArrowError) -> Self {
        DataFusionError::from(error).into()
    }
}
