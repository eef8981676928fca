//! `->`, `->>`, `#>` and `#>>` over text that is JSON, as PostgreSQL has them over `json`: values come as they are written.
//!
//! The functions behind them have PostgreSQL's names; `text::json` is `json(text)`, which checks a text and leaves it, and
//! `text::jsonb` is `jsonb(text)`, the text that PostgreSQL shows of it (`catalog/src/json`), so that what is taken out of it comes as of
//! `jsonb`. With them the payload of a dead letter is taken apart and driven in again with nothing but SQL, and a source may keep documents as they came.

mod about;
#[cfg(test)]
mod against_a_parser;
mod changed;
pub(crate) mod documents;
mod made;

use crate::{PlanError, PlanResult, error::sqlstate, words::full_type_name};
use about::About;
use arrow_schema::{DataType, Field, FieldRef};
use changed::Change;
pub use changed::{CONCAT, CONTAINS, DELETE};
use datafusion::{
    arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder},
    arrow::datatypes::Int64Type,
    common::{DFSchema, Result, ScalarValue, exec_err, plan_err},
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
        expr::{Cast, Placeholder},
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr},
    },
    sql::sqlparser::ast::{self, BinaryOperator},
};
use std::{borrow::Cow, sync::Arc};
use tidemark_catalog::{
    SqlType,
    json::{self, NO_ZERO, Refused, Slice},
};

/// Reads the operators as calls of the functions.
#[derive(Debug)]
pub struct JsonOperators;

impl ExprPlanner for JsonOperators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (path, as_text) = match expr.op {
            BinaryOperator::Question => return sought(About::Has, expr, schema),
            BinaryOperator::QuestionPipe => return sought(About::HasAny, expr, schema),
            BinaryOperator::QuestionAnd => return sought(About::HasAll, expr, schema),
            BinaryOperator::AtArrow | BinaryOperator::ArrowAt => return contains(expr, schema),
            BinaryOperator::Minus => return Ok(left_out(expr, schema)),
            BinaryOperator::AtAt | BinaryOperator::AtQuestion | BinaryOperator::HashMinus => {
                let hint = "jsonb has ->, ->>, #>, #>>, ?, ?|, ?&, @>, <@, || and -";
                return Err(PlanError::unsupported(format!("operator {} is not supported", expr.op)).hint(hint).into());
            }
            BinaryOperator::Arrow => (false, false),
            BinaryOperator::LongArrow => (false, true),
            BinaryOperator::HashArrow => (true, false),
            BinaryOperator::HashLongArrow => (true, true),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        // Not known of a parameter, which is text then.
        let type_of = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Utf8);
        let right = if path { path_of(expr.right)? } else { expr.right };
        let (document, wanted) = (type_of(&expr.left), type_of(&right));
        let is_text = |ty: &DataType| SqlType::from_arrow(ty) == Some(SqlType::Text);
        let by = match (path, &wanted) {
            (true, DataType::List(item)) if is_text(item.data_type()) => Some(By::Path),
            (false, ty) if ty.is_integer() => Some(By::Place),
            (false, ty) if is_text(ty) => Some(By::Name),
            _ => None,
        };
        let Some(by) = by.filter(|_| is_text(&document)) else {
            let (document, wanted) = (full_type_name(&document), full_type_name(&wanted));
            let message = format!("operator does not exist: {document} {} {wanted}", expr.op);
            let hint = "-> and ->> take a text or an integer, #> and #>> an array of texts, out of text that is JSON";
            return Err(PlanError::new(sqlstate::UNDEFINED_FUNCTION, message).hint(hint).into());
        };
        let function = ScalarUDF::new_from_impl(Part::new(by, as_text));
        Ok(PlannerResult::Planned(function.call(vec![expr.left, right])))
    }
}

