//! The operators of `jsonb` that PostgreSQL has and `json` has not: `||` merges two documents, `@>` asks whether one has what the
//! other has, `-` leaves out a field or an item. What they are given is a text here, which is read as `jsonb` first.
//!
//! `||` and `-` have another meaning beside other types, and whether a text is a document is known when a query is bound (`compared.rs`).

use super::{invalid, read_one};
use crate::{PlanError, PlanResult, error::sqlstate};
use arrow_schema::{DataType, Field, FieldRef};
use datafusion::{
    arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, StringBuilder},
    arrow::datatypes::Int64Type,
    common::{Result, exec_err},
    logical_expr::{
        ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
        Volatility,
    },
};
use std::{borrow::Cow, sync::Arc};
use tidemark_catalog::json::Slice;

/// The function behind `||`.
pub const CONCAT: &str = "jsonb_concat";
/// The function behind `@>`, and behind `<@` with its arguments the other way round.
pub const CONTAINS: &str = "jsonb_contains";
/// The function behind `-`.
pub const DELETE: &str = "jsonb_delete";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    Concat,
    Contains,
    Delete,
}

impl Change {
    pub const ALL: [Change; 3] = [Change::Concat, Change::Contains, Change::Delete];

    pub fn function(self) -> ScalarUDF {
        let texts = TypeSignature::Exact(vec![DataType::Utf8, DataType::Utf8]);
        let place = TypeSignature::Exact(vec![DataType::Utf8, DataType::Int64]);
        let signatures = if self == Change::Delete { vec![place, texts] } else { vec![texts] };
        ScalarUDF::new_from_impl(Changed {
            change: self,
            signature: Signature::one_of(signatures, Volatility::Immutable),
        })
    }

