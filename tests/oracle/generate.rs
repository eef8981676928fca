//! Random sources, streams and feature views, one case from one seed.

use crate::admission::{admitted, event_time};
use crate::model::{Call, Case, Cell, EVENT_TIME, Frame, Output, Probe, Row, Source, Ty, View, instant};
use crate::turn::Turn;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;

/// Probes for each view, if no other number is asked for.
pub const PROBES: usize = 48;
const EVENTS: std::ops::Range<usize> = 60..160;

/// How many streams are two sources.
const SPLIT: f64 = 0.2;
/// How many of the cases are tables whose rows replace one another, by chance; and one in so many cases, so that every
/// function over every kind of frame has its turn there too.
const CHANGELOGS: f64 = 0.08;
const CASES_PER_CHANGELOG: u64 = 8;

pub const FUNCTIONS: [&str; 60] = [
    "count",
    "count_distinct",
    "approx_count_distinct",
    "sum",
    "sum_distinct",
    "avg",
    "avg_distinct",
    "min",
    "max",
    "min_by",
    "max_by",
    "var_samp",
    "var_pop",
    "stddev_samp",
    "stddev_pop",
    "skewness",
    "kurtosis",
    "kurtosis_pop",
    "corr",
    "covar_samp",
    "covar_pop",
    "regr_slope",
    "regr_intercept",
    "regr_r2",
    "regr_count",
    "regr_avgx",
    "regr_avgy",
    "regr_sxx",
    "regr_syy",
    "regr_sxy",
    "first_value",
    "last_value",
    "nth_value",
    "first_k",
    "last_k",
    "array_agg",
    "string_agg",
    "top_k",
    "bottom_k",
    "mode",
    "median",
    "percentile_cont",
    "percentile_disc",
    "bool_and",
    "bool_or",
    "bit_xor",
    "decay_sum",
    "decay_count",
    "decay_avg",
    "top_k_by",
    "bottom_k_by",
    "geometric_mean",
    "entropy",
    "histogram",
    "rate",
    "increase",
    "vector_sum",
    "vector_avg",
    "approx_top_k",
    "approx_percentile",
];

/// Those that need a frame with a beginning.
const READ_FROM_FRAME: [&str; 5] = ["nth_value", "first_k", "last_k", "array_agg", "string_agg"];

/// Whether a view may have this function over this kind of frame.
pub fn is_legal(function: &str, kind: &str) -> bool {
    let has_beginning = !kind.ends_with("unbounded");
    let has_length = matches!(kind, "range" | "range offset" | "tumble" | "hop");
    !(READ_FROM_FRAME.contains(&function) && !has_beginning
        || function.starts_with("decay_") && kind != "range unbounded"
        || function == "rate" && !has_length)
}

pub fn case(seed: u64, views: usize) -> Case {
    case_with(seed, views, PROBES)
}

/// A case whose views have so many probes each, where their instants are so many.
pub fn case_with(seed: u64, views: usize, probes_per_view: usize) -> Case {
    let mut rng = StdRng::seed_from_u64(seed);
    let time = Scale::new(&mut rng);
    let is_changelog = seed % CASES_PER_CHANGELOG == CASES_PER_CHANGELOG / 2;
    let source = source(&mut rng, &time, is_changelog);
    let round = if is_changelog { seed / CASES_PER_CHANGELOG } else { seed };
    let views = (0..views)
        .map(|i| {
            let n = (round as usize).wrapping_mul(views).wrapping_add(i);
            let turn = Turn { n, is_of_changelog: is_changelog };
            let view = view(&mut rng, &time, &source, turn);
            let probes = probes(&mut rng, &source, &view, probes_per_view);
            (view, probes)
        })
        .collect();
    Case { seed, source, views }
}

/// The order of magnitude of a case: windows are a few units, gaps from none to longer than any TTL.
struct Scale {
    unit_us: i64,
    start_us: i64,
}

/// 2024-02-29 23:50, 2023-12-31 23:59:58 and 2024-07-01 00:00: months end soon after the start.
const STARTS_US: [i64; 3] = [1_709_250_600_000_000, 1_704_067_198_000_000, 1_719_792_000_000_000];

impl Scale {
    fn new(rng: &mut StdRng) -> Scale {
        let unit_us = *[1_000, 1_000_000, 60_000_000, 3_600_000_000].choose(rng).unwrap();
        Scale { unit_us, start_us: *STARTS_US.choose(rng).unwrap() }
    }

