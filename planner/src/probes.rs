//! The oracle's query: what a feature view means, as plain SQL that somebody else's engine can run.
//!
//! `EXPLAIN (FORMAT PROBES) CREATE FEATURE VIEW …` prints it. It is the definition of semantics section 7 written out:
//! for every probe `(k, t)` one aggregate over the key's events that are in the frame at `t`, with nothing incremental
//! about it. The text runs on PostgreSQL 15 or later, `TimeZone` UTC, over two tables that it describes in its head.
//!
//! Where PostgreSQL's own aggregates round differently (averages of integers are `numeric` there, sums of doubles
//! depend on the order), the query computes the exact sum in `numeric` and derives the value by our stated formula.

use crate::feature::{Aggregate, FeaturePlan, Frame, NOW_COLUMN, OutputKind, Slot};
use crate::{PlanError, PlanResult};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable};
use expression::{Printer, identifier, pg_type};
use std::fmt::Write;
use tidemark_catalog::SqlType;

mod expression;

/// The query that gives `V(k, t)` for each row of `probes`.
///
/// Result: the columns of `probes`, then `_event_time` (time of the key's latest event; NULL where `V` is absent), then
/// the view's columns in order, without the entity key and the time column.
pub fn probes_sql(plan: &FeaturePlan, view_name: &str) -> PlanResult<String> {
    let relation = df_schema(plan.relation_schema.fields().iter().map(|f| f.as_ref().clone()))?;
    let row = Printer::new(&relation, &|name| identifier(name));
    let event_time = plan.relation_schema.field(plan.event_time);
    let key_types = plan.key.iter().map(|key| type_of(key, &relation)).collect::<PlanResult<Vec<_>>>()?;
    let keys: Vec<String> = (0..key_types.len()).map(|i| format!("k{i}")).collect();

    let mut sql = head(plan, view_name, &key_types);
    let events = if plan.ttl_us.is_some() { "lives" } else { "filtered" };

    sql.push_str("WITH filtered AS MATERIALIZED (\n  SELECT ");
    for (i, key) in plan.key.iter().enumerate() {
        write_to(&mut sql, format_args!("{} AS k{i}, ", row.print(key)?));
    }
    write_to(&mut sql, format_args!("{} AS ts, _seq AS seq", instant(&identifier(event_time.name()), event_time)));
    for (i, input) in plan.inputs.iter().enumerate() {
        write_to(&mut sql, format_args!(",\n    {} AS a{i}", row.print(&input.expr)?));
    }
    sql.push_str("\n  FROM events\n  WHERE ");
    let mut conditions = Vec::new();
    for key in &plan.key {
        conditions.push(format!("{} IS NOT NULL", row.print(key)?));
    }
    conditions.extend(plan.filter.as_ref().map(|filter| row.print(filter)).transpose()?);
    write_to(&mut sql, format_args!("{}\n)", conditions.join("\n    AND ")));
    if let Some(ttl) = plan.ttl_us {
        let by_key = keys.join(", ");
        write_to(
            &mut sql,
            format_args!(
                ", lives AS MATERIALIZED (  -- a gap longer than the ttl ends a key's life\n  \
                 SELECT f.*, count(*) FILTER (WHERE f.gap) OVER (PARTITION BY {by_key} ORDER BY ts, seq) AS life\n  \
                 FROM (\n    SELECT *, ts > lag(ts) OVER (PARTITION BY {by_key} ORDER BY ts, seq) + {} AS gap\n    \
                 FROM filtered\n  ) f\n)",
                duration(ttl)
            ),
        );
    }

    // The outputs read slots by the lateral that computes them: raw columns from the latest event, the others from
    // their frame.
    let slot_types = plan.slots.iter().enumerate().map(|(i, slot)| column(format!("s{i}"), slot.ty()));
    let key_fields = key_types.iter().enumerate().map(|(i, ty)| column(format!("k{i}"), ty));
    let now = std::iter::once(column(NOW_COLUMN.to_owned(), &crate::table::instant_type()));
    let reading = df_schema(slot_types.chain(key_fields).chain(now))?;
    let name_reading = |name: &str| reading_column(plan, name);
    let output = Printer::new(&reading, &name_reading);

    sql.push_str("\nSELECT p.*, v.*\nFROM probes p\nLEFT JOIN LATERAL (\n  SELECT l.ts AS _event_time");
    for out in &plan.outputs {
        let value = match &out.kind {
            OutputKind::Key(_) | OutputKind::Time => continue,
            OutputKind::Slot(slot) => reading_column(plan, &format!("s{slot}")),
            OutputKind::Expr(expr) | OutputKind::TimeContinuous { expr, .. } => output.print(expr)?,
        };
        // −0 becomes 0.
        let value = if out.ty.is_floating() { format!("{value} + 0::float8") } else { value };
        write_to(&mut sql, format_args!(",\n    {value} AS {}", identifier(&out.name)));
    }
    let same_key = keys.iter().map(|k| format!("e.{k} = p.{k}")).collect::<Vec<_>>().join(" AND ");
    write_to(
        &mut sql,
        format_args!(
            "\n  FROM (  -- the key's latest event\n    SELECT * FROM {events} e WHERE {same_key} AND e.ts <= p.t \
             ORDER BY e.ts DESC, e.seq DESC LIMIT 1\n  ) l"
        ),
    );
    let same_life = if plan.ttl_us.is_some() { " AND e.life = l.life" } else { "" };
    for (index, frame) in plan.frames.iter().enumerate() {
        let aggregates = frame_aggregates(plan, index)?;
        if aggregates.is_empty() {
            continue;
        }
        write_to(
            &mut sql,
            format_args!(
                "\n  CROSS JOIN LATERAL (  -- {}\n    SELECT {}",
                frame_name(frame),
                aggregates.join(",\n      ")
            ),
        );
        match *frame {
            Frame::Range { start_us, end_us } => {
                let from = match start_us {
                    Some(start) => format!(" AND e.ts >= {}", before("p.t", start)),
                    None => String::new(),
                };
                write_to(
                    &mut sql,
                    format_args!(
                        "\n    FROM {events} e\n    WHERE {same_key}{same_life}{from} AND e.ts <= {}",
                        before("p.t", end_us)
                    ),
                );
            }
            Frame::Rows { start, end } => {
                let last = match start {
                    Some(start) => format!(" AND e.back <= {}", u128::from(start) + 1),
                    None => String::new(),
                };
                write_to(
                    &mut sql,
                    format_args!(
                        "\n    FROM (\n      SELECT e.*, row_number() OVER (ORDER BY e.ts DESC, e.seq DESC) AS back\n      \
                         FROM {events} e\n      WHERE {same_key}{same_life} AND e.ts <= p.t\n    ) e\n    \
                         WHERE e.back >= {}{last}",
                        u128::from(end) + 1
                    ),
                );
            }
        }
        write_to(&mut sql, format_args!("\n  ) f{index}"));
    }
    if let Some(ttl) = plan.ttl_us {
        write_to(&mut sql, format_args!("\n  WHERE p.t <= l.ts + {}", duration(ttl)));
    }
    sql.push_str("\n) v ON true");
    Ok(sql)
}

