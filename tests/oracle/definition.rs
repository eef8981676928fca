//! V(k, t) by the definition (semantics, section 7), written from the generated view and not from our planner's idea of
//! it, so that a view misread by the planner shows too.
//!
//! It is deliberately not shaped like `EXPLAIN (FORMAT PROBES)`: no common table, lives found by looking for gaps,
//! ROWS frames by OFFSET and LIMIT.

use crate::model::{Call, EVENT_TIME, Frame, Ty, View};

/// Columns: the probe's `id`, `_event_time`, `_expired`, one column for each output, then `_peers` and `_nulls` for each
/// call in order. Over tables `events` and `probes (id, k0, …, t)`.
pub fn query(view: &View) -> String {
    let matching = |event: &str| {
        let mut conditions: Vec<String> =
            view.key.iter().enumerate().map(|(i, name)| format!("{event}.{name} = p.k{i}")).collect();
        conditions.push(format!("{event}.{EVENT_TIME} <= p.t"));
        if let Some(filter) = &view.filter {
            conditions.push(format!("({filter})"));
        }
        conditions.join(" AND ")
    };
    let mut outputs = Vec::new();
    let mut flags = Vec::new();
    let mut laterals = Vec::new();
    for (i, output) in view.outputs.iter().enumerate() {
        let text = output.fill(|c| format!("f{i}_{c}.v")).replace("now()", "p.t");
        outputs.push(format!("({text}) AS o{i}"));
        for (c, call) in output.calls.iter().enumerate() {
            let name = format!("f{i}_{c}");
            flags.push(format!("{name}.peers, {name}.nulls"));
            let nulls = match &call.arg {
                Some((arg, _)) => format!("count(*) > count({arg})"),
                None => "false".to_owned(),
            };
            laterals.push(format!(
                "LEFT JOIN LATERAL (SELECT {} AS v, count(*) > count(DISTINCT {EVENT_TIME}) AS peers, {nulls} AS nulls \
                 FROM {}) {name} ON true",
                aggregate(call),
                events_in_frame(&call.frame, &matching("e")),
            ));
        }
    }
    let (born, alive) = match view.ttl_us {
        Some(ttl) => (
            format!(
                "(SELECT max(e.{EVENT_TIME}) FROM events e WHERE {} AND NOT EXISTS (SELECT FROM events d WHERE {} AND \
                 d.{EVENT_TIME} < e.{EVENT_TIME} AND d.{EVENT_TIME} >= e.{EVENT_TIME} - interval '{ttl} microseconds'))",
                matching("e"),
                matching("d"),
            ),
            format!("p.t <= l.{EVENT_TIME} + interval '{ttl} microseconds'"),
        ),
        None => ("timestamptz '-infinity'".to_owned(), "true".to_owned()),
    };
    let columns: Vec<String> = outputs.into_iter().chain(flags).collect();
    format!(
        "SELECT p.id, l.{EVENT_TIME}::timestamptz AS _event_time, \
         l.id IS NULL AND EXISTS (SELECT FROM events e WHERE {}) AS _expired, {}\nFROM probes p\n\
         LEFT JOIN LATERAL (SELECT 1 AS id, e.*, {born} AS born FROM events e WHERE {} \
         ORDER BY {EVENT_TIME} DESC, _seq DESC LIMIT 1) l ON {alive}\n{}\nORDER BY p.id",
        matching("e"),
        columns.join(", "),
        matching("e"),
        laterals.join("\n"),
    )
}

fn events_in_frame(frame: &Frame, matching: &str) -> String {
    match *frame {
        Frame::Range { start_us, end_us } => {
            let start = match start_us {
                Some(us) => format!("p.t - interval '{us} microseconds'"),
                None => "timestamptz '-infinity'".to_owned(),
            };
            format!(
                "events e WHERE {matching} AND {EVENT_TIME} >= l.born \
                 AND {EVENT_TIME} BETWEEN {start} AND p.t - interval '{end_us} microseconds'"
            )
        }
        Frame::Rows { start, end } => {
            let limit = start.map(|start| format!(" LIMIT {}", start + 1 - end)).unwrap_or_default();
            format!(
                "(SELECT * FROM events e WHERE {matching} AND {EVENT_TIME} >= l.born \
                 ORDER BY {EVENT_TIME} DESC, _seq DESC OFFSET {end}{limit}) e"
            )
        }
    }
}

/// The aggregate with our numbers (semantics, section 5): doubles from exact sums.
fn aggregate(call: &Call) -> String {
    let filter = call.filter.as_ref().map(|f| format!(" FILTER (WHERE {f})")).unwrap_or_default();
    let Some((arg, ty)) = &call.arg else { return format!("count(*){filter}") };
    let n = format!("(count({arg}){filter})");
    // Its own cast to numeric keeps six digits.
    let number = if *ty == Ty::Float4 { format!("({arg})::float8") } else { format!("({arg})") };
    let sum = format!("(sum({number}::numeric){filter})");
    let squares = format!("(sum({number}::numeric * {number}::numeric){filter})");
    let spread = format!("(({n} * {squares} - {sum} * {sum})::float8)");
    match (call.function.as_str(), ty) {
        ("sum", Ty::Int2 | Ty::Int4 | Ty::Int8) => format!("{sum}::bigint"),
        ("sum", Ty::Float4 | Ty::Float8) => format!("{sum}::float8"),
        // Four digits more than the argument's three, the rest cut off.
        ("avg", Ty::Numeric) => format!("div({sum} * 10000000, {n}) / 10000000"),
        ("avg", _) => format!("{sum}::float8 / {n}::float8"),
        ("var_samp", _) => format!("CASE WHEN {n} > 1 THEN {spread} / ({n} * ({n} - 1))::float8 END"),
        ("var_pop", _) => format!("CASE WHEN {n} > 0 THEN {spread} / ({n} * {n})::float8 END"),
        ("stddev_samp", _) => format!("CASE WHEN {n} > 1 THEN sqrt({spread} / ({n} * ({n} - 1))::float8) END"),
        ("stddev_pop", _) => format!("CASE WHEN {n} > 0 THEN sqrt({spread} / ({n} * {n})::float8) END"),
        ("first_value", _) => format!("(array_agg({arg} ORDER BY {EVENT_TIME}, _seq))[1]"),
        ("last_value", _) => format!("(array_agg({arg} ORDER BY {EVENT_TIME} DESC, _seq DESC))[1]"),
        ("approx_count_distinct", _) => format!("count(DISTINCT {arg}){filter}"),
        (name, _) => format!("{name}({arg}){filter}"),
    }
}
