//! UUIDs in queries: `::uuid` gives a text the spelling in which it is held (`catalog/src/uuid.rs`), and what is compared with one gets
//! that, too (`compared.rs`).

use crate::{PlanError, PlanResult, error::sqlstate, respelled::call};
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::{
    arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray},
    common::{Result, exec_err},
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
    },
    sql::sqlparser::ast,
};
use std::sync::Arc;
use tidemark_catalog::uuid;

/// The function that reads a text as a UUID, by PostgreSQL's name for it.
pub const UUID_IN: &str = "uuid_in";
/// The same of an array of texts.
pub const UUIDS_IN: &str = "uuids_in";

/// The functions, for those who call them by name.
pub fn functions() -> impl Iterator<Item = ScalarUDF> {
    [false, true].into_iter().map(|of_array| ScalarUDF::new_from_impl(UuidIn::new(of_array)))
}

/// The call of [`UUID_IN`].
pub(crate) fn uuid_of(text: Expr) -> Expr {
    ScalarUDF::new_from_impl(UuidIn::new(false)).call(vec![text])
}

/// The call of [`UUIDS_IN`].
pub(crate) fn uuids_of(texts: Expr) -> Expr {
    ScalarUDF::new_from_impl(UuidIn::new(true)).call(vec![texts])
}

/// Reads `text::uuid` and `uuid 'text'` as calls of [`UUID_IN`], and `texts::uuid[]` as one of [`UUIDS_IN`].
pub fn call_uuid(expr: &mut ast::Expr) {
    let called = match expr {
        ast::Expr::Cast { expr: text, data_type: ast::DataType::Uuid, .. } => call(UUID_IN, [taken(text)]),
        ast::Expr::Cast { expr: texts, data_type: ast::DataType::Array(item), .. } if is_uuid(item) => {
            let texts = ast::Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(taken(texts)),
                data_type: ast::DataType::Array(ast::ArrayElemTypeDef::SquareBracket(
                    Box::new(ast::DataType::Text),
                    None,
                )),
                array: false,
                format: None,
            };
            call(UUIDS_IN, [texts])
        }
        ast::Expr::TypedString(typed) if typed.data_type == ast::DataType::Uuid => {
            call(UUID_IN, [ast::Expr::Value(typed.value.clone())])
        }
        _ => return,
    };
    *expr = called;
}

fn is_uuid(item: &ast::ArrayElemTypeDef) -> bool {
    matches!(item, ast::ArrayElemTypeDef::SquareBracket(item, _) if **item == ast::DataType::Uuid)
}

fn taken(expr: &mut ast::Expr) -> ast::Expr {
    std::mem::replace(expr, ast::Expr::value(ast::Value::Null))
}

pub(crate) fn invalid(message: String) -> PlanError {
    PlanError::new(sqlstate::INVALID_TEXT, message)
}

/// A column of texts, each in the spelling that is held.
///
/// # Errors
/// 22P02: one of them is no UUID.
pub fn read(texts: &StringArray) -> PlanResult<StringArray> {
    texts.iter().map(|text| text.map(uuid::read).transpose().map_err(invalid)).collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct UuidIn {
    of_array: bool,
    signature: Signature,
}

impl UuidIn {
    fn new(of_array: bool) -> UuidIn {
        let taken = if of_array { texts() } else { DataType::Utf8 };
        UuidIn { of_array, signature: Signature::exact(vec![taken], Volatility::Immutable) }
    }
}

fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Utf8, true))
}

fn texts() -> DataType {
    DataType::List(item())
}

impl ScalarUDFImpl for UuidIn {
    fn name(&self) -> &str {
        if self.of_array { UUIDS_IN } else { UUID_IN }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(if self.of_array { texts() } else { DataType::Utf8 })
    }

    /// NULL of NULL alone: where it comes to stand around a value (`compared.rs`) the plan says of its columns what it said.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), if self.of_array { texts() } else { DataType::Utf8 }, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [given] = arrays.as_slice() else { return exec_err!("{} takes one argument", self.name()) };
        let read: ArrayRef = match self.of_array {
            false => Arc::new(read(given.as_string::<i32>())?),
            true => {
                let lists = given.as_list::<i32>();
                let items: ArrayRef = Arc::new(read(lists.values().as_string::<i32>())?);
                Arc::new(ListArray::try_new(item(), lists.offsets().clone(), items, lists.nulls().cloned())?)
            }
        };
        Ok(ColumnarValue::Array(read))
    }
}
