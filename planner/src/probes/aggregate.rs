//! The aggregates in PostgreSQL's SQL, exactly as we compute them.

use super::{expression::pg_type, text};
use crate::{
    PlanError, PlanResult,
    error::sqlstate,
    feature::{Aggregate, Call, FeaturePlan, ITEMS_MAX, Parameter, Slot},
};
use arrow_schema::DataType;
use tidemark_catalog::SqlType;

/// The aggregates over one frame, each `… AS s<slot>`.
pub(super) fn over_frame(plan: &FeaturePlan, frame: usize) -> PlanResult<Vec<String>> {
    let slots = plan.slots.iter().enumerate();
    let calls = slots.filter_map(|(i, slot)| match slot {
        Slot::Aggregate(call) if call.frame == frame => Some((i, call)),
        _ => None,
    });
    calls.map(|(i, call)| Ok(format!("{} AS s{i}", aggregate(plan, call)?))).collect()
}

/// An argument as the query has it, and its type.
struct Argument<'a> {
    name: String,
    ty: &'a DataType,
}

impl Argument<'_> {
    /// The exact value; double precision to numeric goes through 15 decimal digits.
    fn exact(&self) -> String {
        match self.ty {
            DataType::Float32 | DataType::Float16 => format!("{}::float8::numeric", self.name),
            _ => format!("{}::numeric", self.name),
        }
    }

    /// As it is ordered: texts by their bytes.
    fn ordered(&self) -> String {
        match SqlType::from_arrow(self.ty) {
            Some(SqlType::Text) => format!("{} COLLATE \"C\"", self.name),
            _ => self.name.clone(),
        }
    }
}

