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
        // A version of a table's row counts until the next one; an event of a stream for ever.
        conditions.push(format!("{event}._until > p.t"));
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
        let text = text.replace("window_start()", "l.window_start").replace("window_end()", "l.window_end");
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
                events_in_frame(&call.frame, view.slide_us, &matching("e")),
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
    if let Some(pane) = view.pane() {
        let alive =
            view.ttl_us.map_or("true".to_owned(), |ttl| format!("p.t <= w.window_end + interval '{ttl} microseconds'"));
        return format!(
            "SELECT p.id, l.last::timestamptz AS _event_time, l.id IS NULL AND w.window_end IS NOT NULL AS _expired, {}\n\
             FROM probes p\nLEFT JOIN LATERAL ({}) w ON true\n\
             LEFT JOIN LATERAL (SELECT 1 AS id, w.window_start, w.window_end, (SELECT max(e.{EVENT_TIME}) FROM events e \
             WHERE {} AND e.{EVENT_TIME}::timestamptz < w.window_end) AS last WHERE w.window_end IS NOT NULL) l ON {alive}\n{}\n\
             ORDER BY p.id",
            columns.join(", "),
            shown_window(&pane, &matching),
            matching("e"),
            laterals.join("\n"),
        );
    }
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

/// The bounds of the last window that is over at `p.t` and not empty; NULL if there is none.
fn shown_window(pane: &Frame, matching: &dyn Fn(&str) -> String) -> String {
    let us = |at: &str| format!("(extract(epoch FROM {at}) * 1000000)::bigint");
    match *pane {
        Frame::Hop { size_us, hop_us } => {
            let time = us(&format!("e.{EVENT_TIME}"));
            let end = format!("({time} - mod({time}, {hop_us}) + {hop_us} * j.i)");
            let instant = |us: &str| format!("timestamptz 'epoch' + ({us}) * interval '1 microsecond'");
            format!(
                "SELECT {} AS window_start, {} AS window_end FROM (SELECT max({end}) AS ended FROM events e, \
                 generate_series(1, {}) AS j (i) WHERE {} AND {end} <= {}) AS x",
                instant(&format!("x.ended - {size_us}")),
                instant("x.ended"),
                size_us / hop_us,
                matching("e"),
                us("p.t"),
            )
        }
        _ => {
            let Frame::Session { gap_us } = *pane else { return String::new() };
            let gap = format!("interval '{gap_us} microseconds'");
            let last = format!(
                "(SELECT max(e.{EVENT_TIME}) FROM events e WHERE {} AND e.{EVENT_TIME} + {gap} <= p.t AND NOT EXISTS (SELECT FROM \
                 events d WHERE {} AND d.{EVENT_TIME} > e.{EVENT_TIME} AND d.{EVENT_TIME} < e.{EVENT_TIME} + {gap}))",
                matching("e"),
                matching("d"),
            );
            let first = format!(
                "(SELECT max(e.{EVENT_TIME}) FROM events e WHERE {} AND e.{EVENT_TIME} <= x.last AND NOT EXISTS (SELECT FROM \
                 events d WHERE {} AND d.{EVENT_TIME} < e.{EVENT_TIME} AND d.{EVENT_TIME} > e.{EVENT_TIME} - {gap}))",
                matching("e"),
                matching("d"),
            );
            format!(
                "SELECT {first}::timestamptz AS window_start, (x.last + {gap})::timestamptz AS window_end FROM (SELECT {last} AS last) AS x"
            )
        }
    }
}

