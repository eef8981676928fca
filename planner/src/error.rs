//! One error type for parsing and planning: always a SQLSTATE, a message that names the object, often a hint.

mod known;
mod missing;

pub use missing::{missing, missing_object};

use crate::{
    names::{is_marked, shown, shown_text},
    words::in_sql,
};
use datafusion::{common::SchemaError, error::DataFusionError};
use tidemark_catalog::{NoPlace, TEMPORARY_SCHEMA};

/// An error a client sees. Message: lower case, no full stop, names the object and its kind.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct PlanError {
    /// Five characters (PostgreSQL, appendix A).
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// 1-based character position in the statement's text, where known.
    pub position: Option<usize>,
}

pub type PlanResult<T> = Result<T, PlanError>;

/// The SQLSTATEs used here, by PostgreSQL's names.
pub mod sqlstate {
    pub const SYNTAX_ERROR: &str = "42601";
    pub const UNDEFINED_TABLE: &str = "42P01";
    pub const UNDEFINED_COLUMN: &str = "42703";
    pub const UNDEFINED_FUNCTION: &str = "42883";
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const DUPLICATE_TABLE: &str = "42P07";
    pub const DUPLICATE_COLUMN: &str = "42701";
    pub const AMBIGUOUS_COLUMN: &str = "42702";
    pub const WRONG_OBJECT_TYPE: &str = "42809";
    pub const INVALID_PARAMETER: &str = "22023";
    pub const INVALID_DEFINITION: &str = "42P17";
    pub const DATATYPE_MISMATCH: &str = "42804";
    pub const DEPENDENT_OBJECTS: &str = "2BP01";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const INVALID_SCHEMA: &str = "3F000";
    pub const WINDOWING_ERROR: &str = "42P20";
    pub const GROUPING_ERROR: &str = "42803";
    pub const INVALID_COLUMN_REFERENCE: &str = "42P10";
    pub const OUT_OF_RANGE: &str = "22003";
    pub const INVALID_TEXT: &str = "22P02";
    pub const DATETIME_OUT_OF_RANGE: &str = "22008";
    pub const PROGRAM_LIMIT: &str = "54000";
    pub const DUPLICATE_FUNCTION: &str = "42723";
    pub const INVALID_FUNCTION_DEFINITION: &str = "42P13";
    pub const INVALID_RECURSION: &str = "42P19";
    pub const UNDEFINED_PARAMETER: &str = "42P02";
    pub const TOO_COMPLEX: &str = "54001";
    pub const TOO_MANY_ARGUMENTS: &str = "54023";
    pub const INTERNAL: &str = "XX000";
}

impl From<NoPlace> for PlanError {
    fn from(error: NoPlace) -> PlanError {
        let (sqlstate, hint) = match &error {
            NoPlace::Missing(schema) => {
                (sqlstate::INVALID_SCHEMA, format!("CREATE SCHEMA {schema}; \\dn lists what there is"))
            }
            NoPlace::ReadOnly(schema) if schema == TEMPORARY_SCHEMA => (
                sqlstate::INVALID_SCHEMA,
                "CREATE TEMPORARY TABLE, without a schema, makes something of the session's own".to_string(),
            ),
            NoPlace::ReadOnly(_) => (
                sqlstate::INVALID_SCHEMA,
                "the server maintains it; make it in public or in a schema of your own".to_string(),
            ),
            NoPlace::NotSelected => (
                sqlstate::INVALID_SCHEMA,
                "no schema of search_path is there: SET search_path, or write the schema".to_string(),
            ),
        };
        PlanError::new(sqlstate, error.to_string()).hint(hint)
    }
}