fn aggregate(plan: &FeaturePlan, call: &Call) -> PlanResult<String> {
    use Aggregate as A;
    let filter = call.filter.map(|f| format!(" FILTER (WHERE e.a{f})")).unwrap_or_default();
    let argument = |input: usize| Argument { name: format!("e.a{input}"), ty: &plan.inputs[input].ty };
    let Some(arg) = call.arg.map(argument) else {
        return match call.function {
            A::Count => Ok(format!("count(*){filter}")),
            A::Rate => rate(&format!("count(*){filter}"), call),
            other => Err(PlanError::new(sqlstate::INTERNAL, format!("{} without an argument", other.name()))),
        };
    };
    let (name, ty) = (&arg.name, &call.ty);
    let (exact, ordered) = (arg.exact(), arg.ordered());
    let count = format!("count({name}){filter}");
    let sum_of = |what: &str| format!("sum({what}){filter}");
    let variance = |divisor: &str, at_least: u8| {
        let (squares, sum) = (sum_of(&format!("{exact} * {exact}")), sum_of(&exact));
        format!(
            "CASE WHEN {count} >= {at_least} THEN\n        ({count} * {squares} - {sum} * {sum})\
             ::float8 / ({divisor})::float8 END"
        )
    };
    let sample = format!("{count} * ({count} - 1)");
    let population = format!("{count} * {count}");
    let in_order = |what: &str| format!("array_agg({what} ORDER BY e.ts, e.seq){filter}");
    let distinct = if matches!(call.function, A::SumDistinct | A::AvgDistinct) { "DISTINCT " } else { "" };
    let number = match &call.parameter {
        Parameter::Number(n) => *n,
        _ => 0,
    };
    let few = |list: String| format!("CASE WHEN count(*){filter} <= {ITEMS_MAX} THEN {list} END");
    Ok(match call.function {
        A::Count => count,
        A::CountDistinct => format!("count(DISTINCT {name}){filter}"),
        A::ApproxCountDistinct => format!("(count(DISTINCT {name}){filter})::{}", pg_type(ty)),
        A::Sum | A::SumDistinct => {
            let sum = format!("sum({distinct}{exact}){filter}");
            match ty {
                // Out of the type's range is NULL in a view.
                DataType::Int64 if matches!(arg.ty, DataType::Int64) => {
                    format!(
                        "CASE WHEN {sum} BETWEEN -9223372036854775808 AND 9223372036854775807 THEN ({sum})::bigint END"
                    )
                }
                DataType::Decimal128(precision, scale) => format!(
                    "CASE WHEN abs({sum}) < 1e{} THEN ({sum})::{} END",
                    i16::from(*precision) - i16::from(*scale),
                    pg_type(ty)
                ),
                _ => format!("({sum})::{}", pg_type(ty)),
            }
        }
        A::Avg | A::AvgDistinct => {
            let sum = format!("sum({distinct}{exact}){filter}");
            let count = format!("count({distinct}{name}){filter}");
            match ty {
                // Cut off at the result's scale.
                DataType::Decimal128(_, scale) => {
                    format!("(div({sum} * 1e{scale}, {count}) / 1e{scale})::{}", pg_type(ty))
                }
                _ => format!("({sum})::float8 / {count}"),
            }
        }
        A::VarSamp => variance(&sample, 2),
        A::VarPop => variance(&population, 1),
        A::StddevSamp => format!("sqrt({})", variance(&sample, 2)),
        A::StddevPop => format!("sqrt({})", variance(&population, 1)),
        A::Skewness | A::Kurtosis | A::KurtosisPop => shape(call.function, &exact, &count, &filter),
        A::Min | A::Max => {
            let function = match (call.function, arg.ty) {
                (A::Min, DataType::Boolean) => "bool_and",
                (_, DataType::Boolean) => "bool_or",
                (A::Min, _) => "min",
                _ => "max",
            };
            format!("{function}({ordered}){filter}")
        }
        A::MinBy | A::MaxBy | A::TopKBy | A::BottomKBy => {
            let by = other(plan, call)?;
            let direction = if matches!(call.function, A::MinBy | A::BottomKBy) { "ASC" } else { "DESC" };
            let which = if number == 0 { "1".to_owned() } else { format!("1:{number}") };
            format!(
                "(array_agg({name} ORDER BY {} {direction} NULLS LAST, e.ts DESC, e.seq DESC)\n        \
                     FILTER (WHERE {} IS NOT NULL{}))[{which}]",
                by.ordered(),
                by.name,
                call.filter.map(|f| format!(" AND e.a{f}")).unwrap_or_default()
            )
        }
        A::GeometricMean => format!(
            "exp(sum(CASE WHEN {name} < 0 THEN 'NaN' WHEN {name} = 0 THEN '-Infinity' ELSE ln({name}::float8) END){filter} / {count})"
        ),
        A::Rate => rate(&count, call)?,
        A::Entropy | A::Histogram | A::ApproxTopK => frequencies(call, &arg)?,
        A::Increase => increase(call, &arg),
        A::VectorSum | A::VectorAvg => vectors(call, &arg),
        A::FirstValue => format!("({})[1]", in_order(name)),
        A::LastValue => format!("(array_agg({name} ORDER BY e.ts DESC, e.seq DESC){filter})[1]"),
        A::NthValue => format!("({})[{number}]", in_order(name)),
        A::FirstK => format!("({})[1:{number}]", in_order(name)),
        A::LastK => {
            format!("({})[greatest(1, (count(*){filter})::integer - {number} + 1):]", in_order(name))
        }
        A::ArrayAgg => few(in_order(name)),
        A::StringAgg => match &call.parameter {
            Parameter::Text(between) => {
                let list = format!("string_agg({name}, {} ORDER BY e.ts, e.seq){filter}", text(between));
                format!("CASE WHEN {count} <= {ITEMS_MAX} THEN {list} END")
            }
            _ => return Err(PlanError::new(sqlstate::INTERNAL, "string_agg without a delimiter")),
        },
        A::TopK | A::BottomK => {
            let direction = if call.function == A::BottomK { "ASC" } else { "DESC" };
            let all = format!("array_agg({name} ORDER BY {ordered} {direction} NULLS LAST){filter}");
            format!("CASE WHEN {count} > 0 THEN (array_remove({all}, NULL))[1:{number}] END")
        }
        A::Mode => format!("mode() WITHIN GROUP (ORDER BY {ordered}){filter}"),
        A::Median => format!("percentile_cont(0.5) WITHIN GROUP (ORDER BY {name}::float8){filter}"),
        A::PercentileCont | A::PercentileDisc | A::ApproxPercentile => {
            let Parameter::Fraction(p) = call.parameter else {
                return Err(PlanError::new(sqlstate::INTERNAL, "a percentile without a fraction"));
            };
            match call.function {
                A::PercentileCont | A::ApproxPercentile => {
                    format!("percentile_cont({p:?}) WITHIN GROUP (ORDER BY {name}::float8){filter}")
                }
                _ => format!("percentile_disc({p:?}) WITHIN GROUP (ORDER BY {ordered}){filter}"),
            }
        }
        A::DecaySum | A::DecayCount | A::DecayAvg | A::DecayAnchor => decayed(call, &arg, &filter)?,
        A::BoolAnd => format!("bool_and({name}){filter}"),
        A::BoolOr => format!("bool_or({name}){filter}"),
        A::BitAnd => format!("bit_and({name}){filter}"),
        A::BitOr => format!("bit_or({name}){filter}"),
        A::BitXor => format!("bit_xor({name}){filter}"),
        A::Corr
        | A::CovarSamp
        | A::CovarPop
        | A::RegrSlope
        | A::RegrIntercept
        | A::RegrR2
        | A::RegrCount
        | A::RegrAvgx
        | A::RegrAvgy
        | A::RegrSxx
        | A::RegrSyy
        | A::RegrSxy => pairs(call, &arg, &other(plan, call)?),
    })
}