    fn duration(&self, rng: &mut StdRng, units: std::ops::RangeInclusive<i64>) -> i64 {
        let whole = rng.random_range(units) * self.unit_us;
        if rng.random_bool(0.15) { whole + rng.random_range(1..7) } else { whole }
    }

    fn gap(&self, rng: &mut StdRng) -> i64 {
        match rng.random_range(0..100) {
            0..15 => 0,
            15..20 => rng.random_range(1..4),
            20..55 => rng.random_range(0..self.unit_us),
            // Whole units: events that lie exactly on the edge of a frame.
            55..75 => rng.random_range(1..6) * self.unit_us,
            75..92 => rng.random_range(0..8 * self.unit_us),
            _ => rng.random_range(20..90) * self.unit_us,
        }
    }
}

fn source(rng: &mut StdRng, time: &Scale, is_changelog: bool) -> Source {
    let user_ty = *[Ty::Int8, Ty::Int4, Ty::Text].choose(rng).unwrap();
    let region_ty = *[Ty::Text, Ty::Int4, Ty::Bool].choose(rng).unwrap();
    let mut columns = vec![
        ("user_id".to_owned(), user_ty),
        ("region".to_owned(), region_ty),
        ("qty".to_owned(), Ty::Int4),
        ("units".to_owned(), Ty::Int8),
        ("price".to_owned(), Ty::Float8),
        ("amount".to_owned(), Ty::Numeric),
        ("label".to_owned(), Ty::Text),
        ("ok".to_owned(), Ty::Bool),
        ("small".to_owned(), Ty::Int2),
        ("ratio".to_owned(), Ty::Float4),
        ("reading".to_owned(), Ty::Float8),
        ("day".to_owned(), Ty::Date),
        ("clock".to_owned(), Ty::Time),
        ("local".to_owned(), Ty::Timestamp),
        ("bytes".to_owned(), Ty::Bytea),
    ];
    let time_ty = if rng.random_bool(0.2) { Ty::Timestamp } else { Ty::Instant };
    columns.insert(rng.random_range(0..=columns.len()), (EVENT_TIME.to_owned(), time_ty));
    let by_chance = rng.random_bool(CHANGELOGS);
    let primary_key = (is_changelog || by_chance).then(|| "user_id".to_owned());
    // Rows of their own, that go from one entity key to another.
    let primary_key = primary_key.map(|name| if rng.random_bool(0.7) { "item".to_owned() } else { name });
    if primary_key.as_deref() == Some("item") {
        columns.push(("item".to_owned(), Ty::Int4));
    }
    let never_null = |name: &str| primary_key.as_deref() == Some(name);

    // Each key has its own timeline; the stream is all of them in order of arrival.
    let delay_us = *[0, 1, time.unit_us / 2, 3 * time.unit_us].choose(rng).unwrap();
    let wild = rng.random_bool(0.3);
    let nulls = rng.random_range(0.08..0.3);
    let users = rng.random_range(2..6);
    let count = rng.random_range(EVENTS);
    let mut arrivals: Vec<(i64, Row)> = Vec::new();
    for user in 0..users {
        let mut at_us = time.start_us + rng.random_range(0..=5) * time.unit_us;
        for _ in 0..count / users {
            at_us += time.gap(rng);
            let cells = columns.iter().map(|(name, ty)| {
                let nulls = if never_null(name) { 0.0 } else { nulls };
                cell(rng, name, *ty, user, at_us, wild, nulls)
            });
            let cells = cells.collect();
            let delayed = match rng.random_range(0..100) {
                0..50 => 0,
                50..92 => rng.random_range(0..=delay_us),
                _ => delay_us + rng.random_range(1..=6 * time.unit_us),
            };
            arrivals.push((at_us + delayed, Row { event_time_us: at_us, cells, second: false }));
        }
    }
    arrivals.sort_by_key(|(arrival_us, _)| *arrival_us);
    let is_split = primary_key.is_none() && rng.random_bool(SPLIT);
    if is_split {
        arrivals.iter_mut().for_each(|(_, row)| row.second = rng.random_bool(0.4));
    }
    let mut rows: Vec<Row> = arrivals.into_iter().map(|(_, row)| row).collect();

    // One last event of a key of its own carries the event clock past every window and TTL.
    let last_us = rows.iter().map(|r| r.event_time_us).max().unwrap_or(time.start_us) + 200 * time.unit_us;
    let cells = columns.iter().map(|(name, ty)| cell(rng, name, *ty, 9, last_us, false, 0.0)).collect();
    rows.push(Row { event_time_us: last_us, cells, second: false });
    Source { columns, primary_key, delay_us, is_split, rows }
}

