//! The aggregates that feature views maintain: their names, what they take, and what they give.

use arrow_schema::{DataType, Field};
use std::sync::Arc;
use tidemark_catalog::vector::is_vector;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Aggregate {
    Count,
    CountDistinct,
    ApproxCountDistinct,
    Sum,
    SumDistinct,
    Avg,
    AvgDistinct,
    Min,
    Max,
    MinBy,
    MaxBy,
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    Skewness,
    Kurtosis,
    KurtosisPop,
    Corr,
    CovarSamp,
    CovarPop,
    RegrSlope,
    RegrIntercept,
    RegrR2,
    RegrCount,
    RegrAvgx,
    RegrAvgy,
    RegrSxx,
    RegrSyy,
    RegrSxy,
    FirstValue,
    LastValue,
    NthValue,
    FirstK,
    LastK,
    ArrayAgg,
    StringAgg,
    TopK,
    BottomK,
    Mode,
    Median,
    PercentileCont,
    PercentileDisc,
    BoolAnd,
    BoolOr,
    BitAnd,
    BitOr,
    BitXor,
    DecaySum,
    DecayCount,
    DecayAvg,
    /// The event time that the value of `DecaySum` or `DecayCount` stands at: that of the latest event in it.
    DecayAnchor,
    TopKBy,
    BottomKBy,
    GeometricMean,
    Entropy,
    Histogram,
    /// Events per second of the frame's length, which its parameter is.
    Rate,
    Increase,
    VectorSum,
    VectorAvg,
    ApproxTopK,
    ApproxPercentile,
}

/// A constant among an aggregate's arguments.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter {
    None,
    /// How many, or which; at least 1.
    Number(u64),
    /// Between 0 and 1.
    Fraction(f64),
    Text(Arc<str>),
    /// Microseconds, positive.
    Duration(i64),
}

/// What may stand behind the aggregate's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    Nothing,
    /// A second argument, evaluated for every event.
    Other,
    /// Such a second argument, and then a number.
    OtherAndNumber,
    Number,
    Fraction,
    Text,
    Duration,
}

/// An array that an aggregate makes has at most so many items: a step holds all of them.
pub const ITEMS_MAX: u64 = 1_000;

/// `approx_top_k` finds at most so many: of the values that an unbounded frame is watched for (the engine's `Frequent`), only
/// the most frequent are sure to be right.
pub const FREQUENT_MAX: u64 = 100;

/// Vectors that are added up have at most so many items; the longest embeddings in use have 4,096.
pub const VECTOR_MAX: usize = 4_096;

/// Name, then other names of the same.
const NAMES: [(Aggregate, &[&str]); 63] = [
    (Aggregate::Count, &["count"]),
    (Aggregate::CountDistinct, &["count_distinct"]),
    (Aggregate::ApproxCountDistinct, &["approx_count_distinct", "approx_distinct"]),
    (Aggregate::Sum, &["sum"]),
    (Aggregate::SumDistinct, &["sum_distinct"]),
    (Aggregate::Avg, &["avg", "mean"]),
    (Aggregate::AvgDistinct, &["avg_distinct"]),
    (Aggregate::Min, &["min"]),
    (Aggregate::Max, &["max"]),
    (Aggregate::MinBy, &["min_by"]),
    (Aggregate::MaxBy, &["max_by"]),
    (Aggregate::VarSamp, &["var_samp", "var", "var_sample", "variance"]),
    (Aggregate::VarPop, &["var_pop", "var_population"]),
    (Aggregate::StddevSamp, &["stddev_samp", "stddev"]),
    (Aggregate::StddevPop, &["stddev_pop"]),
    (Aggregate::Skewness, &["skewness"]),
    (Aggregate::Kurtosis, &["kurtosis"]),
    (Aggregate::KurtosisPop, &["kurtosis_pop"]),
    (Aggregate::Corr, &["corr"]),
    (Aggregate::CovarSamp, &["covar_samp", "covar"]),
    (Aggregate::CovarPop, &["covar_pop"]),
    (Aggregate::RegrSlope, &["regr_slope"]),
    (Aggregate::RegrIntercept, &["regr_intercept"]),
    (Aggregate::RegrR2, &["regr_r2"]),
    (Aggregate::RegrCount, &["regr_count"]),
    (Aggregate::RegrAvgx, &["regr_avgx"]),
    (Aggregate::RegrAvgy, &["regr_avgy"]),
    (Aggregate::RegrSxx, &["regr_sxx"]),
    (Aggregate::RegrSyy, &["regr_syy"]),
    (Aggregate::RegrSxy, &["regr_sxy"]),
    (Aggregate::FirstValue, &["first_value"]),
    (Aggregate::LastValue, &["last_value"]),
    (Aggregate::NthValue, &["nth_value"]),
    (Aggregate::FirstK, &["first_k"]),
    (Aggregate::LastK, &["last_k"]),
    (Aggregate::ArrayAgg, &["array_agg"]),
    (Aggregate::StringAgg, &["string_agg"]),
    (Aggregate::TopK, &["top_k"]),
    (Aggregate::BottomK, &["bottom_k"]),
    (Aggregate::Mode, &["mode"]),
    (Aggregate::Median, &["median"]),
    (Aggregate::PercentileCont, &["percentile_cont", "quantile_cont"]),
    (Aggregate::PercentileDisc, &["percentile_disc"]),
    (Aggregate::BoolAnd, &["bool_and", "every"]),
    (Aggregate::BoolOr, &["bool_or"]),
    (Aggregate::BitAnd, &["bit_and"]),
    (Aggregate::BitOr, &["bit_or"]),
    (Aggregate::BitXor, &["bit_xor"]),
    (Aggregate::DecaySum, &["decay_sum"]),
    (Aggregate::DecayCount, &["decay_count"]),
    (Aggregate::DecayAvg, &["decay_avg"]),
    (Aggregate::DecayAnchor, &["decay_anchor"]),
    (Aggregate::TopKBy, &["top_k_by"]),
    (Aggregate::BottomKBy, &["bottom_k_by"]),
    (Aggregate::GeometricMean, &["geometric_mean", "geomean"]),
    (Aggregate::Entropy, &["entropy"]),
    (Aggregate::Histogram, &["histogram"]),
    (Aggregate::Rate, &["rate"]),
    (Aggregate::Increase, &["increase"]),
    (Aggregate::VectorSum, &["vector_sum"]),
    (Aggregate::VectorAvg, &["vector_avg"]),
    (Aggregate::ApproxTopK, &["approx_top_k"]),
    (Aggregate::ApproxPercentile, &["approx_percentile"]),
];

