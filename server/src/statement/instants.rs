//! Parameters that stand for an instant: `FOR SYSTEM_TIME AS OF $1`, `ADVANCE WATERMARK TO $1`. Which instant it is decides
//! what is planned, so it cannot come into the plan afterwards, as other parameters do: it is written into the statement
//! as a literal before that is bound. All parameters keep their numbers.
//!
//! ```text
//! FROM v FOR SYSTEM_TIME AS OF $1 WHERE k = $2                                 prepared
//! FROM v FOR SYSTEM_TIME AS OF TIMESTAMPTZ '2026-03-02T10:…Z' WHERE k = $2     planned: at now to learn the columns, then
//!                                                                              for each execution at the instant given
//! ```

use crate::{
    pg::PgError,
    prepared::parameter_number,
    wire::{
        SessionZone,
        parse_text::parse_timestamptz,
        types::{arrow_type, oid, type_name},
    },
};
use arrow::datatypes::DataType;
use chrono::{DateTime, Datelike};
use datafusion::{
    scalar::ScalarValue,
    sql::sqlparser::ast::{
        self, Expr, Query, TableFactor, TableVersion, TimezoneInfo, TypedString, Value, Visit, VisitMut, Visitor,
        VisitorMut,
    },
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

/// What is written for each of these parameters.
type Literals = BTreeMap<usize, Expr>;

/// The numbers, from 1, of those in a query.
pub fn of_query(query: &Query) -> BTreeSet<usize> {
    struct Search(BTreeSet<usize>);
    impl Visitor for Search {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(at)), .. } = factor {
                self.0.append(&mut of_expression(at));
            }
            ControlFlow::Continue(())
        }
    }
    let mut search = Search(BTreeSet::new());
    let _ = query.visit(&mut search);
    search.0
}

/// The numbers of the parameters in an expression that is an instant.
pub fn of_expression(at: &Expr) -> BTreeSet<usize> {
    let mut numbers = BTreeSet::new();
    let _ = ast::visit_expressions(at, |expr| {
        numbers.extend(number(expr));
        ControlFlow::<()>::Continue(())
    });
    numbers
}

fn number(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(name) = &value.value else { return None };
    parameter_number(name)
}

/// The types of all parameters: as the client declared them, and `timestamptz` for these where it did not.
pub fn declared(numbers: &BTreeSet<usize>, declared: &[u32]) -> Result<Vec<u32>, PgError> {
    let mut declared = declared.to_vec();
    for number in numbers {
        if declared.len() < *number {
            declared.resize(*number, 0);
        }
        let ty = &mut declared[number - 1];
        match (*ty, arrow_type(*ty)) {
            (0 | oid::UNKNOWN, _) => *ty = oid::TIMESTAMPTZ,
            (_, Some(DataType::Timestamp(..) | DataType::Date32 | DataType::Utf8)) => {}
            (other, _) => return Err(no_instant(*number, &type_name(other))),
        }
    }
    Ok(declared)
}

/// The query as it can be bound where the instants are not known yet.
pub fn standing_in<'a>(query: &'a Query, numbers: &BTreeSet<usize>, now_us: i64) -> Result<Cow<'a, Query>, PgError> {
    let literals = numbers.iter().map(|number| literal(*number, now_us).map(|literal| (*number, literal)));
    Ok(written_into(query, &literals.collect::<Result<Literals, PgError>>()?))
}

/// The query with its instants; times without a zone are in `zone`.
pub fn written<'a>(
    query: &'a Query,
    parameters: &[ScalarValue],
    zone: &SessionZone,
) -> Result<Cow<'a, Query>, PgError> {
    Ok(written_into(query, &literals(&of_query(query), parameters, zone)?))
}

/// The same for an expression that is an instant.
pub fn written_expression(at: &Expr, parameters: &[ScalarValue], zone: &SessionZone) -> Result<Expr, PgError> {
    let literals = literals(&of_expression(at), parameters, zone)?;
    let mut at = at.clone();
    write_into(&mut at, &literals);
    Ok(at)
}

fn written_into<'a>(query: &'a Query, literals: &Literals) -> Cow<'a, Query> {
    struct Write<'l>(&'l Literals);
    impl VisitorMut for Write<'_> {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            if let TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(at)), .. } = factor {
                write_into(at, self.0);
            }
            ControlFlow::Continue(())
        }
    }
    if literals.is_empty() {
        return Cow::Borrowed(query);
    }
    let mut query = query.clone();
    let _ = VisitMut::visit(&mut query, &mut Write(literals));
    Cow::Owned(query)
}

fn write_into(at: &mut Expr, literals: &Literals) {
    let _ = ast::visit_expressions_mut(at, |expr| {
        if let Some(literal) = number(expr).and_then(|number| literals.get(&number)) {
            *expr = literal.clone();
        }
        ControlFlow::<()>::Continue(())
    });
}

fn literals(numbers: &BTreeSet<usize>, parameters: &[ScalarValue], zone: &SessionZone) -> Result<Literals, PgError> {
    let of = |number: usize| -> Result<Expr, PgError> {
        let missing = || PgError::error("42P02", format!("there is no parameter ${number}"));
        literal(number, instant(number, parameters.get(number - 1).ok_or_else(missing)?, zone)?)
    };
    numbers.iter().map(|number| of(*number).map(|literal| (*number, literal))).collect()
}