/// The comment that makes the text usable on its own: the two tables, and what may differ.
fn head(plan: &FeaturePlan, view_name: &str, key_types: &[DataType]) -> String {
    let mut sql = String::new();
    write_to(
        &mut sql,
        format_args!(
            "-- Feature view {}: its value V(k, t) at every probe, by definition. For PostgreSQL 15 or later.\n\
             -- _event_time is the time of the key's latest event; where it is NULL, V is absent.\n\
             -- Sums of doubles are exact for values of at most 15 significant decimal digits.\n--\n\
             --   SET TimeZone = {};\n\
             --   -- the admitted rows of {}; _seq is the order of arrival\n",
            identifier(view_name),
            text(&plan.time_zone),
            plan.relation_name
        ),
    );
    let mut columns: Vec<String> = Vec::new();
    for field in plan.relation_schema.fields() {
        columns.push(format!("{} {}", identifier(field.name()), pg_type(field.data_type())));
    }
    columns.push("_seq bigint".to_owned());
    write_to(&mut sql, format_args!("--   CREATE TABLE events ({});\n", columns.join(", ")));
    let keys: Vec<String> = key_types.iter().enumerate().map(|(i, ty)| format!("k{i} {}", pg_type(ty))).collect();
    let key_names: Vec<String> = plan
        .outputs
        .iter()
        .filter_map(|o| match o.kind {
            OutputKind::Key(i) => Some(format!("k{i} is {}", identifier(&o.name))),
            _ => None,
        })
        .collect();
    write_to(
        &mut sql,
        format_args!(
            "--   -- the questions: {}; t is the instant\n--   CREATE TABLE probes ({}, t timestamptz);\n",
            if key_names.is_empty() { "k0, … are the entity key".to_owned() } else { key_names.join(", ") },
            keys.join(", ")
        ),
    );
    sql
}