fn events_in_frame(frame: &Frame, slide_us: Option<i64>, matching: &str) -> String {
    match *frame {
        Frame::Range { start_us, end_us } => {
            let start = match start_us {
                Some(us) => {
                    let since = format!("mod((extract(epoch FROM p.t) * 1000000)::bigint, {})", slide_us.unwrap_or(1));
                    format!("p.t - {since} * interval '1 microsecond' - interval '{us} microseconds'")
                }
                None => "timestamptz '-infinity'".to_owned(),
            };
            format!(
                "events e WHERE {matching} AND {EVENT_TIME} >= l.born \
                 AND {EVENT_TIME} BETWEEN {start} AND p.t - interval '{end_us} microseconds'"
            )
        }
        Frame::Hop { .. } | Frame::Session { .. } => format!(
            "events e WHERE {matching} AND {EVENT_TIME}::timestamptz >= l.window_start AND {EVENT_TIME}::timestamptz < l.window_end"
        ),
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
    let condition = call.filter.as_deref().unwrap_or("true");
    let filter = call.filter.as_ref().map(|f| format!(" FILTER (WHERE {f})")).unwrap_or_default();
    if call.function == "rate" {
        let counted = call.arg.as_ref().map_or("*", |(arg, _)| arg);
        let seconds = format!("extract(epoch FROM interval '{} microseconds')::float8", call.frame.length_us());
        return format!("(count({counted}){filter})::float8 / {seconds}");
    }
    let Some((arg, ty)) = &call.arg else { return format!("count(*){filter}") };
    if let Some((x, x_ty)) = &call.other
        && !call.function.ends_with("_by")
    {
        let both = format!("FILTER (WHERE ({arg}) IS NOT NULL AND ({x}) IS NOT NULL AND ({condition}))");
        return of_pairs(&call.function, &exact(arg, *ty), &exact(x, *x_ty), &both);
    }
    let n = format!("(count({arg}){filter})");
    let number = exact(arg, *ty);
    let power = |p: usize| format!("(sum({}){filter})", vec![number.as_str(); p].join(" * "));
    let (sum, squares) = (power(1), power(2));
    let spread = format!("(({n} * {squares} - {sum} * {sum})::float8)");
    let parameter = call.parameter.as_deref().unwrap_or_default();
    let in_order = format!("array_agg({arg} ORDER BY {EVENT_TIME}, _seq){filter}");
    let distinct = |what: &str| format!("(sum(DISTINCT {number}){filter}){what}");
    let all = format!("array_agg({arg}) FILTER (WHERE ({arg}) IS NOT NULL AND ({condition}))");
    let by_value = if *ty == Ty::Text { format!("({arg}) COLLATE \"C\"") } else { format!("({arg})") };
    match (call.function.as_str(), ty) {
        ("sum", Ty::Int2 | Ty::Int4 | Ty::Int8) => format!("{sum}::bigint"),
        ("sum", Ty::Float4 | Ty::Float8) => format!("{sum}::float8"),
        ("sum_distinct", Ty::Int2 | Ty::Int4 | Ty::Int8) => distinct("::bigint"),
        ("sum_distinct", Ty::Float4 | Ty::Float8) => distinct("::float8"),
        ("sum_distinct", _) => distinct(""),
        // Four digits more than the argument's three, the rest cut off.
        ("avg", Ty::Numeric) => format!("div({sum} * 10000000, {n}) / 10000000"),
        ("avg", _) => format!("{sum}::float8 / {n}::float8"),
        ("avg_distinct", Ty::Numeric) => {
            format!("div({} * 10000000, count(DISTINCT {arg}){filter}) / 10000000", distinct(""))
        }
        ("avg_distinct", _) => format!("{} / (count(DISTINCT {arg}){filter})::float8", distinct("::float8")),
        ("var_samp", _) => format!("CASE WHEN {n} > 1 THEN {spread} / ({n} * ({n} - 1))::float8 END"),
        ("var_pop", _) => format!("CASE WHEN {n} > 0 THEN {spread} / ({n} * {n})::float8 END"),
        ("stddev_samp", _) => format!("CASE WHEN {n} > 1 THEN sqrt({spread} / ({n} * ({n} - 1))::float8) END"),
        ("stddev_pop", _) => format!("CASE WHEN {n} > 0 THEN sqrt({spread} / ({n} * {n})::float8) END"),
        ("skewness", _) => {
            let third = format!(
                "({n}^2 * {cubes} - 3 * {n} * {sum} * {squares} + 2 * {sum} * {sum} * {sum})::float8",
                n = format!("{n}::numeric"),
                cubes = power(3)
            );
            format!(
                "CASE WHEN {n} > 2 AND {spread} <> 0 THEN sqrt(({n} * ({n} - 1))::float8) / ({n} - 2)::float8 * \
                 (({third}) / ({spread} * sqrt({spread}))) END"
            )
        }
        ("kurtosis" | "kurtosis_pop", _) => {
            let fourth = format!(
                "({n}^3 * {} - 4 * {n}^2 * {sum} * {} + 6 * {n} * {sum} * {sum} * {squares} - 3 * {sum} * {sum} * {sum} * {sum})::float8",
                power(4),
                power(3),
                n = format!("{n}::numeric"),
            );
            let excess = format!("(({fourth}) / ({spread} * {spread}) - 3::float8)");
            match call.function.as_str() {
                "kurtosis_pop" => format!("CASE WHEN {spread} <> 0 THEN {excess} END"),
                _ => format!(
                    "CASE WHEN {n} > 3 AND {spread} <> 0 THEN ({n} - 1)::float8 / (({n} - 2)::float8 * ({n} - 3)::float8) * \
                     (({n} + 1)::float8 * {excess} + 6::float8) END"
                ),
            }
        }
        ("first_value", _) => format!("(array_agg({arg} ORDER BY {EVENT_TIME}, _seq))[1]"),
        ("last_value", _) => format!("(array_agg({arg} ORDER BY {EVENT_TIME} DESC, _seq DESC))[1]"),
        ("nth_value", _) => format!("({in_order})[{parameter}]"),
        ("first_k", _) => format!("({in_order})[:{parameter}]"),
        ("last_k", _) => format!(
            "(SELECT array_agg(x ORDER BY i) FROM unnest({in_order}) WITH ORDINALITY AS u (x, i) \
             WHERE i > cardinality({in_order}) - {parameter})"
        ),
        ("array_agg", _) => in_order,
        ("string_agg", _) => format!("string_agg({arg}, {parameter} ORDER BY {EVENT_TIME}, _seq){filter}"),
        ("top_k" | "bottom_k", _) => {
            let direction = if call.function == "top_k" { "DESC" } else { "ASC" };
            let all = format!("array_agg({arg} ORDER BY {by_value} {direction})");
            format!("({all} FILTER (WHERE ({arg}) IS NOT NULL AND ({condition})))[:{parameter}]")
        }
        ("min_by" | "max_by" | "top_k_by" | "bottom_k_by", _) => {
            let (by, by_ty) = call.other.as_ref().expect("what is by another has a second argument");
            let order = if *by_ty == Ty::Text { format!("({by}) COLLATE \"C\"") } else { format!("({by})") };
            let direction = if matches!(call.function.as_str(), "max_by" | "top_k_by") { "DESC" } else { "ASC" };
            let which = if parameter.is_empty() { "1".to_owned() } else { format!(":{parameter}") };
            format!(
                "(array_agg({arg} ORDER BY {order} {direction}, {EVENT_TIME} DESC, _seq DESC) \
                 FILTER (WHERE ({by}) IS NOT NULL AND ({condition})))[{which}]"
            )
        }
        ("geometric_mean", _) => {
            let log = format!(
                "CASE WHEN ({arg}) = 0 THEN '-Infinity' WHEN ({arg}) < 0 THEN 'NaN' ELSE ln(({arg})::float8) END"
            );
            format!("exp(avg({log}){filter})")
        }
        ("entropy", _) => format!(
            "(SELECT sum(-p * log(2, p)) FROM (SELECT count(*) / sum(count(*)) OVER () FROM unnest({all}) u (v) GROUP BY v) x (p))::float8"
        ),
        ("histogram", _) => format!(
            "(SELECT '{{' || string_agg(format('%s: %s', to_json(v::text), n), ', ' ORDER BY {}) || '}}' \
             FROM (SELECT v, count(*) FROM unnest({all}) u (v) GROUP BY v) x (v, n))",
            if *ty == Ty::Text { "v COLLATE \"C\"" } else { "v" }
        ),
        ("approx_top_k", _) => format!(
            "(SELECT array_agg(v) FROM (SELECT v FROM unnest({all}) u (v) GROUP BY v ORDER BY count(*) DESC, {} LIMIT {parameter}) x)",
            if *ty == Ty::Text { "v COLLATE \"C\"" } else { "v" }
        ),
        // Every reading beside the one after it.
        ("increase", _) => format!(
            "(SELECT sum(CASE WHEN b.v < a.v THEN b.v ELSE b.v - a.v END) FROM unnest({readings}) WITH ORDINALITY a (v, i) \
             JOIN unnest({readings}) WITH ORDINALITY b (v, j) ON j = i + 1)::{}",
            if matches!(ty, Ty::Float4 | Ty::Float8) { "float8" } else { "bigint" },
            readings = format!(
                "array_agg({number} ORDER BY {EVENT_TIME}, _seq) FILTER (WHERE ({arg}) IS NOT NULL AND ({condition}))"
            ),
        ),
        // The generated arrays have two items at most.
        ("vector_sum" | "vector_avg", _) => {
            let lane = |i: usize| match call.function.as_str() {
                "vector_sum" => format!("(sum((({arg})[{i}])::numeric){filter})::float8"),
                _ => format!("(sum((({arg})[{i}])::numeric){filter})::float8 / (count(({arg})[{i}]){filter})"),
            };
            let lengths = format!("(count(DISTINCT cardinality({arg})){filter})");
            format!("CASE WHEN {lengths} = 1 THEN ARRAY[{}, {}] END", lane(1), lane(2))
        }
        ("mode", _) => format!("mode() WITHIN GROUP (ORDER BY {by_value}){filter}"),
        ("median", _) => format!("percentile_cont(0.5) WITHIN GROUP (ORDER BY ({arg})::float8){filter}"),
        ("percentile_cont" | "approx_percentile", _) => {
            format!("percentile_cont({parameter}) WITHIN GROUP (ORDER BY ({arg})::float8){filter}")
        }
        ("percentile_disc", _) => format!("percentile_disc({parameter}) WITHIN GROUP (ORDER BY {by_value}){filter}"),
        ("decay_sum" | "decay_count" | "decay_avg", _) => {
            let age = format!("extract(epoch FROM p.t - {EVENT_TIME}) / extract(epoch FROM {parameter})");
            let weight = format!("power(2::float8, greatest(-1000, -({age})::float8))");
            let sum = format!("(sum(({arg}) * {weight}){filter})");
            let count = format!("(sum({weight}) FILTER (WHERE ({arg}) IS NOT NULL AND ({condition})))");
            match call.function.as_str() {
                "decay_sum" => sum,
                "decay_count" => count,
                _ => format!("{sum} / {count}"),
            }
        }
        ("approx_count_distinct" | "count_distinct", _) => format!("count(DISTINCT {arg}){filter}"),
        (name, _) => format!("{name}({arg}){filter}"),
    }
}

/// Exactly, as `numeric`.
fn exact(text: &str, ty: Ty) -> String {
    // A cast of `real` to numeric of PostgreSQL's own keeps six digits.
    if ty == Ty::Float4 { format!("({text})::float8::numeric") } else { format!("({text})::numeric") }
}

fn of_pairs(function: &str, y: &str, x: &str, both: &str) -> String {
    let sum = |what: &str| format!("(sum({what}) {both})");
    let n = format!("(count(*) {both})");
    // With a value that is no finite number nothing is left to say.
    let spread = |a: &str, b: &str| {
        let finite = |sum: &str| format!("{sum} NOT IN ('NaN', 'Infinity', '-Infinity')");
        let (sa, sb) = (sum(a), sum(b));
        format!(
            "(CASE WHEN {} AND {} THEN {n} * {} - {sa} * {sb} WHEN {n} > 0 THEN 'NaN' END::float8)",
            finite(&sa),
            finite(&sb),
            sum(&format!("{a} * {b}")),
        )
    };
    let (xx, yy, xy) = (spread(x, x), spread(y, y), spread(x, y));
    let slope = format!("({xy} / {xx})");
    match function {
        "regr_count" => n,
        "regr_avgx" => format!("{}::float8 / {n}", sum(x)),
        "regr_avgy" => format!("{}::float8 / {n}", sum(y)),
        "regr_sxx" => format!("{xx} / {n}"),
        "regr_syy" => format!("{yy} / {n}"),
        "regr_sxy" => format!("{xy} / {n}"),
        "covar_pop" => format!("{xy} / ({n} * {n})::float8"),
        "covar_samp" => format!("{xy} / nullif({n} * ({n} - 1), 0)::float8"),
        "corr" => {
            let corr = format!("({xy} / (sqrt(nullif({xx}, 0)) * sqrt(nullif({yy}, 0))))");
            format!("CASE WHEN {corr} BETWEEN -1 AND 1 OR {corr} = 'NaN' THEN {corr} ELSE sign({corr}) END")
        }
        "regr_slope" => format!("{xy} / nullif({xx}, 0)"),
        "regr_intercept" => {
            format!("CASE WHEN {xx} <> 0 THEN ({}::float8 - {slope} * {}::float8) / {n} END", sum(y), sum(x))
        }
        _ => format!("CASE WHEN {xx} = 0 THEN NULL WHEN {yy} = 0 THEN 1 ELSE {slope} * ({xy} / {yy}) END"),
    }
}
