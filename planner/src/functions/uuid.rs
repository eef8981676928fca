//! UUIDs in queries. One is held as a text of one spelling (`catalog/src/uuid.rs`), so what is asked of it is what is asked of texts,
//! as long as every text that it is compared with has that spelling: `::uuid` gives it, and a literal beside a UUID gets it here.

use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    respelled::call,
    shown::{self, Shown},
};
use arrow_schema::{DataType, Field};
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, ListArray, StringArray},
        datatypes::FieldRef,
    },
    common::{
        Result, ScalarValue, exec_err,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, ColumnarValue, Expr, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
        Signature, Volatility, expr_rewriter::NamePreserver,
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

fn invalid(message: String) -> PlanError {
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

/// The plan with what is compared with a UUID read as one. A parameter stays: it is one when it arrives (`shown::parameters`).
///
/// # Errors
/// 22P02: a literal beside a UUID is no UUID.
pub(crate) fn compared(plan: LogicalPlan) -> PlanResult<LogicalPlan> {
    if !shown::reads(&plan, Shown::Uuid)? {
        return Ok(plan);
    }
    let compared = plan.transform_up_with_subqueries(|node| {
        let inputs: Vec<LogicalPlan> = node.inputs().into_iter().cloned().collect();
        let inputs: Vec<&LogicalPlan> = inputs.iter().collect();
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let read = expr.transform_up(|expr| compare(expr, &inputs))?;
            Ok(read.update_data(|expr| name.restore(expr)))
        })
    })?;
    Ok(compared.data)
}

fn compare(expr: Expr, inputs: &[&LogicalPlan]) -> Result<Transformed<Expr>> {
    let is_uuid = |expr: &Expr| shown::expression(expr, inputs) == Some(Shown::Uuid);
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (left, right) = match (is_uuid(left.as_ref()), is_uuid(right.as_ref())) {
                (true, false) => (left, Box::new(as_uuid(*right)?)),
                (false, true) => (Box::new(as_uuid(*left)?), right),
                _ => (left, right),
            };
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::InList(mut list) if is_uuid(list.expr.as_ref()) => {
            list.list = list.list.into_iter().map(as_uuid).collect::<Result<_>>()?;
            Transformed::yes(Expr::InList(list))
        }
        Expr::Between(mut between) if is_uuid(between.expr.as_ref()) => {
            between.low = Box::new(as_uuid(*between.low)?);
            between.high = Box::new(as_uuid(*between.high)?);
            Transformed::yes(Expr::Between(between))
        }
        // `= ANY (array)`
        Expr::ScalarFunction(mut call)
            if call.func.name() == "array_has" && call.args.len() == 2 && is_uuid(&call.args[1]) =>
        {
            let array = call.args.remove(0);
            let stays =
                matches!(array, Expr::Placeholder(_)) || shown::expression(&array, inputs) == Some(Shown::Uuids);
            call.args
                .insert(0, if stays { array } else { ScalarUDF::new_from_impl(UuidIn::new(true)).call(vec![array]) });
            Transformed::yes(Expr::ScalarFunction(call))
        }
        other => Transformed::no(other),
    })
}

pub(crate) fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// What stands beside a UUID, as one. A literal is read at once, so that who looks for keys in a plan finds a literal.
fn as_uuid(expr: Expr) -> Result<Expr> {
    let stays = match &expr {
        Expr::Placeholder(_) => true,
        Expr::Literal(value, _) => value.is_null(),
        Expr::ScalarFunction(call) => call.func.name() == UUID_IN,
        _ => false,
    };
    match expr {
        expr if stays => Ok(expr),
        Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) => {
            Ok(Expr::Literal(ScalarValue::Utf8(Some(uuid::read(&text).map_err(invalid)?)), metadata))
        }
        other => Ok(ScalarUDF::new_from_impl(UuidIn::new(false)).call(vec![other])),
    }
}
