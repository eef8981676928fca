//! The oracle's query: what a feature view means, as plain SQL that somebody else's engine can run.
//!
//! `EXPLAIN (FORMAT PROBES) CREATE FEATURE VIEW …` prints it. It is the definition of semantics section 7 written out:
//! for every probe `(k, t)` one aggregate over the key's events that are in the frame at `t`, with nothing incremental
//! about it. The text runs on PostgreSQL 15 or later, `TimeZone` UTC, over two tables that it describes in its head.
//!
//! Where PostgreSQL's own aggregates round differently (averages of integers are `numeric` there, sums of doubles
//! depend on the order), the query computes the exact sum in `numeric` and derives the value by our stated formula.

use crate::feature::family::never_fails;
use crate::feature::{FeaturePlan, Frame, NOW_COLUMN, OutputKind, Pane, Slot};
use crate::{PlanError, PlanResult};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable};
use expression::{Printer, identifier, pg_type};
use std::fmt::Write;

mod aggregate;
mod expression;

/// The query that gives `V(k, t)` for each row of `probes`.
///
/// Result: the columns of `probes`, then `_event_time` (time of the key's latest event; NULL where `V` is absent), then
/// the view's columns in order, without the entity key and the time column.
pub fn probes_sql(plan: &FeaturePlan, view_name: &str) -> PlanResult<String> {
    if plan.has_joins() || plan.beside.is_some() {
        return Err(PlanError::unsupported(format!(
            "feature view \"{view_name}\" joins tables: its probes are not printed"
        ))
        .hint("leave (FORMAT PROBES) out"));
    }
    let relation = df_schema(plan.row_schema.fields().iter().map(|f| f.as_ref().clone()))?;
    let row = Printer::new(&relation, &|name| identifier(name));
    let event_time = plan.row_schema.field(plan.event_time);
    let key_types = plan.key.iter().map(|key| type_of(key, &relation)).collect::<PlanResult<Vec<_>>>()?;
    let keys: Vec<String> = (0..key_types.len()).map(|i| format!("k{i}")).collect();

    let mut sql = head(plan, view_name, &key_types);
    // Over versions no frame reaches beyond the ttl: a key's former lives need not be told apart.
    let has_lives = plan.ttl_us.is_some() && !plan.versions;
    let events = if has_lives { "lives" } else { "filtered" };

    sql.push_str("WITH ");
    if plan.branches.iter().any(|branch| branch.taken.is_some()) {
        sql.push_str(&union(plan)?);
    }
    sql.push_str("filtered AS MATERIALIZED (\n  SELECT ");
    for (i, key) in plan.key.iter().enumerate() {
        write_to(&mut sql, format_args!("{} AS k{i}, ", row.print(key)?));
    }
    write_to(&mut sql, format_args!("{} AS ts, _seq AS seq", instant(&identifier(event_time.name()), event_time)));
    if plan.versions {
        sql.push_str(", _until AS until");
    }
    for (i, input) in plan.inputs.iter().enumerate() {
        let mut value = row.print(&input.expr)?;
        // An argument that fails where its FILTER leaves the row out is no error.
        if let Some(filters) = plan.filters_over(i).filter(|_| !never_fails(&input.expr, &plan.row_schema)) {
            let filters = filters.iter().map(|filter| row.print(&plan.inputs[*filter].expr));
            let filters = filters.collect::<PlanResult<Vec<_>>>()?;
            value = format!("CASE WHEN {} THEN {value} END", filters.join(" OR "));
        }
        write_to(&mut sql, format_args!(",\n    {value} AS a{i}"));
    }
    sql.push_str("\n  FROM events\n  WHERE ");
    let mut conditions = Vec::new();
    for key in &plan.key {
        conditions.push(format!("{} IS NOT NULL", row.print(key)?));
    }
    conditions.extend(plan.filter.as_ref().map(|filter| row.print(filter)).transpose()?);
    write_to(&mut sql, format_args!("{}\n)", conditions.join("\n    AND ")));
    if let Some(ttl) = plan.ttl_us.filter(|_| has_lives) {
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
    let mut same_key = keys.iter().map(|k| format!("e.{k} = p.{k}")).collect::<Vec<_>>().join(" AND ");
    if plan.versions {
        same_key.push_str(" AND e.until > p.t");
    }
    let shown = match plan.pane() {
        Some(pane) => shown_window(pane, events, &same_key),
        None => format!(
            "  -- the key's latest event\n    SELECT * FROM {events} e WHERE {same_key} AND e.ts <= p.t \
             ORDER BY e.ts DESC, e.seq DESC LIMIT 1"
        ),
    };
    write_to(&mut sql, format_args!("\n  FROM ({shown}\n  ) l"));
    let same_life = if has_lives { " AND e.life = l.life" } else { "" };
    for (index, frame) in plan.frames.iter().enumerate() {
        let aggregates = aggregate::over_frame(plan, index)?;
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
                let now = match plan.slide_us {
                    Some(slide) => format!("date_bin({}, p.t, timestamptz '1970-01-01 00:00+00')", duration(slide)),
                    None => "p.t".to_string(),
                };
                let from = match start_us {
                    Some(start) => format!(" AND e.ts >= {}", before(&now, start)),
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
            Frame::Pane(_) => write_to(
                &mut sql,
                format_args!(
                    "\n    FROM {events} e\n    WHERE {same_key} AND e.ts >= l.window_start AND e.ts < l.window_end"
                ),
            ),
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
        let since = if plan.pane().is_some() { "l.window_end" } else { "l.ts" };
        write_to(&mut sql, format_args!("\n  WHERE p.t <= {since} + {}", duration(ttl)));
    }
    sql.push_str("\n) v ON true");
    Ok(sql)
}

/// `events`, of the tables of the branches. Among events of one time the branch comes first, then the order of arrival.
fn union(plan: &FeaturePlan) -> PlanResult<String> {
    let mut selects = vec![];
    for (i, branch) in plan.branches.iter().enumerate() {
        let Some(taken) = &branch.taken else { continue };
        let relation = df_schema(taken.schema.fields().iter().map(|f| f.as_ref().clone()))?;
        let row = Printer::new(&relation, &|name| identifier(name));
        let mut columns = vec![];
        for (expr, field) in taken.columns.iter().zip(plan.row_schema.fields()) {
            columns.push(format!("{} AS {}", row.print(expr)?, identifier(field.name())));
        }
        let filter = taken.filter.as_ref().map(|filter| row.print(filter)).transpose()?;
        let filter = filter.map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
        selects.push(format!(
            "  SELECT {}, ({i}::bigint << 40) + _seq AS _seq FROM events_{i}{filter}",
            columns.join(", ")
        ));
    }
    Ok(format!("events AS MATERIALIZED (\n{}\n), ", selects.join("\n  UNION ALL\n")))
}

/// The last window that is over at `p.t` and not empty: its bounds, and the time of its last event.
fn shown_window(pane: Pane, events: &str, same_key: &str) -> String {
    match pane {
        Pane::Hop { size_us, hop_us } => {
            let grid =
                |what: &str| format!("date_bin({}, {what}, timestamptz '1970-01-01 00:00+00')", duration(hop_us));
            let size = duration(size_us);
            // The window that ends at or before p.t, or the last that the latest event before its end is in.
            let end = format!("least({}, {} + {size})", grid("p.t"), grid("max(e.ts)"));
            format!(
                "  -- the last window that is over\n    SELECT max(e.ts) AS ts, {end} - {size} AS window_start, \
                 {end} AS window_end\n    FROM {events} e WHERE {same_key} AND e.ts < {} HAVING count(*) > 0",
                grid("p.t")
            )
        }
        Pane::Session { gap_us } => {
            let gap = duration(gap_us);
            format!(
                "  -- the last session that is over\n    SELECT max(e.ts) AS ts, min(e.ts) AS window_start, \
                 max(e.ts) + {gap} AS window_end\n    FROM (\n      \
                 SELECT e.ts, count(*) FILTER (WHERE e.begins) OVER (ORDER BY e.ts, e.seq) AS session\n      FROM (\n        \
                 SELECT e.ts, e.seq, e.ts >= lag(e.ts) OVER (ORDER BY e.ts, e.seq) + {gap} AS begins\n        \
                 FROM {events} e WHERE {same_key} AND e.ts <= p.t\n      ) e\n    ) e\n    \
                 GROUP BY e.session HAVING max(e.ts) + {gap} <= p.t ORDER BY e.session DESC LIMIT 1"
            )
        }
    }
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
             --   SET TimeZone = {};\n",
            identifier(view_name),
            text(&plan.time_zone),
        ),
    );
    for (i, branch) in plan.branches.iter().enumerate() {
        let (schema, table) = match &branch.taken {
            Some(taken) => (&taken.schema, format!("events_{i}")),
            None => (&plan.row_schema, "events".to_owned()),
        };
        let mut columns: Vec<String> = Vec::new();
        for field in schema.fields() {
            columns.push(format!("{} {}", identifier(field.name()), pg_type(field.data_type())));
        }
        columns.push("_seq bigint".to_owned());
        if plan.versions {
            columns.push("_until timestamptz".to_owned());
        }
        write_to(
            &mut sql,
            format_args!(
                "--   -- the admitted rows of {}; _seq is the order of arrival{}\n--   CREATE TABLE {table} ({});\n",
                branch.relation_name,
                match plan.versions {
                    true =>
                        ", and _until when the next\n--   -- version of the row counts, 'infinity' of the current one",
                    false => "",
                },
                columns.join(", ")
            ),
        );
    }
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

/// Where the query has a column that output expressions read.
fn reading_column(plan: &FeaturePlan, name: &str) -> String {
    if name == NOW_COLUMN {
        return "p.t".to_owned();
    }
    let slot = name.strip_prefix('s').and_then(|i| i.parse::<usize>().ok()).and_then(|i| plan.slots.get(i));
    match slot {
        Some(Slot::Aggregate(call)) => format!("f{}.{name}", call.frame),
        Some(Slot::Raw { input, .. }) => format!("l.a{input}"),
        Some(Slot::Beside { .. }) => "NULL".to_owned(),
        Some(Slot::Bound { end, .. }) => format!("l.window_{}", if *end { "end" } else { "start" }),
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
        Frame::Pane(pane) => pane.describe(),
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