fn cell(rng: &mut StdRng, name: &str, ty: Ty, user: usize, at_us: i64, wild: bool, nulls: f64) -> Cell {
    if name == EVENT_TIME {
        return Some(event_time(ty, at_us));
    }
    let key = matches!(name, "user_id" | "region");
    if rng.random_bool(if key { nulls / 8.0 } else { nulls }) {
        return None;
    }
    if name == "user_id" {
        return Some(match ty {
            Ty::Text => format!("user {user}'s"),
            _ => (user as i64 - 1).to_string(),
        });
    }
    Some(match (name, ty) {
        ("region", Ty::Text) => ["north", "süd"].choose(rng).unwrap().to_string(),
        (_, Ty::Int2 | Ty::Int4) => rng.random_range(-5..6).to_string(),
        (_, Ty::Int8) => match rng.random_range(0..10) {
            0 => (rng.random_range(-9..10) * 1_000_000_007_i64).to_string(),
            _ => rng.random_range(-20..21).to_string(),
        },
        // No sums of these: their digits are too many for PostgreSQL's numeric.
        ("reading", _) => format!("{:?}", rng.random_range(-1e3..1e3_f64)),
        (_, Ty::Float4 | Ty::Float8) => match rng.random_range(0..100) {
            0..6 if wild => ["NaN", "Infinity", "-Infinity", "-0"].choose(rng).unwrap().to_string(),
            // Dyadic, so that PostgreSQL's numeric holds it exactly.
            _ => format!("{:?}", f64::from(rng.random_range(-4000..4001)) / 8.0),
        },
        (_, Ty::Numeric) => {
            let thousandths: i64 = rng.random_range(-99_999..100_000);
            format!(
                "{}{}.{:03}",
                if thousandths < 0 { "-" } else { "" },
                thousandths.abs() / 1000,
                thousandths.abs() % 1000
            )
        }
        (_, Ty::Bytea) => {
            let bytes = (0..rng.random_range(0..4)).map(|_| format!("{:02x}", rng.random_range(0..=255)));
            format!("\\x{}", bytes.collect::<String>())
        }
        (_, Ty::Date) => {
            let day = instant(at_us + rng.random_range(-40..40) * 86_400_000_000);
            day[..10].to_owned()
        }
        (_, Ty::Time) => {
            let whole =
                format!("{:02}:{:02}:{:02}", rng.random_range(0..24), rng.random_range(0..60), rng.random_range(0..60));
            if rng.random_bool(0.3) { format!("{whole}.{:06}", rng.random_range(1..1_000_000)) } else { whole }
        }
        (_, Ty::Timestamp) => event_time(ty, at_us + rng.random_range(-90_000_000_000..90_000_000_000)),
        (_, Ty::Bool) => rng.random_bool(0.6).to_string(),
        _ => ["a", "b", "ab", "", "Zoë", "it's"].choose(rng).unwrap().to_string(),
    })
}