    fn gives(self) -> DataType {
        match self {
            Change::Contains => DataType::Boolean,
            Change::Concat | Change::Delete => DataType::Utf8,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Changed {
    change: Change,
    signature: Signature,
}

impl ScalarUDFImpl for Changed {
    fn name(&self) -> &str {
        match self.change {
            Change::Concat => CONCAT,
            Change::Contains => CONTAINS,
            Change::Delete => DELETE,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.change.gives())
    }

    /// NULL of NULL alone, as `||` of texts, in whose place it comes.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.change.gives(), nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let [documents, second] = arrays.as_slice() else { return exec_err!("{} takes two arguments", self.name()) };
        let documents = documents.as_string::<i32>();
        let known = |row: usize| !documents.is_null(row) && !second.is_null(row);
        let changed: ArrayRef = match self.change {
            Change::Contains => {
                let wanted = second.as_string::<i32>();
                let mut answers = BooleanBuilder::with_capacity(documents.len());
                for row in 0..documents.len() {
                    let answer = known(row).then(|| contained(documents.value(row), wanted.value(row)));
                    answers.append_option(answer.transpose()?);
                }
                Arc::new(answers.finish())
            }
            Change::Concat => {
                let right = second.as_string::<i32>();
                texts(documents.len(), |row| known(row).then(|| concat(documents.value(row), right.value(row))))?
            }
            Change::Delete => match second.as_primitive_opt::<Int64Type>() {
                Some(places) => texts(documents.len(), |row| {
                    known(row).then(|| without_place(documents.value(row), places.value(row)))
                })?,
                None => {
                    let names = second.as_string::<i32>();
                    texts(documents.len(), |row| known(row).then(|| without(documents.value(row), names.value(row))))?
                }
            },
        };
        Ok(ColumnarValue::Array(changed))
    }
}

fn texts(rows: usize, each: impl Fn(usize) -> Option<PlanResult<String>>) -> PlanResult<ArrayRef> {
    let mut texts = StringBuilder::new();
    for row in 0..rows {
        texts.append_option(each(row).transpose()?);
    }
    Ok(Arc::new(texts.finish()))
}

fn parsed(document: &str) -> PlanResult<Slice<'_>> {
    Slice::of(document).map_err(|error| invalid(document, &error))
}

/// Fields of both, of one name the right one's; else the items of both, where what is no array is one item.
fn concat(left: &str, right: &str) -> PlanResult<String> {
    let (one, other) = (parsed(left)?, parsed(right)?);
    let (begin, end, wanted) = match (one.kind(), other.kind()) {
        ("object", "object") => ('{', '}', "object"),
        _ => ('[', ']', "array"),
    };
    let mut joined = String::with_capacity(left.len() + right.len() + 3);
    joined.push(begin);
    for document in [one, other] {
        let written = document.as_written();
        let inside =
            if document.kind() == wanted { written.get(1..written.len() - 1).unwrap_or_default() } else { written };
        if inside.trim().is_empty() {
            continue;
        }
        if joined.len() > 1 {
            joined.push(',');
        }
        joined.push_str(inside);
    }
    joined.push(end);
    // Writes every field once, with its last value.
    read_one(&joined, true)
}

fn contained(document: &str, wanted: &str) -> PlanResult<bool> {
    let (document, wanted) = (read_one(document, true)?, read_one(wanted, true)?);
    let (document, wanted) = (parsed(&document)?, parsed(&wanted)?);
    // An array has a value that is no array, as if it were in one; only here, and not inside of documents.
    Ok(match (document.kind(), is_scalar(wanted)) {
        ("array", true) => document.items().any(|item| is_equal(item, wanted)),
        _ => has_all(document, wanted),
    })
}

fn is_scalar(value: Slice<'_>) -> bool {
    !matches!(value.kind(), "object" | "array")
}

/// Of two documents that are written as `jsonb`.
fn has_all(document: Slice<'_>, wanted: Slice<'_>) -> bool {
    match (document.kind(), wanted.kind()) {
        ("object", "object") => wanted.fields().all(|(name, value)| {
            let mut fields = document.fields();
            let own = fields.find(|(own, _)| own.as_written() == name.as_written());
            own.is_some_and(|(_, own)| has_all(own, value))
        }),
        ("array", "array") => wanted.items().all(|item| document.items().any(|own| has_all(own, item))),
        _ => is_scalar(document) && is_equal(document, wanted),
    }
}

/// Of two scalars that are written as `jsonb`: numbers by value, whatever zeros are behind the point.
fn is_equal(one: Slice<'_>, other: Slice<'_>) -> bool {
    match (one.kind(), other.kind()) {
        ("number", "number") => without_zeros(one.as_written()) == without_zeros(other.as_written()),
        _ => one.as_written() == other.as_written(),
    }
}

fn without_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

fn refused(message: &str, hint: &str) -> PlanError {
    PlanError::new(sqlstate::INVALID_PARAMETER, message).hint(hint)
}

fn of_scalar() -> PlanError {
    refused("cannot delete from scalar", "jsonb_typeof(x) says what a document is")
}

/// Without the field of that name, or without the strings that are it.
fn without(document: &str, name: &str) -> PlanResult<String> {
    let held = read_one(document, true)?;
    let document = parsed(&held)?;
    let text = |value: Slice<'_>| value.text().ok().flatten().map(Cow::into_owned);
    let is_named = |value: Slice<'_>| value.kind() == "string" && text(value).as_deref() == Some(name);
    match document.kind() {
        "object" => {
            let kept = document.fields().filter(|(own, _)| !is_named(*own));
            let kept: Vec<String> =
                kept.map(|(own, value)| format!("{}: {}", own.as_written(), value.as_written())).collect();
            Ok(format!("{{{}}}", kept.join(", ")))
        }
        "array" => {
            let kept: Vec<&str> = document.items().filter(|item| !is_named(*item)).map(Slice::as_written).collect();
            Ok(format!("[{}]", kept.join(", ")))
        }
        _ => Err(of_scalar()),
    }
}

/// Without the item of that place, from 0, or from the end for a negative one.
fn without_place(document: &str, place: i64) -> PlanResult<String> {
    let held = read_one(document, true)?;
    let document = parsed(&held)?;
    match document.kind() {
        "array" => {
            let items: Vec<&str> = document.items().map(Slice::as_written).collect();
            let from_start = if place < 0 { (items.len() as i64).saturating_add(place) } else { place };
            let kept = items.iter().enumerate().filter(|(at, _)| usize::try_from(from_start) != Ok(*at));
            let kept: Vec<&str> = kept.map(|(_, item)| *item).collect();
            Ok(format!("[{}]", kept.join(", ")))
        }
        "object" => Err(refused("cannot delete from object using integer index", "name the field: x - 'name'")),
        _ => Err(of_scalar()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 answers.
    #[test]
    fn documents_are_merged_as_in_postgresql() {
        for (left, right, expected) in [
            ("{\"b\":1}", "{\"c\":3}", "{\"b\": 1, \"c\": 3}"),
            ("{\"b\":1,\"a\":2}", " {\"b\":[ ]} ", "{\"a\": 2, \"b\": []}"),
            ("{}", "{\"a\":1}", "{\"a\": 1}"),
            ("{ }", "{}", "{}"),
            ("[1]", "2", "[1, 2]"),
            ("1", "\"x\"", "[1, \"x\"]"),
            ("[]", "[ ]", "[]"),
            ("{}", "[]", "[{}]"),
            ("[1,[2]]", "{\"a\":null}", "[1, [2], {\"a\": null}]"),
        ] {
            assert_eq!(concat(left, right).ok().as_deref(), Some(expected), "{left} || {right}");
        }
        assert!(concat("{", "}").is_err());
    }

    #[test]
    fn containment_is_that_of_postgresql() {
        for (document, wanted, expected) in [
            ("{\"a\":1,\"b\":[1,2.50,null]}", "{\"b\":[2.5]}", true),
            ("{\"a\":1}", "{}", true),
            ("{\"a\":1}", "{\"a\":2}", false),
            ("{\"a\":{\"b\":1,\"c\":2}}", "{\"a\":{\"c\":2.0}}", true),
            ("{\"a\":{\"b\":1}}", "{\"b\":1}", false),
            ("[1,2,3]", "[3,1,1]", true),
            ("[1,[1,3]]", "[[1]]", true),
            ("[1,[1,3]]", "[3]", false),
            ("[\"x\",\"y\"]", "\"x\"", true),
            ("[[\"x\"]]", "\"x\"", false),
            ("\"x\"", "[\"x\"]", false),
            ("{\"a\":[1]}", "{\"a\":1}", false),
            ("[]", "{}", false),
            ("1", "1.0", true),
            ("10", "1", false),
            ("true", "true", true),
        ] {
            assert_eq!(contained(document, wanted).ok(), Some(expected), "{document} @> {wanted}");
        }
    }

    #[test]
    fn fields_and_items_are_left_out() {
        for (document, name, expected) in [
            ("{\"a\":1,\"b\":2}", "a", Some("{\"b\": 2}")),
            ("{\"a\":1}", "x", Some("{\"a\": 1}")),
            ("[\"a\",1,\"b\",\"a\"]", "a", Some("[1, \"b\"]")),
            ("1", "a", None),
        ] {
            assert_eq!(without(document, name).ok().as_deref(), expected, "{document} - {name}");
        }
        for (document, place, expected) in [
            ("[1,2,3]", 0, Some("[2, 3]")),
            ("[1,2,3]", -1, Some("[1, 2]")),
            ("[1]", 7, Some("[1]")),
            ("[1]", -7, Some("[1]")),
            ("{}", 0, None),
        ] {
            assert_eq!(without_place(document, place).ok().as_deref(), expected, "{document} - {place}");
        }
    }
}