/// A parameter's value, microseconds.
fn instant(number: usize, value: &ScalarValue, zone: &SessionZone) -> Result<i64, PgError> {
    const DAY_US: i64 = 86_400_000_000;
    if value.is_null() {
        return Err(PgError::error("22004", format!("parameter ${number} must not be null: it stands for an instant")));
    }
    let local = |us: Option<i64>| us.and_then(|us| zone.local_to_utc(us)).ok_or_else(|| out_of_range(number));
    match value {
        ScalarValue::TimestampMicrosecond(Some(us), Some(_)) => Ok(*us),
        ScalarValue::TimestampMicrosecond(us, None) => local(*us),
        ScalarValue::Date32(days) => local(days.and_then(|days| i64::from(days).checked_mul(DAY_US))),
        ScalarValue::Utf8(Some(text)) => Ok(parse_timestamptz(text, zone)?),
        other => Err(no_instant(number, &tidemark_planner::words::type_name(&other.data_type()))),
    }
}

/// `TIMESTAMPTZ '…'`. Four digits of year are what the planner reads.
fn literal(number: usize, us: i64) -> Result<Expr, PgError> {
    let instant = DateTime::from_timestamp_micros(us).filter(|instant| (0..=9999).contains(&instant.year()));
    let text = instant.ok_or_else(|| out_of_range(number))?.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    Ok(Expr::TypedString(TypedString {
        data_type: ast::DataType::Timestamp(None, TimezoneInfo::Tz),
        value: Value::SingleQuotedString(text).into(),
        uses_odbc_syntax: false,
    }))
}

fn out_of_range(number: usize) -> PgError {
    PgError::error("22008", format!("timestamp out of range: parameter ${number}"))
        .hint("it stands for an instant, of the years 1 to 9999")
}

fn no_instant(number: usize, ty: &str) -> PgError {
    PgError::error("42804", format!("parameter ${number} must be type timestamp with time zone, not type {ty}"))
        .hint("it stands for an instant")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_planner::{Statement, parse::parse};

    fn query(sql: &str) -> Box<Query> {
        let parsed = parse(sql).expect("it parses").into_iter().next().map(|parsed| parsed.statement);
        let Some(Statement::Query(query)) = parsed else { panic!("{sql} is no query") };
        query
    }

    const SQL: &str = "SELECT $1 FROM v FOR SYSTEM_TIME AS OF $3::timestamptz - INTERVAL '1 hour' JOIN \
                       (SELECT k FROM v FOR SYSTEM_TIME AS OF $3) w USING (k) WHERE k = $2";

    #[test]
    fn only_the_parameters_of_instants_are_written_into_the_query() {
        let query = query(SQL);
        assert_eq!(of_query(&query), BTreeSet::from([3]));
        let at = ScalarValue::TimestampMicrosecond(Some(1_500_000), Some("+00:00".into()));
        let values = [ScalarValue::Null, ScalarValue::Null, at];
        let written = written(&query, &values, &SessionZone::UTC).expect("it can be written").to_string();
        assert_eq!(written.matches("'1970-01-01T00:00:01.500000Z'").count(), 2, "{written}");
        assert!(written.contains("SELECT $1") && written.contains("k = $2") && !written.contains("$3"), "{written}");
    }

    #[test]
    fn an_instant_is_a_timestamptz_unless_the_client_says_another_way_to_write_one() {
        let numbers = BTreeSet::from([2]);
        assert_eq!(declared(&numbers, &[]), Ok(vec![0, oid::TIMESTAMPTZ]));
        assert_eq!(declared(&numbers, &[oid::INT8, oid::UNKNOWN]), Ok(vec![oid::INT8, oid::TIMESTAMPTZ]));
        assert_eq!(declared(&numbers, &[0, oid::VARCHAR]), Ok(vec![0, oid::VARCHAR]));
        let refused = declared(&numbers, &[0, oid::INT8]).map_err(|error| error.message);
        assert_eq!(refused, Err("parameter $2 must be type timestamp with time zone, not type bigint".to_owned()));
    }

    #[test]
    fn what_has_no_zone_is_in_the_sessions() {
        let berlin = SessionZone::parse("Europe/Berlin").expect("a zone");
        let noon = 1_782_900_000_000_000; // 2026-07-01 10:00 UTC
        let local = ScalarValue::TimestampMicrosecond(Some(noon + 7_200_000_000), None);
        let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
        for value in [local, text("2026-07-01 12:00"), text("2026-07-01 10:00:00+00")] {
            assert_eq!(instant(1, &value, &berlin), Ok(noon), "{value}");
        }
        let null = ScalarValue::TimestampMicrosecond(None, Some("+00:00".into()));
        assert_eq!(instant(1, &null, &berlin).map_err(|error| error.sqlstate), Err("22004"));
        let infinite = ScalarValue::TimestampMicrosecond(Some(i64::MAX), Some("+00:00".into()));
        let infinite = instant(1, &infinite, &berlin).and_then(|us| literal(1, us));
        assert_eq!(infinite.map_err(|error| error.sqlstate), Err("22008"));
    }
}