fn view(rng: &mut StdRng, time: &Scale, source: &Source, turn: Turn) -> View {
    let key = match rng.random_range(0..10) {
        0..6 => vec!["user_id"],
        6..8 => vec!["user_id", "region"],
        8 => vec!["region", "user_id"],
        _ => vec!["region"],
    };
    let frames: Vec<Frame> = (0..rng.random_range(1..3)).map(|_| frame(rng, time)).collect();
    // A table has no windows that are over.
    let windowless = rng.random_bool(0.05) || source.primary_key.is_some() && turn.is_of_panes();
    let pane = (!windowless && turn.is_of_panes()).then(|| pane_of_kind(rng, time, turn.cell(0).1));
    let mut outputs: Vec<Output> =
        (0..rng.random_range(1..3)).map(|_| if windowless { raw(rng) } else { output(rng, &frames) }).collect();
    if let Some(pane) = pane {
        outputs = vec![
            Output { template: "window_start()".to_owned(), calls: vec![], ty: Ty::Instant },
            Output { template: "window_end()".to_owned(), calls: vec![], ty: Ty::Instant },
        ];
        outputs.push(output_of_aggregates(rng, &[pane]));
    }
    for (function, kind) in turn.cells() {
        if windowless {
            outputs.push(raw(rng));
            continue;
        }
        let frame = match (function.starts_with("decay_"), pane) {
            (true, _) => Frame::Range { start_us: None, end_us: 0 },
            (false, Some(pane)) => pane,
            (false, None) if function == "rate" => loop {
                let frame = frame_of_kind(rng, time, kind);
                if frame.length_us() > 0 {
                    break frame;
                }
            },
            (false, None) => frame_of_kind(rng, time, kind),
        };
        let call = call_of(rng, function, &[frame]);
        outputs.push(alone(rng, call));
    }
    let primary_key = source.primary_key.as_deref();
    let key = match primary_key {
        Some(primary_key) if rng.random_bool(0.3) => vec![primary_key],
        _ => key,
    };
    let key_of_table = primary_key.is_some_and(|primary_key| key == [primary_key]);
    if source.columns[source.column(EVENT_TIME)].1 == Ty::Timestamp && pane.is_none() {
        outputs.iter_mut().for_each(|output| without_zone(rng, output));
    }
    if source.columns[source.column(EVENT_TIME)].1 == Ty::Timestamp && pane.is_some() {
        outputs.iter_mut().skip(2).for_each(|output| without_zone(rng, output));
    }
    let mut view = View {
        key: key.into_iter().map(str::to_owned).collect(),
        key_of_table,
        filter: rng.random_bool(0.4).then(|| condition(rng)),
        ttl_us: None,
        slide_us: None,
        named_windows: rng.random_bool(0.6),
        short_frames: rng.random_bool(0.3),
        outputs,
    };
    if rng.random_bool(0.25) {
        slide(rng, time, &mut view);
    }
    let may_end = primary_key.is_none()
        || view.frames().iter().all(|frame| frame.kind().starts_with("range") && !frame.kind().ends_with("unbounded"));
    if (turn.has_ttl() || rng.random_bool(0.2)) && may_end {
        let longest = view.frames().into_iter().map(|f| match f {
            Frame::Range { start_us, end_us } => start_us.unwrap_or(end_us),
            Frame::Rows { .. } => 0,
            Frame::Hop { size_us, .. } => size_us,
            Frame::Session { gap_us } => gap_us,
        });
        let longest = longest.max().unwrap_or(0) + view.slide_us.unwrap_or(0);
        // Exactly the longest window is the shortest TTL that is allowed.
        view.ttl_us = Some(match rng.random_range(0..3) {
            0 if longest > 0 => longest,
            _ => longest + time.duration(rng, 1..=12),
        });
    }
    view
}

/// Lets events leave on a grid of which every window is a whole number.
fn slide(rng: &mut StdRng, time: &Scale, view: &mut View) {
    let slide_us = (time.unit_us / rng.random_range(1..4)).max(1);
    let mut slides = false;
    for call in view.outputs.iter_mut().flat_map(|output| &mut output.calls) {
        if let Frame::Range { start_us: Some(start_us), .. } = &mut call.frame {
            *start_us = (*start_us + slide_us - 1) / slide_us * slide_us;
            slides = true;
        }
    }
    view.slide_us = slides.then_some(slide_us);
}

/// The output over an event time that has no time zone: what is made of it has none, and it is not compared with now.
fn without_zone(rng: &mut StdRng, output: &mut Output) {
    if output.is_continuous() {
        *output = raw(rng);
    }
    let types = output.calls.iter_mut().filter_map(|call| call.arg.as_mut()).map(|(_, ty)| ty);
    for ty in types.chain([&mut output.ty]).filter(|ty| **ty == Ty::Instant) {
        *ty = Ty::Timestamp;
    }
}

fn pane_of_kind(rng: &mut StdRng, time: &Scale, kind: &str) -> Frame {
    let hop_us = time.duration(rng, 1..=4);
    match kind {
        "tumble" => Frame::Hop { size_us: hop_us, hop_us },
        "hop" => Frame::Hop { size_us: hop_us * rng.random_range(2..5), hop_us },
        _ => Frame::Session { gap_us: hop_us },
    }
}

fn frame_of_kind(rng: &mut StdRng, time: &Scale, kind: &str) -> Frame {
    loop {
        let frame = frame(rng, time);
        if frame.kind() == kind {
            return frame;
        }
    }
}

