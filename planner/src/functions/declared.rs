//! Aggregates that DataFusion lacks, or has with another result: known by name and type, so that a feature view can use
//! them. The engine makes them executable in other queries.

use crate::feature::{Aggregate, Takes, stored_type};
use arrow_schema::DataType;
use datafusion::{
    common::{not_impl_err, plan_err},
    error::Result,
    logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility, function::AccumulatorArgs},
};

const DECLARED: [Aggregate; 25] = [
    Aggregate::MinBy,
    Aggregate::MaxBy,
    Aggregate::Skewness,
    Aggregate::Kurtosis,
    Aggregate::KurtosisPop,
    Aggregate::FirstK,
    Aggregate::LastK,
    Aggregate::TopK,
    Aggregate::BottomK,
    Aggregate::Mode,
    Aggregate::PercentileDisc,
    Aggregate::DecaySum,
    Aggregate::DecayCount,
    Aggregate::DecayAvg,
    Aggregate::TopKBy,
    Aggregate::BottomKBy,
    Aggregate::GeometricMean,
    Aggregate::Entropy,
    Aggregate::Histogram,
    Aggregate::Rate,
    Aggregate::Increase,
    Aggregate::VectorSum,
    Aggregate::VectorAvg,
    Aggregate::ApproxTopK,
    Aggregate::ApproxPercentile,
];

/// Those that DataFusion has, too, with other results or arguments.
const ELSEWHERE: [Aggregate; 2] = [Aggregate::Median, Aggregate::PercentileCont];

/// For every query.
pub fn declared() -> impl Iterator<Item = AggregateUDF> {
    DECLARED.into_iter().map(|aggregate| AggregateUDF::new_from_impl(Declared::new(aggregate)))
}

/// For the definitions of feature views.
pub fn in_feature_views() -> impl Iterator<Item = AggregateUDF> {
    ELSEWHERE.into_iter().map(|aggregate| AggregateUDF::new_from_impl(Declared::new(aggregate)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Declared {
    aggregate: Aggregate,
    signature: Signature,
}

impl Declared {
    fn new(aggregate: Aggregate) -> Self {
        let arguments = match aggregate.takes() {
            Takes::Nothing => 1,
            Takes::OtherAndNumber => 3,
            _ => 2,
        };
        Declared { aggregate, signature: Signature::any(arguments, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Declared {
    fn name(&self) -> &str {
        self.aggregate.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        // Every text is one text.
        let stored: Vec<DataType> = types.iter().cloned().map(stored_type).collect();
        let (arg, other) = (stored.first(), stored.get(1));
        match arg.filter(|arg| self.aggregate.fits(arg, other)).and_then(|arg| self.aggregate.result(Some(arg))) {
            Some(ty) => Ok(ty),
            None => {
                let types = types.iter().map(crate::words::full_type_name).collect::<Vec<_>>().join(", ");
                plan_err!("No function matches the given name and argument types '{}({types})'. You might", self.name())
            }
        }
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        not_impl_err!("aggregate {} is maintained in feature views, and not available elsewhere", self.name())
    }
}