/// `document ? text`, `document ?| texts` or `document ?& texts` as the call of the function behind it.
fn sought(about: About, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    let of_array = about != About::Has;
    let right = if of_array { path_of(expr.right)? } else { expr.right };
    let type_of = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Utf8);
    let (document, wanted) = (type_of(&expr.left), type_of(&right));
    let is_text = |ty: &DataType| SqlType::from_arrow(ty) == Some(SqlType::Text);
    let fits = match &wanted {
        DataType::List(item) => of_array && is_text(item.data_type()),
        ty => !of_array && is_text(ty),
    };
    if !fits || !is_text(&document) {
        let (document, wanted) = (full_type_name(&document), full_type_name(&wanted));
        let message = format!("operator does not exist: {document} {} {wanted}", expr.op);
        let hint = "? takes a text, ?| and ?& an array of texts, and all are asked of text that is JSON";
        return Err(PlanError::new(sqlstate::UNDEFINED_FUNCTION, message).hint(hint).into());
    }
    Ok(PlannerResult::Planned(about.function().call(vec![expr.left, right])))
}

/// `document @> document`, and `<@`. Arrays have theirs from DataFusion; of other types it would plan it, and fail at every row.
fn contains(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    let type_of = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Utf8);
    let (left, right) = (type_of(&expr.left), type_of(&expr.right));
    let fits = |ty: &DataType| ty.is_null() || SqlType::from_arrow(ty) == Some(SqlType::Text);
    if !fits(&left) || !fits(&right) {
        if matches!((&left, &right), (DataType::List(_), DataType::List(_))) {
            return Ok(PlannerResult::Original(expr));
        }
        let (left, right) = (full_type_name(&left), full_type_name(&right));
        let message = format!("operator does not exist: {left} {} {right}", expr.op);
        let hint = "@> and <@ take two documents of jsonb, or two arrays: cast one of them";
        return Err(PlanError::new(sqlstate::UNDEFINED_FUNCTION, message).hint(hint).into());
    }
    let (document, wanted) = match expr.op {
        BinaryOperator::ArrowAt => (expr.right, expr.left),
        _ => (expr.left, expr.right),
    };
    Ok(PlannerResult::Planned(Change::Contains.function().call(vec![document, wanted])))
}

/// `document - 'name'`, `document - 1`. No text has a difference, so that it is a document or, when the query is bound, refused
/// (`compared.rs`). Text that is written on the left is of the type of the other side.
fn left_out(expr: RawBinaryExpr, schema: &DFSchema) -> PlannerResult<RawBinaryExpr> {
    let is_text = |ty: &DataType| SqlType::from_arrow(ty) == Some(SqlType::Text);
    let type_of = |expr: &Expr| expr.get_type(schema).ok();
    let is_document = matches!(expr.left, Expr::Column(_) | Expr::ScalarFunction(_));
    let fits = is_document
        && type_of(&expr.left).is_some_and(|ty| is_text(&ty))
        && type_of(&expr.right).is_some_and(|ty| is_text(&ty) || ty.is_integer());
    if fits {
        PlannerResult::Planned(Change::Delete.function().call(vec![expr.left, expr.right]))
    } else {
        PlannerResult::Original(expr)
    }
}

/// The call of [`CONCAT`].
pub(crate) fn concat(left: Expr, right: Expr) -> Expr {
    Change::Concat.function().call(vec![left, right])
}

/// The functions, for those who call them by name.
pub fn functions() -> impl Iterator<Item = ScalarUDF> {
    let each = [By::Name, By::Place, By::Path].into_iter().flat_map(|by| [Part::new(by, false), Part::new(by, true)]);
    let read = [Read::new(false), Read::new(true)].map(ScalarUDF::new_from_impl);
    each.map(ScalarUDF::new_from_impl)
        .chain(read)
        .chain(About::ALL.map(About::function))
        .chain(Change::ALL.map(Change::function))
        .chain(made::functions())
}

/// The call of [`JSON`].
pub(crate) fn json(expr: Expr) -> Expr {
    ScalarUDF::new_from_impl(Read::new(false)).call(vec![expr])
}

/// The call of [`JSONB`].
pub(crate) fn jsonb(expr: Expr) -> Expr {
    ScalarUDF::new_from_impl(Read::new(true)).call(vec![expr])
}