fn frame(rng: &mut StdRng, time: &Scale) -> Frame {
    let rows = rng.random_range(0..6);
    match rng.random_range(0..12) {
        0..4 => Frame::Range { start_us: Some(time.duration(rng, 1..=8)), end_us: 0 },
        4..6 => {
            let end_us = if rng.random_bool(0.3) { 1 } else { time.duration(rng, 1..=4) };
            Frame::Range { start_us: Some(end_us + rng.random_range(0..6) * time.unit_us), end_us }
        }
        6 => Frame::Range { start_us: None, end_us: 0 },
        7 => Frame::Range { start_us: None, end_us: time.duration(rng, 1..=4) },
        8..10 => Frame::Rows { start: Some(rows), end: 0 },
        10 => {
            let end = rng.random_range(1..4);
            Frame::Rows { start: Some(end + rows), end }
        }
        _ => Frame::Rows { start: None, end: if rng.random_bool(0.5) { 0 } else { 2 } },
    }
}

/// A row-level condition.
fn condition(rng: &mut StdRng) -> String {
    [
        "qty > 0",
        "ok",
        "label <> 'b'",
        "price IS NOT NULL AND price < 100",
        "price >= 0",
        "label IN ('a', 'ab', 'Zoë')",
        "units BETWEEN -5 AND 5",
        "NOT ok OR label IS NULL",
        "label LIKE 'a%'",
        "amount <= 12.5",
        "CASE WHEN ok THEN qty > -3 ELSE units < 10 END",
        "coalesce(qty, 1) % 2 = 1",
        "small < 3",
        "ratio > 0.5 OR ratio IS NULL",
        "day >= DATE '2024-01-15'",
        "local < TIMESTAMP '2024-03-01 12:00:00'",
        "clock BETWEEN TIME '06:00:00' AND TIME '18:30:00'",
    ]
    .choose(rng)
    .unwrap()
    .to_string()
}

/// A row-level expression of the wanted type.
fn argument(rng: &mut StdRng, ty: Ty) -> (String, Ty) {
    let texts: &[&str] = match ty {
        Ty::Int2 => &["small", "small", "abs(small)"],
        Ty::Int4 => &["qty", "qty", "length(label)", "coalesce(qty, length(label))"],
        Ty::Int8 => &[
            "units",
            "qty + units",
            "units * 2",
            "abs(units)",
            "greatest(units, 0)",
            "CASE WHEN ok THEN units ELSE 0 - units END",
            "coalesce(units, 0)",
            "CAST(qty AS BIGINT) * 3",
            "CAST(amount AS BIGINT)",
            "CASE WHEN abs(price) < 1000 THEN CAST(price AS BIGINT) END",
        ],
        Ty::Float4 => &["ratio", "ratio", "abs(ratio)"],
        Ty::Bytea => &["bytes"],
        Ty::Date => &["day"],
        Ty::Time => &["clock"],
        Ty::Timestamp => &["local"],
        Ty::Float8 => &[
            "price",
            "price",
            "price * 2",
            "price + qty",
            "abs(price)",
            "CASE WHEN price > 0 THEN price END",
            "coalesce(price, 0)",
            "CAST(qty AS DOUBLE PRECISION) / 4",
        ],
        Ty::Numeric => &["amount", "amount", "amount + amount", "abs(amount)", "coalesce(amount, 0)"],
        Ty::Text => &[
            "label",
            "label",
            "upper(label)",
            "label || '!'",
            "substr(label, 1, 1)",
            "nullif(label, 'a')",
            "coalesce(label, 'none')",
            // Documents, and what is in them.
            "('{\"q\": ' || CAST(qty AS TEXT) || ', \"l\": [null, 2.50]}')::json ->> 'q'",
            "('{\"l\": [null, \"' || upper(label) || '\"]}')::json #>> '{l,1}'",
            "('[{\"ok\": ' || coalesce(CAST(ok AS TEXT), 'null') || '}]')::json -> -1 ->> 'ok'",
        ],
        Ty::Bool => &["ok", "ok", "qty > 0", "label = 'a'", "price > 1.5", "ok AND units > 0", "amount IS NULL OR ok"],
        Ty::Instant | Ty::Interval => &[EVENT_TIME],
    };
    (texts.choose(rng).unwrap().to_string(), ty)
}

fn call(rng: &mut StdRng, function: &str, ty: Ty, frames: &[Frame]) -> Call {
    let with_order = matches!(function, "first_value" | "last_value" | "nth_value");
    Call {
        function: function.to_owned(),
        arg: match function {
            "count" if rng.random_bool(0.5) => None,
            "rate" if rng.random_bool(0.2) => None,
            _ => Some(argument(rng, ty)),
        },
        other: None,
        parameter: None,
        filter: (!with_order && rng.random_bool(0.3)).then(|| condition(rng)),
        frame: *frames.choose(rng).unwrap(),
    }
}

