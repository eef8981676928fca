//! `repeat`, `lpad`, `rpad` and `replace`: they make much of little, so what they would make is counted before any memory is taken for it.

use crate::{PlanError, PlanResult, error::sqlstate};
use arrow::{
    array::{Array, AsArray},
    datatypes::Int64Type,
};
use arrow_schema::{DataType, FieldRef};
use datafusion::{
    common::ScalarValue,
    error::Result,
    functions::{string, unicode},
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature},
};
use std::sync::Arc;

/// What one value may become, in bytes, and what those of one batch of rows may together. On its way to a client a value is there several
/// times, in a batch, a row and a message: a gigabyte, PostgreSQL's bound, would be some gigabytes here, and a server has one memory.
pub const LENGTH_MAX: usize = 256 * 1024 * 1024;

pub(super) fn functions() -> impl Iterator<Item = ScalarUDF> {
    [
        (string::repeat(), Makes::Repeated),
        (unicode::lpad(), Makes::Padded),
        (unicode::rpad(), Makes::Padded),
        (string::replace(), Makes::Replaced),
    ]
    .into_iter()
    .map(|(inner, makes)| ScalarUDF::from(Bounded { inner, makes }))
}

/// What is refused, in PostgreSQL's words.
#[must_use]
pub fn too_long(function: &str) -> PlanError {
    let most = LENGTH_MAX / (1024 * 1024);
    PlanError::new(sqlstate::PROGRAM_LIMIT, "requested length too large")
        .detail(format!("{function} would make more than {most} MB, of one row or of the rows of one batch"))
        .hint("ask for a shorter text, or for fewer rows at a time")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Makes {
    Repeated,
    Padded,
    Replaced,
}

/// DataFusion's function, asked after its lengths were counted.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    makes: Makes,
}

impl Bounded {
    fn check(&self, args: &[ColumnarValue], rows: usize) -> PlanResult<()> {
        let is_constant = args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { rows };
        let is_too_long = |exactly: bool| {
            let mut total: usize = 0;
            (0..rows).any(|at| {
                total = total.saturating_add(self.makes.bytes(args, at, exactly).unwrap_or(0));
                total > LENGTH_MAX
            })
        };
        // Nearly always the first says that it is not.
        if is_too_long(false) && is_too_long(true) { Err(too_long(self.inner.name())) } else { Ok(()) }
    }
}

impl Makes {
    /// No fewer than the row's value will have, and than its text has, which is copied where it is a constant; not `exactly`: without
    /// reading the text. `None`: it is NULL.
    fn bytes(self, args: &[ColumnarValue], at: usize, exactly: bool) -> Option<usize> {
        let own = text(args.first()?, at)?;
        let more = match self {
            Makes::Repeated => own.len().saturating_mul(times(args.get(1)?, at)?.saturating_sub(1)),
            Makes::Padded => {
                let fill = match args.get(2) {
                    Some(fill) => text(fill, at)?,
                    None => " ",
                };
                let has = if exactly { own.chars().count() } else { 0 };
                let widest = fill.chars().map(char::len_utf8).max().unwrap_or(0);
                times(args.get(1)?, at)?.saturating_sub(has).saturating_mul(widest)
            }
            Makes::Replaced => {
                let (from, to) = (text(args.get(1)?, at)?, text(args.get(2)?, at)?);
                let places = if exactly { own.matches(from).count() } else { own.len() / from.len().max(1) + 1 };
                places.saturating_mul(to.len())
            }
        };
        Some(own.len().saturating_add(more))
    }
}

fn text(arg: &ColumnarValue, at: usize) -> Option<&str> {
    match arg {
        ColumnarValue::Scalar(ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text)) => {
            text.as_deref()
        }
        ColumnarValue::Array(array) if array.is_valid(at) => match array.data_type() {
            DataType::Utf8 => Some(array.as_string::<i32>().value(at)),
            DataType::LargeUtf8 => Some(array.as_string::<i64>().value(at)),
            DataType::Utf8View => Some(array.as_string_view().value(at)),
            _ => None,
        },
        _ => None,
    }
}

fn times(arg: &ColumnarValue, at: usize) -> Option<usize> {
    let number = match arg {
        ColumnarValue::Scalar(ScalarValue::Int64(number)) => *number,
        ColumnarValue::Array(array) if array.is_valid(at) => {
            array.as_primitive_opt::<Int64Type>().map(|numbers| numbers.value(at))
        }
        _ => None,
    };
    number.map(|number| usize::try_from(number).unwrap_or(0))
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&arguments.args, arguments.number_rows)?;
        self.inner.invoke_with_args(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    fn is_refused(name: &str, args: &[ScalarValue]) -> bool {
        let inner = [string::repeat(), unicode::lpad(), string::replace()].into_iter().find(|one| one.name() == name);
        let makes = match name {
            "repeat" => Makes::Repeated,
            "lpad" => Makes::Padded,
            _ => Makes::Replaced,
        };
        let args: Vec<ColumnarValue> = args.iter().cloned().map(ColumnarValue::Scalar).collect();
        Bounded { inner: inner.expect("a function"), makes }.check(&args, 1).is_err()
    }

    #[test]
    fn a_value_is_bounded_before_it_is_made() {
        let text = |text: &str| ScalarValue::from(text);
        let number = |number: i64| ScalarValue::Int64(Some(number));
        let most = i64::try_from(LENGTH_MAX).expect("a number");
        for (name, args, refused) in [
            ("repeat", vec![text("a"), number(most)], false),
            ("repeat", vec![text("a"), number(most + 1)], true),
            ("repeat", vec![text("ab"), number(i64::MAX)], true),
            ("repeat", vec![text(""), number(i64::MAX)], false),
            ("repeat", vec![text("a"), number(-1)], false),
            ("repeat", vec![ScalarValue::Utf8(None), number(i64::MAX)], false),
            ("repeat", vec![text("a"), ScalarValue::Int64(None)], false),
            ("lpad", vec![text("a"), number(most)], false),
            ("lpad", vec![text("a"), number(most + 1)], true),
            ("lpad", vec![text("a"), number(most / 2 + 1), text("é")], true),
            ("lpad", vec![text("a"), number(most), text("")], false),
            ("replace", vec![text(&"a".repeat(20_000)), text("a"), text(&"b".repeat(20_000))], true),
            ("replace", vec![text(&"a".repeat(20_000)), text("c"), text(&"b".repeat(20_000))], false),
        ] {
            assert_eq!(is_refused(name, &args), refused, "{name} {}", args.len());
        }
    }

    #[test]
    fn the_rows_of_a_batch_are_counted_together() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), Some("c")]));
        let each = i64::try_from(LENGTH_MAX / 3).expect("a number");
        for (each, refused) in [(each, false), (each + 1, true)] {
            let counts: ArrayRef = Arc::new(Int64Array::from(vec![each, i64::MAX, each, each]));
            let args = [ColumnarValue::Array(texts.clone()), ColumnarValue::Array(counts)];
            let repeat = Bounded { inner: string::repeat(), makes: Makes::Repeated };
            assert_eq!(repeat.check(&args, 4).is_err(), refused, "{each}");
        }
    }
}