/// Reads `text::json` and `json 'text'` as calls of [`JSON`], those of `jsonb` as calls of [`JSONB`],
/// `json_extract_path(document, 'a', 'b')` as `document #> ARRAY['a', 'b']`, and what makes JSON of values as [`made`] says.
pub fn call_json(expr: &mut ast::Expr) {
    let read = |data_type: &ast::DataType| match data_type {
        ast::DataType::JSON => Some(JSON),
        ast::DataType::JSONB => Some(JSONB),
        _ => None,
    };
    let called = match expr {
        ast::Expr::Cast { expr: text, data_type, .. } => {
            read(data_type).map(|function| crate::respelled::call(function, [taken(text)]))
        }
        ast::Expr::TypedString(typed) => read(&typed.data_type)
            .map(|function| crate::respelled::call(function, [ast::Expr::Value(typed.value.clone())])),
        ast::Expr::Function(call) => path_call(call).or_else(|| made::written(call)),
        _ => None,
    };
    if let Some(called) = called {
        *expr = called;
    }
}

fn taken(expr: &mut ast::Expr) -> ast::Expr {
    std::mem::replace(expr, ast::Expr::value(ast::Value::Null))
}

/// A call of `json_extract_path` and its like with the steps one by one.
fn path_call(call: &mut ast::Function) -> Option<ast::Expr> {
    let (binary, op) = match call.name.to_string().to_lowercase().as_str() {
        "json_extract_path" => (false, BinaryOperator::HashArrow),
        "json_extract_path_text" => (false, BinaryOperator::HashLongArrow),
        "jsonb_extract_path" => (true, BinaryOperator::HashArrow),
        "jsonb_extract_path_text" => (true, BinaryOperator::HashLongArrow),
        _ => return None,
    };
    let is_plain = call.over.is_none() && call.filter.is_none() && call.within_group.is_empty();
    let ast::FunctionArguments::List(list) = &mut call.args else { return None };
    let mut given = vec![];
    for argument in &mut list.args {
        let ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(argument)) = argument else { return None };
        given.push(argument);
    }
    // One array of them is what the operator takes.
    if !is_plain || given.len() < 2 || matches!(given[1], ast::Expr::Array(_)) {
        return None;
    }
    let mut given = given.into_iter().map(taken);
    let document = given.next()?;
    let document =
        if binary { crate::respelled::call(JSONB, [document]) } else { ast::Expr::Nested(Box::new(document)) };
    let text = |step: ast::Expr| ast::Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(step),
        data_type: ast::DataType::Text,
        array: false,
        format: None,
    };
    let path = ast::Expr::Array(ast::Array { elem: given.map(text).collect(), named: true });
    let part = ast::Expr::BinaryOp { left: Box::new(document), op, right: Box::new(path) };
    Some(ast::Expr::Nested(Box::new(part)))
}

/// The operator of `jsonb` that a function is behind.
pub fn binary_operator(function: &str) -> Option<&'static str> {
    About::ALL.into_iter().find(|about| about.name() == function)?.operator()
}

/// The operator that a function is behind.
pub fn operator(function: &str) -> Option<&'static str> {
    [By::Name, By::Place, By::Path]
        .into_iter()
        .flat_map(|by| [Part::new(by, false), Part::new(by, true)])
        .find(|part| part.name() == function)
        .map(|part| match (part.by, part.as_text) {
            (By::Path, false) => "#>",
            (By::Path, true) => "#>>",
            (_, false) => "->",
            (_, true) => "->>",
        })
}

/// A path that is written as a text, `'{a,0,b}'`, as the array that PostgreSQL reads it as.
fn path_of(expr: Expr) -> PlanResult<Expr> {
    let text = match &expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let field = Some(Arc::new(Field::new("", texts(), true)));
            return Ok(Expr::Placeholder(Placeholder { id: id.clone(), field }));
        }
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => text,
        Expr::Cast(Cast { expr: inner, field }) if matches!(field.data_type(), DataType::List(_)) => {
            match inner.as_ref() {
                Expr::Literal(ScalarValue::Utf8(Some(text)), _) => text,
                _ => return Ok(expr),
            }
        }
        _ => return Ok(expr),
    };
    let steps = steps(text).ok_or_else(|| {
        PlanError::new("22P02", format!("malformed array literal: \"{text}\"")).hint("a path is written '{key,0,key}'")
    })?;
    let steps: Vec<ScalarValue> = steps.into_iter().map(ScalarValue::Utf8).collect();
    Ok(Expr::Literal(ScalarValue::List(ScalarValue::new_list_nullable(&steps, &DataType::Utf8)), None))
}