fn any_call(rng: &mut StdRng, frames: &[Frame]) -> (Call, Ty) {
    loop {
        let (function, frame) = (*FUNCTIONS.choose(rng).unwrap(), *frames.choose(rng).unwrap());
        // What is not read as it is has its turns.
        let as_it_is = template(rng, function) == "{0}";
        if is_legal(function, frame.kind()) && as_it_is && (function != "rate" || frame.length_us() > 0) {
            return call_of(rng, function, &[frame]);
        }
    }
}

/// A function over any type it takes; the type of the result.
fn call_of(rng: &mut StdRng, function: &str, frames: &[Frame]) -> (Call, Ty) {
    use Ty::*;
    const NUMBERS: [Ty; 6] = [Int2, Int4, Int8, Float4, Float8, Numeric];
    const ORDERED: [Ty; 11] = [Int2, Int4, Int8, Float4, Float8, Numeric, Text, Date, Time, Timestamp, Instant];
    const ALL: [Ty; 13] =
        [Int2, Int4, Int8, Float4, Float8, Numeric, Text, Date, Time, Timestamp, Instant, Bool, Bytea];
    let is_of_pairs = function.starts_with("regr_") || function.starts_with("covar_") || function == "corr";
    let ty = *match function {
        "sum" | "avg" | "sum_distinct" | "avg_distinct" | "median" | "percentile_cont" | "approx_percentile" => {
            NUMBERS.choose(rng)
        }
        "var_samp" | "var_pop" | "stddev_samp" | "stddev_pop" | "skewness" | "kurtosis" | "kurtosis_pop"
        | "geometric_mean" | "increase" => NUMBERS[..5].choose(rng),
        "histogram" => [Int2, Int4, Int8, Text, Bool].choose(rng),
        _ if is_of_pairs => NUMBERS[..5].choose(rng),
        "min" | "max" | "mode" | "percentile_disc" => ORDERED.choose(rng),
        "bool_and" | "bool_or" => [Bool].choose(rng),
        "bit_xor" | "decay_sum" | "decay_count" | "decay_avg" => NUMBERS[..3].choose(rng),
        "string_agg" => [Text].choose(rng),
        // Their items are compared as text, which is the same everywhere for these.
        _ if is_array(function) => [Int2, Int4, Int8, Text].choose(rng),
        "approx_count_distinct" => [Int2, Int4, Int8, Text, Date].choose(rng),
        _ => ALL.choose(rng),
    }
    .unwrap();
    let result = match (function, ty) {
        ("count" | "count_distinct" | "approx_count_distinct" | "regr_count", _) => Int8,
        ("sum" | "sum_distinct", Int2 | Int4) => Int8,
        ("sum" | "sum_distinct", Float4) => Float8,
        ("avg" | "avg_distinct", Ty::Numeric) => Ty::Numeric,
        ("avg" | "avg_distinct" | "median" | "percentile_cont" | "approx_percentile", _) => Float8,
        ("geometric_mean" | "entropy" | "rate" | "vector_sum" | "vector_avg", _) => Float8,
        ("increase", Int2 | Int4 | Int8) => Int8,
        ("increase", _) => Float8,
        ("histogram", _) => Text,
        ("decay_sum" | "decay_count" | "decay_avg", _) => Float8,
        ("var_samp" | "var_pop" | "stddev_samp" | "stddev_pop" | "skewness" | "kurtosis" | "kurtosis_pop", _) => Float8,
        _ if is_of_pairs => Float8,
        _ if is_array(function) => Text,
        _ => ty,
    };
    let mut call = call(rng, function, ty, frames);
    if ty == Float8
        && matches!(function, "count" | "min" | "max" | "first_value" | "last_value" | "nth_value" | "mode")
        && rng.random_bool(0.4)
    {
        call.arg = Some(("reading".to_owned(), ty));
    }
    // Over an unbounded frame it is a sketch, exact for a handful of values only.
    if function == "approx_count_distinct" && call.frame.kind().ends_with("unbounded") && ty == Int8 {
        call.arg = Some(argument(rng, Ty::Int4));
    }
    if function.starts_with("vector_") {
        let arrays = [
            "ARRAY[price, abs(price)]",
            "CASE WHEN label <> 'a' THEN ARRAY[price, coalesce(price, 2.5)] END",
            "CASE WHEN ok THEN ARRAY[price * 2] WHEN qty > 3 THEN ARRAY[price, 0.5] END",
            "CASE WHEN label IS NOT NULL THEN ARRAY[ratio] END",
        ];
        call.arg = Some((arrays.choose(rng).unwrap().to_string(), Float8));
    }
    call.other = match function {
        "min_by" | "max_by" | "top_k_by" | "bottom_k_by" => {
            let by = *ORDERED.choose(rng).unwrap();
            Some(argument(rng, by))
        }
        _ if is_of_pairs => {
            let x = *NUMBERS[..5].choose(rng).unwrap();
            Some(argument(rng, x))
        }
        _ => None,
    };
    call.parameter = match function {
        "nth_value" | "first_k" | "last_k" | "top_k" | "bottom_k" | "top_k_by" | "bottom_k_by" | "approx_top_k" => {
            Some(rng.random_range(1..5).to_string())
        }
        "percentile_cont" | "percentile_disc" | "approx_percentile" => {
            Some(["0", "0.1", "0.25", "0.5", "0.9", "0.99", "1"].choose(rng).unwrap().to_string())
        }
        // The definition knows no weight below 2⁻¹⁰⁰⁰, which is nothing in a sum and something in an average.
        "decay_avg" => Some(["INTERVAL '1 hour'", "INTERVAL '2 days'"].choose(rng).unwrap().to_string()),
        "decay_sum" | "decay_count" => Some(
            ["INTERVAL '1 second'", "INTERVAL '90 seconds'", "INTERVAL '1 hour'", "INTERVAL '2 days'"]
                .choose(rng)
                .unwrap()
                .to_string(),
        ),
        "string_agg" => Some(["','", "''", "' it''s '"].choose(rng).unwrap().to_string()),
        _ => None,
    };
    (call, result)
}