impl PlanError {
    pub fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        PlanError { sqlstate, message: message.into(), detail: None, hint: None, position: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    pub fn syntax(message: impl Into<String>) -> Self {
        Self::new(sqlstate::SYNTAX_ERROR, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
    }
}

impl From<PlanError> for datafusion::error::DataFusionError {
    fn from(error: PlanError) -> Self {
        datafusion::error::DataFusionError::External(Box::new(error))
    }
}

impl From<DataFusionError> for PlanError {
    fn from(error: DataFusionError) -> Self {
        let root = error.find_root();
        match root {
            DataFusionError::External(inner) => {
                if let Some(ours) = inner.downcast_ref::<PlanError>() {
                    return ours.clone();
                }
            }
            DataFusionError::SchemaError(schema, _) => return in_schema(schema),
            _ => {}
        }
        let message = root.message().into_owned();
        let message = shown_text(message.split("\n\nbacktrace:").next().unwrap_or(&message));
        if let Some(known) = known::known(&message) {
            return known;
        }
        let lower = message.to_lowercase();
        let state = if ["overflow", "out of range"].iter().any(|words| lower.contains(words)) {
            sqlstate::OUT_OF_RANGE
        } else if lower.contains("error parsing date") {
            "22007"
        } else if lower.contains("error parsing") || lower.contains("parser error") {
            "22P02"
        } else if message.contains("in GROUP BY") {
            sqlstate::GROUPING_ERROR
        } else {
            match root {
                DataFusionError::SQL(..) | DataFusionError::Plan(_) => sqlstate::SYNTAX_ERROR,
                DataFusionError::NotImplemented(_) => sqlstate::FEATURE_NOT_SUPPORTED,
                DataFusionError::ResourcesExhausted(_) => "53200",
                _ => sqlstate::INTERNAL,
            }
        };
        PlanError::new(state, lower_first(&in_sql(&message)))
    }
}

/// Columns that are not there, or more than once.
fn in_schema(error: &SchemaError) -> PlanError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            if valid_fields.iter().any(|valid| is_marked(&valid.name) && shown(&valid.name) == field.name) {
                return ambiguous(&field.name);
            }
            // A subquery of IN that reads the query around it, or stands beside aggregates, is not taken apart.
            if field.relation.as_ref().is_some_and(|relation| relation.table() == crate::existing::SUBQUERY) {
                let message = "this IN (SELECT …) in a select list is not supported: \
                               it reads the query around it, or stands beside aggregates";
                return PlanError::unsupported(message)
                    .hint("write it as a join, or ask in a subquery in FROM and read its column here");
            }
            if let Some(relation) = &field.relation
                && !valid_fields.iter().any(|valid| valid.relation.as_ref().is_some_and(|r| r.resolved_eq(relation)))
            {
                let message = format!("missing FROM-clause entry for table \"{}\"", relation.table());
                return PlanError::new(sqlstate::UNDEFINED_TABLE, message);
            }
            let message = match &field.relation {
                Some(relation) => format!("column {relation}.{} does not exist", field.name),
                None => format!("column \"{}\" does not exist", field.name),
            };
            let error = PlanError::new(sqlstate::UNDEFINED_COLUMN, message);
            let mut names: Vec<&str> = vec![];
            for valid in valid_fields {
                if !names.contains(&shown(&valid.name)) {
                    names.push(shown(&valid.name));
                }
            }
            names.truncate(NAMES_MAX);
            if names.is_empty() { error } else { error.hint(format!("there is: {}", names.join(", "))) }
        }
        SchemaError::AmbiguousReference { field } => ambiguous(&field.name),
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            PlanError::new("42712", format!("table name \"{}\" specified more than once", qualifier.table()))
                .hint("give one of them an alias")
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            PlanError::new(sqlstate::DUPLICATE_COLUMN, format!("column \"{}\" specified more than once", shown(name)))
                .hint("name the columns with AS")
        }
    }
}

/// Names listed in a hint.
const NAMES_MAX: usize = 12;

fn ambiguous(name: &str) -> PlanError {
    PlanError::new(sqlstate::AMBIGUOUS_COLUMN, format!("column reference \"{}\" is ambiguous", shown(name)))
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        // An acronym keeps its capitals.
        Some(first) if !characters.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => text.to_string(),
    }
}