/// Here the value stands at the probe's instant, and not at the latest event's: what it is at the probe is the same.
fn decayed(call: &Call, arg: &Argument<'_>, filter: &str) -> PlanResult<String> {
    let Parameter::Duration(half_life_us) = call.parameter else {
        return Err(PlanError::new(sqlstate::INTERNAL, "what decays has a half-life"));
    };
    let name = &arg.name;
    // PostgreSQL refuses to underflow.
    let weight = format!(
        "power(2::float8, greatest(-1000, -extract(epoch FROM p.t - e.ts)::float8 / {:?}))",
        half_life_us as f64 / 1e6
    );
    let sum = format!("sum({name}::float8 * {weight}){filter}");
    let count = format!("sum(CASE WHEN {name} IS NOT NULL THEN {weight} END){filter}");
    Ok(match call.function {
        Aggregate::DecaySum => sum,
        Aggregate::DecayCount => count,
        Aggregate::DecayAvg => format!("{sum} / {count}"),
        _ => format!("CASE WHEN count({name}){filter} > 0 THEN p.t END"),
    })
}

fn rate(count: &str, call: &Call) -> PlanResult<String> {
    let Parameter::Duration(length_us) = call.parameter else {
        return Err(PlanError::new(sqlstate::INTERNAL, "a rate without a length"));
    };
    Ok(format!("({count})::float8 / {:?}::float8", length_us as f64 / 1e6))
}

/// The arguments that are not NULL, as an array in no order that matters, or in that of the events.
fn all_of(call: &Call, name: &str, ordered: bool) -> String {
    let only = call.filter.map(|f| format!(" AND e.a{f}")).unwrap_or_default();
    let order = if ordered { " ORDER BY e.ts, e.seq" } else { "" };
    format!("array_agg({name}{order}) FILTER (WHERE {name} IS NOT NULL{only})")
}