/// The aggregates over one frame, each `… AS s<slot>`.
fn frame_aggregates(plan: &FeaturePlan, frame_index: usize) -> PlanResult<Vec<String>> {
    let mut aggregates = Vec::new();
    for (index, slot) in plan.slots.iter().enumerate() {
        let Slot::Aggregate { function, arg, filter, frame, ty } = slot else { continue };
        if *frame != frame_index {
            continue;
        }
        let arg = arg.map(|a| (format!("e.a{a}"), &plan.inputs[a].ty));
        let filter = filter.map(|f| format!(" FILTER (WHERE e.a{f})")).unwrap_or_default();
        aggregates.push(format!("{} AS s{index}", aggregate(*function, arg, &filter, ty)?));
    }
    Ok(aggregates)
}

/// One aggregate, exactly as we compute it.
fn aggregate(function: Aggregate, arg: Option<(String, &DataType)>, filter: &str, ty: &DataType) -> PlanResult<String> {
    let Some((arg, arg_ty)) = arg else {
        return match function {
            Aggregate::Count => Ok(format!("count(*){filter}")),
            _ => Err(PlanError::new(crate::error::sqlstate::INTERNAL, format!("{function:?} without an argument"))),
        };
    };
    // The exact value of the argument; double precision to numeric goes through 15 decimal digits.
    let exact = match arg_ty {
        DataType::Float32 | DataType::Float16 => format!("{arg}::float8::numeric"),
        _ => format!("{arg}::numeric"),
    };
    let sum = format!("sum({exact}){filter}");
    let count = format!("count({arg}){filter}");
    let variance = |divisor: &str, at_least: u8| {
        format!(
            "CASE WHEN {count} >= {at_least} THEN\n        ({count} * sum({exact} * {exact}){filter} - {sum} * {sum})\
             ::float8 / ({divisor})::float8 END"
        )
    };
    let sample = format!("{count} * ({count} - 1)");
    let population = format!("{count} * {count}");
    Ok(match function {
        Aggregate::Count => count,
        Aggregate::Sum => match ty {
            // Out of the type's range is NULL in a view.
            DataType::Int64 if matches!(arg_ty, DataType::Int64) => {
                format!("CASE WHEN {sum} BETWEEN -9223372036854775808 AND 9223372036854775807 THEN ({sum})::bigint END")
            }
            DataType::Decimal128(precision, scale) => {
                format!(
                    "CASE WHEN abs({sum}) < 1e{} THEN ({sum})::{} END",
                    i16::from(*precision) - i16::from(*scale),
                    pg_type(ty)
                )
            }
            _ => format!("({sum})::{}", pg_type(ty)),
        },
        Aggregate::Avg => match ty {
            // Cut off at the result's scale.
            DataType::Decimal128(_, scale) => format!("(div({sum} * 1e{scale}, {count}) / 1e{scale})::{}", pg_type(ty)),
            _ => format!("({sum})::float8 / {count}"),
        },
        Aggregate::VarSamp => variance(&sample, 2),
        Aggregate::VarPop => variance(&population, 1),
        Aggregate::StddevSamp => format!("sqrt({})", variance(&sample, 2)),
        Aggregate::StddevPop => format!("sqrt({})", variance(&population, 1)),
        Aggregate::Min | Aggregate::Max => {
            let name = match (function, arg_ty) {
                (Aggregate::Min, DataType::Boolean) => "bool_and",
                (_, DataType::Boolean) => "bool_or",
                (Aggregate::Min, _) => "min",
                _ => "max",
            };
            match SqlType::from_arrow(arg_ty) {
                Some(SqlType::Text) => format!("{name}({arg} COLLATE \"C\"){filter}"),
                _ => format!("{name}({arg}){filter}"),
            }
        }
        Aggregate::FirstValue => format!("(array_agg({arg} ORDER BY e.ts, e.seq){filter})[1]"),
        Aggregate::LastValue => format!("(array_agg({arg} ORDER BY e.ts DESC, e.seq DESC){filter})[1]"),
        Aggregate::BoolAnd => format!("bool_and({arg}){filter}"),
        Aggregate::BoolOr => format!("bool_or({arg}){filter}"),
        Aggregate::ApproxCountDistinct => format!("(count(DISTINCT {arg}){filter})::{}", pg_type(ty)),
    })
}