/// The items of an array of texts as PostgreSQL writes it; `None` of a NULL.
fn steps(text: &str) -> Option<Vec<Option<String>>> {
    let inside = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut rest = inside.trim();
    let mut steps = vec![];
    if rest.is_empty() {
        return Some(steps);
    }
    loop {
        let (mut step, mut quoted, mut bare_end) = (String::new(), false, 0);
        let mut inside_quotes = false;
        let mut ended_at = rest.len();
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => step.push(chars.next()?.1),
                '"' => {
                    inside_quotes = !inside_quotes;
                    quoted = true;
                }
                _ if inside_quotes => step.push(c),
                ',' => {
                    ended_at = at;
                    break;
                }
                '{' | '}' => return None,
                c if c.is_whitespace() && (step.is_empty() || quoted) => continue,
                c => step.push(c),
            }
            if !c.is_whitespace() || inside_quotes {
                bare_end = step.len();
            }
        }
        step.truncate(bare_end);
        if inside_quotes || (step.is_empty() && !quoted) {
            return None;
        }
        let is_null = !quoted && step.eq_ignore_ascii_case("null");
        steps.push((!is_null).then_some(step));
        match rest.get(ended_at..).and_then(|rest| rest.strip_prefix(',')) {
            Some(after) => rest = after.trim_start(),
            None => return Some(steps),
        }
    }
}

/// How a part of a document is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum By {
    Name,
    /// In an array, from 0, or from the end.
    Place,
    Path,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Part {
    by: By,
    as_text: bool,
    signature: Signature,
}

impl Part {
    fn new(by: By, as_text: bool) -> Part {
        let signature = match by {
            By::Name => Signature::exact(vec![DataType::Utf8, DataType::Utf8], Volatility::Immutable),
            By::Place => Signature::exact(vec![DataType::Utf8, DataType::Int64], Volatility::Immutable),
            By::Path => Signature::exact(vec![DataType::Utf8, texts()], Volatility::Immutable),
        };
        Part { by, as_text, signature }
    }

    fn of<'a>(&self, document: Slice<'a>, by: &ArrayRef, row: usize) -> Option<Slice<'a>> {
        match self.by {
            By::Name => document.field(by.as_string::<i32>().value(row)),
            By::Place => document.element(by.as_primitive::<Int64Type>().value(row)),
            By::Path => {
                let path = by.as_list::<i32>().value(row);
                path.as_string::<i32>().iter().try_fold(document, |part, step| part.step(step?))
            }
        }
    }
}

fn texts() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