/// What is made of each distinct value and how often it is there.
fn frequencies(call: &Call, arg: &Argument<'_>) -> PlanResult<String> {
    let all = all_of(call, &arg.name, false);
    let each = format!(
        "FROM (SELECT v, count(*) AS n, sum(count(*)) OVER () AS n_all\n        FROM unnest({all}) AS u (v) GROUP BY v) q"
    );
    let ordered = Argument { name: "v".to_owned(), ty: arg.ty }.ordered();
    Ok(match (call.function, &call.parameter) {
        (Aggregate::Entropy, _) => {
            format!("(SELECT sum(n / n_all::float8 * ln(n_all::float8 / n) / ln(2::float8)) {each})")
        }
        (Aggregate::Histogram, _) => format!(
            "(SELECT '{{' || string_agg(to_json(v::text)::text || ': ' || n, ', ' ORDER BY {ordered}) || '}}' {each}\n        \
             HAVING count(*) BETWEEN 1 AND {ITEMS_MAX})"
        ),
        (_, Parameter::Number(k)) => format!("(SELECT (array_agg(v ORDER BY n DESC, {ordered}))[1:{k}] {each})"),
        _ => return Err(PlanError::new(sqlstate::INTERNAL, "the most frequent values without a number")),
    })
}

fn increase(call: &Call, arg: &Argument<'_>) -> String {
    let (to, from) = (Argument { name: "v".to_owned(), ty: arg.ty }, Argument { name: "f".to_owned(), ty: arg.ty });
    let sum = format!(
        "(SELECT sum(CASE WHEN v < f THEN {} ELSE {} - {} END)\n        FROM (SELECT v, lag(v) OVER (ORDER BY i) AS f FROM \
         unnest({}) WITH ORDINALITY AS u (v, i)) q WHERE f IS NOT NULL",
        to.exact(),
        to.exact(),
        from.exact(),
        all_of(call, &arg.name, true)
    );
    match call.ty {
        DataType::Int64 => format!(
            "(SELECT CASE WHEN s BETWEEN -9223372036854775808 AND 9223372036854775807 THEN s::bigint END FROM {sum}) AS x (s))"
        ),
        _ => format!("{sum})::float8"),
    }
}

/// As JSON, since PostgreSQL has no arrays of arrays of different lengths.
fn vectors(call: &Call, arg: &Argument<'_>) -> String {
    let name = &arg.name;
    let only = call.filter.map(|f| format!(" AND e.a{f}")).unwrap_or_default();
    let filter = format!("FILTER (WHERE {name} IS NOT NULL{only})");
    let lane = match call.function {
        Aggregate::VectorAvg => "sum(x::numeric)::float8 / count(x)",
        _ => "sum(x::numeric)::float8",
    };
    format!(
        "CASE WHEN count(DISTINCT cardinality({name})) {filter} = 1 THEN coalesce((\n        \
         SELECT array_agg(s ORDER BY i) FROM (SELECT i, {lane} AS s\n        \
         FROM jsonb_array_elements(jsonb_agg(to_jsonb({name}::float8[])) {filter}) AS a (v),\n        \
         LATERAL jsonb_array_elements_text(v) WITH ORDINALITY AS l (x, i) GROUP BY i) q), '{{}}') END"
    )
}

fn other<'a>(plan: &'a FeaturePlan, call: &Call) -> PlanResult<Argument<'a>> {
    let input = call.other.ok_or_else(|| {
        PlanError::new(sqlstate::INTERNAL, format!("{} without a second argument", call.function.name()))
    })?;
    Ok(Argument { name: format!("e.a{input}"), ty: &plan.inputs[input].ty })
}