/// Where the query has a column that output expressions read.
fn reading_column(plan: &FeaturePlan, name: &str) -> String {
    if name == NOW_COLUMN {
        return "p.t".to_owned();
    }
    let slot = name.strip_prefix('s').and_then(|i| i.parse::<usize>().ok()).and_then(|i| plan.slots.get(i));
    match slot {
        Some(Slot::Aggregate { frame, .. }) => format!("f{frame}.{name}"),
        Some(Slot::Raw { input, .. }) => format!("l.a{input}"),
        None => format!("p.{name}"),
    }
}

/// An event-time column as `timestamptz`; one without a time zone is UTC.
fn instant(column: &str, field: &Field) -> String {
    match field.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => column.to_owned(),
        _ => format!("{column} AT TIME ZONE 'UTC'"),
    }
}

fn before(t: &str, us: i64) -> String {
    if us == 0 { t.to_owned() } else { format!("{t} - {}", duration(us)) }
}

/// A fixed duration. No days: those are not 24 hours in every time zone.
fn duration(us: i64) -> String {
    if us % 1_000_000 == 0 {
        format!("interval '{} seconds'", us / 1_000_000)
    } else {
        format!("interval '{us} microseconds'")
    }
}

fn frame_name(frame: &Frame) -> String {
    let bound = |bound: Option<String>| match bound.as_deref() {
        None => "UNBOUNDED PRECEDING".to_owned(),
        Some("0") => "CURRENT ROW".to_owned(),
        Some(text) => format!("{text} PRECEDING"),
    };
    let us = |us: i64| if us == 0 { "0".to_owned() } else { duration(us) };
    match *frame {
        Frame::Range { start_us, end_us } => {
            format!("RANGE BETWEEN {} AND {}", bound(start_us.map(us)), bound(Some(us(end_us))))
        }
        Frame::Rows { start, end } => {
            format!("ROWS BETWEEN {} AND {}", bound(start.map(|n| n.to_string())), bound(Some(end.to_string())))
        }
    }
}

/// A string as an SQL literal.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn column(name: String, ty: &DataType) -> Field {
    Field::new(name, ty.clone(), true)
}

fn df_schema(fields: impl IntoIterator<Item = Field>) -> PlanResult<DFSchema> {
    let schema = Schema::new(fields.into_iter().collect::<Vec<_>>());
    DFSchema::try_from(schema).map_err(|e| PlanError::new(crate::error::sqlstate::INTERNAL, e.to_string()))
}

fn type_of(expr: &Expr, schema: &DFSchema) -> PlanResult<DataType> {
    expression::unqualified(expr)?
        .get_type(schema)
        .map_err(|e| PlanError::new(crate::error::sqlstate::INTERNAL, e.to_string()))
}

fn write_to(sql: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = sql.write_fmt(args);
}
