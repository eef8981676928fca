//! `to_date(text, pattern)` and `to_timestamp(text, pattern)` with PostgreSQL's patterns; DataFusion's functions take
//! chrono's, which have a `%` in them, and still get those. Both are casts of what a clock on the wall shows:
//!
//! ```text
//! to_timestamp(t, 'DD.MM.YYYY HH24:MI')     CAST(time_by_pattern(t, 'DD.MM.YYYY HH24:MI') AS TIMESTAMPTZ)
//! ```

use super::pattern::Pattern;
use crate::{PlanError, PlanResult, respelled::call, zone::wall};
use arrow::array::{AsArray, TimestampMicrosecondArray};
use arrow_schema::DataType;
use chrono::{
    NaiveDateTime, NaiveTime,
    format::{Parsed, StrftimeItems, parse_and_remainder},
};
use datafusion::{
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
    sql::sqlparser::ast::{self, CastKind, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, TimezoneInfo, Value},
};
use std::sync::Arc;

const TIME_BY_PATTERN: &str = "time_by_pattern";

/// Writes a call with a literal pattern of PostgreSQL's as one of ours.
pub(crate) fn call_by_pattern(expr: &mut Expr) {
    let Expr::Function(function) = expr else { return };
    let data_type = match function.name.to_string().to_lowercase().as_str() {
        "to_date" => ast::DataType::Date,
        "to_timestamp" => ast::DataType::Timestamp(None, TimezoneInfo::Tz),
        _ => return,
    };
    let FunctionArguments::List(list) = &mut function.args else { return };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(text)), FunctionArg::Unnamed(FunctionArgExpr::Expr(pattern))] =
        list.args.as_mut_slice()
    else {
        return;
    };
    let is_ours = match &*pattern {
        Expr::Value(value) => matches!(&value.value, Value::SingleQuotedString(text) if !text.contains('%')),
        _ => false,
    };
    if is_ours {
        let taken = |from: &mut Expr| std::mem::replace(from, Expr::value(Value::Null));
        let called = Box::new(call(TIME_BY_PATTERN, [taken(text), taken(pattern)]));
        *expr = Expr::Cast { kind: CastKind::Cast, expr: called, data_type, array: false, format: None };
    }
}

pub(super) fn time_by_pattern() -> ScalarUDF {
    let signature = Signature::exact(vec![DataType::Utf8, DataType::Utf8], Volatility::Immutable);
    ScalarUDF::from(TimeByPattern { signature })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeByPattern {
    signature: Signature,
}

impl ScalarUDFImpl for TimeByPattern {
    fn name(&self) -> &str {
        TIME_BY_PATTERN
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(wall())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let (texts, patterns) = (arrays[0].as_string::<i32>(), arrays[1].as_string::<i32>());
        let mut parsed: Option<(&str, String)> = None;
        let times = texts.iter().zip(patterns).map(|row| -> Result<Option<i64>> {
            let (Some(text), Some(pattern)) = row else { return Ok(None) };
            if parsed.as_ref().is_none_or(|(of, _)| *of != pattern) {
                parsed = Some((pattern, chronos(pattern)?));
            }
            let time = parsed.as_ref().and_then(|(_, format)| read(text, format));
            let invalid = || {
                PlanError::new("22007", format!("invalid value \"{text}\" for pattern \"{pattern}\""))
                    .hint("the text has to follow the pattern letter by letter")
            };
            Ok(Some(time.ok_or_else(invalid)?.and_utc().timestamp_micros()))
        });
        Ok(ColumnarValue::Array(Arc::new(times.collect::<Result<TimestampMicrosecondArray>>()?)))
    }
}

fn chronos(pattern: &str) -> PlanResult<String> {
    Pattern::parse(pattern).to_read().ok_or_else(|| {
        PlanError::unsupported(format!("a text cannot be read by the pattern \"{pattern}\""))
            .hint("it may have YYYY, YY, MM, Month, Mon, DD, DDD, Day, Dy, HH24, HH12, AM, MI, SS, MS and US")
    })
}

/// As PostgreSQL: without a month or a day it is the first, without a time midnight, and what follows is ignored. Only the
/// year has to be there.
fn read(text: &str, format: &str) -> Option<NaiveDateTime> {
    let mut said = Parsed::new();
    parse_and_remainder(&mut said, text, StrftimeItems::new(format)).ok()?;
    if said.ordinal().is_none() {
        said.set_month(said.month().unwrap_or(1).into()).ok()?;
        said.set_day(said.day().unwrap_or(1).into()).ok()?;
    }
    let is_timed = said.hour_mod_12().is_some() || said.minute().is_some() || said.second().is_some();
    if is_timed {
        said.set_ampm(said.hour_div_12() == Some(1)).ok()?;
        said.set_minute(said.minute().unwrap_or(0).into()).ok()?;
    }
    let time = if is_timed { said.to_naive_time().ok()? } else { NaiveTime::MIN };
    Some(said.to_naive_date().ok()?.and_time(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_by_postgresql() {
        for (text, pattern, expected) in [
            ("01/07/2026", "DD/MM/YYYY", Some("2026-07-01 00:00:00")),
            ("2026-07", "YYYY-MM", Some("2026-07-01 00:00:00")),
            ("20260701", "YYYYMMDD", Some("2026-07-01 00:00:00")),
            ("Jul 5, 2026", "Mon DD, YYYY", Some("2026-07-05 00:00:00")),
            ("5 July 2026", "DD Month YYYY", Some("2026-07-05 00:00:00")),
            ("99", "YY", Some("1999-01-01 00:00:00")),
            ("2026 186", "YYYY DDD", Some("2026-07-05 00:00:00")),
            ("2026-07-01 14:05:06.5", "YYYY-MM-DD HH24:MI:SS.MS", Some("2026-07-01 14:05:06.500")),
            ("2026-07-01T14:05:06", "YYYY-MM-DD\"T\"HH24:MI:SS", Some("2026-07-01 14:05:06")),
            ("2026-07-01 02:05 PM", "YYYY-MM-DD HH12:MI AM", Some("2026-07-01 14:05:00")),
            ("2026-07-01 12:05", "YYYY-MM-DD HH:MI", Some("2026-07-01 00:05:00")),
            ("2026-07-01 14", "YYYY-MM-DD HH24", Some("2026-07-01 14:00:00")),
            ("2026-07-01 12", "YYYY-MM-DD", Some("2026-07-01 00:00:00")),
            ("2026-07-01 14:05", "YYYY-MM-DD HH:MI", None),
            ("2026-13-01", "YYYY-MM-DD", None),
            ("2026-02-30", "YYYY-MM-DD", None),
            ("14:05", "HH24:MI", None),
            ("soon", "YYYY", None),
        ] {
            let format = chronos(pattern).unwrap();
            assert_eq!(read(text, &format).map(|time| time.to_string()).as_deref(), expected, "{text}");
        }
        assert_eq!(chronos("YYYY-MM-DD TZ").unwrap_err().sqlstate, "0A000");
    }
}