impl ScalarUDFImpl for Part {
    fn name(&self) -> &str {
        match (self.by, self.as_text) {
            (By::Name, false) => "json_object_field",
            (By::Name, true) => "json_object_field_text",
            (By::Place, false) => "json_array_element",
            (By::Place, true) => "json_array_element_text",
            (By::Path, false) => "json_extract_path",
            (By::Path, true) => "json_extract_path_text",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(DataType::Utf8) => Ok(DataType::Utf8),
            _ => plan_err!("{} reads text that is JSON", self.name()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [documents, by] = arrays.as_slice() else {
            return exec_err!("{} takes a document and what is wanted of it", self.name());
        };
        let documents = documents.as_string::<i32>();
        let mut parts = StringBuilder::with_capacity(documents.len(), documents.len() * 8);
        for row in 0..documents.len() {
            // A path with a NULL in it leads nowhere, whatever the document is.
            let is_known = self.by != By::Path || by.is_null(row) || by.as_list::<i32>().value(row).null_count() == 0;
            if documents.is_null(row) || by.is_null(row) || !is_known {
                parts.append_null();
                continue;
            }
            let document = documents.value(row);
            let whole = Slice::of(document).and_then(|whole| whole.check_texts().map(|()| whole));
            let part = self.of(whole.map_err(|error| invalid(document, &error))?, by, row);
            parts.append_option(match part {
                Some(part) if self.as_text => part.text().map_err(|error| invalid(document, &error))?,
                Some(part) => Some(Cow::Borrowed(part.as_written())),
                None => None,
            });
        }
        Ok(ColumnarValue::Array(Arc::new(parts.finish()) as ArrayRef))
    }
}

/// The function that makes sure that a text is JSON.
pub const JSON: &str = "json";
/// The function that shows a text that is JSON as `jsonb`.
pub const JSONB: &str = "jsonb";

#[derive(Debug, PartialEq, Eq, Hash)]
struct Read {
    canonical: bool,
    signature: Signature,
}

impl Read {
    fn new(canonical: bool) -> Read {
        Read { canonical, signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Read {
    fn name(&self) -> &str {
        if self.canonical { JSONB } else { JSON }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    /// NULL of NULL alone: where it comes to stand around a value (`compared.rs`) the plan says of its columns what it said.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), DataType::Utf8, nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [documents] = arrays.as_slice() else { return exec_err!("{} takes a text", self.name()) };
        Ok(ColumnarValue::Array(Arc::new(read(documents.as_string::<i32>(), self.canonical)?)))
    }
}

/// Texts that are JSON, as a column of `json` holds them, or one of `jsonb`.
///
/// # Errors
/// 22P02, 22P05, 22003: one of them is no such document.
pub fn read(documents: &StringArray, binary: bool) -> PlanResult<StringArray> {
    documents.iter().map(|document| document.map(|document| read_one(document, binary)).transpose()).collect()
}

/// The same of one.
///
/// # Errors
/// As of [`read`].
pub fn read_one(document: &str, binary: bool) -> PlanResult<String> {
    json::read(document, binary).map_err(|refused| match refused {
        Refused::Text(error) => invalid(document, &error),
        Refused::Number => PlanError::new(sqlstate::OUT_OF_RANGE, "value overflows numeric format"),
    })
}

fn invalid(document: &str, error: &serde_json::Error) -> PlanError {
    /// Of a long document the beginning says which it is.
    const SHOWN: usize = 100;
    let shown: String = document.chars().take(SHOWN).collect();
    let more = if shown.len() < document.len() { "…" } else { "" };
    if error.to_string().starts_with(NO_ZERO) {
        return PlanError::new("22P05", "unsupported Unicode escape sequence")
            .detail(format!("{NO_ZERO}, in {shown}{more}"));
    }
    PlanError::new(sqlstate::INVALID_TEXT, "invalid input syntax for type json")
        .detail(format!("{error}, in {shown}{more}"))
        .hint("-> and ->> read text that is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    #[test]
    fn paths_are_read_as_postgresql_reads_arrays() {
        let some = |steps: &[&str]| Some(steps.iter().map(|step| Some((*step).to_string())).collect::<Vec<_>>());
        for (text, expected) in [
            ("{}", some(&[])),
            ("{a}", some(&["a"])),
            (" { a b , 0 ,\"c,\\\"d\" , \"\"} ", some(&["a b", "0", "c,\"d", ""])),
            ("{a\\,b}", some(&["a,b"])),
            ("a", None),
            ("{a", None),
            ("{a,}", None),
            ("{,a}", None),
            ("{{a}}", None),
            ("{\"a}", None),
        ] {
            assert_eq!(steps(text), expected, "{text}");
        }
        assert_eq!(steps("{null,\"null\"}"), Some(vec![None, Some("null".to_string())]));
    }

    #[tokio::test]
    async fn the_operators_are_read_in_sql_with_postgresql_precedence() {
        let context = SessionContext::new_with_state(crate::functions::planning_state("UTC"));
        let sql = r#"SELECT (d ->> 'n')::bigint + 1 = 8 AND d ->> 'x' IS NULL AND d ->> 's' = 'it' AND d -> 'a' ->> -1 = '2.50'
            AND d #>> '{a,0,b}' = 'c' AND d #> ARRAY['a','1'] = '2.50' AND d -> 's' = '"it"' AND d #>> '{a,b}' IS NULL AS all_right
            FROM (VALUES ('{"n": 7, "s": "it", "a": [{"b": "c"}, 2.50]}')) AS t (d)"#;
        let rows = context.sql(sql).await.expect("it plans").collect().await.expect("it runs");
        assert!(rows[0].column(0).as_boolean().value(0));
    }
}