fn is_array(function: &str) -> bool {
    matches!(
        function,
        "first_k" | "last_k" | "array_agg" | "top_k" | "bottom_k" | "top_k_by" | "bottom_k_by" | "approx_top_k"
    )
}

/// How the value of a function is read so that it is the same text everywhere.
fn template(rng: &mut StdRng, function: &str) -> &'static str {
    match function {
        // Computed in another order there; no value of interest lies where rounding would show it.
        "decay_sum" | "decay_count" | "decay_avg" | "geometric_mean" | "entropy" => "floor({0} * 1000 + 0.3)",
        "vector_sum" | "vector_avg" => ["({0})[1]", "({0})[2]"].choose(rng).unwrap(),
        _ if is_array(function) => "array_to_string({0}, '|', '?')",
        _ => "{0}",
    }
}

/// An output that is what the call says.
fn alone(rng: &mut StdRng, (call, ty): (Call, Ty)) -> Output {
    Output { template: template(rng, &call.function).to_owned(), calls: vec![call], ty }
}

fn any_output(rng: &mut StdRng, frames: &[Frame]) -> Output {
    let call = any_call(rng, frames);
    alone(rng, call)
}

/// One that reads no columns.
fn output_of_aggregates(rng: &mut StdRng, frames: &[Frame]) -> Output {
    let (a, b) = (call(rng, "sum", Ty::Int8, frames), call(rng, "count", Ty::Text, frames));
    match rng.random_range(0..2) {
        0 => Output { template: "coalesce({0}, 0) - {1}".to_owned(), calls: vec![a, b], ty: Ty::Int8 },
        _ => any_output(rng, frames),
    }
}