/// Skewness and kurtosis by exact power sums (see the engine's `Moments`).
fn shape(function: Aggregate, exact: &str, count: &str, filter: &str) -> String {
    let power = |p: usize| format!("sum({}){filter}", vec![exact; p].join(" * "));
    let (n, s1, s2, s3) = (format!("({count})"), power(1), power(2), power(3));
    let m2 = format!("({n} * {s2} - {s1} * {s1})");
    match function {
        Aggregate::Skewness => {
            let m3 = format!("({n} * {n} * {s3} - 3 * {n} * {s1} * {s2} + 2 * {s1} * {s1} * {s1})");
            format!(
                "CASE WHEN {n} >= 3 AND {m2} <> 0 THEN sqrt(({n} * ({n} - 1))::float8) / ({n} - 2)::float8\n        \
                 * ({m3}::float8 / ({m2}::float8 * sqrt({m2}::float8))) END"
            )
        }
        _ => {
            let s4 = power(4);
            let m4 = format!(
                "({n} * {n} * {n} * {s4} - 4 * {n} * {n} * {s1} * {s3} + 6 * {n} * {s1} * {s1} * {s2} \
                 - 3 * {s1} * {s1} * {s1} * {s1})"
            );
            let excess = format!("({m4}::float8 / ({m2}::float8 * {m2}::float8) - 3::float8)");
            match function {
                Aggregate::KurtosisPop => format!("CASE WHEN {m2} <> 0 THEN {excess} END"),
                _ => format!(
                    "CASE WHEN {n} >= 4 AND {m2} <> 0 THEN ({n} - 1)::float8 / (({n} - 2)::float8 * ({n} - 3)::float8)\n        \
                     * (({n} + 1)::float8 * {excess} + 6::float8) END"
                ),
            }
        }
    }
}

/// Aggregates of (y, x) by exact sums (see the engine's `Pairs`).
fn pairs(call: &Call, y: &Argument<'_>, x: &Argument<'_>) -> String {
    use Aggregate as A;
    let only = call.filter.map(|f| format!(" AND e.a{f}")).unwrap_or_default();
    let both = format!(" FILTER (WHERE {} IS NOT NULL AND {} IS NOT NULL{only})", y.name, x.name);
    let sum = |what: String| format!("sum({what}){both}");
    let (ey, ex) = (y.exact(), x.exact());
    let n = format!("(count(*){both})");
    let (sy, sx) = (sum(ey.clone()), sum(ex.clone()));
    // NaN where a value is no finite number, whatever its sign makes of infinities.
    let numerator = |a: &str, b: &str, sa: &str, sb: &str| {
        let special = "('NaN', 'Infinity', '-Infinity')";
        format!(
            "(CASE WHEN {sa} IN {special} OR {sb} IN {special} THEN 'NaN' ELSE {n} * {} - {sa} * {sb} END::float8)",
            sum(format!("{a} * {b}"))
        )
    };
    let nxx = numerator(&ex, &ex, &sx, &sx);
    let nyy = numerator(&ey, &ey, &sy, &sy);
    let nxy = numerator(&ex, &ey, &sx, &sy);
    let slope = format!("({nxy} / {nxx})");
    match call.function {
        A::RegrCount => n,
        A::RegrAvgx => format!("({sx})::float8 / {n}"),
        A::RegrAvgy => format!("({sy})::float8 / {n}"),
        A::RegrSxx => format!("{nxx} / {n}"),
        A::RegrSyy => format!("{nyy} / {n}"),
        A::RegrSxy => format!("{nxy} / {n}"),
        A::CovarPop => format!("{nxy} / ({n} * {n})::float8"),
        A::CovarSamp => format!("CASE WHEN {n} > 1 THEN {nxy} / ({n} * ({n} - 1))::float8 END"),
        A::Corr => {
            let corr = format!("({nxy} / (sqrt({nxx}) * sqrt({nyy})))");
            format!(
                "CASE WHEN {nxx} <> 0 AND {nyy} <> 0 THEN CASE WHEN {corr} = 'NaN' THEN {corr}\n        \
                 ELSE greatest(-1::float8, least(1::float8, {corr})) END END"
            )
        }
        A::RegrSlope => format!("CASE WHEN {nxx} <> 0 THEN {slope} END"),
        A::RegrIntercept => {
            format!("CASE WHEN {nxx} <> 0 THEN (({sy})::float8 - {slope} * ({sx})::float8) / {n} END")
        }
        _ => format!(
            "CASE WHEN {nxx} <> 0 THEN CASE WHEN {nyy} = 0 THEN 1::float8 ELSE {slope} * ({nxy} / {nyy}) END END"
        ),
    }
}
