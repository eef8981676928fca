//! One error type for parsing and planning: always a SQLSTATE, a message that names the object, often a hint.

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
    pub const INTERNAL: &str = "XX000";
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

impl From<datafusion::error::DataFusionError> for PlanError {
    /// DataFusion's planning errors with PostgreSQL's SQLSTATEs; an error of ours that went through DataFusion comes
    /// back as it was.
    fn from(error: datafusion::error::DataFusionError) -> Self {
        use datafusion::{common::SchemaError, error::DataFusionError as E};
        match error.find_root() {
            E::External(inner) => {
                if let Some(ours) = inner.downcast_ref::<PlanError>() {
                    return ours.clone();
                }
            }
            E::SchemaError(schema, _) => {
                return match schema.as_ref() {
                    SchemaError::FieldNotFound { field, valid_fields } => {
                        let name = match &field.relation {
                            Some(relation) => format!("column {relation}.{} does not exist", field.name),
                            None => format!("column \"{}\" does not exist", field.name),
                        };
                        let error = PlanError::new(sqlstate::UNDEFINED_COLUMN, name);
                        match valid_fields.len() {
                            0 => error,
                            _ => {
                                let names: Vec<_> = valid_fields.iter().take(12).map(|f| f.name.as_str()).collect();
                                error.hint(format!("there is: {}", names.join(", ")))
                            }
                        }
                    }
                    SchemaError::AmbiguousReference { field } => PlanError::new(
                        sqlstate::AMBIGUOUS_COLUMN,
                        format!("column reference \"{}\" is ambiguous", field.name),
                    ),
                    other => PlanError::new(sqlstate::DUPLICATE_COLUMN, lower_first(&other.to_string())),
                };
            }
            _ => {}
        }
        let message = error.find_root().message().into_owned();
        let message = lower_first(message.split("\n\nbacktrace:").next().unwrap_or(&message));
        let state = if message.starts_with("invalid function") || message.contains("No function matches") {
            sqlstate::UNDEFINED_FUNCTION
        } else if message.contains("must appear in the GROUP BY") || message.contains("in GROUP BY") {
            sqlstate::GROUPING_ERROR
        } else if message.starts_with("for SELECT DISTINCT") {
            sqlstate::INVALID_COLUMN_REFERENCE
        } else {
            match error.find_root() {
                E::SQL(..) => sqlstate::SYNTAX_ERROR,
                E::NotImplemented(_) => sqlstate::FEATURE_NOT_SUPPORTED,
                E::Plan(_) => sqlstate::SYNTAX_ERROR,
                _ => sqlstate::INTERNAL,
            }
        };
        PlanError::new(state, message)
    }
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