fn output(rng: &mut StdRng, frames: &[Frame]) -> Output {
    let plain = |template: &str, calls: Vec<Call>, ty: Ty| Output { template: template.to_owned(), calls, ty };
    match rng.random_range(0..20) {
        0..11 => any_output(rng, frames),
        11 => raw(rng),
        12 => {
            let (a, b) = (call(rng, "sum", Ty::Int8, frames), call(rng, "count", Ty::Text, frames));
            plain("coalesce({0}, 0) - {1}", vec![a, b], Ty::Int8)
        }
        13 => {
            let (a, b) = (call(rng, "max", Ty::Numeric, frames), call(rng, "min", Ty::Numeric, frames));
            plain("{0} - {1}", vec![a, b], Ty::Numeric)
        }
        14 => {
            let (call_1, ty) = any_call(rng, frames);
            let call_0 = call(rng, "count", Ty::Bool, frames);
            plain("CASE WHEN {0} > 2 THEN {1} END", vec![call_0, call_1], ty)
        }
        15 => {
            let (a, b) = (call(rng, "count", Ty::Int4, frames), call(rng, "count", Ty::Int8, frames));
            plain("CAST({0} AS DOUBLE PRECISION) / nullif({1}, 0)", vec![a, b], Ty::Float8)
        }
        16 => plain("{0} * 2.0 + 1.5", vec![call(rng, "avg", Ty::Float8, frames)], Ty::Float8),
        17 => match rng.random_range(0..3) {
            0 => plain("price - {0}", vec![call(rng, "avg", Ty::Float8, frames)], Ty::Float8),
            1 => plain(
                "CASE WHEN {0} THEN 'yes' WHEN {0} IS NULL THEN '?' ELSE 'no' END",
                vec![call(rng, "bool_or", Ty::Bool, frames)],
                Ty::Text,
            ),
            _ => plain(
                "{0} > {1} OR {0} IS NULL",
                vec![call(rng, "max", Ty::Float8, frames), call(rng, "last_value", Ty::Float8, frames)],
                Ty::Bool,
            ),
        },
        18 => plain("now() - {0}", vec![call(rng, "max", Ty::Instant, frames)], Ty::Interval),
        _ => {
            let calls = vec![call(rng, "max", Ty::Instant, frames), call(rng, "count", Ty::Int4, frames)];
            plain("CASE WHEN now() - {0} > INTERVAL '3 seconds' THEN {1} ELSE -1 END", calls, Ty::Int8)
        }
    }
}

/// A feature without OVER: the key's latest event.
fn raw(rng: &mut StdRng) -> Output {
    let (template, ty) = *[
        ("price", Ty::Float8),
        ("qty", Ty::Int4),
        ("label", Ty::Text),
        ("amount", Ty::Numeric),
        ("ok", Ty::Bool),
        ("units + 1", Ty::Int8),
        ("upper(label)", Ty::Text),
        ("coalesce(label, 'none')", Ty::Text),
        ("price * 0.5", Ty::Float8),
        ("small", Ty::Int2),
        ("ratio", Ty::Float4),
        ("reading", Ty::Float8),
        ("day", Ty::Date),
        ("clock", Ty::Time),
        ("local", Ty::Timestamp),
        ("bytes", Ty::Bytea),
    ]
    .choose(rng)
    .unwrap();
    Output { template: template.to_owned(), calls: vec![], ty }
}

/// Instants where something may happen, one microsecond either side, and any other; never after the last event, which
/// is the event clock's now.
fn probes(rng: &mut StdRng, source: &Source, view: &View, count: usize) -> Vec<Probe> {
    let changes: Vec<Row>;
    let rows = match source.primary_key {
        Some(_) => {
            changes = admitted(source).into_iter().flatten().collect();
            &changes
        }
        None => &source.rows,
    };
    let key_columns: Vec<usize> = view.key.iter().map(|name| source.column(name)).collect();
    let first_us = source.rows.iter().map(|r| r.event_time_us).min().unwrap_or(0);
    let now_us = source.rows.iter().map(|r| r.event_time_us).max().unwrap_or(0);
    let mut probes = BTreeSet::new();
    for _ in 0..count * 20 {
        if probes.len() == count {
            break;
        }
        let row = rows.choose(rng).unwrap();
        let Some(key) = key_columns.iter().map(|i| row.cells[*i].clone()).collect::<Option<Vec<_>>>() else { continue };
        let t_us = match rng.random_range(0..8) {
            0 => rng.random_range(first_us - 10..=now_us),
            // When another row comes, this one may be over.
            1 if source.primary_key.is_some() => {
                rows.choose(rng).unwrap().event_time_us + *[-1, 0, 0, 1].choose(rng).unwrap()
            }
            1 => row.event_time_us + rng.random_range(0..=(now_us - row.event_time_us) / 8),
            2 => row.event_time_us + *[-1, 0, 1].choose(rng).unwrap(),
            _ => {
                let changes = view.changes(row.event_time_us);
                changes.choose(rng).unwrap_or(&row.event_time_us) + *[-1, 0, 0, 0, 1].choose(rng).unwrap()
            }
        };
        if t_us <= now_us {
            probes.insert(Probe { key, t_us });
        }
    }
    probes.into_iter().collect()
}
