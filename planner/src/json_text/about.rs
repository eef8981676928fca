//! What a document is, and what it has: `json_typeof`, `json_array_length`, and the functions behind `?`, `?|` and `?&`, each by
//! its name for `jsonb` too.

use super::{invalid, texts};
use crate::{PlanError, PlanResult, error::sqlstate};
use arrow_schema::DataType;
use datafusion::{
    arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, Int32Builder, StringBuilder},
    common::{Result, exec_err},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use std::sync::Arc;
use tidemark_catalog::json::Slice;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum About {
    Kind,
    Length,
    /// It has the key, or is or has the string.
    Has,
    HasAny,
    HasAll,
}

impl About {
    pub const ALL: [About; 5] = [About::Kind, About::Length, About::Has, About::HasAny, About::HasAll];

    /// PostgreSQL's name, of `json` where there is such a one.
    pub fn name(self) -> &'static str {
        match self {
            About::Kind => "json_typeof",
            About::Length => "json_array_length",
            About::Has => "jsonb_exists",
            About::HasAny => "jsonb_exists_any",
            About::HasAll => "jsonb_exists_all",
        }
    }

    pub fn operator(self) -> Option<&'static str> {
        match self {
            About::Has => Some("?"),
            About::HasAny => Some("?|"),
            About::HasAll => Some("?&"),
            About::Kind | About::Length => None,
        }
    }

    pub fn function(self) -> ScalarUDF {
        let second = match self {
            About::Kind | About::Length => None,
            About::Has => Some(DataType::Utf8),
            About::HasAny | About::HasAll => Some(texts()),
        };
        let types = std::iter::once(DataType::Utf8).chain(second).collect();
        let aliases = match self {
            About::Kind => vec!["jsonb_typeof".to_string()],
            About::Length => vec!["jsonb_array_length".to_string()],
            _ => vec![],
        };
        ScalarUDF::new_from_impl(Told {
            about: self,
            aliases,
            signature: Signature::exact(types, Volatility::Immutable),
        })
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Told {
    about: About,
    aliases: Vec<String>,
    signature: Signature,
}

impl ScalarUDFImpl for Told {
    fn name(&self) -> &str {
        self.about.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.about {
            About::Kind => DataType::Utf8,
            About::Length => DataType::Int32,
            About::Has | About::HasAny | About::HasAll => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let Some(documents) = arrays.first() else { return exec_err!("{} takes a document", self.name()) };
        let documents = documents.as_string::<i32>();
        let parsed = documents
            .iter()
            .map(|document| document.map(|text| Slice::of(text).map_err(|error| invalid(text, &error))).transpose());
        Ok(ColumnarValue::Array(match (self.about, arrays.get(1)) {
            (About::Kind, _) => {
                let mut kinds = StringBuilder::new();
                for document in parsed {
                    kinds.append_option(document?.map(Slice::kind));
                }
                Arc::new(kinds.finish()) as ArrayRef
            }
            (About::Length, _) => {
                let mut lengths = Int32Builder::new();
                for document in parsed {
                    lengths.append_option(document?.map(length).transpose()?);
                }
                Arc::new(lengths.finish())
            }
            (about, Some(wanted)) => {
                let mut answers = BooleanBuilder::new();
                for (row, document) in parsed.enumerate() {
                    answers.append_option(match document? {
                        Some(document) if !wanted.is_null(row) => Some(has(about, document, wanted, row)),
                        _ => None,
                    });
                }
                Arc::new(answers.finish())
            }
            _ => return exec_err!("{} takes a document and what is sought in it", self.name()),
        }))
    }
}

fn length(document: Slice<'_>) -> PlanResult<i32> {
    let wrong = |what: &str| {
        PlanError::new(sqlstate::INVALID_PARAMETER, format!("cannot get array length of a {what}"))
            .hint("CASE json_typeof(x) WHEN 'array' THEN json_array_length(x) END")
    };
    match document.kind() {
        "array" => i32::try_from(document.items().count()).map_err(|_| wrong("document so long")),
        "object" => Err(wrong("non-array")),
        _ => Err(wrong("scalar")),
    }
}

/// NULL in an array is not sought.
fn has(about: About, document: Slice<'_>, wanted: &ArrayRef, row: usize) -> bool {
    let all_of = |array: ArrayRef| array.as_string::<i32>().iter().flatten().map(str::to_string).collect::<Vec<_>>();
    match about {
        About::HasAny => all_of(wanted.as_list::<i32>().value(row)).iter().any(|name| document.has(name)),
        About::HasAll => all_of(wanted.as_list::<i32>().value(row)).iter().all(|name| document.has(name)),
        _ => document.has(wanted.as_string::<i32>().value(row)),
    }
}