impl Aggregate {
    /// Every aggregate, for documentation and tests.
    pub fn all() -> impl Iterator<Item = Aggregate> {
        NAMES.iter().map(|(aggregate, _)| *aggregate)
    }

    /// By SQL name.
    pub fn from_name(name: &str) -> Option<Aggregate> {
        NAMES.iter().find(|(_, names)| names.contains(&name)).map(|(aggregate, _)| *aggregate)
    }

    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(aggregate, _)| *aggregate == self).map_or("", |(_, names)| names[0])
    }

    /// The same with DISTINCT; `None` if that is not maintained.
    pub fn distinct(self) -> Option<Aggregate> {
        use Aggregate::*;
        Some(match self {
            Count => CountDistinct,
            Sum => SumDistinct,
            Avg => AvgDistinct,
            // How often a value is there does not matter to these.
            Min | Max | BoolAnd | BoolOr | BitAnd | BitOr | ApproxCountDistinct => self,
            _ => return None,
        })
    }

    pub fn takes(self) -> Takes {
        use Aggregate::*;
        match self {
            MinBy | MaxBy => Takes::Other,
            TopKBy | BottomKBy => Takes::OtherAndNumber,
            _ if self.is_of_pairs() => Takes::Other,
            NthValue | FirstK | LastK | TopK | BottomK | ApproxTopK => Takes::Number,
            PercentileCont | PercentileDisc | ApproxPercentile => Takes::Fraction,
            StringAgg => Takes::Text,
            DecaySum | DecayCount | DecayAvg | DecayAnchor => Takes::Duration,
            _ => Takes::Nothing,
        }
    }

    /// Of (y, x): events where one of them is NULL do not count.
    pub fn is_of_pairs(self) -> bool {
        use Aggregate::*;
        matches!(
            self,
            Corr | CovarSamp
                | CovarPop
                | RegrSlope
                | RegrIntercept
                | RegrR2
                | RegrCount
                | RegrAvgx
                | RegrAvgy
                | RegrSxx
                | RegrSyy
                | RegrSxy
        )
    }

    /// Its value is an array of arguments.
    pub fn is_array(self) -> bool {
        use Aggregate::*;
        matches!(self, FirstK | LastK | ArrayAgg | TopK | BottomK | TopKBy | BottomKBy | ApproxTopK)
    }

    /// Its value is as long as there are items, and every step of history holds it whole.
    pub fn is_long(self) -> bool {
        use Aggregate::*;
        self.is_array() || self.reads_frame() || matches!(self, Histogram | VectorSum | VectorAvg)
    }

    /// How many items its last argument may ask for.
    pub fn items_max(self) -> Option<u64> {
        match self {
            Aggregate::ApproxTopK => Some(FREQUENT_MAX),
            _ => self.is_array().then_some(ITEMS_MAX),
        }
    }

    /// Needs the events of its frame at every step, so that the frame has to be one that events leave.
    pub fn reads_frame(self) -> bool {
        use Aggregate::*;
        matches!(self, NthValue | FirstK | LastK | ArrayAgg | StringAgg)
    }

    /// Decays exponentially, and so has a value that changes with the time of the reading.
    pub fn decays(self) -> bool {
        matches!(self, Aggregate::DecaySum | Aggregate::DecayCount)
    }

    /// Cannot take an event away: the frame has to begin with the first event.
    pub fn only_grows(self) -> bool {
        matches!(self, Aggregate::DecayAvg | Aggregate::DecayAnchor) || self.decays()
    }

    /// Follows its events in their order: one that goes from among them makes it begin again.
    pub fn is_ordered(self) -> bool {
        matches!(self, Aggregate::MinBy | Aggregate::MaxBy | Aggregate::Increase) || self.only_grows()
    }

    /// Whether it keeps the distinct values of its frame and how often each is there.
    pub fn keeps_values(self, unbounded: bool) -> bool {
        use Aggregate::*;
        match self {
            CountDistinct | SumDistinct | AvgDistinct | Mode | Median | PercentileCont | PercentileDisc | TopK
            | BottomK | Entropy | Histogram => true,
            // A sketch where nothing ever leaves (decision 0004).
            ApproxCountDistinct | ApproxTopK | ApproxPercentile => !unbounded,
            _ => false,
        }
    }

    /// Of (x, y): the events are compared by `y`.
    pub fn is_by_other(self) -> bool {
        use Aggregate::*;
        matches!(self, MinBy | MaxBy | TopKBy | BottomKBy)
    }

    /// Whether it can be of arguments of this type.
    pub fn fits(self, arg: &DataType, other: Option<&DataType>) -> bool {
        use Aggregate::*;
        let is_number = |ty: &DataType| ty.is_integer() || ty.is_floating() || matches!(ty, DataType::Decimal128(..));
        let is_double = |ty: &DataType| ty.is_integer() || ty.is_floating();
        match self {
            Count | CountDistinct | DecayCount | DecayAnchor | Rate => true,
            DecaySum | DecayAvg | GeometricMean | Increase => is_double(arg),
            VectorSum | VectorAvg => matches!(arg, DataType::List(item) if is_double(item.data_type())),
            Histogram => arg.is_integer() || matches!(arg, DataType::Utf8 | DataType::Boolean),
            Sum | SumDistinct | Avg | AvgDistinct | Median | PercentileCont | ApproxPercentile => is_number(arg),
            VarSamp | VarPop | StddevSamp | StddevPop | Skewness | Kurtosis | KurtosisPop => is_double(arg),
            BoolAnd | BoolOr => *arg == DataType::Boolean,
            BitAnd | BitOr | BitXor => arg.is_integer(),
            StringAgg => *arg == DataType::Utf8,
            MinBy | MaxBy | TopKBy | BottomKBy => other.is_some_and(|other| !other.is_nested()) && !arg.is_nested(),
            _ if self.is_of_pairs() => is_double(arg) && other.is_some_and(is_double),
            _ => !arg.is_nested() && !matches!(arg, DataType::Decimal256(..)),
        }
    }

    /// The type of its value; `None`: that of DataFusion's aggregate of this name.
    pub fn result(self, arg: Option<&DataType>) -> Option<DataType> {
        use Aggregate::*;
        Some(match (self, arg) {
            (Count | CountDistinct | ApproxCountDistinct | RegrCount, _) => DataType::Int64,
            (Sum | SumDistinct, Some(DataType::Decimal128(_, scale))) => DataType::Decimal128(38, *scale),
            (Skewness | Kurtosis | KurtosisPop | Median | PercentileCont, _) => DataType::Float64,
            (DecaySum | DecayCount | DecayAvg, _) => DataType::Float64,
            (DecayAnchor, _) => crate::table::instant_type(),
            (StringAgg | Histogram, _) => DataType::Utf8,
            (GeometricMean | Entropy | Rate | ApproxPercentile, _) => DataType::Float64,
            (Increase, Some(arg)) if arg.is_integer() => DataType::Int64,
            (Increase, _) => DataType::Float64,
            (VectorSum | VectorAvg, Some(arg)) if is_vector(arg) => arg.clone(),
            (VectorSum | VectorAvg, _) => DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))),
            (_, Some(_)) if self.is_of_pairs() => DataType::Float64,
            (_, Some(arg)) if self.is_array() => DataType::List(Arc::new(Field::new_list_field(arg.clone(), true))),
            (MinBy | MaxBy | NthValue | Mode | PercentileDisc | BitAnd | BitOr | BitXor, Some(arg)) => arg.clone(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_aggregate_has_names_of_its_own() {
        for aggregate in Aggregate::all() {
            assert_eq!(Aggregate::from_name(aggregate.name()), Some(aggregate));
        }
        let mut names: Vec<&str> = NAMES.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
